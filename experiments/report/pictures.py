"""The report's figures, each with its caption; what is drawn is kept as small PNG files."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure
from PIL import Image

from experiments.report import charts
from experiments.report.blocks import Picture
from experiments.report.cells import epoch_seconds, last_text, seconds_text, target_text, value_text
from experiments.report.judging import Records
from experiments.report.looks import choices_text
from experiments.report.plan import Planned, title_of
from mlplab import figures, results, search_figures, verdict_figures
from mlplab.amounts import significant, within
from mlplab.comparison import Comparison
from mlplab.drawing import save
from mlplab.loading import Overview
from mlplab.records import Record
from mlplab.results import DIVERGED, Outcome
from mlplab.spec import Metric

MANY_VERDICTS = 12
"""More verdicts than these of one comparison are not read one by one."""

LAST = {"accuracy": ("accuracy", "points"), "loss": ("loss", "")}
"""What the report's figures show by epochs, with its unit."""


@dataclass
class Album:
    """What has been drawn: file name -> PNG."""

    images: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, figure: Figure) -> str:
        """Keeps a figure under a name, which it returns."""
        self.images[name] = png(figure)
        return name


def png(figure: Figure) -> bytes:
    """A figure as a PNG with a palette: of the few colours that it has, a third as large and the same to the eye."""
    drawn, kept = io.BytesIO(), io.BytesIO()
    save(figure, drawn)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(kept, format="png", optimize=True)
    return kept.getvalue()


@dataclass(frozen=True)
class Drawing:
    """A picture: the text in its place, what it shows, and what draws it."""

    text: str
    caption: str
    draw: Callable[[], Figure]


def picture(planned: Planned, experiment: str, records: Records, album: Album) -> Picture:
    """Draws a figure into `album` and says what is seen; a picture that cannot be drawn is said to be missing."""
    label = f"Figure {planned.number}" if planned.number else ""
    record = records.get(experiment)
    if record is None:
        return Picture(label, "Not drawn: there is no record.", ())
    drawn = [drawing for kind in planned.pictures for drawing in _drawings(kind, planned.variant, record, records)]
    if not drawn:
        return Picture(label, "Not drawn: there is no result for it.", ())
    number = f"{planned.number.rstrip('b'):0>2}{'b' if planned.number.endswith('b') else ''}"
    stem = f"figure_{number}" if planned.number else f"{experiment}_{planned.pictures[0]}"
    files = []
    for place, drawing in enumerate(drawn, start=1):
        name = f"{stem}_{place}.png" if len(drawn) > 1 else f"{stem}.png"
        files.append((album.add(name, drawing.draw()), drawing.text))
    return Picture(label, " ".join(dict.fromkeys(drawing.caption for drawing in drawn)), tuple(files))


def _drawings(kind: str, variant: str, record: Record, records: Records) -> list[Drawing]:
    """The pictures of a kind that a record gives."""
    data, found = record.data, record.results
    if kind == "curves":
        chosen = [outcome for outcome in record.outcomes if variant in ("", outcome.variant.name)]
        return [_curves(outcome, data) for outcome in chosen]
    if kind == "predictions" and record.predictions:
        answers = record.predictions
        caption = "The loaded model's answers on test images, with the probability that it gave each."
        return [
            Drawing("test images with true and predicted class", caption, lambda: figures.predictions(answers, data))
        ]
    if kind in SEARCH_PICTURES and record.search:
        return [_of_search(kind, record)]
    if kind == "overview" and isinstance(record.experiment, Overview):
        of = shown_in(record.experiment, records)
        shown = [bar for one in of for bar in charts.bars(one.outcomes, f"{title_of(one.experiment.name)}: ")]
        caption = f"Seconds of training{over([bar.outcome for bar in shown])}; trainings are of unequal length."
        return [Drawing("training times by variant", caption, lambda: charts.times(shown, data))] if of else []
    if kind == "time" and found:
        caption = f"Seconds of training{over(record.outcomes)}, compiling and evaluation apart."
        return [Drawing("training times by variant", caption, lambda: charts.times(charts.bars(record.outcomes), data))]
    if kind in LAST and found:
        caption = _last_caption(kind, record.outcomes)
        return [Drawing(f"{kind} by variant", caption, lambda: figures.comparison_curves(kind, found, data))]
    return _of_comparison(kind, record, record.experiment) if isinstance(record.experiment, Comparison) else []


SEARCH_PICTURES = {
    "parallel": "Each line a candidate.",
    "slices": "Each point a candidate, one picture a choice.",
    "budget": "The best to expect of so many candidates, and the best so far.",
}
"""What is seen of a search, by the kind of picture, which is its function's name."""


def _of_search(kind: str, record: Record) -> Drawing:
    search = record.search
    assert search is not None
    draw = lambda: getattr(search_figures, kind)(search, record.data)  # noqa: E731
    return Drawing(f"candidates of the search, {kind}", SEARCH_PICTURES[kind], draw)


def shown_in(overview: Overview, records: Records) -> list[Record]:
    """The comparisons that an overview is of, as far as they are on record."""
    return [records[name] for name in overview.of if name in records and records[name].results]


