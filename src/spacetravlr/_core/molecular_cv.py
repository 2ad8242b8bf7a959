r"""Molecular cross-validation: choose the amount of smoothing on held-out molecules (Batson et al. 2019).

Counts are thinned into halves :math:`A` and :math:`B` with independent noise. A smoothing :math:`f` of one half is
compared with the other, both centred within groups,

.. math:: L(f) = \frac{1}{nG} \lVert f(A) - B \rVert^2

which is the error of :math:`f(A)` plus the noise of :math:`B`, whatever :math:`f` is. Halves are noisier than the full
counts and need more smoothing. The part of the error that is propagated noise,

.. math:: V(f) = \frac{1}{nG} \frac{\lVert f(A) - f(B) \rVert^2}{2},

is inversely proportional to depth, so the loss for the full counts is :math:`L(f) - V(f) / 2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import sparse

from spacetravlr._core.imputation import diffuse, group_means, keep_totals, markov_matrices, markov_matrix

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

Method = Literal["type_mean", "none", "diffusion"]


class Setting(NamedTuple):
    """One way to smooth."""

    method: Method
    n_neighbors: int = 0
    n_steps: int = 0


class Problem(NamedTuple):
    """What all settings have in common."""

    groups: Ints
    """Group of each cell."""
    totals: Floats
    """Total that each cell is scaled to."""
    log_factor: float | None
    """As in :func:`keep_totals`."""
    embed: Callable[[Floats], Floats]
    """Cells x genes to cells x components, in which neighbours are searched."""
    rng_seed: int
    n_jobs: int | None


def normalised(counts: Ints, totals: Floats, log_factor: float | None) -> Floats:
    """Scale each cell's counts to its total, as logarithms where ``log_factor`` is given; without counts it is 0."""
    found = counts.sum(axis=1, dtype=np.float64)
    scaled = counts * (totals / np.where(found > 0, found, 1.0))[:, None]
    return np.asarray(scaled if log_factor is None else np.log1p(scaled) / log_factor, dtype=np.float32)


def smooth(values: Any, setting: Setting, problem: Problem, embedding: Floats | None = None) -> Floats:
    """What one setting makes of ``values`` (dense or CSR), each cell scaled to its total; dense float32.

    Neighbours are searched in ``embedding``, by default in what ``problem.embed`` makes of the values.
    """
    if setting.method == "none":
        return np.array(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)
    if setting.method == "type_mean":
        result = group_means(values, problem.groups)
    else:
        points = problem.embed(values) if embedding is None else embedding
        k, groups = setting.n_neighbors, problem.groups
        markov = markov_matrix(points, k, groups=groups, rng_seed=problem.rng_seed, n_jobs=problem.n_jobs)
        result = diffuse(markov, values, setting.n_steps)
    return keep_totals(result, problem.totals, log_factor=problem.log_factor)


def candidates(
    values: Floats, neighbors: Sequence[int], steps: Sequence[int], problem: Problem, *, type_mean: bool
) -> Iterator[tuple[Setting, Floats]]:
    """Each setting with what it makes of ``values``; one at a time, since each is as large as they are."""
    if type_mean:
        yield Setting("type_mean"), smooth(values, Setting("type_mean"), problem)
    yield Setting("none"), values
    graphs = markov_matrices(
        problem.embed(values), neighbors, groups=problem.groups, rng_seed=problem.rng_seed, n_jobs=problem.n_jobs
    )
    for k, markov in zip(neighbors, graphs, strict=True):
        state, done = values, 0
        for n_steps in sorted(steps):
            state, done = diffuse(markov, state, n_steps - done), n_steps
            yield (
                Setting("diffusion", k, n_steps),
                keep_totals(state.copy(), problem.totals, log_factor=problem.log_factor),
            )


def losses(
    halves: tuple[Floats, Floats],
    neighbors: Sequence[int],
    steps: Sequence[int],
    problem: Problem,
    *,
    type_mean: bool,
) -> dict[Setting, float]:
    r"""Loss :math:`L - V / 2` of each setting, each half compared with the other.

    Parameters
    ----------
    halves
        The two halves, normalised alike (:func:`normalised`); cells x genes.
    neighbors, steps
        Numbers of neighbours and of steps to try, each with each.
    problem
        What all settings have in common.
    type_mean
        Try the mean of the group as well.

    Returns
    -------
    Loss per value, the smaller the better.
    """
    first, second = halves
    pairs = zip(*(candidates(half, neighbors, steps, problem, type_mean=type_mean) for half in halves), strict=True)
    found = {}
    for (setting, from_first), (_, from_second) in pairs:
        error = (_within(from_first - second, problem.groups) + _within(from_second - first, problem.groups)) / 2
        found[setting] = error - _within(from_first - from_second, problem.groups) / 4
    return found


def _within(values: Floats, groups: Ints) -> float:
    """Mean square about the mean of the group."""
    total = 0.0
    for group in np.unique(groups):
        members = values[groups == group]
        total += float(np.square(members - members.mean(axis=0)).sum(dtype=np.float64))
    return total / max(values.size, 1)
