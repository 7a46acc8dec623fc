"""The whole story: an experiment and its data become trainings, and the trainings a record in the tracking store."""

import csv
import hashlib
import io
import json
import math
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from mlplab import figures, models, origin, replay, results, tracking, training, trial
from mlplab.data import Dataset
from mlplab.results import (
    FAILED,
    Candidate,
    Outcome,
    Predictions,
    Record,
    Result,
    SearchResult,
    Target,
)
from mlplab.spec import (
    SELECTION_METRICS,
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
    load_experiment,
)
from mlplab.statistics import Verdict, judge, sentences
from mlplab.trial import Device, Watch

if TYPE_CHECKING:  # scikit-learn and joblib take long to import, and most experiments need neither
    from mlplab import cluster, search

EXPORTED_OPTIMIZER = "rmsprop"
"""The best variant with this optimizer has its model logged besides the winner's: it is the one that is served."""

MOST_SENTENCES = 15
"""With more verdicts a run's description names the file that has them; MLflow cuts long descriptions off."""

LOAD, SHARED = "machine.load", "shared"
"""The tag that says what else the machine did while a run was trained: `shared` with other trainings on purpose, or
busy with other processes. No tag: nothing that would be felt."""


class Screen(Protocol):
    """Whom a lab tells what it does."""

    def experiment(
        self, experiment: Experiment, data: Dataset, variants: Sequence[Variant]
    ) -> AbstractContextManager[Watch]:
        """An experiment begins; what is yielded watches its trainings."""

    def recorded(self, record: Record) -> None:
        """An experiment is over, or was found on record."""

    def failed(self, name: str, error: str) -> None:
        """One of several experiments raised; the others go on."""

    def notice(self, text: str) -> None:
        """Something a person should know of where the record goes."""


