"""`training.fit` against `keras.Model.fit` for networks of all kinds: equal, and how much faster.

Usage: python benchmarks/zoo.py [--rows SUBSTRING…] [--list] [--quick] [--kinds]

A row is a network with its data, batch size and optimizer. For each row are given

- the difference after five steps (at full batch after one): the norm of the difference of all weights from Keras' over
  their norm. Where a network draws random numbers, that of the program `graph`, which draws as Keras does; of the
  others `tests/test_fit_parity.py` compares the distribution.
- time per epoch of a long training: mlplab, which chooses its program, Keras with its defaults and with each of the
  settings that may be best for it, in one process, in turns; the fastest turn of each counts. Keras is silent.
- total time of a first `fit` of ten epochs, tracing and compiling included, each in a process of its own that has no
  compiled programs yet, and with the program that it chose; imports are left out.
- for some rows time per epoch of Keras on JAX, where that is installed, with `steps_per_execution=64`.

Numbers are Keras' time over mlplab's. Arrays are random, but for MNIST's and CIFAR-10's where they are found.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Arrays = tuple[Any, Any]
EQUAL = 1e-5
EPOCHS = 10
LIMIT_SECONDS = 300
KERAS = {
    "defaults": {},
    "jit": {"jit_compile": True},
    "steps": {"steps_per_execution": True},
    "jit, steps": {"jit_compile": True, "steps_per_execution": True},
}
"""Settings of `compile` that may be Keras' best; how many steps an execution has is the row's."""


@dataclass(frozen=True)
class Row:
    """A network and what it is trained on.

    Attributes:
        model: makes the network, uncompiled.
        data: makes x and y.
        optimizer: makes it.
        random: whether the network draws random numbers.
        best: how many times as fast as Keras' best it has to be per epoch.
        defaults: how many times as fast as Keras' defaults per epoch.
        jax: whether it is measured on JAX, too.
        steps: an execution of Keras' has, where it has several.
    """

    model: Callable[[], Any]
    data: Callable[[], Arrays]
    batch: int
    optimizer: Callable[[], Any]
    loss: Any = "sparse_categorical_crossentropy"
    settings: dict[str, Any] = field(default_factory=dict)
    random: bool = False
    best: float = 1.0
    defaults: float = 1.0
    jax: bool = False
    steps: int = 32


def pixels(name: str, n: int, shape: tuple[int, ...]) -> Callable[[], Arrays]:
    def make() -> Arrays:
        from mlplab.checks import UnavailableError
        from mlplab.data import load

        try:
            data = load(name)
            x, y = np.concatenate([data.train.x, data.validation.x]), np.concatenate([data.train.y, data.validation.y])
        except UnavailableError:
            rng = np.random.default_rng(0)
            x, y = rng.integers(0, 256, (n, math.prod(shape)), np.uint8), rng.integers(0, 10, n)
        return (x[:n] / np.float32(255)).reshape(n, *shape), y[:n]

    return make


def noise(n: int, *shape: int, classes: int = 10) -> Callable[[], Arrays]:
    def make() -> Arrays:
        rng = np.random.default_rng(0)
        return rng.random((n, *shape), "float32"), rng.integers(0, classes, n)

    return make


def words(n: int, length: int, vocabulary: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        rng = np.random.default_rng(0)
        x = rng.integers(1, vocabulary, (n, length)).astype("int32")
        x[np.arange(length) >= rng.integers(length // 2, length + 1, (n, 1))] = 0
        return x, rng.integers(0, 10, n)

    return make


def itself(n: int, *shape: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        x = np.random.default_rng(0).random((n, *shape), "float32")
        return x, x

    return make


def stack(shape: tuple[int, ...], *layers: Any, dtype: str | None = None, softmax: bool = True) -> Callable[[], Any]:
    """A `Sequential`; a layer is its name, followed by its arguments and a dict of keyword arguments."""

    def make() -> Any:
        import keras

        def layer(name: str, *arguments: Any) -> Any:
            named = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
            given = [layer(*a) if isinstance(a, tuple) and isinstance(a[0], str) else a for a in arguments]
            return getattr(keras.layers, name)(*given[: len(given) - bool(named)], **named)

        last = [keras.layers.Dense(10, activation="softmax", dtype="float32")] if softmax else []
        return keras.Sequential([keras.Input(shape, dtype=dtype), *(layer(*one) for one in layers), *last])

    return make


RELU = {"activation": "relu"}
MLP = stack((784,), ("Dense", 128, RELU), ("Dense", 64, RELU))


def optimizer(name: str, *arguments: Any, **named: Any) -> Callable[[], Any]:
    def make() -> Any:
        import keras

        return getattr(keras.optimizers, name)(*arguments, **named)

    return make


def scheduled() -> Any:
    import keras

    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 1_000), momentum=0.9, global_clipnorm=1.0)


def residual() -> Any:
    import keras
    from keras import layers

    x = inputs = keras.Input((16, 16, 8))
    for _ in range(2):
        x = layers.Add()(
            [x, layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.Conv2D(8, 3, padding="same")(x)))]
        )
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def attention() -> Any:
    import keras
    from keras import layers

    inputs = keras.Input((32,), dtype="int32")
    x = layers.Embedding(1_000, 64)(inputs)
    for _ in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(4, 16)(x, x)]))
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(64)(layers.Dense(128, activation="gelu")(x))]))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def two_of_each() -> Any:
    import keras
    from keras import layers

    left, right = keras.Input((32,), name="left"), keras.Input((32,), name="right")
    x = layers.Concatenate()([layers.Dense(64, activation="relu")(left), layers.Dense(64, activation="relu")(right)])
    heads = {"label": layers.Dense(10, activation="softmax", name="label")(x), "sum": layers.Dense(1, name="sum")(x)}
    return keras.Model({"left": left, "right": right}, heads)


def two_of_each_data() -> Arrays:
    rng = np.random.default_rng(0)
    x = {"left": rng.random((6_400, 32), "float32"), "right": rng.random((6_400, 32), "float32")}
    return x, {"label": rng.integers(0, 10, 6_400), "sum": x["left"].sum(1, keepdims=True)}


def vae() -> Any:
    import keras
    import tensorflow as tf
    from keras import layers

    class VAE(keras.Model):
        """As keras.io has it: without `call`, and with a `train_step` of its own."""

        def __init__(self) -> None:
            super().__init__()
            inputs = keras.Input((784,))
            x = layers.Dense(64, activation="relu")(inputs)
            self.encoder = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(2)(x)])
            self.decoder = keras.Sequential([keras.Input((2,)), layers.Dense(64, activation="relu"), layers.Dense(784)])
            self.draw = keras.random.SeedGenerator(1)
            self.total = keras.metrics.Mean(name="loss")

        @property
        def metrics(self) -> list[Any]:
            return [self.total]

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                mean, log_variance = self.encoder(data)
                drawn = keras.random.normal(tf.shape(mean), seed=self.draw)
                rebuilt = self.decoder(mean + tf.exp(0.5 * log_variance) * drawn)
                divergence = -0.5 * (1 + log_variance - tf.square(mean) - tf.exp(log_variance))
                loss = tf.reduce_mean(tf.square(rebuilt - data)) + 1e-3 * tf.reduce_mean(divergence)
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.total.update_state(loss)
            return {"loss": self.total.result()}

    return VAE()


CONV = ("Conv2D", 32, 3, RELU)
ADAM, SGD = optimizer("Adam"), optimizer("SGD", 0.01)
MNIST = pixels("mnist", 60_000, (784,))
PLAIN = noise(6_400, 784)
SAME = {"padding": "same", **RELU}
TWO = {"label": "sparse_categorical_crossentropy", "sum": "mse"}

ROWS: dict[str, Row] = {
    "MLP on MNIST, SGD, batch 1": Row(MLP, pixels("mnist", 2_000, (784,)), 1, SGD, defaults=51, jax=True, steps=500),
    "MLP on MNIST, RMSprop, batch 16": Row(MLP, pixels("mnist", 16_000, (784,)), 16, optimizer("RMSprop")),
    "MLP on MNIST, SGD, batch 128": Row(MLP, MNIST, 128, SGD, defaults=4.8, jax=True, steps=100),
    "MLP on MNIST, SGD, full batch": Row(MLP, MNIST, 60_000, SGD, defaults=3.3),
    "MLP on CIFAR-10, dropout": Row(
        stack((3072,), ("Dense", 128, RELU), ("Dropout", 0.3), ("Dense", 64, RELU), ("Dropout", 0.3)),
        pixels("cifar10", 12_800, (3072,)), 128, ADAM, random=True,
    ),
    "wide MLP, 1024–1024": Row(stack((784,), ("Dense", 1024, RELU), ("Dense", 1024, RELU)), PLAIN, 128, ADAM),
    "MLP, batch norm": Row(
        stack((784,), ("Dense", 128, {"use_bias": False}), ("BatchNormalization",), ("ReLU",)), PLAIN, 128, SGD
    ),
    "MLP, layer norm, GELU": Row(
        stack((784,), ("Dense", 256, {"activation": "gelu"}), ("LayerNormalization",), ("Dense", 256, RELU)),
        PLAIN, 64, SGD,
    ),
    "MLP, Gaussian noise": Row(
        stack((784,), ("GaussianNoise", 0.1), ("Dense", 128, RELU), ("GaussianDropout", 0.2)), PLAIN, 64, SGD,
        random=True,
    ),
    "MLP, AdamW": Row(MLP, PLAIN, 64, optimizer("AdamW", 1e-3, weight_decay=0.01)),
    "MLP, Lion": Row(MLP, PLAIN, 64, optimizer("Lion", 1e-4)),
    "MLP, averaged weights": Row(MLP, PLAIN, 64, optimizer("SGD", 0.01, use_ema=True, ema_momentum=0.9)),
    "MLP, accumulated gradients": Row(MLP, PLAIN, 64, optimizer("SGD", 0.01, gradient_accumulation_steps=4)),
    "MLP, schedule, clipping": Row(MLP, PLAIN, 64, scheduled),
    "MLP, mixed_bfloat16": Row(
        stack((784,), *[("Dense", u, {**RELU, "dtype": "mixed_bfloat16"}) for u in (128, 64)]), PLAIN, 128, SGD
    ),
    "small CNN, Conv32–Conv64": Row(
        stack((32, 32, 3), CONV, ("Conv2D", 64, 3, RELU), ("GlobalAveragePooling2D",)),
        pixels("cifar10", 1_280, (32, 32, 3)), 64, ADAM, best=1.3, jax=True,
    ),
    "LeNet on MNIST": Row(
        stack((28, 28, 1), ("Conv2D", 6, 5, RELU), ("MaxPooling2D", 2), ("Conv2D", 16, 5, RELU), ("MaxPooling2D", 2),
              ("Flatten",), ("Dense", 84, RELU)),
        pixels("mnist", 6_400, (28, 28, 1)), 128, SGD,
    ),
    "tiny CNN, 8×8": Row(stack((8, 8, 1), ("Conv2D", 8, 3, RELU), ("Flatten",)), noise(6_400, 8, 8, 1), 16, SGD),
    "strided CNN": Row(
        stack((28, 28, 1), ("Conv2D", 16, 3, {"strides": 2, **RELU}), ("Conv2D", 32, 3, {"strides": 2, **RELU}),
              ("Flatten",)),
        noise(3_200, 28, 28, 1), 64, ADAM,
    ),
    "CNN, batch norm": Row(
        stack((28, 28, 1), ("Conv2D", 16, 3, {"use_bias": False}), ("BatchNormalization",), ("ReLU",),
              ("AveragePooling2D", 2), ("Conv2D", 16, 3, RELU), ("Flatten",)),
        noise(2_560, 28, 28, 1), 64, SGD,
    ),
    "residual CNN": Row(residual, noise(2_560, 16, 16, 8), 64, ADAM),
    "depthwise": Row(
        stack((28, 28, 4), ("DepthwiseConv2D", 3, RELU), ("Conv2D", 16, 1, RELU), ("GlobalAveragePooling2D",)),
        noise(3_200, 28, 28, 4), 64, ADAM,
    ),
    "separable": Row(
        stack((28, 28, 1), ("SeparableConv2D", 16, 3, RELU), ("SeparableConv2D", 32, 3, {"strides": 2, **RELU}),
              ("GlobalAveragePooling2D",)),
        noise(3_200, 28, 28, 1), 64, ADAM,
    ),
    "transposed": Row(
        stack((14, 14, 8), ("Conv2DTranspose", 16, 3, {"strides": 2, **RELU}), ("Conv2DTranspose", 8, 3, RELU),
              ("Flatten",)),
        noise(2_560, 14, 14, 8), 64, SGD,
    ),
    "Conv1D": Row(
        stack((128, 4), ("Conv1D", 32, 5, RELU), ("Conv1D", 32, 5, RELU), ("GlobalMaxPooling1D",)),
        noise(6_400, 128, 4), 64, ADAM,
    ),
    "Conv3D": Row(
        stack((8, 16, 16, 1), ("Conv3D", 8, 3, RELU), ("Conv3D", 8, 3, RELU), ("Flatten",)),
        noise(1_280, 8, 16, 16, 1), 32, SGD,
    ),
    "CNN, augmentation": Row(
        stack((28, 28, 1), ("RandomFlip",), ("RandomTranslation", 0.1, 0.1), ("Conv2D", 8, 3, RELU), ("Flatten",)),
        noise(3_200, 28, 28, 1), 64, SGD, random=True,
    ),
    "pooling alone": Row(
        stack((28, 28, 1), ("MaxPooling2D", 2), ("Flatten",), ("Dense", 64, RELU)), noise(12_800, 28, 28, 1), 64, ADAM
    ),
    "LSTM": Row(stack((40, 16), ("LSTM", 32)), noise(3_200, 40, 16), 32, ADAM, jax=True),
    "GRU": Row(stack((40, 16), ("GRU", 32)), noise(3_200, 40, 16), 32, ADAM),
    "bidirectional LSTM, masked": Row(
        stack((40,), ("Embedding", 1_000, 16, {"mask_zero": True}), ("Bidirectional", ("LSTM", 16)), dtype="int32"),
        words(2_560, 40, 1_000), 32, ADAM,
    ),
    "Conv1D, then LSTM": Row(
        stack((64, 8), ("Conv1D", 16, 5, {"strides": 2, **RELU}), ("LSTM", 16)), noise(3_200, 64, 8), 64, ADAM
    ),
    "Embedding, Adam": Row(
        stack((100,), ("Embedding", 20_000, 32), ("GlobalAveragePooling1D",), dtype="int32"),
        words(6_400, 100, 20_000), 64, ADAM, jax=True,
    ),
    "Embedding, SGD": Row(
        stack((100,), ("Embedding", 20_000, 32), ("GlobalAveragePooling1D",), dtype="int32"),
        words(12_800, 100, 20_000), 64, optimizer("SGD", 0.1),
    ),
    "attention": Row(attention, words(2_560, 32, 1_000), 32, SGD, jax=True),
    "two inputs, two outputs": Row(two_of_each, two_of_each_data, 32, SGD, loss=TWO, settings={"metrics": None}),
    "autoencoder": Row(
        stack((784,), ("Dense", 64, RELU), ("Dense", 16, RELU), ("Dense", 64, RELU), ("Dense", 784), softmax=False),
        itself(6_400, 784), 64, ADAM, loss="mse", settings={"metrics": None},
    ),
    "VAE with a train_step": Row(
        vae, lambda: (itself(6_400, 784)()[0], None), 64, ADAM, loss=None, settings={"metrics": None}, random=True
    ),
}  # fmt: skip


def compiled(row: Row, seed: int = 1, **settings: Any) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    model = row.model()
    if settings.get("steps_per_execution") is True:
        settings["steps_per_execution"] = row.steps
    model.compile(row.optimizer(), row.loss, **{"metrics": ["accuracy"], **row.settings, **settings})
    return model


def difference(row: Row, program: str) -> float:
    """Of the weights after five steps, from Keras' own."""
    import keras

    from mlplab import training

    x, y = row.data()
    x, y = keras.tree.map_structure(lambda a: None if a is None else a[: 5 * row.batch], (x, y))
    ours, theirs = compiled(row), compiled(row)
    training.fit(ours, x, y, row.batch, shuffle=False, verbose=0, program="graph" if row.random else program)
    theirs.fit(x, y, row.batch, shuffle=False, verbose=0)
    a, b = (np.concatenate([np.ravel(w) for w in model.get_weights()]) for model in (ours, theirs))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def timed(model: Any, x: Any, y: Any, batch: int, epochs: int) -> list[float]:
    """Seconds of each epoch of Keras' own `fit`, but the first."""
    import keras

    seconds: list[float] = []

    class Timer(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.started)

    model.fit(x, y, batch, 1 + epochs, verbose=0, callbacks=[Timer()])
    return seconds[1:]


