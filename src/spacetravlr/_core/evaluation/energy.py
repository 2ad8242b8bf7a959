r"""Energy distance of two clouds of cells.

.. math::

    E(X, Y) = 2\, \mathbb{E} \lVert x - y \rVert - \mathbb{E} \lVert x - x' \rVert - \mathbb{E} \lVert y - y' \rVert
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist, pdist

if TYPE_CHECKING:
    from spacetravlr._types import Floats


def energy_distance(x: Floats, y: Floats) -> float:
    """Energy distance of cells x features to others, without bias (it may fall below zero); NaN below two cells."""
    if min(len(x), len(y)) < 2:
        return np.nan
    return float(2 * cdist(x, y).mean() - pdist(x).mean() - pdist(y).mean())
