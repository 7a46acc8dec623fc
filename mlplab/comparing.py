"""A comparison from a program or a notebook: `mlplab.compare(COMPARISON)`, and what it gives back."""

import abc
import argparse
import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplab import backend
from mlplab.checks import UsageError, choose
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.loading import Options, load_experiment
from mlplab.seeds import Until
from mlplab.sources import Data
from mlplab.verdicts import Verdict, sentences

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

    from mlplab.across import Across
    from mlplab.records import Record
    from mlplab.results import Result


@dataclass(frozen=True, eq=False)
class _Shown(abc.ABC):
    """What a comparison came to, on one data set or several; a notebook shows it as a page."""

    comparison: Comparison
    record: "Record"
    page: str
    command: str

    @property
    @abc.abstractmethod
    def answer(self) -> str:
        """What the seeds decide, in a sentence."""

    @property
    @abc.abstractmethod
    def table(self) -> list[list[str]]:
        """Rows of texts, the first their headings."""

    @property
    @abc.abstractmethod
    def figures(self) -> "Mapping[str, Figure]":
        """Matplotlib's figures by name."""

    @property
    def verdicts(self) -> list[Verdict]:
        """What the seeds say of the variants, measure by measure."""
        return self.record.verdicts

    @property
    def sentences(self) -> list[str]:
        """The verdicts for readers."""
        return sentences(self.verdicts)

    def save_page(self, path: Path | str = "comparison.html") -> Path:
        """Writes the comparison's page, one file that any browser shows without a network, and gives its path.

        Raises:
            UnavailableError: the store does not give it, or the record is from before there were pages.
        """
        from mlplab.lookup import artifact
        from mlplab.page import NAME

        with backend.settings(), artifact(self.record.run_id, NAME) as kept:
            Path(path).write_bytes(kept.read_bytes())
        return Path(path)

    def __str__(self) -> str:
        lines = [" | ".join(row) for row in self.table]
        return "\n".join([self.comparison.question, self.answer, *lines, *self.sentences])

    def _repr_html_(self) -> str:
        header, *rows = [[html.escape(cell) for cell in row] for row in self.table]
        head = "".join(f"<th>{cell}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        drawn = "".join(
            f'<img alt="{html.escape(name)} by variant" style="max-width:100%" '
            f'src="data:image/png;base64,{_png(figure)}">'
            for name, figure in self.figures.items()
        )
        return (
            f"<h3>{html.escape(self.comparison.question)}</h3><p><b>{html.escape(self.answer)}</b></p>"
            f"<details><summary>Table, {len(self.verdicts)} verdicts and curves</summary><ul>{said}</ul>"
            f"<table><tr>{head}</tr>{body}</table>{drawn}</details><p>Run: {html.escape(self.page)}<br>"
            "Its page is one file, comparison.html: <code>.save_page()</code> writes it here.</p>"
        )


@dataclass(frozen=True, eq=False)
class Compared(_Shown):
    """What a comparison came to; a notebook shows it as a page.

    Attributes:
        comparison: as it was run, with what its tuning chose.
        record: all of it: results, verdicts, seconds.
        page: the address of its run in MLflow's UI.
        command: what opens that UI.
        data: what it was trained on.
    """

    data: Dataset

    @property
    def answer(self) -> str:
        """What the seeds decide, in a sentence."""
        from mlplab.answers import answer_of

        return answer_of(self.comparison, self.record.results, self.verdicts)

    @property
    def table(self) -> list[list[str]]:
        """The table of the variants, best first: rows of texts, the first their headings."""
        from mlplab import tables

        return tables.to_cells(self.comparison, self.record.results)

    @property
    def figures(self) -> "Mapping[str, Figure]":
        """The curves of each metric by its name, and the times, as Matplotlib's figures."""
        from mlplab import figures, tables

        found, label = self.record.results, self.data.label
        drawn = {
            metric.base: figures.comparison_curves(metric, found, label)
            for metric in tables.shown_metrics(self.comparison, found)
        }
        if self.record.tuning:
            from mlplab import search_figures

            drawn["budget"] = search_figures.tuned_budget(self.record.tuning, label)
        return {**drawn, "training_time": figures.training_times(found, label)}

    @property
    def winner(self) -> "Result":
        """The training that stands for the best variant by the selection metric.

        Raises:
            UsageError: no variant has a result.
        """
        from mlplab import results

        (first, *_) = results.rank(self.comparison, self.record.results)
        if first.failed or first.representative.best_epoch is None:
            raise UsageError("no variant has a result: every training failed or diverged in its first epoch.")
        return first.representative

    def best(self) -> "keras.Model":
        """The model of the best variant, as it was after its best epoch: compiled, in this process.

        Raises:
            UsageError: no variant has a result.
            UnavailableError: the training was found on record, and the store does not give its model.
        """
        from mlplab.building import restored
        from mlplab.lookup import artifact

        result = self.winner
        with backend.computing():
            model = restored(result, self.data)
            if result.weights is None:  # a record has none
                with artifact(result.run_id, "model.keras") as file:
                    model.load_weights(file)
            return model


