"""A random search that is scikit-learn's own, with scikeras between it and Keras; a fold is trained as a seed is."""

import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import joblib  # type: ignore[import-untyped]
import keras
import numpy as np
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterSampler, PredefinedSplit, RandomizedSearchCV

from mlplab import racing
from mlplab.building import restored
from mlplab.data import Dataset
from mlplab.distributions import Distribution
from mlplab.folds import fold_of_example
from mlplab.results import Result
from mlplab.space import Search
from mlplab.spec import Training
from mlplab.wrappers import Classifier, Regressor


class Trainer(Protocol):
    """Who trains the folds of a search's candidates, and keeps what came of them."""

    def fold(self, place: int, fold: int) -> Result:
        """What the training of a candidate on all folds but one came to; trained now where it has not been.

        Raises:
            RuntimeError: it failed; with its traceback.
        """

    def known(self, place: int, fold: int) -> float | None:
        """The score of a fold that is on record."""

    def scored(self, place: int, fold: int, score: float) -> None:
        """Takes a fold's score; NaN where its training failed."""

    def ahead(self, places: Sequence[int], fold: int) -> None:
        """In a race: these candidates' trainings are wanted next, and may be carried out together."""

    def over(self, place: int) -> None:
        """No more folds of a candidate are wanted."""

    def best(self, place: int) -> tuple[Result, keras.Model]:
        """The winner's training on all training examples, and its model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        cv_results: scikit-learn's `cv_results_`; its fit times are the seconds of training, and it has no score times.
            After a race it has a row a candidate all the same, with the number of `folds` it had; means are over those.
        scores: of each candidate in the order they were drawn, one for each fold that it had.
        refit: the winner's training on all training examples.
        model: the one that it left.
    """

    cv_results: dict[str, Any]
    scores: list[list[float]]
    refit: Result
    model: keras.Model


def candidates(search: Search) -> tuple[Training, ...]:
    """The trainings that `RandomizedSearchCV(random_state=search.seed)` draws: `candidate 1`, `candidate 2`, ...

    It goes on drawing until it has as many different ones as `search` wants: none is trained twice. Each is trained on
    folds in the place of seeds, see `mlplab.folds`.
    """
    folds = f"folds:{search.folds}:{search.seed}"
    return tuple(
        search.base.but({**_choices(drawn), "name": f"candidate {place}", "splits": folds})
        for place, drawn in enumerate(_different(_draws(search)), start=1)
    )


def random_search(
    search: Search, data: Dataset, trainer: Trainer, seconds: Callable[[int], float] = lambda place: math.nan
) -> Found:
    """Runs `search` as scikit-learn's `RandomizedSearchCV` over shuffled folds, stratified where there are classes.

    A candidate's score on a fold in which its training raised is NaN, and the others go on. A training whose loss stops
    being finite ends there; its score counts as it is. In a race each fold is an evaluation of its own, of whoever
    `racing.due` names, and the winner is the best of those that had all folds; one that failed gets no further fold.

    Args:
        search: what is drawn.
        data: whose training split is cut into folds; one input and one output.
        trainer: trains.
        seconds: place of a candidate -> its seconds of training, once it is over.

    Raises:
        UsageError: the data cannot be searched on, or split into the folds.
        RuntimeError: every candidate failed.
    """
    numbers = fold_of_example(data, search.folds, search.seed)
    drawn = _draws(search)
    estimator = _estimator(search, data, trainer)
    searching = _Searching(
        estimator,
        _distributions(search),
        n_iter=len(drawn),
        random_state=search.seed,
        cv=_only(numbers, 1) if search.race else PredefinedSplit(numbers - 1),
        scoring=_Score(search.scoring, trainer),
        error_score=np.nan,
        refit=functools.partial(_winning_row, folds=search.folds) if search.race else True,
    )
    searching.trainer_, searching.racing_ = trainer, numbers if search.race else None
    # What trains may be elsewhere; what scikit-learn does itself is done here.
    with joblib.parallel_config("sequential", n_jobs=1), warnings.catch_warnings():
        # Whoever trains has said it, and of each.
        for says in ("Scoring failed", "One or more of the test scores are non-finite"):
            warnings.filterwarnings("ignore", says, UserWarning)
        searching.fit(data.train.x, data.train.y, fold_of_example=numbers)
    results = searching.cv_results_
    if search.race:
        results = _by_candidate(results, search.folds)
    many = results.get("folds", [search.folds] * len(results["params"]))
    scores = [
        [float(results[f"split{fold}_test_score"][place]) for fold in range(had)] for place, had in enumerate(many)
    ]
    times = [seconds(place) / had for place, had in enumerate(many)]
    kept = {k: v for k, v in results.items() if "score_time" not in k and k not in ("std_fit_time", "param_place")}
    kept |= {"mean_fit_time": np.array(times), "params": [_without_place(one) for one in results["params"]]}
    best = searching.best_estimator_
    return Found(cv_results=kept, scores=scores, refit=best.result_, model=best.model_)


