"""Package-wide settings."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from spacetravlr._resources import available_cores
from spacetravlr._validators import assert_one_of

DATA_VARIABLE = "SPACETRAVLR_DATA"


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "spacetravlr"


Verbosity = Literal["error", "warning", "info", "debug"]
_package = logging.getLogger("spacetravlr")


class _ToStderr(logging.Handler):
    """Show messages, unless the application has set up logging and shows them itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f"{self.format(record)}\n")


_package.addHandler(_ToStderr())
if _package.level == logging.NOTSET:
    _package.setLevel(logging.INFO)


@dataclass
class Settings:
    """Settings for the whole session; set them as attributes of ``st.settings``."""

    show_progress_bar: bool = True
    """Whether long calls draw a progress bar when they are not told."""
    n_jobs: int = field(default_factory=available_cores)
    """Threads used when a call is not told: the cores that this process may use, by default.

    A job of a cluster, a container or ``taskset`` may allow fewer cores than the machine has. ``-1`` is all of them, as
    in scanpy."""
    processes: bool | None = None
    """Whether targets are fitted and tested in processes, one per core, and not in threads.

    Threads share one interpreter, so more than two or three of them hardly make a fit faster; processes take seconds to
    start and some 400 MB of memory each. By default, processes are used from three cores and about a minute of work on.
    Results are the same."""
    cache_dir: Path = field(default_factory=_default_cache)
    """Where downloads are kept."""

    @property
    def verbosity(self) -> Verbosity:
        """Verbosity of log messages (on stderr, through the logger ``"spacetravlr"``): ``"info"`` by default.

        One of ``"error"``, ``"warning"``, ``"info"`` and ``"debug"``; each includes the levels before it.
        """
        level = _package.getEffectiveLevel()
        names: tuple[Verbosity, ...] = get_args(Verbosity)
        return next((name for name in names if logging.getLevelName(name.upper()) <= level), "debug")

    @verbosity.setter
    def verbosity(self, value: Verbosity) -> None:
        assert_one_of(value, get_args(Verbosity), name="verbosity")
        _package.setLevel(value.upper())

    @property
    def data_dir(self) -> Path | None:
        """Local folder that is searched before downloading (environment variable ``SPACETRAVLR_DATA``)."""
        value = os.environ.get(DATA_VARIABLE)
        return Path(value) if value else None


settings = Settings()
