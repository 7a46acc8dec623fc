"""An experiment from its spec to its record, on real digits and a real store."""

import contextlib
import csv
import math
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import plain_name
from words import choices, mlp

from mlplab import Comparison, Prediction, Search, labels, loading, machine, origin, run, trial
from mlplab import __main__ as command_line
from mlplab.checks import UnavailableError, UsageError
from mlplab.loading import Options
from mlplab.store import command, pages

COMPARISON = Comparison(
    name="trial",
    question="Which of these trains best?",
    data="mnist",
    base=mlp(hidden=(16,), epochs=6),
    variants={
        "SGD": {"learning_rate": 0.05},
        "RMSprop": {"optimizer": "rmsprop", "learning_rate": 0.003},
        "RMSprop | slow": {"optimizer": "rmsprop", "learning_rate": 0.0001},
        "too fast": choices(learning_rate=100.0, l2=10.0),
    },
    seeds=(7,),
    targets={"val_accuracy": 0.5},
)


CURVES = ("loss", "accuracy", "val_loss", "val_accuracy", "train_eval_loss", "train_eval_accuracy", "train_seconds")
"""What has a point an epoch on a training's run."""


class Quiet:
    """Watches, and says nothing."""

    def __init__(self):
        self.seen = []

    def started(self, result):
        self.seen.append(("started", result.variant.name, result.steps_per_epoch))

    def recalled(self, result):
        self.seen.append(("recalled", result.variant.name, result.status))

    def epoch(self, result):
        self.seen.append(("epoch", result.variant.name, result.epochs))

    def ended(self, result):
        self.seen.append(("ended", result.variant.name, result.status))

    def scored(self, candidate, mean):
        self.seen.append(("scored", candidate, mean))


class InterruptedWhen(Quiet):
    """Is interrupted after an epoch of a result for which `when` is true."""

    def __init__(self, when):
        super().__init__()
        self.when = when

    def epoch(self, result):
        if self.when(result):
            raise KeyboardInterrupt


class Screen:
    """Shows nothing, and gives each experiment the same watch."""

    def __init__(self, watch):
        self.watch = watch
        self.errors = []

    @contextlib.contextmanager
    def experiment(self, experiment, data, variants):
        yield self.watch

    def recorded(self, record):
        pass

    def notice(self, text):
        self.errors.append(text)

    def page(self, place):
        self.place = place

    def failed(self, name, error):
        self.errors.append(error)


def perform(experiment, dataset, watch=None, **options):
    """Runs an experiment in a lab of its own and returns its record."""
    lab = run.Lab(lambda wanted: dataset, Screen(watch or Quiet()), Options(), **options)
    return lab.run(experiment)[0]


