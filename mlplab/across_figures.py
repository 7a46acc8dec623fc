"""From what holds over several data sets to figures."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from mlplab.across import Across, Improvement, Profile
from mlplab.aggregates import R_MAX, Estimate
from mlplab.amounts import shower
from mlplab.drawing import add_explanation, fit_ratios, folded, looks, name_lines, new_figure
from mlplab.verdicts import Verdict


def every(over: Across, verdicts: Sequence[Verdict]) -> dict[str, Figure]:
    """All figures over several data sets, by name: of each measure's differences, and of each target's profiles.

    Args:
        verdicts: over all data sets.
    """
    found, pairs = {}, list(zip(verdicts, over.improvements(verdicts), strict=True))
    for measure in dict.fromkeys(verdict.measure for verdict in verdicts if math.isfinite(verdict.low)):
        shown, improvements = zip(*(pair for pair in pairs if pair[0].measure == measure), strict=True)
        figure = differences(shown, improvements, over.labels, list(over.comparison.variants))
        found[f"differences_{measure}"] = figure
    known = over.profiles()
    for metric in over.comparison.targets:
        of = [one for one in known if one.metric == metric]
        found[f"profile_{metric}"] = profiles(of, over.target_text(metric), len(over.labels))
    return found


def differences(
    verdicts: Sequence[Verdict], improvements: Sequence[Improvement], data: Sequence[str], variants: Sequence[str]
) -> Figure:
    """Differences of pairs of variants in one measure on each data set, and over all of them, with 95 % intervals.

    A panel for each pair; a mark has the colour of the variant that it speaks for.

    Args:
        verdicts: over all data sets, of one measure.
        improvements: of the same pairs, in the same order.
        data: the data sets' labels.
        variants: of the comparison, in its order, which gives their colours.
    """
    words, unit = verdicts[0].words, verdicts[0].unit
    ratio, scale = unit == "times", 100 if unit == "points" else 1
    names = [*(folded(label, 22) for label in data), f"all {len(data)}", "resampled"]
    height = 1.3 + len(verdicts) * (0.6 + 0.27 * len(names))
    title = f"{'Ratios' if ratio else 'Differences'} of {words}"
    figure = new_figure(title, f"{len(data)} data sets", height)
    panels = figure.subplots(len(verdicts), 1, sharex=True, squeeze=False)[:, 0]
    margin = scale * verdicts[0].margin
    edges = (1 / (1 + margin), 1 + margin) if ratio else (-margin, margin)
    for axes, verdict, one in zip(panels, verdicts, improvements, strict=True):
        axes.axvspan(*edges, color="0.9", zorder=0, linewidth=0)
        axes.axvline(1 if ratio else 0, color="0.3", linewidth=1)
        over = Estimate(verdict.difference, verdict.low, verdict.high)
        for row, estimate in enumerate([*one.each, over, one.difference]):
            _mark(axes, row, estimate, scale, _colour(one, estimate, variants), over=row >= len(data))
            says = _says(estimate, unit).replace("-", "−")
            axes.annotate(says, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        axes.axhline(len(data) - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.5)
        pair = f"{verdict.a} {'/' if ratio else '−'} {verdict.b}: {verdict.decision}"
        axes.set_title(folded(pair, 75), fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    if ratio:
        panels[-1].set_xscale("log")
        fit_ratios(panels[-1])
    panels[-1].set_xlabel(f"{words}, first {'/' if ratio else 'minus'} second" + f" ({unit})" * bool(unit))
    seeds = verdicts[0].seeds
    means = "the seeds' means over the data sets, which decide; resampled: seeds drawn anew within data sets"
    cautions = dict.fromkeys(folded(verdict.caution, 100) for verdict in verdicts if verdict.caution)
    add_explanation(
        figure,
        f"{seeds} seed{'s' * (seeds != 1)}; lines: 95 % intervals over seeds; all {len(data)}: {means};\n"
        + "\n".join(["grey band: practically none; colour: that of the variant which is ahead", *cautions]),
    )
    return figure


def _colour(one: Improvement, estimate: Estimate, variants: Sequence[str]) -> str:
    """That of the variant which an estimate of the difference speaks for; grey where it speaks for none."""
    above = estimate.value - (1 if one.unit == "times" else 0)
    if not math.isfinite(above) or above == 0:
        return "0.4"
    better = one.a if (above > 0) == one.maximizes else one.b
    colour, _ = looks(variants)[list(variants).index(better)]
    return colour


def _mark(axes: Axes, row: int, estimate: Estimate, scale: float, colour: str, *, over: bool) -> None:
    if math.isfinite(estimate.high - estimate.low):
        ends = [scale * estimate.low, scale * estimate.high]
        axes.plot(ends, [row, row], color=colour, linewidth=3.5 if over else 2, solid_capstyle="butt")
    if math.isfinite(estimate.value):
        axes.plot(scale * estimate.value, row, "D" if over else "o", color=colour, markersize=7 if over else 6)


def _says(estimate: Estimate, unit: str) -> str:
    if not math.isfinite(estimate.value):
        return "no value for both"
    show = shower(unit, estimate.low, estimate.high)
    said = [
        "+" * (value > 0 and unit != "times") + show(value) for value in (estimate.value, estimate.low, estimate.high)
    ]
    return f"{said[0]} [{said[1]}, {said[2]}]" if math.isfinite(estimate.high - estimate.low) else said[0]


def profiles(found: Sequence[Profile], target: str, data: int) -> Figure:
    """Performance profiles: on which share of the data sets each variant reached a target within a factor of the best.

    Args:
        found: of one target, in the variants' order, which gives their colours.
        target: it, for readers.
        data: how many data sets there are.
    """
    figure = new_figure(f"Performance profile: how soon {target} was reached", f"{data} data sets", 4.4)
    axes = figure.subplots()
    lines: list[Line2D] = []
    for place, (one, (colour, dash)) in enumerate(zip(found, looks([one.variant for one in found]), strict=True)):
        steps = sorted({1.0, *(ratio for ratio in one.ratios if 1 < ratio < R_MAX)})
        shares = [one.share(tau) for tau in steps]
        width = 1.5 + 2 * (len(found) - 1 - place) / len(found)  # of those that coincide all are seen
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "linewidth": width}
        label = f"{folded(one.variant, 20)}\nscore {one.score:.3f}"
        lines += axes.step([*steps, R_MAX], [*shares, shares[-1]], where="post", label=label, **style)
    axes.set(xlim=(1, R_MAX), ylim=(-0.04, 1.04))
    axes.set_xlabel("time to the target, as a multiple of the fastest variant's on the data set")
    axes.set_ylabel("share of the data sets")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    units = dict.fromkeys(unit for one in found for unit in one.units)
    name_lines(
        axes,
        lines,
        f"{' or '.join(units)} until half of the seeds had reached it; score: the mean height from 1 to {R_MAX:g}, as "
        "AlgoPerf has it",
    )
    return figure
