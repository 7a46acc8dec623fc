"""What `mlplab.initial` promises: variants start equal where they agree, and the user's process is left as it was."""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplab import initial
from mlplab.checks import UsageError
from mlplab.results import paired

L = keras.layers


def made(function: Callable[..., keras.Model], seed: int = 1, **arguments: Any) -> keras.Model:
    """A model of a function, built and drawn."""
    with initial.building(seed) as drawn:
        model = function(**arguments)
    drawn.draw(model, seed)
    return model


def mlp(dropout: float = 0.0, norm: bool = False, last: int = 10, spectral: bool = False) -> keras.Model:
    model = keras.Sequential([keras.Input((12,))])
    for _ in range(2):
        model.add(L.Dense(16, activation="relu"))
        if norm:
            model.add(L.BatchNormalization())
        if dropout:
            model.add(L.Dropout(dropout))
    last_layer = L.Dense(last)
    model.add(L.SpectralNormalization(last_layer) if spectral else last_layer)
    return model


def cnn(dropout: float = 0.0, norm: bool = False) -> keras.Model:
    x = inputs = keras.Input((8, 8, 1))
    for filters in (4, 8):
        x = L.Conv2D(filters, 3, kernel_initializer="he_normal", use_bias=not norm)(x)
        x = L.BatchNormalization()(x) if norm else x
        x = L.SpatialDropout2D(dropout)(x) if dropout else x
    x = L.DepthwiseConv2D(2)(L.RandomFlip()(x) if dropout else x)
    return keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))


def sequences(dropout: float = 0.0, bias: str = "zeros") -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            L.Embedding(20, 8),
            *([L.SpatialDropout1D(dropout)] if dropout else []),
            L.Bidirectional(L.LSTM(4, return_sequences=True, dropout=dropout, bias_initializer=bias)),
            L.GRU(4, return_sequences=True, recurrent_dropout=dropout),
            L.RNN([L.LSTMCell(3), L.GRUCell(3)], return_sequences=True),
            L.SimpleRNN(4),
            L.Dense(2),
        ]
    )


def attention(dropout: float = 0.0) -> keras.Model:
    inputs = keras.Input((6, 8))
    x = inputs + L.MultiHeadAttention(2, 4, dropout=dropout)(inputs, inputs)
    x = L.LayerNormalization()(x)
    x = L.GroupQueryAttention(4, 4, 2, dropout=dropout)(x, x)
    x = L.EinsumDense("abc,cd->abd", (None, 3))(x)
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


def branches(first: float = 0.0, second: float = 0.0) -> keras.Model:
    inputs = keras.Input((8,))
    a, b = L.Dense(5, name="a")(inputs), L.Dense(5, name="b")(inputs)
    a = L.Dropout(first)(a) if first else a
    b = L.Dropout(second)(b) if second else b
    shared = L.Dense(5)
    a, b = shared(a), shared(b)
    return keras.Model(inputs, [L.Dense(2)(L.Concatenate()([a, b])), L.Dense(1)(b)])


def nested(dropout: float = 0.0) -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    inner = keras.Sequential([L.Dense(4), *([L.Dropout(dropout)] if dropout else []), L.Dense(4)])
    return keras.Model(inputs, L.Dense(2)(inner(cnn(dropout)(inputs))))


def by_hand(shape: Any, dtype: Any = None) -> Any:
    """A user's initializer that draws from every generator there is."""
    return random.gauss(0, 1) + np.random.normal(size=shape) + keras.random.normal(shape) + tf.random.normal(shape)


class Scale(keras.layers.Layer):  # type: ignore[misc]
    """A user's layer: weights with a name, without one, and one of its own making."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight((shape[-1],), "random_normal", name="scale")
        self.first = self.add_weight(shape=(shape[-1],), initializer=by_hand)
        self.second = self.add_weight(shape=(shape[-1],), initializer=by_hand)
        self.own = keras.Variable(keras.initializers.HeNormal(), shape=(shape[-1], 2))

    def call(self, x: Any) -> Any:
        return x * self.scale + self.first + self.second + keras.ops.sum(self.own)


class Lazy(keras.Model):  # type: ignore[misc]
    """A subclassed model that has variables once it is called."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = L.Dropout(dropout) if dropout else None
        self.blocks: Any = [[L.Dense(6), Scale()], {"a": L.Dense(6)}]
        self.head = L.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.blocks[0][1](self.blocks[0][0](x))
        x = self.drop(x, training=training) if self.drop else x
        return self.head(self.blocks[1]["a"](x))