class _Searching(RandomizedSearchCV):  # type: ignore[misc]
    """scikit-learn's search, each of whose fits knows the place of its candidate; none is repeated.

    Attributes:
        racing_: in a race the number of the fold of each example, else None.
    """

    trainer_: Trainer
    racing_: np.ndarray | None

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None) -> None:
        # scikit-learn's documented place for a subclass to say what is evaluated; from 1.9 on it gives a context.
        def evaluate(drawn: Sequence[dict[str, Any]], **more: Any) -> None:
            every = [{**choices, "place": place} for place, choices in enumerate(_different(drawn))]
            if self.racing_ is None:
                evaluate_candidates(every, **more)
            else:
                self._race(every, self.racing_, evaluate_candidates)
            for place in range(len(every)):
                self.trainer_.over(place)

        super()._run_search(evaluate, **({} if callback_ctx is None else {"callback_ctx": callback_ctx}))

    def _race(self, drawn: Sequence[dict[str, Any]], numbers: np.ndarray, evaluate: Callable[..., Any]) -> None:
        folds = int(numbers.max())
        scores = np.full((len(drawn), folds), np.nan)
        while places := racing.due(scores, folds):
            fold = int((~np.isnan(scores[places[0]])).sum()) + 1
            self.trainer_.ahead(places, fold)
            results = evaluate(
                [drawn[place] for place in places],
                cv=_only(numbers, fold),
                more_results={"fold": [fold] * len(places)},
            )
            scores = _raced(results, len(drawn), folds)


def _only(numbers: np.ndarray, fold: int) -> PredefinedSplit:
    """A cross-validation of one fold."""
    return PredefinedSplit(np.where(numbers == fold, 0, -1))


def _raced(results: Mapping[str, Any], candidates: int, folds: int) -> np.ndarray:
    """The scores by candidate and fold, as `racing` takes them, of a `cv_results_` with a row for each of both."""
    scores = np.full((candidates, folds), np.nan)
    for params, fold, score in zip(results["params"], results["fold"], results["split0_test_score"], strict=True):
        scores[params["place"], fold - 1] = score if math.isfinite(score) else -math.inf
    return scores


def _standing(scores: np.ndarray) -> list[tuple[bool, int, float]]:
    """How candidates rank after a race: without failure, with the most folds, with the best mean over these."""
    run = [row[~np.isnan(row)] for row in scores]
    return [(bool(np.isfinite(had).all()), len(had), float(had.mean())) for had in run]


def _winning_row(results: Mapping[str, Any], folds: int) -> int:
    """The first row of a race's winner, which scikit-learn trains anew."""
    places = [params["place"] for params in results["params"]]
    standing = _standing(_raced(results, max(places) + 1, folds))
    return places.index(standing.index(max(standing)))


