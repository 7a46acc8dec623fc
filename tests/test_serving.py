"""The model server, as a process on a real registry, and the client."""

import asyncio
import base64
import contextlib
import gzip
import http.client
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import PATIENCE, ROOT, free_port, wait_until
from PIL import Image
from playwright.sync_api import Browser

pytestmark = pytest.mark.filterwarnings("ignore")

SECRET = "hunter2-5ebe2294"
"""It is in what is sent; an answer or a log that has it repeats what was sent."""
PIXELS = 784
IMAGE = [place % 256 for place in range(PIXELS)]
JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
MAX_BODY = 2**20
MAX_REQUESTS = 80
MAX_CONNECTIONS = 400


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


def picture(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


HEADER = list(range(PIXELS))
PNG = {"Content-Type": "image/png"}


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
    "another packing": Bad(inputs([IMAGE]), 415, JSON | {"Content-Encoding": "br"}, plain=False),
    "no gzip": Bad(inputs([IMAGE]), 400, JSON | {"Content-Encoding": "gzip"}, plain=False),
    "half a gzip": Bad(gzip.compress(inputs([IMAGE]))[:-9], 400, JSON | {"Content-Encoding": "gzip"}, plain=False),
    "two gzips": Bad(gzip.compress(inputs([IMAGE])) * 2, 400, JSON | {"Content-Encoding": "gzip"}, plain=False),
    "a gzip bomb": Bad(gzip.compress(bytes(50 * 2**20)), 413, JSON | {"Content-Encoding": "gzip"}, plain=False),
    "too large": Bad(inputs([SECRET * 100_000]), 413, plain=False),
    "a key twice": Bad(b'{"inputs": [], ' + inputs([IMAGE])[1:], plain=False),
    "UTF-16": Bad(inputs([IMAGE]).decode().encode("utf-16"), plain=False),
    "equal column names": Bad(
        json.dumps({"dataframe_split": {"columns": ["0"] * PIXELS, "data": [IMAGE]}}).encode(), plain=False
    ),
    "base64 that is none": Bad(json.dumps({"instances": [{"b64": SECRET + "!"}]}).encode(), plain=False),
    "a picture that is none": Bad(SECRET.encode(), 400, {"Content-Type": "image/png"}, plain=False),
    "a picture of another kind": Bad(picture(Image.new("L", (28, 28)), "GIF"), 400, PNG, plain=False),
    "a picture of 900 million pixels": Bad(picture(Image.new("1", (30_000, 30_000))), 400, PNG, plain=False),
    "half a picture": Bad(picture(Image.new("L", (280, 280)))[:-40], 400, PNG, plain=False),
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


def mlp(seed: int, **choices: Any) -> Any:
    """The ready-made model for images of `PIXELS` and ten classes, and data of that kind, light on dark."""
    from mlplab.building import build
    from mlplab.data import load
    from mlplab.spec import Training

    pixels = np.zeros((100, 28, 28), np.uint8)
    pixels[:, 4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (100, 20, 20))
    training = Training(optimizer="sgd", loss="sparse_categorical_crossentropy")
    data = load((pixels.reshape(100, -1), np.tile(np.arange(10), 10)))
    # As the ready-made data say it of theirs.
    data = replace(data, image_shape=(28, 28))
    return build(training.but({f"model.{name}": value for name, value in choices.items()}), data, seed), data


@dataclass
class Registry:
    """A store with versions of a model, good ones and bad ones."""

    uri: str
    folder: Path
    client: Any
    models: dict[str, Any]
    versions: dict[str, str]
    marker: Path

    def point(self, name: str) -> str:
        """Moves the alias to a version; returns its number."""
        self.client.set_registered_model_alias("mnist-mlp", "champion", self.versions[name])
        return self.versions[name]

    def expected(self, number: str, body: bytes) -> np.ndarray:
        """What Keras' model of a version answers in this process for the `inputs` of a body."""
        name = next(name for name, held in self.versions.items() if held == number)
        batch = np.array(json.loads(body)["inputs"], np.float32).reshape(-1, PIXELS)
        return np.asarray(self.models[name](batch, training=False))

    def add(self, name: str, folder: Path, evil: str = "", example: tuple[Any, ...] = (), **tags: str) -> None:
        """Registers what a folder holds, as `mlplab register` does, whatever it is."""
        import mlflow

        from mlplab import registry
        from serving.model import arguments
        from serving.versions import CHECKED, CONTENT

        given = arguments(folder, *example) | ({"python_model": evil} if evil else {})
        (run, *_) = self.client.search_runs([self.client.get_experiment_by_name("serving").experiment_id])
        with mlflow.start_run(run.info.run_id):
            uri = mlflow.pyfunc.log_model(name="model", **given).model_uri
        every = {CONTENT: registry.content_of(uri, folder), CHECKED: "passed"} | tags
        created = self.client.create_model_version("mnist-mlp", uri, run.info.run_id, tags=every)
        self.versions[name] = str(created.version)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Registry:
    import mlflow

    from mlplab import served

    folder = tmp_path_factory.mktemp("registry")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    marker = folder / "marker"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        experiment = client.create_experiment("serving", (folder / "artifacts").as_uri())
        mlflow.start_run(experiment_id=experiment)
        mlflow.end_run()
        client.create_registered_model("mnist-mlp")
        held = Registry(uri, folder, client, {}, {}, marker)
        for seed, name in enumerate(("first", "second"), start=1):
            held.models[name], data = mlp(seed, hidden=(8,))
            assert served.write(folder / name, served.exported(held.models[name], data), data) == ""
            held.add(name, folder / name)
        (folder / "evil.py").write_text(EVIL_CODE.format(marker=str(marker)))
        held.add("other code", folder / "second", evil=str(folder / "evil.py"))
        held.models["other code"] = held.models["second"]
        bad_versions(held)
        marker.unlink(missing_ok=True)
        mlflow.set_tracking_uri(None)
    held.point("first")
    return held


def bad_versions(held: Registry) -> None:
    """Versions that must not or cannot be served."""
    graph = onnx.load(held.folder / "first" / "model.onnx")

    def changed(name: str, content: bytes, **tags: str) -> None:
        folder = held.folder / name
        shutil.copytree(held.folder / "first", folder)
        (folder / "model.onnx").write_bytes(content)
        held.add(name, folder, **tags)

    changed("damaged", os.urandom(1000))
    reads = onnx.ModelProto()
    reads.CopyFrom(graph)
    reads.graph.node[0].op_type, reads.graph.node[0].domain = "ReadFile", "com.example"
    changed("reader", reads.SerializeToString())
    sums = onnx.ModelProto()
    sums.CopyFrom(graph)
    next(node for node in sums.graph.node if node.op_type == "Softmax").op_type = "Relu"
    changed("sums", sums.SerializeToString())
    changed("unchecked", graph.SerializeToString(), **{"mlplab.checked": "failed: its answers are 1 away"})
    changed("unknown", graph.SerializeToString(), **{"mlplab.content": ""})
    # Four bytes of a weight, after it was registered.
    held.add("flipped", held.folder / "first")
    place = held.client.get_model_version_download_uri("mnist-mlp", held.versions["flipped"])
    path = Path(place.removeprefix("file://")) / "artifacts" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-4_000:-3_996] = b"\x00\x00\x80\x7f"
    path.write_bytes(content)


