"""One variant becomes a trained model: with one seed, or with several at a time."""

import contextlib
import hashlib
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from mlplab import models, training
from mlplab.data import Dataset
from mlplab.results import DIVERGED, Result
from mlplab.spec import Comparison, Variant, better

HASHED_EPOCHS = 3
"""Epochs whose batch order is hashed."""
TIMED_SECONDS, MOST_TIMED_EPOCHS = 1.0, 10
"""How long, about, and for how many epochs at most, a training that was not alone is timed alone."""


FEW_STEPS = 1_000
"""A comparison whose longest training has fewer is not compiled; see `programs.STEPS_WORTH_COMPILING`."""

CHECKPOINT_SECONDS = float(os.environ.get("MLPLAB_CHECKPOINT_SECONDS", "5"))
"""A training's state is kept at the end of an epoch where it was last kept so many seconds ago."""

CHECKPOINT = "checkpoint"


class Keeper(Protocol):
    """Where a training's state is kept, by the names of what it is."""

    def keep(self, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values and arrays in place of those kept before."""

    def kept(self, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept."""

    def drop(self, what: str) -> None:
        """Forgets it."""


class Watch(Protocol):
    """What an experiment tells while it runs."""

    def started(self, result: Result) -> None:
        """A training begins; its programs are compiled first."""

    def recalled(self, result: Result) -> None:
        """A training was over before the command went on."""

    def epoch(self, result: Result) -> None:
        """An epoch of `result` is over; its values are the last of the history."""

    def ended(self, result: Result) -> None:
        """A variant is over: finished, diverged or failed."""


@dataclass(frozen=True)
class Device:
    """A data set's splits as tensors, put on the device once and shared by all trainings; images stay uint8."""

    train: tuple[tf.Tensor, tf.Tensor]
    validation: tuple[tf.Tensor, tf.Tensor]
    test: tuple[tf.Tensor, tf.Tensor]

    @classmethod
    def of(cls, data: Dataset) -> "Device":
        """Copies a data set's splits to the device."""
        return cls(*((tf.constant(s.x), tf.constant(s.y)) for s in (data.train, data.validation, data.test)))


def train(
    results: Sequence[Result],
    select: str,
    data: Dataset,
    device: Device,
    report: Callable[[Result], None],
    keepers: Sequence[Keeper | None] = (),
    program: str | None = None,
) -> list[keras.Model]:
    """Trains a variant with the seed of each of `results`, which are filled, side by side where that is faster.

    Of those that were side by side the seconds of training are not known after it: `time_alone` measures them.

    Args:
        results: of one variant.
        select: the validation metric that picks the best epoch.
        report: called after each epoch of each training, when its result has the epoch's values.
        keepers: where the state of each training is kept while it goes on. One that has a state is gone on with from
            there, to the numbers that it would have come to undisturbed.
        program: as in `training.fit`.

    Returns:
        Each model as it was after its best epoch.
    """
    _reset_peak_memory()
    others = _Others()
    fitted = [_model(result, data) for result in results]
    clocks = [training.Clock() for _ in results]
    together = side_by_side(results[0].variant, len(results), data)
    training.fit_seeds(
        fitted,
        *device.train,
        batch_size=results[0].variant.images_per_step(len(data.train)),
        epochs=results[0].variant.epochs,
        seeds=[result.seed for result in results],
        validation_data=device.validation,
        validation_batch_size=training.EVALUATION_BATCH,
        callbacks=[
            _callbacks(result, clock, select, device, report, keeper, together)
            for result, clock, keeper in zip(results, clocks, keepers or [None] * len(results), strict=True)
        ],
        clocks=clocks,
        program=program,
    )
    busy, memory = others.cores(), _peak_memory_mb()
    for result, model, clock in zip(results, fitted, clocks, strict=True):
        _finish(result, model, clock, device)
        result.busy, result.peak_memory_mb = busy, memory
        if together:
            # Each clock has its share of every epoch of the group.
            result.group_seconds = sum(sum(each.train_seconds) for each in clocks)
    return fitted


def program(comparison: Comparison, data: Dataset) -> str:
    """Which of `training.PROGRAMS` trains a comparison: one for all, so that times compare and seeds can be added.

    Its models are perceptrons, which run quickest as compiled epochs, unless even the longest training has so few steps
    that it is over sooner than they are compiled.
    """
    examples = len(data.train)
    longest = max(v.epochs * v.steps_per_epoch(examples) for v in comparison.resolved())
    return "epoch" if longest >= FEW_STEPS else "graph"


def side_by_side(variant: Variant, seeds: int, data: Dataset) -> bool:
    """Whether `train` trains so many seeds of a variant at the same time."""
    return training.side_by_side(seeds, variant.images_per_step(len(data.train)))


def time_alone(result: Result, data: Dataset, device: Device) -> None:
    """Trains some epochs of what was trained side by side once more, alone: the median of their times is an epoch's.

    The first does not count: it has the data to bring into the caches.
    """
    model = models.build(result.variant, data.features, data.classes, result.seed)
    clock = training.Clock()

    def enough(epoch: int, logs: object) -> None:
        model.stop_training = sum(clock.train_seconds[1:]) >= TIMED_SECONDS

    training.fit(
        model,
        *device.train,
        batch_size=result.variant.images_per_step(len(data.train)),
        epochs=1 + MOST_TIMED_EPOCHS,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=enough)],
        seed=result.seed,
        clock=clock,
        program=result.program,
    )
    result.timed_alone(statistics.median(clock.train_seconds[1:]))


