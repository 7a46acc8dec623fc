"""Where trainings are carried out: in this process, in several of this machine, or by Dask's workers elsewhere.

There is one way to spread work, `joblib.Parallel`; `workers` decides what is behind it, for this package's own tasks
(`Workers.map`) and for scikit-learn's alike. A worker is one process on one core. Its operations are split among as
many threads as this process's are, all of them on that core: how many there are decides in which order sums are taken,
and so the last bits of every weight, while the core decides nothing but the time.

Data sets do not travel with a task: it is given a `Reference`, and a worker loads the data set once, from its own disk.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import itertools
import logging
import os
import pickle
import platform
import re
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Client as Connect
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

import cloudpickle
import joblib  # type: ignore[import-untyped]
import numpy as np
from joblib.externals.loky import BrokenProcessPool, get_reusable_executor  # type: ignore[import-untyped]

import mlplab
from mlplab import data
from mlplab.data import Dataset
from mlplab.spec import UnavailableError, UsageError

if TYPE_CHECKING:
    from mlplab.trial import Device

Item = TypeVar("Item")
Value = TypeVar("Value")

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer, and its first worker to be there."""

ALONE_SECONDS = 60.0
"""How long a scheduler may be without any worker before what was given to it counts as failed."""

DEATHS = 3
"""How many workers may die of one task; Dask's own number, which its scheduler is configured with."""

MALFORMED = "legal: local:N for N worker processes here, or a Dask scheduler's address such as tcp://10.0.0.5:8786."

FLAGS = ("XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS")
"""Variables of the environment that have to be the same everywhere, since they change what TensorFlow computes."""

PACKAGES = (
    *("tensorflow-cpu", "tensorflow", "keras", "numpy", "scikit-learn", "scikeras", "mlflow", "joblib"),
    *("dask", "distributed"),
)


DIED = (
    "died while they carried this out. A process that the system ends has usually taken too much memory: see the "
    "system's log, and use fewer workers on a machine."
)