@pytest.fixture(scope="module")
def servers(registry: Registry) -> Iterator[dict[str, Server]]:
    """Ours, one of ours that is to be stopped, and MLflow's, which start side by side, for each takes a while."""
    limits = ["--max-body", str(MAX_BODY), "--max-requests", str(MAX_REQUESTS), "--sender-timeout", "1.5"]
    limits += ["--answer-timeout", "10", "--reader-timeout", "1.5", "--max-connections", str(MAX_CONNECTIONS)]
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
OURS = {
    "gzip": (gzip.compress(inputs([IMAGE, IMAGE[::-1]])), JSON | {"Content-Encoding": "gzip"}),
    "large": (json.dumps({"inputs": [IMAGE, IMAGE[::-1]] * 20}, separators=(",", ":")).encode(), JSON),
    "large, with spaces": (json.dumps({"instances": [IMAGE, IMAGE[::-1]] * 20}).encode(), JSON),
    "large, floats": (inputs(np.array([IMAGE, IMAGE[::-1]] * 20, float).tolist()), JSON),
}
"""What MLflow's own server does not take, or takes as well."""


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
    for name, (body, headers) in OURS.items():
        answer = server.predict(body, headers)
        assert answer.status == 200, (name, answer.body)
        found = np.array([one["probabilities"] for one in answer.json["predictions"]])
        np.testing.assert_allclose(found, np.tile(expected, (len(found) // 2, 1)), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_mlflow_predicts_from_a_file(registry: Registry, tmp_path: Path, form: str) -> None:
    """`mlflow models predict` on the version gives what the trained model gives, of JSON and of CSV."""
    from click.testing import CliRunner
    from mlflow.models.cli import commands

    body, _ = GOOD["inputs" if form == "json" else "CSV"]
    # It takes no key but those of the protocol.
    body = json.dumps({"inputs": json.loads(body)["inputs"]}).encode() if form == "json" else body
    (tmp_path / "given").write_bytes(body)
    command = ["predict", "-m", f"models:/mnist-mlp/{registry.versions['first']}", "--env-manager", "local", "-t", form]
    command += ["-i", str(tmp_path / "given"), "-o", str(tmp_path / "answer.json")]
    done = CliRunner().invoke(commands, command, env={"MLFLOW_TRACKING_URI": registry.uri}, catch_exceptions=False)
    assert done.exit_code == 0
    answers = json.loads((tmp_path / "answer.json").read_text())["predictions"]
    expected = registry.expected(registry.versions["first"], inputs([IMAGE, IMAGE[::-1]]))
    assert np.allclose([one["probabilities"] for one in answers], expected, atol=1e-5)


def test_mlflow_makes_a_container_of_a_version(registry: Registry, tmp_path: Path) -> None:
    """What `mlflow models build-docker` builds has the version's graph and contract, and no Keras or TensorFlow."""
    from click.testing import CliRunner
    from mlflow.models.cli import commands

    command = [
        "generate-dockerfile",
        "-m",
        f"models:/mnist-mlp/{registry.versions['first']}",
        "-d",
        str(tmp_path / "d"),
    ]
    done = CliRunner().invoke(commands, command, env={"MLFLOW_TRACKING_URI": registry.uri}, catch_exceptions=False)
    assert done.exit_code == 0
    model = tmp_path / "d" / "model_dir"
    assert {path.name for path in (model / "artifacts").iterdir()} == {"model.onnx", "contract.json"}
    packages = {line.partition("==")[0] for line in (model / "requirements.txt").read_text().split()}
    assert packages == {"mlflow", "numpy", "onnxruntime", "pandas"}
    assert "COPY model_dir" in (tmp_path / "d" / "Dockerfile").read_text()


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


def test_a_version_of_http_that_is_none_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n")
        assert read_raw(connection)[0] in (400, 505)


def test_every_connection_has_a_deadline_in_every_state(server: Server) -> None:
    """Silent from the first, after half a request, after an answer, with a body that no path wants: none stays open."""
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    states = {"silent": b"", "half a line": b"GET /hea", "a body for nobody": head + b"x", "no body for nobody": head}
    states |= {
        "answered": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "and half": b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET",
    }
    with contextlib.ExitStack() as stack:
        opened = {
            name: stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for name in states
            for _ in range(3)
        }
        for name, connection in opened.items():
            connection.sendall(states[name])
        for connection in opened.values():
            connection.settimeout(60)
            with contextlib.suppress(ConnectionError):
                while connection.recv(65_536):
                    pass


def test_more_connections_than_there_may_be_leave_room_for_a_health_check(server: Server) -> None:
    """The one that has been silent longest makes room; whoever else sends a request is answered, and soon the peer
    that floods is, too."""
    with contextlib.ExitStack() as stack:

        def flood() -> None:
            for _ in range(MAX_CONNECTIONS + 300):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE, ("127.0.0.2", 0)))

        flood()
        for _ in range(20):
            assert server.ask("/health").status == 200
            assert server.predict(inputs([IMAGE])).status == 200
        flood()

        def same_peer() -> bool:
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE, ("127.0.0.2", 0)) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                with contextlib.suppress(OSError):
                    return read_raw(connection)[0] == 200
            return False

        wait_until(same_peer)


