"""A comparison trained with several seeds: what is shared, what is recorded, and what is said of it."""

import csv
import io
import json
import math
from collections import Counter
from dataclasses import asdict

import keras
import mlflow
import numpy as np
import pytest
from rich.console import Console
from test_run import InterruptedWhen, Quiet, artifacts, assert_readable, below, perform, read
from words import choices, mlp

import mlplab
from mlplab import Comparison, figures, lookup, machine, programs, terminal, verdict_figures
from mlplab.records import Record
from mlplab.results import measures, outcomes, targets
from mlplab.statistics import mean_interval
from mlplab.tables import target_cells, to_cells

SEEDS = (7, 8, 9)
COMPARISON = Comparison(
    name="trial",
    question="Which of these trains best?",
    data="mnist",
    base=mlp(hidden=(16,), epochs=4),
    variants={
        "slow": {"learning_rate": 0.001},
        "fast": {"learning_rate": 0.1},
        "wide, L2": choices(hidden=(32,), learning_rate=0.1, l2=0.01, dropout=0.2, decay=1e-4),
    },
    seeds=SEEDS,
    targets={"val_accuracy": 0.4},
)


@pytest.fixture(scope="module")
def recorded(empty_store, tmp_path_factory, dataset):
    """The comparison, recorded once: (record, client, its run, the variants' runs by name, the watch)."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlplab, "cores", lambda: {0, 1})
        record = perform(COMPARISON, dataset, watch)
    client = mlflow.MlflowClient()
    (parent,) = [r for r in client.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags]
    yield record, client, parent, below(client, parent), watch
    mlflow.set_tracking_uri(None)


def test_seeds_are_runs_under_their_variants_run(recorded):
    """The parent has a run a variant, that one a run a seed; each says what it is, and all are finished."""
    _, client, parent, variants, _ = recorded
    assert set(variants) == set(COMPARISON.variants)
    for name, run in variants.items():
        assert run.data.tags["mlplab.kind"] == "variant"
        assert run.data.params["seeds"] == "7,8,9"
        seeds = below(client, run)
        assert set(seeds) == {f"seed {seed}: {name}" for seed in SEEDS}
        for seed in SEEDS:
            each = seeds[f"seed {seed}: {name}"]
            assert each.data.params["seed"] == str(seed)
            assert each.data.tags["mlplab.kind"] == "training"
            assert each.data.tags["mlplab.variant"] == name
            assert each.info.status == "FINISHED"
            assert {"learning_curves.png", "history.csv", "training.json"} <= artifacts(client, each.info.run_id)
        assert run.info.status == "FINISHED"
        assert "learning_curves.png" in artifacts(client, run.info.run_id)
    assert parent.info.status == "FINISHED"


def test_a_variants_run_has_the_means_over_its_seeds(recorded):
    """At each epoch, and of the best epochs, it has the mean; its description has the selection metric's interval."""
    record, client, _, variants, _ = recorded
    for outcome in outcomes(record.results):
        run = variants[outcome.variant.name]
        for metric in ("loss", "val_accuracy", "train_eval_loss"):
            points = sorted(client.get_metric_history(run.info.run_id, metric), key=lambda m: m.step)
            means = np.mean([result.history[metric] for result in outcome.results], axis=0)
            np.testing.assert_allclose([p.value for p in points], means, rtol=1e-12)
            assert [p.step for p in points] == [1, 2, 3, 4]
        best = [result.best("val_accuracy") for result in outcome.results]
        assert run.data.metrics["best_val_accuracy"] == pytest.approx(np.mean(best))
        mean, low, high = mean_interval(best)
        assert f"val_accuracy {mean:.4f} [{low:.4f}, {high:.4f}], mean of 3" in run.data.tags["mlflow.note.content"]
    assert_readable(client)


