"""What `mlplab.search` promises: scikit-learn's own search, the compiled training below it, a journal of it all."""

import functools
import itertools
import json
import math
import os
import pickle
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import numpy as np
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterSampler, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from test_run import SEARCH, InterruptedWhen, Quiet, below, perform

from experiments.report.looks import choices_text
from mlplab import cluster, models, programs, search_figures, tables, tracking, training
from mlplab import search as searching
from mlplab.records import Candidate, SearchResult
from mlplab.results import Result
from mlplab.search import Classifier, Found, Scored, candidates, random_search
from mlplab.spec import Range, Search, UsageError, Variant

# Workers do not have the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SMALL = Variant(hidden=(8,), epochs=2, batch_size=64)


def network(seed: int = 1) -> keras.Model:
    """A model function as a user of scikeras writes it, on the digits' 64 pixels from 0 to 1."""
    start = [keras.initializers.GlorotUniform(seed=seed + place) for place in range(2)]
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(8, "relu", kernel_initializer=start[0]),
        keras.layers.Dense(10, "softmax", kernel_initializer=start[1]),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def classifier(**changes: Any) -> Classifier:
    return Classifier(network, **{"batch_size": 64, "epochs": 2, "verbose": 0, "fit__seed": 5, **changes})


class Notes:
    """A journal that keeps what it is told, and raises or sleeps where a test wants it to."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.found: dict[str, Candidate] = {}
        self.errors: dict[str, str] = {}
        self.folds: dict[str, dict[int, Scored]] = {}

    def started(self, candidate: Variant) -> None:
        self.told.append(("started", candidate.name))

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        assert set(values) == {"loss", "accuracy", "train_seconds"}
        self.told.append(("epoch", candidate.name, fold, epoch))

    def scored(self, candidate: Variant, fold: int, found: Scored) -> None:
        self.folds.setdefault(candidate.name, {})[fold] = found

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        self.told.append(("ended", candidate.name))
        self.found[candidate.name], self.errors[candidate.name] = found, error
        found.run_id = f"run of {candidate.name}"


def a_search(**changes: Any) -> Search:
    space = {"learning_rate": [0.003, 0.03, 0.3], "dropout": [0.0, 0.2]}
    values = {"base": SMALL, "space": space, "candidates": 3, "folds": 3, "seed": 7, **changes}
    return Search(question="Which is best?", dataset="mnist", **values)


class Carried(np.ndarray):
    """Images at whose arrival something is done on the worker: what is patched here, workers do not have."""

    effect: Callable[[], None]

    @classmethod
    def of(cls, images: np.ndarray, effect: Callable[[], None]) -> "Carried":
        made = images.view(cls)
        made.effect = effect
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return arrive, (np.asarray(self), self.effect)


def arrive(images: np.ndarray, effect: Callable[[], None]) -> np.ndarray:
    effect()
    return images


def fail_to_build(bad: Variant, error: str) -> None:
    """From now on building a variant raises in this process."""
    build = getattr(models.build, "original", models.build)

    def failing(variant: Variant, *rest: Any) -> keras.Model:
        if variant.but(name="") == bad.but(name=""):
            raise MemoryError(error)
        return build(variant, *rest)  # type: ignore[no-any-return]

    failing.original = build  # type: ignore[attr-defined]
    models.build = failing


def die_once(flag: str, place: int, fold: int) -> None:
    """From now on this process dies after the first epoch of a fold, unless one has died of it."""
    recorder = searching._Recorder
    epoch_end = getattr(recorder.on_epoch_end, "original", recorder.on_epoch_end)

    def deadly(self: Any, epoch: int, logs: Any = None) -> None:
        epoch_end(self, epoch, logs)
        if (self.fold.place, self.fold.fold_) == (place, fold) and not os.path.exists(flag):
            Path(flag).touch()
            time.sleep(0.2)  # so that the epoch is heard of
            os.kill(os.getpid(), signal.SIGKILL)

    deadly.original = epoch_end  # type: ignore[attr-defined]
    recorder.on_epoch_end = deadly


WORKERS = [
    pytest.param({"jobs": 2}, id="processes"),
    pytest.param({"address": "local:2"}, id="dask", marks=pytest.mark.slow),
]
HERE = pytest.param({}, id="here")


@pytest.fixture(scope="module")
def images(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """300 digits, uint8, and their labels."""
    return dataset.train.x[:300], dataset.train.y[:300]


@pytest.fixture(scope="module")
def done(images: tuple[np.ndarray, np.ndarray]) -> tuple[Found, Notes, set[str]]:
    """A search that has run in one job, what its journal was told, and the programs it added."""
    notes = Notes()
    before = set(programs._shared)
    found = random_search(a_search(), *images, 10, notes)
    return found, notes, set(programs._shared) - before


def test_the_adapter_is_a_classifier_again(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """scikit-learn takes the adapter for a classifier, so that an integer `cv` is stratified."""
    assert is_classifier(classifier())
    assert isinstance(check_cv(3, digits[1], classifier=is_classifier(classifier())), StratifiedKFold)


def test_scikeras_own_is_still_none() -> None:
    """The workaround is still needed: KerasClassifier itself is none. When this fails, delete `__sklearn_tags__`."""
    assert not is_classifier(KerasClassifier(network))


def test_the_adapter_trains_compiled(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """The adapter trains with the compiled fit: the same weights as by hand, and no falling back to Keras."""
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


def test_the_adapter_is_an_ordinary_estimator(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """It can be cloned, pickled when fitted, put in a pipeline, and cross-validated in processes of joblib's."""
    x, y = digits[0][:200], digits[1][:200]
    copy = clone(classifier(model__seed=4))
    assert copy.get_params()["model__seed"] == 4
    fitted = copy.set_params(epochs=3).fit(x, y)
    assert len(fitted.history_["loss"]) == 3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(x), fitted.predict(x))
    piped = make_pipeline(MinMaxScaler(), classifier())
    one = cross_val_score(piped, x, y, cv=2)
    assert one.tolist() == cross_val_score(piped, x, y, cv=2, n_jobs=2).tolist()


