"""The folders of this user on this machine: what can be made again, and what must not be lost."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

from mlplab import cores


def cache_dir() -> Path:
    """The folder of what mlplab can make again: downloads and compiled programs. Safe to delete.

    Where the system keeps such: on Linux `~/.cache/mlplab`, or under `XDG_CACHE_HOME`.
    """
    import platformdirs

    return platformdirs.user_cache_path("mlplab", appauthor=False)


def state_dir() -> Path:
    """The folder of what mlplab must not lose: what the tracking store does not have yet, and checkpoints.

    Where the system keeps such: on Linux `~/.local/state/mlplab`, or under `XDG_STATE_HOME`.
    """
    import platformdirs

    return platformdirs.user_state_path("mlplab", appauthor=False)


def program_cache() -> Path:
    """The folder of compiled programs for this processor, TensorFlow, flags and number of cores."""
    # Programs are machine code: those of another processor, TensorFlow or set of flags must not be found.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        processor = [platform.node(), platform.processor()]
    version = ""
    for package in ("tensorflow-cpu", "tensorflow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = version or importlib.metadata.version(package)
    # So must those of another number of cores: among as many an operation is split.
    compiled_for = (platform.machine(), processor, version, os.environ.get("XLA_FLAGS", ""), len(cores()))
    key = hashlib.sha256(repr(compiled_for).encode()).hexdigest()[:16]
    return cache_dir() / "programs" / key


def program_flags() -> str:
    """What has TensorFlow keep compiled programs, in a folder for this processor and the cores this process may use."""
    folder = program_cache()
    return f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=CPU,XLA_CPU_JIT"
