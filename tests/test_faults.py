"""What is left when something breaks: real commands, servers, databases and disks, broken while they work.

FAULTS_SEED=… draws other moments; the figures are printed (`pytest -s`).
"""

import contextlib
import hashlib
import itertools
import os
import random
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import free_port
from faults import PASS, Command, Fault, Machine, Proxy, Server, Store, differences, postgresql_store

SEED = int(os.environ.get("FAULTS_SEED") or 20)

FIVE = '''"""Every kind of state that a training has."""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Which of these trains best?",
    dataset="mnist",
    base=Variant(hidden=(32,), batch_size=16, epochs=60),
    variants={
        "SGD": {},
        "momentum": {"momentum": 0.9, "decay": 1e-4},
        "Adam": {"optimizer": "adam"},
        "dropout": {"optimizer": "rmsprop", "learning_rate": 0.001, "dropout": 0.3, "batch_norm": True},
        "patience": {"learning_rate": 0.05, "momentum": 0.9, "epochs": 300, "patience": 30},
    },
    targets={"val_accuracy": 0.9},
)
'''

SEEDS = '''"""Trainings side by side."""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Which of these trains best?",
    dataset="mnist",
    base=Variant(hidden=(32,), batch_size=16, epochs=60),
    variants={"Adam": {"optimizer": "adam", "dropout": 0.2}, "momentum": {"momentum": 0.9, "epochs": 40}},
    seeds=2,
)
'''

TWO = '''"""Two trainings of some seconds."""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Which of these trains best?",
    dataset="mnist",
    base=Variant(hidden=(32,), batch_size=16, epochs=100),
    variants={"SGD": {}, "Adam": {"optimizer": "adam"}},
)
'''

SMALL = '''"""One training of a moment."""

from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Does it train?",
    dataset="mnist",
    base=Variant(hidden=(16,), optimizer="rmsprop", learning_rate=0.003, epochs=3),
    variants={"RMSprop": {}},
)
'''


@dataclass(frozen=True)
class Undisturbed:
    """What a comparison leaves when nothing breaks, and how long its command takes."""

    content: dict
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(empty_store, tmp_path_factory) -> Callable[[str], Undisturbed]:
    """Gives what a spec leaves undisturbed; each is run once. Its comparison is called `spec` everywhere."""
    known: dict[str, Undisturbed] = {}

    def of(spec: str) -> Undisturbed:
        if spec not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
            machine = Machine(folder, f"sqlite:///{folder}/mlflow.db")
            done = machine.run(*machine.spec("spec", spec))
            assert done.code == 0, done.out
            store = Store(machine.uri)
            (parent,) = store.parents()
            known[spec] = Undisturbed(store.content(parent), done.seconds)
        return known[spec]

    return of


