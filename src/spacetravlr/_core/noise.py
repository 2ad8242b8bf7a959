r"""Counting noise: independent halves of counts.

A count is a Poisson draw around what a cell expresses (Sarkar & Stephens 2021). Each molecule is kept with probability
:math:`p`, or goes to the other half:

.. math:: A \sim \mathrm{Binomial}(k, p), \quad B = k - A

so that :math:`A` and :math:`B` are independent Poisson counts of means :math:`p \mu` and :math:`(1 - p) \mu` where
:math:`k` is one of mean :math:`\mu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Ints


def thin(counts: Ints, fraction: float, rng: np.random.Generator) -> Ints:
    """Draw how many of each count's molecules are kept.

    Parameters
    ----------
    counts
        Whole numbers, at least zero, of any shape.
    fraction
        Probability of each molecule to be kept.
    rng
        Generator.

    Returns
    -------
    What is kept, of the shape of ``counts``; the other half is ``counts`` less that.
    """
    return rng.binomial(np.asarray(counts, dtype=np.int64), fraction)
