"""The report as one HTML file that needs no other: its style, its script and its pictures are in it."""

import base64
import html
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from experiments.report.blocks import (
    MARKS,
    Block,
    Claims,
    Findings,
    Folded,
    Heading,
    Judged,
    Listing,
    Notices,
    Paragraph,
    Picture,
    References,
    Table,
    is_code,
)
from experiments.report.plan import TITLE
from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED, STATUSES

CLASSES = {REPRODUCED: "good", NOT_REPRODUCED: "bad", NOT_TESTABLE: "open"}


def document(page: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """The page as HTML.

    Args:
        images: file name -> PNG.
    """
    headings = [block for block in page if isinstance(block, Heading)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(TITLE)}</title>\n<style>\n{_asset('style.css')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">To the content</a>\n{_menu(headings)}\n<main id="content">\n'
        f"{_sections(page, images)}\n</main>\n<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n"
    )


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _menu(headings: Sequence[Heading]) -> str:
    """Links to the headings; open, so that it is of use without the script, which folds it on a phone."""
    items, below = [], False
    for heading in (heading for heading in headings if heading.level > 1):
        marks = "".join(f'<i class="{CLASSES[status]}">{MARKS[status]}</i>' for status in heading.marks)
        marks = f'<span class="marks" aria-hidden="true">{marks}</span>' if marks else ""
        if below != (heading.level == 3):
            items.append("<ul>" if heading.level == 3 else "</ul></li>")
            below = heading.level == 3
        elif heading.level == 2 and items:
            items.append("</li>")
        link = f'<a href="#{heading.anchor}">{_text(heading.text)}{marks}</a>'
        items.append(f"<li>{link}{'</li>' * below}")
    items.append("</ul></li>" if below else "</li>")
    return (
        f'<nav aria-label="Contents"><details open><summary>Contents</summary><ul>{"".join(items)}</ul></details></nav>'
    )


def _sections(page: Sequence[Block], images: Mapping[str, bytes]) -> str:
    """The blocks, those of a heading together."""
    parts, level = [], 0
    for block in page:
        if isinstance(block, Heading) and block.level > 1:
            parts.append("</section>" * max(0, level - block.level + 1) if level else "")
            parts.append(f'<section class="level-{block.level}" aria-labelledby="{block.anchor}">')
            level = block.level
        parts.append(_block(block, images))
    return "\n".join(filter(None, [*parts, "</section>" * max(0, level - 1)]))


def _block(block: Block, images: Mapping[str, bytes]) -> str:
    match block:
        case Heading():
            anchor = f' id="{block.anchor}" tabindex="-1"' if block.anchor else ""
            return f"<h{block.level}{anchor}>{_text(block.text)}</h{block.level}>"
        case Paragraph():
            kind = f' class="{block.kind}"' if block.kind else ""
            more = f'\n<p class="quiet">{_text(block.more)}</p>' if block.more else ""
            return f"<p{kind}>{_text(block.text)}</p>{more}"
        case Notices():
            return f'<ul class="notices">{"".join(f"<li>{_notice(*item)}</li>" for item in block.items)}</ul>'
        case Listing():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block, images)
        case Folded():
            inside = "\n".join(_block(one, images) for one in block.blocks)
            return f'<details><summary>{_text(block.title)}</summary><div class="inside">\n{inside}\n</div></details>'
        case Findings():
            main = "".join(
                f"<li>{_badge(status)} {'; '.join(_headline(claim) for claim in claims)}.</li>"
                for status, claims in block.claims.items()
            )
            return f'<div class="findings"><p>{_text(block.text)}</p>{f"<ul>{main}</ul>" if main else ""}</div>'
        case Claims():
            return _claims(block.claims)
        case References():
            items = "".join(
                f'<li>{_badge(claim.status)} <a href="#{claim.anchor}">Claim {claim.number}</a>: '
                f"{_text(claim.text)}{_beside(claim)}</li>"
                for claim in block.claims
            )
            return f'<ul class="references" aria-label="Claims about it">{items}</ul>'


def _text(text: str) -> str:
    """`text` as HTML, a number kept on one line with its unit, and commands between backticks as such."""
    parts = re.split(r"`([^`]*)`", text)
    return "".join(
        f"<code>{html.escape(part)}</code>"
        if place % 2 and is_code(part)
        else _plain(f"`{part}`" if place % 2 else part)
        for place, part in enumerate(parts)
    )


def _plain(text: str) -> str:
    return re.sub(r"(?<=\d) (?=(?:%|s|points?)(?!\w))|(?<=here) (?=\d)", "&nbsp;", html.escape(text))


def _badge(status: str) -> str:
    return f'<span class="badge {CLASSES[status]}"><span aria-hidden="true">{MARKS[status]}</span> {status}</span>'


