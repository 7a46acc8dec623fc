"""What the server says of its model: for programs as JSON, for people as a page."""

import html
import json
import re
from dataclasses import asdict
from itertools import islice, product
from typing import Any

import numpy as np

from serving.limits import Limits
from serving.model import ARRAYS, CLASSES, INVERTED, PIXELS, SCALED, STAND_IN, UNKNOWN, VALUES, Contract, Input, legal
from serving.versions import Watcher

WARNINGS = {
    STAND_IN: "the model was trained on stand-in data",
    SCALED: "numbers from 0 to 1, where it was trained on larger ones: scaled twice?",
    INVERTED: "a picture with the ground of the other kind, light for dark or dark for light",
    UNKNOWN: "a category that it was not trained on, which counts as none of those that it was",
}


def described(watcher: Watcher, limits: Limits) -> bytes:
    """The answer of `/model`."""
    current, refused = watcher.current, watcher.refused
    found: dict[str, Any] = {
        "model": watcher.reference.uri,
        "version": current and current.number,
        "registry_reachable": watcher.reachable,
        "in_registry": not watcher.gone,
        "refused": refused and {"version": refused[0], "why": refused[1]},
    }
    if current:
        contract = current.contract
        found |= {
            "data": contract.data,
            "warning": contract.notice or None,
            "form": contract.form,
            "class_names": contract.class_names,
            "image": contract.image or None,
            "inputs": [{**asdict(one), "legal": legal(contract, one)} for one in contract.inputs],
            "outputs": [asdict(one) for one in contract.outputs],
            "quality": _quality(current.about),
            "experiment": current.about.get("mlplab.experiment"),
            "variant": current.about.get("mlplab.variant"),
        }
    found["limits"] = {"body_bytes": limits.body_bytes, "requests": limits.requests}
    return json.dumps(found).encode()


def _quality(about: Any) -> dict[str, float]:
    """What the version is worth on the test set, by metric, as `register` found it."""
    found = {}
    for key, value in about.items():
        if match := re.fullmatch(r"(?:mlplab\.)?(test_\w+?)(?:\.[0-9a-f]{8})?", key):
            try:
                found[match[1]] = float(value)
            except ValueError:
                continue
    return found


MOST_WAYS = 16
"""In which an example of several inputs may be told, that are described: a number alone, or in a list …"""
MOST_NAMED = 2_000
"""Columns of a table that are described one by one."""


def _number_schema(one: Input) -> dict[str, Any]:
    """A number of an input."""
    dtype = np.dtype(one.dtype)
    if one.vocabulary:
        return {"enum": [*one.vocabulary, *range(len(one.vocabulary) + 1), *([None] if one.nan else [])]}
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind == "f":
        low, high = float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    else:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    kind = "number" if dtype.kind == "f" else "integer"
    return {
        "type": [kind, "null"] if one.nan else kind,
        "minimum": low if one.low is None else one.low,
        "maximum": high if one.high is None else one.high,
    }


def _example_schemas(contract: Contract, one: Input) -> list[dict[str, Any]]:
    """The ways in which an example of an input may be told."""
    found = []
    for shape in contract.shapes[one.name]:
        schema = _number_schema(one)
        for size in reversed(shape):
            schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
        found.append(schema)
    return found


