"""Draw the figure of README and start page: ``python docs/lung_figure.py lung.h5ad``.

``lung.h5ad`` is ``adata`` of the tutorial ``lung_cosmx`` after its fit, written with ``st.io.write``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

import spacetravlr as st

OUT = Path(__file__).parent / "_static" / "lung.png"


def main() -> None:
    """Four panels: cell types, a received signal, a coefficient, a knockout."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import squidpy as sq

    adata = st.io.read(sys.argv[1])
    st.tl.perturb(adata, {"JUN": 0}, n_propagation=1, n_samples=20)
    figure, axes = plt.subplots(
        1, 4, figsize=(17, 5.2), layout="constrained", gridspec_kw={"width_ratios": [1.35, 1, 1, 1]}
    )
    sq.pl.spatial_scatter(adata, color="cell_type", shape=None, size=7, ax=axes[0], frameon=False, title="cell types")
    axes[0].set_aspect("equal")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles, labels, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0].set(xlabel="", ylabel="")
    st.pl.received_ligands(adata, "COL1A2|contact", ax=axes[1])
    st.pl.betas(adata, "FOS", "JUN", mask="insignificant", ax=axes[2])
    st.pl.perturbation(adata, "FOS", ax=axes[3])
    figure.savefig(OUT, dpi=75, bbox_inches="tight")


if __name__ == "__main__":
    main()
