"""Seeds added until the verdicts are clear: levels against published tables, errors by simulation, and the runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import multivariate_normal

from benchmarks.looks import UNTIL, covered, suites, until_decided, wrong
from mlplab.sequential import Looks, boundaries, spent
from mlplab.statistics import ALPHA, predictive
from mlplab.verdicts import BETTER, EQUIVALENT, UNDECIDED, Measure, judge, judge_looks

FIVE = np.arange(1, 6) / 5


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Lan & DeMets (1983) and Reboussin et al. (2000), five looks, two-sided 5 %.
        (4 * ndtr(-ndtri(1 - 0.05 / 4) / np.sqrt(FIVE)), [4.877, 3.357, 2.680, 2.290, 2.031]),
        (0.05 * np.log(1 + (np.e - 1) * FIVE), [2.438, 2.427, 2.410, 2.397, 2.386]),
    ],
    ids=["O'Brien-Fleming", "Pocock"],
)
def test_boundaries_are_those_of_published_tables(spending: np.ndarray, published: list[float]) -> None:
    """Spending as Lan & DeMets do gives their boundaries for five looks, to three digits after the point."""
    np.testing.assert_allclose(boundaries(spending[None], FIVE)[0], published, atol=6e-4)


@pytest.mark.parametrize(
    "published",
    # Pocock (1977) and O'Brien & Fleming (1979), as in Jennison & Turnbull (2000), tables 2.1 and 2.3.
    [np.full(5, 2.413), 2.040 / np.sqrt(FIVE)],
    ids=["Pocock", "O'Brien-Fleming"],
)
def test_classical_boundaries_spend_five_per_cent(published: np.ndarray) -> None:
    """Pocock's and O'Brien & Fleming's own boundaries come back from what they spend, which is 5 % in all."""
    covariance = np.sqrt(np.minimum.outer(FIVE, FIVE) / np.maximum.outer(FIVE, FIVE))
    inside = [
        multivariate_normal(cov=covariance[:k, :k], seed=1).cdf(published[:k], lower_limit=-published[:k])
        for k in range(1, 6)
    ]
    assert 1 - inside[-1] == pytest.approx(0.05, abs=2e-4)
    np.testing.assert_allclose(boundaries(1 - np.array(inside)[None], FIVE)[0], published, atol=5e-3)


@settings(max_examples=20)
@given(
    looks=st.lists(st.integers(2, 200), min_size=1, max_size=8, unique=True).map(sorted),
    p=st.floats(1e-6, 0.2),
    look=st.integers(0, 7),
)
def test_a_look_rejects_at_its_level(looks: list[int], p: float, look: int) -> None:
    """A look rejects at a level of the whole exactly where its p is below the level of the look: one is the other's
    inverse, and neither depends on the looks after it."""
    look = min(look, len(looks) - 1)
    every, so_far = Looks(tuple(looks)), Looks(tuple(looks[: look + 1]))
    whole = every.p_value(p, look)
    assert so_far.p_value(p, look) == pytest.approx(whole, rel=1e-3)
    if whole < 1:
        assert every.level(whole, look) == pytest.approx(p, rel=1e-6)
        assert every.level(min(1.0, 1.05 * whole), look) > p > every.level(0.95 * whole, look)


def test_no_number_of_looks_spends_more_than_the_level() -> None:
    """However many looks there are, what is spent of a level grows and stays below it."""
    shares = spent(np.array([2, 5, 30, 1_000, 10**9]))
    assert (np.diff(shares) > 0).all()
    assert shares[-1] < 1


def test_equal_variants_are_rarely_called_better_however_often_one_looks() -> None:
    """In 10,000 suites of 3 and of 5 equal variants, of heavy-tailed and of rounded values, at most 5 % have a wrong
    'better' at any of six looks, were no suite ever stopped for want of hope; without the levels of looks more do."""
    random, many, looks = np.random.default_rng(3), 10_000, UNTIL.looks
    sequence = Looks(looks)
    for variants in (3, 5):
        for kind in ("t", "rounded"):
            shape = (many, looks[-1], variants)
            values = random.standard_t(4, shape) if kind == "t" else np.round(2 * random.standard_normal(shape)) / 2
            errors, naive = np.zeros(many, bool), np.zeros(many, bool)
            settled = np.ones((many, variants - 1))  # the sequential p of what was rejected, 1 of what is open
            for look, n in enumerate(looks):
                seen = values[:, :n]
                order = seen.mean(axis=1).argsort(axis=1)
                best, second = (np.take_along_axis(seen, order[:, None, -k, None], 2)[:, :, 0] for k in (1, 2))
                against = seen[:, :, 1:] - seen[:, :, :1]
                differences = np.concatenate([against, (best - second)[:, :, None]], axis=2)
                deviation = differences.std(axis=1, ddof=1)
                with np.errstate(divide="ignore", invalid="ignore"):
                    t = np.abs(differences.mean(axis=1)) / deviation * np.sqrt(n)
                p = np.where(deviation > 1e-9, 2 * stdtr(n - 1.0, -t), 1.0)
                whole = sequence.p_value(p, look)
                whole[(order[:, -2:] == 0).any(axis=1), -1] = 1.0  # the baseline is one of the best two
                whole[:, :-1] = np.where(settled < 1, settled, whole[:, :-1])
                # Holm's least p decides whether any is rejected; of the others what the rejection of some lets in.
                ranks = whole.argsort(axis=1).argsort(axis=1)
                kept = np.where(whole >= ALPHA / (variants - ranks), ranks, variants).min(axis=1)
                rejected = ranks < kept[:, None]
                settled = np.where(rejected[:, :-1], whole[:, :-1], settled)
                errors |= rejected.any(axis=1)
                naive |= p.min(axis=1) < ALPHA / variants
            assert errors.mean() <= 0.05, (variants, kind)
            assert naive.mean() > 0.07, (variants, kind)


