"""mlplab as a guest in somebody else's process: what it needs while it works, it puts back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

STATE = '''
import json, logging, os, random, sys

def levels():
    known = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {"": logging.root.level, **{name: one.level for name, one in known.items()}}

def state():
    """What of a process others may rely on."""
    found = {"environment": dict(os.environ), "levels": levels(), "random": repr(random.getstate())}
    if "numpy" in sys.modules:
        found["numpy"] = repr(sys.modules["numpy"].random.get_state())
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        found["keras"] = [keras.config.dtype_policy().name, keras.config.floatx(), keras.config.backend()]
        found["keras"] += [repr(keras.src.backend.common.global_state.get_global_attribute("global_random_seed"))]
    return found
'''

USER = f"""{STATE}
random.seed(3)
logging.getLogger("mlflow").setLevel(logging.DEBUG)
logging.getLogger("alembic").setLevel(logging.ERROR)
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "6"
IMPORTED = sys.argv[1] == "imported"
if IMPORTED:
    import numpy as np, keras, tensorflow, mlflow
    np.random.seed(3)
    keras.config.set_dtype_policy("mixed_bfloat16")
before = state()
import mlplab
from mlplab import Comparison, Training
after_import = state()
heavy = sorted({{"keras", "tensorflow", "mlflow", "numpy", "sklearn"}} & set(sys.modules))
spec = Comparison(
    name="guest",
    question="Which?",
    data="digits",
    base=Training(model="mlp", optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"]),
    variants={{"a": {{}}, "b": {{"learning_rate": 0.1}}}},
    seeds=2,
)
compared = mlplab.compare(spec)
after = state()
best = compared.best()
shown = best.predict(compared.data.test.x[:2], verbose=0).shape, "<table>" in compared._repr_html_()
json.dump([before, after_import, after, state(), heavy, shown], open("said.json", "w"))
"""

PLAIN = f"""{STATE}
random.seed(3)
logging.getLogger("mlflow").setLevel(logging.DEBUG)
import numpy, tensorflow, keras, mlflow, matplotlib.pyplot
json.dump(state(), open("said.json", "w"))
"""

OVERLAPPING = """
import json, os, threading
from mlplab import backend
begun, first_is_over, seen = threading.Event(), threading.Event(), []

def retries():
    return os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES")

def second():
    with backend.settings():
        begun.set()
        first_is_over.wait(30)
        seen.append(retries())

other = threading.Thread(target=second)
with backend.settings():
    other.start()
    assert begun.wait(30)
first_is_over.set()
other.join()
json.dump([*seen, retries()], open("said.json", "w"))
"""


def said(code: str, folder: Path, environment: dict[str, str], *arguments: str) -> Any:
    """What a program of somebody's left, run in a folder of its own."""
    command = [sys.executable, "-c", code, *arguments]
    given = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "said.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["imported", "fresh"])
def test_a_comparison_leaves_a_process_as_it_was(
    kind: str, empty_store: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """After `compare` variables, random states, levels of logging and Keras' settings are those of before.

    Where it was the first to import TensorFlow and MLflow, they are at most what an import of these alone leaves.
    """
    for name in ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS", "TF_XLA_FLAGS", "KERAS_BACKEND"):
        environment = {key: value for key, value in environment.items() if key != name}
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    environment |= {"XDG_STATE_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    before, after_import, after, at_last, heavy, shown = said(USER, tmp_path, environment, kind)
    assert after_import == before
    assert heavy == (["keras", "mlflow", "numpy", "sklearn", "tensorflow"] if kind == "imported" else [])
    assert shown == [[2, 10], True]
    if kind == "fresh":
        (tmp_path / "plain").mkdir()
        plain = said(PLAIN, tmp_path / "plain", environment)
        for name in set(after["environment"]) - set(before["environment"]):
            before["environment"][name] = plain["environment"][name]
        # Importing MLflow sets its loggers, too; what was not imported has none.
        before["levels"] = {name: level for name, level in plain["levels"].items() if name in after["levels"]}
        # TensorFlow draws a number when it is imported; NumPy's generator begins anywhere.
        before |= {"random": plain["random"], "keras": plain["keras"], "numpy": after["numpy"]}
    for found in (after, at_last):
        for name in ("environment", "random", "numpy", "keras"):
            assert found[name] == before[name], name
        # A logger that was asked for meanwhile is no change.
        assert {name: found["levels"].get(name) for name in before["levels"]} == before["levels"]


def test_settings_last_as_long_as_the_last_block_of_any_thread(environment: dict[str, str], tmp_path: Path) -> None:
    """A block that began in the meantime, in another thread, keeps its settings when the first one is over."""
    assert said(OVERLAPPING, tmp_path, environment | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "6"}) == ["0", "6"]