@pytest.fixture
def local(empty_store, tmp_path) -> Machine:
    """A machine whose store is a file beside its work."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    return Machine(tmp_path / "work", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture(scope="module")
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


def complete(store: Store, expected: Undisturbed) -> None:
    """The experiment holds one comparison, in nothing different from an undisturbed one, and nothing that goes on."""
    (parent,) = store.parents()
    assert {run.info.status for run in store.runs()} == {"FINISHED"}
    assert not differences(expected.content, store.content(parent))


# ------------------------------------------------------------------------------------------------------- killed trainer


class Attempts:
    """A comparison whose command is killed at random moments and given again until it is through."""

    def __init__(self, machine: Machine, store: Store, arguments: tuple[str, ...], duration: float) -> None:
        self.machine, self.store, self.arguments, self.duration = machine, store, arguments, duration
        self.moments: list[float] = []
        self.redone: list[tuple[int, float]] = []
        self.recovered: list[float] = []
        self._ended: dict[str, int] = {}
        self._parents: set[str] = set()
        self._open: set[str] = set()

    def __str__(self) -> str:
        moments, recovered = ([f"{value:.1f}" for value in values] for values in (self.moments, self.recovered))
        redone = [f"{epochs} in {seconds:.2f} s" for epochs, seconds in self.redone]
        return (
            f"{len(moments)} kills survived, after {', '.join(moments)} s; epochs redone: {', '.join(redone)}; "
            f"seconds from the command to its next epoch: {', '.join(recovered)}"
        )

    def go(self, draw: random.Random, most: int) -> None:
        """Kills at moments over the command's whole duration, at most so many times, until one attempt comes through.

        What is finished stays as it is, and what was on record of an interrupted training is not trained again.
        """
        while True:
            command = self.machine.start(*self.arguments)
            moment = draw.uniform(0, self.duration)
            if len(self.moments) == most or command.ends_within(moment):
                done = command.done()
                assert done.code == 0, done.out
                self._look(command)
                return
            command.kill()
            self.moments.append(moment)
            self._look(command)
            if [parent.info.status for parent in self.store.parents()] == ["FINISHED"]:
                return  # It was through and had only to leave: given again, it would be another comparison.

    def _look(self, command: Command) -> None:
        runs = {run.info.run_id: run for run in self.store.runs()}
        self._parents |= {run.info.run_id for run in self.store.parents()}
        assert len(self._parents) <= 1, "the command given again began another comparison"
        for run_id, end in self._ended.items():
            assert run_id in runs, "a finished run is gone"
            assert runs[run_id].info.end_time == end, "a finished run was touched"
        for run_id, run in runs.items():
            if run.info.status == "FINISHED":
                self._ended[run_id] = run.info.end_time
        for run_id in self._open:
            self._look_at_resumed(runs[run_id], command)
        trainings = [r for r in runs.values() if r.data.tags.get("mlplab.kind") == "training"]
        self._open = {run.info.run_id for run in trainings if run.info.status != "FINISHED"}

    def _look_at_resumed(self, run, command: Command) -> None:
        after = self.store.history(run.info.run_id, "loss")
        new = [when for _, when, _ in after if when > command.started * 1_000]
        if new:
            self.recovered.append(min(new) / 1_000 - command.started)
        if run.info.status != "FINISHED" or run.info.end_time < command.started * 1_000:
            return  # Where it was gone on with is said in the end; and one that was over had only to be delivered.
        # A point on record is never written again, so that its time is that of its first training.
        times = [when / 1_000 for _, when, _ in after if when / 1_000 < command.started]
        said = re.fullmatch(r"epoch (\d+)", run.data.tags.get("mlplab.resumed_at", ""))
        again = times[max(0, (int(said[1]) if said else 0) - 1) :]
        # What lies between two commands was no training.
        seconds = sum(b - a for a, b in itertools.pairwise(again) if b - a < 3)
        self.redone.append((len(again) - bool(said), seconds))
        assert len(again) <= 2 or seconds <= 1, f"{run.info.run_name}: {len(again)} of {len(times)} trained again"


@pytest.mark.long
@pytest.mark.parametrize(
    ("spec", "place", "kills"),
    [(FIVE, "sqlite", 10), (FIVE, "server", 6), (SEEDS, "sqlite", 4)],
    ids=["sqlite", "server", "seeds"],
)
def test_a_comparison_killed_at_any_moment_is_finished_by_the_same_command(
    spec, place, kills, undisturbed, local, shared_server
):
    """After kill -9 at random moments the same command leaves, to the bit, what an undisturbed one leaves, once."""
    draw = random.Random(f"{SEED} {place} {kills}")
    expected = undisturbed(spec)
    every: list[Attempts] = []
    while (left := kills - sum(len(each.moments) for each in every)) > 0:
        experiment = f"killed {place} {kills} {len(every)}"
        uri = local.uri if place == "sqlite" else shared_server.uri
        machine = Machine(local.folder, uri, experiment)
        store = Store(uri, experiment)
        attempts = Attempts(machine, store, machine.spec("spec", spec), expected.seconds)
        every.append(attempts)
        attempts.go(draw, left)
        complete(store, expected)
        print(f"\n{place}, seed {SEED}, command of {expected.seconds:.0f} s: {attempts}")


# ----------------------------------------------------------------------------------------------------------- interrupts


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_an_interrupt_leaves_every_run_ended_and_every_epoch_on_record(number, code, undisturbed, local):
    """Within 10 s of SIGTERM or Ctrl-C every run is ended, with every epoch shown, and the same command goes on."""
    expected = undisturbed(FIVE)
    store = Store(local.uri)
    arguments = local.spec("spec", FIVE)
    command = local.start(*arguments, terminal=True)
    command.wait_until(lambda: store.epochs("momentum") >= 10)
    command.send(number)
    sent = time.monotonic()
    assert command.ends_within(10), command.said
    seconds = time.monotonic() - sent
    assert command.process.returncode == code, command.said
    assert {run.info.run_name: run.info.status for run in store.runs()} == {
        "spec": "KILLED",
        "SGD": "FINISHED",
        "momentum": "KILLED",
    }
    shown = int(re.findall(r"momentum\s+(\d+)/60", command.said)[-1])
    (interrupted,) = [run for run in store.runs() if run.info.run_name == "momentum"]
    assert [step for step, *_ in store.history(interrupted.info.run_id, "loss")] == list(range(1, shown + 1))
    done = local.run(*arguments)
    assert done.code == 0, done.out
    complete(store, expected)
    print(f"\n{signal.Signals(number).name}: ended {seconds:.1f} s after it, {shown} epochs shown and found")


# ---------------------------------------------------------------------------------------------------------- dead server


@pytest.mark.long
def test_a_server_killed_and_back_is_not_noticed_in_the_end(undisturbed, server, tmp_path):
    """A tracking server dead for 20 s in the middle of a training costs nothing: exit 0, every point once, in order."""
    server.start()
    machine, store = Machine(tmp_path / "work", server.uri), Store(server.uri)
    command = machine.start(*machine.spec("spec", FIVE))
    command.wait_until(lambda: store.epochs("momentum") >= 5)
    server.kill()
    time.sleep(20)
    server.start()
    done = command.done()
    assert done.code == 0, done.out
    assert "does not answer" in done.out
    complete(store, undisturbed(FIVE))


@pytest.mark.long
@pytest.mark.parametrize("when", ["in the middle", "at the start"])
def test_what_a_dead_server_did_not_take_is_delivered_by_sync(when, undisturbed, server, tmp_path):
    """With the server down to the end all is trained, exit 4 names the remedy, and `sync` delivers the whole of it."""
    machine, store = Machine(tmp_path / "work", server.uri), Store(server.uri)
    if when == "in the middle":
        server.start()
    command = machine.start(*machine.spec("spec", TWO))
    if when == "in the middle":
        command.wait_until(lambda: store.epochs("Adam") >= 5)
        server.kill()
    done = command.done()
    assert done.code == 4, done.out
    assert "python -m mlplab sync" in done.out
    assert "does not answer" in done.out
    still_dead = machine.run("sync")
    assert still_dead.code == 4, still_dead.out
    server.start()
    if when == "in the middle":
        assert "FINISHED" not in {run.info.status for run in store.parents()}
    synced = machine.run("sync")
    assert synced.code == 0, synced.out
    complete(store, undisturbed(TWO))
    again = machine.run("sync")
    assert again.code == 0, again.out
    complete(store, undisturbed(TWO))
    print(f"\ndown {when}: command {done.seconds:.0f} s, sync {synced.seconds:.0f} s")


@pytest.mark.long
def test_who_does_not_want_to_wait_for_a_dead_server_loses_nothing(server, tmp_path):
    """Ctrl-C while the command waits for the server at its end is exit 130, and `sync` delivers the whole."""
    machine = Machine(tmp_path / "work", server.uri)
    command = machine.start(*machine.spec("spec", SMALL), terminal=True)
    command.wait_until(lambda: re.search(r"^spec: [\d.]+ s", command.said, re.MULTILINE))
    time.sleep(3)
    command.send(signal.SIGINT)
    assert command.done(15).code == 130, command.said
    server.start()
    synced = machine.run("sync")
    assert synced.code == 0, synced.out
    trained_once(Store(server.uri))


def test_with_nothing_waiting_sync_has_nothing_to_do(local):
    """`sync` with nothing on disk is done, and makes no run."""
    done = local.run("sync")
    assert done.code == 0, done.out
    assert Store(local.uri).runs() == []


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


@pytest.mark.long
def test_no_answer_lost_on_the_way_makes_anything_twice(shared_server, tmp_path):
    """When the reply to the first request of every kind is lost, each was done once, and all is there."""
    with Proxy(shared_server.port) as proxy:
        swallowed = proxy.spoil_first()
        machine = Machine(tmp_path / "work", proxy.uri, "every answer")
        done = machine.run(*machine.spec("spec", SMALL))
        assert done.code == 0, done.out
    assert any("runs/create" in kind for kind in swallowed)
    assert any("runs/log-batch" in kind for kind in swallowed)
    trained_once(Store(shared_server.uri, "every answer"))
    print(f"\nanswers swallowed: {', '.join(swallowed)}")


@pytest.mark.long
def test_a_creation_that_comes_late_makes_nothing_twice(shared_server, tmp_path):
    """A request to create a run that the server does after it was given up and sent again leaves no second run."""
    with Proxy(shared_server.port) as proxy:
        spoilt = proxy.spoil_first("runs/create", fault=Fault(late=4.0))
        machine = Machine(tmp_path / "work", proxy.uri, "late")
        done = machine.run(*machine.spec("spec", SMALL))
        assert done.code == 0, done.out
        assert len(spoilt) == 1
    trained_once(Store(shared_server.uri, "late"))


@pytest.mark.long
def test_a_lost_answer_makes_no_second_version(shared_server, tmp_path):
    """When the reply to the creation of a version is lost, there is one version, and the alias points to it."""
    with Proxy(shared_server.port) as proxy:
        machine = Machine(tmp_path / "work", proxy.uri, "lost version")
        trained = machine.run(*machine.spec("spec", SMALL))
        assert trained.code == 0, trained.out
        (parent,) = (store := Store(shared_server.uri, "lost version")).parents()
        (child,) = store.trainings(parent).values()
        swallowed = proxy.spoil_first("model-versions/create")
        register = ("register", "--dataset", "digits", "--name", "lost", "--run-id", child.info.run_id)
        done = machine.run(*register)
        assert done.code == 0, done.out
        assert len(swallowed) == 1
    versions = store.client.search_model_versions("name = 'lost'")
    assert [int(version.version) for version in versions] == [1]
    assert int(store.client.get_registered_model("lost").aliases["champion"]) == 1


@pytest.mark.long
def test_a_slow_and_faulty_server_does_not_slow_the_training(shared_server, tmp_path):
    """With 2 s added to each call and 5 % of them failing nothing is missing, and no epoch waits for an answer."""
    draw, lock = random.Random(SEED), threading.Lock()
    delay, turns = 2.0, 3

    def spoilt(method: str, path: str) -> Fault:
        with lock:
            failing = draw.random() < 0.05
            status = draw.choice([500, 503])
        return Fault(delay=delay, status=status if failing else None)

    seconds: dict[str, list[float]] = {"well": [], "badly": []}
    phases: dict[str, list[float]] = {"well": [], "badly": []}
    contents, spoilt_calls = [], 0
    with Proxy(shared_server.port) as proxy:
        for turn in range(turns):
            for state in ("well", "badly"):
                delay = 2.0
                proxy.fault = spoilt if state == "badly" else lambda method, path: PASS
                proxy.seen.clear()
                experiment = f"answers {state} {turn}"
                machine = Machine(tmp_path / "work", proxy.uri, experiment)
                command = machine.start(*machine.spec("spec", TWO))
                command.wait_until(lambda command=command: "Adam: finished" in command.said, 200)
                if turn < turns - 1:
                    delay = 0.0  # The last turn is slow to its end.
                done = command.done(500)
                assert done.code == 0, done.out
                store = Store(shared_server.uri, experiment)
                (parent,) = store.parents()
                contents.append(store.content(parent))
                trained = [store.history(run.info.run_id, "train_seconds") for run in store.trainings(parent).values()]
                times = [when for points in trained for _, when, _ in points]
                seconds[state].append(sum(points[-1][2] for points in trained))
                phases[state].append((max(times) - min(times)) / 1_000)
                spoilt_calls += sum(seen.fault.status is not None for seen in proxy.seen)
                calls = len(proxy.seen)
    for content in contents[1:]:
        assert not differences(contents[0], content)
    grown = {
        name: statistics.median(found["badly"]) / statistics.median(found["well"]) - 1
        for name, found in (("training", seconds), ("phase", phases))
    }
    print(
        f"\nseed {SEED}: training {seconds}, {grown['training']:+.1%}; first to last epoch {phases}, "
        f"{grown['phase']:+.1%}; {spoilt_calls} calls failed, {calls} calls in the last turn, which took "
        f"{done.seconds:.0f} s"
    )
    assert spoilt_calls
    # How much slower is printed, since machines are noisy. Were an answer, 2 s, waited for at each epoch, it would be
    # fifty times.
    assert statistics.median(phases["badly"]) < 2 * statistics.median(phases["well"]) + 2


# ------------------------------------------------------------------------------------------------------- many at a time


def each_complete(store: Store, many: int) -> None:
    """The experiment is the only one with runs, and holds so many complete comparisons of one training each."""
    named = [e for e in store.client.search_experiments() if e.name == store.experiment]
    assert len(named) == 1
    assert not store.client.search_runs(["0"])
    runs = store.runs()
    parents = store.parents()
    assert len(parents) == many
    assert len(runs) == 2 * many
    assert {run.info.status for run in runs} == {"FINISHED"}
    contents = [store.content(parent) for parent in parents]
    for parent, content in zip(parents, contents, strict=True):
        assert not differences(contents[0], content)
        (child,) = store.trainings(parent).values()
        assert parent.data.tags["winner.run_id"] == child.info.run_id
    assert contents[0]["/spec/RMSprop"]["models"] == 1


def at_once(machines: list[Machine], seconds: float = 500) -> None:
    """Every machine trains SMALL, all at the same time, and comes through."""
    commands = [machine.start(*machine.spec("spec", SMALL)) for machine in machines]
    done = [command.done(seconds) for command in commands]
    for one in done:
        assert one.code == 0, one.out
        assert "database is locked" not in one.out
    print(f"\n{len(done)} commands at once: {min(d.seconds for d in done):.0f} to {max(d.seconds for d in done):.0f} s")


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


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "server", "postgresql"])
def test_sixteen_may_start_at_once(kind, tmp_path):
    """16 commands on an empty store make one experiment of the new name and 16 complete comparisons in it."""
    with fresh_store(kind, tmp_path) as uri:
        at_once([Machine(tmp_path / f"work {number}", uri, "new") for number in range(16)])
        each_complete(Store(uri, "new"), 16)


@pytest.mark.long
def test_the_same_command_may_be_given_sixteen_times_at_once(tmp_path):
    """16 times the same command with the same state on disk are 16 complete comparisons, never a mixture."""
    with fresh_store("sqlite", tmp_path) as uri:
        at_once([Machine(tmp_path / "work", uri, "new")] * 16)
        each_complete(Store(uri, "new"), 16)


@pytest.mark.long
@pytest.mark.parametrize("state", ["shared", "separate"])
def test_two_may_run_the_same_comparison_at_once(state, undisturbed, local):
    """Two people who run the same comparison at the same time get a complete one each."""
    other = local if state == "shared" else Machine(local.folder.parent / "other", local.uri)
    commands = [machine.start(*machine.spec("spec", TWO)) for machine in (local, other)]
    for command in commands:
        done = command.done()
        assert done.code == 0, done.out
    store = Store(local.uri)
    parents = store.parents()
    assert len(parents) == 2
    assert {run.info.status for run in store.runs()} == {"FINISHED"}
    for parent in parents:
        assert not differences(undisturbed(TWO).content, store.content(parent))


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


@pytest.mark.long
@pytest.mark.parametrize("broken", [full_disk, file_in_the_way])
def test_a_model_that_does_not_fit_on_the_disk_is_never_served(broken, local):
    """A model cut off by a full disk is not READY, its run is FAILED, no version is made of it, the alias stays."""
    store = Store(local.uri)
    artifacts = local.folder / "artifacts"
    store.client.create_experiment("faults", artifact_location=str(artifacts))
    spec = local.spec("spec", SMALL)
    with broken(artifacts / "models") as spoil:
        first = local.run(*spec)
        assert first.code == 0, first.out
        registered = local.run("register", "--dataset", "digits", "--name", "full")
        assert registered.code == 0, registered.out
        spoil()
        second = local.run(*spec, "--epochs", "5", "--seed", "3")
        _, new = [parent for parent in store.parents() if parent.data.tags["mlplab.kind"] == "comparison"]
        (child,) = store.trainings(new).values()
        assert "FAILED" in {child.info.status, new.info.status}
        assert new.info.status == "FAILED"
        assert "READY" not in store.models().get(child.info.run_id, [])
        refused = local.run("register", "--dataset", "digits", "--name", "full", "--run-id", child.info.run_id)
        assert refused.code != 0, refused.out
        local.run("register", "--dataset", "digits", "--name", "full")
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
        done = local.run(*arguments, named, MLPLAB_DATA_DIR=str(folder))
        assert done.code == 3, done.out
        assert str(path) in done.out
    store = Store(local.uri)
    assert store.runs() == []
    assert store.client.search_runs(["0"]) == []
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in folder.iterdir()] == ["mnist.npz"]


# ---------------------------------------------------------------------------------------------------------------- reap


@pytest.mark.long
def test_reap_ends_the_runs_of_the_dead_and_no_others(local):
    """`reap` names the runs of a killed trainer and ends them as KILLED, and leaves a live trainer's runs alone."""
    store = Store(local.uri)
    dead_command, live_command = local.spec("dead", TWO), local.spec("live", TWO.replace("epochs=100", "epochs=600"))
    dead, live = local.start(*dead_command), local.start(*live_command)

    def under(name: str) -> dict[str, object]:
        parent = [run for run in store.parents() if run.info.run_name == name][-1]
        return {run.info.run_id: run for run in (parent, *store.below(parent))}

    def epochs(name: str) -> int:
        with contextlib.suppress(IndexError):
            return max((len(store.history(run_id, "loss")) for run_id in under(name)), default=0)
        return 0

    dead.wait_until(lambda: epochs("dead") >= 5 and epochs("live") >= 5)
    dead.kill()
    left = under("dead")
    reaped = local.run("reap")
    assert reaped.code == 0, reaped.out
    assert live.process.poll() is None, live.said
    for run_id, run in left.items():
        lines = [line for line in reaped.out.splitlines() if run_id in line]
        if run.info.status == "RUNNING":
            assert len(lines) == 1, reaped.out
            assert run.info.run_name in lines[0]
        else:
            assert not lines, reaped.out
    assert not [run_id for run_id in under("live") if run_id in reaped.out], reaped.out
    assert {r.info.status for r in under("dead").values()} <= {"KILLED", "FINISHED"}
    assert next(iter(under("dead").values())).info.status == "KILLED"
    assert "RUNNING" in {r.info.status for r in under("live").values()}
    live.send(signal.SIGTERM)
    assert live.done(15).code == 143
    again = local.run(*dead_command)
    assert again.code == 0, again.out
    assert {r.info.status for r in under("dead").values()} == {"FINISHED"}
    assert set(left) <= set(under("dead"))


# ----------------------------------------------------------------------------------------------------------- the proxy


def asked(proxy: Proxy, method: str = "GET", path: str = "/health", **options):
    """What requests gets through a proxy: the status, or the name of the error."""
    import requests

    try:
        answer = requests.request(method, proxy.uri + path, timeout=20, **options)
    except requests.RequestException as error:
        return type(error).__name__
    return answer.status_code


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
