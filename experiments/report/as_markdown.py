"""The report as Markdown, beside a folder of figures."""

import html
import re
from collections.abc import Sequence

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


def markdown(page: Sequence[Block]) -> str:
    """The page as Markdown."""
    return "\n".join(map(_block, page))


def _text(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line; commands between backticks stay commands."""
    parts = re.split(r"`([^`]*)`", " ".join(text.split()))
    return "".join(_part(part, place) for place, part in enumerate(parts))


def _part(part: str, place: int) -> str:
    if place % 2 and is_code(part):
        return f"`{part}`"
    part = f"`{part}`" if place % 2 else part
    part = re.sub(r"([\\`*\[\]|~$])", r"\\\1", html.escape(part, quote=False))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", part)


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_text(block.text)}\n"
        case Paragraph():
            marks = {"trouble": "> **", "answer": "**", "question": "*"}.get(block.kind, "")
            said = f"{marks}{_text(block.text)}{marks.removeprefix('> ')}"
            return f"{said} {_text(block.more)}\n" if block.more else f"{said}\n"
        case Notices():
            return "\n".join(f"> **{_text(text)}** {_text(more)}".rstrip() + "\n" for text, more in block.items)
        case Listing():
            return "".join(f"- {_text(item)}\n" for item in block.items)
        case Table():
            return _table(block.cells)
        case Picture():
            images = "\n".join(f"![{_text(alt)}](figures/{name})" for name, alt in block.files)
            label = f"**{block.label}.** " if block.label else ""
            return f"{images}\n\n{label}{_text(block.caption)}\n"
        case Folded():
            return f"**{_text(block.title)}**\n\n{markdown(block.blocks)}"
        case Findings():
            main = [
                f"- {MARKS[status]} {status}: {'; '.join(_text(headline(claim)) for claim in claims)}.\n"
                for status, claims in block.claims.items()
            ]
            return f"**{_text(block.text)}**\n\n{''.join(main)}"
        case Claims():
            rows = [("no.", "claim", "report", "here", "verdict", "evidence")]
            for claim in block.claims:
                says = f"{claim.evidence} Rule: {claim.rule}." if claim.rule else claim.evidence
                rows.append((str(claim.number), claim.text, claim.published, claim.measured, claim.status, says))
            return _table(rows)
        case References():
            items = "".join(f"- {MARKS[claim.status]} {_text(reference(claim))}\n" for claim in block.claims)
            return f"**What the report claims of it**\n\n{items}"


def headline(claim: Judged) -> str:
    """A main claim in few words, with our number where it stands against the report's."""
    return f"{claim.headline} (here {claim.here})" if claim.here else claim.headline


def reference(claim: Judged) -> str:
    """A claim and what came of it, where the experiment is told of."""
    return f"Claim {claim.number}, “{claim.text}”: {claim.status}."


def _table(cells: Sequence[Sequence[str]]) -> str:
    header, *body = [[_text(cell) for cell in row] for row in cells]
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
