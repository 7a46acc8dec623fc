"""From results to figures. One style, one colour per variant in every figure, axes with units."""

import itertools
import math
import statistics
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from mlplab.results import (
    DIVERGED,
    FAILED,
    Candidate,
    Outcome,
    Predictions,
    Record,
    Result,
    SearchResult,
    Target,
    choice_text,
    outcomes,
    significant,
)
from mlplab.spec import DATASETS, SELECTION_METRICS, Comparison, Variant, experiment_names, load_experiment
from mlplab.statistics import (
    BETTER,
    EQUIVALENT,
    ONE_SEED,
    UNDECIDED,
    WORDS,
    Verdict,
    expected_best,
    mean_interval,
    shower,
)

# Petroff's ten colours, told apart with any colour vision (https://arxiv.org/abs/2107.02270).
COLOURS = (
    *("#3f90da", "#e76300", "#832db6", "#bd1f01", "#ffa90e"),
    *("#717581", "#a96b59", "#92dadd", "#94a4a2", "#b9ac70"),
)
DASHES = ("-", "--", "-.", ":")
METRICS = {"accuracy": "accuracy (share of images)", "loss": "loss (cross-entropy and penalty, nats)"}
UNITS = {"val_accuracy": "points", "val_loss": "nats", "gap": "points", "train_seconds": "times"}
"""Measure of a verdict -> unit of its differences."""
DECISIONS = {
    BETTER: ("#3f90da", "o", "#3f90da", "better"),
    EQUIVALENT: ("#717581", "s", "#717581", "practically equivalent"),
    UNDECIDED: ("#e76300", "D", "white", "undecided"),
    ONE_SEED: ("#717581", "o", "white", "one seed: no verdict"),
}
"""Decision of a verdict -> colour, marker, what fills the marker, and name."""
CROWD = len(COLOURS)
"""Of more variants than this, a figure of curves shows the means alone."""
RESAMPLES = 1_000
BAND_FROM = 5
"""Of fewer candidates no bootstrap tells how far another search might come."""
NOT_APPLYING = -0.14
"""Where a line crosses the axis of a field that does not apply to its candidate; the axis goes from 0 to 1."""
SPIKE = 10.0
"""A loss that grows to this many times what trainings start with would flatten the other curves: see `_fit`."""


def learning_curves(results: Result | Sequence[Result], data: str) -> Figure:
    """Accuracy and loss of one variant over its epochs: of one training, or the means over several seeds."""
    (outcome,) = outcomes([results] if isinstance(results, Result) else results)
    penalized = any("penalty" in result.history for result in outcome.results)
    labels = ("training", "validation", f"training, evaluated{' (loss without penalty)' if penalized else ''}")
    validated = any("val_loss" in result.history for result in outcome.results)
    figure = _figure(f"{_titled(outcome)}: learning curves", data, 10)
    lines = []
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        names = [metric, f"val_{metric}", f"train_eval_{metric}"]
        measured = [any(result.history.get(name) for result in outcome.results) for name in names]
        lines = [
            _curves(axes, outcome, name, label, COLOURS[place], DASHES[place])
            for place, (name, label) in enumerate(zip(names, labels, strict=True))
            if measured[place]
        ]
        if measured[2]:
            lines[-1].set(linewidth=1.2)
        # Without validation no epoch was chosen.
        best = [result.best_epoch for result in _sound(outcome) if result.best_epoch and validated]
        if best:
            middle = statistics.median(best)
            says = f"best epoch ({middle:g})" if len(best) == 1 else f"best epoch (median {middle:g})"
            lines.append(axes.axvline(middle, color="0.6", linewidth=1, linestyle=":", label=says))
        _finish(axes, metric, _every(outcome.results, names))
    if lines:
        says = _means([outcome], bands=True) if validated else "validation was not measured while it trained"
        _legend(figure, lines, below=True, title=says)
    return figure


