"""Simulated tissues with known regulation, and real sections to try the package on."""

from spacetravlr.datasets._simulated import SimulatedPriors, simulated_priors, simulated_tissue

__all__ = ["SimulatedPriors", "simulated_priors", "simulated_tissue"]
