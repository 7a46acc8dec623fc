"""`training.fit` against `keras.Model.fit`: networks, optimizers, losses, metrics, data and callbacks of many kinds."""

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers, losses, metrics, optimizers
from test_training import Recorder

from mlplab import arrays, training

EXAMPLES, BATCH, CLASSES = 45, 16, 3
"""Two whole batches and a smaller one."""

RNG = np.random.default_rng(0)
X = RNG.random((EXAMPLES, 8)).astype("float32")
Y = RNG.integers(0, CLASSES, EXAMPLES)
ONE_HOT = np.eye(CLASSES, dtype="float32")[Y]
VALUE = X[:, :1] - X[:, 1:2]
IMAGES = RNG.random((EXAMPLES, 8, 8, 2)).astype("float32")
SERIES = RNG.random((EXAMPLES, 6, 4)).astype("float32")
WORDS = RNG.integers(0, 10, (EXAMPLES, 6)).astype("int32")
WEIGHTS = np.linspace(0, 2, EXAMPLES, dtype="float32")

SPARSE = "sparse_categorical_crossentropy"
Make = Callable[[], keras.Model]


@dataclass
class Case:
    """What is trained, on what, and how."""

    make: Make
    data: tuple[Any, ...] = (X, Y)
    arguments: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list
    within: float = 1e-5


def mlp(
    loss: Any = SPARSE,
    optimizer: Callable[[], Any] = lambda: optimizers.SGD(0.1),
    activation: Any = "softmax",
    units: int = CLASSES,
    metrics: Callable[[], Any] = lambda: ["accuracy"],
    batch: int | None = None,
    **arguments: Any,
) -> keras.Model:
    """A compiled perceptron for `X`."""
    inputs = keras.Input((8,), batch_size=batch)
    hidden = layers.Dense(6, activation="tanh", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(units, activation=activation, name="out")(hidden))
    model.compile(optimizer(), loss, metrics=metrics(), **arguments)
    return model


def network(shape: tuple[int, ...], *inner: Callable[[], Any], dtype: str | None = None, **arguments: Any) -> Make:
    """A compiled `Sequential` that ends in class probabilities."""

    def make() -> keras.Model:
        last = [layers.Flatten(), layers.Dense(CLASSES, activation="softmax", dtype="float32")]
        model = keras.Sequential([keras.Input(shape, dtype=dtype), *(layer() for layer in inner), *last])
        model.compile(optimizers.SGD(0.05), SPARSE, metrics=["accuracy"], **arguments)
        return model

    return make


P = functools.partial


# ------------------------------------------------------------------------------------------------------- optimizers


def spared() -> Any:
    optimizer = optimizers.AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias", "hidden"])
    return optimizer


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    **{
        name: P(getattr(optimizers, name), 0.01)
        for name in ("Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta", "Ftrl", "Lion", "Adafactor")
    },
    "Muon": P(optimizers.Muon, 0.01),
    "nesterov": P(optimizers.SGD, 0.05, momentum=0.9, nesterov=True),
    "AMSGrad": P(optimizers.Adam, 0.01, amsgrad=True),
    "centered RMSprop": P(optimizers.RMSprop, 0.01, centered=True, momentum=0.5),
    "averages": P(optimizers.SGD, 0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "averages at the end": P(optimizers.Adam, 0.01, use_ema=True, ema_momentum=0.5),
    "weight decay": P(optimizers.SGD, 0.1, weight_decay=0.1),
    "weight decay of some": spared,
    "clipnorm": P(optimizers.SGD, 0.1, clipnorm=0.05),
    "global_clipnorm": P(optimizers.SGD, 0.1, global_clipnorm=0.05),
    "clipvalue": P(optimizers.SGD, 0.1, clipvalue=0.01),
    "accumulation": P(optimizers.SGD, 0.1, gradient_accumulation_steps=2),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=2.0**10),
    "cosine": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 5)),
    "steps": lambda: optimizers.Adam(optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001])),
}

# ----------------------------------------------------------------------------------------------------------- losses


def of_each(truth: Any, predicted: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(truth - predicted), axis=-1)


def of_all(truth: Any, predicted: Any) -> Any:
    return keras.ops.sqrt(keras.ops.mean(keras.ops.square(truth - predicted)))


def contrastive(truth: Any, predicted: Any) -> Any:
    """Of pairs in the batch: it changes with the batch size."""
    apart = keras.ops.sum(keras.ops.square(predicted[:, None] - predicted[None]), axis=-1)
    alike = keras.ops.matmul(truth, keras.ops.transpose(truth))
    return keras.ops.mean(alike * apart + (1 - alike) * keras.ops.relu(1 - apart))


