"""Fitted bodies of a block of targets as a few small arrays, and coefficients evaluated from them at any cells.

Whatever body a cell type keeps, its coefficients are a constant of the type plus what varies from cell to cell:

* zero and seed: the constant alone;
* surface: the constant (zero, or the seed that it departs from) plus functions of type, niche and position;
* network: heads on the embedding of the cell.

The fit reads its own coefficients from here too, so that a fit and its transfer to other cells share one evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._core.linalg.columns import add_columns
from spacetravlr._core.standardise import departure_to_original
from spacetravlr._utils import take_rows
from spacetravlr.io._store import stored_bodies
from spacetravlr.models.bodies._base import Body, EvaluationCells, Varying
from spacetravlr.models.bodies._deviations import Deviations
from spacetravlr.models.bodies._registry import BODIES, BODY_NAMES

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_ARRAYS = ("indptr", "kept", "constant", "mean", "spread", "order")


@dataclass(frozen=True)
class FittedBlock:
    """Bodies of a block of targets."""

    indptr: Ints
    """Target ``t`` has the columns ``indptr[t]:indptr[t + 1]``: its intercept, then its terms."""
    kept: Ints
    """Position in ``BODY_NAMES`` of what each type keeps, targets x types."""
    constant: Floats
    """Types x columns, float32, original units."""
    mean: Floats
    spread: Floats
    """What standardised the columns (the intercept's: the target)."""
    order: Ints
    """Columns in the order in which they are delivered."""
    varying: Mapping[str, Varying]
    """What bodies add from cell to cell, by their names."""
    deviations: Deviations | None = None
    """What draws from the posterior add to it, where they are known."""

    @classmethod
    def collect(
        cls, kept: Ints, bodies: Mapping[str, Body], scaling: Sequence[tuple[Floats, Floats]], order: Ints
    ) -> FittedBlock:
        """Put together what the targets of a block keep.

        Parameters
        ----------
        kept
            Targets x types.
        bodies
            The bodies of the block by name.
        scaling
            Mean and spread of the columns of each target, the target's own first.
        order
            Columns in the order in which they are delivered.
        """
        constants, draws, states = [], [], {name: [None] * len(kept) for name in BODY_NAMES}
        for t, of_types in enumerate(kept):
            found = {int(code): bodies[BODY_NAMES[code]].state(t) for code in np.unique(of_types)}
            draws.append(next((drawn for body in bodies.values() if (drawn := body.draws(t)) is not None), None))
            constants.append(np.stack([found[int(code)].constant[c] for c, code in enumerate(of_types)]))
            for code, state in found.items():
                states[BODY_NAMES[code]][t] = state.varying
        return cls(
            indptr=np.cumsum([0, *(len(mean) for mean, _ in scaling)]).astype(np.int64),
            kept=kept,
            constant=np.hstack(constants).astype(np.float32),
            mean=np.concatenate([mean for mean, _ in scaling]),
            spread=np.concatenate([spread for _, spread in scaling]),
            order=order,
            varying={
                body.name: body.varying.collect(states[body.name], kept.shape[1])
                for code, body in enumerate(BODIES)
                if body.varying is not None and (kept == code).any()
            },
            deviations=Deviations.collect(draws, (kept != 0).any(axis=1).tolist(), kept.shape[1]),
        )

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def n_columns(self) -> int:
        """Columns of all targets."""
        return int(self.indptr[-1])

    def evaluate(
        self, cells: EvaluationCells, *, n_jobs: int = 1, out: Floats | None = None, rows: Ints | None = None
    ) -> Floats:
        """Coefficients at cells: cells x columns (in the order that is delivered), float32, original units.

        Cells of a type get the body that the type keeps.

        Parameters
        ----------
        cells
            The cells.
        n_jobs
            Threads.
        out
            Where to write, a new array by default.
        rows
            Row of each cell there, that of the cell by default.
        """
        of_types = np.ascontiguousarray(self.constant[:, self.order], dtype=np.float32)
        rows = np.arange(len(cells.cell_type)) if rows is None else rows
        if out is None:
            out = np.empty((len(rows), of_types.shape[1]), dtype=np.float32)
        types = np.empty(len(rows), dtype=np.int64)
        types[rows] = cells.cell_type
        take_rows(of_types, types, out, n_jobs)
        place = np.argsort(self.order)
        for name, varying in self.varying.items():
            for t, own, columns, values in varying.departures(cells, self.kept == BODY_NAMES.index(name)):
                width = self.indptr[t + 1] - self.indptr[t]  # departures of a block may be padded
                index = self.indptr[t] + columns[columns < width]
                scaled = departure_to_original(values[:, columns < width], self.mean[index], self.spread[index])
                out[rows[own][:, None], place[index]] += scaled
        return out

    def add_deviation(self, draw: int, columns: Ints, cells: EvaluationCells, out: Floats, at: Ints) -> None:
        """Add what one draw from the posterior adds to some columns (numbers in the order that is delivered).

        Nothing is added to intercepts.

        Parameters
        ----------
        draw
            Which draw.
        columns
            Columns of the block.
        cells
            Cells to evaluate.
        out
            Cells x columns, original units.
        at
            Column of ``out`` for each of ``columns``.
        """
        assert self.deviations is not None
        inside = self.order[columns]
        target = np.searchsorted(self.indptr, inside, side="right") - 1
        first = self.indptr[target]
        scale = np.where(inside == first, -1, self.deviations.parts.scale[target])
        functions = cells.functions()
        for s in np.unique(scale[scale >= 0]).tolist():
            own = np.flatnonzero(scale == s)
            weights = self.deviations.weights(draw, target[own], inside[own] - first[own], functions.places(s))
            weights *= self.spread[first[own]] / self.spread[inside[own]]
            add_columns(functions.stack(s).T @ weights, at[own], out)

    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays and plain values, for :meth:`from_state`."""
        return {
            **{name: getattr(self, name) for name in _ARRAYS},
            "body_names": np.array(BODY_NAMES, dtype=object),
            **{name: varying.state() for name, varying in self.varying.items()},
            **({} if self.deviations is None else {"deviations": self.deviations.state()}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FittedBlock:
        """Rebuild from :meth:`state`."""
        arrays: dict[str, Any] = {name: np.asarray(state[name]) for name in _ARRAYS}
        position = np.array([BODY_NAMES.index(str(name)) for name in state["body_names"]], dtype=np.int64)
        arrays["kept"] = position[arrays["kept"]]
        return cls(
            **arrays,
            varying={
                body.name: body.varying.from_state(state[body.name])
                for body in BODIES
                if body.varying is not None and body.name in state
            },
            deviations=Deviations.from_state(state["deviations"]) if "deviations" in state else None,
        )


def fitted_blocks(stored: Mapping[str, Any]) -> Iterator[FittedBlock]:
    """Blocks of a fit, in the order of their columns, from ``adata.uns`` or from the store that it names."""
    bodies = stored["bodies"]
    names = sorted(name for name in bodies if name != "reference")
    for state in (bodies[name] for name in names) if names else stored_bodies(str(stored["store"])):
        yield FittedBlock.from_state(state)
