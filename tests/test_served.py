"""A trained model as ONNX answers as Keras' does, in a process that has neither Keras nor TensorFlow; or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mlplab import served
from mlplab.data import Dataset, load
from mlplab.export import Export, answering
from serving import probe
from serving.model import Contract, arrays_of, as_sent, named

RNG = np.random.default_rng(0)
CLASSES = np.tile(np.arange(3), 40)


def images(*shape: int) -> Any:
    return RNG.integers(0, 256, (120, *shape)).astype(np.uint8), CLASSES


def numbers(*shape: int) -> Any:
    return RNG.normal(size=(120, *shape)).astype(np.float32), RNG.normal(size=120).astype(np.float32)


def ids() -> Any:
    """Sequences padded with 0 at their ends."""
    found = RNG.integers(1, 50, (120, 9)).astype(np.int32)
    for row, length in zip(found, RNG.integers(2, 9, 120), strict=True):
        row[length:] = 0
    return found, RNG.normal(size=120).astype(np.float32)


def sequential(shape: tuple[int, ...], *inside: Any, dtype: str = "float32") -> keras.Model:
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inside])


def cnn() -> keras.Model:
    return sequential(
        (12, 12, 1),
        layers.Rescaling(1 / 255),
        layers.RandomRotation(0.2),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomFlip(),
        layers.GaussianNoise(0.5),
        layers.Conv2D(4, 3, padding="same", strides=2),
        layers.BatchNormalization(),
        layers.Activation("gelu"),
        layers.SeparableConv2D(6, 3, activation="silu"),
        layers.MaxPooling2D(),
        layers.Dropout(0.5),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
    )


def upsampling() -> keras.Model:
    return sequential(
        (8, 8, 3),
        layers.Rescaling(1 / 255),
        layers.Resizing(12, 12),
        layers.Conv2DTranspose(4, 3, strides=2, activation="leaky_relu"),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.GroupNormalization(2),  # where the variance is no small part of the mean square
        layers.ZeroPadding2D(1),
        layers.DepthwiseConv2D(3, activation="hard_sigmoid"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    )


def attention() -> keras.Model:
    given = keras.Input((7, 8))
    hidden = layers.LayerNormalization()(given + layers.MultiHeadAttention(2, 4)(given, given))
    hidden = layers.Dense(8, activation="gelu")(hidden) * keras.ops.sigmoid(hidden)
    return keras.Model(given, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))


def transformer_of_ids() -> keras.Model:
    given = keras.Input((9,), dtype="int32")
    hidden = layers.Embedding(50, 8, mask_zero=True)(given)
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 4)(hidden, hidden))
    return keras.Model(given, layers.Dense(1)(layers.GlobalAveragePooling1D()(hidden)))


def people() -> Any:
    x = {
        "age": RNG.uniform(20, 80, (120, 1)),
        "town": RNG.integers(0, 4, (120, 1)).astype(np.int32),
        "scan": RNG.random((120, 3, 3)).astype(np.float32),
    }
    return x, {"ill": (RNG.random(120) > 0.5).astype(np.int32), "years": RNG.random(120).astype(np.float32)}


def several() -> keras.Model:
    age, scan = keras.Input((1,), name="age"), keras.Input((3, 3), name="scan")
    town = keras.Input((1,), dtype="int32", name="town")
    seen = layers.Flatten()(scan)
    normal = layers.Normalization(mean=50.0, variance=100.0)(age)
    every = layers.Concatenate()([normal, layers.CategoryEncoding(4, output_mode="one_hot")(town), seen])
    outputs = {"ill": layers.Dense(1, activation="sigmoid")(every), "years": layers.Dense(1)(every)}
    return keras.Model({"age": age, "scan": scan, "town": town}, outputs)


class Own(keras.Model):
    """A model that is a class, of a layer of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(5, activation="tanh"), layers.Dense(3, activation="softmax")

    def call(self, x: Any) -> Any:
        return self.second(keras.ops.where(self.first(x) > 0, self.first(x), keras.ops.square(self.first(x))))


def bidirectional() -> Any:
    return layers.Bidirectional(layers.GRU(6, return_sequences=True)), layers.GlobalMaxPooling1D(), layers.Dense(1)


ZOO: dict[str, tuple[Callable[[], keras.Model], Any]] = {
    "mlp": (
        lambda: sequential((20,), layers.Rescaling(1 / 255), layers.Dense(8, "relu"), layers.Dense(3, "softmax")),
        images(20),
    ),
    "cnn, augmented": (cnn, images(12, 12, 1)),
    "upsampling": (upsampling, images(8, 8, 3)),
    "lambda of mathematics": (
        lambda: sequential((5,), layers.Lambda(lambda x: x * 2 + 1), layers.Dense(1)),
        numbers(5),
    ),
    "lstm": (lambda: sequential((9, 4), layers.LSTM(6), layers.Dense(1)), numbers(9, 4)),
    "plain recurrent": (lambda: sequential((9, 4), layers.SimpleRNN(6), layers.Dense(1)), numbers(9, 4)),
    "lstm, masked": (
        lambda: sequential(
            (9,), layers.Embedding(50, 6, mask_zero=True), layers.LSTM(6), layers.Dense(1), dtype="int32"
        ),
        ids(),
    ),
    "gru, masked, both ways": (
        lambda: sequential((9,), layers.Embedding(50, 6, mask_zero=True), *bidirectional(), dtype="int32"),
        ids(),
    ),
    "attention": (attention, numbers(7, 8)),
    "attention, masked": (transformer_of_ids, ids()),
    "several inputs and outputs": (several, people()),
    "a class of one's own": (Own, (numbers(6)[0], CLASSES)),
    "conv1d": (
        lambda: sequential(
            (16, 2), layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), layers.Flatten(), layers.Dense(1)
        ),
        numbers(16, 2),
    ),
    "discretized": (
        lambda: sequential(
            (4,),
            layers.Discretization(bin_boundaries=[-0.5, 0.5], output_mode="one_hot"),
            layers.Flatten(),
            layers.Dense(1),
        ),
        numbers(4),
    ),
}


