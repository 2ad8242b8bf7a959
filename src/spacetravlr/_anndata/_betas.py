"""Fitted coefficients as they lie in an AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._fitted_on import FITTED_ON, align, assert_terms
from spacetravlr._anndata._modulators import Design, build_design
from spacetravlr._validators import assert_genes, assert_key

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from spacetravlr._types import Floats

_HINT = "Call `st.tl.fit_betas(adata)` first."


@dataclass(frozen=True)
class BetaModel:
    """Coefficients of every target at every cell, with the table that says what each column is."""

    betas: Any
    """Cells x columns, float32: ndarray, or a lazily read array; a target's columns are contiguous."""
    table: pd.DataFrame
    """One row per column of ``betas``: target, kind, tf, ligand, receptor, range and what the fit found."""
    scores: pd.DataFrame
    """One row per target and cell type."""
    params: dict[str, Any]
    note: Mapping[str, Any] | None = field(repr=False)
    """What the coefficients rest on; ``None`` where nobody noted it."""
    sums: pd.DataFrame | None = field(repr=False)
    """Sums of the fit at these cells, see :func:`~spacetravlr._anndata._fitted_on.cell_sums`."""
    design: Design = field(repr=False)
    obs_names: pd.Index = field(repr=False)

    @property
    def target_names(self) -> list[str]:
        """Modelled genes, in the order of their columns."""
        return list(self.design.genes[self.design.targets.gene])

    def of(self, target: str) -> Floats:
        """Coefficients of one target: cells x (intercept and terms)."""
        assert_genes([target], self.target_names, name="target", where="the fitted targets")
        block = self.betas[:, self.design.targets.columns_of(self.target_names.index(target))]
        return np.asarray(block.compute() if hasattr(block, "compute") else block)


def read_betas(adata: AnnData, key: str = _keys.BETAS) -> BetaModel:
    """Read what ``tl.fit_betas`` wrote; raises ``KeyError`` naming the call to make, ``ValueError`` on a mismatch."""
    assert_key(adata, "uns", key, name="betas_key", hint=_HINT)
    assert_key(adata, "obsm", key, name="betas_key", hint=_HINT)
    stored = adata.uns[key]
    if "terms" not in stored:
        msg = f"Table 'terms' not found in adata.uns[{key!r}]; objects that were joined may have lost it. {_HINT}"
        raise KeyError(msg)
    betas, table = adata.obsm[key], stored["terms"]
    if betas.shape[1] != len(table):
        msg = (
            f"Expected adata.obsm[{key!r}] to have one column for each of the {len(table)} rows of "
            f"adata.uns[{key!r}]['terms'], found {betas.shape[1]}; they come from different fits."
        )
        raise ValueError(msg)
    note = stored.get(FITTED_ON)
    if note is not None:
        assert_terms(note, table, key=key)
    return BetaModel(
        betas=betas,
        table=table,
        scores=stored["scores"],
        params=dict(stored["params"]),
        note=note,
        sums=None if note is None else align(note, adata.obs_names, key=key),
        design=build_design(table, adata.var_names),
        obs_names=adata.obs_names,
    )