LOSSES: dict[str, tuple[Any, Any, str | None]] = {
    **{
        name: (name, ONE_HOT, "sigmoid")
        for name in (
            "categorical_crossentropy", "binary_crossentropy", "mean_squared_error", "mean_absolute_error", "huber",
            "log_cosh", "poisson", "kl_divergence", "cosine_similarity", "hinge", "squared_hinge", "categorical_hinge",
            "binary_focal_crossentropy", "categorical_focal_crossentropy", "mean_squared_logarithmic_error", "dice",
            "tversky",
        )
    },
    "circle": ("circle", Y, None),
    "from logits": (losses.SparseCategoricalCrossentropy(from_logits=True), Y, None),
    "ignored class": (losses.SparseCategoricalCrossentropy(ignore_class=-1), np.where(Y == 2, -1, Y), "softmax"),
    "smoothing": (losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT, "softmax"),
    "sum": (losses.SparseCategoricalCrossentropy(reduction="sum"), Y, "softmax"),
    "mean by weights": (losses.MeanSquaredError(reduction="mean_with_sample_weight"), ONE_HOT, None),
    "a function of each": (of_each, ONE_HOT, None),
    "a function of all": (of_all, ONE_HOT, None),
    "contrastive": (contrastive, ONE_HOT, None),
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- metrics


def worst(truth: Any, predicted: Any) -> Any:
    return keras.ops.max(keras.ops.abs(truth - predicted))


METRICS: dict[str, Callable[[], Any]] = {
    "F1Score": P(metrics.F1Score, name="m"),
    "F1Score, mean": P(metrics.F1Score, average="macro", name="m"),
    "AUC": P(metrics.AUC, name="m"),
    "Precision": P(metrics.Precision, name="m"),
    "Recall": P(metrics.Recall, name="m"),
    "R2Score": P(metrics.R2Score, name="m"),
    "OneHotMeanIoU": P(metrics.OneHotMeanIoU, CLASSES, name="m"),
    "RootMeanSquaredError": P(metrics.RootMeanSquaredError, name="m"),
    "PrecisionAtRecall": P(metrics.PrecisionAtRecall, 0.5, name="m"),
    "TopK": P(metrics.TopKCategoricalAccuracy, 2, name="m"),
    "a function of each": lambda: of_each,
    "a function of all": lambda: worst,
}

# ----------------------------------------------------------------------------------------------------------- layers


class Counting(layers.Layer):
    """Counts its calls and scales by their number: state of its own."""

    def build(self, _: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.calls.assign_add(1.0)
        return x * (1.0 + 0.1 * self.calls)


class Penalized(layers.Layer):
    """Adds a loss that depends on the batch."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.sum(keras.ops.square(x)))
        return x


def adapted(layer: Any, data: Any) -> Any:
    layer.adapt(data)
    return layer


def normalization() -> Any:
    return adapted(layers.Normalization(), X)


DENSE = P(layers.Dense, 6, use_bias=False)
LAYERS: dict[str, Make] = {
    "batch norm": network((8,), DENSE, layers.BatchNormalization, layers.ReLU),
    "layer norm": network((8,), DENSE, layers.LayerNormalization),
    "group norm": network((8,), DENSE, P(layers.GroupNormalization, 3)),
    "RMS norm": network((8,), DENSE, layers.RMSNormalization),
    "unit norm": network((8,), DENSE, layers.UnitNormalization),
    "spectral norm": network((8,), lambda: layers.SpectralNormalization(layers.Dense(6))),
    "penalty": network((8,), P(layers.Dense, 6, kernel_regularizer="l2", bias_regularizer="l1")),
    "penalty of activity": network((8,), P(layers.Dense, 6, activity_regularizer="l2")),
    "constraint": network((8,), P(layers.Dense, 6, kernel_constraint=keras.constraints.MaxNorm(0.5))),
    "PReLU": network((8,), DENSE, layers.PReLU),
    "EinsumDense": network((6, 4), P(layers.EinsumDense, "abc,cd->abd", output_shape=(6, 5))),
    "TimeDistributed": network((6, 4), lambda: layers.TimeDistributed(layers.Dense(3))),
    "Lambda": network((8,), P(layers.Lambda, lambda x: x * 2)),
    "own state": network((8,), DENSE, Counting),
    "add_loss": network((8,), DENSE, Penalized),
    "normalization": network((8,), normalization),
    "discretization": network((8,), P(layers.Discretization, [0.2, 0.7]), P(layers.Rescaling, 0.5)),
    "mixed_bfloat16": network((8,), P(layers.Dense, 6, dtype="mixed_bfloat16")),
    "mixed_float16": network((8,), P(layers.Dense, 6, dtype="mixed_float16")),
    "float64": network((8,), P(layers.Dense, 6, dtype="float64")),
    "Conv1D": network((6, 4), P(layers.Conv1D, 3, 3), layers.GlobalMaxPooling1D),
    "causal Conv1D": network((6, 4), P(layers.Conv1D, 3, 3, padding="causal", dilation_rate=2)),
    "Conv2D": network((8, 8, 2), P(layers.Conv2D, 3, 3, strides=2, padding="same", activation="relu")),
    "grouped Conv2D": network((8, 8, 2), P(layers.Conv2D, 4, 3, groups=2)),
    "depthwise": network((8, 8, 2), P(layers.DepthwiseConv2D, 3)),
    "separable": network((8, 8, 2), P(layers.SeparableConv2D, 3, 3)),
    "transposed": network((8, 8, 2), P(layers.Conv2DTranspose, 2, 3, strides=2)),
    "Conv3D": network((8, 8, 2), P(layers.Reshape, (4, 4, 4, 2)), P(layers.Conv3D, 2, 2), P(layers.MaxPooling3D, 2)),
    "max pooling": network((8, 8, 2), P(layers.MaxPooling2D, 2)),
    "average pooling": network((8, 8, 2), P(layers.AveragePooling2D, 3, strides=1)),
    "upsampling": network((8, 8, 2), P(layers.UpSampling2D, 2), layers.ZeroPadding2D),
    "bilinear upsampling": network((8, 8, 2), P(layers.UpSampling2D, 2, interpolation="bilinear")),
    "LSTM": network((6, 4), P(layers.LSTM, 3)),
    "GRU": network((6, 4), P(layers.GRU, 3, return_sequences=True)),
    "SimpleRNN": network((6, 4), P(layers.SimpleRNN, 3, go_backwards=True)),
    "bidirectional": network((6, 4), lambda: layers.Bidirectional(layers.GRU(3))),
    "masked": network((6,), P(layers.Embedding, 10, 4, mask_zero=True), P(layers.LSTM, 3), dtype="int32"),
    "embedding": network((6,), P(layers.Embedding, 10, 4), layers.GlobalAveragePooling1D, dtype="int32"),
    "one-hot words": network((6,), P(layers.CategoryEncoding, 10, output_mode="count"), dtype="int32"),
    "hashed words": network((6,), P(layers.Hashing, 5), P(layers.Embedding, 5, 2), dtype="int32"),
}


def _fits(make: Make) -> np.ndarray:
    """The data that a network of `LAYERS` takes."""
    arrays = {array.shape[1:]: array for array in (X, SERIES, IMAGES, WORDS)}
    return arrays[make().input_shape[1:]]


# ----------------------------------------------------------------------------------------------------------- models


class Subclassed(keras.Model):
    """A model that learns its shapes from the data, with a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = layers.Dense(8, activation="relu"), layers.Dense(8), layers.Dense(CLASSES)

    def call(self, x: Any, training: bool = False) -> Any:
        return keras.ops.softmax(self.last(self.again(self.again(self.first(x)))))


class VAE(keras.Model):
    """As keras.io has it: no `call`, and a `train_step` with metrics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
        self.decoder = keras.Sequential([keras.Input((3,)), layers.Dense(8)])
        self.total, self.error = metrics.Mean(name="loss"), metrics.Mean(name="reconstruction_loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.total, self.error]

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            code = self.encoder(data)
            error = tf.reduce_mean(tf.square(self.decoder(code) - data))
            loss = error + 0.1 * tf.reduce_mean(tf.square(code))
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.total.update_state(loss)
        self.error.update_state(error)
        return {"loss": self.total.result(), "reconstruction_loss": self.error.result()}


class GAN(keras.Model):
    """As keras.io has it: two networks, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
        self.artist = keras.Sequential([keras.Input((2,)), layers.Dense(8)])
        self.critical = metrics.Mean(name="critical")

    def compile(self, critic_optimizer: Any, artist_optimizer: Any) -> None:
        super().compile()
        self.critic_optimizer, self.artist_optimizer = critic_optimizer, artist_optimizer

    @property
    def metrics(self) -> list[Any]:
        return [self.critical]

    def train_step(self, real: Any) -> Any:
        seed = tf.ones((tf.shape(real)[0], 2))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(self.artist(seed))) - tf.reduce_mean(self.critic(real))
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            fooled = -tf.reduce_mean(self.critic(self.artist(seed)))
        weights = self.artist.trainable_weights
        self.artist_optimizer.apply_gradients(zip(tape.gradient(fooled, weights), weights, strict=True))
        self.critical.update_state(loss)
        return {"critical": self.critical.result()}


def compiled(model: keras.Model, *arguments: Any, **named: Any) -> keras.Model:
    model.compile(*arguments, **named)
    return model


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(6, activation="relu")])
    inputs = keras.Input((8,))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.Add()([inner(inputs), inner(inputs * 2)]))
    return compiled(keras.Model(inputs, outputs), "sgd", SPARSE, metrics=["accuracy"])


