"""From results to figures. One style, one colour per variant in every figure, axes with units."""

import itertools
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mlplab import tables
from mlplab.calls import Call
from mlplab.checks import UsageError
from mlplab.drawing import (
    COLOURS,
    CROWD,
    DASHES,
    SPIKE,
    add_explanation,
    add_legend,
    folded,
    limit_y,
    looks,
    new_figure,
)
from mlplab.records import Predictions, Record, choice_words
from mlplab.results import DIVERGED, FAILED, Outcome, Result, outcomes, significant
from mlplab.spec import Metric, Training
from mlplab.statistics import mean_interval

MOST_PANELS = 6
"""Of more metrics, such as those of a model with many outputs, the learning curves show the first."""


def learning_curves(results: Result | Sequence[Result], data: str, metrics: Sequence[Metric | str] = ()) -> Figure:
    """Metrics of one variant over its epochs: of one training, or the means over several seeds.

    Args:
        metrics: which, of a comparison's such as `tables.shown_metrics` has them; by default what was logged.
    """
    (outcome,) = outcomes([results] if isinstance(results, Result) else results)
    chosen = metrics or [*tables.logged(outcome.results)[: MOST_PANELS - 1], "loss"]
    shown = [metric_of(metric, outcome.results) for metric in chosen[:MOST_PANELS]]
    penalized = any("penalty" in result.history for result in outcome.results)
    labels = ("training", "validation", f"training, evaluated{' (loss without penalty)' if penalized else ''}")
    validated = any("val_loss" in result.history for result in outcome.results)
    rows = -(-len(shown) // 2)
    figure = new_figure(f"{_titled(outcome)}: learning curves", data, 10, 0.8 + 3.4 * rows)
    panels = figure.subplots(rows, min(2, len(shown)), squeeze=False).flat
    for axes in panels[len(shown) :]:
        axes.remove()
    marks: dict[str, Line2D] = {}
    for axes, metric in zip(panels, shown, strict=False):
        names = [metric.base, f"val_{metric.base}", f"train_eval_{metric.base}"]
        measured = [any(result.history.get(name) for result in outcome.results) for name in names]
        lines = [
            _curves(axes, outcome, name, label, COLOURS[place], DASHES[place])
            for place, (name, label) in enumerate(zip(names, labels, strict=True))
            if measured[place]
        ]
        if measured[2]:
            lines[-1].set(linewidth=1.2)
        # Without validation no epoch was chosen.
        best = [result.best_epoch for result in sound(outcome) if result.best_epoch and validated]
        if best:
            middle = statistics.median(best)
            says = f"best epoch ({middle:g})" if len(best) == 1 else f"best epoch (median {middle:g})"
            lines.append(axes.axvline(middle, color="0.6", linewidth=1, linestyle=":", label=says))
        marks = {**{str(line.get_label()): line for line in lines}, **marks}
        _finish(axes, metric, _every(outcome.results, names), outcome.results)
    if marks:
        says = curves_explained([outcome], bands=True) if validated else "validation was not measured while it trained"
        # The best epoch last.
        lines = sorted(marks.values(), key=lambda line: str(line.get_label()).startswith("best epoch"))
        add_legend(figure, lines, below=True, title=says)
    return figure


def comparison_curves(metric: Metric | str, results: Sequence[Result], data: str) -> Figure:
    """One metric of all variants over the epochs; training left, validation right.

    Args:
        metric: with or without `val_`, such as `tables.shown_metrics` has it.
    """
    metric = metric_of(metric, results)
    variants = outcomes(results)
    rows = sum(1 + _name(outcome).count("\n") for outcome in variants)
    title = f"{metric.base[0].upper()}{metric.base[1:].replace('_', ' ')} by variant"
    figure = new_figure(title, data, 12, max(4.2, 1.2 + 0.2 * rows))
    every = _every(results, [metric.base, f"val_{metric.base}"])
    bands = len(variants) <= CROWD
    lines: list[Line2D] = []
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        name = metric.base if side == "training" else f"val_{metric.base}"
        lines = []
        for place, (outcome, look) in enumerate(zip(variants, looks([o.variant.name for o in variants]), strict=True)):
            line = _curves(axes, outcome, name, _name(outcome), *look, bands=bands)
            # Where curves coincide, the later ones leave an edge of the earlier to be seen.
            line.set_linewidth(1.5 + 2 * (len(variants) - 1 - place) / len(variants))
            lines.append(line)
        axes.set_title(side, fontsize=10)
        _finish(axes, metric, every, results)
    add_explanation(figure, curves_explained(variants, bands=bands))
    add_legend(figure, lines, below=False)
    return figure


def overview_times(records: Sequence[Record]) -> Figure:
    """`training_times` over several comparisons of one data set; a bar has its variant's colour in its comparison."""
    every, shown = [], []
    for record in records:
        every += [(f"{record.experiment.name}: ", outcome) for outcome in record.outcomes]
        shown += looks([outcome.variant.name for outcome in record.outcomes])
    return _times(every, shown, records[0].data)


def training_times(results: Sequence[Result], data: str) -> Figure:
    """Seconds of training of each variant, in all and an epoch; compiling and evaluation are named, not compared."""
    every = outcomes(results)
    return _times([("", outcome) for outcome in every], looks([outcome.variant.name for outcome in every]), data)


def _times(variants: Sequence[tuple[str, Outcome]], shown: Sequence[tuple[str, str]], data: str) -> Figure:
    names = [_name(outcome, before) for before, outcome in variants]
    figure = new_figure(
        "Training time by variant", data, 12, 1.6 + sum(max(0.5, 0.2 * (1 + name.count("\n"))) for name in names)
    )
    total, per_epoch = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes, what, room in ((total, "training time", 1.8), (per_epoch, "training time per epoch", 1.4)):
        longest = 0.0
        for row, (_, outcome) in enumerate(variants):
            # What failed beside other seeds was never timed.
            trained = [r for r in outcome.results if r.epochs and math.isfinite(r.train_seconds)]
            seconds = [r.train_seconds / (1 if axes is total else r.epochs) for r in trained]
            mean, low, high = mean_interval(seconds) if seconds else (0.0, math.nan, math.nan)
            axes.barh(row, mean, color=shown[row][0], height=0.6)
            if len(seconds) > 1:
                # The seeds beside their interval, which they would hide.
                axes.plot([low, high], [row - 0.12] * 2, color="black", linewidth=1.2, marker="|", markersize=7)
                axes.plot(seconds, [row + 0.15] * len(seconds), ".", color="black", alpha=0.6, markersize=4)
            end = max(value for value in (mean, high, *seconds) if math.isfinite(value))
            longest = max(longest, end)
            untimed = "was not timed" if any(r.epochs for r in outcome.results) else "no epoch was completed"
            says = f"  {significant(mean)} s" if seconds else f"  {untimed}"
            if trained and axes is total:
                compiling = statistics.fmean(result.compile_seconds for result in trained)
                evaluating = statistics.fmean(result.evaluate_seconds for result in trained)
                says += f"\n  (and {compiling:.1f} s compiling, {evaluating:.1f} s evaluation)"
            axes.annotate(says, (end, row), va="center", fontsize=8)
        axes.set_xlim(0, room * longest or 1)
        axes.set_xlabel(f"{what} (s)")
        axes.spines[["top", "right"]].set_visible(False)
    total.set_yticks(range(len(variants)), names, fontsize=9)
    total.set_ylim(len(variants) - 0.5, -0.5)
    seeds = max(len(outcome.results) for _, outcome in variants)
    left = [sum(result.epochs > 0 for result in outcome.results) for _, outcome in variants]
    if max(left) > 1:
        which = ", of those that completed an epoch" * any(
            0 < n < len(o.results) for n, (_, o) in zip(left, variants, strict=True)
        )
        add_explanation(figure, f"mean of {seeds} seeds{which}; black line: 95 % interval of the mean; dots: each seed")
    return figure


def learning_rates(results: Sequence[Result], select: Metric | str, data: str) -> Figure | None:
    """The selection metric after the last epoch against the learning rate, for variants that differ in nothing else.

    Returns:
        None if no three variants differ in the learning rate alone.
    """
    metric = metric_of(select, results)
    every: dict[Training, list[Outcome]] = {}
    for outcome in outcomes(results):
        if isinstance(outcome.variant.learning_rate, int | float):  # a schedule has no one rate
            every.setdefault(outcome.variant.but(name="", learning_rate=1.0), []).append(outcome)
    families = {
        key: sorted(family, key=lambda outcome: outcome.variant.learning_rate)
        for key, family in every.items()
        if len({outcome.variant.learning_rate for outcome in family}) >= 3
    }
    if not families:
        return None
    found = [outcome for family in families.values() for outcome in family]
    lost = any(result.status == DIVERGED for outcome in found for result in outcome.results)
    names = _differences(list(families))
    strip = (0.1 + 0.25 * len(families)) * lost
    figure = new_figure("Sensitivity to the learning rate", data, 10, 4.8 + 1.2 * strip)
    heights = [4.0, strip] if lost else [4.0]
    axes, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    lines = []
    shown: list[float] = []
    for row, (name, look, family) in enumerate(zip(names, looks(names), families.values(), strict=True)):
        rates = [outcome.variant.learning_rate for outcome in family]
        # What diverged has no final value; how many did is said below.
        final = [[math.nan if r.status == DIVERGED else r.last(metric.name) for r in o.results] for o in family]
        seeds = list(itertools.zip_longest(*final, fillvalue=math.nan))
        mean, low, high = mean_curve(seeds)
        style: dict[str, Any] = {"color": look[0], "linestyle": look[1], "marker": "o", "markersize": 5}
        lines += axes.plot(rates, mean, label=folded(name, 32), linewidth=1.8, **style)
        if len(seeds) > 1:
            axes.fill_between(rates, low, high, color=look[0], alpha=0.2, linewidth=0)
            for values in seeds:
                axes.plot(rates, values, ".", color=look[0], alpha=0.4, markersize=5)
        shown += [value for values in (*seeds, mean) for value in values if math.isfinite(value)]
        for outcome in family:
            if some := sum(result.status == DIVERGED for result in outcome.results):
                at = (outcome.variant.learning_rate, row)
                below[0].plot(*at, "x", color=look[0], markersize=7, markeredgewidth=1.8)
                says = f"{some} of {len(outcome.results)}"
                below[0].annotate(says, at, (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    if not metric.maximizes and shown and max(shown) > SPIKE * min(shown) > 0:
        axes.set_yscale("log")
    if shown:
        limit_y(axes, shown)
    axes.set_ylabel(f"{metric.words}\nafter the last epoch{unit_text(metric, results)}")
    axes.grid(alpha=0.3)
    for panel in below:
        rows = ["diverged" if len(names) == 1 else f"{folded(name, 32)} diverged" for name in names]
        panel.set_yticks(range(len(names)), rows, fontsize=8)
        panel.set_ylim(len(names) - 0.4, -0.6)
    for panel in (axes, *below):
        panel.spines[["top", "right"]].set_visible(False)
    (below or [axes])[-1].set_xlabel("learning rate")
    many = max(len(outcome.results) for outcome in found)
    every_training = [result for outcome in found for result in outcome.results]
    failures = sum(result.status == FAILED for result in every_training)
    notes = [f"{failures} of {len(every_training)} trainings failed"] * (failures > 0)
    if not shown:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no training has a final value", transform=axes.transAxes, ha="center", color="0.4")
    elif many > 1:
        without = " and ".join(["did not diverge"] * lost + ["did not fail"] * (failures > 0))
        which = f", of those that {without}" * bool(without)
        notes.insert(0, f"mean of {many} seeds{which}; band: 95 % interval of the mean; dots: each seed")
    add_explanation(figure, "; ".join(notes))
    add_legend(figure, lines, below=False)
    return figure


def predictions(found: Predictions, data: str) -> Figure:
    """Images with what the model says and what they are; wrong answers in red, each with its probability."""
    columns = min(5, len(found.images))
    rows = -(-len(found.images) // columns)
    share = f"{found.test_accuracy:.2%} of the test images right"
    # Wide enough for the title.
    width = max(10.0, 2.0 * columns)
    figure = new_figure(f"Predictions of the exported model ({share})", data, width, 0.8 + 2.2 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    cells = zip(panels, found.images, found.labels, found.predicted, found.probability, strict=False)
    for axes, image, label, predicted, probability in cells:
        axes.imshow(image.reshape(found.image_shape), cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        says, true = found.class_names[predicted], found.class_names[label]
        right = predicted == label
        axes.set_title(
            f"predicted {says} ({probability:.0%})\ntrue {true}", fontsize=9, color="black" if right else "#bd1f01"
        )
    return figure


def _curves(
    axes: Axes, outcome: Outcome, metric: str, label: str, colour: str, dash: str, bands: bool = True
) -> Line2D:
    """Draws a metric over the epochs: of one seed its curve; of several their mean, its interval, and each one."""
    curves = [result.history.get(metric, []) for result in outcome.results]
    lost = [result.status == DIVERGED for result in outcome.results]
    if len(curves) == 1:
        return _curve(axes, curves[0], label, colour, dash, lost[0])
    mean, low, high = mean_curve([result.history.get(metric, []) for result in sound(outcome)])
    if bands:
        axes.fill_between(range(1, len(mean) + 1), low, high, color=colour, alpha=0.18, linewidth=0, zorder=1.4)
        for values, diverged in zip(curves, lost, strict=True):
            _curve(axes, values, "", colour, dash, diverged).set(linewidth=0.8, alpha=0.45, zorder=1.5)
    return _curve(axes, mean.tolist(), label, colour, dash, all(lost))


def sound(outcome: Outcome) -> Sequence[Result]:
    """The trainings that curves are means of: those that diverged leave theirs, unless all did."""
    return [result for result in outcome.results if result.status != DIVERGED] or outcome.results


def _curve(axes: Axes, values: Sequence[float], label: str, colour: str, dash: str, diverged: bool) -> Line2D:
    """Draws values over the epochs; a cross where a training diverged, a dot where one epoch makes no line."""
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    marker = "x" if diverged else "o" if len(finite) == 1 else ""
    shown = [value if math.isfinite(value) else math.nan for value in values]
    (line,) = axes.plot(range(1, len(values) + 1), shown, color=colour, linestyle=dash, label=label, linewidth=1.8)
    line.set(marker=marker, markevery=finite[-1:], markersize=7 if marker == "x" else 5)
    return line


def mean_curve(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean over rows of finite values, and the ends of its 95 % interval, shape (3, the longest row's length)."""
    table = np.full((len(rows), max(map(len, rows))), math.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return np.array(mean_interval(table))


def _finish(axes: Axes, metric: Metric, curves: Sequence[Sequence[float]], results: Sequence[Result]) -> None:
    """Labels the axes of `metric` and fits them to all `curves` that share them."""
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric.base.replace("_", " ") + unit_text(metric, results))
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
        axes.text(0.99, height, says, transform=axes.transAxes, ha="right", va=side, color="0.4", fontsize=8)
        return
    if logarithmic:
        axes.set_yscale("log")
    limit_y(axes, values)
    if metric.unit == "points":
        # A band may leave 0 to 1, no share does.
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.05), min(high, 1.05))


def metric_of(metric: Metric | str, results: Sequence[Result]) -> Metric:
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


def unit_text(metric: Metric, results: Sequence[Result]) -> str:
    """What a metric's values are measured in, in parentheses; "" where its name says it all."""
    if metric.base == "loss":
        names = {_loss(result.variant) for result in results}
        says = [names.pop().replace("_", " ")] if len(names) == 1 else []
        if metric.unit == "nats":
            says = ["cross-entropy"]
        penalized = any("penalty" in result.history for result in results)
        of = " and ".join(filter(None, [*says, "penalty" * penalized]))
    else:
        of = ""
    if metric.unit == "points":
        unit = "share of examples" if re.sub(r"_\d+$", "", metric.base).endswith(("accuracy", "acc")) else "0 to 1"
    else:
        unit = "" if metric.unit == "%" else metric.unit
    said = ", ".join(filter(None, [of, unit]))
    return f" ({said})" if said else ""


def _every(results: Sequence[Result], metrics: Sequence[str]) -> list[list[float]]:
    return [result.history.get(metric, []) for result in results for metric in metrics]


def curves_explained(variants: Sequence[Outcome], *, bands: bool) -> str:
    """What curves over several seeds show; "" where there are none."""
    seeds = max(len(outcome.results) for outcome in variants)
    drawn = max(sum(result.epochs > 0 for result in sound(outcome)) for outcome in variants)
    if seeds == 1 or not drawn:
        return ""
    diverged, failed = (
        any(0 < sum(r.status == status for r in o.results) < len(o.results) for o in variants)
        for status in (DIVERGED, FAILED)
    )
    uneven = any(len({result.epochs for result in sound(o) if result.epochs}) > 1 for o in variants)
    held = ["did not diverge"] * diverged + ["did not fail"] * failed
    which = " and ".join(held + ["are still in training"] * uneven)
    if drawn == 1:
        return f"the one of {seeds} seeds that {which}"
    how = "; band: 95 % interval of the mean; thin lines: each seed" * bands
    return f"mean of {seeds} seeds{f', of those that {which}' * bool(which)}{how}"


def _titled(outcome: Outcome) -> str:
    return f"{outcome.variant.name} ({outcome.state})" if outcome.state else outcome.variant.name


def _name(outcome: Outcome, before: str = "") -> str:
    return folded(before + _titled(outcome), 40 if before else 32)


def _differences(variants: Sequence[Training]) -> list[str]:
    """What each variant has that another has not; the optimizer where there is but one."""
    every = [variant.params() for variant in variants]
    names = dict.fromkeys(name for choices in every for name in choices)
    words = choice_words(name for name in names if any(other.get(name) != every[0].get(name) for other in every))
    told = []
    for choices in every:
        # An optimizer is known by its name alone.
        said = [c if n == "optimizer" else f"{words[n]} {c}" for n in words if (c := choices.get(n))]
        told.append(", ".join(said) or choices["optimizer"])
    return told
