"""What `mlplab.statistics` promises, in simulation and against independent computations."""

import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mlplab import statistics
from mlplab.statistics import (
    BETTER,
    EQUIVALENT,
    ONE_SEED,
    UNDECIDED,
    Measure,
    Verdict,
    expected_best,
    holm,
    interval,
    judge,
    mean_interval,
    more_seeds,
    p_value,
    restricted_mean,
    survival,
)

# ------------------------------------------------------------------------------------------------------- simulation


def drawn(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Differences whose true mean is 0."""
    rng = np.random.default_rng(1)
    if kind == "skewed":
        return scipy_stats.skewnorm.rvs(4, size=shape, random_state=rng) - scipy_stats.skewnorm.mean(4)
    normal = rng.standard_normal(shape)
    # Accuracies on 10,000 images with a deviation of 0.04 points: whole steps of 0.01 points.
    return np.round(4 * normal) / 4 if kind == "rounded" else normal


@pytest.mark.parametrize("kind", ["normal", "skewed", "rounded"])
@pytest.mark.parametrize(
    ("seeds", "samples"),
    [
        *((seeds, 1_000) for seeds in (5, 10, 30)),
        *(pytest.param(seeds, 4_000, marks=pytest.mark.long) for seeds in (5, 6, 8, 10, 15, 20, 30)),
    ],
)
def test_intervals_cover_what_they_say(kind: str, seeds: int, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 95 % intervals 93 to 97 % hold the true mean, from 5 seeds to 30, also for skewed and rounded differences."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1_000)
    ends = np.array([interval(differences) for differences in drawn(kind, (samples, seeds))])
    covered = float(np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)))
    assert 0.93 <= covered <= 0.97, covered


def suite(rng: np.random.Generator, better: float = 0.0, seeds: int = 10) -> list[Measure]:
    """Three measures of five variants whose seeds share an effect; of the last variant all are `better` higher."""
    measures = []
    for name, maximizes in (("val_accuracy", True), ("gap", False), ("train_seconds", False)):
        shared = rng.normal(0, 0.01, seeds)
        values = {variant: 1 + shared + rng.normal(0, 0.005, seeds) for variant in "abcde"}
        values["e"] = values["e"] + better
        measures.append(
            Measure(
                name=name,
                values=values,
                maximizes=maximizes,
                margin=0.0,
                relative=name == "train_seconds",
                unit="times" if name == "train_seconds" else "points",
            )
        )
    return measures


@pytest.mark.long
def test_equal_variants_are_rarely_called_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 comparisons of five equal variants in three measures at most 5 % have a wrong verdict in them."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    monkeypatch.setattr(statistics, "more_seeds", lambda *arguments: None)  # slow, and changes no decision
    rng = np.random.default_rng(2)
    wrong = sum(any(v.decision == BETTER for v in judge(suite(rng), "a")) for _ in range(1_000))
    assert 5 <= wrong <= 50


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("step", [0.00125, 0.005, 0.01])
def test_rounded_accuracies_of_equal_variants_are_rarely_called_better(
    seeds: int, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where few seeds' accuracies are whole images, so that all differences are often equal by chance."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)
    monkeypatch.setattr(statistics, "more_seeds", lambda *arguments: None)
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        values = np.round((1 + rng.normal(0, 0.01, seeds) + rng.normal(0, 0.005, (5, seeds))) / step) * step
        measure = Measure(name="val_accuracy", values=dict(zip("abcde", values, strict=True)), maximizes=True, margin=0)
        wrong += any(v.decision == BETTER for v in judge([measure], "a"))
    assert wrong <= 18  # 5 % of 200, and 2.6 standard errors


def test_a_real_difference_is_found() -> None:
    """A variant that is two deviations better is called so nearly always, against the baseline and the second best."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(50):
        verdicts = [v for v in judge(suite(rng, better=0.02), "a") if v.measure == "val_accuracy"]
        found += all(v.decision == BETTER and v.a == "e" for v in verdicts if "e" in (v.a, v.b))
    assert found >= 45


@pytest.mark.parametrize(("effect", "margin"), [(0.5, 0.0), (0.0, 1.0)])
def test_as_many_more_seeds_as_were_asked_for_mostly_decide(effect: float, margin: float) -> None:
    """With the number of seeds that a sample of the true mean and deviation asks for, 70 to 95 % are decided."""
    sample = np.array([effect - 1, effect, effect + 1])
    more = more_seeds(sample, margin, 0.05)
    assert more is not None
    rng = np.random.default_rng(4)
    decided = 0
    for _ in range(300):
        differences = rng.normal(effect, sample.std(ddof=1), 3 + more)
        low, high = interval(differences)
        decided += p_value(differences) < 0.05 if effect else -margin <= low and high <= margin
    assert 0.7 <= decided / 300 <= 0.95


# -------------------------------------------------------------------------------------- independent implementations


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm's correction by its definition: of all sets of hypotheses with this one, the largest Bonferroni p."""
    everyone = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everyone, size)]
    each = {s: min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets}
    return [max(p for s, p in each.items() if i in s) for i in everyone]