def served_folder(model: keras.Model, data: Dataset, folder: Path) -> Path:
    model(keras.tree.map_structure(lambda leaf: leaf[:2], data.train.x))
    for variable in model.variables:  # what would be one for all, such as a bias of zeros, hides a mistake
        if variable.dtype == "float32" and "seed" not in variable.path and "mean" not in variable.path:
            variable.assign(np.asarray(variable) + RNG.uniform(0.05, 0.3, variable.shape))
    assert served.write(folder / "served", served.exported(model, data), data) == ""
    return folder / "served"


@pytest.mark.parametrize("name", ZOO)
def test_a_model_as_onnx_answers_as_keras_does(name: str, tmp_path: Path) -> None:
    """Every kind of layer, dropout and augmentation being identity, to 1e-5, in a bare process, for any batch size."""
    make, arrays = ZOO[name]
    data = load(arrays)
    model = make()
    folder = served_folder(model, data, tmp_path)
    x = data.test.x
    given = [np.asarray(array) for array in served.arrays(as_sent(x), "input")]
    np.savez(folder / probe.GIVEN, *given)
    probe.probe(folder)
    expected = served.arrays(keras.tree.map_structure(np.asarray, model(x, training=False)), "output")
    with np.load(folder / probe.ANSWERS) as found:
        for place, wanted in enumerate(expected):
            close = np.abs(found[f"arr_{place}"] - wanted) / np.maximum(1, np.abs(wanted))
            assert close.max() <= 1e-5
            assert found[f"arr_{place}"].shape == wanted.shape
    contract = Contract.read((folder / "contract.json").read_bytes())
    sent = named(as_sent(x), "input")
    told = {key: part.tolist() for key, part in sent.items()} if isinstance(sent, dict) else sent.tolist()
    for back, array in zip(arrays_of(contract, json.loads(json.dumps(told))), given, strict=True):
        np.testing.assert_array_equal(back, array)


def texts() -> keras.Model:
    words = layers.TextVectorization(20, output_sequence_length=4)
    words.adapt(np.array(["a b c", "b c d"]))
    inside = layers.Embedding(20, 3)(words(given := keras.Input((1,), dtype="string")))
    return keras.Model(given, layers.Dense(2)(layers.GlobalAveragePooling1D()(inside)))


def reads_a_file(x: Any) -> Any:
    import tensorflow as tf

    return x * tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), "float32")


UNSERVED = {
    "bessel": (
        lambda: sequential((5,), layers.Lambda(lambda x: __import__("tensorflow").math.bessel_i0(x))),
        "BesselI0",
    ),
    "a file": (lambda: sequential((5,), layers.Lambda(reads_a_file, output_shape=(5,))), "ReadFile"),
    "python": (
        lambda: sequential(
            (5,), layers.Lambda(lambda x: __import__("tensorflow").py_function(lambda y: y, [x], "float32"), (5,))
        ),
        "EagerPyFunc",
    ),
    "random": (
        lambda: sequential((5,), layers.Lambda(lambda x: x + __import__("tensorflow").random.normal((5,)))),
        "RandomNormal",
    ),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_what_onnx_cannot_say_is_refused_with_the_operation_named(name: str, tmp_path: Path) -> None:
    """An operation that ONNX lacks, a file, a Python function, and numbers drawn when it is asked."""
    make, operation = UNSERVED[name]
    data = load(numbers(5))
    why = served.write(tmp_path / "served", served.exported(make(), data), data)
    assert operation in why
    assert (tmp_path / "served" / served.REFUSED).read_text() == why
    assert not (tmp_path / "served" / "model.onnx").exists()


def test_a_saved_model_holds_each_weight_once_and_all_that_it_needs(tmp_path: Path) -> None:
    """A SavedModel has as many numbers as the model has; with a vocabulary, too, it answers when the model is gone."""
    plain = sequential((5,), layers.Dense(4), layers.BatchNormalization())
    tf.saved_model.save(Export(plain, np.zeros((2, 5), np.float32)), str(tmp_path / "plain"))
    saved = tf.train.list_variables(str(tmp_path / "plain" / "variables" / "variables"))
    assert sum(int(np.prod(shape)) for name, shape in saved if name.endswith("VARIABLE_VALUE")) == plain.count_params()
    words = np.array([["a"], ["c"], ["never seen"]])
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    model = sequential((1,), lookup, layers.Embedding(4, 2), layers.Flatten(), dtype="string")
    expected = np.asarray(model(tf.constant(words), training=False))
    tf.saved_model.save(Export(model, words), str(tmp_path / "words"))
    del model, lookup
    np.testing.assert_allclose(answering(tf.saved_model.load(str(tmp_path / "words")))(words), expected)
