"""What is searched: choices and the values to draw them from, checked before anything is trained.

A random search draws its candidates from a space, and a comparison that tunes draws every variant's trials from it.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mlplab.calls import Call, FrozenDict, plain, shown, thawed
from mlplab.checks import UsageError, check_question, whole
from mlplab.distributions import Distribution, plain_values, read_values, values_of
from mlplab.sources import Data
from mlplab.spec import FIRST_SEED, MAX_SEED, Training, check_base

MAX_TRIALS = 1_000


@dataclass(frozen=True)
class Space:
    """What is drawn for trainings that are otherwise like `base`.

    Args:
        values: as `values_of` gives it. What only some optimizers or models take, such as `optimizer.momentum`, is
            drawn for those.
    """

    base: Training
    values: FrozenDict

    def check(self) -> None:
        """Raises a `UsageError` for the first value that is illegal, alone or with its optimizer or model."""
        for kind in self.kinds:
            chosen: dict[str, Any] = {name: kind[name][0] for name in ("model", "optimizer") if name in kind}
            for name, values in kind.items():
                for value in self._ends(name, values):
                    try:
                        self.base.but({**chosen, name: value})
                        if isinstance(values, Distribution) and self.is_whole(name):
                            whole(name, value, 0, 10**9)
                    except UsageError as error:
                        said = f"the values of {name!r} in space are {self.values[name]!r}"
                        raise UsageError(f"{said}: {error}") from None

    def check_many(self, what: str, wanted: int) -> None:
        """Raises a `UsageError` where fewer different ones than `wanted` can be drawn; `what` is what they are."""
        possible = sum(math.prod(self._how_many(name, values) for name, values in kind.items()) for kind in self.kinds)
        if wanted > possible:
            raise UsageError(
                f"{what} is {wanted}, but the values in space allow {possible} different ones; legal: up to "
                f"{possible}, or a Uniform or LogUniform in space that has more."
            )

    def _ends(self, name: str, values: Any) -> Iterable[Any]:
        if not isinstance(values, Distribution):
            return values  # type: ignore[no-any-return]
        ends = (values.low, values.high)
        # Ends that are not whole stay as they are, for the check that refuses them.
        return tuple(int(end) if end == int(end) else end for end in ends) if self.is_whole(name) else ends

    def _how_many(self, name: str, values: Any) -> float:
        """How many different values of a choice may be drawn."""
        if not isinstance(values, Distribution):
            return len(values)
        return int(values.high) - int(values.low) + 1 if self.is_whole(name) else math.inf

    def is_whole(self, name: str) -> bool:
        """Whether a choice is a whole number: by what it is of, or else by the ends of its distribution."""
        if name in ("batch_size", "epochs"):
            return True
        root, _, argument = name.partition(".")
        values = self.values.get(name)
        ends_whole = isinstance(values, Distribution) and isinstance(values.low, int) and isinstance(values.high, int)
        of = self.roots(root)[0] if argument and self.roots(root) else None
        taken = (of.parameters() or {}).get(argument) if of is not None else None
        if taken is None:
            return ends_whole and name != "learning_rate"
        known = {"int": int, "float": float}.get(taken.annotation, taken.annotation)
        known = known if known in (int, float) else type(taken.default)
        return known is int or (known is not float and ends_whole)

    def roots(self, root: str) -> list[Call]:
        """The optimizers or models that may be drawn."""
        if root not in self.values:
            own = getattr(self.base, root)
            return [own] if isinstance(own, Call) else []
        return [getattr(self.base.but({root: value}), root) for value in self.values[root]]

    @property
    def kinds(self) -> tuple[dict[str, Any], ...]:
        """The space as scikit-learn takes one whose choices depend on each other: for each optimizer what applies."""
        found: list[dict[str, Any]] = [dict(self.values)]
        for root in ("optimizer", "model"):
            if root not in self.values and not any(name.startswith(f"{root}.") for name in self.values):
                continue
            parts = []
            # A model that is compiled already has an optimizer that no choice is of.
            takers: list[Any] = self.roots(root) or [None]
            for value, of in zip(self.values.get(root, (None,)), takers, strict=True):
                taken = {} if of is None else of.parameters()
                for kind in found:
                    part = {
                        name: (value,) if name == root else each
                        for name, each in kind.items()
                        if not name.startswith(f"{root}.") or taken is None or name.partition(".")[2] in taken
                    }
                    parts.append(part)
            found = parts
        return tuple(found)

    @property
    def taken(self) -> frozenset[str]:
        """The choices that some of what may be drawn takes."""
        return frozenset(name for kind in self.kinds for name in kind)

    def corners(self, name: str) -> tuple[Training, ...]:
        """A training of each kind, called `name` and its number, by which is seen whether all can be built."""
        found = []
        for place, kind in enumerate(self.kinds, start=1):
            first = {choice: next(iter(self._ends(choice, values))) for choice, values in kind.items()}
            found.append(self.base.but({**first, "name": f"{name} {place}"[-100:]}))
        return tuple(found)

    def drawn(self, share: Callable[[str], float]) -> dict[str, Any]:
        """The choices at a share, from 0 to below 1, of each choice's values; those that apply to each other."""

        def value(name: str) -> Any:
            values = self.values[name]
            if isinstance(values, Distribution):
                return values.at(share(name), self.is_whole(name))
            return values[int(share(name) * len(values))]

        made = {root: (value(root),) for root in ("optimizer", "model") if root in self.values}
        kind = next(kind for kind in self.kinds if all(kind[root] == one for root, one in made.items()))
        return {name: made[name][0] if name in made else value(name) for name in kind}

    def choices(self, candidate: Training) -> dict[str, Any]:
        """What of a candidate was drawn: its searched choices, without those that do not apply to its optimizer.

        `base.but` of them gives the candidate again.
        """
        found = {}
        for name in self.values:
            root, _, argument = name.partition(".")
            of = getattr(candidate, root)
            if not argument:
                found[name] = self._listed_as(name, of)
            elif isinstance(of, Call) and argument in of.arguments:
                found[name] = of.arguments[argument]
        return found

    def _listed_as(self, root: str, of: Any) -> Any:
        """A candidate's optimizer or model as it is in the space: without the arguments that are drawn on their own."""
        names = [name.partition(".")[2] for name in self.values if name.startswith(f"{root}.")]
        if not isinstance(of, Call) or not names:
            return of
        drawn = {name: of.arguments[name] for name in names if name in of.arguments}
        return next((one for one in self.roots(root) if isinstance(one, Call) and one.but(**drawn) == of), of)


