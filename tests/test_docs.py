"""The pages of docs/ are built into a site without a warning, and what they say of the code is true."""

import ast
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import PAGES, PATIENCE, ROOT, blocks

import mlplab
from mlplab import Comparison, Training
from mlplab.__main__ import TEMPLATE

EXTERNAL = {
    "https://arxiv.org/abs/2108.13264",
    "https://arxiv.org/abs/2306.07179",
    "https://distributed.dask.org",
    "https://semver.org/",
    "https://onnx.ai",
}
"""What the pages lead to elsewhere: looked at by hand when it changes, and not fetched by tests."""
MOST_LINES = {"README.md": 120, "the example": 20}


class Tags(HTMLParser):
    """What a built page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes addresses and names."""
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.links.add(str(given["href"]))
        if tag in ("img", "script", "iframe") and given.get("src"):
            self.loaded.add(str(given["src"]))
        if tag == "link" and given.get("rel") == "stylesheet":
            self.loaded.add(str(given["href"]))
        if given.get("id"):
            self.anchors.add(str(given["id"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tags]:
    """The pages as `make docs` builds them, which fails at a warning: by the name of their file."""
    (command,) = re.findall(r"^docs:.*\n\t(?:\w+=\w+ )*(mkdocs .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", *command.split(), "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: Tags(path.read_text()) for path in folder.glob("*.html")}


def test_the_pages_are_built_without_a_warning(site: dict[str, Tags]) -> None:
    """Each page of docs/ is in the site, and in its menu."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages < {name.removesuffix(".html") for name in site}
    assert {f"{page}.html" for page in pages} <= site["index.html"].links | {"index.html"}


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    """The settings have a missing page, a missing anchor, an absolute link and a missing picture fail the build."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    (tmp_path / "docs").mkdir()
    kept = {"site_name": "wrong", "validation": settings["validation"], "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(kept))
    (tmp_path / "docs" / "index.md").write_text("[a](none.md) [b](#none) [c](/index.md) ![d](none.png) [e](index.md)")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "Aborted with 4 warnings in strict mode" in done.stdout


def test_a_page_loads_nothing_from_elsewhere(site: dict[str, Tags]) -> None:
    """Neither a font nor a script nor a picture of the site is fetched from another host."""
    for name, page in site.items():
        assert page.loaded
        assert not [address for address in page.loaded if "//" in address], name


def test_what_leads_elsewhere_is_known(site: dict[str, Tags]) -> None:
    """The pages' links to other hosts are those that are listed here."""
    found = {link for page in site.values() for link in page.links if re.match(r"\w+://", link)}
    assert found - {"https://squidfunk.github.io/mkdocs-material/"} == EXTERNAL


def test_the_readmes_links_lead_to_files() -> None:
    """README.md and CONTRIBUTING.md, which hosts show as they are, link to files that exist."""
    for name in ("README.md", "CONTRIBUTING.md"):
        links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text())
        assert links or name == "CONTRIBUTING.md"
        assert not [link for link in links if "://" not in link and not (ROOT / link).is_file()]


def test_every_public_name_is_in_the_reference(site: dict[str, Tags]) -> None:
    """The reference has what `from mlplab import …` gives, each with its arguments, what it raises and an example."""
    assert {f"mlplab.{name}" for name in mlplab.__all__} <= site["reference.html"].anchors
    bare = {"Classifier", "Regressor", "WinnerOf"}  # scikeras has them; and a name that is checked where it is used
    for name in mlplab.__all__:
        said = inspect.getdoc(getattr(mlplab, name)) or ""
        assert ">>> " in said.partition("Examples:")[2], name
        assert name in bare or ("Args:" in said and "Raises:" in said), name


# ------------------------------------------------------------------------------------------------------------- the code


def same(code: str) -> str:
    """What a program does, without comments and docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree)


def test_the_readme_shows_what_init_writes() -> None:
    """The README's example is the file that `mlplab init` writes, but for comments, and it is short."""
    (example,) = blocks("python", ROOT / "README.md")
    assert same(example) == same(TEMPLATE.read_text())
    assert len(example.splitlines()) <= MOST_LINES["the example"]
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES["README.md"]


def test_the_code_of_the_pages_is_legal(digits: tuple[np.ndarray, np.ndarray]) -> None:
    """Each page's lines of Python run, and what they make of variants, metrics and tuning is taken by a comparison."""
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = digits
    ran = 0
    for block in blocks("python", *PAGES):
        if "COMPARISON" in block:  # the README's, which `init` writes; in test_readme.py, with what it compares
            continue
        names: dict[str, Any] = {"model": model, "x": x[:200], "y": y[:200]}
        exec(block, names)
        if names.keys() & {"variants", "select", "tune"}:
            base = Training(model="mlp", optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            given = {name: names[name] for name in ("variants", "select", "tune") if name in names}
            Comparison(**{"question": "Is it?", "data": "digits", "base": base, "variants": {"one": {}}, **given})
        ran += 1
    assert ran == 4


def test_the_layout_has_every_module() -> None:
    """CONTRIBUTING.md says of each file of mlplab/ what it is for, and of no other."""
    said = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout")[2]
    mlplab = [*(ROOT / "mlplab").glob("*.py"), *(ROOT / "mlplab" / "store").glob("*.py")]
    within = said[said.index("mlplab/  ") : said.index("serving/  ")]
    assert set(re.findall(r"\b\w+\.py\b", within)) == {path.name for path in mlplab}
