"""The seeds of a comparison: how many, which, or as many as its verdicts need."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlplab.checks import UsageError, whole
from mlplab.spec import FIRST_SEED, MAX_SEED

MAX_SEEDS, MAX_LOOKS = 1_000, 100


@dataclass(frozen=True, kw_only=True)
class Until:
    """In the place of a number of seeds: so many until the verdicts are clear.

    After each look a pair of variants that is decided, or beyond reach of the seeds that are left, needs no more of
    them, and a variant in no open pair is trained no further. Looking costs no error: see `mlplab.sequential`. More
    seeds asked for later go on with the same test.

    Args:
        most: seeds, where it takes them all.
        look_every: seeds from one look to the next.
        first: the first seed; the others follow it.

    Raises:
        UsageError: a value is not legal, or there are more than `MAX_LOOKS` looks.

    Examples:
        >>> Until(most=12, look_every=5).looks
        (5, 10, 12)
    """

    most: int = 30
    look_every: int = 5
    first: int = FIRST_SEED

    def __post_init__(self) -> None:
        whole("most of Until", self.most, 2, MAX_SEEDS)
        whole("look_every of Until", self.look_every, 2, MAX_SEEDS)
        whole("first of Until", self.first, 0, MAX_SEED - self.most)
        if len(self.looks) > MAX_LOOKS:
            raise UsageError(
                f"most is {self.most} and look_every {self.look_every}, which makes {len(self.looks)} looks; legal: up "
                f"to {MAX_LOOKS}. Look less often: look_every={-(-self.most // MAX_LOOKS)}."
            )

    @property
    def looks(self) -> tuple[int, ...]:
        """How many seeds there are at each look."""
        return self.after(())

    def after(self, made: Sequence[int]) -> tuple[int, ...]:
        """The looks, where some were made in an earlier command.

        Examples:
            >>> Until(most=20, look_every=4).after((5, 10))
            (5, 10, 14, 18, 20)
        """
        before = [look for look in made if look <= self.most]
        last = max(before, default=0)
        more = range(last + self.look_every, self.most, self.look_every)
        return (*before, *more, *([self.most] if self.most > last else []))

    def __str__(self) -> str:
        return f"until:{self.most}:{self.look_every}"


def seeds_of(seeds: object) -> tuple[int, ...]:
    """The seeds that somebody gave, one by one.

    Raises:
        UsageError: they are none.
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        whole("seeds", seeds, 1, MAX_SEEDS)
        return tuple(range(FIRST_SEED, FIRST_SEED + seeds))
    if not isinstance(seeds, tuple | list) or not 1 <= len(seeds) <= MAX_SEEDS:
        raise UsageError(
            f"seeds is {seeds!r}; legal: how many (a whole number from 1 to {MAX_SEEDS:,}), a tuple of them, or "
            "Until(most=30) the verdicts are clear."
        )
    for seed in seeds:
        whole("a seed", seed, 0, MAX_SEED)
    if twice := [seed for seed in dict.fromkeys(seeds) if list(seeds).count(seed) > 1]:
        raise UsageError(f"seeds has {twice[0]} more than once; legal: different seeds. Delete the repetition.")
    return tuple(seeds)
