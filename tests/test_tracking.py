"""What `mlplab.store` promises, against real stores."""

import base64
import contextlib
import json
import math
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from uuid import uuid4

import filelock
import mlflow
import numpy as np
import pytest
from conftest import ROOT, free_port, wait_until
from faults import PASS, Fault, Proxy, Server
from mlflow import MlflowClient

from mlplab import marks, stores, upkeep, views
from mlplab.checks import UnavailableError, UndeliveredError
from mlplab.store import command, recorder, sessions
from mlplab.store.command import parent_run


def points(client, run_id, name):
    history = client.get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in sorted(history, key=lambda m: m.step)]


def test_every_point_arrives_once(store, dataset):
    """More points than one call takes arrive, each once, at their steps."""
    with parent_run("many", {}, dataset) as parent:
        child = parent.child("a", {}, {}, dataset)
        for step in range(1, 1_201):
            child.metrics({"loss": 1 / step, "accuracy": step}, step)
        child.finish()
        parent.finish()
    assert points(store, child.run_id, "loss") == [(step, 1 / step) for step in range(1, 1_201)]
    assert points(store, child.run_id, "accuracy") == [(step, step) for step in range(1, 1_201)]


def test_points_are_visible_while_the_training_runs(store, dataset):
    """A point logged is in the store before the run ends, without any further call."""
    with parent_run("live", {}, dataset) as parent:
        parent.metrics({"loss": 0.5}, 1)
        assert wait_until(lambda: points(store, parent.run_id, "loss")) == [(1, 0.5)]


def test_a_run_holds_what_was_said_of_it(store, dataset):
    """Params, tags, input with our digest, artifacts, parent and status are on the child, log_seconds on the parent."""
    with parent_run("said", {"kind": "comparison"}, dataset) as parent:
        child = parent.child("a", {"learning_rate": 0.1}, {"dataset": "digits"}, dataset)
        child.params({"parameters": 7})
        child.text("hello", "note.txt")
        child.file("bytes.bin", lambda path: path.write_bytes(b"123"))
        child.finish("FAILED")
        parent.finish()
    run = store.get_run(child.run_id)
    assert run.info.status == "FAILED"
    assert run.info.run_name == "a"
    assert run.data.params == {"learning_rate": "0.1", "parameters": "7"}
    assert run.data.tags["dataset"] == "digits"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert store.get_run(parent.run_id).data.metrics["log_seconds"] > 0
    inputs = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert list(inputs) == ["training", "validation", "test"]
    assert {each.digest for each in inputs.values()} == {dataset.digest}
    assert inputs["training"].name == dataset.label
    assert json.loads(inputs["validation"].profile)["examples"] == len(dataset.validation)
    assert sorted(file.path for file in store.list_artifacts(child.run_id)) == ["bytes.bin", "note.txt"]
    assert store.get_run(parent.run_id).info.status == "FINISHED"


def test_what_is_not_finite_is_stored_as_nan(store, dataset):
    """Infinity, which MLflow would store as 1.8e308, and NaN are stored as NaN."""
    with parent_run("nan", {}, dataset) as parent:
        for step, value in enumerate([math.inf, -math.inf, math.nan], start=1):
            parent.metrics({"loss": value}, step)
    values = [value for _, value in points(store, parent.run_id, "loss")]
    assert len(values) == 3
    assert all(math.isnan(value) for value in values)


@pytest.mark.parametrize(
    ("command", "again"), [("one", "the same command goes on there"), (None, "Given again, the command begins anew")]
)
def test_an_interrupt_says_what_the_command_does_when_it_is_given_again(store, command, again):
    """A comparison goes on with its runs; a registration or a replay begins anew, and says so."""
    with pytest.raises(KeyboardInterrupt) as caught, parent_run("interrupted", {}, command=command):
        raise KeyboardInterrupt
    (said,) = caught.value.__notes__
    assert said.endswith(f"{again}; the runs that were open are marked KILLED.")
    assert said.startswith("Finished trainings are kept") is (command is not None)


