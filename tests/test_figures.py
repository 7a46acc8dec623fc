"""What `mlplab.figures` promises, on results as trainings leave them: ordinary, short, diverged, failed and many."""

import io
import itertools
import math
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mlplab import drawing, figures, search_figures, tables, verdict_figures
from mlplab.amounts import significant
from mlplab.calls import call
from mlplab.comparison import Comparison
from mlplab.records import Candidate, Record, SearchResult
from mlplab.results import DIVERGED, FAILED, Result, Target
from mlplab.space import Search
from mlplab.spec import Metric, Training
from mlplab.statistics import expected_best, mean_interval
from mlplab.verdicts import BETTER, EQUIVALENT, ONE_SEED, UNDECIDED, Measure, Verdict, judge

DATA = "digits (stand-in for MNIST)"
NAN, INF = math.nan, math.inf
METRICS = {"accuracy": "accuracy (share of examples)", "loss": "loss (cross-entropy, nats)"}


def training(name: str = "", **changes: object) -> Training:
    """An MLP that classifies."""
    fields = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "optimizer": "sgd", **changes}
    return Training(model="mlp", name=name, **fields)  # type: ignore[arg-type]


def trained(name: str | Training, epochs: int = 20, speed: float = 0.4, seed: int = 0, **changes: object) -> Result:
    """A result as an ordinary training leaves it: noisy curves that flatten, validation a little worse."""
    variant = name if isinstance(name, Training) else training(name)
    rng = np.random.default_rng(len(variant.name) + int(100 * speed) + 1_000 * seed)
    epoch = np.arange(1, epochs + 1)
    loss = 2.2 * np.exp(-speed * epoch) + 0.05 + rng.uniform(0, 0.02, epochs)
    history = {
        "loss": loss,
        "accuracy": 1 - loss / 4,
        "val_loss": loss + 0.1 + 0.004 * epoch,
        "val_accuracy": 0.97 - loss / 4,
        "train_eval_accuracy": 1 - loss / 5,
        "train_eval_loss": 0.9 * loss,
        "train_seconds": (0.31 + 0.01 * seed) * (1 + speed) * epoch,
    }
    fields = {"best_epoch": max(1, epochs - 5), "compile_seconds": 1.93, "evaluate_seconds": 0.2} | changes
    values = {k: v.tolist() for k, v in history.items()}
    return Result(variant=variant, seed=seed, history=values, **fields)  # type: ignore[arg-type]


def diverged(name: str | Training, seed: int = 0) -> Result:
    """A result whose loss grows out of all bounds and then stops being a number."""
    history = {
        "loss": [2.6, 41.0, 3e7, 2e30, INF, NAN],
        "val_loss": [2.9, 90.0, 8e8, 5e30, NAN, NAN],
        "accuracy": [0.2, 0.12, 0.1, 0.1, 0.1, 0.1],
        "val_accuracy": [0.18, 0.11, 0.1, 0.1, 0.1, 0.1],
        "train_seconds": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
    }
    variant = name if isinstance(name, Training) else training(name)
    fields = {"status": DIVERGED, "history": history, "best_epoch": 1, "compile_seconds": 2.0}
    return Result(variant=variant, seed=seed, **fields)  # type: ignore[arg-type]


def failed(name: str, seed: int = 0) -> Result:
    """A result of a training that raised before its first epoch was over."""
    return Result(variant=training(name), seed=seed, status=FAILED, error="MemoryError")


def several(seeds: int, names: tuple[str, ...] = ("SGD", "Adam", "RMSprop")) -> list[Result]:
    """Ordinary results of variants, each with several seeds."""
    return [trained(name, speed=0.2 * i + 0.1, seed=seed) for i, name in enumerate(names) for seed in range(seeds)]


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
SEEDS: dict[str, list[Result]] = {
    "two_seeds": several(2),
    "ten_seeds": several(10),
    "seeds_of_one_epoch": [trained("Adam", epochs=1, seed=seed) for seed in range(3)],
    "seeds_stopped_early": [*(trained("Adam", epochs=8 + 4 * seed, seed=seed) for seed in range(3)), *several(3)[:3]],
    "seeds_diverged": [
        *(trained("SGD", seed=seed) for seed in range(3)),
        *(diverged("rate 1", seed=0), trained("rate 1", seed=1), trained("rate 1", speed=0.7, seed=2)),
        *(diverged("rate 10", seed=seed) for seed in range(3)),
        *(failed("huge", seed=0), trained("huge", seed=1), trained("huge", seed=2)),
    ],
    "seeds_of_a_crowd": several(2, tuple(f"width {2**index}" for index in range(11))),
}
SINGLE = {
    "single": CASES["normal"][1],
    "single_epoch": CASES["one_epoch"][1],
    "single_diverged": CASES["diverged"][2],
    "single_failed": CASES["failed"][1],
    "single_long": CASES["long_names"][0],
    "single_odd": CASES["odd_names"][1],
}
OF_ONE = {
    "of_one_ten": SEEDS["ten_seeds"][10:20],
    "of_one_stopped_early": SEEDS["seeds_stopped_early"][:3],
    "of_one_some_diverged": SEEDS["seeds_diverged"][3:6],
}


def verdict(a: str, b: str, difference: float, half: float, decision: str, **changes: object) -> Verdict:
    """A verdict as `judge` gives it, its corrected interval half as wide again."""
    values = {"a": [0.2, 0.3], "b": [0.1, 0.15]}
    measure = Measure(
        name="val_accuracy", words="validation accuracy", values=values, maximizes=True, margin=0.002, unit="points"
    )
    (made,) = judge([measure], "b")
    ends = {"low": difference - half, "high": difference + half}
    ends |= {"low_corrected": difference - 1.5 * half, "high_corrected": difference + 1.5 * half}
    changes = {"seeds": 10, "verdicts": 9, **ends, **changes}
    return replace(made, a=a, b=b, difference=difference, decision=decision, **changes)  # type: ignore[arg-type]


