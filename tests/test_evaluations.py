"""After which epochs the training examples are evaluated, and that nothing else hangs on it."""

import csv
import io
import itertools
import json
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_run import COMPARISON, InterruptedWhen, Quiet, below, perform, read
from words import mlp

from mlplab import call, evaluations, figures, replay, tables, trial
from mlplab.data import Split
from mlplab.evaluations import every, planned
from mlplab.records import Record
from mlplab.results import Result, outcomes
from mlplab.spec import Metric, Training

EPOCHS = 47
AT = [1, *range(3, EPOCHS, 3), EPOCHS]
"""Where so many epochs are evaluated."""
STOPPING = call("keras.callbacks.EarlyStopping", monitor="loss", mode="max", patience=22)
"""At epoch 23, as the loss sinks: one that is not evaluated otherwise."""


@pytest.fixture(scope="module")
def few(dataset):
    """A tenth of the digits."""

    def first(split: Split) -> Split:
        return split.map(lambda array: array[: len(array) // 10])

    return replace(dataset, train=first(dataset.train), validation=first(dataset.validation), test=first(dataset.test))


@keras.saving.register_keras_serializable("tests")
class Jitter(keras.layers.Layer):
    """Adds noise, also when a model is evaluated."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + 0.3 * keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def jittery():
    """A model that draws random numbers when it is evaluated."""
    layers = keras.layers
    head = [layers.Dense(8, activation="relu"), layers.Dropout(0.2), layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((784,)), Jitter(), *head])


VARIANTS = {
    "dropout and a penalty": mlp(hidden=(8,), epochs=EPOCHS, dropout=0.3, l2=0.01, optimizer="adam"),
    "averaged, and stopped early": mlp(
        hidden=(8,),
        epochs=EPOCHS,
        optimizer=call("keras.optimizers.SGD", use_ema=True),
        callbacks=(call("keras.callbacks.SwapEMAWeights", swap_on_epoch=True), STOPPING),
    ),
    "noise": Training(
        model=jittery,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="adam",
        batch_size=64,
        epochs=EPOCHS,
    ),
    "diverges": mlp(hidden=(8,), epochs=EPOCHS, learning_rate=4.0, l2=0.6),
}


def trained(variant: Training, data) -> Result:
    result = Result(variant=variant, seed=5)
    trial.train([result], Metric("val_accuracy"), data, trial.Device.of(data), lambda result: None, program="graph")
    return result


def test_where_they_are_follows_from_the_number_of_epochs_alone():
    """Of few epochs all, of many about a hundred evenly spread ones; the first and the last among them."""
    for epochs in (1, 2, 15, 16, 17, 50, 99, 150, 300, 400, 401, 999, 1_000, 100_000):
        at = [epoch for epoch in range(1, epochs + 1) if planned(epoch, epochs)]
        assert at[0] == 1
        assert at[-1] == epochs
        assert at == list(range(1, epochs + 1)) if epochs <= 16 else min(epochs // 4, 50) <= len(at) <= 102
        assert all(b - a <= every(epochs) for a, b in itertools.pairwise(at))
    assert [epoch for epoch in range(1, EPOCHS + 1) if planned(epoch, EPOCHS)] == AT


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_is_the_same_wherever_it_is_evaluated(name, few, monkeypatch):
    """Weights, other metrics and the evaluated epochs are bit for bit those of a training evaluated after every epoch.

    The last epoch and the best one are always among them; of a training that stopped or diverged, too.
    """
    found = trained(VARIANTS[name], few)
    monkeypatch.setattr(evaluations, "every", lambda epochs: 1)
    whole = trained(VARIANTS[name], few)
    assert (found.end, found.best_epoch, found.test) == (whole.end, whole.best_epoch, whole.test)
    for one, other in zip(found.weights or [], whole.weights or [], strict=True):
        np.testing.assert_array_equal(one, other)
    at = sorted({epoch for epoch in AT if epoch <= found.epochs} | {found.best_epoch or 1, found.epochs})
    assert (found.epochs < EPOCHS) == (name in ("averaged, and stopped early", "diverges"))
    assert list(found.history) == list(whole.history)
    for metric, values in whole.history.items():
        if metric.startswith("train_eval_") or metric == "penalty":
            values = [value if epoch in at else math.nan for epoch, value in enumerate(values, start=1)]
        if metric != "train_seconds":
            np.testing.assert_array_equal(found.history[metric], values, err_msg=metric)
    if found.best_epoch:
        assert math.isfinite(found.gap(Metric("val_accuracy")))


@pytest.fixture(scope="module")
def recorded(empty_store, tmp_path_factory, few):
    """Two seeds, interrupted in the middle and gone on with: (record, the client, the variant's run)."""
    import mlflow

    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    comparison = replace(COMPARISON.only(["RMSprop"]).with_base(epochs=EPOCHS), seeds=(7, 8))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
        perform(comparison, few, InterruptedWhen(lambda result: result.epochs == 25))
    record = perform(comparison, few)
    yield record, mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def told(result: Result) -> list[int]:
    return sorted({*AT, result.best_epoch or 1})


def test_what_was_not_measured_is_nowhere_a_number(recorded):
    """A run's curve has a point, and history.csv a number, at the evaluated epochs alone; the variant's run at those
    that all seeds have; record.json keeps them apart; the run says where they are."""
    record, client = recorded
    for result in record.results:
        points = client.get_metric_history(result.run_id, "train_eval_loss")
        assert sorted((point.step, point.value) for point in points) == [
            (epoch, result.history["train_eval_loss"][epoch - 1]) for epoch in told(result)
        ]
        rows = list(csv.DictReader(io.StringIO(read(client, result.run_id, "history.csv"))))
        assert [int(row["epoch"]) for row in rows if row["train_eval_accuracy"]] == told(result)
        assert all(row["val_accuracy"] for row in rows)
        run = client.get_run(result.run_id)
        assert run.data.params["train_eval"] == "every 3 epochs, the first, the best and the last"
        assert run.data.metrics["gap"] == result.gap(Metric("val_accuracy"))
    (over,) = [
        run for run in client.search_runs(["0"]) if run.data.tags.get("mlplab.kind") == "variant" and below(client, run)
    ]
    steps = {point.step for point in client.get_metric_history(over.info.run_id, "train_eval_loss")}
    assert steps == set.intersection(*(set(told(result)) for result in record.results))
    again = Record.from_json(read(client, record.run_id, "record.json"), record.experiment, record.run_id)
    for one, other in zip(again.results, record.results, strict=True):
        assert tables.history_csv(one) == tables.history_csv(other)


def test_a_replay_compares_what_both_have(recorded, few):
    """A replay is equal to the bit; so it is to a record of a version that evaluated other epochs, where both have a
    value."""
    record, client = recorded
    kept = json.loads(read(client, record.results[0].run_id, "training.json"))
    assert replay.replay(kept, few, Quiet())[0].equal
    own = kept["result"]["history"]["train_eval_loss"]
    own[1] = 0.5  # an epoch that is not evaluated now
    outcome, result = replay.replay(kept, few, Quiet())
    assert outcome.equal
    own[2] += 1e-7
    outcome, _ = replay.replay(kept, few, Quiet())
    assert outcome.differences[0].startswith("train_eval_loss at epoch 3 is ")
    assert math.isnan(result.history["train_eval_loss"][1])


def test_figures_join_the_points_and_say_where_they_are(recorded):
    """One training's curve goes through all its points, several seeds' means through those that all have."""
    record, _ = recorded
    for shown, at in ((record.results[:1], told(record.results[0])), (record.results, AT)):
        figure = figures.learning_curves(shown, "digits")
        assert "training, evaluated every 3 epochs" in [text.get_text() for text in figure.legends[0].get_texts()]
        (line,) = [line for line in figure.axes[0].lines if line.get_label().startswith("training, evaluated")]
        assert list(line.get_xdata()) == at
        assert np.isfinite(line.get_ydata()).all()
    assert len(outcomes(record.results)) == 1
