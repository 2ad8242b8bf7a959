"""Preprocessing: imputation, denoising, neighbourhoods, received ligands, niches and modulators."""

from spacetravlr.pp._denoise import denoise
from spacetravlr.pp._impute import impute
from spacetravlr.pp._modulators import modulators
from spacetravlr.pp._niche import niche
from spacetravlr.pp._received_ligands import received_ligands
from spacetravlr.pp._spatial_weights import spatial_weights
from spacetravlr.pp._split_counts import split_counts

__all__ = ["denoise", "impute", "modulators", "niche", "received_ligands", "spatial_weights", "split_counts"]
