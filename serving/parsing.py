"""From the body of a request to checked arrays, and from arrays to the body of an answer.

Large bodies are parsed in a process of their own, see `serving.app`: Python's JSON parser lets nothing else run
meanwhile.
"""

import base64
import binascii
import csv
import io
import json
import re
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.limits import RefusalError, invalid
from serving.model import Contract, InvalidInputError, answers, arrays_of, remarks, table

FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
PICTURES = ("image/png", "image/jpeg")
MIMES = ("application/json", "text/csv", *PICTURES)
MOST_PICTURES = 64
"""In one request."""

Checked = tuple[list[np.ndarray], list[str], str]
"""Arrays of the inputs, the names of warnings, and what was done to a picture."""


def checked(body: bytes, mime: str, encoding: str, most: int, contract: Contract) -> Checked:
    """The checked arrays of a request.

    Args:
        encoding: `gzip`, or "".
        most: bytes of the body when it is unpacked.

    Raises:
        RefusalError: the body is not of the protocol, or does not fit the contract.
    """
    if encoding:
        body = _unpacked(body, most)
    try:
        if mime in PICTURES:
            return _pictures([body], contract)
        if mime == "text/csv":
            arrays = arrays_of(contract, _csv(body, contract), flat=True)
        else:
            document = _document(body)
            forms = [form for form in FORMS if form in document] if isinstance(document, dict) else []
            if len(forms) != 1:
                raise RefusalError(
                    400, f"the body has {len(forms)} of the keys it must have exactly one of: {', '.join(FORMS)}."
                )
            (form,) = forms
            data = document[form]
            if form in ("inputs", "instances") and isinstance(data, list) and _is_picture(data[:1]):
                return _pictures([_decoded(one) for one in data], contract)
            flat = form.startswith("dataframe")
            if form == "dataframe_split":
                data = _split(data, contract)
            elif form == "dataframe_records":
                data = _records(data, contract)
            elif form == "instances":
                data = _instances(data, contract)
            arrays = arrays_of(contract, data, flat)
    except InvalidInputError as error:
        raise invalid(str(error)) from None
    return arrays, remarks(contract, arrays), ""


def quickly(body: bytes, contract: Contract) -> Checked | None:
    """The same for a large body of whole numbers alone, in little time, most of which others may run; else None.

    Raises:
        RefusalError: a number is out of range.
    """
    found = _whole_numbers(body, contract)
    if found is None:
        return None
    try:
        arrays = arrays_of(contract, found)
    except InvalidInputError as error:
        raise invalid(str(error)) from None
    return arrays, remarks(contract, arrays), ""


def answer(contract: Contract, outputs: Sequence[np.ndarray]) -> bytes:
    """The body of an answer.

    Raises:
        RefusalError: what the model gives cannot be answered.
    """
    try:
        return json.dumps({"predictions": _listed(answers(contract, outputs))}, allow_nan=False).encode()
    except ValueError as error:
        raise RefusalError(422, f"{error}.") from None


def _listed(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: array.tolist() for name, array in found.items()}
    return found.tolist() if isinstance(found, np.ndarray) else found


