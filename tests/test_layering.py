"""Imports run one way, and what is heavy or foreign is imported in one place. Read from the sources, not run."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlplab

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted([*(ROOT / "mlplab").glob("*.py"), *(ROOT / "mlplab" / "store").glob("*.py")])
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
REPORT = sorted((ROOT / "experiments" / "report").glob("*.py"))

# From what imports to what is imported. A module imports from the layers below its own, and not from its own.
LAYERS = (
    # The commands, and their like in a notebook.
    {"__main__", "comparing"},
    {"command_line"},
    # An experiment: planned, trained, concluded.
    {"run", "terminal"},
    {"comparison_runs", "search_runs", "across_runs", "tuning"},
    {"conclusion"},
    {"seed_group", "of_records"},
    {"cluster", "replay", "progress"},
    {"worker"},
    # What is shown.
    {"page"},
    {"page_tested", "page_behind"},
    {"page_canvas"},
    {"page_charts"},
    {"figures", "search_figures", "verdict_figures", "across_figures"},
    {"across"},
    {"tables", "curves"},
    # One training, one search, one run of the store, one registered model.
    {"trial", "search", "registry"},
    {"choosing", "device"},
    {"records", "labels", "store.command", "store.pages", "lookup", "upkeep", "workload"},
    {"building", "judging", "store.runs"},
    # Keras' fit, faster.
    {"wrappers"},
    {"training"},
    {"programs", "keras_fit"},
    {"loops"},
    {"steps"},
    # The words: what an experiment is, and what it is about.
    {"logged_model"},
    {"loading", "folds", "answers", "predicted", "served"},
    {"results", "data"},
    {"comparison", "readers"},
    {"space"},
    {"distributions", "seeds"},
    {"spec", "sources"},
    {"calls", "datasets", "origin", "store.recorder"},
    {"store.deliver"},
    {"stores", "store.sessions"},
    {"store.errors"},
    # What needs nothing else.
    {
        "keras_names",
        "user_code",
        "models",
        "initial",
        "splits",
        "verdicts",
        "aggregates",
        "store.journal",
        "backend",
        "addresses",
    },
    {"checks", "statistics", "sequential", "racing", "arrays", "ranges", "sharing", "drawing", "export", "machine"},
    {"marks", "amounts", "layout", "views", "page_parts", "store", "folders", "evaluations"},
    # The public names, which it imports on use alone, and the folders of the cache and the state.
    {"__init__"},
)


def name_of(path: Path) -> str:
    """What a module of the package is called in it: `spec`, `store.journal`, and `store` for that package itself."""
    inside = path.relative_to(ROOT / "mlplab").with_suffix("")
    return ".".join(inside.parts).removesuffix(".__init__")


LAYER = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}
SPECS = (
    *("__init__", "calls", "checks", "comparison", "distributions", "keras_names", "loading", "seeds", "sources"),
    *("space", "spec", "user_code"),
)
"""What a spec is checked by."""
BY_NAME = {"__init__": "its public names", "calls": "what a user calls", "user_code": "a user's file in a package"}
"""Modules that import what a name says that is not known here."""


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of a file but what it imports for annotations alone."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node)


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    found = set()
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import; write out the package"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
            elif path.parent.name != "mlplab" or path.stem not in BY_NAME:
                pytest.fail(f"{path}, line {node.lineno}: an import that cannot be read: {ast.unparse(node)}")
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def siblings(path: Path) -> set[str]:
    """The package's modules that a file imports; the package itself, where it takes a name from it, is `__init__`."""
    found = set()
    for name in imports(path):
        package, _, rest = name.partition(".")
        parts = rest.split(".")
        if package == "mlplab" and rest:
            known = [".".join(parts[:length]) for length in (1, 2) if ".".join(parts[:length]) in LAYER]
            found.add(known[-1] if known else "__init__")
    return found


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_a_module_imports_from_lower_layers_only(path: Path) -> None:
    """Each module of the package has a layer and imports, even inside functions, only from those below."""
    name = name_of(path)
    assert name in LAYER, f"{name} has no layer yet; give it one in LAYERS"
    upward = {module for module in siblings(path) if LAYER[module] <= LAYER[name]}
    assert not upward, f"{path.name} imports {sorted(upward)}, which are not below it"


def test_the_layers_are_of_modules_that_are_there() -> None:
    """Each layer's modules exist, and none is in two layers."""
    every = [module for layer in LAYERS for module in layer]
    assert sorted(every) == sorted(map(name_of, PACKAGE))


def test_nothing_of_the_package_imports_the_experiments() -> None:
    """The report is made of what the package gives, and the package knows no report and no experiment."""
    assert REPORT
    assert [path.stem for path in PACKAGE if roots(path) & {"experiments", "examples", "benchmarks", "tests"}] == []


def test_only_the_modules_of_the_store_and_the_registry_import_mlflow() -> None:
    """What speaks to MLflow's store or to its registry imports it, and nothing else does."""
    assert [name_of(path) for path in PACKAGE if "mlflow" in roots(path)] == [
        "choosing",
        "logged_model",
        "lookup",
        "registry",
        "store.command",
        "store.deliver",
        "store.errors",
        "store.pages",
        "store.runs",
        "stores",
        "upkeep",
    ]
    assert not [path for path in EXPERIMENTS + REPORT if "mlflow" in roots(path)]


@pytest.mark.parametrize("name", SPECS)
def test_what_checks_a_spec_imports_the_standard_library_only(name: str) -> None:
    """What every command loads first, to check a spec, needs nothing that is installed."""
    path = ROOT / "mlplab" / f"{name}.py"
    assert roots(path) <= {*sys.stdlib_module_names, "mlplab"}
    assert siblings(path) <= {*SPECS, "models"}  # which imports Keras where it is called


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    """Before a command is known to be right, only the standard library and what checks a spec are imported."""
    files = [ROOT / "mlplab" / "__main__.py", ROOT / "mlplab" / "command_line.py", ROOT / "mlplab" / "backend.py"]
    trees = [ast.parse(path.read_text()) for path in [*files, ROOT / "experiments" / "report" / "__main__.py"]]
    top = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    light = {"mlplab", "mlplab.command_line", "mlplab.folders", *(f"mlplab.{name}" for name in SPECS)}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} <= light


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_imports_the_public_names_alone(path: Path) -> None:
    """An experiment is data: it needs the words that any user has, and nothing else of the package."""
    assert roots(path) == {"mlplab"}
    assert imports(path) <= {"mlplab", *(f"mlplab.{name}" for name in mlplab.__all__)}
