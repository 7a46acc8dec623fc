"""uvicorn's HTTP/1.1 connection, with a deadline in every state, and a limit of how many there are."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.limits import Limits, RefusalError

IDLE_SECONDS = 15.0
"""Between two requests of a connection; uvicorn itself ends most of them sooner."""

IDLE, RECEIVING, ANSWERING, WRITING = "idle", "receiving", "answering", "writing"


def protocol(limits: Limits, count: Callable[[int], None]) -> type[H11Protocol]:
    """The class of the server's connections.

    Args:
        count: told the status of what is refused before there is a request.
    """
    # Peer -> how many connections it has, and those of them that are silent, the one that has waited longest first.
    # Both are kept at each step: who opens thousands a second would else have all of them counted each time.
    opened: dict[str, int] = {}
    silent: dict[str, dict[Any, None]] = {}

    def make_room() -> bool:
        """Ends the silent connection that has waited longest, of the peer that has most; whether there was one."""
        peers = [peer for peer, ones in silent.items() if ones]
        if not peers:
            return False
        oldest = next(iter(silent[max(peers, key=lambda peer: opened[peer])]))
        oldest.leave()
        oldest.transport.abort()
        return True

    class Protocol(H11Protocol):
        phase = ""
        _timer: asyncio.TimerHandle | None = None
        _peer: str | None = None

        def leave(self) -> None:
            """Counts no more."""
            peer, self._peer = self._peer, None
            if peer is None:
                return
            silent.get(peer, {}).pop(self, None)
            opened[peer] -= 1
            if not opened[peer]:
                del opened[peer]
                silent.pop(peer, None)

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            crowded = sum(opened.values()) >= limits.connections and not make_room()
            self._peer = self.client[0] if self.client else ""
            opened[self._peer] = opened.get(self._peer, 0) + 1
            self._enter(RECEIVING, limits.sender_seconds)
            if crowded:
                self._refuse(RefusalError(503, "too many connections; try again in a second.", retry_after="1"))

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)
                self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def eof_received(self) -> None:
            # Nobody can send half of a request and wait: what is whole is answered, the rest is over.
            if self.phase in (IDLE, RECEIVING):
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self.leave()
            self._stop()
            super().connection_lost(exc)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._look()

        def _look(self) -> None:
            """Finds out which state the connection is in."""
            state, answered = self.conn.their_state, self.cycle is None or self.cycle.response_complete
            if answered and self.transport.get_write_buffer_size():
                self._enter(WRITING, limits.reader_seconds)
            elif state is h11.SEND_BODY or (state is h11.IDLE and self.conn.trailing_data[0]):
                self._enter(RECEIVING, limits.sender_seconds)
            elif answered:
                self._enter(IDLE, IDLE_SECONDS)
            else:
                self._enter(ANSWERING, limits.answer_seconds + limits.reader_seconds)

        def _enter(self, phase: str, seconds: float) -> None:
            # In the same state the deadline stays: who sends a byte now and then gains nothing.
            if phase != self.phase:
                self._stop()
                self.phase = phase
                self._timer = self.loop.call_later(seconds, self._late)
                if self._peer is not None:
                    waiting = silent.setdefault(self._peer, {})
                    waiting.pop(self, None)
                    if phase in (IDLE, RECEIVING):
                        waiting[self] = None

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            self._timer = None
            if self.phase != RECEIVING or self.transport.is_closing():
                self.transport.abort()
            elif self.conn.their_state is h11.IDLE:
                self._refuse(RefusalError(408, "the headers did not arrive in time."))
            elif self.cycle is not None and not self.cycle.response_started:
                self._refuse(RefusalError(408, "the body did not arrive in time."))
            else:  # it has its answer, and does not send what it said it would
                self.transport.abort()

        def send_400_response(self, msg: str) -> None:
            self._refuse(RefusalError(400, "this is not a valid HTTP request."))

        def _refuse(self, refusal: RefusalError) -> None:
            count(refusal.status)
            status = HTTPStatus(refusal.status)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
            self.transport.write(f"{head}Content-Length: {len(refusal.body)}\r\n\r\n".encode() + refusal.body)
            self.transport.close()
            self._enter(WRITING, limits.reader_seconds)

    return Protocol
