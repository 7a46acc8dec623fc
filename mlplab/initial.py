"""Initial weights: a model built under a fixed state, and each variable drawn anew from (seed, its place).

With one global seed, a dropout layer more changes every kernel made after it. Here variants start equal wherever their
variables agree in place and shape: build the model `with building(seed) as drawn`, then `drawn.draw(model, seed)`.
"""

import contextlib
import copy
import functools
import hashlib
import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.backend import config
from keras.src.backend.common import KerasVariable, global_state
from keras.src.backend.tensorflow import random as keras_random
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.models.functional import Functional
from keras.src.ops.function import _build_map
from keras.src.random.seed_generator import global_seed_generator
from keras.src.utils import naming
from tensorflow.python.eager import context
from tensorflow.python.framework import random_seed
from tensorflow.python.ops import stateful_random_ops

from mlplab.checks import UsageError

_get_seed, _draw_seed = random_seed.get_seed, keras_random.draw_seed
_alone = threading.RLock()  # held while the process' random states are others than the user's


@contextlib.contextmanager
def building(seed: int, precision: str | None = None) -> Iterator["Drawn"]:
    """Gives what is built meanwhile the same random states, names and precision whatever was built before.

    Afterwards all are as they were: the generators of Python, NumPy, Keras and TensorFlow, Keras' names and settings.
    Only where the function draws by `tf.random`, the process' own `tf.random.normal(shape, seed=3)` begins again.

    Args:
        seed: of the states; weights depend on it only where `Drawn.draw` cannot draw them.
        precision: the dtype policy, such as "mixed_float16"; None: the process' own.

    Raises:
        UsageError: `keras.utils.clear_session()` undid the precision.
    """
    drawn = Drawn()
    with _alone, _put_back():
        drawn._note()
        tracker = global_state.GLOBAL_STATE_TRACKER
        _begin(_derived(seed, "building"))
        global_seed_generator()  # Keras makes it on first use, and fails where that is in a symbolic call
        naming.reset_uids()
        keras.config.set_dtype_policy(precision or keras.config.dtype_policy())
        yield drawn
        if precision is not None and global_state.GLOBAL_STATE_TRACKER is not tracker:
            raise UsageError(
                f"precision is {precision!r}, but the model function calls keras.utils.clear_session(), and layers "
                "made after it do not have it; legal: a function without it. Take it out: names begin anew anyway."
            )


@dataclass
class _Made:
    variable: Any  # kept, so that no other gets its identity
    initializer: Any
    value: Any = None

    def first(self, *arguments: Any, **options: Any) -> Any:
        """Its initializer. A symbolic call takes placeholders from it first, and last what the variable is to have."""
        self.value = self.initializer(*arguments, **options)
        return self.value

    def untouched(self) -> bool:
        """Whether it still has what its initializer gave: what was restored or assigned is there on purpose."""
        now = np.asarray(self.variable.value)
        return np.asarray(self.value).astype(now.dtype, copy=False).tobytes() == now.tobytes()

    def again(self, seed: int) -> Any:
        """What its initializer gives for a seed."""
        initializer = self.initializer
        if isinstance(initializer, RandomInitializer):
            # Not by its configuration: a user's subclass may not have all of it there.
            initializer = copy.copy(initializer)
            initializer.seed = seed
        elif isinstance(initializer, keras.Initializer):
            with contextlib.suppress(Exception):  # one that does not come back from its configuration
                if "seed" in (held := initializer.get_config()):
                    initializer = type(initializer).from_config({**held, "seed": seed})
        if not type(initializer).__module__.startswith("keras."):
            _begin(seed)  # as it may draw by anything
        calls = itertools.count()  # it may hold others with seeds of their own: the function of an LSTM's bias does
        keras_random.draw_seed = lambda _: _draw_seed(_derived(seed, f"call {next(calls)}"))
        return initializer(tuple(self.variable.shape), dtype=self.variable.dtype)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Has whatever draws by a global seed, such as the order of the batches in Keras' own `fit`, begin at `seed`."""
    with _alone, _put_back():
        _begin(seed)
        yield


@dataclass
class Drawn:
    """The variables that were made while a model was built; it keeps their initial values until it is let go."""

    _made: dict[int, _Made] = field(default_factory=dict)

    def draw(self, model: keras.Model, seed: int) -> None:
        """Draws the weights of `model` anew, each by its own initializer from `seed` and its place.

        What was assigned since it was made, such as pretrained weights, stays, and so does what no initializer made.
        Random layers begin at (seed, place), too. Seeds that the model's own function gave do not count. It may be
        called again with another seed.
        """
        with _alone, _put_back():
            for place, variable in places(model).items():
                made = self._made.get(id(variable))
                if made is not None and made.untouched():
                    made.value = made.again(_derived(seed, place))
                    variable.assign(made.value)
            for name, layer, _ in _layers(model):
                for i, generator in enumerate(layer._seed_generators):
                    generator.state.assign([_derived(seed, f"{name} seed generator {i}"), 0])

    def _note(self) -> None:
        """Notes from now on each variable made by an initializer, through `add_weight` or not."""
        original = KerasVariable.__init__

        def noting(variable: Any, initializer: Any, *arguments: Any, **options: Any) -> None:
            initializer = keras.initializers.get(initializer) if isinstance(initializer, str) else initializer
            if callable(initializer):
                made = self._made[id(variable)] = _Made(variable, initializer)
                initializer = made.first
            original(variable, initializer, *arguments, **options)

        KerasVariable.__init__ = noting


