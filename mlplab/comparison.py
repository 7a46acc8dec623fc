"""A comparison: a question, the data, and the variants whose trainings answer it.

A comparison is data. A file holds one `COMPARISON`, and importing the file is what checks it, so that a typing error
costs a line number and not an hour of training.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlplab import keras_names
from mlplab.calls import Call, FrozenDict, frozen, plain, thawed
from mlplab.checks import UsageError, check_question, choose, number
from mlplab.seeds import Until, seeds_of
from mlplab.sources import Data, datasets_of
from mlplab.space import Space, Tune
from mlplab.spec import FIRST_SEED, MARGINS, Metric, Training, check_base

AT_THESE_SETTINGS = "at these settings"


@dataclass(frozen=True)
class WinnerOf:
    """In the place of a variant's difference from base: what the winner of a search chose, once that is known.

    The search is run once, on its own data; a comparison on several data sets has its winner on each.

    Args:
        search: name of an experiment that is a `Search`.

    Examples:
        >>> variants = {"by hand": {"learning_rate": 0.01}, "searched": WinnerOf("random_search")}
    """

    search: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A question, and the variants whose training answers it.

    Args:
        question: one sentence that ends in a question mark.
        data: what the question is about: `mnist`, `cifar10` or `digits`, a function that returns arrays, the path of an
            `.npz`, of a CSV or of a folder of images, or a `Data` that says how it is split. A list of several repeats
            the question on each: see `on`, and `mlplab.across` for what is said over all of them.
        base: what all variants share.
        variants: name of a variant -> its difference from `base`, as `Training.but` takes it, or `WinnerOf` a search.
        select: the validation metric that picks a training's best epoch and the comparison's winner: a name, or a
            `Metric` where its direction is not known by its name.
        measures: further metrics that verdicts are drawn on.
        seeds: of initial weights, batch order and dropout: every variant is trained with each, so that its trainings
            pair with those of the other variants; a number n stands for n seeds from 1234 on, and `Until` for as many
            as the verdicts need.
        baseline: the variant that the others are compared with; "" is the first.
        margin: differences of the selection metric that are practically none, as `Metric` has it; None: what is usual.
        time_margin: the same of training times, as a share.
        targets: validation metric -> the value whose first reaching is timed; on several data sets also a dict of such
            values by the data sets' names.
        tune: how every variant is tuned before it is compared; None: they are compared as they are.
        name: given by `load_experiment`: the file's stem.

    Raises:
        UsageError: fewer than one variant, two equal variants or data sets, an unknown choice or metric, an illegal
            value.

    Examples:
        >>> comparison = Comparison(
        ...     question="Is Adam better than SGD?",
        ...     data="mnist",
        ...     base=Training(loss="mse", optimizer="sgd"),
        ...     variants={"SGD": {}, "Adam": {"optimizer": "adam"}},
        ...     select="val_loss",
        ...     seeds=3,
        ... )
        >>> comparison.against, comparison.each_seed
        ('SGD', (1234, 1235, 1236))
    """

    question: str
    data: Any
    base: Training = field(default_factory=Training)
    variants: Mapping[str, Any]
    select: Any = "val_accuracy"
    measures: tuple[Any, ...] = ()
    seeds: tuple[int, ...] | int | Until = (FIRST_SEED,)
    baseline: str = ""
    margin: float | None = None
    time_margin: float = 0.05
    targets: Mapping[str, Any] = field(default_factory=dict)
    tune: Tune | None = None
    name: str = ""

    def __post_init__(self) -> None:
        check_question(self.question)
        if not isinstance(self.name, str):
            raise UsageError(f"a comparison's name is {self.name!r}; legal: a text.")
        check_base(self.base)
        datasets = datasets_of(self.data)
        object.__setattr__(self, "data", datasets if len(datasets) > 1 else datasets[0])
        object.__setattr__(self, "seeds", self.seeds if isinstance(self.seeds, Until) else seeds_of(self.seeds))
        if self.margin is not None:
            number("margin", self.margin, 0, 1e9)  # `Metric` knows more
        number("time_margin", self.time_margin, 0, 1)
        object.__setattr__(self, "select", self._metric(self.select, self.margin))
        if isinstance(self.measures, str | Metric) or not isinstance(self.measures, tuple | list):
            raise UsageError(f"measures is {self.measures!r}; legal: a list of metrics' names or of Metric.")
        object.__setattr__(self, "measures", tuple(self._metric(one, None) for one in self.measures))
        if not isinstance(self.targets, Mapping):
            raise UsageError(f"targets is {self.targets!r}; legal: a dict such as {{'val_accuracy': 0.97}}.")
        for metric, value in self.targets.items():
            known = self._metric(metric, None)
            if not known.name.startswith("val_"):
                raise UsageError(f"a target is of {metric!r}; legal: a validation metric, such as 'val_{metric}'.")
            low, high = (0, 1) if known.unit == "points" else (-1e9, 1e9)
            for where, one in self._by_data(metric, value).items():
                number(f"the target of {metric}{where}", one, low, high)
        object.__setattr__(self, "targets", FrozenDict({metric: _kept(one) for metric, one in self.targets.items()}))
        object.__setattr__(self, "variants", self._checked())
        if self.baseline != "":
            choose("baseline", self.baseline, self.variants)
        spaces = self._tuned()
        seen: dict[tuple[str, frozenset[str]], str] = {}
        for variant in self._known(chosen=False):
            searched = frozenset(spaces[variant.name].values) if spaces else frozenset()
            twin = seen.setdefault((variant.canonical, searched), variant.name)
            if twin != variant.name:
                raise UsageError(
                    f"variants {twin!r} and {variant.name!r} are equal: both train exactly the same; "
                    "change a choice of one or delete it."
                )

    def _by_data(self, metric: str, value: Any) -> dict[str, Any]:
        """A target's values, one or one for each data set, by where they hold."""
        if not isinstance(value, Mapping):
            return {"": value}
        names = [data.label for data in self.datasets]
        if len(names) == 1:
            raise UsageError(f"the target of {metric} is {value!r}; legal with one data set: a number.")
        for name in value:
            choose(f"data set in the target of {metric}", name, names)
        if missing := [name for name in names if name not in value]:
            raise UsageError(f"the target of {metric} has no value for {missing[0]}; legal: one for each data set.")
        return {f" on {name}": one for name, one in value.items()}

    def _tuned(self) -> dict[str, Space]:
        """What is drawn for each known variant, checked; empty where none is tuned."""
        if self.tune is None:
            return {}
        if not isinstance(self.tune, Tune):
            raise UsageError(
                f"tune is {self.tune!r}; legal: None, or such as Tune({{'learning_rate': LogUniform(1e-4, 1)}}, "
                "trials=16)."
            )
        spaces = self.spaces
        self.tune.check(spaces)
        if not self.searches:
            self.tune.check_taken(spaces)
        return spaces

    def _metric(self, given: Any, margin: float | None) -> Metric:
        metric = given if isinstance(given, Metric) else Metric(given)
        unit = metric.unit
        if not unit and metric.name.endswith("loss"):
            # The loss of a model that is compiled already is not known here.
            unit = "nats" if _is_entropy(self.base.loss) else "%"
        margin = margin if metric.margin is None else metric.margin
        return replace(metric, unit=unit, margin=MARGINS.get(unit, MARGINS[""]) if margin is None else margin)

    def _checked(self) -> FrozenDict:
        if not isinstance(self.variants, Mapping) or not self.variants:
            raise UsageError(
                f"variants is {self.variants!r}; legal: a dict with at least one entry, from a variant's name to its "
                "difference from base, such as {'Adam': {'optimizer': 'adam'}}."
            )
        found: dict[str, Any] = {}
        for name, change in self.variants.items():
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"a variant's name is {name!r}; legal: a text that is not empty.")
            if not isinstance(change, Mapping | WinnerOf):
                raise UsageError(f"variant {name!r} is {change!r}; legal: a dict of choices.")
            if isinstance(change, Mapping) and "name" in change:
                raise UsageError(f"variant {name!r} sets 'name'; its key in variants is its name: delete the entry.")
            found[name] = change if isinstance(change, WinnerOf) else _frozen(name, change)
        return FrozenDict(found)

    @property
    def datasets(self) -> tuple[Data, ...]:
        """The data sets, one or several."""
        return self.data if isinstance(self.data, tuple) else (self.data,)

    def on(self, data: Any) -> "Comparison":
        """The same question on one of several data sets, given by its name or itself; of one data set the same.

        Raises:
            UsageError: it is none of the comparison's data sets.

        Examples:
            >>> several = Comparison(
            ...     question="Is Adam better?",
            ...     data=["mnist", "digits"],
            ...     base=Training(loss="mse", optimizer="adam"),
            ...     variants={"Adam": {}},
            ...     select="val_loss",
            ...     name="adam",
            ... )
            >>> several.on("digits").name
            'adam on digits'
        """
        named = {one.label: one for one in self.datasets}
        wanted = named[choose("data set", data, named)] if isinstance(data, str) else Data.of(data)
        if wanted not in self.datasets:
            raise UsageError(f"{wanted!r} is none of this comparison's data; legal: {', '.join(named)}.")
        if len(named) == 1:
            return self
        targets = {k: v[wanted.label] if isinstance(v, Mapping) else v for k, v in self.targets.items()}
        name = f"{self.name} on {wanted.label}" if self.name else ""
        return replace(self, data=wanted, targets=targets, name=name)

    @property
    def needs(self) -> "tuple[Comparison, ...]":
        """The comparisons that it is made of: of several data sets one on each."""
        return tuple(map(self.on, self.datasets)) if len(self.datasets) > 1 else ()

    @property
    def searches(self) -> dict[str, str]:
        """The variants that wait for a search: name of the variant -> name of the search."""
        return {name: change.search for name, change in self.variants.items() if isinstance(change, WinnerOf)}

    def with_choices(self, name: str, choices: Mapping[str, Any]) -> "Comparison":
        """The same comparison where variant `name` has what its search chose.

        A variant that trains exactly the same is dropped.
        """
        same = self.base.but(choices).canonical
        others = {v.name for v in self._known() if v.canonical != same}
        kept = {k: v for k, v in self.variants.items() if k in others or isinstance(v, WinnerOf)}
        return self._of({k: choices if k == name else v for k, v in kept.items()}, self.tune)

    def resolved(self) -> tuple[Training, ...]:
        """The variants in full: `base` with each one's difference applied.

        Raises:
            UsageError: a variant waits for its search; `with_choices` tells it.
        """
        for name, search in self.searches.items():
            raise UsageError(f"variant {name!r} is the winner of {search!r}, which is not known yet; run that first.")
        return self._known()

    def _known(self, chosen: bool = True) -> tuple[Training, ...]:
        """The variants that wait for no search; with what their tuning chose, where `chosen`."""
        variants = []
        for name, change in self.variants.items():
            if isinstance(change, WinnerOf):
                continue
            try:
                tuned = self.tune.chosen.get(name, {}) if self.tune and chosen else {}
                variants.append(self.base.but({**change, **tuned, "name": name}))
            except UsageError as error:
                raise UsageError(f"variant {name!r}: {error}") from None
        if len({variant.splits for variant in variants}) > 1:
            raise UsageError(
                "splits is 'fixed' for some variants and 'resampled' for others, which then do not pair; legal: the "
                "same for all. Set it in base."
            )
        return tuple(variants)

    @property
    def spaces(self) -> dict[str, Space]:
        """What is drawn for each variant that waits for no search; empty where none is tuned."""
        return {v.name: self.tune.of(v, self.variants[v.name]) for v in self._known(chosen=False)} if self.tune else {}

    @property
    def tuning_seed(self) -> int:
        """The seed of the tuning, of its drawing and its trials: the first from 0 on that is none of the seeds."""
        return next(seed for seed in range(len(self.each_seed) + 1) if seed not in self.each_seed)

    @property
    def untuned(self) -> bool:
        """Whether the variants are still to be tuned."""
        return self.tune is not None and not self.tune.chosen

    def corners(self) -> tuple[Training, ...]:
        """The variants in full; before they are tuned a training of each kind that may be drawn for each."""
        if not self.untuned:
            return self.resolved()
        return tuple(corner for name, space in self.spaces.items() for corner in space.corners(f"{name}, kind"))

    def with_chosen(self, chosen: Mapping[str, Mapping[str, Any]]) -> "Comparison":
        """The same comparison where each variant has what its tuning chose: variant -> choice -> value."""
        assert self.tune is not None
        return replace(self, tune=replace(self.tune, chosen=chosen))

    @property
    def budget(self) -> str:
        """What a verdict on the variants holds at: the budget of their tuning, or the settings that they were given."""
        return f"at {self.tune.trials} trials each" if self.tune else AT_THESE_SETTINGS

    def only(self, names: Iterable[str]) -> "Comparison":
        """The same comparison with the variants `names` alone, in the comparison's order."""
        wanted = [choose(f"variant of {self.name or 'this comparison'}", name, self.variants) for name in names]
        kept = {k: v for k, v in self.variants.items() if k in wanted}
        tune = self.tune
        if tune and not any(isinstance(change, WinnerOf) for change in kept.values()):
            # What is drawn for none of them is no mistake of theirs.
            drawn = {choice for name in kept for choice in self.spaces[name].values}
            tune = replace(tune, space={choice: values for choice, values in tune.space.items() if choice in drawn})
        return self._of(kept, tune)

    def _of(self, variants: Mapping[str, Any], tune: Tune | None) -> "Comparison":
        baseline = self.baseline if self.baseline in variants else ""
        return replace(self, variants=variants, baseline=baseline, tune=tune)

    def with_base(self, **changes: Any) -> "Comparison":
        """The same comparison with `changes` made to every variant, over what a variant itself says."""
        variants: dict[str, Any] = {}
        for name, change in self.variants.items():
            if isinstance(change, Mapping):
                change = {f: v for f, v in change.items() if f not in changes}
            variants[name] = change
        return replace(self, base=self.base.but(changes), variants=variants)

    def with_seeds(self, seeds: tuple[int, ...] | int | Until) -> "Comparison":
        """The same comparison with other seeds."""
        return replace(self, seeds=seeds)

    @property
    def against(self) -> str:
        """The baseline's name."""
        return self.baseline or next(iter(self.variants))

    @property
    def each_seed(self) -> tuple[int, ...]:
        """The seeds, one by one; all that it may come to, where they are added until the verdicts are clear."""
        if isinstance(self.seeds, Until):
            return tuple(range(self.seeds.first, self.seeds.first + self.seeds.most))
        assert isinstance(self.seeds, tuple)
        return self.seeds

    @property
    def epochs(self) -> dict[str, int]:
        """Epochs of a training of each variant; of a search's winner, as long as that is not known, the base's."""
        usual = self.base.epochs
        return {k: v.get("epochs", usual) if isinstance(v, Mapping) else usual for k, v in self.variants.items()}

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds it is looked at, where seeds are added until the verdicts are clear; else ()."""
        return self.seeds.looks if isinstance(self.seeds, Until) else ()

    @property
    def metric(self) -> Metric:
        """The selection metric, with its direction, margin and unit."""
        metric: Metric = self.select
        return metric

    @property
    def judged(self) -> tuple[Metric, ...]:
        """Every metric that verdicts are drawn on, the selection metric first."""
        others = {one.name: one for one in self.measures if one.name != self.metric.name}
        return (self.metric, *others.values())

    def target(self, metric: str) -> Metric:
        """A target's metric, with its direction."""
        return self._metric(metric, None)

    def to_json(self) -> str:
        """The comparison as JSON, with the variants written out in full besides; `from_json` reads it back."""
        record = {
            "name": self.name,
            "question": self.question,
            "data": [one.to_dict() for one in self.datasets] if self.needs else self.datasets[0].to_dict(),
            "select": vars(self.select),
            "measures": [vars(one) for one in self.measures],
            "seeds": vars(self.seeds) if isinstance(self.seeds, Until) else self.seeds,
            "baseline": self.baseline,
            "margin": self.margin,
            "time_margin": self.time_margin,
            "targets": plain(self.targets),
            "base": self.base.to_dict(),
            "variants": {k: plain(change) for k, change in self.variants.items() if isinstance(change, Mapping)},
            "resolved": [variant.to_dict() for variant in self.resolved()],
        }
        if self.tune:
            # Which choices each variant leaves open decides what its trials are, too.
            drawn = {name: list(space.values) for name, space in self.spaces.items()}
            record["tune"] = {**self.tune.to_dict(), "drawn": drawn}
        return json.dumps(record, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """The comparison that `to_json` wrote."""
        record = json.loads(text)
        del record["resolved"]
        data = record["data"]
        read = {
            "data": [Data.from_dict(one) for one in data] if isinstance(data, list) else Data.from_dict(data),
            "select": Metric(**record["select"]),
            "measures": tuple(Metric(**one) for one in record["measures"]),
            "base": Training.from_dict(record["base"]),
            "variants": {name: thawed(change) for name, change in record["variants"].items()},
            "seeds": Until(**seeds) if isinstance(seeds := record["seeds"], dict) else tuple(seeds),
            "tune": Tune.from_dict(record["tune"]) if "tune" in record else None,
        }
        return cls(**{**record, **read})


def _kept(target: Any) -> Any:
    return FrozenDict(target) if isinstance(target, Mapping) else target


def _is_entropy(loss: Any) -> bool:
    """Whether a loss is a cross-entropy, or every output's is, and so in nats."""
    if isinstance(loss, tuple | FrozenDict):
        every = list(loss.values()) if isinstance(loss, FrozenDict) else loss
        return bool(every) and all(map(_is_entropy, every))
    said = loss.name if isinstance(loss, Call) else "" if loss is None else keras_names.full_name("losses", loss)
    return said == "ce" or said.lower().replace("_", "").endswith(("crossentropy", "kldivergence"))


def _frozen(name: str, change: Mapping[str, Any]) -> FrozenDict:
    """A variant's difference, as nothing can change it behind the check's back."""
    try:
        return FrozenDict({key: frozen(str(key), value, makes="." not in str(key)) for key, value in change.items()})
    except UsageError as error:
        raise UsageError(f"variant {name!r}: {error}") from None
