"""A drop-in for `keras.Model.fit` on arrays: an epoch is one call into TensorFlow, around the model's own `train_step`.

Keras launches a program for every few steps and returns to Python between them; for a small network that is most of
the time. Here the loop over the whole epoch is the program, so that layers, losses, penalties, optimizers and metrics
stay Keras' own, and Python is entered once an epoch. `evaluate` does the same around `test_step`.
"""

import contextlib
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mlplab import backend

with backend.computing():
    backend.check()  # before Keras looks for a backend that may not be installed
    import keras
import numpy as np

import mlplab
from mlplab import programs
from mlplab.arrays import Arrays, NotCompilableError, split
from mlplab.keras_fit import KERAS, Request, call_once_less, keras_fit, refuse_unfit, warn_of_autologging
from mlplab.keras_fit import Clock as Clock  # a part of what this offers
from mlplab.loops import KINDS
from mlplab.programs import Ready

PROGRAMS = (*KINDS, KERAS)
"""What can train: the kinds of `mlplab.loops`, and `keras.Model.fit`."""

SIDE_BY_SIDE_BATCH = 128
"""The largest batch with which `fit_seeds` trains models side by side; see `side_by_side`."""

EVALUATION_BATCH = 1_000
"""A batch size for evaluations by losses and metrics that are means over the examples, which it does not change."""


@backend.computing()
def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.CallbackList | None = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    *,
    seed: int | None = None,
    clock: Clock | None = None,
    program: str | None = None,
) -> keras.callbacks.History:
    """Trains a compiled Keras model as `model.fit` does, a whole epoch at a time.

    The arguments are those of `keras.Model.fit`. The same weights, logs and callbacks of epochs as Keras' come out of
    it, but for rounding, with these differences:

    - Shuffled batches come in the order of `batch_order`, and layers that draw random numbers draw others of the same
      distribution, by the same seeds: both are the same in each run.
    - Compiled by XLA, a metric may count outputs that are not finite otherwise, as with Keras' `jit_compile`.
    - Labels and ids out of range are refused before training, with their example, and so are labels of a sparse loss
      that are not whole, which Keras cuts off.

    Keras itself trains, and a warning says why, where there is nothing to gain or nothing else is exact: generators,
    data sets, sparse and ragged arrays; callbacks of batches; `steps_per_epoch` and `validation_steps`; a model that is
    to run eagerly, that has a `fit` of its own, under a distribution strategy or with limits of `keras.config`; a step
    that cannot be traced.

    Args:
        model: a compiled Keras model.
        x: NumPy arrays, tensors or pandas' frames of shape (examples, ...), or nested structures of them. Images may
            stay uint8: the model's input layer casts them inside the step. A tensor is used where it is, so that
            several trainings share one copy. Memory-mapped arrays, and arrays larger than `arrays.MEMORY_SHARE` of the
            free memory, are copied a chunk at a time.
        y: what is to be predicted, likewise.
        sample_weight: weights of the examples in the loss, of shape (examples,), likewise.
        seed: of the batch order: epoch e takes the permutation drawn from (seed, e), whatever came before it. None
            draws a seed from NumPy's global generator, which `keras.utils.set_random_seed` seeds.
        clock: is filled while training; its last entries are current when a callback's `on_epoch_end` is called.
        program: what trains, one of `PROGRAMS`; weights of different ones differ by rounding. None chooses: `graph`
            for a short training, which is over before XLA has compiled; for a longer one what is quickest, which is
            timed where it is not certain. XLA leaves to `graph` what it cannot compile.

    Returns:
        Keras' `History`.

    Raises:
        ValueError: as `keras.Model.fit` raises it, for arrays of unequal length and for a model not compiled; for a
            label or id out of range, where it is a `tf.errors.InvalidArgumentError`, too, as Keras raises it.

    Examples:
        >>> clock = Clock()
        >>> history = fit(model, x, y, batch_size=128, epochs=5, validation_split=0.1, clock=clock, verbose=0)
        >>> sorted(history.history), len(clock.train_seconds), clock.program
        (['accuracy', 'loss', 'val_accuracy', 'val_loss'], 5, 'graph')
    """
    request = Request(
        x,
        y,
        batch_size,
        epochs,
        verbose,
        validation_split,
        validation_data,
        shuffle,
        class_weight,
        sample_weight,
        initial_epoch,
        steps_per_epoch,
        validation_steps,
        validation_batch_size,
        validation_freq,
    )
    for epoch in _training(model, request, callbacks, seed, Clock() if clock is None else clock, program):
        epoch.run()
    return model.history


