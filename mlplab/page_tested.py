"""The part of a page on the test set: what the best model takes for what, or how far it is off."""

import base64
import html
import io
from dataclasses import dataclass

import numpy as np

from mlplab import page_charts, page_parts, predicted, tables
from mlplab.comparison import Comparison
from mlplab.data import Dataset
from mlplab.page_canvas import Charts
from mlplab.page_parts import escaped, paragraph, table
from mlplab.predicted import Classified, Fitted
from mlplab.results import Result

MOST_CLASSES = 20
"""Of more classes the most frequent confusions are listed in place of the matrix."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What one training's model answers on the test set.

    Attributes:
        data: the data set as that training has it.
        found: a text says why nothing is shown.
    """

    result: Result
    data: Dataset
    found: Classified | Fitted | str


def tested_part(charts: Charts, comparison: Comparison, tested: Answered | None) -> str:
    """Confusions and errors of classes, residuals of numbers, or why neither is shown; "" where nobody won."""
    if tested is None:
        return ""
    result, data, found = tested.result, tested.data, tested.found
    many = len(comparison.variants) > 1
    which = (
        f"{result.variant.name}{', the best mean' * many}, seed {result.seed}, as it was after epoch "
        f"{result.best_epoch or 0} of {result.epochs}: its answers on the {len(data.test):,} test examples."
    )
    if isinstance(found, str):
        return paragraph(which) + paragraph(f"Not shown: {found}", "quiet")
    if isinstance(found, Classified):
        return paragraph(which) + _classified(data, found)
    specs = page_charts.fitted(found, charts.looks[result.variant.name].colour)
    numbers = [[name, tables.number_text(value)] for name, value in found.numbers.items()]
    labels = ("predicted against true values", "residuals against predicted values")
    said = f"{labels[0]} of the test examples; {'; '.join(': '.join(pair) for pair in numbers)}"
    panels = [
        f"<div><h3>{escaped(label.capitalize())}</h3>{charts.figure({'spec': spec}, text)}</div>"
        for label, spec, text in zip(labels, specs, (said, labels[1]), strict=True)
    ]
    cells = table([["of the residuals, predicted − true", "value"], *numbers], "residuals on the test set")
    return f'{paragraph(which)}<div class="panels">{"".join(panels)}</div>{cells}'


def _classified(data: Dataset, found: Classified) -> str:
    right = f"{found.right:,} of {found.examples:,} are right ({found.right / max(found.examples, 1):.2%})."
    if len(found.names) <= MOST_CLASSES:
        matrix = paragraph("Rows: what they are. Columns: what the model says.", "quiet") + _matrix(found)
    else:
        off = found.confusion * (1 - np.eye(len(found.names), dtype=int))
        order = np.argsort(-off, axis=None, kind="stable")[:MOST_CLASSES]
        pairs = [divmod(int(place), len(found.names)) for place in order if off.flat[place]]
        cells = [["is", "model says", "examples", "of this class"]]
        for true, says in pairs:
            every = int(found.confusion[true].sum())
            cells.append([found.names[true], found.names[says], str(off[true, says]), f"{off[true, says] / every:.0%}"])
        title = f"The most frequent of the confusions of {len(found.names)} classes."
        matrix = paragraph(title, "quiet") + table(cells, "the most frequent confusions") if pairs else ""
    errors = "<h3>The most confident errors</h3>" + _errors(data, found) if found.errors else ""
    return f"{paragraph(right)}<h3>Confusion matrix</h3>{matrix}{errors}"


def _matrix(found: Classified) -> str:
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in found.names)
    body = ""
    for true, row in enumerate(found.confusion.tolist()):
        cells, every = "", sum(row) or 1
        for says, count in enumerate(row):
            colour = "--right" if true == says else "--wrong"
            shade = (
                f' style="background:rgba(var({colour}),{0.08 + 0.37 * count / every:.2f})"'
                if count
                else ' class="none"'
            )
            cells += f"<td{shade}>{count}</td>"
        body += f'<tr><th scope="row">{escaped(found.names[true])}</th>{cells}</tr>\n'
    inside = f'<thead><tr><th scope="col">is \\ said</th>{head}</tr></thead><tbody>\n{body}</tbody>'
    return page_parts.boxed(f'<table class="matrix">{inside}</table>', "confusion matrix")


def _errors(data: Dataset, found: Classified) -> str:
    pictures = {error.example: predicted.images(data, error.example) for error in found.errors}
    if not any(pictures.values()):
        names = list(predicted.values(data, found.errors[0].example, {})) if found.errors else []
        cells = [["test example", "model says", "with", "is", *names]]
        for error in found.errors:
            said = [found.names[error.predicted], f"{error.probability:.1%}", found.names[error.true]]
            cells.append([f"no. {error.example}", *said, *predicted.values(data, error.example, {}).values()])
        return table(cells, "the most confident errors", words=True)
    items = ""
    for error in found.errors:
        shown = pictures[error.example]
        says, is_ = found.names[error.predicted], found.names[error.true]
        alt = html.escape(f"test example {error.example}: {is_}")
        images = "".join(f'<img src="data:image/png;base64,{_png(image)}" alt="{alt}">' for image in shown.values())
        rest = predicted.values(data, error.example, shown)
        values = "".join(f"<br>{escaped(f'{name}: {value}')}" for name, value in rest.items())
        words = f"says <b>{escaped(says)}</b> ({error.probability:.1%})<br>is <b>{escaped(is_)}</b>"
        items += f'<li>{images}{words}{values}<br><span class="quiet">no. {error.example}</span></li>'
    return f'<ul class="errors">{items}</ul>'


def _png(image: np.ndarray) -> str:
    from matplotlib.image import imsave

    content = io.BytesIO()
    # Of one channel as figures have them: the brightest is ink.
    imsave(content, np.clip(image, 0, 1), format="png", cmap="gray_r", vmin=0, vmax=1)
    return base64.b64encode(content.getvalue()).decode()
