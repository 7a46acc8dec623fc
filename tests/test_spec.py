"""What `mlplab.spec` promises: what is legal passes unchanged, what is not is refused in words that help."""

import json
import math
import operator
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mlplab.spec import (
    ACTIVATIONS,
    DATASETS,
    KINDS,
    MAX_SEED,
    OPTIMIZERS,
    SELECTION_METRICS,
    Comparison,
    Options,
    Overview,
    Prediction,
    Range,
    Search,
    UsageError,
    Variant,
    WinnerOf,
    better,
    experiment_names,
    load_experiment,
)

ROOT = Path(__file__).resolve().parent.parent


def comparison(**changes: Any) -> Comparison:
    """A small legal comparison with `changes`."""
    legal: dict[str, Any] = {
        "question": "Is Adam better than SGD?",
        "dataset": "mnist",
        "base": Variant(hidden=(8,), epochs=3),
        "variants": {"SGD": {}, "Adam": {"optimizer": "adam", "learning_rate": 0.001}},
    }
    return Comparison(**{**legal, **changes})


def refusal(make: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UsageError) as caught:
        make(*arguments, **named)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("name", "x" * 101, "up to 100 printable characters"),
        ("name", "a\nb", "up to 100 printable characters"),
        ("name", 3, "up to 100 printable characters"),
        ("hidden", (), "a tuple of layer widths"),
        ("hidden", 128, "a tuple of layer widths"),
        ("hidden", "128", "a tuple of layer widths"),
        ("hidden", (0,), "a whole number from 1 to 65536"),
        ("hidden", (8, 65_537), "a whole number from 1 to 65536"),
        ("hidden", (True,), "a whole number from 1 to 65536"),
        ("hidden", (8.0,), "a whole number from 1 to 65536"),
        ("activation", None, ", ".join(ACTIVATIONS)),
        ("optimizer", ["sgd"], ", ".join(OPTIMIZERS)),
        ("dropout", -0.1, "a number from 0 to 0.99"),
        ("dropout", 1, "a number from 0 to 0.99"),
        ("dropout", True, "a number from 0 to 0.99"),
        ("dropout", "0.5", "a number from 0 to 0.99"),
        ("l2", -1e-9, "a number from 0 to 10"),
        ("l2", 10**400, "a number from 0 to 10"),
        ("batch_norm", 1, "True or False"),
        ("learning_rate", 0, "a number above 0 to 100"),
        ("learning_rate", -0.1, "a number above 0 to 100"),
        ("learning_rate", 100.1, "a number above 0 to 100"),
        ("learning_rate", None, "a number above 0 to 100"),
        ("momentum", 1.01, "a number from 0 to 1"),
        ("decay", 2, "a number from 0 to 1"),
        ("batch_size", 0, "a whole number from 1, or 'full'"),
        ("batch_size", "all", "a whole number from 1, or 'full'"),
        ("batch_size", True, "a whole number from 1, or 'full'"),
        ("batch_size", 12.0, "a whole number from 1, or 'full'"),
        ("epochs", 0, "a whole number from 1 to 100000"),
        ("epochs", 1.5, "a whole number from 1 to 100000"),
        ("epochs", True, "a whole number from 1 to 100000"),
    ],
)
def test_an_illegal_value_of_a_variant_is_refused(field: str, value: Any, legal: str) -> None:
    """The message names the field, shows the value seen and says what is legal."""
    text = refusal(Variant, **{field: value})
    assert field in text
    assert repr(value[-1] if isinstance(value, tuple) and value else value) in text
    assert f"legal: {legal}" in text