def test_what_is_said_of_a_run_is_true_of_that_run(recorded):
    """A variant's run has its place by the mean; a seed's has that seed's own value, and claims no place.

    Whichever variant is the best by the mean, another variant's seed may be better than a seed of it.
    """
    record, client, _, variants, _ = recorded
    means = {o.variant.name: o.best("val_accuracy") for o in outcomes(record.results)}
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    for place, name in enumerate(ranked, start=1):
        note = variants[name].data.tags["mlflow.note.content"]
        assert note.endswith(f"number {place} of 3 in trial by the mean")
    for result in record.results:
        note = client.get_run(result.run_id).data.tags["mlflow.note.content"]
        assert note == (
            f"val_accuracy {result.best('val_accuracy'):.4f} at epoch {result.best_epoch} of 4: "
            f"seed {result.seed} of {result.variant.name}, see the run above this"
        )


def test_a_trainings_seconds_are_one_number_wherever_they_are_shown(recorded):
    """For each seed the run's metric, comparison.csv, the figure, the table and the verdict have the same seconds."""
    record, client, parent, *_ = recorded
    rows = list(csv.DictReader(read(client, parent.info.run_id, "comparison.csv").splitlines()))
    in_csv = {(row["variant"], int(row["seed"])): float(row["train_seconds"]) for row in rows}
    axes = figures.training_times(record.results, record.data).axes[0]
    dots = [list(line.get_xdata()) for line in axes.lines[1::2]]
    (measure,) = [m for m in measures(COMPARISON, record.results) if m.name == "train_seconds"]
    cells = {row[0]: row[-2] for row in to_cells(COMPARISON, record.results)[1:]}
    for outcome, drawn in zip(record.outcomes, dots, strict=True):
        name = outcome.variant.name
        seconds = [result.train_seconds for result in outcome.results]
        assert len(set(seconds)) == len(SEEDS)
        assert [client.get_run(r.run_id).data.metrics["train_seconds"] for r in outcome.results] == seconds
        assert [in_csv[name, seed] for seed in SEEDS] == seconds
        assert drawn == seconds
        assert list(measure.values[name]) == seconds
        assert cells[name] == f"{np.mean(seconds):.1f}"
    for verdict in record.verdicts:
        if verdict.measure == "train_seconds":
            a, b = (np.log(measure.values[name]) for name in (verdict.a, verdict.b))
            assert verdict.difference == pytest.approx(np.exp(np.mean(a - b)))


def test_variants_of_a_seed_start_alike(recorded):
    """For a seed all variants have the same batch order and, where shapes agree, initial weights; seeds differ.

    Which share of a variant's weights starts as the baseline's is in the description, where it is not all of them.
    """
    record, client, parent, *_ = recorded
    by_seed = {seed: [r for r in record.results if r.seed == seed] for seed in SEEDS}
    for slow, fast, wide in by_seed.values():
        assert slow.order == fast.order == wide.order != ""
        assert slow.start == fast.start
        assert set(slow.start) & set(wide.start) == {"Dense 2 bias (10,)"}  # the only shape they share
        assert slow.end != fast.end
    assert len({results[0].order for results in by_seed.values()}) == 3
    assert len({results[0].start["Dense 1 kernel (784, 16)"] for results in by_seed.values()}) == 3
    tags = client.get_run(by_seed[7][0].run_id).data.tags
    assert tags["batch_order"] == by_seed[7][0].order
    assert tags["weights.end"] == by_seed[7][0].end
    said = json.loads(read(client, by_seed[7][0].run_id, "training.json"))
    assert said["result"]["start"] == by_seed[7][0].start
    assert tags["weights.start"] == client.get_run(by_seed[7][1].run_id).data.tags["weights.start"]
    share = 100 * 10 / (784 * 32 + 32 + 32 * 10 + 10)
    assert (
        "only a share of the weights starts as those of slow with the same seed "
        f"(wide, L2 {share:.3g} %); data and batch order pair all the same"
    ) in parent.data.tags["mlflow.note.content"]


