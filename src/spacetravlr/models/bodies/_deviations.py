"""What draws from the posterior add to delivered coefficients, as a few numbers per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr.models.bodies._surface import SurfaceParts

if TYPE_CHECKING:
    from spacetravlr._core.surfaces.model import SurfaceFit
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

    def weights(self, draw: int, target: Ints, column: Ints, places: Ints) -> Floats:
        """Weights of one draw for some coefficients of modulators, functions x coefficients, float32, standardised.

        Parameters
        ----------
        draw
            Which draw.
        target, column
            Target of each coefficient, and its number there (from 1; 0 is the intercept); all of one length scale.
        places
            Where the functions of each part begin, as from
            :meth:`spacetravlr._core.surfaces.model.CellFunctions.places`.
        """
        parts, width = self.parts, int(max(self.parts.column.max(initial=0), column.max(initial=0))) + 1
        wanted, given = target * width + column, parts.target * width + parts.column
        order = np.argsort(wanted)
        place = order[np.minimum(np.searchsorted(wanted[order], given), len(order) - 1)]
        chosen = np.flatnonzero((wanted[place] == given) & (parts.part < len(places) - 1))
        first, length = parts.indptr[chosen], np.diff(parts.indptr)[chosen]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        out = np.zeros((int(places[-1]), len(wanted)), dtype=np.float32)
        row, at = np.repeat(places[parts.part[chosen]], length) + within, np.repeat(place[chosen], length)
        out[row, at] = self.draws[np.repeat(first, length) + within, draw]
        return out

    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays."""
        return {"parts": self.parts.state(), "draws": self.draws}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Deviations:
        """Rebuild from :meth:`state`."""
        return cls(SurfaceParts.from_state(state["parts"]), np.asarray(state["draws"]))
