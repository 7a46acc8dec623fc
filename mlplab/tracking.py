"""What is written to the MLflow tracking store, and how it gets there.

What is said of a run goes to a journal on disk at once (`mlplab.spool`), and from there to the store through a thread
beside the training: in order, tried again until the store has taken it, and exactly once. A metric point carries its
own time, so that the store keeps one where it gets two; a run is looked for by its key before it is created a second
time. So a training needs no store to go on, and a process that is killed leaves nothing that only it knew.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import mlflow
import numpy as np
import requests
from matplotlib.figure import Figure
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.tracking.context.registry import resolve_tags

from mlplab.data import Dataset
from mlplab.spec import UnavailableError, UndeliveredError
from mlplab.spool import Operation, Session, Told, child_key, in_use, interrupted, open_session

FLUSH_SECONDS = 1.0
METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 1_000, 100, 100
"""MLflow's limits for one `log_batch`."""

START_SECONDS, PATIENCE_SECONDS, INTERRUPTED_SECONDS = 5.0, 30.0, 5.0
"""How long a store that does not answer is waited for: at the start, at the end (since it last took something), and
where the command was interrupted."""

WORKER_SECONDS = 600.0
"""How long a worker waits for a store that does not answer, before what it has trained counts as failed."""

SERVER_CONNECTIONS = 4
"""Runs delivered to a tracking server at a time; a file of SQLite takes one writer."""

HEARTBEAT_SECONDS, GONE_SECONDS = 30.0, 300.0
"""How often a living command says so in its outermost run, and after what silence one on another machine is gone."""

KEY, SESSION, PROCESS, HEARTBEAT = "mlplab.key", "mlplab.session", "mlplab.process", "mlplab.heartbeat"
"""Tags of every run: its own key, that of the outermost run, the process behind it; and the latter's last sign of life,
in seconds since 1970, on the outermost run alone."""

# MLflow's client would send a request again whose answer was lost, and so create a run twice: what is tried again, and
# how, is decided here. By default a dead server would block each call for minutes.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# It prints what SQLite is asked again anyway.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _passing(error: Exception) -> bool:
    """Whether the same call may succeed later: the store did not answer, or was busy."""
    if isinstance(error, mlflow.MlflowException):
        if not _is_server(mlflow.get_tracking_uri()):
            return "locked" in str(error)
        return error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
    if isinstance(error, requests.HTTPError):
        return error.response is None or error.response.status_code >= 500
    return isinstance(error, requests.RequestException | ConnectionError | TimeoutError)


