"""What `mlplab.figures` promises, on results as trainings leave them: ordinary, short, diverged, failed and many."""

import math
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mlplab import figures
from mlplab.results import DIVERGED, FAILED, Result
from mlplab.spec import Variant

DATA = "digits (stand-in for MNIST)"
NAN, INF = math.nan, math.inf


def trained(name: str, epochs: int = 20, speed: float = 0.4, **changes: object) -> Result:
    """A result as an ordinary training leaves it: noisy curves that flatten, validation a little worse."""
    rng = np.random.default_rng(len(name) + int(100 * speed))
    epoch = np.arange(1, epochs + 1)
    loss = 2.2 * np.exp(-speed * epoch) + 0.05 + rng.uniform(0, 0.02, epochs)
    history = {
        "loss": loss,
        "accuracy": 1 - loss / 4,
        "val_loss": loss + 0.1 + 0.004 * epoch,
        "val_accuracy": 0.97 - loss / 4,
        "train_seconds": 0.31 * (1 + speed) * epoch,
    }
    fields = {"best_epoch": max(1, epochs - 5), "compile_seconds": 1.93, "evaluate_seconds": 0.2} | changes
    return Result(variant=Variant(name=name), history={k: v.tolist() for k, v in history.items()}, **fields)  # type: ignore[arg-type]


def diverged(name: str) -> Result:
    """A result whose loss grows out of all bounds and then stops being a number."""
    history = {
        "loss": [2.6, 41.0, 3e7, 2e30, INF, NAN],
        "val_loss": [2.9, 90.0, 8e8, 5e30, NAN, NAN],
        "accuracy": [0.2, 0.12, 0.1, 0.1, 0.1, 0.1],
        "val_accuracy": [0.18, 0.11, 0.1, 0.1, 0.1, 0.1],
        "train_seconds": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    }
    return Result(variant=Variant(name=name), status=DIVERGED, history=history, best_epoch=1, compile_seconds=2.0)


def failed(name: str) -> Result:
    """A result of a training that raised before its first epoch was over."""
    return Result(variant=Variant(name=name), status=FAILED, error="MemoryError")


NAMES = ("SGD", "Adam", "RMSprop")
LONG = "two hidden layers of 128 and 64 units with dropout 0.25 and batch normalization, rate $lr$ = {} "
CASES: dict[str, list[Result]] = {
    "normal": [trained(name, speed=0.2 * index + 0.1) for index, name in enumerate(NAMES)],
    "one_epoch": [trained(name, epochs=1, speed=0.2 * index + 0.1) for index, name in enumerate(NAMES)],
    "diverged": [trained("rate 0.01"), trained("rate 0.1", speed=0.7), diverged("rate 10")],
    "failed": [trained("SGD"), failed("huge")],
    "all_failed": [failed("SGD"), failed("Adam")],
    "twelve": [trained(f"width {2**index}", speed=0.03 * index + 0.08) for index in range(12)],
    "long_names": [trained(f"{LONG.format(rate):_<100}", speed=rate) for rate in (0.1, 0.3, 0.5)],
    "odd_names": [trained(name) for name in ("_hidden", "a $x^ b $", "[relu]", "x" * 100)],
}
SINGLE = {
    "single": CASES["normal"][1],
    "single_epoch": CASES["one_epoch"][1],
    "single_diverged": CASES["diverged"][2],
    "single_failed": CASES["failed"][1],
    "single_long": CASES["long_names"][0],
    "single_odd": CASES["odd_names"][1],
}


def drawn() -> dict[str, Figure]:
    """Every figure of every case, by a name for its file."""
    made = {name: figures.learning_curves(result, DATA) for name, result in SINGLE.items()}
    for name, results in CASES.items():
        for metric in figures.METRICS:
            made[f"{name}_{metric}"] = figures.comparison_curves(metric, results, DATA)
        made[f"{name}_time"] = figures.training_times(results, DATA)
    return made
