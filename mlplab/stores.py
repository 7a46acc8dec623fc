"""A tracking store: its address, why it cannot be used, a client that asks it again, and its experiments."""

import contextlib
import glob
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import filelock
import mlflow
from mlflow.entities import Experiment as StoredExperiment
from mlflow.utils.file_utils import get_local_path_or_none

from mlplab import backend
from mlplab.addresses import EXPERIMENT, database_file, is_server, shown
from mlplab.checks import UnavailableError
from mlplab.store.errors import is_transient, unusable

backend.mlflow_imported()

logger = logging.getLogger("mlplab")

START_SECONDS, PATIENCE_SECONDS, INTERRUPTED_SECONDS = 5.0, 30.0, 5.0
"""How long a store that does not answer is waited for: at the start, at the end (since it last took something), and
where the command was interrupted."""

UNNAMED = (EXPERIMENT, "Default")
"""Where runs are for which nobody named an experiment: `mlflow run` puts its own into MLflow's Default, where all were
before. What is on record in one of these is found from the other."""

WORD_SECONDS, MAKING_SECONDS = 2.0, 60.0
"""How long another process may make a store's tables before that is said, and before it counts as stuck."""

NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What a store says of an id that it does not have, or that cannot be one."""


def once(create: Callable[[], Any], look: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `create` creates; where its answer is lost `look` finds it, or None and it is created again."""
    until, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return create()
        except Exception as error:
            if not is_transient(error) or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 3.0)
        if found := look():
            return found


