"""The folder of a screen: one file a perturbed gene, and a note of the model they belong to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from spacetravlr._utils import atomic_path
from spacetravlr.io._disk import permitted, writing
from spacetravlr.models.perturb._coefficients import load
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

_NOTE = "screen.json"
_FORMAT = 1
_HASHED_CELLS = 256


@dataclass
class ScreenResult:
    """What perturbing one gene does; arrays are groups x genes, the first group all cells, then the cell types."""

    gene: str
    gene_index: Ints
    """Genes that can change, as indices into ``var_names``."""
    mean: Floats
    mean_abs: Floats
    fraction: Floats
    n_perturbed: int
    """Cells whose expression of the gene was changed by hand."""
    change: Floats | None = None
    """Change at every cell, cells x genes, when it is kept."""


@dataclass(frozen=True)
class ScreenFolder:
    """Where a screen writes its results."""

    path: Path

    @classmethod
    def open(cls, path: Path, run: dict[str, Any], model: dict[str, Any]) -> ScreenFolder:
        """Make the folder, or check that what it holds belongs to the same model and settings.

        Raises
        ------
        ValueError
            When it holds results of another model or of other settings.
        OSError
            When the folder cannot be written.
        """
        note = {"format": _FORMAT, "run": run, "model": model}
        target = path / _NOTE
        if not target.exists():
            with permitted(path, "save_to"), atomic_path(target) as temporary:
                temporary.write_text(json.dumps(note, indent=1))
            return cls(path)
        found = json.loads(target.read_text())
        differing = [
            f"{name} ({found.get(part, {}).get(name)!r}, now {value!r})" if part == "run" else name
            for part, values in (("run", run), ("model", model))
            for name, value in values.items()
            if not _same(found.get(part, {}).get(name), value)
        ]
        if found.get("format") != _FORMAT:
            differing.append("format")
        if differing:
            msg = (
                f"Expected `save_to` to be a new folder or to hold results of this screen, found '{path}' with another "
                f"{', '.join(differing)}; choose another folder."
            )
            raise ValueError(msg)
        return cls(path)

    def file_of(self, gene: str) -> Path:
        """File of one gene; gene names may hold characters that file names may not."""
        return self.path / f"{quote(gene, safe='')}.npz"

    def read(self, gene: str) -> ScreenResult | None:
        """Read the summary of one gene; None when it is not there yet."""
        path = self.file_of(gene)
        if not path.exists():
            return None
        try:
            with np.load(path) as stored:
                return ScreenResult(
                    gene=gene,
                    gene_index=stored["gene_index"],
                    mean=stored["mean"],
                    mean_abs=stored["mean_abs"],
                    fraction=stored["fraction"],
                    n_perturbed=int(stored["n_perturbed"]),
                )
        except (BadZipFile, EOFError, KeyError, ValueError) as error:
            msg = f"Expected '{path}' to be a result of a screen, found it damaged ({error}); delete it and run again."
            raise ValueError(msg) from error

    def write(self, result: ScreenResult) -> None:
        """Write one result; a file is there whole or not at all.

        Raises
        ------
        OSError
            When there is no room or no permission; files written before stay.
        """
        arrays: dict[str, Any] = {
            "gene_index": result.gene_index,
            "mean": result.mean,
            "mean_abs": result.mean_abs,
            "fraction": result.fraction,
            "n_perturbed": result.n_perturbed,
        }
        if result.change is not None:
            arrays["change"] = result.change
        with writing(f"the result of {result.gene}", self.path), atomic_path(self.file_of(result.gene)) as temporary:
            np.savez_compressed(temporary, **arrays)


def fingerprint(model: FittedModel, cells: Bools, groups: Ints) -> dict[str, Any]:
    """What a screen's results depend on, as digests of its parts.

    Coefficients can be larger than memory, so they enter through cells evenly spread over the tissue. Received ligands
    are computed, so they enter through their means and deviations, which are compared within rounding.
    """
    received = model.tissue.received.astype(np.float64)
    betas = model.fit.betas
    step = max(1, betas.shape[0] // _HASHED_CELLS)
    sample = load(betas[::step])
    names = [
        pd.util.hash_pandas_object(pd.Series(index.astype(str)), index=False).to_numpy()
        for index in (model.adata.obs_names, model.adata.var_names)
    ]
    terms = model.fit.table[["target", "kind", "tf", "ligand", "receptor", "range"]].astype(str)
    return {
        "coefficients": _digest(sample, pd.util.hash_pandas_object(terms, index=False).to_numpy()),
        "expression": _digest(model.expression),
        "received ligands": [*received.mean(axis=0).tolist(), *received.std(axis=0).tolist()],
        "cells or genes": _digest(*names, cells, groups),
    }


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, list) and isinstance(found, list):
        return len(found) == len(value) and np.allclose(found, value, rtol=1e-4, atol=1e-6)
    return bool(found == value)


def _digest(*arrays: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()