POINTS = [
    verdict("Adam", "SGD", 0.0123, 0.002, BETTER),
    verdict("RMSprop", "SGD", 0.0005, 0.001, EQUIVALENT, seeds=9, dropped=1),
    verdict("Adam", "RMSprop", 0.003, 0.004, UNDECIDED),
    verdict("AdamW", "SGD", 0.004, NAN, ONE_SEED, seeds=1),
    verdict("huge", "SGD", NAN, NAN, UNDECIDED, seeds=0),
]
CAUTION = "the machine was busy with something else during 15 of 15 trainings, so times may be too long"
OF_TIMES: dict[str, object] = {"measure": "train_seconds", "words": "training time", "unit": "times", "margin": 0.05}
TIMES = [
    verdict("Adam", "SGD", 0.52, 0.1, BETTER, **OF_TIMES, caution=CAUTION),
    verdict("RMSprop", "SGD", 0.99, 0.02, EQUIVALENT, **OF_TIMES, caution=CAUTION),
]
OF_ERRORS: dict[str, object] = {"measure": "val_mae", "words": "validation mae", "unit": "mm", "margin": 0.5}
ERRORS = [
    verdict("Adam", "SGD", -3.2, 0.6, BETTER, **OF_ERRORS),
    verdict("RMSprop", "SGD", -0.1, 0.3, EQUIVALENT, **OF_ERRORS),
]
TARGETS = [
    Target("SGD", "val_accuracy", 0.97, True, "seconds", (NAN, NAN, NAN, 2.0), (5.0, 6.0, 5.5, 5.2), NAN),
    Target("Adam", "val_accuracy", 0.97, True, "seconds", (1.0, 1.2, 1.2, 3.0), (5.0,) * 4, 1.2),
    Target("none", "val_accuracy", 0.97, True, "seconds", (NAN,) * 4, (5.0, 5.1, 0.0, 5.3), NAN),
    Target(LONG.format(1), "val_accuracy", 0.97, True, "seconds", (4.0, NAN, 3.0, NAN), (5.0, 5.0, 5.0, 1.0), 4.0),
]
ONE_TARGETS = [replace(target, after=target.after[3:], trained=target.trained[3:]) for target in TARGETS[1:3]]
RATES = (1e-3, 1e-2, 1e-1, 1.0)


def at_rates(optimizers: tuple[str, ...] = ("sgd", "adam"), seeds: int = 3) -> list[Result]:
    """Optimizers at several learning rates; of Adam's highest no seed holds, and of its second but one."""
    found = []
    for optimizer in optimizers:
        for rate in RATES:
            variant = training(f"{optimizer}, {rate:g}", optimizer=optimizer, learning_rate=rate)
            for seed in range(seeds):
                lost = optimizer == "adam" and (rate == 1.0 or (rate == 0.1 and seed))
                made = diverged(variant, seed) if lost else trained(variant, speed=0.3 + rate / 3, seed=seed)
                found.append(made)
    return found


def searched(candidates: int, failures: int = 0) -> SearchResult:
    """A search of so many candidates, the first of which failed."""
    rng = np.random.default_rng(0)
    found = [
        Candidate(choices={"model.dropout": 0.2}, scores=rng.uniform(0.3, 0.5, 3).tolist()) for _ in range(candidates)
    ]
    for candidate in found[:failures]:
        candidate.scores = [NAN] * 3
    return SearchResult(candidates=found, refit=CASES["normal"][0], scoring="accuracy")


SCHEDULE = call(
    "keras.optimizers.schedules.InverseTimeDecay", initial_learning_rate=0.1, decay_steps=1, decay_rate=0.01
)


def searched_by_r2() -> SearchResult:
    """A search over calls and numbers by R², of which one candidate is far below all others."""
    rng = np.random.default_rng(3)
    optimizers = (call("keras.optimizers.Adam"), call("keras.optimizers.SGD", momentum=0.9))
    found = []
    for place in range(12):
        rate = SCHEDULE if place % 3 == 0 else float(10 ** rng.uniform(-3, -1))
        choices = {"optimizer": optimizers[place % 2], "learning_rate": rate, "model.hidden": (64, 32)[: 1 + place % 2]}
        choices |= {"optimizer.momentum": 0.9} if place % 2 else {}
        scores = [-4e6, -2e3, -1e4] if place == 5 else rng.uniform(0.3, 0.5, 3).tolist()
        found.append(Candidate(choices=choices, scores=scores))
    return SearchResult(candidates=found, refit=REGRESSION[0], scoring="r2")


def regressed(name: str, speed: float = 0.4, lost: bool = False) -> Result:
    """A result of a regression: an R² that begins far below 0, errors in thousands, and one that gets lost."""
    variant = training(name, loss="mse", metrics=["r2_score", "mae"])
    epoch = np.arange(1, 21)
    r2 = 0.5 - 3 * np.exp(-speed * epoch)
    r2[10:] -= lost * np.geomspace(1e2, 1e9, 10)
    history = {"loss": 3000 * (1 - r2), "r2_score": r2, "mae": 40 * (1 - r2)}
    history |= {f"{of}_{name}": values * 0.98 for name, values in history.items() for of in ("val", "train_eval")}
    history["train_seconds"] = 0.3 * epoch
    return Result(variant=variant, history={k: v.tolist() for k, v in history.items()}, best_epoch=9)


REGRESSION = [regressed("SGD"), regressed("Adam", 0.7), regressed("Lion", 0.5, lost=True)]
MM = Metric("val_mae", unit="mm")


def rates(results: list[Result], select: str = "val_accuracy") -> Figure:
    """The figure of learning rates, which has to be there."""
    figure = figures.learning_rates(results, select, DATA)
    assert figure is not None
    return figure


def pictures() -> dict[str, Callable[[], Figure]]:
    """What draws every figure of every case, by a name for its file."""
    made: dict[str, Callable[[], Figure]] = {
        name: partial(figures.learning_curves, result, DATA) for name, result in (SINGLE | OF_ONE).items()
    }
    for name, results in (CASES | SEEDS).items():
        for metric in METRICS:
            made[f"{name}_{metric}"] = partial(figures.comparison_curves, metric, results, DATA)
        made[f"{name}_time"] = partial(figures.training_times, results, DATA)
    return made


