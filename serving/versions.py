"""Which version of a registered model is served: follows the registry, loads beside the serving, then swaps.

Nothing that comes from the registry is run as Python. The code that MLflow stores with a version is for `mlflow models
serve`; here the version's SavedModel is loaded by this project's own `serving.model`, after a look at its graph.
"""

import gc
import logging
import re
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from serving.model import EXPORT, ServedModel

LOADER = "mlflow.pyfunc.loaders.code_model"
"""What MLflow notes in a model that was logged from code."""

KINDS = frozenset({"user_object", "function", "variable", "bare_concrete_function", "constant", "captured_tensor"})
"""What a SavedModel may hold. Assets and other resources run a function when they are loaded."""

OPERATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        AddV2 BatchMatMulV2 BiasAdd Cast Const Elu Erf Erfc Exp Greater GreaterEqual Identity IdentityN LeakyRelu
        MatMul Maximum Minimum Mul Neg NoOp PartitionedCall Placeholder Pow ReadVariableOp RealDiv Relu Relu6 Reshape
        Rsqrt Selu SelectV2 Sigmoid Softmax Softplus Softsign Sqrt Square StatefulPartitionedCall Sub Tanh
        """,
    )
)
"""What the served call may do: arithmetic. TensorFlow also has operations that read and write files."""

log = logging.getLogger("serving")


class RefusedError(Exception):
    """A version that is never loaded: it is not a model of ours."""


@dataclass(frozen=True)
class Version:
    """A version that answers."""

    number: str
    model: ServedModel


@dataclass(frozen=True)
class Reference:
    """What a `models:/name@alias` or `models:/name/3` points to."""

    uri: str
    name: str
    alias: str | None
    number: str | None

    @classmethod
    def parse(cls, uri: str) -> "Reference":
        """Reads the URI.

        Raises:
            ValueError: it is of another form.
        """
        found = re.fullmatch(r"models:/([^/@:]+)(?:@([\w-]+)|/(\d+))", uri)
        if not found:
            raise ValueError(f"the model is {uri!r}; legal: models:/name@alias or models:/name/version.")
        return cls(uri, *found.groups())

    def resolve(self, client: MlflowClient) -> ModelVersion:
        """The version it points to now."""
        if self.alias:
            return client.get_model_version_by_alias(self.name, self.alias)
        return client.get_model_version(self.name, self.number)


def load(version: ModelVersion, client: MlflowClient) -> Version:
    """Fetches a version, looks it over, loads it and has it answer once.

    Raises:
        RefusedError: it is not a model of ours, or what it answers is no probabilities.
    """
    source = client.get_model_version_download_uri(version.name, version.version)
    remote = urlparse(mlflow.get_registry_uri()).scheme in ("http", "https")
    if remote and urlparse(source).scheme in ("", "file"):
        # A remote registry that names a path on this machine has not stored a model there.
        raise RefusedError("its source is a local path, but the registry is not on this machine")
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        uri = f"models:/{version.name}/{version.version}"
        model = ServedModel().load(export(Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))))
    if not model.features:
        raise RefusedError("it takes no flat pixels; legal here: models of images, others by `mlflow models serve`")
    for images in (1, 2):
        found = model.probabilities(np.linspace(0, 255, images * model.features, dtype=np.float32).reshape(images, -1))
        if found.ndim != 2 or len(found) != images or not np.allclose(found.sum(axis=1), 1, atol=1e-3):
            raise RefusedError("what it answers is not a probability for each class")
    return Version(str(version.version), model)


def export(folder: Path) -> Path:
    """The SavedModel in a downloaded model, if both are of the form that `serving.model.arguments` gives them.

    Raises:
        RefusedError: they are not; among others a pickled model, or a Keras file, which may carry Python code.
    """
    flavor = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    if "python_model" in flavor or flavor.get("loader_module") != LOADER:
        raise RefusedError("it was not logged from code, so it may carry pickled code; log it as mlplab registers it")
    path = folder / str(flavor.get("artifacts", {}).get(EXPORT, {}).get("path", EXPORT))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RefusedError("its artifact lies outside the model")
    if not (path / "saved_model.pb").is_file():
        raise RefusedError(f"it has no SavedModel as its artifact {EXPORT!r}")
    check_graph(path / "saved_model.pb")
    return path


def check_graph(path: Path) -> None:
    """Sees that a SavedModel does arithmetic alone.

    Raises:
        RefusedError: it does more, or cannot be read.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel()
    try:
        saved.ParseFromString(path.read_bytes())
        graph = saved.meta_graphs[0]
        nodes = graph.object_graph_def.nodes
        (call,) = [child.node_id for child in nodes[0].children if child.local_name == "__call__"]
        pending = list(nodes[call].function.concrete_functions)
    except (DecodeError, IndexError, ValueError):
        raise RefusedError("its SavedModel is damaged, or is not called as a mlplab export is") from None
    if not KINDS.issuperset(node.WhichOneof("kind") for node in nodes):
        raise RefusedError("its SavedModel holds more than variables and functions")
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            if node.op not in OPERATIONS:
                raise RefusedError(f"its SavedModel does more than arithmetic: {node.op[:40]}")
            pending += [attribute.func.name for attribute in node.attr.values() if attribute.HasField("func")]


