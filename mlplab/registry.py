"""The model registry: a run's export becomes a version, and the version the champion if it has earned it.

Who is champion is read off the versions' tags, so that registrations at the same time agree on it: going through the
checked versions in their order, each takes over that is not worse on the test set than the champion before it, or was
forced.
"""

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import tensorflow as tf
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from mlplab import delivery, models, tracking
from mlplab.data import Dataset
from mlplab.spec import SELECTION_METRICS, UnavailableError, UsageError, check_registered

IMAGES_COMPARED, TOLERANCE = 1_000, 1e-5
"""A version must answer on this many test images as the model in this process does, each probability to this."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What registering did.

    Attributes:
        created: whether the version is new.
        champion: the version that bears the alias now, None if none does.
        said: for a person, a sentence a step.
    """

    version: int
    run_id: str
    created: bool
    champion: int | None
    test_accuracy: float
    said: list[str]


def register(
    data: Dataset,
    *,
    name: str = "mnist-mlp",
    alias: str = "champion",
    optimizer: str = "rmsprop",
    metric: str = "val_accuracy",
    run_id: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Registration:
    """Registers a run's model, checks it, and moves the alias if the model has earned it.

    The registered model's description names the data of the champion. One that somebody wrote by hand stays: only what
    has the form of ours, or is empty, is replaced.

    Args:
        data: the data set whose runs are looked at, by its digest, and whose test set decides.
        optimizer, metric: of the finished runs with this optimizer the one with the best value of this validation
            metric is taken; any optimizer where it is "".
        run_id: this run instead.
        force: moves the alias whatever the test set says, which is recorded as a tag.

    Raises:
        UsageError: there is no such run, it was trained on other data, or MLflow takes no such name or alias.
        UnavailableError: the store or the registry are not to be reached.
    """
    check_registered(name, alias)
    client = delivery.Client()
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        say(line)

    try:
        run = _chosen(client, data, optimizer, metric, run_id)
        tell(
            f"Run {run.info.run_id}, {run.data.tags.get('mlplab.experiment', '?')}: {run.info.run_name}, "
            f"{metric} {run.data.metrics[f'best_{metric}']:.4f} on {data.label}"
        )
        if not client.search_registered_models(f"name = '{name}'"):
            _create(client, name)
        version = _version_of(client, name, run.info.run_id)
        created = version is None
        if version is None:
            version = _add_version(client, name, run, data)
            tell(f"Registered as version {version.version} of {name}")
        else:
            tell(f"That run is version {version.version} of {name} already")
        number = int(version.version)
        accuracy = _check(client, name, number, run, data, tell)
        if force:
            client.set_model_version_tag(name, str(number), "mlplab.forced", "true")
        _evaluate_champion(client, name, data, number, tell)
        champion = _settle(client, name, alias)
    except mlflow.MlflowException as error:
        raise UnavailableError(
            f"the registry {mlflow.get_registry_uri()} refused: {error.message}. Check MLFLOW_TRACKING_URI and what "
            "this user may do."
        ) from error
    except OSError as error:  # of a disk, or of a server that went away
        raise UnavailableError(
            f"registering {name} was cut off: {error}. See that the disk has room, that this user may write there and "
            "that the store answers, and run the command again."
        ) from error
    if champion == number:
        tell(f"{name}@{alias} is version {number}, with {accuracy:.2%} of the test images right")
    else:
        tell(f"{name}@{alias} stays version {champion}" if champion else f"{name}@{alias} is not set")
    return Registration(
        version=number, run_id=run.info.run_id, created=created, champion=champion, test_accuracy=accuracy, said=said
    )


def _chosen(client: delivery.Client, data: Dataset, optimizer: str, metric: str, run_id: str | None) -> Run:
    if run_id:
        run = delivery.existing_run(client, run_id)
        if run.data.tags.get("mlplab.kind") != "training" or f"best_{metric}" not in run.data.metrics:
            raise tracking.no_training(run, f"best_{metric}")
        if run.data.tags.get("dataset.digest") != data.digest:
            raise UsageError(
                f"run {run_id} was trained on {run.data.tags.get('dataset', 'unknown data')} with digest "
                f"{run.data.tags.get('dataset.digest')}, not on {data.label} with {data.digest}: its test set says "
                "nothing of it. Name the data set it was trained on (-P dataset=…)."
            )
        return run
    conditions = [
        "attributes.status = 'FINISHED'",
        "tags.`mlplab.kind` = 'training'",
        f"tags.`dataset.digest` = '{data.digest}'",
        *([f"params.optimizer = '{optimizer}'"] if optimizer else []),
    ]
    order = "DESC" if SELECTION_METRICS[metric] == "max" else "ASC"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # Ordering by a metric joins every match with every run of the store; a good value met in any order leaves few.
    sample = client.search_runs(experiments, " and ".join(conditions), max_results=50)
    values = [value for run in sample if math.isfinite(value := run.data.metrics.get(f"best_{metric}", math.nan))]
    if values:
        best, at_least = (max(values), ">=") if order == "DESC" else (min(values), "<=")
        # Without an exponent, which MLflow's filters do not know.
        conditions.append(f"metrics.best_{metric} {at_least} {best:.17f}")
    found = client.search_runs(
        experiments, " and ".join(conditions), max_results=50, order_by=[f"metrics.best_{metric} {order}"]
    )
    found = [run for run in found if f"best_{metric}" in run.data.metrics]
    if not found:
        raise UsageError(
            f"no finished {optimizer or 'variant'} run on {data.label} with digest {data.digest} is on record in "
            f"{mlflow.get_tracking_uri()}; train one first: mlflow run . -e optimizers"
        )
    return found[0]


DESCRIPTION = (
    "MLP for {}: raw 0-255 pixels in, label and probabilities out. Aliases, not stages: `champion` is the version that "
    "is served."
)
"""Of a registered model: with the label of its champion's data."""
OURS = re.compile(re.escape(DESCRIPTION).replace(re.escape("{}"), ".+"))


def _create(client: delivery.Client, name: str) -> None:
    try:
        delivery.once(lambda: client.create_registered_model(name), lambda: None)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was quicker
            raise


def _versions(client: delivery.Client, name: str) -> list[ModelVersion]:
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def _version_of(client: delivery.Client, name: str, run_id: str) -> ModelVersion | None:
    found = [v for v in _versions(client, name) if v.tags.get("mlplab.run_id") == run_id]
    return found[0] if found else None


def _keras_model(client: delivery.Client, run: Run) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run.info.run_id, "model.keras", folder)
        except (OSError, mlflow.MlflowException) as error:
            raise UsageError(f"run {run.info.run_id} has no model.keras; train the variant again.") from error
        return keras.saving.load_model(path, safe_mode=True)