@pytest.mark.parametrize(("raised", "status"), [(RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_whose_block_raises_is_ended(store, dataset, raised, status):
    """An exception in the block ends the run FAILED, an interrupt KILLED, with its points in the store."""
    with pytest.raises(type(raised)), parent_run("raises", {}, dataset) as parent:
        parent.metrics({"loss": 1.0}, 1)
        raise raised
    assert store.get_run(parent.run_id).info.status == status
    assert points(store, parent.run_id, "loss") == [(1, 1.0)]


@pytest.mark.parametrize(("given_name", "kept"), [("nimble-fox-41", "optimizers"), ("my own name", "my own name")])
def test_the_projects_run_is_the_parent(store, dataset, monkeypatch, given_name, kept):
    """Under `mlflow run` the project's run is used, its params stay, and only a made-up name is replaced."""
    project = store.create_run("0", run_name=given_name)
    store.log_param(project.info.run_id, "epochs", "5")
    monkeypatch.setenv("MLFLOW_RUN_ID", project.info.run_id)
    with parent_run("optimizers", {}, dataset) as parent:
        parent.finish()
    run = store.get_run(project.info.run_id)
    assert parent.run_id == project.info.run_id
    assert run.info.run_name == kept
    assert run.data.params == {"epochs": "5"}
    assert len(store.search_runs(["0"])) == 1


def test_the_experiment_is_that_of_mlflows_own_variable(store, dataset, monkeypatch):
    """MLFLOW_EXPERIMENT_NAME names the experiment of a comparison; it is made on first use and found on the second."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for _ in range(2):
        with parent_run("optimizers", {}, dataset) as parent:
            parent.finish()
        assert store.get_experiment(store.get_run(parent.run_id).info.experiment_id).name == "mine"
    assert len([e for e in store.search_experiments() if e.name == "mine"]) == 1


@pytest.fixture
def unnamed(store, monkeypatch):
    """A store, where nobody names an experiment."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    return store


def experiment_of(store, run):
    return store.get_experiment(store.get_run(run.run_id).info.experiment_id).name


def test_runs_go_to_an_experiment_of_their_own(unnamed, monkeypatch):
    """Where nobody names an experiment it is `mlplab`; what `mlflow.set_experiment` or `mlflow run` chose stays."""
    with parent_run("first", {}) as first:
        first.finish()
    assert experiment_of(unnamed, first) == "mlplab"
    monkeypatch.setenv("MLFLOW_RUN_ID", unnamed.create_run("0").info.run_id)
    with parent_run("project", {}) as second:
        second.finish()
    assert experiment_of(unnamed, second) == "Default"
    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # set_experiment sets it, which is undone by this
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    mlflow.set_experiment("a notebook's")
    with parent_run("third", {}) as third:
        third.finish()
    assert experiment_of(unnamed, third) == "a notebook's"


def test_what_is_on_record_is_found_where_nobody_named_an_experiment(unnamed, monkeypatch):
    """A record in Default is found from `mlplab` and the other way round; one elsewhere is not, nor from there."""
    homes = {"Default": "old", "mlplab": "new", "elsewhere": "foreign"}
    for experiment, fingerprint in homes.items():
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        with parent_run("made", marks.fingerprinted(fingerprint)) as run:
            run.finish()
    found = {}
    for experiment in homes:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        with parent_run("asks", {}) as run:
            found[experiment] = [each for each in homes.values() if run.find(each)]
            run.finish()
    assert found == {"Default": ["old", "new"], "mlplab": ["old", "new"], "elsewhere": ["foreign"]}


@pytest.mark.parametrize(("again", "goes_on"), [("Default", True), ("mlplab", True), ("elsewhere", False)])
def test_an_interrupted_command_goes_on_where_nobody_named_an_experiment(unnamed, monkeypatch, again, goes_on):
    """Interrupted in `mlplab`, it goes on there when it is given in Default, and begins anew in another experiment."""
    with pytest.raises(KeyboardInterrupt), parent_run("long", {}, command=f"long {again}") as first:
        first.metrics({"loss": 1.0}, 1)
        raise KeyboardInterrupt
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", again)
    with parent_run("long", {}, command=f"long {again}") as second:
        second.metrics({"loss": 0.5}, 2)
        second.child("below", {}, {}).finish()
        second.finish()
    assert (second.run_id == first.run_id) == goes_on
    assert experiment_of(unnamed, second) == ("mlplab" if goes_on else again)
    assert points(unnamed, second.run_id, "loss") == [(1, 1.0), (2, 0.5)][0 if goes_on else 1 :]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_machine_is_watched_where_that_is_wanted(store, monkeypatch, wanted):
    """MLflow's own variable has system metrics logged on the outermost run; without it there are none, nor a thread."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", str(wanted).lower())
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with parent_run("watched", {}) as run:
        assert ("system metrics" in {thread.name for thread in threading.enumerate()}) == wanted
        time.sleep(0.5)
        run.finish()
    found = {name for name in store.get_run(run.run_id).data.metrics if name.startswith("system/")}
    assert ("system/cpu_utilization_percentage" in found) == wanted
    assert bool(found) == wanted
    if wanted:
        assert len(points(store, run.run_id, "system/cpu_utilization_percentage")) >= 2
    assert "system metrics" not in {thread.name for thread in threading.enumerate()}


def test_a_view_is_saved_as_the_ui_saves_it_and_not_twice(store):
    """A view is a tag that the UI reads, the latest of a key; of more than the UI should list the oldest go."""

    def view(tag):
        kept = json.loads(store.get_experiment("0").tags[tag])
        text = zlib.decompress(base64.b64decode(kept["state"].removeprefix("deflate;")))
        return kept["name"], json.loads(text)

    store.set_experiment_tag("0", f"{views.PREFIX}17by-hand", json.dumps({"name": "a user's", "state": "{}"}))
    with parent_run("views", {}) as run:
        run.view(views.ANSWERS, "Answers", views.answers("val_loss"))
        for name in ("first", "second"):
            run.view(run.run_id, name, {"searchFilter": f"of {run.run_id}"})
        for place in range(views.MOST + 3):
            run.view(f"other-{place:02}", "one more", {})
        run.finish()
    kept = [tag.removeprefix(views.PREFIX) for tag in store.get_experiment("0").tags if tag.startswith(views.PREFIX)]
    assert len(kept) == views.MOST + 2
    assert {"17by-hand", views.ANSWERS, "other-52", "other-03"} <= set(kept)
    assert not {run.run_id, "other-02"} & set(kept)
    assert view(views.PREFIX + views.ANSWERS) == ("Answers", views.answers("val_loss"))
    with parent_run("again", {}) as run:
        for name in ("first", "second"):
            run.view(run.run_id, name, {"searchFilter": f"of {run.run_id}"})
        run.finish()
    assert view(views.PREFIX + run.run_id) == ("second", {"searchFilter": f"of {run.run_id}"})
    mine = json.dumps({"name": "Answers", "createdAt": 1, "updatedAt": 2, "state": "deflate;"})
    store.set_experiment_tag("0", views.PREFIX + views.ANSWERS, mine)
    with parent_run("after", {}) as run:
        run.view(views.ANSWERS, "Answers", views.answers("val_loss"))
        run.finish()
    assert store.get_experiment("0").tags[views.PREFIX + views.ANSWERS] == mine


@pytest.fixture
def server(empty_store, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Server(tmp_path) as running:
        mlflow.set_tracking_uri(running.uri)
        yield running
        mlflow.set_tracking_uri(None)


def test_a_server_killed_and_back_loses_no_point(server, dataset):
    """Points logged while the tracking server is dead arrive once it is back, each once, NaN among them."""
    with parent_run("outage", {}, dataset) as parent:
        parent.metrics({"loss": 1.0}, 1)
        server.kill()
        for step in range(2, 50):
            parent.metrics({"loss": float(step) if step % 7 else math.nan}, step)
        time.sleep(2 * recorder.FLUSH_SECONDS)
        server.start()
        parent.finish()
    found = points(MlflowClient(), parent.run_id, "loss")
    assert [step for step, _ in found] == list(range(1, 50))
    np.testing.assert_equal([v for _, v in found], [float(s) if s % 7 else math.nan for s in range(1, 50)])
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_stays_dead_is_an_error_in_the_end_and_loses_nothing(server, dataset, monkeypatch):
    """What could not be delivered is named in an error when the comparison ends, and `sync` delivers it later."""
    said = random.Random(0).random()
    with (
        pytest.raises(UndeliveredError, match=r"did not take everything: .* metric points.*mlplab sync") as caught,
        parent_run("dead", {}, dataset) as parent,
    ):
        parent.flush()
        monkeypatch.setattr(stores, "PATIENCE_SECONDS", 2.0)
        server.kill()
        parent.metrics({"loss": said}, 1)
        parent.finish()
    assert parent.run_id in str(caught.value)
    lines = []
    assert not upkeep.sync(lines.append)
    server.start()
    assert MlflowClient().get_run(parent.run_id).info.status == "RUNNING"
    assert upkeep.sync(lines.append)
    assert points(MlflowClient(), parent.run_id, "loss") == [(1, said)]
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"
    assert upkeep.sync(lines.append)
    assert lines[-1] == "Nothing waits on this machine."


@pytest.mark.slow
def test_a_server_that_is_not_there_at_first_is_said_at_once(empty_store, tmp_path, dataset, monkeypatch):
    """With a tracking server that does not answer the block runs all the same, the user is told, nothing is lost."""
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(stores, "START_SECONDS", 0.5)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    port, lines = free_port(), []
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    try:
        with (
            pytest.raises(UndeliveredError),
            parent_run("none", {}, dataset, say=lines.append) as parent,
        ):
            child = parent.child("a", {"learning_rate": 1}, {})
            child.metrics({"loss": 1.0}, 1)
            child.tags({"parent": f"under {parent.run_id}"})
            child.finish()
            parent.finish()
        assert "does not answer" in lines[0]
        with Server(tmp_path, port=port):
            assert upkeep.sync(lines.append)
            runs = {run.info.run_name: run for run in MlflowClient().search_runs(["0"])}
            assert {name: run.info.status for name, run in runs.items()} == {"none": "FINISHED", "a": "FINISHED"}
            assert runs["a"].data.tags["parent"] == f"under {runs['none'].info.run_id}"
            assert points(MlflowClient(), runs["a"].info.run_id, "loss") == [(1, 1.0)]
    finally:
        mlflow.set_tracking_uri(None)


@contextlib.contextmanager
def undelivered():
    """A block that ends since the store refuses a part of the record, and does not wait; yields what is said of it."""
    said, began = [], time.monotonic()
    with pytest.raises(UndeliveredError) as caught:
        yield said
    said.append(str(caught.value))
    assert caught.value.refused
    assert time.monotonic() - began < 0.9 * stores.PATIENCE_SECONDS


def test_a_run_that_is_deleted_meanwhile_is_said_with_what_mends_it(store, dataset):
    """What is said of a deleted run waits and is not waited for; all else arrives; restored, `sync` delivers it."""
    with undelivered() as said, parent_run("deleted", {}, dataset) as parent:
        gone, other = parent.child("gone", {}, {}), parent.child("other", {}, {})
        parent.flush()
        store.delete_run(gone.run_id)
        for run in (gone, other):
            run.metrics({"loss": 1.0}, 1)
            run.finish()
        parent.finish()
    assert f"Restore it: mlflow runs restore --run-id {gone.run_id}. Then deliver it: python -m mlplab sync" in said[0]
    assert points(store, other.run_id, "loss") == [(1, 1.0)]
    assert store.get_run(other.run_id).info.status == "FINISHED"
    assert not upkeep.sync(said.append)
    assert "sync --discard" in said[-1]
    store.restore_run(gone.run_id)
    assert upkeep.sync(said.append)
    assert points(store, gone.run_id, "loss") == [(1, 1.0)]
    assert {store.get_run(run.run_id).info.status for run in (gone, parent)} == {"FINISHED"}


def test_an_experiment_that_is_deleted_meanwhile_is_said_with_what_mends_it(store, dataset, monkeypatch):
    """The experiment, or its runs, are named with the command that restores them."""
    number = store.create_experiment("short-lived")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    with undelivered() as said, parent_run("deleted", {}, dataset) as parent:
        parent.flush()
        store.delete_experiment(number)
        parent.child("late", {}, {}).finish()
        parent.finish()
    assert f"Restore it: mlflow experiments restore --experiment-id {number}." in said[0]
    store.restore_experiment(number)
    assert upkeep.sync(said.append)
    assert {run.info.status for run in store.search_runs([number])} == {"FINISHED"}


def test_a_server_that_comes_to_refuse_is_not_waited_for(server, dataset):
    """401, 403 or a redirect in the middle of a training is said with what mends it, and then `sync` delivers all."""
    remedies = {401: "Set MLFLOW_TRACKING_USERNAME", 403: "give this user the right", 302: "leads to something else"}
    with Proxy(server.port) as proxy:
        mlflow.set_tracking_uri(proxy.uri)
        for status, remedy in remedies.items():
            with undelivered() as said, parent_run("refused", {}, dataset) as parent:
                parent.flush()
                proxy.fault = lambda method, path, status=status: Fault(status=status)
                parent.metrics({"loss": 1.0}, 1)
                parent.finish()
            assert remedy in said[0]
            assert "python -m mlplab sync --discard" in said[0]
            assert remedy in refused(proxy.uri) or status == 403
            proxy.fault = lambda method, path: PASS
            assert upkeep.sync(said.append)
            assert points(MlflowClient(), parent.run_id, "loss") == [(1, 1.0)]
            assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"


def refused(uri=None):
    """What is said of a store, the default one unless another is named, before the block runs."""
    if uri is not None:
        mlflow.set_tracking_uri(uri)
    began = time.monotonic()
    with pytest.raises(UnavailableError) as caught, parent_run("none", {}):
        pytest.fail("the block ran")
    assert time.monotonic() - began < 20, "MLflow tries again for minutes"
    text = str(caught.value)
    assert "\n" not in text
    assert "SQL:" not in text
    return text


def change(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def older(path):
    """Has a store say that its tables are an older version's."""
    change(path, "UPDATE alembic_version SET version_num = '451aebb31d03'")


def newer(path):
    """Has a store say that its tables are a version's that nobody knows."""
    change(path, "UPDATE alembic_version SET version_num = 'ffffffffffff'")


def half_migrated(path):
    """Leaves a store as one is whose process was killed while it brought the tables up to date."""
    change(path, "UPDATE alembic_version SET version_num = 'de4033877273'", "DROP TABLE mcp_servers")


def half_made(path):
    """Leaves a store as one is whose process was killed while it made the tables."""
    half_migrated(path)
    change(path, "DELETE FROM experiments")


@pytest.mark.parametrize(
    ("uri", "texts"),
    [
        ("sqlite:////proc/nowhere/mlflow.db", ["/proc/nowhere/mlflow.db", "MLFLOW_TRACKING_URI"]),
        ("sqlite:///{folder}", ["the file {folder} is a folder", "MLFLOW_TRACKING_URI"]),
        ("sqlite:///{folder}/text.db", ["{folder}/text.db is no database of SQLite", "MLFLOW_TRACKING_URI"]),
        ("sqlite:///", ["is no file", "sqlite:////an/absolute/path"]),
        ("sqlite:///:memory:", ["gone with the process", "sqlite:////an/absolute/path"]),
        (
            "sqlite:///{folder}/a%41/mlflow.db",
            ["would be the file {folder}/aA/mlflow.db", "MLFLOW_TRACKING_URI=sqlite:///{folder}/a%2541/mlflow.db"],
        ),
        ("postgres://host/x", ["'postgres' is none of the kinds", "did you mean postgresql://host/x?"]),
        ("foo:bar", ["'foo' is none of the kinds", "http, https, sqlite, postgresql, mysql, mssql"]),
        ("postgresql+nothing://me:secret@host/x", ["postgresql+nothing://me:***@host/x"]),
        ("{folder}/mlruns", ["folder of files", "sqlite:///{folder}/mlflow.db", "mlflow migrate-filestore"]),
        ("http://", ["names no machine", "http://HOST:5000"]),
        (older, ["older MLflow (451aebb31d03)", "mlflow db upgrade 'sqlite:///{folder}/mlflow.db'"]),
        (newer, ["newer MLflow (ffffffffffff) than {version}"]),
        (half_made, ["was killed while it made the tables", "holds no run", "rm '{folder}/mlflow.db'"]),
        (half_migrated, ["up to date was cut off in the middle", "copy"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_store_that_is_none_is_refused_at_once(store, tmp_path, uri, texts):
    """An address or a file that cannot be a store is said in a sentence, with the value and the remedy, at once."""
    (tmp_path / "text.db").write_text("This is no database at all.")
    (tmp_path / "a%41").mkdir()
    if callable(uri):
        uri(tmp_path / "mlflow.db")
        # By another name: the store under its own has been opened by this process before.
        text = refused(f"sqlite:///{tmp_path}/./mlflow.db").replace("/./", "/")
    else:
        text = refused(uri.format(folder=tmp_path))
    for each in texts:
        assert each.format(folder=tmp_path, version=mlflow.__version__) in text


KILLED = """
import contextlib, os, pathlib, random, signal, sys, time
from mlplab import stores

def size():
    found = 0
    for path in pathlib.Path().glob("*.db*"):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_size
    return found

def make():
    stores.Client("sqlite:///mlflow.db").search_experiments()

draw, whole, killed = random.Random(0), int(sys.argv[1]), 0
for _ in range(20):
    wanted = draw.randrange(1, whole)
    if not (child := os.fork()):
        make()
        os._exit(0)
    while size() < wanted and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.001)
    try:
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    except (ProcessLookupError, ChildProcessError):
        pass
    if os.path.exists("mlflow.db"):
        make()
        os.unlink("mlflow.db")
make()
print(killed, *sorted(os.listdir()))
"""


@pytest.mark.slow
def test_a_store_whose_making_was_killed_is_made_by_the_next_command(empty_store, tmp_path):
    """However much of a new store's file is there when its maker is killed, whoever comes next makes it whole."""
    command = [sys.executable, "-c", KILLED, str(empty_store.stat().st_size)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    killed, *left = done.stdout.split()[-3:]
    assert int(killed) >= 10
    assert left == [".mlflow.db.lock", "mlflow.db"]


def test_who_waits_for_a_store_that_another_makes_is_told_by_whom_and_not_for_ever(tmp_path, monkeypatch, caplog):
    """Soon it is said which process makes it; after a while that process counts as stuck, and is named."""
    monkeypatch.setattr(stores, "WORD_SECONDS", 0.05)
    monkeypatch.setattr(stores, "MAKING_SECONDS", 0.2)
    (tmp_path / ".mlflow.db.holder").write_text("process 77 on elsewhere")
    with filelock.FileLock(tmp_path / ".mlflow.db.lock"):
        text = refused(f"sqlite:///{tmp_path}/mlflow.db")
    assert "process 77 on elsewhere makes the tracking store" in caplog.text
    assert f"process 77 on elsewhere has held {tmp_path}/.mlflow.db.lock" in text


def test_a_folder_of_files_that_mlflow_chose_is_said_to_be_its_choice(store, tmp_path):
    """Where no store is named and an old ./mlruns is there, which MLflow takes, the error says so."""
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    mlflow.set_tracking_uri(None)
    text = refused()
    assert str(tmp_path / "mlruns") in text
    assert "MLFLOW_TRACKING_URI is not set" in text


@pytest.mark.parametrize("uri", ["sqlite:////{quoted}/mlflow.db", "sqlite:///mlflow.db"])
def test_a_store_in_a_folder_with_a_percent_sign_works(store, tmp_path, monkeypatch, uri):
    """A folder may be called 100%41: in an address % is %25, and what a relative address means is known anywhere."""
    folder = tmp_path / "100%41 ?"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes((tmp_path / "mlflow.db").read_bytes())
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri.format(quoted=str(folder)[1:].replace("%", "%25").replace("?", "%3F")))
    with parent_run("here", {}) as parent:
        known = parent.parent_ref.store
        parent.finish()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(known)
    assert stores.database_file(known) == folder / "mlflow.db"
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"


def test_what_is_deleted_or_not_there_is_refused_with_the_remedy(store, monkeypatch):
    """An experiment or a project's run that takes nothing is refused before anything runs; restored, it takes it."""
    experiment = store.create_experiment("mine")
    store.delete_experiment(experiment)
    for name, value in (("MLFLOW_EXPERIMENT_NAME", "mine"), ("MLFLOW_EXPERIMENT_ID", experiment)):
        with monkeypatch.context() as patch:
            patch.delenv("MLFLOW_EXPERIMENT_ID")
            patch.setenv(name, value)
            text = refused()
            assert "the experiment 'mine'" in text
            assert (
                f"is deleted, and takes no runs. Restore it: mlflow experiments restore --experiment-id {experiment};"
                in text
            )
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    assert "has no experiment with the id 77" in refused()

    run_id = store.create_run("0").info.run_id
    store.delete_run(run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # as `mlflow run` has it
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    text = refused()
    assert f"MLFLOW_RUN_ID is {run_id}, a run that is deleted" in text
    assert f"Restore it: mlflow runs restore --run-id {run_id};" in text
    store.restore_run(run_id)
    with parent_run("project", {}) as parent:
        parent.finish()
    assert parent.run_id == run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", "d" * 32)
    assert f"MLFLOW_RUN_ID is {'d' * 32}, a run that the tracking store" in refused()


def test_a_relative_address_elsewhere_is_refused_and_makes_no_store_there(store, tmp_path, monkeypatch):
    """`mlflow run` from another folder with a relative address: the file that it means there is named, and not made."""
    monkeypatch.setenv("MLFLOW_RUN_ID", store.create_run("0").info.run_id)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    text = refused("sqlite:///mlflow.db")
    assert f"sqlite:///{folder}/mlflow.db does not have" in text
    assert "'sqlite:///mlflow.db'" in text
    assert "give it an absolute one" in text
    assert not list(folder.iterdir())


@contextlib.contextmanager
def any_user():
    """Inside it this process has no more rights than any user."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder", "new file", "artifacts"])
def test_a_store_that_this_user_may_not_write_to_is_refused(what, store, tmp_path):
    """A read-only file, folder or place of artifacts is found before anything runs, and said by its path."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are for their user alone
        folder = Path(name)
        path, artifacts = folder / "mlflow.db", folder / "artifacts"
        path.write_bytes((tmp_path / "mlflow.db").read_bytes())
        change(path, f"UPDATE experiments SET artifact_location = '{artifacts}/0'")
        artifacts.mkdir()
        for each, mode in {
            "file": {path: 0o444, folder: 0o777},
            "folder": {path: 0o666, folder: 0o555},
            "new file": {folder: 0o555},
            "artifacts": {path: 0o666, artifacts: 0o555, folder: 0o777},
        }[what].items():
            each.chmod(mode)
        meant = {"new file": folder / "new.db", "artifacts": artifacts}.get(what, path)
        try:
            with any_user():
                text = refused(f"sqlite:///{meant if what == 'new file' else path}")
        finally:
            folder.chmod(0o777)
        assert str(meant) in text
        assert "MLFLOW_" in text


def test_a_clock_that_is_set_back_loses_nothing(store, dataset, monkeypatch):
    """Set back by a day in the middle of a command, every point is there, and no run ends before it began."""
    with parent_run("set back", {}, dataset) as parent:
        child = parent.child("a", {}, {}, dataset)
        child.metrics({"loss": 1.0}, 1)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - 86_400)
        child.metrics({"loss": 0.5}, 2)
        child.finish()
        parent.finish()
    assert points(store, child.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    for run in (store.get_run(child.run_id), store.get_run(parent.run_id)):
        assert run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time


def test_a_state_folder_of_another_user_is_refused_with_the_remedy(store, tmp_path, monkeypatch):
    """Who may not write to the folder of what waits is told so, with the variable that names another, before anything
    runs."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are for their user alone
        folder, path = Path(name), Path(name) / "mlflow.db"
        path.write_bytes((tmp_path / "mlflow.db").read_bytes())
        change(path, f"UPDATE experiments SET artifact_location = '{folder}/0'")
        (folder / "state").mkdir()
        for each, mode in ((folder, 0o777), (path, 0o666), (folder / "state", 0o555)):
            each.chmod(mode)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with any_user():
            text = refused(f"sqlite:///{path}")
        assert f"{folder}/state" in text
        assert "XDG_STATE_HOME=" in text
        assert "Nothing was trained" in text


def test_a_server_that_does_not_let_this_user_write_is_refused(server):
    """Who is unknown to a tracking server (401), or may only read (403), is told so before anything runs."""
    with Proxy(server.port) as proxy:
        proxy.fault = lambda method, path: Fault(status=401)
        assert "does not know this user (401). Set MLFLOW_TRACKING_USERNAME" in refused(proxy.uri)
        proxy.fault = lambda method, path: PASS if method == "GET" else Fault(status=403)
        text = refused(proxy.uri)
        assert "does not let this user write to the experiment (403" in text
        assert "MLFLOW_EXPERIMENT_NAME" in text


def test_what_was_checked_is_not_asked_again(store, monkeypatch):
    """The store is looked at once for a command: before anything is loaded, and not when its run begins."""
    asked = []
    ask = command.experiment_of
    monkeypatch.setattr(command, "experiment_of", lambda *given: asked.append(given) or ask(*given))
    for _ in range(2):
        command.check()
        with parent_run("checked", {}) as parent:
            parent.finish()
    assert len(asked) == 2


@pytest.mark.parametrize("over", [False, True], ids=["during", "after"])
@pytest.mark.parametrize("late", [False, True], ids=["main thread", "signal thread"])
def test_an_interrupt_while_the_server_is_dead_says_what_waits(over, late, tmp_path, monkeypatch):
    """What is said of runs that the store has not been told of is what `sync` will make of them."""
    monkeypatch.setattr(stores, "START_SECONDS", 0.5)
    monkeypatch.setattr(stores, "INTERRUPTED_SECONDS", 0.5)
    monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    said = None
    try:
        with pytest.raises(KeyboardInterrupt) as caught, parent_run("dead", {}, command=uuid4().hex) as parent:
            child = parent.child("a", {}, {})
            child.finish()
            if over:
                parent.finish()
            with pytest.raises(UnavailableError):
                parent.flush()  # so that all was said
            if late:
                said = command.abandon()
            raise KeyboardInterrupt
    finally:
        mlflow.set_tracking_uri(None)
    (note,) = caught.value.__notes__
    assert said in (None, note)
    (session,) = sessions.interrupted()
    assert note.startswith("All trainings were over" if over else "Finished trainings are kept")
    assert str(session.folder) in note
    assert "python -m mlplab sync" in note
    assert [told.status for told in session.runs.values()] == ["FINISHED" if over else "KILLED", "FINISHED"]
    assert ("unfinished" in session.about) is not over
    session.close()


def test_retries_of_mlflow_itself_end_with_the_last_that_wants_them(monkeypatch):
    """Where two threads log a model at a time and the one that began first ends first, MLflow's client then makes no
    request again, as before; it did for the rest of the process."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    first, second = stores.inner_retries(), stores.inner_retries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"
    second.__exit__(None, None, None)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_what_a_run_was_told_is_not_told_twice_by_the_command_that_goes_on(store, dataset):
    """A command that is interrupted and given again has its run, its finished child and each point once."""
    for attempt in (1, 2):
        with (
            contextlib.suppress(KeyboardInterrupt),
            parent_run("again", {}, dataset, command="the same") as parent,
        ):
            done, open_run = parent.child("done", {}, {}), parent.child("open", {}, {})
            assert done.finished is (attempt == 2)
            assert not open_run.finished
            for step in (1, 2, 3):
                done.metrics({"loss": float(step)}, step)
                open_run.metrics({"loss": float(step)}, step)
            done.finish()
            if attempt == 1:
                raise KeyboardInterrupt
            open_run.metrics({"loss": 4.0}, 4)
            open_run.finish()
            parent.finish()
        statuses = {run.info.run_name: run.info.status for run in store.search_runs(["0"])}
        rest = "KILLED" if attempt == 1 else "FINISHED"
        assert statuses == {"again": rest, "open": rest, "done": "FINISHED"}
    assert points(store, done.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert points(store, open_run.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_a_run_that_was_deleted_is_not_gone_on_with(store, dataset):
    """Deleting an interrupted command's run has the command begin anew."""
    found = []
    for _ in range(2):
        with (
            contextlib.suppress(KeyboardInterrupt),
            parent_run("again", {}, dataset, command="another") as parent,
        ):
            raise KeyboardInterrupt
        found.append(parent.run_id)
        store.delete_run(parent.run_id)
    assert found[0] != found[1]


def test_the_projects_run_of_a_command_that_goes_on_points_to_the_run(store, dataset, monkeypatch):
    """Under `mlflow run` the second run is a signpost to the first, which is gone on with."""
    projects = [store.create_run("0").info.run_id for _ in range(2)]
    for project in projects:
        monkeypatch.setenv("MLFLOW_RUN_ID", project)
        with (
            contextlib.suppress(KeyboardInterrupt),
            parent_run("optimizers", {}, dataset, command="a third") as parent,
        ):
            if project == projects[0]:
                raise KeyboardInterrupt
            parent.finish()
    assert parent.run_id == projects[0]
    assert [store.get_run(project).info.status for project in projects] == ["FINISHED", "FINISHED"]
    signpost = store.get_run(projects[1]).data.tags
    assert signpost["mlplab.continues"] == projects[0]
    assert projects[0] in signpost["mlflow.note.content"]


def test_reap_ends_what_has_no_process(store, dataset):
    """Runs of a process that is gone, here or by its silence, are KILLED and named; those of a living one stay."""

    def of_process(key: str, process: str, **more: int):
        said = {"key": key, "session": key, "process": process, **more}
        return store.create_run("0", tags={marks.PLUMBING: json.dumps(said)})

    dead = of_process("d", f"{socket.gethostname()} 999999999 7")
    far = of_process("f", "another-machine 1 1", heartbeat=int(time.time()) - 400)
    near = of_process("n", "another-machine 1 1", heartbeat=int(time.time()) - 200)
    foreign = store.create_run("0")
    lines = []
    with parent_run("alive", {}, dataset) as parent:
        parent.flush()
        assert upkeep.reap(300.0, lines.append) == 2
    status = {run.info.run_id: run.info.status for run in store.search_runs(["0"])}
    assert [status[run.info.run_id] for run in (dead, far, near, foreign)] == ["KILLED", "KILLED", "RUNNING", "RUNNING"]
    assert status[parent.run_id] == "FINISHED"
    assert sorted(line.split()[0] for line in lines) == sorted([dead.info.run_id, far.info.run_id])
