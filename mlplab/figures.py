"""From results to figures. One style, one colour per variant in every figure, axes with units."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlplab.results import FINISHED, Result

# Okabe and Ito's eight colours, told apart with any colour vision (https://jfly.uni-koeln.de/color/); yellow and
# black last, since the one is faint on white and the other is the text's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLE = {"linewidth": 1.8}
METRICS = {"accuracy": "accuracy (share of images)", "loss": "loss (cross-entropy and penalty, nats)"}


def learning_curves(result: Result, data: str) -> Figure:
    """Accuracy and loss of one training over its epochs, on training and validation data."""
    figure = _figure(f"{result.variant.name}: learning curves", data, 10)
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        for colour, dash, label, name in (
            (COLOURS[0], "-", "training", metric),
            (COLOURS[1], "--", "validation", f"val_{metric}"),
        ):
            values = result.history.get(name, [])
            axes.plot(range(1, len(values) + 1), values, dash, color=colour, label=label, **STYLE)
        if result.best_epoch:
            axes.axvline(result.best_epoch, color="0.6", linewidth=1, linestyle=":")
            axes.annotate(
                f"best epoch {result.best_epoch}",
                (result.best_epoch, 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="center",
                color="0.4",
                fontsize=8,
            )
        _label_epochs(axes, METRICS[metric])
    return figure


def comparison_curves(metric: str, results: Sequence[Result], data: str) -> Figure:
    """One metric (`accuracy` or `loss`) of all variants over the epochs; training left, validation right."""
    figure = _figure(f"{metric} by variant", data, 11)
    sides = zip(figure.subplots(1, 2, sharey=True), (metric, f"val_{metric}"), ("training", "validation"), strict=True)
    for axes, name, side in sides:
        for index, result in enumerate(results):
            values = result.history.get(name, [])
            if values:
                colour, dash = _look(index)
                axes.plot(range(1, len(values) + 1), values, dash, color=colour, label=_name(result), **STYLE)
        axes.set_title(side, fontsize=10)
        _label_epochs(axes, METRICS[metric] if side == "training" else "")
    return figure


def training_times(results: Sequence[Result], data: str) -> Figure:
    """Seconds of training of each variant, compiling and evaluation apart, and seconds an epoch."""
    figure = _figure("training time by variant", data, 11, 1.6 + 0.5 * len(results))
    total, per_epoch = figure.subplots(1, 2, sharey=True)
    names = [_name(result) for result in results]
    left = [0.0] * len(results)
    parts = (
        ("training", [r.train_seconds for r in results], COLOURS[0], ""),
        ("evaluation", [r.evaluate_seconds for r in results], COLOURS[5], "//"),
        ("compiling", [r.compile_seconds for r in results], COLOURS[4], "xx"),
    )
    for label, seconds, colour, hatch in parts:
        total.barh(names, seconds, left=left, color=colour, hatch=hatch, edgecolor="white", label=label, height=0.6)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    for row, result in enumerate(results):
        total.annotate(f" {result.train_seconds:.1f} s training", (left[row], row), va="center", fontsize=8)
        each = result.train_seconds / result.epochs if result.epochs else 0.0
        per_epoch.barh(row, each, color=COLOURS[0], height=0.6)
        per_epoch.annotate(f" {each:.3g} s", (each, row), va="center", fontsize=8)
    total.margins(x=0.3)
    per_epoch.margins(x=0.2)
    total.set_xlabel("time (s)")
    per_epoch.set_xlabel("training time per epoch (s)")
    total.invert_yaxis()
    total.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3, frameon=False)
    return figure


def _figure(title: str, data: str, width: float, height: float = 4.2) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(f"{title[:1].upper()}{title[1:]} – {data}", fontsize=12)
    return figure


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def _name(result: Result) -> str:
    return result.variant.name if result.status == FINISHED else f"{result.variant.name} ({result.status})"


def _label_epochs(axes, ylabel: str) -> None:  # type: ignore[no-untyped-def]
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=9, frameon=False)
