"""What the ready-made model, its weights and what is exported of it promise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplab.building import build
from mlplab.calls import call
from mlplab.data import Dataset, load
from mlplab.export import Export, answering, in_batches
from mlplab.spec import Training

BASE = Training(optimizer="sgd", learning_rate=0.01, loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def data_of(features: int, classes: int) -> Dataset:
    """Random flat images with a label each."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20 * classes, features)).astype(np.uint8)
    return load((x, np.tile(np.arange(classes), 20)))


SMALL = data_of(20, 10)
TINY = data_of(6, 3)


def dense_weights(model: keras.Model) -> list[np.ndarray]:
    return [layer.get_weights()[0] for layer in model.layers if isinstance(layer, keras.layers.Dense)]


@pytest.mark.parametrize(("features", "parameters"), [(784, 109_386), (3_072, 402_250)])
def test_the_default_network_is_that_of_the_report(features, parameters):
    """The base variant on MNIST and CIFAR-10 has the report's number of parameters."""
    assert build(BASE, data_of(features, 10), seed=1).count_params() == parameters


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": "adam"},
        {"learning_rate": 0.5},
        {"model.dropout": 0.3},
        {"model.l2": 0.01},
        {"model.batch_norm": True},
        {"batch_size": 1},
        {"model.activation": "tanh"},
    ],
)
def test_variants_start_from_equal_weights(other):
    """For the same seed the dense layers of two variants start from the same bits, whatever lies between them."""
    base = dense_weights(build(BASE, SMALL, seed=7))
    varied = dense_weights(build(BASE.but(other), SMALL, seed=7))
    for a, b in zip(base, varied, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_equal_shape_and_other_seeds_start_apart():
    """No two layers and no two seeds share initial weights."""
    same = BASE.but({"model.hidden": (20, 20)})
    first, second = (dense_weights(build(same, SMALL, seed=s)) for s in (1, 2))
    every = [w.tobytes() for w in first + second]
    assert len(set(every)) == len(every)


def test_the_model_takes_raw_pixels():
    """Probabilities equal a forward pass written out in NumPy on pixels divided by 255."""
    model = build(BASE.but({"model.hidden": (8,)}), TINY, seed=1)
    pixels = TINY.test.x[:5]
    (w1, b1), (w2, b2) = (layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense))
    logits = np.maximum(pixels / 255 @ w1 + b1, 0) @ w2 + b2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-5)


@pytest.mark.parametrize("example", [None, TINY.test.x[:2]], ids=["by its inputs", "by the data"])
def test_the_export_answers_like_the_model(tmp_path, example):
    """A saved and loaded export takes float32 pixels and gives the model's probabilities, for any number of images."""
    choices = {"model.hidden": (8,), "model.dropout": 0.5, "model.batch_norm": True}
    model = build(BASE.but(choices), TINY, seed=1)
    tf.saved_model.save(Export(model, example), str(tmp_path / "export"))
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    (function,) = loaded.__call__.concrete_functions
    assert function.structured_input_signature == ((tf.TensorSpec([None, 6], tf.float32, name="pixels"),), {})
    for images in (1, 7):
        pixels = np.random.default_rng(0).integers(0, 256, (images, 6)).astype(np.float32)
        np.testing.assert_allclose(loaded(pixels), model(pixels), rtol=1e-6)


def test_an_export_does_not_hold_the_state_of_its_optimizer(tmp_path):
    """What a training leaves besides the weights, such as Adam's moments, is in no export."""
    sizes = []
    for place, optimizer in enumerate(("sgd", "adam")):
        model = build(BASE.but(optimizer=optimizer), SMALL, seed=1)
        model.fit(SMALL.train.x, SMALL.train.y, verbose=0)
        tf.saved_model.save(Export(model), str(tmp_path / str(place)))
        sizes.append((tmp_path / str(place) / "variables" / "variables.data-00000-of-00001").stat().st_size)
    assert sizes[1] < 1.1 * sizes[0]


class Halves(keras.layers.Layer):
    """A layer with a state that is no weight of Keras, and with half precision."""

    def __init__(self) -> None:
        super().__init__(dtype="mixed_bfloat16")
        self.dense = keras.layers.Dense(3, dtype="mixed_bfloat16")
        self.offset = tf.Variable(0.25)

    def call(self, x):
        return self.dense(x) + tf.cast(self.offset, tf.bfloat16)


