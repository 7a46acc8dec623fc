"""What several paired seeds say: differences, decisions, and the sentences that state them.

A seed decides initial weights, batch order and dropout alike for all variants, so two variants are compared by their
differences seed by seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlplab.amounts import shower, within
from mlplab.sequential import Looks
from mlplab.statistics import (
    ALPHA,
    MOST_SEEDS,
    all_equal,
    differences,
    effect_size,
    exp,
    holm,
    holm_levels,
    mean_interval,
    more_seeds,
    p_of_equal,
    p_value,
    predictive,
)

BETTER, EQUIVALENT, UNDECIDED, ONE_SEED = "better", "equivalent", "undecided", "one seed"

OUT_OF_REACH = 0.1
"""Where the chance that the last look decides is below it, the seeds up to there are not spent on it."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity of every training of a comparison.

    Args:
        name: a logged metric, `gap` (how much better it is on the training examples) or `train_seconds`.
        words: what it is called in sentences, such as `validation accuracy`.
        values: variant -> a value for each seed, the seeds in one order for all; NaN where a training has none.
        maximizes: whether more is better.
        margin: of practical equivalence, in the values' unit; where `relative`, a share (0.05 is 5 %).
        relative: whether ratios are compared, on the logarithm's scale, and not differences.
        unit: `points` (values are shares, shown times 100), `nats`, `times`, or any other.
        caution: what a reader must know of the values wherever they are shown, as a clause without a full stop, such as
            "the machine was busy with something else during 15 of 15 trainings, so times may be too long"; or "".
    """

    name: str
    words: str
    values: Mapping[str, Sequence[float]]
    maximizes: bool
    margin: float
    relative: bool = False
    unit: str = "points"
    caution: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the seeds say of two variants in one measure.

    Attributes:
        a, b: the variants, the one with the better mean first.
        seeds: pairs that count; `dropped`: pairs left out, since one of the two trainings has no value.
        mean_a, mean_b: means over those seeds; geometric ones where ratios are compared.
        difference, low, high: a minus b and its 95 % interval by Student's t (`mean_interval`); a divided by b where
            ratios are compared. Where seeds were added until it was decided, the interval is the wider one that holds
            the true difference at all looks at once in 95 % of cases (Jennison & Turnbull 1984).
        low_corrected, high_corrected: the interval at the level at which Holm's correction tests this difference. It
            excludes no difference exactly where the correction confirms one. Such intervals do not hold all true
            differences at once in 95 % of comparisons: they show the tests. Where all differences are equal it has no
            width, or, with too few seeds for that to tell (see `p_value`), no ends: minus infinity (of ratios 0) to
            infinity.
        verdicts: how many verdicts `p_holm` and that interval are corrected for.
        p, p_holm: of the paired t-test (the sequential one, where seeds were added: `Looks.p_value`), and after Holm's
            correction over all verdicts made at once.
        effect: paired standardized difference (Cohen's d_z with Hedges' correction); NaN where all differences are
            equal, and for two seeds, of which the correction makes 0 whatever they are.
        probability: share of the seeds in which a is better than b, ties counted half.
        decision: `better`, `equivalent` (within the margin), `undecided` or `one seed`.
        more_seeds: of what is undecided: about how many more seeds would decide; None beyond `MOST_SEEDS`.
        looks: how often it was looked at while seeds were added; 0 where their number was fixed.
        reach: of what is undecided at a look: the chance that the last look decides it, by what is known; else None.
        sentence: all of it for a reader.
        words, unit, caution: the measure's.
    """

    measure: str
    words: str
    unit: str
    a: str
    b: str
    seeds: int
    dropped: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    low_corrected: float = math.nan
    high_corrected: float = math.nan
    verdicts: int = 1
    p: float
    p_holm: float
    effect: float
    probability: float
    margin: float
    decision: str
    more_seeds: int | None
    sentence: str
    caution: str = ""
    looks: int = 0
    reach: float | None = None

    @property
    def open(self) -> bool:
        """Whether more of the seeds that were planned may decide it."""
        return self.reach is not None and self.reach >= OUT_OF_REACH

    @property
    def size(self) -> str:
        """By how much the better mean is better, or the ratio, in the measure's unit and with the sentence's digits."""
        show = shower(self.unit, self.low, self.high, self.low_corrected, self.high_corrected)
        return show(self.difference if self.unit == "times" else abs(self.difference))