def per_epoch(row: Row, turns: int, epochs: int, kinds: bool) -> dict[str, Any]:
    """Seconds of an epoch of mlplab and of Keras with each of its settings, in turns; and the difference."""
    import keras

    from mlplab import training

    x, y = row.data()
    clock = training.Clock()

    def ours(program: str | None = None) -> Callable[[], list[float]]:
        model = compiled(row)

        def run() -> list[float]:
            clock.__init__()  # type: ignore[misc]

            def enough(epoch: int, logs: Any) -> None:
                model.stop_training = len(clock.train_seconds) > epochs

            stop = keras.callbacks.LambdaCallback(on_epoch_end=enough)
            training.fit(
                model, x, y, row.batch, 1_000_000, verbose=0, callbacks=[stop], clock=clock, program=program, seed=1
            )
            return clock.train_seconds[1:]

        return run

    def theirs(settings: dict[str, Any]) -> Callable[[], list[float]]:
        model = compiled(row, **settings)
        return lambda: timed(model, x, y, row.batch, epochs)

    contenders = {"mlplab": ours(), **{f"Keras, {name}": theirs(settings) for name, settings in KERAS.items()}}
    contenders |= {kind: ours(kind) for kind in (training.PROGRAMS[:3] if kinds else ())}
    best: dict[str, float] = {}
    failed: dict[str, str] = {}
    program = ""
    for _ in range(turns):
        for name in list(contenders):
            try:
                seconds = statistics.median(contenders[name]())
            except Exception as error:
                if name in ("mlplab", "Keras, defaults"):
                    raise
                # A setting that Keras cannot train this with is no setting.
                failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                del contenders[name]
                continue
            best[name] = min(seconds, best.get(name, math.inf))
            program = clock.program if name == "mlplab" else program
            if name != "mlplab" and seconds > 20 * best["mlplab"]:
                del contenders[name]  # slow: once is enough
    return {"seconds": best, "failed": failed, "program": program, "difference": difference(row, program)}


