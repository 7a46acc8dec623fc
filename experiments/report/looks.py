"""What the trainings of one seed show of a claim."""

import math
import statistics
from collections.abc import Callable, Mapping

from experiments.report.judging import (
    GAP_EPOCHS,
    SEED_POINTS,
    Claim,
    Records,
    as_percent,
    as_points,
    as_speed,
    epoch_seconds,
    or_far,
    place_of,
    result_of,
    shortened,
    shown_of,
)
from experiments.report.plan import quoted
from experiments.report.quantities import (
    EDGE,
    EPOCH_SECONDS,
    GAP,
    HOLDS,
    MORE,
    PERCENT,
    PLAIN,
    POINTS,
    SECONDS,
    SHORT,
    TIMES,
    Estimate,
    Quantity,
    Seen,
    Unit,
    estimated,
)
from mlplab.amounts import significant
from mlplab.records import Record, choice_text, choice_words
from mlplab.results import FAILED, Result

DECAYS = ("mini-batch SGD", "with decay", "with decay and momentum")
SGD_DECAY_MOMENTUM = "batch size 1, decay, momentum"
BATCH_NORM = ("dropout 0.3", "dropout 0.3, batch norm")


def agreement(claim: Claim, records: Records) -> Seen:
    """Holds if all numbers agree."""
    says, place, numbers = [], "", tuple(number.quantity(records) for number in claim.numbers)
    for number, quantity in zip(claim.numbers, numbers, strict=True):
        value = number.measured(records)
        result = result_of(records, number.experiment, number.variant)
        inside = "agrees" if quantity.says(quantity.value, quantity.value) == HOLDS else "does not agree"
        where = f"{place_of(number.experiment, result)}: "
        says.append(
            f"{where if where != place else ''}{number.what.partition(',')[0]} {number.unit.text(value)} against "
            f"{number.text} ({number.distance(value)}), which {inside} ({number.tolerance})"
        )
        place = where
    of = "" if claim.always else "last epoch"
    return Seen(shown_of(claim, records), f"{'; '.join(says)}.", numbers, of=of)


def times(claim: Claim, records: Records) -> Seen:
    """Never a verdict: the report does not say what hardware it ran on."""
    says, seconds, ratios = [], [], []
    for number in claim.numbers:
        result = result_of(records, number.experiment, number.variant)
        ratio = number.published / result.variant.epochs / epoch_seconds(result)
        value = number.measured(records)
        seconds.append(Quantity(what=number.what, value=value, unit=SECONDS))
        what = f"{number.variant}, seconds an epoch divided by the report's"
        ratios.append(Quantity(what=what, value=1 / ratio, unit=Unit(".3g"), ratio=True))
        says.append(
            f"{place_of(number.experiment, result)}: {number.unit.text(result.train_seconds)} of training against "
            f"{number.text}; an epoch is {as_speed(ratio)}."
        )
    note = "The report does not name its hardware, so its seconds as such cannot be checked."
    return Seen(shown_of(claim, records), " ".join([*says, note]), tuple(seconds), tuple(ratios), note=note)


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
        says += f": less than the {as_points(SEED_POINTS)} that one seed can decide"
    return Seen(measured, f"{says}.", shown, leads, of)


def best_variant(experiment: str, claimed: str) -> Callable[[Claim, Records], Seen]:
    """Holds if the claimed variant has the highest best validation accuracy."""

    def look(claim: Claim, records: Records) -> Seen:
        scores = {r.variant.name: r.best("val_accuracy") for r in records[experiment].results if r.status != FAILED}
        measured = " / ".join(f"{name} {as_percent(score)}" for name, score in scores.items())
        of = "best validation accuracies"
        return _winner(measured, scores, claimed, f"{quoted(experiment)}, {of}: {measured}", of)

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


def rough(claim: Claim, records: Records) -> Seen:
    """Batch size 1 oscillates, full batch is smoothest: `claim.key` says which is asked."""
    rough = {mode: roughness(result_of(records, "batch_modes", mode).history["val_loss"]) for mode in MODES}
    first, _, last = MODES
    if claim.key == "sgd-oscillates":
        apart = {f"{first} minus twice {mode}": rough[first] - 2 * rough[mode] for mode in MODES if mode != first}
    else:
        apart = {f"{mode} minus {last}": rough[mode] - rough[last] for mode in MODES if mode != last}
    measured = " / ".join(f"{mode} {significant(value, 2)}" for mode, value in rough.items())
    listed = ", ".join(f"{mode} {significant(value, 2)}" for mode, value in rough.items())
    of = "second half of the epochs, roughness of the validation loss (nats)"
    says = f"{quoted('batch_modes')}, {of}: {listed}."
    if not all(map(math.isfinite, rough.values())):
        apart = dict.fromkeys(apart, math.nan)
        says += " A training has too few finite losses for a measure."
    shown = tuple(Quantity(what=mode, value=value, unit=SHORT, named=True) for mode, value in rough.items())
    others = tuple(
        Quantity(what=what, value=value, unit=SHORT, low=0, allowed="above 0") for what, value in apart.items()
    )
    return Seen(measured, says, shown, others, of)


