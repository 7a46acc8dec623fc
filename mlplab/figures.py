"""From results to figures. One style, one colour per variant in every figure, axes with units."""

import itertools
import math
import statistics
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from mlplab.results import DIVERGED, FINISHED, Candidate, Predictions, Record, Result, SearchResult
from mlplab.spec import DATASETS, Comparison, experiment_names, load_experiment

# Petroff's ten colours, told apart with any colour vision (https://arxiv.org/abs/2107.02270).
COLOURS = (
    *("#3f90da", "#e76300", "#832db6", "#bd1f01", "#ffa90e"),
    *("#717581", "#a96b59", "#92dadd", "#94a4a2", "#b9ac70"),
)
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
    lines: list[Line2D] = []
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        name = metric if side == "training" else f"val_{metric}"
        lines = []
        for place, (result, look) in enumerate(zip(results, looks([r.variant.name for r in results]), strict=True)):
            line = _curve(axes, result.history.get(name, []), result, _name(result), *look)
            # Where curves coincide, the later ones leave an edge of the earlier to be seen.
            line.set_linewidth(1.5 + 2 * (len(results) - 1 - place) / len(results))
            lines.append(line)
        axes.set_title(side, fontsize=10)
        _finish(axes, metric, every)
    _legend(figure, lines, below=False)
    return figure


def overview_times(records: Sequence[Record]) -> Figure:
    """`training_times` over several comparisons of one data set."""
    every = [(record.experiment.name, result) for record in records for result in record.results]
    return training_times([result for _, result in every], records[0].data, [f"{name}: " for name, _ in every])


