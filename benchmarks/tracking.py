"""What tracking costs: the same training with and without it, in turns, in one run.

Usage: python benchmarks/tracking.py [--repetitions N] [--epochs N]

The training is RMSprop on the MNIST MLP at batch size 128. `tracked` is everything a variant's run gets: its creation,
params, tags and input, metrics of every epoch, history, summary, model file and learning-curve figure, until all of it
is delivered. The wall time starts when the store is open and the programs are compiled; `whole comparison` besides has
the parent's tables, its three figures and the logged model, which are made once a comparison, not once a variant.
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
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlflow
from quiet import Quiet

from mlplab import backend, data, run, seed_group, trial
from mlplab.comparison import Comparison
from mlplab.loading import Options
from mlplab.results import Result
from mlplab.spec import Training
from mlplab.store.command import parent_run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()

    comparison = Comparison(
        name="tracking",
        question="What does tracking cost?",
        data="mnist",
        base=Training(
            model="mlp",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            optimizer="rmsprop",
            learning_rate=0.001,
            batch_size=128,
            epochs=arguments.epochs,
        ),
        variants={"RMSprop": {}},
    )
    (variant,) = comparison.resolved()
    mnist = data.load("auto", wanted="mnist")
    device = trial.Device.of(mnist)
    print(f"{mnist.label}, {arguments.epochs} epochs at batch size 128, medians of {arguments.repetitions} in turns\n")

    def untracked() -> None:
        trial.train([Result(variant=variant)], comparison.metric, mnist, device, lambda result: None)

    def tracked() -> None:
        with parent_run("tracking", {}, mnist) as parent:
            started.append(time.perf_counter())
            seed_group.SeedGroup(parent, variant, comparison, mnist).train([0], device, Quiet())

    def whole() -> None:
        started.append(time.perf_counter())
        run.Lab(lambda wanted: mnist, Quiet(), Options()).run(comparison)

    started: list[float] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), server(Path(folder)) as address:
        contenders = {
            "untracked": (None, untracked),
            "sqlite, tracked": (f"sqlite:///{folder}/mlflow.db", tracked),
            "HTTP, tracked": (address, tracked),
            "sqlite, whole comparison": (f"sqlite:///{folder}/mlflow.db", whole),
            "HTTP, whole comparison": (address, whole),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for repetition in range(arguments.repetitions + 1):
            for name, (uri, contender) in contenders.items():
                mlflow.set_tracking_uri(uri or f"sqlite:///{folder}/mlflow.db")
                started[:] = [time.perf_counter()]
                contender()
                if repetition:  # The first round compiles, fills caches and opens the stores.
                    seconds[name].append(time.perf_counter() - started[-1])
    base = statistics.median(seconds["untracked"])
    targets = {"sqlite, tracked": 2.0, "HTTP, tracked": 5.0}
    print("| | overhead | target | |\n|---|---:|---:|---|")
    for name, values in seconds.items():
        if name == "untracked":
            continue
        overhead = 100 * (statistics.median(values) / base - 1)
        target = targets.get(name)
        verdict = "" if target is None else "pass" if overhead <= target else "FAIL"
        print(f"| {name} | {overhead:+.1f} % | {'' if target is None else f'≤ {target:.0f} %'} | {verdict} |")
    spread = 100 * (max(seconds["untracked"]) - min(seconds["untracked"])) / base
    print(f"\nThe untracked training itself varied by {spread:.1f} % from its slowest to its fastest.")


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
