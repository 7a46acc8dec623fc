"""What the student report claims, and whether the trainings on record bear it out.

The report's accuracies and losses are those at the end of Keras' history, so ours are those of the last epoch, too:
`loss` and `accuracy` as averaged while the epoch trained, their `val_` twins on the validation images after it. Where
the report calls something the best, the best validation accuracy over the epochs counts.

Every comparison has one seed. A difference below `SEED_POINTS` is not a verdict, and neither is a time on a machine
that the report does not name: both are "not testable", with our numbers as evidence.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlplab.results import DIVERGED, FAILED, Record, Result
from mlplab.spec import Comparison, Search, Variant, load_experiment

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", "not testable"
STATUSES = (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE)

SEED_POINTS = 0.3
"""Differences of accuracy below this many points are what another seed may turn around."""
NEAR_ZERO = 0.01
"""A loss below this agrees with one that the report calls zero."""
SHARE = 0.2
"""Losses and the epoch of early stopping agree within this share of the published number."""
GAP_EPOCHS = 10
"""The gap between training and validation accuracy is averaged over this many last epochs."""

Records = Mapping[str, Record]


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds.

    Attributes:
        status: one of `STATUSES`.
        measured: our numbers as short text, "–" if there are none.
        evidence: sentences with the numbers, the experiment and the epochs that they are from.
    """

    status: str
    measured: str
    evidence: str


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
        """Ours, NaN where there is none."""
        result = _result(records, self.experiment, self.variant)
        if result is None or result.status == FAILED:
            return math.nan
        if self.metric in ("epochs", "parameters", "train_seconds"):
            return float(getattr(result, self.metric)) or math.nan
        return result.last(self.metric)

    def show(self, value: float) -> str:
        """`value` in the report's own unit, "–" for NaN."""
        if not math.isfinite(value):
            return "–"
        if self.metric == "train_seconds":
            return f"{value:,.1f} s"
        if self.metric in ("epochs", "parameters"):
            return f"{value:,.0f}"
        return f"{100 * value:.2f} %" if "%" in self.text else f"{value:.4f}"

    def agrees(self, value: float) -> bool:
        """Whether `value` is within the tolerance."""
        if self.metric == "parameters":
            return value == self.published
        if self.metric.endswith("accuracy"):
            return abs(value - self.published) <= self.points / 100 + 1e-9
        if not self.published:
            return value < NEAR_ZERO
        return abs(value - self.published) <= SHARE * self.published

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
            return f"{100 * (value - self.published):+.2f} points"
        if self.metric == "train_seconds":
            return _speed(self.published / value)
        if self.metric in ("epochs", "parameters"):
            return f"{value - self.published:+,.0f}"
        return f"{100 * (value / self.published - 1):+.1f} %" if self.published else f"{value:+.4f}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the report.

    Args:
        key: a short name.
        part: 1 (MNIST) or 2 (CIFAR-10).
        text: what the report says.
        verdict: judges it on records that have all of `sources`, trained as their experiments say.
        numbers: the numbers it stands on.
        saying: its numbers or words as the report has them; those of `numbers` if empty.
        rule: what counts as reproduced; "" where nothing does.
        trainings: experiment and variant of each training that it needs besides those of `numbers`; a variant "" means
            the experiment as a whole.
        explain: a sentence more of evidence, whatever the verdict.
        always: whether it can be judged on stand-in data and on fewer epochs, too.
    """

    key: str
    part: int
    text: str
    verdict: Callable[["Claim", Records], Verdict]
    numbers: tuple[Number, ...] = ()
    saying: str = ""
    rule: str = ""
    trainings: tuple[tuple[str, str], ...] = ()
    explain: Callable[[Records], str] | None = None
    always: bool = False

    @property
    def published(self) -> str:
        """The report's numbers or words, as it writes them."""
        return self.saying or " / ".join(number.text for number in self.numbers)

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
    obstacle = next(filter(None, (_obstacle(claim, records, *source) for source in claim.sources)), "")
    if obstacle:
        verdict = Verdict(NOT_TESTABLE, _shown(claim, records), obstacle)
    else:
        verdict = claim.verdict(claim, records)
        if claim.explain:
            verdict = Verdict(verdict.status, verdict.measured, f"{verdict.evidence} {claim.explain(records)}")
    return verdict


