"""What `Classifier` and `Regressor` promise: scikeras' estimators, taken for what they are and trained compiled."""

import pickle
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from scikeras.wrappers import KerasClassifier, KerasRegressor
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from mlplab import Classifier, Regressor, training
from mlplab import __file__ as package

Data = tuple[np.ndarray, np.ndarray]


def network(seed: int = 1, outputs: int = 10, width: int = 8) -> keras.Model:
    """A model function as a user of scikeras writes it, on the digits' 64 pixels from 0 to 1."""
    start = [keras.initializers.GlorotUniform(seed=seed + place) for place in range(2)]
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(width, "relu", kernel_initializer=start[0]),
        keras.layers.Dense(outputs, "softmax" if outputs > 1 else None, kernel_initializer=start[1]),
    ]
    model = keras.Sequential(layers)
    loss = "sparse_categorical_crossentropy" if outputs > 1 else "mse"
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"] if outputs > 1 else [])
    return model


def classifier(**changes: Any) -> Classifier:
    return Classifier(network, **{"batch_size": 64, "epochs": 2, "verbose": 0, "fit__seed": 5, **changes})


def regressor(**changes: Any) -> Regressor:
    given = {"batch_size": 64, "epochs": 20, "verbose": 0, "fit__seed": 5, "model__outputs": 1}
    return Regressor(network, **{**given, **changes})


def test_each_is_what_it_is_again(digits: Data) -> None:
    """scikit-learn takes the one for a classifier, so that an integer `cv` is stratified, the other for a regressor."""
    assert is_classifier(classifier())
    assert is_regressor(regressor())
    assert isinstance(check_cv(3, digits[1], classifier=is_classifier(classifier())), StratifiedKFold)


def test_scikeras_own_are_still_none() -> None:
    """The workaround is still needed: scikeras' own are neither. When this fails, delete `__sklearn_tags__`."""
    assert not is_classifier(KerasClassifier(network))
    assert not is_regressor(KerasRegressor(network))


def test_a_classifier_trains_compiled(digits: Data) -> None:
    """The same weights as by `training.fit`, and no falling back to Keras; predictions and score are of that model."""
    x, y = digits
    by_hand = network(seed=3)
    training.fit(by_hand, x, y, batch_size=64, epochs=2, verbose=0, seed=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "mlplab trains this with keras")
        fitted = classifier(model__seed=3).fit(x, y)
    for mine, theirs in zip(fitted.model_.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fitted.predict_proba(x), by_hand.predict(x, verbose=0), atol=1e-6)
    assert fitted.history_["loss"] == pytest.approx(by_hand.history.history["loss"])
    assert fitted.score(x, y) == np.mean(fitted.predict(x) == y)


def test_a_regressor_trains_compiled(digits: Data) -> None:
    """The same weights as by `training.fit`; its score is R²."""
    x, y = digits[0], digits[0].sum(axis=1) / 20
    by_hand = network(outputs=1)
    training.fit(by_hand, x, y, batch_size=64, epochs=20, verbose=0, seed=5)
    fitted = regressor().fit(x, y)
    np.testing.assert_allclose(fitted.predict(x), by_hand.predict(x, verbose=0).reshape(-1), rtol=1e-4, atol=1e-5)
    score = fitted.score(x, y)
    assert score == pytest.approx(r2_score(y, fitted.predict(x)))
    assert score > 0.5


@pytest.mark.parametrize("make", [classifier, regressor])
def test_it_is_an_ordinary_estimator(make: Any, digits: Data) -> None:
    """It can be cloned, pickled when fitted, put in a pipeline, and cross-validated in processes of joblib's."""
    x, y = digits[0][:200], digits[1][:200]
    copy = clone(make(model__seed=4))
    assert copy.get_params()["model__seed"] == 4
    fitted = copy.set_params(epochs=3).fit(x, y)
    assert len(fitted.history_["loss"]) == 3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(x), fitted.predict(x))
    piped = make_pipeline(MinMaxScaler(), make())
    one = cross_val_score(piped, x, y, cv=2)
    if make is classifier:  # two processes that load TensorFlow
        assert one.tolist() == cross_val_score(piped, x, y, cv=2, n_jobs=2).tolist()


