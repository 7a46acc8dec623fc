"""What a tuned comparison promises: equal budgets, values drawn alike, examples and seeds that no verdict shares."""

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from test_run import InterruptedWhen, Quiet, artifacts, below, perform, read
from words import mlp

from mlplab import Comparison, Data, LogUniform, Training, Tune, Uniform, call, search_figures, tables, tuning
from mlplab.checks import UsageError
from mlplab.comparison import WinnerOf
from mlplab.data import Dataset, load
from mlplab.folds import for_seed
from mlplab.loading import Options, load_experiment
from mlplab.records import Record, Trial, Tuning
from mlplab.replay import read as read_training
from mlplab.replay import replay, training_of
from mlplab.results import FINISHED, PRUNED, Result
from mlplab.spec import Metric
from mlplab.statistics import best_band, expected_best

SPACE = {"learning_rate": LogUniform(1e-3, 1), "optimizer.momentum": Uniform(0.5, 0.95)}


TWO = {"SGD": {}, "Adam": {"optimizer": "adam"}}


def comparison(**changes: Any) -> Comparison:
    """SGD, momentum and Adam, three trials each."""
    values: dict[str, Any] = {
        "name": "tuned",
        "question": "Which optimizer is best?",
        "data": "digits",
        "base": mlp(hidden=(8,), epochs=3, batch_size=256),
        "variants": {"SGD": {"optimizer.momentum": 0.0}, "momentum": {}, "Adam": {"optimizer": "adam"}},
        "tune": Tune(SPACE, trials=3),
        "seeds": (7, 8),
    }
    return Comparison(**{**values, **changes})


# ------------------------------------------------------------------------------------------------------ the spec


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"tune": 16}, ["tune is 16", "Tune({'learning_rate': LogUniform(1e-4, 1)}"]),
        (
            {"tune": Tune({"optimizer.rho": [0.5, 0.9]}, 2)},
            ["variant 'SGD'", "nothing of tune's space", "optimizer.rho"],
        ),
        (
            {"tune": Tune({**SPACE, "optimizer.rho": [0.5, 0.9]})},
            ["optimizer.rho is in tune's space, but no variant takes it", "delete it from there"],
        ),
        ({"tune": Tune({"learning_rate": [0.1, 0.2]}, 3)}, ["variant 'SGD'", "trials is 3", "2 different ones"]),
        ({"tune": Tune({"learning_rate": Uniform(1, 200)}, 3)}, ["variant 'SGD'", "learning_rate is 200"]),
        ({"base": mlp(splits="resampled")}, ["splits is 'resampled'", "among those that tuned", "splits='fixed'"]),
        ({"variants": {"a": {}, "b": {}}}, ["variants 'a' and 'b' are equal"]),
    ],
)
def test_an_illegal_tuning_is_refused(changes: dict[str, Any], texts: list[str]) -> None:
    """What no variant takes, what one has nothing of, too few values and new splits are said with what is legal."""
    with pytest.raises(UsageError) as refusal:
        comparison(**changes)
    assert [text for text in texts if text not in str(refusal.value)] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"space": {}}, "space is {}"),
        ({"space": SPACE, "trials": 1}, "trials is 1; legal: a whole number from 2"),
        ({"space": SPACE, "halving": "yes"}, "halving is 'yes'"),
        ({"space": {"learning_rat": [1]}}, "Did you mean 'learning_rate'?"),
    ],
)
def test_a_tune_is_checked_by_itself(arguments: dict[str, Any], text: str) -> None:
    """An empty space, a single trial and an unknown choice are refused where they are written."""
    with pytest.raises(UsageError) as refusal:
        Tune(**arguments)
    assert text in str(refusal.value)


def test_json_gives_a_tuned_comparison_back() -> None:
    """With its space and, once it is tuned, with what was chosen; the latter differs from the former."""
    before = comparison(tune=Tune({**SPACE, "batch_size": [64, "full"], "model.hidden": [(8,), (8, 8)]}, 4))
    after = before.with_chosen({name: before.tune.draw(space, 0)[0] for name, space in before.spaces.items()})
    for one in (before, after):
        back = Comparison.from_json(one.to_json())
        assert back == one
        assert hash(back) == hash(one)
        assert back.resolved() == one.resolved()
    assert before != after
    assert "tune" not in json.loads(comparison(tune=None, variants={"a": {}}).to_json())


