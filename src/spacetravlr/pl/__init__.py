"""Pictures of what ``pp`` and ``tl`` wrote. Every function draws on ``ax``, returns the axes and never shows them."""

from spacetravlr.pl._betas import betas
from spacetravlr.pl._drivers import drivers
from spacetravlr.pl._effects import perturbation_effects
from spacetravlr.pl._microniches import microniches
from spacetravlr.pl._modulators import modulators
from spacetravlr.pl._niche import niche
from spacetravlr.pl._perturbation import perturbation
from spacetravlr.pl._received_ligands import received_ligands
from spacetravlr.pl._scores import scores, training
from spacetravlr.pl._screen import screen
from spacetravlr.pl._senders import senders
from spacetravlr.pl._signalling import signalling
from spacetravlr.pl._signals import signals
from spacetravlr.pl._spatial_weights import spatial_weights
from spacetravlr.pl._vectors import perturbation_vectors

__all__ = [
    "betas",
    "drivers",
    "microniches",
    "modulators",
    "niche",
    "perturbation",
    "perturbation_effects",
    "perturbation_vectors",
    "received_ligands",
    "scores",
    "screen",
    "senders",
    "signalling",
    "signals",
    "spatial_weights",
    "training",
]
