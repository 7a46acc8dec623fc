"""mlplab: find out which training choice is better for a Keras network, fast, fairly and on the record."""

import importlib
import os
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


def cores() -> set[int]:
    """The cores that this process may use."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