def _model(result: Result, data: Dataset) -> keras.Model:
    """The untrained model, and what of it the pairing of trainings rests on."""
    variant, examples = result.variant, len(data.train)
    model = models.build(variant, data.features, data.classes, result.seed)
    result.parameters = model.count_params()
    result.steps_per_epoch = variant.steps_per_epoch(examples)
    result.start = {f"{v.path} {'x'.join(map(str, v.shape))}": digest([v.numpy().tobytes()]) for v in model.weights}
    if result.steps_per_epoch > 1:
        orders = (training.batch_order(examples, result.seed, epoch) for epoch in range(HASHED_EPOCHS))
        result.order = digest([order.tobytes() for order in orders])
    return model


def _callbacks(
    result: Result,
    clock: training.Clock,
    select: str,
    device: Device,
    report: Callable[[Result], None],
    keeper: Keeper | None,
    together: bool,
) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [_Recorder(result, clock, select, device, report, together)]
    stopping = None
    if result.variant.patience:
        stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=result.variant.patience)
        callbacks.append(stopping)
    if keeper is not None:
        callbacks.append(_Checkpoints(result, clock, keeper, stopping))
    return callbacks


def _finish(result: Result, model: keras.Model, clock: training.Clock, device: Device) -> None:
    """Takes the model back to its best epoch, and says what it is worth there."""
    result.end = digest([weight.tobytes() for weight in model.get_weights()])
    if result.weights is not None:
        model.set_weights(result.weights)
        result.test = training.evaluate(model, *device.test, training.EVALUATION_BATCH)
    result.program = clock.program
    result.compile_seconds += clock.compile_seconds
    result.evaluate_seconds += sum(clock.evaluate_seconds)


def digest(parts: Sequence[bytes]) -> str:
    """A hash of bytes, in 16 hex digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Fills a result epoch by epoch, keeps the best epoch's weights, and ends a training that has diverged."""

    def __init__(
        self,
        result: Result,
        clock: training.Clock,
        select: str,
        device: Device,
        report: Callable[[Result], None],
        together: bool,
    ) -> None:
        super().__init__()
        self.result, self.clock, self.select, self.device, self.report = result, clock, select, device, report
        self.together = together

    def on_train_begin(self, logs: object = None) -> None:
        started = time.perf_counter()
        training.compile_evaluation(self.model, *self.device.train, training.EVALUATION_BATCH)
        self.result.compile_seconds += time.perf_counter() - started

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**logs, **self._evaluated(), "learning_rate": rate}
        if not self.together:
            # Side by side the clock has a share of the group's wall time, which is no time of this training.
            values["train_seconds"] = sum(self.clock.train_seconds)
        self.result.add(values)
        if better(self.select, values[self.select], self.result.best(self.select)):
            self.result.best_epoch = self.result.epochs
            self.result.weights = self.model.get_weights()
        if not (math.isfinite(values["loss"]) and math.isfinite(values["val_loss"])):
            self.result.status = DIVERGED
            self.model.stop_training = True
        self.report(self.result)

    def _evaluated(self) -> dict[str, float]:
        """The training images evaluated as validation images are, the penalty taken out of the loss."""
        started = time.perf_counter()
        found = training.evaluate(self.model, *self.device.train, training.EVALUATION_BATCH)
        penalty = float(sum(self.model.losses))
        self.result.evaluate_seconds += time.perf_counter() - started
        values = {"train_eval_accuracy": found["accuracy"], "train_eval_loss": found["loss"] - penalty}
        return {**values, "penalty": penalty} if self.result.variant.l2 else values


