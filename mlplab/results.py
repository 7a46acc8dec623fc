"""What trainings left behind, and what is compared of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mlplab import evaluations
from mlplab.amounts import significant
from mlplab.comparison import Comparison
from mlplab.spec import Metric, Training
from mlplab.statistics import mean_interval
from mlplab.verdicts import Measure

SHORT_SECONDS = 5.0
"""Where no training of a comparison takes as long, its times are mostly noise: see `targets`."""

BUSY_CORES = 0.2
"""A training during which other processes kept more cores than this busy is said to be disturbed."""

FINISHED, DIVERGED, FAILED, PRUNED = "finished", "diverged", "failed", "pruned"


@dataclass(kw_only=True, eq=False)
class Result:
    """One training: of a variant, with a seed.

    Attributes:
        status: `finished`; `diverged`: the loss or a weight stopped being finite, which ends a training; `failed`: it
            raised, see `error`; `pruned`: a trial that halving stopped.
        history: name of a metric -> its value at each epoch, as Keras' History has them, with `learning_rate` (at the
            epoch's end) and `train_seconds` besides, and with `train_eval_` in front of each metric: the training
            examples evaluated after the epoch as validation examples are, without dropout, and the loss without the
            penalty, which is `penalty` where there is one; NaN after the epochs that `evaluations` leaves out.
            `train_seconds` is the one clock of training: seconds from the first epoch on, without compiling and
            evaluation, with nothing else trained beside it. Of seeds trained side by side it is known once each is
            timed alone: `solo_epoch_seconds` times the epochs.
        select: the metric by which its best epoch is the best.
        weights: those of the model after the best epoch, in the order of `keras.Model.get_weights`.
        best_epoch: 1 for the first; the epoch with the best value of the selection metric, None if there is none.
        test: test metrics of the model as it was after `best_epoch`.
        program: which of `training.PROGRAMS` trained it; the last bits of its numbers depend on it.
        start: place of a weight, see `initial.places` -> hash of its initial value.
        sizes: place of a weight -> how many numbers it has.
        order: hash of the batch order of the first epochs; "" where one batch holds all examples.
        examples: of the training split.
        end: hash of all weights after the last epoch.
        group_seconds: wall seconds of the training of all seeds of the variant, where they were trained side by side;
            NaN where this one was trained alone.
        solo_epoch_seconds: seconds of an epoch of it timed alone after that; NaN where it was alone anyway.
        compile_seconds: tracing and compiling.
        evaluate_seconds: evaluating the validation and the training examples, over all epochs.
        other_seconds: what else it took until its run had it: building, pictures, saving; side by side, its share.
        resumed_at: epochs that it had when it was last gone on with after an interruption; 0 if it went through.
        shared: whether it ran on a worker, beside others: its times are compared with none.
        busy: cores that other processes kept busy while it trained, on average.
    """

    variant: Training
    seed: int = 0
    status: str = FINISHED
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    weights: list[np.ndarray] | None = field(default=None, repr=False)
    select: str = ""
    test: dict[str, float] = field(default_factory=dict)
    program: str = ""
    start: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    order: str = ""
    end: str = ""
    group_seconds: float = math.nan
    solo_epoch_seconds: float = math.nan
    resumed_at: int = 0
    shared: bool = False
    busy: float = math.nan
    parameters: int = 0
    examples: int = 0
    steps_per_epoch: int = 0
    compile_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    other_seconds: float = 0.0
    peak_memory_mb: float = math.nan
    error: str = ""
    run_id: str = ""

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.history.get("loss", []))

    @property
    def train_seconds(self) -> float:
        """Seconds of training alone, over all epochs; NaN where it was trained beside others and not timed yet."""
        return self.last("train_seconds") if self.epochs else 0.0

    @property
    def disturbed(self) -> bool:
        """Whether other processes kept the machine busy while it trained."""
        return self.busy > BUSY_CORES

    @property
    def steps_per_second(self) -> float:
        """Weight updates in a second of training alone."""
        return self.epochs * self.steps_per_epoch / self.train_seconds if self.train_seconds else math.nan

    def gap(self, metric: Metric) -> float:
        """How much better a metric is on the training than on the validation examples, at the best epoch."""
        apart = self.best(f"{evaluations.PREFIX}{metric.base}") - self.best(f"val_{metric.base}")
        return apart if metric.maximizes else -apart

    def best(self, metric: str) -> float:
        """The value of `metric` at the best epoch, NaN if there is none."""
        return self.history[metric][self.best_epoch - 1] if self.best_epoch and metric in self.history else math.nan

    def last(self, metric: str) -> float:
        """The value of `metric` at the last epoch, NaN if there is none."""
        values = self.history.get(metric, [])
        return values[-1] if values else math.nan

    def timed_alone(self, epoch_seconds: float) -> None:
        """Takes the seconds of an epoch timed alone, of a training that was beside others: its clock is by them."""
        self.solo_epoch_seconds = epoch_seconds
        self.history["train_seconds"] = [epoch_seconds * epoch for epoch in range(1, self.epochs + 1)]

    def add(self, values: Mapping[str, float]) -> None:
        """Appends an epoch's values to the history."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as JSON has it."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "weights"}
        return {**kept, "variant": self.variant.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """What `to_dict` gave; fields that another version had besides are left out."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**known, "variant": Training.from_dict(values["variant"])})


@dataclass(frozen=True)
class Outcome:
    """A variant's trainings, one for each seed: the numbers of a comparison's table."""

    variant: Training
    results: tuple[Result, ...]

    def over_seeds(self, value: Callable[[Result], float]) -> tuple[float, float, float]:
        """Mean over the seeds that have a finite value, and the ends of its 95 % interval; NaN where there are none."""
        return mean_interval([value(result) for result in self.results])

    def mean(self, value: Callable[[Result], float]) -> float:
        """Mean over the seeds that have a finite value; NaN if none has."""
        return self.over_seeds(value)[0]

    def best(self, metric: str) -> float:
        """Mean over the seeds of the value of `metric` at each one's best epoch."""
        return self.mean(lambda result: result.best(metric))

    @property
    def representative(self) -> Result:
        """The training whose model stands for the variant: the median of its seeds by `select`; of two the lower seed.

        Not by which of the two is better: the luckier one would stand for it.
        """
        done = [result for result in self.results if result.status != FAILED]
        told = sorted((r for r in done if math.isfinite(r.best(r.select))), key=lambda r: r.best(r.select))
        middle = told[(len(told) - 1) // 2 : len(told) // 2 + 1]
        return min(middle, key=lambda result: result.seed) if middle else next(iter(done), self.results[0])

    @property
    def failed(self) -> bool:
        """Whether no seed left a result."""
        return all(result.status == FAILED for result in self.results)

    @property
    def state(self) -> str:
        """How the trainings ended, where not all finished: `diverged`, or `2 of 10 diverged`; else ""."""
        says = []
        for status in (DIVERGED, FAILED):
            if many := sum(result.status == status for result in self.results):
                says.append(status if len(self.results) == 1 else f"{many} of {len(self.results)} {status}")
        return ", ".join(says)


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    """Results by variant, in the variants' order."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.variant.name, []).append(result)
    return [Outcome(each[0].variant, tuple(each)) for each in found.values()]


def begun(results: Sequence[Result], seeds: Sequence[int]) -> dict[str, int]:
    """Variant -> with how many of the seeds, from the first on, it was trained."""
    own = {outcome.variant.name: {result.seed for result in outcome.results} for outcome in outcomes(results)}
    return {
        name: next((place for place, seed in enumerate(seeds) if seed not in trained), len(seeds))
        for name, trained in own.items()
    }


@dataclass(frozen=True)
class Reaching:
    """When a training first reached a target.

    Attributes:
        reached: whether it did.
        epochs, steps, seconds: until the end of the epoch in which it did; where it did not, of the whole training.
            Seconds are NaN where it was not timed.
    """

    reached: bool
    epochs: int
    steps: int
    seconds: float


def reaching(result: Result, metric: Metric, target: float) -> Reaching:
    """When `result` first had a value of the validation metric at least as good as `target`."""
    values, better = result.history.get(metric.name, []), metric.maximizes
    first = next((i for i, value in enumerate(values, 1) if (value >= target if better else value <= target)), None)
    epochs = first or result.epochs
    # What failed beside other seeds was never timed.
    times = [0.0, *result.history.get("train_seconds", [math.nan] * result.epochs)]
    return Reaching(first is not None, epochs, epochs * result.steps_per_epoch, times[epochs])


@dataclass(frozen=True)
class Target:
    """How soon a variant's seeds reached a target: what figure, table and JSON say of it.

    The share of seeds that have reached it after so long is always of all seeds. A training that ended without reaching
    it, be it after its last epoch, by stopping early, diverging or failing, has not reached it, however long one waits:
    its end is an outcome, and not a time after which nothing is known, as survival analysis has it.

    Attributes:
        unit: what the way there is measured in: `seconds` of training, `epochs` or `steps`, see `targets`.
        maximizes: whether more of the metric is better.
        after: of each seed, in the comparison's order: how long until it reached the target; NaN where it did not.
        trained: of each seed: how long it was trained in all.
        half: after how long half of all seeds, or more, had reached it; NaN where fewer did.
    """

    variant: str
    metric: str
    target: float
    maximizes: bool
    unit: str
    after: tuple[float, ...]
    trained: tuple[float, ...]
    half: float

    @classmethod
    def of(cls, outcome: Outcome, metric: Metric, target: float, unit: str) -> "Target":
        """How soon the seeds of `outcome` did; one that failed, which is no result, did not."""
        after, trained = [], []
        for result in outcome.results:
            when = reaching(result, metric, target)
            after.append(float(getattr(when, unit)) if when.reached and result.status != FAILED else math.nan)
            steps = result.epochs * result.steps_per_epoch
            whole = {"epochs": result.epochs, "steps": steps, "seconds": result.train_seconds}[unit]
            # A training that failed may not have been timed.
            trained.append(float(whole) if math.isfinite(whole) else 0.0)
        arrivals, enough = sorted(filter(math.isfinite, after)), math.ceil(len(after) / 2)
        half = arrivals[enough - 1] if len(arrivals) >= enough else math.nan
        return cls(
            *(outcome.variant.name, metric.name, target, metric.maximizes, unit, tuple(after), tuple(trained), half)
        )

    @property
    def count(self) -> str:
        """How many of all seeds reached it, such as `3 of 5`."""
        return f"{sum(map(math.isfinite, self.after))} of {len(self.after)}"

    @property
    def says(self) -> str:
        """After how long half of all seeds had reached it, with the unit; else that so many did not, or none did."""
        if math.isnan(self.half):
            if any(map(math.isfinite, self.after)):
                return "not reached by half"
            return f"not in {self.text(longest)}" if (longest := max(self.trained)) else "not reached"
        return self.text(self.half)

    def text(self, value: float) -> str:
        """So many epochs, steps or seconds, for readers."""
        return time_text(value, self.unit)


def time_text(value: float, unit: str) -> str:
    """So many `epochs`, `steps` or `seconds`, for readers."""
    if unit == "seconds":
        return f"{significant(value)} s"
    return f"{value:,.0f} {unit if value != 1 else unit.removesuffix('s')}"


def targets(comparison: Comparison, results: Sequence[Result]) -> list[Target]:
    """How soon each variant's seeds came to each of the comparison's targets.

    Measured in seconds of training where the clock can tell them apart: no training shared its machine with others or
    ran while something else kept more than `BUSY_CORES` busy, and the longest took at least `SHORT_SECONDS`. Else in
    epochs, or in steps where an epoch has not as many of them in all variants.
    """
    longest = max((r.train_seconds for r in results if math.isfinite(r.train_seconds)), default=0.0)
    disturbed = any(result.shared or result.disturbed for result in results)
    alike = len({result.steps_per_epoch for result in results if result.epochs}) <= 1
    unit = "seconds" if longest >= SHORT_SECONDS and not disturbed else "epochs" if alike else "steps"
    return [
        Target.of(outcome, comparison.target(metric), target, unit)
        for metric, target in comparison.targets.items()
        for outcome in outcomes(results)
    ]


def measures(comparison: Comparison, results: Sequence[Result]) -> list[Measure]:
    """What a comparison's verdicts are about: its metrics, the selection metric's gap, and seconds of training.

    The last are left out where a training shared its machine with others.
    """

    def values(value: Callable[[Result], float]) -> dict[str, list[float]]:
        found = {}
        for outcome in outcomes(results):
            known = {r.seed: value(r) for r in outcome.results if r.status != FAILED}
            found[outcome.variant.name] = [known.get(seed, math.nan) for seed in comparison.each_seed]
        return found

    def at_best(name: str) -> dict[str, list[float]]:
        return values(lambda result: result.best(name))

    found = [_measure(m, m.name, m.words, m.maximizes, at_best(m.name)) for m in comparison.judged]
    select = comparison.metric
    gap = f"gap between training and validation {select.base.replace('_', ' ')}"
    if select.unit != "%":  # a gap may be 0 or below, of which there are no ratios
        found.append(_measure(select, "gap", gap, False, values(lambda result: result.gap(select))))
    if any(result.shared for result in results):
        return found
    times = Measure(
        name="train_seconds",
        words="training time",
        values=values(lambda result: result.train_seconds or math.nan),
        maximizes=False,
        margin=comparison.time_margin,
        relative=True,
        unit="times",
        caution="; ".join(filter(None, [disturbance(results), unlike_programs(results)])),
    )
    return [*found, times]


def _measure(metric: Metric, name: str, words: str, maximizes: bool, values: dict[str, list[float]]) -> Measure:
    assert metric.margin is not None  # a comparison has filled it in
    relative = metric.unit == "%"
    unit = "times" if relative else metric.unit
    return Measure(
        name=name, words=words, values=values, maximizes=maximizes, margin=metric.margin, relative=relative, unit=unit
    )


def unlike_programs(results: Sequence[Result]) -> str:
    """Which variants ran as another kind of program than others, as half a sentence; "" if none did."""
    kinds: dict[str, list[str]] = {}
    for outcome in outcomes(results):
        for kind in {result.program for result in outcome.results if result.program}:
            kinds.setdefault(kind, []).append(outcome.variant.name)
    if len(kinds) < 2:
        return ""
    which = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in sorted(kinds.items()))
    return f"variants ran as different kinds of program ({which}), which alone makes times differ"


def disturbance(results: Sequence[Result]) -> str:
    """Which share of the trainings ran beside others or on a busy machine, as half a sentence; "" if none did."""
    if any(result.shared for result in results):
        return "workers trained beside one another, so times are compared with none"
    busy = [result for result in results if result.disturbed]
    if not busy:
        return ""
    most = max(result.busy for result in busy)
    return (
        f"the machine was busy with something else during {len(busy)} of {len(results)} trainings (up to {most:.1f} "
        "cores), so times may be too long"
    )


def unpaired(results: Sequence[Result]) -> str:
    """Why trainings of one seed are no pair, as a sentence; "" if they are: their batch order is equal."""
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    for result in results:
        if not result.order:
            continue
        before, name = seen.setdefault((result.seed, result.examples), (result.order, result.variant.name))
        if before != result.order:
            return (
                f"{name!r} and {result.variant.name!r} with seed {result.seed} do not pair: their batch order differs "
                f"({before} and {result.order}); legal: trainings with an equal one for a seed. Train both in one "
                "command, with one version of the code."
            )
    return ""


def paired(a: Mapping[str, str], b: Mapping[str, str], sizes: Mapping[str, int]) -> float:
    """The share of the weights of model `b`, those in its `sizes`, that are equal in model `a`; 1 where there are none.

    Args:
        a, b: place of a weight -> hash of its value, see `initial.hashes`.
        sizes: place -> how many numbers it has.

    >>> paired({"kernel": "a1", "bias": "00"}, {"kernel": "b2", "bias": "00"}, {"kernel": 30, "bias": 10})
    0.25
    """
    equal = sum(size for place, size in sizes.items() if a.get(place) == b[place])
    return equal / sum(sizes.values()) if any(sizes.values()) else 1.0


def paired_share(comparison: Comparison, results: Sequence[Result]) -> dict[str, float]:
    """Variant -> the share of its weights that start as the baseline's do, the least of all seeds."""
    of_baseline = {result.seed: result for result in results if result.variant.name == comparison.against}
    found: dict[str, float] = {}
    for result in results:
        if (other := of_baseline.get(result.seed)) and result.start and other.start:
            share = paired(other.start, result.start, result.sizes)
            found[result.variant.name] = min(share, found.get(result.variant.name, 1.0))
    return found


def unpaired_weights(comparison: Comparison, results: Sequence[Result]) -> str:
    """Which variants' weights do not all start as the baseline's, as half a sentence; "" if all do."""
    partly = {name: share for name, share in paired_share(comparison, results).items() if share < 0.9995}
    if not partly:
        return ""
    says = ", ".join(f"{name} {100 * share:.3g} %" for name, share in partly.items())
    return (
        f"of these variants only a share of the weights starts as those of {comparison.against} with the same seed "
        f"({says}); data and batch order pair all the same"
    )


def rank(comparison: Comparison, results: Sequence[Result]) -> list[Outcome]:
    """The variants with the best mean of the selection metric first; those that failed or have none last, in order."""
    every = outcomes(results)
    select = comparison.metric
    ranked = [o for o in every if not o.failed and math.isfinite(o.best(select.name))]
    ranked.sort(key=lambda outcome: outcome.best(select.name), reverse=select.maximizes)
    return ranked + [outcome for outcome in every if outcome not in ranked]
