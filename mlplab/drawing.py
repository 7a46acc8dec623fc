"""What all figures have in common: one style, one colour per variant, legends and explanations."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Petroff's ten colours, told apart with any colour vision (https://arxiv.org/abs/2107.02270).
COLOURS = (
    *("#3f90da", "#e76300", "#832db6", "#bd1f01", "#ffa90e"),
    *("#717581", "#a96b59", "#92dadd", "#94a4a2", "#b9ac70"),
)
DASHES = ("-", "--", "-.", ":")
CROWD = len(COLOURS)
"""Of more variants than this, a figure of curves shows the means alone."""

SPIKE = 10.0
"""What goes so many times as far as where it comes from would flatten what else is drawn, and is cut off."""


def new_figure(title: str, data: str, width: float, height: float = 4.2) -> Figure:
    """An empty figure, with a title that names the data."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(folded(f"{title} – {data}", 110), fontsize=12)
    return figure


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


def add_explanation(figure: Figure, text: str) -> None:
    """Says below the axes what is drawn."""
    if text:
        figure.supxlabel(text, fontsize=9, color="0.3")


def add_legend(figure: Figure, marks: Sequence[Artist], *, below: bool, title: str = "") -> None:
    """Names the marks beside or below the axes, never over the curves."""
    names = [str(mark.get_label()) for mark in marks]
    style = {"fontsize": 9, "title_fontsize": 9, "frameon": False, "handlelength": 3, "title": title or None}
    if below:
        figure.legend(marks, names, loc="outside lower center", ncols=len(marks), **style)
    else:
        figure.legend(marks, names, loc="outside right upper", alignment="left", **style)


def looks(names: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and dash of each variant by its place: the same in every figure of a comparison, whose order is one.

    >>> looks(["SGD", "Adam", "SGD"])
    [('#3f90da', '-'), ('#e76300', '-'), ('#3f90da', '-')]
    """
    places = list(dict.fromkeys(names))
    every = [divmod(places.index(name), len(COLOURS)) for name in names]
    return [(COLOURS[place], DASHES[turn % len(DASHES)]) for turn, place in every]


def folded(text: str, width: int) -> str:
    """`text` in lines of `width`, for Matplotlib to show as it is: dollar signs would be formulas."""
    return "\n".join(textwrap.wrap(text, width) or [text]).replace("$", r"\$")
