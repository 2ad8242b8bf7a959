"""Checks with one grammar: ``Expected `x` to be ..., found `v`.`` plus what to call next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

#: Packages whose arrays lie on a GPU.
_ON_GPU = {"cupy", "cupyx"}


def listed(names: Collection[Any], limit: int = 10) -> str:
    """Names for a message, those beyond ``limit`` as a number."""
    shown = ", ".join(repr(str(name)) for name in list(names)[:limit])
    return (shown or "none") + (f" and {len(names) - limit} more" if len(names) > limit else "")


def assert_one_of(value: Any, options: Sequence[Any], *, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``options``."""
    if value not in options:
        listed = ", ".join(repr(option) for option in options)
        msg = f"Expected `{name}` to be one of {listed}, found `{value!r}`."
        raise ValueError(msg)


def assert_positive(value: float, *, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number above zero."""
    if not np.isfinite(value) or value <= 0:
        msg = f"Expected `{name}` to be positive and finite, found `{value}`."
        raise ValueError(msg)


def assert_non_negative(value: float, *, name: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number, zero or above."""
    if not np.isfinite(value) or value < 0:
        msg = f"Expected `{name}` to be finite and at least zero, found `{value}`."
        raise ValueError(msg)


def assert_in_range(value: float, low: float, high: float, *, name: str) -> None:
    """Raise ``ValueError`` unless ``low <= value <= high``."""
    if not low <= value <= high:
        msg = f"Expected `{name}` to be between {low} and {high}, found `{value}`."
        raise ValueError(msg)


def assert_in_main_memory(values: Any, where: str) -> None:
    """Raise ``TypeError`` for what lies on a GPU: arrays and sparse matrices of CuPy, and dask arrays of these.

    They are told by the module of their type, so that CuPy is not imported.
    """
    for part in (values, getattr(values, "_meta", None)):
        kind = f"{type(part).__module__}.{type(part).__qualname__}"
        if kind.split(".")[0] in _ON_GPU:
            msg = (
                f"Expected {where} in main memory (numpy, scipy or dask), found `{kind}` on a GPU; "
                "`rapids_singlecell.get.anndata_to_CPU(adata, convert_all=True)` moves `X` and layers back, "
                "`.get()` any other array."
            )
            raise TypeError(msg)


def assert_key(adata: AnnData, attr: str, key: str, *, name: str, hint: str = "") -> None:
    """Raise ``KeyError`` unless ``key`` is in ``adata.<attr>``, naming the argument and the call to make first."""
    container = getattr(adata, attr)
    if key in container:
        return
    found = ", ".join(repr(str(k)) for k in [k for k in container if k is not None][:10]) or "nothing"
    msg = f"Key {key!r} (`{name}`) not found in adata.{attr}, which holds {found}."
    if hint:
        msg += f" {hint}"
    raise KeyError(msg)


def assert_unique_names(adata: AnnData) -> None:
    """Raise ``ValueError`` when cell or gene names repeat."""
    for axis, names in (("obs", adata.obs_names), ("var", adata.var_names)):
        if not names.is_unique:
            example = names[names.duplicated()][0]
            msg = (
                f"Expected adata.{axis}_names to be unique, found {example!r} more than once; "
                f"call `adata.{axis}_names_make_unique()` first."
            )
            raise ValueError(msg)


def assert_genes(genes: Iterable[str], known: Iterable[str], *, name: str, where: str = "adata.var_names") -> None:
    """Raise ``KeyError`` for genes not in ``known``, with the closest names."""
    known_list = [str(k) for k in known]
    known_set = set(known_list)
    missing = [str(g) for g in genes if str(g) not in known_set]
    if not missing:
        return
    hints = []
    lower = {k.lower(): k for k in known_list}
    for gene in missing[:5]:
        close = [lower[c] for c in get_close_matches(str(gene).lower(), lower, n=3, cutoff=0.6)]
        hints.append(f"{gene!r}" + (f" (closest: {', '.join(close)})" if close else ""))
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    msg = f"Expected `{name}` to be in {where}, found unknown {', '.join(hints)}{more}."
    raise KeyError(msg)


def looks_like_counts(values: NDArray[Any]) -> bool:
    """Whether every value is a whole number and some exceed one: most likely raw counts."""
    return bool(values.size) and bool(values.max() > 1) and bool(np.all(values == np.round(values)))
