"""What a comparison takes besides training, in a store in SQLite.

Usage: python benchmarks/rest.py [EXPERIMENT] [--epochs N] [--seeds N] [--repetitions N]

First the fixed part: three variants on scikit-learn's digits, five epochs and one seed each. From the whole command's
seconds, from the open store to the end of the runs, those on the clocks of training, evaluation and compiling are
taken away: what is left is building models, figures, page, logged models and the end of the runs. Its goal is 1.5 s,
as the median of turns after a first one that imports, which is told apart.

Then the experiment, optimizers with ten seeds by default, on the data that it is about: the seconds of all but
compiling over those of training alone. Its goal is 1.25 at the experiment's own epochs; with fewer of them, the fixed
part weighs more. Nothing else may run on the machine; the load before it is printed.
"""

import argparse
import contextlib
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlflow
from quiet import Quiet

from mlplab import backend, data, run
from mlplab.comparison import Comparison
from mlplab.loading import Options, data_of, load_experiment
from mlplab.records import Record

FIXED_GOAL, RATIO_GOAL = 1.5, 1.25


@contextlib.contextmanager
def new_store() -> Iterator[None]:
    """A store of its own, with its tables made."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.MlflowClient().search_experiments()
        yield


def timed(comparison: Comparison, dataset: str) -> tuple[float, Record]:
    """Seconds of a whole comparison on data that are loaded already, and its record."""
    lab = run.Lab(lambda wanted: data.load(wanted, dataset=dataset), Quiet(), Options())
    for wanted in data_of(comparison):
        lab.dataset(wanted)
    started = time.perf_counter()
    record, *_ = lab.run(comparison)
    return time.perf_counter() - started, record


def clocks(record: Record) -> dict[str, float]:
    """Seconds on the clocks of a comparison's trainings; of seeds side by side the time that all took together."""
    groups = {r.variant.name: r.group_seconds for r in record.results if math.isfinite(r.group_seconds)}
    alone = [result.train_seconds for result in record.results if not math.isfinite(result.group_seconds)]
    return {
        "training": sum(groups.values()) + sum(alone),
        "evaluation": sum(result.evaluate_seconds for result in record.results),
        "compiling": sum(result.compile_seconds for result in record.results),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("experiment", nargs="?", default="optimizers")
    parser.add_argument("--epochs", type=int, help="the experiment's own by default")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    print(f"Load before: {os.getloadavg()[0]:.1f}\n")
    small = load_experiment("optimizers").with_base(epochs=5)  # type: ignore[union-attr]
    left = []
    with new_store():
        for _ in range(options.repetitions + 1):
            whole, record = timed(small, "digits")
            left.append(whole - sum(clocks(record).values()))
    middle = statistics.median(left[1:])
    print(f"Fixed part of three variants: {middle:.2f} s (goal {FIXED_GOAL} s: {_verdict(middle <= FIXED_GOAL)}).")
    print(f"From {min(left[1:]):.2f} to {max(left[1:]):.2f} s; in a new process {left[0]:.2f} s.", flush=True)
    wanted = Options(epochs=options.epochs, seeds=options.seeds).adapt(load_experiment(options.experiment))
    assert isinstance(wanted, Comparison), f"{options.experiment} is no comparison"
    with new_store():
        whole, record = timed(wanted, "auto")
    told = clocks(record)
    ratio = (whole - told["compiling"]) / told["training"]
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in told.items())
    print(f"{wanted.name} on {record.data}, {len(record.seeds)} seeds: {whole:.1f} s in all; {said}.")
    print(f"All but compiling over training alone: {ratio:.2f} (goal {RATIO_GOAL}: {_verdict(ratio <= RATIO_GOAL)}).")


def _verdict(holds: bool) -> str:
    return "pass" if holds else "FAIL"


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
