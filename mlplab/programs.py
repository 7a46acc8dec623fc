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
import hashlib
import itertools
import math
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.utils.python_utils import pythonify_logs

from mlplab import program_cache, sharing
from mlplab.arrays import Arrays, NotCompilableError
from mlplab.steps import STEPS_WORTH_COMPILING, Step, repeatable_names

EPOCH, STEPS, GRAPH = KINDS = ("epoch", "steps", "graph")

PROGRAMS_KEPT = 64

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

    def run(
        self, model: keras.Model, arrays: Arrays, order: np.ndarray | None = None, most: float = math.inf
    ) -> dict[str, Any]:
        """Runs an epoch, or `most` steps of it, to its end and returns its logs as Keras' `fit` gives them."""
        model.reset_metrics()
        batch, outputs = self.program.batch, []
        left = min(arrays.examples, most * batch)
        if arrays.streamed:
            for examples, tensors in arrays.chunks(batch, order):
                outputs = self.program.call(self.captured, divmod(int(min(examples, left)), batch), tensors)
                left -= examples
                if left <= 0:
                    break
        else:
            inputs = [*([] if order is None else [tf.constant(order)]), *arrays.leaves]
            outputs = self.program.call(self.captured, divmod(int(left), batch), inputs)
        logs = model.get_metrics_result()
        if self.program.logs is not None:  # those of the last batch, as in Keras
            logs = tf.nest.pack_sequence_as(self.program.logs, outputs)
        found: dict[str, Any] = pythonify_logs(logs)
        return found


_lock = threading.RLock()
_shared: "OrderedDict[str, _Program]" = OrderedDict()
_alike: "OrderedDict[str, tuple[Step, list[int]]]" = OrderedDict()
"""From models that are the same piece by piece to their step, and which of their variables it takes."""


