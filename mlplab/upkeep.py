"""What is done with what commands left behind: the rest is delivered, and runs without a process are ended."""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Run as StoredRun

from mlplab import stores
from mlplab.addresses import shown
from mlplab.checks import UndeliveredError, UsageError
from mlplab.marks import PLUMBING, began, with_key
from mlplab.store.errors import unusable
from mlplab.store.journal import RunState, UnreadableError
from mlplab.store.recorder import Recorder
from mlplab.store.sessions import damaged_dir, in_use, interrupted, sessions_dir, set_aside
from mlplab.stores import Client

DISCARD = "python -m mlplab sync --discard"


def sync(say: Callable[[str], None]) -> bool:
    """Delivers what commands that are over have left on this machine's disk; whether all of it arrived.

    What cannot be read is named, set aside, and counts as not arrived until it is discarded.
    """
    complete, found = True, False
    for session in interrupted():
        if isinstance(session, UnreadableError):
            if set_aside(session) is None:
                complete = False
                say(f"A session cannot be read: {session}. Or give it up: {DISCARD} {session.folder.name}")
            continue
        if "worker" in session.about or not session.waiting:  # what a worker had was done again elsewhere
            session.close()
            continue
        found = True
        store = str(session.about["store"])
        say(
            f"Session {session.key}: {len(session.waiting)} runs with {session.points_waiting} metric points wait for "
            f"{shown(store)}."
        )
        if session.damaged:
            say(f"In {session.folder} {session.damaged}; the rest is delivered.")
        mlflow.set_tracking_uri(store)
        try:
            Client(store, seconds=stores.START_SECONDS).search_experiments(max_results=1)
            recorder = Recorder(session, lambda line: None)
            recorder.start()
            recorder.close(stores.PATIENCE_SECONDS)
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
            say(f"{refused[0].upper()}{refused[1:]} Or give it up: {DISCARD} {session.key}")
        else:
            outermost = session.runs.get(session.key, RunState(session.key))
            say(f"All of it has arrived; the outermost run is {outermost.run_id}.")
            if outermost.status == "RUNNING":
                say("Its command was interrupted: given again, it goes on; python -m mlplab reap ends its runs.")
    for folder in damaged_dir().glob("*"):
        complete = False
        say(f"Session {folder.name} cannot be read; it is as it was, in {folder}. Give it up: {DISCARD} {folder.name}")
    if not found and complete:
        say("Nothing waits on this machine.")
    return complete


def discard(key: str, say: Callable[[str], None]) -> None:
    """Gives up a session: what of it the store does not have is lost.

    Raises:
        UsageError: there is none of that key, or a process is working on it.
    """
    aside, folder = damaged_dir() / key, sessions_dir() / key
    if key != Path(key).name or not (os.path.lexists(aside) or os.path.lexists(folder)):
        known = sorted(path.name for each in (sessions_dir(), damaged_dir()) for path in each.glob("*"))
        legal = ", ".join(known) or "none, as nothing waits on this machine"
        raise UsageError(f"discard is {key!r}; legal: the key of a session that waits ({legal}).")
    lost = "what could not be read"
    if os.path.lexists(folder):
        if in_use(key):
            raise UsageError(
                f"discard is {key!r}, a session that a process works on; legal: one whose process is gone."
            )
        for session in interrupted():
            if not isinstance(session, UnreadableError):
                if session.key == key:
                    lost = f"{session.points_waiting} metric points of {len(session.waiting)} runs"
                session.release()
        aside = folder
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink()
    say(f"Session {key} is gone, and with it {lost}. `python -m mlplab reap` ends runs that it left open.")


def reap(after: float, say: Callable[[str], None]) -> int:
    """Ends the RUNNING runs whose process is gone, as KILLED; how many.

    A process of this machine is looked for; one of another machine is taken for gone when its heartbeat has been
    silent for `after` seconds.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = Client(seconds=stores.START_SECONDS)
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