class _Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a training's whole state now and then, and goes on from the state that was kept.

    As Keras' own BackupAndRestore does, which keeps neither the state of early stopping nor what was measured.
    """

    STOPPING = ("wait", "best", "best_epoch", "stopped_epoch")
    MEASURED = ("status", "history", "best_epoch", "compile_seconds", "evaluate_seconds")

    def __init__(
        self,
        result: Result,
        clock: training.Clock,
        keeper: Keeper,
        stopping: keras.callbacks.EarlyStopping | None,
    ) -> None:
        super().__init__()
        self.result, self.clock, self.keeper, self.stopping = result, clock, keeper, stopping
        self.kept_at = time.monotonic()

    def on_train_begin(self, logs: object = None) -> None:
        self.model._initial_epoch = None
        found = self.keeper.kept(CHECKPOINT)
        if found is None:
            return
        values, arrays = found
        state = training.state(self.model)
        for variable, array in zip(state, arrays, strict=False):
            variable.assign(array)
        compiling = self.result.compile_seconds, self.clock.compile_seconds
        for name in self.MEASURED:
            setattr(self.result, name, values["result"][name])
        self.result.compile_seconds += sum(compiling)
        self.result.weights = arrays[len(state) :] if values["has_best"] else None
        self.result.resumed_at = self.result.epochs
        vars(self.clock).update(values["clock"])
        self.clock.compile_seconds = 0.0
        for name, value in values["stopping"].items():
            setattr(self.stopping, name, value)
        # Where Keras' BackupAndRestore says it, too.
        self.model._initial_epoch = self.result.variant.epochs if values["over"] else self.result.epochs

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        over = self.model.stop_training or self.result.epochs == self.result.variant.epochs
        if not over and time.monotonic() - self.kept_at < CHECKPOINT_SECONDS:
            return
        weights = self.result.weights
        values: dict[str, Any] = {
            "over": bool(over),
            "has_best": weights is not None,
            "result": {name: getattr(self.result, name) for name in self.MEASURED},
            "clock": asdict(self.clock),
            "stopping": {name: float(getattr(self.stopping, name)) for name in self.STOPPING} if self.stopping else {},
        }
        values["result"]["compile_seconds"] += self.clock.compile_seconds
        state = [keras.ops.convert_to_numpy(variable) for variable in training.state(self.model)]
        self.keeper.keep(CHECKPOINT, values, [*state, *(weights or [])])
        self.kept_at = time.monotonic()


class _Others:
    """What other processes do on this machine from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float:
        """Cores that other processes kept busy, on average; NaN where the system does not tell."""
        (wall, busy, own), (wall_before, busy_before, own_before) = self._now(), self._before
        return max(0.0, (busy - busy_before) - (own - own_before)) / max(wall - wall_before, 1e-9)

    def _now(self) -> tuple[float, float, float]:
        busy = math.nan
        with contextlib.suppress(OSError):
            # proc(5): user, nice, system, idle, iowait, irq, softirq, steal, in ticks over all cores.
            ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
            busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        return times.elapsed, busy, times.user + times.system


def _reset_peak_memory() -> None:
    # Linux forgets the peak when told so (proc(5), clear_refs); elsewhere the peak is the process's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    """The most memory the process held since the reset, in MB; NaN where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return math.nan
