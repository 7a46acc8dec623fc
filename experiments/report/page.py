"""The student report anew: one page with every figure, every number beside ours, and a verdict on every claim.

The page is made as a list of blocks (headings, paragraphs, tables, figures), and written twice: as HTML that needs no
other file, and as Markdown beside a folder of figures.
"""

import base64
import html
import io
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from experiments.report import judging
from experiments.report.claims import CLAIMS
from experiments.report.judging import Claim, Records
from experiments.report.looks import choices_text
from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, STATUSES, Finding
from mlplab import figures, results, search_figures, tables, verdict_figures
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.loading import Overview, load_experiment
from mlplab.records import Record
from mlplab.results import DIVERGED, FAILED, FINISHED, Outcome, Result
from mlplab.space import Search
from mlplab.spec import Metric

TITLE = "Keras MLPs on MNIST and CIFAR-10: a student report, run again"


@dataclass(frozen=True)
class Planned:
    """A figure of the report.

    Args:
        number: as the report has it; "" where it has none.
        experiment: what it shows.
        pictures: of which kinds it consists: `curves` (learning curves, one picture a variant), `accuracy`, `loss`,
            `time`, `rates` (comparisons), `predictions`, `parallel`, `slices`, `budget` (searches), `overview`; a
            comparison shows `differences` and `reached` besides, where there are verdicts and targets.
        variant: for learning curves: the one to show; "" for all.
    """

    number: str
    experiment: str
    pictures: tuple[str, ...]
    variant: str = ""


PARTS = (
    (
        "Part 1: MNIST, MLP 784-128-64-10",
        (
            Planned("2", "batch_modes", ("curves",), "batch size 1"),
            Planned("3", "batch_modes", ("curves",), "mini-batch SGD"),
            Planned("4", "batch_modes", ("curves",), "full batch"),
            Planned("5", "batch_modes", ("time",)),
            Planned("6", "batch_1000", ("curves",)),
            Planned("7", "decay_momentum", ("accuracy",)),
            Planned("8", "decay_momentum", ("loss",)),
            Planned("9", "decay_momentum", ("time",)),
            Planned("10", "sgd_decay_momentum", ("accuracy",)),
            Planned("11", "sgd_decay_momentum", ("loss",)),
            Planned("12", "sgd_decay_momentum", ("time",)),
            Planned("13", "optimizers", ("accuracy",)),
            Planned("14", "optimizers", ("loss",)),
            Planned("15", "optimizers", ("time",)),
            Planned("16", "predict", ("predictions",)),
        ),
    ),
    (
        "Part 2: CIFAR-10, MLP 3072-128-64-10",
        (
            Planned("17", "cifar_baseline", ("curves",)),
            Planned("18", "l2", ("curves",)),
            Planned("19", "l2", ("accuracy",)),
            Planned("20", "l2", ("loss",)),
            Planned("21", "dropout", ("accuracy",)),
            Planned("22", "dropout", ("loss",)),
            Planned("23", "early_stopping", ("curves",)),
            Planned("24", "batch_norm", ("accuracy", "loss")),
            Planned("", "random_search", ("parallel",)),
            Planned("", "random_search", ("slices",)),
            Planned("", "random_search", ("budget",)),
            Planned("24b", "best_found", ("curves",)),
            Planned("25", "training_times", ("overview",)),
        ),
    ),
    ("Beyond the report", (Planned("", "lr_sensitivity", ("rates",)),)),
)
"""The report in its order: the parts with their figures, and through them the experiments."""

MANY_VERDICTS = 12
"""More verdicts than these of one comparison are not read one by one."""

EXPERIMENTS = tuple(dict.fromkeys(planned.experiment for _, plan in PARTS for planned in plan))
"""The experiments in the report's order."""


