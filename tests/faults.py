"""What the tests that break things share: real commands, real tracking servers, and what stands between them.

A `Machine` starts `python -m mlplab`, or does here what it does; a `Power` cuts that off at one of its operations; a
`Server` is MLflow's, a `Proxy` spoils the traffic to it, and a `Store` reads what arrived.
"""

import contextlib
import fcntl
import functools
import http.client
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, ROOT, free_port, plain_name, wait_until

TIMED = re.compile(r"seconds$")
"""Metrics that differ from one execution to the next."""


# ---------------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    seconds: float


class Command:
    """`python -m mlplab …`, running; `terminal`: at a terminal of its own, else into a file."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], terminal: bool) -> None:
        self.started = time.time()
        self._log = folder / f"command-{time.time_ns()}.log"
        self._master: int | None = None
        options: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            if terminal:
                self._master, slave = pty.openpty()
                stack.callback(os.close, slave)
                fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
                # What is typed reaches the process of whose session this is the terminal.
                options = {"stdin": slave, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}
                output: Any = slave
                environment = environment | {"TERM": "xterm"}
                threading.Thread(target=self._read, daemon=True).start()
            else:
                output = stack.enter_context(self._log.open("wb"))
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlplab", *arguments],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def _read(self) -> None:
        assert self._master is not None
        with self._log.open("wb", buffering=0) as log, contextlib.suppress(OSError):
            while read := os.read(self._master, 65_536):
                log.write(read)

    @property
    def said(self) -> str:
        """What it wrote so far, without the terminal's control sequences."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)

    def ends_within(self, seconds: float) -> bool:
        """Waits for its end, at most so long."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_until(self, true: Callable[[], Any]) -> Any:
        """Waits until something is true while the command runs, and returns it."""

        def found() -> Any:
            # First, since what it did before its end counts.
            if not (is_so := true()):
                assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said}"
            return is_so

        return wait_until(found, said=lambda: self.said)

    def kill(self) -> None:
        """The power is cut: it and all that it started are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def send(self, number: int) -> None:
        """Sends a signal; at a terminal, SIGINT is a Ctrl-C that is typed there."""
        if self._master is not None and number == signal.SIGINT:
            os.write(self._master, b"\x03")
        else:
            self.process.send_signal(number)

    def done(self, seconds: float = 2 * PATIENCE) -> Done:
        """Waits for the end, which is to come by itself."""
        if not self.ends_within(seconds):
            said = self.said
            self.kill()
            raise AssertionError(f"did not end within {seconds} s:\n{said}")
        return Done(self.process.returncode, self.said, time.time() - self.started)


class Machine:
    """A computer with a folder to work in, a state of its own, and a tracking store by its address.

    Its trainings keep their state at every epoch.

    Args:
        experiment: MLflow's, so that artifacts go where it says and not where the store was first made.
        state: what XDG_STATE_HOME says, where it is shared with another machine.
    """

    def __init__(self, folder: Path, uri: str, experiment: str = "faults", state: Path | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.uri, self.experiment = folder, uri, experiment
        self.state = state or folder / "state"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLPLAB_", "MLFLOW_"))}
        self.environment = kept | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "XDG_STATE_HOME": str(self.state),
            "MLPLAB_CHECKPOINT_SECONDS": "0",
            "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_EXPERIMENT_NAME": experiment,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "no_proxy": "127.0.0.1",
        }

    def start(self, *arguments: str, terminal: bool = False, **environment: str) -> Command:
        """Starts `python -m mlplab` with `arguments`."""
        return Command(arguments, self.folder, self.environment | environment, terminal)

    def run(self, *arguments: str, **environment: str) -> Done:
        """Runs `python -m mlplab` with `arguments` to its end."""
        return self.start(*arguments, **environment).done()

    def here(self, *arguments: str, **environment: str) -> Done:
        """Does in this process what `python -m mlplab` does with `arguments`; its state is that of the commands."""
        import mlflow

        from mlplab import __main__, trial
        from mlplab.store import recorder

        started, out = time.time(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            for name in os.environ:
                if name.startswith(("MLPLAB_", "MLFLOW_")) and not name.startswith("MLFLOW_HTTP_"):
                    patch.delenv(name)
            for name, value in (self.environment | environment).items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(trial, "CHECKPOINT_SECONDS", float(self.environment["MLPLAB_CHECKPOINT_SECONDS"]))
            # The journal is on disk in a moment, and what waits for the store goes there as often.
            patch.setattr(recorder, "FLUSH_SECONDS", 0.05)
            stack.callback(mlflow.set_tracking_uri, None)
            mlflow.set_tracking_uri(self.uri)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(out))
            try:
                code = __main__.main(arguments)
            except Exception:  # with which a process would end
                traceback.print_exc()
                code = 1
        return Done(code, out.getvalue(), time.time() - started)

    def record(self) -> "Store":
        """What is on record in this machine's experiment."""
        # A store that is a file has the artifacts of new experiments in the folder where this process first meets it.
        with contextlib.chdir(self.folder):
            store = Store(self.uri, self.experiment)
            store.experiment_id()
        return store

    def spec(self, name: str, text: str) -> tuple[str, ...]:
        """Writes a spec, and gives the arguments that train it on the digits."""
        (self.folder / f"{name}.py").write_text(text)
        return "compare", "--spec", f"{name}.py", "--dataset", "digits"


