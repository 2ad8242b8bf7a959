"""The factor of an arrow matrix, and models with weights of single groups, against the same written out in full."""

from __future__ import annotations

import numpy as np
import pytest

from spacetravlr._core.linalg.block_arrow import arrow_factor
from spacetravlr._core.surfaces.group_ard import GroupArd


def _arrow(n_groups: int, m: int, d: int, seed: int = 0):
    """Blocks of an arrow matrix, and the matrix."""
    rng = np.random.default_rng(seed)
    own, shared = rng.normal(size=(n_groups, 50, m)), rng.normal(size=(n_groups, 50, d))
    groups = np.einsum("gna,gnb->gab", own, own) + np.eye(m)
    border = np.einsum("gnd,gna->gda", shared, own)
    corner = np.einsum("gnd,gne->de", shared, shared) + np.eye(d)
    full = np.zeros((n_groups * m + d,) * 2)
    for g in range(n_groups):
        place = slice(g * m, (g + 1) * m)
        full[place, place], full[n_groups * m :, place], full[place, n_groups * m :] = groups[g], border[g], border[g].T
    full[n_groups * m :, n_groups * m :] = corner
    return groups, border, corner, full


@pytest.mark.parametrize(("n_groups", "m", "d"), [(3, 4, 6), (1, 2, 3), (13, 3, 80), (4, 0, 5), (4, 3, 0), (2, 70, 90)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 2e-3)])
def test_factor_is_that_of_the_whole_matrix(n_groups, m, d, dtype, tolerance):
    groups, border, corner, full = _arrow(n_groups, m, d)
    factor, logdet = arrow_factor(groups, border.astype(dtype), corner.astype(dtype))
    assert factor.dtype == dtype
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor, np.linalg.inv(np.linalg.cholesky(full)), rtol=tolerance, atol=tolerance)
    assert logdet == pytest.approx(np.linalg.slogdet(full)[1], rel=tolerance)


@pytest.mark.parametrize("part", ["group", "border"])
def test_not_positive_definite_is_an_error(part):
    groups, border, corner, _ = _arrow(2, 3, 4)
    (groups if part == "group" else corner)[..., 0, 0] = -1.0
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        arrow_factor(groups, border, corner)


@pytest.fixture(params=[np.array([0, 40, 40, 100]), np.array([0, 100])], ids=["an empty group", "one group"])
def models(request):
    """A model with split blocks, and one that has a block of columns in full for each of them."""
    bounds, rng = request.param, np.random.default_rng(2)
    n, n_groups = int(bounds[-1]), len(bounds) - 1
    group = np.repeat(np.arange(n_groups), np.diff(bounds))
    rows = [rng.normal(size=(k, n)) for k in (2, 1, 3, 2)]
    split, variances = [False, True, True, False], [0.5, 0.2, 0.1, 0.3]
    y = rows[0].sum(axis=0) + np.where(group == 0, 1, -1) * rows[1][0] + rng.normal(scale=0.5, size=n)
    compact, full = GroupArd(y, 0.25, groups=bounds), GroupArd(y, 0.25)
    compact.add(rows[:2], variances[:2], split=split[:2])
    compact.add(rows[2:], variances[2:], split=split[2:])
    of_group = np.eye(n_groups)[group].T
    full.add([(of_group[:, None] * r).reshape(-1, n) if s else r for r, s in zip(rows, split, strict=True)], variances)
    return compact, full


def _same(compact: GroupArd, full: GroupArd) -> None:
    assert compact.n_features == full.n_features
    np.testing.assert_array_equal(compact.sizes, full.sizes)
    found, expected = compact.learn(3), full.learn(3)
    order = np.concatenate([compact.block(i) for i in range(len(compact))])
    np.testing.assert_allclose(compact.features[order], full.features)
    np.testing.assert_allclose(found.mean[order], expected.mean, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.covariance[np.ix_(order, order)], expected.covariance, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(compact.variances, full.variances, rtol=1e-7)
    assert compact.noise == pytest.approx(full.noise, rel=1e-9)
    assert found.log_evidence == pytest.approx(expected.log_evidence, rel=1e-9)
    np.testing.assert_allclose(compact.residual(found.mean), full.residual(expected.mean), atol=1e-9)
    sets = [[i] for i in range(len(full))] + [[0, 1]]
    np.testing.assert_allclose(
        compact.log_bayes_factors(found, sets), full.log_bayes_factors(expected, sets), rtol=1e-6, atol=1e-8
    )


def test_split_blocks_are_those_of_every_group(models):
    _same(*models)


@pytest.mark.parametrize("kept", [[True, False, True, True], [False, True, True, False], [True, False, False, True]])
def test_split_blocks_can_go_and_come(models, kept):
    for model in models:
        model.keep(np.array(kept))
    _same(*models)


def test_bayes_factors_of_many_features_are_those_of_few(models, monkeypatch):
    compact, _ = models
    posterior = compact.learn(2)
    expected = compact.log_bayes_factors(posterior, [[0], [1, 2], [3]])
    monkeypatch.setattr("spacetravlr._core.surfaces.group_ard._FEW", 1)
    np.testing.assert_allclose(compact.log_bayes_factors(posterior, [[0], [1, 2], [3]]), expected, rtol=1e-9)
