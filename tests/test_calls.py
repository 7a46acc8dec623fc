"""What `mlplab.call` promises: a function with arguments, written down now, found and called again by any process."""

import copy
import functools
import json
import math
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone

from mlplab import call
from mlplab.calls import Call, FrozenDict, frozen, made, plain, shown, thawed
from mlplab.checks import UsageError
from mlplab.sources import Data
from mlplab.spec import Training

ROOT = Path(__file__).resolve().parent.parent


def cnn(
    filters: int = 32, rate: float = 0.0, act: str = "relu", norm: bool = False, widths: tuple[int, ...] = ()
) -> Any:
    """Stands for a user's model function."""
    return filters, rate, act, norm, widths


def narrow(units: int | None = None, share: "float" = 0.1, /, *more: int, key: str = "") -> Any:
    """Has an annotation of each further kind, and parameters that no keyword reaches."""
    return units, share, more, key


def anything(**options: Any) -> Any:
    return options


@functools.cache
def rows() -> tuple[int, int]:
    return 1, 2


class Loss:
    """Stands for a user's class."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def method(self) -> None: ...


def refusal(make: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(*arguments, **named)
    return str(caught.value)


def fresh(code: str, folder: Path, *flags: str) -> str:
    """What a new process prints that has never seen this one's modules."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ----------------------------------------------------------------------------------------------------------- a value


def test_calls_are_equal_by_content() -> None:
    """The order of arguments, 1 or 1.0, lists or tuples, a function or its path make no difference; a value does."""
    one = call(cnn, filters=8, rate=1.0)
    assert one == call(cnn, rate=1, filters=8)
    assert hash(one) == hash(call(cnn, rate=1, filters=8))
    assert call(cnn, widths=[1, 2]) == call(cnn, widths=(1, 2))
    assert call(keras.optimizers.SGD) == call("keras.optimizers.SGD")
    assert call(anything, on=True) != call(anything, on=1)
    assert one != call(cnn, filters=9, rate=1.0)
    assert one != call(anything, filters=8, rate=1.0)
    assert len({one, call(cnn, rate=1, filters=8), call(cnn)}) == 2


def test_a_call_cannot_be_changed() -> None:
    """Its fields, its arguments and what they hold refuse to be changed; `but` makes another."""
    widths, options = [1], {"a": [1]}
    one = call(anything, widths=widths, options=options)
    with pytest.raises(FrozenInstanceError):
        one.target = "other"  # type: ignore[misc]
    for change in (
        lambda: one.arguments.update(a=1),
        lambda: one.arguments.pop("widths"),
        lambda: one.arguments.clear(),
        lambda: one.arguments.setdefault("b", 1),
        lambda: one.arguments["options"].__setitem__("a", 2),
        lambda: one.arguments.__ior__({"b": 1}),
    ):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    widths.append(2)
    options["a"].append(2)
    assert one == call(anything, widths=(1,), options={"a": (1,)})
    assert one.but(widths=3).arguments == {"widths": 3, "options": {"a": (1,)}}
    assert one.arguments["widths"] == (1,)


NESTED = call(anything, inner=call(cnn, filters=2), many=[call(Loss), 1], by={0: 1.0, "a": (1, 2)}, loss=cnn)


@pytest.mark.parametrize("value", [call(cnn, widths=(1, 2)), NESTED, NESTED.arguments, FrozenDict({1: "a", "b": 2})])
def test_a_frozen_value_survives_what_copies_it(value: Any) -> None:
    """cloudpickle (workers), deep copies (scikit-learn clones parameters) and hashing take a frozen value."""
    for copied in (pickle.loads(cloudpickle.dumps(value)), copy.deepcopy(value), copy.copy(value)):
        assert copied == value
        assert type(copied) is type(value)
        assert hash(copied) == hash(value)
        if isinstance(copied, dict):
            with pytest.raises(TypeError):
                copied["b"] = 1

    class Estimator(BaseEstimator):  # type: ignore[misc]
        def __init__(self, model: Any = None) -> None:
            self.model = model

    assert clone(Estimator(value)).model == value