class Client:
    """An MLflow client whose calls are made again where the store did not answer and repeating does no harm.

    Args:
        seconds: for how long.

    Raises:
        UnavailableError: the store cannot be opened. (A server is not asked yet.)
    """

    def __init__(self, uri: str | None = None, seconds: float = PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        store = uri or mlflow.get_tracking_uri()
        until = time.monotonic() + START_SECONDS
        if not is_server(store):
            from mlflow.store.db import utils

            utils.MAX_RETRY_COUNT = 4  # a database that does not answer would be waited for 100 s, in silence
        _check_address(store)
        while True:
            try:
                _make(store)
                self._client = mlflow.MlflowClient(uri)
                break
            except Exception as error:
                # Another process may be making the tables of a database at this moment.
                driver = isinstance(error, ImportError) or type(error).__name__ == "NoSuchModuleError"
                shared = store.startswith(("postgresql", "mysql", "mssql")) and not driver
                if not shared or time.monotonic() > until:
                    raise unusable(store, error) from error
            time.sleep(0.5)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name.startswith("create_"):
            return call

        def patiently(*arguments: Any, **named: Any) -> Any:
            return once(lambda: call(*arguments, **named), lambda: None, self._seconds)

        return patiently


def _make(uri: str) -> None:
    """Makes the file of a store in SQLite where there is none: under another name, and then moved into its place.

    So a process that is killed meanwhile leaves no file that lacks a part of the tables, and of several that come at
    once one makes it.

    Raises:
        UnavailableError: another process makes it, and is not done in `MAKING_SECONDS`.
    """
    path = database_file(uri)
    if path is None or _has_content(path):
        return
    with _making(path, uri):
        if _has_content(path):
            return
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.new*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        driver, _, query = uri.partition("///")[0], *uri.partition("?")[1:]
        try:
            client = mlflow.MlflowClient(f"{driver}///{quote(str(new), safe='/ ')}{'?' * bool(query)}{query}")
            client._tracking_client.store.engine.dispose()
            if path.exists():  # and is empty, which is a new database to SQLite
                path.unlink()
            try:
                os.link(new, path)  # it fails where MLflow itself was quicker
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                new.rename(path)
        finally:
            new.unlink(missing_ok=True)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


@contextlib.contextmanager
def _making(path: Path, uri: str) -> Iterator[None]:
    """Has one process at a time make a store's file. Its lock is beside the file, for all who may write there."""
    lock, holder = (path.with_name(f".{path.name}.{what}") for what in ("lock", "holder"))
    held = filelock.FileLock(lock)
    try:
        try:
            held.acquire(timeout=WORD_SECONDS)
        except filelock.Timeout:
            logger.warning("%s makes the tracking store %s; this one waits for it.", _named(holder), shown(uri))
            held.acquire(timeout=MAKING_SECONDS)
    except filelock.Timeout as error:
        raise UnavailableError(
            f"the tracking store {shown(uri)} cannot be made: {_named(holder)} has held {lock} for "
            f"{MAKING_SECONDS:.0f} s. End that process, or set MLFLOW_TRACKING_URI to another store."
        ) from error
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def _named(holder: Path) -> str:
    try:
        return holder.read_text() or "another process"
    except OSError:
        return "another process"


def _check_address(uri: str) -> None:
    """Refuses an address that cannot be a store's, which MLflow would find late and say as SQL.

    Raises:
        UnavailableError: so it is.
    """
    if is_server(uri) and not urlsplit(uri).hostname:
        raise UnavailableError(
            f"the tracking store {uri!r} names no machine. Set MLFLOW_TRACKING_URI to http://HOST:5000"
        )
    if (path := database_file(uri)) is None:
        return
    literal = Path(uri.partition("///")[2].partition("?")[0]).absolute().parent
    if not path.parent.is_dir() and literal != path.parent and literal.is_dir():
        meant = quote(str(literal / path.name), safe="/ ")
        raise UnavailableError(
            f"the tracking store {uri} would be the file {path}, since % and two digits stand for another character "
            f"there, and its folder does not exist. Write % as %25: MLFLOW_TRACKING_URI=sqlite:///{meant}"
        )
    why = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            why = "is a folder"
        elif not path.exists():
            why = "" if _writable(path.parent) else "cannot be made: its folder is not writable"
        else:
            with path.open("rb") as file:
                start = file.read(16)
            # SQLite takes an empty file for a new database.
            why = "" if start in (b"", b"SQLite format 3\0") else "is no database of SQLite"
    except OSError as error:
        why = f"is not to be had: {error.strerror}"
    if why:
        raise UnavailableError(
            f"the tracking store {uri} cannot be used: the file {path} {why}. Set MLFLOW_TRACKING_URI to a file that "
            "is, or may become, one of MLflow's: sqlite:////an/absolute/path/mlflow.db"
        )


def _writable(folder: Path) -> bool:
    """Whether this user may make files in a folder, or make the folder."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    effective = os.access in os.supports_effective_ids
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK, effective_ids=effective)


@contextlib.contextmanager
def inner_retries() -> Iterator[None]:
    """Lets MLflow's own client make requests again, where it makes many in one call of ours, of any thread.

    Not where it would create what is looked for by nothing: a logged model that it creates twice is an empty one more.
    """
    with _patient.held():
        yield


def _retry(until: contextlib.ExitStack) -> None:
    values = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
    until.enter_context(backend.environment(values))


_patient = backend.Shared(_retry)


def experiment_of(client: Any, where: Mapping[str, str]) -> StoredExperiment:
    """The experiment, which is created where it has a name and is not there.

    Several processes may do so at once; one creates it, the others find it.

    Raises:
        UnavailableError: there is none with that id, or it is deleted.
    """
    try:
        if "id" in where:
            found = client.get_experiment(where["id"])
        elif (found := client.get_experiment_by_name(where["name"])) is None:
            try:
                found = client.get_experiment(client.create_experiment(where["name"]))
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = client.get_experiment_by_name(where["name"])
    except mlflow.MlflowException as error:
        if "id" not in where or error.error_code not in NOT_THERE:
            raise
        raise UnavailableError(
            f"the tracking store {shown(mlflow.get_tracking_uri())} has no experiment with the id {where['id']}. Set "
            "MLFLOW_EXPERIMENT_ID to one that it has (`mlflow experiments search` shows them), or "
            "MLFLOW_EXPERIMENT_NAME to a name, under which one is made if need be."
        ) from error
    if found.lifecycle_stage != "active":
        raise UnavailableError(
            f"the experiment {found.name!r} in the tracking store {shown(mlflow.get_tracking_uri())} is deleted, and "
            f"takes no runs. Restore it: mlflow experiments restore --experiment-id {found.experiment_id}; or name "
            "another: MLFLOW_EXPERIMENT_NAME."
        )
    return found


def experiment_id(client: Any, where: Mapping[str, str]) -> str:
    """The id of the experiment; raises as `experiment_of` does."""
    return str(experiment_of(client, where).experiment_id)


def searched(client: Any, experiment: str) -> list[str]:
    """The ids of the experiments in which records are looked for where runs go to the one with the id `experiment`."""
    if client.get_experiment(experiment).name not in UNNAMED:
        return [experiment]
    found = [client.get_experiment_by_name(name) for name in UNNAMED]
    others = [each.experiment_id for each in found if each is not None and each.lifecycle_stage == "active"]
    return list(dict.fromkeys([experiment, *others]))


def check_writable(client: Any, experiment: StoredExperiment) -> None:
    """Sees that an experiment takes what this user writes, and opens it on its runs.

    By default MLflow's UI opens it on pages for language models.

    Raises:
        MlflowException: it does not.
        UnavailableError: its artifacts go to a folder of this machine that is not to be written to.
    """
    open_for_training(client, experiment)
    folder = get_local_path_or_none(experiment.artifact_location)
    if folder is not None and not _writable(Path(folder)):
        raise UnavailableError(
            f"the experiment {experiment.name!r} keeps its artifacts in {folder}, which this user may not write to. "
            "Give the user the right, or name another experiment, made in a folder of yours: MLFLOW_EXPERIMENT_NAME."
        )


def open_for_training(client: Any, experiment: StoredExperiment) -> None:
    """Has MLflow's UI open an experiment on its runs."""
    # Written even where it is so already: whether a store can be written to is found by writing.
    kind = experiment.tags.get("mlflow.experimentKind", "custom_model_development")
    tag_experiment(client, experiment.experiment_id, "mlflow.experimentKind", kind)


def tag_experiment(client: Any, experiment: str, name: str, value: str) -> None:
    """Sets a tag of an experiment, which another command may set at the same moment."""
    try:
        client.set_experiment_tag(experiment, name, value)
    except mlflow.MlflowException as error:
        if "unique constraint" not in str(error).lower():
            raise
        # MLflow looks for a tag before it adds one: another command was quicker, and now it is there.
        client.set_experiment_tag(experiment, name, value)
