"""A data set on the device that computes, and what a model is worth on its splits."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlplab import evaluations, training
from mlplab.data import Dataset, Split
from mlplab.readers import leaves
from mlplab.results import Result

EVALUATION_BYTES = 2**26
"""An evaluation's batch has `training.EVALUATION_BATCH` examples, or as many as have so many bytes."""


@dataclass(frozen=True)
class Device:
    """A data set's splits as tensors, put on the device once and shared by all trainings; each keeps its dtype.

    Attributes:
        train, validation, test: x, y and sample weights (None where there are none), each a tensor or a nest of them.
        evaluated: examples of an evaluation's batch.
    """

    train: tuple[Any, Any, Any]
    validation: tuple[Any, Any, Any]
    test: tuple[Any, Any, Any]
    evaluated: int

    @classmethod
    def of(cls, data: Dataset) -> "Device":
        """Copies a data set's splits to the device."""
        held = sum(array.nbytes for _, array in leaves((data.train.x, data.train.y)))
        example = max(1, held // max(1, len(data.train)))
        batch = min(training.EVALUATION_BATCH, max(32, EVALUATION_BYTES // example))
        return cls(_tensors(data.train), _tensors(data.validation), _tensors(data.test), batch)

    def evaluate(self, model: keras.Model, split: tuple[Any, Any, Any]) -> dict[str, float]:
        """Loss and metrics of a model on a split."""
        x, y, weight = split
        return training.evaluate(model, x, y, self.evaluated, weight)


def _tensors(split: Split) -> tuple[Any, Any, Any]:
    kept = split.map(tf.constant)
    return kept.x, kept.y, kept.weight


class OnTraining:
    """Evaluates the training examples as validation examples are, the penalty taken out of the loss.

    What it finds hangs on the weights alone, so that they may be evaluated later, too; and nothing that a training goes
    on with is another after it, so that it is the same wherever it is evaluated. For that, a model that draws random
    numbers when it is evaluated has its seeds' first state each time.

    Args:
        model: as it was built.
    """

    def __init__(self, result: Result, model: keras.Model, device: Device) -> None:
        self.result, self.model, self.device = result, model, device
        weights = {id(weight) for weight in model.weights}
        self.seeds = [variable for variable in model.variables if id(variable) not in weights]
        self.first = self._state()

    def compile(self) -> None:
        """Compiles what it runs."""
        started = time.perf_counter()
        training.compile_evaluation(self.model, *self.device.train[:2], self.device.evaluated, self.device.train[2])
        self.result.compile_seconds += time.perf_counter() - started

    def values(self) -> dict[str, float]:
        """What the model is worth with the weights that it has."""
        started, model, now = time.perf_counter(), self.model, self._state()
        self._assign(self.first)
        found = self.device.evaluate(model, self.device.train)
        # Of weights alone: what a layer adds for its inputs it has for none without a call.
        penalty = float(sum(model.losses)) if any(v.regularizer for v in model.trainable_variables) else 0.0
        self._assign(now)
        values = {f"{evaluations.PREFIX}{name}": float(value) for name, value in found.items()}
        values[f"{evaluations.PREFIX}loss"] -= penalty
        self.result.evaluate_seconds += time.perf_counter() - started
        return {**values, evaluations.PENALTY: penalty} if penalty else values

    def missing(self) -> dict[str, float]:
        """What stands in a history where nothing was measured."""
        names = (evaluations.PREFIX, evaluations.PENALTY)
        return {name: math.nan for name in self.result.history if name.startswith(names)}

    def measure(self, epoch: int) -> None:
        """Puts the values into the history of an epoch after which the weights were as they are, if it has none."""
        own, name = self.result.history, f"{evaluations.PREFIX}loss"
        if not evaluations.measured(name, epoch, own[name][epoch - 1], self.result.variant.epochs):
            for name, value in self.values().items():
                own[name][epoch - 1] = value

    def _state(self) -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(seed) for seed in self.seeds]

    def _assign(self, state: Sequence[np.ndarray]) -> None:
        for seed, value in zip(self.seeds, state, strict=True):
            seed.assign(value)
