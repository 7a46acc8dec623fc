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
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlplab.results import DIVERGED, FAILED, Outcome, Record, Result, choice_text, significant
from mlplab.spec import Comparison, Prediction, Search, Variant, load_experiment
from mlplab.statistics import exp, mean_interval

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", "not testable"
STATUSES = (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE)
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
"""What the interval of one number says of a claim."""

SEED_POINTS = 0.3
"""Differences of accuracy below this many points are what another seed may turn around, where there is but one."""
NEAR_ZERO = 0.01
"""A loss below this agrees with one that the report calls zero."""
SHARE = 0.2
"""Losses and the epoch of early stopping agree within this share of the published number."""
GAP_EPOCHS = 10
"""The gap between training and validation accuracy is averaged over this many last epochs."""
EDGE = 1e-9
"""Limits that still count as within are this much wider: numbers are rounded."""

Records = Mapping[str, Record]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds.

    Attributes:
        status: one of `STATUSES`.
        measured: our numbers as short text, "–" if there are none.
        evidence: sentences with the numbers, the experiment and the epochs that they are from.
        seeds: how many it stands on.
    """

    status: str
    measured: str
    evidence: str
    seeds: int = 1


@dataclass(frozen=True)
class Unit:
    """How a number is shown: `scale` times its distance from `zero`, formatted, and what it is counted in.

    A form such as ".3g" stands for as many significant digits without an exponent. What is `exact` has no interval: it
    is the same with every seed.
    """

    form: str
    suffix: str = ""
    scale: float = 1.0
    zero: float = 0.0
    exact: bool = False

    def _bare(self, value: float) -> str:
        shown = self.scale * (value - self.zero)
        return significant(shown, int(self.form[1:-1])) if self.form.endswith("g") else format(shown, self.form)

    def text(self, value: float) -> str:
        """`value` as text, "–" where it is not finite."""
        return f"{self._bare(value)}{self.suffix}" if math.isfinite(value) else "–"

    def spread(self, mean: float, low: float, high: float) -> str:
        """A mean with its interval, such as "97.90 % [97.80, 98.00]"; alone where there is none."""
        ends = f" [{self._bare(low)}, {self._bare(high)}]" if math.isfinite(high - low) and not self.exact else ""
        return f"{self.text(mean)}{ends}"


PERCENT, POINTS, SECONDS = Unit(".2f", " %", 100), Unit("+z.2f", " points"), Unit(",.1f", " s")
PLAIN, SHORT, EPOCH_SECONDS = Unit(".4f"), Unit(".2g"), Unit(".3g", " s")
WHOLE, EXACT = Unit(",.0f"), Unit(",.0f", exact=True)
GAP, TIMES, MORE = Unit(".2f", " points"), Unit(".2f", " times"), Unit("+z.0f", " %", 100, zero=1)


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that the trainings of one seed give, and what a claim allows it to be.

    Args:
        what: it is, in words.
        value: NaN where there is none; infinite where it is far from anything the claim allows.
        unit: how it is shown.
        low, high: the claim holds where it lies between them.
        allowed: the same in words; "" where the claim is not judged by it.
        doubt: how far another seed may move it; counts where there is one seed alone.
        ratio: whether seeds are averaged by their logarithms.
        named: whether its name belongs to it wherever it is shown.
    """

    what: str
    value: float
    unit: Unit
    low: float = -math.inf
    high: float = math.inf
    allowed: str = ""
    doubt: float = 0.0
    ratio: bool = False
    named: bool = False

    def says(self, low: float, high: float) -> str:
        """What the interval from `low` to `high` says of the claim; a limit itself is beyond."""
        if self.low < low and high < self.high:
            return HOLDS
        return FAILS if high <= self.low or low >= self.high else UNDECIDED


@dataclass(frozen=True)
class Seen:
    """What one seed shows of a claim.

    Attributes:
        measured, evidence: as a verdict has them, if this seed is the only one.
        shown: the numbers that stand beside the published ones.
        others: further numbers that are evidence, or that the claim is judged by.
        of: what the numbers are, as far as their names do not say it.
        note: a sentence that holds for any number of seeds.
        confirms: whether the claim is reproduced where all holds; else it can only be refuted.
    """

    measured: str
    evidence: str
    shown: tuple[Quantity, ...] = ()
    others: tuple[Quantity, ...] = ()
    of: str = ""
    note: str = ""
    confirms: bool = True

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All of them."""
        return self.shown + self.others

    @property
    def status(self) -> str:
        """The verdict of this seed alone."""
        judged = [quantity for quantity in self.quantities if quantity.allowed]
        return self.conclude([one.says(one.value - one.doubt, one.value + one.doubt) for one in judged])

    def conclude(self, words: Sequence[str]) -> str:
        """The status, where the numbers that are judged say `words`."""
        if FAILS in words:
            return NOT_REPRODUCED
        return REPRODUCED if words and self.confirms and UNDECIDED not in words else NOT_TESTABLE


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
        return self._spread(records)[0]

    def shown(self, records: Records) -> str:
        """Ours as text, with its interval if there are several seeds."""
        outcome = _outcome(records, self.experiment, self.variant)
        many = f" ({len(outcome.results)} seeds)" if outcome and len(outcome.results) > 1 else ""
        text = self.unit.spread(*self._spread(records))
        return text if text == "–" else f"{text}{many}"

    def unlike(self, records: Records) -> str:
        """Why ours cannot be compared with the report's, as part of a sentence; "" if it can, or there is none."""
        record = records.get(self.experiment)
        return unlike(record) if record and self.metric != "parameters" else ""

    def _spread(self, records: Records) -> tuple[float, float, float]:
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
        value = _or_far(self.measured(records))
        return Quantity(what=self.what, value=value, unit=self.unit, low=low, high=high, allowed=allowed)

    @property
    def tolerance(self) -> str:
        """The tolerance in words."""
        if self.metric == "parameters":
            return "exactly"
        if self.metric.endswith("accuracy"):
            return f"within {_points(self.points)}"
        return f"within {100 * SHARE:.0f} %" if self.published else f"below {NEAR_ZERO:g}"

    def distance(self, value: float) -> str:
        """How `value` compares with the published number: points, a ratio or a difference, "–" for NaN."""
        if not math.isfinite(value):
            return "–"
        if self.metric.endswith("accuracy"):
            return f"{100 * (value - self.published):+z.2f} points"
        if self.metric == "train_seconds":
            return _speed(self.published / value)
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


