"""How long a command takes besides training: from its start to the first words, the first epoch and the end.

Usage: python benchmarks/startup.py [--repetitions N] [--code FOLDER ...]

The command is `python -m mlplab run optimizers --dataset digits --epochs 1`: three trainings of a fraction of a second,
in a process of its own, with its record in SQLite. Measured, each as a median of repetitions in turns:

- TensorFlow's import alone: what no command that trains can be without;
- seconds to the first words on the screen, and until the first epoch is in the record, by the time that it bears there;
- seconds of the whole command, and the CPU seconds of it;
- the same with no compiled programs from before, and started by `mlflow run`, which imports MLflow once more.

`--code` names other checkouts of the project, such as one of an earlier commit, that take turns with this one. Goals
are multiples of TensorFlow's import, so that they hold on any machine: they were set where it took 7.5 s, as 3 s over
it for the first epoch and 12 s for the whole command, which took 20 then.
"""

import argparse
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "mlplab", "run", "optimizers", "--dataset", "digits", "--epochs", "1"]
PROJECT = [sys.executable, "-m", "mlflow", "run", "CODE", "-e", "optimizers", "--env-manager", "local"]
PROJECT += ["-P", "dataset=digits", "-P", "epochs=1"]
IMPORT = [sys.executable, "-c", "import mlplab, tensorflow"]

Seconds = dict[str, float]


def timed(command: Sequence[str], code: Path, home: Path) -> Seconds:
    """Runs a command of a checkout: seconds to its first words, to the first epoch on record, of all, of the CPU."""
    store = home / "mlflow.db"
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    words = [str(code) if word == "CODE" else word for word in command]
    before, began, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), time.perf_counter()
    with subprocess.Popen(
        words, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - clock
        process.stdout.read()
    whole, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with exit code {process.returncode}")
    found = {"whole": whole, "CPU": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
    if command is not IMPORT:
        with sqlite3.connect(store) as records:
            query = "SELECT MIN(timestamp) FROM metrics WHERE key = 'loss' AND step = 1 AND timestamp >= ?"
            ((stamp,),) = records.execute(query, [int(began * 1000)]).fetchall()
        found |= {"first words": first, "first epoch": stamp / 1000 - began}
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--code", type=Path, nargs="*", default=[], help="other checkouts, measured in turns")
    options = parser.parse_args()
    checkouts = [folder.resolve() for folder in [*options.code, ROOT]]
    measured: dict[tuple[Path, str], list[Seconds]] = {}
    with tempfile.TemporaryDirectory() as folder:
        homes = {code: Path(folder) / str(place) for place, code in enumerate(checkouts)}
        for code, home in homes.items():
            home.mkdir()
            timed(COMMAND, code, home)  # makes the store's tables, and fills caches
        for _ in range(options.repetitions):
            for code, home in homes.items():
                kept = home / "cache"
                for name, command in (("import", IMPORT), ("cached", COMMAND), ("mlflow run", PROJECT)):
                    measured.setdefault((code, name), []).append(timed(command, code, home))
                shutil.move(kept, home / "kept")
                measured.setdefault((code, "nothing cached"), []).append(timed(COMMAND, code, home))
                shutil.rmtree(kept)
                shutil.move(home / "kept", kept)

    def middle(code: Path, name: str, what: str) -> float:
        return statistics.median(found[what] for found in measured[code, name])

    for code in checkouts:
        alone = middle(code, "import", "whole")
        rows = [
            ("import tensorflow", "import", "whole", None),
            ("first words", "cached", "first words", 1.0),
            ("first epoch on record", "cached", "first epoch", alone * 10.5 / 7.5),
            ("whole command", "cached", "whole", alone * 12 / 7.5),
            ("its CPU", "cached", "CPU", None),
            ("first epoch, nothing cached", "nothing cached", "first epoch", None),
            ("whole command, nothing cached", "nothing cached", "whole", None),
            ("whole command, by `mlflow run`", "mlflow run", "whole", None),
        ]
        print(f"\n{code}, medians of {options.repetitions} in turns (s)\n")
        print("| | seconds | over the import | goal | | spread |\n|---|---:|---:|---:|---|---:|")
        for title, name, what, goal in rows:
            seconds = middle(code, name, what)
            values = [found[what] for found in measured[code, name]]
            aim, verdict = ("", "") if goal is None else (f"≤ {goal:.1f}", "pass" if seconds <= goal else "FAIL")
            spread = (max(values) - min(values)) / seconds
            print(f"| {title} | {seconds:.2f} | {seconds / alone:.2f} | {aim} | {verdict} | {spread:.0%} |")


if __name__ == "__main__":
    main()
