"""What is left when something breaks: commands, servers, databases and disks, broken while they work.

Where a process is killed is for the most part an operation at which a command in this process is cut off (`Power`); a
few are real. Figures are printed (`pytest -s`).
"""

import contextlib
import hashlib
import itertools
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import PATIENCE, free_port, plain_name, wait_until
from faults import (
    PASS,
    Fault,
    Machine,
    Operation,
    Power,
    Proxy,
    Server,
    Store,
    differences,
    postgresql_store,
    resumed_at,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplab import judging, stores, trial
from mlplab.store import command as commands

FIVE = '''"""Every kind of state that a training has."""

from mlplab import Comparison, Training, call

DECAYED = call(
    "keras.optimizers.schedules.InverseTimeDecay", initial_learning_rate=0.01, decay_steps=1, decay_rate=1e-4
)
PATIENT = call("keras.callbacks.EarlyStopping", monitor="val_loss", patience=2)

COMPARISON = Comparison(
    question="Which of these trains best?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(16,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=64,
        epochs=4,
    ),
    variants={
        "SGD": {},
        "momentum": {"optimizer.momentum": 0.9, "learning_rate": DECAYED},
        "Adam": {"optimizer": "adam"},
        "dropout": {"optimizer": "rmsprop", "learning_rate": 0.001, "model.dropout": 0.3, "model.batch_norm": True},
        "patience": {"learning_rate": 0.5, "optimizer.momentum": 0.9, "epochs": 50, "callbacks": [PATIENT]},
    },
    targets={"val_accuracy": 0.9},
)
'''

SEEDS = '''"""Trainings side by side."""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Which of these trains best?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(16,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=16,
        epochs=3,
    ),
    variants={
        "Adam": {"optimizer": "adam", "model.dropout": 0.2},
        "momentum": {"optimizer.momentum": 0.9, "epochs": 5},
    },
    seeds=2,
)
'''

TWO = '''"""A training of a moment, and one of some seconds."""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Which of these trains best?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(32,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        learning_rate=0.01,
        batch_size=16,
        epochs=200,
    ),
    variants={"SGD": {"epochs": 3}, "Adam": {"optimizer": "adam"}},
)
'''

SMALL = '''"""One training of a moment."""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Does it train?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(16,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="rmsprop",
        learning_rate=0.003,
        batch_size=128,
        epochs=3,
    ),
    variants={"RMSprop": {}},
)
'''


def long(spec: str) -> str:
    """A spec whose second variant trains for some seconds."""
    more = spec.replace('"optimizer.momentum": 0.9', '"epochs": 200, "optimizer.momentum": 0.9', 1)
    return more.replace(', "epochs": 5}', "}")


@dataclass(frozen=True)
class Undisturbed:
    """What a comparison leaves when nothing breaks, and the operations by which it does so."""

    content: dict
    operations: Counter


@pytest.fixture(scope="session")
def undisturbed(empty_store, tmp_path_factory) -> Callable[[str], Undisturbed]:
    """Gives what a spec leaves undisturbed; each is run once. Its comparison is called `spec` everywhere."""
    known: dict[str, Undisturbed] = {}

    def of(spec: str) -> Undisturbed:
        if spec not in known:
            machine = local_in(tmp_path_factory.mktemp("undisturbed"), empty_store)
            power = Power(machine.folder)
            done = power.run(partial(machine.here, *machine.spec("spec", spec)))
            assert done.code == 0, done.out
            store = machine.record()
            (parent,) = store.parents()
            known[spec] = Undisturbed(store.content(parent), Counter(power.seen))
        return known[spec]

    return of


def local_in(folder: Path, empty_store: Path) -> Machine:
    """A machine whose store is a file beside its work."""
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    return Machine(folder / "work", f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def local(empty_store, tmp_path) -> Machine:
    """A machine of the test's own, whose store is a file."""
    return local_in(tmp_path, empty_store)


@pytest.fixture(scope="session")
def shared_server(empty_store, tmp_path_factory) -> Iterator[Server]:
    """A tracking server that no test kills."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with Server(folder) as server:
        yield server


@pytest.fixture
def server(empty_store, tmp_path) -> Iterator[Server]:
    """A tracking server of the test's own, not started."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    server = Server(folder)
    yield server
    server.kill()


@pytest.fixture
def answers_here(monkeypatch) -> None:
    """Has versions answer in this process: another one takes seconds, and belongs to the tests of the registry."""
    from test_registry import _in_process

    monkeypatch.setattr(judging, "answers_of", _in_process)


def complete(store: Store, expected: Undisturbed) -> None:
    """The experiment holds one comparison, in nothing different from an undisturbed one, and nothing that goes on."""
    (parent,) = store.parents()
    assert {run.info.status for run in store.runs()} == {"FINISHED"}
    assert not differences(expected.content, store.content(parent))


# ------------------------------------------------------------------------------------------------------- killed trainer


class Attempts:
    """A comparison whose command is cut off and given again.

    What is finished stays as it is, every run stays the same, and what was on record of a training that was cut off is
    not trained again, but for one epoch at most.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._ended: dict[str, int] = {}
        self._known: dict[str, str] = {}
        self._epochs: dict[str, int] = {}

    def look(self) -> bool:
        """After an attempt, cut off or not: checks what is there, and returns whether the comparison is finished."""
        runs = {run.info.run_id: run for run in self.store.runs()}
        parents = self.store.parents()
        assert len(parents) <= 1, "the command given again began another comparison"
        assert set(self._known) <= set(runs), "a run is gone"
        self._known |= {run_id: run.info.run_name for run_id, run in runs.items()}
        names = list(self._known.values())
        assert len(set(names)) == len(names), "a run was begun a second time"
        for run_id, end in self._ended.items():
            assert runs[run_id].info.end_time == end, "a finished run was touched"
        self._ended = {run_id: run.info.end_time for run_id, run in runs.items() if run.info.status == "FINISHED"}
        for run_id, epochs in self._epochs.items():
            run = runs[run_id]
            if run.info.status == "FINISHED" and resumed_at(run):
                again = epochs - resumed_at(run)
                assert again <= 1, f"{run.info.run_name}: {again} of {epochs} epochs trained again"
        open_now = [run for run in self.store.trained() if run.info.status != "FINISHED"]
        self._epochs = {run.info.run_id: len(self.store.history(run.info.run_id, "loss")) for run in open_now}
        return [parent.info.status for parent in parents] == ["FINISHED"]


def cut(machine: Machine, spec: str, expected: Undisturbed, cuts: Iterator[Callable[[Operation], bool]]) -> int:
    """Cuts a comparison's power again and again, until it is through; returns how many attempts that took."""
    arguments, power = machine.spec("spec", spec), Power(machine.folder)
    store = machine.record()
    attempts = Attempts(store)
    for turn in itertools.count(1):
        done = power.run(partial(machine.here, *arguments), next(cuts, lambda operation: False))
        assert done is None or done.code == 0, done.out
        if attempts.look():  # if it was cut off, when it had only to leave: again it would be another comparison
            complete(store, expected)
            return turn
        assert power.cut, "it is not finished, and its end was not said"
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "kinds"),
    # What side by side is other than one after the other is what is said and kept of a training.
    [(FIVE, ""), (SEEDS, r"kept|journal (create|batch|status)|(create|update)_run|log_batch")],
    ids=["five", "seeds"],
)
def test_a_comparison_cut_off_at_any_operation_is_finished_by_the_same_command(
    spec, kinds, undisturbed, empty_store, tmp_path, monkeypatch
):
    """Cut off at each kind of operation, the command given again leaves, to the bit, what an undisturbed one leaves."""
    monkeypatch.setattr(trial, "TIMED_SECONDS", 0.01)
    expected = undisturbed(spec)
    if spec is FIVE:  # early stopping has a state, too
        assert 3 < len(expected.content["/spec/patience"]["metrics"]["loss"]) < 50
    left = {kind for kind in expected.operations if re.search(kinds, kind)}
    assert {"before create_run", "after create_run", "within journal batch"} < left

    def new(operation: Operation) -> bool:
        is_new = operation.kind in left
        left.discard(operation.kind)
        return is_new

    number, attempts = len(left), []
    while left and len(attempts) < 5:  # what is done once in a store or folder may be left
        folder = tmp_path / str(len(attempts))
        folder.mkdir()
        attempts.append(cut(local_in(folder, empty_store), spec, expected, itertools.repeat(new)))
    print(f"\n{number} kinds of operations, attempts for each comparison: {attempts}")
    assert not left


