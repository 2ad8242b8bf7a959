"""Simulated cells: where they lie, what type they are, and how much of every regulator they express."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

SPACING = {2: 12.2, 3: 20.0}
"""Distance between neighbouring cells in micrometres: about one cell per 150 um2 in two dimensions."""
_JITTER = 0.3


class SimulatedCells(NamedTuple):
    """Cells of all slides."""

    coordinates: Floats
    """Cells x dimensions, micrometres."""
    unit: Floats
    """The same, each slide scaled to [-1, 1] along each axis: what coefficient fields are functions of."""
    cell_type: Ints
    domain: Ints
    slide: Ints


def make_tissue(
    n_cells: int, n_cell_types: int, n_slides: int, n_dims: int, rng: np.random.Generator
) -> SimulatedCells:
    """Place cells on jittered lattices and draw their types from the mixture of their domain."""
    sizes = np.full(n_slides, n_cells // n_slides)
    sizes[: n_cells % n_slides] += 1
    n_domains = max(2, 2 * n_cell_types)
    mixtures = np.full((n_domains, n_cell_types), 0.35 / max(1, n_cell_types - 1))
    mixtures[np.arange(n_domains), np.arange(n_domains) % n_cell_types] = 0.65
    mixtures *= rng.uniform(0.6, 1.4, size=mixtures.shape)
    mixtures /= mixtures.sum(axis=1, keepdims=True)

    parts = []
    for slide, n in enumerate(sizes):
        coordinates = _lattice(int(n), n_dims, rng)
        centre = (coordinates.max(axis=0) + coordinates.min(axis=0)) / 2
        unit = (coordinates - centre) / (np.ptp(coordinates, axis=0) / 2 + 1e-12)
        # A little noise before the nearest seed is looked up keeps the borders of domains rough.
        seeds = rng.uniform(-1, 1, size=(n_domains, n_dims))
        domain = cKDTree(seeds).query(unit + rng.normal(0, 0.05, size=unit.shape))[1]
        cumulative = mixtures[domain].cumsum(axis=1)
        cell_type = (rng.random((int(n), 1)) > cumulative).sum(axis=1).clip(max=n_cell_types - 1)
        parts.append((coordinates, unit, cell_type, domain, np.full(int(n), slide)))
    return SimulatedCells(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _lattice(n: int, n_dims: int, rng: np.random.Generator) -> Floats:
    """``n`` points of a jittered square (cubic) lattice, the ones left over taken away at random."""
    side = int(np.ceil(n ** (1 / n_dims) - 1e-9))
    shape = [side] * (n_dims - 1) + [int(np.ceil(n / side ** (n_dims - 1)))]
    points = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij"), axis=-1).reshape(-1, n_dims)
    keep = np.sort(rng.choice(len(points), size=n, replace=False))
    jitter = rng.uniform(-_JITTER, _JITTER, size=(n, n_dims))
    return (points[keep] + 0.5 + jitter) * SPACING[n_dims]


def regulator_expression(
    tissue: SimulatedCells,
    basis: Floats,
    is_ligand: np.ndarray,
    rng: np.random.Generator,
    noise: Floats | None = None,
) -> Floats:
    r"""Expression of transcription factors, ligands and receptors.

    .. math:: x_{jg} = \max(0, \mu_{g c(j)} + S_g(s_j) + \epsilon_{jg})

    with a level for each cell type, a spatial pattern :math:`S` and noise for each cell. Part of the pattern is shared
    by all genes, so regulators are correlated but distinguishable. Ligands are high in one or two cell types only.

    Parameters
    ----------
    tissue
        The cells.
    basis
        Functions of position, cells x functions.
    is_ligand
        Whether each gene is a ligand.
    rng
        Generator.
    noise
        Variation from cell to cell of variance one, cells x genes; independent by default.
    """
    n_genes, n_types = len(is_ligand), int(tissue.cell_type.max()) + 1
    level = rng.uniform(0.9, 1.5, size=(n_genes, 1)) + rng.normal(0, 0.3, size=(n_genes, n_types))
    source = np.zeros((n_genes, n_types), dtype=bool)
    for g in range(n_genes):
        source[g, rng.choice(n_types, size=int(rng.integers(1, min(2, n_types) + 1)), replace=False)] = True
    level = np.where(is_ligand[:, None], np.where(source, level + 0.5, 0.35), level)

    own = rng.normal(size=(basis.shape[1], n_genes)) / np.sqrt(basis.shape[1])
    shared = rng.normal(size=(basis.shape[1], 3)) / np.sqrt(basis.shape[1]) @ rng.normal(size=(3, n_genes)) / np.sqrt(3)
    pattern = basis @ (0.3 * own + 0.2 * shared)
    own_noise = rng.normal(0, 0.4, size=pattern.shape)
    return np.maximum(level.T[tissue.cell_type] + pattern + (own_noise if noise is None else 0.4 * noise), 0.0)


def received(
    coordinates: Floats, values: Floats, *, radius: float, slide: Ints, eps: float = 1e-3, block: int = 512
) -> Floats:
    r"""Sum the signals that reach each cell, its own included (how-it-works, section 2).

    .. math:: L_j = \sum_{i \in N(j)} W_{ij} v_i

    The sum is exact and independent of the engines of ``pp.received_ligands``, so a simulated tissue also serves to
    check those. Cells are sorted along one axis, and each block of cells only considers the strip within ``radius``.
    """
    sigma = radius / np.sqrt(-2 * np.log(eps))
    out = np.zeros(values.shape)
    for s in np.unique(slide):
        rows = np.flatnonzero(slide == s)
        rows = rows[np.argsort(coordinates[rows, 0], kind="stable")]
        xyz, signal = coordinates[rows], values[rows]
        for start in range(0, len(rows), block):
            here = xyz[start : start + block]
            low = np.searchsorted(xyz[:, 0], here[0, 0] - radius, side="left")
            high = np.searchsorted(xyz[:, 0], here[-1, 0] + radius, side="right")
            squared = cdist(here, xyz[low:high], "sqeuclidean")
            weights = np.where(squared <= radius**2, np.exp(-squared / (2 * sigma**2)), 0.0)
            out[rows[start : start + block]] = weights @ signal[low:high]
    return out
