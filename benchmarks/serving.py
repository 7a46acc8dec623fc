"""The model server against others, measured in turns in one run.

Usage: python benchmarks/serving.py [--quick] [--repetitions N] [--old CHECKOUT]

The same MLP 784-128-64-10 is logged with `mlflow.keras.log_model` and served by `mlflow models serve` (stock), and
logged as mlplab registers it and served by `python -m serving` (ours). With --old an older checkout of mlplab serves
its own, too, such as `git worktree add /tmp/old 277825f`, the last one whose server ran TensorFlow. Each is a process
on this machine; they take turns. Requests go over kept-open connections from this process, as JSON `inputs` of whole
numbers drawn from 0 to 255; what is timed is from the first byte sent to the last one received. Latency is that of one
client that asks again as soon as it is answered. The peak rate is what 8 such clients get together. At half of it,
requests are sent at even intervals, and timed from when they were due: whatever else the machine does shows there.
Memory is what a server and its processes have of their own (PSS); its start is until the first image is answered.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PEAK_CLIENTS, MANY_CLIENTS, BATCH = 8, 64, 256
TIMES_FASTER, P50_MS, P99_OVER_P50 = 30.0, 5.0, 4.0
MEMORY_MIB, START_SECONDS, OF_OLD_P50, OF_OLD_IMAGES = 250.0, 3.0, 0.7, 1.5


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

    from mlplab import registry, served
    from mlplab.building import build
    from mlplab.data import load
    from mlplab.spec import Training
    from serving.model import arguments
    from serving.versions import CHECKED, CONTENT

    data = load("digits")
    mlp = Training(model="mlp", optimizer="sgd", loss="sparse_categorical_crossentropy")
    model = build(mlp, data, seed=1)
    served.write(folder / "served", served.exported(model, data), data)
    example = np.zeros((1, 784), np.float32)
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        signature = mlflow.models.infer_signature(example, np.zeros((1, 10), np.float32))
        mlflow.keras.log_model(model, name="stock", signature=signature, registered_model_name="stock")
        logged = mlflow.pyfunc.log_model(name="ours", **arguments(folder / "served", example))
        client.create_registered_model("mnist-mlp")
        tags = {CONTENT: registry.content_of(logged.model_uri, folder / "served"), CHECKED: "passed"}
        client.create_model_version("mnist-mlp", logged.model_uri, run.info.run_id, tags)
    client.set_registered_model_alias("mnist-mlp", "champion", "1")


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A server's process: its port, how long it took to its first answer, and what memory it has."""

    def __init__(self, command: list[str], checkout: Path, folder: Path) -> None:
        self.port = free_port()
        self.log = (folder / f"{self.port}.log").open("w+")
        environment = os.environ | {"PYTHONPATH": str(checkout), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=self.log, stderr=self.log, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=2):
                break
            if self.process.poll() is not None or time.perf_counter() - started > 240:
                self.log.seek(0)
                sys.exit(f"the server did not start:\n{self.log.read()[-3000:]}")
            time.sleep(0.02)
        Client(self.port).ask(request(1, 0))
        self.seconds = time.perf_counter() - started

    def memory(self) -> float:
        """MiB."""
        import psutil

        own = psutil.Process(self.process.pid)
        return sum(float(one.memory_full_info().pss) for one in [own, *own.children(recursive=True)]) / 2**20

    def end(self) -> None:
        """Stops it."""
        os.killpg(self.process.pid, 15)
        self.process.wait(60)


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
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="of mlplab, whose server is measured, too")
    options = parser.parse_args()
    repetitions, seconds = (2, 1.0) if options.quick else (options.repetitions, 4.0)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        os.environ |= {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        checkouts = {"stock": ROOT, **({"old": options.old.resolve()} if options.old else {}), "ours": ROOT}
        servers = {}
        for who, checkout in checkouts.items():
            folder = Path(name) / checkout.name / ("old" if who == "old" else "now")
            if not folder.exists():
                folder.mkdir(parents=True)
                # A process of its own, for it keeps TensorFlow's threads.
                script = [sys.executable, str(checkout / "benchmarks" / "serving.py"), "--register", str(folder)]
                uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(checkout)}
                subprocess.run(script, check=True, capture_output=True, cwd=folder, env=os.environ | uri)
            stock = ["mlflow", "models", "serve", "-m", "models:/stock/1", "--env-manager", "local"]
            command = stock if who == "stock" else [sys.executable, "-m", "serving"]
            starts = []
            for again in range(3 if who != "stock" else 1):
                servers[who] = Served(command, checkout, folder)
                starts.append(servers[who].seconds)
                if again < (2 if who != "stock" else 0):
                    servers[who].end()
            servers[who].seconds = statistics.median(starts)
            stack.callback(servers[who].end)
        turns: dict[str, list[dict[str, Any]]] = {who: [] for who in servers}
        for _ in range(repetitions):
            for who, server in servers.items():
                turns[who].append(measure(server.port, seconds))
        for who, server in servers.items():
            turns[who] = [turn | {"start": server.seconds, "memory": server.memory()} for turn in turns[who]]
        same = identical(servers["ours"].port, 5 if options.quick else 50)
    report(turns, same, repetitions)


