"""Where the cells of an AnnData lie, of which type they are, and how signals reach them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr._anndata._spatial import category_codes, get_coordinates, read_weights_params

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats, Ints

_SIGNALS = ("radius", "contact_radius", "sigma", "contact_sigma", "truncate", "autocrine")


class Section(NamedTuple):
    """Cells of a section, or of several slides in one object."""

    cell_type: Ints
    """Codes into ``type_names``."""
    type_names: list[str]
    coordinates: Floats
    slides: Ints | None
    """Codes into ``slide_names``; ``None`` for one slide."""
    slide_names: list[str]
    radius: float
    """Of secreted signals, in the units of the coordinates."""
    microns_per_unit: float
    signals: dict[str, Any]
    """What the scale of received signals depends on; lengths in micrometres."""


def read_section(adata: AnnData, *, cluster_key: str | None, received: Mapping[str, Any]) -> Section:
    """Read coordinates, types and slides.

    Parameters
    ----------
    adata
        Annotated data.
    cluster_key
        Cell types; all cells are of the type "all" without it.
    received
        Parameters of the received ligands.

    Raises
    ------
    KeyError
        If something was not computed yet.
    ValueError
        If labels are missing or coordinates are not finite.
    """
    if cluster_key is None:
        cell_type, type_names = np.zeros(adata.n_obs, dtype=np.int64), ["all"]
    else:
        cell_type, type_names = category_codes(adata, cluster_key, name="cluster_key")
    weights = read_weights_params(adata, str(received["weights_key"]))
    slides, slide_names = None, [""]
    if library_key := str(weights.get("library_key", "")):
        slides, slide_names = category_codes(adata, library_key, name="library_key")
    return Section(
        cell_type=np.asarray(cell_type, dtype=np.int64),
        type_names=type_names,
        coordinates=get_coordinates(adata, str(weights["spatial_key"])),
        slides=slides,
        slide_names=slide_names,
        radius=float(weights["radius"]) / float(weights["microns_per_unit"]),
        microns_per_unit=float(weights["microns_per_unit"]),
        signals=signal_settings(weights, received),
    )


def signal_settings(weights: Mapping[str, Any], received: Mapping[str, Any]) -> dict[str, Any]:
    """What the scale of received signals depends on; lengths in micrometres.

    Parameters
    ----------
    weights
        Parameters of the spatial weights.
    received
        Parameters of the received ligands.
    """
    return {
        **{name: np.asarray(weights[name]).item() for name in _SIGNALS if name in weights},
        "normalize": str(received["normalize"]),
    }


def differing_signals(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings that differ: their name, what was found, and what was expected."""
    return [(name, found.get(name), value) for name, value in expected.items() if not _agree(found.get(name), value)]


def _agree(found: Any, expected: Any) -> bool:
    if isinstance(expected, str | bool | np.bool_):
        return bool(found == expected)
    return found is not None and bool(np.isclose(found, expected, rtol=1e-6))
