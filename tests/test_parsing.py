"""From the body of a request for any kind of model to checked arrays, or to a refusal in few words."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving import parsing
from serving.limits import RefusalError
from serving.model import CLASSES, UNKNOWN, VALUES, Contract, Input, Output, remarks

SECRET = "hunter2-5ebe2294"
RADIUS = "mean radius (mm)"
PEOPLE = Contract(
    inputs=(
        Input("numbers", "float32", (2,), columns=("age", "mean radius (mm)"), seen=(0.0, 90.0)),
        Input("town", "int32", (1,), vocabulary=("Bern", "Paris", "Rome")),
    ),
    outputs=(Output("", (1,)),),
    form=CLASSES,
    class_names=("ill", "well"),
)
SCANS = Contract(
    inputs=(
        Input("age", "float64", (1,)),
        Input("code", "int32", (1,), low=0.0),
        Input("scan", "float32", (2, 2)),
        Input("sure", "bool", (1,)),
    ),
    outputs=(Output("left", (2,)), Output("right", (1,))),
    form=VALUES,
)
GAPS = Contract((Input("", "float32", (2,), nan=True, columns=("a", "b")),), (Output("", (1,)),), VALUES)
ROWS: dict[str, Any] = {
    "age": [[30.5], [41], [70.25]],
    "code": [[2], [0], [1]],
    "scan": [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[1.5, 0], [0, -2]]],
    "sure": [[True], [False], [True]],
}


def checked(contract: Contract, body: Any, mime: str = "application/json") -> list[np.ndarray]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parsing.checked(content, mime, "", 2**22, contract)[0]


TOLD: dict[str, tuple[Any, str]] = {
    "records": (
        {
            "dataframe_records": [
                {"town": "Paris", "age": 30, "mean radius (mm)": 1.5},
                {"mean radius (mm)": 2, "age": 41.5, "town": "Rome"},
            ]
        },
        "application/json",
    ),
    "split": (
        {
            "dataframe_split": {
                "columns": ["town", "mean radius (mm)", "age"],
                "data": [["Paris", 1.5, 30], [3, 2, 41.5]],
            }
        },
        "application/json",
    ),
    "inputs": ({"inputs": {"numbers": [[30, 1.5], [41.5, 2]], "town": [["Paris"], ["Rome"]]}}, "application/json"),
    "inputs, flat": ({"inputs": {"numbers": [[30, 1.5], [41.5, 2]], "town": ["Paris", 3]}}, "application/json"),
    "instances": (
        {"instances": [{"numbers": [30, 1.5], "town": "Paris"}, {"numbers": [41.5, 2], "town": "Rome"}]},
        "application/json",
    ),
    "CSV": (b'town,age,"mean radius (mm)"\nParis,30,1.5\n"Rome",41.5,2e0\n', "text/csv"),
    "CSV of Windows": (b"\xef\xbb\xbftown,age,mean radius (mm)\r\nParis,30,1.5\r\n3,41.5,2\r\n", "text/csv"),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_table_is_told_by_the_names_of_its_columns_and_categories(name: str) -> None:
    """In any order, by any form; a category as its text or its number."""
    body, mime = TOLD[name]
    numbers, towns = checked(PEOPLE, body, mime)
    np.testing.assert_array_equal(numbers, np.array([[30, 1.5], [41.5, 2]], np.float32))
    np.testing.assert_array_equal(towns, np.array([[2], [3]], np.int32))


def test_a_category_that_no_training_had_is_none_of_them_and_is_said() -> None:
    """As in the validation split; the answer bears a warning."""
    arrays = checked(PEOPLE, {"inputs": {"numbers": [[1, 2]], "town": ["Atlantis"]}})
    assert arrays[1].tolist() == [[0]]
    assert remarks(PEOPLE, arrays) == [UNKNOWN]


def test_a_number_may_be_missing_where_some_were_in_training() -> None:
    """As null, NaN or an empty field of a CSV; where none was it is refused."""
    for body, mime in (
        ({"inputs": [[1, None]]}, "application/json"),
        (b'{"inputs": [[1, NaN]]}', "application/json"),
        ({"dataframe_records": [{"b": None, "a": 1}]}, "application/json"),
        (b"b,a\n,1\n", "text/csv"),
    ):
        (array,) = checked(GAPS, body, mime)
        np.testing.assert_array_equal(array, [[1, np.nan]])
    for body in ({"inputs": [[1, float("inf")]]}, {"inputs": [[1, "NaN"]]}):
        with pytest.raises(RefusalError):
            checked(GAPS, body)


def test_several_inputs_keep_their_dtypes_and_shapes() -> None:
    found = checked(SCANS, {"inputs": ROWS})
    assert [(array.dtype.name, array.shape) for array in found] == [
        ("float64", (3, 1)),
        ("int32", (3, 1)),
        ("float32", (3, 2, 2)),
        ("bool", (3, 1)),
    ]


WRONG: dict[str, tuple[Contract, Any, str]] = {
    "a name too few": (SCANS, {"inputs": {"age": ROWS["age"]}}, "age, code, scan, sure"),
    "a name too many": (SCANS, {"inputs": {**ROWS, SECRET: ROWS["age"]}}, "wrong names"),
    "a list alone": (SCANS, {"inputs": ROWS["age"]}, "wrong names"),
    "texts": (SCANS, {"inputs": {**ROWS, "age": [[SECRET]] * 3}}, "of age holds something that it cannot"),
    "numbers as texts": (SCANS, {"inputs": {**ROWS, "code": [["1"]] * 3}}, "of code holds something"),
    "null": (SCANS, {"inputs": {**ROWS, "age": [[1.0], [None], [2.0]]}}, "example 1 of age holds something"),
    "true for a number": (SCANS, {"inputs": {**ROWS, "age": [[1.0], [True], [2.0]]}}, "example 1 of age"),
    "a number for true": (SCANS, {"inputs": {**ROWS, "sure": [[1], [0], [1]]}}, "true or false"),
    "ragged": (SCANS, {"inputs": {**ROWS, "scan": [[[1, 2], [3]]] * 3}}, "example 0 of scan has the wrong width"),
    "another shape": (SCANS, {"inputs": {**ROWS, "scan": [[[1, 2]]] * 3}}, "2 rows of 2 finite numbers"),
    "flat": (SCANS, {"inputs": {**ROWS, "scan": [[1, 2, 3, 4]] * 3}}, "scan has the wrong width"),
    "deeper": (SCANS, {"inputs": {**ROWS, "age": [[[1]]] * 3}}, "age has the wrong width"),
    "NaN": (SCANS, {"inputs": {**ROWS, "age": [[float("nan")]] * 3}}, "age holds a value that it cannot"),
    "infinity": (SCANS, {"inputs": {**ROWS, "scan": [[[1, 2], [3, float("inf")]]] * 3}}, "scan holds a value"),
    "more than its kind has": (SCANS, {"inputs": {**ROWS, "scan": [[[1, 2], [3, 1e300]]] * 3}}, "scan holds a value"),
    "half a code": (SCANS, {"inputs": {**ROWS, "code": [[0.5]] * 3}}, "code holds a value"),
    "a code below 0": (SCANS, {"inputs": {**ROWS, "code": [[-1]] * 3}}, "whole numbers from 0"),
    "a code too large": (SCANS, {"inputs": {**ROWS, "code": [[2**40]] * 3}}, "code holds a value"),
    "a code beyond all": (SCANS, {"inputs": {**ROWS, "code": [[2**80]] * 3}}, "too large"),
    "rows that do not pair": (SCANS, {"inputs": {**ROWS, "age": [[1]]}}, "as many in each"),
    "no rows": (SCANS, {"inputs": {key: [] for key in ROWS}}, "empty"),
    "instances of other names": (SCANS, {"instances": [{SECRET: 1}]}, "other names"),
    "a category's number too large": (PEOPLE, {"inputs": {"numbers": [[1, 2]], "town": [4]}}, "Bern, Paris, Rome"),
    "a text for a number": (
        PEOPLE,
        {"dataframe_records": [{"town": "Rome", "age": "30", "mean radius (mm)": 1}]},
        "numbers holds something",
    ),
    "a column too few": (PEOPLE, {"dataframe_records": [{"town": "Rome", "age": 30}]}, "other columns"),
    "a column of another name": (
        PEOPLE,
        {"dataframe_split": {"columns": ["town", "age", SECRET], "data": [["Rome", 1, 2]]}},
        "age, mean radius",
    ),
    "a column twice": (PEOPLE, {"dataframe_split": {"columns": ["age"] * 3, "data": [[1, 2, 3]]}}, "same name"),
    "columns that are no names": (
        PEOPLE,
        {"dataframe_split": {"columns": [[], {}], "data": [[1, 2]]}},
        "list of names",
    ),
    "a picture": (PEOPLE, {"instances": [{"b64": "AAAA"}]}, "takes no pictures"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_example_is_refused_in_few_words(name: str) -> None:
    """With what is legal, and without a word of what was sent."""
    contract, body, says = WRONG[name]
    with pytest.raises(RefusalError, match=says) as raised:
        checked(contract, body)
    assert raised.value.status in (400, 415)
    assert len(str(raised.value)) < 300
    assert SECRET not in str(raised.value)


BAD_CSV = {
    "a text for a number": f"town,age,mean radius (mm)\nRome,{SECRET},1\n",
    "hexadecimal": "town,age,mean radius (mm)\nRome,0x1,1\n",
    "an underscore": "town,age,mean radius (mm)\nRome,1_0,1\n",
    "nan": "town,age,mean radius (mm)\nRome,nan,1\n",
    "infinite": "town,age,mean radius (mm)\nRome,1e999,1\n",
    "nothing for a number": "town,age,mean radius (mm)\nRome,,1\n",
    "a field too few": "town,age,mean radius (mm)\nRome,1\n",
    "an open quote": 'town,age,mean radius (mm)\n"Rome,1,2\n',
    "a header alone": "town,age,mean radius (mm)\n",
    "no header": "Rome,1,2\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_a_csv_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(RefusalError) as raised:
        checked(PEOPLE, BAD_CSV[name].encode(), "text/csv")
    assert raised.value.status == 400
    assert SECRET not in str(raised.value)


WIDE = Contract((Input("", "float32", (60,), low=0.0, high=999.0),), (Output("", (1,)),), VALUES)


@given(
    st.integers(0, 2**32),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([*b"0123456789,[] -.e", None]), st.booleans()), max_size=2),
)
@example(0, (", ", ": "), [(0.5, ord(" "), True)])
@example(0, (",", ":"), [(0.5, ord("0"), True)])
def test_the_quick_way_reads_what_the_other_reads(
    seed: int, separators: tuple[str, str], changes: list[tuple[float, int | None, bool]]
) -> None:
    """Whatever a batch of whole numbers holds that it should not: it is read the same, or left to the other way."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 10 ** rng.integers(1, 4, (150, 60))).tolist()
    body = bytearray(json.dumps({"inputs": rows}, separators=separators).encode())
    for where, byte, added in changes:
        place = 12 + int(where * (len(body) - 14))
        body[place : place + (not added)] = [] if byte is None else [byte]
    found = parsing._whole_numbers(bytes(body), WIDE)
    assert found is not None or changes
    if found is not None:
        assert found.tolist() == json.loads(body)["inputs"]