def shortened(record: Record) -> str:
    """How a record was trained otherwise than its experiment's file says, as half a sentence; "" if it was not."""
    full = load_experiment(record.experiment.name)
    if isinstance(full, Search) and isinstance(record.experiment, Search):
        for what in ("candidates", "folds"):
            if getattr(record.experiment, what) != getattr(full, what):
                return f"{getattr(record.experiment, what)} {what} in place of {getattr(full, what)}"
    if isinstance(full, Comparison | Search) and isinstance(record.experiment, Comparison | Search):
        planned = {result.variant.epochs for result in record.results} or {record.experiment.base.epochs}
        if planned != {full.base.epochs}:
            return f"{' or '.join(map(str, sorted(planned)))} epochs in place of {full.base.epochs}"
    return ""


def stands_in(record: Record) -> bool:
    """Whether a record's data are not those that its experiment is about."""
    return "stand-in for" in record.data


# ------------------------------------------------------------------------------------------------- what is on record


def _result(records: Records, experiment: str, variant: str) -> Result | None:
    record = records.get(experiment)
    return next((r for r in record.results if r.variant.name == variant), None) if record else None


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
    if stands_in(record):
        return f"{experiment} ran on {record.data}: its numbers say nothing about the report's."
    if changed := shortened(record):
        return f"{experiment} was run with {changed}."
    return ""


def _shown(claim: Claim, records: Records) -> str:
    """Our numbers beside a claim's, "–" if there are none."""
    shown = [number.show(number.measured(records)) for number in claim.numbers]
    return "–" if all(text == "–" for text in shown) else " / ".join(shown)


def _where(experiment: str, result: Result) -> str:
    ended = f"epoch {result.epochs}"
    if result.status == DIVERGED:
        ended += ", where it diverged"
    return f"{experiment}, {result.variant.name!r}, {ended}"


def _points(value: float) -> str:
    return f"{value:.3g} point{'' if value == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if math.isfinite(share) else "–"


def _speed(ratio: float) -> str:
    """How long ours takes where the report's takes `ratio` times as long."""
    if not math.isfinite(ratio) or ratio <= 0:
        return "–"
    return f"{ratio:.3g} times as fast" if ratio >= 1 else f"{1 / ratio:.3g} times as long"


def _each(result: Result) -> float:
    """Seconds of training an epoch, NaN if none were measured."""
    return result.train_seconds / result.epochs if result.epochs and result.train_seconds else math.nan


# ---------------------------------------------------------------------------------------------------------- verdicts


def _agreement(claim: Claim, records: Records) -> Verdict:
    """Reproduced if all numbers agree."""
    good, says, place = True, [], ""
    for number in claim.numbers:
        value = number.measured(records)
        good = good and number.agrees(value)
        result = _get(records, number.experiment, number.variant)
        inside = "agrees" if number.agrees(value) else "does not agree"
        where = f"{_where(number.experiment, result)}: "
        says.append(
            f"{where if where != place else ''}{number.what.partition(',')[0]} {number.show(value)} against "
            f"{number.text} ({number.distance(value)}), which {inside} ({number.tolerance})"
        )
        place = where
    return Verdict(REPRODUCED if good else NOT_REPRODUCED, _shown(claim, records), f"{'; '.join(says)}.")


def _time(claim: Claim, records: Records) -> Verdict:
    """Never a verdict: the report does not say what hardware it ran on."""
    says = []
    for number in claim.numbers:
        result = _get(records, number.experiment, number.variant)
        ratio = number.published / result.variant.epochs / _each(result)
        says.append(
            f"{_where(number.experiment, result)}: {number.show(result.train_seconds)} of training against "
            f"{number.text}; an epoch is {_speed(ratio)}."
        )
    says.append("The report does not name its hardware, so its seconds as such cannot be checked.")
    return Verdict(NOT_TESTABLE, _shown(claim, records), " ".join(says))


