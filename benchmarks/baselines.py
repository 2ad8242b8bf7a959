"""What the package is compared with: regression per cell type and geographically weighted regression.

Every baseline is a function ``method(train, at) -> coefficients`` (cells of ``at`` x targets x intercept and terms)
that never sees the targets of ``at``; what it has to choose (ridge penalty, bandwidth) it chooses on spatial blocks of
``train``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spacetravlr._core.space.spatial_cv import spatial_folds

_RIDGES = np.geomspace(1e-4, 10.0, 11)
_GWR_RIDGES = np.array([1e-4, 1e-2, 1e-1])
_BANDWIDTHS = np.array([0.04, 0.07, 0.12, 0.2, 0.35, 0.6])  # parts of the tissue's extent
_INNER_FOLDS = 3
_PROBES = 100  # held-out cells at which a bandwidth is tried, a fold
_BATCH_BYTES = 64e6


class Cells(NamedTuple):
    """A set of cells; several targets share the regressors."""

    x: np.ndarray
    """Regressors, (n, M)."""
    y: np.ndarray
    """Targets, (n, T)."""
    types: np.ndarray
    """Cell types, integers, (n,)."""
    coordinates: np.ndarray
    """Positions, (n, 2 or 3)."""

    def take(self, index: np.ndarray) -> Cells:
        """Return the cells at ``index``."""
        return Cells(*(values[index] for values in self))


Method = Callable[[Cells, Cells], np.ndarray]


def predict(coefficients: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Predicted targets, (n, T)."""
    return coefficients[..., 0] + np.einsum("ntm,nm->nt", coefficients[..., 1:], x)


def held_out_r2(method: Method, cells: Cells, report: np.ndarray) -> np.ndarray:
    """R2 of each target at the cells of ``report``, fitted on the others, against the mean of each type there."""
    train, at = cells.take(~report), cells.take(report)
    error = ((at.y - predict(method(train, at), at.x)) ** 2).sum(axis=0)
    total = sum(((y - y.mean(axis=0)) ** 2).sum(axis=0) for y in (at.y[at.types == c] for c in np.unique(at.types)))
    return 1 - error / total


def least_squares(train: Cells, at: Cells) -> np.ndarray:
    """Least squares in each cell type."""
    return _per_type(train, at, lambda x, y, _: _ridge_path(x, y, np.array([1e-10]))[0])


