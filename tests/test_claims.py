"""What `experiments.report` promises of claims: a verdict on every claim of the report, true whatever was measured."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.report.__main__ import reported
from experiments.report.claims import CLAIMS
from experiments.report.judging import Claim, assess
from experiments.report.looks import FOUND, roughness
from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, STATUSES
from mlplab.amounts import significant
from mlplab.calls import Call
from mlplab.comparison import Comparison
from mlplab.loading import Options, Overview, Prediction, load_experiment
from mlplab.records import Candidate, Predictions, Record, SearchResult
from mlplab.results import DIVERGED, FAILED, Result, measures
from mlplab.space import Search
from mlplab.spec import Training
from mlplab.verdicts import judge

IMAGES = {"mnist": 50_000, "cifar10": 40_000}
LABELS = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
BY_KEY = {claim.key: claim for claim in CLAIMS}


def trained(variant: Training, dataset: str, last: dict[str, float], seconds: float, noise: float = 0.0) -> Result:
    """A result whose curves run straight to the values in `last`, the validation loss with ripples."""
    epochs, steps = variant.epochs, variant.steps_per_epoch(IMAGES[dataset])
    start = {"loss": 2.3, "val_loss": 2.3, "accuracy": 0.1, "val_accuracy": 0.1}
    history = {name: np.linspace(start[name], last[name], epochs).tolist() for name in start}
    ripple = [noise if epoch % 2 else 0.0 for epoch in range(epochs)]
    history["val_loss"] = [loss + wave for loss, wave in zip(history["val_loss"], ripple, strict=True)]
    rate, decay = variant.learning_rate, 0.0
    if isinstance(rate, Call):
        rate, decay = rate.arguments["initial_learning_rate"], rate.arguments["decay_rate"]
    history["learning_rate"] = [rate / (1 + decay * steps * (e + 1)) for e in range(epochs)]
    history["train_seconds"] = [seconds * (e + 1) for e in range(epochs)]
    return Result(
        variant=variant,
        history=history,
        best_epoch=epochs,
        test={"loss": last["val_loss"], "accuracy": last["val_accuracy"]},
        parameters=109_386 if dataset == "mnist" else 402_250,
        steps_per_epoch=steps,
        compile_seconds=1.5,
        evaluate_seconds=0.3,
        run_id=f"run-of-{variant.name}",
    )


SAID: dict[tuple[str, str], dict[str, Any]] = {
    ("batch_modes", "batch size 1"): {"noise": 0.05, "seconds": 156.6},
    ("batch_modes", "mini-batch SGD"): {"noise": 0.002},
    ("batch_1000", "full batch"): {"accuracy": 0.921, "val_accuracy": 0.92},
    ("decay_momentum", "mini-batch SGD"): {"val_accuracy": 0.97, "seconds": 3.54},
    ("decay_momentum", "with decay"): {"val_accuracy": 0.87, "seconds": 5.94},
    ("decay_momentum", "with decay and momentum"): {"val_accuracy": 0.92, "seconds": 5.87},
    ("sgd_decay_momentum", "batch size 1, decay, momentum"): {"accuracy": 0.2, "val_accuracy": 0.2},
    ("optimizers", "SGD"): {"loss": 0.0503, "val_loss": 0.0954, "accuracy": 0.98, "val_accuracy": 0.97},
    ("optimizers", "Adam"): {"val_accuracy": 0.975},
    ("optimizers", "RMSprop"): {"loss": 0.0, "val_loss": 0.15, "accuracy": 1.0, "val_accuracy": 0.98},
    ("l2", "baseline"): {"accuracy": 0.62, "val_accuracy": 0.5},
    ("l2", "L2"): {"accuracy": 0.55, "val_accuracy": 0.5},
    ("dropout", "dropout 0.2"): {"accuracy": 0.4978, "val_accuracy": 0.478},
    ("dropout", "dropout 0.3"): {"accuracy": 0.489, "val_accuracy": 0.4829},
    ("early_stopping", "early stopping"): {"epochs": 199},
    ("batch_norm", "dropout 0.3"): {"val_accuracy": 0.48},
    ("batch_norm", "dropout 0.3, batch norm"): {"val_accuracy": 0.485},
}
"""What a training says that bears the report out."""
ORDINARY = {"loss": 1.0, "val_loss": 1.1, "accuracy": 0.46, "val_accuracy": 0.45}


def comparison_record(name: str, comparison: Comparison, said: dict[tuple[str, str], dict[str, Any]]) -> Record:
    for waiting in comparison.searches:
        comparison = comparison.with_choices(waiting, {"learning_rate": 0.02, "model.dropout": 0.2, "batch_size": 32})
    found = []
    for variant in comparison.resolved():
        words = {"seconds": 2.0, "noise": 0.0, **said.get((name, variant.name), {})}
        last = {**ORDINARY, **{k: v for k, v in words.items() if k in ORDINARY}}
        result = trained(variant, comparison.data.source, last, words["seconds"], words["noise"])
        if "epochs" in words:
            result.history = {k: v[: words["epochs"]] for k, v in result.history.items()}
            result.best_epoch = result.epochs
        found.append(result)
    return Record(experiment=comparison, data=LABELS[comparison.data.source], results=found)


def records(said: dict[tuple[str, str], dict[str, Any]] = SAID, **changes: Any) -> dict[str, Record]:
    """A record of every experiment; `changes` are made to what every training shares, such as `epochs`."""
    made: dict[str, Record] = {}
    for number, name in enumerate(reported()):
        experiment = load_experiment(name)
        if isinstance(experiment, Comparison):
            made[name] = comparison_record(name, experiment.with_base(**changes), said)
        elif isinstance(experiment, Search):
            experiment = experiment.with_base(**changes)
            means = np.linspace(0.3, 0.43, experiment.candidates - 1)
            grid = [dict(zip(FOUND, values, strict=True)) for values in product(*experiment.space.values())]
            choices = [choice for choice in grid if choice != FOUND]
            drawn = [
                Candidate(choices=c, scores=[m - 0.01, m, m + 0.01], train_seconds=20.0)
                for c, m in zip([*choices[: len(means)], FOUND], [*means, 0.45], strict=True)
            ]
            refit = trained(experiment.base.but({**FOUND, "name": "refit"}), "cifar10", ORDINARY, 3.0)
            found = SearchResult(
                candidates=drawn, refit=refit, scoring="accuracy", validation={"loss": 1.4, "accuracy": 0.452}
            )
            made[name] = Record(experiment=experiment, data="CIFAR-10", search=found)
        elif isinstance(experiment, Prediction):
            pixels = np.tile(np.linspace(0, 255, 784).astype(np.uint8), (experiment.images, 1))
            labels = [index % 10 for index in range(experiment.images)]
            made[name] = Record(
                experiment=experiment,
                data="MNIST",
                predictions=Predictions(
                    images=pixels,
                    image_shape=(28, 28),
                    labels=labels,
                    predicted=[7, *labels[1:]],
                    probability=[0.9] * len(labels),
                    class_names=tuple("0123456789"),
                    test_accuracy=SAID["optimizers", "RMSprop"]["val_accuracy"],
                    model_uri="models:/m-1",
                ),
            )
        else:
            assert isinstance(experiment, Overview)
            made[name] = Record(experiment=experiment, data="CIFAR-10")
        made[name].seconds, made[name].run_id = 10.5 + number, f"{number:032x}"
    return made


FULL = records()
SEEDS = (1, 2, 3, 4, 5)


def over_seeds(found: dict[str, Record], spread: float = 0.001) -> dict[str, Record]:
    """The records with five seeds: every number of a training is moved by about `spread`, by none in the mean."""
    made = dict(found)
    for name, record in found.items():
        if not isinstance(record.experiment, Comparison):
            continue
        results = []
        for place, result in enumerate(record.results):
            moves = np.sin(1.7 * np.arange(len(SEEDS)) + 2.3 * place)
            for seed, move in zip(SEEDS, (spread * (moves - moves.mean())).tolist(), strict=True):
                history = {
                    metric: [value + move if "accuracy" in metric else value * (1 + move) for value in values]
                    for metric, values in result.history.items()
                }
                results.append(replace(result, seed=seed, history=history))
        made[name] = replace(record, experiment=record.experiment.with_seeds(SEEDS), results=results)
    return made


def with_values(experiment: str, variant: str, metric: str, by_seed: Sequence[float]) -> dict[str, Record]:
    """The full records of five seeds, where a variant's metric is at every epoch the seed's value."""
    record = FIVE[experiment]
    values = dict(zip(SEEDS, by_seed, strict=True))
    other = [
        replace(r, history={**r.history, metric: [values[r.seed]] * r.epochs}) if r.variant.name == variant else r
        for r in record.results
    ]
    return {**FIVE, experiment: replace(record, results=other)}


FIVE = over_seeds(FULL)


def changed(experiment: str, variant: str, **history: list[float]) -> dict[str, Record]:
    """The full records, where one training has other curves."""
    record = FULL[experiment]
    other = [replace(r, history={**r.history, **history}) if r.variant.name == variant else r for r in record.results]
    return {**FULL, experiment: replace(record, results=other)}


@pytest.mark.parametrize("found", [FULL, FIVE], ids=["one seed", "five seeds"])
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_a_claim_is_reproduced_by_what_the_report_says(claim: Claim, found: dict[str, Record]) -> None:
    """Where the trainings give the report's numbers, all is reproduced but bare seconds and a minimum unseen."""
    verdict = assess(claim, found)
    unseen = claim.key.endswith(("-time", "-times")) and claim.key not in ("decay-costs-time", "training-times")
    assert verdict.status == (NOT_TESTABLE if unseen or claim.key == "stuck" else REPRODUCED), verdict


