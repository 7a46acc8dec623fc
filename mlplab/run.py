"""The whole story: an experiment and its data become trainings, and the trainings a record in the tracking store."""

import contextlib
import csv
import hashlib
import io
import json
import math
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from mlplab import figures, models, report, results, search, tracking, training
from mlplab.data import Dataset
from mlplab.results import DIVERGED, FAILED, Candidate, Predictions, Record, Result, SearchResult
from mlplab.spec import (
    Comparison,
    Experiment,
    Options,
    Overview,
    Prediction,
    Search,
    UsageError,
    Variant,
    choose,
    datasets_of,
    experiment_names,
    load_experiment,
)

EXPORTED_OPTIMIZER = "rmsprop"
"""The best variant with this optimizer has its model logged besides the winner's: it is the one that is served."""

NUMBERS_COME_FROM = ("spec.py", "models.py", "training.py", "search.py", "run.py")
"""The files of this package that decide an experiment's numbers; a change to one makes its record outdated."""


class Watch(Protocol):
    """What an experiment tells while it runs."""

    def started(self, variant: Variant, steps_per_epoch: int) -> None:
        """A variant begins; its programs are compiled first."""

    def epoch(self, result: Result) -> None:
        """An epoch of `result` is over; its values are the last of the history."""

    def ended(self, result: Result) -> None:
        """A variant is over: finished, diverged or failed."""


class Screen(Protocol):
    """Whom a lab tells what it does."""

    def experiment(
        self, experiment: Experiment, data: Dataset, variants: Sequence[Variant]
    ) -> AbstractContextManager[Watch]:
        """An experiment begins; what is yielded watches its trainings."""

    def recorded(self, record: Record) -> None:
        """An experiment is over, or was found on record."""

    def failed(self, name: str, error: str) -> None:
        """An experiment of a report raised; the report goes on."""


