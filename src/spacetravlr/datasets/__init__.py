"""Simulated tissues with known regulation, and real sections to try the package on."""

from spacetravlr.datasets._sections import (
    human_breast_st,
    human_nsclc_cosmx,
    mouse_cerebellum_slideseq,
    mouse_visual_cortex_starmap,
)
from spacetravlr.datasets._simulated import SimulatedPriors, simulated_priors, simulated_tissue

__all__ = [
    "SimulatedPriors",
    "human_breast_st",
    "human_nsclc_cosmx",
    "mouse_cerebellum_slideseq",
    "mouse_visual_cortex_starmap",
    "simulated_priors",
    "simulated_tissue",
]
