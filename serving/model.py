"""The served model: a graph of mathematics (ONNX), and the contract that says what goes in and what comes out.

What comes in is checked against the contract: names, shapes, kinds of numbers, ranges. Nothing is converted in silence.

MLflow stores this one file with a version ("model from code": there is no pickle), and `mlflow models serve` runs it
where mlplab is not installed. So it imports nothing of the project, and MLflow only where MLflow runs it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

GRAPH, CONTRACT = "model.onnx", "contract.json"
"""The names of a version's two files."""

PIXELS = "pixels"
"""The name of the one input of a model of flat images, and the form of its answers: those of `CLASSES`."""

CLASSES, VALUES, ARRAYS = "classes", "values", "arrays"
"""How a model answers: a label and probabilities for each example, a prediction for each, or arrays as they are."""

DTYPES = {
    *("float64", "float32", "float16"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "bool",
}

MOST_CONTRACT_BYTES, MOST_NAMES = 4 * 2**20, 100_000
ARENA_BYTES = 512 * 2**20
"""What a model's tensors may take together; a graph can name sizes that no machine has."""
MOST_ANSWERED = 2**22
"""Numbers in an answer."""

STAND_IN, SCALED, INVERTED, UNKNOWN = "stand-in-data", "scaled-twice", "inverted", "unknown-category"
"""What an answer is given with a warning for."""


class InvalidInputError(ValueError):
    """What was sent does not fit the contract. The message says what is legal, and repeats nothing of what was sent."""


@dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: "" where it is the only one and has none.
        dtype, shape: of one example.
        low, high: the legal range; None: any finite number of the dtype.
        nan: whether a number may be missing (null, NaN): whether some were when it was trained.
        columns: the names of a table's columns, where the input is a row of them.
        vocabulary: the texts of a category; code 1 is the first one, 0 none of them.
        seen: the least and the largest number in training, None where that is not known.
        ground: `dark` or `light`: of the pictures it was trained on, "" where it takes none, or both.
        fill: which share of such a picture's longer side its ink takes; 0 where that is not known.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    nan: bool = False
    columns: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()
    seen: tuple[float, float] | None = None
    ground: str = ""
    fill: float = 0.0

    @property
    def size(self) -> int:
        """Numbers of one example."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Output:
    """One output of a model: its name, "" where it is the only one and has none, and the shape for one example."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """What a model takes and gives.

    Attributes:
        form: `PIXELS`, `CLASSES`, `VALUES` or `ARRAYS`.
        class_names: of the labels 0, 1, …
        data: the label of the data that it was trained on.
        notice: what whoever reads an answer must know of these, such as that they stand in for others; "" if nothing.
        image: shape of one picture, where the one input is that: rows, columns and, if there are any, channels.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    form: str
    class_names: tuple[str, ...] = ()
    data: str = ""
    notice: str = ""
    image: tuple[int, ...] = ()
    version: int = field(default=1, kw_only=True)

    @property
    def what(self) -> str:
        """What an example is called."""
        return "image" if self.image else "example"

    @cached_property
    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """Input -> shapes in which one example may be sent.

        Its own; a number for a list of one; rows of flat pixels; an image without its channel.
        """
        return {one.name: self._shapes(one) for one in self.inputs}

    def _shapes(self, one: Input) -> list[tuple[int, ...]]:
        found = [one.shape, *([()] if one.shape == (1,) else [])]
        side = math.isqrt(one.size)
        for other in (self.image, (side, side)):
            if other and len(one.shape) == 1 and one.size > 1 and math.prod(other) == one.size:
                found.append(other)
        if len(one.shape) == 3 and one.shape[-1] == 1:
            found.append(one.shape[:-1])
        return list(dict.fromkeys(found))

    def to_json(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def read(cls, text: bytes | str) -> "Contract":
        """What `to_json` gave.

        Raises:
            ValueError: it is no contract.
        """
        if len(text) > MOST_CONTRACT_BYTES:
            raise ValueError("its contract is too large")
        try:
            found = json.loads(text)
            inputs = tuple(Input(**_tuples(one)) for one in found.pop("inputs"))
            outputs = tuple(Output(**_tuples(one)) for one in found.pop("outputs"))
            contract = cls(inputs, outputs, **_tuples(found))
            good = contract.version == 1 and contract._is_good()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            good = False
        if not good:
            raise ValueError("its contract is damaged, or of another version")
        return contract

    def _is_good(self) -> bool:
        texts = [self.form, self.data, self.notice, *self.class_names]
        texts += [
            text for one in self.inputs for text in (one.name, one.dtype, one.ground, *one.columns, *one.vocabulary)
        ]
        texts += [one.name for one in self.outputs]
        numbers = [n for i in self.inputs for n in (i.low, i.high, i.fill, *(i.seen or ())) if n is not None]
        shapes = [*(one.shape for one in self.inputs), *(one.shape for one in self.outputs), self.image]
        sizes = [size for shape in shapes for size in shape]
        names = [name for one in self.inputs for name in (one.columns or (one.name,))]
        return (
            all(type(text) is str and len(text) <= 10_000 for text in texts)
            and all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
            and all(type(size) is int and 0 < size <= 2**24 for size in sizes)
            and len(texts) <= MOST_NAMES
            and 0 < len(self.inputs) <= 1_000
            and 0 < len(self.outputs) <= 1_000
            and len(set(names)) == len(names)
            and all(one.dtype in DTYPES and type(one.nan) is bool for one in self.inputs)
            and all(0 <= one.fill <= 1 for one in self.inputs)
            and all(one.size <= 2**24 and len(one.shape) <= 8 for one in self.inputs)
            and all(not one.columns or len(one.columns) == one.size for one in self.inputs)
            and (len(self.inputs) == 1 or all(one.name for one in self.inputs))
            and self.form in (PIXELS, CLASSES, VALUES, ARRAYS)
            and (not self.image or (len(self.inputs) == 1 and math.prod(self.image) == self.inputs[0].size))
            and (self.form in (VALUES, ARRAYS) or (len(self.outputs) == 1 and len(self.outputs[0].shape) == 1))
        )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def is_pixels(x: Any) -> bool:
    """Whether examples are flat images: a row of values from 0 to 255 each."""
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2


def as_sent(x: Any) -> Any:
    """Examples as a model takes them: flat images as float32, everything else as it is."""
    return x.astype(np.float32) if is_pixels(x) else x


def named(nest: Any, what: str) -> Any:
    """A nest of arrays as MLflow takes it: one array, or a dict of arrays by name.

    Keys are names, joined with a dot where they are within one another; of a tuple, `what` and the place.
    """
    if not isinstance(nest, Mapping | tuple | list):
        return nest
    found: dict[str, Any] = {}
    for key, part in sorted(nest.items()) if isinstance(nest, Mapping) else enumerate(nest):
        name = f"{what}_{key}" if isinstance(key, int) else str(key)
        below = named(part, what)
        found |= {f"{name}.{n}": one for n, one in below.items()} if isinstance(below, dict) else {name: below}
    return found


# ----------------------------------------------------------------------------------------------------- what comes in


def arrays_of(contract: Contract, given: Any, flat: bool = False) -> list[np.ndarray]:
    """Checks a batch of examples, and returns its arrays in the contract's order and dtypes.

    Args:
        given: a value by each input's name; where there is one input, the value alone will do. A value is an array, or
            lists in lists, for all examples.
        flat: whether an example may be one row of all its numbers, as a table has it.

    Raises:
        InvalidInputError: with what is wrong and what is legal.
    """
    names = [one.name for one in contract.inputs]
    if len(names) == 1 and not (isinstance(given, Mapping) and list(given) == names):
        given = {names[0]: given}
    if not isinstance(given, Mapping) or given.keys() != set(names):
        raise InvalidInputError(f"the inputs have the wrong names; legal: {few(names)}, a list of examples for each.")
    found = [_array(contract, one, given[one.name], flat) for one in contract.inputs]
    if len({len(array) for array in found}) > 1:
        raise InvalidInputError("the inputs differ in how many examples they have; legal: as many in each.")
    return found


def few(names: Sequence[str], most: int = 12) -> str:
    """Names as a message has them."""
    return ", ".join(name[:40] for name in names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def legal(contract: Contract, one: Input) -> str:
    """What an example of an input may be, in words."""
    kind = {"f": "finite numbers", "b": "true or false"}.get(np.dtype(one.dtype).kind, "whole numbers")
    if one.vocabulary:
        kind = f"one of {few(one.vocabulary, 6)}, or its number from 1"
    elif one.low is not None and one.high is not None:
        kind = f"{kind.removeprefix('finite ')} from {one.low:g} to {one.high:g}"
    elif one.low is not None:
        kind += f" from {one.low:g}"
    if one.nan:
        kind += " (null where one is missing)"
    first, *others = contract.shapes[one.name]
    ways = [f"{_words(first)} {kind}".strip(), *(_words(shape) for shape in others if shape)]
    return f"legal: {', or '.join(ways)}"


def _words(shape: tuple[int, ...]) -> str:
    if len(shape) > 3:
        return f"in the shape {'x'.join(map(str, shape))},"
    return (
        " of ".join(f"{size} rows" for size in shape[:-1])
        + (" of " if shape[1:] else "")
        + str(shape[-1]) * (shape != (1,))
    )


def _array(contract: Contract, one: Input, value: object, flat: bool) -> np.ndarray:
    what = f"{contract.what} {{}}" + (f" of {one.name[:40]}" if one.name else "")
    shapes = contract.shapes[one.name] + ([(one.size,)] if flat else [])
    if isinstance(value, np.ndarray):
        # Anything but numbers is looked at one by one: NumPy would read the string "12" as 12.
        if value.dtype.kind in ("b" if one.dtype == "bool" else "iuf") and value.ndim and len(value):
            if value.shape[1:] not in shapes:
                raise InvalidInputError(f"{what.format(0)} has the wrong shape; {legal(contract, one)}.")
            return _numbers(contract, one, what, value.reshape(len(value), -1))
        value = value.tolist()
    if not isinstance(value, list):
        name = f"the input {one.name[:40]}".strip()
        raise InvalidInputError(f"{name} is not a list; {legal(contract, one)}.")
    if not value:
        raise InvalidInputError(f"the batch is empty; legal: a list of at least one {contract.what}.")
    for shape in shapes:
        if (level := _level(value, shape)) is not None:
            break
    else:
        bad = next((i for i, row in enumerate(value) if all(_level([row], s) is None for s in shapes)), None)
        if bad is None:
            raise InvalidInputError(f"the {contract.what}s differ in shape; {legal(contract, one)}.")
        wrong = "is not a list" if not isinstance(value[bad], list) and () not in shapes else "has the wrong width"
        raise InvalidInputError(f"{what.format(bad)} {wrong}; {legal(contract, one)}.")
    kinds = set(map(type, level))
    if one.vocabulary and str in kinds:
        codes = {name: place for place, name in enumerate(one.vocabulary, 1)}
        level = [codes.get(item, 0) if type(item) is str else item for item in level]
        kinds = set(map(type, level))
    if one.nan and type(None) in kinds:
        level = [math.nan if item is None else item for item in level]
        kinds = set(map(type, level))
    known = {bool} if one.dtype == "bool" else {int, float}
    if not kinds <= known:
        place = next(i for i, item in enumerate(level) if type(item) not in known)
        raise InvalidInputError(
            f"{what.format(place // max(one.size, 1))} holds something that it cannot; {legal(contract, one)}."
        )
    try:
        whole = kinds == {int} and np.dtype(one.dtype).kind in "iu"
        array = np.array(level, np.int64 if whole else bool if kinds == {bool} else np.float64)
    except OverflowError:  # an integer beyond any float
        raise InvalidInputError(f"a number is too large; {legal(contract, one)}.") from None
    return _numbers(contract, one, what, array.reshape(len(value), -1))


def _level(rows: list[Any], shape: tuple[int, ...]) -> list[Any] | None:
    """What is in rows of a shape, in one list; None where one is of another."""
    level = rows
    for size in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            return None
        level = list(chain.from_iterable(level))
    return None if level and type(level[0]) in (list, dict) else level


def _numbers(contract: Contract, one: Input, what: str, array: np.ndarray) -> np.ndarray:
    """Checks the range of numbers, shape (examples, numbers of one), and gives them dtype and shape."""
    dtype = np.dtype(one.dtype)
    told = array
    if dtype.kind != "b":
        with np.errstate(all="ignore"):
            told = array.astype(dtype)
            known = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
            low = known.min if one.low is None else one.low
            high = float(len(one.vocabulary)) if one.vocabulary else known.max if one.high is None else one.high
            good = (array >= low) & (array <= high)  # NaN fails each comparison
            if dtype.kind != "f":
                good &= told == array
            if one.nan and array.dtype.kind == "f":
                good |= np.isnan(array)
        if not good.all():
            bad = int(np.argmin(good.all(axis=1)))
            raise InvalidInputError(f"{what.format(bad)} holds a value that it cannot; {legal(contract, one)}.")
    return told.reshape(len(array), *one.shape)


def remarks(contract: Contract, arrays: Sequence[np.ndarray]) -> list[str]:
    """What is odd about checked examples, as the names of warnings."""
    found = [STAND_IN] if contract.notice else []
    for one, array in zip(contract.inputs, arrays, strict=True):
        if one.vocabulary and (array == 0).any():
            found.append(UNKNOWN)
        each = array.reshape(len(array), -1)
        if one.seen and one.seen[0] >= 0 and one.seen[1] > 100 and not one.vocabulary:
            most = each.max(axis=1)
            if ((most > 0) & (most <= 1)).any():
                found.append(SCALED)
        if (
            one.ground
            and contract.image
            and grounds(each, contract.image).intersection({"dark", "light"} - {one.ground})
        ):
            found.append(INVERTED)
    return list(dict.fromkeys(found))


def grounds(each: np.ndarray, image: tuple[int, ...]) -> set[str]:
    """How pictures of 0 to 255 begin at their edges, by most of the pixels there: `dark`, `light`, "" for neither."""
    edges = each[:, _edge(image)]
    light, dark = (edges > 191).mean(axis=1) > 0.5, (edges < 64).mean(axis=1) > 0.5
    found = {"light"} if light.any() else set()
    return found | ({"dark"} if dark.any() else set()) | (set() if (light | dark).all() else {""})


@lru_cache(8)
def _edge(image: tuple[int, ...]) -> np.ndarray:
    """The places of a picture's outermost pixels in its numbers."""
    inside = np.ones(image, bool)
    inside[1:-1, 1:-1] = False
    return np.flatnonzero(inside)


def table(contract: Contract, columns: Sequence[object], rows: list[list[Any]]) -> Any:
    """The values of the inputs in the rows of a table, as `arrays_of` takes them.

    Of one input: one column a number, or a single column that holds lists. Columns that are named as the contract's, or
    by the numbers' places, 0 and up, may come in any order. Of several: a column for each name.
    """
    names = [str(name) for name in columns]
    if len(set(names)) != len(names):
        raise InvalidInputError("two columns of the table have the same name; legal: each once.")
    if any(len(row) != len(names) for row in rows):
        raise InvalidInputError(f"the table has rows of the wrong width; legal: {len(names)}, as many as columns.")
    place = {name: index for index, name in enumerate(names)}
    if len(contract.inputs) == 1 and not contract.inputs[0].vocabulary:
        (one,) = contract.inputs
        if len(names) == 1 and (one.size == 1 or not rows or isinstance(rows[0][0], list)):
            return [row[0] for row in rows]
        if len(names) != one.size:
            raise InvalidInputError(f"the table has the wrong width; legal: one column for each of {one.size} numbers.")
        numbers = list(one.columns) or [str(number) for number in range(one.size)]
        if place.keys() != set(numbers):
            if one.columns and names != [str(number) for number in range(one.size)]:
                raise InvalidInputError(f"the table has other columns; legal: {few(one.columns)}.")
            return rows
        if names == numbers:
            return rows
        order = [place[number] for number in numbers]
        return [[row[index] for index in order] for row in rows]
    wanted = [name for one in contract.inputs for name in (one.columns or (one.name,))]
    if place.keys() != set(wanted):
        raise InvalidInputError(f"the table has other columns; legal: {few(wanted)}.")
    found = {}
    for one in contract.inputs:
        if one.columns:
            order = [place[name] for name in one.columns]
            found[one.name] = [[row[index] for index in order] for row in rows]
        else:
            found[one.name] = [row[place[one.name]] for row in rows]
    return found


# ---------------------------------------------------------------------------------------------------- what comes out


class Graph:
    """A graph that is ready to be run. It is given as bytes: of a path ONNX Runtime would read the files beside it.

    Args:
        content: as `serving.graph.checked` gave it.
        threads: of one run.

    Raises:
        ValueError: ONNX Runtime does not take it, or it is not as the contract says.
    """

    def __init__(self, content: bytes, contract: Contract, threads: int = 1) -> None:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what fails is raised, too
        # With the limit of `_runtime`; in no other format than the one that was checked.
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            # Folding constants would compute parts of the graph now, without that limit.
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
            )
        except Exception as error:
            raise ValueError(f"ONNX Runtime does not take its graph ({type(error).__name__})") from None
        self.contract = contract
        self._runtime = runtime
        taken = {one.name: one for one in self._session.get_inputs()}
        known = {f"input_{place}": one for place, one in enumerate(contract.inputs)}
        for name, one in taken.items():
            if name not in known or one.type != f"tensor({TYPES.get(known[name].dtype, known[name].dtype)})":
                raise ValueError("its graph takes other inputs than its contract says")
            if [size for size in one.shape[1:] if isinstance(size, int)] != list(known[name].shape):
                raise ValueError("its graph takes other shapes than its contract says")
        if len(self._session.get_outputs()) != len(contract.outputs):
            raise ValueError("its graph gives other outputs than its contract says")
        self._names = [(name, list(known).index(name)) for name in taken]

    def options(self) -> Any:
        """What a run is given that may have to end early: set its `terminate`."""
        return self._runtime.RunOptions()

    def outputs(self, arrays: Sequence[np.ndarray], options: Any = None) -> list[np.ndarray]:
        """What the graph gives for checked examples, an array for each output.

        Raises:
            ValueError: it fails, or what it gives has not the contract's shapes.
        """
        try:
            found = self._session.run(None, {name: arrays[place] for name, place in self._names}, options)
        except Exception as error:
            out = "llocat" in str(error) or "emory" in str(error)
            why = (
                "for want of memory" if out else "for such numbers as one of them has, say of a category, it never had"
            )
            raise ValueError(f"the model cannot answer these examples, {why}") from None
        for one, array in zip(self.contract.outputs, found, strict=True):
            if (
                not isinstance(array, np.ndarray)
                or array.shape != (len(arrays[0]), *one.shape)
                or array.dtype.kind not in "fiub"
            ):
                raise ValueError("what the model gives is not of its contract's shape")
        return list(found)


TYPES = {"float32": "float", "float64": "double"}
_prepared: list[Any] = []


def _runtime() -> Any:
    """ONNX Runtime, which keeps no statistics and gives all graphs of this process together `ARENA_BYTES`."""
    import onnxruntime

    if not _prepared:
        onnxruntime.disable_telemetry_events()
        info = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        arena = {"max_mem": ARENA_BYTES, "arena_extend_strategy": 1}
        arena |= {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(arena))
        _prepared.append(True)
    return onnxruntime


def answers(contract: Contract, outputs: Sequence[np.ndarray]) -> Any:
    """What is answered for a model's outputs.

    Raises:
        ValueError: they are no finite numbers, or too many.
    """
    if sum(array.size for array in outputs) > MOST_ANSWERED:
        raise ValueError("the answer would be too large; ask for fewer examples at a time")
    if not all(np.isfinite(array).all() for array in outputs):
        raise ValueError("the model gives no finite number for these examples")
    names = [one.name for one in contract.outputs]
    if contract.form == ARRAYS:
        return dict(zip(names, outputs, strict=True)) if names != [""] else outputs[0]
    if contract.form == VALUES:
        each = [_each(array) for array in outputs]
        if names != [""]:
            each = [[dict(zip(names, row, strict=True)) for row in zip(*each, strict=True)]]
        return [{"prediction": one} for one in each[0]]
    found = outputs[0]
    # A single output is the second class's probability.
    found = np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
    known: Sequence[Any] = contract.class_names
    if not known or (contract.form == PIXELS and list(known) == [str(place) for place in range(len(known))]):
        known = range(found.shape[1])
    labels = [known[place] for place in found.argmax(axis=1).tolist()]
    return [{"label": label, "probabilities": row} for label, row in zip(labels, found.tolist(), strict=True)]


def _each(array: np.ndarray) -> list[Any]:
    """An output as one value for each example: a number where there is one, else a list."""
    return list((array[:, 0] if array.shape[1:] == (1,) else array).tolist())


# ------------------------------------------------------------------------------------------------------ under MLflow


def arguments(folder: str | Path, example: Any = None, expected: Any = None) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` takes to log a graph and its contract as this model; add `name` and the like.

    The signature of a model of flat pixels states what comes out and leaves open what goes in, because MLflow's own
    server acts on what it states: with a tensor of shape (-1, 784) it would refuse 28x28 pixels and every CSV, and
    would turn the string "12" into 12 and null into NaN before they are checked.

    Args:
        folder: holds `model.onnx` and `contract.json`.
        example: one example or a few, an array or a dict of arrays by name; stored as the input example.
        expected: what is answered for it, as `answers` has it.
    """
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    contract = Contract.read((Path(folder) / CONTRACT).read_bytes())
    if contract.form == PIXELS:
        label = DataType.long if contract.class_names[:1] in ((), ("0",)) else DataType.string
        outputs = Schema([ColSpec(label, "label"), ColSpec(Array(DataType.double), "probabilities")])
        signature = ModelSignature(outputs=outputs)
    else:
        signature = infer_signature(example, expected)
    return {
        "python_model": str(Path(__file__).resolve()),
        "artifacts": {"graph": str(Path(folder) / GRAPH), "contract": str(Path(folder) / CONTRACT)},
        "signature": signature,
        "input_example": example,
        # Given, not inferred: inferring loads the model in another process.
        "pip_requirements": _requirements(),
    }


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "onnxruntime", "pandas")]


def _for_mlflow() -> None:
    """Gives MLflow, which runs this file, the model."""
    import mlflow
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    class Served(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def load_context(self, context: Any) -> None:
            contract = Contract.read(Path(context.artifacts["contract"]).read_bytes())
            self.graph = Graph(Path(context.artifacts["graph"]).read_bytes(), contract)

        # A data frame, too; a type that MLflow knows would have it convert what comes.
        def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:
            try:
                return _answered(self.graph, model_input)
            except ValueError as error:
                raise mlflow.MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None

    mlflow.models.set_model(Served())


def _answered(graph: Graph, data: Any) -> Any:
    contract, flat = graph.contract, False
    if hasattr(data, "columns"):  # a data frame
        rows = [[_plain(cell) for cell in row] for row in data.to_numpy(object).tolist()]
        data, flat = table(contract, list(data.columns), rows), True
    return answers(contract, graph.outputs(arrays_of(contract, data, flat)))


def _plain(cell: Any) -> Any:
    return cell.tolist() if isinstance(cell, np.ndarray | np.generic) else cell


if __name__ not in ("serving.model", "__main__"):
    _for_mlflow()
