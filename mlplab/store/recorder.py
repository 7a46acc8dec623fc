"""What is said of a command's runs, taken beside the training: to the journal on disk, and from there to the store.

A thread tries again until the store has taken everything, and takes no more than a small part of the time.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlplab.addresses import is_server, shown
from mlplab.checks import UndeliveredError
from mlplab.store.deliver import Deliverer
from mlplab.store.errors import brief, is_transient, refusal
from mlplab.store.journal import Operation, Session
from mlplab.stores import Client

COMMIT_SECONDS = 0.05
"""What is said within so long is one transaction of the journal."""

FLUSH_SECONDS, MOST_SECONDS = 1.0, 5.0
"""The store is given what waits so often; less often, down to the other, where that takes long."""

SHARE = 0.02
"""The part of the time that delivering may take while a training runs."""

REFUSALS = 2
"""So often a refusal that time does not mend is heard before it counts."""

SERVER_CONNECTIONS = 4
"""Runs delivered to a tracking server at a time; a file of SQLite takes one writer."""


class Recorder:
    """Takes what is said of a session's runs: to the journal, and from there to the store, beside the training.

    Attributes:
        to_store: what delivers.
        error: the first that the last delivery met.
        searched: the experiments in which records are looked for; none until that is known.
        silent: whether the store does not answer, as far as is known.
    """

    def __init__(self, session: Session, say: Callable[[str], None], client: Any = None) -> None:
        self.session = session
        self.store = str(session.about["store"])
        self.to_store = Deliverer(session, client or Client(self.store, seconds=0.0), say)
        self.error: Exception | None = None
        self.searched: list[str] = []
        self.silent = False
        self._say = say
        self._told: set[str] = set()
        self._said: deque[tuple[str, Operation]] = deque()
        self._stage = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._committing, self._hurry = False, threading.Event()
        self._pool = ThreadPoolExecutor(SERVER_CONNECTIONS if is_server(self.store) else 1)
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._wake, self._closing, self._over = threading.Event(), False, False
        self._bug: BaseException | None = None
        self._refused = 0
        self._failing: float | None = None

    def start(self) -> None:
        """Begins to deliver."""
        self._thread.start()

    def append(self, run: str, operation: Operation) -> None:
        """Has an operation of a run written to the journal, in a moment, with what else is said until then."""
        self._said.append((run, operation))
        if not self._committing:
            self._committing = True
            self._submit(self._commit)

    def _commit(self) -> None:
        # An epoch may take a millisecond, and a transaction a quarter of one.
        self._hurry.wait(COMMIT_SECONDS)
        self._committing = False
        self.write()

    def later(self, work: Callable[[], object]) -> None:
        """Does `work` beside the training, when all that was said before is in the journal."""

        def after() -> None:
            self.write()
            work()

        self._hurry.set()
        self._submit(after)

    def _submit(self, work: Callable[[], None]) -> "Future[None] | None":
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._bug = self._bug or error

        try:
            return self._stage.submit(guarded)
        except RuntimeError:  # interrupted while it waits for the store at the end
            guarded()
            return None

    def write(self) -> None:
        """Writes what was said so far into the journal, now, from any thread."""
        self._hurry.clear()
        with self.session.lock:
            if said := [self._said.popleft() for _ in range(len(self._said))]:
                self.session.append(said)
        if self.session.broken:
            self._once(
                "disk",
                f"The disk does not take the record of this command ({self.session.broken}). Training goes on; the "
                "record goes from memory to the tracking store. Make room, so that a killed command can go on.",
            )

    def _once(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._say(line)

    def look_for(self, key: str, parent: str) -> None:
        """Takes over a run that another process has created, which died since, if there is one."""
        for operation in self.to_store.look_for(key, parent):
            self.append(key, operation)

    def file(self, run: str, name: str, save: Callable[[Path], object], kind: str = "artifact", **more: Any) -> None:
        """Has a file that `save` makes, now, logged as an artifact of a run."""
        if (stored := self.session.file(name, save)) is None:
            self._once("full", f"No disk has room for {name!r}, which is not logged: {self.session.broken}.")
        else:
            self.append(run, {"op": kind, "file": stored, **more})

    def flush(self, seconds: float, since_taken: bool = True) -> bool:
        """Waits until the store has all that was said, or has taken nothing for so long; whether it has all.

        What the store refuses in a way that time does not mend is not waited for.
        """
        self._hurry.set()
        if written := self._submit(self.write):
            written.result()
        self.to_store.taken = began = time.monotonic()
        refused, self.to_store.unwritten_too = self._refused, True
        try:
            while self.session.waiting:
                if self.to_store.modelling and since_taken:  # many requests of MLflow's own, each of which ends
                    self.to_store.taken = time.monotonic()
                late = time.monotonic() - (self.to_store.taken if since_taken else began) > seconds
                if late or self._refused >= refused + REFUSALS:
                    return False
                self._wake.set()
                time.sleep(0.02)
        finally:
            self.to_store.unwritten_too = False
        return True

    def close(self, seconds: float, since_taken: bool = True) -> None:
        """Delivers the rest.

        Raises:
            UndeliveredError: the store did not take everything; the rest waits on disk.
        """
        self._hurry.set()
        self._stage.shutdown(wait=True)
        self._closing = True
        if self.flush(seconds, since_taken):
            self.stop()
            self.to_store.sweep()
        else:
            self._no_more()
            self._thread.join(timeout=1.0)
            lost = self._undelivered()
            self.session.note()
            self.session.close()
            raise lost from self.error
        self.session.close()
        if self._bug is not None:
            raise self._bug

    def stop(self) -> None:
        """Ends its threads, whatever they have not done yet."""
        self._no_more()
        if self._thread.ident:
            self._thread.join()
        for pool in (self._stage, self._pool):
            pool.shutdown(wait=True, cancel_futures=True)

    def _no_more(self) -> None:
        self._over = True
        self._wake.set()
        self._hurry.set()

    def _undelivered(self) -> UndeliveredError:
        """What is missing in the store, with its runs there marked as far as it answers."""
        session, waiting = self.session, self.session.waiting
        outermost = session.runs.get(session.key)
        names = ", ".join(told.run_id or "one that could not be created" for told in waiting[:5])
        why = brief(self.error) if self.error else "it was too slow"
        for told in {told.key: told for told in [*waiting, *([outermost] if outermost else [])]}.values():
            if told.run_id and not (outermost and outermost.status == "KILLED") and not self.silent:
                with contextlib.suppress(Exception):
                    self.to_store.client.set_terminated(told.run_id, "FAILED")
        refused, answers, where = refusal(self.error), self._answers(), f"in {session.folder}"
        if session.broken:
            where = "in memory alone, and is lost"
            remedy = f"The disk did not take it: {session.broken}. Make room, and run the command again."
        elif refused:
            remedy = (
                f"Waiting does not mend that. {refused} Then deliver it: python -m mlplab sync; or give it up: "
                f"python -m mlplab sync --discard {session.key}"
            )
        else:
            cause = "what keeps it from taking this (a full disk, rights)" if answers else "that the store answers"
            remedy = (
                f"{'The store answers, so see' if answers else 'See'} {cause}, then deliver it: python -m mlplab sync"
            )
        return UndeliveredError(
            f"the tracking store {shown(self.store)} did not take everything: {sum(len(t.pending) for t in waiting)} "
            f"writes ({session.points_waiting} metric points) of {len(waiting)} runs ({names}) wait {where}, the "
            f"first because: {why}. Those runs are incomplete in the store. {remedy}",
            refused=answers or bool(refused),
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
            before, began = self.to_store.taken, time.monotonic()
            failed = self.deliver()
            if failed and self.to_store.taken == before:
                if self._failing is None:  # a store that was slow is tried again as soon as any other
                    self._failing, pause = time.monotonic(), FLUSH_SECONDS
                pause = min(2 * pause, 10.0) if not self._closing else 0.5
                # Not more often, however often it is woken.
                time.sleep(min(pause, 0.5))
                self._outage(failed, time.monotonic() - self._failing)
            else:
                # What delivering takes, here and at a server on this machine, the training does not have.
                pause = min(max(FLUSH_SECONDS, (time.monotonic() - began) / SHARE), MOST_SECONDS)
                self._failing = None
                if self.silent and self.to_store.taken != before:
                    self.silent = False
                    self._say(f"The tracking server {shown(self.store)} answers again.")

    def _outage(self, error: Exception, seconds: float) -> None:
        """Says once what keeps the store from taking anything, which it has not for so long."""
        if refused := refusal(error):
            self._refused += 1
            self._once(
                "refused",
                f"The tracking store {shown(self.store)} refuses a part of the record ({brief(error)}). Training goes "
                f"on; what it records waits in {self.session.folder}. {refused}",
            )
        if seconds > 2 * FLUSH_SECONDS and not self.silent and is_server(self.store) and is_transient(error):
            self.silent = True
            self._say(
                f"The tracking server {shown(self.store)} does not answer ({brief(error)}). Training goes on; what it "
                f"records waits in {self.session.folder} until the server is back."
            )

    def deliver(self) -> Exception | None:
        """Delivers what it can; the first error, if there was one, and of several one that time may mend."""
        errors = [error for error in self._pool.map(self.to_store.run, self.session.waiting) if error]
        with contextlib.suppress(Exception):
            self.to_store.beat()
        errors.sort(key=lambda error: refusal(error) is not None)
        if errors:
            self.error = errors[0]
        return errors[0] if errors else None