@dataclass(frozen=True)
class _Pair:
    """Two variants' differences in a measure, seed by seed, the better mean first; of logarithms where relative."""

    measure: Measure
    a: str
    b: str
    values: tuple[np.ndarray, np.ndarray]
    dropped: int

    @property
    def differences(self) -> np.ndarray:
        found = differences(*self.values, self.measure.relative)
        # Keras has metrics in float32: shares of as many examples differ by their rounding, which is no spread.
        size = 1.0 if self.measure.relative else np.abs(self.values).max(initial=0.0)
        with np.errstate(over="ignore"):
            equal = len(found) > 0 and np.ptp(found) <= 2 * np.finfo(np.float32).eps * size
        return np.full_like(found, mean_interval(found)[0]) if equal else found


def judge(measures: Sequence[Measure], baseline: str) -> list[Verdict]:
    """Verdicts on every measure: each variant against the baseline, and the best two by their means.

    Two variants are equivalent where the whole 95 % interval of their difference lies within the margin. The one is
    better where they are not, and the interval at its level of Holm's correction over all tests of the call excludes no
    difference: at most 5 % of comparisons of equal variants have a wrong "better" in them. A permutation test of the
    signs would assume less, but cannot fall below 0.0625 with five seeds.
    """
    tests = [_Test(pair) for measure in measures for pair in _pairs(measure, baseline)]
    return _judged(tests, {}, len(tests))


def judge_looks(
    measures: Sequence[Measure], baseline: str, looks: Sequence[int], trained: Mapping[str, int]
) -> list[Verdict]:
    """The verdicts of `judge` on a comparison that is looked at while seeds are added, with the same error in all.

    What a look decides stays decided: its verdict is of the seeds that were there then. All looks are gone through
    anew, so that the verdicts are a function of the values alone.

    Args:
        measures: with values for all seeds that are planned, in their order.
        looks: seeds at each look, all that are planned.
        trained: name of a variant -> with how many of the seeds, from the first on, it was trained.
    """
    sequence = Looks(tuple(looks))
    # Which two are best may change from look to look, and one of them may be the baseline: a test is kept for it.
    many = sum(len(measure.values) - (len(measure.values) < 3) for measure in measures)
    settled: dict[tuple[str, frozenset[str]], Verdict] = {}
    verdicts: list[Verdict] = []
    for seeds in looks:
        if seeds > max(trained.values(), default=0):
            break
        tests = []
        for measure in measures:
            for pair in _pairs(_first(measure, seeds), baseline):
                # A variant in no open pair was trained no further: the pair's last look is the last that had both.
                both = [n for n in looks if n <= min(seeds, trained[pair.a], trained[pair.b])]
                if both:
                    (own,) = _pairs(_first(measure, both[-1], pair.a, pair.b), pair.b)
                    tests.append(_Test(own, sequence, len(both) - 1))
        verdicts = _judged(tests, settled, many)
        settled |= {_key(one.measure, one.a, one.b): one for one in verdicts if one.decision in (BETTER, EQUIVALENT)}
    return verdicts


def _first(measure: Measure, seeds: int, *names: str) -> Measure:
    """A measure of the first seeds alone, of all variants or two."""
    return replace(measure, values={n: v[:seeds] for n, v in measure.values.items() if not names or n in names})


@dataclass(frozen=True)
class _Test:
    """A pair, and at which look of a sequence it is tested; of none where the number of seeds is fixed."""

    pair: _Pair
    sequence: Looks | None = None
    look: int = 0

    @property
    def p(self) -> float:
        found = p_value(self.pair.differences)
        return self.sequence.p_value(found, self.look) if self.sequence else found

    def level(self, whole: float) -> float:
        """At which level the t-test is made, for the test to err with probability `whole`."""
        return self.sequence.level(whole, self.look) if self.sequence else whole


def _key(measure: str, *pair: str) -> tuple[str, frozenset[str]]:
    """What names a verdict, whichever of its variants is better."""
    return measure, frozenset(pair)


def _judged(tests: Sequence[_Test], settled: Mapping[tuple[str, frozenset[str]], Verdict], many: int) -> list[Verdict]:
    """Verdicts on all tests at once; one that was settled before stays, and takes part in the correction for `many`."""
    before = [settled.get(_key(test.pair.measure.name, test.pair.a, test.pair.b)) for test in tests]
    p_values = [test.p if known is None else known.p for test, known in zip(tests, before, strict=True)]
    counted = [*p_values, *[1.0] * (many - len(tests))]
    every = zip(tests, before, counted, holm(counted), holm_levels(counted), strict=False)
    return [known or _verdict(test, p, p_holm, level, many) for test, known, p, p_holm, level in every]


def sentences(verdicts: Sequence[Verdict]) -> list[str]:
    """What verdicts say, a sentence each; none where there is but one seed, of which the answer says all there is."""
    if all(verdict.decision == ONE_SEED for verdict in verdicts):
        return []
    return [verdict.sentence for verdict in verdicts]


def _pairs(measure: Measure, baseline: str) -> list[_Pair]:
    values = {name: np.asarray(value, float) for name, value in measure.values.items()}
    if measure.relative:
        values = {name: np.where(value > 0, value, math.nan) for name, value in values.items()}
    means = {name: _mean(v[np.isfinite(v)], measure.relative) for name, v in values.items() if np.isfinite(v).any()}
    ranked = sorted(means, key=lambda name: (-means[name] if measure.maximizes else means[name], name))
    chosen = [(name, baseline) for name in values if name != baseline]
    if len(ranked) > 1 and baseline not in ranked[:2]:
        chosen.append((ranked[0], ranked[1]))
    found = []
    for a, b in chosen:
        both = np.isfinite(differences(values[a], values[b], measure.relative))
        x, y = values[a][both], values[b][both]
        mean, *_ = mean_interval(differences(x, y, measure.relative))
        worse = mean < 0 if measure.maximizes else mean > 0
        first, second = ((b, y), (a, x)) if worse else ((a, x), (b, y))
        found.append(_Pair(measure, first[0], second[0], (first[1], second[1]), int((~both).sum())))
    return found


def _verdict(test: _Test, p: float, p_holm: float, level: float, verdicts: int) -> Verdict:
    pair, measure, differences = test.pair, test.pair.measure, test.pair.differences
    many, (a, b) = len(differences), pair.values
    own = 1 - test.level(ALPHA)
    mean, low, high = (_shown(measure, value) for value in mean_interval(differences, own))
    corrected = _corrected(differences, test.level(level))
    low_corrected, high_corrected = (_shown(measure, value) for value in corrected)
    least, most = -measure.margin, measure.margin
    if measure.relative:
        least, most = 1 / (1 + measure.margin), 1 + measure.margin
    more, reach = None, None
    if many < 2:
        decision = ONE_SEED if many else UNDECIDED
    elif least <= low and high <= most:
        decision = EQUIVALENT
    elif _excludes_none(measure, low_corrected, high_corrected):
        decision = BETTER
    else:
        decision = UNDECIDED
        margin = math.log1p(measure.margin) if measure.relative else measure.margin
        more = more_seeds(differences, margin, test.level(level), test.level(ALPHA))
    if test.sequence and decision in (UNDECIDED, ONE_SEED):
        reach = _reach(test, level)
    wins = differences if measure.maximizes else -differences
    said: dict[str, Any] = {
        "measure": measure.name,
        "words": measure.words,
        "unit": measure.unit,
        "a": pair.a,
        "b": pair.b,
        "seeds": many,
        "dropped": pair.dropped,
        "mean_a": _mean(a, measure.relative),
        "mean_b": _mean(b, measure.relative),
        "difference": mean,
        "low": low,
        "high": high,
        "low_corrected": low_corrected,
        "high_corrected": high_corrected,
        "verdicts": verdicts,
        "p": p,
        "p_holm": p_holm,
        "effect": effect_size(differences),
        "probability": float(np.mean((wins > 0) + 0.5 * (wins == 0))) if many else math.nan,
        "margin": measure.margin,
        "decision": decision,
        "more_seeds": more,
        "caution": measure.caution,
        "looks": test.look + 1 if test.sequence else 0,
        "reach": reach,
    }
    return Verdict(**said, sentence=_sentence(measure, said, level))


def _reach(test: _Test, level: float) -> float:
    """The chance that the last look planned decides, were the spread of the differences as it is."""
    assert test.sequence is not None
    pair, (*_, most) = test.pair, test.sequence.seeds
    margin = math.log1p(pair.measure.margin) if pair.measure.relative else pair.measure.margin
    last = len(test.sequence.seeds) - 1
    left = most - test.sequence.seeds[test.look]
    levels = test.sequence.level(level, last), test.sequence.level(ALPHA, last)
    return predictive(pair.differences, left, margin, *levels) if left else 0.0


def _shown(measure: Measure, difference: float) -> float:
    """A difference as a verdict has it: a ratio where ratios are compared, infinite if no float holds it."""
    return exp(difference) if measure.relative else difference


def _excludes_none(measure: Measure, low: float, high: float) -> bool:
    """Whether an interval of a verdict excludes that there is no difference."""
    none = 1 if measure.relative else 0
    return low > none or high < none


def _mean(values: np.ndarray, relative: bool) -> float:
    mean: float = mean_interval(np.log(values) if relative else values)[0]
    return exp(mean) if relative else mean


def _corrected(differences: np.ndarray, level: float) -> tuple[float, float]:
    """The interval that excludes 0 where `p_value` is below `level`: the values that this test would not refute."""
    if len(differences) > 1 and all_equal(differences) and p_of_equal(len(differences)) >= level:
        return -math.inf, math.inf
    _, low, high = mean_interval(differences, 1 - level)
    return low, high


def _sentence(measure: Measure, said: Mapping[str, Any], level: float) -> str:
    a, b, decision, words = said["a"], said["b"], said["decision"], measure.words
    if not said["seeds"]:
        return f"No seed has a value of {words} for both {a} and {b}."
    # As it is told: how much better the first is.
    sign = 1 if measure.relative or measure.maximizes else -1
    ends = sorted((sign * said["low"], sign * said["high"]))
    corrected = sorted((sign * said["low_corrected"], sign * said["high_corrected"]))
    show = shower(measure.unit, *ends, *corrected)
    size, unit = show(sign * said["difference"]), measure.unit
    amount = f"{size} {unit}".strip()
    timed = measure.name == "train_seconds"
    if decision == ONE_SEED:
        apart = f"{a} is {amount} better" if said["difference"] else "it is the same for both"
        apart = f"{a}'s is {size} times that of {b}" if measure.relative else apart
        text = (
            f"One seed cannot tell {a} from {b} in {words} ({apart}): what another would do is not known. Take several "
            "seeds, such as 10"
        )
        return _with_caution(text, measure)
    seeds = "1 seed" if said["seeds"] == 1 else f"{said['seeds']} seeds"
    if said["dropped"]:
        seeds += f", {said['dropped']} left out for want of a value"
    if said["looks"]:
        seeds += f", looked at {'once' if said['looks'] == 1 else 'twice' if said['looks'] == 2 else ''}"
        seeds += f"{said['looks']} times" * (said["looks"] > 2)
    span = f"[{show(ends[0])}, {show(ends[1])}] ({seeds})"
    if decision == UNDECIDED:
        size = f"ratio {size}" if measure.relative else amount
        why = _why_undecided(measure, said, level, f"[{show(corrected[0])}, {show(corrected[1])}]")
        text = f"Undecided between {a} and {b} in {words}: {size} {span}{why}; {_how_many(said)}"
    elif measure.relative and decision == BETTER:
        text = f"{a} takes {size} times the {words} of {b} {span}"
        text = text if timed else f"{a}'s {words} is {size} times that of {b} {span}"
    elif measure.relative:
        have = "take" if timed else "have"
        text = f"{a} and {b} {have} the same {words} within {within(unit, measure.margin)}: ratio {size} {span}"
    elif decision == BETTER and measure.maximizes:
        text = f"{a} beats {b} by {amount} of {words} {span}"
    elif decision == BETTER:
        text = f"{a}'s {words} is {amount} smaller than {b}'s {span}"
    else:
        of = f"the {words}" if measure.name == "gap" else words
        text = f"{a} and {b} are equivalent within {within(unit, measure.margin)} of {of}: {size} {span}"
    return _with_caution(text, measure)


def _with_caution(text: str, measure: Measure) -> str:
    return f"{text}; {measure.caution}." if measure.caution else f"{text}."


def _why_undecided(measure: Measure, said: Mapping[str, Any], level: float, corrected: str) -> str:
    """Why what excludes no difference by itself decides none; "" where it does not exclude it."""
    if not _excludes_none(measure, said["low"], said["high"]):
        return ""
    many = said["verdicts"]
    if math.isinf(said["high_corrected"]):
        chance = f"{100 * p_of_equal(said['seeds']):.2g} %"
        after = f" after correction for {many} verdicts" if many > 1 else ""
        return (
            f", but equal differences show no spread to judge by: so many have one sign by chance in {chance} of "
            f"cases, and at most {100 * level:.2g} % is allowed{after}"
        )
    return f" by itself, but {corrected} after correction for {many} verdicts"


def _how_many(said: Mapping[str, Any]) -> str:
    more = said["more_seeds"]
    if more is None:
        return f"more than {MOST_SEEDS:,} more seeds would tell"
    return f"about {more:,} more seed{'' if more == 1 else 's'} would tell"
