"""What the student report claims, and whether the trainings on record bear it out.

The report's accuracies and losses are those at the end of Keras' history, so ours are those of the last epoch, too:
`loss` and `accuracy` as averaged while the epoch trained, their `val_` twins on the validation images after it. Where
the report calls something the best, the best validation accuracy over the epochs counts.

A claim is looked at on each seed by itself: that gives numbers, such as an accuracy, or the difference of two
accuracies, and for each the limits within which it bears the claim out. With several seeds it is the 95 % interval of
the mean that has to lie within the limits (reproduced) or beyond one (not reproduced); if it holds a limit the claim is
undecided, which counts as "not testable". Of several numbers all have to lie within, or one beyond: each is wrongly
found beyond a limit at most once in forty times, so that two are at most once in twenty. Numbers have the intervals of
the tables, differences of trainings of the same seed those of the verdicts.

With one seed the number itself has to lie there, and if it is a difference of accuracies, by `SEED_POINTS`. A time on a
machine that the report does not name is not testable with any number of seeds.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.report.plan import quoted
from experiments.report.quantities import (
    EDGE,
    EXACT,
    NOT_TESTABLE,
    PERCENT,
    PLAIN,
    SECONDS,
    UNDECIDED,
    WHOLE,
    Estimate,
    Finding,
    Quantity,
    Seen,
    Unit,
    estimated,
)
from mlplab.amounts import significant
from mlplab.comparison import Comparison
from mlplab.loading import Prediction, load_experiment
from mlplab.records import Record
from mlplab.results import DIVERGED, FAILED, Outcome, Result
from mlplab.space import Search

SEED_POINTS = 0.3
"""Differences of accuracy below this many points are what another seed may turn around, where there is but one."""
NEAR_ZERO = 0.01
"""A loss below this agrees with one that the report calls zero."""
SHARE = 0.2
"""Losses and the epoch of early stopping agree within this share of the published number."""
GAP_EPOCHS = 10
"""The gap between training and validation accuracy is averaged over this many last epochs."""
Records = Mapping[str, Record]


@dataclass(frozen=True)
class Number:
    """A number of the report.

    Args:
        what: what it measures.
        experiment, variant: the training that has ours.
        metric: name of a metric, whose last value is meant, or `epochs`, `parameters`, `train_seconds`.
        published: its value; accuracies are shares.
        text: the same as the report writes it.
        points: how far an accuracy may be away, in points: 1 on MNIST, 2 on CIFAR-10.
    """

    what: str
    experiment: str
    variant: str
    metric: str
    published: float
    text: str
    points: float = 1.0

    def measured(self, records: Records) -> float:
        """Ours, the mean over the seeds; NaN where there is none that can be compared with the report's."""
        return self.spread(records)[0]

    def shown(self, records: Records) -> str:
        """Ours as text, with its interval if there are several seeds."""
        outcome = _outcome(records, self.experiment, self.variant)
        many = f" ({len(outcome.results)} seeds)" if outcome and len(outcome.results) > 1 else ""
        text = self.unit.spread(*self.spread(records))
        return text if text == "–" else f"{text}{many}"

    def unlike(self, records: Records) -> str:
        """Why ours cannot be compared with the report's, as part of a sentence; "" if it can, or there is none."""
        record = records.get(self.experiment)
        return unlike(record) if record and self.metric != "parameters" else ""

    def spread(self, records: Records) -> tuple[float, float, float]:
        """Ours, the mean over the seeds with the ends of its interval; NaN where none can be compared."""
        outcome = _outcome(records, self.experiment, self.variant)
        if outcome is None or self.unlike(records):
            return math.nan, math.nan, math.nan
        return outcome.over_seeds(self._of)

    def _of(self, result: Result) -> float:
        if result.status == FAILED:
            return math.nan
        if self.metric == "train_seconds":
            # The report's are those of all epochs.
            return (result.train_seconds or math.nan) if result.epochs == result.variant.epochs else math.nan
        if self.metric in ("epochs", "parameters"):
            return float(getattr(result, self.metric)) or math.nan
        return result.last(self.metric)

    @property
    def unit(self) -> Unit:
        """The report's own unit."""
        if self.metric == "train_seconds":
            return SECONDS
        if self.metric == "parameters":
            return EXACT
        if self.metric == "epochs":
            return WHOLE
        return PERCENT if "%" in self.text else PLAIN

    @property
    def limits(self) -> tuple[float, float]:
        """Between which a value agrees."""
        if not self.published:
            return -math.inf, NEAR_ZERO
        if self.metric == "parameters":
            within = 0.0
        else:
            within = self.points / 100 if self.metric.endswith("accuracy") else SHARE * self.published
        return self.published - within - EDGE, self.published + within + EDGE

    def quantity(self, records: Records) -> Quantity:
        """Ours, of records of one seed, beside what agrees with the report's; without a value it does not agree."""
        low, high = self.limits
        of = "" if self.metric == "parameters" else "of "
        allowed = f"{self.tolerance} {of}{self.text}" if self.published else self.tolerance
        value = or_far(self.measured(records))
        return Quantity(what=self.what, value=value, unit=self.unit, low=low, high=high, allowed=allowed)

    @property
    def tolerance(self) -> str:
        """The tolerance in words."""
        if self.metric == "parameters":
            return "exactly"
        if self.metric.endswith("accuracy"):
            return f"within {as_points(self.points)}"
        return f"within {100 * SHARE:.0f} %" if self.published else f"below {NEAR_ZERO:g}"

    def distance(self, value: float) -> str:
        """How `value` compares with the published number: points, a ratio or a difference, "–" for NaN."""
        if not math.isfinite(value):
            return "–"
        if self.metric.endswith("accuracy"):
            return f"{100 * (value - self.published):+z.2f} points"
        if self.metric == "train_seconds":
            return as_speed(self.published / value)
        if self.metric in ("epochs", "parameters"):
            return f"{value - self.published:+z,.0f}"
        return f"{100 * (value / self.published - 1):+z,.1f} %" if self.published else f"{value:+z.4f}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the report.

    Args:
        key: a short name.
        part: 1 (MNIST) or 2 (CIFAR-10).
        text: what the report says.
        look: what records of one seed show of it, that have all of `sources`, trained as their experiments say.
        numbers: the numbers it stands on.
        saying: its numbers or words as the report has them; those of `numbers` if empty.
        rule: what counts as reproduced; "" where nothing does.
        alone: what the rule adds where there is one seed.
        trainings: experiment and variant of each training that it needs besides those of `numbers`; a variant "" means
            the experiment as a whole.
        explain: a sentence more of evidence, whatever the verdict.
        headline: the claim in few words, where it is one of the main ones, which the page names first.
        always: whether it can be judged on stand-in data and on fewer epochs, too.
    """

    key: str
    part: int
    text: str
    look: Callable[["Claim", Records], Seen]
    numbers: tuple[Number, ...] = ()
    saying: str = ""
    rule: str = ""
    alone: str = ""
    trainings: tuple[tuple[str, str], ...] = ()
    explain: Callable[[Records], str] | None = None
    headline: str = ""
    always: bool = False

    @property
    def published(self) -> str:
        """The report's numbers or words, as it writes them."""
        return self.saying or " / ".join(number.text for number in self.numbers)

    def rule_of(self, seeds: int) -> str:
        """What counts as reproduced by so many seeds."""
        return self.rule if seeds > 1 else f"{self.rule}{self.alone}"

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """Experiment and variant of every training that is needed."""
        return tuple(dict.fromkeys([*((n.experiment, n.variant) for n in self.numbers), *self.trainings]))

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments that are needed."""
        return tuple(dict.fromkeys(experiment for experiment, _ in self.sources))


def assess(claim: Claim, records: Records) -> Finding:
    """Whether `claim` holds on `records` (name of an experiment -> its record; any may be missing)."""
    each = {seed: _look(claim, shown) for seed, shown in _by_seed(claim, records).items()}
    if not each:
        return Finding(NOT_TESTABLE, "–", f"{' and '.join(map(quoted, claim.experiments))} have no seed in common.")
    if len(each) > 1:
        verdict = _combined(claim, records, each)
    else:
        (seen,) = each.values()
        if isinstance(seen, str):
            verdict = Finding(NOT_TESTABLE, shown_of(claim, records), seen)
        else:
            verdict = Finding(seen.status, seen.measured, seen.evidence)
    if claim.explain and any(isinstance(seen, Seen) for seen in each.values()):
        verdict = replace(verdict, evidence=f"{verdict.evidence} {claim.explain(records)}")
    return verdict


def shortened(record: Record) -> str:
    """How a record was trained otherwise than its experiment's file says, as part of a sentence; "" if it was not."""
    full, made = load_experiment(record.experiment.name), record.experiment
    if not isinstance(full, Comparison | Search) or not isinstance(made, Comparison | Search):
        return ""
    planned = {result.variant.epochs for result in record.results} or {made.base.epochs}
    counts = [("epochs", " or ".join(f"{many:,}" for many in sorted(planned)), f"{full.base.epochs:,}")]
    if isinstance(full, Search) and isinstance(made, Search):
        counts = [
            (what, f"{getattr(made, what):,}", f"{getattr(full, what):,}") for what in ("candidates", "folds")
        ] + counts
    return ", ".join(f"{ours} {what} in place of {theirs}" for what, ours, theirs in counts if ours != theirs)


