"""What the fitted bodies of a fit refer to, and the cells of another section seen through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spacetravlr._anndata._section import Section, differing_signals
from spacetravlr._core.space.niche import niche_composition
from spacetravlr._core.surfaces.gp_basis import SpatialBasis
from spacetravlr._core.surfaces.model import CellFunctions, WhenAsked
from spacetravlr._utils import resolve_n_jobs, warn
from spacetravlr._validators import listed
from spacetravlr.models.bodies._base import EvaluationCells
from spacetravlr.models.bodies._inputs import CellContext, niche_scale, niches, standardised_niche

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.bodies._inputs import FitInputs
    from spacetravlr.nn import NicheData

Position = Literal["average", "same"]


@dataclass(frozen=True)
class Reference:
    """Names, units and functions of the section that bodies were fitted on."""

    type_names: Sequence[str]
    slide_names: Sequence[str]
    slide_size: float
    """Mean number of cells of a slide."""
    radius: float
    """Of the niche, in the units of the coordinates."""
    microns_per_unit: float
    signals: Mapping[str, Any]
    """What the scale of received signals depends on."""
    low: Floats
    high: Floats
    """Bounding box of each slide, slides x dimensions."""
    niche_mean: Floats
    niche_spread: Floats
    """Mean and spread of the niche composition over cells (types,)."""
    bases: tuple[SpatialBasis, ...]
    """Spatial functions of each length scale; none without surfaces."""
    space: tuple[Floats, ...]
    """Mean of these functions over the cells of each type, types x functions for each length scale."""

    @classmethod
    def of_fit(cls, section: Section, inputs: FitInputs, *, with_functions: bool) -> Reference:
        """Take what is needed from the cells of a fit."""
        slides = np.zeros(inputs.n_cells, dtype=np.int64) if inputs.slides is None else inputs.slides
        boxes = [inputs.coordinates[slides == s] for s in range(len(section.slide_names))]
        bases = inputs.bases if with_functions else ()
        mean, spread = niche_scale(inputs.composition)
        return cls(
            type_names=section.type_names,
            slide_names=section.slide_names,
            slide_size=inputs.n_cells / len(section.slide_names),
            radius=section.radius,
            microns_per_unit=section.microns_per_unit,
            signals=section.signals,
            low=np.stack([box.min(axis=0) for box in boxes]),
            high=np.stack([box.max(axis=0) for box in boxes]),
            niche_mean=mean,
            niche_spread=spread,
            bases=bases,
            space=tuple(
                _type_means(b.evaluate(inputs.coordinates, inputs.slides), inputs.cell_type, inputs.n_types)
                for b in bases
            ),
        )

    def check(self, section: Section, position: Position) -> None:
        """Raise ``ValueError`` if coefficients would have another meaning in ``section``; warn if they extrapolate."""
        unknown = sorted(set(section.type_names) - set(self.type_names))
        if unknown:
            msg = (
                f"Expected the cell types of `query` to be among those of `reference`, found {listed(unknown, 8)}, "
                f"which have no coefficients (the reference has {listed(self.type_names, 8)}); rename or remove these "
                "cells."
            )
            raise ValueError(msg)
        differing = [
            f"{name}={found!r} ({expected!r} in the reference)"
            for name, found, expected in differing_signals(section.signals, self.signals)
        ]
        if differing:
            msg = (
                f"Expected signals to be received as in `reference`, found {', '.join(differing)}; call "
                "`st.pp.spatial_weights` and `st.pp.received_ligands` on `query` with the settings of the reference."
            )
            raise ValueError(msg)
        if section.coordinates.shape[1] != self.low.shape[1]:
            msg = (
                f"Expected `query` to have {self.low.shape[1]} coordinates per cell like `reference`, found "
                f"{section.coordinates.shape[1]}."
            )
            raise ValueError(msg)
        slide_size = len(section.cell_type) / len(section.slide_names)
        if self.signals["normalize"] == "mean" and not np.isclose(slide_size, self.slide_size, rtol=0.05):
            warn(
                f'Signals with normalize="mean" are divided by the number of cells of a slide, about {slide_size:.0f} '
                f"in `query` and {self.slide_size:.0f} in `reference`, so coefficients of signals are not "
                'comparable; use normalize="sum" in both.'
            )
        if position == "same":
            self._check_frame(section)

    def _check_frame(self, section: Section) -> None:
        slides = self._slides(section)
        xyz = section.coordinates * (section.microns_per_unit / self.microns_per_unit)
        outside = ((xyz < self.low[slides]) | (xyz > self.high[slides])).any(axis=1).mean()
        if outside > 0:
            warn(
                f"{outside:.1%} of the cells of `query` lie outside the reference, where functions of position are not "
                'defined by data; register the sections first, or use position="average".'
            )

    def _slides(self, section: Section) -> Ints:
        """Slide of the reference that each cell lies on; a reference of one slide serves all."""
        if len(self.slide_names) == 1:
            return np.zeros(len(section.cell_type), dtype=np.int64)
        unknown = sorted(set(section.slide_names) - set(self.slide_names))
        if unknown:
            msg = (
                f"Expected the slides of `query` to be among those of `reference` ({listed(self.slide_names, 8)}) with "
                f'position="same", found {listed(unknown, 8)}; use position="average" for other slides.'
            )
            raise ValueError(msg)
        codes = np.array([list(self.slide_names).index(name) for name in section.slide_names], dtype=np.int64)
        return codes[np.zeros(len(section.cell_type), dtype=np.int64) if section.slides is None else section.slides]

    def view(self, section: Section, position: Position, *, n_jobs: int | None = None) -> QueryCells:
        """The cells of ``section`` as the bodies see them; call :meth:`check` first."""
        codes = np.array([list(self.type_names).index(name) for name in section.type_names], dtype=np.int64)
        cell_type, n_types = codes[section.cell_type], len(self.type_names)
        coordinates = section.coordinates * (section.microns_per_unit / self.microns_per_unit)
        composition = niche_composition(
            coordinates, cell_type, n_types, self.radius, libraries=section.slides, n_jobs=n_jobs
        )
        seen = CellContext(cell_type, n_types, coordinates, section.slides, self.radius, composition)
        return QueryCells(self, seen, self._slides(section) if position == "same" else None)

    def view_of_fit(self, inputs: FitInputs, rows: Ints) -> QueryCells:
        """The cells of the fit itself, in the order ``rows``."""
        slides = None if inputs.slides is None else inputs.slides[rows]
        seen = CellContext(
            inputs.cell_type[rows], inputs.n_types, inputs.coordinates[rows], slides, inputs.radius,
            inputs.composition[rows],
        )  # fmt: skip
        return QueryCells(self, seen, np.zeros(inputs.n_cells, dtype=np.int64) if slides is None else slides)

    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays and plain values, for :meth:`from_state`."""
        return {
            "type_names": np.array(self.type_names, dtype=object),
            "slide_names": np.array(self.slide_names, dtype=object),
            "slide_size": self.slide_size,
            "radius": self.radius,
            "microns_per_unit": self.microns_per_unit,
            "signals": dict(self.signals),
            **{name: getattr(self, name) for name in ("low", "high", "niche_mean", "niche_spread")},
            "bases": {
                f"scale_{i}": {
                    "length_scales": np.array(basis.length_scales),
                    "space": space,
                    **{f"landmarks_{s}": value for s, value in enumerate(basis.landmarks)},
                    **{f"projections_{s}": value for s, value in enumerate(basis.projections)},
                }
                for i, (basis, space) in enumerate(zip(self.bases, self.space, strict=True))
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reference:
        """Rebuild from :meth:`state`."""
        scales = [state["bases"][f"scale_{i}"] for i in range(len(state["bases"]))]
        slides = range(len(state["slide_names"]))
        return cls(
            type_names=[str(name) for name in state["type_names"]],
            slide_names=[str(name) for name in state["slide_names"]],
            slide_size=float(state["slide_size"]),
            radius=float(state["radius"]),
            microns_per_unit=float(state["microns_per_unit"]),
            signals=dict(state["signals"]),
            **{name: np.asarray(state[name]) for name in ("low", "high", "niche_mean", "niche_spread")},
            bases=tuple(
                SpatialBasis(
                    tuple(np.asarray(s[f"landmarks_{i}"]) for i in slides),
                    tuple(np.asarray(s[f"projections_{i}"]) for i in slides),
                    tuple(float(v) for v in s["length_scales"]),
                )
                for s in scales
            ),
            space=tuple(np.asarray(s["space"]) for s in scales),
        )


@dataclass(frozen=True)
class QueryCells:
    """Cells of a section, in the names and units of a reference."""

    reference: Reference
    seen: CellContext
    slides: Ints | None
    """Slide of the reference that each cell lies on; ``None`` where positions are averaged over the reference."""

    def at(self, rows: slice = slice(None), *, n_jobs: int | None = None) -> EvaluationCells:
        """Some of the cells, for the bodies to be evaluated at."""
        reference, seen = self.reference, self.seen
        cell_type = seen.cell_type[rows]

        @cache
        def functions() -> CellFunctions:
            space: Sequence[Floats]
            if self.slides is None:
                space = [means[cell_type] for means in reference.space]
            else:
                where = seen.coordinates[rows], self.slides[rows]
                space = WhenAsked([partial(basis.evaluate, *where) for basis in reference.bases])
            niche = standardised_niche(seen.composition[rows], reference.niche_mean, reference.niche_spread)
            return CellFunctions(cell_type, niche, space, seen.n_types)

        def network() -> NicheData:
            from spacetravlr.nn import NicheData

            return NicheData(**niches(seen, resolve_n_jobs(n_jobs), rows))

        return EvaluationCells(cell_type, functions, network, average=self.slides is None)


def _type_means(values: Floats, cell_type: Ints, n_types: int) -> Floats:
    return np.stack([values[cell_type == c].mean(axis=0) for c in range(n_types)])
