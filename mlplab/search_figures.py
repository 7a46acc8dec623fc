"""From a search, or the tuning of variants, to figures."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from mlplab.amounts import significant
from mlplab.curves import POINTS
from mlplab.drawing import (
    COLOURS,
    CROWD,
    SPIKE,
    WIDTH,
    add_legend,
    folded,
    limit_y,
    looks,
    name_lines,
    new_figure,
)
from mlplab.records import Candidate, SearchResult, Tuning, choice_text, choice_words
from mlplab.results import PRUNED
from mlplab.statistics import best_band, expected_best

RESAMPLES = 1_000
FROM_SHARE = 6
"""A tuning's figure is fitted to its curves from a sixth of the trials on."""
BAND_FROM = 5
"""Of fewer candidates no bootstrap tells how far another search might come."""
LONGEST = 20
"""Letters of a value's name on an axis; of a longer one, such as a call with arguments, the middle is left out."""
NOT_APPLYING = -0.14
"""Where a line crosses the axis of a choice that does not apply to its candidate; the axis goes from 0 to 1."""


def budget(search: SearchResult, data: str) -> Figure:
    """Best mean score to expect of k of a random search's candidates, against k; failed ones are left out.

    A band of 95 % of bootstrap samples of k is drawn from `BAND_FROM` candidates on.
    """
    figure = new_figure(f"Random search: {search.score} by budget", data)
    axes = figure.subplots()
    scores = np.array([candidate.mean for candidate in _scored(search)])
    if len(scores):
        many = np.arange(1, len(scores) + 1)
        marks: list[Artist] = []
        without = f"no band: a bootstrap needs {BAND_FROM} candidates with a score"
        if len(scores) > 1:
            style: dict[str, Any] = {"marker": "o" if len(scores) <= 50 else "", "markersize": 4, "linewidth": 1.8}
            style["label"] = "best to expect of so many of these candidates"
            style["linestyle"] = "-" if len(scores) > POINTS else ""
            marks += axes.plot(many, expected_best(scores), color=COLOURS[0], **style)
        if len(scores) >= BAND_FROM:
            without = ""
            again = np.random.default_rng(0).choice(scores, (RESAMPLES, len(scores)))
            low, high = np.quantile(np.maximum.accumulate(again, axis=1), (0.025, 0.975), axis=0)
            band = axes.fill_between(many, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
            band.set_label("95 % of bootstrap samples of so many")
            marks.append(band)
        # A step for each candidate, the last one's, too.
        far, reached = [*many, len(scores) + 0.5], np.maximum.accumulate([*scores, scores[-1]])
        label = "best so far, in the order drawn"
        marks += axes.step(far, reached, where="post", color="0.5", linewidth=1, label=label)
        add_legend(figure, marks, below=True, title=without)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xlim(0.5, max(1, len(scores)) + 0.5)
    axes.set_xlabel(_counted(search, "candidates with a score"))
    axes.set_ylabel(_over_folds(search))
    _cut_off(axes, search)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def tuned_budget(tuning: Tuning, data: str) -> Figure:
    """Best score to expect of k of each tuned variant's trials, against k, with the band of 95 % of all draws of k.

    A variant's name stands at the end of its curve, in its colour.
    """
    metric = tuning.metric
    figure = new_figure(f"Tuning: best {metric.words} by budget", data, 4.4)
    axes = figure.subplots()
    names = list(tuning.trials)
    shown: list[float] = []
    lines: list[Line2D] = []
    for name, (colour, dash) in zip(names, looks(names), strict=True):
        if not (scores := tuning.scores(name)):
            continue
        many = np.arange(1, len(scores) + 1)
        expected = expected_best(scores, metric.maximizes)
        if len(scores) > 1 and len(names) <= CROWD:
            axes.fill_between(many, *best_band(scores, metric.maximizes), color=colour, alpha=0.15, linewidth=0)
        style: dict[str, Any] = {"marker": "o" if len(scores) <= 50 else "", "markersize": 4, "linewidth": 1.8}
        lines += axes.plot(many, expected, dash, color=colour, label=_shortened(name).replace("$", r"\$"), **style)
        # One trial is mostly luck: fitted to that, the axis would show no difference among well tuned variants.
        shown += expected[len(expected) // FROM_SHARE :].tolist()
    if shown:
        limit_y(axes, np.array(shown), reach=0.15)
        axes.set_xlim(0.5, max(map(len, map(tuning.scores, names))) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlabel("trials of each variant")
    axes.set_ylabel(f"best {metric.words} to expect\non examples held out of training")
    failed = sum(len(each) - len(tuning.scores(name)) for name, each in tuning.trials.items())
    says = ["Bands: 95 % of all draws of so many of a variant's trials"] * (len(names) <= CROWD)
    stopped = sum(trial.status == PRUNED for each in tuning.trials.values() for trial in each)
    notes = [f"{failed} trials without a score are left out"] * (failed > 0)
    notes += [f"{stopped} trials that halving stopped count as they stood then"] * (stopped > 0)
    name_lines(axes, lines, " ".join(filter(None, [tuning.sentence, "; ".join([*says, *notes])])))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def parallel(search: SearchResult, data: str) -> Figure:
    """A random search as lines across one axis for each searched choice and one for the score they led to.

    A line stops at either side of an axis' names, so that it crosses none.
    """
    choices = search.choices
    figure = new_figure("Random search: every candidate", data, 4.6, max(WIDTH, 1.7 * len(choices) + 3.4))
    axes = figure.subplots()
    scored = sorted(_scored(search), key=lambda candidate: candidate.mean)
    scales = [_Scale([c.choices[name] for c in search.candidates if name in c.choices]) for name in choices]
    floor = _floor(search)
    score = _Scale([max(candidate.mean, floor) for candidate in scored] or [0.0, 1.0])
    ticks = [_spaced([(scale.place(value), text) for value, text in scale.ticks]) for scale in (*scales, score)]
    missing = [any(name not in candidate.choices for candidate in scored) for name in choices]
    for names, lacks in zip(ticks, missing, strict=False):
        names += [(NOT_APPLYING, "–")] * lacks
    widths = [0.08 + 0.05 * max(len(text) for _, text in names) for names in ticks]
    # The names of the first axis are left of it, of the last one right: no line goes there.
    left = [0.0, *(column - width / 2 for column, width in enumerate(widths[1:-1], start=1)), len(choices)]
    right = [0.0, *(column + width / 2 for column, width in enumerate(widths[1:-1], start=1)), len(choices)]
    for column, names in enumerate(ticks):
        for edge in {left[column], right[column]}:
            axes.axvline(edge, color="0.75", linewidth=1)
        at, side = (-0.04, "right") if column == 0 else (column, "center")
        at, side = (column + 0.04, "left") if column == len(choices) else (at, side)
        for height, text in names:
            axes.text(at, height, text, fontsize=9, va="center", ha=side)
    colours = ScalarMappable(Normalize(*score.ends), "viridis_r")
    for candidate in scored:
        # Lines of equal choices would lie on each other.
        apart = 0.03 * (scored.index(candidate) / (len(scored) - 1) - 0.5) if len(scored) > 1 else 0.0
        path: list[tuple[float, float]] = []
        for column, (name, scale) in enumerate(zip(choices, scales, strict=True)):
            height = scale.place(candidate.choices[name]) if name in candidate.choices else NOT_APPLYING
            path += [(left[column], height + apart), (math.nan, math.nan), (right[column], height + apart)]
        path.append((len(choices), score.place(max(candidate.mean, floor))))
        best = candidate is search.best and len(scored) > 1
        style: dict[str, Any] = {"linewidth": 3.5, "zorder": 2.5} if best else {"linewidth": 1.4, "alpha": 0.8}
        colour = colours.to_rgba(np.array([candidate.mean]))[0]
        axes.plot(*zip(*path, strict=True), color=colour, gid="candidate", solid_capstyle="butt", **style)
    if len({candidate.mean for candidate in scored}) > 1:
        figure.colorbar(colours, ax=axes, label=_over_folds(search), pad=0.02)
    if not scored:
        axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xticks(range(len(choices) + 1), [*choice_words(choices).values(), f"mean {search.score}"])
    says = ["the thick line is the best"] * (len(scored) > 1) + ["–: does not apply"] * any(missing)
    says += ["the lowest score stands for all below it"] * (min((c.mean for c in scored), default=floor) < floor)
    axes.set_xlabel(_counted(search, "; ".join(says)), fontsize=9, color="0.4")
    lowest = NOT_APPLYING - 0.04 if any(missing) else -0.06
    axes.set(yticks=[], xlim=(-0.04 - widths[0], len(choices) + 0.04 + widths[-1]), ylim=(lowest, 1.06))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def slices(search: SearchResult, data: str) -> Figure:
    """The score against each searched choice: every candidate's mean and, small, its folds."""
    choices = search.choices
    rows = -(-len(choices) // 3)
    columns = -(-len(choices) // rows)
    figure = new_figure(f"Random search: {search.score} by choice", data, 0.9 + 2.9 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(choices) :]:
        axes.remove()
    scored = _scored(search)
    for axes, (name, words) in zip(panels.flat, choice_words(choices).items(), strict=False):
        having = [candidate for candidate in search.candidates if name in candidate.choices]
        scale = _Scale([candidate.choices[name] for candidate in having])
        for candidate in (candidate for candidate in scored if name in candidate.choices):
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
        ticks = [folded(text, LONGEST // 2) for _, text in scale.ticks]
        # Side by side the names of many values would lie on each other.
        upright = not scale.numbers and sum(min(len(text), LONGEST // 2) for text in ticks) > 2 * LONGEST
        axes.set_xticks([scale.value(value) for value, _ in scale.ticks], ticks, rotation=90 * upright)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.12)
        some = f"\n({len(having)} of {len(search.candidates)} candidates have one)"
        axes.set_xlabel(words + some * (len(having) < len(search.candidates)))
        axes.set_ylabel(search.score + _unit(search))
        _cut_off(axes, search)
        axes.tick_params(labelleft=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if not scored:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    kinds = [("o", 0, "mean over the folds")] * (len(scored) > 1)
    kinds += [("_", 0, "one fold"), ("D", 1, "best candidate")] * bool(scored)
    marks = [
        Line2D([], [], linestyle="", marker=marker, color=COLOURS[colour], label=label)
        for marker, colour, label in kinds
    ]
    if failures := _counted(search, ""):
        marks.append(Line2D([], [], linestyle="", label=failures))
    add_legend(figure, marks, below=True)
    return figure


def _spaced(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Of ticks between 0 and 1 those whose names do not lie on each other, the last one's among them."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if all(abs(tick[0] - other) > 0.05 for other, _ in kept):
            kept.append(tick)
    return kept[::-1]


class _Scale:
    """Where the values of one searched choice stand: numbers to scale, anything else in order, side by side."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if self.numbers:
            self.known = sorted(set(values))
        else:
            # Numbers among others, such as a batch size beside "full", in their order and first.
            self.known = sorted(
                set(values), key=lambda v: (*((0, v) if isinstance(v, int | float) else (1, 0)), str(v))
            )
        low, high = (self.known[0], self.known[-1]) if self.numbers else (0, len(self.known) - 1)
        # Magnitudes, and most values near the low end, as when they are drawn by magnitude.
        self.log = self.numbers and 0 < 10 * low <= high and 4 * statistics.median(self.known) <= low + high
        # A single value stands in the middle.
        self.ends = (float(low), float(high)) if low < high else (low - 0.5, low + 0.5)

    @property
    def ticks(self) -> list[tuple[Any, str]]:
        """Values to name and their texts: all, or of many numbers some between the ends."""
        if not self.numbers:
            return [(value, _shortened(choice_text(value))) for value in self.known]
        if len(self.known) <= 5:
            return [(value, significant(value, 4)) for value in self.known]
        low, high = self.ends
        powers = [10.0**power for power in range(math.floor(math.log10(low)), 10)] if self.log else []
        nice = [value for value in powers or MaxNLocator(5).tick_values(low, high) if low <= value <= high]
        return [(float(value), significant(value, 4)) for value in (nice if len(nice) > 1 else self.ends)]

    def value(self, value: Any) -> float:
        """The place of a value on a Matplotlib axis."""
        return float(value) if self.numbers else float(self.known.index(value))

    def place(self, value: Any) -> float:
        """The place of a value between the ends, which are 0 and 1."""
        at, low, high = self.value(value), *self.ends
        if self.log:
            at, low, high = math.log(at), math.log(low), math.log(high)
        return (at - low) / (high - low)


def _floor(search: SearchResult) -> float:
    """Below which a score would flatten the others: such as R², which has a best value and no worst."""
    means = [candidate.mean for candidate in _scored(search)]
    if not means or search.scoring == "accuracy":
        return -math.inf
    best, middle = max(means), statistics.median_high(means)
    return best - SPIKE * (best - middle) if middle < best else -math.inf


def _cut_off(axes: Axes, search: SearchResult) -> None:
    floor = _floor(search)
    if lower := [candidate for candidate in _scored(search) if min(candidate.scores) < floor]:
        best = max(max(candidate.scores) for candidate in _scored(search))
        axes.set_ylim(floor, best + 0.05 * (best - floor))
        says = f"cut off: {len(lower)} candidate{'s' * (len(lower) > 1)} reach{'es' * (len(lower) == 1)} below"
        axes.text(0.99, 0.02, says, transform=axes.transAxes, ha="right", color="0.4", fontsize=9)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 7]}…{text[-6:]}"


def _unit(search: SearchResult) -> str:
    return " (share of examples)" if search.scoring == "accuracy" else ""


def _over_folds(search: SearchResult) -> str:
    return f"mean {search.score} over the folds{_unit(search)}"


def _scored(search: SearchResult) -> list[Candidate]:
    return [candidate for candidate in search.candidates if math.isfinite(candidate.mean)]


def _counted(search: SearchResult, says: str) -> str:
    failed = len(search.candidates) - len(_scored(search))
    return "; ".join(filter(None, [says, f"{failed} of {len(search.candidates)} candidates failed" if failed else ""]))
