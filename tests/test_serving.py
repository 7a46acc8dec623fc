"""The model server, as a process on a real registry, and the client."""

import asyncio
import contextlib
import gzip
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE, ROOT, free_port, wait_until

pytestmark = pytest.mark.filterwarnings("ignore")

SECRET = "hunter2-5ebe2294"
"""It is in what is sent; an answer or a log that has it repeats what was sent."""
PIXELS = 784
IMAGE = [place % 256 for place in range(PIXELS)]
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
MAX_BODY = 2**20
MAX_REQUESTS = 80


def inputs(value: Any) -> bytes:
    return json.dumps({"inputs": value, "note": SECRET}).encode()


def row(value: Any, place: int = 5) -> list[Any]:
    """An image with something in place of one of its numbers."""
    return [*IMAGE[:place], value, *IMAGE[place + 1 :]]


def literal(text: str) -> bytes:
    """A body in which one number of the second image is `text` as it stands."""
    return inputs([IMAGE, row("@")]).replace(b'"@"', text.encode())


def csv(*lines: Any) -> bytes:
    return "\n".join(",".join(map(str, line)) for line in lines).encode() + b"\n"


HEADER = list(range(PIXELS))


@dataclass(frozen=True)
class Bad:
    """A request that is refused."""

    body: bytes
    status: int = 400
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    plain: bool = True
    """Whether MLflow's own server refuses it, too, and in a moment."""


