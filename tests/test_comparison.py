"""What a comparison promises: checked as a whole, frozen, JSON and back, with its variants, seeds and baseline."""

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError
from typing import Any

import cloudpickle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_spec import changes, cnn, comparison, refusal, training

from mlplab import call, labels
from mlplab.checks import UsageError
from mlplab.comparison import Comparison, WinnerOf
from mlplab.seeds import Until
from mlplab.sources import READY, Data
from mlplab.spec import MAX_SEED, Metric


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"question": "Adam is better"}, ["'Adam is better'", "ends in a question mark"]),
        ({"question": ""}, ["''", "ends in a question mark"]),
        ({"question": None}, ["None", "ends in a question mark"]),
        ({"name": 3}, ["name is 3", "a text"]),
        ({"data": "minst"}, ["'minst'", "Did you mean 'mnist'?"]),
        ({"data": 3}, ["data is 3, a int", "a ready-made name"]),
        ({"data": lambda: 1}, ["a lambda", "at the top level"]),
        ({"select": "test_accuracy"}, ["'test_accuracy'", "test set", "'val_accuracy'"]),
        ({"select": "val_wer"}, ["'val_wer'", "best='max'"]),
        ({"select": 3}, ["3", "as Keras logs it"]),
        ({"seeds": (-1,)}, ["seed is -1", f"from 0 to {MAX_SEED}"]),
        ({"seeds": (1, MAX_SEED + 1)}, [f"seed is {MAX_SEED + 1}", f"from 0 to {MAX_SEED}"]),
        ({"seeds": (True,)}, ["seed is True", f"from 0 to {MAX_SEED}"]),
        ({"seeds": ()}, ["seeds is ()", "from 1 to 1,000"]),
        ({"seeds": 0}, ["seeds is 0", "from 1 to 1000"]),
        ({"seeds": "10"}, ["seeds is '10'", "a tuple of them"]),
        ({"seeds": (1, 2, 1)}, ["seeds has 1 more than once"]),
        ({"baseline": "c"}, ["unknown baseline 'c'"]),
        ({"baseline": ()}, ["unknown baseline ()"]),
        ({"margin": -0.1}, ["margin is -0.1", "a number from 0"]),
        ({"margin": 2}, ["the margin of val_accuracy is 2", "from 0 to 1"]),
        ({"time_margin": 2}, ["time_margin is 2", "from 0 to 1"]),
        ({"measures": [3]}, ["3", "as Keras logs it"]),
        ({"targets": 0.97}, ["targets is 0.97", "{'val_accuracy': 0.97}"]),
        ({"targets": {"accuracy": 0.97}}, ["a target is of 'accuracy'", "such as 'val_accuracy'"]),
        ({"targets": {"val_accuracy": 97}}, ["the target of val_accuracy is 97", "from 0 to 1"]),
        ({"targets": {"val_accuracy": -1}}, ["the target of val_accuracy is -1", "from 0 to 1"]),
        ({"base": {"epochs": 3}}, ["base is {'epochs': 3}", "a Training"]),
        ({"variants": {}}, ["variants is {}", "at least one entry"]),
        ({"variants": ["SGD"]}, ["variants is ['SGD']", "a dict"]),
        ({"variants": {"a": None}}, ["variant 'a' is None", "a dict"]),
        ({"variants": {"": {}}}, ["name is ''", "not empty"]),
        ({"variants": {3: {}}}, ["name is 3", "not empty"]),
        ({"variants": {"a": {"name": "b"}}}, ["variant 'a' sets 'name'", "delete the entry"]),
        ({"variants": {"a": {"epochs": 0}}}, ["variant 'a': epochs is 0", "from 1 to 100000"]),
        ({"variants": {"a": {"model.dropout": object()}}}, ["variant 'a': model.dropout is <object", "call(…)"]),
        ({"variants": {"a": {}, "b": {"epochs": 3}}}, ["'a' and 'b' are equal", "change a choice of one"]),
        ({"variants": {"a": {}, "b": {"model.dropout": 0}}}, ["'a' and 'b' are equal"]),
        ({"variants": {"a": {"optimizer": "SGD"}, "b": {"optimizer.momentum": 0.0}}}, ["'a' and 'b' are equal"]),
        ({"variants": {"a": {}, "b": {"splits": "resampled"}}}, ["splits is 'fixed' for some", "Set it in base"]),
    ],
)
def test_an_illegal_comparison_is_refused(given: dict[str, Any], texts: list[str]) -> None:
    """The message shows what was seen and what is legal, and names the variant concerned."""
    text = refusal(comparison, **given)
    for expected in texts:
        assert expected in text