def _gaps(result: Result) -> list[float]:
    """Training minus validation accuracy at each epoch, in points."""
    pairs = zip(result.history["accuracy"], result.history["val_accuracy"], strict=True)
    return [100 * (accuracy - validation) for accuracy, validation in pairs]


def negligible(claim: Claim, records: Records) -> Seen:
    """Holds if training and validation accuracy stay close to the end."""
    result = result_of(records, "batch_1000", "full batch")
    gaps = _gaps(result)
    says = (
        f"{place_of('batch_1000', result)}: accuracy {as_percent(result.last('accuracy'))}, validation accuracy "
        f"{as_percent(result.last('val_accuracy'))}, {gaps[-1]:+z.2f} points apart (at most "
        f"{max(map(abs, gaps)):.2f} at any epoch); loss {result.last('loss'):.4f}, "
        f"validation loss {result.last('val_loss'):.4f}."
    )
    apart = Quantity(
        what="training minus validation accuracy",
        value=or_far(gaps[-1]),
        unit=POINTS,
        low=-1,
        high=1,
        allowed="within 1 point of 0",
    )
    return Seen(f"{gaps[-1]:+z.2f} points", says, (apart,), of="last epoch")


def decay_costs_time(claim: Claim, records: Records) -> Seen:
    """Never a verdict on a machine that the report does not name."""
    plain, decay, both = (epoch_seconds(result_of(records, "decay_momentum", v)) for v in DECAYS)
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
        return Seen("–", f"{quoted('decay_momentum')} has no training times.", (longer, longer_both))
    note = "Decay is one division a step."
    says = (
        f"{quoted('decay_momentum')}, seconds of training an epoch: {significant(plain)} without, "
        f"{significant(decay)} with decay ({more:+z.0f} %), {significant(both)} with decay and momentum "
        f"({more_both:+z.0f} %). {note}"
    )
    return Seen(f"{more:+z.0f} % / {more_both:+z.0f} %", says, (longer, longer_both), note=note)


def stuck(claim: Claim, records: Records) -> Seen:
    """Holds if the accuracy stays at guessing."""
    result = result_of(records, "sgd_decay_momentum", SGD_DECAY_MOMENTUM)
    accuracy = result.last("accuracy")
    says = f"{place_of('sgd_decay_momentum', result)}: training accuracy {as_percent(accuracy)} (chance is about 10 %)."
    if accuracy >= 0.5:
        says += " A training that learns so much is not stuck."
    else:
        says += " It learns next to nothing; but whether it rests in a minimum, its curves cannot show."
    learned = Quantity(what="last training accuracy", value=accuracy, unit=PERCENT, high=0.5, allowed="below 50 %")
    note = "Chance is about 10 %. Whether a training rests in a minimum, its curves cannot show."
    return Seen(as_percent(accuracy), says, (learned,), note=note, confirms=False)


