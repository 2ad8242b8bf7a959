"""Tests of one target against the same computed plainly: each regression fitted again, each signal and type alone."""

import numpy as np
import pytest
from scipy import linalg, stats

import spacetravlr as st
from spacetravlr._anndata._fit import read_fit_data
from spacetravlr._core.inference.partial import learned_ridge
from spacetravlr.models.fit._tissue import fit_inputs
from spacetravlr.models.signals import _columns
from spacetravlr.models.signals._columns import response, target_columns
from spacetravlr.models.signals._inputs import signal_inputs
from spacetravlr.models.signals._run import _sent
from spacetravlr.models.signals._target import check_target


@pytest.fixture(scope="module")
def inputs():
    adata = st.datasets.simulated_tissue(n_cells=500, n_targets=1, depth=4.0, rng=0)
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer="log1p")
    tissue = read_fit_data(
        adata, targets=None, layer="log1p", counts_layer="counts", cluster_key=None, modulators_key="modulators"
    )
    fit = fit_inputs(tissue, n_folds=3, rng_seed=0, n_jobs=1)
    return signal_inputs(fit, _sent(adata, tissue, 1), n_shifts=1, rng=np.random.default_rng(0))


def columns_of(inputs):
    fit = inputs.fit
    own = int(fit.targets.gene[0])
    y = response(inputs, own)
    return y, target_columns(inputs, fit.terms.take(np.sort(fit.targets.terms_of(0))), own, y)


def plain_scores(inputs, signals):
    """Residuals of the target and of each product, and the t value of each, one regression after the other."""
    y, columns = columns_of(inputs)
    a = columns.values.astype(np.float64)
    ridge = learned_ridge(a.T @ a, a.T @ y, float(y @ y), len(y), columns.group, columns.free)
    found = []
    for k, s in enumerate(columns.of):
        mine = np.r_[columns.first + s, columns.first + len(columns.signals) + np.flatnonzero(columns.of == s)]
        rest = np.setdiff1d(np.arange(a.shape[1]), mine)
        signal, local = signals[:, columns.signals[s]].astype(np.float64), columns.local[:, k]
        product = inputs.standard((signal * (columns.level[k] + local))[:, None])[:, 0].astype(np.float64)
        kept = a[:, rest]
        factor = linalg.cho_factor(kept.T @ kept + np.diag(ridge.penalty[rest]))
        e, x = (v - kept @ linalg.cho_solve(factor, kept.T @ v) for v in (y.astype(np.float64), product))
        again = x - kept @ linalg.cho_solve(factor, kept.T @ x)
        sums = np.array([(x * e)[inputs.block == b].sum() for b in range(inputs.n_blocks)])
        t = sums.sum() / np.sqrt((sums**2).sum()) / np.sqrt((x @ again) / (x @ x))
        found.append((e, x, t))
    return columns, found


@pytest.fixture(scope="module")
def plain(inputs):
    moved = inputs.standard(inputs.signals[inputs.sources[0]])
    return *plain_scores(inputs, inputs.signals), [t for *_, t in plain_scores(inputs, moved)[1]]


@pytest.mark.parametrize("at_once", [256, 3])
def test_what_is_computed_for_all_signals_together_is_that_of_each_alone(inputs, plain, monkeypatch, at_once):
    monkeypatch.setattr(_columns, "_AT_ONCE", at_once)
    tests = check_target(inputs, 0)
    columns, plain, shifted = plain
    y = response(inputs, int(inputs.fit.targets.gene[0]))
    scale = np.sqrt(max(1.0, (np.sum(np.square(shifted)) + 60) / (len(shifted) + 60)))
    assert tests.inflation == pytest.approx(scale, rel=1e-4)
    assert len(tests.signals) == 12
    assert len(plain) > len(tests.signals)
    degrees = inputs.n_blocks - 1
    for k, (e, x, t) in enumerate(plain):
        assert tests.product_p[k] == pytest.approx(2 * stats.t.sf(abs(t) / scale, degrees), rel=2e-3)
        assert tests.effect[k] == pytest.approx((x @ e) / (x @ x), abs=1e-4)
        for c in range(inputs.fit.n_types):
            rows = inputs.fit.cell_type == c
            if rows.sum() < 50:
                assert np.isnan(tests.type_effect[k, c])
                continue
            slope = (x @ (e * rows)) / (x @ (x * rows))
            left = x * (e - x * slope) * rows
            error = np.sqrt(sum(left[inputs.block == b].sum() ** 2 for b in range(inputs.n_blocks)))
            assert tests.type_effect[k, c] == pytest.approx(slope, abs=1e-3)
            assert tests.type_error[k, c] == pytest.approx(scale * error / (x @ (x * rows)), rel=5e-3)
    for s in range(len(tests.signals)):
        rows = np.flatnonzero(columns.of == s)
        e, x = plain[rows[0]][0], np.column_stack([plain[k][1] for k in rows])
        gain = 0.0
        for f in np.unique(inputs.fit.fold):
            here = inputs.fit.fold == f
            weights = np.linalg.lstsq(x[~here], e[~here], rcond=None)[0]
            gain += (e[here] ** 2).sum() - ((e[here] - x[here] @ weights) ** 2).sum()
        assert tests.gain[s] == pytest.approx(gain / (y**2).sum(), abs=1e-5)
