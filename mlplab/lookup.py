"""What is on record, looked up: a run, one of its artifacts, its model."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run as StoredRun

from mlplab import stores
from mlplab.addresses import shown
from mlplab.checks import UnavailableError, UsageError
from mlplab.marks import model_name
from mlplab.store.errors import brief, unusable
from mlplab.stores import NOT_THERE, Client, inner_retries


def existing_run(client: Any, run_id: str) -> StoredRun:
    """A run that is on record.

    Raises:
        UsageError: the store has no such run, or it is deleted.
        UnavailableError: the store does not answer.
    """
    store = shown(mlflow.get_tracking_uri())
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if isinstance(error, mlflow.MlflowException) and error.error_code in NOT_THERE:
            raise UsageError(
                f"run_id is {run_id!r}, and the tracking store {store} has no such run; legal: the id of one of its "
                "runs, as the run's page has it. MLFLOW_TRACKING_URI says which store is asked."
            ) from error
        raise unusable(mlflow.get_tracking_uri(), error) from error
    if run.info.lifecycle_stage != "active":
        raise UsageError(
            f"run_id is {run_id!r}, a run that is deleted in the tracking store {store}. Restore it: mlflow runs "
            f"restore --run-id {run_id}"
        )
    return run


def run_of(run_id: str) -> StoredRun:
    """A run that is on record.

    Raises:
        UsageError: the store has no such run, or it is deleted.
        UnavailableError: the store does not answer.
    """
    return existing_run(Client(seconds=stores.START_SECONDS), run_id)


def no_training(run: StoredRun, lacks: str) -> UsageError:
    """What to say of a run that was named as a finished training and is none.

    Args:
        lacks: what it would have if it were one.
    """
    kind, status = run.data.tags.get("mlplab.kind"), run.info.status
    if kind != "training":
        is_it = f"the {kind} {run.info.run_name!r}" if kind else f"{run.info.run_name!r}, a run of another program"
    elif status == "FINISHED":
        is_it = f"the training {run.info.run_name!r}, without its {lacks}: has that been deleted?"
    else:
        is_it = f"the training {run.info.run_name!r}, which is {status} and not FINISHED"
    below = ", ".join(f"{each.info.run_id} ({each.info.run_name})" for each in _trainings_below(run))
    legal = f"the id of a finished training{f', such as one of its own: {below}' if below else ''}."
    return UsageError(f"run_id is {run.info.run_id!r}, {is_it}; legal: {legal}")


def _trainings_below(run: StoredRun, most: int = 3) -> list[StoredRun]:
    """A few of the finished trainings under a run: its children, theirs, or, of several data sets, theirs."""
    client, above = Client(seconds=stores.START_SECONDS), [run]
    for _ in range(3):
        found: list[StoredRun] = []
        for each in above[:most]:
            below = f"tags.mlflow.parentRunId = '{each.info.run_id}' and attributes.status = 'FINISHED'"
            found += client.search_runs([run.info.experiment_id], below, max_results=100)
        if trainings := [each for each in found if each.data.tags.get("mlplab.kind") == "training"]:
            return trainings[:most]
        above = found
    return []


def read_artifact(run_id: str, path: str) -> str | None:
    """A text artifact of a run, None where there is none, or no such run.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = Client(seconds=stores.START_SECONDS)
    try:
        if path not in {file.path for file in client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_text()
    except mlflow.MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise unusable(mlflow.get_tracking_uri(), error) from error
    except OSError as error:
        raise UnavailableError(f"{path} of run {run_id} cannot be read: {error}") from error


@contextlib.contextmanager
def artifact(run_id: str, path: str) -> Iterator[Path]:
    """An artifact of a run, as a file while the block lasts.

    Raises:
        UnavailableError: there is none, or the store does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = Path(Client(seconds=stores.START_SECONDS).download_artifacts(run_id, path, folder))
        except (mlflow.MlflowException, OSError) as error:
            raise UnavailableError(f"{path} of run {run_id} cannot be read: {brief(error)}") from error
        yield found


def model_address(run_id: str) -> str:
    """Where the model is that is logged in a run: `models:/m-…`, or `runs:/…/model`, as all were called before."""
    with contextlib.suppress(Exception):  # who loads it says what is wrong
        client = Client(seconds=stores.START_SECONDS)
        run = client.get_run(run_id)
        named = f"source_run_id = '{run_id}' AND name = '{model_name(run.data.tags, run.info.run_name)}'"
        for model in client.search_logged_models([run.info.experiment_id], named, max_results=1):
            return f"models:/{model.model_id}"
    return f"runs:/{run_id}/model"


def load_model(run_id: str) -> tuple[str, Callable[[Any], Any]]:
    """The model logged in a run, loaded from the store: its address, and what answers for examples.

    Examples and answers: arrays, or nests of them, as the model was trained on and returns them; of flat images of 0 to
    255 the probabilities of their classes, float32, shape (images, classes).

    Raises:
        UnavailableError: the run has no model, or the store does not give it.
    """
    from mlplab.export import answering

    uri = model_address(run_id)
    try:
        with inner_retries():
            loaded = mlflow.tensorflow.load_model(uri)
    except Exception as error:
        raise UnavailableError(
            f"the model {uri} cannot be loaded from {mlflow.get_tracking_uri()}: {error}. A comparison logs the model "
            "of each variant's median seed; run the comparison again where its artifacts were deleted."
        ) from error
    return uri, answering(loaded)


# Without it MLflow's UI opens on its pages for language models, unless the reader has chosen otherwise before.
