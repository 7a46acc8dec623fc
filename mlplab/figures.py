"""From results to figures. One style, one colour per variant in every figure, axes with units."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mlplab import evaluations, tables
from mlplab.amounts import significant
from mlplab.curves import draw, finish, histories, mean_of, sound, unit_of, with_unit
from mlplab.drawing import (
    COLOURS,
    CROWD,
    DASHES,
    LINE,
    SPIKE,
    add_explanation,
    add_legend,
    folded,
    limit_y,
    looks,
    name_lines,
    new_figure,
)
from mlplab.records import Predictions, Record, choice_words
from mlplab.results import DIVERGED, FAILED, Outcome, Result, outcomes
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
    shown = [with_unit(metric, outcome.results) for metric in chosen[:MOST_PANELS]]
    penalized = any(evaluations.PENALTY in result.history for result in outcome.results)
    at = evaluations.words(outcome.variant.epochs)
    evaluated = " ".join(filter(None, ["training, evaluated", at, "(loss without penalty)" * penalized]))
    labels = ("training", "validation", evaluated)
    validated = any("val_loss" in result.history for result in outcome.results)
    rows = -(-len(shown) // 2)
    figure = new_figure(f"{_titled(outcome)}: learning curves", data, 0.9 + 2.9 * rows)
    panels = figure.subplots(rows, min(2, len(shown)), squeeze=False).flat
    for axes in panels[len(shown) :]:
        axes.remove()
    marks: dict[str, Line2D] = {}
    for axes, metric in zip(panels, shown, strict=False):
        names = [metric.base, f"val_{metric.base}", f"{evaluations.PREFIX}{metric.base}"]
        measured = [any(result.history.get(name) for result in outcome.results) for name in names]
        lines = [
            draw(axes, outcome, name, label, COLOURS[place], DASHES[place])
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
        finish(axes, metric, histories(outcome.results, names), outcome.results)
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
    metric = with_unit(metric, results)
    variants = outcomes(results)
    title = f"{metric.base[0].upper()}{metric.base[1:].replace('_', ' ')} by variant"
    every = histories(results, [metric.base, f"val_{metric.base}"])
    if len(variants) > CROWD:
        return _small_multiples(new_figure(title, data, _rows_high(len(variants))), metric, variants, every)
    rows = sum(1 + _name(outcome).count("\n") for outcome in variants)
    figure = new_figure(title, data, max(3.9, 1.2 + 0.2 * rows))
    lines: list[Line2D] = []
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        name = metric.base if side == "training" else f"val_{metric.base}"
        lines = []
        for place, (outcome, look) in enumerate(zip(variants, looks([o.variant.name for o in variants]), strict=True)):
            line = draw(axes, outcome, name, _name(outcome), *look)
            # Where curves coincide, the later ones leave an edge of the earlier to be seen.
            line.set_linewidth(1.5 + 2 * (len(variants) - 1 - place) / len(variants))
            lines.append(line)
        axes.set_title(side, fontsize=10)
        finish(axes, metric, every, results)
    name_lines(axes, lines, curves_explained(variants, bands=True))
    return figure


def _small_multiples(
    figure: Figure, metric: Metric, variants: Sequence[Outcome], every: Sequence[Sequence[float]]
) -> Figure:
    """A panel for each variant, all with the same axes, and the others' validation curves in grey behind its own."""
    found = [result for outcome in variants for result in outcome.results]
    panels = figure.subplots(-(-len(variants) // COLUMNS), COLUMNS, sharex=True, sharey=True, squeeze=False)
    names = [outcome.variant.name for outcome in variants]
    sides = ((metric.base, "training", 1), (f"val_{metric.base}", "validation", 0))
    marks: list[Line2D] = []
    notes = dict.fromkeys([curves_explained(variants, bands=False)])
    for axes, outcome, (colour, _) in zip(panels.flat, variants, looks(names), strict=False):
        for other in variants:
            draw(axes, other, f"val_{metric.base}", "", "0.8", "-", bands=False).set(linewidth=0.7, zorder=1.2)
        marks = [draw(axes, outcome, name, label, colour, DASHES[dash], bands=False) for name, label, dash in sides]
        finish(axes, metric, every, found)
        axes.set_title(folded(_titled(outcome), 20), fontsize=LINE, color=colour, weight="bold")
        axes.label_outer()
        axes.set(xlabel="", ylabel="")
        for text in list(axes.texts):  # what is said of all axes is said once
            notes[text.get_text()] = None
            text.remove()
    for place in range(len(variants), panels.size):
        panels.flat[place].remove()
    for column in range(min(COLUMNS, len(variants))):
        lowest = panels.flat[(len(variants) - 1 - column) // COLUMNS * COLUMNS + column]
        lowest.set_xlabel("epoch")
        lowest.tick_params(labelbottom=True)
    figure.supylabel(f"{metric.base.replace('_', ' ')}{unit_of(metric, found)}", fontsize=10)
    keys = [Line2D([], [], color="0.3", linestyle=line.get_linestyle(), label=line.get_label()) for line in marks]
    keys.append(Line2D([], [], color="0.8", label="the others' validation"))
    add_legend(figure, keys, below=True, title="; ".join(filter(None, notes)))
    return figure


COLUMNS = 4
"""Panels beside each other, where there is one for each of many variants."""


def _rows_high(many: int) -> float:
    return 1.3 + 1.35 * -(-many // COLUMNS)


def overview_times(records: Sequence[Record]) -> Figure:
    """`training_times` over several comparisons of one data set; a bar has its variant's colour in its comparison."""
    every, shown = [], []
    for record in records:
        every += [(f"{record.experiment.name}: ", outcome) for outcome in record.outcomes]
        shown += looks([outcome.variant.name for outcome in record.outcomes])
    return _times(every, shown, records[0].data)


def training_times(results: Sequence[Result], data: str) -> Figure:
    """Seconds of training of each variant; those of an epoch, compiling and evaluation are named, not compared."""
    every = outcomes(results)
    return _times([("", outcome) for outcome in every], looks([outcome.variant.name for outcome in every]), data)


def _times(variants: Sequence[tuple[str, Outcome]], shown: Sequence[tuple[str, str]], data: str) -> Figure:
    names = [_name(outcome, before) for before, outcome in variants]
    figure = new_figure(
        "Training time by variant", data, 1.5 + sum(max(0.55, 0.2 * (1 + name.count("\n"))) for name in names)
    )
    axes = figure.subplots()
    longest = 0.0
    for row, (_, outcome) in enumerate(variants):
        # What failed beside other seeds was never timed.
        trained = [r for r in outcome.results if r.epochs and math.isfinite(r.train_seconds)]
        seconds = [result.train_seconds for result in trained]
        mean, low, high = mean_interval(seconds) if seconds else (0.0, math.nan, math.nan)
        axes.barh(row, mean, color=shown[row][0], height=0.6)
        if len(seconds) > 1:
            # The seeds beside their interval, which they would hide.
            axes.plot([low, high], [row - 0.12] * 2, color="black", linewidth=1.2, marker="|", markersize=7)
            axes.plot(seconds, [row + 0.15] * len(seconds), ".", color="black", alpha=0.6, markersize=4)
        end = max(value for value in (mean, high, *seconds) if math.isfinite(value))
        longest = max(longest, end)
        untimed = "was not timed" if any(r.epochs for r in outcome.results) else "no epoch was completed"
        says = f"  {untimed}"
        if trained:
            epoch, compiling, evaluating = (
                statistics.fmean(values)
                for values in zip(
                    *((r.train_seconds / r.epochs, r.compile_seconds, r.evaluate_seconds) for r in trained), strict=True
                )
            )
            says = f"  {significant(mean)} s, {significant(epoch)} s an epoch"
            says += f"\n  (and {compiling:.1f} s compiling, {evaluating:.1f} s evaluation)"
        axes.annotate(says, (end, row), va="center", fontsize=LINE)
    axes.set_xlim(0, 2.2 * longest or 1)
    axes.set_xlabel("training time (s)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_yticks(range(len(variants)), names, fontsize=LINE)
    axes.set_ylim(len(variants) - 0.5, -0.5)
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
    metric = with_unit(select, results)
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
    figure = new_figure("Sensitivity to the learning rate", data, 4.4 + 1.2 * strip)
    heights = [4.0, strip] if lost else [4.0]
    axes, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    lines = []
    shown: list[float] = []
    for row, (name, look, family) in enumerate(zip(names, looks(names), families.values(), strict=True)):
        rates = [outcome.variant.learning_rate for outcome in family]
        # What diverged has no final value; how many did is said below.
        final = [[math.nan if r.status == DIVERGED else r.last(metric.name) for r in o.results] for o in family]
        seeds = list(itertools.zip_longest(*final, fillvalue=math.nan))
        mean, low, high = mean_of(seeds)
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
                below[0].annotate(says, at, (6, 0), textcoords="offset points", va="center", fontsize=LINE)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    if not metric.maximizes and shown and max(shown) > SPIKE * min(shown) > 0:
        axes.set_yscale("log")
    if shown:
        limit_y(axes, shown)
    axes.set_ylabel(f"{metric.words}\nafter the last epoch{unit_of(metric, results)}")
    axes.grid(alpha=0.3)
    for panel in below:
        rows = ["diverged" if len(names) == 1 else f"{folded(name, 32)} diverged" for name in names]
        panel.set_yticks(range(len(names)), rows, fontsize=LINE)
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
    name_lines(axes, lines, "; ".join(notes))
    return figure


def predictions(found: Predictions, data: str) -> Figure:
    """Images with what the model says and what they are; wrong answers in red, each with its probability."""
    columns = min(5, len(found.images))
    rows = -(-len(found.images) // columns)
    share = f"{found.test_accuracy:.2%} of the test images right"
    figure = new_figure(f"Predictions of the exported model ({share})", data, 0.8 + 1.95 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    cells = zip(panels, found.images, found.labels, found.predicted, found.probability, strict=False)
    for axes, image, label, predicted, probability in cells:
        axes.imshow(image.reshape(found.image_shape), cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        says, true = found.class_names[predicted], found.class_names[label]
        right = predicted == label
        axes.set_title(
            f"{says} ({probability:.0%})" + f"\ntrue: {true}" * (not right),
            fontsize=LINE,
            color="black" if right else COLOURS[4],
        )
    return figure


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
    return folded(before + _titled(outcome), 24)


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
