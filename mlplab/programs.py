"""Programs: an epoch of a model's own `train_step` or `test_step` as one call into TensorFlow.

The only room that touches Keras' and TensorFlow's internals. A program is one of three kinds:

- `epoch`: the loop over the batches and the step in it are compiled together by XLA.
- `steps`: a loop of TensorFlow around a step that XLA compiles. XLA for CPUs finds the quick kernels of convolutions at
  a program's top level and not in a loop of its own.
- `graph`: a loop of TensorFlow around the step as TensorFlow executes it. Nothing is compiled, TensorFlow's own checks
  are made, and whatever TensorFlow can do may be in the step.

Who may share a program is decided by what was traced: the step's graph, with the variables and tensors that it captures
as places to be filled; see `mlplab.sharing`.
"""

import contextlib
import functools
import hashlib
import inspect
import itertools
import math
import os
import threading
import time
import weakref
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.utils.python_utils import pythonify_logs
from tensorflow.python.framework import ops as tf_ops

from mlplab import program_cache, ranges, sharing

EPOCH, STEPS, GRAPH = KINDS = ("epoch", "steps", "graph")

PROGRAMS_KEPT = 64

CHUNK_BYTES = 2**26
"""About how much of data that stay where they are is copied at a time."""


class NotCompilableError(Exception):
    """There is no program that could stand in for Keras; the text says why."""


# ------------------------------------------------------------------------------------------------------------- data


