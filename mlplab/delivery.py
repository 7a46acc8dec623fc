"""How what is said of runs gets from the journal on disk to the MLflow tracking store: in order, and exactly once.

A thread beside the training tries again until the store has taken everything. A metric point carries its own time, so
that the store keeps one where it gets two; a run is looked for by its key before it is created a second time.
"""

import contextlib
import itertools
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun

from mlplab import views
from mlplab.addresses import is_server, shown
from mlplab.checks import UndeliveredError
from mlplab.marks import PLUMBING, model_name, plumbing, with_key
from mlplab.spool import Operation, RunState, Session, child_key
from mlplab.stores import (
    Client,
    brief,
    experiment_id,
    inner_retries,
    is_transient,
    open_for_training,
    tag_experiment,
)

FLUSH_SECONDS = 1.0
METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 1_000, 100, 100
"""MLflow's limits for one `log_batch`."""

MODEL_TRIES = 2
"""Logging a model takes long; while it is tried so often the store counts as taking something."""

SERVER_CONNECTIONS = 4
"""Runs delivered to a tracking server at a time; a file of SQLite takes one writer."""

HEARTBEAT_SECONDS = 30.0
"""How often a living command says so in its outermost run."""


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
        self.searched: list[str] = []
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
        if self.flush(seconds, since_taken):
            self.stop()
            self._sweep()
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

    def _undelivered(self) -> UndeliveredError:
        """What is missing in the store, with its runs there marked as far as it answers."""
        waiting = self.session.waiting
        outermost = self.session.runs.get(self.session.key)
        names = ", ".join(told.run_id or "one that could not be created" for told in waiting[:5])
        why = brief(self.error) if self.error else "it was too slow"
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
            f"first because: {why}. Those runs are incomplete in the store. {remedy}",
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
            before, failed = self._taken, self.deliver()
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

    def deliver(self) -> Exception | None:
        """Delivers what it can; the first error, if there was one."""
        errors = [error for error in self._pool.map(self._deliver_run, self.session.waiting) if error]
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

    def _deliver_run(self, told: RunState) -> Exception | None:
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
        elif kind == "view":
            assert self.experiment is not None
            key, state = self._named(operation["key"]), self._named(operation["state"])
            view = views.saved(self.client, self.experiment, key, operation["name"], state)
            tag_experiment(self.client, self.experiment, *view)
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
            open_for_training(self.client, self.client.get_experiment(self.experiment))
            return 1
        if told.parent:
            parent = self.session.runs[told.parent].run_id if told.parent in self.session.runs else told.parent
            if parent is None:
                return 0
            tags["mlflow.parentRunId"] = parent
        else:
            open_for_training(self.client, self.client.get_experiment(self.experiment))
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
        """Logs a model's folder under a name that tells, with its run's params, tags, and metrics as a whole."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        path, run_id = self.session.folder / "files" / operation["file"], str(told.run_id)
        run = self.client.get_run(run_id)
        before, name = [], model_name(run.data.tags, run.info.run_name)
        tries = operation.setdefault("tries", 0)
        if tries or self.session.resumed:
            ours = f"source_run_id = '{run_id}' AND name = '{name}'"
            before = list(self.client.search_logged_models([self.experiment], ours))
            if any(model.status == LoggedModelStatus.READY for model in before):
                return
        operation["tries"] = tries + 1
        metadata = {key: self._named(str(value)) for key, value in operation["metadata"].items()}
        tags = {tag: value for tag, value in run.data.tags.items() if tag.startswith(("mlplab.", "dataset"))}
        of = {"dataset_name": tags.get("dataset"), "dataset_digest": tags.get("dataset.digest")}
        self._modelling = tries < MODEL_TRIES
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_modelling", False)
            made = self.client.create_logged_model(run.info.experiment_id, name, run_id, tags, run.data.params)
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


def _dataset_input(values: Mapping[str, str]) -> DatasetInput:
    described = {name: value for name, value in values.items() if name != "context"}
    context = values.get("context", "training")  # what a journal of before has not said
    return DatasetInput(DatasetEntity(**described), [InputTag("mlflow.data.context", context)])
