"""What loading an experiment promises: the file as it is now, or words that say what is wrong with it and where."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_space import search
from test_spec import comparison, refusal

from mlplab.checks import UsageError
from mlplab.comparison import Comparison, WinnerOf
from mlplab.loading import (
    EXPERIMENTS,
    KINDS,
    Options,
    Overview,
    Prediction,
    data_of,
    experiment_names,
    load_experiment,
)
from mlplab.seeds import Until
from mlplab.sources import Data
from mlplab.space import Search

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("tensorflow", "keras", "mlflow", "numpy", "matplotlib", "rich", "sklearn", "scikeras")


@pytest.fixture(autouse=True)
def _imports_put_back() -> Iterator[None]:
    """Loading a file lets Python find the modules beside it, and so does every test anew."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("blocks", None)


FILE = '''"""A spec of one's own."""
from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="Is it?", data="mnist", base=Training(), variants={"a": {"optimizer": "adamm"}},
)
'''


@pytest.mark.parametrize("place", ["absolute", "relative", "another ending"])
def test_a_spec_is_refused_at_import_with_file_and_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the file is named, the message begins with that name and the line of the COMPARISON at fault."""
    monkeypatch.chdir(tmp_path)
    path = {"absolute": tmp_path / "mine.py", "relative": Path("mine.py"), "another ending": tmp_path / "mine.txt"}[
        place
    ]
    path.write_text(FILE)
    said = refusal(load_experiment, f"./{path}" if place == "relative" else str(path))
    assert said.startswith(f"{path}, line 4: variant 'a': unknown optimizer 'adamm'; legal: adadelta")
    assert said.endswith("Did you mean 'adam'?")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("", ["mine.py has no COMPARISON", "legal: COMPARISON = Comparison(...)"]),
        ("COMPARISON = {}\n", ["mine.py has a COMPARISON that is {}"]),
        ("x = 1\n\nCOMPARISON = (\n", ["mine.py, line 3: SyntaxError"]),
        ("\nimport no_such_module\n", ["mine.py, line 2: ModuleNotFoundError", "no_such_module"]),
        ("x = 1\n\nimport broken\n", ["mine.py, line 3: SyntaxError", "broken.py, line 2"]),
        ("from mlplab import Training\n\nTraining(epoch=1)\n", ["mine.py, line 3: unknown", "'epochs'?"]),
        ("from mlplab import call\ncall(lambda: 1)\n", ["mine.py, line 2: <lambda> is a lambda"]),
        (
            "from mlplab import call\n\ndef cnn(n=1): ...\n\ncall(cnn, m=1)\n",
            ["mine.py, line 5: unknown argument of cnn 'm'; legal: n"],
        ),
        (
            "from mlplab import Metric\nMetric('val_wer')\n",
            ["mine.py, line 2: it is not known whether more of 'val_wer' is better", "best='max'"],
        ),
        ("def f():\n    return 1 / 0\n\nf()\n", ["mine.py, line 2: ZeroDivisionError"]),
        ("raise SystemExit(3)\n", ["mine.py, line 1: SystemExit: 3"]),
        ("\0", ["mine.py", "null bytes"]),
    ],
)
def test_a_file_that_is_no_spec_is_refused(content: str, texts: list[str], tmp_path: Path) -> None:
    """The message says which file, where in it, and what is missing."""
    (tmp_path / "broken.py").write_text("x = 1\ny = (\n")
    path = tmp_path / "mine.py"
    path.write_text(content)
    text = refusal(load_experiment, str(path))
    for expected in texts:
        assert expected in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("Comparison(question='?', data='mnist', base=Training(learning_rat=1), variants={'a': {}})", "learning_rate"),
        ("Comparison(question='?', data='mnist', variant={'a': {}})", "variants"),
        ("Comparison(question='?', data=Data('a.csv', targt='y'), variants={'a': {}})", "target"),
        ("Search(question='?', data='mnist', spac={'epochs': [1]})", "space"),
        ("Metric('val_auc', margn=1)", "margin"),
    ],
)
def test_a_wrong_keyword_is_refused_with_the_legal_ones(tmp_path: Path, source: str, said: str) -> None:
    """A keyword that a word of a spec does not know is refused with its line and the name that was meant."""
    path = tmp_path / "mine.py"
    path.write_text(f"from mlplab import Comparison, Data, Metric, Search, Training\nCOMPARISON = {source}\n")
    with pytest.raises(UsageError, match=rf"line 2: unknown field of .* Did you mean '{said}'\?"):
        load_experiment(str(path))


GOOD_FILE = FILE.replace("adamm", "adam").encode()
spoilt = st.tuples(st.integers(0, len(GOOD_FILE) - 1), st.integers(0, 9), st.binary(max_size=6))


@given(damages=st.lists(spoilt, min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore:invalid:DeprecationWarning", "ignore:invalid:SyntaxWarning")
def test_a_file_with_random_damage_is_loaded_or_refused(
    damages: list[tuple[int, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However a spec's bytes are damaged, it is refused in words that begin with its name, or gives a comparison."""
    content = bytearray(GOOD_FILE)
    for at, cut, put in damages:
        content[at : at + cut] = put
    path = tmp_path_factory.getbasetemp() / "spoilt.py"
    path.write_bytes(content)
    try:
        loaded = load_experiment(str(path))
    except UsageError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(loaded, Comparison)
        assert Comparison.from_json(loaded.to_json()) == loaded
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["missing.py", "./missing", "."])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message quotes the path as it was given; a folder is no file."""
    monkeypatch.chdir(tmp_path)
    assert repr(name) in refusal(load_experiment, name)


def test_a_spec_is_named_after_its_file_and_read_anew(tmp_path: Path) -> None:
    """Loading gives the comparison of the file as it is now, under the file's name, and leaves nothing beside it."""
    path = tmp_path / "mine.py"
    for optimizer in ("adam", "sgd "):  # the same size, in the same second: bytecode would be outdated unnoticed
        path.write_text(FILE.replace("adamm", optimizer.strip()) + "#" * (4 - len(optimizer.strip())))
        loaded = load_experiment(str(path))
        assert isinstance(loaded, Comparison)
        assert loaded.name == "mine"
        assert loaded.resolved()[0].optimizer.name.lower() == optimizer.strip()
    assert [found.name for found in tmp_path.iterdir()] == ["mine.py"]


