"""What a command has to train: how many trainings of how many epochs, how far they are, and how long the rest takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlplab.amounts import counted
from mlplab.comparison import Comparison
from mlplab.loading import Experiment, Options, load_experiment
from mlplab.space import Search

CANDIDATES, WINNER = "candidates", "best found"
"""The lines of a search: its candidates' folds, and the winner's training on all examples."""


@dataclass
class Mean:
    """A mean of seconds that were measured one after the other; NaN where there are none."""

    total: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        """Counts one in."""
        self.total, self.count = self.total + seconds, self.count + 1

    @property
    def value(self) -> float:
        """The mean."""
        return self.total / self.count if self.count else math.nan


@dataclass
class Running:
    """A training that is under way: epochs that are done, and when the last of them ended."""

    done: int
    since: float


@dataclass
class Work:
    """The trainings of a line: how many there are, how far they are, and what they cost.

    Attributes:
        trainings, epochs: how many, and of how many epochs each.
        begun, over, known: trainings; `known` are those of `over` that were on record before.
        ran: epochs of those that were trained to their end here, which may have stopped early.
        ends: how many ended in each other way than finished.
        running: by name and seed.
        compiling: seconds of the first training up to the end of its first epoch, where programs are compiled.
        first, each, last: seconds of a later one up to there, of every further epoch, and from the last one to the end.
    """

    name: str
    trainings: int
    epochs: int
    begun: int = 0
    over: int = 0
    known: int = 0
    ran: Mean = field(default_factory=Mean)
    ends: dict[str, int] = field(default_factory=dict)
    running: dict[tuple[str, int], Running] = field(default_factory=dict)
    compiling: Mean = field(default_factory=Mean)
    first: Mean = field(default_factory=Mean)
    each: Mean = field(default_factory=Mean)
    last: Mean = field(default_factory=Mean)

    def begin(self, key: tuple[str, int], now: float) -> None:
        """A training begins; perhaps anew, after a worker's death."""
        self.begun += key not in self.running
        self.running[key] = Running(0, now)

    def epoch(self, key: tuple[str, int], epochs: int, now: float) -> None:
        """So many epochs of a training are over."""
        one = self.running.setdefault(key, Running(0, now))
        if one.done:
            for _ in range(epochs - one.done):
                self.each.add((now - one.since) / (epochs - one.done))
        else:
            (self.first if self.compiling.count else self.compiling).add(now - one.since)
        one.done, one.since = epochs, now

    def end(self, key: tuple[str, int], status: str, now: float) -> None:
        """A training is over; `status` is "" where it finished."""
        self.begun += key not in self.running  # what a worker could not even begin
        one = self.running.pop(key, Running(0, now))
        self.over += 1
        if one.done:
            self.last.add(now - one.since)
            self.ran.add(one.done)
        if status:
            self.ends[status] = self.ends.get(status, 0) + 1

    def recall(self, trainings: int = 1) -> None:
        """Trainings were over before, or are not wanted any more."""
        self.begun, self.over, self.known = self.begun + trainings, self.over + trainings, self.known + trainings

    @property
    def done(self) -> int:
        """Epochs that are over; a training that ended counts in full."""
        return self.over * self.epochs + sum(min(one.done, self.epochs) for one in self.running.values())

    def seconds_left(self, now: float, usual: "Work") -> float:
        """How long the rest takes, one training after the other.

        Args:
            usual: where nothing has been measured here yet, its measurements are taken.

        Returns:
            NaN where nothing is known of it.
        """
        each, last = _first_known(self.each, usual.each), _first_known(self.last, usual.last)
        compiling = _first_known(self.compiling, usual.compiling)
        later = _first_known(self.first, usual.first, self.each, usual.each, self.compiling)
        epochs = self.ran.value if self.ran.count else self.epochs
        rest = 0.0 if math.isnan(each) and epochs <= 1 else each
        last = 0.0 if math.isnan(last) else last
        seconds = 0.0
        for one in self.running.values():
            # The time since the last word counts, up to what the next one takes.
            if one.done:
                ahead, following = each, epochs - one.done - 1
            else:
                ahead, following = (later if self.compiling.count else compiling), epochs - 1
            if one.done >= epochs:
                ahead, following = 0.0, 0
            seconds += max(0.0, ahead - (now - one.since)) + max(0, following) * rest + last
        if waiting := self.trainings - self.begun:
            fresh = compiling if self.begun == 0 else later
            seconds += fresh + (waiting - 1) * later + waiting * ((epochs - 1) * rest + last)
        return seconds


def _first_known(*means: Mean) -> float:
    return next((mean.value for mean in means if mean.count), math.nan)


@dataclass
class Phase:
    """What is trained together: a comparison's variants on one data set, the trials of its tuning, or a search.

    Attributes:
        kind: `seeds`, `trials` or `folds`: what the trainings of a line are.
        works: by the names of the lines.
        at_most: whether it may be fewer trainings.
        candidates, folds: of a search.
        examples: that an epoch goes through, where that is known.
        closed: whether it is over; what it has not trained then is not wanted.
    """

    name: str
    kind: str
    works: dict[str, Work]
    at_most: bool = False
    candidates: int = 0
    folds: int = 0
    examples: int = 0
    closed: bool = False

    @property
    def total(self) -> int:
        """Epochs of all trainings."""
        return self.done if self.closed else sum(work.trainings * work.epochs for work in self.works.values())

    @property
    def done(self) -> int:
        """Epochs that are over."""
        return sum(work.done for work in self.works.values())