def pictures(claim: Claim, records: Records) -> Seen:
    """Holds if as many of the pictures are recognised as the report says."""
    found = records["predict"].predictions
    if found is None or not found.labels:
        return Seen("–", f"{quoted('predict')}: there are none.")
    right = sum(label == predicted for label, predicted in zip(found.labels, found.predicted, strict=True))
    asked = result_of(records, "optimizers", "RMSprop")
    trained = asked.test.get("accuracy", math.nan)
    apart = or_far(abs(trained - found.test_accuracy))
    measured = f"{right} of {len(found.labels)} right"
    says = (
        f"{quoted('predict')}: {measured}; on all test images the loaded model has "
        f"{as_percent(found.test_accuracy)}, the trained one had {as_percent(trained)}: "
        f"{'the same model' if apart < 0.001 else 'not the same model'}."
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


def gap_shrinks(claim: Claim, records: Records) -> Seen:
    """Holds if the penalty brings training and validation accuracy closer."""
    without, penalized = (
        statistics.fmean(_gaps(result_of(records, "l2", name))[-GAP_EPOCHS:]) for name in ("baseline", "L2")
    )
    measured = f"{without:.2f} → {penalized:.2f} points"
    of = f"training minus validation accuracy, mean of the last {GAP_EPOCHS} epochs"
    says = (
        f"{quoted('l2')}, {of}: {measured}. Best validation "
        f"accuracies: {as_percent(result_of(records, 'l2', 'baseline').best('val_accuracy'))} without, "
        f"{as_percent(result_of(records, 'l2', 'L2').best('val_accuracy'))} with the penalty."
    )
    if not abs(abs(penalized) - abs(without)) >= SEED_POINTS:
        says += f" The gaps differ by less than the {as_points(SEED_POINTS)} that one seed can decide."
    gaps = (
        Quantity(what="without the penalty", value=without, unit=GAP, named=True),
        Quantity(what="with it", value=penalized, unit=GAP, named=True),
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


def same(claim: Claim, records: Records) -> Seen:
    """Holds if batch normalization changes little."""
    plain, normed = (result_of(records, "batch_norm", name) for name in BATCH_NORM)
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
        return Seen("–", f"{quoted('batch_norm')} has no validation accuracies to compare.", (apart,))
    says = (
        f"{quoted('batch_norm')}, best validation accuracies: {as_percent(plain.best('val_accuracy'))} without "
        f"(epoch {plain.best_epoch}), {as_percent(normed.best('val_accuracy'))} with it (epoch {normed.best_epoch}): "
        f"{difference:+z.2f} points. Last training accuracies: {as_percent(plain.last('accuracy'))} without, "
        f"{as_percent(normed.last('accuracy'))} with it."
    )
    return Seen(f"{difference:+z.2f} points", says, (apart,))


FOUND = {"learning_rate": 0.01, "model.dropout": 0.2, "batch_size": 64}
"""What the report's search found, by the choices of `random_search`."""


def found(claim: Claim, records: Records) -> Seen:
    """Holds if the search's winner is the report's."""
    search = records["random_search"].search
    assert search is not None
    best, wanted = search.best, choices_text(FOUND)
    scores = {choices_text(candidate.choices): candidate.mean for candidate in search.candidates}
    measured = choices_text(best.choices)
    says = f"{quoted('random_search')}, best of {len(scores)}: {measured}, mean accuracy over the folds "
    says += f"{as_percent(best.mean)} (standard deviation {as_percent(best.std)}); the report's choice"
    if wanted not in scores:
        return Seen(measured, f"{says} ({wanted}) was not among those drawn.{_in_full(records)}")
    place = 1 + sum(score > scores[wanted] for score in scores.values())
    return _winner(measured, scores, wanted, f"{says} has {as_percent(scores[wanted])}, place {place}", "")


def _in_full(records: Records) -> str:
    """What the winner and the report's choice came to when both were trained in full; "" where they were not."""
    found = records.get("best_found")
    best = {o.variant.name: o.best("val_accuracy") for o in found.outcomes} if found else {}
    if found is None or len(best) < 2 or shortened(found) or not all(map(math.isfinite, best.values())):
        return ""
    says = " Trained in full their best validation accuracies are "
    says += ", ".join(f"{name} {as_percent(value)}" for name, value in best.items())
    if len(found.seeds) > 1:
        one, other = best
        apart = points_apart(found, lambda result: result.best("val_accuracy"), one, other)
        return f"{says}, means over {len(found.seeds)} seeds; {one} minus {other}: {apart.number}."
    apart_points = 100 * (max(best.values()) - min(best.values()))
    decided = "more" if apart_points >= SEED_POINTS else "less"
    limit = as_points(SEED_POINTS)
    return f"{says}: {apart_points:.2f} points apart, {decided} than the {limit} that one seed can decide."


def points_apart(record: Record, value: Callable[[Result], float], one: str, other: str) -> Estimate:
    """How many points `one` is from `other`, over the seeds that have both."""
    each = []
    for seed in record.seeds:
        of = {r.variant.name: value(r) for r in record.of_seed(seed).results if r.status != FAILED}
        points = 100 * (of.get(one, math.nan) - of.get(other, math.nan))
        each.append(Quantity(what=f"{one} minus {other}", value=points, unit=POINTS))
    return estimated(each, len(each))


def choices_text(choices: Mapping[str, object]) -> str:
    """A candidate's choices as text, in the order of the report's where they are the same."""
    order = [*(name for name in FOUND if name in choices), *(name for name in choices if name not in FOUND)]
    words = choice_words(order)
    return ", ".join(f"{words[name]} {choice_text(choices[name])}" for name in order)


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


def no_big_difference(claim: Claim, records: Records) -> Seen:
    """Holds if no variant takes much longer an epoch than another."""
    each = {variant: epoch_seconds(result_of(records, experiment, variant)) for experiment, variant in TIMED}
    each = {variant: seconds for variant, seconds in each.items() if math.isfinite(seconds)}
    if len(each) < 2:
        return Seen("–", "There are no training times to compare.")
    fast, slow = min(each, key=lambda v: each[v]), max(each, key=lambda v: each[v])
    ratio = each[slow] / each[fast]
    measured = f"{ratio:.2f} times"
    listed = ", ".join(f"{variant} {significant(seconds)}" for variant, seconds in each.items())
    says = (
        f"{quoted('training_times')}, seconds of training an epoch at batch size 128: {listed}; the "
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
