"""What is written to the MLflow tracking store, and the only module that imports MLflow.

Everything but the creation of a run goes through one thread beside the training: metrics leave in timestamped batches
at least every second, in order, and what fails is tried again. What cannot be delivered in the end is an error, never
silence. A metric point carries its own time, so that delivering it twice stores it once.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import mlflow
import numpy as np
from matplotlib.figure import Figure
from mlflow.entities import Dataset as DatasetEntity
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking.context.registry import resolve_tags

from mlplab.data import Dataset
from mlplab.spec import UnavailableError

FLUSH_SECONDS = 1.0
METRICS_PER_CALL, PARAMS_PER_CALL, TAGS_PER_CALL = 1_000, 100, 100
"""MLflow's limits for one `log_batch`."""

# By default a dead server blocks each call for about four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


@dataclass
class _Item:
    run_id: str
    metrics: tuple[Metric, ...] = ()
    params: tuple[Param, ...] = ()
    tags: tuple[RunTag, ...] = ()
    call: Callable[[], object] | None = None


class _Writer(threading.Thread):
    """Delivers items to the store, each run's in their order."""

    def __init__(self, client: mlflow.MlflowClient) -> None:
        super().__init__(name="tracking", daemon=True)
        self.client = client
        self.seconds: dict[str, float] = defaultdict(float)
        self.error: Exception | None = None
        self._items: list[_Item] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False

    def put(self, item: _Item) -> None:
        with self._lock:
            self._items.append(item)

    def run(self) -> None:
        while not self._closing:
            self._wake.wait(FLUSH_SECONDS)
            self._deliver()

    def close(self) -> None:
        """Delivers the rest.

        Raises:
            UnavailableError: something could not be delivered.
        """
        self._closing = True
        self._wake.set()
        self.join()
        self._deliver()
        if self._items:
            runs = sorted({item.run_id for item in self._items})
            points = sum(len(item.metrics) for item in self._items)
            raise UnavailableError(
                f"the tracking store {mlflow.get_tracking_uri()} did not take everything: {len(self._items)} writes "
                f"({points} metric points) of run {', '.join(runs)} are missing, the first because of "
                f"{type(self.error).__name__}: {self.error}. Those runs are incomplete: see that the store answers, "
                "and run the command again."
            ) from self.error

    def _deliver(self) -> None:
        with self._lock:
            items, self._items = self._items, []
        failed: set[str] = set()
        kept: list[_Item] = []
        batches: dict[str, list[_Item]] = defaultdict(list)

        def attempt(run_id: str, undelivered: list[_Item], call: Callable[[], object]) -> None:
            started = time.perf_counter()
            try:
                call()
            except Exception as error:
                self.error = self.error or error
                failed.add(run_id)
                kept.extend(undelivered)
            self.seconds[run_id] += time.perf_counter() - started

        def flush(run_id: str) -> None:
            batch = batches.pop(run_id, [])
            if batch:
                attempt(run_id, batch, lambda: self._log(run_id, batch))

        for item in items:
            if item.call is not None:
                flush(item.run_id)
            if item.run_id in failed:
                kept.append(item)
            elif item.call is not None:
                attempt(item.run_id, [item], item.call)
            else:
                batches[item.run_id].append(item)
        for run_id in list(batches):
            flush(run_id)
        with self._lock:
            self._items = kept + self._items

    def _log(self, run_id: str, batch: list[_Item]) -> None:
        metrics = [m for item in batch for m in item.metrics]
        params = [p for item in batch for p in item.params]
        tags = [t for item in batch for t in item.tags]
        while metrics or params or tags:
            self.client.log_batch(
                run_id, metrics[:METRICS_PER_CALL], params[:PARAMS_PER_CALL], tags[:TAGS_PER_CALL], synchronous=True
            )
            del metrics[:METRICS_PER_CALL], params[:PARAMS_PER_CALL], tags[:TAGS_PER_CALL]