class Arrays:
    """What a model is trained on or evaluated with: x, y and sample weights, each an array, a nest of them or None.

    Attributes:
        nest: the arrays as tensors, or, where `streamed`, as NumPy arrays that stay where they are.
        examples: how many.
        streamed: whether they are copied a chunk at a time, the next one while the program works on the last.
    """

    def __init__(self, nest: Any, streamed: bool = False) -> None:
        self.nest, self.streamed = nest, streamed
        self.leaves = [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]
        self.present = [leaf is not None for leaf in tf.nest.flatten(nest)]
        self.examples = int(self.leaves[0].shape[0])
        # Keras' batches have tuples where the arrays were given in lists.
        self.structure = str(tf.nest.map_structure(lambda leaf: leaf is not None, nest))
        self.specs = [tf.TensorSpec(leaf.shape[1:], tf.as_dtype(self._kept_dtype(leaf))) for leaf in self.leaves]

    @staticmethod
    def _kept_dtype(leaf: Any) -> Any:
        # As Keras' own adapter does it.
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            return keras.config.floatx()
        return leaf.dtype

    def pack(self, leaves: Sequence[Any]) -> Any:
        """Leaves, one for each array, in the nest that Keras hands to a step."""
        taken = iter(leaves)
        x, y, weight = tf.nest.pack_sequence_as(self.nest, [next(taken) if there else None for there in self.present])
        return data_adapter_utils.pack_x_y_sample_weight(x, y, weight)

    def rows(self, batch: int) -> int:
        """How many examples a call of a program is given."""
        if not self.streamed:
            return self.examples
        example: int = sum(spec.dtype.size * math.prod(spec.shape) for spec in self.specs)
        return min(self.examples, max(1, CHUNK_BYTES // max(1, example * batch)) * batch)

    def chunks(self, batch: int, order: np.ndarray | None) -> Iterator[tuple[int, list[tf.Tensor]]]:
        """Of an epoch of streamed arrays: how many examples to take, and the tensors that begin with them."""
        size = self.rows(batch)

        def chunk(start: int) -> tuple[int, list[tf.Tensor]]:
            stop = min(start + size, self.examples)
            index = slice(start, stop) if order is None else order[start:stop]
            tensors = []
            for leaf, spec in zip(self.leaves, self.specs, strict=True):
                rows = np.zeros((size, *spec.shape), spec.dtype.as_numpy_dtype)
                rows[: stop - start] = leaf[index]
                tensors.append(tf.convert_to_tensor(rows))
            return stop - start, tensors

        with ThreadPoolExecutor(1) as reader:
            following: Future[Any] | None = reader.submit(chunk, 0)
            start = 0
            while following is not None:
                taken = following.result()
                start += size
                following = reader.submit(chunk, start) if start < self.examples else None
                yield taken


# ------------------------------------------------------------------------------------------------- what a model runs


@dataclass(frozen=True)
class Ready:
    """A program with the variables of one model in its places, compiled."""

    program: "_Program"
    captured: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return self.program.kind

    @property
    def shuffled(self) -> bool:
        """Whether `run` needs an order."""
        return self.program.shuffled

    def run(self, model: keras.Model, arrays: Arrays, order: np.ndarray | None = None) -> dict[str, Any]:
        """Runs an epoch to its end and returns its logs as Keras' `fit` gives them."""
        model.reset_metrics()
        batch, outputs = self.program.batch, []
        if arrays.streamed:
            for examples, tensors in arrays.chunks(batch, order):
                outputs = self.program.call(self.captured, divmod(examples, batch), tensors)
        else:
            inputs = [*([] if order is None else [tf.constant(order)]), *arrays.leaves]
            outputs = self.program.call(self.captured, divmod(arrays.examples, batch), inputs)
        logs = model.get_metrics_result()
        if self.program.logs is not None:  # those of the last batch, as in Keras
            logs = tf.nest.pack_sequence_as(self.program.logs, outputs)
        found: dict[str, Any] = pythonify_logs(logs)
        return found


_lock = threading.RLock()
_shared: "OrderedDict[str, _Program]" = OrderedDict()
_alike: "OrderedDict[str, tuple[str, list[Any] | None]]" = OrderedDict()
"""From models that are the same piece by piece to their program in `_shared`, and which of their variables it takes."""
_traced: Counter[str] = Counter()


@dataclass
class _Own:
    """What a model runs until it is compiled again: Keras, too, traces it only then anew."""

    compiled: Any
    programs: dict[str, Ready] = field(default_factory=dict)
    kind: str | None = None
    steps: float = 0


_own: "weakref.WeakKeyDictionary[keras.Model, _Own]" = weakref.WeakKeyDictionary()


def ready(
    model: keras.Model,
    mode: str,
    arrays: Arrays,
    batch: int,
    shuffle: bool = False,
    *,
    kind: str | None = None,
    steps: float = math.inf,
    one_core: bool = False,
) -> Ready:
    """The program for an epoch of `model` on arrays, compiled; the model's variables stay as they are.

    Args:
        model: built, see `build`.
        mode: "train" or "test".
        arrays: what it is to run on.
        batch: examples a step.
        shuffle: whether it is given an order.
        kind: which of `KINDS`; None: chosen.
        steps: how many steps it is to run altogether, as far as known.
        one_core: whether several are to run side by side, each on a core of its own.

    Raises:
        NotCompilableError: there is none.
        OutOfRangeError: a label or an id is none that the model knows.
    """
    wanted = repr((mode, batch, shuffle, arrays.examples, arrays.specs, arrays.structure, arrays.streamed, one_core))
    with _lock:
        own = _own.get(model)
        if own is None or own.compiled is not model._compile_config:
            own = _own[model] = _Own(model._compile_config)
        if mode == "train":
            own.steps = steps = own.steps + steps
        elif kind is None:
            kind = own.kind
        making = _Making(model, mode, arrays, batch, shuffle, one_core, wanted)
        kind = kind or making.chosen(steps)
        found = own.programs.get(f"{kind} {wanted}")
        if found is None:
            found = making.made(kind)
            own.programs[f"{kind} {wanted}"] = found
        if mode == "train":
            own.kind = found.kind
        for use in found.program.uses:
            use.check(arrays.leaves)
        return found


class _XlaError(Exception):
    """XLA does not compile it."""


class _Making:
    """The programs of one model for one mode and set of arrays: found, or traced and compiled."""

    def __init__(
        self, model: keras.Model, mode: str, arrays: Arrays, batch: int, shuffle: bool, one_core: bool, wanted: str
    ) -> None:
        self.model, self.mode, self.arrays, self.batch = model, mode, arrays, batch
        self.shuffle, self.one_core, self.wanted = shuffle, one_core, wanted
        self._steps: dict[tuple[int, bool], _Step] = {}

    @functools.cached_property
    def alike(self) -> str:
        """Equal for models that are the same piece by piece; of no other model where that cannot be known."""
        variables = _variables(self.model, self.mode)
        found = sharing.description(self.model, variables, self.mode, self.arrays.structure)
        return found or f"only {_token(self.model)} as compiled by {_token(self.model._compile_config)}"

    def chosen(self, steps: float) -> str:
        """Which kind of program is quickest for so many steps."""
        known = f"{self.wanted} {self.alike}"
        if known not in _traits:
            sizes = 2 if self.arrays.examples % self.batch else 1
            step = self.step(self.batch, xla=steps >= STEPS_WORTH_COMPILING)
            _traits[known] = _Traits(bool(step.only_graph), sizes * step.steps_worth_compiling, step.convolves)
        traits = _traits[known]
        if traits.only_graph or steps < traits.worth_from:
            return GRAPH
        return self.of_convolutions(traits, steps) if traits.convolves else EPOCH

    def of_convolutions(self, traits: "_Traits", steps: float) -> str:
        """Which of the kinds that are quick at convolutions is quicker for so many steps.

        Mostly it is `graph`. Where it takes long, both are timed, once for each step's graph and machine.
        """
        if traits.graph_seconds is None:
            graph = self.program(GRAPH)
            traits.graph_seconds = graph.program.time(graph.captured, self.arrays)
        if traits.timed or traits.graph_seconds * steps < SECONDS_WORTH_TIMING:
            return traits.timed or GRAPH
        digest = hashlib.sha256(f"{self.step(self.batch, xla=False).digest} {self.wanted}".encode()).hexdigest()
        note = program_cache() / "kinds" / digest
        with contextlib.suppress(OSError):
            traits.timed = note.read_text()
        if traits.timed not in (GRAPH, STEPS):
            traits.timed = GRAPH
            with contextlib.suppress(_XlaError):
                compiled = self.program(STEPS)
                seconds = compiled.program.time(compiled.captured, self.arrays)
                traits.timed = STEPS if seconds < traits.graph_seconds else GRAPH
            with contextlib.suppress(OSError):
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(traits.timed)
        return traits.timed

    def step(self, size: int, xla: bool) -> "_Step":
        """The model's step for a batch of so many examples, traced for XLA to compile or not."""
        if (size, xla) not in self._steps:
            # Processes that do the same find each other's compiled programs by these names.
            label = f"{self.wanted} {xla} {size} {[type(layer).__name__ for layer in _layers(self.model)]}"
            with _repeatable_names(label), _threefry() if xla and _on_cpu() else _as_it_is():
                self._steps[size, xla] = _Step(self.model, self.mode, self.arrays, size, xla)
        return self._steps[size, xla]

    def made(self, kind: str) -> Ready:
        """The program of a kind, or, where XLA cannot compile it, of the kind `graph`."""
        try:
            return self.program(kind)
        except _XlaError:
            return self.program(GRAPH)

    def program(self, kind: str) -> Ready:
        """The program of a kind, compiled.

        Raises:
            _XlaError: XLA cannot compile it.
        """
        alike = f"{kind} {self.wanted} {self.alike}"
        variables = _variables(self.model, self.mode)
        content, slots = _alike.get(alike, ("", None))
        if slots is not None and (program := _shared.get(content)) is not None:
            _shared.move_to_end(content)
            return Ready(program, tuple(variables[slot].value.handle for slot in slots))
        rest = self.arrays.examples % self.batch
        steps = [self.step(size, kind != GRAPH) for size in (self.batch, rest) if size]
        if kind != GRAPH and (reason := steps[0].only_graph):
            raise _XlaError(reason)
        content = hashlib.sha256(
            " ".join([kind, self.wanted, *(f"{step.digest} {step.logs}" for step in steps)]).encode()
        ).hexdigest()
        if (program := _shared.get(content)) is None:
            with _repeatable_names(f"{kind} {content}"):
                program = _Program(kind, steps, self.arrays, self.batch, self.shuffle)
            program.compile(program.bound(steps), self.arrays, self.one_core)
            _shared[content] = program
            if len(_shared) > PROGRAMS_KEPT:
                _shared.popitem(last=False)
        _shared.move_to_end(content)
        captured = program.bound(steps)
        places = {id(variable.value.handle): i for i, variable in enumerate(variables)}
        found = [places.get(id(tensor)) for tensor in captured]
        _alike[alike] = content, None if None in found else found
        if len(_alike) > 16 * PROGRAMS_KEPT:
            _alike.popitem(last=False)
        return Ready(program, captured)


@dataclass
class _Traits:
    """What the choice of a kind of program depends on.

    Attributes:
        only_graph: whether XLA is not to compile it.
        worth_from: the number of steps for which compiling it takes less time than it saves.
        convolves: whether it has large convolutions.
        graph_seconds: what a step takes as `graph`, once that was measured.
        timed: the quicker of `steps` and `graph`, once both were.
    """

    only_graph: bool
    worth_from: float
    convolves: bool
    graph_seconds: float | None = None
    timed: str = ""


_traits: dict[str, _Traits] = {}
_tokens: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next_token = itertools.count()


def _token(thing: Any) -> int:
    return _tokens.setdefault(thing, next(_next_token))


# ------------------------------------------------------------------------------------------------- steps and programs

CONVOLUTIONS = ("Conv", "DepthwiseConv", "FusedConv")

# What XLA leaves out, draws otherwise at each call, or does not know: TensorFlow itself has to do it.
ONLY_GRAPH = {
    "Assert", "CheckNumerics", "CheckNumericsV2", "Cholesky", "EagerPyFunc", "MatrixInverse", "MatrixSolve",
    "Multinomial", "ParameterizedTruncatedNormal", "ReverseSequence", "ScatterNd", "Print", "PrintV2", "PyFunc",
    "PyFuncStateless", "RandomGamma", "RandomPoissonV2", "RandomShuffle", "RandomStandardNormal", "RandomUniform",
    "RandomUniformInt", "StringFormat", "TruncatedNormal",
}  # fmt: skip


class _Step:
    """A model's step, traced for one size of a batch.

    Attributes:
        function: takes the arrays of a batch; returns the logs, where they are not the model's metrics.
        logs: their structure, or None.
        operations: how often each type of operation is in it.
        uses: the classes and rows that it takes by numbers from the arrays.
        only_graph: why XLA is not to compile it, or None.
    """

    def __init__(self, model: keras.Model, mode: str, arrays: Arrays, size: int, xla: bool) -> None:
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

        specs = [tf.TensorSpec([size, *spec.shape], spec.dtype) for spec in arrays.specs]
        run.__name__ = f"{mode}_step"
        try:
            self.function = tf.function(run, autograph=False, jit_compile=xla or None).get_concrete_function(*specs)
        except NotCompilableError:
            raise
        except Exception as error:
            text = str(error).strip().split("\n")[0]
            raise NotCompilableError(f"tracing its {mode}_step failed with {type(error).__name__}: {text}") from error
        graph = self.function.graph
        self._definition = graph.as_graph_def()
        functions = self._definition.library.function
        nodes = [*self._definition.node, *(node for function in functions for node in function.node_def)]
        self.operations = Counter(node.op for node in nodes)
        self.uses, unknown = ranges.uses(graph, graph.inputs[: len(specs)])
        strings = any(spec.dtype == tf.string for spec in specs)
        unfit = sorted(ONLY_GRAPH.intersection(self.operations))
        self.only_graph = unfit[0] if unfit else "strings" if strings else unknown
        if not all(layer.supports_jit for layer in _layers(model)):
            self.only_graph = "a layer does not support XLA"
        outputs = (tensor for operation in graph.get_operations() for tensor in operation.outputs)
        if _on_cpu() and any(tensor.dtype in (tf.bfloat16, tf.float16) for tensor in outputs):
            self.only_graph = "numbers of 16 bits, which XLA rounds at other places"

    @property
    def convolves(self) -> bool:
        """Whether convolutions are so large that in a loop compiled by XLA they take longer than starting a step."""
        flop = sum(_convolution_flop(operation) for operation in self.function.graph.get_operations())
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


class _Program:
    """A loop over the batches of an epoch, compiled as its kind says.

    It owns no variables: every call names those that it works on.
    """

    def __init__(self, kind: str, steps: Sequence[_Step], arrays: Arrays, batch: int, shuffled: bool) -> None:
        self.kind, self.batch, self.shuffled = kind, batch, shuffled
        self.logs, self.uses = steps[0].logs, steps[0].uses
        sizes = [size for size in (batch, arrays.examples % batch) if size]
        self._rows = arrays.rows(batch)

        def take(leaves: Sequence[tf.Tensor], order: tf.Tensor | None, start: tf.Tensor, size: int) -> list[tf.Tensor]:
            if order is None:
                return [
                    tf.slice(leaf, [start] + [0] * (leaf.shape.rank - 1), [size, *leaf.shape[1:]]) for leaf in leaves
                ]
            index = tf.slice(order, [start], [size])
            return [tf.gather(leaf, index) for leaf in leaves]

        def epoch(full_count: tf.Tensor, rest_count: tf.Tensor, *inputs: tf.Tensor) -> list[tf.Tensor]:
            order, leaves = (inputs[0], inputs[1:]) if shuffled and not arrays.streamed else (None, inputs)
            outputs = [tf.zeros(tensor.shape, tensor.dtype) for tensor in steps[0].function.outputs]
            firsts = [tf.constant(0), full_count * batch]
            for count, first, size, step in zip([full_count, rest_count], firsts, sizes, steps, strict=False):

                def body(
                    i: tf.Tensor, *_: tf.Tensor, first: Any = first, size: int = size, step: _Step = step
                ) -> tuple[tf.Tensor, ...]:
                    return (i + 1, *(step.function(*take(leaves, order, first + i * batch, size)) or ()))

                def more(i: tf.Tensor, *_: tf.Tensor, count: Any = count) -> tf.Tensor:
                    return i < count

                # In their order: a step needs the variables that the last one left.
                _, *outputs = tf.while_loop(more, body, (tf.constant(0), *outputs), parallel_iterations=1)
            return outputs

        # The trip counts are arguments, so that a call with zeros compiles everything and trains nothing.
        specs = [tf.TensorSpec([], tf.int32)] * 2
        specs += [tf.TensorSpec([arrays.examples], tf.int32)] if shuffled and not arrays.streamed else []
        specs += [tf.TensorSpec([self._rows, *spec.shape], spec.dtype) for spec in arrays.specs]
        function = tf.function(epoch, jit_compile=kind == EPOCH, autograph=False)
        try:
            self._function = function.get_concrete_function(*specs)
        except Exception as error:
            raise NotCompilableError(f"a loop over its steps fails: {str(error).splitlines()[0]}") from error
        places = {id(tensor): place for place, tensor in enumerate(_captures(steps))}
        self._places = [places[id(tensor)] for tensor in self._function.captured_inputs]

    def bound(self, steps: Sequence[_Step]) -> tuple[Any, ...]:
        """What is to be captured so that it runs on the variables of the model whose steps these are."""
        captures = _captures(steps)
        return tuple(captures[place] for place in self._places)

    def compile(self, captured: Sequence[Any], arrays: Arrays, one_core: bool) -> None:
        """Compiles; leaves every variable as it is.

        Raises:
            _XlaError: XLA cannot.
        """
        counts = (0, 0)
        if self.kind == STEPS:  # compiled when a step is run
            counts = (int(arrays.examples >= self.batch), int(arrays.examples % self.batch > 0))
        try:
            with _one_core() if one_core and self.kind == EPOCH else _as_it_is(), _put_back(captured, counts):
                self.call(captured, counts, self._inputs(arrays))
        except tf.errors.OpError as error:
            if self.kind == GRAPH:
                raise
            raise _XlaError(str(error).splitlines()[0]) from error

    def time(self, captured: Sequence[Any], arrays: Arrays) -> float:
        """Seconds of a step; leaves every variable as it is."""
        inputs, best = self._inputs(arrays), math.inf
        steps, most = 1, max(1, self._rows // self.batch)
        with _put_back(captured, (1, 0)):
            for _ in range(5):
                started = time.perf_counter()
                self.call(captured, (steps, 0), inputs)
                seconds = time.perf_counter() - started
                best = min(best, seconds / steps)
                steps = min(most, max(1, round(TIMED_SECONDS / best)))
        return best

    def _inputs(self, arrays: Arrays) -> list[tf.Tensor]:
        if arrays.streamed:
            return [tf.zeros([self._rows, *spec.shape], spec.dtype) for spec in arrays.specs]
        return [*([tf.range(arrays.examples)] if self.shuffled else []), *arrays.leaves]

    def call(self, captured: Sequence[Any], counts: tuple[int, int], inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Runs so many full batches and, where the second count is not zero, a smaller one after them."""
        counts = counts[0], int(counts[1] > 0)
        # The public call binds the variables of the traced model; this is the same call with the captures given.
        found: list[tf.Tensor] = self._function._call_flat([*map(tf.constant, counts), *inputs], list(captured))
        return found


STEPS_WORTH_COMPILING = 700
"""How many steps, of one batch size and without loops, take as much longer uncompiled as compiling takes.

An operation took XLA about 1 ms to compile, and TensorFlow 1 to 2 µs longer at each step (MLPs, normalizations,
attention, recurrent networks; see benchmarks/zoo.py).
"""

CONVOLUTION_RATE, LAUNCH_SECONDS = 5e9, 150e-6
"""What XLA's own loops for a convolution reach on a core, FLOP/s, and what a compiled step costs to start."""

SECONDS_WORTH_TIMING = 20.0
TIMED_SECONDS = 0.05

_as_it_is = contextlib.nullcontext


def _convolution_flop(operation: tf.Operation) -> float:
    if not operation.type.startswith(CONVOLUTIONS):
        return 0.0
    # A convolution and its gradients do as many multiplications, each with an addition: for each number on the side of
    # the outputs, one for each number of the filter that leads to it.
    backward = "Backprop" in operation.type
    filters = operation.outputs[0] if "Filter" in operation.type else operation.inputs[1 - backward]
    if "BackpropInput" in operation.type:
        filters = operation.inputs[1]
    outputs = operation.inputs[2] if backward else operation.outputs[0]
    channels = filters.shape[-1] if "Depthwise" not in operation.type else filters.shape[-1] * filters.shape[-2]
    if not (filters.shape.is_fully_defined() and outputs.shape.is_fully_defined()):
        return math.inf
    return float(2.0 * outputs.shape.num_elements() * filters.shape.num_elements() / channels)


def _captures(steps: Sequence[_Step]) -> list[Any]:
    return [tensor for step in steps for tensor in step.function.captured_inputs]


def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    found: list[keras.layers.Layer] = model._flatten_layers()
    return found


def _variables(model: keras.Model, mode: str) -> list[Any]:
    """All variables a step may read or write, in an order that models of the same configuration share."""
    every = [*model.variables, *model.metrics_variables, *(_optimizer_variables(model) if mode == "train" else [])]
    return list({id(variable): variable for variable in every}.values())


def _optimizer_variables(model: keras.Model) -> list[Any]:
    return [] if model.optimizer is None else model.optimizer.variables


@contextlib.contextmanager
def _put_back(captured: Sequence[Any], counts: tuple[int, int]) -> Iterator[None]:
    """Has every variable afterwards the value that it has now, where steps are run."""
    kept = []
    for handle in captured if any(counts) else ():
        data = getattr(handle, "_handle_data", None) if handle.dtype == tf.resource else None
        if data is not None and data.is_set and data.shape_and_type:
            dtype = tf.as_dtype(data.shape_and_type[0].dtype)
            kept.append((handle, tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)))
    try:
        yield
    finally:
        for handle, value in kept:
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """While compiling, lets this thread use one core, so that XLA splits no operation among several.

    What is split at batch size 1 costs more in handing over than it saves, and moves the weights from one core's cache
    to another's. XLA's own flag for it holds for the whole process.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield
        return
    cores, threads = os.sched_getaffinity(0), os.listdir("/proc/self/task")
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        # XLA's thread pools, made by the first program of a process, have inherited the one core.
        for thread in set(os.listdir("/proc/self/task")).difference(threads):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), cores)


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


@contextlib.contextmanager
def _repeatable_names(key: str) -> Iterator[None]:
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


def build(model: keras.Model, arrays: Arrays) -> None:
    """Creates the variables that Keras creates on first use."""

    def symbol(leaf: Any) -> Any:
        return None if leaf is None else next(symbols)

    symbols = iter([keras.KerasTensor((None, *spec.shape), spec.dtype.name) for spec in arrays.specs])
    # What cannot be built from shapes alone, such as a model without `call`, creates them when it is traced.
    with contextlib.suppress(Exception):
        model._symbolic_build(data_batch=tf.nest.map_structure(symbol, arrays.nest))
    if model.optimizer is not None and not model.optimizer.built and model.trainable_variables:
        model.optimizer.build(model.trainable_variables)
