"""What is written to the MLflow tracking store: runs, and what is said of them.

What is said goes to a journal on disk at once (`mlplab.spool`), and from there to the store (`mlplab.delivery`). So a
training needs no store to go on, and a process that is killed leaves nothing that only it knew.
"""

import contextlib
import json
import math
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag
from mlflow.tracking.context.registry import resolve_tags

from mlplab import origin
from mlplab.checks import UnavailableError, UndeliveredError, UsageError
from mlplab.data import Dataset
from mlplab.delivery import (
    INTERRUPTED_SECONDS,
    PATIENCE_SECONDS,
    PLUMBING,
    START_SECONDS,
    WORKER_SECONDS,
    Client,
    Writer,
    absolute,
    began,
    brief,
    check_writable,
    database_file,
    existing_run,
    experiment_id,
    experiment_of,
    inner_retries,
    is_server,
    is_transient,
    model_code,
    plumbing,
    shown,
    unusable,
    with_key,
)
from mlplab.spool import RunState, Session, child_key, in_use, interrupted, open_session


def fingerprinted(fingerprint: str) -> dict[str, str]:
    """The tag that says what decided a run's numbers, by which what has been done already is found.

    It is in the tag's name: MLflow's tables have an index of names, and none of values. Names in MLflow's own room are
    hidden in its UI.
    """
    return {f"{PLUMBING}.fingerprint.{fingerprint}": "true"}


@dataclass(frozen=True)
class ParentRef:
    """Where in a store runs are to be created by another process: what a worker is told of the run above them."""

    store: str
    experiment_id: str
    run_id: str
    key: str
    session: str


@dataclass(frozen=True)
class Found:
    """A finished run on record."""

    run_id: str
    tags: dict[str, str]


