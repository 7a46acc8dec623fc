"""Results as tables: rows of numbers, cells of text, CSV and Markdown."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace

from mlplab.amounts import significant
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.evaluations import PENALTY, PREFIX, measured
from mlplab.records import Record, SearchResult, Tuning, choice_text, choice_words
from mlplab.results import FINISHED, Outcome, Result, Target, outcomes, rank
from mlplab.spec import Metric

NO_METRICS = ("loss", PENALTY, "learning_rate", "train_seconds")
"""What a history has beside the metrics."""

Cell = str | int | float | None


def shown_metrics(comparison: Comparison, results: Sequence[Result] = ()) -> list[Metric]:
    """The metrics that a comparison's tables and curves have: those of validation, each once.

    They are the selection metric, the loss, and those that verdicts are drawn on besides. Where that is the loss alone,
    the first other one that the trainings logged is with it.
    """
    judged = [metric for metric in comparison.judged if metric.name.startswith("val_")]
    found = {_of(metric): metric for metric in (comparison.metric, comparison.target("val_loss"), *judged)}
    if len(found) == 1:
        found |= {name: _metric(comparison, name) for name in logged(results)[:1]}
    return [replace(metric, name=f"val_{base}") for base, metric in found.items()]


def _of(metric: Metric) -> str:
    """A metric's name on the training examples, also where it is itself of them."""
    return metric.base.removeprefix(PREFIX)


def logged(results: Sequence[Result]) -> list[str]:
    """The metrics that trainings logged, but for the loss, in their order, by their names on the training examples."""
    names = dict.fromkeys(name for result in results for name in result.history)
    return [name for name in names if not name.startswith(("val_", PREFIX)) and name not in NO_METRICS]


def _metric(comparison: Comparison, name: str) -> Metric:
    try:
        return comparison.target(f"val_{name}")
    except UsageError:  # whether more of it is better matters for no number
        return Metric(f"val_{name}", best="max")


def columns(comparison: Comparison, results: Sequence[Result]) -> list[str]:
    """Columns of a comparison's rows. Metrics are those of the best epoch, test metrics too."""
    bases = [_of(metric) for metric in shown_metrics(comparison, results)]
    first = [name for name in bases if name in (_of(comparison.metric), "loss")]
    kinds = ("val_{}", "{}", f"{PREFIX}{{}}", "test_{}")
    shown = [kind.format(name) for kind in kinds for name in first]
    shown += [metric.name for metric in comparison.judged]
    measured = {name for result in results for name in (*result.history, *(f"test_{name}" for name in result.test))}
    others = dict.fromkeys([*bases, *logged(results)])
    shown += [named for name in others for kind in kinds if (named := kind.format(name)) in measured]
    clocks = ["best_epoch", "epochs", "train_seconds", "compile_seconds", "steps_per_second"]
    return list(dict.fromkeys(["variant", "seed", "status", *shown, *clocks]))