@pytest.mark.parametrize("opens", [1, 2], ids=["another peer", "the peer that has most"])
def test_who_floods_makes_room_for_others_at_once_and_for_itself_now_and_then(opens: int) -> None:
    """At the limit the oldest silent connection of the peer that has most ends for each newcomer; a newcomer of that
    peer is refused beyond a few at a time, and costs no connection then."""
    from serving.connections import AT_ONCE, Peers
    from serving.limits import Limits

    ended: list[int] = []
    peers = Peers(Limits(connections=1_000), lambda status: None)
    for port in range(999):
        peers.entered(("10.0.0.2", port), lambda port=port: ended.append(port))
    peers.speaks(("10.0.0.2", 0))
    assert peers.admits("10.0.0.1")
    peers.entered(("10.0.0.1", 5_000), lambda: ended.append(5_000))
    admitted = 0
    for port in range(6_000, 6_000 + 400):
        if peers.admits(f"10.0.0.{opens}"):
            admitted += 1
            peers.entered((f"10.0.0.{opens}", port), lambda port=port: ended.append(port))
    assert ended == list(range(1, 1 + admitted))
    assert AT_ONCE <= admitted <= 3 * AT_ONCE if opens == 2 else admitted == 400


def test_who_does_not_read_is_cut_off(server: Server) -> None:
    """A client that sends requests and takes no answer is gone after a while, and keeps nobody from theirs."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(PATIENCE)
        with pytest.raises(OSError):  # noqa: PT011
            while True:  # what is asked for is much longer than the request
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    assert server.predict(inputs([IMAGE])).status == 200


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


def test_who_sends_no_body_takes_no_slot(server: Server) -> None:
    """With more such requests than may be at work, others are answered; the silent ones get 408."""
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10_000}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(2 * MAX_REQUESTS)
        ]
        for connection in opened:
            connection.sendall(head.encode())
        for _ in range(20):
            assert server.predict(inputs([IMAGE])).status == 200
        assert {read_raw(connection)[0] for connection in opened} == {408}


def test_overload_is_answered_at_once_and_passes(server: Server) -> None:
    """More requests than may be at work get 503 and when to try again; health checks do not wait."""
    body = inputs(np.array([IMAGE] * 60, float).tolist())
    with ThreadPoolExecutor(3 * MAX_REQUESTS) as pool:
        asked = [pool.submit(server.predict, body) for _ in range(3 * MAX_REQUESTS)]
        assert server.ask("/health").status == 200
        answers = [one.result() for one in asked]
    refused = [answer for answer in answers if answer.status != 200]
    assert 0 < len(refused) < len(answers), {answer.status for answer in answers}
    for answer in refused:
        check_refusal(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
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
        ("damaged", "damaged"),
        ("reader", "the operation ReadFile of the domain com.example"),
        ("sums", "not a probability"),
        ("unchecked", "has not passed the check"),
        ("unknown", "no record of its content"),
        ("flipped", "artifacts/model.onnx is not what was registered"),
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
    until(lambda: f"version {bad} of models:/mnist-mlp@champion is not served" in server.log.read_text(), server.log)
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


def test_a_remote_registry_cannot_name_a_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from serving.limits import RefusedError
    from serving.registry import Registered, Registry

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "MLmodel").write_text("")
    for place in (str(tmp_path), tmp_path.as_uri()):
        with pytest.raises(RefusedError, match="local path"):
            Registry().read(Registered("1", 0, place, {}), "MLmodel")


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../secret", "a//b", "", ".", "link", "folder/link", "pipe"]
)
def test_a_file_of_a_version_lies_in_its_folder_and_is_one(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path out of it, a link in it, and what is no file are not read."""
    from serving.limits import RefusedError
    from serving.registry import Registered, Registry

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "version" / "inside").mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "version" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "version" / "folder").symlink_to(tmp_path)
    (tmp_path / "link").write_text(SECRET)
    os.mkfifo(tmp_path / "version" / "pipe")
    with pytest.raises(RefusedError):
        Registry().read(Registered("1", 0, str(tmp_path / "version"), {}), path)


