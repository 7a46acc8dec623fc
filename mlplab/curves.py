"""A metric over the epochs, on axes that are fitted to it and say what it is measured in."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mlplab import evaluations
from mlplab.amounts import significant
from mlplab.calls import Call
from mlplab.checks import UsageError
from mlplab.drawing import LINE, SPIKE, limit_y
from mlplab.results import DIVERGED, Outcome, Result
from mlplab.spec import Metric, Training
from mlplab.statistics import mean_interval


def draw(axes: Axes, outcome: Outcome, metric: str, label: str, colour: str, dash: str, bands: bool = True) -> Line2D:
    """Draws a metric over the epochs: of one seed its curve; of several their mean, its interval, and each one."""
    epochs = outcome.variant.epochs
    curves = [_told(metric, result.history.get(metric, []), epochs) for result in outcome.results]
    lost = [result.status == DIVERGED for result in outcome.results]
    if len(curves) == 1:
        return _curve(axes, curves[0], label, colour, dash, lost[0])
    means = mean_of([result.history.get(metric, []) for result in sound(outcome)])
    # Where all seeds were measured: the best epoch is another of each.
    at = evaluations.points(metric, [math.nan] * means.shape[1], epochs)
    mean, low, high = means[:, [epoch - 1 for epoch in at]]
    if bands and len(mean) <= POINTS:
        axes.vlines(at, low, high, color=colour, alpha=0.6, linewidth=1.2, zorder=1.4)
    elif bands:
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0, zorder=1.4)
        for curve, diverged in zip(curves, lost, strict=True):
            _curve(axes, curve, "", colour, dash, diverged).set(linewidth=0.8, alpha=0.45, zorder=1.5)
    return _curve(axes, dict(zip(at, mean.tolist(), strict=True)), label, colour, dash, all(lost))


def _told(metric: str, values: Sequence[float], epochs: int) -> dict[int, float]:
    """Epoch -> value, of the epochs at which a metric was measured."""
    return {epoch: values[epoch - 1] for epoch in evaluations.points(metric, values, epochs)}


def sound(outcome: Outcome) -> Sequence[Result]:
    """The trainings that curves are means of: those that diverged leave theirs, unless all did."""
    return [result for result in outcome.results if result.status != DIVERGED] or outcome.results


def _curve(axes: Axes, curve: Mapping[int, float], label: str, colour: str, dash: str, diverged: bool) -> Line2D:
    """Draws values by epoch; a cross where a training diverged, a dot where one epoch makes no line."""
    values = list(curve.values())
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    few = len(finite) <= POINTS
    marker = "x" if diverged else "o" if few else ""
    shown = [value if math.isfinite(value) else math.nan for value in values]
    (line,) = axes.plot(list(curve), shown, color=colour, linestyle=dash, label=label, linewidth=1.8)
    line.set(marker=marker, markevery=finite if few else finite[-1:], markersize=7 if marker == "x" else 5)
    if few:
        line.set_linestyle("")
    return line


POINTS = 2
"""So few epochs make no curve, and are drawn as points."""


def mean_of(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean over rows of finite values, and the ends of its 95 % interval, shape (3, the longest row's length)."""
    table = np.full((len(rows), max(map(len, rows))), math.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return np.array(mean_interval(table))


def finish(axes: Axes, metric: Metric, curves: Sequence[Sequence[float]], results: Sequence[Result]) -> None:
    """Labels the axes of `metric` and fits them to all `curves` that share them."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric.base.replace("_", " ") + unit_of(metric, results))
    axes.tick_params(labelleft=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    finite = [[value for value in curve if math.isfinite(value)] for curve in curves]
    finite = [curve for curve in finite if curve]
    if finite:
        _fit(axes, metric, finite)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no epoch has a value", transform=axes.transAxes, ha="center", color="0.4")


def spiking(metric: Metric, curves: Sequence[Sequence[float]]) -> tuple[float, bool]:
    """Beyond which value curves of `metric` are cut off, lest a spiking one flatten the rest; infinite where none is.

    Args:
        curves: of finite values, none of them empty.

    Returns:
        The value, and whether the axis is logarithmic instead, as all curves spike.
    """
    start = statistics.median_low(curve[0] for curve in curves)
    if metric.maximizes:
        # Such as R², which may begin anywhere and has no worst value; of shares none can spike.
        limit = -math.inf if metric.unit == "points" else start - SPIKE * max(1.0, abs(start))
        spikes = [min(curve) < limit for curve in curves]
    else:
        # Of a loss that begins below 0, as far from there as one above 0 would go.
        limit = start + (SPIKE - 1) * abs(start) or math.inf
        spikes = [max(curve) > limit for curve in curves]
    if any(spikes) and not all(spikes):
        return limit, False
    return (-math.inf if metric.maximizes else math.inf), any(spikes) and min(map(min, curves)) > 0


def _fit(axes: Axes, metric: Metric, curves: Sequence[Sequence[float]]) -> None:
    """Keeps a spiking curve from flattening the rest: cut off beyond their values, or logarithmic if all spike."""
    values = np.concatenate(curves)
    limit, logarithmic = spiking(metric, curves)
    beyond, worst = (values < limit, values.min()) if metric.maximizes else (values > limit, values.max())
    if beyond.any():
        limit_y(axes, values[~beyond], reach=0)
        says = f"cut off: values reach {significant(worst, 2)}"
        height, side = (0.02, "bottom") if metric.maximizes else (0.98, "top")
        axes.text(0.99, height, says, transform=axes.transAxes, ha="right", va=side, color="0.4", fontsize=LINE)
        return
    if logarithmic:
        axes.set_yscale("log")
    limit_y(axes, values)
    if metric.unit == "points":
        # A band may leave 0 to 1, no share does.
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.05), min(high, 1.05))


def with_unit(metric: Metric | str, results: Sequence[Result]) -> Metric:
    """A metric given by its name, with its unit; of validation, whether its name said so or not."""
    if isinstance(metric, str):
        name = metric if metric.startswith("val_") else f"val_{metric}"
        try:
            metric = Metric(name)
        except UsageError:  # which direction is better matters for what would be cut off alone
            metric = Metric(name, best="max")
    if metric.unit or metric.base != "loss":
        return metric
    return replace(metric, unit="nats" if all("entropy" in _loss(r.variant).lower() for r in results) else "")


def _loss(variant: Training) -> str:
    return (
        variant.loss.name if isinstance(variant.loss, Call) else variant.loss if isinstance(variant.loss, str) else ""
    )


def unit_of(metric: Metric, results: Sequence[Result]) -> str:
    """What a metric's values are measured in, in parentheses; "" where its name says it all."""
    if metric.base == "loss":
        names = {_loss(result.variant) for result in results}
        says = [names.pop().replace("_", " ")] if len(names) == 1 else []
        if metric.unit == "nats":
            says = ["cross-entropy"]
        penalized = any(evaluations.PENALTY in result.history for result in results)
        of = " and ".join(filter(None, [*says, "penalty" * penalized]))
    else:
        of = ""
    if metric.unit == "points":
        unit = "share of examples" if re.sub(r"_\d+$", "", metric.base).endswith(("accuracy", "acc")) else "0 to 1"
    else:
        unit = "" if metric.unit == "%" else metric.unit
    said = ", ".join(filter(None, [of, unit]))
    return f" ({said})" if said else ""


def histories(results: Sequence[Result], metrics: Sequence[str]) -> list[list[float]]:
    """Each training's values of each metric."""
    return [result.history.get(metric, []) for result in results for metric in metrics]
