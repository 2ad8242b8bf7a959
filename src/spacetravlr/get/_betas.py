"""Coefficients and derivatives of one target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


def betas(adata: AnnData | SpatialData, target: str, *, betas_key: str = _keys.BETAS) -> BetaFrame:
    """Take the coefficients of one target.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`.
    target
        A modelled gene.
    betas_key
        Key of the coefficients.

    Returns
    -------
    Cells x regressors, with columns ``beta0``, ``beta_<TF>``, ``beta_<ligand>$<receptor>`` and
    ``beta_<ligand>#<TF>``, in original units of expression.

    Raises
    ------
    KeyError
        When there are no coefficients, or none of ``target``; names the closest modelled genes.
    """
    return BetaFrame.from_model(read_betas(unwrap(adata), betas_key), target)


def derivatives(
    adata: AnnData | SpatialData,
    target: str,
    *,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    layer: str | None = None,
    scale_factor: float = 1.0,
    beta_cap: float | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Compute how much a target changes per unit of each of its modulators, cell by cell (SPEC section 4).

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`.
    target
        A modelled gene.
    betas_key
        Key of the coefficients.
    received_key
        Key of the received ligands; what the fit used by default.
    layer
        Expression to evaluate at; what the fit used by default.
    scale_factor
        Multiplies the parts that come from ligand-receptor and ligand-TF terms.
    beta_cap
        Clips the summed derivatives to ``[-beta_cap, beta_cap]``.
    n_jobs
        Threads; ``None`` is ``st.settings.n_jobs``.

    Returns
    -------
    Cells x modulator genes. As a ligand, a gene's derivative is per unit of received signal.

    Raises
    ------
    KeyError
        When coefficients, received ligands or ``target`` are missing.
    """
    factory = GeneFactory(adata, betas_key=betas_key, received_key=received_key, layer=layer, n_jobs=n_jobs)
    return factory.splash_betas(target, scale_factor=scale_factor, beta_cap=beta_cap)