WITH_MODULE = """
from mlplab import Comparison, Training
import blocks

def cnn(n=1):
    return blocks.more(n)

COMPARISON = Comparison(question="?", data="digits", base=Training(model=cnn), variants={"a": {}}, select="val_loss")
"""


def test_the_modules_beside_a_spec_are_read_anew(tmp_path: Path) -> None:
    """What runs is what the record's hash is of: the module beside this file, as it is now."""
    made, sources = [], set()
    for folder, number in (("one", 1), ("two", 20), ("one", 300), ("one", 300)):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "mine.py").write_text(WITH_MODULE)
        if not (place / "blocks.py").exists() or str(number) not in (place / "blocks.py").read_text():
            (place / "blocks.py").write_text(f"def more(n):\n    return n + {number}\n")
        loaded = load_experiment(str(place / "mine.py"))
        assert isinstance(loaded, Comparison)
        made.append(loaded.base.model.make())
        sources.add(loaded.base.model.source)
    assert made == [2, 21, 301, 301]
    assert len(sources) == 3


def test_paths_are_counted_from_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data file beside the spec is found wherever the command is given."""
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace("adamm", "adam").replace('"mnist"', '"rows.npz"'))
    monkeypatch.chdir("/")
    loaded = load_experiment(str(path))
    assert isinstance(loaded, Comparison)
    assert loaded.data.source == str(tmp_path / "rows.npz")


# ----------------------------------------------------------------------------------------------- what it does not load


def imported(code: str, folder: Path = ROOT) -> str:
    """Which heavy packages a new process has after running `code`."""
    code = f"import sys\n{code}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_loading_any_experiment_imports_nothing_heavy() -> None:
    """Neither Keras nor anything else that is installed is loaded to check the project's experiments."""
    assert len(experiment_names()) > 10
    assert (
        imported(
            "from mlplab.loading import experiment_names, load_experiment\n"
            "for name in experiment_names(): load_experiment(name).name"
        )
        == "[]"
    )


def test_loading_a_file_whose_functions_import_keras_inside_does_not() -> None:
    """Names, arguments and types of Keras' optimizers, losses, metrics and callbacks are checked without it."""
    code = """
from pathlib import Path
from mlplab.loading import load_experiment
import tempfile
folder = Path(tempfile.mkdtemp())
(folder / "mine.py").write_text('''
from mlplab import Comparison, Metric, Training, call

def cnn(filters: int = 32):
    import keras
    return keras.Sequential([keras.layers.Dense(filters)])

def rows():
    import numpy as np
    return np.zeros((9, 2)), np.zeros(9)

COMPARISON = Comparison(
    question="Is it?",
    data=rows,
    base=Training(
        model=cnn, loss="mse", metrics=["auc", call("keras.metrics.R2Score")], optimizer="adamw",
        learning_rate=call("keras.optimizers.schedules.CosineDecay", initial_learning_rate=0.1, decay_steps=9),
        callbacks=[call("keras.callbacks.EarlyStopping", patience=5)],
    ),
    variants={"a": {}, "b": {"model.filters": 8, "optimizer": "lion", "optimizer.beta_1": 0.5}},
    select="val_auc",
    measures=[Metric("val_r2_score")],
)
''')
loaded = load_experiment(str(folder / "mine.py"))
loaded.to_json(), [variant.fingerprint() for variant in loaded.resolved()]
"""
    assert imported(code) == "[]"


