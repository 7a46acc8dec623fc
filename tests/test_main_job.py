"""The main job as a user starts it: `mlflow run` on a copy of the project, in a folder whose name has spaces."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's files as git has them, in a path with spaces."""
    folder = tmp_path_factory.mktemp("my projects") / "mlplab copy"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def mlflow_run(project, tmp_path, *arguments):
    """Runs `mlflow run . ...` in the project; returns the finished process and a client of its store."""
    store = f"sqlite:///{tmp_path}/mlflow.db"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done, mlflow.MlflowClient(store)


def test_the_main_job_leaves_a_parent_with_three_children(project, empty_store, tmp_path):
    """`mlflow run . -e optimizers` ends well: the project's run is the parent of SGD, Adam and RMSprop."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    done, client = mlflow_run(project, tmp_path, "-e", "optimizers", "-P", "epochs=2", "-P", "dataset=digits")
    assert done.returncode == 0, done.stderr
    runs = {r.info.run_name: r for r in client.search_runs(["0"])}
    assert set(runs) == {"optimizers", "SGD", "Adam", "RMSprop"}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    parent = runs.pop("optimizers")
    assert parent.data.tags["mlflow.project.entryPoint"] == "optimizers"
    assert parent.data.params == {"epochs": "2", "dataset": "digits"}
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {parent.info.run_id}
    assert {r.data.params["epochs"] for r in runs.values()} == {"2"}
    assert f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/mlflow.db'" in done.stdout
    assert parent.info.run_id in done.stdout


def test_a_users_own_file_runs_as_compare(project, empty_store, tmp_path):
    """`mlflow run . -e compare -P spec=...` runs a file from anywhere, named after it."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    spec = tmp_path / "my widths.py"
    spec.write_text(
        "from mlplab.spec import Comparison, Variant\n"
        "COMPARISON = Comparison(question='Is wider better?', dataset='mnist', base=Variant(epochs=1),\n"
        "    variants={'narrow': {'hidden': (4,)}, 'wide': {'hidden': (8,)}})\n"
    )
    done, client = mlflow_run(project, tmp_path, "-e", "compare", "-P", f"spec={spec}", "-P", "dataset=digits")
    assert done.returncode == 0, done.stderr
    assert {r.info.run_name for r in client.search_runs(["0"])} == {"my widths", "narrow", "wide"}


@pytest.mark.parametrize(
    ("option", "said"),
    [("epochs=many", "invalid int value: 'many'"), ("epocs=5", "--epocs"), ("variant=Adamm", "Did you mean 'Adam'?")],
)
def test_a_wrong_option_fails_the_run_and_says_why(project, empty_store, tmp_path, option, said):
    """A misspelt or illegal -P ends `mlflow run` with an error that names it, the project's run FAILED, no children."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    done, client = mlflow_run(project, tmp_path, "-e", "optimizers", "-P", option)
    assert done.returncode != 0
    assert said in done.stderr
    assert [r.info.status for r in client.search_runs(["0"])] == ["FAILED"]