def test_what_is_answered_is_json_without_nan() -> None:
    """Numbers that are none, and more of them than an answer may have, are refused."""
    assert json.loads(parsing.answer(PEOPLE, [np.array([[0.25]], np.float32)])) == {
        "predictions": [{"label": "ill", "probabilities": [0.75, 0.25]}]
    }
    several = parsing.answer(SCANS, [np.zeros((2, 2)), np.ones((2, 1))])
    assert json.loads(several)["predictions"][1] == {"prediction": {"left": [0, 0], "right": 1}}
    for array in (np.array([[np.nan]]), np.broadcast_to(np.float32(0), (2**23, 1))):
        with pytest.raises(RefusalError) as raised:
            parsing.answer(PEOPLE, [array])
        assert raised.value.status == 422


def test_a_csv_as_a_spreadsheet_writes_it_is_read() -> None:
    """With commas and quotes in a category's name."""
    contract = Contract(
        (PEOPLE.inputs[0], Input("town", "int32", (1,), vocabulary=('a, "b"', "c"))), PEOPLE.outputs, VALUES
    )
    text = io.StringIO()
    csv.writer(text).writerows([["town", "age", "mean radius (mm)"], ['a, "b"', 1, 2]])
    assert checked(contract, text.getvalue().encode(), "text/csv")[1].tolist() == [[1]]
