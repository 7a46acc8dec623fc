"""What `mlplab.results` promises: the ranking, and tables that say the same numbers in every form."""

import csv
import io
import itertools
import json
import math
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplab import verdict_figures
from mlplab.comparison import Comparison
from mlplab.results import (
    DIVERGED,
    FAILED,
    FINISHED,
    SHORT_SECONDS,
    Outcome,
    Result,
    Target,
    outcomes,
    paired_share,
    rank,
    reaching,
    targets,
    unpaired,
    unpaired_weights,
)
from mlplab.spec import Metric, Training
from mlplab.tables import (
    columns,
    history_csv,
    number_text,
    rows,
    shown_metrics,
    target_cells,
    to_cells,
    to_csv,
    to_markdown,
)

NAN = math.nan


def training(name: str = "", **changes: object) -> Training:
    """An MLP that classifies."""
    fields = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "optimizer": "sgd", **changes}
    return Training(model="mlp", name=name, **fields)  # type: ignore[arg-type]


def comparison(select: str | Metric = "val_accuracy", **changes: object) -> Comparison:
    fields = {"question": "Which?", "data": "mnist", "base": training(), "variants": {"a": {}}, **changes}
    return Comparison(select=select, **fields)  # type: ignore[arg-type]


def result(name: str, value: float = 0.5, **changes: object) -> Result:
    """A result of three epochs with `value` of both selection metrics at its best epoch, the second."""
    history = {
        "loss": [1.0, 0.5, 0.25],
        "accuracy": [0.3, 0.6, 0.7],
        "val_loss": [9.0, value, 9.0],
        "val_accuracy": [0.0, value, 0.0],
        "train_seconds": [0.5, 1.0, 1.5],
    }
    fields: dict[str, object] = {"history": history, "best_epoch": 2, "steps_per_epoch": 10}
    return Result(variant=training(name), **{**fields, **changes})  # type: ignore[arg-type]


def names(ranked: list[Outcome]) -> list[str]:
    return [outcome.variant.name for outcome in ranked]


# ---------------------------------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize(("select", "order"), [("val_accuracy", "bca"), ("val_loss", "acb")])
def test_the_best_is_first(select: str, order: str) -> None:
    """More validation accuracy is better, and less validation loss."""
    found = [result("a", 0.1), result("b", 0.9), result("c", 0.5)]
    assert "".join(names(rank(comparison(select), found))) == order


@pytest.mark.parametrize("select", ["val_accuracy", "val_loss"])
def test_what_failed_or_has_no_value_is_last(select: str) -> None:
    """A failed training never wins, even with the best value of all, nor does one without a finite value."""
    perfect = 1.0 if select == "val_accuracy" else 0.0
    found = [
        result("failed", perfect, status=FAILED),
        result("empty", history={}, best_epoch=None, status=FAILED),
        result("nan", NAN, status=DIVERGED),
        result("infinite", math.inf),
        result("diverged", 0.5, status=DIVERGED),
        result("good", 0.7 if select == "val_accuracy" else 0.3),
    ]
    assert names(rank(comparison(select), found)) == ["good", "diverged", "failed", "empty", "nan", "infinite"]


values = st.floats(0, 1) | st.sampled_from([0.25, 0.5, NAN, math.inf])


@given(
    st.lists(st.tuples(values, st.sampled_from([FINISHED, DIVERGED, FAILED]))),
    st.sampled_from(["val_accuracy", "val_loss"]),
)
def test_ranking_loses_nothing_and_is_stable(drawn: list[tuple[float, str]], select: str) -> None:
    """Every result is in the ranking once; equally good ones, and those without a value, keep their order."""
    chosen = comparison(select)
    found = [result(str(index), value, status=status) for index, (value, status) in enumerate(drawn)]
    ranked = [outcome.results[0] for outcome in rank(chosen, found)]
    assert sorted(ranked, key=id) == sorted(found, key=id)
    sound = [r for r in ranked if r.status != FAILED and math.isfinite(r.best(select))]
    assert ranked[: len(sound)] == sound
    for a, b in itertools.pairwise(sound):
        assert not chosen.metric.better(b.best(select), a.best(select))
        assert a.best(select) != b.best(select) or found.index(a) < found.index(b)
    last = [found.index(r) for r in ranked[len(sound) :]]
    assert last == sorted(last)


