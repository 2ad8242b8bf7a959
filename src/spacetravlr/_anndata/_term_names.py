"""Short names of the columns of a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spacetravlr._anndata._modulators import COLUMNS, column_names


def named_terms(table: pd.DataFrame) -> pd.DataFrame:
    """Terms table as text, with the column ``modulator`` after ``target``: ``FOXO1``, ``CXCL12$CXCR4``, ``beta0``.

    Columns of what the fit found are kept; infinite evidence (of terms that were removed) becomes NaN.
    """
    text = table.reset_index(drop=True).astype(dict.fromkeys(COLUMNS, str))
    names = np.empty(len(text), dtype=object)
    for rows in text.groupby("target", sort=False).indices.values():
        names[rows] = [name.removeprefix("beta_") for name in column_names(text.iloc[rows])]
    text.insert(1, "modulator", names)
    for name in ("importance", "evidence"):
        if name in text:
            values = text[name].to_numpy(float)
            text[name] = np.where(np.isfinite(values), values, np.nan)
    return text
