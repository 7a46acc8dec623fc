"""What `mlplab.tracking` promises, against real stores."""

import contextlib
import json
import math
import random
import socket
import time

import mlflow
import numpy as np
import pytest
from conftest import free_port
from faults import Server
from mlflow import MlflowClient

from mlplab import delivery, tracking
from mlplab.spec import UnavailableError, UndeliveredError


def points(client, run_id, name):
    history = client.get_metric_history(run_id, name)
    return [(metric.step, metric.value) for metric in sorted(history, key=lambda m: m.step)]


def test_every_point_arrives_once(store, dataset):
    """More points than one call takes arrive, each once, at their steps."""
    with tracking.parent_run("many", {}, dataset) as parent:
        child = parent.child("a", {}, {}, dataset)
        for step in range(1, 1_201):
            child.metrics({"loss": 1 / step, "accuracy": step}, step)
        child.finish()
        parent.finish()
    assert points(store, child.run_id, "loss") == [(step, 1 / step) for step in range(1, 1_201)]
    assert points(store, child.run_id, "accuracy") == [(step, step) for step in range(1, 1_201)]


def test_points_are_visible_while_the_training_runs(store, dataset):
    """A point logged is in the store before the run ends, without any further call."""
    with tracking.parent_run("live", {}, dataset) as parent:
        parent.metrics({"loss": 0.5}, 1)
        deadline = time.monotonic() + 20
        while not (seen := points(store, parent.run_id, "loss")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert seen == [(1, 0.5)]


def test_a_run_holds_what_was_said_of_it(store, dataset):
    """Params, tags, input with our digest, artifacts, parent and status are on the child, log_seconds on the parent."""
    with tracking.parent_run("said", {"kind": "comparison"}, dataset) as parent:
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
    assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == [dataset.digest]
    assert sorted(file.path for file in store.list_artifacts(child.run_id)) == ["bytes.bin", "note.txt"]
    assert store.get_run(parent.run_id).info.status == "FINISHED"


def test_what_is_not_finite_is_stored_as_nan(store, dataset):
    """Infinity, which MLflow would store as 1.8e308, and NaN are stored as NaN."""
    with tracking.parent_run("nan", {}, dataset) as parent:
        for step, value in enumerate([math.inf, -math.inf, math.nan], start=1):
            parent.metrics({"loss": value}, step)
    values = [value for _, value in points(store, parent.run_id, "loss")]
    assert len(values) == 3
    assert all(math.isnan(value) for value in values)


@pytest.mark.parametrize(("raised", "status"), [(RuntimeError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_whose_block_raises_is_ended(store, dataset, raised, status):
    """An exception in the block ends the run FAILED, an interrupt KILLED, with its points in the store."""
    with pytest.raises(type(raised)), tracking.parent_run("raises", {}, dataset) as parent:
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
    with tracking.parent_run("optimizers", {}, dataset) as parent:
        parent.finish()
    run = store.get_run(project.info.run_id)
    assert parent.run_id == project.info.run_id
    assert run.info.run_name == kept
    assert run.data.params == {"epochs": "5"}
    assert len(store.search_runs(["0"])) == 1


def test_the_experiment_is_that_of_mlflows_own_variable(store, dataset, monkeypatch):
    """MLFLOW_EXPERIMENT_NAME names the experiment of a comparison; it is made on first use and found on the second."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for _ in range(2):
        with tracking.parent_run("optimizers", {}, dataset) as parent:
            parent.finish()
        assert store.get_experiment(store.get_run(parent.run_id).info.experiment_id).name == "mine"
    assert len([e for e in store.search_experiments() if e.name == "mine"]) == 1


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
    with tracking.parent_run("outage", {}, dataset) as parent:
        parent.metrics({"loss": 1.0}, 1)
        server.kill()
        for step in range(2, 50):
            parent.metrics({"loss": float(step) if step % 7 else math.nan}, step)
        time.sleep(2 * delivery.FLUSH_SECONDS)
        server.start()
        parent.finish()
    found = points(MlflowClient(), parent.run_id, "loss")
    assert [step for step, _ in found] == list(range(1, 50))
    np.testing.assert_equal([v for _, v in found], [float(s) if s % 7 else math.nan for s in range(1, 50)])
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"


@pytest.mark.long
def test_a_server_that_stays_dead_is_an_error_in_the_end_and_loses_nothing(server, dataset, monkeypatch):
    """What could not be delivered is named in an error when the comparison ends, and `sync` delivers it later."""
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 2.0)
    said = random.Random(0).random()
    with (
        pytest.raises(UndeliveredError, match=r"did not take everything: .* metric points.*mlplab sync") as caught,
        tracking.parent_run("dead", {}, dataset) as parent,
    ):
        assert parent._writer.settle(20)
        server.kill()
        parent.metrics({"loss": said}, 1)
        parent.finish()
    assert parent.run_id in str(caught.value)
    lines = []
    assert not tracking.sync(lines.append)
    server.start()
    assert MlflowClient().get_run(parent.run_id).info.status == "RUNNING"
    assert tracking.sync(lines.append)
    assert points(MlflowClient(), parent.run_id, "loss") == [(1, said)]
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"
    assert tracking.sync(lines.append)
    assert lines[-1] == "Nothing waits on this machine."


@pytest.mark.long
def test_a_server_that_is_not_there_at_first_is_said_at_once(empty_store, tmp_path, dataset, monkeypatch):
    """With a tracking server that does not answer the block runs all the same, the user is told, nothing is lost."""
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(tracking, "START_SECONDS", 0.5)
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    port, lines = free_port(), []
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    try:
        with (
            pytest.raises(UndeliveredError),
            tracking.parent_run("none", {}, dataset, say=lines.append) as parent,
        ):
            child = parent.child("a", {"learning_rate": 1}, {})
            child.metrics({"loss": 1.0}, 1)
            child.tags({"parent": f"under {parent.run_id}"})
            child.finish()
            parent.finish()
        assert "does not answer" in lines[0]
        with Server(tmp_path, port=port):
            assert tracking.sync(lines.append)
            runs = {run.info.run_name: run for run in MlflowClient().search_runs(["0"])}
            assert {name: run.info.status for name, run in runs.items()} == {"none": "FINISHED", "a": "FINISHED"}
            assert runs["a"].data.tags["parent"] == f"under {runs['none'].info.run_id}"
            assert points(MlflowClient(), runs["a"].info.run_id, "loss") == [(1, 1.0)]
    finally:
        mlflow.set_tracking_uri(None)


def test_a_store_in_a_file_that_cannot_be_made_is_refused_before_anything_runs(dataset):
    """A store that is no server and not to be had is an error with a remedy before the block runs."""
    mlflow.set_tracking_uri("sqlite:////proc/nowhere/mlflow.db")
    try:
        with pytest.raises(UnavailableError, match="MLFLOW_TRACKING_URI"), tracking.parent_run("none", {}, dataset):
            pytest.fail("the block ran")
    finally:
        mlflow.set_tracking_uri(None)


def test_what_a_run_was_told_is_not_told_twice_by_the_command_that_goes_on(store, dataset):
    """A command that is interrupted and given again has its run, its finished child and each point once."""
    for attempt in (1, 2):
        with (
            contextlib.suppress(KeyboardInterrupt),
            tracking.parent_run("again", {}, dataset, command="the same") as parent,
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
            tracking.parent_run("again", {}, dataset, command="another") as parent,
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
            tracking.parent_run("optimizers", {}, dataset, command="a third") as parent,
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
        return store.create_run("0", tags={delivery.PLUMBING: json.dumps(said)})

    dead = of_process("d", f"{socket.gethostname()} 999999999 7")
    far = of_process("f", "another-machine 1 1", heartbeat=int(time.time()) - 400)
    near = of_process("n", "another-machine 1 1", heartbeat=int(time.time()) - 200)
    foreign = store.create_run("0")
    lines = []
    with tracking.parent_run("alive", {}, dataset) as parent:
        assert parent._writer.settle(20)
        assert tracking.reap(300.0, lines.append) == 2
    status = {run.info.run_id: run.info.status for run in store.search_runs(["0"])}
    assert [status[run.info.run_id] for run in (dead, far, near, foreign)] == ["KILLED", "KILLED", "RUNNING", "RUNNING"]
    assert status[parent.run_id] == "FINISHED"
    assert sorted(line.split()[0] for line in lines) == sorted([dead.info.run_id, far.info.run_id])
