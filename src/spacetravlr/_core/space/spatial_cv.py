"""Spatial folds: contiguous blocks of cells, so that a held-out cell's neighbours are held out with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints


def spatial_blocks(coordinates: Floats, n_blocks: int) -> Ints:
    """Cut a tissue into ``n_blocks`` (a power of two) compact blocks of equal size.

    Each cut halves a block across its longest direction (first principal axis), so that blocks follow the tissue when
    it is moved or turned.

    Parameters
    ----------
    coordinates
        Cells x dimensions.
    n_blocks
        A power of two.

    Returns
    -------
    Block of each cell, 0..n_blocks-1.
    """
    block = np.zeros(len(coordinates), dtype=np.int64)
    for level in range(int(np.log2(n_blocks))):
        halves = np.zeros_like(block)
        for b in range(2**level):
            rows = np.flatnonzero(block == b)
            if len(rows) < 2:
                continue
            centred = coordinates[rows] - coordinates[rows].mean(axis=0)
            position = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
            if (position**3).sum() < 0:
                position = -position
            halves[rows[np.argsort(position, kind="stable")[len(rows) // 2 :]]] = 1
        block = 2 * block + halves
    return block


def spatial_folds(
    coordinates: Floats, n_folds: int, *, slides: Ints | None = None, rng: np.random.Generator, blocks_per_fold: int = 6
) -> tuple[Ints, Ints]:
    """Deal spatial blocks out to folds of about equal size; every slide has blocks of its own in every fold.

    Returns
    -------
    Fold of each cell, 0..n_folds-1, and its block, numbered over all slides.
    """
    slides = np.zeros(len(coordinates), dtype=np.int64) if slides is None else slides
    fold = np.empty(len(coordinates), dtype=np.int64)
    blocks = np.empty(len(coordinates), dtype=np.int64)
    first = 0
    n_slides = int(slides.max(initial=0)) + 1
    wanted = max(n_folds, n_folds * blocks_per_fold // n_slides)
    for slide in range(n_slides):
        rows = np.flatnonzero(slides == slide)
        block = spatial_blocks(coordinates[rows], 1 << int(np.ceil(np.log2(wanted))))
        n_blocks = int(block.max(initial=0)) + 1
        deal = np.empty(n_blocks, dtype=np.int64)
        deal[rng.permutation(n_blocks)] = (np.arange(n_blocks) + slide) % n_folds
        fold[rows], blocks[rows] = deal[block], first + block
        first += n_blocks
    return fold, blocks