@pytest.mark.parametrize("kind", ["t, 4 degrees", "rounded"])
def test_what_is_simulated_is_what_is_judged(kind: str) -> None:
    """Suites that stop by themselves err in no more than 5 %, and their intervals hold the truth in 95 %."""
    held = []
    errors = 0
    for values in suites(120, kind, [0.0, 0.0, 0.0]):
        verdicts, _ = until_decided(values)
        errors += wrong(verdicts, [0.0] * 3)
        held += [covered(verdict, [0.0] * 3) for verdict in verdicts]
    assert errors / 120 <= 0.05
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize(("effect", "least"), [(1.0, 0.4), (2.0, 0.6)])
@pytest.mark.parametrize("variants", [2, 3, 5])
def test_clear_differences_need_fewer_seeds(variants: int, effect: float, least: float) -> None:
    """Variants that are one deviation of a difference apart take 40 % fewer trainings than 30 seeds of each, those that
    are two apart 60 % fewer, and are nearly always told apart."""
    effects = [effect * place for place in range(variants)]
    done = [until_decided(values) for values in suites(60, "normal", effects)]
    assert sum(took for _, took in done) <= (1 - least) * 60 * variants * UNTIL.most
    assert np.mean([all(one.decision == BETTER for one in verdicts) for verdicts, _ in done]) > 0.8


def values(*columns: list[float]) -> dict[str, list[float]]:
    return {f"v{place}": column for place, column in enumerate(columns)}


def measure(columns: dict[str, list[float]], **changes: object) -> Measure:
    given = {"name": "val_accuracy", "words": "validation accuracy", "maximizes": True, "margin": 0.002, **changes}
    return Measure(values=columns, **given)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_what_a_look_decides_stays_decided(seed: int, variants: int) -> None:
    """More seeds change no verdict that a look before them has decided, and the verdict at a look is that of `judge`
    but for the levels."""
    random = np.random.default_rng(seed)
    columns = values(*(random.standard_normal((variants, 30)) * 0.01 + 0.01 * np.arange(variants)[:, None]).tolist())
    names, before = list(columns), {}
    for seeds in UNTIL.looks:
        found = judge_looks([measure(columns)], "v0", UNTIL.looks, dict.fromkeys(names, seeds))
        alone = {
            frozenset((one.a, one.b)): one for one in judge([measure({n: c[:seeds] for n, c in columns.items()})], "v0")
        }
        for one in found:
            pair = frozenset((one.a, one.b))
            if pair in before:
                assert one == before[pair]
            else:
                fixed = alone[pair]
                assert (one.difference, one.effect, one.seeds) == (fixed.difference, fixed.effect, seeds)
                assert one.low < fixed.low
                assert one.high > fixed.high
                assert one.p >= fixed.p
                assert (one.p_holm < ALPHA) == (one.low_corrected > 0 or one.high_corrected < 0)
        before |= {frozenset((o.a, o.b)): o for o in found if o.decision in (BETTER, EQUIVALENT)}


def test_a_variant_in_no_open_pair_is_judged_by_the_seeds_it_has() -> None:
    """Where one of a pair was trained no further, its verdict is of the last look that had both."""
    random = np.random.default_rng(0)
    columns = values(*(random.standard_normal((3, 15)) * 0.01 + [[0.5], [0.9], [0.905]]).tolist())
    found = judge_looks([measure(columns)], "v0", (5, 10, 15), {"v0": 5, "v1": 15, "v2": 15})
    assert {frozenset((one.a, one.b)): (one.seeds, one.looks) for one in found} == {
        frozenset(("v0", "v1")): (5, 1),
        frozenset(("v0", "v2")): (5, 1),
        frozenset(("v1", "v2")): (15, 3),
    }


def test_no_seeds_are_spent_on_what_they_cannot_decide() -> None:
    """A pair whose difference is small against its spread is closed before the last look; one that may yet be decided
    is open; and at the last look none is."""
    random = np.random.default_rng(1)
    noise = (random.standard_normal(30) * 0.02).tolist()
    hopeless = values([0.9] * 30, [0.9 + one - np.mean(noise[:10]) for one in noise])
    (one,) = judge_looks([measure(hopeless)], "v0", (10, 20, 30), {"v0": 10, "v1": 10})
    assert (one.decision, one.open) == (UNDECIDED, False)
    assert one.reach < 0.1
    promising = values([0.9] * 30, [0.91 + one for one in noise])
    (one,) = judge_looks([measure(promising)], "v0", (5, 20, 30), {"v0": 5, "v1": 5})
    assert (one.decision, one.open) == (UNDECIDED, True)
    (one,) = judge_looks([measure(hopeless)], "v0", (10, 20, 30), {"v0": 30, "v1": 30})
    assert not one.open


def test_the_chance_to_decide_is_the_share_of_futures_that_do() -> None:
    """The predictive chance equals the share of simulated futures, drawn around the mean so far, that decide."""
    random = np.random.default_rng(2)
    seen = random.standard_normal(10) * 0.01 + 0.004
    mean, deviation = seen.mean(), seen.std(ddof=1)
    chance = predictive(seen, 20, 0.006, 0.02, 0.03)
    final = mean + random.standard_t(9, 200_000) * deviation * np.sqrt(1 / 10 - 1 / 30)
    error = deviation / np.sqrt(30)
    better = np.abs(final) > -stdtrit(29.0, 0.01) * error
    equal = np.abs(final) < 0.006 + stdtrit(29.0, 0.015) * error
    assert chance == pytest.approx((better | equal).mean(), abs=5e-3)
