"""The MLflow UI as a person meets it, in a browser: a comparison, its variants, and the model that came of it.

Each test leaves a screenshot in the folder MLPLAB_SCREENSHOTS, by default `screenshots` in pytest's temporary folder.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from conftest import PATIENCE, free_port, wait_until
from playwright.sync_api import Locator, Page, expect
from test_run import Quiet, Screen

from mlplab import registry, run
from mlplab.loading import Options, load_experiment

pytestmark = pytest.mark.browser

EPOCHS = 3
TITLE = f"optimizers · digits · {EPOCHS} epochs"
WIDTH, HEIGHT = 1440, 900

FIRST_CLICKS = """
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
"""
"""What MLflow 3.17 keeps of a visitor's clicks on `Model training` and on the assistant's cross: by default it opens on
pages for language models, a third of them covered by the assistant."""
CURVES = ("accuracy", "loss", "val_accuracy", "val_loss")


@dataclass
class Ui:
    """The UI on a store that holds one comparison, a version made of its best RMSprop run, and nothing else."""

    address: str
    experiment: str
    parent: str
    answer: str
    children: dict[str, str]
    best: dict[str, float]
    version: str

    def page(self, path: str) -> str:
        """The address of a page."""
        return f"{self.address}/#/{path}"

    def runs(self, query: str = "") -> str:
        """The address of the list of runs."""
        return self.page(f"experiments/{self.experiment}/runs?{query}")

    def run(self, run_id: str, tab: str = "") -> str:
        """The address of a run's page."""
        return self.page(f"experiments/{self.experiment}/runs/{run_id}{tab}")