class Lab:
    """Runs experiments, each in an MLflow run, and finds those that are on record already.

    Args:
        load: gives the data set for what an experiment wants, `mnist` or `cifar10`.
        options: changes made to every experiment.
        jobs: trainings at a time, each in a process of this machine; 1: in this process.
        cluster: where they are carried out instead, see `mlplab.cluster.workers`.
    """

    def __init__(
        self,
        load: Callable[[str], Dataset],
        screen: Screen,
        options: Options,
        jobs: int = 1,
        cluster: str | None = None,
    ) -> None:
        self.options = options
        self.jobs, self.cluster = jobs, cluster
        self.records: dict[str, Record] = {}
        self._load, self._screen = load, screen
        self._data: dict[str, tuple[Dataset, Device]] = {}

    def run(self, experiment: Experiment) -> tuple[Record, str, str]:
        """Runs an experiment anew; experiments that it needs are found on record, or run under it.

        Returns:
            What came out, the command that opens the UI on the store, and the run's page there.

        Raises:
            UsageError: it needs an experiment that is not there.
            UnavailableError: the data or the tracking store are not to be had.
            UndeliveredError: the store did not take everything; it waits on disk.
        """
        for wanted in datasets_of(experiment):
            self._data_of(wanted)
        command = self._command(experiment)
        with tracking.parent_run(experiment.name, _kind(experiment), None, command, self._screen.notice) as run:
            record = self._perform(experiment, run)
        self._resolve(run)
        return record, *tracking.address(run)

    def every(
        self, name: str, experiments: Sequence[str], folder: Path, write: Callable[[Mapping[str, Record], float], None]
    ) -> tuple[dict[str, Record], str, str]:
        """Runs those of the project's experiments that are not on record, in one run, and keeps what is written of all.

        Args:
            name: of the run.
            experiments: their names.
            folder: is made, and is what the run keeps.
            write: is given the records by name and the seconds that all took, and writes into the folder.

        Returns:
            The records by name, the command that opens the UI and the page of the run there.

        Raises:
            UsageError: the folder cannot be written to.
            UnavailableError: as `run` raises it.
        """
        for wanted in set().union(*(datasets_of(load_experiment(each)) for each in experiments)):
            self._data_of(wanted)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the {name}'s folder {folder} cannot be made: {error}; name another.") from error
        started = time.perf_counter()
        command = self._command(*(self.options.adapt(load_experiment(each)) for each in experiments))
        tags = {"mlplab.experiment": name, "mlplab.kind": name}
        with tracking.parent_run(name, tags, None, command, self._screen.notice) as run:
            for each in experiments:
                try:
                    self._need(each, run)
                except Exception:
                    self._screen.failed(each, traceback.format_exc())
            seconds = time.perf_counter() - started
            run.metrics({"seconds": seconds})
            write(self.records, seconds)
            run.folder(folder)
            incomplete = set(experiments) - set(self.records) or any(record.failed for record in self.records.values())
            run.finish("FAILED" if incomplete else "FINISHED")
        self._resolve(run)
        return self.records, *tracking.address(run)

    def _command(self, *experiments: Experiment) -> str:
        """What is to be done, in a word that differs with whatever decides the numbers."""
        every = [
            _fingerprint(experiment, self._data_of(experiment.dataset)[0])
            if isinstance(experiment, Search) or (isinstance(experiment, Comparison) and not experiment.searches)
            else [repr(experiment), *(self._data_of(wanted)[0].digest for wanted in sorted(datasets_of(experiment)))]
            for experiment in experiments
        ]
        return _digest([every, asdict(self.options), [experiment.name for experiment in experiments]])

    def _resolve(self, run: tracking.Run) -> None:
        """Has the records name their runs as the store does."""
        for record in self.records.values():
            record.run_id = run.resolved(record.run_id)
            for result in record.results:
                result.run_id = run.resolved(result.run_id)
            for candidate in record.search.candidates if record.search else ():
                candidate.run_id = run.resolved(candidate.run_id)

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
            text = tracking.read_artifact(found.run_id, "record.json") if found else None
            if found and text:
                record = Record.from_json(text, experiment, found.run_id)
                self.records[name] = record
                self._screen.recorded(record)
                return record
        run = parent.child(name, {}, {**_kind(experiment), **origin.circumstances()})
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
        run.tags({**_tags(data), **tracking.fingerprinted(_fingerprint(comparison, data))})
        run.data(data)
        run.text(comparison.to_json(), "comparison.json")
        families = [Family.open(run, variant, comparison, data) for variant in comparison.resolved()]
        # Seed after seed, each time another variant first: what slows the machine for a while slows all.
        turns = [
            (family, seed)
            for turn, seed in enumerate(comparison.each_seed)
            for family in families[turn % len(families) :] + families[: turn % len(families)]
        ]
        with self._screen.experiment(comparison, data, comparison.resolved()) as watch:
            if self.jobs > 1 or self.cluster:
                self._spread(turns, comparison, data, watch)
            else:
                for family, seed in turns:
                    family.turn(seed, device, watch)
        for family in families:
            family.conclude()
        trained = [one for family in families for one in family.trained]
        verdicts = _conclude(run, comparison, data, families, trained)
        return _record(comparison, data, results=[result for result, _ in trained], verdicts=verdicts)

    def _spread(
        self, turns: Sequence[tuple["Family", int]], comparison: Comparison, data: Dataset, watch: Watch
    ) -> None:
        """Has workers train, and takes what they come to."""
        from mlplab import cluster

        reference, text = cluster.Reference.to(data), comparison.to_json()
        shown = {
            (f.variant.name, seed): Result(
                variant=f.variant, seed=seed, steps_per_epoch=f.variant.steps_per_epoch(len(data.train))
            )
            for f, seed in turns
        }

        def heard(message: Any) -> None:
            variant, seed, values = message
            result = shown[variant, seed]
            if values is None:
                result.history.clear()
                watch.started(result)
            else:
                result.add(values)
                watch.epoch(result)

        tasks = {
            _Task(text, family.variant.name, seed, reference, family.parent.place): family
            for family, seed in turns
            if not family.recall(seed, watch)
        }
        with cluster.workers(self.cluster, self.jobs, heard) as workers:
            for task, outcome in workers.map(_train, tasks):
                watch.ended(tasks[task].take(task.seed, outcome))
        for family, _ in turns:
            family.trained.sort(key=lambda each: comparison.each_seed.index(each[0].seed))

    def _search(self, spec: Search, run: tracking.Run) -> Record:
        from mlplab import cluster, search

        data, device = self._data_of(spec.dataset)
        run.tags({**_tags(data), **tracking.fingerprinted(_fingerprint(spec, data))})
        run.data(data)
        run.text(spec.to_json(), "search.json")
        shared = self.jobs > 1 or self.cluster is not None
        if shared:
            run.tags({LOAD: SHARED})
        variants = search.candidates(spec)
        finished: dict[str, Candidate] = {}
        begun: dict[str, dict[int, search.Scored]] = {}
        prints = {variant.name: _candidate_fingerprint(spec, variant, data) for variant in variants}
        for variant in variants:
            if kept := run.recall(variant.name, "candidate"):
                finished[variant.name] = Candidate(**kept[0])
            elif found := run.find(prints[variant.name]):
                finished[variant.name] = Candidate(**json.loads(found.tags["mlplab.candidate"]))
                run.twin(variant.name, found, {"mlplab.experiment": spec.name})
            else:
                kept_folds = {fold: run.kept(_fold_of(variant, fold)) for fold in range(1, spec.folds + 1)}
                begun[variant.name] = {n: search.Scored(**kept[0]) for n, kept in kept_folds.items() if kept}
        with self._screen.experiment(spec, data, [_over_folds(variant, spec) for variant in variants]) as watch:
            journal = _Journal(spec, data, run, prints, watch, shared)
            x, y = data.train.x, data.train.y
            if shared:
                reference = cluster.Reference.to(data, device)
                x, y = reference.array("train", "x"), reference.array("train", "y")
            done = search.random_search(
                *(spec, x, y, data.classes, journal),
                finished=finished,
                begun=begun,
                jobs=self.jobs,
                address=self.cluster,
            )
        refit = done.refit
        refit.test = training.evaluate(done.model, *device.test, training.EVALUATION_BATCH)
        validated = training.evaluate(done.model, *device.validation, training.EVALUATION_BATCH)
        found_all = SearchResult(candidates=done.candidates, refit=refit, validation=validated)
        best = found_all.best
        run.text(_columns(done.cv_results), "cv_results.csv")
        run.figure(figures.search_parallel(found_all, data.label), "parallel_coordinates.png")
        run.figure(figures.search_slices(found_all, data.label), "slices.png")
        run.figure(figures.search_budget(found_all, data.label), "budget.png")
        run.figure(figures.learning_curves(refit, data.label), "learning_curves.png")
        run.params({f"best.{name}": value for name, value in best.choices.items()})
        run.metrics({"best_score": best.mean, "best_score_std": best.std})
        run.metrics({f"refit_test_{k}": v for k, v in refit.test.items()})
        run.metrics({f"refit_val_{k}": v for k, v in validated.items()})
        table = results.markdown(results.search_cells(found_all))
        says = ", ".join(f"{name} {results.choice_text(value)}" for name, value in best.choices.items())
        verdict = f"Best of {len(done.candidates)} candidates by mean accuracy over {spec.folds} folds: **{says}**."
        run.tags({"mlflow.note.content": f"**{spec.question}**\n\n{table}\n{verdict} Data: {data.label}."})
        run.file("model.keras", done.model.save)
        leads = {**_tags(data), "experiment": spec.name, "run_id": run.run_id}
        run.model(done.model, data.test.x[:2].astype(np.float32), data.classes, leads)
        return _record(spec, data, search=found_all)

    def _predict(self, spec: Prediction, of: Record, run: tracking.Run) -> Record:
        comparison = load_experiment(spec.of)
        assert isinstance(comparison, Comparison)
        data, _ = self._data_of(comparison.dataset)
        run.data(data)
        names = [result.variant.name for result in of.results]
        result = of.result(choose(f"variant of {spec.of}", spec.variant, names))
        run.settle()
        uri, model = tracking.load_model(run.resolved(result.run_id))
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
        run.tags({**_tags(data), "model_uri": uri})
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
    return hashlib.sha256(json.dumps([what, origin.code(), origin.versions()]).encode()).hexdigest()[:32]


