"""Execute every tutorial; with ``--inplace`` keep the outputs, else only say whether it runs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def main() -> None:
    """Execute the notebooks of this folder; a cell that raises ends the run with its traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inplace", action="store_true", help="write the outputs into the notebooks")
    arguments = parser.parse_args()
    for path in sorted(FOLDER.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
        if arguments.inplace:
            clean(notebook)
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


def clean(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from machine to machine: times, and warnings that other packages raise on import."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell["outputs"] = [output for output in cell.get("outputs", []) if not is_foreign_warning(output)]
        if cell.cell_type != "code":
            del cell["outputs"]


def is_foreign_warning(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a warning that points into another package."""
    return output.get("name") == "stderr" and "site-packages" in output["text"]


if __name__ == "__main__":
    main()
