"""The numbers that a claim is judged by, each with the limits it has to keep and its interval over the seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlplab.amounts import significant
from mlplab.statistics import exp, mean_interval

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", "not testable"
STATUSES = (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE)
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
"""What the interval of one number says of a claim."""
EDGE = 1e-9
"""Limits that still count as within are this much wider: numbers are rounded."""


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds.

    Attributes:
        status: one of `STATUSES`.
        measured: our numbers as short text, "–" if there are none.
        evidence: sentences with the numbers, the experiment and the epochs that they are from.
        seeds: how many it stands on.
    """

    status: str
    measured: str
    evidence: str
    seeds: int = 1


@dataclass(frozen=True)
class Unit:
    """How a number is shown: `scale` times its distance from `zero`, formatted, and what it is counted in.

    A form such as ".3g" stands for as many significant digits without an exponent. What is `exact` has no interval: it
    is the same with every seed.
    """

    form: str
    suffix: str = ""
    scale: float = 1.0
    zero: float = 0.0
    exact: bool = False

    def _bare(self, value: float) -> str:
        shown = self.scale * (value - self.zero)
        return significant(shown, int(self.form[1:-1])) if self.form.endswith("g") else format(shown, self.form)

    def text(self, value: float) -> str:
        """`value` as text, "–" where it is not finite."""
        return f"{self._bare(value)}{self.suffix}" if math.isfinite(value) else "–"

    def spread(self, mean: float, low: float, high: float) -> str:
        """A mean with its interval, such as "97.90 % [97.80, 98.00]"; alone where there is none."""
        ends = f" [{self._bare(low)}, {self._bare(high)}]" if math.isfinite(high - low) and not self.exact else ""
        return f"{self.text(mean)}{ends}"


PERCENT, POINTS, SECONDS = Unit(".2f", " %", 100), Unit("+z.2f", " points"), Unit(",.1f", " s")
PLAIN, SHORT, EPOCH_SECONDS = Unit(".4f"), Unit(".2g"), Unit(".3g", " s")
WHOLE, EXACT = Unit(",.0f"), Unit(",.0f", exact=True)
GAP, TIMES, MORE = Unit(".2f", " points"), Unit(".2f", " times"), Unit("+z.0f", " %", 100, zero=1)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that the trainings of one seed give, and what a claim allows it to be.

    Args:
        what: it is, in words.
        value: NaN where there is none; infinite where it is far from anything the claim allows.
        unit: how it is shown.
        low, high: the claim holds where it lies between them.
        allowed: the same in words; "" where the claim is not judged by it.
        doubt: how far another seed may move it; counts where there is one seed alone.
        ratio: whether seeds are averaged by their logarithms.
        named: whether its name belongs to it wherever it is shown.
    """

    what: str
    value: float
    unit: Unit
    low: float = -math.inf
    high: float = math.inf
    allowed: str = ""
    doubt: float = 0.0
    ratio: bool = False
    named: bool = False

    def says(self, low: float, high: float) -> str:
        """What the interval from `low` to `high` says of the claim; a limit itself is beyond."""
        if self.low < low and high < self.high:
            return HOLDS
        return FAILS if high <= self.low or low >= self.high else UNDECIDED


@dataclass(frozen=True)
class Seen:
    """What one seed shows of a claim.

    Attributes:
        measured, evidence: as a verdict has them, if this seed is the only one.
        shown: the numbers that stand beside the published ones.
        others: further numbers that are evidence, or that the claim is judged by.
        of: what the numbers are, as far as their names do not say it.
        note: a sentence that holds for any number of seeds.
        confirms: whether the claim is reproduced where all holds; else it can only be refuted.
    """

    measured: str
    evidence: str
    shown: tuple[Quantity, ...] = ()
    others: tuple[Quantity, ...] = ()
    of: str = ""
    note: str = ""
    confirms: bool = True

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All of them."""
        return self.shown + self.others

    @property
    def status(self) -> str:
        """The verdict of this seed alone."""
        judged = [quantity for quantity in self.quantities if quantity.allowed]
        return self.conclude([one.says(one.value - one.doubt, one.value + one.doubt) for one in judged])

    def conclude(self, words: Sequence[str]) -> str:
        """The status, where the numbers that are judged say `words`."""
        if FAILS in words:
            return NOT_REPRODUCED
        return REPRODUCED if words and self.confirms and UNDECIDED not in words else NOT_TESTABLE


@dataclass(frozen=True)
class Estimate:
    """A quantity over the seeds: its mean, with the interval, of the finite ones; how many of how many these are.

    Attributes:
        lost: seeds whose number is not finite. What is left is then a selection, which cannot bear a claim out.
    """

    quantity: Quantity
    mean: float
    low: float
    high: float
    count: int
    seeds: int
    lost: int

    @property
    def says(self) -> str:
        """What it says of the claim."""
        word = self.quantity.says(self.low, self.high)
        return UNDECIDED if word == HOLDS and self.lost else word

    @property
    def number(self) -> str:
        """Mean and interval as text, and of how many seeds if not of all."""
        some = f" ({self.count} of {self.seeds} seeds)" if self.count < self.seeds > 1 else ""
        return f"{self.quantity.unit.spread(self.mean, self.low, self.high)}{some}"

    @property
    def sentence(self) -> str:
        """What it is and, where the claim is judged by it, what it says, as part of a sentence."""
        says = f"{self.quantity.what} {self.number}"
        return f"{says}: {self.says} ({self.quantity.allowed})" if self.quantity.allowed else says


def estimated(each: Sequence[Quantity], seeds: int) -> Estimate:
    """One quantity over the seeds that have it."""
    first, values = each[0], [one.value for one in each]
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not first.ratio)]
    lost = len(values) - len(finite)
    if not finite:
        nothing = math.inf if all(value == math.inf for value in values) else math.nan
        return Estimate(first, nothing, nothing, nothing, 0, seeds, lost)
    scale = list(map(math.log, finite)) if first.ratio else finite
    mean, low, high = mean_interval(scale)
    if first.ratio:
        mean, low, high = exp(mean), exp(low), exp(high)
    return Estimate(first, mean, low, high, len(finite), seeds, lost)
