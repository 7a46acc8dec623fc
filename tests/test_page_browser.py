"""A comparison's page as a person meets it, in a browser that has no network."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PATIENCE
from playwright.sync_api import Browser, Locator, Page, expect
from test_figures import several, trained
from test_page import HOSTILE, ODD, classified, given, made

from mlplab import predicted
from mlplab.data import Dataset
from mlplab.page_tested import Answered

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
NAMES = ("SGD", "Adam", "RMSprop")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> dict[str, Path]:
    """Pages of several kinds, as files."""
    folder = tmp_path_factory.mktemp("pages")
    seeds = several(4, NAMES)
    rows = given([[float(i), 2.0 * i] for i in range(100)], [0.1 * i for i in range(100)])
    close = predicted.compared(rows.test.y.reshape(-1, 1) + 0.05, rows, False)
    hostile = [trained(name, speed=0.1 * place + 0.1) for place, name in enumerate(HOSTILE)]
    texts = {
        "whole": made(seeds, dataset, classified(dataset, seeds[0]), targets={"val_accuracy": 0.8}),
        "regression": made(several(1), rows, Answered(seeds[0], rows, close)),
        "hostile": made(hostile, dataset, question=f"Is {HOSTILE[0]} or {HOSTILE[1]} better?"),
        "diverged": made(ODD["seeds_diverged"], dataset),
        "crowd": made(ODD["seeds_of_a_crowd"], dataset),
        "failed": made(ODD["all_failed"], dataset),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, "utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page; no script may fail or warn on it, and nothing may be asked for."""
    troubles: list[str] = []
    contexts = []

    def visit(name: str, width: int = 1440, height: int = 900, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda said: troubles.append(said.text))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on(
            "request", lambda asked: troubles.append(asked.url[:100]) if asked.url[:5] not in ("file:", "data:") else 0
        )
        page.goto(pages[name].as_uri())
        if page.locator("[data-chart]").count():
            page.wait_for_selector("html[data-drawn]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert troubles == []


def lines(page: Page, section: str) -> Locator:
    """The means that the first chart of a section draws."""
    return page.locator(f"{section} .chart").first.locator(".mark-line path[stroke-width='2.4']")


def test_every_chart_is_drawn(visit: Open) -> None:
    """Each place of a chart holds one with marks, also inside a closed fold, and none says that it was not drawn."""
    for name in ("whole", "regression", "hostile", "diverged", "crowd"):
        page = visit(name)
        places = page.locator("[data-chart]")
        assert places.count() > 0
        assert page.locator("[data-chart][data-drawn] svg.marks").count() == places.count()
        assert page.locator("html").get_attribute("data-drawn") == str(places.count())
    assert visit("failed").locator("[data-chart]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["whole", "regression", "hostile", "diverged"])
def test_nothing_stands_in_the_way_of_anybody(visit: Open, name: str, scheme: str) -> None:
    """axe-core finds nothing serious or critical, with all folds open, in light and in dark."""
    page = visit(name, color_scheme=scheme)
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


@pytest.mark.parametrize("name", ["whole", "regression", "hostile", "diverged", "crowd"])
def test_a_phone_shows_it_without_scrolling_sideways(visit: Open, name: str) -> None:
    """At 390 pixels only tables and commands scroll, each in its own box, and the answer is on the first screen."""
    page = visit(name, 390, 844, is_mobile=True, has_touch=True)
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    right = "Math.max(...[...document.querySelectorAll('.chart svg')].map((one) => one.getBoundingClientRect().right))"
    assert page.evaluate(right) <= 390
    box = page.locator(".answer").bounding_box()
    assert box is not None
    assert box["y"] < 844 / 2


def test_a_click_on_a_variant_hides_it_everywhere(visit: Open) -> None:
    """A variant's button takes its curves out of all charts, and the next press, by the keyboard, brings them back."""
    page = visit("whole")
    expect(lines(page, "#curves")).to_have_count(3)
    expect(lines(page, "#targets")).to_have_count(3)
    button = page.locator("#curves").get_by_role("button", name="Adam", exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#targets").get_by_role("button", name="Adam", exact=True)).to_have_attribute(
        "aria-pressed", "false"
    )
    expect(lines(page, "#curves")).to_have_count(2)
    expect(lines(page, "#targets")).to_have_count(2)
    button.press("Enter")
    expect(lines(page, "#curves")).to_have_count(3)


def test_charts_are_zoomed_and_tell_their_values(visit: Open) -> None:
    """A drag across a chart zooms all of them, a double click or the button shows all epochs again; hovering names each
    variant's value."""
    page = visit("whole")
    chart, first, last = page.locator("#curves .chart").first, *page.locator("#curves input").all()
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    tip = page.locator("#tip")
    expect(tip).to_be_visible()
    expect(tip).to_contain_text(re.compile(r"epoch \d+.*SGD.*0\.\d{4} ± .*RMSprop", re.DOTALL))
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], middle, steps=4)
    page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=4)
    page.mouse.up()
    expect(first).not_to_have_value("1")
    assert 1 < int(first.input_value()) < int(last.input_value()) < 20
    page.locator("#curves").get_by_role("button", name="all epochs").click()
    expect(first).to_have_value("1")
    last.fill("5")
    last.press("Enter")
    labels = page.locator("#curves .chart").nth(2).locator(".role-axis-label text")
    expect(labels.get_by_text("5", exact=True)).to_have_count(1)
    expect(labels.get_by_text("20", exact=True)).to_have_count(0)


def test_it_prints(visit: Open, tmp_path: Path) -> None:
    """In print the folds are open, charts fit the paper, and dark mode is light."""
    page = visit("whole", color_scheme="dark")
    page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") >= 3
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 960})
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_it_works_in_the_frame_of_mlflows_preview(browser: Browser, pages: dict[str, Path]) -> None:
    """In a sandboxed frame that allows scripts alone, as MLflow's preview is, all charts are drawn."""
    page = browser.new_page()
    page.set_content('<iframe sandbox="allow-scripts" style="width:900px;height:700px"></iframe>')
    page.locator("iframe").evaluate("(frame, text) => { frame.srcdoc = text; }", pages["whole"].read_text("utf-8"))
    inside = page.frame_locator("iframe")
    expect(inside.locator("html[data-drawn]")).to_have_count(1, timeout=1000 * PATIENCE)
    assert inside.locator("[data-chart] svg.marks").count() == inside.locator("[data-chart]").count()
    page.close()
