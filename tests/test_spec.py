"""What the words of a comparison promise: what is legal passes unchanged, what is not is refused in words that help."""

import copy
import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import cloudpickle
import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplab import call
from mlplab.calls import Call
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.spec import MARGINS, Metric, Training


def cnn(filters: int = 32, dropout: float = 0.0, widths: tuple[int, ...] = (8,)) -> Any:
    """Stands for a user's model function."""


def with_more(filters: int = 32, dropout: float = 0.0, norm: bool = False) -> Any:
    """Stands for `cnn` after an argument has been added."""


def my_loss(truth: Any, answer: Any) -> Any:
    """Stands for a user's loss."""


class MyMetric:
    """Stands for a user's metric."""

    def __call__(self, truth: Any, answer: Any) -> Any: ...


def training(**changes: Any) -> Training:
    """A small legal training with `changes`."""
    legal: dict[str, Any] = {
        "model": cnn,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        "epochs": 3,
    }
    return Training(**{**legal, **changes})


def comparison(**changes: Any) -> Comparison:
    """A small legal comparison with `changes`."""
    legal: dict[str, Any] = {
        "question": "Is Adam better than SGD?",
        "data": "mnist",
        "base": training(),
        "variants": {"SGD": {}, "Adam": {"optimizer": "adam", "learning_rate": 0.001}},
    }
    return Comparison(**{**legal, **changes})


def refusal(make: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(*arguments, **named)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ the training


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("name", "x" * 101, "up to 100 printable characters"),
        ("name", "a\nb", "up to 100 printable characters"),
        ("name", 3, "up to 100 printable characters"),
        ("model", 3, "a function, a class, or the path of one"),
        ("learning_rate", 0, "a number above 0 to 100"),
        ("learning_rate", -0.1, "a number above 0 to 100"),
        ("learning_rate", 100.1, "a number above 0 to 100"),
        ("learning_rate", math.nan, "a number above 0 to 100"),
        ("learning_rate", math.inf, "a number above 0 to 100"),
        ("learning_rate", "0.1", "a number above 0 to 100, or call("),
        ("learning_rate", True, "a number above 0 to 100, or call("),
        ("batch_size", 0, "a whole number from 1, or 'full'"),
        ("batch_size", "all", "a whole number from 1, or 'full'"),
        ("batch_size", True, "a whole number from 1, or 'full'"),
        ("batch_size", 12.0, "a whole number from 1, or 'full'"),
        ("epochs", 0, "a whole number from 1 to 100000"),
        ("epochs", 1.5, "a whole number from 1 to 100000"),
        ("epochs", True, "a whole number from 1 to 100000"),
        ("class_weight", 3, "a dict such as {0: 1.0, 1: 5.0}, 'balanced', or None"),
        ("class_weight", {}, "a dict such as"),
        ("class_weight", "even", "'balanced', or None"),
        ("precision", "half", "a dtype policy of Keras such as 'mixed_bfloat16'"),
        ("precision", 16, "a dtype policy of Keras"),
        ("splits", "random", "fixed, resampled"),
        ("splits", None, "fixed, resampled"),
    ],
)
def test_an_illegal_value_of_a_training_is_refused(field: str, value: Any, legal: str) -> None:
    """The message names the field, shows the value seen and says what is legal."""
    text = refusal(training, **{field: value})
    assert field in text or "target of a call" in text
    assert repr(value) in text
    assert f"legal: {legal}" in text or legal in text.partition("legal: ")[2]


@pytest.mark.parametrize(
    ("weights", "texts"),
    [
        ({0: -1}, ["the weight of class 0 is -1", "a number from 0"]),
        ({0: math.nan}, ["the weight of class 0 is nan"]),
        ({"cat": 1.0}, ["a class of class_weight is 'cat'", "a whole number"]),
        ({True: 1.0}, ["a class of class_weight is True"]),
    ],
)
def test_class_weights_are_of_classes(weights: Any, texts: list[str]) -> None:
    """A class is a whole number, as labels are, and its weight a number that is not negative."""
    said = refusal(training, class_weight=weights)
    assert all(text in said for text in texts)
    assert training(class_weight={0: 1, 1: 5.0}).params()["class_weight"] == "0: 1, 1: 5.0"


