"""What the project's own files promise to each other."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import spacetravlr as st

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="not a checkout of the whole project")


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def test_types_are_shipped() -> None:
    assert resources.files("spacetravlr").joinpath("py.typed").is_file()


def test_a_version_has_its_heading() -> None:
    released = re.fullmatch(r"\d+\.\d+\.\d+", st.__version__)
    headings = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert released is None or st.__version__ in headings


def test_both_places_name_the_same_ruff() -> None:
    (hook,) = re.findall(r"ruff-pre-commit\n\s+rev: v(\S+)", read(".pre-commit-config.yaml"))
    assert f"\nruff=={hook}\n" in read("constraints.txt")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_every_python_is_tested() -> None:
    declared = re.findall(r"Python :: (3\.\d+)", read("pyproject.toml"))
    tested = set(re.findall(r'python: "(3\.\d+)"', read(".github", "workflows", "test.yaml")))
    assert declared
    assert set(declared) == tested
    assert tomllib.loads(read("pyproject.toml"))["project"]["requires-python"] == f">={declared[0]}"


def test_the_entry_of_the_registry_names_this_package() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    entry = dict(re.findall(r"^ *(\w+): (\S.*)$", read("ecosystem", "meta.yaml"), re.MULTILINE))
    assert entry["pypi"] == project["name"]
    assert entry["license"] == project["license"]
    assert entry["project_home"] == project["urls"]["Source"]
    assert entry["documentation_home"] == project["urls"]["Documentation"]


def test_kernels_are_not_counted() -> None:
    excluded = tomllib.loads(read("pyproject.toml"))["tool"]["coverage"]["report"]["exclude_also"]
    decorators = {
        line
        for path in (ROOT / "src" / "spacetravlr" / "_core").rglob("*.py")
        for line in re.findall(r"^@.*(?:kernel|njit|intrinsic).*", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert decorators
    assert [line for line in decorators if not any(re.search(pattern, line) for pattern in excluded)] == []