@backend.computing()
def fit_seeds(
    models: Sequence[keras.Model],
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    *,
    seeds: Sequence[int],
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    validation_data: Any = None,
    validation_batch_size: int | None = None,
    callbacks: Sequence[Sequence[keras.callbacks.Callback]] | None = None,
    clocks: Sequence[Clock] | None = None,
    program: str | None = None,
) -> list[keras.callbacks.History]:
    """Trains models as `fit` trains each of them, with its own seed and callbacks, but an epoch of all at a time.

    Side by side on the machine's cores, where `side_by_side` says so and every model compiles; else one after the
    other. Either way a model ends at the weights that its own `fit` gives, and a model whose callback stops it stops,
    while the others go on. Callbacks are called in the caller's thread, one model's after the other's.

    Args:
        models: compiled Keras models. Those that differ in their variables' values alone share a program.
        x: as in `fit`, and so are the arguments that are not named here; the same for all, with one copy on the device.
        seeds: of the models' batch orders.
        callbacks: each model's own.
        clocks: each model's own. The seconds of an epoch of several models are divided evenly among them.
        program: as in `fit`; None chooses once for all.

    Returns:
        Keras' `History` of each.

    Raises:
        ValueError: as `fit` raises it.
    """
    clocks = [Clock() for _ in models] if clocks is None else clocks
    callbacks = [[] for _ in models] if callbacks is None else callbacks
    for model in models:
        model._assert_compile_called("fit")
    beside = False
    with contextlib.suppress(NotCompilableError):  # each training will say so
        data = Arrays.of(x, y, sample_weight, class_weight)
        held_out = None if validation_data is None else Arrays.of_validation(validation_data)
        beside = side_by_side(len(models), data.batch(batch_size))
        if not data.streamed:  # one copy for all
            x, y, sample_weight = data.nest
            class_weight = None  # they are among the sample weights now
            validation_data = None if held_out is None else held_out.nest
    request = Request(
        x,
        y,
        batch_size,
        epochs,
        verbose=0,
        sample_weight=sample_weight,
        class_weight=class_weight,
        validation_data=validation_data,
        validation_batch_size=validation_batch_size,
    )
    running = []
    for model, own, seed, clock in zip(models, callbacks, seeds, clocks, strict=True):
        training = _training(model, request, own, seed, clock, program, one_core=beside)
        epoch = next(training, None)
        program = program or clock.program or None
        if beside:
            running.append((training, epoch))
        while epoch is not None and not beside:
            epoch.run()
            epoch = next(training, None)
    with ThreadPoolExecutor(len(mlplab.cores())) as pool:
        while waiting := [(training, epoch) for training, epoch in running if epoch is not None]:
            began = time.perf_counter()
            list(pool.map(_Epoch.run, [epoch for _, epoch in waiting]))
            seconds = (time.perf_counter() - began) / len(waiting)
            for _, epoch in waiting:
                epoch.seconds = seconds
            running = [(training, next(training, None)) for training, _ in waiting]
    return [model.history for model in models]


def side_by_side(models: int, batch: int) -> bool:
    """Whether so many models train sooner side by side, each on a core, than one after the other on all cores.

    Small operations leave cores idle, large ones do not. Ten trainings of the MNIST MLP (SGD) side by side on 2 cores
    took, of their time one after the other: at batch size 1 to 32 0.35 to 0.5, at 128 0.77, at 512 0.97, at 4096 and
    full batch 1, where each needs hundreds of MB besides. Stacked as a tensor axis in one program they took twice the
    time of side by side at batch size 1: one model's weights stay in a core's own cache, ten models' do not.
    """
    return models > 1 and len(mlplab.cores()) > 1 and batch <= SIDE_BY_SIDE_BATCH