def test_small_batches_are_trained_side_by_side_and_timed_alone(recorded):
    """All seeds of a variant are trained at once, and each one's time is by an epoch trained alone.

    The wall time of them all has another name, on the variant's run.
    """
    record, client, _, variants, watch = recorded
    started = [event[1] for event in watch.seen if event[0] == "started"]
    assert started == [name for name in COMPARISON.variants for _ in SEEDS]
    for result in record.results:
        assert result.solo_epoch_seconds > 0
        points = sorted(client.get_metric_history(result.run_id, "train_seconds"), key=lambda m: m.step)
        assert [point.value for point in points] == [result.solo_epoch_seconds * epoch for epoch in (1, 2, 3, 4)]
        assert result.train_seconds == points[-1].value
        assert variants[result.variant.name].data.metrics["group_seconds"] == result.group_seconds
    assert len({result.solo_epoch_seconds for result in record.results}) == 9


def test_large_batches_are_trained_in_turns(store, dataset):
    """Every seed trains all variants before the next seed does, each time another variant first."""
    watch = Quiet()
    spec = Comparison(
        name="turns",
        question="Which?",
        data="mnist",
        base=mlp(hidden=(4,), epochs=1, batch_size="full"),
        variants={"a": {}, "b": {"learning_rate": 0.1}, "c": {"learning_rate": 0.2}},
        seeds=2,
    )
    record = perform(spec, dataset, watch)
    assert [event[1] for event in watch.seen if event[0] == "started"] == [*"abc", *"bca"]
    assert all(math.isnan(r.solo_epoch_seconds) and math.isnan(r.group_seconds) for r in record.results)
    assert all(result.train_seconds > 0 for result in record.results)


def test_a_further_seed_compiles_nothing(dataset, store):
    """Four seeds run the programs that two compiled: evaluation and training of each shape once."""
    small = COMPARISON.only(["fast"]).with_base(**choices(epochs=1, hidden=(17,)))
    with programs.afresh():
        perform(small.with_seeds(2), dataset)
        two = set(programs.shared())
        assert len(two) == 4
        perform(small.with_seeds(4), dataset)
        assert set(programs.shared()) == two


def test_verdicts_are_on_the_comparisons_run(recorded):
    """verdicts.json and the description say for each pair and measure what the seeds tell."""
    record, client, parent, *_ = recorded
    said = json.loads(read(client, parent.info.run_id, "verdicts.json"))
    pairs = {(v["measure"], frozenset((v["a"], v["b"]))) for v in said["verdicts"]}
    for measure in ("val_accuracy", "gap", "train_seconds"):
        for other in ("fast", "wide, L2"):
            assert (measure, frozenset(("slow", other))) in pairs
    (verdict,) = [v for v in record.verdicts if v.measure == "val_accuracy" and {v.a, v.b} == {"slow", "fast"}]
    differences = [
        fast.best("val_accuracy") - slow.best("val_accuracy")
        for slow, fast in zip(record.results[:3], record.results[3:6], strict=True)
    ]
    assert (verdict.a, verdict.b, verdict.seeds) == ("fast", "slow", 3)
    assert verdict.difference == pytest.approx(np.mean(differences))
    assert verdict.low < verdict.difference < verdict.high
    assert asdict(verdict) in said["verdicts"]
    note = parent.data.tags["mlflow.note.content"]
    assert not any(each.sentence in note for each in record.verdicts)
    found = artifacts(client, parent.info.run_id)
    assert {"differences_val_accuracy.png", "differences_gap.png", "differences_train_seconds.png"} <= found
    assert "reached_val_accuracy_0.4.png" in found


def test_how_soon_targets_were_reached_is_on_the_comparisons_run(recorded):
    """verdicts.json, the description and the results say the same of each variant: of all seeds, in epochs here."""
    record, client, parent, *_ = recorded
    said = json.loads(read(client, parent.info.run_id, "verdicts.json"))["targets"]
    found = targets(COMPARISON, record.results)
    assert [one["variant"] for one in said] == list(COMPARISON.variants)
    for kept, target in zip(said, found, strict=True):
        epochs = [result.history["val_accuracy"] for result in record.results if result.variant.name == target.variant]
        arrivals = [next((n for n, value in enumerate(each, 1) if value >= 0.4), None) for each in epochs]
        assert (kept["unit"], kept["after"], kept["trained"]) == ("epochs", arrivals, [4, 4, 4])
        assert target.count == f"{sum(arrival is not None for arrival in arrivals)} of 3"
        (row,) = [row for row in target_cells([target]) if row[0] == target.variant]
        wide = " | ".join(f"{cell}&nbsp;&nbsp;" for cell in row)
        assert f"| {wide} |" in parent.data.tags["mlflow.note.content"]


