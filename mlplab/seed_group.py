"""A variant's trainings, one a seed, and what each leaves in its run."""

import contextlib
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from mlplab import drawing, evaluations, figures, labels, replay, results, tables, trial, worker
from mlplab.calls import Call
from mlplab.checks import UnavailableError
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import fold_number, for_seed, is_trial
from mlplab.results import FAILED, Result
from mlplab.spec import Metric, Training
from mlplab.store.command import under
from mlplab.store.runs import Found, ParentRef, Run
from mlplab.trial import Device, ProgressListener

CARRIED_BYTES = 2**28
"""Data of a user's own travel to Dask's workers, once to each, up to so much; more they have to load themselves."""


class SeedGroup:
    """A variant's place in the store: the run of its one seed, or a run over those of its seeds, which has their means.

    The UI folds the seeds under it, and the charts of a comparison's runs show a curve a variant.
    """

    def __init__(
        self,
        parent: Run,
        variant: Training,
        comparison: Comparison,
        data: Dataset,
        program: str | None = None,
        run: Run | None = None,
    ) -> None:
        self.variant, self.comparison, self.data, self.program = variant, comparison, data, program
        self.parent, self.run = parent, run
        names = list(comparison.variants)
        (colour, _) = drawing.looks(names)[names.index(variant.name)]
        self._kind = "trial" if is_trial(variant) else "training"
        self._tags = {"mlplab.experiment": comparison.name, "mlplab.variant": variant.name, "mlflow.runColor": colour}
        self._tags |= labels.of_data(data)
        self._params = {**variant.params(), "dataset": data.name}
        if trial.measured(variant) and (said := evaluations.words(variant.epochs)):
            self._params["train_eval"] = f"{said}, the first, the best and the last"
        self.trained: list[tuple[Result, Run]] = []

    @classmethod
    def open(
        cls, parent: Run, variant: Training, comparison: Comparison, data: Dataset, program: str | None = None
    ) -> "SeedGroup":
        """A variant's place under the comparison's run; `program` trains it, see `training.fit`."""
        made = cls(parent, variant, comparison, data, program)
        if len(comparison.each_seed) > 1:
            seeds = str(comparison.seeds) if comparison.looks else ",".join(map(str, comparison.each_seed))
            tags = made._tags | {"mlplab.kind": "variant"}
            made.parent = made.run = parent.child(variant.name, made._params | {"seeds": seeds}, tags, data)
        return made

    @property
    def seeds(self) -> list[int]:
        """The seeds that it has been trained with, as far as is known here."""
        return [result.seed for result, _ in self.trained]

    def train_next(self, seed: int, seeds: Sequence[int], device: Device, watch: ProgressListener) -> None:
        """Trains the variant with a seed; or with all of `seeds` at the first one's turn, each timed at its own."""
        together = trial.side_by_side(self.variant, len(seeds), self.data)
        if seed not in self.seeds:
            self.train(seeds if together else [seed], device, watch, together)
        result, run = self.trained[self.seeds.index(seed)]
        if together and not run.finished and result.status != FAILED:
            trial.time_alone(result, self.data, device)
            self._end(result, run)

    def recall(self, seed: int, watch: ProgressListener) -> bool:
        """Takes a training that was over before the command went on; whether there was one."""
        kept = self.parent.recall(self._name(seed), "result")
        if kept:
            result = _kept(kept)
            self.trained.append((result, self.parent.adopt(self._name(seed), self.parent.resolved(result.run_id))))
            watch.recalled(result)
        return kept is not None

    def reuse(self, earlier: Result, watch: ProgressListener) -> None:
        """Takes a training from the record of an earlier command: its run is repeated under this one's."""
        name = self._name(earlier.seed)
        run = self.parent.copy_run(name, Found(earlier.run_id, {}), self._tags)
        result = replace(earlier, run_id=run.run_id, variant=self.variant, select=self.comparison.metric.name)
        _keep(result, run)
        self.trained.append((result, run))
        watch.recalled(result)

    def take(self, seed: int, outcome: "worker.TaskResult[tuple[dict[str, Any], list[np.ndarray]]]") -> Result:
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
        watch: ProgressListener,
        together: bool = False,
        where: Mapping[str, str] | None = None,
        cut: Dataset | None = None,
    ) -> None:
        """Trains the variant with seeds, each in a run of its own; what raises becomes failed results.

        Args:
            together: whether each is to be timed alone after it, and its run ended then.
            where: tags that say where this is, on a worker that shares its machine with others.
            cut: the examples as the variant sees them with these seeds, where `device` has those; None: they are yet to
                be cut from its data.
        """
        data = self.data if cut is None else cut
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
            result.shared = where is not None
            result.steps_per_epoch = self.variant.steps_per_epoch(len(data.train))
            run.tags({labels.LOAD: f"{labels.SHARED}: {', core '.join(where.values())}"} if where is not None else {})
            watch.started(result)
        began = time.perf_counter()
        try:
            alone = [result for result, _ in opened]
            if self.variant.splits != "fixed" and cut is None:
                # A split of its own for each seed, the same for all variants; so seeds are trained one at a time.
                data = for_seed(self.variant, data, seeds[0])
                device = Device.of(data)
            stores = [run for _, run in opened]
            fitted = trial.train(alone, self.comparison.metric, data, device, report, stores, self.program)
            for (result, run), model in zip(opened, fitted, strict=True):
                self._record(result, run, model)
            # One that went on after an interruption has clocks from before it, too.
            spent = max(0.0, time.perf_counter() - began - _on_clocks(alone))
            for result in alone:
                result.other_seconds = spent / len(alone)
        except Exception:
            for result, run in opened:
                result.status, result.error = FAILED, traceback.format_exc()
                run.text(result.error, "traceback.txt")
        for result, run in opened:
            if not together or result.status == FAILED:
                self._end(result, run)
            watch.ended(result)

    def _end(self, result: Result, run: Run) -> None:
        """What a training's run holds of it as a whole, once its seconds are known, and the run's end."""
        if result.status != FAILED:
            # What had not reached the journal, or was not known before; nothing is said twice.
            late: Sequence[int] = ()
            if result.resumed_at or math.isfinite(result.solo_epoch_seconds):
                late = range(1, result.epochs + 1)
            elif evaluations.words(self.variant.epochs):
                late = sorted({result.best_epoch or result.epochs, result.epochs})
            for epoch in late:
                run.metrics(_curves(result, epoch), step=epoch)
            run.metrics(_summary(result, self.comparison))
            run.text(tables.history_csv(result), "history.csv")
            run.text(replay.record(result, self.comparison, self.data), replay.RECORD)
        run.tags(_traits(result, self.comparison))
        if result.status != FAILED:
            _keep(result, run)
        run.finish("FAILED" if result.status == FAILED else "FINISHED")
        run.drop(trial.CHECKPOINT)

    def _open(self, seed: int) -> tuple[Result, Run]:
        variant = self.variant
        steps, select = variant.steps_per_epoch(len(self.data.train)), self.comparison.metric.name
        result = Result(variant=variant, seed=seed, steps_per_epoch=steps, select=select)
        tags = self._tags | {"mlplab.kind": self._kind}
        run = self.parent.child(self._name(seed), self._params | {"seed": seed}, tags, self.data)
        if run.finished and (kept := run.kept("result")):
            result = _kept(kept)
        else:
            run.finished = False
        result.run_id = run.run_id
        return result, run

    def _name(self, seed: int) -> str:
        if (fold := fold_number(self.variant, seed)) is not None:
            return f"fold {fold}: {self.variant.name}"
        many = len(self.comparison.each_seed) > 1
        return f"seed {seed}: {self.variant.name}" if many else self.variant.name

    def _record(self, result: Result, run: Run, model: keras.Model) -> None:
        """What the trained model leaves in its run."""
        run.params({"parameters": result.parameters})
        if is_trial(self.variant):  # of many, asked for its numbers alone: what training it costs is all it may cost
            return
        run.text(_layers(model), "model_summary.txt")
        run.figure(figures.learning_curves(result, self.data.label, self._curves()), "learning_curves.png")
        run.file("model.keras", model.save)

    def _curves(self) -> list[Metric]:
        """The metrics that this variant's figures show; of a fold, which is scored once, what was logged."""
        return tables.shown_metrics(self.comparison) if trial.measured(self.variant) else []

    def conclude(self) -> None:
        """Ends the run over the seeds, with their means at each epoch and of the whole."""
        if self.run is None:
            return
        found = [result for result, _ in self.trained if result.status != FAILED]
        for epoch in range(1, max((result.epochs for result in found), default=0) + 1):
            means = means_of([_curves(r, epoch) for r in found if r.epochs >= epoch])
            self.run.metrics({name: value for name, value in means.items() if name != "learning_rate"}, step=epoch)
        if found and found[0].history:
            self.run.metrics(means_of([_summary(result, self.comparison) for result in found]))
            if math.isfinite(found[0].group_seconds):
                self.run.metrics({"group_seconds": found[0].group_seconds})
            self.run.figure(figures.learning_curves(found, self.data.label, self._curves()), "learning_curves.png")
        self.run.finish("FAILED" if len(found) < len(self.trained) else "FINISHED")


