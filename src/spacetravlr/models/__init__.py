"""Models of single targets, and of the whole tissue under a perturbation."""

from spacetravlr._core.response.derivatives import compute_all_derivatives
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models._estimator import SpatialCellularProgramsEstimator
from spacetravlr.models.perturb._gene_factory import GeneFactory
from spacetravlr.models.perturb._spec import Perturbation

__all__ = ["BetaFrame", "GeneFactory", "Perturbation", "SpatialCellularProgramsEstimator", "compute_all_derivatives"]
