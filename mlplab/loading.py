"""Experiments and the files that hold them: what each asks, what it needs, and what a command changes in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mlplab import user_code
from mlplab.checks import UsageError, check_question, choose, whole
from mlplab.comparison import Comparison
from mlplab.seeds import MAX_SEEDS, Until
from mlplab.sources import Data
from mlplab.space import Search
from mlplab.spec import Metric, Training

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a trained model answers: a comparison's logged model, loaded again, on the first examples of the test set.

    Args:
        question: one sentence that ends in a question mark.
        of: name of the comparison.
        variant: the variant of it whose model is asked.
        images: how many test images are shown.

    Raises:
        UsageError: a value is not legal.

    Examples:
        >>> Prediction(question="What does the network answer?", of="optimizers", variant="Adam").needs
        ('optimizers',)
    """

    question: str
    of: str
    variant: str
    images: int = 25
    name: str = ""

    def __post_init__(self) -> None:
        check_question(self.question)
        whole("images", self.images, 1, 100)

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments it is about."""
        return (self.of,)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The training times of several comparisons side by side.

    Args:
        question: one sentence that ends in a question mark.
        of: names of the comparisons, in the order they are to be shown.

    Raises:
        UsageError: a value is not legal.

    Examples:
        >>> Overview(question="Which optimizer takes longest?", of=["optimizers", "batch_modes"]).needs
        ('optimizers', 'batch_modes')
    """

    question: str
    of: tuple[str, ...]
    name: str = ""

    def __post_init__(self) -> None:
        check_question(self.question)
        if not isinstance(self.of, tuple | list) or not self.of:
            raise UsageError(f"of is {self.of!r}; legal: names of experiments.")
        object.__setattr__(self, "of", tuple(self.of))

    @property
    def needs(self) -> tuple[str, ...]:
        """The experiments it is about."""
        return self.of


Experiment = Comparison | Search | Prediction | Overview
KINDS: Mapping[str, type[Experiment]] = MappingProxyType(
    dict(zip(user_code.EXPERIMENTS, (Comparison, Search, Prediction, Overview), strict=True))
)
"""What the file of an experiment holds: exactly one of these names."""