@pytest.fixture(scope="module")
def recorded(empty_store, tmp_path_factory, dataset):
    """One comparison, recorded once and looked at by several tests: (outcome, client, parent, children by name)."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    outcome = perform(COMPARISON, dataset, watch)
    client = mlflow.MlflowClient()
    runs = client.search_runs(["0"])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = {plain_name(r): r for r in runs if r is not parent}
    yield outcome, client, parent, children, watch
    mlflow.set_tracking_uri(None)


def artifacts(client, run_id):
    return {file.path for file in client.list_artifacts(run_id)}


def read(client, run_id, path):
    return Path(client.download_artifacts(run_id, path)).read_text()


def test_every_variant_is_a_child_of_the_comparisons_run(recorded, dataset):
    """The parent has one finished child a variant, named after it, tagged with what its numbers depend on."""
    _, _, parent, children, _ = recorded
    assert parent.info.run_name == "trial · digits · 6 epochs"
    assert parent.info.status == "FINISHED"
    assert set(children) == set(COMPARISON.variants)
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.info.end_time > child.info.start_time
    for each in (parent, *children.values()):
        tags = each.data.tags
        assert tags["dataset"] == "digits (stand-in for MNIST)"
        assert len(tags["git.commit"]) == 40 or tags["git.commit"] == "unknown"
        assert {"mlflow.mlplab.machine", "mlflow.mlplab.versions"} <= set(tags)
        for name, installed in origin.versions().items():
            assert f"{name} {installed}" in tags["mlflow.mlplab.versions"].split(", ")
        assert [i.dataset.digest for i in each.inputs.dataset_inputs] == [dataset.digest] * 3
        assert tags.get("dataset.digest", dataset.digest) == dataset.digest


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
        for name in CURVES:
            points = sorted(client.get_metric_history(child.info.run_id, name), key=lambda m: m.step)
            assert [p.step for p in points] == [1, 2, 3, 4, 5, 6]
            values = [p.value for p in points]
            np.testing.assert_array_equal(values, result.history[name])
            np.testing.assert_array_equal(values, [float(row[name]) for row in table])
        assert result.history["train_seconds"] == sorted(result.history["train_seconds"])


def shown(names):
    """Of a run's tags those that MLflow's UI shows."""
    return [name for name in names if not name.startswith("mlflow.")]


def assert_readable(client):
    """No run of a store has more than 16 metrics or 16 tags that a person sees, nor two metrics of equal curves."""
    runs = client.search_runs(["0"])
    assert runs
    for each in runs:
        name, metrics, tags = each.info.run_name, each.data.metrics, shown(each.data.tags)
        assert len(metrics) <= 16, (name, sorted(metrics))
        assert len(tags) <= 16, (name, sorted(tags))
        curves = {}
        for metric in metrics:
            points = client.get_metric_history(each.info.run_id, metric)
            curve = tuple(sorted((point.step, repr(point.value)) for point in points))
            if len(curve) > 1:
                assert curves.setdefault(curve, metric) == metric, (name, metric)


def test_a_run_has_no_more_than_a_person_reads(recorded):
    """No run of a comparison has more than 16 metrics or 16 tags, and no curve stands on it under two names."""
    assert_readable(recorded[1])


def test_the_summary_tells_best_from_last(recorded):
    """best_* are the values of the epoch with the best selection metric; what a curve has last is its own value."""
    outcome, _, _, children, _ = recorded
    for result in outcome.results[:3]:
        metrics = children[result.variant.name].data.metrics
        best = int(np.argmax(result.history["val_accuracy"]))
        assert metrics["best_epoch"] == best + 1
        for name in ("val_loss", "val_accuracy"):
            assert metrics[f"best_{name}"] == result.history[name][best]
            assert metrics[name] == result.history[name][-1]
        assert metrics["gap"] == result.history["train_eval_accuracy"][best] - metrics["best_val_accuracy"]
        assert all(metrics[name] > 0 for name in ("compile_seconds", "train_seconds", "evaluate_seconds"))
        steps = 6 * result.variant.steps_per_epoch(1_197)
        assert result.steps_per_second == pytest.approx(steps / metrics["train_seconds"])


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
        "comparison.html",
        "comparison.md",
        "accuracy.png",
        "loss.png",
        "training_time.png",
        "record.json",
        "verdicts.json",
        "reached_val_accuracy_0.5.png",
    }
    assert Comparison.from_json(read(client, parent.info.run_id, "comparison.json")) == COMPARISON
    rows = list(csv.DictReader(read(client, parent.info.run_id, "comparison.csv").splitlines()))
    best = max(outcome.results[:3], key=lambda r: max(r.history["val_accuracy"]))
    assert rows[0]["variant"] == best.variant.name
    tags = parent.data.tags
    assert tags["winner"] == best.variant.name
    assert tags["winner.run_id"] == children[best.variant.name].info.run_id
    assert parent.data.metrics["best_val_accuracy"] == max(best.history["val_accuracy"])
    note = tags["mlflow.note.content"]
    assert read(client, parent.info.run_id, "comparison.md") in note.replace("&nbsp;", "")
    assert note.startswith(tags["answer"])
    views = client.get_experiment(parent.info.experiment_id).tags
    for way in ("artifacts/comparison.html", f"viewStateShareKey={parent.info.run_id}", "viewStateShareKey=mlplab&"):
        assert way in note.splitlines()[0]
    assert {f"mlflow.sharedViewState.{key}" for key in (parent.info.run_id, "mlplab")} <= set(views)
    assert children[best.variant.name].data.tags["mlflow.note.content"].endswith("number 1 of 4 in trial")
    assert COMPARISON.question in note
    assert "stand-in for MNIST" in note
    for child in children.values():
        assert {"learning_curves.png", "history.csv", "model_summary.txt"} <= artifacts(client, child.info.run_id)


def test_every_variant_has_its_model_logged_with_its_origin(recorded, dataset):
    """Each variant's run has the model of its best epoch, which answers on raw pixels as its model.keras does."""
    _, client, _, children, _ = recorded
    by_run = {model.source_run_id: model for model in client.search_logged_models(["0"])}
    assert set(by_run) == {child.info.run_id for child in children.values()}
    chosen = children["RMSprop"].info.run_id
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