OTHER = {
    key: {"noise": 0.01 if key[1] == "full batch" else 0.0, "accuracy": 0.95, "val_accuracy": 0.7, "loss": 0.7}
    for key in SAID
} | {("l2", "L2"): {"accuracy": 0.99, "val_accuracy": 0.5}, ("batch_norm", "dropout 0.3"): {"val_accuracy": 0.3}}
OTHER |= {("optimizers", "Adam"): {"val_accuracy": 0.99}, ("dropout", "dropout 0.5"): {"val_accuracy": 0.9}}
OTHER |= {("batch_modes", "full batch"): {"noise": 0.01}, ("l2", "baseline"): {"accuracy": 0.5, "val_accuracy": 0.5}}
OTHER |= {("cifar_baseline", "baseline"): {"seconds": 9.0}}


@pytest.mark.parametrize("several", [False, True], ids=["one seed", "five seeds"])
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_a_claim_is_not_reproduced_by_other_numbers(claim: Claim, several: bool) -> None:
    """Where the trainings give quite different numbers, each claim that can be judged is not reproduced."""
    other = records(OTHER)
    search = other["random_search"].search
    assert search
    search.candidates[0].scores = [0.6, 0.6, 0.6]
    for result in other["batch_modes"].results:
        result.parameters = 1
    verdict = assess(claim, over_seeds(other) if several else other)
    seconds = claim.key.endswith(("-time", "-times")) and claim.key not in ("decay-costs-time", "training-times")
    assert verdict.status == (NOT_TESTABLE if seconds else NOT_REPRODUCED), verdict


