"""Racing: candidates are scored round after round, and who is clearly worse than the leader gets no further round.

A round is whatever scores every candidate under equal conditions: a fold of a cross-validation, or a seed.
"""

import numpy as np
from scipy.special import stdtr

CHANCE = 0.01
"""Who would overtake the leader with a smaller chance than this, were all rounds run, is dropped."""
WEIGHT = 4
"""As many degrees of freedom has what is known of a candidate's spread from that of the others."""


def due(scores: np.ndarray, rounds: int) -> list[int]:
    """The candidates whose next round is to be run now; none where the race is over.

    The first round is all candidates', the second that of the better half first: by then it is known how much scores
    vary, and of the rest only those run it that one round does not tell are beaten. From then on whoever is `in_race`
    runs, those with the fewest rounds first. All of it follows from the scores: a race that was interrupted goes on.

    Args:
        scores: shape (candidates, rounds run so far, or more): more is better; NaN where a candidate has not run, minus
            infinity where it failed, which ends its race. Each candidate has run its first so many rounds.
        rounds: in all.

    >>> due(np.full((4, 10), np.nan), 10)
    [0, 1, 2, 3]
    """
    run = (~np.isnan(scores)).sum(axis=1)
    sound = ~np.isneginf(scores).any(axis=1)
    if (fresh := np.flatnonzero(run == 0)).size:
        return [int(place) for place in fresh]
    if run[sound].max(initial=0) < 2:
        best_first = np.flatnonzero(sound)[np.argsort(-scores[sound, 0], kind="stable")]
        return sorted(int(place) for place in best_first[: max(2, -(-len(best_first) // 2))] if rounds > 1)
    waiting = in_race(scores, rounds) & (run < rounds)
    return [int(place) for place in np.flatnonzero(waiting & (run == run[waiting].min(initial=rounds)))]


def in_race(scores: np.ndarray, rounds: int) -> np.ndarray:
    """Whether each candidate may still end with the best mean over all rounds.

    The leader is the best by the mean of those with the most rounds. Of another one the differences from it in the r
    rounds that both have run have a mean d and a variance s². Were they normal, and nothing else known of them, it
    would overtake the leader in the R - r rounds that are left with the chance that Student's t exceeds
    d sqrt(r R / (R - r)) / s. That chance has to be `CHANCE` at least; since it is of the end, it may be looked at
    after every round. s² is taken together with the median of all in the race, which counts as `WEIGHT` degrees of
    freedom: the variance of two rounds alone says nothing, and a candidate that fails at times says little of others.
    One runs on beside the leader in any case: a round in which it falls back is seen by the other.

    Returns:
        shape (candidates,), bool. Who was left behind is in again where the leader falls back.
    """
    known = ~np.isnan(scores)
    run, sound = known.sum(axis=1), ~np.isneginf(scores).any(axis=1)
    inside = np.array(sound)
    if not sound.any():
        return inside
    most = run[sound].max()
    ahead = np.flatnonzero(sound & (run == most))
    leader = ahead[np.argmax(scores[ahead, :most].mean(axis=1))]
    others = np.flatnonzero(sound & (np.arange(len(scores)) != leader))
    apart = np.where(known[others], scores[leader] - scores[others], np.nan)
    many = run[others]
    mean = np.nanmean(apart, axis=1) if len(others) else np.empty(0)
    squares = np.nansum((apart - mean[:, None]) ** 2, axis=1)
    if not (many > 1).any():
        return inside
    usual = np.median((squares / np.maximum(many - 1, 1))[many == many.max()])
    freedom = WEIGHT + many - 1
    spread = np.sqrt((WEIGHT * usual + squares) / freedom)
    left = np.maximum(rounds - many, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean * np.sqrt(many * rounds / left) / spread
    # Where nothing is left to run, or nothing varies, the means alone say it; equal ones are both in.
    chance = np.where(mean == 0, 1.0, stdtr(freedom, -t))
    inside[others] = chance >= CHANCE
    if len(others) and inside.sum() < 2:
        inside[others[np.lexsort((chance, many))[-1]]] = True  # of those with the most rounds
    return inside
