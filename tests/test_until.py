"""A comparison whose seeds are added until the verdicts are clear, as it is run, interrupted and gone on with."""

from dataclasses import replace

import mlflow
import numpy as np
import pytest
from test_run import InterruptedWhen, Quiet, below, perform
from words import mlp

from mlplab import Comparison, Until
from mlplab.building import restored
from mlplab.results import outcomes
from mlplab.verdicts import BETTER

# Nothing is learned with the first, so that it is soon told from the others, which take longer to be told apart.
COMPARISON = Comparison(
    name="until",
    question="Which rate is best?",
    data="mnist",
    base=mlp(hidden=(32,), epochs=6),
    variants={"none": {"learning_rate": 1e-7}, "some": {"learning_rate": 0.1}, "more": {"learning_rate": 0.11}},
    seeds=Until(most=8, look_every=4, first=7),
    margin=0.008,
)

FOUR, EIGHT = [7, 8, 9, 10], [7, 8, 9, 10, 11, 12, 13, 14]


def trained(record):
    return {outcome.variant.name: [result.seed for result in outcome.results] for outcome in outcomes(record.results)}


def decisions(record):
    return [
        (v.measure, v.a, v.b, v.seeds, v.looks, v.decision) for v in record.verdicts if v.measure != "train_seconds"
    ]


@pytest.fixture(scope="module")
def recorded(empty_store, tmp_path_factory, dataset):
    """The comparison, killed in its second look and gone on with: (record, client, parent, the second command's
    watch); the store stays the default for what comes after."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    with pytest.raises(KeyboardInterrupt):
        perform(COMPARISON, dataset, InterruptedWhen(lambda result: result.seed == 12))
    watch = Quiet()
    record = perform(COMPARISON, dataset, watch)
    client = mlflow.MlflowClient()
    (parent,) = [r for r in client.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags]
    yield record, client, parent, watch
    mlflow.set_tracking_uri(None)


def test_a_variant_in_no_open_pair_is_trained_no_further(recorded):
    """What is told from all others at the first look has the seeds of that look, the others those of both; verdicts and
    runs say with how many."""
    record, client, parent, _ = recorded
    assert trained(record) == {"none": FOUR, "some": EIGHT, "more": EIGHT}
    assert record.looks == (4, 8)
    of = {frozenset((v.a, v.b)): v for v in record.verdicts if v.measure == "val_accuracy"}
    assert {pair: verdict.seeds for pair, verdict in of.items()} == {
        frozenset(("some", "none")): 4,
        frozenset(("more", "none")): 4,
        frozenset(("more", "some")): 8,
    }
    assert of[frozenset(("more", "none"))].decision == BETTER
    assert "looked at twice" in of[frozenset(("more", "some"))].sentence
    runs = below(client, parent)
    assert {name: len(below(client, run)) for name, run in runs.items()} == {"none": 4, "some": 8, "more": 8}
    points = client.get_metric_history(parent.info.run_id, "open_verdicts")
    assert sorted((point.step, point.value) for point in points) == [(4, 1.0), (8, 0.0)]


def test_killed_it_goes_on_where_it_was(recorded):
    """Given again, the command trains what it had not, looks at what it has as it did, and ends as if undisturbed."""
    _, client, _, watch = recorded
    assert [one[0] for one in watch.seen].count("recalled") == 12
    started = [one for one in watch.seen if one[0] == "started"]
    assert len(started) == 20 - 12
    assert all(run.info.status == "FINISHED" for run in client.search_runs(["0"]))


@pytest.mark.slow
def test_more_seeds_go_on_with_the_same_test(recorded, dataset):
    """With more seeds allowed nothing is trained twice, every look that was made counts, what it decided stays, and the
    winner's model is the one that was trained before."""
    before, client, *_ = recorded
    watch = Quiet()
    more = perform(replace(COMPARISON, seeds=Until(most=10, look_every=2, first=7)), dataset, watch)
    assert more.looks[:2] == (4, 8)
    assert [one[0] for one in watch.seen].count("recalled") == 20
    assert trained(more)["none"] == FOUR
    assert more.verdicts[0] == before.verdicts[0]
    known = {(r.variant.name, r.seed): r for r in more.results}
    for result in before.results:
        again = known[result.variant.name, result.seed]
        assert again.history == result.history
        assert again.run_id != result.run_id
        assert client.get_run(again.run_id).data.tags["mlplab.reused_from"] == result.run_id
    first, again = (outcomes(record.results)[1].representative for record in (before, more))
    kept = restored(again, dataset)
    kept.load_weights(client.download_artifacts(again.run_id, "model.keras"))
    for one, other in zip(restored(first, dataset).get_weights(), kept.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_fixed_number_of_seeds_counts_as_a_look(store, dataset):
    """Who has seen the verdicts of so many seeds has looked: a test that goes on from there has a look there."""
    two = COMPARISON.only(["some", "more"]).with_base(epochs=1)
    perform(replace(two, seeds=(7, 8)), dataset)
    record = perform(replace(two, seeds=Until(most=5, look_every=4, first=7)), dataset)
    assert record.looks == (2, 5)


@pytest.mark.slow
def test_workers_train_the_same(recorded, dataset):
    """On two worker processes, which stay from look to look, the same seeds are trained and decide the same."""
    record, *_ = recorded
    again = perform(replace(COMPARISON, name="workers", question="On workers?"), dataset, jobs=2)
    assert trained(again) == trained(record)
    assert decisions(again) == decisions(record)
