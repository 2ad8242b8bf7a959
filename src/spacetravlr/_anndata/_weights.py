"""The weights of one cell, as they are stored or as the kernel gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr import _keys
from spacetravlr._anndata._spatial import get_coordinates, library_codes, read_weights_params
from spacetravlr._core.space.weights import gaussian_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from spacetravlr._types import Floats


def kernel_params(params: Mapping[str, Any], signal_range: str) -> dict[str, Any]:
    """``sigma``, ``radius`` and ``truncate`` of one range, in micrometres, of recorded weights."""
    prefix = "contact_" if signal_range == _keys.CONTACT else ""
    return {
        "sigma": float(params[f"{prefix}sigma"]),
        "radius": float(params[f"{prefix}radius"]),
        "truncate": bool(params["truncate"]),
    }


def weights_of_cell(adata: AnnData, position: int, signal_range: str, *, weights_key: str) -> Floats:
    """Weight of every cell's signal at one cell: the stored ones, or the kernel itself where a grid is used."""
    stored = weights_key if signal_range == _keys.SECRETED else _keys.contact_weights(weights_key)
    if stored in adata.obsp:
        return np.asarray(adata.obsp[stored][position].toarray(), dtype=float).ravel()
    params = read_weights_params(adata, weights_key)
    coordinates = get_coordinates(adata, params["spatial_key"]) * params["microns_per_unit"]
    distance = np.linalg.norm(coordinates - coordinates[position], axis=1)
    weights = gaussian_weight(distance, **kernel_params(params, signal_range))
    libraries = library_codes(adata, str(params.get("library_key", "")))
    if libraries is not None:
        weights[libraries != libraries[position]] = 0.0
    if not params["autocrine"]:
        weights[position] = 0.0
    return weights
