"""Spatial folds: compact, of equal size, on every slide, and tied to the tissue rather than to its axes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from spacetravlr._core.space.spatial_cv import spatial_blocks, spatial_folds


def _tissue(n=640, n_dims=2, seed=0):
    # skewed along its long axis, so that the direction of every cut is determined
    return np.random.default_rng(seed).beta(1.0, 2.0, (n, n_dims)) * np.array([1000.0, 600.0, 300.0])[:n_dims]


def _same_partition(a, b):
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("n_blocks", [1, 2, 8, 32])
def test_blocks_have_equal_sizes(n_blocks, n_dims):
    counts = np.bincount(spatial_blocks(_tissue(n_dims=n_dims), n_blocks), minlength=n_blocks)
    assert len(counts) == n_blocks
    assert counts.max() - counts.min() <= 1


def test_blocks_are_contiguous():
    """Most neighbours share a block: far more than when blocks are dealt out to cells at random."""
    coordinates = _tissue()
    block = spatial_blocks(coordinates, 16)
    neighbours = cKDTree(coordinates).query(coordinates, k=6)[1][:, 1:]
    assert (block[neighbours] == block[:, None]).mean() > 0.7
    for b in range(16):
        mine = coordinates[block == b]
        assert np.ptp(mine, axis=0).max() < 0.7 * np.ptp(coordinates, axis=0).max()


def test_a_line_is_cut_in_order():
    line = np.column_stack([np.arange(16.0) ** 1.5, np.zeros(16)])
    block = spatial_blocks(line, 4)
    assert (np.diff(block) != 0).sum() == 3
    np.testing.assert_array_equal(np.bincount(block), [4, 4, 4, 4])


@pytest.mark.parametrize("angle", [0.4, 1.3, np.pi])
def test_blocks_follow_the_tissue_when_it_is_moved_and_turned(angle):
    coordinates = _tissue()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = 3.0 * coordinates @ turn.T + [1e4, -500.0]
    np.testing.assert_array_equal(spatial_blocks(moved, 16), spatial_blocks(coordinates, 16))


def test_folds_follow_the_tissue_too():
    coordinates = _tissue()
    folds = [spatial_folds(c, 4, rng=np.random.default_rng(0))[0] for c in (coordinates, coordinates[:, ::-1] + 7.0)]
    np.testing.assert_array_equal(*folds)


def test_permuting_cells_permutes_blocks():
    coordinates = _tissue()
    order = np.random.default_rng(1).permutation(len(coordinates))
    np.testing.assert_array_equal(spatial_blocks(coordinates[order], 16), spatial_blocks(coordinates, 16)[order])


@pytest.mark.parametrize("n_slides", [1, 2, 5])
def test_every_slide_is_in_every_fold(n_slides):
    coordinates = _tissue()
    slides = np.arange(len(coordinates)) % n_slides
    fold = spatial_folds(coordinates, 4, slides=slides, rng=np.random.default_rng(3))[0]
    counts = np.zeros((n_slides, 4), dtype=int)
    np.add.at(counts, (slides, fold), 1)
    assert (counts > 0).all()
    total = counts.sum(axis=0)
    assert total.min() > 0.7 * total.max()


def test_folds_are_of_equal_size_over_slides():
    """Where a slide's blocks do not go up evenly in the folds, other folds get more of them on the next slide."""
    coordinates = _tissue(800)
    slides = np.arange(800) % 5
    fold = spatial_folds(coordinates, 5, slides=slides, rng=np.random.default_rng(0))[0]
    per_slide = np.array([np.bincount(fold[slides == s], minlength=5) for s in range(5)])
    assert np.all(np.sort(per_slide, axis=1) == [20, 20, 40, 40, 40])
    np.testing.assert_array_equal(np.bincount(fold), [160] * 5)


def test_slides_are_cut_on_their_own():
    """What lies on another slide has no say in where a slide is cut."""
    coordinates = _tissue(320)
    both = np.vstack([coordinates, _tissue(320, seed=4) * 5])
    slides = np.repeat([0, 1], 320)
    fold = spatial_folds(both, 4, slides=slides, rng=np.random.default_rng(0), blocks_per_fold=8)[0]
    alone = spatial_blocks(coordinates, 16)
    assert all(len(set(fold[:320][alone == b])) == 1 for b in range(16))


def test_the_draw_decides_which_blocks_form_a_fold():
    coordinates = _tissue()
    first, again, other = (spatial_folds(coordinates, 4, rng=np.random.default_rng(s))[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not _same_partition(first, other)


def test_fewer_cells_than_blocks():
    fold = spatial_folds(_tissue(10), 4, rng=np.random.default_rng(0))[0]
    assert len(fold) == 10
    assert set(fold) <= set(range(4))
