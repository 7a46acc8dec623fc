"""A full tracking store against an empty one, on sqlite and on PostgreSQL: ratios of medians, in turns, in one run.

Usage: python benchmarks/store.py [--runs N] [--store sqlite,postgresql] [--turns N] [--keep FOLDER] [--explain]

The report is made once on the digits in its smoke profile; both stores hold its record, the empty one nothing else. The
full one besides holds 10,000 trainings of 50 epochs with 15 curves each, as copies of a recorded comparison: its runs
with their params, tags, inputs and metrics under new ids and fingerprints, in the same MLflow experiment, written into
MLflow's own tables. Both are measured in one process with warm caches, one after the other, each first in turn.

`first epoch on record` runs from an open data set and compiled programs to the end of the first write of an epoch's
metrics, of which up to a second is the writer waiting for its batch; `…, in the store` is the share of it that calls
of MLflow's client took, and is what a full store can make slow. Searches are medians of several.
PostgreSQL is started for the measurement, without fsync, so that no constant cost hides a growing one.
"""

import argparse
import contextlib
import functools
import io
import json
import math
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlflow
import sqlalchemy
from quiet import Quiet
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from experiments.report.__main__ import report
from mlplab import backend, data, datasets, marks, origin, registry, run
from mlplab.loading import Options, experiment_names, load_experiment
from mlplab.sources import Data
from mlplab.store.command import parent_run

GOAL = 2.0
EXPERIMENT = "optimizers"
"""Of the report's experiments the one whose record is copied, and which is started."""
PRINT = f"{marks.PLUMBING}.fingerprint."
"""How the tag begins whose name has a run's fingerprint."""
SEARCHES, ENOUGH_SECONDS = 15, 0.5
"""A search is measured so many times a turn, or until it has taken so long."""

