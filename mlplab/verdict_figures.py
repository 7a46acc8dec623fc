"""From verdicts and targets to figures."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from mlplab.amounts import shower
from mlplab.drawing import COLOURS, add_legend, fit_ratios, folded, looks, name_lines, new_figure
from mlplab.results import Target
from mlplab.spec import Metric
from mlplab.verdicts import BETTER, EQUIVALENT, ONE_SEED, UNDECIDED, Verdict

DECISIONS = {
    BETTER: (COLOURS[0], "o", COLOURS[0], "better"),
    EQUIVALENT: (COLOURS[5], "s", COLOURS[5], "practically equivalent"),
    UNDECIDED: (COLOURS[1], "D", "white", "undecided"),
    ONE_SEED: (COLOURS[5], "o", "white", "one seed: no verdict"),
}
"""Decision of a verdict -> colour, marker, what fills the marker, and name."""


def differences(verdicts: Sequence[Verdict], data: str) -> Figure:
    """What the seeds say of pairs of variants in one measure: difference (of times: ratio) with its 95 % interval.

    Behind it stands the one after Holm's correction, which decides what is better; the verdicts' cautions are said.
    """
    what, unit = verdicts[0].words, verdicts[0].unit
    ratio, scale = unit == "times", 100 if unit == "points" else 1
    rows = [verdict for verdict in verdicts if math.isfinite(verdict.difference)]
    names = [_pair(verdict, "/" if ratio else "−") for verdict in rows]
    height = 2.3 + sum(max(0.42, 0.165 * (1 + name.count("\n"))) for name in names)
    figure = new_figure(f"{'Ratios' if ratio else 'Differences'} of {what}", data, height)
    axes = figure.subplots()
    margin = scale * verdicts[0].margin
    edges = (1 / (1 + margin), 1 + margin) if ratio else (-margin, margin)
    band = axes.axvspan(*edges, color="0.9", zorder=0, linewidth=0, label="practically none")
    axes.axvline(1 if ratio else 0, color="0.3", linewidth=1)
    shown: list[float] = [*edges]
    corrected: list[float] = []
    for row, verdict in enumerate(rows):
        colour, marker, face, _ = DECISIONS[verdict.decision]
        place, low, high = (scale * value for value in (verdict.difference, verdict.low, verdict.high))
        wider = [scale * verdict.low_corrected, scale * verdict.high_corrected]
        if math.isfinite(high - low):
            axes.plot([low, high], [row, row], color=colour, linewidth=3.5, solid_capstyle="butt")
        shown += [value for value in (place, low, high) if math.isfinite(value)]
        if verdict.verdicts > 1 and math.isfinite(wider[1]):
            axes.plot(wider, [row, row], color=colour, linewidth=1, zorder=1.5, solid_capstyle="butt")
            corrected += wider
        style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 7, "markeredgewidth": 1.6}
        axes.plot(place, row, marker, zorder=3, **style)
        says = f"{span_text(verdict)}\n{verdict.seeds} seed{'s' * (verdict.seeds != 1)}".replace("-", "−")
        says += f" ({verdict.dropped} left out)" * (verdict.dropped > 0)
        says += " (all equal)" * math.isinf(verdict.high_corrected)
        axes.annotate(says, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    if ratio:
        axes.set_xscale("log")
    cut = _limit_x(axes, shown, corrected)
    if ratio:
        fit_ratios(axes)
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    how = f"{what}, first {'/' if ratio else 'minus'} second" + f" ({unit})" * bool(unit)
    axes.set_xlabel("; ".join([how, *_favours(rows, none=1 if ratio else 0)]))
    axes.spines[["top", "right"]].set_visible(False)
    if not rows:
        box = {"facecolor": "white", "edgecolor": "none"}
        axes.text(0.5, 0.5, "no pair has a difference", transform=axes.transAxes, ha="center", color="0.4", bbox=box)
    marks = [
        Line2D([], [], linestyle="", color=colour, marker=marker, markerfacecolor=face, label=label)
        for decision, (colour, marker, face, label) in DECISIONS.items()
        if any(verdict.decision == decision for verdict in rows)
    ]
    means = ["thick: 95 % interval"] * any(math.isfinite(verdict.low) for verdict in rows)
    if corrected:
        after = f"thin: after correction for {rows[0].verdicts} verdicts, which decides what is better"
        means.append(after + ", cut off at the edge" * cut)
    cautions = dict.fromkeys(verdict.caution for verdict in rows if verdict.caution)
    add_legend(figure, [*marks, band], below=True, title="\n".join(filter(None, ["; ".join(means), *cautions])))
    return figure


def span_text(verdict: Verdict) -> str:
    """The difference or ratio with its 95 % interval, with the digits that this tells, such as `+1.2 [0.8, 1.6]`."""
    show = shower(verdict.unit, verdict.low, verdict.high, verdict.low_corrected, verdict.high_corrected)
    signed = verdict.unit != "times"
    texts = ["+" * (value > 0 and signed) + show(value) for value in (verdict.difference, verdict.low, verdict.high)]
    interval = f" [{texts[1]}, {texts[2]}]" if math.isfinite(verdict.high - verdict.low) else ""
    return f"{texts[0]}{interval}".replace("-", "−")


def _limit_x(axes: Axes, values: Sequence[float], wider: Sequence[float]) -> bool:
    """Fits the horizontal axis to `values`, and to `wider` ones by up to their range; whether it cuts those off."""
    scale = axes.xaxis.get_transform()
    low, high = scale.transform(np.array([min(values), max(values)]))
    ends = scale.transform(np.array([min([*wider, *values]), max([*wider, *values])]))
    reach = high - low
    low, high = max(low - reach, ends[0]), min(high + reach, ends[1])
    room = 0.05 * (high - low) or 0.1
    axes.set_xlim(*scale.inverted().transform(np.array([low - room, high + room])))
    return bool(ends[0] < low or ends[1] > high)


def _favours(verdicts: Sequence[Verdict], none: float) -> list[str]:
    """On which side the first is better, where one is; a verdict names the better one first."""
    sides = ("right" if verdict.difference > none else "left" for verdict in verdicts if verdict.difference != none)
    return [f"{side}: the first is better" for side in itertools.islice(sides, 1)]


def _pair(verdict: Verdict, sign: str) -> str:
    apart = "\n" if len(verdict.a) + len(verdict.b) > 22 else " "
    return f"{folded(f'{verdict.a} {sign}', 26)}{apart}{folded(verdict.b, 26)}"


def reached(targets: Sequence[Target], data: str) -> Figure:
    """Share of all seeds of each variant that have reached a target, against how long they had been trained."""
    first = targets[0]
    sign, words = "≥" if first.maximizes else "≤", Metric(first.metric, "max" if first.maximizes else "min").words
    names = [folded(target.variant, 22) for target in targets]
    seeds = max(len(target.after) for target in targets)
    height = max(4.2, 1.6 + 0.25 * sum(2 + name.count("\n") for name in names))
    figure = new_figure(f"How soon {words} {sign} {first.target:g} was reached", data, height)
    axes = figure.subplots()
    ends = [np.where(np.isnan(target.after), target.trained, target.after) for target in targets]
    end = 1.03 * float(np.concatenate(ends).max()) or 1.0
    lines = []
    for place, (target, look) in enumerate(zip(targets, looks([t.variant for t in targets]), strict=True)):
        arrivals = sorted(filter(math.isfinite, target.after))
        missed = sorted(end for end, after in zip(target.trained, target.after, strict=True) if math.isnan(after))
        share = np.arange(len(arrivals) + 1) / len(target.after)
        # After the last seed has arrived nothing changes; else nothing is known beyond what was trained.
        until = max(target.trained) if missed else end
        half = ("half after " if seeds > 1 else "after ") * math.isfinite(target.half)
        says = "\n".join([names[place], *[target.count] * (seeds > 1), half + target.says])
        style: dict[str, Any] = {"color": look[0], "linestyle": look[1], "label": says}
        style["linewidth"] = 1.5 + 2 * (len(targets) - 1 - place) / len(targets)
        lines += axes.step([0.0, *arrivals, until], [*share, share[-1]], where="post", **style)
        heights = share[np.searchsorted(arrivals, missed, "right")]
        axes.plot(missed, heights, "|", color=look[0], markersize=11, markeredgewidth=1.8)
    axes.set(xlim=(0, end), ylim=(-0.03, 1.03))
    axes.set_xlabel("training time (s)" if first.unit == "seconds" else f"{first.unit} of training")
    if first.unit != "seconds":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if seeds > 1:
        axes.set_ylabel("share of all seeds")
    else:
        axes.set_yticks([0, 1], ["not yet", "reached"])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    missing = any(math.isnan(after) for target in targets for after in target.after)
    tick = "; tick: a training ended without reaching it" * missing
    name_lines(axes, lines, f"{seeds} seed{'s' * (seeds > 1)}{tick}", "seeds that reached it" * (seeds > 1))
    return figure
