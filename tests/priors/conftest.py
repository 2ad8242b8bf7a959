"""Small prior tables that a person can check by eye."""

from __future__ import annotations

import pandas as pd
import pytest


@pytest.fixture
def edges() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tf": ["FOXO1", "FOXO1", "PAX5", "GATA3"],
            "target": ["PAX5", "CD19", "CD19", "IL4"],
            "confidence": ["A", "B", "E", "A"],
            "mor": [1, -1, 1, 1],
        }
    )


@pytest.fixture
def potential() -> pd.DataFrame:
    """Targets x ligands as NicheNet publishes it; TGFB1 knows the set {A, B}, IL4 knows nothing."""
    return pd.DataFrame(
        {"TGFB1": [0.9, 0.8, 0.2, 0.1], "IL4": [0.5, 0.5, 0.5, 0.5], "WNT5A": [0.1, 0.6, 0.7, 0.2]},
        index=["A", "B", "C", "D"],
    )
