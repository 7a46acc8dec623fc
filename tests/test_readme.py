"""The commands of README.md and docs/, as a user types them: run here, by another test, or not for a reason."""

import argparse
import contextlib
import http.client
import itertools
import os
import re
import shlex
import signal
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from conftest import PAGES, PATIENCE, ROOT, blocks, free_port, wait_until

from mlplab import __main__ as command_line
from mlplab.loading import load_experiment

COMMANDS = [
    line.partition("  #")[0].strip() for block in blocks("sh", *PAGES) for line in block.splitlines() if line.strip()
]
REPORT = "mlflow run . -e report"
"""Every experiment is long: `test_experiments.py` runs it, and looks at what it leaves."""
MLFLOW_RUN = "mlflow run . -e optimizers --env-manager local -P dataset=digits -P epochs=2"
IN_A_SHELL = f"{MLFLOW_RUN} -P variant=Adam,RMSprop -P seed=7"
"""The one of its kind that is run by `mlflow run` itself; what the others run is found by MLflow, and run here."""

BY_OTHERS = {
    "pip install .": "test_command_line.py::test_an_installed_mlplab_works_outside_the_clone",
    "mlplab init mine.py": "test_command_line.py::test_an_installed_mlplab_works_outside_the_clone",
    "mlplab compare mine.py": "test_command_line.py::test_an_installed_mlplab_works_outside_the_clone",
    "mlplab compare mine.py --seeds until:30": "test_until.py::test_a_variant_in_no_open_pair_is_trained_no_further",
    "mlplab compare examples/several_datasets.py": "test_across.py::test_the_example_is_answered",
    "mlplab run optimizers_tuned": "test_tuning.py::test_the_projects_experiments_are_tuned",
    "mlplab run random_search": "test_experiments.py::test_every_experiment_runs",
    f"{REPORT} --env-manager local -P profile=smoke -P dataset=digits": (
        "test_experiments.py::test_every_experiment_runs"
    ),
    IN_A_SHELL: "test_readme.py::test_mlflow_runs_the_project",
    "mlflow ui": "test_readme.py::test_the_ui_opens_on_the_local_store",
    "make docs": "test_docs.py::test_the_pages_are_built_without_a_warning",
    "make secrets": "test_stack.py::test_the_secrets_are_made_of_random_digits_once",
    "docker compose run --rm --build trainer": "test_services.py::test_artifacts_go_through_the_tracking_server",
    "docker compose run --rm trainer python -m mlplab register": (
        "test_services.py::test_what_was_trained_is_registered_and_served"
    ),
    "python -m mlplab run optimizers --dataset digits --epochs 2 --cluster local:2": (
        "test_cluster.py::test_the_documented_command_trains_with_workers_of_this_machine"
    ),
    f"{MLFLOW_RUN} -P jobs=2": "test_cluster.py::test_a_worker_trains_to_the_same_bits",
    "mlflow run . -e serve --env-manager local": "test_services.py::test_what_was_trained_is_registered_and_served",
}
"""Command -> the test that runs it, or the same with other numbers."""

NOT_RUN = {
    "make optimizers": "it is CI's: .ci/run",
    "make test": "it is CI's: .ci/run",
    "make stack": "it runs until Ctrl-C; test_services.py starts the same services",
    "make bench": "hours, and downloads",
    "docker buildx imagetools inspect postgres:17.6-bookworm": "there may be no Docker, and it asks a registry",
    "docker buildx imagetools inspect python:3.11.13-slim-bookworm": "there may be no Docker, and it asks a registry",
    "docker compose up --build --detach": "there may be no Docker; test_services.py starts the same services",
    "dask scheduler --host 0.0.0.0 --port 8786 --no-dashboard": "test_cluster.py starts them on ports of its own",
    "dask worker tcp://scheduler:8786 --nthreads 1 --nworkers 8 --memory-limit 0 --no-dashboard": "as the scheduler",
    "mlflow run . -e optimizers -P seeds=10 -P cluster=tcp://scheduler:8786": "as the scheduler",
    "mlflow models serve -m models:/mnist-mlp@champion --env-manager local": (
        "until Ctrl-C; test_registry.py has a version answer in a process of MLflow's"
    ),
    'export PATH="$PWD/.venv/bin:$PATH"': "the tests' own environment stands for it",
    **{
        f"python benchmarks/{name}.py": "minutes to an hour, and measures the machine"
        for name in ("training", "zoo", "seeds", "search", "tracking", "rest", "serving", "looks", "race")
    },
}
"""Command -> why no test runs it."""

