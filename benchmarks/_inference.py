"""Whether errors, p-values and false discovery rates of a fit hold where the truth is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import special

import spacetravlr as st
from benchmarks import _common as common
from benchmarks._truth import N_FOLDS, SEED, Case
from spacetravlr._anndata._modulators import ADJUSTMENT

FDR = 0.1
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 10
N_DRAWS = 30
N_MATCHED = 40
_Z90 = 1.6449
_LARGE = 0.1  # standard deviations of the target: effects whose power is stated
_SAME = 1e-3  # of its mean size: a coefficient that varies by less does not vary


class Judged(NamedTuple):
    """A fit with its errors, and what is true."""

    adata: AnnData
    """Fitted."""
    terms: pd.DataFrame
    """Of the fit, without intercepts."""
    truth: np.ndarray
    """True coefficients, cells x terms."""
    claims: np.ndarray
    """Terms that claim an effect."""

    @property
    def acts(self) -> np.ndarray:
        """Terms that truly act."""
        return np.abs(self.truth).max(axis=0) > 0

    @property
    def types(self) -> np.ndarray:
        """Cell type of each cell, as a code."""
        return self.adata.obs["cell_type"].cat.codes.to_numpy().astype(int)


def judge(case: Case) -> Judged:
    """Fit counts with the package."""
    adata = case.prepared("log1p").copy()
    st.tl.fit_betas(adata, layer="log1p", counts_layer="counts", rng=SEED, n_folds=N_FOLDS)
    terms = adata.uns["betas"]["terms"]
    terms = terms[terms["kind"].astype(str) != "intercept"].reset_index(drop=True)
    simulated = case.adata.uns["simulation"]["terms"]
    truth = common.align_betas(case.adata.obsm["true_betas"], simulated, terms)
    return Judged(adata, terms, truth, (~terms["kind"].astype(str).isin(ADJUSTMENT)).to_numpy())


def calls(fit: Judged) -> dict[str, float]:
    """False discoveries and power of active terms and of coefficients that vary; p-values of terms that do not act."""
    terms, acts, claims = fit.terms, fit.acts, fit.claims
    active = terms["active"].to_numpy(bool) & claims
    is_tf = (terms["kind"].astype(str) == "tf").to_numpy()
    size = np.abs(fit.truth).mean(axis=0)
    spread = np.array([fit.truth[fit.types == c].std(axis=0) for c in np.unique(fit.types)]).max(axis=0)
    varies = acts & (spread > _SAME * np.maximum(size, 1e-12))
    called = claims & (terms["q_varies"].to_numpy(float) <= FDR)
    idle = ~acts & claims
    return {
        "fdp": share(~acts[active]),
        "power_tf": share(active[acts & is_tf]),
        "power_signal": share(active[acts & claims & ~is_tf]),
        "n_active": float(active.sum()),
        "fdp_varies": share(~varies[called]),
        "power_varies": share(called[varies & claims]),
        "p05": share(terms["p"].to_numpy(float)[idle] < 0.05),
    }


def coverage(fit: Judged) -> dict[str, float]:
    """How often 90 % intervals of mean coefficients by cell type hold the truth, of terms that act and of others."""
    table = st.get.modulators(fit.adata)
    table = table[table["cell_type"] != "all"]
    codes = list(fit.adata.obs["cell_type"].cat.categories)
    true = np.stack([fit.truth[fit.types == c].mean(axis=0) for c in range(len(codes))], axis=1)
    wanted = pd.MultiIndex.from_frame(fit.terms[common.TERM].astype(str))
    row = wanted.get_indexer(pd.MultiIndex.from_frame(table[common.TERM].astype(str)))
    truth = true[row, [codes.index(c) for c in table["cell_type"]]]
    inside = (truth >= table["low"].to_numpy()) & (truth <= table["high"].to_numpy())
    error = np.abs(table["mean"].to_numpy() - truth)
    within = error <= _Z90 * table["se"].to_numpy()
    wrong = float(np.mean(error[fit.claims[row]] ** 2))
    claims, acts = fit.claims[row], fit.acts[row]
    width = (table["high"] - table["low"]).to_numpy() / (2 * _Z90)
    off = np.abs((table["high"] + table["low"]).to_numpy() / 2 - truth) / np.maximum(width, 1e-12)
    return {
        "cover": share(inside[claims]),
        "cover_acting": share(inside[claims & acts]),
        "cover_se": share(within[claims]),
        "width_error": float(np.sqrt(np.mean(width[claims] ** 2) / wrong)) if wrong > 0 else np.nan,
        **{f"cover{int(100 * level)}": share(off[claims] <= special.ndtri(0.5 + level / 2)) for level in LEVELS},
    }


def true_effects(case: Case, fit: Judged, genes: list[str]) -> AnnData:
    """A screen of the tissue before counting with the true coefficients."""
    exact = case.prepared("exact").copy()
    exact.uns["betas"] = {k: v for k, v in fit.adata.uns["betas"].items() if k != "fitted_on"}
    terms = fit.adata.uns["betas"]["terms"]
    betas = np.zeros((exact.n_obs, len(terms)), dtype=np.float32)
    betas[:, (terms["kind"].astype(str) != "intercept").to_numpy()] = fit.truth
    exact.obsm["betas"] = betas
    return st.tl.genome_screen(exact, genes=genes, baseline_layer="exact", n_propagation=1)


def effects(case: Case, fit: Judged) -> dict[str, float]:
    """Knockouts with errors against the true ones, mean changes by cell type."""
    genes = st.tl.possible_targets(fit.adata)
    true = true_effects(case, fit, genes)
    st.pp.denoise(fit.adata, layer="log1p")
    found, measured = (
        st.tl.genome_screen(fit.adata, genes=genes, n_propagation=1, n_samples=N_DRAWS, baseline_layer=layer)
        for layer in (None, "log1p")
    )
    rival = st.get.baselines(fit.adata, kinds="least_squares", genes=genes, n_propagation=1)["least_squares"]
    targets = list(dict.fromkeys(fit.terms["target"].astype(str)))
    n_types = len(found.uns["screen"]["cell_types"])

    def of(screen: AnnData, stem: str) -> np.ndarray:
        return np.stack([screen[:, targets].layers[f"{stem}_{i}"] for i in range(n_types)], axis=-1).astype(float)

    estimate, truth, se, q = of(found, "change"), of(true, "change"), of(found, "se"), of(found, "q")
    tested = np.isfinite(q)
    inside = np.abs(estimate - truth) <= _Z90 * se
    from_measured = np.abs(of(measured, "change") - truth) <= _Z90 * of(measured, "se")
    significant = tested & (q <= FDR)
    wrong = significant & (np.sign(estimate) != np.sign(truth))
    spread = fit.adata[:, targets].to_df("log1p").std(axis=0).to_numpy()[None, :, None]
    large = tested & (np.abs(truth) > _LARGE * spread)
    moves = np.abs(truth).max(axis=(1, 2)) > 0
    return {
        "cover_effects": share(inside[tested]),
        "cover_moving": share(inside[tested & (truth != 0)]),
        "cover_effects_measured": share(from_measured[tested]),
        "cover_moving_measured": share(from_measured[tested & (truth != 0)]),
        "fdp_effects": share(wrong[significant]),
        "n_effects": float(significant.sum()),
        "power_effects": share(significant[large]),
        "first": first_of(estimate[moves], truth[moves]),
        "first_rival": first_of(of(rival, "change")[moves], truth[moves]),
    }


def first_of(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Share of knockouts whose predicted profile is most like its own true one, among (at most 40) others.

    Both perturbations x ...; a prediction of no change at all is first of none.
    """
    a, b = (values[:N_MATCHED].reshape(min(len(values), N_MATCHED), -1) for values in (estimate, truth))
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    norms = [np.linalg.norm(v, axis=1) for v in (a, b)]
    table = (a / np.maximum(norms[0], 1e-12)[:, None]) @ (b / np.maximum(norms[1], 1e-12)[:, None]).T
    best = table.argmax(axis=1) == np.arange(len(a))
    return share(best & (norms[0] > 0))


def share(mask: np.ndarray) -> float:
    """Part that is true; NaN of nothing."""
    return float(np.mean(mask)) if len(mask) else np.nan


def measure(case: Case, *, null: bool) -> dict[str, float]:
    """Everything about one tissue; ``h0``, ... are a histogram of the p-values of terms that do not act."""
    fit = judge(case)
    row: dict[str, Any] = {**calls(fit), **coverage(fit)}
    row |= {"n_effects": null_effects(fit)} if null else effects(case, fit)
    p = fit.terms["p"].to_numpy(float)[~fit.acts & fit.claims]
    return row | {f"h{i}": float(n) for i, n in enumerate(np.histogram(p, BINS, (0, 1))[0])}


def null_effects(fit: Judged) -> float:
    """Significant effects of knockouts where there are none."""
    screen = st.tl.genome_screen(fit.adata, n_propagation=1, n_samples=N_DRAWS)
    return float(sum((screen.layers[f"q_{i}"] <= FDR).sum() for i in range(len(screen.uns["screen"]["cell_types"]))))
