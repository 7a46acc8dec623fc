"""What scores on several tasks say together: aggregates with a stratified bootstrap, and performance profiles.

A task is a data set with its target. The aggregates and the probability of improvement are those of Agarwal et al.
(2021), "Deep reinforcement learning at the edge of the statistical precipice", as their library `rliable` computes
them; profiles and their score are those of AlgoPerf: Dahl et al. (2023), "Benchmarking neural network training
algorithms", after Dolan and Moré (2002). `tests/test_across.py` holds both to their published numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlplab.statistics import ALPHA

RESAMPLES = 10_000
RESAMPLING_SEED = 2021
"""Of the generator that draws the resamples: the same scores have the same intervals, always."""

R_MAX = 4.0
"""The ratio of times from which on a variant has no credit on a task: the end of AlgoPerf's profiles."""

AT_ONCE = 4_000_000
"""Numbers of resamples that are in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval, NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def aggregate_mean(scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The mean over tasks of the means over seeds.

    Args:
        scores: shape (seeds, tasks).
        counts: how often each score counts, shape (…, tasks, seeds), as `bootstrap` draws them; None: once.

    Returns:
        Shape (…).

    >>> float(aggregate_mean(np.array([[1, 2], [2, 2], [1, 1], [2, 1]])))
    1.5
    """
    mean: np.ndarray = np.mean(_task_means(scores, counts), axis=-1)
    return mean


def aggregate_median(scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The median over tasks of the means over seeds; arguments as of `aggregate_mean`."""
    median: np.ndarray = np.median(_task_means(scores, counts), axis=-1)
    return median


def _task_means(scores: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    counts = _once(scores) if counts is None else counts
    means: np.ndarray = (counts * scores.T).sum(axis=-1) / len(scores)
    return means


def interquartile_mean(scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """The mean of the middle half of all scores, whatever their task; arguments as of `aggregate_mean`.

    The lowest and the highest quarter, each rounded down to whole scores, are left out (`scipy.stats.trim_mean`).
    """
    counts = _once(scores) if counts is None else counts
    order = np.argsort(scores.T, axis=None)
    until = np.cumsum(counts.reshape(*counts.shape[:-2], -1)[..., order], axis=-1)
    cut = scores.size // 4
    kept = np.diff(np.clip(until, cut, scores.size - cut), prepend=cut, axis=-1)
    mean: np.ndarray = kept @ scores.T.reshape(-1)[order] / (scores.size - 2 * cut)
    return mean


def probability_of_improvement(
    x: np.ndarray, y: np.ndarray, counts_x: np.ndarray | None = None, counts_y: np.ndarray | None = None
) -> np.ndarray:
    """The mean over tasks of the probability that a score of x is above one of y, ties counted half.

    On a task it is the Mann-Whitney statistic over the number of pairs: any seed's score of x against any one's of y.

    Args:
        x, y: shapes (seeds of x, tasks) and (seeds of y, tasks).
        counts_x, counts_y: as of `aggregate_mean`.

    Returns:
        Shape (…).

    >>> float(probability_of_improvement(np.array([[2.0], [3.0]]), np.array([[1.0], [2.0]])))
    0.875
    """
    counts_x = _once(x) if counts_x is None else counts_x
    counts_y = _once(y) if counts_y is None else counts_y
    wins = (np.sign(x.T[:, :, None] - y.T[:, None, :]) + 1) / 2  # tasks, seeds of x, seeds of y
    tasks = range(x.shape[1])
    each = [((counts_x[..., task, :] @ wins[task]) * counts_y[..., task, :]).sum(axis=-1) for task in tasks]
    share: np.ndarray = np.mean(each, axis=0) / (len(x) * len(y))
    return share


def _once(scores: np.ndarray) -> np.ndarray:
    return np.ones(scores.T.shape)


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], seeds: int, tasks: int) -> Estimate:
    """A statistic with its 95 % interval by the stratified bootstrap: seeds are drawn anew within each task.

    The interval lies between percentiles of the statistic over `RESAMPLES` resamples, drawn by a generator seeded with
    `RESAMPLING_SEED`. A seed is drawn with all of its trainings on a task, so what is paired stays so. (rliable, whose
    runs are not paired, draws those of two algorithms independently.) The interval is over seeds, not over tasks.

    It is too narrow for few seeds: verdicts are drawn by Student's interval of the seeds' means over the tasks. Per
    cent of the 95 % intervals of a mean difference over 3 tasks that held it, of 10,000 samples (normal, with
    deviations of 1, 0.3 and 2 on the tasks):

        seeds               3      5     10     30
        bootstrap        80.0   86.6   91.6   94.0
        Student's        95.0   94.9   95.0   95.1

    Args:
        statistic: takes how often each seed is drawn on each task, shape (resamples, tasks, seeds), and gives shape
            (resamples,).

    Returns:
        NaN without any seed, no interval with one.
    """
    if not seeds or not tasks:
        return Estimate(math.nan)
    value = float(statistic(np.ones((1, tasks, seeds)))[0])
    if seeds < 2:
        return Estimate(value)
    generator, equally = np.random.default_rng(RESAMPLING_SEED), np.full(seeds, 1 / seeds)
    step = max(1, AT_ONCE // (seeds * tasks))
    sizes = [min(step, RESAMPLES - begun) for begun in range(0, RESAMPLES, step)]
    found = np.concatenate([statistic(generator.multinomial(seeds, equally, (size, tasks))) for size in sizes])
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2])
    return Estimate(value, float(low), float(high))


def performance_ratios(times: np.ndarray) -> np.ndarray:
    """How many times as long as the fastest each variant took to a task's target.

    Args:
        times: shape (variants, tasks); infinite where the target was not reached.

    Returns:
        The same shape; infinite where the target was not reached, be it by any variant or by none.

    >>> performance_ratios(np.array([[10.0, math.inf], [20.0, math.inf]])).tolist()
    [[1.0, inf], [2.0, inf]]
    """
    reached = np.isfinite(times)
    fastest = np.min(times, axis=0, initial=math.inf)
    ratios: np.ndarray = np.divide(times, fastest, out=np.full(times.shape, math.inf), where=reached)
    return ratios


def profile(ratios: np.ndarray, tau: float) -> float:
    """The share of all tasks on which a variant took at most `tau` times as long as the fastest.

    Args:
        ratios: of one variant, shape (tasks,).
    """
    return float(np.mean(ratios <= tau))


def profile_score(ratios: np.ndarray) -> float:
    """AlgoPerf's benchmark score, 0 to 1: the mean height of a variant's `profile` from 1 to `R_MAX`.

    The integral is exact: a task with ratio r is in the profile from r on. (AlgoPerf's own program takes the
    trapezoidal rule on 100 points, which is off by up to 0.005.)

    >>> round(profile_score(np.array([1.0, 2.5, math.inf])), 6)  # (3 + 1.5 + 0) / 3 tasks / 3
    0.5
    """
    return float(np.mean(np.clip(R_MAX - ratios, 0, R_MAX - 1)) / (R_MAX - 1))