def _by_candidate(results: Mapping[str, Any], folds: int) -> dict[str, Any]:
    """A race's `cv_results_`, a row a candidate, as that of a search without a race is; masked is what was not run."""
    places = [params["place"] for params in results["params"]]
    scores = _raced(results, max(places) + 1, folds)
    first = [places.index(place) for place in range(len(scores))]
    standing = _standing(scores)
    shown = np.ma.masked_where(np.isnan(scores), np.where(np.isneginf(scores), np.nan, scores))
    table: dict[str, Any] = {
        name: np.ma.asarray(values)[first] for name, values in results.items() if name.startswith("param_")
    }
    table |= {"params": [results["params"][row] for row in first]}
    table |= {f"split{fold}_test_score": shown[:, fold] for fold in range(folds)}
    table |= {"mean_test_score": shown.mean(axis=1), "std_test_score": shown.std(axis=1)}
    table |= {"rank_test_score": np.array([1 + sum(other > own for other in standing) for own in standing])}
    return {**table, "folds": [had for _, had, _ in standing]}


@dataclass(frozen=True)
class _Score:
    """What scores a fit: the record where there is one, scikit-learn's scorer else."""

    name: str
    trainer: Trainer

    def __call__(self, estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
        score = math.nan if estimator.failed_ else self.trainer.known(estimator.place, estimator.fold_)
        if score is None:
            score = float(get_scorer(self.name)(estimator, x, y) if self.name else estimator.score(x, y))
            self.trainer.scored(estimator.place, estimator.fold_, score)
        return score

    def __deepcopy__(self, memo: Any) -> "_Score":
        return self


def _estimator(search: Search, data: Dataset, trainer: Trainer) -> Any:
    """scikeras' wrapper for a search's candidates: its parameters are their choices, and `trainer` trains it."""
    base: Any = Classifier if data.classes else Regressor

    class Candidate(base):  # type: ignore[misc]
        """A candidate as scikit-learn handles it."""

        def fit(self, X: np.ndarray, y: np.ndarray, fold_of_example: np.ndarray) -> Any:
            held_out = set(range(1, search.folds + 1)) - set(np.unique(fold_of_example).tolist())
            self.fold_ = held_out.pop() if held_out else 0  # none: the winner, on all examples
            self.failed_ = False
            if not self.fold_:
                self.result_, self.trained_ = trainer.best(int(self.place))
            elif trainer.known(self.place, self.fold_) is None:
                try:
                    self.result_, self.trained_ = trainer.fold(self.place, self.fold_), None
                except RuntimeError:
                    # Raised here it would end a search where it is of all that scikit-learn was given at a time.
                    self.failed_ = True
                    return self
            else:
                return self
            self.initialize(X, y)
            return self

        def _build_keras_model(self) -> keras.Model:
            if self.trained_ is None:
                self.trained_ = restored(self.result_, data)
            return self.trained_

    given = dict.fromkeys(name.replace(".", "__") for name in search.space)
    return Candidate(_no_model, place=0, **given)


def _no_model() -> None:
    """In the place of a model function: a candidate builds its model by its training."""


def _without_place(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "place"}


def _choices(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """What scikit-learn drew, by the names of a training's choices."""
    return {name.replace("__", "."): value for name, value in drawn.items()}


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


@dataclass(frozen=True)
class _Draw:
    """A distribution as scikit-learn draws from it."""

    values: Distribution
    whole: bool

    def rvs(self, random_state: np.random.RandomState) -> float:
        return self.values.at(random_state.uniform(), self.whole)


def _distributions(search: Search) -> list[dict[str, Any]]:
    space = search.drawn

    def drawn(name: str, values: Any) -> Any:
        return _Draw(values, space.is_whole(name)) if isinstance(values, Distribution) else list(values)

    return [{name.replace(".", "__"): drawn(name, values) for name, values in kind.items()} for kind in space.kinds]
