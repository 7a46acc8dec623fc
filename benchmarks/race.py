"""Races of a search's candidates against the whole grid: the same winner how often, for which share of the trainings.

Usage: python benchmarks/race.py [--replays N]
       python benchmarks/race.py --record NAME

What is replayed are scores that were recorded, each candidate on each fold, in `benchmarks/races/` (`--record` makes
such a file anew by the search of that name in `GRIDS`). A replay draws candidates and folds from them with replacement,
which keeps the pairing: a fold is one column for all. The winner of the grid is the best mean over all drawn folds;
that of the race counts as the same where its mean is equal.

Beside `mlplab.racing` stand rules that others use: a paired t-test against the best after each round from the second
on, at 5 %; F-race (Friedman's test, then each one against the best; Birattari et al. 2002, from the fifth round on as
irace has it); successive elimination by Hoeffding's bound over the range of the scores; and halving of the candidates
with every doubling of the folds. They are for comparison, and no part of mlplab. The second table has other values of
`racing.CHANCE`.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlplab import Data, LogUniform, Search, Training, Uniform, racing

RACES = Path(__file__).resolve().parent / "races"
REPLAYS = 200
SAME, SHARE = 0.95, 1 / 3
"""The bar: the same winner at least so often, for at most this share of the grid's trainings."""

CHANCES = (0.001, 0.005, 0.01, 0.05, 0.2)

Rule = Callable[[np.ndarray, int], np.ndarray]


# ------------------------------------------------------------------------------------------------- what is recorded


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """442 patients, a number to be told of each."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    return found.data.astype("float32"), found.target.astype("float32")


def images() -> tuple[np.ndarray, np.ndarray]:
    """The digits as they are, 8 x 8."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8, 1).astype("float32") / 16, y


def network(width: int = 8, dropout: float = 0.0) -> Any:
    """For numbers."""
    from keras import Input, Sequential, layers

    return Sequential(
        [Input((10,)), layers.Dense(width, "relu"), layers.Dropout(dropout), layers.Dense(1)]
    )  # fmt: skip


def cnn(filters: int = 8) -> Any:
    """For images."""
    from keras import Input, Sequential, layers

    convolution = layers.Conv2D(filters, 3, activation="relu")
    return Sequential([Input((8, 8, 1)), convolution, layers.Flatten(), layers.Dense(10, activation="softmax")])


CLASSES: dict[str, Any] = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
MLP = Training(model="mlp", optimizer="sgd", epochs=10, **CLASSES)
RATES = LogUniform(1e-3, 1.0)
QUESTION = "Which candidate is best?"
GRIDS = {
    # The experiment `random_search`, all of its choices, on the digits.
    "digits": Search(
        question=QUESTION,
        data="digits",
        base=MLP,
        space={"learning_rate": [0.001, 0.01, 0.1], "model.dropout": [0.2, 0.3, 0.5], "batch_size": [32, 64, 128]},
        candidates=27,
        folds=10,
    ),
    "cnn": Search(
        question=QUESTION,
        data=Data(images),
        base=Training(model=cnn, epochs=5, batch_size=32, **CLASSES),
        space={
            "learning_rate": LogUniform(1e-4, 1e-1),
            "model.filters": [4, 8, 16],
            "optimizer": ["adam", "rmsprop", "sgd"],
        },
        candidates=24,
        folds=10,
    ),
    "mnist": Search(
        question=QUESTION,
        data="mnist",
        base=MLP.but(epochs=3),
        space={"learning_rate": RATES, "model.dropout": [0.0, 0.2, 0.3, 0.5], "batch_size": [64, 128, 256]},
        candidates=24,
        folds=10,
    ),
    # Two that no race tells early: near the largest stable learning rate some trainings collapse in one fold of twenty;
    "unstable": Search(
        question=QUESTION,
        data="digits",
        base=MLP,
        space={"learning_rate": RATES, "model.dropout": Uniform(0.0, 0.5), "batch_size": [16, 32, 64, 128]},
        candidates=16,
        folds=20,
        seed=7,
    ),
    # and of R² on 35 patients a fold, one fold decides between a dozen candidates that are as good as each other.
    "diabetes": Search(
        question=QUESTION,
        data=Data(diabetes),
        base=Training(model=network, loss="mse", optimizer="adam", epochs=30),
        space={
            "learning_rate": RATES,
            "model.width": [8, 32, 128],
            "model.dropout": [0.0, 0.2],
            "optimizer": ["adam", "rmsprop"],
            "batch_size": [16, 64],
        },
        candidates=32,
        folds=10,
    ),
}


def record(name: str) -> None:
    """Trains every candidate of a grid on every fold, and writes the scores down."""
    from search import Untracked

    from mlplab import backend
    from mlplab.data import load
    from mlplab.search import random_search

    search = GRIDS[name]
    with backend.settings():  # as a command has them
        data = load(search.data)
        trainer = Untracked(search, data)
        found = random_search(search, data, trainer, trainer.seconds)
    RACES.mkdir(exist_ok=True)
    with (RACES / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["candidate", *(f"fold {fold}" for fold in range(1, search.folds + 1))])
        for candidate, scores in zip(trainer.drawn, found.scores, strict=True):
            choices = " ".join(f"{name}={value}" for name, value in search.choices(candidate).items())
            writer.writerow([choices, *(round(score, 6) for score in scores)])


def recorded(name: str) -> np.ndarray:
    """The scores of a grid: shape (candidates, folds)."""
    with (RACES / f"{name}.csv").open() as file:
        return np.array([[float(score) for score in row[1:]] for row in list(csv.reader(file))[1:]])


# ------------------------------------------------------------------------------------------------- replays


