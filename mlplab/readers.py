"""What a source of data gives: arrays by split and field, as they are in files, folders, functions and notebooks.

Every array comes out numeric or text, with as many rows as the others and without a missing value, or a `UsageError`
says where one is.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlplab.calls import Call
from mlplab.checks import UsageError, choose
from mlplab.sources import Data, is_tf_data

Array = npt.NDArray[Any]
Part = dict[str, Any]

SPLITS = ("train", "validation", "test")
FIELDS = ("x", "y", "weight", "groups")

MISSING = {"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL"}
"""What stands in a cell of a table where there is no value."""

NUMBERS = "numbers"
"""The input that holds the columns of numbers of a table that has other columns, too."""

MAX_CLASSES = 1_000
"""So many different whole numbers may be labels of classes."""


@dataclass
class Given:
    """What a source gives: fields by split, or under "" what is still to be split."""

    parts: dict[str, Part]
    source: str
    class_names: Any = None
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(data: Data, folder: Path) -> Given:
    """Reads what is not ready-made; relative paths from `folder`.

    Raises:
        UsageError: what is wrong with the data, with split, row and column.
    """
    if isinstance(data.source, str):
        path = folder / Path(data.source).expanduser()
        if not path.exists():
            raise UsageError(f"the data {str(path)!r} are not there; legal: the path of a file or a folder.")
        given = {"npz": _of_npz, "csv": _of_csv, "images": _of_images}[data.kind](path, data)
    elif isinstance(data.source, Call):
        given = _of_arrays(data.source.make(), data.source.target)
    else:
        given = _of_arrays(data.source, data.label)
    if data.groups is not None and not isinstance(data.groups, str):
        if "" not in given.parts:
            raise UsageError(
                "groups is an array, and the data come in splits; give each its own: {'x': …, 'groups': …}."
            )
        given.parts[""]["groups"] = data.groups
    given.parts = {split: _checked(part, split) for split, part in given.parts.items()}
    return given


def _of_arrays(value: Any, source: str) -> Given:
    if isinstance(value, Mapping):
        for key in value:
            choose(f"key of the data of {source}", key, (*FIELDS, "class_names", *SPLITS))
        if "x" not in value and "train" in value:
            parts = {split: _fields(value[split], source) for split in SPLITS if split in value}
            return Given(parts, source, value.get("class_names"))
        return Given({"": _fields(value, source)}, source, value.get("class_names"))
    if _is_load_data(value):
        return Given({"train": _fields(value[0], source), "test": _fields(value[1], source)}, source)
    return Given({"": _fields(value, source)}, source)


def _fields(value: Any, source: str) -> Part:
    value = _collected(value) if is_tf_data(value) else value
    if isinstance(value, Mapping) and "x" in value and value.get("y") is not None:
        return {name: value.get(name) for name in FIELDS}
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return {**dict.fromkeys(FIELDS), **dict(zip(FIELDS, value, strict=False))}
    held = (
        f" of {list(value)}" if isinstance(value, Mapping) else f" of {len(value)}" if hasattr(value, "__len__") else ""
    )
    raise UsageError(
        f"{source} gives a {type(value).__name__}{held}; legal: (x, y), (x, y, weight), a dict with x and y, or a dict "
        "of these under train, validation and test."
    )


def _is_load_data(value: Any) -> bool:
    """Whether it is ((x, y), (x, y)) of training and test, and not two inputs and two outputs."""
    if not (isinstance(value, tuple | list) and [len(p) for p in value if isinstance(p, tuple | list)] == [2, 2]):
        return False
    (a, b), (c, d) = value
    if not all(hasattr(one, "shape") and len(one.shape) for one in (a, b, c, d)):
        return False
    fits = len(a) == len(b) and len(c) == len(d) and a.shape[1:] == c.shape[1:] and b.shape[1:] == d.shape[1:]
    if fits and len(a) == len(c):
        raise UsageError(
            "the data are two pairs of arrays of one shape: training and test, or two inputs and two outputs? Say it "
            "with keys: {'train': (x, y), 'test': (x, y)}, or {'x': (first, second), 'y': (first, second)}."
        )
    return fits


def _checked(part: Part, split: str) -> Part:
    """The fields as arrays of as many rows each."""
    where = f" of the {split} split" if split else ""
    found = {name: _nest(name, part[name], where) for name in FIELDS}
    lengths = {path: len(array) for name in FIELDS for path, array in leaves(found[name], name)}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        each = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise UsageError(f"the rows{where} do not fit together: {each}; legal: one for each example, and at least one.")
    for path, array in leaves(found["x"], "x"):
        if array.dtype.kind == "U":
            raise UsageError(
                f"{path}{where} is text, such as {array.flat[0]!r}, which Keras does not train on; "
                "legal: numbers. Columns of a .csv file are encoded by themselves; encode other text in the function "
                "that gives the data, such as by keras.layers.TextVectorization."
            )
    weight, groups = found["weight"], found["groups"]
    if weight is not None and (
        not isinstance(weight, np.ndarray) or weight.ndim != 1 or weight.dtype.kind not in "biuf"
    ):
        raise UsageError(f"weight{where} is no vector of numbers; legal: one weight for each example.")
    if weight is not None and (weight.min() < 0 or not weight.any()):
        raise UsageError(
            f"weight{where} has a least value of {weight.min()} in row {weight.argmin()}; legal: from 0, not all 0."
        )
    if groups is not None and (not isinstance(groups, np.ndarray) or groups.ndim != 1):
        raise UsageError(f"groups{where} is no vector; legal: one value for each example.")
    return found


def _nest(what: str, value: Any, where: str) -> Any:
    if isinstance(value, list) and any(hasattr(one, "shape") and len(one.shape) for one in value):
        value = tuple(value)  # Keras takes lists of arrays for several inputs
    return map_nest(lambda path, one: _array(f"{path}{where}", one), value, what)


def _array(what: str, value: Any) -> Array:
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} is no array ({error}); legal: rows of one shape.") from None
    bad: Any = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else np.zeros(1, bool)
    if array.dtype == object:
        bad = np.array([not isinstance(one, str | bytes) for one in array.flat], bool).reshape(array.shape)
        if not bad.any():
            texts = [one.decode() if isinstance(one, bytes) else one for one in array.flat]
            array = np.array(texts, str).reshape(array.shape)
    elif array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        bad = array == ""
    elif array.dtype.kind == "f" and not bad.any():
        bad = ~np.isfinite(array)
    if array.ndim and bad.any():
        row, *column = (int(i) for i in np.argwhere(bad)[0])
        value = array[(row, *column)]
        seen = (
            "a masked value"
            if value is np.ma.masked
            else repr(value.item() if isinstance(value, np.generic) else value)
        )
        at = f"row {row}" + f", column {', '.join(map(str, column))}" * bool(column)
        raise UsageError(
            f"{what} has {seen} in {at}, counted from 0; legal: finite numbers of one dtype, or "
            "texts, and no missing ones. Leave the row out, or fill the value in."
        )
    if array.dtype.kind not in "biufU" or not array.ndim:
        raise UsageError(
            f"{what} is {array.dtype} of shape {array.shape}; legal: numbers or texts, a row for each example."
        )
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


# ---------------------------------------------------------------------------------------------- files and folders


def _of_npz(path: Path, _: Data) -> Given:
    """Keys such as x, y, x_test, or x_image_test for the input `image`; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # what is no .npz fails as almost anything
        raise UsageError(f"{path} cannot be read ({error}); legal: an .npz of numbers and texts, no objects.") from None
    names = arrays.pop("class_names", None)
    parts: dict[str, Part] = {}
    for key, array in arrays.items():
        name, *rest = key.split("_")
        choose(f"key in {path.name}, before the first _,", name, FIELDS)
        split = rest.pop() if rest and rest[-1] in SPLITS else ""
        part = parts.setdefault(split, dict.fromkeys(FIELDS))
        if not rest:
            part[name] = array
        else:
            part[name] = {**(part[name] if isinstance(part[name], dict) else {}), "_".join(rest): array}
    if any(part["x"] is None or part["y"] is None for part in parts.values()) or len({"", "train"} & set(parts)) != 1:
        raise UsageError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; legal: x and y, or x_train, y_train and, if they are "
            "given, x_validation, y_validation, x_test, y_test; besides them weight, groups and class_names."
        )
    return Given(parts, str(path), None if names is None else names.tolist())


