"""What a person sees at the terminal: the plan at once, one bar over everything, and nothing wider than the window."""

import fcntl
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from rich.console import Console
from test_command_line import Machine
from words import choices, mlp

from mlplab import Comparison, LogUniform, Search, Tune, layout, stores, tables
from mlplab.loading import Options
from mlplab.progress import Progress
from mlplab.results import FAILED, FINISHED, Result
from mlplab.seeds import Until
from mlplab.spec import Training
from mlplab.store import command, pages
from mlplab.workload import CANDIDATES, phases_of, seconds_left, words

DATA: Any = SimpleNamespace(train=range(1_200))
LONG = "SGD, whose name is much longer than a column of a table may be"
BASE = mlp(epochs=4)
VARIANTS = {LONG: {}, "Adam": choices(optimizer="adam"), "RMSprop": choices(optimizer="rmsprop")}


def comparison(**fields: Any) -> Comparison:
    """A comparison of three variants, five seeds each."""
    given = {"question": "Which?", "data": "digits", "base": BASE, "variants": VARIANTS, "seeds": 5, "name": "which"}
    return Comparison(**{**given, **fields})


def window(width: int = 80, height: int = 24) -> Console:
    """A terminal that writes down what it shows."""
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, highlight=False, markup=False)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(progress: Progress, clock: Clock, variant: Training, seed: int, seconds: float, epochs: int = 0) -> Result:
    """Has a training happen: three seconds of compiling, then its epochs."""
    result = Result(variant=variant, seed=seed, steps_per_epoch=10)
    progress.started(result)
    clock.now += 3
    for _ in range(epochs or variant.epochs):
        clock.now += seconds
        result.add({"loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 0.875})
        result.best_epoch = result.epochs
        progress.epoch(result)
    if not epochs:
        result.status = FINISHED
        progress.ended(result)
    return result


def shown(progress: Progress) -> list[str]:
    """The lines of what is live."""
    out = Console(file=io.StringIO(), width=progress.out.width, height=progress.out.height, record=True)
    out.print(progress._render())
    return [line.rstrip() for line in out.export_text().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_variant_has_one_line_with_all_its_seeds(width: int) -> None:
    """Of each variant it is told how many seeds are done and how far the present one is, in lines that fit."""
    spec, clock = comparison(), Clock()
    progress = Progress(window(width), phases_of(spec), clock)
    with progress.watching(spec, DATA, spec.resolved()):
        adam = spec.resolved()[1]
        for seed in (1, 2):
            train(progress, clock, adam, seed, 0.5)
        train(progress, clock, adam, 3, 0.5, epochs=3)
        lines = shown(progress)
        assert max(map(len, lines)) <= width
        (row,) = [line for line in lines if "Adam" in line]
        assert "2/5 seeds, epoch 3/4" in row
        assert "0.8750" in row
        (head,) = [line for line in lines if "variant" in line]
        assert "val. accuracy" in head
        assert head.count("loss") == {60: 0, 80: 1, 120: 2}[width]
        (cut,) = [line for line in lines if line.startswith("  SGD")]
        assert "…" in cut
        assert lines[-1].startswith("11 of 60 epochs")
        assert "18%" in lines[-1]


def test_the_time_left_falls_and_knows_that_variants_are_of_unlike_speed() -> None:
    """It goes by each variant's own epochs: exact once each has been seen, and lower with every further epoch."""
    spec, clock = comparison(), Clock()
    progress = Progress(window(), phases_of(spec), clock)
    variants = spec.resolved()
    lefts = []
    with progress.watching(spec, DATA, variants):
        assert math.isnan(seconds_left(progress.phases, clock.now, clock.now))
        for seed in range(5):
            for variant, seconds in zip(variants, (1.0, 2.0, 10.0), strict=True):
                train(progress, clock, variant, seed, seconds)
                lefts.append(seconds_left(progress.phases, clock.now, 100.0))
    # All but the first of each variant, which compiles and of which it is not known before.
    assert lefts[2:] == sorted(lefts[2:], reverse=True)
    assert lefts[-1] == 0
    # Three seconds before each training's first epoch, and 52 for the epochs of one of each.
    assert lefts[5] == pytest.approx(3 * (9 + 52), rel=0.02)


def test_the_bar_is_of_the_whole_command() -> None:
    """Trials count beside the trainings they are for, and several data sets together."""
    spec = comparison(data=["digits", "mnist"], tune=Tune({"learning_rate": LogUniform(1e-4, 1)}, trials=6))
    phases = [phase for one in spec.needs for phase in phases_of(one)]
    assert sum(phase.total for phase in phases) == 2 * 3 * (6 + 5) * 4
    assert words(spec, Options()) == "3 variants × (6 trials + 5 seeds) × 4 epochs × 2 data sets on digits, mnist"
    clock = Clock()
    progress = Progress(window(), phases, clock)
    one = spec.needs[0]
    trials = [BASE.but(name=f"trial {k}: {name}"[:100], splits="tuning:0") for k in (1, 2) for name in VARIANTS]
    with progress.watching(one, DATA, trials):  # the other four of each are on record
        train(progress, clock, trials[0], 0, 1.0)
        train(progress, clock, trials[4], 0, 1.0, epochs=2)
        lines = shown(progress)
        assert any("Adam" in line and "trial 5/6, epoch 2/4" in line for line in lines)
        assert any(line.startswith("  SGD") and "5/6 trials" in line and "0.8750" in line for line in lines)
        assert lines[-1].startswith(f"{(12 + 1) * 4 + 2} of 264 epochs")
    with progress.watching(one, DATA, one.resolved()):
        assert any(line.split()[:3] == ["Adam", "0/5", "seeds"] for line in shown(progress))


def test_seeds_that_are_not_wanted_any_more_are_counted_out() -> None:
    """Where seeds are added until verdicts are clear the bar says `up to`, and the end is the end."""
    spec, clock = comparison(seeds=Until(most=30)), Clock()
    progress = Progress(window(), phases_of(spec), clock)
    with progress.watching(spec, DATA, spec.resolved()):
        train(progress, clock, spec.resolved()[1], 1, 1.0)
        lines = shown(progress)
        assert any("1 of up to 30 seeds" in line for line in lines)
        assert lines[-1].startswith("4 of up to 360 epochs")
    assert shown(progress)[-1].startswith("4 of 4 epochs")
    assert "100%" in shown(progress)[-1]


def test_a_search_has_one_line_for_all_its_candidates() -> None:
    """Which candidate and fold it is at and the best mean so far; a dropped candidate's folds are counted out."""
    spec = Search(
        question="Which?",
        data="digits",
        base=BASE,
        space={"learning_rate": [0.1, 0.2, 0.3, 0.4]},
        candidates=4,
        folds=3,
    )
    clock = Clock()
    progress = Progress(window(), phases_of(spec), clock)
    folds = [BASE.but(name=f"candidate {k}", splits="folds:3:0") for k in (1, 2, 3, 4)]
    with progress.watching(spec, DATA, folds):
        progress.scored("candidate 1", 0.5)  # on record
        for fold in range(3):
            train(progress, clock, folds[1], fold, 1.0)
        progress.scored("candidate 2", 0.625)
        train(progress, clock, folds[2], 0, 1.0)
        progress.scored("candidate 3", 0.25)
        train(progress, clock, folds[3], 1, 1.0, epochs=2)
        (row,) = [line for line in shown(progress) if CANDIDATES in line]
    assert "candidate 4/4, fold 2/3, epoch 2/4" in row
    assert "0.6250" in row
    assert shown(progress)[-1].startswith("38 of 38 epochs")


def test_more_variants_than_the_window_has_lines_leave_room_for_the_bar() -> None:
    """What runs is shown, the rest counted, so that nothing scrolls."""
    many = {f"rate {k}": choices(learning_rate=k / 1_000) for k in range(1, 61)}
    spec, clock = comparison(variants=many, seeds=1), Clock()
    progress = Progress(window(height=20), phases_of(spec), clock)
    with progress.watching(spec, DATA, spec.resolved()):
        for variant in spec.resolved()[:40]:
            train(progress, clock, variant, 1, 0.1)
        train(progress, clock, spec.resolved()[40], 1, 0.1, epochs=2)
        lines = shown(progress)
    assert len(lines) < 20
    assert any(re.match(r"  rate 41 +epoch 2/4", line) for line in lines)
    assert re.search(r"… and \d+ more: 40 done, \d+ waiting", "\n".join(lines))
    assert "of 240 epochs" in lines[-1]


def test_a_failure_is_shown_in_full_and_counted() -> None:
    """The traceback is printed above what is live, which goes on; the line says how many failed."""
    spec, clock = comparison(), Clock()
    out = window()
    progress = Progress(out, phases_of(spec), clock)
    with progress.watching(spec, DATA, spec.resolved()):
        result = Result(variant=spec.resolved()[1], seed=7, steps_per_epoch=10)
        progress.started(result)
        result.status, result.error = FAILED, "Traceback: no memory"
        progress.ended(result)
        (row,) = [line for line in shown(progress) if "Adam" in line]
    assert "1/5 seeds, 1 failed" in row
    assert "Adam, seed 7 failed:\nTraceback: no memory" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", out.file.getvalue())


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    """A line in five seconds at most, with the share of everything and the time left; rarer in a long command."""
    spec, clock = comparison(base=mlp(epochs=1_000)), Clock()
    out = Console(file=io.StringIO(), width=1_000)
    progress = Progress(out, phases_of(spec), clock)
    with progress.watching(spec, DATA, spec.resolved()):
        for variant in spec.resolved():
            for seed in range(5):
                train(progress, clock, variant, seed, 0.25)
    lines = out.file.getvalue().splitlines()
    # An hour and some minutes: every five seconds for the first four minutes, then ever more rarely.
    assert 100 < len(lines) < 220
    assert any(
        re.match(r"\d+% \([\d,]+ of 15,000 epochs\), [\d:]+ left: Adam, \d/5 seeds, epoch \d+", s) for s in lines
    )
    assert lines[-1] == "Done: 15 trainings in 1:03:15."


@pytest.mark.parametrize("width", [80, 100])
def test_a_table_fits_the_terminal(width: int) -> None:
    """The least important columns go, and are named; no head is cut or wrapped, a long name loses its middle."""
    head = ["variant", "val. accuracy", "val. loss", "accuracy", "loss", "test accuracy", "best epoch", "train (s)"]
    cells = [[*head, "steps/s"], [LONG, "0.9733 ± 0.0083", *["0.1234"] * 4, "13.7 of 20", "1,234.5", "12,345"]]
    out = Console(file=io.StringIO(), width=width, record=True)
    out.print(layout.table(cells, width=width, drop=tables.dispensable(cells[0])))
    lines = [line.rstrip() for line in out.export_text().splitlines()]
    assert max(map(len, lines)) <= width
    left = re.split(r"\s{2,}", lines[1].strip())
    assert left[:2] == ["variant", "val. accuracy"]
    assert set(left) < {*head, "steps/s"}
    assert "0.9733 ± 0.0083" in lines[3]
    assert lines[3].startswith("  SGD")
    assert "…" in lines[3]
    gone = [name for name in cells[0] if name not in left]
    assert lines[-1] == layout.cut(f"Not shown here: {', '.join(gone)}", width)
    whole = Console(file=io.StringIO(), width=200, record=True)
    whole.print(layout.table(cells, width=200, drop=tables.dispensable(cells[0])))
    assert "steps/s" in whole.export_text(clear=False)
    assert LONG in whole.export_text()


def test_long_sentences_are_broken_between_words_and_addresses_nowhere() -> None:
    """A sentence's lines fit, the further ones below its text; what is to be copied stays in one piece."""
    out = Console(file=io.StringIO(), width=40, highlight=False)
    address = "http://127.0.0.1:5000/#/experiments/0/runs/" + "7" * 32
    layout.say(out, f"Undecided between SGD and Adam in validation accuracy; see {address}", bullet="– ")
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "– Undecided between SGD and Adam in"
    assert f"  {address}" in lines
    assert all(line.startswith("  ") for line in lines[1:])


FIRST = """
import sys
import mlplab.__main__ as command, rich.console
was = rich.console.Console.print
def printed(*arguments, **options):
    heavy = {"tensorflow", "mlflow", "numpy", "scipy", "pandas", "matplotlib"} & set(sys.modules)
    was(*arguments, **options)
    print("LOADED", sorted(heavy), flush=True)
rich.console.Console.print = printed
sys.exit(command.main(sys.argv[1:]))
"""


def test_the_first_lines_wait_for_nothing_heavy(machine: Machine) -> None:
    """Question, plan and place of the record are printed before any library that takes long is imported."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST, "run", "optimizers", "--dataset", "mnist", "--seeds", "4", "--epochs", "2"],
        cwd=machine.folder,
        env=machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.splitlines()
    assert said[1::2] == ["LOADED []"] * 3
    assert said[2] == "To do: 3 variants × 4 seeds × 2 epochs on mnist"
    assert said[4] == f"Record: sqlite:///{machine.store}, experiment Default"  # which the tests ask for
    assert done.returncode == 3  # there is no MNIST here


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine of the test's own."""
    return Machine(tmp_path)


SPEC = """
from mlplab import Comparison, Training

COMPARISON = Comparison(
    question="Is a question that is longer than the window is wide, as this one is, broken between two words of it?",
    data="digits",
    base=Training(model="mlp", loss="sparse_categorical_crossentropy", metrics=["accuracy"], epochs=2, optimizer="sgd"),
    variants={"SGD with a name that no column of a table has room for": {}, "Adam": {"optimizer": "adam"}},
    seeds=2,
    targets={"val_accuracy": 0.1},
)
"""


@pytest.mark.slow
def test_a_comparison_at_a_terminal_of_80_columns(machine: Machine) -> None:
    """In a real one nothing is wider than it; at the end come answer, table, verdicts, page and the UI's command."""
    (machine.folder / "spec.py").write_text(SPEC)
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in machine.environment.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "mlplab", "compare", "spec.py"],
        cwd=machine.folder,
        env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)},
        stdin=child,
        stdout=child,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(child)
        raw = b""
        try:
            while part := os.read(main, 65_536):
                raw += part
        except OSError:  # so Linux says that the other end is closed
            pass
        assert process.wait() == 0, process.stderr and process.stderr.read()
    os.close(main)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw.decode()).replace("\r\n", "\n")
    lines = [line.rstrip() for line in re.split(r"[\r\n]", text)]
    wide = [line for line in lines if len(line) > 80 and not re.search(r"://|/comparison\.html", line)]
    assert not wide
    assert "2/2 seeds" in text
    assert "8 of 8 epochs" in text
    order = [
        "To do: 2 variants × 2 seeds × 2 epochs on digits",
        "Record: sqlite:///",
        "Data: digits, 1,197 training",
        "Done: 4 trainings",
        "(2 seeds), at these settings",
        "best by val_accuracy first",
        "variant ",
        "reached by",
        "– ",
        "The page: /",
        "Open the UI: mlflow ui",
        "This run: http://",
    ]
    flat = " ".join(text.split())
    assert [each for each in order if each not in flat] == []
    places = [flat.rindex(each) for each in order]
    assert places == sorted(places)
    (head,) = {line for line in lines if "test accuracy" in line and "variant" in line}
    assert "val. accuracy" in head