def test_a_pickled_function_of_a_file_runs_where_the_file_is_not(tmp_path: Path) -> None:
    """A call of a spec's function carries the function: a worker on another machine can make it."""
    (tmp_path / "mine.py").write_text("def cnn(n=1):\n    return n + 1\n")
    found = call(runpy.run_path(str(tmp_path / "mine.py"), run_name="mlplab_experiment_mine")["cnn"], n=4)
    (tmp_path / "work").write_bytes(cloudpickle.dumps(found))
    (tmp_path / "mine.py").unlink()
    assert fresh("import pickle; print(pickle.load(open('work', 'rb')).make())", tmp_path) == "5"


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
words = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=9) | st.sampled_from(
    ["call", "function", "arguments", "pairs", "source", "file"]
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.integers(0, 9), inner, max_size=3)
        | st.builds(lambda given: call(anything, **given), st.dictionaries(words, inner, max_size=3))
    ),
    max_leaves=8,
)


@given(st.dictionaries(words, values, max_size=4))
def test_json_gives_any_call_back(arguments: Mapping[str, Any]) -> None:
    """`to_dict` is standard JSON, and `from_dict` makes an equal call of it, whatever names its arguments have."""
    one = call(anything, **arguments)
    text = json.dumps(one.to_dict(), allow_nan=False)
    back = Call.from_dict(json.loads(text))
    assert back == one
    assert hash(back) == hash(one)
    assert back.to_dict() == one.to_dict()


@given(values)
def test_a_frozen_value_is_what_was_given(value: Any) -> None:
    """Freezing changes no value but lists into tuples, twice is as once, and it reads in JSON what it was."""

    def tuples(one: Any) -> Any:
        if isinstance(one, list):
            return tuple(map(tuples, one))
        return {k: tuples(v) for k, v in one.items()} if isinstance(one, dict) else one

    held = frozen("it", value)
    assert held == tuples(value)
    assert frozen("it", held) == held
    assert thawed(json.loads(json.dumps(plain(held)))) == held
    assert isinstance(shown(held), str)


# --------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("target", "arguments", "texts"),
    [
        (cnn, {"filter": 1}, ["unknown argument of cnn 'filter'", "rate, act", "Did you mean 'filters'?"]),
        (Loss, {"weights": 1}, ["unknown argument of Loss 'weights'", "Did you mean 'weight'?"]),
        (cnn, {"filters": 2.5}, ["filters of cnn is 2.5, a float", "legal: a whole number"]),
        (cnn, {"filters": True}, ["filters of cnn is True, a bool", "a whole number"]),
        (cnn, {"rate": "0.3"}, ["rate of cnn is '0.3', a str", "legal: a number"]),
        (cnn, {"rate": math.nan}, ["rate of cnn is nan", "a finite number"]),
        (cnn, {"rate": -math.inf}, ["rate of cnn is -inf", "a finite number"]),
        (cnn, {"act": 3}, ["act of cnn is 3, a int", "a text"]),
        (cnn, {"norm": 1}, ["norm of cnn is 1, a int", "True or False"]),
        (cnn, {"widths": 8}, ["widths of cnn is 8, a int", "a tuple"]),
        (cnn, {"widths": (8, 8.5)}, ["widths of cnn is (8, 8.5)", "a tuple of which each is a whole number"]),
        (narrow, {"units": 1}, ["unknown argument of narrow 'units'", "legal: key"]),
        (narrow, {"more": 1}, ["unknown argument of narrow 'more'"]),
        ("mlp", {"dropuot": 0.1}, ["unknown argument of mlp 'dropuot'", "Did you mean 'dropout'?"]),
        (
            "keras.optimizers.AdamW",
            {"weight_deca": 1},
            ["unknown argument of AdamW 'weight_deca'", "beta_1", "Did you mean 'weight_decay'?"],
        ),
        (keras.optimizers.SGD, {"momentun": 1}, ["unknown argument of SGD 'momentun'", "Did you mean 'momentum'?"]),
        ("keras.losses.Huber", {"deltas": 1}, ["unknown argument of Huber", "Did you mean 'delta'?"]),
        (anything, {"x": object()}, ["x of anything is <object", "a object", "call(…) of what makes it"]),
        (anything, {"x": keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)}, ["x of anything", "call(…)"]),
        (anything, {"x": np.zeros(2)}, ["x of anything is array([0., 0.])", "a ndarray"]),
        (anything, {"x": {1, 2}}, ["x of anything is {1, 2}", "a set"]),
        (anything, {"x": {(1, 2): 3}}, ["the key (1, 2) of a dict is a tuple", "a text or a number"]),
    ],
)
def test_an_argument_that_is_not_taken_is_refused(target: Any, arguments: dict[str, Any], texts: list[str]) -> None:
    """By name, by the annotated type, or because no record can hold it: with the value, and what is legal."""
    said = refusal(call, target, **arguments)
    for text in texts:
        assert text in said


