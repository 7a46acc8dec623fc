"""What can be varied: a training, and the metric by which trainings compare; neither needs TensorFlow nor MLflow."""

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mlplab import keras_names
from mlplab.calls import READY_MODELS, Call, FrozenDict, frozen, plain, reference, shown, thawed
from mlplab.checks import UsageError, choose, number, whole

MORE_IS_BETTER = (
    *("accuracy", "acc", "auc", "precision", "recall", "score", "iou", "io_u", "similarity", "correlation"),
    *("sensitivity", "specificity", "true_positives", "true_negatives"),
)
LESS_IS_BETTER = (
    *(
        "loss",
        "error",
        "entropy",
        "mse",
        "mae",
        "mape",
        "msle",
        "hinge",
        "divergence",
        "poisson",
        "logcosh",
        "log_cosh",
    ),
    *("huber", "perplexity", "dice", "tversky", "false_positives", "false_negatives"),
)
"""Endings of the names of metrics whose better direction is known."""
SHARES = (
    *("accuracy", "acc", "auc", "precision", "recall", "f1_score", "fbeta_score", "iou", "io_u"),
    *("sensitivity", "specificity"),
)
"""Endings of the names of metrics that are shares, shown in points of a hundred."""

MARGINS = {"points": 0.002, "nats": 0.002, "%": 0.01, "": 0.01}
"""Unit of a metric -> the margin of practical equivalence, where none is given."""

MAX_SEED = 2**31 - 1
FIRST_SEED = 1234


def _ends(name: str, endings: Iterable[str]) -> bool:
    # A metric that Keras numbers, such as auc_1, is the same metric.
    return any(re.sub(r"_\d+$", "", name).endswith(ending) for ending in endings)


