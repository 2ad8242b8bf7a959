"""The LAPACK calls that release the lock, against numpy's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spacetravlr._core.linalg.cholesky import inverse_factor_and_logdet


def _positive_definite(n: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(n, n + 3))
    return a @ a.T / n + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_inverse_factor_and_logdet_agree_with_numpy(n, dtype, tolerance):
    matrix = _positive_definite(n)
    factor, logdet = inverse_factor_and_logdet(matrix.astype(dtype))
    assert factor.dtype == dtype
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(matrix), rtol=100 * tolerance, atol=tolerance)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(matrix)[1], rtol=tolerance, atol=tolerance)


def test_only_the_lower_triangle_is_read():
    matrix = _positive_definite(30)
    expected = inverse_factor_and_logdet(matrix.copy())
    spoiled = np.tril(matrix) + np.triu(np.full_like(matrix, np.nan), 1)
    found = inverse_factor_and_logdet(spoiled)
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_no_rows():
    factor, logdet = inverse_factor_and_logdet(np.empty((0, 0)))
    assert factor.shape == (0, 0)
    assert logdet == 0.0


@pytest.mark.parametrize("matrix", [np.diag([1.0, 2.0, -1.0]), np.zeros((2, 2)), np.array([[1.0, 2.0], [2.0, 1.0]])])
def test_not_positive_definite_is_an_error(matrix):
    with pytest.raises(np.linalg.LinAlgError, match="Expected a positive definite matrix; pivot"):
        inverse_factor_and_logdet(matrix)


def test_threads_do_not_disturb_one_another():
    matrices = [_positive_definite(80, seed) for seed in range(40)]
    expected = [inverse_factor_and_logdet(m.copy()) for m in matrices]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda m: inverse_factor_and_logdet(m.copy()), matrices))
    for (a, x), (b, y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert x == y
