"""Results as tables: coefficients, derivatives, modulators, scores and effects of perturbations."""

from spacetravlr.get._betas import betas, derivatives
from spacetravlr.get._drivers import drivers
from spacetravlr.get._effects import perturbation_effect, ranked_effects, screen
from spacetravlr.get._modulators import modulators
from spacetravlr.get._scores import scores

__all__ = [
    "betas",
    "derivatives",
    "drivers",
    "modulators",
    "perturbation_effect",
    "ranked_effects",
    "scores",
    "screen",
]
