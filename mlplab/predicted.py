"""What a model answers on the test set beside what is true: which classes it takes for which, or how far it is off."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlplab.data import Dataset
from mlplab.readers import leaves

MOST_ERRORS = 12
"""So many errors are shown, the most confident first."""
MOST_VALUES = 12
"""Of an example with more values the first are shown."""
LEAST_PIXELS = 4
"""What has fewer a side is no image."""
MOST_PIXELS = 64
"""Images are shown with at most so many pixels a side: each stands for the mean of those that it takes the place of."""


@dataclass(frozen=True)
class Mistake:
    """An example that a model takes for another class: its place in the test set, from 0 on, and how sure it was."""

    example: int
    true: int
    predicted: int
    probability: float


@dataclass(frozen=True, eq=False)
class Classified:
    """Answers that are classes.

    Attributes:
        names: of the classes.
        confusion: examples by true and by predicted class, shape (classes, classes).
        errors: the most confident ones.
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    errors: tuple[Mistake, ...]

    @property
    def right(self) -> int:
        """How many examples are classified as they are."""
        return int(np.trace(self.confusion))

    @property
    def examples(self) -> int:
        """How many there are."""
        return int(self.confusion.sum())


@dataclass(frozen=True, eq=False)
class Fitted:
    """Answers that are a number each: the true ones and the predicted ones, shape (examples,)."""

    true: np.ndarray
    predicted: np.ndarray

    @property
    def numbers(self) -> dict[str, float]:
        """What the residuals, predicted minus true, come to."""
        residuals = self.predicted - self.true
        apart = float(((self.true - self.true.mean()) ** 2).sum())
        return {
            "mean residual": float(residuals.mean()),
            "mean absolute residual": float(np.abs(residuals).mean()),
            "root of the mean squared residual": float(np.sqrt((residuals**2).mean())),
            "R²": 1 - float((residuals**2).sum()) / apart if apart else float("nan"),
        }


def refusal(data: Dataset) -> str:
    """Why a data set's targets are neither one class nor one number each, as a sentence; "" if they are."""
    y = data.test.y
    if not isinstance(y, np.ndarray):
        return "The data have several targets, which have no one confusion matrix and no one residual."
    if y.size == len(y) or _is_one_hot(y):
        return ""
    many = int(np.prod(y.shape[1:]))
    return f"Each example has {many:,} targets at once, which have no one confusion matrix and no one residual."


def _is_one_hot(y: np.ndarray) -> bool:
    return y.ndim == 2 and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def compared(outputs: Any, data: Dataset, entropy: bool) -> Classified | Fitted | str:
    """A model's outputs on the test set beside its targets; a text why they cannot be shown so.

    Args:
        outputs: what the model gives for `data.test.x`, in its nest.
        entropy: whether the loss is a cross-entropy: outputs beyond 0 to 1 are logits.
    """
    if why := refusal(data):
        return why
    y = data.test.y
    if not isinstance(outputs, np.ndarray):
        return "The model has several outputs, which have no one confusion matrix and no one residual."
    if outputs.ndim > 2:
        return f"Outputs of the shape {outputs.shape[1:]} do not say which class, or which number, an example has."
    outputs = np.asarray(outputs, np.float64)
    if not np.isfinite(outputs).all():
        return "Some of the model's outputs are not finite."
    labels = _labels(y, outputs)
    if labels is not None and outputs.ndim == 2 and outputs.shape[1] > 1 and labels.max(initial=0) < outputs.shape[1]:
        return _classified(labels, _probabilities(outputs), data)
    if labels is not None and outputs.size == len(outputs) and set(np.unique(labels)) <= {0, 1}:
        score = outputs.reshape(-1)
        inside = bool(np.all((score >= 0) & (score <= 1)))
        if inside or entropy:
            second = score if inside else 1 / (1 + np.exp(-np.clip(score, -700, 700)))
            return _classified(labels, np.stack([1 - second, second], axis=1), data)
    if y.size == len(y) == outputs.size and y.dtype.kind in "biuf":
        return Fitted(y.reshape(-1).astype(np.float64), outputs.reshape(-1))
    return f"Outputs of the shape {outputs.shape[1:]} do not say which class, or which number, an example has."


def _labels(y: np.ndarray, outputs: np.ndarray) -> np.ndarray | None:
    """The class of each example, None where it has none."""
    if y.size == len(y):
        flat = y.reshape(-1)
        whole = flat.dtype.kind in "biu" or (flat.dtype.kind == "f" and bool((flat == np.floor(flat)).all()))
        return flat.astype(int) if whole and flat.min(initial=0) >= 0 else None
    # Several labels at once may happen to be one for each; then outputs are no shares of a whole.
    return y.argmax(axis=1) if y.shape == outputs.shape and np.allclose(outputs.sum(axis=1), 1, atol=1e-3) else None


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """Outputs as they are where they are shares of a whole, else as the logits of such."""
    if np.all(outputs >= 0) and np.allclose(outputs.sum(axis=1), 1, atol=1e-2):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _classified(labels: np.ndarray, probabilities: np.ndarray, data: Dataset) -> Classified:
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    sure = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_ERRORS]
    errors = [Mistake(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in first]
    names = data.class_names if len(data.class_names) == classes else tuple(map(str, range(classes)))
    return Classified(names, confusion, tuple(errors))


def images(data: Dataset, example: int) -> dict[str, np.ndarray]:
    """The images of a test example by their inputs, shape (height, width) or (height, width, 3), values 0 to 1."""
    found = {}
    for name, array in leaves(data.test.x):
        shape = data.image_shape or array.shape[1:]
        are_images = data.image_shape is not None or (len(shape) == 3 and shape[-1] in (1, 3, 4))
        if not are_images or array.dtype.kind not in "biuf" or min(shape[:2]) < LEAST_PIXELS:
            continue
        low, high = (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))
        image = (np.asarray(array[example], np.float64).reshape(shape) - low) / ((high - low) or 1)
        if image.ndim == 3:
            image = image[..., 0] if image.shape[-1] == 1 else image[..., :3]
        found[name] = _smaller(image)
    return found


def _smaller(image: np.ndarray) -> np.ndarray:
    side = -(-max(image.shape[:2]) // MOST_PIXELS)
    if side == 1:
        return image
    high, wide = (length // side for length in image.shape[:2])
    blocks = image[: high * side, : wide * side].reshape(high, side, wide, side, *image.shape[2:])
    found: np.ndarray = blocks.mean(axis=(1, 3))
    return found


def values(data: Dataset, example: int, without: Mapping[str, Any]) -> dict[str, str]:
    """The values of a test example by their inputs, for readers, but for those inputs that are shown as images."""
    found = {}
    for name, array in leaves(data.test.x):
        if name in without:
            continue
        known = data.vocabulary.get(name)
        flat = np.asarray(array[example]).reshape(-1)
        shown = [_value(value, known) for value in flat[:MOST_VALUES]]
        more = f" … ({flat.size:,} values)" if flat.size > MOST_VALUES else ""
        found[name or "values"] = ", ".join(shown) + more
    return found


def _value(value: Any, known: tuple[str, ...] | None) -> str:
    if known:
        return known[int(value) - 1] if 0 < int(value) <= len(known) else "none of the known"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
