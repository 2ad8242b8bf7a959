"""Execute the tutorials.

``python tutorials/execute.py`` executes the short form of each and says whether it runs; ``--inplace`` executes the
long form and keeps its outputs. Names of notebooks after the options choose some.

A code cell whose metadata has ``short`` is replaced by that source in the short form: so a notebook takes a part of a
section, or fewer targets. Metadata of the notebook say what it needs: ``{"spacetravlr": {"data": true, "packages":
["liana"]}}`` for the folder of real sections (environment variable ``SPACETRAVLR_DATA``) and for packages beside those
of the ``doc`` group. A notebook whose needs are not met is left out, and the script says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def main() -> None:
    """Execute the notebooks of this folder; a cell that raises ends the run with its traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--inplace", action="store_true", help="execute the long form and write the outputs into the notebooks"
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="which ones; all where none is named")
    arguments = parser.parse_args()
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        if missing := lacks(notebook):
            print(f"{path.name}: left out, needs {missing}")
            continue
        if not arguments.inplace:
            shorten(notebook)
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(FOLDER)}}).execute()
        if arguments.inplace:
            clean(notebook)
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


def lacks(notebook: nbformat.NotebookNode) -> str:
    """What the notebook needs and this machine does not have, in words; empty where nothing is missing."""
    needs = notebook.metadata.get("spacetravlr", {})
    missing = [name for name in needs.get("packages", []) if importlib.util.find_spec(name) is None]
    if needs.get("data") and not os.environ.get("SPACETRAVLR_DATA"):
        missing.insert(0, "SPACETRAVLR_DATA")
    return ", ".join(missing)


def shorten(notebook: nbformat.NotebookNode) -> None:
    """Replace the cells that have a short form."""
    for cell in notebook.cells:
        if "short" in cell.metadata:
            cell.source = cell.metadata["short"]


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from machine to machine: times, and warnings that other packages raise on import."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            cell.pop("outputs", None)
            continue
        cell["outputs"] = [output for output in cell.get("outputs", []) if not is_foreign_warning(output)]


def is_foreign_warning(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a warning that points into another package."""
    return output.get("name") == "stderr" and "site-packages" in output["text"]


if __name__ == "__main__":
    main()
