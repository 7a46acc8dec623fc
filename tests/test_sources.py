"""Data sets of any kind: how they are described, read, checked and split."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplab import data
from mlplab.calls import call
from mlplab.checks import UsageError
from mlplab.data import Dataset, load
from mlplab.sources import Data
from mlplab.splits import partition

ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
Y = np.arange(ROWS) % 3


def arrays(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    return X[:rows], Y[:rows]


def splits(dataset: Dataset) -> list[data.Split]:
    return [dataset.train, dataset.validation, dataset.test]


def rows_of(dataset: Dataset) -> list[bytes]:
    return sorted(row.tobytes() for split in splits(dataset) for row in split.x)


# ----------------------------------------------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    "value",
    [
        Data("mnist"),
        Data("./flowers", test=0.3),
        Data("people.csv", target=["a", "b"], groups="household", validation=50, seed=3, name="People"),
        Data(arrays, class_names=("a", "b", "c"), stratify=False),
        Data(call(arrays, rows=30)),
    ],
    ids=lambda value: value.label,
)
def test_a_description_is_a_value(value: Data) -> None:
    """A description of a data set is equal to what JSON gives back of it, hashable, and shows what it holds."""
    back = Data.from_dict(json.loads(json.dumps(value.to_dict())))
    assert back == value
    assert hash(back) == hash(value)
    assert value.label in repr(value)
    assert Data.of(value) is value


def test_arrays_are_equal_by_content_and_not_for_a_record() -> None:
    """Arrays describe equal data where their values are equal; JSON holds none, which is said when it is read."""
    assert Data((X, Y)) == Data((X.copy(), Y.copy()))
    assert Data((X, Y)) != Data((X, Y + 1))
    assert Data((X, Y)) != Data((X, Y), seed=1)
    with pytest.raises(UsageError, match=r"arrays, which no record holds; legal.*a function"):
        Data.from_dict(json.loads(json.dumps(Data((X, Y)).to_dict())))


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("minst", {}, "'minst'; legal: mnist, cifar10, digits. Did you mean 'mnist'?.*with a slash, such as './minst'"),
        ("auto", {}, "unknown data set 'auto'"),
        (3, {}, "data is 3, a int; legal: a ready-made name"),
        ([X, Y], {}, "a list; legal: .* a tuple"),
        ("a.csv", {}, "a.csv has no target"),
        ("a.csv", {"target": ["x", "x"]}, "target is .*each once"),
        ("a.csv", {"target": "x", "groups": Y}, "groups is a ndarray; legal for a .csv file"),
        ("a.npz", {"target": "x"}, "target is 'x'; legal only for a .csv file"),
        ("a.npz", {"groups": "x"}, "groups is 'x'; legal here: an array"),
        ("a.npz", {"validation": 0}, "validation is 0; legal: a share between 0 and 1"),
        ("a.npz", {"test": 1.5}, "test is 1.5; legal"),
        ("a.npz", {"test": True}, "test is True; legal"),
        ("a.npz", {"validation": 0.5, "test": 0.5}, "leaves nothing to train on"),
        ("a.npz", {"seed": -1}, "seed of the splits is -1"),
        ("a.npz", {"class_names": "ab"}, "class_names is 'ab', a str; legal: texts"),
        ("mnist", {"test": 0.1, "seed": 2}, "mnist comes with its own splits.*no test or seed"),
        (lambda: (X, Y), {}, "lambda"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_at_once(source: Any, options: dict[str, Any], words: str) -> None:
    """What is wrong with a description is said before anything is loaded."""
    with pytest.raises(UsageError, match=words):
        Data(source, **options)


# ----------------------------------------------------------------------------------------------------------- splits

labelled = st.integers(12, 150).flatmap(lambda n: st.lists(st.integers(0, 3), min_size=n, max_size=n)).map(np.array)
share = st.floats(0.05, 0.45)


@given(labels=labelled, validation=share, test=share, seed=st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_split_and_labels_keep_their_shares(
    labels: np.ndarray, validation: float, test: float, seed: int
) -> None:
    """No row is in two splits, every one in one, and each split has of each label what its size says, to rounding."""
    sizes = [max(1, round(validation * len(labels))), max(1, round(test * len(labels)))]
    found = partition(len(labels), *sizes, strata=labels, seed=seed)
    assert [len(rows) for rows in found[1:]] == sizes
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    again = partition(len(labels), *sizes, strata=labels, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    rest = np.concatenate(found[:2])
    for label in range(4):
        # The test split is drawn from all, the validation split from what that leaves.
        assert abs((labels[found[2]] == label).sum() - (labels == label).mean() * sizes[1]) < 1 + 1e-9
        assert abs((labels[found[1]] == label).sum() - (labels[rest] == label).mean() * sizes[0]) < 1 + 1e-9


@given(groups=labelled.filter(lambda groups: len(set(groups)) >= 3), seed=st.integers(0, 1000))
def test_groups_stay_whole(groups: np.ndarray, seed: int) -> None:
    """No group is in two splits, no row is lost, and no split is empty."""
    found = partition(len(groups), len(groups) // 5, len(groups) // 5, groups=groups, seed=seed)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(groups)))
    owners = [set(groups[rows].tolist()) for rows in found]
    assert all(owners)
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_many_groups_are_parted_by_the_sizes_asked_for() -> None:
    """Where groups are small, the splits are about as large as they were asked to be."""
    groups = np.random.default_rng(1).integers(0, 100, 1000)
    _, validation, test = partition(1000, 200, 100, groups=groups)
    assert (abs(len(validation) - 200) < 25, abs(len(test) - 100) < 25) == (True, True)
    with pytest.raises(UsageError, match="2 groups, which cannot be parted among 3 splits"):
        partition(9, 3, 3, groups=np.arange(9) % 2)


def test_a_small_class_is_in_every_split() -> None:
    """Three rows of a class are enough for each split to have one, however many rows the others have."""
    for seed in range(20):
        dataset = load(Data((np.arange(203), np.repeat([0, 1], [200, 3])), seed=seed))
        assert [int((split.y == 1).sum()) for split in splits(dataset)] == [1, 1, 1]


def test_splits_are_made_by_share_or_count_and_by_seed() -> None:
    """Shares and counts give the sizes; another seed gives other rows, and the same seed the same digest."""
    dataset = load(Data((X, Y), validation=0.1, test=9))
    assert [len(split) for split in splits(dataset)] == [45, 6, 9]
    assert load(Data((X, Y), validation=0.1, test=9)).digest == dataset.digest
    other = load(Data((X, Y), validation=0.1, test=9, seed=1))
    assert other.digest != dataset.digest
    assert rows_of(other) == rows_of(dataset)
    with pytest.raises(UsageError, match="60 examples, and 50 \\+ 12 of them are to be held out"):
        load(Data((X, Y), validation=50))


@pytest.mark.parametrize("groups", [None, np.arange(ROWS) // 4], ids=["stratified", "by group"])
def test_a_resampled_data_set_has_the_same_rows(groups: np.ndarray | None) -> None:
    """Resampling by a seed parts the same rows anew, stratified or by group as before, the same way each time."""
    dataset = load(Data({"x": X, "y": Y, "weight": np.arange(ROWS) + 1.0}, groups=groups))
    one, again, two = dataset.resampled(1), dataset.resampled(1), dataset.resampled(2)
    assert one.digest == again.digest
    assert len({dataset.digest, one.digest, two.digest}) == 3
    assert rows_of(one) == rows_of(dataset)
    for found in (dataset, one, two):
        place = {row.tobytes(): i for i, row in enumerate(X)}
        for split in splits(found):
            rows = [place[row.tobytes()] for row in split.x]
            np.testing.assert_array_equal(split.y, Y[rows])
            np.testing.assert_array_equal(split.weight, np.array(rows) + 1.0)
            if groups is None:
                assert np.ptp(np.bincount(split.y)) <= 1
        if groups is not None:
            assert found.groups is not None
            owners = [set(found.groups[name].tolist()) for name in ("train", "validation", "test")]
            assert sum(map(len, owners)) == len(set.union(*owners)) == 15


def test_digits_can_be_resampled() -> None:
    """Ready-made data are split anew into as many, with equal shares of the classes."""
    dataset = load(Data("digits"))
    assert (dataset.label, dataset.notice, dataset.is_fallback) == ("digits", None, False)
    found = dataset.resampled(4)
    assert [len(split) for split in splits(found)] == [1197, 300, 300]
    assert np.ptp(np.bincount(found.test.y)) <= 2
    assert found.digest != dataset.digest == load("digits").digest


@given(st.integers(0, ROWS - 1), st.sampled_from(["x", "y", "weight"]))
def test_the_digest_changes_with_any_cell(row: int, field: str) -> None:
    """Another value anywhere is another digest."""
    given = {"x": X.copy(), "y": Y.copy(), "weight": np.ones(ROWS)}
    before = load(Data(given)).digest
    given[field][row] = (given[field][row] + 1) % 3
    assert load(Data(given)).digest != before


def test_the_digest_covers_names_and_dtypes() -> None:
    """The same values under another key, dtype or class name are other data."""
    found = [
        load(source).digest
        for source in (
            Data((X, Y)),
            Data((X.astype(np.float64), Y)),
            Data(({"a": X}, Y)),
            Data(({"b": X}, Y)),
            Data((X, Y), class_names=["a", "b", "c"]),
        )
    ]
    assert len({*found}) == len(found)
    assert all(len(bytes.fromhex(one)) == 16 for one in found)


# ----------------------------------------------------------------------------------------------------------- arrays


def two_pairs() -> Any:
    return (X[:40], Y[:40]), (X[40:], Y[40:])


def by_split() -> Any:
    return {"train": (X[:30], Y[:30]), "validation": (X[30:45], Y[30:45]), "test": {"x": X[45:], "y": Y[45:]}}


def test_splits_that_are_given_are_kept() -> None:
    """Splits stay as they are given, in their order; what is missing is taken from the training examples."""
    dataset = load(Data(by_split))
    np.testing.assert_array_equal(dataset.train.x, X[:30])
    np.testing.assert_array_equal(dataset.test.y, Y[45:])
    assert dataset.name == "by_split"
    pairs = load(Data(two_pairs, validation=10))
    np.testing.assert_array_equal(pairs.test.x, X[40:])
    assert [len(split) for split in splits(pairs)] == [30, 10, 20]


def test_any_shape_and_dtype() -> None:
    """Several inputs and outputs, of any shape and dtype, are split row by row, and what is given stays as it is."""
    images = np.random.default_rng(1).integers(0, 255, (ROWS, 5, 6, 3)).astype(np.uint8)
    source = ({"image": images, "table": X}, (Y, X[:, :1].astype(np.float16)), np.ones(ROWS))
    dataset = load(Data(source))
    assert dataset.input_shape == {"image": (5, 6, 3), "table": (4,)}
    assert (dataset.classes, dataset.class_names, dataset.image_shape) == (0, (), None)
    assert [leaf.dtype for leaf in dataset.train.y] == [Y.dtype, np.float16]
    place = {row.tobytes(): i for i, row in enumerate(X)}
    for split in splits(dataset):
        rows = [place[row.tobytes()] for row in split.x["table"]]
        np.testing.assert_array_equal(split.x["image"], images[rows])
        np.testing.assert_array_equal(split.y[0], Y[rows])
        with pytest.raises(ValueError, match="read-only"):
            split.x["image"][0] = 0
    assert images.flags.writeable
    one = load(Data((images, Y)))
    assert (one.image_shape, one.input_shape, one.classes) == ((5, 6, 3), (5, 6, 3), 3)


def test_labels_that_are_text_become_codes() -> None:
    """Text labels become int32 codes of the class names in sorted order, the same in every split that is given."""
    words = np.array(["dog", "ant", "cat"])[Y]
    dataset = load(Data({"train": (X[:30], words[:30]), "test": (X[30:], list(words[30:]))}))
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.test.y.dtype == np.int32
    np.testing.assert_array_equal(np.array(dataset.class_names)[dataset.test.y], words[30:])
    named = load(Data((X, words), class_names=["dog", "cat", "ant"]))
    assert named.class_names == ("dog", "cat", "ant")
    with pytest.raises(UsageError, match="unknown label 'dog'"):
        load(Data((X, words), class_names=["ant", "cat", "cow"]))


def test_what_has_no_classes() -> None:
    """Measured values, counts with many values, and columns of labels are no classes, and are split all the same."""
    for y in (X[:, 0], np.arange(ROWS), Y - 1, np.eye(3)[Y]):
        dataset = load(Data((X, y)))
        assert (dataset.classes, dataset.class_names) == (0, ())
    assert load(Data((X, np.eye(3)[Y]), class_names=["a", "b", "c"])).classes == 3


HOLE = X.copy()
HOLE[17, 2] = np.nan
BAD: dict[str, tuple[Any, str]] = {
    "nan": ((HOLE, Y), r"x has .*nan.* in row 17, column 2, counted from 0; legal: finite"),
    "infinite": (
        {"train": (X, Y), "test": ({"a": X}, np.full(ROWS, np.inf))},
        "y of the test split has .*inf.* in row 0",
    ),
    "in a dict": (({"age": HOLE}, Y), r"x\.age has"),
    "none": ((X, np.array(["a", None] * 30, object)), "y has None in row 1"),
    "empty text": ((X, np.array(["a", ""] * 30)), "y has .*'' in row 1"),
    "masked": ((np.ma.masked_equal(X, X[3, 1]), Y), "x has a masked value in row 3, column 1"),
    "objects": ((np.array([[1], [1, 2]] * 30, object), Y), r"x has \[1\]|list\(\[1\]\)"),
    "ragged": (([[1], [1, 2]], [0, 1]), "x is no array"),
    "text input": ((np.array(["a b"] * ROWS), Y), "x is text.*TextVectorization"),
    "dates": ((X.astype("datetime64[s]"), Y), "x is datetime64"),
    "lengths": ((X, Y[:-1]), "do not fit together: x has 60, y has 59"),
    "weights": ((X, Y, np.ones((ROWS, 2))), "weight is no vector"),
    "negative weight": ((X, Y, -np.ones(ROWS)), "least value of -1.0 in row 0"),
    "empty": ((X[:0], Y[:0]), "x has 0"),
    "empty split": ({"train": (X, Y), "test": (X[:0], Y[:0])}, "rows of the test split"),
    "shapes": ({"train": (X, Y), "test": (X[:, :2], Y)}, r"x of the test split has the shape \(2,\)"),
    "parts": ({"train": ({"a": X}, Y), "test": ({"b": X}, Y)}, "of the test split has the shape"),
    "absent class": (
        {"train": (X, Y), "validation": (X, Y), "test": (X[Y != 1], Y[Y != 1])},
        r"class '1' \(label 1\) is absent from the test split of 40 rows; it has 40 in all",
    ),
    "shared group": (
        {"train": {"x": X, "y": Y, "groups": Y}, "test": {"x": X, "y": Y, "groups": Y}, "validation": None},
        "gives a NoneType",
    ),
    "no y": ({"x": X}, r"gives a dict of \['x'\]; legal"),
    "key": ({"x": X, "y": Y, "group": Y}, "'group'; legal: .* Did you mean 'groups'"),
    "four": ((X, Y, Y, Y), "gives a tuple of 4; legal"),
    "two pairs": (((X, X), (X, X)), "training and test, or two inputs and two outputs"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_with_arrays_is_said_before_training(what: str) -> None:
    """The error names the split, the input, the row and the column, and what would be legal."""
    source, words = BAD[what]
    with pytest.raises(UsageError, match=words):
        load(Data(source))


def test_a_group_in_two_given_splits_is_refused() -> None:
    """Where splits are given with groups, none may be in two of them."""
    groups = np.arange(ROWS)
    parts = {
        name: {"x": X, "y": Y, "groups": groups + i * 59} for i, name in enumerate(("train", "validation", "test"))
    }
    with pytest.raises(UsageError, match="the group 59 is in the train split and in the validation split"):
        load(Data(parts))


def test_labels_have_to_fit_the_class_names() -> None:
    """A label without a name is refused with its row."""
    with pytest.raises(
        UsageError, match="y has the label 2 in row 2, counted from 0; legal with 2 class names: 0 to 1"
    ):
        load(Data((X, Y), class_names=["a", "b"]))


# ------------------------------------------------------------------------------------------------------------ files


def test_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .npz has x and y, or splits, and named inputs; a relative path is found from the folder of the spec."""
    np.savez(tmp_path / "whole.npz", x=X, y=Y, groups=np.arange(ROWS) // 3, class_names=["a", "b", "c"])
    dataset = load(Data("./whole.npz"), folder=tmp_path)
    assert (dataset.name, dataset.class_names, dataset.source) == (
        "whole",
        ("a", "b", "c"),
        str(tmp_path / "whole.npz"),
    )
    assert dataset.groups is not None
    named = {
        "x_image_train": X,
        "x_table_train": X * 2,
        "y_train": Y,
        "x_image_test": X,
        "x_table_test": X,
        "y_test": Y,
    }
    np.savez(tmp_path / "parts.npz", **named)
    monkeypatch.chdir(tmp_path)
    parts = load("parts.npz")
    assert parts.input_shape == {"image": (4,), "table": (4,)}
    assert len(parts.test) == ROWS


class Bomb:
    """Unpickled, it creates the file `exploded`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("exploded", "w"))


def test_wrong_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no .npz of arrays is refused, and nothing in it is unpickled."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"gone\.npz' are not there"):
        load(Data("gone.npz"))
    np.savez("bomb.npz", x=X, y=np.array([Bomb()] * ROWS))
    with pytest.raises(UsageError, match="no objects"):
        load(Data("bomb.npz"))
    assert not os.path.exists("exploded")
    Path("text.npz").write_text("hello")
    with pytest.raises(UsageError, match="cannot be read"):
        load(Data("text.npz"))
    np.savez("key.npz", x=X, labels=Y)
    with pytest.raises(UsageError, match=r"key in key\.npz.*'labels'; legal: x, y, weight, groups"):
        load(Data("key.npz"))
    np.savez("missing.npz", x_train=X, y_train=Y, x_test=X)
    with pytest.raises(UsageError, match="holds x_train, y_train, x_test; legal"):
        load(Data("missing.npz"))


def table(path: Path, rows: int = 90, delimiter: str = ",") -> Path:
    """People whose income follows from their age and job."""
    rng = np.random.default_rng(2)
    lines = [["age", "job/title", "hours", "household", "town", "income"]]
    for i in range(rows):
        age, job = int(rng.integers(20, 60)), ["nurse", "smith", "clerk"][i % 3]
        income = "high" if age + 30 * (job == "smith") > 55 else "low"
        lines.append([str(age), job, f"{rng.uniform(1, 9):.2f}", f"h{i // 3}", ["Ulm", "Rom"][i % 2], income])
    path.write_text("\n".join(delimiter.join(line) for line in lines) + "\n", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(tmp_path: Path, delimiter: str) -> None:
    """Numbers are one input, each category one of codes with its vocabulary; groups stay whole, labels are codes."""
    source = Data(table(tmp_path / "people.csv", delimiter=delimiter), target="income", groups="household")
    dataset = load(source)
    assert dataset.input_shape == {"numbers": (2,), "job_title": (1,), "town": (1,)}
    assert dataset.vocabulary == {"job_title": ("clerk", "nurse", "smith"), "town": ("Rom", "Ulm")}
    assert (dataset.class_names, dataset.name) == (("high", "low"), "people")
    assert dataset.groups is not None
    owners = [set(rows.tolist()) for rows in dataset.groups.values()]
    assert sum(map(len, owners)) == 30
    for split in splits(dataset):
        assert (split.x["numbers"].dtype, split.x["town"].dtype) == (np.float32, np.int32)
        smith = split.x["job_title"][:, 0] == 3
        np.testing.assert_array_equal(split.y == 0, split.x["numbers"][:, 0] + 30 * smith > 55)


def test_csv_of_numbers(tmp_path: Path) -> None:
    """A table of numbers is one array; few whole numbers are labels, others measured; several targets are columns."""
    path = tmp_path / "numbers.csv"
    rows = [f"{i},{i * 0.5},{i % 3},{i % 3}.0,{i * 7}" for i in range(60)]
    path.write_text("\n".join(["a,b,kind,rate,count", *rows]))
    kind = load(Data(path, target="kind"))
    assert (kind.input_shape, kind.classes, kind.train.y.dtype) == ((4,), 3, np.int32)
    for target in ("rate", "count"):
        found = load(Data(path, target=target))
        assert (found.classes, found.train.y.dtype) == (0, np.float32)
    both = load(Data(path, target=["rate", "count"]))
    assert (both.train.y.shape[1:], both.input_shape) == ((2,), (3,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,y\n1,0\n,1\n", r"column 'a' of .* has '' in line 3 \(row 1, counted from 0\); legal: no missing values"),
        ("a,y\n1,0\nNA,1\n", "has 'NA' in line 3"),
        ("a,y\n1,0\n2,1\n3,1\n3x,1\n", "has '3x' in line 5 .*legal: a number, as in most"),
        ("a,y\n1,0\n1e99,1\n", "has '1e99' in line 3 .*legal: finite"),
        ("a,y\n1,0\n1,2,3\n", "line 3 of .* has 3 cells; legal: 2"),
        ("a,a,y\n1,1,0\n", "has the columns a, a, y and 1 rows"),
        ("a,y\n", "and 0 rows"),
        ("a,b\n1,0\n", "unknown target of t.csv 'y'; legal: a, b"),
        ("y\n1\n", "no column besides y"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong in a table is said with its line and column."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        load(Data("t.csv", target="y"), folder=tmp_path)


def test_dataset_option_is_for_ready_made_data_alone() -> None:
    """A ready-made data set can be asked for in place of another one, and of nothing else."""
    assert load(Data("mnist"), dataset="digits").label == "digits (stand-in for MNIST)"
    with pytest.raises(UsageError, match="dataset is 'digits', which replaces ready-made data"):
        load(Data(arrays), dataset="digits")


# ----------------------------------------------------------------------------------------- what Keras is needed for


def test_a_model_of_a_table_with_categories_trains_compiled(tmp_path: Path) -> None:
    """Keras' preprocessing layers, adapted on the training split, train inside the compiled loop and are saved."""
    import keras

    from mlplab import training

    dataset = load(Data(table(tmp_path / "people.csv", rows=300), target="income"))
    keras.utils.set_random_seed(1)
    inputs, features = data.table_inputs(dataset)
    hidden = keras.layers.Dense(16, activation="relu")(features)
    model = keras.Model(inputs, keras.layers.Dense(dataset.classes, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert features.shape == (None, 2 + (1 + 3) + (1 + 100) + (1 + 2))  # numbers, job/title, household, town
    whole = keras.Model(inputs, features)(dataset.train.x).numpy()
    assert abs(whole[:, :2].mean(axis=0)).max() < 1e-5
    assert abs(whole[:, :2].std(axis=0) - 1).max() < 1e-5
    clock = training.Clock()
    history = training.fit(
        model,
        dataset.train.x,
        dataset.train.y,
        batch_size=16,
        epochs=25,
        seed=1,
        clock=clock,
        program="epoch",
        verbose=0,
    )
    assert clock.program == "epoch"
    assert history.history["accuracy"][-1] > 0.95
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(dataset.test.x, verbose=0), model.predict(dataset.test.x, verbose=0))


def test_a_model_of_a_table_of_numbers(tmp_path: Path) -> None:
    """A table of numbers alone has one input, which takes its array."""
    import keras

    (tmp_path / "n.csv").write_text("\n".join(["a,b,y", *(f"{i},3,{i / 7}" for i in range(50))]))
    dataset = load(Data("n.csv", target="y"), folder=tmp_path)
    inputs, features = data.table_inputs(dataset)
    found = keras.Model(inputs, features)(dataset.train.x).numpy()
    assert abs(found[:, 0].mean()) < 1e-5
    assert np.all(found[:, 1] == 0)


def test_a_folder_of_images(tmp_path: Path) -> None:
    """Each folder is a class; images keep their values and channels; folders named as splits are the splits."""
    from PIL import Image

    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (24, 7, 5, 3), dtype=np.uint8)
    for place in ("", "split/train", "split/test"):
        for i, image in enumerate(pixels):
            folder = (
                tmp_path / "pets" / place / ("cat" if i % 2 else "dog") if place else tmp_path / "all" / "ab"[i % 2]
            )
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i}.png")
    dataset = load(Data("./all"), folder=tmp_path)
    assert (dataset.class_names, dataset.image_shape, dataset.train.x.dtype) == (("a", "b"), (7, 5, 3), np.uint8)
    assert rows_of(dataset) == sorted(image.tobytes() for image in pixels)
    given = load(Data("./pets/split"), folder=tmp_path)
    assert (given.class_names, len(given.test), len(given.train)) == (("cat", "dog"), 24, 19)
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / "all" / "ab"[i % 2] / f"{i}.png")
    assert load(Data("./all"), folder=tmp_path).image_shape == (7, 5, 1)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="none cannot be read"):
        load(Data("./none"), folder=tmp_path)


def test_a_finite_tf_dataset() -> None:
    """A finite tf.data.Dataset, batched or not, gives its examples; an infinite one is refused."""
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices(({"a": X}, Y))
    found = [load(Data(one)).digest for one in (({"a": X}, Y), whole, whole.batch(7))]
    assert len({*found}) == 1
    text = tf.data.Dataset.from_tensor_slices((X, np.array(["no", "yes", "so"])[Y])).batch(8)
    assert load(Data(text)).class_names == ("no", "so", "yes")
    assert len(load(Data({"train": whole, "test": whole.take(9)}, validation=6)).test) == 9
    with pytest.raises(UsageError, match="is infinite; legal: a finite one"):
        load(Data(whole.repeat()))
    with pytest.raises(UsageError, match="is empty"):
        load(Data(whole.take(0)))
