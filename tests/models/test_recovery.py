"""What a fit recovers of a tissue whose regulation is known, at the default sizes of the simulation."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks._common import align_betas

import spacetravlr as st


def _fitted(fields, n_targets, seed):
    adata = st.datasets.simulated_tissue(fields=fields, n_targets=n_targets, rng=seed)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    st.tl.fit_betas(adata, body="surface", show_progress_bar=False)
    return adata


@pytest.fixture(scope="module", params=[0, 1])
def mixed(request):
    return _fitted("mixed", 5, request.param)


@pytest.fixture(scope="module")
def position():
    return _fitted("position", 2, 3)


def _with_truth(adata):
    """Terms of the fit with ``truly``, whether each acts; what the simulation does not have does not act."""
    found, truth = adata.uns["betas"]["terms"], adata.uns["simulation"]["terms"]
    truly = align_betas(truth["active"].to_numpy()[None], truth, found)[0].astype(bool)
    return found.assign(truly=truly)


def test_regulators_are_told_from_truly_zero_ones(mixed):
    found = _with_truth(mixed)
    found = found[found["kind"].isin(["tf", "lr"])]
    active, called = found["truly"].to_numpy(), found["active"].to_numpy()
    assert active.sum() == 60
    assert called[active].mean() > 0.9
    assert called[~active].mean() < 0.1


def test_fields_explain_held_out_cells_better_than_a_seed_a_type(mixed):
    scores = st.get.scores(mixed, per="target").set_index("target")
    field = mixed.uns["simulation"]["terms"].groupby("target", observed=True)["field"].first()
    varying = scores.loc[field.index[field != "constant"]]
    assert len(varying) == 4
    assert (varying["r2_surface"] > varying["r2_seed"] + 0.1).all()
    assert (varying["r2_surface"] > 0.75).all()
    constant = scores.loc[field.index[field == "constant"]]
    assert (constant["r2_surface"] > constant["r2_seed"] - 0.02).all()


def test_truly_zero_regulators_have_coefficients_of_zero(mixed):
    """Exactly zero, in every cell, where a surface is kept."""
    found, scores = _with_truth(mixed), mixed.uns["betas"]["scores"]
    surface = (scores["kept"] == "surface").groupby(scores["target"], observed=True).all()
    assert surface.mean() >= 0.6
    zero = (~found["truly"] & found["target"].map(surface).astype(bool)).to_numpy()
    assert (mixed.obsm["betas"][:, zero] == 0).all(axis=0).mean() > 0.9


def test_fields_are_found_within_cell_types(position):
    truth, terms = position.uns["simulation"]["terms"], position.uns["betas"]["terms"]
    betas = align_betas(position.obsm["betas"], terms, truth)
    wanted = np.flatnonzero(((truth["kind"] == "tf") & truth["active"]).to_numpy())
    types = position.obs["cell_type"].cat.codes.to_numpy()
    correlations = []
    for column in wanted:
        for code in range(types.max() + 1):
            expected = position.obsm["true_betas"][types == code, column]
            found = betas[types == code, column]
            correlations.append(np.corrcoef(expected, found)[0, 1] if found.std() > 1e-6 else 0.0)
    assert len(correlations) == 64
    assert np.mean(correlations) > 0.8
