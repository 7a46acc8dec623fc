"""Texts and tables that fit the terminal: nothing is wrapped within a cell, and no head is cut in two."""

import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

LEAST_NAME = 12
"""Letters that the first column keeps at least; below that further columns go."""


def console() -> Console:
    """A console that does not fold lines where the output is no terminal.

    It prints texts as they are: a variant may be called `[relu]`, which would be markup, or `:x:`, an emoji.
    """
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(highlight=False, markup=False, emoji=False, width=1_000, no_color=True)
    return made


def say(out: Console, text: str, style: str = "", bullet: str = "") -> None:
    """Prints a text in whole words, its further lines below the first one's text; a long address is left whole."""
    for place, paragraph in enumerate(text.split("\n")):
        lead = bullet if place == 0 else " " * len(bullet)
        lines = textwrap.wrap(
            paragraph,
            max(20, out.width),
            initial_indent=lead,
            subsequent_indent=" " * len(bullet),
            break_long_words=False,
            break_on_hyphens=False,
        )
        out.print("\n".join(lines or [lead]), style=style or None, soft_wrap=True)


def cut(text: str, width: int) -> str:
    """A text of at most `width` columns of the terminal: of a longer one the middle is left out.

    >>> cut("RMSprop with a schedule", 12)
    'RMSpro…edule'
    """
    if cell_len(text) <= width:
        return text
    start, end = text, text
    while cell_len(start) > width // 2:
        start = start[:-1]
    while cell_len(end) > width - 1 - cell_len(start):
        end = end[1:]
    return f"{start}…{end}"


def table(
    cells: Sequence[Sequence[str]],
    title: str = "",
    *,
    texts: int = 1,
    width: int | None = None,
    drop: Sequence[int] = (),
    says: bool = True,
) -> Table:
    """A table of cells, the first row its header.

    Args:
        texts: so many columns at the left are texts; the others are numbers, and set to the right.
        width: of the terminal: what does not fit is left out; None: it is as wide as it has to be.
        drop: the columns that may be left out, the first one first.
        says: whether what is left out is said below the table.
    """
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(cells[0]))]
    kept = list(range(len(widths)))
    # Where that is not enough, further ones from the right; the first two stay.
    for index in dict.fromkeys([*drop, *range(len(widths) - 1, 1, -1)]):
        if width is None or _taken([min(widths[0], LEAST_NAME), *(widths[place] for place in kept[1:])]) <= width:
            break
        kept.remove(index)
    first = widths[0]
    if width is not None:
        first = max(min(first, LEAST_NAME), first + width - max(width, _taken([widths[place] for place in kept])))
    made = Table(box=box.SIMPLE_HEAD, title=cut(title, width or 1_000) if title else None, title_justify="left")
    for index in kept:
        justify = "left" if index < texts else "right"
        # Where there is no limit what is long is folded rather than lost.
        limited = {"overflow": "fold"} if width is None else {"no_wrap": True, "overflow": "ellipsis"}
        made.add_column(cells[0][index], justify=justify, **limited)  # type: ignore[arg-type]
    for row in cells[1:]:
        made.add_row(*(cut(row[0], first) if index == 0 else row[index] for index in kept))
    left_out = [cells[0][index] for index in range(len(widths)) if index not in kept]
    if left_out and says:
        made.caption = cut(f"Not shown here: {', '.join(left_out)}", width or 1_000)
        made.caption_justify = "left"
    return made


def _taken(widths: Sequence[int]) -> int:
    """Columns of the terminal that a table of columns of these widths takes."""
    return sum(widths) + 3 * (len(widths) - 1) + 4