FIRST_LOOK = {"--epochs": "1", "--seeds": "2", "--variant": "plain,dropout"}
"""Given to commands that train, where they do not say it themselves."""


def run_here() -> list[str]:
    """The commands that are neither run by other tests nor by none."""
    return [command for command in dict.fromkeys(COMMANDS) if command not in {**BY_OTHERS, **NOT_RUN}]


# ---------------------------------------------------------------------------------------------------- none is forgotten


def test_the_two_first_commands_are_cis() -> None:
    """The README's make commands are those that CI runs, on a fresh clone."""
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    made = [line for block in blocks("sh", ROOT / "README.md") for line in block.split("\n") if line[:4] == "make"]
    assert made == ["make optimizers", "make test"]
    assert set(made) <= set(ci)


def test_what_is_not_run_here_is_still_there() -> None:
    """Each command that is run elsewhere or nowhere stands in a page, in one list, and the test that runs it exists."""
    assert set(BY_OTHERS) | set(NOT_RUN) <= {*COMMANDS, "make docs"}
    assert not set(BY_OTHERS) & set(NOT_RUN)
    for test in BY_OTHERS.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Commands stand in blocks of `sh`, and code in blocks of `python`: so none is missed."""
    opened = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)[::2]
    assert set(opened) <= {"sh", "python"}


def mentioned() -> list[str]:
    """Commands within sentences, and those in blocks."""
    text = "\n".join(page.read_text() for page in (*PAGES, ROOT / "CONTRIBUTING.md"))
    within = re.findall(r"`((?:mlplab|mlflow|python|make) [^`\n]+)`", text)
    return sorted({*within, *COMMANDS})


@pytest.mark.parametrize("command", mentioned())
def test_every_command_is_legal(command: str) -> None:
    """Programs, options, entry points, targets and files that a page names are there, in sentences too."""
    words = [word for word in shlex.split(command) if word != "…"]
    if words[:3] == ["python", "-m", "mlplab"]:
        words = ["mlplab", *words[3:]]
    if words[0] == "mlplab" and words[1:]:
        assert parsed(command_line.parser(), words[1:])
    elif words[0] == "make":
        targets = {*re.findall(r"^([\w.]+):", (ROOT / "Makefile").read_text(), re.MULTILINE), "optimizers", "clean"}
        assert {word for word in words[1:] if "=" not in word} <= targets
    elif words[:3] == ["mlflow", "run", "."]:
        points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
        name = words[words.index("-e") + 1] if "-e" in words else "main"
        given = [word.partition("=")[0] for before, word in itertools.pairwise(words) if before == "-P"]
        assert set(given) <= set(points[name]["parameters"])
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file()


def parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> bool:
    """Whether a parser takes the arguments; `--help` ends with 0."""
    try:
        parser.parse_args(arguments)
    except SystemExit as end:
        return end.code == 0
    return True


# ------------------------------------------------------------------------------------------------------- they are run


@pytest.mark.slow
def test_every_other_command_does_what_the_page_says(
    store: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that is left ends with 0, all in one store, and the notebook's lines give what they say.

    They are given to the command's own `main`, since a process each would load TensorFlow each time.
    """
    assert command_line.main(["init"]) == 0
    ran = 0
    for command in run_here():
        arguments = arguments_of(command)
        if arguments[0] == "compare":
            arguments += [word for option in FIRST_LOOK.items() if option[0] not in arguments for word in option]
        if "RUN_ID" in arguments:
            trained = next(run for run in runs_of(store) if run.data.tags.get("mlplab.kind") == "training")
            arguments[arguments.index("RUN_ID")] = trained.info.run_id
        assert command_line.main(arguments) == 0, f"{command}\n{capsys.readouterr()}"
        ran += 1
    assert ran >= 8
    assert {run.info.status for run in runs_of(store)} == {"FINISHED"}
    parents = [run for run in runs_of(store) if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlplab.kind"] for run in parents} == {"comparison", "replay", "registration"}
    assert int(store.get_model_version_by_alias("mine", "champion").version) == 1

    (notebook,) = [block for block in blocks("python", *PAGES) if "mlplab.compare(" in block]
    small = load_experiment("./mine.py").with_seeds(2).with_base(epochs=1)  # type: ignore[union-attr]
    names: dict[str, Any] = {"COMPARISON": small}
    exec(notebook, names)
    assert names["compared"].answer
    assert names["compared"].best().built


def runs_of(client: mlflow.MlflowClient) -> list[Any]:
    """Every run of a store."""
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def arguments_of(command: str) -> list[str]:
    """What `mlplab` is given by a command; of `mlflow run` what MLflow makes of the project's entry point."""
    words = shlex.split(command)
    if words[:2] == ["mlflow", "run"]:
        from mlflow.projects.utils import load_project

        given = [word for before, word in itertools.pairwise(words) if before == "-P"]
        point = load_project(str(ROOT)).get_entry_point(words[words.index("-e") + 1])
        words = shlex.split(point.compute_command(dict(word.split("=", 1) for word in given), None))
    words = words[3:] if words[:3] == ["python", "-m", "mlplab"] else words[1:] if words[0] == "mlplab" else []
    assert words, f"no test knows how to run {command!r}; run it here, or say in BY_OTHERS or NOT_RUN who does"
    return words


@pytest.mark.slow
def test_mlflow_runs_the_project(project: Path, environment: dict[str, str]) -> None:
    """`mlflow run` trains in the project's run, in a folder whose name has spaces, and says how to open the UI."""
    done = subprocess.run(
        ["bash", "-c", IN_A_SHELL], cwd=project, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"mlflow ui --backend-store-uri 'sqlite:///{project}/mlflow.db'" in urllib.parse.unquote(done.stdout)
    runs = runs_of(mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db"))
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["mlflow.project.entryPoint"] == "optimizers"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2
    # MLflow records what was not given, too, as a shell would quote it.
    given = {"dataset": "digits", "epochs": "2", "variant": "Adam,RMSprop", "seed": "7"}
    assert parent.data.params == {**given, "seeds": "''", "cluster": "''", "jobs": "1", "profile": "full"}


@pytest.mark.slow
def test_the_ui_opens_on_the_local_store(project: Path, environment: dict[str, str]) -> None:
    """`mlflow ui`, as the pages give it, answers with the UI's page."""
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


@pytest.mark.slow
def test_a_wrong_option_fails_the_run_and_says_why(
    project: Path, environment: dict[str, str], empty_store: Path, tmp_path: Path
) -> None:
    """An illegal -P ends `mlflow run` with an error that names it, the project's run FAILED, and no children."""
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    done = subprocess.run(
        ["mlflow", "run", ".", "-e", "optimizers", "--env-manager", "local", "-P", "epochs=many"],
        cwd=project,
        env=environment | {"MLFLOW_TRACKING_URI": store},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode != 0
    assert "argument --epochs: 'many'; legal: a whole number, such as 20" in done.stderr
    assert [run.info.status for run in runs_of(mlflow.MlflowClient(store))] == ["FAILED"]


@pytest.mark.parametrize(("option", "said"), [("epocs=5", "--epocs"), ("variant=Adamm", "Did you mean 'Adam'?")])
def test_what_mlflow_makes_of_a_misspelt_option_is_refused(
    option: str, said: str, store: mlflow.MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt -P reaches the command that the entry point runs, which names it and trains nothing."""
    arguments = arguments_of(f"mlflow run . -e optimizers -P dataset=digits -P {option}")
    with contextlib.suppress(SystemExit):
        assert command_line.main(arguments) == 2
    assert said in capsys.readouterr().err
    assert runs_of(store) == []
