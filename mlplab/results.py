"""What trainings and experiments left behind, and the tables of it."""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from mlplab.spec import Comparison, Experiment, Variant

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
        return self.history[metric][self.best_epoch - 1] if self.best_epoch and metric in self.history else math.nan

    def last(self, metric: str) -> float:
        """The value of `metric` at the last epoch, NaN if there is none."""
        values = self.history.get(metric, [])
        return values[-1] if values else math.nan

    def add(self, values: Mapping[str, float]) -> None:
        """Appends an epoch's values to the history."""
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as JSON has it."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "weights"}
        return {**kept, "variant": asdict(self.variant)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """What `to_dict` gave."""
        return cls(**{**values, "variant": Variant(**values["variant"])})


@dataclass(kw_only=True)
class Candidate:
    """One candidate of a search.

    Attributes:
        choices: field of `Variant` -> the value drawn.
        scores: accuracy on each held-out fold, in the folds' order; NaN where the training failed.
        train_seconds: seconds of training alone, over all folds.
    """

    choices: dict[str, Any]
    scores: list[float]
    train_seconds: float = math.nan
    run_id: str = ""

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy over the folds (population's, as scikit-learn's)."""
        return statistics.pstdev(self.scores)


@dataclass(kw_only=True)
class SearchResult:
    """A random search's candidates in the order they were drawn, and the best one trained on all training images.

    Attributes:
        refit: that training; it saw no validation data while it went on.
        validation: loss and accuracy on the validation set after it.
    """

    candidates: list[Candidate]
    refit: Result
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Candidate:
        """The candidate with the highest mean accuracy, the first of equals."""
        return max(self.candidates, key=lambda c: c.mean if math.isfinite(c.mean) else -math.inf)


@dataclass(kw_only=True, eq=False)
class Predictions:
    """What a model answered on images.

    Attributes:
        images: uint8, shape (images, features).
        image_shape: (28, 28) or (32, 32, 3).
        labels, predicted: true and predicted class of each image.
        probability: the probability the model gave its prediction.
        class_names: the classes' names, by class.
        test_accuracy: share of right answers on the whole test set.
        model_uri: where the model was loaded from.
    """

    images: np.ndarray
    image_shape: tuple[int, ...]
    labels: list[int]
    predicted: list[int]
    probability: list[float]
    class_names: tuple[str, ...]
    test_accuracy: float
    model_uri: str


@dataclass(kw_only=True, eq=False)
class Record:
    """An experiment that has run.

    Attributes:
        data: the data set's label, as it stands beside every number.
        notice: what a reader must know of the data, or "".
        seconds: wall time of the experiment from its start to its conclusion, without that of experiments it needs.
        reused: whether it was found on record instead of run.
        results: those of a comparison, in the order of its variants.
        search, predictions: those of a search or a prediction.
    """

    experiment: Experiment
    data: str
    notice: str = ""
    run_id: str = ""
    seconds: float = 0.0
    reused: bool = False
    results: list[Result] = field(default_factory=list)
    search: SearchResult | None = None
    predictions: Predictions | None = None

    @property
    def failed(self) -> bool:
        """Whether a training of it raised."""
        return any(result.status == FAILED for result in self.results)

    def result(self, variant: str) -> Result:
        """The result of a variant by its name.

        Raises:
            KeyError: there is none of that name.
        """
        return {result.variant.name: result for result in self.results}[variant]

    def to_json(self) -> str:
        """All but the experiment itself, as JSON; values that are not finite as NaN and Infinity."""
        record: dict[str, Any] = {"data": self.data, "notice": self.notice, "seconds": self.seconds}
        record["results"] = [result.to_dict() for result in self.results]
        if self.search:
            candidates = [asdict(candidate) for candidate in self.search.candidates]
            refit, validation = self.search.refit.to_dict(), self.search.validation
            record["search"] = {"candidates": candidates, "refit": refit, "validation": validation}
        if self.predictions:
            record["predictions"] = {**vars(self.predictions), "images": self.predictions.images.tolist()}
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, experiment: Experiment, run_id: str) -> "Record":
        """What `to_json` gave, found on record."""
        record = json.loads(text)
        record["results"] = [Result.from_dict(result) for result in record["results"]]
        if search := record.get("search"):
            candidates = [Candidate(**candidate) for candidate in search["candidates"]]
            refit = Result.from_dict(search["refit"])
            record["search"] = SearchResult(candidates=candidates, refit=refit, validation=search["validation"])
        if found := record.get("predictions"):
            images = np.array(found["images"], np.uint8)
            shapes = {name: tuple(found[name]) for name in ("image_shape", "class_names")}
            record["predictions"] = Predictions(**{**found, "images": images, **shapes})
        return cls(**record, experiment=experiment, run_id=run_id, reused=True)


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
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else "–"


def search_cells(search: SearchResult) -> list[list[str]]:
    """A search's candidates for readers, best first: a header, then a row for each."""
    names = list(search.candidates[0].choices)
    cells = [["candidate", *(name.replace("_", " ") for name in names), "mean score", "std", "folds", "train (s)"]]
    places = {id(candidate): place for place, candidate in enumerate(search.candidates, start=1)}
    ranked = sorted(search.candidates, key=lambda c: -c.mean if math.isfinite(c.mean) else math.inf)
    for candidate in ranked:
        scores = " ".join(_number(score, ".4f") for score in candidate.scores)
        measured = [_number(candidate.mean, ".4f"), _number(candidate.std, ".4f"), scores]
        choices = [f"{candidate.choices[name]}" for name in names]
        cells.append([str(places[id(candidate)]), *choices, *measured, _number(candidate.train_seconds, ".1f")])
    return cells


def time_cells(records: Sequence[Record]) -> list[list[str]]:
    """The training times of several comparisons for readers: a header, then a row for each variant."""
    cells = [["comparison", "variant", "epochs", "train (s)", "s/epoch", "compile (s)", "steps/epoch"]]
    for record in records:
        for result in record.results:
            each = result.train_seconds / result.epochs if result.epochs else math.nan
            cells.append(
                [
                    record.experiment.name,
                    result.variant.name,
                    str(result.epochs),
                    _number(result.train_seconds, ".1f"),
                    _number(each, ".3f"),
                    _number(result.compile_seconds, ".1f"),
                    f"{result.steps_per_epoch:,}",
                ]
            )
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
