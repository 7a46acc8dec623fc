"""The two figures that the report alone has: its answer, and training times side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.report.blocks import MARKS, Judged
from experiments.report.cells import epoch_seconds, seconds_text, value_text
from experiments.report.judging import Number, Records
from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, STATUSES
from mlplab.drawing import folded, looks, new_figure
from mlplab.results import Outcome

COLOURS = {REPRODUCED: "#3f90da", NOT_REPRODUCED: "#bd1f01", NOT_TESTABLE: "#9aa1ab"}
"""Status -> colour; a reader who cannot tell them apart has the marks."""


@dataclass(frozen=True)
class Compared:
    """An accuracy of the report beside ours: the claim that has it, and ours with its interval."""

    claim: Judged
    number: Number
    mean: float
    low: float
    high: float


def compared(claims: Sequence[tuple[Judged, Sequence[Number]]], records: Records) -> list[Compared]:
    """The report's accuracies that have one of ours beside them."""
    found = [
        Compared(claim, number, *number.spread(records))
        for claim, numbers in claims
        for number in numbers
        if number.metric.endswith("accuracy")
    ]
    return [one for one in found if math.isfinite(one.mean)]


def answer(claims: Sequence[Judged], beside: Sequence[Compared], *, narrow: bool = False) -> Figure:
    """How many claims came out how, and below it the report's accuracies beside ours.

    Args:
        narrow: for a narrow screen.
    """
    width = 4.6 if narrow else 9.0
    row = 0.42 if narrow else 0.235
    heights = [0.7, 0.6 + row * len(beside)] if beside else [0.7]
    figure = Figure(figsize=(width, sum(heights)), dpi=130, layout="constrained")
    # Apart from each other, so that the bar is as wide as the figure.
    counts, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _counts(counts.subplots(), claims, narrow)
    for part in below:
        _beside(part.subplots(), beside, narrow)
    return figure


def _counts(axes: Axes, claims: Sequence[Judged], narrow: bool) -> None:
    """A bar of all claims, in parts by status, each claim a field."""
    place, bars, says = 0, [], []
    axes.set_xlim(-0.02, len(claims) + 0.02)
    axes.set_ylim(-0.9, 1)
    axes.set_axis_off()
    for status in STATUSES:
        many = sum(claim.status == status for claim in claims)
        fields = [place + field + 0.05 for field in range(many)]
        bars.append(axes.barh([0.5] * many or [0], [0.9] * many or [0], left=fields or [0], color=COLOURS[status]))
        says.append(f"{MARKS[status]} {many} {status}")
        place += many
    style = {"fontsize": 9 if narrow else 10, "handlelength": 0.9, "columnspacing": 1.2, "handletextpad": 0.4}
    axes.legend(bars, says, loc="lower left", ncols=3, frameon=False, borderaxespad=0, borderpad=0, **style)


def _beside(axes: Axes, beside: Sequence[Compared], narrow: bool) -> None:
    """A line for each accuracy, from the report's to ours."""
    for line, one in enumerate(beside):
        colour = COLOURS[one.claim.status]
        axes.plot([100 * one.number.published, 100 * one.mean], [line, line], color=colour, linewidth=2, alpha=0.6)
        if math.isfinite(one.high - one.low):
            axes.plot([100 * one.low, 100 * one.high], [line, line], color=colour, linewidth=5, alpha=0.4)
        axes.plot(100 * one.number.published, line, "D", color="0.15", markerfacecolor="white", markersize=7, zorder=3)
        axes.plot(100 * one.mean, line, "o", color=colour, markersize=7, zorder=4)
        says = f"{one.number.text} → {value_text(one.mean, 'points')}"
        axes.annotate(says, (1.02, line), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    names = [_name(one.number, 22 if narrow else 60) for one in beside]
    axes.set_yticks(range(len(beside)), names, fontsize=9)
    axes.set_ylim(len(beside) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("accuracy (%): ◇ in the report, ● here")


def _name(number: Number, width: int) -> str:
    what = "training" if number.metric == "accuracy" else "validation"
    return folded(f"{number.variant} ({what})", width)


@dataclass(frozen=True)
class Bar:
    """A variant's training time as it is shown: its name, its colour, and its trainings."""

    name: str
    colour: str
    outcome: Outcome


def bars(variants: Sequence[Outcome], before: str = "") -> list[Bar]:
    """The bars of a comparison's variants, each in the colour that it has in all figures."""
    colours = [colour for colour, _ in looks([outcome.variant.name for outcome in variants])]
    named = [before + outcome.variant.name for outcome in variants]
    return [Bar(*each) for each in zip(named, colours, variants, strict=True)]


def times(shown: Sequence[Bar], data: str) -> Figure:
    """Seconds of training of each variant, with those of an epoch in words: of equal epochs it is the same picture."""
    figure = new_figure("Training time by variant", data, 10, 1.4 + 0.42 * len(shown))
    axes = figure.subplots()
    longest = 0.0
    for line, bar in enumerate(shown):
        mean, low, high = bar.outcome.over_seeds(lambda r: r.train_seconds or math.nan)
        timed = math.isfinite(mean)
        axes.barh(line, mean if timed else 0, color=bar.colour, height=0.6)
        if math.isfinite(high - low):
            axes.plot([max(low, 0), high], [line, line], color="black", linewidth=1.2, marker="|", markersize=7)
        end = max((value for value in (mean, high) if math.isfinite(value)), default=0.0)
        longest = max(longest, end)
        each = seconds_text(epoch_seconds(bar.outcome))
        says = f"  {seconds_text(mean)}, {each} an epoch" if timed else "  was not timed"
        axes.annotate(says, (end, line), va="center", fontsize=9)
    axes.set_xlim(0, 1.35 * longest or 1)
    axes.set_xlabel("training time (s)")
    axes.set_yticks(range(len(shown)), [folded(bar.name, 48) for bar in shown], fontsize=9)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if max(len(bar.outcome.results) for bar in shown) > 1:
        figure.supxlabel("mean of the seeds; black line: its 95 % interval", fontsize=9, color="0.3")
    return figure
