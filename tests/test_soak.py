"""That the soak finds what it looks for: a record is made twice by hand, and one of them is spoilt."""

import contextlib
import io
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT
from faults import Store
from soak import Disk, Kept, compare, read

RUNS = ("few", "many")


def recorded(store: Store, folder: Path) -> None:
    """A comparison of two trainings: points of a metric and of a clock, and a model each."""
    client, number = store.client, store.client.create_experiment(store.experiment, str(folder / store.experiment))
    parent = client.create_run(number, run_name="spec · digits · 3 epochs")
    for name in RUNS:
        run = client.create_run(number, tags={"mlflow.parentRunId": parent.info.run_id}, run_name=name)
        for step in (1, 2, 3):
            client.log_metric(run.info.run_id, "loss", 1 / step, 1_000 + step, step)
            client.log_metric(run.info.run_id, "train_seconds", np.random.default_rng().random(), 1_000 + step, step)
        path = folder / "model.keras"
        weights = io.BytesIO()
        with h5py.File(weights, "w") as file:
            file["layers/dense/vars/0"] = np.arange(6, dtype="float32").reshape(2, 3)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model.weights.h5", weights.getvalue())
        client.log_artifact(run.info.run_id, str(path))
        client.set_terminated(run.info.run_id)
    client.set_terminated(parent.info.run_id)


def kept(store: Store) -> Kept:
    (parent,) = store.parents()
    return read(store, parent)


@pytest.fixture
def spoil(empty_store: Path, tmp_path: Path) -> Callable[..., object]:
    """Gives what the checker says of a record after SQL statements, or whatever else was done to it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    twin, own = (Store(f"sqlite:///{tmp_path}/mlflow.db", name) for name in ("twin", "own"))
    for store in (twin, own):
        recorded(store, tmp_path)

    def after(*statements: str, also: Callable[[], object] = lambda: None) -> object:
        run = next(run for run in own.runs() if run.info.run_name == "many")
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            for statement in statements:
                assert database.execute(statement, {"run": run.info.run_id}).rowcount == 1
            database.commit()
        also()
        return compare(kept(twin), kept(own))

    return after


def test_two_equal_records_differ_in_nothing(spoil: Callable[..., object]) -> None:
    """Clocks differ and count for nothing; all else is compared, and is counted."""
    tally = spoil()
    assert tally.clean
    assert (tally.points, tally.weights) == (12, 2)


LOSS = "run_uuid = :run AND key = 'loss' AND step = 2"


@pytest.mark.parametrize(
    ("statement", "what", "line"),
    [
        (f"DELETE FROM metrics WHERE {LOSS}", "lost", "lost: ('/many', 'loss', 2)"),
        (
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) "
            f"SELECT key, value, timestamp + 5, run_uuid, step, is_nan FROM metrics WHERE {LOSS}",
            "doubled",
            "doubled: ('/many', 'loss', 2) is there 2 times, 1 too many",
        ),
        (f"UPDATE metrics SET step = 4 WHERE {LOSS}", "doubled", "doubled: ('/many', 'loss', 4) is there 1 times"),
        (f"UPDATE metrics SET value = 0.25 WHERE {LOSS}", "changed", "changed: ('/many', 'loss', 2) is ['0.25']"),
        ("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = :run", "others", "//many/status: 'FINISHED' is expected"),
        ("UPDATE runs SET name = 'few' WHERE run_uuid = :run", "doubled", "doubled: the run /few"),
    ],
)
def test_what_is_lost_doubled_or_changed_is_found(spoil, statement: str, what: str, line: str) -> None:
    """One point too few or too many, one value, one status, one run: each is counted, and a line names it."""
    tally = spoil(statement)
    assert not tally.clean
    assert getattr(tally, what) == 1
    assert any(said.startswith(line) for said in tally.lines), tally.lines


def test_a_changed_weight_is_found(spoil, tmp_path: Path) -> None:
    """The last bit of one number in a model's file."""

    def change() -> None:
        path = next((tmp_path / "own").rglob("model.keras"))
        with zipfile.ZipFile(path) as file:
            content = io.BytesIO(file.read("model.weights.h5"))
        with h5py.File(content, "r+") as file:
            values = file["layers/dense/vars/0"]
            values[1, 2] = np.nextafter(values[1, 2], np.float32(9))
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model.weights.h5", content.getvalue())

    tally = spoil(also=change)
    assert tally.weights_differ == 1
    assert not tally.clean


def test_a_disk_is_filled_and_has_room_again(tmp_path: Path) -> None:
    """Where the disk is a file system of the test's own, nothing more fits in until it is freed."""
    disk = Disk(tmp_path / "disk")
    try:
        if not disk.mounted:
            pytest.skip("no file system may be mounted here: limits on files take its place")
        disk.fill([], 8192)
        with pytest.raises(OSError, match="No space left"), (disk.folder / "more").open("wb", buffering=0) as file:
            for _ in range(9):
                file.write(bytes(4096))
        disk.free([])
        (disk.folder / "more").write_bytes(bytes(100_000))
    finally:
        disk.close()


@pytest.mark.nightly
def test_a_short_soak_ends_with_nothing_lost() -> None:
    """Two minutes of every fault: exit code 0, and a table that counts comparisons."""
    command = [sys.executable, str(ROOT / "tests" / "soak.py"), "--seconds", "120", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as soak:
        try:
            said, _ = soak.communicate(timeout=1_800)
        finally:
            soak.send_signal(signal.SIGINT)
    assert soak.returncode == 0, said
    assert "| points lost | 0 |" in said