values = st.floats(0, 1) | st.sampled_from([math.nan, math.inf, 0.97, 0.98])


drawn_values = (st.lists(values, min_size=8, max_size=8), st.sampled_from(["finished", DIVERGED]), st.floats(0, 100))


@settings(max_examples=15)
@given(*drawn_values)
def test_any_numbers_give_a_verdict_with_its_evidence(drawn: list[float], status: str, seconds: float) -> None:
    """Whatever is measured, each claim has a verdict, and the numbers it shows stand in the evidence."""
    check_verdicts(FULL, SCRATCH, drawn, status, seconds)


@settings(max_examples=4)
@given(*drawn_values)
def test_any_numbers_of_several_seeds_do(drawn: list[float], status: str, seconds: float) -> None:
    """So it is with five seeds."""
    check_verdicts(FIVE, SCRATCH_FIVE, drawn, status, seconds)


def check_verdicts(
    found: dict[str, Record], scratch: dict[str, Record], drawn: list[float], status: str, seconds: float
) -> None:
    names = ("accuracy", "val_accuracy", "loss", "val_loss")
    for name, record in found.items():
        for place, result in enumerate(record.results):
            epochs = min(result.epochs, 6)
            curves = {n: [drawn[(i + place + len(name)) % 8]] * epochs for i, n in enumerate(names)}
            clock = [seconds * (epoch + 1) for epoch in range(epochs)]
            short = {**curves, "learning_rate": [0.01] * epochs, "train_seconds": clock}
            scratch[name].results[place] = replace(result, history=short, status=status, best_epoch=epochs)
    search = scratch["random_search"].search
    assert search
    for place, candidate in enumerate(search.candidates):
        candidate.scores = [drawn[place % 8]] * 3
    for claim in CLAIMS:
        verdict = assess(claim, scratch)
        assert verdict.status in STATUSES
        assert verdict.evidence.endswith(".")
        for shown in verdict.measured.removesuffix(" (5 seeds)").split(" / "):
            assert shown in verdict.evidence or shown == "–"