def _notice(text: str, more: str) -> str:
    details = f'<details><summary>Which?</summary><p class="inside">{_text(more)}</p></details>' if more else ""
    return f"<strong>{_text(text)}</strong>{details}"


def _headline(claim: Judged) -> str:
    here = f" (here {_text(claim.here)})" if claim.here else ""
    return f'<a href="#{claim.anchor}">{_text(claim.headline)}</a>{here}'


def _beside(claim: Judged) -> str:
    if claim.measured == "–":
        return ""
    return f' <span class="quiet">Report: {_text(claim.published)}; here: {_text(claim.measured)}.</span>'


def _claims(claims: Sequence[Judged]) -> str:
    """All claims, each folded, below buttons that choose by status; the buttons are shown by the script."""
    counts = {"all": len(claims)} | {status: sum(one.status == status for one in claims) for status in STATUSES}
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(name == "all").lower()}" data-shows="{CLASSES.get(name, "all")}">'
        f"{name} ({many})</button>"
        for name, many in counts.items()
    )
    head = (
        '<div class="head" aria-hidden="true"><span></span><span>claim</span><span>report</span><span>here</span></div>'
    )
    return (
        f'<div class="filter" role="group" aria-label="Claims to show" hidden>{buttons}</div>\n'
        '<p class="heard" role="status"></p>\n'
        f'<div class="claims" data-shows="all">{head}\n{"".join(map(_claim, claims))}</div>'
    )


def _claim(claim: Judged) -> str:
    about = ", ".join(f'<a href="#{name}">{_text(title)}</a>' for name, title in claim.about.items())
    rule = f"<p><b>Reproduced if:</b> {_text(claim.rule)}.</p>" if claim.rule else ""
    return (
        f'<details class="{CLASSES[claim.status]}" id="{claim.anchor}"><summary>{_badge(claim.status)}'
        f'<span class="says">{claim.number}. {_text(claim.text)}</span>'
        f'<span class="value"><span class="label">report: </span>{_lines(claim.published)}</span>'
        f'<span class="value"><span class="label">here: </span>{_lines(claim.measured)}</span></summary>\n'
        f'<div class="inside"><p>{_text(claim.evidence)}</p>{rule}<p class="more">More: {about}</p></div></details>\n'
    )


def _lines(numbers: str) -> str:
    """Several numbers, each on a line of its own, an interval never broken."""
    unbroken = re.sub(r" (?=seeds\)|[-+\d.,]+\])", "\xa0", numbers)
    return "<br>".join(map(_text, unbroken.split(" / ")))


def _picture(picture: Picture, images: Mapping[str, bytes]) -> str:
    shown = []
    for name, alt in picture.files:
        if picture.narrow:
            narrow = f'<source media="(max-width: 40rem)" srcset="{_data(picture.narrow)}">'
            shown.append(f"<picture>{narrow}{_image(images[name], alt)}</picture>")
        else:
            label = html.escape(f"{picture.label} {alt}".strip())
            shown.append(
                f'<div class="wide" role="group" tabindex="0" aria-label="{label}">{_image(images[name], alt)}</div>'
            )
    label = f"<strong>{html.escape(picture.label)}.</strong> " if picture.label else ""
    return f"<figure>{''.join(shown)}<figcaption>{label}{_text(picture.caption)}</figcaption></figure>"


def _image(png: bytes, alt: str) -> str:
    width, height = struct.unpack(">II", png[16:24])
    kind = ' class="photos"' if alt.startswith("test images") else ""
    return f'<img{kind} alt="{html.escape(alt)}" width="{width}" height="{height}" decoding="async" src="{_data(png)}">'


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _table(table: Table) -> str:
    header, *body = table.cells
    columns = list(zip(*body, strict=True)) or [()] * len(header)
    numeric = [
        place > 0 and all(re.match(r"[-+]?\d|–$", cell) for cell in column) for place, column in enumerate(columns)
    ]
    kinds = [' class="number"' if number and not table.words else "" for number in numeric]
    head = "".join(f'<th scope="col"{kind}>{_text(cell)}</th>' for kind, cell in zip(kinds, header, strict=True))
    rows = []
    for first, *others in body:
        cells = "".join(
            f'<td data-label="{html.escape(label)}"{kind}>{_badge(cell) if cell in CLASSES else _text(cell)}</td>'
            for kind, label, cell in zip(kinds[1:], header[1:], others, strict=True)
        )
        rows.append(f'<tr><th scope="row">{_text(first)}</th>{cells}</tr>')
    kind = ' class="words"' if table.words else ""
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{html.escape(table.label)}"><table{kind}>'
        f"<thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )
