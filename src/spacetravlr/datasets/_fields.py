"""Smooth coefficient fields with a known origin: position, niche, cell type, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

FIELDS = ("position", "symmetric", "cell_type", "niche", "constant")
_VARIATION = 0.6
_N_WAVES = 16


@dataclass(frozen=True)
class FieldBasis:
    """What coefficient fields are made of; all arrays have one row per cell."""

    position: Floats
    """Cosine waves of position, at most one period across the tissue."""
    symmetric: Floats
    """The same waves on the first coordinate's absolute value: two halves that mirror each other."""
    niche: Floats
    """Standardised composition of the neighbourhood."""
    cell_type: Ints


def waves(unit: Floats, rng: np.random.Generator, *, n: int = _N_WAVES, low: float = 0.35, high: float = 1.0) -> Floats:
    """Cosine waves with random directions and phases; ``low`` and ``high`` bound the periods across the tissue."""
    direction = rng.normal(size=(n, unit.shape[1]))
    direction *= rng.uniform(low, high, size=(n, 1)) / np.linalg.norm(direction, axis=1, keepdims=True)
    phase = rng.uniform(0, 2 * np.pi, size=n)
    return np.sqrt(2) * np.cos(np.pi * unit @ direction.T + phase)


def field_basis(unit: Floats, composition: Floats, cell_type: Ints, rng: np.random.Generator) -> FieldBasis:
    """Evaluate the functions that all fields are mixtures of."""
    mirrored = unit.copy()
    mirrored[:, 0] = np.abs(mirrored[:, 0])
    seed = int(rng.integers(2**32))
    return FieldBasis(
        position=waves(unit, np.random.default_rng(seed)),
        symmetric=waves(mirrored, np.random.default_rng(seed)),
        niche=_standardise(composition),
        cell_type=cell_type,
    )


def draw_fields(basis: FieldBasis, kind: str, n: int, rng: np.random.Generator) -> Floats:
    r"""Draw ``n`` fields, cells x ``n``, of order one.

    .. math:: f_j = a_{c(j)} (m + 0.6\, h_j)

    with a mean :math:`m` of random sign, :math:`h` smooth with variance one over all cells (zero for ``"constant"``)
    and amplitudes :math:`a` that differ between cell types for ``"cell_type"`` and are one otherwise.
    """
    mean = rng.uniform(0.5, 1.2, size=n) * rng.choice([-1.0, 1.0], size=n)
    if kind == "constant":
        return np.repeat(mean[None, :], len(basis.cell_type), axis=0)
    functions = {"symmetric": basis.symmetric, "niche": basis.niche}.get(kind, basis.position)
    smooth = functions @ rng.normal(size=(functions.shape[1], n))
    field = mean + _VARIATION * _standardise(smooth)
    if kind == "cell_type":
        field *= rng.uniform(0.2, 1.8, size=(int(basis.cell_type.max()) + 1, n))[basis.cell_type]
    return field


def _standardise(values: Floats) -> Floats:
    """Columns of mean zero and variance one; constant columns become zero."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
