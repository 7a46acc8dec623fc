"""What `mlplab.training` promises: Keras' results sooner, and Keras' own `fit` where it cannot give them."""

import csv
import functools
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlplab import programs, training

Data = tuple[np.ndarray, np.ndarray]
Make = Callable[[], keras.Model]

EXAMPLES = 230
"""Two batches of 100 and a smaller one."""
WHOLE = 46
"""A batch size without a smaller batch, which is compiled for itself: a fifth, a half of a share held out."""


@pytest.fixture(scope="session")
def data(digits: Data) -> Data:
    """What the models are trained on."""
    return digits[0][:EXAMPLES], digits[1][:EXAMPLES]


@pytest.fixture(scope="session")
def held_out(digits: Data) -> Data:
    """What they are validated on."""
    return digits[0][1000:1092], digits[1][1000:1092]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Grows by one entry each time a `train_step` is traced; starts without any program of another test."""
    seen: list[str] = []
    original = keras.Model.train_step

    def train_step(model: keras.Model, data: Any) -> Any:
        seen.append(model.name)
        return original(model, data)

    monkeypatch.setattr(keras.Model, "train_step", train_step)
    with programs.afresh():
        yield seen


@pytest.fixture
def _afresh() -> Iterator[None]:
    """Begins without any program, as a new process does; those of other tests are there again after the test."""
    with programs.afresh():
        yield


def mlp(
    *middle: Callable[[], Any],
    hidden: int = 12,
    activation: Any = "relu",
    optimizer: Callable[[], Any] = lambda: keras.optimizers.SGD(0.1),
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Any = ("accuracy",),
    seed: int = 3,
    features: int = 64,
    dense: dict[str, Any] | None = None,
    **compile_arguments: Any,
) -> keras.Model:
    """A compiled 64-12-10 perceptron with the layers `middle` before its last one; the same seed, the same weights."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((features,))
    x = keras.layers.Dense(hidden, activation=activation, **(dense or {}))(x)
    for layer in middle:
        x = layer()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", **(dense or {}))(x))
    metrics = metrics() if callable(metrics) else list(metrics)
    model.compile(optimizer(), loss, metrics=metrics, **compile_arguments)
    return model


def difference(model: keras.Model, other: keras.Model) -> float:
    """Norm of the difference of all weights over the norm of the second's."""
    ours, theirs = (np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (model, other))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def same_bits(model: keras.Model, other: keras.Model) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