@backend.computing()
def evaluate(
    model: keras.Model,
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
    sample_weight: Any = None,
    *,
    program: str | None = None,
) -> dict[str, Any]:
    """Loss and metrics of a compiled Keras model on arrays, as `model.evaluate(..., return_dict=True)` gives them.

    Args:
        model: a compiled Keras model; metric state is reset, weights are untouched.
        x, y, sample_weight: arrays or tensors of shape (examples, ...), or nested structures of them.
        batch_size: examples a step; by default Keras' 32.
        program: as in `fit`; None: as the model was trained, or else chosen.

    Raises:
        ValueError: as `fit` raises it.
    """
    model._assert_compile_called("evaluate")
    try:
        ready, data = _evaluation(model, (x, y, sample_weight), batch_size, program)
    except NotCompilableError as error:
        # The decorator's frame stands between this one and the caller's; so in `fit`.
        warnings.warn(f"mlplab evaluates this with keras.Model.evaluate: {error}", stacklevel=3)
        scores: dict[str, Any] = model.evaluate(
            x, y, batch_size=batch_size, sample_weight=sample_weight, verbose=0, return_dict=True
        )
        return scores
    return ready.run(model, data)


def choose(
    model: keras.Model,
    x: Any,
    y: Any,
    batch_size: int | None = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    steps: float = math.inf,
) -> str:
    """Which of `PROGRAMS` trains a compiled model quickest for so many steps; its step is traced, and none is run.

    Raises:
        ValueError: as `fit` raises it.
    """
    model._assert_compile_called("fit")
    try:
        refuse_unfit(model, True, None)
        data = Arrays.of(x, y, sample_weight, class_weight)
        programs.build(model, data)
        return programs.chosen(model, data, data.batch(batch_size), steps)
    except NotCompilableError:
        return KERAS


def compile_evaluation(
    model: keras.Model, x: Any, y: Any = None, batch_size: int | None = None, sample_weight: Any = None
) -> None:
    """Compiles what `evaluate` runs on these arrays, so that its first call takes as long as any other.

    Nothing is evaluated, and every variable of the model stays as it is.

    Raises:
        ValueError: as `evaluate` raises it.
    """
    model._assert_compile_called("evaluate")
    with contextlib.suppress(NotCompilableError):  # Keras evaluates it then, as `evaluate` will say
        _evaluation(model, (x, y, sample_weight), batch_size)


def _evaluation(
    model: keras.Model, data: tuple[Any, Any, Any], batch_size: int | None, program: str | None = None
) -> tuple[Ready, Arrays]:
    """The program that evaluates a model on arrays, compiled, and the arrays.

    Raises:
        NotCompilableError: there is none.
    """
    if program == KERAS:
        raise NotCompilableError("it was asked for")
    refuse_unfit(model, True, None)
    arrays = Arrays.of(*data)
    programs.build(model, arrays)
    batch = arrays.batch(batch_size)
    return programs.ready(model, "test", arrays, batch, kind=program, steps=arrays.examples / batch), arrays


def state(model: keras.Model) -> list[Any]:
    """The variables that a training goes on with: weights, dropout seeds and the optimizer's, in a fixed order.

    The model has to be compiled, and its training to have begun.
    """
    every = [*model.variables, *model.optimizer.variables]
    return list({id(variable): variable for variable in every}.values())


