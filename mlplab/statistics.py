"""What several numbers of one kind say: intervals, tests, corrections for many of them, the best to expect of a search.

How intervals and tests hold up is measured in `tests/test_statistics.py`.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import gammaln, stdtr, stdtrit

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 1_000


def exp(value: float) -> float:
    """e to the power of `value`; infinite where no float holds it."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(value))


def effect_size(differences: np.ndarray) -> float:
    """Hedges' g of paired differences; NaN for fewer than three, and where all are equal."""
    many, mean, deviation, _ = _moments(differences)
    if many < 3 or all_equal(differences):
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


def differences(a: np.ndarray, b: np.ndarray, relative: bool) -> np.ndarray:
    """a minus b, of logarithms where ratios are compared; not finite where one has no value, or no float holds it."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: np.ndarray = np.log(a) - np.log(b) if relative else a - b
    return found


def all_equal(values: np.ndarray) -> bool:
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
    if all_equal(values):
        # Accuracies are multiples of 1 / images: of 2 or 3 seeds all often differ by as many images, by chance.
        return p_of_equal(len(values))
    many, mean, deviation, _ = _moments(values)
    return float(2 * stdtr(many - 1.0, -abs(mean) / deviation * math.sqrt(many)))


def p_of_equal(many: int) -> float:
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


def more_seeds(
    differences: Sequence[float] | np.ndarray, margin: float, alpha: float, interval: float = ALPHA
) -> int | None:
    """How many more seeds would decide with 80 % power, were the mean and deviation of the differences as they are.

    Args:
        margin: of equivalence.
        alpha: level of the test of a difference.
        interval: 1 minus the level of the interval by which equivalence is tested.

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
        return _quantiles(int(many), upper)

    error = deviation / np.sqrt(seeds)
    different = mean >= error * (quantile(alpha / 2) + quantile(1 - POWER))
    # Both ends have to be within the margin.
    equal = margin - mean >= error * (quantile(interval / 2) + quantile((1 - POWER) / 2))
    if all_equal(values):
        different = (mean > 0) & (2.0 ** (1.0 - seeds) < alpha)
    enough = np.flatnonzero(different | equal)
    return int(enough[0]) + 1 if len(enough) else None


@functools.lru_cache(maxsize=256)
def _quantiles(many: int, upper: float) -> Any:
    """What Student's t of 1 to `MOST_SEEDS` values more than `many` exceeds with probability `upper`."""
    return -stdtrit(np.arange(many, many + MOST_SEEDS, dtype=float), upper)


def predictive(
    differences: Sequence[float] | np.ndarray, more: int, margin: float, alpha: float, interval: float
) -> float:
    """The chance that so many more differences decide, given those there are and no other knowledge.

    The predictive power of Spiegelhalter, Freedman & Blackburn (1986): the mean of all differences then has Student's t
    distribution around the mean so far, and their deviation is taken to stay as it is.

    Args:
        margin, alpha, interval: of equivalence and the two tests then, as in `more_seeds`.

    Returns:
        0 to 1; 1 for a single difference, which tells no deviation, and 0 for none.
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float(len(values))
    many, mean, deviation, exponent = _moments(values)
    every = many + more
    with np.errstate(over="ignore", under="ignore"):
        margin = float(np.ldexp(margin, -exponent))
    if all_equal(values):
        return float(abs(mean) < margin or (mean != 0 and p_of_equal(every) < alpha))
    error = deviation / math.sqrt(every)
    spread = deviation * math.sqrt(1 / many - 1 / every)

    def below(end: float) -> float:
        return float(stdtr(many - 1.0, (end - mean) / spread))

    different, equal = -stdtrit(every - 1.0, alpha / 2) * error, margin + stdtrit(every - 1.0, interval / 2) * error
    # Better beyond the one on either side, equivalent within the other; where they overlap it is decided once.
    apart = below(-different) + 1 - below(different)
    within = below(min(equal, different)) - below(-min(equal, different)) if equal > 0 else 0.0
    return apart + within


def expected_best(scores: Sequence[float] | np.ndarray, maximizes: bool = True) -> np.ndarray:
    """Expected best of k of n scores drawn without replacement, for k from 1 to n: shape (n,).

    The expected validation performance of a search of k candidates (Dodge et al. 2019), in its unbiased form (Tang et
    al. 2020). Scores that are not finite are left out, and do not count among the n.

    Args:
        maximizes: whether the best is the highest, else the lowest.

    >>> expected_best([1.0, 2.0, 6.0]), expected_best([1.0, 2.0, 6.0], maximizes=False)
    (array([3.        , 4.66666667, 6.        ]), array([3.        , 1.33333333, 1.        ]))
    """
    ordered, sign = _ordered(scores, maximizes)
    expected = np.empty(len(ordered))
    for k, weights in enumerate(_best_of(len(ordered)), start=1):
        can = weights > 0
        # No mean exceeds the scores, be they the largest floats.
        with np.errstate(over="ignore"):
            mean = weights[can] @ ordered[can]
        expected[k - 1] = np.clip(mean, ordered[0], ordered[-1])
    return sign * expected


def best_band(
    scores: Sequence[float] | np.ndarray, maximizes: bool = True, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """The ends between which the best of k of n scores is in `level` of all draws without replacement, k from 1 to n.

    Exact: with the scores in order, worst first, the best of k is at most the i-th in comb(i, k) of comb(n, k) draws.
    Each end is a score, below which, or above which, the best is in no more than half of the rest of the draws. It
    says how the best hangs on which of these scores are drawn; of all n it is the best of them, and the ends meet.

    Returns:
        The lower and the higher ends, each of shape (n,).

    >>> best_band([1.0, 2.0, 6.0])
    (array([1., 2., 6.]), array([6., 6., 6.]))
    """
    ordered, sign = _ordered(scores, maximizes)
    ends = np.empty((2, len(ordered)))
    for k, weights in enumerate(_best_of(len(ordered)), start=1):
        # A share that is equal to the end's but for rounding is enough.
        reached = np.cumsum(weights) + 1e-12
        for end, share in enumerate(((1 - level) / 2, (1 + level) / 2)):
            ends[end, k - 1] = ordered[np.searchsorted(reached, share)]
    low, high = sign * ends
    return (low, high) if maximizes else (high, low)


def _ordered(scores: Sequence[float] | np.ndarray, maximizes: bool) -> tuple[np.ndarray, int]:
    """The finite scores, worst first, as if more were better, and the sign that makes them what they were."""
    sign = 1 if maximizes else -1
    known = np.asarray(scores, float)
    return np.sort(sign * known[np.isfinite(known)]), sign


def _best_of(many: int) -> Iterator[np.ndarray]:
    """For k from 1 to `many`: how likely each of so many scores, worst first, is the best of k of them."""
    below = np.arange(many)

    def logarithm(above: Any, chosen: int) -> Any:
        """Of a binomial coefficient; many candidates have larger ones than a float holds."""
        return gammaln(above + 1) - gammaln(chosen + 1) - gammaln(above - chosen + 1)

    for k in range(1, many + 1):
        # A score with i below it is the highest of k in comb(i, k - 1) of the comb(n, k) draws.
        can = below >= k - 1
        weights = np.zeros(many)
        weights[can] = np.exp(logarithm(below[can], k - 1) - logarithm(many, k))
        yield weights / weights.sum()  # which is 1 but for rounding
