"""A training and a seed become a trained model: one, or several seeds at a time."""

import hashlib
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import keras
import numpy as np

from mlplab import evaluations, initial, machine, training
from mlplab.building import build, class_weight, explained, first_rows
from mlplab.checks import UsageError, choose
from mlplab.data import Dataset
from mlplab.device import Device as Device  # a part of what this offers
from mlplab.device import OnTraining
from mlplab.folds import is_trial
from mlplab.keras_fit import KERAS
from mlplab.results import DIVERGED, FINISHED, Result
from mlplab.spec import Metric, Training

HASHED_EPOCHS = 3
"""Epochs whose batch order is hashed."""
TIMED_SECONDS, MOST_TIMED_EPOCHS = 0.5, 10
"""How long, about, and for how many epochs at most, a training that was not alone is timed alone."""

CHECKED_EXAMPLES = 32
"""Of so many examples a variant's loss and metrics are computed before anything is trained."""

CHECKPOINT_SECONDS = float(os.environ.get("MLPLAB_CHECKPOINT_SECONDS", "5"))
"""A training's state is kept at the end of an epoch where it was last kept so many seconds ago."""

CHECKPOINT = "checkpoint"


class CheckpointStore(Protocol):
    """Where a training's state is kept, by the names of what it is."""

    def keep(self, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values and arrays in place of those kept before."""

    def kept(self, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept."""

    def drop(self, what: str) -> None:
        """Forgets it."""


class ProgressListener(Protocol):
    """What an experiment tells while it runs."""

    def started(self, result: Result) -> None:
        """A training begins; its programs are compiled first."""

    def recalled(self, result: Result) -> None:
        """A training was over before the command went on."""

    def epoch(self, result: Result) -> None:
        """An epoch of `result` is over; its values are the last of the history."""

    def ended(self, result: Result) -> None:
        """A variant is over: finished, diverged or failed."""

    def scored(self, candidate: str, mean: float) -> None:
        """A candidate of a search gets no further folds, and has this mean score over those it had."""


@dataclass(frozen=True)
class Checked:
    """What is known of a comparison's variants once each was built, compiled and run for no step.

    Attributes:
        configs: variant -> hash of its built model's configuration.
        programs: variant -> which of `training.PROGRAMS` trains it.
    """

    configs: Mapping[str, str]
    programs: Mapping[str, str]


def check(variants: Sequence[Training], metrics: Sequence[Metric], seed: int, data: Dataset, device: Device) -> Checked:
    """Builds and compiles each variant, computes its loss and metrics on some examples, and traces a training step.

    Args:
        metrics: that are to be logged.
        seed: any of those to come.

    Raises:
        UsageError: a variant fails in it, with the user's own error, or does not log a metric.
    """
    examples = len(data.train)
    longest = max(each.epochs * each.steps_per_epoch(examples) for each in variants)
    configs, programs = {}, {}
    for variant in variants:
        model = build(variant, data, seed)
        x, y, weight = first_rows(data.train, CHECKED_EXAMPLES)
        try:
            logs = keras.tree.map_structure(float, model.test_step(keras.utils.pack_x_y_sample_weight(x, y, weight)))
            model.reset_metrics()
            weights = class_weight(variant, data)
            programs[variant.name] = training.choose(
                *(model, *device.train[:2], variant.batch(examples), device.train[2], weights, longest)
            )
        except UsageError:
            raise
        except Exception as error:
            raise explained(variant, "train on these data", error) from error
        for metric in metrics:
            if metric.base not in logs:
                legal = [f"val_{name}" for name in logs]
                choose(f"metric of variant {variant.name!r}", metric.name, legal)
        configs[variant.name] = _config(model)
    return Checked(configs, programs)


def _config(model: keras.Model) -> str:
    """A hash of a built model's configuration; of its variables alone where it tells none."""
    try:
        text = json.dumps(keras.saving.serialize_keras_object(model), sort_keys=True, default=str)
    except Exception:  # a model of one's own need not have any
        text = ""
    shapes = [f"{variable.path} {variable.shape} {variable.dtype}" for variable in model.variables]
    return digest([text.encode(), *(shape.encode() for shape in shapes)])


def train(
    results: Sequence[Result],
    metric: Metric,
    data: Dataset,
    device: Device,
    report: Callable[[Result], None],
    stores: Sequence[CheckpointStore | None] = (),
    program: str | None = None,
) -> list[keras.Model]:
    """Trains a variant with the seed of each of `results`, which are filled, side by side where that is faster.

    Of those that were side by side the seconds of training are not known after it: `time_alone` measures them.

    Args:
        results: of one variant.
        metric: picks the best epoch.
        report: called after each epoch of each training, when its result has the epoch's values.
        stores: where the state of each training is kept while it goes on. One that has a state is gone on with from
            there, to the numbers that it would have come to undisturbed.
        program: as in `training.fit`.

    Returns:
        Each model as it was after its best epoch.
    """
    machine.reset_peak_memory()
    others = machine.Others()
    fitted = [_model(result, data) for result in results]
    clocks = [training.Clock() for _ in results]
    own = [OnTraining(result, model, device) for result, model in zip(results, fitted, strict=True)]
    variant = results[0].variant
    together = side_by_side(variant, len(results), data)
    x, y, weight = device.train
    training.fit_seeds(
        fitted,
        *(x, y),
        batch_size=variant.batch(len(data.train)),
        epochs=variant.epochs,
        seeds=[result.seed for result in results],
        sample_weight=weight,
        class_weight=class_weight(variant, data),
        validation_data=keras.utils.pack_x_y_sample_weight(*device.validation) if measured(variant) else None,
        validation_batch_size=device.evaluated,
        callbacks=[
            _callbacks(result, clock, metric, found, report, store, together)
            for result, clock, found, store in zip(results, clocks, own, stores or [None] * len(results), strict=True)
        ],
        clocks=clocks,
        program=program,
    )
    busy, memory = others.cores(), machine.peak_memory_mb()
    for result, model, clock, found in zip(results, fitted, clocks, own, strict=True):
        _finish(result, model, clock, device, found)
        result.busy, result.peak_memory_mb = busy, memory
        if together:
            # Each clock has its share of every epoch of the group.
            result.group_seconds = sum(sum(each.train_seconds) for each in clocks)
    return fitted


def measured(variant: Training) -> bool:
    """Whether a training is evaluated after each epoch; a fold of a search is scored once it is over."""
    return not variant.splits.startswith("folds")


def side_by_side(variant: Training, seeds: int, data: Dataset) -> bool:
    """Whether `train` trains so many seeds of a variant at the same time."""
    return variant.splits == "fixed" and training.side_by_side(seeds, variant.batch(len(data.train)))


def time_alone(result: Result, data: Dataset, device: Device) -> None:
    """Trains some epochs of what was trained side by side once more, alone: the median of their times is an epoch's.

    The first does not count: it has the data to bring into the caches.
    """
    model = build(result.variant, data, result.seed)
    clock = training.Clock()
    x, y, weight = device.train

    def enough(epoch: int, logs: object) -> None:
        model.stop_training = sum(clock.train_seconds[1:]) >= TIMED_SECONDS

    training.fit(
        model,
        *(x, y),
        sample_weight=weight,
        class_weight=class_weight(result.variant, data),
        batch_size=result.variant.batch(len(data.train)),
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
    model = build(variant, data, result.seed)
    result.parameters = model.count_params()
    result.examples, result.steps_per_epoch = examples, variant.steps_per_epoch(examples)
    result.start = initial.hashes(model)
    result.sizes = initial.sizes(model)
    if result.steps_per_epoch > 1:
        orders = (training.batch_order(examples, result.seed, epoch) for epoch in range(HASHED_EPOCHS))
        result.order = digest([order.tobytes() for order in orders])
    return model


def _callbacks(
    result: Result,
    clock: training.Clock,
    metric: Metric,
    on_training: OnTraining,
    report: Callable[[Result], None],
    store: CheckpointStore | None,
    together: bool,
) -> list[keras.callbacks.Callback]:
    own: list[keras.callbacks.Callback] = [each.make() for each in result.variant.callbacks]
    recorder = _Recorder(result, clock, metric, on_training, report, together)
    # After the user's own, which may have ended the training.
    callbacks = [recorder, *own, keras.callbacks.LambdaCallback(on_epoch_end=recorder.at_the_end)]
    if store is not None:
        callbacks.append(_Checkpoints(result, clock, store, own))
    return callbacks


def _finish(result: Result, model: keras.Model, clock: training.Clock, device: Device, on_training: OnTraining) -> None:
    """Takes the model back to its best epoch, and says what it is worth there."""
    result.end = digest([weight.tobytes() for weight in model.get_weights()])
    if not measured(result.variant):
        result.best_epoch, result.weights = result.epochs, model.get_weights()
    elif result.weights is not None:
        model.set_weights(result.weights)
        assert result.best_epoch is not None
        on_training.measure(result.best_epoch)
        if not is_trial(result.variant):  # what is chosen among is not to know the test set
            result.test = device.evaluate(model, device.test)
    result.program = clock.program
    if result.program == KERAS and result.order:
        # In Keras' own order, which its seed decides: the same for all variants that Keras trains.
        result.order = f"Keras' own by seed {result.seed}"
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
        metric: Metric,
        on_training: OnTraining,
        report: Callable[[Result], None],
        together: bool,
    ) -> None:
        super().__init__()
        self.result, self.clock, self.metric, self.report = result, clock, metric, report
        self.on_training, self.together = on_training, together
        self.measured = measured(result.variant)
        self.weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: object = None) -> None:
        if self.measured:
            self.on_training.compile()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logged = {name: float(value) for name, value in logs.items()}
        found: dict[str, float] = {}
        if self.measured:
            due = evaluations.planned(self.result.epochs + 1, self.result.variant.epochs)
            found = self.on_training.values() if due else self.on_training.missing()
            self.weights = None if due else self.model.get_weights()
        values = {**logged, **found, "learning_rate": rate}
        if not self.together:
            # Side by side the clock has a share of the group's wall time, which is no time of this training.
            values["train_seconds"] = sum(self.clock.train_seconds)
        self.result.add(values)
        name = self.metric.name
        if self.measured and self.metric.better(values[name], self.result.best(name)):
            self.result.best_epoch = self.result.epochs
            self.result.weights = self.weights or self.model.get_weights()
        if not (math.isfinite(values["loss"]) and math.isfinite(values.get("val_loss", 0.0))):
            self.result.status = DIVERGED
        self.report(self.result)
        if self.result.status != FINISHED:  # or whoever is told has it end here, as a tuning that halves does
            self.model.stop_training = True

    def at_the_end(self, epoch: int, logs: object = None) -> None:
        """Measures the last epoch of a training that ends before its time, too, with the weights that it was told."""
        if self.model.stop_training and self.weights is not None:
            now = self.model.get_weights()
            self.model.set_weights(self.weights)
            self.on_training.measure(self.result.epochs)
            self.model.set_weights(now)


