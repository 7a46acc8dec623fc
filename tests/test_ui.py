"""The MLflow UI as a person meets it, in a browser: a comparison, its variants, and the model that came of it.

Each test leaves a screenshot in the folder MLPLAB_SCREENSHOTS, by default `screenshots` in pytest's temporary folder.
"""

import contextlib
import os
import re
import shutil
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
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from test_run import Quiet, Screen

from mlplab import registry, run
from mlplab.loading import Options, load_experiment

pytestmark = pytest.mark.browser

EPOCHS = 3

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
    parent: str
    children: dict[str, str]
    version: str

    def page(self, path: str) -> str:
        """The address of a page."""
        return f"{self.address}/#/{path}"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium on the path; on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def ui(chromium, empty_store, tmp_path_factory, dataset) -> Iterator[Ui]:
    """Three optimizers trained for three epochs, the best RMSprop registered, and MLflow's server on their store."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = f"sqlite:///{folder}/mlflow.db"
    with serving(store, folder) as address:
        mlflow.set_tracking_uri(store)
        try:
            experiment = Options(epochs=EPOCHS).adapt(load_experiment("optimizers"))
            record, *_ = run.Lab(lambda wanted: dataset, Screen(Quiet()), Options()).run(experiment)
            version = registry.register(dataset, name="mnist-mlp").version
        finally:
            mlflow.set_tracking_uri(None)
        children = {result.variant.name: result.run_id for result in record.results}
        wait_for(address)
        yield Ui(address, record.run_id, children, str(version))


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


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, ui) -> Iterator[Page]:
    """A page of a visitor with no other past; no script may fail on it, and no request within the server."""
    failures: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900})
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
    page.goto(ui.page("experiments/0"))
    row(page, ui.parent).get_by_role("button").first.click()
    expect(row(page, ui.children["SGD"]).first).to_be_visible()


def curves(page: Page) -> Iterator[Locator]:
    """Has the charts of accuracy and loss by epoch shown and no other; each as its drawn curves with their points."""
    page.get_by_placeholder("Search metric charts").fill("^(val_)?(accuracy|loss)$")
    charts = page.get_by_test_id("experiment-view-compare-runs-card")
    expect(charts).to_have_count(len(CURVES))
    for metric in CURVES:
        yield charts.filter(has=page.locator(f'h4[title="{metric}"]')).locator(".trace:has(.point)")


def test_the_experiment_lists_the_comparison_with_its_variants(page, ui, picture):
    """The experiment's page shows the comparison by name; opened, its three variants, on which data, with a model."""
    page.goto(ui.page("experiments/0"))
    expect(row(page, ui.parent).get_by_role("link", name="optimizers", exact=True)).to_be_visible()
    expect(row(page, ui.children["SGD"])).to_have_count(0)
    runs_with_children(page, ui)
    for name, run_id in ui.children.items():
        expect(row(page, run_id).get_by_role("link", name=name, exact=True)).to_be_visible()
        expect(row(page, run_id).get_by_text("digits (stand-in for MNIST)")).to_be_visible()
    for column in ("Run Name", "Created", "Dataset", "Duration", "Models"):
        expect(page.locator(".ag-header-cell").filter(has_text=column).first).to_be_visible()
    expect(row(page, ui.children["RMSprop"]).locator("a[href*='/models/']").first).to_be_visible()
    picture("experiment")


def test_the_comparison_shows_its_table(page, ui, picture):
    """The parent's page has the question, the table of all variants, the winner and links to the variants."""
    page.goto(ui.page(f"experiments/0/runs/{ui.parent}"))
    page.get_by_text("Show more", exact=True).click()
    expect(page.get_by_text("Which optimizer trains the MNIST MLP best")).to_be_visible()
    table = page.get_by_role("table").filter(has_text="val. accuracy")
    expect(table.get_by_role("row")).to_have_count(1 + len(ui.children))
    for name in ui.children:
        expect(table.get_by_role("cell", name=name, exact=True)).to_be_visible()
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(page.get_by_text("Best by val_accuracy:")).to_be_visible()
    picture("comparison")


def test_the_figures_are_shown_where_they_are_listed(page, ui, picture):
    """A click on a figure among the comparison's artifacts shows it as the image it is."""
    page.goto(ui.page(f"experiments/0/runs/{ui.parent}/artifacts"))
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
    page.goto(ui.page(f"experiments/0/runs/{ui.children['RMSprop']}"))
    expect(page.get_by_role("link", name="optimizers", exact=True)).to_be_visible()
    for tag in ("mlplab.experiment: optimizers", "dataset: digits (stand-in for MNIST)", "versions: python 3.11"):
        expect(page.get_by_text(tag).first).to_be_visible()
    for metric in ("best_val_accuracy", "test_accuracy"):
        expect(page.get_by_role("link", name=metric, exact=True)).to_be_attached()
    parameters = page.get_by_role("row").filter(has=page.get_by_text("optimizer", exact=True))
    expect(parameters.get_by_text("rmsprop", exact=True)).to_be_attached()
    picture("variant")


def test_a_variants_metrics_are_drawn_by_epoch(page, ui, picture):
    """A variant's charts have a point an epoch for accuracy and loss, on training and on validation data."""
    page.goto(ui.page(f"experiments/0/runs/{ui.children['RMSprop']}/model-metrics"))
    for lines in curves(page):
        expect(lines.locator(".point")).to_have_count(EPOCHS)
    picture("variant-metrics")


def test_the_model_shows_its_champion(page, ui, picture):
    """The registered model's page says what it is for, and which version is the champion."""
    page.goto(ui.page("models/mnist-mlp"))
    expect(page.get_by_text("raw 0-255 pixels in, label and probabilities out")).to_be_visible()
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
