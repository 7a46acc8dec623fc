"""What tuning costs beside its trainings: the wall time of a tuned comparison over the trainings' own.

Usage: python benchmarks/tuning.py [--epochs N] [--trials N]

SGD, momentum and Adam for the MLP 784-128-64-10 on MNIST at batch size 128, tuned and then compared with one seed, by
`mlplab.run.Lab` in a new sqlite store: checking, cutting the data, drawing, recording, tables and figures are in the
wall time; importing and loading the data are not. The trainings' own time is that of their clocks: training, evaluation
after each epoch, and compiling. `trials` is from the first trial's start to the last one's end, `comparison` the time
that the record has, `command` that until the store has everything. Five minutes on two idle cores.
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
        self.seconds: dict[str, list[float]] = {"trials": [], "all": []}
        self.began: dict[str, float] = {}
        self.over: dict[str, float] = {}

    def started(self, result: Result) -> None:
        """A training begins; what was done for it before that counts as well."""
        for kind in self._kinds(result):
            self.began.setdefault(kind, time.perf_counter())

    def ended(self, result: Result) -> None:
        """A training is over."""
        for kind in self._kinds(result):
            self.over[kind] = time.perf_counter()
            self.seconds[kind].append(result.train_seconds + result.evaluate_seconds + result.compile_seconds)

    def _kinds(self, result: Result) -> tuple[str, ...]:
        return ("trials", "all") if result.variant.name.startswith("trial") else ("all",)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--epochs", type=int, default=20, help="of each training (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=16, help="of each variant (default: %(default)s)")
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
    print(f"{options.trials} trials of each of 3 variants, {options.epochs} epochs, on {data.label}.\n")
    print("| what | trainings' own (s) | wall (s) | ratio | goal | |\n|---|---:|---:|---:|---:|---|")
    walls = {
        "trials": watch.over["trials"] - watch.began["trials"],
        "comparison": record.seconds,
        "command": whole,
    }
    for what, wall in walls.items():
        own = sum(watch.seconds["trials" if what == "trials" else "all"])
        aim, verdict = ("", "") if what == "command" else (f"≤ {GOAL}", "pass" if wall <= GOAL * own else "FAIL")
        print(f"| {what} | {own:.1f} | {wall:.1f} | {wall / own:.3f} | {aim} | {verdict} |")


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
