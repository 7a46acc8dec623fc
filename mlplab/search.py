"""A random search that is scikit-learn's own, with scikeras between it and Keras, and `mlplab.training` below."""

import math
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol

import joblib  # type: ignore[import-untyped]
import keras
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV, StratifiedKFold
from sklearn.utils import ClassifierTags

from mlplab import models, training
from mlplab.results import DIVERGED, Candidate, Result
from mlplab.spec import Range, Search, UsageError, Variant


class Classifier(KerasClassifier):  # type: ignore[misc]
    """`scikeras.wrappers.KerasClassifier` that scikit-learn takes for a classifier and `mlplab.training.fit` trains.

    The parameters are KerasClassifier's. `fit__seed` seeds the batch order, an argument of the model function (such
    as `model__seed`) the initial weights; scikeras' own `random_state` would make all of TensorFlow deterministic,
    which is slow, for the whole process. Predictions are made in batches of `training.EVALUATION_BATCH`.
    """

    def __sklearn_tags__(self) -> Any:
        # From scikit-learn 1.6 on tags say what is a classifier. KerasClassifier names ClassifierMixin, which sets
        # them, after BaseEstimator, which does not call it; the other order is no legal one for a subclass either.
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = ClassifierTags()
        return tags

    def _fit_keras_model(self, *args: Any, **kwargs: Any) -> None:
        # scikeras calls model_.fit. Setting that on the model would make it one that shares no compiled programs.
        model: Any = self.model_

        def fit(**arguments: Any) -> keras.callbacks.History:
            return training.fit(model, **arguments)

        self.model_: Any = SimpleNamespace(loss=model.loss, fit=fit)
        try:
            super()._fit_keras_model(*args, **kwargs)
        finally:
            self.model_ = model

    def _predict_raw(self, X: Any, **kwargs: Any) -> np.ndarray:
        if not self.initialized_:
            raise NotFittedError("this Classifier has no model yet: call fit first.")
        X, _ = self._validate_data(X=X, y=None)
        X = self.feature_encoder_.transform(X)
        # Not model.predict: its set-up costs more than the answer.
        size = training.EVALUATION_BATCH
        batches = [self.model_(X[at : at + size], training=False) for at in range(0, len(X), size)]
        return np.concatenate([keras.ops.convert_to_numpy(batch) for batch in batches])


class Journal(Protocol):
    """What a search tells as it goes.

    Calls come one at a time, but with `n_jobs` above 1 from several threads, and the folds of several candidates
    overlap. Candidates already on record are not told of, nor is the final training of the winner.
    """

    def started(self, candidate: Variant) -> None:
        """The first fold of a candidate begins."""

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        """An epoch is over; both counts start at 1.

        `values` are `loss` and `accuracy` on the fold's training images and `train_seconds`, of this fold so far.
        """

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        """The last fold of a candidate is scored.

        `found` is what `Found.candidates` will hold: a `run_id` set here stays. `error` has the tracebacks of the folds
        that failed.
        """


