from __future__ import annotations

import warnings

import numpy as np

from spacetravlr._core.surfaces.model import SurfaceFit
from spacetravlr.models.bodies._deviations import Deviations


def test_draws_of_any_size_stay_finite():
    # of a term that the data say next to nothing about
    fit = SurfaceFit(
        blocks=[(0, 0)], weights=[np.ones(1)], amplitudes=np.ones((2, 2)), scale=0, evidence=np.zeros(1), noise=1.0,
        log_evidence=0.0, factor=np.eye(1),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Deviations.collect([(fit, np.array([[1e9, -1e9, 0.5]]))], [True], 2)
    np.testing.assert_allclose(found.draws, [[65504, -65504, 0.5]])