@pytest.mark.parametrize("field", ["dropout", "l2", "learning_rate", "momentum", "decay"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(field: str, value: float) -> None:
    """No field takes NaN or infinity."""
    assert f"{field} is {value!r}; legal: a number" in refusal(Variant, **{field: value})


@pytest.mark.parametrize("value", [0.1, 1.0])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_momentum_is_refused_where_it_would_be_ignored(optimizer: str, value: float) -> None:
    """Momentum belongs to SGD; with another optimizer the message names both values and the way out."""
    text = refusal(Variant, optimizer=optimizer, momentum=value)
    assert f"momentum is {value} with optimizer {optimizer!r}" in text
    assert "set it to 0 or choose optimizer='sgd'" in text
    assert Variant(optimizer=optimizer, momentum=0).momentum == 0


@pytest.mark.parametrize(
    ("make", "seen", "meant", "legal"),
    [
        (lambda: Variant(optimizer="adamm"), "unknown optimizer 'adamm'", "adam", OPTIMIZERS),
        (lambda: Variant(optimizer="SGD"), "unknown optimizer 'SGD'", "sgd", OPTIMIZERS),
        (lambda: Variant(activation="rleu"), "unknown activation 'rleu'", "relu", ACTIVATIONS),
        (lambda: comparison(dataset="minst"), "unknown data set 'minst'", "mnist", DATASETS),
        (lambda: comparison(dataset="digits"), "unknown data set 'digits'", "", DATASETS),
        (
            lambda: comparison(select="val_acuracy"),
            "unknown selection metric 'val_acuracy'",
            "val_accuracy",
            SELECTION_METRICS,
        ),
        (
            lambda: comparison(variants={"a": {"learning_rat": 1}}),
            "variant 'a': unknown field of a variant 'learning_rat'",
            "learning_rate",
            ("hidden", "momentum", "epochs"),
        ),
        (lambda: comparison(variants={"a": {1: 1}}), "unknown field of a variant 1", "", ("hidden", "epochs")),
        (lambda: Variant().but(epoch=1), "unknown field of a variant 'epoch'", "epochs", ("hidden", "epochs")),
        (lambda: comparison().only(["adam"]), "unknown variant of this comparison 'adam'", "Adam", ("SGD", "Adam")),
        (lambda: load_experiment("optimisers"), "unknown experiment 'optimisers'", "optimizers", experiment_names()),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_one(make: Any, seen: str, meant: str, legal: Any) -> None:
    """The message quotes the name, lists every legal one, and asks about the closest, where one is close."""
    text = refusal(make)
    assert seen in text
    assert all(name in text for name in legal)
    assert text.endswith(f"Did you mean {meant!r}?") == bool(meant)


def test_the_constructor_refuses_an_unknown_field_by_its_name() -> None:
    """A misspelt field given to `Variant(...)` itself is an error that quotes it."""
    with pytest.raises(TypeError, match="learning_rat"):
        Variant(learning_rat=0.1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"question": "Adam is better"}, ["'Adam is better'", "ends in a question mark"]),
        ({"question": ""}, ["''", "ends in a question mark"]),
        ({"question": None}, ["None", "ends in a question mark"]),
        ({"select": "test_accuracy"}, ["'test_accuracy'", "test set", "val_accuracy, val_loss"]),
        ({"seeds": (-1,)}, ["seed is -1", f"from 0 to {MAX_SEED}"]),
        ({"seeds": (1, MAX_SEED + 1)}, [f"seed is {MAX_SEED + 1}", f"from 0 to {MAX_SEED}"]),
        ({"seeds": (True,)}, ["seed is True", f"from 0 to {MAX_SEED}"]),
        ({"seeds": ()}, ["seeds is ()", "from 1 to 1,000"]),
        ({"seeds": 0}, ["seeds is 0", "from 1 to 1000"]),
        ({"seeds": "10"}, ["seeds is '10'", "a tuple of them"]),
        ({"seeds": (1, 2, 1)}, ["seeds has 1 more than once"]),
        ({"baseline": "c"}, ["unknown baseline 'c'"]),
        ({"baseline": ()}, ["unknown baseline ()"]),
        ({"margin": -0.1}, ["margin is -0.1", "from 0 to 1"]),
        ({"time_margin": 2}, ["time_margin is 2", "from 0 to 1"]),
        ({"targets": 0.97}, ["targets is 0.97", "{'val_accuracy': 0.97}"]),
        ({"targets": {"accuracy": 0.97}}, ["unknown target's metric 'accuracy'", "Did you mean 'val_accuracy'?"]),
        ({"targets": {"val_accuracy": 97}}, ["the target of val_accuracy is 97", "from 0 to 1"]),
        ({"base": {"hidden": (8,)}}, ["base is {'hidden': (8,)}", "a Variant"]),
        ({"variants": {}}, ["variants is {}", "at least one entry"]),
        ({"variants": ["SGD"]}, ["variants is ['SGD']", "a dict"]),
        ({"variants": {"a": None}}, ["variant 'a' is None", "a dict"]),
        ({"variants": {"": {}}}, ["name is ''", "not empty"]),
        ({"variants": {3: {}}}, ["name is 3", "not empty"]),
        ({"variants": {"a": {"name": "b"}}}, ["variant 'a' sets 'name'", "delete the entry"]),
        ({"variants": {"a": {}, "b": {"dropout": 0.0}}}, ["'a' and 'b' are equal", "change a field of one"]),
        ({"variants": {"a": {"hidden": [8]}, "b": {}}}, ["'a' and 'b' are equal"]),
        ({"variants": {"a": {"epochs": 0}}}, ["variant 'a': epochs is 0", "from 1 to 100000"]),
        (
            {"base": Variant(momentum=0.9), "variants": {"a": {"optimizer": "adam"}}},
            ["variant 'a': momentum is 0.9 with optimizer 'adam'", "set it to 0"],
        ),
    ],
)
def test_an_illegal_comparison_is_refused(changes: dict[str, Any], texts: list[str]) -> None:
    """The message shows what was seen and what is legal, and names the variant concerned."""
    text = refusal(comparison, **changes)
    for expected in texts:
        assert expected in text


# ------------------------------------------------------------------------------------------------------------ files

FILE = '''"""A spec of one's own."""
from mlplab.spec import Comparison, Variant

COMPARISON = Comparison(
    question="Is it?", dataset="mnist", variants={"a": {"optimizer": "adamm"}},
)
'''


@pytest.mark.parametrize("place", ["absolute", "relative", "another ending"])
def test_a_spec_is_refused_at_import_with_file_and_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the file is named, the message begins with that name and the line of the COMPARISON at fault."""
    monkeypatch.chdir(tmp_path)
    path = {"absolute": tmp_path / "mine.py", "relative": Path("mine.py"), "another ending": tmp_path / "mine.txt"}[
        place
    ]
    path.write_text(FILE)
    assert refusal(load_experiment, str(path)).startswith(f"{path}, line 4: variant 'a': unknown optimizer 'adamm'")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("", ["mine.py has no COMPARISON", "legal: COMPARISON = Comparison(...)"]),
        ("COMPARISON = {}\n", ["mine.py has a COMPARISON that is {}"]),
        ("x = 1\n\nCOMPARISON = (\n", ["mine.py, line 3: SyntaxError"]),
        ("\nimport no_such_module\n", ["mine.py, line 2: ModuleNotFoundError", "no_such_module"]),
        ("from mlplab.spec import Variant\n\nVariant(epoch=1)\n", ["mine.py, line 3: unknown", "'epochs'?"]),
        ("def f():\n    return 1 / 0\n\nf()\n", ["mine.py, line 2: ZeroDivisionError"]),
        ("\0", ["mine.py", "null bytes"]),
    ],
)
def test_a_file_that_is_no_spec_is_refused(content: str, texts: list[str], tmp_path: Path) -> None:
    """The message says which file, where in it, and what is missing."""
    path = tmp_path / "mine.py"
    path.write_text(content)
    text = refusal(load_experiment, str(path))
    for expected in texts:
        assert expected in text


GOOD_FILE = FILE.replace("adamm", "adam").encode()
spoilt = st.tuples(st.integers(0, len(GOOD_FILE) - 1), st.integers(0, 9), st.binary(max_size=6))


@given(damages=st.lists(spoilt, min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore:invalid:DeprecationWarning", "ignore:invalid:SyntaxWarning")
def test_a_file_with_random_damage_is_loaded_or_refused(
    damages: list[tuple[int, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However a spec's bytes are damaged, it is refused in words that begin with its name, or gives a comparison."""
    content = bytearray(GOOD_FILE)
    for at, cut, put in damages:
        content[at : at + cut] = put
    path = tmp_path_factory.getbasetemp() / "spoilt.py"
    path.write_bytes(content)
    try:
        loaded = load_experiment(str(path))
    except UsageError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(loaded, Comparison)
        assert Comparison.from_json(loaded.to_json()) == loaded
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["missing.py", "./missing", "."])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message quotes the path as it was given; a folder is no file."""
    monkeypatch.chdir(tmp_path)
    assert repr(name) in refusal(load_experiment, name)


def test_a_spec_is_named_after_its_file_and_read_anew(tmp_path: Path) -> None:
    """Loading gives the comparison of the file as it is now, under the file's name, and leaves nothing beside it."""
    path = tmp_path / "mine.py"
    for optimizer in ("adam", "sgd "):  # the same size, in the same second: bytecode would be outdated unnoticed
        path.write_text(FILE.replace("adamm", optimizer.strip()) + "#" * (4 - len(optimizer.strip())))
        loaded = load_experiment(str(path))
        assert loaded.name == "mine"
        assert loaded.resolved()[0].optimizer == optimizer.strip()
    assert [found.name for found in tmp_path.iterdir()] == ["mine.py"]