class WorkerDiedError(UnavailableError):
    """A task was given up since the workers that carried it out died."""


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What became of a task: its value, or the exception that it raised, with the worker's traceback as a note."""

    value: Value | None = None
    error: BaseException | None = None

    def get(self) -> Value:
        """The value; raises what the task raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


@dataclass
class Workers:
    """What carries out tasks while the block of `workers` lasts.

    Attributes:
        count: how many tasks are carried out at a time; more where workers come later.
        shared: whether several are: their times then tell nothing of what each takes alone.
    """

    count: int = 1
    shared: bool = False

    def map(self, task: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, Outcome[Value]]]:
        """Carries out a task for each item, a task at a time on each worker, and gives the outcomes as they come.

        A task whose worker dies is carried out again by another, so it has to be one that may be begun twice. Whatever
        a task raises is its outcome, and the others go on.

        Args:
            task: what can be pickled, best a function of a module or a `functools.partial` of one.
            items: what it is called with; small, since they travel.
        """
        waiting = dict(enumerate(items))
        for _ in range(DEATHS):
            try:
                for place, outcome in _carry_out(task, waiting):
                    if not isinstance(outcome.error, WorkerDiedError):
                        yield waiting.pop(place), outcome
                break
            except BrokenProcessPool:  # A local process died, and took the others with it.
                continue
        # With a worker die the tasks that wait there as well. Which is to blame is seen when each is alone.
        for place, item in waiting.items():
            try:
                ((_, outcome),) = _carry_out(task, {place: item})
            except BrokenProcessPool:
                outcome = Outcome(error=WorkerDiedError(f"{DEATHS + 1} worker processes {DIED}"))
            yield item, outcome


def _carry_out(task: Callable[[Item], Value], items: Mapping[int, Item]) -> Iterator[tuple[int, Outcome[Value]]]:
    calls = [joblib.delayed(_attempt)(task, place, item) for place, item in items.items()]
    parallel = joblib.Parallel(batch_size=1, pre_dispatch="all", return_as="generator_unordered")
    return parallel(calls)  # type: ignore[no-any-return]


@contextlib.contextmanager
def workers(
    address: str | None = None, jobs: int = 1, heard: Callable[[Any], None] = lambda message: None
) -> Iterator[Workers]:
    """Has `joblib.Parallel`, within the block, carry out its tasks where `address` says.

    Args:
        address: None: on this machine, see `jobs`. `local:N`: by N worker processes of Dask's here. `tcp://host:port`
            (or `tls://`, as Dask is configured): by the workers of the scheduler there.
        jobs: 1: in this process, one task after the other. More: in so many local processes.
        heard: is called with what tasks `tell`: one call at a time, in the order of each worker, but from a thread of
            its own, perhaps after the task's outcome, and again for a task that is done again.

    Raises:
        UsageError: a malformed address, both an address and jobs, or a worker whose code or versions are not ours.
        UnavailableError: Dask is not installed, or no scheduler or no worker answers.
    """
    if address is None:
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}; legal: a whole number from 1.")
        with _processes(jobs, heard) if jobs > 1 else _here(heard):
            yield Workers(jobs, jobs > 1)
        return
    local = re.fullmatch(r"local:([1-9]\d{0,2})", address)
    if not local and not re.fullmatch(r"(tcp|tls)://([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}", address):
        raise UsageError(f"the cluster's address is {address!r}; {MALFORMED}")
    if jobs > 1:
        raise UsageError(f"jobs is {jobs}, and the cluster is {address}: name one of them; a cluster uses all workers.")
    with _client(address, int(local[1]) if local else 0) as client:
        backend = _backend(client, heard)
        with joblib.parallel_config(backend, n_jobs=-1), _watch(client, backend, address):
            yield Workers(len(client.ncores()), True)


@contextlib.contextmanager
def _here(heard: Callable[[Any], None]) -> Iterator[None]:
    """This process alone."""
    global _heard
    before, _heard = _heard, heard
    try:
        with joblib.parallel_config("sequential", n_jobs=1):
            yield
    finally:
        _heard = before


@contextlib.contextmanager
def _processes(jobs: int, heard: Callable[[Any], None]) -> Iterator[None]:
    """Local processes, as joblib makes them by default, ended at the end."""
    one_at_a_time = threading.Lock()

    def hear(connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                with one_at_a_time:
                    heard(message)

    def accept(listener: Listener) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=hear, args=(listener.accept(),), daemon=True).start()

    with Listener() as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        with joblib.parallel_config("loky", n_jobs=jobs, initializer=_join, initargs=(threads(), listener.address)):
            try:
                yield
            finally:
                # joblib keeps them for later, and they would keep their cores.
                get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _join(threads: int, address: str) -> None:
    """Makes a local process a worker."""
    global _heard
    prepare(threads)
    with contextlib.suppress(OSError):  # Without an ear it works all the same.
        _heard = Connect(address).send


@contextlib.contextmanager
def _client(address: str, processes: int) -> Iterator[Any]:
    """A client of the scheduler at an address, or of one made here with so many workers, which have been checked."""
    try:
        import distributed
    except ImportError as error:
        raise UnavailableError(
            f"the cluster {address} needs Dask, which is not installed ({error}). Remedy: pip install '.[cluster]'"
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # A dead worker is not the user's to read about.
    with contextlib.ExitStack() as stack:
        if processes:
            cluster = distributed.LocalCluster(
                n_workers=processes,
                threads_per_worker=1,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                memory_limit=0,  # Else a share of the machine's memory, and a worker is ended that takes more.
            )
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(
                distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="mlplab")
            )
        except (OSError, TimeoutError) as error:
            raise UnavailableError(
                f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:.0f} s "
                f"({type(error).__name__}: {error}). See that `dask scheduler` runs there and that its port is reached."
            ) from error
        try:
            client.wait_for_workers(max(1, processes), timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(
                f"the scheduler at {address} has no workers. Start some, each with one thread: "
                f"`dask worker {address} --nthreads 1 --memory-limit 0`."
            ) from error
        _check(client)
        yield client


def _check(client: Any) -> None:
    """Refuses workers on which a task might not give what it gives here.

    Raises:
        UsageError: it names the first such worker, and what differs.
    """
    for worker, cores in client.ncores().items():
        if cores != 1:
            raise UsageError(
                f"worker {worker} has {cores} threads; legal: 1, since a worker trains on one core. Start it with "
                f"--nthreads 1, and {cores} of them for {cores} cores (--nworkers {cores})."
            )
    ours, split = facts(), threads()
    for worker, answer in client.run(_standing, on_error="return").items():
        if isinstance(answer, BaseException):
            raise UsageError(
                f"worker {worker} cannot use mlplab ({type(answer).__name__}: {answer}). Install this very version "
                "there (pip install '.[cluster]'), and start the worker again."
            )
        theirs, prepared = answer
        for what in sorted(set(ours) | set(theirs)):
            here, there = ours.get(what, "missing"), theirs.get(what, "missing")
            if here != there:
                raise UsageError(
                    f"{what} is {there} on worker {worker}, but {here} here, so results need not be the same. Legal: "
                    "the same everywhere. Make them equal, and start the worker again."
                )
        if prepared not in (None, split):
            raise UsageError(
                f"worker {worker} has TensorFlow loaded with operations split among {prepared or 'some'} threads, but "
                f"{split} are wanted, as here, for the same results. Start the worker again, or set "
                f"TF_NUM_INTRAOP_THREADS={prepared or split} here."
            )


def _standing() -> tuple[dict[str, str], int | None]:
    """A worker's facts, and its threads: None where it is free to have any, 0 where somebody else decided."""
    return facts(), _prepared or (0 if "tensorflow" in sys.modules else None)


