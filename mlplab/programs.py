"""Programs: an epoch of a model's own `train_step` or `test_step` as one call into TensorFlow.

What a model runs is one of the loops of `mlplab.loops`, with the model's variables in its places. Which kind of loop is
chosen from what was traced, and by timing where that does not tell.

Who may share a program is decided by what was traced: the step's graph, with the variables and tensors that it captures
as places to be filled; see `mlplab.sharing`.
"""

import contextlib
import hashlib
import itertools
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.utils.python_utils import pythonify_logs

from mlplab import sharing
from mlplab.arrays import Arrays
from mlplab.folders import program_cache
from mlplab.loops import EPOCH, GRAPH, STEPS, Program, XlaError
from mlplab.steps import STEPS_WORTH_COMPILING, Step, repeatable_names

SECONDS_WORTH_TIMING = 20.0
"""Of a training: where it takes longer, kinds of programs are timed before it."""

PROGRAMS_KEPT = 64
"""And as many steps: each holds what its first model's variables hold."""


@dataclass(frozen=True)
class Ready:
    """A program with the variables of one model in its places, compiled."""

    program: Program
    captured: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return self.program.kind

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


@dataclass
class _Traced:
    """What a model's step for one mode and structure of data was, when it was first needed.

    Attributes:
        alike: equal for models that are the same piece by piece; of no other model where that is not `known`.
        trainable: of each variable.
        variables: all that a step may read or write, in an order that models of the same configuration share.
        steps: for XLA to compile or not, those that were needed, each with what it takes of this model.
    """

    alike: str
    known: bool
    trainable: list[bool]
    variables: list[Any]
    steps: dict[bool, tuple[Step, list[Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model, mode: str, arrays: Arrays) -> "_Traced":
        """As the model is now."""
        variables = sharing.variables(model, mode)
        alike = sharing.description(model, variables, mode, arrays.structure)
        only = f"only {_token(model)} as compiled by {_token(model._compile_config)}"
        return cls(alike or only, alike is not None, [variable.trainable for variable in variables], variables)

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


@dataclass(frozen=True)
class _Made:
    """What this process has made.

    Attributes:
        shared: programs by what they compute.
        alike: from models that are the same piece by piece to their step, and which of their variables it takes.
        own: what each model runs.
    """

    shared: "OrderedDict[str, Program]" = field(default_factory=OrderedDict)
    alike: "OrderedDict[str, tuple[Step, list[int]]]" = field(default_factory=OrderedDict)
    own: "weakref.WeakKeyDictionary[keras.Model, _Own]" = field(default_factory=weakref.WeakKeyDictionary)


_lock = threading.RLock()
_made = _Made()


def shared() -> dict[str, Program]:
    """The programs that models of this process share, by what they compute; the least recently used is first."""
    with _lock:
        return dict(_made.shared)


@contextlib.contextmanager
def afresh() -> Iterator[None]:
    """While it lasts, nothing that was made before is known, as in a new process; after it, it is again."""
    global _made
    before, _made = _made, _Made()
    try:
        yield
    finally:
        _made = before


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
        own = _made.own.get(model)
        if own is None or own.compiled is not model._compile_config:
            own = _made.own[model] = _Own(model._compile_config)
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


def chosen(model: keras.Model, arrays: Arrays, batch: int, steps: float) -> str:
    """Which kind of program trains `model`, as `ready` has it, quickest for so many steps.

    Raises:
        NotCompilableError: there is none.
    """
    shuffle = batch < arrays.examples
    wanted = repr(("train", batch, shuffle, arrays.examples, arrays.specs, arrays.structure, arrays.streamed, False))
    key = repr(("train", arrays.specs, arrays.structure))
    with _lock:
        traced = _Traced.of(model, "train", arrays)
        return _Making(model, "train", arrays, batch, shuffle, False, wanted, key, traced).chosen(steps)


def _keep(kept: "OrderedDict[str, Any]", key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > PROGRAMS_KEPT:
        kept.popitem(last=False)


@dataclass
class _Making:
    """The programs of one model for one mode and set of arrays: found, or traced and compiled.

    Attributes:
        wanted: what a program depends on besides its step.
        key: what a step depends on besides its model.
        traced: what is known of the model's steps.
    """

    model: keras.Model
    mode: str
    arrays: Arrays
    batch: int
    shuffle: bool
    one_core: bool
    wanted: str
    key: str
    traced: _Traced

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
            with contextlib.suppress(XlaError):
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
        if xla not in steps and known in _made.alike:
            _made.alike.move_to_end(known)
            step, slots = _made.alike[known]
            steps[xla] = step, [variables[slot].value.handle for slot in slots]
        if xla not in steps:
            # Processes that do the same find each other's compiled programs by these names.
            with repeatable_names(f"{self.key} {xla} {[type(one).__name__ for one in self.model._flatten_layers()]}"):
                step = Step(self.model, self.mode, self.arrays, xla)
            steps[xla] = step, step.function.captured_inputs
            places = {id(variable.value.handle): i for i, variable in enumerate(variables)}
            if self.traced.known and all(id(tensor) in places for tensor in step.function.captured_inputs):
                _keep(_made.alike, known, (step, [places[id(tensor)] for tensor in step.function.captured_inputs]))
        return steps[xla]

    def made(self, kind: str) -> Ready:
        """The program of a kind, or, where XLA cannot compile it, of the kind `graph`."""
        try:
            return self.program(kind)
        except XlaError:
            return self.program(GRAPH)

    def program(self, kind: str) -> Ready:
        """The program of a kind, compiled.

        Raises:
            XlaError: XLA cannot compile it.
        """
        step, taken = self.step(xla=kind != GRAPH)
        if kind != GRAPH and step.only_graph:
            raise XlaError(step.only_graph)
        content = hashlib.sha256(f"{kind} {self.wanted} {step.digest} {step.logs}".encode()).hexdigest()
        if content in _made.shared:
            _made.shared.move_to_end(content)
        else:
            with repeatable_names(f"{kind} {content}"):
                program = Program(kind, step, self.arrays, self.batch, self.shuffle)
            program.compile(program.bound(taken), self.arrays, self.one_core)
            _keep(_made.shared, content, program)
        return Ready(_made.shared[content], _made.shared[content].bound(taken))


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
