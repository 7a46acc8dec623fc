"""More workers: what two give over one, what the scheduler takes for a task, what the tracking server can take.

Usage: python benchmarks/scaling.py [trainings] [tasks] [tracking] [crowd] [plan]
                                    [--repetitions N] [--tracking-workers N ...] [--crowd N]

`trainings`: MLP 784-128-64-10, RMSprop 0.001 and SGD 0.01 in turns, batch size 32, 3 epochs, validated, the training
images evaluated each epoch, as in a comparison; eight of them on Dask's workers of this machine, one process a core.
`cold`: new processes and no compiled programs; `warm`: the same processes again. Each turn has one worker and two,
seconds are the medians. Data: MNIST as mlplab finds it, else the digits in its place, which the output then says.

`tasks`: empty tasks, by the thousand, on two workers.

`tracking`: what PostgreSQL behind MLflow's server, with accounts, takes in a second, as docker-compose.yml starts them,
from eight clients that wait for each answer: one epoch of one training (8 points), a whole one of 50 epochs (400
points), and the creation of a run; and directly, past the server. Server, database and clients share this machine.

`crowd`: 100 of Dask's workers (or as `--crowd` says), in four processes, whose trainings learn nothing: each records 50
epochs in a minute, by the same ways as a real one (run, params, points, small artifacts, what it tells of each epoch,
weights that go back). What scheduler, asker, workers, server and database compute for a training, in seconds of a core,
which does not depend on what else the machine does, and so how many workers fill a core of each.

`plan`: 100 workers, simulated from what was measured, or from the figures in docs/scaling.md.
"""

import argparse
import base64
import contextlib
import heapq
import http.client
import itertools
import json
import logging
import multiprocessing
import os
import pwd
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlplab import cluster, worker
from mlplab.checks import UnavailableError
from mlplab.data import load
from mlplab.sources import Data
from mlplab.spec import Metric, Training

TRAININGS, TASKS, CLIENTS, SECONDS = 8, 1_000, 8, 4.0
GOAL = 1.7
METRICS = 8
"""Values of an epoch: loss and accuracy, theirs in validation and on the training images, learning rate, time."""


# ---------------------------------------------------------------------------------------------------------- trainings


def train(item: tuple[worker.Reference, Training, int]) -> float:
    """One training; the seconds in which it learned."""
    from mlplab import trial
    from mlplab.results import Result

    reference, variant, seed = item
    data = reference.load()
    result = Result(variant=variant, seed=seed, steps_per_epoch=variant.steps_per_epoch(len(data.train)))
    trial.train([result], Metric("val_accuracy"), data, reference.device(), lambda result: None)
    return result.train_seconds


def trainings(repetitions: int) -> dict[str, float]:
    """Measures and prints; seconds of a training on one worker, warm and cold."""
    try:
        data = load("mnist")
    except UnavailableError:
        data = load("digits")
    rmsprop = Training(
        model="mlp",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="rmsprop",
        learning_rate=0.001,
        batch_size=32,
        epochs=3,
    )
    variants = [rmsprop, rmsprop.but(optimizer="sgd", learning_rate=0.01)]
    items = [(worker.Reference.to(Data.of(data.name), data), variants[n % 2], n // 2) for n in range(TRAININGS)]
    seconds: dict[tuple[str, int], list[float]] = {(kind, count): [] for kind in ("cold", "warm") for count in (1, 2)}
    for _ in range(repetitions):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                flags = {"directory": folder, "device_types": "CPU,XLA_CPU_JIT"}
                os.environ["TF_XLA_FLAGS"] = " ".join(f"--tf_xla_persistent_cache_{k}={v}" for k, v in flags.items())
                with cluster.workers(f"local:{count}") as workers:
                    for kind in ("cold", "warm"):
                        started = time.perf_counter()
                        for _, outcome in workers.map(train, items):
                            outcome.get()
                        seconds[kind, count].append(time.perf_counter() - started)
                        print(f"{count} worker(s), {kind}: {seconds[kind, count][-1]:.1f} s", flush=True)
    print(f"\n{TRAININGS} trainings on {data.label}, medians of {repetitions} turns, start of the processes apart.\n")
    print("| | 1 worker (s) | 2 workers (s) | ratio | goal | |\n|---|---:|---:|---:|---:|---|")
    for kind in ("cold", "warm"):
        one, two = (statistics.median(seconds[kind, count]) for count in (1, 2))
        goal = f"≥ {GOAL}" if kind == "warm" else ""
        verdict = ("pass" if one / two >= GOAL else "FAIL") if goal else ""
        print(f"| {kind} | {one:.1f} | {two:.1f} | {one / two:.2f} | {goal} | {verdict} |", flush=True)
    warm, cold = (statistics.median(seconds[kind, 1]) for kind in ("warm", "cold"))
    return {"training": warm / TRAININGS, "start": cold - warm}


def nothing(item: int) -> int:
    """An empty task."""
    return item


def tasks(repetitions: int) -> dict[str, float]:
    """Measures and prints; seconds of scheduler and client for a task."""
    seconds = []
    with cluster.workers("local:2") as workers:
        list(workers.map(nothing, range(100)))
        for _ in range(repetitions):
            started = time.perf_counter()
            list(workers.map(nothing, range(TASKS)))
            seconds.append((time.perf_counter() - started) / TASKS)
    middle = statistics.median(seconds)
    print(
        f"\n{1000 * middle:.1f} ms a task: medians of {repetitions} times {TASKS:,} empty tasks on 2 workers.",
        flush=True,
    )
    return {"task": middle}


# ------------------------------------------------------------------------------------------------------------ tracking


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def program(name: str) -> str:
    """One of PostgreSQL's programs, which Debian keeps off the search path."""
    found = shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), "")
    return found or sys.exit(f"PostgreSQL's {name} is not installed")


