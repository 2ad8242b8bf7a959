"""Coefficients of the modulators of each target, by cell type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._clusters import CellGroup, cell_groups, cluster_key_of
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._modulators import INTERCEPT
from spacetravlr._anndata._received import read_received
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import named_terms
from spacetravlr._core.design import Kind
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes
from spacetravlr.models.perturb._coefficients import coefficient_reader

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Ints

_TERM_COLUMNS = ("target", "kind", "tf", "ligand", "receptor", "range")


@document
def modulators(
    adata: AnnData | SpatialData,
    *,
    target: str | Sequence[str] | None = None,
    effects: bool = False,
    betas_key: str = _keys.BETAS,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Tabulate the coefficients of each modulator, by cell type.

    Parameters
    ----------
    %(adata_fitted)s
    %(targets_all)s
    effects
        Add the columns ``modulator_sd`` and ``effect``, which need the expression and received ligands of the fit.
    %(betas_key)s
    %(table_key)s

    Returns
    -------
    One row per target, modulator and cell type (first all cells, called ``"all"`` unless a type has that name), with
    columns

    ``target``, ``modulator``, ``label``, ``kind``, ``tf``, ``ligand``, ``receptor``, ``range``
        The term; ``modulator`` is its short name, such as ``TGFB1$TGFBR1``, ``label`` its name in figures,
        ``TGFB1-TGFBR1``; arguments take both. Terms of kind ``"receptor"`` and ``"ligand"`` are adjustment terms: the
        main effects of the receptor of a pair and of the cell's own ligand, which support no causal claim.
    ``cell_type``, ``n_cells``, ``mean``, ``mean_abs``, ``sd``
        Summary of the coefficient over the cells of the type, in original units of expression.
    ``modulator_sd``, ``effect``
        Standard deviation of the modulator over the cells of the type, and that times the mean coefficient: the change
        of the target per standard deviation of the modulator.
    ``se``, ``low``, ``high``, ``p``, ``q``
        Only for fits with ``counts_layer=``: standard error of the mean coefficient; a 90 % interval from the data
        alone, which unlike ``mean`` is not shrunk towards zero; p-value for a coefficient of zero, and q-value over all
        targets and types. For all cells together, ``p`` and ``q`` test for any effect anywhere. A target without a
        model has coefficients of zero, errors that show how large they may still be, and q-values of one. Receptor
        main effects form a separate family of tests.
    ``p_varies``, ``q_varies``
        p- and q-value for the hypothesis that the coefficient is the same in all cells, for the term as a whole.
    ``importance``, ``evidence``, ``active``
        Results of the fit for the term as a whole, if it recorded them; ``evidence`` is NaN for terms it removed.

    Raises
    ------
    KeyError
        If there are no coefficients, or none for ``target``.
    """
    adata = unwrap(adata, table_key)
    model = read_betas(adata, betas_key)
    names = model.target_names
    wanted = names if target is None else [target] if isinstance(target, str) else list(target)
    assert_genes(wanted, names, name="target", where="the fitted targets")
    position = np.array([names.index(t) for t in wanted], dtype=np.int64)
    key = cluster_key_of(adata, betas_key=betas_key)
    groups = cell_groups(adata, key if key in adata.obs else None)

    columns = np.concatenate([np.arange(*model.design.targets.columns_of(int(t)).indices(10**12)) for t in position])
    stats = _group_stats(model, position, groups)[:, :, columns]
    table = named_terms(model.table.iloc[columns])
    keep = (table["kind"] != INTERCEPT).to_numpy()
    found = _what_the_fit_found(table)
    errors = _errors_of(model, adata.uns[betas_key].get("by_type"), groups[0].name)
    spread = _modulator_sd(adata, model, position, groups) if effects else None
    parts = []
    for g, group in enumerate(groups):
        part = table.loc[keep, ["target", "modulator", "label", *_TERM_COLUMNS[1:]]].copy()
        part["cell_type"], part["n_cells"] = group.name, int(group.cells.sum())
        part["mean"], part["mean_abs"], part["sd"] = stats[:, g][:, keep]
        for name, values in errors(group.name).items():
            part[name] = values[columns][keep]
        if spread is not None:
            part["modulator_sd"] = spread[g]
            part["effect"] = part["mean"] * part["modulator_sd"]
        parts.append(pd.concat([part, found[keep]], axis=1).assign(_term=np.flatnonzero(keep), _group=g))
    tidy = pd.concat(parts).sort_values(["_term", "_group"], kind="stable")
    return tidy.drop(columns=["_term", "_group"]).reset_index(drop=True)


