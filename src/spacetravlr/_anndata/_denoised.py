"""Expression that is expected given the counts: computed, and recognised where it was computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._counts import checked_counts, scale_of_counts
from spacetravlr._anndata._expression import get_expression, layer_name, log_base
from spacetravlr._anndata._order import CellOrder
from spacetravlr._anndata._spatial import category_codes, get_coordinates
from spacetravlr._core.calibration import calibrate
from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, spatial_basis
from spacetravlr._core.surfaces.model import FINE
from spacetravlr._utils import numba_threads

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats, Ints

# Genes that are read together and may share factors: as many values as fit in a few hundred megabytes, at most a few
# seconds of eigenvalues.
_VALUES, _FEWEST, _MOST = 3e7, 100, 1000
_SUM_TOLERANCE = 1e-4  # of a cell's sum of measured values: they may have been stored in another precision


class Denoised(NamedTuple):
    """A denoised layer."""

    values: Floats
    """Cells x genes, dense float32."""
    note: dict[str, Any]
    """Parameters, and what the values were computed from."""

    def write(self, adata: AnnData, key: str = _keys.DENOISED) -> None:
        """Write the layer and its note."""
        adata.layers[key] = self.values
        adata.uns[key] = self.note


def denoised(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    *,
    layer: str | None,
    counts_layer: str | None,
    cluster_key: str | None,
    spatial_key: str,
    library_key: str | None,
    n_jobs: int | None,
    advice: str,
) -> Denoised:
    """Compute expected expression of some genes, or of all; see :func:`spacetravlr.pp.denoise`.

    Parameters
    ----------
    adata
        Annotated data, not changed.
    genes
        Genes to denoise; others keep their measured values.
    layer
        Log-normalised counts.
    counts_layer
        The counts; ``None`` for ``X``.
    cluster_key
        Cell types; without them all cells are of one type.
    spatial_key, library_key
        Coordinates and slides.
    n_jobs
        Number of threads.
    advice
        What to do where values do not follow from counts, with its punctuation.
    """
    codes, types = np.zeros(adata.n_obs, dtype=np.int64), ["all"]
    if cluster_key is not None:
        codes, types = category_codes(adata, cluster_key, name="cluster_key")
    slides = None if library_key is None else category_codes(adata, library_key, name="library_key")[0]
    coordinates = get_coordinates(adata, spatial_key)
    counts = checked_counts(adata, counts_layer)
    values = np.array(get_expression(adata, layer=layer))  # the layer itself stays as it is
    note = {
        "layer": layer or "", "counts_layer": counts_layer or "X", "cluster_key": cluster_key or "",
        "spatial_key": spatial_key, "library_key": library_key or "",
        "genes": np.array([] if genes is None else list(genes), dtype=object),
        "n_genes": adata.n_vars, "measured": _sums(values, adata),
    }  # fmt: skip
    unit = float(np.log(log_base(adata)))
    scale = scale_of_counts(
        values * unit, counts, layer=layer_name(layer), counts_layer=layer_name(counts_layer), advice=advice
    )
    order = CellOrder.of(adata.obs_names)
    rows = order.rows
    cell_type, slide = codes[rows], None if slides is None else slides[rows]
    where_cells = np.ascontiguousarray(coordinates[rows])
    basis = spatial_basis(where_cells, LENGTH_SCALES[FINE], slide)
    smooth = basis.evaluate(where_cells, np.zeros(len(rows), dtype=np.int64) if slide is None else slide)
    index = adata.var_names.get_indexer(list(adata.var_names if genes is None else genes))
    mean = np.asarray(counts[:, index].mean(axis=0), dtype=np.float64).ravel()
    with numba_threads(n_jobs):
        for number, group in enumerate(_groups(mean, adata.n_obs)):
            chosen = index[group]
            shared = np.arange(len(group)) if number == 0 else np.zeros(0, dtype=np.int64)
            found = calibrate(values[np.ix_(rows, chosen)], scale[rows], cell_type, len(types), smooth, shared, unit)
            values[:, chosen] = np.maximum(found.expected(np.arange(len(group))), 0)[order.position]
    return Denoised(values, note)


def _groups(mean: Floats, n_cells: int) -> list[Ints]:
    """Genes by their mean count, the most abundant first; only the first group shares factors."""
    size = int(np.clip(_VALUES // max(n_cells, 1), _FEWEST, _MOST))
    ranks = np.argsort(-mean, kind="stable")
    return [np.sort(ranks[start : start + size]) for start in range(0, len(ranks), size)]


def _sums(values: Floats, adata: AnnData) -> pd.DataFrame:
    """Sum of the measured values of each cell, by which they are recognised."""
    return pd.DataFrame({"sum": values.sum(axis=1, dtype=np.float64)}, index=adata.obs_names)


def is_denoised(adata: AnnData, genes: Sequence[str], *, layer: str | None) -> bool:
    """Whether the denoised layer exists and is what would be computed from these values.

    Parameters
    ----------
    adata
        Annotated data.
    genes
        Genes that must have been denoised.
    layer
        The measured values.

    Raises
    ------
    ValueError
        If there is a layer of that name with other values: it is neither used nor replaced.
    """
    key = _keys.DENOISED
    if key not in adata.layers:
        return False
    if reason := _differs(adata, adata.uns.get(key), genes, layer):
        msg = (
            f"Expected adata.layers[{key!r}] to be what `st.pp.denoise` computes from {layer_name(layer)}, where "
            f"perturbations start by default, found {reason}; delete or rename it, or pass `baseline_layer={key!r}` to "
            "start from it as it is."
        )
        raise ValueError(msg)
    return True


def _differs(adata: AnnData, note: Any, genes: Sequence[str], layer: str | None) -> str:
    known = isinstance(note, Mapping) and {"layer", "genes", "n_genes"} <= set(note)
    if not known or not isinstance(note.get("measured"), pd.DataFrame):
        return f"no note of it in adata.uns[{_keys.DENOISED!r}]"
    listed = {str(gene) for gene in np.atleast_1d(note["genes"])}
    if listed and (missing := [gene for gene in genes if gene not in listed]):
        return f"{len(missing)} genes of the model that were not denoised (first: {missing[0]!r})"
    before = note["measured"]["sum"].reindex(adata.obs_names).to_numpy(np.float64)
    if int(note["n_genes"]) != adata.n_vars or np.isnan(before).any():  # genes taken away, or cells renamed
        name = str(note["layer"]) or None
        return "" if name == layer else f"that it comes from {layer_name(name)}"
    now = _sums(get_expression(adata, layer=layer, check=False), adata)["sum"].to_numpy()
    changed = np.abs(now - before) > _SUM_TOLERANCE * np.abs(before).mean()
    return f"that it comes from other values in {int(changed.sum())} cells" if changed.any() else ""
