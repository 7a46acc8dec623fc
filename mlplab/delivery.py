"""How what is said of runs gets from the journal on disk to the MLflow tracking store: in order, and exactly once.

A thread beside the training tries again until the store has taken everything. A metric point carries its own time, so
that the store keeps one where it gets two; a run is looked for by its key before it is created a second time.
"""

import contextlib
import difflib
import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import mlflow
import requests
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Experiment as StoredExperiment
from mlflow.entities import Run as StoredRun
from mlflow.utils.file_utils import get_local_path_or_none

from mlplab import backend
from mlplab.checks import UnavailableError, UndeliveredError, UsageError
from mlplab.spool import Operation, RunState, Session, child_key

backend.mlflow_imported()

FLUSH_SECONDS = 1.0
METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 1_000, 100, 100
"""MLflow's limits for one `log_batch`."""

START_SECONDS, PATIENCE_SECONDS, INTERRUPTED_SECONDS = 5.0, 30.0, 5.0
"""How long a store that does not answer is waited for: at the start, at the end (since it last took something), and
where the command was interrupted."""

WORKER_SECONDS = 600.0
"""How long a worker waits for a store that does not answer, before what it has trained counts as failed."""

MODEL_TRIES = 2
"""Logging a model takes long; while it is tried so often the store counts as taking something."""

SERVER_CONNECTIONS = 4
"""Runs delivered to a tracking server at a time; a file of SQLite takes one writer."""

HEARTBEAT_SECONDS = 30.0
"""How often a living command says so in its outermost run."""

model_code = threading.Lock()
"""Held while MLflow runs the code of a model that is logged, for which it puts a module of its own in the place of
another: two threads at a time would leave it there."""

PLUMBING = "mlflow.mlplab"
"""The tag of every run that has, as JSON, what this package alone asks of it. MLflow's UI hides such names."""


def plumbing(key: str, session: str, **more: float) -> dict[str, str]:
    """The tag that says of a run its own key, the session that made it, and the process behind that.

    Args:
        key: of the run; it stands first, so that a run is found by how the tag begins.
        session: the key of the outermost run.
        more: `heartbeat`, on the outermost run: its process's last sign of life, in seconds since 1970.
    """
    return {PLUMBING: json.dumps({"key": key, "session": session, "process": _process(), **more})}


def with_key(key: str) -> str:
    """MLflow's filter for the run that bears a key."""
    return f"""tags.`{PLUMBING}` LIKE '{{"key": "{key}"%'"""


@cache
def _process() -> str:
    """This process: its machine, its number, and when it began, since numbers are used again."""
    return f"{socket.gethostname()} {os.getpid()} {began(str(os.getpid()))}"


def began(pid: str) -> str:
    """When a process of this machine began, in the kernel's ticks (proc(5)); "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: the store did not answer, or was busy."""
    if isinstance(error, mlflow.MlflowException):
        if not is_server(mlflow.get_tracking_uri()):
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
        with _first_use(store):
            _check_address(store)
            while True:
                try:
                    self._client = mlflow.MlflowClient(uri)
                    break
                except Exception as error:
                    # Another machine may be making the tables of a database at this moment.
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


@contextlib.contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """Has one process of this machine at a time make the tables of a store that is no server's."""
    if is_server(uri):
        yield
        return
    name = hashlib.sha256(absolute(uri).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"mlplab-store-{name}.lock"
    try:
        try:
            held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # it may be another user's
        except FileNotFoundError:
            held = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # no room for it here: then nothing guards against who comes at the same moment
        yield
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def is_server(uri: str) -> bool:
    """Whether a store is behind a tracking server, and not a database of ours."""
    return uri.startswith(("http://", "https://"))


def absolute(uri: str) -> str:
    """The address of a store, as it is from any folder."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        here = str(Path.cwd()).replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{Path(here) / uri.removeprefix('sqlite:///')}"
    return uri


def shown(uri: str) -> str:
    """The address of a store for people: as it is from any folder, without a password."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", absolute(uri))


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
        remedy = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    elif is_server(uri) and status == 403:
        why = f"the server does not let this user write to the experiment (403: {brief(error)})"
        remedy = "Have its owner give the right to edit it, or name another: MLFLOW_EXPERIMENT_NAME."
    else:
        why = brief(error)
    return UnavailableError(f"the tracking store {shown(uri)} cannot be used: {why}. {remedy}")


def _status(error: Exception) -> int | None:
    """The status with which a server refused."""
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


class _NotYetError(Exception):
    """What is to be written names a run that the store does not have yet."""


