"""Who may share a program: pairs of models that differ in one thing, trained one after the other in one process."""

import gc
import re
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import layers, optimizers
from test_fit_parity import ONE_HOT, SPARSE, VALUE, X, Y, difference

from mlplab import programs, sharing, training
from mlplab.arrays import Arrays

Pair = Callable[[bool, int], keras.Model]
"""Makes the one or the other of two models, with so many hidden units."""


def mlp(units: int, optimizer: Any = "sgd", loss: Any = SPARSE, dense: Any = None, metrics: Any = None) -> keras.Model:
    """The model that all pairs are variations of."""
    inputs = keras.Input((8,))
    hidden = layers.Dense(units, **{"activation": "tanh", **(dense or {})})(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="last")(hidden))
    model.compile(optimizer, loss, metrics=metrics)
    return model


def policy(other: bool, units: int) -> keras.Model:
    return mlp(units, dense={"dtype": "mixed_bfloat16" if other else "float32"})


def decay(other: bool, units: int) -> keras.Model:
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    if other:
        optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return mlp(units, optimizer)


def decay_by_variable(other: bool, units: int) -> keras.Model:
    model = mlp(units)
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1 + other].kernel.value])
    model.compile(optimizer, SPARSE)
    return model


def names(other: bool, units: int) -> keras.Model:
    """The one layer or the other is spared, by its name; the optimizers are the same."""
    optimizer = optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["spared"])
    inputs = keras.Input((8,))
    hidden = layers.Dense(units, name=f"{'a' if other else 'spared'}_{units}")(inputs)
    model = keras.Model(
        inputs, layers.Dense(3, activation="softmax", name=f"{'spared' if other else 'b'}_{units}")(hidden)
    )
    model.compile(optimizer, SPARSE)
    return model


def regularizer(other: bool, units: int) -> keras.Model:
    model = mlp(units)
    model.layers[1].kernel.regularizer = keras.regularizers.L2(1.0) if other else None
    return model


def constraint(other: bool, units: int) -> keras.Model:
    model = mlp(units)
    model.layers[1].kernel.constraint = keras.constraints.MaxNorm(0.1) if other else None
    return model


def order_of_outputs(other: bool, units: int) -> keras.Model:
    inputs = keras.Input((8,))
    hidden = layers.Dense(units)(inputs)
    a, b = layers.Dense(3, name="a")(hidden), layers.Dense(3, name="b")(hidden)
    model = keras.Model(inputs, [b, a] if other else [a, b])
    model.compile("sgd", {"a": "mse", "b": "mae"})
    return model


def order_of_inputs(other: bool, units: int) -> keras.Model:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    outputs = layers.Dense(3, activation="softmax")(layers.Dense(units)(a) * 2.0 + layers.Dense(units)(b))
    model = keras.Model([b, a] if other else [a, b], outputs)
    model.compile("sgd", SPARSE)
    return model


def trainable(other: bool, units: int) -> keras.Model:
    model = mlp(units)
    model.layers[1].trainable = not other
    model.compile("sgd", SPARSE)
    return model


def wiring(other: bool, units: int) -> keras.Model:
    inputs = keras.Input((8,))
    one, two = layers.Dense(units)(inputs), layers.Dense(units)(inputs)
    outputs = layers.Dense(3, activation="softmax")(keras.ops.relu(one) * (one if other else two))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", SPARSE)
    return model


def set_by_hand(other: bool, units: int) -> keras.Model:
    model = mlp(units)
    if other:
        model.layers[1].activation = keras.activations.relu
    return model


def optimizer_set_by_hand(other: bool, units: int) -> keras.Model:
    model = mlp(units, optimizers.SGD(0.1, momentum=0.9))
    model.optimizer.momentum = 0.1 if other else 0.9
    return model


def closure(other: bool, units: int) -> keras.Model:
    factor = 3.0 if other else 1.0

    class Scale(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * factor

    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(Scale()(layers.Dense(units)(inputs))))
    model.compile("sgd", SPARSE)
    return model


FACTOR = 1.0


def _scaled(truth: Any, predicted: Any) -> Any:
    return FACTOR * keras.losses.sparse_categorical_crossentropy(truth, predicted)