FAILING = """
from mlplab import Comparison, Training

def fails():
    import keras

    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise RuntimeError("the kernel is not to be had")

    return Fails()

COMPARISON = Comparison(
    question="Which?",
    data="digits",
    base=Training(model="mlp", loss="sparse_categorical_crossentropy", metrics=["accuracy"], optimizer="sgd"),
    variants={"SGD": {"callbacks": [fails]}, "Adam": {"optimizer": "adam"}},
)
"""


def test_a_variant_that_raises_leaves_its_siblings_alone(store, capsys):
    """One that fails in training ends FAILED with its traceback, its sibling finishes, and the command exits with 1."""
    Path("mine.py").write_text(FAILING)
    assert command_line.main(["compare", "--spec", "mine.py"]) == 1
    runs = {plain_name(r): r for r in store.search_runs(["0"])}
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


def test_a_training_with_everything_has_no_more_than_a_person_reads(store, dataset):
    """Nor has one with a decaying learning rate, a penalty, early stopping, targets, and a busy machine."""
    changes = choices(learning_rate=0.05, decay=0.01, l2=0.01, patience=9, batch_norm=True, dropout=0.1, epochs=2)
    spec = replace(COMPARISON.only(["SGD"]).with_base(**changes), targets={"val_accuracy": 0.1, "val_loss": 9.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine.Others, "cores", lambda self: 1.0)
        perform(spec, dataset)
    assert_readable(store)
    (child,) = [r for r in store.search_runs(["0"]) if r.info.run_name == "SGD"]
    assert "learning_rate" in child.data.metrics
    assert child.data.tags["machine.load"] == "busy: other processes kept 1.0 cores"
    assert (
        child.data.tags["reached"] == "val_accuracy 0.1 after 1 epochs (10 steps); val_loss 9 after 1 epochs (10 steps)"
    )


def test_an_interrupt_ends_every_run(store, dataset):
    """Ctrl-C in a training leaves the child and the parent KILLED, with the epochs before it recorded."""
    with pytest.raises(KeyboardInterrupt):
        perform(COMPARISON, dataset, InterruptedWhen(lambda result: result.epochs == 2))
    runs = {plain_name(r): r for r in store.search_runs(["0"])}
    assert {name: r.info.status for name, r in runs.items()} == {"trial": "KILLED", "SGD": "KILLED"}
    assert len(store.get_metric_history(runs["SGD"].info.run_id, "loss")) == 2


def test_the_same_seed_gives_the_same_numbers(store, dataset):
    """Two runs of a comparison agree in every metric of every epoch, to the bit, and another seed does not."""
    small = COMPARISON.only(["RMSprop"]).with_base(**choices(epochs=2, dropout=0.2))
    first, again, other = (perform(spec, dataset).results[0] for spec in (small, small, small.with_seeds((8,))))
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    assert [first.history[n] for n in names] == [again.history[n] for n in names]
    assert first.test == again.test
    assert first.history["loss"] != other.history["loss"]


def test_the_page_and_command_lead_to_the_store(store, dataset):
    """The address names the store by its full path and the run by its id."""
    with command.parent_run("where", {}, dataset) as parent:
        parent.finish()
    opens, page = pages.address(parent)
    assert opens == f"mlflow ui --backend-store-uri 'sqlite:///{Path.cwd()}/mlflow.db'"
    assert page.endswith(f"#/experiments/0/runs/{parent.run_id}?workflowType=machine_learning")


def test_early_stopping_ends_a_training_after_its_patience(store, dataset):
    """With a patience of 3 a training ends 3 epochs after the lowest validation loss, and not at its last epoch."""
    spec = COMPARISON.only(["SGD"]).with_base(**choices(hidden=(64,), learning_rate=0.5, epochs=60, patience=3))
    (result,) = perform(spec, dataset).results
    lowest = int(np.argmin(result.history["val_loss"])) + 1
    assert result.status == "finished"
    assert result.epochs == lowest + 3 < 60


SEARCH = Search(
    name="hunt",
    question="Which of these trains best?",
    data="mnist",
    base=mlp(hidden=(8,), epochs=2),
    space={"learning_rate": [0.01, 0.1, 0.5], "batch_size": [64, 128]},
    candidates=3,
    folds=2,
)


FOLDS = [f"fold {fold}: candidate {place}" for place in (1, 2, 3) for fold in (1, 2)]


class StopsAfter(Quiet):
    """Is interrupted when a given number of folds have ended."""

    def __init__(self, folds):
        super().__init__()
        self.left = folds

    def ended(self, result):
        super().ended(result)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def searched(empty_store, tmp_path_factory, dataset):
    """A search killed in its third candidate, then run on a machine that knows nothing of the first.

    It is (record, client, killed parent, parent, watch).
    """
    folder = tmp_path_factory.mktemp("searched")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with contextlib.chdir(folder):
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        with pytest.raises(KeyboardInterrupt):
            perform(SEARCH, dataset, StopsAfter(5))
        watch = Quiet()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(folder))
            record = perform(SEARCH, dataset, watch)
        client = mlflow.MlflowClient()
        parents = {r.info.status: r for r in client.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags}
        yield record, client, parents["KILLED"], parents["FINISHED"], watch
    mlflow.set_tracking_uri(None)


