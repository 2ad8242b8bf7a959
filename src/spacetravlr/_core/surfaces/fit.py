r"""Coefficient surfaces (how-it-works, section 3): coefficients as smooth functions of cell type, niche and position.

.. math::
    y_j = \sum_k x_{jk} b_{jk} + \epsilon_j, \qquad
    b_{jk} = \gamma_{k c(j)} \Big( a_k + \sum_b \phi_b(s_j) w_{kb} + \sum_q \psi_q(n_j) u_{kq} \Big) + a_{k c(j)}

with one variance per modulator and part (pooled, cell type, niche, space), learned from the evidence, and optional
amplitudes :math:`\gamma` of the shared surface in each cell type. Modulators are added according to how much their
parts would raise the evidence and removed by the Bayes factor against their absence, so a modulator without support
ends with coefficients of exactly zero. The last modulator is the intercept.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from spacetravlr._core.surfaces.group_ard import GroupArd
from spacetravlr._core.surfaces.model import Part, SurfaceFit
from spacetravlr._core.surfaces.search import Problem, Search, SurfaceOptions

if TYPE_CHECKING:
    from spacetravlr._core.surfaces.model import CellFunctions
    from spacetravlr._types import Floats

# Share of the evidence that a model with amplitudes may lack before they are refined: in trials on simulated tissue,
# models that won in the end lacked up to 7 %.
_AMPLITUDE_LACK = 0.1


def fit_surface(
    x: Floats,
    y: Floats,
    functions: CellFunctions,
    options: SurfaceOptions | None = None,
    *,
    max_noise: float = np.inf,
) -> SurfaceFit:
    """Fit the surfaces of one target.

    Parameters
    ----------
    x
        Standardised modulators at the training cells, cells x modulators; an intercept column is appended.
    y
        Standardised target, mean about zero (cells,).
    functions
        What coefficients may depend on, at the same cells.
    options
        How to search.
    max_noise
        Stop after the first search when it leaves a larger residual variance: the caller has something better.
    """
    options = options or SurfaceOptions()
    problem = Problem.of(x, y, functions, options)
    flat = np.ones((functions.n_types, len(problem.x)))
    first = Search(problem, flat, problem.first_scale).run()
    if first.noise > max_noise:
        return first
    best = _choose_scale(problem, first)
    if options.amplitudes and functions.n_types > 1:
        tried = _with_amplitudes(problem, best)
        if _is_better(tried, best):
            best = tried
            again = _refined(problem, best)
            best = again if _is_better(again, best) else best
    return best


def refit_surface(
    fit: SurfaceFit,
    x: Floats,
    y: Floats,
    functions: CellFunctions,
    options: SurfaceOptions | None = None,
    *,
    search: bool,
) -> SurfaceFit:
    """Fit again on other cells, with the length scale and the amplitudes of ``fit``.

    Parameters
    ----------
    fit
        A fit of the same target.
    x, y, functions, options
        As in :func:`fit_surface`.
    search
        Search for the parts anew; otherwise keep those of ``fit`` and learn their variances only.
    """
    problem = Problem.of(x, y, functions, options or SurfaceOptions())
    if search:
        return _search_at(problem, fit.amplitudes, fit.scale)
    return Search(problem, fit.amplitudes, fit.scale, warm=fit).polish()


def _search_at(problem: Problem, amplitudes: Floats, scale: int) -> SurfaceFit:
    """Search as every search starts, at a coarse length scale, and carry on from there at ``scale``.

    From scratch at a fine scale the first few modulators would take all the features allowed.
    """
    first = Search(problem, amplitudes, problem.first_scale).run()
    if scale == first.scale:
        return first
    return Search(problem, amplitudes, scale, warm=first if _fits_in(problem, first, scale) else None).run()


def _choose_scale(problem: Problem, fit: SurfaceFit) -> SurfaceFit:
    """Climb from the length scale of ``fit`` to a neighbour for as long as the evidence rises.

    Finer scales have more functions; those at which the parts of the fit would need too many features are left out.
    """
    fits = {fit.scale: fit}
    here = fit.scale
    while True:
        for scale in (here - 1, here + 1):
            if 0 <= scale < len(problem.functions.space) and scale not in fits and _fits_in(problem, fits[here], scale):
                fits[scale] = Search(problem, fit.amplitudes, scale, warm=fits[here]).run()
        best = max(fits, key=lambda s: fits[s].log_evidence)
        if best == here:
            return fits[here]
        here = best


def _fits_in(problem: Problem, fit: SurfaceFit, scale: int) -> bool:
    """Whether the parts of ``fit`` have at most the features allowed, or no more than now, at another length scale."""
    more = problem.functions.space[scale].shape[1] - problem.functions.space[fit.scale].shape[1]
    copies = {Part.SPACE: 1, Part.TYPE_SPACE: problem.functions.n_types}
    n_features = sum(len(w) for w in fit.weights) + more * sum(copies.get(Part(part), 0) for _, part in fit.blocks)
    return more <= 0 or n_features <= problem.options.max_features


def _with_amplitudes(problem: Problem, fit: SurfaceFit) -> SurfaceFit | None:
    """Refit with type amplitudes, started at the ratio of each type's mean coefficient to the mean over types."""
    functions = problem.functions
    means = fit.coefficients(functions.type_means())
    present = np.bincount(functions.cell_type, minlength=functions.n_types) > 0
    centre = means[present].mean(axis=0)
    active = np.abs(centre) > 1e-6
    active[-1] = False
    if not active.any():
        return None
    amplitudes: Floats = np.ones_like(means)
    amplitudes[:, active] = np.clip(means[:, active] / centre[active], 0.1, 4.0)
    amplitudes[~present] = 1.0
    amplitudes /= amplitudes[present].mean(axis=0)
    refit = Search(problem, amplitudes, fit.scale).run()
    null = problem.null_evidence
    if refit.log_evidence - null < (1.0 - _AMPLITUDE_LACK) * (fit.log_evidence - null):
        return None
    return _refined(problem, refit)


