"""Record what coefficients were fitted on, in a few numbers per cell, and compare it with the data when they are used.

Coefficients are per unit of expression and of received signal, so they lose their meaning once a layer is imputed again
or the weights have another radius. A fit therefore records weighted sums of the expression and of the received signals
of each cell. They follow the cells by name, through subsetting and sorting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._section import differing_signals
from spacetravlr._utils import warn

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

FITTED_ON = "fitted_on"

#: Factor by which a baseline may add up to more or less than what was fitted.
_SAME_SCALE = 2.0
#: Sums may differ by this part of their mean size: rounding, another engine, half precision on disk.
_EXPRESSION_TOLERANCE = 1e-3
#: Of all that was received, on average over cells.
_SIGNAL_TOLERANCE = 0.01
_ROWS_AT_ONCE = 65536
_IDENTITY = ("target", "kind", "tf", "ligand", "receptor", "range")


def fitted_on(cells: pd.DataFrame, terms: pd.DataFrame, signals: Mapping[str, Any]) -> dict[str, Any]:
    """Make the note of a fit.

    Parameters
    ----------
    cells
        Sums of each cell, see :func:`cell_sums`.
    terms
        The table of coefficients.
    signals
        What the scale of received signals depends on, see :func:`~spacetravlr._anndata._section.signal_settings`.
    """
    return {"cells": cells, "terms": terms_digest(terms), "signals": dict(signals)}


def cell_sums(
    expression: Floats,
    index: Ints,
    genes: pd.Index,
    received: Floats,
    signal_names: Sequence[str],
    obs_names: pd.Index,
) -> pd.DataFrame:
    """Weighted sums of each cell: ``expression``, and received ``secreted`` and ``contact`` signals.

    The weights differ between genes and depend only on their names, so swapped genes are detected and reordered genes
    make no difference.

    Parameters
    ----------
    expression
        Cells x genes.
    index
        Columns of ``expression`` that the fit reads.
    genes
        Name of each column of ``expression``.
    received
        Cells x signals.
    signal_names
        Name of each column of ``received``.
    obs_names
        Names of the cells.
    """
    contact = np.array([_keys.parse_signal(name)[1] == _keys.CONTACT for name in signal_names], dtype=bool)
    sums = {
        "expression": _weighted_sum(expression, np.asarray(index), _weights([str(g) for g in genes[index]])),
        **{
            name: _weighted_sum(received, chosen, _weights([signal_names[int(s)] for s in chosen]))
            for name, chosen in ((_keys.SECRETED, np.flatnonzero(~contact)), (_keys.CONTACT, np.flatnonzero(contact)))
        },
    }
    return pd.DataFrame(sums, index=obs_names)


def terms_digest(terms: pd.DataFrame) -> str:
    """Digest of the terms and their order, whatever the columns are stored as."""
    digest = hashlib.blake2b(digest_size=16)
    for column in _IDENTITY:
        codes, values = pd.factorize(terms[column])
        digest.update("\n".join(map(str, values)).encode())
        digest.update(codes.astype("<i8").tobytes())
    return digest.hexdigest()


def assert_terms(note: Mapping[str, Any], terms: pd.DataFrame, *, key: str) -> None:
    """Raise ``ValueError`` when the table of coefficients is not that of the fit, row by row."""
    if note["terms"] != terms_digest(terms):
        msg = (
            f"Expected adata.uns[{key!r}]['terms'] to be as the fit wrote it, found other rows or another order, so it "
            f"no longer describes the columns of adata.obsm[{key!r}]; sort or change a copy of it instead."
        )
        raise ValueError(msg)


def align(note: Mapping[str, Any], obs_names: pd.Index, *, key: str) -> pd.DataFrame:
    """Sums of the fit in the order of these cells.

    Raises
    ------
    ValueError
        If the fit does not know some of the cells.
    """
    cells = note["cells"]
    if cells.index.equals(obs_names):
        return cells
    index = cells.index.get_indexer(obs_names)
    missing = np.flatnonzero(index < 0)
    if len(missing) == len(obs_names) == len(cells):
        return cells.set_axis(obs_names, axis=0)  # renamed: whether they are the same cells, their sums will tell
    if len(missing):
        msg = (
            f"Expected the coefficients in adata.obsm[{key!r}] to be of the cells that adata.uns[{key!r}] was fitted "
            f"on, found {len(missing)} of {len(obs_names)} cells that were not in the fit (first: "
            f"{obs_names[missing[0]]!r}). Concatenated objects keep the tables of only one of them: call "
            "`st.tl.fit_betas` on the concatenated object, or `st.tl.transfer_betas(reference, query)` before "
            "concatenating."
        )
        raise ValueError(msg)
    return cells.iloc[index]


def assert_expression_of_fit(expected: pd.DataFrame, found: pd.DataFrame, *, where: str) -> None:
    """Raise ``ValueError`` when cells have another expression than in the fit."""
    before, now = (frame["expression"].to_numpy(np.float64) for frame in (expected, found))
    changed = np.abs(now - before) > _EXPRESSION_TOLERANCE * np.abs(before).mean()
    if changed.any():
        first = int(np.argmax(changed))
        msg = (
            f"Expected expression in {where} to be what the coefficients were fitted on, found other values in "
            f"{changed.sum()} of {len(changed)} cells (first: {found.index[first]!r}); call `st.pp.received_ligands`, "
            "`st.pp.modulators` and `st.tl.fit_betas` again, or restore the layer. To start from another layer on "
            "purpose, pass `baseline_layer=`."
        )
        raise ValueError(msg)


def assert_scale_of_fit(expected: pd.DataFrame, found: pd.DataFrame, *, where: str) -> None:
    """Raise ``ValueError`` when another baseline than that of the fit has values on another scale."""
    before, now = (float(frame["expression"].to_numpy(np.float64).sum()) for frame in (expected, found))
    if not before / _SAME_SCALE <= now <= before * _SAME_SCALE:
        msg = (
            f"Expected `baseline_layer` to be on the scale of the fit, found that {where} adds up to "
            f"{now / max(before, 1e-300):.3g} times as much over the genes of the model; take normalised and "
            "log-transformed values, such as a denoised layer."
        )
        raise ValueError(msg)


def assert_signals_of_fit(note: Mapping[str, Any], signals: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` when signals are received with other settings than in the fit."""
    if differing := differing_signals(signals, note["signals"]):
        _raise_stale(", ".join(f"{name}={found!r} ({expected!r} in the fit)" for name, found, expected in differing))