SCRATCH, SCRATCH_FIVE = records(), over_seeds(records())


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_few_epochs_and_stand_in_data_test_nothing(claim: Claim) -> None:
    """Trainings of two epochs, and trainings on the digits, leave a claim untestable, and the evidence says why."""
    stand_ins = {name: replace(record, data=f"digits (stand-in for {record.data})") for name, record in FULL.items()}
    for shown, why in ((records(epochs=2), "2 epochs in place of"), (stand_ins, "stand-in for")):
        verdict = assess(claim, shown)
        if claim.key == "parameters":  # the same network on any data, at any epoch
            assert verdict.status == REPRODUCED
        else:
            assert verdict.status == NOT_TESTABLE
            assert why in verdict.evidence
            assert verdict.measured == "–"


def test_a_search_of_fewer_candidates_tests_nothing() -> None:
    """A search that drew less than its experiment says does not speak of the report's."""
    small = Options(smoke=True).adapt(FULL["random_search"].experiment)
    made = replace(FULL["random_search"], experiment=small, data="digits (stand-in for CIFAR-10)")
    verdict = assess(BY_KEY["search-best"], {**FULL, "random_search": made})
    assert verdict.status == NOT_TESTABLE
    assert (
        "(on digits (stand-in for CIFAR-10), 2 candidates in place of 10, 2 folds in place of 3, 2 epochs in place of "
        "10)"
    ) in verdict.evidence


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_what_is_missing_or_failed_is_said(claim: Claim) -> None:
    """Without a record, without its variant or with a failed training a claim is not testable, with the reason."""
    assert "left no record" in assess(claim, {}).evidence
    name, variant = claim.sources[0]
    if not variant:
        return
    five = [replace(r, status=FAILED, error="x\nMemoryError: 3 GB") for r in FIVE[name].results]
    verdict = assess(claim, {**FIVE, name: replace(FIVE[name], results=five)})
    assert verdict.status == NOT_TESTABLE
    assert verdict.evidence.endswith("failed: MemoryError: 3 GB")
    none = {**FULL, name: replace(FULL[name], results=[])}
    assert f"without the variant {variant!r}" in assess(claim, none).evidence
    failures = [Result(variant=r.variant, status=FAILED, error="x\nMemoryError: 3 GB") for r in FULL[name].results]
    verdict = assess(claim, {**FULL, name: replace(FULL[name], results=failures)})
    assert verdict.status == NOT_TESTABLE
    assert verdict.evidence.endswith("failed: MemoryError: 3 GB")


