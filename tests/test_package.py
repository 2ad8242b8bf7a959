"""House rules of the public surface, checked over ``__all__`` of every subpackage."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import spacetravlr as st

SUBPACKAGES = ("datasets", "get", "io", "pl", "pp", "priors", "tl")
API_PAGES = Path(__file__).parents[1] / "docs" / "api"
MAX_POSITIONAL = 3
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def public(kind: Callable[[Any], bool]) -> dict[str, Any]:
    """Public objects of one kind by dotted name."""
    found = {}
    for subpackage in SUBPACKAGES:
        module = import_module(f"spacetravlr.{subpackage}")
        found |= {f"{subpackage}.{name}": getattr(module, name) for name in module.__all__}
    found |= {name: getattr(st, name) for name in st.__all__}
    return {name: thing for name, thing in found.items() if kind(thing)}


FUNCTIONS = public(inspect.isfunction)
CLASSES = public(inspect.isclass)
METHODS = {
    f"{class_name}.{name}": method
    for class_name, owner in CLASSES.items()
    for name, method in vars(owner).items()
    if inspect.isfunction(method) and not name.startswith("_")
}
CALLABLES = FUNCTIONS | METHODS

every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
every_callable = pytest.mark.parametrize("function", CALLABLES.values(), ids=CALLABLES.keys())


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Parameters of a function or method, without ``self``."""
    return [p for p in inspect.signature(function).parameters.values() if p.name not in {"self", "cls"}]


def sections(function: Callable[..., Any]) -> dict[str, str]:
    """Sections of a numpydoc docstring: title to text."""
    pieces = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(function) or "", flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def documented(text: str) -> set[str]:
    """Names that a Parameters section explains; several may share one explanation."""
    return {name.strip().lstrip("*") for line in re.findall(r"^\S.*$", text, re.MULTILINE) for name in line.split(",")}


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_all_is_sorted_and_complete(name: str) -> None:
    module = import_module(f"spacetravlr.{name}")
    assert module.__all__, f"st.{name} exports nothing"
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert (module.__doc__ or "").strip()


def test_top_level() -> None:
    assert list(st.__all__) == sorted(st.__all__)
    assert set(st.__all__) <= set(dir(st))
    assert all(hasattr(st, name) for name in st.__all__)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = st.no_such_thing


@every_callable
def test_docstring(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    first = text.partition("\n")[0]
    assert first, "no docstring"
    assert first.endswith((".", ":", "?")), "the first line is a sentence"
    found = sections(function)
    wanted = {p.name for p in parameters(function)}
    if wanted:
        assert wanted - documented(found.get("Parameters", "")) == set(), "undocumented parameters"
    assert documented(found.get("Parameters", "")) - wanted == set(), "documented, but not parameters"


@every_function
def test_docstring_says_what_returns(function: Callable[..., Any]) -> None:
    annotation = inspect.signature(function).return_annotation
    if annotation not in {None, "None"}:
        assert {"Returns", "Yields"} & set(sections(function))


@every_callable
def test_no_types_in_the_docstring(function: Callable[..., Any]) -> None:
    lines = re.findall(r"^\S.*$", sections(function).get("Parameters", ""), re.MULTILINE)
    assert not [line for line in lines if " : " in line], "types come from the annotations"


@every_callable
def test_annotated(function: Callable[..., Any]) -> None:
    missing = [p.name for p in parameters(function) if p.annotation is inspect.Parameter.empty]
    assert not missing
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty


@every_callable
def test_few_positional_parameters(function: Callable[..., Any]) -> None:
    assert sum(p.kind in POSITIONAL for p in parameters(function)) <= MAX_POSITIONAL


@every_callable
def test_booleans_are_keyword_only(function: Callable[..., Any]) -> None:
    wrong = [
        p.name
        for p in parameters(function)
        if p.kind in POSITIONAL and (isinstance(p.default, bool) or p.annotation in {"bool", "bool | None", bool})
    ]
    assert not wrong


@every_function
def test_copy_is_scanpys(function: Callable[..., Any]) -> None:
    copy = inspect.signature(function).parameters.get("copy")
    if copy is None:
        pytest.skip("no copy parameter")
    assert copy.kind is inspect.Parameter.KEYWORD_ONLY
    assert copy.default is False
    assert "None" in str(inspect.signature(function).return_annotation)


@every_callable
def test_no_mutable_defaults(function: Callable[..., Any]) -> None:
    assert not [p.name for p in parameters(function) if isinstance(p.default, list | dict | set)]


@pytest.mark.parametrize(
    "function",
    [f for name, f in FUNCTIONS.items() if name.startswith("pl.")],
    ids=[name for name in FUNCTIONS if name.startswith("pl.")],
)
def test_plots_take_axes(function: Callable[..., Any]) -> None:
    assert "ax" in inspect.signature(function).parameters


def test_every_public_name_is_in_the_documentation() -> None:
    lines = {line.strip() for page in API_PAGES.glob("*.md") for line in page.read_text().splitlines()}
    listed = {line.removeprefix(".. autofunction:: spacetravlr.") for line in lines}
    names = {f"{package}.{name}" for package in (*SUBPACKAGES, "nn") for name in getattr(st, package).__all__}
    names |= {name for name in st.__all__ if name not in (*SUBPACKAGES, "nn", "settings")}
    assert names - listed == set()


WITH_EXAMPLES = {name: thing for name, thing in (CALLABLES | CLASSES).items() if ">>>" in (inspect.getdoc(thing) or "")}


@pytest.mark.parametrize("thing", WITH_EXAMPLES.values(), ids=WITH_EXAMPLES.keys())
def test_examples(thing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    report: list[str] = []
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", {}, thing.__name__, None, None)
    result = runner.run(example, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
