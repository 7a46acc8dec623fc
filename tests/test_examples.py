"""Comparisons of other people's kinds of work, from `examples/`: each trains as `fit` alone does, and leaves all that
the project's own experiments leave."""

import ast
import csv
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from conftest import PATIENCE, ROOT, plain_name, wait_until

from mlplab import __main__ as command_line
from mlplab import building, replay, training, trial
from mlplab.comparison import Comparison
from mlplab.data import Dataset, load
from mlplab.loading import load_experiment
from mlplab.loops import EPOCH, STEPS
from mlplab.results import Result
from mlplab.spec import Training
from serving.model import as_sent, named

FILES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
ONE = [name for name in FILES if name != "several_datasets"]
"""Those on one data set; `tests/test_across.py` runs the other."""
ALWAYS = ("tuned",)
"""Trained by every session: models that are compiled already."""

BY_CI = ("two_inputs", "sequences", "small_cnn")
"""Trained by CI besides; the others by `make test ARGS="-m nightly"`."""

KILLED = ("two_inputs",)
"""Killed by CI, too."""

MOST_LINES = 15
"""Of a comparison, beside its own functions."""

RANDOM = ("dropout", "quick, dropout", "shifted", "mirrored", "noise")
"""The variants with layers that draw numbers while they train."""

WITHIN = {"normalized": 5e-3}
"""How far the weights may be from those of Keras' own `fit`, if not 1e-5 of the largest. Where normalized values are
cut off at zero the last bit of a sum decides: one bit more in a start weight moves this one's by 1.2e-3 in 68 steps."""


def examples(*always: str) -> list[Any]:
    """The names of examples on one data set, to be trained: `always`, by CI, or at night."""

    def mark(name: str) -> tuple[Any, ...]:
        return () if name in always else (pytest.mark.slow if name in BY_CI else pytest.mark.nightly,)

    return [pytest.param(name, marks=mark(name)) for name in ONE]


def comparison_of(name: str) -> Comparison:
    """An example's comparison."""
    found = load_experiment(str(FILES[name]))
    assert isinstance(found, Comparison)
    return found


@dataclass
class Done:
    """What an example left: its trainings by variant and seed, and the store that they are in."""

    comparison: Comparison
    data: Dataset
    client: mlflow.MlflowClient
    parent: Any
    results: dict[tuple[str, int], Result]

    def first(self) -> list[Result]:
        """Each variant's training by the first seed."""
        return [self.results[name, self.comparison.each_seed[0]] for name in self.comparison.variants]

    def read(self, path: str) -> Any:
        """A JSON artifact of the comparison's run."""
        return json.loads(Path(self.client.download_artifacts(self.parent.info.run_id, path)).read_text())

    def best_model(self, result: Result) -> keras.Model:
        """The model that a training's run holds, as it was after the best epoch."""
        return keras.saving.load_model(self.client.download_artifacts(result.run_id, "model.keras"), compile=False)


def runs_of(client: mlflow.MlflowClient, kind: str) -> list[Any]:
    """A store's runs of a kind."""
    return [run for run in client.search_runs(["0"]) if run.data.tags.get("mlplab.kind") == kind]