@given(st.lists(st.floats(0, 1), max_size=7))
def test_holms_correction_is_closed_testing(p_values: list[float]) -> None:
    """The corrected p-values are those of the closed test of all intersections."""
    np.testing.assert_allclose(holm(p_values), closed_testing(p_values), rtol=1e-12)


def test_the_test_is_students() -> None:
    """p is that of t = mean / (deviation / sqrt(n)) with n - 1 degrees of freedom, by the textbook's table."""
    # Student (1908): extra hours of sleep by two soporifics, ten patients: t = 4.062, p = 0.00283.
    sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert p_value(sleep) == pytest.approx(0.00283289, rel=1e-5)
    assert p_value([0.0, 0.0, 0.0]) == 1.0
    assert p_value([0.5, 0.5, 0.5]) == 0.25


FREIREICH = {
    "times": [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35],
    "reached": [True] * 9 + [False] * 12,
}
"""Weeks of remission under 6-mercaptopurine (Freireich et al. 1963), in every textbook on survival."""


def test_the_kaplan_meier_estimate_is_the_textbooks() -> None:
    """Steps and shares are those published for Freireich's 21 patients."""
    times, share, censored = survival(**FREIREICH)
    assert times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    np.testing.assert_allclose(share, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4)
    assert censored.tolist() == [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]


def test_the_restricted_mean_is_the_area_under_it() -> None:
    """Its value for Freireich's patients up to week 35 is the published 23.29, with standard error 2.83."""
    mean, low, high = restricted_mean(**FREIREICH, horizon=35)
    assert mean == pytest.approx(23.287, abs=1e-3)
    half = scipy_stats.t.ppf(0.975, 20) * 2.827 * math.sqrt(9 / 8)
    assert low == pytest.approx(mean - half, abs=0.02)
    assert high == pytest.approx(mean + half, abs=0.02)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=9, unique=True))
def test_without_censoring_it_is_the_mean_and_its_usual_interval(times: list[float]) -> None:
    """Where all arrived, the restricted mean is the mean, and the interval Student's within what is possible."""
    mean, low, high = restricted_mean(times, [True] * len(times), max(times))
    expected = mean_interval(times)
    assert mean == pytest.approx(expected[0])
    assert low == pytest.approx(max(0.0, expected[1]), rel=1e-6, abs=1e-9)
    assert high == pytest.approx(min(max(times), expected[2]), rel=1e-6)


