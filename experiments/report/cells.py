"""The report's tables, with numbers as people write them: 96.7 % and not 0.9672."""

import math
from collections.abc import Sequence

from experiments.report.plan import title_of
from mlplab.amounts import significant
from mlplab.comparison import Comparison
from mlplab.records import Record, SearchResult, choice_text, choice_words
from mlplab.results import Outcome, Target, rank
from mlplab.tables import shown_metrics

NONE = "–"


def value_text(value: float, unit: str, half: float = math.nan) -> str:
    """A metric's value, ± half its interval where it has one, with the digits that this tells.

    Args:
        unit: the metric's; shares, whose unit is `points`, are written in percent.

    >>> value_text(0.9672, "points"), value_text(0.9672, "points", 0.0003)
    ('96.7 %', '96.72 % ± 0.03')
    >>> value_text(0.0503, "nats"), value_text(1.1, "nats"), value_text(1.1, "nats", 0.003)
    ('0.0503', '1.10', '1.100 ± 0.003')
    """
    if not math.isfinite(value):
        return NONE
    if unit == "points":
        digits = 2 if 100 * half < 0.1 else 1
        text, shown = f"{100 * value:.{digits}f} %", f"{100 * half:.{digits}f}"
    else:
        digits = max(_decimals(value, 2), _decimals(half, 0))
        plain = value == 0 or 1e-3 <= abs(value) < 1000
        text, shown = f"{value:.{digits}f}" if plain else significant(value), f"{half:.{digits}f}"
    return f"{text} ± {shown}" if math.isfinite(half) else text


def _decimals(value: float, further: int) -> int:
    """Decimals up to the first digit that is not 0, and `further` ones; four at most."""
    if not math.isfinite(value) or value == 0:
        return 0
    return min(max(further - math.floor(math.log10(abs(value))), 0), 4)


def best_text(outcome: Outcome, metric: str, unit: str) -> str:
    """A metric at each seed's best epoch: mean, and half its interval."""
    mean, low, high = outcome.over_seeds(lambda result: result.best(metric))
    return value_text(mean, unit, (high - low) / 2)


def last_text(outcome: Outcome, metric: str, unit: str) -> str:
    """The mean over the seeds of a metric after the last epoch."""
    return value_text(outcome.mean(lambda result: result.last(metric)), unit)


def seconds_text(value: float) -> str:
    """Seconds, a dash where none were measured.

    >>> seconds_text(2.0), seconds_text(7577.7), seconds_text(0.0)
    ('2.00 s', '7,578 s', '–')
    """
    if not math.isfinite(value) or value <= 0:
        return NONE
    return f"{value:,.{_decimals(value, 2)}f} s" if value >= 0.01 else f"{significant(value)} s"


def epoch_seconds(outcome: Outcome) -> float:
    """Seconds of training an epoch, the mean over the seeds; NaN if none were measured."""
    return outcome.mean(lambda r: r.train_seconds / r.epochs if r.epochs and r.train_seconds else math.nan)


def of_comparison(comparison: Comparison, record: Record) -> list[list[str]]:
    """A row for each variant, best first: what stands for it at its best epoch, and its times."""
    metrics = shown_metrics(comparison, record.results)
    first = metrics[0]
    base = first.base.removeprefix("train_eval_")
    word = base.replace("_", " ")
    headers = [metric.words for metric in metrics]
    cells = [["variant", *headers, f"training {word}", f"test {word}", "best epoch", "training time", "an epoch"]]
    for outcome in rank(comparison, record.results):
        best, epochs = outcome.mean(lambda r: r.best_epoch or math.nan), outcome.mean(lambda r: r.epochs)
        state = f" ({outcome.state})" if outcome.state else ""
        cells.append(
            [
                f"{outcome.variant.name}{state}",
                *(best_text(outcome, metric.name, metric.unit) for metric in metrics),
                value_text(outcome.best(base), first.unit),
                value_text(outcome.mean(lambda r: r.test.get(base, math.nan)), first.unit),
                f"{_count(best)} of {_count(epochs)}",
                seconds_text(outcome.mean(lambda r: r.train_seconds or math.nan)),
                seconds_text(epoch_seconds(outcome)),
            ]
        )
    return cells


def _count(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def of_targets(comparison: Comparison, found: Sequence[Target]) -> list[list[str]]:
    """How soon the variants reached the comparison's targets: a row for each variant and target."""
    many = any(len(target.after) > 1 for target in found)
    counted = ["seeds that reached it", "half of all seeds reached it after"]
    cells = [["variant", "target", *(counted if many else ["reached after"])]]
    for target in found:
        row = [target.variant, target_text(comparison, target)]
        cells.append([*row, target.count, target.says] if many else [*row, target.says])
    return cells


def target_text(comparison: Comparison, target: Target) -> str:
    """What was to be reached, such as `validation accuracy ≥ 97 %`."""
    metric = comparison.target(target.metric)
    value = f"{100 * target.target:g} %" if metric.unit == "points" else f"{target.target:g}"
    return f"{metric.words} {'≥' if target.maximizes else '≤'} {value}"


def of_search(search: SearchResult) -> list[list[str]]:
    """A search's candidates, best first."""
    words = choice_words(search.choices)
    unit = "points" if "accuracy" in search.scoring else ""
    cells = [["place", *words.values(), f"mean {search.score}", "std. deviation", "folds", "training time"]]
    for place, candidate in enumerate(search.ranked, start=1):
        folds = ", ".join(value_text(score, unit) for score in candidate.scores)
        folds += f" ({dropped})" if (dropped := search.dropped(candidate)) else ""
        choices = [choice_text(candidate.choices[name]) if name in candidate.choices else NONE for name in words]
        spread = value_text(candidate.std, unit).replace(" %", " points")
        row = [str(place), *choices, value_text(candidate.mean, unit), spread, folds]
        cells.append([*row, seconds_text(candidate.train_seconds)])
    return cells


def of_times(records: Sequence[Record]) -> list[list[str]]:
    """The training times of several comparisons: a row for each variant."""
    cells = [["experiment", "variant", "epochs", "training time", "an epoch", "compiling", "steps an epoch"]]
    for record in records:
        for outcome in record.outcomes:
            cells.append(
                [
                    title_of(record.experiment.name),
                    outcome.variant.name,
                    _count(outcome.mean(lambda r: r.epochs)),
                    seconds_text(outcome.mean(lambda r: r.train_seconds)),
                    seconds_text(epoch_seconds(outcome)),
                    seconds_text(outcome.mean(lambda r: r.compile_seconds)),
                    f"{outcome.representative.steps_per_epoch:,}",
                ]
            )
    return cells
