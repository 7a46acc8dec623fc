"""The report's page as a person meets it, in a browser: to read, to choose from, to print, on a phone, in the dark.

Each test leaves a screenshot in the folder MLPLAB_SCREENSHOTS, by default `screenshots` in pytest's temporary folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PATIENCE
from playwright.sync_api import Browser, Page, expect
from test_report import CIRCUMSTANCES, VERDICTS, cheap, with_verdicts

from experiments.report import charts
from experiments.report import page as report

pytestmark = pytest.mark.browser

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
A4 = {"width": 688, "height": 1016}
"""What a sheet has between margins of 14 mm, in pixels."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of five seeds; its figures cost nothing, but for the first."""
    draws = charts.answer
    with pytest.MonkeyPatch.context() as monkeypatch:
        cheap(monkeypatch)
        monkeypatch.setattr(charts, "answer", draws)
        page, _ = report.write(with_verdicts(VERDICTS), tmp_path_factory.mktemp("page"), CIRCUMSTANCES, 60)
    return page.as_uri()


@pytest.fixture
def opened(browser: Browser, address: str, request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Page]:
    """The page without a network, at the size and in the scheme that a test asks for; no script may fail on it."""
    size, scheme = getattr(request, "param", (DESKTOP, "light"))
    failures: list[str] = []
    context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on(
        "request", lambda asked: failures.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
    )
    page.goto(address)
    yield page
    folder = Path(os.environ.get("MLPLAB_SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"report_{request.node.name}.png", animations="disabled")
    context.close()
    assert failures == []


def test_claims_are_chosen_by_keyboard(opened: Page) -> None:
    """Tab and Enter on a button leave the claims of its status, say so, and a link to another shows all again."""
    claims = opened.locator(".claims > details")
    button = opened.get_by_role("button", name="not testable")
    button.focus()
    opened.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(opened.get_by_role("button", name="all")).to_have_attribute("aria-pressed", "false")
    expect(opened.locator(".claims > details:visible")).to_have_count(opened.locator(".claims > .open").count())
    expect(opened.get_by_role("status")).to_have_text(
        f"{opened.locator('.claims > .open').count()} of 28 claims are shown."
    )
    opened.keyboard.press("Shift+Tab")
    opened.keyboard.press("Space")
    expect(opened.locator(".claims > details:visible")).to_have_count(opened.locator(".claims > .bad").count())
    opened.locator(".references a", has_text="Claim 19").click()
    expect(opened.locator(".claims > details:visible")).to_have_count(claims.count())
    expect(opened.locator("#claim-19 .inside")).to_be_visible()


def test_the_first_screen_has_answer_and_figure(opened: Page) -> None:
    """On a desktop, sentence, main findings and the whole figure are seen without scrolling, beside the contents."""
    for seen in (".findings", "figure img", "nav ul"):
        box = opened.locator(seen).first.bounding_box()
        assert box
        assert box["y"] + box["height"] <= DESKTOP["height"] or seen == "nav ul"
    expect(opened.locator("nav a[href='#decay_momentum']")).to_be_visible()


@pytest.mark.parametrize("opened", [(PHONE, "light")], indirect=True, ids=["phone"])
def test_a_phone_scrolls_down_alone(opened: Page) -> None:
    """On a phone the contents are folded until they are asked for, and nothing is wider than the screen."""
    link = opened.locator("nav").get_by_text("Early stopping")
    expect(link).to_be_hidden()
    opened.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.locator("nav summary").click()
    link.click()
    expect(link).to_be_hidden()
    expect(opened.locator("#early_stopping")).to_be_in_viewport()


@pytest.mark.parametrize("opened", [(A4, "dark")], indirect=True, ids=["paper"])
def test_paper_has_everything(opened: Page) -> None:
    """In print no claim is left out or folded, the figure is on the first page, and the ground is white."""
    opened.get_by_role("button", name="not testable").click()
    opened.emulate_media(media="print")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(opened.locator("nav")).to_be_hidden()
    expect(opened.locator(".filter")).to_be_hidden()
    expect(opened.locator(".claims .inside:visible")).to_have_count(28)
    box = opened.locator("figure").first.bounding_box()
    assert box
    assert box["y"] + box["height"] <= A4["height"]
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.locator("main details[open]").count() == 0


@pytest.mark.parametrize(
    "opened",
    [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")],
    indirect=True,
    ids=["desktop-light", "desktop-dark", "phone-light", "phone-dark"],
)
def test_nobody_is_kept_out(opened: Page) -> None:
    """axe-core finds no violation, with all that folds unfolded."""
    opened.evaluate("document.querySelectorAll('main details').forEach((each) => { each.open = true; })")
    assert [(found["id"], found["impact"]) for found in Axe().run(opened).response["violations"]] == []
