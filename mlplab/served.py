"""What a training leaves for a server: its model as ONNX, the contract of its data, and what it answers itself."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlplab.data import Dataset
from mlplab.readers import NUMBERS
from serving.model import (
    CLASSES,
    CONTRACT,
    GRAPH,
    PIXELS,
    VALUES,
    Contract,
    Input,
    Output,
    as_sent,
    grounds,
    is_pixels,
    named,
)
from serving.pictures import FAINT

if TYPE_CHECKING:
    import keras

    from mlplab.export import Export

FOLDER, REFERENCE, REFUSED = "served", "reference.npz", "refused.txt"
"""Where it is in a logged model: what the model answered in the process that trained it; why it is no ONNX."""

ROWS_COMPARED, MOST_NUMBERS = 1_000, 2**20
"""So many test examples have an answer in the reference, and at most so many numbers."""


def write(folder: Path, export: "Export", data: Dataset) -> str:
    """Writes a trained model, and what belongs to it, to a new folder; returns why it cannot be served, "" if it can.

    Args:
        export: of the model. Its answers to the first test examples are the reference: a version of it must give them.
        data: that it was trained on.
    """
    from mlplab.export import NotExportedError, answering, to_onnx

    folder.mkdir()
    rows = first_test_rows(data, 1)
    answer = answering(export)
    size = sum(array.size for array in arrays(answer(rows), "output"))
    rows = first_test_rows(data, max(1, min(ROWS_COMPARED, MOST_NUMBERS // max(size, 1))))
    outputs = answer(rows)
    try:
        contract = contract_of(data, outputs)
        graph = to_onnx(export)
    except NotExportedError as error:
        (folder / REFUSED).write_text(str(error))
        return str(error)
    (folder / GRAPH).write_bytes(graph)
    (folder / CONTRACT).write_text(contract.to_json())
    np.savez(folder / REFERENCE, np.array(digest_of(rows)), *arrays(outputs, "output"))
    return ""


def exported(model: "keras.Model", data: Dataset) -> "Export":
    """The export of a model that was trained on these data: it takes what their examples are."""
    from mlplab.export import Export

    return Export(model, first_test_rows(data, 1))


def first_test_rows(data: Dataset, count: int) -> Any:
    """The x of the first test examples."""
    return data.test.map(lambda array: array[:count]).x


def arrays(nest: Any, what: str) -> list[np.ndarray]:
    """The arrays of a nest, in the order of its names."""
    found = named(nest, what)
    return [np.asarray(array) for array in (found.values() if isinstance(found, dict) else [found])]


def digest_of(x: Any) -> str:
    """Which examples these are."""
    found = hashlib.sha256()
    for array in arrays(x, "input"):
        found.update(f"{array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def form_of(outputs: Any, data: Dataset) -> str:
    """How a version is to answer: one of the forms of `serving.model`."""
    if not (data.classes and isinstance(outputs, np.ndarray) and outputs.ndim == 2):
        return VALUES
    likely = bool(np.all((outputs >= 0) & (outputs <= 1)))
    if outputs.shape[1] == 1:  # of two classes the second one's probability
        return CLASSES if likely and data.classes == 2 else VALUES
    if not likely or outputs.shape[1] != data.classes or not np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return VALUES
    return PIXELS if is_pixels(data.test.x) else CLASSES


def contract_of(data: Dataset, outputs: Any) -> Contract:
    """What a model that was trained on these data takes, and gives.

    Raises:
        NotExportedError: it takes what is no number.
    """
    from mlplab.export import NotExportedError

    x, given = named(data.train.x, "input"), named(as_sent(data.train.x), "input")
    if not isinstance(x, dict):
        x, given = {"": x}, {"": given}
    inputs = []
    for name, array in x.items():
        if array.dtype.kind not in "iufb":
            raise NotExportedError("it takes texts, on which ONNX has no operation")
        sample = array[:: max(1, len(array) // 10_000)]
        known = data.vocabulary.get(name, ())
        image = bool(data.image_shape) and len(x) == 1
        low, high = (0.0, 255.0) if image else (0.0, float(len(known))) if known else (None, None)
        if low is None and array.dtype.kind in "iu" and array.min() >= 0:
            low = 0.0  # codes, or counts; a graph would take those below from the end
        numbers = array.dtype.kind != "b"
        inputs.append(
            Input(
                name=name,
                dtype=given[name].dtype.name,
                shape=tuple(array.shape[1:]) or (1,),
                low=low,
                high=high,
                nan=bool(array.dtype.kind == "f" and np.isnan(array).any()),
                columns=tuple(data.columns.get(name or NUMBERS, ())),
                vocabulary=tuple(known),
                seen=(float(sample.min()), float(sample.max())) if numbers and np.isfinite(sample).all() else None,
                **(_pictured(sample.reshape(len(sample), -1), data.image_shape) if image and data.image_shape else {}),
            )
        )
    found = named(outputs, "output")
    found = found if isinstance(found, dict) else {"": found}
    return Contract(
        inputs=tuple(inputs),
        outputs=tuple(Output(name, tuple(array.shape[1:])) for name, array in found.items()),
        form=form_of(outputs, data),
        class_names=tuple(data.class_names),
        data=data.label,
        notice=data.notice or (f"It was trained on {data.label}." if data.is_fallback else ""),
        image=tuple(data.image_shape) if data.image_shape and len(x) == 1 else (),
    )


def _pictured(each: np.ndarray, image: tuple[int, ...]) -> dict[str, Any]:
    """Whether nearly all pictures are on dark or on light ground, and which share of its longer side the ink takes."""
    each = each[:1_000]
    found = [grounds(each[place : place + 1], image) for place in range(len(each))]
    ground = next((kind for kind in ("dark", "light") if found.count({kind}) > 0.95 * len(found)), "")
    if not ground or (len(image) > 2 and image[2] > 1):
        return {"ground": ground}
    ink = each.reshape(len(each), image[0], image[1])
    ink = (ink if ground == "dark" else 255 - ink) > FAINT
    spans = []
    for across in (1, 2):
        seen = np.asarray(ink.any(axis=3 - across))
        size = seen.shape[1]
        last, first = size - seen[:, ::-1].argmax(axis=1), seen.argmax(axis=1)
        spans.append((last - first) / size)
    return {"ground": ground, "fill": float(np.median(np.maximum(*spans)))}
