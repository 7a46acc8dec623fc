"""Imports run one way, and what is heavy or foreign is imported in one place. Read from the sources, not run."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "mlplab").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
REPORT = sorted((ROOT / "experiments" / "report").glob("*.py"))

# From what imports to what is imported. A module imports from the layers below its own, and not from its own.
LAYERS = (
    {"__main__"},
    {"command_line"},
    {"run", "terminal"},
    {"conclusion", "search_runs"},
    {"seed_group", "of_records"},
    {"replay", "search"},
    {"cluster"},
    {"registry", "trial", "labels"},
    {"training", "tracking"},
    {"delivery", "programs", "keras_fit"},
    {"loops"},
    {"figures", "search_figures", "verdict_figures"},
    {"models", "data", "drawing", "tables", "origin", "spool", "steps", "backend"},
    {"records"},
    {"results", "arrays", "ranges", "sharing"},
    {"verdicts"},
    {"statistics"},
    {"spec"},
    {"__init__"},
)
LAYER = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import; write out the package"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            pytest.fail(f"{path}, line {node.lineno}: an import that cannot be read: {ast.unparse(node)}")
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def siblings(path: Path) -> set[str]:
    """The package's modules that a file imports; the package itself, where it takes a name from it, is `__init__`."""
    found = set()
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == "mlplab":
            module = rest.partition(".")[0]
            found.add(module if (ROOT / "mlplab" / f"{module}.py").is_file() else "__init__")
    return found


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.stem)
def test_a_module_imports_from_lower_layers_only(path: Path) -> None:
    """Each module of the package has a layer and imports, even inside functions, only from those below."""
    assert path.stem in LAYER, f"{path.name} has no layer yet; give it one in LAYERS"
    upward = {module for module in siblings(path) if LAYER[module] <= LAYER[path.stem]}
    assert not upward, f"{path.name} imports {sorted(upward)}, which are not below it"


def test_nothing_of_the_package_imports_the_experiments() -> None:
    """The report is made of what the package gives, and the package knows no report."""
    assert REPORT
    assert [path.stem for path in PACKAGE if "experiments" in roots(path)] == []


def test_only_delivery_tracking_and_registry_import_mlflow() -> None:
    """MLflow's store is behind one module and its registry behind another: nothing else imports it."""
    assert [path.stem for path in PACKAGE + EXPERIMENTS + REPORT if "mlflow" in roots(path)] == [
        "delivery",
        "registry",
        "tracking",
    ]


def test_the_spec_and_the_package_import_the_standard_library_only() -> None:
    """What every command loads first needs nothing that is installed."""
    for name in ("spec", "__init__"):
        assert roots(ROOT / "mlplab" / f"{name}.py") <= set(sys.stdlib_module_names)


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    """Before a command is known to be right, only the standard library and the spec are imported."""
    files = [ROOT / "mlplab" / "__main__.py", ROOT / "mlplab" / "command_line.py", REPORT[1]]
    trees = [ast.parse(path.read_text()) for path in files]
    top = [node for tree in trees for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "mlplab",
        "mlplab.command_line",
        "mlplab.spec",
    }


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_imports_the_spec_alone(path: Path) -> None:
    """An experiment is data: it needs the words of the spec and nothing else."""
    assert {name for name in imports(path) if not name.startswith("mlplab.spec.")} == {"mlplab.spec"}
