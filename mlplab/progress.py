"""How far a command is: a line a variant and a bar over all trainings, or where that is no terminal a line at times."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from rich import progress
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mlplab import tables
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.folds import fold_number, is_trial
from mlplab.layout import table
from mlplab.results import FAILED, FINISHED, PRUNED, Result
from mlplab.space import Search
from mlplab.spec import Metric, Training
from mlplab.workload import CANDIDATES, Phase, Work, phases_of, seconds_left

PLAIN_LINE_SECONDS = 5.0
"""Least time between two lines where the output is no terminal; in a long command a fiftieth of the time gone."""


class Progress:
    """A `run.ProgressListener` for people, of a whole command.

    Args:
        phases: what the command will do, as far as that is known.
        clock: seconds.
    """

    def __init__(self, out: Console, phases: Sequence[Phase] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.out, self.phases, self._clock = out, list(phases), clock
        self._lock = threading.RLock()
        self._begun = self._printed = clock()
        self.since: float | None = None  # when the first training began
        self._phase = Phase("", "seeds", {}, closed=True)
        self._latest: dict[str, Result] = {}
        self._metric: Metric | None = None
        self._best: dict[str, float] = {}
        self._scored: dict[str, int] = {}
        self._wide = 0
        self._live: Live | None = None
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(None),
            progress.TaskProgressColumn(),
            progress.TextColumn("{task.fields[left]}"),
            expand=True,
            console=out,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", left="")

    def watching(
        self, experiment: Comparison | Search, data: Dataset, variants: Sequence[Training]
    ) -> "contextlib.AbstractContextManager[Progress]":
        """Shows the trainings of an experiment on one data set."""
        metric = experiment.metric if isinstance(experiment, Comparison) else None
        return self.phase(_phase(experiment, len(data.train), variants), metric)

    @contextlib.contextmanager
    def phase(self, phase: Phase, metric: Metric | None = None) -> Iterator["Progress"]:
        """Shows the trainings of one phase; what is left of it when the block ends is not wanted.

        Args:
            metric: shown beside the loss; by default the first that is logged.
        """
        with self._lock:
            places = [i for i, one in enumerate(self.phases) if (one.name, one.kind) == (phase.name, phase.kind)]
            for one in self.phases[: places[0]] if places else ():
                one.closed = True
            place = places[0] if places else len(self.phases)
            self.phases[place : place + 1] = [phase]
            self._phase, self._metric = phase, metric
            self._latest, self._best, self._scored, self._wide = {}, {}, {}, 0
            begun = self._clock()
        with self._shown():
            yield self
            with self._lock:
                phase.closed = True
        done, known = (sum(getattr(work, what) for work in phase.works.values()) for what in ("over", "known"))
        if done > known:
            what = {"trials": "Tuned by", "folds": "Searched by"}.get(phase.kind, "Done:")
            before = f", and {known:,} that were on record" if known else ""
            took = _clock_text(self._clock() - begun)
            self.out.print(f"{what} {done - known:,} training{'s' * (done - known > 1)} in {took}{before}.")

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        if not self.out.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.out, refresh_per_second=4) as self._live:
            yield
            self._live.transient = True  # where all went well the results take its place
        self._live = None

    def drop(self, name: str) -> None:
        """An experiment is on record: nothing of it is trained."""
        with self._lock:
            for phase in self.phases:
                if phase.name == name:
                    phase.closed = True

    # ---------------------------------------------------------------------------------------------------- what is told

    def started(self, result: Result) -> None:
        """A training begins."""
        with self._lock:
            work = self._work(result)
            first = not any(other.begun for other in self._phase.works.values())
            self.since = self._clock() if self.since is None else self.since
            work.begin(_key(result), self._clock())
            self._latest[work.name] = result
            self._tell(work, force=first)

    def recalled(self, result: Result) -> None:
        """A training was over before the command went on."""
        with self._lock:
            work = self._work(result)
            work.recall()
            self._note(work, result)

    def epoch(self, result: Result) -> None:
        """An epoch is over."""
        with self._lock:
            work = self._work(result)
            work.epoch(_key(result), result.epochs - result.resumed_at, self._clock())
            self._latest[work.name] = result
            self._tell(work)

    def ended(self, result: Result) -> None:
        """A training is over; one that failed is shown in full."""
        with self._lock:
            work = self._work(result)
            status = "" if result.status in (FINISHED, PRUNED) else result.status
            work.end(_key(result), status, self._clock())
            self._note(work, result)
            if result.status == FAILED:
                self.out.print(f"{_named(result, self._phase)} failed:\n{result.error}", style="red")
            self._tell(work)

    def scored(self, candidate: str, mean: float) -> None:
        """A candidate of a search gets no further folds, and has this mean score."""
        with self._lock:
            work = self._phase.works[CANDIDATES]
            work.recall(self._phase.folds - self._scored.get(candidate, 0))
            if not mean <= self._best.get(CANDIDATES, -math.inf):
                self._best[CANDIDATES] = mean

    def _note(self, work: Work, result: Result) -> None:
        self._latest[work.name] = result
        if self._phase.kind == "folds":
            self._scored[result.variant.name] = self._scored.get(result.variant.name, 0) + 1
        if self._phase.kind == "trials" and (metric := self._metric):
            value, best = result.best(metric.name), self._best.get(work.name, math.nan)
            if math.isfinite(value) and not (math.isfinite(best) and not metric.better(value, best)):
                self._best[work.name] = value

    def _work(self, result: Result) -> Work:
        return _line(self._phase, result.variant)

    # ----------------------------------------------------------------------------------------------- what is to be seen

    def _tell(self, work: Work | None = None, force: bool = False) -> None:
        """Where the output is no terminal: a line, unless there was one just now."""
        now = self._clock()
        if self._live or (now - self._printed < max(PLAIN_LINE_SECONDS, (now - self._begun) / 50) and not force):
            return
        self._printed = now
        share, counted, left = self._overall()
        says = ""
        if work:
            values = [f"{head} {value}" for head, value in zip(self._heads(), self._values(work), strict=True)]
            says = ": " + ", ".join([work.name, self._doing(work), *(v for v in values if not v.endswith("–"))])
        self.out.print(f"{share:.0%} ({counted}){f', {left}' if left else ''}{says}")

    def _overall(self) -> tuple[float, str, str]:
        done, total = sum(phase.done for phase in self.phases), sum(phase.total for phase in self.phases)
        most = "up to " * any(phase.at_most and not phase.closed for phase in self.phases)
        seconds = math.nan if self.since is None else seconds_left(self.phases, self._clock(), self.since)
        left = f"{_clock_text(seconds)} left" if math.isfinite(seconds) and done < total else ""
        return done / total if total else 0.0, f"{done:,} of {most}{total:,} epochs", left

    def _render(self) -> RenderableType:
        with self._lock:
            share, counted, left = self._overall()
            self._bar.update(self._task, completed=100 * share, description=counted, left=left)
            works = list(self._phase.works.values())
            # Head, its line, and what is around; the bar; and what is said of those that do not fit.
            room = max(1, self.out.height - 7)
            shown = works
            if len(works) > room:
                shown = sorted(works, key=lambda work: (not work.running, work.over == work.trainings, not work.begun))
                shown = [work for work in works if work in shown[:room]]
            cells = [["variant", "trained", *self._heads()]]
            if self._phase.kind == "folds":
                cells[0][0] = "search"
            cells += [[work.name, self._doing(work), *self._values(work)] for work in shown]
            # The columns stay where they are.
            self._wide = max(self._wide, *(len(row[1]) for row in cells))
            for row in cells:
                row[1] = row[1].ljust(self._wide)
            # Of four numbers those of the training examples go first, of two the loss.
            order = {6: (2, 4, 3), 5: (2, 3), 4: (2,)}.get(len(cells[0]), ())
            parts: list[RenderableType] = [table(cells, texts=2, width=self.out.width, drop=order, says=False)]
            if hidden := len(works) - len(shown):
                over = sum(work.over == work.trainings for work in works if work not in shown)
                parts.append(Text(f"  … and {hidden} more: {over} done, {hidden - over} waiting", style="dim"))
            return Group(*parts, self._bar.get_renderable())

    def _heads(self) -> list[str]:
        if self._phase.kind == "folds":
            return ["best mean score"]
        if self._phase.kind == "trials":
            return [f"best {tables.heading(self._metric.name)}" if self._metric else "best"]
        return [tables.heading(name) for name in self._metrics()]

    def _values(self, work: Work) -> list[str]:
        if self._phase.kind != "seeds":
            return [tables.number_text(self._best.get(work.name, math.nan))]
        result = self._latest.get(work.name)
        return [tables.number_text(result.last(name)) if result else "–" for name in self._metrics()]

    def _metrics(self) -> list[str]:
        """What of the history is shown: the loss and the selection metric, of training and of validation."""
        logged = (name for result in self._latest.values() for name in tables.logged([result]))
        metric = self._metric.name.removeprefix("val_") if self._metric else ""
        names = dict.fromkeys(("loss", metric or next(logged, "loss")))
        return [*names, *(f"val_{name}" for name in names)]

    def _doing(self, work: Work) -> str:
        """How far a line's trainings are, such as `2/5 seeds, epoch 12/50`."""
        phase, result = self._phase, self._latest.get(work.name)
        one = work.running.get(_key(result)) if result else None
        if one is None and work.running:
            one = next(iter(work.running.values()))
        doing = []
        if one is not None:
            epochs = result.variant.epochs if result else work.epochs
            done = result.epochs if result and _key(result) in work.running else one.done
            doing = [f"epoch {done}/{epochs}" if one.done else "compiling"]
            doing[0] = f"{len(work.running)} at once, {doing[0]}" if len(work.running) > 1 else doing[0]
        ends = [f"{many} {status}" if work.trainings > 1 else status for status, many in work.ends.items()]
        if work.trainings == 1:
            over = ["done before" if work.known else "done"] * (work.over > 0 and not ends)
            return ", ".join([*doing, *over, *ends] or ["waiting"])
        most = phase.at_most and not phase.closed
        share = f"{work.over}{' of up to ' if most else '/'}{work.trainings}"
        counted = f"{share} seeds"
        if phase.kind == "trials":
            counted = f"trial {min(work.over + 1, work.trainings)}/{work.trainings}" if doing else ""
            counted = counted or f"{work.over}/{work.trainings} trials"
        elif phase.kind == "folds":
            counted = f"{share} folds"
            if doing and result:
                fold = fold_number(result.variant, result.seed)
                counted = f"{result.variant.name}/{phase.candidates}, fold {fold}/{phase.folds}"
        return ", ".join([counted, *doing, *ends])


