"""Costs of ``spacetravlr.models.fit._estimate``: time small fits and solve for the cost of each unit of work.

    python -m benchmarks.estimate

prints ``RATE`` and ``COSTS`` to be put there, and how far they are from the times they were found from.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import nnls

import spacetravlr as st
from spacetravlr._resources import multiplication_rate
from spacetravlr.models.fit import _estimate, _run
from spacetravlr.models.fit._options import FitOptions
from spacetravlr.models.fit._tissue import fit_inputs, fit_tissue, target_blocks

# cells, TFs (a target has about twice as many terms), targets
CASES = [(400, 15, 4), (400, 60, 4), (1200, 15, 4), (1200, 60, 4), (1200, 30, 20), (3600, 15, 4), (3600, 60, 4)]


def tissue(n_cells: int, n_tfs: int, n_targets: int):
    """Simulated tissue with about twice ``n_tfs`` terms per target."""
    adata = st.datasets.simulated_tissue(
        n_cells=n_cells, n_cell_types=6, n_targets=n_targets, n_tfs=n_tfs, n_active_tfs=8, n_pairs=n_tfs,
        n_active_pairs=4, rng=0,
    )  # fmt: skip
    st.pp.spatial_weights(adata)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    return adata


def measure(body: str, n_cells: int, n_tfs: int, n_targets: int) -> tuple[dict[str, float], float]:
    """Work and processor seconds of one fit on one thread."""
    network = st.nn.NetworkConfig(device="cpu") if body == "cnn" else None
    options = FitOptions(body=body, n_jobs=1, network=network).checked()
    read = _run.read_fit_data(tissue(n_cells, n_tfs, n_targets), modulators_key="modulators")
    inputs = fit_inputs(read, n_folds=options.n_folds, rng_seed=0, n_jobs=1)
    start = time.process_time()
    fit_tissue(read, inputs, options, n_jobs=1)
    return _estimate.fit_work(inputs, options, target_blocks(n_targets, 100)), time.process_time() - start


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for body in ("seed", "surface", "cnn"):  # compiled before it is timed
        measure(body, *CASES[0])
    names, found = list(_estimate.COSTS), {}
    for body in ("seed", "surface", "cnn"):
        works, seconds = zip(*(measure(body, *case) for case in CASES), strict=True)
        rest = np.array(seconds) - [sum(found.get(k, 0) * v for k, v in w.items()) for w in works]
        unknown = [n for n in names if n in works[0] and n not in found]
        amounts = np.array([[w[n] for n in unknown] for w in works])
        # errors count relative to the time
        costs, _ = nnls(amounts / np.array(seconds)[:, None], rest / np.array(seconds))
        found |= dict(zip(unknown, costs, strict=True))
        fitted = np.array([sum(found[k] * v for k, v in w.items()) for w in works])
        print(f"# {body}: seconds {np.round(seconds, 2)}, estimated / measured {np.round(fitted / seconds, 2)}")
    print(f"RATE = {multiplication_rate(1.0):.2g}")
    print("COSTS = {" + ", ".join(f'"{k}": {v:.2g}' for k, v in found.items()) + "}")


if __name__ == "__main__":
    main()