def lazy(dropout: float = 0.0, symbolic: bool = True) -> keras.Model:
    model = Lazy(dropout)
    model(keras.KerasTensor((None, 4)) if symbolic else np.zeros((1, 4), "float32"))
    return model


VARIANTS: dict[str, tuple[Callable[..., keras.Model], dict[str, Any], dict[str, Any], set[str]]] = {
    "dropout": (mlp, {}, {"dropout": 0.3}, set()),
    "batch norm": (mlp, {"norm": True}, {"dropout": 0.3}, set()),
    "wider last layer": (mlp, {"last": 10}, {"last": 12, "dropout": 0.3}, {"Dense 3"}),
    "spectral normalization": (mlp, {}, {"spectral": True}, set()),
    "convolutions": (cnn, {}, {"dropout": 0.3, "norm": True}, set()),
    "sequences": (sequences, {}, {"dropout": 0.3}, set()),
    "random biases": (sequences, {"bias": "random_normal"}, {"bias": "random_normal", "dropout": 0.3}, set()),
    "attention": (attention, {}, {"dropout": 0.3}, set()),
    "branches": (branches, {"first": 0.3}, {"second": 0.3}, set()),
    "nested models": (nested, {}, {"dropout": 0.3}, set()),
    "built by a symbolic call": (lazy, {}, {"dropout": 0.3}, set()),
    "built by a call": (lazy, {"symbolic": False}, {"dropout": 0.3}, set()),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_start_equal_wherever_place_and_shape_agree(kind: str) -> None:
    """A choice changes the weights of no layer that both variants have; with another seed all random ones differ."""
    function, one, two, unlike = VARIANTS[kind]
    a, b = made(function, **one), made(function, **two)
    ours, theirs = initial.hashes(a), initial.hashes(b)
    assert len(ours) == len(a.weights)
    assert len(theirs) == len(b.weights)
    shared = ours.keys() & theirs.keys()
    assert {place: ours[place] for place in shared} == {place: theirs[place] for place in shared}
    kinds = {place.rsplit(" (")[0].rpartition(" ")[0] for place in initial.sizes(a)}
    assert {kind for kind in kinds if not any(place.startswith(f"{kind} ") for place in shared)} <= unlike | {
        f"BatchNormalization {i}" for i in (1, 2)
    }
    others = initial.hashes(made(function, 2, **one))
    matrices = [place for place in ours if place.count(",") > 1 or "kernel" in place or "embeddings" in place]
    assert all(ours[place] != others[place] for place in matrices)
    assert len({ours[place] for place in matrices}) == len(matrices) > 2


def test_dropout_in_a_branch_swaps_no_layers() -> None:
    """A layer starts equal by its part in the model, though Keras orders the layers of branches by their depth."""
    for first, second in ((0.3, 0.0), (0.0, 0.3)):
        one, other = made(branches), made(branches, first=first, second=second)
        for name in ("a", "b"):
            assert np.array_equal(one.get_layer(name).kernel, other.get_layer(name).kernel)


class Shift(keras.layers.Layer):  # type: ignore[misc]
    """A user's layer whose weight has no name."""

    def build(self, shape: Any) -> None:
        self.shift = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x: Any) -> Any:
        return x + self.shift


class OtherShift(Shift):
    """Another."""


def test_weights_without_names_have_places_of_their_own() -> None:
    """Keras numbers them through the whole model; here one in a layer before does not matter."""

    def model(before: bool = False) -> keras.Model:
        return keras.Sequential([keras.Input((3,)), *([OtherShift()] if before else []), Shift(), Shift()])

    ours, theirs = initial.hashes(made(model)), initial.hashes(made(model, before=True))
    assert list(ours) == ["Shift 1 variable (3,)", "Shift 2 variable (3,)"]
    assert theirs == {**theirs, **ours}