def _key(result: Result) -> tuple[str, int]:
    return result.variant.name, result.seed


def _phase(experiment: Comparison | Search, examples: int, variants: Sequence[Training]) -> Phase:
    """What an experiment does next, as far as it is to be done."""
    # A comparison that is tuned is the same in both of its phases: what is trained tells them apart.
    phase = phases_of(experiment)[-1 if variants and not is_trial(variants[0]) else 0]
    phase.examples = examples
    if phase.kind == "seeds":  # what waited for the winner of a search may have turned out to be one of the others
        phase.works = {variant.name: phase.works[variant.name] for variant in variants}
    elif phase.kind == "trials":
        for work in phase.works.values():  # the others are on record
            work.recall(work.trainings - sum(_line(phase, variant) is work for variant in variants))
    return phase


def _line(phase: Phase, variant: Training) -> Work:
    """The line of a phase that a training is counted on."""
    name = variant.name
    if name in phase.works:
        return phase.works[name]
    if is_trial(variant):
        name = name.partition(": ")[2]  # a long one is cut off
        return next(work for work in phase.works.values() if work.name.startswith(name))
    return phase.works[CANDIDATES]


def _named(result: Result, phase: Phase) -> str:
    name, fold = result.variant.name, fold_number(result.variant, result.seed)
    if fold is not None:
        return f"{name}, fold {fold}"
    many = phase.kind == "seeds" and phase.works[name].trainings > 1
    return f"{name}, seed {result.seed}" if many else name


def _clock_text(seconds: float) -> str:
    """Seconds as a clock shows them.

    >>> _clock_text(200), _clock_text(3_930)
    ('3:20', '1:05:30')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
