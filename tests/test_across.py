"""What a comparison on several data sets promises: each is compared as alone, and what holds over all is rliable's and
AlgoPerf's arithmetic, with verdicts drawn as on one data set."""

import csv
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_run import InterruptedWhen, Quiet, Screen
from test_spec import refusal, training

from mlplab import Comparison, Data, aggregates, choosing, comparing, loading, page_parts, run, tables
from mlplab import __main__ as command_line
from mlplab.across import Across
from mlplab.across_runs import check_distinct
from mlplab.aggregates import (
    aggregate_mean,
    aggregate_median,
    bootstrap,
    interquartile_mean,
    performance_ratios,
    probability_of_improvement,
    profile,
    profile_score,
)
from mlplab.answers import answer_of
from mlplab.checks import UsageError
from mlplab.comparison import WinnerOf
from mlplab.data import load
from mlplab.records import Record
from mlplab.results import FAILED, Result, measures
from mlplab.seeds import Until
from mlplab.statistics import mean_interval
from mlplab.verdicts import judge

NAN, INF = math.nan, math.inf
EXAMPLE = ROOT / "examples" / "several_datasets.py"


def asked(**changes: Any) -> Comparison:
    """Two variants on two data sets."""
    given = {
        "question": "Which?",
        "data": ["mnist", "digits"],
        "base": training(),
        "variants": {"a": {}, "b": {"epochs": 5}},
        "name": "both",
        **changes,
    }
    return Comparison(**given)


# ------------------------------------------------------------------------------------------------------------ the spec


def test_data_is_one_data_set_or_several() -> None:
    """A list is several data sets, a tuple of names, too; a list of one is that one, and a tuple of arrays is one."""
    assert asked().data == (Data("mnist"), Data("digits"))
    assert asked(data=("mnist", Data("digits"))) == asked()
    assert asked(data=["mnist"]).data == Data("mnist")
    arrays = (np.zeros((4, 2)), np.zeros(4))
    assert asked(data=arrays).datasets == (Data(arrays),)
    assert asked(data=[Data(arrays, name="zeros"), "digits"]).datasets[0] == Data(arrays, name="zeros")


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"data": []}, ["data is []", "at least one"]),
        ({"data": ["mnist", Data("mnist")]}, ["mnist more than once", "Delete the repetition"]),
        ({"data": ["a/x.csv", "digits"]}, ["x.csv has no target"]),
        ({"data": [Data("a/x.npz"), Data("b/x.npz")]}, ["two data sets are called 'x'", "name='x 2'"]),
        ({"data": ["mnist", "digts"]}, ["'digts'", "Did you mean 'digits'?"]),
        ({"targets": {"val_accuracy": {"mnist": 0.9}}}, ["no value for digits", "one for each data set"]),
        ({"targets": {"val_accuracy": {"minst": 0.9}}}, ["'minst'", "Did you mean 'mnist'?"]),
        ({"targets": {"val_accuracy": {"mnist": 0.9, "digits": 90}}}, ["val_accuracy on digits is 90", "from 0 to 1"]),
        ({"data": "mnist", "targets": {"val_accuracy": {"mnist": 0.9}}}, ["legal with one data set: a number"]),
    ],
)
def test_illegal_data_sets_are_refused(changes: dict[str, Any], texts: list[str]) -> None:
    """The message shows what was seen and what is legal."""
    text = refusal(asked, **changes)
    for expected in texts:
        assert expected in text


def test_a_comparison_on_one_of_several_is_that_comparison() -> None:
    """`on` gives what a comparison on that data set alone would be, but for its name, with that data set's target."""
    targets = {"val_accuracy": {"mnist": 0.9, "digits": 0.8}, "val_loss": 0.5}
    several = asked(targets=targets)
    alone = asked(data="digits", targets={"val_accuracy": 0.8, "val_loss": 0.5}, name="both on digits")
    assert several.on("digits") == several.on(Data("digits")) == several.needs[1] == alone
    assert alone.on("digits") is alone
    assert alone.needs == ()
    with pytest.raises(UsageError, match="unknown data set 'wine'; legal: mnist, digits"):
        several.on("wine")
    with pytest.raises(UsageError, match="none of this comparison's data"):
        several.on(Data("cifar10"))


def test_several_data_sets_are_written_and_read() -> None:
    """JSON and back is the same comparison, and one of its variants alone keeps its data sets."""
    several = asked(targets={"val_accuracy": {"mnist": 0.9, "digits": 0.8}})
    assert Comparison.from_json(several.to_json()) == several
    assert several.only(["a"]).with_seeds(4).datasets == several.datasets
    assert json.loads(asked(data="digits").to_json())["data"] == Data("digits").to_dict()


def test_paths_are_counted_from_the_file(tmp_path: Path) -> None:
    """Every data set's path is found from the folder of the file that names it."""
    (tmp_path / "mine.py").write_text(
        "from mlplab import Comparison, Data, Training\n"
        "COMPARISON = Comparison(question='Which?', data=[Data('x.npz'), 'digits', Data('y.csv', target='z')],\n"
        "    base=Training(loss='mse', optimizer='sgd'), variants={'a': {}}, select='val_loss')\n"
    )
    found = loading.load_experiment(str(tmp_path / "mine.py"))
    assert isinstance(found, Comparison)
    assert [data.source for data in found.datasets] == [str(tmp_path / "x.npz"), "digits", str(tmp_path / "y.csv")]
    assert found.needs[2].name == "mine on y"


