"""Where numbers come from: the code, the versions and the machine that a result depends on besides its spec."""

import ast
import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlplab import cores
from mlplab.marks import PLUMBING
from mlplab.user_code import without_docstrings

NUMBERS_COME_FROM = (
    "calls.py", "spec.py", "models.py", "building.py", "initial.py", "arrays.py", "steps.py", "loops.py", "programs.py",
    "keras_fit.py", "training.py", "trial.py", "search.py",
)  # fmt: skip
"""The files of this package that decide an experiment's numbers; a change to one makes its record outdated."""

FLAGS = ("XLA_FLAGS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "TF_ENABLE_ONEDNN_OPTS")
"""Environment variables that change how TensorFlow computes."""


@cache
def versions() -> dict[str, str]:
    """Versions of what computes the numbers: Python and the packages behind a training."""
    found = {"python": platform.python_version()}
    for package in ("tensorflow-cpu", "tensorflow", "keras", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def circumstances() -> dict[str, str]:
    """What a result depends on besides its spec: code, versions, processor."""
    found = {f"version.{name}": installed for name, installed in versions().items()}
    found["version.mlflow"] = version("mlflow")
    found["cpu"] = _processor()
    found["code"] = hashlib.sha256("".join(code()).encode()).hexdigest()[:16]
    found["flags"] = " ".join(f"{name}={os.environ[name]}" for name in FLAGS if os.environ.get(name)) or "none"
    found["cpu.cores"] = str(len(cores()))
    return found | _commit()


@cache
def tags() -> dict[str, str]:
    """The same for a reader, as tags of a run: commit, versions, machine; in sight is where the commit is not all."""
    known = circumstances()
    installed = {**versions(), "mlflow": known["version.mlflow"]}
    flags = f"; {known['flags']}" if known["flags"] != "none" else ""
    changed = {"git.dirty": "true"} if known["git.dirty"] == "true" else {}
    return {
        "git.commit": known["git.commit"],
        **changed,
        f"{PLUMBING}.versions": ", ".join(f"{name} {number}" for name, number in installed.items()),
        f"{PLUMBING}.machine": f"{known['cpu']}, {known['cpu.cores']} cores{flags}",
    }


def program() -> str:
    """How mlplab's command is typed here."""
    return "mlplab" if Path(sys.argv[0]).name == "mlplab" else "python -m mlplab"


def command() -> str:
    """What was typed to start this process; "" where that is no command of this project, but a program or notebook."""
    if program() == "mlplab":
        return shlex.join(["mlplab", *sys.argv[1:]])
    module = getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", "")
    known = module.startswith(("mlplab.", "experiments.")) and module.endswith(".__main__")
    return shlex.join(["python", "-m", module.removesuffix(".__main__"), *sys.argv[1:]]) if known else ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def code() -> list[str]:
    """Hashes of the files that decide an experiment's numbers, without their docstrings and comments.

    Taken once: the code that runs is the code as it was loaded, whatever happens to the files meanwhile.
    """
    trees = [ast.parse((Path(__file__).parent / name).read_bytes()) for name in NUMBERS_COME_FROM]
    return [hashlib.sha256(ast.dump(without_docstrings(tree)).encode()).hexdigest() for tree in trees]


def _commit() -> dict[str, str]:
    """The commit of the code that runs, and whether files differ from it."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"git.commit": git("rev-parse", "HEAD"), "git.dirty": str(bool(git("status", "--porcelain"))).lower()}
    except (OSError, subprocess.SubprocessError):
        return {"git.commit": "unknown", "git.dirty": "unknown"}