OTHERS: dict[str, Callable[[], Figure]] = {
    "differences": lambda: verdict_figures.differences(POINTS, DATA),
    "differences_none": lambda: verdict_figures.differences(POINTS[-1:], DATA),
    "differences_long": lambda: verdict_figures.differences(
        [replace(POINTS[0], a=LONG.format(1), b=LONG.format(2))] * 3, DATA
    ),
    "differences_times": lambda: verdict_figures.differences(TIMES, DATA),
    "differences_mm": lambda: verdict_figures.differences(ERRORS, DATA),
    "differences_near": lambda: verdict_figures.differences(TIMES[1:], DATA),
    "reached": lambda: verdict_figures.reached(TARGETS, DATA),
    "reached_one_seed": lambda: verdict_figures.reached(ONE_TARGETS, DATA),
    "rates": lambda: rates(at_rates()),
    "rates_one_seed": lambda: rates(at_rates(seeds=1)),
    "rates_sgd": lambda: rates(at_rates(("sgd",)), "val_loss"),
    "regression_r2": lambda: figures.comparison_curves("val_r2_score", REGRESSION, DATA),
    "regression_mae": lambda: figures.comparison_curves(MM, REGRESSION, DATA),
    "regression_loss": lambda: figures.comparison_curves("loss", REGRESSION, DATA),
    "regression_single": lambda: figures.learning_curves(REGRESSION[1], DATA),
    "budget_r2": lambda: search_figures.budget(searched_by_r2(), DATA),
    "parallel_r2": lambda: search_figures.parallel(searched_by_r2(), DATA),
    "budget": lambda: search_figures.budget(searched(9, 2), DATA),
    "budget_one": lambda: search_figures.budget(searched(1), DATA),
    "budget_few": lambda: search_figures.budget(searched(3), DATA),
    "budget_none": lambda: search_figures.budget(searched(2, 2), DATA),
}
PICTURES = pictures() | OTHERS
CROWDS = [f"{case}_{metric}" for case in ("twelve", "seeds_of_a_crowd") for metric in METRICS]
"""Those with a panel for each variant."""
# Accuracy is laid out as the loss is, whose label is longer; times by the names and the number of the variants.
ALIKE = [f"{name}_accuracy" for name in (CASES | SEEDS) if name != "ten_seeds"]
ALIKE += [f"{name}_time" for name in ("one_epoch", "diverged", "all_diverged", *SEEDS) if name != "seeds_diverged"]
LAID_OUT = [name for name in PICTURES if name not in ALIKE]
SAVED = ["single", "normal_loss", "normal_time", "differences", "reached", "rates", "budget"]
"""One of each kind; and those with values so large that drawing them could fail."""
SAVED += [name for name in LAID_OUT if "diverged" in name and not name.endswith("_time")]


@cache
def picture(name: str) -> Figure:
    """The figure, drawn when a test first needs it."""
    return PICTURES[name]()


@cache
def laid_out(name: str) -> Figure:
    """The figure with every text in its place; what would be a warning is raised. Some become files, as all could."""
    figure = picture(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if name not in SAVED:
            figure.draw_without_rendering()
            return figure
        drawing.save(figure, file := io.BytesIO())
    content = file.getvalue()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24]) == tuple(figure.bbox.size.astype(int))
    return figure


def named(figure: Figure) -> list[str]:
    """What the names at the lines' ends say, or else the legend."""
    ends = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == "name"]
    return ends or [text.get_text() for text in figure.legends[0].texts]


def notes(axes: Axes) -> list[str]:
    """What stands in or beside axes, but for the names of lines."""
    return [text.get_text() for text in axes.texts if text.get_gid() != "name"]


def extent(drawn: object) -> Bbox:
    """Where something is; of a name without the line that leads to it."""
    return Text.get_window_extent(drawn) if isinstance(drawn, Text) else drawn.get_window_extent()  # type: ignore