def two_outputs(form: type = dict, swapped: bool = False) -> keras.Model:
    inputs = keras.Input((8,))
    label = layers.Dense(CLASSES, activation="softmax", name="label")(inputs)
    value = layers.Dense(1, name="value")(inputs)
    if form is dict:
        outputs: Any = {"label": label, "value": value}
        loss: Any = {"label": SPARSE, "value": "mse"}
    else:
        outputs = [value, label] if swapped else [label, value]
        loss = {"label": SPARSE, "value": "mse"} if form is tuple else ["mse", SPARSE] if swapped else [SPARSE, "mse"]
    model = keras.Model(inputs, outputs)
    return compiled(model, "sgd", loss, loss_weights={"label": 1.0, "value": 0.3} if form is dict else None)


def two_inputs(form: type) -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    outputs = layers.Dense(CLASSES, activation="softmax")(
        layers.Subtract()([layers.Dense(5)(left), layers.Dense(5)(right)])
    )
    return compiled(
        keras.Model({"left": left, "right": right} if form is dict else form([left, right]), outputs), "sgd", SPARSE
    )


def attention() -> keras.Model:
    inputs = keras.Input((6, 4))
    x = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    return compiled(keras.Model(inputs, outputs), "sgd", SPARSE, metrics=["accuracy"])


def stateful() -> keras.Model:
    inputs = keras.Input((6, 4), batch_size=15)
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.LSTM(3, stateful=True)(inputs))
    return compiled(keras.Model(inputs, outputs), "sgd", SPARSE)


def frozen() -> keras.Model:
    model = mlp()
    model.get_layer("hidden").trainable = False
    return compiled(model, "sgd", SPARSE)


def weighted() -> keras.Model:
    return mlp(weighted_metrics=["accuracy"])


def noted() -> keras.Model:
    """Its kernel is penalized and constrained after it was built."""
    model = mlp()
    model.get_layer("hidden").kernel.regularizer = keras.regularizers.L2(0.1)
    model.get_layer("out").kernel.constraint = keras.constraints.MaxNorm(0.3)
    return model


