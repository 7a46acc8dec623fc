"""What a comparison's variants come to over several data sets: verdicts, aggregates, performance profiles, tables.

Each data set counts the same. A verdict over all is drawn as one on a single data set is (`verdicts.judge`), on each
seed's mean over the data sets, of ratios and times the geometric mean: so the seeds are its independent values, even
where what a seed makes on one data set goes with what it makes on another. Beside it stand the stratified bootstrap
and the probability of improvement, which resample seeds within data sets, and decide nothing: with few seeds their
intervals are too narrow (`aggregates.bootstrap` has how much).

All of this is about these data sets: intervals are over seeds, not over data sets, and few data sets say little about
others.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlplab import results, tables
from mlplab.aggregates import (
    Estimate,
    aggregate_mean,
    aggregate_median,
    bootstrap,
    interquartile_mean,
    performance_ratios,
    probability_of_improvement,
    profile,
    profile_score,
)
from mlplab.amounts import shower
from mlplab.answers import answer
from mlplab.comparison import Comparison
from mlplab.records import Record
from mlplab.results import Result, Target
from mlplab.seeds import Until
from mlplab.statistics import differences, exp, mean_interval
from mlplab.verdicts import ONE_SEED, Measure, Verdict, judge, judge_looks, sentences


@dataclass(frozen=True)
class Improvement:
    """Two variants in one measure, over the data sets.

    Attributes:
        measure, words, unit, maximizes: the measure's.
        a, b: the variants, as the verdict on them has them.
        seeds: pairs of each data set that are resampled: those that count for the verdict.
        difference: a minus b, the mean over the data sets, by the stratified bootstrap; a divided by b, the geometric
            mean, where ratios are compared.
        probability: that a training of a is better than one of b on the same data set, the mean over the data sets.
        each: on each data set, the difference with Student's interval over all of its seeds, which is that of the data
            set's own verdict where their number was fixed.
    """

    measure: str
    words: str
    unit: str
    maximizes: bool
    a: str
    b: str
    seeds: int
    difference: Estimate
    probability: Estimate
    each: tuple[Estimate, ...]


@dataclass(frozen=True)
class Aggregate:
    """A variant's values of one measure over all data sets and seeds, each with its interval by the bootstrap.

    They are of the values as they are: where data sets are of unlike difficulty, the interquartile mean is mostly about
    those in the middle.

    Attributes:
        seeds: those that have a value on every data set.
        mean, median: of the data sets' means over seeds; interquartile_mean: of the middle half of all values.
    """

    measure: str
    variant: str
    seeds: int
    mean: Estimate
    median: Estimate
    interquartile_mean: Estimate


@dataclass(frozen=True)
class Profile:
    """How soon a variant reaches a target on the data sets, against the fastest variant on each: AlgoPerf's profile.

    Attributes:
        after: on each data set: after how long half of all seeds, or more, had reached the target, in `units`; infinite
            where fewer did. (AlgoPerf takes the median, which is that for an odd number of seeds.)
        ratios: `after` over that of the fastest variant on the data set.
        score: AlgoPerf's benchmark score, 0 to 1: see `aggregates.profile_score`.
    """

    variant: str
    metric: str
    units: tuple[str, ...]
    after: tuple[float, ...]
    ratios: tuple[float, ...]
    score: float

    def share(self, tau: float) -> float:
        """The share of the data sets on which it took at most `tau` times as long as the fastest variant."""
        return profile(np.array(self.ratios), tau)

    @property
    def reached(self) -> str:
        """On how many data sets half of its seeds reached the target, such as `2 of 3`."""
        return f"{sum(map(math.isfinite, self.after))} of {len(self.after)}"


class Across:
    """What holds over several data sets.

    Args:
        comparison: the question on several data sets.
        records: what it came to on each of them, in their order.

    Attributes:
        seeds: all that were planned.
        refusal: why no verdicts are drawn, as a sentence; "" where they are.
        measures: what verdicts are about, a value for each seed: its mean over the data sets, NaN where one is missing.
    """

    def __init__(self, comparison: Comparison, records: Sequence[Record]) -> None:
        self.comparison, self.records = comparison, list(records)
        self.labels = [record.data for record in records]
        self._on = [_measures(one, record) for one, record in zip(comparison.needs, records, strict=True)]
        self.seeds = comparison.each_seed
        refusals = ((record.data, results.unpaired(record.results)) for record in records)
        self.refusal = next((f"on {data}: {why}" for data, why in refusals if why), "")
        names = [name for name in self._on[0] if all(name in found for found in self._on)]
        self.measures = [self._over(name) for name in names]

    def _scores(self, measure: str, variant: str) -> np.ndarray:
        """Shape (seeds, data sets); NaN where a training has none."""
        values = [[found[measure][1].get(variant, {}).get(seed, math.nan) for found in self._on] for seed in self.seeds]
        return np.array(values, float).reshape(len(self.seeds), len(self._on))

    def _over(self, name: str) -> Measure:
        every = [found[name][0] for found in self._on]
        values = {
            variant: [_mean(row, every[0].relative) for row in self._scores(name, variant)]
            for variant in self.comparison.variants
        }
        return replace(every[0], values=values, caution=self._caution() if any(one.caution for one in every) else "")

    def _caution(self) -> str:
        """What a reader must know of times, as `results.measures` says it of one data set."""
        kinds = [(record.data, results.unlike_programs(record.results)) for record in self.records]
        unlike = [f"on {data} {says}" for data, says in kinds if says]
        return "; ".join(filter(None, [results.disturbance(self._trained), *unlike]))

    @property
    def _trained(self) -> list[Result]:
        return [result for record in self.records for result in record.results]

    def verdicts(self) -> list[Verdict]:
        """Every variant against the baseline, and the best two, in every measure, over all data sets at once."""
        if len(self.comparison.variants) < 2 or self.refusal:
            return []
        found = self._judged()
        return [replace(one, sentence=f"Over {len(self.labels)} data sets: {one.sentence}") for one in found]

    def _judged(self) -> list[Verdict]:
        if not isinstance(self.comparison.seeds, Until):
            return judge(self.measures, self.comparison.against)
        # When seeds were enough was decided on each data set. Over all, a look is where all of them have as many, and
        # its level holds whatever it was that ended the adding.
        looks = self.comparison.seeds.after(sorted({look for record in self.records for look in record.looks}))
        each = [results.begun(record.results, self.seeds) for record in self.records]
        trained = {variant: min(begun.get(variant, 0) for begun in each) for variant in self.comparison.variants}
        return judge_looks(self.measures, self.comparison.against, looks, trained)

    def improvements(self, verdicts: Sequence[Verdict]) -> list[Improvement]:
        """The same pairs, resampled."""
        relative = {measure.name: measure.relative for measure in self.measures}
        more = {measure.name: measure.maximizes for measure in self.measures}
        found = []
        for verdict in verdicts:
            name, pair = verdict.measure, (verdict.a, verdict.b)
            x, y = (self._scores(name, variant)[: verdict.seeds + verdict.dropped] for variant in pair)
            both = np.isfinite(differences(x, y, relative[name])).all(axis=1)
            x, y = x[both], y[both]
            apart, sign = differences(x, y, relative[name]), 1 if more[name] else -1

            def difference(counts: np.ndarray, apart: np.ndarray = apart) -> np.ndarray:
                return aggregate_mean(apart, counts)

            def better(counts: np.ndarray, x: np.ndarray = sign * x, y: np.ndarray = sign * y) -> np.ndarray:
                return probability_of_improvement(x, y, counts, counts)

            estimate = bootstrap(difference, *x.shape)
            found.append(
                Improvement(
                    measure=name,
                    words=verdict.words,
                    unit=verdict.unit,
                    maximizes=more[name],
                    a=verdict.a,
                    b=verdict.b,
                    seeds=len(x),
                    difference=_as_shown(estimate, relative[name]),
                    probability=bootstrap(better, *x.shape),
                    each=tuple(self._on_each(name, pair, relative[name])),
                )
            )
        return found

    def _on_each(self, measure: str, pair: tuple[str, str], relative: bool) -> list[Estimate]:
        found = []
        for on in self._on:
            a, b = (on[measure][1].get(variant, {}) for variant in pair)
            seeds = [seed for seed in a if seed in b]
            apart = differences(np.array([a[seed] for seed in seeds]), np.array([b[seed] for seed in seeds]), relative)
            found.append(_as_shown(Estimate(*mean_interval(apart)), relative))
        return found

    def aggregates(self) -> list[Aggregate]:
        """Every variant's values of the metrics that verdicts are drawn on."""
        judged = [metric.name for metric in self.comparison.judged]
        found = []
        for measure in self.measures:
            for variant in self.comparison.variants if measure.name in judged else ():
                scores = self._scores(measure.name, variant)
                scores = scores[np.isfinite(scores).all(axis=1)]

                def over(aggregate: Callable[..., np.ndarray], scores: np.ndarray = scores) -> Estimate:
                    return bootstrap(lambda counts: aggregate(scores, counts), *scores.shape)

                every = map(over, (aggregate_mean, aggregate_median, interquartile_mean))
                found.append(Aggregate(measure.name, variant, len(scores), *every))
        return found

    def profiles(self) -> list[Profile]:
        """Every variant's performance profile for every target."""
        on = [
            results.targets(one, record.results)
            for one, record in zip(self.comparison.needs, self.records, strict=True)
        ]
        found = []
        for metric in self.comparison.targets:
            each = [{one.variant: one for one in targets if one.metric == metric} for targets in on]
            units = tuple(next(iter(targets.values())).unit for targets in each)
            after = np.array([[_after(targets.get(v)) for targets in each] for v in self.comparison.variants])
            ratios = performance_ratios(after)
            for variant, times, ratio in zip(self.comparison.variants, after, ratios, strict=True):
                score = profile_score(ratio)
                found.append(Profile(variant, metric, units, tuple(times.tolist()), tuple(ratio.tolist()), score))
        return found

    def mean_over(self, variant: str) -> tuple[float, float, float]:
        """A variant's mean of the selection metric over data sets and seeds, and Student's interval over the seeds."""
        (measure,) = (one for one in self.measures if one.name == self.comparison.metric.name)
        values = np.array(measure.values[variant], float)
        return _as_interval(values, measure.relative)

    def ranked(self) -> list[str]:
        """The variants with the best mean of the selection metric over the data sets first; those without one last."""
        means = {variant: self.mean_over(variant)[0] for variant in self.comparison.variants}
        known = [variant for variant, mean in means.items() if math.isfinite(mean)]
        known.sort(key=lambda variant: means[variant], reverse=self.comparison.metric.maximizes)
        return known + [variant for variant in means if variant not in known]

    # ------------------------------------------------------------------------------------------------------ for readers

    def cells(self) -> list[list[str]]:
        """The table of the selection metric: a header, a row for each data set, and one over all of them."""
        select = self.comparison.metric.name
        table = [["data set", *self.comparison.variants]]
        for record in self.records:
            of = {outcome.variant.name: outcome for outcome in record.outcomes}
            means = [
                of[variant].over_seeds(lambda result: result.best(select)) if variant in of else (math.nan,) * 3
                for variant in self.comparison.variants
            ]
            table.append([record.data, *(tables.interval_text(*mean) for mean in means)])
        geometric = any(one.relative for one in self.measures if one.name == select)
        over = [tables.interval_text(*self.mean_over(variant)) for variant in self.comparison.variants]
        return [*table, [f"all {len(self.labels)}, {'geometric ' * geometric}mean", *over]]

    def profile_cells(self, profiles: Sequence[Profile]) -> list[list[str]]:
        """How soon the variants reached the targets: a header, then a row for each variant and target."""
        table = [["variant", "target", *self.labels, "reached on", "AlgoPerf score"]]
        for one in profiles:
            named = zip(one.after, one.units, strict=True)
            after = [results.time_text(time, unit) if math.isfinite(time) else "not by half" for time, unit in named]
            table.append([one.variant, self.target_text(one.metric), *after, one.reached, f"{one.score:.3f}"])
        return table

    def target_text(self, metric: str) -> str:
        """A target for readers, such as `val_accuracy ≥ 0.9`."""
        sign = "≥" if self.comparison.target(metric).maximizes else "≤"
        values = [f"{one.targets[metric]:g}" for one in self.comparison.needs]
        return f"{metric} {sign} {', '.join(values if len(set(values)) > 1 else values[:1])}"

    def csv(self) -> str:
        """A row for each training on each data set, numbers in full precision."""
        rows: list[dict[str, Any]] = []
        for one, record in zip(self.comparison.needs, self.records, strict=True):
            rows += [{"data": record.data, **row} for row in tables.rows(one, record.results)]
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def sentences(self, verdicts: Sequence[Verdict]) -> list[str]:
        """What verdicts say over all data sets; of the selection metric, with what resampling says beside it."""
        if self.refusal:
            return [f"No verdicts over all: {self.refusal}"]
        select = self.comparison.metric.name
        judged = [one for one in verdicts if one.measure == select and one.decision != ONE_SEED and one.seeds]
        resampled = [improvement_sentence(one) for one in self.improvements(judged)]
        if resampled:
            resampled.append("Intervals by resampling are too narrow with few seeds: they decide nothing.")
        return [*sentences(verdicts), *resampled, self.caution]

    @property
    def caution(self) -> str:
        """What a reader must know of whatever is said over all of the data sets."""
        many = len(self.labels)
        return (
            f"All of this is about these {many} data sets: intervals are over seeds, not over data sets, and {many} "
            "data sets say little about others."
        )

    def answer(self, verdicts: Sequence[Verdict]) -> str:
        """What holds over all data sets, in a sentence."""
        if self.refusal:
            return f"Nothing is decided over all data sets: {self.refusal}"
        of_metric = [one for one in verdicts if one.measure == self.comparison.metric.name]
        # Seeds are added until the verdicts on each data set are clear, whatever those over all are.
        said = answer(of_metric, self.ranked(), settings=self.comparison.budget, goes_on=False)
        return f"Over the {len(self.labels)} data sets: {said}"

    @property
    def best(self) -> str:
        """Which variant has the best mean, as a sentence."""
        first, select = self.ranked()[0], self.comparison.metric.name
        if not math.isfinite(self.mean_over(first)[0]):
            return "No variant has a result on every data set."
        return f"Best by {select}, as the mean over {len(self.labels)} data sets: **{first}**."

    def to_dict(self, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """All that is said over all of the data sets."""
        return {
            "answer": self.answer(verdicts),
            "data": [{"name": record.data, "run_id": record.run_id} for record in self.records],
            "verdicts": [asdict(one) for one in verdicts],
            "improvements": [asdict(one) for one in self.improvements(verdicts)],
            "aggregates": [asdict(one) for one in self.aggregates()],
            "profiles": [asdict(one) for one in self.profiles()],
        }


def improvement_sentence(one: Improvement) -> str:
    """What resampling says of two variants."""
    size, chance = one.difference, one.probability
    show = shower(one.unit, size.low, size.high)
    span = f"{show(size.value)} [{show(size.low)}, {show(size.high)}]"
    if one.unit == "times":
        apart = f"{one.a}'s {one.words} is {span} times that of {one.b}"
    else:
        apart = f"{one.a} minus {one.b} is {span}{f' {one.unit}'.rstrip()} of {one.words}"
    return (
        f"With seeds resampled within data sets, {apart}; a training of {one.a} is better than one of {one.b} with "
        f"probability {chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]."
    )


def _measures(comparison: Comparison, record: Record) -> dict[str, tuple[Measure, dict[str, dict[int, float]]]]:
    """A data set's measures by name, each with its values by variant and seed."""
    return {
        measure.name: (
            measure,
            {
                variant: dict(zip(comparison.each_seed, values, strict=True))
                for variant, values in measure.values.items()
            },
        )
        for measure in results.measures(comparison, record.results)
    }


def _mean(values: np.ndarray, relative: bool) -> float:
    """The mean over data sets, geometric where ratios are compared; NaN where a value is missing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return exp(float(np.mean(np.log(values)))) if relative else float(np.mean(values))


def _as_interval(values: np.ndarray, relative: bool) -> tuple[float, float, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, low, high = mean_interval(np.log(values) if relative else values)
    return (exp(mean), exp(low), exp(high)) if relative else (mean, low, high)


def _as_shown(estimate: Estimate, relative: bool) -> Estimate:
    return Estimate(exp(estimate.value), exp(estimate.low), exp(estimate.high)) if relative else estimate


def _after(target: Target | None) -> float:
    """After how long half of the seeds had reached it; infinite where fewer did."""
    return target.half if target is not None and math.isfinite(target.half) else math.inf