@dataclass(frozen=True)
class Tune:
    """How the variants of a comparison are tuned before they are compared: by random search, as many trials for each.

    A trial is trained on four fifths of the training examples and scored on the rest by the comparison's selection
    metric at its best epoch; the variant's best trial is the variant that is compared, on seeds that no trial had. No
    verdict sees the examples that trials were scored on as anything but training examples.

    Trial i of a choice has the same value in every variant that it is drawn for. A choice is drawn for the
    variants that take it and leave it open: what a variant itself says stays, so that
    `{"SGD": {"optimizer.momentum": 0.0}, "momentum": {}}` are two variants of one space.

    Args:
        space: choice, as `Training.but` takes it -> the values to draw from: a list, `Uniform` or `LogUniform`.
        trials: of each variant, from 2 on.
        halving: whether a trial is stopped early that is worse than half of those before it were after as many epochs;
            by Optuna, which the extra `tune` has. It saves epochs, and may stop one that starts slowly and ends well.
        chosen: variant -> choice -> the value of its best trial; filled in by the tuning.

    Raises:
        UsageError: an unknown choice, an illegal value or number.

    Examples:
        >>> from mlplab import LogUniform
        >>> Tune({"learning_rate": LogUniform(1e-4, 1)}, trials=8).trials
        8
    """

    space: Mapping[str, Any]
    trials: int = 16
    halving: bool = False
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", values_of(self.space))
        whole("trials", self.trials, 2, MAX_TRIALS)
        if not isinstance(self.halving, bool):
            raise UsageError(f"halving is {self.halving!r}; legal: True or False.")
        held = {name: FrozenDict(choices) for name, choices in self.chosen.items()}
        object.__setattr__(self, "chosen", FrozenDict(held))

    def of(self, variant: Training, change: Mapping[str, Any]) -> Space:
        """What is drawn for a variant: what it takes, and does not say itself in its difference from base."""
        values = {name: values for name, values in self.space.items() if not _says(change, name)}
        if variant.optimizer is None and "optimizer" not in values:
            values.pop("learning_rate", None)
        space = Space(variant, FrozenDict(values))
        return replace(space, values=FrozenDict({k: v for k, v in values.items() if k in space.taken}))

    def check(self, spaces: Mapping[str, Space]) -> None:
        """Raises a `UsageError` where a variant's trials cannot be drawn or trained from its space."""
        for name, space in spaces.items():
            try:
                if space.base.splits == "resampled":
                    raise UsageError(
                        "splits is 'resampled', but then a seed's validation examples are among those that tuned; "
                        "legal with tune: splits='fixed'."
                    )
                if not space.values:
                    raise UsageError(
                        f"nothing of tune's space is drawn for it: it takes none of {', '.join(self.space)}, or says "
                        "each itself; legal: as many trials for every variant. Leave a choice of it open, or compare "
                        "without tune."
                    )
                space.check()
                space.check_many("trials", self.trials)
            except UsageError as error:
                raise UsageError(f"variant {name!r}: {error}") from None

    def check_taken(self, spaces: Mapping[str, Space]) -> None:
        """Raises a `UsageError` for a choice that is drawn for no variant."""
        for name in self.space:
            if not any(name in space.values for space in spaces.values()):
                raise UsageError(
                    f"{name} is in tune's space, but no variant takes it and leaves it open; delete it from there, or "
                    "from the variants that say it themselves."
                )

    def draw(self, space: Space, seed: int) -> tuple[dict[str, Any], ...]:
        """The choices of each trial of a variant, no two equal.

        By Latin hypercube (McKay et al. 1979): of n trials each has another n-th of every choice's values, so that none
        is left out by chance, as learning rates of a whole magnitude may be among 16 drawn freely. Which it is, and
        where in it, hangs on the seed, the choice's name and n alone, and so is the same for all variants. Where the
        lists of one make trials equal, it takes the next of its own.
        """
        found: dict[frozenset[Any], dict[str, Any]] = {}
        for block in itertools.count():
            shares = {name: self._shares(f"{seed} {name} {block}") for name in space.values}
            for place in range(self.trials):
                choices = space.drawn({name: each[place] for name, each in shares.items()}.__getitem__)
                found.setdefault(frozenset(choices.items()), choices)
                if len(found) == self.trials:
                    return tuple(found.values())
        raise AssertionError

    def _shares(self, seed: str) -> list[float]:
        """As many numbers from 0 to below 1 as there are trials, one in each part of as many, in random order."""
        # Seeded by a text `random` gives the same numbers in every process and, this method alone, in every version.
        draw = random.Random(seed).random
        order = [draw() for _ in range(self.trials)]
        return [(place + draw()) / self.trials for place in sorted(range(self.trials), key=order.__getitem__)]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; `from_dict` reads it back."""
        chosen = {name: plain(choices) for name, choices in self.chosen.items()}
        return {"space": plain_values(self.space), "trials": self.trials, "halving": self.halving, "chosen": chosen}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Tune":
        """What `to_dict` gave."""
        chosen = {name: thawed(choices) for name, choices in record["chosen"].items()}
        return cls(read_values(record["space"]), record["trials"], record["halving"], chosen=chosen)


def _says(change: Mapping[str, Any], name: str) -> bool:
    """Whether a variant's difference from base says a choice: itself, by a part of it, or within a call."""
    root, _, argument = name.partition(".")
    if name in change or any(key.startswith(f"{name}.") for key in change):
        return True
    within = change.get("optimizer" if name == "learning_rate" else root)
    return isinstance(within, Call) and (argument or name) in within.arguments


