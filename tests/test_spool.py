"""What `mlplab.spool` promises, and that what it holds arrives, whatever fails and whenever a process is killed."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric

from mlplab import delivery, marks, spool

ABOUT = {"command": "a comparison", "store": "sqlite:////nowhere/mlflow.db", "experiment": {"id": "0"}}


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def a_run(run_id):
    return mlflow.entities.Run(mlflow.entities.RunInfo(run_id, "0", "me", "RUNNING", 0, 0, "active"), None)


class Store:
    """Keeps what MLflow's server keeps, as it does; before or after a call it may fail."""

    def __init__(self, failures):
        self.failures = failures
        self.runs, self.points, self.texts, self.ended = {}, {}, {}, {}

    def _call(self, work):
        failure = next(self.failures, None)
        if failure == "refused":
            raise ConnectionError("nobody listens")
        found = work()
        if failure == "answer lost":
            raise ConnectionError("the answer was lost")
        return found

    def create_run(self, experiment_id, start, tags, name):
        def work():
            run_id = f"run-{len(self.runs)}"
            self.runs[run_id] = tags
            return mlflow.entities.Run(
                mlflow.entities.RunInfo(run_id, experiment_id, "me", "RUNNING", 0, 0, "active"), None
            )

        return self._call(work)

    def search_runs(self, experiments, query, order_by=()):
        start = query.split("'")[1].removesuffix("%")
        found = [run_id for run_id, tags in self.runs.items() if tags[marks.PLUMBING].startswith(start)]
        return self._call(lambda: [a_run(run_id) for run_id in found])

    def log_batch(self, run_id, metrics=(), params=(), tags=(), synchronous=None):
        def work():
            for metric in metrics:
                # As the primary key of MLflow's table of metrics: what is there already is left alone.
                self.points.setdefault(run_id, {})[metric.key, metric.timestamp, metric.step, metric.value] = None

        return self._call(work)

    def log_text(self, run_id, text, path):
        return self._call(lambda: self.texts.setdefault(run_id, {}).update({path: text}))

    def set_terminated(self, run_id, status, ended):
        return self._call(lambda: self.ended.update({run_id: (status, len(self.points.get(run_id, ())))}))

    def update_run(self, run_id, status):
        return self._call(lambda: self.ended.pop(run_id, None))

    def get_experiment(self, experiment_id):
        return mlflow.entities.Experiment(experiment_id, "Default", "", "active", tags=[])

    def set_experiment_tag(self, *arguments):
        pass


def opened(store):
    session = spool.open_session(ABOUT)
    writer = delivery.Writer(session, lambda line: None, client=store)
    writer.experiment = "0"
    return session, writer


