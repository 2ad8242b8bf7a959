"""What the package explains on real sections, how long it takes and how much memory it needs.

``SPACETRAVLR_DATA=... python -m benchmarks.real_tissue --out docs/_tables/real_tissue.md --figures docs/_static/real``

Every section runs in a process of its own: normalise, cluster where there are no cell types, impute, read the prior
tables of the organism, received ligands, modulators, fit, one knockout, arrows, a screen of ten genes, figures. R2 is
held out, in spatial blocks that took no part in any choice, against the mean of the cell type; its median over targets.
The last R2 column is against expression before imputation, which leaks into it all the same; that of networks is over
the targets that keep one.

``--sections nsclc --targets 1000 --screen 0`` takes every gene with a regulator and screens every gene with a role.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from anndata import AnnData

import spacetravlr as st
from benchmarks import _common as common
from benchmarks._sections import LIGAND_TF_CUTOFF, SECTIONS, fetch_priors, normalise, variable_targets

BODIES = ("zero", "seed", "surface", "network", "kept")


def run(
    name: str, *, n_targets: int, screened: int | None, body: str, seed: int, n_jobs: int | None, figures: Path | None
) -> dict[str, Any]:
    """Take one section through the whole pipeline; what a user would type, with the time of each step."""
    section, watch = SECTIONS[name], common.Stopwatch()
    with watch("normalise"):
        adata = normalise(section, seed=seed)
        grn, lr, ligand_tf = fetch_priors(section.organism)
        targets = variable_targets(adata, grn, n_targets)
    with watch("impute"):
        st.pp.impute(adata, layer="log1p", rng=seed, n_jobs=n_jobs, key_added="imputed")
    with watch("space"):
        st.pp.spatial_weights(adata, microns_per_unit=section.microns_per_unit, n_jobs=n_jobs)
        st.pp.received_ligands(adata, lr, layer="imputed", ligand_tf=ligand_tf, n_jobs=n_jobs)
        st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer="imputed", targets=targets, cutoff=LIGAND_TF_CUTOFF)
    with watch("fit"):
        st.tl.fit_betas(adata, body=body, raw_layer="log1p", rng=seed, n_jobs=n_jobs)
    gene = strongest(adata, 1)[0]
    with watch("knockout"):
        st.tl.perturb(adata, {gene: 0}, n_jobs=n_jobs)
        st.tl.perturbation_vectors(adata, basis="spatial", rng=seed, n_jobs=n_jobs)
    with watch("screen"):
        screen = st.tl.genome_screen(adata, genes=strongest(adata, screened), mode="knockout", n_jobs=n_jobs)
    if figures is not None:
        with watch("figures"):
            draw(adata, screen, gene, figures / name)
    return {
        "section": section.title,
        "cells": adata.n_obs,
        "types": adata.obs["cell_type"].nunique(),
        **explained(adata),
        "knocked out": gene,
        "screened": screen.n_obs,
        "seconds": watch.seconds,
        "memory": common.peak_memory_gb(),
    }


def strongest(adata: AnnData, n: int | None) -> list[str]:
    """The ``n`` perturbable genes that matter most: transcription factors first, by importance over all targets.

    All of them, where ``n`` is None.
    """
    terms = adata.uns["betas"]["terms"]
    own = terms[terms["kind"].astype(str) == "tf"]
    ranked = own["importance"].astype(float).groupby(own["tf"].astype(str)).sum().sort_values(ascending=False)
    others = [gene for gene in st.tl.possible_targets(adata) if gene not in ranked.index]
    return [*ranked.index, *others][:n]


def explained(adata: AnnData) -> dict[str, Any]:
    """Held-out scores and what was kept."""
    scores, by_target = st.get.scores(adata), common.scores_by_target(adata)
    terms = adata.uns["betas"]["terms"]
    counts = terms["target"].astype(str).value_counts() - 1  # the intercept is not a modulator
    medians = {f"r2_{body}": float(by_target[f"r2_{body}"].median()) for body in BODIES if f"r2_{body}" in by_target}
    raw = [column for column in by_target if column.startswith("r2_") and column.endswith("_raw")]
    return {
        "targets": len(by_target),
        "modulators": float(counts.median()),
        "distinct": len(terms[terms["kind"].astype(str) != "intercept"].drop_duplicates(common.TERM[1:])),
        **medians,
        "r2_raw": float(by_target[raw[-1]].median()) if raw else float("nan"),
        "kept": scores["kept"].astype(str).value_counts(normalize=True).to_dict(),
    }


def draw(adata: AnnData, screen: AnnData, gene: str, stem: Path) -> None:
    """Draw a coefficient map, the scores, the arrows and the screen."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    stem.parent.mkdir(parents=True, exist_ok=True)
    terms = adata.uns["betas"]["terms"]
    own = terms[(terms["kind"].astype(str) == "tf") & (terms["tf"].astype(str) == gene)]
    target = str(own.loc[own["importance"].astype(float).idxmax(), "target"])
    pictures = {
        "betas": lambda ax: st.pl.betas(adata, target=target, modulator=gene, ax=ax),
        "scores": lambda ax: st.pl.scores(adata, ax=ax),
        "vectors": lambda ax: st.pl.perturbation_vectors(adata, basis="spatial", color="cell_type", ax=ax),
        "screen": lambda ax: st.pl.screen(screen, ax=ax),
    }
    for name, picture in pictures.items():
        figure, ax = plt.subplots(figsize=(7, 6), layout="constrained")
        picture(ax)
        figure.savefig(f"{stem}_{name}.png", dpi=110)
        plt.close(figure)


