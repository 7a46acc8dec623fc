"""The record of a command: its outermost run, begun or gone on with, and ended however the command ends."""

import contextlib
import itertools
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mlflow
from mlflow import environment_variables
from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag
from mlflow.tracking.context.registry import resolve_tags

from mlplab import stores
from mlplab.addresses import EXPERIMENT, absolute, database_file, is_server, shown
from mlplab.checks import UnavailableError, UndeliveredError
from mlplab.data import Dataset
from mlplab.marks import plumbing
from mlplab.store.errors import brief, is_transient, unusable
from mlplab.store.journal import RunState, Session
from mlplab.store.recorder import Recorder
from mlplab.store.runs import ParentRef, Run
from mlplab.store.sessions import open_session
from mlplab.stores import Client, check_writable, experiment_id, experiment_of, searched

WORKER_SECONDS = 600.0
"""How long a worker waits for a store that does not answer, before what it has trained counts as failed."""

_open: list[Recorder] = []

Destination = tuple[dict[str, str], str | None, Exception | None]
"""What names the experiment of MLflow's that the runs go to, its id, and why the server did not tell that."""

_checked: dict[tuple[str | None, ...], Destination] = {}


def check(say: Callable[[str], None] = lambda line: None) -> None:
    """Sees that the store takes the runs of this command, before anything is loaded for them; it is not asked again.

    Args:
        say: is told of a server that does not answer, which is not said again.

    Raises:
        UnavailableError: it does not. A server that does not answer is no error.
    """
    where, experiment, silence = _destination()
    _say_silent(silence, say)
    _checked[_asked()] = where, experiment, None


def _say_silent(silence: Exception | None, say: Callable[[str], None]) -> None:
    if silence:
        say(
            f"The tracking server {shown(mlflow.get_tracking_uri())} does not answer ({brief(silence)}): check "
            "MLFLOW_TRACKING_URI. Training goes on; what it records waits on this machine's disk until the server is "
            "back."
        )


def _asked() -> tuple[str | None, ...]:
    names = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")
    return (absolute(mlflow.get_tracking_uri()), *map(os.environ.get, names))


def _destination() -> Destination:
    """Where the runs go, once that is seen to take them."""
    uri, project_run, fixed, name = mlflow.get_tracking_uri(), *_asked()[1:]
    try:
        file = database_file(uri)
        if project_run and file and not file.exists():
            raise _unknown(project_run, uri)
        client = Client(uri, seconds=stores.START_SECONDS)
        where = {"id": fixed} if fixed else None if project_run else {"name": name or EXPERIMENT}
        try:
            if project_run:
                where = {"id": _active(client, project_run, uri).info.experiment_id} | (where or {})
            assert where is not None
            experiment = experiment_of(client, where)
            check_writable(client, experiment)
        except Exception as error:
            if where and is_server(uri) and is_transient(error):
                return where, None, error
            raise
    except Exception as error:
        raise unusable(uri, error) from error
    return where, str(experiment.experiment_id), None


def _active(client: Client, project_run: str, uri: str) -> StoredRun:
    """The run that `mlflow run` made for this command."""
    try:
        run: StoredRun = client.get_run(project_run)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise _unknown(project_run, uri) from error
    if run.info.lifecycle_stage != "active":
        raise UnavailableError(
            f"MLFLOW_RUN_ID is {project_run}, a run that is deleted in the tracking store {shown(uri)}. Restore it: "
            f"mlflow runs restore --run-id {project_run}; or unset MLFLOW_RUN_ID."
        )
    return run


def _unknown(project_run: str, uri: str) -> UnavailableError:
    relative = uri != absolute(uri)
    return UnavailableError(
        f"MLFLOW_RUN_ID is {project_run}, a run that the tracking store {shown(uri)} does not have. "
        + (
            f"MLFLOW_TRACKING_URI is {uri!r}, which is another file in another folder, and `mlflow run` works in the "
            "project's: give it an absolute one, sqlite:////the/folder/mlflow.db."
            if relative
            else "Set MLFLOW_TRACKING_URI to the store that has it, or unset MLFLOW_RUN_ID."
        )
    )


