"""What `experiments.report` promises of its page: the whole report in HTML and Markdown, from whatever is on record."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_claims import FIVE, FULL, records

from experiments.report import charts, plan
from experiments.report import page as report
from experiments.report.__main__ import reported
from experiments.report.blocks import Folded, Judged, Paragraph, Picture, References, Table
from experiments.report.claims import CLAIMS
from experiments.report.pictures import Album
from experiments.report.plan import title_of
from experiments.report.quantities import REPRODUCED
from experiments.report.sections import section
from mlplab import figures, results, search_figures, verdict_figures
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.loading import Options
from mlplab.records import Record
from mlplab.results import DIVERGED, FAILED
from mlplab.verdicts import Verdict, judge

CIRCUMSTANCES = {"mlplab": "0.1.0", "processor": "a <fast> one & only", "commit": "c0ffee"}
NUMBERS = [*map(str, range(2, 26)), "24b"]
SINGLE = tuple(name for name in reported() if name in ("optimizers", "predict", "random_search"))


class Reader(HTMLParser):
    """Reads a page: whether its tags are balanced, its text, and what it refers to."""

    VOID = {"meta", "img", "br", "hr", "link", "source"}  # noqa: RUF012

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.references, self.tags, self.ids = "", [], set(), set()  # type: ignore[var-annotated]
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data.replace("\xa0", " ")


def read(path: Path) -> Reader:
    page = Reader(path.read_text("utf-8"))
    assert not page.open
    return page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The report on a full set of records."""
    return report.write(FULL, tmp_path_factory.mktemp("report") / "new", CIRCUMSTANCES, 1234.5)


def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "learning_curves",
        "comparison_curves",
        "predictions",
        "learning_rates",
    ]
    rooms: dict[Any, list[str]] = {figures: names, verdict_figures: ["differences", "reached"]}
    rooms |= {search_figures: ["parallel", "slices", "budget"], charts: ["answer", "times"]}
    for room, drawn in rooms.items():
        for name in drawn:
            monkeypatch.setattr(room, name, lambda *arguments, **options: figures.Figure(figsize=(1, 1)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that cost nothing, for tests of the words around them."""
    cheap(monkeypatch)


def write(found: Mapping[str, Record], folder: Path) -> tuple[Reader, str]:
    page, markdown = report.write(found, folder, CIRCUMSTANCES, 60)
    return read(page), markdown.read_text("utf-8")


def test_every_figure_has_its_number_once(written: tuple[Path, Path]) -> None:
    """Figures 2 to 25 and 24b occur exactly once, in the report's order, in HTML and in Markdown."""
    page, markdown = read(written[0]), written[1].read_text("utf-8")
    for text in (page.text, markdown):
        seen = re.findall(r"Figure (\w+)", text)
        assert sorted(seen) == sorted(NUMBERS)
        assert [n for n in seen if n != "24b"] == [str(n) for n in range(2, 26)]


def test_the_page_refers_to_nothing_outside_itself(written: tuple[Path, Path]) -> None:
    """All pictures, the style and the script are in the page, and links lead to what it has."""
    page = read(written[0])
    assert not page.tags & {"link", "iframe"}
    links = {reference for reference in page.references if not reference.startswith("data:image/png;base64,")}
    assert {link.removeprefix("#") for link in links} <= page.ids
    assert "url(" not in written[0].read_text("utf-8")
    assert len(page.references) - len(links) >= len(NUMBERS) + 2


def test_the_markdowns_pictures_are_files(written: tuple[Path, Path]) -> None:
    """Each image link of the Markdown leads to a PNG beside it, one of them figure 2's; nothing else is left."""
    names = re.findall(r"!\[.*?\]\((.*?)\)", written[1].read_text("utf-8"))
    assert "figures/figure_02.png" in names
    assert len(set(names)) == len(names) >= len(NUMBERS) + 2
    for name in names:
        assert (written[1].parent / name).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in written[1].parent.iterdir()} == {"report.html", "report.md", "figures"}
    assert {f"figures/{path.name}" for path in (written[1].parent / "figures").iterdir()} == set(names)


PUBLISHED = (
    "7,830.7 594.5 97 87 92 177 297.15 293.73 20 7,577.7 0.0503 0.0954 0.98 0.97 0.15 100 98 109,386 "
    "0.4978 0.4780 0.4890 0.4829 199 0.01 0.2 64 negligible stuck"
)


def test_every_published_number_is_there(written: tuple[Path, Path]) -> None:
    """Each number of the report, each claim and each circumstance stands in the HTML and in the Markdown."""
    page, markdown = read(written[0]).text, written[1].read_text("utf-8")
    for number in PUBLISHED.split():
        for text in (page, markdown):
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d]|[.,]\d)", text), number
    for claim in CLAIMS:
        assert claim.text in page
        assert claim.text in markdown
    for value in CIRCUMSTANCES.values():
        assert value in page
    assert "20.6 minutes" in page