MODELS: dict[str, Case] = {
    "subclassed": Case(lambda: compiled(Subclassed(), "sgd", SPARSE, metrics=["accuracy"])),
    "VAE": Case(lambda: compiled(VAE(), "adam"), (X,)),
    "GAN": Case(lambda: compiled(GAN(), optimizers.SGD(0.1), optimizers.SGD(0.1)), (X,)),
    "nested, shared": Case(nested),
    "two outputs, dict": Case(two_outputs, (X, {"label": Y, "value": VALUE})),
    "two outputs, list": Case(P(two_outputs, list), (X, [Y, VALUE])),
    "two outputs, swapped": Case(P(two_outputs, list, True), (X, [VALUE, Y])),
    "two outputs, losses by name": Case(P(two_outputs, tuple), (X, [Y, VALUE])),
    "two outputs, losses by name, swapped": Case(P(two_outputs, tuple, True), (X, [VALUE, Y])),
    "two outputs, weights of each": Case(
        two_outputs,
        (X, {"label": Y, "value": VALUE}),
        {"batch_size": 15, "sample_weight": {"label": WEIGHTS, "value": WEIGHTS[::-1].copy()}},
    ),
    "two inputs, dict": Case(P(two_inputs, dict), ({"left": X[:, :4], "right": X[:, 4:]}, Y)),
    "two inputs, the dict turned": Case(P(two_inputs, dict), ({"right": X[:, 4:], "left": X[:, :4]}, Y)),
    "two inputs, list": Case(P(two_inputs, list), ([X[:, :4], X[:, 4:]], Y)),
    "two inputs, list, by name": Case(P(two_inputs, list), ({"right": X[:, 4:], "left": X[:, :4]}, Y)),
    "two inputs, tuple": Case(P(two_inputs, tuple), ((X[:, :4], X[:, 4:]), Y)),
    "attention": Case(attention, (SERIES, Y)),
    "a stateful network": Case(stateful, (SERIES, Y), {"batch_size": 15, "validation_data": (SERIES[:15], Y[:15])}),
    "a fixed batch": Case(P(mlp, batch=15), (X, Y), {"batch_size": 15, "validation_data": (X[:30], Y[:30])}),
    "a fixed batch that does not divide": Case(P(mlp, batch=16), (X, Y), {"batch_size": 16}),
    "a frozen layer": Case(frozen),
    "a penalty and a constraint set by hand": Case(noted),
    "weighted metrics": Case(weighted, (X, Y), {"sample_weight": WEIGHTS}),
    "own loss scale": Case(P(mlp, auto_scale_loss=False)),
}

# ------------------------------------------------------------------------------------------------- data and arguments


def mapped(tmp_path: Path) -> np.ndarray:
    path = tmp_path / "x.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


DATA: dict[str, Case] = {
    "float64": Case(mlp, (X.astype("float64"), Y)),
    "float16": Case(mlp, (X.astype("float16"), Y)),
    "uint8": Case(mlp, ((X * 255).astype("uint8"), Y.astype("uint8"))),
    "bool": Case(mlp, (X > 0.5, Y)),
    "labels in a column": Case(mlp, (X, Y[:, None])),
    "whole labels as floats": Case(mlp, (X, Y.astype("float32"))),
    "tensors": Case(mlp, (tf.constant(X), tf.constant(Y))),
    "float64 tensors": Case(mlp, (tf.constant(X, tf.float64), tf.constant(Y)), {"validation_split": 0.2}),
    "every second column": Case(mlp, (np.repeat(X, 2, axis=1)[:, ::2], Y)),
    "Fortran's order": Case(mlp, (np.asfortranarray(X), Y)),
    "a frame and a series": Case(mlp, (pd.DataFrame(X), pd.Series(Y)), {"validation_split": 0.3}),
    "a frame of doubles": Case(mlp, (pd.DataFrame(X.astype("float64")), pd.Series(Y))),
    "one example": Case(mlp, (X[:1], Y[:1])),
    "fewer than a batch": Case(mlp, (X[:7], Y[:7])),
    "whole batches": Case(mlp, (X[:32], Y[:32])),
    "numbers that are none": Case(P(mlp, metrics=list), (np.where(X > 0.99, np.nan, X), Y)),
    "validation_split": Case(mlp, arguments={"validation_split": 0.3}),
    "validation weights": Case(weighted, arguments={"validation_data": (X[:20], Y[:20], WEIGHTS[:20])}),
    "sample_weight": Case(mlp, arguments={"sample_weight": WEIGHTS, "validation_split": 0.3}),
    "class_weight": Case(mlp, arguments={"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}),
    "class_weight of one-hot labels": Case(
        P(mlp, "categorical_crossentropy"), (X, ONE_HOT), {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}
    ),
    "NumPy's batch size": Case(mlp, arguments={"batch_size": np.int64(BATCH)}),
    "batches of one": Case(mlp, (X[:9], Y[:9]), {"batch_size": 1, "validation_split": 0.3}),
    "validation_batch_size": Case(P(mlp, of_all), (X, ONE_HOT), {"validation_split": 0.4, "validation_batch_size": 5}),
    "Keras' batch size": Case(P(mlp, contrastive), (X, ONE_HOT), {"batch_size": None, "validation_split": 0.8}),
}

# -------------------------------------------------------------------------------------------------------- callbacks


class Meddler(keras.callbacks.Callback):
    """Changes weights and the learning rate in the middle."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.set_weights([0.5 * weight for weight in self.model.get_weights()])
        self.model.optimizer.learning_rate = 0.2


class Stopper(keras.callbacks.Callback):
    """Stops at the end of the first epoch, or at the begin of another."""

    def __init__(self, begin: int | None = None) -> None:
        super().__init__()
        self.begin = begin

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = epoch == self.begin

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = self.model.stop_training or self.begin is None


class Changer(keras.callbacks.Callback):
    """Changes what is traced, when training begins, or with the first epoch."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def change(self) -> None:
        self.model.get_layer("hidden").trainable = False
        self.model.optimizer.clipvalue = 0.001

    def on_train_begin(self, logs: Any = None) -> None:
        if self.when == "training":
            self.change()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.when == "epoch":
            self.change()


FAST = P(mlp, optimizer=lambda: optimizers.SGD(3.0))
HELD = {"epochs": 5, "validation_data": (X[:20], Y[:20])}
EMA = P(mlp, optimizer=lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
CALLBACKS: dict[str, Case] = {
    "EarlyStopping": Case(FAST, (X, Y), HELD, lambda: [keras.callbacks.EarlyStopping(restore_best_weights=True)]),
    "ReduceLROnPlateau": Case(FAST, (X, Y), HELD, lambda: [keras.callbacks.ReduceLROnPlateau(patience=0)]),
    "LearningRateScheduler": Case(
        mlp, (X, Y), HELD, lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / (1 + epoch))]
    ),
    "SwapEMAWeights": Case(EMA, (X, Y), HELD, lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]),
    "one that meddles": Case(mlp, (X, Y), HELD, lambda: [Meddler()]),
    "one that stops": Case(mlp, (X, Y), HELD, lambda: [Stopper()]),
    "one that stops before the first epoch": Case(mlp, (X, Y), HELD, lambda: [Stopper(0)]),
    "one that stops before the second epoch": Case(P(mlp, steps_per_execution=2), (X, Y), HELD, lambda: [Stopper(1)]),
    "one that changes the step before training": Case(mlp, (X, Y), HELD, lambda: [Changer("training")]),
    "one that changes the step before the first epoch": Case(mlp, (X, Y), HELD, lambda: [Changer("epoch")]),
}

