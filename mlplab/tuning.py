"""How variants are tuned before they are compared: in the store a run for each, its trials below it.

A trial is a training like any other, by the same path: journal, checkpoints, workers. All trials have one seed, which
is none of the comparison's, and one part of the training examples to be scored on, see `mlplab.folds`.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from mlplab import labels, marks, search_figures, tables
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import for_seed
from mlplab.records import Trial, Tuning, choice_text
from mlplab.results import FAILED, FINISHED, PRUNED, Result
from mlplab.seed_group import SeedGroup, spreading
from mlplab.space import Space
from mlplab.spec import Metric, Training
from mlplab.store.runs import Run
from mlplab.trial import Device, ProgressListener

REDUCTION, FIRST_SHARE = 2, 8
"""Halving stops a trial that is not among the better half of those so far, first after an eighth of its epochs."""


def checked(comparison: Comparison, data: Dataset, jobs: int, address: str | None) -> tuple[Training, ...]:
    """The trainings by which is seen, before there is a run, whether a comparison's variants and trials can be built.

    Args:
        jobs, address: where trainings are carried out, see `mlplab.cluster.workers`.

    Raises:
        UsageError: the variants are to be tuned and cannot be, on these data or here.
    """
    if not comparison.untuned:
        return comparison.resolved()
    assert comparison.tune is not None
    for_seed(_Tuned.cut_as(comparison), data, comparison.tuning_seed)
    if comparison.tune.halving:
        if jobs > 1 or address is not None:
            raise UsageError(
                "tune has halving=True, which goes by the trials before each one, but workers train side by side; "
                "legal: jobs=1 without a cluster, or halving=False."
            )
        if importlib.util.find_spec("optuna") is None:
            raise UsageError(
                "tune has halving=True, which needs Optuna, which is not installed; legal: with the extra tune (pip "
                "install 'mlplab[tune]'), or halving=False."
            )
    return comparison.corners()


def tuned(
    comparison: Comparison,
    data: Dataset,
    run: Run,
    watching: Callable[[Sequence[Training]], AbstractContextManager[ProgressListener]],
    jobs: int,
    address: str | None,
) -> tuple[Comparison, Tuning | None]:
    """The comparison with what the trials of its variants chose, trained in `run`; as it is where none is to be tuned.

    Trials that are on record are not trained again.

    Args:
        watching: begins to show the trials, and ends it.
        jobs, address: where they are carried out, see `mlplab.cluster.workers`.

    Raises:
        RuntimeError: every trial of a variant failed.
    """
    if not comparison.untuned:
        return comparison, None
    seed = comparison.tuning_seed
    variants = [_Tuned(name, space, comparison, data, run) for name, space in comparison.spaces.items()]
    # Trial after trial, so that the variants are equally far at any time.
    turns = [
        (one, group)
        for groups in zip(*(one.groups for one in variants), strict=True)
        for one, group in zip(variants, groups, strict=True)
        if group is not None
    ]
    with watching([group.variant for _, group in turns]) as watch:
        if jobs > 1 or address is not None:
            with spreading(comparison, data, watch, jobs, address) as spread:
                spread([(group, seed) for _, group in turns])
        elif turns:
            cut = for_seed(turns[0][1].variant, data, seed)
            device = Device.of(cut)
            for one, group in turns:
                group.train([seed], device, one.watched(watch), cut=cut)
                group.trained[0][0].weights = None  # a trial is asked for its numbers alone
    found = Tuning(trials={one.name: one.conclude() for one in variants}, metric=comparison.metric)
    for one in variants:
        one.describe(found)
    run.figure(search_figures.tuned_budget(found, data.label), "budget.png")
    return comparison.with_chosen(found.chosen), found


class _Tuned:
    """A variant's trials, and the run over them.

    Attributes:
        trainings: of each trial, in the order they are drawn.
        groups: what trains each; None where the trial is on record.
    """

    def __init__(self, name: str, space: Space, comparison: Comparison, data: Dataset, run: Run) -> None:
        assert comparison.tune is not None
        self.name, self.experiment = name, comparison.name
        self.metric, self.seed = comparison.metric, comparison.tuning_seed
        self.choices = comparison.tune.draw(space, self.seed)
        base = space.base.but(splits=self.cut_as(comparison).splits)
        # The store takes names of so many letters.
        self.trainings = [
            base.but({**choices, "name": f"trial {place}: {name}"[:100]})
            for place, choices in enumerate(self.choices, start=1)
        ]
        trials = Comparison(
            name=comparison.name,
            question=comparison.question,
            data=comparison.data,
            base=base,
            variants={each.name: choices for each, choices in zip(self.trainings, self.choices, strict=True)},
            select=comparison.metric,
            seeds=(self.seed,),
        )
        params = {**space.base.params(), "trials": comparison.tune.trials, "seed": self.seed, "dataset": data.name}
        tags = {"mlplab.experiment": comparison.name, "mlplab.kind": "tuning", **labels.of_data(data)}
        self.run = run.child(f"tuning: {name}", params, tags, data)
        self.halving = _Halving(self.metric, base.epochs) if comparison.tune.halving else None
        self.known: list[Trial | None] = []
        self.groups: list[SeedGroup | None] = []
        # Where trials decide on one another, each hangs on those before it, and none is taken from elsewhere.
        self.prints = ["" if self.halving else labels.trial_fingerprint(comparison, t, data) for t in self.trainings]
        for training, fingerprint in zip(self.trainings, self.prints, strict=True):
            self.known.append(self._recorded(training, fingerprint) if fingerprint else None)
            self.groups.append(None if self.known[-1] else SeedGroup.open(self.run, training, trials, data))

    @staticmethod
    def cut_as(comparison: Comparison) -> Training:
        """A training on the examples that trials have."""
        return comparison.base.but(splits=f"tuning:{comparison.tuning_seed}")

    def _recorded(self, training: Training, fingerprint: str) -> Trial | None:
        """A trial that is on record in another run; one of this command is gone on with as any training is."""
        if self.run.recall(training.name, "result") or not (found := self.run.find(fingerprint)):
            return None
        known = Trial(**json.loads(found.tags["mlplab.trial"]))
        known.run_id = found.run_id
        self.run.copy_run(training.name, found, {"mlplab.experiment": self.experiment, "mlplab.variant": training.name})
        return known

    def watched(self, watch: ProgressListener) -> ProgressListener:
        """Who is told of a trial: with halving somebody who may have it end."""
        return self.halving.beside(watch) if self.halving else watch

    def conclude(self) -> list[Trial]:
        """The trials, each on record with what it came to.

        Raises:
            RuntimeError: every one of them failed.
        """
        trials: list[Trial] = []
        errors: list[str] = []
        for choices, known, group, fingerprint in zip(self.choices, self.known, self.groups, self.prints, strict=True):
            if known is None:
                assert group is not None
                ((result, run),) = group.trained
                known = Trial.of(choices, result, self.metric)
                errors += [result.error] * (result.status == FAILED)
                if result.status != FAILED and fingerprint:
                    run.tags({"mlplab.trial": json.dumps(known.to_dict()), **marks.fingerprinted(fingerprint)})
            trials.append(known)
        if len(errors) == len(trials):
            raise RuntimeError(f"all {len(trials)} trials of variant {self.name!r} failed. The first:\n{errors[0]}")
        return trials

    def describe(self, found: Tuning) -> None:
        """What the run over the trials says, and its end."""
        best, trials = found.best(self.name), found.trials[self.name]
        self.run.params({f"best.{name}": choice_text(value) for name, value in best.choices.items()})
        self.run.metrics({f"best_{self.metric.name}": best.score})
        says = ", ".join(f"{name} {choice_text(value)}" for name, value in best.choices.items())
        table = tables.markdown(tables.trial_cells(found, self.name))
        note = (
            f"Chosen of {len(trials)} trials by {self.metric.words} on training examples that trials were not trained "
            f"on: **{says}**.\n\n{table}"
        )
        self.run.tags({"mlflow.note.content": note})
        self.run.finish("FAILED" if any(trial.status == FAILED for trial in trials) else "FINISHED")


class _Halving:
    """Has trials end that are worse than half of those before them were after as many epochs; Optuna decides.

    By the order of the trials alone: those that are on record from before an interruption decide as they did then.
    """

    def __init__(self, metric: Metric, epochs: int) -> None:
        import optuna

        self.metric = metric
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self.study = optuna.create_study(
                sampler=optuna.samplers.RandomSampler(seed=0),  # nothing is drawn by it
                pruner=optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=max(1, epochs // FIRST_SHARE), reduction_factor=REDUCTION
                ),
                direction="maximize" if metric.maximizes else "minimize",
            )
        finally:
            optuna.logging.set_verbosity(before)
        self.trial: Any = None
        self.told = 0
        self.watch: ProgressListener

    def beside(self, watch: ProgressListener) -> "_Halving":
        """This, which tells `watch` all that it is told."""
        self.watch = watch
        return self

    def started(self, result: Result) -> None:
        """A trial begins, or goes on."""
        self.trial, self.told = self.study.ask(), 0
        self.watch.started(result)

    def recalled(self, result: Result) -> None:
        """A trial was over before the command went on."""
        self.trial, self.told = self.study.ask(), 0
        self._tell(result)
        self._end(result)
        self.watch.recalled(result)

    def epoch(self, result: Result) -> None:
        """An epoch is over; perhaps the trial's last."""
        if self._tell(result) and result.status == FINISHED and result.epochs < result.variant.epochs:
            result.status = PRUNED
        self.watch.epoch(result)

    def ended(self, result: Result) -> None:
        """A trial is over."""
        self._end(result)
        self.watch.ended(result)

    def scored(self, candidate: str, mean: float) -> None:
        """No trial is scored over folds."""

    def _tell(self, result: Result) -> bool:
        """Tells of the epochs that are new, the best so far of each; whether the trial is to end after the last."""
        values, prune = result.history.get(self.metric.name, []), False
        for epoch in range(self.told + 1, len(values) + 1):
            best = values[0]
            for value in values[1:epoch]:
                best = value if self.metric.better(value, best) else best
            self.trial.report(best, epoch)
            prune = self.trial.should_prune()
        self.told = len(values)
        return prune

    def _end(self, result: Result) -> None:
        from optuna.trial import TrialState

        finished = result.status == FINISHED
        value = result.best(self.metric.name) if finished else None
        self.study.tell(self.trial, value, TrialState.COMPLETE if finished else TrialState.PRUNED)