@pytest.mark.slow
@settings(max_examples=6)
@given(data=st.data(), spec=st.sampled_from([FIVE, SEEDS]), keeps=st.booleans())
def test_a_comparison_cut_off_now_and_then_is_finished_by_the_same_command(data, spec, keeps, undisturbed, empty_store):
    """Cut off at operations anywhere in it, with its trainings' state kept or not, it leaves what an undisturbed one
    leaves."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "TIMED_SECONDS", 0.01)
        expected = undisturbed(spec)
        operations = st.sampled_from(sorted(expected.operations)).flatmap(
            lambda kind: st.builds(Operation, st.just(kind), st.integers(1, expected.operations[kind]))
        )
        cuts = data.draw(st.lists(operations, min_size=1, max_size=6))
        machine = local_in(Path(folder), empty_store)
        machine.environment["MLPLAB_CHECKPOINT_SECONDS"] = "0" if keeps else "1000"
        cut(machine, spec, expected, (operation.__eq__ for operation in cuts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "place"), [(FIVE, "sqlite"), (FIVE, "server"), (SEEDS, "sqlite")], ids=["sqlite", "server", "seeds"]
)
def test_a_comparison_that_is_killed_is_finished_by_the_same_command(spec, place, undisturbed, local, shared_server):
    """After kill -9 in its second variant the same command leaves, to the bit, what an undisturbed one leaves, once."""
    uri = local.uri if place == "sqlite" else shared_server.uri
    machine = Machine(local.folder, uri, f"killed on {place}")
    store = machine.record()
    arguments = machine.spec("spec", long(spec))
    command = machine.start(*arguments)
    command.wait_until(lambda: store.epochs("momentum") >= 5)
    command.kill()
    attempts = Attempts(store)
    assert not attempts.look()
    done = machine.run(*arguments)
    assert done.code == 0, done.out
    assert attempts.look()
    complete(store, undisturbed(long(spec)))


# ----------------------------------------------------------------------------------------------------------- interrupts


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_an_interrupt_leaves_every_run_ended_and_every_epoch_on_record(number, code, undisturbed, local):
    """Within seconds of SIGTERM or Ctrl-C every run is ended, with every epoch shown, and the same command goes on."""
    store, spec = local.record(), TWO.replace("epochs=200", "epochs=1_000")
    arguments = local.spec("spec", spec)
    command = local.start(*arguments, terminal=True)
    command.wait_until(lambda: store.epochs("Adam") >= 10)
    command.send(number)
    sent = time.monotonic()
    # Ten on an idle machine.
    assert command.ends_within(30), command.said
    seconds = time.monotonic() - sent
    assert command.process.returncode == code, command.said
    assert {plain_name(run): run.info.status for run in store.runs()} == {
        "spec": "KILLED",
        "SGD": "FINISHED",
        "Adam": "KILLED",
    }
    shown = int(re.findall(r"Adam\s+epoch (\d+)/1,?000", command.said)[-1])
    (interrupted,) = [run for run in store.runs() if run.info.run_name == "Adam"]
    assert [step for step, *_ in store.history(interrupted.info.run_id, "loss")] == list(range(1, shown + 1))
    done = local.here(*arguments)
    assert done.code == 0, done.out
    complete(store, undisturbed(spec))
    print(f"\n{signal.Signals(number).name}: ended {seconds:.1f} s after it, {shown} epochs shown and found")


# ---------------------------------------------------------------------------------------------------------- dead server


@pytest.mark.slow
def test_a_server_killed_and_back_is_not_noticed_in_the_end(undisturbed, server, tmp_path):
    """A tracking server dead for a while in the middle of a training costs nothing: exit 0, every point once, in order.

    The while is as long as it takes the command to say so, and some seconds more.
    """
    server.start()
    machine, store = Machine(tmp_path / "work", server.uri), Store(server.uri)
    command = machine.start(*machine.spec("spec", TWO))
    command.wait_until(lambda: store.epochs("Adam") >= 5)
    server.kill()
    command.wait_until(lambda: "does not answer" in command.said)
    time.sleep(3)
    server.start()
    done = command.done()
    assert done.code == 0, done.out
    complete(store, undisturbed(TWO))


@pytest.mark.slow
def test_what_a_dead_server_did_not_take_is_delivered_by_sync(undisturbed, server, tmp_path):
    """With the server down to the end all is trained, exit 4 names the remedy, and `sync` delivers the whole of it."""
    machine, store = Machine(tmp_path / "work", server.uri), Store(server.uri)
    server.start()
    command = machine.start(*machine.spec("spec", TWO))
    command.wait_until(lambda: store.epochs("Adam") >= 5)
    server.kill()
    done = command.done()
    assert done.code == 4, done.out
    assert "python -m mlplab sync" in done.out
    assert "does not answer" in done.out
    still_dead = machine.run("sync")
    assert still_dead.code == 4, still_dead.out
    server.start()
    assert "FINISHED" not in {run.info.status for run in store.parents()}
    synced = machine.run("sync")
    assert synced.code == 0, synced.out
    complete(store, undisturbed(TWO))
    again = machine.here("sync")
    assert again.code == 0, again.out
    complete(store, undisturbed(TWO))
    print(f"\ncommand {done.seconds:.0f} s, sync {synced.seconds:.0f} s")


@pytest.mark.slow
def test_what_a_server_that_was_never_there_did_not_take_is_delivered_by_sync(
    undisturbed, server, tmp_path, monkeypatch
):
    """With the server down from the start all is trained, exit 4 names the remedy, and `sync` delivers all, once."""
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(stores, "START_SECONDS", 0.5)
    machine, store = Machine(tmp_path / "work", server.uri), Store(server.uri)
    done = machine.here(*machine.spec("spec", SMALL))
    assert done.code == 4, done.out
    assert "python -m mlplab sync" in done.out
    assert "does not answer" in done.out
    assert machine.here("sync").code == 4
    monkeypatch.undo()
    server.start()
    for _ in range(2):
        synced = machine.here("sync")
        assert synced.code == 0, synced.out
        complete(store, undisturbed(SMALL))


@pytest.mark.slow
def test_who_does_not_want_to_wait_for_a_dead_server_loses_nothing(undisturbed, server, tmp_path):
    """Ctrl-C while the command waits for the server at its end is exit 130, and `sync` delivers the whole."""
    machine = Machine(tmp_path / "work", server.uri)
    command = machine.start(*machine.spec("spec", SMALL), terminal=True)
    command.wait_until(lambda: re.search(r"^spec: [\d.]+ s", command.said, re.MULTILINE))
    time.sleep(1)
    command.send(signal.SIGINT)
    assert command.done().code == 130, command.said
    server.start()
    synced = machine.here("sync")
    assert synced.code == 0, synced.out
    complete(Store(server.uri), undisturbed(SMALL))


def test_with_nothing_waiting_sync_has_nothing_to_do(local):
    """`sync` with nothing on disk is done, and makes no run."""
    done = local.here("sync")
    assert done.code == 0, done.out
    assert local.record().runs() == []


# ------------------------------------------------------------------------------------------------------ spoilt answers


def trained_once(store: Store) -> str:
    """The experiment holds one finished SMALL with one training and one model; returns the training's id."""
    (parent,) = store.parents()
    (child,) = store.trainings(parent).values()
    content = store.content(parent)
    assert {part["status"] for part in content.values()} == {"FINISHED"}
    assert {len(points) for points in content["/spec/RMSprop"]["metrics"].values() if points} <= {1, 3}
    assert [step for step, *_ in store.history(child.info.run_id, "loss")] == [1, 2, 3]
    assert {"history.csv", "model.keras", "training.json"} <= set(content["/spec/RMSprop"]["artifacts"])
    assert {"record.json", "comparison.csv"} <= set(content["/spec"]["artifacts"])
    assert content["/spec/RMSprop"]["models"] == 1
    return str(child.info.run_id)


