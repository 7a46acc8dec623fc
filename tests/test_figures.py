"""What `mlplab.figures` promises, on results as trainings leave them: ordinary, short, diverged, failed and many."""

import io
import math
import struct
import warnings
from functools import cache

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mlplab import figures
from mlplab.results import DIVERGED, FAILED, Result
from mlplab.spec import Comparison, Variant, experiment_names, load_experiment

DATA = "digits (stand-in for MNIST)"
NAN, INF = math.nan, math.inf


def trained(name: str, epochs: int = 20, speed: float = 0.4, **changes: object) -> Result:
    """A result as an ordinary training leaves it: noisy curves that flatten, validation a little worse."""
    rng = np.random.default_rng(len(name) + int(100 * speed))
    epoch = np.arange(1, epochs + 1)
    loss = 2.2 * np.exp(-speed * epoch) + 0.05 + rng.uniform(0, 0.02, epochs)
    history = {
        "loss": loss,
        "accuracy": 1 - loss / 4,
        "val_loss": loss + 0.1 + 0.004 * epoch,
        "val_accuracy": 0.97 - loss / 4,
        "train_seconds": 0.31 * (1 + speed) * epoch,
    }
    fields = {"best_epoch": max(1, epochs - 5), "compile_seconds": 1.93, "evaluate_seconds": 0.2} | changes
    return Result(variant=Variant(name=name), history={k: v.tolist() for k, v in history.items()}, **fields)  # type: ignore[arg-type]


def diverged(name: str) -> Result:
    """A result whose loss grows out of all bounds and then stops being a number."""
    history = {
        "loss": [2.6, 41.0, 3e7, 2e30, INF, NAN],
        "val_loss": [2.9, 90.0, 8e8, 5e30, NAN, NAN],
        "accuracy": [0.2, 0.12, 0.1, 0.1, 0.1, 0.1],
        "val_accuracy": [0.18, 0.11, 0.1, 0.1, 0.1, 0.1],
        "train_seconds": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    }
    return Result(variant=Variant(name=name), status=DIVERGED, history=history, best_epoch=1, compile_seconds=2.0)


def failed(name: str) -> Result:
    """A result of a training that raised before its first epoch was over."""
    return Result(variant=Variant(name=name), status=FAILED, error="MemoryError")


NAMES = ("SGD", "Adam", "RMSprop")
LONG = "two hidden layers of 128 and 64 units with dropout 0.25 and batch normalization, rate $lr$ = {} "
CASES: dict[str, list[Result]] = {
    "normal": [trained(name, speed=0.2 * index + 0.1) for index, name in enumerate(NAMES)],
    "one_epoch": [trained(name, epochs=1, speed=0.2 * index + 0.1) for index, name in enumerate(NAMES)],
    "diverged": [trained("rate 0.01"), trained("rate 0.1", speed=0.7), diverged("rate 10")],
    "all_diverged": [diverged("rate 10"), diverged("rate 100")],
    "failed": [trained("SGD"), failed("huge")],
    "all_failed": [failed("SGD"), failed("Adam")],
    "twelve": [trained(f"width {2**index}", speed=0.03 * index + 0.08) for index in range(12)],
    "long_names": [trained(f"{LONG.format(rate):_<100}", speed=rate) for rate in (0.1, 0.3, 0.5)],
    "odd_names": [trained(name) for name in ("_hidden", "a $x^ b $", "[relu]", "x" * 100)],
}
SINGLE = {
    "single": CASES["normal"][1],
    "single_epoch": CASES["one_epoch"][1],
    "single_diverged": CASES["diverged"][2],
    "single_failed": CASES["failed"][1],
    "single_long": CASES["long_names"][0],
    "single_odd": CASES["odd_names"][1],
}


def drawn() -> dict[str, Figure]:
    """Every figure of every case, by a name for its file."""
    made = {name: figures.learning_curves(result, DATA) for name, result in SINGLE.items()}
    for name, results in CASES.items():
        for metric in figures.METRICS:
            made[f"{name}_{metric}"] = figures.comparison_curves(metric, results, DATA)
        made[f"{name}_time"] = figures.training_times(results, DATA)
    return made


PICTURES = drawn()