def test_what_is_trained_is_a_comparison_on_each() -> None:
    """Known before anything runs: one on each data set; nothing where a search is to tell a variant first."""
    several = asked()
    assert loading.known(several) == several.needs
    assert loading.known(several.on("digits")) == (several.on("digits"),)
    waiting = asked(variants={"a": {}, "b": WinnerOf("random_search")})
    assert loading.known(waiting) == ()
    told = waiting.with_choices("b", {"epochs": 5})
    assert [one.variants for one in told.needs] == [told.variants] * 2


# ---------------------------------------------------------------------------------------------- aggregates as rliable's

# The scores of rliable's own tests (google-research/rliable, tests/rliable/metrics_test.py), which publish their
# mean, median, interquartile mean and probability of improvement: 1.5, 1.5, 1.5; 2, 2, 2; 1/3. Runs by tasks.
X = np.array([[1, 2], [2, 2], [1, 1], [2, 1]])
Y = np.array([[1, 1], [2, 2], [3, 3]])
# Those of its tests/library_test.py.
A = np.arange(80).reshape(5, 16)
B = np.flip(A, axis=0)
# Accuracies with ties, drawn once: np.round(default_rng(7).normal([.6, .8, .95], .05, (6, 3)), 2), and the next with
# [.55, .82, .9].
C = np.array([[60, 81, 94], [56, 78, 90], [60, 87, 93], [57, 82, 97], [61, 75, 95], [63, 73, 93]]) / 100
D = np.array([[45, 76, 81], [54, 76, 91], [56, 81, 77], [52, 82, 91], [47, 80, 85], [51, 87, 86]]) / 100


@pytest.mark.parametrize(
    ("scores", "mean", "median", "iqm"),
    [
        (X, 1.5, 1.5, 1.5),  # published
        (Y, 2.0, 2.0, 2.0),  # published
        # By rliable 1.2.0: metrics.aggregate_mean, aggregate_median, aggregate_iqm.
        (A, 39.5, 39.5, 39.5),
        (C, 0.7749999999999999, 0.7933333333333333, 0.783),
        (D, 0.721111111111111, 0.8033333333333333, 0.748),
    ],
)
def test_aggregates_are_rliables(scores: np.ndarray, mean: float, median: float, iqm: float) -> None:
    """Mean, median and interquartile mean equal rliable's to 1e-6 on its published scores, and on others."""
    assert aggregate_mean(scores) == pytest.approx(mean, abs=1e-6)
    assert aggregate_median(scores) == pytest.approx(median, abs=1e-6)
    assert interquartile_mean(scores) == pytest.approx(iqm, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (X, Y, 1 / 3),  # published
        # By rliable 1.2.0: metrics.probability_of_improvement.
        (Y, X, 0.6666666666666666),
        (A, B, 0.5),
        (C, D, 0.7870370370370371),
        (D, C, 0.21296296296296294),
        (C, C, 0.5),
    ],
)
def test_the_probability_of_improvement_is_rliables(x: np.ndarray, y: np.ndarray, expected: float) -> None:
    """It equals rliable's to 1e-6 on its published scores, and on others, with ties and unlike numbers of seeds."""
    assert probability_of_improvement(x, y) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "ends"),
    [
        # By rliable 1.2.0: library.get_interval_estimates, 50,000 repetitions, after np.random.seed(0).
        (A, [[34.7, 33.3, 32.55], [44.5, 45.8, 46.5]]),
        (C, [[0.7600000, 0.7583333, 0.76], [0.79, 0.8316667, 0.806]]),
    ],
)
def test_intervals_are_rliables(scores: np.ndarray, ends: list[list[float]]) -> None:
    """The stratified bootstrap's intervals equal rliable's within what the draws of both leave to chance."""
    for aggregate, low, high in zip((aggregate_mean, aggregate_median, interquartile_mean), *ends, strict=True):
        estimate = bootstrap(lambda counts, of=aggregate: of(scores, counts), *scores.shape)
        within = 0.04 * (high - low)
        assert (estimate.low, estimate.high) == (pytest.approx(low, abs=within), pytest.approx(high, abs=within))


@given(
    st.integers(2, 6).flatmap(
        lambda seeds: st.lists(st.lists(st.integers(0, 4), min_size=seeds, max_size=seeds), min_size=1, max_size=4)
    ),
    st.data(),
)
def test_counts_say_how_often_a_score_is_there(columns: list[list[int]], draw: st.DataObject) -> None:
    """An aggregate by counts is that of the scores written out as often as they count."""
    scores = np.array(columns, float).T
    seeds, tasks = scores.shape
    drawn = draw.draw(st.lists(st.integers(0, seeds - 1), min_size=seeds * tasks, max_size=seeds * tasks))
    index = np.array(drawn).reshape(tasks, seeds)
    counts = np.array([np.bincount(one, minlength=seeds) for one in index])
    written = np.array([scores[one, task] for task, one in enumerate(index)]).T
    for aggregate in (aggregate_mean, aggregate_median, interquartile_mean):
        assert aggregate(scores, counts) == pytest.approx(float(aggregate(written)))
    other = scores[::-1]
    again = np.array([other[one, task] for task, one in enumerate(index)]).T
    by_counts = probability_of_improvement(scores, other, counts, counts)
    assert by_counts == pytest.approx(float(probability_of_improvement(written, again)))


