"""A random search that is scikit-learn's own, with scikeras between it and Keras, and `mlplab.training` below."""

import math
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Protocol

import keras
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError  # type: ignore[import-untyped]
from scikeras.wrappers import KerasClassifier
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV, StratifiedKFold
from sklearn.utils import ClassifierTags

from mlplab import cluster, models, training
from mlplab.records import Candidate
from mlplab.results import DIVERGED, Result
from mlplab.spec import Range, Search, UsageError, Variant, is_whole


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


@dataclass(frozen=True)
class Scored:
    """What the training on a fold came to; made of what JSON has.

    Attributes:
        score: accuracy on the images held out; NaN where the training raised.
        epochs: `loss` and `accuracy` on the fold's training images and `train_seconds` so far, of each epoch.
        error: the traceback of what it raised.
        worker: who trained it, as `cluster.place` says it; empty where it was this process.
    """

    score: float
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)
    error: str = ""
    worker: dict[str, str] = field(default_factory=dict)


class Journal(Protocol):
    """What a search tells as it goes.

    Calls come one at a time, but with workers from several threads, and the folds of several candidates overlap.
    Nothing is told twice, even where a fold is trained again since its worker died. Candidates already on record are
    not told of, nor is the final training of the winner.
    """

    def started(self, candidate: Variant) -> None:
        """The first fold of a candidate begins."""

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        """An epoch is over; both counts start at 1.

        `values` are `loss` and `accuracy` on the fold's training images and `train_seconds`, of this fold so far.
        """

    def scored(self, candidate: Variant, fold: int, found: Scored) -> None:
        """A fold is over: given as `begun` it is not trained again."""

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        """The last fold of a candidate is scored.

        `found` is what `Found.candidates` will hold: a `run_id` set here stays. `error` has the tracebacks of the folds
        that failed.
        """