@pytest.fixture(scope="module")
def ui(browser, empty_store, tmp_path_factory, dataset) -> Iterator[Ui]:
    """Three optimizers trained for three epochs, the best RMSprop registered, and MLflow's server on their store."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = f"sqlite:///{folder}/mlflow.db"
    with serving(store, folder) as address, pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_EXPERIMENT_ID")  # so that they go where nobody names an experiment
        mlflow.set_tracking_uri(store)
        try:
            experiment = Options(epochs=EPOCHS).adapt(load_experiment("optimizers"))
            record, *_ = run.Lab(lambda wanted: dataset, Screen(Quiet()), Options()).run(experiment)
            version = registry.register(dataset, name="mnist-mlp").version
            client = mlflow.MlflowClient()
            (home,) = [each for each in client.search_experiments() if each.name == "mlplab"]
            answer = client.get_run(record.run_id).data.tags["answer"]
        finally:
            mlflow.set_tracking_uri(None)
        children = {result.variant.name: result.run_id for result in record.results}
        best = {result.variant.name: result.best("val_accuracy") for result in record.results}
        wait_for(address)
        yield Ui(address, home.experiment_id, record.run_id, answer, children, best, str(version))


@contextlib.contextmanager
def serving(store: str, folder: Path) -> Iterator[str]:
    """Starts `mlflow server` on a store; it starts while the block runs."""
    port = str(free_port())
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    variables |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", port, "--workers", "1"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address: str) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=PATIENCE):
            return True
        return False

    wait_until(answers)


@pytest.fixture
def page(browser, ui) -> Iterator[Page]:
    """A page of a visitor with no other past; no script may fail on it, and no request within the server."""
    failures: list[str] = []
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(FIRST_CLICKS)
    page = context.new_page()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("response", lambda got: failures.append(f"{got.status} {got.url}") if got.status >= 500 else None)
    yield page
    context.close()
    assert failures == []


@pytest.fixture
def picture(page, tmp_path_factory) -> Callable[[str], None]:
    """Takes a screenshot of a name."""
    folder = Path(os.environ.get("MLPLAB_SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=folder / f"{name}.png", animations="disabled")


@pytest.fixture(autouse=True, scope="module")
def _patience() -> None:
    expect.set_options(timeout=1000 * PATIENCE)


def row(page: Page, run_id: str) -> Locator:
    """The cells of a run in the table of runs; pinned columns and the others are two rows to the page."""
    return page.locator(f'.ag-row[row-id="{run_id}"]')


def runs_with_children(page: Page, ui: Ui) -> None:
    """Opens the experiment, and in it the comparison, so that its variants are listed."""
    page.goto(ui.runs())
    row(page, ui.parent).get_by_role("button").first.click()
    expect(row(page, ui.children["SGD"]).first).to_be_visible()


def curves(page: Page) -> Iterator[Locator]:
    """Has the charts of accuracy and loss by epoch shown and no other; each as its drawn curves with their points."""
    page.get_by_placeholder("Search metric charts").fill("^(val_)?(accuracy|loss)$")
    charts = page.get_by_test_id("experiment-view-compare-runs-card")
    expect(charts).to_have_count(len(CURVES))
    for metric in CURVES:
        yield charts.filter(has=page.locator(f'h4[title="{metric}"]')).locator(".trace:has(.point)")


IN_SIGHT = """
wanted => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const start = node.data.indexOf(wanted);
    if (start < 0 || !node.parentElement.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, start + wanted.length);
    let left = 0, top = 0, right = innerWidth, bottom = innerHeight;
    for (let above = node.parentElement; above; above = above.parentElement) {
      if (getComputedStyle(above).overflow === "visible") continue;
      const box = above.getBoundingClientRect();
      left = Math.max(left, box.left); top = Math.max(top, box.top);
      right = Math.min(right, box.right); bottom = Math.min(bottom, box.bottom);
    }
    const boxes = [...range.getClientRects()];
    const inside = box => box.width > 0 && box.left >= left - 1 && box.top >= top - 1
      && box.right <= right + 1 && box.bottom <= bottom + 1;
    if (boxes.length && boxes.every(inside)) return true;
  }
  return false;
}
"""
"""Whether a text is on the screen as a whole: all of it within the window, and cut off by nothing around it."""


def see(page: Page, *texts: str) -> None:
    """Waits until every text is on the screen as a whole, without a scroll or a click."""
    for text in texts:
        page.wait_for_function(IN_SIGHT, arg=text)


def test_what_is_below_or_cut_off_is_not_in_sight(page):
    """What the tests below take for seen is on the screen: not what is scrolled away, folded, cut off or hidden."""
    page.set_content(
        "<p>seen</p><p style='position:absolute; top:2000px'>below</p><p style='visibility:hidden'>hidden</p>"
        "<div style='height:20px; overflow:hidden'>first<br>folded</div>"
        "<div style='width:60px; overflow:hidden; white-space:nowrap; text-overflow:ellipsis'>a name that is cut</div>"
    )
    wanted = ["seen", "below", "hidden", "first", "folded", "a name", "that is cut"]
    assert [text for text in wanted if page.evaluate(IN_SIGHT, text)] == ["seen", "first", "a name"]


def test_the_list_of_answers_has_them_at_first_sight(page, ui, picture):
    """The saved view lists the comparison alone, with its name in full, what it says and the winner's metric."""
    page.goto(ui.runs("viewStateShareKey=mlplab"))
    see(page, TITLE, ui.answer[:60], f"{max(ui.best.values()):.4f}"[:6])
    see(page, "best_val_accur")
    expect(page.get_by_text("1 matching run", exact=False)).to_be_visible()
    picture("answers")


def test_a_comparison_has_its_answer_at_first_sight(page, ui, picture):
    """Its page shows the answer, the ways to figures and curves, variants, data and winner; the ways lead there."""
    page.goto(ui.run(ui.parent))
    sentences = re.sub(r"`.*", "", ui.answer)
    see(page, TITLE, sentences[:80], "Page", "Curves", "All answers", "best_val_accuracy", "Adam", "RMSprop", "SGD")
    tags = page.get_by_text(re.compile(r"^(mlplab|dataset|git|winner|answer)[\w.]*:"))
    assert tags.count() <= 10
    picture("parent")
    for way, seen in (("All answers", ui.answer[:60]), ("Curves", "The comparison")):
        with page.expect_popup() as opened:
            page.get_by_role("link", name=way, exact=True).click()
        see(opened.value, seen)
        opened.value.close()


