"""False discovery rates of many tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats


def benjamini_hochberg(p: Floats) -> Floats:
    """Smallest false discovery rate at which each test is called (Benjamini & Hochberg 1995).

    Parameters
    ----------
    p
        p-values, of any shape. NaN is a test that was not made: it counts neither as a test nor as a discovery.

    Returns
    -------
    q-values of the same shape, NaN where ``p`` is.
    """
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    made = np.isfinite(p)
    if not made.any():
        return q
    values = p[made]
    order = np.argsort(-values, kind="stable")
    n = len(values)
    steps = values[order] * n / np.arange(n, 0, -1)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(np.minimum.accumulate(steps), 1.0)
    q[made] = adjusted
    return q
