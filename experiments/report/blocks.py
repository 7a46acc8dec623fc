"""What the report's page consists of, whichever way it is written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report.quantities import NOT_REPRODUCED, NOT_TESTABLE, REPRODUCED

MARKS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_TESTABLE: "?"}
"""What stands before a status, for whom colours say nothing."""


@dataclass(frozen=True)
class Heading:
    """A heading; 1 is the title. `anchor` is what links lead to, `marks` the statuses of the claims below it."""

    level: int
    text: str
    anchor: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Args:
        kind: `question`, `answer`, `quiet` (what may be overlooked), `trouble` (what must not), or "".
        more: sentences that go on after it with less weight.
    """

    text: str
    kind: str = ""
    more: str = ""


@dataclass(frozen=True)
class Notices:
    """What a reader must know before any number, each once: what it is, and details on demand ("" where none)."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Listing:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of a header and rows, and what a screen reader calls it; `words`: its cells are texts."""

    cells: Sequence[Sequence[str]]
    label: str
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure: its label ("Figure 2", or ""), its caption, and its pictures' file names and texts in their place.

    Args:
        narrow: the PNG for a narrow screen; empty where it is the same.
    """

    label: str
    caption: str
    files: tuple[tuple[str, str], ...]
    narrow: bytes = b""


@dataclass(frozen=True)
class Folded:
    """What is shown on demand, and in print."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict.

    Args:
        number: its place in the report.
        published, measured: the report's numbers or words, and ours.
        evidence: sentences.
        rule: what counts as reproduced; "" where nothing does.
        about: anchors and titles of the experiments that it stands on.
        headline: the claim in few words, where it is one of the main ones.
        here: our number that stands against it, where it is one.
    """

    number: int
    text: str
    status: str
    published: str
    measured: str
    evidence: str
    rule: str
    about: Mapping[str, str]
    headline: str = ""
    here: str = ""

    @property
    def anchor(self) -> str:
        """What links lead to."""
        return f"claim-{self.number}"


@dataclass(frozen=True)
class Findings:
    """The answer: a sentence that counts the claims, and the main ones by what came of them."""

    text: str
    claims: Mapping[str, Sequence[Judged]]


@dataclass(frozen=True)
class Claims:
    """All claims, each folded, to be chosen from by status."""

    claims: Sequence[Judged]


@dataclass(frozen=True)
class References:
    """The claims about an experiment, each with a link to where it is judged."""

    claims: Sequence[Judged]


Block = Heading | Paragraph | Notices | Listing | Table | Picture | Folded | Findings | Claims | References


def is_code(text: str) -> bool:
    """Whether what stands between backticks is a command."""
    return bool(re.fullmatch(r"[\w .:,=/-]+", text))