FINGERPRINT = "mlplab.fingerprint"
"""The tag by which what has been done already is found: it says what decided the numbers."""


@dataclass(frozen=True)
class Found:
    """A finished run on record."""

    run_id: str
    tags: dict[str, str]


class Run:
    """A run in the tracking store. Its methods return at once; what they say is written beside the training."""

    def __init__(self, writer: _Writer, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._writer = writer

    def child(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any], data: Dataset | None = None
    ) -> "Run":
        """Creates a run under this one and says what it is: its params, tags and data set."""
        every = {**resolve_tags(), **_texts(tags), "mlflow.parentRunId": self.run_id}
        created = self._writer.client.create_run(self.experiment_id, tags=every, run_name=name)
        run = Run(self._writer, created.info.run_id, self.experiment_id)
        run.params(params)
        if data is not None:
            run.data(data)
        return run

    def twin(self, name: str, found: Found, tags: Mapping[str, Any]) -> None:
        """Creates a run under this one that repeats a finished one: its times, params, data set and metrics."""
        client = self._writer.client
        every = {**_texts(tags), "mlflow.parentRunId": self.run_id, "mlplab.reused_from": found.run_id}
        source = client.get_run(found.run_id)
        created = client.create_run(self.experiment_id, source.info.start_time, {**source.data.tags, **every}, name)
        run = Run(self._writer, created.info.run_id, self.experiment_id)
        run.params(source.data.params)
        inputs = source.inputs.dataset_inputs
        run._call(lambda: client.log_inputs(run.run_id, inputs))
        for metric in source.data.metrics:
            run._put(metrics=tuple(client.get_metric_history(found.run_id, metric)))
        run._call(lambda: client.set_terminated(run.run_id, "FINISHED", source.info.end_time))

    def params(self, params: Mapping[str, Any]) -> None:
        """Logs params; MLflow takes each but once."""
        self._put(params=tuple(Param(k, v) for k, v in _texts(params).items()))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; the last value counts."""
        self._put(tags=tuple(RunTag(k, v) for k, v in _texts(tags).items()))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs metric points at `step`, timed now. Values that are not finite are stored as NaN.

        (MLflow would store infinity as 1.8e308, which flattens every chart.)
        """
        now = int(time.time() * 1000)
        finite = {k: v if math.isfinite(v) else math.nan for k, v in values.items()}
        self._put(metrics=tuple(Metric(k, float(v), now, step) for k, v in finite.items()))

    def find(self, fingerprint: str) -> Found | None:
        """The latest finished run in this experiment of MLflow's that bears a fingerprint, if there is one."""
        runs = self._writer.client.search_runs(
            [self.experiment_id],
            f"tags.`{FINGERPRINT}` = '{fingerprint}' and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.end_time DESC"],
        )
        return Found(runs[0].info.run_id, dict(runs[0].data.tags)) if runs else None

    def data(self, data: Dataset) -> None:
        """Logs the data set as the run's input, under our own digest: MLflow's hashes the first few images only."""
        entity = DatasetEntity(
            name=data.label,
            digest=data.digest,
            source_type="local",
            source=json.dumps({"uri": data.source}),
            profile=json.dumps({name: len(getattr(data, name)) for name in ("train", "validation", "test")}),
        )
        inputs = [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])]
        self._call(lambda: self._writer.client.log_inputs(self.run_id, inputs))

    def text(self, text: str, path: str) -> None:
        """Writes a text artifact."""
        self._call(lambda: self._writer.client.log_text(self.run_id, text, path))

    def figure(self, figure: Figure, path: str) -> None:
        """Writes a figure as an image artifact."""
        self._call(lambda: self._writer.client.log_figure(self.run_id, figure, path))

    def folder(self, path: Path) -> None:
        """Writes what a folder holds as artifacts, now."""
        self._writer.client.log_artifacts(self.run_id, str(path))

    def file(self, name: str, save: Callable[[Path], object]) -> None:
        """Writes a file artifact that `save` makes: it is called now, with the path to save to."""
        folder = Path(tempfile.mkdtemp())
        save(folder / name)

        def upload() -> None:
            self._writer.client.log_artifact(self.run_id, str(folder / name))
            shutil.rmtree(folder, ignore_errors=True)

        self._call(upload)

    def model(self, export: Any, example: np.ndarray, classes: int, metadata: Mapping[str, Any]) -> None:
        """Logs a model as `model`, with signature, input example and requirements, now.

        Args:
            export: a `models.Export`.
            example: raw pixels, float32, shape (images, features).
            classes: the width of what it returns.
            metadata: what leads back from the model to how it came about.
        """
        from mlflow.models import Model, ModelSignature
        from mlflow.types import Schema, TensorSpec

        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float32"), (-1, example.shape[1]), name=None)]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes), name=None)]),
        )
        Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.tensorflow,
            run_id=self.run_id,
            model=export,
            signature=signature,
            input_example=example,
            # Given, not inferred: inferring imports TensorFlow in another process.
            pip_requirements=[f"{name}=={installed}" for name, installed in versions().items() if name != "python"],
            metadata=dict(metadata),
        )

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run, after all that was said of it, and logs the seconds its logging took."""
        ended = int(time.time() * 1000)

        def end() -> None:
            seconds = Metric("log_seconds", self._writer.seconds[self.run_id], ended, 0)
            self._writer.client.log_batch(self.run_id, metrics=[seconds], synchronous=True)
            self._writer.client.set_terminated(self.run_id, status, ended)

        self._call(end)

    def _put(self, **what: Any) -> None:
        self._writer.put(_Item(self.run_id, **what))

    def _call(self, call: Callable[[], object]) -> None:
        self._writer.put(_Item(self.run_id, call=call))


@contextlib.contextmanager
def parent_run(name: str, tags: Mapping[str, Any], data: Dataset | None = None) -> Iterator[Run]:
    """The run that holds an experiment: the project's own under `mlflow run`, else a new one named `name`.

    It ends FAILED if the block raises, KILLED if it is interrupted. Leaving it waits until everything is written.

    Raises:
        UnavailableError: the store is not to be reached, or something could not be written in the end.
    """
    client = mlflow.MlflowClient()
    try:
        run_id, experiment_id = _open(client, name)
    except Exception as error:
        raise UnavailableError(
            f"the tracking store {mlflow.get_tracking_uri()} cannot be used: {type(error).__name__}: {error}. "
            "Nothing was trained. Check MLFLOW_TRACKING_URI and that the server answers."
        ) from error
    writer = _Writer(client)
    writer.start()
    run = Run(writer, run_id, experiment_id)
    run._call(lambda: _open_for_training(client, experiment_id))
    run.tags(tags)
    if data is not None:
        run.data(data)
    try:
        yield run
    except BaseException as error:
        run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        with contextlib.suppress(UnavailableError):
            writer.close()
        raise
    writer.close()


def _open(client: mlflow.MlflowClient, name: str) -> tuple[str, str]:
    project_run = os.environ.get("MLFLOW_RUN_ID")
    if project_run:
        run = client.get_run(project_run)
        # The name that `mlflow run` makes up, such as nimble-fox-41; one that the user gave stays.
        if re.fullmatch(r"[a-z]+-[a-z]+-\d+", run.info.run_name or ""):
            client.update_run(project_run, name=name)
    else:
        run = client.create_run(_experiment(client), tags=resolve_tags(), run_name=name)
    return run.info.run_id, run.info.experiment_id


def _open_for_training(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Has the UI open the experiment on its runs, and not, as it does by default, on pages for language models."""
    if "mlflow.experimentKind" not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")


