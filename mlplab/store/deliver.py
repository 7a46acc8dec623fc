"""How what is said of runs gets from the journal on disk to the MLflow tracking store: in order, and exactly once.

A metric point carries its own time, so that the store keeps one where it gets two; a run is looked for by its key
before it is created a second time.
"""

import contextlib
import itertools
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun

from mlplab import views
from mlplab.marks import PLUMBING, model_name, plumbing, with_key
from mlplab.store.errors import is_transient
from mlplab.store.journal import Operation, RunState, Session, child_key
from mlplab.stores import Client, experiment_id, inner_retries, open_for_training, tag_experiment

MOST = {"metrics": 1_000, "params": 100, "tags": 100}
"""MLflow's limits for one `log_batch`."""

MODEL_TRIES = 2
"""Logging a model takes long; while it is tried so often the store counts as taking something."""

HEARTBEAT_SECONDS = 30.0
"""How often a living command says so in its outermost run."""


class _NotYetError(Exception):
    """What is to be written names a run that the store does not have yet."""


class Deliverer:
    """Gives the store what a session holds; several runs may be delivered at a time, each by one thread.

    Args:
        client: MLflow's; its calls are made once.
        say: is told of what is lost.

    Attributes:
        experiment: the store's name of the experiment; None until the store has said it.
        experiment_key: what stands for that until then.
        unwritten_too: whether it delivers what is not in the journal, as its disk is full. A command that is killed
            then says that again with other times, and the store has it twice: so not before the command's end.
        modelling: whether a model is being logged, which takes many requests of MLflow's own.
        taken: when the store last took something, as `time.monotonic` has it.
    """

    def __init__(self, session: Session, client: Any, say: Callable[[str], None]) -> None:
        self.session, self.client = session, client
        self.store = str(session.about["store"])
        self.experiment: str | None = None
        self.experiment_key = child_key(session.key, "its experiment")
        self.unwritten_too = self.modelling = False
        self.taken = time.monotonic()
        self._say = say
        self._doubtful: set[str] = {told.key for told in session.runs.values() if told.run_id is None}
        self._twice: set[str] = set()
        self._tries: Counter[int] = Counter()
        self._beaten = 0.0

    def run(self, told: RunState) -> Exception | None:
        """Delivers a run's operations until one fails, and returns why it does; None where all it can is delivered."""
        try:
            if self.experiment is None:
                self.experiment = experiment_id(self.client, self.session.about["experiment"])
            while True:
                started = time.perf_counter()
                with self.session.lock:
                    pending = list(itertools.islice(told.pending, MOST["metrics"]))
                    if not self.unwritten_too:
                        pending = [each for each in pending if each[0] <= self.session.written]
                if not pending:
                    return None
                operations = [operation for _, operation in pending]
                batch = list(itertools.takewhile(lambda operation: operation["op"] == "batch", operations))
                done = self._log(told, batch) if batch else self._do(told, *pending[0])
                if not done:
                    return None
                self.session.delivered(told, done, time.perf_counter() - started)
                self.taken = time.monotonic()
        except _NotYetError:
            return None
        except Exception as error:
            return error

    def beat(self) -> None:
        """Says in the outermost run, now and then, that the command lives."""
        outermost = self.session.runs.get(self.session.key)
        if outermost and outermost.run_id and time.monotonic() - self._beaten > HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            alive = plumbing(outermost.key, outermost.key, heartbeat=int(time.time()))
            self.client.set_tag(outermost.run_id, PLUMBING, alive[PLUMBING])

    def _log(self, told: RunState, batch: Sequence[Operation]) -> int:
        """Delivers the first of several batches, as many as one call takes; returns how many."""
        taken, sizes = 0, Counter[str]()
        for operation in batch:
            sizes.update({kind: len(operation.get(kind, ())) for kind in MOST})
            if taken and any(sizes[kind] > most for kind, most in MOST.items()):
                break
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
                metrics[: MOST["metrics"]],
                params[: MOST["params"]],
                tags[: MOST["tags"]],
                synchronous=True,
            )
            del metrics[: MOST["metrics"]], params[: MOST["params"]], tags[: MOST["tags"]]
        return taken

    def _do(self, told: RunState, number: int, operation: Operation) -> int:
        """Delivers an operation; returns 1, or 0 where its time has not come."""
        kind = operation["op"]
        if kind == "create":
            return self._create(told, operation)
        run_id, path = told.run_id, self.session.folder / "files" / operation.get("file", "")
        if (
            "file" in operation and not path.exists()
        ):  # it was on another disk when this one was full, for a process that is gone
            self._say(f"The artifact {path.name!r} of run {run_id} is lost.")
        elif kind == "reopen":
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
        elif kind == "artifact" and path.is_dir():
            self.client.log_artifacts(run_id, str(path))
        elif kind == "artifact":
            self.client.log_artifact(run_id, str(path))
        elif kind == "model":
            self._model(told, number, operation)
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
            self.session.created(told, found[0].info.run_id)
        else:
            self._twice |= self._doubtful & {told.key}
            self._doubtful.add(told.key)
            made = self.client.create_run(self.experiment, operation["start"], tags, operation["name"])
            self.session.created(told, made.info.run_id)
            self._doubtful.discard(told.key)
        return 1

    def _with_key(self, client: Any, key: str) -> list[StoredRun]:
        """The runs that bear a key, the first that was created first."""
        found: list[StoredRun] = client.search_runs(
            [self.experiment], with_key(key), order_by=["attributes.start_time ASC"]
        )
        return found

    def look_for(self, key: str, parent: str) -> list[Operation]:
        """What takes over a run that another process has created, which died since, and what it said of it."""
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
            return []
        if not found:
            return []
        info, params = found[0].info, list(found[0].data.params)
        known = {"run_id": info.run_id, "parent": parent, "status": info.status, "points": points, "params": params}
        return [{"op": "adopt", **known}, *([{"op": "reopen"}] if info.status != "RUNNING" else [])]

    def sweep(self) -> None:
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

    def _model(self, told: RunState, number: int, operation: Operation) -> None:
        """Logs a model's folder under a name that tells, with its run's params, tags, and metrics as a whole."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus
        from mlflow.models import Model

        path, run_id = self.session.folder / "files" / operation["file"], str(told.run_id)
        run = self.client.get_run(run_id)
        before, name = [], model_name(run.data.tags, run.info.run_name)
        tries = self._tries[number]
        if tries or self.session.resumed:
            ours = f"source_run_id = '{run_id}' AND name = '{name}'"
            before = list(self.client.search_logged_models([self.experiment], ours))
            if any(model.status == LoggedModelStatus.READY for model in before):
                return
        self._tries[number] += 1
        metadata = {key: self._named(str(value)) for key, value in operation["metadata"].items()}
        tags = {tag: value for tag, value in run.data.tags.items() if tag.startswith(("mlplab.", "dataset"))}
        of = {"dataset_name": tags.get("dataset"), "dataset_digest": tags.get("dataset.digest")}
        self.modelling = tries < MODEL_TRIES
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "modelling", False)
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