SMOKE_EPOCHS, SMOKE_CANDIDATES, SMOKE_FOLDS, SMOKE_TRIALS = 2, 2, 2, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command changes in every experiment it runs; None leaves what the experiment says.

    Args:
        epochs: of every training.
        seed: of every experiment; the first where `seeds` is a number.
        seeds: of every comparison: how many, which, or until when. A search has but the first.
        smoke: few epochs, candidates, folds and trials: to see that all of it works.

    Raises:
        UsageError: both a seed and a list of seeds.
    """

    epochs: int | None = None
    seed: int | None = None
    seeds: int | tuple[int, ...] | Until | None = None
    smoke: bool = False

    def __post_init__(self) -> None:
        if self.seed is not None and isinstance(self.seeds, tuple):
            raise UsageError(
                f"seed is {self.seed} and seeds is {','.join(map(str, self.seeds))}; legal: one of them, or a seed and "
                "how many from it on (seed=7 seeds=10)."
            )

    def adapt(self, experiment: "Experiment") -> "Experiment":
        """The experiment with the changes.

        Raises:
            UsageError: a value is not legal.
        """
        if not isinstance(experiment, Comparison | Search):
            return experiment
        if isinstance(experiment, Comparison):
            experiment = experiment.with_seeds(self._until(experiment.seeds) or self._seeds(experiment.each_seed))
        else:
            experiment = experiment.with_seed(self._seeds((experiment.seed,))[0])
        if self.epochs is not None:
            experiment = experiment.with_base(epochs=self.epochs)
        elif self.smoke:
            experiment = experiment.with_base(epochs=SMOKE_EPOCHS)
        if self.smoke and isinstance(experiment, Comparison) and experiment.tune:
            experiment = replace(experiment, tune=replace(experiment.tune, trials=SMOKE_TRIALS))
        if self.smoke and isinstance(experiment, Search):
            candidates = min(SMOKE_CANDIDATES, experiment.candidates)
            experiment = replace(experiment, candidates=candidates, folds=min(SMOKE_FOLDS, experiment.folds))
        return experiment

    def _until(self, own: object) -> Until | None:
        """Until when seeds are added, where the command or the experiment itself asks for that."""
        until = self.seeds if self.seeds is not None else own
        if not isinstance(until, Until) or self.seed is None:
            return until if isinstance(until, Until) else None
        return replace(until, first=self.seed)

    def _seeds(self, own: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.seeds, tuple):
            return self.seeds
        if self.seeds is None or isinstance(self.seeds, Until):
            return own if self.seed is None else (self.seed,)
        whole("seeds", self.seeds, 1, MAX_SEEDS)
        first = own[0] if self.seed is None else self.seed
        return tuple(range(first, first + self.seeds))


def load_experiment(name_or_path: str) -> Experiment:
    """Imports an experiment's file and returns what it holds (see `KINDS`), named after the file.

    Args:
        name_or_path: the name of a file in `experiments/`, or the path of one's own.

    Raises:
        UsageError: no such experiment or file, the file does not import, or holds none of `KINDS` or several.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = Path(name_or_path)
        if not path.is_file():
            folder = path.absolute().parent
            seen = "a folder" if path.is_dir() else f"no file in {folder}" if folder.is_dir() else "no file"
            raise UsageError(
                f"spec is {name_or_path!r}, which is {seen}; give the path of a Python file with a COMPARISON, counted "
                f"from {Path.cwd()}, or an absolute one. `mlplab init` writes one to start from."
            )
    else:
        path = EXPERIMENTS / f"{choose('experiment', name_or_path, experiment_names())}.py"
    try:
        found = user_code.run(path)
    except (Exception, SystemExit) as error:
        line = _line_in(path, error)
        said = _with_legal_names(error)
        kind = "" if isinstance(said, UsageError) else f"{type(said).__name__}: "
        raise UsageError(f"{path}{f', line {line}' if line else ''}: {kind}{said}") from said
    held = [name for name in KINDS if name in found]
    if len(held) != 1 or not isinstance(found[held[0]], KINDS[held[0]]):
        seen = f"a {held[0]} that is {found[held[0]]!r}" if len(held) == 1 else " and ".join(held) or "no COMPARISON"
        raise UsageError(
            f"{path} has {seen}; legal: COMPARISON = Comparison(...) with `from mlplab import Comparison, "
            f"Training`, or one of {', '.join(f'{n} = {kind.__name__}(...)' for n, kind in KINDS.items())}."
        )
    experiment: Experiment = replace(found[held[0]], name=path.stem)
    if isinstance(experiment, Comparison):
        experiment = replace(experiment, data=[_found_from(path, one) for one in experiment.datasets])
    elif isinstance(experiment, Search):
        experiment = replace(experiment, data=_found_from(path, experiment.data))
    return experiment


def _found_from(path: Path, data: Data) -> Data:
    """A data set whose path is counted from the file at `path`, wherever the command is given."""
    files = data.kind in ("npz", "csv", "images")
    return replace(data, source=str(path.absolute().parent / data.source)) if files else data


def _with_legal_names(error: BaseException) -> BaseException:
    """A `UsageError` in place of Python's own for a keyword that a class of this module does not know."""
    wrong = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kinds = {kind.__name__: kind for kind in (Training, Metric, Data, *KINDS.values())}
    if wrong and wrong[1] in kinds:
        kind: Any = kinds[wrong[1]]
        try:
            choose(f"field of {wrong[1]}", wrong[2], (f.name for f in fields(kind) if f.name != "name"))
        except UsageError as refusal:
            return refusal
    return error


def _line_in(path: Path, error: BaseException) -> int | None:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename in (str(path), None) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def experiment_names() -> list[str]:
    """The names of the experiments that come with the project, in alphabetical order."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.py") if not path.stem.startswith("_"))


def data_of(experiment: Experiment) -> list[Data]:
    """The data sets that an experiment and those it needs are about, each once.

    Raises:
        UsageError: an experiment that it needs is not there.
    """
    if isinstance(experiment, Comparison | Search):
        needs = list(experiment.searches.values()) if isinstance(experiment, Comparison) else []
        own = list(experiment.datasets) if isinstance(experiment, Comparison) else [experiment.data]
    else:
        needs, own = list(experiment.needs), []
    for name in needs:
        own += [one for one in data_of(load_experiment(name)) if one not in own]
    return own


def known(experiment: Experiment) -> tuple[Comparison | Search, ...]:
    """What it trains, as far as that is known before anything runs: of several data sets a comparison on each.

    Nothing of one that waits for the winner of a search, nor of what is made of records.
    """
    if isinstance(experiment, Search):
        return (experiment,)
    return (experiment.needs or (experiment,)) if isinstance(experiment, Comparison) and not experiment.searches else ()
