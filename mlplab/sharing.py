"""Who may share a program: models whose steps are the same graph, or that are the same piece by piece.

`digest` tells it from what was traced: the graph of a step, without the names in it, with the variables and tensors
that it captures as places to be filled. `description` spares the tracing, where it can be proved that two models would
be traced to the same: they consist of Keras' own objects alone, and these hold the same. A model's configuration would
not do: it tells neither a dtype policy from its name nor what was set by hand.
"""

import enum
import functools
import hashlib
import re
from collections import deque
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

DROPPED = {"_class", "_gradient_op_type", "_output_shapes", "_forward_function_name", "_backward_function_name"}
"""Attributes of a graph's nodes that hold names and decide nothing about what is computed."""


def digest(function: Any, definition: Any) -> str:
    """A hash of what a traced function computes: equal for graphs that differ in names alone.

    Args:
        function: a concrete function.
        definition: the `GraphDef` of its graph.
    """
    library = {inner.signature.name: inner for inner in definition.library.function}
    known: dict[str, str] = {}

    def of_function(name: str) -> str:
        if name not in known:
            inner = library[name]
            names: dict[str, int] = {}
            arguments = [(number(names, argument.name), argument.type) for argument in inner.signature.input_arg]
            body = of_nodes(inner.node_def, names)
            results = [renamed(names, inner.ret[result.name]) for result in inner.signature.output_arg]
            order = sorted(renamed(names, node) for node in inner.control_ret.values())
            known[name] = _hash((arguments, body, results, order))
        return known[name]

    def number(names: dict[str, int], name: str) -> int:
        return names.setdefault(name, len(names))

    def renamed(names: dict[str, int], reference: str) -> str:
        mark = "^" if reference.startswith("^") else ""
        name, *output = reference.removeprefix("^").split(":")
        return f"{mark}{number(names, name)}:{':'.join(output)}"

    def value(attribute: Any) -> Any:
        what = attribute.WhichOneof("value")
        if what == "func":
            return "func", of_function(attribute.func.name)
        if what == "list" and attribute.list.func:
            return "funcs", [of_function(inner.name) for inner in attribute.list.func]
        return what, attribute.SerializeToString(deterministic=True)

    def of_nodes(nodes: Any, names: dict[str, int]) -> list[Any]:
        return [
            (
                number(names, node.name),
                of_function(node.op) if node.op in library else node.op,
                node.device,
                [renamed(names, reference) for reference in node.input],
                sorted((key, value(node.attr[key])) for key in node.attr if key not in DROPPED),
            )
            for node in nodes
        ]

    graph = function.graph
    names: dict[str, int] = {}
    body = of_nodes(definition.node, names)
    ends = [renamed(names, tensor.name) for tensor in [*graph.inputs, *graph.outputs]]
    order = sorted(renamed(names, operation.name) for operation in graph.control_outputs)
    captured = [_kept(tensor) for tensor in function.captured_inputs]
    return _hash((body, ends, order, captured))


def _kept(tensor: Any) -> Any:
    data = getattr(tensor, "_handle_data", None)
    if tensor.dtype == tf.resource and data is not None:
        return data.SerializeToString(deterministic=True)
    return tensor.dtype.name, tuple(tensor.shape)


def _hash(what: Any) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()


LEFT_OUT = {
    # What a training leaves behind, and what it is not traced from.
    "train_function", "test_function", "predict_function", "history", "stop_training", "_eval_epoch_iterator",
    "_compile_config", "_initial_epoch", "_distribute_strategy", "_distribution_strategy",
    # Where a layer was used: what is run is in the model's own nodes.
    "_inbound_nodes", "_outbound_nodes", "_nodes", "_parent_path", "_path",
    # Bookkeeping of attributes, saving and calls.
    "_lock", "_tracker", "_auto_config", "_call_signature", "_saved_model_inputs_spec", "_saved_model_arg_spec",
    "_build_shapes_dict", "_obj_type", "_api_export_path", "_loss_ids",
    # By variables' names, the order that `_trainable_variables` has.
    "_trainable_variables_indices",
}  # fmt: skip

NAMES = {"name", "_name"}
NAMED = (keras.Operation, keras.KerasTensor, tuple)
LISTS_OF_NAMES = {"input_names", "output_names"}
SEEDS = {"seed", "_seed", "_initial_seed"}


class _UnknownError(Exception):
    """A piece may hide what decides the computation."""


def variables(model: keras.Model, mode: str) -> list[Any]:
    """All that a step of `model` may read or write, in an order that models of the same configuration share."""
    optimizer = model.optimizer.variables if mode == "train" and model.optimizer is not None else []
    every = [*model.variables, *model.metrics_variables, *optimizer]
    return list({id(variable): variable for variable in every}.values())


def description(model: keras.Model, variables: Sequence[Any], mode: str, structure: str) -> str | None:
    """A hash of all that a step of `model` is traced from, but its variables' values; None where that cannot be told.

    Two models of one description are one model with other numbers in its variables: every object that can be reached
    from them is of the same class of Keras' own and holds the same, and a variable of the one has the place of a
    variable of the other. A class or a function of somebody else may read whatever it likes, so there is none then.

    Args:
        model: built.
        variables: the model's, of `variables`.
        mode: "train" or "test", which does not read the optimizer.
        structure: of the data.
    """
    try:
        return _Pieces(model, variables, mode, structure).hash
    except _UnknownError:
        return None