def _of_csv(path: Path, data: Data) -> Given:
    """Numbers become one float32 array, each column of text the codes of its categories."""
    columns, lines = _columns(path)
    targets = [data.target] if isinstance(data.target, str) else list(data.target or ())
    for what, names in (("target", targets), ("groups column", [data.groups] if data.groups else [])):
        for name in names:
            choose(f"{what} of {path.name}", name, columns)
    values = {name: _column(f"column {name!r} of {path}", np.array(cells), lines) for name, cells in columns.items()}
    y = {name: values[name] for name in targets}
    groups = None if data.groups is None else values[data.groups].astype(str)
    inputs = {name: value for name, value in values.items() if name not in (*targets, data.groups)}
    vocabulary = {}
    x: dict[str, Array] = {}
    numbers = [value for value in inputs.values() if value.dtype.kind == "f"]
    if numbers:
        x[NUMBERS] = np.stack(numbers, axis=1)
    for name, value in inputs.items():
        if value.dtype.kind == "U":
            key = name.replace("/", "_")  # which Keras forbids in the name of an input
            if key in x:
                raise UsageError(f"column {name!r} of {path} would be the input {key!r} twice; call it something else.")
            known, codes = np.unique(value, return_inverse=True)
            vocabulary[key] = tuple(known.tolist())
            x[key] = (codes.reshape(-1, 1) + 1).astype(np.int32)
    if not x:
        raise UsageError(f"{path} has no column besides {', '.join(targets)}; legal: at least one to predict it from.")
    whole: Any = {name: _whole(value, columns[name]) for name, value in y.items()}
    if len(y) == 1:
        whole = whole[targets[0]]
    elif all(value.dtype.kind == "f" for value in y.values()):
        whole = np.stack(list(y.values()), axis=1)
    part = {"x": x[NUMBERS] if list(x) == [NUMBERS] else x, "y": whole, "weight": None, "groups": groups}
    of_numbers = {NUMBERS: tuple(name for name, value in inputs.items() if value.dtype.kind == "f")}
    return Given({"": part}, str(path), vocabulary=vocabulary, columns=of_numbers)