def global_value(other: bool, units: int) -> keras.Model:
    global FACTOR
    FACTOR = 3.0 if other else 1.0
    return mlp(units, loss=_scaled)


def namesake(other: bool, units: int) -> keras.Model:
    """A class of the same name, which is Keras' own or not."""

    class Dense(layers.Dense):
        def call(self, x: Any, training: bool | None = None) -> Any:
            return super().call(x) * 2.0

    inputs = keras.Input((8,))
    hidden = (Dense if other else layers.Dense)(units)(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile("sgd", SPARSE)
    return model


def momentum_of_statistics(other: bool, units: int) -> keras.Model:
    inputs = keras.Input((8,))
    x = layers.BatchNormalization(momentum=0.1 if other else 0.9)(layers.Dense(units, use_bias=False)(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", SPARSE)
    return model


def weights_of_losses(other: bool, units: int) -> keras.Model:
    inputs = keras.Input((8,))
    hidden = layers.Dense(units)(inputs)
    model = keras.Model(inputs, [layers.Dense(3, name="a")(hidden), layers.Dense(3, name="b")(hidden)])
    model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 5.0] if other else [5.0, 1.0])
    return model


def seed(other: bool, units: int) -> keras.Model:
    inputs = keras.Input((8,))
    x = layers.Dropout(0.3, seed=7 if other else 5)(layers.Dense(units)(inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(optimizers.SGD(0.3 if other else 0.1), SPARSE)
    return model


def of_dense(**change: Any) -> Pair:
    return lambda other, units: mlp(units, dense=change if other else None)


PAIRS: dict[str, Pair] = {
    "dtype policy": policy,
    "variables without decay, by name": decay,
    "variables without decay": decay_by_variable,
    "names that an optimizer looks for": names,
    "a kernel's regularizer": regularizer,
    "a kernel's constraint": constraint,
    "order of outputs": order_of_outputs,
    "order of inputs": order_of_inputs,
    "trainable": trainable,
    "wiring": wiring,
    "activation": of_dense(activation="relu"),
    "no bias": of_dense(use_bias=False),
    "penalty": of_dense(kernel_regularizer="l2"),
    "an attribute set by hand": set_by_hand,
    "an optimizer's attribute set by hand": optimizer_set_by_hand,
    "momentum": lambda other, units: mlp(units, optimizers.SGD(0.1, momentum=0.9 * other)),
    "epsilon": lambda other, units: mlp(units, optimizers.Adam(0.1, epsilon=1.0 if other else 1e-7)),
    "a layer's closure": closure,
    "a loss's global value": global_value,
    "a class of the same name": namesake,
    "momentum of statistics": momentum_of_statistics,
    "loss": lambda other, units: mlp(
        units, loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=2 if other else None)
    ),
    "weights of losses": weights_of_losses,
    "metric": lambda other, units: mlp(
        units, metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2 if other else 1, name="top")]
    ),
    "seed and learning rate": seed,
}
TWO_OUTPUTS = ("order of outputs", "weights of losses")


def fitted(fit: Callable[..., Any], model: keras.Model, pair: str, **arguments: Any) -> dict[str, list[float]]:
    x: Any = {"a": X[:, :4], "b": X[:, 4:]} if pair == "order of inputs" else X
    y: Any = [ONE_HOT, ONE_HOT * VALUE] if pair in TWO_OUTPUTS else Y
    found: dict[str, list[float]] = fit(model, x, y, 15, shuffle=False, verbose=0, **arguments).history
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=2, phases=[Phase.generate])
@given(units=st.integers(2, 9), first=st.booleans(), program=st.sampled_from(["graph", "epoch"]))
def test_the_second_of_a_pair_is_trained_as_it_would_be_alone(pair: str, units: int, first: bool, program: str) -> None:
    """Whatever two models differ in, each comes to what its own `keras.Model.fit` comes to."""
    trained = []
    for other in (first, not first):
        keras.utils.set_random_seed(1)
        ours = PAIRS[pair](other, units)
        keras.utils.set_random_seed(1)
        theirs = PAIRS[pair](other, units)
        if pair == "seed and learning rate":
            program = "graph"  # Keras' own random numbers
        got, want = fitted(training.fit, ours, pair, program=program), fitted(keras.Model.fit, theirs, pair)
        assert difference(ours, theirs) <= 1e-5
        for key in want:
            np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-6)
        trained.append(theirs)
    if pair not in ("metric", "order of inputs"):  # that of the data follows by their names
        one, two = (np.concatenate([np.ravel(w) for w in model.get_weights()]) for model in trained)
        assert one.shape != two.shape or not np.array_equal(one, two), "the pair makes no difference"


