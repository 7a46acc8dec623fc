"""What a model is trained on, described by the standard library alone: a name, a function, a file, or arrays."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from os import PathLike, fspath
from pathlib import PurePath
from typing import Any

from mlplab.calls import Call, call
from mlplab.checks import UsageError, choose, whole

READY = ("mnist", "cifar10", "digits")
"""The names of ready-made data."""

LEGAL = (
    f"a ready-made name ({', '.join(READY)}), a function that returns arrays, the path of an .npz or .csv file or of "
    "a folder of images, a tuple (x, y) or (x, y, weight), a dict with x and y or with train, a finite tf.data.Dataset"
)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, and how it is split: a value, frozen and equal by content, that nothing is loaded for.

    The source is one of

    - a ready-made name: `"mnist"`, `"cifar10"`, `"digits"`
    - a function, or `call(function, …)`, that returns any of the arrays below, or `((x, y), (x, y))` of training and
      test, as `load_data` of `keras.datasets` does
    - the path of an `.npz` file with x and y, or with x_train, y_train and so on; of a `.csv` file; or of a folder of
      images, one folder a class. Relative ones are found from the folder of the spec
    - arrays: a tuple `(x, y)` or `(x, y, weight)`; a dict with the keys x and y, and weight, groups and class_names if
      wanted; a dict of such under train, and validation and test if they are given; a finite `tf.data.Dataset` of
      `(x, y)`

    x has the shape (examples, ...), y (examples,) or (examples, ...), weight (examples,). x and y may be tuples or
    dicts of arrays.

    Args:
        source: what is described above.
        target: of a `.csv` file, the column that is to be predicted, or several.
        validation: what is held out for validation where the source gives no such split: a share of the examples, such
            as 0.2, or how many, such as 500.
        test: the same for the test.
        stratify: whether splits are made with equal shares of the labels, where these are few.
        groups: which examples must not be parted, as those of one patient: a column of the `.csv` file, or an array.
        class_names: of the labels 0, 1, …; by default text labels in sorted order.
        seed: of the splits.
        name: by which it is shown.

    Raises:
        UsageError: it cannot be a data set, or a value is not legal.

    Examples:
        >>> Data("people.csv", target="income", groups="household", test=500)
        Data('people.csv', target='income', test=500, groups='household')
    """

    source: Any
    _: KW_ONLY
    target: str | tuple[str, ...] | None = None
    validation: float = 0.2
    test: float = 0.2
    stratify: bool = True
    groups: Any = None
    class_names: tuple[str, ...] | None = None
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        """Raises a `UsageError` for what cannot be a data set."""
        source = self.source
        if isinstance(source, PathLike):
            source = fspath(source)
        elif callable(source) and not isinstance(source, Call):
            source = call(source)
        self._set("source", source)
        if not isinstance(source, str | Call) and not is_arrays(source):
            raise UsageError(f"data is {source!r}, a {type(source).__name__}; legal: {LEGAL}.")
        if isinstance(source, str) and not is_path(source):
            try:
                choose("data set", source, READY)
            except UsageError as error:
                raise UsageError(f"{error} A folder of images is written with a slash, such as './{source}'.") from None
        for what in ("target", "class_names"):
            value = getattr(self, what)
            if isinstance(value, list | tuple):
                self._set(what, tuple(value))
                if not value or not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
                    raise UsageError(f"{what} is {value!r}; legal: texts, each once.")
            elif value is not None and not (what == "target" and isinstance(value, str)):
                raise UsageError(f"{what} is {value!r}, a {type(value).__name__}; legal: texts.")
        table = self.kind == "csv"
        if table and not self.target:
            raise UsageError(f"{source} has no target; say which column is to be predicted: Data(…, target='column').")
        if self.target is not None and not table:
            raise UsageError(f"target is {self.target!r}; legal only for a .csv file, and the data are {self.label}.")
        if table and not isinstance(self.groups, str | None):
            raise UsageError(f"groups is a {type(self.groups).__name__}; legal for a .csv file: the name of a column.")
        if isinstance(self.groups, str) and not table:
            raise UsageError(f"groups is {self.groups!r}; legal here: an array, one value for each example.")
        _held_out("validation", self.validation)
        _held_out("test", self.test)
        if self.validation < 1 and self.test < 1 and self.validation + self.test >= 1:
            raise UsageError(
                f"validation is {self.validation} and test {self.test}, which leaves nothing to train on; legal: "
                "shares of less than 1 together."
            )
        if not isinstance(self.stratify, bool):
            raise UsageError(f"stratify is {self.stratify!r}; legal: True or False.")
        whole("seed of the splits", self.seed, 0, 2**32 - 1)
        if not isinstance(self.name, str):
            raise UsageError(f"name is {self.name!r}, a {type(self.name).__name__}; legal: a text.")
        changed = [
            what
            for what in ("validation", "test", "stratify", "groups", "class_names", "seed")
            if what in self._changed
        ]
        if source in READY and isinstance(source, str) and changed:
            raise UsageError(
                f"{source} comes with its own splits and class names; legal: no {' or '.join(changed)} besides. To "
                "split anew with each seed, say Training(splits='resampled')."
            )

    @classmethod
    def of(cls, value: Any) -> "Data":
        """A data set from whatever a person gives as one.

        Examples:
            >>> Data.of("digits")
            Data('digits')
        """
        return value if isinstance(value, Data) else cls(value)

    @property
    def kind(self) -> str:
        """`ready`, `function`, `npz`, `csv`, `images` or `arrays`."""
        if isinstance(self.source, Call):
            return "function"
        if not isinstance(self.source, str):
            return "arrays"
        if not is_path(self.source):
            return "ready"
        suffix = PurePath(self.source).suffix.lower()
        return suffix[1:] if suffix in (".npz", ".csv") else "images"

    @property
    def label(self) -> str:
        """The name to show it by: its own, or that of its function or file."""
        if self.name or self.kind == "arrays":
            return self.name or "arrays"
        if isinstance(self.source, Call):
            return self.source.name
        return PurePath(self.source).stem or self.source if self.kind != "ready" else str(self.source)

    def without_arrays(self) -> "Data":
        """The same in words, which is all that a process needs that has the examples from elsewhere."""
        return replace(self, source=()) if self.kind == "arrays" else self

    @property
    def content(self) -> Any:
        """What it is, hashable: equal for what is equal."""
        return tuple((field.name, _content(getattr(self, field.name))) for field in fields(self))

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it, without defaults; the source is None where it is arrays, which JSON cannot hold."""
        source: Any = self.source
        if isinstance(source, Call):
            source = {"function": source.to_dict()}
        found = {"source": None if self.kind == "arrays" else source}
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in self._changed.items()}
        if not isinstance(self.groups, str | None):
            found["source"] = given["groups"] = None
        return found | given

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Data":
        """What `to_dict` gave.

        Raises:
            UsageError: it was of arrays.
        """
        given = dict(record)
        source = given.pop("source")
        if source is None:
            raise UsageError(
                "these data were arrays, which no record holds; legal where data have to be found again, as by a "
                "worker or a replay: a function that returns them, or a file."
            )
        return cls(Call.from_dict(source["function"]) if isinstance(source, Mapping) else source, **given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Data) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    def __repr__(self) -> str:
        source = repr(self.source) if isinstance(self.source, str) else f"<{self.label}>"
        return f"Data({', '.join([source, *(f'{name}={value!r}' for name, value in self._changed.items())])})"

    @property
    def _changed(self) -> dict[str, Any]:
        """What was given besides the source."""
        given = ((field, getattr(self, field.name)) for field in fields(self)[1:])
        return {field.name: value for field, value in given if _content(value) != field.default}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def datasets_of(given: Any) -> tuple[Data, ...]:
    """The data sets that somebody gave: a list is several; a tuple, too, unless it is one's own arrays.

    Raises:
        UsageError: there is none, or two are equal or go by one name.

    >>> datasets_of(["mnist", "digits"])
    (Data('mnist'), Data('digits'))
    """
    # Of arrays neither is callable; a tuple of them is one data set, as ever.
    several = isinstance(given, list) or (
        isinstance(given, tuple) and all(isinstance(one, Data | str | PathLike) or callable(one) for one in given)
    )
    if not several:
        return (Data.of(given),)
    found: list[Data] = []
    for one in map(Data.of, given):
        if one in found:
            raise UsageError(f"data has {one.label} more than once; legal: different data sets. Delete the repetition.")
        if one.label in [other.label for other in found]:
            raise UsageError(
                f"two data sets are called {one.label!r}; legal: names that tell them apart, such as "
                f"Data(…, name='{one.label} 2')."
            )
        found.append(one)
    if not found:
        raise UsageError(f"data is {given!r}; legal: at least one data set.")
    return tuple(found)


def is_path(source: str) -> bool:
    """Whether a text is the path of a file or folder, and not a ready-made name.

    >>> is_path("mnist"), is_path("mine.npz"), is_path("./flowers")
    (False, True, True)
    """
    return "/" in source or "\\" in source or PurePath(source).suffix.lower() in (".npz", ".csv")


def is_arrays(source: Any) -> bool:
    """Whether something is arrays as `Data` takes them."""
    return isinstance(source, tuple | Mapping) or is_tf_data(source)


def is_tf_data(source: Any) -> bool:
    """Whether something is a `tf.data.Dataset`, told without importing TensorFlow."""
    return hasattr(source, "element_spec") and hasattr(source, "as_numpy_iterator")


def _held_out(what: str, value: Any) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (0 < value < 1 or (value >= 1 and value == int(value)))
    ):
        raise UsageError(f"{what} is {value!r}; legal: a share between 0 and 1, such as 0.2, or how many, such as 500.")


def _content(value: Any) -> Any:
    """Something hashable that is equal where two values are: arrays by their bytes."""
    if isinstance(value, Mapping):
        return tuple((key, _content(one)) for key, one in value.items())
    if isinstance(value, tuple | list):
        return tuple(map(_content, value))
    tobytes: Callable[[], bytes] | None = getattr(value, "tobytes", None)
    if tobytes is not None:
        # The bytes of objects are their addresses.
        content = repr(value.tolist()).encode() if str(value.dtype) == "object" else tobytes()
        return str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