@dataclass(frozen=True)
class Heading:
    """A heading; 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `strong` for what must not be overlooked."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Listing:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of a header and rows; `cards`: long texts, each row becomes a card on a narrow screen."""

    cells: Sequence[Sequence[str]]
    cards: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure: its label ("Figure 2", or ""), its caption, and its pictures' file names and texts in their place."""

    label: str
    caption: str
    files: tuple[tuple[str, str], ...]


Block = Heading | Paragraph | Listing | Table | Picture


def write(records: Records, folder: Path, circumstances: Mapping[str, str], seconds: float) -> tuple[Path, Path]:
    """Writes the report, each file complete or not at all.

    Args:
        records: name of an experiment -> its record; one that is missing is reported as such.
        folder: where to; made if need be. Files of an earlier report are replaced.
        circumstances: what the numbers depend on, such as versions, processor and commit, by name.
        seconds: wall time of all of it.

    Returns:
        The paths of `report.html`, which holds its figures itself, and of `report.md`, which shows those in `figures/`.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
    try:
        images: dict[str, bytes] = {}
        page = _page(records, circumstances, seconds, images)
        for name, content in images.items():
            (made / name).write_bytes(content)
        (made / "report.md").write_text(_markdown(page), "utf-8")
        (made / "report.html").write_text(_html(page, images), "utf-8")
        (folder / "figures").mkdir(exist_ok=True)
        for name in images:
            os.replace(made / name, folder / "figures" / name)
        for name in ("report.md", "report.html"):
            os.replace(made / name, folder / name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder / "report.html", folder / "report.md"


# ---------------------------------------------------------------------------------------------------------- contents


def _page(records: Records, circumstances: Mapping[str, str], seconds: float, images: dict[str, bytes]) -> list[Block]:
    """The report as blocks; the pictures that they show are added to `images`."""
    verdicts = [(claim, judging.assess(claim, records)) for claim in CLAIMS]
    counts = {status: sum(verdict.status == status for _, verdict in verdicts) for status in STATUSES}
    page: list[Block] = [
        Heading(1, TITLE),
        Paragraph(f"A student report compared ways to train small multilayer perceptrons. {_what_is_here(records)}"),
        *[Paragraph(text, strong=True) for text in _warnings(records)],
        Heading(2, "Summary"),
        Paragraph(
            f"Of the report's {len(CLAIMS)} claims {_are(counts[REPRODUCED])} reproduced, "
            f"{_are(counts[NOT_REPRODUCED])} not reproduced and {_are(counts[NOT_TESTABLE])} not testable. All of it "
            f"took {_duration(seconds)}."
        ),
        Heading(2, "Claims"),
        Paragraph(_how_judged(records)),
        _claims_table(verdicts),
        Heading(2, "Published numbers and ours"),
        _numbers_table(verdicts, records),
    ]
    for title, plan in PARTS:
        page.append(Heading(2, title))
        for name in dict.fromkeys(planned.experiment for planned in plan):
            page += _experiment(name, [p for p in plan if p.experiment == name], records, verdicts, images)
    page += [Heading(2, "Time of each part"), _times_table(records, seconds)]
    known = {"data": ", ".join(dict.fromkeys(r.data for r in records.values())), **_seeds(records)}
    page += [
        Heading(2, "Data and circumstances"),
        Table([("what", "value"), *((k, v or "–") for k, v in {**known, **circumstances}.items())], cards=True),
    ]
    return page


def _are(count: int) -> str:
    return f"{count} {'is' if count == 1 else 'are'}"


def _what_is_here(records: Records) -> str:
    """What the page shows of the report, by how its experiments were run."""
    found = [record for name, record in records.items() if _in_the_report(name)]
    if not found:
        return "None of its experiments has a record here: its figures and claims are listed with nothing beside them."
    changed = sum(bool(judging.unlike(record)) for record in found)
    if not changed:
        return (
            "Here its experiments are run anew at its own settings: each figure is drawn again under its number, each "
            "published number stands beside the measured one, and each claim is judged."
        )
    many = "all of them" if changed == len(found) else f"{changed} of {len(found)}"
    return (
        f"Here its experiments are run anew, {many} on other data or shorter than in the report. Each figure is drawn "
        "again under its number, but published numbers are compared, and claims judged, only where data and settings "
        "are the report's; what depends on neither, the number of parameters, is compared everywhere."
    )


def _in_the_report(experiment: str) -> bool:
    return all(planned.experiment != experiment for planned in PARTS[-1][1])


def _how_judged(records: Records) -> str:
    alone = f"a difference below {judging.SEED_POINTS:g} points of accuracy is not a verdict"
    last = (
        "Numbers of accuracy and loss are those of the last epoch, as in the report; where it calls something the "
        "best, the best validation accuracy over the epochs counts"
    )
    seconds = "Seconds are not testable where the hardware is not named; relations of times are."
    if all(len(record.seeds) < 2 for record in records.values()):
        return f"{last}. One seed: {alone}. {seconds}"
    return (
        f"{last}. Here they are means over the seeds with their 95 % intervals; differences are taken seed by seed. A "
        "claim is reproduced if every interval that it is "
        "judged by lies within what its rule allows, not reproduced if one lies beyond it, and undecided, which counts "
        "as not testable, if one lies across a limit. The search and the prediction have one seed, where "
        f"{alone}. {seconds}"
    )


def _seeds(records: Records) -> dict[str, str]:
    """The seeds, as circumstances."""
    made = [record.experiment for record in records.values()]
    compared = sorted({seed for one in made if isinstance(one, Comparison) for seed in one.each_seed})
    searched = sorted({one.seed for one in made if isinstance(one, Search)})
    every = sorted({*compared, *searched})
    if len(every) < 2:
        return {"seed": ", ".join(map(str, every))}
    found = {"seeds": ", ".join(map(str, compared or searched))}
    return {**found, "seed of the search": ", ".join(map(str, searched))} if searched and compared else found


def _warnings(records: Records) -> list[str]:
    """What a reader must know before any number: stand-in data, few epochs, what is missing."""
    found = []
    for notice in dict.fromkeys(r.notice for r in records.values() if r.notice):
        about = [name for name in EXPERIMENTS if name in records and records[name].notice == notice]
        found.append(f"{notice} ({', '.join(about)})")
    changed = {name: judging.shortened(records[name]) for name in EXPERIMENTS if name in records}
    if any(changed.values()):
        listed = "; ".join(f"{name}: {how}" for name, how in changed.items() if how)
        found.append(
            f"Run shorter than planned, so that no number measured there is compared with the report's: {listed}."
        )
    if missing := [name for name in EXPERIMENTS if name not in records]:
        found.append(f"No record: {', '.join(missing)}. What needs them is missing or not testable.")
    return found


def _claims_table(verdicts: Sequence[tuple[Claim, Finding]]) -> Table:
    rows = [("no.", "claim", "published", "measured", "verdict", "evidence")]
    for number, (claim, verdict) in enumerate(verdicts, start=1):
        rule = claim.rule_of(verdict.seeds)
        said = f"{verdict.evidence} Rule: {rule}." if rule else verdict.evidence
        rows.append((str(number), claim.text, claim.published, verdict.measured, verdict.status, said))
    return Table(rows, cards=True)


def _numbers_table(verdicts: Sequence[tuple[Claim, Finding]], records: Records) -> Table:
    rows = [("what", "experiment", "published", "ours", "ours against it")]
    for claim, verdict in verdicts:
        for number in claim.numbers:
            unlike = number.unlike(records)
            against = f"not compared: {unlike}" if unlike else number.distance(number.measured(records))
            rows.append((number.what, number.experiment, number.text, number.shown(records), against))
        if not claim.numbers and any(character.isdigit() for character in claim.published):
            rows.append((claim.text, claim.experiments[0], claim.published, verdict.measured, verdict.status))
    return Table(rows)


def _experiment(
    name: str,
    plan: Sequence[Planned],
    records: Records,
    verdicts: Sequence[tuple[Claim, Finding]],
    images: dict[str, bytes],
) -> list[Block]:
    """An experiment's section."""
    record = records.get(name)
    page: list[Block] = [Heading(3, name), Paragraph((record.experiment if record else load_experiment(name)).question)]
    if record is None:
        page.append(Paragraph(f"{name} left no record: it failed or was not run.", strong=True))
    else:
        if record.notice:
            page.append(Paragraph(record.notice, strong=True))
        page += [Paragraph(_ending(outcome), strong=True) for outcome in record.outcomes if outcome.state]
        page += _tables(record, records)
    judged = [(n, c, v) for n, (c, v) in enumerate(verdicts, start=1) if c.experiments[0] == name]
    for number, claim, verdict in judged:
        page.append(Paragraph(f"Claim {number}, “{claim.text}”: {verdict.status}."))
    page += [_picture(planned, records, images) for planned in plan]
    if record and isinstance(record.experiment, Comparison):
        further = [_picture(Planned("", name, (kind,)), records, images) for kind in ("differences", "reached")]
        page += [picture for picture in further if picture.files]
    return page


