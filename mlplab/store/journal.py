"""What a command has said of its runs, on disk until the tracking store has it.

A session is the folder of one command. Its `journal.db`, a database of SQLite in WAL mode, holds what was said, a
record each, in order, and how much of each run the store has; `files/` has the artifacts, `kept/` checkpoints and
results. A process that is killed leaves a session that the same command goes on with: what it says again is not written
twice.

Each record bears a checksum. SQLite has its own in the WAL (https://sqlite.org/walformat.html), by which a record is
there whole or not at all after a kill, but none in the database, where a flipped bit would be read as another number.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EACCES)
"""How a disk says that it takes no more."""

TABLES = """
CREATE TABLE operation (number INTEGER PRIMARY KEY, run TEXT NOT NULL, body TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, body TEXT NOT NULL, checksum INTEGER NOT NULL);
"""

ABOUT = {"key", "command", "store", "experiment", "started"}
"""What a session says of itself."""

Operation = dict[str, Any]


@dataclass
class RunState:
    """What was said of a run, as the journal has it. The session changes it, and nobody else.

    Attributes:
        pending: what the store does not have yet, in order, with each operation's number.
        delivered: the number of the last operation that the store has.
        run_id: the store's name of the run; None where it has none yet.
        status: the last status said: RUNNING, or how it ended.
        foreign: whether another process creates and ends it: it is here to have runs under it.
        points, params: what has been said already: (metric, step), and names of params.
        seconds: that delivering took so far.
        start: when it began, in milliseconds since 1970.
    """

    key: str
    parent: str | None = None
    pending: deque[tuple[int, Operation]] = field(default_factory=deque)
    delivered: int = 0
    run_id: str | None = None
    status: str = "RUNNING"
    foreign: bool = False
    points: set[tuple[str, int]] = field(default_factory=set)
    params: set[str] = field(default_factory=set)
    seconds: float = 0.0
    start: int = 0

    def take(self, number: int, operation: Operation) -> None:
        """Adds an operation that is in the journal."""
        if operation["op"] == "create":
            self.parent, self.start = operation.get("parent"), operation["start"]
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
            self.points |= {(name, step) for name, step in operation.get("points", ())}
            self.params |= set(operation.get("params", ()))
        if number > self.delivered:
            self.pending.append((number, operation))

    def unsaid(self, operation: Operation) -> Operation | None:
        """What of an operation has not been said before; None if nothing is left of it."""
        if operation["op"] == "status":
            if operation["status"] == self.status:
                return None
            # What logging cost is said once, of the whole command.
            outermost = self.parent is None and not self.foreign
            over = operation["status"] in ("FINISHED", "FAILED")
            first = outermost and over and ("log_seconds", 0) not in self.points
            # The clock may have been set back meanwhile.
            ended = max(operation["ended"], self.start)
            return {**operation, "ended": ended, **({"log_seconds": True} if first else {})}
        if operation["op"] != "batch":
            return operation
        metrics = [point for point in operation.get("metrics", ()) if (point[0], point[3]) not in self.points]
        params = {name: value for name, value in operation.get("params", {}).items() if name not in self.params}
        left = {"metrics": metrics, "params": params, "tags": operation.get("tags", {})}
        kept = {kind: values for kind, values in left.items() if values}
        return {"op": "batch", **kept} if kept else None


class UnreadableError(Exception):
    """A session that cannot be read, and why."""

    def __init__(self, folder: Path, why: object) -> None:
        super().__init__(f"{folder}: {why}")
        self.folder = folder


class Session:
    """The record of one command on disk; this process alone has it.

    Args:
        about: what a new session is of, as JSON has it; None: it is one on disk, which is read.

    Attributes:
        key: names the session, and its outermost run.
        resumed: whether another process began it.
        runs: key of a run -> what was said of it, in the order of creation.
        broken: why the disk does not take what is said, which is then in memory alone; None while it takes all.
        written: the number of the last operation that is on disk.
        damaged: what of a session on disk could not be read; "" where all of it could.

    Raises:
        UnreadableError: nothing of it can be read.
        OSError: a new one cannot be written.
    """

    def __init__(self, folder: Path, held: filelock.BaseFileLock, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.resumed = folder, about is None
        self.runs: dict[str, RunState] = {}
        self.broken: OSError | None = None
        self.damaged = ""
        self.lock = threading.RLock()
        self._held = held
        self._numbers = self._files = self.written = 0
        self._unwritten: list[tuple[int, str, bytes]] = []
        self._changed: set[str] = set()
        self.database = connected(folder / "journal.db")
        try:
            if about is None:
                self._load()
            else:
                self.about = {**about, "key": folder.name}
                self._changed.add("about")
                self._write(TABLES)
                if self.broken:
                    raise self.broken
        except BaseException:
            self.database.close()
            raise
        self.key: str = self.about["key"]

    def _load(self) -> None:
        states: dict[str, Any] = {}
        rows: dict[int, tuple[bytes, bytes, int]] = {}
        try:
            for name, body, checksum in self.database.execute("SELECT name, body, checksum FROM state"):
                if checksum == zlib.crc32(name + body):
                    states[name.decode()] = json.loads(body)
        except sqlite3.DatabaseError as error:
            raise UnreadableError(self.folder, error) from error
        if not isinstance(about := states.pop("about", None), dict) or not set(about) >= ABOUT:
            raise UnreadableError(self.folder, "what it is of cannot be read")
        self.about = about
        # What SQLite cannot read ends a query: what comes after it is found from the other end.
        for order in ("ASC", "DESC"):
            try:
                for number, *row in self.database.execute(f"SELECT * FROM operation ORDER BY number {order}"):
                    rows[number] = tuple(row)
                break
            except sqlite3.DatabaseError:
                continue
        self._numbers = max([*rows, *(delivered for delivered, *_ in states.values())], default=0)
        self.written = self._numbers
        bad = []
        for number in range(1, self._numbers + 1):
            run, body, checksum = rows.get(number, (b"", b"", -1))
            if checksum != _checksum(number, run, body):
                bad.append(number)
                continue
            if (key := run.decode()) not in self.runs:
                delivered, run_id, seconds = states.get(key, (0, None, 0.0))
                self.runs[key] = RunState(key, delivered=delivered, run_id=run_id, seconds=seconds)
            self.runs[key].take(number, json.loads(body))
        if bad:
            self.damaged = f"{len(bad)} of {self._numbers} records are damaged, the first is number {bad[0]}"

    def append(self, entries: Sequence[tuple[str, Operation]]) -> None:
        """Writes what operations, each of a run, say and was not said before into the journal, all of it at once."""
        with self.lock:
            for run, operation in entries:
                told = self.runs.setdefault(run, RunState(run))
                left = told.unsaid(operation)
                if left is None:
                    continue
                self._numbers += 1
                self._unwritten.append((self._numbers, run, json.dumps(left).encode()))
                told.take(self._numbers, left)
            if self._unwritten:
                self._write()

    def created(self, told: RunState, run_id: str) -> None:
        """Takes the store's name of a run; it is on disk with the next that is written."""
        with self.lock:
            told.run_id = run_id
            self._changed.add(told.key)

    def delivered(self, told: RunState, operations: int, seconds: float = 0.0) -> None:
        """Notes that the store has the first so many pending operations of a run, which took so long."""
        with self.lock:
            done = [told.pending.popleft() for _ in range(operations)]
            told.delivered = done[-1][0]
            told.seconds += seconds
            self._changed.add(told.key)
            files = [operation["file"] for _, operation in done if "file" in operation]
            self._write(durable=bool(files))
        for path in files:
            # Not before that is on disk: a process killed in between would have to deliver what is gone.
            if not self.broken or Path(path).is_absolute():
                shutil.rmtree((self.folder / "files" / path).parent, ignore_errors=True)

    def note(self) -> None:
        """Writes down all that is not on disk yet."""
        with self.lock:
            self._changed |= set(self.runs)
            self._write(durable=True)

    def _write(self, tables: str = "", durable: bool = False) -> None:
        """One transaction: what was said and what has changed since the last. `durable`: power may fail after it."""
        states = [(name, json.dumps(self._state(name)).encode()) for name in self._changed]
        database = self.database
        try:
            # A process that is killed needs no more than NORMAL, which does not wait for the disk.
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            database.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, tables.split(";")):
                database.execute(statement)
            database.executemany(
                "INSERT OR REPLACE INTO operation VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?)",
                [(number, run, body, _checksum(number, run.encode(), body)) for number, run, body in self._unwritten],
            )
            database.executemany(
                "INSERT OR REPLACE INTO state VALUES (?, CAST(? AS TEXT), ?)",
                [(name, body, zlib.crc32(name.encode() + body)) for name, body in states],
            )
            database.execute("COMMIT")
        except sqlite3.Error as error:
            # A disk that is full does not end a training: what it does not take stays in memory.
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            self.broken = OSError(errno.ENOSPC if "full" in str(error) else errno.EIO, str(error), str(self.folder))
        else:
            self.broken, self.written = None, self._numbers
            self._unwritten.clear()
            self._changed.clear()

    def _state(self, name: str) -> Any:
        if name == "about":
            return self.about
        told = self.runs[name]
        return [told.delivered, told.run_id, told.seconds]

    def file(self, name: str, save: Callable[[Path], object]) -> str | None:
        """Has `save` write an artifact to a path that ends in `name`; its place for an operation's `file`.

        Where this disk is full it goes to another, for as long as this process lives; None where each is full.
        """
        with self.lock:
            self._files += 1
            folder = f"{os.getpid()}-{time.time_ns()}-{self._files}"
        for home in (self.folder / "files", Path(tempfile.gettempdir()), Path("/dev/shm")):
            path = (home / folder if home.parent == self.folder else home / f"mlplab-{folder}") / name
            try:
                path.parent.mkdir(parents=True, mode=0o700)
                save(path)
            except Exception as error:
                full = _is_full(home, error)
                shutil.rmtree(path.parent, ignore_errors=True)
                if not full:
                    raise
                self.broken = self.broken or OSError(errno.ENOSPC, str(error), str(home))
            else:
                return f"{folder}/{name}" if home.parent == self.folder else str(path)
        return None

    def keep(self, run: str, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values (as JSON has them) and arrays under a name, in place of what had it."""
        path = self._kept(run, what)
        new = path.with_suffix(".new")
        named = {f"array_{place}": array for place, array in enumerate(arrays)}
        named["values"] = np.frombuffer(json.dumps(values).encode(), np.uint8)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with new.open("wb") as file:
                np.savez(file, **named)  # type: ignore[arg-type]
            new.replace(path)
        except OSError as error:
            self.broken = self.broken or error
            with contextlib.suppress(OSError):
                new.unlink()

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
            return sum(len(op.get("metrics", ())) for told in list(self.runs.values()) for _, op in told.pending)

    @property
    def complete(self) -> bool:
        """Whether the outermost run came to its end, and the store has all of it; a worker's is never gone on with."""
        outermost = self.runs.get(self.key)
        done = outermost is not None and outermost.status in ("FINISHED", "FAILED")
        return "worker" in self.about or (done and not self.waiting and "unfinished" not in self.about)

    def unfinished(self, why: str | None) -> None:
        """Notes that the command did not come to its end, however its outermost run is marked; None: it goes on."""
        with self.lock:
            self.about.pop("unfinished", None)
            if why:
                self.about["unfinished"] = why
            self._changed.add("about")
            self._write()

    def substituted(self, text: str) -> str:
        """`text` with the store's names of runs in place of keys."""
        for key, told in list(self.runs.items()):
            if told.run_id and key in text:
                text = text.replace(key, told.run_id)
        return text

    def release(self) -> None:
        """Lets go of the session, as the end of the process would."""
        self.database.close()
        self._held.release()

    def close(self) -> None:
        """Lets go of the session, and removes it if nothing needs it any more."""
        complete = self.complete and not self.damaged
        self.release()
        if complete:
            shutil.rmtree(self.folder, ignore_errors=True)


def child_key(parent: str, name: str) -> str:
    """The key of a run under another: the same whenever the command is given again."""
    return hashlib.sha256(f"{parent}/{name}".encode()).hexdigest()[:32]


def connected(path: Path) -> sqlite3.Connection:
    """Opens a journal, if it is a file and not a link to one of somebody else's."""
    for each in (path, path.with_name("journal.db-wal"), path.with_name("journal.db-shm")):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(each.lstat().st_mode):
                raise UnreadableError(path.parent, f"{each.name} is no file")
    try:
        database = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        database.text_factory = bytes
        database.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise UnreadableError(path.parent, error) from error
    return database


def _checksum(number: int, run: bytes, body: bytes) -> int:
    return zlib.crc32(b"%d %s %s" % (number, run, body))


def _is_full(home: Path, error: Exception) -> bool:
    """Whether what was to be written there was not since the disk takes no more."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    try:  # some of who write say it in words of their own
        return shutil.disk_usage(home if home.exists() else home.parent).free < 1 << 20
    except OSError:
        return True