def test_without_drawing_a_dropout_layer_changes_the_kernels_after_it() -> None:
    """What the module is for: one global seed does not pair."""
    kernels = []
    for dropout in (0.0, 0.3):
        with initial.building(1):
            kernels.append(mlp(dropout).layers[-1].kernel.numpy())
    assert not np.array_equal(*kernels)


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "truncated_normal", "orthogonal", "lecun_uniform"])
def test_what_is_drawn_is_distributed_as_its_initializer_says(name: str) -> None:
    """A drawn kernel has the mean, spread and range of one that the initializer gives."""
    model = made(lambda: keras.Sequential([keras.Input((300,)), L.Dense(200, kernel_initializer=name)]))
    kernel = model.get_weights()[0]
    other = keras.initializers.get(name)((300, 200)).numpy()
    assert abs(kernel.mean()) < 4 * other.std() / np.sqrt(other.size)
    assert kernel.std() == pytest.approx(other.std(), rel=0.02)
    assert np.abs(kernel).max() == pytest.approx(np.abs(other).max(), rel=0.2)


def test_queries_keys_and_values_start_unequal() -> None:
    """Layers of one class and shape within one layer are drawn each for itself."""
    a, b, c = (initial.hashes(made(attention))[f"EinsumDense {i} kernel (8, 2, 4)"] for i in (1, 2, 3))
    assert len({a, b, c}) == 3