def stands_in(record: Record) -> bool:
    """Whether a record's data are not those that its experiment is about."""
    return "stand-in for" in record.data


def unlike(record: Record) -> str:
    """In what a record differs from its experiment as the report ran it, as part of a sentence; "" in nothing."""
    return ", ".join(filter(None, [f"on {record.data}" if stands_in(record) else "", shortened(record)]))


# ------------------------------------------------------------------------------------------------- what is on record


def _by_seed(claim: Claim, records: Records) -> dict[int, Records]:
    """The records for each seed by itself; as they are where a search or a prediction, of one seed, is needed."""
    needed = [records[name] for name in claim.experiments if name in records]
    of = [record.seeds for record in needed if record.results]
    if not of or any(isinstance(record.experiment, Search | Prediction) for record in needed):
        return {0: records}
    seeds = [seed for seed in of[0] if all(seed in others for others in of)]
    return {
        seed: {name: record.of_seed(seed) if record.results else record for name, record in records.items()}
        for seed in seeds
    }


def _look(claim: Claim, records: Records) -> Seen | str:
    """What one seed shows of a claim, or why nothing."""
    obstacle = next(filter(None, (_obstacle(claim, records, *source) for source in claim.sources)), "")
    return obstacle or claim.look(claim, records)


def _outcome(records: Records, experiment: str, variant: str) -> Outcome | None:
    record = records.get(experiment)
    return next((o for o in record.outcomes if o.variant.name == variant), None) if record else None


