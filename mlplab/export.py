"""A trained model as it is logged and served: one compiled call that takes what the data hold."""

import contextlib
import functools
import io
import logging
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.model import PIXELS, as_sent, is_pixels

__all__ = ["Export", "NotExportedError", "answering", "as_sent", "in_batches", "is_pixels", "signature", "to_onnx"]

OPSET = 18
"""Of ONNX: the version of its operations."""

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
        # What a SavedModel has to hold. Not the model itself: that would save its optimizer's state, too. Its layers
        # only where they hold something besides, such as a vocabulary: their weights would be saved a second time.
        function = self.__call__.get_concrete_function()
        self.captured = function.variables
        handles = {id(variable.handle) for variable in self.captured}
        resources = {id(tensor) for tensor in function.captured_inputs if tensor.dtype == tf.resource}
        self.layers = list(model.layers) if resources - handles else []


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


# ------------------------------------------------------------------------------------------------------------- to ONNX


class NotExportedError(Exception):
    """A model that ONNX's operations cannot say; with which operation it is that is in the way."""


def to_onnx(export: Export) -> bytes:
    """An export as ONNX: the same, computed by ONNX's own operations alone.

    Its inputs are called `input_0`, `input_1` and so on, in the order in which `tf.nest.flatten` gives them.

    Raises:
        NotExportedError: with the operation that ONNX lacks.
    """
    from onnx import numpy_helper
    from tf2onnx.convert import from_function

    from serving.graph import checked
    from serving.limits import RefusedError

    _handle_more()
    (given,) = export.__call__.input_signature
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{place}")
        for place, spec in enumerate(tf.nest.flatten(given))
    ]
    unnamed = tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), given)
    if any(spec.dtype == tf.string for spec in specs):
        raise NotExportedError("it takes texts, on which ONNX has no operation")

    def flat(*leaves: tf.Tensor) -> Any:
        return tf.nest.flatten(export.__call__(tf.nest.pack_sequence_as(unnamed, leaves)))

    function, said = tf.function(flat), io.StringIO()
    heard, logger = logging.StreamHandler(said), logging.getLogger("tf2onnx")
    before = logger.propagate, logger.level
    logger.addHandler(heard)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            model, _ = from_function(function, input_signature=specs, opset=OPSET)
        if found := re.search(r"Tensorflow op \[[^\]]*: (\w+)\] is not supported", said.getvalue()):
            raise NotExportedError(f"the operation {found[1]}, which ONNX does not have")
        # Tensors that a layer holds without a variable, such as the mean of a Normalization, came out as inputs.
        held = {inside.name: outside for outside, inside in function.get_concrete_function(*specs).graph.captures}
        for one in [one for one in model.graph.input if one.name in held]:
            model.graph.input.remove(one)
            model.graph.initializer.append(numpy_helper.from_array(held[one.name].numpy(), one.name))
        return checked(model.SerializeToString())
    except RefusedError as error:
        raise NotExportedError(str(error).removeprefix("its graph has ")) from None
    except NotExportedError:
        raise
    except Exception as error:
        raise NotExportedError(f"{type(error).__name__}: {str(error)[:200]}") from error
    finally:
        logger.removeHandler(heard)
        logger.propagate = before[0]
        logger.setLevel(before[1])


@functools.cache
def _handle_more() -> None:
    """Teaches tf2onnx two operations of Keras' layers that it does not know and ONNX can say."""
    from tf2onnx.handler import tf_op

    def erfc(ctx: Any, node: Any, **_: Any) -> None:
        """Of GELU: 1 - Erf."""
        dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
        ctx.remove_node(node.name)
        erf = ctx.make_node("Erf", [node.input[0]], dtypes=[dtype], shapes=[shape])
        one = ctx.make_const(f"{node.name}_one", np.array(1, _numpy(dtype)))
        given = [one.output[0], erf.output[0]]
        ctx.make_node("Sub", given, name=node.name, outputs=node.output, dtypes=[dtype], shapes=[shape])

    def bucketize(ctx: Any, node: Any, **_: Any) -> None:
        """Of Discretization: how many boundaries a number has reached."""
        boundaries = np.array(node.get_attr_value("boundaries"), np.float32)
        shape = ctx.get_shape(node.output[0])
        ctx.remove_node(node.name)
        last = ctx.make_const(f"{node.name}_last", np.array([-1], np.int64)).output[0]
        known = ctx.make_const(f"{node.name}_boundaries", boundaries).output[0]
        number = ctx.make_node("Cast", [node.input[0]], attr={"to": 1}).output[0]
        reached = ctx.make_node("GreaterOrEqual", [ctx.make_node("Unsqueeze", [number, last]).output[0], known])
        counted = ctx.make_node("Cast", [reached.output[0]], attr={"to": 6}).output[0]
        attr = {"keepdims": 0}
        ctx.make_node(
            "ReduceSum", [counted, last], attr, name=node.name, outputs=node.output, dtypes=[6], shapes=[shape]
        )

    tf_op("Erfc").register_compat_handler(erfc, 9)
    tf_op("Bucketize").register_compat_handler(bucketize, 13)


def _numpy(dtype: int) -> Any:
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(dtype)
