"""What coefficient surfaces are made of: functions of cells, and fitted weights of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints


_CELLS = 4096  # whose functions are held at a time
#: Length scale of the fine part, among those on offer.
FINE = 4


class Part(IntEnum):
    """Parts of a coefficient; the intercept alone also has a surface of its own in each cell type, and a fine one."""

    POOLED = 0
    TYPE = 1
    NICHE = 2
    SPACE = 3
    TYPE_SPACE = 4
    FINE = 5


class WhenAsked(Sequence["Floats"]):
    """Functions of each length scale, evaluated when they are first asked for: of several, a fit may use one."""

    def __init__(self, evaluate: Sequence[Callable[[], Floats]]) -> None:
        self._evaluate = evaluate
        self._known: dict[int, Floats] = {}

    def __len__(self) -> int:
        return len(self._evaluate)

    def __getitem__(self, scale: Any) -> Any:
        if not -len(self) <= scale < len(self):
            raise IndexError(scale)
        scale %= len(self)
        if scale not in self._known:
            self._known[scale] = self._evaluate[scale]()
        return self._known[scale]


@dataclass(frozen=True)
class CellFunctions:
    """What a coefficient may depend on, evaluated at cells (rows)."""

    cell_type: Ints
    """Codes 0..n_types-1."""
    niche: Floats
    """Standardised niche composition, a row's expected squared norm being one; no columns to leave it out."""
    space: Sequence[Floats]
    """Spatial functions, one array for each length scale on offer."""
    n_types: int
    _stacks: dict[int, Floats] = field(default_factory=dict, repr=False, compare=False)

    def take(self, rows: Ints | Bools, *, scale: int | None = None) -> CellFunctions:
        """The same functions at some of the cells; with ``scale``, the others are left empty."""
        wanted = range(len(self.space)) if scale is None else (scale, self.fine)
        space = [self.space[i][rows] if i in wanted else np.empty((0, 0)) for i in range(len(self.space))]
        return CellFunctions(self.cell_type[rows], self.niche[rows], space, self.n_types)

    @property
    def fine(self) -> int:
        """Which length scale the fine part has."""
        return min(FINE, len(self.space) - 1)

    def of(self, part: int, scale: int) -> Floats:
        """Functions of one :class:`Part`, cells x functions."""
        n = len(self.cell_type)
        if part == Part.POOLED:
            return np.ones((n, 1))
        if part == Part.NICHE:
            return self.niche
        if part in (Part.SPACE, Part.FINE):
            return self.space[self.fine if part == Part.FINE else scale]
        one_hot = np.zeros((n, self.n_types))
        one_hot[np.arange(n), self.cell_type] = 1.0
        if part == Part.TYPE:
            return one_hot
        return (one_hot[:, :, None] * self.space[scale][:, None, :]).reshape(n, -1)

    def times(self, weights: Floats, part: int, scale: int) -> Floats:
        """Functions of one :class:`Part` times weights (coefficients x functions), coefficients x cells."""
        if part == Part.POOLED:
            return np.repeat(weights, len(self.cell_type), axis=1)
        if part == Part.TYPE:
            return np.asarray(weights[:, self.cell_type])
        if part == Part.TYPE_SPACE:
            of_types = weights.reshape(len(weights), self.n_types, -1)[:, self.cell_type]
            return np.einsum("jf,kjf->kj", self.space[scale], of_types)
        return np.asarray(weights @ self.of(part, scale).T)

    @property
    def bounds(self) -> Ints:
        """Where each type begins and where the last one ends, with cells in the order of their types."""
        return np.searchsorted(self.cell_type, np.arange(self.n_types + 1))

    def type_means(self) -> CellFunctions:
        """Means over the cells of each type, one row per type; zero where a type is absent."""
        counts = np.maximum(np.bincount(self.cell_type, minlength=self.n_types), 1)[:, None]

        def mean(values: Floats) -> Floats:
            return (self.of(Part.TYPE, 0).T @ values) / counts

        return CellFunctions(np.arange(self.n_types), mean(self.niche), tuple(map(mean, self.space)), self.n_types)

    def stack(self, scale: int) -> Floats:
        """Functions of all parts of a modulator, functions x cells in float32; kept, since every target needs them."""
        if scale not in self._stacks:
            parts = [self.of(part, scale).T for part in Part if part < Part.TYPE_SPACE]
            self._stacks[scale] = np.concatenate(parts, dtype=np.float32, casting="same_kind")
        return self._stacks[scale]

    def places(self, scale: int) -> Ints:
        """Rows of :meth:`stack` at which each part begins, and where the last one ends."""
        sizes = 1, self.n_types, self.niche.shape[1], self.space[scale].shape[1]
        return np.concatenate([[0], np.cumsum(sizes)])


