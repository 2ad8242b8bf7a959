"""Effects of a perturbation, or of a screen, on the expression of the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._clusters import aggregate_name, cell_groups, cluster_key_of
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._utils import warn
from spacetravlr._validators import assert_genes, assert_key, assert_one_of
from spacetravlr.models._held_out import held_out_r2
from spacetravlr.models.perturb._sample_errors import ERRORS, SampleErrors
from spacetravlr.models.perturb._screen import CHANGED
from spacetravlr.models.perturb._screen_table import ROLES, SCREEN, type_layer

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats

_HINT = 'Call `st.tl.perturb(adata, "FOXO1")` first.'
_AUTO = "auto"


@document
def perturbation_effect(
    adata: AnnData | SpatialData,
    *,
    groupby: str | None = _AUTO,
    perturbed_key: str = _keys.PERTURBED,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Tabulate the expression changes that a perturbation causes, by cell type.

    Parameters
    ----------
    %(adata_perturbed)s
    groupby
        Column of ``adata.obs`` with groups of cells; ``"auto"`` uses the cell types of the fit, ``None`` only all cells
        together.
    %(perturbed_key)s
    %(table_key)s

    Returns
    -------
    One row per gene and group, for each gene that changed anywhere. The first group is all cells together, called
    ``"all"`` unless a group already has that name. Columns: ``gene``, ``group`` (a cell type by default, any other
    label with ``groupby``), ``n_cells``, ``baseline``, ``simulated``, ``change`` (means over the cells of the group),
    ``mean_abs_change``, ``fraction_changed`` (fraction of cells whose change exceeds 1 % of the gene's largest
    expression), ``sd`` (of the baseline) and ``perturbed`` (whether the gene itself was perturbed). After
    ``st.tl.perturb(..., n_samples=)`` also, for all cells and the cell types of the fit (NaN in other groups): ``se``,
    the standard error of ``change``; ``p`` and ``q`` for the hypothesis of no change (q-values over the genes of the
    group); and ``same_sign``, the fraction of draws with the same sign.

    Raises
    ------
    KeyError
        If the perturbation or ``groupby`` is missing.
    """
    adata = unwrap(adata, table_key)
    before, after, stored = _states(adata, perturbed_key)
    if groupby == _AUTO:
        groupby = cluster_key_of(adata, betas_key=str(stored.get("betas_key", _keys.BETAS)))
    if groupby is not None:
        assert_key(adata, "obs", groupby, name="groupby")
    change = after - before
    genes = np.flatnonzero(change.any(axis=0))
    errors = SampleErrors.read(stored, adata.var_names[genes])
    by_hand = {str(g) for g in np.atleast_1d(stored["genes"])}
    size = np.abs(change[:, genes])
    large = size > CHANGED * before[:, genes].max(axis=0)
    parts = []
    for name, mask in cell_groups(adata, groupby):
        base = before[np.ix_(mask, genes)]
        mean = change[np.ix_(mask, genes)].mean(axis=0, dtype=np.float64)
        set_by_hand = adata.var_names[genes].isin(by_hand)
        parts.append(
            pd.DataFrame(
                {
                    "gene": adata.var_names[genes].astype(str),
                    "group": name,
                    "n_cells": int(mask.sum()),
                    "baseline": base.mean(axis=0, dtype=np.float64),
                    "simulated": after[np.ix_(mask, genes)].mean(axis=0, dtype=np.float64),
                    "change": mean,
                    "mean_abs_change": size[mask].mean(axis=0, dtype=np.float64),
                    "fraction_changed": large[mask].mean(axis=0),
                    "sd": base.std(axis=0, dtype=np.float64),
                    "perturbed": set_by_hand,
                    **({} if errors is None else errors.of(name, mean, tested=~set_by_hand)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@document
def ranked_effects(
    adata: AnnData | SpatialData,
    *,
    perturbation: str | None = None,
    cell_type: str | None = None,
    n_top: int | None = None,
    min_r2: float | None = None,
    perturbed_key: str = _keys.PERTURBED,
    betas_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Rank genes by their change, taking the held-out accuracy of their models into account.

    A simulated change is only as good as the model of the gene, so it is weighted by the held-out R2 of that model:

    .. math::

        \mathrm{effect} = \frac{\text{change}}{\text{sd of the gene}}, \qquad
        \mathrm{support} = |\mathrm{effect}| \cdot \max(R^2_{\text{held out}}, 0)

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.perturb`, or the result of :func:`spacetravlr.tl.genome_screen`.
    perturbation
        Perturbation of a screen to rank; all by default.
    cell_type
        Cell type to rank; all cells by default.
    n_top
        Number of rows; all by default.
    min_r2
        Leave out genes whose model has a lower held-out R2.
    perturbed_key
        Key of the perturbation, if ``adata`` holds one.
    betas_key
        Key of the coefficients; by default those from which the perturbation was computed.
    %(table_key)s

    Returns
    -------
    ``perturbation``, ``gene``, ``cell_type``, ``change``, ``baseline``, ``sd``, ``effect``, ``r2``, ``support``, in
    descending order of ``support``. With standard errors (``n_samples=``), also ``se``, ``p``, ``q`` and ``same_sign``
    as described in :func:`perturbation_effect` (for a screen only ``se`` and ``q``), and rows are ordered by ``p`` or
    ``q``. Perturbed genes and genes that did not change are left out. In the column ``cell_type``, ``"all"`` stands for
    all cells together, unless a type has that name.

    A high R2 does not show that the regulators are right; see the section on limits in :doc:`/how-it-works`.

    Raises
    ------
    KeyError
        If there is no perturbation, or the screen does not contain it.
    ValueError
        If ``cell_type`` does not exist.
    """
    adata = unwrap(adata, table_key)
    cell_type = None if cell_type is None else str(cell_type)
    if SCREEN in adata.uns:
        tidy = _screen_effects(adata, perturbation, cell_type)
    else:
        tidy = _perturbation_effects(adata, perturbation, cell_type, perturbed_key, betas_key)
    tidy["effect"] = np.divide(tidy["change"], tidy["sd"], out=np.zeros(len(tidy)), where=tidy["sd"].to_numpy() > 0)
    tidy["support"] = tidy["effect"].abs() * tidy["r2"].clip(lower=0).fillna(0)
    if min_r2 is not None:
        tidy = tidy[tidy["r2"] >= min_r2]
    tidy = tidy.assign(_size=tidy["effect"].abs()).sort_values(["support", "_size"], ascending=False, kind="stable")
    if order := next((name for name in ("p", "q") if name in tidy), None):
        tidy = tidy.sort_values(order, kind="stable")
    columns = ["perturbation", "gene", "cell_type", "change", "baseline", "sd", "effect", "r2", "support"]
    columns += [name for name in ERRORS if name in tidy]
    return tidy[columns].head(len(tidy) if n_top is None else n_top).reset_index(drop=True)


@document
def screen(adata: AnnData | SpatialData, *, cell_type: str, table_key: str | None = None) -> AnnData:
    """Extract one cell type from a screen.

    Parameters
    ----------
    %(adata_screen)s
    cell_type
        A cell type of the screened tissue.
    %(table_key)s

    Returns
    -------
    Annotated data, perturbations x genes. ``X`` is the mean change over the cells of the type, and ``var`` has the
    baseline, standard deviation and held-out R2 in that type. If the screen has standard errors, ``se`` and ``q`` are
    layers.

    Raises
    ------
    KeyError
        If ``adata`` is not a screen.
    ValueError
        If ``cell_type`` does not exist.
    """
    from anndata import AnnData

    adata, cell_type = unwrap(adata, table_key), str(cell_type)
    assert_key(adata, "uns", SCREEN, name="adata", hint="Call `st.tl.genome_screen(adata)` and pass its result.")
    i = _type_index(adata, cell_type)
    var = adata.var.assign(**{c: np.asarray(adata.varm[c])[:, i] for c in ("baseline", "sd", "r2")})
    kept = {k: v for k, v in adata.uns[SCREEN].items() if k not in {"cell_types", "n_cells"}}
    kept["cell_type"], kept["n_cells"] = cell_type, int(np.asarray(adata.uns[SCREEN]["n_cells"])[i])
    # the name of the result is not "screen", so that a part is never taken for the whole
    layers = {name: np.array(adata.layers[f"{name}_{i}"]) for name in ("se", "q") if f"{name}_{i}" in adata.layers}
    return AnnData(
        np.array(adata.layers[type_layer(i)]),
        obs=adata.obs[[*(f"is_{role}" for role in ROLES), "role"]].copy(),
        var=var,
        layers=layers,
        uns={f"{SCREEN}_of_type": kept},
    )


def _screen_effects(adata: AnnData, perturbation: str | None, cell_type: str | None) -> pd.DataFrame:
    rows = adata.obs_names
    if perturbation is not None:
        assert_genes([perturbation], rows, name="perturbation", where="the screen")
        rows = pd.Index([perturbation])
    part = adata[rows]
    part = part.copy() if cell_type is None else screen(part, cell_type=cell_type)
    values = np.asarray(part.X, dtype=np.float64)
    p, g = np.nonzero(values)
    keep = part.obs_names.to_numpy()[p] != part.var_names.to_numpy()[g]
    p, g = p[keep], g[keep]
    return pd.DataFrame(
        {
            "perturbation": part.obs_names.to_numpy()[p],
            "gene": part.var_names.to_numpy()[g],
            "cell_type": aggregate_name(_types(adata)) if cell_type is None else cell_type,
            "change": values[p, g],
            **{c: part.var[c].to_numpy(dtype=float)[g] for c in ("baseline", "sd", "r2")},
            **{name: np.asarray(part.layers[name])[p, g] for name in ("se", "q") if name in part.layers},
        }
    )


def _perturbation_effects(
    adata: AnnData, perturbation: str | None, cell_type: str | None, perturbed_key: str, betas_key: str | None
) -> pd.DataFrame:
    before, after, stored = _states(adata, perturbed_key)
    label = str(stored["label"])
    if perturbation is not None:
        assert_one_of(perturbation, [label], name="perturbation")
    betas_key = betas_key or str(stored.get("betas_key", _keys.BETAS))
    fit = adata.uns.get(betas_key, {})
    key = cluster_key_of(adata, betas_key=betas_key)
    everything, *types = cell_groups(adata, key if key in adata.obs else None)
    group = everything
    if cell_type is not None:
        assert_key(adata, "obs", key or _keys.CELL_TYPE, name="cluster_key")
        assert_one_of(cell_type, [g.name for g in types], name="cell_type")
        group = next(g for g in types if g.name == cell_type)
    mask = group.cells
    by_hand = {str(g) for g in np.atleast_1d(stored["genes"])}
    change = (after - before)[mask].mean(axis=0, dtype=np.float64)
    genes = np.flatnonzero((change != 0) & ~adata.var_names.isin(by_hand))
    r2 = np.full(len(genes), np.nan)
    if "scores" in fit and len(fit["scores"]):
        scored = set(fit["scores"]["cell_type"].astype(str))
        if cell_type is not None and cell_type not in scored:
            warn(
                f"The fit has scores for the cell types {', '.join(map(repr, sorted(scored)))}, but none for "
                f"{cell_type!r}; were types renamed after the fit? `r2` is NaN."
            )
        r2 = held_out_r2(fit["scores"], adata.var_names[genes], cell_type)
    errors = SampleErrors.read(stored, adata.var_names[genes])
    return pd.DataFrame(
        {
            "perturbation": label,
            "gene": adata.var_names.to_numpy()[genes],
            "cell_type": group.name,
            "change": change[genes],
            "baseline": before[np.ix_(mask, genes)].mean(axis=0, dtype=np.float64),
            "sd": before[np.ix_(mask, genes)].std(axis=0, dtype=np.float64),
            "r2": r2,
            **({} if errors is None else errors.of(group.name, change[genes])),
        }
    )


def _type_index(adata: AnnData, cell_type: str) -> int:
    types = _types(adata)
    assert_one_of(cell_type, types, name="cell_type")
    return types.index(cell_type)


def _types(adata: AnnData) -> list[str]:
    return [str(t) for t in np.atleast_1d(adata.uns[SCREEN]["cell_types"])]


def _states(adata: AnnData, perturbed_key: str) -> tuple[Floats, Floats, dict[str, Any]]:
    """Expression before and after, and what was done."""
    assert_key(adata, "uns", perturbed_key, name="perturbed_key", hint=_HINT)
    assert_key(adata, "layers", perturbed_key, name="perturbed_key", hint=_HINT)
    stored = dict(adata.uns[perturbed_key])
    before = get_expression(adata, layer=str(stored["layer"]) or None, check=False)
    return before, get_expression(adata, layer=perturbed_key, check=False), stored
