"""What is wrong with what somebody gave, and how it is said: what was seen, what is legal, and the remedy."""

import difflib
import re
from collections.abc import Iterable


class UsageError(ValueError):
    """The caller's mistake: says what was wrong, the value seen, what is legal and the remedy."""


class UnavailableError(RuntimeError):
    """The world's failure (a missing or damaged file, no network, a dead server), with the remedy."""


class UndeliveredError(UnavailableError):
    """The work is done, but the tracking store did not take all of its record: the rest waits on disk.

    Attributes:
        refused: whether the store answers, and would not take it.
    """

    def __init__(self, text: str, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


def choose(what: str, value: object, legal: Iterable[str]) -> str:
    """Returns `value` if it is one of `legal`, else raises a `UsageError` that lists them and names the closest.

    >>> choose("profile", "full", ("full", "smoke"))
    'full'
    """
    names = list(legal)
    if isinstance(value, str) and value in names:
        return value
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(value).lower(), folded, n=1)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    raise UsageError(f"unknown {what} {value!r}; legal: {', '.join(names)}.{hint}")


def number(what: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Raises a `UsageError` where `value` is no number from `low` to `high`; `open_low`: above `low`."""
    legal = f"a number {'above' if open_low else 'from'} {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} is {value!r}, a {type(value).__name__}; legal: {legal}.")
    if not low <= value <= high or (open_low and value == low):
        raise UsageError(f"{what} is {value!r}; legal: {legal}.")


def whole(what: str, value: object, low: int, high: int) -> None:
    """Raises a `UsageError` where `value` is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{what} is {value!r}; legal: a whole number from {low} to {high}.")


def check_question(question: object) -> None:
    """Raises a `UsageError` where it is none."""
    if not isinstance(question, str) or not question.strip().endswith("?"):
        raise UsageError(f"question is {question!r}; legal: a sentence that ends in a question mark.")


def check_registered(name: str, alias: str) -> None:
    """Raises a `UsageError` where MLflow's registry would not take a model's name or alias, or could not find it again.

    MLflow forbids / and : in names, and takes 256 characters; in models:/NAME@ALIAS it cuts a name off at a question
    mark, and in a search of the registry at an apostrophe.
    """
    readable = name.strip() and len(name) <= 256 and name.isprintable()
    if not readable or set(name) & set("/:?'") or name in (".", ".."):
        raise UsageError(
            f"name is {name!r}; legal for a registered model: 1 to 256 printable characters, none of / : ? ', and "
            "not . or .. alone. Say such as --name mnist-mlp."
        )
    if not re.fullmatch(r"[\w-]{1,255}", alias) or alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise UsageError(
            f"alias is {alias!r}; legal: 1 to 255 letters, digits, _ and -, but not latest or a version such as v2, "
            "which MLflow keeps for itself. Say such as --alias champion."
        )