class Watcher(threading.Thread):
    """Holds the version that is served, and replaces it when the reference points to another one.

    The new version is loaded and has answered before it takes the old one's place. If that fails, the old one stays,
    and the failure is in the log, in `refused` and in `failures`.
    """

    def __init__(self, reference: Reference, poll_seconds: float = 2.0, retry_seconds: float = 30.0) -> None:
        super().__init__(name="versions", daemon=True)
        self.reference = reference
        self.current: Version | None = None
        self.refused: tuple[str, str] | None = None
        self.failures = 0
        self.reachable = True
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._again_at: dict[tuple[str, int], float] = {}
        self._loaded: tuple[str, int] | None = None
        self._said = ""
        self._client = MlflowClient()

    def run(self) -> None:
        """Looks at the registry for ever."""
        while True:
            self.look()
            time.sleep(self._poll_seconds)

    def look(self) -> None:
        """Looks at the registry once."""
        try:
            version = self.reference.resolve(self._client)
        except Exception as error:
            absent = isinstance(error, mlflow.MlflowException) and error.error_code in (
                "RESOURCE_DOES_NOT_EXIST",
                "INVALID_PARAMETER_VALUE",
            )
            self.reachable = absent
            self._say("no such version yet" if absent else f"the registry does not answer ({type(error).__name__})")
            return
        self.reachable, self._said = True, ""
        key = (str(version.version), version.creation_timestamp)
        if key == self._loaded:
            self.refused = None
            return
        if time.monotonic() < self._again_at.get(key, 0):
            return
        started = time.perf_counter()
        try:
            self.current = load(version, self._client)
        except Exception as error:
            why = str(error) if isinstance(error, RefusedError) else f"{type(error).__name__}: it does not load"
            never = isinstance(error, RefusedError)
            self._again_at[key] = float("inf") if never else time.monotonic() + self._retry_seconds
            self.refused = (key[0], why)
            self.failures += 1
            serving = f"version {self.current.number}" if self.current else "nothing"
            log.error("version %s of %s is not served: %s; still serving %s", key[0], self.reference.uri, why, serving)
            log.debug("why it does not load", exc_info=error)
            return
        self._loaded, self.refused = key, None
        log.info("serving version %s, loaded in %.1f seconds", key[0], time.perf_counter() - started)
        # What TensorFlow and the model keep for good is not for the garbage collector to walk through: a pass over it
        # takes 0.2 seconds, and would take them from a request.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            serving = f"version {self.current.number}" if self.current else "nothing"
            log.warning("%s: %s; still serving %s", self.reference.uri, problem, serving)