@contextlib.contextmanager
def postgresql(password: str) -> Iterator[tuple[dict[str, str], int]]:
    """A new PostgreSQL that keeps what it confirms, as its image does; yields a client's variables and its process."""
    # PostgreSQL refuses to run as root; the user that its package made runs it then.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "password"
        secret.write_text(password)
        if user:
            for path in (folder, secret):
                shutil.chown(path, pwd.getpwnam("postgres").pw_uid)
        made = [program("initdb"), f"--pgdata={folder}/data", "--username=mlflow", "--auth=scram-sha-256"]
        subprocess.run([*made, f"--pwfile={secret}"], cwd=folder, check=True, capture_output=True, **user)
        port = str(free_port())
        command = [program("postgres"), "-D", f"{folder}/data", "-p", port, "-k", folder, "-h", "127.0.0.1"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(command, cwd=folder, **quiet, **user)
        client = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "mlflow", "PGPASSWORD": password}
        try:
            for _ in range(100):
                created = subprocess.run([program("createdb"), "mlflow"], env=os.environ | client, check=False, **quiet)
                if not created.returncode:
                    break
                time.sleep(0.1)
            yield client, server.pid
        finally:
            server.send_signal(signal.SIGINT)  # Without waiting for clients to leave.
            server.wait()


def points(steps: int) -> list[dict[str, Any]]:
    """What a training of so many epochs logs, as the tracking server is given it."""
    now = int(time.time() * 1000)
    return [
        {"key": f"metric_{m}", "value": secrets.randbelow(1000) / 1000, "timestamp": now + step, "step": step}
        for step in range(steps)
        for m in range(METRICS)
    ]


def rate(make: Callable[[], Callable[[], object]]) -> float:
    """How often in a second so many clients get their answer, each with what `make` gives it."""
    calls = [make() for _ in range(CLIENTS)]
    for call in calls:
        call()
    done, over = [0] * CLIENTS, time.perf_counter() + SECONDS

    def ask(n: int) -> None:
        while time.perf_counter() < over:
            calls[n]()
            done[n] += 1

    clients = [threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS)]
    started = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return sum(done) / (time.perf_counter() - started)