CASES: dict[str, Case] = {
    **{f"optimizer {name}": Case(P(mlp, optimizer=make)) for name, make in OPTIMIZERS.items()},
    **{
        f"loss {name}": Case(P(mlp, loss, activation=last, metrics=list), (X, truth), {"validation_split": 0.4})
        for name, (loss, truth, last) in LOSSES.items()
    },
    **{
        f"metric {name}": Case(
            P(mlp, "categorical_crossentropy", metrics=lambda make=make: [make()]),
            (X, ONE_HOT),
            {"validation_split": 0.4},
        )
        for name, make in METRICS.items()
    },
    **{f"layer {name}": Case(make, (), {"validation_split": 0.4}) for name, make in LAYERS.items()},
    **{f"model {name}": case for name, case in MODELS.items()},
    **{f"data {name}": case for name, case in DATA.items()},
    **{f"callback {name}": case for name, case in CALLBACKS.items()},
}

NOT_FOR_XLA = {
    "layer hashed words",
    "layer one-hot words",
    "layer mixed_bfloat16",
    "layer mixed_float16",
    "metric OneHotMeanIoU",
}
"""XLA does not know their operations or rounds them otherwise, or nobody can check a range before they are run."""


def twins(make: Make) -> tuple[keras.Model, keras.Model]:
    """Two models with the same weights and random numbers."""
    made = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        made.append(make())
    return made[0], made[1]


def difference(model: keras.Model, other: keras.Model) -> float:
    """Norm of the difference of all weights over the norm of the second's."""
    ours, theirs = (np.concatenate([np.ravel(w) for w in m.get_weights()]) for m in (model, other))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    return float(np.linalg.norm(np.nan_to_num(ours - theirs)) / max(np.linalg.norm(np.nan_to_num(theirs)), 1e-9))


def assert_as_keras(name: str, case: Case, program: str | None) -> None:
    """Trains a case's twins, and compares all that comes of it."""
    data = case.data or (_fits(case.make), Y)
    ours, theirs = twins(case.make)
    arguments = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0, **case.arguments}
    clock = training.Clock()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        warnings.filterwarnings("error", message="mlplab")
        got = training.fit(ours, *data, callbacks=case.callbacks(), clock=clock, program=program, **arguments)
        want = theirs.fit(*data, callbacks=case.callbacks(), **arguments)
    assert difference(ours, theirs) <= case.within
    assert got.epoch == want.epoch
    assert list(got.history) == list(want.history)
    for key, values in want.history.items():
        np.testing.assert_allclose(got.history[key], values, rtol=2e-4, atol=1e-6, err_msg=key)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations)
    assert clock.program == ("graph" if name in NOT_FOR_XLA else program or "graph")


QUICK = [name for i, name in enumerate(CASES) if i % 8 == 0]
COMPILED = QUICK[::3]
"""Tried by every session of tests, some of each kind."""
ONE_BY_ONE = [name for name in CASES if name.startswith(("optimizer", "model", "data", "callback"))]
"""What cannot be trained beside others in one model."""