@dataclass(kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        cv_results: scikit-learn's `cv_results_`. For candidates with a fold that was already on record `mean_fit_time`
            is their training seconds a fold, and the other times are NaN.
        candidates: in the order they were drawn.
        model: the best one's, trained on all images.
        refit: that training. It has neither validation nor test metrics; its best epoch is the last.
        compile_seconds: of all trainings together, apart from those of candidates on record.
    """

    cv_results: dict[str, Any]
    candidates: list[Candidate]
    model: keras.Model
    refit: Result
    compile_seconds: float


def candidates(search: Search) -> tuple[Variant, ...]:
    """The variants that `RandomizedSearchCV(random_state=search.seed)` draws: `candidate 1`, `candidate 2`, ...

    It goes on drawing until it has as many different ones as `search` wants: none is trained twice.
    """
    return tuple(
        search.base.chosen({"name": f"candidate {place}", **choices})
        for place, choices in enumerate(_different(_draws(search)), start=1)
    )


def _draws(search: Search) -> list[dict[str, Any]]:
    """What scikit-learn draws, in order, until there are enough different candidates."""
    distributions = _distributions(search)
    if not any(isinstance(values, _Draw) for kind in distributions for values in kind.values()):
        return list(ParameterSampler(distributions, search.candidates, random_state=search.seed))
    drawn: list[dict[str, Any]] = []
    different: set[frozenset[Any]] = set()
    without_end = iter(ParameterSampler(distributions, sys.maxsize, random_state=search.seed))
    while len(different) < search.candidates:
        drawn.append(next(without_end))
        different.add(frozenset(drawn[-1].items()))
    return drawn


def _different(drawn: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[frozenset[Any], dict[str, Any]] = {}
    for choices in drawn:
        found.setdefault(frozenset(choices.items()), choices)
    return list(found.values())


def random_search(
    search: Search,
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    journal: Journal,
    *,
    finished: Mapping[str, Candidate] | None = None,
    begun: Mapping[str, Mapping[int, Scored]] | None = None,
    jobs: int = 1,
    address: str | None = None,
) -> Found:
    """Runs `search` as scikit-learn's `RandomizedSearchCV` over stratified, shuffled folds.

    A candidate's accuracy on a fold in which its training raised is NaN, and the others go on. A training whose loss
    stops being finite ends there; its accuracy counts as it is. Where trainings are carried out changes no score; the
    winner's last one is always this process's.

    Args:
        search: what is drawn.
        x: uint8, shape (images, features); with workers best from `cluster.Reference.array`, else all of it travels.
        y: int32, shape (images,); likewise.
        classes: number of classes.
        journal: is told what happens.
        finished: name of a candidate -> what is on record of it. It is not trained again.
        begun: name of a candidate -> fold -> what is on record of it, of candidates that are not finished.
        jobs: trainings at the same time, each in a process of this machine; 1: in this process.
        address: where they are carried out instead, see `cluster.workers`.

    Raises:
        UsageError: `search` cannot be split into its folds, `finished` is of another search, or there are no such
            workers.
        UnavailableError: the workers do not answer, lack the data, or died.
        RuntimeError: every candidate failed; with the first one's traceback.
        Exception: whatever `journal` raises; it ends the search, as soon as what workers are at is done.
    """
    course = _Course(search, classes, journal, finished or {})
    fields = {name: value for name, value in vars(search.base).items() if name not in ("name", "patience")}
    fewest = min(Counter(y.tolist()).values())
    if fewest < search.folds:
        raise UsageError(f"folds is {search.folds}, but a class has {fewest} images; legal: 2 to {fewest}.")
    folds = StratifiedKFold(search.folds, shuffle=True, random_state=search.seed)
    # Goes along with the images as scikit-learn picks them, and so tells a fit which fold is kept from it.
    fold_of_image = np.zeros(len(y), np.min_scalar_type(search.folds))
    for number, (_, held_out) in enumerate(folds.split(x, y), start=1):
        fold_of_image[held_out] = number
    searching = _Searching(
        _Fold(course=course, place=0, **fields),
        _distributions(search),
        n_iter=len(_draws(search)),
        random_state=search.seed,
        cv=folds,
        pre_dispatch="all",
        error_score=np.nan,
    )
    try:
        course.recall(begun or {})
        with cluster.workers(address, jobs, course.hear), warnings.catch_warnings():
            # The journal has been told, and of each.
            warnings.simplefilter("ignore", FitFailedWarning)
            for says in ("Scoring failed", "One or more of the test scores are non-finite"):
                warnings.filterwarnings("ignore", says, UserWarning)
            try:
                for _ in range(cluster.DEATHS + 1):
                    # A local process that dies takes the others with it. What is over is not trained again.
                    with suppress(TerminatedWorkerError):
                        searching.fit(x, y, fold_of_image=fold_of_image)
                        break
                else:
                    raise cluster.WorkerDiedError(f"{cluster.DEATHS + 1} worker processes {cluster.DIED}")
            finally:
                # After an interrupt workers may still be training, and telling.
                course.stopped = True
    except Exception as error:
        if course.broken:
            raise course.broken from None
        if isinstance(error, cluster.WorkerDiedError):
            raise cluster.WorkerDiedError(f"{error} Under way: {', '.join(course.under_way)}.") from error
        if course.all_failed:
            first = next((track.errors for track in course.tracks if track.errors), "")
            raise RuntimeError(
                f"all {len(course.tracks)} candidates of the search failed in at least one fold. The first:\n{first}"
            ) from error
        raise
    best = searching.best_estimator_
    return Found(
        cv_results=searching.cv_results_,
        candidates=[track.candidate for track in course.tracks],
        model=best.model_,
        refit=best.result_,
        compile_seconds=course.compile_seconds + best.clock_.compile_seconds,
    )


class _Searching(RandomizedSearchCV):  # type: ignore[misc]
    """scikit-learn's search, each of whose fits knows the place of its candidate, and says more than a score."""

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None) -> None:
        def evaluate(drawn: Sequence[dict[str, Any]], **rest: Any) -> Any:
            return evaluate_candidates(
                [{**choices, "place": place} for place, choices in enumerate(_different(drawn))], **rest
            )

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _format_results(self, candidate_params: Any, n_splits: int, out: Any, more_results: Any = None) -> Any:
        course: _Course = self.estimator.course
        recalled = set()
        for number, one in enumerate(out):
            place, fold = divmod(number, n_splits)
            if isinstance(one["test_scores"], _Score):
                # Messages may have got lost: the outcome has it all.
                course.over(place, fold + 1, one["test_scores"].scored)
            else:
                recalled.add(place)
        drawn = [{name: value for name, value in choices.items() if name != "place"} for choices in candidate_params]
        results = super()._format_results(drawn, n_splits, out, more_results)
        for place in recalled:
            results["mean_fit_time"][place] = course.tracks[place].candidate.train_seconds / n_splits
            for name in ("std_fit_time", "mean_score_time", "std_score_time"):
                results[name][place] = math.nan
        return results


class _Score(float):
    """A score as scikit-learn takes it, that brings with it what else there is to say."""

    scored: Scored


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


def _distributions(search: Search) -> list[dict[str, Any]]:
    return [
        {
            name: _Draw(values, is_whole(name)) if isinstance(values, Range) else list(values)
            for name, values in kind.items()
        }
        for kind in search.kinds
    ]


