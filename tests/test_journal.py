"""What a journal promises, and that what it holds arrives, whatever fails and whenever a process is killed."""

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import mlflow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric

from mlplab import marks, upkeep
from mlplab.checks import UsageError
from mlplab.store import journal, recorder, sessions

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
    session = sessions.open_session(ABOUT)
    writer = recorder.Recorder(session, lambda line: None, client=store)
    writer.to_store.experiment = "0"
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
            keys = {name: journal.child_key(session.key, name) for name in "ab"}
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
                session.append([(key, operation)])
                moment += 1
                if moment in deliveries:
                    writer.deliver()
                if moment in kills:
                    kills.discard(moment)
                    session.release()
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


def points(number):
    return [("run", {"op": "batch", "metrics": [["loss", step / 7, step, step]]}) for step in range(1, number + 1)]


def pending(session):
    told = session.runs.get("run")
    return [operation["metrics"][0] for _, operation in told.pending] if told else []


@settings(max_examples=60)
@given(st.data())
def test_a_record_that_was_being_written_when_the_power_failed_is_not_there(data):
    """However much of the last records' bytes reached the disk, a journal is read up to a whole record, names no
    damage, and is written on from there."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", folder)
        session = sessions.open_session(ABOUT)
        every = points(8)
        for entry in every:
            session.append([entry])
        wal = session.folder / "journal.db-wal"
        content, database = wal.read_bytes(), (session.folder / "journal.db").read_bytes()
        session.release()
        (session.folder / "journal.db").write_bytes(database)
        wal.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        found = sessions.open_session(ABOUT)
        if found.resumed:
            assert found.damaged == ""
            known = pending(found)
            assert known == [entry["metrics"][0] for _, entry in every][: len(known)]
            found.append(every)
            assert pending(found) == [entry["metrics"][0] for _, entry in every]
        else:
            assert not session.folder.exists()
        found.release()


@settings(max_examples=60)
@given(st.data())
def test_a_flipped_bit_never_reads_as_another_number(data):
    """Whichever byte of a journal changes, each record that is read is one that was written, and what is missing is
    named, or the session cannot be read; opening it raises nothing else."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", folder)
        session = sessions.open_session(ABOUT)
        session.append(points(200))
        session.release()
        path = session.folder / "journal.db"
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        found = list(sessions.interrupted())
        if not found:  # the tables are as if they were never made
            return
        if isinstance(found[0], journal.UnreadableError):
            assert str(session.folder) in str(found[0])
            return
        known, written = pending(found[0]), [entry["metrics"][0] for _, entry in points(200)]
        assert [point for point in written if point in known] == known
        assert (len(known) == 200) or found[0].damaged
        found[0].release()


def damaged(path, how):
    """Does to a session's journal what `how` says; returns what it must still be afterwards."""
    target = path.parent.parent.parent / "somebody's"
    target.write_text("else's")
    path.unlink()
    if how == "a pipe":
        os.mkfifo(path)
    elif how == "a folder":
        path.mkdir()
    elif how == "a link":
        path.symlink_to(target)
    elif how == "no database":
        path.write_text("[]")
    elif how == "an older one's":
        (path.parent / "journal.jsonl").write_text("{}")
    else:
        database = journal.connected(path)
        for statement in journal.TABLES.split(";"):
            database.execute(statement)
        body = how.encode()
        checksum = zlib.crc32(b"about" + body)
        database.execute("INSERT INTO state VALUES ('about', CAST(? AS TEXT), ?)", (body, checksum))
        database.close()
    return target


@pytest.mark.parametrize(
    "how", ["a pipe", "a folder", "a link", "no database", "an older one's", "[]", "{}", '{"key": 1}', "nothing"]
)
def test_a_session_that_cannot_be_read_is_named_and_set_aside_and_all_else_goes_on(how):
    """A journal that is none is left as it is, in a folder for such; another session goes on, and `sync` names it."""
    bad = sessions.open_session(ABOUT | {"command": "bad"})
    bad.append(points(1))
    bad.release()
    good = sessions.open_session(ABOUT)
    good.append(points(2))
    good.release()
    target = damaged(bad.folder / "journal.db", how)
    said = []
    again = sessions.open_session(ABOUT, say=said.append)
    assert again.key == good.key
    other = sessions.open_session(ABOUT | {"command": "other"}, say=said.append)
    other.release()
    again.delivered(again.runs["run"], 2)
    again.release()
    aside = sessions.damaged_dir() / bad.key
    assert target.read_text() == "else's"
    if how == "an older one's":  # which its own version is to find
        assert said == []
        assert bad.folder.is_dir()
    else:
        (line,) = said
        assert str(bad.folder) in line
        assert str(aside) in line
        assert not bad.folder.exists()
        assert aside.is_dir()
    lines = []
    assert not upkeep.sync(lines.append)
    assert any(bad.key in line and "--discard" in line for line in lines)
    upkeep.discard(bad.key, lines.append)
    assert not aside.exists()
    assert not bad.folder.exists()


def test_what_waits_may_be_given_up():
    """`sync --discard` removes the session it names, says what is lost, and refuses one in use or unknown."""
    session, other = sessions.open_session(ABOUT), sessions.open_session(ABOUT | {"command": "other"})
    session.append(points(3))
    with pytest.raises(UsageError, match="a process works on"):
        upkeep.discard(session.key, print)
    session.release()
    other.release()
    with pytest.raises(UsageError, match=session.key):
        upkeep.discard("../sessions", print)
    lines = []
    upkeep.discard(session.key, lines.append)
    assert "3 metric points of 1 runs" in lines[0]
    assert not session.folder.exists()
    assert other.folder.exists()


