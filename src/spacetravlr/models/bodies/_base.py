"""What every kind of coefficients (a body) does: it is fitted to a block of targets and evaluated at any cells.

Each is fitted in the same four steps.

1. On the choosing folds less one, predict that one: errors that decide which body a cell type keeps.
2. On all choosing folds, predict the reporting fold: scores that took no part in any choice.
3. The settings found in step 2 (penalty, parts, stopping) stay.
4. Refit on all cells: the coefficients that are delivered.

A new body is a module that defines one :class:`Body`, and a line in :mod:`spacetravlr.models.bodies._registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from spacetravlr._processes import Result, Shared, in_processes

if TYPE_CHECKING:
    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._core.surfaces.inference import TermInference
    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._processes import Work
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr._utils import InterruptiblePool
    from spacetravlr.models.bodies._inputs import BodyOptions, FitInputs
    from spacetravlr.nn import NicheData


@dataclass(frozen=True)
class BlockTask:
    """A block of targets to fit, and what to fit it with."""

    block: BlockDesign
    inputs: FitInputs
    options: BodyOptions
    functions: CellFunctions | None
    """What surfaces may depend on, where a body reads it."""
    n_jobs: int
    pool: InterruptiblePool
    """Threads that the bodies of a block share."""
    progress: Callable[[], None]
    """Called when a target is done by the body that takes longest."""
    processes: bool = False
    """Whether targets are fitted in processes instead."""

    def each_target(self, fit: Work[Shared, int, Result], shared: Shared) -> Iterator[Result]:
        """Call ``fit(shared, t, check)`` for every target ``t`` of the block, in threads or processes.

        ``check`` is to be called now and then: it ends the fit of a target when the whole fit is interrupted.
        """
        targets = range(len(self.block))
        if self.processes:
            yield from in_processes(fit, shared, targets, min(self.n_jobs, len(targets)))
        else:
            yield from self.pool.map(lambda t: fit(shared, t, self.pool.check), targets)


@dataclass
class BodyResult:
    """What one body predicts."""

    prediction: Floats
    """Each cell predicted without itself: choosing cells by step 1, reporting cells by step 2; NaN where not done."""
    train: Floats
    """Predictions of step 2 at the cells it was fitted on; cells x targets, NaN elsewhere."""
    without_terms: Floats | None = None
    """The same as ``prediction`` by what the body makes of type and position alone, where it is kept by a test against
    that. Choosing cells are then predicted without any part that was chosen by looking at them."""
    without_claims: Floats | None = None
    """Reporting cells predicted by type, position and terms of adjustment."""
    evidence_gain: Floats | None = None
    """Log evidence that the other terms of each target add to those of adjustment (targets,)."""
    p_terms: Floats | None = None
    """p-value of each target that all terms predict held-out choosing cells no better than type and position, or no
    better than the mean of the type (targets,)."""
    judged: Bools | None = None
    """Targets whose terms it judges by their evidence, so that it delivers fewer of them; ``None`` for none."""


class BodyState(NamedTuple):
    """One body of one target."""

    constant: Floats
    """Coefficients of each type in original units, types x (intercept, terms)."""
    varying: Any = None
    """What it adds from cell to cell, for :meth:`Varying.collect`."""


class EvaluationCells(NamedTuple):
    """Cells at which coefficients are evaluated; what they read is computed when a body asks for it."""

    cell_type: Ints
    functions: Callable[[], CellFunctions]
    """What surfaces read."""
    niches: Callable[[], NicheData]
    """What networks read."""
    average: bool = False
    """Whether functions of position take their mean over the cells of the fit of the same type; ``functions`` hold it
    already."""


class Varying(ABC):
    """What one kind of body adds to the constants of a block of targets, from cell to cell."""

    @classmethod
    @abstractmethod
    def collect(cls, states: Sequence[Any], n_types: int) -> Varying:
        """Put together :attr:`BodyState.varying` of the targets of a block; ``None`` where the body was not kept."""

    @abstractmethod
    def departures(self, cells: EvaluationCells, keeps: Bools) -> Iterator[tuple[int, Ints, Ints, Floats]]:
        """Yield what is added: target, cells, columns (0 for the intercept), and values in standardised units.

        ``keeps`` says which types of which target (targets x types) keep the body.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything as nested dicts of arrays and plain values."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any]) -> Varying:
        """Rebuild from :meth:`state`."""


class Body(ABC):
    """One kind of coefficients of a block of targets.

    Parameters
    ----------
    task
        The block.
    before
        Bodies that were fitted before, by name.
    """

    name: ClassVar[str]
    """In tables of scores."""
    chosen_by: ClassVar[tuple[str, ...]]
    """Values of ``body=`` of :func:`spacetravlr.tl.fit_betas` with which it is fitted."""
    chosen_with_noise: ClassVar[tuple[str, ...]] = ()
    """The same where measurement error is accounted for; none for bodies that take values as exact."""
    after: ClassVar[tuple[str, ...]] = ()
    """Bodies that it reads."""
    in_background: ClassVar[bool] = False
    """Whether it is compared beside the bodies that come after it."""
    reads_functions: ClassVar[bool] = False
    """Whether it reads functions of niche and position."""
    reports_progress: ClassVar[bool] = False
    """Whether it says when a target is done."""
    least_evidence: ClassVar[float] = -np.inf
    """Log Bayes factor above which a term that the body holds counts as active."""
    varying: ClassVar[type[Varying] | None] = None
    """What it adds from cell to cell; ``None`` when its coefficients are constants of the cell types."""
    result: BodyResult

    def __init__(self, task: BlockTask, before: Mapping[str, Any]) -> None:
        self.task, self.before = task, before

    @abstractmethod
    def compare(self) -> None:
        """Set :attr:`result`: at least the predictions of step 1."""

    @abstractmethod
    def state(self, t: int) -> BodyState:
        """What it delivers for a target of the block (step 4)."""

    def finish(self, kept: Bools) -> None:  # noqa: B027
        """Complete :attr:`result` and what is delivered, where the targets ``kept`` it in some type."""

    def evidence(self, t: int) -> Floats | None:
        """Log Bayes factor of each term of a target against its absence, where the body knows it."""
        return None

    def inference(self, t: int) -> TermInference | None:
        """Errors and tests of the terms of a target in original units, where the body knows them."""
        return None

    def draws(self, t: int) -> tuple[Any, Floats] | None:
        """What is known of a target, whether it is kept or not, and what draws from its posterior add, where known.

        The first is a state as in :attr:`BodyState.varying`, the second has one row per weight of it and one column per
        draw.
        """
        return None

    def standard_deviations(self, t: int) -> Floats | None:
        """Posterior standard deviations of a target in original units, cells x (intercept, terms), where known."""
        return None

    @property
    def curves(self) -> dict[str, Floats]:
        """Learning curves, epochs x targets, by name; empty where nothing is trained in epochs."""
        return {}


def by_type(inputs: FitInputs, mask: Bools | None = None) -> Ints:
    """Cells (of ``mask``) with those of a type side by side, otherwise in their order."""
    rows = np.arange(inputs.n_cells) if mask is None else np.flatnonzero(mask)
    return rows[np.argsort(inputs.cell_type[rows], kind="stable")]


def fitted_rows(inputs: FitInputs, fold: int) -> Bools:
    """Cells to fit on when ``fold`` is predicted: the other choosing folds, never the reporting one."""
    return ~inputs.report & (inputs.fold != fold)


def empty_result(block: BlockDesign) -> BodyResult:
    """Nothing predicted yet."""
    return BodyResult(np.full(block.y.shape, np.nan), np.full(block.y.shape, np.nan))