# ----------------------------------------------------------------------------------------------------------- frozen


def test_a_comparison_cannot_be_changed() -> None:
    """Fields, the mapping of variants, the mapping in it and the lists in that refuse to be changed once checked."""
    widths = [8, 8]
    change = {"hidden": widths}
    frozen = comparison(variants={"a": change})
    with pytest.raises(FrozenInstanceError):
        frozen.seed = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        frozen.base.epochs = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        frozen.variants["b"] = {}  # type: ignore[index]
    with pytest.raises(TypeError):
        frozen.variants["a"]["epochs"] = 0  # type: ignore[index]
    change["epochs"] = [0]
    widths.append(0)
    assert frozen.variants == {"a": {"hidden": (8, 8)}}
    assert frozen.resolved()[0].hidden == (8, 8)


# --------------------------------------------------------------------------------------------------------- hypothesis

whole_batches = st.integers(1, 10_000_000)
CHANGES = {
    "hidden": st.lists(st.integers(1, 65_536), min_size=1, max_size=4).map(tuple),
    "activation": st.sampled_from(ACTIVATIONS),
    "dropout": st.floats(0, 0.99),
    "l2": st.floats(0, 10),
    "batch_norm": st.booleans(),
    "learning_rate": st.floats(0, 100, exclude_min=True),
    "decay": st.floats(0, 1),
    "batch_size": whole_batches | st.just("full"),
    "epochs": st.integers(1, 100_000),
}
optimizers = st.sampled_from(OPTIMIZERS).map(lambda name: {"optimizer": name}) | st.floats(0, 1).map(
    lambda momentum: {"optimizer": "sgd", "momentum": momentum}
)
changes = st.builds(operator.or_, st.fixed_dictionaries({}, optional=CHANGES), optimizers | st.just({}))
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    """Any legal comparison."""
    variants = draw(st.dictionaries(names, changes, min_size=1, max_size=4))
    base = Variant(**draw(st.fixed_dictionaries({}, optional=CHANGES)))
    assume(len({base.but(**change) for change in variants.values()}) == len(variants))
    return Comparison(
        question=draw(names) + "?",
        dataset=draw(st.sampled_from(DATASETS)),
        base=base,
        variants=variants,
        select=draw(st.sampled_from(list(SELECTION_METRICS))),
        seeds=draw(st.integers(1, 9) | st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=5, unique=True)),
        baseline=draw(st.just("") | st.sampled_from(list(variants))),
        margin=draw(st.floats(0, 1)),
        targets=draw(st.dictionaries(st.sampled_from(list(SELECTION_METRICS)), st.floats(0, 1))),
        name=draw(st.just("") | names),
    )