def _batch(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """Examples, which are all told in one of these ways."""
    found = [{"type": "array", "items": schema, "minItems": 1} for schema in schemas]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _row_schema(contract: Contract) -> dict[str, Any] | None:
    """An example as a row of a table; None where it is none, or has too many columns to name each."""
    (first, *more) = contract.inputs
    if any(one.size > 1 and not one.columns for one in (contract.inputs if more else ())):
        return None
    cells = {name: _number_schema(one) for one in contract.inputs for name in (one.columns or (one.name,))}
    if not more and not first.columns and not first.vocabulary:
        cells = {str(place): _number_schema(first) for place in range(first.size)}
    if len(cells) > MOST_NAMED:
        return None
    return {"type": "object", "required": list(cells), "properties": cells, "additionalProperties": False}


def _request_schemas(contract: Contract) -> dict[str, Any]:
    """What a request may hold, by media type."""
    each = {one.name: _example_schemas(contract, one) for one in contract.inputs}
    if list(each) == [""]:
        forms = {"inputs": _batch(each[""]), "instances": _batch(each[""])}
    else:
        named = {"type": "object", "required": list(each), "additionalProperties": False}
        # Not by `inputs`, which has to hold as many examples of each: a schema cannot say that.
        ways = islice(product(*each.values()), MOST_WAYS)
        forms = {"instances": _batch([{**named, "properties": dict(zip(each, way, strict=True))} for way in ways])}
    row = _row_schema(contract)
    requests: dict[str, Any] = {}
    if row is not None:
        forms["dataframe_records"] = rows = _batch([row])
        requests["text/csv"] = {"schema": rows}  # as OpenAPI has tables: a header, and a line for each object
    bodies = [{"type": "object", "required": [form], "properties": {form: schema}} for form, schema in forms.items()]
    requests["application/json"] = {"schema": {"oneOf": bodies}}
    if contract.image:
        requests |= {mime: {"schema": {"type": "string", "format": "binary"}} for mime in ("image/png", "image/jpeg")}
    return requests


ASKING = """Exactly one of `inputs`, `instances`, `dataframe_split` (`columns` and `data`) and `dataframe_records`, or
CSV with a header. Of several inputs `inputs` has a list by each name, all with as many examples. A model of pictures
takes them as files, and in `instances` as `{"b64": "…"}`, too. A body may be packed with gzip (`Content-Encoding`)."""


def _answer_schema(contract: Contract | None) -> dict[str, Any]:
    rows: dict[str, Any] = {"type": "array"}
    if contract and contract.form in (PIXELS, CLASSES):
        probability = {"type": "number", "minimum": 0}
        one = {"label": {"type": ["integer", "string"]}, "probabilities": {"type": "array", "items": probability}}
        rows["items"] = {"type": "object", "required": list(one), "properties": one}
    elif contract and contract.form == VALUES:
        rows["items"] = {"type": "object", "required": ["prediction"]}
    elif contract and contract.form == ARRAYS:
        rows = {}
    properties = {"predictions": rows, "picture": {"type": "string"}}
    return {"type": "object", "required": ["predictions"], "properties": properties}


def openapi(watcher: Watcher, limits: Limits, closed: bool = False) -> bytes:
    """The answer of `/openapi.json`: OpenAPI 3.1, with the served model's inputs and outputs.

    Args:
        closed: whether requests have to bear a token.
    """
    current = watcher.current
    contract = current.contract if current else None
    refusal = {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["error_code", "message"],
                    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
                }
            }
        }
    }
    refusals = {
        "400": "It does not fit the protocol or the model; the message says what is legal.",
        "401": "The token is missing or wrong.",
        "408": "It did not arrive in time.",
        "413": f"It is larger than {limits.body_bytes} bytes.",
        "415": "Another media type or encoding.",
        "422": "The model cannot answer these examples.",
        "503": "Too much at once, or no version is loaded yet; see Retry-After.",
    }
    warnings = "; ".join(f"{name}: {text}" for name, text in WARNINGS.items())
    answered = {
        "description": "The predictions, in the order of the examples.",
        "headers": {
            "model-version": {"schema": {"type": "string"}, "description": "The version that answered."},
            "model-warning": {"schema": {"type": "string"}, "description": warnings},
        },
        "content": {"application/json": {"schema": _answer_schema(contract)}},
    }
    paths: dict[str, Any] = {
        "/invocations": {
            "post": {
                "summary": "Asks the model.",
                "description": ASKING,
                "requestBody": {
                    "required": True,
                    "content": _request_schemas(contract) if contract else {"application/json": {}},
                },
                "responses": {"200": answered, **{k: {"description": v, **refusal} for k, v in refusals.items()}},
            }
        }
    }
    for path, (summary, mime) in OTHERS.items():
        responses: dict[str, Any] = {"200": {"description": summary, "content": {mime: {}}}}
        paths[path] = {"get": {"summary": summary, "responses": responses}}
        if path in OPEN:
            responses["503"] = {"description": "No version is loaded yet.", **refusal}
            paths[path]["get"]["security"] = []
        else:
            responses["401"] = {"description": refusals["401"], **refusal}
    info = {"title": watcher.reference.name, "version": current.number if current else "0"}
    found: dict[str, Any] = {"openapi": "3.1.0", "info": info, "paths": paths}
    if closed:
        kinds = ("bearer", "basic")
        found["components"] = {"securitySchemes": {kind: {"type": "http", "scheme": kind} for kind in kinds}}
        found["security"] = [{kind: []} for kind in kinds]
    return json.dumps(found).encode()


OPEN = ("/ping", "/health")
"""Answered without a token."""


OTHERS = {
    "/": ("A page to ask on.", "text/html"),
    "/docs": ("How to ask, for people.", "text/html"),
    "/openapi.json": ("This.", "application/json"),
    "/health": ("Whether a version is loaded.", "application/json"),
    "/ping": ("The same.", "application/json"),
    "/version": ("MLflow's version.", "application/json"),
    "/model": (
        "The version that serves, what it takes and how good it is; and one that was refused.",
        "application/json",
    ),
    "/metrics": ("Counters, for Prometheus.", "text/plain"),
}


def page_of_docs(watcher: Watcher, limits: Limits) -> bytes:
    """The answer of `/docs`: what `/openapi.json` says, for people."""
    current = watcher.current
    rows, example = "", ""
    if current:
        contract = current.contract
        for one in contract.inputs:
            rows += (
                f"<tr><td>{html.escape(one.name or 'the input')}<td>{one.dtype}<td>{html.escape(legal(contract, one))}"
            )
        if len(contract.inputs) == 1 and not contract.inputs[0].columns:
            example = '{"inputs": [ … one list for each example … ]}'
        else:
            names = [name for one in contract.inputs for name in (one.columns or (one.name,))]
            example = json.dumps({"dataframe_records": [dict.fromkeys(names[:8], 0)]})
    paths = "".join(f"<tr><td>GET {path}<td>{html.escape(text)}" for path, (text, _) in OTHERS.items())
    warnings = "".join(f"<tr><td>{name}<td>{html.escape(text)}" for name, text in WARNINGS.items())
    name = html.escape(watcher.reference.name)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}: how to ask</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css"><main class="docs">
<h1>{name}</h1><p><a href="./">Ask on a page</a> · <a href="openapi.json">OpenAPI</a></p>
<h2>POST /invocations</h2>
<p>As <code>application/json</code> with one of the keys <code>inputs</code>, <code>instances</code>,
<code>dataframe_split</code> and <code>dataframe_records</code>; as <code>text/csv</code> with a header; a model of
pictures also as <code>image/png</code> or <code>image/jpeg</code>, or as JSON
<code>{{"instances": [{{"b64": "…"}}]}}</code>. Up to {limits.body_bytes:,} bytes, packed with gzip or not.</p>
<pre>{html.escape(example)}</pre>
<table><thead><tr><th>input<th>dtype<th>an example<tbody>{rows}</table>
<h2>Warnings</h2><p>An answer may have the header <code>model-warning</code>:</p><table><tbody>{warnings}</table>
<h2>Other paths</h2><table><tbody>{paths}</table></main></html>""".encode()