RECORD = {str(place): value for place, value in enumerate(IMAGE)}
BAD = {
    "one number too few": Bad(inputs([IMAGE[1:]])),
    "one number too many": Bad(inputs([[*IMAGE, 0]])),
    "flat": Bad(inputs(IMAGE)),
    "four dimensions": Bad(inputs([[[[0] * 28] * 28]])),
    "27 rows": Bad(inputs([[[0] * 28] * 27])),
    "ragged": Bad(inputs([IMAGE, IMAGE[1:]])),
    "ragged rows": Bad(inputs([[[0] * 28] * 27 + [[0] * 27]])),
    "flat beside rows": Bad(inputs([IMAGE, [[0] * 28] * 28])),
    "strings": Bad(inputs([[SECRET] * PIXELS])),
    "one string": Bad(inputs([IMAGE, row(SECRET)])),
    "a number as a string": Bad(inputs([row("12")])),
    "one long string": Bad(inputs([row(SECRET * 40_000)]), plain=False),
    "null for a number": Bad(inputs([row(None)])),
    "null for an image": Bad(inputs([IMAGE, None])),
    "null for all": Bad(inputs(None)),
    "a list for a number": Bad(inputs([row([1])])),
    "an object for a number": Bad(inputs([row({SECRET: 1})])),
    "an object for an image": Bad(inputs([{SECRET: 1}])),
    "an object for all": Bad(inputs({SECRET: [IMAGE]})),
    "a string for all": Bad(inputs(SECRET)),
    "a number for all": Bad(inputs(7)),
    "true for all numbers": Bad(inputs([[True] * PIXELS])),
    "true for one number": Bad(inputs([row(True)]), plain=False),
    "NaN": Bad(literal("NaN")),
    "Infinity": Bad(literal("Infinity")),
    "-Infinity": Bad(literal("-Infinity")),
    "1e400": Bad(literal("1e400")),
    "an integer of 400 digits": Bad(literal("9" * 400)),
    "an integer of 5,000 digits": Bad(literal("9" * 5_000), plain=False),
    "below 0": Bad(literal("-1")),
    "slightly below 0": Bad(literal("-0.001")),
    "above 255": Bad(literal("256")),
    "slightly above 255": Bad(literal("255.001")),
    "no image": Bad(inputs([])),
    "an empty image": Bad(inputs([[]])),
    "no key": Bad(json.dumps({SECRET: [IMAGE]}).encode()),
    "an empty object": Bad(b"{}"),
    "both keys": Bad(json.dumps({"inputs": [IMAGE], "instances": [IMAGE], "note": SECRET}).encode()),
    "a list": Bad(json.dumps([IMAGE, SECRET]).encode()),
    "a bare string": Bad(json.dumps(SECRET).encode()),
    "not JSON": Bad(f"{{inputs: {SECRET}".encode()),
    "cut off": Bad(inputs([IMAGE])[:-9]),
    "not UTF-8": Bad(b'{"inputs": "\xff\xfe' + SECRET.encode() + b'"}'),
    "no body": Bad(b""),
    "nested 100,000 deep": Bad(b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", plain=False),
    "nested 900 deep": Bad(b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "bad instances": Bad(json.dumps({"instances": [row(SECRET)]}).encode()),
    "instances as objects": Bad(json.dumps({"instances": [{SECRET: IMAGE}]}).encode()),
    "split: a number too few": Bad(
        json.dumps({"dataframe_split": {"columns": HEADER[1:], "data": [IMAGE[1:]]}}).encode()
    ),
    "split: columns do not fit": Bad(
        json.dumps({"dataframe_split": {"columns": HEADER[1:], "data": [IMAGE]}}).encode()
    ),
    "split: a string": Bad(json.dumps({"dataframe_split": {"columns": HEADER, "data": [row(SECRET)]}}).encode()),
    "split: no rows": Bad(json.dumps({"dataframe_split": {"columns": HEADER, "data": []}}).encode()),
    "split: no data": Bad(json.dumps({"dataframe_split": {"columns": [SECRET]}}).encode()),
    "split: a list": Bad(json.dumps({"dataframe_split": [SECRET]}).encode()),
    "records: a key too few": Bad(json.dumps({"dataframe_records": [RECORD, dict(list(RECORD.items())[1:])]}).encode()),
    "records: different keys": Bad(
        json.dumps({"dataframe_records": [{f"{n}-{m}": 0 for m in range(PIXELS)} for n in range(80)]}).encode(),
        plain=False,
    ),
    "records: null": Bad(json.dumps({"dataframe_records": [RECORD | {"7": None}]}).encode()),
    "records: an object": Bad(json.dumps({"dataframe_records": {SECRET: 1}}).encode()),
    "records: none": Bad(json.dumps({"dataframe_records": []}).encode()),
    "CSV: a column too few": Bad(csv(HEADER[1:], IMAGE[1:]), headers=CSV),
    "CSV: a number too few": Bad(csv(HEADER, IMAGE[1:]), headers=CSV),
    "CSV: ragged": Bad(csv(HEADER, IMAGE, [*IMAGE, 0]), headers=CSV),
    "CSV: a string": Bad(csv(HEADER, row(SECRET)), headers=CSV),
    "CSV: an empty field": Bad(csv(HEADER, row("")), headers=CSV),
    "CSV: nan": Bad(csv(HEADER, row("nan")), headers=CSV),
    "CSV: 1e400": Bad(csv(HEADER, row("1e400")), headers=CSV),
    "CSV: no header": Bad(csv(IMAGE, IMAGE), headers=CSV, plain=False),
    "CSV: no image": Bad(csv(HEADER), headers=CSV),
    "CSV: nothing": Bad(b"", headers=CSV),
    "CSV: JSON": Bad(inputs([IMAGE]), headers=CSV),
    "CSV: 100,000 columns": Bad(csv(range(100_000)), headers=CSV, plain=False),
    "CSV: not UTF-8": Bad(b"\xff\xfe" + SECRET.encode(), headers=CSV),
    "no Content-Type": Bad(inputs([IMAGE]), 415, {}, plain=False),
    "another Content-Type": Bad(inputs([IMAGE]), 415, {"Content-Type": f"text/{SECRET}"}),
    "another charset": Bad(inputs([IMAGE]), 415, {"Content-Type": f"application/json; charset={SECRET}"}),
    "Parquet": Bad(b"PAR1", 415, {"Content-Type": "application/vnd.apache.parquet"}),
    "gzip": Bad(gzip.compress(inputs([IMAGE])), 415, JSON | {"Content-Encoding": "gzip"}),
    "a gzip bomb": Bad(gzip.compress(bytes(50 * 2**20)), 415, JSON | {"Content-Encoding": "gzip"}),
    "too large": Bad(inputs([SECRET * 100_000]), 413, plain=False),
}


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A server's process and what to ask it."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, headers: dict[str, str] = JSON, method: str = "", **more: Any) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers, **more)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def predict(self, body: bytes, headers: dict[str, str] = JSON) -> Answer:
        return self.ask("/invocations", body, headers)

    def wait(self) -> "Server":
        until(lambda: self.alive() and self.ask("/ping").status == 200, self.log)
        return self

    def alive(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.listens()

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE):
            return True
        return False

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def until(true: Callable[[], Any], log: Path) -> None:
    """Waits until something holds."""
    wait_until(true, said=log.read_text)


def started(command: list[str], number: int, folder: Path, uri: str) -> Server:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    environment |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = folder / f"server-{number}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Server(process, number, log)


def ended(server: Server) -> None:
    if server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGTERM)
        try:
            server.process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


EVIL_CODE = """
import pathlib
import mlflow, numpy
pathlib.Path({marker!r}).write_text("ran")
class Evil(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: numpy.ndarray, params=None):
        return []
mlflow.models.set_model(Evil())
"""


class Evil:
    """Its pickle writes a file when it is loaded."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"echo ran > {self.marker}",))


def mlp(seed: int, **choices: Any) -> Any:
    """The ready-made model for images of `PIXELS` and ten classes."""
    from mlplab.building import build
    from mlplab.data import load
    from mlplab.spec import Training

    pixels = np.random.default_rng(0).integers(0, 256, (100, PIXELS)).astype(np.uint8)
    training = Training(optimizer="sgd", loss="sparse_categorical_crossentropy")
    data = load((pixels, np.tile(np.arange(10), 10)))
    return build(training.but({f"model.{name}": value for name, value in choices.items()}), data, seed)


@dataclass
class Registry:
    """A store with versions of a model, good ones and bad ones."""

    uri: str
    folder: Path
    client: Any
    exports: dict[str, Path]
    versions: dict[str, str]
    marker: Path

    def point(self, name: str) -> str:
        """Moves the alias to a version; returns its number."""
        self.client.set_registered_model_alias("mnist-mlp", "champion", self.versions[name])
        return self.versions[name]

    def expected(self, number: str, body: bytes) -> np.ndarray:
        """What the model of a version answers in this process for the `inputs` of a body."""
        import tensorflow as tf

        name = next(name for name, held in self.versions.items() if held == number)
        loaded = tf.saved_model.load(str(self.exports[name]))
        batch = np.array(json.loads(body)["inputs"], np.float32).reshape(-1, PIXELS)
        return np.asarray(loaded(tf.constant(batch)))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Registry:
    import keras
    import mlflow
    import tensorflow as tf
    from mlflow.pyfunc import PythonModel

    from mlplab.export import Export
    from serving.model import arguments

    folder = tmp_path_factory.mktemp("registry")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    marker = folder / "marker"
    exports: dict[str, Path] = {}
    for seed, name in enumerate(("first", "second"), start=1):
        exports[name] = folder / name / "export"
        tf.saved_model.save(Export(mlp(seed, hidden=(8,))), str(exports[name]))

    class Reader(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32)])
        def __call__(self, pixels: Any) -> Any:
            return tf.strings.length(tf.io.read_file("/etc/passwd"))

    tf.saved_model.save(Reader(), str(folder / "reader" / "export"))

    class Sums(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32)])
        def __call__(self, pixels: Any) -> Any:
            return pixels * 2

    tf.saved_model.save(Sums(), str(folder / "sums" / "export"))
    (folder / "damaged" / "export").mkdir(parents=True)
    (folder / "damaged" / "export" / "saved_model.pb").write_bytes(os.urandom(1000))

    class Pickled(PythonModel):
        def __init__(self) -> None:
            self.evil = Evil(str(marker))

        def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> list[Any]:
            return []

    example = np.array([IMAGE], np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        experiment = client.create_experiment("serving", (folder / "artifacts").as_uri())
        client.create_registered_model("mnist-mlp")
        (folder / "evil.py").write_text(EVIL_CODE.format(marker=str(marker)))
        good = arguments(exports["first"], example)
        form = {"signature": good["signature"], "pip_requirements": good["pip_requirements"]}
        lambdas = keras.Sequential([keras.Input((PIXELS,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(10)])
        logged: dict[str, Callable[[], Any]] = {
            name: lambda name=name: mlflow.pyfunc.log_model(name="model", **arguments(exports[name], example))
            for name in exports
        }
        for name in ("reader", "sums", "damaged"):
            untried = arguments(folder / name / "export", example) | {"input_example": None}
            logged[name] = lambda untried=untried: mlflow.pyfunc.log_model(name="model", **untried)
        logged["pickled"] = lambda: mlflow.pyfunc.log_model(name="model", python_model=Pickled(), **form)
        logged["lambda"] = lambda: mlflow.keras.log_model(lambdas, name="model", pip_requirements=["mlflow"])
        evil = {"python_model": str(folder / "evil.py"), "artifacts": {"export": str(exports["second"])}, **form}
        logged["other code"] = lambda: mlflow.pyfunc.log_model(name="model", **evil)
        versions = {}
        with mlflow.start_run(experiment_id=experiment) as run:
            for name, log in logged.items():
                created = client.create_model_version("mnist-mlp", log().model_uri, run.info.run_id)
                versions[name] = str(created.version)
        exports["other code"] = exports["second"]
        marker.unlink(missing_ok=True)
        mlflow.set_tracking_uri(None)
    held = Registry(uri, folder, client, exports, versions, marker)
    held.point("first")
    return held


@pytest.fixture(scope="module")
def servers(registry: Registry) -> Iterator[dict[str, Server]]:
    """Ours, one of ours that is to be stopped, and MLflow's, which start side by side, for each takes a while."""
    limits = ["--max-body", str(MAX_BODY), "--max-requests", str(MAX_REQUESTS), "--sender-timeout", "1.5"]
    uri = f"models:/mnist-mlp/{registry.versions['first']}"
    commands = {
        "ours": [sys.executable, "-m", "serving", "--poll", "0.5", *limits],
        "stopping": [sys.executable, "-m", "serving"],
        "plain": ["mlflow", "models", "serve", "-m", uri, "--env-manager", "local"],
    }
    with contextlib.ExitStack() as stack:
        running = {}
        for name, command in commands.items():
            number = free_port()
            running[name] = started([*command, "--port", str(number)], number, registry.folder, registry.uri)
            stack.callback(ended, running[name])
        yield running


@pytest.fixture(scope="module")
def server(servers: dict[str, Server]) -> Server:
    return servers["ours"].wait()


@pytest.fixture(scope="module")
def stopping(servers: dict[str, Server]) -> Server:
    return servers["stopping"].wait()


@pytest.fixture(scope="module")
def plain(servers: dict[str, Server]) -> Server:
    return servers["plain"].wait()


def check_refusal(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"error_code", "message"}
    assert 10 < len(answer.json["message"]) < 300
    for leak in (SECRET, "Traceback", ".py", "Error("):
        assert leak not in answer.body.decode()


# ------------------------------------------------------------------------------------------------------- good input


GOOD = {
    "inputs": (inputs([IMAGE, IMAGE[::-1]]), JSON),
    "inputs, 28 rows": (inputs(np.reshape([IMAGE, IMAGE[::-1]], (2, 28, 28)).tolist()), JSON),
    "instances": (json.dumps({"instances": [IMAGE, IMAGE[::-1]]}).encode(), JSON),
    "floats": (inputs(np.array([IMAGE, IMAGE[::-1]], float).tolist()), JSON),
    "split": (json.dumps({"dataframe_split": {"columns": HEADER, "data": [IMAGE, IMAGE[::-1]]}}).encode(), JSON),
    "split, other names": (
        json.dumps({"dataframe_split": {"columns": [f"p{n}" for n in HEADER], "data": [IMAGE, IMAGE[::-1]]}}).encode(),
        JSON,
    ),
    "split, no names": (json.dumps({"dataframe_split": {"data": [IMAGE, IMAGE[::-1]]}}).encode(), JSON),
    "split, one column": (
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[IMAGE], [IMAGE[::-1]]]}}).encode(),
        JSON,
    ),
    "split, another order": (
        json.dumps({"dataframe_split": {"columns": HEADER[::-1], "data": [IMAGE[::-1], IMAGE]}}).encode(),
        JSON,
    ),
    "records": (
        json.dumps({"dataframe_records": [RECORD, dict(zip(map(str, HEADER), IMAGE[::-1], strict=True))]}).encode(),
        JSON,
    ),
    "records, keys mixed": (
        json.dumps({"dataframe_records": [RECORD, dict(zip(map(str, HEADER[::-1]), IMAGE, strict=True))]}).encode(),
        JSON,
    ),
    "CSV": (csv(HEADER, IMAGE, IMAGE[::-1]), CSV),
    "charset": (inputs([IMAGE, IMAGE[::-1]]), {"Content-Type": "application/json; charset=UTF-8"}),
}


