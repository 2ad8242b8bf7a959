"""Who sends a received signal: the parts add up to it, whichever engine is used."""

import numpy as np
import pytest

import spacetravlr as st


def tissue(method, normalize, **options):
    adata = st.datasets.simulated_tissue(n_cells=400, n_targets=1, rng=0, n_slides=2)
    st.pp.spatial_weights(adata, method=method, library_key="slide", **options)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p", normalize=normalize)
    return adata


@pytest.mark.parametrize(
    ("method", "normalize", "autocrine"),
    [("sparse", "sum", True), ("sparse", "row", False), ("grid", "mean", True), ("grid", "row", True)],
)
def test_parts_add_up(method, normalize, autocrine):
    adata = tissue(method, normalize, autocrine=autocrine)
    for signal in ("CXCL12", "CD80|contact"):
        whole = adata.uns["received_ligands"][signal].to_numpy()
        cells = st.get.senders(adata, signal, per_cell=True)
        assert list(cells.columns) == list(adata.obs["cell_type"].cat.categories)
        np.testing.assert_allclose(cells.sum(axis=1), whole, rtol=1e-4, atol=1e-4 * whole.max())
        table = st.get.senders(adata, signal)
        means = adata.obs.assign(signal=whole).groupby("cell_type", observed=True)["signal"].mean()
        np.testing.assert_allclose(table.groupby("receiver")["amount"].sum()[means.index], means, rtol=1e-4)
        np.testing.assert_allclose(table.groupby("receiver")["share"].sum(), 1, rtol=1e-6)
        own = table.groupby("receiver")["own"].sum().to_numpy()
        assert (own > 0).all() if autocrine else (own == 0).all()


def test_by_hand():
    adata = tissue("sparse", "sum")
    weights = adata.obsp["spatial_weights"].toarray()
    sent = adata[:, "CXCL12"].layers["log1p"].ravel()
    mask = (adata.obs["cell_type"] == "T cell").to_numpy()
    table = st.get.senders(adata, "CXCL12", receivers="cell_type == 'T cell'").set_index("sender")
    assert set(table["receiver"]) == {"T cell"}
    for sender, amount in table["amount"].items():
        from_these = (adata.obs["cell_type"] == sender).to_numpy()
        expected = (weights[np.ix_(mask, from_these)] @ sent[from_these]).mean()
        assert amount == pytest.approx(expected, rel=1e-5)
    assert table.loc["T cell", "own"] == pytest.approx(sent[mask].mean(), rel=1e-5)
    assert table["n_receivers"].eq(mask.sum()).all()
    by_slide = st.get.senders(adata, "CXCL12", groupby="slide").pivot(index="sender", columns="receiver")["amount"]
    assert by_slide.to_numpy()[0, 1] == by_slide.to_numpy()[1, 0] == 0


def test_bad_input():
    adata = tissue("sparse", "sum")
    with pytest.raises(KeyError, match="CXCL1"):
        st.get.senders(adata, "CXCL1")
    with pytest.raises(KeyError, match="nowhere"):
        st.get.senders(adata, "CXCL12", groupby="nowhere")
    with pytest.raises(ValueError, match="at least one cell"):
        st.get.senders(adata, "CXCL12", receivers="cell_type == 'nobody'")
    del adata.obs["cell_type"]
    with pytest.raises(ValueError, match="groupby"):
        st.get.senders(adata, "CXCL12")
    with pytest.raises(KeyError, match="st.pp.received_ligands"):
        st.get.senders(st.datasets.simulated_tissue(n_cells=200), "CXCL12")
