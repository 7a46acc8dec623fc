"""The section of an experiment: question, answer, figures, table, verdicts, and the claims about it."""

import math
from collections.abc import Sequence

from experiments.report import cells
from experiments.report.blocks import Block, Folded, Heading, Judged, Listing, Paragraph, References, Table
from experiments.report.judging import Records
from experiments.report.pictures import (
    MANY_VERDICTS,
    Album,
    count,
    over,
    picture,
    says_rates,
    says_search,
    says_times,
    shown_in,
)
from experiments.report.plan import Planned, Section, question_of, title_of
from mlplab import results
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.loading import Overview
from mlplab.records import Record
from mlplab.results import FAILED, FINISHED, Outcome, rank

MANY_ROWS = 12
"""A longer table is folded."""


def section(of: Section, records: Records, claims: Sequence[Judged], album: Album) -> list[Block]:
    """An experiment's section; its figures are drawn into `album`.

    Args:
        claims: those that are judged by it first of all.
    """
    record = records.get(of.experiment)
    page: list[Block] = [
        Heading(3, of.title, of.experiment, tuple(claim.status for claim in claims)),
        Paragraph(record.experiment.question if record else question_of(of.experiment), "question"),
    ]
    if record is None:
        page.append(Paragraph(f"{of.title} left no record: it failed or was not run.", "trouble"))
    else:
        page += [Paragraph(_ending(outcome), "trouble") for outcome in record.outcomes if outcome.state]
        page += _answer(record, records)
    page += _of_verdicts("differences", of, records, album)
    page += [picture(planned, of.experiment, records, album) for planned in of.figures]
    page += _of_verdicts("reached", of, records, album)
    if record is not None:
        page += _tables(record, records)
    return [*page, References(claims)] if claims else page


def _of_verdicts(kind: str, of: Section, records: Records, album: Album) -> list[Block]:
    """A comparison's picture that the report has none of, where there is something to draw."""
    record = records.get(of.experiment)
    if record is None or not isinstance(record.experiment, Comparison):
        return []
    drawn = picture(Planned("", (kind,)), of.experiment, records, album)
    return [drawn] if drawn.files else []


def _ending(outcome: Outcome) -> str:
    """How the trainings of a variant ended that did not finish."""
    name, found = outcome.variant.name, outcome.results
    says = []
    for result in (result for result in found if result.status != FINISHED):
        which = f"The training “{name}”" if len(found) == 1 else f"Seed {result.seed}"
        if result.status == FAILED:
            why = (result.error.strip().splitlines() or ["without a message"])[-1]
            says.append(f"{which} failed: {why}")
        else:
            says.append(f"{which} diverged in epoch {result.epochs} and was ended.")
    return says[0] if len(found) == 1 else f"Of the trainings “{name}” {outcome.state}. {' '.join(says)}"


# ------------------------------------------------------------------------------------------------------------ answers


def _answer(record: Record, records: Records) -> list[Block]:
    """What came of an experiment, in a sentence; what follows from it has less weight."""
    experiment = record.experiment
    if isinstance(experiment, Overview):
        of = shown_in(experiment, records)
        says = says_times([(title_of(one.experiment.name), outcome) for one in of for outcome in one.outcomes])
    elif isinstance(experiment, Comparison):
        if _decided(record):
            answer = answer_of(experiment, record.results, record.verdicts)
            first, ends, more = answer.partition(f"{experiment.budget}.")
            return [Paragraph(f"{first}{ends}", "answer", more.strip())]
        says = _seen(experiment, record)
    elif record.search:
        says = says_search(record)
    elif found := record.predictions:
        right = sum(label == answer for label, answer in zip(found.labels, found.predicted, strict=True))
        says = (
            f"Of the {count(len(found.labels), 'test image')} shown {right} are labelled right, and of all test images "
            f"{cells.value_text(found.test_accuracy, 'points')}."
        )
    else:
        says = ""
    return [Paragraph(says, "answer")] if says else []


