"""The student report anew: one page with every figure, every number beside ours, and a verdict on every claim.

The page is made as a list of blocks (headings, paragraphs, tables, figures), and written twice: as HTML that needs no
other file, and as Markdown beside a folder of figures.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from experiments.report.as_html import document
from experiments.report.as_markdown import markdown
from experiments.report.contents import blocks
from experiments.report.judging import Records
from experiments.report.pictures import Album


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
        album = Album()
        page = blocks(records, circumstances, seconds, album)
        for name, content in album.images.items():
            (made / name).write_bytes(content)
        (made / "report.md").write_text(markdown(page), "utf-8")
        (made / "report.html").write_text(document(page, album.images), "utf-8")
        (folder / "figures").mkdir(exist_ok=True)
        for name in album.images:
            os.replace(made / name, folder / "figures" / name)
        for name in ("report.md", "report.html"):
            os.replace(made / name, folder / name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder / "report.html", folder / "report.md"
