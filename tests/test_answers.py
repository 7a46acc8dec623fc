"""What an answer promises: it says what the pairwise decisions say, all of it, and nothing else."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from words import mlp

from mlplab import Comparison
from mlplab.answers import answer, answer_of
from mlplab.results import DIVERGED, FAILED, Result, measures
from mlplab.verdicts import BETTER, EQUIVALENT, ONE_SEED, UNDECIDED, Measure, Verdict, judge

DECISIONS = (BETTER, EQUIVALENT, UNDECIDED, ONE_SEED)
NAMES = ("Ada", "Bob", "Cyd", "Dee")


def a_verdict(a: str, b: str, decision: str, **changes: Any) -> Verdict:
    """A verdict of points, as the decision has it."""
    known: dict[str, Any] = {
        "measure": "val_accuracy",
        "words": "validation accuracy",
        "unit": "points",
        "a": a,
        "b": b,
        "seeds": 1 if decision == ONE_SEED else 10,
        "dropped": 0,
        "mean_a": 0.98,
        "mean_b": 0.96,
        "difference": 0.0132,
        "low": 0.0126,
        "high": 0.0138,
        "p": 0.001,
        "p_holm": 0.001,
        "effect": 1.0,
        "probability": 1.0,
        "margin": 0.002,
        "decision": decision,
        "more_seeds": 12 if decision == UNDECIDED else None,
        "sentence": "",
    }
    return Verdict(**{**known, **changes})


# ------------------------------------------------------------------------------- what a reader takes from an answer


def names_in(text: str) -> list[str]:
    return re.split(r", | and | or ", text)


Claim = tuple[str, str, str]


def claims_in(text: str) -> list[Claim]:
    """What the first sentence says of pairs: (decision, better or first, worse or second), read clause by clause."""
    sentence = re.match(r"(.*?)( \([\d to]+ seeds?\))?, at these settings\.", text)
    assert sentence, text
    found: list[Claim] = []
    before: list[str] = []
    for clause in sentence[1].split("; "):
        group: list[str] = []
        if match := re.fullmatch(r"One seed cannot tell which variant is better, (.*)", clause):
            found += [(ONE_SEED, a, b) for a, b in itertools.combinations(names_in(match[1]), 2)]
        elif match := re.fullmatch(r"(.*) beats? (.*?) (by|with) \S.*", clause):
            who = names_in(match[1])
            if match[1] in ("both", "all 3"):
                assert len(before) == {"both": 2, "all 3": 3}[match[1]]
                who = before
            assert ("beats" in clause) == (len(who) == 1)
            found += [(BETTER, a, b) for a in who for b in names_in(match[2])]
        elif match := re.fullmatch(r"(.*) are equally good within .*", clause):
            group = names_in(match[1])
            found += [(EQUIVALENT, a, b) for a, b in itertools.combinations(group, 2)]
        elif match := re.fullmatch(r"(.*) are each as good as (\w+) within .*", clause):
            found += [(EQUIVALENT, match[2], other) for other in names_in(match[1])]
        elif match := re.fullmatch(r"[Uu]ndecided between (\w+) and each of (.*?)( in .*)?", clause):
            found += [(UNDECIDED, match[1], other) for other in names_in(match[2])]
        elif match := re.fullmatch(r"[Uu]ndecided between (.*?)( in .*)?", clause):
            group = names_in(match[1])
            found += [(UNDECIDED, a, b) for a, b in itertools.combinations(group, 2)]
        elif match := re.fullmatch(r"[Oo]ne seed cannot tell (\w+) from (.*?)( in .*)?", clause):
            found += [(ONE_SEED, match[1], other) for other in names_in(match[2])]
        else:
            pytest.fail(f"a clause that no reader understands: {clause!r}")
        before = group
    return found


def unsided(claims: Sequence[Claim]) -> list[Any]:
    """Claims in an order, with sides where a decision has them."""
    return sorted((d, a, b) if d == BETTER else (d, *sorted((a, b))) for d, a, b in claims)


def pairs_of(ranked: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """The pairs that have a verdict, the better mean first: each with the baseline, and the best two."""
    pairs = {tuple(sorted((name, baseline), key=ranked.index)) for name in ranked if name != baseline}
    return sorted({*pairs, tuple(ranked[:2])})


def combinations(many: int) -> Iterator[tuple[list[str], list[Verdict]]]:
    """All orders of means, baselines and decisions."""
    for ranked in itertools.permutations(NAMES[:many]):
        pairs = pairs_of(ranked, NAMES[0])
        for decisions in itertools.product(DECISIONS, repeat=len(pairs)):
            yield list(ranked), [a_verdict(*pair, one) for pair, one in zip(pairs, decisions, strict=True)]


@pytest.mark.parametrize("many", [2, 3, 4])
def test_an_answer_says_every_decision_once_and_nothing_else(many: int) -> None:
    """Of all orders and decisions: what is read from the clauses is what the verdicts decided, pair by pair."""
    counted = 0
    for ranked, verdicts in combinations(many):
        text = answer(verdicts, ranked)
        claimed, decided = claims_in(text), [(v.decision, v.a, v.b) for v in verdicts]
        if {v.decision for v in verdicts} == {ONE_SEED}:
            assert {name for claim in claimed for name in claim[1:]} == set(ranked)
        else:
            assert unsided(claimed) == unsided(decided), text
        assert all(name in text for name in ranked), text
        assert not re.search("winner|best|worst", text), text
        counted += 1
    assert counted == {2: 2 * 4, 3: 4 * 4**2 + 2 * 4**3, 4: 12 * 4**3 + 12 * 4**4}[many]


def test_any_set_of_pairs_is_told_as_it_was_decided() -> None:
    """Whichever pairs have a verdict, as where more than the baseline's are drawn, clauses say these pairs alone."""
    rng = np.random.default_rng(0)
    every = list(itertools.combinations(NAMES, 2))
    for _ in range(2000):
        pairs = [every[i] for i in rng.permutation(len(every))[: rng.integers(1, len(every) + 1)]]
        verdicts = [a_verdict(*pair, str(rng.choice(DECISIONS[:3]))) for pair in pairs]
        text = answer(verdicts, NAMES)
        assert unsided(claims_in(text)) == unsided([(v.decision, v.a, v.b) for v in verdicts]), text
        assert all(name in text for name in NAMES)


