"""Screens of simple baselines, which a prediction has to beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from spacetravlr._core.design import term_values
from spacetravlr._core.evaluation.profiles import mean_known
from spacetravlr._core.least_squares import pooled_least_squares
from spacetravlr._utils import numba_threads
from spacetravlr.models.evaluation._names import knocked_out
from spacetravlr.models.evaluation._profiles import perturbed_genes
from spacetravlr.models.perturb._screen import run_screen
from spacetravlr.models.perturb._screen_options import ScreenOptions
from spacetravlr.models.perturb._screen_table import SCREEN, type_layer

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.perturb._model import FittedModel

Baseline = Literal["mean", "expression_match", "least_squares", "no_neighbours"]
#: Baselines for which a screen suffices.
OF_SCREEN: tuple[Baseline, ...] = ("mean", "expression_match")
BASELINES: tuple[Baseline, ...] = get_args(Baseline)

_NOT_OF_RIVALS = re.compile(r"mean_abs_change|fraction_changed|(se|q)(_\d+)?")
_LOADED = 1 << 30  # coefficients above this size are not written out, cell by cell


class _Constant:
    """A field whose signals never change."""

    def apply(self, values: Any, _: Any, /) -> Any:
        return np.zeros_like(values)


def screen_without_neighbours(model: FittedModel, options: ScreenOptions) -> AnnData:
    """The screen with received signals held constant, so that changes stay in their cell."""
    still = _with(model, tissue=replace(model.tissue, field=_Constant()))
    return _named(run_screen(still, None, options), "no_neighbours")


def screen_of_least_squares(model: FittedModel, options: ScreenOptions) -> AnnData:
    """The screen with the coefficients of pooled least squares on the regressors of the fit."""
    row = least_squares_row(model)
    shape = (model.adata.n_obs, len(row))
    betas: Any = np.broadcast_to(row, shape)
    if betas.size * row.itemsize > _LOADED:
        import dask.array as da

        betas = da.broadcast_to(da.from_array(row, chunks=max(1, _LOADED // (16 * shape[0]))), shape)
    return _named(run_screen(_with(model, betas=betas), None, options), "least_squares")


def least_squares_row(model: FittedModel) -> Floats:
    """Coefficients of pooled least squares in the order of the columns of the fit, the same in every cell, float32.

    They are fitted to the values that the fit used, wherever perturbations start.
    Intercepts, one for each type, are not among them: they are zero here, since no change passes through them.
    """
    tissue, design = model.measured.tissue, model.design
    codes, _ = model.cell_types()
    codes = codes + 1 if (codes < 0).any() else codes  # cells without a type are one of their own
    row = np.zeros(design.targets.n_columns, dtype=np.float32)
    for t, gene in enumerate(design.targets.gene):
        terms = design.terms.take(design.targets.terms_of(t))
        columns = design.targets.columns_of(t)
        with numba_threads(model.n_jobs) as n_threads, threadpool_limits(n_threads):
            values = term_values(tissue.expression, tissue.received, terms)
            row[columns.start + 1 : columns.stop] = pooled_least_squares(values, tissue.expression[:, gene], codes)
    return row


def mean_screen(screen: AnnData) -> AnnData:
    """The mean change over all perturbations, predicted for each of them; what was set by hand stays."""
    own = _own(screen)

    def change(values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            mean = np.nan_to_num(mean_known(np.where(own, np.nan, values)))[None]
        return np.where(own, values, mean)

    return _named(_map(screen, change), "mean")


def matched_screen(screen: AnnData) -> AnnData:
    """For each perturbation the changes of another gene with the closest mean expression.

    At the gene that the other perturbation set by hand, the mean over all perturbations.
    """
    own = _own(screen)
    match = closest_expression(screen, 1)[:, 0]

    def change(values: Floats) -> Floats:
        hidden = np.where(own, np.nan, values)
        borrowed = hidden[match]
        return np.where(own, values, np.where(np.isnan(borrowed), np.nan_to_num(mean_known(hidden))[None], borrowed))

    out = _named(_map(screen, change), "expression_match")
    out.obs["match"] = screen.obs_names[match].astype(str)
    return out


def closest_expression(screen: AnnData, n: int) -> Ints:
    """Positions of the ``n`` other perturbations whose genes have the closest mean expression, the closest first.

    Raises
    ------
    ValueError
        If there is no other perturbation, or mean expressions are not known.
    """
    if "baseline" not in screen.obs or screen.n_obs < 2:
        msg = (
            "Expected a screen of at least two perturbations with the column 'baseline' in obs, found "
            f"{screen.n_obs} and {', '.join(map(str, screen.obs.columns)) or 'no column'}; call `st.tl.genome_screen`."
        )
        raise ValueError(msg)
    level = screen.obs["baseline"].to_numpy(float)
    distance = np.abs(level[:, None] - level)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1, kind="stable")[:, : min(n, screen.n_obs - 1)]


def _own(screen: AnnData) -> Bools:
    """Where a perturbation set a gene by hand."""
    own = np.zeros(screen.shape, dtype=bool)
    for p, name in enumerate(screen.obs_names):
        own[p, screen.var_names.get_indexer(perturbed_genes(str(name), screen.var_names))] = True
    return own


def _map(screen: AnnData, change: Any) -> AnnData:
    """A screen whose changes, overall and by type, are functions of those of another."""
    out = screen.copy()
    out.X = change(np.asarray(screen.X, dtype=np.float64)).astype(np.float32)
    types = np.atleast_1d(screen.uns.get(SCREEN, {}).get("cell_types", []))
    for i in range(len(types)):
        layer = np.asarray(screen.layers[type_layer(i)], dtype=np.float64)
        out.layers[type_layer(i)] = change(layer).astype(np.float32)
    # of cells, and errors of the fit: a borrowed mean says nothing of either
    for name in [n for n in out.layers if n is not None and _NOT_OF_RIVALS.fullmatch(n)]:
        del out.layers[name]
    out.obs = out.obs.drop(columns=["effect", "n_genes_changed"], errors="ignore")
    return out


def _named(screen: AnnData, name: Baseline) -> AnnData:
    screen.uns[SCREEN] = {**screen.uns.get(SCREEN, {}), "baseline": name}
    return screen


def _with(model: FittedModel, *, tissue: Any = None, betas: Any = None) -> FittedModel:
    """The model with another tissue or other coefficients; what was read and checked already is kept."""
    fit = model.fit if betas is None else replace(model.fit, betas=betas)
    out = replace(model, fit=fit)
    kept = {"denoised": model.denoised, "expression": model.expression}
    out.__dict__.update(kept, tissue=model.tissue if tissue is None else tissue)
    return out


def run_options(screen: AnnData | None, **options: Any) -> ScreenOptions:
    """Options of a run: those of a screen where there is one, else those given."""
    if screen is None:
        return ScreenOptions(**options)
    stored = screen.uns[SCREEN]
    return ScreenOptions(
        **{
            **options,
            "mode": str(stored["mode"]),
            "n_propagation": int(stored["n_propagation"]),
            "derivative": str(stored["derivative"]),
            "genes": [_gene(str(name)) for name in screen.obs_names],
        }
    )


def _gene(name: str) -> str:
    """Gene of a screen's row, which may be called by the label of its knockout."""
    genes = knocked_out(name, bare=False)
    return next(iter(genes)) if len(genes) == 1 else name


def wanted_kinds(kinds: Sequence[str] | str | None, possible: Sequence[Baseline]) -> list[str]:
    """The baselines asked for, all possible ones by default."""
    return list(possible) if kinds is None else [kinds] if isinstance(kinds, str) else list(kinds)