def judge(claim: Claim, records: Records) -> Verdict:
    """Whether `claim` holds on `records` (name of an experiment -> its record; any may be missing)."""
    each = {seed: _look(claim, shown) for seed, shown in _by_seed(claim, records).items()}
    if not each:
        return Verdict(NOT_TESTABLE, "–", f"{' and '.join(claim.experiments)} have no seed in common.")
    if len(each) > 1:
        verdict = _combined(claim, records, each)
    else:
        (seen,) = each.values()
        if isinstance(seen, str):
            verdict = Verdict(NOT_TESTABLE, _shown(claim, records), seen)
        else:
            verdict = Verdict(seen.status, seen.measured, seen.evidence)
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


def _get(records: Records, experiment: str, variant: str) -> Result:
    """A result that `_obstacle` has found to be there."""
    return records[experiment].result(variant)


def _obstacle(claim: Claim, records: Records, experiment: str, variant: str) -> str:
    """Why a claim cannot be judged by a training, as a sentence; "" if it can."""
    record = records.get(experiment)
    if record is None:
        return f"{experiment} left no record."
    if variant:
        result = _result(records, experiment, variant)
        if result is None:
            return f"{experiment} was run without the variant {variant!r}."
        if result.status == FAILED:
            why = (result.error.strip().splitlines() or ["without a message"])[-1]
            return f"The training {variant!r} of {experiment} failed: {why}"
        if not result.epochs:
            return f"The training {variant!r} of {experiment} completed no epoch."
    elif isinstance(record.experiment, Search) and not record.search:
        return f"The search {experiment} has no result."
    if claim.always:
        return ""
    if changed := unlike(record):
        return f"{experiment} was not run as in the report ({changed}): its numbers say nothing about the report's."
    return ""


def _shown(claim: Claim, records: Records) -> str:
    """Our numbers beside a claim's, "–" if there are none."""
    shown = [number.shown(records) for number in claim.numbers]
    return "–" if all(text == "–" for text in shown) else " / ".join(shown)


def _where(experiment: str, result: Result) -> str:
    ended = f"epoch {result.epochs:,}"
    if result.status == DIVERGED:
        ended += ", where it diverged"
    return f"{experiment}, {result.variant.name!r}, {ended}"


def _points(value: float) -> str:
    return f"{significant(value)} point{'' if value == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if math.isfinite(share) else "–"


def _speed(ratio: float) -> str:
    """How long ours takes where the report's takes `ratio` times as long."""
    if not math.isfinite(ratio) or ratio <= 0:
        return "–"
    if significant(ratio) == "1" or significant(1 / ratio) == "1":
        return "as fast"
    return f"{significant(ratio)} times as fast" if ratio >= 1 else f"{significant(1 / ratio)} times as long"


def _or_far(value: float) -> float:
    """A number that a training did not leave, since it diverged, is infinitely far from any."""
    return value if math.isfinite(value) else math.inf


def _each(result: Result) -> float:
    """Seconds of training an epoch, NaN if none were measured."""
    return result.train_seconds / result.epochs if result.epochs and result.train_seconds else math.nan


# ----------------------------------------------------------------------------------------------------- several seeds


@dataclass(frozen=True)
class Estimate:
    """A quantity over the seeds: its mean, with the interval, of the finite ones; how many of how many these are.

    Attributes:
        lost: seeds whose number is not finite. What is left is then a selection, which cannot bear a claim out.
    """

    quantity: Quantity
    mean: float
    low: float
    high: float
    count: int
    seeds: int
    lost: int

    @property
    def says(self) -> str:
        """What it says of the claim."""
        word = self.quantity.says(self.low, self.high)
        return UNDECIDED if word == HOLDS and self.lost else word

    @property
    def number(self) -> str:
        """Mean and interval as text, and of how many seeds if not of all."""
        some = f" ({self.count} of {self.seeds} seeds)" if self.count < self.seeds > 1 else ""
        return f"{self.quantity.unit.spread(self.mean, self.low, self.high)}{some}"

    @property
    def sentence(self) -> str:
        """What it is and, where the claim is judged by it, what it says, as part of a sentence."""
        says = f"{self.quantity.what} {self.number}"
        return f"{says}: {self.says} ({self.quantity.allowed})" if self.quantity.allowed else says


