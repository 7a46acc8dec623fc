"""Models, losses, data and callbacks of one's own: checked before a run exists, and trained as everything else is."""

import inspect
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from test_run import InterruptedWhen, perform
from words import mlp, stopping

from mlplab import Comparison, Metric, Training, call, trial
from mlplab.checks import UsageError
from mlplab.data import load


def points(kind: str = "plain") -> dict[str, Any]:
    """Numbers to predict, of one input or of two by name, with or without weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype("float32")
    y = (x[:, 0] - 2 * x[:, 1] + 0.1 * rng.normal(size=400)).astype("float32")
    found: dict[str, Any] = {"x": x, "y": y}
    if kind != "plain":
        found["x"] = {"left": x[:, :3], "right": x[:, 3:]}
        # The second half, of which y says the opposite, counts for nothing.
        found["y"] = np.where(np.arange(400) < 200, y, -y).astype("float32")
        found["weight"] = (np.arange(400) < 200).astype("float32")
    return found


def net(units: int = 8, fails: str = "", dropout: float = 0.0) -> Any:
    if fails == "raises":
        raise OverflowError("so many units do not fit")
    if fails == "returns":
        return [units]
    inputs = keras.Input((6,))
    hidden = keras.layers.Dropout(dropout)(keras.layers.Dense(units, "relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3 if fails == "outputs" else 1)(hidden))


def joined(units: int = 8) -> keras.Model:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    hidden = keras.layers.Dense(units, "relu")(keras.layers.Concatenate()([left, right]))
    return keras.Model({"left": left, "right": right}, keras.layers.Dense(1)(hidden))


def stubborn(y: Any, predicted: Any) -> Any:
    if predicted.shape[-1] == 3:
        raise ValueError("one number was expected, and three came")
    return keras.ops.mean(keras.ops.square(keras.ops.reshape(y, (-1, 1)) - predicted), axis=-1)


BASE = Training(model=net, optimizer="adam", learning_rate=0.01, loss="mse", metrics=["mae"], epochs=3)


def a_comparison(**changes: Any) -> Comparison:
    values = {"data": points, "base": BASE, "select": "val_mae", "name": "own", "seeds": (7,)}
    values["variants"] = {"few": {}, "many": {"model.units": 16}}
    return Comparison(question="Which is best?", **{**values, **changes})


def line_of(function: Any, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    (place,) = [place for place, line in enumerate(lines) if text in line]
    return first + place


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model.fails": "raises"},
            f"cannot be built ({__file__}, line {line_of(net, 'OverflowError')}): OverflowError: so many units do not",
        ),
        ({"model.fails": "returns"}, "cannot be built: net returned [8]; legal: a keras.Model."),
        (
            {"model.fails": "outputs", "loss": stubborn},
            f"cannot train on these data ({__file__}, line {line_of(stubborn, 'ValueError')}): ValueError: one number",
        ),
        ({"model.fails": "outputs", "loss": "sparse_categorical_crossentropy"}, "cannot train on these data"),
    ],
    ids=["raises", "returns no model", "does not fit a loss of one's own", "does not fit the loss"],
)
def test_a_variant_that_cannot_be_trained_is_refused_before_a_run(store: Any, change: Any, said: str) -> None:
    """Of two variants the one that fails is named, with the user's own error and line; nothing is on record."""
    with pytest.raises(UsageError) as raised:
        perform(a_comparison(variants={"good": {}, "bad one": change}), load(points))
    assert str(raised.value).startswith("variant 'bad one' ")
    assert said in str(raised.value)
    assert not store.search_runs(["0"])


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are(store: Any) -> None:
    """Whether it selects, is judged besides, or has a target."""
    for change in ({"select": "val_auc"}, {"measures": ["val_auc"]}, {"targets": {"val_auc": 0.9}}):
        with pytest.raises(UsageError, match=r"unknown metric .*'val_auc'; legal: val_loss, val_mae") as raised:
            perform(a_comparison(**change), load(points))
        assert "variant 'few'" in str(raised.value)
    assert not store.search_runs(["0"])


def test_splits_are_drawn_anew_with_each_seed_and_alike_for_all_variants(store: Any, dataset: Any) -> None:
    """With `splits="resampled"` two seeds see other examples, and of a seed both variants see the same ones."""
    digits = load("digits")
    variants = {"slow": {}, "fast": {"learning_rate": 0.3}}
    base = mlp(hidden=(4,), epochs=1, batch_size="full").but(splits="resampled")
    record = perform(a_comparison(data="digits", base=base, select="val_loss", variants=variants, seeds=(1, 2)), digits)
    for result in record.results:
        split = digits.resampled(result.seed)
        model = keras.saving.load_model(store.download_artifacts(result.run_id, "model.keras"))
        for part, values in ((split.validation, "val_"), (split.train, "train_eval_")):
            loss, accuracy = model.evaluate(part.x, part.y, verbose=0)
            assert result.best(f"{values}loss") == pytest.approx(loss, rel=1e-4)
            assert result.best(f"{values}accuracy") == pytest.approx(accuracy, abs=1e-6)
    slow, other, fast, _ = record.results
    assert (slow.seed, other.seed, fast.seed) == (1, 2, 1)
    assert slow.start == fast.start
    assert not np.array_equal(digits.resampled(1).train.y, digits.resampled(2).train.y)
    assert record.verdicts


def test_named_inputs_and_weights_are_trained_on(store: Any) -> None:
    """A regression on two inputs by name learns from the examples that have a weight, and is judged in its unit."""
    spec = a_comparison(
        data=call(points, kind="named"),
        base=BASE.but(model=joined, epochs=40),
        select=Metric("val_loss", unit="mm", margin=0.1),
        seeds=(7, 8),
    )
    record = perform(spec, load(spec.data))
    for result in record.results:
        # Without weights the two halves, which say the opposite, would leave nothing to learn.
        assert result.best("val_loss") < 0.2 < 1 < result.history["val_loss"][0]
    (verdict,) = [verdict for verdict in record.verdicts if verdict.measure == "val_loss"]
    assert verdict.unit == "mm"
    assert " mm" in verdict.sentence


STATEFUL = {
    # Its best weights and how long it has waited.
    "EarlyStopping": stopping(3, restore_best_weights=True),
    # The rate, and what it waits for.
    "ReduceLROnPlateau": call("keras.callbacks.ReduceLROnPlateau", monitor="val_loss", factor=0.5, patience=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("callback", STATEFUL)
def test_a_callback_goes_on_with_what_it_knew(callback: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted at any of its epochs, a training with a callback ends at the weights of one that was not."""
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    base = BASE.but(learning_rate=0.3, epochs=12, callbacks=[STATEFUL[callback]], **{"model.dropout": 0.2})
    spec = a_comparison(base=base, select="val_loss", variants={"one": {}})
    data = load(points)
    (whole,) = perform(spec, data).results
    plain = perform(replace(spec, base=base.but(callbacks=())), data).results[0]
    assert whole.end != plain.end, "the callback made no difference, so the test shows nothing"
    for last in (2, 6):
        assert last <= whole.epochs
        with pytest.raises(KeyboardInterrupt):
            perform(spec, data, InterruptedWhen(lambda result, last=last: result.epochs == last))
        (found,) = perform(spec, data).results
        assert found.resumed_at == last - 1
        assert (found.epochs, found.end, found.test) == (whole.epochs, whole.end, whole.test)
        assert found.history["learning_rate"] == whole.history["learning_rate"]
