"""What `mlplab.models` promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlplab import models
from mlplab.spec import Variant


def dense_weights(model: keras.Model) -> list[np.ndarray]:
    return [layer.get_weights()[0] for layer in model.layers if isinstance(layer, keras.layers.Dense)]


@pytest.mark.parametrize(("features", "parameters"), [(784, 109_386), (3_072, 402_250)])
def test_the_default_network_is_that_of_the_report(features, parameters):
    """The base variant on MNIST and CIFAR-10 has the report's number of parameters."""
    assert models.build(Variant(), features, 10, seed=1).count_params() == parameters


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": "adam"},
        {"learning_rate": 0.5},
        {"dropout": 0.3},
        {"l2": 0.01},
        {"batch_norm": True},
        {"batch_size": 1},
        {"activation": "tanh"},
    ],
)
def test_variants_start_from_equal_weights(other):
    """For the same seed the dense layers of two variants start from the same bits, whatever lies between them."""
    base = dense_weights(models.build(Variant(), 20, 10, seed=7))
    varied = dense_weights(models.build(Variant().but(**other), 20, 10, seed=7))
    for a, b in zip(base, varied, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_equal_shape_and_other_seeds_start_apart():
    """No two layers and no two seeds share initial weights."""
    first, second = (dense_weights(models.build(Variant(hidden=(10, 10)), 10, 10, seed=s)) for s in (1, 2))
    every = [w.tobytes() for w in first + second]
    assert len(set(every)) == len(every)


def test_the_model_takes_raw_pixels():
    """Probabilities equal a forward pass written out in NumPy on pixels divided by 255."""
    model = models.build(Variant(hidden=(8,)), 6, 3, seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6)).astype(np.uint8)
    (w1, b1), (w2, b2) = (layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense))
    logits = np.maximum(pixels / 255 @ w1 + b1, 0) @ w2 + b2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(pixels), expected, rtol=1e-5)


def test_the_export_answers_like_the_model(tmp_path):
    """A saved and loaded export gives the model's probabilities, for any number of images."""
    model = models.build(Variant(hidden=(8,), dropout=0.5, batch_norm=True), 6, 3, seed=1)
    tf.saved_model.save(models.Export(model), str(tmp_path / "export"))
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    for images in (1, 7):
        pixels = np.random.default_rng(0).integers(0, 256, (images, 6)).astype(np.float32)
        np.testing.assert_allclose(loaded(pixels), model(pixels), rtol=1e-6)


@pytest.mark.parametrize("decay", [1e-6, 0.1])
def test_decay_is_the_old_keras_argument(decay):
    """After t steps the learning rate is lr / (1 + decay * t)."""
    model = models.build(Variant(hidden=(4,), decay=decay, learning_rate=0.5), 6, 3, seed=1)
    model.optimizer.build(model.trainable_variables)
    for step in (0, 1, 1_000):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.5 / (1 + decay * step), rel=1e-6)


def test_every_choice_of_a_variant_reaches_the_model():
    """Activation, dropout, L2, batch norm, optimizer, learning rate and momentum are in the built model."""
    variant = Variant(
        hidden=(5, 4), activation="tanh", dropout=0.25, l2=0.01, batch_norm=True, momentum=0.9, learning_rate=0.3
    )
    model = models.build(variant, 6, 3, seed=1)
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
        assert isinstance(models.build(Variant(optimizer=name), 6, 3, seed=1).optimizer, kind)
