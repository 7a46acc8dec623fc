"""What `mlplab.statistics` promises, in simulation and against independent computations."""

import itertools
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from mlplab import verdicts
from mlplab.statistics import ALPHA, exp, expected_best, holm, holm_levels, mean_interval, more_seeds, p_value
from mlplab.verdicts import BETTER, EQUIVALENT, ONE_SEED, UNDECIDED, Measure, Verdict, judge

# ------------------------------------------------------------------------------------------------------- simulation


WORDS = {
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "gap": "gap between training and validation accuracy",
    "train_seconds": "training time",
}


def drawn(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Differences whose true mean is 0."""
    rng = np.random.default_rng(1)
    if kind == "skewed":
        return scipy_stats.skewnorm.rvs(4, size=shape, random_state=rng) - scipy_stats.skewnorm.mean(4)
    if kind == "exponential":
        return rng.exponential(size=shape) - 1
    if kind == "lognormal":
        return rng.lognormal(size=shape) - math.exp(0.5)
    normal = rng.standard_normal(shape)
    # Accuracies on 10,000 images with a deviation of 0.04 points: whole steps of 0.01 points.
    return np.round(4 * normal) / 4 if kind == "rounded" else normal


def test_intervals_cover_what_they_say() -> None:
    """Of 95 % intervals as many hold the true mean as the docstring has it: 95 of normal and rounded differences'.

    For skewed ones fewer do, down to 82 of 100 for five lognormal values.
    """
    rows = re.findall(r"^ +(\w+) +(\d\d\.\d) +(\d\d\.\d) +(\d\d\.\d)\b", mean_interval.__doc__ or "", re.MULTILINE)
    said = {kind: [float(cover) for cover in covers] for kind, *covers in rows}
    assert list(said) == ["normal", "rounded", "skewed", "exponential", "lognormal"]
    for kind, covers in said.items():
        for seeds, cover in zip((5, 10, 30), covers, strict=True):
            _, low, high = mean_interval(drawn(kind, (seeds, 100_000)))
            assert 100 * np.mean((low <= 0) & (high >= 0)) == pytest.approx(cover, abs=0.4), (kind, seeds)
            assert kind not in ("normal", "rounded") or 93 <= cover <= 97


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
                words=WORDS[name],
                values=values,
                maximizes=maximizes,
                margin=0.0,
                relative=name == "train_seconds",
                unit="times" if name == "train_seconds" else "points",
            )
        )
    return measures


def test_equal_variants_are_rarely_called_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 comparisons of five equal variants in three measures at most 5 % have a wrong verdict in them."""
    monkeypatch.setattr(verdicts, "more_seeds", lambda *arguments: None)  # slow, and changes no decision
    rng = np.random.default_rng(2)
    wrong = sum(any(v.decision == BETTER for v in judge(suite(rng), "a")) for _ in range(1_000))
    assert 5 <= wrong <= 50


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("step", [0.00125, 0.005, 0.01])
def test_rounded_accuracies_of_equal_variants_are_rarely_called_better(
    seeds: int, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where few seeds' accuracies are whole images, so that all differences are often equal by chance."""
    monkeypatch.setattr(verdicts, "more_seeds", lambda *arguments: None)
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        values = np.round((1 + rng.normal(0, 0.01, seeds) + rng.normal(0, 0.005, (5, seeds))) / step) * step
        measure = Measure(
            name="val_accuracy",
            words="accuracy",
            values=dict(zip("abcde", values, strict=True)),
            maximizes=True,
            margin=0,
        )
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
        _, low, high = mean_interval(differences)
        decided += p_value(differences) < 0.05 if effect else -margin <= low and high <= margin
    assert 0.7 <= decided / 300 <= 0.95


# -------------------------------------------------------------------------------------- independent implementations


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm's correction by its definition: of all sets of hypotheses with this one, the largest Bonferroni p."""
    everyone = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everyone, size)]
    each = {s: min(1.0, len(s) * min(p_values[i] for i in s)) for s in sets}
    return [max(p for s, p in each.items() if i in s) for i in everyone]


