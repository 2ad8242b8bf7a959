"""What a batch of perturbations sets in motion before any coefficient is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from spacetravlr._core.kernels import parallel_kernel
from spacetravlr._core.response.round import Baseline, State, active_terms, set_zero

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


@dataclass(frozen=True)
class Start:
    """What a batch of perturbations sets in motion, whatever the coefficients are."""

    inputs: Sequence[InputChange]
    role: Ints
    """Genes with a role, ascending."""
    genes: Ints
    """Genes that are modelled or perturbed, ascending."""
    wanted: State
    """Before the first round: the wanted changes and the signals that follow from them."""
    held: State
    """The same clipped to the range of the baseline, as it is from the first round on."""
    relaying: Ints
    """Targets with a role that the perturbations can reach."""


def roles(terms: Terms, signals: Signals) -> Ints:
    """Indices of genes that can pass a change on: TFs, receptors and ligands, ascending."""
    used = terms.signal[terms.signal >= 0]
    return np.unique(np.concatenate([terms.gene[terms.causal], signals.ligand[used]])).astype(np.int64)


def begin(
    tissue: Baseline, terms: Terms, targets: Targets, inputs: Sequence[InputChange], workspace: Workspace | None = None
) -> Start:
    """Compute what a batch of perturbations sets in motion before any coefficient is read.

    Parameters
    ----------
    tissue, terms, targets
        As in :func:`spacetravlr._core.response.propagation.propagate`.
    inputs
        The perturbations.
    workspace
        Memory to use again. The start then holds until the next one in it.
    """
    role, signals = roles(terms, tissue.signals), tissue.signals
    genes = np.unique(np.concatenate([targets.gene, *(i.genes for i in inputs)])).astype(np.int64)
    workspace = Workspace() if workspace is None else workspace
    n, batch, dtype = len(tissue.expression), len(inputs), tissue.expression.dtype
    wanted = [InputChange(i.genes, i.change) for i in inputs]
    held = [InputChange(i.genes, _within_range(i.change, i.genes, tissue)) for i in inputs]
    moved = np.isin(role, [gene for i in inputs for gene in i.genes[(i.change != 0).any(axis=0)]])

    def state(name: str, changes: Sequence[InputChange]) -> State:
        own = workspace.empty(f"{name} own", (n, len(role), batch), dtype)
        received = workspace.empty(f"{name} received", (n, len(signals), batch), dtype)
        own.fill(0)
        write_inputs(own, role, changes)
        receive(own, moved, np.arange(len(signals)), role, tissue, received)
        return State(own, received, moved)

    before = state("wanted", wanted)
    clipped = any((h.change != w.change).any() for h, w in zip(held, wanted, strict=True))
    relaying = _reachable(terms, targets, signals, role, moved)
    return Start(inputs, role, genes, before, state("held", held) if clipped else before, relaying)


def _reachable(terms: Terms, targets: Targets, signals: Signals, role: Ints, moved: Bools) -> Ints:
    """Targets with a role that a change of some role genes can reach, through any number of rounds."""
    relaying = np.flatnonzero(np.isin(targets.gene, role))
    row = np.searchsorted(role, targets.gene[relaying])
    reached = np.zeros(len(relaying), dtype=bool)
    while True:
        active = active_terms(terms, signals, role, moved)
        # of targets in compressed rows, those with an active term
        so_far = np.concatenate([[0], np.cumsum(active[targets.term])])
        found = so_far[targets.indptr[relaying + 1]] > so_far[targets.indptr[relaying]]
        if not (found & ~reached).any():
            return relaying[reached]
        reached, moved = reached | found, moved.copy()
        moved[row[reached]] = True


def _within_range(change: Floats, gene: Ints | int, tissue: Baseline) -> Floats:
    """A change clipped so that the gene stays between zero and its largest expression."""
    base = tissue.expression[:, gene]
    return np.clip(change, -base, tissue.maximum[gene] - base)


def clamp_perturbed(values: Floats, genes: Ints, rows: Ints, inputs: Sequence[InputChange], tissue: Baseline) -> None:
    """Set the wanted change where there is one, clipped to the range of the baseline, in some of the ``rows``."""
    places = [
        (row, p, _within_range(change, gene, tissue), change != 0)
        for row, p, gene, change, _ in _perturbed_rows(genes, inputs)
        if row in rows
    ]
    _write_places(values, places)


def write_inputs(values: Floats, genes: Ints, inputs: Sequence[InputChange]) -> None:
    """Set the wanted change itself, wherever a gene was perturbed."""
    places = [
        (row, p, change, change != 0 if cells is None else cells)
        for row, p, _, change, cells in _perturbed_rows(genes, inputs)
    ]
    _write_places(values, places)


def _write_places(values: Floats, places: Sequence[tuple[int, int, Floats, Bools]]) -> None:
    """Set changes by row and perturbation, each at some cells."""
    if places:
        row, batch, changes, chosen = zip(*places, strict=True)
        _write(np.stack(changes, axis=1), np.stack(chosen, axis=1), np.array(row), np.array(batch), values)


def _perturbed_rows(genes: Ints, inputs: Sequence[InputChange]) -> Iterator[tuple[int, int, int, Floats, Bools | None]]:
    """Row in ``genes``, perturbation, gene, change and cells of every perturbed gene that is in ``genes``."""
    for p, given in enumerate(inputs):
        for column, gene in enumerate(given.genes):
            row = int(np.searchsorted(genes, gene))
            if row < len(genes) and genes[row] == gene:
                yield row, p, int(gene), given.change[:, column], given.cells


def receive(own: Floats, moved: Bools, wanted: Ints, role: Ints, tissue: Baseline, out: Floats) -> None:
    """Fill in the change of the ``wanted`` signals, zero where no ligand moved."""
    n, _, batch = own.shape
    signals = tissue.signals
    row = np.searchsorted(role, signals.ligand)
    emits = np.isin(signals.ligand[wanted], role[moved])
    set_zero(out, wanted[~emits])
    at_once = max(1, _COLUMNS_AT_ONCE // batch)
    for contact in (False, True):  # one range at a time: the field then has nothing to sort
        of_range = wanted[emits & (signals.contact[wanted] == contact)]
        for start in range(0, len(of_range), at_once):
            signal = of_range[start : start + at_once]
            emitted = np.empty((n, len(signal) * batch), own.dtype)
            _take(own, row[signal], emitted)
            received = tissue.field.apply(emitted, np.full(emitted.shape[1], contact))
            _put(received, signal, out)


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


@parallel_kernel
def _write(changes, chosen, row, batch, out):
    """Set changes (cells x places) where they are ``chosen``, all of one cell together."""
    for j in nb.prange(changes.shape[0]):
        for k in range(row.shape[0]):
            if chosen[j, k]:
                out[j, row[k], batch[k]] = changes[j, k]
