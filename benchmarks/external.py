"""Whether coefficients and knockouts agree with what happens to cells that are perturbed.

``SPACETRAVLR_DATA=... python -m benchmarks.external --out docs/_tables/external.md``

The lung section is fitted with the options of :data:`FITS`, each on its layer, and held against measurements of the
folder ``external``: signed sets of genes that changed after perturbing a transcription factor (CREEDS), and mean log
fold changes after treatment with a cytokine (CytoSig). They decide which genes are modelled, and nothing else of a fit.
Correlation within cell types, least squares pooled over them and the prior network alone stand beside it. Intervals
are of the bootstrap over transcription factors and over ligands.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import spacetravlr as st
from benchmarks import _common as common
from benchmarks import _effects as effects
from benchmarks._effects import Question
from benchmarks._outside import Truth, compare_factors, compare_ligands, read_truth
from benchmarks._sections import LIGAND_TF_CUTOFF, SECTIONS, Priors, fetch_priors
from benchmarks.real_counts import load
from spacetravlr._anndata._received import read_received

#: Options of ``fit_betas`` by the name of their row; ``layer`` is also that of signals and modulators.
FITS: dict[str, dict[str, Any]] = {
    "fit, counts": {"layer": "log1p", "counts_layer": "counts"},
    "fit, measured values": {"layer": "log1p"},
    "fit, imputed values": {"layer": "imputed"},
}
QUICK = {"fit, measured values": {"layer": "log1p", "body": "seed"}}
NAMES = {"log1p": "measured values", "imputed": "imputed values"}
Rows = dict[str, dict[str, Any]]


def abundant_targets(adata: AnnData, truth: Truth, n: int) -> list[str]:
    """The ``n`` most abundant genes that both truths know."""
    in_sets = set().union(*(found.index for found in truth.factors.values()))
    total = pd.Series(np.asarray(np.expm1(adata.layers["log1p"]).sum(axis=0)).ravel(), index=adata.var_names)
    known = [gene for gene in adata.var_names if gene in truth.ligands.index and gene in in_sets]
    return list(total[known].sort_values(ascending=False, kind="stable").index[:n])


def prepared(
    adata: AnnData, priors: Priors, layer: str, targets: Sequence[str], *, n_jobs: int | None, **space: Any
) -> AnnData:
    """Signals and modulators from one layer, in a copy."""
    out = adata.copy()
    st.pp.spatial_weights(out, n_jobs=n_jobs, **space)
    st.pp.received_ligands(out, priors.ligand_receptor, layer=layer, ligand_tf=priors.ligand_tf, n_jobs=n_jobs)
    st.pp.modulators(out, priors.grn, ligand_tf=priors.ligand_tf, layer=layer, targets=targets, cutoff=LIGAND_TF_CUTOFF)
    return out


def asked(adata: AnnData, truth: Truth, grn: pd.DataFrame, targets: Sequence[str]) -> Question:
    """Factors with an edge to a target and with targets that changed and that did not; ligands that are received."""
    edges = grn[grn["target"].astype(str).isin(targets)]
    regulating = set(edges["tf"].astype(str)) & set(adata.var_names)
    changed = {name: np.isin(targets, list(found.index)).sum() for name, found in truth.factors.items()}
    factors = sorted(name for name, n in changed.items() if name in regulating and 0 < n < len(targets) - 1)
    received = read_received(adata).lr
    ligands = sorted(g for g in truth.ligands if g in adata.var_names and effects.signal(g, received) is not None)
    return Question(factors, ligands, list(targets))


def evaluate(
    adata: AnnData,
    priors: Priors,
    truth: Truth,
    fits: Mapping[str, dict[str, Any]],
    *,
    n_targets: int,
    seed: int,
    n_jobs: int | None,
    **space: Any,
) -> tuple[Rows, Rows]:
    """Rows of the two tables, factors and ligands, by name; ``adata`` has the layers that the fits name."""
    targets = abundant_targets(adata, truth, n_targets)
    layers = list(dict.fromkeys(options["layer"] for options in fits.values()))
    tissues = {layer: prepared(adata, priors, layer, targets, n_jobs=n_jobs, **space) for layer in layers}
    question = asked(tissues[layers[0]], truth, priors.grn, targets)
    measured = truth.ligands.loc[targets, list(question.ligands)]
    edges = effects.network(priors.grn, question)
    of_factors: Rows = {"network alone": {"edges": compare_factors(edges, truth.factors, seed=seed)}}
    of_ligands: Rows = {}

    def add(name: str, found: effects.Effects) -> None:
        of_factors[name] = {
            kind: compare_factors(values, truth.factors, seed=seed)
            for kind, values in (("coefficients", found.coefficients), ("knockouts", found.factors))
            if values is not None
        }
        of_ligands[name] = compare_ligands(found.ligands, measured, seed=seed)
        print(f"{name}: rank {of_ligands[name]['rank']}", file=sys.stderr, flush=True)

    for layer, tissue in tissues.items():
        plain = effects.correlation(tissue, question, layer)
        add(f"correlation, {NAMES[layer]}", plain)
        of_factors[f"correlation where the network has an edge, {NAMES[layer]}"] = {
            "coefficients": compare_factors(plain.coefficients * (edges != 0), truth.factors, seed=seed)
        }
        add(f"least squares, {NAMES[layer]}", effects.least_squares(tissue, question))
        for name, options in fits.items():
            if options["layer"] == layer:
                add(name, effects.fitted(tissue, question, options, seed=seed, n_jobs=n_jobs))
    return of_factors, of_ligands


def tables(of_factors: Rows, of_ligands: Rows) -> str:
    """Write the two markdown tables."""
    factors = []
    for name, row in of_factors.items():
        for kind, found in row.items():
            line = {"transcription factors": f"{name}: {kind}", "TFs": found["factors"], "AUC": found["auc"]}
            line |= {"AUC, sets of other TFs": found["others"], "difference": found["difference"]}
            chance = f"{found['by chance']:.3f}" if found["pairs"] else "-"
            factors.append(line | {"sign right": found["sign"], "by chance": chance, "pairs": found["pairs"]})
    columns = ("ligands", "with effects", "matched", "mismatched", "difference", "rank")
    titles = ("n", *columns[1:-1], "rank of the right one")
    ligands = [
        {"ligands": name, **dict(zip(titles, (row[column] for column in columns), strict=True))}
        for name, row in of_ligands.items()
    ]
    return "\n\n".join(common.markdown(pd.DataFrame(lines)) for lines in (factors, ligands))


def main(argv: list[str] | None = None) -> None:
    """Fit the lung section, compare, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=150, help="most abundant genes to model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-jobs", type=int)
    parser.add_argument(
        "--fits", nargs="+", choices=list(FITS), default=list(FITS), help="rows of fits, beside the others"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="few cells and targets, seeds only: does it run at all")
    args = parser.parse_args(argv)
    folder = st.settings.data_dir
    if folder is None or not (folder / "external").is_dir():
        parser.error("SPACETRAVLR_DATA names no folder with `external` in it")
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    section = SECTIONS["nsclc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = load(section, seed=args.seed)
        if args.quick:
            adata = adata[np.argsort(adata.obsm["spatial"].sum(axis=1))[:600]].copy()
        fits = QUICK if args.quick else {name: FITS[name] for name in args.fits}
        if any(options["layer"] == "imputed" for options in fits.values()):
            st.pp.impute(adata, layer="log1p", rng=args.seed, n_jobs=args.n_jobs)
        found = evaluate(
            adata, fetch_priors(section.organism), read_truth(folder / "external"), fits,
            n_targets=20 if args.quick else args.targets, seed=args.seed, n_jobs=args.n_jobs,
            microns_per_unit=section.microns_per_unit,
        )  # fmt: skip
    common.write(tables(*found), args.out)


if __name__ == "__main__":
    main()
