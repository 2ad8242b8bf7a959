"""Which genes can be perturbed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def possible_targets(
    adata: AnnData | SpatialData, *, betas_key: str = _keys.BETAS, table_key: str | None = None
) -> list[str]:
    """List genes whose perturbation can have downstream effects: all TFs, ligands and receptors of the fitted model.

    Parameters
    ----------
    %(adata_fitted)s
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    Gene names, in the order of ``adata.var_names``.

    Raises
    ------
    KeyError
        If there are no coefficients.
    """
    return FittedModel.read(unwrap(adata, table_key), betas_key=betas_key).possible_targets()
