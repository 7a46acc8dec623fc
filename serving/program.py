"""A trained model as TensorFlow's SavedModel, which is a program: what MLflow runs of a run's logged model of several
arrays, for whoever trusts it. Nothing of this is served by `python -m serving`.

MLflow stores this one file with the model, so it imports nothing of the project.
"""

from typing import Any

import mlflow
import numpy as np
import tensorflow as tf


class Program(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers arrays by name with arrays by name; "" is the name of one that stands alone."""

    def load_context(self, context: Any) -> None:
        """Loads the artifact; MLflow calls it."""
        self._module = tf.saved_model.load(context.artifacts["export"])
        (self._function,) = self._module.__call__.concrete_functions
        self._names: dict[str, list[str]] = context.model_config

    # A data frame or a dict, too; of a type that it does not know MLflow would warn whenever a model is logged.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:
        """Answers; MLflow calls it."""
        asked: Any = model_input
        if hasattr(asked, "columns"):
            asked = {name: np.array(asked[name].tolist()) for name in asked.columns}
        specs = self._function.structured_input_signature[0][0]
        names = self._names["inputs"]
        arrays = [asked] if names == [""] else [asked[name] for name in names]
        given = [
            tf.constant(array) if spec.dtype == tf.string else tf.cast(tf.constant(array), spec.dtype)
            for array, spec in zip(arrays, tf.nest.flatten(specs), strict=True)
        ]
        found = [one.numpy() for one in tf.nest.flatten(self._function(tf.nest.pack_sequence_as(specs, given)))]
        return found[0] if self._names["outputs"] == [""] else dict(zip(self._names["outputs"], found, strict=True))


mlflow.models.set_model(Program())
