r"""Groups of cells with similar coefficients, and how far the groups can be trusted.

Groups come from k-means on principal components of standardised columns and are checked in two ways. *Stability:* cells
and targets (whose columns share errors) are resampled, and each group is compared with the most similar one of the new
groups: the mean of

.. math::

    J(A, B) = \frac{|A \cap B|}{|A \cup B|}

over bootstrap samples is its stability. *Separation:* smooth coefficients can be divided into any number of stable
pieces, but separate groups have a valley between them, with few cells halfway between their centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_MOST_STEPS = 100
_STARTS = 4
#: Half the width of the bands in which cells are counted, in units of the distance of two centres.
_BAND = 0.1
_LEAST_IN_BAND = 5


class Groups(NamedTuple):
    """Groups of cells."""

    labels: Ints
    """Group of each cell."""
    centres: Floats
    """Groups x components."""


class Trial(NamedTuple):
    """One number of groups, tried."""

    groups: Groups
    stability: Floats
    """Mean Jaccard index of each group over draws."""
    separation: Floats
    """One minus the density between each group and its nearest relative to that at the centres, 0 to 1."""
    rand_index: float
    """Mean adjusted Rand index over draws."""


def principal_components(values: Floats, weights: Floats, n_components: int, share: float = 0.95) -> Floats:
    """Scores on the leading principal components of weighted columns (centred before), cells x components.

    As many components as have ``share`` of the variance, at most ``n_components``.
    """
    z = values * np.sqrt(weights)
    variance, axes = np.linalg.eigh(z.T @ z / max(len(z), 1))
    variance, axes = variance[::-1], axes[:, ::-1]
    reached = np.cumsum(variance) / max(variance.sum(), 1e-300)
    n = int(np.clip(np.searchsorted(reached, share - 1e-9) + 1, 1, min(n_components, z.shape[1])))
    # the sign of a component is arbitrary
    axes = axes[:, :n] * np.where(axes[np.abs(axes[:, :n]).argmax(axis=0), np.arange(n)] < 0, -1, 1)
    return np.asarray(z @ axes)


def assign(x: Floats, centres: Floats) -> Ints:
    """The nearest centre of each row."""
    return np.asarray(np.argmin((centres**2).sum(axis=1) - 2 * x @ centres.T, axis=1))


def k_means(x: Floats, k: int, rng: np.random.Generator) -> Groups:
    """Groups of least spread, of several starts; numbered by size, the largest first."""
    best, least = None, np.inf
    for _ in range(_STARTS if k > 1 else 1):
        centres = _start(x, k, rng)
        labels = assign(x, centres)
        for _ in range(_MOST_STEPS):
            one_hot = (labels[:, None] == np.arange(k)).astype(x.dtype)
            size = one_hot.sum(axis=0)
            centres = np.where(size[:, None] > 0, one_hot.T @ x / np.maximum(size, 1)[:, None], centres)
            new = assign(x, centres)
            if (new == labels).all():
                break
            labels = new
        spread = float(((x - centres[labels]) ** 2).sum())
        if spread < least * (1 - 1e-12):
            best, least = (labels, centres), spread
    assert best is not None
    labels, centres = best
    order = np.argsort(-np.bincount(labels, minlength=k), kind="stable")
    return Groups(np.argsort(order)[labels], centres[order])


def _start(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Cells far from each other, as k-means++ draws them."""
    chosen = [int(rng.integers(len(x)))]
    distance = ((x - x[chosen[0]]) ** 2).sum(axis=1)
    for _ in range(1, k):
        total = distance.sum()
        p = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(x), p=p)))
        distance = np.minimum(distance, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
    return x[chosen]


def contingency(a: Ints, b: Ints) -> Floats:
    """How many cells are in each group of ``a`` and of ``b``."""
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1)
    return table


def adjusted_rand_index(a: Ints, b: Ints) -> float:
    """Agreement of two partitions, 1 for the same, 0 by chance."""
    table = contingency(a, b)
    pairs = (table * (table - 1)).sum() / 2
    rows, columns = ((s * (s - 1)).sum() / 2 for s in (table.sum(axis=1), table.sum(axis=0)))
    expected = rows * columns / max(len(a) * (len(a) - 1) / 2, 1)
    most = (rows + columns) / 2
    return 1.0 if most == expected else float((pairs - expected) / (most - expected))


def jaccard_of_nearest(a: Ints, b: Ints, n_groups: int) -> Floats:
    """For each group of ``a`` the Jaccard index with the group of ``b`` most like it; 0 for groups of nobody."""
    table = contingency(a, b)
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table
    found = (table / np.maximum(union, 1)).max(axis=1)
    return np.concatenate([found, np.zeros(n_groups - len(found))])


def separation(x: Floats, groups: Groups) -> Floats:
    """Depth of the valley between each group and the least separate other group: 0 for none, 1 for an empty valley.

    Cells of two groups are projected on the line through their centres. The number of cells halfway is compared with
    that at the centre with fewer cells; if these are too few, the groups do not count as separate.
    """
    k = len(groups.centres)
    out = np.ones((k, k))
    for i in range(k):
        for j in range(i):
            cells = x[np.isin(groups.labels, (i, j))]
            line = groups.centres[j] - groups.centres[i]
            length = float(line @ line)
            place = (cells - groups.centres[i]) @ line / length if length > 0 else np.full(len(cells), 0.5)
            middle, *ends = (int((np.abs(place - at) <= _BAND).sum()) for at in (0.5, 0.0, 1.0))
            known = min(ends) >= _LEAST_IN_BAND
            # one more in each, so that few cells are no evidence of a valley
            out[i, j] = out[j, i] = max(0.0, 1 - (middle + 1) / (min(ends) + 1)) if known else 0.0
    return out.min(axis=1) if k > 1 else np.ones(1)


def try_groups(
    values: Floats, target: Ints, ks: Sequence[int], n_components: int, n_draws: int, rng: np.random.Generator
) -> list[Trial]:
    """Group cells into each number of ``ks`` groups, and measure the stability and separation of the groups.

    Parameters
    ----------
    values
        Cells x columns, standardised.
    target
        Target that each column belongs to, numbered from zero; the columns of one are drawn together.
    ks
        Numbers of groups.
    n_components
        Principal components at most.
    n_draws
        Draws of targets and cells, with replacement. A single target is there in every draw.
    """
    n, n_targets = len(values), int(target.max()) + 1
    x = principal_components(values, np.ones(values.shape[1]), n_components)
    found = [k_means(x, k, rng) for k in ks]
    rand, jaccard = np.zeros((len(ks), n_draws)), [np.zeros((n_draws, k)) for k in ks]
    for draw in range(n_draws):
        weights = np.bincount(rng.integers(0, n_targets, n_targets), minlength=n_targets)[target]
        drawn = principal_components(values[:, weights > 0], weights[weights > 0].astype(float), n_components)
        cells = rng.integers(0, n, n)
        for i, k in enumerate(ks):
            labels = assign(drawn, k_means(drawn[cells], k, rng).centres)
            rand[i, draw] = adjusted_rand_index(found[i].labels, labels)
            jaccard[i][draw] = jaccard_of_nearest(found[i].labels, labels, k)
    return [
        Trial(groups, jaccard[i].mean(axis=0), separation(x, groups), float(rand[i].mean()))
        for i, groups in enumerate(found)
    ]
