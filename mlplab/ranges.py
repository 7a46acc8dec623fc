"""The range checks that TensorFlow makes on a CPU and XLA leaves out, made once, on the host, before training.

Compiled by XLA, a label that is none of the classes trains to NaN, and an id outside of an embedding trains another
row's weights. TensorFlow raises in both cases. Which labels and ids a step uses, and what is legal, is read from its
graph.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

ROWS_AT_ONCE = 65_536

# What computes each number from the numbers at its place alone, whatever the number of examples.
ELEMENTWISE = {
    "Abs", "Add", "AddV2", "Cast", "Const", "Equal", "ExpandDims", "Floor", "FloorDiv", "FloorMod", "Greater",
    "GreaterEqual", "Identity", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum",
    "Mul", "Neg", "NotEqual", "OnesLike", "Placeholder", "Round", "SelectV2", "Squeeze", "StopGradient", "Sub",
    "ZerosLike",
}  # fmt: skip

LABEL, ID = "label", "id"


class OutOfRangeError(tf.errors.InvalidArgumentError, ValueError):  # type: ignore[misc]
    """A label or an id is none that the model knows: the error that TensorFlow raises for it, and a `ValueError`."""

    def __init__(self, message: str) -> None:
        super().__init__(None, None, message)


@dataclass(frozen=True)
class Use:
    """A place in a step where whole numbers from the data choose a class or a row.

    Attributes:
        what: a label or an id.
        legal: how many there are: 0 to `legal - 1`.
        inputs: which of the step's arrays they come from.
        numbers: makes what leads from those arrays to the numbers as they are used, whatever the number of examples.
    """

    what: str
    legal: int
    inputs: tuple[int, ...]
    numbers: Callable[[], Any]

    def check(self, leaves: Sequence[Any]) -> None:
        """Checks arrays, one for each input of the step.

        Raises:
            OutOfRangeError: one of the numbers is not legal.
        """
        given = [leaves[i] for i in self.inputs]
        examples = len(given[0]) if given else 1
        for start in range(0, examples, ROWS_AT_ONCE):
            rows = [np.asarray(leaf[start : start + ROWS_AT_ONCE]) for leaf in given]
            if self.what == LABEL and len(rows) == 1 and rows[0].dtype.kind == "f":
                self._refuse_unless(rows[0] == np.trunc(rows[0]), rows[0], start, len(rows[0]))
            numbers = self.numbers()(*[tf.convert_to_tensor(part) for part in rows]).numpy()
            legal = (numbers >= 0) & (numbers < self.legal)
            # The value as it was given, where there is one for each that is used: Keras counts ids from the end, too.
            shown = rows[0] if len(rows) == 1 and rows[0].size == numbers.size else numbers
            self._refuse_unless(legal, shown, start, len(rows[0]) if rows else 1)

    def _refuse_unless(self, legal: np.ndarray, numbers: np.ndarray, start: int, rows: int) -> None:
        if legal.all():
            return
        at = int(np.argmin(legal.ravel()))
        value, example = numbers.ravel()[at].item(), start + at * rows // legal.size
        last = self.legal - 1
        remedy = (
            f"The model has {self.legal} outputs: correct the labels, or give its last layer a unit for each class."
            if self.what == LABEL
            else f"The embedding has {self.legal} rows: correct the ids, or give it more rows (input_dim)."
        )
        raise OutOfRangeError(
            f"Received a {self.what} value of {value} which is outside the valid range of [0, {self.legal}). It is of "
            f"example {example}; legal: the whole numbers 0 to {last}. {remedy}"
        )


def uses(graph: tf.Graph, definition: Any, inputs: Sequence[tf.Tensor]) -> tuple[list[Use], str | None]:
    """Where a step's graph takes classes and rows by number.

    Args:
        graph: of the step.
        definition: the graph's `GraphDef`.
        inputs: its placeholders for the arrays of a batch.

    Returns:
        Those whose numbers come from the arrays, and the name of an operation that takes by number what cannot be
        known before the step runs, if there is one: only TensorFlow itself can check it.
    """
    found: list[Use] = []
    places = {tensor.ref(): i for i, tensor in enumerate(inputs)}
    for operation in graph.get_operations():
        if (taken := _taken(operation)) is None:
            continue
        what, numbers, legal = taken
        path = _Path(places)
        try:
            path.follow(numbers)
        except _UnknownError:
            legal = None
        if legal is None:
            return found, operation.name
        used = sorted(path.arrays)
        found.append(Use(what, legal, tuple(used), _function(definition, numbers, [inputs[i] for i in used], path)))
    for operation in graph.get_operations():
        if _unchecked(operation) and _from(operation.inputs[1], places):
            return found, operation.name
    for function in definition.library.function:
        for node in function.node_def:
            if node.op in GATHERS:
                return found, node.name
    return found, None


def _unchecked(operation: tf.Operation) -> bool:
    """Whether XLA leaves out a check of an operation's second input: where a slice begins, or a whole divisor."""
    if operation.type in ("FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"):
        return bool(operation.inputs[1].dtype.is_integer)
    return operation.type in ("Slice", "StridedSlice")


