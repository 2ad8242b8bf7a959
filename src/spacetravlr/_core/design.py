r"""The regressors of the model as typed index arrays.

Every regressor is a local gene times, at most, one received signal (how-it-works, section 3):

========  ======================  ==========================
kind      ``gene``                ``signal``
========  ======================  ==========================
TF        transcription factor    ``-1`` (none)
LR        receptor                the ligand's received signal
TFL       transcription factor    the ligand's received signal
RECEPTOR  receptor of LR terms    ``-1`` (none)
LIGAND    the cell's own ligand   ``-1`` (none)
========  ======================  ==========================

so that a regressor's value is :math:`z_{jm} = x_{j,\mathrm{gene}(m)} L_{j,\mathrm{signal}(m)}`, with :math:`L = 1`
for TF, RECEPTOR and LIGAND.
RECEPTOR and LIGAND terms are adjustment terms: they absorb what covaries with a receptor, or with a ligand within the
same cell, so an LR or TFL term contains only what its product adds. They contribute to predictions but support no
causal claim, and changes pass through them only on request.
Distinct regressors are held once (:class:`Terms`) and targets point into them (:class:`Targets`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints


class Kind(IntEnum):
    """Kind of a regressor; the values are the group codes of the sparse group lasso."""

    TF = 0
    LR = 1
    TFL = 2
    RECEPTOR = 3
    LIGAND = 4


#: Terms that are fitted but support no causal claim.
ADJUSTMENT_KINDS = (Kind.RECEPTOR, Kind.LIGAND)


@dataclass(frozen=True)
class Signals:
    """Received signals: one row per (ligand, range)."""

    ligand: Ints
    """Gene index of each signal's ligand, shape (n_signals,)."""
    contact: Bools
    """Whether the signal is a contact signal, shape (n_signals,)."""

    def __len__(self) -> int:
        return len(self.ligand)


@dataclass(frozen=True)
class Terms:
    """Distinct regressors, each held once however many targets use it; all arrays have shape (n_terms,)."""

    kind: Ints
    """:class:`Kind` of each term."""
    gene: Ints
    """Gene index of the local factor: the TF, the receptor, or the ligand of a LIGAND term."""
    signal: Ints
    """Index into :class:`Signals` of the received factor, -1 for terms without one."""

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: Ints) -> Terms:
        """The terms at ``index``, in that order."""
        return Terms(self.kind[index], self.gene[index], self.signal[index])

    @property
    def causal(self) -> Bools:
        """Which terms pass a change on: all but those of adjustment."""
        return ~np.isin(self.kind, ADJUSTMENT_KINDS)

    def with_adjustment(self) -> Terms:
        """The same terms, with adjustment terms treated as regulators, so that they pass changes on too."""
        return Terms(np.where(self.causal, self.kind, Kind.TF).astype(np.int8), self.gene, self.signal)


@dataclass(frozen=True)
class Targets:
    """Which terms each target uses, in compressed rows; target ``t`` uses ``term[indptr[t]:indptr[t + 1]]``."""

    gene: Ints
    """Gene index of each target, shape (n_targets,)."""
    indptr: Ints
    """Row starts, shape (n_targets + 1,)."""
    term: Ints
    """Indices into :class:`Terms`, shape (indptr[-1],)."""

    def __len__(self) -> int:
        return len(self.gene)

    def terms_of(self, t: int) -> Ints:
        """Term indices of target ``t``."""
        return self.term[self.indptr[t] : self.indptr[t + 1]]

    def columns_of(self, t: int) -> slice:
        """Columns of target ``t`` in a coefficient matrix: its intercept, then its terms."""
        return slice(int(self.indptr[t]) + t, int(self.indptr[t + 1]) + t + 1)

    def places_of_columns(self, index: Ints, order: Ints) -> Ints:
        """Where the columns of the targets at ``index`` lie among those of ``index[order]``, each's sorted by term."""
        starts = np.empty(len(index), dtype=np.int64)
        starts[order] = np.cumsum([0, *(np.diff(self.indptr)[index[order]] + 1)])[:-1]
        rows = [np.argsort(np.argsort(self.terms_of(int(t)), kind="stable"), kind="stable") + 1 for t in index]
        return np.concatenate([np.append(start, start + row) for start, row in zip(starts, rows, strict=True)])

    @property
    def n_columns(self) -> int:
        """Columns of the coefficient matrix: every target's intercept and terms."""
        return int(self.indptr[-1]) + len(self.gene)


def term_values(expression: Floats, received: Floats, terms: Terms) -> Floats:
    r"""Value of every term at every cell, :math:`z_{jm} = x_{j,g(m)} L_{j,s(m)}`.

    Parameters
    ----------
    expression
        Cells x genes; ``terms.gene`` indexes its columns.
    received
        Cells x signals; ``terms.signal`` indexes its columns.
    terms
        The terms.

    Returns
    -------
    Cells x terms, dtype of ``expression``.
    """
    values = np.empty((expression.shape[0], len(terms)), dtype=expression.dtype)
    _fill_terms(expression, received, terms.gene.astype(np.int64), terms.signal.astype(np.int64), values)
    return values


@parallel_kernel
def _fill_terms(expression, received, gene, signal, values):
    for j in nb.prange(expression.shape[0]):
        for m in range(gene.shape[0]):
            z = expression[j, gene[m]]
            if signal[m] >= 0:
                z *= received[j, signal[m]]
            values[j, m] = z
