"""A small tissue with known smooth coefficient fields, as tensors."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from spacetravlr.nn import BlockData


def _tissue(n=700, n_targets=4, n_terms=6, n_types=3, seed=0, n_dims=2):
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 1000, (n, n_dims)).astype(np.float32)
    unit = position / 1000
    cell_type = rng.integers(0, n_types, n)
    images = rng.poisson(0.5, (n, n_types, 12, 12)).astype(np.float32)
    design = rng.normal(size=(n, n_terms + 2)).astype(np.float32)
    term_index = np.stack([rng.permutation(n_terms + 2)[:n_terms] for _ in range(n_targets)])
    term_index[-1, -1] = -1  # one target has a term less
    wave = np.stack([np.cos(np.pi * unit[:, 0]), np.sin(np.pi * unit[:, 1]), np.cos(np.pi * unit.sum(1))], axis=1)
    fields = np.zeros((n, n_targets, n_terms + 1))
    fields[:, :, 0] = 0.3 * cell_type[:, None]
    for t in range(n_targets):
        mixing = rng.normal(size=(3, n_terms))
        fields[:, t, 1:] = 0.5 * rng.normal(size=n_terms) + wave @ mixing * (np.arange(n_terms) < 3)
    fields[:, -1, -1] = 0
    values = np.where(term_index >= 0, design[:, term_index], 0.0)
    signal = fields[:, :, 0] + (fields[:, :, 1:] * values).sum(2)
    y = signal + rng.normal(size=signal.shape) * signal.std(0) * 0.4
    # Vertical stripes of 100 um: two of ten decide when to stop, two are never seen.
    stripe = (unit[:, 0] * 10).astype(int)
    validation, held_out = np.isin(stripe, (2, 7)), np.isin(stripe, (4, 9))
    train = ~(validation | held_out)
    anchors = np.zeros((n_targets, n_types, n_terms + 1), dtype=np.float32)
    for c in range(n_types):
        cells = train & (cell_type == c)
        for t in range(n_targets):
            x = np.column_stack([np.ones(cells.sum()), values[cells, t]])
            anchors[t, c] = np.linalg.lstsq(x, y[cells, t], rcond=None)[0]
    anchors[:, :, 2] = 0  # removed by the seed, although it matters
    anchors[-1, :, -1] = 0
    data = BlockData(
        images=images,
        composition=images.sum((2, 3)),
        position=position,
        cell_type=cell_type,
        design=design,
        term_index=term_index,
        y=y.astype(np.float32),
        anchors=anchors,
        train=train,
        validation=validation,
        group=np.where(term_index >= 0, np.arange(n_terms) % 2, -1),
        seeds=np.arange(11, 11 + n_targets, dtype=np.uint64),
    )
    return SimpleNamespace(data=data, fields=fields, values=values, held_out=held_out)


@pytest.fixture(scope="session")
def tissue():
    """About 700 cells of 3 types, 4 targets with 6 terms; three terms vary smoothly with position."""
    return _tissue()


@pytest.fixture(scope="session")
def tissue_3d():
    """The same with three coordinates."""
    return _tissue(n=300, n_targets=2, n_dims=3)


@pytest.fixture(scope="session")
def take():
    """Pick targets of a block, in the order given."""

    def pick(data, targets):
        by_target = {name: getattr(data, name)[targets] for name in ("term_index", "anchors", "group", "seeds")}
        return replace(data, y=data.y[:, targets], **by_target)

    return pick
