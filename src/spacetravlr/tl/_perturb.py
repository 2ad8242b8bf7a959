"""Simulate one perturbation and write it into the AnnData."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._clusters import aggregate_name
from spacetravlr._anndata._perturbed import note_cells
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr.models.perturb._cells import CellsLike
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Derivative
    from spacetravlr.models.perturb._spec import Perturbation, PerturbationLike

logger = logging.getLogger(__name__)


@document
def perturb(
    adata: AnnData | SpatialData,
    perturbation: PerturbationLike | None = None,
    *,
    fold: Mapping[str, float] | None = None,
    cells: CellsLike = None,
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    baseline_layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
    n_samples: int = 0,
    key_added: str = _keys.PERTURBED,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Simulate how a change of some genes in some cells propagates through the tissue.

    Each of the ``n_propagation`` rounds recomputes the received ligands and sums, for every modelled gene, the changes
    of its regressors:

    .. math::

        D'_{jg} = \sum_{m} b_{jgm} \left( L_{t-1}\, \Delta x + x_{t-1}\, \Delta L \right)_{jm}

    A gene with several roles acts in each of them: as a TF or receptor through the change of the cell's own expression,
    as a ligand through the change of what each cell receives. A receptor acts only through the ligands that the cell
    receives, not by itself.

    Parameters
    ----------
    %(adata_fitted)s
    perturbation
        A gene to knock out, a list of genes, or a mapping of genes to values: ``{"FOXO1": 0}``, ``{"FOXO1": "max"}``
        (its largest expression in the tissue), ``{"FOXO1": 0, "PAX5": 2.0}``.
    fold
        Mapping of genes to factors by which each cell's own expression is multiplied: ``{"FOXO1": 0.5}``.
    %(cells)s
    %(n_propagation)s
    %(derivative)s
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s
    %(n_samples)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.layers['perturbed']`` : array or CSR matrix (float32), like the layer it started from
        Simulated expression.
    ``adata.layers['denoised']``, ``adata.uns['denoised']``
        If the fit used counts, no ``baseline_layer`` is given and they are missing: what
        :func:`spacetravlr.pp.denoise` writes, and what the perturbation started from.
    ``adata.uns['perturbed']`` : dict
        ``genes``, ``values`` (NaN for genes given in ``fold``), ``folds`` (NaN for genes given by value), ``label``,
        ``cells`` (table by cell name with the column ``perturbed``), ``layer`` (that it started from, "" for ``X``),
        ``n_propagation``, ``derivative``, ``adjusted`` and ``betas_key``. With ``n_samples`` also ``samples``:
        ``mean_change``, the mean change in each draw (draws x groups x genes), ``genes`` and ``groups`` (all cells,
        then the cell types of the fit).
    ``adata.layers['perturbed_se']`` : array (float32)
        With ``n_samples``: standard error of the simulated expression; zero for genes that cannot change.

    The effect is the difference to the layer that the perturbation started from:
    :func:`spacetravlr.get.perturbation_effect` and :func:`spacetravlr.get.ranked_effects` tabulate effects and errors.

    Standard errors cover the uncertainty of the coefficients in every round. The expression that a perturbation starts
    from is treated as exact. The change of a target without a model is zero, with the error of the model that was not
    kept.

    Raises
    ------
    KeyError
        If a gene or cell is unknown (the message suggests the closest names), or coefficients or layers are missing.
    ValueError
        If a value is negative or not finite, or no gene or no cell is given; if ``key_added`` is the layer to start
        from; or if there is a denoised layer of other values, which is neither used nor replaced.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> st.tl.perturb(adata, "FOXO1")
    >>> float(adata[:, "FOXO1"].layers["perturbed"].max())
    0.0
    >>> st.tl.perturb(adata, {"FOXO1": "max"}, cells="cell_type == 'B cell'", key_added="more")
    >>> adata.uns["more"]["label"]
    'FOXO1=max'
    """
    factory = GeneFactory(
        unwrap(adata, table_key),
        betas_key=betas_key,
        received_key=received_key,
        baseline_layer=baseline_layer,
        n_jobs=n_jobs,
        adjusted=adjusted,
    )
    if key_added == (layer := factory.model.layer):
        msg = (
            f"Expected `key_added` to differ from the layer that the perturbation starts from, found {key_added!r}: "
            "the effect is the difference of the two."
        )
        raise ValueError(msg)
    result = factory.perturb(
        perturbation, fold=fold, cells=cells, n_propagation=n_propagation, derivative=derivative, n_samples=n_samples
    )
    table = factory.adata
    out = table.copy() if copy else table
    if factory.model.denoised is not None:
        factory.model.denoised.write(out)
        logger.info("kept as adata.layers[%r]: compare adata.layers[%r] with it", layer, key_added)
    before = out.X if layer is None else out.layers[layer]
    after = result.simulated
    out.layers[key_added] = sparse.csr_matrix(after) if sparse.issparse(before) else after
    out.uns[key_added] = _record(factory, result)
    error_key = _keys.perturbed_se(key_added)
    if result.error is not None:
        error = np.zeros(after.shape, dtype=np.float32)
        error[:, result.gene_index] = result.error
        out.layers[error_key] = error
    elif error_key in out.layers:  # of the perturbation that this one replaces
        del out.layers[error_key]
    return out if copy else None


def _record(factory: GeneFactory, result: Perturbation) -> dict[str, Any]:
    wanted = result.wanted
    maximum = factory.tissue.maximum
    index = factory.adata.var_names
    samples = {}
    if result.samples is not None:
        groups = [aggregate_name(names := factory.model.cell_types()[1]), *names]
        samples = {
            "samples": {
                "mean_change": result.samples,
                "genes": np.array(index[result.gene_index], dtype=object),
                "groups": np.array(groups, dtype=object),
            }
        }
    values = [maximum[index.get_loc(g)] if v == "max" else v for g, v in wanted.values.items()]
    return {
        "genes": np.array(wanted.genes, dtype=object),
        "values": np.array([*values, *[np.nan] * len(wanted.fold)], dtype=np.float64),
        "folds": np.array([*[np.nan] * len(wanted.values), *wanted.fold.values()], dtype=np.float64),
        "label": wanted.label,
        "cells": note_cells(result.cells, result.obs_names),
        "layer": factory.model.layer or "",
        "n_propagation": result.n_propagation,
        "derivative": result.derivative,
        "adjusted": factory.model.adjusted,
        "betas_key": factory.model.betas_key,
        **samples,
    }