def test_a_comparison_cannot_be_changed() -> None:
    """Fields, the mapping of variants, the mapping in it and the lists in that refuse to be changed once checked."""
    widths = [8, 8]
    change: dict[str, Any] = {"model.widths": widths}
    frozen = comparison(variants={"a": change}, targets={"val_accuracy": 0.9})
    with pytest.raises(FrozenInstanceError):
        frozen.seeds = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        frozen.base.epochs = 0  # type: ignore[misc]
    for held in (frozen.variants, frozen.variants["a"], frozen.targets):
        with pytest.raises(TypeError):
            held["b"] = {}  # type: ignore[index]
    change["epochs"] = [0]
    widths.append(0)
    assert frozen.variants == {"a": {"model.widths": (8, 8)}}
    assert frozen.resolved()[0].model == call(cnn, widths=(8, 8))
    for copied in (copy.deepcopy(frozen), pickle.loads(cloudpickle.dumps(frozen))):
        assert copied == frozen
        assert hash(copied) == hash(frozen)


names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)
metrics = st.sampled_from(["val_accuracy", "val_loss", "val_auc", Metric("val_wer", best="min", unit="words")])


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    """Any legal comparison."""
    variants = draw(st.dictionaries(names, changes, min_size=1, max_size=4))
    base = training().but(draw(changes))
    try:
        different = {base.but(change).canonical for change in variants.values()}
    except UsageError:  # a momentum for what has none
        different = set()
    assume(len(different) == len(variants))
    return Comparison(
        question=draw(names) + "?",
        data=draw(st.sampled_from(READY) | st.just(Data("people.csv", target="income", groups="household"))),
        base=base,
        variants=variants,
        select=draw(metrics),
        measures=draw(st.lists(metrics, max_size=2)),
        seeds=draw(
            st.integers(1, 9)
            | st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=5, unique=True)
            | st.builds(Until, most=st.integers(2, 200), look_every=st.integers(2, 9), first=st.integers(0, 99))
        ),
        baseline=draw(st.just("") | st.sampled_from(list(variants))),
        margin=draw(st.none() | st.floats(0, 1)),
        targets=draw(st.dictionaries(st.sampled_from(["val_accuracy", "val_loss"]), st.floats(0, 1))),
        name=draw(st.just("") | names),
    )


@settings(max_examples=40)
@given(comparisons())
def test_json_gives_the_comparison_back(original: Comparison) -> None:
    """What `to_json` writes is standard JSON, and `from_json` makes an equal comparison of it."""
    text = original.to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    back = Comparison.from_json(text)
    assert back == original
    assert hash(back) == hash(original)
    assert back.resolved() == original.resolved()
    assert back.judged == original.judged


@given(comparisons())
def test_a_resolved_variant_is_base_with_its_change(original: Comparison) -> None:
    """Each variant has its key as name, its own values where it gives some, and base's everywhere else."""
    for variant, (name, change) in zip(original.resolved(), original.variants.items(), strict=True):
        assert variant == original.base.but({**change, "name": name})
        for field in {"batch_size", "epochs", "precision", "loss", "learning_rate"} - set(change):
            assert getattr(variant, field) == getattr(original.base, field)


@given(comparisons(), st.integers(1, 100_000))
def test_with_base_wins_over_the_variants(original: Comparison, epochs: int) -> None:
    """A change to all variants is in each of them, whatever they said; nothing else changes; the original stays."""
    before = original.resolved()
    try:
        changed = original.with_base(epochs=epochs).resolved()
    except UsageError as error:
        assert "are equal" in str(error)  # noqa: PT017 - epochs were all that told two of them apart
        assert len({variant.but(epochs=epochs).canonical for variant in before}) < len(before)
        return
    assert changed == tuple(variant.but(epochs=epochs) for variant in before)
    assert original.resolved() == before


@given(comparisons(), st.data())
def test_only_keeps_the_order_of_the_comparison(original: Comparison, data: st.DataObject) -> None:
    """Selecting variants, in any order and even twice, leaves just these, in the comparison's order."""
    wanted = data.draw(st.lists(st.sampled_from(list(original.variants)), min_size=1))
    assert original.only(wanted).resolved() == tuple(v for v in original.resolved() if v.name in wanted)


def test_only_refuses_to_keep_nothing() -> None:
    """A comparison of no variants is no comparison."""
    assert "variants is" in refusal(comparison().only, [])


@given(st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=5, unique=True))
def test_with_seeds_changes_the_seeds_alone(seeds: list[int]) -> None:
    """The comparison with other seeds differs in nothing else."""
    assert comparison().with_seeds(tuple(seeds)) == comparison(seeds=seeds)


