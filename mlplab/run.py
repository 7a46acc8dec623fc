"""The whole story: an experiment and its data become trainings, and the trainings a record in the tracking store."""

import functools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from mlplab import across_runs, labels, lookup, marks, origin, page, trial, tuning
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.comparison_runs import run_comparison
from mlplab.data import Dataset
from mlplab.folds import fold_of_example
from mlplab.loading import Experiment, Options, Prediction, data_of, known, load_experiment
from mlplab.of_records import overview, predict
from mlplab.records import Record
from mlplab.sources import Data
from mlplab.space import Search
from mlplab.spec import Training
from mlplab.store import pages
from mlplab.store.command import parent_run
from mlplab.store.runs import Run
from mlplab.trial import Checked, Device, ProgressListener


class Screen(Protocol):
    """Whom a lab tells what it does."""

    def experiment(
        self, experiment: Comparison | Search, data: Dataset, variants: Sequence[Training]
    ) -> AbstractContextManager[ProgressListener]:
        """An experiment begins; what is yielded watches its trainings."""

    def recorded(self, record: Record) -> None:
        """An experiment is over, or was found on record."""

    def failed(self, name: str, error: str) -> None:
        """One of several experiments raised; the others go on."""

    def notice(self, text: str) -> None:
        """Something a person should know of where the record goes."""

    def page(self, place: str) -> None:
        """A comparison's page is recorded, and is there."""


