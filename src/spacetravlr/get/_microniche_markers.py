"""Modulators that distinguish microniches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._anndata._term_names import named_terms
from spacetravlr._docs import document
from spacetravlr._validators import assert_key
from spacetravlr.models._microniches import read_supported
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_TERMS = ["target", "modulator", "kind", "tf", "ligand", "receptor", "range"]


@document
def microniche_markers(
    adata: AnnData | SpatialData,
    *,
    key: str = _keys.MICRONICHE,
    n_top: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Rank the modulators that distinguish each microniche from the rest of its cell type.

    .. math::

        d = \frac{\bar b_{\text{niche}} - \bar b_{\text{rest}}}{\text{sd of } b \text{ in the type}}

    Niches were defined by these coefficients, so some must differ, and a test of the difference would be significant
    even for noise. ``d`` is therefore an effect size without a p-value. Whether the niches exist is judged by
    ``stability`` and ``separation`` in ``adata.uns['microniches']``.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.microniches`, or SpatialData.
    key
        Key of the niches.
    n_top
        Number of modulators per niche with the largest ``|d|``; all by default.
    %(table_key)s

    Returns
    -------
    ``niche``, ``cell_type``, ``target``, ``modulator``, ``kind``, ``tf``, ``ligand``, ``receptor``, ``range``, ``mean``
    (of the coefficient, or contribution, in the niche), ``mean_rest``, ``sd`` (within the type) and ``difference``
    (``d``), ordered by niche and descending ``|d|``. Cell types with a single niche have no rows.

    Raises
    ------
    KeyError
        If there are no niches.
    ValueError
        If ``n_top`` is not positive.
    """
    table = unwrap(adata, table_key)
    hint = "Call `st.tl.microniches(adata)` first."
    assert_key(table, "obs", key, name="key", hint=hint)
    assert_key(table, "uns", _keys.microniches(key), name="key", hint=hint)
    if n_top is not None and n_top < 1:
        msg = f"Expected `n_top` to be at least 1 or None, found `{n_top}`."
        raise ValueError(msg)
    stored = table.uns[_keys.microniches(key)]
    params, betas_key = stored["params"], str(stored["params"]["betas_key"])
    model = read_betas(table, betas_key)
    fitted = None
    if params["by"] == "contributions":
        fitted = FittedModel.read(table, betas_key=betas_key, received_key=str(params["received_key"]) or None)
    supported = read_supported(model, fitted)
    terms = named_terms(model.table).iloc[supported.columns][_TERMS].reset_index(drop=True)
    labels = table.obs[key].astype(object).to_numpy()
    by_type = params["scope"] == "types" and str(params["cluster_key"])
    parts = [pd.DataFrame(columns=["niche", "cell_type", *_TERMS, "mean", "mean_rest", "sd", "difference"])]
    for cell_type, rows in stored["niches"].groupby(stored["niches"]["cell_type"].astype(str), sort=False):
        niches = rows["niche"].astype(str).tolist()
        inside = np.isin(labels.astype(str), niches)
        if len(niches) < 2 or not inside.any():
            continue
        _, varying = supported.of_type(inside, cell_type if by_type else None, float(params["min_variation"]))
        values = supported.values[np.ix_(inside, varying)].astype(np.float64)
        of_cell, sd = labels[inside].astype(str), values.std(axis=0)
        for niche in niches:
            here = of_cell == niche
            mean, rest = (_mean(values[chosen]) for chosen in (here, ~here))
            part = terms[varying].assign(mean=mean, mean_rest=rest, sd=sd, difference=(mean - rest) / sd)
            part.insert(0, "niche", niche)
            part.insert(1, "cell_type", cell_type)
            order = np.argsort(-np.abs(np.nan_to_num(part["difference"].to_numpy())), kind="stable")
            parts.append(part.iloc[order[:n_top]])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0) if len(values) else np.full(values.shape[1], np.nan)