@dataclass(frozen=True)
class _Plan:
    """What every fit of a search has to know."""

    variants: tuple[Variant, ...]
    folds: int
    seed: int
    classes: int


@dataclass
class _Track:
    """A candidate on its way through the folds; folds count from 1.

    Attributes:
        begun: the folds that have.
        heard: the epochs of each fold that the journal has been told of.
        over: the folds that need no training any more.
    """

    variant: Variant
    candidate: Candidate
    begun: set[int] = field(default_factory=set)
    heard: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    over: dict[int, Scored] = field(default_factory=dict)

    @property
    def errors(self) -> str:
        """The tracebacks of the folds that failed."""
        failed = {fold: self.over[fold].error for fold in sorted(self.over) if self.over[fold].error}
        return "\n".join(f"fold {fold}:\n{error}" for fold, error in failed.items())


class _Course:
    """What the fits of one search share; on a worker `_Remote` stands for it.

    It may be told anything twice: a worker's messages come again with a fold that is done again, and once more with
    its outcome.
    """

    def __init__(self, search: Search, classes: int, journal: Journal, finished: Mapping[str, Candidate]) -> None:
        self.search, self.journal = search, journal
        self.stopped = False
        self.broken: BaseException | None = None
        self.compile_seconds = 0.0
        self.lock = threading.RLock()
        self.plan = _Plan(candidates(search), search.folds, search.seed, classes)
        self.tracks = [self._track(variant, finished.get(variant.name)) for variant in self.plan.variants]

    def __deepcopy__(self, memo: Any) -> "_Course":
        # scikit-learn copies an estimator's parameters for each fit.
        return self

    def __reduce__(self) -> Any:
        with self.lock:
            scores = [{fold: scored.score for fold, scored in track.over.items()} for track in self.tracks]
            return _Remote, (self.plan, scores, self.stopped)

    def _track(self, variant: Variant, known: Candidate | None) -> _Track:
        choices = self.search.choices(variant)
        if known is None:
            return _Track(variant, Candidate(choices=choices, scores=[math.nan] * self.search.folds))
        same = len(known.scores) == self.search.folds and set(known.choices) == set(choices)
        if not same or self.search.base.chosen({"name": variant.name, **known.choices}) != variant:
            raise UsageError(
                f"{variant.name} on record has {known.choices} and {len(known.scores)} folds; this search's has "
                f"{choices} and {self.search.folds}: it is another search's; leave it out of finished."
            )
        over = {fold: Scored(score) for fold, score in enumerate(known.scores, start=1)}
        return _Track(variant, known, begun=set(over), over=over)

    @property
    def all_failed(self) -> bool:
        return all(
            len(track.over) == self.plan.folds and not math.isfinite(track.candidate.mean) for track in self.tracks
        )

    @property
    def under_way(self) -> list[str]:
        """The folds that have begun, as far as was heard, and are not over."""
        with self.lock:
            return [
                f"{track.variant.name}, fold {fold}" for track in self.tracks for fold in track.begun - set(track.over)
            ]

    def recall(self, begun: Mapping[str, Mapping[int, Scored]]) -> None:
        """Takes the folds that are on record."""
        for place, track in enumerate(self.tracks):
            for fold, scored in begun.get(track.variant.name, {}).items():
                self.over(place, fold, scored)

    def score(self, place: int, fold: int) -> float | None:
        """The score of a fold that is over."""
        with self.lock:
            scored = self.tracks[place].over.get(fold)
        return None if scored is None else scored.score

    def begin(self, place: int, fold: int) -> None:
        with self.lock:
            track = self.tracks[place]
            if not track.begun:
                self._tell(self.journal.started, track.variant)
            track.begun.add(fold)

    def epoch(self, place: int, fold: int, epoch: int, values: dict[str, float]) -> None:
        with self.lock:
            track = self.tracks[place]
            heard = track.heard.setdefault(fold, [])
            if fold in track.over or epoch != len(heard) + 1:
                return
            self.begin(place, fold)
            heard.append(values)
            self._tell(self.journal.epoch, track.variant, fold, epoch, values)

    def over(self, place: int, fold: int, scored: Scored) -> None:
        with self.lock:
            track = self.tracks[place]
            if self.stopped or fold in track.over:
                return
            self.begin(place, fold)
            for epoch, values in enumerate(scored.epochs, start=1):
                self.epoch(place, fold, epoch, values)
            track.over[fold] = scored
            track.candidate.scores[fold - 1] = scored.score
            self.compile_seconds += scored.compile_seconds
            self._tell(self.journal.scored, track.variant, fold, scored)
            if len(track.over) == self.plan.folds:
                track.candidate.train_seconds = sum(each.train_seconds for each in track.over.values())
                self._tell(self.journal.ended, track.variant, track.candidate, track.errors)

    def hear(self, message: Any) -> None:
        """Takes what a fit tells on a worker."""
        kind, place, fold, what = message
        # Whoever waits for the fits is given what was raised.
        with suppress(BaseException), self.lock:
            if kind == "begin":
                self.begin(place, fold)
            elif kind == "epoch":
                self.epoch(place, fold, *what)
            else:
                scored, epochs = what
                heard = self.tracks[place].heard.get(fold, [])
                if len(heard) == epochs:
                    self.over(place, fold, Scored(**scored | {"epochs": heard}))

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        if self.stopped:
            return
        try:
            call(*arguments)
        except BaseException as error:
            # scikit-learn would take it for a failed training and go on.
            self.broken, self.stopped = error, True
            raise


