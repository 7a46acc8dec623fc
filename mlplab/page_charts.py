"""The charts of a comparison's page: Vega-Lite specifications by Altair, their data, and the script that draws them.

A variant is a number in a chart's data, its place among them all; its name stands in the page. Curves are told once for
all charts, with their values rounded, and `page.js` hands each chart its own.
"""

import contextlib
import functools
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mlplab.amounts import significant
from mlplab.curves import mean_of, sound, spiking, with_unit
from mlplab.drawing import CROWD, looks
from mlplab.folders import cache_dir
from mlplab.predicted import Fitted
from mlplab.results import DIVERGED, Outcome, Result, Target
from mlplab.spec import Metric
from mlplab.verdict_figures import span_text
from mlplab.verdicts import BETTER, EQUIVALENT, Verdict

MOST_POINTS = 250
"""Of longer trainings so many epochs are told, evenly spread, the last among them."""
MOST_EXAMPLES = 1_500
"""Of more predictions so many are drawn."""
DIGITS = 6
"""Significant digits of a value in a chart."""
DASHED: Mapping[str, tuple[float, ...]] = {"-": (), "--": (7, 4), "-.": (8, 3, 2, 3), ":": (2, 3)}
"""Matplotlib's dashes, as lengths of dashes and gaps."""

Spec = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """A variant's colour and dashes, the same in all charts of a comparison."""

    colour: str
    dashes: tuple[float, ...]


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """The looks of a comparison's variants by their names, as its figures have them."""
    return {name: Look(colour, _dashes(dash)) for name, (colour, dash) in zip(names, looks(names), strict=True)}


def _dashes(dash: Any) -> tuple[float, ...]:
    if isinstance(dash, str):
        return DASHED[dash]
    _, lengths = dash  # as Matplotlib has them: an offset, and lengths in line widths
    return tuple(2.0 * length for length in lengths or ())


def _altair() -> Any:
    """Altair, which takes a second to import; its types know every option of Vega-Lite but few ways to pass one on."""
    import altair

    return altair


def _unchecked(build: Callable[P, T]) -> Callable[P, T]:
    """Builds a chart without checking each of its parts against Vega-Lite's schema, which takes most of the time.

    The tests check the charts.
    """

    @functools.wraps(build)
    def quickly(*arguments: P.args, **options: P.kwargs) -> T:
        with _altair().utils.schemapi.debug_mode(False):
            return build(*arguments, **options)

    return quickly


# --------------------------------------------------------------------------------------------------------- the script


def vega() -> str:
    """The JavaScript of Vega, Vega-Lite and vega-embed as one script, of the version that Altair writes for.

    It is bundled once on a machine, which takes seconds, and kept in the cache.
    """
    import vl_convert

    bundler: Any = vl_convert
    version = ".".join(_altair().SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    kept = cache_dir() / f"vega-lite-{version}-vl-convert-{bundler.__version__}.js"
    with contextlib.suppress(OSError):
        return kept.read_text("utf-8")
    bundle: str = bundler.javascript_bundle(vl_version=version)
    bundle = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=kept.parent, delete=False) as file:
            file.write(bundle)
        os.replace(file.name, kept)
    return bundle


# --------------------------------------------------------------------------------------------------------- differences