@pytest.mark.slow
def test_no_answer_lost_on_the_way_makes_anything_twice(shared_server, tmp_path):
    """When the reply to the first request of every kind is lost, each was done once, and all is there."""
    with Proxy(shared_server.port) as proxy:
        swallowed = proxy.spoil_first()
        machine = Machine(tmp_path / "work", proxy.uri, "every answer")
        done = machine.here(*machine.spec("spec", SMALL))
        assert done.code == 0, done.out
    assert any("runs/create" in kind for kind in swallowed)
    assert any("runs/log-batch" in kind for kind in swallowed)
    trained_once(Store(shared_server.uri, "every answer"))
    print(f"\nanswers swallowed: {', '.join(swallowed)}")


@pytest.mark.slow
def test_a_creation_that_comes_late_makes_nothing_twice(shared_server, tmp_path):
    """A request to create a run that the server does after it was given up and sent again leaves no second run."""
    with Proxy(shared_server.port) as proxy:
        spoilt = proxy.spoil_first("runs/create", fault=Fault(late=True))
        machine = Machine(tmp_path / "work", proxy.uri, "late")
        done = machine.here(*machine.spec("spec", SMALL))
        assert done.code == 0, done.out
        assert len(spoilt) == 1
        assert not proxy.late
    trained_once(Store(shared_server.uri, "late"))