Rows = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measures and prints."""
    os.environ["MLFLOW_EXPERIMENT_ID"] = "0"  # every measurement is on this one
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--runs", type=int, default=10_000, help="trainings in the full store (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="of each training (default: %(default)s)")
    parser.add_argument("--metrics", type=int, default=15, help="curves of each training (default: %(default)s)")
    parser.add_argument("--store", default="sqlite,postgresql", help="which of the two (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--reports", type=int, default=3, help="turns in which the report is written, too")
    parser.add_argument("--keep", type=Path, help="where the stores are made, and found the next time; else nowhere")
    parser.add_argument("--explain", action="store_true", help="print the full stores' plans of what is above the goal")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(contextlib.chdir(folder))
        digits = {wanted: data.load("digits", wanted) for wanted in datasets.KNOWN}
        record = recorded(folder, digits)
        print(f"Medians of {options.turns} turns, on {digits['mnist'].label}.\n", flush=True)
        print("| store | timed | empty (ms) | full (ms) | ratio | goal | | spread |")
        print("|---|---|---:|---:|---:|---|---|---:|")
        said: list[str] = []
        for kind in options.store.split(","):
            stores = stack.enter_context({"sqlite": sqlite, "postgresql": postgresql}[kind](folder))
            shape = (options.runs, options.epochs, options.metrics)
            addresses = {"empty": stores("empty", True), "full": stores("full_{}_{}_{}".format(*shape), False)}
            copy(record, addresses["empty"])
            said.append(f"{kind}: {fill(addresses['full'], record, *shape)}")
            copy(record, addresses["full"])
            for name, seconds in measured(addresses, digits, record, options.turns, options.reports).items():
                ratio = statistics.median(seconds["full"]) / statistics.median(seconds["empty"])
                judged = not name.startswith("*")
                show(kind, name, seconds, judged)
                if options.explain and ratio > GOAL and name in SEARCHED:
                    explain(addresses["full"], SEARCHED[name])
        print("\n" + "\n".join(said))


def show(kind: str, name: str, seconds: Mapping[str, Sequence[float]], judged: bool) -> None:
    """Prints a row of the table."""
    empty, full = (statistics.median(seconds[which]) for which in ("empty", "full"))
    spread = (max(seconds["full"]) - min(seconds["full"])) / full
    aim, verdict = (f"≤ {GOAL:g}", "pass" if full / empty <= GOAL else "FAIL") if judged else ("", "")
    times = f"{1000 * empty:,.1f} | {1000 * full:,.1f} | {full / empty:.2f}"
    print(f"| {kind} | {name} | {times} | {aim} | {verdict} | {spread:.0%} |", flush=True)


# -------------------------------------------------------------------------------------------------------- what is timed


class Clock:
    """Where the time of a piece of work goes: into calls of MLflow's client, and until the first epoch is on record."""

    CALLS = (
        *("create_run", "get_run", "search_runs", "log_batch", "log_inputs", "set_tag", "set_terminated", "update_run"),
        *("get_experiment", "get_experiment_by_name", "set_experiment_tag", "search_experiments"),
    )

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.first_epoch = math.nan
        self.until_first_epoch = math.nan
        self._depth = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Listens while the block runs."""
        started = time.perf_counter()
        originals = {name: getattr(mlflow.MlflowClient, name) for name in self.CALLS}

        def heard(name: str) -> Callable[..., Any]:
            @functools.wraps(originals[name])
            def call(*arguments: Any, **named: Any) -> Any:
                begun = time.perf_counter()
                try:
                    return originals[name](*arguments, **named)
                finally:
                    now = time.perf_counter()
                    self.calls[name].append(now - begun)
                    if name == "log_batch" and math.isnan(self.first_epoch):
                        points = named.get("metrics") or next(iter(arguments[2:3]), ())
                        if any(point.step for point in points):
                            self.first_epoch = now - started
                            self.until_first_epoch = self.seconds

            return call

        for name in originals:
            setattr(mlflow.MlflowClient, name, heard(name))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(mlflow.MlflowClient, name, original)

    @property
    def seconds(self) -> float:
        """Seconds in calls so far."""
        return sum(map(sum, self.calls.values()))


class Screen(Quiet):
    """Says nothing, but stops at what fails: a report that lacks an experiment would be fast."""

    def failed(self, name: str, error: str) -> None:
        """An experiment of a report raised."""
        raise SystemExit(f"{name}:\n{error}")


def named(wanted: Data) -> str:
    """The name of the data set that an experiment of the report is about."""
    return str(wanted.source)


SEARCHED: dict[str, tuple[str, list[str], int]] = {}
"""Row of the table -> the search's filter, order and most results, for its plan."""