def test_a_registry_that_is_away_leaves_the_version_serving() -> None:
    from serving.registry import Reference
    from serving.versions import Watcher

    class Away:
        def resolve(self, reference: Any) -> Any:
            raise ConnectionError(SECRET)

    watcher = Watcher(Reference.parse("models:/mnist-mlp@champion"), Away())  # type: ignore[arg-type]
    watcher.current = current = SimpleNamespace(number="1")  # type: ignore[assignment]
    watcher.look()
    assert watcher.current is current
    assert not watcher.reachable


def test_an_alias_that_is_gone_is_said(server: Server, registry: Registry) -> None:
    """What is served stays, and `/model` and the metrics say that the registry has it no more."""
    number = registry.point("first")
    until(lambda: serving(server)["version"] == number and serving(server)["in_registry"], server.log)
    registry.client.delete_registered_model_alias("mnist-mlp", "champion")
    until(lambda: not serving(server)["in_registry"], server.log)
    assert "serving_version_gone 1" in metrics(server)
    assert server.predict(inputs([IMAGE])).headers["model-version"] == number
    registry.point("first")
    until(lambda: serving(server)["in_registry"], server.log)


def test_before_there_is_a_version_the_server_says_so() -> None:
    from serving.app import App
    from serving.limits import Limits
    from serving.registry import Reference
    from serving.versions import Watcher

    watcher = Watcher(Reference.parse("models:/mnist-mlp@champion"), None)  # type: ignore[arg-type]
    app = App(watcher, Limits())

    def ask(path: str, method: str) -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": inputs([IMAGE]), "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "http_version": "1.1", "path": path, "method": method, "headers": headers}
        asyncio.run(app(scope, receive, send))
        assert b"retry-after" in dict(sent[0]["headers"])
        return int(sent[0]["status"])

    assert {ask("/invocations", "POST"), ask("/health", "GET"), ask("/ping", "GET")} == {503}