def _columns(cv_results: Mapping[str, Any]) -> str:
    """scikit-learn's `cv_results_` as CSV, a row a candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cv_results)
    # Masked is what does not apply to a candidate.
    columns = [np.ma.filled(np.ma.asarray(values).astype(object), "") for values in cv_results.values()]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _over_folds(candidate: Variant, spec: Search) -> Variant:
    """A candidate as it is shown while it runs: its folds' epochs counted on."""
    return candidate.but(epochs=min(candidate.epochs * spec.folds, 100_000))


def _fold_of(candidate: Variant, fold: int) -> str:
    """Under which name the search's run keeps a fold of a candidate that is not finished."""
    return f"{candidate.name} fold {fold}"


class _Journal:
    """Records the candidates of a search, each in a run from its first fold's start to its last fold's end.

    It is this process that writes the runs, wherever the folds are trained.
    """

    def __init__(
        self,
        spec: Search,
        data: Dataset,
        parent: tracking.Run,
        prints: Mapping[str, str],
        watch: Watch,
        shared: bool = False,
    ) -> None:
        self.spec, self.data, self.parent, self.prints, self.watch = spec, data, parent, prints, watch
        self._tags = {"mlplab.experiment": spec.name, "mlplab.kind": "candidate", **_tags(data)}
        self._tags |= {LOAD: SHARED} if shared else {}
        self._open: dict[str, tuple[tracking.Run, Result]] = {}
        self._folds: dict[str, dict[int, search.Scored]] = {}
        self._lock = threading.RLock()

    def started(self, candidate: Variant) -> None:
        """Creates the candidate's run."""
        with self._lock:
            params = {**candidate.params(), "seed": self.spec.seed, "folds": self.spec.folds, "dataset": self.data.name}
            run = self.parent.child(candidate.name, params, self._tags, self.data)
            result = Result(variant=_over_folds(candidate, self.spec), run_id=run.run_id)
            self._open[candidate.name] = run, result
            fold = len(self.data.train) * (self.spec.folds - 1) // self.spec.folds
            result.steps_per_epoch = candidate.steps_per_epoch(fold)
            self.watch.started(result)

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        """Shows an epoch of a fold; it is recorded with the fold."""
        with self._lock:
            _, result = self._open[candidate.name]
            result.add(values)
            self.watch.epoch(result)

    def scored(self, candidate: Variant, fold: int, found: "search.Scored") -> None:
        """Records a fold's score, at the fold's number, and keeps the fold for when the command has to go on."""
        with self._lock:
            if not found.error:
                self.parent.keep(_fold_of(candidate, fold), asdict(found))
            run, _ = self._open[candidate.name]
            run.metrics({"fold_score": found.score}, step=fold)
            self._folds.setdefault(candidate.name, {})[fold] = found

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        """Records what the folds came to, and ends the run: the means of their epochs as curves, each in folds.json."""
        with self._lock:
            run, result = self._open.pop(candidate.name)
            found.run_id = run.run_id
            folds = self._folds.pop(candidate.name, {})
            for epoch, values in enumerate(zip_longest(*(folds[fold].epochs for fold in sorted(folds))), start=1):
                means = _means([each for each in values if each])
                run.metrics({name: means[name] for name in ("loss", "accuracy") if name in means}, step=epoch)
            run.text(json.dumps({fold: asdict(folds[fold]) for fold in sorted(folds)}, indent=2), "folds.json")
            run.metrics({"mean_score": found.mean, "std_score": found.std, "train_seconds": found.train_seconds})
            if error:
                result.status, result.error = FAILED, error
                run.text(error, "traceback.txt")
            else:
                run.tags({"mlplab.candidate": json.dumps(asdict(found))})
                run.tags(tracking.fingerprinted(self.prints[candidate.name]))
                run.keep("candidate", asdict(found))
            run.finish("FAILED" if error else "FINISHED")
            self.watch.ended(result)


