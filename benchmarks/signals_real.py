"""Which signals are seen to act on real sections, where none can, and where one was planted.

``SPACETRAVLR_DATA=... python -m benchmarks.signals --real --out docs/_tables/signals_real.md``

The sections, targets and exchanges of ``benchmarks.real_counts``, :func:`spacetravlr.tl.test_signals` with
``counts_layer``; exchanges on lung alone. *planted*: the shuffled section, in which each of the ten most abundant
targets then follows one signal where its receptor is, what is received from other cells (less the mean of the type)
times the receptor. Among a dozen cells of a type that were counted about as deeply, the largest counts of the target go
to the cells that are largest in

    ``strength`` times the product, plus ``sqrt(1 - strength**2)`` times noise,

both of variance one within the type, so that counts, depths and types stay as they are. The ligand and the receptor are
no targets, and the receptor was counted in a tenth of the cells.

**p < 0.05**, **p < 0.01**: share of all tests of a target and a signal; **called**: those with q < 0.1. **planted r2**:
share of the variance of the targets within types that the planted product explains beyond its receptor, median;
**found**: planted signals that are called. **targets**: those with p < 0.05 that no signal acts. **inflation**: mean
factor by which errors were widened.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import spacetravlr as st
from benchmarks._sections import LIGAND_TF_CUTOFF, SECTIONS, Priors, Section, fetch_priors
from benchmarks.real_counts import VARIANTS, choose_targets, exchange, load
from spacetravlr import _keys
from spacetravlr._anndata._received import operators

FDR = 0.1
EXCHANGED = "nsclc"  # the section whose targets are exchanged too
STRENGTHS = (0.1, 0.2, 0.4)
_N_PLANTED = 10  # targets
_ALIKE = 12
_LEAST_COUNTED = 0.1


def receive(adata: AnnData, priors: Priors, section: Section, n_jobs: int | None) -> None:
    """Weights and received ligands, in place."""
    st.pp.spatial_weights(adata, microns_per_unit=section.microns_per_unit, n_jobs=n_jobs)
    st.pp.received_ligands(adata, priors.ligand_receptor, layer="log1p", ligand_tf=priors.ligand_tf, n_jobs=n_jobs)


def plant(adata: AnnData, targets: list[str], strength: float, *, seed: int) -> tuple[dict[str, str], float]:
    """Let each target follow a product, in place; returns the signal of each, and the median share of its variance."""
    rng = np.random.default_rng(seed)
    counts, values = adata.layers["counts"].toarray(), _dense(adata.layers["log1p"])
    depth, types = np.maximum(counts.sum(axis=1), 1), adata.obs["cell_type"].to_numpy()
    scale = np.expm1(values).sum(axis=1) / depth
    pairs = adata.uns[_keys.received_params(_keys.RECEIVED)]["pairs"].astype(str)
    field = operators(adata)
    counted = pd.Series((counts > 0).mean(axis=0), index=adata.var_names)
    pairs = pairs[~pairs["ligand"].isin(targets) & ~pairs["receptor"].isin(targets)]
    pairs = pairs[counted[pairs["receptor"]].to_numpy() > _LEAST_COUNTED]
    groups = [
        alike
        for rows in (np.flatnonzero(types == name) for name in np.unique(types))
        for alike in np.array_split(rows[np.argsort(depth[rows], kind="stable")], max(1, len(rows) // _ALIKE))
    ]
    planted, shares = {}, []
    for target, pair in zip(targets, pairs.sample(len(targets), random_state=seed).itertuples(), strict=True):
        name, column = _keys.signal_name(pair.ligand, pair.range), adata.var_names.get_loc(target)
        operator = field.contact if pair.range == _keys.CONTACT else field.secreted
        sent = values[:, [adata.var_names.get_loc(pair.ligand)]]
        received = (operator.apply(sent) - operator.own()[:, None] * sent)[:, 0]
        receptor = values[:, adata.var_names.get_loc(pair.receptor)]
        product = within_types(within_types(received, types) * receptor, types)
        wanted = strength * product + np.sqrt(1 - strength**2) * rng.normal(size=len(product))
        before = counts[:, column].copy()
        for alike in groups:
            by_count = alike[np.lexsort([rng.random(len(alike)), before[alike]])]
            counts[alike[np.argsort(wanted[alike])], column] = before[by_count]
        values[:, column] = np.log1p(counts[:, column] * scale)
        planted[target] = name
        beside, y = within_types(receptor, types), within_types(values[:, column], types)
        beyond = within_types(product - np.mean(product * beside) * beside, types)
        shares.append(float(np.mean(beyond * y) ** 2))
    adata.layers["counts"], adata.layers["log1p"] = sparse.csr_matrix(counts), values.astype(np.float32)
    return planted, float(np.median(shares))


def within_types(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Centred within types, over one standard deviation of what is left."""
    grouped = pd.Series(values).groupby(types)
    left = values - grouped.transform("mean").to_numpy()
    return left / max(left.std(), 1e-12)