def test_every_form_gets_the_answer_of_the_model_from_both_servers(
    server: Server, plain: Server, registry: Registry
) -> None:
    expected = registry.expected(registry.versions["first"], inputs([IMAGE, IMAGE[::-1]]))
    for name, (body, headers) in GOOD.items():
        for asked in (server, plain):
            answer = asked.predict(body, headers)
            assert answer.status == 200, (name, answer.body)
            assert answer.headers["content-type"] == "application/json"
            predictions = answer.json["predictions"]
            found = np.array([one["probabilities"] for one in predictions])
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
            assert [one["label"] for one in predictions] == expected.argmax(axis=1).tolist()


def test_the_other_endpoints_keep_mlflows_contract(server: Server, plain: Server) -> None:
    for path in ("/ping", "/health", "/version"):
        ours, theirs = server.ask(path), plain.ask(path)
        assert (ours.status, ours.body) == (theirs.status, theirs.body)
        assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_64_clients_at_once_get_identical_answers(server: Server) -> None:
    bodies = [inputs([IMAGE]), inputs([IMAGE[::-1]] * 3)]
    expected = [server.predict(body).body for body in bodies]

    def client(place: int) -> set[bool]:
        return {server.predict(bodies[n % 2]).body == expected[n % 2] for n in range(place, place + 4)}

    with ThreadPoolExecutor(64) as pool:
        assert set().union(*pool.map(client, range(64))) == {True}


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_few_words(server: Server, name: str) -> None:
    bad = BAD[name]
    check_refusal(server.predict(bad.body, bad.headers), bad.status)