def batch_order(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch takes its examples: int32, shape (examples,), a permutation drawn from both seeds."""
    # Drawn in NumPy: tf.random.shuffle repeats itself under XLA (tensorflow #110219, #52277).
    return np.random.default_rng((seed, epoch)).permutation(examples).astype(np.int32)


# A training: its programs compiled, then epoch after epoch, run by whoever has a core for it.


@dataclass
class _Epoch:
    """An epoch that waits to be run; how it went is read when the next is asked for."""

    work: Callable[[], dict[str, Any]]
    logs: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def run(self) -> None:
        started = time.perf_counter()
        self.logs = self.work()
        self.seconds = time.perf_counter() - started


def _training(
    model: keras.Model,
    request: Request,
    callbacks: Any,
    seed: int | None,
    clock: Clock,
    program: str | None,
    one_core: bool = False,
) -> Iterator[_Epoch]:
    """Trains a model: gives out its epochs one by one, to be run before the next is asked for, and does the rest.

    Where Keras has to train, it trains while the first is asked for, and none is given out.
    """
    model._assert_compile_called("fit")
    if program is not None and program not in PROGRAMS:
        raise ValueError(f"program is {program!r}; legal: {', '.join(map(repr, PROGRAMS))}, or None, which chooses.")
    if request.validation_split and request.validation_data is None:
        (x, y, weight), rest = split((request.x, request.y, request.sample_weight), request.validation_split)
        request = dataclasses.replace(request, x=x, y=y, sample_weight=weight, validation_data=rest)
    if program == KERAS:
        keras_fit(model, request, callbacks, clock, seed)
        return
    hooks: Any = callbacks
    begun: list[str] = []
    try:
        started = time.perf_counter()
        if request.steps_per_epoch is not None or request.validation_steps is not None:
            raise NotCompilableError("steps_per_epoch and validation_steps cut an epoch short")
        refuse_unfit(model, request.shuffle, callbacks)
        data = Arrays.of(request.x, request.y, request.sample_weight, request.class_weight)
        held_out = None if request.validation_data is None else Arrays.of_validation(request.validation_data)
        batch = data.batch(request.batch_size)
        steps = -(-data.examples // batch)
        programs.build(model, data)
        seconds = time.perf_counter() - started
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            hooks = keras.callbacks.CallbackList(
                callbacks,
                add_history=True,
                add_progbar=request.verbose != 0,
                verbose=request.verbose,
                epochs=request.epochs,
                steps=steps,
                model=model,
            )
        model.stop_training = False
        hooks.on_train_begin()
        begun.append("on_train_begin")
        # Set by the BackupAndRestore callback when it found a training to go on with.
        first = model._initial_epoch or request.initial_epoch
        if first < request.epochs:
            hooks.on_epoch_begin(first)
            begun.append("on_epoch_begin")
        # As late as Keras traces, so that what a callback has changed counts.
        started = time.perf_counter()
        # One batch holds the whole set in any order: nothing to shuffle, nothing to gather.
        shuffled = request.shuffle and batch < data.examples
        left = max(0, request.epochs - first) * steps
        train = programs.ready(model, "train", data, batch, shuffled, kind=program, steps=left, one_core=one_core)
        test = None
        if held_out is not None:
            test_batch = held_out.batch(request.validation_batch_size or request.batch_size)
            test = programs.ready(model, "test", held_out, test_batch, kind=train.kind)
    except NotCompilableError as error:
        warnings.warn(f"mlplab trains this with keras.Model.fit, epoch by epoch uncompiled: {error}", stacklevel=4)
        for name in begun:
            call_once_less(hooks, name)
        keras_fit(model, request, hooks, clock, seed)
        return
    warn_of_autologging(model)
    clock.compile_seconds += seconds + time.perf_counter() - started
    clock.program = train.kind
    if seed is None:
        seed = int(np.random.randint(2**31))

    def work(number: int) -> dict[str, Any]:
        order = batch_order(data.examples, seed, number) if shuffled else None
        # Keras looks whether it is to stop after each execution.
        return train.run(model, data, order, model.steps_per_execution if model.stop_training else math.inf)

    logs: dict[str, Any] = {}
    for number in range(first, request.epochs):
        if number > first:
            hooks.on_epoch_begin(number)
        epoch = _Epoch(functools.partial(work, number))
        yield epoch
        logs = epoch.logs
        clock.train_seconds.append(epoch.seconds)
        if test is not None and held_out is not None and model._should_eval(number, request.validation_freq):
            hooks.on_test_begin()
            started = time.perf_counter()
            val_logs = test.run(model, held_out)
            clock.evaluate_seconds.append(time.perf_counter() - started)
            hooks.on_test_end(val_logs)
            logs = logs | {f"val_{name}": value for name, value in val_logs.items()}
        hooks.on_epoch_end(number, logs)
        if model.stop_training:
            break
    if request.epochs > 0 and model.optimizer is not None:
        model.optimizer.finalize_variable_values(model.trainable_weights)
    hooks.on_train_end(logs)
