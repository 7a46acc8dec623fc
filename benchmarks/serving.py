"""The model server against the stock Keras flavor under `mlflow models serve`, measured in turns in one run.

Usage: python benchmarks/serving.py [--quick] [--repetitions N]

The same MLP 784-128-64-10 is logged twice, with `mlflow.keras.log_model` and as mlplab registers it, and served by two
processes on this machine, which take turns. Requests go over kept-open connections from this process, as JSON `inputs`
of whole numbers drawn from 0 to 255; what is timed is from the first byte sent to the last one received. Latency is
that of one client that asks again as soon as it is answered. The peak rate is what 8 such clients get together. At half
of it, requests are sent at even intervals, and timed from when they were due: whatever else the machine does shows
there.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PEAK_CLIENTS, MANY_CLIENTS, BATCH = 8, 64, 256
TIMES_FASTER, P50_MS, P99_OVER_P50, IMAGES_PER_SECOND = 30.0, 5.0, 4.0, 2_000.0


def request(images: int, seed: int) -> bytes:
    """A whole HTTP request for random images."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 784)).tolist()
    body = json.dumps({"inputs": pixels}).encode()
    head = "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Client:
    """A kept-open connection, with as little work of its own as can be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, sent: bytes) -> bytes:
        """The body of the answer."""
        self.socket.sendall(sent)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            sys.exit(f"the server refused: {received[:300]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        pieces, missing = [body], length - len(body)
        while missing > 0:
            pieces.append(self._receive())
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _receive(self) -> bytes:
        piece = self.socket.recv(65_536)
        if not piece:
            sys.exit("the server closed the connection; nothing more is measured.")
        return piece


def register(folder: Path) -> None:
    """Logs the model both ways."""
    import mlflow
    import tensorflow as tf

    from mlplab.building import build
    from mlplab.data import load
    from mlplab.export import Export
    from mlplab.spec import Training
    from serving.model import arguments

    mlp = Training(model="mlp", optimizer="sgd", loss="sparse_categorical_crossentropy")
    model = build(mlp, load("digits"), seed=1)
    tf.saved_model.save(Export(model), str(folder / "export"))
    example = np.zeros((1, 784), np.float32)
    with mlflow.start_run():
        signature = mlflow.models.infer_signature(example, np.zeros((1, 10), np.float32))
        mlflow.keras.log_model(model, name="stock", signature=signature, registered_model_name="stock")
        mlflow.pyfunc.log_model(name="ours", registered_model_name="mnist-mlp", **arguments(folder / "export", example))
    mlflow.MlflowClient().set_registered_model_alias("mnist-mlp", "champion", "1")


@contextlib.contextmanager
def serving(command: list[str], folder: Path) -> Iterator[int]:
    """A server's process; the port it answers on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / f"{port}.log").open("w+")
    process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                sys.exit(f"the server did not start:\n{log.read()[-3000:]}")
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def latencies(port: int, requests: int) -> list[float]:
    """Seconds of single images asked one after another."""
    client, sent = Client(port), request(1, 0)
    client.ask(sent)
    found = []
    for _ in range(requests):
        started = time.perf_counter()
        client.ask(sent)
        found.append(time.perf_counter() - started)
    return found


def rate(port: int, sent: bytes, clients: int, seconds: float) -> float:
    """Requests a second that clients get together who each ask again as soon as they are answered."""
    counts = [0] * clients
    connections = [Client(port) for _ in range(clients)]
    for connection in connections:
        connection.ask(sent)
    started = time.perf_counter()

    def work(place: int) -> None:
        while time.perf_counter() - started < seconds:
            connections[place].ask(sent)
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def paced(port: int, per_second: float, seconds: float) -> list[float]:
    """Seconds of single images sent at even intervals, from when each was due."""
    sent = request(1, 0)
    clients = 4
    found: list[list[float]] = [[] for _ in range(clients)]
    connections = [Client(port) for _ in range(clients)]
    for connection in connections:
        connection.ask(sent)
    started = time.perf_counter() + 0.05

    def work(place: int) -> None:
        for number in range(place, int(per_second * seconds), clients):
            due = started + number / per_second
            while (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            connections[place].ask(sent)
            found[place].append(time.perf_counter() - due)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for some in found for one in some]