def _unpacked(body: bytes, most: int) -> bytes:
    """A gzip body, if it is one, all of one, and not larger than `most`."""
    packed = zlib.decompressobj(wbits=31)
    try:
        found = packed.decompress(body, most + 1)
    except zlib.error:
        raise RefusalError(400, "the body is not gzip, as its Content-Encoding says.") from None
    if len(found) > most:
        raise RefusalError(413, f"the body is too large when unpacked; legal: up to {most} bytes.")
    if not packed.eof or packed.unused_data:
        raise RefusalError(400, "the body is no gzip, or more than one.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RefusalError(400, "an object of the body has a key twice.")
    return found


def _document(body: bytes) -> Any:
    try:
        return json.loads(body.decode(), object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise RefusalError(400, "the body is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise RefusalError(400, "the body is not JSON, or is nested too deep.") from None


PLAIN = re.compile(rb'\{"(?:inputs|instances)": ?\[\[')


def _whole_numbers(body: bytes, contract: Contract) -> np.ndarray | None:
    """The examples in a body that holds nothing but rows of whole numbers below 1,000, as batches of pixels do.

    They are read by a few operations on all bytes at once, in a fifth of the time that Python's parser and the checks
    of each number take. Whatever is not just so is None, and left to these.
    """
    start = PLAIN.match(body)
    if start is None or len(contract.inputs) > 1 or not body.endswith(b"]]}"):
        return None
    (one,) = contract.inputs
    if len(one.shape) != 1 or one.dtype == "bool":
        return None
    inner = body[start.end() : -3]
    if b" " in inner:
        inner = inner.replace(b", ", b",")  # a space elsewhere is found below
    rows = inner.split(b"],[")
    if any(row.count(b",") != one.size - 1 for row in rows):
        return None
    flat = b",".join([*rows, b""])
    if flat.translate(None, b"0123456789,"):
        return None
    content = np.frombuffer(flat, np.uint8)
    end = np.flatnonzero(content == ord(","))
    length = end.copy()
    length[1:] -= end[:-1] + 1
    if length.min() < 1 or length.max() > 3:
        return None
    if (content[end - length] == ord("0"))[length > 1].any():  # 012 is not JSON
        return None
    value = content[end - 1].astype(np.float32)
    for place in (2, 3):
        value += np.where(length >= place, content[end - place], ord("0")) * np.float32(10 ** (place - 1))
    value -= 111 * ord("0")
    return value.reshape(len(rows), one.size)


def _split(data: Any, contract: Contract) -> Any:
    rows = data.get("data") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise invalid("dataframe_split has no rows; legal: {'columns': [...], 'data': [[...], ...]}.")
    columns = data.get("columns", range(len(rows[0]) if rows else contract.inputs[0].size))
    if not isinstance(columns, list | range) or not all(type(name) in (str, int) for name in columns):
        raise invalid("the columns of dataframe_split are not a list of names.")
    return table(contract, columns, rows)


def _records(data: Any, contract: Contract) -> Any:
    if not isinstance(data, list) or not all(isinstance(record, dict) for record in data):
        raise invalid("dataframe_records is not a list of records; legal: [{'0': 12, '1': 0, ...}, ...].")
    columns = list(data[0]) if data else range(contract.inputs[0].size)
    if any(len(record) != len(columns) or not record.keys() >= data[0].keys() for record in data):
        raise invalid("the records differ in their keys; legal: one key for each column, the same in all.")
    return table(contract, columns, [[record[column] for column in columns] for record in data])


def _instances(data: Any, contract: Contract) -> Any:
    """Of several inputs each instance has a value by each name."""
    names = [one.name for one in contract.inputs]
    if names == [""] or not isinstance(data, list) or not data:
        return data
    if not all(isinstance(one, dict) and one.keys() == set(names) for one in data):
        raise invalid("an instance has other names than the inputs; legal: one value by each name, the same in all.")
    return {name: [one[name] for one in data] for name in names}


NUMBER = re.compile(r"\s*-?\d+(\.\d*)?([eE][+-]?\d+)?\s*|\s*-?\.\d+([eE][+-]?\d+)?\s*")


def _csv(body: bytes, contract: Contract) -> Any:
    (first, *more) = contract.inputs
    plain = not more and not first.vocabulary and not first.nan
    wrong = "the CSV does not fit; legal: a header, then one line for each example" + (
        f" with {first.size} numbers." if plain else "."
    )
    try:
        text = body.decode("utf-8-sig")
        if plain:
            header, _, lines = text.partition("\n")
            columns = [name.strip().strip('"') for name in header.split(",", first.size)]
            if len(columns) != first.size or len(set(columns)) != first.size:
                raise invalid(wrong)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = np.loadtxt(io.StringIO(lines), delimiter=",", comments=None, quotechar='"', ndmin=2)
            return table(contract, columns, found.tolist() if found.size else [])
        columns, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (ValueError, csv.Error):
        raise invalid(wrong) from None
    texts = {one.name for one in contract.inputs if one.vocabulary}
    whole = {one.name for one in contract.inputs if np.dtype(one.dtype).kind in "iu"}
    kinds = [(name.strip() in texts, name.strip() in whole) for name in columns]
    told = []
    for row in filter(None, rows):
        if len(row) != len(columns):
            raise invalid(wrong)
        told.append([_cell(cell, *kind, wrong) for cell, kind in zip(row, kinds, strict=True)])
    return table(contract, [name.strip() for name in columns], told)


def _cell(cell: str, text: bool, whole: bool, wrong: str) -> Any:
    if text and not cell.strip().isdecimal():
        return cell
    if not cell.strip():
        return None
    if not NUMBER.fullmatch(cell):
        raise invalid(wrong)
    return int(cell) if (whole or text) and cell.strip().lstrip("-").isdecimal() else float(cell)


def _is_picture(first: list[Any]) -> bool:
    return bool(first) and isinstance(first[0], dict) and list(first[0]) == ["b64"]


def _decoded(one: Any) -> bytes:
    if not isinstance(one, dict) or list(one) != ["b64"] or not isinstance(one["b64"], str):
        raise invalid("the pictures are told in different ways; legal: {'b64': '…'} for each.")
    try:
        return base64.b64decode(one["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise invalid("b64 is not base64.") from None


def _pictures(files: Sequence[bytes], contract: Contract) -> Checked:
    """Pictures from files, made as those that the model was trained on; what was done is said."""
    from serving.pictures import PictureError, as_trained

    if not contract.image:
        raise RefusalError(415, "the model takes no pictures; legal: application/json, text/csv.")
    if len(files) > MOST_PICTURES:
        raise invalid(f"there are too many pictures; legal: up to {MOST_PICTURES} in a request.")
    found, done = [], []
    for place, content in enumerate(files):
        try:
            array, what = as_trained(content, contract.image, contract.inputs[0].ground, contract.inputs[0].fill)
        except PictureError as error:
            raise invalid(f"picture {place} {error}.") from None
        found.append(array.reshape(contract.inputs[0].shape))
        done.append(what)
    arrays = arrays_of(contract, np.stack(found))
    return arrays, remarks(contract, arrays), done[0] if len(set(done)) == 1 else "each as it needed"
