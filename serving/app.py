"""The server: MLflow's scoring protocol for the served model, with the limits and the reloading that MLflow's lacks.

`/invocations`, `/ping`, `/health` and `/version` answer as `mlflow models serve` answers, and every refusal is a short
JSON message. What MLflow's own server does with a request is not used: it parses and converts before anything is
checked (records with different keys become a data frame of their product, a long string an array of its length
squared), echoes what it was sent, and takes longer than the model.

Small requests are answered on the serving loop, which takes less time than to hand them over. Large ones are parsed in
processes of their own and computed in threads, so that nobody waits for another one's megabytes.
"""

import asyncio
import base64
import contextlib
import ctypes
import hmac
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

from serving import parsing
from serving.description import OPEN, described, openapi, page_of_docs
from serving.limits import Limits, RefusalError
from serving.lines import Lines
from serving.model import Contract
from serving.versions import Version, Watcher

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATHS = {
    "/invocations": "POST",
    "/ping": "GET",
    "/health": "GET",
    "/version": "GET",
    "/metrics": "GET",
    "/model": "GET",
    "/": "GET",
    "/docs": "GET",
    "/openapi.json": "GET",
    "/page.js": "GET",
    "/page.css": "GET",
}
AT_WORK = 2
"""Large requests that are parsed or computed at the same time; the others wait."""
INLINE_BYTES, INLINE_NUMBERS = 65_536, 65_536
"""Up to here a request takes less time than handing it over and back would cost the others."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PAGE = Path(__file__).with_name("page")
SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
"""Of pages: nothing from elsewhere, nothing inline."""

log = logging.getLogger("serving")


def give_back_memory() -> None:
    """Has the C library return large blocks at once; it would else keep them, as many as there ever were."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 2**21)  # M_MMAP_THRESHOLD of glibc


def _begin() -> None:
    """What a process that parses does first: it leaves the processors to who answers, wherever these are few."""
    import os
    import signal

    give_back_memory()
    os.nice(10)

    signal.signal(signal.SIGINT, signal.SIG_IGN)


