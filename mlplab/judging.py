"""What a version of a registered model answers, what that is worth, and which of the versions is the champion."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlplab import served
from mlplab.checks import UsageError
from mlplab.data import Dataset
from mlplab.spec import Metric
from serving import probe
from serving.model import PIXELS, VALUES, as_sent

TOLERANCE = 1e-5
"""So near a version must come to what the model answered where it was trained; a number above 1 to this share of it."""

PROBE_SECONDS = 600.0
"""For all test examples."""


def examples_of(data: Dataset) -> str:
    """What its examples are called."""
    return "images" if data.image_shape else "examples"


def as_tested(params: Mapping[str, str], data: Dataset) -> Dataset:
    """The data set with the test split that a training had, of which these are the params.

    The digest stays: two trainings on the same examples, split otherwise, are of the same data.
    """
    if params.get("splits") != "resampled":
        return data
    return replace(data.resampled(int(params["seed"])), digest=data.digest)


def deciding(form: str, by: Metric, tested: Mapping[str, float]) -> tuple[str, str]:
    """By which metric of the test set a version is judged, and whether `max` or `min` of it is better.

    It is what the run was selected by; the accuracy, which the version's own answers give, also in place of the loss.

    Args:
        tested: the run's metrics.

    Raises:
        UsageError: the run lacks it.
    """
    if form != VALUES and by.base in ("loss", "accuracy", "acc"):
        return "accuracy", "max"
    if f"test_{by.base}" not in tested:
        has = ", ".join(sorted(f"val_{name[5:]}" for name in tested if name.startswith("test_")))
        raise UsageError(f"the metric is {by.name!r}, but the run has no test_{by.base}; legal: {has}.")
    return by.base, by.best


def answers_of(folder: Path, x: Any) -> list[np.ndarray]:
    """What the version in a folder answers in a process of its own, without credentials: an array for each output.

    Raises:
        ValueError: it must not be run, or does not answer; with why.
        OSError: it takes too long.
    """
    np.savez(folder / probe.GIVEN, *served.arrays(as_sent(x), "input"))
    probe.probe(folder, seconds=PROBE_SECONDS)
    with np.load(folder / probe.ANSWERS, allow_pickle=False) as found:
        return [found[f"arr_{place}"] for place in range(len(found.files))]


def apart(answers: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """How far answers are from what is expected: the largest difference, of numbers above 1 as a share of them."""
    return max(
        float((np.abs(answer[: len(wanted)] - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0.0))
        for answer, wanted in zip(answers, expected, strict=True)
    )


def labels_of(probabilities: np.ndarray) -> np.ndarray:
    """The place of the most likely class; of a single column, the second class's probability, 0 or 1."""
    if probabilities.shape[1] == 1:
        return np.asarray(probabilities[:, 0] > 0.5, int)
    found: np.ndarray = probabilities.argmax(axis=1)
    return found


def accuracy_of(probabilities: np.ndarray, data: Dataset) -> float:
    """The share of test examples whose label has the highest probability."""
    y = data.test.y
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    return float((labels_of(probabilities) == labels).mean())


def tag_of(metric: str, digest: str) -> str:
    """The tag that says what a version is worth by a metric, on the test set of the data with this digest."""
    return f"mlplab.test_{metric}.{digest[:8]}"


def decisive(tags: Mapping[str, str]) -> tuple[str, bool]:
    """The metric of the test set by which a version is judged, and whether more of it is better."""
    metric, best = tags.get("mlplab.decides", "accuracy max").split(" ")
    return metric, best == "max"


def champion_of(versions: Sequence[Any]) -> Any:
    """The version that is to bear the alias: each takes over that is not worse than the one before, or was forced."""
    champion: Any = None
    for version in versions:
        tags: Mapping[str, Any] = version.tags
        metric, more = decisive(tags)
        tag = tag_of(metric, tags.get("dataset.digest", ""))
        if tags.get("mlplab.checked") != "passed" or tag not in tags:
            continue
        value, least = float(tags[tag]), math.inf if more else -math.inf
        other = value if champion is None else float(champion.tags.get(tag, least))
        if (value >= other if more else value <= other) or tags.get("mlplab.forced") == "true":
            champion = version
    return champion


DESCRIPTION = "{} for {}: {} in, {} out. Aliases, not stages: `champion` is the version that is served."
"""Of a registered model: what its champion is, the label of the data, and what it takes and gives."""
OURS = re.compile(re.escape(DESCRIPTION).replace(re.escape("{}"), ".+"))


def description_of(tags: Mapping[str, str]) -> str:
    """The registered model's description where the version with these tags is the champion."""
    what, form = tags.get("mlplab.model") or "mlp", tags.get("mlplab.form", PIXELS)
    takes = "raw 0-255 pixels" if form == PIXELS else "examples as the data have them"
    gives = "a prediction" if form == VALUES else "label and probabilities"
    return DESCRIPTION.format("MLP" if what == "mlp" else what, tags.get("dataset", "unknown data"), takes, gives)