p_lists = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.0125, 0.02, 0.03, 0.0625, 0.25, 1.0]), max_size=7)


@given(p_lists)
def test_holms_levels_decide_as_the_corrected_p_values_do(p_values: list[float]) -> None:
    """Each hypothesis' p is below its level exactly where its corrected p is below 5 %; levels are 5 % over 1 to m."""
    levels = holm_levels(p_values)
    for p, corrected, level in zip(p_values, holm(p_values), levels, strict=True):
        assert abs(corrected - ALPHA) < 1e-9 or (p < level) == (corrected < ALPHA)
        assert ALPHA / len(p_values) <= level <= ALPHA
    assert holm_levels([0.04, 0.001, 0.02, 0.9]) == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])


@given(p_lists)
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


ordinary = st.lists(st.floats(-1, 1).map(lambda value: round(value, 6)), min_size=2, max_size=12)


@given(ordinary, st.floats(0.5, 0.999))
def test_an_interval_is_students(values: list[float], level: float) -> None:
    """Mean and ends are those of SciPy's t-test, at every level, so no interval is wider than Student's."""
    expected = scipy_stats.ttest_1samp([*values, values[0] + 0.5], 0.0).confidence_interval(level)
    _, *ends = mean_interval([*values, values[0] + 0.5], level)
    assert ends == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_an_interval_of_five_differences_is_one_that_a_reader_believes() -> None:
    """Five differences from 11.7 to 19 points have an interval from about 11 to 18, not to 49.6."""
    mean, low, high = mean_interval([11.7, 15.1, 19.0, 13.2, 13.9])
    assert (mean, low, high) == (pytest.approx(14.58), pytest.approx(11.15, abs=0.01), pytest.approx(18.01, abs=0.01))
    assert 9 <= low < 11.7
    assert 17 < high <= 21


@given(ordinary)
def test_the_test_and_the_interval_are_one(values: list[float]) -> None:
    """p is below a level exactly where the interval at this level excludes 0, where the differences have a spread."""
    p = p_value(values)
    if np.ptp(values) > 0:
        for level in (0.001, 0.05, 0.3):
            _, low, high = mean_interval(values, 1 - level)
            assert abs(p - level) < 1e-9 or (p < level) == (low > 0 or high < 0)


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
    fields = {"words": WORDS.get(str(fields["name"]), ""), **fields}
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


def test_a_difference_that_no_float_holds_is_left_out() -> None:
    """Two finite values may be further apart than the largest float: such a pair has no difference, which is said."""
    with no_warning():
        verdict = one([1e308, 0.91, 0.93], [-1e308, 0.9, 0.9])
    assert (verdict.seeds, verdict.dropped, verdict.difference) == (2, 1, pytest.approx(0.02))
    assert "1 left out" in verdict.sentence


