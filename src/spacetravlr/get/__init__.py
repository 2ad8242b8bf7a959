"""Results as tables: coefficients, derivatives, modulators, scores and effects of perturbations."""

from spacetravlr.get._baselines import baselines
from spacetravlr.get._betas import betas, derivatives
from spacetravlr.get._betas_adata import betas_adata
from spacetravlr.get._drivers import drivers
from spacetravlr.get._effects import perturbation_effect, ranked_effects, screen
from spacetravlr.get._microniche_markers import microniche_markers
from spacetravlr.get._modulators import modulators
from spacetravlr.get._reliability import reliability
from spacetravlr.get._scores import scores
from spacetravlr.get._senders import senders
from spacetravlr.get._signals import signals
from spacetravlr.get._specificity import specificity

__all__ = [
    "baselines",
    "betas",
    "betas_adata",
    "derivatives",
    "drivers",
    "microniche_markers",
    "modulators",
    "perturbation_effect",
    "ranked_effects",
    "reliability",
    "scores",
    "screen",
    "senders",
    "signals",
    "specificity",
]
