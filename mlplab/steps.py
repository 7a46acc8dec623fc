"""A model's step as it was traced, and what can be told from that: what it computes, what it costs, what XLA may do."""

import contextlib
import functools
import inspect
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops

from mlplab import ranges, sharing
from mlplab.arrays import Arrays, NotCompilableError

STEPS_WORTH_COMPILING = 700
"""How many steps, of one batch size and without loops, take as much longer uncompiled as compiling takes.

An operation took XLA about 1 ms to compile, and TensorFlow 1 to 2 µs longer at each step (MLPs, normalizations,
attention, recurrent networks; see benchmarks/zoo.py).
"""

CONVOLUTION_RATE, LAUNCH_SECONDS = 5e9, 150e-6
"""What XLA's own loops for a convolution reach on a core, FLOP/s, and what a compiled step costs to start."""

CONVOLUTIONS = ("Conv", "DepthwiseConv", "FusedConv")

# What XLA leaves out, draws otherwise at each call, or does not know: TensorFlow itself has to do it.
ONLY_GRAPH = {
    "Assert", "CheckNumerics", "CheckNumericsV2", "Cholesky", "EagerPyFunc", "MatrixInverse", "MatrixSolve",
    "Multinomial", "ParameterizedTruncatedNormal", "ReverseSequence", "ScatterNd", "Print", "PrintV2", "PyFunc",
    "PyFuncStateless", "RandomGamma", "RandomPoissonV2", "RandomShuffle", "RandomStandardNormal", "RandomUniform",
    "RandomUniformInt", "StringFormat", "TruncatedNormal",
}  # fmt: skip


