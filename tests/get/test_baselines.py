"""Trivial rivals against what is computed by hand."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st

GENES = ["FOXO1", "STAT3", "CXCL12", "CXCR4"]


@pytest.fixture(scope="module")
def _screen(_fitted):
    return st.tl.genome_screen(_fitted, genes=GENES, n_jobs=1)


@pytest.fixture
def screen(_screen):
    return _screen.copy()


def test_mean(screen):
    found = st.get.baselines(screen)
    assert list(found) == ["mean", "expression_match"]
    mean = found["mean"]
    for layer in (None, "change_0", "change_1", "change_2"):
        values, ours = (a.X if layer is None else a.layers[layer] for a in (screen, mean))
        for p, name in enumerate(GENES):
            for g, gene in enumerate(screen.var_names):
                others = [values[q, g] for q in range(4) if GENES[q] != gene]
                expected = values[p, g] if name == gene else np.mean(others)
                assert ours[p, g] == pytest.approx(expected, abs=1e-6)
    assert mean.uns["screen"]["baseline"] == "mean"
    assert st.get.screen(mean, cell_type="B").n_obs == 4


def test_expression_match(screen):
    screen.obs["baseline"] = [1.0, 1.2, 5.0, 4.0]
    found = st.get.baselines(screen, kinds="expression_match")["expression_match"]
    assert found.obs["match"].tolist() == ["STAT3", "FOXO1", "CXCR4", "CXCL12"]
    plain = ~screen.var_names.isin(GENES)
    np.testing.assert_array_equal(found.X[0, plain], screen.X[1, plain])
    np.testing.assert_array_equal(found.X[3, plain], screen.X[2, plain])
    own = screen.var_names.get_loc("FOXO1")
    assert found.X[0, own] == screen.X[0, own]
    # what the other one set by hand is not taken over
    assert abs(found.X[1, own]) < abs(screen.X[0, own])


def test_no_neighbours(adata, screen):
    still = st.get.baselines(adata, kinds="no_neighbours", screen=screen)["no_neighbours"]
    assert still.obs_names.tolist() == GENES
    targets = screen.var["modelled"].to_numpy() & ~screen.var_names.isin(GENES)
    # a ligand acts through neighbours only
    assert not still["CXCL12"].X[0, targets].any()
    assert screen["CXCL12"].X[0, targets].any()
    # with one round nothing of a TF can have passed a neighbour
    one = {"n_propagation": 1, "genes": ["FOXO1"], "n_jobs": 1}
    np.testing.assert_array_equal(
        st.get.baselines(adata, kinds="no_neighbours", **one)["no_neighbours"].X,
        st.tl.genome_screen(adata, **one).X,
    )


def test_least_squares(adata):
    """One round of a TF that is no relay: the mean of its expression times the pooled slope."""
    screen = st.get.baselines(adata, kinds="least_squares", genes=["FOXO1"], n_propagation=1)["least_squares"]
    terms = adata.uns["betas"]["terms"]
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    value = pd.DataFrame(adata.layers["log1p"], columns=adata.var_names).astype(float)
    lr = adata.uns["received_ligands"]
    tfl = adata.uns["received_ligands_tfl"]
    checked = 0
    for target, rows in terms[terms["kind"] != "intercept"].groupby("target", observed=True):
        columns = []
        for row in rows.itertuples():
            signal = f"{row.ligand}|contact" if row.range == "contact" else row.ligand
            local = value[row.receptor] if row.kind == "lr" else value[row.tf]
            factor = {"tf": 1.0, "lr": lr.get(signal), "tfl": tfl.get(signal)}[row.kind]
            columns.append(local.to_numpy() * np.asarray(factor, dtype=float))
        x = np.column_stack([*[types == c for c in range(3)], *columns]).astype(float)
        slopes = np.linalg.lstsq(x, value[target].to_numpy(), rcond=None)[0][3:]
        of_gene = (rows["tf"] == "FOXO1").to_numpy()
        change = -(np.array(columns).T[:, of_gene] @ slopes[of_gene])
        base = value[target].to_numpy()
        expected = (np.clip(base + change, 0, base.max()) - base).mean()
        assert float(screen[:, target].X[0, 0]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
        checked += abs(expected) > 0.01
    assert checked >= 2


def test_stored_and_large_coefficients(adata, monkeypatch):
    expected = st.get.baselines(adata, genes=["FOXO1", "CXCL12"])
    adata.obsm["betas"] = da.from_array(adata.obsm["betas"], chunks=(-1, 7))
    monkeypatch.setattr("spacetravlr.models.evaluation._baselines._LOADED", 30_000)
    found = st.get.baselines(adata, genes=["FOXO1", "CXCL12"])
    for name, table in expected.items():
        np.testing.assert_allclose(found[name].X, table.X, atol=1e-6)


def test_options_of_the_screen_are_taken(adata):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "CXCL12"], mode="overexpression", n_propagation=2)
    found = st.get.baselines(adata, screen=screen)
    for table in found.values():
        assert table.uns["screen"]["mode"] == "overexpression"
        assert table.uns["screen"]["n_propagation"] == 2
        assert table.obs_names.tolist() == ["FOXO1", "CXCL12"]
        assert table.var_names.tolist() == screen.var_names.tolist()


def test_a_screen_that_names_knockouts_by_their_labels(adata, screen):
    expected = st.get.baselines(adata, screen=screen)
    named = screen.copy()
    named.obs_names = [f"{name}=0" for name in screen.obs_names]
    for name, table in st.get.baselines(adata, screen=named).items():
        np.testing.assert_allclose(table.X, expected[name].X, atol=1e-6)
        assert (st.tl.evaluate_perturbation(named, screen, baselines={name: table})["n_genes"] > 3).all()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(screen, tmp_path, suffix):
    table = st.get.baselines(screen)["expression_match"]
    st.io.write(table, tmp_path / f"rival.{suffix}")
    back = st.io.read(tmp_path / f"rival.{suffix}")
    np.testing.assert_array_equal(back.X, table.X)
    assert back.uns["screen"]["baseline"] == "expression_match"


def test_bad_input(adata, screen):
    with pytest.raises(ValueError, match="`kinds` to be one of 'mean'"):
        st.get.baselines(adata, kinds="best")
    with pytest.raises(ValueError, match="fitted tissue for the baseline 'no_neighbours', found a screen"):
        st.get.baselines(screen, kinds=["mean", "no_neighbours"])
    with pytest.raises(ValueError, match="`screen` to be a result of"):
        st.get.baselines(adata, screen=adata)
    with pytest.raises(ValueError, match="at least two perturbations"):
        st.get.baselines(screen[:1].copy(), kinds="expression_match")
    with pytest.raises(KeyError, match="FOXO9"):
        st.get.baselines(adata, genes=["FOXO9"])


def test_errors_of_a_screen_are_not_those_of_its_rivals(adata):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "STAT3"], show_progress_bar=False)
    for name in ("se", "q", "se_0", "q_0"):
        screen.layers[name] = np.ones(screen.shape)
    for rival in st.get.baselines(screen).values():
        assert not {"se", "q", "se_0", "q_0", "mean_abs_change"} & set(rival.layers)
        assert "change_0" in rival.layers