def test_the_evidence_on_decay_shows_the_learning_rate_it_implies() -> None:
    """0.01 / (1 + 1e-6 · 19,550) = 0.009808, beside the recorded rate; the points lost are said as they are."""
    lost = assess(BY_KEY["decay-accuracy"], FULL).evidence
    assert "50 epochs of 391 steps from 0.01 to 0.01 / (1 + 1e-6 · 19,550) = 0.009808" in lost
    assert "recorded: 0.009808" in lost
    assert "-10.00 points" in lost
    assert "more than so small a change explains" in lost
    kept = assess(BY_KEY["decay-accuracy"], changed("decay_momentum", "with decay", val_accuracy=[0.97] * 50))
    assert kept.status == NOT_REPRODUCED
    assert "cannot cost ten points" in kept.evidence


def test_the_evidence_on_momentum_at_batch_size_1_shows_its_steps() -> None:
    """A momentum of 0.9 makes 0.1 of 0.01 for every image, 50,000 times an epoch."""
    evidence = assess(BY_KEY["sgd-decay-momentum-accuracy"], FULL).evidence
    assert "10 times the learning rate, 0.1 for every single image, 50,000 times an epoch" in evidence


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_several_seeds_give_every_number_an_interval(claim: Claim) -> None:
    """What is measured has a mean, an interval and the number of seeds; but the search and the prediction have one."""
    verdict = assess(claim, FIVE)
    if claim.key in ("search-best", "prediction"):
        assert verdict.seeds == 1
        assert verdict.measured == assess(claim, FULL).measured
        return
    assert verdict.seeds == len(SEEDS)
    if claim.key == "parameters":  # the same with every seed, and so no interval
        assert verdict.measured == "109,386 (5 seeds)"
        return
    assert re.fullmatch(r"([^/]*-?[\d.,]+( %| s| points| times)? \[\S+, \S+\]( / )?)+ \(5 seeds\)", verdict.measured)
    assert not claim.alone or "one seed" not in verdict.evidence
    assert all(f"{number.unit.text(number.measured(FIVE))} [" in verdict.measured for number in claim.numbers)


@pytest.mark.parametrize(
    ("accuracies", "status"),
    [
        ([0.968, 0.969, 0.970, 0.969, 0.968], REPRODUCED),
        ([0.950, 0.951, 0.952, 0.951, 0.950], NOT_REPRODUCED),
        ([0.940, 0.985, 0.955, 0.990, 0.950], NOT_TESTABLE),
    ],
)
def test_a_number_agrees_if_its_interval_does(accuracies: list[float], status: str) -> None:
    """97 % within a point: by the interval's place within, beyond or across the tolerance, not by the mean alone."""
    verdict = assess(
        BY_KEY["minibatch-accuracy"], with_values("decay_momentum", "mini-batch SGD", "val_accuracy", accuracies)
    )
    assert verdict.status == status
    assert ("Undecided: an interval lies on both sides of a limit." in verdict.evidence) == (status == NOT_TESTABLE)


@pytest.mark.parametrize(
    ("leads", "status"),
    [
        ([0.1, 0.12, 0.09, 0.11, 0.1], REPRODUCED),
        ([-0.1, -0.12, -0.09, -0.11, -0.1], NOT_REPRODUCED),
        ([0.4, -0.3, 0.5, -0.2, 0.1], NOT_TESTABLE),
        ([0.0] * 5, NOT_REPRODUCED),
    ],
)
def test_several_seeds_decide_a_lead_that_one_cannot(leads: list[float], status: str) -> None:
    """A tenth of a point is a lead if it comes with every seed, and half a point is none if the next seed takes it."""
    ours = {r.seed: r.best("val_accuracy") for r in FIVE["optimizers"].results if r.variant.name == "RMSprop"}
    theirs = [ours[seed] - lead / 100 for seed, lead in zip(SEEDS, leads, strict=True)]
    verdict = assess(BY_KEY["rmsprop-best"], with_values("optimizers", "Adam", "val_accuracy", theirs))
    assert verdict.status == status
    assert f"RMSprop minus Adam {np.mean(leads):+.2f} points [" in verdict.evidence


