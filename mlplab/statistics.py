"""What several paired seeds say: intervals, verdicts, time to a target.

A seed decides initial weights, batch order and dropout alike for all variants, so two variants are compared by their
differences seed by seed. How intervals and tests hold up is measured in `tests/test_statistics.py`.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import gammaln

LEVEL = 0.95
POWER = 0.8
RESAMPLES = 5_000
BOOTSTRAP_FROM = 5
"""Fewer differences than this have too few different resamples: at 3 the bootstrap's interval covers 82 %."""
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
    """

    name: str
    values: Mapping[str, Sequence[float]]
    maximizes: bool
    margin: float
    relative: bool = False
    unit: str = "points"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the seeds say of two variants in one measure.

    Attributes:
        a, b: the variants, the one with the better mean first.
        seeds: pairs that count; `dropped`: pairs left out, since one of the two trainings has no value.
        mean_a, mean_b: means over those seeds; geometric ones where ratios are compared.
        difference, low, high: a minus b and its 95 % interval; a divided by b where ratios are compared.
        p, p_holm: of the paired t-test, and after Holm's correction over all verdicts made at once.
        effect: paired standardized difference (Cohen's d_z with Hedges' correction).
        probability: share of the seeds in which a is better than b, ties counted half.
        decision: `better`, `equivalent` (within the margin), `undecided` or `one seed`.
        more_seeds: of what is undecided: about how many more seeds would decide; None beyond `MOST_SEEDS`.
        sentence: all of it for a reader.
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
    p: float
    p_holm: float
    effect: float
    probability: float
    margin: float
    decision: str
    more_seeds: int | None
    sentence: str


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
        a, b = (np.log(v) if self.measure.relative else v for v in self.values)
        found: np.ndarray = a - b
        return found

    @property
    def margin(self) -> float:
        return math.log1p(self.measure.margin) if self.measure.relative else self.measure.margin


def judge(measures: Sequence[Measure], baseline: str) -> list[Verdict]:
    """Verdicts on every measure: each variant against the baseline, and the best two by their means.

    Two variants are equivalent where the whole interval of their difference lies within the margin. The one is better
    where they are not, the interval excludes no difference, and so does the paired t-test at 5 % after Holm's
    correction over all tests of the call: at most 5 % of comparisons of equal variants have a wrong "better" in them.
    A permutation test of the signs would assume less, but cannot fall below 0.0625 with five seeds.
    """
    pairs = [pair for measure in measures for pair in _pairs(measure, baseline)]
    p_values = [p_value(pair.differences) for pair in pairs]
    corrected = holm(p_values)
    alpha = (1 - LEVEL) / max(1, len(pairs))
    return [_verdict(*one, alpha) for one in zip(pairs, p_values, corrected, strict=True)]


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
        both = np.isfinite(values[a]) & np.isfinite(values[b])
        x, y = values[a][both], values[b][both]
        mean_x, mean_y = _mean(x, measure.relative), _mean(y, measure.relative)
        worse = mean_x < mean_y if measure.maximizes else mean_x > mean_y
        first, second = ((b, y), (a, x)) if worse else ((a, x), (b, y))
        found.append(_Pair(measure, first[0], second[0], (first[1], second[1]), int((~both).sum())))
    return found


def _verdict(pair: _Pair, p: float, p_holm: float, alpha: float) -> Verdict:
    measure, differences = pair.measure, pair.differences
    many = len(differences)
    a, b = pair.values
    mean = float(differences.mean()) if many else math.nan
    low, high = interval(differences) if many > 1 else (math.nan, math.nan)
    more = None
    if many < 2:
        decision = ONE_SEED if many else UNDECIDED
    elif -pair.margin <= low and high <= pair.margin:
        decision = EQUIVALENT
    elif p_holm < 1 - LEVEL and (low > 0 or high < 0):
        decision = BETTER
    else:
        decision = UNDECIDED
        more = more_seeds(differences, pair.margin, alpha)
    wins = differences if measure.maximizes else -differences
    scale = (lambda value: float(np.exp(value))) if measure.relative else float
    said: dict[str, Any] = {
        "measure": measure.name,
        "a": pair.a,
        "b": pair.b,
        "seeds": many,
        "dropped": pair.dropped,
        "mean_a": _mean(a, measure.relative),
        "mean_b": _mean(b, measure.relative),
        "difference": scale(mean),
        "low": scale(low),
        "high": scale(high),
        "p": p,
        "p_holm": p_holm,
        "effect": _effect(differences),
        "probability": float(np.mean((wins > 0) + 0.5 * (wins == 0))) if many else math.nan,
        "margin": measure.margin,
        "decision": decision,
        "more_seeds": more,
    }
    return Verdict(**said, sentence=_sentence(measure, said))


def _mean(values: np.ndarray, relative: bool) -> float:
    if not len(values):
        return math.nan
    return float(np.exp(np.log(values).mean()) if relative else values.mean())


def _effect(differences: np.ndarray) -> float:
    many = len(differences)
    deviation = differences.std(ddof=1) if many > 1 else 0.0
    if not deviation:
        return math.nan
    # Hedges (1981), the usual approximation of the correction for small samples.
    return float(differences.mean() / deviation * (1 - 3 / (4 * (many - 1) - 1)))


def interval(differences: Sequence[float] | np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The bootstrap interval of a mean: equal-tailed bootstrap-t (Efron and Tibshirani 1993, section 12.5).

    The resamples' t statistics take the place of Student's distribution. Of the bootstrap's intervals it is the one
    that covers what it says at five seeds (93 to 97 %, also for skewed differences and those rounded to a quarter of
    their deviation), where the percentile and BCa intervals cover 83 %. Differences in steps of one or two deviations
    it covers in 89 to 96 %, exponential ones in 93 to 95 %, lognormal ones in 88 to 92 %. Below `BOOTSTRAP_FROM`
    differences it is Student's interval. Resampling starts from a fixed seed, so equal differences give equal
    intervals. The ends are NaN for a single difference.
    """
    values = np.asarray(differences, float)
    many = len(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(many) if many > 1 else math.nan
    tails = [(1 + level) / 2, (1 - level) / 2]
    if many < BOOTSTRAP_FROM or _equal(values):
        quantiles = stats.t.ppf(tails, many - 1) if many > 1 else np.array([math.nan, math.nan])
    else:
        resamples = np.random.default_rng(0).choice(values, (RESAMPLES, many))
        errors = resamples.std(axis=1, ddof=1) / math.sqrt(many)
        # A resample of one value alone has no t.
        varied = errors > 1e-6 * error
        quantiles = np.quantile((resamples.mean(axis=1)[varied] - mean) / errors[varied], tails)
    low, high = mean - quantiles * error
    return float(low), float(high)


def _equal(values: np.ndarray) -> bool:
    """Whether values differ by rounding alone."""
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def p_value(differences: Sequence[float] | np.ndarray) -> float:
    """The two-sided paired t-test's p; 1 where nothing differs or there are fewer than two differences.

    Where all differences are equal, t knows no error, and p is that of the permutation test of the signs: 2 ** (1 - n).
    """
    values = np.asarray(differences, float)
    if len(values) < 2 or not values.any():
        return 1.0
    if _equal(values):
        # Accuracies are multiples of 1 / images: of 2 or 3 seeds all often differ by as many images, by chance.
        return float(2.0 ** (1 - len(values)))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # SciPy warns where all differences are equal: p is then 0
        p = float(stats.ttest_1samp(values, 0.0).pvalue)
    return 0.0 if math.isnan(p) else p


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that all claims together are wrong as rarely as one alone (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def more_seeds(differences: Sequence[float] | np.ndarray, margin: float, alpha: float) -> int | None:
    """How many more seeds would decide with 80 % power, were the mean and deviation of the differences as they are.

    Args:
        margin: of equivalence.
        alpha: level of the test of a difference; equivalence is tested by the 95 % interval.

    Returns:
        At least 1; None if more than `MOST_SEEDS`.
    """
    values = np.asarray(differences, float)
    mean, deviation = abs(float(values.mean())), float(values.std(ddof=1))
    seeds = np.arange(len(values) + 1, len(values) + 1 + MOST_SEEDS)
    error = deviation / np.sqrt(seeds)
    different = mean >= error * (stats.t.ppf(1 - alpha / 2, seeds - 1) + stats.t.ppf(POWER, seeds - 1))
    # Both ends have to be within the margin.
    both = stats.t.ppf((1 + POWER) / 2, seeds - 1)
    equal = margin - mean >= error * (stats.t.ppf((1 + LEVEL) / 2, seeds - 1) + both)
    if _equal(values):
        different = 2.0 ** (1 - seeds) <= alpha
    enough = np.flatnonzero(different | equal)
    return int(enough[0]) + 1 if len(enough) else None


# --------------------------------------------------------------------------------------------------------- sentences


def _sentence(measure: Measure, said: Mapping[str, Any]) -> str:
    a, b, decision, words = said["a"], said["b"], said["decision"], WORDS.get(measure.name, measure.name)
    if not said["seeds"]:
        return f"No seed has a value of {words} for both {a} and {b}."
    seeds = "1 seed" if said["seeds"] == 1 else f"{said['seeds']} seeds"
    if said["dropped"]:
        seeds += f", {said['dropped']} left out for want of a value"
    show, unit = _shower(measure, said["low"], said["high"])
    if measure.relative:
        size, ends = show(said["difference"]), (said["low"], said["high"])
    else:
        # As it is told: how much better the first is.
        sign = 1 if measure.maximizes else -1
        size, ends = show(sign * said["difference"]), tuple(sorted((sign * said["low"], sign * said["high"])))
    if decision == ONE_SEED:
        apart = f"{a}'s is {size} times that of {b}" if measure.relative else f"{a} is {size} {unit} better"
        return (
            f"One seed cannot tell {a} from {b} in {words} ({apart}): what another would do is not known. Take several "
            "seeds, such as 10."
        )
    span = f"[{show(ends[0])}, {show(ends[1])}] ({seeds})"
    if measure.relative:
        return _sentence_of_ratios(measure, said, f"{size} {span}")
    if decision == BETTER:
        if measure.maximizes:
            return f"{a} beats {b} by {size} {unit} of {words} {span}."
        return f"{a}'s {words} is {size} {unit} smaller than {b}'s {span}."
    if decision == EQUIVALENT:
        margin = f"{100 * measure.margin:g}" if unit == "points" else f"{measure.margin:g}"
        of = f"the {words}" if measure.name == "gap" else words
        within = "1 point" if (margin, unit) == ("1", "points") else f"{margin} {unit}"
        return f"{a} and {b} are equivalent within {within} of {of}: {size} {span}."
    return f"Undecided between {a} and {b} in {words}: {size} {unit} {span}; {_how_many(said)}."


def _sentence_of_ratios(measure: Measure, said: Mapping[str, Any], ratio: str) -> str:
    a, b = said["a"], said["b"]
    words = WORDS.get(measure.name, measure.name)
    if said["decision"] == BETTER:
        return f"{a} takes {ratio.replace(' [', f' times the {words} of {b} [', 1)}."
    if said["decision"] == EQUIVALENT:
        return f"{a} and {b} take the same {words} within {100 * measure.margin:g} %: ratio {ratio}."
    return f"Undecided between {a} and {b} in {words}: ratio {ratio}; {_how_many(said)}."


def _how_many(said: Mapping[str, Any]) -> str:
    more = said["more_seeds"]
    if more is None:
        return f"more than {MOST_SEEDS:,} more seeds would tell"
    return f"about {more:,} more seed{'' if more == 1 else 's'} would tell"


def _shower(measure: Measure, low: float, high: float) -> tuple[Any, str]:
    """How a measure's values are written: digits as the interval's width tells, and the unit."""
    if measure.unit == "points":
        half = 100 * (high - low) / 2
        digits = 1 if math.isfinite(half) and half >= 0.5 else 2
        return (lambda value: _signless(f"{100 * value:.{digits}f}")), "points"
    digits = 2 if measure.relative else 4
    return (lambda value: _signless(f"{value:.{digits}f}")), measure.unit


def _signless(text: str) -> str:
    """A zero without a minus."""
    return text.removeprefix("-") if not text.strip("-0.") else text


# ------------------------------------------------------------------------------------------------ bands, time, search


def mean_interval(values: Any) -> tuple[Any, Any, Any]:
    """Mean over the first axis and the ends of its 95 % interval by Student's t, NaN left out.

    Args:
        values: shape (seeds,) or (seeds, epochs).

    Returns:
        Three floats, or three arrays of shape (epochs,); the ends are NaN where there is but one value.
    """
    table = np.asarray(values, float)
    many = np.isfinite(table).sum(axis=0)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        kept = np.where(np.isfinite(table), table, math.nan)
        mean = np.nanmean(kept, axis=0)
        half = stats.t.ppf((1 + LEVEL) / 2, many - 1) * np.nanstd(kept, axis=0, ddof=1) / np.sqrt(many)
    if table.ndim == 1:
        return float(mean), float(mean - half), float(mean + half)
    return mean, mean - half, mean + half


def survival(times: Sequence[float], reached: Sequence[bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Kaplan-Meier estimate of the share that has not reached a target yet.

    Args:
        times: of each seed: when it reached the target; else until when it is known not to have (censored).
        reached: whether it did.

    Returns:
        Times at which the share changes, the share from each on (1 before the first), and the times of censoring.
    """
    when, did = np.asarray(times, float), np.asarray(reached, bool)
    if not did.any():
        return np.array([]), np.array([]), np.sort(when)
    share = stats.ecdf(stats.CensoredData(uncensored=when[did], right=when[~did])).sf
    steps = np.isin(share.quantiles, when[did])
    return share.quantiles[steps], share.probabilities[steps], np.sort(when[~did])


def restricted_mean(times: Sequence[float], reached: Sequence[bool], horizon: float) -> tuple[float, float, float]:
    """Mean time to a target over the first `horizon` seconds: the area under the Kaplan-Meier estimate up to there.

    Its 95 % interval is Student's with Greenwood's variance, corrected for small samples (Klein and Moeschberger 2003,
    section 4.5); without censoring it is the mean's usual one.

    Args:
        times, reached: as of `survival`.
        horizon: at most the last time of which anything is known, unless all have reached the target.

    Returns:
        Seconds, and the interval's ends; those are NaN for one seed, and where no seed arrived.

    Raises:
        ValueError: nothing is known of as long a time.
    """
    when, did = np.asarray(times, float), np.asarray(reached, bool)
    if not did.all() and horizon > when.max():
        raise ValueError(
            f"horizon is {horizon:g} s, but not all trainings reached the target, and nothing is known after "
            f"{when.max():g} s; legal: at most that."
        )
    did = did & (when <= horizon)
    when = np.minimum(when, horizon)
    steps, share, _ = survival(when.tolist(), did.tolist())
    edges = np.concatenate([[0.0], steps, [horizon]])
    heights = np.concatenate([[1.0], share])
    areas = heights * np.diff(edges)
    mean = float(areas.sum())
    events = int(did.sum())
    if len(when) < 2 or events == 0:
        return mean, math.nan, math.nan
    at_risk = np.array([(when >= step).sum() for step in steps])
    happened = np.array([(did & (when == step)).sum() for step in steps])
    after = areas[::-1].cumsum()[::-1][1:]
    left = at_risk - happened
    terms = np.divide(after**2 * happened, at_risk * left, out=np.zeros(len(steps)), where=left > 0)
    variance = float(terms.sum()) * (events / (events - 1) if events > 1 else 1.0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(when) - 1)) * math.sqrt(variance)
    return mean, max(0.0, mean - half), min(float(horizon), mean + half)


def expected_best(scores: Sequence[float] | np.ndarray) -> np.ndarray:
    """Expected maximum of k of n scores drawn without replacement, for k from 1 to n: shape (n,).

    The expected validation performance of a search of k candidates (Dodge et al. 2019), in its unbiased form (Tang et
    al. 2020).
    """
    ordered = np.sort(np.asarray(scores, float))
    many, below = len(ordered), np.arange(len(ordered))

    def logarithm(above: Any, chosen: int) -> Any:
        """Of a binomial coefficient; many candidates have larger ones than a float holds."""
        return gammaln(above + 1) - gammaln(chosen + 1) - gammaln(above - chosen + 1)

    expected = np.empty(many)
    for k in range(1, many + 1):
        # A score with i below it is the highest of k in comb(i, k - 1) of the comb(n, k) draws.
        can = below >= k - 1
        expected[k - 1] = np.exp(logarithm(below[can], k - 1) - logarithm(many, k)) @ ordered[can]
    return expected
