"""The seed regression against its definition, its optimality conditions and two published solvers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacetravlr._core.sgl.block import _best_place
from spacetravlr._core.sgl.cross_products import grouped_moments
from spacetravlr._core.sgl.path import fit_seeds
from spacetravlr._core.sgl.reference import Solution, solve_reference


def problem(seed: int, n: int = 150, sizes: tuple[int, ...] = (4, 9, 6), correlation: float = 0.5):
    rng = np.random.default_rng(seed)
    p = sum(sizes)
    x = rng.normal(size=(n, p)) + correlation * rng.normal(size=(n, 1)) * rng.normal(size=p)
    x = (x * rng.uniform(0.1, 5.0, p) + rng.normal(size=p)).astype(np.float32)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    beta = np.where(rng.random(p) < 0.3, rng.normal(size=p), 0.0)
    signal = x @ beta
    y = (3.0 + signal + (signal.std() + 0.1) * rng.normal(size=n)).astype(np.float32)
    return x, y, groups


def one_seed(x, y, groups, **options):
    """Fit one target on all cells together."""
    grams = grouped_moments(x, y, np.zeros(len(x), dtype=int))
    return fit_seeds(grams, [0, len(groups)], np.arange(len(groups)), groups=groups, n_folds=1, **options)


def solve(x, y, groups, **options) -> Solution:
    coef = one_seed(x, y, groups, **options).coef[0, 0]
    return Solution(float(coef[0]), coef[1:])


def top_of(x, y, groups, **options) -> float:
    """Smallest penalty at which all is zero: the first of a path."""
    return float(one_seed(x, y, groups, n_lambdas=1, **options).lam[0, 0])


def objective(x, y, groups, *, coef, lam: float, alpha: float) -> float:
    """Value of the minimised function, penalties on standardised coefficients, the intercept at its best."""
    x64 = x.astype(np.float64)
    scaled = coef * x64.std(axis=0)
    norms = sum(np.sqrt((groups == g).sum()) * np.linalg.norm(scaled[groups == g]) for g in np.unique(groups))
    return float(0.5 * np.var(y - x64 @ coef) + lam * norms + alpha * np.abs(scaled).sum())


@pytest.mark.parametrize(("fraction", "l1_ratio"), [(0.5, 1.0), (0.1, 1.0), (0.1, 0.0), (0.02, 5.0)])
def test_same_objective_as_group_lasso(fraction: float, l1_ratio: float) -> None:
    x, y, groups = problem(1)
    lam = fraction * top_of(x, y, groups, l1_ratio=l1_ratio)
    ours = solve(x, y, groups, lam=lam, l1_ratio=l1_ratio, tol=1e-9)
    theirs = solve_reference(x, y, groups, lam=lam, l1_ratio=l1_ratio, tol=1e-8, max_iter=50_000)
    values = [objective(x, y, groups, coef=s.coef, lam=lam, alpha=l1_ratio * lam) for s in (ours, theirs)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert values[0] <= values[1] * (1 + 1e-9)
    np.testing.assert_allclose(ours.coef, theirs.coef, atol=2e-3 * np.abs(theirs.coef).max())


@pytest.mark.parametrize(("fraction", "l1_ratio"), [(0.3, 0.0), (0.05, 0.0), (0.1, 2.0)])
def test_same_objective_as_skglm(fraction: float, l1_ratio: float) -> None:
    skglm = pytest.importorskip("skglm")
    from skglm.datafits import QuadraticGroup
    from skglm.penalties.block_separable import WeightedL1GroupL2
    from skglm.solvers import GroupBCD

    x, y, groups = problem(2)
    lam = fraction * top_of(x, y, groups, l1_ratio=l1_ratio)
    alpha = l1_ratio * lam
    sizes = np.bincount(groups)
    ptr, index = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32), np.arange(len(groups), dtype=np.int32)
    scaled = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)) / x.std(axis=0, dtype=np.float64)
    # skglm reads its weights of single features by group, so that equal ones are the only ones that mean anything
    penalty = WeightedL1GroupL2(lam, np.sqrt(sizes), np.full(len(groups), l1_ratio), ptr, index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = skglm.GeneralizedLinearEstimator(
            QuadraticGroup(ptr, index),
            penalty,
            GroupBCD(max_iter=2000, max_epochs=20_000, tol=1e-11, ws_strategy="fixpoint", fit_intercept=False),
        ).fit(np.asfortranarray(scaled), y.astype(np.float64) - y.mean(dtype=np.float64))
    theirs = objective(x, y, groups, coef=model.coef_ / x.std(axis=0, dtype=np.float64), lam=lam, alpha=alpha)
    ours = solve(x, y, groups, lam=lam, alpha=alpha, tol=1e-10)
    assert objective(x, y, groups, coef=ours.coef, lam=lam, alpha=alpha) == pytest.approx(theirs, rel=1e-6)


def violation(x, y, groups, coef, lam: float, alpha: float) -> float:
    """Largest distance from the optimality conditions, in units of the gradient."""
    sd = x.std(axis=0, dtype=np.float64)
    z = (x - x.mean(axis=0, dtype=np.float64)) / sd
    b = coef * sd
    residual = (y - y.mean(dtype=np.float64)) - z @ b
    gradient = z.T @ residual / len(y)
    worst = 0.0
    for g in np.unique(groups):
        at = groups == g
        kappa = lam * np.sqrt(at.sum())
        norm = np.linalg.norm(b[at])
        if norm == 0:
            excess = np.maximum(np.abs(gradient[at]) - alpha, 0)
            worst = max(worst, np.linalg.norm(excess) - kappa)
            continue
        smooth = gradient[at] - kappa * b[at] / norm
        on = b[at] != 0
        worst = max(worst, np.abs(smooth[on] - alpha * np.sign(b[at][on])).max())
        if (~on).any():
            worst = max(worst, np.abs(smooth[~on]).max() - alpha)
    return worst


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(5, 120),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    fraction=st.floats(0.01, 1.1),
    l1_ratio=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    correlation=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_optimality_conditions(seed, n, sizes, fraction, l1_ratio, correlation) -> None:
    x, y, groups = problem(seed, n, tuple(sizes), correlation)
    top = top_of(x, y, groups, l1_ratio=l1_ratio)
    lam = fraction * top
    fitted = solve(x, y, groups, lam=lam, l1_ratio=l1_ratio, tol=1e-11, max_sweeps=100_000)
    assert violation(x, y, groups, fitted.coef, lam, l1_ratio * lam) <= 2e-4 * y.std()
    if fraction >= 1:
        assert not fitted.coef.any()


@pytest.mark.parametrize(("seed", "sizes", "fraction"), [(9333, (9, 12), 0.75), (0, (1, 3), 1.0)])
def test_a_path_from_its_top_is_not_stuck_near_zero(seed, sizes, fraction) -> None:
    x, y, groups = problem(seed, 45, sizes, 0.0)
    lam = fraction * top_of(x, y, groups, l1_ratio=0.0)
    coef = solve(x, y, groups, lam=lam, l1_ratio=0.0, tol=1e-11).coef
    assert violation(x, y, groups, coef, lam, 0.0) <= 2e-4 * y.std()
    assert coef.any() == (fraction < 1)


@pytest.mark.parametrize("penalty", [{"l1_ratio": 0.0}, {"l1_ratio": 2.0}, {"alpha": 0.01}])
def test_lambda_max_is_where_the_first_group_enters(penalty) -> None:
    x, y, groups = problem(3)
    top = top_of(x, y, groups, **penalty)
    assert not solve(x, y, groups, lam=top * (1 + 1e-9), tol=1e-12, **penalty).coef.any()
    assert solve(x, y, groups, lam=top * 0.99, tol=1e-12, **penalty).coef.any()


def test_orthonormal_columns_have_a_closed_form() -> None:
    rng = np.random.default_rng(0)
    q = np.linalg.qr(np.column_stack([np.ones(64), rng.normal(size=(64, 6))]))[0][:, 1:] * 8.0
    groups = np.array([0, 0, 0, 1, 1, 1])
    y = q @ [1.0, -0.8, 0.1, 0.2, 0.1, -0.1] + 5.0
    lam, alpha = 0.2, 0.15
    soft = np.sign(q.T @ y) * np.maximum(np.abs(q.T @ y / 64) - alpha, 0)
    expected = np.concatenate(
        [max(0.0, 1 - lam * np.sqrt(3) / np.linalg.norm(s)) * s if s.any() else s for s in (soft[:3], soft[3:])]
    )
    fitted = solve(q, y, groups, lam=lam, alpha=alpha, tol=1e-12)
    np.testing.assert_allclose(fitted.coef, expected, atol=1e-6)
    assert fitted.coef[0] != 0
    assert not fitted.coef[3:].any()
    assert fitted.intercept == pytest.approx(5.0, abs=1e-6)


def test_order_and_units_of_columns_do_not_matter() -> None:
    x, y, groups = problem(4)
    base = solve(x, y, groups, lam=0.05, tol=1e-12)
    order = np.random.default_rng(0).permutation(len(groups))
    moved = solve(x[:, order], y, groups[order], lam=0.05, tol=1e-12)
    np.testing.assert_allclose(moved.coef, base.coef[order], atol=1e-6)
    units = np.geomspace(1e-3, 1e3, len(groups))
    scaled = solve(x * units + 7.0, y, groups, lam=0.05, tol=1e-12)
    np.testing.assert_allclose(scaled.coef * units, base.coef, atol=1e-5)
    louder = solve(x, 10 * y - 4, groups, lam=0.5, tol=1e-12)
    np.testing.assert_allclose(louder.coef, 10 * base.coef, atol=1e-5)


def test_constant_columns_get_zero_and_change_nothing() -> None:
    x, y, groups = problem(5)
    base = solve(x, y, groups, lam=0.05, tol=1e-12)
    more = np.column_stack([x, np.full(len(x), 2.5), np.zeros(len(x))]).astype(np.float32)
    fitted = solve(more, y, np.append(groups, [0, 1]), lam=0.05, tol=1e-12)
    np.testing.assert_allclose(fitted.coef, np.append(base.coef, [0, 0]), atol=1e-7)


def test_no_penalty_is_least_squares() -> None:
    x, y, groups = problem(7)
    expected = np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]).astype(float), y, rcond=None)[0]
    fitted = solve(x, y, groups, lam=0.0, alpha=0.0, tol=0.0, max_sweeps=50_000)
    np.testing.assert_allclose([fitted.intercept, *fitted.coef], expected, atol=1e-5)


@pytest.mark.parametrize("y", [np.full(20, 3.0), np.array([1.0])])
def test_degenerate_targets_get_zeros(y) -> None:
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    fitted = solve(x, y, np.zeros(3, dtype=int), lam=0.1)
    assert not fitted.coef.any()
    assert fitted.intercept == pytest.approx(y.mean())


@pytest.mark.parametrize("bad", [{"lam": -1.0}, {"lam": 0.1, "alpha": -0.1}, {"lam": 0.1, "l1_ratio": np.nan}])
def test_bad_penalties(bad) -> None:
    x, y, groups = problem(8)
    with pytest.raises(ValueError, match="at least zero"):
        solve(x, y, groups, **bad)


N_TYPES, N_FOLDS = 3, 4


@pytest.fixture(scope="module")
def block():
    """Three targets, each with its own terms of a shared design, three types in four folds, one type small."""
    rng = np.random.default_rng(0)
    n, k = 700, 20
    kinds = np.repeat([0, 1, 2], [6, 8, 6])
    x = (rng.gamma(2.0, size=(n, k)) + 30.0).astype(np.float32)
    types = rng.choice(N_TYPES, n, p=[0.55, 0.42, 0.03])
    folds = rng.integers(N_FOLDS, size=n)
    terms = [np.array([9, 0, 3, 15, 12]), np.arange(k)[::-1], np.array([1])]
    y = np.column_stack([x[:, t[:2]] @ np.ones((len(t[:2]), 1)) * (types + 1.0)[:, None] for t in terms])
    y = (y + rng.normal(size=y.shape)).astype(np.float32)
    y[:, 2] = np.where(types == 1, 4.0, y[:, 2])
    indptr = np.cumsum([0, *map(len, terms)])
    grams = grouped_moments(x, y, types * N_FOLDS + folds, n_groups=N_TYPES * N_FOLDS)
    return x, y, types, folds, kinds, indptr, np.concatenate(terms), grams


def centred_products(grams, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred products of regressors, of targets with regressors, and of targets, of one group of cells."""
    n, x, y = grams.n[group], grams.x[group], grams.y[group]
    return grams.xx[group] - np.outer(x, x) / n, grams.xy[group] - np.outer(y, x) / n, grams.yy[group] - y**2 / n


