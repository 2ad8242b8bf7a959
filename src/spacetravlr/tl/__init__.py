"""Tools: fit the model, perturb the tissue, and see where cells would move."""

from spacetravlr.tl._drivers import drivers
from spacetravlr.tl._evaluate_perturbation import evaluate_perturbation
from spacetravlr.tl._fit_betas import fit_betas
from spacetravlr.tl._genome_screen import genome_screen
from spacetravlr.tl._microniches import microniches
from spacetravlr.tl._null_fits import null_fits
from spacetravlr.tl._perturb import perturb
from spacetravlr.tl._perturb_batch import perturb_batch
from spacetravlr.tl._perturbation_vectors import perturbation_vectors
from spacetravlr.tl._possible_targets import possible_targets
from spacetravlr.tl._replicate import replicate
from spacetravlr.tl._test_signals import test_signals
from spacetravlr.tl._transfer_betas import transfer_betas

__all__ = [
    "drivers",
    "evaluate_perturbation",
    "fit_betas",
    "genome_screen",
    "microniches",
    "null_fits",
    "perturb",
    "perturb_batch",
    "perturbation_vectors",
    "possible_targets",
    "replicate",
    "test_signals",
    "transfer_betas",
]
