"""One name for each knockout, whether tables call it by its gene or by what was done to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from spacetravlr._validators import listed

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models.evaluation._profiles import Effects

_TO_ZERO = "=0"


def knocked_out(name: str, *, bare: bool = True) -> frozenset[str]:
    """Genes that a name says are knocked out; none where it says something else.

    ``FOXO1=0`` and ``FOXO1=0, PAX5=0`` are labels of :func:`spacetravlr.tl.perturb`. ``FOXO1`` and ``FOXO1+PAX5`` are
    knockouts too where ``bare`` gene names stand for them, which they do not in a screen of overexpression.
    """
    parts = name.split(", ")
    if all(part.endswith(_TO_ZERO) for part in parts):
        return frozenset(part.removesuffix(_TO_ZERO) for part in parts)
    return frozenset(name.split("+")) if bare and "=" not in name else frozenset()


def named_like(effects: Effects, reference: Effects, *, names: tuple[str, str]) -> Effects:
    """The same changes, with the names of ``reference`` for knockouts that it calls otherwise.

    Parameters
    ----------
    effects, reference
        Changes of perturbations.
    names
        What messages call the two.

    Raises
    ------
    ValueError
        If one of the two names a knockout of the other twice.
    """
    own, theirs = (_by_genes(each.names, bare=each.knockouts) for each in (effects, reference))
    new: dict[str, str] = {}
    for genes, found in own.items():
        expected = theirs.get(genes, [])
        if not expected or set(found) == set(expected):
            continue
        if len(found) > 1 or len(expected) > 1:
            several, where = (found, names[0]) if len(found) > 1 else (expected, names[1])
            msg = (
                f"Expected `{where}` to hold each knockout once, found {listed(several)} for the same one; leave out "
                "all but one of them."
            )
            raise ValueError(msg)
        new[found[0]] = expected[0]
    if not new:
        return effects
    old, cells = {b: a for a, b in new.items()}, effects.cells

    def renamed(label: str, wanted: Ints) -> tuple[Floats, Floats]:
        assert cells is not None
        return cells(old.get(label, label), wanted)

    return replace(
        effects,
        names=pd.Index([new.get(str(name), str(name)) for name in effects.names]),
        cells=None if cells is None else renamed,
    )


def _by_genes(names: Iterable[str], *, bare: bool) -> dict[frozenset[str], list[str]]:
    """Names of each knockout."""
    out: dict[frozenset[str], list[str]] = {}
    for name in names:
        if genes := knocked_out(str(name), bare=bare):
            out.setdefault(genes, []).append(str(name))
    return out
