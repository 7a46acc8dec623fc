"""What all figures have in common: one style, one colour per variant, legends and explanations."""

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

# Each has a contrast of at least 3 to white and to a dark page (#0f1115), and is as far as can be from the others with
# any colour vision: they were searched for within that band of lightness, by their distances as seen with either of the
# three kinds of colour blindness; the first ones are farthest apart.
COLOURS = ("#1e4bff", "#f0692d", "#963ca5", "#4ba569", "#c31e00", "#877896", "#c369d2", "#4b694b")
DASHES = ("-", "--", "-.", ":")
CROWD = len(COLOURS)
"""Of more variants than this, curves have a panel each, and no bands."""
WIDTH, DPI, WIDEST = 7.6, 140, 1_400
"""Inches, and pixels an inch: at the width of a telephone a letter is still seven pixels high. Pixels at most."""
LINE = 9.0
"""Points of a label's letters."""

SPIKE = 10.0
"""What goes so many times as far as where it comes from would flatten what else is drawn, and is cut off."""


def new_figure(title: str, data: str, height: float = 4.2, width: float = WIDTH) -> Figure:
    """An empty figure on white, whatever page it is put on, with a title that names the data."""
    figure = Figure(figsize=(width, height), dpi=min(DPI, WIDEST / width), layout="constrained", facecolor="white")
    figure.suptitle(folded(f"{title} – {data}", int(12.5 * width)), fontsize=11)
    return figure


def save(figure: Figure, file: str | Path | BinaryIO) -> None:
    """Writes a figure as PNG, drawn once: Matplotlib's own `savefig` draws it a first time to lay it out."""
    canvas: Any = FigureCanvasAgg(figure)  # Matplotlib says nothing of its types
    canvas.draw()
    imsave(file, canvas.buffer_rgba(), format="png", dpi=figure.dpi)


def limit_y(axes: Axes, values: Sequence[float] | np.ndarray, reach: float = 0.3) -> None:
    """Fits the vertical axis to `values`, and to bands beyond them by up to `reach` of their range."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(np.array([np.min(values), np.max(values)]))
    drawn = [panel.dataLim for panel in axes.get_shared_y_axes().get_siblings(axes)]
    ends = scale.transform(np.array([min(box.y0 for box in drawn), max(box.y1 for box in drawn)]))
    reach *= high - low
    low, high = max(low - reach, min(low, ends[0])), min(high + reach, max(high, ends[1]))
    room = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
    axes.set_ylim(*scale.inverted().transform(np.array([low - room, high + room])))


def fit_ratios(axes: Axes) -> None:
    """Plain numbers on the logarithmic axis of ratios, and no more of them than there is room for."""
    low, high = axes.get_xlim()
    nice = MaxNLocator(5, steps=[1, 2, 5, 10]) if high < 2 * low else LogLocator(subs=(1, 2, 5))
    axes.xaxis.set_major_locator(nice if high < 50 * low else LogLocator(subs=(1,), numticks=7))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def add_explanation(figure: Figure, text: str) -> None:
    """Says below the axes what is drawn."""
    if text:
        lines = "\n".join(textwrap.fill(line, int(14 * figure.get_figwidth())) for line in text.split("\n"))
        figure.supxlabel(lines, fontsize=9, color="0.3")


def add_legend(figure: Figure, marks: Sequence[Artist], *, below: bool, title: str = "") -> None:
    """Names the marks beside or below the axes, never over the curves."""
    names = [str(mark.get_label()) for mark in marks]
    style: dict[str, Any] = {"fontsize": 9, "title_fontsize": 9, "frameon": False, "handlelength": 2.5}
    style["title"] = (
        "\n".join(textwrap.fill(line, int(14.5 * figure.get_figwidth())) for line in title.split("\n")) or None
    )
    if below:
        # As many beside each other as there is room for.
        longest = max((len(line) for name in names for line in name.split("\n")), default=0)
        columns = max(1, min(len(marks), int(14 * figure.get_figwidth() / (longest + 7))))
        figure.legend(marks, names, loc="outside lower center", ncols=columns, **style)
    else:
        figure.legend(marks, names, loc="outside right upper", alignment="left", **style)


def name_lines(axes: Axes, lines: Sequence[Line2D], says: str = "", title: str = "") -> None:
    """Names lines at their ends, where there is room for all, else in a legend; and says what is drawn.

    Args:
        title: of the legend.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    if _label_ends(axes, lines):
        add_explanation(figure, says)
    else:
        add_legend(figure, lines, below=True, title="\n".join(filter(None, [says, title])))