# ----------------------------------------------------------------------------------------------------------- numbers


def test_a_training_takes_as_long_as_its_last_epoch_says() -> None:
    """Train seconds are counted from the first epoch on, so the last value is the whole; without an epoch it is 0."""
    assert result("a").train_seconds == 1.5
    assert result("a", history={}, best_epoch=None).train_seconds == 0.0


def test_steps_per_second_are_all_steps_over_the_training_time() -> None:
    """3 epochs of 10 steps in 1.5 seconds are 20 steps a second; without a time there is no rate."""
    assert result("a").steps_per_second == 20.0
    assert math.isnan(result("a", history={}, best_epoch=None).steps_per_second)


def test_best_and_last_are_of_their_epochs() -> None:
    """`best` is the value at the best epoch, `last` at the last one; NaN where there is none."""
    found = result("a", 0.9)
    assert (found.best("val_accuracy"), found.last("val_accuracy"), found.epochs) == (0.9, 0.0, 3)
    empty = result("a", history={}, best_epoch=None)
    assert math.isnan(empty.best("val_accuracy"))
    assert math.isnan(empty.last("val_accuracy"))
    assert empty.epochs == 0


# ------------------------------------------------------------------------------------------------------- several seeds


def seeded(name: str, values: list[float], **changes: object) -> list[Result]:
    """A variant's results, a value for each seed."""
    return [result(name, value, seed=seed, **changes) for seed, value in enumerate(values, start=1)]