def test_an_artifact_is_kept_until_it_is_on_disk_that_the_store_has_it(monkeypatch):
    """Killed when the store had taken an artifact and that was not noted, it is there to be delivered again."""
    session = sessions.open_session(ABOUT)
    name = session.file("note.txt", lambda path: path.write_text("kept"))
    session.append([(session.key, {"op": "artifact", "file": name})])
    told = session.runs[session.key]

    def killed(**how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session, "_write", killed)
        session.delivered(told, 1)
    session.release()
    again = sessions.open_session(ABOUT)
    ((_, operation),) = again.runs[again.key].pending
    path = again.folder / "files" / operation["file"]
    assert path.read_text() == "kept"
    again.delivered(again.runs[again.key], 1)
    assert not path.exists()
    again.close()


def test_a_session_is_one_processs():
    """What a living process works on is not gone on with: the same command begins a session of its own."""
    first = sessions.open_session(ABOUT)
    code = f"from mlplab.store import sessions; print(sessions.open_session({ABOUT!r}).key)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other != first.key
    assert sessions.in_use(first.key) is True
    assert sessions.in_use(other) is False
    assert sessions.in_use("0" * 32) is None
    first.close()
    third = sessions.open_session(ABOUT)
    assert third.resumed
    third.close()


def test_another_users_session_is_left_alone(monkeypatch):
    """Where two users share a folder for their state, neither opens, names or moves what the other has there."""
    theirs = sessions.open_session(ABOUT)
    theirs.append(points(1))
    theirs.release()
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    assert list(sessions.interrupted()) == []
    lines = []
    assert upkeep.sync(lines.append)
    assert lines == ["Nothing waits on this machine."]
    assert theirs.folder.exists()


def test_another_command_does_not_go_on_with_it():
    """A session is gone on with by the same command on the same store alone."""
    first = sessions.open_session(ABOUT)
    first.close()
    for change in ({"command": "another"}, {"store": "sqlite:////elsewhere.db"}, {"command": None}):
        other = sessions.open_session(ABOUT | change)
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
        session = sessions.open_session(ABOUT)
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


def test_a_full_disk_ends_no_training_and_what_it_did_not_take_follows():
    """What the disk does not take is still said, from memory; when there is room again it is written, in its order."""
    session = sessions.open_session(ABOUT)
    # SQLite then says what it says of a full disk.
    (pages,) = session.database.execute("PRAGMA page_count").fetchone()
    session.database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(1, 400):
        session.append(points(number))
    assert "full" in str(session.broken)
    assert len(pending(session)) == 399
    session.database.execute("PRAGMA max_page_count = 1000000")
    session.append(points(400))
    assert session.broken is None
    session.release()
    again = sessions.open_session(ABOUT)
    assert pending(again) == [entry["metrics"][0] for _, entry in points(400)]
    assert again.damaged == ""
    again.release()


def test_what_a_full_disk_did_not_take_is_not_delivered_before_the_commands_end():
    """A command that is killed would say it again, with other times: so the store gets it when nothing more is said."""
    store = Store(iter(()))
    session, writer = opened(store)
    tags = marks.plumbing("run", session.key)
    session.append([("run", {"op": "create", "name": "a", "tags": tags, "start": 0}), *points(1)])
    (pages,) = session.database.execute("PRAGMA page_count").fetchone()
    session.database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(2, 400):
        session.append(points(number))
    assert session.broken
    writer.deliver()
    assert 1 <= len(store.points["run-0"]) == session.written - 1 < 399
    writer.start()
    assert writer.flush(30.0)
    assert [step for _, _, step, _ in store.points["run-0"]] == list(range(1, 400))
    writer.stop()
    session.release()


def test_an_artifact_that_a_full_disk_does_not_take_goes_to_another(monkeypatch, tmp_path):
    """Where this disk is full an artifact is made elsewhere, and where each is there is none; nothing raises."""
    session = sessions.open_session(ABOUT)
    full = []

    def save(path):
        if any(str(path).startswith(str(each)) for each in full):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_text("a figure")

    full.append(session.folder)
    name = session.file("a.png", save)
    assert (session.folder / "files" / name).read_text() == "a figure"
    assert not (session.folder / "files" / name).is_relative_to(session.folder)
    assert "No space left" in str(session.broken)
    full.append("/")
    assert session.file("b.png", save) is None
    with pytest.raises(FileNotFoundError):
        session.file("c.png", lambda path: Path("/nowhere/at all").read_text())
    session.release()


def test_old_sessions_that_nobody_needs_are_forgotten():
    """A delivered session that was interrupted two weeks ago goes; one that still holds something stays."""
    ages = {}
    for command, waits in (("delivered", False), ("waiting", True)):
        session = sessions.open_session(ABOUT | {"command": command})
        if waits:
            session.append([("run", {"op": "batch", "metrics": [["loss", 1.0, 1, 1]]})])
        session.about["started"] = 0
        session.unfinished(None)
        session.close()
        ages[command] = session.folder
    sessions.open_session(ABOUT | {"command": "a third"}).close()
    assert not ages["delivered"].exists()
    assert ages["waiting"].exists()


def test_metric_takes_a_journals_point():
    """A point in the journal is, in its order, what MLflow's Metric is made of."""
    metric = Metric(*["loss", 0.5, 7, 3])
    assert (metric.key, metric.value, metric.timestamp, metric.step) == ("loss", 0.5, 7, 3)


def test_the_folder_is_the_users_state(tmp_path):
    """Sessions lie under XDG_STATE_HOME."""
    assert sessions.sessions_dir() == Path(tmp_path / "state/mlplab/sessions")
