"""From results to figures. One style, one colour per variant in every figure, axes with units."""

import math
import statistics
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mlplab.results import DIVERGED, FINISHED, Result

# Okabe and Ito's eight colours, told apart with any colour vision (https://jfly.uni-koeln.de/color/); yellow and
# black last, since the one is faint on white and the other is the text's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
DASHES = ("-", "--", "-.", ":")
METRICS = {"accuracy": "accuracy (share of images)", "loss": "loss (cross-entropy and penalty, nats)"}
SPIKE = 10.0
"""A loss that grows to this many times what trainings start with would flatten the other curves: see `_fit`."""


def learning_curves(result: Result, data: str) -> Figure:
    """Accuracy and loss of one training over its epochs, on training and validation data."""
    figure = _figure(f"{_titled(result)}: learning curves", data, 10)
    lines = []
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        curves = [result.history.get(name, []) for name in (metric, f"val_{metric}")]
        lines = [
            _curve(axes, values, result, label, COLOURS[place], DASHES[place])
            for place, (values, label) in enumerate(zip(curves, ("training", "validation"), strict=True))
        ]
        if result.best_epoch:
            best = f"best epoch ({result.best_epoch})"
            lines.append(axes.axvline(result.best_epoch, color="0.6", linewidth=1, linestyle=":", label=best))
        _finish(axes, metric, curves)
    _legend(figure, lines, below=True)
    return figure


def comparison_curves(metric: str, results: Sequence[Result], data: str) -> Figure:
    """One metric (`accuracy` or `loss`) of all variants over the epochs; training left, validation right."""
    figure = _figure(
        f"{metric.capitalize()} by variant", data, 12, max(4.2, 1.2 + 0.2 * sum(_lines(result) for result in results))
    )
    every = [result.history.get(name, []) for result in results for name in (metric, f"val_{metric}")]
    lines = []
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        name = metric if side == "training" else f"val_{metric}"
        lines = [
            _curve(axes, result.history.get(name, []), result, _name(result), *_look(index))
            for index, result in enumerate(results)
        ]
        axes.set_title(side, fontsize=10)
        _finish(axes, metric, every)
    _legend(figure, lines, below=False)
    return figure


def training_times(results: Sequence[Result], data: str) -> Figure:
    """Seconds of training of each variant, in all and an epoch; compiling and evaluation are named, not compared."""
    figure = _figure(
        "Training time by variant", data, 12, 1.6 + sum(max(0.5, 0.2 * _lines(result)) for result in results)
    )
    total, per_epoch = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for row, result in enumerate(results):
        each = result.train_seconds / result.epochs if result.epochs else 0.0
        apart = f"\n  (and {result.compile_seconds:.1f} s compiling, {result.evaluate_seconds:.1f} s evaluation)"
        for axes, seconds, text in ((total, result.train_seconds, apart), (per_epoch, each, "")):
            axes.barh(row, seconds, color=_look(row)[0], height=0.6)
            says = f"  {seconds:.3g} s{text}" if result.epochs else "  no epoch was completed"
            axes.annotate(says, (seconds, row), va="center", fontsize=8)
    total.set_yticks(range(len(results)), [_name(result) for result in results], fontsize=9)
    total.set_ylim(len(results) - 0.5, -0.5)
    total.set_xlabel("training time (s)")
    per_epoch.set_xlabel("training time per epoch (s)")
    for axes, room in ((total, 1.8), (per_epoch, 1.4)):
        axes.set_xlim(0, room * max([bar.get_width() for bar in axes.patches], default=1) or 1)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(title: str, data: str, width: float, height: float = 4.2) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(_folded(f"{title} – {data}", 110), fontsize=12)
    return figure


def _curve(axes: Axes, values: Sequence[float], result: Result, label: str, colour: str, dash: str) -> Line2D:
    """Draws a metric over the epochs; a cross where a training diverged, a dot where one epoch makes no line."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    marker = "x" if result.status == DIVERGED else "o" if len(finite) == 1 else ""
    shown = [value if math.isfinite(value) else math.nan for value in values]
    (line,) = axes.plot(range(1, len(values) + 1), shown, color=colour, linestyle=dash, label=label, linewidth=1.8)
    line.set(marker=marker, markevery=finite[-1:], markersize=7 if marker == "x" else 5)
    return line


def _finish(axes: Axes, metric: str, curves: Sequence[Sequence[float]]) -> None:
    """Labels the axes of `metric` and fits them to all `curves` that share them."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(METRICS[metric])
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


def _fit(axes: Axes, metric: str, curves: Sequence[Sequence[float]]) -> None:
    """Keeps a spiking loss from flattening the rest: cut off above their values, or logarithmic if all spike."""
    limit = SPIKE * statistics.median_low(curve[0] for curve in curves)
    spikes = [max(curve) > limit for curve in curves]
    if metric != "loss" or not any(spikes):
        return
    if all(spikes):
        axes.set_yscale("log")
        return
    values = np.concatenate(curves)
    shown = values[values <= limit]
    room = 0.06 * float(np.ptp(shown)) or 0.1 * float(shown.max())
    axes.set_ylim(float(shown.min()) - room, float(shown.max()) + room)
    says = f"cut off: values reach {values.max():.2g}"
    axes.text(0.99, 0.98, says, transform=axes.transAxes, ha="right", va="top", color="0.4", fontsize=8)


def _legend(figure: Figure, lines: list[Line2D], *, below: bool) -> None:
    """Names the lines beside or below the axes, never over the curves."""
    names = [str(line.get_label()) for line in lines]
    style = {"fontsize": 9, "frameon": False, "handlelength": 3}
    if below:
        figure.legend(lines, names, loc="outside lower center", ncols=len(lines), **style)
    else:
        figure.legend(lines, names, loc="outside right upper", **style)


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def _titled(result: Result) -> str:
    return result.variant.name if result.status == FINISHED else f"{result.variant.name} ({result.status})"


def _name(result: Result) -> str:
    return _folded(_titled(result), 32)


def _lines(result: Result) -> int:
    return 1 + _name(result).count("\n")


def _folded(text: str, width: int) -> str:
    """`text` in lines of `width`, for Matplotlib to show as it is: dollar signs would be formulas."""
    return "\n".join(textwrap.wrap(text, width) or [text]).replace("$", r"\$")