def _on_clocks(found: Sequence[Result]) -> float:
    """Seconds that trainings, alone or side by side, have on their clocks together."""
    together = {result.group_seconds for result in found if math.isfinite(result.group_seconds)}
    trained = sum(together) or sum(result.train_seconds for result in found)
    return trained + sum(result.evaluate_seconds + result.compile_seconds for result in found)


def _keep(result: Result, run: Run) -> None:
    """Keeps a training that is over, so that the command need not train it again if it has to go on."""
    run.keep("result", result.to_dict(), result.weights or [])


def _kept(kept: tuple[dict[str, Any], list[np.ndarray]]) -> Result:
    """What `_keep` kept."""
    values, weights = kept
    result = Result.from_dict(values)
    result.weights = weights or None
    return result


@dataclass(frozen=True, eq=False)
class _Task:
    """A training as a worker is told of it."""

    comparison: Comparison
    variant: Training
    program: str | None
    seed: int
    data: "worker.Reference"
    under: ParentRef


class _TellingListener:
    """Watches a training on a worker, and tells the process that waits for it."""

    def started(self, result: Result) -> None:
        """A training begins, perhaps anew after a worker's death."""
        worker.tell((result.variant.name, result.seed, None))

    def recalled(self, result: Result) -> None:
        """Nothing is recalled on a worker."""

    def epoch(self, result: Result) -> None:
        """An epoch is over."""
        worker.tell((result.variant.name, result.seed, {name: values[-1] for name, values in result.history.items()}))

    def ended(self, result: Result) -> None:
        """That it is over its outcome says."""

    def scored(self, candidate: str, mean: float) -> None:
        """Nothing is scored on a worker."""


