"""Names of terms and of signals: as tables have them, as pictures show them, and as arguments may spell them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._modulators import ADJUSTMENT, COLUMNS, INTERCEPT, column_names

_OF_CONTACT = " (contact)"
#: What may be typed in place of what a label has.
_SPELLINGS = str.maketrans({"\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{HYPHEN}": "-", "\N{MULTIPLICATION SIGN}": "x"})


def named_terms(table: pd.DataFrame) -> pd.DataFrame:
    """Terms table as text, with the columns ``modulator`` and ``label`` after ``target``.

    ``modulator`` is ``FOXO1``, ``CXCL12$CXCR4``, ``beta0``; ``label`` what pictures show. Columns of what the fit found
    are kept; infinite evidence (of terms that were removed) becomes NaN.
    """
    text = table.reset_index(drop=True).astype(dict.fromkeys(COLUMNS, str))
    names = np.empty(len(text), dtype=object)
    for rows in text.groupby("target", sort=False).indices.values():
        names[rows] = [name.removeprefix("beta_") for name in column_names(text.iloc[rows])]
    text.insert(1, "modulator", names)
    text.insert(2, "label", term_labels(text))
    for name in ("importance", "evidence"):
        if name in text:
            values = text[name].to_numpy(float)
            text[name] = np.where(np.isfinite(values), values, np.nan)
    return text


def term_labels(rows: pd.DataFrame) -> list[str]:
    """Labels of terms in pictures and tables; they can be typed.

    ``FOXO1``, ``CXCL12-CXCR4``, ``DLL1-NOTCH1 (contact)``, ``CCL19 x EBF1`` (a ligand and a TF), ``CXCR4 (receptor)``
    and ``CXCL12 (ligand)`` (the adjustment terms), ``intercept``.
    """
    labels = []
    for row in rows.itertuples(index=False):
        contact = _OF_CONTACT if row.range == _keys.CONTACT else ""
        if row.kind == "tf":
            labels.append(str(row.tf))
        elif row.kind in ADJUSTMENT:
            labels.append(f"{row.receptor or row.ligand} ({row.kind})")
        elif row.kind == "lr":
            labels.append(f"{row.ligand}-{row.receptor}{contact}")
        elif row.kind == "tfl":
            labels.append(f"{row.ligand} x {row.tf}{contact}")
        else:
            labels.append(INTERCEPT)
    return labels


def find_terms(asked: Sequence[str], rows: pd.DataFrame, *, name: str, where: str) -> list[int]:
    """Positions of terms among the rows of one target, however they are spelled.

    A term may go by its label, by its name in tables (``CXCL12$CXCR4``, ``CCL19#EBF1``, ``beta0``), by that of the
    published columns (``beta_CXCL12$CXCR4``), and without the word that tells its range where that is clear.

    Raises
    ------
    KeyError
        For terms that are not there, with the closest names, and for spellings that mean several.
    """
    columns, labels = column_names(rows), term_labels(rows)
    names = [column.removeprefix("beta_") for column in columns]
    short = [label.removesuffix(_OF_CONTACT) for label in labels]
    plain = [name_.replace(_keys.CONTACT_SUFFIX, "") for name_ in names]
    spellings = _spellings(labels, names, columns, short, plain)
    return [_look_up(term, spellings, labels, name=name, where=where) for term in asked]


def signal_label(signal: str) -> str:
    """Label of a received signal in pictures: ``CXCL12``, ``DLL1 (contact)``."""
    ligand, signal_range = _keys.parse_signal(signal)
    return ligand + (_OF_CONTACT if signal_range == _keys.CONTACT else "")


def find_signals(asked: Sequence[str], known: Iterable[str], *, name: str, where: str) -> list[str]:
    """Names of received signals, however they are spelled.

    A signal may go by its name in tables (``DLL1|contact``) or by its label (``DLL1 (contact)``); one of a ligand that
    acts by contact only also by the bare name of the ligand.

    Raises
    ------
    KeyError
        For signals that are not there, with the closest names.
    """
    signals = list(dict.fromkeys(str(s) for s in known))
    labels = [signal_label(s) for s in signals]
    parts = [_keys.parse_signal(s) for s in signals]
    spellings = _spellings(labels, signals, [f"{gene} ({kind})" for gene, kind in parts], [gene for gene, _ in parts])
    return [signals[_look_up(signal, spellings, labels, name=name, where=where)] for signal in asked]


def _spellings(*forms: list[str]) -> dict[str, list[int]]:
    """From a spelling to the positions it may mean; a spelling of an earlier form is none of a later one."""
    known: dict[str, list[int]] = {}
    for form in forms:
        new: dict[str, list[int]] = {}
        for i, spelling in enumerate(form):
            new.setdefault(spelling, []).append(i)
        known = new | known
    return known


def _look_up(asked: Any, spellings: dict[str, list[int]], labels: list[str], *, name: str, where: str) -> int:
    text = str(asked)
    found = spellings.get(text) or spellings.get(text.translate(_SPELLINGS))
    if found is None:
        lower = {label.lower(): label for label in labels}
        close = [lower[c] for c in get_close_matches(text.lower(), lower, n=3, cutoff=0.6)]
        hint = f" (closest: {', '.join(close)})" if close else ""
        msg = f"Expected `{name}` to be in {where}, found unknown {text!r}{hint}."
        raise KeyError(msg)
    if len(found) > 1:
        msg = f"Expected `{name}` to mean one of {where}, found {text!r}, which may be {_listed(found, labels)}."
        raise KeyError(msg)
    return found[0]


def _listed(found: list[int], labels: list[str]) -> str:
    return " or ".join(repr(labels[i]) for i in found)
