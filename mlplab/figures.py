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
    """Seconds of training of each variant, in all and an epoch; compiling and evaluation are named, not compared."""
    figure = _figure("training time by variant", data, 11, 1.6 + 0.55 * len(results))
    total, per_epoch = figure.subplots(1, 2, sharey=True)
    for row, result in enumerate(results):
        each = result.train_seconds / result.epochs if result.epochs else 0.0
        apart = f"\n  (and {result.compile_seconds:.1f} s compiling, {result.evaluate_seconds:.1f} s evaluation)"
        for axes, seconds, text in ((total, result.train_seconds, apart), (per_epoch, each, "")):
            axes.barh(row, seconds, color=_look(row)[0], height=0.6)
            axes.annotate(f"  {seconds:.3g} s{text}", (seconds, row), va="center", fontsize=8)
    total.set_yticks(range(len(results)), [_name(result) for result in results])
    total.invert_yaxis()
    total.set_xlabel("training time (s)")
    per_epoch.set_xlabel("training time per epoch (s)")
    for axes, room in ((total, 1.7), (per_epoch, 1.2)):
        axes.set_xlim(0, room * max([bar.get_width() for bar in axes.patches], default=1) or 1)
        axes.spines[["top", "right"]].set_visible(False)
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
