"""What numbers and other values are drawn from, checked before anything is trained."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from mlplab.calls import FrozenDict, frozen, plain, thawed
from mlplab.checks import UsageError, choose, number
from mlplab.spec import Training


@dataclass(frozen=True)
class Distribution:
    """The numbers from `low` to `high`; whole numbers where the choice takes those, such as a batch size."""

    low: float
    high: float
    positive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        number("low", self.low, 0, 1e9, open_low=self.positive)
        number("high", self.high, self.low, 1e9, open_low=True)

    def at(self, share: float, is_whole: bool = False) -> float:
        """The number that a share of them, from 0 to 1, is below.

        >>> Uniform(0, 0.5).at(0.5), round(LogUniform(1, 100).at(0.5), 4), Uniform(1, 3).at(0.99, is_whole=True)
        (0.25, 10.0, 3)
        """
        low, high = self.low, self.high
        if is_whole:  # each whole number's share of the line reaches half a unit to either side
            low, high = low - 0.5, high + 0.5
        value = min(max(self._between(low, high, share), low), high)
        return min(max(round(value), int(self.low)), int(self.high)) if is_whole else value

    def _between(self, low: float, high: float, share: float) -> float:
        raise NotImplementedError


class Uniform(Distribution):
    """Every number from `low` to `high` is as likely as any other; every whole one where the choice takes those.

    Args:
        low: the least, from 0 on.
        high: the greatest, above `low`.

    Raises:
        UsageError: an end is not legal.

    Examples:
        >>> Uniform(0, 0.5).at(0.5)
        0.25
    """

    def _between(self, low: float, high: float, share: float) -> float:
        return low + share * (high - low)


class LogUniform(Distribution):
    """Every magnitude from `low` to `high` is as likely as any other, as suits a learning rate.

    Args:
        low: the least, above 0.
        high: the greatest, above `low`.

    Raises:
        UsageError: an end is not legal.

    Examples:
        >>> round(LogUniform(1, 100).at(0.5), 4)
        10.0
    """

    positive = True

    def _between(self, low: float, high: float, share: float) -> float:
        return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


DISTRIBUTIONS: Mapping[str, type[Distribution]] = {"uniform": Uniform, "log_uniform": LogUniform}
"""By their names in JSON."""


def values_of(space: object) -> FrozenDict:
    """A space as a spec holds it: choice -> the values to draw from, a tuple or a `Distribution`.

    Raises:
        UsageError: it is none, a choice is unknown, or has no values.
    """
    if not isinstance(space, Mapping) or not space:
        raise UsageError(
            f"space is {space!r}; legal: a dict from a choice of Training to its values, such as "
            "{'model.dropout': [0.2, 0.5], 'learning_rate': LogUniform(1e-3, 1e-1)}."
        )
    held: dict[str, Any] = {}
    for name, values in space.items():
        root = name.partition(".")[0] if isinstance(name, str) else name
        choose("choice of a training", root, (f.name for f in fields(Training) if f.name not in ("name", "splits")))
        if not isinstance(values, Distribution | list | tuple) or not values:
            raise UsageError(
                f"the values of {name!r} are {values!r}; legal: a list that is not empty, Uniform(low, high) or "
                "LogUniform(low, high)."
            )
        if isinstance(values, Distribution) and name in ("model", "optimizer"):
            raise UsageError(f"the values of {name!r} are {values!r}; legal: a list.")
        held[name] = values if isinstance(values, Distribution) else _listed(name, values)
    return FrozenDict(held)


def _listed(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    # A list (so JSON has a model's widths) could be changed behind the check's back.
    listed = tuple(frozen(name, value, makes="." not in name) for value in values)
    for place, value in enumerate(listed):
        if value in listed[:place]:
            raise UsageError(
                f"the values of {name!r} have {value!r} more than once; legal: different values. Delete the repetition."
            )
    return listed


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A space as JSON has it; `read_values` reads it back."""
    names = {kind: name for name, kind in DISTRIBUTIONS.items()}
    return {
        name: {names[type(each)]: [each.low, each.high]} if isinstance(each, Distribution) else plain(each)
        for name, each in values.items()
    }


def read_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `plain_values` gave."""
    found: dict[str, Any] = {}
    for name, each in record.items():
        if isinstance(each, Mapping):
            ((kind, ends),) = each.items()
            found[name] = DISTRIBUTIONS[kind](*ends)
        else:
            found[name] = thawed(each)
    return found