def test_each_part_says_its_time_and_run(written: tuple[Path, Path]) -> None:
    """Every experiment has its wall seconds and its MLflow run in the table of times."""
    page = read(written[0]).text
    for name, record in FULL.items():
        assert record.run_id in page
        assert f"{title_of(name)}{record.seconds:.1f}run" in page


@pytest.mark.usefixtures("quick")
def test_names_are_shown_and_not_read_as_markup(tmp_path: Path) -> None:
    """A variant named like a script or a table's end is shown as it is, in HTML and in Markdown."""
    name = "<script>alert('|*x*|')</script>"
    record = FULL["dropout"]
    odd = [replace(result, variant=result.variant.but(name=name)) for result in record.results[:1]]
    page, markdown = write({"dropout": replace(record, results=odd)}, tmp_path)
    assert (tmp_path / "report.html").read_text("utf-8").count("<script") == 1
    assert name in page.text
    assert "<script" not in markdown
    assert r"\|\*x\*\|" in markdown


@pytest.mark.usefixtures("quick")
def test_a_report_without_any_record_says_so(tmp_path: Path) -> None:
    """Each experiment without a record is named, every figure has its place, and nothing is reproduced."""
    page, markdown = write({}, tmp_path)
    for text in (page.text, markdown):
        assert sorted(re.findall(r"Figure (\w+)", text)) == sorted(NUMBERS)
        assert f"claims 0 are reproduced, 0 are not reproduced and {len(CLAIMS)} are not testable" in text
        for name in reported():
            assert f"{title_of(name)} left no record" in text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [FAILED, DIVERGED])
def test_trainings_without_an_epoch_are_shown_as_such(tmp_path: Path, status: str) -> None:
    """Where every training failed or diverged at once, the report is whole and says which and why."""
    broken: dict[str, Any] = {}
    for name, record in FULL.items():
        gone = [
            replace(r, status=status, history={}, best_epoch=None, test={}, error="x\nMemoryError: 3 GB")
            for r in record.results
        ]
        broken[name] = replace(record, results=gone, search=None, predictions=None)
    page, _ = write(broken, tmp_path)
    for record in broken.values():
        for result in record.results:
            assert f"The training “{result.variant.name}” {status}" in page.text
    assert ("MemoryError: 3 GB" in page.text) == (status == FAILED)


@pytest.mark.usefixtures("quick")
def test_stand_in_data_and_few_epochs_are_said_before_any_number(tmp_path: Path) -> None:
    """What makes the numbers useless stands above the summary, with the experiments it is about."""
    notice = "MNIST was not found, so this ran on digits."
    shown = {
        name: replace(record, data="digits (stand-in for MNIST)", notice=notice) if name in SINGLE else record
        for name, record in records(epochs=2).items()
    }
    for text in (page.text if isinstance(page, Reader) else page for page in write(shown, tmp_path)):
        top = text[: text.rindex("Of the report's")]
        about = "; ".join(map(title_of, ("optimizers", "predict", "random_search")))
        assert re.search(rf"{re.escape(notice)}\W*(Which\?)?{about}", top)
        assert f"{title_of('optimizers')}: 2 epochs in place of 50" in top
        assert text.count(notice) == 1
        assert len(re.findall("Run shorter than planned|in place of 50; ", text)) == len(
            re.findall("Run shorter than planned|in place of 50; ", top)
        )


