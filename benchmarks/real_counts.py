"""What regulators explain on real sections beyond cell type and smooth position, and on sections where they cannot.

``SPACETRAVLR_DATA=... python -m benchmarks.real_counts --out docs/_tables/real_counts.md``

Measured counts of four sections, 20 targets each: the ten most abundant and the ten most variable genes that have a
measured regulator. Three rows a section: as it is; *shuffled*, counts of the targets permuted among cells of a type
that were counted about as deeply; *moved*, each cell with the counts of the cell of its type and depth nearest to where
it would be after the section was shifted. In the second nothing regulates, in the third nothing does here, while
targets stay as smooth as they are.

**kept**: targets that keep a model. **position**: held-out R2 of type and smooth position, **with regulators** of the
model; **reported** of what is kept; each against the mean of the type, median over targets. **ceiling**: share of the
variance within types that is not counting noise. **active**: terms called at a false discovery rate of 0.1, by kind;
**varying**: those among the called whose coefficient varies, at the same rate; **effects**: mean changes by target and
cell type that are called when genes with a called term (at most 30) are knocked out, of so many.

``--replicate``: the section as it is, fitted on two halves of its counts. **agree**: median over targets of the
agreement of coefficients, and over knockouts of that of mean effects; **active in both**: of the terms called in either
half.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import spacetravlr as st
from benchmarks import _common as common
from benchmarks._sections import LIGAND_TF_CUTOFF, SECTIONS, Priors, Section, fetch_priors, normalise, variable_targets
from spacetravlr._core.inference.nulls import counts_at_depth, moved_sources, shuffle_sources

Variant = Literal["as it is", "shuffled", "moved"]
VARIANTS: tuple[Variant, ...] = ("as it is", "shuffled", "moved")
FDR, N_DRAWS, MOST_GENES = 0.1, 10, 30
_SHIFT = np.array([0.5, 0.37])  # of the extent


def load(section: Section, *, seed: int) -> AnnData:
    """Normalise a section, and keep its counts."""
    adata = normalise(section, seed=seed)
    raw = section.read()
    raw.var_names_make_unique()
    adata.layers["counts"] = sparse.csr_matrix(raw[adata.obs_names, adata.var_names].X)
    return adata


def choose_targets(adata: AnnData, priors: Priors) -> list[str]:
    """The ten most abundant and the ten most variable genes with a measured regulator."""
    variable = variable_targets(adata, priors.grn, adata.n_vars)
    abundance = pd.Series(np.asarray(adata.layers["counts"].mean(axis=0)).ravel(), index=adata.var_names)
    abundant = list(abundance[variable].sort_values(ascending=False).index[:10])
    return list(dict.fromkeys([*abundant, *variable]))[:20]


def exchange(adata: AnnData, targets: list[str], variant: Variant, *, seed: int) -> AnnData:
    """Give cells the targets' counts of others of their type, at their own depth."""
    if variant == "as it is":
        return adata
    out, rng = adata.copy(), np.random.default_rng(seed)
    counts = out.layers["counts"].toarray()
    depth = np.maximum(counts.sum(axis=1), 1)
    xyz = np.asarray(out.obsm["spatial"], dtype=float)
    types = out.obs["cell_type"].astype("category").cat.codes.to_numpy()
    if variant == "moved":
        sources = moved_sources(xyz, _SHIFT[: xyz.shape[1]], types)
    else:
        sources = shuffle_sources(types, rng, order_by=depth)
    columns = out.var_names.get_indexer(targets)
    values = out.layers["log1p"]
    values = np.array(values.toarray() if sparse.issparse(values) else values)
    scale = np.expm1(values).sum(axis=1) / depth
    counts[:, columns] = counts_at_depth(counts[:, columns], sources, depth, rng)
    values[:, columns] = np.log1p(counts[:, columns] * scale[:, None])
    out.layers["counts"], out.layers["log1p"] = sparse.csr_matrix(counts), values.astype(np.float32)
    return out