@dataclass(frozen=True)
class Metric:
    """A metric that the trainings log, and how two values of it compare.

    Args:
        name: as Keras logs it, such as `val_accuracy`, `val_loss` or `val_auc`.
        best: `max` or `min`; "" for a metric of Keras, whose direction is known by its name.
        margin: differences that are practically none, in the metric's own unit; of `%` a share (0.01 is 1 %). None: the
            comparison's, or what is usual for the unit (`MARGINS`).
        unit: `points` (of a hundred, for shares), `nats`, `%` (ratios are compared, for errors of any size), or the
            name of the unit, such as `mm`; "" is what fits the metric.

    Raises:
        UsageError: it is of the test set, its direction is not known, or a value is not legal.

    Examples:
        >>> Metric("val_auc").best, Metric("val_auc").unit
        ('max', 'points')
        >>> Metric("val_dice_score", best="max", margin=0.01).words
        'validation dice score'
    """

    name: str
    best: str = ""
    margin: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w.-]{1,100}", self.name):
            raise UsageError(f"a metric's name is {self.name!r}; legal: as Keras logs it, such as 'val_accuracy'.")
        if self.name.startswith("test"):
            raise UsageError(
                f"the metric is {self.name!r}, but selecting on the test set would spend it; legal: one of the "
                f"validation set, such as {'val' + self.name[4:]!r}. The test set is evaluated once, at the selected "
                "epoch."
            )
        known = "max" if _ends(self.name, MORE_IS_BETTER) else "min" if _ends(self.name, LESS_IS_BETTER) else ""
        if not (self.best or known):
            raise UsageError(
                f"it is not known whether more of {self.name!r} is better; legal: Metric({self.name!r}, best='max') or "
                "best='min'."
            )
        object.__setattr__(self, "best", choose("best of a metric", self.best or known, ("max", "min")))
        if not isinstance(self.unit, str) or len(self.unit) > 20 or not self.unit.isprintable():
            raise UsageError(f"unit is {self.unit!r}; legal: points, nats, %, or a text such as 'mm'.")
        if not self.unit and not _ends(self.name, ("loss",)):
            nats = _ends(self.name, ("entropy", "kl_divergence"))
            fits = "nats" if nats else "points" if _ends(self.name, SHARES) else "%" if self.best == "min" else ""
            object.__setattr__(self, "unit", fits)
        if self.margin is not None:
            # Of points and per cent it is a share: 0.002 is 0.2 points.
            number(f"the margin of {self.name}", self.margin, 0, 1 if self.unit in ("points", "%") else 1e9)

    @property
    def maximizes(self) -> bool:
        """Whether more of it is better."""
        return self.best == "max"

    @property
    def base(self) -> str:
        """Its name without `val_`: the same metric on the training examples."""
        return self.name.removeprefix("val_")

    @property
    def words(self) -> str:
        """What it is called in sentences, such as `validation accuracy`."""
        said = self.base.replace("_", " ")
        return f"validation {said}" if self.name.startswith("val_") else said

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is a better value than `b`; a value that is not finite is never."""
        if not math.isfinite(a):
            return False
        return not math.isfinite(b) or (a > b if self.maximizes else a < b)


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """One way to train one model: every choice that a comparison can vary.

    Args:
        model: what makes the model: a function that returns a `keras.Model` from keyword arguments, `call` of one with
            arguments, a path such as `keras.applications.MobileNetV2`, or the name of one that is ready-made (`mlp`).
            A parameter named `data` is given the data set. Where it returns a compiled model, that brings its own
            optimizer, loss and metrics, and they are left out here.
        optimizer: a usual string such as `adamw`, `call("keras.optimizers.AdamW", …)`, or one's own class.
        learning_rate: of the optimizer: a number, or `call` of a schedule; None: the optimizer's own.
        loss: a usual string, `call` of a loss, one's own function, or a dict or list of them for several outputs.
        metrics: a list of usual strings, calls and functions; a dict or list of lists for several outputs.
        batch_size: examples a step; `full` for the whole training set.
        epochs: passes over the training set; a callback may stop sooner.
        callbacks: calls of Keras' callbacks or one's own, such as `call("keras.callbacks.EarlyStopping", patience=5)`.
        class_weight: class -> weight of its examples in the loss; `balanced`: by how rare a class is.
        precision: a dtype policy of Keras such as `mixed_bfloat16`, under which the model is made; None: Keras' own.
        splits: `resampled`: a new split of the same examples with each seed, the same for all variants; `fixed`: one.
        name: of the variant; given by the comparison.

    Raises:
        UsageError: a value is not legal; the message says which values are.

    Examples:
        >>> base = Training(model="mlp", optimizer="sgd", learning_rate=0.01, loss="mse")
        >>> base.but(**{"model.dropout": 0.3, "optimizer.momentum": 0.9}).params()["optimizer.momentum"]
        '0.9'
    """

    model: Any = "mlp"
    optimizer: Any = None
    learning_rate: Any = None
    loss: Any = None
    metrics: Any = ()
    batch_size: int | str = 32
    epochs: int = 1
    callbacks: Any = ()
    class_weight: Any = None
    precision: str | None = None
    splits: str = "fixed"
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or len(self.name) > 100 or not self.name.isprintable():
            raise UsageError(f"a variant's name is {self.name!r}; legal: up to 100 printable characters.")
        held = {
            "model": _model(self.model),
            "optimizer": None if self.optimizer is None else _of_keras("optimizer", self.optimizer),
            "learning_rate": _rate(self.learning_rate),
            "loss": _nest("loss", self.loss),
            "metrics": _nest("metric", [self.metrics] if isinstance(self.metrics, str | Call) else self.metrics),
            "callbacks": _callbacks(() if self.callbacks is None else self.callbacks),
            "class_weight": _class_weight(self.class_weight),
        }
        held["metrics"] = () if held["metrics"] is None else held["metrics"]
        for name, value in held.items():
            object.__setattr__(self, name, value)
        if self.learning_rate is not None and self.optimizer is None:
            raise UsageError(
                f"learning_rate is {shown(self.learning_rate)}, but there is no optimizer that it is of; legal: with "
                "optimizer='sgd' or another. A model that is compiled already brings its own of both."
            )
        if self.optimizer is not None and (self.learning_rate is not None):
            _once(self.optimizer)
        if self.batch_size != "full" and (isinstance(self.batch_size, str | bool) or not self._whole_batch()):
            raise UsageError(f"batch_size is {self.batch_size!r}; legal: a whole number from 1, or 'full'.")
        whole("epochs", self.epochs, 1, 100_000)
        if self.precision is not None and not re.fullmatch(
            r"(mixed_)?(b?float16|float32|float64)", str(self.precision)
        ):
            raise UsageError(
                f"precision is {self.precision!r}; legal: a dtype policy of Keras such as 'mixed_bfloat16', or None."
            )
        if not re.fullmatch(r"folds:\d+:\d+|tuning:\d+", str(self.splits)):  # a search's, see `mlplab.folds`
            choose("splits", self.splits, ("fixed", "resampled"))

    def _whole_batch(self) -> bool:
        return isinstance(self.batch_size, int) and 1 <= self.batch_size <= 10_000_000

    @functools.cached_property
    def key(self) -> str:
        """Its content as text, without the name: equal for trainings that are the same."""
        return json.dumps({k: plain(v, files=False) for k, v in self._values() if k != "name"}, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Training) and (self.key, self.name) == (other.key, other.name)

    def __hash__(self) -> int:
        return hash((self.key, self.name))

    def _values(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self)]

    def but(self, changes: Mapping[str, Any] | None = None, /, **more: Any) -> "Training":
        """This training with choices made otherwise: fields, or with a dot the arguments of what a field calls.

        Args:
            changes: choice -> its new value.
            more: the same, as keywords.

        Returns:
            Another training; this one stays as it is.

        Raises:
            UsageError: there is no such field or argument, or a value is not legal.

        Examples:
            >>> adam = Training(optimizer="adam", loss="mse")
            >>> adam.but({"optimizer": "lion", "optimizer.beta_1": 0.95}).optimizer.name
            'Lion'
        """
        every = {**(changes or {}), **more}
        whole_fields: dict[str, Any] = {}
        for key in every:
            root = key.partition(".")[0] if isinstance(key, str) else key
            choose("choice of a training", root, (f.name for f in fields(self)))
            if key == root:
                whole_fields[key] = every[key]
        made_so = replace(self, **whole_fields)
        parts: dict[str, Any] = {}
        for key, value in every.items():
            root, dot, argument = key.partition(".")
            if dot:
                of = parts.get(root, getattr(made_so, root))
                parts[root] = _called(root, of).but(**{argument: value})
                parts[root].check()
        return replace(made_so, **parts) if parts else made_so

    def get(self, choice: str) -> Any:
        """The value of a choice as `but` takes it; None where it is not said.

        Examples:
            >>> Training(optimizer="sgd").but({"optimizer.momentum": 0.9}).get("optimizer.momentum")
            0.9
        """
        root, dot, argument = choice.partition(".")
        of = getattr(self, root)
        return of.arguments.get(argument) if dot and isinstance(of, Call) else None if dot else of

    def steps_per_epoch(self, examples: int) -> int:
        """Weight updates in an epoch over `examples`; the last, smaller batch counts."""
        return -(-examples // self.batch(examples))

    def batch(self, examples: int) -> int:
        """The batch size in examples, where the training set has `examples`."""
        return examples if isinstance(self.batch_size, str) else min(self.batch_size, examples)

    def params(self) -> dict[str, str]:
        """Every choice but the name, as flat texts that a tracking store takes and a reader understands."""
        found: dict[str, str] = {}
        for name, value in self._values():
            if isinstance(value, Call):
                found[name] = value.name.lower() if name == "optimizer" else value.name
                arguments = {**(_defaults(value) if name == "model" else {}), **value.arguments}
                found |= {f"{name}.{argument}": shown(one) for argument, one in arguments.items()}
            elif value not in (None, (), "fixed") and name != "name":
                found[name] = shown(value)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, without what is as it is by default; `from_dict` reads it back."""
        default = {f.name: f.default for f in fields(self)}
        found = {name: plain(v) for name, v in self._values() if name == "model" or v != default[name]}
        return {name: value for name, value in found.items() if value != []}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Training":
        """What `to_dict` gave."""
        return cls(**{name: thawed(value) for name, value in record.items()})

    def fingerprint(self) -> list[Any]:
        """What of it decides the numbers, as JSON has it: without the name, files' places, and arguments that are as
        they are by default."""
        found = {name: plain(_bare(value), files=False) for name, value in self._values() if name != "name"}
        return sorted((name, value) for name, value in found.items() if value not in (None, [], "fixed"))

    @functools.cached_property
    def canonical(self) -> str:
        """Its fingerprint as text: equal for trainings that are the same, however they are written."""
        return json.dumps(self.fingerprint(), sort_keys=True)


