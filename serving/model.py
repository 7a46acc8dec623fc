"""The served model: raw pixels in, a label and probabilities for each image out, and the checks of what comes in.

A model whose inputs are no flat pixels goes a second path: what comes in is checked by its signature, and what goes out
is a label and probabilities, or a prediction, or the arrays as they are.

MLflow stores this one file with the model ("model from code": there is no pickle), and `mlflow models serve` runs it
where mlplab is not installed. So it imports nothing of the project.
"""

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

EXPORT = "export"
"""The name of the model's one artifact: a `mlplab.export.Export` as a TensorFlow SavedModel."""

PIXELS = "pixels"
"""The name of the input of a model of flat pixels."""

CLASSES, VALUES, ARRAYS = "classes", "values", "arrays"
"""How a model of the second path answers: a label and probabilities for each example, a prediction for each, or arrays
as it gives them."""

NUMBERS = frozenset({int, float})


def arguments(export: str | Path, example: np.ndarray) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` takes to log an export as this model; add `name`, `metadata` and the like.

    The signature states what comes out and leaves open what goes in, because MLflow's own server acts on what it
    states: with a tensor of shape (-1, 784) it would refuse 28x28 pixels and every CSV, and would turn the string
    "12" into 12 and null into NaN before `pixels` sees them.

    Args:
        export: folder of the SavedModel.
        example: raw pixels, shape (images, features); the first image is stored as the input example.
    """
    outputs = Schema([ColSpec(DataType.long, "label"), ColSpec(Array(DataType.double), "probabilities")])
    return {
        "python_model": str(Path(__file__).resolve()),
        "artifacts": {EXPORT: str(export)},
        "signature": ModelSignature(outputs=outputs),
        "input_example": np.asarray(example[:1], np.float32),
        # Given, not inferred: inferring imports TensorFlow in another process.
        "pip_requirements": _requirements(),
    }


def arguments_of(
    export: str | Path, example: Any, outputs: Any, form: str, class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """The same for a model whose inputs are no flat pixels. The signature says what goes in, too.

    Args:
        export: folder of the SavedModel.
        example: a few examples, in the nest of arrays that the model takes; they are stored as the input example.
        outputs: what the model gives for them, in its nest.
        form: one of `CLASSES`, `VALUES` and `ARRAYS`.
        class_names: of the labels 0, 1, …; () where a label is told as its number.
    """
    given = named(example, "input")
    answers = _answers(outputs, form, class_names)
    return {
        "python_model": str(Path(__file__).resolve()),
        "artifacts": {EXPORT: str(export)},
        "signature": infer_signature(given, answers),
        "input_example": given,
        "model_config": {"form": form, "class_names": list(class_names)},
        "pip_requirements": _requirements(),
    }


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


def _requirements() -> list[str]:
    found = []
    for package in ("mlflow", "numpy", "pandas", "tensorflow-cpu", "tensorflow"):
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            continue
    return found


def invalid(message: str) -> mlflow.MlflowException:
    """The exception which MLflow's server answers with status 400. A message never repeats what was sent."""
    return mlflow.MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def pixels(data: object, features: int) -> np.ndarray:
    """Checks a batch of images and returns it as float32, shape (images, features).

    Args:
        data: images of `features` numbers, or of as many rows as columns, from 0 to 255: nested lists, an array, or a
            data frame with one column a pixel (or a single one that holds lists).
        features: pixels of an image.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE; the message says what is wrong and what is legal.
    """
    if isinstance(data, pd.DataFrame):
        data = table(list(data.columns), data.to_numpy(object).tolist(), features)
    side = math.isqrt(features)
    legal = f"legal: {features} numbers from 0 to 255" + (f", or {side} rows of {side}" if side**2 == features else "")
    if isinstance(data, np.ndarray):
        # Anything but numbers is looked at one by one: NumPy would read the string "12" as 12.
        data = data if data.dtype.kind in "iuf" and data.ndim in (2, 3) else data.tolist()
    if not isinstance(data, list | np.ndarray):
        raise invalid(f"the input is not a list of images; {legal} an image.")
    if len(data) == 0:
        raise invalid("the batch is empty; legal: a list of at least one image.")
    if isinstance(data, np.ndarray):
        if data.shape[1:] not in ((features,), (side, side)) or math.prod(data.shape[1:]) != features:
            raise invalid(f"the images have the wrong shape; {legal} an image.")
        batch = data.reshape(len(data), features).astype(np.float64)
    else:
        for place, image in enumerate(data):
            _check_image(image, features, side, f"image {place}", legal)
        try:
            batch = np.array(data, np.float64).reshape(len(data), features)
        except (ValueError, OverflowError):  # an integer beyond any float, rows beside flat images
            raise invalid(f"the images differ in shape, or hold a value outside 0 to 255; {legal} an image.") from None
    # NaN fails both comparisons.
    good = (batch >= 0) & (batch <= 255)
    if not good.all():
        place = int(np.argmin(good.all(axis=1)))
        raise invalid(f"image {place} holds a value that is not a finite number from 0 to 255; {legal}.")
    return batch.astype(np.float32)


def _check_image(image: object, features: int, side: int, name: str, legal: str) -> None:
    if not isinstance(image, list):
        raise invalid(f"{name} is not a list; {legal}.")
    rows = [image]
    if len(image) == side and side**2 == features and isinstance(image[0], list):
        rows, features = image, side
    for row in rows:
        if not isinstance(row, list) or len(row) != features:
            raise invalid(f"{name} has the wrong width; {legal}.")
        if not NUMBERS.issuperset(map(type, row)):
            raise invalid(f"{name} holds something that is not a number; {legal}.")


def table(columns: Sequence[object], rows: list[list[Any]], features: int) -> list[Any]:
    """The images in the rows of a table: one column a pixel, or a single column that holds lists.

    Columns that are named by the pixels' numbers, 0 and up, may come in any order; other names are not looked at.
    """
    if len(columns) == 1:
        return [row[0] if len(row) == 1 else row for row in rows]
    if len(columns) != features or any(len(row) != features for row in rows):
        raise invalid(f"the table has the wrong width; legal: one column for each of {features} pixels.")
    names = [str(name) for name in columns]
    place = {name: index for index, name in enumerate(names)}
    numbers = [str(number) for number in range(features)]
    if names == numbers or place.keys() != set(numbers):
        return rows
    order = [place[number] for number in numbers]
    return [[row[index] for index in order] for row in rows]


def checked(data: object, specs: Mapping[str, Any]) -> list[np.ndarray]:
    """Checks a batch of examples, and returns its arrays in the order of `specs`, in their dtypes.

    Args:
        data: an array by each name, as a dict or as the columns of a data frame; where there is one input, without a
            name, the array alone.
        specs: name of an input ("" where there is one without) -> its `tf.TensorSpec`.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE; the message says what is wrong and what is legal.
    """
    if isinstance(data, pd.DataFrame):
        data = data.to_numpy() if "" in specs else {name: np.array(data[name].tolist()) for name in data.columns}
    if "" in specs:
        data = {"": data}
    if not isinstance(data, Mapping) or data.keys() != specs.keys():
        raise invalid(f"the inputs have the wrong names; legal: an array for each of {', '.join(specs)}.")
    found = [_checked(f"the input {name}".strip(), data[name], spec) for name, spec in specs.items()]
    if len({len(array) for array in found}) > 1 or not len(found[0]):
        raise invalid("the inputs differ in how many examples they have, or have none; legal: as many in each.")
    return found


KINDS = {"f": "iuf", "i": "iuf", "u": "iuf", "b": "b", "O": "US"}
"""Kind of an input's dtype -> the kinds of arrays that can be told in it."""


def _checked(what: str, value: object, spec: Any) -> np.ndarray:
    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    try:
        array = np.asarray(value)
        array = array.astype(str) if dtype.kind == "O" and array.dtype.kind == "O" else array
    except ValueError:  # ragged
        array = np.empty(0, object)
    if array.dtype.kind not in KINDS.get(dtype.kind, ""):
        raise invalid(f"{what} holds something that it cannot; legal: {spec.dtype.name}.")
    shape = tuple(spec.shape)
    if array.ndim == 1 and shape[1:] == (1,):  # a column of a table
        array = array[:, None]
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        legal = ", ".join("any" if n is None else str(n) for n in shape)
        raise invalid(f"{what} has the wrong shape; legal: ({legal}).")
    if dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            told = array.astype(dtype)
        if not np.isfinite(told).all() or (dtype.kind in "iu" and (told != array).any()):
            raise invalid(f"{what} holds a value that is no finite number, or none that {spec.dtype.name} has.")
        return told
    return array


def _answers(outputs: Any, form: str, class_names: Sequence[str]) -> Any:
    """What is answered for a model's outputs."""
    found = named(outputs, "output")
    if form == ARRAYS:
        return found
    if form == VALUES:
        return [{"prediction": one} for one in _each(found)]
    # A single output is the second class's probability.
    each = np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
    labels = [class_names[place] if class_names else place for place in each.argmax(axis=1).tolist()]
    return [{"label": label, "probabilities": row} for label, row in zip(labels, each.tolist(), strict=True)]


def _each(found: Any) -> list[Any]:
    """Outputs as one value for each example: a number where there is one, else a list, or a dict by name."""
    if isinstance(found, dict):
        every = {name: _each(array) for name, array in found.items()}
        return [dict(zip(every, row, strict=True)) for row in zip(*every.values(), strict=True)]
    return list((found[:, 0] if found.shape[1:] == (1,) else found).tolist())


class ServedModel(PythonModel):  # type: ignore[misc]
    """Answers for raw pixels from the SavedModel, through its one compiled call."""

    features: int
    """Pixels of an image; 0 where the input is no flat pixels."""

    form: str = ""
    class_names: Sequence[str] = ()

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the artifact; MLflow calls it."""
        config = context.model_config or {}
        self.form, self.class_names = config.get("form", ""), config.get("class_names", ())
        self.load(context.artifacts[EXPORT])

    def load(self, folder: str | Path) -> "ServedModel":
        """Loads a SavedModel."""
        import tensorflow as tf

        self._module = tf.saved_model.load(str(folder))
        (self._function,) = self._module.__call__.concrete_functions
        self._constant, self._nest = tf.constant, tf.nest
        self._specs = self._function.structured_input_signature[0][0]
        pixels = isinstance(self._specs, tf.TensorSpec) and self._specs.name == PIXELS
        self.features = int(self._specs.shape[1]) if pixels else 0
        return self

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities, float32, of images that `pixels` let pass."""
        result: np.ndarray = self._function(self._constant(batch)).numpy()
        return result

    def answer(self, batch: np.ndarray) -> list[dict[str, Any]]:
        """The label and the probabilities of each image that `pixels` let pass."""
        found = self.probabilities(batch)
        labels = found.argmax(axis=1).tolist()
        return [{"label": label, "probabilities": row} for label, row in zip(labels, found.tolist(), strict=True)]

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # A data frame, too; a type that MLflow knows would have it convert what comes.
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Checks and answers; MLflow calls it."""
        return self.answers(model_input) if self.form else self.answer(pixels(model_input, self.features))

    def answers(self, data: object) -> Any:
        """The same on the second path, see `arguments_of`."""
        specs = named(self._specs, "input")
        arrays = checked(data, specs if isinstance(specs, dict) else {"": specs})
        given = self._nest.pack_sequence_as(self._specs, [self._constant(array) for array in arrays])
        outputs = self._function(given)
        return _answers(self._nest.map_structure(lambda one: one.numpy(), outputs), self.form, self.class_names)


mlflow.models.set_model(ServedModel())