@pytest.mark.parametrize("values", [[0.7, 0.1, 0.9, 0.3, 0.5], [0.2, 0.8], [0.8, 0.2], [0.9, 0.6, 0.1, 0.4]])
@pytest.mark.parametrize("select", ["val_accuracy", "val_loss"])
def test_the_median_seed_stands_for_a_variant(values: list[float], select: str) -> None:
    """Of an even number of seeds one of the two in the middle does, by its seed: neither the better nor the worse."""
    (outcome,) = outcomes([result("a", value, seed=seed, select=select) for seed, value in enumerate(values)])
    places = sorted(range(len(values)), key=values.__getitem__)
    middle = places[(len(values) - 1) // 2 : len(values) // 2 + 1]
    assert outcome.representative.seed == min(middle)


def test_the_ranking_is_by_the_mean_over_the_seeds() -> None:
    """One lucky seed does not make a winner, and a table has one row a variant with the mean and its interval."""
    found = seeded("lucky", [0.9, 0.1, 0.2]) + seeded("steady", [0.6, 0.5, 0.7])
    assert names(rank(comparison(), found)) == ["steady", "lucky"]
    first, second = to_cells(comparison(), found)[1:]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # Student's t, 2 degrees of freedom; the deviation is 0.1
    assert first[:2] == ["steady", f"0.6000 ± {half:.4f}"]
    assert second[0] == "lucky"
    assert len(rows(comparison(), found)) == 6


def test_seeds_that_did_not_finish_are_counted() -> None:
    """How many of a variant's seeds diverged or failed stands beside its name; it failed as a whole if all did."""
    found = seeded("a", [0.5, 0.6, 0.7])
    found[0].status, found[1].status = DIVERGED, FAILED
    (outcome,) = outcomes(found)
    assert outcome.state == "1 of 3 diverged, 1 of 3 failed"
    assert not outcome.failed
    for each in found:
        each.status = FAILED
    assert outcome.failed


def test_trainings_that_do_not_pair_are_told() -> None:
    """Equal seeds with another batch order of as many examples are no pair; other examples have other orders."""
    a, b = result("a", seed=1, order="cc"), result("b", seed=1, order="cc")
    assert not unpaired([a, b])
    b.order = ""  # one batch: there is no order
    assert not unpaired([a, b])
    b.order = "ee"
    assert unpaired([a, b]).startswith("'a' and 'b' with seed 1 do not pair: their batch order differs (cc and ee)")
    b.examples = 100
    assert not unpaired([a, b])
    b.examples, b.seed = 0, 2
    assert not unpaired([a, b])


def test_the_share_of_weights_that_pairs_is_said() -> None:
    """Weights that start otherwise than the baseline's with the same seed are counted by their numbers, and named."""
    start, sizes = {"hidden/kernel": "aa", "hidden/bias": "bb"}, {"hidden/kernel": 30, "hidden/bias": 10}
    a, b = (result(name, seed=1, start=dict(start), sizes=sizes) for name in "ab")
    both = comparison(variants={"a": {}, "b": {"model.dropout": 0.5}})
    assert unpaired_weights(both, [a, b]) == ""
    b.start["hidden/bias"] = "cc"
    assert paired_share(both, [a, b]) == {"a": 1.0, "b": 0.75}
    assert unpaired_weights(both, [a, b]).endswith("(b 75 %); data and batch order pair all the same")


def test_a_target_is_reached_at_the_end_of_an_epoch() -> None:
    """The first epoch with a value as good as the target counts; without one nothing is said to be reached."""
    when = reaching(result("a", 0.9), Metric("val_accuracy"), 0.9)
    assert (when.reached, when.epochs, when.steps, when.seconds) == (True, 2, 20, 1.0)
    missed = reaching(result("a", 0.9), Metric("val_accuracy"), 0.91)
    assert (missed.reached, missed.epochs, missed.seconds) == (False, 3, 1.5)
    lower = reaching(result("a", 0.2), Metric("val_loss"), 0.3)
    assert (lower.reached, lower.epochs) == (True, 2)
    assert not reaching(result("a", NAN), Metric("val_accuracy"), 0.1).reached


TARGETS = comparison(targets={"val_accuracy": 0.8})


def arriving(name: str, arrivals: list[int | None], epoch_seconds: float = 1.0, **changes: object) -> list[Result]:
    """A variant's trainings of ten epochs, a seed each: the epoch in which each reached the target, None if none."""
    found = []
    for seed, arrival in enumerate(arrivals):
        # Each seed's clock runs a little slower than the last one's.
        seconds = [epoch_seconds * (1 + 0.01 * seed) * epoch for epoch in range(1, 11)]
        values = [0.9 if arrival and epoch >= arrival else 0.5 for epoch in range(1, 11)]
        history = {"loss": [1.0] * 10, "val_accuracy": values, "train_seconds": seconds}
        fields: dict[str, object] = {"history": history, "best_epoch": 1, "steps_per_epoch": 10, **changes}
        found.append(Result(variant=training(name, epochs=10), seed=seed, **fields))  # type: ignore[arg-type]
    return found


def drawn(found: list[Target]) -> list[tuple[list[float], list[float], str]]:
    """Of each variant's curve in the figure: where it rises, to which share, and what its name says."""
    figure = verdict_figures.reached(found, "digits")
    curves = figure.axes[0].lines[::2]
    names = [text for text in figure.axes[0].texts if text.get_gid() == "name"] or figure.legends[0].texts
    said = [", ".join(text.get_text().split("\n")[1:]) for text in names]
    return [
        (list(curve.get_xdata()[1:-1]), list(curve.get_ydata()[1:-1]), says)
        for curve, says in zip(curves, said, strict=True)
    ]


@pytest.mark.parametrize("epoch_seconds", [0.1, 1.0])
@pytest.mark.parametrize(
    ("arrivals", "count", "half"),
    [
        ([None] * 5, "0 of 5", None),
        ([None, None, 10, None, None], "1 of 5", None),
        ([7, None, 3, None, None], "2 of 5", None),
        ([7, None, 3, 9, None], "3 of 5", 9),
        ([7, 4, 3, 9, 5], "5 of 5", 5),
        ([7, None, 3, None], "2 of 4", 7),
    ],
)
def test_figure_table_and_json_say_the_same_of_a_target(
    arrivals: list[int | None], count: str, half: int | None, epoch_seconds: float
) -> None:
    """The share is of all seeds in each, and a time to it is said only where half of all seeds arrived."""
    (found,) = targets(TARGETS, arriving("a", arrivals, epoch_seconds))
    unit = "seconds" if epoch_seconds == 1.0 else "epochs"
    clock = [epoch_seconds * (1 + 0.01 * seed) if unit == "seconds" else 1.0 for seed in range(len(arrivals))]
    each = [NAN if epoch is None else epoch * clock[seed] for seed, epoch in enumerate(arrivals)]
    # JSON, as the run has it.
    kept = json.loads(json.dumps(asdict(found)))
    assert kept["unit"] == unit
    assert kept["after"] == pytest.approx(each, nan_ok=True)
    assert kept["trained"] == pytest.approx([10 * one for one in clock])
    arrived = sorted(value for value in each if value == value)
    assert count == f"{len(arrived)} of {len(each)}"
    middle = NAN if half is None else each[arrivals.index(half)]
    assert kept["half"] == pytest.approx(middle, nan_ok=True)
    # The table.
    header, row = target_cells([found])
    assert header == ["variant", "target", "reached by", "half after"]
    said = f"{middle:.3g} s" if unit == "seconds" else f"{half} epochs"
    if half is None:
        longest = f"{max(kept['trained']):.3g} s" if unit == "seconds" else "10 epochs"
        said = "not reached by half" if arrived else f"not in {longest}"
    assert row == ["a", "val_accuracy ≥ 0.8", count, said]
    # The figure.
    ((rises, shares, legend),) = drawn([found])
    assert rises == pytest.approx(arrived)
    assert shares == pytest.approx([(place + 1) / len(each) for place in range(len(arrived))])
    assert legend == f"{count}, {'half after ' * (half is not None)}{said}"


def test_a_seed_that_was_trained_a_little_shorter_counts_among_all() -> None:
    """One that ended without arriving at 10.0 s, before another arrived at 10.2 s, is in the share's denominator."""
    (found,) = targets(TARGETS, arriving("a", [None, None, 10]))
    assert found.after == pytest.approx((NAN, NAN, 10.2), nan_ok=True)
    ((rises, shares, _),) = drawn([found])
    assert (rises, shares) == (pytest.approx([10.2]), pytest.approx([1 / 3]))


@pytest.mark.parametrize("status", [FAILED, DIVERGED])
def test_a_seed_that_did_not_finish_counts_among_all(status: str) -> None:
    """One that failed, even after it had reached the target, has not; one that diverged has if it did before."""
    found = arriving("a", [2, 3, 4])
    for result in found[:2]:
        result.status = status
    none = arriving("b", [None] * 3, history={}, best_epoch=None, status=FAILED)
    first, second = targets(TARGETS, found + none)
    assert first.count == ("1 of 3" if status == FAILED else "3 of 3")
    assert (second.count, second.says, second.trained) == ("0 of 3", "not reached", (0.0, 0.0, 0.0))
    assert [share for _, shares, _ in drawn([first, second]) for share in shares][-1] == pytest.approx(
        1 / 3 if status == FAILED else 1
    )


def test_one_seed_reached_a_target_or_did_not() -> None:
    """Table and figure of one seed a variant say when, and speak of no share and no half."""
    found = targets(TARGETS, arriving("a", [4], 0.1) + arriving("b", [None], 0.1))
    assert target_cells(found) == [
        ["variant", "target", "reached after"],
        ["a", "val_accuracy ≥ 0.8", "4 epochs"],
        ["b", "val_accuracy ≥ 0.8", "not in 10 epochs"],
    ]
    assert drawn(found) == [([4.0], [1.0], "after 4 epochs"), ([], [], "not in 10 epochs")]
    axes = verdict_figures.reached(found, "digits").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["not yet", "reached"]
    assert axes.get_ylabel() == ""


SLOW, QUICK = 0.11 * SHORT_SECONDS, 0.099 * SHORT_SECONDS


@pytest.mark.parametrize(
    ("epoch_seconds", "changes", "unit", "says"),
    [
        (SLOW, {}, "seconds", f"{5 * SLOW:.3g} s"),
        (QUICK, {}, "epochs", "5 epochs"),
        (SLOW, {"shared": True}, "epochs", "5 epochs"),
        (SLOW, {"busy": 0.3}, "epochs", "5 epochs"),
        (SLOW, {"busy": 0.1}, "seconds", f"{5 * SLOW:.3g} s"),
        (QUICK, {"steps_per_epoch": 20}, "steps", "100 steps"),
        (SLOW, {"steps_per_epoch": 20}, "seconds", f"{5 * SLOW:.3g} s"),
    ],
)
def test_a_target_is_timed_where_the_clock_can_tell(
    epoch_seconds: float, changes: dict[str, object], unit: str, says: str
) -> None:
    """In seconds, else in epochs: where all trainings are short, one shared the machine, or something kept it busy.

    In steps, where an epoch has not as many of them in all variants.
    """
    found = targets(TARGETS, arriving("a", [5], QUICK) + arriving("b", [5], epoch_seconds, **changes))
    assert [one.unit for one in found] == [unit] * 2
    label = {"seconds": "training time (s)", "epochs": "epochs of training", "steps": "steps of training"}[unit]
    assert verdict_figures.reached(found, "digits").axes[0].get_xlabel() == label
    assert found[1].says == says


def test_a_single_step_is_not_said_in_the_plural() -> None:
    """One epoch is `1 epoch`, and many steps or seconds are grouped by thousands."""
    found = targets(TARGETS, arriving("a", [1], 0.1) + arriving("b", [10], 0.1))
    assert [one.says for one in found] == ["1 epoch", "10 epochs"]
    many = targets(TARGETS, arriving("a", [1], 0.1, steps_per_epoch=1) + arriving("b", [3], 0.1, steps_per_epoch=4_000))
    assert [one.says for one in many] == ["1 step", "12,000 steps"]
    assert [one.says for one in targets(TARGETS, arriving("a", [10], 783.2))] == ["7,830 s"]


# ------------------------------------------------------------------------------------------------------------ tables

text = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20).filter(str.isprintable)


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Any result that a training can leave."""
    epochs = draw(st.integers(0, 4))
    series = st.lists(st.floats(), min_size=epochs, max_size=epochs)
    history = {name: draw(series) for name in ("loss", "accuracy", "val_loss", "val_accuracy")} if epochs else {}
    seconds = sorted(draw(st.lists(st.floats(1e-3, 1e6), min_size=epochs, max_size=epochs)))
    return Result(
        variant=training(draw(text)),
        status=draw(st.sampled_from([FINISHED, DIVERGED, FAILED])),
        history=history | ({"train_seconds": seconds} if epochs else {}),
        best_epoch=draw(st.integers(1, epochs)) if epochs else None,
        test=draw(st.fixed_dictionaries({}, optional={"loss": st.floats(), "accuracy": st.floats(0, 1)})),
        steps_per_epoch=draw(st.integers(1, 10_000)),
        compile_seconds=draw(st.floats(0, 1e3)),
    )


@given(st.lists(results(), max_size=4))
def test_the_csv_has_the_same_numbers(found: list[Result]) -> None:
    """Read back, every cell is the very value of the table, and an empty one where there is none."""
    header, *body = csv.reader(io.StringIO(to_csv(comparison(), found), newline=""))
    assert header == columns(comparison(), found)
    table = rows(comparison(), found)
    assert len(body) == len(table) == len(found)
    for cells, row in zip(body, table, strict=True):
        for cell, value in zip(cells, row.values(), strict=True):
            assert cell == "" if value is None else type(value)(cell) == value


def test_the_table_says_what_the_training_left() -> None:
    """The row has the best epoch's values, the test metrics of that epoch's model, and the clocks."""
    (row,) = rows(comparison(), [result("a", 0.9, test={"accuracy": 0.88, "loss": 0.4}, compile_seconds=2.0)])
    assert row == {
        "variant": "a",
        "seed": 0,
        "status": FINISHED,
        "val_accuracy": 0.9,
        "val_loss": 0.9,
        "accuracy": 0.6,
        "loss": 0.5,
        "train_eval_accuracy": None,
        "train_eval_loss": None,
        "test_accuracy": 0.88,
        "test_loss": 0.4,
        "best_epoch": 2,
        "epochs": 3,
        "train_seconds": 1.5,
        "compile_seconds": 2.0,
        "steps_per_second": 20.0,
    }


REGRESSION = comparison(
    Metric("val_r2", best="max"),
    base=training(loss="mse", metrics=["mae"]),
    measures=[Metric("val_mae", unit="mm"), Metric("penalty", best="min")],
)


def regressed(name: str, r2: float, seed: int = 0) -> Result:
    """A training of one epoch, whose values are not shares."""
    logged = {"loss": 2923.456, "r2": r2, "mae": 41.5, "rmse": 54.07, "mape": 7.0}
    every = logged | {f"val_{name}": value for name, value in logged.items()}
    every |= {"train_eval_r2": r2, "train_eval_loss": 2900.0, "penalty": 0.000012345, "train_seconds": 0.5}
    history = {name: [value] for name, value in every.items()}
    return result(name, history=history, best_epoch=1, seed=seed, test={"r2": 0.4, "loss": 3000.0, "mae": 40.0})


def test_any_metric_has_a_table() -> None:
    """The selection metric is first, then the loss and what else verdicts are drawn on; the CSV has all that is logged.

    Numbers are readable whatever their size, and what verdicts are drawn on has its interval.
    """
    found = [regressed("a", 0.45, 1), regressed("a", 0.47, 2)]
    assert [metric.name for metric in shown_metrics(REGRESSION, found)] == ["val_r2", "val_loss", "val_mae"]
    header, row = to_cells(REGRESSION, found)
    assert header[:6] == ["variant", "val. r2", "val. loss", "val. mae", "penalty", "r2"]
    assert header[6:] == ["loss", "test r2", "best epoch", "train (s)", "steps/s"]
    assert row[1:8] == [
        "0.4600 ± 0.1271",
        "2,923.5",
        "41.5000 ± 0.0000",
        "0.0000123 ± 0",
        "0.4600",
        "2,923.5",
        "0.4000",
    ]
    names = columns(REGRESSION, found)
    first = ["val_r2", "val_loss", "r2", "loss", "train_eval_r2", "train_eval_loss", "test_r2", "test_loss", "val_mae"]
    assert names[3:] == [
        *first,
        *("penalty", "mae", "test_mae", "val_rmse", "rmse", "val_mape", "mape"),
        *("best_epoch", "epochs", "train_seconds", "compile_seconds", "steps_per_second"),
    ]


def test_a_table_by_the_loss_has_another_metric_beside_it() -> None:
    """Where the loss is selected by, readers still see the first metric that was logged, after it."""
    header, _ = to_cells(comparison("val_loss"), [result("a")])
    assert header[1:6] == ["val. loss", "val. accuracy", "loss", "accuracy", "test loss"]
    header, _ = to_cells(
        comparison("val_loss"), [result("a", history={"loss": [1.0], "val_loss": [1.0]}, best_epoch=1)]
    )
    assert header[1:4] == ["val. loss", "loss", "test loss"]


def test_a_number_is_readable_whatever_its_size() -> None:
    """Four decimals where they tell something, and significant digits of what is very large or small."""
    values = (0.98765, 0.0, -12.3456789, 1e-5, 123456.7, 3e30, NAN)
    assert [*map(number_text, values)] == ["0.9877", "0.0000", "-12.3457", "0.00001", "123,460", "3e+30", "–"]


@given(st.lists(results(), max_size=4, unique_by=lambda result: result.variant.name))
def test_the_markdown_table_has_a_row_for_each_result(found: list[Result]) -> None:
    """Below header and rule is one line for each result, best first, each with as many cells as the header."""
    header, rule, *body = to_markdown(comparison(), found).rstrip("\n").split("\n")
    cells = [re.split(r"(?<!\\)\|", line) for line in (header, rule, *body)]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert set(rule) == set("|-: ")
    shown = [row[1].strip().replace("\\|", "|") for row in cells[2:]]
    assert shown == [row[0].strip() for row in to_cells(comparison(), found)[1:]]


def test_a_pipe_in_a_name_does_not_split_a_markdown_cell() -> None:
    """A pipe is escaped, since it would begin a new cell."""
    assert "| a \\| b | 0.5000 |" in to_markdown(comparison(), [result("a | b")])


def test_readers_are_told_how_a_training_ended() -> None:
    """A training that did not finish has its state beside its name, and a dash where it has no number."""
    found = [result("bad", NAN, status=DIVERGED), result("worse", history={}, best_epoch=None, status=FAILED)]
    bad, worse = to_cells(comparison(), found)[1:]
    assert bad[:2] == ["bad (diverged)", "–"]
    assert worse == ["worse (failed)", "–", "–", "–", "–", "–", "– of 0", "0.0", "–"]


@given(results())
def test_the_history_csv_gives_the_history_back(found: Result) -> None:
    """A row an epoch, numbered from 1, with every metric's very values."""
    header, *body = csv.reader(io.StringIO(history_csv(found)))
    assert header == ["epoch", *found.history]
    assert [row[0] for row in body] == [str(epoch + 1) for epoch in range(found.epochs)]
    for column, values in enumerate(found.history.values(), start=1):
        assert [repr(float(row[column])) for row in body] == [repr(value) for value in values]
