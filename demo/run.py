"""The whole pipeline on a simulated tissue, or on a section of yours: ``python demo/run.py [--data section.h5ad]``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
from figures import draw
from recovery import recovery
from tissue import CELL_TYPE, Case, section, simulated

import spacetravlr as st

SECONDS: dict[str, float] = {}


def main() -> None:
    """Run every step, print what came out, write figures and the annotated data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="an .h5ad with raw counts in X and coordinates in obsm['spatial']")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for figures and the .h5ad")
    parser.add_argument("--microns-per-unit", type=float, default=1.0, help="what one unit of the coordinates is")
    parser.add_argument("--targets", type=int, default=20, help="genes to model on your section")
    parser.add_argument("--body", default="auto", help="auto or pooled; for values without counts surface, cnn or vit")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    mpl.use("Agg")
    arguments.out.mkdir(parents=True, exist_ok=True)

    with stage("data"):
        if arguments.data is None:
            case = simulated(rng=arguments.seed)
        else:
            case = section(arguments.data, n_targets=arguments.targets, rng=arguments.seed)
    adata = case.adata
    print(f"{adata.n_obs} cells x {adata.n_vars} genes, {adata.obs[CELL_TYPE].nunique()} cell types")

    fit(case, microns_per_unit=arguments.microns_per_unit, body=arguments.body, rng=arguments.seed)
    report_scores(adata)
    if case.ligand_tf is not None and "true_betas" in adata.obsm:
        print("\nRecovery of the regulation that the tissue was simulated with:")
        print(recovery(adata).to_string(float_format="{:.2f}".format))

    knocked_out = strongest_regulator(adata) if arguments.data else "FOXO1"
    target = strongest_target(adata, knocked_out)
    perturb(adata, knocked_out, rng=arguments.seed)
    with stage("screen of ten genes"):
        genes = ranked_regulators(adata)[:10]
        screen = st.tl.genome_screen(adata, genes=genes)
    with stage("figures"):
        paths = draw(adata, screen, regulator=knocked_out, target=target, folder=arguments.out)
    with stage("write and reopen"):
        write_and_reopen(adata, arguments.out / "demo.h5ad")

    print("\nSeconds per stage: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in SECONDS.items()))
    print(f"{len(paths)} figures and demo.h5ad are in {arguments.out}/")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a stage."""
    start = time.perf_counter()
    yield
    SECONDS[name] = time.perf_counter() - start


def fit(case: Case, *, microns_per_unit: float, body: str, rng: int) -> None:
    """From coordinates to coefficients."""
    adata = case.adata
    with stage("spatial weights"):
        st.pp.spatial_weights(adata, radius=200, contact_radius=30, microns_per_unit=microns_per_unit)
    with stage("received ligands"):
        st.pp.received_ligands(adata, case.ligand_receptor, layer="log1p")
    with stage("modulators"):
        st.pp.modulators(
            adata, case.grn, ligand_tf=case.ligand_tf, cluster_key=CELL_TYPE, targets=case.targets, cutoff=case.cutoff
        )
    counts = adata.uns["modulators"]["table"].groupby("kind", observed=True).size()
    print("modulators: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    with stage("fit"):
        # counts where they are at hand: their noise is taken into account
        counts_layer = "counts" if "counts" in adata.layers else None
        st.tl.fit_betas(adata, body=body, counts_layer=counts_layer, rng=rng)


def report_scores(adata: ad.AnnData) -> None:
    """Held-out accuracy of each kind of coefficients, on CV blocks that took no part in any choice."""
    scores = st.get.scores(adata)
    print(f"\nHeld-out R2 over {scores['target'].nunique()} targets, one row per target and cell type (median):")
    columns = [name for name in scores.columns if name.startswith("r2_") and scores[name].notna().any()]
    columns += [name for name in ("ceiling", "explained") if name in scores]
    medians = (
        scores[columns]
        .median()
        .rename(
            {
                "r2_network": "r2_network, where kept",
                "r2_field": "r2_field, type and position",
                "ceiling": "ceiling, not counting noise",
                "explained": "explained, of the ceiling",
            }
        )
    )
    print(medians.to_string(float_format="{:.3f}".format))
    print("kept: " + ", ".join(f"{kind} {n}" for kind, n in scores["kept"].value_counts().items()))


def ranked_regulators(adata: ad.AnnData) -> list[str]:
    """Transcription factors by the sum of their importances over targets: those called active first."""
    terms = adata.uns["betas"]["terms"]
    factors = terms[terms["kind"] == "tf"].assign(active=terms["active"].astype(bool))
    ranks = factors.groupby("tf", observed=True)[["active", "importance"]].agg({"active": "any", "importance": "sum"})
    return list(ranks.sort_values(["active", "importance"], ascending=False).index.astype(str))


def strongest_regulator(adata: ad.AnnData) -> str:
    """The transcription factor that matters most over all targets."""
    return ranked_regulators(adata)[0]


def strongest_target(adata: ad.AnnData, regulator: str) -> str:
    """The target on which ``regulator`` matters most."""
    terms = adata.uns["betas"]["terms"]
    own = terms[(terms["kind"] == "tf") & (terms["tf"] == regulator)]
    return str(own.loc[own["importance"].astype(float).idxmax(), "target"])


def perturb(adata: ad.AnnData, gene: str, *, rng: int) -> None:
    """Knock a gene out everywhere, and compute its vector field on the tissue."""
    with stage("knockout"):
        st.tl.perturb(adata, {gene: 0})
    with stage("arrows"):
        st.tl.perturbation_vectors(adata, basis="spatial", rng=rng)
    effects = st.get.ranked_effects(adata, n_top=8)
    print(f"\nKnockout of {gene}; the largest changes, weighted by held-out R2:")
    columns = ["gene", "change", "baseline", "effect", "r2"]
    print(effects[columns].to_string(index=False, float_format="{:.3f}".format))


def write_and_reopen(adata: ad.AnnData, path: Path) -> None:
    """Write everything, read it again, and check that the coefficients are the same."""
    st.io.write(adata, path)
    again = st.io.read(path)
    np.testing.assert_array_equal(np.asarray(again.obsm["betas"]), np.asarray(adata.obsm["betas"]))
    pd.testing.assert_frame_equal(st.get.scores(again), st.get.scores(adata), check_dtype=False)
    pd.testing.assert_frame_equal(again.to_df("perturbed"), adata.to_df("perturbed"))


if __name__ == "__main__":
    main()
