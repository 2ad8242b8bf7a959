"""Print the versions that this environment holds of everything the project asks for, directly or not."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = "spacetravlr-scverse"
HEADER = """\
# The versions that the Makefile and .ci/run install (Python 3.11); `make constraints` rewrites this file.
# The requirements of the package itself are ranges: see pyproject.toml."""


def wanted() -> list[Requirement]:
    """Requirements of the package, of its extras and of its dependency groups."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    lines = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    for group in project["dependency-groups"].values():
        lines += [entry for entry in group if isinstance(entry, str)]
    return [Requirement(line) for line in lines]


def closure(start: list[Requirement]) -> dict[str, str]:
    """Name and version of every installed distribution that ``start`` leads to."""
    found: dict[str, str] = {}
    stack = [(requirement, "") for requirement in start]
    seen: set[tuple[str, str]] = set()
    while stack:
        requirement, extra = stack.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        # the build of torch (CPU, CUDA) is the machine's choice, not ours
        found[name] = Version(installed.version).public
        for part in ("", *requirement.extras):
            if (name, part) not in seen:
                seen.add((name, part))
                stack += [(Requirement(line), part) for line in installed.requires or ()]
    found.pop(PROJECT, None)
    return found


if __name__ == "__main__":
    print(HEADER)
    for name, version in sorted(closure(wanted()).items()):
        print(f"{name}=={version}")
