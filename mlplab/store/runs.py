"""A run of the MLflow tracking store, and what is said of it.

What is said goes to a journal on disk at once, and from there to the store. So a training needs no store to go on, and
a process that is killed leaves nothing that only it knew.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mlflow.tracking.context.registry import resolve_tags

from mlplab import drawing, stores
from mlplab.addresses import shown
from mlplab.checks import UnavailableError
from mlplab.data import Dataset
from mlplab.marks import PLUMBING, plumbing
from mlplab.store.errors import is_transient
from mlplab.store.journal import child_key
from mlplab.store.recorder import Recorder
from mlplab.stores import Client, experiment_id, searched


@dataclass(frozen=True)
class ParentRef:
    """Where in a store runs are to be created by another process: what a worker is told of the run above them."""

    store: str
    experiment_id: str
    run_id: str
    key: str
    session: str


@dataclass(frozen=True)
class Found:
    """A finished run on record."""

    run_id: str
    tags: dict[str, str]


class Run:
    """A run. Its methods return at once; what they say is written beside the training.

    Attributes:
        key: names the run from its first moment on.
        finished: whether the run came to its end before this process began: it is of a command that goes on.
    """

    def __init__(self, recorder: Recorder, key: str) -> None:
        self.key = key
        self._recorder = recorder
        known = recorder.session.runs.get(key)
        self.finished = known is not None and known.status == "FINISHED"

    @property
    def run_id(self) -> str:
        """The store's name of the run; its key, for which that is put in wherever it is written, until there is one."""
        told = self._recorder.session.runs.get(self.key)
        return (told.run_id if told else None) or self.key

    @property
    def experiment_id(self) -> str:
        """The store's name of its experiment; what stands for it until that is known."""
        return self._recorder.to_store.experiment or self._recorder.to_store.experiment_key

    @property
    def store(self) -> str:
        """The address of its store for people, without a password."""
        return shown(self._recorder.store)

    def resolved(self, run_id: str) -> str:
        """The store's name of a run of this command, given that or its key."""
        return self._recorder.session.substituted(run_id)

    def child(
        self,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        data: Dataset | None = None,
        title: str | None = None,
    ) -> "Run":
        """Creates a run under this one and says what it is: its params, tags and data set.

        Of a command that goes on it is the run that was created before.

        Args:
            name: tells it from the others under this run.
            title: its name in the UI; None: `name`.
        """
        run = self._child(name, {**resolve_tags(), **_texts(tags)}, int(time.time() * 1000), title)
        run.params(params)
        if data is not None:
            run.data(data)
        return run

    def _child(self, name: str, tags: Mapping[str, str], start: int, title: str | None = None) -> "Run":
        run, session = Run(self._recorder, child_key(self.key, name)), self._recorder.session
        if run.key not in session.runs:
            if session.resumed or "worker" in session.about:
                self._recorder.look_for(run.key, self.key)
            outermost = session.about.get("worker", session.key)
            every = {**tags, **plumbing(run.key, outermost)}
            run._say("create", name=title or name, tags=every, start=start, parent=self.key)
        elif not run.finished:
            run._say("reopen")
        return run

    def adopt(self, name: str, run_id: str, status: str = "FINISHED") -> "Run":
        """The run under this one that another process has created, told all of it, and ended."""
        run = Run(self._recorder, child_key(self.key, name))
        run._say("adopt", run_id=run_id, parent=self.key, status=status)
        return run

    @property
    def parent_ref(self) -> ParentRef:
        """What another process has to know to create runs under this one.

        Raises:
            UnavailableError: the store does not have this run yet.
        """
        self.flush()
        recorder = self._recorder
        return ParentRef(recorder.store, self.experiment_id, self.run_id, self.key, recorder.session.key)

    def copy_run(self, name: str, found: Found, tags: Mapping[str, Any]) -> "Run":
        """Creates a run under this one that repeats a finished one: its times, params, data set, metrics, artifacts."""
        client = Client()
        source = client.get_run(found.run_id)
        every = {**source.data.tags, **_texts(tags), "mlplab.reused_from": found.run_id}
        del every["mlflow.runName"]  # here it may have another
        run = self._child(name, every, source.info.start_time)
        if run.finished:
            return run
        run.params(source.data.params)
        inputs = [
            {field: getattr(each.dataset, field) for field in ("name", "digest", "source_type", "source", "profile")}
            | {"context": next((tag.value for tag in each.tags if tag.key == "mlflow.data.context"), "training")}
            for each in source.inputs.dataset_inputs
        ]
        run._say("inputs", inputs=inputs)
        for metric in source.data.metrics:
            history = client.get_metric_history(found.run_id, metric)
            run._say("batch", metrics=[[m.key, m.value, m.timestamp, m.step] for m in history])
        for artifact in client.list_artifacts(found.run_id):
            run.file(artifact.path, partial(_download, client, found.run_id, artifact.path))
        run._say("status", status="FINISHED", ended=source.info.end_time)
        return run

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs params; the first value counts, as MLflow takes each but once."""
        self._say("batch", params=_texts(params))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; the last value counts."""
        self._say("batch", tags=_texts(tags))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metric points at `step`, timed now; the first value at a step counts. What is not finite becomes NaN.

        (MLflow would store infinity as 1.8e308, which flattens every chart.)
        """
        now = int(time.time() * 1000)
        finite = {k: v if math.isfinite(v) else math.nan for k, v in values.items()}
        self._say("batch", metrics=[[k, float(v), now, step] for k, v in finite.items()])

    def find(self, fingerprint: str) -> Found | None:
        """The latest finished run in this experiment of MLflow's that bears a fingerprint, if there is one.

        Where nobody named an experiment, in either that runs then go to, see `stores.UNNAMED`. None, too, where the
        store does not answer.
        """
        recorder = self._recorder
        if recorder.silent:
            return None
        client = Client(recorder.store)
        try:
            if not recorder.searched:
                own = recorder.to_store.experiment or experiment_id(client, recorder.session.about["experiment"])
                recorder.searched = searched(client, own)
            runs = client.search_runs(
                recorder.searched,
                f"tags.`{PLUMBING}.fingerprint.{fingerprint}` = 'true' and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.end_time DESC"],
            )
        except Exception as error:
            if is_transient(error):
                return None
            raise
        return Found(runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def data(self, data: Dataset) -> None:
        """Logs the splits as the run's inputs, under our own digest: MLflow's hashes the first few images only.

        The training examples bear the data set's name, the other splits that and their own: of one name and digest a
        store keeps one input.
        """
        source = json.dumps({"uri": data.source})
        inputs = []
        for split, context in (("train", "training"), ("validation", "validation"), ("test", "test")):
            shape = {"examples": len(getattr(data, split)), "input_shape": data.input_shape, "classes": data.classes}
            name = data.label if split == "train" else f"{data.label}, {split}"
            values = {"name": name[:500], "digest": data.digest, "source_type": "local", "source": source}
            inputs.append({**values, "profile": json.dumps(shape), "context": context})
        self._say("inputs", inputs=inputs)

    def view(self, key: str, name: str, state: Mapping[str, Any]) -> None:
        """Saves a view of the UI's runs page in this run's experiment, in place of what has the key; see `views`."""
        self._say("view", key=key, name=name, state=json.dumps(state))

    def text(self, text: str, path: str) -> None:
        """Writes a text artifact."""
        self._say("text", text=text, path=path)

    def figure(self, figure: Figure, path: str) -> None:
        """Writes a figure as an image artifact; it is drawn beside the training."""
        self._recorder.later(lambda: self.file(path, partial(drawing.save, figure)))

    def folder(self, path: Path) -> None:
        """Writes what a folder holds as artifacts, as it is now."""
        self.file("folder", lambda place: shutil.copytree(path, place))

    def file(self, name: str, save: Callable[[Path], object]) -> None:
        """Writes a file artifact that `save` makes: it is called now, with the path to save to."""
        self._recorder.file(self.key, name, save)

    def model(self, model: Any, data: Dataset, metadata: Mapping[str, Any]) -> None:
        """Logs a Keras model as `model`, with signature, input example and requirements; and what a server needs of it.

        It is exported now, in the process that has the user's layers; the store is given the files later. There it
        has the run's params, tags and metrics as a whole (those without a step) as said so far, by which
        `mlflow.search_logged_models` finds and ranks it.

        For MLflow it is a SavedModel, a program. Beside that, in `served.FOLDER`, it is a graph that is none, if ONNX
        can say it, which is what `registry.register` takes.

        Args:
            model: as it is now.
            data: that it was trained on.
            metadata: what leads back from the model to how it came about.
        """
        from mlplab import logged_model

        self._recorder.file(
            self.key, "model", lambda place: logged_model.write(place, model, data), "model", metadata=_texts(metadata)
        )

    def keep(self, what: str, values: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
        """Keeps values and arrays on this machine's disk until the command is over, for when it has to go on."""
        self._recorder.session.keep(self.key, what, values, arrays)

    def kept(self, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was kept, None where nothing was."""
        return self._recorder.session.kept(self.key, what)

    def recall(self, child: str, what: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What a finished run under this one, named so, kept in a process before this one."""
        told = self._recorder.session.runs.get(child_key(self.key, child))
        return self._recorder.session.kept(told.key, what) if told and told.status == "FINISHED" else None

    def drop(self, what: str) -> None:
        """Forgets what was kept, once all that was said before is on disk."""
        self._recorder.later(lambda: self._recorder.session.drop(self.key, what))

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run, after all that was said of it and of those under it; the outermost has `log_seconds` of all.

        With another status than FINISHED it ends those under it, too, that are open.
        """
        ended, session = int(time.time() * 1000), self._recorder.session

        def end() -> None:
            below = session.below(self.key) if status != "FINISHED" else ()
            keys = [*(told.key for told in below if told.status == "RUNNING"), self.key]
            session.append([(key, {"op": "status", "status": status, "ended": ended}) for key in keys])

        self._recorder.later(end)

    def flush(self) -> None:
        """Waits until the store has all that was said of this command's runs.

        Raises:
            UnavailableError: it does not take it.
        """
        if not self._recorder.flush(stores.PATIENCE_SECONDS):
            raise UnavailableError(
                f"the tracking store {self._recorder.store} has not taken what was recorded so far: "
                f"{self._recorder.error}. See that it answers, and run the command again."
            )

    def _say(self, kind: str, **what: Any) -> None:
        self._recorder.append(self.key, {"op": kind, **what})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _download(client: Client, run_id: str, path: str, place: Path) -> None:
    client.download_artifacts(run_id, path, str(place.parent))