def test_the_bootstrap_is_that_of_all_resamples() -> None:
    """Its interval is that of every resample there is, seeds drawn within each task, and comes out the same again."""
    scores = np.array([[0.0, 10.0], [1.0, 13.0], [5.0, 14.0]])
    draws = list(itertools.product(range(3), repeat=3))
    every = [np.mean([scores[list(a), 0], scores[list(b), 1]]) for a, b in itertools.product(draws, draws)]
    estimate = bootstrap(lambda counts: aggregate_mean(scores, counts), 3, 2)
    assert estimate.value == pytest.approx(scores.mean())
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.1)
    assert estimate == bootstrap(lambda counts: aggregate_mean(scores, counts), 3, 2)


def test_the_bootstrap_in_parts_is_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all resamples fit into memory at once, they are the same ones."""
    whole = bootstrap(lambda counts: interquartile_mean(C, counts), *C.shape)
    monkeypatch.setattr(aggregates, "AT_ONCE", 18 * 1_234)
    assert bootstrap(lambda counts: interquartile_mean(C, counts), *C.shape) == whole


def test_one_seed_has_no_interval() -> None:
    """With one seed there is a value and no interval, with none nothing."""
    one = bootstrap(lambda counts: aggregate_mean(C[:1], counts), 1, 3)
    assert one.value == pytest.approx(C[0].mean())
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(bootstrap(lambda counts: aggregate_mean(C[:0], counts), 0, 3).value)


@pytest.mark.slow
def test_how_the_intervals_hold_up() -> None:
    """The coverage that `bootstrap`'s docstring states, of itself and of Student's interval, is what samples show."""
    generator = np.random.default_rng(5)
    for seeds, stated in ((3, 80.0), (10, 91.5)):
        held = []
        for _ in range(1_000):
            apart = generator.normal(0, [1.0, 0.3, 2.0], (seeds, 3))
            estimate = bootstrap(lambda counts, of=apart: aggregate_mean(of, counts), seeds, 3)
            _, low, high = mean_interval(apart.mean(axis=1))
            held.append((estimate.low <= 0 <= estimate.high, low <= 0 <= high))
        resampled, student = 100 * np.mean(held, axis=0)
        assert resampled == pytest.approx(stated, abs=4)
        assert student == pytest.approx(95, abs=2.5)


# ----------------------------------------------------------------------------------------------- AlgoPerf's profiles

# Steps to the target on AlgoPerf's nine workloads, and the score of each submission, as published by
# mlcommons/submissions_algorithms (artifacts/leaderboard_v2/time_to_targets_steps.csv and scores_steps.csv).
WORKLOADS = """
8371 10206 44503 inf inf 67706 inf 27247 112742          0.5258136924803595
inf 7518 58199 inf inf inf inf 24948 112372              0.31986531986531946
inf 10645 59524 inf inf inf inf 33386 109080             0.2732884399551064
inf 8801 40724 inf 151926 inf inf inf inf                0.31986531986531946
7716 inf 39220 inf inf inf inf 7711 97224                0.4326599326599318
8286 9924 58784 inf 152461 inf inf inf inf               0.40404040404040326
9145 6648 47039 inf inf inf inf 20879 118600             0.45454545454545503
inf 9220 53029 inf inf inf inf 32738 inf                 0.19528619528619492
10346 10599 inf inf inf inf 90588 15853 133517           0.4461279461279469
inf 7160 57242 inf 175889 inf inf 27341 122198           0.4090909090909087
9005 8750 68640 inf 164206 inf inf 27457 inf             0.41245791245791213
7951 12431 inf inf inf 83184 78669 28449 73222           0.5252525252525259
inf 9342 61209 inf inf inf inf inf inf                   0.18630751964085265
inf 10140 59550 inf inf inf inf inf inf                  0.1829405162738493
"""


def test_profiles_are_algoperfs() -> None:
    """From AlgoPerf's published times come its published scores: by its rule to 1e-9, and by the exact integral, which
    its rule approximates, within half of that rule's step."""
    table = np.array([[float(cell) for cell in line.split()] for line in WORKLOADS.strip().splitlines()])
    times, published = table[:, :-1], table[:, -1]
    grid = np.linspace(1, 4, 100)
    for ratios, score in zip(performance_ratios(times), published, strict=True):
        by_its_rule = np.trapezoid([profile(ratios, tau) for tau in grid], grid) / 3
        assert by_its_rule == pytest.approx(score, abs=1e-9)
        assert profile_score(ratios) == pytest.approx(score, abs=0.5 * (grid[1] - grid[0]) / 3)