@cache
def png(name: str) -> bytes:
    """The picture's file; drawing it raises what would be a warning, and lays it out."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PICTURES[name].savefig(file)
    return file.getvalue()


@pytest.mark.parametrize("name", PICTURES)
def test_a_figure_becomes_a_png_of_readable_size_without_a_warning(name: str) -> None:
    """Whatever the trainings left, the figure is drawn, warns of nothing, and is 1,000 to 1,400 pixels wide."""
    content = png(name)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert 1_000 <= width <= 1_400
    assert 200 <= height <= 1_200


@pytest.mark.parametrize("name", PICTURES)
def test_a_figure_names_the_data_and_labels_its_axes(name: str) -> None:
    """No number is shown without the data set it was measured on and what it measures, with its unit."""
    figure = PICTURES[name]
    assert DATA in figure.get_suptitle().replace("\n", " ")
    for axes in figure.axes:
        horizontal, vertical = axes.get_xlabel(), axes.get_ylabel()
        if name.endswith("_time"):
            assert horizontal in ("training time (s)", "training time per epoch (s)")
        else:
            assert horizontal == "epoch"
            assert vertical in figures.METRICS.values()


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_clipped_and_no_text_lies_on_another(name: str) -> None:
    """Every text is inside the picture, and the title, names and legend do not overlap each other or the curves."""
    figure = PICTURES[name]
    png(name)
    inside = figure.bbox
    texts = [figure._suptitle, *figure.legends]  # type: ignore[attr-defined]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts]
        texts += [*axes.get_yticklabels()] if name.endswith("_time") else []
    boxes = [text.get_window_extent() for text in texts if not hasattr(text, "get_text") or text.get_text()]
    for index, box in enumerate(boxes):
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1, texts[index]
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1, texts[index]
        assert not any(box.overlaps(other) for other in boxes[index + 1 :]), texts[index]
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize("case", CASES)
def test_a_variant_has_one_colour_in_every_figure(case: str) -> None:
    """Accuracy, loss and time figures give a variant the same colour, even where a sibling has no curve."""
    results = CASES[case]
    bars = [to_hex(bar.get_facecolor()) for bar in PICTURES[f"{case}_time"].axes[0].patches]
    assert len(bars) == len(results)
    assert set(bars) <= set(figures.COLOURS)
    for metric in figures.METRICS:
        for axes in PICTURES[f"{case}_{metric}"].axes:
            assert [line.get_color() for line in axes.lines] == bars


def test_a_variant_of_the_projects_experiments_has_its_colour_wherever_it_is_shown() -> None:
    """A name has the same look beside any siblings, and the names of one comparison differ in theirs."""
    looks: dict[str, tuple[str, str]] = {}
    for name in experiment_names():
        experiment = load_experiment(name)
        if isinstance(experiment, Comparison):
            names = list(experiment.variants)
            mine = dict(zip(names, figures.looks(names), strict=True))
            assert len(set(mine.values())) == len(names)
            for variant, look in mine.items():
                assert looks.setdefault(variant, look) == look
    assert figures.looks(["a stranger", "Adam"])[1] == looks["Adam"]
    assert figures.looks(["a stranger", "Adam"])[0] != looks["Adam"]


def test_the_legend_names_every_variant_with_its_line() -> None:
    """Twelve variants are told apart by twelve pairs of colour and dash, each with its name in the legend."""
    (legend,) = PICTURES["twelve_loss"].legends
    assert [text.get_text() for text in legend.texts] == [f"width {2**index}" for index in range(12)]
    looks = {(line.get_color(), line.get_linestyle()) for line in PICTURES["twelve_loss"].axes[0].lines}
    assert len(looks) == 12


def test_a_variants_name_is_shown_as_it_is() -> None:
    """A name that begins with an underscore, or has dollar signs, is neither left out nor read as a formula."""
    (legend,) = PICTURES["odd_names_loss"].legends
    shown = [text.get_text().replace("\n", "") for text in legend.texts]
    assert shown == ["_hidden", r"a \$x^ b \$", "[relu]", "x" * 100]


def test_a_diverged_variant_does_not_flatten_the_others() -> None:
    """A loss that reaches 5e30 is cut off, said so, and the finite curves fill at least a third of the axes' height."""
    figure = PICTURES["diverged_loss"]
    for axes in figure.axes:
        low, high = axes.get_ylim()
        good = np.concatenate([line.get_ydata() for line in axes.lines[:2]])
        assert low < good.min()
        assert good.max() < high
        assert np.ptp(good) > (high - low) / 3
        assert [text.get_text() for text in axes.texts] == ["cut off: values reach 5e+30"]


def test_a_loss_without_a_spike_is_shown_whole() -> None:
    """An ordinary comparison has linear axes that hold every value, one stuck at chance included."""
    stuck = trained("stuck")
    stuck.history |= {"loss": [2.31] * 20, "val_loss": [2.32] * 20}
    for axes in figures.comparison_curves("loss", [trained("good", speed=1.9), stuck], DATA).axes:
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[1] > 2.32
        assert not axes.texts


def test_where_every_training_diverges_the_loss_is_logarithmic() -> None:
    """The curves of a training that diverged can be followed to the end."""
    for name in ("single_diverged", "all_diverged_loss"):
        axes = PICTURES[name].axes[-1]
        assert axes.get_yscale() == "log"
        assert axes.get_ylim()[1] > 5e30


def test_an_epoch_tick_is_a_whole_number() -> None:
    """Even for one epoch, no tick names a fraction of an epoch, and the one value is a visible point."""
    for name in ("single", "single_epoch", "normal_loss", "one_epoch_loss"):
        for axes in PICTURES[name].axes:
            left, right = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
            assert ticks
            assert all(tick == round(tick) for tick in ticks)
    assert all(line.get_marker() == "o" for line in PICTURES["one_epoch_loss"].axes[0].lines)


def test_the_learning_curves_mark_the_best_epoch() -> None:
    """A vertical line stands at the epoch whose weights were kept, and the legend says which one it is."""
    figure = PICTURES["single"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["training", "validation", "best epoch (15)"]
    for axes in figure.axes:
        assert list(axes.lines[-1].get_xdata()) == [15, 15]


def test_the_time_figure_keeps_compiling_apart() -> None:
    """The bars are as long as the training alone took, in all and an epoch; compiling is only named beside them."""
    results = CASES["normal"]
    total, per_epoch = PICTURES["normal_time"].axes
    assert [bar.get_width() for bar in total.patches] == [result.train_seconds for result in results]
    assert [bar.get_width() for bar in per_epoch.patches] == [result.train_seconds / 20 for result in results]
    assert all("1.9 s compiling" in text.get_text() for text in total.texts)
    assert [text.get_text().strip() for text in PICTURES["failed_time"].axes[0].texts][-1] == "no epoch was completed"
