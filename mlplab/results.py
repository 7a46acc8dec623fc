"""What a training left behind, and a comparison's table of it."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlplab.spec import Comparison, Variant

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"


@dataclass(kw_only=True, eq=False)
class Result:
    """One variant's training.

    Attributes:
        status: `finished`; `diverged`: the loss or a weight stopped being finite, which ends a training; `failed`: it
            raised, see `error`.
        history: name of a metric -> its value at each epoch, as Keras' History has them, with `learning_rate` (at the
            epoch's end) and `train_seconds` (seconds of training alone, from the first epoch on) besides.
        weights: those of the model after the best epoch, in the order of `keras.Model.get_weights`.
        best_epoch: 1 for the first; the epoch with the best value of the selection metric, None if there is none.
        test: test metrics of the model as it was after `best_epoch`.
    """

    variant: Variant
    status: str = FINISHED
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    weights: list[np.ndarray] | None = field(default=None, repr=False)
    test: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    steps_per_epoch: int = 0
    compile_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_memory_mb: float = math.nan
    error: str = ""
    run_id: str = ""

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return len(self.history.get("loss", []))

    @property
    def train_seconds(self) -> float:
        """Seconds of training alone, over all epochs."""
        return self.last("train_seconds") if self.epochs else 0.0

    @property
    def steps_per_second(self) -> float:
        """Weight updates in a second of training."""
        return self.epochs * self.steps_per_epoch / self.train_seconds if self.train_seconds else math.nan

    def best(self, metric: str) -> float:
        """The value of `metric` at the best epoch, NaN if there is none."""
        return self.history[metric][self.best_epoch - 1] if self.best_epoch else math.nan

    def last(self, metric: str) -> float:
        """The value of `metric` at the last epoch, NaN if there is none."""
        values = self.history.get(metric, [])
        return values[-1] if values else math.nan


def rank(comparison: Comparison, results: Sequence[Result]) -> list[Result]:
    """`results` with the best value of the selection metric first; those that failed or have none last, in order."""
    ranked = [r for r in results if r.status != FAILED and math.isfinite(r.best(comparison.select))]
    ranked.sort(key=lambda result: result.best(comparison.select), reverse=comparison.maximizes)
    return ranked + [result for result in results if result not in ranked]


COLUMNS = (
    "variant",
    "status",
    "val_accuracy",
    "val_loss",
    "accuracy",
    "loss",
    "test_accuracy",
    "test_loss",
    "best_epoch",
    "epochs",
    "train_seconds",
    "compile_seconds",
    "steps_per_second",
)
"""Columns of a comparison's table. Accuracies and losses are those of the best epoch, test metrics too."""


def rows(comparison: Comparison, results: Sequence[Result]) -> list[dict[str, str | int | float | None]]:
    """The comparison's table, best first: for each result a value for every one of `COLUMNS`, None where missing."""
    table = []
    for result in rank(comparison, results):
        row: dict[str, str | int | float | None] = dict.fromkeys(COLUMNS)
        row |= {name: result.best(name) for name in ("val_accuracy", "val_loss", "accuracy", "loss")}
        row |= {f"test_{name}": value for name, value in result.test.items()}
        row |= {
            "variant": result.variant.name,
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
    """The table as CSV, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(comparison, results))
    return text.getvalue()


def to_cells(comparison: Comparison, results: Sequence[Result]) -> list[list[str]]:
    """The table for readers: a header, then a row for each result, numbers rounded to what they can tell."""
    header = [
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
    cells = [header]
    for row in rows(comparison, results):
        state = "" if row["status"] == FINISHED else f" ({row['status']})"
        cells.append(
            [
                f"{row['variant']}{state}",
                _number(row["val_accuracy"], ".4f"),
                _number(row["val_loss"], ".4f"),
                _number(row["accuracy"], ".4f"),
                _number(row["loss"], ".4f"),
                _number(row["test_accuracy"], ".4f"),
                f"{row['best_epoch'] or '–'} of {row['epochs']}",
                _number(row["train_seconds"], ".1f"),
                _number(row["steps_per_second"], ",.0f"),
            ]
        )
    return cells


def _number(value: str | int | float | None, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "–"


def to_markdown(comparison: Comparison, results: Sequence[Result]) -> str:
    """The table for readers as Markdown."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in to_cells(comparison, results)]
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
