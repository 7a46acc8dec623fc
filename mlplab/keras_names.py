"""What the installed Keras offers, read from its files, so that a typing error is found before anything is imported.

Importing Keras takes seconds. Its files say the same in milliseconds: which names a module has, which strings
`keras.optimizers.get` and its like take, which arguments a class or function takes. Where they are not laid out as
expected, nothing is said here, and Keras itself says what is wrong once a variant is built.
"""

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.machinery import PathFinder
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mlplab.checks import UsageError, choose

KINDS: tuple[str, ...] = (
    *("optimizers", "optimizers.schedules", "losses", "metrics", "callbacks", "layers", "activations"),
    *("initializers", "regularizers", "constraints"),
)
REQUIRED = Parameter.empty
"""In the place of a parameter's default: it has none, so the caller has to give it."""
NOT_LITERAL = ...
"""In the place of a parameter's default: it has one that is known to Keras alone."""
CHOSEN_BY_COMPILE = {"metrics": frozenset({"accuracy", "acc"}), "losses": frozenset({"crossentropy", "ce"})}
"""Strings of which `compile` decides by the outputs' shapes what they stand for; it takes them in any case."""

_NO_CHOICE = ("get", "serialize", "deserialize", "legacy")
_Definition = ast.ClassDef | ast.FunctionDef


class _Module(NamedTuple):
    names: Mapping[str, str]
    """A name of the module -> the dotted name it was imported by; its own where it is defined here."""
    definitions: Mapping[str, str]
    """The text of its classes and functions: parsing all of a file would take longer than what is asked of one."""
    rest: ast.Module


@cache
def _text(module: str) -> str | None:
    """The source of a module of the installed Keras; None where there is no such module."""
    head, *rest = module.split(".")
    spec = PathFinder.find_spec("keras") if head == "keras" else None
    if spec is None or not spec.submodule_search_locations or not all(part.isidentifier() for part in rest):
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    # In some versions of Keras 3 the public modules stand in keras/api.
    for folder in (root.joinpath(*rest), root.joinpath("api", *rest)):
        for path in (folder / "__init__.py", folder.with_suffix(".py")):
            if path.is_file():
                return path.read_text(encoding="utf-8")
    return None


@cache
def _read(module: str) -> _Module | None:
    names: dict[str, str] = {}
    definitions: dict[str, str] = {}
    rest, decorators = "", ""
    # Cut where a statement begins at the left margin.
    for block in re.split(r"^(?![\s)\]}#]|else\b|elif\b|except\b|finally\b)", _text(module) or "", flags=re.MULTILINE):
        if found := re.match(r"(?:class|def) (\w+)", block):
            names[found[1]], definitions[found[1]] = f"{module}.{found[1]}", decorators + block
        elif not block.startswith("@"):
            rest += block
        decorators = decorators + block if block.startswith("@") else ""
    try:
        tree = ast.parse(rest)
    except SyntaxError:
        return None
    # Where a name depends on the backend, the last wins: it is the plain one, which takes the same arguments.
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(source), names=aliases, level=0):
                for alias in aliases:
                    every = _read(source) if alias.name == "*" else None
                    names |= every.names if every else {alias.asname or alias.name: f"{source}.{alias.name}"}
            case ast.Import(names=aliases):
                names |= {alias.asname: alias.name for alias in aliases if alias.asname}
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = names.get(getattr(value, "id", ""), f"{module}.{name}")
            case ast.ClassDef(name=name):
                names[name], definitions[name] = f"{module}.{name}", ast.unparse(node)
    return _Module(names, definitions, tree) if names else None


@cache
def _definition(dotted: str) -> tuple[str, _Definition] | None:
    """The module and the syntax tree of a class or function of Keras, found through the modules that import it."""
    module, _, name = dotted.rpartition(".")
    read = _read(module)
    if read is None or name not in read.names:
        return None
    if read.names[name] != dotted:
        return _definition(read.names[name])
    node = _parsed(read.definitions.get(name, ""))
    # Of what another decorator makes of it nothing is known.
    plain = node is not None and all("keras_export" in ast.unparse(d) for d in node.decorator_list)
    return (module, node) if plain and node else None


def _parsed(text: str) -> _Definition | None:
    """A class or function; of a class no other method than `__init__`, where its text can be cut so."""
    first, *methods = re.split(r"^(?=    (?:def |@))", text, flags=re.MULTILINE)
    short = first + "".join(method for method in methods if method.startswith("    def __init__("))
    for source in (short if text.startswith(("class", "@")) else text, text):
        try:
            body = ast.parse(source).body
        except SyntaxError:
            continue
        return body[0] if body and isinstance(body[0], _Definition) else None
    return None