def always(names: list[str]) -> list[Any]:
    """All cases: `names` by every session, and the others at night."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.nightly) for name in CASES]


@pytest.mark.parametrize("name", always(QUICK))
def test_it_is_keras_for(name: str) -> None:
    """Weights, epochs and history of a short training are those of `keras.Model.fit`."""
    assert_as_keras(name, CASES[name], None)


@pytest.mark.parametrize("name", always(COMPILED))
def test_compiled_it_is_keras_for(name: str) -> None:
    """Compiled as a whole epoch it is the same."""
    assert_as_keras(name, CASES[name], "epoch")


@pytest.mark.nightly
@pytest.mark.parametrize("name", COMPILED)
def test_with_compiled_steps_it_is_keras_for(name: str) -> None:
    """A loop around a compiled step comes to the same."""
    assert_as_keras(name, CASES[name], "steps")


# CI tries every case, but once for all that one model can have: what takes time is to compile.


def whole_batches(case: Case) -> Case:
    """The case without the smaller last batch of an epoch, which is compiled for itself."""
    if {"batch_size", "sample_weight"} & set(case.arguments):
        return case
    return replace(case, data=keras.tree.map_structure(lambda array: array[: 2 * BATCH], case.data))


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_what_stands_alone_is_keras(name: str) -> None:
    """Every optimizer, model, form of data and callback; compiled, too, where what is compiled depends on it."""
    if name not in QUICK:
        assert_as_keras(name, CASES[name], None)
    if not name.startswith("data") and name not in COMPILED:
        assert_as_keras(name, whole_batches(CASES[name]), "epoch")


def every_loss() -> keras.Model:
    """An output for each loss."""
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    outputs = [
        layers.Dense(CLASSES, activation=last, name=f"out{i}")(hidden) for i, (_, _, last) in enumerate(LOSSES.values())
    ]
    return compiled(keras.Model(inputs, outputs), optimizers.SGD(0.1), [loss for loss, _, _ in LOSSES.values()])


def every_metric() -> keras.Model:
    """A metric of each kind."""
    made = [make() for name, make in METRICS.items() if f"metric {name}" not in NOT_FOR_XLA]
    for place, metric in enumerate(made):
        if isinstance(metric, metrics.Metric):
            metric.name = f"m{place}"
    return mlp("categorical_crossentropy", metrics=lambda: made)


def every_layer(shape: tuple[int, ...]) -> keras.Model:
    """A branch for the layers of each case that takes inputs of a shape."""
    inputs, branches = None, []
    for name, make in LAYERS.items():
        branch = make()
        if branch.input_shape[1:] != shape or f"layer {name}" in NOT_FOR_XLA:
            continue
        inputs = keras.Input(shape, dtype=branch.inputs[0].dtype) if inputs is None else inputs
        branches.append(branch(inputs))
    return compiled(keras.Model(inputs, layers.Average()(branches)), optimizers.SGD(0.05), SPARSE, metrics=["accuracy"])


TOGETHER: dict[str, Case] = {
    "every loss": Case(every_loss, (X, [truth for _, truth, _ in LOSSES.values()])),
    "every metric": Case(every_metric, (X, ONE_HOT)),
    **{
        f"every layer of {array.shape[1:]}": Case(P(every_layer, array.shape[1:]), (array, Y))
        for array in (X, SERIES, IMAGES, WORDS)
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "program"),
    [(name, program) for name in TOGETHER for program in ("graph", "epoch")]
    # What is compiled of a step is what is compiled of an epoch.
    + [(name, "steps") for name in ("every metric", "every layer of (8,)")],
)
def test_all_of_a_kind_are_keras(name: str, program: str) -> None:
    """Every loss, metric and layer, in one model with the others, comes to what it comes to with `keras.Model.fit`."""
    case = whole_batches(TOGETHER[name])
    held_out = keras.tree.map_structure(lambda array: array[:BATCH], case.data)
    assert_as_keras(name, replace(case, arguments={"validation_data": held_out}), program)


# ------------------------------------------------------------------------------------------------ numbers out of range


def words() -> keras.Model:
    return LAYERS["embedding"]()


def changed(array: np.ndarray, at: Any, value: Any) -> np.ndarray:
    copy = array.astype(np.result_type(array, type(value)))
    copy[at] = value
    return copy


WRONG: dict[str, tuple[Make, Any, Any, str]] = {
    "a label too large": (mlp, X, changed(Y, 41, 7), r"label value of 7 .*\[0, 3\).* example 41"),
    "a label below zero": (mlp, X, changed(Y, 2, -1), r"label value of -1 .*\[0, 3\).* example 2"),
    "a label that is not whole": (mlp, X, changed(Y, 5, 1.5), r"label value of 1.5 .*\[0, 3\).* example 5"),
    "a label too large in a column": (mlp, X, changed(Y, 41, 7)[:, None], "label value of 7 .* example 41"),
    "an id too large": (words, changed(WORDS, (37, 2), 12), Y, r"id value of 12 .*\[0, 10\).* example 37"),
    "an id far below zero": (words, changed(WORDS, (3, 0), -11), Y, r"id value of -11 .*\[0, 10\).* example 3"),
}


@pytest.mark.parametrize(("where", "program"), [("training", "epoch"), ("validation", None)])
@pytest.mark.parametrize("case", WRONG)
def test_a_number_out_of_range_is_refused_before_training(case: str, where: str, program: str | None) -> None:
    """A label or id that is none raises what Keras raises, and says which it is, where, and what is legal."""
    make, x, y, message = WRONG[case]
    right = (WORDS if make is words else X, Y)
    data, held_out = ((x, y), right) if where == "training" else (right, (x, y))
    model = make()
    before = model.get_weights()
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as raised:
        training.fit(model, *data, BATCH, validation_data=held_out, verbose=0, program=program)
    assert isinstance(raised.value, ValueError)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    if "whole" not in case:
        with pytest.raises(tf.errors.InvalidArgumentError):
            make().fit(*data, BATCH, validation_data=held_out, verbose=0)


class Table(layers.Layer):
    """Takes rows of a variable of its own."""

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(10, 2))

    def call(self, ids: Any) -> Any:
        return tf.gather(self.table.value, ids)


class From(layers.Layer):
    """Takes two columns from where the data say."""

    def call(self, x: Any) -> Any:
        start = keras.ops.cast(keras.ops.max(x), "int32")
        return tf.slice(x, [0, start], [-1, 2])


@pytest.mark.parametrize("program", [None, "epoch", "steps"])
def test_rows_of_an_own_variable_are_checked_or_left_to_tensorflow(program: str | None) -> None:
    """Ids in range train as with Keras, and one out of range raises as with Keras, whoever looks it up."""
    make = network((6,), Table, dtype="int32")
    ours, theirs = twins(make)
    training.fit(ours, WORDS, Y, BATCH, shuffle=False, verbose=0, program=program)
    theirs.fit(WORDS, Y, BATCH, shuffle=False, verbose=0)
    assert difference(ours, theirs) <= 1e-5
    with pytest.raises(tf.errors.InvalidArgumentError):
        training.fit(make(), changed(WORDS, (37, 2), 12), Y, BATCH, shuffle=False, verbose=0, program=program)


def test_a_slice_out_of_range_raises_whatever_the_program() -> None:
    """XLA would move a slice that begins outside; it is not compiled, and raises as with Keras."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        training.fit(network((8,), From, P(layers.Reshape, (2,)))(), X * 20, Y, verbose=0, program="epoch")