def facts() -> dict[str, str]:
    """What of this process decides the numbers that it computes, apart from its processor and threads."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found | {name: os.environ.get(name) or "unset" for name in FLAGS} | _code()


@functools.cache
def _code() -> dict[str, str]:
    """Hashes of the package's files, taken once: the code that runs is the code as it was loaded."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {f"mlplab/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


_code()


def threads() -> int:
    """Among how many threads TensorFlow splits an operation in this process."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or len(mlplab.cores())


# What happens on a worker.

_prepared = 0
_heard: Callable[[Any], object] = lambda message: None  # noqa: E731
_core: tuple[int, IO[str]] | None = None
_held: dict[str, tuple[Dataset, "Device | None"]] = {}
_lock = threading.Lock()


def prepare(threads: int) -> None:
    """Makes this process a worker: gives it a core of its own, and its operations so many threads.

    To be called before TensorFlow is imported; what comes after the first call changes nothing.
    """
    global _prepared
    with _lock:
        if _prepared:
            return
        own_flags = os.environ.get("TF_XLA_FLAGS") == mlplab.program_flags()
        _take_core()
        # Programs are compiled for a number of cores, and kept apart.
        if own_flags:
            os.environ["TF_XLA_FLAGS"] = mlplab.program_flags()
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        _prepared = threads


def _take_core() -> None:
    """Moves this process to a core that no other worker of this machine has; where all are taken it stays on all.

    A core is taken by a lock on a file, which ends with the process. The file is in the cache, which the containers of
    one machine share, and bears the kernel's name, since several machines may share the cache as well.
    """
    global _core
    if not hasattr(os, "sched_setaffinity"):  # not Linux
        return
    try:
        folder = mlplab.cache_dir() / "cores"
        folder.mkdir(parents=True, exist_ok=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return
    for core in sorted(mlplab.cores()):
        file = (folder / f"{boot}.{core}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _core = core, file
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), {core})
        return


def tell(message: Any) -> None:
    """Tells whoever waits for this task how it goes: made of what JSON has, of a few kB at most; it may get lost."""
    with contextlib.suppress(OSError):
        _heard(message)


def place() -> dict[str, str]:
    """Where this process is, as tags of a run; empty where it is no worker."""
    if not _prepared:
        return {}
    return {"worker": _name(), "worker.core": "shared" if _core is None else str(_core[0])}


def _name() -> str:
    return f"{platform.node()}, process {os.getpid()}"


def _attempt(task: Callable[[Any], Any], place: int, item: Any) -> tuple[int, Outcome[Any]]:
    """The outcome of a task, whatever it is, as what can be sent back."""
    try:
        return place, Outcome(task(item))
    except Exception as error:
        if _prepared:
            error.add_note(f"On worker {_name()}:\n{traceback.format_exc()}")
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                error = RuntimeError("".join(traceback.format_exception(error)))
        return place, Outcome(error=error)


def _call(work: bytes, threads: int, topic: str) -> Any:
    """Carries out what joblib sends to a worker of Dask's; unpacked here, since that imports TensorFlow."""
    global _heard
    from distributed import get_worker

    prepare(threads)
    _heard = functools.partial(get_worker().log_event, topic)
    return cloudpickle.loads(work)()