def test_a_record_keeps_its_seeds_and_verdicts(recorded):
    """What is read back from the store has the results of each seed and the same verdicts."""
    record, client, parent, *_ = recorded
    again = Record.from_json(read(client, parent.info.run_id, "record.json"), COMPARISON, parent.info.run_id)
    assert again.verdicts == record.verdicts
    assert again.seeds == list(SEEDS)
    assert [r.history for r in again.results] == [r.history for r in record.results]
    one = again.of_seed(8)
    assert [(r.variant.name, r.seed) for r in one.results] == [(name, 8) for name in COMPARISON.variants]


def test_training_images_are_evaluated_as_validation_images_are(recorded, dataset):
    """`train_eval_*` at the best epoch are plain Keras' evaluation of the saved model, the penalty left out."""
    record, client, *_ = recorded
    for result in (record.results[0], record.results[6]):
        model = keras.saving.load_model(client.download_artifacts(result.run_id, "model.keras"))
        found = model.evaluate(dataset.train.x, dataset.train.y, verbose=0, return_dict=True)
        penalty = float(sum(model.losses))
        l2 = result.variant.model.arguments.get("l2", 0)
        assert (penalty > 0) == (l2 > 0)
        assert result.best("train_eval_accuracy") == pytest.approx(found["accuracy"], abs=1e-6)
        assert result.best("train_eval_loss") == pytest.approx(found["loss"] - penalty, rel=1e-4)
        if l2:
            assert result.best("penalty") == pytest.approx(penalty, rel=1e-5)
        metrics = client.get_run(result.run_id).data.metrics
        assert metrics["gap"] == pytest.approx(found["accuracy"] - result.best("val_accuracy"), abs=1e-6)
        assert metrics["evaluate_seconds"] > 0


def test_a_target_is_timed_on_the_run(recorded):
    """A run that reached the target says after how many epochs and steps; one that did not says so."""
    record, client, *_ = recorded
    reached = 0
    for result in record.results:
        run = client.get_run(result.run_id)
        values = result.history["val_accuracy"]
        epochs = next((epoch for epoch, value in enumerate(values, start=1) if value >= 0.4), None)
        if epochs is None:
            assert run.data.tags["reached"] == "val_accuracy 0.4 not in 4 epochs"
        else:
            reached += 1
            steps = epochs * result.steps_per_epoch
            assert run.data.tags["reached"] == f"val_accuracy 0.4 after {epochs} epochs ({steps} steps)"
    assert 0 < reached < len(record.results)


def test_an_interrupt_ends_the_variants_runs_too(store, dataset):
    """Ctrl-C leaves no run of a seed, a variant or the comparison open."""
    with pytest.raises(KeyboardInterrupt):
        perform(COMPARISON.with_base(epochs=1), dataset, InterruptedWhen(lambda result: result.seed == 8))
    statuses = Counter(run.info.status for run in store.search_runs(["0"]))
    assert statuses == {"FINISHED": 3, "KILLED": 5} or statuses == {"KILLED": 7}


class RaisesIn(Quiet):
    """Raises after the second epoch of a variant."""

    def __init__(self, variant):
        super().__init__()
        self.variant = variant

    def epoch(self, result):
        if result.variant.name == self.variant and result.epochs == 2:
            raise RuntimeError("the memory is full")


def test_seeds_that_fail_side_by_side_leave_the_other_variants_alone(store, dataset, monkeypatch):
    """Failing after an epoch, before they are timed, they end FAILED without seconds; the comparison is concluded."""
    monkeypatch.setattr(mlplab, "cores", lambda: {0, 1})
    record = perform(COMPARISON.only(["slow", "fast"]).with_seeds((7, 8)), dataset, RaisesIn("slow"))
    slow, fast = record.outcomes
    # The second seed is told of its second epoch after the first one's.
    assert [(result.status, result.epochs) for result in slow.results] == [("failed", 2), ("failed", 1)]
    assert all(math.isnan(result.train_seconds) for result in slow.results)
    assert all(result.status == "finished" and result.train_seconds > 0 for result in fast.results)
    statuses = Counter(run.info.status for run in store.search_runs(["0"]))
    assert statuses == {"FAILED": 4, "FINISHED": 3}  # two seeds, their variant and the comparison; the other variant's
    for result in slow.results:
        assert "the memory is full" in lookup.read_artifact(result.run_id, "traceback.txt")
    assert store.get_run(record.run_id).data.tags["winner"] == "fast"


