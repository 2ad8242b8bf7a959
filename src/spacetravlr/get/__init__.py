"""Results as tables: coefficients, derivatives, modulators, scores and effects of perturbations."""

from spacetravlr.get._betas import betas, derivatives
from spacetravlr.get._effects import perturbation_effect, ranked_effects, screen
from spacetravlr.get._modulators import modulators
from spacetravlr.get._scores import scores
from spacetravlr.get._senders import senders
from spacetravlr.get._signals import signals

__all__ = [
    "betas",
    "derivatives",
    "modulators",
    "perturbation_effect",
    "ranked_effects",
    "scores",
    "screen",
    "senders",
    "signals",
]