def test_times_are_compared_as_ratios() -> None:
    """The interval is that of the logarithms' differences, and equivalence is within a share."""
    times = {"name": "train_seconds", "maximizes": False, "margin": 0.05, "relative": True, "unit": "times"}
    base = np.linspace(10, 12, 10)
    verdict = one(base * 0.75 * (1 + NOISE), base, **times)
    _, low, high = mean_interval(np.log(0.75 * (1 + NOISE)))
    assert (verdict.low, verdict.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert verdict.sentence == "A takes 0.75 times the training time of B [0.75, 0.75] (10 seeds)."
    near = one(base * 1.02 * (1 + NOISE), base, **times)
    assert near.decision == EQUIVALENT
    assert near.sentence.startswith("B and A take the same training time within 5 %: ratio 0.98 [")


def test_errors_of_any_size_are_compared_as_ratios() -> None:
    """Of a metric whose unit says nothing, such as a squared error, the sentences speak of no time that it takes."""
    errors = {"name": "val_mse", "words": "validation mse", "maximizes": False, "margin": 0.01}
    errors |= {"relative": True, "unit": "times"}
    base = np.linspace(2800, 3000, 10)
    assert one(base * 0.75 * (1 + NOISE), base, **errors).sentence == (
        "A's validation mse is 0.75 times that of B [0.75, 0.75] (10 seeds)."
    )
    near = one(base * 0.998 * (1 + NOISE), base, **errors)
    assert near.decision == EQUIVALENT
    assert near.sentence.startswith("A and B have the same validation mse within 1 %: ratio 0.998 [")


def test_a_unit_of_ones_own_is_said() -> None:
    """Differences of a metric have its unit, and those of one without a unit have none."""
    base = np.linspace(0.4, 0.5, 10)
    r2 = one(base + 0.1 + NOISE, base, name="val_r2", words="validation r2", unit="")
    assert r2.sentence.startswith("A beats B by 0.1000 of validation r2 [")
    mm = one(base, base + 3 + NOISE, name="val_mae", words="validation mae", unit="mm", maximizes=False)
    assert mm.sentence.startswith("A's validation mae is 3.0000 mm smaller than B's [")


def test_the_faster_one_has_the_smaller_geometric_mean() -> None:
    """One very slow training does not make a variant the slower one where the ratios say otherwise."""
    times = {"name": "train_seconds", "maximizes": False, "margin": 0.05, "relative": True, "unit": "times"}
    verdict = one([1, 9, 1, 9], [4, 4.5, 4, 4.5], **times)
    assert verdict.a == "A"
    assert verdict.difference == pytest.approx(3 / math.sqrt(18))


def test_equal_differences_in_float32_are_equal() -> None:
    """Five of 180 examples are as many with each seed, though their shares in Keras' float32 differ by rounding."""

    def shares(*right: int) -> list[float]:
        return [float(np.float32(one / 180)) for one in right]

    a, b = shares(170, 163, 166), shares(165, 158, 161)
    assert len(set(np.subtract(a, b))) > 1
    verdict = one(a, b)
    assert (verdict.decision, verdict.p) == (UNDECIDED, 0.25)
    assert verdict.difference == pytest.approx(5 / 180)
    apart = one(shares(171, 163, 166), b)
    assert apart.low < apart.difference < apart.high


def test_equal_differences_of_few_seeds_decide_nothing() -> None:
    """Three seeds that all differ by the same are undecided: by chance they would in a quarter of the signs' draws."""
    verdict = one([0.98, 0.97, 0.96], [0.97, 0.96, 0.95])
    assert (verdict.decision, verdict.p, verdict.more_seeds) == (UNDECIDED, 0.25, 3)
    assert verdict.sentence == (
        "Undecided between A and B in validation accuracy: 1.00 points [1.00, 1.00] (3 seeds), but equal differences "
        "show no spread to judge by: so many have one sign by chance in 25 % of cases, and at most 5 % is allowed; "
        "about 3 more seeds would tell."
    )
    assert (verdict.low_corrected, verdict.high_corrected) == (-math.inf, math.inf)
    assert math.isnan(verdict.effect)
    six = one([0.98] * 6, [0.97] * 6)
    assert (six.decision, six.low_corrected) == (BETTER, six.low)


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
    measure = {"name": "val_accuracy", "words": "validation accuracy", "maximizes": True, "margin": 0.01}
    first = judge([Measure(values={"a": a, "b": b, "c": c}, **measure)], "a")  # type: ignore[arg-type]
    second = judge([Measure(values={"c": c, "b": b, "a": a}, **measure)], "a")  # type: ignore[arg-type]

    def told(verdicts: list[Verdict]) -> list[tuple[object, ...]]:
        return sorted(
            (tuple(sorted((v.a, v.b))), v.decision, abs(v.difference), v.p_holm) for v in verdicts if v.difference
        )

    assert told(first) == told(second)


def test_rounding_errors_do_not_widen_an_interval() -> None:
    """Differences that are equal but for the last digits count as equal."""
    exact = mean_interval([40.0, 40.0, 40.0, 40.0, 39.5])
    assert mean_interval([40 + 1e-14, 40.0, 40 - 1e-14, 40.0, 39.5]) == pytest.approx(exact, rel=1e-9)
    assert mean_interval([0.3 - 0.1, 0.2, 0.1 + 0.1, 0.2, 0.2]) == pytest.approx((0.2, 0.2, 0.2))
    assert p_value([0.3 - 0.1, 0.2, 0.1 + 0.1, 0.2, 0.2]) == 2**-4


def test_verdicts_are_plain_values() -> None:
    """A verdict is made of texts and numbers, for JSON."""
    assert all(isinstance(v, str | int | float | None) for v in asdict(one([0.9, 0.91], [0.8, 0.82])).values())


def test_an_effect_needs_three_seeds() -> None:
    """Cohen's d with Hedges' correction, which for two seeds would make 0 of every effect."""
    differences = np.array([0.01, 0.02, 0.06])
    expected = differences.mean() / differences.std(ddof=1) * (1 - 3 / 7)
    assert one(0.9 + differences, [0.9] * 3).effect == pytest.approx(expected)
    assert math.isnan(one([0.91, 0.92], [0.9, 0.9]).effect)


def test_an_interval_that_does_not_decide_is_shown_beside_the_one_that_does() -> None:
    """Where the 95 % interval alone excludes no difference, the sentence has the one after correction, and for what."""
    rng = np.random.default_rng(0)
    others = {f"v{place}": 0.899 + noise - noise.mean() for place, noise in enumerate(rng.normal(0, 0.01, (8, 5)))}
    a = np.array([0.004, 0.011, 0.006, 0.02, 0.003])
    measure = Measure(
        name="val_accuracy",
        words="validation accuracy",
        values={"B": [0.9] * 5, "A": 0.9 + a, **others},
        maximizes=True,
        margin=0.002,
    )
    verdicts = judge([measure], "B")
    (verdict,) = [v for v in verdicts if {v.a, v.b} == {"A", "B"}]
    assert verdict.low > 0
    assert (verdict.decision, verdict.verdicts) == (UNDECIDED, len(verdicts))
    level = 0.05 / sum(v.p >= verdict.p for v in verdicts)
    _, low, high = mean_interval(a, 1 - level)
    assert (verdict.low_corrected, verdict.high_corrected) == (pytest.approx(low), pytest.approx(high))
    _, *alone = (f"{100 * end:.2f}" for end in mean_interval(a))
    assert verdict.sentence == (
        f"Undecided between A and B in validation accuracy: 0.88 points [{alone[0]}, {alone[1]}] (5 seeds) by itself, "
        f"but [{100 * low:.2f}, {100 * high:.2f}] after correction for 9 verdicts; about {verdict.more_seeds} more "
        "seeds would tell."
    )
    assert alone[0] == "0.01"  # one decimal, which the width would have, would show it as 0


CAUTION = "the machine was busy with something else during 4 of 4 trainings, so times may be too long"


@pytest.mark.parametrize(
    ("times", "decision"), [([5, 5.1], BETTER), ([10.1, 9.9], EQUIVALENT), ([20, 9], UNDECIDED), ([5], ONE_SEED)]
)
def test_a_caution_ends_every_sentence(times: list[float], decision: str) -> None:
    """What must be known of a measure is said with every verdict on it, whatever that is."""
    fields = {"name": "train_seconds", "maximizes": False, "margin": 0.05, "relative": True, "unit": "times"}
    many = 10 // len(times) if len(times) > 1 else 1
    noise = 1 + NOISE[: many * len(times)]
    verdict = one(times * many * noise, [10.0] * len(noise), **fields, caution=CAUTION)
    assert (verdict.decision, verdict.caution) == (decision, CAUTION)
    assert verdict.sentence.endswith(f"; {CAUTION}.")
    assert "; the machine" not in one(times * many * noise, [10.0] * len(noise), **fields).sentence


# --------------------------------------------------------------------------------- every verdict, and every number


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


wide = st.floats(allow_subnormal=True) | st.sampled_from([0.0, 5e-324, 2.2e-308, -2.2e-308, 1e308, -1e308, 1.0])
anything = st.lists(wide, min_size=1, max_size=8)
FOUND = [0.0, 0.0, 0.0, 0.0, 2.2e-308]


@given(anything, st.floats(0, 1) | wide.filter(lambda value: 0 <= value < math.inf), st.floats(1e-6, 0.3))
@example(FOUND, 0.01, 0.05)
@example([1e308, -1e308, 1.7e308], 0.01, 0.05)
@example([5e-324, 1e-323], 0.0, 0.05)
def test_no_number_is_too_small_or_too_large_for_a_formula(values: list[float], margin: float, level: float) -> None:
    """Subnormal, huge, equal, infinite and missing differences raise and warn nothing, and the mean is inside.

    Where two are finite nothing is NaN; an end, a mean or a p that no float holds is infinite or 0.
    """
    finite = [value for value in values if math.isfinite(value)]
    with no_warning():
        mean, low, high = mean_interval(values, 1 - level)
        p, more = p_value(values), more_seeds(values, margin, level)
        best = expected_best(values)
        table = mean_interval(np.array([values, values[::-1]]).T)
    assert 0 <= p <= 1
    assert more is None or 1 <= more <= 1_000
    assert len(best) == len(finite)
    assert all(min(finite) <= value <= max(finite) for value in best)
    assert [end[0] for end in table] == pytest.approx(mean_interval(values), nan_ok=True)
    if len(finite) > 1:
        assert low <= mean <= high
    if finite:
        slack = 1e-9 * max(map(abs, finite))
        assert min(finite) - slack <= mean <= max(finite) + slack
    assert math.isnan(low) == math.isnan(high) == (len(finite) < 2)


@pytest.mark.parametrize("power", [-1070, -1022, -500, 500, 1000])
def test_the_scale_of_the_differences_does_not_matter(power: int) -> None:
    """Differences times a power of two have an interval as much larger, and the same p: also near the floats' ends."""
    values = np.array([3.0, 5.0, 1.0, 4.0, 6.0])
    scaled = np.ldexp(values, power)
    assert p_value(scaled) == p_value(values)
    assert more_seeds(scaled, float(np.ldexp(0.5, power)), 0.01) == more_seeds(values, 0.5, 0.01)
    exact = np.ldexp(np.array(mean_interval(values)), power)
    assert np.array(mean_interval(scaled)) == pytest.approx(exact, rel=0.1 if power == -1070 else 1e-12)


def test_a_number_beyond_all_floats_is_infinite() -> None:
    """The exponential of a mean of logarithms overflows to infinity without a word."""
    with no_warning():
        assert (exp(1_000.0), exp(-1_000.0), exp(0.0)) == (math.inf, 0.0, 1.0)


steps = st.integers(0, 8).map(lambda step: 0.9 + step / 100)
shares = st.floats(0.5, 1) | steps | st.sampled_from([0.96, 0.97, math.nan])
seconds = st.floats(0.5, 2) | st.sampled_from([1.0, 1.1, math.nan])


@st.composite
def measures(
    draw: st.DrawFn, of_shares: st.SearchStrategy[float], of_seconds: st.SearchStrategy[float]
) -> list[Measure]:
    """Any two measures of a comparison."""
    names, seeds = "abcd"[: draw(st.integers(2, 4))], draw(st.integers(1, 8))

    def table(values: st.SearchStrategy[float], spread: float) -> dict[str, list[float]]:
        # Variants that differ for certain, too, and values in which nothing but the variant differs.
        found = {name: draw(st.lists(values, min_size=seeds, max_size=seeds)) for name in names}
        if draw(st.booleans()):
            found = {name: [found["a"][i] + spread * shift for i in range(seeds)] for shift, name in enumerate(names)}
        return found

    points = {"maximizes": draw(st.booleans()), "margin": draw(st.sampled_from([0.0, 0.002, 0.02]))}
    name = "val_accuracy" if points["maximizes"] else "gap"
    times = {"maximizes": False, "margin": draw(st.sampled_from([0.0, 0.05])), "relative": True, "unit": "times"}
    return [
        Measure(
            name=name, words=WORDS[name], values=table(of_shares, draw(st.sampled_from([0.0, 0.004, 0.01]))), **points
        ),  # type: ignore[arg-type]
        Measure(name="train_seconds", words="training time", values=table(of_seconds, 0.1), caution=CAUTION, **times),  # type: ignore[arg-type]
    ]


def shown_intervals(sentence: str) -> list[list[float]]:
    return [[float(end) for end in found.split(", ")] for found in re.findall(r"\[([^]]+)\]", sentence)]


@given(measures(shares, seconds))
def test_no_verdict_contradicts_the_interval_that_it_shows(compared: list[Measure]) -> None:
    """Better is where the corrected interval excludes no difference, equivalent where the 95 % one is in the margin.

    As the sentence shows them, too; and where the 95 % interval alone excludes no difference, it says why that does not
    decide. The corrected interval is what Holm's corrected p says.
    """
    verdicts = judge(compared, "a")
    for verdict in verdicts:
        relative = verdict.measure == "train_seconds"
        none = 1 if relative else 0
        ends = (verdict.low, verdict.high)
        corrected = (verdict.low_corrected, verdict.high_corrected)
        assert verdict.verdicts == len(verdicts)
        assert verdict.caution == (CAUTION if relative else "")
        if verdict.seeds < 2:
            assert verdict.decision == (ONE_SEED if verdict.seeds else UNDECIDED)
            assert all(map(math.isnan, (*ends, *corrected)))
            continue
        margins = (1 / (1 + verdict.margin), 1 + verdict.margin) if relative else (-verdict.margin, verdict.margin)
        alone, decides = (end[0] > none or end[1] < none for end in (ends, corrected))
        equivalent = margins[0] <= ends[0] and ends[1] <= margins[1]
        assert corrected[0] <= ends[0] <= verdict.difference <= ends[1] <= corrected[1]
        assert (verdict.decision == EQUIVALENT) == equivalent
        assert (verdict.decision == BETTER) == (decides and not equivalent)
        assert abs(verdict.p_holm - ALPHA) < 1e-9 or decides == (verdict.p_holm < ALPHA)
        shown = shown_intervals(verdict.sentence)
        explained = "after correction" in verdict.sentence or "equal differences" in verdict.sentence
        if verdict.decision == UNDECIDED:
            assert explained == alone
            assert (verdict.more_seeds or 1) > 0
        else:
            assert not explained
            assert verdict.more_seeds is None
        if verdict.decision == BETTER:
            assert shown[0][0] > none or shown[0][1] < none
        if verdict.decision == UNDECIDED and "equal differences" not in verdict.sentence:
            assert shown[-1][0] <= none <= shown[-1][1]
            assert len(shown) == 1 + alone


@given(measures(wide, wide))
def test_values_of_any_size_get_a_verdict(compared: list[Measure]) -> None:
    """Subnormal, huge, infinite and missing values raise and warn nothing; two finite differences have all numbers."""
    with no_warning():
        verdicts = judge(compared, "a")
    for verdict in verdicts:
        if verdict.seeds > 1:
            numbers = [verdict.low_corrected, verdict.low, verdict.difference, verdict.high, verdict.high_corrected]
            assert not any(map(math.isnan, [*numbers, verdict.mean_a, verdict.mean_b, verdict.p_holm]))
            assert numbers == sorted(numbers)
        assert verdict.sentence.endswith(".")
        assert "nan" not in verdict.sentence
