"""What can be compared: frozen, validated descriptions that need neither TensorFlow nor MLflow.

A comparison is data. A file holds one `COMPARISON`, and importing the file is what checks it, so that a typing
error costs a line number and not an hour of training.
"""

import difflib
import json
import math
import re
import runpy
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

OPTIMIZERS = ("sgd", "adam", "rmsprop")
WITH_MOMENTUM = ("sgd",)
"""Of these the optimizers that have a momentum."""
ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu")
DATASETS = ("mnist", "cifar10")
SELECTION_METRICS: Mapping[str, str] = MappingProxyType({"val_accuracy": "max", "val_loss": "min"})
MAX_SEED = 2**31 - 1
FIRST_SEED = 1234
MAX_SEEDS = 1_000


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


def better(select: str, a: float, b: float) -> bool:
    """Whether `a` is a better value of a selection metric than `b`; a value that is not finite is never."""
    if not math.isfinite(a):
        return False
    return not math.isfinite(b) or (a > b if SELECTION_METRICS[select] == "max" else a < b)


def choose(what: str, value: object, legal: Iterable[str]) -> str:
    """Returns `value` if it is one of `legal`, else raises a `UsageError` that lists them and names the closest."""
    names = list(legal)
    if isinstance(value, str) and value in names:
        return value
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(value).lower(), folded, n=1)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    raise UsageError(f"unknown {what} {value!r}; legal: {', '.join(names)}.{hint}")


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


def _number(what: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    legal = f"a number {'above' if open_low else 'from'} {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} is {value!r}, a {type(value).__name__}; legal: {legal}.")
    if not low <= value <= high or (open_low and value == low):
        raise UsageError(f"{what} is {value!r}; legal: {legal}.")


