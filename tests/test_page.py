"""What `mlplab.page` promises: one file, the answer first, the numbers of the tables, and no text that is code."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, r2_score
from test_figures import CASES, SEEDS, several, trained, training
from test_run import Quiet, Screen

from mlplab import conclusion, loading, origin, page, page_charts, page_parts, predicted, results, run, tables
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.data import Dataset, load
from mlplab.page_tested import Answered
from mlplab.predicted import Classified, Fitted
from mlplab.records import Record
from mlplab.results import Result
from mlplab.verdicts import judge

QUESTION = "Which optimizer is better?"
HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '<!--"&`a`', "a.b[0]\\'$x$")
ORDER = ["figure", "table", "verdicts", "curves", "targets", "test", "trained", "origin", "commands"]


class Read(HTMLParser):
    """A page as a browser reads it: its elements, its texts, and its tables by their boxes' labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._box, self._open, self._cell = "", "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        self._open = tag
        if values.get("role") == "region":
            self._box = str(values["aria-label"])
            self.tables[self._box] = []
        if tag == "tr" and self._box:
            self.tables[self._box].append([])
        if tag in ("th", "td"):
            self.tables[self._box][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("th", "td")
        self._open = "" if tag in ("script", "style") else self._open

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts.append(data)
        elif self._open != "style":
            self.text.append(data)
        if self._cell:
            self.tables[self._box][-1][-1] += data

    @property
    def sections(self) -> list[str]:
        """The names of its sections, in their order."""
        return [str(values["id"]) for tag, values in self.elements if tag == "section"]

    @property
    def charts(self) -> dict[str, Any]:
        """What its charts are drawn from."""
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def compared(found: list[Result], question: str = QUESTION, **changes: Any) -> Comparison:
    """A comparison that has these results."""
    names = list(dict.fromkeys(result.variant.name for result in found))
    seeds = tuple(dict.fromkeys(result.seed for result in found))
    variants = {name: {"learning_rate": 0.001 * place} for place, name in enumerate(names, 1)}
    fields = {
        "question": question,
        "data": "digits",
        "base": training(),
        "variants": variants,
        "seeds": seeds,
    } | changes
    return Comparison(**fields)


def made(found: list[Result], data: Dataset, tested: Answered | None = None, **changes: Any) -> str:
    """The page of results."""
    comparison = compared(found, **changes)
    verdicts = judge(results.measures(comparison, found), comparison.against) if len(comparison.variants) > 1 else []
    return page.comparison_page(comparison, data, found, verdicts, "sqlite:////a/b.db", "0" * 32, tested=tested)


def answers(data: Dataset, errors: int = 0) -> np.ndarray:
    """Probabilities that are right but for the first examples, of which the earlier are surer."""
    labels, classes = data.test.y.reshape(-1).astype(int), data.classes
    said = np.where(np.arange(len(labels)) < errors, (labels + 1) % classes, labels)
    found = np.full((len(labels), classes), 0.2 / (classes - 1))
    found[np.arange(len(labels)), said] = 0.8 - 0.001 * np.minimum(np.arange(len(labels)), 100)
    return found / found.sum(axis=1, keepdims=True)


def classified(data: Dataset, result: Result, errors: int = 3) -> Answered:
    return Answered(result, data, predicted.compared(answers(data, errors), data, True))


# ------------------------------------------------------------------------------------------------------- what is shown


def test_the_sections_stand_in_the_order_in_which_a_reader_asks(dataset: Dataset) -> None:
    """The question, the answer, the figure, the table, verdicts, curves, targets, the test set, and what is behind."""
    found = several(3)
    text = made(found, dataset, classified(dataset, found[0]), targets={"val_accuracy": 0.8})
    read = Read(text)
    assert read.sections == ORDER
    assert text.index(f"<h1>{QUESTION}</h1>") < text.index('class="answer"') < text.index('id="figure"')


def test_the_answer_is_that_of_everywhere_else(dataset: Dataset) -> None:
    """The page has the text of `answer_of`, which the terminal, the run's tag and verdicts.json have."""
    found = several(3)
    comparison = compared(found)
    verdicts = judge(results.measures(comparison, found), comparison.against)
    answer = answer_of(comparison, found, verdicts)
    text = made(found, dataset)
    assert f'<p class="answer">{page_parts.escaped(answer)}</p>' in text
    assert all(f"<li>{page_parts.escaped(verdict.sentence)}</li>" in text for verdict in verdicts)


def test_the_figure_is_what_the_answer_rests_on(dataset: Dataset) -> None:
    """With verdicts the first chart shows differences; of one seed it shows the validation curves."""
    with_verdicts, one_seed = (Read(made(found, dataset)).charts["charts"] for found in (several(3), CASES["normal"]))
    assert "series" not in with_verdicts[0]
    assert one_seed[0]["series"] == "val_accuracy"


def test_the_numbers_are_those_of_the_table(dataset: Dataset) -> None:
    """Table and targets have the cells of `mlplab.tables`, and curves the values of the histories."""
    found = several(3)
    comparison = compared(found, targets={"val_accuracy": 0.8})
    read = Read(made(found, dataset, targets={"val_accuracy": 0.8}))
    assert read.tables["the variants' numbers, best first"] == tables.to_cells(comparison, found)
    assert read.tables["how soon targets were reached"] == tables.target_cells(results.targets(comparison, found))
    curves = read.charts["curves"]
    assert curves["epochs"] == list(range(1, 21))
    of_adam = [line for line in curves["of"]["val_loss"]["seeds"] if line["v"] == 1]
    for line, result in zip(of_adam, found[3:6], strict=True):
        assert line["y"] == pytest.approx(result.history["val_loss"], rel=1e-5)
    (mean,) = [line for line in curves["of"]["val_loss"]["means"] if line["v"] == 1]
    assert mean["m"] == pytest.approx(np.mean([r.history["val_loss"] for r in found[3:6]], axis=0), rel=1e-5)


def test_choices_that_differ_come_first(dataset: Dataset) -> None:
    """What variants have in common is folded behind the choices in which they differ."""
    text = made(several(1), dataset)
    read = Read(text)
    assert read.tables["the choices in which the variants differ"][0] == ["variant", "learning rate"]
    assert ["loss", "sparse_categorical_crossentropy"] in read.tables["common choices"]
    assert text.index("the choices in which the variants differ") < text.index("choices that all variants have")


# ------------------------------------------------------------------------------------------------------------ odd ones


ODD = {**CASES, **SEEDS, "one_variant": several(3, ("Adam",)), "one_of_one": several(1, ("Adam",))}


@pytest.mark.parametrize("name", ODD)
def test_every_outcome_has_a_page(name: str, dataset: Dataset) -> None:
    """Diverged, failed and short trainings, one seed, one variant and many have a page, and none says nan."""
    found = [replace(result, variant=result.variant) for result in ODD[name]]
    read = Read(made(found, dataset))
    cells = [cell for rows in read.tables.values() for row in rows for cell in row]
    assert [cell for cell in cells if re.search(r"\b(nan|inf|None)\b", cell)] == []
    assert {"table", "trained", "origin", "commands"} <= set(read.sections)
    if "failed" not in name:
        assert "curves" in read.sections


@cache
def _schema() -> Callable[[dict[str, Any]], object]:
    import altair

    return altair.Chart.from_dict


@pytest.mark.parametrize("name", ["seeds_diverged", "all_diverged"])
def test_charts_are_what_vega_lite_takes(name: str, dataset: Dataset) -> None:
    """Every chart's specification is one by Vega-Lite's schema, and its curves are told in the page."""
    told = Read(made(ODD[name], dataset, targets={"val_accuracy": 0.5})).charts
    assert told["charts"]
    for chart in told["charts"]:
        _schema()(chart["spec"])
        assert chart.get("series") in {None, *told["curves"]["of"]}


def test_five_variants_of_ten_seeds_are_a_small_page(dataset: Dataset) -> None:
    """5 variants, 10 seeds and 50 epochs take at most 2 MB, of which the one script that draws takes most."""
    names = ("SGD", "Adam", "RMSprop", "Nadam", "Lion")
    found = [trained(name, 50, 0.05 * place + 0.05, seed) for place, name in enumerate(names) for seed in range(10)]
    text = made(found, dataset, classified(dataset, found[0], 12), targets={"val_accuracy": 0.9})
    assert len(text.encode()) < 1.4e6
    assert text.count("window.vegaEmbed=") == 1


def test_long_trainings_are_thinned(dataset: Dataset) -> None:
    """Of 3,000 epochs at most as many are told as a chart can show, the first and the last among them."""
    told = Read(made([trained("a", 3_000), trained("b", 3_000, 0.2)], dataset)).charts["curves"]
    assert len(told["epochs"]) <= page_charts.MOST_POINTS
    assert (told["epochs"][0], told["epochs"][-1]) == (1, 3_000)


def test_texts_of_others_are_no_code(dataset: Dataset) -> None:
    """Names of variants and classes, the question and data are shown as they are, and none becomes an element."""
    found = [trained(name, speed=0.1 * place + 0.1, seed=seed) for place, name in enumerate(HOSTILE) for seed in (0, 1)]
    data = replace(dataset, class_names=tuple(f"{HOSTILE[place % 4]}{place}" for place in range(10)), source=HOSTILE[0])
    question = f"Is {HOSTILE[0]} better than {HOSTILE[1]}?"
    plain = Read(made(several(2, ("a", "b", "c", "d")), dataset, classified(dataset, found[0])))
    read = Read(made(found, data, Answered(found[0], data, classified(data, found[0]).found), question=question))
    assert [tag for tag, _ in read.elements if tag == "script"] == ["script"] * 3
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in plain.elements} | {"code"}
    assert not any(name.startswith("on") for _, values in read.elements for name in values)
    assert read.charts["names"] == list(HOSTILE)
    assert "".join(read.text).count(question) >= 2
    rows = [row[0] for row in read.tables["the choices in which the variants differ"][1:]]
    assert rows == [name.replace("`", "") for name in HOSTILE]  # which marks code
    assert page_parts.as_script({"a": HOSTILE[0]}).count("<") == 0