def assert_received_as_in_fit(expected: pd.DataFrame, found: pd.DataFrame, *, n_fit: int, normalize: str) -> None:
    """Compare what cells receive with what they received in the fit.

    Raises
    ------
    ValueError
        If it differs, although no cell was taken away.

    Warns
    -----
    UserWarning
        If cells were taken away whose signals are missing now.
    """
    for kind in (_keys.SECRETED, _keys.CONTACT):
        before, now = (frame[kind].to_numpy(np.float64) for frame in (expected, found))
        total = max(float(np.abs(before).sum()), np.finfo(float).tiny)
        share, lost = np.abs(now - before).sum() / total, 1 - now.sum() / total
        if share <= _SIGNAL_TOLERANCE:
            continue
        if len(found) == n_fit or (normalize == "sum" and lost < -_SIGNAL_TOLERANCE):
            _raise_stale(f"{kind} signals that differ by {share:.1%}")
        what = (
            f"with them {lost:.1%} of the {kind} signal that these cells received, so effects of neighbours are too "
            "small"
            if normalize == "sum"
            else f"without them {kind} signals (normalize={normalize!r}) differ by {share:.1%} from those of the fit"
        )
        warn(
            f"{n_fit - len(found)} of the {n_fit} cells of the fit are missing, and {what}; perturb the whole "
            "section, and select cells with `cells=`."
        )
        return


def _raise_stale(what: str) -> None:
    msg = (
        f"Expected signals to be received as in the fit, found {what}; call `st.pp.spatial_weights` and "
        "`st.pp.received_ligands` with the settings of the fit, or fit again (`st.pp.modulators`, `st.tl.fit_betas`)."
    )
    raise ValueError(msg)


def _weights(names: Sequence[str]) -> Floats:
    """One weight between 1 and 2 for each name, by its rank."""
    rank = np.empty(len(names), dtype=np.float32)
    rank[np.argsort(np.array(names, dtype=str), kind="stable")] = np.arange(len(names))
    return 1 + rank / max(len(names), 1)


def _weighted_sum(values: Floats, columns: Ints, weights: Floats) -> Floats:
    out = np.zeros(len(values), dtype=np.float32)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        out[rows] = values[rows][:, columns] @ weights
    return out