@_unchecked
def differences(verdicts: Sequence[Verdict], colours: Mapping[str, Look]) -> Spec | None:
    """Differences, or ratios, of pairs in one measure with their 95 % intervals, and what is practically none.

    A mark has the colour of the variant that is better, and none where none is. None without a finite difference.
    """
    alt = _altair()
    rows = [verdict for verdict in verdicts if math.isfinite(verdict.difference)]
    if not rows:
        return None
    first = rows[0]
    ratio, scale = first.unit == "times", 100 if first.unit == "points" else 1
    margin = scale * first.margin
    edges = (1 / (1 + margin), 1 + margin) if ratio else (-margin, margin)
    ends = [scale * v for row in rows for v in (row.difference, row.low, row.high) if math.isfinite(v)]
    wider = [
        scale * v
        for row in rows
        if row.verdicts > 1
        for v in (row.low_corrected, row.high_corrected)
        if math.isfinite(v) and (v > 0 or not ratio)
    ]
    domain = _reaching([*ends, *edges, 1 if ratio else 0], wider, math.log if ratio else float, ratio)
    values = []
    for place, row in enumerate(rows):
        lows = [scale * value for value in (row.low_corrected, row.low, row.high, row.high_corrected)]
        corrected = row.verdicts > 1 and math.isfinite(row.high_corrected)
        values.append(
            {
                "row": place,
                "pair": f"{row.a} {'/' if ratio else '−'} {row.b}",
                "says": f"{span_text(row)}, {row.seeds} seed{'s' * (row.seeds != 1)}: {row.decision}",
                "value": _rounded(scale * row.difference),
                "low": _rounded(lows[1]),
                "high": _rounded(lows[2]),
                "wide_low": _rounded(lows[0]) if corrected else None,
                "wide_high": _rounded(lows[3]) if corrected else None,
                "colour": colours[row.a].colour if row.decision == BETTER else "#7d8590",
                "solid": row.decision in (BETTER, EQUIVALENT),
                "tip": row.sentence,
            }
        )
    base = alt.Chart(alt.Data(values=values))
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    unit = f" ({first.unit})" if first.unit and not ratio else ""
    title = f"{first.words}, first {'divided by' if ratio else 'minus'} second{unit}"
    scaled = alt.Scale(domain=domain, nice=False, clamp=True, **({"type": "log"} if ratio else {"zero": False}))
    x = alt.X("low:Q", scale=scaled, title=title, axis=alt.Axis(grid=True, tickCount=6))
    colour = alt.Color("colour:N", scale=None)
    band = alt.Chart(alt.Data(values=[{"low": edges[0], "high": edges[1]}])).mark_rect(aria=False)
    zero = alt.Chart(alt.Data(values=[{"low": 1 if ratio else 0}])).mark_rule(strokeWidth=1.2)
    below, tip = {"yOffset": 16}, alt.Tooltip("tip:N")
    layers = [
        band.encode(x=x, x2="high:Q").properties(name="margin"),
        zero.encode(x=x).properties(name="zero"),
        base.mark_rule(strokeWidth=1.4, **below)
        .transform_filter("isValid(datum.wide_low)")
        .encode(y=y, x=alt.X("wide_low:Q", scale=scaled), x2="wide_high:Q", color=colour),
        base.mark_rule(strokeWidth=5, **below)
        .transform_filter("isValid(datum.low)")
        .encode(y=y, x=x, x2="high:Q", color=colour, tooltip=tip),
        base.mark_point(size=110, strokeWidth=2, filled=True, opacity=1, **below)
        .transform_filter("datum.solid")
        .encode(y=y, x=alt.X("value:Q", scale=scaled), color=colour, tooltip=tip),
        base.mark_point(size=110, strokeWidth=2, opacity=1, fill="white", **below)
        .transform_filter("!datum.solid")
        .encode(y=y, x=alt.X("value:Q", scale=scaled), color=colour, tooltip=tip)
        .properties(name="hollow"),
    ]
    for text, dy, weight in (("pair", -14, "bold"), ("says", 2, "normal")):
        written = base.mark_text(align="left", dy=dy, fontWeight=weight, fontSize=13, limit=alt.ExprRef("width"))
        layers.append(written.encode(y=y, x=alt.value(0), text=f"{text}:N", tooltip=tip))
    return _finished(alt.layer(*layers), len(rows) * 66)


def _reaching(
    values: Sequence[float], wider: Sequence[float], scale: Callable[[float], float], ratio: bool
) -> list[float]:
    """The ends of an axis for `values`, and for `wider` ones by up to their range."""
    low, high = scale(min(values)), scale(max(values))
    ends = [scale(value) for value in (*wider, *values)]
    reach = (high - low) / 2
    low, high = max(low - reach, min(ends)), min(high + reach, max(ends))
    room = 0.04 * (high - low) or 0.1
    found = [low - room, high + room]
    return [math.exp(value) for value in found] if ratio else found


# -------------------------------------------------------------------------------------------------------------- curves