def _ending(outcome: Outcome) -> str:
    """How the trainings of a variant ended that did not finish."""
    name, found = outcome.variant.name, outcome.results
    says = []
    for result in (result for result in found if result.status != FINISHED):
        which = f"The training “{name}”" if len(found) == 1 else f"Seed {result.seed}"
        if result.status == FAILED:
            why = (result.error.strip().splitlines() or ["without a message"])[-1]
            says.append(f"{which} failed: {why}")
        else:
            says.append(f"{which} diverged in epoch {result.epochs} and was ended.")
    return says[0] if len(found) == 1 else f"Of the trainings “{name}” {outcome.state}. {' '.join(says)}"


def _tables(record: Record, records: Records) -> list[Block]:
    """The tables of an experiment's results."""
    experiment = record.experiment
    if isinstance(experiment, Comparison):
        return [
            *_answer(experiment, record),
            Table(tables.to_cells(experiment, record.results)),
            Paragraph(f"{_circumstances(record)} {_what_is_shown(experiment, len(record.seeds))}"),
            *_verdicts(record),
            *_targets(experiment, record.results),
        ]
    if isinstance(experiment, Overview):
        return [Table(tables.time_cells(_shown(experiment, records)))]
    if record.search:
        validated = {name.removeprefix("val_"): value for name, value in record.search.validation.items()}
        scores = {"validation": validated, "test": record.search.refit.test}
        said = [f"{part} accuracy {score['accuracy']:.4f}" for part, score in scores.items() if "accuracy" in score]
        refitted = f"The best, trained again on all training images: {', '.join(said) or 'no accuracy'}."
        return [Table(tables.search_cells(record.search)), Paragraph(f"{refitted} {_circumstances(record)}")]
    if record.predictions:
        return [Paragraph(f"Model: {record.predictions.model_uri}. Data: {record.data}.")]
    return []


