"""Looking while seeds are added: how strict each look has to be, that all of them err as rarely as one alone.

Whoever looks at a result again and again, and stops when it pleases, finds something sooner or later: 30 looks at 5 %
each find a difference between equal variants in 29 % of cases. A group-sequential test spends its 5 % over the looks.
Here the share n / (n + 10) is spent by the n-th seed: half by the tenth, three quarters by the thirtieth, never all of
it. So a look's level depends on the looks before it alone, and neither on how many seeds there will be at most nor on
what is seen: who asks for more seeds later goes on with the same test.

`benchmarks/looks.py` compares that with other ways to spend, and with a confidence sequence.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

HALF_SPENT, SPENDABLE = 10, 0.9
"""Seeds by which half of a level is spent, and the share of it that is spent at all: see `Looks`."""

LEVELS = np.concatenate([np.logspace(-9, -4, 11), np.logspace(-4, 0, 81)[1:]])
"""Of a whole test: between them the level of a look is interpolated, which is exact to a thousandth of it."""


def spent(seeds: np.ndarray) -> np.ndarray:
    """The share of a test's level that is spent by the time there are so many seeds, shape as given."""
    share: np.ndarray = SPENDABLE * seeds / (seeds + HALF_SPENT)
    return share


def boundaries(spending: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """How far a standardized mean has to be from 0 at each look, on either side, for a level to be spent as planned.

    By recursive integration over the sum of the differences (Armitage, McPherson & Rowe 1969), with the level spent by
    each look given (Lan & DeMets 1983): the probability to cross at a look for the first time is what it may spend.

    Args:
        spending: shape (tests, looks): the probability, without a difference, to have crossed by each look; rising.
        seeds: shape (looks,): how many there are at each look; rising. Their ratios alone count.

    Returns:
        Of each test and look a z-value, shape (tests, looks).

    >>> share = np.arange(1, 6) / 5  # five looks, spent as Lan & DeMets' stand-in for Pocock's boundaries does
    >>> boundaries(0.05 * np.log(1 + (np.e - 1) * share)[None], share).round(3)
    array([[2.438, 2.427, 2.41 , 2.397, 2.386]])
    """
    tests, looks = spending.shape
    found = np.empty((tests, looks))
    found[:, 0] = -ndtri(spending[:, 0] / 2)
    at = weight = np.empty((tests, 0))  # where the sum may be, from 0 on (it is as likely below), and how likely
    for look in range(looks):
        root = np.sqrt(seeds[look])
        spread = np.sqrt(seeds[look] - (seeds[look - 1] if look else 0))
        if look:
            # The probability falls as the boundary rises: halve where it is, for all tests at once.
            low, high = np.zeros(tests), np.full(tests, 40.0 * root)
            for _ in range(50):
                middle = (low + high) / 2
                outside = ndtr((at - middle[:, None]) / spread) + ndtr((-at - middle[:, None]) / spread)
                crosses = 2 * (weight * outside).sum(axis=1) > spending[:, look] - spending[:, look - 1]
                low, high = np.where(crosses, middle, low), np.where(crosses, high, middle)
            found[:, look] = high / root
        edge = found[:, look] * root
        # Points that lie closer than a look's sum spreads to the next.
        points, shares = np.polynomial.legendre.leggauss(int(np.clip(4 * edge.max() / spread, 32, 300)))
        here = edge[:, None] * (points + 1) / 2
        apart = here[:, :, None] - at[:, None, :], here[:, :, None] + at[:, None, :]
        density = sum(np.exp(-((each / spread) ** 2) / 2) for each in apart) @ weight[:, :, None]
        density = density[:, :, 0] if look else np.exp(-((here / spread) ** 2) / 2)
        at, weight = here, density / (np.sqrt(2 * np.pi) * spread) * edge[:, None] * shares / 2
    return found


@functools.lru_cache(maxsize=32)
def _table(looks: tuple[int, ...]) -> np.ndarray:
    """The level of each look for each of `LEVELS`, shape (levels, looks)."""
    seeds = np.asarray(looks, float)
    levels: np.ndarray = 2 * ndtr(-boundaries(LEVELS[:, None] * spent(seeds), seeds))
    return levels


@dataclass(frozen=True)
class Looks:
    """A test that is looked at while seeds are added.

    The levels are those of normal differences of known deviation, and are applied to the p-value of Student's t, which
    errs up to a tenth more often so where looks begin at two or three seeds (simulated; 100,000 times 200 seeds). So
    only nine tenths of a level are spent.

    Args:
        seeds: how many there are at each look so far; rising.

    >>> looks = Looks((5, 10, 15))
    >>> round(looks.level(0.05, 0), 4), round(looks.level(0.05, 2), 4), round(looks.p_value(0.01, 0), 4)
    (0.015, 0.0083, 0.0333)
    """

    seeds: tuple[int, ...]

    def level(self, whole: float, look: int) -> float:
        """The level of a look (counted from 0), for a test whose looks together err with probability `whole`."""
        column = _table(self.seeds)[:, look]
        return float(np.exp(np.interp(np.log(whole), np.log(LEVELS), np.log(column))))

    def p_value(self, p: Any, look: int) -> Any:
        """The least level of the whole test at which `p` at a look (counted from 0) rejects: its sequential p-value.

        Of equal variants it falls below any level at some look with no more than that probability (Liu & Anderson
        2008), so it may be corrected for several tests as any p-value (Maurer & Bretz 2013).

        Args:
            p: a number, or an array of them.

        Returns:
            A number, or an array of the same shape.
        """
        column = _table(self.seeds)[:, look]
        logarithms = np.interp(np.log(np.maximum(p, column[0])), np.log(column), np.log(LEVELS))
        found = np.where(np.asarray(p) >= column[-1], 1.0, np.exp(logarithms))
        return found if np.ndim(p) else float(found)
