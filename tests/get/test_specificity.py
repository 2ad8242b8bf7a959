"""How profiles of a screen differ from each other, on profiles that are made by hand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st

NAMES = [f"G{i}" for i in range(12)]


def screen_of(values, types=()):
    out = ad.AnnData(
        np.asarray(values, dtype=float),
        obs=pd.DataFrame({"baseline": np.linspace(1, 2, len(values))}, index=NAMES[: len(values)]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(np.shape(values)[1])]),
    )
    out.uns["screen"] = {"cell_types": np.array([name for name, _ in types], dtype=object)}
    for i, (_, layer) in enumerate(types):
        out.layers[f"change_{i}"] = layer
    return out


def test_one_that_differs():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(2, 80))
    values = np.outer(rng.uniform(1, 2, 12), shared)
    values[4] = own
    found = st.get.specificity(screen_of(values), n_match=3).set_index("perturbation")
    assert found["from_mean"].idxmax() == "G4"
    others = found.drop("G4")
    assert others["from_mean"].max() < 0.05
    assert others["share_beyond_mean"].max() < 0.05
    assert found.loc["G4", "share_beyond_mean"] > 0.8
    assert found.loc["G4", ["from_matched", "from_others"]].min() > 0.7
    assert found.loc["G9", "from_matched"] == pytest.approx(0, abs=1e-9)
    # the mean over eleven others, one of which is the one that differs
    assert found.loc["G9", "from_others"] == pytest.approx(
        (1 - np.corrcoef(np.delete(shared, [4, 9]), np.delete(own, [4, 9]))[0, 1]) / 11, abs=1e-6
    )
    assert found.loc["G9", "size"] == pytest.approx(np.sqrt(np.mean(np.delete(values[9], 9) ** 2)))


def test_a_second_screen():
    rng = np.random.default_rng(1)
    shared, truth = 3 * rng.normal(size=80), rng.normal(size=(12, 80))
    truth[6:] = 0  # the latter half does what all do, and nothing of its own
    first, second = (screen_of(shared + truth + 0.7 * rng.normal(size=(12, 80))) for _ in range(2))
    found = st.get.specificity(first, other=second, n_match=4).set_index("perturbation")
    real, none = found[:6], found[6:]
    assert found["matched"].min() > 0.7  # which shows nothing
    assert (real["rank"] == 1).all()
    assert (real["matched_rank"] == 1).all()
    assert (real["p"] < 0.01).all()
    assert real["difference"].min() > 0.05
    assert none["p"].mean() > 0.2
    assert none["rank"].mean() > 2
    assert found["n_candidates"].tolist() == [12] * 12
    with pytest.warns(UserWarning, match="3 of 12 perturbations of `screen` are not in `other`"):
        part = st.get.specificity(first, other=second[3:].copy(), n_match=4)
    assert part["rank"].isna().tolist() == [True] * 3 + [False] * 9
    assert part["n_candidates"].iloc[3] == 9
    np.testing.assert_array_equal(part["from_mean"], found["from_mean"])


def test_a_second_screen_may_name_knockouts_by_their_labels():
    first, second = (screen_of(np.random.default_rng(i).normal(size=(12, 80))) for i in range(2))
    expected = st.get.specificity(first, other=second, n_match=4)
    second.obs_names = [f"{name}=0" for name in second.obs_names]
    pd.testing.assert_frame_equal(st.get.specificity(first, other=second, n_match=4), expected)


def test_by_cell_type(adata):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "STAT3", "CXCL12", "CXCR4"], n_jobs=1)
    found = st.get.specificity(screen, other=screen, by_cell_type=True, n_match=2)
    assert found["cell_type"].drop_duplicates().tolist() == ["all", "T/NK", "B", "stroma"]
    alone = st.get.specificity(st.get.baselines(screen, kinds="mean")["mean"], n_match=2)
    assert alone["share_beyond_mean"].max() < 0.5
    one = found[found["cell_type"] == "B"].set_index("perturbation")
    values = np.asarray(screen.layers["change_1"][0], dtype=float)
    kept = screen.var_names != "FOXO1"
    assert one.loc["FOXO1", "size"] == pytest.approx(np.sqrt(np.mean(values[kept] ** 2)))
    assert (one["rank"].dropna() == 1).all()


def test_no_change_is_nan():
    values = np.random.default_rng(2).normal(size=(4, 20))
    values[1] = 0
    found = st.get.specificity(screen_of(values), other=screen_of(values)).set_index("perturbation")
    assert found.loc["G1", "size"] == 0
    unknown = ["from_mean", "from_matched", "from_others", "share_beyond_mean", "matched", "rank", "p"]
    assert found.loc["G1", unknown].isna().all()
    assert found.loc["G0", unknown].notna().all()


def test_bad_input(adata):
    screen = screen_of(np.random.default_rng(3).normal(size=(4, 20)))
    with pytest.raises(KeyError, match="genome_screen"):
        st.get.specificity(adata)
    with pytest.raises(ValueError, match="at least two perturbations"):
        st.get.specificity(screen[:1].copy())
    with pytest.raises(ValueError, match="`n_match` to be positive"):
        st.get.specificity(screen, n_match=0)
    stranger = screen.copy()
    stranger.obs_names = list("abcd")
    with pytest.raises(ValueError, match="share a perturbation"):
        st.get.specificity(screen, other=stranger)
