"""Pictures of what ``pp`` and ``tl`` wrote. Every function draws on ``ax``, returns the axes and never shows them."""

from spacetravlr.pl._betas import betas
from spacetravlr.pl._niche import niche
from spacetravlr.pl._received_ligands import received_ligands
from spacetravlr.pl._spatial_weights import spatial_weights

__all__ = ["betas", "niche", "received_ligands", "spatial_weights"]
