"""Errors of the mean changes of a perturbation, from draws of the coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from spacetravlr._core.inference.fdr import benjamini_hochberg

if TYPE_CHECKING:
    import pandas as pd

    from spacetravlr._types import Bools, Floats

#: Columns that :meth:`SampleErrors.of` adds to a table.
ERRORS = ("se", "p", "q", "same_sign")


@dataclass(frozen=True)
class SampleErrors:
    """Mean changes of some genes in draws of the coefficients."""

    groups: list[str]
    mean: Floats
    """Draws x groups x genes."""

    @classmethod
    def read(cls, stored: Mapping[str, Any], genes: pd.Index) -> SampleErrors | None:
        """Take ``genes`` from what :func:`spacetravlr.tl.perturb` wrote to ``uns``; ``None`` without draws."""
        if "samples" not in stored:
            return None
        samples = stored["samples"]
        names = [str(g) for g in np.atleast_1d(samples["genes"])]
        place = {name: i for i, name in enumerate(names)}
        columns = [place[str(g)] for g in genes]
        return cls([str(g) for g in np.atleast_1d(samples["groups"])], np.asarray(samples["mean_change"])[..., columns])

    def of(self, group: str, change: Floats, *, tested: Bools | None = None) -> dict[str, Floats]:
        """Columns of a table with one row per gene.

        Parameters
        ----------
        group
            All cells or a cell type; NaN for groups without draws.
        change
            Delivered mean change of each gene in the group.
        tested
            Genes that are tested; the others were set by hand, and have no error.
        """
        if group not in self.groups:
            return {name: np.full(len(change), np.nan) for name in ERRORS}
        draws = self.mean[:, self.groups.index(group)].astype(np.float64)
        error = effect_errors(change, draws)
        if tested is not None:
            error = {name: np.where(tested, values, np.nan) for name, values in error.items()}
        return {
            "se": error["se"],
            "p": error["p"],
            "q": benjamini_hochberg(error["p"]),
            "same_sign": error["same_sign"],
        }


def effect_errors(change: Floats, draws: Floats) -> dict[str, Floats]:
    """Standard error about the reported change, p-value of no change, and share of draws with the same sign.

    Draws are centred on the estimate from the data alone, which is larger and less certain than the shrunken estimate
    that is reported. The standard error therefore includes the shrinkage bias, whereas the p-value, a t test of the
    draws, is not affected by it.

    Parameters
    ----------
    change
        Delivered changes, of any shape. Where they are zero nothing is claimed, and the p-value is one.
    draws
        The same in each draw, draws first; at least two.
    """
    n = len(draws)
    mean, spread = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(change == 0, 0.0, np.abs(mean) / (spread * np.sqrt(1 + 1 / n)))
    same = (np.sign(draws) == np.sign(change)).mean(axis=0)
    return {
        "se": np.sqrt(((draws - change) ** 2).mean(axis=0)),
        "p": 2 * special.stdtr(n - 1, -np.nan_to_num(t, nan=0.0)),
        "same_sign": np.where(change == 0, np.nan, same),
    }
