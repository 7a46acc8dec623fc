"""Where trainings are carried out: in this process, in several of this machine, or by Dask's workers elsewhere.

There is one way to spread work, `joblib.Parallel`; `workers` decides what is behind it, for this package's own tasks
(`Workers.map`) and for scikit-learn's alike. What happens there is in `mlplab.worker`.
"""

import contextlib
import functools
import itertools
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client as Connect
from multiprocessing.connection import Connection, Listener
from typing import Any, TypeVar

import cloudpickle
import joblib  # type: ignore[import-untyped]
from joblib.externals.loky import BrokenProcessPool, get_reusable_executor  # type: ignore[import-untyped]

from mlplab import user_code, worker
from mlplab.checks import UnavailableError, UsageError
from mlplab.data import Dataset
from mlplab.worker import Luggage, TaskResult

Item = TypeVar("Item")
Value = TypeVar("Value")

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer, and its first worker to be there."""

ALONE_SECONDS = 60.0
"""How long a scheduler may be without any worker before what was given to it counts as failed."""

DEATHS = 3
"""How many workers may die of one task; Dask's own number, which its scheduler is configured with."""

MALFORMED = "legal: local:N for N worker processes here, or a Dask scheduler's address such as tcp://10.0.0.5:8786."

DIED = (
    "died while they carried this out. A process that the system ends has usually taken too much memory: see the "
    "system's log, and use fewer workers on a machine."
)


class WorkerDiedError(UnavailableError):
    """A task was given up since the workers that carried it out died."""


@dataclass
class Workers:
    """What carries out tasks while the block of `workers` lasts.

    Attributes:
        count: how many tasks are carried out at a time; more where workers come later.
        shared: whether several are: their times then tell nothing of what each takes alone.
        config: has joblib use them; so `map` does, whatever else it is told within the block.
    """

    count: int = 1
    shared: bool = False
    config: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext

    def map(self, task: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, TaskResult[Value]]]:
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
                for place, outcome in self._carry_out(task, waiting):
                    if not isinstance(outcome.error, WorkerDiedError):
                        yield waiting.pop(place), outcome
                break
            except BrokenProcessPool:  # A local process died, and took the others with it.
                continue
        # With a worker die the tasks that wait there as well. Which is to blame is seen when each is alone.
        for place, item in waiting.items():
            try:
                ((_, outcome),) = self._carry_out(task, {place: item})
            except BrokenProcessPool:
                outcome = TaskResult(error=WorkerDiedError(f"{DEATHS + 1} worker processes {DIED}"))
            yield item, outcome

    def _carry_out(
        self, task: Callable[[Item], Value], items: Mapping[int, Item]
    ) -> Iterator[tuple[int, TaskResult[Value]]]:
        calls = [joblib.delayed(worker.attempt)(task, place, item) for place, item in items.items()]
        with self.config():
            parallel = joblib.Parallel(batch_size=1, pre_dispatch="all", return_as="generator_unordered")
        return parallel(calls)  # type: ignore[no-any-return]


@contextlib.contextmanager
def workers(
    address: str | None = None,
    jobs: int = 1,
    on_message: Callable[[Any], None] = lambda message: None,
    carried: Sequence[Dataset] = (),
) -> Iterator[Workers]:
    """Has `joblib.Parallel`, within the block, carry out its tasks where `address` says.

    Args:
        address: None: on this machine, see `jobs`. `local:N`: by N worker processes of Dask's here. `tcp://host:port`
            (or `tls://`, as Dask is configured): by the workers of the scheduler there.
        jobs: 1: in this process, one task after the other. More: in so many local processes.
        on_message: is called with what tasks `tell`: one call at a time, in the order of each worker, but from a
            thread of its own, perhaps after the task's outcome, and again for a task that is done again.
        carried: data sets that Dask's workers are given once, and which then travel with no task.

    Raises:
        UsageError: a malformed address, both an address and jobs, or a worker whose code or versions are not ours.
        UnavailableError: Dask is not installed, or no scheduler or no worker answers.
    """
    if address is None:
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}; legal: a whole number from 1.")
        with _processes(jobs, on_message) if jobs > 1 else _here(on_message) as config:
            yield Workers(jobs, jobs > 1, config)
        return
    local = re.fullmatch(r"local:([1-9]\d{0,2})", address)
    if not local and not re.fullmatch(r"(tcp|tls)://([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}", address):
        raise UsageError(f"the cluster's address is {address!r}; {MALFORMED}")
    if jobs > 1:
        raise UsageError(f"jobs is {jobs}, and the cluster is {address}: name one of them; a cluster uses all workers.")
    with _client(address, int(local[1]) if local else 0) as client:
        luggage = Luggage(user_code.texts(), {one.digest: one for one in carried})
        backend = _backend(client, on_message, luggage)
        config = functools.partial(joblib.parallel_config, backend, n_jobs=-1)
        with _given(client, backend.name, luggage), config(), _watch(client, backend, address):
            yield Workers(len(client.ncores()), True, config)