def report(turns: dict[str, list[dict[str, Any]]], same: bool, repetitions: int) -> None:
    """Prints the tables: of each server, and of ours as times of another's in the same turn."""
    print(f"Medians of {repetitions} turns; seconds are of this machine, ratios are the result.\n")
    shown = {
        "p50": ("one image, p50", "{:.2f} ms", 1e3),
        "p99": ("one image, p99", "{:.2f} ms", 1e3),
        "peak": ("peak rate", "{:.0f}/s", 1),
        "half p50": ("at half the peak rate, p50", "{:.2f} ms", 1e3),
        "half p99": ("at half the peak rate, p99", "{:.2f} ms", 1e3),
        "images": (f"images a second, batches of {BATCH}", "{:,.0f}", 1),
        "start": ("start to first answer", "{:.2f} s", 1),
        "memory": ("memory", "{:.0f} MiB", 1),
    }
    others = [who for who in turns if who != "ours"]
    print(f"| what | {' | '.join(turns)} | {' | '.join(f'ours / {who}' for who in others)} |")
    print("|---|" + "---:|" * (len(turns) + len(others)))
    ratios = {}
    for what, (name, form, factor) in shown.items():
        cells = [form.format(factor * statistics.median(turn[what] for turn in turns[who])) for who in turns]
        for who in others:
            pairs = zip(turns["ours"], turns[who], strict=True)
            ratios[what, who] = statistics.median(ours[what] / other[what] for ours, other in pairs)
            cells.append(f"{ratios[what, who]:.2f}")
        print(f"| {name} | {' | '.join(cells)} |")
    ours = {what: statistics.median(turn[what] for turn in turns["ours"]) for what in shown}
    targets = [
        (f"p50 at least {TIMES_FASTER:g} times as fast as stock", ratios["p50", "stock"] <= 1 / TIMES_FASTER),
        (f"p50 at most {P50_MS:g} ms", ours["p50"] * 1000 <= P50_MS),
        (
            f"at half the peak rate p99 at most {P99_OVER_P50:g} p50",
            ours["half p99"] <= P99_OVER_P50 * ours["half p50"],
        ),
        (f"memory at most {MEMORY_MIB:g} MiB", ours["memory"] <= MEMORY_MIB),
        (f"start at most {START_SECONDS:g} s", ours["start"] <= START_SECONDS),
        (f"answers identical under {MANY_CLIENTS} clients", same),
    ]
    if "old" in turns:
        targets += [
            (f"p50 at most {OF_OLD_P50:g} of old", ratios["p50", "old"] <= OF_OLD_P50),
            (f"images a second at least {OF_OLD_IMAGES:g} times old", ratios["images", "old"] >= OF_OLD_IMAGES),
        ]
    print()
    for target, met in targets:
        print(f"- {target}: {'pass' if met else 'FAIL'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--register"]:
        register(Path(sys.argv[2]))
    else:
        main()
