"""Trainings of the ready-made MLP in few words, for tests that need many of them."""

from collections.abc import Mapping
from typing import Any

from mlplab import Training, call

MODEL = ("hidden", "activation", "dropout", "l2", "batch_norm")
"""What is an argument of the model function."""


def decayed(learning_rate: float, decay: float) -> Any:
    """Keras' old `decay`: the learning rate at step t is `learning_rate / (1 + decay * t)`."""
    return call(
        "keras.optimizers.schedules.InverseTimeDecay",
        initial_learning_rate=learning_rate,
        decay_steps=1,
        decay_rate=decay,
    )


def stopping(patience: int, monitor: str = "val_loss", **arguments: Any) -> Any:
    """Early stopping after so many epochs without a lower validation loss."""
    return call("keras.callbacks.EarlyStopping", monitor=monitor, patience=patience, **arguments)


def choices(**fields: Any) -> dict[str, Any]:
    """A variant's difference from its base: `choices(dropout=0.3, momentum=0.9)` is a choice of the model and one of
    the optimizer; every other is a field of `Training`.

    `decay` takes a `learning_rate` beside it, `patience` is a callback.
    """
    found: dict[str, Any] = {}
    decay, patience = fields.pop("decay", 0.0), fields.pop("patience", 0)
    for name, value in fields.items():
        place = f"model.{name}" if name in MODEL else "optimizer.momentum" if name == "momentum" else name
        found[place] = value
    if decay:
        found["learning_rate"] = decayed(fields["learning_rate"], decay)
    if patience:
        found["callbacks"] = (stopping(patience),)
    return found


DEFAULTS: Mapping[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "loss": "sparse_categorical_crossentropy",
    "metrics": ("accuracy",),
    "batch_size": 128,
    "epochs": 50,
}


def mlp(**fields: Any) -> Training:
    """A training of the ready-made MLP by accuracy, by the fields that `choices` takes."""
    return Training(model="mlp").but(choices(**{**DEFAULTS, **fields}))