def test_the_adapter_trains_on_sample_weights(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Sample weights reach the training: images of weight 0 are not learnt."""
    x, y = digits
    weights = (y < 2).astype("float32")
    assert set(classifier(epochs=20).fit(x, y, sample_weight=weights).predict(x)) <= {0, 1}


def test_names_are_labels_too(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Labels may be texts, and predictions are then, too."""
    x, y = digits[0], np.array([f"digit {label}" for label in digits[1]])
    assert set(classifier().fit(x, y).predict(x)) <= set(y)


def test_candidates_are_those_that_are_drawn(done: tuple[Found, Notes, set[str]]) -> None:
    """`candidates` says beforehand, in order, what RandomizedSearchCV then draws from lists."""
    names = [variant.name for variant in candidates(a_search())]
    drawn = [{"learning_rate": v.learning_rate, "dropout": v.dropout} for v in candidates(a_search())]
    assert names == ["candidate 1", "candidate 2", "candidate 3"]
    assert [dict(params) for params in done[0].cv_results["params"]] == drawn
    assert [candidate.choices for candidate in done[0].candidates] == drawn
    space = {name: list(values) for name, values in a_search().space.items()}
    assert drawn == list(ParameterSampler(space, 3, random_state=7))


def test_ranges_draw_python_numbers_between_their_ends() -> None:
    """A Range draws floats, evenly or over magnitudes, and whole numbers where the field takes those alone."""
    space = {
        "learning_rate": Range(1e-4, 1.0, log=True),
        "dropout": Range(0.1, 0.5),
        "batch_size": Range(1, 3),
        "epochs": Range(1, 1000, log=True),
        "hidden": [(8,), (8, 8)],
    }
    drawn = candidates(a_search(space=space, candidates=400))
    rates, drops = [v.learning_rate for v in drawn], [v.dropout for v in drawn]
    assert {type(v) for v in rates + drops} == {float}
    assert {type(v.batch_size) for v in drawn} == {type(v.epochs) for v in drawn} == {int}
    assert 1e-4 <= min(rates) < 1e-3 < 0.1 < max(rates) <= 1
    assert np.median(rates) == pytest.approx(0.01, rel=0.9)
    assert 0.1 <= min(drops) < 0.12 < 0.48 < max(drops) <= 0.5
    counts = Counter(v.batch_size for v in drawn)
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 100
    assert min(v.epochs for v in drawn) == 1
    assert max(v.epochs for v in drawn) > 500


def with_momentum(momenta: list[float] | Range, candidates: int, **changes: Any) -> Search:
    """A search over optimizers of which one has a momentum."""
    space = {"optimizer": ["sgd", "adam", "rmsprop"], "momentum": momenta, **changes}
    return a_search(base=SMALL.but(momentum=0.7), space=space, candidates=candidates, folds=2)


def test_a_momentum_is_drawn_for_optimizers_that_have_one() -> None:
    """From lists every possible candidate is drawn once: SGD with each momentum, Adam and RMSprop without any."""
    drawn = candidates(with_momentum([0.0, 0.9], 4))
    assert sorted((v.optimizer, v.momentum) for v in drawn) == [
        ("adam", 0.0),
        ("rmsprop", 0.0),
        ("sgd", 0.0),
        ("sgd", 0.9),
    ]
    # Of the candidates one has no choice but its optimizer: a momentum of 0 was not chosen.
    choices = [with_momentum([0.0, 0.9], 4).choices(v) for v in drawn if v.optimizer == "adam"]
    assert choices == [{"optimizer": "adam"}]


def test_optimizers_are_equally_likely_where_ranges_are_drawn() -> None:
    """Among drawings from ranges each optimizer has a third, however many fields apply to it; no two are equal."""
    drawn = candidates(with_momentum(Range(0.0, 0.99), 600, learning_rate=Range(1e-4, 1.0, log=True)))
    assert len({v.but(name="") for v in drawn}) == 600
    assert all(150 < count < 250 for count in Counter(v.optimizer for v in drawn).values())
    assert all((v.momentum > 0) == (v.optimizer == "sgd") for v in drawn)


def test_no_candidate_is_drawn_twice() -> None:
    """Where few are possible, drawing goes on until all wanted are different, and always finds the same."""
    search = with_momentum(Range(0.0, 0.99), 8)
    drawn = candidates(search)
    assert Counter(choices["optimizer"] for choices in searching._draws(search))["rmsprop"] > 1
    counts = Counter(v.optimizer for v in drawn)
    assert counts["adam"] <= 1 == counts["rmsprop"]
    assert len({v.momentum for v in drawn if v.optimizer == "sgd"}) == counts["sgd"] >= 6
    assert candidates(search) == drawn
    assert sorted(v.epochs for v in candidates(a_search(space={"epochs": Range(1, 4)}, candidates=4))) == [1, 2, 3, 4]


@pytest.mark.parametrize("workers", [{}, {"jobs": 2}], ids=["here", "processes"])
def test_what_does_not_apply_is_neither_trained_nor_recorded(
    images: tuple[np.ndarray, np.ndarray], workers: dict[str, Any]
) -> None:
    """A search over optimizer and momentum is trained; `cv_results_` masks what does not apply; any kind may win."""
    search = with_momentum(Range(0.5, 0.9), 4, learning_rate=[1e-5, 0.02])
    drawn = candidates(search)
    found = random_search(search, *images, 10, Notes(), **workers)
    applies = [variant.optimizer == "sgd" for variant in drawn]
    assert set(applies) == {True, False}
    assert (~np.ma.getmaskarray(found.cv_results["param_momentum"])).tolist() == applies
    assert ["momentum" in candidate.choices for candidate in found.candidates] == applies
    assert found.cv_results["params"] == [candidate.choices for candidate in found.candidates]
    best = SearchResult(candidates=found.candidates, refit=found.refit).best
    assert found.refit.variant == drawn[found.candidates.index(best)]


def test_the_winner_is_trained_on_all_images(
    done: tuple[Found, Notes, set[str]], images: tuple[np.ndarray, np.ndarray]
) -> None:
    """The model is the best candidate's, trained on all images as `training.fit` trains it by hand."""
    found = done[0]
    best = SearchResult(candidates=found.candidates, refit=found.refit).best
    winner = candidates(a_search())[found.candidates.index(best)]
    by_hand = models.build(winner, images[0].shape[1], 10, 7)
    training.fit(by_hand, *images, batch_size=64, epochs=2, verbose=0, seed=7)
    for mine, theirs in zip(found.model.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    assert found.refit.variant == winner
    assert (found.refit.epochs, found.refit.best_epoch, found.refit.steps_per_epoch) == (2, 2, 5)
    assert found.refit.parameters == by_hand.count_params()
    assert set(found.refit.history) == {"loss", "accuracy", "learning_rate", "train_seconds"}
    assert found.refit.weights is not None


def test_scores_are_those_of_stratified_folds(
    done: tuple[Found, Notes, set[str]], images: tuple[np.ndarray, np.ndarray]
) -> None:
    """A candidate's scores, in the folds' order, are scikit-learn's; trained by hand on the fold they are the same."""
    found, (x, y) = done[0], images
    scores = np.array([[found.cv_results[f"split{k}_test_score"][i] for k in range(3)] for i in range(3)])
    assert scores.tolist() == [candidate.scores for candidate in found.candidates]
    folds = StratifiedKFold(3, shuffle=True, random_state=7)
    for (rows, held_out), score in zip(folds.split(x, y), found.candidates[1].scores, strict=True):
        model = models.build(candidates(a_search())[1], x.shape[1], 10, 7)
        training.fit(model, x[rows], y[rows], batch_size=64, epochs=2, verbose=0, seed=7)
        assert training.evaluate(model, x[held_out], y[held_out])["accuracy"] == pytest.approx(score)


def test_the_journal_is_told_in_order(done: tuple[Found, Notes, set[str]]) -> None:
    """Of each candidate: its start, every epoch of fold after fold, its end; then the next candidate."""
    expected: list[tuple[Any, ...]] = []
    for variant in candidates(a_search()):
        epochs = [("epoch", variant.name, fold, epoch) for fold in (1, 2, 3) for epoch in (1, 2)]
        expected += [("started", variant.name), *epochs, ("ended", variant.name)]
    assert done[1].told == expected
    assert list(done[1].found.values()) == done[0].candidates
    assert [c.run_id for c in done[0].candidates] == [f"run of candidate {place}" for place in (1, 2, 3)]
    assert all(c.train_seconds > 0 for c in done[0].candidates)


def test_folds_share_programs(done: tuple[Found, Notes, set[str]]) -> None:
    """Candidates that differ in their learning rate, and the folds of each, train with one program.

    There are two structures, with and without dropout, and two sizes, a fold's and that of all images.
    """
    structures = len({candidate.choices["dropout"] > 0 for candidate in done[0].candidates})
    assert 0 < len(done[2]) <= structures + 1


def agree(mine: Found, theirs: Found) -> None:
    """That two searches came to the same, to the bit."""
    assert list(mine.cv_results) == list(theirs.cv_results)
    for name, values in theirs.cv_results.items():
        if not name.endswith("_time"):
            assert list(mine.cv_results[name]) == list(values), name
    assert [candidate.scores for candidate in mine.candidates] == [candidate.scores for candidate in theirs.candidates]
    for one, other in zip(mine.model.get_weights(), theirs.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("workers", WORKERS)
def test_workers_score_as_this_process(
    done: tuple[Found, Notes, set[str]], images: tuple[np.ndarray, np.ndarray], workers: dict[str, Any]
) -> None:
    """By workers `cv_results_` and the winner's weights are those of one process, and the journal hears as much."""
    notes = Notes()
    two = random_search(a_search(), *images, 10, notes, **workers)
    agree(two, done[0])
    assert sorted(notes.told) == sorted(done[1].told)
    for variant in candidates(a_search()):
        own = [told for told in notes.told if told[1] == variant.name]
        assert (own[0][0], own[-1][0]) == ("started", "ended")
    assert str(os.getpid()) not in {
        scored.worker["worker"].split()[-1] for scored in notes.folds["candidate 1"].values()
    }
    assert two.compile_seconds > two.refit.compile_seconds


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_what_was_not_heard_comes_with_the_outcome(
    done: tuple[Found, Notes, set[str]],
    images: tuple[np.ndarray, np.ndarray],
    workers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of messages half may get lost: in the end the journal has been told of every epoch and score all the same."""
    hear, count = searching._Course.hear, iter(range(1_000))
    monkeypatch.setattr(searching._Course, "hear", lambda self, said: hear(self, said) if next(count) % 2 else None)
    notes = Notes()
    agree(random_search(a_search(), *images, 10, notes, **workers), done[0])
    assert next(count) > 10
    assert sorted(notes.told) == sorted(done[1].told)


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_a_fold_whose_worker_died_is_trained_again(
    done: tuple[Found, Notes, set[str]],
    images: tuple[np.ndarray, np.ndarray],
    workers: dict[str, Any],
    tmp_path: Path,
) -> None:
    """A worker is killed in the middle of a fold: the results are the same, and nothing is told twice."""
    flag, notes = tmp_path / "died", Notes()
    x = Carried.of(images[0], functools.partial(die_once, str(flag), 1, 2))
    agree(random_search(a_search(), x, images[1], 10, notes, **workers), done[0])
    assert flag.exists()
    assert sorted(notes.told) == sorted(done[1].told)


def test_folds_on_record_are_not_trained_again(
    done: tuple[Found, Notes, set[str]], images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a candidate that was begun only the missing folds are trained; the journal is told of all, and once."""
    build, built = models.build, []
    monkeypatch.setattr(models, "build", lambda variant, *rest: built.append(variant.name) or build(variant, *rest))
    folds, notes = done[1].folds["candidate 2"], Notes()
    begun = {"candidate 2": {1: folds[1], 3: folds[3]}, "candidate 3": done[1].folds["candidate 3"]}
    found = random_search(a_search(), *images, 10, notes, begun=begun)
    agree(found, done[0])
    assert Counter(built[:-1]) == {"candidate 1": 3, "candidate 2": 1}
    assert sorted(notes.told) == sorted(done[1].told)
    known = found.candidates[2]
    assert known.train_seconds == pytest.approx(done[0].candidates[2].train_seconds)
    assert found.cv_results["mean_fit_time"][2] == pytest.approx(known.train_seconds / 3)


def test_finished_candidates_are_not_trained_again(
    done: tuple[Found, Notes, set[str]], images: tuple[np.ndarray, np.ndarray]
) -> None:
    """What is on record is not trained: its scores and times stand in the results as they were, all others too."""
    on_record = {"candidate 1": done[0].candidates[0], "candidate 3": done[0].candidates[2]}
    notes = Notes()
    found = random_search(a_search(), *images, 10, notes, finished=on_record)
    assert {told[1] for told in notes.told} == {"candidate 2"}
    assert [c.scores for c in found.candidates] == [c.scores for c in done[0].candidates]
    assert found.candidates[0] is on_record["candidate 1"]
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        assert found.cv_results[name].tolist() == done[0].cv_results[name].tolist()
    assert found.cv_results["mean_fit_time"][2] == pytest.approx(on_record["candidate 3"].train_seconds / 3)


def test_a_record_of_another_search_is_refused(images: tuple[np.ndarray, np.ndarray]) -> None:
    """A candidate on record that this search would not draw is refused before anything is trained."""
    foreign = Candidate(choices={"learning_rate": 0.7, "dropout": 0.0}, scores=[0.5, 0.5, 0.5])
    with pytest.raises(UsageError, match=r"candidate 2 on record .*0\.7.* leave it out"):
        random_search(a_search(), *images, 10, Notes(), finished={"candidate 2": foreign})


@pytest.mark.parametrize(
    "workers", [HERE, *(pytest.param(*w.values, id=w.id, marks=pytest.mark.slow) for w in WORKERS)]
)
def test_a_failing_candidate_does_not_stop_the_rest(
    images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, workers: dict[str, Any]
) -> None:
    """A candidate whose training raises scores NaN, its error is told, and the others are searched on."""
    monkeypatch.setattr(models, "build", models.build)
    fail = functools.partial(fail_to_build, candidates(a_search())[1], "not this one")
    if not workers:
        fail()
    notes = Notes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        x = Carried.of(images[0], fail) if workers else images[0]
        found = random_search(a_search(), x, images[1], 10, notes, **workers)
    assert [math.isnan(c.mean) for c in found.candidates] == [False, True, False]
    assert found.cv_results["rank_test_score"][1] == 3
    assert notes.errors["candidate 2"].count("MemoryError: not this one") == 3
    assert "fold 2:\nTraceback" in notes.errors["candidate 2"]
    assert notes.errors["candidate 1"] == notes.errors["candidate 3"] == ""


def test_a_failing_fold_leaves_the_others(
    images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one fold raises, the candidate's other folds are scored, and its mean is NaN."""
    calls = iter(range(100))
    predict = Classifier._predict_raw

    def failing(self: Classifier, X: np.ndarray, **rest: Any) -> np.ndarray:
        if next(calls) == 1:
            raise ValueError("no answer")
        return predict(self, X, **rest)

    monkeypatch.setattr(Classifier, "_predict_raw", failing)
    notes = Notes()
    found = random_search(a_search(), *images, 10, notes)
    assert [math.isnan(score) for score in found.candidates[0].scores] == [False, True, False]
    assert "fold 2:" in notes.errors["candidate 1"]
    assert "no answer" in notes.errors["candidate 1"]
    assert math.isnan(found.cv_results["mean_test_score"][0])


def test_when_all_fail_the_error_says_why(
    images: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no candidate is left, the search raises with the first one's traceback."""

    def failing(*_: Any) -> keras.Model:
        raise MemoryError("none of them")

    monkeypatch.setattr(models, "build", failing)
    with pytest.raises(RuntimeError, match=r"(?s)all 3 candidates of the search failed.*none of them"):
        random_search(a_search(), *images, 10, Notes())


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_interrupt_gets_out(images: tuple[np.ndarray, np.ndarray], jobs: int) -> None:
    """KeyboardInterrupt ends the search, and nothing more is told afterwards."""
    notes = Notes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    notes.ended = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        random_search(a_search(), *images, 10, notes, jobs=jobs)
    told = len(notes.told)
    time.sleep(0.3)
    assert len(notes.told) == told


@pytest.mark.parametrize(
    ("method", "jobs"),
    [("started", 1), ("epoch", 1), ("scored", 1), ("ended", 1), pytest.param("epoch", 2, marks=pytest.mark.slow)],
)
def test_a_broken_journal_ends_the_search(images: tuple[np.ndarray, np.ndarray], method: str, jobs: int) -> None:
    """What the journal raises is not taken for a failed training: it gets out as it is."""

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    notes = Notes()
    setattr(notes, method, broken)
    with pytest.raises(OSError, match="disk full"):
        random_search(a_search(), *images, 10, notes, jobs=jobs)
    assert len({told[1] for told in notes.told}) <= 1


def test_a_diverged_training_ends_and_counts(images: tuple[np.ndarray, np.ndarray]) -> None:
    """A loss that is no number ends that training; its accuracy counts, and it does not win."""
    # The penalty alone multiplies the weights by -17 a step.
    search = a_search(base=SMALL.but(epochs=30, l2=0.1), space={"learning_rate": [0.01, 90.0]}, candidates=2)
    notes = Notes()
    found = random_search(search, *images, 10, notes)
    wild = next(c for c in found.candidates if c.choices["learning_rate"] == 90.0)
    name = next(name for name, candidate in notes.found.items() if candidate is wild)
    assert max(told[3] for told in notes.told if told[:2] == ("epoch", name)) < 30
    assert all(0 <= score < 0.5 for score in wild.scores)
    assert found.refit.variant.learning_rate == 0.01


def test_what_is_drawn_twice_is_trained_once(images: tuple[np.ndarray, np.ndarray]) -> None:
    """Where a range of whole numbers draws the same again, that is no further candidate; the next one is."""
    search = a_search(space={"epochs": Range(1, 3)}, candidates=3, folds=2, seed=0)
    assert len(searching._draws(search)) > 3
    notes = Notes()
    found = random_search(search, *images, 10, notes)
    assert [told[1] for told in notes.told if told[0] == "ended"] == ["candidate 1", "candidate 2", "candidate 3"]
    assert sorted(candidate.choices["epochs"] for candidate in found.candidates) == [1, 2, 3]


def test_all_fields_can_be_searched(images: tuple[np.ndarray, np.ndarray]) -> None:
    """Structure, optimizer and the full batch are searched like any number."""
    space = {"hidden": [(4,), (4, 4)], "optimizer": ["adam"], "batch_size": ["full"], "batch_norm": [True]}
    found = random_search(a_search(space=space, candidates=2, folds=2), *images, 10, Notes())
    assert sorted(candidate.choices["hidden"] for candidate in found.candidates) == [(4,), (4, 4)]
    assert found.refit.steps_per_epoch == 1
    assert found.refit.variant.optimizer == "adam"


def test_more_folds_than_images_of_a_class_are_refused(images: tuple[np.ndarray, np.ndarray]) -> None:
    """What only the data can tell is refused before anything is trained; all else when the file is read."""
    notes = Notes()
    with pytest.raises(UsageError, match=r"folds is 50, but a class has \d+ images"):
        random_search(a_search(folds=50), *images, 10, notes)
    assert not notes.told


# The experiment, with its runs.

LABS = [
    pytest.param({"jobs": 2}, id="processes"),
    pytest.param({"cluster": "local:2"}, id="dask", marks=pytest.mark.slow),
]


def once_each(store: Any, parent: Any) -> dict[str, Any]:
    """The candidates' runs by name: one each, finished, with one point at every fold and epoch."""
    every = store.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.info.run_name for run in every) == ["candidate 1", "candidate 2", "candidate 3"]
    for run in every:
        assert run.info.status == "FINISHED"
        for name in ("fold_score", "loss", "accuracy"):
            points = store.get_metric_history(run.info.run_id, name)
            assert sorted(point.step for point in points) == [1, 2]
        folds = json.loads(str(tracking.read_artifact(run.info.run_id, "folds.json")))
        assert [len(folds[fold]["epochs"]) for fold in ("1", "2")] == [2, 2]
    return {run.info.run_name: run for run in every}


def scores(record: Any) -> list[list[float]]:
    return [candidate.scores for candidate in record.search.candidates]


def without_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """No candidate on record is taken over."""
    from mlplab import tracking

    monkeypatch.setattr(tracking.Run, "find", lambda self, fingerprint: None)


@pytest.mark.slow
@pytest.mark.parametrize("workers", LABS)
def test_a_dead_worker_leaves_no_trace_in_the_record(
    workers: dict[str, Any], store: Any, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker killed in the middle of a fold: the scores of one process, a run a candidate, a point an epoch."""
    without_reuse(monkeypatch)
    flag = tmp_path / "died"
    whole = cluster.Reference.array

    def array(self: cluster.Reference, split: str, name: str) -> Any:
        made = whole(self, split, name)
        return Carried.of(np.asarray(made), functools.partial(die_once, str(flag), 1, 2)) if name == "x" else made

    with monkeypatch.context() as patch:
        patch.setattr(cluster.Reference, "array", array)
        record = perform(SEARCH, dataset, **workers)
    assert flag.exists()
    parent = store.get_run(record.run_id)
    runs = once_each(store, parent)
    assert scores(record) == scores(perform(SEARCH, dataset))
    for run in (parent, *runs.values()):
        assert run.data.tags["machine.load"] == "shared"
    for run in runs.values():
        folds = json.loads(tracking.read_artifact(run.info.run_id, "folds.json"))
        assert all({"worker", "worker.core"} == set(folds[fold]["worker"]) for fold in "12")


@pytest.mark.slow
@pytest.mark.parametrize("workers", LABS)
def test_a_search_of_workers_that_was_interrupted_keeps_what_was_finished(
    workers: dict[str, Any], store: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after its first candidate, a search by workers goes on here: the same run, and nothing twice."""
    without_reuse(monkeypatch)

    class Interrupts(Quiet):
        def ended(self, result: Result) -> None:
            super().ended(result)
            raise KeyboardInterrupt

    first = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        perform(SEARCH, dataset, first, **workers)
    over = {event[1] for event in first.seen if event[0] == "ended"}
    watch = Quiet()
    record = perform(SEARCH, dataset, watch)
    (parent,) = [r for r in store.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags]
    assert record.run_id == parent.info.run_id
    assert {event[1] for event in watch.seen} == {"candidate 1", "candidate 2", "candidate 3"} - over
    once_each(store, parent)
    assert scores(record) == scores(perform(SEARCH, dataset))


def test_a_fold_that_is_over_is_not_trained_again(store: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the second fold of its second candidate, a search goes on with that fold."""
    watch = InterruptedWhen(lambda result: result.variant.name == "candidate 2" and result.epochs == 3)
    with pytest.raises(KeyboardInterrupt):
        perform(SEARCH, dataset, watch)
    build, built = models.build, []
    with monkeypatch.context() as patch:
        patch.setattr(models, "build", lambda variant, *rest: built.append(variant.name) or build(variant, *rest))
        record = perform(SEARCH, dataset)
    assert Counter(built[:-1]) == {"candidate 2": 1, "candidate 3": 2}
    (parent,) = [r for r in store.search_runs(["0"]) if "mlflow.parentRunId" not in r.data.tags]
    assert set(below(store, parent)) == set(once_each(store, parent))
    without_reuse(monkeypatch)
    assert scores(record) == scores(perform(SEARCH, dataset))


SPACE = {
    "learning_rate": [0.001, 0.01, 0.1],
    "dropout": [0.2, 0.3, 0.5],
    "batch_size": [32, 64, "full"],
    "hidden": [(128, 64), (256,)],
}


def searched(candidates: int = 12, failed: int = 1) -> SearchResult:
    """A search's result as one leaves it."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(candidates):
        choices = {name: values[rng.integers(len(values))] for name, values in SPACE.items()}
        score = 0.3 + 0.06 * math.log10(choices["learning_rate"] * 1000) - 0.1 * choices["dropout"]
        scores = [math.nan] * 3 if place < failed else (score + rng.normal(0, 0.01, 3)).tolist()
        found.append(Candidate(choices=choices, scores=scores))
    return SearchResult(candidates=found, refit=Result(variant=Variant(name="candidate 2")))


def test_the_parallel_coordinates_have_an_axis_for_each_field(tmp_path: Path) -> None:
    """One axis a searched field and one for the accuracy, a line for each candidate with a score, the best thick."""
    figure = search_figures.parallel(searched(), "CIFAR-10")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["learning rate", "dropout", "batch size", "hidden", "mean accuracy"]
    widths = [line.get_linewidth() for line in drawn_lines(axes)]
    assert len(widths) == 11
    assert widths.count(max(widths)) == 1
    assert len(figure.axes) == 2  # the colour bar
    figure.savefig(tmp_path / "figure.png")


def drawn_lines(axes: Any) -> list[Any]:
    """The candidates' lines of parallel coordinates."""
    return [line for line in axes.lines if line.get_gid() == "candidate"]


@pytest.mark.parametrize("candidates", [1, 4, 60])
def test_no_line_of_the_parallel_coordinates_crosses_a_name(tmp_path: Path, candidates: int) -> None:
    """Lines end at either side of an axis' names, of numbers and texts, few and many candidates."""
    figure = search_figures.parallel(with_optimizers(candidates, SPACE | {"optimizer": ["sgd", "adam"]}), "CIFAR-10")
    figure.savefig(tmp_path / "figure.png")
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 6
    for box in boxes:
        assert not any(box.overlaps(other) for other in boxes if other is not box)
    for line in drawn_lines(axes):
        points = axes.transData.transform(line.get_xydata())
        for a, b in itertools.pairwise(points):
            if np.isfinite([a, b]).all():
                between = a + np.linspace(0, 1, 200)[:, None] * (b - a)
                assert not any(box.contains(x, y) for box in boxes for x, y in between)


def with_optimizers(candidates: int, space: dict[str, Any]) -> SearchResult:
    """A search's result over optimizers, of which Adam has no momentum."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(candidates):
        choices = {name: values[rng.integers(len(values))] for name, values in space.items()}
        if choices["optimizer"] == "adam":
            choices.pop("momentum", None)
        found.append(Candidate(choices=choices, scores=rng.uniform(0.3, 0.5, 3).tolist()))
    return SearchResult(candidates=found, refit=Result(variant=Variant()))


def test_what_does_not_apply_is_shown_as_such(tmp_path: Path) -> None:
    """A candidate without a momentum has a – in table and on the axis, and is missing in the panel, which says so."""
    result = with_optimizers(8, {"optimizer": ["sgd", "adam"], "momentum": [0.0, 0.9]})
    having = sum("momentum" in candidate.choices for candidate in result.candidates)
    assert 0 < having < 8
    assert [row[2] for row in tables.search_cells(result)[1:]].count("–") == 8 - having
    parallel, slices = search_figures.parallel(result, "MNIST"), search_figures.slices(result, "MNIST")
    assert "–: does not apply" in parallel.axes[0].get_xlabel()
    assert [text.get_text() for text in parallel.axes[0].texts].count("–") == 1
    momentum = slices.axes[1]
    assert momentum.get_xlabel() == f"momentum\n({having} of 8 candidates have one)"
    assert len(momentum.lines) == 2 * having
    for figure in (parallel, slices):
        figure.savefig(tmp_path / "figure.png")
    assert choices_text(result.candidates[0].choices).startswith("optimizer ")


def test_the_slices_have_a_panel_for_each_field(tmp_path: Path) -> None:
    """One panel a searched field, accuracy against its values; magnitudes on a logarithmic axis."""
    figure = search_figures.slices(searched(), "CIFAR-10")
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning rate", "dropout", "batch size", "hidden"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]
    figure.savefig(tmp_path / "figure.png")


def test_a_candidate_that_failed_is_in_the_table_without_a_score() -> None:
    """One of whose folds some or all failed comes last, with what it has."""
    found = searched(4, 1)
    found.candidates[1].scores[2] = math.nan
    header, *rows = tables.search_cells(found)
    place, mean = header.index("mean score"), header.index("folds")
    assert [row[0] for row in rows[-2:]] == ["1", "2"]
    assert [row[place : place + 2] for row in rows[-2:]] == [["–", "–"]] * 2
    assert rows[-2][mean] == "– – –"
    assert re.fullmatch(r"0\.\d{4} 0\.\d{4} –", rows[-1][mean])
    assert all(re.fullmatch(r"0\.\d{4}", cell) for row in rows[:-2] for cell in row[place : place + 2])


def test_figures_of_a_single_or_failed_candidate(tmp_path: Path) -> None:
    """One candidate, or none that has a score, still makes a figure, which names nothing that it does not show."""
    one, none = searched(1, 0), searched(2, 2)
    parallel, slices = search_figures.parallel(one, "CIFAR-10"), search_figures.slices(one, "CIFAR-10")
    assert parallel.axes[0].get_xlabel() == ""
    assert len(parallel.axes) == 1  # accuracies of one have no scale of colours
    assert [text.get_text() for text in slices.legends[0].texts] == ["one fold", "best candidate"]
    empty = search_figures.parallel(none, "CIFAR-10"), search_figures.slices(none, "CIFAR-10")
    for figure in empty:
        assert "no candidate has a score" in [text.get_text() for text in figure.axes[0].texts]
    assert [text.get_text() for text in empty[1].legends[0].texts] == ["2 of 2 candidates failed"]
    for figure in (parallel, slices, *empty):
        figure.savefig(tmp_path / "figure.png")


def test_the_module_keeps_scikeras_to_itself() -> None:
    """One adapter over scikeras: no other module of the package imports it."""
    package = Path(searching.__file__).parent
    assert [path.name for path in package.glob("*.py") if "import KerasClassifier" in path.read_text()] == ["search.py"]
