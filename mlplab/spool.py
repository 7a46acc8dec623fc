"""What a command has said of its runs, on disk until the tracking store has it.

A session is the folder of one command: `journal.jsonl` holds what was said, a line each, in order; `files/` the
artifacts; `kept/` checkpoints and results; `delivered.json` how much of each run the store has. A process that is
killed leaves a session that the same command goes on with: whatever it says again is not written twice.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlplab import state_dir

FORGET_DAYS = 14
"""An interrupted session of which the store has everything is kept so long for its command to be given again."""

Operation = dict[str, Any]


def sessions_dir() -> Path:
    """The folder of all sessions of this user on this machine."""
    return state_dir() / "sessions"


@dataclass
class RunState:
    """What was said of a run, as the journal has it.

    Attributes:
        pending: what the store does not have yet, in order.
        delivered: how many operations the store has.
        run_id: the store's name of the run; None where it has none yet.
        status: the last status said: RUNNING, or how it ended.
        foreign: whether another process creates and ends it: it is here to have runs under it.
        points, params: what has been said already: (metric, step), and names of params.
        seconds: that delivering took so far.
    """

    key: str
    parent: str | None = None
    pending: deque[Operation] = field(default_factory=deque)
    delivered: int = 0
    run_id: str | None = None
    status: str = "RUNNING"
    foreign: bool = False
    points: set[tuple[str, int]] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    seconds: float = 0.0

    def take(self, operation: Operation) -> None:
        """Adds an operation that is in the journal."""
        if operation["op"] == "create":
            self.parent = operation.get("parent")
            self.run_id = self.run_id or operation.get("run_id")
        elif operation["op"] == "batch":
            self.points |= {(name, step) for name, _, _, step in operation.get("metrics", ())}
            self.params |= set(operation.get("params", ()))
        elif operation["op"] == "status":
            self.status = operation["status"]
            if operation.get("log_seconds"):
                self.points.add(("log_seconds", 0))
        elif operation["op"] == "reopen":
            self.status = "RUNNING"
        elif operation["op"] == "adopt":
            self.parent, self.run_id, self.status = operation["parent"], operation["run_id"], operation["status"]
        self.pending.append(operation)

    def unsaid(self, operation: Operation) -> Operation | None:
        """What of an operation has not been said before; None if nothing is left of it."""
        if operation["op"] == "status":
            if operation["status"] == self.status:
                return None
            # What logging cost is said once, of the whole command.
            outermost = self.parent is None and not self.foreign
            over = operation["status"] in ("FINISHED", "FAILED")
            first = outermost and over and ("log_seconds", 0) not in self.points
            return {**operation, **({"log_seconds": True} if first else {})}
        if operation["op"] != "batch":
            return operation
        metrics = [point for point in operation.get("metrics", ()) if (point[0], point[3]) not in self.points]
        params = {name: value for name, value in operation.get("params", {}).items() if name not in self.params}
        left = {"metrics": metrics, "params": params, "tags": operation.get("tags", {})}
        kept = {kind: values for kind, values in left.items() if values}
        return {"op": "batch", **kept} if kept else None


class Session:
    """The record of one command on disk; this process alone has it.

    Attributes:
        key: names the session, and its outermost run.
        resumed: whether another process began it.
        runs: key of a run -> what was said of it, in the order of creation.
        broken: why the disk did not take something, which then is in memory alone; None if it took all.
        held: the descriptor of the lock, by which this process alone has it.
        journal: the file of what was said, open to be written on.
    """

    def __init__(self, folder: Path, lock: int, about: Mapping[str, Any], resumed: bool) -> None:
        self.folder, self.about, self.resumed = folder, dict(about), resumed
        self.key: str = self.about["key"]
        self.runs: dict[str, RunState] = {}
        self.broken: OSError | None = None
        self.lock = threading.RLock()
        self.held = lock
        self._files = 0
        self._load()
        self.journal = (folder / "journal.jsonl").open("ab")

    def _load(self) -> None:
        journal, whole = self.folder / "journal.jsonl", 0
        with contextlib.suppress(FileNotFoundError):
            content = journal.read_bytes()
            for line in content.splitlines(keepends=True):
                try:
                    operation = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    operation = None
                if operation is None:  # the process was killed while it wrote it
                    break
                self.runs.setdefault(operation["run"], RunState(operation["run"])).take(operation)
                whole += len(line)
            if whole < len(content):
                os.truncate(journal, whole)
        with contextlib.suppress(FileNotFoundError, ValueError):
            for key, (delivered, run_id, seconds) in json.loads((self.folder / "delivered.json").read_text()).items():
                if told := self.runs.get(key):
                    told.delivered, told.run_id, told.seconds = delivered, run_id, seconds
                    for _ in range(min(delivered, len(told.pending))):
                        told.pending.popleft()

    def append(self, run: str, operation: Operation) -> None:
        """Writes what an operation says and was not said before into the journal."""
        with self.lock:
            told = self.runs.setdefault(run, RunState(run))
            left = told.unsaid(operation)
            if left is None:
                return
            line = json.dumps({"run": run, **left}).encode() + b"\n"
            with self._disk():
                self.journal.write(line)
                self.journal.flush()
            told.take({"run": run, **left})

    def delivered(self, told: RunState, operations: int) -> None:
        """Notes that the store has the first so many pending operations of a run."""
        with self.lock:
            done = [told.pending.popleft() for _ in range(operations)]
            told.delivered += operations
        self.note()
        # Not before that is on disk: a process killed in between would have to deliver what is gone.
        for path in (operation["file"] for operation in done if "file" in operation):
            shutil.rmtree((self.folder / "files" / path).parent, ignore_errors=True)

    def note(self) -> None:
        """Writes down what the store has."""
        with self.lock, self._disk():
            os.fsync(self.journal.fileno())  # what was delivered has to be in the journal, come what may
            all_of = {key: (told.delivered, told.run_id, told.seconds) for key, told in self.runs.items()}
            _replace(self.folder / "delivered.json", json.dumps(all_of).encode())

    def file(self, name: str) -> tuple[Path, str]:
        """A new place for an artifact: its path, and its name for an operation's `file`."""
        with self.lock:
            self._files += 1
            place = self.folder / "files" / f"{os.getpid()}-{time.time_ns()}-{self._files}"
        place.mkdir(parents=True)
        return place / name, f"{place.name}/{name}"

    def keep(self, run: str, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values (as JSON has them) and arrays under a name, in place of what had it."""
        with self._disk():
            path = self._kept(run, what)
            path.parent.mkdir(exist_ok=True)
            new = path.with_suffix(".new")
            named = {f"array_{place}": array for place, array in enumerate(arrays)}
            named["values"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
            with new.open("wb") as file:
                np.savez(file, **named)  # type: ignore[arg-type]
            new.replace(path)

    def kept(self, run: str, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What `keep` kept, None where there is nothing whole."""
        try:
            with np.load(self._kept(run, what)) as found:
                arrays = [found[f"array_{place}"] for place in range(len(found.files) - 1)]
                return json.loads(found["values"].tobytes()), arrays
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            return None

    def drop(self, run: str, what: str) -> None:
        """Forgets what was kept under a name."""
        with contextlib.suppress(OSError):
            self._kept(run, what).unlink()

    def _kept(self, run: str, what: str) -> Path:
        return self.folder / "kept" / f"{run}.{what}.npz"

    def below(self, run: str) -> list[RunState]:
        """What was said of the runs under a run, at any depth."""
        found: list[RunState] = []
        for told in list(self.runs.values()):
            if told.parent == run or told.parent in {each.key for each in found}:
                found.append(told)
        return found

    @property
    def waiting(self) -> list[RunState]:
        """The runs of which the store lacks something."""
        return [told for told in list(self.runs.values()) if told.pending]

    @property
    def points_waiting(self) -> int:
        """Metric points that the store lacks."""
        with self.lock:
            return sum(len(op.get("metrics", ())) for told in list(self.runs.values()) for op in told.pending)

    @property
    def complete(self) -> bool:
        """Whether the outermost run came to its end, and the store has all of it; a worker's is never gone on with."""
        outermost = self.runs.get(self.key)
        done = outermost is not None and outermost.status in ("FINISHED", "FAILED")
        return "worker" in self.about or (done and not self.waiting and "unfinished" not in self.about)

    def unfinished(self, why: str) -> None:
        """Notes that the command did not come to its end, however its outermost run is marked."""
        self.about["unfinished"] = why
        with self._disk():
            _replace(self.folder / "session.json", json.dumps(self.about).encode())

    def substituted(self, text: str) -> str:
        """`text` with the store's names of runs in place of keys."""
        for key, told in list(self.runs.items()):
            if told.run_id and key in text:
                text = text.replace(key, told.run_id)
        return text

    def close(self) -> None:
        """Lets go of the session, and removes it if nothing needs it any more."""
        with contextlib.suppress(OSError):
            self.journal.close()
        if self.complete:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.held)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """A disk that is full does not end a training: what it does not take stays in memory."""
        try:
            yield
        except OSError as error:
            self.broken = self.broken or error