def test_a_difference_has_the_interval_of_the_comparisons_verdict() -> None:
    """What a claim says of two variants is, to the digit, what the verdict of their comparison says."""
    record = FIVE["optimizers"]
    verdicts = judge(measures(record.experiment, record.results), record.experiment.against)
    (verdict,) = [v for v in verdicts if (v.measure, v.a, v.b) == ("val_accuracy", "RMSprop", "Adam")]
    ends = f"[{100 * verdict.low:+.2f}, {100 * verdict.high:+.2f}]"
    evidence = assess(BY_KEY["rmsprop-best"], FIVE).evidence
    assert f"RMSprop minus Adam +0.50 points {ends}: holds (above 0)" in evidence


@pytest.mark.parametrize(
    ("shrinks", "status"),
    [
        ([0.1, 0.12, 0.09, 0.11, 0.1], REPRODUCED),
        ([-0.1, -0.12, -0.09, -0.11, -0.1], NOT_REPRODUCED),
        ([2.0, -2.5, 1.0, 0.5, -1.0], NOT_TESTABLE),
    ],
)
def test_a_gap_shrinks_if_it_does_with_the_seeds(shrinks: list[float], status: str) -> None:
    """The gaps are compared seed by seed, by the interval of the mean difference."""
    gaps, validation = {}, {}
    for result in FIVE["l2"].results:
        if result.variant.name == "baseline":
            pairs = zip(result.history["accuracy"][-10:], result.history["val_accuracy"][-10:], strict=True)
            gaps[result.seed] = float(np.mean([a - b for a, b in pairs]))
        else:
            validation[result.seed] = float(np.mean(result.history["val_accuracy"][-10:]))
    accuracies = [validation[s] + gaps[s] - by / 100 for s, by in zip(SEEDS, shrinks, strict=True)]
    verdict = assess(BY_KEY["l2-gap"], with_values("l2", "L2", "accuracy", accuracies))
    assert verdict.status == status
    assert f"{np.mean(shrinks):+.2f} points [" in verdict.evidence


@pytest.mark.parametrize(
    ("apart", "status"),
    [(0.8, REPRODUCED), (-0.8, REPRODUCED), (1.2, NOT_REPRODUCED), (-1.2, NOT_REPRODUCED), (1.0, NOT_TESTABLE)],
)
def test_the_same_is_an_interval_within_the_tolerance(apart: float, status: str) -> None:
    """Batch normalization is the same if the whole interval of the difference is within a point."""
    plain = {r.seed: r.best("val_accuracy") for r in FIVE["batch_norm"].results if r.variant.name == "dropout 0.3"}
    normed = [plain[seed] + (apart + 0.05 * (seed - 3)) / 100 for seed in SEEDS]
    found = with_values("batch_norm", "dropout 0.3, batch norm", "val_accuracy", normed)
    assert assess(BY_KEY["batch-norm"], found).status == status


def test_times_are_compared_as_ratios_of_the_same_seed() -> None:
    """A machine that is slow with some seeds, for all variants, leaves the ratios as they are."""
    record = FULL["decay_momentum"]
    slow = [
        replace(r, seed=seed, history={**r.history, "train_seconds": [s * seed for s in r.history["train_seconds"]]})
        for r in record.results
        for seed in SEEDS
    ]
    found = {**FIVE, "decay_momentum": replace(record, results=slow)}
    verdict = assess(BY_KEY["decay-costs-time"], found)
    assert verdict.status == REPRODUCED
    assert verdict.measured == "+68 % [+68, +68] / +66 % [+66, +66] (5 seeds)"
    factors = dict(zip(SEEDS, (0.5, 2.0, 0.5, 2.0, 1.0), strict=True))  # their mean is 1.2, their ratios' is 1
    level = {r.seed: r.history["train_seconds"] for r in slow if r.variant.name == "mini-batch SGD"}
    uneven = [
        replace(r, history={**r.history, "train_seconds": [s * factors[r.seed] for s in level[r.seed]]})
        if r.variant.name == "with decay"
        else r
        for r in slow
    ]
    verdict = assess(BY_KEY["decay-costs-time"], {**FIVE, "decay_momentum": replace(record, results=uneven)})
    assert verdict.status == NOT_TESTABLE
    assert verdict.measured.startswith("+0 % [")
    seconds = assess(BY_KEY["decay-times"], found)
    assert seconds.status == NOT_TESTABLE
    assert "does not name its hardware" in seconds.evidence


