"""Data sets: `load` gives splits of any shape and dtype, checked, with one digest over all of their content.

Arrays are NumPy's. Keras is imported for a folder of images and for `table_inputs` alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mlplab.checks import UsageError, choose
from mlplab.datasets import KNOWN, Found, Progress, digest, find
from mlplab.readers import (
    FIELDS,
    MAX_CLASSES,
    NUMBERS,
    SPLITS,
    Array,
    Given,
    Part,
    few,
    join_nests,
    leaves,
    map_nest,
    read,
    rows,
)
from mlplab.sources import Data, is_path
from mlplab.splits import partition


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: `x` and `y` are arrays, or tuples or dicts of them; `weight` one number each, or None. Read-only."""

    x: Any
    y: Any
    weight: Array | None = None

    def __len__(self) -> int:
        return len(next(leaves(self.y))[1])

    def map(self, change: Callable[[Array], Any]) -> "Split":
        """The same split of what `change` makes of each array."""
        return Split(*(map_nest(lambda _, array: change(array), part) for part in (self.x, self.y, self.weight)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and what a result must say of them.

    Attributes:
        name: what the arrays are.
        wanted: what they are used for; differs from `name` only where digits stand in for a ready-made data set.
        train, validation, test: the splits.
        input_shape: of one example's x, in the nest that x is.
        image_shape: where x are images, one image's shape, even if x is flat; values 0-255. Else None.
        class_names: of the labels 0, 1, …; () where y is no class. `classes`: how many.
        digest: over all content (names, dtypes, shapes, values): 32 hex digits, since MLflow permits 36 characters.
        source: where the data came from.
        notice: in plain words what a reader of a result must know (stand-in data, a partial test set), else None.
        vocabulary: of inputs that are categories, their texts: code 1 is the first one, 0 none of them.
        columns: of an input that is the columns of numbers of a table, their names.
        groups: for each split, the group of each example, or None.
        stratify: whether splits are made with equal shares of the labels.
        ready_made: whether it is one of `datasets`, which are verified and not checked again.
    """

    name: str
    wanted: str
    train: Split
    validation: Split
    test: Split
    input_shape: Any
    image_shape: tuple[int, ...] | None
    class_names: tuple[str, ...]
    digest: str
    source: str
    notice: str | None = None
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, Array] | None = None
    stratify: bool = True
    ready_made: bool = False

    @property
    def classes(self) -> int:
        """How many labels there are; 0 where y is no class."""
        return len(self.class_names)

    @property
    def features(self) -> int:
        """Values in the x of one example."""
        return sum(int(np.prod(array.shape[1:])) for _, array in leaves(self.train.x))

    @property
    def bytes(self) -> int:
        """How much memory the examples take."""
        parts = [part for name in SPLITS for part in (getattr(self, name).x, getattr(self, name).y)]
        return sum(array.nbytes for part in parts for _, array in leaves(part))

    @property
    def is_fallback(self) -> bool:
        """Whether the data stand in for those of the experiment."""
        return self.name != self.wanted

    @property
    def label(self) -> str:
        """The name to show wherever a number is shown, such as "MNIST" or "digits (stand-in for MNIST)"."""
        wanted = KNOWN[self.wanted].label if self.ready_made and self.wanted in KNOWN else self.wanted
        return f"{self.name} (stand-in for {wanted})" if self.is_fallback else wanted

    def resampled(self, seed: int) -> "Dataset":
        """The same examples, split anew into as many; stratified or by group as before."""
        given = []
        for split in SPLITS:
            part = getattr(self, split)
            given.append({"x": part.x, "y": part.y, "weight": part.weight, "groups": (self.groups or {}).get(split)})
        whole = {name: join_nests([part[name] for part in given]) for name in FIELDS}
        made = _split(whole, len(self.validation), len(self.test), self.stratify, seed)
        left = {one.name: getattr(self, one.name) for one in fields(self)}
        return _assembled(made, {name: value for name, value in left.items() if name not in (*SPLITS, *MADE)})


def load(
    data: Any,
    wanted: str | None = None,
    *,
    dataset: str = "auto",
    data_dir: Path | None = None,
    progress: Progress | None = None,
    timeout: float = 6.0,
    folder: Path | str | None = None,
) -> Dataset:
    """Loads a data set, checks it, and splits it where its source does not.

    Args:
        data: a `Data`, whatever `Data.of` takes, or a name as `datasets.find` takes it, such as "auto".
        wanted: with a name, what the experiment was written for.
        dataset: which ready-made data to use in place of the ready-made ones that `data` describes: a name, or "auto",
            which takes those, and digits where they are not to be had.
        data_dir, progress, timeout: of ready-made data, as `datasets.find` takes them.
        folder: from which relative paths are found; the working folder by default.

    Raises:
        UsageError: what is wrong with the data, with split, row and column.
        UnavailableError: ready-made data are damaged or not to be had.
    """
    choose("data set", dataset, ("auto", "digits", *KNOWN))
    if isinstance(data, str) and not is_path(data):
        return _ready(find(data, wanted, data_dir=data_dir, progress=progress, timeout=timeout))
    data = Data.of(data)
    if data.kind == "ready":
        return _ready(find(dataset, data.source, data_dir=data_dir, progress=progress, timeout=timeout))
    if dataset != "auto":
        raise UsageError(f"dataset is {dataset!r}, which replaces ready-made data; the data here are {data.label}.")
    return _dataset(data, read(data, Path(folder or ".")))


def table_inputs(dataset: Dataset) -> tuple[Any, Any]:
    """Inputs of a model for a table, and the features that Keras' preprocessing layers make of them.

    Columns of numbers are normalized by mean and variance of the training split alone; a category is one-hot encoded.

    Args:
        dataset: as a model function gets it as its argument `data`.

    Returns:
        `keras.Input` for each part of `dataset.train.x`, in its nest, and a tensor of shape (None, features).

    Raises:
        UsageError: an input has more than one row for an example.

    Examples:
        >>> def net(data, units=16):
        ...     inputs, features = table_inputs(data)
        ...     hidden = keras.layers.Dense(units, activation="relu")(features)
        ...     return keras.Model(inputs, keras.layers.Dense(data.classes, activation="softmax")(hidden))
    """
    import keras

    features = []

    def part(name: str, array: Array) -> Any:
        if array.ndim > 2:
            raise UsageError(f"the input {name or 'x'} has the shape {array.shape}; legal in a table: one row each.")
        known = dataset.vocabulary.get(name)
        shape = array.shape[1:] or (1,)
        given = keras.Input(shape, dtype="int32" if known else "float32", name=name or NUMBERS)
        if known:
            layer = keras.layers.CategoryEncoding(len(known) + 1, output_mode="one_hot", name=f"{name}_one_hot")
        else:
            values = array.reshape(len(array), -1).astype(np.float64)
            layer = keras.layers.Normalization(mean=values.mean(axis=0), variance=values.var(axis=0))
        features.append(layer(given))
        return given

    inputs = map_nest(part, dataset.train.x)
    return inputs, features[0] if len(features) == 1 else keras.layers.Concatenate(name="features")(features)


MADE = ("input_shape", "digest", "groups")
"""What is told from the splits."""


def _dataset(data: Data, given: Given) -> Dataset:
    parts = given.parts
    _check_alike(parts)
    names = data.class_names or given.class_names
    class_names = _coded(parts, None if names is None else tuple(map(str, names)))
    whole = parts.pop("") if "" in parts else parts["train"]
    made = {split: _held_out(getattr(data, split), rows(whole)) for split in SPLITS[1:] if split not in parts}
    if made:
        found = _split(whole, made.get("validation", 0), made.get("test", 0), data.stratify, data.seed)
        parts |= {split: found[split] for split in ("train", *made)}
    if class_names is None:
        class_names = _classes(join_nests([part["y"] for part in parts.values()]))
    x = parts["train"]["x"]
    images = isinstance(x, np.ndarray) and x.dtype == np.uint8 and (x.ndim, *x.shape[3:]) in IMAGES
    about = {
        "name": data.label,
        "wanted": data.label,
        "image_shape": x.shape[1:] if images else None,
        "class_names": class_names,
        "source": given.source,
        "vocabulary": given.vocabulary,
        "columns": given.columns,
        "stratify": data.stratify,
    }
    return _assembled(parts, about)


IMAGES = ((3,), (4, 1), (4, 3), (4, 4))
"""The axes of images, and their channels."""


def _check_alike(parts: dict[str, Part]) -> None:
    """Raises a `UsageError` where splits that were given differ in what they have for each example."""
    shapes = {
        split: {name: array.shape[1:] for f in FIELDS for name, array in leaves(part[f], f)}
        for split, part in parts.items()
    }
    first, expected = next(iter(shapes.items()))
    for split, found in shapes.items():
        for name in expected.keys() | found.keys():
            if found.get(name) != expected.get(name):
                raise UsageError(
                    f"{name} of the {split} split has the shape {found.get(name)} for each example, and of the "
                    f"{first or 'train'} split {expected.get(name)}; legal: the same parts and shapes in each split."
                )


def _held_out(size: float, of: int) -> int:
    return int(size) if size >= 1 else max(1, round(size * of))


def _classes(y: Any) -> tuple[str, ...]:
    """The names of the classes that y has as numbers; () where it has no classes."""
    labels = few(y)
    if labels is None or labels.dtype.kind not in "biu" or labels.min() < 0 or labels.max() >= MAX_CLASSES:
        return ()
    return tuple(map(str, range(int(labels.max()) + 1)))


def _coded(parts: dict[str, Part], class_names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Makes codes of labels that are text, in place, and gives the names of the classes where they are known."""
    every = [dict(leaves(part["y"])) for part in parts.values()]
    names: dict[str, tuple[str, ...]] = {}
    for place in every[0]:
        if any(found[place].dtype.kind == "U" for found in every):
            seen = sorted({str(label) for found in every for label in np.unique(found[place])})
            names[place] = class_names if class_names and not place else tuple(seen)
            for label in seen:
                choose("label", label, names[place])

    def code(place: str, array: Array) -> Array:
        if place not in names:
            return array
        codes = {name: i for i, name in enumerate(names[place])}
        return np.array([codes[str(label)] for label in array.flat], np.int32).reshape(array.shape)

    for split, part in parts.items():
        part["y"] = map_nest(code, part["y"])
        if class_names:
            _check_labels(part["y"], split, len(class_names))
    return names.get("", class_names)


def _check_labels(y: Any, split: str, classes: int) -> None:
    if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] == classes > 1:
        return  # a column for each
    what = f"y of the {split} split" if split else "y"
    if not isinstance(y, np.ndarray) or y.size != len(y) or y.dtype.kind not in "biu":
        raise UsageError(f"{what} is no vector of whole numbers; legal with class_names: one label for each example.")
    bad = (y < 0) | (y >= classes)
    if bad.any():
        row = int(np.argmax(bad))
        raise UsageError(
            f"{what} has the label {y.flat[row]} in row {row}, counted from 0; legal with {classes} class names: 0 to "
            f"{classes - 1}."
        )


def _split(whole: Part, validation: int, test: int, stratify: bool, seed: int) -> dict[str, Part]:
    strata = few(whole["y"]) if stratify else None
    found = partition(rows(whole), validation, test, strata=strata, groups=whole["groups"], seed=seed)

    def of(taken: Array) -> Part:
        return {name: map_nest(lambda _, array: array[taken], whole[name]) for name in FIELDS}

    return {split: of(taken) for split, taken in zip(SPLITS, found, strict=True)}


def _assembled(parts: dict[str, Part], about: Mapping[str, Any]) -> Dataset:
    """A data set of splits, checked, with their digest."""

    def frozen(_: str, array: Array) -> Array:
        view = array.view()  # the user's own arrays stay writeable
        view.flags.writeable = False
        return view

    parts = {split: {name: map_nest(frozen, parts[split][name]) for name in FIELDS} for split in SPLITS}
    named = {key: leaf for name, part in parts.items() for f in FIELDS for key, leaf in leaves(part[f], f"{f}_{name}")}
    if not about.get("ready_made"):
        _check_splits(parts, about["class_names"])
        texts = {"class_names": about["class_names"], **about["vocabulary"]}
        named |= {f"{name}:": np.array(known, str) for name, known in texts.items()}
    groups = {split: part["groups"] for split, part in parts.items()}
    made: Any = {split: Split(part["x"], part["y"], part["weight"]) for split, part in parts.items()}
    return Dataset(
        **made,
        **about,
        input_shape=map_nest(lambda _, array: array.shape[1:], parts["train"]["x"]),
        groups=None if groups["train"] is None else groups,
        digest=digest(named)[:32],
    )


def _check_splits(parts: dict[str, Part], class_names: tuple[str, ...]) -> None:
    """Raises a `UsageError` where splits share a group, or one of them lacks a class."""
    seen: dict[Any, str] = {}
    for split, part in parts.items():
        for group in () if part["groups"] is None else np.unique(part["groups"]).tolist():
            if seen.setdefault(group, split) != split:
                raise UsageError(
                    f"the group {group!r} is in the {seen[group]} split and in the {split} split; legal: each in one. "
                    "Give the data unsplit, and they are split by group."
                )
    y = parts["train"]["y"]
    if not class_names or y.size != len(y):
        return
    count = {split: np.bincount(part["y"].reshape(-1).astype(int)) for split, part in parts.items()}
    counts = {split: np.pad(found, (0, len(class_names) - len(found))) for split, found in count.items()}
    every = np.sum(list(counts.values()), axis=0)
    for split, have in counts.items():
        for label in np.flatnonzero((have == 0) & (every > 0)):
            raise UsageError(
                f"the class {class_names[label]!r} (label {label}) is absent from the {split} split of {have.sum():,} "
                f"rows; it has {every[label]:,} in all. Legal: some of each class in each split. Hold out more, split "
                "stratified, or leave the class out."
            )


def _ready(found: Found) -> Dataset:
    parts = {name: {"x": x, "y": y, "weight": None, "groups": None} for name, (x, y) in found.splits.items()}
    names = ("name", "wanted", "image_shape", "class_names", "source", "notice")
    return _assembled(parts, {name: getattr(found, name) for name in names} | {"ready_made": True})
