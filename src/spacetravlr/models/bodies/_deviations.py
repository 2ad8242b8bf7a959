"""What draws from the posterior add to delivered coefficients, as a few numbers per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr.models.bodies._surface import SurfaceParts

if TYPE_CHECKING:
    from spacetravlr._core.surfaces.model import CellFunctions, SurfaceFit
    from spacetravlr._types import Floats, Ints

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Deviations:
    """Draws of the targets of a block, less what is delivered.

    A target without a model delivers coefficients of zero; its draws are those of the model that was not kept, so that
    errors are about zero.
    """

    parts: SurfaceParts
    """Which weight belongs where; the weights themselves are not used."""
    draws: Floats
    """Weights x draws, float16: of three digits, which is more than an error has."""

    @classmethod
    def collect(
        cls, states: Sequence[tuple[SurfaceFit, Floats] | None], kept: Sequence[bool], n_types: int
    ) -> Deviations | None:
        """Lay out the draws of the targets of a block; ``kept`` says which deliver their own mean.

        ``None`` where no draws are known.
        """
        known = [state for state in states if state is not None]
        if not known or not known[0][1].shape[1]:
            return None
        parts = SurfaceParts.collect([None if state is None else state[0] for state in states], n_types)
        rows = [
            draws if own else draws + np.concatenate(fit.weights)[:, None]
            for (fit, draws), own in zip(
                known, [k for k, s in zip(kept, states, strict=True) if s is not None], strict=True
            )
        ]
        # of what the data say next to nothing about, draws are larger than any float16: infinity times zero is no error
        draws = np.clip(np.concatenate(rows), -_LARGEST, _LARGEST).astype(np.float16)
        return cls(replace(parts, weights=np.zeros(0)), draws)

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.draws.shape[1]

    def of(self, t: int, draw: int, columns: Ints, functions: CellFunctions) -> Floats:
        """What one draw adds to some coefficients of a target (0 is the intercept), cells x columns, standardised."""
        parts = self.parts
        out = np.zeros((len(functions.cell_type), len(columns)))
        place = {int(column): i for i, column in enumerate(columns)}
        for i in np.flatnonzero((parts.target == t) & np.isin(parts.column, columns)).tolist():
            weights = self.draws[parts.indptr[i] : parts.indptr[i + 1], draw].astype(np.float64)
            out[:, place[int(parts.column[i])]] += functions.times(weights, int(parts.part[i]), int(parts.scale[t]))
        return out

    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays."""
        return {"parts": self.parts.state(), "draws": self.draws}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Deviations:
        """Rebuild from :meth:`state`."""
        return cls(SurfaceParts.from_state(state["parts"]), np.asarray(state["draws"]))