def _from(tensor: tf.Tensor, places: dict[Any, int]) -> bool:
    """Whether the values of the arrays, and not their shapes alone, are among what `tensor` is computed from."""
    waiting: list[tf.Tensor] = [tensor]
    seen: set[str] = set()
    while waiting:
        one = waiting.pop()
        if one.ref() in places:
            return True
        if one.op.name not in seen and one.op.type not in ("Shape", "ShapeN", "Size", "Rank", "ConcatOffset"):
            seen.add(one.op.name)
            waiting.extend(one.op.inputs)
    return False


GATHERS = {"GatherV2", "ResourceGather", "GatherNd", "ResourceGatherNd", "SparseSoftmaxCrossEntropyWithLogits"}


def _taken(operation: tf.Operation) -> tuple[str, tf.Tensor, int | None] | None:
    """What an operation takes by number: what it is called, the numbers, and how many there are, if that is known."""
    if operation.type not in GATHERS:
        return None
    source, numbers = operation.inputs[0], operation.inputs[1]
    if operation.type == "SparseSoftmaxCrossEntropyWithLogits":
        return LABEL, numbers, source.shape[-1]
    legal = None
    if operation.type == "GatherV2" and source.shape.rank is not None and not operation.get_attr("batch_dims"):
        axis = tf.get_static_value(operation.inputs[2])
        legal = None if axis is None else source.shape[int(axis)]
    elif operation.type == "ResourceGather":
        legal = next(iter(_variable_shape(source) or ()), None)
    return ID, numbers, legal


def _variable_shape(handle: tf.Tensor) -> list[int] | None:
    """The shape of the variable that a handle is of, where the graph knows it."""
    data: Any = getattr(handle, "_handle_data", None)
    if data is None or not data.is_set or not data.shape_and_type:
        return None
    return [int(dimension.size) for dimension in data.shape_and_type[0].shape.dim]


class _UnknownError(Exception):
    """The numbers are not known before the step runs."""


@dataclass
class _Path:
    """The operations between the arrays and some numbers.

    Attributes:
        arrays: the inputs of the step that the numbers come from.
        operations: the names of those in between.
        shapes: what asks for a variable's shape, which is fixed, and that shape.
    """

    places: dict[Any, int]
    arrays: set[int] = field(default_factory=set)
    operations: dict[str, bool] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)

    def follow(self, tensor: tf.Tensor) -> bool:
        """Notes what `tensor` comes from, and returns whether arrays are among it.

        Raises:
            _UnknownError: it is not of each example by itself, or of something else than arrays and constants.
        """
        operation = tensor.op
        if tensor.ref() in self.places:
            self.arrays.add(self.places[tensor.ref()])
            return True
        if operation.type == "VariableShape":
            if (shape := _variable_shape(operation.inputs[0])) is None:
                raise _UnknownError
            self.shapes[tensor.name] = shape
            return False
        if operation.name not in self.operations:
            varies = True in [self.follow(given) for given in operation.inputs]
            known = operation.type != "Placeholder" and not operation.op_def.is_stateful
            if not known or (varies and not _elementwise(operation)):
                raise _UnknownError
            self.operations[operation.name] = varies
        return self.operations[operation.name]


def _elementwise(operation: tf.Operation) -> bool:
    """Whether each example's result is of that example, and stays so where there are more examples."""
    if operation.type == "Reshape":
        shape = tf.get_static_value(operation.inputs[1])
        return shape is not None and len(shape) > 0 and shape[0] == -1
    if operation.type == "StridedSlice":
        whole = all(operation.get_attr(mask) & 1 for mask in ("begin_mask", "end_mask"))
        return whole and not (operation.get_attr("shrink_axis_mask") & 1 or operation.get_attr("new_axis_mask") & 1)
    return operation.type in ELEMENTWISE


def _function(whole: Any, numbers: tf.Tensor, inputs: Sequence[tf.Tensor], path: _Path) -> Callable[[], Any]:
    """What makes the function from arrays to numbers, once: not every step that is traced is also checked."""
    definition = tf.compat.v1.GraphDef()
    definition.node.extend(node for node in whole.node if node.name in path.operations)
    for node in definition.node:
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)

    def run(*arrays: tf.Tensor) -> tf.Tensor:
        if not definition.node:
            return arrays[0]
        given = {tensor.name: array for tensor, array in zip(inputs, arrays, strict=True)}
        given |= {name: tf.constant(shape) for name, shape in path.shapes.items()}
        (found,) = tf.graph_util.import_graph_def(definition, input_map=given, return_elements=[numbers.name])
        return found

    specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in inputs]
    return functools.cache(lambda: tf.function(run, autograph=False).get_concrete_function(*specs))