@pytest.mark.usefixtures("quick")
def test_published_numbers_are_compared_with_their_like_alone(tmp_path: Path) -> None:
    """A run on other data, or a shorter one, stands beside no published number; the page says so from its first words.

    Of the optimizers on the digits and a baseline of two epochs no number is shown as if it were the report's.
    """
    digits = replace(FULL["optimizers"], data="digits (stand-in for MNIST)")
    short = {name: record for name, record in records(epochs=2).items() if name == "decay_momentum"}
    page, markdown = write({**FULL, "optimizers": digits, **short}, tmp_path)
    for text in (page.text, markdown):
        assert "2 of 14 on other data or shorter than in the report" in text
        assert "at its own settings" not in text
    rows = {line.split(" | ")[0].lstrip("| "): line.rstrip(" |").split(" | ") for line in markdown.splitlines()}
    assert rows["validation accuracy, SGD"][2:] == ["97 %", "–", "not compared: on digits (stand-in for MNIST)"]
    assert rows["training time, with decay"][2:] == ["297.15 s", "–", "not compared: 2 epochs in place of 50"]
    assert rows["accuracy, dropout 0.2"][2:] == ["49.78 %", "49.78 %", "+0.00 points"]


@pytest.mark.usefixtures("quick")
def test_a_smoke_run_is_called_one(tmp_path: Path) -> None:
    """Every experiment made small by the smoke profile, on the digits: compared with nothing, and said to be small."""
    smoke = {
        name: replace(
            record,
            experiment=Options(smoke=True).adapt(record.experiment),
            data=f"digits (stand-in for {record.data})",
            results=records(epochs=2)[name].results,
        )
        for name, record in FULL.items()
    }
    page, markdown = write(smoke, tmp_path)
    assert "all of them on other data or shorter than in the report" in page.text
    assert "1 is reproduced, 0 are not reproduced and 27 are not testable" in page.text
    for words in ("times as fast", "at its own settings", "does not agree", "95 %"):
        assert words not in page.text, words
    assert "Random search: 2 candidates in place of 10, 2 folds in place of 3, 2 epochs in place of 10" in page.text
    assert f"{title_of('batch_1000')}: 2 epochs in place of 1,000" in page.text
    assert markdown.count("not compared: on digits") == sum(len(c.numbers) for c in CLAIMS) - 1


def test_no_number_has_an_exponent(written: tuple[Path, Path], five: tuple[Path, Path]) -> None:
    """Numbers are written as people write them, but the report's decay of 1e-6 and what is zero but for rounding."""
    for path in (*written, *five):
        text = path.read_text("utf-8") if path.suffix == ".md" else read(path).text
        found = set(re.findall(r"(?<![\w-])\d[\d.]*e[+-]?\d+\b", text))
        assert {number for number in found if float(number) > 1e-15} <= {"1e-6"}
    assert "at its own settings" in read(written[0]).text
    assert "not compared" not in read(written[0]).text


@pytest.mark.usefixtures("quick")
def test_a_search_whose_candidates_all_failed_has_no_best(tmp_path: Path) -> None:
    """Where no candidate has a score, no caption calls one the best."""
    record = FULL["random_search"]
    assert record.search
    lost = [replace(candidate, scores=[math.nan] * 3) for candidate in record.search.candidates]
    page, _ = write({"random_search": replace(record, search=replace(record.search, candidates=lost))}, tmp_path)
    assert "None of the search's 10 candidates has a mean accuracy." in page.text
    assert "Best of" not in page.text


@pytest.mark.usefixtures("quick")
def test_a_failure_leaves_the_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a figure cannot be drawn, the report written before is still there, whole, and nothing else."""
    write(FULL, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def raises(*arguments: object) -> figures.Figure:
        raise MemoryError("no room")

    monkeypatch.setattr(charts, "times", raises)
    with pytest.raises(MemoryError):
        write(FULL, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_report_has_every_experiment_once() -> None:
    """The plan of the figures covers the project's experiments, each part's of its own data set.

    The last part's are not the student's, and no claim stands on them.
    """
    assert sorted(one.experiment for part in plan.PARTS for one in part.sections) == reported()
    for part, dataset in zip(plan.PARTS, ("mnist", "cifar10", "mnist"), strict=True):
        for one in part.sections:
            experiment = FULL[one.experiment].experiment
            assert not isinstance(experiment, Comparison) or experiment.data.source == dataset
            for variant in filter(None, (planned.variant for planned in one.figures)):
                assert isinstance(experiment, Comparison)
                assert variant in experiment.variants
    assert not any(plan.BEYOND & set(claim.experiments) for claim in CLAIMS)


def test_one_seed_is_said_to_be_one(written: tuple[Path, Path]) -> None:
    """The page of one seed says what one seed cannot decide, and shows no interval but the search's."""
    page = read(written[0]).text
    assert page.count("One seed: a difference below 0.3 points of accuracy is not a verdict.") == 1
    assert "One seed cannot tell" not in page
    assert not re.search(r"\d [%s] \[", page)
    assert "means over" not in page