class Scaled(keras.initializers.RandomNormal):  # type: ignore[misc]
    """A user's initializer whose configuration does not tell its factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return super().__call__(shape, dtype) * self.factor


class Generated(keras.initializers.Initializer):  # type: ignore[misc]
    """A user's initializer with a generator of its own, made from its seed."""

    def __init__(self, seed: int | None = None) -> None:
        self.generator = np.random.default_rng(seed)
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return self.generator.normal(size=shape).astype(dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


INITIALIZERS: dict[str, Callable[[], Any]] = {
    "seed": lambda: keras.initializers.HeNormal(seed=3),
    "seed generator": lambda: keras.initializers.HeNormal(seed=keras.random.SeedGenerator(3)),
    "subclass": lambda: Scaled(100.0),
    "own generator": lambda: Generated(3),
    "function": lambda: by_hand,
    "holds another": lambda: lambda shape, dtype=None: keras.initializers.HeNormal(seed=3)(shape, dtype) * 2,
}


@pytest.mark.parametrize("kind", INITIALIZERS)
def test_any_initializer_is_drawn_by_seed_and_place(kind: str) -> None:
    """Of Keras, of a user's class or a function, with a seed or without: equal for (seed, place), else not."""

    def model(before: bool = False) -> keras.Model:
        layers = [L.Dropout(0.1), L.LayerNormalization()] if before else []
        dense = [L.Dense(30, kernel_initializer=INITIALIZERS[kind]()) for _ in range(2)]
        if before:
            by_hand((2,))  # of every generator
        return keras.Sequential([keras.Input((30,)), *layers, *dense])

    a, b, other = (
        [layer.kernel.numpy() for layer in made(model, seed, before=before).layers if isinstance(layer, L.Dense)]
        for seed, before in ((1, False), (1, True), (2, False))
    )
    assert np.array_equal(a, b)
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(a[0], other[0])
    assert np.std(a[0]) == pytest.approx(np.std(other[0]), rel=0.2)
    assert kind != "subclass" or np.std(a[0]) == pytest.approx(5, rel=0.2)


@pytest.mark.slow
def test_random_layers_begin_at_seed_and_place() -> None:
    """The generators of dropout layers, in cells and in attention too, depend on nothing before them."""

    def states(seed: int, **arguments: Any) -> list[list[int]]:
        model = made(lambda: keras.Sequential([keras.Input((6,), dtype="int32"), sequences(**arguments)]), seed)
        cells = [layer for layer in model._flatten_layers() if isinstance(layer, L.LSTMCell | L.GRUCell)]
        return [cell.seed_generator.state.numpy().tolist() for cell in cells]

    assert states(1) == states(1, dropout=0.3)
    assert len({tuple(state) for state in states(1) + states(2)}) == 2 * len(states(1)) == 10
    x = np.ones((4, 12), "float32")
    first, again, other = (made(mlp, seed, dropout=0.5)(x, training=True).numpy() for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_was_assigned_on_purpose_stays(tmp_path: Path) -> None:
    """Pretrained, restored and adapted weights are left as they are, and what is new beside them is drawn."""
    trained = mlp()
    trained.save_weights(tmp_path / "trained.weights.h5")

    def transfer(dropout: float = 0.0) -> keras.Model:
        base = mlp()
        base.load_weights(tmp_path / "trained.weights.h5")
        base.trainable = False
        scale = L.Normalization()
        scale.adapt(np.arange(24.0).reshape(2, 12))
        layers = [scale, base, *([L.Dropout(dropout)] if dropout else []), L.Dense(3)]
        return keras.Sequential([keras.Input((12,)), *layers])

    a, b, other = made(transfer), made(transfer, dropout=0.3), made(transfer, 2)
    for model in (a, b, other):
        assert all(map(np.array_equal, model.layers[1].get_weights(), trained.get_weights()))
        assert np.array_equal(model.layers[0].mean, [np.arange(6.0, 18.0)])
    assert np.array_equal(a.layers[-1].kernel, b.layers[-1].kernel)
    assert not np.array_equal(a.layers[-1].kernel, other.layers[-1].kernel)
    assert sum(initial.sizes(a).values()) == 33
    assert sum(initial.sizes(a, trainable=False).values()) > 600


def test_a_model_made_before_stays_and_a_model_may_be_drawn_again() -> None:
    """What was not made within `building` is not drawn; what was can be drawn with another seed, and then back."""
    before = mlp()
    weights = before.get_weights()
    with initial.building(1) as drawn:
        model = keras.Sequential([before, L.Dense(4)])
        model.build((None, 12))
    hashes = []
    for seed in (1, 2, 1):
        drawn.draw(model, seed)
        hashes.append(initial.hashes(model))
    assert all(map(np.array_equal, before.get_weights(), weights))
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_an_optimizer_and_metrics_hold_is_left_alone() -> None:
    """Of a compiled model the weights are drawn, and nothing else."""
    with initial.building(1) as drawn:
        model = mlp()
        model.compile("adam", "mse", metrics=["mae"])
        model.fit(np.ones((4, 12)), np.ones((4, 10)), verbose=0)
        held = [np.array(variable) for variable in (*model.optimizer.variables, *model.metrics_variables)]
    drawn.draw(model, 1)
    assert all(map(np.array_equal, held, (*model.optimizer.variables, *model.metrics_variables)))


PRECISIONS = {"mixed_float16": "float32", "mixed_bfloat16": "float32", "float64": "float64", "bfloat16": "bfloat16"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_has_its_precision_and_is_drawn_in_it(precision: str) -> None:
    """Layers have the policy, mixed ones start from the same weights as float32, and the process keeps its own."""
    with initial.building(1, precision) as drawn:
        model = mlp(norm=True)
    before = model.get_weights()[0]
    drawn.draw(model, 1)
    assert model.layers[0].dtype_policy.name == precision
    assert keras.config.dtype_policy().name == "float32"
    assert model.layers[0].kernel.dtype == PRECISIONS[precision]
    assert not np.array_equal(before, model.get_weights()[0])
    if "mixed" in precision:
        assert initial.hashes(model) == initial.hashes(made(mlp, norm=True))


def test_clear_session_within_a_model_of_some_precision_is_refused() -> None:
    """It would take the precision away in silence."""
    with pytest.raises(UsageError, match=r"'mixed_float16'.*clear_session\(\)"), initial.building(1, "mixed_float16"):
        keras.utils.clear_session()
        mlp()
    assert keras.config.dtype_policy().name == "float32"


def draws() -> list[Any]:
    """The next draws of this process, what Keras would call the next things, and its settings."""
    return [
        *(random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()),
        *(float(draw(())) for draw in (tf.random.normal, keras.random.normal, tf.random.get_global_generator().normal)),
        *(L.Dense(2).name, L.Dropout(0.1).seed_generator.state.numpy().tolist(), keras.Variable(1.0).name),
        *(keras.config.dtype_policy().name, keras.config.floatx(), keras.config.epsilon()),
        keras.config.is_traceback_filtering_enabled(),
    ]


def quiet() -> keras.Model:
    return mlp(dropout=0.1)


def noisy() -> keras.Model:
    """As users do who want the same each time."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    tf.random.set_global_generator(tf.random.Generator.from_seed(3))
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    keras.config.disable_traceback_filtering()
    draws()
    return mlp(dropout=0.1)


def failing() -> keras.Model:
    noisy()
    raise RuntimeError("mine")


@pytest.mark.parametrize("function", [quiet, noisy, failing])
def test_the_process_is_left_as_it_was(function: Callable[[], keras.Model]) -> None:
    """All random states, names and settings go on as if nothing had been built, whatever a function sets or raises."""

    def begin() -> None:
        keras.utils.clear_session()
        keras.utils.set_random_seed(11)
        tf.random.set_global_generator(tf.random.Generator.from_seed(11))
        draws()
        np.random.normal()  # which keeps another

    begin()
    expected = draws()
    begin()
    method = keras.Variable.__init__
    with pytest.raises(RuntimeError, match="mine") if function is failing else contextlib.nullcontext():
        made(function)
    made(sequences)
    assert keras.Variable.__init__ is method
    assert draws() == expected


def test_operations_with_seeds_of_their_own_go_on() -> None:
    """Building a model without TensorFlow's own random operations makes none of the process' operations anew."""
    keras.utils.set_random_seed(11)
    expected = [float(tf.random.normal((), seed=3)) for _ in range(3)]
    keras.utils.set_random_seed(11)
    found = [float(tf.random.normal((), seed=3))]
    for function in (mlp, sequences):
        made(function)
        found.append(float(tf.random.normal((), seed=3)))
    assert found == expected


def test_a_function_that_sets_seeds_itself_is_drawn_like_another() -> None:
    """`keras.utils.set_random_seed` in a model function takes neither the pairing nor the seed's effect away."""

    def seeded(dropout: float = 0.0) -> keras.Model:
        keras.utils.set_random_seed(7)
        return mlp(dropout)

    assert initial.hashes(made(seeded)) == initial.hashes(made(seeded, dropout=0.3)) == initial.hashes(made(mlp))
    assert initial.hashes(made(seeded)) != initial.hashes(made(seeded, 2))


def test_models_of_one_function_have_equal_names_whatever_was_built_before() -> None:
    """Keras' numbers begin anew at each build."""
    first, _, second = made(sequences), made(mlp), made(sequences)
    assert [variable.path for variable in first.variables] == [variable.path for variable in second.variables]


def test_what_cannot_be_drawn_is_the_same_at_each_build() -> None:
    """A variable made from an array of random numbers depends on the seed and on what was drawn before it."""

    def model() -> keras.Model:
        made = Lazy()
        made.table = keras.Variable(np.random.normal(size=4) + tf.random.normal((4,), seed=3))
        made(np.zeros((1, 4), "float32"))
        return made

    assert initial.hashes(made(model)) == initial.hashes(made(model)) != initial.hashes(made(model, 2))


FRESH = """
import random, keras, numpy as np, tensorflow as tf
import test_initial
states = random.getstate(), np.random.get_state()[1].tolist()
hashes = [test_initial.initial.hashes(test_initial.made(function, dropout=0.1)) for function in test_initial.FRESHLY]
assert states == (random.getstate(), np.random.get_state()[1].tolist())
assert keras.layers.Dense(2).name == "dense"
print(hashes, float(tf.random.normal(())), float(tf.random.get_global_generator().normal(())), sep="\\n")
"""
FRESHLY = (cnn, sequences, attention, lazy)


@pytest.mark.slow
def test_other_processes_draw_the_same_and_stay_as_random_as_they_were() -> None:
    """Weights are equal in every process, whatever Python's hash seed; what has no seed yet gets none."""
    folder = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder.parent}"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", FRESH], env={**environment, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        for seed in ("1", "2")
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    (hashes, *one), (others, *two) = (run.stdout.splitlines() for run in runs)
    assert hashes == others == str([initial.hashes(made(function, dropout=0.1)) for function in FRESHLY])
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_the_share_of_paired_weights_counts_elements() -> None:
    """It is the share of the second model's weights, the trainable ones or all, that are equal in the first."""
    narrow, wide = made(mlp, last=10), made(mlp, last=12)
    hashes = initial.hashes(narrow), initial.hashes(wide)
    assert paired(*hashes, initial.sizes(wide)) == (13 * 16 + 17 * 16) / wide.count_params()
    assert paired(hashes[0], hashes[0], initial.sizes(narrow)) == 1
    normed = made(mlp, norm=True)
    assert paired(hashes[0], initial.hashes(normed), initial.sizes(normed)) == 650 / (650 + 64)
    assert paired(hashes[0], initial.hashes(normed), initial.sizes(normed, trainable=False)) == 650 / (650 + 128)
    assert paired({}, {}, {}) == 1