def _of_comparison(kind: str, record: Record, comparison: Comparison) -> list[Drawing]:
    """The pictures that stand on a comparison's selection metric, verdicts or targets."""
    data, select = record.data, comparison.metric
    if kind == "rates" and (rates := figures.learning_rates(record.results, select, data)):
        caption = f"{_capital(select.words)} after the last epoch against the learning rate{over(record.outcomes)}."
        return [Drawing(f"{select.words} by learning rate", caption, lambda: rates)]
    verdicts = [v for v in record.verdicts if v.measure == select.name and math.isfinite(v.low)]
    if kind == "differences" and 0 < len(verdicts) <= MANY_VERDICTS:
        limit = within(verdicts[0].unit, verdicts[0].margin)
        caption = (
            f"Differences of {select.words} between variants on the same seed, means with their 95 % intervals. Within "
            f"{limit} they count as practically none."
        )
        return [Drawing(f"differences of {select.words}", caption, lambda: verdict_figures.differences(verdicts, data))]
    return _reached(record, comparison) if kind == "reached" else []


def _reached(record: Record, comparison: Comparison) -> list[Drawing]:
    """How many had reached each target, by what it took."""
    drawn, targets = [], results.targets(comparison, record.results)
    for metric, value in dict.fromkeys((target.metric, target.target) for target in targets):
        those = [target for target in targets if (target.metric, target.target) == (metric, value)]
        what, listed = target_text(comparison, those[0]), ", ".join(f"{one.variant} {one.count}" for one in those)
        caption = f"Share of all trainings that had reached {what}, by {those[0].unit} of training: {listed}."
        draw = lambda those=those: verdict_figures.reached(those, record.data)  # noqa: E731
        drawn.append(Drawing(f"{what} reached", caption, draw))
    return drawn


def over(found: Sequence[Outcome]) -> str:
    """Whether numbers are means, as part of a sentence."""
    seeds = max((len(outcome.results) for outcome in found), default=1)
    return f", means over {seeds} seeds" if seeds > 1 else ""


def _curves(outcome: Outcome, data: str) -> Drawing:
    draw = lambda: figures.learning_curves(outcome.results, data)  # noqa: E731
    return Drawing(f"learning curves of {outcome.variant.name}", _curve_caption(outcome), draw)


def _curve_caption(outcome: Outcome) -> str:
    name, trained = outcome.variant.name, [result for result in outcome.results if result.epochs]
    if not trained:
        return f"{_capital(name)}: no epoch was completed."
    each = sorted({result.epochs for result in trained})
    epochs = count(each[0], "epoch") if len(each) == 1 else f"{each[0]:,} to {count(each[-1], 'epoch')}"
    means = f"{over([outcome])}," if over([outcome]) else ""
    accuracy, loss = (
        f"{last_text(outcome, metric, unit)} in training and {last_text(outcome, f'val_{metric}', unit)} in validation"
        for metric, unit in LAST.values()
    )
    return f"{_capital(name)}: after {epochs}{means} accuracy {accuracy}, loss {loss}."


def _last_caption(metric: str, found: Sequence[Outcome]) -> str:
    name, unit = LAST[metric]
    listed = ", ".join(
        f"{o.variant.name} {last_text(o, name, unit)} / {last_text(o, f'val_{name}', unit)}"
        for o in found
        if any(result.epochs for result in o.results)
    )
    return f"{_capital(name)} in the last epoch (training / validation{over(found)}): {listed or 'none was completed'}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def count(number: int, word: str) -> str:
    """So many of something.

    >>> count(1, "epoch"), count(1000, "epoch")
    ('1 epoch', '1,000 epochs')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def says_times(found: Sequence[tuple[str, Outcome]]) -> str:
    """The fastest and the slowest of variants by an epoch, each with the experiment that it is of; "" of fewer."""
    known = [(seconds, outcome.variant.name, of) for of, outcome in found if (seconds := epoch_seconds(outcome)) > 0]
    if len(known) < 2:
        return ""
    (fast, fastest, its), (slow, slowest, other) = min(known), max(known)
    means = over([outcome for _, outcome in found])
    return (
        f"An epoch takes {seconds_text(fast)} with the fastest, “{fastest}” ({its}), and {seconds_text(slow)} with the "
        f"slowest, “{slowest}” ({other}), {significant(slow / fast)} times as long{means}."
    )


def says_search(record: Record) -> str:
    """What a search found."""
    assert record.search is not None
    candidates = record.search.candidates
    means = [c.mean for c in candidates if math.isfinite(c.mean)]
    unit = "points" if "accuracy" in record.search.scoring else ""
    if not means:
        return f"None of the search's {count(len(candidates), 'candidate')} has a mean {record.search.score}."
    best = choices_text(record.search.best.choices)
    return (
        f"Best of {count(len(candidates), 'candidate')}: {best}, with a mean {record.search.score} of "
        f"{value_text(max(means), unit)} over {count(record.search.folds, 'fold')}; the worst has "
        f"{value_text(min(means), unit)}."
    )


def says_rates(select: Metric, found: Sequence[Outcome]) -> str:
    """The best learning rate of each optimizer, by what the last epoch left; what diverged has left nothing."""
    best: dict[str, tuple[float, float]] = {}
    for outcome in found:
        name = outcome.variant.params()["optimizer"]
        value = outcome.mean(lambda result: math.nan if result.status == DIVERGED else result.last(select.name))
        if select.better(value, best.get(name, (math.nan, 0))[0]):
            best[name] = value, outcome.variant.learning_rate
    listed = ", ".join(f"{name} {value_text(value, select.unit)} at {rate:g}" for name, (value, rate) in best.items())
    return f"Each optimizer's best {select.words}, by learning rate: {listed or 'none has a value'}{over(found)}."