def comparison_curves(metric: str, results: Sequence[Result], data: str) -> Figure:
    """One metric (`accuracy` or `loss`) of all variants over the epochs; training left, validation right."""
    variants = outcomes(results)
    rows = sum(1 + _name(outcome).count("\n") for outcome in variants)
    figure = _figure(f"{metric.capitalize()} by variant", data, 12, max(4.2, 1.2 + 0.2 * rows))
    every = _every(results, [metric, f"val_{metric}"])
    bands = len(variants) <= CROWD
    lines: list[Line2D] = []
    for axes, side in zip(figure.subplots(1, 2, sharey=True), ("training", "validation"), strict=True):
        name = metric if side == "training" else f"val_{metric}"
        lines = []
        for place, (outcome, look) in enumerate(zip(variants, looks([o.variant.name for o in variants]), strict=True)):
            line = _curves(axes, outcome, name, _name(outcome), *look, bands=bands)
            # Where curves coincide, the later ones leave an edge of the earlier to be seen.
            line.set_linewidth(1.5 + 2 * (len(variants) - 1 - place) / len(variants))
            lines.append(line)
        axes.set_title(side, fontsize=10)
        _finish(axes, metric, every)
    _explain(figure, _means(variants, bands=bands))
    _legend(figure, lines, below=False)
    return figure


def overview_times(records: Sequence[Record]) -> Figure:
    """`training_times` over several comparisons of one data set."""
    every = [(f"{record.experiment.name}: ", outcome) for record in records for outcome in record.outcomes]
    return _times(every, records[0].data)


def training_times(results: Sequence[Result], data: str) -> Figure:
    """Seconds of training of each variant, in all and an epoch; compiling and evaluation are named, not compared."""
    return _times([("", outcome) for outcome in outcomes(results)], data)


def _times(variants: Sequence[tuple[str, Outcome]], data: str) -> Figure:
    shown = looks([outcome.variant.name for _, outcome in variants])
    names = [_name(outcome, before) for before, outcome in variants]
    figure = _figure(
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
        _explain(figure, f"mean of {seeds} seeds{which}; black line: 95 % interval of the mean; dots: each seed")
    return figure


def differences(verdicts: Sequence[Verdict], data: str) -> Figure:
    """What the seeds say of pairs of variants in one measure: difference (of times: ratio) with its 95 % interval.

    Behind it stands the one after Holm's correction, which decides what is better; the verdicts' cautions are said.
    """
    what, unit = WORDS[verdicts[0].measure], UNITS[verdicts[0].measure]
    ratio, scale = unit == "times", 100 if unit == "points" else 1
    rows = [verdict for verdict in verdicts if math.isfinite(verdict.difference)]
    names = [_pair(verdict, "/" if ratio else "−") for verdict in rows]
    height = 2.2 + sum(max(0.35, 0.2 * (1 + name.count("\n"))) for name in names)
    figure = _figure(f"{'Ratios' if ratio else 'Differences'} of {what}", data, 11, height)
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
        show = shower(unit, verdict.low, verdict.high, verdict.low_corrected, verdict.high_corrected)
        texts = [
            "+" * (value > 0 and not ratio) + show(value) for value in (verdict.difference, verdict.low, verdict.high)
        ]
        says = texts[0]
        if math.isfinite(high - low):
            axes.plot([low, high], [row, row], color=colour, linewidth=3.5, solid_capstyle="butt")
            says += f" [{texts[1]}, {texts[2]}]"
        shown += [value for value in (place, low, high) if math.isfinite(value)]
        if verdict.verdicts > 1 and math.isfinite(wider[1]):
            axes.plot(wider, [row, row], color=colour, linewidth=1, zorder=1.5, solid_capstyle="butt")
            corrected += wider
        style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 7, "markeredgewidth": 1.6}
        axes.plot(place, row, marker, zorder=3, **style)
        says = f"{says}, {verdict.seeds} seed{'s' * (verdict.seeds != 1)}".replace("-", "−")
        says += f"\n({verdict.dropped} left out)" * (verdict.dropped > 0)
        says += "\n(all equal)" * math.isinf(verdict.high_corrected)
        axes.annotate(says, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    if ratio:
        axes.set_xscale("log")
    cut = _limit_x(axes, shown, corrected)
    if ratio:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        low, high = axes.get_xlim()
        nice = MaxNLocator(5, steps=[1, 2, 5, 10]) if high < 2 * low else LogLocator(subs=(1, 2, 5))
        axes.xaxis.set_major_locator(nice)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    favours = "right" if verdicts[0].measure == "val_accuracy" else "left"
    axes.set_xlabel(f"{what}, first {'/' if ratio else 'minus'} second ({unit}); {favours}: the first is better")
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
    cautions = dict.fromkeys(_folded(verdict.caution, 120) for verdict in rows if verdict.caution)
    _legend(figure, [*marks, band], below=True, title="\n".join(filter(None, ["; ".join(means), *cautions])))
    return figure


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


def _pair(verdict: Verdict, sign: str) -> str:
    apart = "\n" if len(verdict.a) + len(verdict.b) > 40 else " "
    return f"{_folded(f'{verdict.a} {sign}', 44)}{apart}{_folded(verdict.b, 44)}"


def reached(targets: Sequence[Target], data: str) -> Figure:
    """Share of all seeds of each variant that have reached a target, against how long they had been trained."""
    first = targets[0]
    sign = "≥" if SELECTION_METRICS[first.metric] == "max" else "≤"
    names = [_folded(target.variant, 26) for target in targets]
    seeds = max(len(target.after) for target in targets)
    height = max(4.2, 1.6 + 0.2 * sum(2 + name.count("\n") for name in names))
    figure = _figure(f"How soon {WORDS[first.metric]} {sign} {first.target:g} was reached", data, 12, height)
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
        says = f"{names[place]}\n{f'{target.count}, ' * (seeds > 1)}{half}{target.says}"
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
        axes.set_ylabel("share of all seeds that have reached it")
    else:
        axes.set_yticks([0, 1], ["not yet", "reached"])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, lines, below=False, title="seeds that reached it" * (seeds > 1))
    missing = any(math.isnan(after) for target in targets for after in target.after)
    tick = "; tick: a training ended without reaching it" * missing
    _explain(figure, f"{seeds} seed{'s' * (seeds > 1)}{tick}")
    return figure