@dataclass(frozen=True, eq=False)
class ComparedAcross(_Shown):
    """What a comparison on several data sets came to; a notebook shows what holds over all of them as a page.

    Attributes:
        comparison: as it was run.
        record: all of it; the verdicts are over all data sets.
        page: the address of its run in MLflow's UI.
        command: what opens that UI.
        each: name of a data set -> what the comparison came to on it.
    """

    each: Mapping[str, Compared]

    @property
    def answer(self) -> str:
        """What holds over all data sets, in a sentence."""
        return self._over.answer(self.verdicts)

    def on(self, data: str) -> Compared:
        """What it came to on one of the data sets, by its name.

        Raises:
            UsageError: there is none of that name.
        """
        return self.each[choose("data set of this comparison", data, self.each)]

    def best(self) -> "keras.Model":
        """There is no one model: a model is trained on one data set, and `on(…)` gives that data set's.

        Raises:
            UsageError: always.
        """
        legal = ", ".join(f"on({name!r}).best()" for name in self.each)
        raise UsageError(
            f"best() is asked of {len(self.each)} data sets; legal, as a model is trained on one: {legal}."
        )

    @cached_property
    def _over(self) -> "Across":
        from mlplab.across import Across

        return Across(self.comparison, self.record.records)

    @property
    def table(self) -> list[list[str]]:
        """The variants' selection metric, a row for each data set and one over all: texts, the first row headings."""
        return self._over.cells()

    @property
    def sentences(self) -> list[str]:
        """The verdicts over all data sets for readers, and what resampling says beside them."""
        return self._over.sentences(self.verdicts)

    @property
    def figures(self) -> "Mapping[str, Figure]":
        """Differences by measure, with a row for each data set, and performance profiles, as Matplotlib's figures."""
        from mlplab import across_figures

        return across_figures.every(self._over, self.verdicts)


def _png(figure: "Figure") -> str:
    from mlplab import drawing

    content = io.BytesIO()
    drawing.save(figure, content)
    return base64.b64encode(content.getvalue()).decode()


def compare(
    comparison: Comparison | str,
    *,
    dataset: str = "auto",
    epochs: int | None = None,
    seeds: int | tuple[int, ...] | Until | None = None,
    jobs: int = 1,
    cluster: str | None = None,
) -> Compared | ComparedAcross:
    """Runs a comparison, on the record in MLflow's tracking store, and shows its progress.

    On several data sets what comes back is over all of them, and `.on(NAME)` is what it came to on one.

    The process is left as it was: what a comparison needs is set while it runs.

    Args:
        comparison: it, or the path of the file that holds it.
        dataset: in place of ready-made data, as the command's `--dataset`.
        epochs: of every training, in place of what it says.
        seeds: how many, which, or until when, in place of what it says.
        jobs: trainings at a time, each in a process of this machine.
        cluster: address of a Dask scheduler whose workers train, or `local:N` for N workers of this machine.

    Returns:
        What it came to: on one data set a `Compared`, on several a `ComparedAcross`.

    Raises:
        UsageError: something about it is wrong; nothing was trained.
        UnavailableError: the data or the tracking store are not to be had.
        UndeliveredError: the store did not take everything; it waits on disk.

    Examples:
        >>> compared = mlplab.compare(COMPARISON, seeds=5)  # doctest: +SKIP
        >>> compared.best().predict(x)  # doctest: +SKIP
    """
    if isinstance(comparison, str):
        loaded = load_experiment(comparison)
        if not isinstance(loaded, Comparison):
            raise UsageError(f"{comparison} holds a {type(loaded).__name__}; legal: a COMPARISON.")
        comparison = loaded
    if not isinstance(comparison, Comparison):
        raise UsageError(f"comparison is {comparison!r}; legal: a Comparison, or the path of a file with one.")
    changes = Options(epochs=epochs, seeds=seeds)
    adapted: Any = changes.adapt(replace(comparison, name=comparison.name or "comparison"))
    with backend.settings():
        from mlplab.command_line import open_lab

        options = argparse.Namespace(dataset=dataset, jobs=jobs, cluster=cluster)
        lab, _ = open_lab(options, changes, [adapted])
        record, command, page = lab.run(adapted)

        def compared(one: "Record", data: Data) -> Compared:
            assert isinstance(one.experiment, Comparison)  # with what its tuning chose
            return Compared(one.experiment, one, page, command, lab.dataset(data))

        if not record.records:
            return compared(record, adapted.data)
        pairs = zip(adapted.datasets, record.records, strict=True)
        return ComparedAcross(adapted, record, page, command, {data.label: compared(one, data) for data, one in pairs})
