"""The report as blocks: the answer, the claims, an experiment after the other, and what all of it depends on."""

from collections.abc import Mapping, Sequence

from experiments.report import charts, judging
from experiments.report.blocks import (
    Block,
    Claims,
    Findings,
    Folded,
    Heading,
    Judged,
    Notices,
    Paragraph,
    Picture,
    Table,
)
from experiments.report.cells import value_text
from experiments.report.claims import CLAIMS
from experiments.report.judging import Claim, Records
from experiments.report.pictures import Album, png
from experiments.report.plan import BEYOND, PARTS, SECTIONS, TITLE, title_of
from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, STATUSES, Finding
from experiments.report.sections import section
from mlplab.comparison import Comparison
from mlplab.space import Search

ONE_SEED = f"One seed: a difference below {judging.SEED_POINTS:g} points of accuracy is not a verdict."


def blocks(records: Records, circumstances: Mapping[str, str], seconds: float, album: Album) -> list[Block]:
    """The report as blocks; the pictures that they show are drawn into `album`."""
    found = [(claim, judging.assess(claim, records)) for claim in CLAIMS]
    claims = [_judged(number, claim, verdict, records) for number, (claim, verdict) in enumerate(found, start=1)]
    page: list[Block] = [
        Heading(1, TITLE),
        Paragraph(f"A student report compared ways to train small multilayer perceptrons. {_what_is_here(records)}"),
        *([Notices(items)] if (items := _notices(records)) else []),
        Heading(2, "The answer", "answer"),
        _findings(claims),
        _answer_picture(claims, records, album),
        Heading(2, "The claims", "claims"),
        Folded("How claims are judged", [Paragraph(_how_judged(records))]),
        Claims(claims),
        Folded("Every published number beside ours", [_numbers_table(found, records)]),
    ]
    for part in PARTS:
        page += [Heading(2, part.title, part.sections[0].experiment + "-part"), Paragraph(part.about, "quiet")]
        for one in part.sections:
            about = [j for j, (claim, _) in zip(claims, found, strict=True) if claim.experiments[0] == one.experiment]
            page += section(one, records, about, album)
    return [*page, *_behind(records, circumstances, seconds)]


def _judged(number: int, claim: Claim, verdict: Finding, records: Records) -> Judged:
    here = ""
    if len(claim.numbers) == 1 and (one := claim.numbers[0]).shown(records) != "–":
        value = one.measured(records)
        here = value_text(value, "points") if one.metric.endswith("accuracy") else one.unit.text(value)
    return Judged(
        number=number,
        text=claim.text,
        status=verdict.status,
        published=claim.published,
        measured=verdict.measured,
        evidence=verdict.evidence,
        rule=claim.rule_of(verdict.seeds),
        about={name: title_of(name) for name in claim.experiments},
        headline=claim.headline,
        here=here,
    )


# ------------------------------------------------------------------------------------------------------------- answer


def _what_is_here(records: Records) -> str:
    """What the page shows of the report, by how its experiments were run."""
    found = [record for name, record in records.items() if name not in BEYOND]
    if not found:
        return "None of its experiments has a record here: its figures and claims are listed with nothing beside them."
    changed = sum(bool(judging.unlike(record)) for record in found)
    if not changed:
        return (
            "Here its experiments are run anew at its own settings, each figure under its number and each claim judged."
        )
    many = "all of them" if changed == len(found) else f"{changed} of {len(found)}"
    return (
        f"Here its experiments are run anew, {many} on other data or shorter than in the report; published numbers are "
        "compared, and claims judged, only where data and settings are the report's."
    )


def _notices(records: Records) -> list[tuple[str, str]]:
    """What a reader must know before any number: stand-in data, few epochs, one seed, what is missing."""
    found = []
    for notice in dict.fromkeys(r.notice for r in records.values() if r.notice):
        about = [title_of(name) for name in SECTIONS if name in records and records[name].notice == notice]
        found.append((notice, _listed(about)))
    changed = {name: judging.shortened(records[name]) for name in SECTIONS if name in records}
    if short := [f"{title_of(name)}: {how}" for name, how in changed.items() if how]:
        says = "Run shorter than planned, so that no number measured there is compared with the report's."
        found.append((says, f"{'; '.join(short)}."))
    if records and all(len(record.seeds) < 2 for record in records.values()):
        found.append((ONE_SEED, ""))
    if missing := [title_of(name) for name in SECTIONS if name not in records]:
        found.append(("Some experiments have no record: what needs them is missing or not testable.", _listed(missing)))
    return found


