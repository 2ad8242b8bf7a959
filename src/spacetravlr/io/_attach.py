"""Reattach the coefficients in a store to their AnnData."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._utils import absolute_path
from spacetravlr._validators import assert_key
from spacetravlr.io._chunks import Part, StoredMatrix
from spacetravlr.io._manifest import find_damage
from spacetravlr.io._store import NOTE, block_name, count_blocks, digest, read_note, read_part, read_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

_AGAIN = "Call `st.tl.fit_betas` with `store=` and the same arguments: it reuses finished blocks and fits the rest."


@document
def attach_betas(
    adata: AnnData | SpatialData,
    store: str | os.PathLike[str],
    *,
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Attach the coefficients in a ``store`` to the AnnData that was fitted, after the store was moved.

    :func:`spacetravlr.tl.fit_betas` with ``store=`` keeps coefficients in a folder, and ``adata.obsm[betas_key]`` reads
    them from there on demand. Use this function if the folder was moved or copied, or if the coefficients were deleted
    from ``adata`` to write a smaller file.

    Parameters
    ----------
    adata
        Annotated data with the tables of the fit in ``adata.uns[betas_key]``, or SpatialData. Its cells must be those
        of the fit, in the same order.
    store
        Folder of the store.
    %(betas_key)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.obsm[betas_key]`` : dask array (float32), cells x columns
        Coefficients, read on demand.
    ``adata.obsm['{betas_key}_sd']`` : dask array (float32)
        Standard deviations, if the store has them.
    ``adata.uns[betas_key]['store']`` : str
        The folder.

    Raises
    ------
    FileNotFoundError
        If there is no store at ``store``, or one of its blocks is missing.
    KeyError
        If ``adata.uns[betas_key]`` does not exist.
    ValueError
        If the store belongs to other cells or another fit, is incomplete, or contains only bodies.

    Examples
    --------
    >>> import spacetravlr as st
    >>> st.io.attach_betas(adata, "/new/place/betas.zarr")  # doctest: +SKIP
    """
    table = unwrap(adata, table_key)
    assert_key(table, "uns", betas_key, name="betas_key", hint="Call `st.tl.fit_betas(adata)` first.")
    path = absolute_path(store)
    if not (path / NOTE).exists():
        msg = f"Expected `store` to be the folder that `st.tl.fit_betas` wrote to, found no {NOTE} at {path}."
        raise FileNotFoundError(msg)
    note = read_note(path)
    if note.get("cells") != digest(list(table.obs_names)):
        msg = (
            f"Expected the store {path} to belong to the cells of `adata`, in this order, found coefficients of other "
            "cells; pass the annotated data that was fitted."
        )
        raise ValueError(msg)
    if note.get("store_as") == "bodies":
        msg = f"Expected the store {path} to hold coefficients, found only bodies (store_as='bodies'). {_AGAIN}"
        raise ValueError(msg)
    parts = _parts(path)
    _assert_same_fit(path, parts, table.uns[betas_key]["terms"])
    out = table.copy() if copy else table
    for array, key in (("betas", betas_key), ("sd", f"{betas_key}_sd")):
        if all(array in part.manifest.arrays for part in parts):
            out.obsm[key] = StoredMatrix(path, array, parts).dask()
    out.uns[betas_key]["store"] = str(path)
    return out if copy else None


def _parts(path: Path) -> list[Part]:
    """All blocks of a store; raises when one is not whole."""
    parts = [read_part(path, block) for block in range(max(1, count_blocks(path)))]
    for block, part in enumerate(parts):
        if damage := find_damage(part.folder):
            targets = ", ".join(part.manifest.targets[:5])
            msg = (
                f"Expected {block_name(block)} ({targets}, ...) of the store {path} to be complete, found that "
                f"{damage}. Delete the folder {part.folder}. {_AGAIN}"
            )
            raise ValueError(msg)
    return parts


def _assert_same_fit(path: Path, parts: list[Part], terms: pd.DataFrame) -> None:
    """Raise when the columns of the store are not those of the table, or were found to matter otherwise."""
    targets = [t for part in parts for t in np.repeat(part.manifest.targets, part.manifest.columns).tolist()]
    same = targets == terms["target"].astype(str).tolist()
    if same:
        found = np.concatenate([read_table(part, "terms")["importance"].to_numpy(float) for part in parts])
        same = np.allclose(found, terms["importance"].to_numpy(float), equal_nan=True)
    if not same:
        msg = (
            f"Expected the store {path} to belong to the fit in `adata`, found other targets or coefficients. {_AGAIN}"
        )
        raise ValueError(msg)
