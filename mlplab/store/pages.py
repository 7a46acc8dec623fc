"""Where a run of the tracking store, and what it holds, are to be seen: in MLflow's UI, or on this machine's disk."""

from pathlib import Path
from urllib.parse import quote

import mlflow
from mlflow.utils.file_utils import get_local_path_or_none

from mlplab.addresses import absolute, is_server
from mlplab.store.runs import Run
from mlplab.stores import Client

WORKFLOW = "workflowType=machine_learning"


def view_address(run: Run, key: str, charts: bool = False) -> str:
    """The UI's page, relative to the UI, of a view that is saved in a run's experiment; see `views`."""
    mode = "compareRunsMode=CHART&" if charts else ""
    return f"#/experiments/{run.experiment_id}/runs?{mode}viewStateShareKey={key}&{WORKFLOW}"


def artifact_address(run: Run, path: str) -> str:
    """The UI's page, relative to the UI, of an artifact of a run."""
    return f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{quote(path)}?{WORKFLOW}"


def page_address(run: Run, run_id: str) -> str:
    """The UI's page, relative to the UI, of a run of the experiment that `run` is of."""
    return f"#/experiments/{run.experiment_id}/runs/{run_id}?{WORKFLOW}"


def address(run: Run) -> tuple[str, str]:
    """Where to look at a run: the command that opens the UI on this store, and the run's page there."""
    uri = mlflow.get_tracking_uri()
    command = "" if is_server(uri) else f"mlflow ui --backend-store-uri '{absolute(uri)}'"
    return command, _in_ui(page_address(run, run.run_id))


def artifact_place(run: Run, name: str) -> str:
    """Where a run's artifact is: its path, where the store keeps it on this machine, else its page in the UI."""
    kept = Client().get_run(run.run_id).info.artifact_uri
    if (folder := get_local_path_or_none(kept)) is not None:
        return str(Path(folder).absolute() / name)
    return _in_ui(artifact_address(run, name))


def _in_ui(page: str) -> str:
    """A page's whole address, given the one that is relative to the UI."""
    uri = mlflow.get_tracking_uri()
    return f"{uri.rstrip('/') if is_server(uri) else 'http://127.0.0.1:5000'}/{page}"
