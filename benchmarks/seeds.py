"""Ten seeds against one: ratios of medians, measured in turns in one run.

Usage: python benchmarks/seeds.py [--epochs N] [--repetitions N]

MLP 784-128-64-10, SGD 0.01, on MNIST as mlplab splits it, validated each epoch. One model is trained by
`mlplab.training.fit`, ten, each with its own weights and batch order, by one call of `fit_seeds`; they take turns in
one process, after a warm-up that compiles. Train seconds are those of the clocks: drawing the batch orders and the
epochs' programs, without validation. `whole` is the wall time of the call for ten, validation and callbacks included,
against the train seconds of one. Before the turns, the ten are compared with models trained by `fit` alone for as long:
the largest relative norm of a difference of weights.
Data: MNIST as mlplab finds it, else the digits in its place, which the output then says.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlplab import backend, building, training
from mlplab.checks import UnavailableError
from mlplab.data import Dataset, load
from mlplab.spec import Training

if TYPE_CHECKING:
    import keras

SEEDS = range(10)
TOLERANCE = 1e-5
SGD = Training(
    model="mlp",
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    optimizer="sgd",
    learning_rate=0.01,
)
# Of ten seeds over one, by batch size: train seconds, and the whole call.
GOALS: dict[int, tuple[float, float | None]] = {1: (4.0, None), 128: (10.5, 10.5)}


def build(data: Dataset, seed: int) -> "keras.Model":
    """A new model."""
    return building.build(SGD, data, seed)


def difference(model: "keras.Model", other: "keras.Model") -> float:
    """Norm of the difference of all weights over the norm of the second's."""
    ours, theirs = (np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (model, other))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def measure(data: Dataset, batch: int, epochs: int, repetitions: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each repetition, and how far the ten are from models trained alone."""
    import tensorflow as tf

    x, y = tf.constant(data.train.x), tf.constant(data.train.y)
    held_out = tf.constant(data.validation.x), tf.constant(data.validation.y)

    def one(model: "keras.Model", seed: int) -> float:
        clock = training.Clock()
        training.fit(model, x, y, batch, epochs, 0, validation_data=held_out, seed=seed, clock=clock)
        return sum(clock.train_seconds)

    def ten(trained: "list[keras.Model]") -> float:
        clocks = [training.Clock() for _ in trained]
        training.fit_seeds(trained, x, y, batch, epochs, seeds=SEEDS, validation_data=held_out, clocks=clocks)
        return sum(sum(clock.train_seconds) for clock in clocks)

    together, alone = ([build(data, seed) for seed in SEEDS] for _ in range(2))
    ten(together)
    for model, seed in zip(alone, SEEDS, strict=True):
        one(model, seed)
    far = max(map(difference, together, alone))
    seconds: dict[str, list[float]] = {"one": [], "ten": [], "whole": []}
    for _ in range(repetitions):
        seconds["one"].append(one(alone[0], SEEDS[0]))
        started = time.perf_counter()
        seconds["ten"].append(ten(together))
        seconds["whole"].append(time.perf_counter() - started)
    return seconds, far


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--epochs", type=int, default=1, help="epochs of a repetition (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="turns of each (default: %(default)s)")
    options = parser.parse_args()
    try:
        data = load("mnist")
    except UnavailableError:
        data = load("digits")
    print(f"Medians of {options.repetitions} turns of {options.epochs} epoch(s), on {data.label}.\n")
    print(
        "| batch size | timed | one (s) | ten (s) | ratio | goal | | spread |\n|---:|---|---:|---:|---:|---:|---|---:|"
    )
    for batch, goals in GOALS.items():
        seconds, far = measure(data, batch, options.epochs, options.repetitions)
        one = statistics.median(seconds["one"])
        for name, what, goal in zip(("ten", "whole"), ("train", "whole"), goals, strict=True):
            middle = statistics.median(seconds[name])
            aim, verdict = ("", "") if goal is None else (f"≤ {goal:g}", "pass" if middle / one <= goal else "FAIL")
            spread = (max(seconds[name]) - min(seconds[name])) / middle
            ratio = f"{one:.2f} | {middle:.2f} | {middle / one:.2f} | {aim} | {verdict}"
            print(f"| {batch} | {what} | {ratio} | {spread:.0%} |", flush=True)
        verdict = "pass" if far <= TOLERANCE else "FAIL"
        print(f"| {batch} | *difference from alone* | | | {far:.1e} | ≤ {TOLERANCE:g} | {verdict} | |", flush=True)


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
