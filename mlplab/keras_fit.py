"""Keras' own `fit`: where it has to train, and how long it took."""

import contextlib
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.config import max_epochs, max_steps_per_epoch
from keras.src.utils import is_default

from mlplab import initial
from mlplab.arrays import NotCompilableError

KERAS = "keras"
"""What has trained where it was Keras' own `fit`."""


@dataclass
class Clock:
    """Seconds of one training, each kind apart.

    Attributes:
        compile_seconds: tracing, choosing and compiling, which happen before the first epoch's clock starts.
        train_seconds: one entry an epoch: drawing the batch order and running the epoch's program to its end.
        evaluate_seconds: one entry an evaluation of the validation data.
        program: which of `training.PROGRAMS` trained.
    """

    compile_seconds: float = 0.0
    train_seconds: list[float] = field(default_factory=list)
    evaluate_seconds: list[float] = field(default_factory=list)
    program: str = ""


@dataclass(frozen=True)
class Request:
    """The arguments of `keras.Model.fit`, but for the callbacks."""

    x: Any
    y: Any
    batch_size: int | None
    epochs: int
    verbose: int | str
    validation_split: float = 0.0
    validation_data: Any = None
    shuffle: bool = True
    class_weight: Mapping[int, float] | None = None
    sample_weight: Any = None
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: int | Sequence[int] = 1


def refuse_unfit(model: keras.Model, shuffle: Any, callbacks: Any) -> None:
    """Raises `NotCompilableError` where Keras has to train."""
    if model.run_eagerly:
        raise NotCompilableError("the model is to run eagerly")
    for name in ("fit", "make_train_function", "make_test_function"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise NotCompilableError(f"{type(model).__name__} has a {name} of its own")
    if tf.distribute.has_strategy() or model._distribute_strategy is not None:
        raise NotCompilableError("a distribution strategy is active")
    if max_epochs() or max_steps_per_epoch():
        raise NotCompilableError("keras.config limits epochs or steps")
    if not isinstance(shuffle, bool):
        raise NotCompilableError(f"shuffle is {shuffle!r}")
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in tf.nest.flatten(callbacks or []):
        if _wants_batches(callback):
            raise NotCompilableError(f"callback {type(callback).__name__} is called for batches")


def warn_of_autologging(model: keras.Model) -> None:
    """Says that MLflow's autologging, which replaces `Model.fit`, does not see a training by `fit`."""
    patched = getattr(type(model).fit, "__globals__", {}).get("__name__", "").startswith("mlflow")
    if patched and not sys.modules["mlflow.utils.autologging_utils"].autologging_is_disabled("keras"):
        warnings.warn(
            "mlflow.keras.autolog() records keras.Model.fit and not mlplab's fit. To have epochs recorded, turn it off "
            "with mlflow.keras.autolog(disable=True) and give callbacks=[mlflow.keras.MlflowCallback()].",
            stacklevel=5,  # whoever called `fit`, which is decorated
        )


def _wants_batches(callback: keras.callbacks.Callback) -> bool:
    if isinstance(callback, keras.callbacks.ProgbarLogger):
        return False
    if isinstance(callback, keras.callbacks.ModelCheckpoint | keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq != "epoch")
    if isinstance(callback, keras.callbacks.TensorBoard):
        return bool(callback.update_freq != "epoch" or callback._should_trace)
    if type(callback).__module__ == "mlflow.keras.callback":
        return not callback.log_every_epoch
    hooks = [f"on_{kind}batch_{edge}" for kind in ("", "train_", "test_") for edge in ("begin", "end")]
    return any(not is_default(getattr(callback, hook)) for hook in hooks)


def call_once_less(hooks: keras.callbacks.CallbackList, name: str) -> None:
    """Has the next call of a list's method do nothing."""
    setattr(hooks, name, lambda *_, **__: delattr(hooks, name))


def keras_fit(model: keras.Model, request: Request, callbacks: Any, clock: Clock, seed: int | None) -> None:
    """Keras' own `fit`. The first epoch's seconds hold its compiling too, which cannot be told apart from outside.

    With a seed its batches come in an order that the seed decides, the same for every model; another than `fit`'s.
    """

    class Timer(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.started = time.perf_counter()
            self.trained: float | None = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_test_begin(self, logs: Any = None) -> None:
            self.trained = time.perf_counter()

        def on_test_end(self, logs: Any = None) -> None:
            assert self.trained is not None
            clock.evaluate_seconds.append(time.perf_counter() - self.trained)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.train_seconds.append((self.trained or time.perf_counter()) - self.started)
            self.trained = None

    clock.program = KERAS
    if isinstance(callbacks, keras.callbacks.CallbackList):
        timer = Timer()
        timer.set_model(model)
        callbacks.callbacks.insert(0, timer)
    else:
        callbacks = [Timer(), *tf.nest.flatten(callbacks or [])]
    with contextlib.nullcontext() if seed is None else initial.seeded(seed):
        model.fit(callbacks=callbacks, **vars(request))