@pytest.mark.parametrize(
    ("argv", "module", "says"),
    [
        (["/usr/bin/mlplab", "compare", "a b.py"], None, "mlplab compare 'a b.py'"),
        (["/x/mlplab/__main__.py", "run", "l2"], "mlplab.__main__", "python -m mlplab run l2"),
        (["/x/kernel.py", "-f", "k.json"], "ipykernel_launcher", ""),
        (["mine.py"], None, ""),
    ],
)
def test_the_command_is_as_it_was_typed(
    argv: list[str], module: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reproduces a comparison is the command that was typed; a program of one's own is none of ours."""
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name=module or "")))
    assert origin.command() == says


def test_a_page_that_cannot_be_made_says_so(dataset: Dataset) -> None:
    """What is wrong with a page is told in its place and beside it, and nothing is raised."""
    written: dict[str, str] = {}

    class Run:
        def text(self, text: str, path: str) -> None:
            written[path] = text

    def draw() -> str:
        raise ValueError("no <ink>")

    conclusion.write_page(Run(), compared(several(1)), "Undecided.", draw)  # type: ignore[arg-type]
    assert set(written) == {"comparison.html", "comparison_page_error.txt"}
    assert "ValueError: no &lt;ink&gt;" in written["comparison.html"]
    assert '<p class="answer">Undecided.</p>' in written["comparison.html"]


