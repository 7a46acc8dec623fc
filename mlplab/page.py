"""A comparison's page: one file with the question, the answer, the figure that shows it, and all that stands behind it.

The order is that in which a reader asks. Everything is escaped, nothing is fetched from elsewhere, and what a chart
shows stands in a table, too.
"""

import html
import math
from collections.abc import Sequence

from mlplab import figures, page_charts, page_parts, results, tables
from mlplab.across import Across
from mlplab.answers import answer_of
from mlplab.comparison import Comparison
from mlplab.curves import unit_of, with_unit
from mlplab.data import Dataset
from mlplab.drawing import CROWD
from mlplab.evaluations import PREFIX
from mlplab.page_behind import commands_part, data_part, machine_part, splits_of, trained_part
from mlplab.page_canvas import Charts
from mlplab.page_parts import escaped, folded, listing, paragraph, section, table
from mlplab.page_tested import Answered, tested_part
from mlplab.records import Tuning
from mlplab.results import Result, Target
from mlplab.spec import Metric
from mlplab.verdict_figures import span_text
from mlplab.verdicts import ONE_SEED, Verdict

NAME = "comparison.html"
"""The artifact of a comparison's run that is its page."""


def comparison_page(
    comparison: Comparison,
    data: Dataset,
    found: Sequence[Result],
    verdicts: Sequence[Verdict],
    store: str = "",
    run_id: str = "",
    *,
    tested: Answered | None = None,
    tuning: Tuning | None = None,
) -> str:
    """The page of a comparison on one data set, as HTML.

    Args:
        found: of all trainings.
        verdicts: of all measures.
        store, run_id: where the record is.
        tested: what the best variant's model answers on the test set.
        tuning: by which the variants are as they are.
    """
    names = list(comparison.variants)
    ranked = results.rank(comparison, found)
    shown = tables.shown_metrics(comparison, found)
    charts = Charts(names, page_charts.looks_of(names))
    epochs = page_charts.epochs_of(found)
    charts.curves = {"epochs": epochs, "of": page_charts.curves(results.outcomes(found), shown, names, epochs)}
    answer = answer_of(comparison, found, verdicts)
    targets = results.targets(comparison, found)
    first = [outcome.variant.name for outcome in ranked]
    of_metric = [verdict for verdict in verdicts if verdict.measure == comparison.metric.name]
    main = [
        section("figure", "What shows it", _shows_it(charts, comparison, found, of_metric)),
        section(
            "table",
            "Table",
            paragraph(_counted(found), "quiet"),
            table(tables.to_cells(comparison, found), "the variants' numbers, best first", marks=charts.marks(first)),
            listing(_notes(comparison, found, tuning), "notes"),
        ),
        section("verdicts", "Verdicts", _verdicts(charts, verdicts, results.unpaired(found))),
        section("curves", "Learning curves", _curves(charts, shown, found)),
        section("targets", "Time to target", _targets(charts, targets)),
        section("test", "On the test set", tested_part(charts, comparison, tested)),
        section("trained", "What was trained", *trained_part(charts, comparison, found, tuning)),
        section("origin", "Data, machine and versions", data_part(data), machine_part()),
        section(
            "commands", "Do it again", *commands_part(comparison, data, found, ranked[0].representative, store, run_id)
        ),
    ]
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in splits_of(data).items())
    return _page(
        comparison,
        f"{_trainings(comparison, found)} · {data.label}: {sizes} examples",
        answer,
        main,
        charts,
        [data.notice or ""],
    )


