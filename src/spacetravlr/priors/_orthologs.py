"""Map a table of gene names from one organism to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from spacetravlr._validators import listed
from spacetravlr.priors._tables import Source, read_table

_GENE_COLUMNS = ("tf", "target", "ligand", "receptor", "source", "gene")
_COMPLEX = "_"


def map_orthologs(
    table: Source,
    orthologs: Source | Mapping[str, str],
    *,
    columns: Sequence[str] | None = None,
    source: str = "human",
    target: str = "mouse",
) -> pd.DataFrame:
    """Translate the gene names of a table into those of another organism.

    Rows with a gene that has no ortholog are dropped. A gene with several orthologs gives one row for each, and
    duplicate rows are merged. Complexes (``TGFBR1_TGFBR2``) are translated subunit by subunit.

    Parameters
    ----------
    table
        Any long table: a base GRN, ligand-receptor pairs, ligand-TF scores (DataFrame or path).
    orthologs
        Table with one column per organism (DataFrame or path), or a mapping from old to new names.
    columns
        Columns with gene names; by default whichever of ``tf``, ``target``, ``ligand``, ``receptor``, ``source`` and
        ``gene`` the table has.
    source
        Column of ``orthologs`` with the names used in ``table``.
    target
        Column of ``orthologs`` with the new names.

    Returns
    -------
    A new table with the same columns; categorical gene columns stay categorical.

    Raises
    ------
    ValueError
        If a column is missing or no row is left.

    Examples
    --------
    >>> import pandas as pd
    >>> import spacetravlr as st
    >>> pairs = pd.DataFrame({"ligand": ["TGFB1"], "receptor": ["TGFBR1_TGFBR2"]})
    >>> st.priors.map_orthologs(pairs, {"TGFB1": "Tgfb1", "TGFBR1": "Tgfbr1", "TGFBR2": "Tgfbr2"})
      ligand       receptor
    0  Tgfb1  Tgfbr1_Tgfbr2
    """
    frame = read_table(table, name="table")
    columns = [c for c in _GENE_COLUMNS if c in frame.columns] if columns is None else list(columns)
    missing = [c for c in columns if c not in frame.columns]
    if not columns or missing:
        wanted = listed(missing) if missing else "a column of gene names"
        msg = f"Expected `table` to have {wanted}, found {listed(frame.columns)}; name them with `columns=`."
        raise ValueError(msg)
    names = _mapping(orthologs, source, target)
    result = frame.copy()
    for column in columns:
        is_categorical = isinstance(frame[column].dtype, pd.CategoricalDtype)
        distinct = frame[column].dropna().astype(str).unique()
        translated = {name: _translate(name, names) for name in distinct}
        result[column] = result[column].astype(object).map(translated)
        result = result[result[column].map(bool, na_action="ignore").fillna(False).astype(bool)]
        result = result.explode(column, ignore_index=True)
        if is_categorical:
            result[column] = result[column].astype("category")
    result = result.drop_duplicates(ignore_index=True)
    if result.empty:
        example = ", ".join(repr(str(v)) for v in frame[columns[0]].head(3))
        msg = f"Expected `table` to hold genes of `orthologs` column {source!r}, found none (such as {example})."
        raise ValueError(msg)
    return result


def _translate(name: str, names: Mapping[str, list[str]]) -> list[str]:
    if name in names:
        return names[name]
    subunits = [names.get(subunit, []) for subunit in name.split(_COMPLEX)]
    return [_COMPLEX.join(combination) for combination in product(*subunits)]


def _mapping(orthologs: Source | Mapping[str, str], source: str, target: str) -> dict[str, list[str]]:
    if isinstance(orthologs, Mapping) and not isinstance(orthologs, pd.DataFrame):
        return {str(old): [str(new)] for old, new in orthologs.items()}
    table = read_table(orthologs, name="orthologs")
    missing = [c for c in (source, target) if c not in table.columns]
    if missing:
        msg = f"Expected `orthologs` to have the columns {source!r} and {target!r}, found {listed(table.columns)}."
        raise ValueError(msg)
    pairs = table[[source, target]].dropna().astype(str).drop_duplicates()
    names: dict[str, list[str]] = {}
    for old, new in zip(pairs[source], pairs[target], strict=True):
        names.setdefault(old, []).append(new)
    return names