# ------------------------------------------------------------------------------- as people say it


def test_two_that_are_equally_good_and_beat_a_third() -> None:
    """The issue's own example, from three verdicts."""
    of_two = a_verdict("RMSprop", "Adam", EQUIVALENT)
    verdicts = [of_two, a_verdict("RMSprop", "SGD", BETTER), a_verdict("Adam", "SGD", BETTER)]
    assert answer(verdicts, ["RMSprop", "Adam", "SGD"]) == (
        "RMSprop and Adam are equally good within 0.2 points of validation accuracy; both beat SGD by 1.32 points (10 "
        "seeds), at these settings."
    )
    assert "both" not in answer(verdicts[:2], ["RMSprop", "Adam", "SGD"])


def test_many_variants_are_told_together_with_the_range_of_their_differences() -> None:
    """Winners over one variant share a clause, and what differs among them is a range of the verdicts' own numbers."""
    sizes = {"A": 0.0344, "B": 0.0231, "C": 0.0121}
    verdicts = [
        a_verdict(name, "D", BETTER, difference=size, low=size - 0.001, high=size + 0.001)
        for name, size in sizes.items()
    ]
    verdicts.append(a_verdict("A", "B", UNDECIDED, more_seeds=None))
    assert answer(verdicts, "ABCD", seconds=dict.fromkeys("ABCD", 60.0)) == (
        "Undecided between A and B in validation accuracy; A, B and C beat D by 1.21 to 3.44 points (10 seeds), at "
        "these settings. It takes more than 1,000 more seeds to tell A from B."
    )


def test_what_is_undecided_says_what_would_decide_it_and_its_cost() -> None:
    """Seeds and minutes for them, and the options that train them, with the minutes that those take."""
    verdicts = [a_verdict("A", "C", BETTER), a_verdict("A", "B", UNDECIDED)]
    seconds = {"A": 15.0, "B": 20.0, "C": 1000.0}
    assert answer(verdicts, "ABC", seconds=seconds, settings="at 16 trials each") == (
        "Undecided between A and B in validation accuracy; A beats C by 1.32 points (10 seeds), at 16 trials each. "
        "About 12 more seeds of A and B would tell, about 7 minutes; `--seeds until:22` goes on from here."
    )
    assert answer(verdicts[1:], "AB", seconds={"A": 1.0}).endswith(
        "About 12 more seeds of A and B would tell; `--seeds until:22` goes on from here."
    )
    assert answer(verdicts[1:], "AB", goes_on=False).endswith(
        "About 12 more seeds of A and B would tell; `--seeds 22` trains so many."
    )