def below(client, parent):
    every = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {plain_name(r): r for r in every}


def names(watch, event):
    """Of which trainings a watch was told something, one after the other."""
    return [seen[1] for seen in watch.seen if seen[0] == event]


def test_a_candidate_is_a_run_with_its_folds_below(searched):
    """Each candidate's run has its params, fold scores, mean and std, true times, and the folds' means by epoch.

    Each fold's own curves are on a run below it.
    """
    record, client, killed, parent, _ = searched
    runs = below(client, parent)
    assert set(runs) == {"candidate 1", "candidate 2", "candidate 3", "best found"}
    trained = below(client, killed) | {"candidate 3": runs["candidate 3"]}
    for place, candidate in enumerate(record.search.candidates, start=1):
        child = runs[f"candidate {place}"]
        assert child.info.status == "FINISHED"
        assert child.info.end_time > child.info.start_time
        for name, value in candidate.choices.items():
            assert child.data.params[name] == str(value)
        metrics = child.data.metrics
        scores = sorted(client.get_metric_history(child.info.run_id, "fold_score"), key=lambda m: m.step)
        assert [(point.step, point.value) for point in scores] == list(enumerate(candidate.scores, start=1))
        assert metrics["mean_score"] == pytest.approx(np.mean(candidate.scores))
        assert metrics["std_score"] == pytest.approx(np.std(candidate.scores))
        assert metrics["all_folds_seconds"] == candidate.train_seconds > 0
        folds = below(client, trained[f"candidate {place}"])
        assert set(folds) == {name for name in FOLDS if name.endswith(str(place))}
        for name in ("loss", "accuracy"):
            curves = [
                [
                    point.value
                    for point in sorted(client.get_metric_history(fold.info.run_id, name), key=lambda m: m.step)
                ]
                for fold in folds.values()
            ]
            points = sorted(client.get_metric_history(child.info.run_id, name), key=lambda m: m.step)
            assert [point.step for point in points] == [1, 2]
            assert [point.value for point in points] == pytest.approx(np.mean(curves, axis=0))
    assert_readable(client)


