"""Reading and writing: annotated data, and coefficients of the published programs."""

from spacetravlr.io._betadata import read_betadata
from spacetravlr.io._files import read, write

__all__ = ["read", "read_betadata", "write"]