@pytest.mark.parametrize(
    "pair", [pytest.param(pair, marks=pytest.mark.slow if place % 4 else ()) for place, pair in enumerate(PAIRS)]
)
def test_the_second_of_a_pair_is_trained_as_keras_trains_it(pair: str) -> None:
    """Compiled or not, whatever two models differ in is not passed on from the first to the second."""
    for other in (False, True):
        keras.utils.set_random_seed(1)
        ours = PAIRS[pair](other, 5)
        keras.utils.set_random_seed(1)
        theirs = PAIRS[pair](other, 5)
        theirs.run_eagerly = True
        fitted(training.fit, ours, pair, program="graph" if pair.startswith("seed") else "epoch")
        fitted(keras.Model.fit, theirs, pair)
        assert difference(ours, theirs) <= 1e-5


def description(model: keras.Model, mode: str = "train") -> str | None:
    arrays = Arrays((X, Y, None))
    programs.build(model, arrays)
    return sharing.description(model, sharing.variables(model, mode), mode, arrays.structure)


def test_models_of_one_kind_are_known_by_their_pieces() -> None:
    """Models whose variables alone have other values, and whose layers have other names, are the same."""
    assert description(seed(False, 4)) == description(seed(True, 4)) is not None


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != "seed and learning rate"])
def test_models_that_differ_have_other_pieces(pair: str) -> None:
    """What a pair differs in is among its pieces, or one of the two has parts whose pieces cannot be told."""
    one, two = (description(PAIRS[pair](other, 4)) for other in (False, True))
    assert one is None or two is None or one != two


def renamed(name: str) -> keras.Model:
    class Named(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {name: super().train_step(data)["loss"]}

    inputs = keras.Input((8,))
    model = Named(inputs, layers.Dense(3, activation="softmax")(inputs))
    model.compile("sgd", SPARSE)
    return model


@pytest.mark.parametrize("program", training.PROGRAMS[:3])
def test_logs_of_the_same_numbers_keep_their_own_names(program: str) -> None:
    """Two models whose steps differ in what they call their logs each call them their own."""
    for name in ("one", "another"):
        assert list(training.fit(renamed(name), X, Y, verbose=0, program=program).history) == [name]


def test_what_is_given_is_part_of_what_is_shared() -> None:
    """A program for labels is none for weights, though both are one array."""
    one, two = (Arrays(given) for given in ((X, Y, None), (X, None, Y)))
    assert one.structure != two.structure


def test_describing_a_model_changes_nothing() -> None:
    """A model that was described trains as if it had not been."""
    keras.utils.set_random_seed(1)
    ours = names(False, 4)
    keras.utils.set_random_seed(1)
    theirs = names(False, 4)
    description(ours)
    for model in (ours, theirs):
        model.fit(X, Y, shuffle=False, verbose=0)
    assert difference(ours, theirs) == 0


def test_a_program_does_not_keep_a_model_alive() -> None:
    """A model that nobody uses any more is forgotten, though its program is kept for others."""
    model = mlp(5)
    training.fit(model, X, Y, verbose=0, program="epoch")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert programs.shared()


def test_a_model_of_somebody_elses_parts_shares_what_is_traced_the_same() -> None:
    """Two models with a layer of somebody's own are traced, each, and run one program."""
    with programs.afresh():
        for _ in range(2):
            training.fit(closure(True, 4), X, Y, verbose=0, program="epoch")
        (name,) = programs.shared()
    assert re.fullmatch("[0-9a-f]{64}", name)
