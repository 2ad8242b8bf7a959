"""Counts of a simulated tissue, and causes that correlate with regulation without being part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from spacetravlr.datasets._fields import waves
from spacetravlr.datasets._tissue import SPACING, SimulatedCells

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from spacetravlr._types import Bools, Floats, Ints

CONFOUNDERS = ("smooth", "domains", "tf", "ligand", "receptor", "own_ligand")
_N_PROGRAMS = 4
_NEAR = 1.5  # cells closer than this many spacings touch
_GOES_ALONG = 0.5  # share of a gene's own variation that follows a confounder of the kinds below
#: Role of the genes that follow a confounder of each of these kinds.
FOLLOWERS = {"receptor": "receptor", "own_ligand": "ligand"}


class Sequenced(NamedTuple):
    """What is measured of a tissue."""

    counts: csr_matrix
    """Molecules, cells x genes."""
    size_factors: Floats
    """How much deeper than the mean each cell was measured."""
    log1p: Floats
    """Counts over size factor and depth, log1p."""


def program_noise(n_cells: int, n_genes: int, share: float, rng: np.random.Generator) -> Floats:
    r"""Cell-to-cell variation of variance one, cells x genes, partly shared between genes.

    .. math:: \epsilon_{jg} = \sqrt{\rho}\, P_j \cdot a_g + \sqrt{1 - \rho}\, e_{jg}

    with four programs :math:`P` and loadings :math:`a_g` of length one.
    """
    programs = rng.normal(size=(n_cells, _N_PROGRAMS))
    loadings = rng.normal(size=(_N_PROGRAMS, n_genes))
    loadings /= np.linalg.norm(loadings, axis=0)
    return np.sqrt(share) * programs @ loadings + np.sqrt(1 - share) * rng.normal(size=(n_cells, n_genes))


def hidden_cause(kind: str, tissue: SimulatedCells, signal: Floats, rng: np.random.Generator) -> Floats:
    """Draw a hidden cause that acts on a target in addition to its regulators, with variance one over cells.

    Parameters
    ----------
    kind
        ``"smooth"``: a field of one to two periods across the tissue; ``"domains"``: one level per domain; ``"tf"``,
        ``"receptor"`` and ``"own_ligand"``: a gene that varies from cell to cell; ``"ligand"``: ``signal``.
    tissue
        The cells.
    signal
        A received signal of no gene.
    rng
        Generator of this target.
    """
    if kind == "smooth":
        functions = waves(tissue.unit, rng, n=16, low=0.5, high=2.0)
        values: Floats = functions @ rng.normal(size=functions.shape[1])
    elif kind == "domains":
        values = rng.normal(size=int(tissue.domain.max()) + 1)[tissue.domain]
    elif kind == "ligand":
        values = signal
    else:
        values = rng.normal(size=len(tissue.slide))
    return (values - values.mean()) / max(float(values.std()), 1e-12)


def follow(expression: Floats, cause: Floats, cell_type: Ints) -> Floats:
    """Replace half of the variation within cell types with that of ``cause``, keeping mean and spread."""
    n_types = int(cell_type.max()) + 1
    counts = np.maximum(np.bincount(cell_type, minlength=n_types), 1)
    mean = (np.bincount(cell_type, expression, minlength=n_types) / counts)[cell_type]
    own = expression - mean
    spread = float(own.std())
    return np.maximum(mean + np.sqrt(1 - _GOES_ALONG) * own + np.sqrt(_GOES_ALONG) * spread * cause, 0.0)


def sequence(
    expression: Floats,
    tissue: SimulatedCells,
    *,
    depth: float,
    dispersion: float,
    size_factor_sd: float,
    spillover: float,
    rng: np.random.Generator,
) -> Sequenced:
    r"""Draw counts around log1p expression, and normalise them.

    .. math:: k_{jg} \sim \mathrm{Poisson}(s_j\, d\, m_{jg}\, u_{jg}), \qquad m = e^x - 1

    with size factors :math:`s` of mean one, and :math:`u` from a gamma distribution of mean one and variance
    ``dispersion``. With ``spillover``, that share of a cell's molecules is counted in the cells that touch it.
    """
    mean = np.expm1(np.minimum(expression, 8.0))
    if spillover:
        mean = (1 - spillover) * mean + spillover * (_touching(tissue) @ mean)
    sizes = np.exp(rng.normal(0, size_factor_sd, size=len(mean)))
    sizes /= sizes.mean()
    rate = depth * sizes[:, None] * mean
    if dispersion:
        rate = rate * rng.gamma(1 / dispersion, dispersion, size=rate.shape)
    counts = rng.poisson(rate)
    log1p = np.log1p(counts / (sizes[:, None] * depth))
    return Sequenced(sparse.csr_matrix(counts, dtype=np.float32), sizes, log1p)


def _touching(tissue: SimulatedCells) -> csr_matrix:
    """Neighbours that touch each cell, each row of sum one; the cell itself where there are none."""
    n = len(tissue.slide)
    radius = _NEAR * SPACING[tissue.coordinates.shape[1]]
    pairs = cKDTree(tissue.coordinates).query_pairs(radius, output_type="ndarray")
    pairs = pairs[tissue.slide[pairs[:, 0]] == tissue.slide[pairs[:, 1]]]
    near = sparse.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    near = near + near.T
    degree = np.asarray(near.sum(axis=1)).ravel()
    alone: Bools = degree == 0
    near = near + sparse.diags(alone.astype(float))
    return sparse.csr_matrix(sparse.diags(1 / np.where(alone, 1, degree)) @ near)