@given(comparisons())
def test_json_gives_the_comparison_back(original: Comparison) -> None:
    """What `to_json` writes is standard JSON, and `from_json` makes an equal comparison of it."""
    text = original.to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert Comparison.from_json(text) == original
    assert Comparison.from_json(text).resolved() == original.resolved()


@given(comparisons())
def test_a_resolved_variant_is_base_with_its_change(original: Comparison) -> None:
    """Each variant has its key as name, its own values where it gives some, and base's everywhere else."""
    for variant, (name, change) in zip(original.resolved(), original.variants.items(), strict=True):
        assert asdict(variant) == {**asdict(original.base), **change, "name": name}


@given(comparisons(), st.integers(1, 100_000))
def test_with_base_wins_over_the_variants(original: Comparison, epochs: int) -> None:
    """A change to all variants is in each of them, whatever they said; nothing else changes; the original stays."""
    before = original.resolved()
    try:
        changed = original.with_base(epochs=epochs).resolved()
    except UsageError as error:
        assert "are equal" in str(error)  # noqa: PT017 - epochs were all that told two of them apart
        assert len({replace(variant, epochs=epochs, name="") for variant in before}) < len(before)
        return
    assert changed == tuple(replace(variant, epochs=epochs) for variant in before)
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


def test_a_baseline_that_is_left_out_gives_way_to_the_first() -> None:
    """The first variant is the baseline where none is named, or where the named one is not selected."""
    three = comparison(variants={"a": {}, "b": {"dropout": 0.1}, "c": {"dropout": 0.2}}, baseline="b")
    assert three.against == "b"
    assert three.only(["b", "c"]).against == "b"
    assert three.only(["a", "c"]).against == "a"