@contextlib.contextmanager
def parent_run(
    name: str,
    tags: Mapping[str, Any],
    data: Dataset | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Run]:
    """The run that holds an experiment: the project's own under `mlflow run`, else a new one named `name`.

    It ends FAILED if the block raises, KILLED if it is interrupted. Leaving it waits until everything is written.

    Args:
        command: what is to be done, in a word that says all of it. Where it was interrupted on this machine its run is
            gone on with. None: it always begins anew.
        say: is told of a server that does not answer, and of what is gone on with.

    Raises:
        UnavailableError: the store refuses, or a store that is no server is not to be reached.
        UndeliveredError: in the end the store has not taken everything; it waits on disk.
    """
    uri, project_run = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_RUN_ID")
    where, experiment, silence = _checked.pop(_asked()) if _asked() in _checked else _destination()
    _say_silent(silence, say)

    def usable(session: Session) -> bool:
        run_id = session.runs[session.key].run_id if session.key in session.runs else None
        if run_id is None or experiment is None:
            return session.key in session.runs and session.about["experiment"] == where
        client = Client(uri, seconds=stores.START_SECONDS)
        try:
            info = client.get_run(run_id).info
        except mlflow.MlflowException as error:
            there = error.error_code != "RESOURCE_DOES_NOT_EXIST"
        else:
            if info.experiment_id not in searched(client, experiment):
                return False
            there = info.lifecycle_stage == "active"
        if not there:  # somebody has deleted it: the command is to begin anew
            shutil.rmtree(session.folder, ignore_errors=True)
        return bool(there)

    session = _opened({"command": command, "store": absolute(uri), "experiment": where}, usable, say)
    recorder = Recorder(session, say)
    recorder.silent = experiment is None
    if session.about["experiment"] == where:
        recorder.to_store.experiment = experiment
    else:  # of a command that was interrupted in the other experiment that nobody named
        recorder.to_store.experiment = experiment_id(Client(uri), session.about["experiment"])
    recorder.start()
    run = Run(recorder, session.key)
    if session.resumed:
        say(f"Going on with run {run.run_id}, which was interrupted.")
        recorder.append(run.key, {"op": "reopen"})
        if not recorder.silent:  # so that what is on record is found there
            recorder.flush(stores.PATIENCE_SECONDS)
    else:
        every = {**resolve_tags(), **plumbing(run.key, run.key)}
        what = {"op": "create", "name": name, "tags": every, "start": int(time.time() * 1000)}
        recorder.append(run.key, {**what, **({"run_id": project_run} if project_run else {})})
    run.tags({**tags, **plumbing(run.key, run.key)})
    if data is not None:
        run.data(data)
    _open.append(recorder)
    try:
        with _machine_watched(run, session):
            yield run
        recorder.later(lambda: _end_all(session, "FINISHED", "KILLED"))
        recorder.close(stores.PATIENCE_SECONDS)
    except UndeliveredError:
        raise
    except BaseException as error:
        status, why = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", type(error).__name__
        recorder.later(lambda: _cut_off(session, status, why))
        try:
            seconds = stores.INTERRUPTED_SECONDS if status == "KILLED" else stores.PATIENCE_SECONDS
            recorder.close(seconds, since_taken=status != "KILLED")
        except UndeliveredError:
            if status == "FAILED":
                say(
                    f"The tracking store {shown(uri)} has not taken everything: the rest waits on disk for the same "
                    "command, or for python -m mlplab sync."
                )
        if status == "KILLED":
            error.add_note(_state(session))
        raise
    finally:
        _open.remove(recorder)
        if project_run and session.resumed:
            _signpost(project_run, run, session)


