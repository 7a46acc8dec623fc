"""A search in the store: a run for each candidate, its folds below it, and what the search's own run says of them."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from mlplab import labels, marks, search, search_figures, seed_group, tables
from mlplab.building import restored
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.records import Candidate, SearchResult, choice_text
from mlplab.results import FAILED, Result
from mlplab.seed_group import SeedGroup
from mlplab.space import Search
from mlplab.spec import Metric, Training
from mlplab.store.runs import Run
from mlplab.trial import Device, ProgressListener
from mlplab.workload import WINNER


def run_search(
    spec: Search,
    data: Dataset,
    device: Device,
    run: Run,
    watching: Callable[[Sequence[Training]], AbstractContextManager[ProgressListener]],
    jobs: int,
    address: str | None,
) -> SearchResult:
    """Searches in `run`; candidates and folds that are on record are not trained again.

    Args:
        watching: begins to show the candidates, and ends it.
        jobs, address: where folds are trained, see `mlplab.cluster.workers`.
    """
    run.data(data)
    run.text(spec.to_json(), "search.json")
    variants = search.candidates(spec)
    with watching([*variants, spec.base.but(name=WINNER)]) as watch:
        trainer = _Trainer(spec, variants, data, device, run, watch)
        try:
            with trainer.spreading(jobs, address) if jobs > 1 or address is not None else contextlib.nullcontext():
                done = search.random_search(spec, data, trainer, trainer.seconds)
        except RuntimeError:
            if not trainer.failed:
                raise
            raise RuntimeError(
                f"all {len(variants)} candidates failed in at least one fold. The first:\n{trainer.failed}"
            ) from None
    scoring = spec.scoring or ("accuracy" if data.classes else "r2")
    found = SearchResult(candidates=trainer.candidates, refit=done.refit, validation=trainer.validated, scoring=scoring)
    best = found.best
    run.text(_columns(done.cv_results), "cv_results.csv")
    run.figure(search_figures.parallel(found, data.label), "parallel_coordinates.png")
    run.figure(search_figures.slices(found, data.label), "slices.png")
    run.figure(search_figures.budget(found, data.label), "budget.png")
    run.params({f"best.{name}": choice_text(value) for name, value in best.choices.items()})
    run.metrics({"mean_score": best.mean, "std_score": best.std})  # as each candidate's run has it
    run.metrics({f"refit_test_{k}": v for k, v in done.refit.test.items()})
    run.metrics({f"refit_{k}": v for k, v in found.validation.items()})
    table = tables.markdown(tables.search_cells(found))
    says = ", ".join(f"{name} {choice_text(value)}" for name, value in best.choices.items())
    answer = f"Best of {len(variants)} candidates by mean score over {spec.folds} folds: {says}."
    raced = f"{found.raced} " if found.raced else ""
    note = f"{answer}\n\n{table}\n**{spec.question}**\n\n{raced}Data: {data.label}."
    run.tags({"mlflow.note.content": note, "answer": answer})
    run.file("model.keras", done.model.save)
    leads = {**labels.of_data(data), "experiment": spec.name, "run_id": run.run_id}
    run.model(done.model, data, leads)
    return found


def _columns(cv_results: Mapping[str, Any]) -> str:
    """scikit-learn's `cv_results_` as CSV, a row a candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cv_results)
    # Masked is what does not apply to a candidate.
    columns = [np.ma.filled(np.ma.asarray(values).astype(object), "") for values in cv_results.values()]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