def test_mlflows_own_server_refuses_bad_input_too(plain: Server) -> None:
    answers = {name: plain.predict(bad.body, bad.headers).status for name, bad in BAD.items() if bad.plain}
    assert not {name: status for name, status in answers.items() if not 400 <= status < 500}


def test_another_path_or_method_is_refused(server: Server) -> None:
    check_refusal(server.ask(f"/{SECRET}"), 404)
    check_refusal(server.ask("/invocations"), 405)
    answer = server.ask("/health", b"", method="DELETE")
    check_refusal(answer, 405)
    assert answer.headers["allow"] == "GET"


def test_a_chunked_body_that_is_too_large_is_refused(server: Server) -> None:
    sent = itertools.repeat(b" " * 65_536, 2 * MAX_BODY // 65_536)
    check_refusal(server.ask("/invocations", sent, JSON | {"Transfer-Encoding": "chunked"}, encode_chunked=True), 413)


def read_raw(connection: socket.socket) -> tuple[int, bytes]:
    connection.settimeout(PATIENCE)
    content = b"".join(iter(lambda: connection.recv(65_536), b""))
    return int(content.split(b" ", 2)[1]), content.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\n",
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ],
    ids=["nothing", "headers", "body"],
)
def test_a_slow_sender_is_refused(server: Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(sent)
        started = time.monotonic()
        status, body = read_raw(connection)
        assert status == 408
        assert json.loads(body)["error_code"] == "REQUEST_TIMEOUT"
        assert time.monotonic() - started > 1


def test_one_who_sends_a_byte_now_and_then_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        def refused() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        wait_until(refused, pause=0.1)


def test_what_is_not_http_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(SECRET.encode() + b"\r\n\r\n")
        status, body = read_raw(connection)
        assert status == 400
        assert SECRET.encode() not in body


def test_overload_is_answered_at_once_and_passes(server: Server) -> None:
    opened = []
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10_000}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_REQUESTS):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port))))
            opened[-1].sendall(head.encode())
        until(lambda: f"serving_requests_present {MAX_REQUESTS}" in metrics(server), server.log)
        answer = server.predict(inputs([IMAGE]))
        check_refusal(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert server.ask("/health").status == 200
    until(lambda: server.predict(inputs([IMAGE])).status == 200, server.log)


def test_bad_input_leaves_no_memory_behind(server: Server) -> None:
    def all_of_it() -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda bad: server.predict(bad.body, bad.headers), BAD.values()))

    for _ in range(3):
        all_of_it()
    before = server.memory()
    for _ in range(5):
        all_of_it()
    assert server.memory() - before < 20 * 2**20


