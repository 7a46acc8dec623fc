"""The README's commands as a user types them, in a copy of the project in a folder whose name has spaces."""

import contextlib
import http.client
import os
import signal
import subprocess
import urllib.parse
import urllib.request

import mlflow
import pytest
from conftest import PATIENCE, ROOT, free_port, plain_name, readme_blocks, wait_until

COMMANDS = [
    line.split("   #")[0].strip()
    for block in readme_blocks("sh")
    for line in block.splitlines()
    if line and line[0] != "#"
]
REPORT = "mlflow run . -e report"
"""Every experiment is long: `test_experiments.py` runs it, and looks at what it leaves."""


def test_the_two_first_commands_are_cis():
    """The README's make commands are those that CI runs, on a fresh clone."""
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    made = [command for command in COMMANDS if command.startswith("make")]
    assert made == ["make optimizers", "make test"]
    assert set(made) <= set(ci)


@pytest.mark.slow
def test_every_other_command_does_what_the_readme_says(project, environment):
    """Each command but make's and the UI's exits with 0, and the store then holds the runs they were to make."""
    ran = 0
    for command in COMMANDS:
        if not command.startswith(("make", "export", "mlflow ui", REPORT)):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=project,
                env=environment,
                capture_output=True,
                text=True,
                timeout=2 * PATIENCE,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            ran += 1
            if command.endswith("-P seed=7"):
                printed = urllib.parse.unquote(done.stdout)
                assert f"mlflow ui --backend-store-uri 'sqlite:///{project}/mlflow.db'" in printed
    assert ran >= 6

    runs = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db").search_runs(["0"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = {run.info.run_id: plain_name(run) for run in runs}
    families = {run.info.run_id: [] for run in runs if "mlflow.parentRunId" not in run.data.tags}
    for run in runs:
        if run.data.tags.get("mlflow.parentRunId") in families:
            families[run.data.tags["mlflow.parentRunId"]].append(plain_name(run))
    assert sorted((names[parent], sorted(children)) for parent, children in families.items()) == [
        ("mine", ["0.3", "Lion", "none"]),
        ("optimizers", ["Adam", "RMSprop"]),
        ("optimizers", ["Adam", "RMSprop", "SGD"]),
        ("optimizers", ["Adam", "RMSprop", "SGD"]),
        ("optimizers", ["Adam", "RMSprop", "SGD"]),
        ("register", []),
    ]
    projects = [run for run in runs if run.data.tags.get("mlflow.project.entryPoint") == "optimizers"]
    # MLflow records what was not given, too, as a shell would quote it.
    usual = dict.fromkeys(("epochs", "seed", "seeds", "variant", "cluster"), "''")
    usual |= {"dataset": "auto", "jobs": "1", "profile": "full"}
    given = [
        {"epochs": "5", "variant": "Adam,RMSprop"},
        {"dataset": "digits", "seed": "7"},
        {"dataset": "digits", "epochs": "2", "seeds": "3"},
    ]
    found = [dict(run.data.params) for run in projects]
    assert len(found) == len(given)
    assert all({**usual, **each} in found for each in given)


def test_the_ui_opens_on_the_local_store(project, environment):
    """`mlflow ui`, as the README gives it, answers with the UI's page."""
    assert "mlflow ui" in COMMANDS
    port = free_port()
    ui = subprocess.Popen(
        ["bash", "-c", "mlflow ui"],
        cwd=project,
        env=environment | {"MLFLOW_PORT": str(port), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def page() -> str:
        assert ui.poll() is None
        # It may listen before it can answer, and break off.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE).read().decode()
        return ""

    try:
        assert "MLflow" in wait_until(page)
    finally:
        os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("epochs=many", "argument --epochs: 'many'; legal: a whole number, such as 20"),
        pytest.param("epocs=5", "--epocs", marks=pytest.mark.slow),
        pytest.param("variant=Adamm", "Did you mean 'Adam'?", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_option_fails_the_run_and_says_why(project, environment, empty_store, tmp_path, option, said):
    """A misspelt or illegal -P ends `mlflow run` with an error that names it, the project's run FAILED, no children."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run(
        ["mlflow", "run", ".", "-e", "optimizers", "--env-manager", "local", "-P", option],
        cwd=project,
        env=environment | {"MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert [run.info.status for run in mlflow.MlflowClient(store).search_runs(["0"])] == ["FAILED"]