def type_means(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    return np.array([values[types == c].mean(axis=0) for c in range(N_TYPES)])


def test_grams_are_sums_of_products(block) -> None:
    x, y, types, folds, _, _, _, grams = block
    for c, f in [(0, 0), (2, 3)]:
        at = (types == c) & (folds == f)
        xx, xy, yy = centred_products(grams, c * N_FOLDS + f)
        centred, target = x[at] - x[at].mean(axis=0, dtype=float), y[at] - y[at].mean(axis=0, dtype=float)
        np.testing.assert_allclose(xx, centred.T @ centred, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(xy, target.T @ centred, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(yy, (target**2).sum(axis=0), rtol=1e-5)
        np.testing.assert_allclose(grams.x[c * N_FOLDS + f] / at.sum() + grams.x_shift, x[at].mean(axis=0, dtype=float))


def test_grams_survive_large_offsets() -> None:
    """Means a thousand times the spread leave the centred products right to six digits."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) + 1000.0
    centred = x - x.mean(axis=0)
    xx, _, _ = centred_products(grouped_moments(x, x[:, 0], np.zeros(500, dtype=int)), 0)
    np.testing.assert_allclose(xx, centred.T @ centred, rtol=1e-9, atol=1e-9)


def test_grams_leave_out_cells_without_a_group() -> None:
    x, y, _ = problem(0)
    codes = np.where(np.arange(len(x)) % 3 == 0, -1, 0)
    whole, part = (
        grouped_moments(x, y, codes, n_groups=1),
        grouped_moments(x[codes == 0], y[codes == 0], codes[codes == 0]),
    )
    np.testing.assert_allclose(centred_products(whole, 0)[0], centred_products(part, 0)[0])
    with pytest.raises(ValueError, match="one length"):
        grouped_moments(x, y[1:], codes)
    with pytest.raises(ValueError, match="n_groups"):
        grouped_moments(x, y, codes + 3, n_groups=2)


def test_seed_with_a_given_penalty_is_the_single_solution(block) -> None:
    x, y, types, folds, kinds, indptr, term, grams = block
    used = [0, 1, 3]
    seeds = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, folds=used, lam=0.1, pooled=True, tol=1e-10)
    for t in range(3):
        columns = term[indptr[t] : indptr[t + 1]]
        for c in range(N_TYPES + 1):
            at = np.isin(folds, used) & ((types == c) | (c == N_TYPES))
            z, target = x[at][:, columns].astype(float), y[at, t].astype(float)
            if c == N_TYPES:  # slopes from the variation within types
                z, target = (v - type_means(v, types[at])[types[at]] + v.mean(axis=0) for v in (z, target))
            one = solve(z, target, kinds[columns], lam=0.1, tol=1e-10)
            np.testing.assert_allclose(seeds.coef[t, c, 1 : 1 + len(columns)], one.coef, atol=1e-5)
            assert seeds.coef[t, c, 0] == pytest.approx(one.intercept, abs=1e-3)
            assert not seeds.coef[t, c, 1 + len(columns) :].any()


def test_penalty_is_the_best_held_out(block) -> None:
    """The choice repeated by hand: fit without each fold, predict the fold, add up, draw a parabola."""
    x, y, types, folds, kinds, indptr, term, grams = block
    used, t, c = [0, 1, 2], 1, 0
    seeds = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, folds=used, n_lambdas=8)
    columns = term[indptr[t] : indptr[t + 1]]
    at = (types == c) & np.isin(folds, used)
    z, target, fold = x[at][:, columns], y[at, t], folds[at]
    lambdas = top_of(z, target, kinds[columns]) * np.geomspace(1, 3e-3, 8)
    errors = np.zeros(8)
    for f in used:
        train = fold != f
        for i, lam in enumerate(lambdas):
            one = solve(z[train], target[train], kinds[columns], lam=lam)
            errors[i] += np.sum((target[~train] - one.intercept - z[~train] @ one.coef) ** 2)
    best = int(np.argmin(errors))
    assert 1 < best < 7
    a, b, _ = np.polyfit([-1, 0, 1], errors[best - 1 : best + 2], 2)
    assert np.log(seeds.lam[t, c] / lambdas[best]) == pytest.approx(
        -b / (2 * a) * np.log(lambdas[1] / lambdas[0]), abs=0.02
    )


@pytest.mark.parametrize("minimum", [1.0, 2.3, 2.5, 4.8, 6.0])
def test_place_of_the_smallest_error_of_a_parabola(minimum) -> None:
    assert _best_place((np.arange(7.0) - minimum) ** 2 + 3.0) == pytest.approx(minimum)


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        ([1.0, 2.0, 3.0], 0),
        ([3.0, 2.0, 1.0], 2),
        ([1.0, 1.0, 1.0], 0),
        ([2.0, 1.0], 1),
        ([1.0], 0),
        ([9.0, 8.0, 2.0], 2),
    ],
)
def test_place_of_the_smallest_error_at_the_ends(errors, place) -> None:
    assert _best_place(np.array(errors)) == place


@pytest.mark.parametrize(
    "errors",
    [[5.0, 5.0, 7.0, 9.0], [9.0, 5.0, 5.0, 7.0], [9.0, 8.0, 5.0, 5.0], [9.0, 5.0, 6.0, 6.5], [1.0, 1.1, 1.3, 1.2]],
)
def test_place_of_the_smallest_error_is_continuous(errors) -> None:
    """Also where two penalties are equally good, and where the smallest error comes to an end of the path."""
    at_once = _best_place(np.array(errors))
    for i in range(len(errors)):
        for step in (-1e-9, 1e-9):
            other = np.array(errors)
            other[i] += step
            assert _best_place(other) == pytest.approx(at_once, abs=1e-7)


def test_chosen_penalties_can_be_given_back(block) -> None:
    *_, kinds, indptr, term, grams = block
    chosen = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, tol=1e-10)
    again = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, tol=1e-10, lam=chosen.lam)
    assert np.isnan(chosen.lam).any()  # a target that does not vary in a type
    np.testing.assert_allclose(again.coef, chosen.coef, atol=1e-5)
    np.testing.assert_allclose(again.lam, chosen.lam)


@pytest.mark.parametrize("alpha", [None, 0.01])
def test_nothing_is_selected_where_the_path_begins(alpha) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(90, 12)), rng.normal(size=(90, 40))  # nothing to find
    grams = grouped_moments(x, y, np.arange(90) % N_FOLDS)
    kinds, indptr, term = np.repeat([0, 1], 6), np.arange(0, 481, 12), np.tile(np.arange(12), 40)
    seeds = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, alpha=alpha)
    tops = np.array([top_of(x, target, kinds, alpha=alpha) for target in y.T])
    at_top = np.isclose(seeds.lam[:, 0], tops, rtol=1e-9)
    assert at_top.sum() > 10
    assert np.all(seeds.coef[at_top, :, 1:] == 0.0)
    np.testing.assert_allclose(seeds.coef[at_top, 0, 0], y.mean(axis=0)[at_top], atol=1e-12)
    assert np.any(seeds.coef[~at_top, :, 1:] != 0.0)


def test_where_a_fit_starts_does_not_matter(block) -> None:
    *_, kinds, indptr, term, grams = block
    options = {"groups": kinds, "n_folds": N_FOLDS, "tol": 1e-10, "pooled": True, "lam": 0.05}
    expected = fit_seeds(grams, indptr, term, **options)
    rough = fit_seeds(grams, indptr, term, **options | {"lam": 0.3, "tol": 1e-2}).coef
    for start in (expected.coef, rough, rough[..., ::-1].copy()):
        seeds = fit_seeds(grams, indptr, term, start=start, **options)
        np.testing.assert_allclose(seeds.coef, expected.coef, rtol=2e-6, atol=1e-5)
        np.testing.assert_array_equal(seeds.lam, expected.lam)


@pytest.mark.parametrize("lam", [None, 0.05])
def test_seeds_with_a_fold_left_out_are_those_of_the_other_folds(block, lam) -> None:
    *_, kinds, indptr, term, grams = block
    options = {"groups": kinds, "n_folds": N_FOLDS, "tol": 1e-10, "pooled": True}
    seeds = fit_seeds(grams, indptr, term, folds=[0, 1, 2], lam=lam, leave_out=True, **options)
    assert seeds.held.shape == (3, *seeds.coef.shape)
    for q in range(3):
        others = [f for f in range(3) if f != q]
        expected = fit_seeds(grams, indptr, term, folds=others, lam=seeds.lam, **options)
        fitted = np.isfinite(seeds.lam) & np.isfinite(expected.lam)
        np.testing.assert_allclose(seeds.held[q][fitted], expected.coef[fitted], atol=1e-5)
    assert np.abs(seeds.held[0] - seeds.held[1]).max() > 0.01
    plain = fit_seeds(grams, indptr, term, folds=[0, 1, 2], lam=lam, **options)
    assert plain.held.shape == (0, *seeds.coef.shape)
    np.testing.assert_array_equal(plain.coef, seeds.coef)


def test_a_target_that_does_not_vary_is_its_intercept(block) -> None:
    *_, kinds, indptr, term, grams = block
    seeds = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS)
    assert np.isnan(seeds.lam[2, 1])
    assert not seeds.coef[2, 1, 1:].any()
    assert seeds.coef[2, 1, 0] == pytest.approx(4.0)


def test_small_types_carry_pooled_slopes_and_their_own_intercept(block) -> None:
    x, y, types, _, kinds, indptr, term, grams = block
    few = int((types == 2).sum()) + 1
    seeds = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, min_cells=few)
    whole = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, pooled=True)
    assert seeds.coef.shape[1] == 3
    np.testing.assert_array_equal(seeds.coef[:, 2, 1:], whole.coef[:, 3, 1:])
    np.testing.assert_array_equal(seeds.coef[:, :2], whole.coef[:, :2])
    for t in range(3):
        columns = term[indptr[t] : indptr[t + 1]]
        mean = x[types == 2][:, columns].mean(axis=0, dtype=float) @ seeds.coef[t, 2, 1 : 1 + len(columns)]
        assert seeds.coef[t, 2, 0] + mean == pytest.approx(y[types == 2, t].mean(dtype=float), abs=1e-6)


def test_differences_between_types_do_not_pass_for_regulation() -> None:
    """A regressor that tells types apart, as the target does, and goes the other way within them."""
    rng = np.random.default_rng(0)
    types, folds = np.repeat([0, 1, 2], [200, 200, 6]), rng.integers(3, size=406)
    x = (rng.normal(size=406) + 5.0 * types)[:, None]
    y = 10.0 * types - (x[:, 0] - 5.0 * types) + 0.1 * rng.normal(size=406)
    grams = grouped_moments(x, y, types * 3 + folds, n_groups=9)
    seeds = fit_seeds(grams, [0, 1], [0], groups=np.array([0]), n_folds=3, min_cells=20, pooled=True)
    np.testing.assert_allclose(seeds.coef[0, :, 1], -1.0, atol=0.1)
    np.testing.assert_allclose(seeds.coef[0, :3, 0] + seeds.coef[0, :3, 1] * [0.0, 5.0, 10.0], [0, 10, 20], atol=0.5)


def test_threads_and_blocks_do_not_matter(block) -> None:
    x, y, types, folds, kinds, indptr, term, grams = block
    one = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, n_jobs=1)
    two = fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, n_jobs=2)
    np.testing.assert_array_equal(one.coef, two.coef)
    codes = types * N_FOLDS + folds
    for t in range(3):
        columns = term[indptr[t] : indptr[t + 1]]
        own = grouped_moments(x[:, columns], y[:, [t]], codes, n_groups=N_TYPES * N_FOLDS)
        alone = fit_seeds(own, [0, len(columns)], np.arange(len(columns)), groups=kinds[columns], n_folds=N_FOLDS)
        np.testing.assert_allclose(alone.coef[0], one.coef[t][:, : 1 + len(columns)], rtol=1e-6, atol=1e-9)


def smoothed(seed: int, n: int = 400, p: int = 60, n_targets: int = 4):
    """Cells that repeat one another, as after imputation: a few programs carry all regressors and targets."""
    rng = np.random.default_rng(seed)
    programs = rng.gamma(2.0, size=(n, 6))
    x = np.abs(programs @ rng.normal(size=(6, p)) + 0.1 * rng.normal(size=(n, p))).astype(np.float32)
    y = (programs @ rng.normal(size=(6, n_targets)) + 0.1 * rng.normal(size=(n, n_targets))).astype(np.float32)
    return x, y, rng.integers(2 * N_FOLDS, size=n), np.repeat([0, 1, 2], p // 3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", ["block", "columns", "cells"])
def test_rounding_does_not_choose(seed, what) -> None:
    """Of regressors that are nearly the same many penalties are about equally good."""
    rng = np.random.default_rng(seed)
    x, y, codes, kinds = smoothed(seed)
    n, p = x.shape
    options = {"n_folds": N_FOLDS, "leave_out": True, "folds": [0, 1, 2], "n_jobs": 1}

    def fit(x, y, codes, kinds):
        indptr, term = np.arange(0, y.shape[1] * p + 1, p), np.tile(np.arange(p), y.shape[1])
        grams = grouped_moments(x, y, codes, n_groups=2 * N_FOLDS)
        seeds = fit_seeds(grams, indptr, term, groups=kinds, **options)
        return np.concatenate([seeds.coef[None], seeds.held])

    expected = fit(x, y, codes, kinds)
    if what == "block":
        found = np.concatenate([fit(x, y[:, [t]], codes, kinds) for t in range(y.shape[1])], axis=1)
    elif what == "columns":
        order = rng.permutation(p)
        found = np.empty_like(expected)
        shuffled = fit(x[:, order], y, codes, kinds[order])
        found[..., 0], found[..., 1 + order] = shuffled[..., 0], shuffled[..., 1:]
    else:
        order = rng.permutation(n)
        found = fit(x[order], y[order], codes[order], kinds)
    largest = np.abs(expected[..., 1:]).max(axis=(0, 2, 3))
    difference = np.abs(found - expected)[..., 1:].max(axis=(0, 2, 3)) / largest
    assert np.median(difference) < 2e-3
    assert difference.max() < 4e-3  # where the held-out error hardly depends on the penalty


def test_types_absent_from_the_folds_and_targets_without_terms() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 1.0
    grams = grouped_moments(x, y, rng.integers(3, size=60), n_groups=6)  # type 1 has no cells in any fold
    seeds = fit_seeds(grams, [0, 0, 2], [0, 1], groups=np.array([0, 1]), n_folds=3)
    assert np.isfinite(seeds.coef).all()
    assert seeds.coef[0, 0, 0] == pytest.approx(y[:, 0].mean())
    np.testing.assert_array_equal(seeds.coef[:, 1], seeds.coef[:, 0])  # all cells are of type 0


def test_messages_of_the_block_fit(block) -> None:
    *_, kinds, indptr, term, grams = block
    with pytest.raises(ValueError, match="a row for each of the 3 targets, found 2"):
        fit_seeds(grams, indptr[:3], term, groups=kinds, n_folds=N_FOLDS)
    with pytest.raises(ValueError, match="`lam` to be finite"):
        fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, lam=-1.0)
    with pytest.raises(ValueError, match="n_lambdas"):
        fit_seeds(grams, indptr, term, groups=kinds, n_folds=N_FOLDS, n_lambdas=0)
