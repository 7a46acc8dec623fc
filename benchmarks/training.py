"""The compiled epoch against Keras, PyTorch and JAX: ratios of medians, measured in turns in one run.

Usage: python benchmarks/training.py [--quick] [--repetitions N]

MLP 784-128-64-10, SGD 0.01, on MNIST's 60,000 training images; MLP 3072-128-64-10 with dropout 0.3 on CIFAR-10's
50,000. Every contender has a process of its own and they take turns, one repetition each, so that no one's idle threads
disturb another and a slow minute of the machine hits all. What is timed is training alone, after a warm-up that
compiles. mlplab is measured through its public `fit`, metrics and callbacks included, on uint8 tensors; Keras on the
float32 arrays that suit it best. Its defaults are what a user gets who says nothing, with its progress bar, written to
nowhere; silent, it is a row of its own. Keras and PyTorch at batch size 1 are timed on a part of the epoch; all times
are per image.
Data: MNIST and CIFAR-10 as mlplab finds them, else random arrays of their shapes, which the output then says.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlplab.checks import UnavailableError
from mlplab.data import load

LAYERS = (128, 64)
Repetition = Callable[[], int]  # Trains, and returns how many images it took.

CASES = {
    "MNIST, batch 1": ("mnist", 1, 0.0),
    "MNIST, batch 128": ("mnist", 128, 0.0),
    "MNIST, full batch": ("mnist", 60_000, 0.0),
    "CIFAR-10, dropout 0.3, batch 128": ("cifar10", 128, 0.3),
}
# 0: measured, with no target of its own; None: not measured.
TARGETS = {
    "Keras, defaults": (100.0, 5.0, 1.8, 5.0),
    "Keras, defaults, silent": (0, 0, 0, 0),
    "Keras, best settings": (20.0, 2.0, 1.2, None),
    "PyTorch eager": (15.0, 2.5, 1.0, None),
    "JAX lax.scan": (0.95, 0.95, 0.95, None),
}


def arrays(name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """All training images, uint8 (n, features), their labels, int32, and where they came from."""
    try:
        data = load(name)
    except UnavailableError:
        n, features = (60_000, 784) if name == "mnist" else (50_000, 3_072)
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (n, features), np.uint8), rng.integers(0, 10, n, np.int32), "random arrays"
    x = np.concatenate([data.train.x, data.validation.x])
    return x, np.concatenate([data.train.y, data.validation.y]), data.label


def mlplab_fit(x: np.ndarray, y: np.ndarray, batch: int, dropout: float) -> Repetition:
    """`mlplab.training.fit`."""
    import keras
    import tensorflow as tf

    from mlplab import models, training

    shape: Any = SimpleNamespace(input_shape=(x.shape[1],), classes=10)  # all that the model asks of its data
    model = models.mlp(shape, hidden=LAYERS, dropout=dropout)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    device = tf.constant(x), tf.constant(y)

    def repetition() -> int:
        training.fit(model, *device, batch_size=batch, epochs=1, verbose=0, seed=1)
        return len(x)

    return repetition


def keras_fit(
    x: np.ndarray, y: np.ndarray, batch: int, dropout: float, best: bool = False, verbose: str | int = "auto"
) -> Repetition:
    """`keras.Model.fit`, at its defaults or with the settings that are best for it."""
    import keras

    layers: list[keras.layers.Layer] = [keras.Input((x.shape[1],))]
    for units in LAYERS:
        layers.append(keras.layers.Dense(units, activation="relu"))
        if dropout:
            layers.append(keras.layers.Dropout(dropout))
    model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
    settings = {"steps_per_execution": {1: 500, 128: 100}.get(batch, 1), "jit_compile": True} if best else {}
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"], **settings)
    images = min(len(x), (10_000 if best else 2_000) if batch == 1 else len(x))
    part = (x[:images] / np.float32(255)), y[:images]

    def repetition() -> int:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            model.fit(*part, batch_size=batch, epochs=1, verbose=verbose)
        return images

    return repetition


def keras_silent(x: np.ndarray, y: np.ndarray, batch: int, dropout: float) -> Repetition:
    """`keras.Model.fit` at its defaults, without its progress bar."""
    return keras_fit(x, y, batch, dropout, verbose=0)


def keras_best(x: np.ndarray, y: np.ndarray, batch: int, dropout: float) -> Repetition:
    """`keras.Model.fit` with steps_per_execution and jit_compile."""
    return keras_fit(x, y, batch, dropout, best=True, verbose=0)


def torch_eager(x: np.ndarray, y: np.ndarray, batch: int, dropout: float) -> Repetition:
    """PyTorch eager, data as tensors in memory, a new permutation each epoch."""
    import torch

    widths = [x.shape[1], *LAYERS, 10]
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    criterion = torch.nn.CrossEntropyLoss()
    images = min(len(x), 10_000 if batch == 1 else len(x))
    inputs, labels = torch.from_numpy(x[:images] / np.float32(255)), torch.from_numpy(y[:images].astype(np.int64))

    def repetition() -> int:
        order = torch.randperm(images)
        for start in range(0, images, batch):
            index = order[start : start + batch]
            optimizer.zero_grad(set_to_none=True)
            criterion(net(inputs[index]), labels[index]).backward()
            optimizer.step()
        return images

    return repetition


def jax_scan(x: np.ndarray, y: np.ndarray, batch: int, dropout: float) -> Repetition:
    """A JAX epoch as one jitted `lax.scan`, parameters donated, loss and accuracy summed as Keras does."""
    import jax
    import jax.numpy as jnp

    widths = [x.shape[1], *LAYERS, 10]
    keys = jax.random.split(jax.random.key(0), 3)
    params = [
        (jax.random.normal(k, (a, b)) * (2 / (a + b)) ** 0.5, jnp.zeros(b))
        for k, a, b in zip(keys, widths, widths[1:], strict=False)
    ]
    inputs, labels = jnp.asarray(x), jnp.asarray(y)
    steps, rest = divmod(len(x), batch)

    def loss(params, xs, ys):
        h = xs.astype(jnp.float32) / 255
        for w, b in params[:-1]:
            h = jax.nn.relu(h @ w + b)
        logits = h @ params[-1][0] + params[-1][1]
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), ys[:, None], axis=1).mean()
        return nll, (logits.argmax(axis=1) == ys).mean()

    def step(params, index):
        (value, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(params, inputs[index], labels[index])
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)
        return params, (value, accuracy)

    def epoch(params, order):
        params, metrics = jax.lax.scan(step, params, order[: steps * batch].reshape(steps, batch))
        if rest:
            params, _ = step(params, order[steps * batch :])
        return params, jax.tree.map(jnp.mean, metrics)

    run = jax.jit(epoch, donate_argnums=0)
    state = {"params": params}
    rng = np.random.default_rng(0)

    def repetition() -> int:
        state["params"], metrics = run(state["params"], jnp.asarray(rng.permutation(len(x)).astype(np.int32)))
        jax.block_until_ready((state["params"], metrics))
        return len(x)

    return repetition


CONTENDERS = {
    "mlplab": mlplab_fit,
    "Keras, defaults": keras_fit,
    "Keras, defaults, silent": keras_silent,
    "Keras, best settings": keras_best,
    "PyTorch eager": torch_eager,
    "JAX lax.scan": jax_scan,
}


def contend(name: str, case: str, pipe: Connection) -> None:
    """A contender's process: warms up, then trains one repetition whenever told, answering seconds per image."""
    dataset, batch, dropout = CASES[case]
    try:
        x, y, _ = arrays(dataset)
        repetition = CONTENDERS[name](x, y, min(batch, len(x)), dropout)
        repetition()
    except ImportError as error:
        pipe.send(f"{error.name} is not installed")
        return
    pipe.send(None)
    while pipe.recv():
        started = time.perf_counter()
        images = repetition()
        pipe.send((time.perf_counter() - started) / images)