def _add_version(client: delivery.Client, name: str, run: Run, data: Dataset) -> ModelVersion:
    from mlflow.models import Model

    from serving.model import arguments

    tags = run.data.tags
    origin = {
        "mlplab.run_id": run.info.run_id,
        "mlplab.experiment": tags.get("mlplab.experiment", ""),
        "mlplab.variant": tags.get("mlplab.variant", run.info.run_name),
        **{key: tags[key] for key in ("dataset", "dataset.digest", "git.commit", "git.dirty") if key in tags},
        **{key: f"{value:.6g}" for key, value in run.data.metrics.items() if key.startswith(("best_", "test_"))},
    }
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        tf.saved_model.save(models.Export(_keras_model(client, run)), str(export))
        with delivery.inner_retries():
            logged = Model.log(
                artifact_path=None,
                name="served",
                flavor=mlflow.pyfunc,
                run_id=run.info.run_id,
                metadata=origin,
                **arguments(export, data.test.x[:1]),
            )

    def create() -> ModelVersion:
        return client.create_model_version(
            name,
            source=logged.model_uri,
            model_id=logged.model_id,
            run_id=run.info.run_id,
            tags=origin,
            description=f"{run.info.run_name} of {tags.get('mlplab.experiment', '?')}, run {run.info.run_id}.",
        )

    made: ModelVersion = delivery.once(create, lambda: _version_of(client, name, run.info.run_id))
    return made


PREDICT = """
import sys
import mlflow, numpy as np
pixels = np.load(sys.argv[2])
answers = mlflow.pyfunc.load_model(sys.argv[1]).predict(pixels)
np.save(sys.argv[3], np.array([answer["probabilities"] for answer in answers], np.float32))
"""