def tables(results: list[dict[str, Any]]) -> str:
    """Write what was found and what it cost, as two markdown tables."""
    found, cost = [], []
    for result in results:
        kept = ", ".join(f"{body} {100 * share:.0f} %" for body, share in result["kept"].items())
        r2 = {
            f"R2 {body}{', where kept' if body == 'network' else ''}": f"{result.get(f'r2_{body}', float('nan')):.3f}"
            for body in BODIES
        }
        found.append(
            {
                "section": result["section"],
                "cells": result["cells"],
                "types": result["types"],
                "targets": result["targets"],
                "modulators per target": f"{result['modulators']:.0f}",
                **r2,
                "R2 kept, not imputed": f"{result['r2_raw']:.3f}",
                "kept (target, type)": kept,
            }
        )
        seconds = {f"{stage}, s": f"{value:.1f}" for stage, value in result["seconds"].items()}
        per_target = f"{result['seconds']['fit'] / result['targets']:.2f}"
        cost.append(
            {"section": result["section"], "distinct modulators": result["distinct"], "screened": result["screened"]}
            | seconds
            | {"fit, s per target": per_target, "peak memory, GB": f"{result['memory']:.1f}"}
        )
    return "\n\n".join(common.markdown(pd.DataFrame(rows).fillna("-").replace("nan", "-")) for rows in (found, cost))


def main(argv: list[str] | None = None) -> None:
    """Run the sections one after another, each in its own process, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--targets", type=int, default=100, help="most variable genes to model")
    parser.add_argument("--screen", type=int, default=10, help="genes to screen, the strongest first; 0 for all")
    parser.add_argument("--body", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-jobs", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # where a process of one section writes
    args = parser.parse_args(argv)
    options = {"n_targets": args.targets, "screened": args.screen or None, "body": args.body, "seed": args.seed}
    options["n_jobs"] = args.n_jobs
    if args.result is not None:
        st.settings.show_progress_bar = False
        logging.getLogger("spacetravlr").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = run(args.sections[0], figures=args.figures, **options)
        args.result.write_text(json.dumps(result))
        return
    passed_on = sys.argv[1:] if argv is None else argv
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.sections:
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "benchmarks.real_tissue", *passed_on]
            subprocess.run([*command, "--sections", name, "--result", str(path)], check=True)
            results.append(json.loads(path.read_text()))
            print(json.dumps(results[-1]), flush=True)
    common.write(tables(results), args.out)


if __name__ == "__main__":
    main()