def test_it_is_searched_by_scikit_learn(digits: Data) -> None:
    """Arguments of the model function are searched by their names."""
    found = GridSearchCV(classifier(), {"model__width": [2, 30], "epochs": [10]}, cv=2).fit(*digits)
    assert found.best_params_ == {"model__width": 30, "epochs": 10}


def test_it_trains_on_sample_weights(digits: Data) -> None:
    """Sample weights reach the training: images of weight 0 are not learnt."""
    x, y = digits
    weights = (y < 2).astype("float32")
    assert set(classifier(epochs=20).fit(x, y, sample_weight=weights).predict(x)) <= {0, 1}


def test_names_are_labels_too(digits: Data) -> None:
    """Labels may be texts, and predictions are then, too."""
    x, y = digits[0], np.array([f"digit {label}" for label in digits[1]])
    assert set(classifier().fit(x, y).predict(x)) <= set(y)


def test_sparse_examples_are_predicted_as_dense_ones(digits: Data) -> None:
    """Of SciPy's sparse matrices a model sees a dense batch at a time."""
    fitted = classifier().fit(*digits)
    np.testing.assert_array_equal(fitted.predict(csr_matrix(digits[0])), fitted.predict(digits[0]))


def fitting(meta: dict[str, Any]) -> keras.Model:
    """A model for whatever data it is given, as scikeras describes them."""
    model = keras.Sequential([keras.Input((meta["n_features_in_"],)), keras.layers.Dense(8, "relu")])
    if classes := meta.get("n_classes_"):
        binary = meta["target_type_"] == "binary"
        model.add(keras.layers.Dense(1, "sigmoid") if binary else keras.layers.Dense(classes, "softmax"))
        loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    else:
        model.add(keras.layers.Dense(meta.get("n_outputs_", 1)))
        loss = "mse"
    model.compile(keras.optimizers.Adam(0.05), loss)
    return model


LEFT = {
    # scikeras has `_more_tags` besides `__sklearn_tags__`, and its mixins in another order.
    "check_estimator_tags_renamed",
    "check_mixin_order",
    # It says another number of features in other words, and nothing of labels in a column.
    "check_n_features_in_after_fitting",
    "check_supervised_y_2d",
    # Keras draws batches: an example of weight 2 is not that example twice.
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
    # Keras takes not all of SciPy's sparse arrays.
    "check_estimator_sparse_array",
}
"""What scikit-learn checks and scikeras, or Keras below it, does otherwise."""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(Classifier, KerasClassifier, marks=pytest.mark.slow),
        pytest.param(Regressor, KerasRegressor, marks=pytest.mark.nightly),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass_that_scikeras_passes(ours: type, theirs: type) -> None:
    """Whatever `check_estimator` finds right of scikeras' own is right, the sparse tag and more besides."""

    def found(kind: type, epochs: int) -> dict[str, set[str]]:
        outcomes: dict[str, set[str]] = {}
        made = kind(fitting, verbose=0, epochs=epochs, batch_size=32)
        for one in check_estimator(made, on_fail=None, on_skip=None):
            outcomes.setdefault(one["check_name"], set()).add(one["status"])
        return outcomes

    mine, plain = found(ours, 10), found(theirs, 1)
    failed = {name for name, how in mine.items() if "failed" in how}
    assert failed <= LEFT
    assert failed < {name for name, how in plain.items() if "failed" in how} | (set(mine) - set(plain))
    assert len(mine) > len(plain)


def test_the_module_keeps_scikeras_to_itself() -> None:
    """One adapter over scikeras: no other module of the package imports it."""
    from pathlib import Path

    modules = Path(package).parent.glob("*.py")
    assert [path.name for path in modules if "scikeras.wrappers import" in path.read_text()] == ["wrappers.py"]