class _Trainer:
    """A `search.Trainer` that trains a candidate's folds as a comparison trains a variant's seeds, and records them.

    Attributes:
        candidates: in the order they were drawn, as far as they are known.
        failed: the traceback of the first fold that failed, "" where none did.
        validated: the winner's metrics on the validation set, after its training on all training examples.
    """

    def __init__(
        self,
        spec: Search,
        variants: Sequence[Training],
        data: Dataset,
        device: Device,
        run: Run,
        watch: ProgressListener,
    ) -> None:
        self.spec, self.variants, self.data = spec, variants, data
        self.device, self.run, self.watch = device, run, watch
        self.seeds = tuple(range(spec.seed, spec.seed + spec.folds))
        self.comparison = Comparison(
            name=spec.name,
            question=spec.question,
            data=spec.data,
            base=spec.base,
            variants={v.name: {**spec.choices(v), "splits": v.splits} for v in variants},
            # A candidate is judged after its last epoch; see `trial.train`.
            select=Metric("loss"),
            seeds=self.seeds,
        )
        self.prints = [labels.candidate_fingerprint(spec, v.but(splits="fixed"), data) for v in variants]
        self.candidates: list[Candidate] = []
        self.groups: list[SeedGroup | None] = []
        for variant, fingerprint in zip(variants, self.prints, strict=True):
            known = self._recorded(variant, fingerprint)
            unknown = Candidate(choices=spec.choices(variant), scores=[math.nan] * spec.folds)
            self.candidates.append(known or unknown)
            if known:
                watch.scored(variant.name, known.mean)
            group = None
            if known is None:
                group = SeedGroup.open(run, variant, self.comparison, data)
                assert group.run is not None
                unknown.run_id = group.run.run_id
            self.groups.append(group)
        self.failed = ""
        self.validated: dict[str, float] = {}
        self._over = {place for place, group in enumerate(self.groups) if group is None}
        self._carry_out: Callable[[Sequence[tuple[SeedGroup, int]]], None] | None = None

    def _recorded(self, variant: Training, fingerprint: str) -> Candidate | None:
        """The candidate as it is on record: in a process before this one, or in another search."""
        if kept := self.run.recall(variant.name, "candidate"):
            return Candidate.from_dict(kept[0])
        if found := self.run.find(fingerprint):
            known = Candidate.from_dict(json.loads(found.tags["mlplab.candidate"]))
            own = {"mlplab.experiment": self.spec.name, "mlplab.variant": variant.name}
            self.run.copy_run(variant.name, found, own)
            return known
        return None

    @contextlib.contextmanager
    def spreading(self, jobs: int, address: str | None) -> Iterator[None]:
        """Has workers train every fold that has not been trained; or in a race, within the block, what is `ahead`."""
        self.run.tags({labels.LOAD: labels.SHARED})
        turns = [(group, seed) for group in self.groups if group is not None for seed in self.seeds]
        with seed_group.spreading(self.comparison, self.data, self.watch, jobs, address) as self._carry_out:
            if self.spec.race:
                yield
            else:
                self._carry_out(turns)
        if not self.spec.race:
            yield

    def ahead(self, places: Sequence[int], fold: int) -> None:
        """As `search.Trainer`."""
        if self._carry_out is not None:
            groups = [group for place in places if (group := self.groups[place]) is not None]
            self._carry_out([(group, self.seeds[fold - 1]) for group in groups])

    def fold(self, place: int, fold: int) -> Result:
        """As `search.Trainer`."""
        group, seed = self.groups[place], self.seeds[fold - 1]
        assert group is not None
        results = {result.seed: result for result, _ in group.trained}
        if seed not in results:
            group.train([seed], self.device, self.watch)
            results = {result.seed: result for result, _ in group.trained}
        result = results[seed]
        if result.status == FAILED:
            self.failed = self.failed or result.error
            self.scored(place, fold, math.nan)
            raise RuntimeError(result.error)
        return result

    def known(self, place: int, fold: int) -> float | None:
        """As `search.Trainer`."""
        return self.candidates[place].scores[fold - 1] if self.groups[place] is None else None

    def scored(self, place: int, fold: int, score: float) -> None:
        """As `search.Trainer`; with the last fold's the candidate is over."""
        candidate, group = self.candidates[place], self.groups[place]
        assert group is not None
        assert group.run is not None
        candidate.scores[fold - 1] = score
        group.run.metrics({"fold_score": score}, step=fold)
        if fold == self.spec.folds:
            self.over(place)

    def over(self, place: int) -> None:
        """As `search.Trainer`."""
        if place in self._over:
            return
        self._over.add(place)
        candidate, group = self.candidates[place], self.groups[place]
        assert group is not None
        assert group.run is not None
        if self.spec.race and len(group.trained) < self.spec.folds:
            del candidate.scores[len(group.trained) :]
            had = f"after {len(group.trained)} of {self.spec.folds} folds"
            said = f"Clearly worse than the leader {had}: dropped."
            group.run.tags({"mlflow.note.content": said if math.isfinite(candidate.mean) else f"Failed {had}."})
        candidate.train_seconds = sum(result.train_seconds for result, _ in group.trained)
        group.run.metrics({"mean_score": candidate.mean, "std_score": candidate.std})
        # Not train_seconds: under that name the run has the folds' mean.
        group.run.metrics({"all_folds_seconds": candidate.train_seconds})
        if len(candidate.scores) == self.spec.folds and all(map(math.isfinite, candidate.scores)):
            group.run.tags({"mlplab.kind": "candidate", "mlplab.candidate": json.dumps(candidate.to_dict())})
            group.run.tags(marks.fingerprinted(self.prints[place]))
            group.run.keep("candidate", candidate.to_dict())
        group.conclude()
        self.watch.scored(self.variants[place].name, candidate.mean)

    def seconds(self, place: int) -> float:
        """Seconds of training of a candidate, over its folds."""
        return self.candidates[place].train_seconds

    def best(self, place: int) -> tuple[Result, keras.Model]:
        """As `search.Trainer`: trained as a comparison's variant is, with curves and the epoch picked by them."""
        if not any(math.isfinite(candidate.mean) for candidate in self.candidates):
            raise RuntimeError("no candidate is left to be trained on all examples.")
        winner = self.variants[place].but(splits="fixed", name=WINNER)
        comparison = replace(
            self.comparison,
            variants={winner.name: self.spec.choices(winner)},
            select=Metric("val_loss"),
            seeds=(self.spec.seed,),
        )
        group = SeedGroup.open(self.run, winner, comparison, self.data)
        group.train([self.spec.seed], self.device, self.watch)
        ((result, _),) = group.trained
        if result.status == FAILED:
            raise RuntimeError(result.error)
        self.validated = {name: result.best(name) for name in result.history if name.startswith("val_")}
        return result, restored(result, self.data)