def _answer(comparison: Comparison, record: Record) -> list[Block]:
    """What several seeds decide, first of all; one decides nothing, which the page says of all at its top."""
    if len(record.seeds) < 2 or not record.verdicts:
        return []
    return [Paragraph(answer_of(comparison, record.results, record.verdicts), strong=True)]


def _circumstances(record: Record) -> str:
    """On what and for how long a record was trained, where that is not what its experiment says."""
    shortened = judging.shortened(record)
    return f"Data: {record.data}.{f' Run shorter than planned: {shortened}.' if shortened else ''}"


def _what_is_shown(comparison: Comparison, seeds: int) -> str:
    values = f"alues of the best epoch by {comparison.metric.name}"
    if seeds < 2:
        return f"V{values}."
    return f"Means over {seeds} seeds of v{values}; after ± half the 95 % interval of the mean."


def _verdicts(record: Record) -> list[Block]:
    """What several seeds say of a comparison's variants; one seed says nothing."""
    said = [verdict.sentence for verdict in record.verdicts if verdict.seeds > 1]
    if len(said) > MANY_VERDICTS:
        return [Paragraph(f"The {len(said)} verdicts are in verdicts.json of the run {record.run_id}.")]
    return [Listing(said)] if said else []


def _targets(comparison: Comparison, found: Sequence[Result]) -> list[Block]:
    """How soon the variants reached the comparison's targets."""
    targets = results.targets(comparison, found)
    return [Table(tables.target_cells(targets))] if targets else []


