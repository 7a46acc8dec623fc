"""The parts of a page behind its numbers: what was trained, on what data and machine, and how to do it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mlplab import origin, results, tables
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.page_canvas import Charts
from mlplab.page_parts import command, folded, paragraph, table
from mlplab.records import Tuning, choice_words
from mlplab.results import Result


def trained_part(charts: Charts, comparison: Comparison, found: Sequence[Result], tuning: Tuning | None) -> list[str]:
    """The choices in which variants differ, and, folded, those that all have, and how they were tuned."""
    params = {variant.name: variant.params() for variant in comparison.resolved()}
    every = list(dict.fromkeys(name for choices in params.values() for name in choices))
    unlike = [name for name in every if len({choices.get(name) for choices in params.values()}) > 1]
    alike = [name for name in every if name not in unlike]
    parameters = {result.variant.name: result.parameters for result in found if result.parameters}
    words = choice_words(unlike)
    parts = []
    if unlike:
        cells = [["variant", *words.values(), *["parameters"] * bool(parameters)]]
        for name, choices in params.items():
            own = [f"{parameters[name]:,}" if name in parameters else "–"] * bool(parameters)
            cells.append([name, *(choices.get(choice, "–") for choice in unlike), *own])
        parts.append(
            table(cells, "the choices in which the variants differ", words=True, marks=charts.marks(list(params)))
        )
    seeds = sorted({result.seed for result in found})
    common = [["choice", "value"], *([name, next(iter(params.values()))[name]] for name in alike)]
    common += [["seeds", ", ".join(map(str, seeds))], ["selected by", comparison.metric.name]]
    if not unlike and parameters:
        common.append(["parameters", f"{next(iter(parameters.values())):,}"])
    parts.append(
        folded(f"{len(common) - 1} choices that all variants have", table(common, "common choices", words=True))
    )
    for name in tuning.trials if tuning else ():
        assert tuning is not None
        cells = tables.trial_cells(tuning, name)
        parts.append(folded(f"How {name} was tuned: {len(cells) - 1} trials", table(cells, f"trials of {name}")))
    runs = [["variant", "seed", "ended", "run"]]
    runs += [[r.variant.name, str(r.seed), r.status, r.run_id] for r in found if r.run_id]
    if len(runs) > 1:
        parts.append(
            folded(f"{len(runs) - 1} trainings and their runs", table(runs, "the trainings' runs", words=True))
        )
    return parts


def data_part(data: Dataset) -> str:
    """The data set: its sizes, where it came from, and what must be known of it."""
    shape = data.input_shape
    named = [["data", data.label], *([["name", data.name]] if data.name != data.label else [])]
    cells = [*named, ["source", data.source]]
    cells += [[f"{name} examples", f"{len(part):,}"] for name, part in splits_of(data).items()]
    cells += [["shape of one", _shape(shape)], ["classes", ", ".join(data.class_names[:30]) or "none"]]
    cells += [["digest", data.digest], *([["notice", data.notice]] if data.notice else [])]
    return table([["what", "value"], *cells], "the data", words=True)


def splits_of(data: Dataset) -> dict[str, Any]:
    """The splits, as readers call them."""
    return {"training": data.train, "validation": data.validation, "test": data.test}


def _shape(shape: Any) -> str:
    if isinstance(shape, Mapping):
        return "; ".join(f"{name}: {_shape(part)}" for name, part in shape.items())
    if shape and all(isinstance(length, int) for length in shape):
        return " × ".join(map(str, shape))
    return "one number" if not shape else "; ".join(map(_shape, shape))


def machine_part() -> str:
    """The machine and the versions."""
    words = {"commit": "mlplab's commit", "dirty": "changed since that commit"}
    known = {name.rpartition(".")[2]: value for name, value in origin.tags().items()}
    cells = [["what", "value"], *([words.get(name, name), value] for name, value in known.items())]
    return table(cells, "machine and versions", words=True)


def commands_part(
    comparison: Comparison,
    data: Dataset | None,
    found: Sequence[Result],
    best: Result | None,
    store: str,
    run_id: str,
) -> list[str]:
    """What is typed to reproduce the comparison, to replay a training of it, and to register its winner."""
    program = origin.program()
    parts = [
        paragraph(f"The record is the run {run_id} of the store {store}, which MLFLOW_TRACKING_URI names:")
        if run_id
        else "",
        command(f"export MLFLOW_TRACKING_URI={shlex.quote(store)}") if store else "",
        "<h3>Reproduce</h3>",
        paragraph(
            f"In the folder where it was run, with mlplab at commit {origin.tags()['git.commit'][:12]} and the "
            "versions above; on another machine or with other versions the last digits may differ."
        ),
        command(origin.command() or f"mlplab.compare({comparison.name or 'COMPARISON'})  # in the program that has it"),
    ]
    replayed = best or next((result for result in found if result.status != results.FAILED), None)
    if replayed is not None and replayed.run_id:
        parts += [
            "<h3>Replay a training, to the bit</h3>",
            paragraph(f"This one: {replayed.variant.name}, seed {replayed.seed}; any other by its run, listed above."),
            command(f"{program} replay --run-id {replayed.run_id}"),
        ]
    if best is not None and best.best_epoch and best.run_id and data is not None:
        stand_in = f" --dataset {data.name}" if data.is_fallback else ""
        name = shlex.quote(comparison.name or "comparison")
        parts += [
            "<h3>Register the best variant’s model</h3>",
            command(f"{program} register --run-id {best.run_id} --name {name}{stand_in}"),
        ]
    return parts