def _estimate(each: Sequence[Quantity], seeds: int) -> Estimate:
    """One quantity over the seeds that have it."""
    first, values = each[0], [one.value for one in each]
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not first.ratio)]
    lost = len(values) - len(finite)
    if not finite:
        nothing = math.inf if all(value == math.inf for value in values) else math.nan
        return Estimate(first, nothing, nothing, nothing, 0, seeds, lost)
    scale = list(map(math.log, finite)) if first.ratio else finite
    mean, low, high = mean_interval(scale)
    if first.ratio:
        mean, low, high = exp(mean), exp(low), exp(high)
    return Estimate(first, mean, low, high, len(finite), seeds, lost)


def _combined(claim: Claim, records: Records, each: Mapping[int, Seen | str]) -> Verdict:
    """The verdict of several seeds: the one place where a claim's numbers meet."""
    seen = [one for one in each.values() if isinstance(one, Seen)]
    left_out = Counter(one for one in each.values() if isinstance(one, str))
    if not seen:
        return Verdict(NOT_TESTABLE, _shown(claim, records), " ".join(left_out), len(each))
    found: dict[str, list[Quantity]] = {}
    for quantity in (quantity for one in seen for quantity in one.quantities):
        found.setdefault(quantity.what, []).append(quantity)
    estimates = {what: _estimate(same, len(each)) for what, same in found.items()}
    judged = [estimate for estimate in estimates.values() if estimate.quantity.allowed]
    shown = [estimates[what] for what in dict.fromkeys(quantity.what for one in seen for quantity in one.shown)]
    measured = " / ".join(f"{e.quantity.what} {e.number}" if e.quantity.named else e.number for e in shown)
    says = [
        f"{', '.join(claim.experiments)}{', ' if seen[0].of else ''}{seen[0].of}, means over {len(each)} seeds with "
        f"their 95 % intervals: {'; '.join(estimate.sentence for estimate in estimates.values())}."
    ]
    if any(estimate.says == UNDECIDED for estimate in judged):
        says.append(_why_undecided(judged))
    says += [f"{many} of {len(each)} seeds left out: {why}" for why, many in left_out.items()]
    says += _diverged(claim, records, list(each))
    says += [note for note in dict.fromkeys(one.note for one in seen) if note]
    status = seen[0].conclude([estimate.says for estimate in judged])
    return Verdict(status, f"{measured} ({len(each)} seeds)", " ".join(says), len(each))


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
            says.append(f"{experiment}, {variant!r}: {many} of {len(results)} seeds diverged.")
    return says


# ------------------------------------------------------------------------------------------------ what one seed shows


def _agreement(claim: Claim, records: Records) -> Seen:
    """Holds if all numbers agree."""
    says, place, numbers = [], "", tuple(number.quantity(records) for number in claim.numbers)
    for number, quantity in zip(claim.numbers, numbers, strict=True):
        value = number.measured(records)
        result = _get(records, number.experiment, number.variant)
        inside = "agrees" if quantity.says(quantity.value, quantity.value) == HOLDS else "does not agree"
        where = f"{_where(number.experiment, result)}: "
        says.append(
            f"{where if where != place else ''}{number.what.partition(',')[0]} {number.unit.text(value)} against "
            f"{number.text} ({number.distance(value)}), which {inside} ({number.tolerance})"
        )
        place = where
    of = "" if claim.always else "last epoch"
    return Seen(_shown(claim, records), f"{'; '.join(says)}.", numbers, of=of)


def _time(claim: Claim, records: Records) -> Seen:
    """Never a verdict: the report does not say what hardware it ran on."""
    says, seconds, ratios = [], [], []
    for number in claim.numbers:
        result = _get(records, number.experiment, number.variant)
        ratio = number.published / result.variant.epochs / _each(result)
        value = number.measured(records)
        seconds.append(Quantity(what=number.what, value=value, unit=SECONDS))
        what = f"{number.variant}, seconds an epoch divided by the report's"
        ratios.append(Quantity(what=what, value=1 / ratio, unit=Unit(".3g"), ratio=True))
        says.append(
            f"{_where(number.experiment, result)}: {number.unit.text(result.train_seconds)} of training against "
            f"{number.text}; an epoch is {_speed(ratio)}."
        )
    note = "The report does not name its hardware, so its seconds as such cannot be checked."
    return Seen(_shown(claim, records), " ".join([*says, note]), tuple(seconds), tuple(ratios), note=note)


def _winner(measured: str, scores: Mapping[str, float], claimed: str, says: str, of: str) -> Seen:
    """Whether `claimed` has the highest of `scores` (shares): it leads each of the others."""
    shown = tuple(Quantity(what=name, value=score, unit=PERCENT, named=True) for name, score in scores.items())
    others = {name: score for name, score in scores.items() if name != claimed and math.isfinite(score)}
    ours = scores.get(claimed, math.nan)
    ours = ours if math.isfinite(ours) else math.nan
    leads = tuple(
        Quantity(
            what=f"{claimed} minus {name}",
            value=100 * (ours - score),
            unit=POINTS,
            low=0,
            allowed="above 0",
            doubt=SEED_POINTS,
        )
        for name, score in others.items()
    )
    if not others or math.isnan(ours):
        return Seen(measured, f"{says}. There is nothing to compare.", shown, leads, of)
    lead = min(leads, key=lambda one: one.value).value
    rival = max(others, key=lambda name: others[name])
    says = f"{says}. {claimed} is {abs(lead):.2f} points {'above' if lead >= 0 else 'below'} {rival}"
    if abs(lead) < SEED_POINTS:
        says += f": less than the {_points(SEED_POINTS)} that one seed can decide"
    return Seen(measured, f"{says}.", shown, leads, of)


