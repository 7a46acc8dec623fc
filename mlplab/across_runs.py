"""A comparison on several data sets in the store: what its own run says over the runs on each of them."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence

from mlplab import across_figures, labels, marks, page, tables, views
from mlplab.across import Across
from mlplab.checks import UsageError
from mlplab.comparison import Comparison
from mlplab.conclusion import finite, links, told_apart, write_page
from mlplab.data import Dataset
from mlplab.loading import Experiment
from mlplab.records import Record
from mlplab.results import rank
from mlplab.sources import Data
from mlplab.space import Search
from mlplab.store import pages
from mlplab.store.runs import Run
from mlplab.verdicts import Verdict


def check_distinct(experiment: Experiment, load: Callable[[Data], Dataset]) -> None:
    """Raises a `UsageError` where two of a comparison's data sets turn out to be the same examples."""
    seen: dict[str, Data] = {}
    for data in experiment.datasets if isinstance(experiment, Comparison) else ():
        other = seen.setdefault(load(data).digest, data)
        if other is not data:
            raise UsageError(
                f"the data sets {other.label} and {data.label} are the same examples here ({load(data).label}); legal: "
                "different ones. Leave one out, or get the data that others stand in for (`mlplab data` shows where)."
            )


@contextlib.contextmanager
def naming(one: Comparison | Search, of: Experiment) -> Iterator[None]:
    """Has what is wrong with a comparison on one of several data sets name that data set."""
    try:
        yield
    except UsageError as error:
        raise (UsageError(f"on {one.data.label}: {error}") if one is not of else error) from error.__cause__


def run_across(
    comparison: Comparison,
    records: Sequence[Record],
    load: Callable[[Data], Dataset],
    run: Run,
    fingerprint: str,
) -> Record:
    """Says in `run` what holds over the data sets on which the question was repeated: tables, verdicts, figures.

    Args:
        records: what it came to on each of them, in their order.
        fingerprint: of what decides all numbers.
    """
    check_distinct(comparison, load)
    over = Across(comparison, records)
    verdicts = over.verdicts()
    for data in comparison.datasets:
        run.data(load(data))
    run.tags({**labels.above(", ".join(over.labels)), **marks.fingerprinted(fingerprint)})
    run.text(comparison.to_json(), "comparison.json")
    run.text(over.csv(), "comparison.csv")
    run.text(tables.markdown(over.cells()), "comparison.md")
    run.text(json.dumps(finite(over.to_dict(verdicts)), indent=2, allow_nan=False), "verdicts.json")
    for name, figure in across_figures.every(over, verdicts).items():
        run.figure(figure, f"{name}.png")
    answer = over.answer(verdicts)
    run.tags({"mlflow.note.content": _note(over, verdicts, answer, run), "answer": answer})
    run.view(views.ANSWERS, "Answers", views.answers(comparison.metric.name))
    run.tags({"winners": _winners(comparison, records)})
    winner, select = over.ranked()[0], comparison.metric.name
    if math.isfinite(mean := over.mean_over(winner)[0]):
        run.tags({"winner": winner})
        run.metrics({f"best_{select}": mean})
    write_page(run, comparison, answer, lambda: page.across_page(over, verdicts, store=run.store, run_id=run.run_id))
    notice = " ".join(dict.fromkeys(record.notice for record in records if record.notice))
    label = ", ".join(over.labels)
    return Record(experiment=comparison, data=label, notice=notice, verdicts=verdicts, records=list(records))


def _winners(comparison: Comparison, records: Sequence[Record]) -> str:
    """The training that won on each data set, behind the name of the comparison on it: what may be registered."""
    says = []
    for one, record in zip(comparison.needs, records, strict=True):
        first = rank(one, record.results)[0]
        result = first.representative
        says.append(f"{one.name}: {f'{first.variant.name} {result.run_id}' if result.best_epoch else 'none'}")
    return "; ".join(says)


def _note(over: Across, verdicts: Sequence[Verdict], answer: str, run: Run) -> str:
    """The run's description, as Markdown for MLflow's UI."""
    select = over.comparison.metric.name
    mean = over.mean_over(over.ranked()[0])[0]
    profiles = over.profiles()
    each = [f"[{record.data}]({pages.page_address(run, record.run_id)})" for record in over.records]
    parts = [
        f"{answer} {links(run)}",
        tables.wide_markdown(over.cells()),
        f"**{over.comparison.question}**",
        over.best if not math.isfinite(mean) or told_apart(select, over.ranked(), verdicts) else "",
        over.caution,
        tables.wide_markdown(over.profile_cells(profiles)) if profiles else "",
        f"On each data set: {', '.join(each)}.",
        *(f"> **{notice}**" for notice in dict.fromkeys(record.notice for record in over.records) if notice),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)