def phases_of(experiment: Comparison | Search) -> list[Phase]:
    """The phases of an experiment on one data set."""
    if isinstance(experiment, Search):
        epochs, folds = experiment.base.epochs, experiment.folds
        works = [Work(CANDIDATES, experiment.candidates * folds, epochs), Work(WINNER, 1, epochs)]
        named = {work.name: work for work in works}
        return [Phase(experiment.name, "folds", named, experiment.race, experiment.candidates, folds)]
    epochs_of, found = experiment.epochs, []
    if experiment.tune and experiment.untuned:
        trials = {name: Work(name, experiment.tune.trials, experiment.base.epochs) for name in epochs_of}
        found.append(Phase(experiment.name, "trials", trials))
    seeds = {name: Work(name, len(experiment.each_seed), epochs) for name, epochs in epochs_of.items()}
    return [*found, Phase(experiment.name, "seeds", seeds, at_most=bool(experiment.looks))]


def planned(experiment: Experiment, options: Options) -> list[Comparison | Search]:
    """All that is trained for an experiment, each once, what it needs first; of several data sets one on each."""
    if isinstance(experiment, Search):
        return [experiment]
    needs = experiment.searches.values() if isinstance(experiment, Comparison) else experiment.needs
    found = [one for name in needs for one in planned(options.adapt(load_experiment(name)), options)]
    found += (experiment.needs or (experiment,)) if isinstance(experiment, Comparison) else ()
    return list({one.name: one for one in found}.values())


def seconds_left(phases: Sequence[Phase], now: float, since: float) -> float:
    """How long the rest of all phases takes; NaN while that is unknown.

    Trainings may have gone on side by side, and there were pauses between them: it is taken to go on like that.

    Args:
        since: when the first training began.
    """
    every = [work for phase in phases for work in phase.works.values()]
    spent = sum(mean.total for work in every for mean in (work.compiling, work.first, work.each, work.last))
    spent += sum(now - one.since for work in every for one in work.running.values())
    seconds = sum(
        work.seconds_left(now, _usual(work.name, phase, phases))
        for phase in phases
        if not phase.closed
        for work in phase.works.values()
    )
    return seconds * (now - since) / spent if spent else math.nan


def _usual(name: str, phase: Phase, phases: Sequence[Phase]) -> Work:
    """What trainings cost elsewhere: of the same name in other phases, else of the others here, else of all.

    Seconds of an epoch are taken to go with the number of examples.
    """
    beside = [work for work in phase.works.values() if work.each.count or work.compiling.count]
    elsewhere = [(other, work) for other in phases for work in other.works.values() if work.compiling.count]
    same = [(other, work) for other, work in elsewhere if work.name == name and other is not phase]
    usual = Work(name, 0, 0)
    for other, work in same or [(phase, work) for work in beside] or elsewhere:
        scale = phase.examples / other.examples if phase.examples and other.examples else 1.0
        for mean, of in ((usual.compiling, work.compiling), (usual.last, work.last)):
            if of.count:
                mean.add(of.value)
        for mean, of in ((usual.first, work.first), (usual.each, work.each)):
            if of.count:
                mean.add(scale * of.value)
    return usual


def words(experiment: Experiment, options: Options) -> str:
    """What will be trained, for readers.

    >>> from mlplab import Training
    >>> question = Comparison(question="Is Adam better?", data="digits", base=Training(loss="mse", optimizer="sgd"),
    ...     variants={"SGD": {}, "Adam": {"optimizer": "adam"}}, select="val_loss", seeds=5).with_base(epochs=50)
    >>> words(question, Options())
    '2 variants × 5 seeds × 50 epochs on digits'
    """
    if isinstance(experiment, Search):
        folds = f"{'up to ' * experiment.race}{experiment.folds} folds × {counted(experiment.base.epochs, 'epoch')}"
        return f"{counted(experiment.candidates, 'candidate')} × {folds} on {experiment.data.label}"
    every = planned(experiment, options)
    if not isinstance(experiment, Comparison):
        return f"what {', '.join(experiment.needs)} came to: found on record, or trained now"
    last = phases_of(experiment.on(experiment.datasets[0]))
    counts = [counted(len(experiment.variants), "variant")]
    (seeds,) = {work.trainings for work in last[-1].works.values()}
    each = [f"{'up to ' * last[-1].at_most}{counted(seeds, 'seed')}"]
    if experiment.tune and experiment.untuned:
        each.insert(0, f"{experiment.tune.trials} trials")
    counts.append(f"({' + '.join(each)})" if len(each) > 1 else each[0])
    epochs = sorted({work.epochs for work in last[-1].works.values()})
    counts.append(f"{epochs[0]:,} to " * (len(epochs) > 1) + counted(epochs[-1], "epoch"))
    labels = [data.label for data in experiment.datasets]
    counts += [f"{len(labels)} data sets"] * (len(labels) > 1)
    first = [f"; first {one.name}: {words(one, options)}" for one in every if isinstance(one, Search)]
    return f"{' × '.join(counts)} on {', '.join(labels)}{''.join(first)}"