def _best_variant(experiment: str, claimed: str) -> Callable[[Claim, Records], Seen]:
    def look(claim: Claim, records: Records) -> Seen:
        scores = {r.variant.name: r.best("val_accuracy") for r in records[experiment].results if r.status != FAILED}
        measured = " / ".join(f"{name} {_percent(score)}" for name, score in scores.items())
        of = "best validation accuracies"
        return _winner(measured, scores, claimed, f"{experiment}, {of}: {measured}", of)

    return look


def roughness(values: list[float]) -> float:
    """How much a curve oscillates: the mean distance of a value from the middle of its two neighbours.

    Over the second half of the epochs; a straight trend counts 0. NaN where a value is not finite or fewer than three
    are left.
    """
    half = values[len(values) // 2 :]
    if len(half) < 3 or not all(map(math.isfinite, half)):
        return math.nan
    return statistics.fmean(abs(b - (a + c) / 2) for a, b, c in zip(half, half[1:], half[2:], strict=False))


MODES = ("batch size 1", "mini-batch SGD", "full batch")


def _rough(claim: Claim, records: Records) -> Seen:
    """Batch size 1 oscillates, full batch is smoothest: `claim.key` says which is asked."""
    rough = {mode: roughness(_get(records, "batch_modes", mode).history["val_loss"]) for mode in MODES}
    first, _, last = MODES
    if claim.key == "sgd-oscillates":
        apart = {f"{first} minus twice {mode}": rough[first] - 2 * rough[mode] for mode in MODES if mode != first}
    else:
        apart = {f"{mode} minus {last}": rough[mode] - rough[last] for mode in MODES if mode != last}
    measured = " / ".join(significant(value, 2) for value in rough.values())
    listed = ", ".join(f"{mode} {significant(value, 2)}" for mode, value in rough.items())
    of = "second half of the epochs, roughness of the validation loss (nats)"
    says = f"batch_modes, {of}: {listed}."
    if not all(map(math.isfinite, rough.values())):
        apart = dict.fromkeys(apart, math.nan)
        says += " A training has too few finite losses for a measure."
    shown = tuple(Quantity(what=mode, value=value, unit=SHORT) for mode, value in rough.items())
    others = tuple(
        Quantity(what=what, value=value, unit=SHORT, low=0, allowed="above 0") for what, value in apart.items()
    )
    return Seen(measured, says, shown, others, of)


def _gaps(result: Result) -> list[float]:
    """Training minus validation accuracy at each epoch, in points."""
    pairs = zip(result.history["accuracy"], result.history["val_accuracy"], strict=True)
    return [100 * (accuracy - validation) for accuracy, validation in pairs]


def _negligible(claim: Claim, records: Records) -> Seen:
    result = _get(records, "batch_1000", "full batch")
    gaps = _gaps(result)
    says = (
        f"{_where('batch_1000', result)}: accuracy {_percent(result.last('accuracy'))}, validation accuracy "
        f"{_percent(result.last('val_accuracy'))}, {gaps[-1]:+z.2f} points apart (at most {max(map(abs, gaps)):.2f} at "
        f"any epoch); loss {result.last('loss'):.4f}, validation loss {result.last('val_loss'):.4f}."
    )
    apart = Quantity(
        what="training minus validation accuracy",
        value=_or_far(gaps[-1]),
        unit=POINTS,
        low=-1,
        high=1,
        allowed="within 1 point of 0",
    )
    return Seen(f"{gaps[-1]:+z.2f} points", says, (apart,), of="last epoch")


def _decay_costs_time(claim: Claim, records: Records) -> Seen:
    plain, decay, both = (_each(_get(records, "decay_momentum", v)) for v in DECAYS)
    more, more_both = 100 * (decay / plain - 1), 100 * (both / plain - 1)
    longer = Quantity(
        what="seconds an epoch, with decay against without",
        value=decay / plain,
        unit=MORE,
        low=1.34 - EDGE,
        allowed="at least +34 %",
        ratio=True,
    )
    longer_both = Quantity(what="with decay and momentum against without", value=both / plain, unit=MORE, ratio=True)
    if not math.isfinite(more):
        return Seen("–", "decay_momentum has no training times.", (longer, longer_both))
    note = "Decay is one division a step."
    says = (
        f"decay_momentum, seconds of training an epoch: {significant(plain)} without, {significant(decay)} with decay "
        f"({more:+z.0f} %), {significant(both)} with decay and momentum ({more_both:+z.0f} %). {note}"
    )
    return Seen(f"{more:+z.0f} % / {more_both:+z.0f} %", says, (longer, longer_both), note=note)


def _stuck(claim: Claim, records: Records) -> Seen:
    result = _get(records, "sgd_decay_momentum", SGD_DECAY_MOMENTUM)
    accuracy = result.last("accuracy")
    says = f"{_where('sgd_decay_momentum', result)}: training accuracy {_percent(accuracy)} (chance is about 10 %)."
    if accuracy >= 0.5:
        says += " A training that learns so much is not stuck."
    else:
        says += " It learns next to nothing; but whether it rests in a minimum, its curves cannot show."
    learned = Quantity(what="last training accuracy", value=accuracy, unit=PERCENT, high=0.5, allowed="below 50 %")
    note = "Chance is about 10 %. Whether a training rests in a minimum, its curves cannot show."
    return Seen(_percent(accuracy), says, (learned,), note=note, confirms=False)


def _picture(claim: Claim, records: Records) -> Seen:
    found = records["predict"].predictions
    if found is None or not found.labels:
        return Seen("–", "predict has no predictions.")
    right = sum(label == predicted for label, predicted in zip(found.labels, found.predicted, strict=True))
    asked = _get(records, "optimizers", "RMSprop")
    trained = asked.test.get("accuracy", math.nan)
    apart = _or_far(abs(trained - found.test_accuracy))
    measured = f"{right} of {len(found.labels)} right"
    says = (
        f"predict: {measured}; on all test images the loaded model has {_percent(found.test_accuracy)}, the trained "
        f"one had {_percent(trained)}: {'the same model' if apart < 0.001 else 'not the same model'}."
    )
    if len(records["optimizers"].seeds) > 1:
        says += f" It is the model of one seed, {asked.seed}: an interval would say nothing of it."
    numbers = (
        Quantity(
            what="labelled right",
            value=right / len(found.labels),
            unit=PERCENT,
            low=0.9 - EDGE,
            allowed="at least nine in ten",
        ),
        Quantity(what="difference", value=apart, unit=PLAIN, high=0.001, allowed="below 0.1 points"),
    )
    return Seen(measured, says, numbers)


def _gap_shrinks(claim: Claim, records: Records) -> Seen:
    without, penalized = (
        statistics.fmean(_gaps(_get(records, "l2", name))[-GAP_EPOCHS:]) for name in ("baseline", "L2")
    )
    measured = f"{without:.2f} → {penalized:.2f} points"
    of = f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs"
    says = (
        f"l2, {of}: {measured}. Best validation "
        f"accuracies: {_percent(_get(records, 'l2', 'baseline').best('val_accuracy'))} without, "
        f"{_percent(_get(records, 'l2', 'L2').best('val_accuracy'))} with the penalty."
    )
    if not abs(abs(penalized) - abs(without)) >= SEED_POINTS:
        says += f" The gaps differ by less than the {_points(SEED_POINTS)} that one seed can decide."
    gaps = (
        Quantity(what="without the penalty", value=without, unit=GAP),
        Quantity(what="with it", value=penalized, unit=GAP),
    )
    shrunk = Quantity(
        what="smaller by",
        value=abs(without) - abs(penalized),
        unit=POINTS,
        low=0,
        allowed="above 0",
        doubt=SEED_POINTS,
    )
    return Seen(measured, says, gaps, (shrunk,), of)


def _same(claim: Claim, records: Records) -> Seen:
    plain, normed = (_get(records, "batch_norm", name) for name in BATCH_NORM)
    difference = 100 * (normed.best("val_accuracy") - plain.best("val_accuracy"))
    apart = Quantity(
        what="best validation accuracy with it minus that without",
        value=difference,
        unit=POINTS,
        low=-1,
        high=1,
        allowed="within 1 point of 0",
    )
    if not math.isfinite(difference):
        return Seen("–", "batch_norm has no validation accuracies to compare.", (apart,))
    says = (
        f"batch_norm, best validation accuracies: {_percent(plain.best('val_accuracy'))} without (epoch "
        f"{plain.best_epoch}), {_percent(normed.best('val_accuracy'))} with it (epoch {normed.best_epoch}): "
        f"{difference:+z.2f} points. Last training accuracies: {_percent(plain.last('accuracy'))} without, "
        f"{_percent(normed.last('accuracy'))} with it."
    )
    return Seen(f"{difference:+z.2f} points", says, (apart,))


FOUND = {"learning_rate": 0.01, "dropout": 0.2, "batch_size": 64}
"""What the report's search found, by the fields of `Variant`."""


def _found(claim: Claim, records: Records) -> Seen:
    search = records["random_search"].search
    assert search is not None
    best, wanted = search.best, choices_text(FOUND)
    scores = {choices_text(candidate.choices): candidate.mean for candidate in search.candidates}
    measured = choices_text(best.choices)
    says = f"random_search, best of {len(scores)}: {measured}, mean accuracy over the folds {_percent(best.mean)} "
    says += f"(standard deviation {_percent(best.std)}); the report's choice"
    if wanted not in scores:
        return Seen(measured, f"{says} ({wanted}) was not among those drawn.{_in_full(records)}")
    place = 1 + sum(score > scores[wanted] for score in scores.values())
    return _winner(measured, scores, wanted, f"{says} has {_percent(scores[wanted])}, place {place}", "")


def _in_full(records: Records) -> str:
    """What the winner and the report's choice came to when both were trained in full; "" where they were not."""
    found = records.get("best_found")
    best = {o.variant.name: o.best("val_accuracy") for o in found.outcomes} if found else {}
    if found is None or len(best) < 2 or shortened(found) or not all(map(math.isfinite, best.values())):
        return ""
    says = " Trained in full (best_found) their best validation accuracies are "
    says += ", ".join(f"{name} {_percent(value)}" for name, value in best.items())
    if len(found.seeds) > 1:
        one, other = best
        apart = _apart(found, lambda result: result.best("val_accuracy"), one, other)
        return f"{says}, means over {len(found.seeds)} seeds; {one} minus {other}: {apart.number}."
    apart_points = 100 * (max(best.values()) - min(best.values()))
    decided = "more" if apart_points >= SEED_POINTS else "less"
    return (
        f"{says}: {apart_points:.2f} points apart, {decided} than the {_points(SEED_POINTS)} that one seed can decide."
    )


def _apart(record: Record, value: Callable[[Result], float], one: str, other: str) -> Estimate:
    """How many points `one` is from `other`, over the seeds that have both."""
    each = []
    for seed in record.seeds:
        of = {r.variant.name: value(r) for r in record.of_seed(seed).results if r.status != FAILED}
        points = 100 * (of.get(one, math.nan) - of.get(other, math.nan))
        each.append(Quantity(what=f"{one} minus {other}", value=points, unit=POINTS))
    return _estimate(each, len(each))


def choices_text(choices: Mapping[str, object]) -> str:
    """A candidate's choices as text, in the order of the report's where they are the same fields."""
    order = [*(name for name in FOUND if name in choices), *(name for name in choices if name not in FOUND)]
    return ", ".join(f"{name} {choice_text(choices[name])}" for name in order)


TIMED = (
    ("cifar_baseline", "baseline"),
    ("l2", "L2"),
    ("dropout", "dropout 0.2"),
    ("dropout", "dropout 0.3"),
    ("dropout", "dropout 0.5"),
    ("early_stopping", "early stopping"),
    ("batch_norm", "dropout 0.3, batch norm"),
)
"""Part 2's trainings at one batch size. The search's winner may have another, and so another number of steps."""


def _no_big_difference(claim: Claim, records: Records) -> Seen:
    each = {variant: _each(_get(records, experiment, variant)) for experiment, variant in TIMED}
    each = {variant: seconds for variant, seconds in each.items() if math.isfinite(seconds)}
    if len(each) < 2:
        return Seen("–", "There are no training times to compare.")
    fast, slow = min(each, key=lambda v: each[v]), max(each, key=lambda v: each[v])
    ratio = each[slow] / each[fast]
    measured = f"{ratio:.2f} times"
    listed = ", ".join(f"{variant} {significant(seconds)}" for variant, seconds in each.items())
    says = (
        f"training_times, seconds of training an epoch at batch size 128: {listed}; the "
        f"slowest ({slow}) takes {measured} as long as the fastest ({fast})."
    )
    longer = Quantity(
        what="the slowest takes, against the fastest of the same seed,",
        value=ratio,
        unit=TIMES,
        high=1.5 + EDGE,
        allowed="at most 1.5 times",
        ratio=True,
    )
    seconds_each = tuple(
        Quantity(what=f"{variant}, seconds an epoch", value=seconds, unit=EPOCH_SECONDS)
        for variant, seconds in each.items()
    )
    return Seen(measured, says, (longer,), seconds_each)


# ------------------------------------------------------------------------------------------------------ explanations


def _rate(result: Result) -> str:
    """What a variant's decay does to its learning rate, by the formula and as recorded."""
    variant, steps = result.variant, result.epochs * result.steps_per_epoch
    implied = variant.learning_rate / (1 + variant.decay * steps)
    recorded = result.last("learning_rate")
    seen = f"recorded: {recorded:.6f}" if math.isfinite(recorded) else "not recorded"
    start, decay = f"{variant.learning_rate:g}", f"{variant.decay:g}".replace("e-0", "e-")
    return (
        f"A decay of {decay} lowers the learning rate in {result.epochs} epochs of {result.steps_per_epoch:,} steps "
        f"from {start} to {start} / (1 + {decay} · {steps:,}) = {implied:.6f} ({seen}), by "
        f"{100 * (1 - implied / variant.learning_rate):.1f} %"
    )


def _decay(records: Records) -> str:
    decay = _get(records, "decay_momentum", DECAYS[1])
    change = _apart(records["decay_momentum"], lambda result: result.last("val_accuracy"), DECAYS[1], DECAYS[0])
    cost = f"here the last validation accuracy with decay is {change.number} from that without"
    if not change.mean <= -5:
        return f"{_rate(decay)}, which cannot cost ten points: {cost}."
    return f"{_rate(decay)}; {cost}, more than so small a change explains."


def _momentum(records: Records) -> str:
    return f"{_rate(_get(records, 'decay_momentum', DECAYS[2]))}. {_step(records, 'decay_momentum', DECAYS[2])}"


def _single(records: Records) -> str:
    result = _get(records, "sgd_decay_momentum", SGD_DECAY_MOMENTUM)
    return f"{_step(records, 'sgd_decay_momentum', SGD_DECAY_MOMENTUM)} {_rate(result)}."


def _step(records: Records, experiment: str, name: str) -> str:
    """What a variant's momentum makes of its learning rate."""
    result = _get(records, experiment, name)
    variant: Variant = result.variant
    if variant.momentum >= 1:
        return "Its momentum never lets a step fade."
    factor = 1 / (1 - variant.momentum)
    size = "every single image" if variant.batch_size == 1 else f"every batch of {variant.batch_size}"
    return (
        f"A momentum of {variant.momentum:g} adds up to {significant(factor)} times the learning rate, "
        f"{significant(factor * variant.learning_rate)} for {size}, {result.steps_per_epoch:,} times an epoch."
    )


# ------------------------------------------------------------------------------------------------------- the claims

DECAYS = ("mini-batch SGD", "with decay", "with decay and momentum")
SGD_DECAY_MOMENTUM = "batch size 1, decay, momentum"
BATCH_NORM = ("dropout 0.3", "dropout 0.3, batch norm")
WITHIN = "within 1 point at the last epoch"
LEADS = "the best validation accuracy is the highest"
BY_FAR = f", by at least {_points(SEED_POINTS)}"
WITHIN_CIFAR = "both within 2 points at the last epoch"


def _reached(name: str, published: float, text: str) -> Number:
    return Number(f"validation accuracy, {name}", "decay_momentum", name, "val_accuracy", published, text)


def _took(experiment: str, variant: str, published: float, text: str) -> Number:
    return Number(f"training time, {variant}", experiment, variant, "train_seconds", published, text)


def _last(
    experiment: str, variant: str, published: Mapping[str, tuple[float, str]], points: float
) -> tuple[Number, ...]:
    words = {
        "loss": "loss",
        "val_loss": "validation loss",
        "accuracy": "accuracy",
        "val_accuracy": "validation accuracy",
    }
    return tuple(
        Number(f"{words[metric]}, {variant}", experiment, variant, metric, value, text, points)
        for metric, (value, text) in published.items()
    )


CLAIMS = (
    Claim(
        key="parameters",
        part=1,
        text="The MLP 784-128-64-10 has 109,386 parameters.",
        rule="exactly",
        look=_agreement,
        numbers=(Number("parameters", "batch_modes", "mini-batch SGD", "parameters", 109_386, "109,386"),),
        always=True,
    ),
    Claim(
        key="sgd-oscillates",
        part=1,
        text="SGD (batch size 1) oscillates.",
        rule="the roughness of its validation loss (mean distance of an epoch's from the middle of its neighbours', "
        "second half of the epochs) is at least twice that of each other mode",
        look=_rough,
        saying="oscillates",
        trainings=tuple(("batch_modes", mode) for mode in MODES),
    ),
    Claim(
        key="batch-smoothest",
        part=1,
        text="Full-batch gradient descent is smoothest.",
        rule="the roughness of its validation loss is the lowest of the three",
        look=_rough,
        saying="smoothest",
        trainings=tuple(("batch_modes", mode) for mode in MODES),
    ),
    Claim(
        key="sgd-time",
        part=1,
        text="SGD (batch size 1) takes 7,830.7 s for 50 epochs.",
        look=_time,
        numbers=(_took("batch_modes", "batch size 1", 7830.7, "7,830.7 s"),),
    ),
    Claim(
        key="batch-variance",
        part=1,
        text="Full batch has negligible variance between training and validation after 1,000 epochs.",
        rule="the last accuracies are less than 1 point apart",
        look=_negligible,
        saying="negligible variance",
        trainings=(("batch_1000", "full batch"),),
    ),
    Claim(
        key="batch-time",
        part=1,
        text="1,000 epochs of full batch take 594.5 s.",
        look=_time,
        numbers=(_took("batch_1000", "full batch", 594.5, "594.5 s"),),
    ),
    Claim(
        key="minibatch-accuracy",
        part=1,
        text="Mini-batch SGD reaches 97 %.",
        rule=WITHIN,
        look=_agreement,
        numbers=(_reached(DECAYS[0], 0.97, "97 %"),),
    ),
    Claim(
        key="decay-accuracy",
        part=1,
        text="With a decay of 1e-6 it reaches 87 %.",
        rule=WITHIN,
        look=_agreement,
        numbers=(_reached(DECAYS[1], 0.87, "87 %"),),
        trainings=(("decay_momentum", DECAYS[0]),),
        explain=_decay,
    ),
    Claim(
        key="momentum-accuracy",
        part=1,
        text="With the decay and a momentum of 0.9 it reaches 92 %.",
        rule=WITHIN,
        look=_agreement,
        numbers=(_reached(DECAYS[2], 0.92, "92 %"),),
        explain=_momentum,
    ),
    Claim(
        key="decay-times",
        part=1,
        text="The three take 177 s, 297.15 s and 293.73 s.",
        look=_time,
        numbers=tuple(
            _took("decay_momentum", variant, value, f"{value:g} s")
            for variant, value in zip(DECAYS, (177.0, 297.15, 293.73), strict=True)
        ),
    ),
    Claim(
        key="decay-costs-time",
        part=1,
        text="Decay costs time: 120 s more, 68 % (66 % with momentum).",
        rule="an epoch with decay takes at least 34 % longer than one without: half of what is claimed",
        look=_decay_costs_time,
        saying="+68 % / +66 %",
        trainings=tuple(("decay_momentum", variant) for variant in DECAYS),
    ),
    Claim(
        key="sgd-decay-momentum-accuracy",
        part=1,
        text="SGD (batch size 1) with decay and momentum reaches 20 %.",
        rule="within 10 points at the last epoch: so near to chance, a seed decides much",
        look=_agreement,
        numbers=(
            Number(
                f"validation accuracy, {SGD_DECAY_MOMENTUM}",
                "sgd_decay_momentum",
                SGD_DECAY_MOMENTUM,
                "val_accuracy",
                0.2,
                "20 %",
                10.0,
            ),
        ),
        explain=_single,
    ),
    Claim(
        key="stuck",
        part=1,
        text="It is stuck in a local minimum.",
        rule="refuted if the last training accuracy is 50 % or more; a low one cannot tell a minimum from large steps",
        look=_stuck,
        saying="stuck in a local minimum",
        trainings=(("sgd_decay_momentum", SGD_DECAY_MOMENTUM),),
    ),
    Claim(
        key="sgd-decay-momentum-time",
        part=1,
        text="It takes 7,577.7 s.",
        look=_time,
        numbers=(_took("sgd_decay_momentum", SGD_DECAY_MOMENTUM, 7577.7, "7,577.7 s"),),
    ),
    Claim(
        key="sgd-losses",
        part=1,
        text="SGD ends at a loss of 0.0503 and a validation loss of 0.0954.",
        rule="both within 20 % at the last epoch",
        look=_agreement,
        numbers=_last("optimizers", "SGD", {"loss": (0.0503, "0.0503"), "val_loss": (0.0954, "0.0954")}, 1.0),
    ),
    Claim(
        key="sgd-accuracies",
        part=1,
        text="SGD ends at accuracies of 0.98 (training) and 0.97 (validation).",
        rule="both within 1 point at the last epoch",
        look=_agreement,
        numbers=_last("optimizers", "SGD", {"accuracy": (0.98, "0.98"), "val_accuracy": (0.97, "0.97")}, 1.0),
    ),
    Claim(
        key="rmsprop-losses",
        part=1,
        text="RMSprop ends at a loss of about 0 and a validation loss of 0.15.",
        rule="below 0.01 and within 20 % at the last epoch",
        look=_agreement,
        numbers=_last("optimizers", "RMSprop", {"loss": (0.0, "≈ 0"), "val_loss": (0.15, "0.15")}, 1.0),
    ),
    Claim(
        key="rmsprop-accuracies",
        part=1,
        text="RMSprop ends at accuracies of 100 % (training) and 98 % (validation).",
        rule="both within 1 point at the last epoch",
        look=_agreement,
        numbers=_last("optimizers", "RMSprop", {"accuracy": (1.0, "100 %"), "val_accuracy": (0.98, "98 %")}, 1.0),
    ),
    Claim(
        key="rmsprop-best",
        part=1,
        text="RMSprop is the best.",
        rule=LEADS,
        alone=BY_FAR,
        look=_best_variant("optimizers", "RMSprop"),
        saying="RMSprop is the best",
        trainings=tuple(("optimizers", name) for name in ("SGD", "Adam", "RMSprop")),
    ),
    Claim(
        key="prediction",
        part=1,
        text="The RMSprop model, saved and loaded again, labels test images (a picture of samples).",
        rule="at least nine in ten of the images shown are labelled right, and the loaded model's test accuracy is "
        "that of the trained one within 0.1 points",
        look=_picture,
        saying="a picture",
        trainings=(("predict", ""), ("optimizers", "RMSprop")),
    ),
    Claim(
        key="l2-gap",
        part=2,
        text="L2 shrinks the gap between training and validation.",
        rule=f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs, is smaller",
        alone=BY_FAR.removeprefix(","),
        look=_gap_shrinks,
        saying="shrinks",
        trainings=(("l2", "baseline"), ("l2", "L2")),
    ),
    Claim(
        key="dropout-0.2",
        part=2,
        text="Dropout 0.2 ends at accuracies of 0.4978 (training) and 0.4780 (validation).",
        rule=WITHIN_CIFAR,
        look=_agreement,
        numbers=_last(
            "dropout", "dropout 0.2", {"accuracy": (0.4978, "0.4978"), "val_accuracy": (0.4780, "0.4780")}, 2.0
        ),
    ),
    Claim(
        key="dropout-0.3",
        part=2,
        text="Dropout 0.3 ends at accuracies of 0.4890 (training) and 0.4829 (validation).",
        rule=WITHIN_CIFAR,
        look=_agreement,
        numbers=_last(
            "dropout", "dropout 0.3", {"accuracy": (0.4890, "0.4890"), "val_accuracy": (0.4829, "0.4829")}, 2.0
        ),
    ),
    Claim(
        key="dropout-best",
        part=2,
        text="A dropout rate of 0.3 is best.",
        rule=LEADS,
        alone=BY_FAR,
        look=_best_variant("dropout", "dropout 0.3"),
        saying="0.3 is best",
        trainings=tuple(("dropout", f"dropout {rate}") for rate in (0.2, 0.3, 0.5)),
    ),
    Claim(
        key="stopped-at",
        part=2,
        text="Early stopping (patience 30, at most 300 epochs) ends the training at epoch 199.",
        rule="within 20 %: epochs 160 to 238",
        look=_agreement,
        numbers=(Number("last epoch", "early_stopping", "early stopping", "epochs", 199, "199"),),
    ),
    Claim(
        key="batch-norm",
        part=2,
        text="With batch normalization it is pretty much the same.",
        rule="the best validation accuracies are less than 1 point apart",
        look=_same,
        saying="pretty much the same",
        trainings=tuple(("batch_norm", name) for name in BATCH_NORM),
    ),
    Claim(
        key="search-best",
        part=2,
        text="Random search finds learning rate 0.01, dropout rate 0.2, batch size 64.",
        rule="the same candidate has the highest mean accuracy",
        alone=BY_FAR,
        look=_found,
        saying="learning_rate 0.01, dropout_rate 0.2, batch_size 64",
        trainings=(("random_search", ""),),
    ),
    Claim(
        key="training-times",
        part=2,
        text="There is no big difference in training time.",
        rule="per epoch, at batch size 128, the slowest takes at most 1.5 times as long as the fastest",
        look=_no_big_difference,
        saying="no big difference",
        trainings=(("training_times", ""), *TIMED),
    ),
)
"""The report's claims, in its order."""
