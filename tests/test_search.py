"""What a search promises: scikit-learn's `RandomizedSearchCV` itself, whose folds are trained and recorded as seeds."""

import csv
import io
import math
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GroupKFold, ParameterSampler, StratifiedKFold
from test_run import InterruptedWhen, Quiet, below, names, perform
from words import mlp

from mlplab import Data, LogUniform, Search, Training, Uniform, call, lookup, training, trial, worker
from mlplab.building import build
from mlplab.checks import UsageError
from mlplab.data import Dataset, load
from mlplab.folds import fold_of_example, for_seed
from mlplab.replay import read, training_of
from mlplab.search import candidates

SEED = 7


def a_search(**changes: Any) -> Search:
    space = {"learning_rate": [0.003, 0.03, 0.3], "model.dropout": [0.0, 0.2]}
    values = {"base": mlp(hidden=(8,), epochs=2, batch_size=64), "space": space, "candidates": 3, "folds": 3}
    return Search(name="hunt", question="Which is best?", **{"data": "digits", "seed": SEED, **values, **changes})


# ------------------------------------------------------------------------------------------------- what is drawn


def test_candidates_are_those_that_scikit_learn_draws() -> None:
    """From lists, in order, they are what `RandomizedSearchCV` draws with the search's seed."""
    space = {name: list(values) for name, values in a_search().space.items()}
    drawn = candidates(a_search())
    assert [variant.name for variant in drawn] == ["candidate 1", "candidate 2", "candidate 3"]
    assert [a_search().choices(variant) for variant in drawn] == list(ParameterSampler(space, 3, random_state=SEED))


def test_ranges_draw_python_numbers_between_their_ends() -> None:
    """Distributions draw floats, evenly or over magnitudes, and whole numbers where the choice takes those alone."""
    space = {
        "learning_rate": LogUniform(1e-4, 1.0),
        "model.dropout": Uniform(0.1, 0.5),
        "batch_size": Uniform(1, 3),
        "epochs": LogUniform(1, 1000),
        "model.hidden": [(8,), (8, 8)],
    }
    drawn = candidates(a_search(space=space, candidates=400))
    rates, drops = [v.learning_rate for v in drawn], [v.model.arguments["dropout"] for v in drawn]
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


def with_momentum(momenta: list[float] | Uniform, candidates: int, **changes: Any) -> Search:
    """A search over optimizers of which one has no momentum."""
    space = {"optimizer": ["sgd", "adam"], "optimizer.momentum": momenta, **changes}
    return a_search(space=space, candidates=candidates, folds=2)


def test_an_argument_is_drawn_for_optimizers_that_have_it() -> None:
    """From lists every possible candidate is drawn once: SGD with each momentum, Adam without any."""
    search = with_momentum([0.0, 0.9], 3)
    drawn = [(v.optimizer.name, v.optimizer.arguments.get("momentum")) for v in candidates(search)]
    assert sorted(drawn, key=str) == [("Adam", None), ("SGD", 0.0), ("SGD", 0.9)]
    (choices,) = [search.choices(v) for v in candidates(search) if v.optimizer.name == "Adam"]
    assert set(choices) == {"optimizer"}


def test_optimizers_are_equally_likely_where_ranges_are_drawn() -> None:
    """Among drawings from ranges each optimizer has half, however many choices apply to it; no two are equal."""
    drawn = candidates(with_momentum(Uniform(0.0, 0.99), 400, learning_rate=LogUniform(1e-4, 1.0)))
    assert len({v.key for v in drawn}) == 400
    assert all(150 < count < 250 for count in Counter(v.optimizer.name for v in drawn).values())


def test_no_candidate_is_drawn_twice() -> None:
    """Where few are possible, drawing goes on until all wanted are different, and always finds the same."""
    search = with_momentum(Uniform(0.0, 0.99), 8)
    drawn = candidates(search)
    assert len({v.key for v in drawn}) == 8
    assert Counter(v.optimizer.name for v in drawn) == {"SGD": 7, "Adam": 1}
    assert candidates(search) == drawn
    assert sorted(v.epochs for v in candidates(a_search(space={"epochs": Uniform(1, 4)}, candidates=4))) == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------- the folds