def test_the_curves_are_there_at_first_sight(page, ui, picture):
    """The saved view of a comparison draws what matters, and no more, of its variants alone, the best one first."""
    page.goto(ui.runs(f"compareRunsMode=CHART&viewStateShareKey={ui.parent}"))
    see(page, "The comparison", "val_accuracy", "val_loss", "accuracy", "train_seconds", *ui.children)
    charts = page.get_by_test_id("experiment-view-compare-runs-card")
    expect(charts).to_have_count(4)
    for place in range(3):
        expect(charts.nth(place).locator(".trace:has(.point)")).to_have_count(len(ui.children))
    for place in range(4):
        box = charts.nth(place).bounding_box()
        assert box
        assert box["y"] + box["height"] <= HEIGHT
        assert box["x"] + box["width"] <= WIDTH
    names = page.locator(".ag-row a[href*='/runs/']").all_inner_texts()
    assert names == sorted(ui.best, key=ui.best.__getitem__, reverse=True)
    picture("charts")


def test_the_models_are_told_apart_at_first_sight(page, ui, picture):
    """The experiment's list of models names the experiment and the variant of each."""
    page.goto(ui.page(f"experiments/{ui.experiment}/models"))
    see(page, *(f"optimizers - {name}" for name in ui.children))
    picture("models")


def test_the_experiment_lists_the_comparison_with_its_variants(page, ui, picture):
    """The experiment's page shows the comparison by name; opened, its three variants, on which data, with a model."""
    page.goto(ui.runs())
    expect(row(page, ui.parent).get_by_role("link", name=TITLE, exact=True)).to_be_visible()
    expect(row(page, ui.children["SGD"])).to_have_count(0)
    runs_with_children(page, ui)
    for name, run_id in ui.children.items():
        expect(row(page, run_id).get_by_role("link", name=name, exact=True)).to_be_visible()
        expect(row(page, run_id).get_by_text("digits (stand-in for MNIST)").first).to_be_visible()
    for column in ("Run Name", "Created", "Dataset", "Duration", "Models"):
        expect(page.locator(".ag-header-cell").filter(has_text=column).first).to_be_visible()
    expect(row(page, ui.children["RMSprop"]).locator("a[href*='/models/']").first).to_be_visible()
    picture("experiment")


