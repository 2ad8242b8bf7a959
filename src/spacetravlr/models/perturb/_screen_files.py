"""The folder of a screen: one file per perturbed gene, and a note of the model they belong to."""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from spacetravlr._temporary import atomic_path, remove_abandoned, write_new
from spacetravlr._utils import absolute_path
from spacetravlr.io._disk import permitted, writing
from spacetravlr.io._lazy import lazy_matrix
from spacetravlr.models.perturb._coefficients import load
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from os import PathLike

    from spacetravlr._types import Bools, Floats, Ints

logger = logging.getLogger(__name__)

_NOTE = "screen.json"
_FORMAT = 2
_LONGEST = 100  # characters of a name before its digest
# names that Windows takes for devices, whatever their ending
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
_CHUNK_BYTES = 1 << 26


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
    se: Floats | None = None
    p: Floats | None = None
    """Standard error of the mean change and p-value of none, where draws of the coefficients were taken."""


class ScreenFolder:
    """Where a screen writes its results.

    Parameters
    ----------
    path
        Folder.
    note
        Identifier of the note that lies there; each result bears it.
    genes
        All genes of the tissue, to distinguish file names that differ only in case.
    """

    def __init__(self, path: Path, note: str, genes: Sequence[str] = ()) -> None:
        self.path, self.note = path, note
        self._ambiguous = {name for name, count in Counter(_quoted(g).lower() for g in genes).items() if count > 1}

    @classmethod
    def open(
        cls, path: str | PathLike[str], run: dict[str, Any], model: dict[str, Any], genes: Sequence[str] = ()
    ) -> ScreenFolder:
        """Make the folder, or check that what it holds belongs to the same model and settings.

        Raises
        ------
        ValueError
            If it holds results of another model or of other settings, or its note is damaged.
        OSError
            If the folder cannot be written.
        """
        folder = absolute_path(path)
        note = folder / _NOTE
        with permitted(folder, "save_to"):
            folder.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                write_new(
                    note, json.dumps({"format": _FORMAT, "id": uuid4().hex, "run": run, "model": model}, indent=1)
                )
        found = _read_note(note)
        differing = [
            f"{name} ({found[part].get(name)!r}, now {value!r})" if part == "run" else name
            for part, values in (("run", run), ("model", model))
            for name, value in values.items()
            if not _same(found[part].get(name), value)
        ]
        if differing:
            msg = (
                f"Expected `save_to` to be a new folder or to hold results of this screen, found '{folder}' with "
                f"different {', '.join(differing)}; choose another folder."
            )
            raise ValueError(msg)
        remove_abandoned(folder, ".*")
        return cls(folder, str(found["id"]), genes)

    def file_of(self, gene: str) -> Path:
        """File of one gene; gene names may hold characters that file names may not, or be too long for one."""
        name = _quoted(gene)
        stem = name.split(".")[0].lower()
        if len(name) > _LONGEST or name.lower() in self._ambiguous or stem in _DEVICES or not stem:
            name = f"{name[:_LONGEST]}-{hashlib.blake2b(gene.encode(), digest_size=8).hexdigest()}"
            name = name if stem and stem not in _DEVICES else f"_{name}"
        return self.path / f"{name}.npz"

    def read(self, gene: str) -> ScreenResult | None:
        """Read the summary of one gene; None when it is not there yet, or belongs to another gene or run."""
        path = self.file_of(gene)
        if not path.exists():
            return None
        try:
            with np.load(path) as stored:
                found = [str(stored[name]) if name in stored else "" for name in ("gene", "note")]
                if found != [gene, self.note]:
                    logger.warning("%s is not a result for %s in this screen and is recomputed", path, gene)
                    return None
                return ScreenResult(
                    gene=gene,
                    gene_index=stored["gene_index"],
                    mean=stored["mean"],
                    mean_abs=stored["mean_abs"],
                    fraction=stored["fraction"],
                    n_perturbed=int(stored["n_perturbed"]),
                    se=stored.get("se"),
                    p=stored.get("p"),
                )
        except (BadZipFile, EOFError, KeyError, ValueError, zlib.error) as error:
            msg = f"Expected '{path}' to be a result of a screen, found it damaged ({error}); delete it and run again."
            raise ValueError(msg) from error

    def write(self, result: ScreenResult) -> None:
        """Write one result; a file is there whole or not at all.

        Raises
        ------
        OSError
            If there is no room or no permission; files written before stay.
        """
        arrays: dict[str, Any] = {
            "gene": np.array(result.gene),
            "note": np.array(self.note),
            "gene_index": result.gene_index,
            "mean": result.mean,
            "mean_abs": result.mean_abs,
            "fraction": result.fraction,
            "n_perturbed": result.n_perturbed,
        }
        arrays |= {name: value for name in ("change", "se", "p") if (value := getattr(result, name)) is not None}
        with writing(f"the result of {result.gene}", self.path), atomic_path(self.file_of(result.gene)) as temporary:
            np.savez_compressed(temporary, **arrays)


def _quoted(gene: str) -> str:
    return quote(gene, safe="")


def _read_note(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_bytes())
    except ValueError as error:
        msg = f"Expected '{note}' to describe a screen, found it damaged ({error}); choose another folder."
        raise ValueError(msg) from error
    parts = found if isinstance(found, dict) else {}
    whole = all(isinstance(parts.get(name), kind) for name, kind in (("run", dict), ("model", dict), ("id", str)))
    if not whole or parts.get("format") != _FORMAT:
        msg = f"Expected '{note}' to describe a screen, found `{str(found)[:40]}`; choose another folder."
        raise ValueError(msg)
    return parts


def fingerprint(model: FittedModel, cells: Bools, groups: Ints) -> dict[str, Any]:
    """What a screen's results depend on, as digests of its parts.

    Coefficients in a store enter through the checksums that were written with them. Received ligands are computed, so
    they enter through their means and deviations, which are compared within rounding.
    """
    received = model.tissue.received.astype(np.float64)
    names = [
        pd.util.hash_pandas_object(pd.Series(index.astype(str)), index=False).to_numpy()
        for index in (model.adata.obs_names, model.adata.var_names)
    ]
    terms = model.fit.table[["target", "kind", "tf", "ligand", "receptor", "range"]].astype(str)
    return {
        "coefficients": _digest(*_coefficients(model.fit.betas), pd.util.hash_pandas_object(terms, index=False)),
        "expression": _digest(model.expression),
        "received ligands": [*received.mean(axis=0).tolist(), *received.std(axis=0).tolist()],
        "cells or genes": _digest(*names, cells, groups),
    }


def _coefficients(betas: Any) -> Iterator[Any]:
    """All coefficients, some cells at a time, or what is known of those in a store."""
    matrix = lazy_matrix(betas)
    if matrix is not None:
        yield np.frombuffer(matrix.digest.encode(), dtype=np.uint8)
        return
    step = max(1, _CHUNK_BYTES // (4 * max(betas.shape[1], 1)))
    for start in range(0, betas.shape[0], step):
        yield load(betas[start : start + step])


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
