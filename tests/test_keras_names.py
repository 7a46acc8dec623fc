"""What is read from the files of the installed Keras is what the imported Keras does."""

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest

from mlplab import keras_names
from mlplab.checks import UsageError

ROOT = Path(__file__).resolve().parent.parent
WITH_GET = tuple(kind for kind in keras_names.KINDS if hasattr(importlib.import_module(f"keras.{kind}"), "get"))
NEEDED: dict[str, Any] = {
    "boundaries": [1],
    "cell": keras.layers.LSTMCell(2),
    "cells": [keras.layers.LSTMCell(2)],
    "dims": (1,),
    "equation": "ab,bc->ac",
    "function": lambda x: x,
    "layer": keras.layers.LSTM(2),
    "optimizers_and_variables": [],
    "precision": 0.5,
    "rate": 0.1,
    "recall": 0.5,
    "schedule": lambda epoch: 0.1,
    "sensitivity": 0.5,
    "specificity": 0.5,
    "target_class_ids": [0],
    "target_shape": (1,),
    "values": [0.1, 0.2],
}
"""Arguments for the parameters that have no default, where 2 will not do."""
OPEN = {
    "keras.callbacks.CallbackList": "its parameters become those of `History`, `ProgbarLogger` and its own",
    "keras.callbacks.LambdaCallback": "it takes a function for each method of a callback",
    "keras.layers.AugMix": "it hands them on to other layers, too",
    "keras.layers.RandAugment": "it hands them on to other layers, too",
    "keras.metrics.MeanMetricWrapper": "it hands them on to the function that it is about",
    "keras.optimizers.LossScaleOptimizer": "it throws away what an older version has written",
}
"""Classes of whose `**kwargs` nothing is said."""
SWALLOWS = {
    "keras.callbacks.ReduceLROnPlateau",
    "keras.layers.HashedCrossing",
    "keras.layers.InputLayer",
}
"""Classes that never look at what is left in their `**kwargs`: an argument without effect is refused here."""
NOT_INSTALLED = {"keras.layers.FlaxLayer"}
"""Classes that cannot be made here."""
ONLY_WITH_ARGUMENTS = {"lossscaleoptimizer", "lossfunctionwrapper", "meanmetricwrapper", "mean_metric_wrapper"}
"""Names that `get` refuses because they lack an argument, of the classes of whose `**kwargs` nothing is said."""
ONLY_WITH_ARGUMENTS |= {"constant"}
"""Its value has a default, which `keras.initializers.Constant()` takes, but not `get`."""


def found(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def accepted(kind: str, target: str, **arguments: Any) -> bool:
    try:
        keras_names.check(kind, target, arguments)
    except UsageError:
        return False
    return True


def got(kind: str, name: str) -> Any:
    """What Keras' own `get` makes of a string; None where it refuses it."""
    try:
        return importlib.import_module(f"keras.{kind}").get(name)
    except (TypeError, ValueError, KeyError):
        return None


def spellings() -> list[str]:
    """Every usual string and class name of every kind, so that each is a wrong one for the others, and misspellings."""
    names = {name for kind in WITH_GET for name in importlib.import_module(f"keras.src.{kind}").ALL_OBJECTS_DICT}
    names |= {name for kind in keras_names.KINDS for name in keras_names.usual(kind)}
    names |= {name for kind in keras_names.KINDS for name in keras_names.exported(f"keras.{kind}")}
    by_hand = {"", "x", "adam ", "mean squared error", "cross_entropy", "f1", "r2", "None", "function", "ALL_OBJECTS"}
    return sorted({spelt for n in names for spelt in (n, n.lower(), n.upper(), n.capitalize(), n[:-1])} | by_hand)


@pytest.mark.parametrize("kind", WITH_GET)
def test_a_string_is_accepted_where_keras_get_accepts_it(kind: str) -> None:
    chosen = keras_names.CHOSEN_BY_COMPILE.get(kind, frozenset())
    names = [name for name in spellings() if name.lower() not in chosen]
    assert len(names) > 1000
    by_keras = {name: got(kind, name) for name in names}
    here = {name for name in names if accepted(kind, name)}
    assert {n for n in here if n.lower() not in ONLY_WITH_ARGUMENTS} == {n for n in names if by_keras[n] is not None}
    for name, thing in by_keras.items():
        if thing is not None:
            meant = found(keras_names.full_name(kind, name))
            assert thing is meant or type(thing) is meant, name


@pytest.mark.parametrize("name", ["accuracy", "acc", "Accuracy", "ACC", "accuracies", "crossentropy", "ce"])
def test_a_metric_is_accepted_where_compile_accepts_it(name: str) -> None:
    assert accepted("metrics", name) is compiles("mse", name)


@pytest.mark.parametrize("name", ["crossentropy", "ce", "CrossEntropy", "CE", "cross", "accuracy", "acc"])
def test_a_loss_is_accepted_where_compile_accepts_it(name: str) -> None:
    assert accepted("losses", name) is compiles(name, "mse")


def compiles(loss: str, metric: str) -> bool:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, activation="sigmoid")])
    x, y = keras.ops.ones((2, 1)), keras.ops.ones((2, 1))
    try:
        model.compile(loss=loss, metrics=[metric], run_eagerly=True)
        model.evaluate(x, y, verbose=0)
    except ValueError:
        return False
    return True


