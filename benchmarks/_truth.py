"""Simulated tissues with counts, ways of fitting them, and what of their truth a fit gets right."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import spacetravlr as st
from benchmarks import _common as common
from benchmarks.baselines import METHODS as BASELINES
from benchmarks.baselines import Cells, Method, held_out_r2
from spacetravlr._anndata._modulators import ADJUSTMENT
from spacetravlr._core.space.spatial_cv import spatial_folds

DEPTHS = (0.17, 1.0, 7.0)
SEED, N_FOLDS = 0, 3  # of the fits; what decides on which cells they report
N_BYSTANDERS = 50
NULL = {"n_active_tfs": 0, "n_active_pairs": 0, "n_active_ligand_tf": 0}
KINDS = ("tf", "receptor", "ligand")
_SIGNIFICANT = 2.58  # t value of p = 0.01


class Fitted(NamedTuple):
    """Coefficients of a fit and what goes with them, columns in the order of the modulator table of the case."""

    betas: np.ndarray
    """Cells x modulators."""
    called: np.ndarray | None
    """Modulators called active; ``None`` where a method makes no such call."""
    r2: float
    """Held-out R2 against measured values, mean over targets; NaN where nothing was fitted."""
    seconds: float
    """Per target."""
    reported: float = np.nan
    """Held-out R2 against the values that were fitted, as the fit reports it."""
    kept: float = np.nan
    """Share of targets that keep a model in some type."""


class Values(NamedTuple):
    """Regressors as one layer has them."""

    data: common.Regression
    columns: np.ndarray
    """Column of ``data.values`` of each modulator of the table."""


def simulate(n_cells: int, depth: float, programs: float, seed: int, n_targets: int = 12, **options: Any) -> AnnData:
    """Simulate a tissue with counts, with what ``pp`` needs before any layer is read."""
    adata = st.datasets.simulated_tissue(
        n_cells=n_cells, n_targets=n_targets, depth=depth, programs=programs, n_bystanders=N_BYSTANDERS, rng=seed,
        **options,
    )  # fmt: skip
    st.pp.spatial_weights(adata, radius=200, contact_radius=30)
    return adata


def shuffle_targets(adata: AnnData, seed: int) -> None:
    """Permute the counts of the targets among the cells of each type, in place, and normalise them again."""
    rng = np.random.default_rng(seed)
    targets = np.flatnonzero(adata.var["role"] == "target")
    order = np.arange(adata.n_obs)
    for cells in adata.obs.groupby("cell_type", observed=True).indices.values():
        order[cells] = rng.permutation(cells)
    counts = adata.layers["counts"].toarray()
    counts[:, targets] = counts[order][:, targets]
    depth = adata.uns["simulation"]["params"]["depth"] * adata.obs["size_factor"].to_numpy()
    adata.layers["counts"] = sparse.csr_matrix(counts)
    adata.layers["log1p"][:, targets] = np.log1p(counts[:, targets] / depth[:, None])


def prepare(adata: AnnData, layer: str) -> AnnData:
    """Received ligands and modulators as read from ``layer``, in a copy."""
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    out = adata.copy()
    st.pp.received_ligands(out, lr, layer=layer)
    st.pp.modulators(out, grn, ligand_tf=ligand_tf, layer=layer, receptor_threshold=0)
    return out


class Case:
    """A tissue, its truth, and the regressors of each layer.

    Parameters
    ----------
    adata
        What :func:`simulate` returned.
    """

    def __init__(self, adata: AnnData) -> None:
        self._prepared: dict[str, AnnData] = {}
        self.adata = adata
        self.types = adata.obs["cell_type"].cat.codes.to_numpy().astype(int)
        self.terms: pd.DataFrame = self.prepared("log1p").uns["modulators"]["table"].reset_index(drop=True)
        simulated = adata.uns["simulation"]["terms"]
        self.betas = common.align_betas(adata.obsm["true_betas"], simulated, self.terms)
        self.active = np.abs(self.betas).sum(axis=0) > 0
        self.kind = self.terms["kind"].astype(str).to_numpy()
        self.claims = ~np.isin(self.kind, ADJUSTMENT)
        self._genes, self._indicator = self._changes()
        self.effects = self.knockouts(self.betas, "exact")

    def prepared(self, layer: str) -> AnnData:
        """The tissue with received ligands and modulators of ``layer``; imputes where that was not done yet."""
        if layer not in self._prepared:
            if layer == "imputed" and layer not in self.adata.layers:
                st.pp.impute(self.adata, layer="log1p")
            if layer == "denoised" and layer not in self.adata.layers:
                st.pp.denoise(self.adata, layer="log1p")
            self._prepared[layer] = prepare(self.adata, layer)
        return self._prepared[layer]

    def values(self, layer: str) -> Values:
        """Regressors as ``layer`` has them."""
        data = common.regression(self.prepared(layer))
        have = self.prepared(layer).uns["modulators"]["table"]
        columns = np.empty(len(self.terms), dtype=int)
        wanted = pd.MultiIndex.from_frame(self.terms[common.TERM].astype(str))
        for t, name in enumerate(data.names):
            own = have[have["target"].astype(str) == name]
            columns[wanted.get_indexer(pd.MultiIndex.from_frame(own[common.TERM].astype(str)))] = (
                data.design.targets.terms_of(t)
            )
        return Values(data, columns)

    def _changes(self) -> tuple[list[tuple[str, str]], sparse.csr_matrix]:
        """Genes that can be knocked out, and which terms go to zero then: terms x (genes, targets)."""
        target = self.terms["target"].astype(str).to_numpy()
        names = {kind: self.terms[kind].astype(str).to_numpy() for kind in KINDS}
        genes = [(k, g) for k in KINDS for g in sorted(set(names[k][self.claims]) - {""})]
        targets = list(dict.fromkeys(target))
        rows, columns = [], []
        for i, (kind, gene) in enumerate(genes):
            for row in np.flatnonzero(self.claims & (names[kind] == gene)):
                rows.append(row)
                columns.append(i * len(targets) + targets.index(target[row]))
        shape = (len(self.terms), len(genes) * len(targets))
        return genes, sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)

    def knockouts(self, betas: np.ndarray, layer: str) -> np.ndarray:
        """Effect of each knockout on each target in one round, cells x genes x targets (float32)."""
        data, columns = self.values(layer)
        contributions = data.values[:, columns] * betas
        effects = -(self._indicator.T @ contributions.T).T
        return effects.reshape(len(betas), len(self._genes), -1).astype(np.float32)

    def measure(self, fitted: Fitted, start: str) -> dict[str, float]:
        """Score a fit against the truth; knockouts start from a layer."""
        estimate = self.knockouts(fitted.betas, start)
        kinds = np.array([kind for kind, _ in self._genes])
        fields = common.field_correlations(fitted.betas[:, self.active], self.betas[:, self.active], self.types)
        called = self._called(fitted)
        product, true, own = (np.vdot(a, b) for a, b in self._pairs(estimate))
        matched, mismatched = profile_match(estimate.mean(axis=0), self.effects.mean(axis=0))
        return {
            "r2": fitted.r2,
            "fields": float(np.nanmean(fields)),
            "tpr": float(called[self.active & self.claims].mean()),
            "fpr": float(called[~self.active & self.claims].mean()),
            "effects": correlation(estimate, self.effects),
            "slope": float(product / true),
            "calibration": float(product / own) if own > 0 else np.nan,
            **{k: correlation(estimate[:, kinds == k], self.effects[:, kinds == k]) for k in KINDS},
            "matched": matched - mismatched,
            "seconds": fitted.seconds,
        }

    def measure_baseline(self, fitted: Fitted, layer: str) -> dict[str, float]:
        """Knockouts that start from ``layer``, with the coefficients of a fit and with the true ones."""
        estimate = self.knockouts(fitted.betas, layer)
        product, _, own = (np.vdot(a, b) for a, b in self._pairs(estimate))
        exact = self.knockouts(self.betas, layer)
        found, truth = (self._by_type(effects, at) for effects, at in ((exact, layer), (self.effects, "exact")))
        slopes = {}
        for name, chosen in (("falls", truth < 0), ("rises", truth > 0)):
            slopes[name] = float(np.vdot(found[chosen], truth[chosen]) / np.vdot(truth[chosen], truth[chosen]))
        return {
            "effects": correlation(estimate, self.effects),
            "calibration": float(product / own) if own > 0 else np.nan,
            "effects_true": correlation(exact, self.effects),
            **slopes,
        }

    def _by_type(self, effects: np.ndarray, layer: str) -> np.ndarray:
        """Mean effects of each type, within the range of ``layer``: types x genes x targets."""
        targets = list(dict.fromkeys(self.terms["target"].astype(str)))
        y = np.asarray(self.adata[:, targets].layers[layer], dtype=np.float32)[:, None]
        clipped = np.clip(effects, -y, y.max(axis=0) - y)
        return np.stack([clipped[self.types == c].mean(axis=0) for c in np.unique(self.types)])

    def measure_null(self, fitted: Fitted, start: str, true_rms: float) -> dict[str, float]:
        """What a fit claims of a tissue in which nothing regulates, effects in units of ``true_rms``."""
        called = self._called(fitted)
        return {
            "kept": fitted.kept,
            "called": float(called[self.claims].mean()),
            "pairs": float(called[self.kind == "lr"].mean()),
            "spurious": rms(self.knockouts(fitted.betas, start)) / true_rms,
            "r2": fitted.reported,
        }

    def _pairs(self, estimate: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(estimate, self.effects), (self.effects, self.effects), (estimate, estimate)]

    def _called(self, fitted: Fitted) -> np.ndarray:
        if fitted.called is not None:
            return fitted.called
        data, columns = self.values("log1p")
        spread = common.within(data.values.astype(float), self.types).std(axis=0)[columns]
        importance = np.abs(fitted.betas).mean(axis=0) * spread
        return importance > 0.05 * np.median(importance[self.active])


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.vdot(values, values) / values.size))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation over all entries; zero where an estimate ``a`` does not vary."""
    a, b = a.ravel() - a.mean(dtype=float), b.ravel() - b.mean(dtype=float)
    size = np.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(np.vdot(a, b) / size) if size > 0 else 0.0


