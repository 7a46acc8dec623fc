"""The address of a tracking store, as text: what kind it is, how it is shown, and which one a command will take."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote

from mlplab.checks import UnavailableError

EXPERIMENT = "mlplab"
"""The experiment of MLflow's that runs go to where nobody names another."""


def is_server(uri: str) -> bool:
    """Whether a store is behind a tracking server, and not a database of ours."""
    return uri.startswith(("http://", "https://"))


def absolute(uri: str) -> str:
    """The address of a store, as it is from any folder."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        here = str(Path.cwd()).replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{Path(here) / uri.removeprefix('sqlite:///')}"
    return uri


def database_file(uri: str) -> Path | None:
    """The file of a store in SQLite, where %41 in the address stands for A; None for another store.

    Raises:
        UnavailableError: the address names no file.
    """
    if not re.match(r"sqlite(\+\w+)?:", uri):
        return None
    named = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(\?.*)?", uri)
    if named is None or named[1] == ":memory:":
        raise UnavailableError(
            f"the tracking store {uri} is no file, so the record would be gone with the process. Set "
            "MLFLOW_TRACKING_URI to a file: sqlite:////an/absolute/path/mlflow.db"
        )
    return Path(unquote(named[1])).absolute()


def shown(uri: str) -> str:
    """The address of a store for people: as it is from any folder, without a password."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", absolute(uri))


def destination() -> tuple[str, str]:
    """Where the runs of this command will go, told before MLflow is imported, which takes seconds.

    Returns:
        The store's address for people, and the experiment there.
    """
    # A notebook may have named the store to MLflow itself.
    mlflow = sys.modules.get("mlflow")
    uri = mlflow.get_tracking_uri() if mlflow else os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    number, name = (os.environ.get(f"MLFLOW_EXPERIMENT_{what}") for what in ("ID", "NAME"))
    return shown(str(uri)), ("Default" if number == "0" else number) if number else name or EXPERIMENT
