"""How much wider the distribution of test statistics is than claimed, estimated from tests in which nothing acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats

_PRIOR = 60  # tests of what cannot act that the claim itself counts as


def inflation(t: Floats, claimed: float = 1.0) -> float:
    """Standard deviation of t values of null tests, relative to the claimed one and never below one.

    Parameters
    ----------
    t
        t values of tests in which nothing acts; none leave the claim as it is.
    claimed
        Variance that they should have.
    """
    t = np.asarray(t, dtype=np.float64)
    t = t[np.isfinite(t)]
    found = ((t**2).sum() / claimed + _PRIOR) / (len(t) + _PRIOR)
    return float(np.sqrt(max(found, 1.0)))
