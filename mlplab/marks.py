"""What marks a run of the store as this package's, and has it found again: its key, its process, its fingerprint."""

import json
import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import psutil

PLUMBING = "mlflow.mlplab"
"""The tag of every run that has, as JSON, what this package alone asks of it. MLflow's UI hides such names."""


def plumbing(key: str, session: str, **more: float) -> dict[str, str]:
    """The tag that says of a run its own key, the session that made it, and the process behind that.

    Args:
        key: of the run; it stands first, so that a run is found by how the tag begins.
        session: the key of the outermost run.
        more: `heartbeat`, on the outermost run: its process's last sign of life, in seconds since 1970.
    """
    return {PLUMBING: json.dumps({"key": key, "session": session, "process": _process(), **more})}


def model_name(tags: Mapping[str, str], run: str) -> str:
    """The name of a run's logged model, by which MLflow's list of models tells it from others: experiment and variant.

    Args:
        run: the name of the run, where its tags name no variant.
    """
    named = [tags[tag] for tag in ("mlplab.experiment", "mlplab.variant") if tag in tags] or [run]
    return " - ".join(named).translate(str.maketrans("/:.%\"'", "______"))[:200]  # MLflow takes none of these


def with_key(key: str) -> str:
    """MLflow's filter for the run that bears a key."""
    return f"""tags.`{PLUMBING}` LIKE '{{"key": "{key}"%'"""


@cache
def _process() -> str:
    """This process: its machine, its number, and when it began, since numbers are used again."""
    return f"{socket.gethostname()} {os.getpid()} {began(str(os.getpid()))}"


def began(pid: str) -> str:
    """When a process of this machine began; "" if there is none."""
    try:
        if Path("/proc/self/stat").exists():  # the kernel's ticks (proc(5)), which setting the clock leaves alone
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return str(psutil.Process(int(pid)).create_time())
    except (OSError, IndexError, ValueError, psutil.Error):
        return ""


def fingerprinted(fingerprint: str) -> dict[str, str]:
    """The tag that says what decided a run's numbers, by which what has been done already is found.

    It is in the tag's name: MLflow's tables have an index of names, and none of values. Names in MLflow's own room are
    hidden in its UI.
    """
    return {f"{PLUMBING}.fingerprint.{fingerprint}": "true"}
