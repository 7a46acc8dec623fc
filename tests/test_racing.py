"""What a race promises: fewer trainings, and the winner that all of them would have."""

import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_run import InterruptedWhen, Quiet, below, names, perform
from test_search import OWN, SEED, a_search, scores

from mlplab.checks import UsageError
from mlplab.data import Dataset
from mlplab.racing import CHANCE, due, in_race
from mlplab.search import candidates
from mlplab.tables import search_cells

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import race

NAN, FAILED = math.nan, -math.inf

# ------------------------------------------------------------------------------------------------- who stays


def test_all_run_the_first_round_and_the_better_half_the_second() -> None:
    """Until it is known how much scores vary nobody is judged; of an odd number the half is the larger one."""
    table = np.full((5, 10), NAN)
    assert due(table, 10) == [0, 1, 2, 3, 4]
    table[:, 0] = [0.9, 0.1, 0.8, 0.2, 0.7]
    assert due(table, 10) == [0, 2, 4]
    assert in_race(table, 10).all()


def test_who_is_clearly_worse_after_one_round_runs_no_second() -> None:
    """Once the better half shows how little scores vary, one round tells the others off; who is near still runs."""
    table = np.full((4, 10), NAN)
    table[:, 0] = [0.90, 0.91, 0.20, 0.895]
    table[:2, 1] = [0.89, 0.91]
    assert in_race(table, 10).tolist() == [True, True, False, True]
    assert due(table, 10) == [3]


def test_who_was_left_behind_is_in_again_where_the_leader_falls_back() -> None:
    """A candidate that beat all others and then collapses takes none with it, since one runs on beside it."""
    table = np.full((3, 10), NAN)
    table[:, :3] = [[0.97, 0.98, 0.96], [0.90, 0.92, 0.89], [0.91, 0.90, 0.90]]
    assert in_race(table, 10).tolist() == [True, False, True]
    table[[0, 2], 3] = [0.1, 0.9]
    assert in_race(table, 10).all()
    table[0, 3] = 0.97
    assert in_race(table, 10).tolist() == [True, False, True]


def test_a_failed_candidate_is_out_and_no_leader() -> None:
    """It gets no further round, wherever it stood; where all fail the race is over."""
    table = np.full((3, 4), NAN)
    table[:, :2] = [[0.99, FAILED], [0.5, 0.52], [0.5, 0.51]]
    assert in_race(table, 4).tolist() == [False, True, True]
    assert due(table, 4) == [1, 2]
    table[:, 1] = FAILED
    assert due(table, 4) == []


def test_equal_candidates_both_go_to_the_end() -> None:
    """Nothing tells them apart, so nothing drops one; the race ends when all that is left has run."""
    table = np.full((2, 3), NAN)
    for fold in range(3):
        assert due(table, 3) == [0, 1]
        table[:, fold] = 0.5 + fold
    assert due(table, 3) == []


def test_neither_order_nor_unit_of_scores_matters() -> None:
    """Candidates in another order, and scores in another unit with another zero, are judged as before."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        table = rng.normal(size=(8, 5)) + np.arange(8)[:, None]
        table[rng.integers(8), 3:] = NAN
        order = rng.permutation(8)
        stays = in_race(table, 10)
        assert in_race(table[order], 10).tolist() == stays[order].tolist()
        assert in_race(7 * table - 3, 10).tolist() == stays.tolist()


def test_the_winner_is_lost_as_rarely_as_is_said() -> None:
    """Of three with normal scores, at any distance, the best is left behind for good in about `CHANCE` of races."""
    rng = np.random.default_rng(1)
    lost = []
    for distance in np.repeat([0.0, 0.3, 1.0, 3.0], 500):
        grid = rng.normal([[0.0], [distance], [2 * distance]], size=(3, 10))
        mean, _ = race.raced(grid)
        lost.append(mean < grid.mean(axis=1).max())
    assert 0 < np.mean(lost) <= 2 * CHANCE


# ------------------------------------------------------------------------------------------------- the bar


@pytest.mark.parametrize("name", ["digits", "cnn"])
def test_recorded_searches_have_the_same_winner_for_a_third_of_the_trainings(name: str) -> None:
    """200 replays of recorded scores, candidates and folds drawn anew: at least 95 % the same, at most a third."""
    same, share = race.replay(race.recorded(name), race.raced, race.REPLAYS)
    assert same >= race.SAME
    assert share <= race.SHARE


def test_a_replay_of_the_whole_grid_finds_its_winner() -> None:
    """The measure itself: a rule that drops nobody is always right, for all of the trainings."""
    grid = race.recorded("diabetes")
    nobody = race.by(lambda scores, folds: np.ones(len(scores), bool))
    assert race.replay(grid, nobody, 20) == (1.0, 1.0)
    worst_stays = race.by(lambda scores, folds: scores.mean(axis=1) <= scores.mean(axis=1).min())
    assert race.replay(grid, worst_stays, 20)[0] < 0.2


# ------------------------------------------------------------------------------------------------- in a search

MANY, FOLDS = 5, 4
SPACE = {"learning_rate": [0.0003, 0.003, 0.3], "model.dropout": [0.0, 0.5]}


def a_race(**changes: Any) -> Any:
    return a_search(**{"space": SPACE, "candidates": MANY, "folds": FOLDS, "race": True, **changes})


def test_race_is_true_or_false() -> None:
    """Anything else is refused when the file is read."""
    with pytest.raises(UsageError, match="race is 'yes'; legal: True or False"):
        a_race(race="yes")


@pytest.fixture(scope="module")
def raced(empty_store: Path, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Any:
    """A race that has run in this process: (record, client, watch)."""
    import mlflow

    folder = tmp_path_factory.mktemp("raced")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    record = perform(a_race(), dataset, watch)
    yield record, mlflow.MlflowClient(), watch
    mlflow.set_tracking_uri(None)


def test_a_race_trains_what_is_due_and_scores_it_as_a_search_does(raced: Any, dataset: Dataset, store: Any) -> None:
    """Fold by fold the scores are those of the same search without a race, and so is the winner's training."""
    record, _, watch = raced
    whole = perform(a_race(race=False), dataset)
    had = [len(one) for one in scores(record)]
    assert scores(record) == [one[:many] for one, many in zip(scores(whole), had, strict=True)]
    assert record.search.refit.end == whole.search.refit.end
    assert sum(had) == len(names(watch, "started")) - 1 < MANY * FOLDS
    assert min(had) < FOLDS == max(had)