def test_a_profile_worked_by_hand() -> None:
    """Three variants on four tasks: ratios, profiles and scores are what a pencil gives."""
    #                 task 1  task 2  task 3  task 4, whose target nobody reaches
    times = np.array([[10.0, 30.0, INF, INF], [20.0, 10.0, 8.0, INF], [50.0, 15.0, 8.0, INF]])
    # The fastest take 10, 10 and 8; each time over that of the fastest:
    expected = [[1.0, 3.0, INF, INF], [2.0, 1.0, 1.0, INF], [5.0, 1.5, 1.0, INF]]
    ratios = performance_ratios(times)
    assert ratios.tolist() == expected
    # The first has 1 of 4 tasks from 1 on, and 2 of 4 from 3 on.
    assert [profile(ratios[0], tau) for tau in (1, 2.99, 3, 4)] == [0.25, 0.25, 0.5, 0.5]
    # From 1 to 4, its tasks are in the profile for 3 and 1; (3 + 1) / 4 tasks / 3 = 1/3. The second's for 2, 3 and 3:
    # 8 / 12. The third's, of which 5 lies beyond, for 2.5 and 3: 5.5 / 12.
    assert [profile_score(one) for one in ratios] == pytest.approx([1 / 3, 8 / 12, 5.5 / 12])


def test_a_reference_is_itself() -> None:
    """A variant that is the fastest on every task has the score 1, one that reaches no target 0."""
    ratios = performance_ratios(np.array([[1.0, 2.0], [INF, INF]]))
    assert [profile_score(one) for one in ratios] == [1.0, 0.0]


# ------------------------------------------------------------------------------------------------- over the data sets


def result(comparison: Comparison, variant: str, seed: int, value: float, **changes: Any) -> Result:
    """A training of two epochs with `value` of both metrics at its best epoch, the second."""
    (of,) = (one for one in comparison.resolved() if one.name == variant)
    history = {
        "loss": [1.0, 0.5],
        "accuracy": [0.1, 0.9],
        "val_loss": [2.0, value],
        "val_accuracy": [0.0, value],
        "train_eval_loss": [1.0, 0.4],
        "train_eval_accuracy": [0.1, 0.95],
        "train_seconds": [1.0, 2.0 + seed / 10],
    }
    return Result(variant=of, seed=seed, **{"history": history, "best_epoch": 2, "steps_per_epoch": 10, **changes})


def recorded(comparison: Comparison, values: dict[str, dict[str, list[float]]]) -> list[Record]:
    """Records of a comparison on its data sets: name of one -> variant -> a value for each seed, NaN for a failure."""
    found = []
    for one, data in zip(comparison.needs, comparison.datasets, strict=True):
        trained = [
            result(one, variant, seed, value, **({"status": FAILED} if math.isnan(value) else {}))
            for variant, each in values[data.label].items()
            for seed, value in zip(comparison.each_seed, each, strict=True)
        ]
        verdicts = judge(measures(one, trained), one.against)
        found.append(
            Record(experiment=one, data=data.label, run_id=f"run of {data.label}", results=trained, verdicts=verdicts)
        )
    return found


VALUES = {
    "mnist": {"a": [0.90, 0.91, 0.93, 0.90], "b": [0.95, 0.95, 0.97, 0.96]},
    "digits": {"a": [0.80, 0.80, 0.82, 0.84], "b": [0.81, 0.83, 0.81, 0.85]},
}


def across(values: dict[str, dict[str, list[float]]] = VALUES, **changes: Any) -> Across:
    """What holds over two data sets with four seeds."""
    comparison = asked(**{"seeds": (1, 2, 3, 4), **changes})
    return Across(comparison, recorded(comparison, values))


def test_a_verdict_over_all_is_on_the_seeds_means() -> None:
    """It is Student's of each seed's mean difference over the data sets, in words that say over how many."""
    over = across()
    verdict = next(one for one in over.verdicts() if one.measure == "val_accuracy")
    apart = np.mean([np.subtract(VALUES[data]["b"], VALUES[data]["a"]) for data in VALUES], axis=0)
    assert (verdict.a, verdict.b, verdict.seeds) == ("b", "a", 4)
    assert (verdict.difference, verdict.low, verdict.high) == pytest.approx(mean_interval(apart))
    assert verdict.sentence.startswith("Over 2 data sets: b beats a by 2.9 points of validation accuracy [")


def test_verdicts_over_all_are_corrected_together() -> None:
    """Holm's correction is over all verdicts over all data sets, and not over those on each."""
    over = across(measures=("val_loss",))
    verdicts = over.verdicts()
    assert [one.measure for one in verdicts] == ["val_accuracy", "val_loss", "gap", "train_seconds"]
    assert {one.verdicts for one in verdicts} == {4}


@settings(max_examples=20)
@given(st.lists(st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4), min_size=2, max_size=2))
def test_data_sets_that_agree_are_one_data_set(values: list[list[float]]) -> None:
    """Where both data sets have the same numbers, what holds over both is what the verdicts on one say."""
    same = dict(zip("ab", values, strict=True))
    over = across({"mnist": same, "digits": same})
    for one, alone in zip(over.verdicts(), over.records[0].verdicts, strict=True):
        assert (one.measure, one.decision) == (alone.measure, alone.decision)
        for name in ("difference", "low", "high", "p_holm"):
            assert getattr(one, name) == pytest.approx(getattr(alone, name), abs=1e-12, nan_ok=True)