@pytest.mark.slow
@pytest.mark.usefixtures("answers_here")
def test_a_lost_answer_makes_no_second_version(shared_server, tmp_path):
    """When the reply to the creation of a version is lost, there is one version, and the alias points to it."""
    with Proxy(shared_server.port) as proxy:
        machine = Machine(tmp_path / "work", proxy.uri, "lost version")
        trained = machine.here(*machine.spec("spec", SMALL))
        assert trained.code == 0, trained.out
        (parent,) = (store := Store(shared_server.uri, "lost version")).parents()
        (child,) = store.trainings(parent).values()
        swallowed = proxy.spoil_first("model-versions/create")
        register = ("register", "--dataset", "digits", "--name", "lost", "--run-id", child.info.run_id)
        done = machine.here(*register)
        assert done.code == 0, done.out
        assert len(swallowed) == 1
    versions = store.client.search_model_versions("name = 'lost'")
    assert [int(version.version) for version in versions] == [1]
    assert int(store.client.get_registered_model("lost").aliases["champion"]) == 1


@pytest.mark.slow
def test_a_slow_and_faulty_server_does_not_slow_the_training(undisturbed, shared_server, tmp_path):
    """With 2 s added to each call and 5 % of them failing nothing is missing, and no epoch waits for an answer.

    When all is trained, and the rest delivered, half a second is added.
    """
    draw, lock, delay = random.Random(20), threading.Lock(), 2.0

    def spoilt(method: str, path: str) -> Fault:
        with lock:
            failing, status = draw.random() < 0.05, draw.choice([500, 503])
        return Fault(delay=delay, status=status if failing else None)

    phases: dict[str, float] = {}
    with Proxy(shared_server.port) as proxy:
        for state, fault in (("well", lambda method, path: PASS), ("badly", spoilt)):
            proxy.fault, delay = fault, 2.0
            proxy.seen.clear()
            machine = Machine(tmp_path / "work", proxy.uri, f"answers {state}")
            command = machine.start(*machine.spec("spec", TWO))
            command.wait_until(lambda command=command: "Done: 2 trainings" in command.said)
            delay = 0.5
            done = command.done()
            assert done.code == 0, done.out
            store = Store(shared_server.uri, machine.experiment)
            complete(store, undisturbed(TWO))
            times = [when for run in store.trained() for _, when, _ in store.history(run.info.run_id, "loss")]
            phases[state] = (max(times) - min(times)) / 1_000
    failed = sum(seen.fault.status is not None for seen in proxy.seen)
    print(f"\nfirst to last epoch {phases}; {failed} of {len(proxy.seen)} calls failed; {done.seconds:.0f} s in all")
    assert failed
    # How much slower is printed, since machines are noisy. Were an answer waited for at each epoch, 200 times 2 s would
    # be added.
    assert phases["badly"] < phases["well"] + 100


