"""What several paired seeds say: intervals, verdicts, the best to expect of a search.

A seed decides initial weights, batch order and dropout alike for all variants, so two variants are compared by their
differences seed by seed. How intervals and tests hold up is measured in `tests/test_statistics.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, stdtr, stdtrit

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 1_000

BETTER, EQUIVALENT, UNDECIDED, ONE_SEED = "better", "equivalent", "undecided", "one seed"

WORDS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "gap": "gap between training and validation accuracy",
    "train_seconds": "training time",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One quantity of every training of a comparison.

    Args:
        name: `val_accuracy`, `val_loss`, `gap` (training minus validation accuracy) or `train_seconds`.
        values: variant -> a value for each seed, the seeds in one order for all; NaN where a training has none.
        maximizes: whether more is better.
        margin: of practical equivalence, in the values' unit; where `relative`, a share (0.05 is 5 %).
        relative: whether ratios are compared, on the logarithm's scale, and not differences.
        unit: `points` (values are shares, shown times 100), `nats` or `times`.
        caution: what a reader must know of the values wherever they are shown, as a clause without a full stop, such as
            "the machine was busy with something else during 15 of 15 trainings, so times may be too long"; or "".
    """

    name: str
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
        caution: the measure's.
    """

    measure: str
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
    """What verdicts say, a sentence each; one for all where there is but one seed."""
    if verdicts and all(verdict.decision == ONE_SEED for verdict in verdicts):
        return ["One seed cannot tell which variant is better: take several seeds, such as 10."]
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
        "effect": _effect(differences),
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


def exp(value: float) -> float:
    """e to the power of `value`; infinite where no float holds it."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(value))


def _corrected(differences: np.ndarray, level: float) -> tuple[float, float]:
    """The interval that excludes 0 where `p_value` is below `level`: the values that this test would not refute."""
    if len(differences) > 1 and _equal(differences) and _p_of_equal(len(differences)) >= level:
        return -math.inf, math.inf
    _, low, high = mean_interval(differences, 1 - level)
    return low, high


def _effect(differences: np.ndarray) -> float:
    many, mean, deviation, _ = _moments(differences)
    if many < 3 or _equal(differences):
        return math.nan
    # Hedges (1981), the usual approximation of the correction for small samples.
    return float(mean / deviation * (1 - 3 / (4 * (many - 1) - 1)))


def _scaled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in the power of two, and its exponent, that brings the largest along the first axis to 0.5 to 1.

    That is exact, and neither squares nor sums overflow or vanish, whether values are near 1e308 or subnormal.
    """
    exponent = np.frexp(np.abs(values).max(axis=0, initial=0.0))[1]
    return np.ldexp(values, -exponent), exponent


def _moments(values: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Number, mean and standard deviation of the finite values along the first axis, scaled, and that exponent."""
    known = np.isfinite(values)
    scaled, exponent = _scaled(np.where(known, values, 0.0))
    many = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        mean = scaled.sum(axis=0) / many
        squares = np.where(known, scaled - mean, 0.0) ** 2
        deviation = np.sqrt(squares.sum(axis=0) / (many - 1))
    return many, mean, deviation, exponent


def _equal(values: np.ndarray) -> bool:
    """Whether values differ by rounding alone."""
    scaled, _ = _scaled(values)
    return bool(np.ptp(scaled) <= 1e-9 * np.abs(scaled).max())


def mean_interval(values: Any, level: float = LEVEL) -> tuple[Any, Any, Any]:
    """Mean over the first axis and the ends of its interval by Student's t, values that are not finite left out.

    The one interval of the project, of a mean and of a mean difference. Per cent of the 95 % intervals of 100,000
    samples that held the true mean:

        values          5     10     30 of them
        normal       95.0   95.0   95.0
        rounded      95.1   94.9   94.9 (normal, in steps of a quarter of the deviation, as accuracies are)
        skewed       93.4   93.9   94.5 (skew-normal of shape 4)
        exponential  88.3   89.9   92.6
        lognormal    82.0   83.9   88.1 (deviation 1 of the logarithm)

    Resampling (bootstrap-t) covers more of the skewed ones' means, but its intervals of few values are nothing to
    believe: [11.0, 49.6] where five differences run from 11.7 to 19.0.

    Args:
        values: shape (seeds,) or (seeds, …).
        level: share of samples whose interval holds the true mean.

    Returns:
        Three floats, or three arrays of shape (…); the ends are NaN where there is but one value, the mean too where
        there is none. An end beyond the largest float is infinite.
    """
    table = np.asarray(values, float)
    many, mean, deviation, exponent = _moments(table)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        half = -stdtrit(many - 1.0, (1 - level) / 2) * deviation / np.sqrt(many)
        mean, low, high = (np.ldexp(end, exponent) for end in (mean, mean - half, mean + half))
    return (float(mean), float(low), float(high)) if table.ndim == 1 else (mean, low, high)


def p_value(differences: Sequence[float] | np.ndarray) -> float:
    """The two-sided paired t-test's p; 1 where nothing differs or there are fewer than two finite differences.

    Where all differences are equal, t knows no error, and p is that of the permutation test of the signs: 2 ** (1 - n).
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2 or not values.any():
        return 1.0
    if _equal(values):
        # Accuracies are multiples of 1 / images: of 2 or 3 seeds all often differ by as many images, by chance.
        return _p_of_equal(len(values))
    many, mean, deviation, _ = _moments(values)
    return float(2 * stdtr(many - 1.0, -abs(mean) / deviation * math.sqrt(many)))


def _p_of_equal(many: int) -> float:
    """By chance so many differences of one size have one sign this often."""
    return float(2.0 ** (1 - many))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that all claims together are wrong as rarely as one alone (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level at which Holm's correction tests each hypothesis: it is rejected where its p is below it.

    The k-th smallest p of m is tested at 5 % / (m - k + 1), up to the first that is not rejected, whose level holds for
    all after it. Of equal p-values the first one's holds for all.
    """
    corrected = holm(p_values)
    kept = min((p for p, after in zip(p_values, corrected, strict=True) if after >= ALPHA), default=math.inf)
    return [ALPHA / (len(p_values) - sum(other < min(p, kept) for other in p_values)) for p in p_values]