def band(axes: Axes, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of a band where it is drawn, by place among the axes' bands."""
    corners = axes.collections[place].get_paths()[0].vertices
    at = np.unique(corners[:, 0])
    edges = [corners[corners[:, 0] == x, 1] for x in at]
    return np.array([edge.min() for edge in edges]), np.array([edge.max() for edge in edges])


@pytest.mark.parametrize("name", LAID_OUT)
def test_a_figure_can_be_read(name: str) -> None:
    """Whatever the trainings left, it is drawn, warns of nothing, and is, as its PNG is, 1,000 to 1,400 pixels wide.

    No number is shown without the data set it was measured on and what it measures, with its unit. Every text is inside
    the picture, and the title, names and legend do not overlap each other or the curves.
    """
    figure = laid_out(name)
    width, height = figure.bbox.size
    assert 1_000 <= width <= 1_400
    assert 200 <= height <= 1_200
    assert DATA in figure.get_suptitle().replace("\n", " ")
    for axes in figure.axes:
        horizontal, vertical = axes.get_xlabel(), axes.get_ylabel()
        if name in OTHERS:
            assert horizontal or vertical
        elif name.endswith("_time"):
            assert horizontal == "training time (s)"
        elif name in CROWDS:
            assert figure.get_supylabel() in METRICS.values()
            assert axes.get_title().startswith("width")
        else:
            assert horizontal == "epoch"
            assert vertical in METRICS.values()
    inside = figure.bbox
    texts = [figure._suptitle, *filter(None, [figure._supxlabel]), *figure.legends]  # type: ignore[attr-defined]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts]
        texts += [*axes.get_yticklabels()] if name.endswith("_time") or name.startswith("differences") else []
    boxes = [extent(text) for text in texts if not hasattr(text, "get_text") or text.get_text()]
    for index, box in enumerate(boxes):
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1, texts[index]
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1, texts[index]
        assert not any(box.overlaps(other) for other in boxes[index + 1 :]), texts[index]
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize("case", CASES)
def test_a_variant_has_one_colour_in_every_figure(case: str) -> None:
    """Accuracy, loss and time figures give a variant the same colour, even where a sibling has no curve.

    One seed is one line, without a band.
    """
    results = CASES[case]
    bars = [to_hex(bar.get_facecolor()) for bar in picture(f"{case}_time").axes[0].patches]
    assert len(bars) == len(results)
    assert set(bars) <= set(drawing.COLOURS)
    for metric in METRICS:
        panels = picture(f"{case}_{metric}").axes
        if f"{case}_{metric}" in CROWDS:  # its own two lines, before those of the others
            assert [{line.get_color() for line in axes.lines[-2:]} for axes in panels] == [{colour} for colour in bars]
        for axes in panels:
            assert f"{case}_{metric}" in CROWDS or [line.get_color() for line in axes.lines] == bars
            assert not axes.collections
        assert picture(f"{case}_{metric}").get_supxlabel() == ""


def test_a_variant_has_the_colour_of_its_place_in_its_comparison() -> None:
    """Whatever the names: the first has the first colour; after the last one they begin anew with another dash."""
    names = [f"variant {place}" for place in range(25)]
    looks = drawing.looks(names)
    assert [colour for colour, _ in looks] == [drawing.COLOURS[place % 8] for place in range(25)]
    assert len(set(looks)) == 25
    assert drawing.looks(["b", "a", "b"]) == [looks[0], looks[1], looks[0]]


@pytest.mark.parametrize("page", ["#ffffff", "#0f1115"], ids=["white", "dark"])
def test_a_colour_can_be_seen_on_any_page(page: str) -> None:
    """Each has a contrast of at least 3 to a white page and to a dark one, as WCAG asks of what is drawn."""

    def luminance(colour: str) -> float:
        shares = np.array(to_rgb(colour))
        return float(np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ SEEN)

    for colour in drawing.COLOURS:
        lighter, darker = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 3, colour


SEEN = np.array([0.2126, 0.7152, 0.0722])
"""How much red, green and blue count in what is seen as light."""


def test_a_figure_is_opaque() -> None:
    """In a dark viewer its black letters stand on white."""
    assert picture("normal_loss").get_facecolor() == (1, 1, 1, 1)


def test_a_line_has_its_name_at_its_end() -> None:
    """In its colour and in the order of the lines' ends, and there is no legend then."""
    figure = picture("normal_loss")
    assert not figure.legends
    axes = figure.axes[1]
    labels = {text.get_text(): text for text in axes.texts}
    assert {name: label.get_color() for name, label in labels.items()} == {
        line.get_label(): line.get_color() for line in axes.lines
    }
    ends = {line.get_label(): line.get_ydata()[-1] for line in axes.lines}
    placed = {name: label.xyann[1] for name, label in labels.items()}
    assert sorted(NAMES, key=ends.__getitem__) == sorted(NAMES, key=placed.__getitem__)
    assert named(picture("long_names_loss"))[0].startswith("two hidden layers")
    assert picture("long_names_loss").legends


def test_many_variants_have_a_panel_each() -> None:
    """Of twelve each has its two curves in its own panel, on the same axes, with the others' behind them in grey."""
    figure = picture("twelve_loss")
    assert [axes.get_title() for axes in figure.axes] == [f"width {2**index}" for index in range(12)]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    for axes, result in zip(figure.axes, CASES["twelve"], strict=True):
        *others, trained_on, validated = axes.lines
        assert list(trained_on.get_ydata()) == result.history["loss"]
        assert list(validated.get_ydata()) == result.history["val_loss"]
        assert {line.get_color() for line in others} == {"0.8"}
        assert len(others) == 12
    assert named(figure) == ["training", "validation", "the others' validation"]


def test_what_is_cut_off_is_said_once_of_many_panels() -> None:
    """The panels share their axes, so that one note holds for all, and none stands among the curves."""
    figure = figures.comparison_curves("loss", [*CASES["twelve"], diverged("rate 10")], DATA)
    figure.draw_without_rendering()
    assert not [text for axes in figure.axes for text in axes.texts]
    assert caption_of(figure) == "cut off: values reach 5e+30"


def test_two_epochs_are_no_curve() -> None:
    """They are drawn as points, and the interval of several seeds as a line at each, not as a band between them."""
    two = [trained(name, epochs=2, seed=seed) for name in NAMES for seed in range(3)]
    for axes in figures.comparison_curves("loss", two, DATA).axes:
        assert {(line.get_linestyle(), line.get_marker()) for line in axes.lines} == {("None", "o")}
        assert all(isinstance(drawn, LineCollection) for drawn in axes.collections)
    three = figures.comparison_curves("loss", [trained("SGD", epochs=3)], DATA)
    assert {line.get_linestyle() for line in three.axes[0].lines} == {"-"}


def test_a_variants_name_is_shown_as_it_is() -> None:
    """A name that begins with an underscore, or has dollar signs, is neither left out nor read as a formula."""
    shown = [name.replace("\n", "") for name in named(picture("odd_names_loss"))]
    assert shown == ["_hidden", r"a \$x^ b \$", "[relu]", "x" * 100]


def test_a_diverged_variant_does_not_flatten_the_others() -> None:
    """A loss that reaches 5e30 is cut off, said so, and the finite curves fill at least a third of the axes' height."""
    figure = picture("diverged_loss")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        good = np.concatenate([line.get_ydata() for line in axes.lines[:2]])
        assert low < good.min()
        assert good.max() < high
        assert np.ptp(good) > (high - low) / 3
        assert notes(axes) == ["cut off: values reach 5e+30"]


def test_a_loss_without_a_spike_is_shown_whole() -> None:
    """An ordinary comparison has linear axes that hold every value, one stuck at chance included."""
    stuck = trained("stuck")
    stuck.history |= {"loss": [2.31] * 20, "val_loss": [2.32] * 20}
    for axes in figures.comparison_curves("loss", [trained("good", speed=1.9), stuck], DATA).axes:
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[1] > 2.32
        assert not notes(axes)


def test_where_every_training_diverges_the_loss_is_logarithmic() -> None:
    """The curves of a training that diverged can be followed to the end."""
    for name in ("single_diverged", "all_diverged_loss"):
        axes = picture(name).axes[-1]
        assert axes.get_yscale() == "log"
        assert axes.get_ylim()[1] > 5e30


def test_an_epoch_tick_is_a_whole_number() -> None:
    """Even for one epoch, no tick names a fraction of an epoch, and the one value is a visible point."""
    for name in ("single", "single_epoch", "normal_loss", "one_epoch_loss"):
        for axes in picture(name).axes:
            left, right = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
            assert ticks
            assert all(tick == round(tick) for tick in ticks)
    assert all(line.get_marker() == "o" for line in picture("one_epoch_loss").axes[0].lines)


def test_the_learning_curves_mark_the_best_epoch() -> None:
    """A vertical line stands at the epoch whose weights were kept, and the legend says which one it is."""
    figure = picture("single")
    assert named(figure) == ["training", "validation", "training, evaluated", "best epoch (15)"]
    for axes in figure.axes:
        assert list(axes.lines[-1].get_xdata()) == [15, 15]


def test_no_figure_names_what_it_does_not_show() -> None:
    """Every entry of a legend has a mark with a value in the axes, unless it says that the variant has none."""
    for name in PICTURES:
        figure = picture(name)
        shown = set()
        for axes in figure.axes:
            shown |= {line.get_label() for line in axes.lines if np.isfinite(line.get_xydata()).all(axis=1).any()}
            shown |= {drawn.get_label() for drawn in (*axes.collections, *axes.patches)}
        for text in (text.get_text() for legend in figure.legends for text in legend.texts):
            seen = text in shown or text.endswith("failed)") or name.startswith("differences") or name in CROWDS
            assert seen, (name, text)


def test_a_training_without_validation_has_no_curve_of_it_and_no_best_epoch() -> None:
    """A search's winner, trained on all images: one curve, and the figure says why there is no other."""
    result = trained("candidate 1")
    result.history = {k: v for k, v in result.history.items() if "val_" not in k and "eval" not in k}
    figure = figures.learning_curves(result, DATA)
    assert named(figure) == ["training"]
    assert figure.legends[0].get_title().get_text() == "validation was not measured while it trained"
    assert all(len(axes.lines) == 1 for axes in figure.axes)
    assert not figures.learning_curves(failed("huge"), DATA).legends


def test_seeds_that_failed_are_not_counted_among_those_of_a_mean() -> None:
    """Where seeds failed the figure says of which the mean is; where one is left there is neither mean nor band."""
    left = [trained("SGD"), trained("SGD", seed=1), failed("SGD", 2)]
    for figure in (figures.comparison_curves("loss", left, DATA), figures.training_times(left, DATA)):
        assert figure.get_supxlabel().startswith("mean of 3 seeds, of those that ")
    alone = [trained("SGD"), failed("SGD", 1), failed("SGD", 2)]
    assert figures.comparison_curves("loss", alone, DATA).get_supxlabel() == "the one of 3 seeds that did not fail"
    assert figures.training_times(alone, DATA).get_supxlabel() == ""
    lost = [*at_rates(("sgd",), 1)[:3], replace(at_rates(("sgd",), 1)[3], status=FAILED, history={})]
    assert rates(lost).get_supxlabel() == "1 of 4 trainings failed"


def test_the_time_figure_keeps_compiling_apart() -> None:
    """The bars are as long as the training alone took; an epoch and compiling are only named beside them."""
    results = CASES["normal"]
    (axes,) = picture("normal_time").axes
    assert [bar.get_width() for bar in axes.patches] == [result.train_seconds for result in results]
    for text, result in zip(axes.texts, results, strict=True):
        assert f"{significant(result.train_seconds)} s, {significant(result.train_seconds / 20)} s an epoch" in str(
            text
        )
        assert "1.9 s compiling" in str(text)
    assert [text.get_text().strip() for text in picture("failed_time").axes[0].texts][-1] == "no epoch was completed"


def test_several_seeds_are_a_mean_a_band_and_a_thin_line_each() -> None:
    """The band's ends are those of `mean_interval`, the thick line its mean, and the figure says what is what."""
    results = SEEDS["ten_seeds"]
    figure = picture("ten_seeds_accuracy")
    assert figure.get_supxlabel() == "mean of 10 seeds; band: 95 % interval of the mean; thin lines: each seed"
    assert named(figure) == list(NAMES)
    for axes, metric in zip(figure.axes, ("accuracy", "val_accuracy"), strict=True):
        assert len(axes.lines) == 3 * (10 + 1)
        assert len(axes.collections) == 3
        for place in range(3):
            table = [result.history[metric] for result in results[10 * place : 10 * place + 10]]
            mean, low, high = mean_interval(table)
            *thin, thick = axes.lines[11 * place : 11 * place + 11]
            assert [list(line.get_ydata()) for line in thin] == table
            assert max(line.get_linewidth() for line in thin) < thick.get_linewidth()
            assert np.allclose(thick.get_ydata(), mean)
            assert np.allclose(band(axes, place), (low, high))
            assert {line.get_color() for line in thin} == {thick.get_color()}


def test_a_mean_goes_on_with_the_seeds_that_are_still_in_training() -> None:
    """Seeds of 8, 12 and 16 epochs: the mean has 16, the band ends with the second seed, and the figure says so."""
    figure = picture("seeds_stopped_early_loss")
    axes = figure.axes[0]
    results = SEEDS["seeds_stopped_early"]
    mean = axes.lines[3].get_ydata()
    assert len(mean) == 16
    assert mean[15] == results[2].history["loss"][15]
    assert mean[8] == pytest.approx((results[1].history["loss"][8] + results[2].history["loss"][8]) / 2)
    assert len(band(axes, 0)[0]) == 12
    assert "of those that are still in training" in figure.get_supxlabel()


def test_a_seed_that_diverged_has_its_cross_and_no_part_in_the_mean() -> None:
    """The mean is that of the seeds that held, the legend counts the others; where all diverged it is theirs."""
    figure = picture("seeds_diverged_accuracy")
    names = [name.replace("\n", " ") for name in named(figure)]
    assert names == ["SGD", "rate 1 (1 of 3 diverged)", "rate 10 (3 of 3 diverged)", "huge (1 of 3 failed)"]
    assert "of those that did not diverge" in said(figure)
    one, two, three, mean = figure.axes[0].lines[4:8]
    assert [line.get_marker() for line in (one, two, three, mean)] == ["x", "", "", ""]
    assert np.allclose(mean.get_ydata(), np.mean([two.get_ydata(), three.get_ydata()], axis=0))
    assert figure.axes[0].lines[11].get_marker() == "x"
    assert "cut off: values reach 5e+30" in [text.get_text() for text in picture("seeds_diverged_loss").axes[0].texts]


def test_a_crowd_is_shown_by_its_means_alone() -> None:
    """Of more variants than colours neither bands nor seeds are drawn, and the figure promises none."""
    figure = picture("seeds_of_a_crowd_loss")
    assert figure.legends[0].get_title().get_text() == "mean of 2 seeds"
    for axes in figure.axes:
        assert len(axes.lines) == 11 + 2
        assert not axes.collections


def test_the_bands_of_two_seeds_do_not_flatten_the_curves() -> None:
    """Student's interval of two values is twelve deviations wide: the curves still fill half of the axes' height."""
    for metric in METRICS:
        for axes in picture(f"two_seeds_{metric}").axes:
            low, high = axes.get_ylim()
            values = np.concatenate([line.get_ydata() for line in axes.lines])
            assert low < values.min()
            assert values.max() < high
            assert np.ptp(values) > (high - low) / 2
    accuracy = picture("of_one_some_diverged").axes[0]
    assert band(accuracy, 0)[1].max() > 1.2
    assert accuracy.get_ylim()[1] <= 1.05


def test_the_learning_curves_of_several_seeds_are_those_of_one_variant() -> None:
    """Means and bands of training, validation and the evaluated training images; the best epoch is the median."""
    figure = picture("of_one_ten")
    assert figure.get_suptitle().startswith("Adam: learning curves")
    assert named(figure) == ["training", "validation", "training, evaluated", "best epoch (median 15)"]
    assert "mean of 10 seeds" in figure.legends[0].get_title().get_text()
    results = OF_ONE["of_one_ten"]
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        assert len(axes.lines) == 3 * (10 + 1) + 1
        for place, name in enumerate((metric, f"val_{metric}", f"train_eval_{metric}")):
            mean, low, high = mean_interval([result.history[name] for result in results])
            assert np.allclose(axes.lines[11 * place + 10].get_ydata(), mean)
            assert np.allclose(band(axes, place), (low, high))
    assert figure.axes[0].lines[-1].get_xdata()[0] == 15


def test_a_figure_that_is_drawn_once_is_what_matplotlib_saves() -> None:
    """Every pixel of a saved figure is as `savefig` has it, which draws it twice."""
    pixels = []
    for save in (drawing.save, Figure.savefig):
        save(figures.learning_curves(trained("Adam"), DATA), file := io.BytesIO())
        pixels.append(imread(io.BytesIO(file.getvalue())))
    assert np.array_equal(*pixels)


def test_the_loss_without_the_penalty_is_said_to_be_so() -> None:
    """The evaluated training images' loss has no penalty; a history without them has no third curve."""
    result = trained("L2")
    result.history["penalty"] = [0.1] * 20
    assert "training, evaluated (loss without penalty)" in named(figures.learning_curves(result, DATA))
    result.history = {name: values for name, values in result.history.items() if "train_eval" not in name}
    assert named(figures.learning_curves(result, DATA)) == ["training", "validation", "best epoch (15)"]


def test_the_times_of_several_seeds_are_a_mean_with_its_interval() -> None:
    """One bar a variant, as long as the mean of its seeds' seconds alone, with the interval's ends and a dot a seed."""
    results = several(4)
    for result in results:
        result.timed_alone(0.1 + 0.01 * result.seed)
    (axes,) = figures.training_times(results, DATA).axes
    mean, low, high = mean_interval(seconds := [2.0, 2.2, 2.4, 2.6])
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([mean] * 3)
    for interval, dots in zip(axes.lines[::2], axes.lines[1::2], strict=True):
        assert list(interval.get_xdata()) == pytest.approx([low, high])
        assert list(dots.get_xdata()) == pytest.approx(seconds)
    assert not picture("normal_time").axes[0].lines


def test_the_overview_keeps_the_comparisons_apart() -> None:
    """A variant of two comparisons has a bar in each, named after it."""
    comparison = Comparison(question="Which?", data="digits", base=training(), variants={"SGD": {}})
    records = [
        Record(experiment=replace(comparison, name=name), data=DATA, results=several(2, variants))
        for name, variants in (("one", ("SGD",)), ("two", ("Adam", "SGD")))
    ]
    axes = figures.overview_times(records).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one: SGD", "two: Adam", "two: SGD"]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [drawing.COLOURS[place] for place in (0, 0, 1)]


def test_the_differences_show_each_pair_with_its_interval_and_the_margin() -> None:
    """A row a pair, in points, from one end of its interval to the other; what has no difference is left out."""
    axes = picture("differences").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{v.a} − {v.b}" for v in POINTS[:4]]
    edges = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (edges.x0, edges.x1) == pytest.approx((-0.2, 0.2))
    zero, *rest = axes.lines
    assert list(zero.get_xdata()) == [0, 0]
    thick = [list(line.get_xdata()) for line in rest if line.get_linewidth() > 3]
    thin = [list(line.get_xdata()) for line in rest if line.get_linewidth() == 1]
    points = [line for line in rest if line.get_linestyle() != "-"]
    assert thick == [[100 * v.low, 100 * v.high] for v in POINTS[:3]]
    assert thin == [[100 * v.low_corrected, 100 * v.high_corrected] for v in POINTS[:3]]
    assert len(rest) == 3 + 3 + 4
    assert [line.get_xdata()[0] for line in points] == [100 * v.difference for v in POINTS[:4]]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, False, True, True]
    says = [text.get_text() for text in axes.texts]
    assert says[0] == "+1.23 [+1.03, +1.43]\n10 seeds"
    assert says[1] == "+0.05 [−0.05, +0.15]\n9 seeds (1 left out)"
    assert says[3] == "+0.40\n1 seed"
    kinds = ["better", "practically equivalent", "undecided", "one seed: no verdict", "practically none"]
    assert named(picture("differences")) == kinds
    caption = "thick: 95 % interval; thin: after correction for 9 verdicts, which decides what is better"
    assert caption_of(picture("differences")) == caption
    assert axes.get_xlabel() == "validation accuracy, first minus second (points); right: the first is better"