@pytest.fixture(scope="module", params=examples(*ALWAYS))
def done(request: Any, empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """An example, run once by its command and looked at by several tests."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        assert command_line.main(["compare", str(FILES[request.param])]) == 0
        client = mlflow.MlflowClient()
        (parent,) = runs_of(client, "comparison")
        results = {}
        for run in runs_of(client, "training"):
            result = replay.training_of(replay.read(run.info.run_id))
            result.run_id = run.info.run_id
            results[result.variant.name, result.seed] = result
        comparison = comparison_of(request.param)
        yield Done(comparison, load(comparison.data), client, parent, results)
    mlflow.set_tracking_uri(None)


# ---------------------------------------------------------------------------------------------------------- the files


def test_there_are_eleven() -> None:
    """Ten kinds of work have an example, and one question on several data sets."""
    assert len(FILES) == 11


@pytest.mark.parametrize("name", FILES)
def test_a_comparison_has_few_lines(name: str) -> None:
    """Beside its functions, an example is a comparison of at most fifteen lines, with two to four variants."""
    (lines,) = [
        node.end_lineno - node.lineno + 1
        for node in ast.parse(FILES[name].read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMPARISON" and node.end_lineno
    ]
    assert lines <= MOST_LINES
    assert 2 <= len(comparison_of(name).variants) <= 4


def test_an_example_is_checked_before_tensorflow_loads() -> None:
    """What a file says is checked within a moment, where it does not import Keras itself."""
    names = [name for name in FILES if name != "tuned"]
    code = f"""
import sys
from mlplab.loading import load_experiment
for path in {[str(FILES[name]) for name in names]!r}:
    load_experiment(path)
sys.exit(bool({{"tensorflow", "keras", "mlflow", "sklearn"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_table_is_what_its_rule_gives() -> None:
    """The rows of bikes.csv are those that the file beside it makes."""
    with FILES["table"].with_name("bikes.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert rows == [[str(cell) for cell in row] for row in runpy.run_path(str(FILES["table"]))["rows"]()]


# ------------------------------------------------------------------------------------------------- what is on record


def test_an_example_is_answered(done: Done) -> None:
    """Every variant is trained by every seed to the end, each pair is judged by the selection metric, one has won."""
    wanted = {(name, seed) for name in done.comparison.variants for seed in done.comparison.each_seed}
    assert set(done.results) == wanted
    for result in done.results.values():
        assert result.status == "finished"
        assert result.epochs == result.variant.epochs
        assert result.best_epoch
    assert {run.info.status for run in done.client.search_runs(["0"])} == {"FINISHED"}
    judged = [one for one in done.read("verdicts.json")["verdicts"] if one["measure"] == done.comparison.metric.name]
    variants = list(done.comparison.variants)
    assert {name for one in judged for name in (one["a"], one["b"])} == set(variants)
    assert len(judged) >= len(variants) - 1
    assert done.parent.data.tags["winner"] in variants
    assert all(one in done.parent.data.tags["mlflow.note.content"] for one in (done.comparison.question, *variants))


def test_variants_pair(done: Done) -> None:
    """With a seed every variant has the same batch order, and weights that agree in place and shape start equal."""
    for seed in done.comparison.each_seed:
        first, *others = (done.results[name, seed] for name in done.comparison.variants)
        for other in others:
            assert other.order == first.order or other.variant.batch_size != first.variant.batch_size
            shared = first.start.keys() & other.start.keys()
            assert shared
            assert all(first.start[place] == other.start[place] for place in shared)


# --------------------------------------------------------------------------------------------------- the differential


def alone(variant: Training, data: Dataset, seed: int, program: str) -> tuple[str, dict[int, list[np.ndarray]]]:
    """A hash of the last weights of a variant trained by `fit` alone, and the weights after each epoch."""
    model = building.build(variant, data, seed)
    after: dict[int, list[np.ndarray]] = {}
    training.fit(
        model,
        data.train.x,
        data.train.y,
        batch_size=variant.batch(len(data.train)),
        epochs=variant.epochs,
        verbose=0,
        sample_weight=data.train.weight,
        class_weight=building.class_weight(variant, data),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: after.update({epoch + 1: model.get_weights()})
            )
        ],
        seed=seed,
        program=program,
    )
    return trial.digest([weight.tobytes() for weight in model.get_weights()]), after


def test_the_weights_are_those_of_fit_alone(done: Done) -> None:
    """To the bit, a comparison leaves the weights that `fit` leaves alone: of the last epoch, and of the best one."""
    for result in done.first():
        end, after = alone(result.variant, done.data, result.seed, result.program)
        assert end == result.end, result.variant.name
        kept = done.best_model(result).get_weights()
        assert result.best_epoch
        for mine, its in zip(after[result.best_epoch], kept, strict=True):
            np.testing.assert_array_equal(mine, its)


def test_the_weights_are_those_of_keras(done: Done) -> None:
    """Within 1e-5 they are what Keras' own `fit` gives for the same start and batch order, where no layer draws."""
    for result in done.first():
        variant, train = result.variant, done.data.train
        if variant.name in RANDOM:
            continue
        ours, theirs = (building.build(variant, done.data, result.seed) for _ in range(2))
        theirs.jit_compile = result.program in (EPOCH, STEPS)  # like with like
        weights = building.class_weight(variant, done.data)
        common = {"batch_size": variant.batch(len(train)), "class_weight": weights, "verbose": 0}
        training.fit(ours, train.x, train.y, epochs=variant.epochs, seed=result.seed, program=result.program, **common)
        for epoch in range(variant.epochs):
            order = training.batch_order(len(train), result.seed, epoch)
            x, y = keras.tree.map_structure(lambda leaf, order=order: leaf[order], (train.x, train.y))
            theirs.fit(x, y, shuffle=False, initial_epoch=epoch, epochs=epoch + 1, **common)
        for mine, its in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            within = WITHIN.get(variant.name, 1e-5)
            np.testing.assert_allclose(mine, its, rtol=within, atol=within * float(np.abs(its).max()))


# ------------------------------------------------------------------------------------------- afterwards, and in between


def test_a_replay_is_equal(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    """A recorded training, executed again from its run alone, comes to the same numbers to the bit."""
    assert command_line.main(["replay", "--run-id", done.first()[-1].run_id]) == 0
    assert "Equal to the bit" in capsys.readouterr().out


def test_the_winner_is_registered_and_predicts(done: Done) -> None:
    """`mlplab register EXAMPLE` makes the winner's model a version and the champion; it answers as the model does."""
    name = done.comparison.name
    assert command_line.main(["register", name]) == 0
    version = done.client.get_model_version_by_alias(name, "champion")
    assert version.run_id == done.parent.data.tags["winner.run_id"]
    assert version.tags["mlplab.checked"] == "passed"
    x = keras.tree.map_structure(lambda leaf: leaf[:5], done.data.test.x)
    answers = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(named(as_sent(x), "input"))
    (winner,) = [result for result in done.results.values() if result.run_id == version.run_id]
    expected = done.best_model(winner).predict(x, verbose=0)
    for row, answer in enumerate(answers):
        if isinstance(expected, dict):
            for part, values in expected.items():
                near(answer["prediction"][part], values[row])
        elif "prediction" in answer:
            near(answer["prediction"], expected[row])
        else:
            (first, *rest) = expected[row]
            likely = [first, *rest] if rest else [1 - first, first]  # of two classes
            near(answer["probabilities"], likely)
            assert answer["label"] == done.data.class_names[int(np.argmax(likely))]


def near(answer: Any, expected: Any) -> None:
    """Asserts that a served answer is what the model says."""
    np.testing.assert_allclose(np.reshape(answer, np.shape(expected)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in KILLED else pytest.mark.nightly) for name in ONE],
)
def test_an_example_killed_goes_on_to_the_same_weights(name: str, store: mlflow.MlflowClient, tmp_path: Path) -> None:
    """After kill -9 in the middle of a training the same command ends at the weights that `fit` alone ends at."""
    comparison = comparison_of(name)
    *_, variant = comparison.variants
    (seed, *_), epochs = comparison.each_seed, 150
    command = [sys.executable, "-m", "mlplab", "compare", str(FILES[name]), "--variant", variant]
    command += ["--seeds", f"{seed},", "--epochs", str(epochs)]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "MLPLAB_CHECKPOINT_SECONDS": "0",
        "PYTHONPATH": str(ROOT),
    }

    def epochs_on_record() -> int:
        return max(
            (len(store.get_metric_history(run.info.run_id, "loss")) for run in runs_of(store, "training")), default=0
        )

    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            wait_until(
                lambda: epochs_on_record() >= 3 or process.poll() is not None, said=(tmp_path / "said").read_text
            )
        finally:
            process.kill()
            process.wait()
    (run,) = runs_of(store, "training")
    assert run.info.status == "RUNNING", (tmp_path / "said").read_text()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0, again.stderr
    (run,) = runs_of(store, "training")
    assert run.data.tags["mlplab.resumed_at"].startswith("epoch ")
    (wanted,) = comparison.only([variant]).with_base(epochs=epochs).resolved()
    end, _ = alone(wanted, load(comparison.data), seed, run.data.tags["program"])
    assert run.data.tags["weights.end"] == end


# ------------------------------------------------------------------------------------------------ a folder of one's own

SHAPES = '''
"""What the comparison beside this needs."""
import keras


def net(units):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, "tanh"), keras.layers.Dense(3, "softmax")])
'''
MINE = '''
"""Is a wide network better for irises?"""
from mlplab import Comparison, Training


def iris():
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


def model(units=4):
    from shapes import net

    return net(units)


COMPARISON = Comparison(
    question="Is a wide network better for irises?",
    data=iris,
    base=Training(model=model, optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"]),
    variants={"narrow": {}, "wide": {"model.units": 32}},
)
'''


@pytest.mark.slow
def test_a_file_of_ones_own_runs_by_mlflow_from_its_folder(
    project: Path, environment: dict[str, str], store: mlflow.MlflowClient, tmp_path: Path
) -> None:
    """`mlflow run PROJECT -e compare -P spec=…` from a folder of one's own takes the file there and the module beside
    it; a replay is equal, and is refused once that module is another."""
    folder = tmp_path / "my work"
    folder.mkdir()
    (folder / "irises.py").write_text(MINE)
    (folder / "shapes.py").write_text(SHAPES)
    environment |= {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "XDG_STATE_HOME": str(tmp_path / "state")}

    def mlflow_run(*arguments: str) -> tuple[int, str]:
        command = ["mlflow", "run", str(project), "--env-manager", "local", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, done.stdout + done.stderr

    code, said = mlflow_run("-e", "compare", "-P", f"spec={folder / 'irises.py'}")
    assert code == 0, said
    (parent,) = runs_of(store, "comparison")
    assert plain_name(parent) == "irises"
    trained = runs_of(store, "training")
    assert {run.info.run_name: run.info.status for run in trained} == {"narrow": "FINISHED", "wide": "FINISHED"}
    again = ("-e", "replay", "-P", f"run_id={trained[0].info.run_id}")
    code, said = mlflow_run(*again)
    assert "Equal to the bit" in said
    assert code == 0
    (folder / "shapes.py").write_text(SHAPES.replace("tanh", "relu"))
    code, said = mlflow_run(*again)
    assert code != 0
    assert "is not what it was" in said
