"""Coefficients and derivatives of one target."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_key
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def betas(
    adata: AnnData | SpatialData,
    target: str,
    *,
    sd: bool = False,
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
) -> BetaFrame:
    """Take the coefficients of one target.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    sd
        Take the standard deviation of each coefficient at each cell instead, of a fit with ``uncertainty=True``.
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    Cells x regressors, with columns ``beta0``, ``beta_<TF>``, ``beta_<ligand>$<receptor>`` and
    ``beta_<ligand>#<TF>``, and ``beta_<receptor>`` for receptors by themselves, in original units of expression.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``; names the closest modelled genes. When ``sd`` and the fit
        kept no standard deviations.
    """
    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    if sd:
        key = f"{betas_key}_sd"
        assert_key(adata, "obsm", key, name="sd", hint="Call `st.tl.fit_betas(adata, ..., uncertainty=True)` first.")
        model = replace(model, betas=adata.obsm[key])
    return BetaFrame.from_model(model, target)


@document
def derivatives(
    adata: AnnData | SpatialData,
    target: str,
    *,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    layer: str | None = None,
    scale_factor: float = 1.0,
    beta_cap: float | None = None,
    table_key: str | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Compute how much a target changes per unit of each of its modulators, cell by cell.

    The equations are in :doc:`/how-it-works`.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    %(betas_key)s
    %(received_key)s
    layer
        Expression to evaluate at; what the fit used by default.
    %(scale_factor)s
    %(beta_cap)s
    %(table_key)s
    %(n_jobs)s

    Returns
    -------
    Cells x modulator genes. As a ligand, a gene's derivative is per unit of received signal.

    Raises
    ------
    KeyError
        When coefficients, received ligands or ``target`` are missing.
    """
    factory = GeneFactory(
        unwrap(adata, table_key), betas_key=betas_key, received_key=received_key, layer=layer, n_jobs=n_jobs
    )
    return factory.splash_betas(target, scale_factor=scale_factor, beta_cap=beta_cap)