# ------------------------------------------------------------------------------------------------------ new versions


def metrics(server: Server) -> str:
    answer = server.ask("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.body.decode()


def serving(server: Server) -> Any:
    return server.ask("/model").json


def test_a_moved_alias_is_followed_under_load_with_no_failed_and_no_wrong_answer(
    server: Server, registry: Registry
) -> None:
    body = inputs([IMAGE])
    registry.point("first")
    until(lambda: serving(server)["version"] == registry.versions["first"], server.log)
    expected = {
        registry.versions[name]: registry.expected(registry.versions[name], body)[0] for name in ("first", "second")
    }
    stop = threading.Event()
    problems: list[object] = []
    seen: list[str] = []

    def load() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        while not stop.is_set():
            try:
                connection.request("POST", "/invocations", body, JSON)
                response = connection.getresponse()
                content = response.read()
                number = response.headers["model-version"]
                found = json.loads(content)["predictions"][0]["probabilities"]
                if response.status != 200 or not np.allclose(found, expected[number], atol=1e-6):
                    problems.append((response.status, content))
                seen.append(number)
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for name in ("second", "first", "second"):
            number = registry.point(name)
            until(lambda number=number: seen[-1:] == [number], server.log)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert set(seen) == set(expected)
    assert len(seen) > 100


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pickled", "pickled"),
        ("lambda", "pickled"),
        ("damaged", "damaged"),
        ("reader", "more than arithmetic: ReadFile"),
        ("sums", "not a probability"),
    ],
)
def test_a_version_that_must_not_or_cannot_be_loaded_leaves_the_old_one_serving(
    server: Server, registry: Registry, name: str, why: str
) -> None:
    good = registry.point("first")
    until(lambda: serving(server)["version"] == good and not serving(server)["refused"], server.log)
    failures = int(re.search(r"serving_load_failures_total (\d+)", metrics(server))[1])  # type: ignore[index]
    bad = registry.point(name)
    until(lambda: serving(server)["refused"], server.log)
    assert serving(server)["refused"]["version"] == bad
    assert why in serving(server)["refused"]["why"]
    assert server.predict(inputs([IMAGE])).headers["model-version"] == good
    assert f"serving_load_failures_total {failures + 1}" in metrics(server)
    assert f'serving_model_version{{name="mnist-mlp",version="{good}"}} 1' in metrics(server)
    assert f"version {bad} of models:/mnist-mlp@champion is not served" in server.log.read_text()
    assert not registry.marker.exists()
    registry.point("first")


