"""uvicorn's HTTP/1.1 connection, with a deadline in every state, and a limit of how many there are.

What many peers do at the same moment is spread out: of new connections a few are taken in a round of the event loop,
and of those whose time is over one is ended a millisecond. Who is connected already waits for a few at most.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.limits import Limits, RefusalError

IDLE_SECONDS = 15.0
"""Between two requests of a connection; uvicorn itself ends most of them sooner."""

A_ROUND = 8
"""Connections that are taken before those that are open have their turn again."""
APART_SECONDS = 0.001
"""Between two connections that are ended because their time is over."""
ROOM_SECONDS, AT_ONCE = 0.005, 64
"""Between two connections of the peer that has most, for which older ones of it make room; how many may be early."""

Address = tuple[str, int]

IDLE, RECEIVING, ANSWERING, WRITING = "idle", "receiving", "answering", "writing"


class Peers:
    """Who is connected, and who is let in. A connection is known by its address: the peer, and the port there.

    Attributes:
        opened: peer -> the ports of its connections.
        silent: peer -> those that are silent, the one that has waited longest first, and what ends it. Both are kept at
            each step: who opens thousands a second would else have all of them counted each time.
        count: told the status of what is refused before there is a request.
    """

    def __init__(self, limits: Limits, count: Callable[[int], None]) -> None:
        self.limits, self.count = limits, count
        self.opened: dict[str, set[int]] = {}
        self.silent: dict[str, dict[int, Callable[[], object]]] = {}
        self._total = 0
        self._room_at = 0.0

    def admits(self, peer: str) -> bool:
        """Whether there is room for one more connection of a peer, or another one makes it.

        That is the silent one that has waited longest, of the peer that has most. A peer that has most itself gains
        little by opening more: so many of its own make room in a second, and no more.
        """
        if self._total < self.limits.connections:
            return True
        peers = [peer for peer, ones in self.silent.items() if ones]
        if not peers:
            return False
        most = max(peers, key=lambda peer: len(self.opened[peer]))
        if len(self.opened.get(peer, ())) >= len(self.opened[most]):
            now = time.monotonic()
            if now < self._room_at - AT_ONCE * ROOM_SECONDS:
                return False
            self._room_at = max(self._room_at, now) + ROOM_SECONDS
        port, end = next(iter(self.silent[most].items()))
        self.left((most, port))
        end()
        return True

    def entered(self, address: Address, end: Callable[[], object]) -> None:
        """Counts a connection, which is silent as yet."""
        self.opened.setdefault(address[0], set()).add(address[1])
        self._total += 1
        self.waits(address, end)

    def waits(self, address: Address, end: Callable[[], object]) -> None:
        """Says that a connection is silent from now on."""
        peer, port = address
        if port in self.opened.get(peer, ()):
            waiting = self.silent.setdefault(peer, {})
            waiting.pop(port, None)
            waiting[port] = end

    def speaks(self, address: Address) -> None:
        """Says that a connection has asked for something."""
        self.silent.get(address[0], {}).pop(address[1], None)

    def left(self, address: Address) -> None:
        """Counts a connection no more."""
        peer, port = address
        if port in self.opened.get(peer, ()):
            self.speaks(address)
            self.opened[peer].remove(port)
            self._total -= 1
            if not self.opened[peer]:
                del self.opened[peer]
                self.silent.pop(peer, None)


def answer_of(refusal: RefusalError) -> bytes:
    """What is sent to whom nothing else is said."""
    status = HTTPStatus(refusal.status)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in refusal.headers.items())
    return f"{head}Content-Length: {len(refusal.body)}\r\n\r\n".encode() + refusal.body


FULL = RefusalError(503, "too many connections; try again in a second.", retry_after="1")


class Door(socket.socket):
    """A socket that listens. Whom there is no room for is sent away here, in a tenth of the time that the event loop
    takes to make a connection of one; and a few are let in at a time, for that loop takes all that come.
    """

    @classmethod
    def of(cls, host: str, port: int, peers: Peers) -> list[socket.socket]:
        """One for each address of a host.

        Raises:
            OSError: an address is not to be had.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [cls(family, address, peers) for family, _, _, _, address in found]

    def __init__(self, family: int, address: Any, peers: Peers) -> None:
        # asyncio sends at once what is small, but only on a socket that says it is TCP's.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._peers, self._left, self._goodbye = peers, A_ROUND, answer_of(FULL)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.bind(address)

    def accept(self) -> tuple[socket.socket, Any]:
        """As the event loop calls it, until there is nobody, or it is said so."""
        while self._left:
            self._left -= 1
            try:
                connection, address = super().accept()
            except OSError:
                self._left = A_ROUND
                raise
            if self._peers.admits(address[0]):
                return Guest(connection, address[:2], self._peers), address
            self._peers.count(FULL.status)
            connection.setblocking(False)
            with connection, contextlib.suppress(OSError):
                connection.send(self._goodbye)
        self._left = A_ROUND
        raise BlockingIOError


class Guest(socket.socket):
    """A connection from the moment it is taken, so that one which never ends its TLS handshake counts, too."""

    def __init__(self, connection: socket.socket, address: Address, peers: Peers) -> None:
        family, kind, protocol = connection.family, connection.type, connection.proto
        super().__init__(family, kind, protocol, connection.detach())
        self._left = partial(peers.left, address)
        peers.entered(address, self._end)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As the event loop calls it."""
        self._left()
        super().close()


class Loop(asyncio.SelectorEventLoop):
    """asyncio's event loop, which waits for a TLS handshake as long as for a request."""

    handshake_seconds = 10.0

    async def create_server(self, *given: Any, **named: Any) -> asyncio.Server:
        """As uvicorn calls it."""
        if named.get("ssl"):
            named |= {"ssl_handshake_timeout": self.handshake_seconds, "ssl_shutdown_timeout": self.handshake_seconds}
        return await super().create_server(*given, **named)


def protocol(peers: Peers) -> type[H11Protocol]:
    """The class of the server's connections."""
    limits = peers.limits
    ended_at = 0.0

    class Protocol(H11Protocol):
        phase = ""
        _timer: asyncio.TimerHandle | None = None
        _address: Address = "", 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._address = self.client or ("", 0)
            self._enter(RECEIVING, limits.sender_seconds)

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
                if phase in (IDLE, RECEIVING):
                    peers.waits(self._address, self.transport.abort)
                else:
                    peers.speaks(self._address)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            nonlocal ended_at
            ended_at = max(ended_at + APART_SECONDS, self.loop.time())
            self._timer = self.loop.call_at(ended_at, self._end)

        def _end(self) -> None:
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
            peers.count(refusal.status)
            self.transport.write(answer_of(refusal))
            self.transport.close()
            self._enter(WRITING, limits.reader_seconds)

    return Protocol