def test_pairs_of_unequal_numbers_of_seeds_say_from_how_many_to_how_many() -> None:
    """Where pairs stopped at different seeds, both ends are told."""
    verdicts = [a_verdict("A", "B", BETTER, seeds=5), a_verdict("A", "C", BETTER, seeds=20)]
    assert "(5 to 20 seeds)" in answer(verdicts, "ABC")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": "nats", "words": "validation loss", "margin": 0.02}, "beats B by 0.0132 nats of validation loss"),
        ({"unit": "mm", "words": "validation error"}, "beats B by 0.0132 mm of validation error"),
        ({"unit": "", "words": "validation reward"}, "beats B by 0.0132 of validation reward"),
        (
            {"unit": "times", "words": "validation mse", "difference": 0.88, "low": 0.85, "high": 0.9},
            "beats B with 0.88 times its validation mse",
        ),
    ],
    ids=["nats", "other", "none", "ratio"],
)
def test_amounts_are_in_the_measures_unit(changes: Mapping[str, Any], said: str) -> None:
    """Points, nats, any other unit, and ratios."""
    assert answer([a_verdict("A", "B", BETTER, **changes)], "AB") == f"A {said} (10 seeds), at these settings."


def test_amounts_are_those_of_the_verdicts_sentences() -> None:
    """Of random seeds, in every unit and direction: each number of an answer stands in the sentence of its pair."""
    rng = np.random.default_rng(1)
    seen = set()
    for unit, maximizes in itertools.product(("points", "nats", "times", "mm"), (True, False)):
        for spread in (0.001, 0.01, 0.1):
            values = {name: 0.5 + 0.05 * (i // 2) + spread * rng.normal(size=6) for i, name in enumerate(NAMES)}
            measure = Measure(
                name="m", words="words", values=values, maximizes=maximizes, margin=0.02, unit=unit,
                relative=unit == "times",
            )  # fmt: skip
            verdicts = judge([measure], NAMES[0])
            ranked = sorted(NAMES, key=lambda name: float(np.mean(values[name])), reverse=maximizes)
            for verdict in verdicts:
                assert re.search(rf"(?<![\d.]){re.escape(verdict.size)}(?![\d.])", verdict.sentence), verdict
            text = answer(verdicts, ranked)
            assert unsided(claims_in(text)) == unsided([(v.decision, v.a, v.b) for v in verdicts])
            sizes = {v.size for v in verdicts if v.decision == BETTER}
            for low, high in re.findall(r"(?:by|with) (\S+)(?: to (\S+))?", text):
                assert {low, high} - {""} <= sizes, text
            seen |= {v.decision for v in verdicts}
    assert seen == {BETTER, EQUIVALENT, UNDECIDED}


def test_of_very_many_variants_the_rest_is_counted() -> None:
    """A list has an end; how many are left out is said."""
    many = [f"v{i}" for i in range(40)]
    text = answer([a_verdict(name, "base", BETTER) for name in many], [*many, "base"])
    assert text.startswith("v0, v1,")
    assert "v10 and 29 more beat base by 1.32 points" in text


# ------------------------------------------------------------------------------- where there is little to say


def test_one_variant_one_seed_and_no_pairs_say_so() -> None:
    """One variant is compared with nothing; one seed tells nothing; trainings that are no pair decide nothing."""
    assert answer([], ["A"]) == "A is the only variant, so nothing is compared."
    verdicts = [a_verdict("A", "C", ONE_SEED), a_verdict("B", "C", ONE_SEED)]
    assert answer(verdicts, "ABC", seconds=dict.fromkeys("ABC", 10.0)) == (
        "One seed cannot tell which variant is better, A, B or C, at these settings. `--seeds 10` takes about 5 "
        "minutes."
    )
    assert answer(verdicts, "ABC").endswith("Take several, such as `--seeds 10`.")
    assert answer([], "ABC", unpaired=True) == (
        "Nothing is decided between A, B and C, as the trainings of a seed are no pair, at these settings."
    )


def results_of(values: Mapping[str, Sequence[float | str]], **clocks: float) -> tuple[Comparison, list[Result]]:
    """Trainings with these accuracies, one a seed; a text is how one ended instead."""
    many = max(map(len, values.values()))
    comparison = Comparison(
        question="Which?", data="digits", base=mlp(epochs=1), seeds=many, name="trial",
        variants={name: {"learning_rate": 0.01 * (i + 1)} for i, name in enumerate(values)},
    )  # fmt: skip
    found = []
    for variant in comparison.resolved():
        for seed, value in zip(comparison.each_seed, values[variant.name], strict=True):
            result = Result(variant=variant, seed=seed, order="same", **clocks)
            if isinstance(value, str):
                result.status = value
            else:
                result.best_epoch = 1
                result.history = {name: [value] for name in ("loss", "val_accuracy", "train_eval_accuracy")}
                result.history["train_seconds"] = [2.0]
            found.append(result)
    return comparison, found


def told(values: Mapping[str, Sequence[float | str]], **clocks: float) -> str:
    comparison, found = results_of(values, **clocks)
    verdicts = judge(measures(comparison, found), comparison.against)
    return answer_of(comparison, found, verdicts)


FINE, WORSE = (0.980, 0.981, 0.979, 0.982, 0.980), (0.960, 0.962, 0.959, 0.961, 0.960)


def test_a_variant_that_failed_is_named_and_beats_none() -> None:
    """Without a value a variant is in no decision, and its end is told."""
    text = told({"base": WORSE, "good": FINE, "bad": [FAILED] * 5})
    assert text.startswith("good beats base by 2.00 points of validation accuracy (5 seeds), at these settings.")
    assert text.endswith("bad: 5 of 5 failed.")
    text = told({"base": WORSE, "good": FINE, "wild": [0.1, DIVERGED, 0.2, 0.1, 0.1]})
    assert "(4 to 5 seeds)" in text
    assert "wild: 1 of 5 diverged." in text


def test_without_a_baseline_what_was_compared_is_told_alone() -> None:
    """Where the baseline failed only the best two have a verdict; the third is named as compared with none."""
    text = told({"base": [FAILED] * 5, "good": FINE, "fair": WORSE, "poor": [x - 0.1 for x in WORSE]})
    assert text == (
        "good beats fair by 2.00 points of validation accuracy (5 seeds), at these settings. base: 5 of 5 failed. No "
        "variant with a result is compared with poor."
    )
    assert told({"base": [FAILED], "good": [0.9]}) == (
        "Nothing is decided between good and base, as no seed has a value of two that are compared, at these settings. "
        "base failed."
    )
    apart = told({"base": [0.9, FAILED], "good": [FAILED, 0.9]})
    assert apart.startswith("Nothing is decided between base and good, as no seed has a value of two")


def test_minutes_are_of_all_that_a_seed_takes() -> None:
    """Training, evaluating and compiling; of seeds side by side the share of the whole, not each one's own clock."""
    assert told({"A": FINE, "B": [0.982, 0.979, 0.981, 0.980, 0.982]}, evaluate_seconds=4.0) == (
        "Undecided between B and A in validation accuracy (5 seeds), at these settings. About 17 more seeds of B and A "
        "would tell, about 3 minutes; `--seeds until:22` goes on from here."
    )
    one = {"A": [0.9], "B": [0.91]}
    assert "`--seeds 10` takes about 4 minutes." in told(one, evaluate_seconds=6.0, compile_seconds=4.0)
    assert "`--seeds 10` takes about 34 minutes." in told(one, group_seconds=100.0, solo_epoch_seconds=1.0)


def test_less_is_better_where_the_metric_says_so() -> None:
    """Of a loss the smaller mean beats, and the order of the variants is that of the table."""
    measure = Measure(name="l", words="validation loss", values={"A": FINE, "B": WORSE}, maximizes=False, margin=0.01)
    assert claims_in(answer(judge([measure], "A"), ["B", "A"])) == [(BETTER, "B", "A")]
