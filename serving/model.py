"""The served model: raw pixels in, a label and probabilities for each image out, and the checks of what comes in.

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
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

EXPORT = "export"
"""The name of the model's one artifact: a `mlplab.models.Export` as a TensorFlow SavedModel."""

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


class ServedModel(PythonModel):  # type: ignore[misc]
    """Answers for raw pixels from the SavedModel, through its one compiled call."""

    features: int
    """Pixels of an image."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the artifact; MLflow calls it."""
        self.load(context.artifacts[EXPORT])

    def load(self, folder: str | Path) -> "ServedModel":
        """Loads a SavedModel."""
        import tensorflow as tf

        self._module = tf.saved_model.load(str(folder))
        (self._function,) = self._module.__call__.concrete_functions
        self._constant = tf.constant
        self.features = int(self._function.structured_input_signature[0][0].shape[1])
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
    ) -> list[dict[str, Any]]:
        """Checks and answers; MLflow calls it."""
        return self.answer(pixels(model_input, self.features))


mlflow.models.set_model(ServedModel())
