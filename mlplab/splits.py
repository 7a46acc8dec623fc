"""Which example goes into which split: by lot, with equal shares of the labels, or by whole groups."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mlplab.checks import UsageError

Rows = npt.NDArray[np.intp]

ATTEMPTS = 100
"""How many ways to part the groups are tried, before a split goes without one of the labels."""


def partition(
    rows: int,
    validation: int,
    test: int,
    *,
    strata: npt.NDArray[Any] | None = None,
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> tuple[Rows, Rows, Rows]:
    """Row numbers of the training, validation and test split, mixed: every row in one of them.

    Args:
        rows: how many there are.
        validation, test: how many are held out; 0: none. With groups, about as many.
        strata: a label for each row, which each split has its share of, to rounding.
        groups: a value for each row; rows of one value stay together. Then labels are only looked at so far that none
            is absent from a split.
        seed: of the lot.

    Raises:
        UsageError: nothing is left to train on, or there are fewer groups than splits.
    """
    if validation + test >= rows:
        raise UsageError(
            f"there are {rows:,} examples, and {validation:,} + {test:,} of them are to be held out for validation and "
            "test, which leaves none to train on; legal: fewer, or a share such as 0.2."
        )
    codes = None if strata is None else np.unique(strata, return_inverse=True)[1].reshape(-1)
    if groups is not None:
        return _by_group(np.unique(groups, return_inverse=True)[1].reshape(-1), validation, test, codes, seed)

    def held_out(left: Rows, size: int) -> tuple[Rows, Rows]:
        if codes is None or not size:
            mixed = np.random.RandomState(seed).permutation(left)
            return mixed[size:], mixed[:size]
        kept, taken = stratified(codes[left], size, seed)
        return left[kept], left[taken]

    rest, tests = held_out(np.arange(rows), test)
    train, validations = held_out(rest, validation)
    return train, validations, tests


def _by_group(
    groups: npt.NDArray[Any], validation: int, test: int, strata: npt.NDArray[Any] | None, seed: int
) -> tuple[Rows, Rows, Rows]:
    sizes = np.bincount(groups)
    wanted = np.array([len(groups) - validation - test, validation, test], float)
    splits = np.flatnonzero(wanted)
    if len(sizes) < len(splits):
        raise UsageError(
            f"there are {len(sizes)} groups, which cannot be parted among {len(splits)} splits; legal: as many groups "
            "as splits, or more."
        )
    for attempt in range(ATTEMPTS):
        rng = np.random.RandomState((seed, attempt))
        given, place = np.zeros(3), np.zeros(len(sizes), int)
        for group in rng.permutation(len(sizes)):
            # To the split that lacks the largest part of what it is to have.
            place[group] = max(splits, key=lambda split: 1 - given[split] / wanted[split])
            given[place[group]] += sizes[group]
        found = [rng.permutation(np.flatnonzero(place[groups] == split)) for split in range(3)]
        if strata is None or all(len(np.unique(strata[found[i]])) == strata.max() + 1 for i in splits):
            break
    return found[0], found[1], found[2]


def stratified(labels: npt.NDArray[Any], held_out: int, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Row numbers of a stratified split, mixed: those that stay and those held out.

    That of scikit-learn's `train_test_split(stratify=labels, random_state=seed)`, but that a class too small for its
    share to reach one row is the first to be given one.
    """
    rng = np.random.RandomState(seed)
    left = counts = np.bincount(labels)
    shares = []
    for wanted in (len(labels) - held_out, held_out):
        exact = left / left.sum() * wanted
        share = np.floor(exact)
        remainder = exact - share
        # Last of all that have one: a row more kept would leave none to hold out.
        remainder[(left - share == 1) & (remainder > 0)] = 1e-9
        # What rounding down leaves goes to the largest remainders, by lot among equal ones.
        for value in np.unique(remainder)[::-1]:
            if missing := int(wanted - share.sum()):
                (equal,) = np.nonzero(remainder == value)
                share[rng.choice(equal, min(len(equal), missing), replace=False)] += 1
        shares.append(share.astype(int))
        left = left - shares[0]
    rows: tuple[list[int], list[int]] = ([], [])
    for label, (kept, taken) in enumerate(zip(*shares, strict=True)):
        mixed = np.flatnonzero(labels == label)[rng.permutation(counts[label])]
        rows[0].extend(mixed[:kept])
        rows[1].extend(mixed[kept : kept + taken])
    return rng.permutation(rows[0]), rng.permutation(rows[1])
