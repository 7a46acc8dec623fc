"""The random search against scikeras' own, on the same candidates and folds: ratios measured in one run.

Usage: python benchmarks/search.py [--candidates N] [--folds N] [--epochs N] [--repetitions N]

The experiment `random_search` on CIFAR-10's training images, with fewer candidates, folds and epochs by default: MLP
3072-128-64-10, learning rate, dropout and batch size drawn. Both run scikit-learn's `RandomizedSearchCV` with equal
seeds, so that candidates and folds are equal, and train the winner anew. Stock is `scikeras.wrappers.KerasClassifier`
at its defaults, silent, on float32 images from 0 to 1. `tracked` is the experiment's whole run on a sqlite store: a run
for each candidate, the curves of its folds, tables, figures, the logged model, until all is delivered. A contender has
a process of its own for each repetition, and they take turns. What is timed is the whole search without loading data
and importing. mlplab's compiling is part of it, as for a user's first search: the cache of compiled programs is off; it
is said apart as well.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from quiet import Quiet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlplab import backend, folds
from mlplab.data import Dataset, load
from mlplab.loading import Options, load_experiment
from mlplab.results import Result
from mlplab.space import Search
from mlplab.spec import Metric, Training

TARGET = 5.0
OVERHEAD_TARGET = 0.03
Answer = dict[str, Any]


HIDDEN = (128, 64)


class Untracked:
    """A `mlplab.search.Trainer` that keeps nothing but the trainings."""

    def __init__(self, search: Search, data: Dataset) -> None:
        from mlplab.search import candidates

        self.search, self.data, self.drawn = search, data, candidates(search)
        self.trained: list[tuple[int, Result]] = []

    def fold(self, place: int, fold: int) -> Result:
        """Trains a candidate on all folds but one."""
        result, _ = self._train(place, self.drawn[place], self.search.seed + fold - 1, Metric("loss"))
        return result

    def known(self, place: int, fold: int) -> float | None:
        """Nothing is on record."""
        return None

    def scored(self, place: int, fold: int, score: float) -> None:
        """Nothing."""

    def ahead(self, places: Sequence[int], fold: int) -> None:
        """Nothing."""

    def over(self, place: int) -> None:
        """Nothing."""

    def best(self, place: int) -> tuple[Result, Any]:
        """Trains the winner on all training examples."""
        return self._train(place, self.drawn[place].but(splits="fixed"), self.search.seed, Metric("val_loss"))

    def seconds(self, place: int) -> float:
        """Seconds of training of a candidate, over its folds."""
        return sum(result.train_seconds for owner, result in self.trained if owner == place)

    def _train(self, place: int, variant: Training, seed: int, metric: Metric) -> tuple[Result, Any]:
        from mlplab import trial

        data = folds.for_seed(variant, self.data, seed)
        result = Result(variant=variant, seed=seed)
        (model,) = trial.train([result], metric, data, trial.Device.of(data), lambda result: None)
        self.trained.append((place, result))
        return result, model


def mlplab_search(search: Search, data: Dataset) -> Answer:
    """`mlplab.search.random_search`."""
    from mlplab.search import random_search

    started = time.perf_counter()
    trainer = Untracked(search, data)
    found = random_search(search, data, trainer, trainer.seconds)
    return {
        "seconds": time.perf_counter() - started,
        "compile": sum(result.compile_seconds for _, result in trainer.trained),
        "train": sum(result.train_seconds for _, result in trainer.trained),
        "params": [search.choices(candidate) for candidate in trainer.drawn],
        "scores": [float(np.mean(scores)) for scores in found.scores],
    }


def stock_search(search: Search, data: Dataset) -> Answer:
    """scikeras and Keras as their manuals have them."""
    import keras
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold

    x, y, classes = data.train.x, data.train.y, data.classes

    def network(learning_rate: float, dropout: float) -> keras.Model:
        layers: list[Any] = [keras.Input((x.shape[1],))]
        for units in HIDDEN:
            layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(dropout)]
        model = keras.Sequential([*layers, keras.layers.Dense(classes, activation="softmax")])
        model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    classifier = KerasClassifier(network, learning_rate=0.01, model__dropout=0.0, epochs=search.base.epochs, verbose=0)
    searching = RandomizedSearchCV(
        classifier,
        {name.replace(".", "__"): list(values) for name, values in search.space.items()},
        n_iter=search.candidates,
        random_state=search.seed,
        cv=StratifiedKFold(search.folds, shuffle=True, random_state=search.seed),
        error_score="raise",
    )
    images = x / np.float32(255)
    started = time.perf_counter()
    searching.fit(images, y)
    seconds = time.perf_counter() - started
    results = searching.cv_results_
    params = [{name.replace("__", "."): value for name, value in drawn.items()} for drawn in results["params"]]
    return {"seconds": seconds, "params": params, "scores": results["mean_test_score"].tolist()}


def tracked_search(search: Search, data: Dataset) -> Answer:
    """The whole experiment, recorded in a store of its own, which is opened before the clock starts."""
    import mlflow

    from mlplab import run

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.search_experiments()
        lab = run.Lab(lambda wanted: data, Quiet(), Options())
        started = time.perf_counter()
        record, _, _ = lab.run(search)
        seconds = time.perf_counter() - started
    assert record.search is not None
    params = [candidate.choices for candidate in record.search.candidates]
    return {"seconds": seconds, "params": params, "scores": [candidate.mean for candidate in record.search.candidates]}


CONTENDERS = {"mlplab, tracked": tracked_search, "mlplab": mlplab_search, "scikeras": stock_search}


def searched(candidates: int, folds: int, epochs: int) -> Search:
    """The experiment, as small as this."""
    experiment = load_experiment("random_search")
    assert isinstance(experiment, Search)
    return dataclasses.replace(experiment.with_base(epochs=epochs), candidates=candidates, folds=folds)


def contend(name: str, size: tuple[int, int, int], pipe: Connection) -> None:
    """A contender's process: loads, imports, warms up what is once a process, searches, and answers."""
    search = searched(*size)
    data = load(search.data)
    with backend.settings():  # as a command has them
        import tensorflow as tf

        tf.random.normal((1_000, 1_000)) @ tf.random.normal((1_000, 1_000))
        pipe.send(CONTENDERS[name](search, data) | {"data": data.label})