@pytest.mark.parametrize(
    ("make", "seen", "meant", "legal"),
    [
        (lambda: training(optimizer="adamm"), "unknown optimizer 'adamm'", "adam", ("lion", "muon")),
        (lambda: training(loss="msee"), "unknown loss 'msee'", "mse", ("huber", "poisson")),
        (lambda: training(metrics=["aucc"]), "unknown metric 'aucc'", "auc", ("f1_score",)),
        (lambda: training(metrics={"out": ["aucc"]}), "unknown metric 'aucc'", "auc", ("f1_score",)),
        (lambda: training(model="mpl"), "unknown model 'mpl'", "mlp", ()),
        (lambda: training(callbacks=["EarlyStoping"]), "unknown callback", "EarlyStopping", ("CSVLogger",)),
        (
            lambda: comparison(data="minst"),
            "unknown data set 'minst'",
            "",
            ("mnist, cifar10, digits", "Did you mean 'mnist'?"),
        ),
        (
            lambda: comparison(variants={"a": {"learning_rat": 1}}),
            "variant 'a': unknown choice of a training 'learning_rat'",
            "learning_rate",
            ("model", "epochs"),
        ),
        (
            lambda: comparison(variants={"a": {"model.dropuot": 0.1}}),
            "variant 'a': unknown argument of cnn 'dropuot'",
            "dropout",
            ("filters",),
        ),
        (
            lambda: training().but({"optimizer.momentun": 0.9}),
            "unknown argument of SGD 'momentun'",
            "momentum",
            ("nesterov",),
        ),
        (lambda: comparison(variants={"a": {1: 1}}), "unknown choice of a training 1", "", ("epochs",)),
        (lambda: training().but(epoch=1), "unknown choice of a training 'epoch'", "epochs", ("model",)),
        (lambda: comparison().only(["adam"]), "unknown variant of this comparison 'adam'", "Adam", ("SGD",)),
        (lambda: comparison(baseline="Adm"), "unknown baseline 'Adm'", "Adam", ("SGD",)),
        (lambda: Metric("val_auc", best="mx"), "unknown best of a metric 'mx'", "max", ("min",)),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one(make: Any, seen: str, meant: str, legal: Any) -> None:
    """The message quotes the name, lists every legal one, and asks about the closest, where one is close."""
    text = refusal(make)
    assert seen in text
    assert all(name in text for name in legal)
    assert text.endswith(f"Did you mean {meant!r}?") == bool(meant)


def test_the_usual_strings_of_keras_work() -> None:
    """A string stands for what Keras takes it for, in any case; paths, classes, functions and calls are the same."""
    usual = training(optimizer="adamw", loss="mse", metrics=["auc", "Accuracy"])
    assert usual.optimizer == call("keras.optimizers.AdamW")
    assert (usual.loss, usual.metrics) == ("mse", ("auc", "Accuracy"))
    for other in ("AdamW", "keras.optimizers.AdamW", keras.optimizers.AdamW, call(keras.optimizers.AdamW)):
        assert training(optimizer=other) == training(optimizer="adamw")
    assert training(metrics="auc") == training(metrics=["auc"]) == training(metrics=("auc",))
    assert training(metrics=None, callbacks=None) == training(metrics=[], callbacks=[])
    stopping = call("keras.callbacks.EarlyStopping", patience=5)
    assert training(callbacks=stopping).callbacks == training(callbacks=[stopping]).callbacks == (stopping,)
    assert training(callbacks=["TerminateOnNaN"]).callbacks[0].make().__class__ is keras.callbacks.TerminateOnNaN
    assert training(model="mlp") == training(model=call("mlp"))


@pytest.mark.parametrize(
    ("loss", "is_called"),
    [
        (my_loss, False),
        (MyMetric, True),
        ("keras.losses.Huber", True),
        ("keras.losses.mean_squared_error", False),
        (keras.losses.mean_squared_error, False),
        (keras.losses.Huber, True),
        (call("keras.losses.Huber", delta=2.0), True),
    ],
)
def test_a_class_is_made_and_a_function_is_the_loss_itself(loss: Any, is_called: bool) -> None:
    """As Keras' `compile` has it, also among several, and after JSON."""
    one = training(loss={"a": loss, "b": "mse"}, metrics=[[loss], ["mae"]])
    for each in (one, Training.from_dict(json.loads(json.dumps(one.to_dict())))):
        held = each.loss["a"]
        assert held.calls == is_called
        assert each.metrics[0][0].calls == is_called
        assert callable(held.make())
        assert isinstance(held.resolve(), type) == is_called


def test_the_learning_rate_is_given_once_and_of_an_optimizer() -> None:
    """Within the optimizer, or beside it; with no optimizer there is none. Schedules are calls."""
    within = call("keras.optimizers.SGD", learning_rate=0.5)
    assert "given twice, as 0.5 within the optimizer" in refusal(training, optimizer=within)
    assert training(optimizer=within, learning_rate=None).params()["optimizer.learning_rate"] == "0.5"
    assert "no optimizer that it is of" in refusal(training, optimizer=None)
    decayed = call("keras.optimizers.schedules.CosineDecay", initial_learning_rate=0.1, decay_steps=10)
    params = training(learning_rate=decayed).params()
    assert (params["learning_rate"], params["learning_rate.decay_steps"]) == ("CosineDecay", "10")
    compiled = training(optimizer=None, learning_rate=None, loss=None, metrics=())
    assert set(compiled.to_dict()) == {"model", "epochs"}


# ----------------------------------------------------------------------------------------------------------- choices


def test_a_dotted_choice_is_an_argument() -> None:
    """It is added to the call's arguments or replaces one; all the others stay; the training itself stays as it is."""
    base = training(model=call(cnn, filters=8, dropout=0.1), optimizer=call("keras.optimizers.SGD", momentum=0.5))
    changed = base.but({"model.dropout": 0.3, "optimizer.nesterov": True}, epochs=9)
    assert changed.model == call(cnn, filters=8, dropout=0.3)
    assert changed.optimizer == call("keras.optimizers.SGD", momentum=0.5, nesterov=True)
    assert (changed.epochs, changed.loss, base.epochs) == (9, base.loss, 3)
    assert base.model.arguments["dropout"] == 0.1
    assert base.but(**{"model.dropout": 0.1}) == base


def test_what_an_optimizer_is_replaced_by_has_none_of_its_arguments() -> None:
    """Arguments vanish with what they are of; dotted choices beside a new optimizer are the new one's."""
    base = training(optimizer=call("keras.optimizers.SGD", momentum=0.9))
    assert base.but(optimizer="adam").optimizer == call("keras.optimizers.Adam")
    new = base.but({"optimizer.beta_1": 0.5, "optimizer": "lion", "learning_rate": 1e-4})
    assert new.optimizer == call("keras.optimizers.Lion", beta_1=0.5)
    assert "unknown argument of Adam 'momentum'" in refusal(base.but, {"optimizer": "adam", "optimizer.momentum": 0.9})
    assert base.but({"model": "mlp", "model.dropout": 0.2}).model == call("mlp", dropout=0.2)


def test_a_dotted_choice_of_what_takes_no_argument_is_refused() -> None:
    """The message shows what stands there; a loss by its usual string is the class of that name."""
    assert "epochs is 3; legal where it is a function or call(…)" in refusal(training().but, {"epochs.x": 1})
    assert "callbacks is ()" in refusal(training().but, {"callbacks.patience": 1})
    assert "optimizer is None" in refusal(training(optimizer=None, learning_rate=None).but, {"optimizer.momentum": 0.5})
    smooth = training(loss="categorical_crossentropy").but({"loss.label_smoothing": 0.1})
    assert smooth.loss == call("keras.losses.CategoricalCrossentropy", label_smoothing=0.1)


def test_a_training_cannot_be_changed() -> None:
    """Its fields, and the lists and dicts that it was given, refuse to be changed once checked."""
    widths, weights = [8], {0: 1.0}
    one = training(model=call(cnn, widths=widths), class_weight=weights, loss={"a": "mse"})
    with pytest.raises(FrozenInstanceError):
        one.epochs = 0  # type: ignore[misc]
    for held in (one.class_weight, one.loss, one.model.arguments):
        with pytest.raises(TypeError):
            held["a"] = 0
    widths.append(0)
    weights[1] = -1.0
    assert one == training(model=call(cnn, widths=(8,)), class_weight={0: 1.0}, loss={"a": "mse"})
    for copied in (copy.deepcopy(one), pickle.loads(cloudpickle.dumps(one)), replace(one)):
        assert copied == one
        assert hash(copied) == hash(one)


def test_the_fingerprint_leaves_defaults_out() -> None:
    """An argument equal to its default changes nothing, wherever it stands; another value does; the name never."""
    plain = training().fingerprint()
    for same in (
        {"model.dropout": 0.0},
        {"model.dropout": 0},
        {"model": call(cnn, filters=32)},
        {"optimizer.momentum": 0.0},
        {"optimizer": call("keras.optimizers.SGD", nesterov=False)},
        {"name": "another"},
        {"class_weight": None, "precision": None, "splits": "fixed", "callbacks": []},
    ):
        assert training().but(same).fingerprint() == plain
        assert training().but(same).canonical == training().canonical
    for other in (
        {"model.dropout": 0.1},
        {"optimizer.momentum": 0.9},
        {"optimizer": "adam"},
        {"splits": "resampled"},
        {"precision": "float16"},
        {"class_weight": "balanced"},
        {"metrics": []},
        {"epochs": 4},
    ):
        assert training().but(other).fingerprint() != plain
    auc = [training(metrics=[call("keras.metrics.AUC", **given)]) for given in ({}, {"num_thresholds": 200})]
    assert auc[0].fingerprint() == auc[1].fingerprint()
    assert auc[0].but(metrics=[call("keras.metrics.AUC", num_thresholds=99)]).fingerprint() != auc[0].fingerprint()
    assert "norm" not in str(training(model=with_more).fingerprint())
    assert json.loads(json.dumps(plain)) == [list(one) for one in plain]


optimizers = st.sampled_from(["sgd", "adam", "rmsprop", "lion", "adamw"]).map(lambda name: {"optimizer": name})
momenta = st.floats(0, 1).map(lambda momentum: {"optimizer": "sgd", "optimizer.momentum": momentum})
calls = st.floats(0, 1).map(lambda decay: {"optimizer": call("keras.optimizers.AdamW", weight_decay=decay)})
losses = st.sampled_from(["mse", "huber", call("keras.losses.Huber", delta=2.0), my_loss])
CHANGES = {
    "model.filters": st.integers(1, 512),
    "model.dropout": st.floats(0, 0.99),
    "model.widths": st.lists(st.integers(1, 65_536), max_size=4),
    "learning_rate": st.floats(0, 100, exclude_min=True)
    | st.integers(1, 9).map(
        lambda steps: call("keras.optimizers.schedules.CosineDecay", initial_learning_rate=0.1, decay_steps=steps)
    ),
    "loss": losses
    | st.lists(losses, min_size=1, max_size=2)
    | st.dictionaries(st.text(max_size=3), losses, min_size=1),
    "metrics": st.lists(st.sampled_from(["auc", "mae", MyMetric]), max_size=2, unique=True),
    "batch_size": st.integers(1, 10_000_000) | st.just("full"),
    "epochs": st.integers(1, 100_000),
    "callbacks": st.lists(st.sampled_from(["TerminateOnNaN", call("keras.callbacks.EarlyStopping", patience=5)])),
    "class_weight": st.none() | st.just("balanced") | st.dictionaries(st.integers(0, 9), st.floats(0, 9), min_size=1),
    "precision": st.none() | st.sampled_from(["float32", "mixed_bfloat16"]),
}
changes = st.builds(
    lambda one, other: {**one, **other},
    st.fixed_dictionaries({}, optional=CHANGES),
    optimizers | momenta | calls | st.just({}),
)


@given(changes)
def test_json_gives_any_training_back(change: dict[str, Any]) -> None:
    """A training is a value: standard JSON and back, frozen, equal to one that is made the same way."""
    one = training().but(change)
    back = Training.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
    assert back == one == training().but(change)
    assert hash(back) == hash(one)
    assert back.fingerprint() == one.fingerprint()
    assert back.params() == one.params()


@given(changes)
def test_params_are_flat_texts(change: dict[str, Any]) -> None:
    """A tracking store gets every choice that was made, and a model's defaults, each under the name that varies it."""
    params = training().but(change).params()
    assert all(isinstance(value, str) and value for value in params.values())
    assert {"model", "optimizer", "learning_rate", "loss", "batch_size", "epochs", "model.filters"} <= set(params)
    assert {name for name, value in change.items() if value not in (None, [], "")} <= set(params)
    assert "name" not in params


@given(st.integers(1, 50) | st.just("full"), st.integers(1, 5_000))
def test_steps_per_epoch_count_every_batch(batch_size: int | str, examples: int) -> None:
    """Taking batches until no example is left takes as many steps as `steps_per_epoch` says."""
    left, steps = examples, 0
    while left > 0:
        left -= examples if isinstance(batch_size, str) else batch_size
        steps += 1
    one = training(batch_size=batch_size)
    assert one.steps_per_epoch(examples) == steps
    assert 1 <= one.batch(examples) <= examples


# ----------------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("name", "best", "unit"),
    [
        ("val_accuracy", "max", "points"),
        ("val_sparse_top_k_categorical_accuracy", "max", "points"),
        ("val_auc", "max", "points"),
        ("val_auc_1", "max", "points"),
        ("val_f1_score", "max", "points"),
        ("val_mean_io_u", "max", "points"),
        ("val_precision_at_recall", "max", "points"),
        ("val_r2_score", "max", ""),
        ("val_pearson_correlation", "max", ""),
        ("val_mse", "min", "%"),
        ("val_root_mean_squared_error", "min", "%"),
        ("val_false_negatives", "min", "%"),
        ("val_sparse_categorical_crossentropy", "min", "nats"),
        ("val_kl_divergence", "min", "nats"),
        ("val_loss", "min", ""),
        ("val_head_loss", "min", ""),
    ],
)
def test_the_direction_and_unit_of_a_keras_metric_are_known(name: str, best: str, unit: str) -> None:
    """By its name, as Keras logs it; of a loss the unit is known with the comparison."""
    assert (Metric(name).best, Metric(name).unit, Metric(name).maximizes) == (best, unit, best == "max")
    assert Metric(name).words.startswith("validation ")
    assert Metric(name).base == name[4:]


def test_keras_metrics_have_a_direction() -> None:
    """Every metric of Keras but the plain aggregates can select without more being said."""
    needed = {"num_classes": 2, "precision": 0.5, "recall": 0.5, "sensitivity": 0.5, "specificity": 0.5}
    unknown = set()
    for name, kind in vars(keras.metrics).items():
        if isinstance(kind, type) and name not in ("MeanMetricWrapper", "Metric"):
            takes = Call(f"keras.metrics.{name}").parameters() or {}
            more = {"target_class_ids": [0]} if "target_class_ids" in takes and name != "BinaryIoU" else {}
            given = {k: v for k, v in needed.items() if k in takes and takes[k].default is takes[k].empty}
            try:
                Metric(f"val_{kind(**given, **more).name}")
            except UsageError:
                unknown.add(name)
    assert unknown <= {"Mean", "Sum"}


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"name": "test_accuracy"}, ["'test_accuracy'", "would spend it", "'val_accuracy'"]),
        ({"name": "val_wer"}, ["'val_wer'", "Metric('val_wer', best='max') or best='min'"]),
        ({"name": "a b"}, ["'a b'", "as Keras logs it"]),
        ({"name": 3}, ["3", "as Keras logs it"]),
        ({"name": "val_auc", "margin": -1}, ["the margin of val_auc is -1", "from 0 to 1"]),
        ({"name": "val_auc", "margin": 2}, ["the margin of val_auc is 2", "from 0 to 1"]),
        ({"name": "val_auc", "margin": math.nan}, ["the margin of val_auc is nan"]),
        ({"name": "val_auc", "unit": 3}, ["unit is 3", "points, nats, %"]),
    ],
)
def test_an_illegal_metric_is_refused(given: dict[str, Any], texts: list[str]) -> None:
    """Of the test set, of a direction that is not known, or with a value that is none."""
    said = refusal(Metric, **given)
    assert all(text in said for text in texts)


def test_a_metric_of_ones_own_says_its_direction_unit_and_margin() -> None:
    """What is said wins over what the name says."""
    one = Metric("val_wer", best="min", margin=2.5, unit="words")
    assert (one.maximizes, one.margin, one.unit) == (False, 2.5, "words")
    assert Metric("val_accuracy", best="min").best == "min"
    assert comparison(select=one).metric == one


@pytest.mark.parametrize(
    ("loss", "unit"),
    [
        ("sparse_categorical_crossentropy", "nats"),
        ("bce", "nats"),
        ("ce", "nats"),
        ("kld", "nats"),
        (call("keras.losses.BinaryCrossentropy", from_logits=True), "nats"),
        ({"a": "bce", "b": "ce"}, "nats"),
        ("mse", "%"),
        (my_loss, "%"),
        (["bce", "mse"], "%"),
        (None, "%"),
    ],
)
def test_the_unit_of_the_loss_is_what_the_loss_is_in(loss: Any, unit: str) -> None:
    """Cross-entropies are in nats, whatever they are called; other losses compare by ratio, as do mixtures."""
    metric = comparison(base=training(loss=loss), select="val_loss").metric
    assert (metric.unit, metric.margin, metric.maximizes) == (unit, MARGINS[unit], False)


def test_several_measures_are_judged_each_by_its_own() -> None:
    """The selection metric comes first, none twice; the comparison's margin is the selection metric's alone."""
    one = comparison(
        base=training(metrics=["accuracy", "auc"]),
        measures=["val_loss", Metric("val_auc", margin=0.05), "val_accuracy"],
        margin=0.01,
    )
    assert [metric.name for metric in one.judged] == ["val_accuracy", "val_loss", "val_auc"]
    assert [metric.margin for metric in one.judged] == [0.01, MARGINS["nats"], 0.05]
    assert "measures is 'val_loss'" in refusal(comparison, measures="val_loss")
    assert "val_wer" in refusal(comparison, measures=["val_wer"])


@given(st.floats(), st.floats(), st.sampled_from(["max", "min"]))
def test_better_never_prefers_a_value_that_is_not_finite(a: float, b: float, best: str) -> None:
    """NaN and infinity lose against every number, and no two values are each better than the other."""
    metric, prefers = Metric("val_own", best=best), {"max": max, "min": min}[best]
    assert not (metric.better(a, b) and metric.better(b, a))
    if not math.isfinite(a):
        assert not metric.better(a, b)
    elif math.isfinite(b):
        assert metric.better(a, b) == (a != b and prefers(a, b) == a)
    else:
        assert metric.better(a, b)


# --------------------------------------------------------------------------------------------------- whatever is given

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([10**400, "full", "sgd", "mse", "auc", "mlp", math.nan, range(3), object, cnn, call(cnn)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Training)]), anything, min_size=1, max_size=3))
def test_any_value_makes_a_training_or_is_refused(values: dict[str, Any]) -> None:
    """Whatever a field is given, it is refused in words that say what is legal, or the training can be stored."""
    try:
        one = training(**values)
    except UsageError as error:
        assert "legal: " in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert Training.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one
        assert isinstance(hash(one), int)
        assert one.params()


@given(anything)
def test_any_change_makes_a_variant_or_is_refused(change: Any) -> None:
    """Whatever stands in the place of a variant's difference from base, it is refused or applied."""
    try:
        made = comparison(variants={"a": change})
    except UsageError as error:
        assert "variant 'a'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert made.resolved() == (made.base.but({**change, "name": "a"}),)


@given(
    st.dictionaries(
        st.sampled_from(sorted({f.name for f in fields(Comparison)} - {"data"})), anything, min_size=1, max_size=2
    )
)
def test_any_value_makes_a_comparison_or_is_refused(values: Mapping[str, Any]) -> None:
    """Whatever a comparison's fields are given, it is refused, or it can be written as JSON and read back."""
    try:
        made = comparison(**values)
    except UsageError:
        return
    assert Comparison.from_json(made.to_json()) == made
