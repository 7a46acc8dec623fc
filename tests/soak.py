"""Comparisons for an hour while everything around them breaks, each held against an undisturbed twin.

Usage: make soak [SECONDS=3600] [SEED=7] [KINDS=kill,disk]
   or: python tests/soak.py [--seconds N] [--seed N] [--kinds KIND,KIND]

Two lanes give real commands, `python -m mlplab compare …`, one comparison after the other: one lane to a tracking
server behind a proxy, the other to a file of SQLite. Each minute one fault of each kind (`KINDS`) strikes, at a moment
and in a lane that are drawn from the seed. What was struck is given again until the store has the comparison; then
`mlplab sync` has nothing left to deliver, and what the store has is held against the twin: each metric point once and
with its value, each run once and FINISHED, params, tags, artifacts, models, and every weight to the bit.

A line a minute and a table at the end. Exit code 1 where anything is lost, doubled or different, or a comparison never
came to its end; what is said then has the folder with stores, states and logs, which stays. The schedule is the seed's,
what a fault meets is not: the same seed strikes at the same moments, and the machine may be elsewhere by then.
"""

import argparse
import contextlib
import hashlib
import http.client
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import h5py  # type: ignore[import-untyped]
from conftest import plain_name
from faults import PASS, SWALLOW, TIMED, Command, Fault, Machine, Proxy, Server, Store, differences

KINDS = {
    "kill": "a command, all that it started with it",
    "interrupt": "Ctrl-C for a command",
    "server": "the tracking server killed, and started again some seconds later",
    "answers": "for some seconds answers lost, requests cut off, done late, or refused with 503",
    "disk": "for some seconds no room where commands keep their state",
    "sync": "`mlplab sync` at that moment, beside whatever runs",
    "twice": "the same command once more, at the same time",
}
"""What strikes, one of each a minute."""

GIVEN = 60
"""How often a comparison's command is given before that counts as never coming to its end: on a busy machine a command
takes minutes, and two of three are struck."""
COMMAND_SECONDS = 600.0
"""A command that takes longer hangs."""

PLAIN = '''"""Trainings whose seeds run side by side, with dropout and momentum."""

from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Which of these trains best?",
    data="digits",
    base=Training(model=call("mlp", hidden=(16,)), loss="sparse_categorical_crossentropy", metrics=["accuracy"],
                  optimizer="sgd", learning_rate=0.01, batch_size=16, epochs=40),
    variants={"Adam": {"optimizer": "adam", "model.dropout": 0.2}, "momentum": {"optimizer.momentum": 0.9}},
    seeds=2,
)
'''

OWN = '''"""A model of one's own, a schedule, a callback with a state, splits of each seed's own."""

import keras

from mlplab import Comparison, Training, call


def net(units=12):
    return keras.Sequential([keras.Input((784,)), keras.layers.Rescaling(1 / 255), keras.layers.Dense(units, "relu"),
                             keras.layers.BatchNormalization(), keras.layers.Dense(10, "softmax")])


DECAYED = call("keras.optimizers.schedules.ExponentialDecay", initial_learning_rate=0.05, decay_steps=40,
               decay_rate=0.98)
PATIENT = call("keras.callbacks.EarlyStopping", monitor="val_loss", patience=30, restore_best_weights=True)

COMPARISON = Comparison(
    question="Which of these trains best?",
    data="digits",
    base=Training(model=net, loss="sparse_categorical_crossentropy", metrics=["accuracy"], optimizer="rmsprop",
                  learning_rate=0.003, batch_size=32, epochs=40, splits="resampled", callbacks=[PATIENT]),
    variants={"constant": {}, "decayed": {"optimizer": "sgd", "learning_rate": DECAYED}},
    seeds=2,
)
'''

SPECS = {"plain": PLAIN, "own": OWN}


# ---------------------------------------------------------------------------------------------------------- the checker


