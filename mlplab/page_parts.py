"""What pages are made of: one look, headings, tables and folded parts as HTML, every text escaped."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


@cache
def asset(name: str) -> str:
    """A file beside this one: `page.css`, the look of all pages, or `page.js`, which draws charts."""
    return Path(__file__).with_name(name).read_text("utf-8")


def escaped(text: Any) -> str:
    """A text as HTML has it, inside an attribute, too; Markdown's `code` is that of a page.

    >>> escaped("a < b: take `--seeds 10`")
    'a &lt; b: take <code>--seeds 10</code>'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(str(text)))


def as_script(value: Any) -> str:
    """JSON that is inert inside a `<script>`: nothing in it can end that, or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def document(title: str, description: str, header: str, main: str, footer: str = "", scripts: str = "") -> str:
    """A page that needs no other file.

    Args:
        title, description: texts.
        header, main, footer, scripts: HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<meta name="description" content="{html.escape(description)}">\n'
        f"<style>\n{asset('page.css')}</style>\n</head>\n<body>\n"
        f"<header>\n{header}\n</header>\n<main>\n{main}\n</main>\n<footer>\n{footer}\n</footer>\n{scripts}\n</body>\n</html>\n"
    )


def section(name: str, title: str, *content: str) -> str:
    """A part of a page under its heading, which `name` leads to; "" where it has no content."""
    inside = "\n".join(filter(None, content))
    return f'<section id="{name}">\n<h2>{escaped(title)}</h2>\n{inside}\n</section>' if inside else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; of the kinds `answer`, `quiet` and `notice`. "" for no text."""
    said = f' class="{kind}"' if kind else ""
    return f"<p{said}>{escaped(text)}</p>" if text else ""


def listing(texts: Sequence[str], kind: str = "") -> str:
    """A list of sentences, "" of none; of the kind `notes`."""
    items = "".join(f"<li>{escaped(text)}</li>" for text in texts if text)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def folded(title: str, *content: str) -> str:
    """What is shown on demand, and in print; "" where it has no content."""
    inside = "\n".join(filter(None, content))
    return (
        f'<details><summary>{escaped(title)}</summary><div class="inside">\n{inside}\n</div></details>'
        if inside
        else ""
    )


def table(
    cells: Sequence[Sequence[str]], label: str, *, words: bool = False, marks: Mapping[int, str] | None = None
) -> str:
    """A table in a box that scrolls where it is too wide: the first row are headings, the first column names.

    Args:
        label: what a screen reader calls it.
        words: cells are texts and not numbers.
        marks: row, counted from 0 without the headings -> HTML before its name.
    """
    header, *rows = cells
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in header)
    body = ""
    for place, (name, *values) in enumerate(rows):
        mark = (marks or {}).get(place, "")
        cells_of = "".join(f"<td>{escaped(value)}</td>" for value in values)
        body += f'<tr><th scope="row">{mark}{escaped(name)}</th>{cells_of}</tr>\n'
    kind = ' class="words"' if words else ""
    return boxed(f"<table{kind}><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>", label)


def boxed(content: str, label: str) -> str:
    """HTML that may be wider than the page, in a box that scrolls, by the keyboard, too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(label)}">{content}</div>'


def swatch(colour: str, dashes: Sequence[float] = ()) -> str:
    """A stretch of a line in a colour, with lengths of dashes and gaps; its name stands beside it."""
    dashed = f' stroke-dasharray="{" ".join(f"{length:g}" for length in dashes)}"' if dashes else ""
    return (
        '<svg class="swatch" viewBox="0 0 24 10" aria-hidden="true" focusable="false">'
        f'<line x1="0" y1="5" x2="24" y2="5" stroke="{html.escape(colour)}" stroke-width="4"{dashed}/></svg>'
    )


def command(text: str) -> str:
    """A command as it is typed."""
    return f'<pre tabindex="0"><code>{html.escape(text)}</code></pre>'
