"""What a search promises: a space that can be drawn from, split and trained, checked before anything is."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_spec import cnn, refusal, training

from mlplab import call
from mlplab.distributions import Distribution, LogUniform, Uniform, read_values
from mlplab.sources import READY, Data
from mlplab.space import Search
from mlplab.spec import MAX_SEED, Training

SGD, ADAM = call("keras.optimizers.SGD"), call("keras.optimizers.Adam")


def other(dropout: float = 0.0, units: int | None = None, share=0.5, size=8) -> Any:  # type: ignore[no-untyped-def]
    """Stands for another model function of a user's, annotated in part."""


def search(**changes: Any) -> Search:
    """A small legal search with `changes`."""
    legal: dict[str, Any] = {
        "question": "Which learning rate?",
        "data": "mnist",
        "base": training(),
        "space": {"learning_rate": [0.01, 0.1], "model.dropout": [0.0, 0.5]},
        "candidates": 3,
    }
    return Search(**{**legal, **changes})


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"question": "Which"}, ["question is 'Which'", "ends in a question mark"]),
        ({"data": "minst"}, ["'minst'", "Did you mean 'mnist'?"]),
        ({"base": None}, ["base is None", "a Training"]),
        ({"space": {}}, ["space is {}", "'learning_rate': LogUniform(1e-3, 1e-1)"]),
        ({"space": {"learning_rat": [1]}}, ["'learning_rat'", "Did you mean 'learning_rate'?"]),
        ({"space": {"splits": ["fixed"]}}, ["unknown choice of a training 'splits'"]),
        ({"space": {1: [1]}}, ["unknown choice of a training 1"]),
        ({"space": {"model.dropuot": [0.1]}}, ["model.dropuot is in space, but none of cnn takes it"]),
        (
            {"space": {"model.dropout": []}},
            ["the values of 'model.dropout' are []", "a list that is not empty, Uniform(low"],
        ),
        ({"space": {"model.dropout": 0.5}}, ["the values of 'model.dropout' are 0.5"]),
        ({"space": {"model.dropout": "abc"}}, ["the values of 'model.dropout' are 'abc'"]),
        (
            {"space": {"model.dropout": [0.2, "a"]}},
            ["'model.dropout' in space are (0.2, 'a')", "dropout of cnn is 'a'"],
        ),
        ({"space": {"learning_rate": [0.1, -1]}}, ["'learning_rate' in space are (0.1, -1)", "learning_rate is -1"]),
        ({"space": {"learning_rate": Uniform(0.1, 200)}}, ["learning_rate is 200"]),
        ({"candidates": 0}, ["candidates is 0", "from 1"]),
        ({"candidates": 5}, ["candidates is 5", "allow 4 different ones", "up to 4, or a Uniform"]),
        ({"space": {"epochs": Uniform(2, 3)}}, ["candidates is 3", "allow 2 different ones"]),
        ({"space": {"model.filters": Uniform(2, 3)}}, ["candidates is 3", "allow 2 different ones"]),
        (
            {"space": {"model.dropout": [0.2, 0.1, 0.2]}},
            ["the values of 'model.dropout' have 0.2 more than once", "Delete the rep"],
        ),
        (
            {"space": {"model.widths": Uniform(1, 9)}},
            ["'model.widths' in space are Uniform(", "widths of cnn is 1", "a tuple"],
        ),
        ({"space": {"optimizer": Uniform(1, 9)}}, ["'optimizer' are Uniform(", "legal: a list"]),
        ({"space": {"model": Uniform(1, 9)}}, ["'model' are Uniform(", "legal: a list"]),
        ({"space": {"optimizer": ["sgd", "adm"]}}, ["unknown optimizer 'adm'", "Did you mean 'adam'?"]),
        ({"space": {"epochs": Uniform(1.5, 9)}}, ["'epochs' in space are Uniform(", "epochs is 1.5", "whole"]),
        ({"space": {"model.filters": Uniform(1.5, 9)}}, ["'model.filters' in space are Uniform(", "1.5", "whole"]),
        (
            {"base": training(callbacks=["TerminateOnNaN"])},
            ["callbacks is TerminateOnNaN", "no validation set", "Delete callbacks"],
        ),
        ({"space": {"callbacks": [[], ["TerminateOnNaN"]]}}, ["no validation set", "Delete callbacks"]),
        (
            {"space": {"optimizer": ["adam", "rmsprop"], "optimizer.nesterov": [True, False]}},
            ["optimizer.nesterov is in space, but none of Adam, RMSprop takes it", "delete it"],
        ),
        (
            {"space": {"optimizer": ["sgd", "adam", "lion"], "optimizer.momentum": [0.0, 0.5, 0.9]}, "candidates": 6},
            ["candidates is 6", "allow 5 different ones"],
        ),
        ({"folds": 1}, ["folds is 1", "from 2"]),
        ({"seed": -1}, ["seed is -1"]),
    ],
)
def test_an_illegal_search_is_refused(changes: dict[str, Any], texts: list[str]) -> None:
    """What a search cannot draw, split or train is refused, with the value seen and what is legal."""
    said = refusal(search, **changes)
    assert [text for text in texts if text not in said] == []