def test_ids_may_count_from_the_end() -> None:
    """An id below zero is Keras' row from the end."""
    ours, theirs = twins(words)
    x = changed(WORDS, (3, 0), -1)
    training.fit(ours, x, Y, BATCH, shuffle=False, verbose=0, program="epoch")
    theirs.fit(x, Y, BATCH, shuffle=False, verbose=0)
    assert difference(ours, theirs) <= 1e-5


FAULTY: dict[str, tuple[Make, tuple[Any, ...], dict[str, Any], str]] = {
    "one-hot labels for a sparse loss": (mlp, (X, ONE_HOT), {}, "rank"),
    "class_weight for two outputs": (
        two_outputs,
        (X, {"label": Y, "value": VALUE}),
        {"class_weight": {0: 1.0}},
        "class_weight",
    ),
    "lists of numbers": (mlp, (X.tolist(), Y.tolist()), {}, "data type"),
    "another shape": (mlp, (X[:, :5], Y), {}, "incompatible"),
}


@pytest.mark.filterwarnings("ignore:mlplab trains this")
@pytest.mark.parametrize("case", FAULTY)
def test_what_keras_refuses_is_refused_in_its_words(case: str) -> None:
    """Where Keras raises, its own error reaches the caller."""
    make, data, arguments, message = FAULTY[case]
    raised = []
    for fit in (training.fit, keras.Model.fit):
        with pytest.raises(Exception, match=message) as caught:
            fit(make(), *data, verbose=0, shuffle=False, **arguments)
        raised.append(type(caught.value))
    assert raised[0] is raised[1]


class Own(keras.Model):
    """Fits in a way of its own."""

    def fit(self, *arguments: Any, **named: Any) -> Any:
        self.asked = True
        return super().fit(*arguments, **named)


def test_a_fit_of_a_models_own_is_called() -> None:
    """A model that overrides `fit` is trained by that, with a warning."""
    inputs = keras.Input((8,))
    model = compiled(Own(inputs, layers.Dense(CLASSES, activation="softmax")(inputs)), "sgd", SPARSE)
    with pytest.warns(UserWarning, match="Own has a fit of its own"):
        training.fit(model, X, Y, verbose=0)
    assert model.asked


def test_freezing_a_layer_waits_for_compile() -> None:
    """As with Keras, a layer frozen between two fits trains on, with any data, until the model is compiled anew."""
    ours, theirs = twins(mlp)
    arguments: dict[str, Any] = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    for fit, model in ((P(training.fit, program="epoch"), ours), (keras.Model.fit, theirs)):
        fit(model, X, Y, **arguments)
        model.get_layer("hidden").trainable = False
        fit(model, X, Y, **arguments)
        fit(model, X[:40], Y[:40], **arguments | {"batch_size": 7})
    assert difference(ours, theirs) <= 1e-5
    kernel = ours.get_layer("hidden").kernel.numpy()
    ours.compile("sgd", SPARSE)
    training.fit(ours, X, Y, program="epoch", **arguments)
    assert np.array_equal(kernel, ours.get_layer("hidden").kernel)


# ---------------------------------------------------------------------------------------------------- random numbers


class Drawing(layers.Layer):
    """A layer of somebody's own that draws by Keras."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any) -> Any:
        return x + keras.random.uniform(tf.shape(x), seed=self.generator)


RANDOM: dict[str, Callable[[int], Any]] = {
    "Dropout": lambda seed: layers.Dropout(0.3, seed=seed),
    "SpatialDropout1D": lambda seed: layers.SpatialDropout1D(0.3, seed=seed),
    "AlphaDropout": lambda seed: layers.AlphaDropout(0.3, seed=seed),
    "GaussianNoise": lambda seed: layers.GaussianNoise(0.5, seed=seed),
    "GaussianDropout": lambda seed: layers.GaussianDropout(0.3, seed=seed),
    "an own layer": Drawing,
    "RNN dropout": lambda seed: layers.SimpleRNN(20, return_sequences=True, dropout=0.4, seed=seed),
}


def drawn(name: str, program: str, seed: int) -> np.ndarray:
    """What a layer makes of ones in two epochs of two batches: shape (4, 50, 10, 20)."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10, 20))
    memory = Recorder(4, 50, 10, 20)
    model = keras.Model(inputs, layers.Dense(1)(memory(RANDOM[name](seed)(inputs))))
    model.compile(optimizers.SGD(0.0), "mse")
    data = np.ones((100, 10, 20), "float32"), np.zeros((100, 10, 1), "float32")
    if program == "keras":
        model.fit(*data, 50, 2, verbose=0)
    else:
        training.fit(model, *data, 50, 2, verbose=0, program=program)
    return memory.seen.numpy()


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if i else ()) for i, n in enumerate(RANDOM)])
def test_random_layers_draw_as_with_keras(name: str) -> None:
    """Compiled, the numbers have Keras' mean and spread, are others at each step, and follow from the seed."""
    ours, again, other = (drawn(name, "epoch", seed) for seed in (1, 1, 2))
    theirs = drawn(name, "keras", 1)
    assert np.array_equal(ours, again)
    assert len({step.tobytes() for step in (*ours, *other)}) == 8
    # 40,000 numbers; of SpatialDropout and of RNN dropout a draw is for ten of them, so that 4,000 are independent.
    spread = theirs.std()
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5 * spread / np.sqrt(4_000))
    assert ours.std() == pytest.approx(spread, rel=0.1)