def said(figure: Figure) -> str:
    """What is said of what is drawn, below the axes or above the legend."""
    return figure.get_supxlabel() or caption_of(figure)


def caption_of(figure: Figure) -> str:
    """What stands above the legend."""
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def test_an_interval_without_width_or_ends_is_explained() -> None:
    """Where all differences are equal and too few, no thin line is drawn, and the row says that they are equal.

    Where no other verdict was made, the 95 % interval decides, and no correction is spoken of.
    """
    values = {"a": [0.9] * 3, "b": [0.8] * 3}
    measure = Measure(name="val_accuracy", words="accuracy", values=values, maximizes=True, margin=0.002)
    figure = verdict_figures.differences(judge([measure], "b"), DATA)
    assert [text.get_text() for text in figure.axes[0].texts] == ["+10.00 [+10.00, +10.00]\n3 seeds (all equal)"]
    assert [line.get_linewidth() for line in figure.axes[0].lines[1:]] == [3.5, 1.5]
    assert caption_of(figure) == "thick: 95 % interval"


def test_a_corrected_interval_does_not_flatten_the_others() -> None:
    """One that is very much wider than the 95 % interval is cut off at the axes' edge, and the caption says so."""
    wide = replace(POINTS[0], low_corrected=-1.0, high_corrected=1.0)
    figure = verdict_figures.differences([wide, POINTS[1]], DATA)
    low, high = figure.axes[0].get_xlim()
    assert -2.5 < low < -0.2
    assert 1.43 < high < 3.5
    assert caption_of(figure).endswith("which decides what is better, cut off at the edge")


