"""What is done with what commands left behind: the rest is delivered, and runs without a process are ended."""

import json
import socket
import time
from collections.abc import Callable, Sequence

import mlflow
from mlflow.entities import Run as StoredRun

from mlplab import stores
from mlplab.checks import UndeliveredError
from mlplab.delivery import Writer
from mlplab.marks import PLUMBING, began, with_key
from mlplab.spool import RunState, in_use, interrupted
from mlplab.stores import Client, unusable


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
            Client(store, seconds=stores.START_SECONDS).search_experiments(max_results=1)
            writer = Writer(session, lambda line: None)
            writer.start()
            writer.close(stores.PATIENCE_SECONDS)
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