def once(create: Callable[[], Any], look: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `create` creates; where its answer is lost `look` finds it, or None and it is created again."""
    until, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return create()
        except Exception as error:
            if not _passing(error) or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 3.0)
        if found := look():
            return found


class Client:
    """An MLflow client whose calls are made again where the store did not answer and repeating does no harm.

    Args:
        seconds: for how long.
    """

    def __init__(self, uri: str | None = None, seconds: float = PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        with _first_use(uri or mlflow.get_tracking_uri()):
            self._client = mlflow.MlflowClient(uri)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name.startswith("create_"):
            return call

        def patiently(*arguments: Any, **named: Any) -> Any:
            until, pause = time.monotonic() + self._seconds, 0.1
            while True:
                try:
                    return call(*arguments, **named)
                except Exception as error:
                    if not _passing(error) or time.monotonic() + pause > until:
                        raise
                time.sleep(pause)
                pause = min(2 * pause, 3.0)

        return patiently


@contextlib.contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """Has one process of this machine at a time make the tables of a store in a file."""
    if not uri.startswith("sqlite:"):
        yield
        return
    name = hashlib.sha256(_absolute(uri).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"mlplab-store-{name}.lock"
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _absolute(uri: str) -> str:
    """The address of a store, as it is from any folder."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return uri


class _NotYetError(Exception):
    """What is to be written names a run that the store does not have yet."""


class _Writer:
    """Has what is said written to the journal, and from there to the store."""

    def __init__(self, session: Session, say: Callable[[str], None], client: Any = None) -> None:
        self.session = session
        self.store = str(session.about["store"])
        self.client = client or Client(self.store, seconds=0.0)
        self.error: Exception | None = None
        self.experiment: str | None = None
        self.experiment_key = child_key(session.key, "its experiment")
        self._say = say
        self._stage = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._pool = ThreadPoolExecutor(SERVER_CONNECTIONS if _is_server(self.store) else 1)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._wake, self._closing = threading.Event(), False
        self._bug: BaseException | None = None
        self._doubtful: set[str] = {told.key for told in session.told.values() if told.run_id is None}
        self._twice: set[str] = set()
        self._modelling = False
        self._beaten = 0.0
        self._taken = self._answered = time.monotonic()
        self.silent = False

    def start(self) -> None:
        self._thread.start()

    def later(self, work: Callable[[], None]) -> None:
        """Does `work` beside the training, after all that was said before."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._bug = self._bug or error

        try:
            self._stage.submit(guarded)
        except RuntimeError:  # interrupted while it waits for the store at the end
            guarded()

    def say(self, run: str, operation: Operation) -> None:
        """Has an operation of a run written to the journal."""
        self.later(lambda: self.session.say(run, operation))

    def settle(self, seconds: float, since_taken: bool = True) -> bool:
        """Waits until the store has all that was said, or has taken nothing for so long; whether it has all."""
        with contextlib.suppress(RuntimeError):  # closed
            self._stage.submit(lambda: None).result()
        self._taken = time.monotonic()
        began = self._taken
        while self.session.waiting:
            if self._modelling and since_taken:  # many requests of MLflow's own, each of which ends
                self._taken = time.monotonic()
            if time.monotonic() - (self._taken if since_taken else began) > seconds:
                return False
            self._wake.set()
            time.sleep(0.02)
        return True

    def close(self, seconds: float, since_taken: bool = True) -> None:
        """Delivers the rest.

        Raises:
            UndeliveredError: the store did not take everything; the rest waits on disk.
        """
        self._stage.shutdown(wait=True)
        self._closing = True
        complete = self.settle(seconds, since_taken)
        self._thread_over = True
        self._wake.set()
        if complete:
            self._thread.join()
            self._sweep()
        else:
            self._thread.join(timeout=1.0)
            lost = self._undelivered()
            self.session.note()
            self.session.close()
            raise lost from self.error
        self.session.close()
        if self._bug is not None:
            raise self._bug

    def _undelivered(self) -> UndeliveredError:
        """What is missing in the store, with its runs there marked as far as it answers."""
        waiting = self.session.waiting
        outermost = self.session.told.get(self.session.key)
        names = ", ".join(told.run_id or "one that could not be created" for told in waiting[:5])
        why = f"{type(self.error).__name__}: {self.error}" if self.error else "it was too slow"
        for told in {told.key: told for told in [*waiting, *([outermost] if outermost else [])]}.values():
            if told.run_id and not (outermost and outermost.status == "KILLED") and not self.silent:
                with contextlib.suppress(Exception):
                    self.client.set_terminated(told.run_id, "FAILED")
        refused = self._answers()
        where = "in memory alone, and is lost" if self.session.broken else f"in {self.session.folder}"
        remedy = (
            f"The disk did not take it: {self.session.broken}. Make room, and run the command again."
            if self.session.broken
            else "The store answers, so see what keeps it from taking this (a full disk, rights), then deliver it: "
            "python -m mlplab sync"
            if refused
            else "See that the store answers, then deliver it: python -m mlplab sync"
        )
        return UndeliveredError(
            f"the tracking store {self.store} did not take everything: {sum(len(t.pending) for t in waiting)} writes "
            f"({self.session.points_waiting} metric points) of {len(waiting)} runs ({names}) wait {where}, the first "
            f"because of {why}. Those runs are incomplete in the store. {remedy}",
            refused=refused,
        )

    def _answers(self) -> bool:
        try:
            _experiment(Client(self.store, seconds=1.0), self.session.about["experiment"])
        except Exception:
            return False
        return True

    _thread_over = False

    def _run(self) -> None:
        pause = FLUSH_SECONDS
        while not self._thread_over:
            self._wake.wait(pause)
            self._wake.clear()
            if self._thread_over:
                break
            before, failed = self._taken, self._round()
            if failed and self._taken == before:
                pause = min(2 * pause, 10.0) if not self._closing else 0.5
                # Not more often, however often it is woken.
                time.sleep(min(pause, 0.5))
                self._outage(failed)
            else:
                pause, self._answered = FLUSH_SECONDS, time.monotonic()
                if self.silent and self._taken != before:
                    self.silent = False
                    self._say(f"The tracking server {self.store} answers again.")

    def _outage(self, error: Exception) -> None:
        late = time.monotonic() - self._answered > 3 * FLUSH_SECONDS
        if late and not self.silent and _is_server(self.store) and _passing(error):
            self.silent = True
            self._say(
                f"The tracking server {self.store} does not answer ({_brief(error)}). Training goes on; what it "
                f"records waits in {self.session.folder} until the server is back."
            )

    def _round(self) -> Exception | None:
        """Delivers what it can; the first error, if there was one."""
        errors = [error for error in self._pool.map(self._deliver, self.session.waiting) if error]
        with contextlib.suppress(Exception):
            self._beat()
        if errors:
            self.error = errors[0]
        return errors[0] if errors else None

    def _beat(self) -> None:
        outermost = self.session.told.get(self.session.key)
        if outermost and outermost.run_id and time.monotonic() - self._beaten > HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            self.client.set_tag(outermost.run_id, HEARTBEAT, str(int(time.time())))

    def _deliver(self, told: Told) -> Exception | None:
        """Delivers a run's operations until one fails."""
        started = time.perf_counter()
        try:
            while True:
                with self.session.lock:
                    operations = list(itertools.islice(told.pending, METRICS_PER_CALL))
                if not operations:
                    return None
                batch = list(itertools.takewhile(lambda operation: operation["op"] == "batch", operations))
                done = self._log(told, batch) if batch else self._do(told, operations[0])
                if not done:
                    return None
                told.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self.session.delivered(told, done)
                self._taken = time.monotonic()
        except _NotYetError:
            return None
        except Exception as error:
            told.seconds += time.perf_counter() - started
            return error

    def _log(self, told: Told, batch: Sequence[Operation]) -> int:
        """Delivers the first of several batches, as many as one call takes; returns how many."""
        taken = 1
        while taken < len(batch) and all(
            sum(len(operation.get(kind, ())) for operation in batch[: taken + 1]) <= most
            for kind, most in (("metrics", METRICS_PER_CALL), ("params", PARAMS_PER_CALL), ("tags", TAGS_PER_CALL))
        ):
            taken += 1
        metrics = [Metric(*point) for operation in batch[:taken] for point in operation.get("metrics", ())]
        params = [Param(*each) for operation in batch[:taken] for each in operation.get("params", {}).items()]
        said: dict[str, str] = {}
        for operation in batch[:taken]:
            said |= operation.get("tags", {})
        tags = [RunTag(name, self._named(value)) for name, value in said.items()]
        while metrics or params or tags:
            self.client.log_batch(
                told.run_id,
                metrics[:METRICS_PER_CALL],
                params[:PARAMS_PER_CALL],
                tags[:TAGS_PER_CALL],
                synchronous=True,
            )
            del metrics[:METRICS_PER_CALL], params[:PARAMS_PER_CALL], tags[:TAGS_PER_CALL]
        return taken

    def _do(self, told: Told, operation: Operation) -> int:
        """Delivers an operation; returns 1, or 0 where its time has not come."""
        kind = operation["op"]
        if kind == "create":
            return self._create(told, operation)
        run_id = told.run_id
        if kind == "reopen":
            self.client.update_run(run_id, status="RUNNING")
        elif kind == "inputs":
            self.client.log_inputs(run_id, [_dataset_input(each) for each in operation["inputs"]])
        elif kind == "text":
            self.client.log_text(run_id, self._named(operation["text"]), operation["path"])
        elif kind == "artifact":
            path = self.session.folder / "files" / operation["file"]
            if path.is_dir():
                self.client.log_artifacts(run_id, str(path))
            else:
                self.client.log_artifact(run_id, str(path))
        elif kind == "model":
            self._model(told, operation)
        elif kind == "adopt":
            pass
        elif any(below.pending for below in self.session.below(told.key)):
            return 0
        else:
            self._end(told, operation)
        return 1

    def _create(self, told: Told, operation: Operation) -> int:
        if told.run_id and operation.get("run_id") is None:
            return 1
        if self.experiment is None:
            self.experiment = _experiment(self.client, self.session.about["experiment"])
        tags = dict(operation["tags"])
        if operation.get("run_id"):  # the project's own
            run = self.client.get_run(operation["run_id"])
            # The name that `mlflow run` makes up, such as nimble-fox-41; one that the user gave stays.
            if re.fullmatch(r"[a-z]+-[a-z]+-\d+", run.info.run_name or ""):
                self.client.update_run(operation["run_id"], name=operation["name"])
            self.client.log_batch(operation["run_id"], tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
            _open_for_training(self.client, self.experiment)
            return 1
        if told.parent:
            parent = self.session.told[told.parent].run_id if told.parent in self.session.told else told.parent
            if parent is None:
                return 0
            tags["mlflow.parentRunId"] = parent
        else:
            _open_for_training(self.client, self.experiment)
        if told.key in self._doubtful and (found := self._with_key(told.key)):
            self._twice.add(told.key)
            told.run_id = found[0].info.run_id
        else:
            self._twice |= self._doubtful & {told.key}
            self._doubtful.add(told.key)
            made = self.client.create_run(self.experiment, operation["start"], tags, operation["name"])
            told.run_id = made.info.run_id
            self._doubtful.discard(told.key)
        return 1

    def _with_key(self, key: str) -> list[StoredRun]:
        """The runs that bear a key, the first that was created first."""
        found: list[StoredRun] = self.client.search_runs(
            [self.experiment], f"tags.`{KEY}` = '{key}'", order_by=["attributes.start_time ASC"]
        )
        return found

    def look_for(self, key: str, parent: str) -> None:
        """Takes over a run that another process has created, which died since, and what it said of it."""
        client = Client(self.store)
        try:
            found = client.search_runs([self.experiment], f"tags.`{KEY}` = '{key}'") if self.experiment else []
            points = [
                (metric.key, metric.step)
                for run in found[:1]
                for name in run.data.metrics
                for metric in client.get_metric_history(run.info.run_id, name)
            ]
        except Exception as error:
            if not _passing(error):
                raise
            return
        if not found:
            return
        told = Told(key, parent, run_id=found[0].info.run_id, points=set(points), params=set(found[0].data.params))

        def take() -> None:
            self.session.told.setdefault(key, told)

        self.later(take)
        if found[0].info.status != "RUNNING":
            self.say(key, {"op": "reopen"})

    def _sweep(self) -> None:
        """Deletes runs of which the store said too late that it had created them."""
        for key in self._twice:
            with contextlib.suppress(Exception):
                for run in self._with_key(key):
                    if run.info.run_id != self.session.told[key].run_id:
                        self.client.delete_run(run.info.run_id)

    def _end(self, told: Told, operation: Operation) -> None:
        if operation.get("log_seconds"):
            seconds = operation.setdefault("seconds", told.seconds)
            told.seconds = seconds
            self.session.note()  # so that it is the same if it has to be said again
            logged = Metric("log_seconds", seconds, operation["ended"], 0)
            self.client.log_batch(told.run_id, metrics=[logged], synchronous=True)
        self.client.set_terminated(told.run_id, operation["status"], operation["ended"])

    def _model(self, told: Told, operation: Operation) -> None:
        """Logs a model as `model`, with signature, input example and requirements."""
        import keras
        from mlflow.entities import LoggedModelStatus
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        from mlplab import models

        path = self.session.folder / "files" / operation["file"]
        example = np.load(path.parent / "example.npy")
        before = []
        if operation.setdefault("tried", False) or self.session.resumed:
            before = list(
                self.client.search_logged_models(
                    [self.experiment], f"source_run_id = '{told.run_id}' AND name = 'model'"
                )
            )
            if any(model.status == LoggedModelStatus.READY for model in before):
                return
        operation["tried"] = self._modelling = True
        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float32"), (-1, example.shape[1]), name=None)]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, operation["classes"]), name=None)]),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(inner_retries())
            stack.callback(setattr, self, "_modelling", False)
            Model.log(
                artifact_path=None,
                name="model",
                flavor=mlflow.tensorflow,
                run_id=told.run_id,
                model=models.Export(keras.saving.load_model(path, compile=False, safe_mode=True)),
                signature=signature,
                input_example=example,
                # Given, not inferred: inferring imports TensorFlow in another process.
                pip_requirements=[f"{name}=={installed}" for name, installed in versions().items() if name != "python"],
                metadata={name: self._named(str(value)) for name, value in operation["metadata"].items()},
            )
        for failed in before:
            with contextlib.suppress(Exception):
                self.client.delete_logged_model(failed.model_id)

    def _named(self, text: str) -> str:
        """`text` with the store's names of runs in place of keys."""
        text = self.session.substituted(text)
        if any(told.run_id is None and told.key in text for told in list(self.session.told.values())):
            raise _NotYetError
        return text.replace(self.experiment_key, self.experiment) if self.experiment else text


@contextlib.contextmanager
def inner_retries() -> Iterator[None]:
    """Lets MLflow's own client make requests again, where it makes many in one call of ours.

    Not where it would create what is looked for by nothing: a logged model that it creates twice is an empty one more.
    """
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "4"
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "1"
    try:
        yield
    finally:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


def _brief(error: Exception) -> str:
    """The first line of an error, without what surrounds the cause."""
    said = str(error).splitlines()[0] if str(error) else ""
    for cause in ("Connection refused", "timed out", "Name or service not known", "Connection reset"):
        if cause.lower() in said.lower():
            return cause.lower()
    return said[:120] or type(error).__name__


def _dataset_input(values: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(DatasetEntity(**values), [InputTag("mlflow.data.context", "training")])


FINGERPRINT = "mlplab.fingerprint"
"""The tag that says what decided a run's numbers, by which what has been done already is found."""


def fingerprinted(fingerprint: str) -> dict[str, str]:
    """The tags of a run with a fingerprint.

    It is in the name of one, too: MLflow's tables have an index of names, and none of values. Names in MLflow's own
    room are no columns in its UI.
    """
    return {FINGERPRINT: fingerprint, f"mlflow.{FINGERPRINT}.{fingerprint}": "true"}


@dataclass(frozen=True)
class Place:
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

    def __init__(self, writer: _Writer, key: str) -> None:
        self.key = key
        self._writer = writer
        known = writer.session.told.get(key)
        self.finished = known is not None and known.status == "FINISHED"

    @property
    def run_id(self) -> str:
        """The store's name of the run; its key, for which that is put in wherever it is written, until there is one."""
        told = self._writer.session.told.get(self.key)
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
        if run.key not in session.told:
            if session.resumed or "worker" in session.about:
                self._writer.look_for(run.key, self.key)
            outermost = session.about.get("worker", session.key)
            every = {**tags, KEY: run.key, SESSION: outermost, PROCESS: _process()}
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
    def place(self) -> Place:
        """What another process has to know to create runs under this one.

        Raises:
            UnavailableError: the store does not have this run yet.
        """
        self.settle()
        writer = self._writer
        return Place(writer.store, self.experiment_id, self.run_id, self.key, writer.session.key)

    def twin(self, name: str, found: Found, tags: Mapping[str, Any]) -> None:
        """Creates a run under this one that repeats a finished one: its times, params, data set and metrics."""
        source = Client().get_run(found.run_id)
        every = {**source.data.tags, **_texts(tags), "mlplab.reused_from": found.run_id}
        run = self._child(name, every, source.info.start_time)
        if run.finished:
            return
        run.params(source.data.params)
        inputs = [
            {field: getattr(each.dataset, field) for field in ("name", "digest", "source_type", "source", "profile")}
            for each in source.inputs.dataset_inputs
        ]
        run._say("inputs", inputs=inputs)
        for metric in source.data.metrics:
            history = Client().get_metric_history(found.run_id, metric)
            run._say("batch", metrics=[[m.key, m.value, m.timestamp, m.step] for m in history])
        run._say("status", status="FINISHED", ended=source.info.end_time)

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
                [self._writer.experiment or _experiment(client, self._writer.session.about["experiment"])],
                f"tags.`mlflow.{FINGERPRINT}.{fingerprint}` = 'true' and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        except Exception as error:
            if _passing(error):
                return None
            raise
        return Found(runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def data(self, data: Dataset) -> None:
        """Logs the data set as the run's input, under our own digest: MLflow's hashes the first few images only."""
        profile = json.dumps({name: len(getattr(data, name)) for name in ("train", "validation", "test")})
        source = json.dumps({"uri": data.source})
        values = {"name": data.label, "digest": data.digest, "source_type": "local", "source": source}
        self._say("inputs", inputs=[{**values, "profile": profile}])

    def text(self, text: str, path: str) -> None:
        """Writes a text artifact."""
        self._say("text", text=text, path=path)

    def figure(self, figure: Figure, path: str) -> None:
        """Writes a figure as an image artifact."""

        def draw() -> None:
            place, name = self._writer.session.file(path)
            figure.savefig(place)
            self._writer.session.say(self.key, {"op": "artifact", "file": name})

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

    def model(self, model: Any, example: np.ndarray, classes: int, metadata: Mapping[str, Any]) -> None:
        """Logs the export of a Keras model as `model`, with signature, input example and requirements.

        Args:
            model: as it is now.
            example: raw pixels, float32, shape (images, features).
            classes: the width of what it returns.
            metadata: what leads back from the model to how it came about.
        """
        place, name = self._writer.session.file("model.keras")
        model.save(place)
        np.save(place.parent / "example.npy", example)
        self._say("model", file=name, classes=classes, metadata=_texts(metadata))

    def keep(self, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values and arrays on this machine's disk until the command is over, for when it has to go on."""
        self._writer.session.keep(self.key, what, values, arrays)

    def kept(self, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept, None where nothing was."""
        return self._writer.session.kept(self.key, what)

    def recall(self, child: str, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What a finished run under this one, named so, kept in a process before this one."""
        told = self._writer.session.told.get(child_key(self.key, child))
        return self._writer.session.kept(told.key, what) if told and told.status == "FINISHED" else None

    def drop(self, what: str) -> None:
        """Forgets what was kept, once all that was said before is on disk."""
        self._writer.later(lambda: self._writer.session.drop(self.key, what))

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run, after all that was said of it and of those under it; logs the seconds its logging took.

        With another status than FINISHED it ends those under it, too, that are open.
        """
        ended, session = int(time.time() * 1000), self._writer.session

        def end() -> None:
            for told in session.below(self.key) if status != "FINISHED" else ():
                if told.status == "RUNNING":
                    session.say(told.key, {"op": "status", "status": status, "ended": ended})
            session.say(self.key, {"op": "status", "status": status, "ended": ended})

        self._writer.later(end)

    def settle(self) -> None:
        """Waits until the store has all that was said of this command's runs.

        Raises:
            UnavailableError: it does not take it.
        """
        if not self._writer.settle(PATIENCE_SECONDS):
            raise UnavailableError(
                f"the tracking store {self._writer.store} has not taken what was recorded so far: "
                f"{self._writer.error}. See that it answers, and run the command again."
            )

    def _say(self, kind: str, **what: Any) -> None:
        self._writer.say(self.key, {"op": kind, **what})


_writers: list[_Writer] = []


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
    experiment = None
    try:
        client = Client(uri, seconds=START_SECONDS)
        where = _where(client, project_run)
        try:
            experiment = _experiment(client, where)
        except Exception as error:
            if not (_is_server(uri) and _passing(error)):
                raise
            say(
                f"The tracking server {uri} does not answer ({_brief(error)}): check MLFLOW_TRACKING_URI. Training "
                "goes on; what it records waits on this machine's disk until the server is back."
            )
    except Exception as error:
        raise UnavailableError(
            f"the tracking store {uri} cannot be used: {type(error).__name__}: {error}. "
            "Nothing was trained. Check MLFLOW_TRACKING_URI and that the server answers."
        ) from error

    def usable(session: Session) -> bool:
        run_id = session.told[session.key].run_id if session.key in session.told else None
        if run_id is None or experiment is None:
            return session.key in session.told
        try:
            there = bool(client.get_run(run_id).info.lifecycle_stage == "active")
        except mlflow.MlflowException as error:
            there = error.error_code != "RESOURCE_DOES_NOT_EXIST"
        if not there:  # somebody has deleted it: the command is to begin anew
            shutil.rmtree(session.folder, ignore_errors=True)
        return there

    session = _opened({"command": command, "store": _absolute(uri), "experiment": where}, usable)
    writer = _Writer(session, say)
    writer.experiment, writer.silent = experiment, experiment is None
    writer.start()
    run = Run(writer, session.key)
    if session.resumed:
        say(f"Going on with run {run.run_id}, which was interrupted.")
        run._say("reopen")
        if not writer.silent:  # so that what is on record is found there
            writer.settle(PATIENCE_SECONDS)
    else:
        every = {**resolve_tags(), KEY: run.key, SESSION: run.key, PROCESS: _process()}
        what = {"name": name, "tags": every, "start": int(time.time() * 1000)}
        run._say("create", **what, **({"run_id": project_run} if project_run else {}))
    run.tags({**tags, PROCESS: _process()})
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
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        session.unfinished(type(error).__name__)
        writer.later(lambda: _end_all(session, status, status))
        with contextlib.suppress(UnavailableError):
            seconds = INTERRUPTED_SECONDS if status == "KILLED" else PATIENCE_SECONDS
            writer.close(seconds, since_taken=status != "KILLED")
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
    for told in list(session.told.values()):
        if told.status == "RUNNING" and not told.foreign:
            status = outermost if told.key == session.key else others
            session.say(told.key, {"op": "status", "status": status, "ended": ended})


@contextlib.contextmanager
def under(place: Place) -> Iterator[Run]:
    """On a worker: the run of another process under which runs are created here. Leaving it waits until all is written.

    Raises:
        UnavailableError: the store has no such run, or does not answer.
        UndeliveredError: the store did not take everything.
    """
    mlflow.set_tracking_uri(place.store)
    try:
        Client(place.store).get_run(place.run_id)
    except Exception as error:
        raise UnavailableError(
            f"the run {place.run_id} is not to be had from {place.store} on {socket.gethostname()}: {_brief(error)}. "
            "Workers of other machines need a tracking server: set MLFLOW_TRACKING_URI to one that they reach."
        ) from error
    about = {"command": None, "store": place.store, "experiment": {"id": place.experiment_id}, "worker": place.session}
    session = _opened(about)
    session.told[place.key] = Told(place.key, run_id=place.run_id, foreign=True)
    writer = _Writer(session, lambda line: None)
    writer.experiment = place.experiment_id
    writer.start()
    try:
        yield Run(writer, place.key)
    except BaseException:
        writer.later(lambda: _end_all(session, "FAILED", "FAILED"))
        with contextlib.suppress(UnavailableError):
            writer.close(START_SECONDS)
        raise
    writer.later(lambda: _end_all(session, "FINISHED", "KILLED"))
    writer.close(WORKER_SECONDS)


def abandon() -> bool:
    """Ends what is open as killed, from any thread, for a process that has to be gone; whether anything was open."""
    open_now = list(_writers)
    for writer in open_now:
        writer.session.unfinished("killed")
        _end_all(writer.session, "KILLED", "KILLED")
        with contextlib.suppress(Exception):
            writer.settle(2.0, since_taken=False)
            writer.session.note()
    return bool(open_now)


def _signpost(project_run: str, run: Run, session: Session) -> None:
    """Has the run that `mlflow run` made for a command that went on with another run say so."""
    with contextlib.suppress(Exception):
        client = Client(str(session.about["store"]), seconds=START_SECONDS)
        status = session.told[session.key].status
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
            writer = _Writer(session, lambda line: None)
            outermost = session.told.get(session.key)
            status, run_id = (outermost.status, outermost.run_id) if outermost else ("RUNNING", None)
            writer.start()
            writer.close(PATIENCE_SECONDS)
        except UndeliveredError as error:
            complete = False
            say(str(error))
        except Exception as error:
            complete = False
            session.close()
            say(f"The tracking store {store} cannot be used: {_brief(error)}")
        else:
            run_id = session.told[session.key].run_id if session.key in session.told else run_id
            say(f"All of it has arrived; the outermost run is {run_id}.")
            if status == "RUNNING":
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
                f"attributes.status = 'RUNNING' and tags.`{SESSION}` LIKE '%'",
                max_results=1_000,
                page_token=token,
            )
            runs += page
            if not (token := page.token):
                break
        why: dict[str, str] = {}
        for run in runs:
            key = run.data.tags[SESSION]
            if key not in why:
                why[key] = _gone(client, experiments, key, run, after)
            if why[key]:
                client.set_terminated(run.info.run_id, "KILLED")
                say(f"{run.info.run_id} {run.info.run_name}: KILLED, {why[key]}")
                ended += 1
    except mlflow.MlflowException as error:
        raise UnavailableError(
            f"the tracking store {mlflow.get_tracking_uri()} does not answer as it should: {error.message}. Check "
            "MLFLOW_TRACKING_URI."
        ) from error
    return ended


def _gone(client: Client, experiments: Sequence[str], key: str, run: StoredRun, after: float) -> str:
    """Why the process behind a run is taken for gone; "" if it is not."""
    used = in_use(key)
    host, pid, began = (run.data.tags.get(PROCESS, "") + "  ").split(" ", 2)[:3]
    if used is None and host == socket.gethostname():
        used = _began(pid) == began.strip()
    if used is not None:
        return "" if used else f"process {pid} on {host} is gone"
    outermost = client.search_runs(list(experiments), f"tags.`{KEY}` = '{key}'", max_results=1)
    tags = outermost[0].data.tags if outermost else {}
    last = float(tags.get(HEARTBEAT, run.info.start_time / 1000))
    silence = time.time() - last
    return f"no heartbeat from {host} for {silence:.0f} s" if silence > after else ""


@cache
def _process() -> str:
    """This process: its machine, its number, and when it began, since numbers are used again."""
    return f"{socket.gethostname()} {os.getpid()} {_began(str(os.getpid()))}"


def _began(pid: str) -> str:
    """When a process of this machine began, in the kernel's ticks (proc(5)); "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _where(client: Client, project_run: str | None) -> dict[str, str]:
    """What names the experiment of MLflow's that the runs go to."""
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return {"id": experiment_id}
    if project_run:
        return {"id": client.get_run(project_run).info.experiment_id}
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return {"name": name} if name else {"id": "0"}


def _experiment(client: Any, where: Mapping[str, str]) -> str:
    """The experiment's id; it is created where it has a name and is not there.

    Several processes may do so at once; one creates it, the others find it.
    """
    if "id" in where:
        return str(client.get_experiment(where["id"]).experiment_id)
    found = client.get_experiment_by_name(where["name"])
    if found is None:
        try:
            return str(client.create_experiment(where["name"]))
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(where["name"])
    return str(found.experiment_id)


def _open_for_training(client: Any, experiment_id: str) -> None:
    """Has the UI open the experiment on its runs, and not, as it does by default, on pages for language models."""
    if "mlflow.experimentKind" not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


NUMBERS_COME_FROM = ("spec.py", "models.py", "training.py", "trial.py", "search.py", "run.py")
"""The files of this package that decide an experiment's numbers; a change to one makes its record outdated."""

FLAGS = ("XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")
"""Environment variables that change how TensorFlow computes."""


@cache
def versions() -> dict[str, str]:
    """Versions of what computes the numbers: Python and the packages behind a training."""
    found = {"python": platform.python_version()}
    for package in ("tensorflow-cpu", "tensorflow", "keras", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def circumstances() -> dict[str, str]:
    """What a result depends on besides its spec, as tags: code, versions, processor."""
    tags = {f"version.{name}": installed for name, installed in versions().items()}
    tags["version.mlflow"] = version("mlflow")
    tags["cpu"] = _processor()
    tags["code"] = hashlib.sha256("".join(code()).encode()).hexdigest()[:16]
    tags["flags"] = " ".join(f"{name}={os.environ[name]}" for name in FLAGS if os.environ.get(name)) or "none"
    tags["cpu.cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    tags |= _commit()
    return tags


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code() -> list[str]:
    """Hashes of the files that decide an experiment's numbers.

    Taken once: the code that runs is the code as it was loaded, whatever happens to the files meanwhile.
    """
    return [hashlib.sha256((Path(__file__).parent / name).read_bytes()).hexdigest() for name in NUMBERS_COME_FROM]


def _commit() -> dict[str, str]:
    """The commit of the code that runs, and whether files differ from it."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(git("status", "--porcelain"))).lower()}
    except (OSError, subprocess.SubprocessError):
        return {"git.commit": "unknown", "git.dirty": "unknown"}


def read_artifact(run_id: str, path: str) -> str | None:
    """A text artifact of a run, None where there is none, or no such run.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = mlflow.MlflowClient()
    try:
        if path not in {file.path for file in client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_text()
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UnavailableError(f"{path} of run {run_id} cannot be read: {error.message}") from error
    except OSError as error:
        raise UnavailableError(f"{path} of run {run_id} cannot be read: {error}") from error


def load_model(run_id: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The model logged in a run, loaded from the store: its address, and what maps raw pixels to probabilities.

    Pixels: shape (images, features), 0 to 255; probabilities: float32, shape (images, classes).

    Raises:
        UnavailableError: the run has no model, or the store does not give it.
    """
    uri = f"runs:/{run_id}/model"
    try:
        loaded = mlflow.tensorflow.load_model(uri)
    except Exception as error:
        raise UnavailableError(
            f"the model {uri} cannot be loaded from {mlflow.get_tracking_uri()}: {error}. A comparison logs the models "
            "of its winner and of its best RMSprop variant; run the comparison again where its artifacts were deleted."
        ) from error
    return uri, lambda pixels: np.asarray(loaded(pixels.astype(np.float32)))


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
    if _is_server(uri):
        return "", f"{uri.rstrip('/')}/{page}"
    return f"mlflow ui --backend-store-uri '{_absolute(uri)}'", f"http://127.0.0.1:5000/{page}"