def _label_ends(axes: Axes, lines: Sequence[Line2D]) -> bool:
    """Writes each line's name at its end, in its colour; whether there was room for all.

    The names are moved apart where they would lie on each other; one that is not beside its line's end is led there.
    """
    ends = [_end(line) for line in lines]
    names = [str(line.get_label()) for line in lines]
    assert isinstance(axes.figure, Figure)
    each = 1.3 * LINE / 72 / (0.62 * axes.figure.get_figheight())  # of the axes' height, which the layout will decide
    heights = [each * (1 + name.count("\n")) for name in names]
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    if None in ends or sum(heights) > 1 or longest > LABEL or any(name.count("\n") > 3 for name in names):
        return False
    to_share = axes.transScale + axes.transLimits
    at = [tuple(np.clip(to_share.transform(end), 0, 1)) for end in ends if end]
    last = max(across for across, _ in at)
    places = spread([height for _, height in at], heights)
    for end, place, line, name in zip(at, places, lines, names, strict=True):
        colour = line.get_color()
        lead = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 1}
        axes.annotate(
            name,
            end,
            (1.04, place),
            xycoords="axes fraction",
            va="center",
            color=colour,
            fontsize=LINE,
            weight="bold",
            arrowprops=lead if abs(place - end[1]) > 0.01 or end[0] < last else None,
            annotation_clip=False,
            gid="name",
        )
    return True


LABEL = 26
"""Letters of a line of a label at most: a longer one would take the room of the curves."""


def _end(line: Line2D) -> tuple[float, float] | None:
    """The last point of a line that can be seen."""
    known = np.asarray(line.get_xydata(), float)
    known = known[np.isfinite(known).all(axis=1)]
    return (float(known[-1, 0]), float(known[-1, 1])) if len(known) else None


def spread(heights: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Places of labels of these sizes, within 0 and 1: in the order of where they belong, and none on another.

    >>> [round(place, 3) for place in spread([0.5, 0.52, 0.98], [0.1, 0.1, 0.1])]
    [0.5, 0.6, 0.95]
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    placed = [min(max(heights[place], sizes[place] / 2), 1 - sizes[place] / 2) for place in order]
    apart = [(sizes[a] + sizes[b]) / 2 for a, b in itertools.pairwise(order)]
    for above, least in enumerate(apart, start=1):
        placed[above] = max(placed[above], placed[above - 1] + least)
    if placed:
        placed[-1] = min(placed[-1], 1 - sizes[order[-1]] / 2)
    for below in range(len(placed) - 2, -1, -1):
        placed[below] = min(placed[below], placed[below + 1] - apart[below])
    found = dict(zip(order, placed, strict=True))
    return [found[place] for place in range(len(heights))]


def looks(names: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and dash of each variant by its place: the same in every figure of a comparison, whose order is one.

    >>> looks(["SGD", "Adam", "SGD"])
    [('#1e4bff', '-'), ('#f0692d', '-'), ('#1e4bff', '-')]
    """
    places = list(dict.fromkeys(names))
    every = [divmod(places.index(name), len(COLOURS)) for name in names]
    return [(COLOURS[place], DASHES[turn % len(DASHES)]) for turn, place in every]


def folded(text: str, width: int) -> str:
    """`text` in lines of `width`, for Matplotlib to show as it is: dollar signs would be formulas."""
    return "\n".join(textwrap.wrap(text, width) or [text]).replace("$", r"\$")
