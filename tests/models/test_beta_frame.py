"""A target's coefficients as a table that remembers what it is."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._anndata._betas import read_betas
from spacetravlr._keys import signal_name
from spacetravlr.models import BetaFrame


@pytest.fixture
def frame(adata):
    return BetaFrame.from_model(read_betas(adata), "CD79A")


@pytest.fixture
def tables(adata):
    expression = pd.DataFrame(adata.layers["log1p"], index=adata.obs_names, columns=adata.var_names)
    return expression.astype(float), adata.uns["received_ligands"].astype(float)


def test_columns_have_the_names_of_the_published_method(frame):
    assert list(frame.columns[:2]) == ["beta0", "beta_FOXO1"]
    assert "beta_CXCL12$CXCR4" in frame
    assert "beta_CCL19#STAT3" in frame
    assert frame.target == "CD79A"
    assert frame.terms.loc["beta_CCL19#STAT3", "tf"] == "STAT3"
    assert frame.modulator_genes == sorted(
        {"FOXO1", "STAT3", "IRF4", "NFKB1", "CXCL12", "CXCR4", "CCL19", "CCR7", "CX3CL1", "CX3CR1", "CXCL13", "CXCR5"}
        | {"DLL1", "NOTCH1"}
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.iloc[:5],
        lambda f: f.loc[:, ["beta_FOXO1", "beta_CXCL12$CXCR4"]],
        lambda f: f.copy(),
        lambda f: f * 2,
        lambda f: pickle.loads(pickle.dumps(f)),
        lambda f: f.reindex(f.index[::-1]),
    ],
    ids=["rows", "columns", "copy", "arithmetic", "pickle", "reindex"],
)
def test_it_survives(frame, change):
    other = change(frame)
    assert isinstance(other, BetaFrame)
    assert other.target == "CD79A"
    assert set(other.columns) <= set(other.terms.index)


def test_predict_is_the_true_model(adata, frame, tables):
    """The coefficients are the truth, so the prediction is the expression without noise."""
    predicted = frame.predict(*tables)
    expected = adata[:, "CD79A"].layers["noise_free"].ravel()
    np.testing.assert_allclose(predicted, expected, atol=1e-3)
    assert predicted.name == "CD79A"


def test_splash_is_the_finite_difference_of_predict(frame, tables):
    expression, received = tables
    frame = frame.astype(float)
    # receptors that are not expressed have no slope to compare
    expression = expression + 0.1
    splashed = frame.splash(expression, received)
    assert list(splashed.columns) == frame.modulator_genes
    step = 1e-5
    for gene in splashed:
        bumped, heard = expression.copy(), received.copy()
        bumped[gene] += step
        for signal in (gene, signal_name(gene, "contact")):
            if signal in heard:
                heard[signal] += step
        still = frame.predict(expression, received)
        slope = frame.predict(bumped, received) - still + frame.predict(expression, heard) - still
        np.testing.assert_allclose(splashed[gene], slope / step, atol=1e-6)


def test_adjustment_is_predicted_with_and_passes_nothing_on(with_receptors, frame, tables):
    expression, received = tables
    wider = BetaFrame.from_model(read_betas(with_receptors), "CD79A")
    alone = wider.columns.difference(frame.columns)
    assert set(alone) == {"beta_CXCR4", "beta_CCR7", "beta_CX3CR1", "beta_CXCR5", "beta_NOTCH1"}
    assert wider.modulator_genes == frame.modulator_genes
    added = sum(wider[c] * expression[c.removeprefix("beta_")] for c in alone)
    np.testing.assert_allclose(wider.predict(*tables), frame.predict(*tables) + added, atol=1e-4)
    pd.testing.assert_frame_equal(wider.splash(*tables), frame.splash(*tables))
    # receptors that are not expressed have no slope to compare
    wider, expression, step = wider.astype(float), expression + 0.1, 1e-5
    splashed = wider.splash(expression, received, adjusted=True)
    for gene in ("CXCR4", "NOTCH1"):
        bumped = expression.copy()
        bumped[gene] += step
        slope = (wider.predict(bumped, received) - wider.predict(expression, received)) / step
        np.testing.assert_allclose(splashed[gene], slope, atol=1e-6)


def test_splash_matches_rows_by_name(frame, tables):
    expression, received = tables
    whole = frame.splash(expression, received)
    shuffled = frame.splash(expression.sample(frac=1, random_state=0), received.iloc[::-1])
    pd.testing.assert_frame_equal(whole, shuffled)
    part = frame.iloc[10:20].splash(expression, received)
    pd.testing.assert_frame_equal(whole.iloc[10:20], part)


def test_ligand_tf_terms_can_have_received_ligands_of_their_own(frame, tables):
    expression, received = tables
    same = frame.splash(expression, received, received_tfl=received)
    pd.testing.assert_frame_equal(same, frame.splash(expression, received))
    other = frame.splash(expression, received, received_tfl=received * 3)
    assert np.abs(other["STAT3"] - same["STAT3"]).max() > 1e-4
    pd.testing.assert_series_equal(other["CCR7"], same["CCR7"])


def test_ligands_that_only_ligand_tf_terms_have(frame, tables):
    """As after ``received_ligands(ligand_tf=...)`` with a table of more ligands than there are pairs."""
    expression, received = tables
    frame = frame.drop(columns="beta_CCL19$CCR7")
    of_pairs, of_tfl = received.drop(columns="CCL19"), received[["CCL19", "CXCL12"]]
    for method in (frame.predict, frame.splash):
        with pytest.raises(KeyError, match=r"found \['CCL19'\] missing; .*received_ligands_tfl'\] as `received_tfl`"):
            method(expression, of_pairs)
        assert method(expression, of_pairs, received_tfl=of_tfl).equals(method(expression, received))
    assert np.abs(frame.splash(expression, of_pairs, received_tfl=of_tfl)["CCL19"]).max() > 0


def test_a_frame_of_tfs_only_and_one_of_nothing(frame, tables):
    tfs = frame[["beta0", "beta_FOXO1"]]
    pd.testing.assert_series_equal(
        tfs.splash(*tables)["FOXO1"].astype("float32"), frame["beta_FOXO1"], check_names=False
    )
    alone = frame[["beta0"]]
    assert alone.splash(*tables).shape == (len(frame), 0)
    np.testing.assert_array_equal(alone.predict(*tables), frame["beta0"])


def test_messages(adata, frame, tables):
    expression, received = tables
    with pytest.raises(KeyError, match=r"Expected `modulators` to be in the columns of `expression`.*FOXO1"):
        frame.splash(expression.drop(columns="FOXO1"), received)
    with pytest.raises(KeyError, match=r"Expected `received` to have the columns .*call `st.pp.received_ligands`"):
        frame.splash(expression, received.drop(columns="CXCL12"))
    with pytest.raises(ValueError, match=r"Expected `expression` to hold every cell .*'cell000' missing"):
        frame.splash(expression.iloc[1:], received)
    with pytest.raises(KeyError, match=r"unknown 'CD79' \(closest: CD79A"):
        BetaFrame.from_model(read_betas(adata), "CD79")
    with pytest.raises(ValueError, match=r"Expected `terms` to describe .*st.get.betas"):
        BetaFrame(np.ones((2, 1)), columns=["beta0"]).splash(expression, received)
    with pytest.raises(ValueError, match="Expected `terms` to have one row for each of the 3 columns, found `1`"):
        BetaFrame.from_array(np.ones((2, 3)), target="A", terms=frame.terms.iloc[:1], obs_names=pd.Index(["a", "b"]))
    assert st.BetaFrame is BetaFrame