def _decided(record: Record) -> bool:
    """Whether there are verdicts that a reader reads; one seed decides nothing, which the page says at its top."""
    said = [verdict for verdict in record.verdicts if verdict.seeds > 1]
    return len(record.seeds) > 1 and len(record.outcomes) > 1 and 0 < len(said) <= MANY_VERDICTS


def _seen(comparison: Comparison, record: Record) -> str:
    """What a comparison shows where nothing is decided: its best variants, or where its only one ended."""
    select, found = comparison.metric, rank(comparison, record.results)
    with_value = [outcome for outcome in found if math.isfinite(outcome.best(select.name))]
    if not with_value:
        return ""
    if len({outcome.variant.params()["optimizer"] for outcome in found}) > 1 and len(found) > MANY_ROWS:
        return says_rates(select, found)
    texts = [(one.variant.name, cells.value_text(one.best(select.name), select.unit)) for one in with_value]
    (first, best), *others = texts
    means = over(found)
    if others:
        which = "highest" if select.maximizes else "lowest"
        says = f"{first} came to the {which} {select.words}, {best}, before {others[0][0]} with {others[0][1]}"
        return f"{says}{f'; {others[-1][0]} came to {others[-1][1]}' * (len(others) > 1)}{means}."
    only = with_value[0]
    epoch, epochs = only.mean(lambda r: r.best_epoch or math.nan), only.mean(lambda r: r.epochs)
    says = f"The {select.words} was best in epoch {epoch:,.0f} of {epochs:,.0f}: {best}"
    if select.name != "val_accuracy" and math.isfinite(only.best("val_accuracy")):
        says += f", where the validation accuracy was {cells.value_text(only.best('val_accuracy'), 'points')}"
    return f"{says}{means}."


# ------------------------------------------------------------------------------------------------------------- tables


def _tables(record: Record, records: Records) -> list[Block]:
    """The tables of an experiment's results, what they show, and its verdicts, folded."""
    experiment = record.experiment
    if isinstance(experiment, Comparison):
        table = Table(cells.of_comparison(experiment, record), "Results by variant")
        says = Paragraph(_what_is_shown(experiment, record), "quiet")
        long = len(table.cells) > MANY_ROWS + 1
        shown: list[Block] = [Folded(f"All {len(table.cells) - 1} variants", [table, says])] if long else [table, says]
        targets = results.targets(experiment, record.results)
        reached: list[Block] = [Table(cells.of_targets(experiment, targets), "Targets reached")] if targets else []
        return [*shown, *reached, *_verdicts(record)]
    if isinstance(experiment, Overview):
        of = shown_in(experiment, records)
        return [Table(cells.of_times(of), "Training times")] if of else []
    if record.search:
        validated = {name.removeprefix("val_"): value for name, value in record.search.validation.items()}
        scores = {"validation": validated, "test": record.search.refit.test}
        said = [
            f"{part} accuracy {cells.value_text(score['accuracy'], 'points')}"
            for part, score in scores.items()
            if "accuracy" in score
        ]
        refitted = f"The best, trained again on all training images: {', '.join(said) or 'no accuracy'}."
        table = Table(cells.of_search(record.search), "Candidates of the search")
        return [table, Paragraph(f"Data: {record.data}. {refitted}", "quiet")]
    if record.predictions:
        return [Paragraph(f"Data: {record.data}. Model: {record.predictions.model_uri}.", "quiet")]
    return []


def _what_is_shown(comparison: Comparison, record: Record) -> str:
    values, seeds = f"alues of the best epoch by {comparison.metric.words}", len(record.seeds)
    if seeds < 2:
        return f"Data: {record.data}. V{values}."
    return f"Data: {record.data}. Means over {seeds} seeds of v{values}; after ± half the 95 % interval of the mean."


def _verdicts(record: Record) -> list[Block]:
    """What several seeds say of a comparison's variants; one seed says nothing."""
    said = [verdict.sentence for verdict in record.verdicts if verdict.seeds > 1]
    if len(said) > MANY_VERDICTS:
        return [Paragraph(f"The {len(said)} verdicts are in verdicts.json of the run {record.run_id}.", "quiet")]
    many = count(len(said), "verdict")
    return [Folded(f"{many} on pairs of variants", [Listing(said)])] if said else []