class App:
    """The ASGI application.

    Args:
        version: of MLflow, as `/version` says it.
        token: that a request has to bear; "" if none.
        lines: where requests are logged.
    """

    def __init__(
        self, watcher: Watcher, limits: Limits, version: str = "", token: str = "", lines: Lines | None = None
    ) -> None:
        self.watcher = watcher
        self.limits = limits
        self.requests: Counter[tuple[str, int]] = Counter()
        self.warnings: Counter[str] = Counter()
        self.examples = 0
        self._mlflow, self._token, self._lines = version, token, lines
        self._seconds: Counter[float] = Counter()
        self._seconds_sum = 0.0
        self._present = 0
        self._bodies: dict[asyncio.Task[Any], int] = {}
        self._turns = asyncio.Semaphore(AT_WORK)
        self._threads = ThreadPoolExecutor(AT_WORK, thread_name_prefix="predict")
        self._processes = self._new_processes()
        self._page: dict[str, bytes] = {}

    def _new_processes(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(AT_WORK, multiprocessing.get_context("spawn"), initializer=_begin)

    def warm(self) -> None:
        """Starts the processes that parse, so that the first large request need not wait for them."""
        for _ in range(AT_WORK):
            self._processes.submit(time.sleep, 0.05)

    def close(self) -> None:
        """Ends the processes that parse."""
        self._processes.shutdown(wait=False, cancel_futures=True)

    def count(self, status: int) -> None:
        """Counts what was refused before there was a request."""
        self.requests["other", status] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        path = scope["path"] if scope["path"] in PATHS else "other"
        headers = {"content-type": "application/json", "x-content-type-options": "nosniff"}
        status, count = 200, 0
        try:
            if scope["http_version"] not in ("1.0", "1.1"):
                raise RefusalError(505, "the HTTP version is not known; legal: 1.0, 1.1.", connection="close")
            legal = PATHS.get(path)
            if legal is None:
                raise RefusalError(404, f"there is no such path; legal: {', '.join(PATHS)}.")
            if scope["method"] not in (legal, "HEAD" if legal == "GET" else legal):
                raise RefusalError(405, f"the method is not allowed; legal: {legal}.", allow=legal)
            self._admit(path, scope)
            if path == "/invocations":
                body, count = await self._invocations(scope, receive, headers)
            else:
                body = getattr(self, f"_{path[1:].replace('.', '_') or 'index'}")(headers)
        except ConnectionError:
            return
        except RefusalError as refusal:
            status, body = refusal.status, refusal.body
            headers |= refusal.headers
        except Exception as error:
            # Its text may hold what was sent.
            log.error("%s while answering", type(error).__name__)
            log.debug("where", exc_info=error)
            status, body = 500, RefusalError(500, "the server failed; its log says more.").body
        headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        self._record(path, status, count, time.perf_counter() - started)

    def _admit(self, path: str, scope: Scope) -> None:
        """Sees that a request bears the token: as such, or as the password of whatever user."""
        if not self._token or path in OPEN:
            return
        kind, _, given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                given = ""
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise RefusalError(401, "the token is missing or wrong.", "UNAUTHENTICATED", www_authenticate="Basic")

    async def _invocations(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> tuple[bytes, int]:
        mime, encoding, length = _framing(scope)
        if length > self.limits.body_bytes:
            raise self._too_large()
        # A slot is for who has sent everything: who does not holds a connection, and only until its deadline.
        body = await self._read(receive)
        version = self.watcher.current  # One look, so that checks and answer are of the same version.
        if version is None:
            raise RefusalError(503, "no version of the model is loaded yet.", retry_after="5")
        if self._present >= self.limits.requests:
            raise RefusalError(503, "too many requests at once; try again in a second.", retry_after="1")
        self._present += 1
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                answer, rows, remarks = await self._answer(version, body, mime, encoding)
        except TimeoutError:
            raise RefusalError(503, "it took too long; try again later.", retry_after="5") from None
        finally:
            self._present -= 1
        headers["model-version"] = version.number
        if remarks:
            headers["model-warning"] = ", ".join(remarks)
            self.warnings.update(remarks)
        return answer, rows

    async def _answer(
        self, version: Version, body: bytearray, mime: str, encoding: str
    ) -> tuple[bytes, int, list[str]]:
        contract = version.contract
        if len(body) <= INLINE_BYTES and not encoding and mime not in parsing.PICTURES and b'"b64"' not in body:
            checked = parsing.checked(bytes(body), mime, encoding, self.limits.body_bytes, contract)
        else:
            async with self._turns:
                checked = await self._checked_elsewhere(bytes(body), mime, encoding, contract)
        arrays, remarks, picture = checked
        rows = len(arrays[0])
        try:
            if version.inline and sum(array.size for array in arrays) <= INLINE_NUMBERS:
                outputs = version.graph.outputs(arrays)
            else:
                async with self._turns:
                    outputs = await self._computed(version, arrays)
        except ValueError as error:
            raise RefusalError(422, f"{error}.") from None
        if sum(array.size for array in outputs) <= INLINE_NUMBERS // 8:
            answer = parsing.answer(contract, outputs)
        else:
            async with self._turns:
                answer = await self._elsewhere(parsing.answer, contract, outputs)
        if picture:
            answer = answer[:-1] + b', "picture": "' + picture.encode() + b'"}'
        return answer, rows, remarks

    async def _checked_elsewhere(self, body: bytes, mime: str, encoding: str, contract: Contract) -> parsing.Checked:
        if mime == "application/json" and not encoding:
            run = asyncio.get_running_loop().run_in_executor
            if (quick := await run(self._threads, parsing.quickly, body, contract)) is not None:
                return quick
        found: parsing.Checked = await self._elsewhere(
            parsing.checked, body, mime, encoding, self.limits.body_bytes, contract
        )
        return found

    async def _elsewhere(self, work: Callable[..., Any], *given: Any) -> Any:
        """Does what Python would let nothing run beside in another process."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._processes, work, *given)
        except BrokenExecutor:  # it was killed, for want of memory or by hand
            self._processes.shutdown(wait=False)
            self._processes = self._new_processes()
            raise RefusalError(503, "the server is short of memory; try again in a second.", retry_after="1") from None

    async def _computed(self, version: Version, arrays: Any) -> Any:
        """Computes in a thread; a graph that has no end is told to end."""
        options = version.graph.options()
        work = asyncio.get_running_loop().run_in_executor(self._threads, version.graph.outputs, arrays, options)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            options.terminate = True
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    async def _read(self, receive: Receive) -> bytearray:
        """The body of a request. How long it may take is the connection's, see `serving.connections`."""
        body, task = bytearray(), asyncio.current_task()
        assert task is not None
        self._bodies[task] = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                body += message["body"]
                self._bodies[task] = len(body)
                if len(body) > self.limits.body_bytes:
                    raise self._too_large()
                if not message["more_body"]:
                    return body
                if sum(self._bodies.values()) > self.limits.buffered_bytes:
                    largest = max(self._bodies, key=lambda one: self._bodies[one])
                    if largest is task:
                        raise self._no_room()
                    self._bodies[largest] = 0
                    largest.cancel("room")
        except asyncio.CancelledError as error:
            if error.args != ("room",):
                raise
            task.uncancel()
            raise self._no_room() from None
        finally:
            del self._bodies[task]

    @staticmethod
    def _no_room() -> RefusalError:
        return RefusalError(503, "too many bytes at once; try again in a second.", retry_after="1", connection="close")

    def _too_large(self) -> RefusalError:
        return RefusalError(413, f"the body is too large; legal: up to {self.limits.body_bytes} bytes.")

    # -------------------------------------------------------------------------------------------------- other paths

    def _health(self, headers: dict[str, str]) -> bytes:
        current = self.watcher.current
        if current is None:
            raise RefusalError(503, "no version of the model is loaded yet.", retry_after="5")
        if current.contract.notice:
            headers["model-warning"] = "stand-in-data"
        return b"\n"

    _ping = _health

    def _version(self, headers: dict[str, str]) -> bytes:
        return self._mlflow.encode()

    def _model(self, headers: dict[str, str]) -> bytes:
        return described(self.watcher, self.limits)

    def _openapi_json(self, headers: dict[str, str]) -> bytes:
        return openapi(self.watcher, self.limits, bool(self._token))

    def _docs(self, headers: dict[str, str]) -> bytes:
        headers |= {"content-type": "text/html; charset=utf-8", **SAFE}
        return page_of_docs(self.watcher, self.limits)

    def _index(self, headers: dict[str, str]) -> bytes:
        return self._file("page.html", "text/html; charset=utf-8", headers)

    def _page_js(self, headers: dict[str, str]) -> bytes:
        return self._file("page.js", "text/javascript; charset=utf-8", headers)

    def _page_css(self, headers: dict[str, str]) -> bytes:
        return self._file("page.css", "text/css; charset=utf-8", headers)

    def _file(self, name: str, mime: str, headers: dict[str, str]) -> bytes:
        headers |= {"content-type": mime, **SAFE}
        if name not in self._page:
            self._page[name] = (PAGE / name).read_bytes()
        return self._page[name]

    def _metrics(self, headers: dict[str, str]) -> bytes:
        headers["content-type"] = "text/plain; version=0.0.4; charset=utf-8"
        watcher, name = self.watcher, self.watcher.reference.name
        current = watcher.current
        counts = [f'{{path="{path}",status="{status}"}} {n}' for (path, status), n in sorted(self.requests.items())]
        totals = list(accumulate(self._seconds[bound] for bound in BUCKETS))
        count = totals[-1] + self._seconds[float("inf")]
        seconds = [f'_bucket{{le="{bound}"}} {total}' for bound, total in zip(BUCKETS, totals, strict=True)]
        seconds += [f'_bucket{{le="+Inf"}} {count}', f"_sum {self._seconds_sum:.6f}", f"_count {count}"]
        version = [f'{{name="{name}",version="{current.number}"}} 1'] if current else []
        warned = [f'{{warning="{warning}"}} {n}' for warning, n in sorted(self.warnings.items())]
        families: list[tuple[str, str, str, list[str]]] = [
            ("serving_requests_total", "counter", "Requests answered.", counts),
            ("serving_request_seconds", "histogram", "Seconds from a request's headers to its answer.", seconds),
            ("serving_images_total", "counter", "Examples answered.", [f" {self.examples}"]),
            ("serving_warnings_total", "counter", "Answers with a warning.", warned),
            ("serving_requests_present", "gauge", "Requests at work or waiting.", [f" {self._present}"]),
            ("serving_bodies_present", "gauge", "Bodies that are not there yet.", [f" {len(self._bodies)}"]),
            ("serving_model_version", "gauge", "The version that is served.", version),
            ("serving_load_failures_total", "counter", "Versions not loaded.", [f" {watcher.failures}"]),
            ("serving_registry_reachable", "gauge", "Whether the registry answers.", [f" {watcher.reachable:d}"]),
            (
                "serving_version_gone",
                "gauge",
                "Whether what is served is in the registry no more.",
                [f" {watcher.gone:d}"],
            ),
        ]
        lines = []
        for family, kind, text, samples in families:
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}", *(family + sample for sample in samples)]
        return ("\n".join(lines) + "\n").encode()

    def _record(self, path: str, status: int, count: int, seconds: float) -> None:
        self.requests[path, status] += 1
        if path != "/invocations":
            return
        self.examples += count
        self._seconds[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1
        self._seconds_sum += seconds
        current = self.watcher.current
        if self._lines:
            ms, number = round(seconds * 1000, 2), current and current.number
            line = {"time": round(time.time(), 3), "status": status, "images": count, "ms": ms, "version": number}
            self._lines.put(line)


def _framing(scope: Scope) -> tuple[str, str, int]:
    """The media type of a request, how it is packed, and the length its body is said to have (0: not said)."""
    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    encoding = sent.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise RefusalError(415, "the body is packed in a way that is not known; legal: gzip, or no Content-Encoding.")
    mime, *parameters = [part.strip().lower() for part in sent.get("content-type", "").split(";")]
    if mime not in parsing.MIMES:
        raise RefusalError(415, f"the Content-Type is missing or wrong; legal: {', '.join(parsing.MIMES)}.")
    if any(parameter.replace('"', "") not in ("", "charset=utf-8") for parameter in parameters):
        raise RefusalError(415, "the Content-Type has an unknown parameter; legal: charset=utf-8.")
    return mime, "gzip" if encoding == "gzip" else "", int(sent.get("content-length", 0))