def drawings(grid: np.ndarray, replays: int) -> Iterator[np.ndarray]:
    """Grids of as many candidates and folds, drawn from this one with replacement."""
    rng = np.random.default_rng(0)
    candidates, folds = grid.shape
    for _ in range(replays):
        yield grid[rng.integers(candidates, size=candidates)][:, rng.integers(folds, size=folds)]


def raced(grid: np.ndarray) -> tuple[float, int]:
    """The mean over all folds of the winner of `mlplab.racing`, and how many trainings it took."""
    scores = np.full(grid.shape, np.nan)
    while places := racing.due(scores, grid.shape[1]):
        fold = int((~np.isnan(scores[places[0]])).sum())
        scores[places, fold] = grid[places, fold]
    whole = ~np.isnan(scores).any(axis=1)
    return float(scores[whole].mean(axis=1).max()), int((~np.isnan(scores)).sum())


def by(rule: Rule) -> Callable[[np.ndarray], tuple[float, int]]:
    """The same of a rule that says who stays after a round; who is dropped does not come back."""

    def run(grid: np.ndarray) -> tuple[float, int]:
        left, trainings = np.arange(len(grid)), 0
        for many in range(1, grid.shape[1] + 1):
            trainings += len(left)
            if many < grid.shape[1] and len(left) > 1:
                left = left[rule(grid[left, :many], grid.shape[1])]
        return float(grid[left].mean(axis=1).max()), trainings

    return run


def paired_t(scores: np.ndarray, folds: int) -> np.ndarray:
    """A one-sided paired t-test against the best, at 5 %."""
    many = scores.shape[1]
    apart = scores[scores.mean(axis=1).argmax()] - scores
    if many < 2:
        return np.ones(len(scores), bool)
    error = np.maximum(apart.std(axis=1, ddof=1), 1e-12) / math.sqrt(many)
    stays: np.ndarray = apart.mean(axis=1) <= stats.t.ppf(0.95, many - 1) * error
    return stays


def f_race(scores: np.ndarray, folds: int) -> np.ndarray:
    """Friedman's test, then Conover's against the best rank, at 5 %."""
    candidates, many = scores.shape
    stays = np.ones(candidates, bool)
    if many < 5 or candidates < 3 or np.ptp(scores, axis=0).max() == 0:
        return stays
    ranks = stats.rankdata(-scores, axis=0)
    if stats.friedmanchisquare(*scores).pvalue >= 0.05:
        return stays
    sums, squares = ranks.sum(axis=1), (ranks**2).sum()
    error = 2 * (many * squares - (sums**2).sum()) / ((many - 1) * (candidates - 1))
    limit = stats.t.ppf(0.975, (many - 1) * (candidates - 1)) * math.sqrt(max(error, 0.0))
    within: np.ndarray = sums - sums.min() <= limit
    return within


def hoeffding(scores: np.ndarray, folds: int) -> np.ndarray:
    """Bounds that hold for all candidates and rounds together in 95 % of races, of scores within their range."""
    candidates, many = scores.shape
    spread = float(np.ptp(scores))
    half = spread * math.sqrt(math.log(2 * candidates * folds / 0.05) / (2 * many))
    means = scores.mean(axis=1)
    stays: np.ndarray = means + half >= means.max() - half
    return stays


def halving(scores: np.ndarray, folds: int) -> np.ndarray:
    """The better half stays after 1, 2, 4, ... rounds."""
    stays = np.ones(len(scores), bool)
    if math.log2(scores.shape[1]).is_integer():
        stays[np.argsort(-scores.mean(axis=1), kind="stable")[-(-len(scores) // 2) :]] = False
    return stays


RULES: dict[str, Callable[[np.ndarray], tuple[float, int]]] = {
    "mlplab": raced,
    "paired t, 5 %": by(paired_t),
    "F-race": by(f_race),
    "Hoeffding": by(hoeffding),
    "halving": by(halving),
}


def replay(grid: np.ndarray, rule: Callable[[np.ndarray], tuple[float, int]], replays: int) -> tuple[float, float]:
    """In which share of replays the winner is the grid's, and which share of its trainings they took on average."""
    same, trained = 0, 0
    for drawn in drawings(grid, replays):
        mean, trainings = rule(drawn)
        same += mean >= drawn.mean(axis=1).max() - 1e-12
        trained += trainings
    return same / replays, trained / replays / grid.size


def main() -> None:
    """Replays and prints, or records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--replays", type=int, default=REPLAYS, help="of each grid (default: %(default)s)")
    parser.add_argument("--record", choices=GRIDS, help="trains this grid, and replays nothing")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return
    print(f"The same winner as the grid's in … of {options.replays} replays, for … of its trainings.\n")
    print(f"| grid | candidates | folds | {' | '.join(RULES)} | bar |\n|---|---:|---:|{'---:|' * len(RULES)}---|")
    for name in GRIDS:
        grid = recorded(name)
        found = [replay(grid, rule, options.replays) for rule in RULES.values()]
        cells = " | ".join(f"{same:.1%}, {share:.0%}" for same, share in found)
        verdict = "pass" if found[0][0] >= SAME and found[0][1] <= SHARE else "FAIL"
        print(f"| {name} | {grid.shape[0]} | {grid.shape[1]} | {cells} | {verdict} |", flush=True)
    print(f"\n| chance | {' | '.join(GRIDS)} |\n|---:|{'---:|' * len(GRIDS)}")
    for racing.CHANCE in CHANCES:
        found = [replay(recorded(name), raced, options.replays) for name in GRIDS]
        cells = " | ".join(f"{same:.1%}, {share:.0%}" for same, share in found)
        print(f"| {racing.CHANCE:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
