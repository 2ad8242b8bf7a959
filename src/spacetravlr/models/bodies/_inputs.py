"""What a fit needs, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from spacetravlr._core.calibration import Calibration, calibrate
from spacetravlr._core.design import Targets, Terms
from spacetravlr._core.space.niche import niche_images
from spacetravlr._core.standardise import BlockDesign, block_design
from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, SpatialBasis, spatial_basis
from spacetravlr._core.surfaces.model import FINE as FIELD_SCALE
from spacetravlr._core.surfaces.model import CellFunctions
from spacetravlr._core.surfaces.pooled import PooledOptions
from spacetravlr._core.surfaces.search import SurfaceOptions

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints, Rng
    from spacetravlr.nn import NetworkConfig

BodyChoice = Literal["auto", "pooled", "surface", "cnn", "vit", "seed"]
Noise = Literal["poisson", "none"]
Solver = Literal["gram", "group-lasso"]
_IMAGE_SIDE = 16


@dataclass(frozen=True)
class BodyOptions:
    """How targets are fitted: the options of :func:`spacetravlr.tl.fit_betas` that decide what comes out."""

    body: BodyChoice = "auto"
    score_threshold: float = 0.01
    min_cells: int = 30
    group_penalty: float | None = None
    l1_penalty: float | None = None
    solver: Solver = "gram"
    noise: Noise = "none"
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)
    pooled: PooledOptions = field(default_factory=PooledOptions)
    network: NetworkConfig | None = None
    """``None`` takes the defaults."""
    uncertainty: bool = False
    n_draws: int = 50
    """Draws of the coefficients from their posterior that are kept."""
    rng: Rng = 0

    @property
    def rng_seed(self) -> int:
        """The number that every random choice follows from."""
        if not isinstance(self.rng, int | np.integer):
            msg = "Expected the random seed of a fit to be drawn before it starts."
            raise TypeError(msg)
        return int(self.rng)


class Counting(NamedTuple):
    """How log-normalised expression follows from counts: ``x = log1p(scale * count) / unit``."""

    scale: Floats
    """Scale of each cell."""
    unit: float
    """Logarithm of the base."""


@dataclass(frozen=True)
class CellContext:
    """Cells and what surrounds them."""

    cell_type: Ints
    """Codes 0..n_types-1."""
    n_types: int
    coordinates: Floats
    slides: Ints | None
    radius: float
    """Half-width of the niche, in the units of the coordinates."""
    composition: Floats
    """Cells of each type within the radius, cells x types."""


@dataclass(frozen=True)
class FitInputs(CellContext):
    """A tissue and the regressors of its targets."""

    expression: Floats
    """Cells x genes, float32; ``terms.gene`` and ``targets.gene`` index its columns."""
    received: Floats
    """Cells x signals, float32; ``terms.signal`` indexes its columns."""
    terms: Terms
    targets: Targets
    target_names: list[str]
    fold: Ints
    """Spatial fold of each cell; the last fold reports, the others choose."""
    n_folds: int
    """Folds that choose."""
    cv_block: Ints
    """Spatial block of each cell; folds are made of whole blocks."""
    stopping: Bools
    """Cells (in blocks of their own, an eighth of all) that tell a network in training when to stop."""
    counting: Counting | None = None
    """How expression follows from counts; ``None`` where it is taken as exact."""
    raw: Floats | None = None
    """Un-imputed expression of the targets, cells x targets, for a second held-out score."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.cell_type)

    @property
    def report(self) -> Bools:
        """Cells that take no part in any choice."""
        return self.fold == self.n_folds

    def design(self, index: Ints) -> BlockDesign:
        """Regressors and responses of the targets at ``index``; reporting cells have no part in their scale."""
        return block_design(
            self.expression, self.received, self.terms, self.targets, index, fitted=~self.report, n_types=self.n_types
        )

    @cached_property
    def bases(self) -> tuple[SpatialBasis, ...]:
        """Spatial functions of every length scale on offer."""
        return tuple(spatial_basis(self.coordinates, share, self.slides) for share in LENGTH_SCALES)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Distribution of what is meant and of the noise of each gene; ``None`` where expression is exact."""
        if self.counting is None:
            return None
        smooth = self.bases[FIELD_SCALE].evaluate(self.coordinates, self.slides)
        return calibrate(
            self.expression, self.counting.scale, self.cell_type, self.n_types, smooth, self.regulators,
            self.counting.unit,
        )  # fmt: skip

    @cached_property
    def regulators(self) -> Ints:
        """Genes that are local factors of terms, in order."""
        return np.unique(self.terms.gene)

    @cached_property
    def expected_regulators(self) -> Floats:
        """What is expected of each regulator given all that was counted, cells x regulators."""
        if self.calibration is None:
            return self.expression[:, self.regulators]
        return self.calibration.expected(self.regulators)

    def functions(self) -> CellFunctions:
        """What surfaces may depend on, at every cell."""
        return CellFunctions(
            cell_type=self.cell_type,
            niche=standardised_niche(self.composition, *niche_scale(self.composition)),
            space=tuple(basis.evaluate(self.coordinates, self.slides) for basis in self.bases),
            n_types=self.n_types,
        )


def niche_scale(composition: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each cell type's counts in the niches."""
    counts = np.asarray(composition, dtype=np.float64)
    return counts.mean(axis=0), counts.std(axis=0)


def standardised_niche(composition: Floats, mean: Floats, spread: Floats) -> Floats:
    """Niche composition in units of ``spread`` about ``mean``, without the types that did not vary.

    With its own mean and spread, a row's expected squared norm is one.
    """
    counts = np.asarray(composition, dtype=np.float64)
    varies = spread > 1e-9
    return (counts[:, varies] - mean[varies]) / spread[varies] / np.sqrt(max(int(varies.sum()), 1))


def niches(cells: CellContext, n_jobs: int, rows: slice = slice(None)) -> dict[str, Any]:
    """What a network sees of the cells in ``rows``, as arguments of ``nn.NicheData``."""
    index = np.arange(len(cells.cell_type))[rows]

    def images(wanted: Ints) -> Floats:
        return niche_images(
            cells.coordinates, cells.cell_type, cells.n_types, cells.radius, _IMAGE_SIDE,
            cells=index[wanted], libraries=cells.slides, n_jobs=n_jobs,
        )  # fmt: skip

    return {
        "images": images,
        "composition": np.asarray(cells.composition[rows], dtype=np.float32),
        "position": np.asarray(cells.coordinates[rows], dtype=np.float32),
        "cell_type": cells.cell_type[rows].astype(np.int64),
    }
