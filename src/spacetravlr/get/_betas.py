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
    """Return the coefficients of one target.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    sd
        Return the standard deviation of each coefficient at each cell instead; needs a fit with ``uncertainty=True``.
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    Cells x regressors, in original units of expression. Columns are ``beta0``, ``beta_<TF>``,
    ``beta_<ligand>$<receptor>``, ``beta_<ligand>#<TF>`` and, for main effects, ``beta_<receptor>`` and
    ``beta_<ligand>``.

    Raises
    ------
    KeyError
        If there are no coefficients, or none for ``target`` (the message suggests the closest modelled genes), or if
        ``sd=True`` and the fit kept no standard deviations.
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
    baseline_layer: str | None = None,
    scale_factor: float = 1.0,
    beta_cap: float | None = None,
    table_key: str | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Compute the derivative of a target with respect to each of its modulators, cell by cell.

    They are taken where perturbations start. The equations are in :doc:`/how-it-works`.

    Parameters
    ----------
    %(adata_fitted)s
    %(target_one)s
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(scale_factor)s
    %(beta_cap)s
    %(table_key)s
    %(n_jobs)s

    Returns
    -------
    Cells x modulator genes. The derivative with respect to a ligand is per unit of received signal.

    Raises
    ------
    KeyError
        If coefficients, received ligands or ``target`` are missing.
    """
    factory = GeneFactory(
        unwrap(adata, table_key),
        betas_key=betas_key,
        received_key=received_key,
        baseline_layer=baseline_layer,
        n_jobs=n_jobs,
    )
    return factory.splash_betas(target, scale_factor=scale_factor, beta_cap=beta_cap)