def classes(kind: str) -> dict[str, Any]:
    """The public classes of a kind."""
    module = importlib.import_module(f"keras.{kind}")
    return {f"keras.{kind}.{name}": thing for name, thing in vars(module).items() if isinstance(thing, type)}


def functions(kind: str) -> dict[str, Any]:
    """The public functions of a kind."""
    module = importlib.import_module(f"keras.{kind}")
    return {f"keras.{kind}.{name}": thing for name, thing in vars(module).items() if inspect.isfunction(thing)}


def signature(function: Any) -> tuple[dict[str, Any], bool]:
    """What Python says about a function: its named parameters with their defaults, and whether it has `**kwargs`."""
    if function is object.__init__:
        return {}, False
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    named.pop("self", None)
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def tells(told: Any, real: dict[str, Any]) -> bool:
    """Whether `told` has what `real` has, with the same defaults where they are literals."""
    return told is not None and all(
        name in told and (told[name] is keras_names.NOT_LITERAL or repr(told[name]) == repr(default))
        for name, default in real.items()
    )


def refuses(cls: type, **arguments: Any) -> bool:
    """Whether constructing a class fails because of an argument's name."""
    try:
        cls(**arguments)
    except (TypeError, ValueError) as error:
        said = ("unexpected keyword", "not recognized", "Unrecognized keyword", "multiple values")
        return any(words in str(error) for words in said)
    except Exception:  # It did not like a value.
        return False
    return False


@pytest.mark.parametrize("kind", keras_names.KINDS)
def test_the_names_of_a_module_are_known(kind: str) -> None:
    module = importlib.import_module(f"keras.{kind}")
    names = {name for name in vars(module) if not name.startswith("_")}
    assert set(keras_names.exported(f"keras.{kind}")) == names
    for name in names:
        assert keras_names.full_name(kind, f"keras.{kind}.{name}") == f"keras.{kind}.{name}"
        with pytest.raises(UsageError, match=f"Did you mean 'keras.{kind}"):
            keras_names.full_name(kind, f"keras.{kind}.{name}_")


@pytest.mark.parametrize("kind", keras_names.KINDS)
def test_a_function_takes_what_its_signature_says(kind: str) -> None:
    for target, function in functions(kind).items():
        real, rest = signature(function)
        told = keras_names.parameters(target)
        assert told is None if rest else tells(told, real) and list(told or ()) == list(real), target


@pytest.mark.parametrize("kind", keras_names.KINDS)
def test_a_class_without_kwargs_takes_what_its_signature_says(kind: str) -> None:
    for target, cls in classes(kind).items():
        real, rest = signature(cls.__init__)
        told = keras_names.parameters(target)
        assert rest or (tells(told, real) and list(told or ()) == list(real)), target


@pytest.mark.parametrize("kind", keras_names.KINDS)
def test_a_class_with_kwargs_takes_what_making_one_takes(kind: str) -> None:
    """Each parameter alone is taken; one of a parent class that is not known for it, and one of nobody, is refused."""
    wrong: list[tuple[str, ...]] = []
    for target, cls in classes(kind).items():
        real, rest = signature(cls.__init__)
        told = keras_names.parameters(target)
        if not rest:
            continue
        if told is None or target in OPEN:
            wrong += [] if told is None and target in OPEN else [(target, "open")]
            continue
        wrong += [] if tells(told, real) else [(target, "own")]
        needed = {name: NEEDED.get(name, 2) for name, default in told.items() if default is keras_names.REQUIRED}
        for name, default in told.items():
            value = None if default is keras_names.NOT_LITERAL else default
            if refuses(cls, **{name: value, **needed}):
                wrong.append((target, "takes", name))
        above = {name for base in cls.__mro__ for name in signature(base.__init__)[0]}
        for name in sorted(above - told.keys() | {"no_such"}):
            if target not in SWALLOWS | NOT_INSTALLED and not refuses(cls, **{name: None, **needed}):
                wrong.append((target, "refuses", name))
    assert not wrong


def test_parameters_that_lead_to_a_parent_class_are_known() -> None:
    adam = keras_names.parameters("keras.optimizers.Adam")
    assert adam is not None
    assert {"weight_decay", "clipnorm", "ema_momentum", "gradient_accumulation_steps"} <= adam.keys()
    dense = keras_names.parameters("keras.layers.Dense")
    assert dense is not None
    assert dense["units"] is keras_names.REQUIRED
    assert dense["use_bias"] is True
    assert "dtype" in dense