@dataclass(kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        cv_results: scikit-learn's `cv_results_`. For candidates already on record `mean_fit_time` is their training
            seconds a fold, and the other times are NaN.
        candidates: in the order they were drawn.
        model: the best one's, trained on all images.
        refit: that training. It has neither validation nor test metrics; its best epoch is the last.
        compile_seconds: of all trainings together.
    """

    cv_results: dict[str, Any]
    candidates: list[Candidate]
    model: keras.Model
    refit: Result
    compile_seconds: float


def candidates(search: Search) -> tuple[Variant, ...]:
    """The variants that `RandomizedSearchCV(random_state=search.seed)` draws: `candidate 1`, `candidate 2`, ...

    Raises:
        UsageError: a drawn combination is not legal, such as a momentum with an optimizer that has none.
    """
    drawn = ParameterSampler(_distributions(search), search.candidates, random_state=search.seed)
    return tuple(_variant(search, f"candidate {place}", choices) for place, choices in enumerate(drawn, start=1))


def random_search(
    search: Search,
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    journal: Journal,
    *,
    finished: Mapping[str, Candidate] | None = None,
    n_jobs: int = 1,
) -> Found:
    """Runs `search` as scikit-learn's `RandomizedSearchCV` over stratified, shuffled folds.

    A candidate's accuracy on a fold in which its training raised is NaN, and the others go on. A training whose loss
    stops being finite ends there; its accuracy counts as it is.

    Args:
        search: what is drawn.
        x: uint8, shape (images, features).
        y: int32, shape (images,).
        classes: number of classes.
        journal: is told what happens.
        finished: name of a candidate -> what is on record of it. It is not trained again.
        n_jobs: trainings at the same time, in threads of this process. Scores do not depend on it.

    Raises:
        UsageError: `search` stops trainings early, cannot be split into its folds, or `finished` is of another search.
        RuntimeError: every candidate failed; with the first one's traceback.
        Exception: whatever `journal` raises; it ends the search.
    """
    course = _Course(search, classes, journal, finished or {})
    fields = {name: value for name, value in vars(search.base).items() if name not in ("name", "patience")}
    fewest = min(Counter(y.tolist()).values())
    if fewest < search.folds:
        raise UsageError(f"folds is {search.folds}, but a class has {fewest} images; legal: 2 to {fewest}.")
    folds = StratifiedKFold(search.folds, shuffle=True, random_state=search.seed)
    # Goes along with the images as scikit-learn picks them, and so tells a fit which fold is kept from it.
    fold_of_image = np.zeros(len(y), np.int32)
    for number, (_, held_out) in enumerate(folds.split(x, y), start=1):
        fold_of_image[held_out] = number
    searching = RandomizedSearchCV(
        _Fold(course=course, **fields),
        _distributions(search),
        n_iter=search.candidates,
        random_state=search.seed,
        cv=folds,
        n_jobs=n_jobs,
        error_score=np.nan,
    )
    try:
        # Threads, since they share the compiled programs and the journal.
        with joblib.parallel_config(backend="threading"), warnings.catch_warnings():
            # The journal has been told, and of each.
            warnings.simplefilter("ignore", FitFailedWarning)
            for says in ("Scoring failed", "One or more of the test scores are non-finite"):
                warnings.filterwarnings("ignore", says, UserWarning)
            searching.fit(x, y, fold_of_image=fold_of_image)
    except Exception as error:
        if course.broken:
            raise course.broken from None
        if course.all_failed:
            first = next((track.errors[fold] for track in course.tracks for fold in sorted(track.errors)), "")
            raise RuntimeError(
                f"all {len(course.tracks)} candidates of the search failed in at least one fold. The first:\n{first}"
            ) from error
        raise
    finally:
        # After an interrupt threads may still be training.
        course.stopped = True
    best = searching.best_estimator_
    results = searching.cv_results_
    for place, track in enumerate(course.tracks):
        if track.reused:
            results["mean_fit_time"][place] = track.candidate.train_seconds / search.folds
            for name in ("std_fit_time", "mean_score_time", "std_score_time"):
                results[name][place] = math.nan
    return Found(
        cv_results=results,
        candidates=[track.candidate for track in course.tracks],
        model=best.model_,
        refit=best.result_,
        compile_seconds=course.compile_seconds,
    )


@dataclass(frozen=True)
class _Draw:
    """A distribution as scikit-learn draws from it."""

    range: Range
    whole: bool

    def rvs(self, random_state: np.random.RandomState) -> float:
        low, high = self.range.low, self.range.high
        if self.whole:  # each whole number's share of the line reaches half a unit to either side
            low, high = low - 0.5, high + 0.5
        if self.range.log:
            value = math.exp(random_state.uniform(math.log(low), math.log(high)))
        else:
            value = float(random_state.uniform(low, high))
        value = min(max(value, low), high)
        return min(max(round(value), int(self.range.low)), int(self.range.high)) if self.whole else value


def _distributions(search: Search) -> dict[str, Any]:
    whole = {name for name, value in asdict(Variant()).items() if type(value) is int}
    return {
        name: _Draw(values, name in whole) if isinstance(values, Range) else list(values)
        for name, values in search.space.items()
    }


def _variant(search: Search, name: str, choices: Mapping[str, Any]) -> Variant:
    try:
        return search.base.but(name=name, **choices)
    except UsageError as error:
        raise UsageError(f"{name} of the search, {dict(choices)}: {error} Change base or space.") from None


@dataclass
class _Track:
    """A candidate on its way through the folds; folds count from 1."""

    variant: Variant
    candidate: Candidate
    reused: bool
    begun: set[int] = field(default_factory=set)
    over: set[int] = field(default_factory=set)
    seconds: float = 0.0
    errors: dict[int, str] = field(default_factory=dict)


class _Course:
    """What the fits of one search share."""

    def __init__(self, search: Search, classes: int, journal: Journal, finished: Mapping[str, Candidate]) -> None:
        self.search, self.classes, self.journal = search, classes, journal
        self.stopped = False
        self.broken: Exception | None = None
        self.compile_seconds = 0.0
        self.lock = threading.RLock()
        self.tracks = [self._track(variant, finished.get(variant.name)) for variant in candidates(search)]

    def __deepcopy__(self, memo: Any) -> "_Course":
        # scikit-learn copies an estimator's parameters for each fit.
        return self

    def _track(self, variant: Variant, known: Candidate | None) -> _Track:
        if variant.patience:
            raise UsageError(
                f"patience is {variant.patience}, but a search's folds have no validation set to stop on; legal: 0."
            )
        choices = {name: getattr(variant, name) for name in self.search.space}
        if known is None:
            return _Track(variant, Candidate(choices=choices, scores=[math.nan] * self.search.folds), reused=False)
        same = len(known.scores) == self.search.folds and set(known.choices) == set(choices)
        if not same or self.search.base.but(name=variant.name, **known.choices) != variant:
            raise UsageError(
                f"{variant.name} on record has {known.choices} and {len(known.scores)} folds; this search's has "
                f"{choices} and {self.search.folds}: it is another search's; leave it out of finished."
            )
        return _Track(variant, known, reused=True)

    @property
    def all_failed(self) -> bool:
        return not any(math.isfinite(track.candidate.mean) for track in self.tracks)

    def begin(self, variant: Variant, fold: int) -> _Track:
        """The track of this fit. Of candidates drawn twice the first whose fold has not begun: they are all equal."""
        with self.lock:
            track = next(t for t in self.tracks if t.variant.but(name="") == variant and fold not in t.begun)
            if not track.begun and not track.reused:
                self._tell(self.journal.started, track.variant)
            track.begun.add(fold)
            return track

    def epoch(self, track: _Track, fold: int, epoch: int, values: dict[str, float]) -> None:
        with self.lock:
            self._tell(self.journal.epoch, track.variant, fold, epoch, values)

    def over(self, track: _Track, fold: int, score: float, seconds: float, error: str = "") -> None:
        with self.lock:
            if self.stopped:
                return
            track.candidate.scores[fold - 1] = score
            track.seconds += seconds
            track.over.add(fold)
            if error:
                track.errors[fold] = f"fold {fold}:\n{error}"
            if len(track.over) == self.search.folds:
                track.candidate.train_seconds = track.seconds
                errors = "\n".join(track.errors[number] for number in sorted(track.errors))
                self._tell(self.journal.ended, track.variant, track.candidate, errors)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        if self.stopped:
            return
        try:
            call(*arguments)
        except Exception as error:
            # scikit-learn would take it for a failed training and go on.
            self.broken, self.stopped = error, True
            raise


class _Fold(Classifier):
    """A candidate as scikit-learn handles it: its parameters are the fields of a variant, and `course`."""

    fold_: int  # 0 where none is held out: the winner, on all images

    def fit(self, X: np.ndarray, y: np.ndarray, fold_of_image: np.ndarray) -> "_Fold":
        search: Search = self.course.search
        if self.course.stopped:
            raise RuntimeError("the search was stopped.")
        variant = search.base.but(name="", **{name: getattr(self, name) for name in search.space})
        held_out = set(range(1, search.folds + 1)) - set(np.unique(fold_of_image).tolist())
        self.fold_ = held_out.pop() if held_out else 0
        self.clock_ = training.Clock()
        self.result_ = Result(variant=variant, steps_per_epoch=variant.steps_per_epoch(len(X)))
        if not self.fold_:
            if self.course.all_failed:
                raise RuntimeError("no candidate is left to be trained on all images.")
            super().fit(X, y)
            self._conclude()
            return self
        self.track_ = self.course.begin(variant, self.fold_)
        if not self.track_.reused:
            with self._failure_told():
                super().fit(X, y)
        return self

    def score(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> float:
        track: _Track = self.track_
        if track.reused:
            return track.candidate.scores[self.fold_ - 1]
        with self._failure_told():
            score = float(super().score(X, y, sample_weight))
        self.course.over(self.track_, self.fold_, score, sum(self.clock_.train_seconds))
        return score

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            error = traceback.format_exc()
            self.course.over(self.track_, self.fold_, math.nan, sum(self.clock_.train_seconds), error)
            raise

    def _build_keras_model(self) -> keras.Model:
        course = self.course
        return models.build(self.result_.variant, self.n_features_in_, course.classes, course.search.seed)

    def _fit_keras_model(self, X: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        variant = self.result_.variant
        self._fit_callbacks = [_Recorder(self)]
        kwargs |= {"batch_size": variant.images_per_step(len(X)), "epochs": variant.epochs, "verbose": 0}
        super()._fit_keras_model(X, y, **kwargs, seed=self.course.search.seed, clock=self.clock_)
        with self.course.lock:
            self.course.compile_seconds += self.clock_.compile_seconds

    def _conclude(self) -> None:
        """Completes the result of the training on all images."""
        for track in self.course.tracks:
            if track.variant.but(name="") == self.result_.variant:
                self.result_.variant = track.variant
                break
        self.result_.parameters = self.model_.count_params()
        self.result_.best_epoch = self.result_.epochs
        self.result_.weights = self.model_.get_weights()
        self.result_.compile_seconds = self.clock_.compile_seconds


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Fills the history of a fit, tells the journal, and ends a training that diverged or is not wanted any more."""

    def __init__(self, fold: _Fold) -> None:
        super().__init__()
        self.fold = fold

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        fold, result = self.fold, self.fold.result_
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**logs, "learning_rate": rate, "train_seconds": sum(fold.clock_.train_seconds)}
        result.add(values)
        if not math.isfinite(values["loss"]):
            result.status = DIVERGED
        if result.status == DIVERGED or fold.course.stopped:
            self.model.stop_training = True
        if fold.fold_:
            del values["learning_rate"]
            fold.course.epoch(fold.track_, fold.fold_, result.epochs, values)
