"""A random search: what its candidates are drawn from, checked before anything is trained."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from mlplab.calls import Call, FrozenDict, frozen, plain, shown
from mlplab.checks import UsageError, choose, number, whole
from mlplab.comparison import FIRST_SEED, MAX_SEED, check_base, check_question
from mlplab.sources import Data
from mlplab.spec import Training


@dataclass(frozen=True)
class Range:
    """The numbers of a search from `low` to `high`; `log`: evenly over their magnitudes, as for a learning rate.

    Whole numbers are drawn where the choice takes whole numbers, such as a batch size.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        number("low", self.low, 0, 1e9, open_low=self.log)
        number("high", self.high, self.low, 1e9, open_low=True)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A random search: candidates drawn from a space, each cross-validated; the best is trained anew on all folds.

    Args:
        question: one sentence that ends in a question mark.
        data: what the question is about, as in a `Comparison`; with one input and one output.
        base: what all candidates share.
        space: choice, as `Training.but` takes it -> the values to draw from: a list, or a `Range`. What only some
            optimizers or models take, such as `optimizer.momentum`, is drawn for those. From lists alone every possible
            candidate is as likely as any other; else every optimizer is, and every value of a list. No two candidates
            are equal.
        candidates: how many are drawn; at most as many as there are.
        folds: of the cross-validation over the training examples, stratified where they have classes.
        race: whether folds are taken one after the other, and candidates that are clearly worse than the leader by then
            get no further one, see `mlplab.racing`: it pays with ten folds and more.
        scoring: of the folds, by scikit-learn's names; "": `accuracy` for classes, `r2` for numbers.
        seed: of the drawing, the folds, and every training.
        name: given by `load_experiment`.

    Raises:
        UsageError: an unknown choice, an illegal value, values that do not go together, more candidates than there are.
    """

    question: str
    data: Any
    base: Training = field(default_factory=Training)
    space: Mapping[str, Any]
    candidates: int = 10
    folds: int = 3
    race: bool = False
    scoring: str = ""
    seed: int = FIRST_SEED
    name: str = ""

    def __post_init__(self) -> None:
        check_question(self.question)
        check_base(self.base)
        object.__setattr__(self, "data", Data.of(self.data))
        whole("candidates", self.candidates, 1, 100_000)
        whole("folds", self.folds, 2, 100)
        if not isinstance(self.race, bool):
            raise UsageError(f"race is {self.race!r}; legal: True or False.")
        whole("seed", self.seed, 0, MAX_SEED)
        if not isinstance(self.space, Mapping) or not self.space:
            raise UsageError(
                f"space is {self.space!r}; legal: a dict from a choice of Training to its values, such as "
                "{'model.dropout': [0.2, 0.5], 'learning_rate': Range(1e-3, 1e-1, log=True)}."
            )
        held: dict[str, Any] = {}
        for name, values in self.space.items():
            root = name.partition(".")[0] if isinstance(name, str) else name
            choose("choice of a training", root, (f.name for f in fields(Training) if f.name not in ("name", "splits")))
            if not isinstance(values, Range | list | tuple) or not values:
                raise UsageError(f"the values of {name!r} are {values!r}; legal: a list that is not empty, or a Range.")
            held[name] = values if isinstance(values, Range) else _listed(name, values)
        object.__setattr__(self, "space", FrozenDict(held))
        if self.base.callbacks or "callbacks" in held:
            raise UsageError(
                f"callbacks is {shown(held.get('callbacks', self.base.callbacks))}, but a search's folds have no "
                "validation set to stop on; legal: trainings of so many epochs. Delete callbacks."
            )
        kinds = self.kinds
        for name in held:
            if not any(name in kind for kind in kinds):
                takers = ", ".join(one.name for one in self._roots(name.partition(".")[0]))
                raise UsageError(f"{name} is in space, but none of {takers} takes it; delete it from space.")
        for kind in kinds:
            self._check(kind)
        possible = sum(math.prod(self._how_many(name, values) for name, values in kind.items()) for kind in kinds)
        if self.candidates > possible:
            raise UsageError(
                f"candidates is {self.candidates}, but the values in space allow {possible} different ones; legal: up "
                f"to {possible}, or a Range in space that has more."
            )

    def _check(self, kind: Mapping[str, Any]) -> None:
        """Raises a `UsageError` for the first value of `kind` that is illegal, alone or with its optimizer."""
        chosen = {name: kind[name][0] for name in ("model", "optimizer") if name in kind}
        for name, values in kind.items():
            if isinstance(values, Range) and name in ("model", "optimizer"):
                raise UsageError(f"the values of {name!r} are {values!r}; legal: a list.")
            for value in self._ends(name, values):
                try:
                    self.base.but({**chosen, name: value})
                    if isinstance(values, Range) and self.is_whole(name):
                        whole(name, value, 0, 10**9)
                except UsageError as error:
                    raise UsageError(f"the values of {name!r} in space are {self.space[name]!r}: {error}") from None

    def _ends(self, name: str, values: Any) -> Iterable[Any]:
        if not isinstance(values, Range):
            return values  # type: ignore[no-any-return]
        ends = (values.low, values.high)
        # Ends that are not whole stay as they are, for the check that refuses them.
        return tuple(int(end) if end == int(end) else end for end in ends) if self.is_whole(name) else ends

    def _how_many(self, name: str, values: Any) -> float:
        """How many different values of a choice may be drawn."""
        if not isinstance(values, Range):
            return len(values)
        return int(values.high) - int(values.low) + 1 if self.is_whole(name) else math.inf

    def is_whole(self, name: str) -> bool:
        """Whether a choice is a whole number: by what it is of, or else by the ends of its range."""
        if name in ("batch_size", "epochs"):
            return True
        root, _, argument = name.partition(".")
        values = self.space.get(name)
        ends_whole = isinstance(values, Range) and isinstance(values.low, int) and isinstance(values.high, int)
        of = self._roots(root)[0] if argument and self._roots(root) else None
        taken = (of.parameters() or {}).get(argument) if of is not None else None
        if taken is None:
            return ends_whole and name != "learning_rate"
        known = {"int": int, "float": float}.get(taken.annotation, taken.annotation)
        known = known if known in (int, float) else type(taken.default)
        return known is int or (known is not float and ends_whole)

    def _roots(self, root: str) -> list[Call]:
        """The optimizers or models that candidates may have."""
        if root not in self.space:
            own = getattr(self.base, root)
            return [own] if isinstance(own, Call) else []
        values = self.space[root]
        if isinstance(values, Range):
            raise UsageError(f"the values of {root!r} are {values!r}; legal: a list.")
        return [getattr(self.base.but({root: value}), root) for value in values]

    @property
    def kinds(self) -> tuple[dict[str, Any], ...]:
        """The space as scikit-learn takes one whose choices depend on each other: for each optimizer what applies."""
        found: list[dict[str, Any]] = [dict(self.space)]
        for root in ("optimizer", "model"):
            if root not in self.space and not any(name.startswith(f"{root}.") for name in self.space):
                continue
            values = self.space.get(root, (None,))
            parts = []
            for value, of in zip(values, self._roots(root), strict=True):
                taken = of.parameters()
                for kind in found:
                    part = {
                        name: (value,) if name == root else each
                        for name, each in kind.items()
                        if not name.startswith(f"{root}.") or taken is None or name.partition(".")[2] in taken
                    }
                    parts.append(part)
            found = parts
        return tuple(found)

    def corners(self) -> tuple[Training, ...]:
        """A candidate of each kind, by which is seen whether all can be built."""
        found = []
        for place, kind in enumerate(self.kinds, start=1):
            first = {name: next(iter(self._ends(name, values))) for name, values in kind.items()}
            found.append(self.base.but({**first, "name": f"a candidate of kind {place}"}))
        return tuple(found)

    def choices(self, candidate: Training) -> dict[str, Any]:
        """What of a candidate was drawn: its searched choices, without those that do not apply to its optimizer.

        `base.but` of them gives the candidate again.
        """
        found = {}
        for name in self.space:
            root, _, argument = name.partition(".")
            of = getattr(candidate, root)
            if not argument:
                found[name] = self._listed_as(name, of)
            elif isinstance(of, Call) and argument in of.arguments:
                found[name] = of.arguments[argument]
        return found

    def _listed_as(self, root: str, of: Any) -> Any:
        """A candidate's optimizer or model as it is in the space: without the arguments that are drawn on their own."""
        names = [name.partition(".")[2] for name in self.space if name.startswith(f"{root}.")]
        if not isinstance(of, Call) or not names:
            return of
        drawn = {name: of.arguments[name] for name in names if name in of.arguments}
        return next((one for one in self._roots(root) if isinstance(one, Call) and one.but(**drawn) == of), of)

    def with_base(self, **changes: Any) -> "Search":
        """The same search with `changes` made to what its candidates share; a choice it searches keeps its values."""
        return replace(self, base=self.base.but(changes))

    def with_seed(self, seed: int) -> "Search":
        """The same search with another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> str:
        """The search as JSON."""
        space = {k: asdict(v) if isinstance(v, Range) else plain(v) for k, v in self.space.items()}
        known = {"base": self.base.to_dict(), "space": space, "data": self.data.to_dict()}
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)} | known, indent=2, ensure_ascii=False)


def _listed(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    # A list (so JSON has a model's widths) could be changed behind the check's back.
    listed = tuple(frozen(name, value, makes="." not in name) for value in values)
    for place, value in enumerate(listed):
        if value in listed[:place]:
            raise UsageError(
                f"the values of {name!r} have {value!r} more than once; legal: different values. Delete the repetition."
            )
    return listed
