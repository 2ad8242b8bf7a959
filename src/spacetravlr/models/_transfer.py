"""Coefficients of a fit evaluated at the cells of another section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._fitted_on import cell_sums, fitted_on
from spacetravlr._anndata._modulators import Design, build_design
from spacetravlr._anndata._received import operators
from spacetravlr._anndata._section import Section, read_section
from spacetravlr._core.design import term_values
from spacetravlr._core.response.propagation import baseline
from spacetravlr._utils import numba_threads, warn
from spacetravlr._validators import assert_key, assert_unique_names, listed
from spacetravlr.models.bodies._fitted import fitted_blocks
from spacetravlr.models.bodies._reference import Position, Reference

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._core.response.round import Baseline
    from spacetravlr._types import Bools, Floats

Missing = Literal["raise", "drop"]


class Transfer(NamedTuple):
    """Coefficients for a query section, with the tables that belong to them."""

    betas: Floats
    """Cells of the query x columns, float32."""
    terms: pd.DataFrame
    scores: pd.DataFrame
    training: pd.DataFrame
    params: dict[str, Any]
    fitted_on: dict[str, Any]
    """What the coefficients rest on in the query."""


def transfer(
    reference: AnnData,
    query: AnnData,
    *,
    position: Position = "average",
    missing: Missing = "raise",
    cluster_key: str | None = None,
    received_key: str | None = None,
    layer: str | None = None,
    betas_key: str = _keys.BETAS,
    n_jobs: int | None = None,
) -> Transfer:
    """Evaluate the bodies of ``reference`` at the cells of ``query``; see :func:`spacetravlr.tl.transfer_betas`."""
    assert_key(reference, "uns", betas_key, name="betas_key", hint="Call `st.tl.fit_betas(reference)` first.")
    stored = reference.uns[betas_key]
    if "bodies" not in stored:
        msg = (
            f"Bodies not found in reference.uns[{betas_key!r}], which holds only coefficients; call "
            "`st.tl.fit_betas(reference)` first."
        )
        raise KeyError(msg)
    params = dict(stored["params"])
    params |= {
        "cluster_key": params["cluster_key"] if cluster_key is None else cluster_key,
        "received_key": received_key or params["received_key"],
        "layer": params["layer"] if layer is None else layer,
        "position": position,
    }
    assert_unique_names(query)
    if f"{betas_key}_sd" in reference.obsm:
        warn("Standard deviations of coefficients (`uncertainty=True`) are not transferred, and `query` gets none.")
    received = _keys.received_params(str(params["received_key"]))
    assert_key(query, "uns", received, name="received_key", hint="Call `st.pp.received_ligands(query, lr)` first.")
    section = read_section(query, cluster_key=str(params["cluster_key"]) or None, received=query.uns[received])
    seen = Reference.from_state(stored["bodies"]["reference"])
    seen.check(section, position)
    terms = stored["terms"]
    known = _known_columns(terms, query.var_names, missing)
    kept_terms = terms[known].copy()
    kept_terms.index = pd.RangeIndex(len(kept_terms)).astype(str)
    design = build_design(kept_terms, query.var_names)
    tissue = _tissue(query, design, params, n_jobs)

    cells = seen.view(section, position, n_jobs=n_jobs).at(n_jobs=n_jobs)
    betas = np.empty((query.n_obs, int(known.sum())), dtype=np.float32)
    first = done = 0
    for block in fitted_blocks(stored):
        kept = known[first : first + block.n_columns]
        first += block.n_columns
        if first <= len(terms) and kept.any():
            betas[:, done : done + kept.sum()] = block.evaluate(cells)[:, kept]
            done += int(kept.sum())
    if first != len(terms):
        msg = (
            f"Expected bodies for the {len(terms)} columns of reference.uns[{betas_key!r}]['terms'], found {first}; "
            "they come from different fits."
        )
        raise ValueError(msg)
    targets = set(kept_terms["target"].astype(str))
    return Transfer(
        betas,
        kept_terms,
        scores=_with_r2(_of_targets(stored["scores"], targets), betas, design, tissue, section, n_jobs),
        training=_of_targets(stored["training"], targets),
        params=params,
        fitted_on=fitted_on(_sums(query, design, tissue), kept_terms, section.signals),
    )


def _sums(query: AnnData, design: Design, tissue: Baseline) -> pd.DataFrame:
    used = np.union1d(design.terms.gene, design.targets.gene)
    return cell_sums(tissue.expression, used, query.var_names, tissue.received, design.signal_names, query.obs_names)


def _tissue(query: AnnData, design: Design, params: dict[str, Any], n_jobs: int | None) -> Baseline:
    """Expression of the query and the signals that its cells receive."""
    field: Any = None
    if len(design.signals):
        field = operators(query, str(params["received_key"]), n_jobs=n_jobs)
    return baseline(get_expression(query, layer=str(params["layer"]) or None), design.signals, field)


def _with_r2(
    scores: pd.DataFrame, betas: Floats, design: Design, tissue: Baseline, section: Section, n_jobs: int | None
) -> pd.DataFrame:
    """Add ``n_query``, cells of each type, ``sst_query``, their sum of squares, and ``r2_query``, the part explained.

    A constant difference within a type is ignored: sections differ in level, and no perturbation depends on it.
    """
    of_type = {name: np.flatnonzero(section.cell_type == c) for c, name in enumerate(section.type_names)}
    r2, sst = {}, {}
    for t, gene in enumerate(design.targets.gene):
        with numba_threads(n_jobs):
            x = term_values(tissue.expression, tissue.received, design.terms.take(design.targets.terms_of(t)))
        y, b = tissue.expression[:, gene].astype(np.float64), betas[:, design.targets.columns_of(t)]
        residual = y - b[:, 0] - np.einsum("jk,jk->j", b[:, 1:], x, dtype=np.float64)
        for label, rows in of_type.items():
            total, unexplained = float(y[rows].var()), float(residual[rows].var())
            key = str(design.genes[gene]), label
            sst[key] = total * len(rows)
            r2[key] = 1 - unexplained / total if sst[key] > 1e-12 else np.nan
    keys = list(zip(scores["target"].astype(str), scores["cell_type"].astype(str), strict=True))
    return scores.assign(
        n_query=[len(of_type.get(label, ())) for _, label in keys],
        sst_query=[sst.get(key, 0.0) for key in keys],
        r2_query=[r2.get(key, np.nan) for key in keys],
    )


def _known_columns(terms: pd.DataFrame, genes: pd.Index, missing: Missing) -> Bools:
    """Columns whose genes are all there; raises or warns about the others."""
    known: Bools = np.ones(len(terms), dtype=bool)
    unknown: dict[str, None] = {}
    for column in ("target", "tf", "ligand", "receptor"):
        names = terms[column].astype(str)
        here = (names.isin(genes) | ((names == "") & (column != "target"))).to_numpy()
        unknown |= dict.fromkeys(names[~here])
        known &= here
    if not unknown:
        return known
    names = listed(unknown)
    if missing == "raise":
        msg = (
            f"Expected `query` to hold every gene of the model, found {len(unknown)} missing: {names}; "
            'missing="drop" leaves out the targets and regressors that need them.'
        )
        raise KeyError(msg)
    is_target = (terms["kind"].astype(str) == "intercept").to_numpy()
    if not (known & is_target).any():
        msg = f"Expected `query` to hold at least one target gene, found none of {int(is_target.sum())}."
        raise KeyError(msg)
    warn(
        f"{len(unknown)} genes of the model are missing in `query` ({names}): {int((is_target & ~known).sum())} "
        f"targets and {int((~is_target & ~known).sum())} regressors are left out."
    )
    return known


def _of_targets(table: pd.DataFrame, targets: set[str]) -> pd.DataFrame:
    out = table[table["target"].astype(str).isin(targets)].copy()
    out.index = pd.RangeIndex(len(out)).astype(str)
    return out
