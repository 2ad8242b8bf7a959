"""Baseline predictions of perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_one_of
from spacetravlr.models.evaluation._baselines import (
    BASELINES,
    OF_SCREEN,
    Baseline,
    matched_screen,
    mean_screen,
    run_options,
    screen_of_least_squares,
    screen_without_neighbours,
    wanted_kinds,
)
from spacetravlr.models.perturb._cells import CellsLike
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._screen import run_screen
from spacetravlr.models.perturb._screen_options import ScreenMode
from spacetravlr.models.perturb._screen_table import SCREEN

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Derivative


@document
def baselines(
    adata: AnnData | SpatialData,
    *,
    kinds: Sequence[Baseline] | Baseline | None = None,
    screen: AnnData | None = None,
    genes: Sequence[str] | None = None,
    mode: ScreenMode = "knockout",
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    cells: CellsLike = None,
    betas_key: str = _keys.BETAS,
    received_key: str | None = None,
    baseline_layer: str | None = None,
    n_jobs: int | None = None,
    adjusted: bool = False,
    table_key: str | None = None,
) -> dict[str, AnnData]:
    """Predict perturbations with simple baselines, for comparison with the fit.

    ``"mean"``
        The mean change over all perturbations of the screen, the same for each perturbation.
    ``"expression_match"``
        For each gene, the changes caused by the other gene in the screen with the closest mean expression.
    ``"least_squares"``
        Pooled least squares on the regressors and measured values of the fit, with one coefficient per regressor and
        one intercept per cell type. Changes propagate as in any screen.
    ``"no_neighbours"``
        The fit with received signals held constant: effects of the cell's own transcription factors and receptors only.

    If a screen agrees with an experiment no better than these baselines, the fit has not been shown to add anything
    :cite:p:`ahlmanneltze2025,vinastorne2025systema`.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`, or SpatialData; or the result of
        :func:`spacetravlr.tl.genome_screen`, which suffices for ``"mean"`` and ``"expression_match"``.
    kinds
        Baselines to compute; by default all that ``adata`` suffices for.
    screen
        Screen of the fit, whose genes and options are then used; its knockouts may be named ``"FOXO1"`` or
        ``"FOXO1=0"``. If not given, it is computed when needed.
    genes
        Genes to perturb; by default all of :func:`spacetravlr.tl.possible_targets`.
    %(screen_mode)s
    %(n_propagation)s
    %(derivative)s
    %(cells)s
    %(betas_key)s
    %(received_key)s
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s
    %(table_key)s

    Returns
    -------
    Dictionary from the name of each baseline to annotated data like a screen, perturbations x genes. ``"mean"`` and
    ``"expression_match"`` contain mean changes only; the latter names the matched gene in ``obs['match']``. In all of
    them, the perturbed gene has the requested change.

    Raises
    ------
    KeyError
        If coefficients or genes are missing.
    ValueError
        If one of ``kinds`` is unknown or needs more than a screen, or the screen has fewer than two perturbations.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=2, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> baselines = st.get.baselines(adata, genes=["FOXO1", "STAT3"])
    >>> list(baselines)
    ['mean', 'expression_match', 'least_squares', 'no_neighbours']
    >>> baselines["expression_match"].obs["match"].tolist()
    ['STAT3', 'FOXO1']
    """
    table = unwrap(adata, table_key)
    is_screen = SCREEN in table.uns
    wanted = wanted_kinds(kinds, OF_SCREEN if is_screen else BASELINES)
    for kind in wanted:
        assert_one_of(kind, BASELINES, name="kinds")
        if is_screen and kind not in OF_SCREEN:
            msg = f"Expected `adata` to be the fitted tissue for the baseline {kind!r}, found a screen."
            raise ValueError(msg)
    if screen is not None and SCREEN not in screen.uns:
        msg = "Expected `screen` to be a result of `st.tl.genome_screen`, found annotated data without uns['screen']."
        raise ValueError(msg)
    known = table if is_screen else screen
    out: dict[str, AnnData] = {}
    model = None
    if not is_screen:
        options = run_options(
            known, mode=mode, n_propagation=n_propagation, derivative=derivative, genes=genes, cells=cells,
            show_progress_bar=False,
        )  # fmt: skip
        adjusted = adjusted if known is None else bool(known.uns[SCREEN].get("adjusted", False))
        model = FittedModel.read(
            table, betas_key=betas_key, received_key=received_key, n_jobs=n_jobs, adjusted=adjusted
        ).starting_from(baseline_layer)
        options.check(model.genes)
    for kind in wanted:
        if kind in OF_SCREEN:
            if known is None:
                assert model is not None
                known = run_screen(model, None, options)
            out[kind] = mean_screen(known) if kind == "mean" else matched_screen(known)
        else:
            assert model is not None
            out[kind] = (screen_of_least_squares if kind == "least_squares" else screen_without_neighbours)(
                model, options
            )
    return out
