"""Niche composition of an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacetravlr import _keys
from spacetravlr._validators import assert_key

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats

_HINT = "Call `st.pp.niche(adata)` first."


class NicheState(NamedTuple):
    """What ``pp.niche`` wrote."""

    composition: Floats
    """Cells x types, float32 counts."""
    cell_types: list[str]
    """Column names of ``composition``."""
    params: dict[str, Any]


def read_niche(adata: AnnData, key: str = _keys.NICHE) -> NicheState:
    """Read niche composition; ``KeyError`` when ``pp.niche`` was not called."""
    assert_key(adata, "obsm", key, name="niche_key", hint=_HINT)
    assert_key(adata, "uns", key, name="niche_key", hint=_HINT)
    params = dict(adata.uns[key])
    cell_types = [str(name) for name in params.pop("cell_types")]
    return NicheState(np.asarray(adata.obsm[key], dtype=np.float32), cell_types, params)
