"""Which body is kept, by errors on cells that it did not see."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from spacetravlr.models.bodies._base import BodyResult
from spacetravlr.models.bodies._registry import BODY_NAMES
from spacetravlr.models.fit._choose import choose_bodies

N, N_FOLDS = 400, 3


class _Block(SimpleNamespace):
    def __len__(self):
        return self.y.shape[1]


@pytest.fixture
def tissue():
    rng = np.random.default_rng(0)
    fold = np.arange(N) % (N_FOLDS + 1)
    inputs = SimpleNamespace(
        fold=fold, n_folds=N_FOLDS, report=fold == N_FOLDS, cell_type=np.repeat([0, 1], N // 2), n_types=2
    )
    return _Block(y=rng.normal(size=(N, 1))), inputs


def _bodies(y, **noise):
    """Predictions with errors of these standard deviations; the mean, zero, has 1."""
    rng = np.random.default_rng(1)
    found = {"zero": BodyResult(np.zeros(y.shape), np.zeros(y.shape))}
    for name, size in noise.items():
        found[name] = BodyResult(y + size * rng.normal(size=y.shape), np.zeros(y.shape))
    return found


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ({"seed": 2.0}, "zero"),
        ({"seed": 0.5}, "seed"),
        ({"seed": 0.5, "surface": 0.3}, "surface"),
        ({"seed": 0.3, "surface": 0.5}, "seed"),
        ({"seed": 0.5, "surface": 0.4, "network": 0.1}, "network"),
    ],
)
def test_the_body_with_the_least_error_is_kept(tissue, noise, expected):
    block, inputs = tissue
    kept = choose_bodies(block, inputs, _bodies(block.y, **noise), 0.0)
    assert kept.shape == (1, 2)
    assert (kept == BODY_NAMES.index(expected)).all()


def test_a_network_beside_a_surface_must_win_by_more_than_chance(tissue):
    block, inputs = tissue
    same = np.full(block.y.shape, 0.5)
    turn = (np.arange(N)[:, None] // (N_FOLDS + 1)) % 2  # every second cell of a fold
    network = np.sqrt(np.where(turn, 0.25 + 0.20, 0.25 - 0.21))  # squared errors a little smaller on average
    bodies = _bodies(block.y)
    for name, error in {"seed": same, "surface": same, "network": network}.items():
        bodies[name] = BodyResult(block.y + error, np.zeros(block.y.shape))
    assert (choose_bodies(block, inputs, bodies, 0.0) == BODY_NAMES.index("seed")).all()
    del bodies["surface"]
    assert (choose_bodies(block, inputs, bodies, 0.0) == BODY_NAMES.index("network")).all()


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize(("loss", "ties"), [(1e-4, True), (0.5, False)])
def test_terms_judged_by_evidence_go_before_a_seed_that_does_as_well(tissue, judged, loss, ties):
    block, inputs = tissue
    bodies = _bodies(block.y)
    turn = np.where((np.arange(N)[:, None] // (N_FOLDS + 1)) % 2, 0.05, -0.05)  # the two err in different cells
    for name, error, flag in (("seed", 0.5, None), ("surface", 0.5 * (1 + loss) + turn, np.array([judged]))):
        bodies[name] = BodyResult(block.y + error, np.zeros(block.y.shape), judged=flag)
    kept = choose_bodies(block, inputs, bodies, 0.0)
    assert (kept == BODY_NAMES.index("surface" if judged and ties else "seed")).all()


def test_cells_of_the_report_decide_nothing(tissue):
    block, inputs = tissue
    bodies = _bodies(block.y, seed=0.5, surface=0.3)
    before = choose_bodies(block, inputs, bodies, 0.0)
    bodies["surface"].prediction[inputs.report] = 100.0
    np.testing.assert_array_equal(choose_bodies(block, inputs, bodies, 0.0), before)
