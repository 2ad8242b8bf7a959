"""Check the coordinates for a call: their unit, their slides, and the radii in relation to their spacing.

Nothing is rescaled. If metadata or spacing disagree with the arguments, a warning names the argument to pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from spacetravlr import _keys
from spacetravlr._utils import warn

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools, Floats, Ints

#: Median nearest-neighbour distances in micrometres between which coordinates are taken to be what they are said to be.
PLAUSIBLE_SPACING = (1.0, 500.0)
#: Single cells, which do not lie on a lattice, are hardly further apart.
_SPARSE_CELLS = 50.0
#: Distance in micrometres of neighbouring Visium spots, the only hexagonal lattice in use.
_VISIUM_PITCH = 100.0
#: Micrometres of a CosMx pixel, and of one of the first instruments.
_COSMX_PIXEL, _COSMX_PIXEL_2022 = 0.12, 0.18
_COSMX_COLUMNS = (
    ("CenterX_global_px", "CenterY_global_px"),
    ("CenterX_local_px", "CenterY_local_px"),
    ("x_FOV_px", "y_FOV_px"),
    ("x_slide_px", "y_slide_px"),
)
_LIBRARY_COLUMNS = (
    "library_id", "library", "sample", "sample_id", "slide", "slide_id", "section", "section_id", "fov", "batch",
)  # fmt: skip
#: Numbers within this part of each other are the same.
_TOLERANCE = 0.15
#: Slides lie on top of each other when neighbours are of another slide in more than this part of the cases that chance
#: would give, or when so many cells are at the place of another one.
_MIXED, _SHARED_PLACES = 0.3, 0.25
_SAMPLE = 2000


class _Overlap(NamedTuple):
    message: str
    libraries: Ints | None
    """Slide of each cell, where a column of ``obs`` says it."""


class _Layout(NamedTuple):
    """How cells lie among each other."""

    spacing: float
    """Median distance between nearest neighbours, in coordinate units."""
    nearest: Floats
    """Distance of sampled cells to their nearest neighbour."""
    regular: bool
    """Whether cells lie on a lattice."""
    hexagonal: bool
    square: bool


def check_units(
    adata: AnnData,
    coords: Floats,
    *,
    microns_per_unit: float,
    radius: float,
    contact_radius: float | None = None,
    spatial_key: str = _keys.SPATIAL,
    libraries: Ints | None = None,
    falls_off: bool = True,
) -> None:
    """Warn where coordinates are not micrometres, slides lie on top of each other, or a radius reaches nobody.

    Parameters
    ----------
    adata
        Annotated data; its ``uns["spatial"]`` and columns of ``obs`` that readers leave behind are looked at.
    coords
        Coordinates, cells x 2 or 3.
    microns_per_unit
        Length of one coordinate unit in micrometres.
    radius
        Radius of secreted ligands, in micrometres.
    contact_radius
        Radius of contact ligands, in micrometres; ``None`` where there are none.
    spatial_key
        Where the coordinates come from.
    libraries
        Slide of each cell, if given.
    falls_off
        Whether cells near the radius count for little, as in weights, or as much as others, as in counts of a niche.
    """
    if libraries is None:
        overlap = _find_overlap(adata, coords)
        if overlap is not None:
            warn(overlap.message)
            libraries = overlap.libraries  # so that spacing and neighbours are those of one slide
    layout = _layout(coords, libraries)
    if layout is None:
        return
    scale = _scale_problem(adata, coords, layout, microns_per_unit, radius, libraries)
    if scale is not None:
        warn(f"adata.obsm[{spatial_key!r}]: {scale}")
        return
    short = 0.7 * radius if falls_off else radius
    for problem in _radius_problems(coords, layout, microns_per_unit, radius, short, contact_radius, libraries):
        warn(problem)


def _layout(coords: Floats, libraries: Ints | None) -> _Layout | None:
    """Distances to the nearest neighbours on the same slide, over a sample spread evenly over the cells."""
    codes = np.zeros(len(coords), dtype=np.int64) if libraries is None else libraries
    found = []
    for code in np.unique(codes):
        points = np.unique(coords[codes == code], axis=0)  # cells at one place say nothing of the spacing
        if len(points) > 1:
            sample = points[:: max(1, len(points) // _SAMPLE)]
            distance = cKDTree(points).query(sample, k=np.arange(2, 8))[0]  # infinite where there are fewer
            found.append(distance)
    if not found:
        return None
    distance = np.concatenate(found)
    nearest = distance[:, 0]
    spacing = float(np.median(nearest))
    low, high = np.quantile(nearest, [0.1, 0.9])
    regular = bool(spacing > 0 and high - low <= _TOLERANCE * spacing and len(nearest) >= 20)
    if regular:  # the nearest of six spots at about one distance is biased where positions are rounded to pixels
        spacing = float(np.median(distance[distance <= (1 + _TOLERANCE) * spacing]))
    hexagonal = regular and coords.shape[1] == 2 and bool(np.median(distance[:, 5]) <= (1 + _TOLERANCE) * spacing)
    # of a square lattice, the second ring lies at 1.41 spacings, of a hexagonal one at 1.73, at borders as well
    square = regular and bool((np.abs(distance - np.sqrt(2) * spacing) <= _TOLERANCE * spacing).mean() > 0.1)
    return _Layout(spacing, nearest, regular, hexagonal, square)


def _scale_problem(
    adata: AnnData, coords: Floats, layout: _Layout, unit: float, radius: float, libraries: Ints | None
) -> str | None:
    """Describe a problem with the unit, judged by metadata first and then by the spacing."""
    if _are_array_positions(coords, layout) and not (layout.spacing == 1 and unit > 1):
        return (
            "whole numbers that count rows and columns of spots, not lengths; use the positions in the image "
            "with `microns_per_unit`"
            + (
                ", or 50 um per column and 86.6 um per row for Visium"
                if layout.spacing > 1
                else ", or the distance between two spots as `microns_per_unit`"
            )
            + "."
        )
    spacing = layout.spacing * unit
    expected, source = _expected_unit(adata, coords, layout, unit)
    if expected is not None:
        if _same(unit, expected):
            return None
        return (
            f"{source}, but microns_per_unit={unit:g}: {_reached(coords, radius, unit, expected, libraries)} Pass "
            f"`microns_per_unit={expected:.4g}`."
        )
    if layout.hexagonal and not _same(spacing, _VISIUM_PITCH):
        expected = _VISIUM_PITCH / layout.spacing
        return (
            f"a hexagonal lattice of spots {spacing:.4g} um apart at microns_per_unit={unit:g}, while Visium spots "
            f"are {_VISIUM_PITCH:g} um apart: {_reached(coords, radius, unit, expected, libraries)} Pass "
            f"`microns_per_unit={expected:.4g}` if these are Visium spots."
        )
    low, high = PLAUSIBLE_SPACING
    stated = f"the median distance between nearest neighbours is {spacing:.4g} um at microns_per_unit={unit:g}, "
    hint = "; set `microns_per_unit` to the length of one coordinate unit in micrometres."
    if spacing > radius and not (layout.regular and spacing <= high):
        return f"{stated}which is beyond radius={radius:g}, so most cells receive nothing from others{hint}"
    if not low <= spacing <= high:
        return f"{stated}which is implausible for cells or spots{hint}"
    if spacing > _SPARSE_CELLS and not layout.regular:
        return (
            f"{stated}which is wide for single cells (a radius of {radius:g} um reaches "
            f"{_mean_reached(coords, radius / unit, libraries):.1f} others). If coordinates are pixels, set "
            "`microns_per_unit` to the size of a pixel in micrometres (0.12 for CosMx)."
        )
    return None


def _expected_unit(adata: AnnData, coords: Floats, layout: _Layout, unit: float) -> tuple[float | None, str]:
    """Micrometres per coordinate unit according to metadata left by readers, and the source of that information."""
    for library in _libraries_in_uns(adata).values():
        factors = library.get("scalefactors")
        if not isinstance(factors, Mapping):
            continue
        spot = _number(factors, "spot_diameter_fullres")
        pixel, bin_size = _number(factors, "microns_per_pixel"), _number(factors, "bin_size_um")
        if pixel and _same(layout.spacing, (bin_size or _VISIUM_PITCH) / pixel):
            return pixel, "pixels of an image, according to the scale factors in adata.uns['spatial']"
        # spots are 55 um wide (65 for Space Ranger) and 100 apart: other ratios belong to other units or technologies,
        # and so do square lattices (Spatial Transcriptomics: 100 um wide, 200 apart)
        if spot and not layout.square and 0.5 <= spot / layout.spacing <= 0.75:
            return (
                _VISIUM_PITCH / layout.spacing,
                f"pixels of an image, according to adata.uns['spatial'] (Visium spots are {spot:.4g} pixels wide and "
                f"{layout.spacing:.4g} pixels apart here)",
            )
    for columns in _COSMX_COLUMNS:
        if set(columns) <= set(adata.obs.columns):
            stored = adata.obs[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)
            if np.allclose(stored, coords[:, :2], rtol=1e-6, atol=1e-3):
                return (
                    unit if 0.1 <= unit <= 0.2 else _COSMX_PIXEL,
                    f"pixels of CosMx, because they equal adata.obs['{columns[0]}'] ({_COSMX_PIXEL} um each, "
                    f"{_COSMX_PIXEL_2022} in the first data sets of 2022)",
                )
    return None, ""


def _radius_problems(
    coords: Floats,
    layout: _Layout,
    unit: float,
    radius: float,
    short: float,
    contact_radius: float | None,
    libraries: Ints | None,
) -> Iterator[str]:
    spacing = layout.spacing * unit
    what = "spots" if layout.regular else "cells"
    if spacing > short:
        yield (
            f"radius={radius:g} is short for {what} {spacing:.4g} um apart: it reaches "
            f"{_mean_reached(coords, radius / unit, libraries):.1f} others on average, at weights near zero. Pass "
            f"a `radius` of at least {2 * spacing:.3g} to receive signals from others."
        )
    if contact_radius is not None:
        alone = float((layout.nearest * unit > contact_radius * (1 + 1e-9)).mean())
        if alone > 0.99:
            yield (
                f"contact_radius={contact_radius:g} reaches no cell but the cell itself (nearest neighbours are "
                f"{spacing:.4g} um away): every contact pair is autocrine. Pass a larger `contact_radius`, or "
                "`contact_radius=None` to leave contact pairs out."
            )


def _find_overlap(adata: AnnData, coords: Floats) -> _Overlap | None:
    """Find overlapping slides, by their names in ``uns`` and ``obs`` or by cells at the same place."""
    names = [str(name) for name in _libraries_in_uns(adata)]
    columns = [c for c in _LIBRARY_COLUMNS if c in adata.obs]
    if len(names) > 1:
        named_so = [c for c in adata.obs.columns if _labels(adata.obs[c]) == set(names)]
        columns = named_so + [c for c in columns if c not in named_so]
    for column in columns:
        if _mixed(adata.obs[column], coords) > _MIXED:
            return _Overlap(
                f"The cells of different adata.obs[{column!r}] lie on top of each other and would receive each other's "
                f"signals; pass `library_key={column!r}`.",
                pd.factorize(adata.obs[column])[0],
            )
    if len(names) > 1 and not columns:
        return _Overlap(
            f"adata.uns['spatial'] holds {len(names)} libraries (such as {names[0]!r}, {names[1]!r}); unless they do "
            "not overlap, pass the column of adata.obs that identifies their cells as `library_key=`.",
            None,
        )
    shared = 1 - len(np.unique(coords, axis=0)) / max(len(coords), 1)
    if shared > _SHARED_PLACES:
        return _Overlap(
            f"The {len(coords)} cells lie at {round((1 - shared) * len(coords))} distinct places; if these are several "
            "slides, pass the column of adata.obs that identifies them as `library_key=`.",
            None,
        )
    return None


def _mixed(column: pd.Series, coords: Floats) -> float:
    """Share of cells whose nearest neighbour has another label, relative to what random labels would give."""
    codes = pd.factorize(column)[0]
    counts = np.bincount(codes[codes >= 0])
    if len(counts) < 2 or len(counts) > len(codes) / 4:
        return 0.0
    step = max(1, len(coords) // _SAMPLE)
    near = cKDTree(coords).query(coords[::step], k=2)[1]
    own = np.arange(0, len(coords), step)
    other = np.where(near[:, 0] == own, near[:, 1], near[:, 0])  # of two cells at one place, not the cell itself
    by_chance = 1 - float(((counts / counts.sum()) ** 2).sum())
    return float((codes[other] != codes[own]).mean()) / by_chance


def _labels(column: pd.Series) -> set[str]:
    if pd.api.types.is_float_dtype(column.dtype):
        return set()
    return {str(label) for label in column.dropna().unique()}


def _libraries_in_uns(adata: AnnData) -> dict[str, Mapping[str, Any]]:
    stored = adata.uns.get(_keys.SPATIAL)
    if not isinstance(stored, Mapping):
        return {}
    return {str(name): value for name, value in stored.items() if isinstance(value, Mapping)}


def _are_array_positions(coords: Floats, layout: _Layout) -> bool:
    """Whole numbers one apart, or on every other column as Visium counts them."""
    whole: Bools = coords == np.round(coords)
    if not (layout.regular and whole.all()):
        return False
    return layout.spacing == 1 or (layout.spacing < 2 and bool((coords[:, :2].sum(axis=1) % 2 == 0).all()))


def _number(factors: Mapping[str, Any], key: str) -> float | None:
    try:
        value = float(factors[key])
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= _TOLERANCE * b


def _reached(coords: Floats, radius: float, unit: float, expected: float, libraries: Ints | None) -> str:
    now, then = (_mean_reached(coords, radius / u, libraries) for u in (unit, expected))
    return f"a radius of {radius:g} um reaches {now:.1f} other cells now, and {then:.1f} with {expected:.4g}."


def _mean_reached(coords: Floats, radius: float, libraries: Ints | None) -> float:
    """Mean number of other cells within ``radius`` (coordinate units) on the same slide, over a sample."""
    codes = np.zeros(len(coords), dtype=np.int64) if libraries is None else libraries
    step = max(1, len(coords) // 300)
    counts = []
    for code in np.unique(codes):
        points = coords[codes == code]
        counts.append(cKDTree(points).query_ball_point(points[::step], radius, return_length=True) - 1)
    return float(np.concatenate(counts).mean())
