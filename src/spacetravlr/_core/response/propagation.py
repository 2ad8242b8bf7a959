r"""How a change of some genes in some cells travels through the tissue.

With the prescribed change :math:`D^{in}`, and starting from :math:`D = D^{in}`, each round computes

.. math::

    X_t &= X_0 + D, \qquad L_t - L_0 = \mathrm{received}(X_t - X_0)  \\
    D'_{jg} &= \sum_{m \in \mathrm{terms}(g)} b_{jgm}\, \Delta z_{jm}  \\
    D &= \mathrm{clip}(X_0 + D', 0, \max_j X_0) - X_0, \qquad D' = D^{in} \text{ where } D^{in} \neq 0

where the change of a term :math:`z = x_g L_s` is, by the product rule at the state of the previous round,

.. math::

    \Delta z = L_{t-1} (x_t - x_0) + x_{t-1} (L_t - L_0)

or exactly :math:`x_t L_t - x_0 L_0`. The first part is left out where a receptor is expressed neither at the baseline
nor in the previous round. (The previous round alone would undo every knockout of a receptor: set to zero in the first
round, it would have no derivative in the second, and the targets would return.) A gene's role as TF or receptor uses
the change of the cell's own expression, its roles as ligand the change of what the cell receives.

Terms are shared by targets, so each round computes the change of every distinct term once per cell, and a target costs
one short dot product. A batch of perturbations reads the coefficients once. Before the last round only genes with a
role are needed, and only signals whose ligand changed are recomputed. Adjustment terms pass nothing on
(:attr:`~spacetravlr._core.design.Terms.causal`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel
from spacetravlr._core.response.round import (
    Baseline,
    CoefficientChunk,
    CoefficientReader,
    Derivative,
    Field,
    Rows,
    State,
    changed,
    set_zero,
    update_targets,
)

if TYPE_CHECKING:
    from spacetravlr._core.design import Signals, Targets, Terms
    from spacetravlr._types import Bools, Floats, Ints

# Columns (signals x perturbations) that are received together: few enough to stay near the processor.
_COLUMNS_AT_ONCE = 512


@dataclass(frozen=True)
class InputChange:
    """One perturbation: the wanted change of some genes at every cell."""

    genes: Ints
    """Gene indices, shape (n_perturbed,)."""
    change: Floats
    """Cells x perturbed genes; zero where nothing is changed."""
    cells: Bools | None = None
    """Cells whose perturbed genes end at the wanted value even where that is no change; shape (n_cells,)."""


class Changes(NamedTuple):
    """Simulated minus baseline expression of the genes that can change."""

    genes: Ints
    """Gene index of each row of ``values``, ascending."""
    values: Floats
    """Cells x genes x perturbations."""


class Workspace:
    """Memory that successive propagations reuse: allocating new memory would cost more than the computation.

    Arrays made in it hold until the next propagation.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Floats] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Floats:
        """Anything, in the memory that last had this name if there is enough."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size or buffer.dtype != dtype:
            self._buffers.pop(name, None)
            self._buffers[name] = buffer = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


def in_memory(betas: Floats) -> CoefficientReader:
    """Read coefficients that lie in memory: one chunk, no copy."""

    def read(targets: Ints, needed: Ints | None = None) -> Iterator[CoefficientChunk]:
        yield CoefficientChunk(slice(0, len(betas)), targets, 0, betas)

    return read


def baseline(expression: Floats, signals: Signals, field: Field) -> Baseline:
    """Compute what a round needs to know about the tissue before any change."""
    received = received_signals(expression, signals, field)
    return Baseline(expression, received, expression.max(axis=0), field, signals)


def received_signals(expression: Floats, signals: Signals, field: Field) -> Floats:
    """Received signals of an expression matrix, cells x signals."""
    if not len(signals):
        return np.empty((len(expression), 0), dtype=expression.dtype)
    received = field.apply(np.ascontiguousarray(expression[:, signals.ligand]), signals.contact)
    return np.ascontiguousarray(received, dtype=expression.dtype)


def roles(terms: Terms, signals: Signals) -> Ints:
    """Indices of genes that can pass a change on: TFs, receptors and ligands, ascending."""
    used = terms.signal[terms.signal >= 0]
    return np.unique(np.concatenate([terms.gene[terms.causal], signals.ligand[used]])).astype(np.int64)


def propagate(
    tissue: Baseline,
    terms: Terms,
    targets: Targets,
    *,
    coefficients: CoefficientReader,
    inputs: Sequence[InputChange],
    n_propagation: int = 4,
    derivative: Derivative = "product_rule",
    workspace: Workspace | None = None,
) -> Changes:
    """Let a batch of perturbations travel through the tissue.

    Parameters
    ----------
    tissue
        Baseline, see :func:`baseline`.
    terms
        Distinct regressors.
    targets
        Which terms each modelled gene uses.
    coefficients
        Reader of the coefficient matrix (columns as in :meth:`Targets.columns_of`), see :func:`in_memory`.
    inputs
        The perturbations.
    n_propagation
        Rounds, at least one.
    derivative
        ``"product_rule"`` linearises each term at the state of the previous round, ``"exact"`` takes the difference of
        the model itself.
    workspace
        Memory to use again. The changes then hold until the next propagation in it.

    Returns
    -------
    Change of every modelled or perturbed gene, cells x genes x perturbations, in the dtype of the expression. Perturbed
    genes hold their wanted change, whatever the rounds made of it.
    """
    role = roles(terms, tissue.signals)
    perturbed = [change.genes for change in inputs]
    genes = np.unique(np.concatenate([targets.gene, *perturbed])).astype(np.int64)
    n, batch, dtype = len(tissue.expression), len(inputs), tissue.expression.dtype
    workspace = Workspace() if workspace is None else workspace
    names = ["own 0", "own 1", "own 2"]
    # written in the last round, to where the state that is no longer needed then has been: three states take turns
    values = workspace.empty(names[(n_propagation + 1) % 3], (n, len(genes), batch), dtype)
    own, own_now, spare = (workspace.empty(name, (n, len(role), batch), dtype) for name in names)
    received, received_now = (
        workspace.empty(f"received {i}", (n, len(tissue.signals), batch), dtype) for i in range(2)
    )
    before, now = State(own, received), State(own_now, received_now)
    for start in (own, received, own_now):
        start.fill(0)
    _write_inputs(now.own, role, [InputChange(i.genes, i.change) for i in inputs])
    _receive(now, role, tissue)

    relaying = np.flatnonzero(np.isin(targets.gene, role))
    for _ in range(n_propagation - 1):
        update_targets(tissue, terms, targets, relaying, Rows(role, role), coefficients, before, now, derivative, spare)
        _clamp_perturbed(spare, role, inputs, tissue)
        after = State(spare, before.received)
        _receive(after, role, tissue)
        spare, before, now = before.own, now, after

    everyone = np.arange(len(targets))
    update_targets(tissue, terms, targets, everyone, Rows(role, genes), coefficients, before, now, derivative, values)
    _write_inputs(values, genes, inputs)
    return Changes(genes, values)


def _clamp_perturbed(values: Floats, genes: Ints, inputs: Sequence[InputChange], tissue: Baseline) -> None:
    """Set the wanted change where there is one, clipped to the range of the baseline."""
    for row, p, gene, change, _ in _perturbed_rows(genes, inputs):
        base = tissue.expression[:, gene]
        chosen = change != 0
        values[chosen, row, p] = np.clip(change, -base, tissue.maximum[gene] - base)[chosen]


def _write_inputs(values: Floats, genes: Ints, inputs: Sequence[InputChange]) -> None:
    """Set the wanted change itself, wherever a gene was perturbed."""
    for row, p, _, change, cells in _perturbed_rows(genes, inputs):
        chosen = change != 0 if cells is None else cells
        values[chosen, row, p] = change[chosen]


def _perturbed_rows(genes: Ints, inputs: Sequence[InputChange]) -> Iterator[tuple[int, int, int, Floats, Bools | None]]:
    """Row in ``genes``, perturbation, gene, change and cells of every perturbed gene that is in ``genes``."""
    for p, given in enumerate(inputs):
        for column, gene in enumerate(given.genes):
            row = int(np.searchsorted(genes, gene))
            if row < len(genes) and genes[row] == gene:
                yield row, p, int(gene), given.change[:, column], given.cells


def _receive(state: State, role: Ints, tissue: Baseline) -> None:
    """Fill in the change of the received signals; only columns whose ligand changed are received again."""
    n, _, batch = state.own.shape
    signals = tissue.signals
    row = np.searchsorted(role, signals.ligand)
    emits = np.isin(signals.ligand, role[changed(state.own)])
    set_zero(state.received, np.flatnonzero(~emits))
    at_once = max(1, _COLUMNS_AT_ONCE // batch)
    for contact in (False, True):  # one range at a time: the field then has nothing to sort
        of_range = np.flatnonzero(emits & (signals.contact == contact))
        for start in range(0, len(of_range), at_once):
            signal = of_range[start : start + at_once]
            emitted = np.empty((n, len(signal) * batch), state.own.dtype)
            _take(state.own, row[signal], emitted)
            received = tissue.field.apply(emitted, np.full(emitted.shape[1], contact))
            _put(received, signal, state.received)


@parallel_kernel
def _take(values, rows, out):
    """Copy rows of every cell (cells x rows x perturbations) into one row per cell."""
    batch = values.shape[2]
    for j in nb.prange(values.shape[0]):
        for r in range(rows.shape[0]):
            for p in range(batch):
                out[j, r * batch + p] = values[j, rows[r], p]


@parallel_kernel
def _put(values, rows, out):
    """Copy one row per cell into rows of it."""
    batch = out.shape[2]
    for j in nb.prange(values.shape[0]):
        for r in range(rows.shape[0]):
            for p in range(batch):
                out[j, rows[r], p] = values[j, r * batch + p]
