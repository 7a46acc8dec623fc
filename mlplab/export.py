"""A trained model as it is logged and served: one compiled call that takes what the data hold."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

PIXELS = "pixels"
"""What the one input is called where it is flat images: by this the server knows them."""

BATCH = 1_024
"""Examples that a model is asked about at a time."""


class Export(tf.Module):  # type: ignore[misc]
    """A trained model, called as it is after training: without dropout, for any number of examples.

    Call it with what `signature` says: a tensor, or a tuple, list or dict of them. It returns what the model returns,
    floats of half precision as float32. It is saved as a TensorFlow SavedModel, which needs none of the user's code
    and answers without `Model.predict`'s set-up.

    Args:
        model: built; what is exported are its weights as they are now.
        example: a few examples, in the nest of arrays that the model is trained on; None: what its inputs say.

    >>> export = Export(model, x[:2])
    >>> answering(export)(x[:3]).shape
    (3, 10)
    """

    def __init__(self, model: keras.Model, example: Any = None) -> None:
        super().__init__(name="export")

        def call(inputs: Any) -> Any:
            return tf.nest.map_structure(_readable, model(tf.nest.map_structure(_as_trained, inputs), training=False))

        self.__call__ = tf.function(call, input_signature=[signature(model, example)])
        # What a SavedModel has to hold. Not the model itself: that would save its optimizer's state, too.
        self.layers = list(model.layers)
        self.captured = self.__call__.get_concrete_function().variables


def is_pixels(x: Any) -> bool:
    """Whether examples are flat images: a row of values from 0 to 255 each."""
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2


def as_sent(x: Any) -> Any:
    """Examples as an export takes them: flat images as float32, everything else as it is."""
    return x.astype(np.float32) if is_pixels(x) else x


def signature(model: keras.Model, example: Any = None) -> Any:
    """What an export takes: in the nest of the examples, a `tf.TensorSpec` for each array, with any number of rows.

    Dtypes are the data's own, so that rows of the data can be sent as they are; flat images are float32 pixels.
    """
    if example is None:
        return tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype, name=t.name), model.input)
    if is_pixels(example):
        return tf.TensorSpec([None, example.shape[1]], tf.float32, name=PIXELS)
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(example)]
    names = ["inputs"] if not tf.nest.is_nested(example) else [f"input_{place}" for place in range(len(leaves))]
    return tf.nest.pack_sequence_as(
        example,
        [
            tf.TensorSpec([None, *leaf.shape[1:]], _dtype(leaf), name=name)
            for leaf, name in zip(leaves, names, strict=True)
        ],
    )


def answering(export: Any) -> Callable[[Any], Any]:
    """What an export, made or loaded, answers as arrays for arrays in the nest that it takes, of whatever dtypes."""
    call = export.__call__
    (function,) = getattr(call, "concrete_functions", None) or (call.get_concrete_function(),)
    specs = function.structured_input_signature[0][0]

    def converted(spec: tf.TensorSpec, leaf: Any) -> tf.Tensor:
        return tf.constant(leaf) if spec.dtype == tf.string else tf.cast(tf.constant(leaf), spec.dtype)

    # By way of the export, which its variables live with.
    return in_batches(lambda x: export.__call__(tf.nest.map_structure(converted, specs, x)))


def in_batches(call: Callable[[Any], Any], batch: int = BATCH) -> Callable[[Any], Any]:
    """`call` for any number of examples: it is given `batch` at a time, and what it returns is joined, as arrays."""

    def every(x: Any) -> Any:
        rows = tf.nest.flatten(x)[0].shape[0]  # sparse matrices have no len
        parts = [
            call(tf.nest.map_structure(lambda leaf, at=at: leaf[at : at + batch], x)) for at in range(0, rows, batch)
        ]
        return tf.nest.map_structure(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)

    return every


def _as_trained(tensor: tf.Tensor) -> tf.Tensor:
    # Training takes all floats as Keras' own.
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _readable(tensor: tf.Tensor) -> tf.Tensor:
    # Neither NumPy nor MLflow knows bfloat16.
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.bfloat16, tf.float16) else tensor


def _dtype(leaf: np.ndarray) -> tf.DType:
    return tf.string if leaf.dtype.kind in "USO" else tf.as_dtype(leaf.dtype)