def patients() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(90, 5)), "y": np.arange(90) % 3}


def visits() -> dict[str, Any]:
    return patients() | {"groups": np.arange(90) // 6}


def test_folds_are_scikit_learns_stratified_ones(dataset: Dataset) -> None:
    """Each class has the same share of every fold, and a variant's training split is all folds but its own."""
    numbers = fold_of_example(dataset, 3, SEED)
    made = StratifiedKFold(3, shuffle=True, random_state=SEED).split(dataset.train.x, dataset.train.y)
    for fold, (rows, held_out) in enumerate(made, 1):
        assert np.flatnonzero(numbers == fold).tolist() == held_out.tolist()
        cut = for_seed(candidates(a_search())[0], dataset, SEED + fold - 1)
        np.testing.assert_array_equal(cut.train.x, dataset.train.x[rows])
        np.testing.assert_array_equal(cut.validation.y, dataset.train.y[held_out])


def test_no_group_is_in_two_folds() -> None:
    """Where data have groups, folds are scikit-learn's by group."""
    data = load(Data(visits))
    groups = data.groups["train"]
    numbers = fold_of_example(data, 3, SEED)
    assert all(len(set(numbers[groups == group])) == 1 for group in set(groups))
    made = GroupKFold(3, shuffle=True, random_state=SEED).split(data.train.x, data.train.y, groups)
    assert [np.flatnonzero(numbers == fold).tolist() for fold in (1, 2, 3)] == [rows.tolist() for _, rows in made]


def two_inputs() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(90, 4))
    return {"left": x, "right": x}, np.arange(90) % 3