def _result(records: Records, experiment: str, variant: str) -> Result | None:
    outcome = _outcome(records, experiment, variant)
    return outcome.representative if outcome else None


def result_of(records: Records, experiment: str, variant: str) -> Result:
    """A result that `_obstacle` has found to be there."""
    return records[experiment].result(variant)


def _obstacle(claim: Claim, records: Records, experiment: str, variant: str) -> str:
    """Why a claim cannot be judged by a training, as a sentence; "" if it can."""
    record = records.get(experiment)
    if record is None:
        return f"{quoted(experiment)} left no record."
    if variant:
        result = _result(records, experiment, variant)
        if result is None:
            return f"{quoted(experiment)} was run without the variant {variant!r}."
        if result.status == FAILED:
            why = (result.error.strip().splitlines() or ["without a message"])[-1]
            return f"The training {variant!r} of {quoted(experiment)} failed: {why}"
        if not result.epochs:
            return f"The training {variant!r} of {quoted(experiment)} completed no epoch."
    elif isinstance(record.experiment, Search) and not record.search:
        return f"{quoted(experiment)} has no result."
    if claim.always:
        return ""
    if changed := unlike(record):
        says = f"{quoted(experiment)} was not run as in the report ({changed})"
        return f"{says}: its numbers say nothing about the report's."
    return ""


def shown_of(claim: Claim, records: Records) -> str:
    """Our numbers beside a claim's, "–" if there are none."""
    shown = [number.shown(records) for number in claim.numbers]
    return "–" if all(text == "–" for text in shown) else " / ".join(shown)