class Writer:
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
        self._pool = ThreadPoolExecutor(SERVER_CONNECTIONS if is_server(self.store) else 1)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._wake, self._closing, self._over = threading.Event(), False, False
        self._bug: BaseException | None = None
        self._doubtful: set[str] = {told.key for told in session.runs.values() if told.run_id is None}
        self._twice: set[str] = set()
        self._modelling = False
        self._beaten = 0.0
        self._taken = self._answered = time.monotonic()
        self.silent = False

    def start(self) -> None:
        """Begins to deliver."""
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

    def append(self, run: str, operation: Operation) -> None:
        """Has an operation of a run written to the journal."""
        self.later(lambda: self.session.append(run, operation))

    def flush(self, seconds: float, since_taken: bool = True) -> bool:
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
        complete = self.flush(seconds, since_taken)
        self._over = True
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
        outermost = self.session.runs.get(self.session.key)
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
            f"the tracking store {shown(self.store)} did not take everything: {sum(len(t.pending) for t in waiting)} "
            f"writes ({self.session.points_waiting} metric points) of {len(waiting)} runs ({names}) wait {where}, the "
            f"first because of {why}. Those runs are incomplete in the store. {remedy}",
            refused=refused,
        )

    def _answers(self) -> bool:
        try:
            Client(self.store, seconds=1.0).search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def _run(self) -> None:
        pause = FLUSH_SECONDS
        while not self._over:
            self._wake.wait(pause)
            self._wake.clear()
            if self._over:
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
                    self._say(f"The tracking server {shown(self.store)} answers again.")

    def _outage(self, error: Exception) -> None:
        late = time.monotonic() - self._answered > 3 * FLUSH_SECONDS
        if late and not self.silent and is_server(self.store) and is_transient(error):
            self.silent = True
            self._say(
                f"The tracking server {shown(self.store)} does not answer ({brief(error)}). Training goes on; what it "
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
        outermost = self.session.runs.get(self.session.key)
        if outermost and outermost.run_id and time.monotonic() - self._beaten > HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            alive = plumbing(outermost.key, outermost.key, heartbeat=int(time.time()))
            self.client.set_tag(outermost.run_id, PLUMBING, alive[PLUMBING])

    def _deliver(self, told: RunState) -> Exception | None:
        """Delivers a run's operations until one fails."""
        started = time.perf_counter()
        try:
            if self.experiment is None:
                self.experiment = experiment_id(self.client, self.session.about["experiment"])
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

    def _log(self, told: RunState, batch: Sequence[Operation]) -> int:
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

    def _do(self, told: RunState, operation: Operation) -> int:
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

    def _create(self, told: RunState, operation: Operation) -> int:
        if told.run_id and operation.get("run_id") is None:
            return 1
        assert self.experiment is not None
        tags = dict(operation["tags"])
        if operation.get("run_id"):  # the project's own
            run = self.client.get_run(operation["run_id"])
            # The name that `mlflow run` makes up, such as nimble-fox-41; one that the user gave stays.
            if re.fullmatch(r"[a-z]+-[a-z]+-\d+", run.info.run_name or ""):
                self.client.update_run(operation["run_id"], name=operation["name"])
            self.client.log_batch(operation["run_id"], tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
            _open_for_training(self.client, self.client.get_experiment(self.experiment))
            return 1
        if told.parent:
            parent = self.session.runs[told.parent].run_id if told.parent in self.session.runs else told.parent
            if parent is None:
                return 0
            tags["mlflow.parentRunId"] = parent
        else:
            _open_for_training(self.client, self.client.get_experiment(self.experiment))
        if told.key in self._doubtful and (found := self._with_key(self.client, told.key)):
            self._twice.add(told.key)
            told.run_id = found[0].info.run_id
        else:
            self._twice |= self._doubtful & {told.key}
            self._doubtful.add(told.key)
            made = self.client.create_run(self.experiment, operation["start"], tags, operation["name"])
            told.run_id = made.info.run_id
            self._doubtful.discard(told.key)
        return 1

    def _with_key(self, client: Any, key: str) -> list[StoredRun]:
        """The runs that bear a key, the first that was created first."""
        found: list[StoredRun] = client.search_runs(
            [self.experiment], with_key(key), order_by=["attributes.start_time ASC"]
        )
        return found

    def look_for(self, key: str, parent: str) -> None:
        """Takes over a run that another process has created, which died since, and what it said of it."""
        client = Client(self.store)
        try:
            found = self._with_key(client, key) if self.experiment else []
            points = [
                (metric.key, metric.step)
                for run in found[:1]
                for name in run.data.metrics
                for metric in client.get_metric_history(run.info.run_id, name)
            ]
        except Exception as error:
            if not is_transient(error):
                raise
            return
        if not found:
            return
        told = RunState(key, parent, run_id=found[0].info.run_id, points=set(points), params=set(found[0].data.params))

        def take() -> None:
            self.session.runs.setdefault(key, told)

        self.later(take)
        if found[0].info.status != "RUNNING":
            self.append(key, {"op": "reopen"})

    def _sweep(self) -> None:
        """Deletes runs of which the store said too late that it had created them."""
        for key in self._twice:
            with contextlib.suppress(Exception):
                for run in self._with_key(self.client, key):
                    if run.info.run_id != self.session.runs[key].run_id:
                        self.client.delete_run(run.info.run_id)

    def _end(self, told: RunState, operation: Operation) -> None:
        if operation.get("log_seconds"):
            every = [each.seconds for each in list(self.session.runs.values())]
            seconds = operation.setdefault("seconds", sum(every))
            self.session.note()  # so that it is the same if it has to be said again
            logged = Metric("log_seconds", seconds, operation["ended"], 0)
            self.client.log_batch(told.run_id, metrics=[logged], synchronous=True)
        self.client.set_terminated(told.run_id, operation["status"], operation["ended"])

    def _model(self, told: RunState, operation: Operation) -> None:
        """Logs a model's folder as `model`, with its run's params, tags, and metrics as a whole."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        path, run_id = self.session.folder / "files" / operation["file"], str(told.run_id)
        before = []
        tries = operation.setdefault("tries", 0)
        if tries or self.session.resumed:
            before = list(
                self.client.search_logged_models([self.experiment], f"source_run_id = '{run_id}' AND name = 'model'")
            )
            if any(model.status == LoggedModelStatus.READY for model in before):
                return
        operation["tries"] = tries + 1
        metadata = {name: self._named(str(value)) for name, value in operation["metadata"].items()}
        run = self.client.get_run(run_id)
        tags = {name: value for name, value in run.data.tags.items() if name.startswith(("mlplab.", "dataset"))}
        of = {"dataset_name": tags.get("dataset"), "dataset_digest": tags.get("dataset.digest")}
        self._modelling = tries < MODEL_TRIES
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_modelling", False)
            made = self.client.create_logged_model(run.info.experiment_id, "model", run_id, tags, run.data.params)
            # A model's metrics are points of its run: these are as the run has them, so that it has none twice. What
            # has a step is of the training; the model is as it was after the best epoch.
            metrics = [
                Metric(one.key, one.value, one.timestamp, 0, made.model_id, **(of if all(of.values()) else {}))
                for one in run.data.to_proto().metrics
                if one.step == 0 and math.isfinite(one.value)
            ]
            described = Model.load(str(path))
            described.run_id, described.metadata = run_id, metadata
            described.model_id = described.model_uuid = made.model_id
            described.artifact_path = made.artifact_location
            described.save(str(path / "MLmodel"))
            stack.enter_context(inner_retries())
            self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
            self.client.log_batch(run_id, metrics, synchronous=True)
            self.client.log_model_artifacts(made.model_id, str(path))
            self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        for failed in before:
            with contextlib.suppress(Exception):
                self.client.delete_logged_model(failed.model_id)

    def _named(self, text: str) -> str:
        """`text` with the store's names of runs in place of keys."""
        text = self.session.substituted(text)
        if any(told.run_id is None and told.key in text for told in list(self.session.runs.values())):
            raise _NotYetError
        return text.replace(self.experiment_key, self.experiment) if self.experiment else text


@contextlib.contextmanager
def inner_retries() -> Iterator[None]:
    """Lets MLflow's own client make requests again, where it makes many in one call of ours.

    Not where it would create what is looked for by nothing: a logged model that it creates twice is an empty one more.
    """
    with backend.environment({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}):
        yield


def brief(error: Exception) -> str:
    """The first line of an error, without what surrounds the cause."""
    said = str(error).splitlines()[0] if str(error) else ""
    for cause in ("Connection refused", "timed out", "Name or service not known", "Connection reset"):
        if cause.lower() in said.lower():
            return cause.lower()
    return said[:120] or type(error).__name__


def _dataset_input(values: Mapping[str, str]) -> DatasetInput:
    return DatasetInput(DatasetEntity(**values), [InputTag("mlflow.data.context", "training")])


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
        if "id" not in where or error.error_code not in _NOT_THERE:
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


_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What a store says of an id that it does not have, or that cannot be one."""


def experiment_id(client: Any, where: Mapping[str, str]) -> str:
    """The id of the experiment; raises as `experiment_of` does."""
    return str(experiment_of(client, where).experiment_id)


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
        if isinstance(error, mlflow.MlflowException) and error.error_code in _NOT_THERE:
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


def check_writable(client: Any, experiment: StoredExperiment) -> None:
    """Sees that an experiment takes what this user writes, and opens it on its runs.

    By default MLflow's UI opens it on pages for language models.

    Raises:
        MlflowException: it does not.
        UnavailableError: its artifacts go to a folder of this machine that is not to be written to.
    """
    _open_for_training(client, experiment)
    folder = get_local_path_or_none(experiment.artifact_location)
    if folder is not None and not _writable(Path(folder)):
        raise UnavailableError(
            f"the experiment {experiment.name!r} keeps its artifacts in {folder}, which this user may not write to. "
            "Give the user the right, or name another experiment, made in a folder of yours: MLFLOW_EXPERIMENT_NAME."
        )


def _open_for_training(client: Any, experiment: StoredExperiment) -> None:
    # Written even where it is so already: whether a store can be written to is found by writing.
    kind = experiment.tags.get("mlflow.experimentKind", "custom_model_development")
    try:
        client.set_experiment_tag(experiment.experiment_id, "mlflow.experimentKind", kind)
    except mlflow.MlflowException as error:
        if "unique constraint" not in str(error).lower():
            raise
        # MLflow looks for a tag before it adds one: another command was quicker, and now it is there.
        client.set_experiment_tag(experiment.experiment_id, "mlflow.experimentKind", kind)
