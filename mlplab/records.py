"""What an experiment left behind as a whole: its record, as an artifact of its run has it."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mlplab.amounts import significant
from mlplab.calls import plain, shown, thawed
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.loading import Experiment
from mlplab.results import FAILED, Outcome, Result, outcomes
from mlplab.spec import Metric
from mlplab.statistics import expected_best
from mlplab.verdicts import Verdict


def choice_words(names: Iterable[str]) -> dict[str, str]:
    """Choice -> what readers are told it is: the argument's name, with what takes it only where two would be the same.

    >>> choice_words(["model.batch_norm", "optimizer.momentum"])
    {'model.batch_norm': 'batch norm', 'optimizer.momentum': 'momentum'}
    >>> choice_words(["model.dropout", "optimizer.dropout"])
    {'model.dropout': 'model dropout', 'optimizer.dropout': 'optimizer dropout'}
    """
    every = list(names)
    last = [name.rpartition(".")[2] for name in every]
    words = (full if last.count(short) > 1 else short for full, short in zip(every, last, strict=True))
    return {name: word.replace(".", " ").replace("_", " ") for name, word in zip(every, words, strict=True)}


def choice_text(value: Any) -> str:
    """A chosen value for readers.

    >>> choice_text(0.000123456), choice_text((128, 64))
    ('0.0001235', '128-64')
    """
    return significant(value, 4) if isinstance(value, float) else shown(value)


@dataclass(kw_only=True)
class Candidate:
    """One candidate of a search.

    Attributes:
        choices: choice of a training -> the value drawn; without those that do not apply to its optimizer or model.
        scores: of each held-out fold that it had, in the folds' order, more is better; NaN where the training failed.
            In a race it may have had fewer than others.
        train_seconds: seconds of training alone, over these folds.
    """

    choices: dict[str, Any]
    scores: list[float]
    train_seconds: float = math.nan
    run_id: str = ""

    def __post_init__(self) -> None:
        # JSON makes lists of tuples, such as a model's widths, and has a call as a dict.
        self.choices = {name: thawed(value) for name, value in self.choices.items()}

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it; `from_dict` reads it back."""
        return {**vars(self), "choices": {name: plain(value) for name, value in self.choices.items()}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Candidate":
        """What `to_dict` gave."""
        return cls(**record)

    @property
    def mean(self) -> float:
        """Mean score over the folds that it had."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float:
        """Standard deviation of the score over the folds (population's, as scikit-learn's)."""
        return float(np.std(self.scores))


@dataclass(kw_only=True)
class SearchResult:
    """A random search's candidates in the order they were drawn, and the best one trained on all training examples.

    Attributes:
        scoring: what the scores are of, by scikit-learn's names, such as `accuracy` or `r2`.
        refit: that training; its best epoch was picked by the validation set.
        validation: loss and metrics on the validation set at that epoch.
    """

    candidates: list[Candidate]
    refit: Result
    scoring: str
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> str:
        """What the scores are of, in words, such as `accuracy` or `R²`."""
        return "R²" if self.scoring == "r2" else self.scoring.replace("_", " ")

    @property
    def choices(self) -> list[str]:
        """The choices that were searched; a candidate may lack some, which do not apply to it."""
        return list(dict.fromkeys(name for candidate in self.candidates for name in candidate.choices))

    @property
    def ranked(self) -> list[Candidate]:
        """The candidates with the highest mean score first, of equals the first drawn; after a race those it dropped
        follow, the last to be dropped first; and those that failed.
        """
        return sorted(self.candidates, key=lambda c: (-len(c.scores), -c.mean) if math.isfinite(c.mean) else (1, 0.0))

    @property
    def best(self) -> Candidate:
        """The candidate with the highest mean score over all folds."""
        return self.ranked[0]

    @property
    def folds(self) -> int:
        """How many folds the winner had, and whoever was not dropped."""
        return max(len(candidate.scores) for candidate in self.candidates)

    def dropped(self, candidate: Candidate) -> str:
        """That a race dropped a candidate, and when; else ""."""
        had = len(candidate.scores)
        if had == self.folds or not math.isfinite(candidate.mean):
            return ""
        return f"dropped after {had} fold{'' if had == 1 else 's'}"

    @property
    def raced(self) -> str:
        """What a race saved, as a sentence; "" where nobody was dropped."""
        had = sorted(len(candidate.scores) for candidate in self.candidates if self.dropped(candidate))
        if not had:
            return ""
        after = f"{had[0]} fold{'' if had[-1] == 1 else 's'}" if had[0] == had[-1] else f"{had[0]} to {had[-1]} folds"
        trained, every = sum(len(c.scores) for c in self.candidates), self.folds * len(self.candidates)
        return (
            f"{len(had)} of {len(self.candidates)} candidates were dropped after {after}, clearly worse than the "
            f"leader: {trained} trainings in place of {every}."
        )


@dataclass(kw_only=True)
class Trial(Candidate):
    """One trial of a variant that is tuned: a candidate with one score, the selection metric's at its best epoch.

    Attributes:
        status: how its training ended, as a `Result` has it.
        epochs, best_epoch: trained, and scored at.
    """

    status: str
    epochs: int
    best_epoch: int | None

    @classmethod
    def of(cls, choices: Mapping[str, Any], result: Result, metric: Metric) -> "Trial":
        """What a trial's training came to; one that raised has no score."""
        return cls(
            choices=dict(choices),
            scores=[math.nan if result.status == FAILED else result.best(metric.name)],
            train_seconds=result.train_seconds,
            run_id=result.run_id,
            status=result.status,
            epochs=result.epochs,
            best_epoch=result.best_epoch,
        )

    @property
    def score(self) -> float:
        """The selection metric on the part of the training examples that its training did not have."""
        return self.scores[0]


@dataclass(kw_only=True)
class Tuning:
    """The trials by which a comparison's variants were tuned.

    Attributes:
        trials: variant -> its trials in the order they were drawn.
        metric: the selection metric, which scores them.
    """

    trials: dict[str, list[Trial]]
    metric: Metric

    def best(self, variant: str) -> Trial:
        """A variant's trial with the best score, the first of equals; one without a score only where none has any."""
        best, *others = self.trials[variant]
        for trial in others:
            best = trial if self.metric.better(trial.score, best.score) else best
        return best

    @property
    def chosen(self) -> dict[str, dict[str, Any]]:
        """Variant -> choice -> the value of its best trial."""
        return {name: self.best(name).choices for name in self.trials}

    def scores(self, variant: str) -> list[float]:
        """The scores of a variant's trials that have one, in their order."""
        return [trial.score for trial in self.trials[variant] if math.isfinite(trial.score)]

    def leads(self) -> list[tuple[int, int, str]]:
        """Which variant leads at which budgets: the first and last number of trials of each stretch, and who.

        A variant leads where the best score to expect of so many of its trials is better than every other variant's by
        more than the margin of practical equivalence; "" where none does.
        """
        expected = {name: expected_best(self.scores(name), self.metric.maximizes) for name in self.trials}
        found: list[tuple[int, int, str]] = []
        for k in range(1, min(map(len, expected.values())) + 1):
            at = sorted(((each[k - 1], name) for name, each in expected.items()), reverse=self.metric.maximizes)
            who = at[0][1] if self._apart(at[0][0], at[1][0]) else ""
            if found and found[-1][2] == who:
                found[-1] = (found[-1][0], k, who)
            else:
                found.append((k, k, who))
        return found

    def _apart(self, better: float, worse: float) -> bool:
        assert self.metric.margin is not None  # a comparison has filled it in
        apart = abs(better - worse)
        return bool(apart > self.metric.margin * (abs(worse) if self.metric.unit == "%" else 1))

    @property
    def sentence(self) -> str:
        """From which budget on which variant leads, for a reader; "" of one variant."""
        if len(self.trials) < 2 or not (stretches := self.leads()):
            return ""
        margin, unit = self.metric.margin or 0, self.metric.unit
        by = f"{100 * margin if unit in ('points', '%') else margin:g} {unit}".strip()
        by = "1 point" if by == "1 points" else by
        says: list[str] = []
        for first, last, who in stretches:
            budget = f"at {first}" if first == last else f"at {first} to {last}"
            budget = f"from {first} on" if last == stretches[-1][1] else budget
            budget = "of any number" if len(stretches) == 1 else budget
            says.append(f"{budget} {who or 'none'} {'does' if says else f'leads by more than {by}'}")
        return f"Best {self.metric.words} to expect of so many of {stretches[-1][1]} trials each: {', '.join(says)}."

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it; `from_dict` reads it back."""
        trials = {name: [trial.to_dict() for trial in each] for name, each in self.trials.items()}
        return {"trials": trials, "metric": vars(self.metric)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Tuning":
        """What `to_dict` gave."""
        trials = {name: [Trial(**trial) for trial in each] for name, each in record["trials"].items()}
        return cls(trials=trials, metric=Metric(**record["metric"]))


@dataclass(kw_only=True, eq=False)
class Predictions:
    """What a model answered on images.

    Attributes:
        images: uint8, shape (images, features).
        image_shape: (28, 28) or (32, 32, 3).
        labels, predicted: true and predicted class of each image.
        probability: the probability the model gave its prediction.
        class_names: the classes' names, by class.
        test_accuracy: share of right answers on the whole test set.
        model_uri: where the model was loaded from.
    """

    images: np.ndarray
    image_shape: tuple[int, ...]
    labels: list[int]
    predicted: list[int]
    probability: list[float]
    class_names: tuple[str, ...]
    test_accuracy: float
    model_uri: str


@dataclass(kw_only=True, eq=False)
class Record:
    """An experiment that has run.

    Attributes:
        data: the data set's label, as it stands beside every number.
        notice: what a reader must know of the data, or "".
        seconds: wall time of the experiment from its start to its conclusion, without that of experiments it needs.
        reused: whether it was found on record instead of run.
        results: those of a comparison: variant after variant in its order, and of each one seed after the other.
        verdicts: what a comparison's seeds say of its variants.
        looks: after how many seeds a comparison was looked at, where seeds were added until the verdicts were clear.
        search, predictions: those of a search or a prediction.
        records: of a comparison on several data sets those on each of them, which have its results; its verdicts are
            over all of them.
        tuning: the trials of a comparison whose variants were tuned; its experiment has what they chose.
    """

    experiment: Experiment
    data: str
    notice: str = ""
    run_id: str = ""
    seconds: float = 0.0
    reused: bool = False
    results: list[Result] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    looks: tuple[int, ...] = ()
    search: SearchResult | None = None
    predictions: Predictions | None = None
    tuning: Tuning | None = None
    records: "list[Record]" = field(default_factory=list)

    @classmethod
    def of(cls, experiment: Experiment, data: Dataset, **found: Any) -> "Record":
        """What was found by an experiment on a data set."""
        return cls(experiment=experiment, data=data.label, notice=data.notice or "", **found)

    @property
    def failed(self) -> bool:
        """Whether a training of it raised."""
        return any(one.failed for one in self.records) or any(result.status == FAILED for result in self.results)

    @property
    def outcomes(self) -> list[Outcome]:
        """The results by variant, in the variants' order."""
        return outcomes(self.results)

    @property
    def seeds(self) -> list[int]:
        """The seeds of a comparison's results."""
        return list(dict.fromkeys(result.seed for result in self.results))

    def of_seed(self, seed: int) -> "Record":
        """This record with the results of one seed alone."""
        return replace(self, results=[result for result in self.results if result.seed == seed], verdicts=[])

    def result(self, variant: str) -> Result:
        """The result that stands for a variant, by its name.

        Raises:
            KeyError: there is none of that name.
        """
        return {outcome.variant.name: outcome.representative for outcome in self.outcomes}[variant]

    def name_runs(self, resolved: Callable[[str], str]) -> None:
        """Has the runs named as the store names them, which `resolved` tells of what stands for them until it does."""
        named: list[Any] = [self, *self.results, *(self.search.candidates if self.search else [])]
        named += [trial for each in (self.tuning.trials.values() if self.tuning else ()) for trial in each]
        for each in named:
            each.run_id = resolved(each.run_id)
        for record in self.records:
            record.name_runs(resolved)

    def to_json(self) -> str:
        """All but the experiment itself, as JSON; values that are not finite as NaN and Infinity."""
        record: dict[str, Any] = {"data": self.data, "notice": self.notice, "seconds": self.seconds}
        record["results"] = [result.to_dict() for result in self.results]
        record["verdicts"] = [asdict(verdict) for verdict in self.verdicts]
        if self.records:
            record["records"] = [{**json.loads(one.to_json()), "run_id": one.run_id} for one in self.records]
        record["looks"] = self.looks
        if self.search:
            candidates = [candidate.to_dict() for candidate in self.search.candidates]
            refit = self.search.refit.to_dict()
            record["search"] = {**vars(self.search), "candidates": candidates, "refit": refit}
        if self.predictions:
            record["predictions"] = {**vars(self.predictions), "images": self.predictions.images.tolist()}
        if self.tuning:
            record["tuning"] = self.tuning.to_dict()
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, experiment: Experiment, run_id: str) -> "Record":
        """What `to_json` gave, found on record."""
        return cls._read(json.loads(text), experiment, run_id)

    @classmethod
    def _read(cls, record: dict[str, Any], experiment: Experiment, run_id: str) -> "Record":
        if each := record.get("records"):
            of = zip(each, getattr(experiment, "needs", ()), strict=True)
            record["records"] = [cls._read(one, on, one.pop("run_id")) for one, on in of]
        record["results"] = [Result.from_dict(result) for result in record["results"]]
        record["verdicts"] = [Verdict(**verdict) for verdict in record["verdicts"]]
        record["looks"] = tuple(record["looks"])
        if search := record.get("search"):
            candidates = [Candidate.from_dict(candidate) for candidate in search["candidates"]]
            refit = Result.from_dict(search["refit"])
            record["search"] = SearchResult(**{**search, "candidates": candidates, "refit": refit})
        if found := record.get("predictions"):
            images = np.array(found["images"], np.uint8)
            shapes = {name: tuple(found[name]) for name in ("image_shape", "class_names")}
            record["predictions"] = Predictions(**{**found, "images": images, **shapes})
        if tuning := record.get("tuning"):
            record["tuning"] = Tuning.from_dict(tuning)
            assert isinstance(experiment, Comparison)
            experiment = experiment.with_chosen(record["tuning"].chosen)
        return cls(**record, experiment=experiment, run_id=run_id, reused=True)