def ridge(train: Cells, at: Cells) -> np.ndarray:
    """Ridge regression in each cell type, the penalty of each target by held-out error over spatial blocks."""

    def fit(x: np.ndarray, y: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        errors = np.zeros((len(_RIDGES), y.shape[1]))
        if len(x) >= 4 * _INNER_FOLDS:
            folds, _ = spatial_folds(coordinates, _INNER_FOLDS, rng=np.random.default_rng(0))
            for fold in range(_INNER_FOLDS):
                out = folds == fold
                path = _ridge_path(x[~out], y[~out], _RIDGES)
                errors += (
                    (y[out] - path[:, :, 0][:, None] - np.einsum("nm,rtm->rnt", x[out], path[..., 1:])) ** 2
                ).sum(1)
        path = _ridge_path(x, y, _RIDGES)
        return path[errors.argmin(axis=0), np.arange(y.shape[1])]

    return _per_type(train, at, fit)


def gwr(train: Cells, at: Cells) -> np.ndarray:
    """Geographically weighted regression: a local ridge regression at every cell, Gaussian weights of distance.

    Cell types have their own intercepts and share slopes. Bandwidth and ridge penalty of each target are those of least
    error at held-out cells of spatial blocks.
    """
    extent = np.ptp(train.coordinates, axis=0).max()
    folds, _ = spatial_folds(train.coordinates, _INNER_FOLDS, rng=np.random.default_rng(0))
    errors = np.zeros((len(_BANDWIDTHS), len(_GWR_RIDGES), train.y.shape[1]))
    rng = np.random.default_rng(0)
    for fold in range(_INNER_FOLDS):
        held_out = np.flatnonzero(folds == fold)
        probes = train.take(rng.choice(held_out, min(_PROBES, len(held_out)), replace=False))
        inner = train.take(folds != fold)
        for i, bandwidth in enumerate(_BANDWIDTHS * extent):
            for r, coefficients in enumerate(_local(inner, probes, bandwidth, _GWR_RIDGES)):
                errors[i, r] += ((probes.y - predict(coefficients, probes.x)) ** 2).sum(axis=0)
    best = errors.reshape(-1, train.y.shape[1]).argmin(axis=0)
    coefficients = np.empty((len(at.x), train.y.shape[1], train.x.shape[1] + 1))
    for choice in np.unique(best):
        i, r = divmod(int(choice), len(_GWR_RIDGES))
        targets = np.flatnonzero(best == choice)
        part = train._replace(y=train.y[:, targets])
        coefficients[:, targets] = _local(part, at, _BANDWIDTHS[i] * extent, _GWR_RIDGES[[r]])[0]
    return coefficients


METHODS: dict[str, Method] = {"least squares": least_squares, "ridge": ridge, "GWR": gwr}


def _per_type(train: Cells, at: Cells, fit: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Fit each type on its own; types with fewer than two training cells get the mean of all cells."""
    coefficients = np.zeros((len(at.x), train.y.shape[1], train.x.shape[1] + 1))
    coefficients[..., 0] = train.y.mean(axis=0)
    for c in np.unique(at.types):
        mine = train.types == c
        if mine.sum() > 1:
            coefficients[at.types == c] = fit(train.x[mine], train.y[mine], train.coordinates[mine])
    return coefficients


def _ridge_path(x: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Ridge coefficients at each penalty (per cell, on standardised columns), (penalties, T, 1 + M)."""
    mean, sd = x.mean(axis=0, dtype=float), x.std(axis=0, dtype=float)
    scale = np.where(sd > 1e-6, 1 / np.maximum(sd, 1e-6), 0.0)
    z, centre = (x - mean) * scale, y.mean(axis=0, dtype=float)
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    along = u.T @ (y - centre)
    s = np.where(s > 1e-8 * s.max(initial=0), s, 0.0)
    shrunk = s / (s**2 + penalties[:, None] * len(x))
    slopes = np.einsum("mk,rk,kt->rtm", vt.T * scale[:, None], shrunk, along)
    return np.concatenate([(centre - slopes @ mean)[..., None], slopes], axis=-1)


def _local(train: Cells, at: Cells, bandwidth: float, penalties: np.ndarray) -> np.ndarray:
    """Local coefficients at the cells of ``at`` for each penalty, (penalties, n, T, 1 + M)."""
    types = np.unique(train.types)
    mean, sd = train.x.mean(axis=0, dtype=float), train.x.std(axis=0, dtype=float)
    scale = np.where(sd > 1e-6, 1 / np.maximum(sd, 1e-6), 0.0)
    x = np.hstack([np.ones((len(train.x), 1)), train.types[:, None] == types[1:], (train.x - mean) * scale])
    n_free, n_targets = len(types), train.y.shape[1]
    penalised = np.append(np.full(n_free, 1e-6), np.ones(x.shape[1] - n_free))
    out = np.empty((len(penalties), len(at.x), n_targets, train.x.shape[1] + 1))
    step = max(1, int(_BATCH_BYTES / (8 * x.size)))
    own = np.hstack([np.ones((len(at.x), 1)), at.types[:, None] == types[1:]])
    for start in range(0, len(at.x), step):
        rows = slice(start, start + step)
        distance2 = ((at.coordinates[rows, None] - train.coordinates[None]) ** 2).sum(axis=-1)
        weights = np.exp(-0.5 * (distance2 - distance2.min(axis=1, keepdims=True)) / bandwidth**2)
        weighted = (x[None] * weights[..., None]).transpose(0, 2, 1)
        gram, target = weighted @ x, weighted @ train.y
        for p, penalty in enumerate(penalties):
            ridge_part = (penalty * penalised)[None, :, None] * np.eye(x.shape[1]) * weights.sum(axis=1)[:, None, None]
            solved = np.linalg.solve(gram + ridge_part, target).transpose(0, 2, 1)
            slopes = solved[..., n_free:] * scale
            out[p, rows, :, 1:] = slopes
            out[p, rows, :, 0] = np.einsum("ntk,nk->nt", solved[..., :n_free], own[rows]) - slopes @ mean
    return out
