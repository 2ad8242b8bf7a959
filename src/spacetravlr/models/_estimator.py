"""The model of one target, as an object like that of the published method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._anndata._spatial import unwrap
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models.fit._options import FitOptions
from spacetravlr.models.fit._run import Fit, run_fit

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


class SpatialCellularProgramsEstimator:
    """Spatially varying regression of one gene on its modulators (:doc:`/how-it-works`, section 3).

    Nothing is written to ``adata``. :func:`spacetravlr.tl.fit_betas` fits many genes and writes the results.

    Parameters
    ----------
    adata
        Annotated data with received ligands and modulators (:func:`spacetravlr.pp.received_ligands`,
        :func:`spacetravlr.pp.modulators`), or SpatialData.
    target_gene
        Gene to model.
    options
        Options of :func:`spacetravlr.tl.fit_betas`, such as ``body=``, ``layer=`` or ``rng=``.

    Attributes
    ----------
    betas_
        Coefficients at each cell, :class:`~spacetravlr.BetaFrame` (cells x regressors).
    scores_
        One row per cell type: held-out and training R2 of each body, and which body was kept.
    terms_
        One row per regressor, with ``importance``, ``evidence`` and ``active``.
    training_
        Learning curves of the network; empty if there is none.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, n_targets=2, rng=0)
    >>> grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> model = st.SpatialCellularProgramsEstimator(adata, "PAX5", body="surface", show_progress_bar=False).fit()
    >>> model.get_betas().shape[0]
    300
    """

    betas_: BetaFrame
    scores_: pd.DataFrame
    terms_: pd.DataFrame
    training_: pd.DataFrame

    def __init__(self, adata: AnnData, target_gene: str, **options: Any) -> None:
        self.adata = adata
        self.target_gene = target_gene
        self.options = options

    def fit(self) -> SpatialCellularProgramsEstimator:
        """Fit the model and return it.

        Raises
        ------
        KeyError, ValueError
            As :func:`spacetravlr.tl.fit_betas`.
        """
        adata = unwrap(self.adata)
        fit: Fit = run_fit(adata, self.target_gene, FitOptions.of(**self.options))
        values = np.asarray(fit.result.betas, dtype=np.float32)
        self.betas_ = BetaFrame.from_array(
            values, target=self.target_gene, terms=fit.result.terms, obs_names=adata.obs_names
        )
        self.scores_ = fit.result.scores
        self.terms_ = fit.result.terms
        self.training_ = fit.result.training
        return self

    def get_betas(self) -> BetaFrame:
        """Coefficients: cells x ``beta0``, ``beta_<TF>``, ``beta_<ligand>$<receptor>``, ``beta_<ligand>#<TF>``.

        Raises
        ------
        AttributeError
            If the model has not been fitted.
        """
        if not hasattr(self, "betas_"):
            msg = "Expected a fitted model, found none; call `.fit()` first."
            raise AttributeError(msg)
        return self.betas_