def test_an_absent_server_is_said_when_the_store_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded to train with, and not a second time when the run begins."""
    monkeypatch.setattr(stores, "START_SECONDS", 0.2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(command, "_checked", {})
    said: list[str] = []
    command.check(said.append)
    assert len(said) == 1
    assert "http://127.0.0.1:9 does not answer (connection refused)" in said[0]
    assert "waits on this machine's disk" in said[0]
    ((_, experiment, silence),) = command._checked.values()
    assert (experiment, silence) == (None, None)


def test_an_artifact_is_where_the_store_keeps_it(store: Any, dataset: Any) -> None:
    """Of a store on this machine the file's path."""
    with command.parent_run("place", {}) as run:
        run.text("<p>page</p>", "comparison.html")
    assert Path(pages.artifact_place(run, "comparison.html")).read_text() == "<p>page</p>"


def test_the_time_left_takes_trainings_side_by_side_as_they_come() -> None:
    """Two at a time take half as long, and pauses between trainings are taken to go on."""
    spec, clock = comparison(variants={"SGD": {}}, base=mlp(epochs=10), seeds=4), Clock()
    progress = Progress(window(), phases_of(spec), clock)
    (variant,) = spec.resolved()
    with progress.watching(spec, DATA, [variant]):
        pair = [Result(variant=variant, seed=seed, steps_per_epoch=10) for seed in (1, 2)]
        for result in pair:
            progress.started(result)
        for _ in range(10):
            clock.now += 4
            for result in pair:
                result.add({"loss": 0.5})
                progress.epoch(result)
        for result in pair:
            progress.ended(result)
        assert seconds_left(progress.phases, clock.now, 100.0) == pytest.approx(40)
        clock.now += 40  # in which nothing is trained
        assert seconds_left(progress.phases, clock.now, 100.0) == pytest.approx(80)


def test_a_table_without_an_order_loses_its_last_columns() -> None:
    """Where nothing is said of what matters less, the last columns go, never the first two, and no head is cut."""
    cells = [["data set", *(f"variant {k}" for k in range(9))], ["digits", *["0.9733 ± 0.0083"] * 9]]
    out = Console(file=io.StringIO(), width=80, record=True)
    out.print(layout.table(cells, width=80))
    lines = [line.rstrip() for line in out.export_text().splitlines()]
    assert re.split(r"\s{2,}", lines[1].strip()) == ["data set", "variant 0", "variant 1", "variant 2"]
    assert "Not shown here: variant 3, variant 4, variant 5, variant 6, variant 7, variant 8" in " ".join(lines)