def verdicts_of(record: Record) -> list[Verdict]:
    assert isinstance(record.experiment, Comparison)
    return judge(results.measures(record.experiment, record.results), record.experiment.against)


VERDICTS = verdicts_of(FIVE["optimizers"])


def with_verdicts(verdicts: list[Verdict]) -> dict[str, Record]:
    return {**FIVE, "optimizers": replace(FIVE["optimizers"], verdicts=verdicts)}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The report of five seeds, with verdicts on the optimizers; its figures cost nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cheap(monkeypatch)
        return report.write(with_verdicts(VERDICTS), tmp_path_factory.mktemp("five"), CIRCUMSTANCES, 60)


def test_several_seeds_are_shown_with_intervals_and_verdicts(five: tuple[Path, Path]) -> None:
    """Claims and published numbers have intervals, sections answer and verdicts' sentences, the page its seeds."""
    optimizers = with_verdicts(VERDICTS)["optimizers"]
    answer = answer_of(optimizers.experiment, optimizers.results, VERDICTS)
    assert "(5 seeds), at these settings." in answer
    for text in (read(five[0]).text, five[1].read_text("utf-8").replace("\\", "")):
        ends = r"\[[\d.]+, [\d.]+\]"
        assert answer in text
        assert re.search(rf"SGD 97\.00 % {ends} / Adam 97\.50 % {ends} / RMSprop 98\.00 % {ends} \(5 seeds\)", text)
        assert re.search(rf"97 %\W*97\.00 % {ends} \(5 seeds\)\W+0\.00 points", text)
        assert re.search(rf"RMSprop beats SGD by 1\.00 points of validation accuracy {ends} \(5 seeds\)\.", text)
        assert "Means over 5 seeds of values of the best epoch by validation accuracy" in text
        assert re.search(r"98\.0\d? % ± 0\.\d+", text)
        assert "undecided, which counts as not testable" in text
        assert "One seed:" not in text
        assert re.search(r"seeds\W*1, 2, 3, 4, 5", text)
        assert re.search(r"seed of the search\W*1234", text)


def test_several_seeds_have_figures_of_their_own(five: tuple[Path, Path]) -> None:
    """Differences, times to the target, learning rates and the search's budget are drawn, where there are such."""
    drawn = {path.name for path in (five[1].parent / "figures").iterdir()}
    assert {"optimizers_differences.png", "optimizers_reached.png", "random_search_budget.png"} <= drawn
    assert "lr_sensitivity_rates.png" in drawn
    assert not {"l2_differences.png", "l2_reached.png"} & drawn
    text = read(five[0]).text
    assert "Within 0.2 points they count as practically none" in text
    assert "validation accuracy ≥ 97 %, by seconds of training: SGD " in text
    assert re.search(r"Each optimizer's best .*: sgd \d\d\.\d % at \S+, adam \d\d\.\d % at \S+, rmsprop", text)


def test_the_overview_says_of_which_comparison_a_time_is(five: tuple[Path, Path]) -> None:
    """Two comparisons have a baseline: the fastest and the slowest are named with theirs."""
    says = r"An epoch takes [\d.]+ s with the fastest, “.+?” \(.+?\), and [\d.]+ s with the slowest, “.+?” \(.+?\), "
    assert re.search(says + r"[\d.]+ times as long, means over 5 seeds\.", read(five[0]).text)


SNAKE = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")


