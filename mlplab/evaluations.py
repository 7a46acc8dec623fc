"""After which epochs the training examples are evaluated as validation examples are: the `train_eval_*` of a training.

Evaluating them after each would take a third of the training's own time, for a curve that nobody reads point by point.
"""

import math
from collections.abc import Mapping, Sequence

PREFIX, PENALTY = "train_eval_", "penalty"
"""What the names of the metrics begin with, and the name of what is measured with them."""

FEW, MOST, SPARSE = 16, 100, 4
"""A training of so few epochs is evaluated after each; a longer one after about so many of them, if no more than one
epoch in so many is to be: then evaluating takes a twelfth of the training's time, and not a third."""


def every(epochs: int) -> int:
    """Of how many epochs one is evaluated, in a training of so many: the same whatever interrupts it.

    >>> every(16), every(20), every(50), every(300), every(1_000)
    (1, 2, 4, 4, 10)
    """
    return max(min(SPARSE, -(-epochs // FEW)), -(-epochs // MOST))


def planned(epoch: int, epochs: int) -> bool:
    """Whether the training examples are evaluated after an epoch, of a training of so many.

    They are after the first, evenly spread ones and the last; besides after the best one, and where the training ends
    sooner after that.

    >>> [epoch for epoch in range(1, 51) if planned(epoch, 50)][:4]
    [1, 4, 8, 12]
    """
    return epoch in (1, epochs) or epoch % every(epochs) == 0


def measured(metric: str, epoch: int, value: float, epochs: int) -> bool:
    """Whether a metric has a value at an epoch: in a history it is NaN where it was not measured.

    Args:
        value: at that epoch. One that was measured is NaN, too, where a training has diverged.
        epochs: that the training was to have.
    """
    return not (metric.startswith(PREFIX) or metric == PENALTY) or planned(epoch, epochs) or not math.isnan(value)


def at(history: Mapping[str, Sequence[float]], epoch: int, epochs: int) -> dict[str, float]:
    """What was measured after an epoch, the first being 1, of a training that was to have so many.

    >>> at({"loss": [0.5, 0.4], "train_eval_loss": [0.3, math.nan]}, 2, 50)
    {'loss': 0.4}
    """
    values = {name: each[epoch - 1] for name, each in history.items()}
    return {name: value for name, value in values.items() if measured(name, epoch, value, epochs)}


def points(metric: str, values: Sequence[float], epochs: int) -> list[int]:
    """The epochs at which a training of so many has a value of a metric.

    >>> points("train_eval_loss", [0.5, math.nan, 0.3, 0.2], 50), points("loss", [0.5, math.nan], 50)
    ([1, 3, 4], [1, 2])
    """
    return [epoch for epoch, value in enumerate(values, start=1) if measured(metric, epoch, value, epochs)]


def words(epochs: int) -> str:
    """Where they are, for readers; "" where they are everywhere.

    >>> words(50), words(16)
    ('every 4 epochs', '')
    """
    return f"every {every(epochs)} epochs" if every(epochs) > 1 else ""
