"""What runs are labelled with: by this the store, and whoever reads it, finds them again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlplab import origin
from mlplab.amounts import counted
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.loading import Experiment, Prediction
from mlplab.space import Search
from mlplab.spec import Training

LOAD, SHARED = "machine.load", "shared"
"""The tag that says what else the machine did while a run was trained: `shared` with other trainings on purpose, or
busy with other processes. No tag: nothing that would be felt."""


def above(label: str) -> dict[str, str]:
    """Which data, which code and which machine, of a run over others: what its page shows, and no more."""
    return {"dataset": label, **origin.tags()}


def of_data(data: Dataset) -> dict[str, str]:
    """Which data, which code and which machine, of every run."""
    return {"dataset": data.label, "dataset.digest": data.digest, **origin.tags()}


def of_kind(experiment: Experiment) -> dict[str, str]:
    """Which experiment, and what kind of one, of its run."""
    return {"mlplab.experiment": experiment.name, "mlplab.kind": type(experiment).__name__.lower()}


def title(experiment: Experiment, data: Sequence[Dataset]) -> str:
    """The name of an experiment's run, as a list of runs has it: what, on which data, how much.

    Args:
        data: the data sets that it is about.
    """
    on = ", ".join(dict.fromkeys(each.name if each.is_fallback else each.label for each in data))
    parts = [experiment.name, on]
    if isinstance(experiment, Comparison):
        few, many = min(experiment.epochs.values()), max(experiment.epochs.values())
        much = counted(many, "epoch") if few == many else f"{few} to {many} epochs"
        tuned = f"{counted(experiment.tune.trials, 'trial')} each, then " if experiment.tune else ""
        seeds = len(experiment.each_seed)
        times = f" × {'≤ ' if experiment.looks else ''}{seeds} seeds" if seeds > 1 else ""
        parts.append(f"{tuned}{much}{times}")
    elif isinstance(experiment, Search):
        much = counted(experiment.base.epochs, "epoch")
        parts.append(f"{much} × {counted(experiment.candidates, 'candidate')} × {experiment.folds} folds")
    elif isinstance(experiment, Prediction):
        parts.append(f"{experiment.variant} of {experiment.of}")
    else:
        parts.append(counted(len(experiment.of), "comparison"))
    return " · ".join(parts)


def fingerprint(experiment: Comparison | Search, data: Dataset, configs: Mapping[str, str] | None = None) -> str:
    """What decides an experiment's numbers, in 32 hex digits: its spec and seeds, the data, the code, the versions.

    Args:
        configs: variant -> hash of its built model's configuration.
    """
    spec = {k: v for k, v in json.loads(experiment.to_json()).items() if k not in LEFT_OUT}
    if isinstance(experiment, Comparison):
        variants = [[variant.name, variant.fingerprint()] for variant in experiment.resolved()]
    else:
        variants = [["", experiment.base.fingerprint()]]
    return digest([spec, variants, configs or {}, data.digest])


LEFT_OUT = ("question", "base", "variants", "resolved", "data", "name")
"""What of a spec's JSON decides no number by itself: the variants count as they are in full, the data by digest."""


def trial_fingerprint(comparison: Comparison, trial: Training, data: Dataset) -> str:
    """What decides the numbers of a trial that tunes a variant."""
    by = comparison.metric.name, comparison.metric.best
    return digest([trial.fingerprint(), comparison.tuning_seed, by, data.digest])


def candidate_fingerprint(spec: Search, candidate: Training, data: Dataset) -> str:
    """The same of a search's candidate, with what its folds depend on."""
    return digest([candidate.fingerprint(), spec.folds, spec.scoring, spec.seed, data.digest])


def digest(what: Any) -> str:
    """Of what JSON can hold, the code and the versions: 32 hex digits."""
    return hashlib.sha256(json.dumps([what, origin.code(), origin.versions()]).encode()).hexdigest()[:32]
