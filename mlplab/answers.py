"""A comparison's answer, for a reader who reads one sentence: what its pairwise decisions say, and no more.

Only pairs that have a verdict are spoken of. Nothing is concluded from one pair to another: variants that are each as
good as a third need not be as good as each other.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlplab.amounts import within
from mlplab.comparison import AT_THESE_SETTINGS, Comparison
from mlplab.results import Result, outcomes, rank, unpaired
from mlplab.seeds import MAX_SEEDS
from mlplab.statistics import MOST_SEEDS
from mlplab.verdicts import BETTER, EQUIVALENT, ONE_SEED, UNDECIDED, Verdict

MANY_SEEDS = 10
"""As many are proposed where there is one."""
MOST_NAMES = 12
"""Of more variants that are in one place the rest is counted."""


def answer_of(
    comparison: Comparison,
    results: Sequence[Result],
    verdicts: Sequence[Verdict],
) -> str:
    """The answer of a comparison that has run, as the terminal, its run, its page and its verdicts.json have it.

    Args:
        results: of all its trainings.
        verdicts: of all its measures; those of the selection metric count.
    """
    of_metric = [verdict for verdict in verdicts if verdict.measure == comparison.metric.name]
    troubles = {}
    for outcome in outcomes(results):
        has_value = any(math.isfinite(result.best(comparison.metric.name)) for result in outcome.results)
        if outcome.state:
            counted = ": " if " of " in outcome.state else " "
            troubles[outcome.variant.name] = f"{counted}{outcome.state}"
        elif not has_value:
            troubles[outcome.variant.name] = f" has no value of {comparison.metric.words}"
    return answer(
        of_metric,
        [outcome.variant.name for outcome in rank(comparison, results)],
        troubles=troubles,
        seconds={name: seconds for name in comparison.variants if (seconds := _seconds_of_a_seed(results, name))},
        unpaired=bool(unpaired(results)),
        settings=comparison.budget,
    )


def answer(
    verdicts: Sequence[Verdict],
    variants: Sequence[str],
    *,
    troubles: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
    unpaired: bool = False,
    settings: str = AT_THESE_SETTINGS,
    goes_on: bool = True,
) -> str:
    """One sentence that is made of decisions alone; where some are open, what would decide them and what that costs.

    Every clause is a decision of one verdict or of several: `both beat SGD` stands only where either has a verdict
    against SGD that says so, `A, B and C are equally good` only where every two of them have one.

    Args:
        verdicts: on one measure; each pair of variants once at most.
        variants: all that were compared, the best mean first: they are told of in this order.
        troubles: variant -> what befell its trainings, as it follows its name: ` failed`, `: 2 of 10 diverged`.
        seconds: variant -> what a training of one more seed takes on this machine; unknown where it lacks.
        unpaired: whether there are no verdicts because the trainings of a seed are no pair.
        settings: what the variants were compared at, as an adverbial that ends the sentence.
        goes_on: whether seeds can be added until these very verdicts are clear.

    >>> answer([], ["Adam"])
    'Adam is the only variant, so nothing is compared.'
    """
    variants = list(dict.fromkeys([*variants, *(name for v in verdicts for name in (v.a, v.b))]))
    known, costs, troubles = {name: place for place, name in enumerate(variants)}, seconds or {}, troubles or {}
    endings = [f"{name}{how}." for name, how in troubles.items()]
    if len(variants) == 1:
        return " ".join([f"{variants[0]} is the only variant, so nothing is compared.", *endings])
    told = [verdict for verdict in verdicts if verdict.seeds]
    if unpaired or not told:
        why = "the trainings of a seed are no pair" if unpaired else "no seed has a value of two that are compared"
        return " ".join([f"Nothing is decided between {_list(variants)}, as {why}, {settings}.", *endings])
    met = {name for verdict in told for name in (verdict.a, verdict.b)}
    # A verdict without a seed tells of what failed, which is said of the variant, or that two have no seed in common.
    endings += [f"No seed has a value of both {v.a} and {v.b}." for v in verdicts if not v.seeds and {v.a, v.b} <= met]
    if alone := [name for name in variants if name not in met and name not in troubles]:
        endings.append(f"No variant with a result is compared with {_list(alone, 'or')}.")
    if all(verdict.decision == ONE_SEED for verdict in told):
        which = _list([name for name in variants if name in met], "or")
        cost = _cost(MANY_SEEDS * sum(costs[name] for name in variants)) if costs.keys() >= known.keys() else ""
        takes = f"`--seeds {MANY_SEEDS}` takes {cost}." if cost else f"Take several, such as `--seeds {MANY_SEEDS}`."
        return " ".join([f"One seed cannot tell which variant is better, {which}, {settings}.", *endings, takes])
    clauses = [clause for decision in _WORDS for clause in _clauses(told, decision, known)]
    says: list[str] = []
    before = None
    for clause in sorted(clauses, key=lambda each: each.places(known)):
        says.append(clause.text(first=not says, before=before))
        before = clause
    least, most = min(verdict.seeds for verdict in told), max(verdict.seeds for verdict in told)
    seeds = f"{least} seeds" if least == most else f"{least} to {most} seeds"
    sentence = f"{'; '.join(says)} ({seeds}), {settings}."
    if min(clauses, key=lambda each: each.places(known)).decision in (UNDECIDED, ONE_SEED):
        sentence = sentence[0].upper() + sentence[1:]  # else a variant's name, which stays as it is
    return " ".join([sentence, *endings, *_what_would_decide(told, known, costs, goes_on)])


@dataclass(frozen=True)
class _Clause:
    """Verdicts of one decision that one clause says: of one variant against several, or of several with each other.

    Attributes:
        ones, others: every one of `ones` against every one of `others`, the better side first; no `others`: every two
            of `ones`.
    """

    ones: tuple[str, ...]
    others: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def decision(self) -> str:
        return self.verdicts[0].decision

    def places(self, known: Mapping[str, int]) -> tuple[int, ...]:
        """What it is sorted by: the places of the best that it is about, and then what can be referred to first."""
        places = sorted(known[name] for name in self.ones + self.others)
        return (*places[:2], int(self.decision == BETTER), *places[2:])

    def text(self, *, first: bool, before: "_Clause | None") -> str:
        """The clause; the `first` one names the measure, and one whose `ones` the clause `before` was about refers."""
        ones = _list(self.ones)
        if before and not before.others and set(before.ones) == set(self.ones) and self.decision == BETTER:
            ones = "both" if len(self.ones) == 2 else f"all {len(self.ones)}"
        return _WORDS[self.decision](self, ones, f" of {self.verdicts[0].words}" if first else "")


def _better(clause: _Clause, ones: str, of: str) -> str:
    verdict, others = clause.verdicts[0], _list(clause.others)
    verb = "beats" if len(clause.ones) == 1 else "beat"
    amounts = [verdict.size for verdict in sorted(clause.verdicts, key=lambda v: abs(v.difference))]
    amount = amounts[0] if amounts[0] == amounts[-1] else f"{amounts[0]} to {amounts[-1]}"
    if verdict.unit == "times":
        whose = "its" if len(clause.others) == 1 else "their"
        return f"{ones} {verb} {others} with {amount} times {whose} {verdict.words}"
    return f"{ones} {verb} {others} by {amount} {verdict.unit}".rstrip() + of


def _equivalent(clause: _Clause, ones: str, of: str) -> str:
    limit = within(clause.verdicts[0].unit, clause.verdicts[0].margin) + of
    if not clause.others:
        return f"{ones} are equally good within {limit}{' of each other' if len(clause.ones) > 2 else ''}"
    return f"{_list(clause.others)} are each as good as {ones} within {limit}"


def _undecided(clause: _Clause, ones: str, of: str) -> str:
    which = ones if not clause.others else f"{ones} and each of {_list(clause.others)}"
    return f"undecided between {which}{of.replace(' of ', ' in ', 1)}"


def _one_seed(clause: _Clause, ones: str, of: str) -> str:
    which = f"{clause.ones[0]} from {_list(clause.others or clause.ones[1:], 'or')}"
    return f"one seed cannot tell {which}{of.replace(' of ', ' in ', 1)}"


_WORDS: dict[str, Callable[[_Clause, str, str], str]] = {
    BETTER: _better,
    EQUIVALENT: _equivalent,
    UNDECIDED: _undecided,
    ONE_SEED: _one_seed,
}
"""Decision -> what says it of a clause, of how its first variants are called, and of the measure's words."""