@pytest.mark.parametrize(
    "uri", ["mnist-mlp", "models:/mnist-mlp", "models:/mnist-mlp@", "runs:/1/model", "models:/a/b"]
)
def test_a_wrong_model_uri_is_refused(uri: str) -> None:
    from serving.registry import Reference

    with pytest.raises(ValueError, match=r"legal: models:/name@alias or models:/name/version"):
        Reference.parse(uri)


def test_every_architecture_that_mlplab_builds_is_served(tmp_path: Path) -> None:
    from mlplab import served

    for place, activation in enumerate(("relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu")):
        model, data = mlp(1, hidden=(4,), activation=activation, batch_norm=True, dropout=0.5, l2=0.01)
        assert served.write(tmp_path / str(place), served.exported(model, data), data) == ""


# ------------------------------------------------------------------------------------------------- logs and metrics


def test_a_log_that_nobody_reads_keeps_no_request_waiting(registry: Registry) -> None:
    """Standard output and error are pipes that are full: requests are answered all the same."""
    number = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    environment |= {"MLFLOW_TRACKING_URI": registry.uri, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "serving", "--port", str(number), "--model", "models:/mnist-mlp/1"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    server = Server(process, number, registry.folder / "none")
    server.log.write_text("")
    try:
        server.wait()
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=PATIENCE)
        for _ in range(2_000):
            connection.request("POST", "/invocations", b"{}", JSON)
            assert connection.getresponse().read()
        assert server.predict(inputs([IMAGE])).status == 200
    finally:
        ended(server)


def test_a_small_answer_is_sent_at_once() -> None:
    """A connection says that it is TCP's, without which asyncio leaves small packets to wait for each other: 40 ms."""
    from serving.connections import Door, Peers
    from serving.limits import Limits

    (door, *others) = Door.of("127.0.0.1", 0, Peers(Limits(), lambda status: None))
    assert not others
    with door:
        door.listen()
        with socket.create_connection(door.getsockname()):
            guest, _ = door.accept()
            with guest:
                assert guest.proto == socket.IPPROTO_TCP


def test_a_token_is_asked_for_where_there_is_one(registry: Registry) -> None:
    """Without it, or with a wrong one, 401; as a bearer, or as a password, it opens; health checks need none."""
    number = free_port()
    (registry.folder / "token").write_text(f"{SECRET}\n")
    command = [sys.executable, "-m", "serving", "--port", str(number), "--token-file", str(registry.folder / "token")]
    server = started([*command, "--model", "models:/mnist-mlp/1"], number, registry.folder, registry.uri)
    try:
        server.wait()
        basic = base64.b64encode(f"anybody:{SECRET}".encode()).decode()
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic %%"}):
            check_refusal(server.predict(inputs([IMAGE]), JSON | wrong), 401)
            check_refusal(server.ask("/model", None, wrong), 401)
        for right in (f"Bearer {SECRET}", f"Basic {basic}"):
            assert server.predict(inputs([IMAGE]), JSON | {"Authorization": right}).status == 200
        assert server.ask("/health").status == 200
    finally:
        ended(server)