def measure(
    adata: AnnData, priors: Priors, targets: list[str], planted: dict[str, str] | None, n_jobs: int | None
) -> dict[str, str]:
    """Test a section with received ligands."""
    st.pp.modulators(
        adata, priors.grn, ligand_tf=priors.ligand_tf, layer="log1p", targets=targets, cutoff=LIGAND_TF_CUTOFF
    )
    start = time.process_time()
    st.tl.test_signals(adata, layer="log1p", counts_layer="counts", n_jobs=n_jobs)
    print(f"  {time.process_time() - start:.0f} s of CPU", flush=True)
    table, by_target = st.get.signals(adata), st.get.signals(adata, per="target")
    p, called = table["p"].to_numpy(float), table["q"].to_numpy(float) < FDR
    for row in table[called].itertuples():
        print("  called:", row.target, row.signal, row.partner, f"p {row.p:.1e} q {row.q:.3f} effect {row.effect:.3f}")
    hit = [(planted or {}).get(t) == s for t, s in zip(table["target"], table["signal"], strict=True)]
    return {
        "tests": f"{len(p):,}",
        "p < 0.05": f"{(p < 0.05).mean():.3f}",
        "p < 0.01": f"{(p < 0.01).mean():.3f}",
        "called": str(int(called.sum())),
        "found": f"{int((called & hit).sum())} of {sum(hit)}" if planted else "-",
        "targets": f"{int((by_target['p'] < 0.05).sum())} of {len(by_target)}",
        "inflation": f"{by_target['inflation'].mean():.2f}",
    }


def rows(names: list[str], seed: int, n_jobs: int | None) -> pd.DataFrame:
    """One row for each section and what was done to it."""
    found = []
    for name in names:
        section = SECTIONS[name]
        adata, priors = load(section, seed=seed), fetch_priors(section.organism)
        targets = choose_targets(adata, priors)
        for variant in VARIANTS if name == EXCHANGED else VARIANTS[:1]:
            tissue = exchange(adata, targets, variant, seed=seed)
            receive(tissue, priors, section, n_jobs)
            row = {"section": section.title, "targets' counts": variant, "planted r2": "-"}
            found.append(row | measure(tissue, priors, targets, None, n_jobs))
            print(found[-1], flush=True)
        for strength in STRENGTHS if name == EXCHANGED else ():
            found.append(planted_row(adata, priors, targets, section, strength, seed, n_jobs))
            print(found[-1], flush=True)
    return pd.DataFrame(found)


def planted_row(
    adata: AnnData, priors: Priors, targets: list[str], section: Section, strength: float, seed: int, n_jobs: int | None
) -> dict[str, str]:
    """Shuffle all targets, plant a signal into some, and test those."""
    some = targets[:_N_PLANTED]
    tissue = exchange(adata, targets, "shuffled", seed=seed)
    receive(tissue, priors, section, n_jobs)
    planted, share = plant(tissue, some, strength, seed=seed)
    receive(tissue, priors, section, n_jobs)
    row = {"section": section.title, "targets' counts": f"planted, {strength:g}", "planted r2": f"{share:.3f}"}
    return row | measure(tissue, priors, some, planted, n_jobs)


def _dense(values: np.ndarray | sparse.spmatrix) -> np.ndarray:
    return np.array(values.toarray() if sparse.issparse(values) else values)
