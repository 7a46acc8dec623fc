"""What happens on a worker: it takes a core, says what it is, keeps data sets, and carries tasks out.

A worker is one process on one core. Its operations are split among as many threads as the asker's are, all of them on
that core: how many there are decides in which order sums are taken, and so the last bits of every weight, while the
core decides nothing but the time.

What is large does not travel with a task. Of a data set it has a `Reference`: ready-made ones a worker loads once, from
its own disk; a user's own are in the `Luggage` that each worker is given once, with the text of the user's modules.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import os
import pickle
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import cloudpickle
import filelock

import mlplab
from mlplab import backend, data, folders, user_code
from mlplab.checks import UnavailableError
from mlplab.data import Dataset
from mlplab.sources import Data

if TYPE_CHECKING:
    from mlplab.trial import Device

Value = TypeVar("Value")

FLAGS = ("XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS")
"""Variables of the environment that have to be the same everywhere, since they change what TensorFlow computes."""

PACKAGES = (
    *("tensorflow-cpu", "tensorflow", "keras", "numpy", "scikit-learn", "scikeras", "mlflow", "joblib"),
    *("dask", "distributed"),
)


@dataclass(frozen=True)
class TaskResult(Generic[Value]):
    """What became of a task: its value, or the exception that it raised, with the worker's traceback as a note."""

    value: Value | None = None
    error: BaseException | None = None

    def get(self) -> Value:
        """The value; raises what the task raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def standing() -> tuple[dict[str, str], int | None]:
    """A worker's facts, and its threads: None where it is free to have any, 0 where somebody else decided."""
    return facts(), _prepared or (0 if "tensorflow" in sys.modules else None)


def facts() -> dict[str, str]:
    """What of this process decides the numbers that it computes, apart from its processor and threads."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found | {name: os.environ.get(name) or "unset" for name in FLAGS} | code()


@functools.cache
def code() -> dict[str, str]:
    """Hashes of the package's files, taken once: the code that runs is the code as it was loaded."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {f"mlplab/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


code()


