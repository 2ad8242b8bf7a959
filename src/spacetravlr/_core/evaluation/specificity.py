"""The part of a profile of changes beyond the mean profile, and whether it reproduces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats

_FLIPS_AT_ONCE = 1 << 22  # signs drawn together
_ROUNDING = 1e-12


def beyond(values: Floats, mean: Floats) -> Floats:
    """Profile less its projection on the mean profile; genes that either does not know are NaN."""
    good = np.isfinite(values) & np.isfinite(mean)
    out = np.full(values.shape, np.nan)
    square = np.dot(mean[good], mean[good])
    along = np.dot(values[good], mean[good]) / square if square > 0 else 0.0
    out[good] = values[good] - along * mean[good]
    return out


def share_beyond(values: Floats, mean: Floats) -> float:
    """Share of a profile's sum of squares not explained by a multiple of the mean profile; NaN without any change."""
    rest = beyond(values, mean)
    good = np.isfinite(rest)
    total = float(np.sum(values[good] ** 2))
    return float(np.sum(rest[good] ** 2)) / total if total > 0 else np.nan


def sign_flip_p(a: Floats, b: Floats, n_flips: int, rng: np.random.Generator) -> float:
    r"""One-sided p-value that two profiles agree in sign no more than by chance.

    Compares :math:`\sum_g a_g b_g` with the same sum under random signs of the genes. Sizes, and which genes change at
    all, are held fixed. Exact if the signs of the noise are independent between genes; NaN unless at least two genes
    change in both.
    """
    product = a * b
    product = product[np.isfinite(product) & (product != 0)]
    if len(product) < 2:
        return np.nan
    total, above, left = product.sum(), 0, n_flips
    while left > 0:
        n = min(left, max(1, _FLIPS_AT_ONCE // len(product)))
        signs = 2.0 * rng.integers(0, 2, (n, len(product))) - 1
        above += int((signs @ product >= total - _ROUNDING * np.abs(product).sum()).sum())
        left -= n
    return (1 + above) / (1 + n_flips)
