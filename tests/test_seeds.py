"""What `mlplab.training.fit_seeds` promises: what `fit` gives each model, for less time than one after the other."""

import functools
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from words import mlp

import mlplab
from mlplab import Training, building, programs, training
from mlplab.data import Dataset, load

Data = tuple[np.ndarray, np.ndarray]

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2, 3)
EXAMPLES = 90
KINDS: dict[str, Training] = {
    "sgd": mlp(learning_rate=0.1),
    "momentum and decay": mlp(learning_rate=0.05, momentum=0.9, decay=1e-3),
    "adam": mlp(optimizer="adam", learning_rate=0.01),
    "rmsprop": mlp(optimizer="rmsprop", learning_rate=0.01),
    "dropout": mlp(learning_rate=0.1, dropout=0.3),
    "l2": mlp(learning_rate=0.1, l2=0.01),
    "batch norm": mlp(learning_rate=0.1, batch_norm=True),
}
BATCH_SIZES = {"one": 1, "with a remainder": 32, "without": 30, "full": EXAMPLES}


@pytest.fixture(scope="module")
def data(digits: Data) -> Data:
    """What the models are trained on."""
    return (digits[0][:EXAMPLES] * 255).astype("uint8"), digits[1][:EXAMPLES]


@pytest.fixture(scope="module")
def held_out(digits: Data) -> Data:
    """What they are validated on."""
    return (digits[0][1000:1050] * 255).astype("uint8"), digits[1][1000:1050]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are trained side by side on any machine; handing a training to Keras is a failure."""
    monkeypatch.setattr(mlplab, "cores", lambda: {0, 1})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="mlplab")
        yield


def pixels() -> Data:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.data[:300] * 15).astype("uint8"), found.target[:300].astype("int32")


@functools.cache
def images() -> Dataset:
    """Of whose shape the models are."""
    return load(pixels)


def build(variant: Training, seed: int) -> keras.Model:
    return building.build(variant, images(), seed)


def solo(variant: Training, seed: int, data: Data, **arguments: Any) -> tuple[keras.Model, dict[str, list[float]]]:
    """A model trained by `fit` alone."""
    model = build(variant, seed)
    return model, training.fit(model, data[0], data[1], verbose=0, seed=seed, **arguments).history


def assert_equal(ours: keras.Model, theirs: keras.Model) -> None:
    """Equal to the bit: the weights, and what the optimizer and the dropout layers go on with."""
    for a, b in zip(
        [*ours.variables, *ours.optimizer.variables], [*theirs.variables, *theirs.optimizer.variables], strict=True
    ):
        assert np.array_equal(a, b), a.path


@pytest.mark.parametrize(
    ("kind", "size"), [(kind, "with a remainder") for kind in KINDS] + [("sgd", size) for size in BATCH_SIZES]
)
def test_each_model_ends_as_if_it_had_been_trained_alone(kind: str, size: str, data: Data, held_out: Data) -> None:
    """Weights, optimizer state and history of every model are to the bit those of its own `fit`."""
    variant = KINDS[kind]
    arguments: dict[str, Any] = {"batch_size": BATCH_SIZES[size], "epochs": 2, "validation_data": held_out}
    ours = [build(variant, seed) for seed in SEEDS]
    histories = training.fit_seeds(ours, *data, seeds=SEEDS, **arguments)
    for model, seed, history in zip(ours, SEEDS, histories, strict=True):
        alone, expected = solo(variant, seed, data, **arguments)
        assert_equal(model, alone)
        assert history.history == expected
        assert history is model.history
    assert len({weights.tobytes() for weights in (model.get_weights()[0] for model in ours)}) == len(SEEDS)


class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps what it is called with and the weights of that moment; stops its model after `last` epochs."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.logs: list[dict[str, float]] = []
        self.weights: list[list[np.ndarray]] = []
        self.threads: set[int] = set()
        self.calls: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch}")
        self.logs.append(dict(logs))
        self.weights.append(self.model.get_weights())
        self.threads.add(threading.get_ident())
        self.model.stop_training = len(self.logs) == self.last

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("largest", [256, 0], ids=["side by side", "one after the other"])
def test_a_model_stops_alone_and_its_callbacks_are_its_own(
    largest: int, data: Data, held_out: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback hears its own model's epochs alone, sees the weights of each, and stops no other model."""
    monkeypatch.setattr(training, "SIDE_BY_SIDE_BATCH", largest)
    arguments: dict[str, Any] = {"batch_size": 1, "epochs": 3, "validation_data": held_out}
    lasts = (9, 1, 2)
    ours, recorders = [build(KINDS["sgd"], seed) for seed in SEEDS], [Recorder(last) for last in lasts]
    training.fit_seeds(ours, *data, seeds=SEEDS, callbacks=[[recorder] for recorder in recorders], **arguments)
    for model, seed, recorder, last in zip(ours, SEEDS, recorders, lasts, strict=True):
        expected = Recorder(last)
        alone, _ = solo(KINDS["sgd"], seed, data, callbacks=[expected], **arguments)
        assert_equal(model, alone)
        assert recorder.calls == expected.calls
        assert recorder.logs == expected.logs
        assert recorder.threads == {threading.get_ident()}
        for weights, others in zip(recorder.weights, expected.weights, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def test_the_clocks_add_up_to_the_time_that_passed(data: Data, held_out: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model's share of an epoch is equal, and the shares make up the epoch."""
    passed: list[float] = []
    original = ThreadPoolExecutor.map

    def timed(*arguments: Any) -> Iterator[Any]:
        started = time.perf_counter()
        results = list(original(*arguments))
        passed.append(time.perf_counter() - started)
        return iter(results)

    monkeypatch.setattr(ThreadPoolExecutor, "map", timed)
    ours, clocks = [build(KINDS["sgd"], seed) for seed in SEEDS], [training.Clock() for _ in SEEDS]
    callbacks = [[Recorder(9)], [Recorder(1)], [Recorder(9)]]
    training.fit_seeds(ours, *data, 1, 2, seeds=SEEDS, validation_data=held_out, callbacks=callbacks, clocks=clocks)
    assert [len(clock.train_seconds) for clock in clocks] == [len(clock.evaluate_seconds) for clock in clocks]
    assert [len(clock.train_seconds) for clock in clocks] == [2, 1, 2]
    assert len({clock.train_seconds[0] for clock in clocks}) == 1
    assert sum(sum(clock.train_seconds) for clock in clocks) == pytest.approx(sum(passed), rel=0.4)
    assert all(clock.compile_seconds > 0 for clock in clocks)


def test_seeds_share_one_program_and_a_second_call_compiles_nothing(data: Data, held_out: Data) -> None:
    """One training program and one of validation serve all models of all calls; that of `fit` is another."""
    with programs.afresh():
        for _ in range(2):
            ours = [build(KINDS["dropout"], seed) for seed in SEEDS]
            training.fit_seeds(ours, *data, 8, seeds=SEEDS, validation_data=held_out)
            assert len(programs.shared()) == 2
        solo(KINDS["dropout"], 1, data, batch_size=8, validation_data=held_out)
        assert len(programs.shared()) == 3


def test_models_of_their_own_computation_train_side_by_side_too(data: Data) -> None:
    """Models need not share a program."""
    variants = [KINDS["sgd"], KINDS["adam"]]
    ours = [build(variant, 1) for variant in variants]
    training.fit_seeds(ours, *data, 32, seeds=(1, 2))
    for model, variant, seed in zip(ours, variants, (1, 2), strict=True):
        alone = build(variant, 1)
        training.fit(alone, *data, 32, verbose=0, seed=seed)
        assert_equal(model, alone)


def test_what_does_not_compile_is_trained_one_after_the_other(data: Data) -> None:
    """A callback of batches sends the training to Keras, with `fit`'s warning, once."""
    seen: list[int] = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    ours = [build(KINDS["sgd"], seed) for seed in SEEDS[:2]]
    with pytest.warns(UserWarning, match="callback LambdaCallback is called for batches") as warned:
        histories = training.fit_seeds(ours, *data, 30, seeds=SEEDS[:2], callbacks=[[callback], [callback]])
    assert len(warned) == 1
    assert seen == [0, 1, 2] * 2
    assert all(len(history.history["loss"]) == 1 for history in histories)


FRESH = """
import os
import keras
import numpy as np
import mlplab
from mlplab import training
cores = os.sched_getaffinity(0)
mlplab.cores = lambda: {0, 1}
trained = [keras.Sequential([keras.Input((9,)), keras.layers.Dense(10, "softmax")]) for _ in range(2)]
for model in trained:
    model.compile("sgd", "sparse_categorical_crossentropy")
training.fit_seeds(trained, np.zeros((8, 9), "uint8"), np.zeros(8, "int32"), 2, seeds=(1, 2))
assert all(os.sched_getaffinity(int(thread)) == cores for thread in os.listdir("/proc/self/task"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone tells a thread's cores")
def test_every_thread_keeps_its_cores() -> None:
    """A program compiled for one core leaves the pools that XLA makes with the first program all cores."""
    subprocess.run([sys.executable, "-c", FRESH], cwd=ROOT, check=True)


def test_unequal_numbers_of_models_and_seeds_are_refused(data: Data) -> None:
    """Each model needs a seed."""
    with pytest.raises(ValueError, match="zip"):
        training.fit_seeds([build(KINDS["sgd"], 1)], *data, seeds=SEEDS)


def test_a_failing_callback_ends_the_training(data: Data) -> None:
    """What a callback raises reaches the caller."""

    def fail(epoch: int, logs: Any) -> None:
        raise RuntimeError("enough")

    callbacks: list[list[keras.callbacks.Callback]] = [[], [keras.callbacks.LambdaCallback(on_epoch_end=fail)]]
    with pytest.raises(RuntimeError, match="enough"):
        training.fit_seeds(
            [build(KINDS["sgd"], seed) for seed in SEEDS[:2]], *data, 30, seeds=SEEDS[:2], callbacks=callbacks
        )
