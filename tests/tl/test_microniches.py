"""Microniches: found where they were planted, and nowhere else."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import spacetravlr as st

FAST = {"n_draws": 6, "max_niches": 4}


@pytest.fixture
def tissue(adata):
    """Coefficients by hand: two niches of B cells, left and right; T cells all alike; stroma along a gradient."""
    rng = np.random.default_rng(0)
    terms = adata.uns["betas"]["terms"]
    terms["active"] = True
    adata.uns["betas"]["scores"]["kept"] = "pooled"
    types = adata.obs["cell_type"].astype(str).to_numpy()
    x = adata.obsm["spatial"][:, 0]
    n, m = adata.obsm["betas"].shape
    sign, level = rng.choice([-1.0, 1.0], m), rng.uniform(0.5, 1, m)
    planted = np.zeros(n, dtype=int)
    values = np.tile(level, (n, 1))
    b, stroma = types == "B", types == "stroma"
    planted[b] = x[b] > np.median(x[b])
    values[b] += 0.3 * np.outer(planted[b], sign) + 0.03 * rng.normal(size=(b.sum(), m))
    rank = np.argsort(np.argsort(x[stroma])) / stroma.sum()
    values[stroma] += 0.5 * np.outer(rank, sign)
    adata.obsm["betas"] = values.astype(np.float32)
    adata.obs["planted"] = planted
    return adata


def test_planted_niches(tissue):
    st.tl.microniches(tissue, **FAST)
    b = (tissue.obs["cell_type"] == "B").to_numpy()
    found = tissue.obs["microniche"]
    assert adjusted_rand_score(found[b], tissue.obs["planted"][b]) == 1
    assert list(found.cat.categories) == ["T/NK 0", "B 0", "B 1", "stroma 0"]
    stored = tissue.uns["microniches"]
    types = stored["types"].set_index("cell_type")
    assert types["n_niches"].to_dict() == {"T/NK": 1, "B": 2, "stroma": 1}
    assert types.loc["T/NK", "outcome"] == "coefficients do not vary"
    assert types.loc["stroma", "outcome"] == "a gradient, not niches"
    assert types.loc["B", "rand_index"] > 0.95
    niches = stored["niches"].set_index("niche")
    assert niches.loc[["B 0", "B 1"], ["stability", "separation"]].min(axis=None) > 0.8
    assert niches.loc[["T/NK 0", "stroma 0"], "stability"].isna().all()
    assert niches["n_cells"].to_dict() == found.value_counts().to_dict()
    assert set(stored["trials"]["cell_type"]) == {"B", "stroma"}


def test_what_is_not_supported_is_not_used(tissue):
    betas = tissue.uns["betas"]
    supported = tissue.copy()
    betas["terms"]["active"] = False
    st.tl.microniches(tissue, **FAST)
    assert set(tissue.uns["microniches"]["types"]["outcome"]) == {"no supported coefficients"}
    assert tissue.obs["microniche"].nunique() == 3

    rows = (supported.uns["betas"]["scores"]["cell_type"] == "B").to_numpy()
    supported.uns["betas"]["scores"].loc[rows, "kept"] = "zero"
    st.tl.microniches(supported, **FAST)
    types = supported.uns["microniches"]["types"].set_index("cell_type")
    assert types.loc["B", "outcome"] == "no supported coefficients"
    assert types.loc["stroma", "outcome"] == "a gradient, not niches"


def test_noise_has_no_niches(tissue):
    shape = tissue.obsm["betas"].shape
    tissue.obsm["betas"] = (1 + 0.2 * np.random.default_rng(1).normal(size=shape)).astype(np.float32)
    st.tl.microniches(tissue, **FAST)
    types = tissue.uns["microniches"]["types"]
    assert (types["n_niches"] == 1).all()
    assert set(types["outcome"]) == {"no stable niches"}


def test_a_fit_that_does_not_vary_has_one_niche_a_type(tissue):
    tissue.obsm["betas"][:] = tissue.obsm["betas"].mean(axis=0)
    tissue.obsm["betas"] += 1e-6 * np.random.default_rng(2).normal(size=tissue.obsm["betas"].shape).astype(np.float32)
    st.tl.microniches(tissue, **FAST)
    assert set(tissue.uns["microniches"]["types"]["outcome"]) == {"coefficients do not vary"}


def test_as_many_as_asked_for(tissue):
    st.tl.microniches(tissue, n_niches=3, key_added="three", **FAST)
    types = tissue.uns["threes"]["types"].set_index("cell_type")
    assert types["n_niches"].to_dict() == {"T/NK": 1, "B": 3, "stroma": 3}
    niches = tissue.uns["threes"]["niches"].set_index("cell_type")
    # a gradient in three pieces says so
    assert niches.loc["stroma", "separation"].min() < 0.4
    assert niches.loc["B", "separation"].min() < 0.4


def test_neither_the_order_of_cells_nor_laziness_matters(tissue):
    other = tissue[np.random.default_rng(3).permutation(tissue.n_obs)].copy()
    other.obsm["betas"] = da.from_array(other.obsm["betas"], chunks=(-1, 7))
    st.tl.microniches(tissue, **FAST)
    st.tl.microniches(other, **FAST)
    assert (other.obs["microniche"][tissue.obs_names].astype(str) == tissue.obs["microniche"].astype(str)).all()
    for name in ("niches", "types", "trials"):
        pd.testing.assert_frame_equal(tissue.uns["microniches"][name], other.uns["microniches"][name])


def test_some_types_and_the_whole_tissue(tissue):
    st.tl.microniches(tissue, cell_type="B", **FAST)
    assert tissue.obs["microniche"].isna().sum() == (tissue.obs["cell_type"] != "B").sum()
    st.tl.microniches(tissue, scope="tissue", key_added="whole", **FAST)
    assert all(str(c).startswith("niche ") for c in tissue.obs["whole"].cat.categories)
    assert tissue.obs["whole"].notna().all()


def test_groups_of_another_column(tissue):
    tissue.obs["side"] = np.where(tissue.obs["planted"] == 1, "right", "other")
    scores = tissue.uns["betas"]["scores"]
    scores.loc[scores["cell_type"] == "B", "kept"] = "zero"
    st.tl.microniches(tissue, cluster_key="side", **FAST)
    types = tissue.uns["microniches"]["types"].set_index("cell_type")
    assert list(types.index) == ["other", "right"]
    assert "no supported coefficients" not in set(types["outcome"])


def test_contributions(tissue):
    copied = st.tl.microniches(tissue, by="contributions", n_niches=2, copy=True, **FAST)
    assert "microniche" not in tissue.obs
    types = copied.uns["microniches"]["types"].set_index("cell_type")
    # coefficients of T cells are alike, what they are multiplied by is not
    assert types.loc["T/NK", "n_columns"] > 0
    markers = st.get.microniche_markers(copied, n_top=1)
    row = markers.iloc[0]
    inside = (copied.obs["microniche"] == row["niche"]).to_numpy()
    assert row["kind"] in {"tf", "lr", "tfl"}
    assert row["mean"] != pytest.approx(
        float(st.get.betas_adata(copied)[inside, f"{row['modulator']}>{row['target']}"].X.mean())
    )


def test_a_sample_of_many_cells(tissue, monkeypatch):
    monkeypatch.setattr("spacetravlr.models._microniches._MOST_CELLS", 30)
    st.tl.microniches(tissue, cell_type="B", n_niches=2, **FAST)
    b = (tissue.obs["cell_type"] == "B").to_numpy()
    assert b.sum() > 30
    assert adjusted_rand_score(tissue.obs["microniche"][b], tissue.obs["planted"][b]) == 1


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(tissue, tmp_path, suffix):
    for key in [k for k in tissue.uns if k != "betas"]:
        del tissue.uns[key]
    tissue = AnnData(obs=tissue.obs, var=tissue.var, uns=tissue.uns, obsm={"betas": tissue.obsm["betas"]})
    st.tl.microniches(tissue, **FAST)
    st.io.write(tissue, tmp_path / f"niches.{suffix}")
    back = st.io.read(tmp_path / f"niches.{suffix}")
    pd.testing.assert_frame_equal(
        st.get.microniche_markers(back), st.get.microniche_markers(tissue), check_dtype=False, rtol=1e-5
    )
    assert back.uns["microniches"]["params"]["n_niches"] == 0


def test_markers(tissue):
    st.tl.microniches(tissue, **FAST)
    found = st.get.microniche_markers(tissue)
    assert set(found["niche"]) == {"B 0", "B 1"}
    assert found.groupby("niche").size().nunique() == 1
    row = found.iloc[0]
    niche = (tissue.obs["microniche"] == row["niche"]).to_numpy()
    b = (tissue.obs["cell_type"] == "B").to_numpy()
    values = np.asarray(st.get.betas_adata(tissue)[:, f"{row['modulator']}>{row['target']}"].X, dtype=float)[:, 0]
    assert row["mean"] == pytest.approx(values[niche].mean(), rel=1e-5)
    assert row["mean_rest"] == pytest.approx(values[b & ~niche].mean(), rel=1e-5)
    assert row["difference"] == pytest.approx(
        (values[niche].mean() - values[b & ~niche].mean()) / values[b].std(), rel=1e-4
    )
    assert all(part["difference"].abs().is_monotonic_decreasing for _, part in found.groupby("niche"))
    assert len(st.get.microniche_markers(tissue, n_top=2)) == 4
    tissue.obsm["betas"][:] = 1
    st.tl.microniches(tissue, **FAST)
    assert st.get.microniche_markers(tissue).empty
    assert list(st.get.microniche_markers(tissue).columns) == list(found.columns)


def test_bad_input(tissue):
    with pytest.raises(KeyError, match="st.tl.microniches"):
        st.get.microniche_markers(tissue)
    with pytest.raises(KeyError, match="st.tl.microniches"):
        st.pl.microniches(tissue)
    with pytest.raises(ValueError, match="`cell_type` to be one of 'T/NK'"):
        st.tl.microniches(tissue, cell_type="A")
    with pytest.raises(ValueError, match="`scope` to be one of"):
        st.tl.microniches(tissue, scope="cells")
    with pytest.raises(ValueError, match="`by` to be one of"):
        st.tl.microniches(tissue, by="betas")
    with pytest.raises(ValueError, match="`max_niches` to be a whole number of at least 2"):
        st.tl.microniches(tissue, max_niches=1)
    with pytest.raises(ValueError, match="`min_stability` to be between"):
        st.tl.microniches(tissue, min_stability=2)
    with pytest.raises(KeyError, match="cluster_key"):
        st.tl.microniches(tissue, cluster_key="leiden")
    del tissue.obsm["betas"]
    with pytest.raises(KeyError, match="fit_betas"):
        st.tl.microniches(tissue)
