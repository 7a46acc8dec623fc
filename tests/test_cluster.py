"""Where trainings are carried out, and that it does not matter: real schedulers, workers, and deaths among them."""

import functools
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cloudpickle
import numpy as np
import pytest
from conftest import free_port, wait_until
from faults import Machine, Server, Store
from soak import compare, read
from words import mlp

from mlplab import cluster, user_code, worker
from mlplab.checks import UnavailableError, UsageError
from mlplab.data import Dataset
from mlplab.results import Result
from mlplab.sources import Data
from mlplab.spec import Metric, Training

ROOT = Path(__file__).resolve().parent.parent
distributed = pytest.importorskip("distributed")
# Workers do not have the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# ------------------------------------------------------------------------------------------------------------ the tasks


def half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def telling(number: int) -> int:
    from mlplab import worker

    for part in range(3):
        worker.tell({"number": number, "part": part})
    return number


def whereabouts(_: int) -> tuple[int, dict[str, str], list[int], int]:
    time.sleep(0.5)
    from mlplab import worker

    return os.getpid(), worker.place(), sorted(os.sched_getaffinity(0)), worker.threads()


def deadly_at_first(folder: Path, number: int) -> int:
    """Number 0 ends its process when it is carried out for the first time."""
    with (folder / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if number == 0 and len((folder / "0").read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def deadly(number: int) -> int:
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


def examples(reference: worker.Reference) -> tuple[int, str]:
    data = reference.load()
    return len(data.train), data.digest


def forever(_: int) -> None:
    time.sleep(600)


def train(reference: worker.Reference, variant: Training, report: Callable[[Result], None] | None = None) -> Result:
    from mlplab import trial

    data = reference.load()
    result = Result(variant=variant, seed=3, steps_per_epoch=variant.steps_per_epoch(len(data.train)))
    trial.train([result], Metric("val_accuracy"), data, reference.device(), report or (lambda result: None))
    return result


def train_noted(reference: worker.Reference, folder: Path, variant: Training) -> Result:
    """Notes in a file of the process when which variant has begun and has had its first epoch."""

    def note(event: str) -> None:
        with (folder / str(os.getpid())).open("a") as file:
            file.write(f"{variant.name} {event}\n")

    def report(result: Result) -> None:
        if result.epochs == 1:
            note("runs")

    note("begins")
    result = train(reference, variant, report)
    note("is over")
    return result


def same(found: Result, expected: Result) -> bool:
    """Whether two trainings agree in every bit of every number that is not a time."""
    assert found.weights is not None
    assert expected.weights is not None
    numbers = [
        {name: values for name, values in result.history.items() if not name.endswith("_seconds")}
        for result in (found, expected)
    ]
    return (
        repr(numbers[0]) == repr(numbers[1])  # a NaN, where there was no evaluation, equals none
        and (found.start, found.order, found.end) == (expected.start, expected.order, expected.end)
        and found.test == expected.test
        and all(np.array_equal(a, b) for a, b in zip(found.weights, expected.weights, strict=True))
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    ["", "local", "local:0", "local:-1", "local:two", "10.0.0.5:8786", "http://a:8786", "tcp://a", "tcp://:1"],
)
def test_a_malformed_address_is_refused(address: str) -> None:
    """What is no address is said to be none, with what is legal."""
    with (
        pytest.raises(UsageError, match=rf"address is '{address}'; legal: local:N .* tcp://"),
        cluster.workers(address),
    ):
        pass


def test_a_cluster_and_jobs_are_not_both_named() -> None:
    """Of two numbers of workers neither is taken."""
    with pytest.raises(UsageError, match="jobs is 2, and the cluster is local:2"), cluster.workers("local:2", 2):
        pass


def test_a_scheduler_that_is_not_there_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong address ends in a message, within the time that is given for it."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)
    address, started = f"tcp://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(UnavailableError, match=f"no Dask scheduler answers at {address}"), cluster.workers(address):
        pass
    # Dask itself would go on for 30 s, and then some.
    assert time.monotonic() - started < 25


def test_without_dask_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named where it is missing; without a cluster nothing needs it."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnavailableError, match=r"pip install '\.\[cluster\]'"), cluster.workers("local:2"):
        pass
    with cluster.workers() as workers:
        assert [outcome.get() for _, outcome in workers.map(half, [2, 4])] == [1, 2]


def test_the_module_loads_nothing_heavy() -> None:
    """Whoever asks for no cluster, and has not trained yet, has loaded neither Dask nor TensorFlow nor MLflow."""
    heavy = "{'distributed', 'dask', 'tensorflow', 'keras', 'mlflow', 'sklearn'}"
    code = f"import sys, mlplab.cluster; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --------------------------------------------------------------------------------------------------------------- tasks

KINDS: dict[str, dict[str, Any]] = {"here": {}, "processes": {"jobs": 2}, "dask": {"address": "local:2"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_raises_loses_no_other(kind: str) -> None:
    """Each item has its own outcome, and what was raised on a worker says where."""
    with cluster.workers(**KINDS[kind]) as workers:
        assert workers.shared is (kind != "here")
        outcomes = dict(workers.map(half, range(6)))
    assert [outcomes[number].get() for number in (0, 2, 4)] == [0, 1, 2]
    for number in (1, 3, 5):
        with pytest.raises(ValueError, match=f"{number} is odd") as raised:
            outcomes[number].get()
        assert kind == "here" or any("On worker" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_tells_how_it_goes(kind: str) -> None:
    """What tasks tell arrives while the block lasts, each one's in its order."""
    heard: list[dict[str, int]] = []
    with cluster.workers(**KINDS[kind], on_message=heard.append) as workers:
        assert len(list(workers.map(telling, range(4)))) == 4
        wait_until(lambda: len(heard) == 12)
    for number in range(4):
        assert [message["part"] for message in heard if message["number"] == number] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_a_worker_has_a_core_of_its_own_and_as_many_threads_as_we(kind: str) -> None:
    """Workers do not fight for cores, and split operations as this process does."""
    with cluster.workers(**KINDS[kind]) as workers:
        found = {
            process: rest for _, outcome in workers.map(whereabouts, range(6)) for process, *rest in [outcome.get()]
        }
    assert os.getpid() not in found
    assert len(found) == 2
    for tags, cores, threads in found.values():
        assert threads == worker.threads()
        assert tags["worker.core"] == (str(cores[0]) if len(cores) == 1 else "shared")
    if len(os.sched_getaffinity(0)) > 1:
        first, second = (set(cores) for _, cores, _ in found.values())
        assert len(first) == len(second) == 1
        assert first != second


def test_one_worker_works_instead_of_this_process() -> None:
    """A cluster of one is a cluster: joblib itself would carry everything out here."""
    with cluster.workers("local:1") as workers:
        assert {outcome.get()[0] for _, outcome in workers.map(whereabouts, range(2))}.isdisjoint({os.getpid()})


@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_what_a_dead_worker_did_is_done_again(kind: str, tmp_path: Path) -> None:
    """A task during which its worker dies is carried out twice, and has one outcome; so has each of the others."""
    with cluster.workers(**KINDS[kind]) as workers:
        outcomes = list(workers.map(functools.partial(deadly_at_first, tmp_path), range(6)))
    assert sorted((number, outcome.get()) for number, outcome in outcomes) == [(n, n) for n in range(6)]
    assert len((tmp_path / "0").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_a_task_that_kills_every_worker_fails_alone(kind: str) -> None:
    """What ends each process that takes it is given up with a message, and whatever waited behind it is done."""
    with cluster.workers(**KINDS[kind]) as workers:
        outcomes = dict(workers.map(deadly, range(8)))
    assert [outcomes[number].get() for number in range(1, 8)] == list(range(1, 8))
    with pytest.raises(cluster.WorkerDiedError, match=r"4 worker(s| processes) died while"):
        outcomes[0].get()


# ----------------------------------------------------------------------------------------------------------------- data


def test_a_data_set_travels_as_a_reference(dataset: Dataset) -> None:
    """What is sent is a few hundred bytes, and is the data set that is here already."""
    sent = cloudpickle.dumps(worker.Reference.to(Data.of("digits"), dataset))
    assert len(sent) < 1_000
    assert pickle.loads(sent).load() is dataset


def test_a_worker_with_other_data_says_so(dataset: Dataset) -> None:
    """A worker that has another data set of that name names itself, the place and both digests."""
    wanted = worker.Reference(Data.of("mnist"), "digits", "0" * 32, "/somewhere/digits.npz")
    with pytest.raises(UnavailableError) as raised:
        wanted.load()
    for part in (f"process {os.getpid()}", dataset.source, dataset.digest, "0" * 32, "/somewhere/digits.npz"):
        assert part in str(raised.value)


def test_a_worker_without_the_data_says_so(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has no such data set names itself and where it has looked."""

    def load(*_: object, **__: object) -> Dataset:
        raise UnavailableError(f"MNIST was not found. Searched: {tmp_path}")

    monkeypatch.setattr(worker.data, "load", load)
    with pytest.raises(
        UnavailableError, match=rf"cannot be loaded on worker .*process {os.getpid()}.*Searched: {tmp_path}"
    ):
        worker.Reference(Data.of("mnist"), "mnist", "1" * 32, "mnist.npz").load()


# ------------------------------------------------------------------------------------------------------- real processes


@dataclass
class Machines:
    """A scheduler and workers, each in a network namespace of its own where there may be some, else at its own port."""

    address: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kill: Callable[[str], None] = lambda name: None


def ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=check).returncode == 0


def a_subnet() -> tuple[str, socket.socket]:
    """The start of addresses that no other test of this machine uses, and what holds them: it goes with the process."""
    taken = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout  # by a killed test
    for n in (n for n in range(256) if f" 10.213.{n}." not in taken):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0mlplab-tests-subnet-{n}")  # a name that no file has, so that none is left behind
        except OSError:
            held.close()
        else:
            return f"10.213.{n}", held
    raise AssertionError("256 tests have networks")


@contextmanager
def network(number: int) -> Iterator[tuple[list[list[str]], str] | None]:
    """Prefixes of commands that run them in namespaces on a bridge, and its address; None where there may be none."""
    bridge, names = f"mlp{os.getpid()}", [f"mlp{os.getpid()}-{n}" for n in range(number)]
    try:
        allowed = os.getuid() == 0 and ip("link", "add", bridge, "type", "bridge", check=False)
    except OSError:
        allowed = False
    if not allowed:
        yield None
        return
    subnet, held = a_subnet()
    try:
        ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for n, name in enumerate(names):
            link = f"mlpv{os.getpid() % 10**6}.{n}"
            ip("netns", "add", name)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", link, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{subnet}.{n + 2}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names], subnet
    finally:
        held.close()
        for name in names:
            ip("netns", "delete", name, check=False)
        ip("link", "delete", bridge, check=False)


@contextmanager
def machines(folder: Path, workers: int = 2, **environment: str) -> Iterator[Machines]:
    """A scheduler and workers as processes of their own, without nannies: a killed worker stays dead."""
    port = free_port()
    # They find the package where these tests do; nothing else of the tests' environment matters.
    given = os.environ | {"PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(folder)} | environment
    with ExitStack() as stack:
        prefixes, subnet = stack.enter_context(network(workers)) or ([], "")
        host = f"{subnet}.1" if subnet else "127.0.0.1"
        found = Machines(f"tcp://{host}:{port}")

        def start(name: str, prefix: list[str], *command: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            found.processes[name] = subprocess.Popen(
                [*prefix, sys.executable, "-m", "dask", *command],
                cwd=folder, env=given, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            stack.callback(end, found.processes[name], signal.SIGKILL)

        start("scheduler", [], "scheduler", "--host", host, "--port", str(port), "--no-dashboard")
        # Dask's client doubles its pauses while it cannot connect: on a busy machine it would sleep for minutes.
        wait_until(lambda: listens(host, port), said=lambda: (folder / "scheduler.log").read_text())
        for n in range(workers):
            own = ["--host", f"{subnet}.{n + 2}"] if prefixes else ["--host", "127.0.0.1"]
            options = ["--nthreads=1", "--no-nanny", "--memory-limit=0", "--no-dashboard", f"--name=worker {n}"]
            start(f"worker {n}", prefixes[n] if prefixes else [], "worker", found.address, *own, *options)
        yield found


def listens(host: str, port: int) -> bool:
    """Whether somebody answers there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    if process.poll() is None:
        os.killpg(process.pid, how)
        process.wait()


CASES = (
    mlp(name="one image", optimizer="sgd", learning_rate=0.01, batch_size=1, epochs=1),
    mlp(name="Adam", optimizer="adam", learning_rate=0.001, batch_size=128, epochs=3),
    mlp(name="full batch", optimizer="rmsprop", learning_rate=0.001, batch_size="full", epochs=3),
    mlp(name="all", optimizer="adam", batch_size=32, epochs=2, dropout=0.3, batch_norm=True, l2=1e-4),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_a_worker_trains_to_the_same_bits(kind: str, dataset: Dataset) -> None:
    """One image a step, mini-batches, full batch, dropout and batch normalization: all numbers are those of here."""
    reference = worker.Reference.to(Data.of("digits"), dataset)
    with cluster.workers(**KINDS[kind]) as workers:
        found = {
            variant.name: outcome.get() for variant, outcome in workers.map(functools.partial(train, reference), CASES)
        }
    for variant in CASES:
        assert same(found[variant.name], train(reference, variant)), variant.name


@pytest.mark.slow
def test_a_machine_that_dies_in_the_middle_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """Of two machines one is killed while it trains: every training is there, and is that of one machine."""
    reference = worker.Reference.to(Data.of("digits"), dataset)
    variants = [
        CASES[1].but(name=f"rate {rate}", learning_rate=rate, epochs=40) for rate in (0.001, 0.002, 0.003, 0.004)
    ]
    killed: list[str] = []
    with machines(tmp_path) as many, cluster.workers(many.address) as workers:
        assert workers.count >= 1

        def kill() -> None:
            process = many.processes["worker 0"]
            noted = tmp_path / str(process.pid)
            wait_until(lambda: noted.exists() and noted.read_text().strip().endswith("runs"))
            end(process)
            killed.append(noted.read_text().split("\n")[-2].removesuffix(" runs"))

        killer = threading.Thread(target=kill)
        killer.start()
        found = {
            v.name: outcome.get()
            for v, outcome in workers.map(functools.partial(train_noted, reference, tmp_path), variants)
        }
        killer.join()
        survivor = (tmp_path / str(many.processes["worker 1"].pid)).read_text()
    assert f"{killed[0]} is over" in survivor
    assert set(found) == {variant.name for variant in variants}
    for variant in variants:
        assert same(found[variant.name], train(reference, variant)), variant.name


@pytest.mark.slow
def test_a_worker_whose_code_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained, the worker and the file that is not ours are named."""
    with machines(tmp_path, 1) as many:
        monkeypatch.setattr(worker, "code", lambda: {"mlplab/training.py": "another"})
        with (
            pytest.raises(UsageError, match=r"mlplab/\w+\.py is \w+ on worker tcp://[\d.]+:\d+, but \w+ here"),
            cluster.workers(many.address),
        ):
            pass


@pytest.mark.slow
def test_a_worker_with_several_threads_is_refused(tmp_path: Path) -> None:
    """A worker that would train several at a time on one core is refused, with how to start it."""
    with machines(tmp_path, 0) as many:
        command = [sys.executable, "-m", "dask", "worker", many.address, "--nthreads=2", "--no-nanny", "--no-dashboard"]
        worker = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            with pytest.raises(UsageError, match="has 2 threads; legal: 1"), cluster.workers(many.address):
                pass
        finally:
            worker.kill()
            worker.wait()


@pytest.mark.slow
def test_a_worker_whose_threads_were_set_by_another_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has computed for a machine with other cores is asked to be started again: its bits are others."""
    with machines(tmp_path, 1) as many:
        with cluster.workers(many.address) as workers:
            list(workers.map(half, [2]))
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
        with pytest.raises(UsageError, match="but 7 are wanted"), cluster.workers(many.address):
            pass


@pytest.mark.slow
def test_a_scheduler_without_workers_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the command that starts one."""
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 5.0)
    with machines(tmp_path, 0) as many:
        command = rf"`dask worker {many.address} --nthreads 1"
        with pytest.raises(UnavailableError, match=command), cluster.workers(many.address):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["scheduler", "worker 0"])
def test_a_cluster_that_is_gone_is_no_endless_wait(dies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the scheduler or the last worker is gone for good, what was not done fails with a message."""
    monkeypatch.setattr(cluster, "ALONE_SECONDS", 4.0)
    with machines(tmp_path, 1) as many, cluster.workers(many.address) as workers:
        threading.Timer(2, lambda: end(many.processes[dies])).start()
        outcomes = list(workers.map(forever, range(3)))
    assert len(outcomes) == 3
    for _, outcome in outcomes:
        with pytest.raises(UnavailableError, match=r"has had no worker|gave this task up"):
            outcome.get()


@pytest.mark.slow
def test_a_search_of_scikit_learn_goes_to_the_workers(dataset: Dataset) -> None:
    """RandomizedSearchCV within the block is carried out by the workers, and finds what it finds here."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import RandomizedSearchCV

    found = []
    for kind in ("here", "dask"):
        with cluster.workers(**KINDS[kind]):
            search = RandomizedSearchCV(
                SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-3, 1e-2, 0.1]}, n_iter=3, cv=3, random_state=0
            )
            search.fit(dataset.validation.x, dataset.validation.y)
        found.append(search.cv_results_["mean_test_score"].tolist())
    assert found[0] == found[1]


MINE = """import sizes_of_mine


def f(n):
    from parts_of_mine import inner  # which is imported where it is called, and not before

    return sizes_of_mine.size(n) + inner.more(n)
"""


@pytest.mark.slow
def test_a_users_own_code_and_data_travel(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has none of the user's files, or others of that name, carries the functions out as they are here,
    also after they were changed; and it has the data, whose bytes travel with no task."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(user_code, "_texts", {})
    here, elsewhere = tmp_path / "user", tmp_path / "elsewhere"
    for folder, factor in ((here, 2), (elsewhere, 1_000)):
        (folder / "parts_of_mine").mkdir(parents=True)
        (folder / "sizes_of_mine.py").write_text(f"def size(number):\n    return {factor} * number\n")
        (folder / "parts_of_mine" / "__init__.py").touch()
        (folder / "parts_of_mine" / "inner.py").write_text("from .least import more\n")
        (folder / "parts_of_mine" / "least.py").write_text(f"def more(number):\n    return {factor}00\n")
    (here / "mine.py").write_text(MINE)
    own = worker.Reference(Data(()), "own", "2" * 32, "nowhere", carried=dataset)
    with machines(elsewhere, 1) as many:
        for factor in (2, 3):
            (here / "sizes_of_mine.py").write_text(f"def size(number):\n    return {factor} * number\n")
            function = user_code.run(here / "mine.py")["f"]
            with cluster.workers(many.address, carried=[dataset]) as workers:
                outcomes = {number: outcome.get() for number, outcome in workers.map(function, [1, 2])}
                ((_, held),) = workers.map(examples, [own])
            assert outcomes == {1: 200 + factor, 2: 200 + 2 * factor}
            assert held.get() == (len(dataset.train), dataset.digest)
    luggage = worker.Luggage({}, {dataset.digest: dataset})
    assert len(luggage.pack(own)) < 1_000
    assert luggage.unpack(luggage.pack(own)).load() is dataset


SPEC = """"Own functions and data, tuned, and seeds until the verdicts are clear."

import numpy as np

from mlplab import Comparison, LogUniform, Training, Tune, Until


def points():
    with np.load("points.npz") as file:
        return file["x"], file["y"]


def net(units=8):
    import layers_of_mine

    return layers_of_mine.net(units)


COMPARISON = Comparison(
    question="Which of these trains best?",
    data=points,
    base=Training(model=net, loss="sparse_categorical_crossentropy", metrics=["accuracy"], optimizer="sgd",
                  learning_rate=0.01, batch_size=2, epochs=200),
    variants={"few": {}, "many": {"model.units": 16}},
    seeds=Until(most=4, look_every=2),
    tune=Tune({"learning_rate": LogUniform(0.01, 0.1)}, trials=2),
)
"""

LAYERS = """import keras


def net(units):
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(2, "softmax")])
"""


def user_in(folder: Path, uri: str) -> Machine:
    """A machine with a spec, the module beside it, and the data that its function reads."""
    user = Machine(folder, uri)
    (folder / "spec.py").write_text(SPEC)
    (folder / "layers_of_mine.py").write_text(LAYERS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 6)).astype("float32")
    np.savez(folder / "points.npz", x=x, y=(x[:, 0] + rng.normal(size=2_000) > 0).astype("int32"))
    return user


# It fails: with trainings of seconds, the command that went on chose another trial for one variant than one
# machine did. Not understood yet.
@pytest.mark.nightly
def test_a_comparison_loses_its_scheduler_then_a_worker_and_nothing_else(empty_store: Path, tmp_path: Path) -> None:
    """A command whose scheduler dies says so, and given again goes on with another; there a worker dies. Trials, looks,
    trainings and weights are those of one machine, nothing twice, though workers have another module of that name."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    alone = user_in(tmp_path / "alone", f"sqlite:///{tmp_path}/mlflow.db")
    by_itself = alone.start("compare", "spec.py")
    state = {"XDG_STATE_HOME": str(tmp_path / "workers' state"), "no_proxy": "*"}
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "mlflow.db").write_bytes(empty_store.read_bytes())
    folders = [tmp_path / name for name in ("workers", "other workers")]
    for folder in folders:
        folder.mkdir()
        (folder / "layers_of_mine.py").write_text(LAYERS.replace('"relu"', '"tanh"'))

    def under_way() -> dict[str, str]:
        """Runs that are trained at this moment -> process ids of their workers."""
        runs = [run for run in store.trained() if run.info.status == "RUNNING" and "machine.load" in run.data.tags]
        epochs = {run.info.run_id: len(store.history(run.info.run_id, "loss")) for run in runs}
        return {run.info.run_id: worker_of(run) for run in runs if epochs[run.info.run_id] < 150}

    with machines(folders[0], **state) as many, ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "server", host=urlsplit(many.address).hostname or ""))
        user, store = user_in(tmp_path / "user", server.uri), Store(server.uri)
        command = user.start("compare", "spec.py", "--cluster", many.address, no_proxy="*")
        command.wait_until(under_way)
        end(many.processes["scheduler"])
        done = command.done()
        assert done.code == 3, done.out
        assert "the cluster gave this task up" in done.out
        assert "the same command, given again, trains the rest" in done.out.replace("\n", " ")
    with machines(folders[1], **state) as many, Server(tmp_path / "server", host=server.host, port=server.port):
        command = user.start("compare", "spec.py", "--cluster", many.address, no_proxy="*")
        cut_off, victim = next(iter(command.wait_until(under_way).items()))
        (process,) = (p for name, p in many.processes.items() if "worker" in name and str(p.pid) == victim)
        end(process)
        done = command.done()
        assert done.code == 0, done.out
        (parent,) = store.parents()
        found = read(store, parent)
        again = worker_of(store.client.get_run(cut_off))
        said = json.loads(user_text(store, parent.info.run_id, "verdicts.json"))
    assert again != victim
    assert {verdict["measure"] for verdict in said["verdicts"]} == {"val_accuracy", "gap"}
    undisturbed = by_itself.done()
    assert undisturbed.code == 0, undisturbed.out
    twin = Store(alone.uri)
    expected = read(twin, twin.parents()[0])
    # What is about times is there on one machine alone.
    expected.about[""]["artifacts"].remove("differences_train_seconds.png")
    expected.points = {point: values for point, values in expected.points.items() if point[1] != "group_seconds"}
    assert not compare(expected, found).lines


def worker_of(run: Any) -> str:
    """The process id of the worker that trained a run, by its tag."""
    found = re.fullmatch(r"shared: \S+, process (\d+), core \w+", run.data.tags["machine.load"])
    assert found
    return found[1]


def user_text(store: Store, run_id: str, path: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(store.client.download_artifacts(run_id, path, folder)).read_text()


@pytest.mark.slow
def test_the_documented_command_trains_with_workers_of_this_machine(empty_store: Path, tmp_path: Path) -> None:
    """The command of docs/scaling.md with `--cluster local:2` leaves a complete comparison."""
    (line,) = [line for line in (ROOT / "docs" / "scaling.md").read_text().splitlines() if "--cluster local:2" in line]
    command = line.partition("  #")[0]
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    machine = Machine(tmp_path / "work", f"sqlite:///{tmp_path}/mlflow.db")
    done = machine.run(*command.split()[3:])
    assert done.code == 0, done.out
    store = Store(machine.uri)
    (parent,) = store.parents()
    assert set(store.trainings(parent)) == {"SGD", "Adam", "RMSprop"}
    assert "times are compared with none" in parent.data.tags["mlflow.note.content"]