# ------------------------------------------------------------------------------------------------------- many at a time


MANY = 4


def at_once(machines: list[Machine], expected: Undisturbed) -> None:
    """Every machine trains SMALL, all at the same time; a complete comparison each is there, and nothing else."""
    commands = [machine.start(*machine.spec("spec", SMALL)) for machine in machines]
    for command in commands:
        done = command.done()
        assert done.code == 0, done.out
        assert "database is locked" not in done.out
    store = machines[0].record()  # Not before: the first to open it makes its tables.
    named = [e for e in store.client.search_experiments() if e.name == store.experiment]
    assert len(named) == 1
    assert not store.client.search_runs(["0"])
    runs, parents = store.runs(), store.parents()
    assert len(parents) == len(machines)
    assert len(runs) == 2 * len(machines)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for parent in parents:
        content = store.content(parent)
        assert not differences(expected.content, content)
        (child,) = store.trainings(parent).values()
        assert parent.data.tags["winner.run_id"] == child.info.run_id
        assert content["/spec/RMSprop"]["models"] == 1


@contextlib.contextmanager
def fresh_store(kind: str, folder: Path) -> Iterator[str]:
    """The address of a store in which there was never anything."""
    if kind == "postgresql":
        with postgresql_store() as address:
            yield address
    elif kind == "server":
        with Server(folder / "server") as server:
            yield server.uri
    else:
        yield f"sqlite:///{folder}/fresh.db"


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("sqlite", marks=pytest.mark.slow),
        pytest.param("server", marks=pytest.mark.slow),
        pytest.param("postgresql", marks=pytest.mark.postgres),
    ],
)
def test_several_may_start_at_once(kind, undisturbed, tmp_path):
    """Several commands on an empty store make one experiment of the new name and a complete comparison each in it."""
    with fresh_store(kind, tmp_path) as uri:
        machines = [Machine(tmp_path / f"work {number}", uri, "new") for number in range(MANY)]
        at_once(machines, undisturbed(SMALL))


