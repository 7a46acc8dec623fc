"""What tracking costs: the same training with and without it, in turns, in one run.

Usage: python benchmarks/tracking.py [--repetitions N] [--epochs N]

The training is RMSprop on the MNIST MLP at batch size 128, and one on the digits with epochs of milliseconds. `tracked`
is everything a variant's run gets: its creation, params, tags and input, metrics of every epoch, history, summary,
model file and learning-curve figure, until all of it is delivered. The wall time starts when the store is open and the
programs are compiled. `whole comparison` has besides the parent's tables, figures, page and the logged model, which are
made once a comparison, not once a variant.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlflow
from quiet import Quiet

from mlplab import backend, data, run, seed_group, trial
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.loading import Options
from mlplab.results import Result
from mlplab.spec import Training
from mlplab.store.command import parent_run

SHORT_EPOCHS, SHORT_BATCH = 1_000, 64
"""Of the digits: epochs of some milliseconds, each with its points."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()

    mnist, digits = data.load("auto", wanted="mnist"), data.load("digits")
    print(f"{mnist.label}, medians of {arguments.repetitions} in turns\n")
    print("| | overhead | target | |\n|---|---:|---:|---|")
    usual, short = question(arguments.epochs, 128), question(SHORT_EPOCHS, SHORT_BATCH)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), server(Path(folder)) as address:
        file = f"sqlite:///{folder}/mlflow.db"
        stores = {"sqlite": (file, 2.0), "HTTP": (address, 5.0)}
        spread = measure(usual, mnist, stores, arguments.repetitions, whole=True)
        measure(short, digits, {"sqlite": (file, 2.0)}, arguments.repetitions, whole=False)
    print(f"\nThe untracked training itself varied by {spread:.1f} % from its slowest to its fastest.")


def question(epochs: int, batch_size: int) -> Comparison:
    """One variant, so that what a comparison costs is not shared by several."""
    return Comparison(
        name="tracking",
        question="What does tracking cost?",
        data="mnist",
        base=Training(
            model="mlp",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            optimizer="rmsprop",
            learning_rate=0.001,
            batch_size=batch_size,
            epochs=epochs,
        ),
        variants={"RMSprop": {}},
    )


def measure(
    comparison: Comparison, of: Dataset, stores: dict[str, tuple[str, float]], repetitions: int, whole: bool
) -> float:
    """Prints what tracking in each store costs; returns by how many per cent the training itself varied."""
    (variant,) = comparison.resolved()
    device = trial.Device.of(of)
    started: list[float] = []

    def untracked() -> None:
        trial.train([Result(variant=variant)], comparison.metric, of, device, lambda result: None)

    def tracked() -> None:
        with parent_run("tracking", {}, of) as parent:
            started.append(time.perf_counter())
            seed_group.SeedGroup(parent, variant, comparison, of).train([0], device, Quiet())

    def complete() -> None:
        started.append(time.perf_counter())
        run.Lab(lambda wanted: of, Quiet(), Options()).run(comparison)

    contenders: dict[str, tuple[str | None, Callable[[], None], float | None]] = {"untracked": (None, untracked, None)}
    contenders |= {f"{store}, tracked": (uri, tracked, most) for store, (uri, most) in stores.items()}
    if whole:
        contenders |= {f"{store}, whole comparison": (uri, complete, None) for store, (uri, _) in stores.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions + 1):
        for name, (uri, contender, _) in contenders.items():
            mlflow.set_tracking_uri(uri or next(iter(stores.values()))[0])
            started[:] = [time.perf_counter()]
            contender()
            if repetition:  # The first round compiles, fills caches and opens the stores.
                seconds[name].append(time.perf_counter() - started[-1])
    alone = seconds.pop("untracked")
    base = statistics.median(alone)
    epoch = f"epochs of {1_000 * base / variant.epochs:.0f} ms"
    for name, values in seconds.items():
        (_, _, target), median = contenders[name], statistics.median(values)
        overhead = 100 * (median / base - 1)
        verdict = "" if target is None else "pass" if overhead <= target else "FAIL"
        wanted = "" if target is None else f"≤ {target:.0f} %"
        print(f"| {name}, {epoch} | {overhead:+.1f} % ({median - base:+.2f} s) | {wanted} | {verdict} |", flush=True)
    return 100 * (max(alone) - min(alone)) / base


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A tracking server on sqlite with MLflow's four workers; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/server"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