def across_page(over: Across, verdicts: Sequence[Verdict], *, store: str = "", run_id: str = "") -> str:
    """The page of a comparison on several data sets, as HTML: what holds over all of them, and on each.

    Args:
        verdicts: over all data sets.
        store, run_id: where the record is.
    """
    comparison, names = over.comparison, list(over.comparison.variants)
    charts = Charts(names, page_charts.looks_of(names))
    of_metric = [verdict for verdict in verdicts if verdict.measure == comparison.metric.name]
    profiles = over.profiles()
    every = [result for record in over.records for result in record.results]
    charts.curves = {"epochs": page_charts.epochs_of(every), "of": {}}
    main = [
        section("figure", "What shows it", _over_all(charts, over, of_metric)),
        section(
            "table",
            "Table",
            paragraph(f"{comparison.metric.words}, means over the seeds at each one's best epoch", "quiet"),
            table(over.cells(), f"{comparison.metric.words} on each data set"),
            listing([over.caution], "notes"),
        ),
        section(
            "verdicts",
            "Verdicts over all data sets",
            _verdicts(charts, verdicts, over.refusal, over.sentences(verdicts)),
        ),
        section("each", "On each data set", *_on_each(charts, over)),
        section(
            "targets",
            "Time to target",
            table(over.profile_cells(profiles), "how soon targets were reached") if profiles else "",
        ),
        section("trained", "What was trained", *trained_part(charts, comparison, every, None)),
        section("origin", "Machine and versions", machine_part()),
        section("commands", "Do it again", *commands_part(comparison, None, every, None, store, run_id)),
    ]
    said = f"{_trainings(comparison, every)} · {len(over.labels)} data sets: {', '.join(over.labels)}"
    notices = list(dict.fromkeys(record.notice for record in over.records))
    return _page(comparison, said, over.answer(verdicts), main, charts, notices)


def unavailable(comparison: Comparison, answer: str, error: str) -> str:
    """What stands in the place of a page that could not be made; the record is whole without it."""
    said = f"This page could not be made: {error}. All that it would show is in the run's other artifacts."
    return _page(comparison, "", answer, [section("error", "No page", paragraph(said))], Charts([], {}), [])


def _page(
    comparison: Comparison,
    said: str,
    answer: str,
    main: Sequence[str],
    charts: Charts,
    notices: Sequence[str],
) -> str:
    sections = [part for part in main if part]
    links = ""
    for part in sections[1:]:
        name, title = part.partition('id="')[2].partition('"')[0], part.partition("<h2>")[2].partition("</h2>")[0]
        links += f'<li><a href="#{name}">{title}</a></li>'
    header = [
        f'<p class="over">mlplab comparison{f" {html.escape(comparison.name)}" if comparison.name else ""}</p>',
        f"<h1>{escaped(comparison.question)}</h1>",
        paragraph(answer, "answer"),
        *(paragraph(notice, "notice") for notice in notices if notice),
        paragraph(said, "quiet"),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if links else "",
        "<noscript><p>Charts need JavaScript; their numbers are in the tables.</p></noscript>" if charts.every else "",
    ]
    footer = "One file, which needs no network. Charts: Vega-Lite."
    return page_parts.document(
        comparison.question,
        answer,
        "\n".join(filter(None, header)),
        "\n".join(sections),
        paragraph(footer) if charts.every else "",
        charts.scripts(),
    )


# ------------------------------------------------------------------------------------------------------------ sections


def _trainings(comparison: Comparison, found: Sequence[Result]) -> str:
    """How much was trained, for the line below the answer."""
    variants, seeds = len(comparison.variants), len({result.seed for result in found})
    epochs = sorted({result.epochs for result in found})
    lengths = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}" if epochs else "0"
    many = [f"{variants} variant{'s' * (variants != 1)}", f"{seeds} seed{'s' * (seeds != 1)}"]
    return f"{' × '.join(many)}, {lengths} epoch{'s' * (lengths != '1')} each"


def _counted(found: Sequence[Result]) -> str:
    many = max((len(outcome.results) for outcome in results.outcomes(found)), default=1)
    each = f"Means over {many} seeds at each one's best epoch, ± half a 95 % interval." if many > 1 else ""
    return each or "Values at the best epoch of the one seed."


def _notes(comparison: Comparison, found: Sequence[Result], tuning: Tuning | None) -> list[str]:
    notes = [tuning.sentence if tuning else ""]
    notes += [
        f"Note: {says}." if says else ""
        for says in (results.disturbance(found), results.unpaired_weights(comparison, found))
    ]
    failed = [result for result in found if result.status == results.FAILED]
    for result in failed[:3]:
        last = (result.error.strip().splitlines() or ["no word"])[-1]
        notes.append(f"{result.variant.name}, seed {result.seed}, failed: {last}")
    return [note for note in notes if note]


def _shows_it(charts: Charts, comparison: Comparison, found: Sequence[Result], of_metric: Sequence[Verdict]) -> str:
    """The figure that the answer rests on: differences where there are verdicts, else the curves."""
    told = _with_interval(of_metric)
    if told:
        return _differences(charts, told)
    metric = next(one for one in tables.shown_metrics(comparison, found) if one.base == _base(comparison.metric))
    sides = [side for side in (f"val_{metric.base}", metric.base) if side in charts.curves["of"]]
    if not sides:
        return paragraph(f"No training has a value of {metric.words}, so there is nothing to draw.")
    return charts.legend(ranged=False) + _panel(charts, metric, found, sides[0], 3)