def _clauses(verdicts: Sequence[Verdict], decision: str, known: Mapping[str, int]) -> list[_Clause]:
    """The clauses that say all verdicts of a decision, each once: the ones that say the most first."""
    left = {(v.a, v.b): v for v in verdicts if v.decision == decision}
    found = []
    while left:
        tried = [_around(left, name, side, decision) for name in known for side in (0, 1)]
        if decision in (EQUIVALENT, UNDECIDED):
            tried += [_among(left, pair, known) for pair in left]
        chosen = max((clause for clause in tried if clause), key=lambda clause: len(clause.verdicts))
        found.append(_sorted(chosen, known))
        left = {pair: v for pair, v in left.items() if v not in chosen.verdicts}
    return found


def _around(left: Mapping[tuple[str, str], Verdict], name: str, side: int, decision: str) -> _Clause | None:
    """One variant against all that it has a verdict with, on one side of it where the side says which is better."""
    has_sides = decision == BETTER
    pairs = [pair for pair in left if pair[side] == name or (not has_sides and name in pair)]
    if not pairs:
        return None
    others = tuple(a if b == name else b for a, b in pairs)
    of = tuple(left[pair] for pair in pairs)
    if not has_sides and len(others) == 1 and decision != ONE_SEED:
        return _Clause((name, *others), (), of)
    return _Clause(others, (name,), of) if has_sides and side else _Clause((name,), others, of)