def _times_table(records: Records, seconds: float) -> Table:
    rows = [("part", "wall time (s)", "how", "MLflow run")]
    for name in EXPERIMENTS:
        record = records.get(name)
        if record is None:
            rows.append((name, "–", "no record", "–"))
        else:
            how = "was on record; the time that it took then" if record.reused else "run"
            rows.append((name, f"{record.seconds:.1f}", how, record.run_id or "–"))
    return Table([*rows, ("the report as a whole", f"{seconds:.1f}", "this time", "–")])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"


# ----------------------------------------------------------------------------------------------------------- figures


def _picture(planned: Planned, records: Records, images: dict[str, bytes]) -> Picture:
    """Draws a figure into `images` and says what is seen; a picture that cannot be drawn is said to be missing."""
    label = f"Figure {planned.number}" if planned.number else ""
    record = records.get(planned.experiment)
    if record is None:
        return Picture(label, f"Not drawn: {planned.experiment} left no record.", ())
    drawn = [drawing for kind in planned.pictures for drawing in _drawings(kind, planned.variant, record, records)]
    if not drawn:
        return Picture(label, f"Not drawn: {planned.experiment} has no result for it.", ())
    number = f"{planned.number.rstrip('b'):0>2}{'b' if planned.number.endswith('b') else ''}"
    stem = f"figure_{number}" if planned.number else f"{planned.experiment}_{planned.pictures[0]}"
    files = []
    for place, (title, _, draw) in enumerate(drawn, start=1):
        name = f"{stem}_{place}.png" if len(drawn) > 1 else f"{stem}.png"
        file = io.BytesIO()
        draw().savefig(file, format="png")
        images[name] = file.getvalue()
        files.append((name, title))
    return Picture(label, " ".join(dict.fromkeys(caption for _, caption, _ in drawn)), tuple(files))


Drawing = tuple[str, str, Callable[[], Figure]]
"""A picture: the text in its place, what it shows, and what draws it."""


def _drawings(kind: str, variant: str, record: Record, records: Records) -> list[Drawing]:
    """The pictures of a kind that a record gives."""
    data, found = record.data, record.results
    if kind == "curves":
        chosen = [outcome for outcome in record.outcomes if variant in ("", outcome.variant.name)]
        return [_curves(outcome, data) for outcome in chosen]
    if kind == "predictions" and record.predictions:
        shown = record.predictions
        right = sum(label == answer for label, answer in zip(shown.labels, shown.predicted, strict=True))
        caption = (
            f"The loaded model's answers on {len(shown.labels)} test images: {right} are right; on all test images "
        )
        says = f"{caption}{100 * shown.test_accuracy:.2f} %."
        return [("test images with true and predicted class", says, lambda: figures.predictions(shown, data))]
    if kind in SEARCH_PICTURES and record.search:
        search = record.search
        draw = {
            "parallel": search_figures.parallel,
            "slices": search_figures.slices,
            "budget": search_figures.budget,
        }[kind]
        return [(f"candidates of the search, {kind}", _search_caption(record, kind), lambda: draw(search, data))]
    if kind == "overview" and isinstance(record.experiment, Overview):
        of = _shown(record.experiment, records)
        caption = _time_caption([(f"{one.experiment.name}: ", outcome) for one in of for outcome in one.outcomes])
        return [("training times by variant", caption, lambda: figures.overview_times(of))] if of else []
    if kind == "time" and found:
        draw_times = lambda: figures.training_times(found, data)  # noqa: E731
        return [("training times by variant", _time_caption([("", o) for o in record.outcomes]), draw_times)]
    if kind in ("accuracy", "loss") and found:
        caption = _metric_caption(kind, record.outcomes)
        return [(f"{kind} by variant", caption, lambda: figures.comparison_curves(kind, found, data))]
    return _of_comparison(kind, record, record.experiment) if isinstance(record.experiment, Comparison) else []