def _refined(problem: Problem, fit: SurfaceFit) -> SurfaceFit:
    """Learn amplitudes and variances in turn, then search on from there."""
    for _ in range(2):
        amplitudes = _update_amplitudes(problem, fit)
        fit = Search(problem, amplitudes, fit.scale, warm=fit).polish()
    return _choose_scale(problem, Search(problem, fit.amplitudes, fit.scale, warm=fit).run())


def _is_better(fit: SurfaceFit | None, other: SurfaceFit) -> TypeGuard[SurfaceFit]:
    return fit is not None and fit.log_evidence > other.log_evidence + 1.0


def _update_amplitudes(problem: Problem, fit: SurfaceFit) -> Floats:
    """One step of alternating least squares for the amplitudes, shrunk towards one by a learned variance."""
    y, functions = problem.y, problem.functions
    surfaces = fit.fields(functions, amplitudes=False, types=False)
    shared = sorted(k for k in surfaces if k != len(problem.x) - 1)
    if not shared:
        return fit.amplitudes
    base = np.stack([surfaces[k] * problem.x[k] for k in shared])
    current = fit.amplitudes[:, shared].T[:, functions.cell_type]
    residual = y - fit.prediction(problem.x[:-1].T, functions) + (base * (current - 1.0)).sum(axis=0)
    model = GroupArd(residual, fit.noise, groups=functions.bounds)
    model.add([base], [0.3], split=[True])
    step = model.learn(6).mean.reshape(functions.n_types, len(shared)) + 1.0
    weight = np.stack([(base[:, a:b] ** 2).sum(axis=1) for a, b in itertools.pairwise(functions.bounds)])
    level = (step * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-30)
    amplitudes = np.ones_like(fit.amplitudes)
    amplitudes[:, shared] = step / np.maximum(level, 0.2)
    return amplitudes
