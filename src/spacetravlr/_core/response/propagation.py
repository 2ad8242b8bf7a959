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
role are needed, and only signals whose ligand a round can change are recomputed. Adjustment terms pass nothing on
(:attr:`~spacetravlr._core.design.Terms.causal`).

What is wanted, the signals that follow from it and which targets it can reach do not depend on the coefficients
(:class:`Start`), so runs of one batch with several sets of coefficients share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
from spacetravlr._core.response.start import (
    InputChange,
    Start,
    Workspace,
    begin,
    clamp_perturbed,
    receive,
    write_inputs,
)

if TYPE_CHECKING:
    from spacetravlr._core.design import Signals, Targets, Terms
    from spacetravlr._types import Floats, Ints

# Which of three states each round writes: the first reads state 0 and the start, the second the start and state 1.
_TURNS = (1, 0, 2)


class Changes(NamedTuple):
    """Simulated minus baseline expression of the genes that can change."""

    genes: Ints
    """Gene index of each row of ``values``, ascending."""
    values: Floats
    """Cells x genes x perturbations."""


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


def propagate(
    tissue: Baseline,
    terms: Terms,
    targets: Targets,
    *,
    coefficients: CoefficientReader,
    inputs: Sequence[InputChange] | Start,
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
        The perturbations, or what :func:`begin` made of them, which is then left as it is.
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
    workspace = Workspace() if workspace is None else workspace
    start = inputs if isinstance(inputs, Start) else begin(tissue, terms, targets, inputs, workspace)
    role, genes, relaying = start.role, start.genes, start.relaying
    does_nothing = n_propagation > 1 and not len(relaying)  # all rounds but the last
    free = 0 if does_nothing else _TURNS[(n_propagation - 1) % 3]
    memory = _Memory(workspace, start, free, recycle=start is not inputs)
    before, now = (start.held, start.held) if does_nothing else (memory.unchanged(), start.wanted)
    relays = np.searchsorted(role, targets.gene[relaying])
    by_relay = np.flatnonzero(np.isin(tissue.signals.ligand, role[relays]))
    for i in range(0 if does_nothing else n_propagation - 1):
        own, moved = memory.next_own(i), start.held.moved.copy()
        update_targets(tissue, terms, targets, relaying, Rows(role, role), coefficients, before, now, derivative, own)
        clamp_perturbed(own, role, relays, start.inputs, tissue)
        moved[relays] = changed(own, relays)
        received = memory.next_received(i)
        receive(own, moved, by_relay, role, tissue, received)
        before, now = now, State(own, received, moved)

    values = memory.values()
    set_zero(values, np.searchsorted(genes, np.setdiff1d(genes, targets.gene)))
    everyone = np.arange(len(targets))
    update_targets(tissue, terms, targets, everyone, Rows(role, genes), coefficients, before, now, derivative, values)
    write_inputs(values, genes, start.inputs)
    return Changes(genes, values)


class _Memory:
    """The states of a propagation: three of what cells express and two of what they receive take turns.

    Parameters
    ----------
    workspace
        Where they lie.
    start
        Start of the batch.
    free
        Which of the three nobody needs in the last round, which writes the changes of all targets there.
    recycle
        Whether the memory of the start is used for one of them, because nobody needs it afterwards.
    """

    def __init__(self, workspace: Workspace, start: Start, free: int, *, recycle: bool) -> None:
        self._workspace, self._start, self._free = workspace, start, free
        self._own = ["own 0", "own 1", "wanted own" if recycle else "own 2"]
        self._received = ["received 0", "wanted received" if recycle else "received 1"]
        # what holds all that no relaying target changes
        self._filled = {"wanted own", "wanted received"} if start.held is start.wanted else set()
        if free == 2:  # it is replaced by a larger one
            self._filled.discard("wanted own")

    def values(self) -> Floats:
        """Changes of all genes that are modelled or perturbed."""
        return self._rows(self._free, len(self._start.genes))

    def own(self, i: int) -> Floats:
        """Changes of role genes."""
        return self._rows(i, len(self._start.role))

    def _rows(self, i: int, n_rows: int) -> Floats:
        like = self._start.wanted.own
        n, _, batch = like.shape
        most = max(len(self._start.role), len(self._start.genes) if i == self._free else 0)
        memory = self._workspace.empty(self._own[i], (n * most * batch,), like.dtype)
        return memory[: n * n_rows * batch].reshape(n, n_rows, batch)

    def received(self, i: int) -> Floats:
        """Changes of received signals, cells x signals x perturbations."""
        like = self._start.wanted.received
        return self._workspace.empty(self._received[i], like.shape, like.dtype)

    def unchanged(self) -> State:
        """The tissue before anything happens to it."""
        own, received = self.own(0), self.received(0)
        own.fill(0)
        received.fill(0)
        return State(own, received, np.zeros(len(self._start.role), dtype=bool))

    def next_own(self, i: int) -> Floats:
        """Where round ``i`` writes what cells express; all that relaying targets do not change is there already."""
        turn = _TURNS[i % 3]
        return self._fill(self._own[turn], self.own(turn), self._start.held.own)

    def next_received(self, i: int) -> Floats:
        """The same for what they receive: in the place of the state before, once a round has read it."""
        return self._fill(self._received[i % 2], self.received(i % 2), self._start.held.received)

    def _fill(self, name: str, values: Floats, held: Floats) -> Floats:
        if name not in self._filled:
            self._filled.add(name)
            np.copyto(values, held)
        return values
