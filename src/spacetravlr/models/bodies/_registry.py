"""The kinds of coefficients there are, in the order in which each must beat the ones before it."""

from __future__ import annotations

from spacetravlr.models.bodies._base import Body
from spacetravlr.models.bodies._network import NetworkBody
from spacetravlr.models.bodies._pooled import PooledBody
from spacetravlr.models.bodies._seed import SeedBody
from spacetravlr.models.bodies._surface import SurfaceBody
from spacetravlr.models.bodies._zero import ZeroBody

BODIES: tuple[type[Body], ...] = (
    ZeroBody,
    PooledBody,
    SeedBody,
    SurfaceBody,
    NetworkBody,
)

#: Names in tables; the bodies that cell types keep are positions in it.
BODY_NAMES = tuple(body.name for body in BODIES)


def bodies_of(choice: str, noise: str = "none") -> tuple[type[Body], ...]:
    """Bodies that are fitted with ``body=choice``; with noise, those that take it into account."""
    return tuple(b for b in BODIES if choice in (b.chosen_by if noise == "none" else b.chosen_with_noise))


def choices(noise: str = "none") -> tuple[str, ...]:
    """Values that ``body=`` may have."""
    named = (choice for b in BODIES for choice in (b.chosen_by if noise == "none" else b.chosen_with_noise))
    return tuple(dict.fromkeys(named))


def reads_functions(choice: str, noise: str = "none") -> bool:
    """Whether ``body=choice`` needs the functions of niche and position."""
    return any(body.reads_functions for body in bodies_of(choice, noise))
