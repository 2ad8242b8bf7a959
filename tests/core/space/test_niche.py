from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from spacetravlr._core.space.niche import niche_composition, niche_images

RADIUS, M, TYPES = 120.0, 8, 4


@pytest.fixture(params=[2, 3])
def tissue(request):
    rng = np.random.default_rng(request.param)
    coords = rng.uniform(0, 700, (400, request.param))
    return coords, rng.integers(0, TYPES, 400), rng.integers(0, 2, 400)


def image_twin(coords, codes, cell, libraries=None):
    """numpy's histogram of the window around one cell."""
    keep = np.ones(len(coords), dtype=bool) if libraries is None else libraries == libraries[cell]
    edges = np.linspace(-RADIUS, RADIUS, M + 1)
    out = np.zeros((TYPES, M, M))
    for t in range(TYPES):
        dx, dy = (coords[keep & (codes == t), :2] - coords[cell, :2]).T
        out[t] = np.histogram2d(dy, dx, bins=[edges, edges])[0]
    return out


def test_composition_equals_the_slow_twin(tissue):
    coords, codes, libraries = tissue
    near = cdist(coords, coords) <= RADIUS
    one_hot = np.eye(TYPES)[codes]
    found = niche_composition(coords, codes, TYPES, RADIUS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, near @ one_hot)
    same = libraries[:, None] == libraries[None, :]
    np.testing.assert_array_equal(
        niche_composition(coords, codes, TYPES, RADIUS, libraries=libraries), (near & same) @ one_hot
    )


def test_composition_counts_the_cell_itself():
    np.testing.assert_array_equal(
        niche_composition(np.array([[0.0, 0], [99, 0]]), np.array([1, 0]), 2, 5.0), [[0, 1], [1, 0]]
    )


def test_images_equal_the_slow_twin(tissue):
    coords, codes, libraries = tissue
    cells = np.array([17, 3, 399, 3])
    found = niche_images(coords, codes, TYPES, RADIUS, M, cells=cells, libraries=libraries)
    assert found.shape == (4, TYPES, M, M)
    assert found.dtype == np.float32
    for image, cell in zip(found, cells, strict=True):
        np.testing.assert_array_equal(image, image_twin(coords, codes, cell, libraries))


def test_rows_follow_the_second_coordinate():
    """One neighbour up and to the right of the first cell."""
    coords = np.array([[0.0, 0.0], [3.0, 8.0]])
    image = niche_images(coords, np.array([0, 1]), 2, 10.0, 4, cells=np.array([0]))[0]
    assert image[1].sum() == 1
    assert image[1, 3, 2] == 1
    assert image[0, 2, 2] == 1  # the cell itself, at the centre


def test_upper_edge_belongs_to_the_last_bin():
    image = niche_images(np.array([[0.0, 0.0], [10.0, -10.0]]), np.array([0, 0]), 1, 10.0, 4, cells=np.array([0]))[0, 0]
    assert image[0, 3] == 1


def test_images_do_not_depend_on_units_order_or_place(tissue):
    coords, codes, _ = tissue
    images = niche_images(coords, codes, TYPES, RADIUS, M)
    # powers of two, so that rounding cannot move a cell across the edge of a bin
    np.testing.assert_array_equal(niche_images(coords / 8, codes, TYPES, RADIUS / 8, M), images)
    order = np.random.default_rng(0).permutation(len(coords))
    np.testing.assert_array_equal(niche_images(coords[order], codes[order], TYPES, RADIUS, M), images[order])
    lattice = np.round(coords * 4) / 4
    moved = niche_images(lattice + 1024.0, codes, TYPES, RADIUS, M)
    np.testing.assert_array_equal(moved, niche_images(lattice, codes, TYPES, RADIUS, M))


def test_images_of_some_cells_are_those_of_all(tissue):
    coords, codes, libraries = tissue
    full = niche_images(coords, codes, TYPES, RADIUS, M, libraries=libraries)
    cells = np.array([9, 5, 301])
    some = niche_images(coords, codes, TYPES, RADIUS, M, libraries=libraries, cells=cells)
    np.testing.assert_array_equal(some, full[cells])


def test_threads_do_not_matter(tissue):
    coords, codes, _ = tissue
    for function, args in ((niche_composition, (TYPES, RADIUS)), (niche_images, (TYPES, RADIUS, M))):
        np.testing.assert_array_equal(*(function(coords, codes, *args, n_jobs=n) for n in (1, 2)))