def _of_comparison(kind: str, record: Record, comparison: Comparison) -> list[Drawing]:
    """The pictures that stand on a comparison's selection metric, verdicts or targets."""
    data, select = record.data, comparison.metric
    if kind == "rates" and (rates := figures.learning_rates(record.results, select, data)):
        return [(f"{select.name} by learning rate", _rates_caption(select, record.outcomes), lambda: rates)]
    verdicts = [v for v in record.verdicts if v.measure == select.name and math.isfinite(v.low)]
    if kind == "differences" and 0 < len(verdicts) <= MANY_VERDICTS:
        unit, scale = ("points", 100) if select.unit == "points" else (select.unit, 1)
        caption = (
            f"Differences of {select.name} between variants on the same seed, means with their 95 % intervals. Within "
            f"{scale * (select.margin or 0):g} {unit} they count as practically none."
        )
        return [(f"differences of {select.name}", caption, lambda: verdict_figures.differences(verdicts, data))]
    drawn: list[Drawing] = []
    targets = results.targets(comparison, record.results) if kind == "reached" else []
    for metric, value in dict.fromkeys((target.metric, target.target) for target in targets):
        those = [target for target in targets if (target.metric, target.target) == (metric, value)]
        sign = "≥" if those[0].maximizes else "≤"
        listed = ", ".join(f"{one.variant} {one.count}" for one in those)
        unit = those[0].unit
        caption = f"Share of all trainings that had reached {metric} {sign} {value:g}, by {unit} of training: {listed}."
        drawn.append((f"{metric} {value:g} reached", caption, partial(verdict_figures.reached, those, data)))
    return drawn


def _rates_caption(select: Metric, found: Sequence[Outcome]) -> str:
    """The best learning rate of each optimizer, by what the last epoch left; what diverged has left nothing."""
    best: dict[str, tuple[float, float]] = {}
    for outcome in found:
        name = outcome.variant.params()["optimizer"]
        value = outcome.mean(lambda result: math.nan if result.status == DIVERGED else result.last(select.name))
        if select.better(value, best.get(name, (math.nan, 0))[0]):
            best[name] = value, outcome.variant.learning_rate
    listed = ", ".join(f"{name} {value:.4f} at {rate:g}" for name, (value, rate) in best.items())
    return (
        f"{select.name} after the last epoch against the learning rate{_over(found)}. Each optimizer's best: "
        f"{listed or 'none has a value'}."
    )


def _over(found: Sequence[Outcome]) -> str:
    """Whether numbers are means, as part of a sentence."""
    seeds = max((len(outcome.results) for outcome in found), default=1)
    return f", means over {seeds} seeds" if seeds > 1 else ""


def _shown(overview: Overview, records: Records) -> list[Record]:
    return [records[name] for name in overview.of if name in records and records[name].results]


def _curves(outcome: Outcome, data: str) -> Drawing:
    return (
        f"learning curves of {outcome.variant.name}",
        _curve_caption(outcome),
        lambda: figures.learning_curves(outcome.results, data),
    )