def identical(port: int, each: int) -> bool:
    """Whether many clients at once get, byte for byte, what one client gets alone."""
    asked = [request(1 + seed % 3, seed) for seed in range(8)]
    alone = Client(port)
    expected = [alone.ask(sent) for sent in asked]

    def work(place: int) -> bool:
        client = Client(port)
        return all(client.ask(asked[n % 8]) == expected[n % 8] for n in range(place, place + each))

    with ThreadPoolExecutor(MANY_CLIENTS) as pool:
        return all(pool.map(work, range(MANY_CLIENTS)))


def measure(port: int, seconds: float) -> dict[str, Any]:
    """Everything that is measured of a server, once."""
    singles = latencies(port, 20)
    singles = latencies(port, max(20, min(2_000, int(seconds / statistics.median(singles)))))
    peak = rate(port, request(1, 0), PEAK_CLIENTS, seconds)
    half = paced(port, peak / 2, seconds)
    return {
        "p50": quantile(singles, 50),
        "p99": quantile(singles, 99),
        "peak": peak,
        "half p50": quantile(half, 50),
        "half p99": quantile(half, 99),
        "images": BATCH * rate(port, request(BATCH, 0), 2, seconds),
    }


def quantile(values: list[float], percent: int) -> float:
    """A percentile."""
    return float(np.percentile(values, percent))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="two short repetitions, to see that it works")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each server (default: %(default)s)")
    options = parser.parse_args()
    repetitions, seconds = (2, 1.0) if options.quick else (options.repetitions, 4.0)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(contextlib.chdir(folder))
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
        os.environ |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        # A process of its own, for it keeps TensorFlow's threads.
        subprocess.run([sys.executable, __file__, "--register", name], check=True, capture_output=True)
        commands = {
            "stock": ["mlflow", "models", "serve", "-m", "models:/stock/1", "--env-manager", "local"],
            "ours": [sys.executable, "-m", "serving"],
        }
        ports = {who: stack.enter_context(serving(command, folder)) for who, command in commands.items()}
        turns: dict[str, list[dict[str, Any]]] = {who: [] for who in ports}
        for _ in range(repetitions):
            for who, port in ports.items():
                turns[who].append(measure(port, seconds))
        same = identical(ports["ours"], 5 if options.quick else 50)
    report(turns, same, repetitions)


def report(turns: dict[str, list[dict[str, Any]]], same: bool, repetitions: int) -> None:
    """Prints the table."""
    stock, ours = (
        {what: statistics.median(turn[what] for turn in turns[who]) for what in turns[who][0]} for who in turns
    )
    ratio = statistics.median(turn["half p99"] / turn["half p50"] for turn in turns["ours"])
    print(f"Medians of {repetitions} turns; seconds are of this machine, ratios are the result.\n")
    print("| what | stock Keras flavor | ours | times better | target | |\n|---|---:|---:|---:|---|---|")

    def line(what: str, a: str, b: str, times: float | None, target: str = "", met: bool | None = None) -> None:
        verdict = "" if met is None else "pass" if met else "FAIL"
        print(f"| {what} | {a} | {b} | {'' if times is None else f'{times:.1f}'} | {target} | {verdict} |")

    def ms(seconds: float) -> str:
        return f"{seconds * 1000:.2f} ms"

    times = stock["p50"] / ours["p50"]
    line("one image, p50", ms(stock["p50"]), ms(ours["p50"]), times, f"≥ {TIMES_FASTER:g}x", times >= TIMES_FASTER)
    line("one image, p50", "", ms(ours["p50"]), None, f"≤ {P50_MS:g} ms", ours["p50"] * 1000 <= P50_MS)
    line("one image, p99", ms(stock["p99"]), ms(ours["p99"]), stock["p99"] / ours["p99"])
    line("peak rate", f"{stock['peak']:.0f}/s", f"{ours['peak']:.0f}/s", ours["peak"] / stock["peak"])
    for what in ("half p50", "half p99"):
        line(f"at half the peak rate, {what[5:]}", ms(stock[what]), ms(ours[what]), stock[what] / ours[what])
    line("at half the peak rate, p99 / p50", "", f"{ratio:.1f}", None, f"≤ {P99_OVER_P50:g}", ratio <= P99_OVER_P50)
    line(
        f"images a second, batches of {BATCH}",
        f"{stock['images']:,.0f}",
        f"{ours['images']:,.0f}",
        ours["images"] / stock["images"],
        f"≥ {IMAGES_PER_SECOND:,.0f}",
        ours["images"] >= IMAGES_PER_SECOND,
    )
    line(f"answers identical under {MANY_CLIENTS} clients", "", "yes" if same else "no", None, "yes", same)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--register"]:
        register(Path(sys.argv[2]))
    else:
        main()