def heard(name: str, pipe: Connection) -> Any:
    """What a contender's process says; the benchmark ends where one has died."""
    try:
        return pipe.recv()
    except EOFError:
        sys.exit(f"the process of {name!r} died; its last lines are above. Out of memory? Nothing more is measured.")


def measure(case: str, names: list[str], repetitions: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds per image of every contender and repetition, and why a contender is missing."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    missing: dict[str, str] = {}
    for name in names:
        pipes[name], other = context.Pipe()
        context.Process(target=contend, args=(name, case, other), daemon=True).start()
        other.close()
        if problem := heard(name, pipes[name]):
            missing[name] = problem
            del pipes[name]
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(repetitions):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(heard(name, pipe))
    for pipe in pipes.values():
        pipe.send(False)
    return seconds, missing


SGEMM = """
import numpy as np, time
a = np.random.rand(2048, 2048).astype("float32")
a @ a
best = min((lambda t: (a @ a, time.perf_counter() - t)[1])(time.perf_counter()) for _ in range(10))
print(2 * 2048**3 / best)
"""


def sgemm_rate() -> float:
    """Float32 matrix multiplication of this machine, FLOP/s, with the kernel NumPy's BLAS chooses by itself."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    done = subprocess.run([sys.executable, "-c", SGEMM], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def epoch_flop(images: int, features: int) -> float:
    """Multiplications and additions of an epoch's matrix products: forward, weight gradients, input gradients."""
    widths = [features, *LAYERS, 10]
    products = [a * b for a, b in itertools.pairwise(widths)]
    # The first layer needs no gradient of its input.
    return 2.0 * images * (3 * sum(products) - products[0])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="two repetitions, to see that it works")
    parser.add_argument("--repetitions", type=int, default=7, help="turns of each contender (default: %(default)s)")
    options = parser.parse_args()
    repetitions = 2 if options.quick else options.repetitions
    print(f"Ratios of medians of {repetitions} turns; mlplab's time is 1. Spread: (slowest - fastest) / median.\n")
    print("| case | against | times faster | target | | images timed | spread |\n|---|---|---:|---:|---|---:|---:|")
    for column, case in enumerate(CASES):
        against = [name for name, targets in TARGETS.items() if targets[column] is not None]
        seconds, missing = measure(case, ["mlplab", *against], repetitions)
        ours = statistics.median(seconds["mlplab"])
        for name in against:
            target = TARGETS[name][column]
            aim = f"≥ {target:g}" if target else ""
            if name in missing:
                print(f"| {case} | {name} | – | {aim} | {missing[name]} | | |")
                continue
            middle = statistics.median(seconds[name])
            spread = (max(seconds[name]) - min(seconds[name])) / middle
            verdict = "" if not target else "pass" if middle / ours >= target else "FAIL"
            part = {"Keras, best settings": "10,000", "PyTorch eager": "10,000", "JAX lax.scan": "all"}.get(
                name, "2,000"
            )
            timed = part if CASES[case][1] == 1 else "all"
            print(f"| {case} | {name} | {middle / ours:.2f} | {aim} | {verdict} | {timed} | {spread:.0%} |", flush=True)
        own = (max(seconds["mlplab"]) - min(seconds["mlplab"])) / ours
        dataset, batch, _ = CASES[case]
        x, _, source = arrays(dataset)
        note = f"mlplab: {ours * 1e6:.2f} µs an image, spread {own:.0%}, on {source}"
        if batch == 128 and dataset == "mnist":
            share = epoch_flop(len(x), x.shape[1]) / (ours * len(x)) / sgemm_rate()
            note += f", {share:.0%} of this machine's sgemm rate"
        print(f"| | *{note}* | | | | | |", flush=True)


if __name__ == "__main__":
    main()
