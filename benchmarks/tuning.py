"""What tuning costs beside its trainings: the wall time of a tuned comparison over the trainings' own.

Usage: python benchmarks/tuning.py [--epochs N] [--trials N]

SGD, momentum and Adam for the MLP 784-128-64-10 on MNIST at batch size 128, tuned and then compared with one seed, by
`mlplab.run.Lab` in a new sqlite store: checking, cutting the data, drawing, recording, tables and figures are in the
wall time; importing and loading the data are not. The trainings' own time is that of their clocks: training, evaluation
after each epoch, and compiling. `whole` is up to the end of the command, when the store has everything.
Data: MNIST as mlplab finds it, else the digits in its place, which the output then says.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quiet import Quiet

from mlplab import Comparison, LogUniform, Training, Tune, backend
from mlplab.checks import UnavailableError
from mlplab.data import load
from mlplab.loading import Options
from mlplab.results import Result

GOAL = 1.05


class Watch(Quiet):
    """Adds up the trainings' own seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {"trial": [], "seed": []}

    def ended(self, result: Result) -> None:
        """A training is over."""
        kind = "trial" if result.variant.name.startswith("trial") else "seed"
        own = result.train_seconds + result.evaluate_seconds + result.compile_seconds
        self.seconds[kind].append(own)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=4, help="of each variant (default: %(default)s)")
    options = parser.parse_args()
    try:
        data = load("mnist")
    except UnavailableError:
        data = load("digits")
    comparison = Comparison(
        name="tuning",
        question="What does tuning cost beside its trainings?",
        data="mnist",
        base=Training(
            model="mlp",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            optimizer="sgd",
            batch_size=128,
            epochs=options.epochs,
        ),
        variants={"SGD": {"optimizer.momentum": 0.0}, "momentum": {}, "Adam": {"optimizer": "adam"}},
        tune=Tune({"learning_rate": LogUniform(1e-4, 1), "optimizer.momentum": [0.5, 0.9]}, options.trials),
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.chdir(folder)
        import mlflow

        from mlplab.run import Lab

        mlflow.MlflowClient().search_experiments()  # which makes the store's tables
        watch = Watch()
        started = time.perf_counter()
        record, _, _ = Lab(lambda wanted: data, watch, Options()).run(comparison)
        whole = time.perf_counter() - started
    own = sum(map(sum, watch.seconds.values()))
    trials = len(watch.seconds["trial"])
    print(f"{trials} trials and {len(watch.seconds['seed'])} trainings of {options.epochs} epochs, on {data.label}.\n")
    print("| trainings' own (s) | comparison (s) | ratio | goal | | whole (s) | ratio |")
    print("|---:|---:|---:|---:|---|---:|---:|")
    ratio = record.seconds / own
    verdict = "pass" if ratio <= GOAL else "FAIL"
    print(
        f"| {own:.1f} | {record.seconds:.1f} | {ratio:.3f} | ≤ {GOAL} | {verdict} | {whole:.1f} | {whole / own:.3f} |"
    )


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
