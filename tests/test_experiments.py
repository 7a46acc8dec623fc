"""Every experiment of the project, and the report on them, on the digits and for one epoch."""

import re
from pathlib import Path

import mlflow
import pytest
from test_run import Quiet, Screen, artifacts, below

from mlplab import data, run
from mlplab.spec import Comparison, Options, Search, experiment_names, load_experiment

ONE_EPOCH = Options(smoke=True, epochs=1)


def lab(options=ONE_EPOCH):
    """A lab on the digits, in MNIST's and in CIFAR-10's place."""
    return run.Lab(lambda wanted: data.load("digits", wanted=wanted), Screen(Quiet()), options)


@pytest.fixture(scope="module")
def reported(empty_store, tmp_path_factory):
    """The report, made twice in one store: (first lab, second lab, folders, client, the reports' runs in order)."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first, second = lab(), lab()
        first.report(folder / "one" / "report")
        second.report(folder / "two")
        client = mlflow.MlflowClient()
        runs = client.search_runs(["0"], order_by=["attributes.start_time ASC"])
        yield first, second, folder, client, [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    mlflow.set_tracking_uri(None)


def test_every_experiment_runs(reported):
    """Each file in experiments/ gives a record and a finished run of its name under the report's, none failed."""
    first, _, _, client, (parent, _) = reported
    assert first._screen.errors == []
    assert set(first.records) == set(experiment_names())
    runs = below(client, parent)
    # best_found had the search run under itself, predict and training_times what they are about.
    for name, record in first.records.items():
        child = client.get_run(record.run_id)
        assert child.info.run_name == name
        assert child.info.status == "FINISHED"
        experiment = load_experiment(name)
        if isinstance(experiment, Comparison):
            assert set(below(client, child)) >= set(experiment.variants)
            assert all(result.epochs == 1 for result in record.results)
        if isinstance(experiment, Search):
            assert set(below(client, child)) == {"candidate 1", "candidate 2"}
    assert set(runs) <= set(experiment_names())
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"


def test_a_second_report_trains_nothing(reported):
    """What is on record is found by its fingerprint: the same runs, the same numbers, no new training."""
    first, second, _, client, (_, parent) = reported
    for name, record in first.records.items():
        again = second.records[name]
        trains = isinstance(load_experiment(name), Comparison | Search)
        assert again.reused is trains
        assert (again.run_id == record.run_id) is trains
        assert [result.history for result in again.results] == [result.history for result in record.results]
        assert [result.test for result in again.results] == [result.test for result in record.results]
        if record.search:
            assert again.search.candidates == record.search.candidates
    assert set(below(client, parent)) == {"predict", "training_times"}


def test_the_report_is_one_page_with_every_figure_and_an_artifact(reported):
    """The page is in the folder named, holds all pictures itself, and is an artifact of the report's run."""
    *_, folder, client, (parent, _) = reported
    page = (folder / "one" / "report" / "report.html").read_text()
    assert "digits (stand-in for MNIST)" in page
    assert len(re.findall(r'<img[^>]+src="data:image/png;base64,', page)) >= 25
    assert not re.search(r'(src|href)="https?:', page)
    assert {"report.html", "report.md", "figures"} <= artifacts(client, parent.info.run_id)
    for experiment in experiment_names():
        assert experiment in page


def test_a_report_goes_on_where_an_experiment_raises(store, monkeypatch, tmp_path):
    """An experiment that raises is said, the report of the rest is written, and its run ends FAILED."""
    names = ["batch_1000", "cifar_baseline"]
    monkeypatch.setattr(run, "experiment_names", lambda: names)
    compare = run.Lab._compare

    def broken(self, comparison, parent):
        if comparison.name == "batch_1000":
            raise RuntimeError("the disk is full")
        return compare(self, comparison, parent)

    monkeypatch.setattr(run.Lab, "_compare", broken)
    mine = lab()
    page, records, _, _ = mine.report(tmp_path / "report")
    assert set(records) == {"cifar_baseline"}
    assert "the disk is full" in mine._screen.errors[0]
    assert "batch_1000" in page.read_text()
    statuses = {r.info.run_name: r.info.status for r in store.search_runs(["0"])}
    assert statuses["report"] == statuses["batch_1000"] == "FAILED"
    assert statuses["cifar_baseline"] == "FINISHED"


def test_a_best_found_takes_the_winners_choices(reported):
    """The variant best found was trained with what the search's best candidate had."""
    first, *_ = reported
    best = first.records["random_search"].search.best
    variant = first.records["best_found"].result("best found").variant
    assert {name: getattr(variant, name) for name in best.choices} == best.choices


def test_the_report_refuses_a_folder_it_cannot_make(tmp_path: Path):
    """A file in the folder's place is said before anything runs."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(run.UsageError, match="taken"):
        lab().report(tmp_path / "taken")