def _curve_caption(outcome: Outcome) -> str:
    name, trained = outcome.variant.name, [result for result in outcome.results if result.epochs]
    if not trained:
        return f"{name}: no epoch was completed."
    accuracy, val_accuracy, loss, val_loss = (
        _mean_last(outcome, metric) for metric in ("accuracy", "val_accuracy", "loss", "val_loss")
    )
    each = sorted({result.epochs for result in trained})
    epochs = _count(each[0], "epoch") if len(each) == 1 else f"{each[0]:,} to {_count(each[-1], 'epoch')}"
    bests = [result.best_epoch for result in trained if result.best_epoch]
    best = ""
    if bests:
        which = str(bests[0]) if len(trained) == 1 else f"{sum(bests) / len(bests):.1f} on average"
        best = f" The best epoch is {which}."
    over = f"{_over([outcome])}," if _over([outcome]) else ""
    return (
        f"{name}: after {epochs}{over} accuracy {accuracy} in training and "
        f"{val_accuracy} in validation, loss {loss} and {val_loss}.{best}"
    )


def _mean_last(outcome: Outcome, metric: str) -> str:
    return f"{outcome.mean(lambda result: result.last(metric)):.4f}"


def _metric_caption(metric: str, found: Sequence[Outcome]) -> str:
    trained = [outcome for outcome in found if any(result.epochs for result in outcome.results)]
    listed = ", ".join(f"{o.variant.name} {_mean_last(o, metric)} / {_mean_last(o, f'val_{metric}')}" for o in trained)
    word = "Accuracy" if metric == "accuracy" else "Loss"
    return f"{word} in the last epoch (training / validation{_over(found)}): {listed or 'none was completed'}."


def _time_caption(found: Sequence[tuple[str, Outcome]]) -> str:
    """The fastest and the slowest of variants, each with what stands before its name."""
    apart = f"Seconds of training{_over([outcome for _, outcome in found])}, compiling and evaluation apart."
    known = [
        (seconds, before + outcome.variant.name)
        for before, outcome in found
        if (seconds := outcome.mean(lambda r: r.train_seconds / r.epochs if r.epochs else math.nan)) > 0
    ]
    if len(known) < 2:
        return apart
    (fast, fastest), (slow, slowest) = min(known), max(known)
    return (
        f"{apart} Per epoch {fastest} is the fastest with {results.significant(fast)} s, {slowest} the slowest with "
        f"{results.significant(slow)} s, {results.significant(slow / fast)} times as long."
    )


SEARCH_PICTURES = {
    "parallel": "each line a candidate",
    "slices": "each point a candidate, one picture a choice",
    "budget": "the best to expect of so many of them, and the best so far",
}
"""What is seen of a search, by the kind of picture."""


def _search_caption(record: Record, kind: str) -> str:
    assert record.search is not None
    means = [c.mean for c in record.search.candidates if math.isfinite(c.mean)]
    span = f"mean accuracies from {min(means):.4f} to {max(means):.4f}" if means else "no mean accuracy"
    best = f" Best: {choices_text(record.search.best.choices)}." if means else ""
    return f"The search's {_count(len(record.search.candidates), 'candidate')}, {SEARCH_PICTURES[kind]}: {span}.{best}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------------------------------------------------- Markdown


