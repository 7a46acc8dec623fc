"""A trained model as MLflow logs it: a folder with its signature, an input example, and what a server needs of it."""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import tensorflow as tf

import serving
from mlplab import origin, served
from mlplab.data import Dataset
from mlplab.export import answering, as_sent
from serving.model import named

PROGRAM = str(Path(serving.__file__).with_name("program.py"))
"""What MLflow runs of a logged model of several arrays."""

model_code = threading.Lock()
"""Held while MLflow runs the code of a model that is logged, for which it puts a module of its own in the place of
another, and while it writes one: two threads at a time would leave it there."""


def write(place: Path, model: Any, data: Dataset) -> None:
    """Writes a Keras model as MLflow logs it, into a new folder.

    For MLflow it is a SavedModel, a program. Beside that, in `served.FOLDER`, it is a graph that is none, if ONNX can
    say it, which is what `registry.register` takes.

    Args:
        place: the folder, not there yet, in one that is there.
        model: as it is now; its layers may be the user's own, of this process.
        data: that it was trained on.
    """
    rows = served.first_test_rows(data, 2)
    export, example = served.exported(model, data), named(as_sent(rows), "input")
    answers = named(answering(export)(as_sent(rows)), "output")
    about = {
        "signature": mlflow.models.infer_signature(example, answers),
        "input_example": example,
        # Given, not inferred: inferring imports TensorFlow in another process.
        "pip_requirements": [f"{what}=={at}" for what, at in origin.versions().items() if what != "python"],
    }
    if isinstance(example, np.ndarray) and isinstance(answers, np.ndarray):
        with model_code, _taken_as_they_are():
            mlflow.tensorflow.save_model(export, path=place, **about)
    else:  # MLflow's own flavor is asked by one array alone
        tf.saved_model.save(export, str(place.parent / "export"))
        written = mlflow.models.Model()
        with model_code, _taken_as_they_are():
            mlflow.pyfunc.save_model(
                path=place,
                mlflow_model=written,
                python_model=PROGRAM,
                artifacts={"export": str(place.parent / "export")},
                model_config={
                    "inputs": list(example) if isinstance(example, dict) else [""],
                    "outputs": list(answers) if isinstance(answers, dict) else [""],
                },
                **about,
            )
        (artifact,) = written.flavors["python_function"]["artifacts"].values()
        written.add_flavor("tensorflow", saved_model_dir=artifact["path"], model_type="tf2-module", code=None)
        written.save(place / "MLmodel")
        shutil.rmtree(place.parent / "export")
    served.write(place / served.FOLDER, export, data)


@contextlib.contextmanager
def _taken_as_they_are() -> Iterator[None]:
    """While it lasts, MLflow does not compare the requirements that it is given with what is installed.

    They are what is installed, and to compare them it reads which files every installed package has: two seconds.
    """
    from mlflow.utils import environment

    name = "warn_dependency_requirement_mismatches"
    if not hasattr(environment, name):  # a version of MLflow that does otherwise
        yield
        return
    before = getattr(environment, name)
    setattr(environment, name, lambda requirements: None)
    try:
        yield
    finally:
        setattr(environment, name, before)