def test_what_an_annotation_allows_is_taken() -> None:
    """A whole number is a number, None is of a type or None, a call may stand for any value, NumPy's are plain."""

    def check(annotation: Any, value: Any) -> bool:
        function: Any = lambda x=None: x  # noqa: E731
        function.__annotations__["x"] = annotation
        one = Call("here:function", FrozenDict(x=frozen("x", value)), function=function)
        try:
            one.check()
        except UsageError:
            return False
        return True

    assert check(float, 1)
    assert check(int | None, None)
    assert check(int | None, 3)
    assert not check(int | None, "3")
    assert check("int", 3)
    assert not check("int", 3.5)
    assert check("int | str", "3")
    assert check(Any, "3")
    assert check(list[int], (1, 2))
    assert check(int, call(cnn))
    assert type(call(cnn, filters=np.int64(3)).arguments["filters"]) is int
    assert type(call(cnn, rate=np.float64(0.5)).arguments["rate"]) is float


@pytest.mark.parametrize(
    ("target", "texts"),
    [
        (
            lambda: 1,
            ["a lambda", "another process cannot find it", "at the top level of a file", "call(cnn, filters=32)"],
        ),
        (Loss.method, ["Loss.method is defined within something else", "at the top level"]),
        (functools.partial(cnn, filters=3), ["a partial", "write call(…) in its place"]),
        (Loss(), ["a Loss", "What has been made already", "write call(…) in its place"]),
        (Loss().method, ["a method", "write call(…)"]),
        (keras.optimizers.get("sgd"), ["a SGD", "write call(…)"]),
        (None, ["None", "a NoneType"]),
        (3, ["3, a int"]),
        ("adamw", ["'adamw'", "a path such as 'keras.optimizers.AdamW'"]),
        ("a b.c", ["'a b.c'", "a path such as"]),
        ("keras.optimizers.AdmaW", ["'keras.optimizers.AdmaW'", "Did you mean 'keras.optimizers.AdamW'?"]),
        ("keras.optimisers.AdamW", ["unknown name in keras", "Did you mean 'keras.optimizers'?"]),
        ("no_such_module.cnn", ["no_such_module.cnn cannot be imported", "No module named"]),
        ("json.no_such_name", ["json has no no_such_name"]),
        ("math.pi", ["3.14", "a float"]),
    ],
)
def test_a_target_that_nobody_else_could_find_is_refused(target: Any, texts: list[str]) -> None:
    """Lambdas, closures, instances and names that are not there are refused, with the remedy."""
    said = refusal(call, target)
    for text in texts:
        assert text in said


def test_a_closure_is_refused_with_the_remedy() -> None:
    """What a function takes from around it is given as arguments."""
    width = 3

    def closure() -> int:
        return width

    assert "is defined within something else" in refusal(call, closure)
    assert "give it as arguments" in refusal(call, anything, loss=closure)
    assert "give it as arguments" in refusal(Training, model=closure)
    assert "give it as arguments" in refusal(Data, closure)


# ------------------------------------------------------------------------------------------------------------ making


def test_a_call_makes_what_it_is_of() -> None:
    """Calls among the arguments are made first, functions among them stay functions, more may be given at the end."""
    assert call(cnn, filters=2).make(rate=0.5) == (2, 0.5, "relu", False, ())
    found = call(anything, inner=call(cnn, filters=2), many=[call(rows)], by={"a": call(rows)}, loss=cnn).make()
    assert found == {"inner": (2, 0.0, "relu", False, ()), "many": ((1, 2),), "by": {"a": (1, 2)}, "loss": cnn}
    assert type(found["by"]) is dict
    optimizer = call("keras.optimizers.SGD", momentum=0.5).make(learning_rate=0.25)
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.momentum) == 0.5
    assert made(call("keras.regularizers.L2", l2=0.5)).l2 == 0.5
    assert call(rows).make() == (1, 2)
    assert call("sklearn.datasets.load_iris", return_X_y=True).make()[0].shape == (150, 4)