def _columns(path: Path) -> tuple[dict[str, list[str]], list[int]]:
    """The cells of each column, and the line of the file that each row ends in."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        reader = csv.reader(file, delimiter=max(",;\t", key=head.count))
        names = [name.strip() for name in next(reader, [])]
        rows, lines = [], []
        for row in reader:
            if row and len(row) != len(names):
                raise UsageError(
                    f"line {reader.line_num} of {path} has {len(row)} cells; legal: {len(names)}, as its head."
                )
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    if len(set(names)) < len(names) or not rows:
        raise UsageError(f"{path} has the columns {', '.join(names)} and {len(rows)} rows; legal: each once, and rows.")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), lines


def _column(what: str, cells: Array, lines: Sequence[int]) -> Array:
    """A column as float32, or as text where it is no numbers."""

    def refuse(bad: Array, legal: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise UsageError(
                f"{what} has {str(cells[row])!r} in line {lines[row]} (row {row}, counted from 0); {legal}"
            )

    refuse(np.isin(cells, list(MISSING)), "legal: no missing values. Leave the line out, or fill the value in.")
    try:
        with np.errstate(over="ignore"):  # refused below
            numbers = cells.astype(np.float64).astype(np.float32)
    except ValueError:
        text = np.array([not _is_number(cell) for cell in cells])
        if text.mean() < 0.5:
            refuse(text, "legal: a number, as in most of its lines.")
        return cells
    refuse(~np.isfinite(numbers), "legal: finite numbers, up to 3e38.")
    return numbers


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _whole(value: Array, cells: Sequence[str]) -> Array:
    """A target as int32 where it was written as few whole numbers: then these are labels."""
    written = value.dtype.kind == "f" and all(cell.lstrip("+-").isdigit() for cell in cells)
    return value.astype(np.int32) if written and few(value) is not None else value


def few(y: Any) -> Array | None:
    """A label for each row, where y is a vector of few whole ones: at most one for each three rows."""
    if not isinstance(y, np.ndarray) or y.size != len(y) or (y.dtype.kind == "f" and (y != np.floor(y)).any()):
        return None
    labels = y.reshape(-1)
    kinds = len(np.unique(labels))
    return labels if kinds <= MAX_CLASSES and 3 * kinds <= len(labels) else None


def _of_images(folder: Path, _: Data) -> Given:
    """A folder for each class; or folders train, and validation and test, of such. Of the size of the first image."""
    import keras
    from PIL import Image

    splits = [split for split in SPLITS if (folder / split).is_dir()] if (folder / "train").is_dir() else [""]
    parts: dict[str, Part] = {}
    names = None
    options: dict[str, Any] = {"image_size": (1, 1)}
    for split in splits:
        for look in (True, False) if names is None else (False,):
            try:
                images = keras.utils.image_dataset_from_directory(
                    str(folder / split), class_names=names, batch_size=None, shuffle=False, verbose=False, **options
                )
            except ValueError as error:
                raise UsageError(f"the images in {folder / split} cannot be read: {error}") from None
            if look:
                names = list(images.class_names)
                with Image.open(images.file_paths[0]) as first:
                    mode = {"L": "grayscale", "1": "grayscale", "RGBA": "rgba", "LA": "rgba"}.get(first.mode, "rgb")
                    options = {"image_size": (first.height, first.width), "color_mode": mode}
        pairs = [(np.clip(np.rint(x), 0, 255).astype(np.uint8), y) for x, y in images.as_numpy_iterator()]
        x, y = (np.stack(column) for column in zip(*pairs, strict=True))
        parts[split] = {"x": x, "y": y.astype(np.int32), "weight": None, "groups": None}
    return Given(parts, str(folder), names)


def _collected(data: Any) -> Any:
    """The elements of a `tf.data.Dataset`, joined: batched ones, whose first axis has no fixed length, along it."""
    if int(data.cardinality()) == -1:
        raise UsageError(
            "the tf.data.Dataset is infinite; legal: a finite one. Leave its repeat() out, or take(n) of it."
        )
    shapes: list[Any] = [spec.shape for _, spec in leaves(data.element_spec)]
    batched = all(shape.rank and shape[0] is None for shape in shapes)
    elements = list(data.as_numpy_iterator())
    if not elements:
        raise UsageError("the tf.data.Dataset is empty; legal: at least one example for each split.")
    try:
        return join_nests(elements, np.concatenate if batched else np.stack)
    except ValueError as error:
        raise UsageError(f"the elements of the tf.data.Dataset differ in shape: {error}; legal: one shape.") from None


# ----------------------------------------------------------------------------------- nests: arrays, tuples and dicts


def leaves(nest: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """The arrays of a nest, each with its place in it, below `path`."""
    if isinstance(nest, Mapping | tuple):
        for key, value in nest.items() if isinstance(nest, Mapping) else enumerate(nest):
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif nest is not None:
        yield path, nest


def map_nest(change: Callable[[str, Any], Any], nest: Any, path: str = "") -> Any:
    """The same nest of what `change` makes of the place and the array of each leaf; None stays None."""

    def within(key: Any) -> str:
        return f"{path}.{key}" if path else str(key)

    if isinstance(nest, Mapping):
        return {str(key): map_nest(change, value, within(key)) for key, value in nest.items()}
    if isinstance(nest, tuple):
        return tuple(map_nest(change, value, within(i)) for i, value in enumerate(nest))
    return None if nest is None else change(path, nest)


def join_nests(nests: Sequence[Any], join: Callable[[Sequence[Any]], Array] = np.concatenate) -> Any:
    """Nests alike as one, leaf by leaf."""
    first = nests[0]
    if isinstance(first, Mapping):
        return {key: join_nests([nest[key] for nest in nests], join) for key in first}
    if isinstance(first, tuple):
        return tuple(join_nests(list(parts), join) for parts in zip(*nests, strict=True))
    return None if first is None else join(nests)


def rows(part: Part) -> int:
    """How many rows there are in a split."""
    return len(next(leaves(part["y"]))[1])