@given(whole_batches | st.integers(1, 50) | st.just("full"), st.integers(1, 5_000))
def test_steps_per_epoch_count_every_batch(batch_size: int | str, examples: int) -> None:
    """Taking batches until no image is left takes as many steps as `steps_per_epoch` says."""
    left, steps = examples, 0
    while left > 0:
        left -= examples if isinstance(batch_size, str) else batch_size
        steps += 1
    variant = Variant(batch_size=batch_size)
    assert variant.steps_per_epoch(examples) == steps
    assert 1 <= variant.images_per_step(examples) <= examples


@given(st.floats(), st.floats())
def test_better_never_prefers_a_value_that_is_not_finite(a: float, b: float) -> None:
    """NaN and infinity lose against every number, and no two values are each better than the other."""
    for select, prefers in (("val_accuracy", max), ("val_loss", min)):
        assert not (better(select, a, b) and better(select, b, a))
        if not math.isfinite(a):
            assert not better(select, a, b)
        elif math.isfinite(b):
            assert better(select, a, b) == (a != b and prefers(a, b) == a)
        else:
            assert better(select, a, b)


@given(changes)
def test_params_are_flat_and_complete(change: dict[str, Any]) -> None:
    """A tracking store gets every field but the name, none of them a collection, widths joined by dashes."""
    variant = Variant(**change)
    params = variant.params()
    assert set(params) == set(asdict(variant)) - {"name"}
    assert all(isinstance(value, str | int | float) for value in params.values())
    assert params["hidden"] == "-".join(str(units) for units in variant.hidden)


def variant_of(stored: dict[str, str]) -> Variant:
    """The variant that was stored as these params, each a text."""
    read: dict[str, Any] = {
        name: {int: int, float: float, bool: {"True": True, "False": False}.__getitem__}.get(type(default), str)(value)
        for name, value in stored.items()
        if not isinstance(default := getattr(Variant(), name), tuple) and name != "batch_size"
    }
    size = stored["batch_size"]
    read["batch_size"] = size if size == "full" else int(size)
    return Variant(**read, hidden=tuple(map(int, stored["hidden"].split("-"))))


@given(changes)
def test_stored_params_are_the_variant(change: dict[str, Any]) -> None:
    """The texts that a store keeps of a variant's params suffice to make an equal variant, so no two are alike."""
    variant = Variant(**change)
    stored = {name: str(value) for name, value in variant.params().items()}
    assert variant_of(stored) == variant
    assert variant_of(stored).params() == variant.params()


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([10**400, "full", "sgd", "relu", math.nan, range(3), object]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Variant)]), anything, min_size=1, max_size=3))
def test_any_value_makes_a_variant_or_is_refused(values: dict[str, Any]) -> None:
    """Whatever a field is given, it is refused in one line that names it, or the variant is one that can be stored."""
    try:
        variant = Variant(**values)
    except UsageError as error:
        said = str(error)
        assert "legal: " in said
        assert any(name in said for name in values)
    else:
        assert hash(variant) == hash(replace(variant))  # nothing in it can be changed
        assert variant_of({name: str(value) for name, value in variant.params().items()}) == replace(variant, name="")


given_fields = sorted(f.name for f in fields(Comparison))