def epochs_of(results: Sequence[Result]) -> list[int]:
    """The epochs that a page's curves are told at."""
    longest = max((result.epochs for result in results), default=0)
    return sorted({round(at) for at in np.linspace(1, longest, min(longest, MOST_POINTS)).tolist()})


def curves(
    results: Sequence[Outcome], metrics: Sequence[Metric], names: Sequence[str], epochs: Sequence[int], on: str = ""
) -> dict[str, Any]:
    """The curves of metrics, of training and validation, for the data of a page: means, their intervals, each seed.

    Args:
        results: by variant.
        names: of all variants, in the order that gives their numbers.
        epochs: at which they are told.
        on: stands before their names, where a page has those of several data sets.
    """
    crowd = len(results) > CROWD
    found: dict[str, Any] = {}
    for metric in metrics:
        for name in (metric.base, f"val_{metric.base}"):
            means, seeds = [], []
            for outcome in results:
                variant = names.index(outcome.variant.name)
                curves_of = [result.history.get(name, []) for result in sound(outcome)]
                if any(curves_of):
                    middle = [_told(line, epochs) for line in mean_of(curves_of).tolist()]
                    has_band = not crowd and any(value is not None for value in middle[1])
                    means.append(
                        {"v": variant, "m": middle[0], **({"l": middle[1], "h": middle[2]} if has_band else {})}
                    )
                for result in outcome.results:
                    values = result.history.get(name, [])
                    if not values or crowd:
                        continue
                    lost = result.status == DIVERGED
                    if len(outcome.results) > 1 or lost:
                        seeds.append({"v": variant, "s": result.seed, "y": _told(values, epochs), "lost": lost})
            if means:
                found[on + name] = {"means": means, "seeds": seeds}
    return found


def _told(values: Sequence[float], epochs: Sequence[int]) -> list[float | None]:
    return [_rounded(values[epoch - 1]) for epoch in epochs if epoch <= len(values)]


def curve_chart(
    name: str, metric: Metric, results: Sequence[Result], colours: Mapping[str, Look], on: str = ""
) -> dict[str, Any]:
    """A chart of one metric's curves, `name` with or without `val_`: its specification, and how its axis is fitted."""
    metric = with_unit(metric, results)
    limit, logarithmic, _ = _spikes(metric, results)
    ends = [limit, None] if metric.maximizes else [None, limit]
    return {
        "series": on + name,
        "group": on + metric.base,
        "spec": _curve_spec(tuple(colours.values()), logarithmic),
        "limits": [end if end is not None and math.isfinite(end) else None for end in ends],
        "log": logarithmic,
        "share": metric.unit == "points",
    }


def cut_off(metric: Metric, results: Sequence[Result]) -> str:
    """What is said of curves that are cut off in a chart of them; "" where none is."""
    limit, _, worst = _spikes(with_unit(metric, results), results)
    return f"cut off: values reach {significant(worst, 2)}" if math.isfinite(limit) else ""


def _spikes(metric: Metric, results: Sequence[Result]) -> tuple[float, bool, float]:
    """Where a metric's curves are cut off, whether their axis is logarithmic instead, and their worst value."""
    every = [result.history.get(f"{side}{metric.base}", []) for result in results for side in ("", "val_")]
    curves = [curve for curve in ([value for value in curve if math.isfinite(value)] for curve in every) if curve]
    if not curves:
        return math.inf, False, math.nan
    return *spiking(metric, curves), min(map(min, curves)) if metric.maximizes else max(map(max, curves))