def measured(
    addresses: Mapping[str, str], digits: Mapping[str, data.Dataset], record: Rows, turns: int, reports: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds by what is timed, by store, in turns."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"empty": [], "full": []})
    for turn in range(turns + 1):
        for which in sorted(addresses, reverse=turn % 2 == 0):
            mlflow.set_tracking_uri(addresses[which])
            each = {**starting(digits), **searching(digits["mnist"], record)}
            if turn <= reports:
                each |= reporting(digits)
            if turn:  # The first round compiles, fills caches and opens the stores.
                for name, seconds in each.items():
                    found[name][which].append(seconds)
    return found


def starting(digits: Mapping[str, data.Dataset]) -> dict[str, float]:
    """A comparison from its start to its first epoch on record, and as a whole."""
    clock = Clock()
    comparison = Options(epochs=2).adapt(load_experiment(EXPERIMENT))
    lab = run.Lab(lambda wanted: digits[named(wanted)], Screen(), Options())
    started = time.perf_counter()
    with clock.running():
        lab.run(comparison)
    return {
        "comparison: first epoch on record": clock.first_epoch,
        "comparison: first epoch on record, in the store": clock.until_first_epoch,
        "comparison: whole": time.perf_counter() - started,
        "comparison: whole, in the store": clock.seconds,
        "comparison: creating a run": statistics.median(clock.calls["create_run"]),
        "comparison: a batch of metrics": statistics.median(clock.calls["log_batch"]),
    }


def reporting(digits: Mapping[str, data.Dataset]) -> dict[str, float]:
    """The report where all it needs is on record."""
    clock = Clock()
    lab = run.Lab(lambda wanted: digits[named(wanted)], Screen(), Options(smoke=True))
    started = time.perf_counter()
    with clock.running(), tempfile.TemporaryDirectory() as folder:
        report(lab, Path(folder), experiment_names())
    return {
        "report: from the record": time.perf_counter() - started,
        "report: from the record, in the store": clock.seconds,
    }


def searching(digits: data.Dataset, record: Rows) -> dict[str, float]:
    """What looks for runs, each as mlplab does it or might do it."""
    client = mlflow.MlflowClient()
    present = next(tag["key"].removeprefix(PRINT) for tag in record["tags"] if tag["key"].startswith(PRINT))
    parent = next(
        r["run_uuid"] for r in record["runs"] if tags_of(record, r["run_uuid"]).get("mlplab.kind") == "comparison"
    )
    one = next(r for r in record["runs"] if tags_of(record, r["run_uuid"]).get("mlflow.parentRunId") == parent)
    key = json.loads(tags_of(record, one["run_uuid"])[marks.PLUMBING])["key"]
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> None:
        taken: list[float] = []
        while len(taken) < SEARCHES and sum(taken) < ENOUGH_SECONDS:
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
        seconds[name] = statistics.median(taken)

    def search(name: str, condition: str, expected: int | None, most: int = 1, order: Sequence[str] = ()) -> None:
        runs = client.search_runs(["0"], condition, max_results=most, order_by=list(order))
        assert expected is None or len(runs) == expected, (name, len(runs))
        timed(name, lambda: client.search_runs(["0"], condition, max_results=most, order_by=list(order)))
        SEARCHED[name] = condition, list(order), most

    with parent_run("store", {}) as parent:
        assert parent.find(present)
        assert not parent.find("0" * 32)
        timed("find: a fingerprint on record", lambda: parent.find(present))
        timed("find: a fingerprint not on record", lambda: parent.find("0" * 32))
        parent.finish()
    by_accuracy = functools.partial(registry.chosen, client, digits, None, None, None, "rmsprop", "val_accuracy")
    timed("register: choosing a run", by_accuracy)
    timed("a run by its id", lambda: client.get_run(one["run_uuid"]))
    search("children of a parent", f"tags.mlflow.parentRunId = '{parent}'", None, 1000)
    search("a run by its key, on record", marks.with_key(key), 1)
    search("a run by its key, absent", marks.with_key("0" * 32), 0)
    return seconds


def explain(address: str, searched: tuple[str, list[str], int]) -> None:
    """Prints the first statement of a search, and the database's plan of it."""
    mlflow.set_tracking_uri(address)
    statements: list[tuple[str, Any]] = []

    def heard(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "runs" in statement and statement.lstrip().startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(sqlalchemy.Engine, "before_cursor_execute", heard)
    condition, order, most = searched
    mlflow.MlflowClient().search_runs(["0"], condition, max_results=most, order_by=order)
    event.remove(sqlalchemy.Engine, "before_cursor_execute", heard)
    statement, parameters = statements[0]
    explained = "EXPLAIN QUERY PLAN " if address.startswith("sqlite") else "EXPLAIN (ANALYZE, BUFFERS) "
    with connected(address) as connection:
        cursor = connection.cursor()
        cursor.execute(explained + statement, parameters)
        print(f"\n{condition}\n    {statement[statement.index('FROM') :]}")
        for row in cursor.fetchall():
            print("   ", row[-1])


# ----------------------------------------------------------------------------------------------------------- the stores


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Callable[[str, bool], str]]:
    """Makes, or finds, stores that are files of a folder, by name and whether they are to be new."""

    def store(name: str, new: bool) -> str:
        if new:
            (folder / f"{name}.db").unlink(missing_ok=True)
        return opened(f"sqlite:///{folder / name}.db")

    yield store


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[Callable[[str, bool], str]]:
    """The same in a PostgreSQL of its own, which is reached by a socket in a folder of its own."""

    def program(name: str) -> str:
        places = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: float(path.name), reverse=True)
        found = [str(place / "bin" / name) for place in places if (place / "bin" / name).is_file()]
        return (found or [shutil.which(name) or sys.exit(f"PostgreSQL's {name} is not installed")])[0]

    # It refuses to run as root; the user that its package made runs it then.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    home, at = folder / "postgresql", Path(tempfile.mkdtemp(prefix="pg"))
    if not home.is_dir():
        home.mkdir(mode=0o700)
        if user:
            shutil.chown(home, "postgres", "postgres")
        made = [
            program("initdb"),
            "--no-sync",
            "--auth=trust",
            "--username=mlflow",
            "--encoding=UTF8",
            f"--pgdata={home}",
        ]
        subprocess.run(made, cwd="/", check=True, capture_output=True, **user)
    if user:
        shutil.chown(at, "postgres", "postgres")
    log = open(at / "log", "w")  # noqa: SIM115
    server = subprocess.Popen(
        [program("postgres"), "-D", str(home), "-k", str(at), "-c", "listen_addresses=", "-F"],
        cwd="/",
        stdout=log,
        stderr=log,
        **user,
    )
    reach = f"postgresql+psycopg2://mlflow@/{{}}?host={at}"

    def execute(statement: str) -> list[Any]:
        engine = sqlalchemy.create_engine(reach.format("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text(statement))
            found = list(result) if result.returns_rows else []
        engine.dispose()
        return found

    def store(name: str, new: bool) -> str:
        if new:
            execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        if not execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            execute(f"CREATE DATABASE {name}")
        return opened(reach.format(name))

    try:
        for _ in range(300):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.connect(str(at / ".s.PGSQL.5432"))
                break
            time.sleep(0.1)
        time.sleep(1)
        yield store
    finally:
        server.terminate()
        server.wait()
        log.close()
        shutil.rmtree(at, ignore_errors=True)


def opened(address: str) -> str:
    """The address, with MLflow's tables made there."""
    mlflow.MlflowClient(address).search_experiments()
    return address


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """A connection of the database's own driver; what was done is kept."""
    engine = sqlalchemy.create_engine(address)
    connection = engine.raw_connection()
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()
        engine.dispose()


def recorded(folder: Path, digits: Mapping[str, data.Dataset]) -> Rows:
    """The rows, by table, of the report's record in the smoke profile."""
    path = folder / f"record-{origin.circumstances()['code']}.db"
    if not path.is_file():
        draft = folder / "draft.db"
        draft.unlink(missing_ok=True)
        mlflow.set_tracking_uri(opened(f"sqlite:///{draft}"))
        with tempfile.TemporaryDirectory() as page:
            lab = run.Lab(lambda wanted: digits[named(wanted)], Screen(), Options(smoke=True))
            report(lab, Path(page), experiment_names())
        draft.rename(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in tables(f"sqlite:///{path}")
        }


def tags_of(record: Rows, run_id: str) -> dict[str, str]:
    """A run's tags."""
    return {tag["key"]: tag["value"] for tag in record["tags"] if tag["run_uuid"] == run_id}


def tables(address: str) -> list[str]:
    """MLflow's tables, each after those it refers to."""
    engine = sqlalchemy.create_engine(address)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    engine.dispose()
    return [table.name for table in metadata.sorted_tables if table.name != "alembic_version"]


def copy(record: Rows, address: str) -> None:
    """Adds rows to a store, those that it has not."""
    engine = sqlalchemy.create_engine(address)
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    insert: Any = sqlite_insert if address.startswith("sqlite") else postgresql_insert
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            rows = record.get(table.name, [])
            # One after the other: psycopg2 and sqlite differ in how many values a statement may have.
            for first in range(0, len(rows), 1000):
                values = [
                    {
                        k: bool(v) if isinstance(table.c[k].type, sqlalchemy.Boolean) and v is not None else v
                        for k, v in row.items()
                    }
                    for row in rows[first : first + 1000]
                ]
                connection.execute(insert(table).on_conflict_do_nothing(), values)
    engine.dispose()


def fill(address: str, record: Rows, trainings: int, epochs: int, curves: int) -> str:
    """Fills a store with copies of the recorded comparison, unless it is full; returns what is in it, as a sentence."""
    with connected(address) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM runs")
        started = time.perf_counter()
        if not cursor.fetchone()[0]:
            write(connection, generated(record, trainings, epochs, curves))
        counts = []
        for table in ("runs", "tags", "metrics"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            counts.append(f"{cursor.fetchone()[0]:,} {table}")
        seconds = time.perf_counter() - started
    if address.startswith("postgresql"):
        engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as plain:
            plain.execute(sqlalchemy.text("VACUUM ANALYZE"))  # its autovacuum had done so long ago
        engine.dispose()
    return f"{', '.join(counts)} ({seconds:.0f} s to fill)."


def generated(
    record: Rows, trainings: int, epochs: int, curves: int
) -> Iterator[tuple[str, list[str], Iterable[tuple[Any, ...]]]]:
    """What a store is filled with: table, columns, rows."""
    (parent,) = [
        each["run_uuid"]
        for each in record["runs"]
        if tags_of(record, each["run_uuid"]).items()
        >= {"mlplab.kind": "comparison", "mlplab.experiment": EXPERIMENT}.items()
    ]
    children = [
        each["run_uuid"]
        for each in record["runs"]
        if tags_of(record, each["run_uuid"]).get("mlflow.parentRunId") == parent
    ]
    family = [parent, *children]
    numbers = random.Random(0)
    comparisons = -(-trainings // len(children))
    ids = [{old: f"{numbers.getrandbits(128):032x}" for old in family} for _ in range(comparisons)]
    first = min(each["start_time"] for each in record["runs"] if each["run_uuid"] in family)
    times = [first - 60_000 * (comparisons - number) for number in range(comparisons)]

    def columns(table: str) -> list[str]:
        return list(record[table][0])

    def runs() -> Iterator[tuple[Any, ...]]:
        rows = [each for each in record["runs"] if each["run_uuid"] in family]
        for new, moved in zip(ids, times, strict=True):
            for row in rows:
                uri = row["artifact_uri"].replace(row["run_uuid"], new[row["run_uuid"]])
                at = {name: row[name] - first + moved for name in ("start_time", "end_time")}
                yield tuple({**row, **at, "run_uuid": new[row["run_uuid"]], "artifact_uri": uri}.values())

    def tags() -> Iterator[tuple[Any, ...]]:
        rows = [tag for tag in record["tags"] if tag["run_uuid"] in family and not tag["key"].endswith(".1")]
        for new in ids:
            own = {old: f"{numbers.getrandbits(128):032x}" for old in family}
            for row in rows:
                key, value = row["key"], row["value"]
                if key == marks.PLUMBING:
                    value = json.dumps({**json.loads(value), "key": own[row["run_uuid"]]})
                elif key.startswith(PRINT):
                    key = f"{PRINT}{own[row['run_uuid']]}"
                yield tuple(
                    {**row, "key": key, "value": new.get(value, value), "run_uuid": new[row["run_uuid"]]}.values()
                )

    def owned(table: str) -> Iterator[tuple[Any, ...]]:
        rows = [row for row in record[table] if row["run_uuid"] in family]
        for new in ids:
            for row in rows:
                changed: dict[str, Any] = {"run_uuid": new[row["run_uuid"]]}
                if table == "latest_metrics" and row["step"]:
                    changed["step"] = epochs
                if table == "latest_metrics" and not row["is_nan"]:
                    changed["value"] = row["value"] * numbers.uniform(0.9, 1.1)
                yield tuple({**row, **changed}.values())

    def inputs() -> Iterator[tuple[Any, ...]]:
        rows = [row for row in record["inputs"] if row["destination_id"] in family]
        for new in ids:
            for row in rows:
                fresh = f"{numbers.getrandbits(128):032x}"
                yield tuple({**row, "input_uuid": fresh, "destination_id": new[row["destination_id"]]}.values())

    def metrics() -> Iterator[tuple[Any, ...]]:
        singles = {
            (row["key"], row["run_uuid"]) for row in record["metrics"] if not row["step"] and row["run_uuid"] in family
        }
        names = sorted({row["key"] for row in record["metrics"] if row["step"] and row["run_uuid"] in family})
        names += [f"curve_{number}" for number in range(len(names) + 1, curves + 1)]
        points = [(name, child, range(1, epochs + 1)) for name in names[:curves] for child in children]
        points += [(name, old, range(1)) for name, old in singles]
        layout = columns("metrics")
        for name, old, steps in sorted(points, key=lambda point: point[0]):  # nearly in the primary key's order
            for new, moved in zip(ids, times, strict=True):
                for step in steps:
                    row = {"key": name, "value": numbers.random(), "timestamp": moved + 100 * step, "step": step}
                    row |= {"run_uuid": new[old], "is_nan": False}
                    yield tuple(row[column] for column in layout)

    have = [row for row in record["experiments"] if row["experiment_id"] != 0]
    assert not have, "the record is in MLflow's default experiment"
    yield "datasets", columns("datasets"), [tuple(row.values()) for row in record["datasets"]]
    yield "runs", columns("runs"), runs()
    yield "tags", columns("tags"), tags()
    yield "params", columns("params"), owned("params")
    yield "latest_metrics", columns("latest_metrics"), owned("latest_metrics")
    yield "inputs", columns("inputs"), inputs()
    yield "metrics", columns("metrics"), metrics()


def write(connection: Any, tables: Iterable[tuple[str, list[str], Iterable[tuple[Any, ...]]]]) -> None:
    """Writes rows into tables, whose indexes and constraints are made when all are in."""
    cursor = connection.cursor()
    if isinstance(connection.driver_connection, sqlite3.Connection):
        for pragma in ("synchronous = OFF", "cache_size = -1000000", "foreign_keys = OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        for table, columns, rows in tables:
            cursor.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL",
                (table,),
            )
            indexes = cursor.fetchall()
            for name, _ in indexes:
                cursor.execute(f"DROP INDEX {name}")
            names, marks = ", ".join(f'"{column}"' for column in columns), ", ".join("?" * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            for _, statement in indexes:
                cursor.execute(statement)
        return
    cursor.execute("SET session_replication_role = replica")  # foreign keys are not looked up
    cursor.execute("SET maintenance_work_mem = '512MB'")
    for table, columns, rows in tables:
        cursor.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = %s::regclass AND contype = 'p' AND %s IN ('metrics', 'latest_metrics', 'tags', 'params')",
            (table, table),
        )
        constraints = cursor.fetchall()
        for name, _ in constraints:
            cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        cursor.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indrelid = %s::regclass AND NOT indisunique",
            (table,),
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        names = ", ".join(f'"{column}"' for column in columns)
        booleans = {index for index, column in enumerate(columns) if column == "is_nan"}
        lines: list[str] = []

        def send(table: str = table, names: str = names, lines: list[str] = lines) -> None:
            cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", io.StringIO("".join(lines)))
            lines.clear()

        for row in rows:
            texts = [_text(bool(value) if index in booleans else value) for index, value in enumerate(row)]
            lines.append("\t".join(texts) + "\n")
            if len(lines) >= 100_000:
                send()
        send()
        for name, definition in constraints:
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for _, definition in indexes:
            cursor.execute(definition)


def _text(value: object) -> str:
    """A value as PostgreSQL's COPY reads it."""
    if value is None:
        return "\\N"
    text = str(value)
    if "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


if __name__ == "__main__":
    with backend.settings():  # as a command has them
        main()
