"""A recorded training, executed again."""

import json
from dataclasses import replace

import mlflow
import pytest
from test_run import COMPARISON, Quiet, below, perform
from words import choices

from mlplab import __main__ as command_line
from mlplab import lookup, replay
from mlplab.checks import UsageError

SMALL = COMPARISON.only(["RMSprop"]).with_base(**choices(epochs=3, dropout=0.2))


@pytest.fixture
def recorded(store, dataset):
    """A training of three epochs with dropout: (run id, its record)."""
    run_id = perform(SMALL, dataset).results[0].run_id
    return run_id, replay.read(run_id)


def test_a_replay_on_the_same_machine_is_equal_to_the_bit(recorded, dataset):
    """Every metric of every epoch, the test metrics and the final weights are those of the record."""
    _, record = recorded
    outcome, result = replay.replay(record, dataset, Quiet())
    assert outcome.equal, outcome.sentence
    assert outcome.causes == ()
    assert (outcome.epochs, result.epochs) == (3, 3)
    assert outcome.metrics == len(result.history) - 1
    assert outcome.sentence.startswith(f"Equal to the bit: {outcome.metrics} metrics at 3 epochs")


def test_a_replay_names_the_first_difference_and_the_likely_cause(recorded, dataset):
    """A training that comes out otherwise is said with the metric, the epoch, both values, and what has changed."""
    _, record = recorded
    record["result"]["history"]["val_loss"][1] += 1e-7
    record["circumstances"] |= {"version.keras": "3.0", "cpu.cores": "64"}
    outcome, result = replay.replay(record, dataset, Quiet())
    assert not outcome.equal
    assert outcome.differences[0].startswith("val_loss at epoch 2 is ")
    assert repr(result.history["val_loss"][1]) in outcome.sentence
    assert "version.keras is 3.15.1 and was 3.0: another version computes otherwise" in outcome.sentence
    assert "cpu.cores is" in outcome.sentence


def test_other_weights_alone_are_a_difference(recorded, dataset):
    """Where all metrics agree and the final weights do not, or the start was another, it is not equal."""
    _, record = recorded
    record["result"]["end"] = "0" * 16
    outcome, _ = replay.replay(record, dataset, Quiet())
    assert len(outcome.differences) == 1
    assert "the final weights" in outcome.differences[0]
    record["result"]["order"] = "0" * 16
    outcome, _ = replay.replay(record, dataset, Quiet())
    assert outcome.differences[0] == "the batch order is another"
    assert "nothing on record differs" in outcome.sentence


def test_other_data_are_refused(recorded, dataset):
    """A replay on other images would say nothing: both digests are in the error."""
    _, record = recorded
    with pytest.raises(UsageError, match=f"{'0' * 32}.*{dataset.digest}"):
        replay.replay(record, replace(dataset, digest="0" * 32), Quiet())


def test_the_command_replays_a_run_in_the_store(recorded, store, capsys):
    """`replay --run-id` exits with 0, and leaves a run with the curves, the outcome and a link to what it repeats."""
    run_id, record = recorded
    assert command_line.main(["replay", "--run-id", run_id]) == 0
    assert "Equal to the bit" in capsys.readouterr().out
    (again,) = [r for r in store.search_runs(["0"]) if r.data.tags.get("replay.of") == run_id]
    assert again.info.status == "FINISHED"
    assert again.data.tags["replay.equal"] == "true"
    assert json.loads(lookup.read_artifact(again.info.run_id, "replay.json"))["equal"] is True
    points = store.get_metric_history(again.info.run_id, "val_loss")
    assert [p.value for p in points] == record["result"]["history"]["val_loss"]


def test_a_run_that_is_no_training_is_refused_as_what_it_is(recorded, store, capsys):
    """Whatever else is named is said to be what it is, with the trainings that may have been meant, at exit code 2."""
    training, _ = recorded
    (parent,) = [r for r in store.search_runs(["0"]) if r.info.run_name.startswith("trial ·")]
    assert below(store, parent)
    foreign = store.create_run("0", run_name="somebody's").info.run_id
    unfinished = store.create_run("0", run_name="SGD", tags={"mlplab.kind": "training"}).info.run_id
    deleted = store.create_run("0").info.run_id
    store.delete_run(deleted)
    for run_id, said in {
        parent.info.run_id: f"the comparison {parent.info.run_name!r}; legal: the id of a finished training, such as "
        f"one of its own: {training} (RMSprop).",
        foreign: '"somebody\'s", a run of another program; legal: the id of a finished training.',
        unfinished: "the training 'SGD', which is RUNNING and not FINISHED; legal: the id of a finished training.",
        deleted: "a run that is deleted in the tracking store",
        "0"
        * 32: f"and the tracking store {mlflow.get_tracking_uri()} has no such run; legal: the id of one of its runs",
        "../x": "has no such run",
    }.items():
        for command in (["replay"], ["register", "--dataset", "digits"]):
            assert command_line.main([*command, "--run-id", run_id]) == 2
            err = capsys.readouterr().err
            assert err.startswith(f"mlplab: run_id is {run_id!r}, ")
            assert said in err
    assert not [run for run in store.search_runs(["0"]) if run.info.run_name.startswith("replay ·")]
    store.delete_run(foreign)