class Step:
    """A model's step, traced for batches of any size, as Keras traces it.

    Attributes:
        function: takes the arrays of a batch; returns the logs, where they are not the model's metrics.
        logs: their structure, or None.
        operations: how often each type of operation is in it.
        uses: the classes and rows that it takes by numbers from the arrays.
        only_graph: why XLA is not to compile it, or None.
    """

    def __init__(self, model: keras.Model, mode: str, arrays: Arrays, xla: bool) -> None:
        step = model.train_step if mode == "train" else model.test_step
        self.logs: Any = None

        def run(*leaves: tf.Tensor) -> list[tf.Tensor]:
            logs = step(arrays.pack(leaves))
            if not isinstance(logs, dict):
                raise NotCompilableError(f"its {mode}_step returns {type(logs).__name__} and no dict of logs")
            if set(logs) == set(model.get_metrics_result()):
                return []
            self.logs = tf.nest.map_structure(lambda _: 0, logs)
            return [tf.convert_to_tensor(value) for value in tf.nest.flatten(logs)]

        specs = [tf.TensorSpec([None, *spec.shape], spec.dtype) for spec in arrays.specs]
        run.__name__ = f"{mode}_step"
        try:
            with _threefry() if xla and _on_cpu() else contextlib.nullcontext():
                self.function = tf.function(run, autograph=False, jit_compile=xla or None).get_concrete_function(*specs)
        except NotCompilableError:
            raise
        except Exception as error:
            text = str(error).strip().split("\n")[0]
            raise NotCompilableError(f"tracing its {mode}_step failed with {type(error).__name__}: {text}") from error
        graph = self.function.graph
        graph.variables = []  # other models' stand in for them when these are gone
        self._definition = graph.as_graph_def()
        functions = self._definition.library.function
        nodes = [*self._definition.node, *(node for function in functions for node in function.node_def)]
        self.operations = Counter(node.op for node in nodes)
        self.uses, unknown = ranges.uses(graph, self._definition, graph.inputs[: len(specs)])
        strings = any(spec.dtype == tf.string for spec in specs)
        unfit = sorted(ONLY_GRAPH.intersection(self.operations))
        self.only_graph = unfit[0] if unfit else "strings" if strings else unknown
        if not all(layer.supports_jit for layer in model._flatten_layers()):
            self.only_graph = "a layer does not support XLA"
        outputs = (tensor for operation in graph.get_operations() for tensor in operation.outputs)
        if _on_cpu() and any(tensor.dtype in (tf.bfloat16, tf.float16) for tensor in outputs):
            self.only_graph = "numbers of 16 bits, which XLA rounds at other places"

    def convolves(self, batch: int) -> bool:
        """Whether convolutions are so large that in a loop compiled by XLA they take longer than starting a step."""
        flop = sum(_convolution_flop(operation, batch) for operation in self.function.graph.get_operations())
        within = self.operations - Counter(operation.type for operation in self.function.graph.get_operations())
        unknown = any(name.startswith(CONVOLUTIONS) for name in within)  # in a function of the graph
        return unknown or flop / CONVOLUTION_RATE > LAUNCH_SECONDS

    @functools.cached_property
    def executed(self) -> int:
        """Operations that are executed in a step, those in its loops as often as these turn."""
        operations = self.function.graph.get_operations()
        functions = {function.signature.name: function for function in self._definition.library.function}
        # A recurrent layer turns as often as the sequences are long that it makes lists of.
        sequences = [one.inputs[0].shape[0] for one in operations if one.type == "TensorListFromTensor"]
        turns: int = max([1, *(length // 3 for length in sequences if length)])  # with less to do at each than outside
        bodies = [functions[one.get_attr("body").name] for one in operations if one.type in ("While", "StatelessWhile")]
        inside: int = sum(len(body.node_def) for body in bodies)
        return len(operations) + turns * inside

    @property
    def steps_worth_compiling(self) -> float:
        """For how many steps compiling it takes less time than it saves."""
        return STEPS_WORTH_COMPILING * self.operations.total() / self.executed

    @functools.cached_property
    def digest(self) -> str:
        """Of what it computes: its graph without the names in it, with what it captures as places to be filled."""
        return sharing.digest(self.function, self._definition)


def _convolution_flop(operation: tf.Operation, batch: int) -> float:
    if not operation.type.startswith(CONVOLUTIONS):
        return 0.0
    # A convolution and its gradients do as many multiplications, each with an addition: for each number on the side of
    # the outputs, one for each number of the filter that leads to it.
    backward = "Backprop" in operation.type
    filters = operation.outputs[0] if "Filter" in operation.type else operation.inputs[1 - backward]
    if "BackpropInput" in operation.type:
        filters = operation.inputs[1]
    outputs = operation.inputs[2] if backward else operation.outputs[0]
    if not (filters.shape.is_fully_defined() and outputs.shape[1:].is_fully_defined()):
        return math.inf
    channels = filters.shape[-1] if "Depthwise" not in operation.type else filters.shape[-1] * filters.shape[-2]
    places = (outputs.shape[0] or batch) * outputs.shape[1:].num_elements()
    return float(2.0 * places * filters.shape.num_elements() / channels)


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


@contextlib.contextmanager
def _threefry() -> Iterator[None]:
    """While tracing, lets whatever draws random numbers by Keras draw them from threefry.

    The generator that XLA chooses by itself on a CPU takes 25 ms for a mask of 128 x 128, threefry 0.07 ms. The
    numbers are others, their distribution is the same.
    """
    drawing = [(tf.random, name, "alg") for name in dir(tf.random) if name.startswith("stateless_")]
    drawing += [(tf.random.experimental, name, "alg") for name in ("stateless_shuffle",)]
    drawing += [(tf.nn.experimental, "stateless_dropout", "rng_alg")]
    originals = []
    for module, name, argument in drawing:
        original = getattr(module, name)
        if argument in inspect.signature(original).parameters:
            originals.append((module, name, original))
            setattr(module, name, functools.partial(original, **{argument: "threefry"}))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


_traced: Counter[str] = Counter()


@contextlib.contextmanager
def repeatable_names(key: str) -> Iterator[None]:
    """While tracing, numbers functions from a hash of `key` on.

    TensorFlow numbers functions in the order a process makes them, and the persistent compile cache hashes these
    names: without this a program is found again only by a process that did the same things before it.
    """
    _traced[key] += 1  # traced again, or by another model that looks alike, it needs other names
    key = f"{key} {_traced[key]}"
    original = tf_ops.uid
    numbers = itertools.count(10_000_000 + zlib.crc32(key.encode()) * 10_000)
    tf_ops.uid = lambda: next(numbers)
    try:
        yield
    finally:
        tf_ops.uid = original
