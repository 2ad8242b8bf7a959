"""Regressors and responses of a block of targets in standardised units, and coefficients in either units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._core.design import term_values

if TYPE_CHECKING:
    from spacetravlr._core.design import Targets, Terms
    from spacetravlr._types import Bools, Floats, Ints


@dataclass(frozen=True)
class BlockDesign:
    """Regressors and responses of a block of targets, with what standardises them."""

    index: Ints
    """Which targets of the fit, (targets,)."""
    values: Floats
    """Distinct terms of the block, cells x terms, float32, original units."""
    mean: Floats
    spread: Floats
    """Mean and standard deviation of each term over the choosing cells; spread is one where a term is constant."""
    y: Floats
    """Cells x targets, float32."""
    y_mean: Floats
    y_spread: Floats
    indptr: Ints
    """Target ``t`` uses the columns ``term[indptr[t]:indptr[t + 1]]`` of ``values``."""
    term: Ints
    group: Ints
    """Kind of each column of ``values``."""
    n_types: int

    def __len__(self) -> int:
        return len(self.index)

    def columns(self, t: int) -> Ints:
        """Columns of ``values`` that target ``t`` of the block uses."""
        return self.term[self.indptr[t] : self.indptr[t + 1]]

    @property
    def width(self) -> int:
        """Most terms of any target."""
        return int(np.diff(self.indptr).max(initial=0))

    def standardised(self) -> Floats:
        """``values`` in standardised units, cells x terms, float32."""
        return ((self.values - self.mean) / self.spread).astype(np.float32)

    def constant(self, t: int, intercept: Floats | float) -> Floats:
        """Coefficients of target ``t`` that are an intercept alone, of each type or of all: types x (1 + terms)."""
        out = np.zeros((self.n_types, len(self.columns(t)) + 1))
        out[:, 0] = intercept
        return out

    def scaling(self, t: int) -> tuple[Floats, Floats]:
        """Mean and spread of target ``t`` and then of its terms."""
        columns = self.columns(t)
        return (
            np.concatenate([self.y_mean[t : t + 1], self.mean[columns]]),
            np.concatenate([self.y_spread[t : t + 1], self.spread[columns]]),
        )

    def to_standard(self, t: int, coefficients: Floats) -> Floats:
        """Coefficients of target ``t`` (..., intercept then terms, original units) in standardised units."""
        columns = self.columns(t)
        scaled = coefficients[..., 1:] * (self.spread[columns] / self.y_spread[t])
        intercept = (
            coefficients[..., 0] + coefficients[..., 1:] @ self.mean[columns] - self.y_mean[t]
        ) / self.y_spread[t]
        return np.concatenate([intercept[..., None], scaled], axis=-1)


def departure_to_original(values: Floats, mean: Floats, spread: Floats) -> Floats:
    """What is added to coefficients (..., intercept first), from standardised to original units.

    Parameters
    ----------
    values
        Departures of the intercept and of some terms in standardised units.
    mean, spread
        What standardised the target and then these terms.
    """
    scaled = values * (spread[0] / spread)
    scaled[..., 0] = spread[0] * values[..., 0] - scaled[..., 1:] @ mean[1:]
    return scaled


def block_design(
    expression: Floats, received: Floats, terms: Terms, targets: Targets, index: Ints, *, fitted: Bools, n_types: int
) -> BlockDesign:
    """Evaluate the distinct terms of the targets at ``index``; each target's come in the order of ``terms``.

    Parameters
    ----------
    expression, received, terms, targets
        As in :func:`spacetravlr._core.design.term_values`.
    index
        Which targets.
    fitted
        Cells that the scale is taken from.
    n_types
        Number of cell types.
    """
    rows = [np.sort(targets.terms_of(int(t))) for t in index]
    distinct, term = np.unique(np.concatenate(rows), return_inverse=True)
    block_terms = terms.take(distinct)
    values = term_values(expression, received, block_terms)
    y = np.ascontiguousarray(expression[:, targets.gene[index]])
    mean = values[fitted].mean(axis=0, dtype=np.float64)
    spread = values[fitted].std(axis=0, dtype=np.float64)
    y_spread = y[fitted].std(axis=0, dtype=np.float64)
    return BlockDesign(
        index=index,
        values=values,
        mean=mean,
        spread=np.where(spread > 1e-9 * np.maximum(np.abs(mean), 1e-30), spread, 1.0),
        y=y,
        y_mean=y[fitted].mean(axis=0, dtype=np.float64),
        y_spread=np.where(y_spread > 0, y_spread, 1.0),
        indptr=np.concatenate([[0], np.cumsum([len(r) for r in rows])]),
        term=term,
        group=block_terms.kind.astype(np.int64),
        n_types=n_types,
    )