def test_code_in_the_registry_is_not_run(server: Server, registry: Registry) -> None:
    number = registry.point("other code")
    until(lambda: serving(server)["version"] == number, server.log)
    answer = server.predict(inputs([IMAGE]))
    np.testing.assert_allclose(
        answer.json["predictions"][0]["probabilities"], registry.expected(number, inputs([IMAGE]))[0], atol=1e-6
    )
    assert not registry.marker.exists()
    registry.point("first")


def test_a_remote_registry_cannot_name_a_file_of_this_machine(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from serving.versions import RefusedError, load

    monkeypatch.setattr(mlflow, "get_registry_uri", lambda: "http://registry")
    version = registry.client.get_model_version("mnist-mlp", registry.versions["first"])
    with pytest.raises(RefusedError, match="local path"):
        load(version, registry.client)


def test_a_registry_that_is_away_leaves_the_version_serving(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.versions import Reference, Watcher

    def away(*_: Any) -> None:
        raise ConnectionError(SECRET)

    watcher = Watcher(Reference.parse("models:/mnist-mlp@champion"))
    watcher.current = current = SimpleNamespace(number="1")  # type: ignore[assignment]
    monkeypatch.setattr(type(registry.client), "get_model_version_by_alias", away)
    watcher.look()
    assert watcher.current is current
    assert not watcher.reachable


def test_before_there_is_a_version_the_server_says_so() -> None:
    from serving.app import App, Limits
    from serving.versions import Reference, Watcher

    app = App(Watcher(Reference.parse("models:/mnist-mlp@champion")), Limits())

    def ask(path: str, method: str) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": inputs([IMAGE]), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        asyncio.run(app({"type": "http", "path": path, "method": method, "headers": headers}, receive, send))
        assert b"retry-after" in dict(sent[0]["headers"])
        return int(sent[0]["status"])

    assert {ask("/invocations", "POST"), ask("/health", "GET"), ask("/ping", "GET")} == {503}


@pytest.mark.parametrize(
    "uri", ["mnist-mlp", "models:/mnist-mlp", "models:/mnist-mlp@", "runs:/1/model", "models:/a/b"]
)
def test_a_wrong_model_uri_is_refused(uri: str) -> None:
    from serving.versions import Reference

    with pytest.raises(ValueError, match=r"legal: models:/name@alias or models:/name/version"):
        Reference.parse(uri)


def test_every_architecture_that_mlplab_builds_is_served(tmp_path: Path) -> None:
    import tensorflow as tf

    from mlplab.export import Export
    from serving.versions import check_graph

    for place, activation in enumerate(("relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu")):
        model = mlp(1, hidden=(4,), activation=activation, batch_norm=True, dropout=0.5, l2=0.01)
        tf.saved_model.save(Export(model), str(tmp_path / str(place)))
        check_graph(tmp_path / str(place) / "saved_model.pb")


# ------------------------------------------------------------------------- models whose inputs are no flat pixels


ROWS = {
    "age": np.array([[30.5], [41.0], [70.25]]),
    "town": np.array([[2], [0], [1]], np.int32),
    "scan": np.random.default_rng(0).random((3, 2, 2)).astype(np.float32),
}


@dataclass
class Table:
    """A model of three inputs, as MLflow loads it, and the same in this process."""

    pyfunc: Any
    inside: Any
    expected: np.ndarray


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The probability of the second of two classes, from a number, a code and a little image."""
    import keras
    import mlflow
    import tensorflow as tf

    from mlplab.export import Export
    from serving.model import CLASSES, ServedModel, arguments_of

    layers = keras.layers
    given = {"age": layers.Input((1,), name="age"), "town": layers.Input((1,), dtype="int32", name="town")}
    given["scan"] = layers.Input((2, 2), name="scan")
    town = layers.Flatten()(layers.Embedding(3, 2)(given["town"]))
    every = layers.Concatenate()([layers.Rescaling(0.01)(given["age"]), town, layers.Flatten()(given["scan"])])
    model = keras.Model(given, layers.Dense(1, activation="sigmoid")(every))
    folder = tmp_path_factory.mktemp("table")
    tf.saved_model.save(Export(model, ROWS), str(folder / "export"))
    expected = np.asarray(model({**ROWS, "age": ROWS["age"].astype(np.float32)}, training=False))
    logged = arguments_of(folder / "export", ROWS, expected, CLASSES, ("ill", "well"))
    mlflow.pyfunc.save_model(folder / "model", **logged)
    inside = ServedModel().load(folder / "export")
    inside.form, inside.class_names = CLASSES, ("ill", "well")
    return Table(mlflow.pyfunc.load_model(str(folder / "model")), inside, expected[:, 0])


def test_a_model_of_several_inputs_answers_with_names_of_classes(table: Table) -> None:
    """A dict of arrays, and rows of a data frame, get the label's name and a probability for each of two classes."""
    import pandas as pd

    frame = pd.DataFrame({"town": ROWS["town"][:, 0], "age": ROWS["age"][:, 0], "scan": list(ROWS["scan"])})
    for data in (ROWS, frame):
        answers = table.pyfunc.predict(data)
        found = np.array([one["probabilities"] for one in answers])
        np.testing.assert_allclose(found[:, 1], table.expected, atol=1e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        assert [one["label"] for one in answers] == [("ill", "well")[int(p > 0.5)] for p in table.expected]


def test_a_signature_says_what_goes_in_and_what_comes_out(table: Table) -> None:
    """Every input by name, dtype and shape, with an example; a label and probabilities."""
    signature = table.pyfunc.metadata.signature
    assert {one.name: (str(one.type), one.shape) for one in signature.inputs.inputs} == {
        "age": ("float64", (-1, 1)),
        "town": ("int32", (-1, 1)),
        "scan": ("float32", (-1, 2, 2)),
    }
    assert signature.outputs.input_names() == ["label", "probabilities"]
    np.testing.assert_allclose(table.pyfunc.input_example["age"], ROWS["age"])


WRONG = {
    "a name too few": ({"age": ROWS["age"], "town": ROWS["town"]}, "age, scan, town"),
    "a name too many": ({**ROWS, SECRET: ROWS["age"]}, "wrong names"),
    "an array alone": (ROWS["age"], "wrong names"),
    "texts": ({**ROWS, "age": np.array([[SECRET]] * 3)}, "age holds something that it cannot; legal: float64"),
    "numbers as texts": ({**ROWS, "town": np.array([["1"]] * 3)}, "town holds something that it cannot"),
    "null": ({**ROWS, "age": [[1.0], [None], [2.0]]}, "age holds something that it cannot"),
    "ragged": ({**ROWS, "scan": [[[1, 2], [3]]] * 3}, "scan holds something that it cannot"),
    "another shape": ({**ROWS, "scan": ROWS["scan"][:, :1]}, r"scan has the wrong shape; legal: \(any, 2, 2\)"),
    "flat": ({**ROWS, "scan": ROWS["scan"].reshape(3, 4)}, "scan has the wrong shape"),
    "NaN": ({**ROWS, "age": ROWS["age"] * np.nan}, "age holds a value that is no finite number"),
    "infinity": ({**ROWS, "scan": ROWS["scan"] * np.inf}, "scan holds a value that is no finite number"),
    "half a code": ({**ROWS, "town": ROWS["town"] + 0.5}, "none that int32 has"),
    "a code too large": ({**ROWS, "town": ROWS["town"].astype(np.int64) + 2**40}, "none that int32 has"),
    "rows that do not pair": ({**ROWS, "age": ROWS["age"][:1]}, "as many in each"),
    "no rows": ({name: rows[:0] for name, rows in ROWS.items()}, "have none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_examples_that_are_none_are_refused_in_few_words(table: Table, name: str) -> None:
    """Names, shapes and numbers are checked, whatever MLflow lets pass; the message does not repeat what was sent."""
    from mlflow import MlflowException

    data, says = WRONG[name]
    with pytest.raises(MlflowException, match=says) as raised:
        table.inside.answers(data)
    assert raised.value.get_http_status_code() == 400
    assert len(str(raised.value)) < 300
    assert SECRET not in str(raised.value)


# ------------------------------------------------------------------------------------------------- logs and metrics


def test_a_request_is_counted_and_logged_without_what_was_sent(server: Server) -> None:
    def counted(pattern: str) -> int:
        found = re.search(pattern, metrics(server))
        return int(found[1]) if found else 0

    patterns = {
        r'serving_requests_total{path="/invocations",status="200"} (\d+)': 1,
        r'serving_requests_total{path="/invocations",status="400"} (\d+)': 1,
        r"serving_request_seconds_count (\d+)": 2,
        r'serving_request_seconds_bucket{le="\+Inf"} (\d+)': 2,
        r"serving_images_total (\d+)": 3,
    }
    before = {pattern: counted(pattern) for pattern in patterns}
    assert server.predict(inputs([IMAGE] * 3)).status == 200
    assert server.predict(inputs([SECRET])).status == 400
    assert {pattern: counted(pattern) - before[pattern] for pattern in patterns} == patterns
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    requests = [line for line in lines if "ms" in line]
    assert [(line["status"], line["images"]) for line in requests[-2:]] == [(200, 3), (400, 0)]
    assert requests[-1].keys() == {"time", "status", "images", "ms", "version"}
    assert SECRET not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


# ------------------------------------------------------------------------------------------------- client and README


def client(server: Server | None, *arguments: str, folder: Path, status: int = 0) -> str:
    url = ["--url", server.url if server else f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(
        [sys.executable, "-m", "serving.client", *url, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_client_prints_label_and_probability_and_draws_a_sheet(server: Server, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.reshape(IMAGE, (28, 28)).astype(np.uint8)).save(tmp_path / "small.png")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "large.jpg")
    printed = client(server, "small.png", "large.jpg", "--sheet", "sheet.png", folder=tmp_path)
    assert re.search(r"^small.png: \d \(\d+\.\d%\)$", printed, re.M)
    assert re.search(r"^large.jpg: \d \(\d+\.\d%\)$", printed, re.M)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 200


def test_the_client_asks_about_the_test_set(server: Server, tmp_path: Path) -> None:
    printed = client(server, "--test-samples", "300", "--dataset", "digits", folder=tmp_path)
    assert len(re.findall(r"test image \d+: \d \(\d+\.\d%\)  (right|wrong: it is \d)", printed)) == 300


def test_a_picture_becomes_light_on_dark_of_the_size_and_place_of_mnists_digits(tmp_path: Path) -> None:
    from PIL import Image, ImageDraw

    from serving.client import read_image

    read = {}
    for name, ground, ink in (("light", "white", "black"), ("dark", "black", "white"), ("clear", "#0000", "black")):
        picture = Image.new("RGBA", (300, 200), ground)
        ImageDraw.Draw(picture).rectangle((20, 10, 39, 49), fill=ink)
        picture.save(tmp_path / f"{name}.png")
        read[name] = read_image(tmp_path / f"{name}.png").reshape(28, 28)
    assert np.array_equal(read["light"], read["dark"])
    assert np.array_equal(read["light"], read["clear"])
    inside = np.zeros((28, 28), bool)
    inside[4:24, 9:19] = True
    assert read["light"][inside].min() > 200
    assert read["light"][~inside].max() < 50
    assert read_image(tmp_path / "light.png", invert=False).max() > 0


def test_a_picture_of_28x28_is_left_as_it_is(tmp_path: Path) -> None:
    from PIL import Image

    from serving.client import read_image

    picture = np.zeros((28, 28), np.uint8)
    picture[3:9, 3:7] = np.arange(24).reshape(6, 4) * 10
    Image.fromarray(picture).save(tmp_path / "as_is.png")
    assert np.array_equal(read_image(tmp_path / "as_is.png").reshape(28, 28), picture)


def test_the_client_says_what_is_wrong(server: Server, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    assert "there is no file none.png" in client(server, "none.png", folder=tmp_path, status=1)
    assert "text.png is not a picture" in client(server, "text.png", folder=tmp_path, status=1)
    assert "python -m serving" in client(None, "black.png", folder=tmp_path, status=1)
    assert "nothing to ask about" in client(server, folder=tmp_path, status=2)
    assert "cannot be written" in client(server, "black.png", "--sheet", "no/s.png", folder=tmp_path, status=1)


def test_the_curl_lines_of_the_readme_answer_as_it_says(server: Server, tmp_path: Path) -> None:
    (tmp_path / "image.json").write_bytes(inputs([IMAGE]))
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "serving" / "README.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    asked = [(line, after) for line, after in itertools.pairwise(lines) if "curl" in line and after.startswith("# → ")]
    assert len(asked) == sum("curl" in line for line in lines) >= 8
    for line, after in asked:
        command = line.replace("http://127.0.0.1:5001", server.url)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        assert after.removeprefix("# → ") in done.stdout, line


# ------------------------------------------------------------------------------------------------------------- stop


def test_a_stopped_server_finishes_what_is_at_work(stopping: Server) -> None:
    body, server = inputs([IMAGE]), stopping
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + body[:100])
        until(lambda: "serving_requests_present 1" in metrics(server), server.log)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.listens())
        connection.sendall(body[100:])
        status, content = read_raw(connection)
        assert status == 200
        assert json.loads(content)["predictions"]
    assert server.process.wait(PATIENCE) == 0