@pytest.mark.parametrize(
    ("changes", "data", "said"),
    [
        ({"folds": 50}, patients, r"folds is 50, but a class has \d+ examples; legal: 2 to \d+"),
        (
            {},
            two_inputs,
            "several inputs or outputs, which scikit-learn cannot cut into folds; legal: one",
        ),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_a_run(
    store: Any, changes: dict[str, Any], data: Any, said: str
) -> None:
    """Folds that some class is too small for, and data that scikit-learn cannot cut, leave no run."""
    with pytest.raises(UsageError, match=said):
        perform(a_search(data=data, **changes), load(data))
    assert not store.search_runs(["0"])


# ------------------------------------------------------------------------------------------------- a search


def scores(record: Any) -> list[list[float]]:
    return [candidate.scores for candidate in record.search.candidates]


def folds_of(client: Any, candidate: Any) -> list[Any]:
    """The trainings of a candidate's folds, in order, as they are on record."""
    runs = below(client, client.get_run(candidate.run_id))
    return [training_of(read(runs[name].info.run_id)) for name in sorted(runs)]


@pytest.fixture(scope="module")
def done(empty_store: Path, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Any:
    """A search that has run in this process: (record, client, watch)."""
    import mlflow

    folder = tmp_path_factory.mktemp("done")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    record = perform(a_search(), dataset, watch)
    yield record, mlflow.MlflowClient(), watch
    mlflow.set_tracking_uri(None)


def by_hand(variant: Training, data: Dataset, seed: int) -> keras.Model:
    """A candidate trained by `training.fit` alone."""
    model = build(variant, data, seed)
    arguments = {"batch_size": variant.batch(len(data.train)), "epochs": variant.epochs, "verbose": 0, "seed": seed}
    training.fit(model, data.train.x, data.train.y, **arguments)
    return model


def test_a_fold_is_trained_as_a_seed_is_and_scored_by_scikit_learn(done: Any, dataset: Dataset) -> None:
    """A fold's weights are, to the bit, those of `fit` on it alone; its score is scikit-learn's of predictions."""
    record, client, _ = done
    for variant, candidate in zip(candidates(a_search()), record.search.candidates, strict=True):
        found = folds_of(client, candidate)
        for fold, (result, score) in enumerate(zip(found, candidate.scores, strict=True)):
            seed = SEED + fold
            cut = for_seed(variant, dataset, seed)
            model = by_hand(variant, cut, seed)
            assert result.end == trial.digest([weight.tobytes() for weight in model.get_weights()])
            predicted = model.predict(cut.validation.x, verbose=0).argmax(axis=1)
            assert score == pytest.approx(accuracy_score(cut.validation.y, predicted))


def test_the_winner_is_trained_on_all_examples(done: Any, dataset: Dataset) -> None:
    """The model is the best candidate's, trained by the same path on all training examples."""
    record, client, _ = done
    found = record.search
    assert found.best.mean == max(candidate.mean for candidate in found.candidates)
    winner = candidates(a_search())[found.candidates.index(found.best)].but(splits="fixed")
    model = by_hand(winner, dataset, SEED)
    assert found.refit.variant == winner.but(name="best found")
    assert found.refit.end == trial.digest([weight.tobytes() for weight in model.get_weights()])
    for split, values in ((dataset.test, found.refit.test), (dataset.validation, found.validation)):
        loaded = keras.saving.load_model(client.download_artifacts(record.run_id, "model.keras"))
        wanted = loaded.evaluate(split.x, split.y, verbose=0, return_dict=True)
        for name, value in wanted.items():
            assert values.get(name, values.get(f"val_{name}")) == pytest.approx(value, rel=1e-4)


def test_cv_results_are_those_of_scikit_learn(done: Any) -> None:
    """cv_results.csv has a row a candidate with its choices, scores, rank and true seconds, and no invented ones."""
    record, *_ = done
    text = lookup.read_artifact(record.run_id, "cv_results.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, candidate in zip(rows, record.search.candidates, strict=True):
        assert [float(row[f"split{fold}_test_score"]) for fold in range(3)] == candidate.scores
        assert float(row["mean_test_score"]) == pytest.approx(candidate.mean)
        assert float(row["mean_fit_time"]) == pytest.approx(candidate.train_seconds / 3)
        for name, value in candidate.choices.items():
            assert row[f"param_{name.replace('.', '__')}"] == str(value)
    assert not [name for name in rows[0] if "score_time" in name or "place" in name]


def test_the_watch_is_told_of_every_fold(done: Any) -> None:
    """Fold after fold, candidate after candidate, and the winner last."""
    *_, watch = done
    every = [f"candidate {place}" for place in (1, 2, 3) for _ in range(3)] + ["best found"]
    assert names(watch, "started") == names(watch, "ended") == every


@pytest.mark.slow
def test_workers_score_as_this_process(done: Any, dataset: Dataset, store: Any) -> None:
    """Spread over local processes, scores, winner and its weights are those of one process."""
    record = perform(a_search(), dataset, jobs=2)
    assert scores(record) == scores(done[0])
    assert record.search.refit.end == done[0].search.refit.end
    assert store.get_run(record.run_id).data.tags["machine.load"] == "shared"
    (first, *_) = below(store, store.get_run(record.search.candidates[0].run_id)).values()
    assert first.data.tags["machine.load"].startswith("shared: ")


@pytest.mark.slow
def test_candidates_of_another_search_are_not_trained_again(done: Any, dataset: Dataset) -> None:
    """A wider search takes over the candidates that are on record, wherever in the order they were drawn."""
    import mlflow

    first, store, _ = done
    watch = Quiet()
    here = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.tracking_uri)
    try:
        record = perform(a_search(candidates=6), dataset, watch)
    finally:
        mlflow.set_tracking_uri(here)
    known = {str(candidate.choices): candidate.scores for candidate in first.search.candidates}
    fresh = [name for name, c in zip(numbered(6), record.search.candidates, strict=True) if str(c.choices) not in known]
    assert set(names(watch, "started")) == {*fresh, "best found"}
    assert len(fresh) == 3
    for candidate in record.search.candidates:
        assert known.get(str(candidate.choices), candidate.scores) == candidate.scores
    runs = below(store, store.get_run(record.run_id))
    assert {name for name, run in runs.items() if "mlplab.reused_from" in run.data.tags} == {*numbered(6)} - {*fresh}


def numbered(many: int) -> list[str]:
    return [f"candidate {place}" for place in range(1, many + 1)]


@pytest.mark.slow
def test_a_fold_that_was_interrupted_goes_on(
    done: Any, dataset: Dataset, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted within a fold, a search goes on with that fold's epochs, to the scores of one that was not."""
    monkeypatch.setattr(trial, "CHECKPOINT_SECONDS", 0.0)
    second = SEED + 1
    watch = InterruptedWhen(lambda r: (r.variant.name, r.seed, r.epochs) == ("candidate 2", second, 2))
    with pytest.raises(KeyboardInterrupt):
        perform(a_search(), dataset, watch)
    watch = Quiet()
    record = perform(a_search(), dataset, watch)
    assert names(watch, "started") == ["candidate 2"] * 2 + ["candidate 3"] * 3 + ["best found"]
    assert scores(record) == scores(done[0])
    assert record.search.refit.end == done[0].search.refit.end
    runs = below(store, store.get_run(record.search.candidates[1].run_id))
    assert runs["fold 2: candidate 2"].data.tags["mlplab.resumed_at"] == "epoch 1"


def picky(data: Dataset, units: int = 4, least: int = 0) -> keras.Model:
    """Cannot be built with 13 units, or for less than `least` examples."""
    if units == 13:
        raise MemoryError("13 units are too many")
    if len(data.train) < least:
        raise MemoryError("too few examples")
    inputs = keras.Input((784,))
    return keras.Model(inputs, keras.layers.Dense(10, "softmax")(keras.layers.Dense(units)(inputs)))


OWN = mlp(epochs=1).but(model=picky)


def test_a_failing_candidate_does_not_stop_the_rest(dataset: Dataset, store: Any) -> None:
    """A candidate whose training raises scores NaN and is FAILED with its traceback; the others are searched on."""
    search = a_search(base=OWN, space={"model.units": [4, 5, 13]}, folds=2)
    record = perform(search, dataset)
    failed = [candidate.choices["model.units"] == 13 for candidate in record.search.candidates]
    assert [math.isnan(candidate.mean) for candidate in record.search.candidates] == failed
    runs = below(store, store.get_run(record.run_id))
    assert sorted(run.info.status for run in runs.values()) == ["FAILED"] + ["FINISHED"] * 3
    (bad,) = [run for run in runs.values() if run.info.status == "FAILED"]
    for fold in below(store, bad).values():
        assert "MemoryError: 13 units are too many" in lookup.read_artifact(fold.info.run_id, "traceback.txt")
    assert store.get_run(record.run_id).info.status == "FINISHED"


def test_a_search_of_which_every_candidate_fails_says_why(dataset: Dataset, store: Any) -> None:
    """It has no winner, and ends with the first traceback."""
    search = a_search(base=OWN, space={"model.units": [4, 5], "model.least": [1_000]}, candidates=2, folds=2)
    with pytest.raises(RuntimeError, match=r"all 2 candidates failed(.|\n)*MemoryError: too few examples"):
        perform(search, dataset)
    (parent,) = [r for r in store.search_runs(["0"]) if r.info.run_name.startswith("hunt ·")]
    assert parent.info.status == "FAILED"


def test_a_diverged_training_ends_and_counts(dataset: Dataset, store: Any) -> None:
    """A loss that is no number ends that training; its accuracy counts, and it does not win."""
    # The penalty alone multiplies the weights by -17 a step.
    base = mlp(hidden=(8,), l2=0.1, epochs=30, batch_size=64)
    record = perform(a_search(base=base, space={"learning_rate": [0.01, 90.0]}, candidates=2, folds=2), dataset)
    (wild,) = [c for c in record.search.candidates if c.choices["learning_rate"] == 90.0]
    assert all(result.status == "diverged" and result.epochs < 30 for result in folds_of(store, wild))
    assert all(0 <= score < 0.5 for score in wild.scores)
    assert record.search.refit.variant.learning_rate == 0.01


def cnn(data: Dataset, filters: int = 4, dropout: float = 0.0) -> keras.Model:
    layers = [
        keras.Input((784,)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Reshape((28, 28, 1)),
        keras.layers.Conv2D(filters, 5, strides=3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(dropout),
        keras.layers.Dense(data.classes, activation="softmax"),
    ]
    return keras.Sequential(layers)


@pytest.mark.slow
def test_any_model_function_is_searched(dataset: Dataset, store: Any) -> None:
    """A CNN's arguments are drawn, as are its optimizer and whatever else a training has."""
    space = {"model.filters": [2, 3], "model.dropout": Uniform(0.1, 0.4), "optimizer": ["adam", "rmsprop"]}
    base = mlp(epochs=2, batch_size="full", learning_rate=0.005).but(model=cnn)
    search = a_search(base=base, space=space, candidates=2, folds=2)
    record = perform(search, dataset)
    for candidate in record.search.candidates:
        assert set(candidate.choices) == set(space)
        for result in folds_of(store, candidate):
            filters = candidate.choices["model.filters"]
            assert result.parameters == filters * 26 + (8 * 8 * filters + 1) * 10
            assert result.steps_per_epoch == 1


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    return found.data.astype("float32"), found.target.astype("float32")


def line(width: int = 4) -> keras.Model:
    layers = [keras.Input((10,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(1)]
    return keras.Sequential(layers)


def test_numbers_are_searched_by_r_squared(store: Any) -> None:
    """A regression's folds are shuffled and scored by scikit-learn's R², or by what `scoring` names."""
    data = load(Data(diabetes))
    base = Training(
        model=line, optimizer=call("keras.optimizers.Adam", beta_1=0.8), learning_rate=0.1, loss="mse", epochs=20
    )
    search = a_search(data=diabetes, base=base, space={"model.width": [4, 8], "learning_rate": [0.1, 0.01]}, folds=2)
    record = perform(search, data)
    assert record.search.score == "R²"
    variant, candidate = candidates(search)[0], record.search.candidates[0]
    for fold, score in enumerate(candidate.scores):
        cut = for_seed(variant, data, SEED + fold)
        predicted = by_hand(variant, cut, SEED + fold).predict(cut.validation.x, verbose=0)
        assert score == pytest.approx(r2_score(cut.validation.y, predicted), abs=1e-5)
    other = perform(
        Search(**{**vars(search), "scoring": "neg_mean_absolute_error", "candidates": 1, "name": "other"}), data
    )
    assert all(score < -10 for score in other.search.candidates[0].scores)


def deadly(data: Dataset, flag: str = "", units: int = 4) -> keras.Model:
    """Kills its process when it is a worker's, once."""
    if worker.place() and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return picky(data, units)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param({"jobs": 2}, id="processes", marks=pytest.mark.nightly),
        pytest.param({"cluster": "local:2"}, id="dask", marks=pytest.mark.slow),
    ],
)
def test_a_dead_worker_leaves_no_trace_in_the_record(
    where: dict[str, Any], store: Any, dataset: Dataset, tmp_path: Path
) -> None:
    """A worker killed in a fold: the scores of one process, a run a candidate and fold, a point an epoch."""
    flag = tmp_path / "died"
    base = OWN.but({"model": call(deadly, flag=str(flag)), "epochs": 3})
    search = a_search(base=base, space={"model.units": [3, 4, 5]}, folds=2)
    record = perform(search, dataset, **where)
    assert flag.exists()
    runs = below(store, store.get_run(record.run_id))
    assert set(runs) == {*numbered(3), "best found"}
    for name in numbered(3):
        folds = below(store, runs[name])
        assert set(folds) == {f"fold 1: {name}", f"fold 2: {name}"}
        for run in (runs[name], *folds.values()):
            assert run.info.status == "FINISHED"
            assert sorted(p.step for p in store.get_metric_history(run.info.run_id, "loss")) == [1, 2, 3]
    alone = perform(Search(**{**vars(search), "name": "alone", "seed": SEED}), dataset)
    assert scores(record) == scores(alone)
