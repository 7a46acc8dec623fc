"""What `mlplab.tracking` promises, against real stores."""

import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from mlplab import tracking
from mlplab.spec import UnavailableError


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
    """Params, tags, input with our digest, text and file artifacts, parent, status and log_seconds are on the child."""
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
    assert run.data.metrics["log_seconds"] > 0
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


class FlakyClient:
    """Takes what a client takes and fails as told."""

    def __init__(self, failures):
        self.failures = failures
        self.taken = {}

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        if next(self.failures, False):
            raise ConnectionError("gone")
        self.taken.setdefault(run_id, []).extend(m.step for m in metrics)

    def mark(self, run_id, value):
        if next(self.failures, False):
            raise ConnectionError("gone")
        self.taken.setdefault(run_id, []).append(value)


@settings(deadline=None, max_examples=200)
@given(
    writes=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=40),
    failures=st.lists(st.booleans(), max_size=20),
    pauses=st.sets(st.integers(0, 40)),
)
def test_any_interleaving_of_failures_leaves_each_run_complete_and_in_order(writes, failures, pauses):
    """Whatever calls fail and whenever the writer delivers, in the end each run has every write once, in order."""
    client = FlakyClient(iter(failures))
    writer = tracking._Writer(client)
    for number, (run_id, is_call) in enumerate(writes):
        if is_call:
            call = lambda run_id=run_id, number=number: client.mark(run_id, number)  # noqa: E731
            writer.put(tracking._Item(run_id, call=call))
        else:
            writer.put(tracking._Item(run_id, metrics=(SimpleNamespace(step=number),)))
        if number in pauses:
            writer._deliver()
    for _ in range(len(failures) + 1):
        writer._deliver()
    assert client.taken == {
        run_id: numbers
        for run_id in "ab"
        if (numbers := [number for number, (owner, _) in enumerate(writes) if owner == run_id])
    }


def start_server(folder, port):
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with open(folder / "server.log", "a") as log:
        server = subprocess.Popen(
            [*command, *store], stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.2)
    raise AssertionError((folder / "server.log").read_text())


def stop_server(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture
def server(empty_store, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    running = SimpleNamespace(folder=tmp_path, port=port, process=start_server(tmp_path, port))
    mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
    yield running
    mlflow.set_tracking_uri(None)
    if running.process.poll() is None:
        stop_server(running.process)


def test_a_server_killed_and_back_loses_no_point(server, dataset):
    """Points logged while the tracking server is dead arrive once it is back, each once, NaN among them."""
    with tracking.parent_run("outage", {}, dataset) as parent:
        parent.metrics({"loss": 1.0}, 1)
        stop_server(server.process)
        for step in range(2, 50):
            parent.metrics({"loss": float(step) if step % 7 else math.nan}, step)
        time.sleep(2 * tracking.FLUSH_SECONDS)
        server.process = start_server(server.folder, server.port)
        parent.finish()
    found = points(MlflowClient(), parent.run_id, "loss")
    assert [step for step, _ in found] == list(range(1, 50))
    np.testing.assert_equal([v for _, v in found], [float(s) if s % 7 else math.nan for s in range(1, 50)])
    assert MlflowClient().get_run(parent.run_id).info.status == "FINISHED"


def test_a_server_that_stays_dead_is_an_error_in_the_end(server, dataset):
    """What could not be delivered is named in an error when the comparison ends; no training is disturbed before."""
    said = random.Random(0).random()
    with (
        pytest.raises(UnavailableError, match=r"did not take everything: .* metric points") as caught,
        tracking.parent_run("dead", {}, dataset) as parent,
    ):
        stop_server(server.process)
        parent.metrics({"loss": said}, 1)
    assert parent.run_id in str(caught.value)


def test_a_store_that_is_not_there_is_refused_before_anything_runs(dataset, monkeypatch):
    """A tracking server that does not answer is an error with a remedy before the block runs."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    try:
        with pytest.raises(UnavailableError, match="MLFLOW_TRACKING_URI"), tracking.parent_run("none", {}, dataset):
            pytest.fail("the block ran")
    finally:
        mlflow.set_tracking_uri(None)
