"""Results as tables: rows of numbers, cells of text, CSV and Markdown."""

import csv
import io
import math
from collections.abc import Sequence

from mlplab.records import Record, SearchResult
from mlplab.results import Outcome, Result, Target, choice_text, outcomes, rank
from mlplab.spec import SELECTION_METRICS, Comparison

COLUMNS = (
    "variant",
    "seed",
    "status",
    "val_accuracy",
    "val_loss",
    "accuracy",
    "loss",
    "train_eval_accuracy",
    "train_eval_loss",
    "test_accuracy",
    "test_loss",
    "best_epoch",
    "epochs",
    "train_seconds",
    "compile_seconds",
    "steps_per_second",
)
"""Columns of a comparison's rows. Accuracies and losses are those of the best epoch, test metrics too."""


def rows(comparison: Comparison, results: Sequence[Result]) -> list[dict[str, str | int | float | None]]:
    """A row for each training, the best variant's first: a value for every one of `COLUMNS`, None where missing."""
    table = []
    for result in (result for outcome in rank(comparison, results) for result in outcome.results):
        row: dict[str, str | int | float | None] = dict.fromkeys(COLUMNS)
        row |= {name: result.best(name) for name in COLUMNS[3:9]}
        row |= {f"test_{name}": value for name, value in result.test.items()}
        row |= {
            "variant": result.variant.name,
            "seed": result.seed,
            "status": result.status,
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "train_seconds": result.train_seconds,
            "compile_seconds": result.compile_seconds,
            "steps_per_second": result.steps_per_second,
        }
        table.append({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    return table


def to_csv(comparison: Comparison, results: Sequence[Result]) -> str:
    """The rows as CSV, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(comparison, results))
    return text.getvalue()


def to_cells(comparison: Comparison, results: Sequence[Result]) -> list[list[str]]:
    """The table for readers: a header, then a row for each variant, best first, numbers rounded to what they can tell.

    With several seeds a number is the mean over them, and of the selection metric ± half its 95 % interval.
    """
    cells = [
        [
            "variant",
            "val. accuracy",
            "val. loss",
            "accuracy",
            "loss",
            "test accuracy",
            "best epoch",
            "train (s)",
            "steps/s",
        ]
    ]
    many = max((len(outcome.results) for outcome in outcomes(results)), default=1) > 1
    for outcome in rank(comparison, results):
        state = f" ({outcome.state})" if outcome.state else ""
        metrics = [_with_interval(outcome, m, comparison.select) for m in ("val_accuracy", "val_loss")]
        metrics += [_number(outcome.best(metric), ".4f") for metric in ("accuracy", "loss")]
        first = outcome.results[0]
        epoch = f"{first.best_epoch or '–'} of {first.epochs}"
        if many:
            best, trained = outcome.mean(lambda r: r.best_epoch or math.nan), outcome.mean(lambda r: r.epochs)
            epoch = f"{_number(best, '.1f')} of {_number(trained, '.4g')}"
        cells.append(
            [
                f"{outcome.variant.name}{state}",
                *metrics,
                _number(outcome.mean(lambda r: r.test.get("accuracy", math.nan)), ".4f"),
                epoch,
                _number(outcome.mean(lambda r: r.train_seconds), ".1f"),
                _number(outcome.mean(lambda r: r.steps_per_second), ",.0f"),
            ]
        )
    return cells


def _with_interval(outcome: Outcome, metric: str, select: str) -> str:
    mean, low, high = outcome.over_seeds(lambda result: result.best(metric))
    text = _number(mean, ".4f")
    return f"{text} ± {(high - low) / 2:.4f}" if metric == select and math.isfinite(high - low) else text


def target_cells(found: Sequence[Target]) -> list[list[str]]:
    """How soon the variants reached the targets, for readers: a header, then a row for each variant and target."""
    many = any(len(target.after) > 1 for target in found)
    counted = ["seeds that reached it", "half of all seeds reached it after"]
    cells = [["variant", "target", *(counted if many else ["reached after"])]]
    for target in found:
        sign = "≥" if SELECTION_METRICS[target.metric] == "max" else "≤"
        row = [target.variant, f"{target.metric} {sign} {target.target:g}", target.count, target.says]
        cells.append(row if many else [*row[:2], target.says])
    return cells


def _number(value: str | int | float | None, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else "–"


def search_cells(search: SearchResult) -> list[list[str]]:
    """A search's candidates for readers, best first: a header, then a row for each."""
    names = search.fields
    cells = [["candidate", *(name.replace("_", " ") for name in names), "mean score", "std", "folds", "train (s)"]]
    places = {id(candidate): place for place, candidate in enumerate(search.candidates, start=1)}
    ranked = sorted(search.candidates, key=lambda c: -c.mean if math.isfinite(c.mean) else math.inf)
    for candidate in ranked:
        scores = " ".join(_number(score, ".4f") for score in candidate.scores)
        measured = [_number(candidate.mean, ".4f"), _number(candidate.std, ".4f"), scores]
        choices = [choice_text(candidate.choices.get(name)) for name in names]
        cells.append([str(places[id(candidate)]), *choices, *measured, _number(candidate.train_seconds, ".1f")])
    return cells


def time_cells(records: Sequence[Record]) -> list[list[str]]:
    """The training times of several comparisons for readers: a header, then a row for each variant."""
    cells = [["comparison", "variant", "epochs", "train (s)", "s/epoch", "compile (s)", "steps/epoch"]]
    for record in records:
        for outcome in record.outcomes:
            seconds = [
                _number(outcome.mean(lambda r: r.train_seconds), ".1f"),
                _number(outcome.mean(lambda r: r.train_seconds / r.epochs if r.epochs else math.nan), ".3f"),
                _number(outcome.mean(lambda r: r.compile_seconds), ".1f"),
            ]
            first = outcome.representative
            epochs = _number(outcome.mean(lambda r: r.epochs), ".4g")
            cells.append([record.experiment.name, outcome.variant.name, epochs, *seconds, f"{first.steps_per_epoch:,}"])
    return cells


def to_markdown(comparison: Comparison, results: Sequence[Result]) -> str:
    """The table for readers as Markdown."""
    return markdown(to_cells(comparison, results))


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """Cells, the first row their header, as a Markdown table; numbers to the right."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def history_csv(result: Result) -> str:
    """The history as CSV, a row an epoch, numbers in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *result.history])
    for epoch, values in enumerate(zip(*result.history.values(), strict=True), start=1):
        writer.writerow([epoch, *values])
    return text.getvalue()
