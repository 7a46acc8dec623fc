"""One variant becomes a trained model: with one seed, or with several at a time."""

import contextlib
import hashlib
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras
import tensorflow as tf

from mlplab import models, training
from mlplab.data import Dataset
from mlplab.results import DIVERGED, Result
from mlplab.spec import Variant, better

HASHED_EPOCHS = 3
"""Epochs whose batch order is hashed."""
TIMED_SECONDS, MOST_TIMED_EPOCHS = 1.0, 10
"""How long, about, and for how many epochs at most, a training that was not alone is timed alone."""


class Watch(Protocol):
    """What an experiment tells while it runs."""

    def started(self, result: Result) -> None:
        """A training begins; its programs are compiled first."""

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
    results: Sequence[Result], select: str, data: Dataset, device: Device, report: Callable[[Result], None]
) -> list[keras.Model]:
    """Trains a variant with the seed of each of `results`, which are filled, side by side where that is faster.

    Args:
        results: of one variant.
        select: the validation metric that picks the best epoch.
        report: called after each epoch of each training, when its result has the epoch's values.

    Returns:
        Each model as it was after its best epoch.
    """
    _reset_peak_memory()
    others = _Others()
    fitted = [_model(result, data) for result in results]
    clocks = [training.Clock() for _ in results]
    training.fit_seeds(
        fitted,
        *device.train,
        batch_size=results[0].variant.images_per_step(len(data.train)),
        epochs=results[0].variant.epochs,
        seeds=[result.seed for result in results],
        validation_data=device.validation,
        callbacks=[_callbacks(*one, select, device, report) for one in zip(results, clocks, strict=True)],
        clocks=clocks,
    )
    busy, memory = others.cores(), _peak_memory_mb()
    for result, model, clock in zip(results, fitted, clocks, strict=True):
        _finish(result, model, clock, device)
        result.busy, result.peak_memory_mb = busy, memory
    return fitted


def side_by_side(variant: Variant, seeds: int, data: Dataset) -> bool:
    """Whether `train` trains so many seeds of a variant at the same time."""
    return training.side_by_side(seeds, variant.images_per_step(len(data.train)))


def time_alone(result: Result, data: Dataset, device: Device) -> None:
    """Trains some epochs of what was trained side by side once more, alone: the median of their times.

    The first does not count: it has the data to bring into the caches.
    """
    model = models.build(result.variant, data.features, data.classes, result.seed)
    clock = training.Clock()
    batch = result.variant.images_per_step(len(data.train))
    epochs = 1 + min(MOST_TIMED_EPOCHS, math.ceil(TIMED_SECONDS * result.epochs / result.train_seconds))
    training.fit(model, *device.train, batch_size=batch, epochs=epochs, verbose=0, seed=result.seed, clock=clock)
    result.solo_epoch_seconds = statistics.median(clock.train_seconds[1:])


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
    result: Result, clock: training.Clock, select: str, device: Device, report: Callable[[Result], None]
) -> list[keras.callbacks.Callback]:
    callbacks: list[keras.callbacks.Callback] = [_Recorder(result, clock, select, device, report)]
    if result.variant.patience:
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_loss", patience=result.variant.patience))
    return callbacks


def _finish(result: Result, model: keras.Model, clock: training.Clock, device: Device) -> None:
    """Takes the model back to its best epoch, and says what it is worth there."""
    result.end = digest([weight.tobytes() for weight in model.get_weights()])
    if result.weights is not None:
        model.set_weights(result.weights)
        result.restored = training.evaluate(model, *device.validation)
        result.test = training.evaluate(model, *device.test)
    result.compile_seconds += clock.compile_seconds
    result.evaluate_seconds = sum(clock.evaluate_seconds)


def digest(parts: Sequence[bytes]) -> str:
    """A hash of bytes, in 16 hex digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Fills a result epoch by epoch, keeps the best epoch's weights, and ends a training that has diverged."""

    def __init__(
        self, result: Result, clock: training.Clock, select: str, device: Device, report: Callable[[Result], None]
    ) -> None:
        super().__init__()
        self.result, self.clock, self.select, self.device, self.report = result, clock, select, device, report

    def on_train_begin(self, logs: object = None) -> None:
        started = time.perf_counter()
        training.evaluate(self.model, *self.device.train)
        self.result.compile_seconds += time.perf_counter() - started

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**logs, **self._evaluated(), "learning_rate": rate, "train_seconds": sum(self.clock.train_seconds)}
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
        found = training.evaluate(self.model, *self.device.train)
        penalty = float(sum(self.model.losses))
        self.result.train_eval_seconds += time.perf_counter() - started
        values = {"train_eval_accuracy": found["accuracy"], "train_eval_loss": found["loss"] - penalty}
        return {**values, "penalty": penalty} if self.result.variant.l2 else values


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
