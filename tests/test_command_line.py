"""The command line as its user meets it: real processes, each with a home, a cache and a tracking store of its own."""

import argparse
import ast
import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pytest
from conftest import PATIENCE, ROOT, plain_name

from mlplab import __main__ as command_line
from mlplab import keras_names, progress, terminal
from mlplab.comparison import Comparison
from mlplab.loading import experiment_names, load_experiment
from mlplab.seeds import Until

HEAVY = {"tensorflow", "keras", "mlflow", "numpy", "matplotlib", "sklearn"}

# Python imports `sitecustomize` at start: what a process has imported is known when it ends, however it ends.
HOOK = """
import atexit, os, sys
atexit.register(lambda: open(os.environ["IMPORTED"], "w").write(" ".join(sys.modules)))
"""


@dataclass
class Done:
    """How a process ended."""

    code: int
    out: str
    err: str
    imported: set[str]


class Machine:
    """A machine without data and network: home, caches, working directory and tracking store in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store.db"
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        closed = "http://127.0.0.1:9"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLPLAB_", "MLFLOW_"))}
        self.environment = kept | {
            "HOME": str(folder),
            "KERAS_HOME": str(folder / "keras"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(ROOT)]),
            "IMPORTED": str(folder / "imported"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.store}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_EXPERIMENT_ID": "0",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), closed),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        }

    def mlplab(self, *arguments: str | Path, **environment: str | Path) -> Done:
        """Runs `python -m mlplab` with `arguments`."""
        done = subprocess.run(
            [sys.executable, "-m", "mlplab", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | {key: str(value) for key, value in environment.items()},
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
            timeout=PATIENCE,
        )
        imported = set((self.folder / "imported").read_text().split())
        return Done(done.returncode, done.stdout, done.stderr, imported)

    def runs(self) -> list[tuple[str, str]]:
        """Name, without data and amount, and status of every run in the tracking store, by their start."""
        with sqlite3.connect(self.store) as store:
            found = store.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()
        return [(name.partition(" · ")[0], status) for name, status in found]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of the test's own."""
    return Machine(tmp_path)


# ------------------------------------------------------------------------------------------------------ list and help


def test_list_answers_with_every_experiment_and_loads_nothing_heavy(machine: Machine) -> None:
    """`list` prints each experiment's name and question, and needs none of the libraries that train or record."""
    done = machine.mlplab("list")
    assert (done.code, done.err) == (0, "")
    for name in experiment_names():
        assert re.search(rf"^{name} +{re.escape(load_experiment(name).question)}$", done.out, re.MULTILINE)
    assert not done.imported & HEAVY


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--help"], ["run", "compare", "list", "data", "Exit codes", "MLFLOW_TRACKING_URI"]),
        (["run", "--help"], ["name", "--dataset", "auto, mnist, cifar10, digits", "--epochs", "--seed", "--variant"]),
        (["compare", "--help"], ["--spec", "--dataset", "--epochs", "--seed", "--variant"]),
    ],
)
def test_help_names_every_command_and_option(machine: Machine, arguments: list[str], texts: list[str]) -> None:
    """What can be typed is found with --help, at exit code 0."""
    done = machine.mlplab(*arguments)
    assert (done.code, done.err) == (0, "")
    unfolded = " ".join(done.out.split())
    for text in texts:
        assert text in unfolded


# ------------------------------------------------------------------------------------------------------------ refusals