def _whole(what: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{what} is {value!r}; legal: a whole number from {low} to {high}.")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train one multilayer perceptron: every choice a comparison can vary.

    Args:
        name: what the run is called; given by the comparison.
        hidden: units of each hidden layer, from the input to the output.
        activation: activation of the hidden layers, a Keras name.
        dropout: share of each hidden layer's outputs dropped in training, 0 to below 1.
        l2: weight of the L2 penalty on every kernel.
        batch_norm: batch normalization before each hidden activation.
        optimizer: `sgd`, `adam` or `rmsprop`.
        learning_rate: initial learning rate.
        momentum: momentum of SGD.
        decay: Keras' old `decay`: the learning rate at step t is `learning_rate / (1 + decay * t)`.
        batch_size: images a step; `"full"` for the whole training set.
        epochs: passes over the training set; with `patience`, at most.
        patience: stop after so many epochs in which the validation loss has not become lower; 0 never stops early.

    Raises:
        UsageError: a value is not legal; the message says which values are.
    """

    name: str = ""
    hidden: tuple[int, ...] = (128, 64)
    activation: str = "relu"
    dropout: float = 0.0
    l2: float = 0.0
    batch_norm: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    decay: float = 0.0
    batch_size: int | str = 128
    epochs: int = 50
    patience: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or len(self.name) > 100 or not self.name.isprintable():
            raise UsageError(f"a variant's name is {self.name!r}; legal: up to 100 printable characters.")
        if not isinstance(self.hidden, tuple | list) or not self.hidden:
            raise UsageError(f"hidden is {self.hidden!r}; legal: a tuple of layer widths such as (128, 64).")
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for units in self.hidden:
            _whole("a width in hidden", units, 1, 65_536)
        choose("activation", self.activation, ACTIVATIONS)
        choose("optimizer", self.optimizer, OPTIMIZERS)
        _number("dropout", self.dropout, 0, 0.99)
        _number("l2", self.l2, 0, 10)
        _number("learning_rate", self.learning_rate, 0, 100, open_low=True)
        _number("momentum", self.momentum, 0, 1)
        _number("decay", self.decay, 0, 1)
        _whole("epochs", self.epochs, 1, 100_000)
        _whole("patience", self.patience, 0, 100_000)
        if not isinstance(self.batch_norm, bool):
            raise UsageError(f"batch_norm is {self.batch_norm!r}; legal: True or False.")
        if self.batch_size != "full" and (isinstance(self.batch_size, str | bool) or not self._whole_batch()):
            raise UsageError(f"batch_size is {self.batch_size!r}; legal: a whole number from 1, or 'full'.")
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            raise UsageError(
                f"momentum is {self.momentum!r} with optimizer {self.optimizer!r}; momentum is an option of 'sgd': "
                "set it to 0 or choose optimizer='sgd'."
            )

    def _whole_batch(self) -> bool:
        return isinstance(self.batch_size, int) and 1 <= self.batch_size <= 10_000_000

    def but(self, **changes: Any) -> "Variant":
        """Returns this variant with `changes`.

        Raises:
            UsageError: a key is no field of a variant, or a value is not legal.
        """
        for key in changes:
            choose("field of a variant", key, (f.name for f in fields(self)))
        return replace(self, **changes)

    def chosen(self, choices: Mapping[str, Any]) -> "Variant":
        """Returns this variant with what a search chose, whose optimizer may have no momentum: it is 0 then.

        Raises:
            UsageError: as `but`.
        """
        without = choices.get("optimizer", self.optimizer) not in WITH_MOMENTUM
        return self.but(**{**({"momentum": 0.0} if without else {}), **choices})

    def steps_per_epoch(self, examples: int) -> int:
        """Weight updates in an epoch over `examples` images; the last, smaller batch counts."""
        return -(-examples // self.images_per_step(examples))

    def images_per_step(self, examples: int) -> int:
        """The batch size in images, where the training set has `examples`."""
        return examples if isinstance(self.batch_size, str) else min(self.batch_size, examples)

    def params(self) -> dict[str, str | int | float | bool]:
        """Every field but the name, as flat values that a tracking store takes and a reader understands."""
        values = asdict(self)
        del values["name"]
        return {k: "-".join(map(str, v)) if isinstance(v, tuple) else v for k, v in values.items()}


def _question(question: object) -> None:
    if not isinstance(question, str) or not question.strip().endswith("?"):
        raise UsageError(f"question is {question!r}; legal: a sentence that ends in a question mark.")


def _base(base: object) -> None:
    if not isinstance(base, Variant):
        raise UsageError(f"base is {base!r}; legal: a Variant.")


@dataclass(frozen=True)
class WinnerOf:
    """In the place of a variant's difference from base: what the winner of a search chose, once that is known.

    Args:
        search: name of an experiment that is a `Search`.
    """

    search: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A question, and the variants whose training answers it.

    Args:
        question: one sentence that ends in a question mark.
        dataset: the data set the question is about: `mnist` or `cifar10`.
        base: what all variants share.
        variants: name of a variant -> its difference from `base`, as fields of `Variant`, or `WinnerOf` a search.
        select: the validation metric that picks a run's best epoch and the comparison's winner.
        seeds: of initial weights, batch order and dropout: every variant is trained with each, so that its trainings
            pair with those of the other variants; a number n stands for n seeds from 1234 on.
        baseline: the variant that the others are compared with; "" is the first.
        margin: differences of the selection metric that are practically none: a share of images (0.002 is 0.2 points),
            which holds for the gap between training and validation accuracy, too; nats where the metric is a loss.
        time_margin: the same of training times, as a share.
        targets: validation metric -> the value whose first reaching is timed.
        name: given by `load_experiment`: the file's stem.

    Raises:
        UsageError: fewer than one variant, two equal variants, an unknown field or metric, an illegal value.
    """

    question: str
    dataset: str
    base: Variant = field(default_factory=Variant)
    variants: Mapping[str, Mapping[str, Any] | WinnerOf]
    select: str = "val_accuracy"
    seeds: tuple[int, ...] | int = (FIRST_SEED,)
    baseline: str = ""
    margin: float = 0.002
    time_margin: float = 0.05
    targets: Mapping[str, float] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        _question(self.question)
        if not isinstance(self.name, str):
            raise UsageError(f"a comparison's name is {self.name!r}; legal: a text.")
        choose("data set", self.dataset, DATASETS)
        if isinstance(self.select, str) and self.select.startswith("test"):
            raise UsageError(
                f"the selection metric is {self.select!r}, but selecting on the test set would spend it; "
                f"legal: {', '.join(SELECTION_METRICS)}. The test set is evaluated once, at the selected epoch."
            )
        choose("selection metric", self.select, SELECTION_METRICS)
        object.__setattr__(self, "seeds", _seeds(self.seeds))
        _number("margin", self.margin, 0, 1)
        _number("time_margin", self.time_margin, 0, 1)
        if not isinstance(self.targets, Mapping):
            raise UsageError(f"targets is {self.targets!r}; legal: a dict such as {{'val_accuracy': 0.97}}.")
        for metric, value in self.targets.items():
            choose("target's metric", metric, SELECTION_METRICS)
            _number(f"the target of {metric}", value, 0, 1 if SELECTION_METRICS[metric] == "max" else 1e9)
        object.__setattr__(self, "targets", MappingProxyType(dict(self.targets)))
        _base(self.base)
        if not isinstance(self.variants, Mapping) or not self.variants:
            raise UsageError(
                f"variants is {self.variants!r}; legal: a dict with at least one entry, from a variant's name to its "
                "difference from base, such as {'Adam': {'optimizer': 'adam'}}."
            )
        frozen: dict[str, Mapping[str, Any] | WinnerOf] = {}
        for name, change in self.variants.items():
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"a variant's name is {name!r}; legal: a text that is not empty.")
            if isinstance(change, WinnerOf):
                frozen[name] = change
                continue
            if not isinstance(change, Mapping):
                raise UsageError(f"variant {name!r} is {change!r}; legal: a dict of fields of Variant.")
            if "name" in change:
                raise UsageError(f"variant {name!r} sets 'name'; its key in variants is its name: delete the entry.")
            # A list (so JSON has hidden) could be changed behind the check's back.
            frozen[name] = MappingProxyType({k: tuple(v) if isinstance(v, list) else v for k, v in change.items()})
        object.__setattr__(self, "variants", MappingProxyType(frozen))
        if self.baseline != "":
            choose("baseline", self.baseline, self.variants)
        seen: dict[Variant, str] = {}
        for variant in self._known():
            twin = seen.setdefault(variant.but(name=""), variant.name)
            if twin != variant.name:
                raise UsageError(
                    f"variants {twin!r} and {variant.name!r} are equal: both train exactly the same; "
                    "change a field of one or delete it."
                )

    @property
    def searches(self) -> dict[str, str]:
        """The variants that wait for a search: name of the variant -> name of the search."""
        return {name: change.search for name, change in self.variants.items() if isinstance(change, WinnerOf)}

    def with_choices(self, name: str, choices: Mapping[str, Any]) -> "Comparison":
        """The same comparison where variant `name` has what its search chose.

        A variant that trains exactly the same is dropped.
        """
        twin = self.base.but(name="").chosen(choices)
        others = {v.name: self.variants[v.name] for v in self._known() if v.but(name="") != twin}
        kept = {k: v for k, v in self.variants.items() if k in others or isinstance(v, WinnerOf)}
        change = choices if twin.momentum == self.base.momentum else {**choices, "momentum": twin.momentum}
        return self._of({k: change if k == name else v for k, v in kept.items()})

    def resolved(self) -> tuple[Variant, ...]:
        """The variants in full: `base` with each one's difference applied.

        Raises:
            UsageError: a variant waits for its search; `with_choices` tells it.
        """
        for name, search in self.searches.items():
            raise UsageError(f"variant {name!r} is the winner of {search!r}, which is not known yet; run that first.")
        return self._known()

    def _known(self) -> tuple[Variant, ...]:
        variants = []
        for name, change in self.variants.items():
            if isinstance(change, WinnerOf):
                continue
            try:
                for key in change:
                    choose("field of a variant", key, (f.name for f in fields(Variant) if f.name != "name"))
                variants.append(self.base.but(name=name, **change))
            except UsageError as error:
                raise UsageError(f"variant {name!r}: {error}") from None
        return tuple(variants)

    def only(self, names: Iterable[str]) -> "Comparison":
        """The same comparison with the variants `names` alone, in the comparison's order."""
        wanted = [choose(f"variant of {self.name or 'this comparison'}", name, self.variants) for name in names]
        return self._of({k: v for k, v in self.variants.items() if k in wanted})

    def _of(self, variants: Mapping[str, Mapping[str, Any] | WinnerOf]) -> "Comparison":
        return replace(self, variants=variants, baseline=self.baseline if self.baseline in variants else "")

    def with_base(self, **changes: Any) -> "Comparison":
        """The same comparison with `changes` made to every variant, over what a variant itself says."""
        variants: dict[str, Mapping[str, Any] | WinnerOf] = {}
        for name, change in self.variants.items():
            if isinstance(change, Mapping):
                change = {f: v for f, v in change.items() if f not in changes}
            variants[name] = change
        return replace(self, base=self.base.but(**changes), variants=variants)

    def with_seeds(self, seeds: tuple[int, ...] | int) -> "Comparison":
        """The same comparison with other seeds."""
        return replace(self, seeds=seeds)

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.variants))

    @property
    def each_seed(self) -> tuple[int, ...]:
        """The seeds, one by one."""
        assert isinstance(self.seeds, tuple)
        return self.seeds

    @property
    def maximizes(self) -> bool:
        """Whether more of the selection metric is better."""
        return SELECTION_METRICS[self.select] == "max"

    def to_json(self) -> str:
        """The comparison as JSON, variants written out in full; `from_json` reads it back."""
        record = {
            "name": self.name,
            "question": self.question,
            "dataset": self.dataset,
            "select": self.select,
            "seeds": self.seeds,
            "baseline": self.baseline,
            "margin": self.margin,
            "time_margin": self.time_margin,
            "targets": dict(self.targets),
            "base": asdict(self.base),
            "variants": {k: dict(change) for k, change in self.variants.items() if isinstance(change, Mapping)},
            "resolved": [asdict(variant) for variant in self.resolved()],
        }
        return json.dumps(record, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """The comparison that `to_json` wrote."""
        record = json.loads(text)
        del record["resolved"]
        return cls(**{**record, "base": Variant(**record["base"]), "seeds": tuple(record["seeds"])})


def _seeds(seeds: object) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        _whole("seeds", seeds, 1, MAX_SEEDS)
        return tuple(range(FIRST_SEED, FIRST_SEED + seeds))
    if not isinstance(seeds, tuple | list) or not 1 <= len(seeds) <= MAX_SEEDS:
        raise UsageError(
            f"seeds is {seeds!r}; legal: how many (a whole number from 1 to {MAX_SEEDS:,}), or a tuple of them."
        )
    for seed in seeds:
        _whole("a seed", seed, 0, MAX_SEED)
    if twice := [seed for seed in dict.fromkeys(seeds) if list(seeds).count(seed) > 1]:
        raise UsageError(f"seeds has {twice[0]} more than once; legal: different seeds. Delete the repetition.")
    return tuple(seeds)


@dataclass(frozen=True)
class Range:
    """The numbers of a search from `low` to `high`; `log`: evenly over their magnitudes, as for a learning rate."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _number("low", self.low, 0, 1e9, open_low=self.log)
        _number("high", self.high, self.low, 1e9, open_low=True)


def _how_many(name: str, values: tuple[Any, ...] | Range) -> float:
    """How many different values of a field may be drawn."""
    if not isinstance(values, Range):
        return len(values)
    return int(values.high) - int(values.low) + 1 if is_whole(name) else math.inf


def is_whole(name: str) -> bool:
    """Whether a field of `Variant` is a whole number."""
    return type(getattr(Variant(), name)) is int


@dataclass(frozen=True, kw_only=True)
class Search:
    """A random search: candidates drawn from a space, each cross-validated; the best is trained anew on all folds.

    Args:
        question: one sentence that ends in a question mark.
        dataset: the data set the question is about.
        base: what all candidates share.
        space: field of `Variant` -> the values to draw from: a list, or a `Range`. A momentum is drawn for the
            optimizers that have one. From lists alone every possible candidate is as likely as any other; else every
            optimizer is, and every value of a list. No two candidates are equal.
        candidates: how many are drawn; at most as many as there are.
        folds: of the stratified cross-validation over the training images.
        seed: of the drawing, the folds, and every training.
        name: given by `load_experiment`.

    Raises:
        UsageError: an unknown field, an illegal value, values that do not go together, more candidates than there are.
    """

    question: str
    dataset: str
    base: Variant = field(default_factory=Variant)
    space: Mapping[str, tuple[Any, ...] | list[Any] | Range]
    candidates: int = 10
    folds: int = 3
    seed: int = FIRST_SEED
    name: str = ""

    def __post_init__(self) -> None:
        _question(self.question)
        choose("data set", self.dataset, DATASETS)
        _base(self.base)
        _whole("candidates", self.candidates, 1, 100_000)
        _whole("folds", self.folds, 2, 100)
        _whole("seed", self.seed, 0, MAX_SEED)
        if not isinstance(self.space, Mapping) or not self.space:
            raise UsageError(
                f"space is {self.space!r}; legal: a dict from a field of Variant to its values, such as "
                "{'dropout': [0.2, 0.5], 'learning_rate': Range(1e-3, 1e-1, log=True)}."
            )
        frozen: dict[str, tuple[Any, ...] | Range] = {}
        for name, values in self.space.items():
            choose("field of a variant", name, (f.name for f in fields(Variant) if f.name != "name"))
            if not isinstance(values, Range | list | tuple) or not values:
                raise UsageError(f"the values of {name!r} are {values!r}; legal: a list that is not empty, or a Range.")
            frozen[name] = values if isinstance(values, Range) else self._listed(name, values)
        object.__setattr__(self, "space", MappingProxyType(frozen))
        if self.base.patience or "patience" in frozen:
            where = f"base's patience is {self.base.patience}" if self.base.patience else "patience is in space"
            raise UsageError(
                f"{where}, but a search's folds have no validation set to stop on; legal: trainings that do not stop "
                "early. Delete patience."
            )
        if "momentum" in frozen and not any(optimizer in WITH_MOMENTUM for optimizer in self._optimizers):
            searched = ", ".join(map(str, self._optimizers))
            raise UsageError(
                f"momentum is in space, but no optimizer of the search has one ({searched}); legal with: "
                f"{', '.join(WITH_MOMENTUM)}. Delete it from space, or search that optimizer."
            )
        for kind in self.kinds:
            self._check(kind)
        possible = sum(math.prod(_how_many(name, values) for name, values in kind.items()) for kind in self.kinds)
        if self.candidates > possible:
            raise UsageError(
                f"candidates is {self.candidates}, but the values in space allow {possible} different ones; legal: up "
                f"to {possible}, or a Range in space that has more."
            )

    def _listed(self, name: str, values: Iterable[Any]) -> tuple[Any, ...]:
        # A list (so JSON has hidden) could be changed behind the check's back.
        listed = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        for place, value in enumerate(listed):
            if value in listed[:place]:
                raise UsageError(
                    f"the values of {name!r} have {value!r} more than once; legal: different values. Delete the "
                    "repetition."
                )
        return listed

    def _check(self, kind: Mapping[str, Any]) -> None:
        """Raises a `UsageError` for the first value of `kind` that is illegal, alone or with its optimizer."""
        (optimizer,) = kind.get("optimizer", (self.base.optimizer,))
        choose("optimizer", optimizer, OPTIMIZERS)
        # A momentum to search takes the place of base's, which all candidates would share.
        momentum = 0.0 if "momentum" in self.space else self.base.momentum
        if momentum and optimizer not in WITH_MOMENTUM:
            raise UsageError(
                f"base's momentum is {momentum!r}, but the optimizer {optimizer!r} of space has none; legal in base: "
                f"0. Move it to space, 'momentum': [{momentum!r}], from where it is drawn for 'sgd' alone."
            )
        start = self.base.but(optimizer=optimizer, momentum=momentum)
        for name, values in kind.items():
            if isinstance(values, Range) and type(getattr(Variant(), name)) not in (int, float):
                raise UsageError(f"the values of {name!r} are {values!r}, but {name} is no number; legal: a list.")
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                try:
                    start.but(**{name: value})
                except UsageError as error:
                    raise UsageError(f"the values of {name!r} in space are {self.space[name]!r}: {error}") from None

    @property
    def _optimizers(self) -> tuple[Any, ...]:
        optimizers = self.space.get("optimizer", (self.base.optimizer,))
        if isinstance(optimizers, Range):
            raise UsageError(f"the values of 'optimizer' are {optimizers!r}; legal: a list of {', '.join(OPTIMIZERS)}.")
        return tuple(optimizers)

    @property
    def kinds(self) -> tuple[dict[str, Any], ...]:
        """The space as scikit-learn takes one whose fields depend on each other: for each optimizer what applies."""
        return tuple(
            {
                name: (optimizer,) if name == "optimizer" else values
                for name, values in self.space.items()
                if name != "momentum" or optimizer in WITH_MOMENTUM
            }
            for optimizer in self._optimizers
        )

    def choices(self, candidate: Variant) -> dict[str, Any]:
        """What of a candidate was drawn: its searched fields, without those that do not apply to its optimizer."""
        with_momentum = candidate.optimizer in WITH_MOMENTUM
        return {name: getattr(candidate, name) for name in self.space if name != "momentum" or with_momentum}

    def with_base(self, **changes: Any) -> "Search":
        """The same search with `changes` made to what its candidates share; a field it searches keeps its values."""
        return replace(self, base=self.base.but(**changes))

    def with_seed(self, seed: int) -> "Search":
        """The same search with another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> str:
        """The search as JSON."""
        space = {k: asdict(v) if isinstance(v, Range) else v for k, v in self.space.items()}
        record = {f.name: getattr(self, f.name) for f in fields(self)} | {"base": asdict(self.base), "space": space}
        return json.dumps(record, indent=2, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a trained model answers: a comparison's logged model, loaded again, on the first images of the test set.

    Args:
        question: one sentence that ends in a question mark.
        of: name of the comparison.
        variant: the variant of it whose model is asked.
        images: how many test images are shown.
    """

    question: str
    of: str
    variant: str
    images: int = 25
    name: str = ""

    def __post_init__(self) -> None:
        _question(self.question)
        _whole("images", self.images, 1, 100)

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments it is about."""
        return (self.of,)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The training times of several comparisons side by side.

    Args:
        question: one sentence that ends in a question mark.
        of: names of the comparisons, in the order they are to be shown.
    """

    question: str
    of: tuple[str, ...]
    name: str = ""

    def __post_init__(self) -> None:
        _question(self.question)
        if not isinstance(self.of, tuple | list) or not self.of:
            raise UsageError(f"of is {self.of!r}; legal: names of experiments.")
        object.__setattr__(self, "of", tuple(self.of))

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments it is about."""
        return self.of


Experiment = Comparison | Search | Prediction | Overview
KINDS: Mapping[str, type[Experiment]] = MappingProxyType(
    {"COMPARISON": Comparison, "SEARCH": Search, "PREDICTION": Prediction, "OVERVIEW": Overview}
)
"""What the file of an experiment holds: exactly one of these names."""

SMOKE_EPOCHS, SMOKE_CANDIDATES, SMOKE_FOLDS = 2, 2, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command changes in every experiment it runs; None leaves what the experiment says.

    Args:
        epochs: of every training.
        seed: of every experiment; the first where `seeds` is a number.
        seeds: of every comparison: how many, or which. A search has but the first.
        smoke: few epochs, candidates and folds: to see that all of it works.

    Raises:
        UsageError: both a seed and a list of seeds.
    """

    epochs: int | None = None
    seed: int | None = None
    seeds: int | tuple[int, ...] | None = None
    smoke: bool = False

    def __post_init__(self) -> None:
        if self.seed is not None and isinstance(self.seeds, tuple):
            raise UsageError(
                f"seed is {self.seed} and seeds is {','.join(map(str, self.seeds))}; legal: one of them, or a seed and "
                "how many from it on (seed=7 seeds=10)."
            )

    def adapt(self, experiment: "Experiment") -> "Experiment":
        """The experiment with the changes.

        Raises:
            UsageError: a value is not legal.
        """
        if not isinstance(experiment, Comparison | Search):
            return experiment
        if isinstance(experiment, Comparison):
            experiment = experiment.with_seeds(self._seeds(experiment.each_seed))
        else:
            experiment = experiment.with_seed(self._seeds((experiment.seed,))[0])
        if self.epochs is not None:
            experiment = experiment.with_base(epochs=self.epochs)
        elif self.smoke:
            experiment = experiment.with_base(epochs=SMOKE_EPOCHS)
        if self.smoke and isinstance(experiment, Search):
            candidates = min(SMOKE_CANDIDATES, experiment.candidates)
            experiment = replace(experiment, candidates=candidates, folds=min(SMOKE_FOLDS, experiment.folds))
        return experiment

    def _seeds(self, own: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.seeds, tuple):
            return self.seeds
        if self.seeds is None:
            return own if self.seed is None else (self.seed,)
        _whole("seeds", self.seeds, 1, MAX_SEEDS)
        first = own[0] if self.seed is None else self.seed
        return tuple(range(first, first + self.seeds))


EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def load_experiment(name_or_path: str) -> Experiment:
    """Imports an experiment's file and returns what it holds (see `KINDS`), named after the file.

    Args:
        name_or_path: the name of a file in `experiments/`, or the path of one's own.

    Raises:
        UsageError: no such experiment or file, the file does not import, or holds none of `KINDS` or several.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            folder = path.absolute().parent
            seen = "a folder" if path.is_dir() else f"no file in {folder}" if folder.is_dir() else "no file"
            raise UsageError(
                f"spec is {name_or_path!r}, which is {seen}; give the path of a Python file with a COMPARISON, counted "
                f"from {Path.cwd()}, or an absolute one."
            )
    else:
        path = EXPERIMENTS / f"{choose('experiment', name_or_path, experiment_names())}.py"
    try:
        # Not as a module: any ending will do, and no bytecode is left beside the file, or read where it is outdated.
        found = runpy.run_path(str(path), run_name=f"mlplab_experiment_{path.stem}")
    except (Exception, SystemExit) as error:
        line = _line_in(path, error)
        said = _with_legal_names(error)
        kind = "" if isinstance(said, UsageError) else f"{type(said).__name__}: "
        raise UsageError(f"{path}{f', line {line}' if line else ''}: {kind}{said}") from said
    held = [name for name in KINDS if name in found]
    if len(held) != 1 or not isinstance(found[held[0]], KINDS[held[0]]):
        seen = f"a {held[0]} that is {found[held[0]]!r}" if len(held) == 1 else " and ".join(held) or "no COMPARISON"
        raise UsageError(
            f"{path} has {seen}; legal: COMPARISON = Comparison(...) with `from mlplab.spec import Comparison, "
            f"Variant`, or one of {', '.join(f'{n} = {kind.__name__}(...)' for n, kind in KINDS.items())}."
        )
    experiment: Experiment = replace(found[held[0]], name=path.stem)
    return experiment


def _with_legal_names(error: BaseException) -> BaseException:
    """A `UsageError` in place of Python's own for a keyword that a class of this module does not know."""
    wrong = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kinds = {kind.__name__: kind for kind in (Variant, *KINDS.values())}
    if wrong and wrong[1] in kinds:
        kind: Any = kinds[wrong[1]]
        try:
            choose(f"field of {wrong[1]}", wrong[2], (f.name for f in fields(kind) if f.name != "name"))
        except UsageError as refusal:
            return refusal
    return error


def _line_in(path: Path, error: BaseException) -> int | None:
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def experiment_names() -> list[str]:
    """The names of the experiments that come with the project, in alphabetical order."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.py") if not path.stem.startswith("_"))


def datasets_of(experiment: Experiment) -> set[str]:
    """The data sets that an experiment and those it needs are about.

    Raises:
        UsageError: an experiment that it needs is not there.
    """
    if isinstance(experiment, Comparison | Search):
        needs = list(experiment.searches.values()) if isinstance(experiment, Comparison) else []
        own = {experiment.dataset}
    else:
        needs, own = list(experiment.needs), set()
    return own.union(*(datasets_of(load_experiment(name)) for name in needs))
