"""Scores of a block of targets that need the noise of expression."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from spacetravlr._core.scores import LEAST_CEILING
from spacetravlr.models.fit._tables import _noise_columns


def test_a_target_without_a_ceiling_has_no_interval():
    rng, n_cells, shares = np.random.default_rng(0), 400, np.array([0.5, 0.97, 0.985, 1.001])
    truth = rng.normal(size=(n_cells, 1))
    y = truth + rng.normal(scale=0.5, size=(n_cells, len(shares)))
    cell_type = np.repeat([0, 1], n_cells // 2)
    total = np.stack([y[cell_type == c].var(axis=0) for c in (0, 1)])
    inputs = SimpleNamespace(
        calibration=SimpleNamespace(noise=shares * total[cell_type]),
        report=np.ones(n_cells, dtype=bool),
        n_types=2,
        cell_type=cell_type,
        targets=SimpleNamespace(gene=np.arange(len(shares))),
        cv_block=rng.integers(8, size=n_cells),
    )

    class Block:
        index = np.arange(len(shares))

        def __len__(self):
            return len(shares)

    Block.y = y
    model = SimpleNamespace(prediction=np.repeat(0.7 * truth, len(shares), axis=1), without_terms=None)
    found = _noise_columns(Block(), inputs, {"zero": model}, np.zeros((len(shares), 2), dtype=int))
    by_target = {name: values.reshape(-1, 2) for name, values in found.items()}
    np.testing.assert_allclose(by_target["ceiling"], np.clip(1 - shares, 0, 1)[:, None].repeat(2, axis=1), atol=1e-6)
    known = by_target["ceiling"] >= LEAST_CEILING
    assert known.any()
    assert not known.all()
    for name in ("explained", "explained_low", "explained_high"):
        np.testing.assert_array_equal(np.isfinite(by_target[name]), known, err_msg=name)
