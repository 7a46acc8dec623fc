"""A drop-in for `keras.Model.fit` on arrays: one XLA program an epoch around the model's own `train_step`.

Keras launches a program for every few steps and returns to Python between them; for a small network that is most of
the time. Here a loop over the whole epoch is compiled around `model.train_step`, so that layers, losses, penalties,
optimizers and metrics stay Keras' own, and Python is entered once an epoch. `evaluate` does the same around
`test_step`.

A program is keyed by what it computes, not by the model it was traced from: models that differ only in their
variables' values (weights, learning rate, seeds) run the same program on their own variables.
"""

import contextlib
import ctypes
import functools
import inspect
import itertools
import json
import os
import threading
import time
import warnings
import weakref
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.utils import is_default
from tensorflow.python.framework import ops as tf_ops

import mlplab

EVALUATION_BATCH = 1_000
"""Images in a batch of evaluation unless the caller says: at inference the batch size does not change the result."""

PROGRAMS_KEPT = 64

SIDE_BY_SIDE_BATCH = 128
"""The largest batch with which `fit_seeds` trains models side by side; see `side_by_side`."""


def _keep_memory() -> None:
    """Has the C library keep freed memory for the next allocation instead of returning it to the system.

    A program's buffers are allocated anew at each call. At full batch they are hundreds of MB, and having the system
    map and clear their pages again took a third of an epoch.
    """
    trim_threshold, mmap_max = -1, -4  # mallopt(3)
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


_keep_memory()


