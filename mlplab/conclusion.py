"""What a comparison's run says of its trainings: tables, figures, verdicts, winner; and the models worth serving."""

import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlplab import (
    figures,
    labels,
    lookup,
    page,
    page_tested,
    predicted,
    results,
    served,
    tables,
    verdict_figures,
    views,
)
from mlplab.answers import answer_of
from mlplab.building import restored
from mlplab.checks import UnavailableError
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import for_seed
from mlplab.records import Tuning
from mlplab.results import Outcome, Result, Target
from mlplab.seed_group import SeedGroup
from mlplab.store import pages
from mlplab.store.runs import Run
from mlplab.verdicts import BETTER, Verdict, judge, judge_looks


def verdicts_of(comparison: Comparison, found: Sequence[Result], looks: Sequence[int] = ()) -> list[Verdict]:
    """What trainings say of the variants, as far as they pair.

    Args:
        looks: after how many seeds it is looked at, where they are added until the verdicts are clear.
    """
    if len(comparison.variants) < 2 or results.unpaired(found):
        return []
    measures = results.measures(comparison, found)
    if not looks:
        return judge(measures, comparison.against)
    return judge_looks(measures, comparison.against, looks, results.begun(found, comparison.each_seed))


def look(
    parent: Run, comparison: Comparison, verdicts: Sequence[Verdict], seeds: int, say: Callable[[str], None]
) -> set[str]:
    """Says what a look after so many seeds has shown; the names of the variants that need more of them."""
    judged = {metric.name for metric in comparison.judged}
    of_metrics = [verdict for verdict in verdicts if verdict.measure in judged]
    left = [verdict for verdict in of_metrics if verdict.open]
    says = [f"After {seeds} seeds: {len(of_metrics) - len(left)} of {len(of_metrics)} verdicts need no more seeds."]
    says += [verdict.sentence for verdict in of_metrics if verdict.seeds + verdict.dropped == seeds]
    for text in says:
        say(text)
    parent.metrics({"open_verdicts": len(left)}, step=seeds)
    open_pairs = f"Open: {', '.join(f'{one.a} and {one.b}' for one in left)}." if left else ""
    live = [f"Running. {says[0]} {open_pairs} {links(parent, curves=True)}", f"**{comparison.question}**"]
    parent.tags({"mlflow.note.content": "\n\n".join(live)})
    return {name for verdict in left for name in (verdict.a, verdict.b)}


def prepare() -> None:
    """Imports what `conclude` needs and no training does; called beside the first one, while that is compiled."""
    import altair  # noqa: F401
    import tf2onnx.convert  # noqa: F401


def conclude(
    parent: Run,
    comparison: Comparison,
    data: Dataset,
    families: Sequence[SeedGroup],
    trained: Sequence[tuple[Result, Run]],
    verdicts: Sequence[Verdict],
    tuning: Tuning | None = None,
) -> None:
    """What the parent run says of its trainings: answer, tables, figures, verdicts, winner; models worth serving."""
    found = [result for result, _ in trained]
    refusal = results.unpaired(found)
    answer = answer_of(comparison, found, verdicts)
    targets = results.targets(comparison, found)
    table = tables.to_markdown(comparison, found)
    select = comparison.metric.name
    ranked = [o for o in results.rank(comparison, found) if math.isfinite(o.best(select)) and not o.failed]
    parent.text(tables.to_csv(comparison, found), "comparison.csv")
    parent.text(table, "comparison.md")
    for metric in tables.shown_metrics(comparison, found):
        parent.figure(figures.comparison_curves(metric, found, data.label), f"{metric.base}.png")
    parent.figure(figures.training_times(found, data.label), "training_time.png")
    if rates := figures.learning_rates(found, comparison.metric, data.label):
        parent.figure(rates, "learning_rates.png")
    _record_verdicts(parent, answer, verdicts, targets, data)
    says = [f"No verdicts: {refusal}"] if refusal else []
    if told_apart(select, [outcome.variant.name for outcome in ranked], verdicts):
        says.append(f"Best by {select}: **{ranked[0].variant.name}**.")
    if tuning and tuning.sentence:
        says.append(tuning.sentence)
    if not ranked:
        says.append("No variant has a result.")
    note = _note(parent, comparison, data, found, answer, says, targets)
    parent.tags({"mlflow.note.content": note, "answer": answer})
    runs = {result.run_id: run for result, run in trained}
    _describe(comparison, ranked, runs, {family.variant.name: family.run for family in families})
    tested = None
    if ranked:
        winner = ranked[0].representative
        parent.tags({"winner": winner.variant.name, "winner.run_id": winner.run_id})
        parent.metrics({f"best_{select}": ranked[0].best(select)})
        best = _log_model(runs[winner.run_id], winner, comparison, data)
        for outcome in ranked[1:]:
            result = outcome.representative
            _log_model(runs[result.run_id], result, comparison, data)
        tested = _tested(best, winner, data)

    def drawn() -> str:
        where = parent.store, parent.run_id
        return page.comparison_page(comparison, data, found, verdicts, *where, tested=tested, tuning=tuning)

    write_page(parent, comparison, answer, drawn)


