"""The whole story: a comparison and its data become trainings, and the trainings a record in the tracking store."""

import contextlib
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from mlplab import figures, models, results, tracking, training
from mlplab.data import Dataset
from mlplab.results import DIVERGED, FAILED, Result
from mlplab.spec import Comparison, Variant

EXPORTED_OPTIMIZER = "rmsprop"
"""The best variant with this optimizer has its model logged besides the winner's: it is the one that is served."""


class Watch(Protocol):
    """What a comparison tells while it runs."""

    def started(self, variant: Variant, steps_per_epoch: int) -> None:
        """A variant begins; its programs are compiled first."""

    def epoch(self, result: Result) -> None:
        """An epoch of `result` is over; its values are the last of the history."""

    def ended(self, result: Result) -> None:
        """A variant is over: finished, diverged or failed."""


@dataclass(frozen=True)
class Outcome:
    """The results in the order of the comparison's variants, and where to look at them."""

    results: list[Result]
    ui_command: str
    page: str


def compare(comparison: Comparison, data: Dataset, watch: Watch) -> Outcome:
    """Trains every variant, each in a run of its own under the comparison's run, and concludes.

    A variant that raises is recorded as failed, and its siblings go on.

    Raises:
        UnavailableError: the tracking store is not to be reached, or did not take everything in the end.
    """
    kind = {"mlplab.comparison": comparison.name, "mlplab.kind": "comparison"}
    with tracking.parent_run(comparison.name, {**kind, **_tags(comparison, data)}, data) as parent:
        parent.text(comparison.to_json(), "comparison.json")
        device = Device.of(data)
        trained = [child(parent, variant, comparison, data, device, watch) for variant in comparison.resolved()]
        _conclude(parent, comparison, data, trained)
        found = [result for result, _ in trained]
        parent.finish("FAILED" if any(result.status == FAILED for result in found) else "FINISHED")
        return Outcome(found, *tracking.address(parent))


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


def child(
    parent: tracking.Run, variant: Variant, comparison: Comparison, data: Dataset, device: Device, watch: Watch
) -> tuple[Result, tracking.Run]:
    """Trains a variant in a run of its own under `parent`; a variant that raises gives a failed result."""
    result = Result(variant=variant, steps_per_epoch=variant.steps_per_epoch(len(data.train)))
    tags = {"mlplab.comparison": comparison.name, "mlplab.kind": "variant", **_tags(comparison, data)}
    params = {**variant.params(), "seed": comparison.seed, "dataset": data.name}
    run = parent.child(variant.name, params, tags, data)
    result.run_id = run.run_id

    def report(values: dict[str, float]) -> None:
        run.metrics(values, step=result.epochs)
        watch.epoch(result)

    watch.started(variant, result.steps_per_epoch)
    try:
        model = train(result, comparison, data, device, report)
        run.params({"parameters": result.parameters})
        run.metrics(_summary(result))
        run.text(results.history_csv(result), "history.csv")
        run.text(_layers(model), "model_summary.txt")
        run.figure(figures.learning_curves(result, data.label), "learning_curves.png")
        run.file("model.keras", model.save)
    except Exception:
        result.status, result.error = FAILED, traceback.format_exc()
        run.text(result.error, "traceback.txt")
    except KeyboardInterrupt:
        run.finish("KILLED")
        raise
    run.tags({"mlplab.status": result.status, **({"diverged": "true"} if result.status == DIVERGED else {})})
    run.finish("FAILED" if result.status == FAILED else "FINISHED")
    watch.ended(result)
    return result, run