@dataclass
class _Traced:
    """What a model's step for one mode and structure of data was, when it was first needed.

    Attributes:
        alike: equal for models that are the same piece by piece; of no other model where that cannot be known.
        trainable: of each variable.
        variables: all that a step may read or write, in an order that models of the same configuration share.
        steps: for XLA to compile or not, those that were needed, each with what it takes of this model.
    """

    alike: str
    trainable: list[bool]
    variables: list[Any]
    steps: dict[bool, tuple[Step, list[Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model, mode: str, arrays: Arrays) -> "_Traced":
        """As the model is now."""
        variables = sharing.variables(model, mode)
        alike = sharing.description(model, variables, mode, arrays.structure)
        alike = alike or f"only {_token(model)} as compiled by {_token(model._compile_config)}"
        return cls(alike, [variable.trainable for variable in variables], variables)

    def same(self, other: "_Traced") -> bool:
        """Whether both would be traced to the same, as far as can be told."""
        return (self.alike, self.trainable) == (other.alike, other.trainable)


@dataclass
class _Own:
    """What a model runs until it is compiled again: Keras, too, traces it only then anew."""

    compiled: Any
    traced: dict[str, _Traced] = field(default_factory=dict)
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
        key = repr((mode, arrays.specs, arrays.structure))
        now = _Traced.of(model, mode, arrays)
        traced = own.traced.setdefault(key, now)
        if own.kind and not now.same(traced):
            kind = kind or own.kind  # another would have to be traced, and that would not be the same
        making = _Making(model, mode, arrays, batch, shuffle, one_core, wanted, key, traced)
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


def _keep(kept: "OrderedDict[str, Any]", key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > PROGRAMS_KEPT:
        kept.popitem(last=False)


class _XlaError(Exception):
    """XLA does not compile it."""


class _Making:
    """The programs of one model for one mode and set of arrays: found, or traced and compiled."""

    def __init__(
        self,
        model: keras.Model,
        mode: str,
        arrays: Arrays,
        batch: int,
        shuffle: bool,
        one_core: bool,
        wanted: str,
        key: str,
        traced: _Traced,
    ) -> None:
        self.model, self.mode, self.arrays, self.batch = model, mode, arrays, batch
        self.shuffle, self.one_core, self.wanted, self.key, self.traced = shuffle, one_core, wanted, key, traced

    def chosen(self, steps: float) -> str:
        """Which kind of program is quickest for so many steps."""
        known = f"{self.wanted} {self.traced.alike}"
        if known not in _traits:
            sizes = 2 if self.arrays.examples % self.batch else 1
            step, _ = self.step(xla=steps >= STEPS_WORTH_COMPILING)
            convolves = step.convolves(self.batch)
            _traits[known] = _Traits(bool(step.only_graph), sizes * step.steps_worth_compiling, convolves)
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
        digest = hashlib.sha256(f"{self.step(xla=False)[0].digest} {self.wanted}".encode()).hexdigest()
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

    def step(self, xla: bool) -> tuple[Step, list[Any]]:
        """The step for XLA to compile or not, traced from this model or one alike, and what it takes of this model."""
        steps, variables = self.traced.steps, self.traced.variables
        known = f"{self.key} {xla} {self.traced.alike}"
        if xla not in steps and known in _alike:
            _alike.move_to_end(known)
            step, slots = _alike[known]
            steps[xla] = step, [variables[slot].value.handle for slot in slots]
        if xla not in steps:
            # Processes that do the same find each other's compiled programs by these names.
            with repeatable_names(f"{self.key} {xla} {[type(one).__name__ for one in self.model._flatten_layers()]}"):
                step = Step(self.model, self.mode, self.arrays, xla)
            steps[xla] = step, step.function.captured_inputs
            places = {id(variable.value.handle): i for i, variable in enumerate(variables)}
            if all(id(tensor) in places for tensor in step.function.captured_inputs):
                _keep(_alike, known, (step, [places[id(tensor)] for tensor in step.function.captured_inputs]))
        return steps[xla]

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
        step, taken = self.step(xla=kind != GRAPH)
        if kind != GRAPH and step.only_graph:
            raise _XlaError(step.only_graph)
        content = hashlib.sha256(f"{kind} {self.wanted} {step.digest} {step.logs}".encode()).hexdigest()
        if content in _shared:
            _shared.move_to_end(content)
        else:
            with repeatable_names(f"{kind} {content}"):
                program = _Program(kind, step, self.arrays, self.batch, self.shuffle)
            program.compile(program.bound(taken), self.arrays, self.one_core)
            _keep(_shared, content, program)
        return Ready(_shared[content], _shared[content].bound(taken))


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


# ------------------------------------------------------------------------------------------------- programs


class _Program:
    """A loop over the batches of an epoch, compiled as its kind says.

    It owns no variables: every call names those that it works on.
    """

    def __init__(self, kind: str, step: Step, arrays: Arrays, batch: int, shuffled: bool) -> None:
        self.kind, self.batch, self.shuffled = kind, batch, shuffled
        self.logs, self.uses = step.logs, step.uses
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
            logs = step.function.outputs
            outputs = [tf.zeros([batch if n is None else n for n in log.shape], log.dtype) for log in logs]
            shapes = (tf.TensorShape([]), *(log.shape for log in logs))
            firsts = [tf.constant(0), full_count * batch]
            for count, first, size in zip([full_count, rest_count], firsts, sizes, strict=False):

                def body(i: tf.Tensor, *_: tf.Tensor, first: Any = first, size: int = size) -> tuple[tf.Tensor, ...]:
                    return (i + 1, *(step.function(*take(leaves, order, first + i * batch, size)) or ()))

                def more(i: tf.Tensor, *_: tf.Tensor, count: Any = count) -> tf.Tensor:
                    return i < count

                # In their order: a step needs the variables that the last one left.
                _, *outputs = tf.while_loop(more, body, (tf.constant(0), *outputs), shapes, parallel_iterations=1)
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
        places = {id(tensor): place for place, tensor in enumerate(step.function.captured_inputs)}
        self._places = [places[id(tensor)] for tensor in self._function.captured_inputs]

    def bound(self, taken: Sequence[Any]) -> tuple[Any, ...]:
        """What is to be captured so that it runs on what a step takes of a model."""
        return tuple(taken[place] for place in self._places)

    def compile(self, captured: Sequence[Any], arrays: Arrays, one_core: bool) -> None:
        """Compiles; leaves every variable as it is.

        Raises:
            _XlaError: XLA cannot.
        """
        # A step is compiled when it is run: one of each size, each from the first example on.
        calls = [(1, 0), (0, arrays.examples % self.batch)] if self.kind == STEPS else [(0, 0)]
        one = _one_core() if one_core and self.kind == EPOCH else contextlib.nullcontext()
        try:
            with one, _put_back(captured if self.kind == STEPS else ()):
                for counts in calls:
                    self.call(captured, counts, self._inputs(arrays))
        except tf.errors.OpError as error:
            if self.kind == GRAPH:
                raise
            raise _XlaError(str(error).splitlines()[0]) from error

    def time(self, captured: Sequence[Any], arrays: Arrays) -> float:
        """Seconds of a step; leaves every variable as it is."""
        inputs, best = self._inputs(arrays), math.inf
        steps, most = 1, max(1, self._rows // self.batch)
        with _put_back(captured):
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


SECONDS_WORTH_TIMING = 20.0
TIMED_SECONDS = 0.05


@contextlib.contextmanager
def _put_back(captured: Sequence[Any]) -> Iterator[None]:
    """Has every variable that is captured afterwards the value that it has now."""
    kept = []
    for handle in captured:
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