def test_a_search_killed_and_started_again_keeps_what_was_finished(searched):
    """The second run trains the third candidate alone; the two finished ones appear in it with their times of then."""
    _, client, killed, parent, watch = searched
    assert names(watch, "started") == ["candidate 3", "candidate 3", "best found"]
    before, after = below(client, killed), below(client, parent)
    assert before.pop("candidate 3").info.status == "KILLED"
    assert set(before) == {"candidate 1", "candidate 2"}
    for name, then in before.items():
        now = after[name]
        assert now.data.tags["mlplab.reused_from"] == then.info.run_id
        assert (now.info.start_time, now.info.end_time) == (then.info.start_time, then.info.end_time)
        assert now.data.params == then.data.params
        assert now.data.metrics == then.data.metrics
    assert "mlplab.reused_from" not in after["candidate 3"].data.tags


@pytest.mark.slow
def test_a_search_killed_goes_on_under_its_run(store, dataset):
    """On the machine where it was killed a search goes on: the same runs, and the last fold alone is trained."""
    with pytest.raises(KeyboardInterrupt):
        perform(SEARCH, dataset, StopsAfter(5))
    (killed,) = [r for r in store.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags]
    watch = Quiet()
    record = perform(SEARCH, dataset, watch)
    assert record.run_id == killed.info.run_id
    assert names(watch, "started") == ["candidate 3", "best found"]
    assert names(watch, "recalled") == ["candidate 3"]
    runs = below(store, killed)
    candidates = [f"candidate {n}" for n in (1, 2, 3)]
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        [*candidates, "best found"], "FINISHED"
    )
    assert [c.run_id for c in record.search.candidates] == [runs[name].info.run_id for name in candidates]
    assert store.get_run(killed.info.run_id).info.status == "FINISHED"


def test_a_comparison_killed_goes_on_from_its_checkpoint(store, dataset, monkeypatch):
    """A comparison that is interrupted ends at the numbers of one that is not: finished runs stay, one goes on."""
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    spec = COMPARISON.only(["SGD", "RMSprop"]).with_base(**choices(epochs=6, dropout=0.2, batch_norm=True))
    watch = InterruptedWhen(lambda result: result.variant.name == "RMSprop" and result.epochs == 4)
    with pytest.raises(KeyboardInterrupt):
        perform(spec, dataset, watch)
    before = {plain_name(r): r for r in store.search_runs(["0"])}
    watch = Quiet()
    record = perform(spec, dataset, watch)
    after = {plain_name(r): r for r in store.search_runs(["0"])}
    assert {name: run.info.run_id for name, run in before.items()} == {n: r.info.run_id for n, r in after.items()}
    assert after["SGD"].info.end_time == before["SGD"].info.end_time
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert next(event for event in watch.seen if event[1] == "RMSprop" and event[0] == "epoch")[2] == 4
    assert after["RMSprop"].data.tags["mlplab.resumed_at"] == "epoch 3"
    undisturbed = perform(spec, dataset)
    assert undisturbed.run_id != record.run_id
    for one, other in zip(record.results, undisturbed.results, strict=True):
        assert one.end == other.end
        assert {k: v for k, v in one.history.items() if "seconds" not in k} == {
            k: v for k, v in other.history.items() if "seconds" not in k
        }
        assert one.test == other.test
        for name in CURVES:
            steps = [m.step for m in store.get_metric_history(one.run_id, name)]
            assert sorted(steps) == list(range(1, 7))


def test_what_a_killed_command_had_not_written_is_recorded_in_order(store, dataset, monkeypatch):
    """Where a training's state was kept and its last epochs not written, their points come before those that follow."""
    from mlplab import trial
    from mlplab.store import journal

    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    spec = COMPARISON.only(["SGD"])
    append = journal.Session.append

    def forgetful(session, entries):
        append(session, [e for e in entries if not any(step > 1 for *_, step in e[1].get("metrics", ()))])

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(journal.Session, "append", forgetful)
        perform(spec, dataset, InterruptedWhen(lambda result: result.epochs == 4))
    (result,) = perform(spec, dataset).results
    points = sorted(store.get_metric_history(result.run_id, "loss"), key=lambda point: point.step)
    assert [point.step for point in points] == [1, 2, 3, 4, 5, 6]
    assert [point.value for point in points] == result.history["loss"]
    assert [point.timestamp for point in points] == sorted(point.timestamp for point in points)


