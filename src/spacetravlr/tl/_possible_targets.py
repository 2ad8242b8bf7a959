"""Which genes can be perturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def possible_targets(adata: AnnData | SpatialData, *, betas_key: str = _keys.BETAS) -> list[str]:
    """List the genes whose change travels: all TFs, ligands and receptors of the fitted model.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`.
    betas_key
        Key of the coefficients.

    Returns
    -------
    Gene names, in the order of ``adata.var_names``.

    Raises
    ------
    KeyError
        When there are no coefficients.
    """
    return GeneFactory(adata, betas_key=betas_key).possible_targets()