def test_a_seed_without_a_number_is_said_and_bears_nothing_out() -> None:
    """Of five seeds that agree one diverged: said, and no longer reproduced; if all diverged it is not reproduced."""
    claim = BY_KEY["sgd-losses"]
    for lost, status in ((1, NOT_TESTABLE), (4, NOT_TESTABLE), (5, NOT_REPRODUCED)):
        losses = [math.nan] * lost + [0.0954] * (5 - lost)
        found = with_values("optimizers", "SGD", "val_loss", losses)
        ended = [
            replace(r, status=DIVERGED) if r.variant.name == "SGD" and r.seed <= lost else r
            for r in found["optimizers"].results
        ]
        verdict = assess(claim, {**found, "optimizers": replace(found["optimizers"], results=ended)})
        assert verdict.status == status, lost
        assert f"“SGD, Adam or RMSprop”, 'SGD': {lost} of 5 seeds diverged." in verdict.evidence
        assert f"({5 - lost} of 5 seeds)" in verdict.evidence


def test_a_seed_that_failed_is_said_and_left_out() -> None:
    """The others decide where a training raised with one seed; one that is left decides nothing."""
    record = FIVE["optimizers"]
    for lost, status in ((1, REPRODUCED), (4, NOT_TESTABLE)):
        broken = [
            replace(r, status=FAILED, error="x\nMemoryError: 3 GB")
            if r.variant.name == "RMSprop" and r.seed <= lost
            else r
            for r in record.results
        ]
        verdict = assess(BY_KEY["rmsprop-best"], {**FIVE, "optimizers": replace(record, results=broken)})
        assert verdict.status == status
        assert (
            f"{lost} of 5 seeds left out: The training 'RMSprop' of “SGD, Adam or RMSprop” failed: MemoryError"
            in verdict.evidence
        )
        assert ("one seed alone has no interval" in verdict.evidence) == (lost == 4)


def test_experiments_without_a_seed_in_common_are_not_compared() -> None:
    """Times of trainings that share no seed do not pair."""
    other = [replace(result, seed=result.seed + 10) for result in FIVE["l2"].results]
    verdict = assess(BY_KEY["training-times"], {**FIVE, "l2": replace(FIVE["l2"], results=other)})
    assert verdict.status == NOT_TESTABLE
    assert "no seed in common" in verdict.evidence


def test_evidence_beside_a_claim_is_about_all_seeds() -> None:
    """What decay cost, and what the search's winner and the report's choice came to, are means with intervals."""
    assert re.search(r"with decay is -10\.00 points \[\S+, \S+\] from", assess(BY_KEY["decay-accuracy"], FIVE).evidence)
    search = FULL["random_search"].search
    assert search
    rest = replace(FULL["random_search"], search=replace(search, candidates=search.candidates[:-1]))
    evidence = assess(BY_KEY["search-best"], {**FIVE, "random_search": rest}).evidence
    assert re.search(r"means over 5 seeds; best found minus report's choice: \S+ points \[\S+, \S+\]\.$", evidence)


def test_a_lead_that_one_seed_may_turn_around_is_no_verdict() -> None:
    """RMSprop 0.1 points above or below Adam is not testable, and the evidence names the lead."""
    for accuracy, word in ((0.979, "above"), (0.981, "below")):
        verdict = assess(BY_KEY["rmsprop-best"], changed("optimizers", "Adam", val_accuracy=[accuracy] * 50))
        assert verdict.status == NOT_TESTABLE
        assert f"RMSprop is 0.10 points {word} Adam" in verdict.evidence


