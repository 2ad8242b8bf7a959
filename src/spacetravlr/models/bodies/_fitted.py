"""Fitted bodies of a block of targets as a few small arrays, and coefficients evaluated from them at any cells.

Whatever body a cell type keeps, its coefficients are a constant of the type plus what varies from cell to cell:

* zero and seed: the constant alone;
* surface: the constant (zero, or the seed that it departs from) plus functions of type, niche and position;
* network: heads on the embedding of the cell.

The fit reads its own coefficients from here too, so that a fit and its transfer to other cells share one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr._core.surfaces.model import Part

if TYPE_CHECKING:
    from spacetravlr._core.surfaces.model import CellFunctions, SurfaceFit
    from spacetravlr._types import Floats, Ints
    from spacetravlr.nn import BlockFit, NicheData

#: Bodies in the order in which each must beat the ones before it.
BODIES = ("zero", "seed", "surface", "network")
_SURFACE, _NETWORK = BODIES.index("surface"), BODIES.index("network")
_CELLS = 1024  # at which a network is evaluated at a time


class BodyState(NamedTuple):
    """One body of one target."""

    constant: Floats
    """Coefficients of each type in original units, types x (intercept, terms)."""
    surface: SurfaceFit | None = None
    """What a surface adds, in standardised units."""
    network: BlockFit | None = None
    """What a network adds, in standardised units; it holds all targets of the block that keep one."""


class EvaluationCells(NamedTuple):
    """Cells at which coefficients are evaluated; what they read is computed when a body asks for it."""

    cell_type: Ints
    functions: Callable[[], CellFunctions]
    """What surfaces read."""
    niches: Callable[[], NicheData]
    """What networks read."""
    average: bool = False
    """Whether functions of position take their mean over the cells of the fit of the same type; ``functions`` hold it
    already."""


@dataclass(frozen=True)
class SurfaceParts:
    """Weights of the surfaces of a block, one part of one coefficient after another."""

    scale: Ints
    """Length scale of each target, -1 without a surface."""
    target: Ints
    """Target of each part."""
    column: Ints
    """Coefficient of the target that the part belongs to, 0 for the intercept."""
    part: Ints
    """:class:`spacetravlr._core.surfaces.fit.Part`."""
    indptr: Ints
    """Part ``i`` has the weights ``weights[indptr[i]:indptr[i + 1]]``."""
    weights: Floats
    amplitudes: Floats
    """Parts x types."""

    @classmethod
    def collect(cls, fits: Sequence[SurfaceFit | None], n_types: int) -> SurfaceParts:
        """Lay out the fits of the targets of a block, ``None`` where no surface was kept."""
        rows = [(t, k, part, w, fit.amplitudes[:, k], fit.amplitudes.shape[1])
                for t, fit in enumerate(fits) if fit is not None
                for (k, part), w in zip(fit.blocks, fit.weights, strict=True)]  # fmt: skip
        return cls(
            scale=np.array([-1 if fit is None else fit.scale for fit in fits], dtype=np.int64),
            target=np.array([r[0] for r in rows], dtype=np.int64),
            column=np.array([(k + 1) % width for _, k, _, _, _, width in rows], dtype=np.int64),  # theirs is last
            part=np.array([int(r[2]) for r in rows], dtype=np.int64),
            indptr=np.cumsum([0, *(len(r[3]) for r in rows)]).astype(np.int64),
            weights=np.concatenate([np.zeros(0), *(r[3] for r in rows)]),
            amplitudes=np.array([r[4] for r in rows], dtype=np.float64).reshape(-1, n_types),
        )

    def values(self, t: int, functions: CellFunctions, rows: Ints) -> tuple[Ints, Floats]:
        """Coefficients of target ``t`` at some cells, in standardised units.

        Returns
        -------
        Which columns have parts, after the intercept's; cells x these columns.
        """
        types = functions.cell_type[rows]
        space, niche = functions.space[self.scale[t]][rows], functions.niche[rows]
        mine = np.flatnonzero(self.target == t)
        columns = np.union1d([0], self.column[mine])
        out = np.zeros((len(columns), len(rows)))
        for i, k in zip(mine.tolist(), np.searchsorted(columns, self.column[mine]).tolist(), strict=True):
            weights, part = self.weights[self.indptr[i] : self.indptr[i + 1]], Part(int(self.part[i]))
            if part is Part.TYPE:
                out[k] += weights[types]
                continue
            if part is Part.TYPE_SPACE:
                shared = np.einsum("jf,jf->j", space, weights.reshape(-1, space.shape[1])[types])
            else:
                shared = weights[0] if part is Part.POOLED else (niche if part is Part.NICHE else space) @ weights
            out[k] += shared * self.amplitudes[i][types]
        return columns, out.T


@dataclass(frozen=True)
class FittedBlock:
    """Bodies of a block of targets."""

    indptr: Ints
    """Target ``t`` has the columns ``indptr[t]:indptr[t + 1]``: its intercept, then its terms."""
    kept: Ints
    """Index into ``BODIES`` of what each type keeps, targets x types."""
    constant: Floats
    """Types x columns, float32, original units."""
    mean: Floats
    spread: Floats
    """What standardised the columns (the intercept's: the target)."""
    surfaces: SurfaceParts | None
    network_target: Ints
    """Targets that a network serves."""
    network: Mapping[str, Any] | None
    """``BlockFit.state_dict()`` of these targets."""
    place: Floats | None
    """Mean of the network's position features over the cells of the fit, types x features."""
    device: str = "cpu"
    """Where the network is evaluated; not part of the state."""

    @classmethod
    def collect(
        cls, kept: Ints, state: Callable[[str, int], BodyState], scaling: Sequence[tuple[Floats, Floats]]
    ) -> FittedBlock:
        """Put together what the targets of a block keep.

        Parameters
        ----------
        kept
            Targets x types.
        state
            From the name of a body and a target of the block to its state.
        scaling
            Mean and spread of the columns of each target, the target's own first.
        """
        n_types = kept.shape[1]
        surfaces: list[SurfaceFit | None] = [None] * len(kept)
        network: BlockFit | None = None
        constants = []
        for t, of_types in enumerate(kept):
            states = {int(code): state(BODIES[code], t) for code in np.unique(of_types)}
            constants.append(np.stack([states[int(code)].constant[c] for c, code in enumerate(of_types)]))
            if _SURFACE in states:
                surfaces[t] = states[_SURFACE].surface
            if _NETWORK in states:
                network = states[_NETWORK].network
        served = np.flatnonzero((kept == _NETWORK).any(axis=1))
        return cls(
            indptr=np.cumsum([0, *(len(mean) for mean, _ in scaling)]).astype(np.int64),
            kept=kept,
            constant=np.hstack(constants).astype(np.float32),
            mean=np.concatenate([mean for mean, _ in scaling]),
            spread=np.concatenate([spread for _, spread in scaling]),
            surfaces=SurfaceParts.collect(surfaces, n_types) if (kept == _SURFACE).any() else None,
            network_target=served,
            network=None if network is None else network.state_dict(),
            place=None if network is None else network.mean_place(),
            device="cpu" if network is None else str(network.device),
        )

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def n_columns(self) -> int:
        """Columns of all targets."""
        return int(self.indptr[-1])

    def evaluate(self, cells: EvaluationCells) -> Floats:
        """Coefficients at cells: cells x columns, float32, original units.

        Cells of a type get the body that the type keeps.
        """
        out = np.ascontiguousarray(self.constant[cells.cell_type], dtype=np.float32)
        if self.surfaces is not None:
            functions = cells.functions()
            for t in np.flatnonzero(self.surfaces.scale >= 0).tolist():
                rows = np.flatnonzero(self.kept[t][cells.cell_type] == _SURFACE)
                self._add(out, t, rows, *self.surfaces.values(t, functions, rows))
        if self.network is not None:
            self._add_network(self.network, out, cells)
        return out

    def _add_network(self, state: Mapping[str, Any], out: Floats, cells: EvaluationCells) -> None:
        from spacetravlr.nn import BlockFit

        data = cells.niches()
        if cells.average and self.place is not None:
            data = replace(data, place=self.place[cells.cell_type])
        fit = BlockFit.from_state_dict(state, data, device=self.device)
        # Type by type: each asks only the bodies of the targets that keep a network in it.
        for code in np.unique(cells.cell_type).tolist():
            keeps = np.flatnonzero(self.kept[self.network_target, code] == _NETWORK)
            if not len(keeps):
                continue
            part, mine = fit.take(keeps), np.flatnonzero(cells.cell_type == code)
            for here in np.split(mine, range(_CELLS, len(mine), _CELLS)):
                values = part.coefficients(here, n_jobs=1)
                for i, t in enumerate(self.network_target[keeps].tolist()):
                    columns = np.arange(self.indptr[t + 1] - self.indptr[t])
                    self._add(out, t, here, columns, values[:, i, : len(columns)].astype(np.float64))

    def _add(self, out: Floats, t: int, rows: Ints, columns: Ints, values: Floats) -> None:
        """Add standardised values (cells x ``columns`` of ``t``, the intercept first) in original units."""
        columns = self.indptr[t] + columns
        mean, spread = self.mean[columns], self.spread[columns]
        scaled = values * (spread[0] / spread)
        scaled[:, 0] = spread[0] * values[:, 0] - scaled[:, 1:] @ mean[1:]
        out[rows[:, None], columns] += scaled

    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays and plain values, for :meth:`from_state`."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)[:5]}
        if self.surfaces is not None:
            out["surfaces"] = {f.name: getattr(self.surfaces, f.name) for f in fields(SurfaceParts)}
        if self.network is not None:
            out |= {"network_target": self.network_target, "network": dict(self.network), "place": self.place}
        return out

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FittedBlock:
        """Rebuild from :meth:`state`."""
        surfaces = state.get("surfaces")
        arrays: dict[str, Any] = {f.name: np.asarray(state[f.name]) for f in fields(cls)[:5]}
        return cls(
            **arrays,
            surfaces=None if surfaces is None else SurfaceParts(**{k: np.asarray(v) for k, v in surfaces.items()}),
            network_target=np.asarray(state.get("network_target", []), dtype=np.int64),
            network=state.get("network"),
            place=state.get("place"),
        )