@pytest.mark.parametrize(
    ("one", "name", "text"),
    [
        (call("keras.optimizers.AdamW", weight_decay=1e-4), "AdamW", "AdamW(weight_decay=0.0001)"),
        (call(cnn, widths=[1, 2], act="gelu"), "cnn", "cnn(act=gelu, widths=1-2)"),
        (call("mlp"), "mlp", "mlp"),
        (call("sklearn.datasets.load_iris"), "load_iris", "load_iris"),
    ],
)
def test_a_call_is_shown_by_its_last_name(one: Call, name: str, text: str) -> None:
    """Readers see what is called and with what."""
    assert (one.name, str(one)) == (name, text)


# ------------------------------------------------------------------------------------------- the user's own functions

MINE = '''"""A file."""
import helper
from mlplab import Comparison, Training, call

def cnn(n: int = 1):
    return helper.more(n)

COMPARISON = Comparison(
    question="Is it?", data="digits", base=Training(model=cnn), variants={"a": {}}, select="val_loss"
)
'''
HELPER = "import deeper\n\ndef more(n):\n    return n + deeper.STEP\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's file with a model function, and the modules that it needs beside it."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "deeper.py").write_text("STEP = 10\n")
    (tmp_path / "unrelated.py").write_text("STEP = 10\n")
    return tmp_path


def recorded(folder: Path) -> dict[str, Any]:
    """The call of the file's function as a process records it."""
    code = (
        "import json; from mlplab.loading import load_experiment;"
        "print(json.dumps(load_experiment('mine.py').base.model.but(n=5).to_dict()))"
    )
    found: dict[str, Any] = json.loads(fresh(code, folder))
    return found


def again(record: dict[str, Any], folder: Path, *flags: str) -> str:
    """What another process makes of a record, from another folder."""
    code = f"""
from mlplab.calls import Call
from mlplab.checks import UsageError
try:
    print(Call.from_dict({record!r}).make())
except UsageError as error:
    print("refused:", error)
"""
    return fresh(code, folder, *flags)


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "optimized"])
def test_another_process_reloads_a_function_from_its_file(mine: Path, tmp_path_factory: Any, flags: tuple[str]) -> None:
    """A record of a function leads to the file, and to the modules beside it, from wherever it is read."""
    record = recorded(mine)
    assert record["call"] == "mine:cnn"
    assert record["file"] == str(mine / "mine.py")
    assert again(record, tmp_path_factory.mktemp("elsewhere"), *flags) == "15"


def test_a_function_of_another_source_is_refused(mine: Path) -> None:
    """Where the file, or a module that it imports, is not what it was, the record cannot be made: that is said."""
    record = recorded(mine)
    (mine / "deeper.py").write_text("STEP = 11\n")
    said = again(record, mine)
    assert "refused: the source of mine:cnn" in said
    assert "is not what it was" in said
    assert "Restore that, or train anew" in said
    (mine / "mine.py").write_text(MINE.replace("cnn", "cnm"))
    assert "refused: mine:cnn is not there" in again(record, mine)
    (mine / "mine.py").write_text("1 / 0\n")
    assert "cannot be run: ZeroDivisionError" in again(record, mine)
    (mine / "mine.py").unlink()
    assert "cannot be read (No such file or directory)" in again(record, mine)


def test_a_record_of_another_source_can_be_read(mine: Path) -> None:
    """To show what was trained, its code is not needed: it is refused where it is to be trained again."""
    record = recorded(mine)
    (mine / "mine.py").unlink()
    training = Training.from_dict({"model": record})
    assert training.params()["model.n"] == "5"
    assert "cannot be read" in refusal(training.model.make)


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("mine.py", '"""A file."""', '"""Another docstring."""\n\n# and a comment', True),
        ("mine.py", "return helper", '"""Explained."""\n    return  helper', True),
        ("mine.py", 'question="Is it?"', 'question="Is it so?", seeds=3', True),
        ("mine.py", "COMPARISON =", "COMPARISON: Comparison =", True),
        ("mine.py", "n: int = 1", "n: int = 2", False),
        ("mine.py", "more(n)", "more(n + 0)", False),
        ("helper.py", "import deeper", "import deeper  # why", True),
        ("helper.py", "n + deeper", "n - deeper", False),
        ("deeper.py", "10", "11", False),
        ("unrelated.py", "10", "11", True),
    ],
)
def test_the_source_is_of_all_that_decides(mine: Path, file: str, old: str, new: str, same: bool) -> None:
    """Code in the file and in the modules that it imports counts; docstrings, comments and the experiment do not."""
    before = recorded(mine)["source"]
    text = (mine / file).read_text()
    assert old in text
    (mine / file).write_text(text.replace(old, new))
    assert (recorded(mine)["source"] == before) == same