def rows(comparison: Comparison, results: Sequence[Result]) -> list[dict[str, Cell]]:
    """A row for each training, the best variant's first: a value for every one of `columns`, None where missing."""
    names = columns(comparison, results)
    table = []
    for result in (result for outcome in rank(comparison, results) for result in outcome.results):
        values: dict[str, Cell] = {name: result.best(name) for name in names}
        values |= {f"test_{name}": value for name, value in result.test.items()}
        values |= {
            "variant": result.variant.name,
            "seed": result.seed,
            "status": result.status,
            "best_epoch": result.best_epoch,
            "epochs": result.epochs,
            "train_seconds": result.train_seconds,
            "compile_seconds": result.compile_seconds,
            "steps_per_second": result.steps_per_second,
        }
        row = {name: values[name] for name in names}
        table.append({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
    return table


def to_csv(comparison: Comparison, results: Sequence[Result]) -> str:
    """The rows as CSV, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(comparison, results), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(comparison, results))
    return text.getvalue()


def to_cells(comparison: Comparison, results: Sequence[Result]) -> list[list[str]]:
    """The table for readers: a header, then a row for each variant, best first, numbers rounded to what they can tell.

    With several seeds a number is the mean over them, and of what verdicts are drawn on ± half its 95 % interval.
    """
    metrics = shown_metrics(comparison, results)
    bases = [_of(metric) for metric in metrics]
    judged = [metric.name for metric in comparison.judged]
    on_validation = list(dict.fromkeys([*(metric.name for metric in metrics), *judged]))
    # Of further metrics only what is judged: a reader's table has an end.
    trained = [name for name in bases[:2] if name not in on_validation]
    headers = [*map(heading, on_validation), *map(heading, trained), f"test {bases[0].replace('_', ' ')}"]
    counts = {len(outcome.results) for outcome in outcomes(results)}
    many, unlike = max(counts, default=1) > 1, len(counts) > 1
    tuned = choice_words(comparison.tune.space if comparison.tune else ())
    cells = [["variant", *tuned.values(), *["seeds"] * unlike, *headers, "best epoch", "train (s)", "steps/s"]]
    for outcome in rank(comparison, results):
        state = f" ({outcome.state})" if outcome.state else ""
        numbers = [_with_interval(outcome, name, name in judged) for name in on_validation]
        numbers += [number_text(outcome.best(name)) for name in trained]
        numbers.append(number_text(outcome.mean(lambda r: r.test.get(bases[0], math.nan))))
        first = outcome.results[0]
        epoch = f"{first.best_epoch or '–'} of {first.epochs}"
        if many:
            best, trained_for = outcome.mean(lambda r: r.best_epoch or math.nan), outcome.mean(lambda r: r.epochs)
            epoch = f"{_number(best, '.1f')} of {_number(trained_for, '.4g')}"
        cells.append(
            [
                f"{outcome.variant.name}{state}",
                *(choice_text(value) if (value := outcome.variant.get(name)) is not None else "–" for name in tuned),
                *[str(len(outcome.results))] * unlike,
                *numbers,
                epoch,
                _number(outcome.mean(lambda r: r.train_seconds), ".1f"),
                _number(outcome.mean(lambda r: r.steps_per_second), ",.0f"),
            ]
        )
    return cells


def dispensable(header: Sequence[str]) -> list[int]:
    """The columns of a table for readers that may be left out where there is no room, the first one first.

    Speed goes first, then what the training examples say, the clocks, other metrics and the test set; the name, what
    was chosen and the first metric stay.
    """
    first = next((name for name in header if name.startswith("val. ")), "")
    validation = [name.removeprefix("val. ") for name in header if name.startswith("val. ")]
    order = ["steps/s", "folds", *validation, "best epoch", "train (s)", "std"]
    order += [name for name in header[::-1] if name.startswith("val. ") and name != first]
    order += [name for name in header if name.startswith("test ")]
    return [header.index(name) for name in dict.fromkeys(order) if name in header]


def heading(name: str) -> str:
    """What a metric is called above a column.

    >>> heading("val_top_k")
    'val. top k'
    """
    return ("val. " * name.startswith("val_") + name.removeprefix("val_")).replace("_", " ")


def _with_interval(outcome: Outcome, metric: str, judged: bool) -> str:
    mean, low, high = outcome.over_seeds(lambda result: result.best(metric))
    return interval_text(mean, low, high) if judged else number_text(mean)


def interval_text(mean: float, low: float, high: float) -> str:
    """A mean for readers, ± half its interval where it has one."""
    text, half = number_text(mean), (high - low) / 2
    if not math.isfinite(half):
        return text
    return f"{text} ± {half:.4f}" if text == f"{mean:.4f}" else f"{text} ± {significant(half)}"


def number_text(value: float) -> str:
    """A metric's value for readers, whatever its size; a dash where there is none.

    >>> number_text(0.97251), number_text(2923.456), number_text(0.000012345), number_text(float("nan"))
    ('0.9725', '2,923.5', '0.0000123', '–')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    return significant(value, 5 if abs(value) >= 1 else 3)


def target_cells(found: Sequence[Target]) -> list[list[str]]:
    """How soon the variants reached the targets, for readers: a header, then a row for each variant and target."""
    many = any(len(target.after) > 1 for target in found)
    counted = ["reached by", "half after"]
    cells = [["variant", "target", *(counted if many else ["reached after"])]]
    for target in found:
        sign = "≥" if target.maximizes else "≤"
        row = [target.variant, f"{target.metric} {sign} {target.target:g}", target.count, target.says]
        cells.append(row if many else [*row[:2], target.says])
    return cells


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def search_cells(search: SearchResult) -> list[list[str]]:
    """A search's candidates for readers, best first: a header, then a row for each."""
    words = choice_words(search.choices)
    cells = [["candidate", *words.values(), "mean score", "std", "folds", "train (s)"]]
    places = {id(candidate): place for place, candidate in enumerate(search.candidates, start=1)}
    for candidate in search.ranked:
        scores = " ".join(map(number_text, candidate.scores))
        scores += f" ({dropped})" if (dropped := search.dropped(candidate)) else ""
        measured = [number_text(candidate.mean), number_text(candidate.std), scores]
        choices = [choice_text(candidate.choices[name]) if name in candidate.choices else "–" for name in words]
        cells.append([str(places[id(candidate)]), *choices, *measured, _number(candidate.train_seconds, ".1f")])
    return cells


def trial_cells(tuning: Tuning, variant: str) -> list[list[str]]:
    """A tuned variant's trials for readers, best first: a header, then a row for each."""
    trials, metric = tuning.trials[variant], tuning.metric
    words = choice_words(dict.fromkeys(name for trial in trials for name in trial.choices))
    cells = [["trial", *words.values(), heading(metric.name), "best epoch", "train (s)"]]
    sign = -1 if metric.maximizes else 1
    for place in sorted(
        range(len(trials)), key=lambda i: sign * trials[i].score if math.isfinite(trials[i].score) else math.inf
    ):
        trial = trials[place]
        ended = "" if trial.status == FINISHED else f" ({trial.status})"
        choices = [choice_text(trial.choices[name]) if name in trial.choices else "–" for name in words]
        epoch = f"{trial.best_epoch or '–'} of {trial.epochs}"
        seconds = _number(trial.train_seconds, ".1f")
        cells.append([f"{place + 1}{ended}", *choices, number_text(trial.score), epoch, seconds])
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


def wide_markdown(cells: Sequence[Sequence[str]]) -> str:
    """`markdown` for MLflow's UI, which sets a table's cells without a space between them."""
    return markdown([[f"{cell}&nbsp;&nbsp;" for cell in row] for row in cells])


def history_csv(result: Result) -> str:
    """The history as CSV, a row an epoch, numbers in full precision; empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *result.history])
    for epoch, values in enumerate(zip(*result.history.values(), strict=True), start=1):
        told = zip(result.history, values, strict=True)
        writer.writerow([epoch, *(v if measured(name, epoch, v, result.variant.epochs) else "" for name, v in told)])
    return text.getvalue()