def train(
    result: Result,
    comparison: Comparison,
    data: Dataset,
    device: Device,
    report: Callable[[dict[str, float]], None],
) -> keras.Model:
    """Trains `result.variant` and fills `result`; returns the model as it was after the best epoch.

    Args:
        report: called after each epoch with its values.
    """
    _reset_peak_memory()
    variant = result.variant
    model = models.build(variant, data.features, data.classes, comparison.seed)
    result.parameters = model.count_params()
    clock = training.Clock()
    recorder = _Recorder(result, comparison, clock, report)
    training.fit(
        model,
        *device.train,
        batch_size=variant.images_per_step(len(data.train)),
        epochs=variant.epochs,
        validation_data=device.validation,
        callbacks=[recorder],
        verbose=0,
        seed=comparison.seed,
        clock=clock,
    )
    if result.weights is not None:
        model.set_weights(result.weights)
        result.test = training.evaluate(model, *device.test)
    result.compile_seconds = clock.compile_seconds
    result.evaluate_seconds = sum(clock.evaluate_seconds)
    result.peak_memory_mb = _peak_memory_mb()
    return model


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Fills a result epoch by epoch, keeps the best epoch's weights, and ends a training that has diverged."""

    def __init__(
        self,
        result: Result,
        comparison: Comparison,
        clock: training.Clock,
        report: Callable[[dict[str, float]], None],
    ) -> None:
        super().__init__()
        self.result, self.comparison, self.clock, self.report = result, comparison, clock, report

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**logs, "learning_rate": rate, "train_seconds": sum(self.clock.train_seconds)}
        for name, value in values.items():
            self.result.history.setdefault(name, []).append(value)
        select = self.comparison.select
        if self.comparison.better(values[select], self.result.best(select)):
            self.result.best_epoch = self.result.epochs
            self.result.weights = self.model.get_weights()
        if not (math.isfinite(values["loss"]) and math.isfinite(values["val_loss"])):
            self.result.status = DIVERGED
            self.model.stop_training = True
        self.report(values)


def _conclude(
    parent: tracking.Run, comparison: Comparison, data: Dataset, trained: Sequence[tuple[Result, tracking.Run]]
) -> None:
    """What the parent run says of its children: tables, figures, winner; and the models worth serving."""
    found = [result for result, _ in trained]
    table = results.to_markdown(comparison, found)
    ranked = [result for result in results.rank(comparison, found) if result.best_epoch and result.status != FAILED]
    parent.text(results.to_csv(comparison, found), "comparison.csv")
    parent.text(table, "comparison.md")
    for metric in figures.METRICS:
        parent.figure(figures.comparison_curves(metric, found, data.label), f"{metric}.png")
    parent.figure(figures.training_times(found, data.label), "training_time.png")
    notice = f"\n\n> **{data.notice}**" if data.notice else ""
    verdict = f"Best by {comparison.select}: **{ranked[0].variant.name}**." if ranked else "No variant has a result."
    parent.tags({"mlflow.note.content": f"**{comparison.question}**\n\n{table}\n{verdict} Data: {data.label}.{notice}"})
    if not ranked:
        return
    winner = ranked[0]
    parent.tags({"winner": winner.variant.name, "winner.run_id": winner.run_id, "winner.metric": comparison.select})
    parent.metrics({f"winner_{comparison.select}": winner.best(comparison.select)})
    served = next((r for r in ranked if r.variant.optimizer == EXPORTED_OPTIMIZER), winner)
    for result, run in trained:
        if result in (winner, served):
            _log_model(run, result, comparison, data)


def _log_model(run: tracking.Run, result: Result, comparison: Comparison, data: Dataset) -> None:
    model = models.build(result.variant, data.features, data.classes, comparison.seed)
    model.set_weights(result.weights)
    origin = {**_tags(comparison, data), "comparison": comparison.name, "variant": result.variant.name}
    example = data.test.x[:2].astype(np.float32)
    run.model(models.Export(model), example, data.classes, origin | {"run_id": run.run_id})


def _tags(comparison: Comparison, data: Dataset) -> dict[str, Any]:
    return {
        "dataset": data.label,
        "dataset.name": data.name,
        "dataset.wanted": comparison.dataset,
        "dataset.fallback": str(data.is_fallback).lower(),
        "dataset.digest": data.digest,
        "dataset.source": data.source,
        **({"dataset.notice": data.notice} if data.notice else {}),
        **tracking.circumstances(),
    }


def _summary(result: Result) -> dict[str, float]:
    """The metrics of a training as a whole."""
    curves = ("loss", "accuracy", "val_loss", "val_accuracy")
    summary = {f"last_{name}": result.last(name) for name in curves}
    if result.best_epoch:
        summary |= {"best_epoch": result.best_epoch} | {f"best_{name}": result.best(name) for name in curves}
    return {
        **summary,
        **{f"test_{name}": value for name, value in result.test.items()},
        "compile_seconds": result.compile_seconds,
        "evaluate_seconds": result.evaluate_seconds,
        "steps_per_second": result.steps_per_second,
        "peak_memory_mb": result.peak_memory_mb,
    }


def _layers(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    return "\n".join(lines) + "\n"


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