@settings(max_examples=150)
@given(
    told=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=25),
    failures=st.lists(st.sampled_from(["refused", "answer lost", None]), max_size=30),
    kills=st.sets(st.integers(0, 30), max_size=4),
    deliveries=st.sets(st.integers(0, 30)),
)
def test_any_interleaving_of_failures_and_kills_leaves_each_run_complete(told, failures, kills, deliveries):
    """Whatever calls fail or lose their answer, and wherever the process dies and says it all again: one run a key, one
    point a step, in order, texts with the store's names of runs, and no run ended before it had everything."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", folder)
        store = Store(iter(failures))
        moment = 0
        kills = set(kills)
        over = False
        while not over:
            session, writer = opened(store)
            keys = {name: spool.child_key(session.key, name) for name in "ab"}
            tags = marks.plumbing(session.key, session.key)
            lines = [(session.key, {"op": "create", "name": "top", "tags": tags, "start": 0})]
            for name, key in keys.items():
                tags = marks.plumbing(key, session.key)
                lines.append((key, {"op": "create", "name": name, "tags": tags, "start": 0, "parent": session.key}))
            for number, (name, is_text) in enumerate(told):
                # A point that is said again after a kill is said at another time, as a training's would be.
                metric = ["loss", float(number), time.time_ns(), number]
                text = {"op": "text", "text": f"{number} of {session.key}", "path": f"{number}.txt"}
                lines.append((keys[name], text if is_text else {"op": "batch", "metrics": [metric]}))
            lines += [(key, {"op": "status", "status": "FINISHED", "ended": 0}) for key in keys.values()]
            lines.append((session.key, {"op": "status", "status": "FINISHED", "ended": 0}))
            over = True
            for key, operation in lines:
                known = session.runs.get(key)
                if operation["op"] == "create" and known:
                    continue
                session.append(key, operation)
                moment += 1
                if moment in deliveries:
                    writer.deliver()
                if moment in kills:
                    kills.discard(moment)
                    session.journal.close()
                    os.close(session.held)
                    over = False
                    break
        for _ in range(len(failures) + len(lines) + 3):
            writer.deliver()
        assert session.waiting == []
        by_key = {}
        for run_id, tags in store.runs.items():
            by_key.setdefault(json.loads(tags[marks.PLUMBING])["key"], []).append(run_id)
        kept = {key: session.runs[key].run_id for key in by_key}
        assert set(by_key) == {session.key, *keys.values()}
        assert all(len(run_ids) == 1 for run_ids in by_key.values())
        for name, key in keys.items():
            mine = [number for number, (owner, is_text) in enumerate(told) if owner == name and not is_text]
            points = [p for p in store.points.get(kept[key], {}) if p[0] == "loss"]
            assert [step for _, _, step, _ in points] == mine
            assert [value for *_, value in points] == [float(number) for number in mine]
            texts = [number for number, (owner, is_text) in enumerate(told) if owner == name and is_text]
            assert store.texts.get(kept[key], {}) == {f"{n}.txt": f"{n} of {kept[session.key]}" for n in texts}
            assert store.ended[kept[key]] == ("FINISHED", len(mine))
        # `log_seconds` of the whole.
        assert store.ended[kept[session.key]] == ("FINISHED", 1)
        session.close()
        assert not session.folder.exists()


def test_a_line_cut_off_by_a_kill_is_forgotten():
    """A journal whose last line was being written is read up to there, and written on from there."""
    session = spool.open_session(ABOUT)
    session.append(session.key, {"op": "create", "name": "a", "tags": {}, "start": 0})
    session.append(session.key, {"op": "batch", "metrics": [["loss", 1.0, 1, 1]]})
    session.journal.close()
    os.close(session.held)
    journal = session.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    again = spool.open_session(ABOUT)
    assert again.resumed
    assert again.key == session.key
    assert again.runs[again.key].points == set()
    again.append(again.key, {"op": "batch", "metrics": [["loss", 1.0, 2, 1]]})
    assert [json.loads(line)["op"] for line in journal.read_text().splitlines()] == ["create", "batch"]
    again.close()


def test_an_artifact_is_kept_until_it_is_on_disk_that_the_store_has_it(monkeypatch):
    """Killed when the store had taken an artifact and that was not noted, it is there to be delivered again."""
    session = spool.open_session(ABOUT)
    path, name = session.file("note.txt")
    path.write_text("kept")
    session.append(session.key, {"op": "artifact", "file": name})
    told = session.runs[session.key]

    def killed():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session, "note", killed)
        session.delivered(told, 1)
    session.journal.close()
    os.close(session.held)
    again = spool.open_session(ABOUT)
    (operation,) = again.runs[again.key].pending
    assert (again.folder / "files" / operation["file"]).read_text() == "kept"
    again.delivered(again.runs[again.key], 1)
    assert not path.exists()
    again.close()


def test_a_session_is_one_processs():
    """What a living process works on is not gone on with: the same command begins a session of its own."""
    first = spool.open_session(ABOUT)
    code = f"from mlplab import spool; print(spool.open_session({ABOUT!r}).key)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other != first.key
    assert spool.in_use(first.key) is True
    assert spool.in_use(other) is False
    assert spool.in_use("0" * 32) is None
    first.close()
    third = spool.open_session(ABOUT)
    assert third.resumed
    third.close()


def test_another_command_does_not_go_on_with_it():
    """A session is gone on with by the same command on the same store alone."""
    first = spool.open_session(ABOUT)
    first.close()
    for change in ({"command": "another"}, {"store": "sqlite:////elsewhere.db"}, {"command": None}):
        other = spool.open_session(ABOUT | change)
        assert not other.resumed
        other.close()


@settings(max_examples=50)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5),
    cut=st.one_of(st.none(), st.integers(0, 400)),
)
def test_what_is_kept_is_whole_or_not_there(shapes, cut):
    """Arrays and values come back as they were; a file cut off anywhere counts as none, and never as something else."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", folder)
        session = spool.open_session(ABOUT)
        arrays = [np.random.default_rng(0).normal(size=shape).astype(np.float32) for shape in shapes]
        session.keep("run", "checkpoint", {"epoch": 3, "loss": float("inf")}, arrays)
        (path,) = (session.folder / "kept").iterdir()
        content = path.read_bytes()
        if cut is not None:
            path.write_bytes(content[:cut])
        found = session.kept("run", "checkpoint")
        if cut is not None and cut < len(content):
            assert found is None
        else:
            assert found is not None
            assert found[0] == {"epoch": 3, "loss": float("inf")}
            for before, after in zip(arrays, found[1], strict=True):
                np.testing.assert_array_equal(before, after)
                assert before.dtype == after.dtype
        session.close()


def test_a_full_disk_ends_no_training(monkeypatch):
    """What the disk does not take is still said, from memory, and the session knows why it is not on disk."""
    session = spool.open_session(ABOUT)

    class Full:
        def write(self, line):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    session.journal = Full()
    session.append("run", {"op": "batch", "metrics": [["loss", 1.0, 1, 1]]})
    assert len(session.runs["run"].pending) == 1
    assert "No space left" in str(session.broken)
    session.close()


def test_old_sessions_that_nobody_needs_are_forgotten():
    """A delivered session that was interrupted two weeks ago goes; one that still holds something stays."""
    ages = {}
    for command, waits in (("delivered", False), ("waiting", True)):
        session = spool.open_session(ABOUT | {"command": command})
        if waits:
            session.append("run", {"op": "batch", "metrics": [["loss", 1.0, 1, 1]]})
        session.close()
        os.utime(session.folder / "session.json", (0, 0))
        ages[command] = session.folder
    spool.open_session(ABOUT | {"command": "a third"}).close()
    assert not ages["delivered"].exists()
    assert ages["waiting"].exists()


def test_metric_takes_a_journals_point():
    """A point in the journal is, in its order, what MLflow's Metric is made of."""
    metric = Metric(*["loss", 0.5, 7, 3])
    assert (metric.key, metric.value, metric.timestamp, metric.step) == ("loss", 0.5, 7, 3)


def test_the_folder_is_the_users_state(tmp_path):
    """Sessions lie under XDG_STATE_HOME."""
    assert spool.sessions_dir() == Path(tmp_path / "state/mlplab/sessions")