def threads() -> int:
    """Among how many threads TensorFlow splits an operation in this process."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or len(mlplab.cores())


_prepared = 0
_on_message: Callable[[Any], object] = lambda message: None  # noqa: E731
_core: tuple[int, filelock.BaseFileLock] | None = None
_held: dict[str, tuple[Dataset, "Device | None"]] = {}
_luggage: dict[str, "bytes | Luggage"] = {}
_lock = threading.Lock()


def prepare(threads: int) -> None:
    """Makes this process a worker: gives it a core of its own, and its operations so many threads.

    To be called before TensorFlow is imported; what comes after the first call changes nothing.
    """
    global _prepared
    with _lock:
        if _prepared:
            return
        own_flags = os.environ.get("TF_XLA_FLAGS") in (None, folders.program_flags())
        _take_core()
        # Programs are compiled for a number of cores, and kept apart.
        if own_flags:
            os.environ["TF_XLA_FLAGS"] = folders.program_flags()
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        _settings.enter_context(backend.settings())  # for as long as the process lives
        _prepared = threads


_settings = contextlib.ExitStack()


def _take_core() -> None:
    """Moves this process to a core that no other worker of this machine has; where all are taken it stays on all.

    A core is taken by a lock on a file, which ends with the process. The file is in the cache, which the containers of
    one machine share, and bears the kernel's name, since several machines may share the cache as well.
    """
    global _core
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        return
    try:
        folder = folders.cache_dir() / "cores"
        folder.mkdir(parents=True, exist_ok=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return
    for core in sorted(mlplab.cores()):
        taken = filelock.FileLock(folder / f"{boot}.{core}", timeout=0, thread_local=False)
        try:
            taken.acquire()
        except (filelock.Timeout, OSError):
            continue
        _core = core, taken
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), {core})
        return


def listen(on_message: Callable[[Any], object]) -> Callable[[Any], object]:
    """Has what tasks `tell` go to `on_message`; returns where it went before."""
    global _on_message
    before, _on_message = _on_message, on_message
    return before


def tell(message: Any) -> None:
    """Tells whoever waits for this task how it goes: made of what JSON has, of a few kB at most; it may get lost."""
    with contextlib.suppress(OSError):
        _on_message(message)


def place() -> dict[str, str]:
    """Where this process is, as tags of a run; empty where it is no worker."""
    if not _prepared:
        return {}
    return {"worker": name(), "worker.core": "shared" if _core is None else str(_core[0])}


def name() -> str:
    """What a reader knows this process by."""
    return f"{platform.node()}, process {os.getpid()}"


def attempt(task: Callable[[Any], Any], place: int, item: Any) -> tuple[int, TaskResult[Any]]:
    """The outcome of a task, whatever it is, as what can be sent back."""
    try:
        return place, TaskResult(task(item))
    except Exception as error:
        if _prepared:
            error.add_note(f"On worker {name()}:\n{traceback.format_exc()}")
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                error = RuntimeError("".join(traceback.format_exception(error)))
        return place, TaskResult(error=error)


@dataclass(frozen=True)
class Luggage:
    """What each worker is given once, before the tasks that need it.

    Attributes:
        texts: the user's own modules, as `user_code.texts` gives them.
        carried: data sets by their digests. In a task such a data set is its digest.
    """

    texts: user_code.Texts = field(default_factory=dict)
    carried: Mapping[str, Dataset] = field(default_factory=dict)

    def pack(self, work: Any) -> bytes:
        """A call as it travels."""
        digests = {id(one): digest for digest, one in self.carried.items()}

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
            def persistent_id(self, value: Any) -> str | None:
                return digests.get(id(value))

        content = io.BytesIO()
        Pickler(content).dump(work)
        return content.getvalue()

    def unpack(self, content: bytes) -> Any:
        """The call, on a worker that has this luggage."""

        class Unpickler(pickle.Unpickler):
            def persistent_load(_, digest: str) -> Dataset:  # noqa: N805
                return self.carried[digest]

        user_code.install(self.texts)
        return Unpickler(io.BytesIO(content)).load()


def give(name: str, luggage: bytes) -> None:
    """Gives this worker the luggage of a command; it is unpacked when the first task needs it."""
    _luggage[name] = luggage


def take_away(name: str) -> None:
    """Forgets the luggage of a command that is over, and its data sets that no other command has: a worker lives on."""
    over = _luggage.pop(name, b"")
    others = [one for one in list(_luggage.values()) if isinstance(one, Luggage)]
    for digest in over.carried if isinstance(over, Luggage) else ():
        if not any(digest in one.carried for one in others):
            _held.pop(digest, None)


def call(work: bytes, threads: int, name: str) -> Any:
    """Carries out what joblib sends to a worker of Dask's; unpacked here, since that imports TensorFlow.

    Args:
        name: of the command: of its luggage here, and of the topic under which it is told how tasks go.
    """
    from distributed import get_worker

    prepare(threads)
    listen(functools.partial(get_worker().log_event, name))
    luggage = _luggage.get(name, b"")
    if isinstance(luggage, bytes):
        luggage = _luggage[name] = cloudpickle.loads(luggage) if luggage else Luggage()
    return luggage.unpack(work)()


@dataclass(frozen=True)
class Reference:
    """A data set as a task is given it: what it is; and what it holds, where that is in the luggage."""

    data: Data
    name: str
    digest: str
    source: str
    notice: str | None = field(default=None, compare=False)
    carried: Dataset | None = field(default=None, compare=False, repr=False)

    @classmethod
    def to(cls, data: Data, known: Dataset, device: "Device | None" = None, carried: bool = False) -> "Reference":
        """The reference to a data set that this process has, with its tensors if there are any.

        Args:
            carried: whether it is in the workers' luggage; else they are to load it.
        """
        with _lock:
            _held[known.digest] = known, device
        return cls(data, known.name, known.digest, known.source, known.notice, known if carried else None)

    def load(self) -> Dataset:
        """The data set: of this process, or loaded where this machine has it, once.

        Raises:
            UnavailableError: it is not to be had here, or is another.
        """
        with _lock:
            if self.digest not in _held and self.carried is not None:
                _held[self.digest] = self.carried, None
            if self.digest not in _held:
                try:
                    found = data.load(self.data, dataset=self.name if self.data.kind == "ready" else "auto")
                except Exception as error:  # a user's own function reads them, and may raise anything
                    kind = "" if isinstance(error, UnavailableError) else f"{type(error).__name__}: "
                    raise UnavailableError(
                        f"{self.data.label} cannot be loaded on worker {name()}. {kind}{error}"
                    ) from error
                if found.digest != self.digest:
                    raise UnavailableError(
                        f"{found.label} on worker {name()}, in {found.source!r}, has the digest {found.digest}, but "
                        f"{self.digest} is wanted, as in {self.source!r}. Copy that file to the worker."
                    )
                _held[self.digest] = replace(found, notice=self.notice), None
            return _held[self.digest][0]

    def device(self) -> "Device":
        """The data set's tensors, made once in a process."""
        from mlplab.trial import Device

        known = self.load()
        with _lock:
            known, device = _held[self.digest]
            device = device or Device.of(known)
            _held[self.digest] = known, device
            return device