def _what_the_fit_found(table: pd.DataFrame) -> pd.DataFrame:
    found = pd.DataFrame(index=table.index)
    for name in ("importance", "evidence", "p_varies", "q_varies"):
        if name in table:
            found[name] = table[name].to_numpy(float)
    if "active" in table:
        found["active"] = table["active"].to_numpy(bool)
    return found


def _errors_of(model: BetaModel, by_type: Any, everything: str) -> Callable[[str], dict[str, Floats]]:
    """Errors, p-values and q-values of every column in a group; none where the fit knows no errors."""
    known = ("se", "low", "high", "p", "q")
    if not set(known) <= set(model.table):
        return lambda _: {}
    overall = {name: model.table[name].to_numpy(float) for name in known}
    nothing = {name: np.full(len(model.table), np.nan) for name in known}
    types = [] if by_type is None else [str(name) for name in by_type["cell_types"]]

    def errors(group: str) -> dict[str, Floats]:
        if group == everything:
            return overall
        if group not in types:
            return nothing
        return {name: np.asarray(by_type[name], dtype=float)[:, types.index(group)] for name in known}

    return errors


def _group_stats(model: BetaModel, targets: Ints, groups: Sequence[CellGroup]) -> Floats:
    """Mean, mean size and standard deviation of each column in each group, read chunk by chunk."""
    sums = np.zeros((3, len(groups), model.design.targets.n_columns))
    weights = np.stack([group.cells for group in groups]).astype(np.float32)
    for chunk in coefficient_reader(model.betas, model.design.targets)(np.unique(targets)):
        for t in chunk.targets:
            columns = model.design.targets.columns_of(int(t))
            values = chunk.values[:, columns.start - chunk.first_column : columns.stop - chunk.first_column]
            inside = weights[:, chunk.cells].astype(np.float64)
            values = values.astype(np.float64)
            for power, transformed in enumerate((values, np.abs(values), values**2)):
                sums[power][:, columns] += inside @ transformed
    size = np.maximum(weights.sum(axis=1, dtype=np.float64), 1)[:, None]
    mean, mean_abs, square = sums / size
    return np.stack([mean, mean_abs, np.sqrt(np.maximum(square - mean**2, 0))])


def _modulator_sd(adata: AnnData, model: BetaModel, targets: Ints, groups: Sequence[CellGroup]) -> Floats:
    """Standard deviation in each group of the modulators of the targets, one after the other, without intercepts."""
    design = model.design
    index = np.concatenate([design.targets.terms_of(int(t)) for t in targets])
    distinct, position = np.unique(index, return_inverse=True)
    terms = design.terms.take(distinct)
    genes = np.unique(terms.gene)
    expression = get_expression(
        adata, list(design.genes[genes]), layer=str(model.params.get("layer") or "") or None, check=False
    )
    state = None
    spread = np.zeros((len(groups), len(terms)))
    for m, (kind, gene, signal) in enumerate(zip(terms.kind, terms.gene, terms.signal, strict=True)):
        values = expression[:, np.searchsorted(genes, gene)].astype(np.float64)
        if signal >= 0:
            if state is None:
                state = read_received(adata, str(model.params.get("received_key") or _keys.RECEIVED))
            # a ligand-TF term has its own table of received ligands, where one gene may have another range
            frame = state.tfl if kind == Kind.TFL else state.lr
            values *= frame[design.signal_names[signal]].to_numpy(np.float64)
        spread[:, m] = [values[group.cells].std() if group.cells.any() else np.nan for group in groups]
    return spread[:, position]
