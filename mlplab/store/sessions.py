"""The sessions on this machine's disk: begun, gone on with, set aside where they cannot be read, and forgotten."""

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from mlplab.folders import state_dir
from mlplab.store.journal import Session, UnreadableError, connected

FORGET_DAYS = 14
"""An interrupted session of which the store has everything is kept so long for its command to be given again."""


def sessions_dir() -> Path:
    """The folder of all sessions of this user on this machine."""
    return state_dir() / "sessions"


def damaged_dir() -> Path:
    """The folder of the sessions that could not be read, set aside as they are."""
    return state_dir() / "damaged"


def open_session(
    about: Mapping[str, Any],
    usable: Callable[[Session], bool] = lambda session: True,
    judged: Collection[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Session:
    """The session of a command that was interrupted, if it was given here before and nobody has it; else a new one.

    Args:
        about: what the session is of, as JSON has it; one is gone on with where all of it is equal. `command` None:
            always a new one.
        usable: whether one that was found can be gone on with.
        judged: the names in `about` that need not be equal, as `usable` judges them.
        say: is told of sessions that cannot be read, which are set aside.

    Raises:
        OSError: a new one cannot be written.
    """
    for session in interrupted():
        if isinstance(session, UnreadableError):
            if aside := set_aside(session):
                say(
                    f"A session cannot be read ({session}). It is set aside as it is, in {aside}: python -m mlplab sync"
                )
            continue
        same = all(session.about.get(name) == value for name, value in about.items() if name not in judged)
        if same and about["command"] is not None and not session.damaged and usable(session):
            session.unfinished(None)
            return session
        old = time.time() - session.about["started"] > FORGET_DAYS * 86_400
        session.close()
        if old and not session.waiting and not session.damaged:
            shutil.rmtree(session.folder, ignore_errors=True)
    folder = sessions_dir() / uuid.uuid4().hex
    folder.mkdir(parents=True, mode=0o700)
    held = _locked(folder)
    assert held is not None
    try:
        return Session(folder, held, {**about, "pid": os.getpid(), "started": time.time()})
    except BaseException as error:
        held.release()
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, sqlite3.Error | UnreadableError):
            raise OSError(errno.EIO, str(error), str(folder)) from error
        raise


def interrupted() -> Iterator[Session | UnreadableError]:
    """The sessions that no process has, each the caller's to close; in place of one that cannot be read, why.

    The latest come first. Those of other users are not looked at.
    """
    ages = {}
    for folder in sessions_dir().glob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            paths = [path for name in ("journal.db", "journal.db-wal") if (path := folder / name).exists()]
            ages[folder] = max(path.lstat().st_mtime for path in [folder, *paths])
    for folder in sorted(ages, key=ages.__getitem__, reverse=True):
        try:
            if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
                continue
            if not stat.S_ISDIR(folder.lstat().st_mode):
                yield UnreadableError(folder, "it is no folder")
                continue
            if (folder / "journal.jsonl").exists():
                yield UnreadableError(
                    folder, "an older mlplab wrote it; that one's `python -m mlplab sync` delivers it"
                )
                continue
            if not os.path.lexists(folder / "journal.db"):  # being made at this moment, or killed when it was
                if time.time() - ages[folder] > 86_400:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            if (held := _locked(folder)) is None:
                continue
        except OSError:  # gone meanwhile
            continue
        try:
            if (session := _read(folder, held)) is None:
                shutil.rmtree(folder, ignore_errors=True)
                continue
        except UnreadableError as error:
            held.release()
            if folder.exists():  # not gone meanwhile
                yield error
            continue
        yield session


def _read(folder: Path, held: filelock.BaseFileLock) -> Session | None:
    """The session in a folder; None where a process was killed before it had begun."""
    try:
        return Session(folder, held)
    except UnreadableError as error:
        path = folder / "journal.db"
        if isinstance(error.__cause__, sqlite3.OperationalError) and path.is_file():
            with contextlib.closing(connected(path)) as database, contextlib.suppress(sqlite3.Error):
                if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    held.release()
                    return None
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableError(folder, f"{type(error).__name__}: {error}") from error


def set_aside(session: UnreadableError) -> Path | None:
    """Moves a session that cannot be read to where none is looked for; None where it stays, as an older one's does."""
    if (session.folder / "journal.jsonl").exists():
        return None
    aside = damaged_dir() / session.folder.name
    try:
        aside.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        session.folder.rename(aside)
    except OSError:
        return None
    return aside


def in_use(key: str) -> bool | None:
    """Whether a process of this machine has a session; None where there is no such session."""
    folder = sessions_dir() / key
    if not (folder / "journal.db").is_file():
        return None
    if (held := _locked(folder)) is None:
        return True
    held.release()
    return False


def _locked(folder: Path) -> filelock.BaseFileLock | None:
    """The lock of a session's folder, None where another process has it. It goes with the process."""
    held = filelock.FileLock(folder / "lock", timeout=0, mode=0o600, thread_local=False)
    try:
        held.acquire()
    except (filelock.Timeout, OSError):
        return None
    return held