@pytest.mark.slow
def test_the_same_command_may_be_given_several_times_at_once(undisturbed, tmp_path):
    """The same command several times, with the same state on disk, is a complete comparison each, never a mixture."""
    with fresh_store("sqlite", tmp_path) as uri:
        at_once([Machine(tmp_path / "work", uri, "new")] * MANY, undisturbed(SMALL))


# --------------------------------------------------------------------------------------------------------- full disk


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A small disk at `folder`; what is yielded fills it to the last byte."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")

    def fill() -> None:
        with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4_096)):
                pass

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def file_in_the_way(folder: Path) -> Iterator[Callable[[], None]]:
    """A folder in whose place, when what is yielded is called, is a file, so that nobody can write below it."""
    folder.mkdir(parents=True)
    aside = folder.with_name("aside")

    def block() -> None:
        folder.rename(aside)
        folder.write_text("in the way")

    try:
        yield block
    finally:
        if aside.exists():
            folder.unlink()
            aside.rename(folder)


@pytest.mark.slow
def test_a_full_disk_under_the_journal_costs_a_comparison_nothing(undisturbed, local):
    """With no byte left for the journal, checkpoints and artifacts from the first training's epochs on, all is trained
    and on record as ever; it is said once."""
    store, expected = local.record(), undisturbed(TWO)
    with full_disk(local.state) as fill:

        def fill_soon() -> None:
            wait_until(lambda: store.epochs("Adam") >= 3)
            fill()

        filling = threading.Thread(target=fill_soon)
        filling.start()
        done = local.here(*local.spec("spec", TWO))
        filling.join()
    assert done.code == 0, done.out
    assert done.out.count("The disk does not take the record") == 1, done.out
    assert "Traceback" not in done.out
    complete(store, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("answers_here")
@pytest.mark.parametrize("broken", [full_disk, file_in_the_way])
def test_a_model_that_does_not_fit_on_the_disk_is_never_served(broken, local, monkeypatch):
    """A model cut off by a full disk is not READY, its run is FAILED, no version is made of it, the alias stays."""
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 5.0)
    store = local.record()
    artifacts = local.folder / "artifacts"
    store.client.create_experiment("faults", artifact_location=str(artifacts))
    spec = local.spec("spec", SMALL)
    with broken(artifacts / "models") as spoil:
        first = local.here(*spec)
        assert first.code == 0, first.out
        registered = local.here("register", "--dataset", "digits", "--name", "full")
        assert registered.code == 0, registered.out
        spoil()
        second = local.here(*spec, "--epochs", "5", "--seed", "3")
        _, new = [parent for parent in store.parents() if parent.data.tags["mlplab.kind"] == "comparison"]
        (child,) = store.trainings(new).values()
        assert "FAILED" in {child.info.status, new.info.status}
        assert new.info.status == "FAILED"
        assert "READY" not in store.models().get(child.info.run_id, [])
        refused = local.here("register", "--dataset", "digits", "--name", "full", "--run-id", child.info.run_id)
        assert refused.code in (2, 3), refused.out
        assert "Traceback" not in refused.out
        local.here("register", "--dataset", "digits", "--name", "full")
        versions = store.client.search_model_versions("name = 'full'")
        assert [int(version.version) for version in versions] == [1]
        assert int(store.client.get_registered_model("full").aliases["champion"]) == 1
        assert not [run for run in store.runs() if run.info.status == "RUNNING"]
        assert second.code == 1, second.out
    if broken is file_in_the_way:
        mlflow.set_tracking_uri(local.uri)
        try:
            assert mlflow.pyfunc.load_model("models:/full@champion")
        finally:
            mlflow.set_tracking_uri(None)