class Family:
    """A variant's place in the store: the run of its one seed, or a run over those of its seeds, which has their means.

    The UI folds the seeds under it, and the charts of a comparison's runs show a curve a variant.
    """

    def __init__(
        self,
        parent: tracking.Run,
        variant: Variant,
        comparison: Comparison,
        data: Dataset,
        run: tracking.Run | None = None,
    ) -> None:
        self.variant, self.comparison, self.data = variant, comparison, data
        self.parent, self.run = parent, run
        names = list(comparison.variants)
        (colour, _) = figures.looks(names)[names.index(variant.name)]
        self._tags = {"mlplab.experiment": comparison.name, "mlplab.variant": variant.name, "mlflow.runColor": colour}
        self._tags |= _tags(data)
        self._params = {**variant.params(), "dataset": data.name}
        self.trained: list[tuple[Result, tracking.Run]] = []

    @classmethod
    def open(cls, parent: tracking.Run, variant: Variant, comparison: Comparison, data: Dataset) -> "Family":
        """A variant's place under the comparison's run."""
        made = cls(parent, variant, comparison, data)
        if len(comparison.each_seed) > 1:
            seeds = ",".join(map(str, comparison.each_seed))
            tags = made._tags | {"mlplab.kind": "variant"}
            made.parent = made.run = parent.child(variant.name, made._params | {"seeds": seeds}, tags, data)
        return made

    def turn(self, seed: int, device: Device, watch: Watch) -> None:
        """Trains the variant with a seed; or with all seeds at the first one's turn, and then times each at its own."""
        seeds = self.comparison.each_seed
        together = trial.side_by_side(self.variant, len(seeds), self.data)
        if not together or not self.trained:
            self.train(seeds if together else [seed], device, watch, together)
        result, run = self.trained[seeds.index(seed)]
        if together and not run.finished and result.status != FAILED:
            trial.time_alone(result, self.data, device)
            self._end(result, run)

    def recall(self, seed: int, watch: Watch) -> bool:
        """Takes a training that was over before the command went on; whether there was one."""
        kept = self.parent.recall(self._name(seed), "result")
        if kept:
            result = _kept(kept)
            self.trained.append((result, self.parent.adopt(self._name(seed), self.parent.resolved(result.run_id))))
            watch.recalled(result)
        return kept is not None

    def take(self, seed: int, outcome: "cluster.Outcome[tuple[dict[str, Any], list[np.ndarray]]]") -> Result:
        """Takes what a worker has trained; where it could not, a run here says why."""
        if outcome.error is None:
            result = _kept(outcome.get())
            run = self.parent.adopt(
                self._name(seed), result.run_id, "FAILED" if result.status == FAILED else "FINISHED"
            )
            if result.status != FAILED:
                _keep(result, run)
        else:
            result, run = self._open(seed)
            result.status, result.error = FAILED, "".join(traceback.format_exception(outcome.error))
            run.text(result.error, "traceback.txt")
            run.finish("FAILED")
        self.trained.append((result, run))
        return result

    def train(
        self,
        seeds: Sequence[int],
        device: Device,
        watch: Watch,
        together: bool = False,
        worker: Mapping[str, str] | None = None,
    ) -> None:
        """Trains the variant with seeds, each in a run of its own; what raises becomes failed results.

        Args:
            together: whether each is to be timed alone after it, and its run ended then.
            worker: tags that say where this is, on a worker that shares its machine with others.
        """
        data, select = self.data, self.comparison.select
        every = [self._open(seed) for seed in seeds]
        self.trained += every
        for result, run in every:
            if run.finished:
                watch.recalled(result)
        opened = [(result, run) for result, run in every if not run.finished]
        runs = {id(result): run for result, run in opened}
        if not opened:
            return

        def report(result: Result) -> None:
            # After the first epoch of one that goes on: what had not reached the journal, too, so that its points come
            # in order; the rest is not said twice.
            said = 0 if result.epochs == result.resumed_at + 1 else result.epochs - 1
            for epoch in range(said + 1, result.epochs + 1):
                runs[id(result)].metrics(_curves(result, epoch), step=epoch)
            watch.epoch(result)

        for result, run in opened:
            result.shared = worker is not None
            run.tags({LOAD: f"{SHARED}: {', core '.join(worker.values())}"} if worker is not None else {})
            watch.started(result)
        try:
            alone = [result for result, _ in opened]
            program = trial.program(self.comparison, data)
            fitted = trial.train(alone, select, data, device, report, [run for _, run in opened], program)
            for (result, run), model in zip(opened, fitted, strict=True):
                self._record(result, run, model)
        except Exception:
            for result, run in opened:
                result.status, result.error = FAILED, traceback.format_exc()
                run.text(result.error, "traceback.txt")
        for result, run in opened:
            if not together or result.status == FAILED:
                self._end(result, run)
            watch.ended(result)

    def _end(self, result: Result, run: tracking.Run) -> None:
        """What a training's run holds of it as a whole, once its seconds are known, and the run's end."""
        if result.status != FAILED:
            if result.resumed_at or math.isfinite(result.solo_epoch_seconds):
                # What had not reached the journal, or was not known before; nothing is said twice.
                for epoch in range(1, result.epochs + 1):
                    run.metrics(_curves(result, epoch), step=epoch)
            run.metrics(_summary(result))
            run.text(results.history_csv(result), "history.csv")
            run.text(replay.record(result, self.comparison.select, self.data), replay.RECORD)
        run.tags(_traits(result, self.comparison))
        if result.status != FAILED:
            _keep(result, run)
        run.finish("FAILED" if result.status == FAILED else "FINISHED")
        run.drop(trial.CHECKPOINT)

    def _open(self, seed: int) -> tuple[Result, tracking.Run]:
        variant = self.variant
        result = Result(variant=variant, seed=seed, steps_per_epoch=variant.steps_per_epoch(len(self.data.train)))
        tags = self._tags | {"mlplab.kind": "training"}
        run = self.parent.child(self._name(seed), self._params | {"seed": seed}, tags, self.data)
        if run.finished and (kept := run.kept("result")):
            result = _kept(kept)
        else:
            run.finished = False
        result.run_id = run.run_id
        return result, run

    def _name(self, seed: int) -> str:
        many = len(self.comparison.each_seed) > 1
        return f"seed {seed}: {self.variant.name}" if many else self.variant.name

    def _record(self, result: Result, run: tracking.Run, model: keras.Model) -> None:
        """What the trained model leaves in its run."""
        run.params({"parameters": result.parameters})
        run.text(_layers(model), "model_summary.txt")
        run.figure(figures.learning_curves(result, self.data.label), "learning_curves.png")
        run.file("model.keras", model.save)

    def conclude(self) -> None:
        """Ends the run over the seeds, with their means at each epoch and of the whole."""
        if self.run is None:
            return
        found = [result for result, _ in self.trained if result.status != FAILED]
        for epoch in range(1, max((result.epochs for result in found), default=0) + 1):
            means = _means([_curves(r, epoch) for r in found if r.epochs >= epoch])
            self.run.metrics({name: means[name] for name in CURVES if name in means}, step=epoch)
        if found:
            self.run.metrics(_means([_summary(result) for result in found]))
            if math.isfinite(found[0].group_seconds):
                self.run.metrics({"group_seconds": found[0].group_seconds})
            self.run.figure(figures.learning_curves(found, self.data.label), "learning_curves.png")
        self.run.finish("FAILED" if len(found) < len(self.trained) else "FINISHED")


