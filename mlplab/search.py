"""A random search that is scikit-learn's own, with scikeras between it and Keras; a fold is trained as a seed is."""

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterSampler, PredefinedSplit, RandomizedSearchCV

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

    def best(self, place: int) -> tuple[Result, keras.Model]:
        """The winner's training on all training examples, and its model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        cv_results: scikit-learn's `cv_results_`; its fit times are the seconds of training, and it has no score times.
        scores: of each candidate in the order they were drawn, one for each fold.
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
    being finite ends there; its score counts as it is.

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
        cv=PredefinedSplit(numbers - 1),
        scoring=_Score(search.scoring, trainer),
        error_score=np.nan,
    )
    with warnings.catch_warnings():
        # Whoever trains has said it, and of each.
        warnings.simplefilter("ignore", FitFailedWarning)
        for says in ("Scoring failed", "One or more of the test scores are non-finite"):
            warnings.filterwarnings("ignore", says, UserWarning)
        searching.fit(data.train.x, data.train.y, fold_of_example=numbers)
    results = searching.cv_results_
    scores = [
        [float(results[f"split{fold}_test_score"][place]) for fold in range(search.folds)]
        for place in range(len(results["params"]))
    ]
    times = [seconds(place) / search.folds for place in range(len(scores))]
    kept = {k: v for k, v in results.items() if "score_time" not in k and k not in ("std_fit_time", "param_place")}
    kept |= {"mean_fit_time": np.array(times), "params": [_without_place(one) for one in results["params"]]}
    best = searching.best_estimator_
    return Found(cv_results=kept, scores=scores, refit=best.result_, model=best.model_)


class _Searching(RandomizedSearchCV):  # type: ignore[misc]
    """scikit-learn's search, each of whose fits knows the place of its candidate; none is repeated."""

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None) -> None:
        # scikit-learn's documented place for a subclass to say what is evaluated; from 1.9 on it gives a context.
        def evaluate(drawn: Sequence[dict[str, Any]], **more: Any) -> Any:
            return evaluate_candidates(
                [{**choices, "place": place} for place, choices in enumerate(_different(drawn))], **more
            )

        super()._run_search(evaluate, **({} if callback_ctx is None else {"callback_ctx": callback_ctx}))


@dataclass(frozen=True)
class _Score:
    """What scores a fit: the record where there is one, scikit-learn's scorer else."""

    name: str
    trainer: Trainer

    def __call__(self, estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
        score = self.trainer.known(estimator.place, estimator.fold_)
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
            if not self.fold_:
                self.result_, self.trained_ = trainer.best(int(self.place))
            elif trainer.known(self.place, self.fold_) is None:
                self.result_, self.trained_ = trainer.fold(self.place, self.fold_), None
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