def _experiment(client: mlflow.MlflowClient) -> str:
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return experiment_id
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not name:
        return "0"
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else str(client.create_experiment(name))


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


NUMBERS_COME_FROM = ("spec.py", "models.py", "training.py", "trial.py", "search.py", "run.py")
"""The files of this package that decide an experiment's numbers; a change to one makes its record outdated."""

FLAGS = ("XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")
"""Environment variables that change how TensorFlow computes."""


@cache
def versions() -> dict[str, str]:
    """Versions of what computes the numbers: Python and the packages behind a training."""
    found = {"python": platform.python_version()}
    for package in ("tensorflow-cpu", "tensorflow", "keras", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def circumstances() -> dict[str, str]:
    """What a result depends on besides its spec, as tags: code, versions, processor."""
    tags = {f"version.{name}": installed for name, installed in versions().items()}
    tags["version.mlflow"] = version("mlflow")
    tags["cpu"] = _processor()
    tags["code"] = hashlib.sha256("".join(code()).encode()).hexdigest()[:16]
    tags["flags"] = " ".join(f"{name}={os.environ[name]}" for name in FLAGS if os.environ.get(name)) or "none"
    tags["cpu.cores"] = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    tags |= _commit()
    return tags


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code() -> list[str]:
    """Hashes of the files that decide an experiment's numbers.

    Taken once: the code that runs is the code as it was loaded, whatever happens to the files meanwhile.
    """
    return [hashlib.sha256((Path(__file__).parent / name).read_bytes()).hexdigest() for name in NUMBERS_COME_FROM]


def _commit() -> dict[str, str]:
    """The commit of the code that runs, and whether files differ from it."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(git("status", "--porcelain"))).lower()}
    except (OSError, subprocess.SubprocessError):
        return {"git.commit": "unknown", "git.dirty": "unknown"}


def read_artifact(run_id: str, path: str) -> str | None:
    """A text artifact of a run, None where there is none, or no such run.

    Raises:
        UnavailableError: the store does not answer.
    """
    client = mlflow.MlflowClient()
    try:
        if path not in {file.path for file in client.list_artifacts(run_id)}:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_text()
    except mlflow.MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UnavailableError(f"{path} of run {run_id} cannot be read: {error.message}") from error
    except OSError as error:
        raise UnavailableError(f"{path} of run {run_id} cannot be read: {error}") from error


def load_model(run_id: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The model logged in a run, loaded from the store: its address, and what maps raw pixels to probabilities.

    Pixels: shape (images, features), 0 to 255; probabilities: float32, shape (images, classes).

    Raises:
        UnavailableError: the run has no model, or the store does not give it.
    """
    uri = f"runs:/{run_id}/model"
    try:
        loaded = mlflow.tensorflow.load_model(uri)
    except Exception as error:
        raise UnavailableError(
            f"the model {uri} cannot be loaded from {mlflow.get_tracking_uri()}: {error}. A comparison logs the models "
            "of its winner and of its best RMSprop variant; run the comparison again where its artifacts were deleted."
        ) from error
    return uri, lambda pixels: np.asarray(loaded(pixels.astype(np.float32)))


# Without it MLflow's UI opens on its pages for language models, unless the reader has chosen otherwise before.
WORKFLOW = "workflowType=machine_learning"


def curves_address(run: Run, metric: str, ascending: bool) -> str:
    """The UI's page, relative to the UI, of the charts of the runs under a run, the best by `metric` first."""
    query = {
        "searchFilter": f'tags.mlflow.parentRunId="{run.run_id}"',
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": str(ascending).lower(),
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{run.experiment_id}/runs?{urlencode(query, quote_via=quote)}&{WORKFLOW}"


def address(run: Run) -> tuple[str, str]:
    """Where to look at a run: the command that opens the UI on this store, and the run's page there."""
    uri = mlflow.get_tracking_uri()
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?{WORKFLOW}"
    if uri.startswith(("http://", "https://")):
        return "", f"{uri.rstrip('/')}/{page}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return f"mlflow ui --backend-store-uri '{uri}'", f"http://127.0.0.1:5000/{page}"