def text_model():
    words = keras.layers.TextVectorization(20, output_sequence_length=4)
    words.adapt(np.array(["a b c", "b c d"]))
    given = keras.Input((1,), dtype="string")
    inside = keras.layers.Embedding(20, 3)(words(given))
    return keras.Model(given, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(inside)))


def nested_model():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model({"left": a, "right": b}, {"sum": keras.layers.Dense(2)(a), "rest": keras.layers.Dense(1)(b)})


def pair_model():
    a, b = keras.Input((3,)), keras.Input((2,))
    return keras.Model([a, b], [keras.layers.Dense(2)(a), keras.layers.Dense(1)(b)])


def halves_model():
    model = keras.Sequential([Halves()])
    model(np.zeros((2, 3), np.float32))
    return model


NUMBERS = np.random.default_rng(0).random((3_000, 5))
MODELS = {
    "text": (text_model, np.array([["a b"], ["d"], ["none of them"]])),
    "dict": (nested_model, {"left": NUMBERS[:, :3], "right": NUMBERS[:, 3:].astype(np.float32)}),
    "names with spaces": (
        lambda: (lambda m: keras.Model({"mean radius (mm)": m.inputs[0], "größe": m.inputs[1]}, m.outputs[0]))(
            pair_model()
        ),
        {"mean radius (mm)": NUMBERS[:, :3], "größe": NUMBERS[:, 3:]},
    ),
    "tuple": (pair_model, (NUMBERS[:, :3].astype(np.float32), NUMBERS[:, 3:])),
    "half precision": (halves_model, NUMBERS[:, :3].astype(np.float32)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_an_export_takes_and_gives_what_the_model_does(tmp_path, kind):
    """Any nest of inputs and outputs, texts, tables of a layer's own and half precision come back from a SavedModel."""
    make, x = MODELS[kind]
    model = make()
    rows = keras.tree.map_structure(lambda leaf: leaf[:2], x)
    tf.saved_model.save(Export(model, rows), str(tmp_path / "export"))
    answers = answering(tf.saved_model.load(str(tmp_path / "export")))(x)

    def as_trained(leaf):
        return tf.constant(leaf) if leaf.dtype.kind == "U" else tf.cast(leaf, tf.float32)

    def readable(leaf):
        return np.asarray(tf.cast(leaf, tf.float32))

    def told(batch):
        return tf.nest.map_structure(readable, model(tf.nest.map_structure(as_trained, batch), training=False))

    for found, wanted in zip(tf.nest.flatten(answers), tf.nest.flatten(in_batches(told)(x)), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("decay", [1e-6, 0.1])
def test_decay_is_the_old_keras_argument(decay):
    """After t steps the learning rate is lr / (1 + decay * t)."""
    path = "keras.optimizers.schedules.InverseTimeDecay"
    rate = call(path, initial_learning_rate=0.5, decay_steps=1, decay_rate=decay)
    model = build(BASE.but(learning_rate=rate), TINY, seed=1)
    model.optimizer.build(model.trainable_variables)
    for step in (0, 1, 1_000):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.5 / (1 + decay * step), rel=1e-6)


def test_every_choice_of_a_variant_reaches_the_model():
    """Activation, dropout, L2, batch norm, optimizer, learning rate and momentum are in the built model."""
    choices = {"hidden": (5, 4), "activation": "tanh", "dropout": 0.25, "l2": 0.01, "batch_norm": True}
    variant = BASE.but({f"model.{name}": value for name, value in choices.items()})
    model = build(variant.but({"optimizer.momentum": 0.9, "learning_rate": 0.3}), TINY, seed=1)
    kinds = [type(layer).__name__ for layer in model.layers]
    block = ["Dense", "BatchNormalization", "Activation", "Dropout"]
    assert kinds == ["InputLayer", "Rescaling", *block, *block, "Dense"]
    assert {layer.activation.__name__ for layer in model.layers if type(layer).__name__ == "Activation"} == {"tanh"}
    assert {layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"} == {0.25}
    penalties = [layer.kernel_regularizer.l2 for layer in model.layers if type(layer).__name__ == "Dense"]
    np.testing.assert_allclose(penalties, 0.01)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert model.optimizer.momentum == 0.9
    assert float(model.optimizer.learning_rate) == pytest.approx(0.3)
    for name, kind in (("adam", keras.optimizers.Adam), ("rmsprop", keras.optimizers.RMSprop)):
        assert isinstance(build(BASE.but(optimizer=name), TINY, seed=1).optimizer, kind)
