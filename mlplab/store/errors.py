"""What a tracking store refuses with: whether the same call may succeed later, what mends it, and how it is said."""

import contextlib
import difflib
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

import mlflow
import requests

from mlplab.addresses import database_file, is_server, shown
from mlplab.checks import UnavailableError


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: the store did not answer, or was busy."""
    if refusal(error):
        return False
    if isinstance(error, mlflow.MlflowException):
        if not is_server(mlflow.get_tracking_uri()):
            return "locked" in str(error)
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    if isinstance(error, requests.HTTPError):
        return error.response is None or error.response.status_code >= 500
    return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)


def refusal(error: Exception | None) -> str | None:
    """What mends a refusal that no waiting mends, a sentence or two; None for an error that is none."""
    status = _status(error) if error else None
    if status == 401:
        return LOG_IN
    if status == 403:
        return "Have the experiment's owner give this user the right to edit it."
    if (status is not None and 300 <= status < 400) or "not in a valid JSON format" in str(error):
        return "The address leads to something else than a tracking server, such as a page to log in: have it answer."
    if not isinstance(error, mlflow.MlflowException):
        return None
    if gone := re.search(r"The (run|experiment) '?(\w+)'? must be in the 'active' state", str(error)):
        option = {"run": "run-id", "experiment": "experiment-id"}[gone[1]]
        return f"Restore it: mlflow {gone[1]}s restore --{option} {gone[2]}."
    if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "PERMISSION_DENIED"):
        return "What it is to be written to is gone, or does not take it."
    return None


LOG_IN = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."


def unusable(uri: str, error: Exception) -> UnavailableError:
    """What a store raised, as an error for people: the store, what is wrong with it, and the remedy."""
    if isinstance(error, UnavailableError):
        return error
    said = str(error)
    remedy = "Check MLFLOW_TRACKING_URI and that the store answers."
    scheme = uri.partition(":")[0].lower()
    file = database_file(uri)
    if "unsupported URI" in said:
        legal = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
        close = difflib.get_close_matches(scheme, legal, 1)
        why = f"{scheme!r} is none of the kinds that MLflow knows"
        remedy = f"Set MLFLOW_TRACKING_URI to an address that begins with {', '.join(legal)}"
        remedy += f"; did you mean {close[0]}:{uri.partition(':')[2]}?" if close else "."
    elif "filesystem tracking backend" in said:
        why = "it is a folder of files, to which this MLflow writes no more"
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            why += "; MLflow takes it because MLFLOW_TRACKING_URI is not set and that folder holds an older one's runs"
        remedy = (
            f"Set MLFLOW_TRACKING_URI to a database: sqlite:///{Path('mlflow.db').absolute()}. (`mlflow "
            "migrate-filestore --help`: how to take the runs along.)"
        )
    elif found := re.search(r"found version (\w+)|Can't locate revision identified by '(\w+)'", said):
        revision = found[1] or found[2]
        versions = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
        if found[1] and next(versions.glob(f"{revision}_*.py"), None):
            why = f"its tables are those of an older MLflow ({revision})"
            remedy = f"Make a copy of it, then bring it up to date: mlflow db upgrade '{shown(uri)}'"
        else:
            why = f"its tables are those of another, probably newer MLflow ({revision}) than {mlflow.__version__}"
            remedy = "Set MLFLOW_TRACKING_URI to another store, or use the MLflow that made this one."
    elif file and re.search(r"already exists|duplicate column", said):
        if _experiments(file):
            why = "bringing its tables up to date was cut off in the middle"
            remedy = f"Put the copy that was made before in the place of {file}."
        else:  # MLflow makes the first experiment when all tables are there
            why = f"a process was killed while it made the tables, so that {file} is half made and holds no run"
            remedy = f"Delete it, and a new one is made: rm '{file}'"
    elif file and re.search(r"readonly database|unable to open database file", said):
        why = f"this user may not write to {file} and its folder, or the disk is read-only"
        remedy = "Give the user the right, or set MLFLOW_TRACKING_URI to another store."
    elif isinstance(error, ImportError):
        why = f"it needs the Python package {error.name!r}, which is not installed"
        remedy = f"pip install {error.name}; or name another driver, such as postgresql+psycopg2://"
    elif is_server(uri) and (status := _status(error)) == 401:
        why = "the server does not know this user (401)"
        remedy = LOG_IN
    elif is_server(uri) and status == 403:
        why = f"the server does not let this user write to the experiment (403: {brief(error)})"
        remedy = "Have its owner give the right to edit it, or name another: MLFLOW_EXPERIMENT_NAME."
    elif is_server(uri) and (mends := refusal(error)):
        why, remedy = brief(error), mends
    else:
        why = brief(error)
    return UnavailableError(f"the tracking store {shown(uri)} cannot be used: {why}. {remedy}")


def _status(error: Exception) -> int | None:
    """The status with which a server refused."""
    # MLflow's client makes 500 of what it does not know.
    if isinstance(error, mlflow.MlflowException) and (said := re.search(r"failed with error code (\d{3})", str(error))):
        return int(said[1])
    if isinstance(error, requests.HTTPError):
        return error.response.status_code if error.response is not None else None
    return error.get_http_status_code() if isinstance(error, mlflow.MlflowException) else None


def _experiments(file: Path) -> int:
    """How many experiments a database has."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM experiments").fetchone()[0])
    except sqlite3.Error:
        return 0


def brief(error: Exception) -> str:
    """The first line of an error, without what surrounds the cause."""
    said = str(error).splitlines()[0] if str(error) else ""
    for cause in ("Connection refused", "timed out", "Name or service not known", "Connection reset"):
        if cause.lower() in said.lower():
            return cause.lower()
    return said[:120] or type(error).__name__