def measure(adata: AnnData, priors: Priors, targets: list[str], section: Section, n_jobs: int | None) -> dict[str, str]:
    """Fit the counts, and say what came out."""
    st.pp.spatial_weights(adata, microns_per_unit=section.microns_per_unit, n_jobs=n_jobs)
    st.pp.received_ligands(adata, priors.ligand_receptor, layer="log1p", ligand_tf=priors.ligand_tf, n_jobs=n_jobs)
    st.pp.modulators(
        adata, priors.grn, ligand_tf=priors.ligand_tf, layer="log1p", targets=targets, cutoff=LIGAND_TF_CUTOFF
    )
    st.tl.fit_betas(adata, layer="log1p", counts_layer="counts", n_jobs=n_jobs)
    scores, terms = common.scores_by_target(adata), adata.uns["betas"]["terms"]
    called = terms[terms["active"].astype(bool)]["kind"].astype(str).value_counts()
    return {
        "kept": f"{int((scores['kept'] == 'pooled').sum())} of {len(scores)}",
        "ceiling": f"{scores['ceiling'].median():.2f}",
        "position": f"{scores['r2_field'].median():.3f}",
        "with regulators": f"{scores['r2_pooled'].median():.3f}",
        "reported": f"{scores['r2_kept'].median():.3f}",
        "active": ", ".join(
            f"{kind} {called[kind]}" for kind in ("tf", "lr", "tfl", "receptor", "ligand") if kind in called
        ),
        "varying": str(int((terms["active"].astype(bool) & (terms["q_varies"] <= FDR)).sum())),
        "effects": called_effects(adata, n_jobs),
    }


def called_effects(adata: AnnData, n_jobs: int | None) -> str:
    """Effects of knockouts by target and cell type that are called, of how many: of genes with a term that is."""
    terms = adata.uns["betas"]["terms"]
    called = terms[terms["active"].astype(bool) & terms["kind"].astype(str).isin(["tf", "lr", "tfl"])]
    genes = sorted(set(called[["tf", "ligand", "receptor"]].astype(str).to_numpy().ravel()) - {""})[:MOST_GENES]
    if not genes:
        return "0"
    screen = st.tl.genome_screen(adata, genes=genes, n_samples=N_DRAWS, n_propagation=1, n_jobs=n_jobs)
    q = np.stack([screen.layers[f"q_{i}"] for i in range(len(screen.uns["screen"]["cell_types"]))])
    q = q[:, :, screen.var["modelled"].to_numpy(bool)]
    return f"{int((q <= FDR).sum())} of {int(np.isfinite(q).sum()):,}"


def replicated(adata: AnnData, n_jobs: int | None) -> dict[str, str]:
    """How far two halves of the counts agree."""
    st.tl.replicate(adata, n_jobs=n_jobs)
    targets, effects = adata.uns["replicate"]["targets"], adata.uns["replicate"]["effects"]
    kept = (targets["kept_a"].astype(str) != "zero") & (targets["kept_b"].astype(str) != "zero")
    return {
        "kept in both": f"{int(kept.sum())} of {len(targets)}",
        "explained": common.mean_spread([targets["explained"].median()]),
        "coefficients agree": common.mean_spread([targets["coefficients"].median()]),
        "of those kept in both": common.mean_spread([targets.loc[kept, "coefficients"].median()]),
        "active in both": common.mean_spread([targets["active_jaccard"].median()]),
        "mean effects agree": common.mean_spread([effects["mean_effects"].median()]),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure every section and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-jobs", type=int)
    parser.add_argument("--replicate", action="store_true", help="two halves of the counts instead")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in args.sections:
            section = SECTIONS[name]
            adata, priors = load(section, seed=args.seed), fetch_priors(section.organism)
            targets = choose_targets(adata, priors)
            for variant in VARIANTS[:1] if args.replicate else VARIANTS:
                tissue = exchange(adata, targets, variant, seed=args.seed)
                found = measure(tissue, priors, targets, section, args.n_jobs)
                row = {"section": section.title, "targets": variant} | found
                if args.replicate:
                    row = {"section": section.title, "kept": found["kept"]} | replicated(tissue, args.n_jobs)
                rows.append(row)
                print(rows[-1], flush=True)
    common.write(common.markdown(pd.DataFrame(rows)), args.out)


if __name__ == "__main__":
    main()