@given(st.dictionaries(st.sampled_from(given_fields), anything, min_size=1, max_size=2))
def test_any_value_makes_a_comparison_or_is_refused(values: dict[str, Any]) -> None:
    """Whatever a comparison's fields are given, it is refused, or it can be written as JSON and read back."""
    try:
        made = comparison(**values)
    except UsageError:
        return
    assert Comparison.from_json(made.to_json()) == made


@given(anything)
def test_any_change_makes_a_variant_or_is_refused(change: Any) -> None:
    """Whatever stands in the place of a variant's difference from base, it is refused or applied."""
    try:
        made = comparison(variants={"a": change})
    except UsageError as error:
        assert "variant 'a'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert made.resolved() == (made.base.but(name="a", **change),)


def test_importing_the_spec_imports_nothing_heavy() -> None:
    """Neither TensorFlow, Keras, MLflow, NumPy nor Matplotlib is loaded to check a spec."""
    heavy = ("tensorflow", "keras", "mlflow", "numpy", "matplotlib", "rich", "sklearn")
    code = f"import sys, mlplab.spec; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "Comparison(question='?', dataset='mnist', base=Variant(learning_rat=1), variants={'a': {}})",
            "learning_rate",
        ),
        ("Comparison(question='?', dataset='mnist', variant={'a': {}})", "variants"),
    ],
)
def test_a_wrong_keyword_is_refused_with_the_legal_ones(tmp_path, source, said):
    """A keyword that Variant or Comparison does not know is refused with its line and the name that was meant."""
    path = tmp_path / "mine.py"
    path.write_text(f"from mlplab.spec import Comparison, Variant\nCOMPARISON = {source}\n")
    with pytest.raises(UsageError, match=rf"line 2: unknown field of .* Did you mean '{said}'\?"):
        load_experiment(str(path))


# ------------------------------------------------------------------------------------- searches, and what needs others