def test_a_figure_shows_the_numbers_of_the_sentence() -> None:
    """An end that excludes no difference is not rounded to none, in points, nats and ratios."""
    near = verdict("a", "b", 0.0123, 0.01229, UNDECIDED)
    axes = verdict_figures.differences([near], DATA).axes[0]
    assert axes.texts[0].get_text() == "+1.230 [+0.001, +2.459]\n10 seeds"
    ratio = verdict("a", "b", 1.1, 0.099, UNDECIDED, **OF_TIMES)
    axes = verdict_figures.differences([ratio], DATA).axes[0]
    assert axes.texts[0].get_text() == "1.100 [1.001, 1.199]\n10 seeds"


def test_a_caution_stands_wherever_verdicts_do() -> None:
    """What must be known of the times is said once below the verdicts on them, and not below others."""
    assert caption_of(picture("differences_times")).endswith(f"which decides what is better {CAUTION}")
    assert CAUTION not in caption_of(picture("differences"))


def test_ratios_of_times_are_on_a_logarithmic_axis_around_one() -> None:
    """Twice and half as long are as far from no difference, and every tick is a plain number."""
    for name in ("differences_times", "differences_near"):
        axes = laid_out(name).axes[0]
        assert axes.get_xscale() == "log"
        assert list(axes.lines[0].get_xdata()) == [1, 1]
        low, high = axes.get_xlim()
        ticks = [t.get_text() for t, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True) if low < x < high]
        assert "1" in ticks
        assert len(ticks) >= 2
        assert all(float(tick) > 0 for tick in ticks)
        assert axes.get_xlabel() == "training time, first / second (times); left: the first is better"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["RMSprop / SGD"]