def learning_rates(results: Sequence[Result], select: str, data: str) -> Figure | None:
    """The selection metric after the last epoch against the learning rate, for variants that differ in nothing else.

    Returns:
        None if no three variants differ in the learning rate alone.
    """
    every: dict[Variant, list[Outcome]] = {}
    for outcome in outcomes(results):
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
    figure = _figure("Sensitivity to the learning rate", data, 10, 4.8 + 1.2 * strip)
    heights = [4.0, strip] if lost else [4.0]
    axes, *below = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    lines = []
    shown: list[float] = []
    for row, (name, look, family) in enumerate(zip(names, looks(names), families.values(), strict=True)):
        rates = [outcome.variant.learning_rate for outcome in family]
        # What diverged has no final value; how many did is said below.
        final = [[math.nan if r.status == DIVERGED else r.last(select) for r in o.results] for o in family]
        seeds = list(itertools.zip_longest(*final, fillvalue=math.nan))
        mean, low, high = _mean_interval(seeds)
        style: dict[str, Any] = {"color": look[0], "linestyle": look[1], "marker": "o", "markersize": 5}
        lines += axes.plot(rates, mean, label=_folded(name, 32), linewidth=1.8, **style)
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
    if select == "val_loss" and shown and max(shown) > SPIKE * min(shown) > 0:
        axes.set_yscale("log")
    if shown:
        _limit(axes, shown)
    axes.set_ylabel(f"{WORDS[select]}\nafter the last epoch{'' if select == 'val_loss' else ' (share of images)'}")
    axes.grid(alpha=0.3)
    for panel in below:
        rows = ["diverged" if len(names) == 1 else f"{_folded(name, 32)} diverged" for name in names]
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
    _explain(figure, "; ".join(notes))
    _legend(figure, lines, below=False)
    return figure


