"""A user's own functions: where they are, how another process finds them again, and a hash of the code behind them.

A process of another machine need not have the user's files: it is given their text, see `texts` and `install`.
"""

import ast
import functools
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import linecache
import runpy
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mlplab.checks import UsageError

EXPERIMENTS = ("COMPARISON", "SEARCH", "PREDICTION", "OVERVIEW")
"""The names by which a file holds an experiment: what is assigned to them is no code of the user's functions."""

_INSTALLED = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")})
_PRODUCT = Path(__file__).resolve().parent

_texts: dict[str, "Texts"] = {}
"""The files that define the user's experiments and functions -> modules that these import, as they were by then."""

_stamps: dict[str, int] = {}
"""Modules beside an experiment's file that were imported -> the time of change of the file that they were read from."""


def file_of(target: Any) -> str:
    """The file that defines a function or class; "" for one of a notebook."""
    own = inspect.unwrap(target)
    if isinstance(own, FunctionType):
        name = own.__code__.co_filename
    else:
        name = getattr(sys.modules.get(own.__module__), "__file__", "") or ""
    return str(Path(name).resolve()) if Path(name).is_file() else ""


def is_installed(file: str) -> bool:
    """Whether a file is of Python or of an installed package, and so none of the user's."""
    return any(Path(file).is_relative_to(folder) for folder in _INSTALLED)


def run(path: Path) -> dict[str, Any]:
    """Runs a file as it and the modules beside it are now, and returns what it defines.

    Not as a module: any ending will do, and no bytecode is left beside the file, or read where it is outdated.
    """
    _make_importable(path)
    beside = {}
    for file, name in _beside(path):
        module, stamp = sys.modules.get(name), file.stat().st_mtime_ns
        where = getattr(module, "__file__", None) or ""
        # Of that name Python may have one from another folder, or as it was before it was edited.
        outdated = where and (Path(where).resolve() != file or _stamps.get(str(file), stamp) != stamp)
        if outdated and not is_installed(where):
            del sys.modules[name]
        beside[str(file)] = stamp
    _stamps.update(beside)
    _note_texts(path.resolve())
    return runpy.run_path(str(path), run_name=f"mlplab_experiment_{path.stem}")


Texts = Mapping[str, tuple[str, str]]
"""Name of a module -> its file and its text."""


def texts() -> Texts:
    """The user's own modules as another process has to have them: those that define what was used, or are beside it.

    What a function imports only when it is called is among them.
    """
    return {name: text for each in _texts.values() for name, text in each.items()}


def _note_texts(file: Path) -> None:
    name, root = _module_of(file)
    modules = _beside(file)
    if getattr(sys.modules.get(name), "__file__", None) == str(file):  # and not run as a spec is
        packages = [folder / "__init__.py" for folder in file.parents if folder.is_relative_to(root) and folder != root]
        modules += [(path, _module_of(path)[0]) for path in [file, *packages]]
    _texts[str(file)] = {name: (str(path), path.read_text(errors="replace")) for path, name in modules}


def install(given: Texts) -> None:
    """Has imports of these modules run these texts, whatever else this machine has of that name.

    They take the place of those that were installed before; where nothing has changed, what is loaded stays.
    """
    before = _installed.texts
    if dict(given) == dict(before):
        return
    for name in {*before, *given}:
        loaded = getattr(sys.modules.get(name), "__file__", None)
        # With one of them all that may have imported it are loaded anew.
        if loaded and not is_installed(loaded):
            del sys.modules[name]
    _installed.texts = given
    if _installed not in sys.meta_path:
        sys.meta_path.insert(0, _installed)