@pytest.mark.slow
def test_uncompiled_random_layers_draw_keras_own_numbers() -> None:
    """The program `graph` draws to the bit what Keras draws."""
    for name in RANDOM:
        assert np.array_equal(drawn(name, "graph", 1), drawn(name, "keras", 1)), name


# ------------------------------------------------------------------------------------------------------- large arrays


@pytest.mark.parametrize("program", ["graph", "steps", "epoch"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("examples", [EXAMPLES, 32])
def test_arrays_that_stay_where_they_are_train_the_same(
    program: str, shuffle: bool, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied a chunk of one batch at a time, an epoch is what it is of arrays that are copied at once."""
    data = X[:examples].astype("float64"), Y[:examples]
    ours, theirs = twins(mlp)
    arguments: dict[str, Any] = {
        "batch_size": BATCH, "epochs": 2, "shuffle": shuffle, "verbose": 0, "seed": 1, "program": program,
        "validation_data": data,
    }  # fmt: skip
    clock = training.Clock()
    want = training.fit(theirs, *data, **arguments).history
    monkeypatch.setattr(arrays, "MEMORY_SHARE", 0.0)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1)
    got = training.fit(ours, *data, clock=clock, **arguments).history
    assert clock.program == program
    assert difference(ours, theirs) <= 1e-6
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-5)


def test_a_memory_mapped_array_is_trained_from_where_it_is(tmp_path: Path) -> None:
    """An array in a file trains as with Keras."""
    ours, theirs = twins(mlp)
    x = mapped(tmp_path)
    training.fit(ours, x, Y, BATCH, shuffle=False, verbose=0)
    theirs.fit(x, Y, BATCH, shuffle=False, verbose=0)
    assert difference(ours, theirs) <= 1e-5


# ----------------------------------------------------------------------------------------------------------- around it


def test_an_unknown_program_is_refused() -> None:
    """A kind of program that does not exist is named, with those that do."""
    with pytest.raises(ValueError, match="program is 'fast'; legal: 'epoch', 'steps', 'graph', 'keras'"):
        training.fit(mlp(), X, Y, program="fast")


def test_keras_can_be_asked_for() -> None:
    """`program="keras"` is Keras' own fit, without a warning."""
    ours, theirs = twins(mlp)
    clock = training.Clock()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="mlplab")
        training.fit(ours, X, Y, BATCH, shuffle=False, verbose=0, program="keras", clock=clock)
    theirs.fit(X, Y, BATCH, shuffle=False, verbose=0)
    assert difference(ours, theirs) == 0
    assert clock.program == "keras"


AUTOLOGGED = """
import warnings
import keras, mlflow, numpy as np
from mlplab import training
mlflow.set_tracking_uri("sqlite:///store.db")
mlflow.keras.autolog()
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    training.fit(model, np.ones((8, 3)), np.ones(8), verbose=0)
    (said,) = [one for one in caught if "mlplab" in str(one.message)]
assert "MlflowCallback" in str(said.message), said
assert said.filename == "<string>", f"the warning points at {said.filename} and not at the caller"
mlflow.keras.autolog(disable=True)
with warnings.catch_warnings():
    warnings.filterwarnings("error", message="mlplab")
    with mlflow.start_run() as run:
        training.fit(model, np.ones((8, 3)), np.ones(8), epochs=2, verbose=0, callbacks=[mlflow.keras.MlflowCallback()])
assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")) == 2
"""


@pytest.mark.slow
def test_autologging_says_that_it_does_not_see_this_fit(tmp_path: Path) -> None:
    """MLflow's autologging patches `Model.fit`: a warning says so, and its remedy records the epochs."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", AUTOLOGGED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]


def test_another_backend_of_keras_is_refused_in_one_sentence() -> None:
    """KERAS_BACKEND=jax is named with what is legal, whether or not that backend is installed."""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "mlplab", "run", "optimizers", "--dataset", "digits"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("KERAS_BACKEND is 'jax'; legal: 'tensorflow'") == 1
    assert "Traceback" not in done.stderr
    command = [sys.executable, "-c", "import mlplab.training"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert "UsageError: mlplab trains Keras models on TensorFlow" in done.stderr


@pytest.mark.parametrize(("backend", "works"), [("jax", False), ("tensorflow", True)])
def test_keras_imported_with_another_backend_is_refused(backend: str, works: bool) -> None:
    """Where keras.json chose the backend before mlplab could, the sentence says so."""
    imported = f"""if True:
        import sys, types
        sys.modules["keras"] = types.SimpleNamespace(config=types.SimpleNamespace(backend=lambda: {backend!r}))
        from mlplab import backend
        backend.check()
    """
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", imported], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is works
    assert works or "Keras was imported with the backend 'jax'; legal: 'tensorflow'" in done.stderr