def _train(task: _Task) -> tuple[dict[str, Any], list[np.ndarray]]:
    """On a worker: trains in a run under the one that the task names; the result as `_keep` keeps it."""
    with under(task.under) as parent:
        family = SeedGroup(parent, task.variant, task.comparison, task.data.load(), task.program)
        family.train([task.seed], task.data.device(), _TellingListener(), where=worker.place())
        ((result, run),) = family.trained
    result.run_id = run.run_id
    return result.to_dict(), result.weights or []


@contextlib.contextmanager
def spreading(
    comparison: Comparison, data: Dataset, watch: ProgressListener, jobs: int, address: str | None
) -> Iterator[Callable[[Sequence[tuple[SeedGroup, int]]], None]]:
    """Has workers ready while the block lasts; what it gives has them train groups' seeds, and takes what they come to.

    Args:
        jobs, address: where they are, see `mlplab.cluster.workers`.

    Returns:
        Called with groups and seeds in the order in which they are to be trained, it returns when all are.

    Raises:
        UnavailableError: what cannot be helped from here kept some from being trained: no scheduler, no worker, no data
            there. What could be trained is; the rest is when the command is given again.
    """
    from mlplab import cluster

    described = comparison.data.without_arrays()
    # Ready-made data are on the disks of all workers, as what is too large to travel has to be. Processes of this
    # machine find everything where this one does, but for arrays that are nowhere else.
    bare = described is not comparison.data
    sent = bare or (address is not None and described.kind != "ready" and data.bytes <= CARRIED_BYTES)
    reference = worker.Reference.to(described, data, carried=sent)
    shown: dict[tuple[str, int], Result] = {}

    def on_message(message: Any) -> None:
        variant, seed, values = message
        result = shown[variant, seed]
        if values is None:
            result.history.clear()
            watch.started(result)
        else:
            result.add(values)
            watch.epoch(result)

    with cluster.workers(address, jobs, on_message, [data] if sent else []) as workers:

        def carry_out(turns: Sequence[tuple[SeedGroup, int]]) -> None:
            for group, seed in turns:
                steps = group.variant.steps_per_epoch(len(data.train))
                shown[group.variant.name, seed] = Result(variant=group.variant, seed=seed, steps_per_epoch=steps)
            asked = {
                id(group): replace(group.comparison, data=described) if bare else group.comparison for group, _ in turns
            }
            tasks = {
                _Task(asked[id(group)], group.variant, group.program, seed, reference, group.parent.parent_ref): group
                for group, seed in turns
                if not group.recall(seed, watch)
            }
            unavailable: UnavailableError | None = None
            for task, outcome in workers.map(_train, tasks):
                if isinstance(outcome.error, UnavailableError) and not isinstance(
                    outcome.error, cluster.WorkerDiedError
                ):
                    # Not the training's own fault: it is trained when the command is given again.
                    unavailable = unavailable or outcome.error
                else:
                    watch.ended(tasks[task].take(task.seed, outcome))
            if unavailable is not None:
                said = "What was trained is kept: the same command, given again, trains the rest."
                raise UnavailableError(f"{unavailable} {said}") from unavailable
            for group, _ in turns:
                group.trained.sort(key=lambda each: group.comparison.each_seed.index(each[0].seed))

        yield carry_out


