"""Which examples a training of a variant sees: a data set's own split, a new one with each seed, a fold, or a part."""

from dataclasses import replace
from typing import Any

import numpy as np

from mlplab.checks import UsageError
from mlplab.data import Dataset
from mlplab.spec import Training

TUNING_FOLDS = 5
"""Trials of a tuning are scored on one of so many parts of the training examples."""


def for_seed(variant: Training, data: Dataset, seed: int) -> Dataset:
    """The data set as a variant is trained on it with a seed.

    With `splits="folds:K:S"` seed S + i keeps the i-th of K folds of the training split for validation: so a search's
    candidates are trained as a comparison's variants are, a fold in the place of a seed. With `splits="tuning:S"` the
    first of `TUNING_FOLDS` folds is validated on, whatever the seed, and the data's own validation split is not seen:
    so trials are trained on what no verdict is drawn on.

    Raises:
        UsageError: the data cannot be cut so.
    """
    if variant.splits == "fixed":
        return data
    if variant.splits == "resampled":
        return data.resampled(seed)
    if is_trial(variant):
        held_out = _folds(data, TUNING_FOLDS, int(variant.splits.partition(":")[2]), "tune's parts") == 1
    else:
        _, many, first = variant.splits.split(":")
        held_out = fold_of_example(data, int(many), int(first)) == fold_number(variant, seed)
    return replace(data, train=data.train.map(lambda a: a[~held_out]), validation=data.train.map(lambda a: a[held_out]))


def is_trial(variant: Training) -> bool:
    """Whether a training is a trial that tunes a variant."""
    return variant.splits.startswith("tuning")


def fold_number(variant: Training, seed: int) -> int | None:
    """Which fold, counted from 1, a seed stands for; None where it is a seed."""
    kind, _, rest = variant.splits.partition(":")
    return seed - int(rest.partition(":")[2]) + 1 if kind == "folds" else None


def fold_of_example(data: Dataset, folds: int, seed: int) -> np.ndarray:
    """The number, from 1 on, of the fold in which each training example is held out.

    Folds are stratified where there are classes, and no group is in two where there are groups.

    Raises:
        UsageError: the data cannot be cut so, or a class has fewer examples than there are folds.
    """
    if not isinstance(data.train.x, np.ndarray) or not isinstance(data.train.y, np.ndarray):
        raise UsageError(
            f"{data.label} has several inputs or outputs, which scikit-learn cannot cut into folds; legal: one array "
            "of each."
        )
    return _folds(data, folds, seed, "folds")


def _folds(data: Dataset, folds: int, seed: int, what: str) -> np.ndarray:
    """The same of any data; stratified where there is one output of classes. `what` is told where it is refused."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold  # scikit-learn takes long to import

    one = isinstance(data.train.y, np.ndarray)
    labels = np.asarray(data.train.y).reshape(len(data.train), -1)[:, 0] if one else np.zeros(len(data.train))
    together = None if data.groups is None else data.groups["train"]
    made: Any = KFold(folds, shuffle=True, random_state=seed)
    if together is not None:
        made = GroupKFold(folds, shuffle=True, random_state=seed)
    elif data.classes and one:
        fewest = int(np.bincount(labels, minlength=data.classes).min())
        if fewest < folds:
            legal = f"2 to {fewest}" if what == "folds" else f"data with at least {folds} training examples of each"
            raise UsageError(f"{what} is {folds}, but a class has {fewest} examples; legal: {legal}.")
        made = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = np.zeros(len(labels), int)
    for number, (_, held_out) in enumerate(made.split(np.zeros(len(found)), labels, together), 1):
        found[held_out] = number
    return found