def _among(left: Mapping[tuple[str, str], Verdict], pair: tuple[str, str], known: Iterable[str]) -> _Clause:
    """Variants of which every two have a verdict: those of a pair, and whoever goes with all of them."""
    group = list(pair)
    for name in known:
        if name not in group and all((name, one) in left or (one, name) in left for one in group):
            group.append(name)
    of = tuple(verdict for (a, b), verdict in left.items() if a in group and b in group)
    return _Clause(tuple(group), (), of)


def _sorted(clause: _Clause, known: Mapping[str, int]) -> _Clause:
    ones, others = (tuple(sorted(names, key=lambda n: known[n])) for names in (clause.ones, clause.others))
    return _Clause(ones, others, clause.verdicts)


def _what_would_decide(
    verdicts: Sequence[Verdict], known: Mapping[str, int], seconds: Mapping[str, float], goes_on: bool
) -> list[str]:
    """Of what is undecided: how many more seeds would tell, after how long, and the option that has them trained."""
    open_ones = [verdict for verdict in verdicts if verdict.decision == UNDECIDED]
    within_reach = [verdict for verdict in open_ones if verdict.more_seeds is not None]
    says = []
    if within_reach:
        names = sorted({name for v in within_reach for name in (v.a, v.b)}, key=lambda name: known[name])
        more = max(v.more_seeds or 0 for v in within_reach)
        every = more + max(v.seeds + v.dropped for v in within_reach)
        a_seed = sum(seconds[name] for name in names) if seconds.keys() >= set(names) else math.nan
        cost = f", {text}" if (text := _cost(more * a_seed)) else ""
        how = f"`--seeds until:{every}` goes on from here" if goes_on else f"`--seeds {every}` trains so many"
        option = f"; {how}" if every <= MAX_SEEDS else ""
        says.append(f"About {more:,} more seed{'' if more == 1 else 's'} of {_list(names)} would tell{cost}{option}.")
    if beyond := [f"{v.a} from {v.b}" for v in open_ones if v.more_seeds is None]:
        says.append(f"It takes more than {MOST_SEEDS:,} more seeds to tell {_list(beyond)}.")
    return says


def _seconds_of_a_seed(results: Sequence[Result], variant: str) -> float:
    """What a seed of a variant took on average, on all clocks; 0 where none ended.

    Of seeds that were trained side by side each has its share of the time that all took, and that of the epoch in which
    it was timed alone.
    """
    found = [result for result in results if result.variant.name == variant and result.history]
    each = []
    for result in found:
        training = result.train_seconds
        if math.isfinite(result.group_seconds):
            training = result.group_seconds / len(found) + result.solo_epoch_seconds
        each.append(training + result.evaluate_seconds + result.compile_seconds + result.other_seconds)
    each = [value for value in each if math.isfinite(value)]
    return sum(each) / len(each) if each else 0.0


def _cost(seconds: float) -> str:
    """About so many seconds for people, who plan by the minute; "" where it is not known."""
    if not math.isfinite(seconds):
        return ""
    minutes = seconds / 60
    if minutes < 0.75:
        return "less than a minute"
    count, unit = (round(minutes), "minute") if minutes < 120 else (round(minutes / 60), "hour")
    return f"about {count:,} {unit}{'' if count == 1 else 's'}"


def _list(names: Sequence[str], last: str = "and") -> str:
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