def _winner(measured: str, scores: Mapping[str, float], claimed: str, says: str) -> Verdict:
    """Whether `claimed` has the highest of `scores` (shares) by at least what another seed would not turn around."""
    others = {name: score for name, score in scores.items() if name != claimed and math.isfinite(score)}
    if not others or not math.isfinite(scores.get(claimed, math.nan)):
        return Verdict(NOT_TESTABLE, measured, f"{says}. There is nothing to compare.")
    rival = max(others, key=lambda name: others[name])
    lead = 100 * (scores[claimed] - others[rival])
    says = f"{says}. {claimed} is {abs(lead):.2f} points {'above' if lead >= 0 else 'below'} {rival}"
    if abs(lead) < SEED_POINTS:
        return Verdict(
            NOT_TESTABLE, measured, f"{says}: less than the {_points(SEED_POINTS)} that one seed can decide."
        )
    return Verdict(REPRODUCED if lead > 0 else NOT_REPRODUCED, measured, f"{says}.")


def _best_variant(experiment: str, claimed: str) -> Callable[[Claim, Records], Verdict]:
    def verdict(claim: Claim, records: Records) -> Verdict:
        scores = {r.variant.name: r.best("val_accuracy") for r in records[experiment].results if r.status != FAILED}
        measured = " / ".join(f"{name} {_percent(score)}" for name, score in scores.items())
        return _winner(measured, scores, claimed, f"{experiment}, best validation accuracies: {measured}")

    return verdict


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


def _rough(claim: Claim, records: Records) -> Verdict:
    """Batch size 1 oscillates, full batch is smoothest: `claim.key` says which is asked."""
    rough = {mode: roughness(_get(records, "batch_modes", mode).history["val_loss"]) for mode in MODES}
    measured = " / ".join(f"{value:.2g}" for value in rough.values())
    listed = ", ".join(f"{mode} {value:.2g}" for mode, value in rough.items())
    says = f"batch_modes, second half of the epochs, roughness of the validation loss (nats): {listed}."
    if not all(map(math.isfinite, rough.values())):
        return Verdict(NOT_TESTABLE, measured, f"{says} A training has too few finite losses for a measure.")
    first, middle, last = rough.values()
    holds = first >= 2 * max(middle, last) if claim.key == "sgd-oscillates" else last < min(first, middle)
    return Verdict(REPRODUCED if holds else NOT_REPRODUCED, measured, says)


def _gaps(result: Result) -> list[float]:
    """Training minus validation accuracy at each epoch, in points."""
    pairs = zip(result.history["accuracy"], result.history["val_accuracy"], strict=True)
    return [100 * (accuracy - validation) for accuracy, validation in pairs]


def _negligible(claim: Claim, records: Records) -> Verdict:
    result = _get(records, "batch_1000", "full batch")
    gaps = _gaps(result)
    says = (
        f"{_where('batch_1000', result)}: accuracy {_percent(result.last('accuracy'))}, validation accuracy "
        f"{_percent(result.last('val_accuracy'))}, {gaps[-1]:+.2f} points apart (at most {max(map(abs, gaps)):.2f} at "
        f"any epoch); loss {result.last('loss'):.4f}, validation loss {result.last('val_loss'):.4f}."
    )
    return Verdict(REPRODUCED if abs(gaps[-1]) < 1 else NOT_REPRODUCED, f"{gaps[-1]:+.2f} points", says)


def _decay_costs_time(claim: Claim, records: Records) -> Verdict:
    plain, decay, both = (_each(_get(records, "decay_momentum", v)) for v in DECAYS)
    more, more_both = 100 * (decay / plain - 1), 100 * (both / plain - 1)
    if not math.isfinite(more):
        return Verdict(NOT_TESTABLE, "–", "decay_momentum has no training times.")
    says = (
        f"decay_momentum, seconds of training an epoch: {plain:.3g} without, {decay:.3g} with decay ({more:+.0f} %), "
        f"{both:.3g} with decay and momentum ({more_both:+.0f} %). Decay is one division a step."
    )
    return Verdict(REPRODUCED if more >= 34 else NOT_REPRODUCED, f"{more:+.0f} % / {more_both:+.0f} %", says)