@dataclass(frozen=True)
class Surface:
    """Coefficients of one target as functions of the cell, in standardised units."""

    blocks: list[tuple[int, int]]
    """(coefficient, part) of each block of weights."""
    weights: list[Floats]
    """Posterior mean of the weights of each block."""
    amplitudes: Floats
    """Amplitude of the shared surface, cell types x coefficients."""
    scale: int
    """Which length scale was chosen."""

    def fields(self, functions: CellFunctions, *, amplitudes: bool = True, types: bool = True) -> dict[int, Floats]:
        """Coefficients of the modulators that have any, each (cells,), by number.

        Without ``amplitudes`` the surface that all types share, without ``types`` less the parts of single types.
        """
        out: dict[int, Floats] = {}
        plain = not amplitudes or bool((self.amplitudes == 1).all())
        for part in sorted({part for _, part in self.blocks}):
            if part == Part.TYPE and not types:
                continue
            own = [i for i, (_, other) in enumerate(self.blocks) if other == part]
            terms = np.array([self.blocks[i][0] for i in own])
            values = functions.times(np.stack([self.weights[i] for i in own]), part, self.scale)
            if part != Part.TYPE and not plain:
                values = values * self.amplitudes[functions.cell_type][:, terms].T
            for k, of_term in zip(terms.tolist(), values, strict=True):
                out[k] = out[k] + of_term if k in out else of_term
        return out


@dataclass(frozen=True)
class SurfaceFit(Surface):
    """A fitted surface; its coefficients are those of the modulators, and the intercept's last."""

    evidence: Floats
    """Log Bayes factor of each modulator against its absence; -inf where it was never added (modulators,)."""
    noise: float
    """Residual variance."""
    log_evidence: float
    factor: Floats = field(repr=False)
    """The posterior covariance of all weights, in the order of ``blocks``, is ``factor.T @ factor``."""

    def coefficients(self, functions: CellFunctions) -> Floats:
        """Coefficients at cells: cells x modulators, the intercept last."""
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for k, of_cells in self.fields(functions).items():
            values[:, k] = of_cells
        return values

    def prediction(self, x: Floats, functions: CellFunctions) -> Floats:
        """Response at cells with modulators ``x`` (cells x modulators, without the intercept), (cells,)."""
        total = np.zeros(len(functions.cell_type))
        for k, of_cells in self.fields(functions).items():
            total += of_cells if k == x.shape[1] else of_cells * x[:, k]
        return total

    def standard_deviations(self, functions: CellFunctions) -> Floats:
        """Posterior standard deviation of each coefficient at cells: cells x modulators, the intercept last."""
        matrices = {part: functions.of(part, self.scale) for part in {part for _, part in self.blocks}}
        offsets = np.concatenate([[0], np.cumsum([len(w) for w in self.weights])])
        values = np.zeros((len(functions.cell_type), self.amplitudes.shape[1]))
        for k in {k for k, _ in self.blocks}:
            own_idx = [i for i, (other, _) in enumerate(self.blocks) if other == k]
            index = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in own_idx])
            features = np.hstack(
                [self._scaled(matrices[p], k, p, functions.cell_type) for p in (self.blocks[i][1] for i in own_idx)]
            )
            values[:, k] = np.linalg.norm(features @ self.factor[:, index].T, axis=1)
        return values

    def deviation_of(self, combination: Floats, functions: CellFunctions) -> Floats:
        """Posterior standard deviation of a linear combination of the coefficients at each cell, (cells,)."""
        values = np.zeros(len(functions.cell_type))
        for rows in np.split(np.arange(len(values)), range(_CELLS, len(values), _CELLS)):
            here = functions.take(rows, scale=self.scale)
            features = [
                combination[k] * self._scaled(here.of(part, self.scale), k, part, here.cell_type)
                for k, part in self.blocks
            ]
            if features:
                values[rows] = np.linalg.norm(np.hstack(features) @ self.factor.T, axis=1)
        return values

    def _scaled(self, matrix: Floats, k: int, part: int, cell_type: Ints) -> Floats:
        return matrix if part == Part.TYPE else matrix * self.amplitudes[cell_type, k][:, None]
