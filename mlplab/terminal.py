"""What a person at the terminal sees: a live table, or plain lines where the output is no terminal."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich import box, progress
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mlplab import results, tables
from mlplab.across import Across
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import fold_number, is_trial
from mlplab.loading import Experiment
from mlplab.records import Record
from mlplab.results import FAILED, FINISHED, Result
from mlplab.sources import Data
from mlplab.space import Search
from mlplab.spec import Metric, Training
from mlplab.verdicts import sentences

PLAIN_LINE_SECONDS = 5.0
"""Least time between two lines on one training, where the output is no terminal."""


def console() -> Console:
    """A console that does not fold lines where the output is no terminal.

    It prints texts as they are: a variant may be called `[relu]`, which would be markup, or `:x:`, an emoji.
    """
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(highlight=False, markup=False, emoji=False, width=1_000, no_color=True)
    return made


class Screen:
    """A `run.Screen` for people: each experiment's question, data, progress and table."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._announced = self._question = ""

    def announce(self, experiment: Experiment, load: Callable[[Data], Dataset]) -> None:
        """Shows what is asked, and of which data once they are loaded: before what trains is imported."""
        if experiment.question != self._question:  # which several data sets have in common
            self.out.print(experiment.question, style="bold")
        self._question = experiment.question
        for data in map(load, _datasets(experiment)):
            what = "images" if data.image_shape else "examples"
            self.out.print(
                f"Data: {data.label}, {len(data.train):,} training, {len(data.validation):,} validation and "
                f"{len(data.test):,} test {what}, from {data.source}"
            )
            if data.notice:
                self.out.print(f"Note: {data.notice}", style="bold yellow")
        self._announced = experiment.name

    @contextmanager
    def experiment(self, experiment: Experiment, data: Dataset, variants: Sequence[Training]) -> "Iterator[Progress]":
        """Shows what is asked of which data, where the last announcement was not of this, then the progress."""
        if self._announced != experiment.name:
            self.announce(experiment, lambda wanted: data)
        seeds = len(experiment.each_seed) if isinstance(experiment, Comparison) else 1
        most = "up to " if isinstance(experiment, Comparison) and experiment.looks else ""
        metric = experiment.metric if isinstance(experiment, Comparison) else ""
        with Progress(self.out, variants, seeds, metric, most) as progress:
            yield progress

    def recorded(self, record: Record) -> None:
        """Shows what came out."""
        experiment, name = record.experiment, record.experiment.name
        if record.reused:
            self.out.print(f"{name}: on record already, in run {record.run_id}")
        elif record.records and isinstance(experiment, Comparison):
            self._recorded_across(experiment, record)
        elif isinstance(experiment, Comparison):
            answer = answer_of(experiment, record.results, record.verdicts)
            self.out.print(answer, style="bold", soft_wrap=True)
            cells = tables.to_cells(experiment, record.results)
            what = name if name.endswith(f" on {record.data}") else f"{name} on {record.data}"
            self.out.print(table(cells, f"{what}, best by {experiment.metric.name} first"))
            if targets := results.targets(experiment, record.results):
                self.out.print(table(tables.target_cells(targets), "How soon the targets were reached"))
            if refusal := results.unpaired(record.results):
                self.out.print(f"No verdicts: {refusal}", style="bold yellow")
            for sentence in sentences(record.verdicts):
                self.out.print(f"– {sentence}", soft_wrap=True)
            if record.tuning and record.tuning.sentence:
                self.out.print(record.tuning.sentence, soft_wrap=True)
            if unlike := results.unpaired_weights(experiment, record.results):
                self.out.print(f"Note: {unlike}.", style="bold yellow", soft_wrap=True)
            if disturbance := results.disturbance(record.results):
                self.out.print(f"Note: {disturbance}.", style="bold yellow", soft_wrap=True)
        elif record.search:
            cells = tables.search_cells(record.search)
            best = f"best mean {record.search.score} over the folds first"
            self.out.print(table(cells, f"{name} on {record.data}, {best}"))
            if raced := record.search.raced:
                self.out.print(raced, soft_wrap=True)
        elif record.predictions:
            found = record.predictions
            self.out.print(
                f"{name}: {found.model_uri} has {found.test_accuracy:.2%} of {record.data}'s test images right"
            )
        if not record.reused:
            self.out.print(f"{name}: {record.seconds:.1f} s")

    def _recorded_across(self, comparison: Comparison, record: Record) -> None:
        over = Across(comparison, record.records)
        self.out.print(over.answer(record.verdicts), style="bold", soft_wrap=True)
        title = f"{comparison.name}: {comparison.metric.name} on {len(record.records)} data sets"
        self.out.print(table(over.cells(), title))
        if profiles := over.profiles():
            self.out.print(table(over.profile_cells(profiles), "How soon the targets were reached"))
        for sentence in over.sentences(record.verdicts):
            self.out.print(f"– {sentence}", soft_wrap=True)

    def failed(self, name: str, error: str) -> None:
        """Shows an experiment of a report that raised."""
        self.out.print(f"{name} failed:\n{error}", style="bold red")

    def notice(self, text: str) -> None:
        """Shows what a person should know."""
        self.out.print(text, style="bold yellow", soft_wrap=True)


def _datasets(experiment: Experiment) -> tuple[Data, ...]:
    """What is announced with an experiment."""
    if isinstance(experiment, Comparison):
        return experiment.datasets
    return (experiment.data,) if isinstance(experiment, Search) else ()