# ------------------------------------------------------------------------------------------------------- damaged data


def test_damaged_data_are_refused_before_there_is_a_run(local, tmp_path):
    """A data set with flipped bytes is refused with exit code 3; no run is made, and the file stays as it is."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "mnist.npz"
    images = np.random.default_rng(0).integers(0, 256, (1_000, 28, 28), np.uint8)
    labels = np.zeros(1_000, np.uint8)
    np.savez_compressed(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    damaged = bytearray(path.read_bytes())
    for place in range(len(damaged) // 2, len(damaged) // 2 + 64):
        damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    arguments = local.spec("spec", SMALL)[:-1]
    for named in ("mnist", "auto"):
        done = local.here(*arguments, named, MLPLAB_DATA_DIR=str(folder))
        assert done.code == 3, done.out
        assert str(path) in done.out
    store = local.record()
    assert store.runs() == []
    assert store.client.search_runs(["0"]) == []
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in folder.iterdir()] == ["mnist.npz"]


# ---------------------------------------------------------------------------------------------------------------- reap


@pytest.mark.slow
def test_reap_ends_the_runs_of_the_dead_and_no_others(undisturbed, local):
    """`reap` names the runs of a trainer that was cut off and ends them as KILLED, and leaves a living one's alone; the
    same command then goes on with them."""
    store, power, expected = local.record(), Power(local.folder), undisturbed(FIVE)
    arguments = local.spec("spec", FIVE)
    # In its second training, with some epochs on record.
    middle = Operation("after log_batch", expected.operations["after log_batch"] // 2)
    assert power.run(partial(local.here, *arguments), middle.__eq__) is None
    left = {run.info.run_id: run for run in store.runs()}
    assert "RUNNING" in {run.info.status for run in left.values()}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.setenv(name, local.environment[name])
        mlflow.set_tracking_uri(local.uri)
        with commands.parent_run("alive", {}) as alive:
            child = alive.child("its own", {}, {})
            alive.flush()
            reaped = local.here("reap")
            mlflow.set_tracking_uri(local.uri)
            assert reaped.code == 0, reaped.out
            living = {run_id: store.client.get_run(run_id).info.status for run_id in (alive.run_id, child.run_id)}
        mlflow.set_tracking_uri(None)
    assert set(living.values()) == {"RUNNING"}
    assert not [run_id for run_id in living if run_id in reaped.out], reaped.out
    for run_id, run in left.items():
        lines = [line for line in reaped.out.splitlines() if run_id in line]
        now = store.client.get_run(run_id).info
        if run.info.status == "RUNNING":
            assert len(lines) == 1, reaped.out
            assert run.info.run_name in lines[0]
            assert now.status == "KILLED"
        else:
            assert not lines, reaped.out
            assert (now.status, now.end_time) == (run.info.status, run.info.end_time)
    again = local.here(*arguments)
    assert again.code == 0, again.out
    (parent,) = [run for run in store.parents() if run.info.run_name.startswith("spec ·")]
    assert set(left) <= {parent.info.run_id, *(run.info.run_id for run in store.below(parent))}
    assert not differences(expected.content, store.content(parent))


# ----------------------------------------------------------------------------------------------------------- the proxy


def asked(proxy: Proxy, method: str = "GET", path: str = "/health", **options):
    """What requests gets through a proxy: the status, or the name of the error."""
    import requests

    try:
        answer = requests.request(method, proxy.uri + path, timeout=PATIENCE, **options)
    except requests.RequestException as error:
        return type(error).__name__
    return answer.status_code


@pytest.mark.slow
def test_the_proxy_does_what_it_is_told(shared_server):
    """It passes on, delays, answers errors, and cuts; an answer that it swallows was to something that was done."""
    store = Store(shared_server.uri, "proxied")
    create = {"method": "POST", "path": "/api/2.0/mlflow/experiments/create", "json": {"name": "proxied"}}
    with Proxy(shared_server.port) as proxy:
        assert asked(proxy) == 200
        proxy.fault = lambda method, path: Fault(status=503)
        assert asked(proxy, **create) == 503
        proxy.fault = lambda method, path: Fault(cut=True)
        assert asked(proxy, **create) == "ConnectionError"
        assert store.experiment_id() is None
        swallowed = proxy.spoil_first("experiments/create")
        assert asked(proxy, **create) == "ConnectionError"
        assert store.experiment_id() is not None
        assert asked(proxy, **create) == 400
        assert len(swallowed) == 1
        proxy.fault = lambda method, path: Fault(delay=0.5)
        started = time.monotonic()
        assert asked(proxy) == 200
        assert time.monotonic() - started >= 0.5
        proxy.fault = lambda method, path: PASS
        artifact = "/api/2.0/mlflow-artifacts/artifacts/proxied.bin"
        for sent in (b"", bytes(range(256)) * 5_000, iter([b"in ", b"pieces"])):
            assert asked(proxy, "PUT", artifact, data=sent) == 200
        assert asked(proxy, "GET", artifact) == 200
        assert (shared_server.folder / "artifacts" / "proxied.bin").read_bytes() == b"in pieces"
    with Proxy(free_port()) as proxy:
        assert asked(proxy) == "ConnectionError"
