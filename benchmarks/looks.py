"""What looking costs and saves: errors, coverage and trainings of comparisons that stop when the verdicts are clear.

Run:   python benchmarks/looks.py [suites]
Time:  about half an hour for 10,000 suites on one core.

Nothing is trained: the verdicts are drawn on simulated values of a metric, seed by seed, by `judge_looks` itself.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from mlplab.seeds import Until
from mlplab.sequential import boundaries, spent
from mlplab.verdicts import BETTER, Measure, Verdict, judge_looks

UNTIL = Until(most=30, look_every=5)
MARGIN = 0.2
"""Of equivalence, in standard deviations of a difference."""


def until_decided(values: np.ndarray, until: Until = UNTIL, margin: float = MARGIN) -> tuple[list[Verdict], int]:
    """The verdicts on values of shape (seeds, variants), and the trainings they took, as `run_comparison` goes on."""
    names = [f"v{place}" for place in range(values.shape[1])]
    columns = dict(zip(names, values.T.tolist(), strict=True))
    measure = Measure(name="m", words="m", values=columns, maximizes=True, margin=margin, unit="")
    trained, verdicts, wanted = dict.fromkeys(names, 0), [], set(names)
    for seeds in until.looks:
        trained |= dict.fromkeys(wanted, seeds)
        verdicts = judge_looks([measure], names[0], until.looks, trained)
        wanted = {name for verdict in verdicts if verdict.open for name in (verdict.a, verdict.b)}
        if not wanted:
            break
    return verdicts, sum(trained.values())


def normal(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal; a difference of two has deviation 1."""
    return random.standard_normal(shape) / np.sqrt(2)


def heavy(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Student's t of 4 degrees of freedom, as a metric with a bad seed now and then."""
    return random.standard_t(4, shape) / np.sqrt(2) / np.sqrt(2)


def rounded(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """In steps of half a deviation, as the accuracy on a few hundred images."""
    return np.round(2 * normal(random, shape)) / 2


KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": normal,
    "t, 4 degrees": heavy,
    "rounded": rounded,
}


def suites(many: int, kind: str, effects: list[float], most: int = UNTIL.most) -> Iterator[np.ndarray]:
    """Values of shape (seeds, variants): each variant is better than the first by its effect."""
    random = np.random.default_rng([many, len(effects), list(KINDS).index(kind)])
    for _ in range(many):
        yield KINDS[kind](random, (most, len(effects))) + effects


def wrong(verdicts: list[Verdict], effects: list[float]) -> bool:
    """Whether a verdict calls one of two equal variants better, or the worse of two."""
    of = {f"v{place}": effect for place, effect in enumerate(effects)}
    return any(verdict.decision == BETTER and of[verdict.a] <= of[verdict.b] for verdict in verdicts)


def covered(verdict: Verdict, effects: list[float]) -> bool:
    """Whether a verdict's interval holds the true difference."""
    of = {f"v{place}": effect for place, effect in enumerate(effects)}
    return verdict.low <= of[verdict.a] - of[verdict.b] <= verdict.high


def ways_to_spend() -> None:
    """Trainings and power of one pair by ways to spend 5 %, and by a confidence sequence, which is looked at always."""
    looks = np.array(UNTIL.looks, float)
    share = looks / UNTIL.most
    ways = {
        "n / (n + 10), nine tenths (ours)": spent(looks),
        "n / (n + 5)": looks / (looks + 5),
        "n / (n + 20)": looks / (looks + 20),
        "1 - exp(-n / 15)": 1 - np.exp(-looks / 15),
        "Pocock, 30 at most": np.log(1 + (np.e - 1) * share),
        "O'Brien-Fleming, 30 at most": 4 * ndtr(-ndtri(1 - 0.05 / 4) / np.sqrt(share)) / 0.05,
    }
    random = np.random.default_rng(0)
    base = random.standard_normal((20_000, UNTIL.most))
    effects = (0.0, 0.6, 1.0, 2.0)
    print("\nWays to spend 5 %, one pair, looked at every 5 of at most 30 seeds: decided (%), and trainings saved (%)")
    print(f"{'':34}" + "".join(f"{f'effect {effect:g}':>18}" for effect in effects))
    for name, shares in [*ways.items(), ("confidence sequence (mixture t)", None)]:
        cells = []
        for effect in effects:
            over, decided = np.full(len(base), UNTIL.most), np.zeros(len(base), bool)
            for look, n in enumerate(UNTIL.looks):
                x = base[:, :n] + effect
                t = x.mean(axis=1) / x.std(axis=1, ddof=1) * np.sqrt(n)
                if shares is None:
                    # Lai (1976), Wang & Ramdas (2024): the ratio of marginal likelihoods of t, effects ~ N(0, 1).
                    ratio = (1 + t**2 / (n - 1)) / (1 + t**2 / (n - 1) / (1 + n))
                    now = ratio ** (n / 2) / np.sqrt(1 + n) >= 1 / 0.05
                else:
                    level = 2 * ndtr(-boundaries(0.05 * shares[None, : look + 1], looks[: look + 1])[0, -1])
                    now = 2 * stdtr(n - 1.0, -np.abs(t)) < level
                over[now & ~decided] = n
                decided |= now
            cells.append(f"{100 * decided.mean():.1f}, {100 * (1 - over.mean() / UNTIL.most):.0f}")
        print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells))


def main(many: int) -> None:
    """Prints the tables."""
    ways_to_spend()
    print(
        f"\n{many:,} suites without any difference, at most 30 seeds: suites with a wrong 'better', intervals that hold"
    )
    for kind in KINDS:
        for variants in (2, 3, 5):
            errors, held, of, trainings = 0, 0, 0, 0
            effects = [0.0] * variants
            for values in suites(many, kind, effects):
                verdicts, took = until_decided(values)
                errors += wrong(verdicts, effects)
                held += sum(covered(verdict, effects) for verdict in verdicts)
                of, trainings = of + len(verdicts), trainings + took
            saved = 1 - trainings / (many * variants * UNTIL.most)
            print(f"{kind:14} {variants} variants: {errors / many:7.2%} {held / of:8.2%}; {saved:4.0%} saved")
    print("\nTrainings saved against 30 seeds of each, where the variants are an effect apart, by effect")
    for kind in KINDS:
        for variants in (2, 3, 5):
            cells = []
            for effect in (0.3, 0.6, 1.0, 2.0):
                effects = [effect * place for place in range(variants)]
                some = max(1, many // 10)
                done = [until_decided(values) for values in suites(some, kind, effects)]
                saved = 1 - sum(took for _, took in done) / (some * variants * UNTIL.most)
                better = np.mean([all(one.decision == BETTER for one in verdicts) for verdicts, _ in done])
                bad = np.mean([wrong(verdicts, effects) for verdicts, _ in done])
                cells.append(f"{effect:g}: {saved:4.0%} ({better:4.0%} all decided, {bad:.1%} wrong)")
            print(f"{kind:14} {variants} variants: " + "; ".join(cells))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