@dataclass
class Server:
    """A tracking server, asked over connections that stay open."""

    port: int
    password: str

    def asking(self) -> Callable[[str, dict[str, Any]], Any]:
        """A client's way to ask."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        credentials = base64.b64encode(f"admin:{self.password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}

        def ask(path: str, body: dict[str, Any]) -> Any:
            connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                sys.exit(f"{path}: {answer.status} {content[:500]!r}")
            return json.loads(content)

        return ask

    def run(self, ask: Callable[[str, dict[str, Any]], Any]) -> str:
        """Creates a run."""
        created = ask("runs/create", {"experiment_id": "0", "start_time": int(time.time() * 1000)})
        return str(created["run"]["info"]["run_id"])

    def logging(self, steps: int) -> Callable[[], Callable[[], object]]:
        """What a client does that logs so many epochs at a time to a run of its own."""

        def make() -> Callable[[], object]:
            ask = self.asking()
            run = self.run(ask)
            return lambda: ask("runs/log-batch", {"run_id": run, "metrics": points(steps)})

        return make

    def creating(self) -> Callable[[], object]:
        """What a client does that creates runs."""
        ask = self.asking()
        return lambda: self.run(ask)


def directly(steps: int) -> Callable[[], Callable[[], object]]:
    """What a client does that logs to PostgreSQL itself."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient("postgresql+psycopg2:///mlflow")

    def make() -> Callable[[], object]:
        run = client.create_run("0").info.run_id
        return lambda: client.log_batch(run, [Metric(**point) for point in points(steps)], synchronous=True)

    return make


@dataclass
class Stack:
    """PostgreSQL and, while `serving` lasts, MLflow's server with accounts before it, as the stack has them.

    Attributes:
        reached: the variables by which a client reaches the database.
        database: its process.
    """

    folder: Path
    services: dict[str, Any]
    port: int
    password: str
    reached: dict[str, str]
    database: int

    @contextlib.contextmanager
    def serving(self, workers: int) -> Iterator[tuple[Server, int]]:
        """The server, with so many workers, and its process."""
        from stack import local

        service = self.services["mlflow"]
        service["environment"] |= self.reached
        service["command"] = [
            f"--workers={workers}" if word.startswith("--workers=") else word for word in service["command"]
        ]
        with local.running(self.services, "mlflow", logs=self.folder) as processes:
            local.wait_until_healthy("mlflow", service, processes["mlflow"], 120)
            yield Server(self.port, self.password), processes["mlflow"].pid


@contextlib.contextmanager
def a_stack() -> Iterator[Stack]:
    """A new one, in a folder that is thrown away."""
    from stack import local

    names = ("POSTGRES_PASSWORD", "ADMIN_PASSWORD", "TRAINER_PASSWORD", "SERVING_PASSWORD", "FLASK_SECRET_KEY")
    with tempfile.TemporaryDirectory() as folder:
        values: dict[str, str | None] = {name: secrets.token_hex(16) for name in names}
        port, password = free_port(), str(values["ADMIN_PASSWORD"])
        values |= {"MLFLOW_PORT": str(port), "SERVING_PORT": str(free_port())}
        services = local.on_this_machine(local.compose(values), Path(folder))
        with postgresql(str(values["POSTGRES_PASSWORD"])) as (reached, database):
            yield Stack(Path(folder), services, port, password, reached, database)


def tracking(counts: list[int]) -> dict[str, float]:
    """Measures and prints; requests in a second, with the most workers that were asked for."""
    found: dict[str, float] = {}
    print("\n| what a second takes | one epoch | 50 epochs | run created |\n|---|---:|---:|---:|")
    with a_stack() as stack:
        for count in counts:
            with stack.serving(count) as (server, _):
                found |= {"epoch": rate(server.logging(1)), "whole": rate(server.logging(50))}
                found["create"] = rate(server.creating)
            row = " | ".join(f"{found[name]:.0f}" for name in ("epoch", "whole", "create"))
            print(f"| the server with {count} workers | {row} |", flush=True)
        os.environ.update(stack.reached)
        print(f"| PostgreSQL directly | {rate(directly(1)):.0f} | {rate(directly(50)):.0f} | |", flush=True)
    return found


# --------------------------------------------------------------------------------------------------------------- crowd

HOSTS, ROUNDS = 4, 2
WEIGHTS = 109_386
"""Numbers in the MLP 784-128-64-10."""


def host(address: str, count: int) -> None:
    """A process that is so many of Dask's workers, of one thread each."""
    import asyncio

    from distributed import Worker

    for name in ("distributed", "distributed.worker", "distributed.core"):  # so many in a process are slow to answer
        logging.getLogger(name).setLevel(logging.ERROR)

    async def live() -> None:
        workers = await asyncio.gather(*(Worker(address, nthreads=1, memory_limit=0) for _ in range(count)))
        await asyncio.gather(*(one.finished() for one in workers))

    asyncio.run(live())


