"""The kinds of coefficients there are, in the order in which each must beat the ones before it."""

from __future__ import annotations

from spacetravlr.models.bodies._base import Body
from spacetravlr.models.bodies._network import NetworkBody
from spacetravlr.models.bodies._seed import SeedBody
from spacetravlr.models.bodies._surface import SurfaceBody
from spacetravlr.models.bodies._zero import ZeroBody

BODIES: tuple[type[Body], ...] = (
    ZeroBody,
    SeedBody,
    SurfaceBody,
    NetworkBody,
)

#: Names in tables; the bodies that cell types keep are positions in it.
BODY_NAMES = tuple(body.name for body in BODIES)


def bodies_of(choice: str) -> tuple[type[Body], ...]:
    """Bodies that are fitted with ``body=choice``."""
    return tuple(body for body in BODIES if choice in body.chosen_by)


def choices() -> tuple[str, ...]:
    """Values that ``body=`` may have."""
    return tuple(dict.fromkeys(choice for body in BODIES for choice in body.chosen_by))


def reads_functions(choice: str) -> bool:
    """Whether ``body=choice`` needs the functions of niche and position."""
    return any(body.reads_functions for body in bodies_of(choice))
