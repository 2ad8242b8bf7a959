"""Tests of received signals as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_in_range, assert_key, assert_one_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

Per = Literal["signal", "target", "cell_type", "type"]
_TABLE = {"signal": "signals", "target": "targets", "cell_type": "types", "type": "types"}


@document
def signals(
    adata: AnnData | SpatialData,
    target: str | Sequence[str] | None = None,
    *,
    per: Per = "signal",
    max_q: float | None = None,
    signals_key: str = _keys.SIGNALS_TEST,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Tabulate the tests of received signals.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.tl.test_signals`, or SpatialData.
    target
        Targets; by default all that were tested.
    per
        ``"signal"`` gives one row per target and signal, ``"target"`` one row per target (for all of its signals
        together), and ``"cell_type"`` (or ``"type"``) one row per target, signal, partner and cell type. The columns
        are described in :func:`spacetravlr.tl.test_signals`.
    max_q
        Keep only tests with a q-value of at most this; for ``"cell_type"``, the q-value of the signal.
    %(signals_key)s
    %(table_key)s

    Returns
    -------
    The table, with signals and targets in ascending order of their p-values.

    Raises
    ------
    KeyError
        If there are no tests, or none for ``target``.
    ValueError
        If ``per`` or ``max_q`` is out of range.

    See Also
    --------
    spacetravlr.tl.test_signals : Run the tests (with an example).
    """
    assert_one_of(per, get_args(Per), name="per")
    if max_q is not None:
        assert_in_range(max_q, 0, 1, name="max_q")
    adata = unwrap(adata, table_key)
    assert_key(adata, "uns", signals_key, name="signals_key", hint="Call `st.tl.test_signals(adata)` first.")
    stored = adata.uns[signals_key]
    table = stored[_TABLE[per]].copy()
    table = table.astype({name: str for name in table.columns if table[name].dtype.kind not in "fiub"})
    if target is not None:
        wanted = [target] if isinstance(target, str) else list(target)
        assert_genes(wanted, set(table["target"]), name="target", where="the tested targets")
        table = table[table["target"].isin(wanted)]
    if max_q is not None:
        if _TABLE[per] == "types":
            called = stored["signals"][stored["signals"]["q"] <= max_q]
            found = pd.MultiIndex.from_frame(called[["target", "signal"]].astype(str))
            table = table[pd.MultiIndex.from_frame(table[["target", "signal"]]).isin(found)]
        else:
            table = table[table["q"] <= max_q]
    if _TABLE[per] != "types":
        table = table.sort_values("p", kind="stable")
    return table.reset_index(drop=True)
