"""What ``tl.perturb`` noted of a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import realign
from spacetravlr._validators import assert_key

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Bools

_COLUMN = "perturbed"


def note_cells(cells: Bools, obs_names: pd.Index) -> pd.DataFrame:
    """Table of the perturbed cells by name, so that it keeps its meaning when cells are sorted or taken away."""
    return pd.DataFrame({_COLUMN: cells}, index=obs_names)


def perturbed_cells(adata: AnnData, perturbed_key: str = _keys.PERTURBED) -> Bools:
    """Mask of the cells that were perturbed, in the order of the cells of ``adata``.

    Raises
    ------
    KeyError
        If there is no perturbation.
    ValueError
        If it does not know some of the cells.
    """
    hint = 'Call `st.tl.perturb(adata, "FOXO1")` first.'
    assert_key(adata, "uns", perturbed_key, name="perturbed_key", hint=hint)
    stored = adata.uns[perturbed_key]["cells"]
    where = f"adata.uns[{perturbed_key!r}]['cells']"
    if isinstance(stored, pd.DataFrame):
        return realign(stored, adata.obs_names, where=where, hint=hint)[_COLUMN].to_numpy(dtype=bool)
    mask = np.asarray(stored, dtype=bool)  # of an earlier version: positions
    if mask.shape != (adata.n_obs,):
        msg = f"Expected {where} to have one value for each of the {adata.n_obs} cells, found {mask.size}. {hint}"
        raise ValueError(msg)
    return mask