@cache
def exported(module: str) -> Mapping[str, str]:
    """The public names of a module of the installed Keras -> the dotted name of what each stands for.

    Empty where the installed Keras has no such module.

    >>> exported("keras.optimizers")["AdamW"]
    'keras.src.optimizers.adamw.AdamW'
    """
    read = _read(module)
    return MappingProxyType({k: v for k, v in read.names.items() if not k.startswith("_")} if read else {})


@cache
def usual(kind: str) -> Mapping[str, str]:
    """The strings that Keras takes for one of `KINDS` -> what they stand for, such as `keras.optimizers.AdamW`.

    These are what `keras.<kind>.get` takes; class names where there is no `get`. A string that stands for itself is
    one of `CHOSEN_BY_COMPILE`. Empty where the files of the installed Keras do not tell.

    >>> usual("losses")["mse"]
    'keras.losses.mean_squared_error'
    """
    choose("kind", kind, KINDS)
    public = {name: where for name, where in exported(f"keras.{kind}").items() if where.startswith("keras.src.")}
    source, snake = _read(f"keras.src.{kind}"), _definition("keras.src.utils.naming.to_snake_case")
    if "get" not in public:
        return MappingProxyType({n: f"keras.{kind}.{n}" for n in public if n not in _NO_CHOICE})
    if source is None or snake is None:
        return MappingProxyType({})
    # The statements that make the dict from which `get` chooses, run on stand-ins for the classes that are in it.
    scope: dict[str, Any] = {n: type(where.rpartition(".")[2], (), {"at": where}) for n, where in source.names.items()}
    scope |= {"re": re, "__builtins__": {}}
    body = [snake[1], *(node for node in source.rest.body if "ALL_OBJECTS" in ast.unparse(node))]
    try:
        exec(compile(ast.Module(body, []), "<keras>", "exec"), scope)
        found = {name: item.at for name, item in scope["ALL_OBJECTS_DICT"].items()}
    except Exception:  # Another version of Keras does it otherwise.
        return MappingProxyType({})
    if _in_any_case(kind):
        found |= {where.rpartition(".")[2]: where for where in found.values()}
    shown = {where: f"keras.{kind}.{name}" for name, where in public.items()}
    shown |= {where: f"keras.{kind}.{name}" for name, where in public.items() if where.endswith(f".{name}")}
    found = {name: shown.get(where, where) for name, where in found.items()}
    chosen = CHOSEN_BY_COMPILE.get(kind, frozenset())
    itself = {name: name for name in (*chosen, *found) if name.lower() in chosen}
    return MappingProxyType(dict(sorted((found | itself).items())))


def _in_any_case(kind: str) -> bool:
    return ".lower() in ALL_OBJECTS_DICT" in (_text(f"keras.src.{kind}") or "")


@cache
def parameters(target: str) -> Mapping[str, Any] | None:
    """What a class or function of Keras takes by keyword -> its default (see `REQUIRED` and `NOT_LITERAL`).

    With what its `**kwargs` hand on to the classes that it is derived from.

    Args:
        target: a dotted path, such as `keras.optimizers.AdamW`.

    Returns:
        None where it takes anything, or the files of the installed Keras do not tell.

    >>> parameters("keras.optimizers.SGD")["nesterov"], parameters("keras.losses.Huber")["delta"]
    (False, 1.0)
    """
    found = _definition(target)
    if found is None:
        return None
    _, node = found
    taken = _of_class(_lineage(target)) if isinstance(node, ast.ClassDef) else None if node.args.kwarg else _own(node)
    return None if taken is None else MappingProxyType(taken)


def _lineage(target: str) -> list[str]:
    """A class and those that it is derived from, in the order in which Python looks for a method."""
    found = _definition(target)
    order = [target]
    for base in found[1].bases if found and isinstance(found[1], ast.ClassDef) else ():
        first, _, more = ast.unparse(base).partition(".")
        read = _read(found[0]) if found else None
        where = read.names.get(first, first) if read else first
        order += _lineage(f"{where}.{more}" if more else where) if where != "object" else []
    # In two lines of descent: after the last of what is derived from it.
    return [name for place, name in enumerate(order) if name not in order[place + 1 :]]


def _of_class(lineage: list[str]) -> dict[str, Any] | None:
    for place, name in enumerate(lineage):
        found = _definition(name)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return None
        for node in found[1].body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return _of_init(node, lineage[place + 1 :])
    return {}