def test_a_search_that_did_not_draw_the_reports_choice_cannot_reproduce_it() -> None:
    """A choice that was not drawn could not have won; what both came to in full is said, where both were trained."""
    search = FULL["random_search"].search
    assert search
    rest = replace(search, candidates=search.candidates[:-1])
    verdict = assess(BY_KEY["search-best"], {**FULL, "random_search": replace(FULL["random_search"], search=rest)})
    assert verdict.status == NOT_TESTABLE
    assert "was not among those drawn" in verdict.evidence
    best, theirs = (100 * result.best("val_accuracy") for result in FULL["best_found"].results)
    assert f"best found {best:.2f} %, report's choice {theirs:.2f} %" in verdict.evidence
    assert f"{abs(best - theirs):.2f} points apart" in verdict.evidence
    alone = {name: record for name, record in FULL.items() if name != "best_found"}
    verdict = assess(BY_KEY["search-best"], {**alone, "random_search": replace(FULL["random_search"], search=rest)})
    assert verdict.evidence.endswith("was not among those drawn.")


def test_seconds_are_compared_and_never_reproduced() -> None:
    """7,830.7 s against 7,830 s of an unknown machine is not testable; the ratio is given per epoch."""
    verdict = assess(BY_KEY["sgd-time"], FULL)
    assert verdict.status == NOT_TESTABLE
    assert verdict.measured == "7,830.0 s"
    for seconds, says in ((3915.35, "2 times as fast"), (4.1876, "1,870 times as fast"), (1e7, "1,280 times as long")):
        shown = assess(BY_KEY["sgd-time"], changed("batch_modes", "batch size 1", train_seconds=[seconds] * 50))
        assert says in shown.evidence


def test_the_seconds_of_a_training_that_ended_early_are_not_those_of_all_epochs() -> None:
    """A training that diverged in its third epoch has no seconds for 50; its evidence is per epoch."""
    record = FULL["batch_modes"]
    early = [
        replace(r, status=DIVERGED, history={name: values[:3] for name, values in r.history.items()})
        for r in record.results
    ]
    found = {**FULL, "batch_modes": replace(record, results=early)}
    claim = BY_KEY["sgd-time"]
    verdict = assess(claim, found)
    assert verdict.measured == claim.numbers[0].distance(claim.numbers[0].measured(found)) == "–"
    assert "epoch 3, where it diverged" in verdict.evidence
    assert "an epoch is as fast" in verdict.evidence


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1868.3, "1,870"),
        (7830.7, "7,830"),
        (2.0, "2"),
        (0.012345, "0.0123"),
        (0.00001234, "0.0000123"),
        (-41000, "-41,000"),
        (0.0, "0"),
        (5e30, "5e+30"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    """Three significant digits, thousands apart, and an exponent only where nobody would read the zeros."""
    assert significant(value) == text


def test_what_rounds_to_no_difference_has_no_sign_of_one() -> None:
    """A distance of -0.001 points is +0.00, not -0.00, and of equal times neither is called faster."""
    accuracy, seconds = BY_KEY["minibatch-accuracy"].numbers[0], BY_KEY["sgd-time"].numbers[0]
    assert accuracy.distance(0.97 - 1e-6) == "+0.00 points"
    assert BY_KEY["sgd-losses"].numbers[0].distance(0.0503 - 1e-9) == "+0.0 %"
    assert [seconds.distance(7830.7 * scale) for scale in (1.0001, 0.9999, 2)] == [
        "as fast",
        "as fast",
        "2 times as long",
    ]


def test_a_trend_is_not_rough() -> None:
    """A straight curve has roughness 0 however steep, a ripple of 0.1 has 0.1, and three values are needed."""
    assert roughness(np.linspace(9, 1, 50).tolist()) == pytest.approx(0, abs=1e-12)
    assert roughness([0.0, 0.1] * 25) == pytest.approx(0.1)
    assert math.isnan(roughness([1.0, 2.0, 3.0]))
    assert math.isnan(roughness([1.0] * 9 + [math.inf]))


def test_claims_name_trainings_that_exist() -> None:
    """Every claim has its own key, and stands on experiments and variants of the project."""
    assert len(BY_KEY) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.published
        for name, variant in claim.sources:
            experiment = load_experiment(name)
            assert not variant or (isinstance(experiment, Comparison) and variant in experiment.variants)
            if isinstance(experiment, Comparison | Search):
                assert experiment.data.source == ("mnist" if claim.part == 1 else "cifar10")
        assert all(number.points >= 2 for number in claim.numbers if claim.part == 2 and "acc" in number.metric)
