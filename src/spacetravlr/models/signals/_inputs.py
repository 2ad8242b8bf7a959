"""What tests of signals need of a tissue, the same for all targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.inference.nulls import draw_shift, torus_sources
from spacetravlr._core.scores import centred_by_type
from spacetravlr._core.space.spatial_cv import spatial_blocks
from spacetravlr._core.surfaces.gp_basis import spatial_basis

if TYPE_CHECKING:
    from spacetravlr._core.signals.operators import LigandField
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._inputs import FitInputs

#: Length scales of the smooth fields of a target, as shares of the extent, and the functions of each.
SCALES = ((0.5, 20), (0.25, 60), (0.12, 80))
_VARYING = (0.5, 10)  # of what the effect of a regulator may follow
_CELLS_PER_BLOCK = 40  # whose scores are added up before their spread is taken
_FEWEST_BLOCKS, _MOST_BLOCKS = 16, 256
_FLAT = 1e-9


class Sent(NamedTuple):
    """Signals and who sends them, cells in the order of the fit."""

    neighbours: Floats
    """What each cell receives from others, cells x signals."""
    ligands: Floats
    """What it expresses of the ligand of each signal, cells x signals."""
    composition: Floats
    """What it would receive if each type sent one unit from all its cells, cells x (ranges x types)."""


@dataclass(frozen=True)
class SignalInputs:
    """Columns that the regressions of all targets share, centred within types and of variance one unless said."""

    fit: FitInputs
    sent: Sent
    signals: Floats
    """What neighbours send, cells x signals."""
    own: Floats
    """Ligands of the cell itself, cells x signals."""
    composition: Floats
    smooth: tuple[Floats, ...]
    """Functions of position for each length scale, not of variance one."""
    varying: Floats
    """What the effect of a regulator may vary with: functions of position, then the composition of each type."""
    block: Ints
    """Spatial block of each cell, over which scores are added up."""
    sources: tuple[Ints, ...]
    """For each shift of the section over itself, the cell whose signals each cell gets."""

    @property
    def n_blocks(self) -> int:
        """Blocks."""
        return int(self.block.max()) + 1

    def folds(self) -> list[Ints]:
        """Cells of each fold that gains are measured in."""
        return [np.flatnonzero(self.fit.fold == f) for f in np.unique(self.fit.fold)]

    def within(self, values: Floats) -> Floats:
        """Centre within types, float32."""
        return centred_by_type(values, self.fit.cell_type, self.fit.n_types)

    def standard(self, values: Floats) -> Floats:
        """Centre within types and scale to variance one; columns that do not vary become zero."""
        return unit_variance(self.within(values))

    def deviations(self, expected: Floats) -> tuple[Floats, Floats]:
        """Expression of regulators less their type mean and smooth field, of variance one, and their spread before."""
        centred = self.within(expected).astype(np.float64)
        basis = self.smooth[1].astype(np.float64)
        weights = np.linalg.lstsq(basis.T @ basis, basis.T @ centred, rcond=1e-8)[0]
        left = centred - basis @ weights
        return unit_variance(left), np.sqrt((left**2).mean(axis=0))


def unit_variance(values: Floats) -> Floats:
    """Columns of mean zero over their standard deviation, float32; zero where they do not vary."""
    spread = np.sqrt((values.astype(np.float64) ** 2).mean(axis=0))
    return (values / np.where(spread > _FLAT, spread, np.inf)).astype(np.float32)


def signal_inputs(fit: FitInputs, sent: Sent, *, n_shifts: int, rng: np.random.Generator) -> SignalInputs:
    """Evaluate what all targets share."""

    def within(values: Floats) -> Floats:
        return centred_by_type(values, fit.cell_type, fit.n_types)

    def basis(share: float, most: int) -> Floats:
        functions = spatial_basis(fit.coordinates, share, fit.slides, max_functions=most)
        return within(functions.evaluate(fit.coordinates, fit.slides))

    composition = unit_variance(within(sent.composition))
    return SignalInputs(
        fit=fit,
        sent=sent,
        signals=unit_variance(within(sent.neighbours)),
        own=unit_variance(within(sent.ligands)),
        composition=composition,
        smooth=tuple(basis(*scale) for scale in SCALES),
        varying=np.hstack([unit_variance(basis(*_VARYING)), composition[:, : fit.n_types]]),
        block=_blocks(fit.coordinates, fit.slides),
        sources=tuple(
            torus_sources(fit.coordinates, draw_shift(fit.coordinates.shape[1], rng), fit.cell_type, fit.slides)
            for _ in range(n_shifts)
        ),
    )


def what_is_sent(field: LigandField, ligands: Floats, contact: Bools, cell_type: Ints, n_types: int) -> Sent:
    """Signals from other cells alone, and the composition that they are sent from; cells in any one order.

    Parameters
    ----------
    field
        The operators.
    ligands
        Expression of the ligand of each signal, cells x signals.
    contact
        Whether each signal is one of contact.
    cell_type, n_types
        Type of each cell.
    """
    neighbours = field.apply(ligands, contact).astype(np.float64)
    of_type = np.eye(n_types, dtype=np.float32)[cell_type]
    parts = []
    for operator, columns in ((field.secreted, ~contact), (field.contact, contact)):
        if columns.any():
            neighbours[:, columns] -= operator.own()[:, None] * ligands[:, columns]
            parts.append(operator.apply(of_type) - operator.own()[:, None] * of_type)
    composition = np.hstack(parts) if parts else np.zeros((len(cell_type), 0))
    return Sent(neighbours, ligands, composition)


def _blocks(coordinates: Floats, slides: Ints | None) -> Ints:
    """Compact blocks of about equal size; none crosses slides."""
    slides = np.zeros(len(coordinates), dtype=np.int64) if slides is None else slides
    block, first, n_slides = np.empty(len(coordinates), dtype=np.int64), 0, int(slides.max(initial=0)) + 1
    for slide in range(n_slides):
        rows = np.flatnonzero(slides == slide)
        wanted = np.clip(len(rows) / _CELLS_PER_BLOCK, _FEWEST_BLOCKS / n_slides, _MOST_BLOCKS / n_slides)
        here = spatial_blocks(coordinates[rows], 1 << max(0, int(np.floor(np.log2(max(wanted, 1))))))
        block[rows] = first + np.unique(here, return_inverse=True)[1]
        first = int(block[rows].max()) + 1
    return block