def test_what_did_not_arrive_counts_as_later_than_its_end() -> None:
    """A seed censored at 2 pulls the mean above that of an arrival at 2; times beyond what is known are refused."""
    as_if = restricted_mean([1, 2, 4], [True, True, True], 4)[0]
    mean, *_ = restricted_mean([1, 2, 4], [True, False, True], 4)
    assert as_if == pytest.approx(7 / 3)
    assert mean == pytest.approx(1 + (2 / 3) * 3)
    assert restricted_mean([1, 2], [False, False], 1.5)[0] == 1.5
    with pytest.raises(ValueError, match=r"horizon is 5 s.*known after 2 s"):
        restricted_mean([1, 2], [True, False], 5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_expected_best_is_the_mean_over_all_draws(scores: list[float]) -> None:
    """For each k it is the mean of the maximum over all sets of k candidates."""
    every = [np.mean([max(draw) for draw in itertools.combinations(scores, k)]) for k in range(1, len(scores) + 1)]
    np.testing.assert_allclose(expected_best(scores), every, rtol=1e-9, atol=1e-12)


def test_the_expected_best_of_many_candidates_is_finite() -> None:
    """A search of 2,000 candidates has an expected best that grows to the best of all."""
    scores = np.linspace(0, 1, 2_000)
    expected = expected_best(scores)
    assert expected[0] == pytest.approx(0.5)
    assert expected[-1] == pytest.approx(1.0)
    assert (np.diff(expected) > -1e-9).all()


def test_bands_leave_out_what_is_missing() -> None:
    """At each epoch the mean and interval are those of the seeds that have a value; one alone has no interval."""
    mean, low, high = mean_interval([[1.0, 1.0, 5.0], [3.0, math.nan, math.nan]])
    assert mean.tolist() == [2.0, 1.0, 5.0]
    half = 12.706204736432095 * math.sqrt(2) / math.sqrt(2)
    assert (low[0], high[0]) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert np.isnan(low[1:]).all()
    assert np.isnan(high[1:]).all()


# ---------------------------------------------------------------------------------------------------------- verdicts


def one(a: list[float], b: list[float], **changes: object) -> Verdict:
    """The verdict on two variants, the second the baseline."""
    fields = {"name": "val_accuracy", "maximizes": True, "margin": 0.002, **changes}
    (verdict,) = judge([Measure(values={"A": a, "B": b}, **fields)], "B")  # type: ignore[arg-type]
    return verdict


NOISE = np.array([0.0, 0.0004, -0.0003, 0.0002, -0.0004, 0.0001, 0.0003, -0.0002, 0.0, -0.0001])


def test_a_clear_difference_is_said_in_points() -> None:
    """The sentence has the size, the interval and the number of seeds."""
    base = np.linspace(0.96, 0.97, 10)
    verdict = one(base + 0.011 + NOISE, base)
    assert verdict.decision == BETTER
    assert (verdict.a, verdict.b, verdict.seeds, verdict.probability) == ("A", "B", 10, 1.0)
    assert verdict.difference == pytest.approx(0.011)
    span = f"[{100 * verdict.low:.2f}, {100 * verdict.high:.2f}]"
    assert verdict.sentence == f"A beats B by 1.10 points of validation accuracy {span} (10 seeds)."
    # The same where the baseline is the better one.
    other = one(base, base + 0.011 + NOISE)
    assert (other.a, other.b, other.difference) == ("B", "A", pytest.approx(0.011))


def test_a_difference_within_the_margin_is_equivalence() -> None:
    """Though it is significant: the whole interval lies within what the spec calls practically none."""
    base = np.linspace(0.96, 0.97, 10)
    verdict = one(base + 0.001 + NOISE, base)
    assert verdict.p_holm < 0.05
    assert verdict.decision == EQUIVALENT
    assert verdict.sentence.startswith("A and B are equivalent within 0.2 points of validation accuracy: 0.10 [")
    assert "equivalent within 1 point of" in one(base + 0.001 + NOISE, base, margin=0.01).sentence
    same = one(base, base)
    assert (same.decision, same.difference, same.low, same.high) == (EQUIVALENT, 0.0, 0.0, 0.0)


def test_what_is_undecided_says_how_many_seeds_would_tell() -> None:
    """The number stands in the verdict and in the sentence; where it is beyond all measure, that is said."""
    base = np.linspace(0.96, 0.97, 10)
    verdict = one(base + 0.003 + 20 * NOISE, base)
    assert verdict.decision == UNDECIDED
    assert verdict.more_seeds is not None
    assert f"about {verdict.more_seeds} more seeds would tell" in verdict.sentence
    never = one(base + 0.002 + 100 * NOISE, base)
    assert never.more_seeds is None
    assert "more than 1,000 more seeds would tell" in never.sentence


def test_one_seed_cannot_tell() -> None:
    """A single pair gives no interval, no test and a sentence that says so."""
    verdict = one([0.98], [0.96])
    assert verdict.decision == ONE_SEED
    assert math.isnan(verdict.low)
    assert verdict.sentence.startswith("One seed cannot tell A from B in validation accuracy (A is 2.00 points better)")


def test_a_pair_without_a_value_is_left_out_and_said() -> None:
    """A seed of which one training has no value does not count, and the sentence says how many do not."""
    verdict = one([0.98, 0.981, 0.979, math.nan], [0.96, 0.96, 0.961, 0.96])
    assert (verdict.seeds, verdict.dropped) == (3, 1)
    assert "(3 seeds, 1 left out for want of a value)" in verdict.sentence
    assert "No seed has a value" in one([math.nan], [0.9]).sentence


def test_times_are_compared_as_ratios() -> None:
    """The interval is that of the logarithms' differences, and equivalence is within a share."""
    times = {"name": "train_seconds", "maximizes": False, "margin": 0.05, "relative": True, "unit": "times"}
    base = np.linspace(10, 12, 10)
    verdict = one(base * 0.75 * (1 + NOISE), base, **times)
    low, high = interval(np.log(0.75 * (1 + NOISE)))
    assert (verdict.low, verdict.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert verdict.sentence == "A takes 0.75 times the training time of B [0.75, 0.75] (10 seeds)."
    near = one(base * 1.02 * (1 + NOISE), base, **times)
    assert near.decision == EQUIVALENT
    assert near.sentence.startswith("B and A take the same training time within 5 %: ratio 0.98 [")


def test_the_faster_one_has_the_smaller_geometric_mean() -> None:
    """One very slow training does not make a variant the slower one where the ratios say otherwise."""
    times = {"name": "train_seconds", "maximizes": False, "margin": 0.05, "relative": True, "unit": "times"}
    verdict = one([1, 9, 1, 9], [4, 4.5, 4, 4.5], **times)
    assert verdict.a == "A"
    assert verdict.difference == pytest.approx(3 / math.sqrt(18))


def test_equal_differences_of_few_seeds_decide_nothing() -> None:
    """Three seeds that all differ by the same are undecided: by chance they would in a quarter of the signs' draws."""
    verdict = one([0.98, 0.97, 0.96], [0.97, 0.96, 0.95])
    assert (verdict.decision, verdict.p, verdict.more_seeds) == (UNDECIDED, 0.25, 3)


def test_a_smaller_gap_and_a_smaller_loss_are_better() -> None:
    """The variant with less is named first, and the sentence says by how much it is smaller."""
    base = np.linspace(0.06, 0.07, 10)
    verdict = one(base, base + 0.032 + NOISE, name="gap", maximizes=False)
    assert (verdict.a, verdict.decision) == ("A", BETTER)
    assert verdict.sentence.startswith(
        "A's gap between training and validation accuracy is 3.20 points smaller than B's [3."
    )
    loss = one(base, base + 0.5 + NOISE, name="val_loss", maximizes=False, unit="nats")
    assert loss.sentence.startswith("A's validation loss is 0.5000 nats smaller than B's [0.49")


values = st.lists(st.floats(0.5, 1), min_size=4, max_size=4)


@given(values, values, values)
def test_the_order_of_the_variants_does_not_matter(a: list[float], b: list[float], c: list[float]) -> None:
    """The same variants in another order get the same verdicts, but for which of two equal ones is named first."""
    measure = {"name": "val_accuracy", "maximizes": True, "margin": 0.01}
    first = judge([Measure(values={"a": a, "b": b, "c": c}, **measure)], "a")  # type: ignore[arg-type]
    second = judge([Measure(values={"c": c, "b": b, "a": a}, **measure)], "a")  # type: ignore[arg-type]

    def told(verdicts: list[Verdict]) -> list[tuple[object, ...]]:
        return sorted(
            (tuple(sorted((v.a, v.b))), v.decision, abs(v.difference), v.p_holm) for v in verdicts if v.difference
        )

    assert told(first) == told(second)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12))
def test_an_interval_holds_the_mean_and_is_the_same_each_time(differences: list[float]) -> None:
    """Equal differences give equal intervals, around their mean."""
    low, high = interval(differences)
    mean = float(np.mean(differences))
    assert low <= mean + 1e-9
    assert high >= mean - 1e-9
    assert interval(differences) == (low, high)


def test_rounding_errors_do_not_widen_an_interval() -> None:
    """Differences that are equal but for the last digits count as equal, in the sample and in its resamples."""
    exact = interval([40.0, 40.0, 40.0, 40.0, 39.5])
    assert interval([40 + 1e-14, 40.0, 40 - 1e-14, 40.0, 39.5]) == pytest.approx(exact, rel=1e-9)
    low, high = interval([0.3 - 0.1, 0.2, 0.1 + 0.1, 0.2, 0.2])
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.2))


def test_verdicts_are_plain_values() -> None:
    """A verdict is made of texts and numbers, for JSON."""
    assert all(isinstance(v, str | int | float | None) for v in asdict(one([0.9, 0.91], [0.8, 0.82])).values())
