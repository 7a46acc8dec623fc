"""A comparison from its spec to its record, on real digits and a real store."""

import csv
import math
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from mlplab import __main__ as command_line
from mlplab import models, run, tracking
from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    name="trial",
    question="Which of these trains best?",
    dataset="mnist",
    base=Variant(hidden=(16,), epochs=6),
    variants={
        "SGD": {"learning_rate": 0.05},
        "RMSprop": {"optimizer": "rmsprop", "learning_rate": 0.003},
        "RMSprop | slow": {"optimizer": "rmsprop", "learning_rate": 0.0001},
        "too fast": {"learning_rate": 100.0, "l2": 10.0},
    },
    seed=7,
)


class Quiet:
    """Watches, and says nothing."""

    def __init__(self):
        self.seen = []

    def started(self, variant, steps_per_epoch):
        self.seen.append(("started", variant.name, steps_per_epoch))

    def epoch(self, result):
        self.seen.append(("epoch", result.variant.name, result.epochs))

    def ended(self, result):
        self.seen.append(("ended", result.variant.name, result.status))


@pytest.fixture(scope="module")
def recorded(empty_store, tmp_path_factory, dataset):
    """One comparison, recorded once and looked at by several tests: (outcome, client, parent, children by name)."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    outcome = run.compare(COMPARISON, dataset, watch)
    client = mlflow.MlflowClient()
    runs = client.search_runs(["0"])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = {r.info.run_name: r for r in runs if r is not parent}
    yield outcome, client, parent, children, watch
    mlflow.set_tracking_uri(None)


def artifacts(client, run_id):
    return {file.path for file in client.list_artifacts(run_id)}


def read(client, run_id, path):
    return Path(client.download_artifacts(run_id, path)).read_text()


def test_every_variant_is_a_child_of_the_comparisons_run(recorded):
    """The parent has one finished child a variant, named after it, tagged with what its numbers depend on."""
    _, _, parent, children, _ = recorded
    assert parent.info.run_name == "trial"
    assert parent.info.status == "FINISHED"
    assert set(children) == set(COMPARISON.variants)
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.info.end_time > child.info.start_time
    for each in (parent, *children.values()):
        tags = each.data.tags
        assert tags["dataset"] == "digits (stand-in for MNIST)"
        assert tags["dataset.fallback"] == "true"
        assert len(tags["git.commit"]) == 40 or tags["git.commit"] == "unknown"
        assert {"dataset.digest", "git.dirty", "version.keras", "version.python", "cpu", "cpu.cores"} <= set(tags)
        assert [i.dataset.digest for i in each.inputs.dataset_inputs] == [tags["dataset.digest"]]


def test_a_childs_params_are_all_fields_of_its_variant(recorded):
    """Every field of the variant, the seed and the number of parameters are params, so that compare lines them up."""
    *_, children, _ = recorded
    for variant in COMPARISON.resolved():
        params = children[variant.name].data.params
        expected = {**variant.params(), "seed": 7, "dataset": "digits", "parameters": 784 * 16 + 16 + 16 * 10 + 10}
        assert params == {k: str(v) for k, v in expected.items()}


def test_every_epoch_is_recorded(recorded):
    """Each metric has a point an epoch at steps 1, 2, ..., equal to history.csv and to the result."""
    outcome, client, _, children, _ = recorded
    for result in outcome.results[:3]:
        child = children[result.variant.name]
        table = list(csv.DictReader(read(client, child.info.run_id, "history.csv").splitlines()))
        assert len(table) == 6
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "train_seconds"):
            points = sorted(client.get_metric_history(child.info.run_id, name), key=lambda m: m.step)
            assert [p.step for p in points] == [1, 2, 3, 4, 5, 6]
            values = [p.value for p in points]
            np.testing.assert_array_equal(values, result.history[name])
            np.testing.assert_array_equal(values, [float(row[name]) for row in table])
        assert result.history["train_seconds"] == sorted(result.history["train_seconds"])


def test_the_summary_tells_best_from_last(recorded):
    """best_* are the values of the epoch with the best selection metric, last_* those of the last epoch."""
    outcome, _, _, children, _ = recorded
    for result in outcome.results[:3]:
        metrics = children[result.variant.name].data.metrics
        best = int(np.argmax(result.history["val_accuracy"]))
        assert metrics["best_epoch"] == best + 1
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert metrics[f"best_{name}"] == result.history[name][best]
            assert metrics[f"last_{name}"] == result.history[name][-1]
        positive = ("compile_seconds", "evaluate_seconds", "log_seconds", "steps_per_second", "peak_memory_mb")
        assert all(metrics[name] > 0 for name in positive)
        steps = 6 * result.variant.steps_per_epoch(1_197)
        assert metrics["steps_per_second"] == pytest.approx(steps / metrics["train_seconds"])


def test_the_test_set_is_evaluated_at_the_selected_epoch(recorded, dataset):
    """The saved model, loaded by plain Keras, has the recorded validation and test metrics of the best epoch."""
    outcome, client, _, children, _ = recorded
    for result in outcome.results[:3]:
        child = children[result.variant.name]
        model = keras.saving.load_model(client.download_artifacts(child.info.run_id, "model.keras"))
        for split, prefix in ((dataset.test, "test"), (dataset.validation, "best_val")):
            scores = model.evaluate(split.x, split.y, verbose=0, return_dict=True)
            for name, value in scores.items():
                assert child.data.metrics[f"{prefix}_{name}"] == pytest.approx(value, rel=1e-4)


def test_a_training_that_diverges_is_a_result(recorded):
    """A loss that is not finite ends the training, tags the run and is no failure; its point is stored as NaN."""
    outcome, client, _, children, watch = recorded
    result, child = outcome.results[3], children["too fast"]
    assert result.status == "diverged"
    assert result.epochs < 6
    assert child.data.tags["diverged"] == "true"
    assert child.data.tags["mlplab.status"] == "diverged"
    last = max(client.get_metric_history(child.info.run_id, "loss"), key=lambda m: m.step)
    assert math.isnan(last.value)
    assert ("ended", "too fast", "diverged") in watch.seen


def test_the_parent_holds_the_comparison(recorded):
    """Spec, table as CSV and Markdown, figures, winner and description are on the parent."""
    outcome, client, parent, children, _ = recorded
    found = artifacts(client, parent.info.run_id)
    assert found == {
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "accuracy.png",
        "loss.png",
        "training_time.png",
    }
    assert Comparison.from_json(read(client, parent.info.run_id, "comparison.json")) == COMPARISON
    rows = list(csv.DictReader(read(client, parent.info.run_id, "comparison.csv").splitlines()))
    best = max(outcome.results[:3], key=lambda r: max(r.history["val_accuracy"]))
    assert rows[0]["variant"] == best.variant.name
    tags = parent.data.tags
    assert tags["winner"] == best.variant.name
    assert tags["winner.run_id"] == children[best.variant.name].info.run_id
    assert parent.data.metrics["winner_val_accuracy"] == max(best.history["val_accuracy"])
    note = tags["mlflow.note.content"]
    assert read(client, parent.info.run_id, "comparison.md") in note
    assert COMPARISON.question in note
    assert "stand-in for MNIST" in note
    for child in children.values():
        assert {"learning_curves.png", "history.csv", "model_summary.txt"} <= artifacts(client, child.info.run_id)


def test_the_best_rmsprop_model_is_logged_with_its_origin(recorded, dataset):
    """The better RMSprop's run, and not the worse's, has a model that answers on raw pixels as its model.keras does."""
    _, client, parent, children, _ = recorded
    logged = client.search_logged_models(["0"])
    by_run = {model.source_run_id: model for model in logged}
    chosen = children["RMSprop"].info.run_id
    assert chosen in by_run
    assert children["RMSprop | slow"].info.run_id not in by_run
    assert set(by_run) <= {chosen, parent.data.tags["winner.run_id"]}
    uri = f"models:/{by_run[chosen].model_id}"
    served = mlflow.pyfunc.load_model(uri)
    pixels = dataset.test.x[:50].astype("float32")
    model = keras.saving.load_model(client.download_artifacts(chosen, "model.keras"))
    np.testing.assert_allclose(served.predict(pixels), model.predict(pixels, verbose=0), atol=1e-6)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 784)
    assert served.input_example.shape == (2, 784)
    metadata = served.metadata.metadata
    assert metadata["run_id"] == chosen
    assert metadata["dataset.digest"] == dataset.digest


def test_the_watch_sees_every_epoch(recorded):
    """The watch is told of the start, every epoch and the end of each variant, in that order."""
    *_, watch = recorded
    for name in ("SGD", "RMSprop"):
        mine = [event for event in watch.seen if event[1] == name]
        assert mine == [
            ("started", name, 10),
            *(("epoch", name, e) for e in range(1, 7)),
            ("ended", name, "finished"),
        ]


def failing_build(variant, *arguments, **options):
    if variant.name == "SGD":
        raise RuntimeError("the kernel is not to be had")
    return models_build(variant, *arguments, **options)


models_build = models.build


def test_a_variant_that_raises_leaves_its_siblings_alone(store, dataset, monkeypatch, capsys):
    """A failing variant ends FAILED with its traceback, its sibling finishes, and the command exits with 1."""
    monkeypatch.setattr(models, "build", failing_build)
    spec = Path("mine.py")
    spec.write_text(
        "from mlplab.spec import Comparison, Variant\n"
        "COMPARISON = Comparison(question='Which?', dataset='mnist', base=Variant(hidden=(4,), epochs=1),\n"
        "    variants={'SGD': {}, 'Adam': {'optimizer': 'adam'}})\n"
    )
    assert command_line.main(["compare", "--spec", "mine.py", "--dataset", "digits"]) == 1
    runs = {r.info.run_name: r for r in store.search_runs(["0"])}
    assert {name: r.info.status for name, r in runs.items()} == {
        "mine": "FAILED",
        "SGD": "FAILED",
        "Adam": "FINISHED",
    }
    assert "the kernel is not to be had" in read(store, runs["SGD"].info.run_id, "traceback.txt")
    assert runs["mine"].data.tags["winner"] == "Adam"
    printed = capsys.readouterr().out
    assert "the kernel is not to be had" in printed
    assert "SGD (failed)" in printed


def test_an_interrupt_ends_every_run(store, dataset):
    """Ctrl-C in a training leaves the child and the parent KILLED, with the epochs before it recorded."""

    class Interrupting(Quiet):
        def epoch(self, result):
            if result.epochs == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.compare(COMPARISON, dataset, Interrupting())
    runs = {r.info.run_name: r for r in store.search_runs(["0"])}
    assert {name: r.info.status for name, r in runs.items()} == {"trial": "KILLED", "SGD": "KILLED"}
    assert len(store.get_metric_history(runs["SGD"].info.run_id, "loss")) == 2


def test_the_same_seed_gives_the_same_numbers(store, dataset):
    """Two runs of a comparison agree in every metric of every epoch, to the bit, and another seed does not."""
    small = COMPARISON.only(["RMSprop"]).with_base(epochs=2, dropout=0.2)
    first, again, other = (
        run.compare(spec, dataset, Quiet()).results[0] for spec in (small, small, small.with_seed(8))
    )
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    assert [first.history[n] for n in names] == [again.history[n] for n in names]
    assert first.test == again.test
    assert first.history["loss"] != other.history["loss"]


def test_the_page_and_command_lead_to_the_store(store, dataset):
    """The address names the store by its full path and the run by its id."""
    with tracking.parent_run("where", {}, dataset) as parent:
        command, page = tracking.address(parent)
        parent.finish()
    assert command == f"mlflow ui --backend-store-uri 'sqlite:///{Path.cwd()}/mlflow.db'"
    assert page.endswith(f"#/experiments/0/runs/{parent.run_id}")
