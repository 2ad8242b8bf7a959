"""Coefficients drawn from the posterior of a fit, and perturbations run with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._section import read_section
from spacetravlr._core.linalg.columns import copy_columns
from spacetravlr._core.response.change_summary import mean_changes
from spacetravlr._core.response.round import CoefficientChunk
from spacetravlr._core.response.start import Workspace
from spacetravlr._utils import numba_threads
from spacetravlr.models.bodies._fitted import FittedBlock, fitted_blocks
from spacetravlr.models.bodies._reference import QueryCells, Reference
from spacetravlr.models.perturb._coefficients import column_groups
from spacetravlr.models.perturb._simulator import Simulator

if TYPE_CHECKING:
    from spacetravlr._core.response.propagation import Changes
    from spacetravlr._core.response.round import CoefficientReader, Derivative
    from spacetravlr._core.response.start import Start
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._base import EvaluationCells
    from spacetravlr.models.perturb._model import FittedModel

_CHUNK_BYTES = 1 << 27


class Samples(NamedTuple):
    """Changes of one batch of perturbations in draws of the coefficients."""

    mean: Floats
    """Mean change in all cells and in each cell type: draws x perturbations x groups x genes."""
    error: Floats | None
    """Root mean squared difference from the delivered change, cells x genes x perturbations, where asked for."""


@dataclass(frozen=True)
class DrawnCoefficients:
    """What draws add to the coefficients of a fit, evaluated when it is read."""

    model: FittedModel
    blocks: Sequence[FittedBlock]
    view: QueryCells

    @classmethod
    def of(cls, model: FittedModel, n_samples: int) -> DrawnCoefficients:
        """Draws of a fit.

        Raises
        ------
        ValueError
            If the fit has fewer than ``n_samples`` draws.
        """
        stored = model.adata.uns[model.betas_key]
        blocks = list(fitted_blocks(stored)) if "bodies" in stored else []
        known = min((0 if b.deviations is None else b.deviations.n_draws for b in blocks), default=0)
        if known < n_samples:
            reason = (
                "fits with `counts_layer=` (or body='pooled') keep `n_draws` of them"
                if not known
                else f"call `st.tl.fit_betas(..., n_draws={n_samples})`"
            )
            msg = (
                f"Expected `n_samples` to be at most the {known} draws that the fit kept, found {n_samples}; {reason}."
            )
            raise ValueError(msg)
        received = model.adata.uns[_keys.received_params(str(model.fit.params["received_key"]))]
        section = read_section(
            model.adata, cluster_key=str(model.fit.params.get("cluster_key") or "") or None, received=received
        )
        reference = Reference.from_state(stored["bodies"]["reference"])
        return cls(model, blocks, reference.view(section, "same", n_jobs=model.n_jobs))

    @cached_property
    def _cells(self) -> EvaluationCells:
        """All cells: what coefficients are functions of is evaluated once."""
        return self.view.at()

    @cached_property
    def _starts(self) -> Ints:
        """First column of each block, and the end of the last."""
        return np.cumsum([0, *(block.n_columns for block in self.blocks)])

    def simulator(self, draw: int, workspace: Workspace) -> Simulator:
        """The model with the coefficients of one draw; what it reads lies in ``workspace``."""
        base = self.model.simulator
        out = Simulator(base.tissue, base.terms, base.targets, betas=base.betas, n_jobs=base.n_jobs)
        out.coefficients = self._reader(draw, workspace)
        return out

    def _reader(self, draw: int, workspace: Workspace) -> CoefficientReader:
        targets, base = self.model.design.targets, self.model.simulator.coefficients
        n_cells = self.model.adata.n_obs
        widest = max(1, _CHUNK_BYTES // (4 * n_cells))
        last: list[tuple[Ints, CoefficientChunk]] = []  # one round after the other asks for the same

        def read(wanted: Ints, needed: Ints | None = None) -> Iterator[CoefficientChunk]:
            for group in column_groups(wanted, targets, widest):
                columns = np.concatenate([np.zeros(0, int), *(np.r_[targets.columns_of(t)] for t in group.tolist())])
                columns = columns if needed is None else np.intersect1d(columns, needed)
                if last and np.isin(columns, last[0][0]).all():
                    yield last[0][1]._replace(targets=group)
                    continue
                first = int(columns[0]) if len(columns) else 0
                for chunk in base(group, columns):
                    shape = len(chunk.values), int(columns[-1]) - first + 1 if len(columns) else 0
                    last.clear()  # their memory is used again
                    values = workspace.empty("draw", shape, chunk.values.dtype)
                    copy_columns(chunk.values, columns - chunk.first_column, values, columns - first)
                    self._add_deviation(draw, columns, chunk.cells, values, columns - first)
                    drawn = CoefficientChunk(chunk.cells, group, first, values)
                    if chunk.cells == slice(0, n_cells):
                        last.append((columns, drawn))
                    yield drawn

        return read

    def _add_deviation(self, draw: int, columns: Ints, cells: slice, out: Floats, at: Ints) -> None:
        """Add what a draw adds to some columns of the fit to columns ``at`` of cells x columns."""
        seen = self._cells if cells == slice(0, self.model.adata.n_obs) else self.view.at(cells)
        block = np.searchsorted(self._starts, columns, side="right") - 1
        for b in np.unique(block).tolist():
            own = block == b
            self.blocks[b].add_deviation(draw, columns[own] - self._starts[b], seen, out, at[own])

    def propagate(
        self,
        start: Start,
        n_samples: int,
        *,
        n_propagation: int,
        derivative: Derivative,
        delivered: Changes | None = None,
        workspace: Workspace | None = None,
    ) -> Samples:
        """Run the same perturbations with one draw of the coefficients after another.

        Parameters
        ----------
        start
            Start of the perturbations.
        n_samples
            Draws.
        n_propagation, derivative
            As in :meth:`Simulator.propagate`.
        delivered
            Changes with the coefficients of the fit, where errors at single cells are wanted.
        workspace
            Memory to use again.
        """
        groups, names = self.model.cell_types()
        workspace = Workspace() if workspace is None else workspace
        means, squares = [], None if delivered is None else np.zeros_like(delivered.values)
        for draw in range(n_samples):
            changes = self.simulator(draw, workspace).propagate(
                start, n_propagation=n_propagation, derivative=derivative, workspace=workspace
            )
            with numba_threads(self.model.n_jobs):
                means.append(mean_changes(changes.values, groups, len(names)))
            if squares is not None and delivered is not None:
                squares += (changes.values - delivered.values) ** 2
        return Samples(np.stack(means), None if squares is None else np.sqrt(squares / n_samples, out=squares))