class Lab:
    """Runs experiments, each in an MLflow run, and finds those that are on record already.

    Args:
        load: gives the data set for what an experiment wants, `mnist` or `cifar10`.
        options: changes made to every experiment.
        jobs: trainings of a search at a time.
    """

    def __init__(self, load: Callable[[str], Dataset], screen: Screen, options: Options, jobs: int = 1) -> None:
        self.options = options
        self.jobs = jobs
        self.records: dict[str, Record] = {}
        self._load, self._screen = load, screen
        self._data: dict[str, tuple[Dataset, Device]] = {}

    def run(self, experiment: Experiment) -> tuple[Record, str, str]:
        """Runs an experiment anew; experiments that it needs are found on record, or run under it.

        Returns:
            What came out, the command that opens the UI on the store, and the run's page there.

        Raises:
            UsageError: it needs an experiment that is not there.
            UnavailableError: the data or the tracking store are not to be had, or the store did not take everything.
        """
        for wanted in datasets_of(experiment):
            self._data_of(wanted)
        with tracking.parent_run(experiment.name, _kind(experiment)) as run:
            record = self._perform(experiment, run)
            return record, *tracking.address(run)

    def report(self, folder: Path) -> tuple[Path, dict[str, Record], str, str]:
        """Runs every experiment of the project that is not on record, and writes the report of all into `folder`.

        Returns:
            The HTML page, the records by name, the command that opens the UI and the page of the report's run there.

        Raises:
            UsageError: the folder cannot be written to.
            UnavailableError: as `run` raises it.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the report's folder {folder} cannot be made: {error}; name another.") from error
        names = experiment_names()
        for wanted in set().union(*(datasets_of(load_experiment(name)) for name in names)):
            self._data_of(wanted)
        started = time.perf_counter()
        with tracking.parent_run("report", {"mlplab.experiment": "report", "mlplab.kind": "report"}) as run:
            for name in names:
                try:
                    self._need(name, run)
                except Exception:
                    self._screen.failed(name, traceback.format_exc())
            seconds = time.perf_counter() - started
            run.metrics({"seconds": seconds, **{f"seconds.{n}": r.seconds for n, r in self.records.items()}})
            page, _ = report.write(self.records, folder, tracking.circumstances(), seconds)
            run.folder(folder)
            incomplete = set(names) - set(self.records) or any(record.failed for record in self.records.values())
            run.finish("FAILED" if incomplete else "FINISHED")
            return page, self.records, *tracking.address(run)

    def _data_of(self, wanted: str) -> "tuple[Dataset, Device]":
        """A data set, loaded once; first of all, so that what is missing or damaged is said before a run starts."""
        if wanted not in self._data:
            data = self._load(wanted)
            self._data[wanted] = data, Device.of(data)
        return self._data[wanted]

    def _need(self, name: str, parent: tracking.Run) -> Record:
        """The record of an experiment: met before, found in the store, or run now under `parent`."""
        if name in self.records:
            return self.records[name]
        experiment = self.options.adapt(load_experiment(name))
        if isinstance(experiment, Comparison):
            experiment = self._with_winners(experiment, parent)
        if isinstance(experiment, Comparison | Search):
            data, _ = self._data_of(experiment.dataset)
            found = parent.find(_fingerprint(experiment, data))
            text = parent.read(found.run_id, "record.json") if found else None
            if found and text:
                record = Record.from_json(text, experiment, found.run_id)
                self.records[name] = record
                self._screen.recorded(record)
                return record
        run = parent.child(name, {}, {**_kind(experiment), **tracking.circumstances()})
        try:
            return self._perform(experiment, run)
        except BaseException as error:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _with_winners(self, comparison: Comparison, parent: tracking.Run) -> Comparison:
        for variant, name in comparison.searches.items():
            record = self._need(name, parent)
            if record.search is None:
                raise UsageError(f"variant {variant!r} is the winner of {name!r}, which is no Search.")
            comparison = comparison.with_choices(variant, record.search.best.choices)
        return comparison

    def _perform(self, experiment: Experiment, run: tracking.Run) -> Record:
        """Does an experiment in `run`, and ends that."""
        if isinstance(experiment, Comparison):
            experiment = self._with_winners(experiment, run)
        needed = [self._need(name, run) for name in getattr(experiment, "needs", ())]
        started = time.perf_counter()
        if isinstance(experiment, Comparison):
            record = self._compare(experiment, run)
        elif isinstance(experiment, Search):
            record = self._search(experiment, run)
        elif isinstance(experiment, Prediction):
            record = self._predict(experiment, needed[0], run)
        else:
            record = self._overview(experiment, needed, run)
        record.seconds = time.perf_counter() - started
        record.run_id = run.run_id
        run.text(record.to_json(), "record.json")
        run.metrics({"seconds": record.seconds})
        run.finish("FAILED" if record.failed else "FINISHED")
        self.records[experiment.name] = record
        self._screen.recorded(record)
        return record

    def _compare(self, comparison: Comparison, run: tracking.Run) -> Record:
        data, device = self._data_of(comparison.dataset)
        run.tags({**_tags(comparison, data), tracking.FINGERPRINT: _fingerprint(comparison, data)})
        run.data(data)
        run.text(comparison.to_json(), "comparison.json")
        with self._screen.experiment(comparison, data, comparison.resolved()) as watch:
            trained = [child(run, variant, comparison, data, device, watch) for variant in comparison.resolved()]
        _conclude(run, comparison, data, trained)
        return _record(comparison, data, results=[result for result, _ in trained])

    def _search(self, spec: Search, run: tracking.Run) -> Record:
        data, device = self._data_of(spec.dataset)
        run.tags({**_tags(spec, data), tracking.FINGERPRINT: _fingerprint(spec, data)})
        run.data(data)
        run.text(spec.to_json(), "search.json")
        variants = search.candidates(spec)
        finished: dict[str, Candidate] = {}
        prints = {variant.name: _candidate_fingerprint(spec, variant, data) for variant in variants}
        for variant in variants:
            if found := run.find(prints[variant.name]):
                finished[variant.name] = Candidate(**json.loads(found.tags["mlplab.candidate"]))
                run.twin(variant.name, found, {"mlplab.experiment": spec.name})
        with self._screen.experiment(spec, data, [_over_folds(variant, spec) for variant in variants]) as watch:
            journal = _Journal(spec, data, run, prints, watch)
            try:
                done = search.random_search(
                    spec, data.train.x, data.train.y, data.classes, journal, finished=finished, n_jobs=self.jobs
                )
            except BaseException:
                journal.interrupted()
                raise
        refit = done.refit
        refit.test = training.evaluate(done.model, *device.test)
        validated = training.evaluate(done.model, *device.validation)
        found_all = SearchResult(candidates=done.candidates, refit=refit, validation=validated)
        best = found_all.best
        run.text(_columns(done.cv_results), "cv_results.csv")
        run.figure(figures.search_parallel(found_all, data.label), "parallel_coordinates.png")
        run.figure(figures.search_slices(found_all, data.label), "slices.png")
        run.figure(figures.learning_curves(refit, data.label), "learning_curves.png")
        run.params({f"best.{name}": value for name, value in best.choices.items()})
        run.metrics({"best_score": best.mean, "best_score_std": best.std})
        run.metrics({f"refit_test_{k}": v for k, v in refit.test.items()})
        run.metrics({f"refit_val_{k}": v for k, v in validated.items()})
        table = results.markdown(results.search_cells(found_all))
        says = ", ".join(f"{name} {value:g}" for name, value in best.choices.items())
        verdict = f"Best of {len(done.candidates)} candidates by mean accuracy over {spec.folds} folds: **{says}**."
        run.tags({"mlflow.note.content": f"**{spec.question}**\n\n{table}\n{verdict} Data: {data.label}."})
        run.file("model.keras", done.model.save)
        origin = {**_tags(spec, data), "experiment": spec.name, "run_id": run.run_id}
        run.model(models.Export(done.model), data.test.x[:2].astype(np.float32), data.classes, origin)
        return _record(spec, data, search=found_all)

    def _predict(self, spec: Prediction, of: Record, run: tracking.Run) -> Record:
        comparison = load_experiment(spec.of)
        assert isinstance(comparison, Comparison)
        data, _ = self._data_of(comparison.dataset)
        run.data(data)
        names = [result.variant.name for result in of.results]
        result = of.result(choose(f"variant of {spec.of}", spec.variant, names))
        uri, model = tracking.load_model(result.run_id)
        probabilities = model(data.test.x)
        predicted = probabilities.argmax(axis=1)
        shown = slice(0, spec.images)
        found = Predictions(
            images=data.test.x[shown],
            image_shape=data.image_shape,
            labels=data.test.y[shown].tolist(),
            predicted=predicted[shown].tolist(),
            probability=probabilities.max(axis=1)[shown].tolist(),
            class_names=data.class_names,
            test_accuracy=float((predicted == data.test.y).mean()),
            model_uri=uri,
        )
        run.figure(figures.predictions(found, data.label), "predictions.png")
        run.metrics({"test_accuracy": found.test_accuracy})
        run.tags({**_tags(comparison, data), "model_uri": uri})
        return _record(spec, data, predictions=found)

    def _overview(self, spec: Overview, needed: Sequence[Record], run: tracking.Run) -> Record:
        run.figure(figures.overview_times(needed), "training_time.png")
        table = results.markdown(results.time_cells(needed))
        run.text(table, "training_times.md")
        run.tags({"mlflow.note.content": f"**{spec.question}**\n\n{table}\nData: {needed[0].data}."})
        return Record(experiment=spec, data=needed[0].data, notice=needed[0].notice)


def _record(experiment: Experiment, data: Dataset, **found: Any) -> Record:
    return Record(experiment=experiment, data=data.label, notice=data.notice or "", **found)


def _kind(experiment: Experiment) -> dict[str, str]:
    return {"mlplab.experiment": experiment.name, "mlplab.kind": type(experiment).__name__.lower()}


def _fingerprint(experiment: Comparison | Search, data: Dataset) -> str:
    """What decides an experiment's numbers, in 32 hex digits: its spec and seed, the data, the code, the versions."""
    spec = {k: v for k, v in json.loads(experiment.to_json()).items() if k not in ("question", "base", "variants")}
    return _digest([spec, asdict(experiment.base) if isinstance(experiment, Search) else "", data.digest])