def _stuck(claim: Claim, records: Records) -> Verdict:
    result = _get(records, "sgd_decay_momentum", SGD_DECAY_MOMENTUM)
    accuracy = result.last("accuracy")
    says = f"{_where('sgd_decay_momentum', result)}: training accuracy {_percent(accuracy)} (chance is about 10 %)."
    if accuracy >= 0.5:
        return Verdict(NOT_REPRODUCED, _percent(accuracy), f"{says} A training that learns so much is not stuck.")
    says += " It learns next to nothing; but whether it rests in a minimum, its curves cannot show."
    return Verdict(NOT_TESTABLE, _percent(accuracy), says)


def _picture(claim: Claim, records: Records) -> Verdict:
    found = records["predict"].predictions
    if found is None or not found.labels:
        return Verdict(NOT_TESTABLE, "–", "predict has no predictions.")
    right = sum(label == predicted for label, predicted in zip(found.labels, found.predicted, strict=True))
    trained = _get(records, "optimizers", "RMSprop").test.get("accuracy", math.nan)
    same = abs(trained - found.test_accuracy) < 0.001
    measured = f"{right} of {len(found.labels)} right"
    says = (
        f"predict: {measured}; on all test images the loaded model has {_percent(found.test_accuracy)}, the trained "
        f"one had {_percent(trained)}: {'the same model' if same else 'not the same model'}."
    )
    return Verdict(REPRODUCED if same and right >= 0.9 * len(found.labels) else NOT_REPRODUCED, measured, says)


def _gap_shrinks(claim: Claim, records: Records) -> Verdict:
    without, penalized = (
        statistics.fmean(_gaps(_get(records, "l2", name))[-GAP_EPOCHS:]) for name in ("baseline", "L2")
    )
    measured = f"{without:.2f} → {penalized:.2f} points"
    says = (
        f"l2, training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs: {measured}. Best validation "
        f"accuracies: {_percent(_get(records, 'l2', 'baseline').best('val_accuracy'))} without, "
        f"{_percent(_get(records, 'l2', 'L2').best('val_accuracy'))} with the penalty."
    )
    if not abs(abs(penalized) - abs(without)) >= SEED_POINTS:
        says += f" The gaps differ by less than the {_points(SEED_POINTS)} that one seed can decide."
        return Verdict(NOT_TESTABLE, measured, says)
    return Verdict(REPRODUCED if abs(penalized) < abs(without) else NOT_REPRODUCED, measured, says)


def _same(claim: Claim, records: Records) -> Verdict:
    plain, normed = (_get(records, "batch_norm", name) for name in BATCH_NORM)
    difference = 100 * (normed.best("val_accuracy") - plain.best("val_accuracy"))
    if not math.isfinite(difference):
        return Verdict(NOT_TESTABLE, "–", "batch_norm has no validation accuracies to compare.")
    says = (
        f"batch_norm, best validation accuracies: {_percent(plain.best('val_accuracy'))} without (epoch "
        f"{plain.best_epoch}), {_percent(normed.best('val_accuracy'))} with it (epoch {normed.best_epoch}): "
        f"{difference:+.2f} points. Last training accuracies: {_percent(plain.last('accuracy'))} without, "
        f"{_percent(normed.last('accuracy'))} with it."
    )
    return Verdict(REPRODUCED if abs(difference) < 1 else NOT_REPRODUCED, f"{difference:+.2f} points", says)


FOUND = {"learning_rate": 0.01, "dropout": 0.2, "batch_size": 64}
"""What the report's search found, by the fields of `Variant`."""


def _found(claim: Claim, records: Records) -> Verdict:
    search = records["random_search"].search
    assert search is not None
    best, wanted = search.best, choices_text(FOUND)
    scores = {choices_text(candidate.choices): candidate.mean for candidate in search.candidates}
    measured = choices_text(best.choices)
    says = f"random_search, best of {len(scores)}: {measured}, mean accuracy over the folds {_percent(best.mean)} "
    says += f"(standard deviation {_percent(best.std)}); the report's choice"
    if wanted not in scores:
        return Verdict(NOT_TESTABLE, measured, f"{says} ({wanted}) was not among those drawn.{_in_full(records)}")
    place = 1 + sum(score > scores[wanted] for score in scores.values())
    return _winner(measured, scores, wanted, f"{says} has {_percent(scores[wanted])}, place {place}")