def test_a_number_of_seeds_is_so_many_different_ones() -> None:
    """`seeds=10` are ten seeds, the first of them the one that a comparison has by itself."""
    assert comparison(seeds=10).each_seed == tuple(range(1234, 1244))
    assert comparison().each_seed == comparison(seeds=1).each_seed == (1234,)


def test_seeds_until_the_verdicts_are_clear_are_looked_at_now_and_then() -> None:
    """`Until` has the seeds that it may come to and the looks on the way, after those that were made before."""
    until = Until(most=12, look_every=5, first=7)
    assert comparison(seeds=until).each_seed == tuple(range(7, 19))
    assert comparison(seeds=until).looks == until.looks == (5, 10, 12)
    assert until.after((4, 11)) == (4, 11, 12)
    assert until.after((4, 8, 20)) == (4, 8, 12)
    assert comparison(seeds=12).looks == ()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"most": 1}, "most of Until is 1; legal: a whole number from 2"),
        ({"look_every": 1}, "look_every of Until is 1; legal: a whole number from 2"),
        ({"most": 1_000, "look_every": 5}, "makes 200 looks; legal: up to 100. Look less often: look_every=10"),
    ],
)
def test_an_until_that_cannot_be_is_refused(values: dict[str, int], says: str) -> None:
    """What is wrong with it is said with the value, what is legal, and the remedy."""
    with pytest.raises(UsageError, match=re.escape(says)):
        Until(**values)


def test_a_baseline_that_is_left_out_gives_way_to_the_first() -> None:
    """The first variant is the baseline where none is named, or where the named one is not selected."""
    variants = {"a": {}, "b": {"model.dropout": 0.1}, "c": {"model.dropout": 0.2}}
    three = comparison(variants=variants, baseline="b")
    assert three.against == "b"
    assert three.only(["b", "c"]).against == "b"
    assert three.only(["a", "c"]).against == "a"


def test_a_target_has_the_direction_of_its_metric() -> None:
    """A target of a loss is reached from above, one of a share from below."""
    one = comparison(targets={"val_accuracy": 0.9, "val_loss": -3.5})
    assert [one.target(name).maximizes for name in one.targets] == [True, False]


def test_splits_are_the_same_for_all_variants() -> None:
    """`resampled` in base is every variant's: a new split with each seed, the same for all."""
    one = comparison(base=training(splits="resampled"))
    assert {variant.splits for variant in one.resolved()} == {"resampled"}
    assert Comparison.from_json(one.to_json()) == one


def test_a_winner_is_filled_in_when_its_search_is_known() -> None:
    """Until then the variant is named as waiting; afterwards it is base with the choices, and its twin is dropped."""
    variants = {"best": WinnerOf("hunt"), "ours": {"model.dropout": 0.2}, "theirs": {"model.dropout": 0.5}}
    waiting = comparison(variants=variants)
    assert waiting.searches == {"best": "hunt"}
    assert "'best' is the winner of 'hunt'" in refusal(waiting.resolved)
    assert waiting.with_base(epochs=9).searches == {"best": "hunt"}

    def rates(known: Comparison) -> list[tuple[str, float]]:
        return [(v.name, v.model.arguments["dropout"]) for v in known.resolved()]

    known = waiting.with_choices("best", {"model.dropout": 0.3})
    assert rates(known) == [("best", 0.3), ("ours", 0.2), ("theirs", 0.5)]
    twin = waiting.with_choices("best", {"model.dropout": 0.5})
    assert rates(twin) == [("best", 0.5), ("ours", 0.2)]


def test_a_winners_optimizer_has_the_arguments_that_were_chosen_alone() -> None:
    """Where another optimizer is chosen, base's arguments are not its own; the other variants keep base's."""
    base = training(optimizer=call("keras.optimizers.SGD", momentum=0.9))
    waiting = comparison(base=base, variants={"best": WinnerOf("hunt"), "ours": {"model.dropout": 0.2}})
    for chosen, optimizer in (
        ({"optimizer": "adam"}, call("keras.optimizers.Adam")),
        (
            {"optimizer": call("keras.optimizers.SGD"), "optimizer.momentum": 0.5},
            call("keras.optimizers.SGD", momentum=0.5),
        ),
    ):
        known = waiting.with_choices("best", chosen).resolved()
        assert [variant.optimizer for variant in known] == [optimizer, base.optimizer]


def test_the_winner_of_a_search_is_trained_as_long_as_the_base() -> None:
    """As long as what the search chooses is not known; it counts where the others have epochs of their own."""
    one = comparison(base=training(epochs=50), variants={"best": WinnerOf("hunt"), "ours": {"epochs": 5}})
    assert one.epochs == {"best": 50, "ours": 5}
    assert labels.title(one, []).endswith(" · 5 to 50 epochs")