def place_of(experiment: str, result: Result) -> str:
    """Where a number was read: the experiment, the variant and the epoch."""
    ended = f"epoch {result.epochs:,}"
    if result.status == DIVERGED:
        ended += ", where it diverged"
    return f"{quoted(experiment)}, {result.variant.name!r}, {ended}"


def as_points(value: float) -> str:
    """A difference of accuracies in words."""
    return f"{significant(value)} point{'' if value == 1 else 's'}"


def as_percent(share: float) -> str:
    """A share as text; a dash where there is none."""
    return f"{100 * share:.2f} %" if math.isfinite(share) else "–"


def as_speed(ratio: float) -> str:
    """How long ours takes where the report's takes `ratio` times as long."""
    if not math.isfinite(ratio) or ratio <= 0:
        return "–"
    if significant(ratio) == "1" or significant(1 / ratio) == "1":
        return "as fast"
    return f"{significant(ratio)} times as fast" if ratio >= 1 else f"{significant(1 / ratio)} times as long"


def or_far(value: float) -> float:
    """A number that a training did not leave, since it diverged, is infinitely far from any."""
    return value if math.isfinite(value) else math.inf


def epoch_seconds(result: Result) -> float:
    """Seconds of training an epoch, NaN if none were measured."""
    return result.train_seconds / result.epochs if result.epochs and result.train_seconds else math.nan


# ----------------------------------------------------------------------------------------------------- several seeds


def _combined(claim: Claim, records: Records, each: Mapping[int, Seen | str]) -> Finding:
    """The verdict of several seeds: the one place where a claim's numbers meet."""
    seen = [one for one in each.values() if isinstance(one, Seen)]
    left_out = Counter(one for one in each.values() if isinstance(one, str))
    if not seen:
        return Finding(NOT_TESTABLE, shown_of(claim, records), " ".join(left_out), len(each))
    found: dict[str, list[Quantity]] = {}
    for quantity in (quantity for one in seen for quantity in one.quantities):
        found.setdefault(quantity.what, []).append(quantity)
    estimates = {what: estimated(same, len(each)) for what, same in found.items()}
    judged = [estimate for estimate in estimates.values() if estimate.quantity.allowed]
    shown = [estimates[what] for what in dict.fromkeys(quantity.what for one in seen for quantity in one.shown)]
    measured = " / ".join(f"{e.quantity.what} {e.number}" if e.quantity.named else e.number for e in shown)
    about = ", ".join([*map(quoted, claim.experiments), *filter(None, [seen[0].of])])
    says = [
        f"{about}, means over {len(each)} seeds with "
        f"their 95 % intervals: {'; '.join(estimate.sentence for estimate in estimates.values())}."
    ]
    if any(estimate.says == UNDECIDED for estimate in judged):
        says.append(_why_undecided(judged))
    says += [f"{many} of {len(each)} seeds left out: {why}" for why, many in left_out.items()]
    says += _diverged(claim, records, list(each))
    says += [note for note in dict.fromkeys(one.note for one in seen) if note]
    status = seen[0].conclude([estimate.says for estimate in judged])
    return Finding(status, f"{measured} ({len(each)} seeds)", " ".join(says), len(each))


def _why_undecided(judged: Sequence[Estimate]) -> str:
    open_ones = [estimate for estimate in judged if estimate.says == UNDECIDED]
    if any(estimate.count == 1 for estimate in open_ones):
        return "Undecided: one seed alone has no interval."
    if any(estimate.lost for estimate in open_ones):
        return "Undecided: the seeds without a number may not be like the others."
    return "Undecided: an interval lies on both sides of a limit."


def _diverged(claim: Claim, records: Records, seeds: Sequence[int]) -> list[str]:
    """Which of the claim's trainings diverged, as sentences."""
    says = []
    for experiment, variant in claim.sources:
        outcome = _outcome(records, experiment, variant)
        results = [result for result in outcome.results if result.seed in seeds] if outcome else []
        if many := sum(result.status == DIVERGED for result in results):
            says.append(f"{quoted(experiment)}, {variant!r}: {many} of {len(results)} seeds diverged.")
    return says
