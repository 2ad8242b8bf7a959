"""Ranked drivers of a read-out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._validators import assert_genes, assert_key, assert_one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

Mode = Literal["knockout", "increase"]


@document
def drivers(
    adata: AnnData | SpatialData,
    *,
    mode: Mode = "knockout",
    gene: str | Sequence[str] | None = None,
    cell_type: str | Sequence[str] | None = None,
    n_top: int | None = None,
    in_readout: bool = False,
    drivers_key: str = _keys.DRIVERS,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Rank the genes that move a read-out, in all cells together and by cell type.

    Parameters
    ----------
    %(adata_drivers)s
    %(driver_mode)s
    gene
        Genes to keep; all by default.
    cell_type
        Cell types in which the dose is given; ``"all"`` is all cells together (``"all cells"`` if a type is called
        "all"). By default all of these.
    n_top
        Number of top-ranked genes per cell type; all by default.
    in_readout
        Keep genes that are part of the read-out.
    %(drivers_key)s
    %(table_key)s

    Returns
    -------
    The table described in :func:`spacetravlr.tl.drivers`, ordered by cell type and rank.

    Raises
    ------
    KeyError
        If there are no drivers, or a gene is unknown.
    ValueError
        If ``mode`` or ``cell_type`` is unknown.
    """
    assert_one_of(mode, get_args(Mode), name="mode")
    stored = read_drivers(unwrap(adata, table_key), drivers_key)
    # names come back from a file as categories or as text
    table = stored["table"].astype({"gene": str, "role": str, "cell_type": str})
    types = list(dict.fromkeys(table["cell_type"]))
    if cell_type is not None:
        wanted = [cell_type] if isinstance(cell_type, str) else [str(name) for name in cell_type]
        for name in wanted:
            assert_one_of(name, types, name="cell_type")
        types, table = wanted, table[table["cell_type"].isin(wanted)]
    if gene is not None:
        genes = [gene] if isinstance(gene, str) else list(gene)
        assert_genes(genes, table["gene"].unique(), name="gene", where="the genes with a role")
        table = table[table["gene"].isin(genes)]
    elif not in_readout:
        table = table[~table["in_readout"].astype(bool)]
    order = pd.Categorical(table["cell_type"], categories=list(dict.fromkeys(types)))
    table = table.assign(_type=order.codes).sort_values(["_type", f"rank_{mode}"], kind="stable")
    if n_top is not None:
        table = table.groupby("_type", sort=False).head(n_top)
    return table.drop(columns="_type").reset_index(drop=True)


def read_drivers(adata: AnnData, drivers_key: str) -> dict[str, Any]:
    """Read the results of ``tl.drivers`` from ``uns``.

    Raises
    ------
    KeyError
        If there are none.
    """
    hint = 'Call `st.tl.drivers(adata, "PAX5")` first.'
    assert_key(adata, "uns", drivers_key, name="drivers_key", hint=hint)
    return dict(adata.uns[drivers_key])
