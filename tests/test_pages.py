"""Code on the pages and in the tutorials calls what exists, with arguments that exist."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import spacetravlr as st

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="not a checkout of the whole project")


def blocks(path: Path) -> list[str]:
    """Python sources of a page or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    found = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found += [source, cell["metadata"].get("short", "")]
        else:
            found += re.findall(r"^```python\n(.*?)^```", source, re.DOTALL | re.MULTILINE)
    return found


def dotted(node: ast.expr) -> str:
    """Name of ``st.tl.perturb`` and the like, empty for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id == "st" and parts else ""


def wrong_calls(source: str) -> Iterator[str]:
    """What a source asks of the package that is not there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            try:
                resolve(name)
            except AttributeError:
                yield name
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            function = resolve(name)
            known = inspect.signature(function).parameters
            if any(p.kind is p.VAR_KEYWORD for p in known.values()):
                continue
            yield from (f"{name}({k.arg}=)" for k in node.keywords if k.arg and k.arg not in known)


def resolve(name: str) -> object:
    found: object = st
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_calls_exist(path: Path) -> None:
    wrong = [call for source in blocks(path) for call in wrong_calls(source)]
    assert wrong == []


def test_what_does_not_exist_is_found() -> None:
    assert list(wrong_calls("st.tl.fit_betas(adata, count_layer='counts')")) == ["tl.fit_betas(count_layer=)"]
    assert "pl.nothing" in list(wrong_calls("f = st.pl.nothing"))


def test_every_tutorial_and_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^[\w/-]+$", index, re.MULTILINE))
    names = {f"tutorials/{path.stem}" for path in NOTEBOOKS} | {
        str(path.relative_to(ROOT / "docs").with_suffix("")) for path in PAGES[1:] if path.stem != "index"
    }
    assert names <= listed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_tutorials_were_executed(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