def _md(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line."""
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _markdown(page: Sequence[Block]) -> str:
    return "\n".join(_markdown_block(block) for block in page)


def _markdown_block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_md(block.text)}\n"
        case Paragraph():
            return f"> **{_md(block.text)}**\n" if block.strong else f"{_md(block.text)}\n"
        case Listing():
            return "".join(f"- {_md(item)}\n" for item in block.items)
        case Table():
            header, *body = [[_md(cell) for cell in row] for row in block.cells]
            lines = [header, ["---"] * len(header), *body]
            return "".join(f"| {' | '.join(line)} |\n" for line in lines)
        case Picture():
            images = "\n".join(f"![{_md(alt)}](figures/{name})" for name, alt in block.files)
            label = f"**{block.label}.** " if block.label else ""
            return f"{images}\n\n{label}{_md(block.caption)}\n"


# -------------------------------------------------------------------------------------------------------------- HTML

BADGES = {REPRODUCED: "good", NOT_REPRODUCED: "bad", NOT_TESTABLE: "open"}

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --faint: #59636e; --back: #fff; --line: #d1d9e0; --soft: #f4f6f8;
  --good: #116329; --bad: #a40e26; --open: #6b5200; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ee; --faint: #9aa6b2; --back: #12161b; --line: #333c46;
  --soft: #1b2128; --good: #5bd07b; --bad: #ff8a94; --open: #e2c04d; --warn: #3a3013; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem; color: var(--text); background: var(--back);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; font-size: 1.4rem; }
h3 { margin: 2.2rem 0 .3rem; font-size: 1.15rem; }
p, ul { max-width: 48rem; margin: .5rem 0; }
p.strong { background: var(--warn); border-left: .3rem solid var(--open); padding: .6rem .8rem; font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; font-size: .9rem; }
a { color: inherit; }
.table { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { background: var(--soft); }
.number { text-align: right; white-space: nowrap; }
.cards td:last-child { min-width: 16rem; }
.badge { font-weight: 700; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
figure { margin: 1.2rem 0 1.8rem; }
figure img { display: block; max-width: 100%; height: auto; margin-bottom: .5rem; border-radius: .3rem;
  background: #fff; }
figcaption { max-width: 48rem; font-size: .92rem; color: var(--faint); }
@media (max-width: 46rem) {
  .cards thead { display: none; }
  .cards, .cards tbody, .cards tr, .cards td { display: block; }
  .cards tr { border: 1px solid var(--line); border-radius: .4rem; margin-bottom: .8rem; }
  .cards td { border: 0; min-width: 0; text-align: left; white-space: normal; }
  .cards td::before { content: attr(data-label) ": "; color: var(--faint); }
}
@media print { nav { display: none; } body { max-width: none; font-size: 10pt; } figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .table { overflow: visible; } }
""".strip()


def _html(page: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """The page as one HTML file with its style and pictures in it."""
    links = [
        f'<a href="#{_anchor(block.text)}">{html.escape(block.text)}</a>'
        for block in page
        if isinstance(block, Heading) and block.level > 1
    ]
    body = [_html_block(block, images) for block in page]
    body.insert(1, f"<nav>{' '.join(links)}</nav>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(TITLE)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _html_block(block: Block, images: Mapping[str, bytes]) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{_anchor(block.text)}">{html.escape(block.text)}</h{block.level}>'
        case Paragraph():
            strong = ' class="strong"' if block.strong else ""
            return f"<p{strong}>{html.escape(block.text)}</p>"
        case Listing():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _html_table(block)
        case Picture():
            shown = "".join(
                f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(images[name]).decode()}">'
                for name, alt in block.files
            )
            label = f"<strong>{html.escape(block.label)}.</strong> " if block.label else ""
            return f"<figure>{shown}<figcaption>{label}{_text(block.caption)}</figcaption></figure>"


def _text(text: str) -> str:
    """`text` as HTML, a number kept on one line with its unit."""
    return re.sub(r"(?<=\d) (?=(?:%|s|points?)(?!\w))", "&nbsp;", html.escape(text))


def _html_table(table: Table) -> str:
    header, *body = table.cells
    columns = zip(*body, strict=True)
    numeric = [all(re.fullmatch(r"[-+]?[\d,.]+|–", cell) for cell in column) for column in columns]
    kinds = [' class="number"' if number else "" for number in numeric] or [""] * len(header)
    head = "".join(f"<th{kind}>{_text(cell)}</th>" for kind, cell in zip(kinds, header, strict=True))
    rows = []
    for row in body:
        cells = []
        for kind, label, cell in zip(kinds, header, row, strict=True):
            shown = f'<span class="badge {BADGES[cell]}">{cell}</span>' if cell in BADGES else _text(cell)
            cells.append(f'<td data-label="{html.escape(label)}"{kind}>{shown}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="cards"' if table.cards else ""
    return (
        f'<div class="table"><table{kind}><thead><tr>{head}</tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )
