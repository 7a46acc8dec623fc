"""A search in the store: a run for each candidate, and what the search's own run says of them."""

import csv
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np

from mlplab import cluster, figures, labels, results, search, search_figures, tables, tracking, training
from mlplab.data import Dataset
from mlplab.records import Candidate, SearchResult
from mlplab.results import FAILED, Result
from mlplab.seed_group import means_of
from mlplab.spec import Search, Variant
from mlplab.trial import Device, Watch


def run_search(
    spec: Search,
    data: Dataset,
    device: Device,
    run: tracking.Run,
    watching: Callable[[Sequence[Variant]], AbstractContextManager[Watch]],
    jobs: int,
    address: str | None,
) -> SearchResult:
    """Searches in `run`; candidates and folds that are on record are not trained again.

    Args:
        watching: begins to show the candidates, and ends it.
        jobs, address: where folds are trained, see `mlplab.cluster.workers`.
    """
    run.tags({**labels.of_data(data), **tracking.fingerprinted(labels.fingerprint(spec, data))})
    run.data(data)
    run.text(spec.to_json(), "search.json")
    shared = jobs > 1 or address is not None
    if shared:
        run.tags({labels.LOAD: labels.SHARED})
    variants = search.candidates(spec)
    finished: dict[str, Candidate] = {}
    begun: dict[str, dict[int, search.Scored]] = {}
    prints = {variant.name: labels.candidate_fingerprint(spec, variant, data) for variant in variants}
    for variant in variants:
        if kept := run.recall(variant.name, "candidate"):
            finished[variant.name] = Candidate(**kept[0])
        elif found := run.find(prints[variant.name]):
            finished[variant.name] = Candidate(**json.loads(found.tags["mlplab.candidate"]))
            run.twin(variant.name, found, {"mlplab.experiment": spec.name})
        else:
            kept_folds = {fold: run.kept(_fold_of(variant, fold)) for fold in range(1, spec.folds + 1)}
            begun[variant.name] = {n: search.Scored(**kept[0]) for n, kept in kept_folds.items() if kept}
    with watching([_over_folds(variant, spec) for variant in variants]) as watch:
        journal = _Journal(spec, data, run, prints, watch, shared)
        x, y = data.train.x, data.train.y
        if shared:
            reference = cluster.Reference.to(data, device)
            x, y = reference.array("train", "x"), reference.array("train", "y")
        done = search.random_search(
            *(spec, x, y, data.classes, journal),
            finished=finished,
            begun=begun,
            jobs=jobs,
            address=address,
        )
    refit = done.refit
    refit.test = training.evaluate(done.model, *device.test, training.EVALUATION_BATCH)
    validated = training.evaluate(done.model, *device.validation, training.EVALUATION_BATCH)
    found_all = SearchResult(candidates=done.candidates, refit=refit, validation=validated)
    best = found_all.best
    run.text(_columns(done.cv_results), "cv_results.csv")
    run.figure(search_figures.parallel(found_all, data.label), "parallel_coordinates.png")
    run.figure(search_figures.slices(found_all, data.label), "slices.png")
    run.figure(search_figures.budget(found_all, data.label), "budget.png")
    run.figure(figures.learning_curves(refit, data.label), "learning_curves.png")
    run.params({f"best.{name}": value for name, value in best.choices.items()})
    run.metrics({"best_score": best.mean, "best_score_std": best.std})
    run.metrics({f"refit_test_{k}": v for k, v in refit.test.items()})
    run.metrics({f"refit_val_{k}": v for k, v in validated.items()})
    table = tables.markdown(tables.search_cells(found_all))
    says = ", ".join(f"{name} {results.choice_text(value)}" for name, value in best.choices.items())
    verdict = f"Best of {len(done.candidates)} candidates by mean accuracy over {spec.folds} folds: **{says}**."
    run.tags({"mlflow.note.content": f"**{spec.question}**\n\n{table}\n{verdict} Data: {data.label}."})
    run.file("model.keras", done.model.save)
    leads = {**labels.of_data(data), "experiment": spec.name, "run_id": run.run_id}
    run.model(done.model, data.test.x[:2].astype(np.float32), data.classes, leads)
    return found_all


def _columns(cv_results: Mapping[str, Any]) -> str:
    """scikit-learn's `cv_results_` as CSV, a row a candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cv_results)
    # Masked is what does not apply to a candidate.
    columns = [np.ma.filled(np.ma.asarray(values).astype(object), "") for values in cv_results.values()]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _over_folds(candidate: Variant, spec: Search) -> Variant:
    """A candidate as it is shown while it runs: its folds' epochs counted on."""
    return candidate.but(epochs=min(candidate.epochs * spec.folds, 100_000))


def _fold_of(candidate: Variant, fold: int) -> str:
    """Under which name the search's run keeps a fold of a candidate that is not finished."""
    return f"{candidate.name} fold {fold}"


class _Journal:
    """Records the candidates of a search, each in a run from its first fold's start to its last fold's end.

    It is this process that writes the runs, wherever the folds are trained.
    """

    def __init__(
        self,
        spec: Search,
        data: Dataset,
        parent: tracking.Run,
        prints: Mapping[str, str],
        watch: Watch,
        shared: bool = False,
    ) -> None:
        self.spec, self.data, self.parent, self.prints, self.watch = spec, data, parent, prints, watch
        self._tags = {"mlplab.experiment": spec.name, "mlplab.kind": "candidate", **labels.of_data(data)}
        self._tags |= {labels.LOAD: labels.SHARED} if shared else {}
        self._open: dict[str, tuple[tracking.Run, Result]] = {}
        self._folds: dict[str, dict[int, search.Scored]] = {}
        self._lock = threading.RLock()

    def started(self, candidate: Variant) -> None:
        """Creates the candidate's run."""
        with self._lock:
            params = {**candidate.params(), "seed": self.spec.seed, "folds": self.spec.folds, "dataset": self.data.name}
            run = self.parent.child(candidate.name, params, self._tags, self.data)
            result = Result(variant=_over_folds(candidate, self.spec), run_id=run.run_id)
            self._open[candidate.name] = run, result
            fold = len(self.data.train) * (self.spec.folds - 1) // self.spec.folds
            result.steps_per_epoch = candidate.steps_per_epoch(fold)
            self.watch.started(result)

    def epoch(self, candidate: Variant, fold: int, epoch: int, values: dict[str, float]) -> None:
        """Shows an epoch of a fold; it is recorded with the fold."""
        with self._lock:
            _, result = self._open[candidate.name]
            result.add(values)
            self.watch.epoch(result)

    def scored(self, candidate: Variant, fold: int, found: "search.Scored") -> None:
        """Records a fold's score, at the fold's number, and keeps the fold for when the command has to go on."""
        with self._lock:
            if not found.error:
                self.parent.keep(_fold_of(candidate, fold), asdict(found))
            run, _ = self._open[candidate.name]
            run.metrics({"fold_score": found.score}, step=fold)
            self._folds.setdefault(candidate.name, {})[fold] = found

    def ended(self, candidate: Variant, found: Candidate, error: str = "") -> None:
        """Records what the folds came to, and ends the run: the means of their epochs as curves, each in folds.json."""
        with self._lock:
            run, result = self._open.pop(candidate.name)
            found.run_id = run.run_id
            folds = self._folds.pop(candidate.name, {})
            for epoch, values in enumerate(zip_longest(*(folds[fold].epochs for fold in sorted(folds))), start=1):
                means = means_of([each for each in values if each])
                run.metrics({name: means[name] for name in ("loss", "accuracy") if name in means}, step=epoch)
            run.text(json.dumps({fold: asdict(folds[fold]) for fold in sorted(folds)}, indent=2), "folds.json")
            run.metrics({"mean_score": found.mean, "std_score": found.std, "train_seconds": found.train_seconds})
            if error:
                result.status, result.error = FAILED, error
                run.text(error, "traceback.txt")
            else:
                run.tags({"mlplab.candidate": json.dumps(asdict(found))})
                run.tags(tracking.fingerprinted(self.prints[candidate.name]))
                run.keep("candidate", asdict(found))
            run.finish("FAILED" if error else "FINISHED")
            self.watch.ended(result)