def test_no_name_of_the_code_is_shown(five: tuple[Path, Path], tmp_path: Path) -> None:
    """What a reader sees names no experiment and no metric as the code does, nor does the page without a record."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cheap(monkeypatch)
        pages = [(read(five[0]), five[1].read_text("utf-8")), write({}, tmp_path)]
    for page, markdown in pages:
        assert not SNAKE.findall(page.text)
        assert not SNAKE.findall(re.sub(r"\(figures/.*?\)", "", markdown))


def test_numbers_are_written_as_people_write_them(five: tuple[Path, Path]) -> None:
    """Accuracies are in percent wherever they are ours, seconds and counts have their thousands apart."""
    text = five[1].read_text("utf-8").replace("\\", "")
    sections = text[text.index("## Part 1") : text.index("## Behind")]
    assert not re.search(r"accuracy[^|.;]{0,40} 0\.\d\d", re.sub(r"“.*?”", "", sections))
    assert "1,000 of 1,000" in text
    assert not re.search(r"(?<![\w.\[-])\d{4,}(?![\w.-])(?! candidates)", re.sub(r"\b1234\b|0{8}\w*", "", sections))


def test_a_section_answers_before_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Question, answer, figures, tables, verdicts folded, and the claims last: in every section in this order."""
    cheap(monkeypatch)
    record = with_verdicts(VERDICTS)
    orders = {}
    for name, one in plan.SECTIONS.items():
        kinds = [
            block.kind if isinstance(block, Paragraph) else type(block).__name__
            for block in section(one, record, [], Album())[1:]
        ]
        assert kinds[:2] == ["question", "answer"], name
        orders[name] = [kind for kind in dict.fromkeys(kinds) if kind != "quiet"]
    assert orders["optimizers"] == ["question", "answer", Picture.__name__, Table.__name__, Folded.__name__]
    assert orders["random_search"] == ["question", "answer", Picture.__name__, Table.__name__]
    claim = Judged(21, "L2 helps.", REPRODUCED, "helps", "–", "It does.", "", {})
    assert section(plan.SECTIONS["l2"], record, [claim], Album())[-1] == References([claim])


def test_no_picture_is_shown_twice(written: tuple[Path, Path]) -> None:
    """No two figures are the same picture."""
    drawn = [path.read_bytes() for path in (written[1].parent / "figures").iterdir()]
    assert len(set(drawn)) == len(drawn)


def test_the_page_opens_with_its_answer(written: tuple[Path, Path], five: tuple[Path, Path]) -> None:
    """Before the claims stand their counts, which are those of the claims below, and the main ones by name."""
    for path in (written[0], five[0]):
        page = path.read_text("utf-8")
        top = page[page.index("<main") : page.index('id="claims"')]
        counts = [int(many) for many in re.findall(r"(\d+) (?:is|are) (?:not )?(?:reproduced|testable)", top)]
        assert counts == [page.count(f'<details class="{kind}"') for kind in ("good", "bad", "open")]
        assert sum(counts) == len(CLAIMS)
        assert "RMSprop is the best optimizer" in top
        assert top.count("<img") == 1


@pytest.mark.usefixtures("quick")
def test_many_verdicts_are_counted_and_not_listed(tmp_path: Path) -> None:
    """A comparison of very many variants refers to its run for its verdicts."""
    many = [replace(VERDICTS[0], b=f"variant {number}", sentence=f"Sentence {number}.") for number in range(40)]
    page, _ = write(with_verdicts(many), tmp_path)
    assert f"The 40 verdicts are in verdicts.json of the run {FIVE['optimizers'].run_id}." in page.text
    assert "Sentence 7." not in page.text


@pytest.mark.usefixtures("quick")
def test_a_verdict_of_one_seed_is_none(tmp_path: Path) -> None:
    """What one seed says of two variants is not listed as a verdict, and no difference is drawn."""
    alone = replace(FULL["optimizers"], verdicts=verdicts_of(FIVE["optimizers"].of_seed(1)))
    assert "One seed cannot tell" in alone.verdicts[0].sentence
    write({**FULL, "optimizers": alone}, tmp_path)
    assert "One seed cannot tell" not in (tmp_path / "report.md").read_text("utf-8")
    assert not (tmp_path / "figures" / "optimizers_differences.png").exists()


@pytest.mark.usefixtures("quick")
def test_seeds_that_did_not_finish_are_named(tmp_path: Path) -> None:
    """Of five trainings of a variant that diverged or failed, each is named with its seed, and the count is said."""
    record = FIVE["l2"]
    ends = {1: DIVERGED, 2: FAILED}
    broken = [
        replace(r, status=ends.get(r.seed, r.status), error="x\nMemoryError: 3 GB") if r.variant.name == "L2" else r
        for r in record.results
    ]
    page, _ = write({**FIVE, "l2": replace(record, results=broken)}, tmp_path)
    said = (
        "Of the trainings “L2” 1 of 5 diverged, 1 of 5 failed. Seed 1 diverged in epoch 50 and was ended. Seed 2 failed"
    )
    assert f"{said}: MemoryError: 3 GB" in page.text
