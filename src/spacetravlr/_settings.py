"""Package-wide settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

DATA_VARIABLE = "SPACETRAVLR_DATA"


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spacetravlr"


@dataclass
class Settings:
    """Settings that hold for the whole session; set them as attributes of ``st.settings``."""

    show_progress_bar: bool = True
    """Whether long calls draw a progress bar when they are not told."""
    n_jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads used by compiled code when a call is not told."""
    cache_dir: Path = field(default_factory=_default_cache)
    """Where downloads are kept."""

    @property
    def data_dir(self) -> Path | None:
        """Local folder that downloads are looked for in first (environment variable ``SPACETRAVLR_DATA``)."""
        value = os.environ.get(DATA_VARIABLE)
        return Path(value) if value else None


settings = Settings()
