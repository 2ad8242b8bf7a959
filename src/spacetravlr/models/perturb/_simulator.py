"""The numbers of a fitted model that a perturbation needs, free of any AnnData, so that they travel to workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from spacetravlr._core.response.propagation import propagate
from spacetravlr._core.response.round import Derivative
from spacetravlr._core.response.start import begin, roles
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_one_of
from spacetravlr.models.perturb._coefficients import coefficient_reader

if TYPE_CHECKING:
    from spacetravlr._core.design import Targets, Terms
    from spacetravlr._core.response.propagation import Changes
    from spacetravlr._core.response.round import Baseline, CoefficientReader
    from spacetravlr._core.response.start import InputChange, Start, Workspace
    from spacetravlr._types import Floats, Ints

DERIVATIVES: tuple[Derivative, ...] = ("product_rule", "exact")


def assert_run(n_propagation: int, derivative: Derivative) -> None:
    """Raise ``ValueError`` when an option is unknown or there is not at least one round."""
    assert_one_of(derivative, DERIVATIVES, name="derivative")
    if not isinstance(n_propagation, int | np.integer) or n_propagation < 1:
        msg = f"Expected `n_propagation` to be a whole number of at least 1, found `{n_propagation}`."
        raise ValueError(msg)


def assert_finite(totals: Floats, genes: Ints, simulator: Simulator, names: Sequence[str]) -> None:
    """Raise ``ValueError`` when a perturbation gave NaN, naming the coefficients that did.

    Parameters
    ----------
    totals
        Changes added up over cells, genes x perturbations.
    genes
        Index of each of these genes.
    simulator
        What the changes were computed with.
    names
        Names of all genes of the tissue.
    """
    if np.isfinite(totals).all():
        return
    targets = simulator.targets
    for chunk in simulator.coefficients(np.arange(len(targets))):
        for t in chunk.targets:
            columns = targets.columns_of(int(t))
            values = chunk.values[:, columns.start - chunk.first_column : columns.stop - chunk.first_column]
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                msg = (
                    f"Expected coefficients to be finite, found NaN or infinite ones of target "
                    f"{str(names[targets.gene[t]])!r} in {len(bad)} cells (first: cell {chunk.cells.start + bad[0]} in "
                    "the order of the data); call `st.tl.fit_betas` again, or restore them."
                )
                raise ValueError(msg)
    gene = str(names[genes[int(np.argmax(~np.isfinite(totals).all(axis=1)))]])
    msg = f"Expected changes to be finite, found NaN or infinite ones of {gene!r}; check expression and coefficients."
    raise ValueError(msg)


class Simulator:
    """A fitted model as arrays.

    Parameters
    ----------
    tissue
        Baseline.
    terms
        Distinct regressors.
    targets
        Which terms each modelled gene uses.
    betas
        Cells x columns; an array, or one that is read lazily.
    n_jobs
        Threads.
    """

    def __init__(
        self, tissue: Baseline, terms: Terms, targets: Targets, betas: Any, *, n_jobs: int | None = None
    ) -> None:
        self.tissue = tissue
        self.terms = terms
        self.targets = targets
        self.betas = betas
        self.n_jobs = n_jobs

    def __getstate__(self) -> dict[str, Any]:
        # the reader is a closure over coefficients that are here already
        return {name: value for name, value in self.__dict__.items() if name != "coefficients"}

    @cached_property
    def coefficients(self) -> CoefficientReader:
        """Reader of the coefficients; those that fit in memory are loaded once."""
        return coefficient_reader(self.betas, self.targets, n_jobs=self.n_jobs)

    def bytes_per_perturbation(self, *, with_draws: bool = False) -> int:
        """Memory that one more perturbation in a batch takes; ``with_draws`` leave its start as it is."""
        n_cells = len(self.tissue.expression)
        n_roles, n_signals = len(roles(self.terms, self.tissue.signals)), len(self.tissue.signals)
        # two states of role genes and signals and the state being written, and the changes of all targets
        n_states = 4 if with_draws else 3
        return n_cells * (n_states * (n_roles + n_signals) + len(self.targets) + 1) * self.tissue.expression.itemsize

    def begin(self, inputs: Sequence[InputChange], workspace: Workspace | None = None) -> Start:
        """What a batch of input changes sets in motion whatever the coefficients, for several runs of it.

        Parameters
        ----------
        inputs
            Changes of genes at cells.
        workspace
            Memory to use again. The start then holds until the next one in it.
        """
        with numba_threads(self.n_jobs):
            return begin(self.tissue, self.terms, self.targets, inputs, workspace)

    def propagate(
        self,
        inputs: Sequence[InputChange] | Start,
        *,
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
        workspace: Workspace | None = None,
    ) -> Changes:
        """Let a batch of input changes travel through the tissue.

        Parameters
        ----------
        inputs
            Changes of genes at cells, or the start of them, which is left as it is.
        n_propagation
            Rounds of propagation.
        derivative
            ``"product_rule"`` or ``"exact"``.
        workspace
            Memory to use again. The changes then hold until the next propagation in it.

        Returns
        -------
        Changes, cells x genes x perturbations.

        Raises
        ------
        ValueError
            If an option is unknown or there is not at least one round.
        """
        assert_run(n_propagation, derivative)
        with numba_threads(self.n_jobs):
            return propagate(
                self.tissue,
                self.terms,
                self.targets,
                coefficients=self.coefficients,
                inputs=inputs,
                n_propagation=int(n_propagation),
                derivative=derivative,
                workspace=workspace,
            )
