"""Draw the picture of every plot function that its page shows: ``python docs/gallery.py``.

A simulated tissue with counts goes through the whole session once. Look at the pictures before they are committed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from anndata import AnnData

import spacetravlr as st

FOLDER = Path(__file__).parent / "_static" / "pl"
DPI = 70


def central(adata: AnnData) -> str:
    """Name of the cell nearest to the middle."""
    xy = adata.obsm["spatial"]
    return str(adata.obs_names[((xy - xy.mean(axis=0)) ** 2).sum(axis=1).argmin()])


PICTURES: dict[str, Callable[[AnnData, AnnData], object]] = {
    "spatial_weights": lambda a, s: st.pl.spatial_weights(a),
    "received_ligands": lambda a, s: st.pl.received_ligands(a, ["CXCL12", "TGFB1"]),
    "niche": lambda a, s: st.pl.niche(a, central(a)),
    "scores": lambda a, s: st.pl.scores(a),
    "modulators": lambda a, s: st.pl.modulators(a, "PAX5"),
    "betas": lambda a, s: st.pl.betas(a, "PAX5", ["FOXO1", "STAT3"]),
    "signals": lambda a, s: st.pl.signals(a),
    "signalling": lambda a, s: st.pl.signalling(a),
    "perturbation": lambda a, s: st.pl.perturbation(a, "PAX5"),
    "perturbation_effects": lambda a, s: st.pl.perturbation_effects(a),
    "perturbation_vectors": lambda a, s: st.pl.perturbation_vectors(a, basis="spatial"),
    "screen": lambda a, s: st.pl.screen(s),
    "drivers": lambda a, s: st.pl.drivers(a),
    "microniches": lambda a, s: st.pl.microniches(a),
}


def session() -> tuple[AnnData, AnnData]:
    """Everything that the pictures show."""
    adata = st.datasets.simulated_tissue(n_cells=2500, depth=7, rng=0)
    grn, ligand_receptor, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, radius=200, contact_radius=30)
    st.pp.received_ligands(adata, ligand_receptor, layer="log1p")
    st.pp.niche(adata)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, cluster_key="cell_type")
    st.tl.fit_betas(adata, counts_layer="counts", rng=0)
    st.tl.test_signals(adata, counts_layer="counts")
    st.tl.perturb(adata, {"FOXO1": 0}, n_samples=20)
    st.tl.perturbation_vectors(adata, basis="spatial", rng=0)
    st.tl.drivers(adata, {"PAX5": 1.0})
    st.tl.microniches(adata, rng=0)
    return adata, st.tl.genome_screen(adata, mode="knockout")


def main() -> None:
    """Draw all, or those that are named."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    st.settings.show_progress_bar = False
    FOLDER.mkdir(parents=True, exist_ok=True)
    adata, screen = session()
    for name in sys.argv[1:] or PICTURES:
        plt.close("all")
        PICTURES[name](adata, screen)
        plt.gcf().savefig(FOLDER / f"{name}.png", dpi=DPI, bbox_inches="tight")
        print(name)


if __name__ == "__main__":
    main()