def _backend(client: Any, heard: Callable[[Any], None]) -> Any:
    """joblib's Dask backend, with its ways changed that do not fit long tasks and workers that may die.

    As it is, with a single worker everything would be done in this process; arrays would be kept on one worker, and be
    lost with it; and a task that no worker survives would never be heard of.
    """
    from joblib._dask import DaskDistributedBackend  # type: ignore[import-untyped]
    from joblib._parallel_backends import SequentialBackend  # type: ignore[import-untyped]

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(client=client, **arguments)
            self.pending: set[Any] = set()
            self.lost: Exception | None = None
            self._name, self._numbers = f"mlplab-{uuid.uuid4().hex}", itertools.count()
            client.subscribe_topic(self._name, lambda event: heard(event[1]))

        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, int(super().effective_n_jobs(n_jobs)))

        def compute_batch_size(self) -> int:
            return 1

        def get_nested_backend(self) -> tuple[Any, int]:
            return SequentialBackend(nesting_level=1), 1

        def start_call(self) -> None:
            pass

        def stop_call(self) -> None:
            pass

        def abort_everything(self, ensure_ready: bool = True) -> None:
            client.cancel(list(self.pending))

        def submit(self, func: Any, callback: Callable[[Any], object]) -> Any:
            # Keys that share their first part are a group, which the scheduler keeps until a worker is free.
            key = (self._name, next(self._numbers))
            future = client.submit(_call, cloudpickle.dumps(func), threads(), self._name, key=key, pure=False)
            self.pending.add(future)

            def over(future: Any) -> None:
                self.pending.discard(future)
                try:
                    found = future.result()
                except BaseException as error:
                    found = self.lost or _explained(error)
                    (call,) = func.items
                    if call[0] is _attempt:  # Or else joblib would end the others as well.
                        found = [(call[1][1], Outcome(error=found))]
                callback(found)

            future.add_done_callback(over)
            return future

    return Backend()


def _explained(error: BaseException) -> BaseException:
    """What Dask raises for a task that it gave up, as one of ours; what the task raised, as it is."""
    kind = type(error).__name__
    if kind == "KilledWorker":
        return WorkerDiedError(f"{DEATHS + 1} workers {DIED} The last was {error.args[1].address}.")
    if "Cancelled" in kind:
        return UnavailableError(f"the cluster gave this task up ({error}). See that the scheduler still runs.")
    return error


@contextlib.contextmanager
def _watch(client: Any, backend: Any, address: str) -> Iterator[None]:
    """Within the block, gives up what is not done when there has been no worker for long: Dask would wait for ever."""
    over = threading.Event()

    def watch() -> None:
        alone = 0.0
        while not over.wait(2.0):
            with contextlib.suppress(Exception):
                alone = 0.0 if client.ncores() else alone + 2.0
            if alone >= ALONE_SECONDS and backend.pending:
                backend.lost = UnavailableError(
                    f"the scheduler at {address} has had no worker for {ALONE_SECONDS:.0f} s. Start some, and run the "
                    "command again."
                )
                client.cancel(list(backend.pending))

    watcher = threading.Thread(target=watch, name="cluster", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


# Data sets, known by name and digest.


class _Lent(np.ndarray):
    """An array of a data set, which travels as a reference."""

    origin: "tuple[Reference, str, str] | None" = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.origin is None:  # A part of one, or a result.
            return np.asarray(self).__reduce_ex__(protocol)
        reference, split, name = self.origin
        return reference.array, (split, name)


@dataclass(frozen=True)
class Reference:
    """A data set as a task is given it: what it is, not what it holds."""

    name: str
    wanted: str
    digest: str
    source: str
    notice: str | None = field(default=None, compare=False)

    @classmethod
    def to(cls, known: Dataset, device: "Device | None" = None) -> "Reference":
        """The reference to a data set that this process has, with its tensors if there are any."""
        with _lock:
            _held[known.digest] = known, device
        return cls(known.name, known.wanted, known.digest, known.source, known.notice)

    def load(self) -> Dataset:
        """The data set: of this process, or loaded where this machine has it, once.

        Raises:
            UnavailableError: it is not to be had here, or is another.
        """
        with _lock:
            if self.digest not in _held:
                try:
                    found = data.load(self.name, self.wanted)
                except UnavailableError as error:
                    raise UnavailableError(f"On worker {_name()}: {error}") from error
                if found.digest != self.digest:
                    raise UnavailableError(
                        f"{found.label} on worker {_name()}, in {found.source!r}, has the digest {found.digest}, but "
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

    def array(self, split: str, name: str) -> np.ndarray:
        """An array of a split, `x` or `y`, that travels as this reference: for what scikit-learn sends to workers."""
        lent = getattr(getattr(self.load(), split), name).view(_Lent)
        lent.origin = self, split, name
        return lent  # type: ignore[no-any-return]