def write_page(parent: Run, comparison: Comparison, answer: str, draw: Callable[[], str]) -> None:
    """Writes the comparison's page, last of all; where it cannot be drawn, why."""
    try:
        text = draw()
    except Exception as error:
        parent.text(traceback.format_exc(), "comparison_page_error.txt")
        text = page.unavailable(comparison, answer, f"{type(error).__name__}: {error}")
    parent.text(text, page.NAME)


def _tested(model: Any, result: Result, data: Dataset) -> page_tested.Answered:
    """What a training's model answers on its test set, as the page shows it; why it does not where that fails."""
    from mlplab.export import answering

    own = for_seed(result.variant, data, result.seed)
    if model is None:
        return page_tested.Answered(result, own, "its weights are not to be had.")
    if why := predicted.refusal(own):
        return page_tested.Answered(result, own, why)
    found: Any
    try:
        outputs = answering(served.exported(model, own))(own.test.x)
        found = predicted.compared(outputs, own, _has_entropy(model))
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        found = f"the model could not be asked ({type(error).__name__}: {said})."
    return page_tested.Answered(result, own, found)


def _has_entropy(model: Any) -> bool:
    """Whether a compiled model's loss is a cross-entropy, given by its name, as a function or as an object."""
    loss = getattr(model, "loss", None)
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    return "entropy" in str(name).lower()


def _describe(
    comparison: Comparison,
    ranked: Sequence[Outcome],
    runs: Mapping[str, Run],
    over: Mapping[str, Run | None],
) -> None:
    """Says of each training's run, and of each variant's over its seeds, what it came to.

    A place among the variants is by the mean: it stands on the variant's run, and on none of its seeds.

    Args:
        runs: by the id of a training's run.
        over: name of a variant -> its run over the seeds, None where it has one seed.
    """
    select, of = comparison.metric.name, f"of {len(comparison.variants)} in {comparison.name}"
    for place, outcome in enumerate(ranked, start=1):
        name, many = outcome.variant.name, len(outcome.results)
        for result in (result for result in outcome.results if result.best_epoch):
            value = f"{select} {result.best(select):.4f} at epoch {result.best_epoch} of {result.epochs}"
            number = f"number {place} {of}" if many == 1 else f"seed {result.seed} of {name}, see the run above this"
            runs[result.run_id].tags({"mlflow.note.content": f"{value}: {number}"})
        if run := over[name]:
            mean, low, high = outcome.over_seeds(lambda result: result.best(select))
            interval = f" [{low:.4f}, {high:.4f}]" if math.isfinite(high - low) else ""
            state = f" ({outcome.state})" if outcome.state else ""
            value = f"{select} {mean:.4f}{interval}, mean of {many} seeds{state} at their best epochs"
            run.tags({"mlflow.note.content": f"{value}: number {place} {of} by the mean"})


