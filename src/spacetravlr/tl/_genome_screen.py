"""Perturb every gene with a role in the model, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr.models.perturb._cells import CellsLike
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._screen import run_screen
from spacetravlr.models.perturb._screen_options import ScreenMode, ScreenOptions

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Derivative


@document
def genome_screen(
    adata: AnnData | SpatialData,
    *,
    mode: ScreenMode = "knockout",
    save_to: str | PathLike[str] | None = None,
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    genes: Sequence[str] | None = None,
    cells: CellsLike = None,
    batch_size: int | None = None,
    save_cells: bool = False,
    n_samples: int = 0,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    baseline_layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
    client: Any = None,
    show_progress_bar: bool | None = None,
    table_key: str | None = None,
) -> AnnData:
    """Perturb many genes, one at a time, and summarise what each perturbation does to the tissue.

    With ``save_to``, one file per perturbation is written as soon as it is done. A later call resumes from these files;
    a folder with results of another model is refused. ``adata`` is not changed.

    Parameters
    ----------
    %(adata_fitted)s
    %(screen_mode)s
    save_to
        Folder of the results; ``None`` keeps them in memory only.
    %(n_propagation)s
    %(derivative)s
    genes
        Genes to perturb; by default all of :func:`spacetravlr.tl.possible_targets`.
    %(cells)s
    batch_size
        Number of perturbations computed together; by default at most 32, in at most 5 GB or a fifth of the memory.
        Results do not depend on it.
    save_cells
        Also write the change at every cell (``change``, cells x genes). The files are large.
    n_samples
        Number of posterior draws of the coefficients with which every perturbation is repeated, for standard errors; a
        screen with ten draws takes about ten times as long. By default none. Not available with ``client``.
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s
    %(client)s
    %(show_progress_bar)s
    %(table_key)s

    Returns
    -------
    Annotated data, perturbations x modelled (and perturbed) genes:

    ``X``, ``layers['mean_abs_change']``, ``layers['fraction_changed']``
        Mean change over all cells, mean absolute change, and fraction of cells whose change exceeds 1 % of the gene's
        largest expression.
    ``layers['change_<i>']``
        Mean change over the cells of type ``uns['screen']['cell_types'][i]``; :func:`spacetravlr.get.screen` extracts
        one type by name.
    ``layers['se']``, ``layers['q']``, ``layers['se_<i>']``, ``layers['q_<i>']``
        With ``n_samples``: standard error of the mean change, and q-values over all perturbations and genes, for all
        cells and for each type; see :func:`spacetravlr.get.perturbation_effect`.
    ``obs``
        Roles of the perturbed gene (``is_tf``, ``is_ligand``, ``is_receptor``, ``role``), its ``baseline``,
        ``n_cells`` (selected), ``n_cells_perturbed``, ``effect`` (mean absolute change over modelled genes) and
        ``n_genes_changed``.
    ``var``
        ``baseline``, ``sd``, ``r2`` (held-out, of the gene's model) and ``modelled``; values by cell type are in
        ``varm``.

    Raises
    ------
    KeyError
        If a gene is not in the tissue, or coefficients or layers are missing.
    ValueError
        If ``save_to`` holds results of another model or of other settings.
    """
    options = ScreenOptions(
        mode=mode, n_propagation=n_propagation, derivative=derivative, genes=genes, cells=cells, batch_size=batch_size,
        save_cells=save_cells, n_samples=n_samples, client=client, show_progress_bar=show_progress_bar,
    )  # fmt: skip
    model = FittedModel.read(
        unwrap(adata, table_key), betas_key=betas_key, received_key=received_key, n_jobs=n_jobs, adjusted=adjusted
    ).starting_from(baseline_layer)
    return run_screen(model, save_to, options)
