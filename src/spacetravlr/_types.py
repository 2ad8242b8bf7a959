"""Type aliases shared by the package."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rng: TypeAlias = int | np.random.Generator | None
Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]
Bools: TypeAlias = NDArray[np.bool_]

SignalRange = Literal["secreted", "contact"]
Normalize = Literal["sum", "mean", "row"]