def _listed(names: Sequence[str]) -> str:
    return f"{'; '.join(names)}."


def _findings(claims: Sequence[Judged]) -> Findings:
    counts = {status: sum(claim.status == status for claim in claims) for status in STATUSES}
    text = (
        f"Of the report's {len(claims)} claims {_are(counts[REPRODUCED])} reproduced, {_are(counts[NOT_REPRODUCED])} "
        f"not reproduced and {_are(counts[NOT_TESTABLE])} not testable."
    )
    main = {status: [c for c in claims if c.headline and c.status == status] for status in STATUSES}
    if not main[REPRODUCED] and not main[NOT_REPRODUCED]:
        return Findings(f"{text} None of the main ones can be judged by what was run.", {})
    return Findings(text, {status: found for status, found in main.items() if found})


def _are(number: int) -> str:
    return f"{number} {'is' if number == 1 else 'are'}"


def _answer_picture(claims: Sequence[Judged], records: Records, album: Album) -> Picture:
    numbers = [(one, claim.numbers) for one, claim in zip(claims, CLAIMS, strict=True)]
    beside = charts.compared(numbers, records)
    caption = "The claims by what came of them, each a field"
    if beside:
        several = any(one.low < one.high for one in beside)
        caption += "; below, the accuracies that the report gives and those measured here after as many epochs"
        caption += (
            f"{', means over the seeds with their 95 % intervals' * several}, in the colour of the claim's outcome"
        )
    name = album.add("answer.png", charts.answer(claims, beside))
    narrow = png(charts.answer(claims, beside, narrow=True))
    return Picture("", f"{caption}.", ((name, "claims by outcome, and the report's accuracies beside ours"),), narrow)


# ------------------------------------------------------------------------------------------------------------- claims


def _how_judged(records: Records) -> str:
    last = (
        "Numbers of accuracy and loss are those of the last epoch, as in the report; where it calls something the "
        "best, the best validation accuracy over the epochs counts"
    )
    seconds = (
        "Seconds are not testable where the hardware is not named; relations of times are. The number of parameters "
        "depends on neither data nor epochs and is compared everywhere."
    )
    if all(len(record.seeds) < 2 for record in records.values()):
        return f"{last}. {seconds}"
    return (
        f"{last}. Here they are means over the seeds with their 95 % intervals; differences are taken seed by seed. A "
        "claim is reproduced if every interval that it is "
        "judged by lies within what its rule allows, not reproduced if one lies beyond it, and undecided, which counts "
        "as not testable, if one lies across a limit. The search and the prediction have one seed, where a difference "
        f"below {judging.SEED_POINTS:g} points of accuracy is not a verdict. {seconds}"
    )


def _numbers_table(verdicts: Sequence[tuple[Claim, Finding]], records: Records) -> Table:
    rows = [("what", "experiment", "published", "ours", "ours against it")]
    for claim, verdict in verdicts:
        for number in claim.numbers:
            unlike = number.unlike(records)
            against = f"not compared: {unlike}" if unlike else number.distance(number.measured(records))
            rows.append((number.what, title_of(number.experiment), number.text, number.shown(records), against))
        if not claim.numbers and any(character.isdigit() for character in claim.published):
            about = title_of(claim.experiments[0])
            rows.append((claim.text, about, claim.published, verdict.measured, verdict.status))
    return Table(rows, "Published numbers and ours", words=True)


# ------------------------------------------------------------------------------------------------- what is behind it


def _behind(records: Records, circumstances: Mapping[str, str], seconds: float) -> list[Block]:
    rows = [("part", "wall time (s)", "how", "MLflow run")]
    for name in SECTIONS:
        record = records.get(name)
        if record is None:
            rows.append((title_of(name), "–", "no record", "–"))
        else:
            how = "was on record; the time that it took then" if record.reused else "run"
            rows.append((title_of(name), f"{record.seconds:,.1f}", how, record.run_id or "–"))
    rows.append(("the report as a whole", f"{seconds:,.1f}", "this time", "–"))
    known = {"data": ", ".join(dict.fromkeys(r.data for r in records.values())), **_seeds(records), **circumstances}
    values = [("what", "value"), *((name, value or "–") for name, value in known.items())]
    return [
        Heading(2, "Behind the numbers", "behind"),
        Paragraph(f"All of it took {_duration(seconds)}."),
        Heading(3, "Time of each part", "times"),
        Table(rows, "Time of each part", words=True),
        Heading(3, "Data and circumstances", "circumstances"),
        Table(values, "Data and circumstances", words=True),
    ]


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


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"