def compiled_fit(model: keras.Model, *args: Any, **arguments: Any) -> keras.callbacks.History:
    """`training.fit` by a compiled epoch, where handing the training to Keras is a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="mlplab")
        return training.fit(model, *args, **{"verbose": 0, "program": "epoch", **arguments})


def assert_trains_as_keras(
    make: Make,
    x: Any,
    y: Any = None,
    *,
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list,
    within: float = 1e-5,
    **arguments: Any,
) -> tuple[keras.Model, keras.Model]:
    """Trains twins, one with mlplab and one with Keras, and compares weights and history."""
    ours, theirs = make(), make()
    arguments = {"batch_size": WHOLE, "shuffle": False, "verbose": 0, **arguments}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    got = compiled_fit(ours, x, y, callbacks=callbacks(), **arguments)
    arguments = {key: value for key, value in arguments.items() if key not in ("program", "clock")}
    # For a few steps Keras is quicker without tracing them; it computes the same.
    theirs.run_eagerly = arguments.get("batch_size") != 1
    want = theirs.fit(x, y, callbacks=callbacks(), **arguments)
    assert difference(ours, theirs) <= within
    assert got.epoch == want.epoch
    assert got.history.keys() == want.history.keys()
    for name, values in want.history.items():
        assert got.history[name] == pytest.approx(values, rel=1e-4, abs=1e-7), name
    return ours, theirs


# --------------------------------------------------------------------------------------------------- Keras' results

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2": {"dense": {"kernel_regularizer": keras.regularizers.L2(0.01)}},
    # Without biases: normalizing takes them out again, so that their gradients are rounding errors.
    "batch_norm": {"middle": [keras.layers.BatchNormalization], "dense": {"use_bias": False}},
}


BATCH_SIZES = (1, 100, EXAMPLES)


@pytest.mark.parametrize(
    ("optimizer", "kind", "batch_size"),
    # Every pair of an optimizer, a kind and a batch size occurs.
    [
        (o, list(KINDS)[(i + j) % 3], b)
        for i, o in enumerate(("sgd", "adam", "rmsprop"))
        for j, b in enumerate(BATCH_SIZES)
    ],
)
def test_an_epoch_ends_at_the_weights_and_history_of_keras(
    optimizer: str, kind: str, batch_size: int, data: Data, held_out: Data
) -> None:
    """One epoch in order gives Keras' weights, losses and metrics, whatever the optimizer, penalty or batch size."""
    arguments = dict(KINDS[kind])
    make = functools.partial(mlp, *arguments.pop("middle", []), optimizer=OPTIMIZERS[optimizer], **arguments)
    ours, theirs = assert_trains_as_keras(make, *data, batch_size=batch_size, validation_data=held_out)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == -(-EXAMPLES // batch_size)
    assert set(ours.history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


@settings(max_examples=3)
@given(
    examples=st.integers(1, 90),
    batch_size=st.integers(1, 100),
    epochs=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
@example(examples=1, batch_size=1, epochs=1, hidden=[1])
@example(examples=33, batch_size=32, epochs=2, hidden=[3])
def test_any_sizes_train_as_keras_trains_them(
    digits: Data, examples: int, batch_size: int, epochs: int, hidden: list[int]
) -> None:
    """Whatever the number of examples, batch size, epochs and widths, the weights are those of Keras."""
    # More steps than these cost Keras seconds.
    batch_size = max(batch_size, examples // 8)

    def make() -> keras.Model:
        middle = [functools.partial(keras.layers.Dense, units, activation="tanh") for units in hidden[1:]]
        return mlp(*middle, hidden=hidden[0])

    assert_trains_as_keras(make, digits[0][:examples], digits[1][:examples], batch_size=batch_size, epochs=epochs)


WEIGHTS = np.linspace(0, 2, EXAMPLES, dtype="float32")
SHARE = 0.4
"""Held out, it leaves whole batches, too."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "validation_split": {"validation_split": SHARE},
    "validation_split and sample_weight": {"validation_split": SHARE, "sample_weight": WEIGHTS},
    "sample_weight": {"sample_weight": WEIGHTS},
    "class_weight": {"class_weight": {label: 1.0 + label for label in range(10)}},
    "validation_freq": {"validation_split": SHARE, "validation_freq": 2, "epochs": 3},
    "epochs of validation": {"validation_split": SHARE, "validation_freq": [1, 3], "epochs": 3},
    "validation_batch_size": {"validation_split": SHARE, "validation_batch_size": 7},
    "initial_epoch": {"initial_epoch": 2, "epochs": 4},
    "no epoch left": {"initial_epoch": 2, "epochs": 2},
    "Keras' batch size": {"batch_size": None},
    "a batch above the examples": {"batch_size": 1_000},
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_an_argument_means_what_it_means_to_keras(case: str, data: Data) -> None:
    """Each argument of Keras' `fit` that says what is trained on gives Keras' result."""
    assert_trains_as_keras(mlp, *data, **ARGUMENTS[case])


def test_validation_weights_count(data: Data, held_out: Data) -> None:
    """Validation data of three parts are weighted as Keras weights them."""
    weights = np.linspace(0, 3, len(held_out[1]), dtype="float32")
    assert_trains_as_keras(
        functools.partial(mlp, weighted_metrics=["accuracy"]), *data, validation_data=(*held_out, weights)
    )


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, Any, dict[str, Any]]]] = {
    "uint8 pixels": lambda x, y: ((x * 16).astype("uint8"), y.astype("uint8"), {"optimizer": lambda: "adam"}),
    "float64": lambda x, y: (x.astype("float64"), y.astype("int64"), {}),
    "tensors": lambda x, y: (tf.constant(x), tf.constant(y), {}),
    "one-hot labels": lambda x, y: (x, np.eye(10, dtype="float32")[y], {"loss": "categorical_crossentropy"}),
    "labels in a column": lambda x, y: (x, y[:, None], {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_does_not_matter(form: str, data: Data) -> None:
    """Pixels, labels and tensors of every usual type train as with Keras."""
    x, y, arguments = FORMS[form](*data)
    assert_trains_as_keras(functools.partial(mlp, **arguments), x, y, validation_split=0.2)


@pytest.mark.parametrize("shape", ["list", "dict"])
def test_several_inputs_and_outputs_train_as_with_keras(shape: str, data: Data) -> None:
    """Lists and dicts of inputs and outputs train as with Keras, and each output's loss is Keras'."""
    x, y = data

    def make() -> keras.Model:
        keras.utils.set_random_seed(3)
        top, bottom = keras.Input((32,), name="top"), keras.Input((32,), name="bottom")
        joined = keras.layers.Concatenate()([keras.layers.Dense(6)(top), keras.layers.Dense(5)(bottom)])
        label = keras.layers.Dense(10, activation="softmax", name="label")(joined)
        parity = keras.layers.Dense(1, activation="sigmoid", name="parity")(joined)
        dicts = shape == "dict"
        model = keras.Model([top, bottom], {"label": label, "parity": parity} if dicts else [label, parity])
        losses = {"label": "sparse_categorical_crossentropy", "parity": "binary_crossentropy"}
        weights = {"label": 1.0, "parity": 0.3}
        pick = dict if dicts else lambda table: list(table.values())
        model.compile(keras.optimizers.SGD(0.1), loss=pick(losses), loss_weights=pick(weights))
        return model

    tops, bottoms, odd = x[:, :32], x[:, 32:], (y % 2).astype("float32")[:, None]
    inputs = {"top": tops, "bottom": bottoms} if shape == "dict" else [tops, bottoms]
    labels = {"label": y, "parity": odd} if shape == "dict" else [y, odd]
    # Equal batches: run eagerly, Keras weighs an output's loss by their sizes, and in a graph it does not.
    assert_trains_as_keras(make, inputs, labels, batch_size=46, validation_split=0.2)


def test_a_model_without_a_fixed_input_stays_open_to_any_batch_size(data: Data, held_out: Data) -> None:
    """A `Sequential` that learns its input shape from the data is not tied to a batch size by it."""

    def make() -> keras.Model:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.layers.Dense(10, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    ours, _ = assert_trains_as_keras(make, *data, validation_data=held_out)
    assert ours.input_shape == (None, 64)
    assert ours.predict(held_out[0][:7], verbose=0).shape == (7, 10)


def test_it_learns_real_digits(real_data_dir: Path) -> None:
    """An epoch over 20,000 images of MNIST gives a network that knows most of 2,000 others."""
    with np.load(real_data_dir / "mnist.npz") as file:
        images, labels = file["x_train"][:22_000].reshape(-1, 784), file["y_train"][:22_000]
    model = mlp(hidden=32, features=784, optimizer=lambda: keras.optimizers.Adam(0.002))
    images = images / np.float32(255)
    held = (images[20_000:], labels[20_000:])
    history = compiled_fit(
        model, images[:20_000], labels[:20_000], batch_size=100, validation_data=held, seed=1
    ).history
    assert history["val_accuracy"][-1] > 0.85


# ------------------------------------------------------------------------------------------------------- randomness


def test_the_same_seed_gives_the_same_bits(data: Data, held_out: Data) -> None:
    """Two trainings from one seed, shuffled and with dropout, end at equal weights and histories to the bit."""
    make = functools.partial(mlp, functools.partial(keras.layers.Dropout, 0.3, seed=5))
    one, other = make(), make()
    histories = [
        compiled_fit(m, *data, batch_size=32, epochs=2, seed=7, validation_data=held_out).history for m in (one, other)
    ]
    assert same_bits(one, other)
    assert histories[0] == histories[1]


def test_a_seed_of_keras_is_enough(data: Data) -> None:
    """Without a seed of its own the batch order follows `keras.utils.set_random_seed`, and moves on from fit to fit."""
    models = []
    for seed in (1, 1, 2):
        model = mlp()
        keras.utils.set_random_seed(seed)
        compiled_fit(model, *data, batch_size=32)
        models.append(model)
    assert same_bits(models[0], models[1])
    assert not same_bits(models[0], models[2])


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (1, 1)])
def test_an_epoch_takes_its_examples_in_the_order_of_its_seed_and_number(seed: int, epoch: int, data: Data) -> None:
    """Shuffled training is training in `batch_order(examples, seed, epoch)`, whatever epochs came before."""
    x, y = data
    order = training.batch_order(EXAMPLES, seed, epoch)
    ours, theirs = mlp(), mlp()
    compiled_fit(ours, x, y, batch_size=100, seed=seed, initial_epoch=epoch, epochs=epoch + 1)
    theirs.fit(x[order], y[order], batch_size=100, shuffle=False, verbose=0)
    assert difference(ours, theirs) <= 1e-5


def test_a_batch_order_is_a_permutation_of_its_own_for_every_seed_and_epoch() -> None:
    """Every order holds each example once, and seeds and epochs have different orders."""
    orders = [training.batch_order(1_000, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(np.array_equal(np.sort(order), np.arange(1_000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 9
    assert all(order.dtype == np.int32 for order in orders)


# ------------------------------------------------------------------------------------------- programs and who shares


def test_an_epoch_after_the_first_traces_nothing(traces: list[str], data: Data, held_out: Data) -> None:
    """A step is traced once, when the first epoch starts, for full batches and the rest."""
    started_with: list[int] = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: started_with.append(len(traces)))
    model = mlp()
    compiled_fit(model, *data, batch_size=100, epochs=3, validation_data=held_out, callbacks=[count])
    compiled_fit(model, *data, batch_size=100, epochs=1, validation_data=held_out)
    assert started_with == [0, 1, 1]
    assert len(traces) == 1
    assert len(programs.shared()) == 2


def test_models_that_differ_in_values_share_a_program_and_keep_their_results(traces: list[str], data: Data) -> None:
    """Another learning rate, seed and weights cost no tracing, and give the bits that an own program gives."""

    def make(rate: float, seed: int) -> keras.Model:
        dropout = functools.partial(keras.layers.Dropout, 0.2, seed=seed)
        return mlp(dropout, optimizer=lambda: keras.optimizers.SGD(rate, momentum=0.5), seed=seed)

    first = make(0.1, 1)
    compiled_fit(first, *data, batch_size=100, seed=1)
    before, traced = first.get_weights(), len(traces)
    shared = make(0.3, 2)
    compiled_fit(shared, *data, batch_size=100, seed=1)
    assert len(traces) == traced
    assert len(programs.shared()) == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, first.get_weights(), strict=True))

    alone = make(0.3, 2)
    with programs.afresh():
        compiled_fit(alone, *data, batch_size=100, seed=1)
    assert len(traces) == 2 * traced
    assert same_bits(shared, alone)
    assert np.array_equal(shared.optimizer.variables[2], alone.optimizer.variables[2])


def _frozen() -> keras.Model:
    model = mlp()
    model.layers[1].trainable = False
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _frozen_variable() -> keras.Model:
    model = mlp()
    model.layers[1].kernel.trainable = False
    return model


def _changed_by_hand() -> keras.Model:
    model = mlp()
    model.optimizer.momentum = 0.5
    return model


def _wired(swapped: bool) -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    low, high = keras.ops.relu(inputs - 0.2), keras.ops.relu(inputs - 0.6)
    outputs = keras.layers.Dense(10, activation="softmax")((low - high) * (low if swapped else high))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


DROPOUT = [functools.partial(keras.layers.Dropout, 0.0)]

DIFFERENT: dict[str, tuple[Make, Make]] = {
    "momentum": (mlp, lambda: mlp(optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9))),
    "momentum set by hand": (mlp, _changed_by_hand),
    "l2": (mlp, lambda: mlp(dense={"kernel_regularizer": keras.regularizers.L2(0.1)})),
    "activation": (mlp, lambda: mlp(activation="tanh")),
    "loss": (mlp, lambda: mlp(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=3))),
    "metrics": (mlp, lambda: mlp(metrics=("sparse_top_k_categorical_accuracy",))),
    "a frozen layer": (mlp, _frozen),
    "a frozen variable": (mlp, _frozen_variable),
    "averaged weights": (mlp, lambda: mlp(optimizer=lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))),
    "clipping": (mlp, lambda: mlp(optimizer=lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1))),
    "a schedule": (
        lambda: mlp(optimizer=lambda: keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.1))),
        lambda: mlp(optimizer=lambda: keras.optimizers.SGD(keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.9))),
    ),
    "wiring": (lambda: _wired(False), lambda: _wired(True)),
}


def by_turns(cases: Iterable[str]) -> list[tuple[str, str]]:
    """Cases with a kind of program: whose step it is does not depend on what it is compiled to, so most are not."""
    return [(case, "epoch" if place % 4 == 0 else "graph") for place, case in enumerate(cases)]


@pytest.mark.parametrize(("case", "program"), by_turns(DIFFERENT))
def test_models_that_compute_differently_do_not_share(case: str, program: str, traces: list[str], data: Data) -> None:
    """A model trained after one that differs in more than values is traced for itself and trains as with Keras."""
    first, second = DIFFERENT[case]
    compiled_fit(first(), *data, batch_size=115, shuffle=False, program=program)
    assert len(traces) == 1
    assert_trains_as_keras(second, *data, batch_size=115, program=program)
    assert len(programs.shared()) == 2


def test_models_that_drop_differently_do_not_share(traces: list[str], data: Data) -> None:
    """Another dropout rate is another program."""
    for rate in (0.1, 0.5):
        compiled_fit(mlp(functools.partial(keras.layers.Dropout, rate)), *data, batch_size=115)
    assert len(traces) == len(programs.shared()) == 2


# Things of the user's own: equal in name and configuration, but not in what they do.


def _own_layer(factor: float) -> keras.Model:
    class Scale(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * factor

    return mlp(Scale)


def _own_operation(factor: float) -> keras.Model:
    class Scale(keras.Operation):
        def call(self, x: Any) -> Any:
            return x * factor

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    return mlp(Scale)


def _own_loss(factor: float) -> keras.Model:
    def sparse_categorical_crossentropy(y: Any, predicted: Any) -> Any:
        return factor * keras.losses.sparse_categorical_crossentropy(y, predicted)

    return mlp(loss=sparse_categorical_crossentropy)


def _own_metric(factor: float) -> keras.Model:
    def accuracy(y: Any, predicted: Any) -> Any:
        return factor * keras.metrics.sparse_categorical_accuracy(y, predicted)

    return mlp(metrics=(accuracy,))


def _own_activation(factor: float) -> keras.Model:
    def relu(x: Any) -> Any:
        return keras.activations.relu(x) * factor

    return mlp(activation=relu)


def _own_regularizer(factor: float) -> keras.Model:
    class L2(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            return factor * 0.01 * keras.ops.sum(x * x)

        def get_config(self) -> dict[str, Any]:
            return {}

    return mlp(dense={"kernel_regularizer": L2()})


def _own_constraint(factor: float) -> keras.Model:
    class Shrink(keras.constraints.Constraint):
        def __call__(self, x: Any) -> Any:
            return x * (0.9 / factor)

        def get_config(self) -> dict[str, Any]:
            return {}

    return mlp(dense={"kernel_constraint": Shrink()})


def _own_schedule(factor: float) -> keras.Model:
    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.1 * factor

        def get_config(self) -> dict[str, Any]:
            return {}

    return mlp(optimizer=lambda: keras.optimizers.SGD(Schedule()))


def _own_optimizer(factor: float) -> keras.Model:
    class SGD(keras.optimizers.SGD):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
            super().update_step(gradient * factor, variable, learning_rate)

    return mlp(optimizer=lambda: SGD(0.1))


def _own_train_step(factor: float) -> keras.Model:
    class Model(keras.Model):
        def train_step(self, data: Any) -> Any:
            return _step(self, data, factor)

    keras.utils.set_random_seed(3)
    inputs = keras.Input((64,))
    model = Model(inputs, keras.layers.Dense(10, activation="softmax")(inputs))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _step(model: keras.Model, data: Any, factor: float) -> Any:
    x, y = data
    with tf.GradientTape() as tape:
        predicted = model(x, training=True)
        loss = factor * model.compute_loss(x, y, predicted)
    model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    model._loss_tracker.update_state(loss)
    return model.compute_metrics(x, y, predicted)


def _train_step_put_in(factor: float) -> keras.Model:
    model = mlp()
    model.train_step = types.MethodType(functools.partial(_step, factor=factor), model)
    return model


def _train_step_put_in_as_partial(factor: float) -> keras.Model:
    model = mlp()
    model.train_step = functools.partial(_step, model, factor=factor)
    return model


def _normalized(features: int, factor: float) -> keras.Model:
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(factor, factor, (50, features)))
    return mlp(lambda: normalization, hidden=features)


OWN: dict[str, Callable[[float], keras.Model]] = {
    "layer": _own_layer,
    "operation": _own_operation,
    "loss named like a Keras loss": _own_loss,
    "metric named like a Keras metric": _own_metric,
    "activation named like a Keras activation": _own_activation,
    "regularizer": _own_regularizer,
    "constraint": _own_constraint,
    "schedule": _own_schedule,
    "optimizer": _own_optimizer,
    "train_step of a subclass": _own_train_step,
    "train_step put into a model": _train_step_put_in,
    "train_step put in as a partial": _train_step_put_in_as_partial,
    "few numbers that a layer adapted to": functools.partial(_normalized, 20),
    "many numbers that a layer adapted to": functools.partial(_normalized, 150),
}


@pytest.mark.parametrize(("case", "program"), by_turns(OWN))
def test_a_part_of_its_own_is_never_taken_for_another(case: str, program: str, data: Data) -> None:
    """What a configuration leaves out decides who shares: the second of two models trains as with Keras."""
    compiled_fit(OWN[case](1.0), *data, batch_size=115, shuffle=False, program=program)
    assert_trains_as_keras(functools.partial(OWN[case], 3.0), *data, batch_size=115, program=program)


def test_a_model_compiled_again_is_traced_again(data: Data) -> None:
    """After `compile` with another loss of the user's own, the same model and optimizer train with the new loss."""
    model, optimizer = mlp(), keras.optimizers.SGD(1e-6)
    losses = []
    for factor in (1, 100):
        # A lambda keeps its factor to itself.
        model.compile(optimizer, lambda y, p, f=factor: f * keras.losses.sparse_categorical_crossentropy(y, p))
        losses += compiled_fit(model, *data, batch_size=115).history["loss"]
    assert losses[1] == pytest.approx(100 * losses[0], rel=1e-3)


@pytest.mark.usefixtures("_afresh")
def test_a_program_thrown_out_can_be_made_again(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one program, models that take turns train on."""
    monkeypatch.setattr(programs, "PROGRAMS_KEPT", 1)
    # silu brings a gradient of its own, which TensorFlow registers by name and only once.
    first, second = (mlp(activation="silu", hidden=hidden) for hidden in (5, 6))
    for model in (first, second, first, second):
        compiled_fit(model, *data, batch_size=115)
    assert int(first.optimizer.iterations) == 4
    assert len(programs.shared()) == 1


def test_compiling_changes_no_variable(traces: list[str], data: Data, held_out: Data) -> None:
    """Warming up leaves weights, optimizer slots, seeds and metrics as they were, to the bit."""
    middle = [keras.layers.BatchNormalization, functools.partial(keras.layers.Dropout, 0.5)]
    model = mlp(*middle, optimizer=lambda: keras.optimizers.Adam(0.01))
    compiled_fit(model, *data, batch_size=115)

    def state() -> list[np.ndarray]:
        every = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
        return [variable.numpy() for variable in every]

    before = state()
    assert any("seed" in variable.path for variable in model.variables), "the dropout's seed is among them"
    traced = len(programs.shared())
    clock = training.Clock()
    compiled_fit(model, *data, batch_size=50, epochs=0, validation_data=held_out, clock=clock)
    assert len(programs.shared()) == traced + 2
    assert clock.compile_seconds > 0
    assert all(np.array_equal(a, b) for a, b in zip(before, state(), strict=True))


# ---------------------------------------------------------------------------------------------------------- dropout


class Recorder(keras.layers.Layer):
    """Passes its input on and keeps every training batch of it."""

    def __init__(self, steps: int, *batch: int) -> None:
        super().__init__()
        self.kept = (steps, *batch)

    def build(self, _: Any) -> None:
        self.seen = self.add_weight(shape=self.kept, initializer="zeros", trainable=False)
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.seen.assign(tf.tensor_scatter_nd_update(self.seen.value, [[self.count.value]], [x]))
            self.count.assign(self.count + 1)
        return x


def _recorded(rate: float, seed: int = 1) -> np.ndarray:
    """What a dropout layer makes of ones in two epochs of three batches: shape (6, 100, 40)."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((40,))
    recorder = Recorder(6, 100, 40)
    x = recorder(keras.layers.Dropout(rate, seed=seed)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse")
    compiled_fit(model, np.ones((300, 40), "float32"), np.zeros(300, "float32"), batch_size=100, epochs=2)
    assert int(recorder.count) == 6
    return recorder.seen.numpy()


@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_dropout_drops_the_stated_share_and_scales_the_rest(rate: float) -> None:
    """The share of zeros is the rate, in every step, and what is kept is divided by one minus the rate."""
    seen = _recorded(rate)
    assert (seen == 0).mean() == pytest.approx(rate, abs=0.012)
    assert (seen == 0).mean((1, 2)) == pytest.approx(rate, abs=0.03)
    assert (seen == 0).mean((0, 1)) == pytest.approx(rate, abs=0.1)
    assert seen[seen > 0] == pytest.approx(1 / (1 - rate), rel=1e-6)


def test_dropout_differs_from_step_to_step_epoch_to_epoch_and_seed_to_seed() -> None:
    """No two steps of two epochs drop the same, nor do the images of one step, nor do two seeds."""
    seen, other = _recorded(0.3), _recorded(0.3, seed=2)
    assert np.array_equal(seen, _recorded(0.3))
    masks = [step.tobytes() for step in (*seen, *other)]
    assert len(set(masks)) == len(masks)
    assert len({image.tobytes() for image in seen[0]}) == 100
    # Two independent masks agree in a share of 0.7² + 0.3².
    assert (seen[0] == seen[3]).mean() == pytest.approx(0.58, abs=0.03)


@pytest.mark.slow
def test_a_model_with_dropout_stays_a_plain_keras_model(data: Data, tmp_path: Path) -> None:
    """After training the layer is Keras' own again, and the saved model loads where there is no mlplab."""
    model = mlp(functools.partial(keras.layers.Dropout, 0.3))
    compiled_fit(model, *data, batch_size=115)
    layer = model.layers[2]
    assert type(layer) is keras.layers.Dropout
    assert "call" not in vars(layer)
    assert np.array_equal(layer(np.ones((4, 4), "float32"), training=False), np.ones((4, 4)))
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=data[0][:20], wanted=model.predict(data[0][:20], verbose=0))
    script = """if True:
        import sys, keras, numpy as np
        model, data = keras.models.load_model("model.keras"), np.load("data.npz")
        assert type(model.layers[2]) is keras.layers.Dropout and model.layers[2].rate == 0.3
        assert np.allclose(model.predict(data["x"], verbose=0), data["wanted"], atol=1e-6)
        model.fit(data["x"], np.zeros(20), verbose=0)
        assert "mlplab" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------------------------------------- callbacks

FAST = functools.partial(mlp, optimizer=lambda: keras.optimizers.SGD(2.0))
"""Learns so fast that its validation loss soon goes up and down."""

CALLBACKS: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
    "EarlyStopping": lambda: [keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)],
    "LearningRateScheduler": lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + epoch))],
    "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=0)],
    "two at once": lambda: [
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=0),
        keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=2, restore_best_weights=True),
    ],
}


@pytest.mark.parametrize("case", CALLBACKS)
def test_callbacks_of_epochs_steer_as_with_keras(case: str, data: Data, held_out: Data) -> None:
    """Callbacks that stop, restore or change the rate give Keras' epochs, history, weights and last rate."""
    ours, theirs = assert_trains_as_keras(
        FAST, *data, callbacks=CALLBACKS[case], epochs=8, batch_size=100, validation_data=held_out, within=1e-4
    )
    rates = [float(model.optimizer.learning_rate) for model in (ours, theirs)]
    assert rates[0] == pytest.approx(rates[1])
    plain = FAST()
    compiled_fit(plain, *data, batch_size=100, shuffle=False, epochs=8)
    assert difference(ours, plain) > 0.01, "the callback made no difference, so the test shows nothing"


def test_the_scheduled_rate_is_the_rate_of_the_step(data: Data) -> None:
    """A rate of zero from the second epoch on keeps the weights of the first."""
    one, three = mlp(), mlp()
    stop = keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.1 if epoch == 0 else 0.0)
    compiled_fit(one, *data, batch_size=100, shuffle=False)
    compiled_fit(three, *data, batch_size=100, shuffle=False, epochs=3, callbacks=[stop])
    assert same_bits(one, three)


def test_callbacks_that_write_files_write_what_they_write_with_keras(
    data: Data, held_out: Data, tmp_path: Path
) -> None:
    """The best checkpoint and the CSV log hold what they hold with Keras."""
    folders = iter([tmp_path / "ours", tmp_path / "theirs"])

    def callbacks() -> list[keras.callbacks.Callback]:
        folder = next(folders)
        folder.mkdir()
        best = keras.callbacks.ModelCheckpoint(folder / "best.keras", monitor="val_loss", save_best_only=True)
        every = keras.callbacks.ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True)
        return [best, every, keras.callbacks.CSVLogger(folder / "log.csv")]

    arguments = {"epochs": 4, "batch_size": 100, "validation_data": held_out}
    assert_trains_as_keras(FAST, *data, callbacks=callbacks, within=1e-4, **arguments)
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == sorted(
        p.name for p in (tmp_path / "theirs").iterdir()
    )
    ours, theirs = (keras.models.load_model(tmp_path / whose / "best.keras") for whose in ("ours", "theirs"))
    assert difference(ours, theirs) <= 1e-4
    logs = [list(csv.DictReader((tmp_path / whose / "log.csv").open())) for whose in ("ours", "theirs")]
    assert len(logs[0]) == len(logs[1]) == 4
    for row, wanted in zip(*logs, strict=True):
        assert row.keys() == wanted.keys()
        assert [float(row[k]) for k in wanted] == pytest.approx([float(v) for v in wanted.values()], rel=1e-3)


def test_a_training_that_broke_off_goes_on_where_its_backup_is(data: Data, tmp_path: Path) -> None:
    """`BackupAndRestore` resumes at the epoch after the last whole one and ends where an unbroken training ends."""

    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    def backup() -> keras.callbacks.Callback:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    make = functools.partial(mlp, optimizer=OPTIMIZERS["momentum"])
    with pytest.raises(KeyboardInterrupt):
        compiled_fit(make(), *data, batch_size=100, epochs=4, seed=1, callbacks=[backup(), Break()])
    resumed, unbroken = make(), make()
    history = compiled_fit(resumed, *data, batch_size=100, epochs=4, seed=1, callbacks=[backup()])
    compiled_fit(unbroken, *data, batch_size=100, epochs=4, seed=1)
    assert history.epoch == [2, 3]
    assert same_bits(resumed, unbroken)


class Witness(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []
        hooks = ["train_begin", "train_end", "test_begin", "test_end"]
        for hook in hooks:
            setattr(self, f"on_{hook}", lambda logs=None, hook=hook: self._note(hook, None, logs))
        for hook in ["epoch_begin", "epoch_end"]:
            setattr(self, f"on_{hook}", lambda epoch, logs=None, hook=hook: self._note(hook, epoch, logs))

    def _note(self, hook: str, epoch: int | None, logs: dict[str, float] | None) -> None:
        assert all(type(value) is float for value in (logs or {}).values())
        self.events.append((hook, epoch, tuple(sorted(logs or {}))))


def test_callbacks_are_called_when_and_with_what_keras_calls_them(data: Data, held_out: Data) -> None:
    """A callback sees Keras' sequence of events, the numbers of the epochs and the names in the logs."""
    ours, theirs = Witness(), Witness()
    arguments = {"batch_size": 100, "epochs": 3, "validation_data": held_out, "validation_freq": 2, "verbose": 0}
    compiled_fit(mlp(), *data, callbacks=[ours], **arguments)
    mlp().fit(*data, callbacks=[theirs], **arguments)
    assert ours.events == theirs.events


def test_a_callback_list_is_taken_as_it_is(data: Data) -> None:
    """A `CallbackList` made by the caller is called, and gives the history it holds."""
    model, witness = mlp(), Witness()
    hooks = keras.callbacks.CallbackList([witness], add_history=True, model=model, epochs=1, steps=3, verbose=0)
    history = compiled_fit(model, *data, batch_size=100, callbacks=hooks)
    assert [event[0] for event in witness.events] == ["train_begin", "epoch_begin", "epoch_end", "train_end"]
    assert set(history.history) == {"loss", "accuracy"}


def test_progress_is_shown_when_asked_for(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    """`verbose=2` prints a line an epoch with its loss, and `verbose=0` prints nothing."""
    compiled_fit(mlp(), *data, batch_size=100, epochs=2, verbose=2)
    assert capsys.readouterr().out.count("loss:") == 2
    compiled_fit(mlp(), *data, batch_size=100, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


# --------------------------------------------------------------------------------------------- what is left to Keras


class OnStrings(keras.layers.Layer):
    """Writes numbers down and takes their lengths, which XLA does not know how to do."""

    def call(self, x: Any) -> Any:
        return x + 0.01 * tf.cast(tf.strings.length(tf.strings.as_string(x, precision=1)), x.dtype)


def _without_xla() -> keras.Model:
    model = mlp()
    model.layers[1].supports_jit = False
    return model


def _logs_of_any_shape() -> keras.Model:
    model = mlp()

    def train_step(data: Any) -> Any:
        _step(model, data, 1.0)
        return {"first": tf.numpy_function(lambda y: y[0], [data[1]], tf.int32)}

    model.train_step = train_step
    return model


class Checked(keras.layers.Layer):
    """Raises where a number is not finite, which XLA leaves out."""

    def call(self, x: Any) -> Any:
        return tf.debugging.check_numerics(x, "not finite")


class Noisy(keras.layers.Layer):
    """Draws from TensorFlow's own state, which XLA does not have."""

    def call(self, x: Any) -> Any:
        return x + 0.0 * tf.random.normal(tf.shape(x))


def _own_logs() -> keras.Model:
    model = mlp()

    def train_step(data: Any) -> Any:
        return {"what I call it": _step(model, data, 1.0)["loss"]}

    model.train_step = train_step
    return model


class OfBatches(keras.callbacks.Callback):
    """Is called for each batch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches = batch + 1


def _generated(x: np.ndarray, y: np.ndarray) -> Iterator[Data]:
    yield from zip(np.split(x, 10), np.split(y, 10), strict=True)


LEFT_TO_KERAS: dict[str, tuple[str, Make, Callable[[Any, Any], tuple[Any, ...]], dict[str, Any]]] = {
    "a data set": (
        "the data are .*Dataset",
        mlp,
        lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(100),),
        {"batch_size": None},
    ),
    "a callback of batches": (
        "callback OfBatches is called for batches",
        mlp,
        lambda x, y: (x, y),
        {"callbacks": lambda: [OfBatches()]},
    ),
    "a checkpoint of batches": (
        "callback ModelCheckpoint",
        mlp,
        lambda x, y: (x, y),
        {"callbacks": lambda: [keras.callbacks.ModelCheckpoint("never.keras", save_freq=1_000)]},
    ),
    "steps_per_epoch": ("steps_per_epoch", mlp, lambda x, y: (x, y), {"steps_per_epoch": 2}),
    "an eager model": ("eager", lambda: mlp(run_eagerly=True), lambda x, y: (x, y), {}),
    "logs of any shape": ("a loop over its steps fails", _logs_of_any_shape, lambda x, y: (x, y), {}),
}


@pytest.mark.parametrize("case", LEFT_TO_KERAS)
def test_what_cannot_be_compiled_is_trained_by_keras_and_said(case: str, data: Data) -> None:
    """A warning says why, the result is Keras' own, and the clock still has an entry an epoch."""
    reason, make, form, arguments = LEFT_TO_KERAS[case]
    clock = training.Clock()
    ours, theirs = make(), make()
    arguments = {"batch_size": 100, "epochs": 2, "shuffle": False, "verbose": 0, **arguments}
    own = arguments.pop("callbacks", list)
    began: list[Any] = []

    def callbacks() -> list[Any]:
        noted = keras.callbacks.LambdaCallback(
            on_train_begin=lambda _: began.append("training"), on_epoch_begin=lambda epoch, _: began.append(epoch)
        )
        return [*own(), noted]

    inputs = form(*data)
    with pytest.warns(UserWarning, match=f"keras.Model.fit.*{reason}") as caught:
        got = training.fit(ours, *inputs, callbacks=callbacks(), clock=clock, **arguments)
    assert [w.filename for w in caught if "mlplab" in str(w.message)] == [__file__], "the warning points at the caller"
    want = theirs.fit(*inputs, callbacks=callbacks(), **arguments)
    assert difference(ours, theirs) <= 1e-7
    assert got.history.keys() == want.history.keys()
    for name, values in want.history.items():
        np.testing.assert_allclose(np.asarray(got.history[name]), np.asarray(values), rtol=1e-6)
    assert len(clock.train_seconds) == 2
    assert clock.program == "keras"
    assert clock.compile_seconds == 0
    assert began == 2 * ["training", 0, 1], "no callback is called twice"


WITHOUT_XLA: dict[str, tuple[Make, dict[str, Any]]] = {
    "a layer": (_without_xla, {}),
    "an operation": (lambda: mlp(OnStrings), {}),
    "an operation and class_weight": (
        lambda: mlp(OnStrings),
        {"class_weight": {label: 1.0 + label for label in range(10)}},
    ),
    "a check of numbers": (lambda: mlp(Checked), {}),
    "a random operation of TensorFlow's own": (lambda: mlp(Noisy), {}),
}


@pytest.mark.parametrize("program", ["epoch", "steps"])
@pytest.mark.parametrize("case", WITHOUT_XLA)
def test_what_xla_cannot_compile_or_does_otherwise_is_not_compiled(case: str, program: str, data: Data) -> None:
    """A step that XLA does not know, or whose checks or draws it changes, runs as TensorFlow runs it for Keras."""
    make, arguments = WITHOUT_XLA[case]
    clock = training.Clock()
    assert_trains_as_keras(make, *data, batch_size=115, clock=clock, program=program, **arguments)
    assert clock.program == "graph"


@pytest.mark.parametrize("program", training.PROGRAMS[:3])
def test_logs_that_are_no_metrics_are_those_of_the_last_batch(program: str, data: Data) -> None:
    """What a train_step returns under names of its own is in the history as with Keras."""
    ours, _ = assert_trains_as_keras(_own_logs, *data, batch_size=115, epochs=2, program=program)
    assert list(ours.history.history) == ["what I call it"]


def test_a_generator_is_trained_by_keras(data: Data) -> None:
    """A generator is consumed once, by Keras."""
    ours, theirs = mlp(), mlp()
    with pytest.warns(UserWarning, match="the data are generator"):
        training.fit(ours, _generated(*data), verbose=0)
    theirs.fit(_generated(*data), verbose=0)
    assert same_bits(ours, theirs)


# ----------------------------------------------------------------------------------------------------------- errors

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "unequal lengths": ("cardinal|same", {"y": np.zeros(7)}),
    "unequal weights": ("cardinal|same", {"sample_weight": np.ones(7)}),
    "unequal validation data": ("cardinal|same", {"validation_data": (np.zeros((5, 64)), np.zeros(6))}),
    "two kinds of weights": ("class_weight", {"class_weight": {0: 1.0}, "sample_weight": WEIGHTS}),
    "nothing to train on": ("validation_split is 1.0", {"validation_split": 1.0}),
    "a share above one": ("validation_split is 1.5", {"validation_split": 1.5}),
    "a share below zero": ("validation_split is -0.5", {"validation_split": -0.5}),
    "a share of a generator": ("validation_split.* only supported", {"x": iter([1]), "validation_split": 0.5}),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_refused(case: str, data: Data) -> None:
    """Contradictory arguments raise a `ValueError` that names them, and nothing is trained."""
    message, arguments = WRONG[case]
    model = mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        training.fit(model, **{"x": data[0], "y": data[1], "verbose": 0, **arguments})
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("call", [training.fit, training.evaluate])
def test_a_model_not_compiled_is_refused(call: Callable[..., Any], data: Data) -> None:
    """Training and evaluating need a compiled model, as with Keras."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    with pytest.raises(ValueError, match="compile"):
        call(model, *data)


# ------------------------------------------------------------------------------------------- evaluation and the clock


@pytest.mark.parametrize("batch_size", [None, 1, 10_000])
def test_evaluate_gives_what_keras_gives(batch_size: int | None, data: Data) -> None:
    """Loss, penalty and metrics equal those of `model.evaluate`, weighted or not, and no weight changes."""
    middle = [keras.layers.BatchNormalization, functools.partial(keras.layers.Dropout, 0.5)]
    model = mlp(
        *middle,
        dense={"kernel_regularizer": keras.regularizers.L2(0.01)},
        weighted_metrics=["sparse_top_k_categorical_accuracy"],
    )
    compiled_fit(model, *data, batch_size=115)
    state = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    for weights in (None, WEIGHTS):
        got = training.evaluate(model, *data, batch_size=batch_size, sample_weight=weights)
        want = model.evaluate(*data, sample_weight=weights, batch_size=100, verbose=0, return_dict=True)
        assert got == pytest.approx(want, rel=1e-5)
    after = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    assert all(np.array_equal(a, b) for a, b in zip(state, after, strict=True))


def test_evaluate_leaves_to_keras_what_it_cannot_do(data: Data) -> None:
    """An eager evaluation is Keras' own, and a warning says so."""
    model = mlp(run_eagerly=True)
    with pytest.warns(UserWarning, match="keras.Model.evaluate: the model is to run eagerly") as caught:
        got = training.evaluate(model, *data)
    assert [w.filename for w in caught] == [__file__]
    assert got == pytest.approx(model.evaluate(*data, verbose=0, return_dict=True))


@pytest.mark.usefixtures("_afresh")
def test_what_evaluates_can_be_compiled_beforehand(data: Data) -> None:
    """Compiled before, an evaluation traces and compiles nothing more; compiling it changes no variable."""
    model = mlp(hidden=13)
    training.evaluate(model, *data)
    every = [*model.variables, *model.metrics_variables]
    before = [variable.numpy() for variable in every]
    with programs.afresh():
        training.compile_evaluation(model, *data)
        for variable, value in zip(every, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)
        (program,) = programs.shared().values()
        training.evaluate(model, *data)
        assert list(programs.shared().values()) == [program]


def test_a_model_without_an_optimizer_can_be_evaluated(data: Data) -> None:
    """Evaluating needs a loss, not an optimizer."""
    model = mlp(optimizer=lambda: None)
    got = training.evaluate(model, *data)
    assert got == pytest.approx(model.evaluate(*data, verbose=0, return_dict=True), rel=1e-5)


@pytest.mark.usefixtures("_afresh")
def test_evaluations_share_across_optimizers(data: Data) -> None:
    """The program of an evaluation does not depend on how the model is trained."""
    for optimizer in OPTIMIZERS.values():
        training.evaluate(mlp(optimizer=optimizer, hidden=11), *data)
    assert len(programs.shared()) == 1


def test_the_clock_tells_compiling_training_and_evaluating_apart(traces: list[str], data: Data, held_out: Data) -> None:
    """One training entry an epoch, one evaluation entry an evaluation, compiling apart and none for a sibling."""
    clock, sibling = training.Clock(), training.Clock()
    seen: list[tuple[int, int]] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append((len(clock.train_seconds), len(clock.evaluate_seconds)))
    )
    arguments: dict[str, Any] = {"batch_size": 100, "validation_data": held_out, "validation_freq": 2}
    compiled_fit(mlp(), *data, epochs=4, clock=clock, callbacks=[note], **arguments)
    compiled_fit(mlp(), *data, epochs=1, clock=sibling, **arguments)
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2)]
    assert all(seconds > 0 for seconds in clock.train_seconds + clock.evaluate_seconds)
    assert clock.compile_seconds > max(clock.train_seconds), "no epoch holds the compiling"
    assert sibling.compile_seconds > 0
