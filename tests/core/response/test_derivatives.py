"""Derivatives against finite differences of the model and against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.design import Kind, Signals, Terms, term_values
from spacetravlr._core.response.derivatives import compute_all_derivatives, splash

GENES = 6
# genes: 0 TF, 1 TF and ligand, 2 ligand (secreted and contact), 3 receptor, 4 receptor and ligand, 5 plays no role
SIGNALS = Signals(np.array([1, 2, 2, 4]), np.array([False, False, True, False]))
TERMS = Terms(
    np.array([Kind.TF, Kind.TF, Kind.LR, Kind.LR, Kind.LR, Kind.LR, Kind.TFL, Kind.TFL]),
    np.array([0, 1, 3, 4, 3, 3, 0, 1]),
    np.array([-1, -1, 0, 1, 2, 3, 1, 3]),
)


@pytest.fixture
def state():
    rng = np.random.default_rng(3)
    expression = rng.uniform(0.5, 2, (7, GENES))
    return rng.normal(size=(7, len(TERMS))), expression, rng.uniform(0.5, 2, (7, len(SIGNALS)))


def model(betas, expression, received):
    return (betas * term_values(expression, received, TERMS)).sum(axis=1)


def test_splash_is_the_finite_difference_of_the_model(state):
    betas, expression, received = state
    result = splash(betas, TERMS, SIGNALS, expression=expression, received=received)
    assert result.genes.tolist() == [0, 1, 2, 3, 4]
    step = 1e-6
    for column, gene in enumerate(result.genes):
        bumped, heard = expression.copy(), received.copy()
        bumped[:, gene] += step
        heard[:, SIGNALS.ligand == gene] += step
        # own expression and received signal are separate variables, so their parts add up
        slope = (
            model(betas, bumped, received) + model(betas, expression, heard) - 2 * model(betas, expression, received)
        )
        np.testing.assert_allclose(result.values[:, column], slope / step, rtol=1e-5, atol=1e-7)


def test_a_receptor_that_is_not_expressed_passes_nothing_on_but_a_tf_does(state):
    betas, expression, received = state
    expression[2, [0, 3]] = 0
    values = splash(betas, TERMS, SIGNALS, expression=expression, received=received).values
    assert values[2, 3] == 0
    assert values[3, 3] != 0
    np.testing.assert_allclose(values[2, 0], betas[2, 0] + betas[2, 6] * received[2, 1])


def test_scale_factor_touches_pairs_only_and_the_cap_clips_the_sum(state):
    betas, expression, received = state
    full = splash(betas, TERMS, SIGNALS, expression=expression, received=received).values
    none = splash(betas, TERMS, SIGNALS, expression=expression, received=received, scale_factor=0).values
    np.testing.assert_allclose(none[:, :2], betas[:, :2])
    assert not none[:, 2:].any()
    double = splash(betas, TERMS, SIGNALS, expression=expression, received=received, scale_factor=2).values
    np.testing.assert_allclose(double - none, 2 * (full - none))
    capped = splash(betas, TERMS, SIGNALS, expression=expression, received=received, beta_cap=0.3).values
    np.testing.assert_allclose(capped, np.clip(full, -0.3, 0.3))
    assert np.abs(full).max() > 0.3


def test_splash_keeps_the_dtype_and_accepts_models_of_tfs_only(state):
    betas, expression, received = (a.astype(np.float32) for a in state)
    assert splash(betas, TERMS, SIGNALS, expression=expression, received=received).values.dtype == np.float32
    only = splash(betas[:, :2], TERMS.take(np.array([0, 1])), SIGNALS, expression=expression, received=received)
    np.testing.assert_array_equal(only.values, betas[:, :2])


def test_adjustment_is_left_out_unless_it_is_taken_in(state):
    betas, expression, received = state
    rng = np.random.default_rng(3)
    alone = Terms(np.full(2, Kind.RECEPTOR), np.array([3, 5]), np.full(2, -1))
    terms = Terms(*(np.concatenate([getattr(t, c) for t in (TERMS, alone)]) for c in ("kind", "gene", "signal")))
    wider = np.hstack([betas, rng.normal(size=(len(betas), 2))])
    expression = np.hstack([expression, rng.uniform(size=(len(betas), 1))])
    plain = splash(betas, TERMS, SIGNALS, expression=expression, received=received)
    left_out = splash(wider, terms, SIGNALS, expression=expression, received=received)
    np.testing.assert_array_equal(left_out.genes, plain.genes)
    np.testing.assert_array_equal(left_out.values, plain.values)
    taken_in = splash(wider, terms.with_adjustment(), SIGNALS, expression=expression, received=received)
    assert taken_in.genes.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(taken_in.values[:, 3], plain.values[:, 3] + wider[:, -2])
    np.testing.assert_array_equal(taken_in.values[:, 5], wider[:, -1])


def test_the_four_products():
    lr, tfl = np.array([[2.0, 3.0]]), np.array([[5.0]])
    out = compute_all_derivatives(
        lr,
        tfl,
        lr_received=np.array([[7.0, 11.0]]),
        receptor=np.array([[0.0, 13.0]]),
        tfl_received=np.array([[17.0]]),
        tf=np.array([[0.0]]),
    )
    assert out.receptor.tolist() == [[0.0, 33.0]]
    assert out.ligand.tolist() == [[0.0, 39.0]]
    assert out.tf.tolist() == [[85.0]]
    assert out.ligand_tf.tolist() == [[0.0]]


def test_the_four_products_refuse_other_shapes():
    one, two = np.ones((3, 1)), np.ones((3, 2))
    with pytest.raises(ValueError, match=r"Expected `receptor` to have the shape .* \(3, 1\), found `\(3, 2\)`"):
        compute_all_derivatives(one, one, lr_received=one, receptor=two, tfl_received=one, tf=one)
    with pytest.raises(ValueError, match="Expected `tfl_betas` to have 3 cells"):
        compute_all_derivatives(one, one[:2], lr_received=one, receptor=one, tfl_received=one[:2], tf=one[:2])
