"""How amounts, differences and margins are written for readers, with their unit."""

import math
from collections.abc import Callable
from decimal import Decimal


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


def counted(many: int, what: str) -> str:
    """So many of a thing, such as an epoch.

    >>> counted(1, "epoch"), counted(1_000, "epoch")
    ('1 epoch', '1,000 epochs')
    """
    return f"{many:,} {what}{'s' * (many != 1)}"


def _signless(text: str) -> str:
    """A zero without a minus."""
    return text.removeprefix("-") if not text.strip("-0.") else text


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits as people write it, such as 1,870; only extremes have an exponent."""
    rounded = f"{value:.{digits}g}"
    return f"{Decimal(rounded):,f}" if value == 0 or 1e-6 <= abs(value) < 1e15 else rounded