def test_resampling_stands_beside_the_verdict() -> None:
    """Beside a verdict stand the same difference, the probability of improvement and each data set's own interval."""
    over = across()
    (verdict, *_), (one, *_) = over.verdicts(), over.improvements(over.verdicts())
    assert (one.a, one.b, one.measure, one.seeds) == (verdict.a, verdict.b, verdict.measure, 4)
    assert one.difference.value == pytest.approx(verdict.difference)
    assert verdict.low < one.difference.low < one.difference.value < one.difference.high < verdict.high
    x, y = (np.array([VALUES[data][variant] for data in VALUES]).T for variant in "ba")
    assert one.probability.value == pytest.approx(float(probability_of_improvement(x, y)))
    assert 0.5 < one.probability.low < one.probability.value <= one.probability.high
    for estimate, record in zip(one.each, over.records, strict=True):
        (alone,) = (verdict for verdict in record.verdicts if verdict.measure == "val_accuracy")
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((alone.difference, alone.low, alone.high))


def test_less_is_better_where_it_is() -> None:
    """Of a metric whose small values are better, the probability is that of a smaller one."""
    over = across(select="val_loss", base=training(loss="mse"))
    (verdict, *_), (one, *_) = over.verdicts(), over.improvements(over.verdicts())
    assert (verdict.measure, verdict.unit, verdict.a) == ("val_loss", "times", "a")
    assert one.probability.value > 0.5
    # Errors are compared as ratios, and their mean is the geometric one.
    ratios = [np.divide(VALUES[data]["a"], VALUES[data]["b"]) for data in VALUES]
    expected = math.exp(float(np.mean(np.log(ratios))))
    assert verdict.difference == pytest.approx(expected)
    assert one.difference.value == pytest.approx(expected)
    assert over.ranked() == ["a", "b"]
    assert over.cells()[-1][0] == "all 2, geometric mean"


def test_a_seed_that_failed_somewhere_counts_nowhere() -> None:
    """A seed without a value on one data set is left out over all, and said to be; the other data set keeps it."""
    values = {**VALUES, "digits": {"a": [NAN, 0.80, 0.82, 0.84], "b": VALUES["digits"]["b"]}}
    over = across(values)
    (verdict, *_), (one, *_) = over.verdicts(), over.improvements(over.verdicts())
    assert (verdict.seeds, verdict.dropped, one.seeds) == (3, 1, 3)
    assert one.difference.value == pytest.approx(verdict.difference)
    mnist, digits = one.each
    assert mnist.value == pytest.approx(np.mean(np.subtract(VALUES["mnist"]["b"], VALUES["mnist"]["a"])))
    assert digits.value == pytest.approx(np.mean([0.03, -0.01, 0.01]))
    assert {found.variant: found.seeds for found in over.aggregates()} == {"a": 3, "b": 4}


def test_aggregates_are_of_the_scores() -> None:
    """Every variant has the mean, the median and the interquartile mean of its values on all data sets."""
    over = across()
    (found,) = (one for one in over.aggregates() if one.variant == "b")
    scores = np.array([VALUES[data]["b"] for data in VALUES]).T
    assert found.mean.value == pytest.approx(scores.mean())
    assert found.median.value == pytest.approx(float(np.median(scores.mean(axis=0))))
    assert found.interquartile_mean.value == pytest.approx(np.sort(scores.ravel())[2:6].mean())
    assert found.mean.low < found.mean.value < found.mean.high


def test_seeds_added_until_it_is_clear_are_looked_at_over_all() -> None:
    """Where each data set took as many seeds as it needed, a look over all is where all have as many: what is decided
    there is judged at that look's level, of the seeds up to it, and resampled over the same."""
    comparison = asked(seeds=Until(most=6, look_every=2))
    noise = np.random.default_rng(0).normal(0, 0.004, (2, 2, 6)).round(4)
    values = {
        data: {variant: list(0.8 + 0.05 * (variant == "b") + noise[i, j]) for j, variant in enumerate("ab")}
        for i, data in enumerate(VALUES)
    }
    trained = {"mnist": 4, "digits": 6}
    records = recorded(comparison, values)
    for record in records:
        record.results = [one for one in record.results if one.seed < comparison.each_seed[0] + trained[record.data]]
        record.looks = tuple(range(2, trained[record.data] + 1, 2))
    over = Across(comparison, records)
    (verdict, *_), (one, *_) = over.verdicts(), over.improvements(over.verdicts())
    assert (verdict.a, verdict.seeds, verdict.dropped, verdict.looks) == ("b", 4, 0, 2)
    apart = np.mean([np.subtract(values[data]["b"], values[data]["a"])[:4] for data in values], axis=0)
    assert verdict.difference == pytest.approx(apart.mean())
    (fixed, *_) = judge([replace(over.measures[0], values={k: v[:4] for k, v in over.measures[0].values.items()})], "a")
    assert verdict.low < fixed.low
    assert fixed.high < verdict.high
    assert one.seeds == 4
    assert one.difference.value == pytest.approx(verdict.difference)


