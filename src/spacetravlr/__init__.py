"""Spatial gene-regulation models: which transcription factors and neighbours control a gene, where, and knockouts."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spacetravlr._settings import settings

if TYPE_CHECKING:
    from spacetravlr import datasets, get, io, nn, pl, pp, priors, tl
    from spacetravlr._published import (
        compute_radius_weights,
        gaussian_kernel_2d,
        init_received_ligands,
        ligand_regulators_interactions,
        ligands_receptors_interactions,
        received_ligands,
    )
    from spacetravlr.models import BetaFrame, GeneFactory, SpatialCellularProgramsEstimator, compute_all_derivatives

__all__ = [
    "BetaFrame",
    "GeneFactory",
    "SpatialCellularProgramsEstimator",
    "compute_all_derivatives",
    "compute_radius_weights",
    "datasets",
    "gaussian_kernel_2d",
    "get",
    "init_received_ligands",
    "io",
    "ligand_regulators_interactions",
    "ligands_receptors_interactions",
    "nn",
    "pl",
    "pp",
    "priors",
    "received_ligands",
    "settings",
    "tl",
]

__version__ = version("spacetravlr-scverse")

# Loaded when first used, so that `import spacetravlr` costs nothing and never imports torch or pyplot.
_SUBPACKAGES = frozenset({"datasets", "get", "io", "nn", "pl", "pp", "priors", "tl"})
_HOME_OF = {
    "BetaFrame": "spacetravlr.models",
    "GeneFactory": "spacetravlr.models",
    "SpatialCellularProgramsEstimator": "spacetravlr.models",
    "compute_all_derivatives": "spacetravlr.models",
    "compute_radius_weights": "spacetravlr._published",
    "gaussian_kernel_2d": "spacetravlr._published",
    "init_received_ligands": "spacetravlr._published",
    "ligand_regulators_interactions": "spacetravlr._published",
    "ligands_receptors_interactions": "spacetravlr._published",
    "received_ligands": "spacetravlr._published",
}


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"spacetravlr.{name}")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