@pytest.mark.parametrize(("low", "high"), [(0.95, 1.02), (0.4, 1.9), (0.04, 9.0), (0.0003, 48_000.0)])
def test_ratios_have_as_many_ticks_as_there_is_room_for(low: float, high: float) -> None:
    """Two seeds may leave anything between a thousandth and a thousandfold: no tick's number lies on another."""
    wide = replace(TIMES[0], low=low, high=high, low_corrected=low, high_corrected=high, difference=0.99)
    axes = verdict_figures.differences([wide], DATA).axes[0]
    axes.figure.draw_without_rendering()
    ticks = zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    boxes = [label.get_window_extent() for label, at in ticks if axes.get_xlim()[0] <= at <= axes.get_xlim()[1]]
    assert len(boxes) >= 2
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))


def test_the_share_that_reached_a_target_is_of_all_seeds() -> None:
    """A rise at each arrival by one seed's share, a tick where a training ended without; counts in the legend."""
    figure = picture("reached")
    axes = figure.axes[0]
    assert figure.get_suptitle().startswith("How soon validation accuracy ≥ 0.97 was reached")
    curves, ticks = axes.lines[0::2], axes.lines[1::2]
    colours = [colour for colour, _ in drawing.looks([target.variant for target in TARGETS])]
    assert [line.get_color() for line in curves] == [line.get_color() for line in ticks] == colours
    rises = [list(curve.get_xdata()[1:-1]) for curve in curves]
    assert rises == [[2.0], [1.0, 1.2, 1.2, 3.0], [], [3.0, 4.0]]
    heights = [list(curve.get_ydata()) for curve in curves]
    assert heights == [[0, 0.25, 0.25], [0, 0.25, 0.5, 0.75, 1, 1], [0, 0], [0, 0.25, 0.5, 0.5]]
    assert [list(tick.get_xdata()) for tick in ticks] == [[5.0, 5.5, 6.0], [], [0.0, 5.0, 5.1, 5.3], [1.0, 5.0]]
    assert [list(tick.get_ydata()) for tick in ticks] == [[0.25] * 3, [], [0.0] * 4, [0.0, 0.5]]
    # Who has not arrived is followed as long as it was trained, who has for good.
    assert [curve.get_xdata()[-1] for curve in curves] == [6.0, axes.get_xlim()[1], 5.3, 5.0]
    assert axes.get_ylabel() == "share of all seeds"
    assert said(figure).startswith("4 seeds; tick: a training ended without reaching it")
    legend = named(figure)
    assert legend[:2] == ["SGD\n1 of 4\nnot reached by half", "Adam\n4 of 4\nhalf after 1.2 s"]
    assert legend[2] == "none\n0 of 4\nnot in 5.3 s"
    assert legend[3].endswith("\n2 of 4\nhalf after 4 s")


def test_the_learning_rates_show_the_last_epoch_and_what_diverged() -> None:
    """A line a family over its rates, a dot a seed, a band; what diverged is counted below and not in the mean."""
    figure = picture("rates")
    axes, below = figure.axes
    assert named(figure) == ["sgd", "adam"]
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "validation accuracy\nafter the last epoch (share of examples)"
    sgd, adam = axes.lines[0], axes.lines[4]
    results = at_rates()
    last = np.array([result.last("val_accuracy") for result in results[:12]]).reshape(4, 3)
    mean, low, high = mean_interval(last.T)
    assert list(sgd.get_xdata()) == list(RATES)
    assert np.allclose(sgd.get_ydata(), mean)
    assert np.allclose(band(axes, 0), (low, high))
    assert np.allclose([line.get_ydata() for line in axes.lines[1:4]], last.T)
    assert list(np.isfinite(adam.get_ydata())) == [True, True, True, False]
    assert adam.get_ydata()[2] == results[12 + 6].last("val_accuracy")
    assert [text.get_text() for text in below.texts] == ["2 of 3", "3 of 3"]
    assert [line.get_xdata()[0] for line in below.lines] == [0.1, 1.0]
    assert [label.get_text() for label in below.get_yticklabels()] == ["sgd diverged", "adam diverged"]
    assert len(picture("rates_sgd").axes) == 1


def test_learning_rates_need_three_variants_that_differ_in_nothing_else() -> None:
    """Optimizers at a rate each, or two rates of one, make no such figure; families are named by what differs."""
    assert figures.learning_rates(CASES["normal"], "val_accuracy", DATA) is None
    assert figures.learning_rates(at_rates(("sgd",))[:6], "val_accuracy", DATA) is None
    with_momentum = [
        changed(result, f"momentum {momentum}", {"optimizer.momentum": momentum})
        for momentum in (0.0, 0.9)
        for result in at_rates(("sgd",))
    ]
    assert named(rates(with_momentum)) == ["momentum 0.0", "momentum 0.9"]
    with_and_without = [*at_rates(("sgd",)), *with_momentum[12:]]
    assert named(rates(with_and_without)) == ["sgd", "momentum 0.9"]
    scheduled = [changed(result, "scheduled", {"learning_rate": SCHEDULE}) for result in with_momentum]
    assert figures.learning_rates(scheduled, "val_accuracy", DATA) is None


def changed(result: Result, name: str, choices: dict[str, object]) -> Result:
    """The result as that of a variant with other choices."""
    return replace(result, variant=result.variant.but({**choices, "name": f"{result.variant.name}, {name}"}))


def test_the_budget_curve_is_the_expected_best() -> None:
    """`expected_best` of the candidates that have a score, inside its band, beside the best so far in their order."""
    figure = picture("budget")
    (axes,) = figure.axes
    scores = [candidate.mean for candidate in searched(9, 2).candidates[2:]]
    expected, drawn_best = axes.lines
    assert list(expected.get_xdata()) == list(range(1, 8))
    assert np.allclose(expected.get_ydata(), expected_best(scores))
    assert list(drawn_best.get_ydata())[:-1] == list(np.maximum.accumulate(scores))
    low, high = band(axes, 0)
    assert np.all((low <= expected.get_ydata()) & (expected.get_ydata() <= high + 1e-12))
    assert axes.get_xlabel() == "candidates with a score; 2 of 9 candidates failed"
    ticks = [tick for tick in axes.get_xticks() if 0.5 <= tick <= 7.5]
    assert ticks == [round(tick) for tick in ticks]


