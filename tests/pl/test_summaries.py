"""Bars, violins, rankings and flows show the numbers of their tables."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import spacetravlr as st
from spacetravlr.pl._colors import ROLE_COLORS


def with_ceiling(adata):
    scores = adata.uns["betas"]["scores"]
    scores["r2_field"], scores["r2_pooled"] = scores["r2_seed"], scores["r2_surface"]
    scores["ceiling"] = 0.9
    scores["explained"], scores["explained_low"], scores["explained_high"] = scores["r2_kept"] / 0.9, 0.1, 0.6
    return adata


def test_titles_of_modulators_have_cells_and_r2(adata):
    scores = adata.uns["betas"]["scores"].query("target == 'PAX5'").set_index("cell_type")
    for ax in st.pl.modulators(adata, "PAX5"):
        name, quality = ax.get_title().splitlines()
        n = (adata.obs["cell_type"] == name).sum()
        assert quality == f"{n} cells, held-out R² {scores.loc[name, 'r2_kept']:.2f}"
    with_ceiling(adata)
    assert st.pl.modulators(adata, "PAX5", "B cell").get_title().endswith("(ceiling 0.90)")
    adata.uns["log1p"] = {"n_neighbors": 5, "n_steps": 2, "method": "diffusion"}
    assert st.pl.modulators(adata, "PAX5", "B cell").get_title().endswith("of imputed values")
    assert "of imputed values" in st.pl.scores(adata).get_xlabel()


def test_no_legend_lies_over_the_bars(adata):
    for options in ({}, {"ax": plt.subplots(figsize=(4, 4))[1]}):
        ax = st.pl.modulators(adata, "PAX5", "all", **options)
        ax.figure.canvas.draw()
        legend = ax.get_legend() or ax.figure.legends[0]
        assert not legend.get_window_extent().overlaps(ax.get_window_extent())


@pytest.mark.parametrize("n", [5, 300])
def test_rankings_of_few_and_of_many_targets(adata, n):
    scores = with_ceiling(adata).uns["betas"]["scores"]
    one = scores[scores["target"] == "PAX5"]
    many = np.repeat(np.arange(n), len(one))
    table = one.iloc[np.tile(np.arange(len(one)), n)].assign(target=[f"gene{i}" for i in many])
    table["r2_kept"] = np.linspace(0, 0.5, n)[many]
    table["kept"] = np.where(many == 0, "zero", "pooled")
    adata.uns["betas"]["scores"] = table
    ax = st.pl.scores(adata, kind="ranking")
    ax.figure.canvas.draw()
    if n == 5:
        assert [t.get_text() for t in ax.get_yticklabels()] == [f"gene{i}" for i in range(n)][::-1]
        widths = [p.get_width() for p in ax.patches]
        assert "no model kept (mean of the type)" in [t.get_text() for t in ax.get_legend().get_texts()]
        np.testing.assert_allclose(widths[:n], 0.9)
        np.testing.assert_allclose(widths[n:], np.linspace(0, 0.5, n)[::-1], atol=1e-12)
        assert "56 % (10 to 60)" in [t.get_text() for t in ax.texts]
    else:
        line = next(line for line in ax.lines if line.get_label() == "with regulators")
        np.testing.assert_allclose(line.get_ydata(), np.linspace(0, 0.5, n)[::-1], atol=1e-12)
        assert ax.get_xlabel() == "300 targets, the best first (299 with a model)"
    assert ax.figure.get_size_inches().max() < 8


def test_violins_have_the_means_of_the_table(adata):
    st.tl.perturb(adata, "FOXO1")
    ax = st.pl.perturbation_effects(adata, ["PAX5", "MS4A1"], kind="violin")
    table = st.get.perturbation_effect(adata).set_index(["gene", "group"])
    types = list(adata.obs["cell_type"].cat.categories)
    bars = [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2][: 2 * len(types)]
    expected = [table.loc[(g, t), "change"] / table.loc[(g, t), "sd"] for t in types for g in ("PAX5", "MS4A1")]
    np.testing.assert_allclose(bars, expected, rtol=1e-3)
    one = st.pl.perturbation_effects(adata, "PAX5", kind="violin", cell_type="B cell")
    assert [t.get_text() for t in one.get_legend().get_texts()] == ["B cell"]
    with pytest.raises(KeyError, match="the genes that the perturbation changes"):
        st.pl.perturbation_effects(adata, "CXCL12", kind="violin")
    assert st.pl.perturbation_effects(adata, ["PAX5"]).images[0].get_array().shape[0] == 1


def test_all_roles_of_a_gene_are_colours(adata):
    screen = st.tl.genome_screen(adata, save_to=None, genes=["FOXO1", "CXCL12", "CXCR4"])
    screen.obs["is_ligand"] = screen.obs["is_ligand"] | (screen.obs_names == "FOXO1")
    roles = {g: [r for r in ROLE_COLORS if screen.obs.loc[g, f"is_{r}"]] for g in screen.obs_names}
    assert len(roles["FOXO1"]) == 2
    ax = st.pl.screen(screen, kind="ranking")
    assert len(ax.patches) == sum(map(len, roles.values()))
    heat = st.pl.screen(screen)
    squares = [line for line in heat.lines if line.get_marker() == "s"]
    assert sum(len(line.get_ydata()) for line in squares) == sum(map(len, roles.values()))


def test_senders_add_up(adata):
    ax = st.pl.senders(adata, "CXCL12")
    table = st.get.senders(adata, "CXCL12")
    total = (table["amount"] * table["n_receivers"]).groupby(table["sender"], sort=False).sum()
    texts = [text.get_text() for text in ax.texts]
    for name, share in (total / total.sum()).items():
        assert f"{name}  {share:.0%}" in texts
    per_cell = st.pl.senders(adata, "CXCL12", per="cell", min_share=1.0)
    assert len(per_cell.patches) <= 2 * table["sender"].nunique()
    assert "mean received per cell" in per_cell.get_title()
    adata.layers["log1p"][:, adata.var_names.get_loc("CXCL12")] = 0
    assert "no CXCL12 arrives" in [t.get_text() for t in st.pl.senders(adata, "CXCL12").texts]
