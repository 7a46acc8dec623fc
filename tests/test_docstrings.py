"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mlplab"
WITH_EXAMPLES = [path.stem for path in sorted(PACKAGE.glob("*.py")) if ">>>" in path.read_text()]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def names(digits: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """What an example may take for granted: x and y, a model function, and a compiled model of it."""
    import keras

    def mlp() -> keras.Model:
        layers = [keras.Input((64,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(10, "softmax")]
        return keras.Sequential(layers)

    model = mlp()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = digits

    def lines() -> keras.Model:
        return keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])

    return {"x": x[:200], "y": y[:200], "mlp": mlp, "lines": lines, "model": model}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name: str, names: dict[str, Any]) -> None:
    """Each example of a module's docstrings, run where the module's own names are known, gives what stands below it."""
    module = importlib.import_module(f"mlplab.{name}")
    done = doctest.testmod(module, extraglobs=names, optionflags=FLAGS, report=False)
    assert done.failed == 0
    assert done.attempted > 0 or name == "comparing"  # a whole comparison is run by other tests
