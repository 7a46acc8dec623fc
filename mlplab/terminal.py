"""What a person at the terminal sees: what will be done, how far it is, and what came out.

Nothing here imports what takes long before the first lines are on the screen.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from rich import progress
from rich.console import Console

from mlplab.addresses import destination
from mlplab.comparison import Comparison
from mlplab.layout import console as console
from mlplab.layout import say
from mlplab.layout import table as table
from mlplab.loading import Experiment, Options
from mlplab.sources import Data
from mlplab.space import Search
from mlplab.spec import Training
from mlplab.workload import phases_of, planned, words

if TYPE_CHECKING:
    from mlplab.data import Dataset
    from mlplab.progress import Progress
    from mlplab.records import Record

MOST_SENTENCES = 8
"""Of more verdicts the terminal shows the first."""


class Screen:
    """A `run.Screen` for people: each experiment's question, data, progress and table.

    Args:
        options: with which every experiment is run.
    """

    def __init__(self, out: Console, options: Options | None = None) -> None:
        self.out, self.options = out, options or Options()
        self._announced = self._question = ""
        self._planned: dict[str, Comparison | Search] = {}
        self._progress: Progress | None = None

    def announce(self, experiments: Sequence[Experiment], load: "Callable[[Data], Dataset]") -> None:
        """Shows what will be done and where it is recorded, then the data: before what trains is imported."""
        self._planned = {one.name: one for each in experiments for one in planned(each, self.options)}
        if len(experiments) == 1:
            self._ask(experiments[0].question)
            say(self.out, f"To do: {words(experiments[0], self.options)}")
        else:
            phases = [phase for one in self._planned.values() for phase in phases_of(one)]
            trainings = sum(work.trainings for phase in phases for work in phase.works.values())
            say(self.out, f"{len(experiments)} experiments; those on record are not run again.", "bold")
            say(self.out, f"To do: up to {trainings:,} trainings, {sum(phase.total for phase in phases):,} epochs")
        store, experiment = destination()
        say(self.out, f"Record: {store}, experiment {experiment}")
        if len(experiments) == 1:
            self._show_data(experiments[0], load)

    def _ask(self, question: str) -> None:
        if question != self._question:  # which several data sets have in common
            say(self.out, question, "bold")
        self._question = question

    def _show_data(self, experiment: Experiment, load: "Callable[[Data], Dataset]") -> None:
        for data in map(load, _datasets(experiment)):
            what = "images" if data.image_shape else "examples"
            say(
                self.out,
                f"Data: {data.label}, {len(data.train):,} training, {len(data.validation):,} validation and "
                f"{len(data.test):,} test {what}, from {data.source}",
            )
            if data.notice:
                self.notice(f"Note: {data.notice}")
        self._announced = experiment.name

    def experiment(
        self, experiment: Comparison | Search, data: "Dataset", variants: Sequence[Training]
    ) -> "AbstractContextManager[Progress]":
        """Shows what is asked of which data, where the last announcement was not of this, then the progress."""
        from mlplab.progress import Progress

        if self._announced != experiment.name:
            self._ask(experiment.question)
            self._show_data(experiment, lambda wanted: data)
        if self._progress is None:
            self._progress = Progress(self.out, [p for one in self._planned.values() for p in phases_of(one)])
        return self._progress.watching(experiment, data, variants)

    def recorded(self, record: "Record") -> None:
        """Shows what came out."""
        from mlplab import tables

        experiment, name = record.experiment, record.experiment.name
        if record.reused:
            if self._progress:
                self._progress.drop(name)
            self._planned.pop(name, None)
            say(self.out, f"{name}: on record already, in run {record.run_id}")
        elif record.records and isinstance(experiment, Comparison):
            self._recorded_across(experiment, record)
        elif isinstance(experiment, Comparison):
            self._recorded(experiment, record)
        elif record.search:
            cells = tables.search_cells(record.search)
            self._table(cells, f"{name} on {record.data}, best mean {record.search.score} over the folds first")
            if raced := record.search.raced:
                say(self.out, raced)
        elif record.predictions:
            found = record.predictions
            right = f"{found.test_accuracy:.2%} of {record.data}'s test images right"
            say(self.out, f"{name}: {found.model_uri} has {right}")
        if not record.reused:
            say(self.out, f"{name}: {record.seconds:.1f} s")

    def _recorded(self, comparison: Comparison, record: "Record") -> None:
        from mlplab import results, tables
        from mlplab.answers import answer_of
        from mlplab.verdicts import sentences

        name = comparison.name
        say(self.out, answer_of(comparison, record.results, record.verdicts), "bold")
        what = name if name.endswith(f" on {record.data}") else f"{name} on {record.data}"
        title = f"{what}, best by {comparison.metric.name} first"
        self._table(tables.to_cells(comparison, record.results), title)
        if targets := results.targets(comparison, record.results):
            self._table(tables.target_cells(targets), "How soon the targets were reached")
        if refusal := results.unpaired(record.results):
            self.notice(f"No verdicts: {refusal}")
        disturbance = results.disturbance(record.results) or ""
        self._sentences(sentences(record.verdicts), [disturbance])
        if record.tuning and record.tuning.sentence:
            say(self.out, record.tuning.sentence)
        if unlike := results.unpaired_weights(comparison, record.results):
            self.notice(f"Note: {unlike}.")
        if disturbance:
            self.notice(f"Note: {disturbance}.")

    def _recorded_across(self, comparison: Comparison, record: "Record") -> None:
        from mlplab.across import Across

        over = Across(comparison, record.records)
        say(self.out, over.answer(record.verdicts), "bold")
        title = f"{comparison.name}: {comparison.metric.name} on {len(record.records)} data sets"
        self._table(over.cells(), title)
        if profiles := over.profiles():
            cells = over.profile_cells(profiles)
            # The score and on how many are of all; the data sets' own times stand in their own tables.
            self._table(cells, "How soon the targets were reached", range(len(cells[0]) - 3, 1, -1))
        cautions = list(dict.fromkeys(verdict.caution for verdict in record.verdicts if verdict.caution))
        every = over.sentences(record.verdicts)
        self._sentences([sentence for sentence in every if sentence != over.caution], cautions)
        if over.caution in every:  # however many sentences there are
            say(self.out, over.caution, bullet="– ")
        for caution in cautions:
            self.notice(f"Note: {caution}.")

    def _sentences(self, every: Sequence[str], cautions: Iterable[str]) -> None:
        """Verdicts, no more than can be read, without the cautions that are said of all of them below."""
        for sentence in every[:MOST_SENTENCES]:
            for caution in filter(None, cautions):
                sentence = sentence.replace(f"; {caution}.", ".")
            say(self.out, sentence, bullet="– ")
        if len(every) > MOST_SENTENCES:
            say(self.out, f"{len(every) - MOST_SENTENCES} more sentences are in verdicts.json.", bullet="– ")

    def _table(self, cells: Sequence[Sequence[str]], title: str, drop: Sequence[int] = ()) -> None:
        from mlplab import tables

        width = self.out.width if self.out.is_terminal else None
        made = table(cells, title, width=width, drop=drop or tables.dispensable(cells[0]))
        self.out.print(made, *[""] * bool(made.caption), sep="\n")

    def page(self, place: str) -> None:
        """Shows where the page of a comparison is."""
        self.out.print(f"The page:     {place}", soft_wrap=True)

    def failed(self, name: str, error: str) -> None:
        """Shows an experiment of a report that raised."""
        self.out.print(f"{name} failed:\n{error}", style="bold red")

    def notice(self, text: str) -> None:
        """Shows what a person should know."""
        say(self.out, text, "bold yellow")


def _datasets(experiment: Experiment) -> tuple[Data, ...]:
    """What is announced with an experiment."""
    if isinstance(experiment, Comparison):
        return experiment.datasets
    return (experiment.data,) if isinstance(experiment, Search) else ()


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