def places(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of `model` by their places, such as "Dense 1 kernel (784, 128)".

    A place is the class of the innermost layer with the weight, the layer's ordinal in its class, the weight's name in
    the layer, and its shape. Layers of other classes, such as dropout, do not change it.
    """
    layers = list(_layers(model))
    owners: dict[int, tuple[int, str]] = {}
    for name, layer, depth in layers:
        for variable in layer.weights:
            if depth > owners.get(id(variable), (-1, ""))[0]:
                owners[id(variable)] = depth, name
    found: dict[str, keras.Variable] = {}
    for name, layer, _ in layers:
        names: Counter[str] = Counter()
        for variable in layer.weights:
            if owners[id(variable)][1] == name:
                own = re.sub(r"^variable_\d+$", "variable", variable.name)  # Keras numbers them through all layers
                names[own] += 1
                own = own if names[own] == 1 else f"{own} {names[own]}"
                found[f"{name} {own} {tuple(variable.shape)}"] = variable
    return found


def hashes(model: keras.Model) -> dict[str, str]:
    """The places of `model`, each with 16 hexadecimal digits of its weight's value."""
    values = {place: np.asarray(one.value).tobytes() for place, one in places(model).items()}
    return {place: hashlib.sha256(value).hexdigest()[:16] for place, value in values.items()}


def sizes(model: keras.Model, trainable: bool = True) -> dict[str, int]:
    """The places of `model`, each with its number of elements; `trainable`: of trainable weights alone."""
    counted = {id(variable) for variable in (model.trainable_weights if trainable else model.weights)}
    return {place: int(np.prod(tuple(one.shape))) for place, one in places(model).items() if id(one) in counted}


def _layers(model: keras.Model) -> Iterator[tuple[str, keras.Layer, int]]:
    """The model and the layers in it, each once and before those in it: name, layer and depth."""
    counts: Counter[str] = Counter()
    stack, met = [(model, 0)], set()
    while stack:
        layer, depth = stack.pop()
        if id(layer) not in met:
            met.add(id(layer))
            counts[kind := type(layer).__name__] += 1
            yield f"{kind} {counts[kind]}", layer, depth
            ranks = _ranks(layer) if isinstance(layer, Functional) else {}
            inner = sorted(layer._layers, key=lambda one: ranks.get(id(one), len(ranks)))
            stack.extend((one, depth + 1) for one in reversed(inner))


def _ranks(model: Functional) -> dict[int, int]:
    """The order of a functional model's layers, walking back from its outputs, branch by branch.

    Keras orders them by their depth, by which a dropout layer in one of two branches swaps the layers of both.
    """
    nodes, _ = _build_map(model.inputs, model.outputs)
    return {id(node.operation): rank for rank, node in reversed(list(enumerate(nodes)))}  # a shared layer's first


def _derived(seed: int, place: str) -> int:
    """A seed of 31 bits, the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed} {place}".encode()).digest()[:4], "big") >> 1


def _begin(seed: int) -> None:
    """What `keras.utils.set_random_seed` does, and more; to be put back.

    TensorFlow's random operations hold how far they have drawn and have to be made anew. As that makes anew each of the
    process' programs, in tenths of a second, it waits until one of them is used.
    """
    random.seed(seed)
    np.random.seed(seed)
    vars(global_state.GLOBAL_STATE_TRACKER).update(global_random_seed=seed, global_seed_generator=None)
    tensorflow = context.context()
    tensorflow._seed, tensorflow._rng = seed, random.Random(seed)
    stateful_random_ops.global_generator = stateful_random_ops.Generator.from_seed(seed, alg="philox")
    clear = functools.cache(tensorflow.clear_kernel_cache)
    random_seed.get_seed = lambda op_seed: (clear(), _get_seed(op_seed))[1]


@contextlib.contextmanager
def _put_back() -> Iterator[None]:
    """Puts the process' random states, names and settings back as they were, even after a `clear_session`."""
    python, numpys = random.getstate(), np.random.get_state(legacy=False)
    names = {global_state: "GLOBAL_STATE_TRACKER GLOBAL_SETTINGS_TRACKER", KerasVariable: "__init__"}
    names |= {config: "_FLOATX _EPSILON _IMAGE_DATA_FORMAT", keras_random: "draw_seed"}
    names |= {context.context(): "_seed _rng", stateful_random_ops: "global_generator", random_seed: "get_seed"}
    attributes = [(thing, name, getattr(thing, name, None)) for thing in names for name in names[thing].split()]
    # Copies of what they hold: Keras lists the variables that wait for their values, and would give them twice.
    trackers = [
        (
            vars(tracker),
            {name: copy.copy(held) if isinstance(held, list | dict) else held for name, held in vars(tracker).items()},
        )
        for thing, _, tracker in attributes
        if thing is global_state
    ]
    try:
        yield
    finally:
        for attribute in attributes:
            setattr(*attribute)
        for tracker, before in trackers:
            tracker.clear()
            tracker.update(before)
        np.random.set_state(numpys)
        random.setstate(python)