def _of_init(init: ast.FunctionDef, parents: list[str]) -> dict[str, Any] | None:
    """An `__init__`'s own parameters, and those it takes out of its `**kwargs`, which go to `parents` where it says so.

    An argument that is left in `kwargs`, where nobody looks at it, is not legal: without effect, it would mislead.
    """
    taken = _own(init)
    del taken[next(iter(taken))]  # self
    if init.args.kwarg is None:
        return taken
    rest = init.args.kwarg.arg
    understood: set[ast.AST] = set()

    def is_rest(node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == rest

    for node in ast.walk(init):
        match node:
            case ast.Call(ast.Attribute(value, "pop" | "get"), [ast.Constant(str(name)), *default]) if is_rest(value):
                taken.setdefault(name, _literal(default[0]) if default else NOT_LITERAL)
                understood.add(value)
            case ast.Call(ast.Attribute(ast.Call(ast.Name("super")), "__init__"), given, keywords):
                if handed_on := [word.value for word in keywords if word.arg is None and is_rest(word.value)]:
                    more = _of_class(parents)
                    if more is None:
                        return None
                    by_place = sum(not isinstance(value, ast.Starred) for value in given)
                    names = {*list(more)[:by_place]} | {word.arg for word in keywords}
                    taken |= {k: v for k, v in more.items() if k not in names and k not in taken}
                    understood |= set(handed_on)
            case ast.Compare(ast.Constant(), [ast.In() | ast.NotIn()], [value]) if is_rest(value):
                understood.add(value)
            case ast.If(value) | ast.Subscript(value, ast.Constant()) if is_rest(value):
                understood.add(value)
            case ast.Raise():
                understood |= set(ast.walk(node))
    return taken if all(node in understood for node in ast.walk(init) if is_rest(node)) else None


def _own(function: ast.FunctionDef) -> dict[str, Any]:
    given = function.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args)]
    defaults = [REQUIRED] * (len(names) - len(given.defaults)) + [_literal(value) for value in given.defaults]
    taken = dict(zip(names, defaults, strict=True))
    only = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return taken | {arg.arg: REQUIRED if value is None else _literal(value) for arg, value in only}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return NOT_LITERAL


def full_name(kind: str, target: str) -> str:
    """The dotted name of what a usual string stands for; any other dotted name as it is.

    Args:
        kind: one of `KINDS`.
        target: a usual string, or a dotted path.

    Raises:
        UsageError: the installed Keras has no such name.

    >>> full_name("optimizers", "ADAMW"), full_name("metrics", "accuracy")
    ('keras.optimizers.AdamW', 'accuracy')
    """
    names = usual(kind)
    if "." in target:
        _find(target)
        return target
    if target not in names and (_in_any_case(kind) or target.lower() in CHOSEN_BY_COMPILE.get(kind, ())):
        target = target.lower()
    # What a user has registered has a > in its name.
    if target in names or not names or ">" in target:
        return names.get(target, target)
    what = {"losses": "loss"}.get(kind, kind.rpartition(".")[2].removesuffix("s"))
    return choose(what, target, [name for name in names if name.islower()] or names)


def _find(dotted: str) -> None:
    """Raises a `UsageError` where a module of the installed Keras has no such name."""
    module, _, name = dotted.rpartition(".")
    if not module or _text(dotted) is not None:
        return
    read = _read(module)
    if read is None:
        _find(module)
    elif "__getattr__" not in read.names and name not in read.names:
        choose(f"name in {module}:", dotted, [f"{module}.{n}" for n in exported(module) if n not in _NO_CHOICE])


def check(kind: str, target: str, arguments: Mapping[str, Any]) -> None:
    """Checks the name and the arguments of an optimizer, a loss, a metric, ...

    Args:
        kind: one of `KINDS`.
        target: a usual string, or a dotted path.
        arguments: by name; all that it will be made with, where it is a class.

    Raises:
        UsageError: there is no such name or parameter, or an argument is missing.

    >>> check("optimizers", "adamw", {"weight_deca": 1e-4})
    Traceback (most recent call last):
    mlplab.checks.UsageError: unknown argument of keras.optimizers.AdamW 'weight_deca'; ... Did you mean 'weight_decay'?
    """
    found = full_name(kind, target)
    if arguments and "." not in found and found in usual(kind):
        raise UsageError(
            f"{target!r} is given {', '.join(arguments)}, but Keras chooses what it stands for when it sees the "
            f"outputs; legal: it alone, or one of keras.{kind} with arguments."
        )
    taken = parameters(found)
    if taken is None:
        return
    for name in arguments:
        choose(f"argument of {found}", name, taken)
    definition = _definition(found)
    missing = [name for name, default in taken.items() if default is REQUIRED and name not in arguments]
    # A function gets what it is about, such as the labels, from Keras.
    if missing and definition and isinstance(definition[1], ast.ClassDef):
        raise UsageError(f"{found} lacks {', '.join(missing)}; legal: call({found!r}, {missing[0]}=...).")