class _Installed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports modules from their texts."""

    def __init__(self) -> None:
        self.texts: Texts = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self.texts:
            return None
        file = self.texts[name][0]
        found = importlib.machinery.ModuleSpec(name, self, origin=file, is_package=Path(file).stem == "__init__")
        found.has_location = True
        return found

    def exec_module(self, module: ModuleType) -> None:
        file, text = self.texts[module.__name__]
        # So that a traceback, and who asks for a function's source, has its lines.
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
        exec(compile(text, file, "exec"), vars(module))


_installed = _Installed()


def functions_of(file: str) -> dict[str, Any]:
    """What a user's file defines.

    Raises:
        UsageError: it is not there any more, or cannot be run.
    """
    try:
        return _defined_in(file, Path(file).stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); it has the code that was recorded.") from None
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{file}, which has the code that was recorded, cannot be run: {type(error).__name__}: {error}"
        ) from error


@functools.lru_cache(maxsize=64)
def _defined_in(file: str, _stamp: int) -> dict[str, Any]:
    path = Path(file)
    module, _ = _module_of(path)
    if "." not in module:
        return run(path)
    # What it imports by its package's name, or relative to it, is found where it is imported so itself.
    _make_importable(path)
    return vars(importlib.import_module(module))


def _module_of(path: Path) -> tuple[str, Path]:
    """The name by which a file is imported, with the packages that it is in; and the folder where these are."""
    names, folder = [] if path.stem == "__init__" else [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names), folder


def _make_importable(path: Path) -> None:
    """Has Python find the modules beside a file before those of any other folder, as it does for a script."""
    path = path.absolute()
    for folder in dict.fromkeys((str(_module_of(path)[1]), str(path.parent))):
        if folder != str(_PRODUCT.parent / "experiments") and sys.path[:1] != [folder]:
            sys.path[:] = [folder, *(one for one in sys.path if one != folder)]


# -------------------------------------------------------------------------------------------------- what it consists of


def source(target: Any, file: str) -> str:
    """A hash of the code behind a function: of its file and the modules beside it, or of a notebook's cells."""
    if file and file not in _texts:
        _note_texts(Path(file))
    texts = dict(_files(Path(file))) if file else dict(_cells(inspect.unwrap(target), set()))
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def _beside(path: Path) -> list[tuple[Path, str]]:
    """The modules beside a file that it imports, however indirectly, and the names by which it does."""
    start = path.resolve()
    root = _module_of(start)[1]
    found = [file for file in _reached(start) if file != start and file.is_relative_to(root)]
    return [(file, ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")) for file in found]


def _files(start: Path) -> Iterator[tuple[str, str]]:
    """Hashes of a file and of the modules beside it that it imports, by places that a copy elsewhere shares."""
    root = _module_of(start)[1]
    for path in _reached(start):
        place = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        yield place, _code(path, path.stat().st_mtime_ns)[0]


def _reached(start: Path) -> list[Path]:
    found, todo = [], [start]
    while todo:
        path = todo.pop()
        if path not in found:
            found.append(path)
            todo += _imported(path)
    return found


def _imported(path: Path) -> Iterator[Path]:
    """The files of the user's own modules that a file imports, with those of their packages."""
    root = _module_of(path)[1]
    for level, name in _code(path, path.stat().st_mtime_ns)[1]:
        folders = {path.parents[min(level, len(path.parents)) - 1]} if level else {path.parent, root}
        parts = name.split(".")
        for folder in sorted(folders):
            for place in (folder.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)):
                for file in (place.parent / f"{place.name}.py", place / "__init__.py"):
                    if file.is_file() and not file.is_relative_to(_PRODUCT) and not is_installed(str(file)):
                        yield file


@functools.lru_cache(maxsize=256)
def _code(path: Path, _stamp: int) -> tuple[str, tuple[tuple[int, str], ...]]:
    """A hash of a file's code without what decides nothing; and what it imports: how many folders up, which name."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return hashlib.sha256(path.read_bytes()).hexdigest(), ()  # what is wrong with it is said where it is imported
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            head = f"{node.module}." if node.module else ""
            imports += [(node.level, f"{head}{alias.name}") for alias in node.names]
    tree.body = [node for node in tree.body if not _holds_experiment(node)]
    said = ast.dump(without_docstrings(tree))
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest(), tuple(dict.fromkeys(imports))


def _holds_experiment(node: ast.stmt) -> bool:
    assigned = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(name, ast.Name) and name.id in EXPERIMENTS for name in assigned)


def without_docstrings(tree: ast.Module) -> ast.Module:
    """A module's code without what only its readers see: docstrings; comments are no part of it anyway."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                one
                for one in node.body
                if not (
                    isinstance(one, ast.Expr)
                    and isinstance(one.value, ast.Constant)
                    and isinstance(one.value.value, str)
                )
            ] or [ast.Pass()]
    return tree


def _cells(target: Any, seen: set[str]) -> Iterator[tuple[str, str]]:
    """The code of a notebook's function or class, and of what it uses of the notebook."""
    seen.add(target.__name__)
    members = vars(target).values() if isinstance(target, type) else [target]
    functions = [one for one in map(inspect.unwrap, members) if isinstance(one, FunctionType)]
    try:
        yield target.__name__, ast.dump(without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(target)))))
    except (OSError, TypeError, SyntaxError):
        yield target.__name__, repr([_bytes(one.__code__) for one in functions])
    for function in functions:
        for name in sorted(set(_names(function.__code__)) - seen):
            used = function.__globals__.get(name)
            used = inspect.unwrap(used) if callable(used) else used
            if isinstance(used, FunctionType | type) and used.__module__ == target.__module__:
                yield from _cells(used, seen)
            elif isinstance(used, bool | int | float | str | tuple):
                yield name, repr(used)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _names(one)


def _bytes(code: CodeType) -> tuple[Any, ...]:
    """A function's compiled code, without the addresses that a code within it would be shown by."""
    constants = tuple(_bytes(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.co_code, code.co_names, constants
