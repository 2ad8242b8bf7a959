"""What a fit, correlation and least squares say a transcription factor or a ligand does to each target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

import spacetravlr as st
from benchmarks import _common as common
from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._received import read_received
from spacetravlr._core.design import Kind

_RIDGE = 1e-6  # of standardised regressors: pairs may agree exactly


class Question(NamedTuple):
    """Whose effects on which targets are wanted."""

    factors: Sequence[str]
    ligands: Sequence[str]
    targets: Sequence[str]


class Effects(NamedTuple):
    """Effects of more of a gene on the targets, mean over cells; genes x targets, 0 where there are none."""

    coefficients: pd.DataFrame
    """Coefficients of the factors."""
    factors: pd.DataFrame | None
    """Knockouts of the factors, sign reversed; none where there are only coefficients."""
    ligands: pd.DataFrame
    """Knockouts of the ligands, sign reversed."""


def fitted(adata: AnnData, question: Question, options: dict[str, Any], *, seed: int, n_jobs: int | None) -> Effects:
    """Fit the package and knock out one gene after the other."""
    out = st.tl.fit_betas(adata, rng=seed, n_jobs=n_jobs, copy=True, **options)
    betas, table = common.fit_table(out)
    is_tf = (table["kind"].astype(str) == "tf").to_numpy()
    flat = table[is_tf].assign(mean=betas[:, is_tf].mean(axis=0)).astype({"tf": str, "target": str})
    coefficients = flat.pivot_table(index="tf", columns="target", values="mean", aggfunc="sum")
    wanted = set(question.factors) | set(question.ligands)
    genes = [gene for gene in st.tl.possible_targets(out) if gene in wanted]
    screen = st.tl.genome_screen(out, genes=genes, mode="knockout", n_jobs=n_jobs)
    knockouts = -screen.to_df()
    return Effects(
        _aligned(coefficients, question.factors, question.targets),
        _aligned(knockouts, question.factors, question.targets),
        _aligned(knockouts, question.ligands, question.targets),
    )


def correlation(adata: AnnData, question: Question, layer: str) -> Effects:
    """Correlation within cell types: of factors with targets, and of received ligands with targets."""
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    received = read_received(adata).lr
    signals = received[[signal(gene, received) for gene in question.ligands]].to_numpy(float)
    y = common.within(get_expression(adata, question.targets, layer=layer).astype(float), types)
    x = common.within(get_expression(adata, question.factors, layer=layer).astype(float), types)
    found = [
        pd.DataFrame(_correlation(values, y), index=list(genes), columns=list(question.targets))
        for values, genes in ((x, question.factors), (common.within(signals, types), question.ligands))
    ]
    return Effects(found[0], None, found[1])


def signal(gene: str, received: pd.DataFrame) -> str | None:
    """Column of a ligand's signal, the secreted one where there are two; ``None`` where there is none."""
    names = (_keys.signal_name(gene, reach) for reach in (_keys.SECRETED, _keys.CONTACT))
    return next((name for name in names if name in received), None)


def least_squares(adata: AnnData, question: Question) -> Effects:
    """Least squares on the terms of the package, pooled over cell types, within them; one round of a knockout."""
    design, values, y, names = common.regression(adata)
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    mean = values.mean(axis=0, dtype=float)
    x, y = common.within(values.astype(float), types), common.within(y.astype(float), types)
    scale = np.maximum(x.std(axis=0), 1e-9)
    x /= scale
    gram, moment = x.T @ x / len(x), x.T @ y / len(x)
    b = np.zeros((len(design.terms), len(names)))
    for t in range(len(names)):
        index = design.targets.terms_of(t)
        b[index, t] = np.linalg.solve(gram[np.ix_(index, index)] + _RIDGE * np.eye(len(index)), moment[index, t])
    b /= scale[:, None]
    genes = design.genes.to_numpy(dtype=object)
    terms, effect = design.terms, pd.DataFrame(b * mean[:, None], columns=names)
    is_factor, has_signal = np.isin(terms.kind, [Kind.TF, Kind.TFL]), terms.signal >= 0
    own = (terms.kind == Kind.TF).nonzero()[0]
    of_ligand = genes[design.signals.ligand[terms.signal[has_signal]]]
    return Effects(
        _aligned(pd.DataFrame(b[own], genes[terms.gene[own]], names), question.factors, question.targets),
        _aligned(effect[is_factor].groupby(genes[terms.gene[is_factor]]).sum(), question.factors, question.targets),
        _aligned(effect[has_signal].groupby(of_ligand).sum(), question.ligands, question.targets),
    )


def network(grn: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Sign of each edge of the prior network, factors x targets; nothing was measured here."""
    edges = grn.astype({"tf": str, "target": str}).pivot_table(index="tf", columns="target", values="weight")
    return np.sign(_aligned(edges, question.factors, question.targets))


def _aligned(frame: pd.DataFrame, rows: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    return frame.reindex(index=list(rows), columns=list(columns)).fillna(0.0).astype(float)


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    norms = np.outer(np.linalg.norm(x, axis=0), np.linalg.norm(y, axis=0))
    return np.where(norms > 1e-9, x.T @ y / np.maximum(norms, 1e-9), 0.0)