def more_seeds(differences: Sequence[float] | np.ndarray, margin: float, alpha: float) -> int | None:
    """How many more seeds would decide with 80 % power, were the mean and deviation of the differences as they are.

    Args:
        margin: of equivalence.
        alpha: level of the test of a difference; equivalence is tested by the 95 % interval.

    Returns:
        At least 1; None if more than `MOST_SEEDS`, or if fewer than two differences are finite.
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return None
    many, mean, deviation, exponent = _moments(values)
    mean = abs(mean)
    with np.errstate(over="ignore", under="ignore"):
        margin = float(np.ldexp(margin, -exponent))
    seeds = np.arange(many + 1, many + 1 + MOST_SEEDS)

    def quantile(upper: float) -> Any:
        """What Student's t exceeds with probability `upper`."""
        return -stdtrit(seeds - 1.0, upper)

    error = deviation / np.sqrt(seeds)
    different = mean >= error * (quantile(alpha / 2) + quantile(1 - POWER))
    # Both ends have to be within the margin.
    equal = margin - mean >= error * (quantile(ALPHA / 2) + quantile((1 - POWER) / 2))
    if _equal(values):
        different = (mean > 0) & (2.0 ** (1.0 - seeds) < alpha)
    enough = np.flatnonzero(different | equal)
    return int(enough[0]) + 1 if len(enough) else None


# --------------------------------------------------------------------------------------------------------- sentences


def _sentence(measure: Measure, said: Mapping[str, Any], level: float) -> str:
    a, b, decision, words = said["a"], said["b"], said["decision"], WORDS.get(measure.name, measure.name)
    if not said["seeds"]:
        return f"No seed has a value of {words} for both {a} and {b}."
    # As it is told: how much better the first is.
    sign = 1 if measure.relative or measure.maximizes else -1
    ends = sorted((sign * said["low"], sign * said["high"]))
    corrected = sorted((sign * said["low_corrected"], sign * said["high_corrected"]))
    show = shower(measure.unit, *ends, *corrected)
    size, unit = show(sign * said["difference"]), measure.unit
    if decision == ONE_SEED:
        apart = f"{a} is {size} {unit} better" if said["difference"] else "it is the same for both"
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
        size = f"ratio {size}" if measure.relative else f"{size} {unit}"
        why = _why_undecided(measure, said, level, f"[{show(corrected[0])}, {show(corrected[1])}]")
        text = f"Undecided between {a} and {b} in {words}: {size} {span}{why}; {_how_many(said)}"
    elif measure.relative and decision == BETTER:
        text = f"{a} takes {size} times the {words} of {b} {span}"
    elif measure.relative:
        text = f"{a} and {b} take the same {words} within {100 * measure.margin:g} %: ratio {size} {span}"
    elif decision == BETTER and measure.maximizes:
        text = f"{a} beats {b} by {size} {unit} of {words} {span}"
    elif decision == BETTER:
        text = f"{a}'s {words} is {size} {unit} smaller than {b}'s {span}"
    else:
        margin = f"{100 * measure.margin:g}" if unit == "points" else f"{measure.margin:g}"
        of = f"the {words}" if measure.name == "gap" else words
        within = "1 point" if (margin, unit) == ("1", "points") else f"{margin} {unit}"
        text = f"{a} and {b} are equivalent within {within} of {of}: {size} {span}"
    return _with_caution(text, measure)


def _with_caution(text: str, measure: Measure) -> str:
    return f"{text}; {measure.caution}." if measure.caution else f"{text}."


def _why_undecided(measure: Measure, said: Mapping[str, Any], level: float, corrected: str) -> str:
    """Why what excludes no difference by itself decides none; "" where it does not exclude it."""
    if not _excludes_none(measure, said["low"], said["high"]):
        return ""
    many = said["verdicts"]
    if math.isinf(said["high_corrected"]):
        chance = f"{100 * _p_of_equal(said['seeds']):.2g} %"
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


# ------------------------------------------------------------------------------------------------------------ search


def expected_best(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """Expected maximum of k of n scores drawn without replacement, for k from 1 to n: shape (n,).

    The expected validation performance of a search of k candidates (Dodge et al. 2019), in its unbiased form (Tang et
    al. 2020). Scores that are not finite are left out, and do not count among the n.
    """
    ordered = np.asarray(scores, float)
    ordered = np.sort(ordered[np.isfinite(ordered)])
    many, below = len(ordered), np.arange(len(ordered))

    def logarithm(above: Any, chosen: int) -> Any:
        """Of a binomial coefficient; many candidates have larger ones than a float holds."""
        return gammaln(above + 1) - gammaln(chosen + 1) - gammaln(above - chosen + 1)

    expected = np.empty(many)
    for k in range(1, many + 1):
        # A score with i below it is the highest of k in comb(i, k - 1) of the comb(n, k) draws.
        can = below >= k - 1
        weights = np.exp(logarithm(below[can], k - 1) - logarithm(many, k))
        # Over their sum, which is 1 but for rounding; and no mean exceeds the scores, be they the largest floats.
        with np.errstate(over="ignore"):
            mean = (weights / weights.sum()) @ ordered[can]
        expected[k - 1] = np.clip(mean, ordered[0], ordered[-1])
    return expected