class Progress:
    """A `run.ProgressListener` for people: one row a variant with epoch, loss, a metric and the time left.

    Args:
        seeds: trainings of each variant.
        metric: the one that is shown beside the loss, with or without `val_`; "": the first that is logged.
        most: `up to ` where it may be fewer seeds.
    """

    def __init__(
        self, out: Console, variants: Sequence[Training], seeds: int = 1, metric: Metric | str = "", most: str = ""
    ) -> None:
        self.out = out
        self.variants = variants
        self.seeds, self.most = seeds, most
        self._metric = (metric.name if isinstance(metric, Metric) else metric).removeprefix("val_")
        self._begun = dict.fromkeys((variant.name for variant in variants), 0)
        self.results: dict[str, Result] = {}
        self._first_epoch = self._printed = time.monotonic()
        self._state = {variant.name: "waiting" for variant in variants}
        self._live = Live(get_renderable=self._table, console=out, refresh_per_second=4) if out.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def started(self, result: Result) -> None:
        """Announces a training."""
        variant = result.variant
        self._begun[variant.name] += 1
        self._state[variant.name] = f"compiling{self._seed(result)}"
        self._say(f"{self._training(result)}: compiling; {variant.epochs} epochs of {result.steps_per_epoch:,} steps")

    def recalled(self, result: Result) -> None:
        """Shows a training that was over before the command went on."""
        name = result.variant.name
        self._begun[name] += 1
        self.results[name] = result
        self._state[name] = f"done before{self._seed(result)}"
        self._say(f"{self._training(result)}: {result.status} before, after {result.epochs} epochs")

    def epoch(self, result: Result) -> None:
        """Shows the epoch's values and the time left."""
        name = result.variant.name
        self.results[name] = result
        if result.epochs == 1:
            self._first_epoch = time.monotonic()
        seconds = self._left(result)
        left = "training" if seconds is None else f"{seconds:.0f} s left"
        self._state[name] = f"{left}{self._seed(result)}"
        if time.monotonic() - self._printed >= PLAIN_LINE_SECONDS:
            shown = [name for name in self._shown() if name in result.history and name != "val_loss"]
            values = [f"{tables.heading(name)} {tables.number_text(result.last(name))}" for name in shown]
            epoch = f"epoch {result.epochs} of {result.variant.epochs}"
            self._say(f"{self._training(result)}: {', '.join([epoch, *values, left])}")

    def ended(self, result: Result) -> None:
        """Shows how a variant ended."""
        name = result.variant.name
        self.results[name] = result
        self._state[name] = f"{'done' if result.status == FINISHED else result.status}{self._seed(result)}"
        training = self._training(result)
        if result.status == FAILED:
            (self._live.console if self._live else self.out).print(f"{training} failed:\n{result.error}")
        else:
            # Trained beside other seeds it is timed alone later.
            seconds = f", {result.train_seconds:.1f} s of training" if math.isfinite(result.train_seconds) else ""
            self._say(f"{training}: {result.status} after {result.epochs} epochs{seconds}")

    def _training(self, result: Result) -> str:
        name, fold = result.variant.name, fold_number(result.variant, result.seed)
        if fold is not None:
            return f"{name}, fold {fold}"
        return f"{name}, seed {result.seed}" if self.seeds > 1 and not is_trial(result.variant) else name

    def _seed(self, result: Result) -> str:
        if (fold := fold_number(result.variant, result.seed)) is not None:
            return f", fold {fold}"
        if self.seeds == 1 or is_trial(result.variant):
            return ""
        return f", seed {self._begun[result.variant.name]} of {self.most}{self.seeds}"

    def _left(self, result: Result) -> float | None:
        # Timed from the end of the first epoch on: before it lies the compiling.
        done = result.epochs - 1
        an_epoch = (time.monotonic() - self._first_epoch) / done if done else None
        return None if an_epoch is None else an_epoch * (result.variant.epochs - result.epochs)

    def _say(self, line: str) -> None:
        self._printed = time.monotonic()
        if not self._live:
            self.out.print(line)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("variant")
        metrics = self._shown()
        for heading in ("epoch", *map(tables.heading, metrics), "state"):
            table.add_column(heading, justify="right")
        for variant in self.variants:
            result = self.results.get(variant.name)
            values = [tables.number_text(result.last(name)) if result else "–" for name in metrics]
            epoch = f"{result.epochs if result else 0}/{variant.epochs}"
            table.add_row(variant.name, epoch, *values, self._state[variant.name])
        return table

    def _shown(self) -> list[str]:
        """What the history is to be shown of: the loss and the metric, of training and validation."""
        logged = (name for result in self.results.values() for name in tables.logged([result]))
        metric = self._metric or next(logged, "loss")
        names = dict.fromkeys(("loss", metric))
        return [*names, *(f"val_{name}" for name in names)]


class Download:
    """Shows a download's progress; call it with the bytes received and the bytes expected, None if unknown."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._bar = progress.Progress(
            "Downloading", progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn(), console=out
        )
        self._task: progress.TaskID | None = None

    def __enter__(self) -> "Download":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:  # a bar that never started would leave an empty line
            self._bar.stop()

    def __call__(self, received: int, expected: int | None) -> None:
        """Moves the bar on."""
        if self._task is None:
            self._task = self._bar.add_task("download", total=expected)
            self._bar.start()
        self._bar.update(self._task, completed=received)


def table(cells: Sequence[Sequence[str]], title: str = "", *, numbers: bool = True) -> Table:
    """A table of cells, the first row its header; `numbers`: all but the first column are, and set to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for index, heading in enumerate(cells[0]):
        made.add_column(heading, justify="right" if index and numbers else "left", overflow="fold")
    for row in cells[1:]:
        made.add_row(*row)
    return made