def rehearse(item: tuple[Any, int, float]) -> tuple[str, Any, float]:
    """On a worker: records what a training of so many seconds would; its run, its weights, and how long it is late."""
    import numpy as np

    from mlplab import worker
    from mlplab.store.command import under

    parent, number, seconds = item
    began = time.monotonic()
    with under(parent) as above:
        run = above.child(f"training {number}", {f"param_{n}": n for n in range(16)}, {"mlplab.kind": "training"})
        for epoch in range(1, EPOCHS + 1):
            time.sleep(max(0.0, began + seconds * epoch / EPOCHS - time.monotonic()))
            values = {f"metric_{n}": (number + n) / epoch for n in range(METRICS)}
            run.metrics(values, step=epoch)
            worker.tell((number, epoch, values))
        for n in range(6):
            run.text("what a training leaves\n" * 200, f"artifact_{n}.txt")
        run.tags({f"tag_{n}": "value" for n in range(8)})
    return run.run_id, np.zeros(WEIGHTS, "float32"), time.monotonic() - began - seconds


def wait_for_workers(address: str, count: int) -> None:
    """Returns when all of the crowd are there."""
    from distributed import Client

    with Client(address, timeout=120, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=300)


def computed(*processes: int) -> float:
    """Seconds that a core has computed for processes, and for all that they have started."""
    below: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            below.setdefault(int(values[1]), []).append(int(folder.name))
            spent[int(folder.name)] = sum(map(int, values[11:15])) / os.sysconf("SC_CLK_TCK")
    todo, found = list(processes), 0.0
    while todo:
        process = todo.pop()
        found += spent.get(process, 0.0)
        todo += below.get(process, [])
    return found