def test_one_seed_cannot_tell(store, dataset):
    """With one seed the comparison says so, and claims no interval."""
    record = perform(COMPARISON.with_seeds((7,)).with_base(epochs=1), dataset)
    assert {verdict.decision for verdict in record.verdicts} == {"one seed"}
    assert all("ne seed" in verdict.sentence for verdict in record.verdicts)
    assert not any(math.isfinite(verdict.low) for verdict in record.verdicts)
    (parent,) = [r for r in store.search_runs(["0"]) if r.info.run_name.startswith("trial ·")]
    assert not [name for name in artifacts(store, parent.info.run_id) if name.startswith("differences")]
    answer = parent.data.tags["answer"]
    assert answer.startswith("One seed cannot tell which variant is better")
    assert parent.data.tags["mlflow.note.content"].count(answer) == 1
    assert "ne seed" not in parent.data.tags["mlflow.note.content"].replace(answer, "")
    assert json.loads(read(store, parent.info.run_id, "verdicts.json"))["answer"] == answer


class Shuffles(Quiet):
    """Has the trainings of a variant look as if they had seen their examples in another order."""

    def ended(self, result):
        if result.variant.name == "fast":
            result.order = "0" * 16


def test_trainings_that_do_not_pair_get_no_verdict(store, dataset):
    """Where a variant's trainings saw another batch order, the comparison says so in place of verdicts."""
    spec = COMPARISON.only(["slow", "fast"]).with_base(epochs=1).with_seeds(2)
    record = perform(spec, dataset, Shuffles())
    assert record.verdicts == []
    note = store.get_run(record.run_id).data.tags["mlflow.note.content"]
    assert "No verdicts: 'slow' and 'fast' with seed 1234 do not pair: their batch order differs" in note
    assert "Best by val_accuracy" not in note


def test_a_busy_machine_is_said(recorded, dataset, store, monkeypatch):
    """A training during which other processes kept a core busy is tagged, and every verdict on times says so.

    It does in the run's description, in verdicts.json and in its figure; other verdicts do not. The terminal says it
    once, below the verdicts.
    """
    assert all(result.busy >= 0 for result in recorded[0].results)
    monkeypatch.setattr(machine.Others, "cores", lambda self: 1.0)
    record = perform(COMPARISON.only(["slow", "fast"]).with_base(epochs=1), dataset)
    for result in record.results:
        assert store.get_run(result.run_id).data.tags["machine.load"] == "busy: other processes kept 1.0 cores"
    busy = (
        "the machine was busy with something else during 6 of 6 trainings (up to 1.0 cores), so times may be too long"
    )
    assert busy in store.get_run(record.run_id).data.tags["mlflow.note.content"]
    said = json.loads(lookup.read_artifact(record.run_id, "verdicts.json"))["verdicts"]
    out = Console(file=io.StringIO(), width=1_000)
    terminal.Screen(out).recorded(record)
    assert {verdict["measure"] for verdict in said} == {"val_accuracy", "gap", "train_seconds"}
    for verdict in said:
        about_times = verdict["measure"] == "train_seconds"
        assert verdict["sentence"].endswith(f"; {busy}.") is about_times
        assert verdict["sentence"].replace(f"; {busy}.", ".") in out.file.getvalue()
    assert out.file.getvalue().count(busy) == 1
    times = [verdict for verdict in record.verdicts if verdict.measure == "train_seconds"]
    legend = verdict_figures.differences(times, record.data).legends[0]
    assert busy in legend.get_title().get_text().replace("\n", " ")