def test_what_a_variant_says_itself_is_not_drawn_for_it() -> None:
    """By a choice, within a call or for a part of it; what it does not take is left out, too."""
    found = comparison(
        tune=Tune({**SPACE, "optimizer.beta_1": [0.8, 0.9], "model.dropout": [0.0, 0.1]}, 2),
        variants={
            "by a choice": {"optimizer.momentum": 0.5},
            "within a call": {"optimizer": call("keras.optimizers.SGD", momentum=0.5), "model.dropout": 0.2},
            "rate": {"optimizer": "adam", "learning_rate": 0.5},
            "open": {},
        },
    ).spaces
    assert {name: list(space.values) for name, space in found.items()} == {
        "by a choice": ["learning_rate", "model.dropout"],
        "within a call": ["learning_rate"],
        "rate": ["optimizer.beta_1", "model.dropout"],
        "open": ["learning_rate", "optimizer.momentum", "model.dropout"],
    }


def test_only_some_variants_keep_what_is_drawn_for_them() -> None:
    """A choice that the others alone take is no mistake of those that are left."""
    assert set(comparison().only(["Adam"]).tune.space) == {"learning_rate"}
    assert comparison().only(["Adam", "momentum"]).tune.space == SPACE


def test_a_variant_that_waits_for_its_search_is_checked_when_it_is_known() -> None:
    """Until then no choice of the space is missed."""
    one = comparison(variants={"SGD": {"optimizer.momentum": 0.0}, "found": WinnerOf("hunt")})
    assert set(one.spaces) == {"SGD"}
    with pytest.raises(UsageError, match=r"optimizer.momentum is in tune's space, but no variant"):
        one.with_choices("found", {"optimizer": "adam"})


def test_the_seed_of_the_tuning_is_none_of_the_comparisons() -> None:
    """It is the first from 0 on that is not among them."""
    assert comparison().tuning_seed == 0
    assert comparison(seeds=(0, 1, 3)).tuning_seed == 2


def test_a_command_changes_a_tuned_comparison() -> None:
    """A first look takes two trials; epochs change but where they are drawn; other seeds leave the tuning as it was."""
    assert Options(smoke=True).adapt(comparison()).tune.trials == 2
    assert [v.epochs for v in Options(epochs=9).adapt(comparison()).resolved()] == [9, 9, 9]
    assert Options(seeds=5).adapt(comparison()).tuning_seed == comparison().tuning_seed


def test_a_verdict_names_its_budget() -> None:
    """Tuned variants' number of trials; the settings that they were given where they are not tuned."""
    assert comparison().budget == "at 3 trials each"
    assert comparison(tune=None, variants={"SGD": {}, "Adam": {"optimizer": "adam"}}).budget == "at these settings"


# ---------------------------------------------------------------------------------------------------- the drawing