def test_a_distribution_has_two_ends() -> None:
    """The higher above the lower; on a log scale above 0."""
    assert "high is 0.1" in refusal(Uniform, 0.1, 0.1)
    assert "low is 0" in refusal(LogUniform, 0, 1)
    assert "low is nan" in refusal(Uniform, math.nan, 1)


def test_what_only_some_take_is_drawn_for_those() -> None:
    """Momentum is SGD's alone, an argument of one model function that function's: the kinds of candidates."""
    kinds = search(
        space={
            "optimizer": ["sgd", "adam", call("keras.optimizers.RMSprop", rho=0.8)],
            "optimizer.momentum": [0.0, 0.9],
            "optimizer.nesterov": [True],
            "model": [cnn, other],
            "model.filters": [8, 16],
            "model.dropout": Uniform(0, 0.5),
        }
    ).drawn.kinds
    seen = {
        (kind["optimizer"][0] if isinstance(kind["optimizer"][0], str) else kind["optimizer"][0].name)
        + f" {kind['model'][0].name}": {name for name in kind if "." in name}
        for kind in kinds
    }
    assert seen == {
        "sgd cnn": {"optimizer.momentum", "optimizer.nesterov", "model.filters", "model.dropout"},
        "sgd other": {"optimizer.momentum", "optimizer.nesterov", "model.dropout"},
        "adam cnn": {"model.filters", "model.dropout"},
        "adam other": {"model.dropout"},
        "RMSprop cnn": {"optimizer.momentum", "model.filters", "model.dropout"},
        "RMSprop other": {"optimizer.momentum", "model.dropout"},
    }
    (only,) = search(space={"optimizer.momentum": [0.0, 0.9, 0.5]}).drawn.kinds
    assert only == {"optimizer.momentum": (0.0, 0.9, 0.5)}


def test_corners_are_a_candidate_of_each_kind() -> None:
    """They differ in all that decides whether a candidate can be built, and each is a training."""
    one = search(
        space={"optimizer": ["sgd", "adam"], "optimizer.momentum": [0.5], "epochs": Uniform(2, 9)}, candidates=2
    )
    assert [(c.optimizer, c.epochs) for c in one.corners()] == [(SGD.but(momentum=0.5), 2), (ADAM, 2)]


@pytest.mark.parametrize(
    ("name", "ends", "whole"),
    [
        ("batch_size", (16, 64), True),
        ("epochs", (1, 5), True),
        ("learning_rate", (1, 5), False),
        ("model.filters", (8, 64), True),
        ("model.dropout", (0, 0.5), False),
        ("optimizer.weight_decay", (1e-5, 1e-3), False),
        ("optimizer.momentum", (0, 1), False),
        ("optimizer.gradient_accumulation_steps", (2, 8), True),
    ],
)
def test_whole_numbers_are_drawn_where_they_are_taken(name: str, ends: tuple[float, float], whole: bool) -> None:
    """By the annotation, else the default's type, of what takes the number; else by the ends of the range."""
    assert search(space={name: Uniform(*ends)}).drawn.is_whole(name) == whole


def test_whole_numbers_of_ones_own_function() -> None:
    """Without an annotation the default tells; where neither does, two whole ends do."""
    own = training(model=other)
    cases = {"model.units": True, "model.share": False, "model.size": True, "model.dropout": False}
    for name, whole in cases.items():
        assert search(base=own, space={name: Uniform(1, 9)}).drawn.is_whole(name) == whole


