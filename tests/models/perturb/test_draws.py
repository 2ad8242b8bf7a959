"""Draws of the coefficients: what they add to those of the fit, and perturbations that share all but them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._core.response.start import Workspace
from spacetravlr.models.perturb._draws import DrawnCoefficients
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._simulator import Simulator
from spacetravlr.models.perturb._spec import PerturbationSpec


@pytest.fixture(scope="module")
def drawn():
    """A fit whose targets pass changes on: two of them are TFs of each other and of the rest, one is a ligand."""
    adata = st.datasets.simulated_tissue(
        n_cells=500, n_cell_types=3, n_targets=3, n_tfs=6, n_active_tfs=3, depth=4.0, rng=3
    )
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    tfs, ligand = sorted(set(grn["tf"]))[:3], str(lr["ligand"].iloc[0])
    more = [(tfs[0], tfs[1]), (tfs[1], tfs[0]), (tfs[2], tfs[0]), (tfs[0], ligand), (tfs[2], ligand)]
    grn = pd.concat([grn, pd.DataFrame(more, columns=["tf", "target"]).assign(weight=0.9)], ignore_index=True)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer="log1p")
    st.tl.fit_betas(adata, counts_layer="counts", n_draws=4, block_size=2, show_progress_bar=False, n_jobs=1)
    return DrawnCoefficients.of(FittedModel.read(adata, n_jobs=1), 4)


def coefficients(drawn, draw):
    """Coefficients of one draw, worked out part by part."""
    model = drawn.model
    out = np.asarray(model.adata.obsm["betas"], dtype=np.float64).copy()
    functions, first = drawn.view.at().functions(), 0
    for block in drawn.blocks:
        parts, place = block.deviations.parts, first + np.argsort(block.order)
        for i in range(len(parts.target)):
            t, column = int(parts.target[i]), int(parts.column[i])
            if column == 0:
                continue
            weights = block.deviations.draws[parts.indptr[i] : parts.indptr[i + 1], draw].astype(np.float64)
            (added,) = functions.times(weights[None], int(parts.part[i]), int(parts.scale[t]))
            inside = block.indptr[t] + column
            out[:, place[inside]] += added * block.spread[block.indptr[t]] / block.spread[inside]
        first += block.n_columns
    return out


def test_coefficients_of_a_draw_are_the_sums_of_its_parts(drawn):
    targets = drawn.model.design.targets
    everyone = np.arange(len(targets))
    moved = 0.0
    for draw in range(4):
        expected = coefficients(drawn, draw)
        (chunk,) = drawn.simulator(draw, Workspace()).coefficients(everyone)
        np.testing.assert_allclose(chunk.values, expected[:, chunk.first_column :], rtol=1e-4, atol=1e-5)
        moved = max(moved, np.abs(expected - drawn.model.adata.obsm["betas"]).max())
    assert moved > 0.01


def test_only_what_is_needed_is_worked_out_and_what_is_there_is_not_worked_out_again(drawn, monkeypatch):
    targets = drawn.model.design.targets
    expected, columns = coefficients(drawn, 1), np.r_[targets.columns_of(1), targets.columns_of(3)]
    read = drawn.simulator(1, Workspace()).coefficients
    asked = []
    add = DrawnCoefficients._add_deviation
    monkeypatch.setattr(DrawnCoefficients, "_add_deviation", lambda self, *a: asked.append(a[1]) or add(self, *a))
    wanted = np.array([1, 3])
    for needed in (columns[::3], columns[::3], columns[::6], columns[1:], columns[::3]):
        (chunk,) = read(wanted, needed)
        assert list(chunk.targets) == [1, 3]
        found = chunk.values[:, needed - chunk.first_column]
        np.testing.assert_allclose(found, expected[:, needed], rtol=1e-4, atol=1e-5)
    assert [len(a) for a in asked] == [len(columns[::3]), len(columns[1:]), len(columns[::3])]


@pytest.mark.parametrize("n_propagation", [1, 2, 4])
def test_perturbations_of_draws_are_those_with_their_coefficients(drawn, n_propagation):
    model = drawn.model
    names = model.possible_targets()
    specs = [PerturbationSpec({gene: 0.0}, {}) for gene in names[:5]] + [PerturbationSpec({names[-1]: 9.0}, {})]
    mask = np.ones(model.adata.n_obs, dtype=bool)
    with pytest.warns(UserWarning, match="exceeds the largest value"):
        inputs = model.input_changes(specs, mask)
    workspace = Workspace()
    start = model.simulator.begin(inputs, workspace)
    assert 2 <= len(start.relaying) <= 4
    assert start.held is not start.wanted  # the last is beyond the range
    samples = drawn.propagate(start, 4, n_propagation=n_propagation, derivative="product_rule", workspace=workspace)
    groups, cell_types = model.cell_types()
    base = model.simulator
    for draw in range(4):
        betas = coefficients(drawn, draw).astype(np.float32)
        alone = Simulator(base.tissue, base.terms, base.targets, betas, n_jobs=1)
        changes = alone.propagate(inputs, n_propagation=n_propagation).values
        scale = np.abs(changes).mean(axis=0).T.max()
        np.testing.assert_allclose(samples.mean[draw][:, 0], changes.mean(axis=0).T, atol=2e-4 * scale)
        for c in range(len(cell_types)):
            np.testing.assert_allclose(
                samples.mean[draw][:, 1 + c], changes[groups == c].mean(axis=0).T, atol=1e-3 * scale
            )
