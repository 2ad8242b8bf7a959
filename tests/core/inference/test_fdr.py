"""False discovery rates against scipy's."""

import numpy as np
from scipy.stats import false_discovery_control

from spacetravlr._core.inference.fdr import benjamini_hochberg


def test_as_scipy():
    p = np.random.default_rng(0).uniform(size=40) ** 3
    p[3] = p[7]
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))
    np.testing.assert_allclose(benjamini_hochberg(p.reshape(8, 5)), false_discovery_control(p).reshape(8, 5))


def test_missing_tests_do_not_count():
    q = benjamini_hochberg(np.array([np.nan, 0.01, 0.04, np.nan, 0.5]))
    np.testing.assert_allclose(q, [np.nan, 0.03, 0.06, np.nan, 0.5])
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()
    assert benjamini_hochberg(np.zeros(0)).shape == (0,)