def open_session(
    about: Mapping[str, Any], usable: Callable[[Session], bool] = lambda session: True, judged: Collection[str] = ()
) -> Session:
    """The session of a command that was interrupted, if it was given here before and nobody has it; else a new one.

    Args:
        about: what the session is of, as JSON has it; one is gone on with where all of it is equal. `command` None:
            always a new one.
        usable: whether one that was found can be gone on with.
        judged: the names in `about` that need not be equal, as `usable` judges them.
    """
    forget()
    if about["command"] is not None:
        for session in interrupted():
            same = all(session.about.get(name) == value for name, value in about.items() if name not in judged)
            if same and usable(session):
                session.about.pop("unfinished", None)
                _replace(session.folder / "session.json", json.dumps(session.about).encode())
                return session
            session.close()
    key = uuid.uuid4().hex
    folder = sessions_dir() / key
    folder.mkdir(parents=True)
    (folder / "lock").touch(0o600)
    held = _locked(folder)
    assert held is not None
    every = {**about, "key": key, "pid": os.getpid(), "started": time.time()}
    _replace(folder / "session.json", json.dumps(every).encode())
    return Session(folder, held, every, resumed=False)


def interrupted() -> Iterator[Session]:
    """The sessions that no process has; each is the caller's to close. The latest come first."""
    ages = {}
    for path in sessions_dir().glob("*/session.json"):
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=ages.__getitem__, reverse=True):
        if (held := _locked(path.parent)) is None:
            continue
        try:
            about = json.loads(path.read_text())
        except (OSError, ValueError):  # gone meanwhile
            os.close(held)
            continue
        yield Session(path.parent, held, about, resumed=True)


def in_use(key: str) -> bool | None:
    """Whether a process of this machine has a session; None where there is no such session."""
    folder = sessions_dir() / key
    if not (folder / "session.json").is_file():
        return None
    if (held := _locked(folder)) is None:
        return True
    os.close(held)
    return False


def forget() -> None:
    """Removes interrupted sessions that the store has all of and whose command was not given again for long."""
    for path in sessions_dir().glob("*/session.json"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGET_DAYS * 86_400 and (held := _locked(path.parent)) is not None:
                session = Session(path.parent, held, json.loads(path.read_text()), resumed=True)
                if not session.waiting:
                    shutil.rmtree(path.parent, ignore_errors=True)
                session.close()


def child_key(parent: str, name: str) -> str:
    """The key of a run under another: the same whenever the command is given again."""
    return hashlib.sha256(f"{parent}/{name}".encode()).hexdigest()[:32]


def _locked(folder: Path) -> int | None:
    """The lock of a session's folder, None where another process has it. It goes with the process."""
    try:
        held = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