def test_the_record_of_a_race_says_who_was_dropped_and_when(raced: Any) -> None:
    """Table, cv_results.csv, descriptions and runs have those that were dropped with the folds that they had."""
    record, client, _ = raced
    found = record.search
    cells = search_cells(found)
    assert "dropped" not in " ".join(cells[1])
    assert cells[1][0] == str(found.candidates.index(found.best) + 1)
    text = Path(client.download_artifacts(record.run_id, "cv_results.csv")).read_text()
    for place, (row, candidate) in enumerate(zip(csv.DictReader(io.StringIO(text)), found.candidates, strict=True), 1):
        had = len(candidate.scores)
        (line,) = [line for line in cells if line[0] == str(place)]
        assert (f"(dropped after {had} fold" in line[-2]) == (had < FOLDS)
        assert row["folds"] == str(had)
        assert [row[f"split{fold}_test_score"] for fold in range(had, FOLDS)] == [""] * (FOLDS - had)
        assert [float(row[f"split{fold}_test_score"]) for fold in range(had)] == candidate.scores
        assert float(row["mean_test_score"]) == pytest.approx(candidate.mean)
        assert (row["rank_test_score"] == "1") == (candidate is found.best)
        for name, value in candidate.choices.items():
            assert row[f"param_{name.replace('.', '__')}"] == str(value)
        run = client.get_run(candidate.run_id)
        assert run.info.status == "FINISHED"
        assert len(below(client, run)) == had
        assert run.data.metrics["mean_score"] == pytest.approx(candidate.mean)
        said = f"Clearly worse than the leader after {had} of {FOLDS} folds: dropped."
        assert (run.data.tags.get("mlflow.note.content") == said) == (had < FOLDS)
        assert ("mlplab.candidate" in run.data.tags) == (had == FOLDS)
    trained = sum(len(one) for one in scores(record))
    assert (
        f"{trained} trainings in place of {MANY * FOLDS}."
        in client.get_run(record.run_id).data.tags["mlflow.note.content"]
    )


@pytest.mark.slow
def test_a_race_that_was_interrupted_goes_on(raced: Any, dataset: Dataset, store: Any) -> None:
    """Interrupted in the second round, it trains what was not over, to the scores of one that was not interrupted."""
    started = names(raced[2], "started")
    watch = InterruptedWhen(lambda r: r.seed == SEED + 1)
    with pytest.raises(KeyboardInterrupt):
        perform(a_race(), dataset, watch)
    again = Quiet()
    record = perform(a_race(), dataset, again)
    assert scores(record) == scores(raced[0])
    assert names(again, "started") == started[MANY:]
    assert record.search.refit.end == raced[0].search.refit.end


@pytest.mark.parametrize(
    "where",
    [
        pytest.param({"jobs": 2}, id="processes", marks=pytest.mark.slow),
        pytest.param({"cluster": "local:2"}, id="dask", marks=pytest.mark.nightly),
    ],
)
def test_workers_race_as_this_process(where: dict[str, Any], raced: Any, dataset: Dataset, store: Any) -> None:
    """Round after round spread over the same workers, scores, winner and its weights are those of one process."""
    record = perform(a_race(), dataset, **where)
    assert scores(record) == scores(raced[0])
    assert record.search.refit.end == raced[0].search.refit.end
    (first, *_) = below(store, store.get_run(record.search.candidates[0].run_id)).values()
    assert first.data.tags["machine.load"].startswith("shared: ")


def test_a_candidate_that_fails_is_dropped(dataset: Dataset, store: Any) -> None:
    """Its one fold is FAILED with its traceback, it trains no other, and the race goes on."""
    search = a_race(base=OWN, space={"model.units": [4, 5, 13]}, candidates=3, folds=3)
    record = perform(search, dataset)
    place = [variant.model.arguments["units"] for variant in candidates(search)].index(13)
    bad = record.search.candidates[place]
    assert len(bad.scores) == 1
    assert math.isnan(bad.mean)
    run = store.get_run(bad.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"] == "Failed after 1 of 3 folds."
    assert "dropped" not in " ".join(search_cells(record.search)[-1])
    assert record.search.best.choices["model.units"] != 13


@pytest.mark.slow
def test_a_race_in_which_every_candidate_fails_says_why(dataset: Dataset, store: Any) -> None:
    """As a search without a race does."""
    search = a_race(base=OWN, space={"model.units": [4, 5], "model.least": [1_000]}, candidates=2, folds=2)
    with pytest.raises(RuntimeError, match=r"all 2 candidates failed(.|\n)*MemoryError: too few examples"):
        perform(search, dataset)