# ----------------------------------------------------------------------------------------------- the kinds, and options


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Prediction(question="What?", of="optimizers", variant="Adam", images=0), "images is 0"),
        (lambda: Prediction(question="What", of="optimizers", variant="Adam"), "question is 'What'"),
        (lambda: Overview(question="How long?", of=()), "of is ()"),
        (lambda: Overview(question="How long", of=("l2",)), "question is 'How long'"),
        (lambda: Overview(question="How long?", of="l2"), "of is 'l2'"),
        (lambda: load_experiment("optimisers"), "unknown experiment 'optimisers'"),
        (lambda: Options(seed=1, seeds=(2, 3)), "seed is 1 and seeds is 2,3"),
        (lambda: Options(seeds=0).adapt(comparison()), "seeds is 0"),
        (lambda: Options(epochs=0).adapt(comparison()), "epochs is 0"),
    ],
)
def test_the_other_kinds_refuse_what_is_illegal(make: Any, text: str) -> None:
    """Predictions, overviews and options refuse illegal values too."""
    assert text in refusal(make)


def test_a_file_holds_one_kind_of_experiment(tmp_path: Path) -> None:
    """Each kind is found by its name; a file with two is refused, naming both."""
    made = {
        "COMPARISON": "Comparison(question='Q?', data='mnist', variants={'a': {}})",
        "SEARCH": "Search(question='Q?', data='mnist', space={'model.dropout': [0.1]}, candidates=1)",
        "PREDICTION": "Prediction(question='Q?', of='optimizers', variant='Adam')",
        "OVERVIEW": "Overview(question='Q?', of=('l2',))",
    }
    assert set(made) == set(KINDS)
    head = "from mlplab import Comparison, Overview, Prediction, Search\n"
    for name, source in made.items():
        path = tmp_path / f"{name.lower()}.py"
        path.write_text(f"{head}{name} = {source}\n")
        loaded = load_experiment(str(path))
        assert type(loaded) is KINDS[name]
        assert loaded.name == name.lower()
    both = tmp_path / "both.py"
    both.write_text(head + "".join(f"{n} = {s}\n" for n, s in list(made.items())[:2]))
    assert "has COMPARISON and SEARCH" in refusal(load_experiment, str(both))


def test_options_change_every_kind_that_trains() -> None:
    """Epochs and seed reach comparisons and searches; the smoke profile makes both small; the rest stays as it is."""

    def compared(options: Options, **changes: Any) -> Comparison:
        adapted = options.adapt(comparison(**changes))
        assert isinstance(adapted, Comparison)
        return adapted

    def searched(options: Options) -> Search:
        adapted = options.adapt(search())
        assert isinstance(adapted, Search)
        return adapted

    assert compared(Options(seeds=3)).each_seed == (1234, 1235, 1236)
    assert compared(Options(seed=5, seeds=2)).each_seed == (5, 6)
    assert compared(Options(seeds=(9, 4))).each_seed == (9, 4)
    assert searched(Options(seeds=(9, 4))).seed == 9
    assert compared(Options(), seeds=4) == comparison(seeds=4)
    assert compared(Options(seeds=Until(most=9), seed=5)).seeds == Until(most=9, first=5)
    assert compared(Options(), seeds=Until(most=9)).seeds == Until(most=9)
    assert compared(Options(seed=3), seeds=Until(most=9)).seeds == Until(most=9, first=3)
    assert compared(Options(seeds=2), seeds=Until(most=9, first=4)).each_seed == (4, 5)
    changed = Options(epochs=7, seed=5)
    assert {variant.epochs for variant in compared(changed).resolved()} == {7}
    assert compared(changed).each_seed == (5,)
    assert (searched(changed).seed, searched(changed).base.epochs) == (5, 7)
    small = searched(Options(smoke=True))
    assert (small.base.epochs, small.candidates, small.folds) == (2, 2, 2)
    overview = Overview(question="How long?", of=("a", "b"))
    assert changed.adapt(overview) is overview


def test_the_data_of_an_experiment_are_those_of_all_it_needs() -> None:
    """Each data set once, by way of searches, predictions and overviews."""
    assert data_of(comparison()) == [Data("mnist")]
    assert data_of(load_experiment("predict")) == [Data("mnist")]
    assert data_of(comparison(variants={"best": WinnerOf("random_search")})) == [Data("mnist"), Data("cifar10")]
    assert EXPERIMENTS.is_dir()