def means_of(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric that all have."""
    names = [name for name in each[0] if all(name in values for values in each)]
    return {name: statistics.fmean(values[name] for values in each) for name in names}


# A run's page lists all metrics and tags, and a reader has to find the way among them: at most sixteen of either where
# the model logs a loss and one metric. What else is known of a training is in its artifacts: history.csv and
# training.json.
def _curves(result: Result, epoch: int) -> dict[str, float]:
    """What was measured of a training after an epoch; the learning rate where it need not stay what the params say."""
    variant = result.variant
    changes = isinstance(variant.learning_rate, Call) or variant.callbacks or variant.optimizer is None
    left_out = {evaluations.PENALTY, *([] if changes else ["learning_rate"])}
    found = evaluations.at(result.history, epoch, variant.epochs)
    return {name: value for name, value in found.items() if name not in left_out}


def _summary(result: Result, comparison: Comparison) -> dict[str, float]:
    """The metrics of a training as a whole: values at the best epoch, the test set's there, and the other clocks.

    What a curve has last the store shows as that curve's value.
    """
    found = {f"test_{name}": value for name, value in result.test.items()}
    if result.best_epoch and trial.measured(result.variant):  # a fold is scored once, after its last epoch
        found |= {"best_epoch": result.best_epoch, "gap": result.gap(comparison.metric)}
        shown = dict.fromkeys([*(metric.name for metric in comparison.judged), "val_loss"])
        found |= {f"best_{name}": result.best(name) for name in shown if name in result.history}
    return {**found, "compile_seconds": result.compile_seconds, "evaluate_seconds": result.evaluate_seconds}


def _traits(result: Result, comparison: Comparison) -> dict[str, str]:
    """What a training's run is tagged with when it is over."""
    start = trial.digest([value.encode() for value in result.start.values()])
    tags = {"mlplab.status": result.status, "weights.start": start, "weights.end": result.end}
    tags |= {"batch_order": result.order or "one batch", "program": result.program}
    tags |= {"mlplab.resumed_at": f"epoch {result.resumed_at}"} if result.resumed_at else {}
    if result.disturbed and not result.shared:
        tags[labels.LOAD] = f"busy: other processes kept {result.busy:.1f} cores"
    reached = []
    for metric, target in comparison.targets.items():
        when = results.reaching(result, comparison.target(metric), target)
        how = f"after {when.epochs} epochs ({when.steps:,} steps)" if when.reached else f"not in {when.epochs} epochs"
        reached.append(f"{metric} {target:g} {how}")
    return {**tags, "reached": "; ".join(reached)} if reached else tags


def _layers(model: keras.Model) -> str:
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lines.append)
    return "\n".join(lines) + "\n"
