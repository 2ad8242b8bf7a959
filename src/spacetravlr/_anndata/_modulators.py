"""The modulator table (strings, one row a target and modulator) as the index arrays of ``_core.design`` and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._core.design import Kind, Signals, Targets, Terms
from spacetravlr._validators import assert_genes, assert_key

if TYPE_CHECKING:
    from anndata import AnnData

#: Columns of a modulator table. ``kind`` is "tf", "lr" or "tfl" ("intercept" too in the terms of a fit); ``tf``,
#: ``ligand``, ``receptor`` hold gene names and ``range`` "secreted" or "contact"; "" where a column does not apply.
COLUMNS = ("target", "kind", "tf", "ligand", "receptor", "range")
KINDS = {"tf": Kind.TF, "lr": Kind.LR, "tfl": Kind.TFL}
INTERCEPT = "intercept"


class Design(NamedTuple):
    """A modulator table in index form; gene indices point into ``genes``, signal indices into ``signal_names``."""

    signals: Signals
    terms: Terms
    targets: Targets
    genes: pd.Index
    signal_names: list[str]


class ModulatorState(NamedTuple):
    """What ``pp.modulators`` wrote."""

    table: pd.DataFrame
    params: dict[str, Any]


def read_modulators(adata: AnnData, key: str = _keys.MODULATORS) -> ModulatorState:
    """Read ``adata.uns[key]``; ``KeyError`` when ``pp.modulators`` was not called."""
    assert_key(adata, "uns", key, name="modulators_key", hint="Call `st.pp.modulators(adata, grn)` first.")
    stored = adata.uns[key]
    return ModulatorState(stored["table"], dict(stored["params"]))


def build_design(table: pd.DataFrame, genes: pd.Index, targets: Sequence[str] | None = None) -> Design:
    """Turn a modulator (or terms) table into index arrays.

    Targets come in the order of ``targets`` (default: first appearance in the table), a target's terms in the order of
    the table. Rows of kind "intercept" are skipped.
    """
    columns = {c: table[c].astype(str).to_numpy() for c in COLUMNS}
    names = list(dict.fromkeys(columns["target"])) if targets is None else list(targets)
    rows = np.flatnonzero((columns["kind"] != INTERCEPT) & np.isin(columns["target"], names))
    columns = {c: v[rows] for c, v in columns.items()}
    kind = np.array([KINDS[k] for k in columns["kind"]], dtype=np.int8)
    local = np.where(kind == Kind.LR, columns["receptor"], columns["tf"])
    contact = np.char.add(columns["ligand"].astype(str), _keys.CONTACT_SUFFIX)
    signal = np.where(columns["range"] == _keys.CONTACT, contact, columns["ligand"])
    signal = np.where(kind == Kind.TF, "", signal).astype(str)

    assert_genes(pd.unique(pd.Series(local)), genes, name="modulators")
    assert_genes(names, genes, name="targets")
    signal_names = sorted(set(signal) - {""})
    ligands = [_keys.parse_signal(s)[0] for s in signal_names]
    assert_genes(ligands, genes, name="modulators")
    signals = Signals(
        genes.get_indexer(ligands).astype(np.int32),
        np.array([s.endswith(_keys.CONTACT_SUFFIX) for s in signal_names], dtype=bool),
    )
    frame = pd.DataFrame(
        {
            "kind": kind,
            "gene": genes.get_indexer(local).astype(np.int32),
            "signal": pd.Index([*signal_names, ""]).get_indexer(signal).astype(np.int32),
        }
    )
    frame.loc[frame["signal"] == len(signal_names), "signal"] = -1
    code, distinct = pd.factorize(pd.MultiIndex.from_frame(frame))
    distinct_frame = distinct.to_frame(index=False, name=list(frame.columns)) if len(frame) else frame
    terms = Terms(
        distinct_frame["kind"].to_numpy(np.int8),
        distinct_frame["gene"].to_numpy(np.int32),
        distinct_frame["signal"].to_numpy(np.int32),
    )
    position = pd.Index(names).get_indexer(columns["target"])
    order = np.argsort(position, kind="stable")
    counts = np.bincount(position, minlength=len(names))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Design(
        signals,
        terms,
        Targets(genes.get_indexer(names).astype(np.int32), indptr, code[order].astype(np.int32)),
        genes,
        signal_names,
    )


def terms_table(design: Design) -> pd.DataFrame:
    """The columns of a coefficient matrix as a table: per target its intercept, then its terms (see ``COLUMNS``)."""
    signals, terms, targets, genes, _ = design
    n = targets.n_columns
    target = np.repeat(np.arange(len(targets)), np.diff(targets.indptr) + 1)
    is_term = np.ones(n, dtype=bool)
    is_term[targets.indptr[:-1] + np.arange(len(targets))] = False
    term = np.full(n, -1)
    term[is_term] = targets.term
    kind = np.where(is_term, terms.kind[term] if len(terms) else -1, -1)
    signal = np.where(is_term, terms.signal[term] if len(terms) else -1, -1)
    names = np.append(genes.to_numpy(dtype=object), "")
    local = np.where(is_term, terms.gene[term] if len(terms) else -1, -1)
    ligand = np.where(signal >= 0, signals.ligand[signal] if len(signals) else -1, -1)
    contact = np.where(signal >= 0, signals.contact[signal] if len(signals) else False, False)
    labels = np.array(["tf", "lr", "tfl", INTERCEPT], dtype=object)
    return pd.DataFrame(
        {
            "target": pd.Categorical(names[targets.gene[target]]),
            "kind": pd.Categorical(labels[kind], categories=list(labels)),
            "tf": pd.Categorical(names[np.where(np.isin(kind, [Kind.TF, Kind.TFL]), local, -1)]),
            "ligand": pd.Categorical(names[ligand]),
            "receptor": pd.Categorical(names[np.where(kind == Kind.LR, local, -1)]),
            "range": pd.Categorical(
                np.where(signal < 0, "", np.where(contact, _keys.CONTACT, _keys.SECRETED)),
                categories=["", _keys.SECRETED, _keys.CONTACT],
            ),
        },
        index=pd.RangeIndex(n).astype(str),
    )


def column_names(table: pd.DataFrame) -> list[str]:
    """Names of the published method for the rows of one target's terms table.

    ``beta0``, ``beta_<TF>``, ``beta_<ligand>$<receptor>``, ``beta_<ligand>#<TF>``; a contact pair whose secreted twin
    is also a term is told apart as ``beta_<ligand>|contact$<receptor>``.
    """
    names = []
    for row in table.itertuples(index=False):
        if row.kind == INTERCEPT:
            names.append("beta0")
        elif row.kind == "tf":
            names.append(f"beta_{row.tf}")
        else:
            separator, local = ("$", row.receptor) if row.kind == "lr" else ("#", row.tf)
            plain = f"beta_{row.ligand}{separator}{local}"
            names.append(f"beta_{row.ligand}{_keys.CONTACT_SUFFIX}{separator}{local}" if plain in names else plain)
    return names