def search(**changes: Any) -> Search:
    """A small legal search with `changes`."""
    legal: dict[str, Any] = {
        "question": "Which learning rate?",
        "dataset": "mnist",
        "base": Variant(hidden=(8,), epochs=3),
        "space": {"learning_rate": [0.01, 0.1], "dropout": [0.0, 0.5]},
        "candidates": 3,
    }
    return Search(**{**legal, **changes})


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"question": "Which"}, ["question is 'Which'", "ends in a question mark"]),
        ({"dataset": "minst"}, ["'minst'", "Did you mean 'mnist'?"]),
        ({"base": None}, ["base is None", "a Variant"]),
        ({"space": {}}, ["space is {}", "'learning_rate': Range(1e-3, 1e-1, log=True)"]),
        ({"space": {"learning_rat": [1]}}, ["'learning_rat'", "Did you mean 'learning_rate'?"]),
        ({"space": {"dropout": []}}, ["the values of 'dropout' are []", "a list that is not empty, or a Range"]),
        ({"space": {"dropout": 0.5}}, ["the values of 'dropout' are 0.5"]),
        ({"space": {"dropout": [0.2, 1.5]}}, ["dropout is 1.5", "from 0 to 0.99"]),
        ({"space": {"learning_rate": Range(0.1, 200)}}, ["learning_rate is 200"]),
        ({"candidates": 0}, ["candidates is 0", "from 1"]),
        ({"candidates": 5}, ["candidates is 5", "allow 4 different ones", "up to 4, or a Range"]),
        ({"space": {"epochs": Range(2, 3)}}, ["candidates is 3", "allow 2 different ones"]),
        (
            {"space": {"dropout": [0.2, 0.1, 0.2]}},
            ["the values of 'dropout' have 0.2 more than once", "Delete the rep"],
        ),
        ({"space": {"hidden": Range(1, 9)}}, ["the values of 'hidden' are Range(", "hidden is no number", "a list"]),
        ({"space": {"activation": Range(1, 9)}}, ["'activation' are Range(", "activation is no number", "a list"]),
        ({"space": {"optimizer": Range(1, 9)}}, ["'optimizer' are Range(", "a list of sgd, adam, rmsprop"]),
        ({"space": {"optimizer": ["sgd", "adm"]}}, ["unknown optimizer 'adm'", "Did you mean 'adam'?"]),
        (
            {"space": {"epochs": Range(1.5, 9)}},
            ["the values of 'epochs' in space are Range(", "epochs is 1.5", "whole"],
        ),
        ({"base": Variant(patience=3)}, ["base's patience is 3", "no validation set", "Delete patience"]),
        ({"space": {"patience": [0, 3]}}, ["patience is in space", "no validation set", "Delete patience"]),
        (
            {"base": Variant(momentum=0.9), "space": {"optimizer": ["sgd", "adam"]}},
            ["base's momentum is 0.9", "the optimizer 'adam' of space has none", "'momentum': [0.9]"],
        ),
        (
            {"space": {"optimizer": ["adam", "rmsprop"], "momentum": [0.0, 0.9]}},
            ["momentum is in space", "(adam, rmsprop)", "legal with: sgd", "search that optimizer"],
        ),
        ({"base": Variant(optimizer="adam"), "space": {"momentum": Range(0, 0.9)}}, ["momentum is in space", "(adam)"]),
        ({"space": {"optimizer": ["sgd", "adam"], "momentum": [0.5, 1.5]}}, ["'momentum' in space", "momentum is 1.5"]),
        (
            {"space": {"optimizer": ["sgd", "adam", "rmsprop"], "momentum": [0.0, 0.5, 0.9]}, "candidates": 6},
            ["candidates is 6", "allow 5 different ones"],
        ),
        ({"folds": 1}, ["folds is 1", "from 2"]),
        ({"seed": -1}, ["seed is -1"]),
    ],
)
def test_an_illegal_search_is_refused(changes: dict[str, Any], texts: list[str]) -> None:
    """What a search cannot draw, split or train is refused, with the value seen and what is legal."""
    said = refusal(search, **changes)
    for text in texts:
        assert text in said


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Up to three different values."""
    return st.lists(values, min_size=1, max_size=3, unique=True)


SPACE = {
    "hidden": lists(st.lists(st.integers(1, 512), min_size=1, max_size=3).map(tuple)),
    "dropout": lists(st.floats(0, 0.99)),
    "optimizer": lists(st.sampled_from(OPTIMIZERS)),
    "batch_size": lists(whole_batches | st.just("full")),
    "learning_rate": lists(st.floats(1e-6, 100))
    | st.builds(Range, st.floats(1e-6, 1e-3), st.floats(1e-2, 100), st.booleans()),
}


@st.composite
def searches(draw: st.DrawFn) -> Search:
    """Any legal search over some of the fields."""
    space = draw(st.fixed_dictionaries({}, optional=SPACE).filter(bool))
    possible = math.prod(len(values) for values in space.values() if not isinstance(values, Range))
    return Search(
        question=draw(names) + "?",
        dataset=draw(st.sampled_from(DATASETS)),
        base=Variant(**draw(st.fixed_dictionaries({}, optional=CHANGES))),
        space=space,
        candidates=draw(st.integers(1, possible)),
        folds=draw(st.integers(2, 100)),
        seed=draw(st.integers(0, MAX_SEED)),
        name=draw(st.just("") | names),
    )


@given(searches())
def test_the_json_of_a_search_says_all_of_it(original: Search) -> None:
    """What `to_json` writes is standard JSON that has every field, so that an equal search can be made of it."""
    text = original.to_json()
    record = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    space = {
        name: Range(**values)
        if isinstance(values, dict)
        else [tuple(value) if isinstance(value, list) else value for value in values]
        for name, values in record["space"].items()
    }
    assert Search(**{**record, "base": Variant(**record["base"]), "space": space}) == original


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Range(0.1, 0.1), "high is 0.1"),
        (lambda: Range(0, 1, log=True), "low is 0"),
        (lambda: Prediction(question="What?", of="optimizers", variant="Adam", images=0), "images is 0"),
        (lambda: Prediction(question="What", of="optimizers", variant="Adam"), "question is 'What'"),
        (lambda: Overview(question="How long?", of=()), "of is ()"),
        (lambda: Variant(patience=-1), "patience is -1"),
    ],
)
def test_the_other_kinds_refuse_what_is_illegal(make: Any, text: str) -> None:
    """Ranges, predictions and overviews refuse illegal values too."""
    assert text in refusal(make)


def test_a_winner_is_filled_in_when_its_search_is_known() -> None:
    """Until then the variant is named as waiting; afterwards it is base with the choices, and its twin is dropped."""
    waiting = comparison(variants={"best": WinnerOf("hunt"), "ours": {"dropout": 0.2}, "theirs": {"dropout": 0.5}})
    assert waiting.searches == {"best": "hunt"}
    assert "'best' is the winner of 'hunt'" in refusal(waiting.resolved)
    assert waiting.with_base(epochs=9).searches == {"best": "hunt"}
    known = waiting.with_choices("best", {"dropout": 0.3})
    assert [(v.name, v.dropout) for v in known.resolved()] == [("best", 0.3), ("ours", 0.2), ("theirs", 0.5)]
    twin = waiting.with_choices("best", {"dropout": 0.5})
    assert [(v.name, v.dropout) for v in twin.resolved()] == [("best", 0.5), ("ours", 0.2)]


def test_a_winner_without_a_momentum_has_none_of_its_comparisons_base() -> None:
    """Where the optimizer chosen has no momentum, base's is not its own; one that was chosen is kept."""
    waiting = comparison(base=Variant(momentum=0.9), variants={"best": WinnerOf("hunt"), "ours": {"dropout": 0.2}})
    momenta = {
        chosen["optimizer"]: waiting.with_choices("best", chosen).resolved()[0].momentum
        for chosen in ({"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.5})
    }
    assert momenta == {"adam": 0.0, "sgd": 0.5}
    assert waiting.with_choices("best", {"optimizer": "adam"}).resolved()[1].momentum == 0.9


def test_options_change_every_kind_that_trains() -> None:
    """Epochs and seed reach comparisons and searches; the smoke profile makes both small; the rest stays as it is."""
    changed = Options(epochs=7, seed=5)
    assert Options(seeds=3).adapt(comparison()).each_seed == (1234, 1235, 1236)  # type: ignore[union-attr]
    assert Options(seed=5, seeds=2).adapt(comparison()).each_seed == (5, 6)  # type: ignore[union-attr]
    assert Options(seeds=(9, 4)).adapt(comparison()).each_seed == (9, 4)  # type: ignore[union-attr]
    assert Options(seeds=(9, 4)).adapt(search()).seed == 9  # type: ignore[union-attr]
    assert Options().adapt(comparison(seeds=4)) == comparison(seeds=4)
    assert "seed is 1 and seeds is 2,3" in refusal(Options, seed=1, seeds=(2, 3))
    assert "seeds is 0" in refusal(Options(seeds=0).adapt, comparison())
    assert {v.epochs for v in changed.adapt(comparison()).resolved()} == {7}  # type: ignore[union-attr]
    assert changed.adapt(comparison()).each_seed == (5,)  # type: ignore[union-attr]
    assert changed.adapt(search()).seed == 5  # type: ignore[union-attr]
    assert changed.adapt(search()).base.epochs == 7  # type: ignore[union-attr]
    small = Options(smoke=True).adapt(search())
    assert isinstance(small, Search)
    assert (small.base.epochs, small.candidates, small.folds) == (2, 2, 2)
    overview = Overview(question="How long?", of=("a", "b"))
    assert changed.adapt(overview) is overview
    assert "epochs is 0" in refusal(Options(epochs=0).adapt, comparison())


def test_a_file_holds_one_kind_of_experiment(tmp_path: Path) -> None:
    """Each kind is found by its name; a file with two is refused, naming both."""
    made = {
        "COMPARISON": "Comparison(question='Q?', dataset='mnist', variants={'a': {}})",
        "SEARCH": "Search(question='Q?', dataset='mnist', space={'dropout': [0.1]}, candidates=1)",
        "PREDICTION": "Prediction(question='Q?', of='optimizers', variant='Adam')",
        "OVERVIEW": "Overview(question='Q?', of=('l2',))",
    }
    assert set(made) == set(KINDS)
    for name, source in made.items():
        path = tmp_path / f"{name.lower()}.py"
        path.write_text(f"from mlplab.spec import *\n{name} = {source}\n")
        loaded = load_experiment(str(path))
        assert type(loaded) is KINDS[name]
        assert loaded.name == name.lower()
    both = tmp_path / "both.py"
    both.write_text("from mlplab.spec import *\n" + "".join(f"{n} = {s}\n" for n, s in list(made.items())[:2]))
    assert "has COMPARISON and SEARCH" in refusal(load_experiment, str(both))