def test_trainings_that_do_not_pair_have_no_verdict_over_all() -> None:
    """Where the batch order differs on one data set, nothing is judged over all, and it is said on which."""
    comparison = asked(seeds=(1, 2))
    records = recorded(comparison, {data: {"a": [0.5, 0.6], "b": [0.7, 0.8]} for data in VALUES})
    records[1].results[0].order, records[1].results[2].order = "one", "other"
    over = Across(comparison, records)
    assert over.verdicts() == []
    assert over.sentences([])[0].startswith("No verdicts over all: on digits: 'a' and 'b' with seed 1 do not pair")


def test_the_table_has_a_row_for_each_data_set_and_one_over_all() -> None:
    """Its last row is the mean over data sets and seeds with Student's interval over the seeds' means."""
    header, *rows = across().cells()
    assert header == ["data set", "a", "b"]
    assert [row[0] for row in rows] == ["mnist", "digits", "all 2, mean"]
    for place, variant in enumerate("ab", start=1):
        for row, data in zip(rows, VALUES, strict=False):
            mean, low, high = mean_interval(VALUES[data][variant])
            assert row[place] == f"{mean:.4f} ± {(high - low) / 2:.4f}"
        mean, low, high = mean_interval(np.mean([VALUES[data][variant] for data in VALUES], axis=0))
        assert rows[-1][place] == f"{mean:.4f} ± {(high - low) / 2:.4f}"


def test_a_target_may_be_another_on_each_data_set() -> None:
    """The time to it is measured against each data set's own value, and the profile is over the data sets."""
    over = across(targets={"val_accuracy": {"mnist": 0.94, "digits": 0.8}})
    a, b = over.profiles()
    # On digits both get there in the second epoch; on mnist half of b's seeds do, and none of a's.
    assert (a.after, b.after) == ((INF, 2.0), (2.0, 2.0))
    assert (a.score, b.score) == (0.5, 1.0)
    assert (a.reached, b.reached) == ("1 of 2", "2 of 2")
    _, row, _ = over.profile_cells([a, b])
    assert row == ["a", "val_accuracy ≥ 0.94, 0.8", "not by half", "2 epochs", "1 of 2", "0.500"]


def test_what_is_said_over_all_ends_with_what_it_is_not() -> None:
    """The last sentence says that intervals are over seeds on these data sets, and with one seed nothing is decided."""
    over = across()
    says = over.sentences(over.verdicts())
    assert says[-1].endswith("intervals are over seeds, not over data sets, and 2 data sets say little about others.")
    assert "decide nothing" in says[-2]
    one = across({data: {"a": [0.5], "b": [0.6]} for data in VALUES}, seeds=(1,))
    assert one.answer(one.verdicts()).startswith("Over the 2 data sets: One seed cannot tell")
    assert len(one.sentences(one.verdicts())) == 1


def test_a_record_over_several_data_sets_is_read_again() -> None:
    """JSON and back keeps the records on each data set with their runs, and the verdicts over all."""
    over = across()
    record = Record(experiment=over.comparison, data="mnist, digits", verdicts=over.verdicts(), records=over.records)
    again = Record.from_json(record.to_json(), over.comparison, "run")
    assert [one.run_id for one in again.records] == ["run of mnist", "run of digits"]
    assert [one.experiment for one in again.records] == list(over.comparison.needs)
    says = Across(over.comparison, again.records).to_dict(again.verdicts)
    assert json.dumps(says) == json.dumps(over.to_dict(record.verdicts))  # which has NaN equal to itself
    assert not record.failed
    over.records[0].results[0].status = FAILED
    assert record.failed


def test_data_sets_that_turn_out_equal_are_refused() -> None:
    """Where one stands in for another, or two files hold the same, they are no two data sets."""
    with pytest.raises(UsageError, match="mnist and digits are the same examples here"):
        check_distinct(asked(), lambda data: load("digits"))


# ------------------------------------------------------------------------------------------------- run, and on record


def small() -> Comparison:
    """The example on two of its data sets, with two variants, seeds and epochs."""
    found = loading.load_experiment(str(EXAMPLE))
    assert isinstance(found, Comparison)
    few = replace(found, data=found.datasets[1:], targets={"val_accuracy": {"wine": 0.5, "breast_cancer": 0.7}})
    return few.only(["16 units", "64 units"]).with_seeds(2).with_base(epochs=2)


@dataclass
class Done:
    """What a comparison on several data sets left in a store, twice, and one on one of them alone."""

    client: mlflow.MlflowClient
    comparison: Comparison
    first: Record
    again: comparing.ComparedAcross
    trained: list[int]
    alone: Record

    def files(self, record: Record) -> set[str]:
        """The artifacts of a record's run."""
        return {file.path for file in self.client.list_artifacts(record.run_id)}

    def read(self, record: Record, path: str) -> str:
        """A text artifact of a record's run."""
        return Path(self.client.download_artifacts(record.run_id, path)).read_text()

    def below(self, record: Record) -> list[Any]:
        """The runs below a record's run, those of seeds too, by what they are."""
        found = []
        for one in self.client.search_runs(["0"], f"tags.mlflow.parentRunId = '{record.run_id}'"):
            found.append(one)
            found += self.client.search_runs(["0"], f"tags.mlflow.parentRunId = '{one.info.run_id}'")
        return sorted(found, key=lambda one: (one.data.tags["mlplab.variant"], one.info.run_name))