@dataclass
class Clock:
    """Seconds of one training, each kind apart.

    Attributes:
        compile_seconds: tracing and compiling, which happen before the first epoch's clock starts.
        train_seconds: one entry an epoch: drawing the batch order and running the epoch's program to its end.
        evaluate_seconds: one entry an evaluation of the validation data.
    """

    compile_seconds: float = 0.0
    train_seconds: list[float] = field(default_factory=list)
    evaluate_seconds: list[float] = field(default_factory=list)


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
) -> keras.callbacks.History:
    """Trains a compiled Keras model as `model.fit` does, a whole epoch at a time.

    The arguments are those of `keras.Model.fit`. Callbacks are called at epoch granularity. What the compiled epoch
    cannot take (generators and data sets, callbacks of batches, `steps_per_epoch`, eager models, operations that XLA
    does not know) is handed to `model.fit` with a warning that says why.

    Args:
        model: a compiled Keras model.
        x, y, sample_weight: NumPy arrays or tensors of shape (examples, ...), or nested structures of them. Images
            may stay uint8: the model's input layer casts them inside the step. A tensor is used where it is, so that
            several trainings share one copy.
        seed: of the batch order: epoch e takes the permutation drawn from (seed, e), whatever came before it. None
            draws a seed from NumPy's global generator, which `keras.utils.set_random_seed` seeds.
        clock: is filled while training; its last entries are current when a callback's `on_epoch_end` is called.

    Returns:
        Keras' `History`.

    Raises:
        ValueError: as `keras.Model.fit` raises it, for arrays of unequal length and for a model not compiled.
    """
    clock = Clock() if clock is None else clock
    model._assert_compile_called("fit")
    if validation_split and validation_data is None:
        (x, y, sample_weight), validation_data = _split((x, y, sample_weight), validation_split)

    def keras_fit(reason: str) -> keras.callbacks.History:
        warnings.warn(f"mlplab trains this with keras.Model.fit, epoch by epoch uncompiled: {reason}", stacklevel=3)
        return _keras_fit(
            model,
            clock,
            x=x,
            y=y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )

    reason = _obstacle(model, (x, y, sample_weight), validation_data, shuffle, callbacks)
    if steps_per_epoch is not None or validation_steps is not None:
        reason = reason or "steps_per_epoch and validation_steps cut an epoch short"
    if reason:
        return keras_fit(reason)

    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("class_weight and sample_weight are both given; legal: one of them.")
        weights = data_adapter_utils.class_weight_to_sample_weights(np.asarray(y), class_weight)
    else:
        weights = sample_weight
    data = _on_device((x, y, weights))
    batch = min(batch_size or 32, _examples(data))
    held_out = None if validation_data is None else _on_device(_three(validation_data))
    try:
        programs = _compiled(model, data, held_out, batch, shuffle, validation_batch_size, clock)
    except _NotCompilableError as error:
        return keras_fit(str(error))
    hooks: Any = callbacks
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        hooks = _hooks(model, callbacks, epochs, verbose, steps=-(-_examples(data) // batch))
    for epoch in _epochs(
        model, programs, data, held_out, hooks, seed, clock, epochs, initial_epoch, validation_freq=validation_freq
    ):
        epoch.run()
    return model.history


def fit_seeds(
    models: Sequence[keras.Model],
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    *,
    seeds: Sequence[int],
    validation_data: Any = None,
    callbacks: Sequence[Sequence[keras.callbacks.Callback]] | None = None,
    clocks: Sequence[Clock] | None = None,
) -> list[keras.callbacks.History]:
    """Trains models as `fit` trains each of them, with its own seed and callbacks, but an epoch of all at a time.

    Side by side on the machine's cores, where `side_by_side` says so and every model compiles; else one after the
    other. Either way a model ends at the weights that its own `fit` gives, and a model whose callback stops it stops,
    while the others go on. Callbacks are called in the caller's thread, one model's after the other's.

    Args:
        models: compiled Keras models. Those that differ in their variables' values alone share a program.
        x, y, batch_size, epochs, validation_data: as in `fit`; the same for all, with one copy on the device.
        seeds: of the models' batch orders.
        callbacks: each model's own.
        clocks: each model's own. The seconds of an epoch of several models are divided evenly among them.

    Returns:
        Keras' `History` of each.

    Raises:
        ValueError: as `fit` raises it.
    """
    clocks = [Clock() for _ in models] if clocks is None else clocks
    callbacks = [[] for _ in models] if callbacks is None else callbacks
    each = list(zip(models, callbacks, seeds, clocks, strict=True))
    for model in models:
        model._assert_compile_called("fit")

    def start(model: keras.Model, own: Any, seed: int, clock: Clock) -> Iterator[_Epoch]:
        programs = _compiled(model, data, validation_data, batch, True, None, clock, one_core=True)
        hooks = _hooks(model, own, epochs, verbose=0, steps=-(-_examples(data) // batch))
        return _epochs(model, programs, data, validation_data, hooks, seed, clock, epochs)

    started = []
    if not any(_obstacle(model, (x, y), validation_data, True, own) for model, own, _, _ in each):
        x, y = _on_device((x, y))
        validation_data = None if validation_data is None else _on_device(_three(validation_data))
        data = (x, y, None)
        batch = min(batch_size or 32, _examples(data))
        if side_by_side(len(models), batch):
            with contextlib.suppress(_NotCompilableError):
                started = [start(*one) for one in each]
    if not started:
        return [
            fit(model, x, y, batch_size, epochs, 0, own, validation_data=validation_data, seed=seed, clock=clock)
            for model, own, seed, clock in each
        ]
    with ThreadPoolExecutor(_cores()) as pool:
        while waiting := [epoch for training in started if (epoch := next(training, None))]:
            began = time.perf_counter()
            list(pool.map(_Epoch.run, waiting))
            seconds = (time.perf_counter() - began) / len(waiting)
            for epoch in waiting:
                epoch.seconds = seconds
    return [model.history for model in models]


def side_by_side(models: int, batch: int) -> bool:
    """Whether so many models train sooner side by side, each on a core, than one after the other on all cores.

    Small operations leave cores idle, large ones do not. Ten trainings of the MNIST MLP (SGD) side by side on 2 cores
    took, of their time one after the other: at batch size 1 to 32 0.35 to 0.5, at 128 0.77, at 512 0.97, at 4096 and
    full batch 1, where each needs hundreds of MB besides. Stacked as a tensor axis in one program they took twice the
    time of side by side at batch size 1: one model's weights stay in a core's own cache, ten models' do not.
    """
    return models > 1 and _cores() > 1 and batch <= SIDE_BY_SIDE_BATCH


def evaluate(
    model: keras.Model, x: Any, y: Any = None, batch_size: int | None = None, sample_weight: Any = None
) -> dict[str, float]:
    """Loss and metrics of a compiled Keras model on arrays, as `model.evaluate(..., return_dict=True)` gives them.

    Args:
        model: a compiled Keras model; metric state is reset, weights are untouched.
        x, y, sample_weight: arrays or tensors of shape (examples, ...), or nested structures of them.
        batch_size: images a step; by default `EVALUATION_BATCH`.

    Raises:
        ValueError: arrays of unequal length, or a model not compiled.
    """
    model._assert_compile_called("evaluate")
    try:
        program, data = _evaluation(model, (x, y, sample_weight), batch_size)
    except _NotCompilableError as error:
        warnings.warn(f"mlplab evaluates this with keras.Model.evaluate: {error}", stacklevel=2)
        scores: dict[str, float] = model.evaluate(
            x, y, batch_size=batch_size, sample_weight=sample_weight, verbose=0, return_dict=True
        )
        return scores
    return program.run(model, data)


def compile_evaluation(model: keras.Model, x: Any, y: Any = None) -> None:
    """Compiles what `evaluate` runs on these arrays, so that its first call takes as long as any other.

    Nothing is evaluated, and every variable of the model stays as it is.

    Raises:
        ValueError: as `evaluate` raises it.
    """
    model._assert_compile_called("evaluate")
    with contextlib.suppress(_NotCompilableError):  # Keras evaluates it then, as `evaluate` will say
        _evaluation(model, (x, y, None), None)


def _evaluation(model: keras.Model, data: Any, batch_size: int | None) -> "tuple[_Program, Any]":
    """The program that evaluates a model on arrays, compiled, and the arrays as tensors.

    Raises:
        _NotCompilableError: there is none.
    """
    if reason := _obstacle(model, data, None, True, None):
        raise _NotCompilableError(reason)
    data = _on_device(data)
    _build(model, data)
    return _ready(model, "test", data, min(batch_size or EVALUATION_BATCH, _examples(data)), False), data


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

    work: Callable[[], dict[str, float]]
    logs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def run(self) -> None:
        started = time.perf_counter()
        self.logs = self.work()
        self.seconds = time.perf_counter() - started


@dataclass(frozen=True)
class _Programs:
    train: "_Program"
    test: "_Program | None"


def _compiled(
    model: keras.Model,
    data: Any,
    held_out: Any,
    batch: int,
    shuffle: bool,
    validation_batch_size: int | None,
    clock: Clock,
    one_core: bool = False,
) -> _Programs:
    started = time.perf_counter()
    _build(model, data)
    # One batch holds the whole set in any order: nothing to shuffle, nothing to gather.
    train = _ready(model, "train", data, batch, shuffle and batch < _examples(data), one_core)
    test = None
    if held_out is not None:
        test_batch = min(validation_batch_size or max(batch, EVALUATION_BATCH), _examples(held_out))
        test = _ready(model, "test", held_out, test_batch, False)
    clock.compile_seconds += time.perf_counter() - started
    return _Programs(train, test)


def _hooks(
    model: keras.Model, callbacks: Any, epochs: int, verbose: int | str, steps: int
) -> keras.callbacks.CallbackList:
    return keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
        model=model,
    )


def _epochs(
    model: keras.Model,
    programs: _Programs,
    data: Any,
    held_out: Any,
    hooks: keras.callbacks.CallbackList,
    seed: int | None,
    clock: Clock,
    epochs: int,
    initial_epoch: int = 0,
    validation_freq: int | Sequence[int] = 1,
) -> Iterator[_Epoch]:
    """Trains a model: gives out its epochs one by one, to be run before the next is asked for, and does the rest."""
    if seed is None:
        seed = int(np.random.randint(2**31))

    def work(number: int) -> dict[str, float]:
        order = batch_order(_examples(data), seed, number) if programs.train.shuffled else None
        return programs.train.run(model, data, order)

    model.stop_training = False
    hooks.on_train_begin()
    logs: dict[str, float] = {}
    # Set by the BackupAndRestore callback when it found a training to go on with.
    for number in range(model._initial_epoch or initial_epoch, epochs):
        hooks.on_epoch_begin(number)
        epoch = _Epoch(functools.partial(work, number))
        yield epoch
        logs = epoch.logs
        clock.train_seconds.append(epoch.seconds)
        if programs.test is not None and model._should_eval(number, validation_freq):
            hooks.on_test_begin()
            started = time.perf_counter()
            val_logs = programs.test.run(model, held_out)
            clock.evaluate_seconds.append(time.perf_counter() - started)
            hooks.on_test_end(val_logs)
            logs = logs | {f"val_{name}": value for name, value in val_logs.items()}
        hooks.on_epoch_end(number, logs)
        if model.stop_training:
            break
    if epochs > 0:
        model.optimizer.finalize_variable_values(model.trainable_weights)
    hooks.on_train_end(logs)


def _cores() -> int:
    """Cores that this process may use."""
    return len(mlplab.cores())


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """While compiling, lets this thread use one core, so that XLA splits no operation among several.

    What is split at batch size 1 costs more in handing over than it saves, and moves the weights from one core's cache
    to another's. XLA's own flag for it holds for the whole process.
    """
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        yield
        return
    cores, threads = os.sched_getaffinity(0), os.listdir("/proc/self/task")
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        # XLA's thread pools, made by the first program of a process, have inherited the one core.
        for thread in set(os.listdir("/proc/self/task")).difference(threads):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), cores)


# The programs: what is compiled, how it is shared, and what is left to Keras.


class _NotCompilableError(Exception):
    """The step is one that a compiled epoch cannot stand in for; the text says why."""


class _Program:
    """A compiled loop over the batches of an epoch.

    It owns no variables: every call names the model whose variables it works on.
    """

    def __init__(
        self, model: keras.Model, kind: str, data: Any, batch: int, shuffled: bool, one_core: bool, name: str
    ) -> None:
        self.shuffled = shuffled
        self._one_core = one_core
        examples = _examples(data)
        full_steps, rest = divmod(examples, batch)
        self._counts = (full_steps, int(rest > 0))
        step = model.train_step if kind == "train" else model.test_step
        present = [leaf is not None for leaf in tf.nest.flatten(data)]

        def take(arrays: Sequence[tf.Tensor], order: tf.Tensor | None, start: tf.Tensor, size: int) -> Any:
            if order is None:
                taken = iter([tf.slice(a, [start] + [0] * (a.shape.rank - 1), [size, *a.shape[1:]]) for a in arrays])
            else:
                index = tf.slice(order, [start], [size])
                taken = iter([tf.gather(a, index) for a in arrays])
            return tf.nest.pack_sequence_as(data, [next(taken) if there else None for there in present])

        def epoch(full_count: tf.Tensor, rest_count: tf.Tensor, *inputs: tf.Tensor) -> None:
            order, arrays = (inputs[0], inputs[1:]) if shuffled else (None, inputs)

            def loop(count: tf.Tensor, first: int, size: int) -> None:
                def body(i: tf.Tensor) -> tuple[tf.Tensor]:
                    logs = step(
                        data_adapter_utils.pack_x_y_sample_weight(*take(arrays, order, first + i * batch, size))
                    )
                    # Of other logs Keras reports the last batch's.
                    if not isinstance(logs, dict) or set(logs) != set(model.get_metrics_result()):
                        raise _NotCompilableError(f"its {kind}_step returns something else than the model's metrics")
                    return (i + 1,)

                tf.while_loop(lambda i: i < count, body, (tf.constant(0),))

            loop(full_count, 0, batch)
            if rest:
                loop(rest_count, full_steps * batch, rest)

        # The trip counts are arguments, so that a call with zeros compiles everything and trains nothing.
        specs = [tf.TensorSpec([], tf.int32)] * 2
        self._order_if_any = [tf.range(examples)] if shuffled else []
        specs += [tf.TensorSpec([examples], tf.int32)] if shuffled else []
        specs += [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in _tensors(data)]
        epoch.__name__ = f"{kind}_epoch"
        with _fast_dropout(model), _repeatable_names(name):
            self._function = tf.function(epoch, jit_compile=True, autograph=False).get_concrete_function(*specs)
        self._kind = kind
        slots = {id(variable.value.handle): i for i, variable in enumerate(_variables(model, kind))}
        self._captured = [slots.get(id(tensor), tensor) for tensor in self._function.captured_inputs]
        self.shareable = all(isinstance(slot, int) for slot in self._captured)
        self._compiled = False

    def warm_up(self, model: keras.Model, data: Any) -> None:
        """Compiles; leaves every variable of `model` as it is."""
        if not self._compiled:
            with _one_core() if self._one_core else contextlib.nullcontext():
                self._call(model, (0, 0), [*self._order_if_any, *_tensors(data)])
            self._compiled = True

    def run(self, model: keras.Model, data: Any, order: np.ndarray | None = None) -> dict[str, float]:
        """Runs an epoch to its end and returns its loss and metrics."""
        model.reset_metrics()
        self._call(model, self._counts, [*([] if order is None else [tf.constant(order)]), *_tensors(data)])
        return {name: float(value) for name, value in model.get_metrics_result().items()}

    def _call(self, model: keras.Model, counts: tuple[int, int], inputs: list[tf.Tensor]) -> None:
        variables = _variables(model, self._kind)
        captured = [variables[slot].value.handle if isinstance(slot, int) else slot for slot in self._captured]
        # The public call binds the variables of the traced model; this is the same call with the captures given.
        self._function._call_flat([*map(tf.constant, counts), *inputs], captured)


_programs: OrderedDict[str, _Program] = OrderedDict()
_lock = threading.RLock()
_traced: Counter[str] = Counter()
_tokens: "weakref.WeakKeyDictionary[Any, int]" = weakref.WeakKeyDictionary()
_next_token = itertools.count()


def _ready(model: keras.Model, kind: str, data: Any, batch: int, shuffled: bool, one_core: bool = False) -> _Program:
    """The program for this computation, compiled.

    Raises:
        _NotCompilableError: there is none.
    """
    program = _program(model, kind, data, batch, shuffled, one_core)
    try:
        program.warm_up(model, data)
    except tf.errors.OpError as error:
        raise _NotCompilableError(f"XLA does not compile it: {str(error).splitlines()[0]}") from error
    return program


def _program(model: keras.Model, kind: str, data: Any, batch: int, shuffled: bool, one_core: bool) -> _Program:
    """The program for this computation: one already traced, from this model or a sibling, or a new one."""
    shapes = [(tuple(t.shape), t.dtype.name) if t is not None else None for t in tf.nest.flatten(data)]
    structure = str(tf.nest.map_structure(lambda _: 0, data))
    computation, standard = _computation(model, kind)
    shared = json.dumps(
        [kind, batch, shuffled, shapes, structure, computation, *["one core"] * one_core], sort_keys=True, default=repr
    )
    with _lock:
        own = f"{_token(model)}/{_token(model._compile_config)}/{shared}"
        for key in [own, shared] if standard else [own]:
            if key in _programs:
                _programs.move_to_end(key)
                return _programs[key]
        key = shared if standard else own
        # Traced again (after it was thrown out, or where models cannot share) it needs other names.
        _traced[key] += 1
        program = _Program(model, kind, data, batch, shuffled, one_core, f"{key} {_traced[key]}")
        _programs[shared if standard and program.shareable else own] = program
        if len(_programs) > PROGRAMS_KEPT:
            _programs.popitem(last=False)
        return program


def _token(thing: Any) -> int:
    return _tokens.setdefault(thing, next(_next_token))


def _computation(model: keras.Model, kind: str) -> tuple[Any, bool]:
    """What a step of `model` computes, without its variables' values, and whether that description is the whole truth.

    It is where every part is Keras' own, since then the parts' configurations say all they do.
    """
    layers = model._flatten_layers()
    operations = [operation for layer in layers for operation in getattr(layer, "operations", [])]
    compiled = model._compile_config.config
    given = tf.nest.flatten([compiled[name] for name in ("loss", "metrics", "weighted_metrics")])
    optimizers = [model.optimizer, getattr(model.optimizer, "inner_optimizer", None)]
    standard = all(_is_keras(part) for part in [*optimizers, *layers, *operations, *given, *model.metrics])
    config = keras.saving.serialize_keras_object(model) if standard else {}
    if standard and kind == "test":
        del config["compile_config"]["optimizer"]
    trainable = [[layer.trainable for layer in layers], [variable.trainable for variable in model.variables]]
    return [_anonymous(config, {}), trainable], standard


def _is_keras(part: Any) -> bool:
    """Whether `part` is of a Keras class, and nothing that decides what it computes is somebody else's or a tensor.

    Functions, methods, regularizers, constraints and schedules may be put into a Keras object: their configurations
    need not say what they do. A tensor, such as the mean that a normalization layer adapted to, is in none.
    """
    if part is None or isinstance(part, str):
        return True
    if inspect.isroutine(part):
        return _from_keras(part)
    held = [value for value in vars(part).values() if not isinstance(value, keras.Variable | keras.Initializer)]
    return _from_keras(type(part)) and all(
        _from_keras(value) if callable(value) else not isinstance(value, tf.Tensor) for value in held
    )


def _from_keras(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith("keras.")


def _anonymous(config: Any, names: dict[str, int]) -> Any:
    """`config` without what differs between models that compute the same: names, seeds, initial values, rates.

    A name becomes the number of names met before it, so that references between layers stay what they are.
    """
    if isinstance(config, dict):
        kept = {}
        for key, value in config.items():
            if key == "learning_rate" and isinstance(value, float):
                continue
            if key in ("seed", "shared_object_id") or key.endswith("_initializer"):
                continue
            if key in ("name", "keras_history", "input_layers", "output_layers"):
                value = tf.nest.map_structure(
                    lambda leaf: names.setdefault(leaf, len(names)) if isinstance(leaf, str) else leaf, value
                )
            kept[key] = _anonymous(value, names)
        return kept
    if isinstance(config, list | tuple):
        return [_anonymous(value, names) for value in config]
    return config


def _variables(model: keras.Model, kind: str) -> list[Any]:
    """All variables a step may read or write, in an order that models of the same configuration share."""
    every = [*model.variables, *model.metrics_variables, *(model.optimizer.variables if kind == "train" else [])]
    return list({id(variable): variable for variable in every}.values())


@contextlib.contextmanager
def _fast_dropout(model: keras.Model) -> Iterator[None]:
    """While tracing, lets Keras' dropout layers draw from threefry.

    The generator that XLA chooses by itself on a CPU takes 25 ms for a mask of 128 x 128, threefry 0.07 ms. The
    layers stay `keras.layers.Dropout`, so they save and load as that.
    """
    layers = [layer for layer in model._flatten_layers() if type(layer) is keras.layers.Dropout and layer.rate > 0]

    def faster(layer: keras.layers.Dropout) -> Callable[..., tf.Tensor]:
        def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
            if not training:
                return inputs
            seed = tf.cast(layer.seed_generator.next(), tf.int32)
            return tf.nn.experimental.stateless_dropout(
                inputs, layer.rate, seed, rng_alg="threefry", noise_shape=layer.noise_shape
            )

        return call

    for layer in layers:
        vars(layer)["call"] = faster(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["call"]


@contextlib.contextmanager
def _repeatable_names(key: str) -> Iterator[None]:
    """While tracing, numbers functions from a hash of `key` on.

    TensorFlow numbers functions in the order a process makes them, and the persistent compile cache hashes these
    names: without this a program is found again only by a process that did the same things before it.
    """
    original = tf_ops.uid
    numbers = itertools.count(10_000_000 + zlib.crc32(key.encode()) * 10_000)
    tf_ops.uid = lambda: next(numbers)
    try:
        yield
    finally:
        tf_ops.uid = original


def _build(model: keras.Model, data: Any) -> None:
    """Creates the variables that Keras creates on first use."""

    def symbol(tensor: tf.Tensor | None) -> Any:
        return None if tensor is None else keras.KerasTensor((None, *tensor.shape[1:]), tensor.dtype.name)

    model._symbolic_build(data_batch=tf.nest.map_structure(symbol, data))
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _three(data: Any) -> tuple[Any, Any, Any]:
    x, y, weight = data_adapter_utils.unpack_x_y_sample_weight(data)
    return x, y, weight


def _tensors(data: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(data) if leaf is not None]


def _examples(data: Any) -> int:
    return int(_tensors(data)[0].shape[0])


def _on_device(data: Any) -> Any:
    """`data` as tensors; float64 becomes Keras' float type, as Keras' own adapter does it."""
    leaves = [leaf for leaf in tf.nest.flatten(data) if leaf is not None]
    data_adapter_utils.check_data_cardinality(leaves)

    def tensor(leaf: Any) -> Any:
        if leaf is None or isinstance(leaf, tf.Tensor):
            return leaf
        return tf.constant(leaf.astype(keras.config.floatx()) if leaf.dtype == np.float64 else leaf)

    return tf.nest.map_structure(tensor, data)


def _split(data: Any, share: float) -> tuple[Any, Any]:
    """Splits off the last `share` of the examples, as Keras' `validation_split` does."""
    if not all(isinstance(leaf, np.ndarray | tf.Tensor) for leaf in _tensors(data)):
        raise ValueError("validation_split needs arrays; for other data give validation_data.")
    at = int(_examples(data) * (1 - share))
    if not 0 < at < _examples(data):
        raise ValueError(
            f"validation_split is {share!r} for {_examples(data)} examples, which leaves none on one side; "
            "legal: a share between 0 and 1 that leaves at least one on either."
        )
    first = tf.nest.map_structure(lambda a: None if a is None else a[:at], data)
    last = tf.nest.map_structure(lambda a: None if a is None else a[at:], data)
    return first, last


def _obstacle(model: keras.Model, data: Any, held_out: Any, shuffle: Any, callbacks: Any) -> str | None:
    """Why the compiled epoch cannot take this, or None."""
    leaves = _tensors(data) + ([] if held_out is None else _tensors(held_out))
    for leaf in leaves:
        if not isinstance(leaf, np.ndarray | tf.Tensor) or not _is_numeric(leaf):
            return f"the data are {type(leaf).__name__}, not numeric arrays or tensors"
    if not leaves or not all(len(leaf.shape) and leaf.shape[0] for leaf in leaves):
        return "there are no examples"
    if held_out is not None and not isinstance(held_out, tuple | list):
        return "validation_data is not a tuple of arrays"
    if model.run_eagerly:
        return "the model is to run eagerly"
    # Not model.jit_compile: on a CPU Keras resolves "auto" to False, which then looks like the caller's own False.
    if slow := [layer.name for layer in model._flatten_layers() if not layer.supports_jit]:
        return f"layer {slow[0]} does not support XLA"
    if tf.distribute.has_strategy():
        return "a distribution strategy is active"
    if not isinstance(shuffle, bool):
        return f"shuffle is {shuffle!r}"
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in tf.nest.flatten(callbacks or []):
        if _wants_batches(callback):
            return f"callback {type(callback).__name__} is called for batches"
    return None


def _is_numeric(leaf: Any) -> bool:
    return np.dtype(leaf.dtype.name).kind in "biuf" if leaf.dtype != tf.string else False


def _wants_batches(callback: keras.callbacks.Callback) -> bool:
    if isinstance(callback, keras.callbacks.ProgbarLogger):
        return False
    if isinstance(callback, keras.callbacks.ModelCheckpoint | keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq != "epoch")
    if isinstance(callback, keras.callbacks.TensorBoard):
        return bool(callback.update_freq != "epoch" or callback._should_trace)
    hooks = [f"on_{kind}batch_{edge}" for kind in ("", "train_", "test_") for edge in ("begin", "end")]
    return any(not is_default(getattr(callback, hook)) for hook in hooks)


def _keras_fit(model: keras.Model, clock: Clock, **arguments: Any) -> keras.callbacks.History:
    """Keras' own `fit`. The first epoch's seconds hold its compiling too, which cannot be told apart from outside."""

    class Timer(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()
            self.trained: float | None = None

        def on_test_begin(self, logs: Any = None) -> None:
            self.trained = time.perf_counter()

        def on_test_end(self, logs: Any = None) -> None:
            assert self.trained is not None
            clock.evaluate_seconds.append(time.perf_counter() - self.trained)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.train_seconds.append((self.trained or time.perf_counter()) - self.started)

    callbacks = arguments.pop("callbacks")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        timer = Timer()
        timer.set_model(model)
        callbacks.callbacks.insert(0, timer)
    else:
        callbacks = [Timer(), *tf.nest.flatten(callbacks or [])]
    return model.fit(callbacks=callbacks, **arguments)