# --------------------------------------------------------------------------------------------------------- the test set


def test_a_confusion_matrix_is_scikit_learns(dataset: Dataset) -> None:
    """Counts by true and by predicted class are those of `confusion_matrix`; the surest errors come first."""
    found = predicted.compared(answers(dataset, 20), dataset, True)
    assert isinstance(found, Classified)
    labels = dataset.test.y.reshape(-1)
    expected = confusion_matrix(labels, answers(dataset, 20).argmax(axis=1))
    assert np.array_equal(found.confusion, expected)
    assert found.right == found.examples - 20
    assert [error.example for error in found.errors] == list(range(predicted.MOST_ERRORS))
    logits = predicted.compared(np.log(answers(dataset, 20)) + 3, dataset, True)
    assert isinstance(logits, Classified)
    assert np.array_equal(logits.confusion, expected)
    assert logits.errors[0].probability == pytest.approx(found.errors[0].probability)


def given(x: Any, y: Any) -> Dataset:
    return load({"x": x, "y": y})


def test_one_output_of_two_classes_is_the_second_ones() -> None:
    """A sigmoid's output is the second class's probability, and a logit that of one."""
    y = np.arange(100) % 2
    data = given(np.zeros((100, 3)), y)
    own = data.test.y.reshape(-1)
    for outputs in (np.where(own, 0.9, 0.2)[:, None], np.where(own, 2.0, -2.0)[:, None]):
        found = predicted.compared(outputs, data, True)
        assert isinstance(found, Classified)
        assert found.right == len(own)


def test_residuals_are_scikit_learns() -> None:
    """Numbers of a regression are those that scikit-learn has of the same predictions."""
    rng = np.random.default_rng(0)
    data = given(rng.normal(size=(60, 2)), rng.normal(size=60))
    outputs = data.test.y.reshape(-1, 1) + rng.normal(0, 0.3, (len(data.test), 1))
    found = predicted.compared(outputs, data, False)
    assert isinstance(found, Fitted)
    assert found.numbers["R²"] == pytest.approx(r2_score(data.test.y.reshape(-1), outputs[:, 0]))
    assert found.numbers["mean residual"] == pytest.approx(float((outputs[:, 0] - data.test.y.reshape(-1)).mean()))
    result = trained("Adam")
    read = Read(made([result], data, Answered(result, data, found)))
    assert read.tables["residuals on the test set"][1][1] == tables.number_text(found.numbers["mean residual"])
    assert len([chart for chart in read.charts["charts"] if "series" not in chart]) == 2