def test_tls_by_files_is_spoken_and_has_deadlines(registry: Registry) -> None:
    """With a certificate's files the server answers curl, which trusts that certificate alone, and not without TLS;
    who never ends the handshake is cut off, and counts as a connection until then."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += [
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(make, cwd=registry.folder, check=True, capture_output=True)
    number = free_port()
    command = [sys.executable, "-m", "serving", "--port", str(number), "--model", "models:/mnist-mlp/1"]
    command += ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--sender-timeout", "1.5", "--max-connections", "50"]
    server = started(command, number, registry.folder, registry.uri)

    def curl(*words: str) -> str:
        command = ["curl", "-sS", "--max-time", "10", *words, f"{server.url.replace('http:', 'https:')}/invocations"]
        given = {"cwd": registry.folder, "input": inputs([IMAGE]), "capture_output": True, "check": False}
        done = subprocess.run([*command, "-H", "Content-Type: application/json", "-d", "@-"], **given)
        return (done.stdout + done.stderr).decode()

    try:
        until(lambda: "predictions" in curl("--cacert", "cert.pem"), server.log)
        assert "predictions" not in curl()
        with pytest.raises((OSError, http.client.HTTPException)):
            server.ask("/health")
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(socket.create_connection(("127.0.0.1", number), PATIENCE, ("127.0.0.2", 0)))
                for _ in range(100)
            ]
            assert "predictions" in curl("--cacert", "cert.pem")
            for connection in opened:
                with contextlib.suppress(ConnectionError):
                    while connection.recv(65_536):
                        pass
    finally:
        ended(server)


def test_a_picture_is_made_as_those_of_the_training(server: Server) -> None:
    """PNG, JPEG and base64 in JSON, dark on light and large: the answer is that of the digit as MNIST has it."""
    from PIL import ImageDraw

    from serving.pictures import as_trained

    drawn = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(drawn).rectangle((120, 40, 139, 159), fill="black")
    pixels, done = as_trained(picture(drawn), (28, 28), "dark", 20 / 28)
    assert "inverted" in done
    assert "centred" in done
    expected = server.predict(inputs([pixels.reshape(-1).tolist()])).json["predictions"][0]
    text = base64.b64encode(picture(drawn)).decode()
    for body, headers in (
        (picture(drawn), PNG),
        (json.dumps({"instances": [{"b64": text}]}).encode(), JSON),
    ):
        answer = server.predict(body, headers)
        assert answer.json["predictions"] == [expected]
        assert answer.json["picture"] == done
    assert server.predict(picture(drawn, "JPEG"), {"Content-Type": "image/jpeg"}).status == 200


@pytest.mark.parametrize(
    ("image", "warning"),
    [
        ([value / 255 for value in IMAGE], "scaled-twice"),
        (np.pad(np.zeros((20, 20), int), 4, constant_values=255).reshape(-1).tolist(), "inverted"),
        (np.pad(np.full((20, 20), 200), 4).reshape(-1).tolist(), None),
    ],
)
def test_what_looks_wrong_is_answered_with_a_warning(server: Server, image: list[float], warning: str | None) -> None:
    """Numbers scaled twice, and pictures the wrong way round; each is counted."""
    answer = server.predict(inputs([image]))
    assert answer.status == 200
    assert answer.headers["model-warning"] == warning
    assert warning is None or f'serving_warnings_total{{warning="{warning}"}}' in metrics(server)


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

    def logged() -> list[Any]:
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        return [line for line in lines if "ms" in line]

    until(lambda: [line["status"] for line in logged()[-2:]] == [200, 400], server.log)
    requests = logged()
    assert [(line["status"], line["images"]) for line in requests[-2:]] == [(200, 3), (400, 0)]
    assert requests[-1].keys() == {"time", "status", "images", "ms", "version"}
    assert SECRET not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


# ------------------------------------------------------------------------------------------------------------- page


@pytest.mark.browser
def test_a_person_asks_on_a_page(server: Server, browser: Browser, tmp_path: Path) -> None:
    """Drawn by mouse or keys, on a phone, or given as a file: the answer with bars, and the line for a shell.

    Nothing is asked from elsewhere, nothing is refused by the page's own policy, and axe finds nothing against it.
    """
    from axe_playwright_python.sync_playwright import Axe

    picture_file = tmp_path / "picture.png"
    picture_file.write_bytes(picture(Image.new("L", (50, 50), 255)))
    page = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    policy = page.goto(server.url).headers["content-security-policy"]  # type: ignore[union-attr]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page.wait_for_selector("#canvas:visible")
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 90, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 190, box["y"] + 60, steps=5)
    page.mouse.up()
    page.click("#ask-canvas")
    page.wait_for_selector(".answer")
    drawn = page.inner_text(".answer")
    assert re.fullmatch(r"\d \(\d+\.\d+ %\)", drawn)
    assert page.locator("meter").count() == 10
    assert "centred" in page.inner_text("#answer")
    assert f"{server.url}/invocations" in page.inner_text("#curl")
    page.click("#clear")
    page.focus("#canvas")
    for key in (" ", *["ArrowDown"] * 9, " ", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("before => document.querySelector('.answer').textContent !== before", arg=drawn)
    page.set_input_files("#file", str(picture_file))
    page.wait_for_function("() => document.querySelector('#answer').textContent.includes('from 50x50')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert Axe().run(page).violations_count == 0
    page.goto(f"{server.url}/docs")
    assert Axe().run(page).violations_count == 0
    assert not said
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked)


def test_the_description_for_programs_is_openapi_and_says_the_model(server: Server) -> None:
    """Its schema is that of the model, and what it calls legal and illegal is answered so."""
    import jsonschema

    described = server.ask("/openapi.json").json
    assert described["openapi"].startswith("3.1")
    assert {"/invocations", "/health", "/model"} <= described["paths"].keys()
    post = described["paths"]["/invocations"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    answered = post["responses"]["200"]["content"]["application/json"]["schema"]
    for image, legal in ((IMAGE, True), (IMAGE[1:], False), (row(256), False), (row("1"), False), (row(-1), False)):
        assert jsonschema.Draft202012Validator(schema).is_valid({"inputs": [image]}) == legal
        answer = server.predict(inputs([image]))
        assert answer.status == (200 if legal else 400)
        if legal:
            jsonschema.validate(answer.json, answered)
        else:
            assert str(answer.status) in post["responses"]


# ------------------------------------------------------------------------------------------------- client and README


AS_CSV = """
import csv, io, schemathesis

