"""Imports go down only: the table of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import spacetravlr

SOURCE = Path(spacetravlr.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
FILES = sorted(SOURCE.rglob("*.py"))

# imported inside the functions that use them, so that importing a module of ours stays cheap
HEAVY = ("torch", "lightning", "matplotlib.pyplot", "squidpy", "scanpy")


def ranks() -> dict[str, int]:
    """Rank of each package and module, read from the table that people read."""
    found: dict[str, int] = {}
    for line in ARCHITECTURE.read_text().splitlines():
        if row := re.match(r"\| (\d+) \| (.+?) \|", line):
            outside_parentheses = re.sub(r"\([^)]*\)", "", row[2])
            found |= {name: int(row[1]) for name in re.findall(r"`(\w+)`", outside_parentheses)}
    return found


RANKS = ranks()


def part_of(module: str) -> str:
    """Package or module of the table that ``spacetravlr.<part>...`` belongs to; "" for the top level."""
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """Every imported module with its line; ``from spacetravlr import x`` counts as ``spacetravlr.x``."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            if node.module == "spacetravlr":
                found += [(f"spacetravlr.{alias.name}", node.lineno) for alias in node.names]
            else:
                found.append((str(node.module), node.lineno))
    return found


def module_level(tree: ast.Module) -> ast.Module:
    """The statements that run at import: no function bodies, nothing under ``if TYPE_CHECKING``."""

    class Drop(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            guarded = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if guarded else self.generic_visit(node)

    kept = Drop().visit(tree)
    assert isinstance(kept, ast.Module)
    return kept


def test_the_table_was_found() -> None:
    assert {"_keys", "_core", "_anndata", "models", "pp", "tl", "get", "pl", "nn"} <= set(RANKS)
    assert RANKS["_keys"] < RANKS["_core"] < RANKS["_anndata"] < RANKS["models"] < RANKS["tl"] < RANKS["pl"]


def test_every_part_has_a_rank() -> None:
    parts = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert parts <= set(RANKS), f"not in the table of docs/architecture.md: {sorted(parts - set(RANKS))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_go_down(path: Path) -> None:
    relative = path.relative_to(SOURCE)
    part = relative.parts[0].removesuffix(".py")
    if part == "__init__":
        pytest.skip("the top level re-exports everything")
    wrong = [
        f"line {line}: {part} (rank {RANKS[part]}) imports {module}"
        for module, line in imports(ast.parse(path.read_text()))
        if module.split(".")[0] == "spacetravlr"
        and (other := part_of(module)) != part
        # names of the top level itself (settings, __version__) are not in the table and would be a cycle
        and (other not in RANKS or (RANKS[other] >= RANKS[part] and not (RANKS[other] == RANKS[part] == 0)))
    ]
    assert not wrong


def room_of(module: str) -> str:
    """Sub-package that a module lies in (``_core.space``, ``models.fit``), or the module where it lies in none."""
    path = module.split(".")[1:]
    return ".".join(path[:-1] if len(path) > 2 else path[:2])


def import_graph() -> dict[str, set[str]]:
    """Which of our modules each one imports, for annotations alone too; ``import spacetravlr`` itself left out."""
    name_of = {path: module_name(path) for path in FILES if path != SOURCE / "__init__.py"}
    known = set(name_of.values())
    graph: dict[str, set[str]] = {name: set() for name in known}
    for path, name in name_of.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("spacetravlr"):
                wanted = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {w if w in known else node.module for w in wanted} & known - {name}
    return graph


def module_name(path: Path) -> str:
    return ".".join(["spacetravlr", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of a graph, or nothing."""
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle_of_modules() -> None:
    assert not circle(import_graph())


def test_no_circle_of_rooms() -> None:
    rooms: dict[str, set[str]] = {}
    for name, imported in import_graph().items():
        if len(name.split(".")) > 2:  # a package's own __init__ gathers from its rooms
            rooms.setdefault(room_of(name), set()).update(room_of(other) for other in imported)
    assert not circle({room: others - {room} for room, others in rooms.items()})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_heavy_packages_are_imported_late(path: Path) -> None:
    if path.relative_to(SOURCE).parts[0] == "nn":
        pytest.skip("nn is torch")
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(module_level(ast.parse(path.read_text())))
        if any(module == heavy or module.startswith(f"{heavy}.") for heavy in HEAVY)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path", sorted((SOURCE / "_core").rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_core_is_numbers_only(path: Path) -> None:
    wrong = [
        module
        for module, _ in imports(ast.parse(path.read_text()))
        if module.split(".")[0] in {"anndata", "pandas", "torch", "lightning", "matplotlib", "scanpy", "squidpy"}
    ]
    assert not wrong


@pytest.mark.parametrize("path", sorted((SOURCE / "nn").glob("*.py")), ids=lambda path: path.name)
def test_nn_sees_tensors_only(path: Path) -> None:
    wrong = [
        module
        for module, _ in imports(ast.parse(path.read_text()))
        if module.split(".")[0] in {"anndata", "pandas", "matplotlib", "scanpy", "squidpy"}
    ]
    assert not wrong


def test_what_is_imported_is_required() -> None:
    project = tomllib.loads((ARCHITECTURE.parents[1] / "pyproject.toml").read_text())["project"]
    optional = [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {Requirement(line).name.replace("-", "_") for line in [*project["dependencies"], *optional]}
    declared = {{"scikit_learn": "sklearn"}.get(name, name) for name in declared}
    imported = {module.split(".")[0] for path in FILES for module, _ in imports(ast.parse(path.read_text()))}
    assert imported - declared - sys.stdlib_module_names - {"spacetravlr"} == set()
    # pandas reads parquet and feather files with pyarrow; tables of decoupler and liana are passed in
    assert declared - imported == {"pyarrow", "decoupler", "liana"}


def loaded_after(statements: str) -> set[str]:
    """Names of the heavy packages in ``sys.modules`` of a fresh interpreter after ``statements``."""
    code = f"{statements}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_is_light() -> None:
    assert loaded_after("import spacetravlr") == set()


def test_subpackages_are_light() -> None:
    names = ["datasets", "get", "io", "models", "pl", "pp", "priors", "tl"]
    loaded = loaded_after("\n".join(f"import spacetravlr.{name}" for name in names))
    # anndata itself is needed for annotations only, so nothing here should bring any of them
    assert loaded == set()
