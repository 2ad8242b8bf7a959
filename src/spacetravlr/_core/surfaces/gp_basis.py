r"""Smooth functions of position that coefficient surfaces are made of.

A Gaussian process with kernel :math:`k(s, s') = \exp(-\lVert s - s' \rVert^2 / 2 \ell^2)` is replaced by its leading
eigenfunctions on a set of landmarks (Nystrom): with :math:`K_{uu} = E \Lambda E^\top`,

.. math:: \phi(s) = k(s, u) E \Lambda^{-1/2}, \qquad \phi(s)^\top \phi(s') \approx k(s, s').
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

#: Length scales that a fit chooses from, as shares of the extent of the tissue.
LENGTH_SCALES = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08)


@dataclass(frozen=True)
class SpatialBasis:
    """Eigenfunctions of one length scale; each slide has its own, zero on all others."""

    landmarks: tuple[Floats, ...]
    """Landmark positions of each slide, (landmarks x dimensions)."""
    projections: tuple[Floats, ...]
    """From kernel values at the landmarks to functions, one matrix a slide."""
    length_scales: tuple[float, ...]
    """Length scale of each slide, in the units of the coordinates."""

    @property
    def n_functions(self) -> int:
        """Functions over all slides."""
        return sum(p.shape[1] for p in self.projections)

    def evaluate(self, coordinates: Floats, slides: Ints | None = None) -> Floats:
        """Values of the functions at positions: positions x functions, float64."""
        values = np.zeros((len(coordinates), self.n_functions))
        start = 0
        for slide, (landmarks, projection, scale) in enumerate(
            zip(self.landmarks, self.projections, self.length_scales, strict=True)
        ):
            rows = slice(None) if slides is None else np.flatnonzero(slides == slide)
            kernel = _kernel(coordinates[rows], landmarks, scale)
            values[rows, start : start + projection.shape[1]] = kernel @ projection
            start += projection.shape[1]
        return values


def spatial_basis(
    coordinates: Floats,
    share: float,
    slides: Ints | None = None,
    *,
    n_landmarks: int = 150,
    max_functions: int = 80,
    energy: float = 0.995,
) -> SpatialBasis:
    """Build the basis of one length scale.

    Parameters
    ----------
    coordinates
        Cells x dimensions.
    share
        Length scale as a share of the extent of each slide along its longest direction.
    slides
        Slide of each cell, 0..n-1; one slide when not given.
    n_landmarks
        Landmarks of a slide, spread over its cells by k-means.
    max_functions
        Largest number of functions, shared between the slides.
    energy
        Share of the kernel's trace that the functions keep.
    """
    slides = np.zeros(len(coordinates), dtype=int) if slides is None else slides
    n_slides = int(slides.max()) + 1
    landmarks, projections, scales = [], [], []
    for slide in range(n_slides):
        xyz = coordinates[slides == slide]
        centres = _spread(xyz, n_landmarks)
        scale = share * _extent(xyz)
        values, vectors = np.linalg.eigh(_kernel(centres, centres, scale))
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), energy)) + 1
        kept = max(1, min(kept, max_functions // n_slides, int((values > 1e-8 * values[0]).sum())))
        landmarks.append(centres)
        projections.append(vectors[:, :kept] / np.sqrt(values[:kept]))
        scales.append(scale)
    return SpatialBasis(tuple(landmarks), tuple(projections), tuple(scales))


def _extent(xyz: Floats) -> float:
    """Length of an evenly filled tissue along its longest direction, whichever way the tissue is turned."""
    centred = xyz - xyz.mean(axis=0)
    longest = float(np.linalg.eigvalsh(centred.T @ centred / len(xyz))[-1])
    return max(float(np.sqrt(12.0 * max(longest, 0.0))), 1e-12)


def _spread(xyz: Floats, n: int) -> Floats:
    if len(xyz) <= n:
        return np.unique(xyz, axis=0)
    sample = xyz[np.linspace(0, len(xyz) - 1, min(len(xyz), 20_000)).astype(int)]
    centres, _ = kmeans2(sample, n, iter=8, minit="++", rng=np.random.default_rng(0))
    return np.unique(centres, axis=0)


def _kernel(a: Floats, b: Floats, scale: float) -> Floats:
    return np.exp(cdist(a, b, "sqeuclidean") / (-2.0 * scale**2))
