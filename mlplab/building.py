"""From a training to its model: built, compiled, and its weights drawn from the seed."""

import math
import traceback
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from mlplab import initial, programs
from mlplab.arrays import Arrays
from mlplab.calls import made
from mlplab.checks import UsageError
from mlplab.data import Dataset, Split
from mlplab.folds import for_seed
from mlplab.results import Result
from mlplab.spec import Training

ROWS = 2
"""Of so many examples a model takes the shapes that it is built for."""


class BuildError(UsageError):
    """A variant's model cannot be built or compiled; the text has the user's own error."""


def build(training: Training, data: Dataset, seed: int) -> keras.Model:
    """The compiled model of a training, for a data set.

    Its weights, and the seeds of its dropout masks, are drawn anew from `seed` and each one's place in the model, see
    `mlplab.initial`: models of several trainings start equal wherever places and shapes agree.

    Raises:
        BuildError: the user's function raises, returns no model, or what it returns cannot be compiled so.
    """
    with initial.building(seed, training.precision) as drawn:
        try:
            taken = training.model.parameters() or {}
            given = {"data": data} if "data" in taken and "data" not in training.model.arguments else {}
            model = training.model.make(**given)
            if not isinstance(model, keras.Model):
                raise UsageError(f"{training.model.name} returned {model!r}; legal: a keras.Model.")
            _compile(model, training)
            programs.build(model, Arrays.of(*first_rows(data.train, ROWS)))
            if not model.built:  # what cannot be built from shapes alone
                model(first_rows(data.train, ROWS)[0])
        except Exception as error:
            raise explained(training, "be built", error) from error
        drawn.draw(model, seed)
    return model


def restored(result: Result, data: Dataset) -> keras.Model:
    """The model of a training that is over, as it was after its best epoch, or untrained where it has none.

    Args:
        data: as the training's comparison has it: its own split is made of it.
    """
    variant, seed = result.variant, result.seed
    model = build(variant, for_seed(variant, data, seed), seed)  # a model may have been fitted to its split
    if result.weights is not None:
        model.set_weights(result.weights)
    return model


def explained(training: Training, what: str, error: Exception) -> BuildError:
    """An error in a user's model, with its variant, its last line and where in the user's code it came from."""
    own = training.model.file
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if own and frame.filename == own]
    where = f" ({own}, line {frames[-1].lineno})" if frames else ""
    said = str(error).strip() or type(error).__name__
    kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
    variant = f"variant {training.name!r}" if training.name else "the model"
    return BuildError(f"{variant} cannot {what}{where}: {kind}{said}")


def _compile(model: keras.Model, training: Training) -> None:
    own = {name: getattr(training, name) for name in ("optimizer", "loss", "metrics")}
    given = [name for name, value in own.items() if value not in (None, ())]
    if model.compiled:
        if given:
            raise UsageError(
                f"{training.model.name} returns a compiled model, which has its own optimizer, loss and metrics, but "
                f"{' and '.join(given)} are given, too; legal: one of the two. Delete them here, or compile there."
            )
        return
    if training.loss is None or training.optimizer is None:
        missing = "loss" if training.loss is None else "optimizer"
        raise UsageError(
            f"{training.model.name} returns a model that is not compiled, and no {missing} is given; legal: "
            "Training(…, optimizer='adam', loss='sparse_categorical_crossentropy'), or a compiled model."
        )
    rate = {} if training.learning_rate is None else {"learning_rate": made(training.learning_rate)}
    model.compile(
        optimizer=training.optimizer.make(**rate),
        loss=_listed(made(training.loss)),
        metrics=_listed(made(training.metrics)) or None,
    )


def _listed(value: Any) -> Any:
    """Tuples as the lists that Keras' `compile` takes."""
    if isinstance(value, tuple):
        return [_listed(one) for one in value]
    return {name: _listed(one) for name, one in value.items()} if isinstance(value, dict) else value


def first_rows(split: Split, rows: int) -> tuple[Any, Any, Any]:
    """The first examples of a split: x, y and weights."""
    first = split.map(lambda array: array[:rows])
    return first.x, first.y, first.weight


def class_weight(training: Training, data: Dataset) -> Mapping[int, float] | None:
    """What Keras' `fit` takes as class weights; `balanced`: n / (classes * count of a class), as scikit-learn has it.

    Raises:
        UsageError: the labels have no classes to weigh.
    """
    wanted = training.class_weight
    if wanted is None or isinstance(wanted, dict):
        return None if wanted is None else {int(label): float(weight) for label, weight in wanted.items()}
    labels = data.train.y
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iub" or math.prod(labels.shape[1:]) != 1:
        raise UsageError("class_weight is 'balanced', but y is no vector of classes; legal: None, or sample weights.")
    classes, counts = np.unique(labels, return_counts=True)
    return {int(c): len(labels) / (len(classes) * int(n)) for c, n in zip(classes, counts, strict=True)}