@dataclass
class Kept:
    """What a store has of a comparison: `about` by the name of a run, without metrics, which are in `points`.

    Attributes:
        points: (run, metric, step) -> the values there, one where all is well.
        weights: run -> hashes of the arrays of the model that it kept.
        doubled: runs that are there a second time.
    """

    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)
    weights: dict[str, dict[str, str]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What comparisons with their twins came to: numbers, and a line for each thing that is not as it should be."""

    points: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    weights: int = 0
    weights_differ: int = 0
    others: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, doubled or different."""
        return not (self.lost or self.doubled or self.changed or self.weights_differ or self.others)

    def add(self, other: "Tally") -> None:
        """Adds another's."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


TAGS = ("mlplab.status", "mlplab.kind", "mlplab.variant", "batch_order", "winner", "reached", "dataset")


def read(store: Store, parent: Any) -> Kept:
    """All that a store has of a comparison and that does not differ from one execution to the next."""
    kept, every, models = Kept(), store.runs(), store.models()
    todo = [("", parent)]
    while todo:
        name, run = todo.pop()
        run_id, tags = run.info.run_id, run.data.tags
        todo += [
            (f"{name}/{plain_name(below)}", below)
            for below in every
            if below.data.tags.get("mlflow.parentRunId") == run_id
        ]
        if name in kept.about:
            kept.doubled.append(name)
            continue
        artifacts = store.artifacts(run_id)
        kept.about[name] = {
            "status": run.info.status,
            "params": run.data.params,
            "tags": {key: value for key, value in tags.items() if key in TAGS or key.startswith("weights.")},
            "artifacts": artifacts,
            "models": models.get(run_id, []).count("READY"),
            "inputs": sorted(each.dataset.digest for each in run.inputs.dataset_inputs),
        }
        for metric in run.data.metrics:
            timed = TIMED.search(metric)
            for step, _, value in store.history(run_id, metric):
                kept.points.setdefault((name, metric, step), []).append("a time" if timed else repr(value))
        if "model.keras" in artifacts:
            with tempfile.TemporaryDirectory() as folder:
                kept.weights[name] = arrays(Path(store.client.download_artifacts(run_id, "model.keras", folder)))
    return kept


def arrays(model: Path) -> dict[str, str]:
    """A hash of each array in a model that Keras has saved, its optimizer's among them."""
    found: dict[str, str] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = hashlib.sha256(item[()].tobytes()).hexdigest()

    with zipfile.ZipFile(model) as parts, h5py.File(io.BytesIO(parts.read("model.weights.h5"))) as weights:
        weights.visititems(take)
    return found


def compare(expected: Kept, found: Kept) -> Tally:
    """Counts how what was disturbed differs from its twin."""
    tally = Tally(points=len(expected.points))
    for point, values in expected.points.items():
        there = found.points.get(point, [])
        tally.lost += not there
        if not there:
            tally.lines.append(f"lost: {point}")
        elif set(there) != set(values):
            tally.changed += 1
            tally.lines.append(f"changed: {point} is {there}, and {values} in the twin")
    for point, there in found.points.items():
        # A point of a step that the twin does not have is one that should not be there, as one too many is.
        extra = len(there) - (1 if point in expected.points else 0)
        tally.doubled += extra
        if extra:
            tally.lines.append(f"doubled: {point} is there {len(there)} times, {extra} too many")
    for name in found.doubled:
        tally.doubled += 1
        tally.lines.append(f"doubled: the run {name}")
    for name, weights in expected.weights.items():
        there = found.weights.get(name, {})
        wrong = sorted(array for array in weights.keys() | there.keys() if weights.get(array) != there.get(array))
        tally.weights += len(weights)
        tally.weights_differ += len(wrong)
        tally.lines += [f"weights: {name} differs in {array}" for array in wrong]
    others = differences(expected.about, found.about)
    tally.others += len(others)
    tally.lines += others
    return tally


# ------------------------------------------------------------------------------------------------------------ the disk


class Disk:
    """A folder that can be filled up: a file system in memory where one may be mounted, else limits on files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "soak", str(folder)], capture_output=True)
        self.mounted = made.returncode == 0

    def fill(self, commands: list[Command], room: int) -> None:
        """Leaves so many bytes."""
        if not self.mounted:
            self._limit(commands, room)
            return
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(2**20))
        # What is left of the last piece, to the page, and then the room.
        with contextlib.suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        size = (self.folder / "filler").stat().st_size
        os.truncate(self.folder / "filler", max(0, size - room))

    def free(self, commands: list[Command]) -> None:
        """Makes room again."""
        if not self.mounted:
            self._limit(commands, resource.RLIM_INFINITY)
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of it, and of what is in it, where that is memory."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)

    @staticmethod
    def _limit(commands: list[Command], size: int) -> None:
        for command in commands:
            with contextlib.suppress(OSError):
                hard = resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE)[1]
                resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (size, hard))


# ------------------------------------------------------------------------------------------------------------ the lanes


class Lane:
    """Gives the commands of one comparison after the other, and checks what each has left."""

    def __init__(self, name: str, folder: Path, uri: str, record: str, twins: dict[str, Kept], soak: "Soak") -> None:
        folder.mkdir()
        self.name, self.folder, self.uri, self.record, self.twins, self.soak = name, folder, uri, record, twins, soak
        self.disk = Disk(folder / "state")
        self.lock = threading.Lock()
        self.running: list[Command] = []
        self.machine: Machine | None = None
        self.wanted, self.disk_struck = 0, False
        self.number = 0

    def go(self) -> None:
        """Comparisons until the time is over."""
        try:
            while not self.soak.over:
                self.one(list(SPECS)[self.number % len(SPECS)])
        except BaseException:
            self.soak.failed(f"{self.name}: {traceback.format_exc()}")

    def one(self, spec: str) -> None:
        """A comparison, until the store has it; then it is checked."""
        self.number += 1
        experiment = f"{self.name} {self.number}"
        machine = Machine(self.folder / f"{self.number}", self.uri, experiment, self.disk.folder)
        arguments = machine.spec("spec", SPECS[spec])
        with self.lock:
            self.machine, self.wanted, self.disk_struck = machine, 1, False
        given = 0
        while (missing := self.wanted - self.finished()) > 0:
            if given >= GIVEN:
                self.soak.failed(f"{experiment}: not finished after its command was given {given} times")
                break
            with self.lock:
                for _ in range(missing - len(self.running)):
                    self.running.append(machine.start(*arguments))
                    given += 1
            command = self.running[0]
            if not command.ends_within(COMMAND_SECONDS):
                self.soak.failed(f"{experiment}: a command hangs:\n{command.said[-3000:]}")
                command.kill()
            with self.lock:
                self.running.remove(command)
            code = command.process.returncode
            self.soak.ended(code, f"{experiment}: exit {code}\n{command.said[-3000:]}")
            if code not in (0, 130, -signal.SIGKILL):
                time.sleep(2.0)  # as a person would wait before trying again
                self.sync()
        with self.lock:
            left, self.machine, self.running = self.running, None, []
        for command in left:
            command.done(COMMAND_SECONDS)
        for _ in range(10):
            if "Nothing waits" in self.sync(machine):
                break
            time.sleep(2.0)
        else:
            self.soak.failed(f"{experiment}: something still waits after ten times `mlplab sync`")
        machine.run("reap", **self.soak.steady(self.uri))
        self.check(spec, experiment)

    def sync(self, machine: Machine | None = None) -> str:
        """What `mlplab sync` says; it is no fault here, but what a person does."""
        machine = machine or self.machine
        assert machine is not None
        done = machine.run("sync")
        self.soak.ended(done.code, f"sync: exit {done.code}\n{done.out[-3000:]}")
        return done.out

    def finished(self) -> int:
        """How many comparisons the store has whole; read past the server, which may be away."""
        assert self.machine is not None
        for _ in range(20):
            with contextlib.suppress(Exception):  # a database that is locked
                store = Store(self.record, self.machine.experiment)
                return [run.info.status for run in store.parents()].count("FINISHED")
            time.sleep(0.5)
        raise AssertionError(f"{self.record} cannot be read")

    def check(self, spec: str, experiment: str) -> None:
        """Holds what is on record against the twin."""
        with self.soak.server_up():
            store = Store(self.uri if self.uri == self.record else self.soak.server.uri, experiment)
            parents = store.parents()
            whole = [run for run in parents if run.info.status == "FINISHED"]
            tally = Tally()
            for parent in whole:
                tally.add(compare(self.twins[spec], read(store, parent)))
            if len(whole) != self.wanted:
                tally.others += 1
                tally.lines.append(f"{len(whole)} comparisons are on record whole, and {self.wanted} were wanted")
            # What a full disk did not take is lost, and the command says so; given again it begins anew.
            anew = [run for run in parents if run.info.status != "FINISHED"]
            if anew and not self.disk_struck:
                tally.others += 1
                tally.lines.append(
                    f"{len(anew)} comparisons were begun and never gone on with, though the disk had room"
                )
            going = [run.info.run_name for run in store.runs() if run.info.status == "RUNNING"]
            tally.others += len(going)
            tally.lines += [f"still RUNNING: {name}" for name in going]
        tally.lines = [f"{experiment} ({spec}): {line}" for line in tally.lines]
        self.soak.checked(tally, len(whole), len(anew))


# ------------------------------------------------------------------------------------------------------------- the soak


class Soak:
    """The lanes, what strikes them, and the count of it."""

    def __init__(self, folder: Path, seconds: float, seed: int, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
        self.folder, self.seconds, self.seed, self.kinds = folder, seconds, seed, kinds
        self.began = time.monotonic()
        self.over = False
        self.tally, self.comparisons, self.anew = Tally(), 0, 0
        self.struck: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        self.errors: list[str] = []
        self.server = Server(folder / "server")
        self.proxy = Proxy(self.server.port)
        self._server_lock = threading.RLock()
        self._lock = threading.Lock()
        self.lanes: list[Lane] = []

    # ------------------------------------------------------------------------------------------------------ its account

    def failed(self, line: str) -> None:
        """Notes what should not have been."""
        with self._lock:
            self.errors.append(line)
        print(f"FAILED {line}", flush=True)

    def ended(self, code: int, said: str) -> None:
        """Notes how a command ended; what it said, where that is rare."""
        with self._lock:
            self.codes[code] += 1
            if code not in (0, 130, -signal.SIGKILL):
                with (self.folder / "ends.log").open("a") as log:
                    log.write(f"---- {time.monotonic() - self.began:.0f} s: {said}\n")

    def checked(self, tally: Tally, comparisons: int, anew: int) -> None:
        """Adds what a check came to."""
        with self._lock:
            self.tally.add(tally)
            self.comparisons += comparisons
            self.anew += anew
        for line in tally.lines[:20]:
            print(f"DIFFERS {line}", flush=True)

    def line(self) -> str:
        """How far it is."""
        minutes, tally = (time.monotonic() - self.began) / 60, self.tally
        struck = ", ".join(f"{kind} {self.struck[kind]}" for kind in self.kinds)
        return (
            f"{minutes:5.1f} min: {self.comparisons} comparisons, {tally.points:,} points, {tally.lost} lost, "
            f"{tally.doubled} doubled, {tally.weights_differ} of {tally.weights} arrays differ | {struck}"
        )

    def table(self) -> str:
        """What came of it, for a note."""
        tally = self.tally
        rows = [(f"fault: {kind} ({KINDS[kind]})", f"{self.struck[kind]}") for kind in self.kinds]
        rows += [
            ("comparisons held against their twins", f"{self.comparisons}"),
            ("begun anew after a full disk", f"{self.anew}"),
            ("commands by exit code", ", ".join(f"{code}: {n}" for code, n in sorted(self.codes.items()))),
            ("metric points compared", f"{tally.points:,}"),
            ("points lost", f"{tally.lost}"),
            ("points or runs doubled", f"{tally.doubled}"),
            ("points with another value", f"{tally.changed}"),
            ("arrays of weights compared", f"{tally.weights:,}"),
            ("arrays that differ", f"{tally.weights_differ}"),
            ("other differences (status, params, tags, artifacts, models)", f"{tally.others}"),
            ("comparisons that never ended, commands that hung", f"{len(self.errors)}"),
        ]
        lines = "\n".join(f"| {what} | {number} |" for what, number in rows)
        return f"| {(time.monotonic() - self.began) / 60:.0f} minutes, seed {self.seed} | |\n| --- | ---: |\n{lines}"

    # ------------------------------------------------------------------------------------------------------- its faults

    @contextlib.contextmanager
    def server_up(self) -> Iterator[None]:
        """Within the block the server stays."""
        with self._server_lock:
            yield

    def steady(self, uri: str) -> dict[str, str]:
        """The environment of a command that asks the server past the proxy."""
        return {"MLFLOW_TRACKING_URI": self.server.uri if uri == self.proxy.uri else uri}

    def strike(self, kind: str, lane: Lane, rng: random.Random) -> bool:
        """Does what a kind of fault is; whether there was something to strike."""
        if kind == "server":
            with self._server_lock:
                self.server.kill()
                time.sleep(rng.uniform(1.0, 10.0))
                self.server.start()
            return True
        if kind == "answers":
            self._spoil(rng)
            return True
        with lane.lock:
            commands, machine = list(lane.running), lane.machine
            if not commands or machine is None:
                return False
            command = rng.choice(commands)
            if kind == "kill":
                command.kill()
            elif kind == "interrupt":
                command.send(signal.SIGINT)
            elif kind == "twice":
                if lane.wanted > 1:
                    return False
                lane.wanted += 1
                lane.running.append(machine.start(*machine.spec("spec", (machine.folder / "spec.py").read_text())))
            elif kind == "disk":
                lane.disk_struck = True
                lane.disk.fill(commands, rng.choice((0, 4096, 65_536, 400_000)))
        if kind == "disk":
            time.sleep(rng.uniform(1.0, 6.0))
            with lane.lock:
                lane.disk.free(lane.running)
        if kind == "sync":
            done = machine.run("sync")
            self.ended(done.code, f"sync beside: exit {done.code}\n{done.out[-3000:]}")
        return True

    def _spoil(self, rng: random.Random) -> None:
        faults = (SWALLOW, SWALLOW, Fault(cut=True), Fault(late=rng.uniform(0.5, 5.0)), Fault(status=503))
        own = random.Random(rng.random())

        def fault(method: str, path: str) -> Fault:
            return own.choice(faults) if own.random() < 0.4 else PASS

        self.proxy.fault = fault
        time.sleep(rng.uniform(3.0, 12.0))
        self.proxy.fault = lambda method, path: PASS

    def chaos(self, kind: str) -> None:
        """Strikes once a minute, at a moment of it that the seed decides."""
        rng = random.Random(f"{self.seed} {kind}")
        minute = 0
        while not self.over:
            at = self.began + 60 * minute + rng.uniform(0, 60)
            lane = rng.choice(self.lanes)
            while not self.over and time.monotonic() < at:
                time.sleep(0.2)
            if self.over:
                break
            # Between two commands there is nothing to strike; it waits for the next one, at most to the minute's end.
            while not self.over and time.monotonic() < self.began + 60 * (minute + 1):
                if self.strike(kind, lane, rng):
                    self.struck[kind] += 1
                    break
                time.sleep(0.5)
            minute += 1

    # -------------------------------------------------------------------------------------------------------- all of it

    def run(self) -> int:
        """Everything; 1 where something is not as in the twin."""
        with contextlib.ExitStack() as stack:
            empty = self.folder / "empty.db"
            Store(f"sqlite:///{empty}").runs()
            shutil.copy(empty, self.server.folder / "mlflow.db")
            shutil.copy(empty, self.folder / "own.db")
            stack.callback(self.server.kill)
            twins = self.twins(empty)
            self.server.start()
            stack.enter_context(self.proxy)
            own, behind = f"sqlite:///{self.folder}/own.db", f"sqlite:///{self.server.folder}/mlflow.db"
            self.lanes = [
                Lane("served", self.folder / "served", self.proxy.uri, behind, twins, self),
                Lane("file", self.folder / "file", own, own, twins, self),
            ]
            for lane in self.lanes:
                stack.callback(lane.disk.close)
            self.began = time.monotonic()
            stack.callback(self.kill)
            lanes = [threading.Thread(target=lane.go, daemon=True) for lane in self.lanes]
            strikes = [threading.Thread(target=self._guarded, args=(kind,), daemon=True) for kind in self.kinds]
            for thread in [*lanes, *strikes]:
                thread.start()
            said = 0
            while any(lane.is_alive() for lane in lanes):
                time.sleep(0.5)
                self.over = self.over or time.monotonic() - self.began > self.seconds
                if time.monotonic() - self.began > 60 * (said + 1):
                    said += 1
                    print(self.line(), flush=True)
            for thread in [*lanes, *strikes]:
                thread.join()
        print(self.table(), flush=True)
        clean = self.tally.clean and not self.errors and self.comparisons > 0
        if not clean:
            print(f"Stores, states and logs stay in {self.folder}.")
            again = f"SECONDS={self.seconds:g} SEED={self.seed} KINDS={','.join(self.kinds)}"
            print(f"Again: make soak {again}", flush=True)
        return 0 if clean else 1

    def kill(self) -> None:
        """Ends what is running, where the soak itself is ended; else there is nothing."""
        for lane in self.lanes:
            for command in lane.running:
                command.kill()

    def _guarded(self, kind: str) -> None:
        try:
            self.chaos(kind)
        except BaseException:
            self.failed(f"what makes the faults '{kind}': {traceback.format_exc()}")

    def twins(self, empty: Path) -> dict[str, Kept]:
        """What each spec leaves undisturbed."""
        found = {}
        for name, spec in SPECS.items():
            folder = self.folder / f"twin {name}"
            folder.mkdir()
            shutil.copy(empty, folder / "mlflow.db")
            machine = Machine(folder / "work", f"sqlite:///{folder}/mlflow.db", "twin")
            done = machine.run(*machine.spec("spec", spec))
            assert done.code == 0, done.out
            store = Store(machine.uri, "twin")
            (parent,) = store.parents()
            found[name] = read(store, parent)
            print(f"Twin of {name}: {len(found[name].points):,} points, {done.seconds:.0f} s.", flush=True)
        return found


def main() -> int:
    """Reads the options, and soaks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=None, help="of the faults (default: another each time)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of faults, to see which is to blame (default: all)")
    options = parser.parse_args()
    kinds = tuple(options.kinds.split(","))
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kind {', '.join(sorted(unknown))}; legal: {', '.join(KINDS)}")
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="mlplab-soak-"))
    print(f"Seed {seed}, {options.seconds:g} s, in {folder}.", flush=True)
    said = threading.excepthook

    def said_of_others(ended: Any) -> None:
        # What the proxy does late meets a server that is gone, as it is to.
        if not issubclass(ended.exc_type, OSError | http.client.HTTPException):
            said(ended)

    threading.excepthook = said_of_others
    code = Soak(folder, options.seconds, seed, kinds).run()
    if code == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