@contextlib.contextmanager
def _here(on_message: Callable[[Any], None]) -> Iterator[Callable[[], Any]]:
    """This process alone."""
    before = worker.listen(on_message)
    config = functools.partial(joblib.parallel_config, "sequential", n_jobs=1)
    try:
        with config():
            yield config
    finally:
        worker.listen(before)


@contextlib.contextmanager
def _processes(jobs: int, on_message: Callable[[Any], None]) -> Iterator[Callable[[], Any]]:
    """Local processes, as joblib makes them by default, ended at the end."""
    one_at_a_time = threading.Lock()

    def hear(connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                with one_at_a_time:
                    on_message(message)

    def accept(listener: Listener) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=hear, args=(listener.accept(),), daemon=True).start()

    with Listener() as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        joining = {"initializer": _join, "initargs": (worker.threads(), listener.address)}
        config = functools.partial(joblib.parallel_config, "loky", n_jobs=jobs, **joining)
        with config():
            try:
                yield config
            finally:
                # joblib keeps them for later, and they would keep their cores.
                get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _join(threads: int, address: str) -> None:
    """Makes a local process a worker."""
    worker.prepare(threads)
    with contextlib.suppress(OSError):  # Without an ear it works all the same.
        worker.listen(Connect(address).send)


@contextlib.contextmanager
def _client(address: str, processes: int) -> Iterator[Any]:
    """A client of the scheduler at an address, or of one made here with so many workers, which have been checked."""
    try:
        import distributed
    except ImportError as error:
        raise UnavailableError(
            f"the cluster {address} needs Dask, which is not installed ({error}). Remedy: pip install '.[cluster]'"
        ) from error
    for name in ("distributed", "distributed.client"):  # What has died is said by what is raised.
        logging.getLogger(name).setLevel(logging.CRITICAL)
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
    for one, cores in client.ncores().items():
        if cores != 1:
            raise UsageError(
                f"worker {one} has {cores} threads; legal: 1, since a worker trains on one core. Start it with "
                f"--nthreads 1, and {cores} of them for {cores} cores (--nworkers {cores})."
            )
    ours, split = worker.facts(), worker.threads()
    for one, answer in client.run(worker.standing, on_error="return").items():
        if isinstance(answer, BaseException):
            raise UsageError(
                f"worker {one} cannot use mlplab ({type(answer).__name__}: {answer}). Install this very version "
                "there (pip install '.[cluster]'), and start the worker again."
            )
        theirs, prepared = answer
        for what in sorted(set(ours) | set(theirs)):
            here, there = ours.get(what, "missing"), theirs.get(what, "missing")
            if here != there:
                raise UsageError(
                    f"{what} is {there} on worker {one}, but {here} here, so results need not be the same. Legal: "
                    "the same everywhere. Make them equal, and start the worker again."
                )
        if prepared not in (None, split):
            raise UsageError(
                f"worker {one} has TensorFlow loaded with operations split among {prepared or 'some'} threads, but "
                f"{split} are wanted, as here, for the same results. Start the worker again, or set "
                f"TF_NUM_INTRAOP_THREADS={prepared or split} here."
            )


def _backend(client: Any, on_message: Callable[[Any], None], luggage: Luggage) -> Any:
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
            self.name, self._numbers = f"mlplab-{uuid.uuid4().hex}", itertools.count()
            client.subscribe_topic(self.name, lambda event: on_message(event[1]))

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
            key = (self.name, next(self._numbers))
            future = client.submit(worker.call, luggage.pack(func), worker.threads(), self.name, key=key, pure=False)
            self.pending.add(future)

            def over(future: Any) -> None:
                self.pending.discard(future)
                try:
                    found = future.result()
                except BaseException as error:
                    found = self.lost or _explained(error)
                    (call,) = func.items
                    if call[0] is worker.attempt:  # Or else joblib would end the others as well.
                        found = [(call[1][1], TaskResult(error=found))]
                callback(found)

            future.add_done_callback(over)
            return future

    return Backend()


@contextlib.contextmanager
def _given(client: Any, name: str, luggage: Luggage) -> Iterator[None]:
    """Within the block every worker has the luggage, also one that comes later."""
    from distributed import WorkerPlugin

    class Given(WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            give(name, content)

        def teardown(self, worker: Any) -> None:
            take_away(name)

    give, take_away, content = worker.give, worker.take_away, cloudpickle.dumps(luggage)
    client.register_plugin(Given(), name=name)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            client.unregister_worker_plugin(name)


def _explained(error: BaseException) -> BaseException:
    """What Dask raises for a task that it gave up, as one of ours; what the task raised, as it is."""
    kind = type(error).__name__
    if kind == "KilledWorker":
        return WorkerDiedError(f"{DEATHS + 1} workers {DIED} The last was {error.args[1].address}.")
    if "Cancelled" in kind:
        why = str(error).splitlines()[0].rstrip(".")
        return UnavailableError(f"the cluster gave this task up ({why}). See that the scheduler runs.")
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
