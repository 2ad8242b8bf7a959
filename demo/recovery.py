"""How much of the simulated regulation the fit found."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd

KEYS = ["target", "kind", "tf", "ligand", "receptor", "range"]


def recovery(adata: ad.AnnData) -> pd.DataFrame:
    """Compare fitted with true coefficients, one row per kind of modulator.

    The correlation is that of the fitted with the true field over cells, both centred within cell types, for modulators
    that truly act; the positives are modulators that the fit calls active. What the simulation does not have, such as
    receptors by themselves, does not act.
    """
    fitted_terms, true_terms = (
        table[KEYS].astype(str).assign(column=np.arange(len(table)), active=table["active"].astype(bool).to_numpy())
        for table in (adata.uns["betas"]["terms"], adata.uns["simulation"]["terms"])
    )
    both = fitted_terms.merge(true_terms, on=KEYS, suffixes=("", "_true"), how="left")
    both = both[both["kind"] != "intercept"].reset_index(drop=True)
    types = adata.obs["cell_type"].to_numpy()
    fitted = centred(np.asarray(adata.obsm["betas"])[:, both["column"]], types)
    known = both["column_true"].notna().to_numpy()
    both["active_true"] = both["active_true"].eq(True)
    true = np.zeros(fitted.shape)
    true[:, known] = centred(np.asarray(adata.obsm["true_betas"])[:, both.loc[known, "column_true"].astype(int)], types)
    both["correlation"] = correlation(fitted, true)
    rows = {
        kind: {
            "true": int(group["active_true"].sum()),
            "candidates": len(group),
            "true positive rate": rate(group["active"], among=group["active_true"]),
            "false positive rate": rate(group["active"], among=~group["active_true"]),
            "field correlation": group.loc[group["active_true"], "correlation"].median(),
        }
        for kind, group in both.groupby("kind", sort=False)
    }
    return pd.DataFrame(rows).T


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values minus the mean of their group."""
    frame = pd.DataFrame(values, dtype=np.float64)
    return (frame - frame.groupby(groups).transform("mean")).to_numpy()


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of each column of ``a`` with that of ``b``; 0 for a column without variation, which found nothing."""
    norm = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), norm, out=np.zeros(a.shape[1]), where=norm > 0)


def rate(called: pd.Series, *, among: pd.Series) -> float:
    """Share of ``among`` that is called; NaN where there is none."""
    return float(called[among].mean()) if among.any() else float("nan")