@pytest.mark.parametrize(
    ("outputs", "y", "says"),
    [
        (np.full((20, 3), 0.5), np.tile([[1, 0, 1], [0, 0, 0]], (50, 1)), "3 targets at once"),
        (np.zeros((20, 7, 5)), np.zeros((100, 7), int), "7 targets at once"),
        (np.zeros((20, 7, 5)), np.arange(100) % 5, "do not say which class"),
        (np.zeros((20, 1)), {"a": np.linspace(0, 1, 100), "b": np.linspace(0, 1, 100)}, "several targets"),
        (np.full((20, 1), math.nan), np.linspace(0, 1, 100), "not finite"),
        ({"a": np.zeros((20, 1))}, np.linspace(0, 1, 100), "several outputs"),
    ],
)
def test_what_has_no_matrix_says_why(outputs: Any, y: Any, says: str) -> None:
    """Several labels at once, sequences, several outputs and what is not finite leave one sentence."""
    data = given(np.zeros((100, 3)), y)
    assert len(data.test) == 20
    found = predicted.compared(outputs, data, True)
    assert isinstance(found, str)
    assert says in found
    result = trained("Adam")
    text = made([result], data, Answered(result, data, found))
    assert "Confusion matrix" not in text
    assert page_parts.escaped(found) in text


def test_a_model_that_cannot_be_asked_is_no_failure(dataset: Dataset) -> None:
    """A model that raises leaves the sentence that it did."""

    def model(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such layer")

    result = trained("Adam", weights=[np.zeros(1)])
    found = conclusion._tested(model, result, dataset).found
    assert isinstance(found, str)
    assert "could not be asked" in found


def test_errors_show_images_or_values() -> None:
    """Images are embedded, large ones made smaller; of rows the values are shown, categories by their texts."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 4
    result = trained("Adam")
    images = given(rng.integers(0, 256, (100, 200, 100, 3), np.uint8), y)
    (shown,) = predicted.images(images, 0).values()
    assert shown.shape == (50, 25, 3)
    read = Read(made([result], images, classified(images, result)))
    sources = [values["src"] for tag, values in read.elements if tag == "img"]
    assert len(sources) == 3
    assert all(str(source).startswith("data:image/png;base64,") for source in sources)
    rows = given(np.round(rng.normal(size=(100, 20)), 2), y)
    read = Read(made([result], rows, classified(rows, result)))
    first = read.tables["the most confident errors"][1]
    assert first[-1].startswith(", ".join(f"{value:.4g}" for value in rows.test.x[0, :12]))
    assert first[-1].endswith("(20 values)")


# -------------------------------------------------------------------------------------------------------- in the store


@pytest.fixture(scope="module")
def stored(
    empty_store: Path, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset
) -> Iterator[tuple[Record, Path]]:
    """A comparison of two variants and two seeds that has run, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        comparison = compared(several(2, ("SGD", "Adam")), name="two")
        comparison = comparison.with_base(epochs=2, batch_size=128)
        record, *_ = run.Lab(lambda _: dataset, Screen(Quiet()), loading.Options()).run(comparison)
        kept = Path(mlflow.MlflowClient().download_artifacts(record.run_id, "", str(tmp_path_factory.mktemp("kept"))))
        yield record, kept
        mlflow.set_tracking_uri(None)


def test_a_comparison_leaves_its_page(stored: tuple[Record, Path]) -> None:
    """The run has the page with its answer, its winner's test set, and commands that name the runs of the store."""
    record, kept = stored
    text = (kept / "comparison.html").read_text()
    assert not (kept / "comparison_page_error.txt").exists()
    assert isinstance(record.experiment, Comparison)
    best = results.rank(record.experiment, record.results)[0].representative
    read = Read(text)
    right = re.search(r"([\d,]+) of ([\d,]+) are right", "".join(read.text))
    assert right is not None
    assert int(right[1]) / int(right[2]) == pytest.approx(best.test["accuracy"], abs=1e-6)
    assert sum(int(cell) for row in read.tables["confusion matrix"][1:] for cell in row[1:]) == 300
    answer = json.loads((kept / "verdicts.json").read_text())["answer"]
    assert page_parts.escaped(answer) in text
    assert f"replay --run-id {best.run_id}" in text
    assert f"register --run-id {best.run_id} --name two --dataset digits" in text
    runs = [row[-1] for row in read.tables["the trainings' runs"][1:]]
    assert runs == [result.run_id for result in record.results]
    assert record.run_id in text
