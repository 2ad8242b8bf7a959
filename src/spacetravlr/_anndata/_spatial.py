"""Where cells are: coordinates, slides and weights of an AnnData."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._validators import assert_in_main_memory, assert_key

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints


def unwrap(adata: AnnData | SpatialData, table_key: str | None = None) -> AnnData:
    """Table of a SpatialData object, ``table_key`` where there are several; an AnnData comes back as it is.

    Raises
    ------
    TypeError
        If ``adata`` is neither.
    KeyError
        If there is no such table.
    ValueError
        If there is no table, or several and none was named, or ``table_key`` is given with an AnnData.
    """
    from anndata import AnnData

    if isinstance(adata, AnnData):
        if table_key is not None:
            msg = f"Expected `table_key` with SpatialData only, found `{table_key!r}` with AnnData."
            raise ValueError(msg)
        return adata
    spatialdata = sys.modules.get("spatialdata")  # whoever has such an object has imported it
    if spatialdata is None or not isinstance(adata, spatialdata.SpatialData):
        msg = f"Expected `adata` to be AnnData or SpatialData, found `{type(adata).__name__}`."
        raise TypeError(msg)
    if table_key is not None:
        assert_key(adata, "tables", table_key, name="table_key")
        return adata.tables[table_key]
    names = list(adata.tables)
    if len(names) != 1:
        listed = ", ".join(repr(name) for name in names) or "none"
        msg = (
            f"Expected the SpatialData object to have exactly one table, found {listed}; pass `table_key=` if the "
            "function has it, or `sdata.tables[...]`."
        )
        raise ValueError(msg)
    return adata.tables[names[0]]


def unwrap_both(
    first: AnnData | SpatialData, second: AnnData | SpatialData, table_key: str | None = None
) -> tuple[AnnData, AnnData]:
    """Tables of two objects; ``table_key`` is that of whichever of them is SpatialData.

    Raises
    ------
    TypeError, KeyError, ValueError
        As in :func:`unwrap`.
    """
    from anndata import AnnData

    plain = [isinstance(each, AnnData) for each in (first, second)]
    keys = [None if is_plain and not all(plain) else table_key for is_plain in plain]
    return unwrap(first, keys[0]), unwrap(second, keys[1])


def get_coordinates(adata: AnnData, spatial_key: str = _keys.SPATIAL) -> Floats:
    """Coordinates as they are stored, float64, cells x 2 or 3.

    Raises
    ------
    KeyError
        If ``adata.obsm[spatial_key]`` does not exist.
    ValueError
        If it has not 2 or 3 columns, or is not finite.
    """
    assert_key(
        adata,
        "obsm",
        spatial_key,
        name="spatial_key",
        hint="Store the coordinates of the cells there (cells x 2 or 3), or pass the `spatial_key` that holds them.",
    )
    assert_in_main_memory(adata.obsm[spatial_key], f"adata.obsm[{spatial_key!r}]")
    coords = np.asarray(adata.obsm[spatial_key], dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] not in (2, 3):
        msg = f"Expected adata.obsm[{spatial_key!r}] to have 2 or 3 columns, found shape {coords.shape}."
        raise ValueError(msg)
    bad = np.flatnonzero(~np.isfinite(coords).all(axis=1))
    if len(bad):
        msg = (
            f"Expected coordinates in adata.obsm[{spatial_key!r}] to be finite, found NaN or infinite values in "
            f"{len(bad)} cells (first: {adata.obs_names[bad[0]]!r}); remove these cells first."
        )
        raise ValueError(msg)
    return coords


def library_codes(adata: AnnData, library_key: str | None) -> Ints | None:
    """Slide code of each cell; ``None`` where all cells are on one slide.

    Raises
    ------
    KeyError
        If ``adata.obs[library_key]`` does not exist.
    ValueError
        If it has missing values.
    """
    if not library_key:
        return None
    return category_codes(adata, library_key, name="library_key")[0]


def category_codes(adata: AnnData, key: str, *, name: str) -> tuple[Ints, list[str]]:
    """Code of each cell's label in ``adata.obs[key]``, and the labels that occur, in the order of their categories.

    Raises
    ------
    KeyError
        If ``adata.obs[key]`` does not exist.
    ValueError
        If labels are missing.
    """
    assert_key(adata, "obs", key, name=name)
    labels = adata.obs[key].astype("category").cat.remove_unused_categories()
    codes = labels.cat.codes.to_numpy().astype(np.int64)
    missing = int((codes < 0).sum())
    if missing:
        msg = f"Expected adata.obs[{key!r}] (`{name}`) to label every cell, found {missing} without a label."
        raise ValueError(msg)
    return codes, [str(label) for label in labels.cat.categories]


def graph_distances(
    adata: AnnData, connectivity_key: str, coords: Floats, libraries: Ints | None = None
) -> sparse.csr_matrix:
    """Distances between the neighbours of a squidpy graph, in coordinate units, explicit zeros kept.

    ``adata.obsp[connectivity_key]`` holds either distances, or connectivities (all stored values equal to one, or a
    name ending in "connectivities"), for which distances come from the coordinates. Edges between slides are dropped.

    Raises
    ------
    KeyError
        If the graph does not exist.
    ValueError
        If it holds negative or non-finite values.
    """
    assert_key(
        adata,
        "obsp",
        connectivity_key,
        name="connectivity_key",
        hint="Call `sq.gr.spatial_neighbors_knn(adata)` first, or pass the key of its graph.",
    )
    assert_in_main_memory(adata.obsp[connectivity_key], f"adata.obsp[{connectivity_key!r}]")
    graph = sparse.csr_matrix(adata.obsp[connectivity_key], dtype=np.float64, copy=True)
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        msg = f"Expected adata.obsp[{connectivity_key!r}] to hold finite distances of at least zero."
        raise ValueError(msg)
    graph.sum_duplicates()
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    if connectivity_key.endswith("connectivities") or (graph.nnz and bool((graph.data == 1).all())):
        edges = graph.data > 0
        distances = np.linalg.norm(coords[rows] - coords[graph.indices], axis=1)
    else:
        edges = np.ones(graph.nnz, dtype=bool)
        distances = graph.data
    if libraries is not None:
        edges &= libraries[rows] == libraries[graph.indices]
    edges &= rows != graph.indices
    counts = np.bincount(rows[edges], minlength=graph.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((distances[edges], graph.indices[edges], indptr), shape=graph.shape)


def read_weights_params(adata: AnnData, key: str = _keys.SPATIAL_WEIGHTS) -> dict[str, Any]:
    """What ``pp.spatial_weights`` was called with; ``KeyError`` when it was not."""
    assert_key(adata, "uns", key, name="weights_key", hint="Call `st.pp.spatial_weights(adata)` first.")
    return dict(adata.uns[key])


def has_contact(weights: Mapping[str, Any]) -> bool:
    """Whether there are contact signals, from the parameters of ``pp.spatial_weights``; yes where they do not say."""
    return float(weights.get("contact_radius", np.inf)) > 0


def realign(frame: pd.DataFrame, obs_names: pd.Index, *, where: str, hint: str) -> pd.DataFrame:
    """Rows of ``frame`` in the order of ``obs_names``; ``ValueError`` when a cell is not in it."""
    if frame.index.equals(obs_names):
        return frame
    index = frame.index.get_indexer(obs_names)
    if (index < 0).any():
        missing = int((index < 0).sum())
        msg = (
            f"Expected {where} to hold every cell, found {missing} of {len(obs_names)} cells missing "
            f"(first: {obs_names[int(np.argmax(index < 0))]!r}); it belongs to other cells. {hint}"
        )
        raise ValueError(msg)
    return frame.iloc[index]
