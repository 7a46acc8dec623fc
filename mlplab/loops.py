"""A loop over the batches of an epoch as one program, of one of three kinds.

- `epoch`: the loop over the batches and the step in it are compiled together by XLA.
- `steps`: a loop of TensorFlow around a step that XLA compiles. XLA for CPUs finds the quick kernels of convolutions at
  a program's top level and not in a loop of its own.
- `graph`: a loop of TensorFlow around the step as TensorFlow executes it. Nothing is compiled, TensorFlow's own checks
  are made, and whatever TensorFlow can do may be in the step.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from mlplab.arrays import Arrays, NotCompilableError
from mlplab.steps import Step

EPOCH, STEPS, GRAPH = KINDS = ("epoch", "steps", "graph")

TIMED_SECONDS = 0.05
"""About how long a call lasts by which a program's steps are timed."""


class XlaError(Exception):
    """XLA does not compile it."""


class Program:
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
            XlaError: XLA cannot.
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
            raise XlaError(str(error).splitlines()[0]) from error

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