def _in_full(records: Records) -> str:
    """What the winner and the report's choice came to when both were trained in full; "" where they were not."""
    found = records.get("best_found")
    best = {r.variant.name: r.best("val_accuracy") for r in found.results} if found else {}
    if found is None or len(best) < 2 or shortened(found) or not all(map(math.isfinite, best.values())):
        return ""
    texts = ", ".join(f"{name} {_percent(value)}" for name, value in best.items())
    apart = 100 * (max(best.values()) - min(best.values()))
    decided = "more" if apart >= SEED_POINTS else "less"
    says = f"{apart:.2f} points apart, {decided} than the {_points(SEED_POINTS)} that one seed can decide"
    return f" Trained in full (best_found) their best validation accuracies are {texts}: {says}."


def choices_text(choices: Mapping[str, object]) -> str:
    """A candidate's choices as text, in the order of the report's where they are the same fields."""
    order = [*(name for name in FOUND if name in choices), *(name for name in choices if name not in FOUND)]
    return ", ".join(f"{name} {choices[name]}" for name in order)


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


def _no_big_difference(claim: Claim, records: Records) -> Verdict:
    each = {variant: _each(_get(records, experiment, variant)) for experiment, variant in TIMED}
    each = {variant: seconds for variant, seconds in each.items() if math.isfinite(seconds)}
    if len(each) < 2:
        return Verdict(NOT_TESTABLE, "–", "There are no training times to compare.")
    fast, slow = min(each, key=lambda v: each[v]), max(each, key=lambda v: each[v])
    ratio = each[slow] / each[fast]
    measured = f"{ratio:.2f} times"
    listed = ", ".join(f"{variant} {seconds:.3g}" for variant, seconds in each.items())
    says = (
        f"training_times, seconds of training an epoch at batch size 128: {listed}; the "
        f"slowest ({slow}) takes {measured} as long as the fastest ({fast})."
    )
    return Verdict(REPRODUCED if ratio <= 1.5 else NOT_REPRODUCED, measured, says)


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
    plain, decay = (_get(records, "decay_momentum", variant) for variant in DECAYS[:2])
    change = 100 * (decay.last("val_accuracy") - plain.last("val_accuracy"))
    cost = f"here the last validation accuracy with decay is {change:+.2f} points from that without"
    if not change <= -5:
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
        f"A momentum of {variant.momentum:g} adds up to {factor:.3g} times the learning rate, "
        f"{factor * variant.learning_rate:.3g} for {size}, {result.steps_per_epoch:,} times an epoch."
    )


# ------------------------------------------------------------------------------------------------------- the claims

