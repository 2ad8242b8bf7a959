"""How much of a known regulation each method recovers.

``python -m benchmarks.recovery --out docs/_tables/recovery.md``

Simulated tissues of 1,200 cells in 4 types, where the true model explains 94 % of the variance within types: 8 active
and 6 truly-zero transcription factors per target, with coefficients that follow position, a symmetric pattern, the cell
type or the niche; one setting with 4 true ligand-receptor pairs among 128 false ones; and the default tissue of
``st.datasets.simulated_tissue``, whose targets take the kinds of field in turn and are acted on by factors, pairs and a
ligand-TF pair. Every method sees the same cells and candidate regulators.

* **R2**: on cells in spatial blocks that took no part in any choice, the same for all methods, against the mean of the
  cell type there.
* **fields**: correlation of estimated with true coefficient fields within cell types, mean over active regulators (0
  for one that is constant within types); **pairs** the same for ligand-receptor pairs.
* **TPR, FPR**: truly active regulators called active, truly zero ones called active. The package: ``active`` of the
  terms table at its default threshold. Baselines, which have no such call: importance (mean size of the coefficient
  times the spread of the regressor) above 5 % of the median truly active one.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

import spacetravlr as st
from benchmarks import _common as common
from benchmarks.baselines import METHODS, Cells, held_out_r2
from spacetravlr._core.space.spatial_cv import spatial_folds

#: Candidate ligand-receptor pairs that act on nothing, so that every setting goes through the whole pipeline.
_FACTORS_ONLY = {"n_pairs": 4, "n_active_pairs": 0, "n_contact_pairs": 1, "n_ligand_tf": 0, "n_active_ligand_tf": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "position": {"fields": "position", **_FACTORS_ONLY},
    "symmetric": {"fields": "symmetric", **_FACTORS_ONLY},
    "cell type": {"fields": "cell_type", **_FACTORS_ONLY},
    "niche": {"fields": "niche", **_FACTORS_ONLY},
    "128 false pairs": {
        "fields": "position",
        "n_pairs": 132,
        "n_active_pairs": 4,
        "n_contact_pairs": 12,
        "n_ligand_tf": 0,
        "n_active_ligand_tf": 0,
    },
    "mixed": {"fields": "mixed"},
}
SEED, N_FOLDS = 0, 3  # of the fits; what decides on which cells they report
BODIES = ("seed", "surface", "cnn", "vit", "auto")
MEASURES = {"R2": "r2", "fields": "fields", "pairs": "pairs", "TPR": "tpr", "FPR": "fpr", "s / target": "seconds"}


class Truth(NamedTuple):
    """What is true of a simulated tissue, in the order of its modulator table."""

    terms: pd.DataFrame
    betas: np.ndarray
    active: np.ndarray
    types: np.ndarray
    spread: np.ndarray
    """Standard deviation of each regressor within cell types."""


def make(setting: str, seed: int, n_cells: int, n_targets: int) -> AnnData:
    """Simulate a tissue and take it through the steps before a fit."""
    adata = st.datasets.simulated_tissue(n_cells=n_cells, n_targets=n_targets, rng=seed, **SETTINGS[setting])
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf if len(ligand_tf) else None)
    return adata


def truth_of(adata: AnnData) -> Truth:
    """Line the simulated truth up with the modulators of the pipeline."""
    wanted = adata.uns["modulators"]["table"].reset_index(drop=True)
    simulated = adata.uns["simulation"]["terms"]
    betas = common.align_betas(adata.obsm["true_betas"], simulated, wanted)
    types = adata.obs["cell_type"].cat.codes.to_numpy().astype(int)
    data = common.regression(adata)
    columns = np.empty(len(wanted), dtype=int)
    for t, name in enumerate(data.names):
        columns[np.flatnonzero(wanted["target"].astype(str) == name)] = data.design.targets.terms_of(t)
    spread = common.within(data.values.astype(float), types).std(axis=0)
    return Truth(wanted, betas, np.abs(betas).sum(axis=0) > 0, types, spread[columns])


def measure(truth: Truth, betas: np.ndarray, called: np.ndarray | None) -> dict[str, float]:
    """Score coefficients (cells x modulators) and the regulators called active."""
    correlation = common.field_correlations(betas[:, truth.active], truth.betas[:, truth.active], truth.types)
    is_pair = (truth.terms["kind"].astype(str) == "lr").to_numpy()[truth.active]
    if called is None:
        importance = np.abs(betas).mean(axis=0) * truth.spread
        called = importance > 0.05 * np.median(importance[truth.active])
    return {
        "fields": float(np.nanmean(correlation)),
        "pairs": float(np.nanmean(correlation[is_pair])) if is_pair.any() else np.nan,
        "tpr": float(called[truth.active].mean()),
        "fpr": float(called[~truth.active].mean()),
    }


def run_baseline(adata: AnnData, truth: Truth, name: str) -> dict[str, float]:
    """Score a baseline; targets with the same regressors are fitted together."""
    data = common.regression(adata)
    indices = [data.design.targets.terms_of(t) for t in range(len(data.names))]
    # the blocks that `st.tl.fit_betas(rng=0)` reports on
    folds, _ = spatial_folds(adata.obsm["spatial"], N_FOLDS + 1, rng=np.random.default_rng(SEED))
    betas, r2, seconds = np.zeros(truth.betas.shape), [], 0.0
    target_of = truth.terms["target"].astype(str).to_numpy()
    for key in {tuple(sorted(index)) for index in indices}:
        members = [t for t, index in enumerate(indices) if tuple(sorted(index)) == key]
        columns = np.asarray(key, dtype=int)
        cells = Cells(data.values[:, columns], data.y[:, members], truth.types, adata.obsm["spatial"])
        r2.append(held_out_r2(METHODS[name], cells, folds == N_FOLDS))
        start = time.perf_counter()
        fitted = METHODS[name](cells, cells)
        seconds += time.perf_counter() - start
        for position, t in enumerate(members):
            order = np.searchsorted(columns, indices[t])
            betas[:, target_of == data.names[t]] = fitted[:, position, 1 + order]
    row = {"r2": float(np.mean(np.concatenate(r2))), "seconds": seconds / len(data.names)}
    return row | measure(truth, betas, None)


def run_body(adata: AnnData, truth: Truth, body: str, n_jobs: int | None) -> dict[str, float]:
    """Fit with one body of the package, all else at its default."""
    fitted = adata.copy()
    start = time.perf_counter()
    st.tl.fit_betas(fitted, body=body, rng=SEED, n_folds=N_FOLDS, n_jobs=n_jobs)
    reported = fitted.uns["betas"]["params"]
    assert (reported["rng_seed"], reported["n_folds"]) == (SEED, N_FOLDS)
    seconds = time.perf_counter() - start
    betas, table = common.fit_table(fitted)
    called = common.align_betas(table["active"].to_numpy(float)[None], table, truth.terms)[0] > 0
    scores = common.scores_by_target(fitted)
    row = {"r2": float(scores["r2_kept"].mean()), "seconds": seconds / len(scores)}
    return row | measure(truth, common.align_betas(betas, table, truth.terms), called)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over seeds, one row per setting and method."""
    rows = []
    for (setting, method), group in results.groupby(["setting", "method"], sort=False):
        cells = {name: common.mean_spread(group[key].tolist()) for name, key in MEASURES.items()}
        rows.append({"setting": setting, "method": method, **cells})
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    """Run all settings, seeds and methods, print the table as it grows and write it at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *BODIES], choices=[*METHODS, *BODIES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="tissues that no default was chosen on: 3 and above")
    parser.add_argument("--cells", type=int, default=1200)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--n-jobs", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--csv", type=Path, help="also write every single result")
    args = parser.parse_args(argv)
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    results = []
    for setting in args.settings:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # small tissues: neighbours and types with few cells
                adata = make(setting, seed, args.cells, args.targets)
                truth = truth_of(adata)
                for method in args.methods:
                    if method in METHODS:
                        row = run_baseline(adata, truth, method)
                    else:
                        row = run_body(adata, truth, method, args.n_jobs)
                    results.append({"setting": setting, "seed": seed, "method": method, **row})
                    numbers = "  ".join(f"{key} {value:.3f}" for key, value in row.items())
                    print(f"{setting:16s} seed {seed}  {method:14s} {numbers}", flush=True)
    frame = pd.DataFrame(results)
    if args.csv is not None:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(args.csv, index=False)
    common.write(common.markdown(summarise(frame)), args.out)


if __name__ == "__main__":
    main()
