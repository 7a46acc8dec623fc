"""The server: MLflow's scoring protocol for the served model, with the limits and the reloading that MLflow's lacks.

`/invocations`, `/ping`, `/health` and `/version` answer as `mlflow models serve` answers, and every refusal is a short
JSON message. What MLflow's own server does with a request is not used: it parses and converts before anything is
checked (records with different keys become a data frame of their product, a long string an array of its length
squared), echoes what it was sent, and takes longer than the model.
"""

import asyncio
import contextlib
import io
import json
import logging
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from itertools import accumulate
from typing import Any

import h11
import mlflow
import numpy as np
from mlflow.version import VERSION
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.model import invalid, pixels, table
from serving.versions import Watcher

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
PATHS = {
    "/invocations": "POST",
    "/ping": "GET",
    "/health": "GET",
    "/version": "GET",
    "/metrics": "GET",
    "/model": "GET",
}
AT_WORK = 2
"""Requests that are computed at the same time; the others wait."""
INLINE_BYTES = 65_536
"""Up to here a request takes less time than handing it to a thread and back would cost the others."""
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

log = logging.getLogger("serving")


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Args:
        body_bytes: size of a body; above it the answer is 413.
        sender_seconds: for the headers, and for the body; above it the answer is 408.
        requests: at work and waiting at the same time; above it the answer is 503.
    """

    body_bytes: int = 4 * 2**20
    sender_seconds: float = 10.0
    requests: int = 128

    @property
    def buffered_bytes(self) -> int:
        """Of all bodies together."""
        return 16 * self.body_bytes


class RefusalError(Exception):
    """A request that is refused, and how."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or ("BAD_REQUEST" if status == 400 else HTTPStatus(status).name)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def body(self) -> bytes:
        """What is answered."""
        return json.dumps({"error_code": self.code, "message": str(self)}).encode()


def images(body: bytes | bytearray, mime: str, features: int) -> np.ndarray:
    """The checked images of a request.

    Raises:
        RefusalError: the body is not of the protocol.
        MlflowException: INVALID_PARAMETER_VALUE; the images are not as the model takes them.
    """
    if mime == "text/csv":
        return pixels(_csv(body, features), features)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusalError(400, "the body is not JSON, or is nested too deep.") from None
    forms = [form for form in FORMS if form in document] if isinstance(document, dict) else []
    if len(forms) != 1:
        raise RefusalError(
            400, f"the body has {len(forms)} of the keys it must have exactly one of: {', '.join(FORMS)}."
        )
    (form,) = forms
    data = document[form]
    if form == "dataframe_split":
        data = _split(data, features)
    elif form == "dataframe_records":
        data = _records(data, features)
    return pixels(data, features)


def _split(data: Any, features: int) -> list[Any]:
    rows = data.get("data") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise invalid("dataframe_split has no rows; legal: {'columns': [...], 'data': [[...], ...]}.")
    columns = data.get("columns", range(len(rows[0]) if rows else features))
    if not isinstance(columns, list | range):
        raise invalid("the columns of dataframe_split are not a list.")
    return table(columns, rows, features)


def _records(data: Any, features: int) -> list[Any]:
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise invalid("dataframe_records is not a list of records; legal: [{'0': 12, '1': 0, ...}, ...].")
    columns = list(data[0]) if data else range(features)
    if any(len(record) != len(columns) or not record.keys() >= data[0].keys() for record in data):
        raise invalid("the records differ in their keys; legal: one key for each pixel, the same in all.")
    return table(columns, [[record[column] for column in columns] for record in data], features)


def _csv(body: bytes | bytearray, features: int) -> list[Any]:
    wrong = f"the CSV does not fit; legal: a header, then one line for each image with {features} numbers."
    try:
        header, _, lines = body.decode("utf-8-sig").partition("\n")
        columns = [name.strip().strip('"') for name in header.split(",", features)]
        if len(set(columns)) != features:
            raise invalid(wrong)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = np.loadtxt(io.StringIO(lines), delimiter=",", comments=None, quotechar='"', ndmin=2)
    except ValueError:
        raise invalid(wrong) from None
    return table(columns, rows.tolist() if rows.size else [], features)