@dataclass(frozen=True, kw_only=True)
class Search:
    """A random search: candidates drawn from a space, each cross-validated; the best is trained anew on all folds.

    Args:
        question: one sentence that ends in a question mark.
        data: what the question is about, as in a `Comparison`; with one input and one output.
        base: what all candidates share.
        space: choice, as `Training.but` takes it -> the values to draw from: a list, `Uniform` or `LogUniform`. What
            only some optimizers or models take, such as `optimizer.momentum`, is drawn for those. From lists alone
            every possible candidate is as likely as any other; else every optimizer is, and every value of a list. No
            two candidates are equal.
        candidates: how many are drawn; at most as many as there are.
        folds: of the cross-validation over the training examples, stratified where they have classes.
        race: whether folds are taken one after the other, and candidates that are clearly worse than the leader by then
            get no further one, see `mlplab.racing`: it pays with ten folds and more.
        scoring: of the folds, by scikit-learn's names; "": `accuracy` for classes, `r2` for numbers.
        seed: of the drawing, the folds, and every training.
        name: given by `load_experiment`.

    Raises:
        UsageError: an unknown choice, an illegal value, values that do not go together, more candidates than there are.

    Examples:
        >>> from mlplab import LogUniform
        >>> search = Search(
        ...     question="Which learning rate and batch size suit this MLP?",
        ...     data="digits",
        ...     base=Training(model="mlp", optimizer="sgd", loss="sparse_categorical_crossentropy"),
        ...     space={"learning_rate": LogUniform(1e-3, 1), "batch_size": [32, 128]},
        ...     candidates=8,
        ... )
        >>> search.folds, search.seed
        (3, 1234)
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
        object.__setattr__(self, "space", values_of(self.space))
        if self.base.callbacks or "callbacks" in self.space:
            raise UsageError(
                f"callbacks is {shown(self.space.get('callbacks', self.base.callbacks))}, but a search's folds have no "
                "validation set to stop on; legal: trainings of so many epochs. Delete callbacks."
            )
        drawn = self.drawn
        for name in self.space:
            if name not in drawn.taken:
                takers = ", ".join(one.name for one in drawn.roots(name.partition(".")[0])) or "the candidates"
                raise UsageError(f"{name} is in space, but none of {takers} takes it; delete it from space.")
        drawn.check()
        drawn.check_many("candidates", self.candidates)

    @property
    def drawn(self) -> Space:
        """What candidates are drawn from."""
        assert isinstance(self.space, FrozenDict)
        return Space(self.base, self.space)

    def corners(self) -> tuple[Training, ...]:
        """A candidate of each kind, by which is seen whether all can be built."""
        return self.drawn.corners("a candidate of kind")

    def choices(self, candidate: Training) -> dict[str, Any]:
        """What of a candidate was drawn, see `Space.choices`."""
        return self.drawn.choices(candidate)

    def with_base(self, **changes: Any) -> "Search":
        """The same search with `changes` made to what its candidates share; a choice it searches keeps its values."""
        return replace(self, base=self.base.but(changes))

    def with_seed(self, seed: int) -> "Search":
        """The same search with another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> str:
        """The search as JSON."""
        known = {"base": self.base.to_dict(), "space": plain_values(self.space), "data": self.data.to_dict()}
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)} | known, indent=2, ensure_ascii=False)
