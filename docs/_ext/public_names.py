"""Show our classes in signatures under the name that users import, not the private module they live in."""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx

import spacetravlr as st

SUBPACKAGES = ("datasets", "get", "io", "nn", "pl", "pp", "priors", "tl")


def _public() -> dict[type, str]:
    found: dict[type, str] = {}
    for subpackage in SUBPACKAGES:
        module = getattr(st, subpackage)
        found |= {getattr(module, name): f"spacetravlr.{subpackage}.{name}" for name in _classes(module)}
    return found | {getattr(st, name): f"spacetravlr.{name}" for name in _classes(st)}


def _classes(module: Any) -> list[str]:
    return [name for name in module.__all__ if inspect.isclass(getattr(module, name))]


PUBLIC = _public()


def format_annotation(annotation: Any, config: Any) -> str | None:
    """Role for one of our classes; ``None`` leaves everything else to the extension."""
    if inspect.isclass(annotation) and annotation in PUBLIC:
        return f":py:class:`~{PUBLIC[annotation]}`"
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.typehints_formatter = format_annotation
    return {"parallel_read_safe": True}