def measure(name: str, size: tuple[int, int, int]) -> Answer:
    """One search in a process of its own."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=contend, args=(name, size, other), daemon=True)
    process.start()
    other.close()
    try:
        answer: Answer = pipe.recv()
    except EOFError:
        sys.exit(f"the process of {name!r} died; its last lines are above. Out of memory? Nothing more is measured.")
    process.join()
    return answer


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--candidates", type=int, default=3, help="how many are drawn (default: %(default)s)")
    parser.add_argument("--folds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=5, help="of each training (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=1, help="turns of each contender (default: %(default)s)")
    options = parser.parse_args()
    size = options.candidates, options.folds, options.epochs
    search = searched(*size)

    os.environ["TF_XLA_FLAGS"] = "--tf_xla_persistent_cache_directory="  # no cache of compiled programs
    answers: dict[str, list[Answer]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repetitions):
        for name in CONTENDERS:
            answers[name].append(measure(name, size))
    ours, theirs, tracked = answers["mlplab"], answers["scikeras"], answers["mlplab, tracked"]
    if any(answer["params"] != ours[0]["params"] for answer in ours + theirs + tracked):
        sys.exit("the contenders drew different candidates; the comparison says nothing.")

    def median(each: list[Answer], name: str) -> float:
        return statistics.median(answer[name] for answer in each)

    total, compiling = median(ours, "seconds"), median(ours, "compile")
    trainings = search.candidates * search.folds + 1
    print(
        f"{search.candidates} candidates, {search.folds} folds and the winner anew: {trainings} trainings of "
        f"{options.epochs} epochs on {ours[0]['data']}; medians of {options.repetitions}.\n"
    )
    print("| search | seconds | of it compiling | of it training | times faster | target | |")
    print("|---|---:|---:|---:|---:|---:|---|")
    print(f"| mlplab | {total:.1f} | {compiling:.1f} | {median(ours, 'train'):.1f} | | | |")
    ratio = median(theirs, "seconds") / total
    overhead = median(tracked, "seconds") / total - 1
    verdict = "pass" if overhead <= OVERHEAD_TARGET else "FAIL"
    aim = f"≤ {OVERHEAD_TARGET:+.0%} | {verdict}"
    print(f"| mlplab, tracked | {median(tracked, 'seconds'):.1f} | | | {overhead:+.1%} | {aim} |")
    verdict = "pass" if ratio >= TARGET else "FAIL"
    print(f"| scikeras and Keras | {median(theirs, 'seconds'):.1f} | | | {ratio:.2f} | ≥ {TARGET:g} | {verdict} |\n")
    print("| candidate | mlplab's accuracy | scikeras' |\n|---|---:|---:|")
    for params, mine, stock in zip(ours[0]["params"], ours[0]["scores"], theirs[0]["scores"], strict=True):
        print(f"| {', '.join(f'{name} {value}' for name, value in params.items())} | {mine:.4f} | {stock:.4f} |")


if __name__ == "__main__":
    main()
