"""The LAPACK calls that release the lock, against numpy's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spacetravlr._core.lapack import inverse_and_logdet


def _positive_definite(n: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(n, n + 3))
    return a @ a.T / n + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", [1, 2, 7, 60, 200])
def test_inverse_and_logdet_agree_with_numpy(n):
    matrix = _positive_definite(n)
    inverse, logdet = inverse_and_logdet(matrix.copy())
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(matrix)[1], rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(inverse, inverse.T)


def test_no_rows():
    inverse, logdet = inverse_and_logdet(np.empty((0, 0)))
    assert inverse.shape == (0, 0)
    assert logdet == 0.0


@pytest.mark.parametrize("matrix", [np.diag([1.0, 2.0, -1.0]), np.zeros((2, 2)), np.array([[1.0, 2.0], [2.0, 1.0]])])
def test_not_positive_definite_is_an_error(matrix):
    with pytest.raises(np.linalg.LinAlgError, match="Expected a positive definite matrix; pivot"):
        inverse_and_logdet(matrix)


def test_fortran_order_and_single_precision_are_taken():
    matrix = _positive_definite(5)
    for other in (np.asfortranarray(matrix), matrix.astype(np.float32)):
        np.testing.assert_allclose(inverse_and_logdet(other.copy())[0], np.linalg.inv(matrix), rtol=1e-4, atol=1e-5)


def test_threads_do_not_disturb_one_another():
    matrices = [_positive_definite(80, seed) for seed in range(40)]
    expected = [inverse_and_logdet(m.copy()) for m in matrices]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda m: inverse_and_logdet(m.copy()), matrices))
    for (a, x), (b, y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert x == y
