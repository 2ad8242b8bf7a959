"""Received ligands of an AnnData, and the operators that made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._columns import with_names
from spacetravlr._anndata._spatial import get_coordinates, has_contact, library_codes, read_weights_params, realign
from spacetravlr._core.signals.operators import GridOperator, LigandField, SparseOperator, make_operator
from spacetravlr._validators import assert_key, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._core.design import Signals
    from spacetravlr._core.signals.operators import Method
    from spacetravlr._types import Floats, Normalize

_HINT = "Call `st.pp.received_ligands(adata, lr)` first."


class NoContact:
    """The contact operator of weights without contact signals: nothing may pass through it."""

    def __init__(self, n_cells: int, weights_key: str) -> None:
        self.n_cells = n_cells
        self._weights_key = weights_key

    def apply(self, values: Floats) -> Floats:
        """Raise ``ValueError`` unless there are no signals."""
        if values.shape[1]:
            raise_no_contact(self._weights_key)
        return np.zeros((self.n_cells, 0), dtype=np.float32)

    def transposed(self) -> NoContact:
        """Return itself."""
        return self

    def own(self) -> Floats:
        """Nothing, (cells,)."""
        return np.zeros(self.n_cells)


def raise_no_contact(weights_key: str) -> NoReturn:
    """Raise ``ValueError``: a contact signal is asked for where there are none."""
    msg = (
        f"Expected no contact signals, because adata.uns[{weights_key!r}] has none (`contact_radius=None`), found "
        "some; call `st.pp.received_ligands`, `st.pp.modulators` and `st.tl.fit_betas` again, or pass a "
        "`contact_radius` to `st.pp.spatial_weights` first."
    )
    raise ValueError(msg)


class ReceivedState(NamedTuple):
    """What ``pp.received_ligands`` wrote, in the order of the cells of this AnnData."""

    lr: pd.DataFrame
    """Cells x signals of the pairs, float32."""
    tfl: pd.DataFrame
    """Cells x signals of the ligand-TF terms, float32."""
    params: dict[str, Any]


def read_received(adata: AnnData, key: str = _keys.RECEIVED) -> ReceivedState:
    """Read received ligands, realigned by cell name, so that a subset of the cells they were computed for works.

    Raises
    ------
    KeyError
        If ``pp.received_ligands`` was not called.
    ValueError
        If they belong to other cells.
    """
    for name in (key, _keys.received_tfl(key), _keys.received_params(key)):
        assert_key(adata, "uns", name, name="received_key", hint=_HINT)
    assert_unique_names(adata)
    again = f"Call `st.pp.received_ligands(adata, lr, key_added={key!r})` again."
    lr, tfl = (
        realign(with_names(adata.uns[name]), adata.obs_names, where=f"adata.uns[{name!r}]", hint=again)
        for name in (key, _keys.received_tfl(key))
    )
    for name, frame in ((key, lr), (_keys.received_tfl(key), tfl)):
        assert_received(
            frame.to_numpy(), list(frame.columns), adata.obs_names, where=f"adata.uns[{name!r}]", hint=again
        )
    return ReceivedState(lr, tfl, dict(adata.uns[_keys.received_params(key)]))


def assert_received(values: Floats, signals: Sequence[str], obs_names: pd.Index, *, where: str, hint: str = "") -> None:
    """Raise ``ValueError`` for NaN or infinite received signals (cells x signals), naming the first."""
    # a sum is finite where every value is, so that one pass without a mask of all values is enough
    totals = values.sum(axis=0, dtype=np.float64)
    if np.isfinite(totals).all():
        return
    signal = int(np.argmax(~np.isfinite(totals)))
    cells = np.flatnonzero(~np.isfinite(values[:, signal]))
    msg = (
        f"Expected received signals in {where} to be finite, found {signals[signal]!r} NaN or infinite in {len(cells)} "
        f"cells (first: {obs_names[cells[0]]!r}). {hint}"
    )
    raise ValueError(msg.rstrip())


def operators(adata: AnnData, key: str = _keys.RECEIVED, *, n_jobs: int | None = None) -> LigandField:
    """Rebuild the operators that turn ligand expression into received ligands, from what is stored.

    Parameters
    ----------
    adata
        Annotated data with ``uns[key]`` of ``pp.received_ligands``.
    key
        Key of the received ligands.
    n_jobs
        Threads of the operators.

    Returns
    -------
    Secreted and contact operator; unpacks as a pair, and ``.apply(values, contact_mask)`` uses both.
    """
    assert_key(adata, "uns", _keys.received_params(key), name="received_key", hint=_HINT)
    params = adata.uns[_keys.received_params(key)]
    return build_operators(
        adata,
        str(params["weights_key"]),
        normalize=params["normalize"],
        method=params["method"],
        contact_method=params["contact_method"],
        n_jobs=n_jobs,
    )


def build_operators(
    adata: AnnData,
    weights_key: str,
    *,
    normalize: Normalize = "sum",
    method: Method = "auto",
    contact_method: Method | None = None,
    n_jobs: int | None = None,
) -> LigandField:
    """Operators from stored weights, or from coordinates and the stored parameters where there are none.

    ``method="auto"`` keeps for each range the engine that ``pp.spatial_weights`` chose.
    """
    params = read_weights_params(adata, weights_key)
    libraries = library_codes(adata, params["library_key"])

    def one(obsp_key: str, radius: str, sigma: str, stored: str, wanted: Method) -> SparseOperator | GridOperator:
        wanted = stored if wanted == "auto" else wanted  # type: ignore[assignment]  # read back as plain text
        if wanted == "grid" and params["connectivity_key"]:
            msg = (
                'Expected `method` to be "sparse" for weights on a squidpy graph (`connectivity_key`), found "grid"; '
                "call `st.pp.spatial_weights` without `connectivity_key` first."
            )
            raise ValueError(msg)
        if wanted == "sparse" and stored == "sparse":
            assert_key(adata, "obsp", obsp_key, name="weights_key", hint="Call `st.pp.spatial_weights(adata)` again.")
            weights = sparse.csr_matrix(adata.obsp[obsp_key])
            return SparseOperator(weights, normalize=normalize, libraries=libraries, n_jobs=n_jobs)
        unit = float(params["microns_per_unit"])
        return make_operator(
            get_coordinates(adata, params["spatial_key"]),
            float(params[radius]) / unit,
            sigma=float(params[sigma]) / unit,
            truncate=bool(params["truncate"]),
            autocrine=bool(params["autocrine"]),
            libraries=libraries,
            normalize=normalize,
            method=wanted,
            n_jobs=n_jobs,
        )

    secreted = one(weights_key, "radius", "sigma", params["method"], method)
    if not has_contact(params):
        return LigandField(secreted, NoContact(adata.n_obs, weights_key))
    contact = one(
        _keys.contact_weights(weights_key),
        "contact_radius",
        "contact_sigma",
        params["contact_method"],
        method if contact_method is None else contact_method,
    )
    return LigandField(secreted, contact)


def received_values(field: LigandField, signals: Signals, expression: Floats) -> Floats:
    """Received value of every signal, cells x signals, from expression, cells x genes."""
    if not len(signals):
        return np.zeros((len(expression), 0), dtype=np.float32)
    return field.apply(np.ascontiguousarray(expression[:, signals.ligand]), signals.contact)
