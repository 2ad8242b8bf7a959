"""A stage of the speed table: what is run, at which sizes, against what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Sizes = dict[str, int]


class Work(NamedTuple):
    """The least a stage has to move and to compute, by a small model; what limits it on a perfect machine."""

    bytes: float = 0.0
    """Bytes that have to pass between memory and cores once."""
    flops: float = 0.0
    """Additions and multiplications."""
    dtype: str = "float32"
    """Precision of most of them."""


class Case(NamedTuple):
    """A stage or its baseline with its inputs in memory, ready to be run any number of times."""

    run: Callable[[], Any]
    units: float
    """Amount of work (cells, targets, ...) in the unit that stage and baseline share."""
    work: Work = Work()


@dataclass(frozen=True)
class Options:
    """What a user of the script may choose."""

    device: str = "auto"
    repeats: int = 5
    quick: bool = False
    whole_targets: int | None = None


@dataclass(frozen=True)
class Reach:
    """What a stage has to reach; what is None is not asked for."""

    seconds: float | None = None
    """In the unit that is shown."""
    gb: float | None = None
    """Peak memory of the process."""
    ratio: float | None = None
    """Cost of the baseline over cost of the stage."""

    def __str__(self) -> str:
        parts = [
            None if self.seconds is None else f"under {seconds_text(self.seconds)}",
            None if self.gb is None else f"under {self.gb:g} GB",
            None if self.ratio is None else _ratio_text(self.ratio),
        ]
        return ", ".join(part for part in parts if part)

    def missed(self, seconds: float, gb: float, ratio: float | None) -> list[str]:
        """Which parts are not reached, in words."""
        found = []
        if self.seconds is not None and seconds >= self.seconds:
            found.append("time")
        if self.gb is not None and gb >= self.gb:
            found.append("memory")
        if self.ratio is not None and (ratio is None or ratio < self.ratio):
            found.append("ratio")
        return found


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: str
    title: str
    size: str
    """The size in words."""
    case: Callable[[Options, Sizes], Case]
    at: Sizes
    """Where the reach is stated."""
    growth: tuple[Sizes, ...]
    """Three sizes that differ in cells alone."""
    reach: Reach
    baseline_name: str
    baseline: Callable[[Options, Sizes], Case] | None
    baseline_at: Sizes
    quick: Sizes
    """Tiny sizes, for ``--quick`` and to compile; other numbers of cells shrink in proportion."""
    per: str = ""
    """Seconds are shown per this ("target", "perturbation"), which is then the unit of the cases; else in total."""
    published_seconds: float | None = None
    """Baseline that is an estimate of others, for ``at``."""
    repeats: int | None = None
    """Most repeats, for stages that take minutes."""
    note: str = ""
    """What bounds the stage, where its reach is not met."""


def _ratio_text(ratio: float) -> str:
    return f"{ratio:g} x faster" if ratio >= 1 else f"within {1 / ratio:g} x"


def seconds_text(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size * (1 if unit == "h" else 2):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"