class _Checkpoints(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps a training's whole state now and then, and goes on from the state that was kept.

    As Keras' own BackupAndRestore does, which keeps neither the state of other callbacks nor what was measured. Of a
    callback its numbers, texts and lists of arrays are kept: all that those of Keras have that changes.
    """

    MEASURED = ("status", "history", "best_epoch", "compile_seconds", "evaluate_seconds")

    def __init__(
        self,
        result: Result,
        clock: training.Clock,
        store: CheckpointStore,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self.result, self.clock, self.store, self.callbacks = result, clock, store, callbacks
        self.kept_at = time.monotonic()

    def on_train_begin(self, logs: object = None) -> None:
        self.model._initial_epoch = None
        found = self.store.kept(CHECKPOINT)
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
        best, rest = arrays[len(state) : len(state) + values["best"]], arrays[len(state) + values["best"] :]
        self.result.weights = best or None
        self.result.resumed_at = self.result.epochs
        vars(self.clock).update(values["clock"])
        self.clock.compile_seconds = 0.0
        for callback, kept in zip(self.callbacks, values["callbacks"], strict=True):
            vars(callback).update(kept["values"])
            for name, many in kept["arrays"].items():
                setattr(callback, name, rest[:many])
                rest = rest[many:]
        # Where Keras' BackupAndRestore says it, too.
        self.model._initial_epoch = self.result.variant.epochs if values["over"] else self.result.epochs

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        over = self.model.stop_training or self.result.epochs == self.result.variant.epochs
        if not over and time.monotonic() - self.kept_at < CHECKPOINT_SECONDS:
            return
        weights = self.result.weights or []
        own, rest = [], []
        for callback in self.callbacks:
            arrays = {name: value for name, value in vars(callback).items() if _is_arrays(value)}
            scalars = {name: _scalar(v) for name, v in vars(callback).items() if isinstance(v, SCALARS)}
            own.append({"values": scalars, "arrays": {name: len(value) for name, value in arrays.items()}})
            rest += [array for value in arrays.values() for array in value]
        values: dict[str, Any] = {
            "over": bool(over),
            "best": len(weights),
            "result": {name: getattr(self.result, name) for name in self.MEASURED},
            "clock": asdict(self.clock),
            "callbacks": own,
        }
        values["result"]["compile_seconds"] += self.clock.compile_seconds
        state = [keras.ops.convert_to_numpy(variable) for variable in training.state(self.model)]
        self.store.keep(CHECKPOINT, values, [*state, *weights, *rest])
        self.kept_at = time.monotonic()


SCALARS = (bool, int, float, str, np.number, np.bool_)


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_arrays(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, np.ndarray) for one in value)
