r"""One hierarchy of shrinkage: a pooled effect first, then cell types, then space, each as far as the data carry it.

.. math::
    y_j = \sum_k x_{jk} \Big( a_k + a_{k c(j)} + \sum_b \phi_b(s_j) w_{kb} \Big) + f(s_j) + f_{c(j)}(s_j) + \epsilon_j

with one variance for all :math:`a_k` of a kind of term, one for their departures by cell type, one for those by
position, and one each for the smooth intercepts :math:`f`, all learned from the evidence. No term is left out of the
pooled effect: where measurements are noisy, choosing loses more than shrinking. Departures are for the terms with the
clearest pooled effects, as many as ``max_features`` holds; for all of them on small problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.surfaces.group_ard import GroupArd, Posterior
from spacetravlr._core.surfaces.model import Part, SurfaceFit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Floats, Ints

_START = {Part.POOLED: 1e-2, Part.TYPE: 1e-3, Part.SPACE: 1e-3, Part.FINE: 0.1, Part.TYPE_SPACE: 0.1}


@dataclass(frozen=True)
class PooledOptions:
    """How hierarchies are fitted."""

    scale: int = 0
    """Length scale of departures by position, among those on offer."""
    max_features: int = 400
    """Largest number of departures by position, over the terms of a target."""
    n_steps: int = 10
    """Updates of the variances at each stage."""
    n_refit_steps: int = 3
    """Updates of the variances on other cells, from where they were."""


class PooledFits(NamedTuple):
    """A hierarchy, and what is known without any term."""

    full: SurfaceFit
    smooth: SurfaceFit
    """The intercept alone."""


class _Model:
    """Blocks of one target and the model they are in."""

    def __init__(self, x: Floats, y: Floats, functions: CellFunctions, scale: int) -> None:
        self.x, self.functions, self.scale = x, functions, scale
        self.model = GroupArd(y, max(float(np.var(y)), 1e-12), dtype=np.float32, groups=functions.bounds)
        self.blocks: list[tuple[int, int]] = []

    @property
    def intercept(self) -> int:
        return len(self.x)

    def add(self, blocks: Sequence[tuple[int, int]], numbers: Sequence[int], variances: Sequence[float]) -> None:
        rows = [self._rows(k, part) for k, part in blocks]
        split = [part in (Part.TYPE, Part.TYPE_SPACE) for _, part in blocks]
        self.model.add(rows, variances, split=split, shared=numbers)
        self.blocks.extend(blocks)

    def _rows(self, k: int, part: int) -> Floats:
        space = self.functions.stack(self.scale)[slice(*self.functions.places(self.scale)[Part.SPACE : Part.SPACE + 2])]
        if k == self.intercept:
            return space if part == Part.TYPE_SPACE else self.functions.of(part, self.scale).T.astype(np.float32)
        own = self.x[k : k + 1]
        return space * own if part == Part.SPACE else own

    def fit(self, posterior: Posterior, evidence: Floats) -> SurfaceFit:
        places = [self.model.block(i) for i in range(len(self.blocks))]
        return SurfaceFit(
            blocks=list(self.blocks),
            weights=[posterior.mean[place] for place in places],
            amplitudes=np.ones((self.functions.n_types, self.intercept + 1)),
            scale=self.scale,
            evidence=evidence,
            noise=float(self.model.noise),
            log_evidence=posterior.log_evidence,
            factor=posterior.factor[:, np.concatenate(places)],
        )


def fit_pooled(
    x: Floats, kind: Ints, y: Floats, functions: CellFunctions, options: PooledOptions | None = None
) -> tuple[PooledFits, dict[tuple[int, int], float]]:
    """Fit the hierarchy of one target.

    Parameters
    ----------
    x
        Terms of variance one and mean zero within cell types, terms x cells (float32); cells in the order of their
        types.
    kind
        Kind of each term; terms of a kind share variances.
    y
        Target of mean zero within cell types, (cells,).
    functions
        What coefficients may depend on, at the same cells.
    options
        How.

    Returns
    -------
    The fits, and the variance of each block, for :func:`refit_pooled`.
    """
    options = options or PooledOptions()
    problem = _Model(x, y, functions, options.scale)
    n_steps, intercept = options.n_steps, problem.intercept
    smooth_blocks = [(intercept, Part.FINE), (intercept, Part.TYPE_SPACE)]
    problem.add(smooth_blocks, [0, 1], [_START[part] for _, part in smooth_blocks])
    nothing = np.append(np.full(len(x), -np.inf), np.inf)
    smooth = problem.fit(problem.model.learn(n_steps), nothing)
    posterior = None
    if len(x):
        problem.add([(k, Part.POOLED) for k in range(len(x))], kind.tolist(), [_START[Part.POOLED]] * len(x))
        posterior = problem.model.learn(n_steps, exact=False)
        chosen = _clearest(problem, posterior, options.max_features)
        n_kinds = int(kind.max()) + 1
        departures = [(k, part) for part in (Part.TYPE, Part.SPACE) for k in chosen]
        numbers = [int(kind[k]) + n_kinds * (part == Part.SPACE) for k, part in departures]
        problem.add(departures, numbers, [_START[Part(part)] for _, part in departures])
        posterior = problem.model.learn(n_steps)
    full = smooth if posterior is None else problem.fit(posterior, _evidence(problem, posterior))
    return PooledFits(full, smooth), dict(zip(problem.blocks, problem.model.variances.tolist(), strict=True))


def refit_pooled(
    fits: PooledFits,
    variances: dict[tuple[int, int], float],
    x: Floats,
    kind: Ints,
    y: Floats,
    functions: CellFunctions,
    options: PooledOptions | None = None,
) -> PooledFits:
    """Fit the same blocks on other cells, from the variances that were found."""
    options = options or PooledOptions()
    problem = _Model(x, y, functions, options.scale)
    n_kinds = int(kind.max(initial=0)) + 1
    blocks = fits.full.blocks
    of_intercept = [b for b in blocks if b[0] == problem.intercept]
    problem.add(of_intercept, list(range(len(of_intercept))), [variances[b] for b in of_intercept])
    nothing = np.append(np.full(len(x), -np.inf), np.inf)
    smooth = problem.fit(problem.model.learn(options.n_refit_steps), nothing)
    others = [b for b in blocks if b[0] != problem.intercept]
    if not others:
        return PooledFits(smooth, smooth)
    problem.add(others, [int(kind[k]) + n_kinds * int(part) for k, part in others], [variances[b] for b in others])
    posterior = problem.model.learn(options.n_refit_steps)
    return PooledFits(problem.fit(posterior, _evidence(problem, posterior)), smooth)


def _clearest(problem: _Model, posterior: Posterior, max_features: int) -> list[int]:
    """Terms with the largest pooled effects in units of their error, as many as may have departures."""
    n_functions = max(problem.functions.space[problem.scale].shape[1], 1)
    pooled = {k: i for i, (k, part) in enumerate(problem.blocks) if part == Part.POOLED}
    places = np.array([int(problem.model.block(i)[0]) for i in pooled.values()])
    error = np.linalg.norm(posterior.factor[:, places], axis=0)
    ranks = np.argsort(-np.abs(posterior.mean[places]) / np.maximum(error, 1e-12), kind="stable")
    return sorted(np.array(list(pooled))[ranks[: max_features // n_functions]].tolist())


def _evidence(problem: _Model, posterior: Posterior) -> Floats:
    """Log Bayes factor of each term, with all of its parts, against its absence."""
    sets = [[i for i, (other, _) in enumerate(problem.blocks) if other == k] for k in range(problem.intercept)]
    return np.append(problem.model.log_bayes_factors(posterior, sets), np.inf)


def uncentred(fit: SurfaceFit, offsets: Floats) -> SurfaceFit:
    r"""The same predictions from terms that are not centred: :math:`x_{jk} + o_{k c(j)}` instead of :math:`x_{jk}`.

    What the offsets contribute is taken from the intercept: the pooled and type parts from its type part, those by
    position from its surface in each type.

    Parameters
    ----------
    fit
        On centred terms.
    offsets
        Types x terms.
    """
    n_types, intercept = offsets.shape[0], fit.amplitudes.shape[1] - 1
    starts = np.cumsum([0, *(len(w) for w in fit.weights)])
    n_old = int(starts[-1])
    n_space = next((len(w) // n_types for (_, part), w in zip(fit.blocks, fit.weights, strict=True)
                    if part == Part.TYPE_SPACE), 0)  # fmt: skip
    surface = next((int(starts[i]) for i, b in enumerate(fit.blocks) if b == (intercept, Part.TYPE_SPACE)), -1)
    to_new = np.vstack([np.eye(n_old), np.zeros((n_types, n_old))])  # the intercept's type part comes last
    for (k, part), start, w in zip(fit.blocks, starts[:-1].tolist(), fit.weights, strict=True):
        if k == intercept:
            continue
        for c in range(n_types):
            if part == Part.POOLED:
                to_new[n_old + c, start] -= offsets[c, k]
            elif part == Part.TYPE:
                to_new[n_old + c, start + c] -= offsets[c, k]
            else:
                rows = surface + c * n_space + np.arange(n_space)
                to_new[rows, start + np.arange(len(w))] -= offsets[c, k]
    weights = to_new @ np.concatenate([np.zeros(0), *fit.weights])
    return SurfaceFit(
        blocks=[*fit.blocks, (intercept, int(Part.TYPE))],
        weights=[*np.split(weights[:n_old], starts[1:-1]), weights[n_old:]],
        amplitudes=fit.amplitudes,
        scale=fit.scale,
        evidence=fit.evidence,
        noise=fit.noise,
        log_evidence=fit.log_evidence,
        factor=fit.factor @ to_new.T,
    )


def rescaled(fit: SurfaceFit, units: Floats) -> SurfaceFit:
    """The same predictions from terms divided by ``units`` (terms,): weights times ``units``."""
    factors = np.append(units, 1.0)
    per_block = [factors[k] for k, _ in fit.blocks]
    per_weight = np.repeat(per_block, [len(w) for w in fit.weights])
    return SurfaceFit(
        blocks=fit.blocks,
        weights=[w * f for w, f in zip(fit.weights, per_block, strict=True)],
        amplitudes=fit.amplitudes,
        scale=fit.scale,
        evidence=fit.evidence,
        noise=fit.noise,
        log_evidence=fit.log_evidence,
        factor=fit.factor * per_weight,
    )