def check_base(base: object) -> None:
    """Raises a `UsageError` where it is no `Training`."""
    if not isinstance(base, Training):
        raise UsageError(f"base is {base!r}; legal: a Training.")


def _model(model: Any) -> Call:
    if isinstance(model, str) and "." not in model:
        choose("model", model, READY_MODELS)
    return _to_call(reference(model))


def _to_call(found: Call) -> Call:
    """The call of what was given, where that was a function or class without arguments."""
    found = found if found.calls else replace(found, calls=True)
    found.check()
    return found


def _of_keras(what: str, given: Any) -> Call:
    """What one of Keras' usual strings, a class, a function or a call stands for."""
    kind = f"{what}s"
    if isinstance(given, str) and "." not in given:
        given = keras_names.full_name(kind, given)
    return _to_call(reference(given))


def _rate(rate: Any) -> Any:
    if rate is None or isinstance(rate, Call):
        return rate
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise UsageError(
            f"learning_rate is {rate!r}, a {type(rate).__name__}; legal: a number above 0 to 100, or "
            "call('keras.optimizers.schedules.CosineDecay', …) of a schedule."
        )
    number("learning_rate", rate, 0, 100, open_low=True)
    return frozen("learning_rate", rate)


def _once(optimizer: Call) -> None:
    if "learning_rate" in optimizer.arguments:
        raise UsageError(
            f"the learning rate is given twice, as {shown(optimizer.arguments['learning_rate'])} within the optimizer "
            "and as learning_rate; legal: once. Delete one of them."
        )