def crowd(count: int, seconds: float, counts: list[int]) -> None:
    """Measures and prints what each part computes for a training, and how many workers fill a core of it."""
    from mlplab.store import command as record

    spawn = multiprocessing.get_context("spawn")
    items, late, told = ROUNDS * count, [], itertools.count()
    with contextlib.ExitStack() as stack:
        services = stack.enter_context(a_stack())
        server, serving = stack.enter_context(services.serving(counts[-1]))
        os.environ |= {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{server.port}", "MLFLOW_EXPERIMENT_NAME": "crowd"}
        os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": server.password}
        os.environ["XDG_STATE_HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
        address = f"tcp://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--no-dashboard"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        scheduler = subprocess.Popen([*command, "--port", address.rpartition(":")[2]], **quiet)
        stack.callback(scheduler.kill)
        hosts = [spawn.Process(target=host, args=(address, count // HOSTS), daemon=True) for _ in range(HOSTS)]
        for one in hosts:
            one.start()
            stack.callback(one.kill)
        cluster.CONNECT_SECONDS = 120.0
        wait_for_workers(address, count)
        workers = stack.enter_context(cluster.workers(address, on_message=lambda message: next(told)))
        parts = {
            "scheduler": [scheduler.pid],
            "who asks": [],
            "all workers": [one.pid for one in hosts if one.pid],
            "tracking server": [serving],
            "PostgreSQL": [services.database],
        }

        def now() -> dict[str, float]:
            own = {"who asks": time.process_time()}
            return {name: computed(*processes) for name, processes in parts.items()} | own

        with record.parent_run("crowd", {}) as run:
            parent = run.parent_ref
            before, started = now(), time.perf_counter()
            for (_, number, _), outcome in workers.map(rehearse, [(parent, n, seconds) for n in range(items)]):
                run_id, weights, more = outcome.get()
                late.append(more)
                run.adopt(f"training {number}", run_id).keep("result", {"seed": number}, [weights])
            took, after = time.perf_counter() - started, now()
        points = record_points(server)
    print(f"\n{items} trainings of {seconds:.0f} s, {EPOCHS} epochs, {METRICS} metrics, on {count} workers.")
    print(
        f"All over after {took:.0f} s: {ROUNDS * seconds / took:.0%} of what workers alone would do. The middle one had"
    )
    print(
        f"everything on record {statistics.median(late):.1f} s after its end, the last one {max(late):.1f} s. Told were"
    )
    print(
        f"{next(told):,} epochs of {items * EPOCHS:,}; on record {points:,} points of {items * EPOCHS * METRICS:,}.\n"
    )
    print(
        "| | seconds of a core for a training | cores at 100 workers | workers that fill a core |\n|---|---:|---:|---:|"
    )
    for name in parts:
        each = (after[name] - before[name]) / items
        print(f"| {name} | {each:.3f} | {100 * each / seconds:.2f} | {seconds / each:,.0f} |", flush=True)


def record_points(server: Server) -> int:
    """How many points the trainings of the crowd have on record."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("crowd").experiment_id
    runs = client.search_runs([experiment], "tags.`mlplab.kind` = 'training'", max_results=50_000)
    return sum(len(client.get_metric_history(run.info.run_id, f"metric_{n}")) for run in runs for n in range(METRICS))


# ---------------------------------------------------------------------------------------------------------------- plan

MEASURED = {"training": 3.085, "start": 10.6, "task": 0.00684, "epoch": 101.0, "whole": 22.2, "create": 98.6}
"""What the plan takes where it was not measured in the same run; see docs/scaling.md."""
CALLS = 16
"""Requests that a training makes besides its metrics: its run, params, tags, data set, six artifacts, its end."""
EPOCHS = 50


def simulate(workers: int, trainings: int, seconds: float, live: bool, measured: dict[str, float]) -> dict[str, float]:
    """So many trainings of so many seconds on workers that share a scheduler and a tracking server, event by event.

    The scheduler gives out a task at a time. A training sends its requests in eight parts while it runs, to a server
    that takes one at a time; it does not wait for them, but its worker is free only when the last is answered.

    Returns:
        Seconds until the last training is over, and the shares of that time for which scheduler and server are busy.
    """
    batches = max(1.0, min(EPOCHS, seconds)) if live else 1.0  # One a second at most.
    load = (batches / measured["epoch"] if live else 1 / measured["whole"]) + CALLS / measured["epoch"]
    parts = 8
    events = [(measured["start"], worker, 0) for worker in range(workers)]
    heapq.heapify(events)
    scheduler = server = scheduling = serving = end = 0.0
    left = trainings
    while events:
        now, worker, part = heapq.heappop(events)
        if part == 0:
            if not left:
                continue
            left -= 1
            scheduler = max(scheduler, now) + measured["task"]
            scheduling += measured["task"]
            now = scheduler
        else:
            server = max(server, now) + load / parts
            serving += load / parts
        if part == parts:
            end = max(end, server)
            heapq.heappush(events, (server, worker, 0))
        else:
            heapq.heappush(events, (now + seconds / parts, worker, part + 1))
    return {"seconds": end, "scheduler": scheduling / end, "tracking": serving / end}


def plan(measured: dict[str, float]) -> None:
    """Prints what 100 workers would do, and what holds them back."""
    known = MEASURED | measured
    told = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
    print(f"\nSimulated, 20 trainings a worker, from: {told}\n")
    print("| workers | seconds a training | metrics | efficiency | tracking busy | scheduler busy | limit |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for seconds in (known["training"] * EPOCHS / 3, 300.0):
        for live in (True, False):
            load = simulate(1, 1, seconds, live, known | {"start": 0.0})
            limit = 1 / max(load["tracking"], load["scheduler"])
            for workers in (1, 10, 30, 100):
                one = simulate(1, 20, seconds, live, known)["seconds"]
                many = simulate(workers, 20 * workers, seconds, live, known)
                shares = f"{many['tracking']:.0%} | {many['scheduler']:.0%} | {limit:.0f}"
                how = "each second" if live else "at the end"
                print(f"| {workers} | {seconds:.0f} | {how} | {one / many['seconds']:.0%} | {shares} |")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parts = ("trainings", "tasks", "tracking", "crowd", "plan")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--repetitions", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument(
        "--tracking-workers", type=int, nargs="+", default=[1, 2, 4], help="of the tracking server (default: 1 2 4)"
    )
    parser.add_argument("--crowd", type=int, default=100, help="workers of the crowd (default: %(default)s)")
    options = parser.parse_args()
    wanted = options.parts or parts
    if unknown := set(wanted) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; legal: {', '.join(parts)}")
    measured: dict[str, float] = {}
    if "trainings" in wanted:
        measured |= trainings(options.repetitions)
    if "tasks" in wanted:
        measured |= tasks(options.repetitions)
    if "tracking" in wanted:
        measured |= tracking(options.tracking_workers)
    if "crowd" in wanted:
        crowd(options.crowd, 60.0, options.tracking_workers)
    if "plan" in wanted:
        plan(measured)


if __name__ == "__main__":
    main()
