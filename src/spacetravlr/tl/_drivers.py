"""What to perturb, and where, to move a read-out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr.models.perturb._cells import CellsLike, select_cells
from spacetravlr.models.perturb._drivers import find_drivers
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._readout import Readout, ReadoutLike, read_readout
from spacetravlr.models.perturb._simulator import assert_run

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Derivative
    from spacetravlr._types import Bools

logger = logging.getLogger(__name__)


@document
def drivers(
    adata: AnnData | SpatialData,
    readout: ReadoutLike | None = None,
    *,
    of: CellsLike = None,
    weights: str | None = None,
    towards: CellsLike = None,
    cells: CellsLike = None,
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    n_check: int = 10,
    n_pairs: int = 0,
    n_pinned: int = 8,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    baseline_layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
    table_key: str | None = None,
    key_added: str = _keys.DRIVERS,
    copy: bool = False,
) -> AnnData | None:
    r"""Rank what to perturb, and where, to move a read-out.

    The read-out :math:`R` is either a weighted sum of genes, averaged over cells, or the distance of some cells to
    others. One backward pass through the rounds of a perturbation (the adjoint method: :cite:p:`giles2000adjoint`)
    gives its derivative with respect to the change of every gene in every cell, :math:`dR/dD^{in}_{jg}`, at the cost of
    a few perturbations. To first order,

    .. math::

        \mathrm{knockout}_g = - \sum_j x_{jg}\, \frac{dR}{dD^{in}_{jg}}, \qquad
        \mathrm{increase}_g = \mathrm{sd}_g \sum_j \frac{dR}{dD^{in}_{jg}} .

    A gene at zero can only rise, and a gene at its largest value can only fall. Derivatives are therefore taken in the
    direction of the dose: downwards for a knockout, upwards for an increase. They describe the effect of a *small*
    change in that direction. A knockout is not a small change, so its first-order effect is an extrapolation. For
    comparison, the top ``n_check`` genes are also knocked out by full simulation (``checked``). A distance is
    quadratic, so even the sign may differ: a small step may lead towards the other cells and a knockout far beyond
    them. For distances, rely on ``checked``.

    A perturbed gene is held at its dose and does not respond to its own downstream effects. The single pass ignores
    this, so the ``n_pinned`` genes for which it matters most get a pass of their own. Two approximations remain: the
    ``self_return`` of the other genes, and changes that reach a gene at a bound in more than one step, of which half
    is passed on (:doc:`/how-it-works`).

    Parameters
    ----------
    %(adata_fitted)s
    readout
        A gene, a list of genes, or a mapping of genes to weights: ``{"PAX5": 1.0, "PRDM1": -1.0}``.
    of
        Cells over which the read-out is averaged, in any form that ``cells`` accepts; all by default.
    weights
        Column of ``adata.obs`` with the weight of each cell in that average; equal by default.
    towards
        Cells to move closer to, in any form that ``cells`` accepts. The read-out is then the squared distance to the
        mean of these cells, averaged over the cells in ``of`` and over all modelled genes (or those in ``readout``).
        Genes are scaled by their standard deviation over both groups. Negative effects bring the cells closer.
    %(cells)s
    %(n_propagation)s
    %(derivative)s
    n_check
        Number of top genes, ranked by their knockout in all cells, that are also knocked out by full simulation.
    n_pairs
        Number of pairs of these genes, ranked by the sum of their knockouts, for which the double knockout is
        simulated.
    n_pinned
        Number of genes that get a pass of their own. Eight take about twice as long as the shared pass.
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s
    %(table_key)s
    %(key_added)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.uns['drivers']['table']`` : DataFrame, one row per gene with a role and cell type (all cells first)
        ``gene``, ``role``, ``cell_type``, ``n_cells``; ``knockout`` and ``increase``: first-order effects of the doses
        in the cells of that type, in units of the read-out (they add up to the effect in all cells);
        ``rank_knockout`` and ``rank_increase``: rank by absolute effect, with genes of the read-out itself
        (``in_readout``) last; ``self_return``: upper estimate of the fraction of an effect that returns through the
        gene itself and should not count; ``checked``: effect of a simulated knockout (NaN if it was not simulated).
    ``adata.uns['drivers']['pairs']`` : DataFrame
        ``gene``, ``partner``, ``knockout`` (sum of the first-order effects), ``checked`` (simulated double knockout),
        ``additive`` (sum of the simulated single knockouts), ``interaction`` (``checked`` minus ``additive``).
    ``adata.obsm['drivers']`` : array, cells x genes with a role, float32
        Change of the read-out per unit increase of the gene in the cell; zero outside ``cells``.
    ``adata.obsm['drivers_knockout']`` : array, the same shape
        First-order effect of losing the gene in the cell.
    ``adata.uns['drivers']['genes']`` : array
        Column names of these two arrays.
    ``adata.uns['drivers']['agreement']`` : float
        Correlation between ``knockout`` and ``checked`` (NaN for fewer than three genes).
    ``adata.uns['drivers']['readout']``, ``['cells']``, ``['params']``
        Genes and their weights; which cells were perturbed and read out, by name; the options.

    Raises
    ------
    KeyError
        If a gene, cell or column is unknown (the message suggests the closest names), or coefficients or layers are
        missing.
    ValueError
        If there is no read-out, none of its genes has a model, or an option or a weight is out of range.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> st.tl.drivers(adata, "PAX5", of="cell_type == 'B cell'", n_check=3)
    >>> adata.obsm["drivers"].shape == (200, len(adata.uns["drivers"]["genes"]))
    True
    >>> st.get.drivers(adata, cell_type="all", n_top=3)[["gene", "knockout", "checked"]].shape
    (3, 3)
    """
    assert_run(n_propagation, derivative)
    for name, number in (("n_check", n_check), ("n_pairs", n_pairs), ("n_pinned", n_pinned)):
        if not isinstance(number, int | np.integer) or number < 0:
            msg = f"Expected `{name}` to be a whole number of at least 0, found `{number}`."
            raise ValueError(msg)
    table = unwrap(adata, table_key)
    model = FittedModel.read(
        table, betas_key=betas_key, received_key=received_key, n_jobs=n_jobs, adjusted=adjusted
    ).starting_from(baseline_layer)
    mask = select_cells(cells, table.obs)
    what = read_readout(model, readout, of=of, weights=weights, towards=towards)
    found = find_drivers(
        model, what, mask, n_propagation=n_propagation, derivative=derivative, n_pinned=int(n_pinned),
        n_check=int(n_check), n_pairs=int(n_pairs),
    )  # fmt: skip
    checked = found.table.dropna(subset="checked")
    agreement = _correlation(checked["knockout"], checked["checked"])
    logger.info("first-order and simulated knockouts of %d genes correlate at %.2f", len(checked), agreement)
    out = table.copy() if copy else table
    out.obsm[key_added] = found.increase
    out.obsm[_keys.driver_knockouts(key_added)] = found.knockout
    out.uns[key_added] = {
        "table": found.table,
        "pairs": found.pairs,
        "genes": np.array(found.genes, dtype=object),
        "agreement": agreement,
        **_record(what, mask, table.obs_names),
        "params": {
            "label": what.label,
            "kind": "distance" if what.distance else "genes",
            "weights": weights or "",
            "layer": model.layer or "",
            "n_propagation": int(n_propagation),
            "derivative": derivative,
            "adjusted": model.adjusted,
            "betas_key": betas_key,
        },
    }
    return out if copy else None


def _record(readout: Readout, mask: Bools, obs_names: pd.Index) -> dict[str, Any]:
    return {
        "readout": pd.DataFrame({"gene": np.array(readout.genes, dtype=object), "weight": readout.gene_weights}),
        "cells": pd.DataFrame({"perturbed": mask, "read": readout.cells}, index=obs_names),
    }


def _correlation(first_order: pd.Series, real: pd.Series) -> float:
    if len(real) < 3 or not first_order.std() or not real.std():
        return float("nan")
    return float(np.corrcoef(first_order, real)[0, 1])