class App:
    """The ASGI application."""

    def __init__(self, watcher: Watcher, limits: Limits) -> None:
        self.watcher = watcher
        self.limits = limits
        self.requests: Counter[tuple[str, int]] = Counter()
        self.images = 0
        self._seconds: Counter[float] = Counter()
        self._seconds_sum = 0.0
        self._present = 0
        self._buffered = 0
        self._turns = asyncio.Semaphore(AT_WORK)
        self._pool = ThreadPoolExecutor(AT_WORK, thread_name_prefix="predict")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        path = scope["path"] if scope["path"] in PATHS else "other"
        headers = {"content-type": "application/json"}
        status, count = 200, 0
        try:
            legal = PATHS.get(path)
            if legal is None:
                raise RefusalError(404, f"there is no such path; legal: {', '.join(PATHS)}.")
            if scope["method"] not in (legal, "HEAD" if legal == "GET" else legal):
                raise RefusalError(405, f"the method is not allowed; legal: {legal}.", allow=legal)
            if path == "/invocations":
                body, count = await self._invocations(scope, receive, headers)
            else:
                body = getattr(self, f"_{path[1:]}")(headers)
        except ConnectionError:
            return
        except RefusalError as refusal:
            status, body = refusal.status, refusal.body
            headers |= refusal.headers
        except mlflow.MlflowException as error:
            status = error.get_http_status_code()
            body = RefusalError(status, error.message, error.error_code).body
        except Exception as error:
            # Its text may hold what was sent.
            log.error("%s while answering", type(error).__name__)
            log.debug("where", exc_info=error)
            status, body = 500, RefusalError(500, "the server failed; its log says more.").body
        headers["content-length"] = str(len(body))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})
        self._record(path, status, count, time.perf_counter() - started)

    async def _invocations(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> tuple[bytes, int]:
        if self._present >= self.limits.requests or self._buffered >= self.limits.buffered_bytes:
            raise RefusalError(503, "too many requests at once; try again in a second.", retry_after="1")
        self._present += 1
        body = bytearray()
        try:
            mime, length = _framing(scope)
            if length > self.limits.body_bytes:
                raise self._too_large()
            await self._read(receive, body)
            async with self._turns:
                if len(body) <= INLINE_BYTES:
                    result, number, count = self._predict(body, mime)
                else:
                    work = asyncio.get_running_loop().run_in_executor(self._pool, self._predict, body, mime)
                    result, number, count = await work
        finally:
            self._present -= 1
            self._buffered -= len(body)
        headers["model-version"] = number
        return result, count

    async def _read(self, receive: Receive, body: bytearray) -> None:
        try:
            async with asyncio.timeout(self.limits.sender_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    body += message["body"]
                    self._buffered += len(message["body"])
                    if len(body) > self.limits.body_bytes:
                        raise self._too_large()
                    if not message["more_body"]:
                        return
        except TimeoutError:
            # The rest may yet come, so the connection ends here.
            raise RefusalError(408, "the body did not arrive in time.", connection="close") from None

    def _too_large(self) -> RefusalError:
        return RefusalError(413, f"the body is too large; legal: up to {self.limits.body_bytes} bytes.")

    def _predict(self, body: bytearray, mime: str) -> tuple[bytes, str, int]:
        version = self.watcher.current  # One look, so that checks and answer are of the same version.
        if version is None:
            raise RefusalError(503, "no version of the model is loaded yet.", retry_after="5")
        batch = images(body, mime, version.model.features)
        answer = json.dumps({"predictions": version.model.answer(batch)}).encode()
        return answer, version.number, len(batch)

    def _health(self, headers: dict[str, str]) -> bytes:
        if self.watcher.current is None:
            raise RefusalError(503, "no version of the model is loaded yet.", retry_after="5")
        return b"\n"

    _ping = _health

    def _version(self, headers: dict[str, str]) -> bytes:
        return str(VERSION).encode()

    def _model(self, headers: dict[str, str]) -> bytes:
        current, refused = self.watcher.current, self.watcher.refused
        return json.dumps(
            {
                "model": self.watcher.reference.uri,
                "version": current and current.number,
                "registry_reachable": self.watcher.reachable,
                "refused": refused and {"version": refused[0], "why": refused[1]},
            }
        ).encode()

    def _metrics(self, headers: dict[str, str]) -> bytes:
        headers["content-type"] = "text/plain; version=0.0.4; charset=utf-8"
        current, name = self.watcher.current, self.watcher.reference.name
        counts = [f'{{path="{path}",status="{status}"}} {n}' for (path, status), n in sorted(self.requests.items())]
        totals = list(accumulate(self._seconds[bound] for bound in BUCKETS))
        count = totals[-1] + self._seconds[float("inf")]
        seconds = [f'_bucket{{le="{bound}"}} {total}' for bound, total in zip(BUCKETS, totals, strict=True)]
        seconds += [f'_bucket{{le="+Inf"}} {count}', f"_sum {self._seconds_sum:.6f}", f"_count {count}"]
        version = [f'{{name="{name}",version="{current.number}"}} 1'] if current else []
        families: list[tuple[str, str, str, list[str]]] = [
            ("serving_requests_total", "counter", "Requests answered.", counts),
            ("serving_request_seconds", "histogram", "Seconds from a request's headers to its answer.", seconds),
            ("serving_images_total", "counter", "Images answered.", [f" {self.images}"]),
            ("serving_requests_present", "gauge", "Requests at work or waiting.", [f" {self._present}"]),
            ("serving_model_version", "gauge", "The version that is served.", version),
            ("serving_load_failures_total", "counter", "Versions not loaded.", [f" {self.watcher.failures}"]),
            ("serving_registry_reachable", "gauge", "Whether the registry answers.", [f" {self.watcher.reachable:d}"]),
        ]
        lines = []
        for family, kind, text, samples in families:
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}", *(family + sample for sample in samples)]
        return ("\n".join(lines) + "\n").encode()

    def _record(self, path: str, status: int, count: int, seconds: float) -> None:
        self.requests[path, status] += 1
        if path != "/invocations":
            return
        self.images += count
        self._seconds[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1
        self._seconds_sum += seconds
        current = self.watcher.current
        line = {
            "time": round(time.time(), 3),
            "status": status,
            "images": count,
            "ms": round(seconds * 1000, 2),
            "version": current and current.number,
        }
        with contextlib.suppress(OSError):  # nobody reads it any more, or the disk is full
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def _framing(scope: Scope) -> tuple[str, int]:
    """The media type of a request and the length its body is said to have (0: not said)."""
    sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if sent.get("content-encoding", "identity").lower() != "identity":
        raise RefusalError(415, "the body is compressed; legal: no Content-Encoding.")
    mime, *parameters = [part.strip().lower() for part in sent.get("content-type", "").split(";")]
    if mime not in ("application/json", "text/csv"):
        raise RefusalError(415, "the Content-Type is missing or wrong; legal: application/json, text/csv.")
    if any(parameter.replace('"', "") not in ("", "charset=utf-8") for parameter in parameters):
        raise RefusalError(415, "the Content-Type has an unknown parameter; legal: charset=utf-8.")
    return mime, int(sent.get("content-length", 0))


def protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, but a connection whose headers do not arrive in time is closed, after a 408."""

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._late)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._timer is None and self.conn.trailing_data[0]:
                self._timer = self.loop.call_later(seconds, self._late)

        def on_response_complete(self) -> None:
            self._stop()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _late(self) -> None:
            if not self.transport.is_closing():
                self._refuse(RefusalError(408, "the headers did not arrive in time."))

        def send_400_response(self, msg: str) -> None:
            self._refuse(RefusalError(400, "this is not a valid HTTP request."))

        def _refuse(self, refusal: RefusalError) -> None:
            status = HTTPStatus(refusal.status)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self.transport.write(f"{head}Content-Length: {len(refusal.body)}\r\n\r\n".encode() + refusal.body)
            self.transport.close()

    return Protocol