# ------------------------------------------------------------------------------------------------------------- power


class PowerCutError(BaseException):
    """The process is no more: this is raised wherever it goes on."""


@dataclass(frozen=True)
class Operation:
    """The n-th time, from 1, that a command does something of a kind by which it reaches its disk or the store."""

    kind: str
    number: int = 1


class Power:
    """Runs commands in this process, and cuts their power at one of their operations on disk or store.

    From then on nothing that the command does has an effect: each of its threads is ended where it next operates, and
    what it had locked is free. Operations are files opened for writing, moved and removed below `folder`, where state
    and artifacts are to be; transactions of the journal, not begun, not committed or committed; and the calls of the
    store's that write, not made or made without an answer, MLflow's own within its calls among them.
    """

    _audited: "Power | None" = None
    _hooked = False

    def __init__(self, folder: Path) -> None:
        self.seen: Counter[str] = Counter()
        self.cut = False
        self._folder = f"{folder}{os.sep}"
        self._at: Callable[[Operation], bool] = lambda operation: False
        self._lock = threading.RLock()
        if not Power._hooked:
            Power._hooked = True  # A hook stays for good.
            sys.addaudithook(lambda event, arguments: Power._audited and Power._audited._audit(event, arguments))

    def run(self, work: Callable[[], Done], at: Callable[[Operation], bool] = lambda operation: False) -> Done | None:
        """Does `work`, and cuts its power at the first operation for which `at` is true; None where it was cut."""
        self.seen.clear()
        self.cut, self._at = False, at
        with pytest.MonkeyPatch.context() as patch:
            recorders, sessions = self._wire(patch)
            Power._audited, done = self, None
            try:
                done = work()
            except PowerCutError:
                pass
            finally:
                for each in recorders:
                    each.stop()
                Power._audited = None
        for session in sessions:
            session.release()
        return None if self.cut else done

    def alive(self) -> None:
        """Ends whoever goes on after the cut."""
        if self.cut:
            raise PowerCutError

    def reach(self, kind: str, part: Callable[[], object] = lambda: None) -> None:
        """An operation is begun, in part done, or done; `part` is done where the power is cut at it."""
        with self._lock:
            self.alive()
            self.seen[kind] += 1
            if self._at(Operation(kind, self.seen[kind])):
                part()
                self.cut = True
                raise PowerCutError(kind)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not (flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(mode) & set("wxa+")):
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"):
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        if (
            isinstance(path, str | os.PathLike)
            and str(path).startswith(self._folder)
            and not str(path).endswith("/lock")
        ):
            # Ids and times make no other kind, nor does what an artifact or a part of a model is called.
            name = re.sub(r"(?<=uploading\.).*|(?<=models/m-).*", "…", str(path).removeprefix(self._folder))
            name = re.sub(r"[0-9a-f]{32}|\d[\d-]*", "…", name)
            name = re.sub(r"(?<=artifacts/)[^./]+|(?<=files/…/)[^/]+(?=\.png)", "…", name)
            self.reach(f"{event} {name}")

    def _wire(self, patch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
        """Has every operation but those on files pass by here; lists what the command opens."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        from mlplab import stores
        from mlplab.store import deliver, journal, recorder, sessions

        recorders: list[Any] = []
        opened: list[Any] = []
        power = self

        class Database:
            """A session's, whose transactions pass by here."""

            def __init__(self, database: Any) -> None:
                self.database, self.said = database, ""

            def __getattr__(self, name: str) -> Any:
                return getattr(self.database, name)

            def executemany(self, statement: str, rows: Any) -> Any:
                rows = list(rows)
                if "INTO operation" in statement:
                    self.said = f"journal {json.loads(rows[-1][2])['op']}" if rows else "journal"
                return self.database.executemany(statement, rows)

            def execute(self, statement: str, *values: Any) -> Any:
                power.alive()
                if statement != "COMMIT":
                    return self.database.execute(statement, *values)
                power.reach(f"within {self.said}")
                done = self.database.execute(statement)
                power.reach(f"after {self.said}")
                return done

        class Clock:
            def __getattr__(self, name: str) -> Any:
                return getattr(time, name)

            def sleep(self, seconds: float) -> None:
                power.alive()
                time.sleep(seconds)

        def after(owner: Any, name: str, then: Callable[[Any], object]) -> None:
            made = getattr(owner, name)

            def both(self: Any, *arguments: Any, **named: Any) -> None:
                made(self, *arguments, **named)
                then(self)

            patch.setattr(owner, name, both)

        def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            writes = name.startswith(("create_", "log_", "update_", "set_", "delete_", "finalize_", "record_"))

            @functools.wraps(call)
            def through(*arguments: Any, **named: Any) -> Any:
                power.alive()
                if not writes:
                    return call(*arguments, **named)
                power.reach(f"before {name}")
                answer = call(*arguments, **named)
                power.reach(f"after {name}")
                return answer

            return through

        connect = journal.connected
        patch.setattr(journal, "connected", lambda path: Database(connect(path)))
        after(journal.Session, "__init__", opened.append)
        after(recorder.Recorder, "__init__", recorders.append)
        for module in (deliver, journal, recorder, sessions, stores):
            patch.setattr(module, "time", Clock())
        said = threading.excepthook

        def if_alive(name: str) -> None:
            does = getattr(recorder.Recorder, name)

            def checked(*arguments: Any) -> Any:
                power.alive()
                return does(*arguments)

            patch.setattr(recorder.Recorder, name, checked)

        def said_of_others(ended: Any) -> None:
            if not issubclass(ended.exc_type, PowerCutError):
                said(ended)

        if_alive("append")
        if_alive("later")
        # A thread that the cut has ended says nothing of it.
        patch.setattr(threading, "excepthook", said_of_others)
        for name, call in list(vars(SqlAlchemyStore).items()):
            if callable(call) and not name.startswith("_"):
                patch.setattr(SqlAlchemyStore, name, watched(name, call))
        return recorders, opened


# ----------------------------------------------------------------------------------------------------------- servers


class Server:
    """MLflow's tracking server, with artifacts, log and, unless told otherwise, its database in a folder."""

    def __init__(
        self, folder: Path, backend: str | None = None, port: int | None = None, host: str = "127.0.0.1"
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.port, self.host = folder, port or free_port(), host
        self.backend = backend or f"sqlite:///{folder}/mlflow.db"
        self.uri = f"http://{host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, on the same port each time, and returns when it listens."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", self.host, "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.backend]
        command += ["--artifacts-destination", f"{self.folder}/artifacts"]
        environment = os.environ | {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if self.host != "127.0.0.1":
            environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{self.host}:{self.port}"
        environment.pop("MLFLOW_TRACKING_URI", None)
        log = self.folder / "server.log"
        with log.open("a") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=self.folder, env=environment, start_new_session=True
            )
        wait_until(self._listens, said=log.read_text)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port), timeout=PATIENCE).close()
            return True
        return False

    def kill(self) -> None:
        """It is gone at once, with its workers; nothing happens where it is gone already."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


# ------------------------------------------------------------------------------------------------------------- proxy


@dataclass(frozen=True)
class Fault:
    """What is done to a request.

    Attributes:
        delay: seconds before anything else happens.
        status: this is answered, and the server never hears of it.
        cut: the connection is closed, and the server never hears of it.
        swallow: the server does it, and the connection is closed without its answer.
        late: the connection is closed, and the server does it when the next such request has been answered.
    """

    delay: float = 0.0
    status: int | None = None
    cut: bool = False
    swallow: bool = False
    late: bool = False


PASS, SWALLOW = Fault(), Fault(swallow=True)


@dataclass(frozen=True)
class Seen:
    """A request that the proxy saw, what it did to it, and what the server answered, if it was asked."""

    method: str
    path: str
    body: bytes = field(repr=False)
    fault: Fault
    answered: int | None


class Proxy:
    """Stands before a server and does to each request what `fault` says, given its method and its path."""

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str, str], Fault] = lambda method, path: PASS
        self.seen: list[Seen] = []
        self.late: dict[str, bytes] = {}
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self._body()
                fault = proxy.fault(self.command, self.path.partition("?")[0])
                time.sleep(fault.delay)
                answer = None
                if fault.late:
                    proxy.late[self.path] = body
                elif fault.status is None and not fault.cut:
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        answer = self._ask(body)
                        if (before := proxy.late.pop(self.path, None)) is not None:
                            self._ask(before)
                status = answer[0] if answer else None
                proxy.seen.append(Seen(self.command, self.path, body, fault, status))
                with contextlib.suppress(OSError):
                    if fault.status is not None:
                        self._reply(fault.status, [("Content-Type", "text/plain")], b"spoilt on the way")
                    elif answer is None or fault.swallow:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                    else:
                        self._reply(*answer)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _any  # noqa: N815

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return b"".join(parts)

            def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
                skipped = {"transfer-encoding", "content-length", "connection"}
                headers = {key: value for key, value in self.headers.items() if key.lower() not in skipped}
                if body or self.command in {"POST", "PUT", "PATCH"}:
                    headers["Content-Length"] = str(len(body))
                try:
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                for key, value in headers:
                    if key.lower() not in {"transfer-encoding", "content-length", "connection"}:
                        self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *arguments: object) -> None:
                """A client that goes away is what these tests are about."""

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._listener.server_address[1]}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def spoil_first(self, *endings: str, fault: Fault = SWALLOW) -> list[str]:
        """Spoils the first writing request to each path with one of `endings`; without endings, to each kind of path.

        Returns the list of what was spoilt, which grows.
        """
        spoilt: list[str] = []
        lock = threading.Lock()

        def first(method: str, path: str) -> Fault:
            # An id or a file's name makes no other kind of path.
            kind = f"{method} {re.sub(r'/[0-9a-f]{32}|/m-[0-9a-f]+|/artifacts/.*', '/…', path)}"
            wanted = any(path.endswith(ending) for ending in endings) or not endings
            reads = method in {"GET", "HEAD"} or path.endswith("search")
            with lock:
                if reads or not wanted or kind in spoilt:
                    return PASS
                spoilt.append(kind)
                return fault

        self.fault = first
        return spoilt


# ------------------------------------------------------------------------------------------------------------- store


def key_of(run: Any) -> str:
    """The key that a run bears from its first moment on."""
    from mlplab import marks

    return str(json.loads(run.data.tags[marks.PLUMBING])["key"])


def resumed_at(run: Any) -> int:
    """The epoch after which a training went on that was cut off; 0 where it began anew, or was not cut off."""
    said = re.fullmatch(r"epoch (\d+)", run.data.tags.get("mlplab.resumed_at", ""))
    return int(said[1]) if said else 0


class Store:
    """What is on record in one experiment of a tracking store."""

    def __init__(self, uri: str, experiment: str = "faults") -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.experiment = experiment

    def experiment_id(self) -> str | None:
        """The experiment's id, None while there is none."""
        found = self.client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else None

    def runs(self) -> list[Any]:
        """All runs of the experiment, the first started first."""
        number = self.experiment_id()
        if number is None:
            return []
        return list(self.client.search_runs([number], order_by=["attributes.start_time ASC"], max_results=1_000))

    def parents(self) -> list[Any]:
        """The runs that are under no other."""
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def trained(self) -> list[Any]:
        """The runs of trainings."""
        return [run for run in self.runs() if run.data.tags.get("mlplab.kind") == "training"]

    def below(self, parent: Any) -> list[Any]:
        """The runs under a run, at any depth."""
        every = self.runs()
        keys = [key_of(run) for run in every]
        assert len(set(keys)) == len(keys), f"a key is missing or there twice: {keys}"
        found, above = [], {parent.info.run_id}
        while new := [r for r in every if r.data.tags.get("mlflow.parentRunId") in above and r not in found]:
            found += new
            above = {run.info.run_id for run in new}
        return found

    def trainings(self, parent: Any) -> dict[str, Any]:
        """The trainings under a run by name; two of one name are an error."""
        every = {run.info.run_id for run in self.trained()}
        found = [run for run in self.below(parent) if run.info.run_id in every]
        names = [run.info.run_name for run in found]
        assert len(set(names)) == len(names), f"a training is there twice: {names}"
        return dict(zip(names, found, strict=True))

    def history(self, run_id: str, metric: str) -> list[tuple[int, int, float]]:
        """Step, time and value of every point of a metric, by step and time."""
        points = self.client.get_metric_history(run_id, metric)
        return sorted((point.step, point.timestamp, point.value) for point in points)

    def epochs(self, name: str) -> int:
        """Epochs on record of the training of this name that was started last."""
        found = [run for run in self.runs() if run.info.run_name == name]
        return max((step for step, *_ in self.history(found[-1].info.run_id, "loss")), default=0) if found else 0

    def artifacts(self, run_id: str, folder: str = "") -> list[str]:
        """Every file of a run."""
        found: list[str] = []
        for file in self.client.list_artifacts(run_id, folder or None):
            found += self.artifacts(run_id, file.path) if file.is_dir else [file.path]
        return sorted(found)

    def models(self) -> dict[str, list[str]]:
        """Id of a run -> the states of the models logged in it."""
        number = self.experiment_id()
        found: dict[str, list[str]] = {}
        for model in self.client.search_logged_models([number]) if number else []:
            found.setdefault(model.source_run_id, []).append(str(model.status).rpartition(".")[2])
        return found

    def content(self, parent: Any) -> dict[str, dict[str, Any]]:
        """All that a comparison left that does not differ from one execution to the next: name of a run -> parts.

        Every metric must have one point a step, without gaps, in the order of their times.
        """
        models = self.models()
        names: dict[str, str] = {parent.info.run_id: ""}
        found: dict[str, dict[str, Any]] = {}
        for run in [parent, *self.below(parent)]:
            run_id, tags = run.info.run_id, run.data.tags
            above = names.get(tags.get("mlflow.parentRunId", ""), "")
            name = names[run_id] = f"{above}/{plain_name(run)}"
            assert name not in found, f"{name} is there twice"
            metrics = {}
            for metric in run.data.metrics:
                points = self.history(run_id, metric)
                steps = [step for step, *_ in points]
                if metric.startswith("train_eval_"):  # after some epochs, of which the best is known in the end
                    assert steps == sorted(set(steps)), f"{name}, {metric}: steps {steps}"
                else:
                    assert steps in ([0], list(range(1, len(points) + 1))), f"{name}, {metric}: steps {steps}"
                    times = [when for _, when, _ in points]
                    assert times == sorted(times), f"{name}, {metric}: times are not in order"
                metrics[metric] = None if TIMED.search(metric) else [(step, repr(value)) for step, _, value in points]
            kept = {"mlplab.status", "mlplab.kind", "mlplab.variant", "batch_order", "winner", "reached", "dataset"}
            found[name] = {
                "status": run.info.status,
                "params": run.data.params,
                "tags": {key: value for key, value in tags.items() if key in kept or key.startswith("weights.")},
                "metrics": metrics,
                "artifacts": self.artifacts(run_id),
                "models": models.get(run_id, []).count("READY"),
                "inputs": [each.dataset.digest for each in run.inputs.dataset_inputs],
            }
        return found


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where two contents differ, a line each: what an assertion on megabytes of them would not show."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(expected.keys() | found.keys()):
            if key not in found or key not in expected:
                lines.append(f"{where}/{key}: {'missing' if key in expected else 'unexpected'}")
            else:
                lines += differences(expected[key], found[key], f"{where}/{key}")
        return lines
    if expected == found:
        return []
    if isinstance(expected, list) and isinstance(found, list):
        at = next(
            (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
            min(map(len, (expected, found))),
        )
        return [
            f"{where}: {len(expected)} and {len(found)} entries, from {at} on {expected[at:][:2]} and {found[at:][:2]}"
        ]
    return [f"{where}: {expected!r} is expected, {found!r} is there"]


PASSWORDS = ("POSTGRES_PASSWORD_FILE", "DATABASE_PASSWORD_FILE")


@contextlib.contextmanager
def postgresql_store() -> Iterator[str]:
    """The address of a new database on a PostgreSQL of the test's own; skips where there is none."""
    from test_services import database

    account = {"POSTGRES_USER": "postgres", "POSTGRES_INITDB_ARGS": "--auth=scram-sha-256"}
    with contextlib.ExitStack() as stack:
        password = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "password"
        password.write_text("secret")
        reached = stack.enter_context(database({**account, **dict.fromkeys(PASSWORDS, str(password))}))
        yield f"postgresql+psycopg2://mlflow:secret@{reached['PGHOST']}:{reached['PGPORT']}/mlflow"