@contextlib.contextmanager
def _machine_watched(run: Run, session: Session) -> Iterator[None]:
    """Where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set: logs what MLflow's own monitors read, beside the command.

    It goes by the journal as all else does, so that a server that does not answer loses none and keeps nobody.
    """
    if not environment_variables.MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run.run_id, tracking_uri=str(session.about["store"]))
    prefix = f"system/{monitor.node_id}/" if monitor.node_id else "system/"
    before = session.runs[run.key].points if run.key in session.runs else ()
    steps = itertools.count(max((step + 1 for name, step in before if name.startswith("system/")), default=0))
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for _ in range(monitor.samples_before_logging):
                monitor.collect_metrics()
                over.wait(monitor.sampling_interval)
            read = monitor.aggregate_metrics()
            for each in monitor.monitors:
                each.clear_metrics()
            run.metrics({prefix + name: value for name, value in read.items()}, next(steps))

    thread = threading.Thread(target=watch, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _opened(
    about: Mapping[str, Any],
    usable: Callable[[Session], bool] = lambda session: True,
    say: Callable[[str], None] = lambda line: None,
) -> Session:
    try:
        return open_session(about, usable, judged=("experiment",), say=say)
    except OSError as error:
        raise UnavailableError(
            f"the folder of what waits for the tracking store cannot be written: {error}. Nothing was trained. Make "
            "room there, or name another place: XDG_STATE_HOME=/an/absolute/path"
        ) from error


def _end_all(session: Session, outermost: str, others: str) -> None:
    """Says of every run that is open how it ended."""
    ended = int(time.time() * 1000)
    still = [told.key for told in list(session.runs.values()) if told.status == "RUNNING" and not told.foreign]
    how = {key: outermost if key == session.key else others for key in still}
    session.append([(key, {"op": "status", "status": status, "ended": ended}) for key, status in how.items()])


@contextlib.contextmanager
def under(parent: ParentRef) -> Iterator[Run]:
    """On a worker: the run of another process under which runs are created here. Leaving it waits until all is written.

    Raises:
        UnavailableError: the store has no such run, or does not answer.
        UndeliveredError: the store did not take everything.
    """
    mlflow.set_tracking_uri(parent.store)
    try:
        Client(parent.store).get_run(parent.run_id)
    except Exception as error:
        raise UnavailableError(
            f"the run {parent.run_id} is not to be had from {parent.store} on {socket.gethostname()}: {brief(error)}. "
            "Workers of other machines need a tracking server: set MLFLOW_TRACKING_URI to one that they reach."
        ) from error
    about = {"command": None, "store": parent.store, "experiment": {"id": parent.experiment_id}}
    about["worker"] = parent.session
    session = _opened(about)
    session.runs[parent.key] = RunState(parent.key, run_id=parent.run_id, foreign=True)
    recorder = Recorder(session, lambda line: None)
    recorder.to_store.experiment = parent.experiment_id
    recorder.start()
    try:
        yield Run(recorder, parent.key)
    except BaseException:
        recorder.later(lambda: _end_all(session, "FAILED", "FAILED"))
        with contextlib.suppress(UnavailableError):
            recorder.close(stores.START_SECONDS)
        raise
    recorder.later(lambda: _end_all(session, "FINISHED", "KILLED"))
    recorder.close(WORKER_SECONDS)


def _cut_off(session: Session, status: str, why: str) -> None:
    """Ends what is open of a command that does not come to its end; one that had only to be delivered is as it is."""
    outermost = session.runs.get(session.key)
    if outermost is None or outermost.status == "RUNNING":
        session.unfinished(why)
    _end_all(session, status, status)


def _state(session: Session) -> str:
    """What has become of the runs of a command that was interrupted."""
    killed = any(told.status == "KILLED" and not told.foreign for told in list(session.runs.values()))
    again = "Given again, the command begins anew"
    if session.about["command"] is not None:
        again = (
            "Finished trainings are kept, the one under way up to its last checkpoint: the same command goes on there"
        )
    if session.broken:
        return f"The disk did not take the record ({session.broken}): what the store does not have is lost."
    if not session.waiting:
        if killed:
            return f"{again}; the runs that were open are marked KILLED."
        return "All was over by then, and is on record."
    left = f"{shown(str(session.about['store']))} has not taken all of it. The rest waits in {session.folder}"
    if killed:
        return (
            f"{again}; the runs that were open end as KILLED, but the tracking store {left}; deliver it: python -m "
            "mlplab sync."
        )
    return f"All trainings were over, but the tracking store {left}; deliver it: python -m mlplab sync"


def abandon() -> str:
    """Ends what is open as killed, from any thread, for a process that has to be gone.

    Returns:
        What has become of the runs; "" if none was open.
    """
    states = []
    for recorder in list(_open):
        recorder.write()
        _cut_off(recorder.session, "KILLED", "killed")
        with contextlib.suppress(Exception):
            recorder.flush(2.0, since_taken=False)
            recorder.session.note()
        states.append(_state(recorder.session))
    return " ".join(states)


def _signpost(project_run: str, run: Run, session: Session) -> None:
    """Has the run that `mlflow run` made for a command that went on with another run say so."""
    with contextlib.suppress(Exception):
        client = Client(str(session.about["store"]), seconds=stores.START_SECONDS)
        status = session.runs[session.key].status
        said = f"This command went on with run {run.run_id}, which had been interrupted: look there."
        tags = {"mlplab.kind": "continuation", "mlplab.continues": run.run_id, "mlflow.note.content": said}
        client.log_batch(project_run, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        client.update_run(project_run, name="continuation")
        client.set_terminated(project_run, status)
