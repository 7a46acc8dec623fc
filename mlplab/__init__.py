"""mlplab: find out which training choice is better for a Keras network, fast, fairly and on the record."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlplab.calls import call as call
    from mlplab.comparing import compare as compare
    from mlplab.comparison import Comparison as Comparison
    from mlplab.comparison import WinnerOf as WinnerOf
    from mlplab.distributions import LogUniform as LogUniform
    from mlplab.distributions import Uniform as Uniform
    from mlplab.loading import Overview as Overview
    from mlplab.loading import Prediction as Prediction
    from mlplab.seeds import Until as Until
    from mlplab.sources import Data as Data
    from mlplab.space import Search as Search
    from mlplab.space import Tune as Tune
    from mlplab.spec import Metric as Metric
    from mlplab.spec import Training as Training
    from mlplab.wrappers import Classifier as Classifier
    from mlplab.wrappers import Regressor as Regressor

_WHERE = {
    "Comparison": "comparison",
    "Classifier": "wrappers",
    "Data": "sources",
    "LogUniform": "distributions",
    "Metric": "spec",
    "Overview": "loading",
    "Prediction": "loading",
    "Regressor": "wrappers",
    "Search": "space",
    "Training": "spec",
    "Tune": "space",
    "Uniform": "distributions",
    "Until": "seeds",
    "WinnerOf": "comparison",
    "call": "calls",
    "compare": "comparing",
}
"""The public names, and the module of each, which is imported on use."""

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"mlplab.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'mlplab' has no attribute {name!r}")


def cache_dir() -> Path:
    """The folder of what mlplab can make again: downloads and compiled programs. Safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()) / "mlplab"


def state_dir() -> Path:
    """The folder of what mlplab must not lose: what the tracking store does not have yet, and checkpoints."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()) / "mlplab"


def cores() -> set[int]:
    """The cores that this process may use."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


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