def _keep(result: Result, run: tracking.Run) -> None:
    """Keeps a training that is over, so that the command need not train it again if it has to go on."""
    run.keep("result", result.to_dict(), result.weights or [])


def _kept(kept: tuple[dict[str, Any], list[np.ndarray]]) -> Result:
    """What `_keep` kept."""
    values, weights = kept
    result = Result.from_dict(values)
    result.weights = weights or None
    return result


@dataclass(frozen=True)
class _Task:
    """A training as a worker is told of it; `comparison` as JSON."""

    comparison: str
    variant: str
    seed: int
    data: "cluster.Reference"
    under: tracking.Place


class _Told:
    """Watches a training on a worker, and tells the process that waits for it."""

    def started(self, result: Result) -> None:
        """A training begins, perhaps anew after a worker's death."""
        from mlplab import cluster

        cluster.tell((result.variant.name, result.seed, None))

    def recalled(self, result: Result) -> None:
        """Nothing is recalled on a worker."""

    def epoch(self, result: Result) -> None:
        """An epoch is over."""
        from mlplab import cluster

        cluster.tell((result.variant.name, result.seed, {name: values[-1] for name, values in result.history.items()}))

    def ended(self, result: Result) -> None:
        """That it is over its outcome says."""


def _train(task: _Task) -> tuple[dict[str, Any], list[np.ndarray]]:
    """On a worker: trains in a run under the one that the task names; the result as `_keep` keeps it."""
    from mlplab import cluster

    comparison, data = Comparison.from_json(task.comparison), task.data.load()
    (variant,) = (variant for variant in comparison.resolved() if variant.name == task.variant)
    with tracking.under(task.under) as parent:
        family = Family(parent, variant, comparison, data)
        worker = cluster.place()
        family.train([task.seed], task.data.device(), _Told(), worker=worker)
        ((result, run),) = family.trained
    result.run_id = run.run_id
    return result.to_dict(), result.weights or []


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric that all have."""
    names = [name for name in each[0] if all(name in values for values in each)]
    return {name: statistics.fmean(values[name] for values in each) for name in names}


def _conclude(
    parent: tracking.Run,
    comparison: Comparison,
    data: Dataset,
    families: Sequence[Family],
    trained: Sequence[tuple[Result, tracking.Run]],
) -> list[Verdict]:
    """What the parent run says of its trainings: tables, figures, verdicts, winner; and the models worth serving."""
    found = [result for result, _ in trained]
    refusal = results.unpaired(found)
    many = len(comparison.variants) > 1 and not refusal
    verdicts = judge(results.measures(comparison, found), comparison.against) if many else []
    targets = results.targets(comparison, found)
    table = results.to_markdown(comparison, found)
    ranked = [o for o in results.rank(comparison, found) if math.isfinite(o.best(comparison.select)) and not o.failed]
    parent.text(results.to_csv(comparison, found), "comparison.csv")
    parent.text(table, "comparison.md")
    for metric in figures.METRICS:
        parent.figure(figures.comparison_curves(metric, found, data.label), f"{metric}.png")
    parent.figure(figures.training_times(found, data.label), "training_time.png")
    if rates := figures.learning_rates(found, comparison.select, data.label):
        parent.figure(rates, "learning_rates.png")
    _record_verdicts(parent, verdicts, targets, data)
    says = sentences(verdicts)
    if len(says) > MOST_SENTENCES:
        says = [f"{len(says)} verdicts are in verdicts.json."]
    if refusal:
        says = [f"No verdicts: {refusal}"]
    parent.tags({"mlflow.note.content": _note(parent, comparison, data, found, ranked, says, targets)})
    runs = {result.run_id: run for result, run in trained}
    _describe(comparison, ranked, runs, {family.variant.name: family.run for family in families})
    if not ranked:
        return verdicts
    winner = ranked[0]
    leads = winner.representative.run_id
    parent.tags({"winner": winner.variant.name, "winner.run_id": leads, "winner.metric": comparison.select})
    parent.metrics({f"winner_{comparison.select}": winner.best(comparison.select)})
    served = next((o for o in ranked if o.variant.optimizer == EXPORTED_OPTIMIZER), winner)
    for result in {id(o): o.representative for o in (winner, served)}.values():
        _log_model(runs[result.run_id], result, comparison, data)
    return verdicts


def _describe(
    comparison: Comparison,
    ranked: Sequence[Outcome],
    runs: Mapping[str, tracking.Run],
    over: Mapping[str, tracking.Run | None],
) -> None:
    """Says of each training's run, and of each variant's over its seeds, what it came to.

    A place among the variants is by the mean: it stands on the variant's run, and on none of its seeds.

    Args:
        runs: by the id of a training's run.
        over: name of a variant -> its run over the seeds, None where it has one seed.
    """
    select, of = comparison.select, f"of {len(comparison.variants)} in {comparison.name}"
    for place, outcome in enumerate(ranked, start=1):
        name, many = outcome.variant.name, len(comparison.each_seed)
        for result in (result for result in outcome.results if result.best_epoch):
            value = f"{select} {result.best(select):.4f} at epoch {result.best_epoch} of {result.epochs}"
            number = f"number {place} {of}" if many == 1 else f"seed {result.seed} of {name}, see the run above this"
            runs[result.run_id].tags({"mlflow.note.content": f"{value}: {number}"})
        if run := over[name]:
            mean, low, high = outcome.over_seeds(lambda result: result.best(select))
            interval = f" [{low:.4f}, {high:.4f}]" if math.isfinite(high - low) else ""
            state = f" ({outcome.state})" if outcome.state else ""
            value = f"{select} {mean:.4f}{interval}, mean of {many} seeds{state} at their best epochs"
            run.tags({"mlflow.note.content": f"{value}: number {place} {of} by the mean"})


def _record_verdicts(
    parent: tracking.Run, verdicts: Sequence[Verdict], targets: Sequence[Target], data: Dataset
) -> None:
    """Verdicts and times to targets as a JSON file and figures of the comparison's run."""
    said = {"verdicts": [asdict(verdict) for verdict in verdicts], "targets": [asdict(target) for target in targets]}
    parent.text(json.dumps(_finite(said), indent=2, allow_nan=False), "verdicts.json")
    for measure in dict.fromkeys(verdict.measure for verdict in verdicts if math.isfinite(verdict.low)):
        shown = [verdict for verdict in verdicts if verdict.measure == measure]
        parent.figure(figures.differences(shown, data.label), f"differences_{measure}.png")
    for metric, target in dict.fromkeys((target.metric, target.target) for target in targets):
        each = [found for found in targets if (found.metric, found.target) == (metric, target)]
        parent.figure(figures.reached(each, data.label), f"reached_{metric}_{target:g}.png")