@pytest.mark.parametrize(
    ("space", "choices"),
    [
        (
            {"optimizer": ["sgd", "adam"], "optimizer.momentum": [0.0, 0.9]},
            {"optimizer": SGD, "optimizer.momentum": 0.9},
        ),
        ({"optimizer": ["sgd", "adam"], "optimizer.momentum": [0.0, 0.9]}, {"optimizer": ADAM}),
        (
            {"optimizer": [SGD.but(nesterov=True), "adam"], "optimizer.momentum": Uniform(0, 0.9)},
            {"optimizer": SGD.but(nesterov=True), "optimizer.momentum": 0.3},
        ),
        (
            {"model": [cnn, other], "model.filters": [8, 16], "model.dropout": [0.5]},
            {"model": call(cnn), "model.filters": 8, "model.dropout": 0.5},
        ),
        (
            {"model": [cnn, other], "model.filters": [8], "learning_rate": [0.5]},
            {"model": call(other), "learning_rate": 0.5},
        ),
        (
            {"optimizer.momentum": [0.5, 0.9], "batch_size": ["full", 8]},
            {"optimizer.momentum": 0.9, "batch_size": "full"},
        ),
    ],
)
def test_a_candidates_choices_are_what_was_drawn(space: dict[str, Any], choices: dict[str, Any]) -> None:
    """An optimizer or model is shown as it is in the space, without the arguments that are drawn on their own."""
    one = search(space=space, candidates=1)
    candidate = one.base.but(choices)
    assert one.choices(candidate) == choices
    assert one.base.but(one.choices(candidate)) == candidate


def test_a_search_cannot_be_changed() -> None:
    """Its fields, its space and the lists in that refuse to be changed once checked."""
    widths = [[8], [8, 8]]
    one = search(space={"model.widths": widths, "learning_rate": Uniform(0.1, 1)})
    with pytest.raises(FrozenInstanceError):
        one.folds = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.space["epochs"] = [0]  # type: ignore[index]
    widths[0].append(0)
    assert one.space["model.widths"] == ((8,), (8, 8))
    for copied in (copy.deepcopy(one), pickle.loads(cloudpickle.dumps(one))):
        assert copied == one
        assert hash(copied) == hash(one)


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Up to three different values."""
    return st.lists(values, min_size=1, max_size=3, unique=True)


SPACE = {
    "model.widths": lists(st.lists(st.integers(1, 512), min_size=1, max_size=3).map(tuple)),
    "model.dropout": lists(st.floats(0, 0.99)),
    "optimizer": lists(st.sampled_from(["sgd", "adam", "lion", call("keras.optimizers.AdamW", weight_decay=0.1)])),
    "optimizer.weight_decay": lists(st.floats(0, 1)) | st.just(LogUniform(1e-5, 1e-3)),
    "loss": lists(st.sampled_from(["mse", "mae", call("keras.losses.Huber", delta=2.0)])),
    "batch_size": lists(st.integers(1, 10_000_000) | st.just("full")),
    "learning_rate": lists(st.floats(1e-6, 100))
    | st.builds(Uniform, st.floats(1e-6, 1e-3), st.floats(1e-2, 100))
    | st.builds(LogUniform, st.floats(1e-6, 1e-3), st.floats(1e-2, 100)),
}


@st.composite
def searches(draw: st.DrawFn) -> Search:
    """Any legal search over some of the choices."""
    space = draw(st.fixed_dictionaries({}, optional=SPACE).filter(bool))
    possible = math.prod(len(values) for values in space.values() if not isinstance(values, Distribution))
    return Search(
        question="Which?",
        data=draw(st.sampled_from(READY)),
        base=training(),
        space=space,
        candidates=draw(st.integers(1, possible)),
        folds=draw(st.integers(2, 100)),
        scoring=draw(st.sampled_from(["", "f1_macro"])),
        seed=draw(st.integers(0, MAX_SEED)),
    )


@pytest.mark.slow
@given(searches())
def test_the_json_of_a_search_says_all_of_it(original: Search) -> None:
    """What `to_json` writes is standard JSON that has every field, so that an equal search can be made of it."""
    text = original.to_json()
    record = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    known: dict[str, Any] = {"base": Training.from_dict(record["base"]), "data": Data.from_dict(record["data"])}
    known["space"] = read_values(record["space"])
    assert Search(**{**record, **known}) == original


@given(searches())
def test_every_corner_is_a_candidate_again(original: Search) -> None:
    """Of each kind of candidate the choices suffice to make it anew."""
    for corner in original.corners():
        chosen = original.choices(corner)
        assert original.base.but({**chosen, "name": corner.name}) == corner
        assert set(chosen) <= set(original.space)


def test_with_base_and_seed_leave_the_space() -> None:
    """What the candidates share may change; a choice that is searched keeps its values."""
    changed = search().with_base(epochs=9, learning_rate=0.5).with_seed(7)
    assert (changed.base.epochs, changed.seed, changed.space) == (9, 7, search().space)
