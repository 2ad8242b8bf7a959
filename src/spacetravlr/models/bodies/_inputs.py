"""What a fit needs, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from spacetravlr._core.design import Targets, Terms, term_values
from spacetravlr._core.surfaces.gp_basis import LENGTH_SCALES, SpatialBasis, spatial_basis
from spacetravlr._core.surfaces.model import CellFunctions
from spacetravlr._core.surfaces.search import SurfaceOptions

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints, Rng
    from spacetravlr.nn import NetworkConfig

Body = Literal["auto", "surface", "cnn", "vit", "seed"]
Solver = Literal["gram", "group-lasso"]


@dataclass(frozen=True)
class BodyOptions:
    """How targets are fitted: the options of :func:`spacetravlr.tl.fit_betas` that decide what comes out."""

    body: Body = "auto"
    score_threshold: float = 0.01
    min_cells: int = 30
    group_penalty: float | None = None
    l1_penalty: float | None = None
    solver: Solver = "gram"
    surface: SurfaceOptions = field(default_factory=SurfaceOptions)
    network: NetworkConfig | None = None
    """``None`` takes the defaults."""
    uncertainty: bool = False
    rng: Rng = 0

    @property
    def rng_seed(self) -> int:
        """The number that every random choice follows from."""
        if not isinstance(self.rng, int | np.integer):
            msg = "the random seed of a fit is drawn before it starts"
            raise TypeError(msg)
        return int(self.rng)

    @property
    def with_surface(self) -> bool:
        """Whether surfaces are fitted."""
        return self.body in ("auto", "surface")

    @property
    def with_network(self) -> bool:
        """Whether a network is trained."""
        return self.body in ("auto", "cnn", "vit")


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
    stopping: Bools
    """Cells (in blocks of their own, an eighth of all) that tell a network in training when to stop."""
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

    @cached_property
    def bases(self) -> tuple[SpatialBasis, ...]:
        """Spatial functions of every length scale on offer."""
        return tuple(spatial_basis(self.coordinates, share, self.slides) for share in LENGTH_SCALES)

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


@dataclass(frozen=True)
class BlockDesign:
    """Regressors and responses of a block of targets, with what standardises them."""

    index: Ints
    """Which targets of the fit, (targets,)."""
    values: Floats
    """Distinct terms of the block, cells x terms, float32, original units."""
    mean: Floats
    spread: Floats
    """Mean and standard deviation of each term over the choosing cells; spread is one where a term is constant."""
    y: Floats
    """Cells x targets, float32."""
    y_mean: Floats
    y_spread: Floats
    indptr: Ints
    """Target ``t`` uses the columns ``term[indptr[t]:indptr[t + 1]]`` of ``values``."""
    term: Ints
    group: Ints
    """Kind of each column of ``values``."""
    n_types: int

    def __len__(self) -> int:
        return len(self.index)

    def columns(self, t: int) -> Ints:
        """Columns of ``values`` that target ``t`` of the block uses."""
        return self.term[self.indptr[t] : self.indptr[t + 1]]

    @property
    def width(self) -> int:
        """Most terms of any target."""
        return int(np.diff(self.indptr).max(initial=0))

    def standardised(self) -> Floats:
        """``values`` in standardised units, cells x terms, float32."""
        return ((self.values - self.mean) / self.spread).astype(np.float32)

    def constant(self, t: int, intercept: Floats | float) -> Floats:
        """Coefficients of target ``t`` that are an intercept alone, of each type or of all: types x (1 + terms)."""
        out = np.zeros((self.n_types, len(self.columns(t)) + 1))
        out[:, 0] = intercept
        return out

    def scaling(self, t: int) -> tuple[Floats, Floats]:
        """Mean and spread of target ``t`` and then of its terms."""
        columns = self.columns(t)
        return (
            np.concatenate([self.y_mean[t : t + 1], self.mean[columns]]),
            np.concatenate([self.y_spread[t : t + 1], self.spread[columns]]),
        )

    def to_original(self, t: int, coefficients: Floats) -> Floats:
        """Coefficients of target ``t`` (..., terms then intercept, standardised) as (..., intercept then terms)."""
        columns = self.columns(t)
        scaled = coefficients[..., :-1] * (self.y_spread[t] / self.spread[columns])
        intercept = self.y_mean[t] + self.y_spread[t] * coefficients[..., -1] - scaled @ self.mean[columns]
        return np.concatenate([intercept[..., None], scaled], axis=-1)

    def to_standard(self, t: int, coefficients: Floats) -> Floats:
        """Coefficients of target ``t`` (..., intercept then terms, original units) in standardised units."""
        columns = self.columns(t)
        scaled = coefficients[..., 1:] * (self.spread[columns] / self.y_spread[t])
        intercept = (
            coefficients[..., 0] + coefficients[..., 1:] @ self.mean[columns] - self.y_mean[t]
        ) / self.y_spread[t]
        return np.concatenate([intercept[..., None], scaled], axis=-1)


def block_design(inputs: FitInputs, index: Ints) -> BlockDesign:
    """Evaluate the distinct terms of the targets at ``index``."""
    rows = [inputs.targets.terms_of(int(t)) for t in index]
    distinct, term = np.unique(np.concatenate(rows), return_inverse=True)
    terms = inputs.terms.take(distinct)
    values = term_values(inputs.expression, inputs.received, terms)
    y = np.ascontiguousarray(inputs.expression[:, inputs.targets.gene[index]])
    choosing = ~inputs.report  # reporting cells have no part in the scale either
    mean = values[choosing].mean(axis=0, dtype=np.float64)
    spread = values[choosing].std(axis=0, dtype=np.float64)
    y_spread = y[choosing].std(axis=0, dtype=np.float64)
    return BlockDesign(
        index=index,
        values=values,
        mean=mean,
        spread=np.where(spread > 1e-9 * np.maximum(np.abs(mean), 1e-30), spread, 1.0),
        y=y,
        y_mean=y[choosing].mean(axis=0, dtype=np.float64),
        y_spread=np.where(y_spread > 0, y_spread, 1.0),
        indptr=np.concatenate([[0], np.cumsum([len(r) for r in rows])]),
        term=term,
        group=terms.kind.astype(np.int64),
        n_types=inputs.n_types,
    )
