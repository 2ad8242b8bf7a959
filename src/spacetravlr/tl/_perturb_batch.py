"""Several perturbations at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._docs import document
from spacetravlr.models.perturb._cells import CellsLike
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Derivative
    from spacetravlr.models.perturb._spec import Perturbation, PerturbationLike


@document
def perturb_batch(
    adata: AnnData | SpatialData,
    perturbations: Sequence[PerturbationLike],
    *,
    cells: CellsLike = None,
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
) -> list[Perturbation]:
    """Do several perturbations at once; the coefficients are read once for all of them.

    ``adata`` is not changed. For many perturbations of a large tissue call :func:`spacetravlr.tl.genome_screen`, which
    keeps summaries.

    Parameters
    ----------
    %(adata_fitted)s
    perturbations
        What :func:`spacetravlr.tl.perturb` takes, one after the other, such as ``["FOXO1", {"PAX5": "max"}]``.
    %(cells)s
    %(n_propagation)s
    %(derivative)s
    %(betas_key)s
    %(received_key)s
    %(layer_start)s
    %(n_jobs)s
    %(adjusted)s

    Returns
    -------
    One result per perturbation, in that order, each the same as alone: ``.simulated`` (cells x genes), ``.change``
    (cells x the genes that can change), ``.to_frame()``.

    Raises
    ------
    KeyError
        For unknown genes or cells, with the closest names, and for missing coefficients or layers.
    ValueError
        For negative or non-finite values, no gene, or no cell.
    """
    factory = GeneFactory(
        adata, betas_key=betas_key, received_key=received_key, layer=layer, n_jobs=n_jobs, adjusted=adjusted
    )
    return factory.perturb_batch(perturbations, cells=cells, n_propagation=n_propagation, derivative=derivative)