def test_the_comparison_shows_its_table(page, ui, picture):
    """The parent's page has the answer, the question, the table of all variants and links to the variants."""
    page.goto(ui.run(ui.parent))
    page.get_by_text("Show more", exact=True).click()
    expect(page.get_by_text("Which optimizer trains the MNIST MLP best")).to_be_visible()
    table = page.get_by_role("table").filter(has_text="val. accuracy")
    expect(table.get_by_role("row")).to_have_count(1 + len(ui.children))
    for name in ui.children:
        expect(table.get_by_role("cell", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(page.get_by_text(ui.answer.split(",")[0]).first).to_be_visible()
    picture("comparison")


def test_the_figures_are_shown_where_they_are_listed(page, ui, picture):
    """A click on a figure among the comparison's artifacts shows it as the image it is."""
    page.goto(ui.run(ui.parent, "/artifacts"))
    for figure in ("loss.png", "training_time.png", "accuracy.png"):
        page.locator("li").get_by_text(figure, exact=True).click()
        expect(page.get_by_text(f"/artifacts/{figure}")).to_be_visible()
        image = page.get_by_role("img", name=figure)
        expect(image).to_be_visible()
        page.wait_for_function("image => image.complete && image.naturalWidth > 600", arg=image.element_handle())
    picture("figures")


def test_the_variants_curves_lie_in_one_chart(page, ui, picture):
    """The experiment's charts of accuracy and loss by epoch have a line for each of the three variants."""
    runs_with_children(page, ui)
    page.locator("label").filter(has=page.locator("input[name='runs-view-mode'][value='CHART']")).click()
    for lines in curves(page):
        expect(lines).to_have_count(len(ui.children))
        expect(lines.locator(".point")).to_have_count(EPOCHS * len(ui.children))
    picture("curves")


def test_the_variants_compare_side_by_side(page, ui, picture):
    """Three variants, selected and compared, stand in columns with what they differ in and what came of it."""
    runs_with_children(page, ui)
    for run_id in ui.children.values():
        row(page, run_id).locator(".ag-selection-checkbox input").check()
    page.get_by_test_id("runs-compare-button").click()
    expect(page.get_by_role("heading", name="Comparing 3 Runs from 1 Experiment")).to_be_visible()
    names = page.get_by_role("row").filter(has_text="Run Name:")
    for name in ui.children:
        expect(names.get_by_role("cell", name=name, exact=True)).to_be_visible()
    for param in ("optimizer", "learning_rate"):
        expect(page.get_by_role("rowheader", name=param, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="best_val_accuracy", exact=True)).to_be_attached()
    page.get_by_role("button", name="Visualizations").click()
    expect(names).to_be_in_viewport()
    picture("compare")


def test_a_variant_shows_its_choices(page, ui, picture):
    """A variant's page has its parent, its params, tags and metrics of the best epoch."""
    page.goto(ui.run(ui.children["RMSprop"]))
    expect(page.get_by_role("link", name=TITLE, exact=True)).to_be_visible()
    for tag in ("mlplab.experiment: optimizers", "dataset: digits (stand-in for MNIST)", "mlplab.status: finished"):
        expect(page.get_by_text(tag).first).to_be_visible()
    for metric in ("best_val_accuracy", "test_accuracy"):
        expect(page.get_by_role("link", name=metric, exact=True)).to_be_attached()
    parameters = page.get_by_role("row").filter(has=page.get_by_text("optimizer", exact=True))
    expect(parameters.get_by_text("rmsprop", exact=True)).to_be_attached()
    picture("variant")


def test_a_variants_metrics_are_drawn_by_epoch(page, ui, picture):
    """A variant's charts have a point an epoch for accuracy and loss, on training and on validation data."""
    page.goto(ui.run(ui.children["RMSprop"], "/model-metrics"))
    for lines in curves(page):
        expect(lines.locator(".point")).to_have_count(EPOCHS)
    picture("variant-metrics")


def test_the_model_shows_its_champion(page, ui, picture):
    """The registered model's page says what it is for, and which version is the champion."""
    page.goto(ui.page("models/mnist-mlp"))
    see(page, "raw 0-255 pixels in, label and probabilities out", f"Version {ui.version}", "champion")
    versions = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Version {ui.version}"))
    expect(versions.get_by_text(re.compile(r"@\s*champion"))).to_be_visible()
    picture("model")


def test_the_version_leads_back_to_its_run(page, ui, picture):
    """The version's page has its alias, tags and schema, and links to the run, which links to the version."""
    page.goto(ui.page(f"models/mnist-mlp/versions/{ui.version}"))
    expect(page.get_by_text(re.compile(r"@\s*champion"))).to_be_visible()
    for tag in ("dataset.digest", "git.commit", "mlplab.run_id", "test_accuracy"):
        expect(page.get_by_text(tag, exact=True)).to_be_attached()
    expect(page.get_by_text(re.compile(r"Outputs \([1-9]"))).to_be_visible()
    expect(page.get_by_role("link", name="served", exact=True)).to_be_visible()
    source = page.get_by_role("link", name="RMSprop", exact=True)
    expect(source).to_be_visible()
    picture("version")
    source.click()
    expect(page).to_have_url(re.compile(ui.children["RMSprop"]))
    expect(page.get_by_role("heading", name="RMSprop")).to_be_visible()
    expect(page.get_by_role("link", name="mnist-mlp").first).to_be_visible()