def test_a_searchs_run_holds_the_winner_and_the_space(searched, dataset):
    """The parent has cv_results.csv, its figures, the best params and the refitted model, which scores as recorded."""
    record, client, _, parent, _ = searched
    found = artifacts(client, parent.info.run_id)
    assert {
        "cv_results.csv",
        "parallel_coordinates.png",
        "slices.png",
        "budget.png",
        "model.keras",
        "search.json",
    } <= found
    rows = list(csv.DictReader(read(client, parent.info.run_id, "cv_results.csv").splitlines()))
    assert [float(row["mean_test_score"]) for row in rows] == pytest.approx([c.mean for c in record.search.candidates])
    best = record.search.best
    assert best.mean == max(candidate.mean for candidate in record.search.candidates)
    for name, value in best.choices.items():
        assert parent.data.params[f"best.{name}"] == str(value)
    model = keras.saving.load_model(client.download_artifacts(parent.info.run_id, "model.keras"))
    scores = model.evaluate(dataset.test.x, dataset.test.y, verbose=0, return_dict=True)
    assert parent.data.metrics["refit_test_accuracy"] == pytest.approx(scores["accuracy"], rel=1e-4)
    (logged,) = [m for m in client.search_logged_models(["0"]) if m.source_run_id == parent.info.run_id]
    served = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
    assert served.predict(dataset.test.x[:3].astype("float32")).shape == (3, 10)


def test_a_prediction_asks_the_logged_model_of_a_variant(store, dataset, monkeypatch):
    """Its answers are those of the model in the store; a variant that is not there, or has no model, is said."""
    for module in (run, loading):
        monkeypatch.setattr(module, "load_experiment", lambda name: COMPARISON)
    spec = Prediction(name="asks", question="What does it answer?", of="trial", variant="RMSprop", images=7)
    lab = run.Lab(lambda wanted: dataset, Screen(Quiet()), Options(epochs=1))
    record = lab.run(spec)[0]
    (parent,) = [r for r in store.search_runs(["0"]) if r.info.run_name.startswith("asks ·")]
    chosen = below(store, below(store, parent)["trial"])["RMSprop"]
    model = keras.saving.load_model(store.download_artifacts(chosen.info.run_id, "model.keras"))
    answers = model.predict(dataset.test.x, verbose=0)
    found = record.predictions
    assert found.predicted == answers[:7].argmax(axis=1).tolist()
    np.testing.assert_allclose(found.probability, answers[:7].max(axis=1), atol=1e-6)
    assert found.labels == dataset.test.y[:7].tolist()
    assert found.test_accuracy == pytest.approx(float((answers.argmax(axis=1) == dataset.test.y).mean()))
    assert "predictions.png" in artifacts(store, parent.info.run_id)
    slow = below(store, below(store, parent)["trial"])["RMSprop | slow"].info.run_id
    with pytest.raises(UsageError, match="'none of them'; legal: SGD, RMSprop"):
        lab.run(Prediction(name="asks", question="What?", of="trial", variant="none of them"))
    (logged,) = [m for m in store.search_logged_models(["0"]) if m.source_run_id == slow]
    store.delete_logged_model(logged.model_id)
    with pytest.raises(UnavailableError, match="cannot be loaded"):
        lab.run(Prediction(name="asks", question="What?", of="trial", variant="RMSprop | slow"))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.with_seeds((8,)),
        lambda spec: spec.with_base(epochs=7),
        lambda spec: spec.with_base(**choices(dropout=0.1)),
        lambda spec: spec.only(["SGD", "RMSprop"]),
    ],
)
def test_a_fingerprint_tells_what_decides_the_numbers(dataset, monkeypatch, change):
    """Another seed, epoch count, choice, data set or version is another fingerprint; another wording is not."""
    print_of = labels.fingerprint(COMPARISON, dataset)
    assert labels.fingerprint(change(COMPARISON), dataset) != print_of
    assert labels.fingerprint(replace(COMPARISON, question="Other words?"), dataset) == print_of
    assert labels.fingerprint(COMPARISON, replace(dataset, digest="0" * 32)) != print_of
    monkeypatch.setattr(origin, "versions", lambda: {"keras": "4.0"})
    assert labels.fingerprint(COMPARISON, dataset) != print_of
