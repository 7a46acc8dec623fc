"""Which version of a registered model is served: follows the registry, tries beside the serving, then swaps.

Nothing that comes from the registry is run as a program. The code that MLflow stores with a version is for `mlflow
models serve`; here the version's graph is run, by ONNX Runtime, after every file of it was found to be the one that was
registered, the graph was looked over, and a process that has nothing to lose has tried it.
"""

import gc
import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.limits import RefusedError
from serving.model import CONTRACT, GRAPH, Contract, Graph
from serving.probe import probe
from serving.registry import AbsentError, Reference, Registered, Registry

CONTENT, CHECKED = "mlplab.content", "mlplab.checked"
"""The tags of a version that say what its files are, and that it answers as the model that was trained."""

ARTIFACTS = {GRAPH: f"artifacts/{GRAPH}", CONTRACT: f"artifacts/{CONTRACT}"}
"""What is served of a version -> where MLflow keeps it."""

MOST_FILES = 64

log = logging.getLogger("serving")


@dataclass(frozen=True)
class Version:
    """A version that answers.

    Attributes:
        inline: whether it answers a few examples sooner than another thread would begin to.
        about: tags for whoever asks what it is and how good.
    """

    number: str
    graph: Graph
    inline: bool
    about: Mapping[str, str]

    @property
    def contract(self) -> Contract:
        """What it takes and gives."""
        return self.graph.contract


def content_tag(files: Mapping[str, bytes]) -> str:
    """What the tag `CONTENT` holds: each file's SHA-256."""
    return json.dumps({path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())})


def load(version: Registered, registry: Registry) -> Version:
    """Fetches a version, sees that it is what was registered, looks it over, and has it answer.

    Raises:
        RefusedError: it is none of ours, it was changed, or its graph is more than mathematics.
        OSError: its files are not to be had, or it took too long.
    """
    try:
        expected = json.loads(version.tags[CONTENT])
        whole = set(ARTIFACTS.values()) <= expected.keys() and len(expected) <= MOST_FILES
    except (KeyError, ValueError, AttributeError, TypeError):
        whole = False
    if not whole:
        raise RefusedError("it has no record of its content; register it with `mlplab register`")
    if version.tags.get(CHECKED) != "passed":
        raise RefusedError("it has not passed the check of `mlplab register`")
    files = {}
    for path, digest in expected.items():
        content = registry.read(version, path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise RefusedError(f"its file {path[:60]} is not what was registered")
        files[path] = content
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        folder = Path(name)
        for file, path in ARTIFACTS.items():
            (folder / file).write_bytes(files[path])
        try:
            contract = Contract.read(files[ARTIFACTS[CONTRACT]])
            probed = probe(folder)
            graph = Graph(probed.content, contract)
        except ValueError as error:
            raise RefusedError(str(error)) from None
    about = {key: value[:500] for key, value in version.tags.items() if key != CONTENT}
    return Version(version.number, graph, probed.inline, about)


class Watcher(threading.Thread):
    """Holds the version that is served, and replaces it when the reference points to another one.

    The new version is loaded and has answered before it takes the old one's place. If that fails, the old one stays,
    and the failure is in the log, in `refused` and in `failures`.

    Attributes:
        reachable: whether the registry answered when it was looked at last.
        gone: whether the reference points to nothing there.
    """

    def __init__(
        self, reference: Reference, registry: Registry, poll_seconds: float = 2.0, retry_seconds: float = 30.0
    ) -> None:
        super().__init__(name="versions", daemon=True)
        self.reference = reference
        self.current: Version | None = None
        self.refused: tuple[str, str] | None = None
        self.failures = 0
        self.reachable = True
        self.gone = False
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._again_at: dict[tuple[str, int], float] = {}
        self._loaded: tuple[str, int] | None = None
        self._said = ""
        self._registry = registry

    def run(self) -> None:
        """Looks at the registry for ever."""
        while True:
            self.look()
            time.sleep(self._poll_seconds)

    def look(self) -> None:
        """Looks at the registry once."""
        try:
            version = self._registry.resolve(self.reference)
        except AbsentError:
            self.reachable, self.gone = True, True
            self._say("no such version yet" if self.current is None else "it points to no version any more")
            return
        except Exception as error:
            self.reachable = False
            self._say(f"the registry does not answer ({type(error).__name__})")
            return
        self.reachable, self.gone, self._said = True, False, ""
        key = (version.number, version.created)
        if key == self._loaded:
            self.refused = None
            return
        if time.monotonic() < self._again_at.get(key, 0):
            return
        started = time.perf_counter()
        try:
            self.current = load(version, self._registry)
        except Exception as error:
            never = isinstance(error, RefusedError)
            why = str(error) if never else f"{type(error).__name__}: it does not load"
            self._again_at[key] = float("inf") if never else time.monotonic() + self._retry_seconds
            self.refused = (key[0], why)
            self.failures += 1
            log.error(
                "version %s of %s is not served: %s; still serving %s", key[0], self.reference.uri, why, self._now()
            )
            log.debug("why it does not load", exc_info=error)
            return
        self._loaded, self.refused = key, None
        log.info("serving version %s, loaded in %.1f seconds", key[0], time.perf_counter() - started)
        if self.current.contract.notice:
            log.warning("version %s: %s", key[0], self.current.contract.notice)
        # What the libraries and the model keep for good is not for the garbage collector to walk through.
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _now(self) -> str:
        return f"version {self.current.number}" if self.current else "nothing"

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            log.warning("%s: %s; still serving %s", self.reference.uri, problem, self._now())