def _nest(what: str, given: Any) -> Any:
    """A loss or metrics: a usual string, a call, a function, or lists and dicts of them."""
    if isinstance(given, Call):
        return _to_call(given) if isinstance(given.function, type) else given
    if given is None:
        return given
    if isinstance(given, str):
        if "." in given:
            found = reference(given)
            makes = found.name[:1].isupper() if found.function is None else isinstance(found.function, type)
            return replace(found, calls=makes)
        keras_names.check("losses" if what == "loss" else "metrics", given, {})
        return given
    if isinstance(given, list | tuple):
        return tuple(_nest(what, one) for one in given)
    if isinstance(given, Mapping):
        return FrozenDict({name: _nest(what, one) for name, one in given.items()})
    # A class is made; a function is the loss or metric itself.
    return reference(given, calls=isinstance(given, type))


def _callbacks(given: Any) -> tuple[Call, ...]:
    if not isinstance(given, list | tuple):
        given = (given,)
    return tuple(_of_keras("callback", one) for one in given)


def _class_weight(given: Any) -> Any:
    if given is None or given == "balanced":
        return given
    if not isinstance(given, Mapping) or not given:
        raise UsageError(f"class_weight is {given!r}; legal: a dict such as {{0: 1.0, 1: 5.0}}, 'balanced', or None.")
    for label, weight in given.items():
        whole("a class of class_weight", label, 0, 10_000_000)
        number(f"the weight of class {label!r}", weight, 0, 1e9)
    return frozen("class_weight", given)


def _called(root: str, of: Any) -> Call:
    """What a dotted choice gives an argument to."""
    if isinstance(of, Call):
        return of
    if root == "loss" and isinstance(of, str):
        classes = {n.lower(): target for n, target in keras_names.usual("losses").items() if n[0].isupper()}
        folded = keras_names.full_name("losses", of).rpartition(".")[2].replace("_", "").lower()
        if folded in classes:
            return reference(classes[folded])
    raise UsageError(
        f"a choice of {root} with a dot gives an argument to what {root} calls, but {root} is {shown(of)}; legal where "
        "it is a function or call(…)."
    )


def _defaults(of: Call) -> dict[str, Any]:
    """The arguments that a function of one's own, or a class of Keras, has by default."""
    taken = of.parameters() or {}
    kept = {}
    for name, parameter in taken.items():
        if parameter.default is not parameter.empty:
            try:
                kept[name] = frozen(name, parameter.default)
            except UsageError:
                continue
    return kept


def _bare(value: Any) -> Any:
    """A frozen value whose calls lack the arguments that are as they are by default."""
    if isinstance(value, Call):
        defaults = _defaults(value)
        given = {k: v for k, v in value.arguments.items() if k not in defaults or defaults[k] != v}
        return replace(value, arguments=FrozenDict({k: _bare(v) for k, v in given.items()}))
    if isinstance(value, tuple):
        return tuple(map(_bare, value))
    return FrozenDict({k: _bare(v) for k, v in value.items()}) if isinstance(value, FrozenDict) else value