def _candidate_fingerprint(spec: Search, candidate: Variant, data: Dataset) -> str:
    return _digest([asdict(candidate.but(name="")), spec.folds, spec.seed, data.digest])


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps([what, _code(), tracking.versions()]).encode()).hexdigest()[:32]


@cache
def _code() -> list[str]:
    # Once: the code that runs is the code as it was loaded, whatever happens to the files meanwhile.
    return [hashlib.sha256((Path(__file__).parent / name).read_bytes()).hexdigest() for name in NUMBERS_COME_FROM]


def _columns(cv_results: Mapping[str, Any]) -> str:
    """scikit-learn's `cv_results_` as CSV, a row a candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cv_results)
    writer.writerows(zip(*cv_results.values(), strict=True))
    return text.getvalue()


def _over_folds(candidate: Variant, spec: Search) -> Variant:
    """A candidate as it is shown while it runs: its folds' epochs counted on."""
    return candidate.but(epochs=min(candidate.epochs * spec.folds, 100_000))


class _Journal:
    """Records the candidates of a search, each in a run from its first fold's start to its last fold's end."""

    def __init__(
        self, spec: Search, data: Dataset, parent: tracking.Run, prints: Mapping[str, str], watch: Watch
    ) -> None:
        self.spec, self.data, self.parent, self.prints, self.watch = spec, data, parent, prints, watch
        self._open: dict[str, tuple[tracking.Run, Result]] = {}
        self._lock = threading.RLock()

    def started(self, candidate: Variant) -> None:
        """Creates the candidate's run."""
        with self._lock:
            tags = {"mlplab.experiment": self.spec.name, "mlplab.kind": "candidate", **_tags(self.spec, self.data)}
            params = {**candidate.params(), "seed": self.spec.seed, "folds": self.spec.folds, "dataset": self.data.name}
            run = self.parent.child(candidate.name, params, tags, self.data)
            result = Result(variant=_over_folds(candidate, self.spec), run_id=run.run_id)
            self._open[candidate.name] = run, result
            fold = len(self.data.train) * (self.spec.folds - 1) // self.spec.folds
            self.watch.started(result.variant, candidate.steps_per_epoch(fold))

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        """Records an epoch of a fold."""
        with self._lock:
            run, result = self._open[candidate.name]
            run.metrics({f"fold_{fold}_{name}": value for name, value in values.items()}, step=epoch)
            result.add(values)
            self.watch.epoch(result)

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        """Records the folds' scores and ends the run."""
        with self._lock:
            run, result = self._open.pop(candidate.name)
            found.run_id = run.run_id
            run.metrics({f"fold_{fold}_score": score for fold, score in enumerate(found.scores, start=1)})
            run.metrics({"mean_score": found.mean, "std_score": found.std, "train_seconds": found.train_seconds})
            if error:
                result.status, result.error = FAILED, error
                run.text(error, "traceback.txt")
            else:
                run.tags({"mlplab.candidate": json.dumps(asdict(found))})
                run.tags({tracking.FINGERPRINT: self.prints[candidate.name]})
            run.finish("FAILED" if error else "FINISHED")
            self.watch.ended(result)

    def interrupted(self) -> None:
        """Ends the runs that are open."""
        with self._lock:
            for run, _ in self._open.values():
                run.finish("KILLED")


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
    names = list(comparison.variants)
    (colour, _) = figures.looks(names)[names.index(variant.name)]
    tags = {"mlplab.experiment": comparison.name, "mlplab.kind": "variant", "mlflow.runColor": colour}
    tags |= _tags(comparison, data)
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
    callbacks: list[keras.callbacks.Callback] = [_Recorder(result, comparison, clock, report)]
    if variant.patience:
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_loss", patience=variant.patience))
    training.fit(
        model,
        *device.train,
        batch_size=variant.images_per_step(len(data.train)),
        epochs=variant.epochs,
        validation_data=device.validation,
        callbacks=callbacks,
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
        self.result.add(values)
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
    curves = tracking.curves_address(parent, f"best_{comparison.select}", not comparison.maximizes)
    links = f"\n\n[Curves of the variants]({curves})"
    verdict = f"Best by {comparison.select}: **{ranked[0].variant.name}**." if ranked else "No variant has a result."
    # The UI sets a table's cells without a space between them.
    wide = results.markdown([[f"{cell}&nbsp;&nbsp;" for cell in row] for row in results.to_cells(comparison, found)])
    note = f"**{comparison.question}**\n\n{wide}\n{verdict} Data: {data.label}.{links}{notice}"
    parent.tags({"mlflow.note.content": note})
    for result, run in trained:
        if result in ranked:
            value = f"{comparison.select} {result.best(comparison.select):.4f} at epoch {result.best_epoch}"
            place = f"number {ranked.index(result) + 1} of {len(found)} in {comparison.name}"
            run.tags({"mlflow.note.content": f"{value} of {result.epochs}: {place}"})
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


def _tags(comparison: Comparison | Search, data: Dataset) -> dict[str, Any]:
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