@functools.cache  # many charts of a page are alike but for their data
@_unchecked
def _curve_spec(each: tuple[Look, ...], logarithmic: bool) -> Spec:
    alt = _altair()
    places = list(range(len(each)))
    colour = alt.Color("v:O", scale=alt.Scale(domain=places, range=[one.colour for one in each]), legend=None)
    dash = alt.StrokeDash(
        "v:O", scale=alt.Scale(domain=places, range=[one.dashes or (1, 0) for one in each]), legend=None
    )
    ends = {"domainMin": alt.ExprRef("first"), "domainMax": alt.ExprRef("last")}
    heights = {"domainMin": alt.ExprRef("low"), "domainMax": alt.ExprRef("high")}
    x = alt.X(
        "e:Q",
        title="epoch",
        scale=alt.Scale(nice=False, zero=False, **ends),
        axis=alt.Axis(format="d", tickMinStep=1, grid=False, tickCount=8),
    )
    scaled = alt.Scale(nice=False, **({"type": "log"} if logarithmic else {"zero": False}), **heights)
    axis = alt.Axis(tickCount=6)

    def y(field: str) -> Any:
        return alt.Y(f"{field}:Q", title=None, scale=scaled, axis=axis)

    def of(name: str) -> Any:
        return alt.Chart(alt.NamedData(name)).transform_filter("indexof(hidden, datum.v) < 0")

    at = alt.selection_point(name="at", fields=["e"], nearest=True, on="pointermove", clear="pointerout", empty=False)
    zoom = alt.selection_interval(name="zoom", encodings=["x"], mark=alt.BrushConfig(fill="#7d8590", fillOpacity=0.25))
    line = {"interpolate": "linear", "clip": True}
    layers = [
        of("means").mark_area(opacity=0.16, clip=True).encode(x=x, y=y("l"), y2="h:Q", color=colour).add_params(zoom),
        of("seeds")
        .mark_line(strokeWidth=0.9, opacity=0.4, **line)
        .encode(x=x, y=y("y"), color=colour, strokeDash=dash, detail="s:N"),
        of("means").mark_line(strokeWidth=2.4, **line).encode(x=x, y=y("m"), color=colour, strokeDash=dash),
        of("ends")
        .mark_point(size=60, strokeWidth=2, clip=True, opacity=1)
        .encode(
            x=x,
            y=y("y"),
            color=colour,
            shape=alt.Shape("lost:N", scale=alt.Scale(domain=[False, True], range=["circle", "cross"]), legend=None),
        ),
        alt.Chart(alt.NamedData("epochs"))
        .mark_rule(color="#7d8590", strokeWidth=1.2)
        .encode(x=x, opacity=alt.when(at).then(alt.value(1)).otherwise(alt.value(0)), tooltip=alt.Tooltip("e:Q"))
        .add_params(at),
        of("means")
        .mark_point(filled=True, size=46, opacity=1, clip=True)
        .transform_filter(at)
        .encode(x=x, y=y("m"), color=colour),
    ]
    given = {"hidden": [], "first": 1, "last": 2, "low": 0.1, "high": 1}
    chart = alt.layer(*layers).add_params(*(alt.param(name=name, value=value) for name, value in given.items()))
    return _finished(chart, 260)


# ------------------------------------------------------------------------------------------------------------- targets


@_unchecked
def reached(targets: Sequence[Target], colours: Mapping[str, Look]) -> Spec:
    """The share of all seeds of each variant that have reached one target, against how long they were trained."""
    alt = _altair()
    first, names = targets[0], list(colours)
    end = max((t for one in targets for t in (*one.after, *one.trained) if math.isfinite(t)), default=0.0) or 1.0
    steps, missed = [], []
    for target in targets:
        variant, many = names.index(target.variant), len(target.after)
        arrivals = sorted(filter(math.isfinite, target.after))
        lost = sorted(t for t, after in zip(target.trained, target.after, strict=True) if math.isnan(after))
        until = max(target.trained) if lost else end
        every = [(0.0, 0.0), *((at, (place + 1) / many) for place, at in enumerate(arrivals))]
        every.append((max(until, every[-1][0]), every[-1][1]))
        steps += [{"v": variant, "t": _rounded(t), "y": _rounded(y), "o": order} for order, (t, y) in enumerate(every)]
        missed += [{"v": variant, "t": _rounded(t), "y": sum(at <= t for at in arrivals) / many} for t in lost]
    each, places = list(colours.values()), list(range(len(colours)))
    colour = alt.Color("v:O", scale=alt.Scale(domain=places, range=[one.colour for one in each]), legend=None)
    dash = alt.StrokeDash(
        "v:O", scale=alt.Scale(domain=places, range=[one.dashes or (1, 0) for one in each]), legend=None
    )
    title = "training time (s)" if first.unit == "seconds" else f"{first.unit} of training"
    whole = {} if first.unit == "seconds" else {"format": "d", "tickMinStep": 1}
    x = alt.X(
        "t:Q", title=title, scale=alt.Scale(domain=[0, end * 1.02], nice=False), axis=alt.Axis(grid=False, **whole)
    )
    y = alt.Y(
        "y:Q", title=None, scale=alt.Scale(domain=[-0.03, 1.03], nice=False), axis=alt.Axis(format="%", tickCount=5)
    )

    def of(values: list[dict[str, Any]]) -> Any:
        return alt.Chart(alt.Data(values=values)).transform_filter("indexof(hidden, datum.v) < 0")

    layers = [
        of(steps)
        .mark_line(interpolate="step-after", strokeWidth=2.4)
        .encode(x=x, y=y, color=colour, strokeDash=dash, order="o:Q")
    ]
    if missed:
        layers.append(of(missed).mark_tick(orient="vertical", thickness=2, size=14).encode(x=x, y=y, color=colour))
    return _finished(alt.layer(*layers).add_params(alt.param(name="hidden", value=[])), 240)