DECAYS = ("mini-batch SGD", "with decay", "with decay and momentum")
SGD_DECAY_MOMENTUM = "batch size 1, decay, momentum"
BATCH_NORM = ("dropout 0.3", "dropout 0.3, batch norm")
WITHIN = "within 1 point at the last epoch"
LEADS = f"the best validation accuracy is the highest, by at least {_points(SEED_POINTS)}"
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
        verdict=_agreement,
        numbers=(Number("parameters", "batch_modes", "mini-batch SGD", "parameters", 109_386, "109,386"),),
        always=True,
    ),
    Claim(
        key="sgd-oscillates",
        part=1,
        text="SGD (batch size 1) oscillates.",
        rule="the roughness of its validation loss (mean distance of an epoch's from the middle of its neighbours', "
        "second half of the epochs) is at least twice that of each other mode",
        verdict=_rough,
        saying="oscillates",
        trainings=tuple(("batch_modes", mode) for mode in MODES),
    ),
    Claim(
        key="batch-smoothest",
        part=1,
        text="Full-batch gradient descent is smoothest.",
        rule="the roughness of its validation loss is the lowest of the three",
        verdict=_rough,
        saying="smoothest",
        trainings=tuple(("batch_modes", mode) for mode in MODES),
    ),
    Claim(
        key="sgd-time",
        part=1,
        text="SGD (batch size 1) takes 7,830.7 s for 50 epochs.",
        verdict=_time,
        numbers=(_took("batch_modes", "batch size 1", 7830.7, "7,830.7 s"),),
    ),
    Claim(
        key="batch-variance",
        part=1,
        text="Full batch has negligible variance between training and validation after 1,000 epochs.",
        rule="the last accuracies are less than 1 point apart",
        verdict=_negligible,
        saying="negligible variance",
        trainings=(("batch_1000", "full batch"),),
    ),
    Claim(
        key="batch-time",
        part=1,
        text="1,000 epochs of full batch take 594.5 s.",
        verdict=_time,
        numbers=(_took("batch_1000", "full batch", 594.5, "594.5 s"),),
    ),
    Claim(
        key="minibatch-accuracy",
        part=1,
        text="Mini-batch SGD reaches 97 %.",
        rule=WITHIN,
        verdict=_agreement,
        numbers=(_reached(DECAYS[0], 0.97, "97 %"),),
    ),
    Claim(
        key="decay-accuracy",
        part=1,
        text="With a decay of 1e-6 it reaches 87 %.",
        rule=WITHIN,
        verdict=_agreement,
        numbers=(_reached(DECAYS[1], 0.87, "87 %"),),
        trainings=(("decay_momentum", DECAYS[0]),),
        explain=_decay,
    ),
    Claim(
        key="momentum-accuracy",
        part=1,
        text="With the decay and a momentum of 0.9 it reaches 92 %.",
        rule=WITHIN,
        verdict=_agreement,
        numbers=(_reached(DECAYS[2], 0.92, "92 %"),),
        explain=_momentum,
    ),
    Claim(
        key="decay-times",
        part=1,
        text="The three take 177 s, 297.15 s and 293.73 s.",
        verdict=_time,
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
        verdict=_decay_costs_time,
        saying="+68 % / +66 %",
        trainings=tuple(("decay_momentum", variant) for variant in DECAYS),
    ),
    Claim(
        key="sgd-decay-momentum-accuracy",
        part=1,
        text="SGD (batch size 1) with decay and momentum reaches 20 %.",
        rule="within 10 points at the last epoch: so near to chance, a seed decides much",
        verdict=_agreement,
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
        verdict=_stuck,
        saying="stuck in a local minimum",
        trainings=(("sgd_decay_momentum", SGD_DECAY_MOMENTUM),),
    ),
    Claim(
        key="sgd-decay-momentum-time",
        part=1,
        text="It takes 7,577.7 s.",
        verdict=_time,
        numbers=(_took("sgd_decay_momentum", SGD_DECAY_MOMENTUM, 7577.7, "7,577.7 s"),),
    ),
    Claim(
        key="sgd-losses",
        part=1,
        text="SGD ends at a loss of 0.0503 and a validation loss of 0.0954.",
        rule="both within 20 % at the last epoch",
        verdict=_agreement,
        numbers=_last("optimizers", "SGD", {"loss": (0.0503, "0.0503"), "val_loss": (0.0954, "0.0954")}, 1.0),
    ),
    Claim(
        key="sgd-accuracies",
        part=1,
        text="SGD ends at accuracies of 0.98 (training) and 0.97 (validation).",
        rule="both within 1 point at the last epoch",
        verdict=_agreement,
        numbers=_last("optimizers", "SGD", {"accuracy": (0.98, "0.98"), "val_accuracy": (0.97, "0.97")}, 1.0),
    ),
    Claim(
        key="rmsprop-losses",
        part=1,
        text="RMSprop ends at a loss of about 0 and a validation loss of 0.15.",
        rule="below 0.01 and within 20 % at the last epoch",
        verdict=_agreement,
        numbers=_last("optimizers", "RMSprop", {"loss": (0.0, "≈ 0"), "val_loss": (0.15, "0.15")}, 1.0),
    ),
    Claim(
        key="rmsprop-accuracies",
        part=1,
        text="RMSprop ends at accuracies of 100 % (training) and 98 % (validation).",
        rule="both within 1 point at the last epoch",
        verdict=_agreement,
        numbers=_last("optimizers", "RMSprop", {"accuracy": (1.0, "100 %"), "val_accuracy": (0.98, "98 %")}, 1.0),
    ),
    Claim(
        key="rmsprop-best",
        part=1,
        text="RMSprop is the best.",
        rule=LEADS,
        verdict=_best_variant("optimizers", "RMSprop"),
        saying="RMSprop is the best",
        trainings=tuple(("optimizers", name) for name in ("SGD", "Adam", "RMSprop")),
    ),
    Claim(
        key="prediction",
        part=1,
        text="The RMSprop model, saved and loaded again, labels test images (a picture of samples).",
        rule="at least nine in ten of the images shown are labelled right, and the loaded model's test accuracy is "
        "that of the trained one within 0.1 points",
        verdict=_picture,
        saying="a picture",
        trainings=(("predict", ""), ("optimizers", "RMSprop")),
    ),
    Claim(
        key="l2-gap",
        part=2,
        text="L2 shrinks the gap between training and validation.",
        rule=f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs, is smaller by at least "
        f"{_points(SEED_POINTS)}",
        verdict=_gap_shrinks,
        saying="shrinks",
        trainings=(("l2", "baseline"), ("l2", "L2")),
    ),
    Claim(
        key="dropout-0.2",
        part=2,
        text="Dropout 0.2 ends at accuracies of 0.4978 (training) and 0.4780 (validation).",
        rule=WITHIN_CIFAR,
        verdict=_agreement,
        numbers=_last(
            "dropout", "dropout 0.2", {"accuracy": (0.4978, "0.4978"), "val_accuracy": (0.4780, "0.4780")}, 2.0
        ),
    ),
    Claim(
        key="dropout-0.3",
        part=2,
        text="Dropout 0.3 ends at accuracies of 0.4890 (training) and 0.4829 (validation).",
        rule=WITHIN_CIFAR,
        verdict=_agreement,
        numbers=_last(
            "dropout", "dropout 0.3", {"accuracy": (0.4890, "0.4890"), "val_accuracy": (0.4829, "0.4829")}, 2.0
        ),
    ),
    Claim(
        key="dropout-best",
        part=2,
        text="A dropout rate of 0.3 is best.",
        rule=LEADS,
        verdict=_best_variant("dropout", "dropout 0.3"),
        saying="0.3 is best",
        trainings=tuple(("dropout", f"dropout {rate}") for rate in (0.2, 0.3, 0.5)),
    ),
    Claim(
        key="stopped-at",
        part=2,
        text="Early stopping (patience 30, at most 300 epochs) ends the training at epoch 199.",
        rule="within 20 %: epochs 160 to 238",
        verdict=_agreement,
        numbers=(Number("last epoch", "early_stopping", "early stopping", "epochs", 199, "199"),),
    ),
    Claim(
        key="batch-norm",
        part=2,
        text="With batch normalization it is pretty much the same.",
        rule="the best validation accuracies are less than 1 point apart",
        verdict=_same,
        saying="pretty much the same",
        trainings=tuple(("batch_norm", name) for name in BATCH_NORM),
    ),
    Claim(
        key="search-best",
        part=2,
        text="Random search finds learning rate 0.01, dropout rate 0.2, batch size 64.",
        rule=f"the same candidate has the highest mean accuracy, by at least {_points(SEED_POINTS)}",
        verdict=_found,
        saying="learning_rate 0.01, dropout_rate 0.2, batch_size 64",
        trainings=(("random_search", ""),),
    ),
    Claim(
        key="training-times",
        part=2,
        text="There is no big difference in training time.",
        rule="per epoch, at batch size 128, the slowest takes at most 1.5 times as long as the fastest",
        verdict=_no_big_difference,
        saying="no big difference",
        trainings=(("training_times", ""), *TIMED),
    ),
)
"""The report's claims, in its order."""