@pytest.fixture(scope="module")
def done(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder = tmp_path_factory.mktemp("several")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    comparison = small()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        client, trained = mlflow.MlflowClient(), []
        first = perform(comparison, load)
        trained.append(len(client.search_runs(["0"], "tags.`mlplab.kind` = 'training'")))
        again = comparing.compare(comparison)
        assert isinstance(again, comparing.ComparedAcross)
        trained.append(len(client.search_runs(["0"], "tags.`mlplab.kind` = 'training'")))
        alone = perform(replace(comparison.on("wine"), name="alone"), load)
        yield Done(client, comparison, first, again, trained, alone)
    mlflow.set_tracking_uri(None)


def perform(comparison: Comparison, loader: Any, watch: Any = None, **options: Any) -> Record:
    """Runs a comparison in a lab of its own."""
    lab = run.Lab(loader, Screen(watch or Quiet()), loading.Options(), **options)  # type: ignore[arg-type]
    return lab.run(comparison)[0]


def test_each_data_set_has_what_it_has_alone(done: Done) -> None:
    """Below the run there is one for each data set, with the runs, files, metrics and last weights that a comparison on
    that data set alone leaves."""
    wine = done.first.records[0]
    assert done.client.get_run(wine.run_id).data.tags["mlflow.parentRunId"] == done.first.run_id
    assert done.files(wine) == done.files(done.alone)
    ours, theirs = done.below(wine), done.below(done.alone)
    assert len(ours) == len(theirs) == 2 + 4
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine.info.run_name, mine.info.status) == (its.info.run_name, "FINISHED")
        assert mine.data.params == its.data.params
        assert mine.data.metrics.keys() == its.data.metrics.keys()
        assert mine.data.metrics.get("best_val_accuracy") == its.data.metrics.get("best_val_accuracy")
        assert mine.data.tags.get("weights.end") == its.data.tags.get("weights.end")
    named = [(one.measure, one.difference) for one in wine.verdicts if one.measure != "train_seconds"]
    assert named == [(one.measure, one.difference) for one in done.alone.verdicts if one.measure != "train_seconds"]


def test_the_run_over_all_says_what_holds_over_all(done: Done) -> None:
    """Its table, verdicts, figures and description are of all data sets, each named, and its winner leads over all."""
    over = Across(done.comparison, done.first.records)
    stored = done.client.get_run(done.first.run_id)
    expected = {"comparison.csv", "comparison.json", "comparison.md", "record.json", "verdicts.json"}
    expected |= {"differences_val_accuracy.png", "differences_gap.png", "profile_val_accuracy.png"}
    assert expected <= done.files(done.first)
    said = json.loads(done.read(done.first, "verdicts.json"))
    assert said["data"] == [
        {"name": name, "run_id": record.run_id}
        for name, record in zip(("wine", "breast_cancer"), done.first.records, strict=True)
    ]
    assert [one["sentence"] for one in said["verdicts"]] == [one.sentence for one in done.first.verdicts]
    rows = list(csv.DictReader(done.read(done.first, "comparison.csv").splitlines()))
    assert [row["data"] for row in rows] == ["wine"] * 4 + ["breast_cancer"] * 4
    note, tags = stored.data.tags["mlflow.note.content"], stored.data.tags
    texts = [done.comparison.question, "all 2, mean", over.caution, "AlgoPerf score"]
    assert all(text in note for text in [*texts, *(one.run_id for one in done.first.records)])
    assert tags["winner"] == over.ranked()[0]
    assert stored.data.metrics["best_val_accuracy"] == over.mean_over(tags["winner"])[0]
    assert len(stored.inputs.dataset_inputs) == 2 * 3
    assert len([name for name in tags if not name.startswith("mlflow.")]) <= 16


def test_the_page_has_what_holds_over_all_and_on_each(done: Done) -> None:
    """The run's page has the answer over all data sets, and each one's own with its table and its page's place."""
    text, own = done.read(done.first, "comparison.html"), done.read(done.first.records[0], "comparison.html")
    over = Across(done.comparison, done.first.records)
    assert "comparison_page_error.txt" not in done.files(done.first) | done.files(done.first.records[0])
    assert page_parts.escaped(over.answer(done.first.verdicts)) in text
    for one, record in zip(done.comparison.needs, done.first.records, strict=True):
        answer = page_parts.escaped(answer_of(one, record.results, record.verdicts))
        assert answer in text
        assert record.run_id in text
        assert all(page_parts.escaped(cell) in text for row in tables.to_cells(one, record.results) for cell in row)
    assert "On the test set" in own


def test_what_is_on_record_is_not_trained_again(done: Done) -> None:
    """Given again, the comparisons on each data set are found on record, and the same is said over all of them."""
    again = done.again.record
    assert done.trained == [8, 8]
    assert again.run_id != done.first.run_id
    assert [one.run_id for one in again.records] == [one.run_id for one in done.first.records]
    assert all(one.reused for one in again.records)
    says = [Across(done.comparison, one.records).to_dict(one.verdicts) for one in (done.first, again)]
    assert json.dumps(says[0]) == json.dumps(says[1])