# --------------------------------------------------------------------------------------------------------- predictions


@_unchecked
def fitted(found: Fitted, colour: str) -> tuple[Spec, Spec]:
    """Predicted against true values, and residuals against predicted ones, of at most `MOST_EXAMPLES` examples."""
    alt = _altair()
    chosen = np.unique(np.linspace(0, len(found.true) - 1, MOST_EXAMPLES).astype(int))
    values = [
        {"i": int(place), "t": _rounded(t), "p": _rounded(p), "r": _rounded(p - t)}
        for place, t, p in zip(chosen, found.true[chosen], found.predicted[chosen], strict=True)
        if math.isfinite(t) and math.isfinite(p)
    ]
    both = [float(value[key] or 0) for value in values for key in ("t", "p")]
    low, high = (min(both), max(both)) if both else (0, 1)
    ends = alt.Scale(domain=[low, high], nice=True, zero=False)
    of = alt.Chart(alt.Data(values=values)).mark_circle(size=34, opacity=0.55, color=colour)
    diagonal = alt.Chart(alt.Data(values=[{"t": low, "p": low}, {"t": high, "p": high}])).mark_line(
        color="#7d8590", strokeWidth=1.2, strokeDash=[5, 4]
    )
    level = alt.Chart(alt.Data(values=[{"r": 0}])).mark_rule(color="#7d8590", strokeWidth=1.2, strokeDash=[5, 4])
    named = {"i": "example", "t": "true", "p": "predicted", "r": "residual"}
    tips = [alt.Tooltip(f"{field}:Q", title=title) for field, title in named.items()]
    numbers = alt.Axis(tickCount=6)
    across = alt.Y("p:Q", title="predicted", scale=ends, axis=numbers)
    against = alt.layer(
        diagonal.encode(x=alt.X("t:Q", title="true", scale=ends, axis=numbers), y=across),
        of.encode(x=alt.X("t:Q", scale=ends), y=across, tooltip=tips),
    )
    free = alt.Scale(zero=False)
    residuals = alt.layer(
        level.encode(y=alt.Y("r:Q", title="predicted − true", axis=numbers)),
        of.encode(x=alt.X("p:Q", title="predicted", scale=free, axis=numbers), y="r:Q", tooltip=tips),
    )
    return _finished(against, 320), _finished(residuals, 320)


def _finished(chart: Any, height: float) -> Spec:
    """A chart's specification as the page draws it: as wide as there is room, and coloured by the page."""
    plain = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelColor": "#6a737d"}
    spec: Spec = (
        chart.properties(height=height, width=600, padding={"left": 2, "right": 8, "top": 6, "bottom": 2})
        .configure(
            aria=False,
            autosize={"type": "fit-x", "contains": "padding"},
            background="transparent",
            font='system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
            view={"stroke": None},
            axis={**plain, "titleColor": "#6a737d", "gridColor": "#d9dee4", "tickColor": "#d9dee4", "domain": False},
        )
        .to_dict(validate=False)
    )
    return spec


def _rounded(value: float) -> float | None:
    """A value for a chart; None where it is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
