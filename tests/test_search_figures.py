"""The figures and the table of a search: what each shows, and that nothing in them covers anything else."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from words import mlp

from experiments.report.looks import choices_text
from mlplab import search_figures, tables
from mlplab.records import Candidate, SearchResult
from mlplab.results import Result

SPACE = {
    "learning_rate": [0.001, 0.01, 0.1],
    "model.dropout": [0.2, 0.3, 0.5],
    "batch_size": [32, 64, "full"],
    "model.hidden": [(128, 64), (256,)],
}


def searched(candidates: int = 12, failed: int = 1) -> SearchResult:
    """A search's result as one leaves it."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(candidates):
        choices = {name: values[rng.integers(len(values))] for name, values in SPACE.items()}
        score = 0.3 + 0.06 * math.log10(choices["learning_rate"] * 1000) - 0.1 * choices["model.dropout"]
        scores = [math.nan] * 3 if place < failed else (score + rng.normal(0, 0.01, 3)).tolist()
        found.append(Candidate(choices=choices, scores=scores))
    return SearchResult(candidates=found, refit=Result(variant=mlp(name="candidate 2")), scoring="accuracy")


def test_the_parallel_coordinates_have_an_axis_for_each_field(tmp_path: Path) -> None:
    """One axis a searched choice and one for the accuracy, a line for each candidate with a score, the best thick."""
    figure = search_figures.parallel(searched(), "CIFAR-10")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["learning rate", "dropout", "batch size", "hidden", "mean accuracy"]
    widths = [line.get_linewidth() for line in drawn_lines(axes)]
    assert len(widths) == 11
    assert widths.count(max(widths)) == 1
    assert len(figure.axes) == 2  # the colour bar
    figure.savefig(tmp_path / "figure.png")


def drawn_lines(axes: Any) -> list[Any]:
    """The candidates' lines of parallel coordinates."""
    return [line for line in axes.lines if line.get_gid() == "candidate"]


@pytest.mark.parametrize("candidates", [1, 4, 60])
def test_no_line_of_the_parallel_coordinates_crosses_a_name(tmp_path: Path, candidates: int) -> None:
    """Lines end at either side of an axis' names, of numbers and texts, few and many candidates."""
    figure = search_figures.parallel(with_optimizers(candidates, SPACE | {"optimizer": ["sgd", "adam"]}), "CIFAR-10")
    figure.savefig(tmp_path / "figure.png")
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 6
    for box in boxes:
        assert not any(box.overlaps(other) for other in boxes if other is not box)
    for line in drawn_lines(axes):
        points = axes.transData.transform(line.get_xydata())
        for a, b in itertools.pairwise(points):
            if np.isfinite([a, b]).all():
                between = a + np.linspace(0, 1, 200)[:, None] * (b - a)
                assert not any(box.contains(x, y) for box in boxes for x, y in between)


def with_optimizers(candidates: int, space: dict[str, Any]) -> SearchResult:
    """A search's result over optimizers, of which Adam has no momentum."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(candidates):
        choices = {name: values[rng.integers(len(values))] for name, values in space.items()}
        if choices["optimizer"] == "adam":
            choices.pop("optimizer.momentum", None)
        found.append(Candidate(choices=choices, scores=rng.uniform(0.3, 0.5, 3).tolist()))
    return SearchResult(candidates=found, refit=Result(variant=mlp()), scoring="accuracy")


def test_what_does_not_apply_is_shown_as_such(tmp_path: Path) -> None:
    """A candidate without a momentum has a – in table and on the axis, and is missing in the panel, which says so."""
    result = with_optimizers(8, {"optimizer": ["sgd", "adam"], "optimizer.momentum": [0.0, 0.9]})
    having = sum("optimizer.momentum" in candidate.choices for candidate in result.candidates)
    assert 0 < having < 8
    assert [row[2] for row in tables.search_cells(result)[1:]].count("–") == 8 - having
    parallel, slices = search_figures.parallel(result, "MNIST"), search_figures.slices(result, "MNIST")
    assert "–: does not apply" in parallel.axes[0].get_xlabel()
    assert [text.get_text() for text in parallel.axes[0].texts].count("–") == 1
    momentum = slices.axes[1]
    assert momentum.get_xlabel() == f"momentum\n({having} of 8 candidates have one)"
    assert len(momentum.lines) == 2 * having
    for figure in (parallel, slices):
        figure.savefig(tmp_path / "figure.png")
    assert choices_text(result.candidates[0].choices).startswith("optimizer ")


def test_the_slices_have_a_panel_for_each_field(tmp_path: Path) -> None:
    """One panel a searched choice, accuracy against its values; magnitudes on a logarithmic axis."""
    figure = search_figures.slices(searched(), "CIFAR-10")
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning rate", "dropout", "batch size", "hidden"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear", "linear"]
    figure.savefig(tmp_path / "figure.png")


def test_a_candidate_that_failed_is_in_the_table_without_a_score() -> None:
    """One of whose folds some or all failed comes last, with what it has."""
    found = searched(4, 1)
    found.candidates[1].scores[2] = math.nan
    header, *rows = tables.search_cells(found)
    place, mean = header.index("mean score"), header.index("folds")
    assert [row[0] for row in rows[-2:]] == ["1", "2"]
    assert [row[place : place + 2] for row in rows[-2:]] == [["–", "–"]] * 2
    assert rows[-2][mean] == "– – –"
    assert re.fullmatch(r"0\.\d{4} 0\.\d{4} –", rows[-1][mean])
    assert all(re.fullmatch(r"0\.\d{4}", cell) for row in rows[:-2] for cell in row[place : place + 2])


def test_figures_of_a_single_or_failed_candidate(tmp_path: Path) -> None:
    """One candidate, or none that has a score, still makes a figure, which names nothing that it does not show."""
    one, none = searched(1, 0), searched(2, 2)
    parallel, slices = search_figures.parallel(one, "CIFAR-10"), search_figures.slices(one, "CIFAR-10")
    assert parallel.axes[0].get_xlabel() == ""
    assert len(parallel.axes) == 1  # accuracies of one have no scale of colours
    assert [text.get_text() for text in slices.legends[0].texts] == ["one fold", "best candidate"]
    empty = search_figures.parallel(none, "CIFAR-10"), search_figures.slices(none, "CIFAR-10")
    for figure in empty:
        assert "no candidate has a score" in [text.get_text() for text in figure.axes[0].texts]
    assert [text.get_text() for text in empty[1].legends[0].texts] == ["2 of 2 candidates failed"]
    for figure in (parallel, slices, *empty):
        figure.savefig(tmp_path / "figure.png")
