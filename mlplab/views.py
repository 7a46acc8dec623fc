"""Saved views of MLflow's runs page: which runs it lists, which columns it has, which charts it draws.

MLflow's UI keeps one as a tag of the experiment, and opens it by `viewStateShareKey` in the page's address, where that
does not say itself what is listed. So that stands in the view, and every comparison has a view of its own.
"""

import base64
import contextlib
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "mlflow.sharedViewState."
ANSWERS = "mlplab"
"""The key of the view that lists what has an answer; that of a comparison's curves is the id of its run."""

MOST = 50
"""So many views of curves an experiment keeps: the UI lists all of them, and loads them with the experiment."""
CREATED = "runDateAndNestInfo"
"""What the UI calls the column of when a run began, and of what it folds."""

MARK = '"by": "mlplab"'
"""What a view of ours has and one that a person has saved has not, also in the place of ours."""


def answers(metric: str) -> dict[str, Any]:
    """The view of what was asked and answered, the latest first: no variants, no seeds, no registrations.

    Args:
        metric: the latest selection metric.
    """
    # A screen of 1440 x 900 has 1110 pixels for these; the run's name has the data and the amount in it.
    widths = {"attributes.`Run Name`": 290, "tags.`answer`": 570, f"metrics.`best_{metric}`": 110, CREATED: 140}
    columns = ["tags.`answer`", f"metrics.`best_{metric}`"]
    return {**_listed("tags.answer IS NOT NULL", "attributes.start_time", False), **_page(columns, widths)}


def curves(run_id: str, metric: str, ascending: bool) -> dict[str, Any]:
    """The view of the runs under a comparison's, the best first, with the four charts that matter.

    Args:
        metric: the selection metric.
        ascending: whether less of it is better.
    """
    base = metric.removeprefix("val_")
    lines = list(dict.fromkeys([metric, "val_loss", base, "loss"]))[:3]
    charts = [_chart(place, "LINE", name) for place, name in enumerate(lines)]
    charts.append(_chart(len(lines), "BAR", "train_seconds"))
    shown = dict.fromkeys([f"best_{metric}", "best_val_loss", f"test_{base}", "best_epoch", "train_seconds"])
    sections = [
        # Four fit on a screen of 1440 x 900. What else was logged MLflow draws in the sections below, which are folded.
        {**_section("mlplab", "The comparison", True), "columns": 2, "cardHeight": 245},
        _section("mlplab-model", "Model metrics", False),
        _section("mlplab-system", "System metrics", False),
    ]
    return {
        **_listed(f'tags.mlflow.parentRunId="{run_id}"', f"metrics.`best_{metric}`", ascending),
        **_page([f"metrics.`{name}`" for name in shown], {}),
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def saved(client: Any, experiment: str, key: str, name: str, state: str) -> tuple[str, str]:
    """The tag that keeps a view, once the oldest views of curves are deleted that are too many with it.

    Where a person has saved another in its place, that stays.

    Args:
        client: of the store.
        state: the view as JSON.
    """
    tags: Mapping[str, str] = client.get_experiment(experiment).tags
    ours = {tag: json.loads(text) for tag, text in tags.items() if tag.startswith(PREFIX) and MARK in text}
    now = int(time.time() * 1000)
    tag = PREFIX + key
    others = sorted(set(ours) - {tag, PREFIX + ANSWERS}, key=lambda each: ours[each]["createdAt"])
    if tag in tags and tag not in ours:
        return tag, tags[tag]
    for old in others[: max(0, len(others) - MOST + 1)]:
        with contextlib.suppress(Exception):  # another command was quicker, or this user may not
            client.delete_experiment_tag(experiment, old)
    deflated = "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode()
    created = ours.get(tag, {}).get("createdAt", now)
    view = {"name": name, "createdAt": created, "updatedAt": now, "state": deflated, "by": "mlplab"}
    return tag, json.dumps(view)


def _listed(condition: str, order: str, ascending: bool) -> dict[str, Any]:
    listed = {"searchFilter": condition, "orderByKey": order, "orderByAsc": ascending, "startTime": "ALL"}
    return {**listed, "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs"}


def _page(columns: Sequence[str], widths: Mapping[str, int]) -> dict[str, Any]:
    return {
        "selectedColumns": list(columns),
        "columnOrder": list(widths),
        "columnWidths": dict(widths),
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _section(key: str, name: str, unfolded: bool) -> dict[str, Any]:
    generated = key != "mlplab"
    return {"uuid": key, "name": name, "display": unfolded, "isReordered": not generated, "deleted": False} | {
        "isGenerated": generated
    }


def _chart(place: int, kind: str, metric: str) -> dict[str, Any]:
    chart = {"uuid": f"mlplab-{place}", "type": kind, "runsCountToCompare": 20, "metricSectionId": "mlplab"}
    chart |= {"deleted": False, "isGenerated": False, "displayName": metric, "metricKey": metric}
    if kind == "LINE":
        chart |= {"lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear", "range": {}}
        chart |= {"xAxisKey": "step", "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": []}
        chart |= {"ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    return chart