class Lab:
    """Runs experiments, each in an MLflow run, and finds those that are on record already.

    Args:
        load: gives the data set that an experiment is about.
        options: changes made to every experiment.
        jobs: trainings at a time, each in a process of this machine; 1: in this process.
        cluster: where they are carried out instead, see `mlplab.cluster.workers`.
    """

    def __init__(
        self,
        load: Callable[[Data], Dataset],
        screen: Screen,
        options: Options,
        jobs: int = 1,
        cluster: str | None = None,
    ) -> None:
        self.options, self.jobs, self.cluster, self._load, self._screen = options, jobs, cluster, load, screen
        self.records: dict[str, Record] = {}
        self._data: dict[Data, tuple[Dataset, Device]] = {}
        self._checked: dict[str, Checked] = {}

    def run(self, experiment: Experiment) -> tuple[Record, str, str]:
        """Runs an experiment anew; experiments that it needs are found on record, or run under it.

        Returns:
            What came out, the command that opens the UI on the store, and the run's page there.

        Raises:
            UsageError: it needs an experiment that is not there, or a variant's model cannot be trained on the data.
            UnavailableError: the data or the tracking store are not to be had.
            UndeliveredError: the store did not take everything; it waits on disk.
        """
        for wanted in data_of(experiment):
            self._data_of(wanted)
        across_runs.check_distinct(experiment, self.dataset)
        for one in known(experiment):
            with across_runs.naming(one, experiment):
                self._check(one)
        command = self._command(experiment)
        tags = labels.of_kind(experiment)
        title = self._title(experiment)
        with parent_run(title, tags, None, command, self._screen.notice) as run:
            record = self._perform(experiment, run)
        if isinstance(experiment, Comparison):
            self._screen.page(pages.artifact_place(run, page.NAME))
        for each in self.records.values():
            each.name_runs(run.resolved)
        return record, *pages.address(run)

    def dataset(self, data: Data) -> Dataset:
        """A data set as it was loaded."""
        return self._data_of(data)[0]

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
        for wanted in (one for each in experiments for one in data_of(load_experiment(each))):
            self._data_of(wanted)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the {name}'s folder {folder} cannot be made: {error}; name another.") from error
        started = time.perf_counter()
        command = self._command(*(self.options.adapt(load_experiment(each)) for each in experiments))
        tags = {"mlplab.experiment": name, "mlplab.kind": name}
        title = f"{name} · {len(experiments)} experiments"
        with parent_run(title, tags, None, command, self._screen.notice) as run:
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
        for record in self.records.values():
            record.name_runs(run.resolved)
        return self.records, *pages.address(run)

    def _title(self, experiment: Experiment) -> str:
        return labels.title(experiment, [self.dataset(wanted) for wanted in data_of(experiment)])

    def _command(self, *experiments: Experiment) -> str:
        """What is to be done, in a word that differs with whatever decides the numbers."""
        every = [
            [self._fingerprint(each) for each in known(experiment)]
            or [repr(experiment), *(self.dataset(wanted).digest for wanted in data_of(experiment))]
            for experiment in experiments
        ]
        return labels.digest([every, asdict(self.options), [experiment.name for experiment in experiments]])

    def _fingerprint(self, experiment: Comparison | Search) -> str:
        """What decides an experiment's numbers; of models of one's own what was built counts, too."""
        if len(apart := known(experiment)) > 1:
            return labels.digest([self._fingerprint(each) for each in apart])
        trainings = experiment.resolved() if isinstance(experiment, Comparison) else (experiment.base,)
        own = any(not each.model.target.startswith("mlplab.") for each in trainings)
        configs = self._check(experiment).configs if own else None
        return labels.fingerprint(experiment, self._data_of(experiment.data)[0], configs)

    def _check(self, experiment: Comparison | Search) -> Checked:
        """Builds, compiles and runs for no step whatever an experiment is to train, once."""
        alike = experiment.with_seeds(experiment.each_seed[:1]) if isinstance(experiment, Comparison) else experiment
        if (key := alike.to_json()) not in self._checked:
            data, device = self._data_of(experiment.data)
            if isinstance(experiment, Comparison):
                metrics = [*experiment.judged, *map(experiment.target, experiment.targets)]
                of = tuning.checked(experiment, data, self.jobs, self.cluster), metrics, experiment.each_seed[0]
            else:
                fold_of_example(data, experiment.folds, experiment.seed)
                of = experiment.corners(), [], experiment.seed
            self._checked[key] = trial.check(*of, data, device)
        return self._checked[key]

    def _data_of(self, wanted: Data) -> "tuple[Dataset, Device]":
        """A data set, loaded once; first of all, so that what is missing or damaged is said before a run starts."""
        if wanted not in self._data:
            data = self._load(wanted)
            self._data[wanted] = data, Device.of(data)
        return self._data[wanted]

    def _need(self, wanted: str | Comparison, parent: Run) -> Record:
        """The record of an experiment: met before, found in the store, or run now under `parent`."""
        name = wanted if isinstance(wanted, str) else wanted.name
        if name in self.records:
            return self.records[name]
        experiment = self.options.adapt(load_experiment(wanted)) if isinstance(wanted, str) else wanted
        if isinstance(experiment, Comparison):
            experiment = self._with_winners(experiment, parent)
        if isinstance(experiment, Comparison | Search):
            found = parent.find(self._fingerprint(experiment))
            text = lookup.read_artifact(found.run_id, "record.json") if found else None
            if found and text:
                record = Record.from_json(text, experiment, found.run_id)
                self.records[name] = record
                self._screen.recorded(record)
                return record
        tags = {**labels.of_kind(experiment), **origin.tags()}
        run = parent.child(name, {}, tags, title=self._title(experiment))
        try:
            return self._perform(experiment, run)
        except BaseException as error:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _with_winners(self, comparison: Comparison, parent: Run) -> Comparison:
        for variant, name in comparison.searches.items():
            record = self._need(name, parent)
            if record.search is None:
                raise UsageError(f"variant {variant!r} is the winner of {name!r}, which is no Search.")
            comparison = comparison.with_choices(variant, record.search.best.choices)
        return comparison

    def _perform(self, experiment: Experiment, run: Run) -> Record:
        """Does an experiment in `run`, and ends that."""
        if isinstance(experiment, Comparison):
            experiment = self._with_winners(experiment, run)
        needed = [self._need(name, run) for name in getattr(experiment, "needs", ())]
        started = time.perf_counter()
        if needed and isinstance(experiment, Comparison):  # on several data sets
            record = across_runs.run_across(experiment, needed, self.dataset, run, self._fingerprint(experiment))
        elif isinstance(experiment, Comparison | Search):
            record = self._train(experiment, run)
        elif isinstance(experiment, Prediction):
            data = self.dataset(*data_of(experiment))
            record = Record.of(experiment, data, predictions=predict(experiment, needed[0], data, run))
        else:
            overview(experiment, needed, run)
            record = Record(experiment=experiment, data=needed[0].data, notice=needed[0].notice)
        record.seconds = time.perf_counter() - started
        record.run_id = run.run_id
        run.text(record.to_json(), "record.json")
        run.metrics({"seconds": record.seconds})
        run.finish("FAILED" if record.failed else "FINISHED")
        self.records[experiment.name] = record
        self._screen.recorded(record)
        return record

    def _train(self, experiment: Comparison | Search, run: Run) -> Record:
        data, device = self._data_of(experiment.data)
        run.tags({**labels.above(data.label), **marks.fingerprinted(self._fingerprint(experiment))})
        where = functools.partial(self._screen.experiment, experiment, data), self.jobs, self.cluster
        if isinstance(experiment, Comparison):
            question = labels.digest(["question", self._fingerprint(experiment.with_seeds(experiment.each_seed[:1]))])
            experiment, tried = tuning.tuned(experiment, data, run, *where)
            told = *where, question, self._screen.notice, tried
            return run_comparison(experiment, data, device, self._check(experiment).programs, run, *told)
        from mlplab.search_runs import run_search  # scikit-learn and joblib take long to import

        return Record.of(experiment, data, search=run_search(experiment, data, device, run, *where))