def _with_interval(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts that can be drawn: one seed has no interval."""
    return [verdict for verdict in verdicts if verdict.decision != ONE_SEED and math.isfinite(verdict.low)]


def _base(metric: Metric) -> str:
    return metric.base.removeprefix(PREFIX)


def _differences(charts: Charts, verdicts: Sequence[Verdict], explained: bool = True) -> str:
    """Differences of one measure; `explained`: with what marks and bands mean."""
    spec = page_charts.differences(verdicts, charts.looks)
    if spec is None:
        return ""
    first = verdicts[0]
    thin = f"; thin lines: after correction for {first.verdicts} verdicts, which decides what is better" * (
        first.verdicts > 1
    )
    caption = (
        f"{'Ratios' if first.unit == 'times' else 'Differences'} of {first.words}. Thick lines: 95 % intervals{thin}. "
        "Band: practically no difference. Filled marks are decided: in a variant's colour that one is better, grey is "
        "practically equivalent; hollow ones are undecided."
    )
    cautions = " ".join(f"Note: {one}." for one in dict.fromkeys(v.caution for v in verdicts if v.caution))
    says = "; ".join(f"{v.a} and {v.b}: {span_text(v)}, {v.decision}" for v in verdicts)
    label = f"{first.words}, pairs with 95 % intervals: {says}"
    return charts.figure({"spec": spec}, label, f"{caption * explained} {cautions}".strip(), "differences")


def _verdicts(charts: Charts, verdicts: Sequence[Verdict], refusal: str, said: Sequence[str] = ()) -> str:
    """Every pair's verdicts, measure by measure, folded."""
    if refusal:
        return paragraph(f"No verdicts: {refusal}")
    if not verdicts:
        return ""
    content = []
    for place, measure in enumerate(dict.fromkeys(verdict.measure for verdict in verdicts)):
        own = [verdict for verdict in verdicts if verdict.measure == measure]
        told = _with_interval(own)
        words = own[0].words
        content.append(f"<h3>{escaped(words[0].upper() + words[1:])}</h3>")
        content.append(listing([verdict.sentence for verdict in own]))
        if place and told:  # the first is the figure above
            content.append(_differences(charts, told, explained=False))
        content.append(table(_verdict_cells(own), f"verdicts on {words}"))
    others = [text for text in said if text not in {verdict.sentence for verdict in verdicts}]
    pairs = f"{len(verdicts)} verdict{'s' * (len(verdicts) != 1)}, pair by pair"
    return folded(pairs, *content, listing(others, "notes"))


def _verdict_cells(verdicts: Sequence[Verdict]) -> list[list[str]]:
    ratio = verdicts[0].unit == "times"
    unit = f" ({verdicts[0].unit})" if verdicts[0].unit and not ratio else ""
    heads = ["seeds", "p", "p after Holm", "effect size", "share of seeds in which it is better"]
    cells = [["pair", "decision", f"{'ratio' if ratio else 'difference'}{unit} [95 %]", *heads]]
    for one in verdicts:
        numbers = [_number(one.p, "#.2g"), _number(one.p_holm, "#.2g"), _number(one.effect, ".2f")]
        span = span_text(one) if math.isfinite(one.difference) else "–"
        share = _number(one.probability, ".0%")
        sign = "/" if ratio else "−"
        cells.append([f"{one.a} {sign} {one.b}", one.decision, span, str(one.seeds), *numbers, share])
    return cells


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _curves(charts: Charts, shown: Sequence[Metric], found: Sequence[Result]) -> str:
    """Each shown metric's curves, of training and of validation, under one legend."""
    parts = []
    for metric in shown:
        sides = [side for side in (f"val_{metric.base}", metric.base) if side in charts.curves["of"]]
        if not sides:
            continue
        title = metric.base.replace("_", " ") + unit_of(with_unit(metric, found), found)
        panels = "".join(_panel(charts, metric, found, side, 4) for side in sides)
        cut = paragraph(page_charts.cut_off(metric, found), "quiet")
        parts.append(f'<h3>{escaped(title)}</h3><div class="panels">{panels}</div>{cut}')
    if not parts:
        return ""
    variants = results.outcomes(found)
    bands = len(variants) <= CROWD
    explained = figures.curves_explained(variants, bands=bands)
    how = f"{explained[0].upper()}{explained[1:]}. " if explained else ""
    told = "A click on a variant hides it; drag across a chart to zoom, double-click for all epochs."
    many = len(charts.curves["epochs"])
    if many < charts.curves["epochs"][-1]:
        told += f" {many} of {charts.curves['epochs'][-1]:,} epochs are drawn."
    return charts.legend(ranged=True) + "".join(parts) + paragraph(how + told, "quiet")


def _panel(charts: Charts, metric: Metric, found: Sequence[Result], name: str, level: int, on: str = "") -> str:
    side = "validation" if name.startswith("val_") else "training"
    words = f"{metric.base.replace('_', ' ')}, {side}"
    lasts = []
    for outcome in results.outcomes(found):
        value = outcome.mean(lambda result: result.last(name))
        lasts.append(f"{outcome.variant.name} {tables.number_text(value)}")
    says = f"{f'{on.strip()}: ' if on else ''}{words}, by epoch; at the last one: {'; '.join(lasts)}"
    chart = page_charts.curve_chart(name, metric, found, charts.looks, on)
    title = side if level == 4 and not on else words
    return f"<div><h{level}>{escaped(title)}</h{level}>{charts.figure(chart, says)}</div>"


def _targets(charts: Charts, targets: Sequence[Target]) -> str:
    if not targets:
        return ""
    parts = [charts.legend(ranged=False)]
    panels = ""
    for metric, value in dict.fromkeys((target.metric, target.target) for target in targets):
        own = [target for target in targets if (target.metric, target.target) == (metric, value)]
        sign = "≥" if own[0].maximizes else "≤"
        says = "; ".join(f"{one.variant}: {one.count}, {one.says}" for one in own)
        title = f"{metric} {sign} {value:g}"
        label = f"share of the seeds that have reached {title}: {says}"
        spec = {"spec": page_charts.reached(own, charts.looks)}
        panels += f"<div><h3>{escaped(title)}</h3>{charts.figure(spec, label)}</div>"
    parts.append(f'<div class="panels">{panels}</div>')
    parts.append(paragraph("Share of all seeds that have reached it; a tick: a training ended without.", "quiet"))
    marks = charts.marks([target.variant for target in targets])
    parts.append(table(tables.target_cells(targets), "how soon targets were reached", marks=marks))
    return "".join(parts)


# --------------------------------------------------------------------------------------------------- several data sets


def _over_all(charts: Charts, over: Across, of_metric: Sequence[Verdict]) -> str:
    told = _with_interval(of_metric)
    if not told:
        return table(over.cells(), f"the variants' {over.comparison.metric.words} on each data set, in numbers")
    parts = [f"<h3>Over all {len(over.labels)} data sets</h3>", _differences(charts, told)]
    return "".join(parts)


def _on_each(charts: Charts, over: Across) -> list[str]:
    """What it came to on each data set, the selection metric's curves, and where that data set's own page is."""
    parts = [charts.legend(ranged=True)]
    epochs, names, told_of = charts.curves["epochs"], charts.names, charts.curves["of"]
    for one, record in zip(over.comparison.needs, over.records, strict=True):
        found = record.results
        answer = answer_of(one, found, record.verdicts)
        cells = tables.to_cells(one, found)
        of_metric = [verdict for verdict in record.verdicts if verdict.measure == one.metric.name]
        told = _with_interval(of_metric)
        first = [outcome.variant.name for outcome in results.rank(one, found)]
        where = f"Verdicts, other curves and the test set are on its own page, {NAME} of the run {record.run_id}."
        on, shown = f"{record.data} ", tables.shown_metrics(one, found)[:1]
        told_of |= page_charts.curves(results.outcomes(found), shown, names, epochs, on)
        sides = [side for side in (f"val_{shown[0].base}", shown[0].base) if on + side in told_of]
        panels = "".join(_panel(charts, shown[0], found, side, 4, on) for side in sides)
        parts += [
            f"<h3>{escaped(record.data)}</h3>",
            paragraph(answer),
            _differences(charts, told, explained=False) if told else "",
            table(cells, f"the variants' numbers on {record.data}", marks=charts.marks(first)),
            f'<div class="panels">{panels}</div>' if panels else "",
            paragraph(where, "quiet"),
        ]
    return parts
