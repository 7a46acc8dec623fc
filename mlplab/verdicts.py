"""What several paired seeds say: differences, decisions, and the sentences that state them.

A seed decides initial weights, batch order and dropout alike for all variants, so two variants are compared by their
differences seed by seed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplab.statistics import (
    MOST_SEEDS,
    all_equal,
    effect_size,
    exp,
    holm,
    holm_levels,
    mean_interval,
    more_seeds,
    p_of_equal,
    p_value,
)

BETTER, EQUIVALENT, UNDECIDED, ONE_SEED = "better", "equivalent", "undecided", "one seed"


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
            ratios are compared.
        low_corrected, high_corrected: the interval at the level at which Holm's correction tests this difference. It
            excludes no difference exactly where the correction confirms one. Such intervals do not hold all true
            differences at once in 95 % of comparisons: they show the tests. Where all differences are equal it has no
            width, or, with too few seeds for that to tell (see `p_value`), no ends: minus infinity (of ratios 0) to
            infinity.
        verdicts: how many verdicts `p_holm` and that interval are corrected for.
        p, p_holm: of the paired t-test, and after Holm's correction over all verdicts made at once.
        effect: paired standardized difference (Cohen's d_z with Hedges' correction); NaN where all differences are
            equal, and for two seeds, of which the correction makes 0 whatever they are.
        probability: share of the seeds in which a is better than b, ties counted half.
        decision: `better`, `equivalent` (within the margin), `undecided` or `one seed`.
        more_seeds: of what is undecided: about how many more seeds would decide; None beyond `MOST_SEEDS`.
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
        return _differences(self.measure, *self.values)


def judge(measures: Sequence[Measure], baseline: str) -> list[Verdict]:
    """Verdicts on every measure: each variant against the baseline, and the best two by their means.

    Two variants are equivalent where the whole 95 % interval of their difference lies within the margin. The one is
    better where they are not, and the interval at its level of Holm's correction over all tests of the call excludes no
    difference: at most 5 % of comparisons of equal variants have a wrong "better" in them. A permutation test of the
    signs would assume less, but cannot fall below 0.0625 with five seeds.
    """
    pairs = [pair for measure in measures for pair in _pairs(measure, baseline)]
    p_values = [p_value(pair.differences) for pair in pairs]
    tests = zip(pairs, p_values, holm(p_values), holm_levels(p_values), strict=True)
    return [_verdict(*test, len(pairs)) for test in tests]


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
        both = np.isfinite(_differences(measure, values[a], values[b]))
        x, y = values[a][both], values[b][both]
        mean, *_ = mean_interval(_differences(measure, x, y))
        worse = mean < 0 if measure.maximizes else mean > 0
        first, second = ((b, y), (a, x)) if worse else ((a, x), (b, y))
        found.append(_Pair(measure, first[0], second[0], (first[1], second[1]), int((~both).sum())))
    return found


def _differences(measure: Measure, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a minus b, of logarithms where ratios are compared; not finite where one has no value, or no float holds it."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: np.ndarray = np.log(a) - np.log(b) if measure.relative else a - b
    return found


def _verdict(pair: _Pair, p: float, p_holm: float, level: float, verdicts: int) -> Verdict:
    measure, differences = pair.measure, pair.differences
    many, (a, b) = len(differences), pair.values
    mean, low, high = (_shown(measure, value) for value in mean_interval(differences))
    low_corrected, high_corrected = (_shown(measure, value) for value in _corrected(differences, level))
    least, most = -measure.margin, measure.margin
    if measure.relative:
        least, most = 1 / (1 + measure.margin), 1 + measure.margin
    more = None
    if many < 2:
        decision = ONE_SEED if many else UNDECIDED
    elif least <= low and high <= most:
        decision = EQUIVALENT
    elif _excludes_none(measure, low_corrected, high_corrected):
        decision = BETTER
    else:
        decision = UNDECIDED
        more = more_seeds(differences, math.log1p(measure.margin) if measure.relative else measure.margin, level)
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
    }
    return Verdict(**said, sentence=_sentence(measure, said, level))


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


def within(unit: str, margin: float) -> str:
    """A `Measure`'s margin for readers.

    >>> within("points", 0.002), within("points", 0.01), within("times", 0.05), within("nats", 0.02)
    ('0.2 points', '1 point', '5 %', '0.02 nats')
    """
    shown = f"{100 * margin:g}" if unit in ("points", "times") else f"{margin:g}"
    return "1 point" if (shown, unit) == ("1", "points") else f"{shown} {'%' if unit == 'times' else unit}".strip()


def shower(unit: str, low: float, high: float, *others: float) -> Callable[[float], str]:
    """How differences in a `Measure`'s unit are written: with the digits that the width of the interval tells.

    More where rounding would show the end of an interval, this one's or of others, as no difference, which it is not.
    """
    scale, none = (100 if unit == "points" else 1), (1 if unit == "times" else 0)
    least = 2 if unit == "times" else 4
    if unit == "points":
        half = scale * (high - low) / 2
        least = 1 if math.isfinite(half) and half >= 0.5 else 2
    ends = [scale * end for end in (low, high, *others) if math.isfinite(end) and end != none]
    fixed = (digits for digits in range(least, 18) if not any(float(f"{end:.{digits}f}") == none for end in ends))
    digits = next(fixed, None)

    def show(value: float) -> str:
        value *= scale
        plain = digits is not None and abs(value) < 1e15
        return _signless(f"{value:.{digits}f}" if plain else f"{value:.3g}")

    return show


def _signless(text: str) -> str:
    """A zero without a minus."""
    return text.removeprefix("-") if not text.strip("-0.") else text