def _finite(value: Any) -> Any:
    """`value` as strict JSON takes it: what is no finite number is null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _note(
    parent: tracking.Run,
    comparison: Comparison,
    data: Dataset,
    found: Sequence[Result],
    ranked: Sequence[Outcome],
    says: Sequence[str],
    targets: Sequence[Target],
) -> str:
    """The comparison's description, as Markdown for MLflow's UI."""

    def wide(cells: Sequence[Sequence[str]]) -> str:
        # The UI sets a table's cells without a space between them.
        return results.markdown([[f"{cell}&nbsp;&nbsp;" for cell in row] for row in cells])

    curves = tracking.curves_address(parent, f"best_{comparison.select}", not comparison.maximizes)
    parts = [
        f"**{comparison.question}**",
        wide(results.to_cells(comparison, found)),
        f"Best by {comparison.select}: **{ranked[0].variant.name}**." if ranked else "No variant has a result.",
        "\n".join(f"- {sentence}" for sentence in says),
        wide(results.target_cells(targets)) if targets else "",
        f"Note: {disturbance}." if (disturbance := results.disturbance(found)) else "",
        f"Data: {data.label}.",
        f"[Curves of the variants]({curves})",
        f"> **{data.notice}**" if data.notice else "",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def _log_model(run: tracking.Run, result: Result, comparison: Comparison, data: Dataset) -> None:
    model = models.build(result.variant, data.features, data.classes, result.seed)
    model.set_weights(result.weights)
    leads = {**_tags(data), "comparison": comparison.name, "variant": result.variant.name}
    example = data.test.x[:2].astype(np.float32)
    run.model(model, example, data.classes, leads | {"run_id": run.run_id})


# A run's page lists all metrics and tags, and a reader has to find the way among them: at most sixteen of either. What
# else is known of a training is in its artifacts: history.csv and training.json.


def _tags(data: Dataset) -> dict[str, str]:
    """Which data, which code and which machine, of every run."""
    return {"dataset": data.label, "dataset.digest": data.digest, **origin.tags()}


CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "train_eval_loss", "train_eval_accuracy", "train_seconds")


def _curves(result: Result, epoch: int) -> dict[str, float]:
    """The metrics of a training after an epoch; the learning rate where it does not stay what the params say."""
    names = [*CURVES, *(["learning_rate"] if result.variant.decay else [])]
    return {name: result.history[name][epoch - 1] for name in names if name in result.history}


def _summary(result: Result) -> dict[str, float]:
    """The metrics of a training as a whole: values at the best epoch, the test set's there, and the other clocks.

    What a curve has last the store shows as that curve's value.
    """
    found = {f"test_{name}": value for name, value in result.test.items()}
    if result.best_epoch:
        found |= {"best_epoch": result.best_epoch, "gap": result.gap}
        found |= {f"best_{metric}": result.best(metric) for metric in SELECTION_METRICS}
    return {**found, "compile_seconds": result.compile_seconds, "evaluate_seconds": result.evaluate_seconds}


def _traits(result: Result, comparison: Comparison) -> dict[str, str]:
    """What a training's run is tagged with when it is over."""
    start = trial.digest([value.encode() for value in result.start.values()])
    tags = {"mlplab.status": result.status, "weights.start": start, "weights.end": result.end}
    tags |= {"batch_order": result.order or "one batch", "program": result.program}
    tags |= {"mlplab.resumed_at": f"epoch {result.resumed_at}"} if result.resumed_at else {}
    if result.disturbed and not result.shared:
        tags[LOAD] = f"busy: other processes kept {result.busy:.1f} cores"
    reached = []
    for metric, target in comparison.targets.items():
        when = results.reaching(result, metric, target)
        how = f"after {when.epochs} epochs ({when.steps:,} steps)" if when.reached else f"not in {when.epochs} epochs"
        reached.append(f"{metric} {target:g} {how}")
    return {**tags, "reached": "; ".join(reached)} if reached else tags


def _layers(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    return "\n".join(lines) + "\n"