def test_variants_are_drawn_alike() -> None:
    """What variants share has the same value in each trial, in this process and in another; no two trials are equal."""
    tuned = comparison(tune=Tune(SPACE, 5))
    drawn = {name: tuned.tune.draw(space, 0) for name, space in tuned.spaces.items()}
    rates = [[trial["learning_rate"] for trial in drawn[name]] for name in ("SGD", "momentum", "Adam")]
    assert rates[0] == rates[1] == rates[2]
    assert len(set(rates[0])) == 5
    assert [set(trial) for trial in drawn["momentum"]] == [set(SPACE)] * 5
    assert [set(trial) for trial in drawn["SGD"]] == [{"learning_rate"}] * 5
    code = (
        "from mlplab import *; from words import mlp; "
        "one = Comparison(question='?', data='digits', base=mlp(), variants={'a': {}}, select='val_loss', "
        "tune=Tune({'learning_rate': LogUniform(1e-3, 1)}, 5)); "
        "print(*[t['learning_rate'] for t in one.tune.draw(one.spaces['a'], 0)])"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [float(rate) for rate in there.stdout.split()] == rates[0]
    assert tuned.tune.draw(tuned.spaces["SGD"], 1) != drawn["SGD"]


def test_lists_are_drawn_until_all_are_different() -> None:
    """As many trials as there are values are all of them, once each."""
    tuned = comparison(variants=TWO, tune=Tune({"batch_size": [16, 32, 64], "optimizer.nesterov": [True, False]}, 3))
    assert sorted(t["batch_size"] for t in tuned.tune.draw(tuned.spaces["Adam"], 0)) == [16, 32, 64]
    pairs = [tuple(trial.values()) for trial in tuned.tune.draw(tuned.spaces["SGD"], 0)]
    assert len(set(pairs)) == 3


def test_draws_fill_the_space() -> None:
    """Of n trials one is in each n-th of the magnitudes; whole numbers are whole; a list's values have equal shares."""
    space = {"learning_rate": LogUniform(1e-4, 1), "batch_size": Uniform(1, 4), "model.dropout": [0.0, 0.5]}
    tuned = comparison(variants=TWO, tune=Tune(space, 40))
    for seed in (0, 1):
        drawn = tuned.tune.draw(tuned.spaces["SGD"], seed)
        powers = np.log10([trial["learning_rate"] for trial in drawn])
        assert (np.histogram(powers, bins=40, range=(-4, 0))[0] == 1).all()
        assert {type(trial["batch_size"]) for trial in drawn} == {int}
        assert np.bincount([trial["batch_size"] for trial in drawn]).tolist() == [0, 10, 10, 10, 10]
        assert sum(trial["model.dropout"] for trial in drawn) == 10
        assert abs(np.corrcoef(powers, [trial["model.dropout"] for trial in drawn])[0, 1]) < 0.5


# ------------------------------------------------------------------------------------------------------- the data


def rows(split: Any) -> set[bytes]:
    """The examples of a split, by their content."""
    x = split.x["left"] if isinstance(split.x, dict) else split.x
    return {np.ascontiguousarray(row).tobytes() for row in x}


def numbered() -> Any:
    """Examples that all differ, of two inputs."""
    x = np.arange(300, dtype="float32").reshape(100, 3)
    return {"left": x, "right": x}, np.arange(100) % 2


def families() -> dict[str, Any]:
    return {"x": np.arange(300.0).reshape(100, 3), "y": np.arange(100) % 2, "groups": np.arange(100) // 5}


@pytest.mark.parametrize("source", [numbered, families])
def test_trials_are_scored_on_examples_that_no_verdict_sees(source: Any) -> None:
    """They are a fifth of the training examples, and neither trained on nor among those of validation and test."""
    data = load(Data(source))
    cut = for_seed(Training(splits="tuning:0"), data, 7)
    assert rows(cut.train) | rows(cut.validation) == rows(data.train)
    assert not rows(cut.validation) & (rows(cut.train) | rows(data.validation) | rows(data.test))
    assert len(cut.validation) == pytest.approx(len(data.train) / 5, abs=5)
    if data.groups is not None:
        groups = {row.tobytes(): int(row[0]) // 15 for row in np.asarray(data.train.x)}
        assert not {groups[row] for row in rows(cut.train)} & {groups[row] for row in rows(cut.validation)}


def test_the_part_is_the_same_for_all_trials_and_has_its_share_of_each_class(dataset: Dataset) -> None:
    """Whatever the seed of a training; another seed of the tuning cuts otherwise."""
    parts = [for_seed(Training(splits="tuning:0"), dataset, seed) for seed in (0, 9)]
    assert rows(parts[0].validation) == rows(parts[1].validation)
    assert rows(for_seed(Training(splits="tuning:1"), dataset, 0).validation) != rows(parts[0].validation)
    shares = [np.bincount(split.y) / len(split) for split in (parts[0].train, parts[0].validation)]
    np.testing.assert_allclose(*shares, atol=0.01)


def rare() -> Any:
    return np.arange(90.0).reshape(30, 3), np.array([0] * 24 + [1] * 6)


def test_data_that_cannot_be_cut_are_refused_before_a_run(store: Any) -> None:
    """A class with fewer examples than parts leaves no run."""
    with pytest.raises(UsageError, match=r"tune's parts is 5, but a class has \d examples"):
        perform(comparison(data=rare), load(Data(rare)))
    assert not store.search_runs(["0"])


# ----------------------------------------------------------------------------------------------------- the tuning


@pytest.fixture(scope="module")
def done(empty_store: Path, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Any:
    """A tuned comparison that has run in this process: (record, client, watch)."""
    import mlflow

    folder = tmp_path_factory.mktemp("tuned")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    watch = Quiet()
    record = perform(comparison(), dataset, watch)
    yield record, mlflow.MlflowClient(), watch
    mlflow.set_tracking_uri(None)


def trials_of(client: Any, record: Record, variant: str) -> dict[str, Any]:
    """The runs of a variant's trials, by name."""
    over = below(client, client.get_run(record.run_id))[f"tuning: {variant}"]
    return below(client, over)


def test_every_variant_has_its_trials_under_it(done: Any) -> None:
    """A run for each variant's tuning has one for each trial, with the curves of a training and no test metric."""
    record, client, _ = done
    assert set(below(client, client.get_run(record.run_id))) == {
        *("SGD", "momentum", "Adam"),
        *("tuning: SGD", "tuning: momentum", "tuning: Adam"),
    }
    for name, trials in record.tuning.trials.items():
        runs = trials_of(client, record, name)
        assert set(runs) == {f"trial {place}: {name}" for place in (1, 2, 3)}
        for place, trial in enumerate(trials, 1):
            run = runs[f"trial {place}: {name}"]
            assert run.info.run_id == trial.run_id
            assert run.info.status == "FINISHED"
            assert run.data.tags["mlplab.kind"] == "trial"
            assert run.data.metrics["best_val_accuracy"] == trial.score
            assert not [metric for metric in run.data.metrics if metric.startswith("test")]
            assert (run.data.params["seed"], run.data.params["splits"]) == ("0", "tuning:0")
            assert float(run.data.params["learning_rate"]) == trial.choices["learning_rate"]


def test_the_best_trial_of_each_variant_is_compared(done: Any) -> None:
    """By the selection metric at its best epoch, as its recorded curves have it; its values are the variant's."""
    record, client, _ = done
    for name in comparison().variants:
        scores = [
            max(training_of(read_training(run.info.run_id)).history["val_accuracy"])
            for _, run in sorted(trials_of(client, record, name).items())
        ]
        drawn = comparison().tune.draw(comparison().spaces[name], 0)
        chosen = drawn[scores.index(max(scores))]
        assert record.tuning.chosen[name] == chosen
        for result in (result for result in record.results if result.variant.name == name):
            assert result.variant.learning_rate == chosen["learning_rate"]
            assert result.variant.get("optimizer.momentum") == chosen.get("optimizer.momentum", {"SGD": 0.0}.get(name))
            assert result.variant.splits == "fixed"
            assert result.seed in (7, 8)
        (run,) = [r for n, r in below(client, client.get_run(record.run_id)).items() if n == name]
        assert float(run.data.params["learning_rate"]) == chosen["learning_rate"]


def test_the_first_of_equal_trials_is_chosen() -> None:
    """And one without a score only where none has any; the lowest where less is better."""

    def tuned(*scores: float, metric: str = "val_accuracy") -> float:
        trials = [
            Trial(choices={"learning_rate": float(i)}, scores=[s], status=FINISHED, epochs=1, best_epoch=1)
            for i, s in enumerate(scores)
        ]
        return Tuning(trials={"a": trials}, metric=Metric(metric)).chosen["a"]["learning_rate"]

    assert tuned(0.5, 0.7, 0.7) == 1
    assert tuned(math.nan, 0.1) == 1
    assert tuned(math.nan, math.nan) == 0
    assert tuned(0.5, 0.7, 0.2, metric="val_loss") == 2


def test_what_was_chosen_is_shown(done: Any) -> None:
    """In the table, in the description, in the spec on record; and which budget the verdicts hold at, once."""
    record, client, _ = done
    header, *cells = tables.to_cells(record.experiment, record.results)
    assert header[:3] == ["variant", "learning rate", "momentum"]
    shown = {row[0]: row[1:3] for row in cells}
    assert shown["SGD"][1] == "0"  # what it says itself
    assert shown["Adam"][1] == "–"
    for name, choices in record.tuning.chosen.items():
        assert float(shown[name][0]) == pytest.approx(choices["learning_rate"], rel=1e-3)
    parent = client.get_run(record.run_id)
    note = parent.data.tags["mlflow.note.content"]
    assert note.count("at 3 trials each") == 1
    assert shown["momentum"][0] in note
    assert record.tuning.sentence in note
    back = Comparison.from_json(read(client, record.run_id, "comparison.json"))
    assert back == record.experiment
    assert back.tune.chosen == record.tuning.chosen
    assert "budget.png" in artifacts(client, record.run_id)
    said = below(client, parent)["tuning: momentum"].data.tags["mlflow.note.content"]
    assert shown["momentum"][0] in said.partition("\n")[0]
    assert said.count("of 3 |") == 3


def test_a_record_gives_the_tuning_back(done: Any) -> None:
    """With its trials, and the comparison as it was tuned."""
    record, client, _ = done
    back = Record.from_json(read(client, record.run_id, "record.json"), comparison(), record.run_id)
    assert [each.choices for each in back.tuning.trials["Adam"]] == [t.choices for t in record.tuning.trials["Adam"]]
    assert back.experiment == record.experiment


def test_trials_on_record_are_not_trained_again(done: Any, dataset: Dataset) -> None:
    """A comparison on other seeds takes them, and the numbers are the same; its variants are trained."""
    record, client, _ = done
    watch = Quiet()
    again = perform(comparison(seeds=(9,), name="again"), dataset, watch)
    assert {name for kind, name, _ in watch.seen if kind == "started"} == {"SGD", "momentum", "Adam"}
    assert again.tuning.chosen == record.tuning.chosen
    copies = trials_of(client, again, "SGD")
    assert {run.data.tags["mlplab.reused_from"] for run in copies.values()} == {
        trial.run_id for trial in record.tuning.trials["SGD"]
    }


def test_a_trial_is_replayed_to_the_bit(done: Any, dataset: Dataset) -> None:
    """From its own record, on its own part of the examples."""
    record, _, _ = done
    recorded = read_training(record.tuning.best("momentum").run_id)
    outcome, _ = replay(recorded, dataset, Quiet())
    assert outcome.sentence.startswith("Equal to the bit")


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on(done: Any, store: Any, dataset: Dataset) -> None:
    """Trials that were over are kept, the rest is trained, and every number is as it would have been undisturbed."""
    import mlflow

    whole, _, _ = done
    recalled: list[str] = []
    here = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.tracking_uri)
    try:
        with pytest.raises(KeyboardInterrupt):
            perform(
                comparison(),
                dataset,
                InterruptedWhen(lambda r: r.variant.name == "trial 2: momentum" and r.epochs == 2),
            )
        watch = InterruptedWhen(lambda r: r.variant.name == "momentum" and r.epochs == 2)
        watch.recalled = lambda result: recalled.append(result.variant.name)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            perform(comparison(), dataset, watch)
        last = Quiet()
        record = perform(comparison(), dataset, last)
    finally:
        mlflow.set_tracking_uri(here)
    assert recalled == ["trial 1: SGD", "trial 1: momentum", "trial 1: Adam", "trial 2: SGD"]
    assert {name for kind, name, _ in last.seen if kind == "started"} <= {"SGD", "momentum", "Adam"}
    for name, trials in whole.tuning.trials.items():
        assert [t.scores for t in record.tuning.trials[name]] == [t.scores for t in trials]
    assert [r.end for r in record.results] == [r.end for r in whole.results]


@pytest.mark.slow
def test_workers_tune_to_the_same_numbers(done: Any, store: Any, dataset: Dataset) -> None:
    """Trials that two local processes train have the scores of those trained here."""
    import mlflow

    whole, _, _ = done
    here = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.tracking_uri)
    try:
        record = perform(comparison(), dataset, Quiet(), jobs=2)
    finally:
        mlflow.set_tracking_uri(here)
    for name, trials in whole.tuning.trials.items():
        assert [t.scores for t in record.tuning.trials[name]] == [t.scores for t in trials]


class FailsIn(Quiet):
    """Raises in the trainings whose names contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def epoch(self, result: Result) -> None:
        if self.text in result.variant.name:
            raise ValueError("the disk is full")


@pytest.mark.slow
def test_a_failed_trial_is_none_and_all_failed_are_an_error(store: Any, dataset: Dataset) -> None:
    """One that raised is not chosen and the rest goes on; where every trial of a variant did, the first is shown."""
    one = comparison(
        variants={"SGD": {"optimizer.momentum": 0.0}, "Adam": {"optimizer": "adam"}},
        tune=Tune({"learning_rate": [0.1, 0.01]}, 2),
        seeds=1,
    )
    record = perform(one, dataset, FailsIn("trial 1"))
    assert [trial.status for trial in record.tuning.trials["SGD"]] == ["failed", "finished"]
    assert record.tuning.chosen["SGD"] == record.tuning.trials["SGD"][1].choices
    with pytest.raises(RuntimeError, match=r"(?s)all 2 trials of variant 'Adam' failed. The first:.*the disk is full"):
        perform(replace(one, seeds=(5,), select="val_loss"), dataset, FailsIn(": Adam"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizers_tuned", "optimizers_tuned_cifar"])
def test_the_projects_experiments_are_tuned(store: Any, dataset: Dataset, name: str) -> None:
    """At a first look each of the three optimizers has two trials, and none is in more than it says."""
    record = perform(Options(smoke=True).adapt(load_experiment(name)), dataset)
    assert {variant: len(trials) for variant, trials in record.tuning.trials.items()} == dict.fromkeys(
        ("SGD", "momentum", "Adam"), 2
    )
    assert {variant: set(choices) for variant, choices in record.tuning.chosen.items()} == {
        "SGD": {"learning_rate"},
        "momentum": {"learning_rate", "optimizer.momentum"},
        "Adam": {"learning_rate", "optimizer.beta_1", "optimizer.epsilon"},
    }
    assert not record.failed


# ----------------------------------------------------------------------------------------------------- halving


CURVES = (
    [0.5, 0.7, 0.8, 0.9],
    [0.2, 0.3, 0.4, 0.5],
    [0.6, 0.8, 0.9, 0.95],
    [0.1, 0.1, 0.1, 0.1],
    [0.55, 0.6, 0.65, 0.7],
)


def halved(curves: Any, metric: str = "val_accuracy") -> list[Result]:
    """Trials of recorded curves, as halving has them end."""
    halving = tuning._Halving(Metric(metric), 4).beside(Quiet())
    results = [Result(variant=mlp(epochs=4, name=f"trial {i}")) for i in range(len(curves))]
    for result, curve in zip(results, curves, strict=True):
        halving.started(result)
        for value in curve:
            if result.status == FINISHED:
                result.add({"loss": 0.0, metric: value})
                result.best_epoch = result.epochs
                halving.epoch(result)
        halving.ended(result)
    return results


def test_halving_stops_the_worse_and_keeps_the_winner() -> None:
    """On recorded curves the best is trained to its end, the hopeless for an epoch, and epochs are saved."""
    pytest.importorskip("optuna")
    found = halved(CURVES)
    assert [result.epochs for result in found] == [4, 1, 4, 1, 2]
    assert [result.status for result in found] == [FINISHED, PRUNED, FINISHED, PRUNED, PRUNED]
    assert found[2].last("val_accuracy") == max(max(curve) for curve in CURVES)
    errors = halved([[1 - value for value in curve] for curve in CURVES], "val_loss")
    assert [result.epochs for result in errors] == [4, 1, 4, 1, 2]


@pytest.mark.slow
def test_halving_goes_on_as_it_would_have(store: Any, dataset: Dataset) -> None:
    """Interrupted and started again it stops the same trials after the same epochs, and chooses the same."""
    pytest.importorskip("optuna")
    import mlflow

    one = comparison(tune=Tune(SPACE, 6, halving=True), base=mlp(hidden=(8,), epochs=8, batch_size=256), seeds=1)
    with pytest.raises(KeyboardInterrupt):
        perform(one, dataset, InterruptedWhen(lambda r: r.variant.name == "trial 4: momentum"))
    again = perform(one, dataset)
    ended = {name: [(t.status, t.epochs, t.scores) for t in trials] for name, trials in again.tuning.trials.items()}
    assert {status for trials in ended.values() for status, _, _ in trials} == {FINISHED, PRUNED}
    stopped = next(t for t in again.tuning.trials["momentum"] if t.status == PRUNED)
    assert replay(read_training(stopped.run_id), dataset, Quiet())[0].equal
    mlflow.MlflowClient().delete_run(again.run_id)
    undisturbed = perform(replace(one, name="undisturbed"), dataset)
    for name, trials in undisturbed.tuning.trials.items():
        assert [(t.status, t.epochs, t.scores) for t in trials] == ended[name]


def test_halving_is_refused_where_it_cannot_decide(
    store: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside workers, and without Optuna, before there is a run."""
    one = comparison(tune=Tune(SPACE, 3, halving=True))
    with pytest.raises(UsageError, match=r"halving=True, which goes by the trials before .*jobs=1"):
        perform(one, dataset, jobs=2)
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs Optuna.*mlplab\[tune\]"):
        perform(one, dataset)
    assert not store.search_runs(["0"])


# ---------------------------------------------------------------------------------------------- what is to be expected


@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=7), st.booleans())
def test_the_expected_best_and_its_band_are_those_of_all_draws(scores: list[float], maximizes: bool) -> None:
    """For each k: mean and quantiles of the best over all sets of k trials, whether more or less is better."""
    best = max if maximizes else min
    low, high = best_band(scores, maximizes)
    expected = expected_best(scores, maximizes)
    for k in range(1, len(scores) + 1):
        every = sorted(best(draw) for draw in itertools.combinations(scores, k))
        assert expected[k - 1] == pytest.approx(np.mean(every), abs=1e-12)
        # The value that at least so many of the draws do not exceed, counted from the worse side.
        ordered = every if maximizes else every[::-1]
        ends = [ordered[max(0, math.ceil(share * len(every) - 1e-9) - 1)] for share in (0.025, 0.975)]
        assert (low[k - 1], high[k - 1]) == (min(ends), max(ends))


