"""scikeras' wrappers, as scikit-learn takes them with `mlplab.training` below; for one's own scikit-learn code, too."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from scikeras.wrappers import KerasClassifier, KerasRegressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import ClassifierTags, RegressorTags

from mlplab import training
from mlplab.export import in_batches


class _Compiled:
    """What both wrappers do otherwise than scikeras' own; see `Classifier`."""

    def _fit_keras_model(self, *args: Any, **kwargs: Any) -> None:
        # scikeras calls model_.fit. Setting that on the model would make it one that shares no compiled programs.
        model: Any = self.model_

        def fit(**arguments: Any) -> keras.callbacks.History:
            return training.fit(model, **arguments)

        self.model_: Any = SimpleNamespace(loss=model.loss, fit=fit)
        try:
            super()._fit_keras_model(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.model_ = model

    def _predict_raw(self, X: Any, **kwargs: Any) -> np.ndarray:
        this: Any = self
        if not this.initialized_:
            raise NotFittedError(f"this {type(self).__name__} has no model yet: call fit first.")
        X, _ = this._validate_data(X=X, y=None)
        X = this.feature_encoder_.transform(X)

        def batch(x: Any) -> Any:
            return self.model_(keras.tree.map_structure(_dense, x), training=False)

        # Not model.predict: its set-up costs more than the answer.
        return in_batches(batch, training.EVALUATION_BATCH)(X)  # type: ignore[no-any-return]


def _dense(rows: Any) -> Any:
    return rows.toarray() if hasattr(rows, "toarray") else rows  # SciPy's sparse matrices


class Classifier(_Compiled, KerasClassifier):  # type: ignore[misc]
    """`scikeras.wrappers.KerasClassifier` that scikit-learn takes for a classifier and `mlplab.training.fit` trains.

    The parameters are KerasClassifier's. `fit__seed` seeds the batch order, an argument of the model function (such
    as `model__seed`) the initial weights; scikeras' own `random_state` would make all of TensorFlow deterministic,
    which is slow, for the whole process. Predictions are made in batches of `training.EVALUATION_BATCH`.

    Examples:
        >>> from sklearn.model_selection import cross_val_score
        >>> classifier = Classifier(mlp, loss="sparse_categorical_crossentropy", epochs=5, verbose=0)
        >>> cross_val_score(classifier, x, y, cv=2).shape
        (2,)
    """

    def __sklearn_tags__(self) -> Any:
        # From scikit-learn 1.6 on tags say what is a classifier. KerasClassifier names ClassifierMixin, which sets
        # them, after BaseEstimator, which does not call it; the other order is no legal one for a subclass either.
        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.input_tags.sparse = True
        return tags


class Regressor(_Compiled, KerasRegressor):  # type: ignore[misc]
    """`scikeras.wrappers.KerasRegressor` that scikit-learn takes for a regressor and `mlplab.training.fit` trains.

    The parameters are KerasRegressor's; see `Classifier`.

    Examples:
        >>> regressor = Regressor(lines, loss="mse", epochs=1, verbose=0)
        >>> regressor.fit(x, y).predict(x).shape
        (200,)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.input_tags.sparse = True
        return tags