@schemathesis.serializer("text/csv")
def as_csv(context, rows):
    out = io.StringIO()
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return str(rows).encode()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "replace")
"""


def small_pictures() -> Any:
    from keras import Input, Sequential, layers

    return Sequential([Input((4, 4)), layers.Flatten(), layers.Dense(10, activation="softmax")])


def small_table() -> Any:
    from keras import Input, Model, layers

    numbers, code = Input((3,), name="numbers"), Input((1,), name="code", dtype="int8")
    both = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(128, 2)(code))])
    return Model({"numbers": numbers, "code": code}, layers.Dense(3, activation="softmax")(both))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["pictures", "table"])
def test_schemathesis_finds_nothing(registry: Registry, tmp_path: Path, kind: str) -> None:
    """What the description calls legal is answered, what it does not is refused, and answers are as it says; made up by
    schemathesis, which is a program in an environment of its own (SCHEMATHESIS, or on the path)."""
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis") or pytest.skip("there is no schemathesis")
    from mlplab import served
    from mlplab.building import build
    from mlplab.data import load
    from mlplab.export import answering
    from mlplab.spec import Training
    from serving.model import Contract, answers, as_sent, named

    rng = np.random.default_rng(0)
    if kind == "pictures":
        pixels = np.pad(rng.integers(0, 256, (100, 2, 2)), ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
        model, data = small_pictures, replace(load((pixels, np.tile(np.arange(10), 10))), image_shape=(4, 4))
    else:
        x = {"numbers": rng.normal(size=(60, 3)).astype("float32"), "code": rng.integers(0, 4, (60, 1)).astype("int8")}
        model, data = small_table, load((x, np.tile(np.arange(3), 20)))
    built = build(Training(model=model, optimizer="sgd", loss="sparse_categorical_crossentropy"), data, 1)
    assert served.write(tmp_path / kind, served.exported(built, data), data) == ""
    import mlflow

    mlflow.set_tracking_uri(registry.uri)
    rows = served.first_test_rows(data, 1)
    outputs = served.exported(built, data)
    contract = Contract.read((tmp_path / kind / "contract.json").read_bytes())
    example = named(as_sent(rows), "input"), answers(contract, served.arrays(answering(outputs)(rows), "output"))
    registry.add(kind, tmp_path / kind, example=example)
    mlflow.set_tracking_uri(None)
    (tmp_path / "as_csv.py").write_text(AS_CSV)
    # Of numbers of 1e38 a model may give none that is finite, which is 422.
    (tmp_path / "schemathesis.toml").write_text(
        '[checks.positive_data_acceptance]\nexpected-statuses = ["2xx", "422"]\n'
    )
    number = free_port()
    command = [sys.executable, "-m", "serving", "--port", str(number)]
    command += ["--model", f"models:/mnist-mlp/{registry.versions[kind]}"]
    server = started(command, number, tmp_path, registry.uri)
    try:
        server.wait()
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "as_csv", "PYTHONPATH": str(tmp_path)}
        run = [program, "run", f"{server.url}/openapi.json", "--max-examples", "200", "--continue-on-failure"]
        done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-5_000:]
        assert " passed" in done.stdout
    finally:
        ended(server)


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


def test_a_picture_becomes_light_on_dark_of_the_size_and_place_of_mnists_digits() -> None:
    from PIL import ImageDraw

    from serving.pictures import as_trained

    read = {}
    for name, ground, ink in (("light", "white", "black"), ("dark", "black", "white"), ("clear", "#0000", "black")):
        drawn = Image.new("RGBA", (300, 200), ground)
        ImageDraw.Draw(drawn).rectangle((20, 10, 39, 49), fill=ink)
        read[name] = as_trained(picture(drawn), (28, 28), "dark", 20 / 28)[0]
    assert np.array_equal(read["light"], read["dark"])
    assert np.array_equal(read["light"], read["clear"])
    inside = np.zeros((28, 28), bool)
    inside[4:24, 9:19] = True
    assert read["light"][inside].min() > 200
    assert read["light"][~inside].max() < 50
    whole = as_trained(picture(Image.fromarray(255 - read["light"]).resize((280, 280))), (28, 28), "light", 1.0)[0]
    assert (255 - whole)[:, 10:18].min(axis=1).min() > 100


STROKES = {
    0: [(0.5, 0.05), (0.2, 0.3), (0.2, 0.7), (0.5, 0.95), (0.8, 0.7), (0.8, 0.3), (0.5, 0.05)],
    1: [(0.35, 0.25), (0.55, 0.05), (0.55, 0.95)],
    2: [(0.2, 0.25), (0.5, 0.05), (0.8, 0.25), (0.2, 0.95), (0.8, 0.95)],
    3: [(0.2, 0.1), (0.75, 0.25), (0.4, 0.47), (0.8, 0.7), (0.2, 0.93)],
    4: [(0.65, 0.97), (0.65, 0.05), (0.2, 0.6), (0.85, 0.6)],
    5: [(0.75, 0.07), (0.3, 0.07), (0.3, 0.45), (0.75, 0.65), (0.25, 0.93)],
    7: [(0.2, 0.1), (0.8, 0.1), (0.42, 0.95)],
}


def test_a_digit_on_paper_is_read_as_a_clean_one() -> None:
    """A photo of a person's digit, dim, with a shadow, grain and specks, the ink off its centre, dark on light, becomes
    what the same stroke is on a clean ground: each is nearest to its own digit, and empty paper to none."""
    from PIL import ImageDraw

    from serving.pictures import as_trained

    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, 640), np.linspace(0, 1, 480))
    for light in (230, 140):
        paper = light - 50 * across - 25 * down**2 + rng.normal(0, 4, down.shape)
        paper.ravel()[rng.integers(0, paper.size, 40)] -= 60
        clean, photos = {}, {}
        for digit, stroke in STROKES.items():
            ink = Image.new("L", (640, 480))
            left, top = rng.integers(10, 400), rng.integers(10, 240)
            line = [(left + 200 * x, top + 200 * y) for x, y in stroke]
            ImageDraw.Draw(ink).line(line, fill=255, width=16, joint="curve")
            clean[digit] = as_trained(picture(ink), (28, 28), "dark", 20 / 28)[0].astype(float)
            share = np.asarray(ink) / 255
            photo = Image.fromarray((paper * (1 - share) + 0.25 * light * share).clip(0, 255).astype(np.uint8))
            pixels, done = as_trained(picture(photo, "JPEG"), (28, 28), "dark", 20 / 28)
            assert "inverted" in done
            photos[digit] = pixels.astype(float)
        for digit, pixels in photos.items():
            apart = {other: np.abs(pixels - template).mean() for other, template in clean.items()}
            assert min(apart, key=apart.__getitem__) == digit
            assert apart[digit] < 20  # a pixel to the side is 15
        empty = Image.fromarray(paper.clip(0, 255).astype(np.uint8))
        assert as_trained(picture(empty), (28, 28), "dark", 20 / 28)[0].mean() < 10


def test_a_picture_of_28x28_is_left_as_it_is() -> None:
    from serving.pictures import as_trained

    pixels = np.zeros((28, 28), np.uint8)
    pixels[3:9, 3:7] = np.arange(24).reshape(6, 4) * 10
    assert np.array_equal(as_trained(picture(Image.fromarray(pixels)), (28, 28), "dark")[0], pixels)


def test_what_a_picture_looks_like_in_training_is_measured() -> None:
    """MNIST's kind of digits: on dark ground, the ink 20 of 28 pixels high or wide."""
    from mlplab import served

    pictures = np.zeros((50, 28, 28), np.uint8)
    pictures[:, 4:24, 9:19] = 200
    assert served._pictured(pictures.reshape(50, -1), (28, 28)) == {"ground": "dark", "fill": pytest.approx(20 / 28)}
    assert served._pictured(255 - pictures.reshape(50, -1), (28, 28))["ground"] == "light"


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
        until(lambda: "serving_bodies_present 1" in metrics(server), server.log)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not server.listens())
        connection.sendall(body[100:])
        status, content = read_raw(connection)
        assert status == 200
        assert json.loads(content)["predictions"]
    assert server.process.wait(PATIENCE) == 0
