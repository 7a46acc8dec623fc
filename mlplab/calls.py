"""A function or class by its name, with arguments: a value that is written down now and called where a training runs.

It is frozen, equal by content, JSON and back, and checked before TensorFlow is loaded. What it is of has to be found
again by another process: by an import, or in the file that defines it.
"""

import importlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

from mlplab import keras_names, user_code
from mlplab.checks import UsageError, choose

READY_MODELS = ("mlp",)
"""The functions of `mlplab.models`, which are named without a path."""

KERAS_MODULES = (
    *("optimizers", "optimizers.schedules", "losses", "metrics", "callbacks", "layers", "regularizers", "initializers"),
    *("activations", "constraints", "applications"),
)


class FrozenDict(dict[str, Any]):
    """A dict that refuses to be changed, and so can be a part of what is equal by content."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a spec cannot be changed; make another by its `but`.")

    __setitem__ = __delitem__ = _refuse
    clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)


@dataclass(frozen=True, eq=False)
class Call:
    """A function or class with arguments; made by `call`.

    Attributes:
        target: what is called: a path such as `keras.optimizers.AdamW`, or `module:name` of a user's function.
        arguments: by name; values that JSON has, or further calls.
        calls: whether it is called; else the function itself is meant, as where one is given as a loss.
        source: a hash of the user's code behind it, "" for what is of an installed package.
        file: where that code is, "" in a notebook.
    """

    target: str
    arguments: FrozenDict = field(default_factory=FrozenDict)
    calls: bool = True
    source: str = ""
    file: str = ""
    function: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What it is called, such as `AdamW`.

        >>> call("keras.optimizers.AdamW", weight_decay=1e-4).name
        'AdamW'
        """
        return self.target.replace(":", ".").rpartition(".")[2]

    @property
    def key(self) -> str:
        """Its content as text: what decides what it does, and not where its file lies."""
        return json.dumps(plain(self, files=False), sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={shown(value)}" for name, value in self.arguments.items())
        return f"{self.name}({given})" if given else self.name

    def but(self, **changes: Any) -> "Call":
        """The same call with arguments added or replaced.

        >>> call("keras.optimizers.SGD", momentum=0.9).but(nesterov=True).arguments
        {'momentum': 0.9, 'nesterov': True}
        """
        return _made(self, {**self.arguments, **changes})

    def parameters(self) -> dict[str, inspect.Parameter] | None:
        """What it takes, by name; None where it takes anything, or that cannot be told before it is imported."""
        if self.function is None and self.target.partition(".")[0] == "keras":
            found = keras_names.parameters(self.target)
            if found is None:
                return None
            kind = inspect.Parameter.KEYWORD_ONLY
            return {name: inspect.Parameter(name, kind, default=default) for name, default in found.items()}
        try:
            taken = inspect.signature(self.resolve()).parameters
        except (TypeError, ValueError):  # or a record is of code that is not as it was: `resolve` says so
            return None
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            return None
        unnamed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        return {name: parameter for name, parameter in taken.items() if parameter.kind not in unnamed}

    def check(self) -> None:
        """Raises a `UsageError` for an argument that it does not take."""
        taken = self.parameters()
        for name, value in self.arguments.items():
            if taken is not None:
                choose(f"argument of {self.name}", name, taken)
                _check_type(f"{name} of {self.name}", value, taken[name].annotation)

    def resolve(self) -> Any:
        """The function or class itself.

        Raises:
            UsageError: it is not there any more, or its source is another than it was.
        """
        if self.function is not None:
            return self.function
        module, _, names = self.target.rpartition(":") if ":" in self.target else self.target.rpartition(".")
        if self.file:
            found = user_code.functions_of(self.file)
            if names in found and (now := user_code.source(found[names], self.file)) != self.source:
                raise UsageError(
                    f"the source of {self.target} in {self.file} is not what it was ({now}, and was {self.source}): "
                    "a record is of the code that it was made with. Restore that, or train anew."
                )
        else:
            try:
                found = vars(importlib.import_module(module))
            except ImportError as error:
                raise UsageError(
                    f"{self.target} cannot be imported ({error}); legal: what this Python finds."
                ) from None
        if names not in found:
            raise UsageError(f"{self.target} is not there; {self.file or module} has no {names}.")
        return found[names]

    def make(self, **more: Any) -> Any:
        """Calls it with its arguments and `more`; further calls among them are made first."""
        if not self.calls:
            return self.resolve()
        return self.resolve()(**{**{name: made(value) for name, value in self.arguments.items()}, **more})

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it; `from_dict` reads it back."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Call":
        """What `to_dict` gave."""
        return cls(
            record.get("call") or record["function"],
            FrozenDict({name: thawed(value) for name, value in record["arguments"].items()}),
            "call" in record,
            record.get("source", ""),
            record.get("file", ""),
        )


def call(target: str | Callable[..., Any] | type, /, **arguments: Any) -> Call:
    """A function or class, to be called with these arguments where a training runs.

    Args:
        target: a path such as `keras.optimizers.AdamW`, or a function or class: one that another process can find, at
            the top level of a file, of an installed package, or of a notebook.
        arguments: numbers, texts, booleans, None, lists and dicts of them, functions, or further calls.

    Returns:
        A value that stands for the call: frozen, equal by content. Nothing is called yet.

    Raises:
        UsageError: there is no such target, it does not take such an argument, or nobody else could find it.

    Examples:
        >>> decayed = call("keras.optimizers.AdamW", weight_decay=1e-4)
        >>> decayed.name, decayed.arguments
        ('AdamW', {'weight_decay': 0.0001})
    """
    found = _made(reference(target), arguments)
    found.check()
    return found


def reference(target: Any, calls: bool = True) -> Call:
    """The call of a function without arguments, or, where it is not called, the function itself."""
    if isinstance(target, Call):
        return target
    if isinstance(target, str):
        if target in READY_MODELS:
            return reference(getattr(importlib.import_module("mlplab.models"), target), calls)
        if not all(part.isidentifier() for part in target.replace(":", ".").split(".")) or "." not in target:
            raise UsageError(
                f"the target of a call is {target!r}; legal: a path such as 'keras.optimizers.AdamW', a function or a "
                "class."
            )
        if not target.startswith("keras."):
            found = reference(Call(target).resolve(), calls)
            # Of an installed package the public path is kept: where it leads within may change.
            return found if found.source else replace(found, target=target)
        # A dotted name is looked up in the modules that it says itself, whatever the kind.
        return Call(keras_names.full_name("layers", target), calls=calls)
    own = inspect.unwrap(target) if callable(target) else target
    if not isinstance(own, FunctionType | BuiltinFunctionType | type) or getattr(target, "__module__", None) is None:
        raise UsageError(
            f"the target of a call is {target!r}, a {type(target).__name__}; legal: a function, a class, or the path "
            "of one. What has been made already cannot be made anew for each training: write call(…) in its place."
        )
    module = str(target.__module__)
    root = module.partition(".")[0]
    if root == "keras":
        name = str(getattr(target, "__name__", ""))
        for public in KERAS_MODULES:
            exported: Any = getattr(importlib.import_module(f"keras.{public}"), name, None)
            if exported is target:
                return Call(f"keras.{public}.{name}", calls=calls)
    file = user_code.file_of(target)
    if root in ("keras", "tensorflow", "mlplab", "builtins") or user_code.is_installed(file):
        return Call(f"{module}:{target.__qualname__}", calls=calls, function=target)
    if "." in target.__qualname__ or target.__name__ == "<lambda>":
        kind = "a lambda" if target.__name__ == "<lambda>" else "defined within something else"
        raise UsageError(
            f"{target.__qualname__} is {kind}, where another process cannot find it; legal: a function at the top "
            "level of a file. What it takes from around it, give it as arguments: call(cnn, filters=32)."
        )
    module = Path(file).stem if file else module
    source = user_code.source(target, file)
    return Call(f"{module}:{target.__qualname__}", FrozenDict(), calls, source, file, target)


def frozen(what: str, value: Any, makes: bool = False) -> Any:
    """A value as a spec holds it: what cannot be changed behind its back, and JSON can hold.

    Args:
        what: what it is, for what is said where it is refused.
        value: the value.
        makes: whether a class stands for what it makes, as in the place of a loss; else for itself.

    Raises:
        UsageError: JSON cannot.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{what} is {value!r}; legal: a finite number.")
    if value is None or isinstance(value, bool | int | float | str | Call):
        return value
    if isinstance(value, list | tuple):
        return tuple(frozen(what, one, makes) for one in value)
    if isinstance(value, Mapping):
        held = {key if isinstance(key, str) else _key(key): frozen(what, v, makes) for key, v in value.items()}
        return FrozenDict(held)
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return reference(value, calls=makes and isinstance(value, type))
    raise UsageError(
        f"{what} is {value!r}, a {type(value).__name__}; legal: a number, a text, a boolean, None, a list or dict of "
        "them, a function, or call(…) of what makes it."
    )


def _key(key: Any) -> Any:
    if isinstance(key, bool | int | float):
        return key
    raise UsageError(f"the key {key!r} of a dict is a {type(key).__name__}; legal: a text or a number.")


def made(value: Any) -> Any:
    """What a frozen value stands for: calls among it are made."""
    if isinstance(value, Call):
        return value.make()
    if isinstance(value, tuple):
        return tuple(made(one) for one in value)
    if isinstance(value, FrozenDict):
        return {key: made(one) for key, one in value.items()}
    return value


def plain(value: Any, files: bool = True) -> Any:
    """A frozen value as JSON holds it; `thawed` reads it back.

    Without `files` it is what decides, equal for equal content: no places of files, and 1.0 is 1.
    """
    if isinstance(value, Call):
        kind = "call" if value.calls else "function"
        found = {kind: value.target, "arguments": {name: plain(one, files) for name, one in value.arguments.items()}}
        found |= {"source": value.source} if value.source else {}
        return found | ({"file": value.file} if files and value.file else {})
    if isinstance(value, tuple):
        return [plain(one, files) for one in value]
    if isinstance(value, FrozenDict):
        # A dict that reads like one of the two marks is written as pairs, too.
        if all(isinstance(key, str) for key in value) and not set(value) & {"pairs", "arguments"}:
            return {key: plain(one, files) for key, one in value.items()}
        return {"pairs": [[key, plain(one, files)] for key, one in value.items()]}
    if not files and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def thawed(value: Any) -> Any:
    """What `plain` gave, as a spec holds it."""
    if isinstance(value, list | tuple):
        return tuple(thawed(one) for one in value)
    if isinstance(value, Mapping):
        if set(value) <= {"call", "function", "arguments", "source", "file"} and "arguments" in value:
            return Call.from_dict(value)
        pairs = value["pairs"] if set(value) == {"pairs"} else value.items()
        return FrozenDict({key: thawed(one) for key, one in pairs})
    return value


def shown(value: Any) -> str:
    """A frozen value for readers, as a param of a run has it.

    >>> shown((128, 64)), shown(1e-4), shown(call("keras.regularizers.L2", l2=0.1))
    ('128-64', '0.0001', 'L2(l2=0.1)')
    """
    if value == ():
        return "()"
    if isinstance(value, tuple):
        return ("-" if all(isinstance(one, int) for one in value) else ", ").join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {shown(one)}" for key, one in value.items())
    return str(value)


def _made(of: Call, arguments: Mapping[str, Any]) -> Call:
    held = {name: frozen(f"{name} of {of.name}", value) for name, value in arguments.items()}
    return Call(of.target, FrozenDict(sorted(held.items())), of.calls, of.source, of.file, of.function)


TYPES: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    tuple: ((tuple,), "a tuple"),
    type(None): ((type(None),), "None"),
}
_NAMED = {"bool": bool, "int": int, "float": float, "str": str, "tuple": tuple}
"""What an annotation says that is a text, as it is after `from __future__ import annotations`."""


def _check_type(what: str, value: Any, annotation: Any) -> None:
    """Refuses a value that is not of a parameter's annotated type, where that is made of Python's own."""
    if words := _unlike(value, annotation):
        raise UsageError(f"{what} is {value!r}, a {type(value).__name__}; legal: {words}.")


def _unlike(value: Any, annotation: Any) -> str:
    """What is legal in the place of a value that is not of a type; "" where it is, or that cannot be told."""
    if isinstance(annotation, str):
        annotation = None if "|" in annotation else _NAMED.get(annotation.partition("[")[0])
    if get_origin(annotation) in (UnionType, Union):
        said = [_unlike(value, one) for one in get_args(annotation)]
        return " or ".join(said) if all(said) else ""
    kind = get_origin(annotation) or annotation
    if isinstance(value, Call) or not isinstance(kind, type) or kind not in TYPES:
        return ""
    legal, words = TYPES[kind]
    if not isinstance(value, legal) or (isinstance(value, bool) and kind is not bool):
        return words
    each = get_args(annotation)
    if isinstance(value, tuple) and len(each) == 2 and each[1] is ...:
        said = [_unlike(one, each[0]) for one in value]
        return next((f"{words} of which each is {one}" for one in said if one), "")
    return ""
