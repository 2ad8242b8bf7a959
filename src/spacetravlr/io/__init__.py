"""Reading and writing: annotated data, stores of coefficients, and coefficients of the published programs."""

from spacetravlr.io._attach import attach_betas
from spacetravlr.io._betadata import read_betadata
from spacetravlr.io._files import read, write

__all__ = ["attach_betas", "read", "read_betadata", "write"]