def tuned_by(scores: dict[str, list[float]], metric: Metric) -> Tuning:
    trials = {
        name: [Trial(choices={}, scores=[s], status=FINISHED, epochs=1, best_epoch=1) for s in each]
        for name, each in scores.items()
    }
    return Tuning(trials=trials, metric=metric)


ACCURACY = Metric("val_accuracy", margin=0.01)


def test_who_leads_is_said_by_budget() -> None:
    """Who is better by more than the margin in the best to expect; none where the best two are closer."""
    found = tuned_by({"robust": [0.8, 0.8, 0.8, 0.8], "steep": [0.1, 0.1, 0.95, 0.1]}, ACCURACY)
    # Of so many of steep's trials: 0.3125, 0.525, 0.7375, 0.95.
    assert found.leads() == [(1, 3, "robust"), (4, 4, "steep")]
    assert found.sentence == (
        "Best validation accuracy to expect of so many of 4 trials each: at 1 to 3 robust leads by more than 1 point, "
        "from 4 on steep does."
    )
    assert tuned_by({"a": [0.5, 0.6], "b": [0.5, 0.605]}, ACCURACY).leads() == [(1, 2, "")]
    losses = tuned_by({"a": [2.0, 1.0], "b": [4.0, 0.9]}, Metric("val_mse", margin=0.01))
    assert losses.leads() == [(1, 1, "a"), (2, 2, "b")]
    assert tuned_by({"a": [0.5, 0.6]}, ACCURACY).sentence == ""


def test_the_budget_figure_has_a_curve_and_a_name_for_each_variant() -> None:
    """Each curve is the expected best of the variant's trials that have a score, and its name has its colour."""
    scores = {"SGD": [0.2, 0.8, math.nan, 0.7], "Adam": [0.9, 0.95, 0.1, 0.5]}
    drawn = search_figures.tuned_budget(tuned_by(scores, ACCURACY), "digits")
    (axes,) = drawn.axes
    for line, name in zip(axes.lines, scores, strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected_best(scores[name]))
        (label,) = [text for text in axes.texts if text.get_text() == name]
        assert label.get_color() == line.get_color()
    assert len(axes.collections) == 2
    assert "1 trials without a score" in drawn._supxlabel.get_text()
