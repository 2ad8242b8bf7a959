"""Sender cell types of a received signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._clusters import cluster_key_of
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._received import operators, read_received
from spacetravlr._anndata._spatial import category_codes, unwrap
from spacetravlr._anndata._term_names import find_signals
from spacetravlr._docs import document
from spacetravlr.models.perturb._cells import CellsLike, select_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@document
def senders(
    adata: AnnData | SpatialData,
    signal: str,
    *,
    receivers: CellsLike = None,
    groupby: str | None = None,
    per_cell: bool = False,
    received_key: str = _keys.RECEIVED,
    n_jobs: int | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Decompose a received signal by the cell types that send it.

    For each group of cells, the received signal is recomputed from the ligand expression of that group alone, with the
    same weights and normalisation. The contributions of the groups add up to the received signal: exactly with sparse
    weights, and to single precision with the grid.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.received_ligands`, or SpatialData.
    signal
        A received signal: a ligand, or ``"<ligand>|contact"`` for a contact signal (``"<ligand> (contact)"`` in
        figures). A ligand that acts by contact only may go by its bare name.
    receivers
        Receiving cells: a mask, names, positions, or a comparison on ``adata.obs`` such as
        ``"cell_type == 'B cell'"``; all by default. All cells send.
    groupby
        Column of ``adata.obs`` with the groups; by default the cell types of the fit.
    per_cell
        Return what each cell receives from each group.
    %(received_key)s
    %(n_jobs)s
    %(table_key)s

    Returns
    -------
    One row per sending and receiving group: ``sender``, ``receiver``; ``amount``, the mean signal that the receiving
    cells get from the senders, in the units of the signal; ``share`` of all that they receive (NaN if they receive
    nothing); ``own``, the part of ``amount`` that cells receive from themselves; ``n_senders``, ``n_receivers``. With
    ``per_cell``, cells x sending groups, float32; rows add up to the received signal.

    Raises
    ------
    KeyError
        If the signal was not received, or ``groupby`` does not exist.
    ValueError
        If there are no receiving cells, or no groups.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, rng=0)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, st.datasets.simulated_priors(adata).ligand_receptor, layer="log1p")
    >>> table = st.get.senders(adata, "CXCL12")
    >>> table.groupby("receiver")["share"].sum().round(3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    adata = unwrap(adata, table_key)
    state = read_received(adata, received_key)
    known = dict.fromkeys([*state.lr.columns, *state.tfl.columns])
    (signal,) = find_signals([signal], known, name="signal", where=f"adata.uns[{received_key!r}]")
    key = cluster_key_of(adata, groupby)
    if key is None:
        msg = "Expected `groupby` to name a column of adata.obs, found None, and neither fit nor modulators have one."
        raise ValueError(msg)
    codes, names = category_codes(adata, key, name="groupby")
    mask = select_cells(receivers, adata.obs)
    ligand, signal_range = _keys.parse_signal(signal)
    field = operators(adata, received_key, n_jobs=n_jobs)
    operator = field.contact if signal_range == _keys.CONTACT else field.secreted
    sent = get_expression(adata, [ligand], layer=str(state.params.get("layer", "")) or None, check=False)[:, 0]
    by_group = np.zeros((adata.n_obs, len(names)), dtype=np.float32)
    by_group[np.arange(adata.n_obs), codes] = sent
    received = operator.apply(by_group)
    if per_cell:
        return pd.DataFrame(received[mask], index=adata.obs_names[mask], columns=names)
    own = operator.own() * sent
    n_senders = np.bincount(codes, minlength=len(names))
    rows: list[dict[str, Any]] = []
    for r, receiver in enumerate(names):
        cells = mask & (codes == r)
        if not cells.any():
            continue
        amount = received[cells].mean(axis=0, dtype=np.float64)
        total = amount.sum()
        rows += [
            {
                "sender": sender, "receiver": receiver, "amount": amount[s],
                "share": amount[s] / total if total > 0 else np.nan,
                "own": float(own[cells].mean()) if s == r else 0.0,
                "n_senders": int(n_senders[s]), "n_receivers": int(cells.sum()),
            }
            for s, sender in enumerate(names)
        ]  # fmt: skip
    return pd.DataFrame(rows)