@dataclass(frozen=True)
class _Remote:
    """A search's course on a worker: it passes on what it is told."""

    plan: _Plan
    scores: list[dict[int, float]]
    stopped: bool

    def score(self, place: int, fold: int) -> float | None:
        return self.scores[place].get(fold)

    def begin(self, place: int, fold: int) -> None:
        cluster.tell(["begin", place, fold, None])

    def epoch(self, place: int, fold: int, epoch: int, values: dict[str, float]) -> None:
        cluster.tell(["epoch", place, fold, [epoch, values]])

    def over(self, place: int, fold: int, scored: Scored) -> None:
        cluster.tell(["over", place, fold, [asdict(replace(scored, epochs=[])), len(scored.epochs)]])


class _Fold(Classifier):
    """A candidate as scikit-learn handles it: its parameters are the fields of a variant, its place and `course`.

    What its training raises becomes its score, NaN: the traceback then comes along from wherever it was.
    """

    fold_: int  # 0 where none is held out: the winner, on all images

    def fit(self, X: np.ndarray, y: np.ndarray, fold_of_image: np.ndarray) -> "_Fold":
        course, plan = self.course, self.course.plan
        if course.stopped:
            raise RuntimeError("the search was stopped.")
        held_out = set(range(1, plan.folds + 1)) - set(np.unique(fold_of_image).tolist())
        self.fold_ = held_out.pop() if held_out else 0
        self.clock_, self.error_ = training.Clock(), ""
        self.epochs_: list[dict[str, float]] = []
        variant = plan.variants[self.place] if self.fold_ else next(filter(self._is, plan.variants))
        self.result_ = Result(variant=variant, steps_per_epoch=variant.steps_per_epoch(len(X)))
        if not self.fold_:
            if course.all_failed:
                raise RuntimeError("no candidate is left to be trained on all images.")
            super().fit(X, y)
            self._conclude()
        elif course.score(self.place, self.fold_) is None:
            course.begin(self.place, self.fold_)
            with self._failure_noted():
                super().fit(X, y)
        return self

    def score(self, X: np.ndarray, y: np.ndarray, sample_weight: Any = None) -> float:
        known: float | None = self.course.score(self.place, self.fold_)
        if known is not None:
            return known
        score = math.nan
        if not self.error_:
            with self._failure_noted():
                score = super().score(X, y, sample_weight)
        found = _Score(score)
        found.scored = Scored(
            float(score),
            sum(self.clock_.train_seconds),
            self.clock_.compile_seconds,
            self.epochs_,
            self.error_,
            cluster.place(),
        )
        self.course.over(self.place, self.fold_, found.scored)
        return found

    @contextmanager
    def _failure_noted(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.error_ = traceback.format_exc()

    def _is(self, variant: Variant) -> bool:
        return all(getattr(self, name) == value for name, value in self.course.search.choices(variant).items())

    def _build_keras_model(self) -> keras.Model:
        plan = self.course.plan
        return models.build(self.result_.variant, self.n_features_in_, plan.classes, plan.seed)

    def _fit_keras_model(self, X: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        variant = self.result_.variant
        self._fit_callbacks = [_Recorder(self)]
        kwargs |= {"batch_size": variant.images_per_step(len(X)), "epochs": variant.epochs, "verbose": 0}
        super()._fit_keras_model(X, y, **kwargs, seed=self.course.plan.seed, clock=self.clock_)

    def _conclude(self) -> None:
        """Completes the result of the training on all images."""
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
            told = {name: float(value) for name, value in values.items() if name != "learning_rate"}
            fold.epochs_.append(told)
            fold.course.epoch(fold.place, fold.fold_, result.epochs, told)
