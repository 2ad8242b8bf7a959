"""Several perturbations at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
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
    baseline_layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
    table_key: str | None = None,
) -> list[Perturbation]:
    """Simulate several perturbations together, reading the coefficients only once.

    ``adata`` is not changed. For many perturbations of a large tissue use :func:`spacetravlr.tl.genome_screen`, which
    keeps only summaries.

    Parameters
    ----------
    %(adata_fitted)s
    perturbations
        List of perturbations as :func:`spacetravlr.tl.perturb` takes them, such as ``["FOXO1", {"PAX5": "max"}]``.
    %(cells)s
    %(n_propagation)s
    %(derivative)s
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s
    %(table_key)s

    Returns
    -------
    One result per perturbation, in the given order, identical to a separate run. Each has ``.simulated`` (cells x
    genes), ``.change`` (cells x genes that can change) and ``.to_frame()``.

    Raises
    ------
    KeyError
        If a gene or cell is unknown (the message suggests the closest names), or coefficients or layers are missing.
    ValueError
        If a value is negative or not finite, or no gene or no cell is given.
    """
    factory = GeneFactory(
        unwrap(adata, table_key),
        betas_key=betas_key,
        received_key=received_key,
        baseline_layer=baseline_layer,
        n_jobs=n_jobs,
        adjusted=adjusted,
    )
    return factory.perturb_batch(perturbations, cells=cells, n_propagation=n_propagation, derivative=derivative)
