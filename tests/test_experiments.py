"""Every experiment of the project, and the report on them, on the digits and for a few epochs."""

import re
import subprocess
from pathlib import Path

import mlflow
import pytest
from conftest import PATIENCE, plain_name
from test_readme import COMMANDS, REPORT
from test_run import Quiet, Screen, artifacts, below, read

from experiments.report.__main__ import report
from experiments.report.__main__ import reported as reported_names
from mlplab import data, run
from mlplab.comparison import Comparison
from mlplab.loading import SMOKE_EPOCHS, Options, load_experiment
from mlplab.records import Record
from mlplab.space import Search

SMOKE = Options(smoke=True)


def lab(screen=None):
    """A lab on the digits, in MNIST's and in CIFAR-10's place."""
    return run.Lab(lambda wanted: data.load(wanted, dataset="digits"), screen or Screen(Quiet()), SMOKE)


@pytest.fixture(scope="module")
def reported(project, environment, empty_store, tmp_path_factory):
    """The report by the README's command, and then another one in the same store, here.

    It is (records of the first by name, second lab, its screen, first's folder, client, the reports' runs in order).
    """
    folder = tmp_path_factory.mktemp("reported")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    (command,) = [command for command in COMMANDS if command.startswith(REPORT)]
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=project,
        env=environment | {"MLFLOW_TRACKING_URI": uri, "XDG_STATE_HOME": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    mlflow.set_tracking_uri(uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        screen = Screen(Quiet())
        second = lab(screen)
        report(second, folder / "two", reported_names())
        client = mlflow.MlflowClient()
        runs = client.search_runs(["0"], order_by=["attributes.start_time ASC"])
        first = {}
        for each in reversed(runs):  # the last one of a name is overwritten by the first
            if plain_name(each) in reported_names():
                experiment = SMOKE.adapt(load_experiment(plain_name(each)))
                text = read(client, each.info.run_id, "record.json")
                first[plain_name(each)] = Record.from_json(text, experiment, each.info.run_id)
        reports = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
        yield first, second, screen, project / "report", client, reports
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_every_experiment_runs(reported):
    """Each file in experiments/ gives a record and a finished run of its name under the report's, none failed.

    What is trained has the epochs of a first look.
    """
    first, *_, client, (parent, _) = reported
    assert set(first) == set(reported_names())
    runs = below(client, parent)
    # best_found had the search run under itself, predict and training_times what they are about.
    for name, record in first.items():
        child = client.get_run(record.run_id)
        assert plain_name(child) == name
        assert child.info.status == "FINISHED"
        experiment = load_experiment(name)
        if isinstance(experiment, Comparison):
            assert set(below(client, child)) >= set(experiment.variants)
            assert all(result.epochs == SMOKE_EPOCHS for result in record.results)
        if isinstance(experiment, Search):
            assert set(below(client, child)) == {"candidate 1", "candidate 2", "best found"}
    assert set(runs) <= set(reported_names())
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_second_report_trains_nothing(reported):
    """What is on record is found by its fingerprint: the same runs, the same numbers, no new training."""
    first, second, screen, _, client, (_, parent) = reported
    assert screen.errors == []
    assert set(second.records) == set(first)
    for name, record in first.items():
        again = second.records[name]
        trains = isinstance(load_experiment(name), Comparison | Search)
        assert again.reused is trains
        assert (again.run_id == record.run_id) is trains
        assert [result.history for result in again.results] == [result.history for result in record.results]
        assert [result.test for result in again.results] == [result.test for result in record.results]
        if record.search:
            assert again.search.candidates == record.search.candidates
    assert set(below(client, parent)) == {"predict", "training_times"}


@pytest.mark.slow
def test_the_report_is_one_page_with_every_figure_and_an_artifact(reported):
    """The page is in the folder named, holds all pictures itself, and is an artifact of the report's run."""
    *_, folder, client, (parent, second) = reported
    for page in (folder / "report.html", Path.cwd() / "two" / "report.html"):
        text = page.read_text()
        assert "digits (stand-in for MNIST)" in text
        assert len(re.findall(r'<img[^>]+src="data:image/png;base64,', text)) >= 25
        assert not re.search(r'(src|href)="https?:', text)
        assert text.rstrip().endswith("</html>")
        for experiment in reported_names():
            assert experiment in text
    for each in (parent, second):
        assert {"report.html", "report.md", "figures"} <= artifacts(client, each.info.run_id)


class Broken(Screen):
    """Raises at one experiment."""

    def experiment(self, experiment, *others):
        if experiment.name == "batch_1000":
            raise RuntimeError("the disk is full")
        return super().experiment(experiment, *others)


def test_a_report_goes_on_where_an_experiment_raises(store, tmp_path):
    """An experiment that raises is said, the report of the rest is written, and its run ends FAILED."""
    names = ["batch_1000", "cifar_baseline"]
    screen = Broken(Quiet())
    records, _, _ = report(lab(screen), tmp_path / "report", names)
    assert set(records) == {"cifar_baseline"}
    assert "the disk is full" in screen.errors[0]
    assert "batch_1000" in (tmp_path / "report" / "report.html").read_text()
    statuses = {plain_name(r): r.info.status for r in store.search_runs(["0"])}
    assert statuses["report"] == statuses["batch_1000"] == "FAILED"
    assert statuses["cifar_baseline"] == "FINISHED"


@pytest.mark.slow
def test_a_best_found_takes_the_winners_choices(reported):
    """The variant best found was trained with what the search's best candidate had."""
    first, *_ = reported
    best = first["random_search"].search.best
    variant = first["best_found"].result("best found").variant
    assert variant == variant.but(best.choices)
    assert set(best.choices) == {"learning_rate", "model.dropout", "batch_size"}


def test_the_report_refuses_a_folder_it_cannot_make(tmp_path: Path):
    """A file in the folder's place is said before anything runs."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(run.UsageError, match="taken"):
        report(lab(), tmp_path / "taken", reported_names())