def search_budget(search: SearchResult, data: str) -> Figure:
    """Best mean accuracy to expect of k of a random search's candidates, against k; failed ones are left out.

    A band of 95 % of bootstrap samples of k is drawn from `BAND_FROM` candidates on.
    """
    figure = _figure("Random search: accuracy by budget", data, 10)
    axes = figure.subplots()
    scores = np.array([candidate.mean for candidate in _scored(search)])
    if len(scores):
        many = np.arange(1, len(scores) + 1)
        marks: list[Artist] = []
        without = f"no band: a bootstrap needs {BAND_FROM} candidates with a score"
        if len(scores) > 1:
            style: dict[str, Any] = {"marker": "o" if len(scores) <= 50 else "", "markersize": 4, "linewidth": 1.8}
            style["label"] = "best to expect of so many of these candidates"
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
        _legend(figure, marks, below=True, title=without)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xlim(0.5, max(1, len(scores)) + 0.5)
    axes.set_xlabel(_counted(search, "candidates with a score"))
    axes.set_ylabel("mean accuracy over the folds (share of images)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def predictions(found: Predictions, data: str) -> Figure:
    """Images with what the model says and what they are; wrong answers in red, each with its probability."""
    columns = min(5, len(found.images))
    rows = -(-len(found.images) // columns)
    share = f"{found.test_accuracy:.2%} of the test images right"
    # Wide enough for the title.
    width = max(10.0, 2.0 * columns)
    figure = _figure(f"Predictions of the exported model ({share})", data, width, 0.8 + 2.2 * rows)
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
    """A random search as lines across one axis for each searched field and one for the accuracy they led to.

    A line stops at either side of an axis' names, so that it crosses none.
    """
    fields = search.fields
    figure = _figure("Random search: every candidate", data, max(8, 1.8 * len(fields) + 4), 4.8)
    axes = figure.subplots()
    scored = sorted(_scored(search), key=lambda candidate: candidate.mean)
    scales = [_Scale([c.choices[name] for c in search.candidates if name in c.choices]) for name in fields]
    accuracy = _Scale([candidate.mean for candidate in scored] or [0.0, 1.0])
    ticks = [_spaced([(scale.place(value), text) for value, text in scale.ticks]) for scale in (*scales, accuracy)]
    missing = [any(name not in candidate.choices for candidate in scored) for name in fields]
    for names, lacks in zip(ticks, missing, strict=False):
        names += [(NOT_APPLYING, "–")] * lacks
    widths = [0.08 + 0.045 * max(len(text) for _, text in names) for names in ticks]
    # The names of the first axis are left of it, of the last one right: no line goes there.
    left = [0.0, *(column - width / 2 for column, width in enumerate(widths[1:-1], start=1)), len(fields)]
    right = [0.0, *(column + width / 2 for column, width in enumerate(widths[1:-1], start=1)), len(fields)]
    for column, names in enumerate(ticks):
        for edge in {left[column], right[column]}:
            axes.axvline(edge, color="0.75", linewidth=1)
        at, side = (-0.04, "right") if column == 0 else (column, "center")
        at, side = (column + 0.04, "left") if column == len(fields) else (at, side)
        for height, text in names:
            axes.text(at, height, text, fontsize=9, va="center", ha=side)
    colours = ScalarMappable(Normalize(*accuracy.ends), "viridis_r")
    for candidate in scored:
        # Lines of equal choices would lie on each other.
        apart = 0.03 * (scored.index(candidate) / (len(scored) - 1) - 0.5) if len(scored) > 1 else 0.0
        path: list[tuple[float, float]] = []
        for column, (name, scale) in enumerate(zip(fields, scales, strict=True)):
            height = scale.place(candidate.choices[name]) if name in candidate.choices else NOT_APPLYING
            path += [(left[column], height + apart), (math.nan, math.nan), (right[column], height + apart)]
        path.append((len(fields), accuracy.place(candidate.mean)))
        best = candidate is search.best and len(scored) > 1
        style: dict[str, Any] = {"linewidth": 3.5, "zorder": 2.5} if best else {"linewidth": 1.4, "alpha": 0.8}
        colour = colours.to_rgba(np.array([candidate.mean]))[0]
        axes.plot(*zip(*path, strict=True), color=colour, gid="candidate", solid_capstyle="butt", **style)
    if len({candidate.mean for candidate in scored}) > 1:
        figure.colorbar(colours, ax=axes, label="mean accuracy over the folds (share of images)", pad=0.02)
    if not scored:
        axes.text(0.5, 0.5, "no candidate has a score", transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xticks(range(len(fields) + 1), [*(name.replace("_", " ") for name in fields), "mean accuracy"])
    says = ["the thick line is the best"] * (len(scored) > 1) + ["–: does not apply"] * any(missing)
    axes.set_xlabel(_counted(search, "; ".join(says)), fontsize=9, color="0.4")
    lowest = NOT_APPLYING - 0.04 if any(missing) else -0.06
    axes.set(yticks=[], xlim=(-0.04 - widths[0], len(fields) + 0.04 + widths[-1]), ylim=(lowest, 1.06))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _spaced(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Of ticks between 0 and 1 those whose names do not lie on each other, the last one's among them."""
    kept: list[tuple[float, str]] = []
    for tick in reversed(ticks):
        if all(abs(tick[0] - other) > 0.05 for other, _ in kept):
            kept.append(tick)
    return kept[::-1]


def search_slices(search: SearchResult, data: str) -> Figure:
    """Accuracy against each searched field: every candidate's mean and, small, its folds."""
    fields = search.fields
    rows = -(-len(fields) // 3)
    columns = -(-len(fields) // rows)
    figure = _figure("Random search: accuracy by choice", data, max(6, 4 * columns), 0.8 + 3.4 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(fields) :]:
        axes.remove()
    scored = _scored(search)
    for axes, name in zip(panels.flat, fields, strict=False):
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
        axes.set_xticks([scale.value(value) for value, _ in scale.ticks], [text for _, text in scale.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.12)
        some = f"\n({len(having)} of {len(search.candidates)} candidates have one)"
        axes.set_xlabel(name.replace("_", " ") + some * (len(having) < len(search.candidates)))
        axes.set_ylabel("accuracy (share of images)")
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
            return [(value, choice_text(value)) for value in self.known]
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


def _scored(search: SearchResult) -> list[Candidate]:
    return [candidate for candidate in search.candidates if math.isfinite(candidate.mean)]


def _counted(search: SearchResult, says: str) -> str:
    failed = len(search.candidates) - len(_scored(search))
    return "; ".join(filter(None, [says, f"{failed} of {len(search.candidates)} candidates failed" if failed else ""]))


def _figure(title: str, data: str, width: float, height: float = 4.2) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(_folded(f"{title} – {data}", 110), fontsize=12)
    return figure


def _curves(
    axes: Axes, outcome: Outcome, metric: str, label: str, colour: str, dash: str, bands: bool = True
) -> Line2D:
    """Draws a metric over the epochs: of one seed its curve; of several their mean, its interval, and each one."""
    curves = [result.history.get(metric, []) for result in outcome.results]
    lost = [result.status == DIVERGED for result in outcome.results]
    if len(curves) == 1:
        return _curve(axes, curves[0], label, colour, dash, lost[0])
    mean, low, high = _mean_interval([result.history.get(metric, []) for result in _sound(outcome)])
    if bands:
        axes.fill_between(range(1, len(mean) + 1), low, high, color=colour, alpha=0.18, linewidth=0, zorder=1.4)
        for values, diverged in zip(curves, lost, strict=True):
            _curve(axes, values, "", colour, dash, diverged).set(linewidth=0.8, alpha=0.45, zorder=1.5)
    return _curve(axes, mean.tolist(), label, colour, dash, all(lost))


def _sound(outcome: Outcome) -> Sequence[Result]:
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


def _mean_interval(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean over rows of finite values, and the ends of its 95 % interval, shape (3, the longest row's length)."""
    table = np.full((len(rows), max(map(len, rows))), math.nan)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return np.array(mean_interval(table))


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
    values = np.concatenate(curves)
    if metric == "loss" and any(spikes) and not all(spikes):
        _limit(axes, values[values <= limit], reach=0)
        says = f"cut off: values reach {significant(values.max(), 2)}"
        axes.text(0.99, 0.98, says, transform=axes.transAxes, ha="right", va="top", color="0.4", fontsize=8)
        return
    if metric == "loss" and any(spikes):
        axes.set_yscale("log")
    _limit(axes, values)
    if metric == "accuracy":
        # A band may leave 0 to 1, no share of images does.
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.05), min(high, 1.05))


def _limit(axes: Axes, values: Sequence[float] | np.ndarray, reach: float = 0.3) -> None:
    """Fits the vertical axis to `values`, and to bands beyond them by up to `reach` of their range."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(np.array([np.min(values), np.max(values)]))
    drawn = [panel.dataLim for panel in axes.get_shared_y_axes().get_siblings(axes)]
    ends = scale.transform(np.array([min(box.y0 for box in drawn), max(box.y1 for box in drawn)]))
    reach *= high - low
    low, high = max(low - reach, min(low, ends[0])), min(high + reach, max(high, ends[1]))
    room = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
    axes.set_ylim(*scale.inverted().transform(np.array([low - room, high + room])))


def _every(results: Sequence[Result], metrics: Sequence[str]) -> list[list[float]]:
    return [result.history.get(metric, []) for result in results for metric in metrics]


def _means(variants: Sequence[Outcome], *, bands: bool) -> str:
    """What curves over several seeds show; "" where there are none."""
    seeds = max(len(outcome.results) for outcome in variants)
    drawn = max(sum(result.epochs > 0 for result in _sound(outcome)) for outcome in variants)
    if seeds == 1 or not drawn:
        return ""
    diverged, failed = (
        any(0 < sum(r.status == status for r in o.results) < len(o.results) for o in variants)
        for status in (DIVERGED, FAILED)
    )
    uneven = any(len({result.epochs for result in _sound(o) if result.epochs}) > 1 for o in variants)
    held = ["did not diverge"] * diverged + ["did not fail"] * failed
    which = " and ".join(held + ["are still in training"] * uneven)
    if drawn == 1:
        return f"the one of {seeds} seeds that {which}"
    how = "; band: 95 % interval of the mean; thin lines: each seed" * bands
    return f"mean of {seeds} seeds{f', of those that {which}' * bool(which)}{how}"


def _explain(figure: Figure, text: str) -> None:
    """Says below the axes what is drawn."""
    if text:
        figure.supxlabel(text, fontsize=9, color="0.3")


def _legend(figure: Figure, marks: Sequence[Artist], *, below: bool, title: str = "") -> None:
    """Names the marks beside or below the axes, never over the curves."""
    names = [str(mark.get_label()) for mark in marks]
    style = {"fontsize": 9, "title_fontsize": 9, "frameon": False, "handlelength": 3, "title": title or None}
    if below:
        figure.legend(marks, names, loc="outside lower center", ncols=len(marks), **style)
    else:
        figure.legend(marks, names, loc="outside right upper", alignment="left", **style)


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
    # A comparison of many first: it is where colours must differ most. A crowd takes none from the others.
    comparisons.sort(key=lambda comparison: (len(comparison.variants) > CROWD, -len(comparison.variants)))
    places: dict[str, int] = {}
    for dataset in DATASETS:
        names = dict.fromkeys(name for c in comparisons if c.dataset == dataset for name in c.variants)
        places = {name: place for place, name in enumerate(names)} | places
    return places


def _titled(outcome: Outcome) -> str:
    return f"{outcome.variant.name} ({outcome.state})" if outcome.state else outcome.variant.name


def _name(outcome: Outcome, before: str = "") -> str:
    return _folded(before + _titled(outcome), 40 if before else 32)


def _differences(variants: Sequence[Variant]) -> list[str]:
    """What each variant has that another has not; the optimizer where there is but one."""
    choices = [variant.params() for variant in variants]
    differing = [field for field, value in choices[0].items() if any(other[field] != value for other in choices)]
    return [
        ", ".join(
            str(c[f]) if f == "optimizer" else f"{f.replace('_', ' ')} {c[f]}" for f in differing or ["optimizer"]
        )
        for c in choices
    ]


def _folded(text: str, width: int) -> str:
    """`text` in lines of `width`, for Matplotlib to show as it is: dollar signs would be formulas."""
    return "\n".join(textwrap.wrap(text, width) or [text]).replace("$", r"\$")
