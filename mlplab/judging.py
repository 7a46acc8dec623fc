"""What a version of a registered model answers, what that is worth, and which of the versions is the champion."""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlplab.checks import UsageError
from mlplab.data import Dataset
from mlplab.export import as_sent, is_pixels
from mlplab.spec import Metric
from serving.model import CLASSES, VALUES, named

ROWS_COMPARED, TOLERANCE = 1_000, 1e-5
"""A version must answer on this many test examples as the model in this process does, each number to this; a number
above 1 to this share of it."""

PIXELS = "pixels"
"""The form of a version that takes raw pixels; the others are those of `serving.model`."""


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


def form_of(outputs: Any, data: Dataset) -> str:
    """How a version is to answer: one of the forms of `serving.model`, or `pixels`."""
    if not (data.classes and isinstance(outputs, np.ndarray) and outputs.ndim == 2):
        return VALUES
    likely = bool(np.all((outputs >= 0) & (outputs <= 1)))
    if outputs.shape[1] == 1:  # of two classes the second one's probability
        return CLASSES if likely and data.classes == 2 else VALUES
    if not likely or outputs.shape[1] != data.classes or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return VALUES
    return PIXELS if is_pixels(data.test.x) else CLASSES


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


PREDICT = """
import json, sys
import mlflow, numpy as np
uri, given, got, names = sys.argv[1:]
with np.load(given) as found:
    arrays = [found[f"arr_{place}"] for place in range(len(found.files))]
names = json.loads(names)
answers = mlflow.pyfunc.load_model(uri).predict(dict(zip(names, arrays)) if names else arrays[0])
values = [answer.get("probabilities", answer.get("prediction")) for answer in answers]
parts = list(values[0]) if isinstance(values[0], dict) else []
np.savez(got, json.dumps(parts), *([[value[part] for value in values] for part in parts] or [values]))
"""


def answers_of(uri: str, x: Any) -> Any:
    """What a logged model answers in a process of its own: probabilities or predictions, an array or a dict of them.

    Raises:
        ValueError: it does not load or answer there; with the last line of why.
    """
    x = named(as_sent(x), "input")
    names = list(x) if isinstance(x, dict) else []
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "given.npz", Path(folder) / "got.npz"
        np.savez(given, *(x.values() if names else [x]))
        command = [sys.executable, "-c", PREDICT, uri, str(given), str(got), json.dumps(names)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["no word"])[-1])
        with np.load(got) as found:
            parts = json.loads(str(found["arr_0"]))
            arrays = [found[f"arr_{place}"] for place in range(1, len(found.files))]
    return dict(zip(parts, arrays, strict=True)) if parts else arrays[0]


def apart(answers: Any, expected: Any) -> float:
    """How far answers are from what is expected: the largest difference, of numbers above 1 as a share of them."""
    expected = named(expected, "output")
    if isinstance(expected, dict):
        return max(apart(answers[name], part) for name, part in expected.items())
    if answers.shape[1:] == (2,) and expected.shape[1:] == (1,):  # the probability of the second of two classes
        answers = answers[:, 1]
    answers = answers[: len(expected)].reshape(expected.shape)
    return float((np.abs(answers - expected) / np.maximum(1, np.abs(expected))).max())


def accuracy_of(answers: np.ndarray, data: Dataset) -> float:
    """The share of test examples whose label has the highest probability."""
    y = data.test.y
    labels = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    return float((answers.argmax(axis=1) == labels).mean())


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
        if tags.get("mlplab.checked") != "passed":
            continue
        metric, more = decisive(tags)
        tag = tag_of(metric, tags.get("dataset.digest", ""))
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