def total(row: Row, contender: str) -> dict[str, Any]:
    """Seconds of a first `fit` of ten epochs, but for imports."""
    import keras

    x, y = row.data()
    if contender != "mlplab":
        keras.Model.fit  # noqa: B018 (it is imported here and not by the clock)
        started = time.perf_counter()
        compiled(row, **KERAS[contender]).fit(x, y, row.batch, EPOCHS, verbose=0)
        return {"seconds": time.perf_counter() - started}
    from mlplab import training

    clock = training.Clock()
    started = time.perf_counter()
    training.fit(compiled(row), x, y, row.batch, EPOCHS, verbose=0, clock=clock)
    return {"seconds": time.perf_counter() - started, "program": clock.program}


def on_jax(row: Row, epochs: int) -> dict[str, Any]:
    """Seconds of an epoch of Keras on JAX."""
    x, y = row.data()
    model = compiled(row, steps_per_execution=64)
    return {"seconds": min(timed(model, x, y, row.batch, epochs))}


def elsewhere(name: str, what: str, *arguments: str, **environment: str) -> Any:
    """What a process of its own measures, or why it did not."""
    with tempfile.TemporaryDirectory() as cache:
        try:
            done = subprocess.run(
                [sys.executable, __file__, "--one", name, what, *arguments],
                env={**os.environ, "XDG_CACHE_HOME": cache, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
                capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"more than {LIMIT_SECONDS} s"
    if done.returncode:
        return (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(name: str, what: str, *arguments: str) -> None:
    """The other end of `elsewhere`."""
    row = ROWS[name]
    if what == "epochs":
        found = per_epoch(row, int(arguments[0]), int(arguments[1]), bool(arguments[2:]))
    elif what == "total":
        found = total(row, arguments[0])
    else:
        found = on_jax(row, int(arguments[0]))
    print(json.dumps(found))


def times(seconds: Any, ours: float) -> str:
    return f"{seconds / ours:.2f}" if isinstance(seconds, float) else "–"


def measure(name: str, quick: bool, kinds: bool) -> tuple[list[str], list[str]]:
    """A row's cells, and what it fails at."""
    row = ROWS[name]
    turns, epochs = ("1", "1") if quick else ("3", "3")
    found = elsewhere(name, "epochs", turns, epochs, *["kinds"] * kinds)
    if isinstance(found, str):
        return [name, found], ["it did not run"]
    seconds, away = found["seconds"], found["difference"]
    for setting, why in found["failed"].items():
        print(f"{name}: {setting} does not train: {why}", file=sys.stderr)
    ours = seconds["mlplab"]
    keras = {setting: seconds[f"Keras, {setting}"] for setting in KERAS if f"Keras, {setting}" in seconds}
    best = min(keras, key=keras.__getitem__)
    totals = {who: elsewhere(name, "total", who) for who in dict.fromkeys(["mlplab", "defaults", best])}
    for who in ("mlplab", "defaults"):
        if isinstance(totals[who], str):
            return [name, f"total of {who}: {totals[who]}"], ["it did not run"]
    whole = {who: answer["seconds"] for who, answer in totals.items() if isinstance(answer, dict)}
    jax = elsewhere(name, "jax", epochs, KERAS_BACKEND="jax") if row.jax else ""
    cells = [
        name, found["program"], f"{away:.0e}", times(keras["defaults"], ours), f"{times(keras[best], ours)} ({best})",
        times(jax["seconds"], ours) if isinstance(jax, dict) else jax,
        times(whole.get("defaults"), whole["mlplab"]), times(whole.get(best), whole["mlplab"]),
        totals["mlplab"]["program"],
    ]  # fmt: skip
    cells += [times(seconds.get(kind), ours) for kind in (("epoch", "steps", "graph") if kinds else ())]
    bars = {
        "equal": away <= EQUAL,
        f"≥ {row.best:g} per epoch": keras[best] / ours >= row.best,
        f"≥ {row.defaults:g} against defaults": keras["defaults"] / ours >= row.defaults,
        "≥ 1 in total": whole["defaults"] / whole["mlplab"] >= 1,
    }
    return cells, [bar for bar, met in bars.items() if not met]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rows", nargs="+", default=[""], metavar="SUBSTRING", help="only rows whose name has one")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("--quick", action="store_true", help="one epoch of each, to see that it works")
    parser.add_argument("--kinds", action="store_true", help="time each kind of program, too")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
        return
    names = [name for name in ROWS if any(part.lower() in name.lower() for part in options.rows)]
    if options.list:
        print("\n".join(names))
        return
    heads = ["network", "program", "difference", "epoch: Keras' defaults", "Keras' best", "Keras on JAX"]
    heads += [
        f"{EPOCHS} epochs: Keras' defaults",
        "Keras' best",
        "program",
        *(["epoch", "steps", "graph"] * options.kinds),
        "",
    ]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    missed: dict[str, list[str]] = {}
    for name in names:
        cells, failed = measure(name, options.quick, options.kinds)
        missed |= {name: failed} if failed else {}
        print(f"| {' | '.join(cells)} | {'FAIL: ' + ', '.join(failed) if failed else 'pass'} |", flush=True)
    print(f"\n{len(names) - len(missed)} of {len(names)} rows meet every bar.")
    sys.exit(any("equal" in failed or "it did not run" in failed for failed in missed.values()))


if __name__ == "__main__":
    main()
