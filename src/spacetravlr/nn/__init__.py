"""Networks that adapt the seed coefficients to the niche of each cell."""

from __future__ import annotations

from spacetravlr.nn._block_fit import BlockFit
from spacetravlr.nn._bodies import CellularNicheNetwork, CellularViT
from spacetravlr.nn._config import BlockData, NetworkConfig, NicheData
from spacetravlr.nn._fit import fit_block

__all__ = [
    "BlockData",
    "BlockFit",
    "CellularNicheNetwork",
    "CellularViT",
    "NetworkConfig",
    "NicheData",
    "fit_block",
]
