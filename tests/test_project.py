"""The files around the package agree with it and with each other, and name no place that is not everybody's."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from mlplab.spec import KINDS, experiment_names, load_experiment

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
EXTRA_ENTRY_POINTS = {"main", "compare", "report", "register", "replay", "serve"}
"""What `mlflow run -e` offers besides the experiments."""


def read(name: str) -> str:
    return (ROOT / name).read_text()


def entry_points() -> dict[str, Any]:
    return dict(yaml.safe_load(read("MLproject"))["entry_points"])


def project() -> dict[str, Any]:
    return dict(tomllib.loads(read("pyproject.toml"))["project"])


def test_what_is_ignored_is_ignored_as_a_link_too(tmp_path: Path) -> None:
    """Each pattern of .gitignore holds for a folder and for a link to one, as `.venv` often is; no source is hit."""
    patterns = read(".gitignore").split()
    names = {pattern.removeprefix("/").replace("*", "x"): pattern.startswith("/") for pattern in patterns}
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(read(".gitignore"))
    for name, only_here in names.items():
        (tmp_path / name).symlink_to(tmp_path)
        if only_here:
            continue
        (tmp_path / "below").mkdir(exist_ok=True)
        (tmp_path / "below" / name).mkdir()
        (tmp_path / "below" / name / "file").touch()
    status = subprocess.run(
        ["git", "-C", tmp_path, "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? .gitignore\n"
    hit = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--ignored", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert hit.stdout == ""


# -------------------------------------------------------------------------------------------------------- experiments


def test_each_experiment_has_an_entry_point_of_its_name() -> None:
    """`mlflow run . -e NAME` takes every file in experiments/, the named extras, and nothing else."""
    assert EXPERIMENTS
    assert set(entry_points()) == {path.stem for path in EXPERIMENTS} | EXTRA_ENTRY_POINTS


@pytest.mark.parametrize("name", experiment_names())
def test_an_entry_point_runs_the_experiment_of_its_name(name: str) -> None:
    """The entry point is the command that a reader could type, and takes its options from `-P`."""
    assert entry_points()[name] == {"command": f"python -m mlplab run {name}"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_data(path: Path) -> None:
    """An experiment's file is a docstring, the import of the spec and one of its kinds, and that is a legal one."""
    docstring, words, held = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(words, ast.ImportFrom)
    assert isinstance(held, ast.Assign)
    loaded = load_experiment(path.stem)
    assert isinstance(loaded, KINDS[ast.unparse(held.targets[0])])
    assert loaded.name == path.stem


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_says_what_it_asks_how_to_run_it_and_how_long_it_takes(path: Path) -> None:
    """The docstring has the question, the command of this very experiment, and the time to expect."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "?" in docstring
    assert re.search(rf"^Run: +mlflow run \. -e {path.stem}$", docstring, re.MULTILINE)
    assert re.search(r"^Time: +\S", docstring, re.MULTILINE)


# ------------------------------------------------------------------------------------------------------- requirements


def test_conda_installs_what_the_package_depends_on() -> None:
    """conda.yaml's pip list is pyproject.toml's dependencies, and its Python the one the package asks for."""
    *others, pip = yaml.safe_load(read("conda.yaml"))["dependencies"]
    assert sorted(pip["pip"]) == sorted(project()["dependencies"])
    assert others == ["python=3.11", "pip"]
    assert project()["requires-python"].startswith(">=3.11")


def locked() -> dict[str, Requirement]:
    lines = [line for line in read("requirements.lock").splitlines() if line.strip() and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in map(Requirement, lines)}


@pytest.mark.parametrize(
    "pin", [*project()["dependencies"], *project()["optional-dependencies"]["dev"]], ids=lambda pin: pin.split("=")[0]
)
def test_the_lock_has_every_pin(pin: str) -> None:
    """What pyproject.toml pins for running and developing is locked to the same version."""
    wanted = Requirement(pin)
    assert re.fullmatch(r"==[^*,]+", str(wanted.specifier)), f"{pin} is not pinned"
    assert locked()[wanted.name.lower()].specifier == wanted.specifier


def test_the_lock_pins_everything_and_names_no_place() -> None:
    """Each line of the lock is a name and one version; none is an address, a path or an option."""
    assert len(locked()) > 50
    for requirement in locked().values():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None
    for forbidden in ("http:", "https:", "://", "--", "@", "/"):
        assert forbidden not in read("requirements.lock")


# ------------------------------------------------------------------------------------------------------ committed files

PLACES = {
    "a package index": r"[\w.-]+/simple\b|files\.pythonhosted\.org|(?<!no-emit-)(index-url|find-links)\b",
    "a folder of somebody's machine": r"(?<![\w.$/])(/work/|/tmp/w\b|/home/\w|/Users/\w|/root/)",
}


def test_no_committed_file_names_a_place_of_ours() -> None:
    """What is committed works for everybody: it names no package index and no absolute path of a workplace."""
    listing = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("this is no Git checkout")
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    assert paths
    found = []
    for path in paths:
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            found += [
                f"{path.relative_to(ROOT)}:{number} names {what}"
                for what, place in PLACES.items()
                if re.search(place, line)
            ]
    assert not found


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("pip install --index-url https://mirror.example/simple numpy", "a package index"),
        ("cache: /work/main/.venv", "a folder of somebody's machine"),
        ('DATA = "/home/anna/data"', "a folder of somebody's machine"),
    ],
)
def test_a_place_of_ours_would_be_found(line: str, what: str) -> None:
    """The search above finds what it is for."""
    assert re.search(PLACES[what], line)


def test_the_licence_is_there() -> None:
    """The project says MIT and holds the licence's text."""
    assert project()["license"] == "MIT"
    licence = read("LICENSE")
    assert licence.startswith("MIT License")
    assert "Permission is hereby granted, free of charge" in licence