def test_the_source_is_the_same_in_another_place(mine: Path, tmp_path_factory: Any) -> None:
    """A copy of the folder is the same code, and its call is equal."""
    other = tmp_path_factory.mktemp("copy")
    for path in mine.glob("*.py"):
        (other / path.name).write_text(path.read_text())
    one, two = (Call.from_dict(recorded(folder)) for folder in (mine, other))
    assert one.file != two.file
    assert one == two


def test_a_package_of_ones_own_is_covered_and_found_again(tmp_path: Path, tmp_path_factory: Any) -> None:
    """Relative and absolute imports within a package count for the source, and another process runs it."""
    for name, text in {
        "__init__.py": "",
        "models.py": "from . import blocks\nfrom pkg.deep.scale import SCALE\ndef cnn(n: int = 1):\n"
        "    return blocks.more(n) * SCALE\n",
        "blocks.py": "def more(n):\n    return n + 1\n",
        "deep/__init__.py": "",
        "deep/scale.py": "SCALE = 10\n",
        "other.py": "X = 10\n",
    }.items():
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_text(text)
    (tmp_path / "mine.py").write_text(
        MINE.replace("import helper", "from pkg import models").replace("=cnn", "=models.cnn")
    )
    first = recorded(tmp_path)
    assert again(first, tmp_path_factory.mktemp("elsewhere")) == "60"
    (tmp_path / "pkg" / "other.py").write_text("X = 11\n")
    assert recorded(tmp_path) == first
    sources = {first["source"]}
    for name, old in (("blocks.py", "1"), ("deep/scale.py", "10"), ("deep/__init__.py", "")):
        path = tmp_path / "pkg" / name
        path.write_text(path.read_text().replace(old, "12") if old else "X = 1\n")
        sources.add(recorded(tmp_path)["source"])
    assert len(sources) == 4


def test_a_path_of_ones_own_module_is_as_good_as_its_function(mine: Path) -> None:
    """`model="helper.more"` is the function of the module beside the file, with its source."""
    (mine / "mine.py").write_text(MINE.replace("model=cnn", 'model="helper.more"'))
    record = recorded(mine)
    assert record["call"] == "helper:more"
    assert record["source"]
    assert again(record, mine) == "15"


def test_what_is_installed_has_no_source() -> None:
    """Versions are recorded elsewhere: a record does not outdate with a package's every line."""
    for one in (call("keras.optimizers.AdamW"), call("mlp"), call("sklearn.datasets.load_iris"), call(json.dumps)):
        assert (one.source, one.file) == ("", "")
    assert call(cnn).source


def test_a_notebooks_function_has_the_source_of_what_it_uses() -> None:
    """Where there is no file, the code of a function and of what it uses of the notebook counts, the same each time."""
    code = """
from mlplab import call
WIDTH = 3
def block(n):
    return [(lambda m: m + WIDTH)(one) for one in range(n)]
class Layer:
    def size(self):
        return block(2)
def cnn(n=1):
    return Layer().size() + block(n)
def other():
    return 1
first = call(cnn, n=2)
assert first.make() == [3, 4, 3, 4]
print(call(cnn).source)
"""
    unused = code.replace("return 1", "return 2")
    assert len({fresh(one, ROOT) for one in (code, code, unused)}) == 1
    changes = [("WIDTH = 3", "WIDTH = 4"), ("m + WIDTH", "WIDTH - m"), ("return block(2)", "return block(3)")]
    changed = [code.replace("assert", "0 and").replace(old, new) for old, new in changes]
    assert len({fresh(one, ROOT) for one in (code, *changed)}) == 4


def test_a_wrapped_function_is_of_its_own_file(mine: Path) -> None:
    """What a decorator of another file returns is found where it was written."""
    (mine / "unrelated.py").write_text(
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def g(**k): return 2 * f(**k)\n    return g\n"
    )
    (mine / "mine.py").write_text(
        MINE.replace("def cnn", "@twice\ndef cnn").replace(
            "import helper", "import helper\nfrom unrelated import twice"
        )
    )
    record = recorded(mine)
    assert record["file"] == str(mine / "mine.py")
    assert again(record, mine) == "30"


def test_an_instance_with_a_name_is_no_function() -> None:
    """What only looks like a function is refused as what it is."""
    assert "a SimpleNamespace" in refusal(call, SimpleNamespace(__name__="cnn", __qualname__="cnn", __module__="m"))