def test_few_candidates_have_no_band() -> None:
    """Below five scores there is nothing to draw a bootstrap from, which the figure says; one is no expectation."""
    expected = "best to expect of so many of these candidates"
    so_far = "best so far, in the order drawn"
    for many, marks in ((1, [so_far]), (2, [expected, so_far]), (4, [expected, so_far])):
        figure = search_figures.budget(searched(many + 1, 1), DATA)
        assert not figure.axes[0].collections
        assert named(figure) == marks
        assert "no band: a bootstrap needs 5 candidates" in figure.legends[0].get_title().get_text()
    enough = search_figures.budget(searched(5), DATA)
    assert len(enough.axes[0].collections) == 1
    assert enough.legends[0].get_title().get_text() == ""
    assert picture("budget_none").axes[0].get_xticks().size == 0


def test_any_metric_has_its_name_and_unit_on_its_axis() -> None:
    """Shares of examples, nats of a cross-entropy, else the loss that it is, the metric's own unit, or none."""

    def labels(metric: Metric | str, results: list[Result]) -> set[str]:
        return {axes.get_ylabel() for axes in figures.comparison_curves(metric, results, DATA).axes}

    assert labels("accuracy", CASES["normal"]) == labels("val_accuracy", CASES["normal"]) == {METRICS["accuracy"]}
    assert labels("loss", CASES["normal"]) == {METRICS["loss"]}
    penalized = trained("L2")
    penalized.history["penalty"] = [0.1] * 20
    assert labels("loss", [penalized]) == {"loss (cross-entropy and penalty, nats)"}
    assert labels("loss", REGRESSION) == {"loss (mse)"}
    assert labels("loss", [*REGRESSION, trained("SGD")]) == {"loss"}
    assert labels("r2_score", REGRESSION) == {"r2 score"}
    assert labels("mae", REGRESSION) == {"mae"}
    assert labels(MM, REGRESSION) == {"mae (mm)"}
    assert labels("auc", CASES["failed"]) == {"auc (0 to 1)"}
    assert picture("regression_mae").get_suptitle().startswith("Mae by variant")


def test_the_learning_curves_show_what_was_logged() -> None:
    """A panel a metric, the loss last; or those that are asked for, in their order."""
    panels = [axes.get_ylabel() for axes in picture("regression_single").axes]
    assert panels == ["r2 score", "mae", "loss (mse)"]
    chosen = figures.learning_curves(REGRESSION[0], DATA, [Metric("val_r2_score"), Metric("val_loss"), MM])
    assert [axes.get_ylabel() for axes in chosen.axes] == ["r2 score", "loss (mse)", "mae (mm)"]
    assert named(chosen) == ["training", "validation", "training, evaluated", "best epoch (9)"]
    many = regressed("SGD")
    many.history |= {f"output_{place}_mae": [1.0] * 20 for place in range(9)}
    assert len(figures.learning_curves(many, DATA).axes) == figures.MOST_PANELS


def test_a_metric_without_a_worst_value_does_not_flatten_the_others() -> None:
    """An R² that falls to minus a thousand million is cut off below, said so, and the others fill the axes."""
    for axes in picture("regression_r2").axes:
        low, high = axes.get_ylim()
        good = np.concatenate([line.get_ydata() for line in axes.lines[:2]])
        assert low < good.min()
        assert good.max() < high
        assert np.ptp(good) > (high - low) / 3
        assert notes(axes) in (
            ["cut off: values reach -1,000,000,000"],
            ["cut off: values reach -980,000,000"],
        )
    for figure in (search_figures.slices(searched_by_r2(), DATA), picture("budget_r2")):
        axes = figure.axes[0]
        assert axes.get_ylim()[0] > -3
        assert "cut off: 1 candidate reaches below" in [text.get_text() for text in axes.texts]


def test_verdicts_on_any_metric_have_its_words_and_unit() -> None:
    """Where less is better the first is better to the left, and differences stand in the metric's own unit."""
    axes = picture("differences_mm").axes[0]
    assert axes.get_xlabel() == "validation mae, first minus second (mm); left: the first is better"
    assert axes.texts[0].get_text() == "−3.2000 [−3.8000, −2.6000]\n10 seeds"
    edges = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (edges.x0, edges.x1) == pytest.approx((-0.5, 0.5))
    equal = replace(POINTS[1], difference=0.0, words="score", unit="", decision=UNDECIDED)
    assert verdict_figures.differences([equal], DATA).axes[0].get_xlabel() == "score, first minus second"


def test_a_search_by_any_score_over_any_choices_is_shown_by_their_names() -> None:
    """Choices have the names of arguments, calls stand with what they are given, and the score is what was scored."""
    parallel, slices = picture("parallel_r2"), search_figures.slices(searched_by_r2(), DATA)
    names = ["optimizer", "learning rate", "hidden", "momentum"]
    assert [label.get_text() for label in parallel.axes[0].get_xticklabels()] == [*names, "mean R²"]
    assert [axes.get_xlabel().split("\n")[0] for axes in slices.axes] == names
    assert {axes.get_ylabel() for axes in slices.axes} == {"R²"}
    assert "Adam" in [text.get_text() for text in parallel.axes[0].texts]
    assert parallel.axes[0].get_xlabel().endswith("does not apply; the lowest score stands for all below it")
    assert [label.get_rotation() for label in slices.axes[1].get_xticklabels()] == [90] * 9
    assert picture("budget_r2").axes[0].get_ylabel() == "mean R² over the folds"
    assert picture("budget").axes[0].get_ylabel() == "mean accuracy over the folds (share of examples)"
    found = searched_by_r2()
    header, first, *_ = tables.search_cells(found)
    assert header[1:5] == names
    assert first[1] in ("Adam", "SGD(momentum=0.9)")


def test_a_search_of_calls_is_found_again_on_record() -> None:
    """What was drawn is equal by content after it was JSON, and still made anew: optimizers, schedules, widths."""
    search = Search(
        question="Which?", data="digits", base=training(), space={"model.dropout": [0.1, 0.2]}, candidates=2
    )
    found = searched_by_r2()
    record = Record(experiment=search, data=DATA, search=found, verdicts=POINTS[:1])
    again = Record.from_json(record.to_json(), search, "run")
    assert again.search is not None
    assert [candidate.choices for candidate in again.search.candidates] == [c.choices for c in found.candidates]
    assert again.search.candidates[0].choices["learning_rate"] == SCHEDULE
    assert (again.search.scoring, again.search.best.mean) == ("r2", found.best.mean)
    assert str(again.verdicts) == str(POINTS[:1])  # NaN is equal to nothing