def _record_verdicts(
    parent: Run, answer: str, verdicts: Sequence[Verdict], targets: Sequence[Target], data: Dataset
) -> None:
    """Answer, verdicts and times to targets as a JSON file and figures of the comparison's run."""
    said: dict[str, Any] = {"answer": answer, "verdicts": [asdict(verdict) for verdict in verdicts]}
    said["targets"] = [asdict(target) for target in targets]
    parent.text(json.dumps(finite(said), indent=2, allow_nan=False), "verdicts.json")
    for measure in dict.fromkeys(verdict.measure for verdict in verdicts if math.isfinite(verdict.low)):
        shown = [verdict for verdict in verdicts if verdict.measure == measure]
        parent.figure(verdict_figures.differences(shown, data.label), f"differences_{measure}.png")
    for metric, target in dict.fromkeys((target.metric, target.target) for target in targets):
        each = [found for found in targets if (found.metric, found.target) == (metric, target)]
        parent.figure(verdict_figures.reached(each, data.label), f"reached_{metric}_{target:g}.png")


def finite(value: Any) -> Any:
    """`value` as strict JSON takes it: what is no finite number is null."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _note(
    parent: Run,
    comparison: Comparison,
    data: Dataset,
    found: Sequence[Result],
    answer: str,
    says: Sequence[str],
    targets: Sequence[Target],
) -> str:
    """The comparison's description, as Markdown for MLflow's UI.

    That shows the first 120 pixels of it without a click: the answer, and the ways to what is behind it. Verdicts in
    full are on the page and in verdicts.json. It has no `<details>`, which the UI takes out of a description.
    """
    parts = [
        f"{answer} {links(parent, curves=True)}",  # a line of their own would be below what is shown
        tables.wide_markdown(tables.to_cells(comparison, found)),
        f"**{comparison.question}**",
        *says,
        tables.wide_markdown(tables.target_cells(targets)) if targets else "",
        f"Note: {disturbance}." if (disturbance := results.disturbance(found)) else "",
        f"Note: {apart}." if (apart := results.unpaired_weights(comparison, found)) else "",
        f"Data: {data.label}.",
        f"> **{data.notice}**" if data.notice else "",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part)


def told_apart(metric: str, ranked: Sequence[str], verdicts: Sequence[Verdict]) -> bool:
    """Whether a verdict on a metric tells the best variant from the second."""
    of_both = [v for v in verdicts if v.measure == metric and {v.a, v.b} == set(ranked[:2])]
    return any(verdict.decision == BETTER for verdict in of_both)


def links(run: Run, curves: bool = False) -> str:
    """The ways from a run's description to what is behind its answer.

    Args:
        curves: whether the view of the curves is saved, see `save_views`.
    """
    ways = {"Page": pages.artifact_address(run, page.NAME)}
    if curves:
        ways["Curves"] = pages.view_address(run, run.run_id, charts=True)
    ways["All answers"] = pages.view_address(run, views.ANSWERS)
    return " · ".join(f"[{name}]({address})" for name, address in ways.items())


def save_views(run: Run, comparison: Comparison, title: str) -> None:
    """Saves the views of MLflow's UI that a comparison's description leads to: its curves, and all answers."""
    metric = comparison.metric
    run.view(views.ANSWERS, "Answers", views.answers(metric.name))
    run.view(run.run_id, f"Curves: {title}", views.curves(run.run_id, metric.name, not metric.maximizes))


def _log_model(run: Run, result: Result, comparison: Comparison, data: Dataset) -> Any:
    """Logs a training's model, as it was after the best epoch, and gives it; None where that is not to be had."""
    leads = {**labels.of_data(data), "comparison": comparison.name, "variant": result.variant.name}
    model = restored(result, data)
    if result.weights is None:  # it was found on record
        try:
            run.flush()
            with lookup.artifact(run.resolved(run.run_id), "model.keras") as path:
                model.load_weights(path)
        except UnavailableError as error:
            run.tags({"model.missing": str(error)})
            return None
    run.model(model, data, leads | {"run_id": run.run_id})
    return model