BAD = """from mlplab import Comparison

COMPARISON = Comparison(question="Is it?", data="mnist", variants={"a": {"optimizer": "adamm"}})
"""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "optimisers"], "unknown experiment 'optimisers'; legal: {names}. Did you mean 'optimizers'?"),
        (
            ["run", "optimizers", "--variant", "adm"],
            "unknown variant of optimizers 'adm'; legal: SGD, Adam, RMSprop. Did you mean 'Adam'?",
        ),
        (
            ["run", "optimizers", "--variant", "SGD,"],
            "unknown variant of optimizers ''; legal: SGD, Adam, RMSprop.",
        ),
        (
            ["run", "optimizers", "--dataset", "minst"],
            "unknown data set 'minst'; legal: auto, mnist, cifar10, digits. Did you mean 'mnist'?",
        ),
        (["run", "optimizers", "--epochs", "0"], "epochs is 0; legal: a whole number from 1 to 100000."),
        (["run", "optimizers", "--seed", "-1"], "a seed is -1; legal: a whole number from 0 to 2147483647."),
        (
            ["compare", "bad.py"],
            "bad.py, line 3: variant 'a': unknown optimizer 'adamm'; legal: {optimizers}. Did you mean 'adam'?",
        ),
        (
            ["compare", "--spec", "missing.py"],
            "spec is 'missing.py', which is no file in {folder}; give the path of a Python file with a COMPARISON, "
            "counted from {folder}, or an absolute one. `mlplab init` writes one to start from.",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_line_before_anything_is_loaded(
    machine: Machine, arguments: list[str], text: str
) -> None:
    """Wrong usage is exit code 2 and one line that names the remedy, at once: no heavy library, no run, no output."""
    (machine.folder / "bad.py").write_text(BAD)
    done = machine.mlplab(*arguments)
    assert (done.code, done.out) == (2, "")
    optimizers = ", ".join(name for name in keras_names.usual("optimizers") if name.islower())
    named = {"names": ", ".join(experiment_names()), "optimizers": optimizers, "folder": machine.folder}
    assert done.err == f"mlplab: {text.format(**named)}\n"
    assert not done.imported & HEAVY
    assert not machine.store.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "optimizers", "--epochs", "many"], "argument --epochs: 'many'; legal: a whole number, such as 20"),
        (["run", "optimizers", "--epoch"], "--epoch"),
        (["run", "optimizers", "--seeds", "until"], "'until'; legal: how many, such as 10, which, such as 1,2,3"),
        (["run"], "the following arguments are required: name"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_does_not_parse_is_refused_with_the_usage(machine: Machine, arguments: list[str], text: str) -> None:
    """A malformed command line is exit code 2 with the usage and what is wrong, and loads nothing heavy."""
    done = machine.mlplab(*arguments)
    assert done.code == 2
    assert done.err.startswith("usage: mlplab")
    assert text in done.err
    assert not done.imported & HEAVY


def test_seeds_are_a_number_some_or_until_when() -> None:
    """`--seeds` takes how many, which, or until when, looked at how often."""
    for text, seeds in {
        "10": 10,
        "7,": (7,),
        "1,2": (1, 2),
        "until:20": Until(most=20),
        "until:20:4": Until(most=20, look_every=4),
    }.items():
        assert command_line.parser().parse_args(["run", "optimizers", "--seeds", text]).seeds == seeds


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (found,) = [a for a in command_line.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


REQUIRED = {
    "init": ["mine.py"],
    "run": ["optimizers"],
    "compare": ["x.py"],
    "replay": ["--run-id", "x"],
    "register": ["x"],
}


@pytest.mark.parametrize("command", commands())
def test_an_option_goes_by_its_whole_name_alone(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option of each command, with its last letter left out, is refused with the name that is meant."""
    legal = commands()[command]._option_string_actions
    for name in [name for name in legal if name.startswith("--") and name[:-1] not in legal]:
        for given in ([name[:-1], "5"], [f"{name[:-1]}=5"]):
            with pytest.raises(SystemExit) as ended:
                command_line.main([command, *REQUIRED.get(command, []), *given])
            assert ended.value.code == 2
            err = capsys.readouterr().err
            assert err.startswith(f"usage: mlplab {command} ")
            assert f"unrecognized arguments: {' '.join(given)}; did you mean {name}?" in err


def test_every_program_of_the_project_takes_whole_names_alone() -> None:
    """No parser anywhere in the project takes a shortened option."""
    for path in [p for folder in ("mlplab", "serving", "stack", "benchmarks") for p in (ROOT / folder).glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "argparse.ArgumentParser":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("allow_abbrev") == "False", path


# -------------------------------------------------------------------------------------------------------------- output

NOT_ASCII = """from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Is α → β, or is it ½?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(8,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
    ),
    variants={"±σ": {}},
)
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_does_not_have_is_printed_otherwise(machine: Machine, encoding: str) -> None:
    """No command fails at what it has to print: the rest of it is as it should be."""
    (machine.folder / "π.py").touch()
    places = machine.folder / "ü – π"
    places.mkdir()
    for arguments, code, text in [
        (["--help"], 0, "Exit codes"),
        (["list"], 0, "optimizers"),
        (["data"], 0, "scikit-learn"),
        (["compare", "--spec", "π.py"], 2, "has no COMPARISON"),
    ]:
        done = machine.mlplab(*arguments, PYTHONIOENCODING=encoding, MLPLAB_DATA_DIR=places)
        assert done.code == code, done.err
        assert text in done.out + done.err
        assert "Traceback" not in done.err


def test_a_training_succeeds_whatever_can_be_printed(machine: Machine) -> None:
    """With ASCII alone a comparison trains and ends with its table, the rest of the lines readable."""
    (machine.folder / "mine.py").write_text(NOT_ASCII)
    done = machine.mlplab("compare", "--spec", "mine.py", "--dataset", "digits", PYTHONIOENCODING="ascii")
    assert (done.code, "Traceback" in done.err) == (0, False), done.err
    assert done.out.startswith("Is ? ? ?, or is it ??\n")
    assert re.search(r"\?\? .* 1 of 1 ", done.out)
    assert machine.runs() == [("mine", "FINISHED"), ("±σ", "FINISHED")]


@pytest.fixture
def mine(store: Any, dataset: Any) -> str:
    """A comparison of a moment in the working directory, and a store."""
    Path("mine.py").write_text(NOT_ASCII)
    return "mine.py"


@contextlib.contextmanager
def nobody_reads() -> Iterator[TextIO]:
    """A pipe of which the other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w", buffering=1, encoding="utf-8") as stream:
        yield stream


@pytest.mark.parametrize("output", ["a closed pipe", "a full disk", "latin-1"])
def test_a_finished_training_is_a_success_whatever_becomes_of_its_output(
    output: str, mine: str, store: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where nobody takes the output, or not all of it, the comparison is trained, recorded, and exit code 0."""
    streams = {
        "a closed pipe": nobody_reads,
        "a full disk": lambda: open("/dev/full", "w", buffering=1, encoding="utf-8"),  # noqa: SIM115
        "latin-1": lambda: open("out", "w", encoding="latin-1"),  # noqa: SIM115
    }
    with streams[output]() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        code = command_line.main(["compare", "--spec", mine, "--dataset", "digits"])
    monkeypatch.undo()
    assert code == 0
    assert {(plain_name(run), run.info.status) for run in store.search_runs(["0"])} == {
        ("mine", "FINISHED"),
        ("±σ", "FINISHED"),
    }
    said = "the output could not be written from here on: No space left on device."
    assert (said in capfd.readouterr().err) == (output == "a full disk")


def test_list_into_a_closed_pipe_or_a_full_disk_ends_without_a_traceback(machine: Machine) -> None:
    """`list | head -1` is exit code 0 with nothing on stderr; a full disk is said in one line."""
    command = [sys.executable, "-m", "mlplab", "list"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, open("/dev/full", "w") as full:
        for stream, said in ((pipe, ""), (full, "mlplab: the output could not be written from here on: No space left")):
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=machine.environment,
                stdout=stream,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert done.returncode == 0
            assert done.stderr.startswith(said)
            assert done.stderr.count("\n") == bool(said)


# ---------------------------------------------------------------------------------------------------------- interrupts


def interrupting(number: int) -> Callable[..., None]:
    """What sends this process a signal when it is called."""
    return lambda *arguments, **named: signal.raise_signal(number)


@pytest.mark.parametrize(
    ("number", "code", "where", "said", "statuses"),
    [
        (signal.SIGTERM, 143, (terminal.Download, "__enter__"), "No run was open.", set()),
        (
            signal.SIGINT,
            130,
            (progress.Progress, "epoch"),
            "Finished trainings are kept, the one under way up to its last checkpoint: the same command goes on "
            "there; the runs that were open are marked KILLED.",
            {"KILLED"},
        ),
        (
            signal.SIGTERM,
            143,
            (terminal.Screen, "recorded"),
            "All was over by then, and is on record.",
            {"FINISHED"},
        ),
    ],
    ids=["before", "during", "after"],
)
def test_an_interrupt_says_what_became_of_the_runs(
    number: int,
    code: int,
    where: tuple[type, str],
    said: str,
    statuses: set[str],
    mine: str,
    store: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before any run, during a training and after the last one, the message is what the store has."""
    arguments = ["compare", "--spec", mine, "--dataset", "digits"]
    with monkeypatch.context() as patch:
        patch.setattr(*where, interrupting(number))
        assert command_line.main(arguments) == code
    assert capsys.readouterr().err == f"mlplab: interrupted. {said}\n"
    assert {run.info.status for run in store.search_runs(["0"])} == statuses
    assert command_line.main(arguments) == 0
    runs = store.search_runs(["0"])
    # What was over is not gone on with: it is a comparison of its own.
    assert len(runs) == (4 if statuses == {"FINISHED"} else 2)
    assert {run.info.status for run in runs} == {"FINISHED"}


# -------------------------------------------------------------------------------------------------------------- stores


def test_a_store_that_does_not_take_the_runs_is_said_before_tensorflow_is_loaded(machine: Machine) -> None:
    """An experiment or a run that is not there is one line, at exit code 3 or 2, before anything slow happens."""
    for arguments, code, text in [
        (["run", "optimizers", "--dataset", "digits"], 3, "has no experiment with the id 77"),
        (
            ["register", "--dataset", "digits", "--run-id", "deadbeef"],
            2,
            "run_id is 'deadbeef', and the tracking store",
        ),
    ]:
        done = machine.mlplab(*arguments, **({"MLFLOW_EXPERIMENT_ID": "77"} if code == 3 else {}))
        assert done.code == code
        assert re.fullmatch(rf"mlplab: [^\n]*{text}[^\n]+\n", done.err)
        assert "tensorflow" not in done.imported
    assert machine.runs() == []


# ---------------------------------------------------------------------------------------------------------------- data


def test_missing_data_is_said_with_places_and_remedies(machine: Machine) -> None:
    """A data set named but not to be had is exit code 3: one line with every place and way out, and no run."""
    done = machine.mlplab("run", "optimizers", "--dataset", "mnist")
    assert done.code == 3
    assert re.fullmatch(r"mlplab: MNIST was not found\. [^\n]+\n", done.err)
    for place in ("MLPLAB_DATA_DIR: not set", machine.folder / "cache", machine.folder / "keras", "https://"):
        assert str(place) in done.err
    for remedy in ("set MLPLAB_DATA_DIR to a folder that holds mnist.npz", "'digits'", "'auto'"):
        assert remedy in done.err
    said = f"To do: 3 variants × 1 seed × 50 epochs on mnist\nRecord: sqlite:///{machine.store}, experiment Default\n"
    assert done.out == f"{load_experiment('optimizers').question}\n{said}"
    assert not done.imported & {"tensorflow", "mlflow"}
    assert not machine.store.exists()


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
def test_damaged_data_are_never_replaced(machine: Machine, dataset: str) -> None:
    """A damaged file is exit code 3 and stays as it is, even where `auto` could fall back; no run is created."""
    folder = machine.folder / "data"
    folder.mkdir()
    damaged = folder / "mnist.npz"
    damaged.write_bytes(b"PK\x03\x04 no archive at all")
    before = damaged.stat()
    done = machine.mlplab("run", "optimizers", "--dataset", dataset, MLPLAB_DATA_DIR=folder)
    assert done.code == 3
    assert re.fullmatch(r"mlplab: MNIST in '[^\n]+mnist\.npz' is damaged: [^\n]+\n", done.err)
    assert damaged.read_bytes() == b"PK\x03\x04 no archive at all"
    assert damaged.stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in folder.iterdir()] == ["mnist.npz"]
    assert not machine.store.exists()


def test_data_shows_every_place_and_what_is_there(machine: Machine) -> None:
    """`data` has a row for each place, in full even where it is long: what is missing, damaged and valid."""
    folder = machine.folder / ("a folder with quite a long name " * 4)
    folder.mkdir()
    (folder / "mnist.npz").write_bytes(b"nothing")
    done = machine.mlplab("data", MLPLAB_DATA_DIR=folder)
    assert (done.code, done.err) == (0, "")
    rows = {" ".join(line.split()) for line in done.out.splitlines()}
    spaced = " ".join(str(folder).split())
    assert any(row.startswith("mnist MLPLAB_DATA_DIR damaged") and f"{spaced} /mnist.npz" in row for row in rows)
    assert any(row.startswith("cifar10 MLPLAB_DATA_DIR missing") for row in rows)
    assert any(row.startswith("digits scikit-learn valid 1,197 + 300 + 300") for row in rows)
    assert str(machine.folder / "keras" / "datasets" / "mnist.npz") in done.out


# ------------------------------------------------------------------------------------------------------------ trainings
# Each of these processes loads TensorFlow and MLflow and trains.


def test_an_experiment_runs_to_its_table(machine: Machine) -> None:
    """`run` trains, records parent and child, and prints data, table and the UI's command; stderr stays empty."""
    done = machine.mlplab("run", "optimizers", "--dataset", "digits", "--epochs", "2", "--variant", "Adam")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{load_experiment('optimizers').question}\nTo do: ")
    assert "\nData: digits (stand-in for MNIST), " in done.out
    assert "1,197 training, 300 validation and 300 test images" in done.out
    assert "Note: This ran on scikit-learn's" in done.out
    assert "optimizers on digits (stand-in for MNIST), best by val_accuracy first" in done.out
    assert re.search(r"^ +Adam( +\d+\.\d{4}){5} +[12] of 2 +\d+\.\d +[\d,]+ *$", done.out, re.MULTILINE)
    assert f"mlflow ui --backend-store-uri 'sqlite:///{machine.store}'" in done.out
    page = r"http://127\.0\.0\.1:5000/#/experiments/0/runs/[0-9a-f]{32}\?workflowType=machine_learning"
    assert re.search(rf"^This run: +{page}$", done.out, re.MULTILINE)
    assert machine.runs() == [("optimizers", "FINISHED"), ("Adam", "FINISHED")]
    assert not done.imported & {"sklearn", "scikeras", "joblib", "scipy.stats", "matplotlib.pyplot"}


def test_the_question_and_the_data_are_shown_before_tensorflow_is_imported(machine: Machine) -> None:
    """A person reads what is asked of which data while the libraries that train are loaded, which takes seconds."""
    (machine.folder / "hook" / "tensorflow.py").write_text("raise SystemExit(7)")
    done = machine.mlplab("run", "optimizers", "--dataset", "digits")
    assert done.code == 7
    assert done.out.startswith(f"{load_experiment('optimizers').question}\nTo do: ")
    assert "\nData: digits (stand-in for MNIST), " in done.out


MINE = """from mlplab import Comparison, Training, call

COMPARISON = Comparison(
    question="Is [relu] :x: better than [/tanh]?",
    data="mnist",
    base=Training(
        model=call("mlp", hidden=(8,)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        optimizer="sgd",
        epochs=9,
    ),
    variants={"[relu] :x:": {}, "[/tanh] a, b": {"model.activation": "tanh"}, "left out": {"model.activation": "elu"}},
)
"""


@pytest.mark.slow
def test_a_comparison_of_ones_own_runs_whatever_its_variants_are_called(machine: Machine) -> None:
    """`compare` takes a file by its path, options as `run` does, and prints names as they are, brackets included.

    In `auto` mode, without data and network, it says in plain words that it fell back.
    """
    (machine.folder / "mine.py").write_text(MINE)
    chosen = ["--variant", "[/tanh] a, b", "--variant", "[relu] :x:"]
    done = machine.mlplab("compare", "--spec", "mine.py", "--epochs", "1", *chosen)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Is [relu] :x: better than [/tanh]?\n")
    assert "MNIST was neither found on this machine nor could it be downloaded" in done.out
    assert "mine on digits (stand-in for MNIST)" in done.out
    for name in ("[relu] :x:", "[/tanh] a, b"):
        assert re.search(rf"^ *{re.escape(name)} +0\.\d{{4}} .* 1 of 1 ", done.out, re.MULTILINE)
    assert "left out" not in done.out
    assert machine.runs() == [("mine", "FINISHED"), ("[relu] :x:", "FINISHED"), ("[/tanh] a, b", "FINISHED")]
    assert not (machine.folder / "__pycache__").exists()


def test_a_file_to_compare_is_named_once(machine: Machine) -> None:
    """Without a file, and with two, the command says so and how it is named."""
    for given, said in (([], "not named"), (["a.py", "--spec", "b.py"], "named twice, 'a.py' and 'b.py'")):
        done = machine.mlplab("compare", *given)
        assert (done.code, done.out) == (2, "")
        assert f"the file with the COMPARISON is {said}; legal: mlplab compare mine.py" in done.err


def test_init_writes_a_file_that_is_understood(machine: Machine) -> None:
    """`init` writes mine.py, or the file that is named, and says what to do next; it loads nothing heavy."""
    for given, name in (([], "mine.py"), (["my first.py"], "'my first.py'")):
        done = machine.mlplab("init", *given)
        assert (done.code, done.err) == (0, "")
        assert f"\n    mlplab compare {name}\n" in done.out
        assert not done.imported & HEAVY
        written = load_experiment(str(machine.folder / name.strip("'")))
        assert isinstance(written, Comparison)
        assert written.name == name.strip("'").removesuffix(".py")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine.py", "mine.py is there already, and is left as it is; legal: a new file. Name another: mlplab init "),
        ("mine", "file is 'mine'; legal: a name that ends in .py"),
        ("no/mine.py", "no/mine.py cannot be written: No such file or directory; legal: a file in a folder that"),
    ],
)
def test_init_writes_over_nothing(machine: Machine, name: str, says: str) -> None:
    """A file that is there stays as it is, and an error says what is wrong and the remedy, at exit code 2."""
    (machine.folder / "mine.py").write_text("mine")
    done = machine.mlplab("init", name)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert (machine.folder / "mine.py").read_text() == "mine"
    assert [path.name for path in machine.folder.glob("*mine*")] == ["mine.py"]


@pytest.mark.slow
def test_an_installed_mlplab_works_outside_the_clone(machine: Machine, tmp_path: Path) -> None:
    """`pip install .` gives the command `mlplab`; what its `init` writes in any folder is compared as it is.

    It is on record with every seed, and the last words are the answer and where to look.
    """
    source, installed = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mlplab", "serving"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", installed, source]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=PATIENCE)
    environment = machine.environment | {"PYTHONPATH": str(installed)}

    def run(*arguments: str) -> str:
        return subprocess.run(
            [installed / "bin" / "mlplab", *arguments],
            cwd=machine.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        ).stdout

    assert "mlplab compare mine.py" in run("init")
    said = run("compare", "mine.py")
    assert "(10 seeds), at these settings" in said
    assert "This run:" in said
    assert {status for _, status in machine.runs()} == {"FINISHED"}
    assert len(machine.runs()) == 1 + 3 + 3 * 10
    assert "in the project's clone" in run("list")