class Run:
    """A run. Its methods return at once; what they say is written beside the training.

    Attributes:
        key: names the run from its first moment on.
        finished: whether the run came to its end before this process began: it is of a command that goes on.
    """

    def __init__(self, writer: Writer, key: str) -> None:
        self.key = key
        self._writer = writer
        known = writer.session.runs.get(key)
        self.finished = known is not None and known.status == "FINISHED"

    @property
    def run_id(self) -> str:
        """The store's name of the run; its key, for which that is put in wherever it is written, until there is one."""
        told = self._writer.session.runs.get(self.key)
        return (told.run_id if told else None) or self.key

    @property
    def experiment_id(self) -> str:
        """The store's name of its experiment; what stands for it until that is known."""
        return self._writer.experiment or self._writer.experiment_key

    def resolved(self, run_id: str) -> str:
        """The store's name of a run of this command, given that or its key."""
        return self._writer.session.substituted(run_id)

    def child(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any], data: Dataset | None = None
    ) -> "Run":
        """Creates a run under this one and says what it is: its params, tags and data set.

        Of a command that goes on it is the run that was created before.
        """
        run = self._child(name, {**resolve_tags(), **_texts(tags)}, int(time.time() * 1000))
        run.params(params)
        if data is not None:
            run.data(data)
        return run

    def _child(self, name: str, tags: Mapping[str, str], start: int) -> "Run":
        run, session = Run(self._writer, child_key(self.key, name)), self._writer.session
        if run.key not in session.runs:
            if session.resumed or "worker" in session.about:
                self._writer.look_for(run.key, self.key)
            outermost = session.about.get("worker", session.key)
            every = {**tags, **plumbing(run.key, outermost)}
            run._say("create", name=name, tags=every, start=start, parent=self.key)
        elif not run.finished:
            run._say("reopen")
        return run

    def adopt(self, name: str, run_id: str, status: str = "FINISHED") -> "Run":
        """The run under this one that another process has created, told all of it, and ended."""
        run = Run(self._writer, child_key(self.key, name))
        run._say("adopt", run_id=run_id, parent=self.key, status=status)
        return run

    @property
    def parent_ref(self) -> ParentRef:
        """What another process has to know to create runs under this one.

        Raises:
            UnavailableError: the store does not have this run yet.
        """
        self.flush()
        writer = self._writer
        return ParentRef(writer.store, self.experiment_id, self.run_id, self.key, writer.session.key)

    def copy_run(self, name: str, found: Found, tags: Mapping[str, Any]) -> "Run":
        """Creates a run under this one that repeats a finished one: its times, params, data set, metrics, artifacts."""
        client = Client()
        source = client.get_run(found.run_id)
        every = {**source.data.tags, **_texts(tags), "mlplab.reused_from": found.run_id}
        del every["mlflow.runName"]  # here it may have another
        run = self._child(name, every, source.info.start_time)
        if run.finished:
            return run
        run.params(source.data.params)
        inputs = [
            {field: getattr(each.dataset, field) for field in ("name", "digest", "source_type", "source", "profile")}
            for each in source.inputs.dataset_inputs
        ]
        run._say("inputs", inputs=inputs)
        for metric in source.data.metrics:
            history = client.get_metric_history(found.run_id, metric)
            run._say("batch", metrics=[[m.key, m.value, m.timestamp, m.step] for m in history])
        for artifact in client.list_artifacts(found.run_id):
            place, name = self._writer.session.file(artifact.path)
            client.download_artifacts(found.run_id, artifact.path, str(place.parent))
            run._say("artifact", file=name)
        run._say("status", status="FINISHED", ended=source.info.end_time)
        return run

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs params; the first value counts, as MLflow takes each but once."""
        self._say("batch", params=_texts(params))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; the last value counts."""
        self._say("batch", tags=_texts(tags))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metric points at `step`, timed now; the first value at a step counts. What is not finite becomes NaN.

        (MLflow would store infinity as 1.8e308, which flattens every chart.)
        """
        now = int(time.time() * 1000)
        finite = {k: v if math.isfinite(v) else math.nan for k, v in values.items()}
        self._say("batch", metrics=[[k, float(v), now, step] for k, v in finite.items()])

    def find(self, fingerprint: str) -> Found | None:
        """The latest finished run in this experiment of MLflow's that bears a fingerprint, if there is one.

        None, too, where the store does not answer.
        """
        if self._writer.silent:
            return None
        client = Client(self._writer.store)
        try:
            runs = client.search_runs(
                [self._writer.experiment or experiment_id(client, self._writer.session.about["experiment"])],
                f"tags.`{PLUMBING}.fingerprint.{fingerprint}` = 'true' and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        except Exception as error:
            if is_transient(error):
                return None
            raise
        return Found(runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def data(self, data: Dataset) -> None:
        """Logs the data set as the run's input, under our own digest: MLflow's hashes the first few images only."""
        sizes = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
        profile = json.dumps({**sizes, "input_shape": data.input_shape, "classes": data.classes})
        source = json.dumps({"uri": data.source})
        values = {"name": data.label[:500], "digest": data.digest, "source_type": "local", "source": source}
        self._say("inputs", inputs=[{**values, "profile": profile}])

    def text(self, text: str, path: str) -> None:
        """Writes a text artifact."""
        self._say("text", text=text, path=path)

    def figure(self, figure: Figure, path: str) -> None:
        """Writes a figure as an image artifact."""

        def draw() -> None:
            place, name = self._writer.session.file(path)
            figure.savefig(place)
            self._writer.session.append(self.key, {"op": "artifact", "file": name})

        self._writer.later(draw)

    def folder(self, path: Path) -> None:
        """Writes what a folder holds as artifacts, as it is now."""
        place, name = self._writer.session.file("folder")
        shutil.copytree(path, place)
        self._say("artifact", file=name)

    def file(self, name: str, save: Callable[[Path], object]) -> None:
        """Writes a file artifact that `save` makes: it is called now, with the path to save to."""
        place, stored = self._writer.session.file(name)
        save(place)
        self._say("artifact", file=stored)

    def model(self, model: Any, example: Any, metadata: Mapping[str, Any]) -> None:
        """Logs the export of a Keras model as `model`, with signature, input example and requirements.

        It is exported now, in the process that has the user's layers; the store is given the files later. There it
        has the run's params, tags and metrics as a whole (those without a step) as said so far, by which
        `mlflow.search_logged_models` finds and ranks it.

        Args:
            model: as it is now.
            example: a few examples, in the nest of arrays that the model takes.
            metadata: what leads back from the model to how it came about.
        """
        import tensorflow as tf

        from mlplab.export import Export, answering, as_sent
        from serving.model import ARRAYS, arguments_of, named

        place, name = self._writer.session.file("model")
        export, example = Export(model, example), as_sent(example)
        answers = answering(export)(example)
        if isinstance(named(example, ""), np.ndarray) and isinstance(named(answers, ""), np.ndarray):
            mlflow.tensorflow.save_model(
                export,
                path=place,
                signature=mlflow.models.infer_signature(example, answers),
                input_example=example,
                # Given, not inferred: inferring imports TensorFlow in another process.
                pip_requirements=[f"{what}=={at}" for what, at in origin.versions().items() if what != "python"],
            )
        else:  # MLflow's own flavor is asked by one array alone
            tf.saved_model.save(export, str(place.parent / "export"))
            given = arguments_of(place.parent / "export", example, answers, ARRAYS)
            written = mlflow.models.Model()
            with model_code:
                mlflow.pyfunc.save_model(path=place, mlflow_model=written, **given)
            (artifact,) = written.flavors["python_function"]["artifacts"].values()
            written.add_flavor("tensorflow", saved_model_dir=artifact["path"], model_type="tf2-module", code=None)
            written.save(place / "MLmodel")
            shutil.rmtree(place.parent / "export")
        self._say("model", file=name, metadata=_texts(metadata))

    def keep(self, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values and arrays on this machine's disk until the command is over, for when it has to go on."""
        self._writer.session.keep(self.key, what, values, arrays)

    def kept(self, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept, None where nothing was."""
        return self._writer.session.kept(self.key, what)

    def recall(self, child: str, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What a finished run under this one, named so, kept in a process before this one."""
        told = self._writer.session.runs.get(child_key(self.key, child))
        return self._writer.session.kept(told.key, what) if told and told.status == "FINISHED" else None

    def drop(self, what: str) -> None:
        """Forgets what was kept, once all that was said before is on disk."""
        self._writer.later(lambda: self._writer.session.drop(self.key, what))

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run, after all that was said of it and of those under it; the outermost has `log_seconds` of all.

        With another status than FINISHED it ends those under it, too, that are open.
        """
        ended, session = int(time.time() * 1000), self._writer.session

        def end() -> None:
            for told in session.below(self.key) if status != "FINISHED" else ():
                if told.status == "RUNNING":
                    session.append(told.key, {"op": "status", "status": status, "ended": ended})
            session.append(self.key, {"op": "status", "status": status, "ended": ended})

        self._writer.later(end)

    def flush(self) -> None:
        """Waits until the store has all that was said of this command's runs.

        Raises:
            UnavailableError: it does not take it.
        """
        if not self._writer.flush(PATIENCE_SECONDS):
            raise UnavailableError(
                f"the tracking store {self._writer.store} has not taken what was recorded so far: "
                f"{self._writer.error}. See that it answers, and run the command again."
            )

    def _say(self, kind: str, **what: Any) -> None:
        self._writer.append(self.key, {"op": kind, **what})


_writers: list[Writer] = []

Destination = tuple[dict[str, str], str | None, Exception | None]
"""What names the experiment of MLflow's that the runs go to, its id, and why the server did not tell that."""

_checked: dict[tuple[str | None, ...], Destination] = {}


def check() -> None:
    """Sees that the store takes the runs of this command, before anything is loaded for them; it is not asked again.

    Raises:
        UnavailableError: it does not. A server that does not answer is no error.
    """
    _checked[_asked()] = _destination()


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
        client = Client(uri, seconds=START_SECONDS)
        where = {"id": fixed} if fixed else None if project_run else {"name": name} if name else {"id": "0"}
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


def run_of(run_id: str) -> StoredRun:
    """A run that is on record.

    Raises:
        UsageError: the store has no such run, or it is deleted.
        UnavailableError: the store does not answer.
    """
    return existing_run(Client(seconds=START_SECONDS), run_id)


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
    """A few of the finished trainings under a run: its children, or theirs."""
    client, above = Client(seconds=START_SECONDS), [run]
    for _ in range(2):
        found: list[StoredRun] = []
        for each in above[:most]:
            below = f"tags.mlflow.parentRunId = '{each.info.run_id}' and attributes.status = 'FINISHED'"
            found += client.search_runs([run.info.experiment_id], below, max_results=100)
        if trainings := [each for each in found if each.data.tags.get("mlplab.kind") == "training"]:
            return trainings[:most]
        above = found
    return []


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
    if silence:
        say(
            f"The tracking server {shown(uri)} does not answer ({brief(silence)}): check MLFLOW_TRACKING_URI. Training "
            "goes on; what it records waits on this machine's disk until the server is back."
        )

    def usable(session: Session) -> bool:
        run_id = session.runs[session.key].run_id if session.key in session.runs else None
        if run_id is None or experiment is None:
            return session.key in session.runs
        try:
            there = bool(Client(uri, seconds=START_SECONDS).get_run(run_id).info.lifecycle_stage == "active")
        except mlflow.MlflowException as error:
            there = error.error_code != "RESOURCE_DOES_NOT_EXIST"
        if not there:  # somebody has deleted it: the command is to begin anew
            shutil.rmtree(session.folder, ignore_errors=True)
        return there

    session = _opened({"command": command, "store": absolute(uri), "experiment": where}, usable)
    writer = Writer(session, say)
    writer.experiment, writer.silent = experiment, experiment is None
    writer.start()
    run = Run(writer, session.key)
    if session.resumed:
        say(f"Going on with run {run.run_id}, which was interrupted.")
        run._say("reopen")
        if not writer.silent:  # so that what is on record is found there
            writer.flush(PATIENCE_SECONDS)
    else:
        every = {**resolve_tags(), **plumbing(run.key, run.key)}
        what = {"name": name, "tags": every, "start": int(time.time() * 1000)}
        run._say("create", **what, **({"run_id": project_run} if project_run else {}))
    run.tags({**tags, **plumbing(run.key, run.key)})
    if data is not None:
        run.data(data)
    _writers.append(writer)
    try:
        yield run
        writer.later(lambda: _end_all(session, "FINISHED", "KILLED"))
        writer.close(PATIENCE_SECONDS)
    except UndeliveredError:
        raise
    except BaseException as error:
        status, why = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", type(error).__name__
        writer.later(lambda: _cut_off(session, status, why))
        try:
            seconds = INTERRUPTED_SECONDS if status == "KILLED" else PATIENCE_SECONDS
            writer.close(seconds, since_taken=status != "KILLED")
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
        _writers.remove(writer)
        if project_run and session.resumed:
            _signpost(project_run, run, session)


def _opened(about: Mapping[str, Any], usable: Callable[[Session], bool] = lambda session: True) -> Session:
    try:
        return open_session(about, usable)
    except OSError as error:
        raise UnavailableError(
            f"the folder of what waits for the tracking store cannot be written: {error}. Nothing was trained. Make "
            "room there, or name another place: XDG_STATE_HOME=/an/absolute/path"
        ) from error


def _end_all(session: Session, outermost: str, others: str) -> None:
    """Says of every run that is open how it ended."""
    ended = int(time.time() * 1000)
    for told in list(session.runs.values()):
        if told.status == "RUNNING" and not told.foreign:
            status = outermost if told.key == session.key else others
            session.append(told.key, {"op": "status", "status": status, "ended": ended})


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
    writer = Writer(session, lambda line: None)
    writer.experiment = parent.experiment_id
    writer.start()
    try:
        yield Run(writer, parent.key)
    except BaseException:
        writer.later(lambda: _end_all(session, "FAILED", "FAILED"))
        with contextlib.suppress(UnavailableError):
            writer.close(START_SECONDS)
        raise
    writer.later(lambda: _end_all(session, "FINISHED", "KILLED"))
    writer.close(WORKER_SECONDS)


def _cut_off(session: Session, status: str, why: str) -> None:
    """Ends what is open of a command that does not come to its end; one that had only to be delivered is as it is."""
    outermost = session.runs.get(session.key)
    if outermost is None or outermost.status == "RUNNING":
        session.unfinished(why)
    _end_all(session, status, status)


def _state(session: Session) -> str:
    """What has become of the runs of a command that was interrupted."""
    killed = any(told.status == "KILLED" and not told.foreign for told in list(session.runs.values()))
    again = "goes on with them" if session.about["command"] is not None else "begins anew"
    if session.broken:
        return f"The disk did not take the record ({session.broken}): what the store does not have is lost."
    if not session.waiting:
        if killed:
            return f"The runs that were open are marked KILLED. Given again, the command {again}."
        return "All was over by then, and is on record."
    left = f"{shown(str(session.about['store']))} has not taken all of it. The rest waits in {session.folder}"
    if killed:
        return (
            f"The runs that were open end as KILLED, but the tracking store {left}; deliver it: python -m mlplab sync. "
            f"Given again, the command {again}."
        )
    return f"All trainings were over, but the tracking store {left}; deliver it: python -m mlplab sync"


def abandon() -> str:
    """Ends what is open as killed, from any thread, for a process that has to be gone.

    Returns:
        What has become of the runs; "" if none was open.
    """
    states = []
    for writer in list(_writers):
        _cut_off(writer.session, "KILLED", "killed")
        with contextlib.suppress(Exception):
            writer.flush(2.0, since_taken=False)
            writer.session.note()
        states.append(_state(writer.session))
    return " ".join(states)


def _signpost(project_run: str, run: Run, session: Session) -> None:
    """Has the run that `mlflow run` made for a command that went on with another run say so."""
    with contextlib.suppress(Exception):
        client = Client(str(session.about["store"]), seconds=START_SECONDS)
        status = session.runs[session.key].status
        said = f"This command went on with run {run.run_id}, which had been interrupted: look there."
        tags = {"mlplab.kind": "continuation", "mlplab.continues": run.run_id, "mlflow.note.content": said}
        client.log_batch(project_run, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        client.update_run(project_run, name="continuation")
        client.set_terminated(project_run, status)


def sync(say: Callable[[str], None]) -> bool:
    """Delivers what commands that are over have left on this machine's disk; whether all of it arrived."""
    complete, found = True, False
    for session in interrupted():
        if "worker" in session.about:  # what it had was done again elsewhere
            session.close()
            continue
        points, waiting = session.points_waiting, len(session.waiting)
        if not waiting:
            session.close()
            continue
        found = True
        store = str(session.about["store"])
        say(f"{waiting} runs with {points} metric points wait for {store}.")
        mlflow.set_tracking_uri(store)
        try:
            Client(store, seconds=START_SECONDS).search_experiments(max_results=1)
            writer = Writer(session, lambda line: None)
            writer.start()
            writer.close(PATIENCE_SECONDS)
        except UndeliveredError as error:
            complete = False
            say(str(error))
        except KeyboardInterrupt as error:
            error.add_note("What was not delivered waits on this machine as before: python -m mlplab sync")
            raise
        except Exception as error:
            complete = False
            session.close()
            refused = str(unusable(store, error))
            say(refused[0].upper() + refused[1:])
        else:
            outermost = session.runs.get(session.key, RunState(session.key))
            say(f"All of it has arrived; the outermost run is {outermost.run_id}.")
            if outermost.status == "RUNNING":
                say("Its command was interrupted: given again, it goes on; python -m mlplab reap ends its runs.")
    if not found:
        say("Nothing waits on this machine.")
    return complete


def reap(after: float, say: Callable[[str], None]) -> int:
    """Ends the RUNNING runs whose process is gone, as KILLED; how many.

    A process of this machine is looked for; one of another machine is taken for gone when its heartbeat has been
    silent for `after` seconds.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = Client(seconds=START_SECONDS)
    ended = 0
    try:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs, token = [], None
        while True:
            page = client.search_runs(
                experiments,
                f"attributes.status = 'RUNNING' and tags.`{PLUMBING}` LIKE '%'",
                max_results=1_000,
                page_token=token,
            )
            runs += page
            if not (token := page.token):
                break
        why: dict[str, str] = {}
        for run in runs:
            key = json.loads(run.data.tags[PLUMBING])["session"]
            if key not in why:
                why[key] = _gone(client, experiments, key, run, after)
            if why[key]:
                client.set_terminated(run.info.run_id, "KILLED")
                say(f"{run.info.run_id} {run.info.run_name}: KILLED, {why[key]}")
                ended += 1
    except mlflow.MlflowException as error:
        raise unusable(mlflow.get_tracking_uri(), error) from error
    return ended


def _gone(client: Client, experiments: Sequence[str], key: str, run: StoredRun, after: float) -> str:
    """Why the process behind a run is taken for gone; "" if it is not."""
    used = in_use(key)
    host, pid, since = (json.loads(run.data.tags[PLUMBING])["process"] + "  ").split(" ", 2)[:3]
    if used is None and host == socket.gethostname():
        used = began(pid) == since.strip()
    if used is not None:
        return "" if used else f"process {pid} on {host} is gone"
    outermost = client.search_runs(list(experiments), with_key(key), max_results=1)
    said = json.loads(outermost[0].data.tags[PLUMBING]) if outermost else {}
    last = float(said.get("heartbeat", run.info.start_time / 1000))
    silence = time.time() - last
    return f"no heartbeat from {host} for {silence:.0f} s" if silence > after else ""


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def read_artifact(run_id: str, path: str) -> str | None:
    """A text artifact of a run, None where there is none, or no such run.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = Client(seconds=START_SECONDS)
    try:
        if path not in {file.path for file in client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_text()
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
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
            found = Path(Client(seconds=START_SECONDS).download_artifacts(run_id, path, folder))
        except (mlflow.MlflowException, OSError) as error:
            raise UnavailableError(f"{path} of run {run_id} cannot be read: {brief(error)}") from error
        yield found


def load_model(run_id: str) -> tuple[str, Callable[[Any], Any]]:
    """The model logged in a run, loaded from the store: its address, and what answers for examples.

    Examples and answers: arrays, or nests of them, as the model was trained on and returns them; of flat images of 0 to
    255 the probabilities of their classes, float32, shape (images, classes).

    Raises:
        UnavailableError: the run has no model, or the store does not give it.
    """
    from mlplab.export import answering

    uri = f"runs:/{run_id}/model"
    try:
        with inner_retries():
            loaded = mlflow.tensorflow.load_model(uri)
    except Exception as error:
        raise UnavailableError(
            f"the model {uri} cannot be loaded from {mlflow.get_tracking_uri()}: {error}. A comparison logs the model "
            "of each variant's first seed; run the comparison again where its artifacts were deleted."
        ) from error
    return uri, answering(loaded)


# Without it MLflow's UI opens on its pages for language models, unless the reader has chosen otherwise before.
WORKFLOW = "workflowType=machine_learning"


def curves_address(run: Run, metric: str, ascending: bool) -> str:
    """The UI's page, relative to the UI, of the charts of the runs under a run, the best by `metric` first."""
    query = {
        "searchFilter": f'tags.mlflow.parentRunId="{run.run_id}"',
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": str(ascending).lower(),
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{run.experiment_id}/runs?{urlencode(query, quote_via=quote)}&{WORKFLOW}"


def address(run: Run) -> tuple[str, str]:
    """Where to look at a run: the command that opens the UI on this store, and the run's page there."""
    uri = mlflow.get_tracking_uri()
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?{WORKFLOW}"
    if is_server(uri):
        return "", f"{uri.rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri '{absolute(uri)}'", f"http://127.0.0.1:5000/{page}"