def training_times(results: Sequence[Result], data: str, before: Sequence[str] = ()) -> Figure:
    """Seconds of training of each variant, in all and an epoch; compiling and evaluation are named, not compared.

    Args:
        before: a text before each variant's name.
    """
    shown = looks([result.variant.name for result in results])
    names = [_name(result, text) for result, text in zip(results, before or [""] * len(results), strict=True)]
    figure = _figure(
        "Training time by variant", data, 12, 1.6 + sum(max(0.5, 0.2 * (1 + name.count("\n"))) for name in names)
    )
    total, per_epoch = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for row, result in enumerate(results):
        each = result.train_seconds / result.epochs if result.epochs else 0.0
        apart = f"\n  (and {result.compile_seconds:.1f} s compiling, {result.evaluate_seconds:.1f} s evaluation)"
        for axes, seconds, text in ((total, result.train_seconds, apart), (per_epoch, each, "")):
            axes.barh(row, seconds, color=shown[row][0], height=0.6)
            says = f"  {seconds:.3g} s{text}" if result.epochs else "  no epoch was completed"
            axes.annotate(says, (seconds, row), va="center", fontsize=8)
    total.set_yticks(range(len(results)), names, fontsize=9)
    total.set_ylim(len(results) - 0.5, -0.5)
    total.set_xlabel("training time (s)")
    per_epoch.set_xlabel("training time per epoch (s)")
    for axes, room in ((total, 1.8), (per_epoch, 1.4)):
        axes.set_xlim(0, room * max([bar.get_width() for bar in axes.patches], default=1) or 1)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def predictions(found: Predictions, data: str) -> Figure:
    """Images with what the model says and what they are; wrong answers in red, each with its probability."""
    columns = min(5, len(found.images))
    rows = -(-len(found.images) // columns)
    share = f"{found.test_accuracy:.2%} of the test images right"
    figure = _figure(f"Predictions of the exported model ({share})", data, 2.0 * columns, 0.8 + 2.2 * rows)
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


def search_parallel(search: SearchResult, data: str) -> Figure:
    """A random search as lines across one axis for each searched field and one for the accuracy they led to."""
    fields = list(search.candidates[0].choices)
    figure = _figure("Random search: every candidate", data, max(8, 1.8 * len(fields) + 4), 4.8)
    axes = figure.subplots()
    scored = sorted(_scored(search), key=lambda candidate: candidate.mean)
    scales = [_Scale([candidate.choices[name] for candidate in search.candidates]) for name in fields]
    accuracy = _Scale([candidate.mean for candidate in scored] or [0.0, 1.0])
    colours = ScalarMappable(Normalize(*accuracy.ends), "viridis_r")
    columns = range(len(fields) + 1)
    for column, scale in zip(columns, [*scales, accuracy], strict=True):
        axes.axvline(column, color="0.6", linewidth=1)
        for value, text in scale.ticks:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(column + 0.04, scale.place(value), text, fontsize=9, va="center", zorder=4, bbox=box)
            axes.plot(column, scale.place(value), color="0.4", marker="_", zorder=3)
    for candidate in scored:
        # Lines of equal choices would lie on each other.
        apart = 0.03 * (scored.index(candidate) / max(1, len(scored) - 1) - 0.5)
        heights = [s.place(candidate.choices[n]) + apart for n, s in zip(fields, scales, strict=True)]
        best = candidate is search.best
        style: dict[str, Any] = {"linewidth": 3.5, "zorder": 2.5} if best else {"linewidth": 1.4, "alpha": 0.8}
        colour = colours.to_rgba(np.array([candidate.mean]))[0]
        axes.plot(columns, [*heights, accuracy.place(candidate.mean)], color=colour, **style)
    if scored:
        figure.colorbar(colours, ax=axes, label="mean accuracy over the folds (share of images)", pad=0.02)
    else:
        axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xticks(columns, [*(name.replace("_", " ") for name in fields), "mean accuracy"])
    axes.set_xlabel(_counted(search, "the thick line is the best"), fontsize=9, color="0.4")
    axes.set(yticks=[], xlim=(-0.15, len(fields) + 0.45), ylim=(-0.08, 1.08))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def search_slices(search: SearchResult, data: str) -> Figure:
    """Accuracy against each searched field: every candidate's mean and, small, its folds."""
    fields = list(search.candidates[0].choices)
    rows = -(-len(fields) // 3)
    columns = -(-len(fields) // rows)
    figure = _figure("Random search: accuracy by choice", data, max(6, 4 * columns), 0.8 + 3.4 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(fields) :]:
        axes.remove()
    scored = _scored(search)
    for axes, name in zip(panels.flat, fields, strict=False):
        scale = _Scale([candidate.choices[name] for candidate in search.candidates])
        for candidate in scored:
            at = scale.value(candidate.choices[name])
            best = candidate is search.best
            colour = COLOURS[1] if best else COLOURS[0]
            axes.plot([at] * len(candidate.scores), candidate.scores, "_", color=colour, alpha=0.5, markersize=9)
            mean: dict[str, Any] = (
                {"marker": "D", "markersize": 9, "zorder": 4} if best else {"marker": "o", "zorder": 3}
            )
            axes.plot(at, candidate.mean, color=colour, markeredgecolor="white", **mean)
        if scale.log:
            axes.set_xscale("log")
        axes.set_xticks([scale.value(value) for value, _ in scale.ticks], [text for _, text in scale.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.12)
        axes.set_xlabel(name.replace("_", " "))
        axes.set_ylabel("accuracy (share of images)")
        axes.tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    marks = [
        Line2D([], [], linestyle="", marker=marker, color=COLOURS[colour], label=label)
        for marker, colour, label in (("o", 0, "mean over the folds"), ("_", 0, "one fold"), ("D", 1, "best candidate"))
    ]
    if failures := _counted(search, ""):
        marks.append(Line2D([], [], linestyle="", label=failures))
    _legend(figure, marks, below=True)
    return figure


class _Scale:
    """Where the values of one searched field stand: numbers to scale, anything else in order, side by side."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if self.numbers:
            self.known = sorted(set(values))
        else:
            # Numbers among texts, such as a batch size beside "full", in their order and first.
            self.known = sorted(set(values), key=lambda v: (isinstance(v, str), v if isinstance(v, int) else 0, str(v)))
        low, high = (self.known[0], self.known[-1]) if self.numbers else (0, len(self.known) - 1)
        # Magnitudes, and most values near the low end, as when they are drawn by magnitude.
        self.log = self.numbers and 0 < 10 * low <= high and 4 * statistics.median(self.known) <= low + high
        # A single value stands in the middle.
        self.ends = (float(low), float(high)) if low < high else (low - 0.5, low + 0.5)

    @property
    def ticks(self) -> list[tuple[Any, str]]:
        """Values to name and their texts: all, or of many numbers some between the ends."""
        if not self.numbers:
            return [(v, "-".join(map(str, v)) if isinstance(v, tuple) else str(v)) for v in self.known]
        if len(self.known) <= 5:
            return [(value, f"{value:.4g}") for value in self.known]
        low, high = self.ends
        powers = [10.0**power for power in range(math.floor(math.log10(low)), 10)] if self.log else []
        nice = [value for value in powers or MaxNLocator(5).tick_values(low, high) if low <= value <= high]
        return [(float(value), f"{value:.4g}") for value in (nice if len(nice) > 1 else self.ends)]

    def value(self, value: Any) -> float:
        """The place of a value on a Matplotlib axis."""
        return float(value) if self.numbers else float(self.known.index(value))

    def place(self, value: Any) -> float:
        """The place of a value between the ends, which are 0 and 1."""
        at, low, high = self.value(value), *self.ends
        if self.log:
            at, low, high = math.log(at), math.log(low), math.log(high)
        return (at - low) / (high - low)


def _scored(search: SearchResult) -> list[Candidate]:
    return [candidate for candidate in search.candidates if math.isfinite(candidate.mean)]


def _counted(search: SearchResult, says: str) -> str:
    failed = len(search.candidates) - len(_scored(search))
    return "; ".join(filter(None, [says, f"{failed} of {len(search.candidates)} candidates failed" if failed else ""]))


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


def looks(names: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and dash of each variant of a figure: those of the project's experiments have theirs in every figure."""
    known = _places()
    free = (place for place in itertools.count() if place not in {known.get(name) for name in names})
    given = {name: known[name] if name in known else next(free) for name in dict.fromkeys(names)}
    found = {name: (COLOURS[p % len(COLOURS)], DASHES[p // len(COLOURS) % len(DASHES)]) for name, p in given.items()}
    return [found[name] for name in names]


@cache
def _places() -> dict[str, int]:
    """Name of a variant in the project's experiments -> its place among those on the same data set."""
    comparisons = [e for e in map(load_experiment, experiment_names()) if isinstance(e, Comparison)]
    # A comparison of many first: it is where colours must differ most.
    comparisons.sort(key=lambda comparison: -len(comparison.variants))
    places: dict[str, int] = {}
    for dataset in DATASETS:
        names = dict.fromkeys(name for c in comparisons if c.dataset == dataset for name in c.variants)
        places = {name: place for place, name in enumerate(names)} | places
    return places


def _titled(result: Result) -> str:
    return result.variant.name if result.status == FINISHED else f"{result.variant.name} ({result.status})"


def _name(result: Result, before: str = "") -> str:
    return _folded(before + _titled(result), 40 if before else 32)


def _lines(result: Result) -> int:
    return 1 + _name(result).count("\n")


def _folded(text: str, width: int) -> str:
    """`text` in lines of `width`, for Matplotlib to show as it is: dollar signs would be formulas."""
    return "\n".join(textwrap.wrap(text, width) or [text]).replace("$", r"\$")