def _answers(uri: str, pixels: np.ndarray) -> np.ndarray:
    """Probabilities, shape (images, classes), that a logged model gives in a process of its own.

    Raises:
        ValueError: it does not load or answer there; with the last line of why.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, got = Path(folder) / "pixels.npy", Path(folder) / "answers.npy"
        np.save(given, pixels.astype(np.float32))
        done = subprocess.run(
            [sys.executable, "-c", PREDICT, uri, str(given), str(got)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["no word"])[-1])
        answers: np.ndarray = np.load(got)
        return answers


def _accuracy(probabilities: np.ndarray, data: Dataset) -> float:
    return float((probabilities.argmax(axis=1) == data.test.y).mean())


def _accuracy_tag(digest: str) -> str:
    return f"mlplab.test_accuracy.{digest[:8]}"


def _check(
    client: delivery.Client, name: str, number: int, run: Run, data: Dataset, tell: Callable[[str], None]
) -> float:
    """Loads a version in a fresh process and compares its answers; tags it with what came out and its test accuracy."""
    tag = _accuracy_tag(data.digest)
    version = client.get_model_version(name, str(number))
    if version.tags.get("mlplab.checked") == "passed" and tag in version.tags:
        return float(version.tags[tag])
    accuracy = 0.0
    try:
        answers = _answers(f"models:/{name}/{number}", data.test.x)
        accuracy = _accuracy(answers, data)
        images = data.test.x[:IMAGES_COMPARED].astype(np.float32)
        expected = keras.ops.convert_to_numpy(_keras_model(client, run)(images, training=False))
        apart = float(np.abs(answers[: len(expected)] - expected).max())
        verdict = "passed" if apart <= TOLERANCE else f"failed: its answers are {apart:.2g} away from the run's model"
    except ValueError as error:
        verdict = f"failed: it does not answer in a fresh process: {error}"
    client.set_model_version_tag(name, str(number), tag, repr(accuracy))
    client.set_model_version_tag(name, str(number), "mlplab.checked", verdict)
    tell(f"Loaded in a fresh process and compared on {min(IMAGES_COMPARED, len(data.test)):,} test images: {verdict}")
    return accuracy


def _evaluate_champion(
    client: delivery.Client, name: str, data: Dataset, number: int, tell: Callable[[str], None]
) -> None:
    """Sees that the champion before this version has been evaluated on the same test set."""
    before = _champion([v for v in _versions(client, name) if int(v.version) < number])
    if before is None:
        return
    tag = _accuracy_tag(data.digest)
    if tag not in before.tags:
        try:
            answers = _answers(f"models:/{name}/{before.version}", data.test.x)
        except ValueError as error:
            tell(f"The champion, version {before.version}, does not answer: {error}")
            return
        client.set_model_version_tag(name, before.version, tag, repr(_accuracy(answers, data)))


def _champion(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The version that is to bear the alias: see the module's docstring."""
    champion: ModelVersion | None = None
    for version in versions:
        tags: Mapping[str, Any] = version.tags
        if tags.get("mlplab.checked") != "passed":
            continue
        tag = _accuracy_tag(tags.get("dataset.digest", ""))
        worse = champion is not None and float(tags[tag]) < float(champion.tags.get(tag, "inf"))
        if champion is None or not worse or tags.get("mlplab.forced") == "true":
            champion = version
    return champion


def _settle(client: delivery.Client, name: str, alias: str) -> int | None:
    """Sets alias and description to the champion's, again until nobody has changed anything; returns its version."""
    while True:
        champion = _champion(_versions(client, name))
        model = client.get_registered_model(name)
        if champion is None:
            return int(model.aliases[alias]) if alias in model.aliases else None
        bears = str(model.aliases.get(alias)) == str(champion.version)
        says = DESCRIPTION.format(champion.tags.get("dataset", "unknown data"))
        described = model.description == says or (model.description and not OURS.fullmatch(model.description))
        if bears and described:
            return int(champion.version)
        if not bears:
            client.set_registered_model_alias(name, alias, champion.version)
        if not described:
            client.update_registered_model(name, says)