@pytest.mark.parametrize(
    ("kind", "target", "arguments", "said"),
    [
        ("optimizers", "adamm", {}, "unknown optimizer 'adamm'; legal: adadelta, .*Did you mean 'adam'"),
        ("losses", "mean_square_error", {}, "unknown loss 'mean_square_error'.*Did you mean 'mean_squared_error'"),
        ("metrics", "MeanSquaredEror", {}, "unknown metric 'MeanSquaredEror'.*Did you mean 'mean_squared_error'"),
        ("callbacks", "EarlyStoping", {}, "unknown callback 'EarlyStoping'.*Did you mean 'EarlyStopping'"),
        ("optimizers", "keras.optimizers.AdmW", {}, "'keras.optimizers.AdmW'.*Did you mean 'keras.optimizers.AdamW'"),
        ("optimizers", "keras.optimzers.AdamW", {}, "unknown name in keras: 'keras.optimzers'.*'keras.optimizers'"),
        ("optimizers", "AdamW", {"weight_deca": 1}, "keras.optimizers.AdamW 'weight_deca'.*mean 'weight_decay'"),
        ("losses", "keras.losses.Huber", {"dleta": 2}, "legal: delta, reduction, name, dtype.*mean 'delta'"),
        ("callbacks", "ReduceLROnPlateau", {"patiance": 2}, "Did you mean 'patience'"),
        ("metrics", "MeanIoU", {}, r"lacks num_classes; legal: call\('keras.metrics.MeanIoU', num_classes="),
        ("metrics", "accuracy", {"threshold": 0.4}, "'accuracy' is given threshold, but Keras chooses"),
        ("optimiser", "adam", {}, "unknown kind 'optimiser'; legal: optimizers, .*Did you mean 'optimizers'"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_legal_and_closest(
    kind: str, target: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        keras_names.check(kind, target, arguments)


@pytest.mark.parametrize(
    "target", ["mine.Lion", "mine>Lion", "tensorflow.keras.optimizers.Adam", "keras.Model.x", "..."]
)
def test_nothing_is_said_of_what_is_not_a_name_of_keras(target: str) -> None:
    keras_names.check("optimizers", target, {"anything": 1})


def python(code: str, *folders: Path) -> str:
    """What a fresh process prints, which looks for modules in `folders` first."""
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_neither_keras_nor_tensorflow_is_imported() -> None:
    code = """
import sys
from mlplab.keras_names import KINDS, check, exported, parameters, usual
check("optimizers", "adamw", {"weight_decay": 1e-4})
check("metrics", "auc", {"curve": "PR"})
for kind in KINDS:
    assert usual(kind)
    assert [parameters(f"keras.{kind}.{name}") for name in exported(f"keras.{kind}")]
print([name for name in sys.modules if name.partition(".")[0] in ("keras", "tensorflow", "jax", "torch")])
"""
    assert python(code) == "[]"


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({"../keras.py": "", "__init__.py": None}, ""),
        ({"optimizers/__init__.py": None}, ""),
        ({"optimizers/__init__.py": "def broken(:"}, ""),
        (
            {"optimizers/__init__.py": "from keras.src.optimizers import get as get", "src/optimizers/__init__.py": ""},
            "",
        ),
        ({"src/utils/naming.py": None}, ""),
        ({"src/optimizers/__init__.py": "ALL_OBJECTS_DICT = gather()"}, ""),
        ({"src/optimizers/__init__.py": "import os\nALL_OBJECTS_DICT = {os.getpid(): Adam}"}, ""),
        ({"src/optimizers/__init__.py": "class ALL_OBJECTS_DICT:\n    adam = None"}, ""),
        ({"src/optimizers/adam.py": "from somewhere import Adam"}, "adam"),
        ({"src/optimizers/adam.py": "Adam = make(lr=0.1)"}, "adam"),
        ({"src/optimizers/adam.py": "@decorated\nclass Adam:\n    def __init__(self): pass"}, "adam"),
        ({"src/optimizers/adam.py": "from tf import Base\nclass Adam(Base):\n    pass"}, "adam"),
        ({"src/optimizers/adam.py": "class Adam:\n    def __init__(self, **kwargs): self.use(kwargs)"}, "adam"),
    ],
)
def test_nothing_is_said_where_keras_is_laid_out_in_another_way(
    tmp_path: Path, files: dict[str, str | None], known: str
) -> None:
    usual = {
        "__init__.py": "from keras import optimizers as optimizers",
        "optimizers/__init__.py": "from keras.src.optimizers import get as get\n"
        "from keras.src.optimizers.adam import Adam as Adam\n",
        "src/__init__.py": "",
        "src/optimizers/__init__.py": "from keras.src.optimizers.adam import Adam\nALL_OBJECTS_DICT = {'adam': Adam}",
        "src/optimizers/adam.py": "class Adam:\n    def __init__(self, rate=1): pass",
        "src/utils/naming.py": "def to_snake_case(name):\n    return name",
    }
    for name, text in (usual | files).items():
        if text is not None:
            (tmp_path / "keras" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "keras" / name).write_text(text)
    code = """
from mlplab.keras_names import check, usual
check("optimizers", "adam", {"lr": 0.1})
print(*usual("optimizers"))
"""
    assert python(code, tmp_path) == known