class _Pieces:
    """The walk over a model's pieces."""

    def __init__(self, model: keras.Model, variables: Sequence[Any], mode: str, structure: str) -> None:
        self._variables = {id(variable): i for i, variable in enumerate(variables)}
        self._met: dict[int, int] = {}
        self._keep: list[Any] = []  # so that no identity is given to a second thing meanwhile
        self._words: set[str] = set()
        self._names: dict[str, int] = {}
        self._named = False
        found = self._piece(model, skip={"optimizer"} if mode == "test" else set())
        settings = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
        globally = (*settings, keras.config.dtype_policy().name, tf.config.optimizer.get_jit(), structure)
        # A name that something refers to must be the same; any other need only be of the same thing.
        names = [
            name if self._named or name in self._words or repr(name) in structure else place
            for name, place in self._names.items()
        ]
        self.hash = _hash((type(model).__qualname__, found, globally, names))

    def _piece(self, thing: Any, skip: set[str] | None = None) -> Any:
        if thing is None or isinstance(thing, bool | int | float | complex | bytes | np.generic):
            return type(thing).__name__, repr(thing)
        if isinstance(thing, str):
            self._words.add(thing)
            return thing
        if id(thing) in self._met:
            return "again", self._met[id(thing)]
        self._met[id(thing)] = len(self._met)
        self._keep.append(thing)
        if isinstance(thing, dict):
            return "dict", [(self._piece(key), self._piece(value)) for key, value in thing.items()]
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing).__qualname__, self._held(thing, dict(zip(thing._fields, thing, strict=True)))
        if isinstance(thing, list | tuple | deque):
            return type(thing).__name__, [self._piece(value) for value in thing]
        if isinstance(thing, set | frozenset):
            if not all(isinstance(value, str | int) for value in thing):
                raise _UnknownError
            self._words.update(value for value in thing if isinstance(value, str))
            return "set", sorted(map(repr, thing))
        if isinstance(thing, np.ndarray):
            return thing.dtype.str, thing.shape, hashlib.sha256(thing.tobytes()).hexdigest()
        if isinstance(thing, tf.DType | tf.TensorShape | np.dtype | enum.Enum | slice | range):
            return type(thing).__name__, repr(thing)
        if isinstance(thing, re.Pattern):
            self._named = True
            return "pattern", thing.pattern
        if isinstance(thing, ModuleType):
            return "module", thing.__name__
        if isinstance(thing, MethodType):
            return "method", self._piece(thing.__func__), self._piece(thing.__self__)
        if isinstance(thing, FunctionType | BuiltinFunctionType | type | np.ufunc):
            return self._code(thing)
        if isinstance(thing, functools.partial):
            return "partial", self._piece(thing.func), self._piece(thing.args), self._piece(thing.keywords)
        if isinstance(thing, keras.Initializer):  # its work is done
            return "initializer"
        return self._object(thing, skip or set())

    def _code(self, thing: Any) -> Any:
        if not _from_keras(thing):
            raise _UnknownError
        cells = [self._piece(cell.cell_contents) for cell in getattr(thing, "__closure__", None) or ()]
        defaults = self._piece(getattr(thing, "__defaults__", None))
        return thing.__module__, thing.__qualname__, id(getattr(thing, "__code__", thing)), cells, defaults

    def _object(self, thing: Any, skip: set[str]) -> Any:
        kind = type(thing)
        if not _from_keras(kind) or not hasattr(thing, "__dict__"):
            raise _UnknownError
        held = dict(vars(thing))
        if isinstance(thing, keras.Variable):
            if id(thing) not in self._variables:
                raise _UnknownError
            held = {key: value for key, value in held.items() if key not in ("_value", "_path", "_initializer", *NAMES)}
            return "variable", self._variables[id(thing)], self._held(thing, held)
        if isinstance(thing, keras.optimizers.Optimizer):
            # Which variables do not decay is kept by what TensorFlow calls them, or found by their names.
            spared = held.pop("_exclude_from_weight_decay", ())
            trained = thing._trainable_variables if thing.built else []
            held["_spared"] = [thing._var_key(variable) in spared for variable in trained]
            held.pop("_exclude_from_weight_decay_cache", None)
            if held.get("_exclude_from_weight_decay_pattern") is not None:
                held["_names"] = [variable.path for variable in trained]
            # Options that pick variables by their names.
            self._named = self._named or any(isinstance(v, list) and v and isinstance(v[0], str) for v in held.values())
        if any(isinstance(value, keras.random.SeedGenerator) for value in [thing, *held.values()]):
            # The generator's state, a variable, draws; the seed set it.
            held = {key: value for key, value in held.items() if key not in SEEDS}
        skip = LEFT_OUT | skip
        held = {key: value for key, value in held.items() if key not in skip and not key.startswith("_self_")}
        return kind.__module__, kind.__qualname__, id(kind), self._held(thing, held)

    def _held(self, thing: Any, held: dict[str, Any]) -> Any:
        found = []
        for key in sorted(held):
            value = held[key]
            if key in NAMES and isinstance(thing, NAMED) and isinstance(value, str):
                value = self._name(value)
            elif key in NAMES and isinstance(thing, keras.Metric | keras.Optimizer | keras.random.SeedGenerator):
                continue
            elif key in LISTS_OF_NAMES and all(isinstance(name, str) for name in value or ()):
                value = [self._name(name) for name in value or ()]
            found.append((key, self._piece(value)))
        return found

    def _name(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


def _from_keras(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] in ("keras", "tensorflow", "numpy", "builtins")
