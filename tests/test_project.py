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
from packaging.specifiers import SpecifierSet

from mlplab.loading import KINDS, experiment_names, load_experiment

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
    point = entry_points()[name]
    assert point["command"].startswith(f"python -m mlplab run {name} ")
    assert set(re.findall(r"\{(\w+)\}", point["command"])) == set(point["parameters"])
    assert all(set(parameter) == {"type", "default"} for parameter in point["parameters"].values())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_data(path: Path) -> None:
    """An experiment's file is a docstring, the import of the spec and one of its kinds, and that is a legal one."""
    docstring, words, *calls, held = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(words, ast.ImportFrom)
    assert all(isinstance(each, ast.Assign) and isinstance(each.value, ast.Call) for each in calls)
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


def locked() -> dict[str, Requirement]:
    lines = [line.removesuffix(" \\") for line in read("requirements.lock").splitlines() if line[:1].strip(" #")]
    return {requirement.name.lower(): requirement for requirement in map(Requirement, lines)}


def test_conda_installs_what_the_package_depends_on() -> None:
    """conda.yaml's pip list is pyproject.toml's dependencies, each at the lock's version, and its Python is legal."""
    *others, pip = yaml.safe_load(read("conda.yaml"))["dependencies"]
    wanted = {(r.name, str(r.marker)): r.specifier for r in map(Requirement, project()["dependencies"])}
    pinned = {(r.name, str(r.marker)): r.specifier for r in map(Requirement, pip["pip"])}
    assert set(pinned) == set(wanted)
    for (name, _), specifier in pinned.items():
        # The lock is of one platform, where TensorFlow has another name than elsewhere.
        assert specifier == locked()["tensorflow-cpu" if name == "tensorflow" else name].specifier
    assert others == ["python=3.11", "pip"]
    assert "3.11" in SpecifierSet(project()["requires-python"])


@pytest.mark.parametrize(
    "wish",
    [*project()["dependencies"], *project()["optional-dependencies"]["dev"]],
    ids=lambda wish: wish.split(";")[0],
)
def test_the_lock_has_what_the_package_wishes_for(wish: str) -> None:
    """What pyproject.toml asks for in running and developing is locked to one version that it allows."""
    wanted = Requirement(wish)
    name = "tensorflow-cpu" if wanted.name == "tensorflow" else wanted.name.lower()
    (pin,) = locked()[name].specifier
    assert pin.operator == "=="
    assert wanted.specifier.contains(pin.version)


@pytest.mark.parametrize("wish", project()["dependencies"], ids=lambda wish: wish.split(";")[0])
def test_a_dependency_is_a_range(wish: str) -> None:
    """A user's environment may have other versions than ours: none is pinned, and none is open to the next breakage."""
    operators = {each.operator for each in Requirement(wish).specifier}
    assert operators == {">=", "<"}


def test_the_lock_pins_everything_and_names_no_place() -> None:
    """Each line of the lock is a name and one version, or a hash of it; none is an address, a path or an option."""
    assert len(locked()) > 50
    for requirement in locked().values():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None
    plain = re.sub(r"--hash=sha256:[0-9a-f]{64}\b", "", read("requirements.lock"))
    for forbidden in ("http:", "https:", "://", "--", "@", "/"):
        assert forbidden not in plain


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