def test_a_record_of_the_store_is_read_again(done: Done) -> None:
    """The run's record.json holds the records on each data set, with the store's names of their runs."""
    read = Record.from_json(done.read(done.first, "record.json"), done.comparison, done.first.run_id)
    assert [one.run_id for one in read.records] == [one.run_id for one in done.first.records]
    assert [one.data for one in read.records] == ["wine", "breast_cancer"]
    for one, was in zip(read.records, done.first.records, strict=True):
        assert [result.run_id for result in one.results] == [result.run_id for result in was.results]
        assert [result.end for result in one.results] == [result.end for result in was.results]


def test_one_of_the_data_sets_models_is_registered(done: Done) -> None:
    """Of several data sets no model can be registered, and it is said which can; the comparison on one is found."""
    with pytest.raises(UsageError, match="is on several data sets") as refused:
        choosing.data_of(comparison="several_datasets")
    assert "'several_datasets on wine'" in str(refused.value)
    winner = done.client.get_run(done.first.records[1].run_id).data.tags["winner.run_id"]
    assert f"several_datasets on breast_cancer: 64 units {winner}" in str(refused.value)
    assert choosing.data_of(comparison="several_datasets on wine") == done.comparison.datasets[0]
    assert choosing.data_of(run_id=winner) == done.comparison.datasets[1]


def test_a_notebook_gets_what_holds_over_all(done: Done, tmp_path: Path) -> None:
    """`compare` gives table, verdicts and figures over all data sets, and by `on` those of one with its best model."""
    compared = done.again
    assert compared.table == Across(done.comparison, done.first.records).cells()
    assert {"differences_val_accuracy", "profile_val_accuracy"} <= set(compared.figures)
    assert compared.sentences[0] in str(compared)
    assert "all 2, mean" in compared._repr_html_()
    assert compared.save_page(tmp_path / "page.html").read_text() == done.read(compared.record, "comparison.html")
    with pytest.raises(UsageError, match=r"on\('wine'\)\.best\(\), on\('breast_cancer'\)\.best\(\)"):
        compared.best()
    with pytest.raises(UsageError, match="'vine'; legal: wine, breast_cancer"):
        compared.on("vine")
    wine = compared.on("wine")
    x, y = wine.data.test.x, wine.data.test.y
    right = float((wine.best().predict(x, verbose=0).argmax(axis=1) == y.reshape(-1)).mean())
    assert right == pytest.approx(wine.winner.test["accuracy"])


def test_a_model_that_fits_not_all_data_names_the_one(store: mlflow.MlflowClient) -> None:
    """What is wrong with a model on one of the data sets is said before anything is trained, with the data set."""
    whole = small()
    narrow = replace(whole, base=whole.base.but({"loss": "categorical_crossentropy"}), targets={})
    with pytest.raises(UsageError, match=r"^on wine: variant '16 units' cannot train"):
        perform(narrow, load)
    assert store.search_runs(["0"]) == []


@pytest.mark.slow
def test_workers_leave_the_same(done: Done, store: mlflow.MlflowClient) -> None:
    """With two processes every data set's trainings end at the weights that one process ends at."""
    spread = perform(done.comparison, load, jobs=2)
    ends = [result.end for record in spread.records for result in record.results]
    assert ends == [result.end for record in done.first.records for result in record.results]
    assert [record.run_id for record in spread.records] != [record.run_id for record in done.first.records]


@pytest.mark.slow
def test_interrupted_it_goes_on(store: mlflow.MlflowClient) -> None:
    """Interrupted on the second data set, it goes on there when given again: the same run, the first as it was."""
    comparison = small()
    watch = InterruptedWhen(lambda result: result.variant.name == "64 units" and result.steps_per_epoch > 4)
    with pytest.raises(KeyboardInterrupt):
        perform(comparison, load, watch)
    (before,) = [run for run in store.search_runs(["0"]) if run.info.run_name.startswith("several_datasets ·")]
    again = Quiet()
    record = perform(comparison, load, again)
    assert record.run_id == before.info.run_id
    assert ("started", "16 units", 4) not in again.seen
    assert ("started", "64 units", 11) in again.seen
    assert {run.info.status for run in store.search_runs(["0"])} == {"FINISHED"}
    assert len(store.search_runs(["0"], "tags.`mlplab.kind` = 'training'")) == 8


@pytest.mark.slow
def test_the_example_is_answered(store: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    """By its command the example trains on three data sets, ends with what holds over all, and is registered on one."""
    assert command_line.main(["compare", str(EXAMPLE)]) == 0
    said = capsys.readouterr().out
    assert said.count(load_question()) == 1
    assert "all 3, mean" in said
    assert "3 data sets say little about others" in said
    trained = store.search_runs(["0"], "tags.`mlplab.kind` = 'training'")
    assert len(trained) == 3 * 3 * 3
    assert command_line.main(["register", "several_datasets on digits"]) == 0
    assert store.get_model_version_by_alias("several_datasets on digits", "champion").tags["dataset"] == "digits"
    assert command_line.main(["register", "several_datasets"]) == 2
    assert command_line.main(["replay", "--run-id", trained[0].info.run_id]) == 0
    assert "Equal to the bit" in capsys.readouterr().out


def load_question() -> str:
    """What the example asks."""
    return loading.load_experiment(str(EXAMPLE)).question
