"""The colours of all plots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._utils import warn
from spacetravlr._validators import assert_positive

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.colors import Normalize

    from spacetravlr._types import Floats

Rgba: TypeAlias = tuple[float, float, float, float]

#: Diverging maps of coefficients and changes, sequential ones of what is at least zero.
DIVERGING = "RdBu_r"
SEQUENTIAL = "viridis"
# told apart by people who see colours differently, too (Paul Tol's bright and vibrant schemes)
BLUE, ORANGE, GREEN, PURPLE, GREY = "#4477aa", "#ee7733", "#228833", "#aa3377", "#bbbbbb"
YELLOW = "#ccbb44"
RED = "#cc3311"
KIND_COLORS = {"tf": BLUE, "lr": ORANGE, "tfl": GREEN, "receptor": PURPLE, "ligand": YELLOW}
KIND_LABELS = {
    "tf": "transcription factor",
    "lr": "ligand-receptor pair",
    "tfl": "ligand-TF pair",
    "receptor": "receptor, main effect",
    "ligand": "own ligand, main effect",
}
ROLE_COLORS = {"tf": BLUE, "ligand": ORANGE, "receptor": PURPLE}
ROLE_LABELS = {"tf": "transcription factor", "ligand": "ligand", "receptor": "receptor"}
RANGE_COLORS = {_keys.SECRETED: BLUE, _keys.CONTACT: ORANGE}
BODY_COLORS = {"pooled": GREEN, "surface": BLUE, "network": ORANGE}
CURVE_COLORS = {"train": BLUE, "validation": ORANGE}

_R_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d+)?)")
_R_GREY = re.compile(r"gr[ae]y(\d{1,3})")


def group_colors(adata: AnnData, key: str) -> dict[str, Rgba]:
    """Colour of each category of ``obs[key]``.

    That of ``uns["{key}_colors"]`` where it has one for every category, whatever form it has (names, hex codes, tuples,
    the array that tuples become in a file, R's greys); else scanpy's defaults, with a warning. Nothing is written.
    """
    from matplotlib.colors import to_rgba
    from scanpy.plotting import palettes

    categories = [str(c) for c in pd.Categorical(adata.obs[key]).categories]
    stored = adata.uns.get(f"{key}_colors")
    if stored is not None:
        try:
            return dict(zip(categories, _parse_colors(stored, categories), strict=False))
        except (TypeError, ValueError) as error:
            warn(f"Default colours are used, because of adata.uns['{key}_colors']: {error}.")
    pool = palettes.default_20 if len(categories) <= 20 else palettes.default_102
    return {c: to_rgba(pool[i % len(pool)]) for i, c in enumerate(categories)}


def _parse_colors(stored: Any, categories: list[str]) -> list[Rgba]:
    if isinstance(stored, Mapping):
        if missing := [c for c in categories if c not in stored]:
            msg = f"it has no colour for {missing[0]!r}"
            raise ValueError(msg)
        listed: Iterable[Any] = [stored[c] for c in categories]
    else:
        # a subset may have fewer categories than colours, which scanpy never cuts
        listed = list(stored)[: len(categories)]
    colors = [_rgba(color) for color in listed]
    if len(colors) < len(categories):
        msg = f"it has {len(colors)} colours for {len(categories)} categories"
        raise ValueError(msg)
    return colors


def _rgba(color: Any) -> Rgba:
    from matplotlib.colors import to_rgba

    if isinstance(color, str):
        if (grey := _R_GREY.fullmatch(color)) and int(grey[1]) <= 100:
            level = round(int(grey[1]) * 2.55) / 255
            return (level, level, level, 1.0)
        return to_rgba(color)
    values = tuple(float(v) for v in np.ravel(color))
    # colours of eight bits
    if len(values) in (3, 4) and max(values) > 1:
        values = tuple(v / 255 for v in values)
    return to_rgba(values)  # type: ignore[arg-type]


def centred(values: Floats, limit: float | str | None = None) -> Normalize:
    """Centre a colour scale on zero; it ends at the 99th percentile, so that one cell does not blanch a map.

    Raises
    ------
    ValueError
        When ``limit`` is neither a positive number nor a percentile such as ``"p95"``.
    """
    from matplotlib.colors import Normalize

    finite = np.abs(values[np.isfinite(values)])
    if limit is None or isinstance(limit, str):
        end = float(np.quantile(finite, _percentile(limit or "p99") / 100)) if finite.size else 0.0
        if end == 0.0 and finite.size:
            end = float(finite.max())
    else:
        assert_positive(limit, name="limit")
        end = float(limit)
    end = end if end > 0 else 1.0
    return Normalize(-end, end)


def _percentile(text: str) -> float:
    found = _R_PERCENTILE.fullmatch(text)
    if found is None or not 0 < float(found[1]) <= 100:
        msg = f'Expected `limit` to be a number or a percentile such as "p95", found `{text!r}`.'
        raise ValueError(msg)
    return float(found[1])
