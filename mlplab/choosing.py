"""Which run `mlplab register` takes, of those on record."""

import json
import math
from typing import Any, cast

import mlflow
from mlflow.entities import Run

from mlplab import lookup, stores
from mlplab.checks import UsageError
from mlplab.data import Dataset
from mlplab.sources import Data
from mlplab.spec import Metric

OPTIMIZER, METRIC = "rmsprop", "val_accuracy"
"""What is registered, and by which metric, where nothing is said."""


def data_of(run_id: str | None = None, comparison: str | None = None) -> Data | None:
    """What data a run, or the latest finished comparison of a name, is about; None where no comparison tells.

    Raises:
        UsageError: there is no such run or comparison, or its data were arrays that no record holds.
        UnavailableError: the store does not answer.
    """
    client = stores.Client()
    spec = _spec_above(client, lookup.existing_run(client, run_id) if run_id else _compared(client, comparison or ""))
    return Data.from_dict(spec["data"]) if spec else None


def chosen(
    client: stores.Client,
    data: Dataset,
    run_id: str | None,
    comparison: str | None,
    variant: str | None,
    optimizer: str,
    metric: str | Metric | None,
) -> tuple[Run, Metric]:
    """The run that `registry.register` takes, given the same, and the metric that chose it; raises as that does.

    Where a variant has several seeds it is the one that stands for it, `results.Outcome.representative`.
    """
    by = Metric(metric) if metric and isinstance(metric, str) else metric or None
    if not run_id and not comparison:
        return _best(client, data, optimizer, by or Metric(METRIC)), by or Metric(METRIC)
    if run_id:
        run = lookup.existing_run(client, run_id)
    else:
        above = _compared(client, comparison or "")
        run = _trained_variant(client, above, variant) if variant else _winner(client, above)
    if by is None:
        by = Metric(**spec["select"]) if (spec := _spec_above(client, run)) else Metric(METRIC)
    if run.data.tags.get("mlplab.kind") != "training" or f"best_{by.name}" not in run.data.metrics:
        raise lookup.no_training(run, f"best_{by.name}")
    if run.data.tags.get("dataset.digest") != data.digest:
        raise UsageError(
            f"run {run.info.run_id} was trained on {run.data.tags.get('dataset', 'unknown data')} with digest "
            f"{run.data.tags.get('dataset.digest')}, not on {data.label} with {data.digest}: its test set says "
            "nothing of it. Name the data set it was trained on (-P dataset=…)."
        )
    return run, by


def _best(client: stores.Client, data: Dataset, optimizer: str, by: Metric) -> Run:
    conditions = [
        "attributes.status = 'FINISHED'",
        "tags.`mlplab.kind` = 'training'",
        f"tags.`dataset.digest` = '{data.digest}'",
        *([f"params.optimizer = '{optimizer}'"] if optimizer else []),
    ]
    key, order = f"best_{by.name}", "DESC" if by.maximizes else "ASC"
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # Ordering by a metric joins every match with every run of the store; a good value met in any order leaves few.
    sample = client.search_runs(experiments, " and ".join(conditions), max_results=50)
    values = [value for run in sample if math.isfinite(value := run.data.metrics.get(key, math.nan))]
    if values:
        best, at_least = (max(values), ">=") if by.maximizes else (min(values), "<=")
        # Without an exponent, which MLflow's filters do not know.
        conditions.append(f"metrics.`{key}` {at_least} {best:.17f}")
    found = client.search_runs(
        experiments, " and ".join(conditions), max_results=50, order_by=[f"metrics.`{key}` {order}"]
    )
    found = [run for run in found if key in run.data.metrics]
    if not found:
        raise UsageError(
            f"no finished {optimizer or 'variant'} run on {data.label} with digest {data.digest} is on record in "
            f"{mlflow.get_tracking_uri()}; train one first: mlflow run . -e optimizers"
        )
    return _standing(client, found[0])


def _standing(client: stores.Client, run: Run) -> Run:
    """What stands for a training's variant: of several seeds the median, whose model is logged; not the luckiest."""
    above = run.data.tags.get("mlflow.parentRunId")
    over = client.get_run(above) if above else None
    if over is None or over.data.tags.get("mlplab.kind") != "variant":
        return run
    seeds = client.search_runs(
        [run.info.experiment_id],
        f"tags.mlflow.parentRunId = '{above}' and attributes.status = 'FINISHED'",
        max_results=10_000,
        order_by=["attributes.start_time ASC"],
    )
    return next((one for one in seeds if _has_model(one)), run)


def _has_model(run: Run) -> bool:
    return bool(run.outputs and run.outputs.model_outputs)


def _compared(client: stores.Client, name: str) -> Run:
    """The latest finished comparison of a name."""
    found = client.search_runs(
        [each.experiment_id for each in client.search_experiments()],
        f"attributes.status = 'FINISHED' and tags.`mlplab.kind` = 'comparison' and {_tagged('experiment', name)}",
        max_results=1,
        order_by=["attributes.end_time DESC"],
    )
    if not found:
        raise UsageError(
            f"comparison is {name!r}, of which no finished run is on record in {mlflow.get_tracking_uri()}; legal: the "
            "name of a comparison that was run, which is that of its file without .py."
        )
    if winners := found[0].data.tags.get("winners"):
        raise UsageError(
            f"{name!r} is on several data sets, a model on one; legal: such as {winners.partition(': ')[0]!r}, the "
            f"comparison on one of them, or a winner's --run-id ({winners})."
        )
    return cast(Run, found[0])


def _tagged(tag: str, value: str) -> str:
    # MLflow's filters know no way to write a quote of their own kind.
    quote = '"' if "'" in value else "'"
    return f"tags.`mlplab.{tag}` = {quote}{value}{quote}"


def _winner(client: stores.Client, above: Run) -> Run:
    if "winner.run_id" not in above.data.tags:
        raise UsageError(f"no variant of the comparison {above.info.run_name!r} has a result; see {above.info.run_id}.")
    return lookup.existing_run(client, above.data.tags["winner.run_id"])


def _trained_variant(client: stores.Client, above: Run, variant: str) -> Run:
    """The training that stands for a variant: the one whose model is logged, else its first seed's that finished."""

    def below(run: Run) -> list[Run]:
        parent = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
        order = ["attributes.start_time ASC"]
        return list(client.search_runs([run.info.experiment_id], parent, max_results=10_000, order_by=order))

    under = below(above)
    mine = [run for run in under if run.data.tags.get("mlplab.variant") == variant]
    if not mine:
        names = sorted({run.data.tags["mlplab.variant"] for run in under if "mlplab.variant" in run.data.tags})
        raise UsageError(
            f"variant is {variant!r}, which the comparison {above.info.run_name!r} does not have; legal: "
            f"{', '.join(names)}."
        )
    if mine[0].data.tags.get("mlplab.kind") == "variant":  # over its seeds
        seeds = mine[0].data.params.get("seeds", "").split(",")
        mine = sorted(below(mine[0]), key=lambda run: seeds.index(run.data.params.get("seed", seeds[0])))
    finished = [run for run in mine if run.info.status == "FINISHED"]
    return next((run for run in finished if _has_model(run)), (finished or mine)[0])


def _spec_above(client: stores.Client, run: Run) -> dict[str, Any] | None:
    """The comparison, as its JSON has it, that a run is of or under."""
    while run.data.tags.get("mlplab.kind") != "comparison":
        if not (parent := run.data.tags.get("mlflow.parentRunId")):
            return None
        run = client.get_run(parent)
    text = lookup.read_artifact(run.info.run_id, "comparison.json")
    return json.loads(text) if text else None