def profile_match(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean correlation of knockout profiles (genes x targets) with their own truth, and with those of other genes."""
    does = np.ptp(truth, axis=1) > 0
    centred = [m[does] - m[does].mean(axis=1, keepdims=True) for m in (estimate, truth)]
    units = [m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-12) for m in centred]
    table = units[0] @ units[1].T
    n = len(table)
    own = np.trace(table) / n
    return float(own), float((table.sum() - np.trace(table)) / (n * (n - 1)))


def fit_package(case: Case, layer: str, **options: Any) -> Fitted:
    """Fit with the package."""
    adata = case.prepared(layer).copy()
    raw = {} if layer == "log1p" else {"raw_layer": "log1p"}
    start = time.perf_counter()
    st.tl.fit_betas(adata, layer=layer, rng=SEED, n_folds=N_FOLDS, **raw, **options)
    seconds = time.perf_counter() - start
    betas, table = common.fit_table(adata)
    scores = common.scores_by_target(adata)
    kept = adata.uns["betas"]["scores"].assign(has=lambda s: s["kept"].astype(str) != "zero").groupby("target")["has"]
    return Fitted(
        betas=common.align_betas(betas, table, case.terms),
        called=common.align_betas(table["active"].to_numpy(float)[None], table, case.terms)[0] > 0,
        r2=float(scores["r2_kept_raw" if raw else "r2_kept"].mean()),
        seconds=seconds / len(scores),
        reported=float(scores["r2_kept"].mean()),
        kept=float(kept.any().mean()),
    )


def fit_baseline(case: Case, method: Method, *, significance: bool = False) -> Fitted:
    """Fit measured values with a baseline; ``significance``: p < 0.01 of pooled least squares is called active."""
    data, columns = case.values("log1p")
    coordinates = case.adata.obsm["spatial"]
    folds, _ = spatial_folds(coordinates, N_FOLDS + 1, rng=np.random.default_rng(SEED))
    betas, r2, seconds = np.zeros(case.betas.shape), [], 0.0
    called = np.zeros(len(case.terms), dtype=bool)
    target = case.terms["target"].astype(str).to_numpy()
    for t, name in enumerate(data.names):
        rows = np.flatnonzero(target == name)
        x = data.values[:, columns[rows]].astype(float)
        cells = Cells(x, data.y[:, [t]].astype(float), case.types, coordinates)
        r2.append(held_out_r2(method, cells, folds == N_FOLDS)[0])
        start = time.perf_counter()
        betas[:, rows] = method(cells, cells)[:, 0, 1:]
        seconds += time.perf_counter() - start
        if significance:
            called[rows] = np.abs(t_values(cells)) > _SIGNIFICANT
    return Fitted(betas, called if significance else None, float(np.mean(r2)), seconds / len(data.names))


def pooled(train: Cells, at: Cells) -> np.ndarray:
    """Least squares with one coefficient per regressor and an intercept for each cell type."""
    x, y = (common.within(v, train.types) for v in (train.x, train.y))
    slopes = np.linalg.lstsq(x, y, rcond=None)[0].T
    intercepts = np.repeat(train.y.mean(axis=0)[None] - train.x.mean(axis=0) @ slopes.T, len(at.x), axis=0)
    for c in np.unique(train.types):
        mine = train.types == c
        intercepts[at.types == c] = train.y[mine].mean(axis=0) - train.x[mine].mean(axis=0) @ slopes.T
    return np.concatenate([intercepts[..., None], np.repeat(slopes[None], len(at.x), axis=0)], axis=-1)


def t_values(cells: Cells) -> np.ndarray:
    """The t values of pooled least squares of one target."""
    x, y = (common.within(v, cells.types) for v in (cells.x, cells.y))
    inverse = np.linalg.pinv(x.T @ x)
    slopes = inverse @ (x.T @ y[:, 0])
    left = len(x) - x.shape[1] - len(np.unique(cells.types))
    variance = ((y[:, 0] - x @ slopes) ** 2).sum() / left
    return slopes / np.sqrt(np.maximum(variance * np.diag(inverse), 1e-30))


class Way(NamedTuple):
    """A way of fitting."""

    fit: Callable[[Case], Fitted]
    start: str
    """Layer whose expression of regulators knockouts start from."""
    most_cells: float = np.inf


WAYS: dict[str, Way] = {
    "this package": Way(lambda case: fit_package(case, "log1p", counts_layer="counts"), "denoised"),
    "without noise model": Way(lambda case: fit_package(case, "log1p", body="surface"), "log1p"),
    "imputed": Way(lambda case: fit_package(case, "imputed", body="seed"), "imputed"),
    "pooled least squares": Way(lambda case: fit_baseline(case, pooled, significance=True), "log1p"),
    "ridge per type": Way(lambda case: fit_baseline(case, BASELINES["ridge"]), "log1p"),
    "GWR": Way(lambda case: fit_baseline(case, BASELINES["GWR"]), "log1p", 2_000),
    # what is left of the error when only the values are measured
    "true coefficients": Way(lambda case: Fitted(case.betas, case.active, np.nan, np.nan), "log1p"),
    "oracle: exact values": Way(lambda case: fit_package(case, "exact", body="surface"), "exact", 10_000),
}
