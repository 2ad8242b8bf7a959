"""The modulator table (strings, one row per target and modulator) as the index arrays of ``_core.design`` and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._core.design import ADJUSTMENT_KINDS, Kind, Signals, Targets, Terms
from spacetravlr._validators import assert_genes, assert_key

if TYPE_CHECKING:
    from anndata import AnnData

#: Columns of a modulator table. ``kind`` is one of ``KINDS`` ("intercept" too in the terms of a fit);
#: ``tf``, ``ligand``, ``receptor`` hold gene names and ``range`` "secreted" or "contact"; "" where a column does not
#: apply.
COLUMNS = ("target", "kind", "tf", "ligand", "receptor", "range")
KINDS = {"tf": Kind.TF, "lr": Kind.LR, "tfl": Kind.TFL, "receptor": Kind.RECEPTOR, "ligand": Kind.LIGAND}
#: The kinds whose terms are adjustment: the receptor of a pair, or a cell's own ligand, by itself.
ADJUSTMENT = tuple(name for name, kind in KINDS.items() if kind in ADJUSTMENT_KINDS)
INTERCEPT = "intercept"
# kinds whose local gene is a receptor
_OF_RECEPTORS = [Kind.LR, Kind.RECEPTOR]


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
    target, kind, tf, ligand, receptor, signal_range = (_categories(table[c]) for c in COLUMNS)
    names = list(dict.fromkeys(target.values[target.codes])) if targets is None else list(targets)
    assert_genes(names, genes, name="targets")
    kind_of_row = kind.look_up({name: int(code) for name, code in KINDS.items()})
    position = target.look_up({name: i for i, name in enumerate(names)})
    rows = np.flatnonzero((kind_of_row >= 0) & (position >= 0))
    kind_of_row, position = kind_of_row[rows], position[rows]

    is_receptor, is_ligand = np.isin(kind_of_row, _OF_RECEPTORS), kind_of_row == Kind.LIGAND
    has_signal = np.isin(kind_of_row, [Kind.LR, Kind.TFL])
    is_tf = ~is_receptor & ~is_ligand
    ligand_gene = ligand.genes(genes, rows, has_signal | is_ligand)
    local = np.select(
        [is_receptor, is_tf], [receptor.genes(genes, rows, is_receptor), tf.genes(genes, rows, is_tf)], ligand_gene
    )
    contact = signal_range.look_up({_keys.CONTACT: 1})[rows] == 1
    pairs = np.unique(np.stack([ligand_gene[has_signal], contact[has_signal]], axis=1), axis=0).astype(np.int64)
    labels = [_keys.signal_name(str(genes[g]), _keys.CONTACT if c else _keys.SECRETED) for g, c in pairs]
    order = np.argsort(np.array(labels, dtype=str), kind="stable")
    signal_of = np.full((len(genes), 2), -1, dtype=np.int64)
    signal_of[pairs[order, 0], pairs[order, 1]] = np.arange(len(order))
    signal = np.where(has_signal, signal_of[ligand_gene, contact.astype(int)], -1)

    key = (kind_of_row * len(genes) + local) * (len(order) + 1) + signal + 1
    _, first, code = np.unique(key, return_index=True, return_inverse=True)
    by_target = np.argsort(position, kind="stable")
    counts = np.bincount(position, minlength=len(names))
    return Design(
        Signals(pairs[order, 0].astype(np.int32), pairs[order, 1].astype(bool)),
        Terms(kind_of_row[first].astype(np.int8), local[first].astype(np.int32), signal[first].astype(np.int32)),
        Targets(
            genes.get_indexer(names).astype(np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            code[by_target].astype(np.int32),
        ),
        genes,
        [labels[i] for i in order],
    )


class _Categories(NamedTuple):
    """A column of strings as codes; tables run to millions of rows."""

    codes: np.ndarray
    values: np.ndarray

    def look_up(self, numbers: dict[str, int]) -> np.ndarray:
        """Number of each row's value, -1 where it has none."""
        return np.array([*(numbers.get(str(v), -1) for v in self.values), -1], dtype=np.int64)[self.codes]

    def genes(self, genes: pd.Index, rows: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Gene index of ``rows`` where ``used``, -1 elsewhere; ``KeyError`` for unknown genes."""
        codes = self.codes[rows]
        assert_genes(self.values[np.unique(codes[used])], genes, name="modulators")
        return np.where(used, np.append(genes.get_indexer(self.values), -1)[codes], -1)


def _categories(column: pd.Series) -> _Categories:
    values = column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype(str).astype("category")
    return _Categories(
        values.cat.codes.to_numpy(np.int64), np.array([str(v) for v in values.cat.categories], dtype=object)
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
    ligand = np.where(kind == Kind.LIGAND, local, ligand)
    contact = np.where(signal >= 0, signals.contact[signal] if len(signals) else False, False)
    labels = np.array([*KINDS, INTERCEPT], dtype=object)
    return pd.DataFrame(
        {
            "target": pd.Categorical(names[targets.gene[target]]),
            "kind": pd.Categorical(labels[kind], categories=list(labels)),
            "tf": pd.Categorical(names[np.where(np.isin(kind, [Kind.TF, Kind.TFL]), local, -1)]),
            "ligand": pd.Categorical(names[ligand]),
            "receptor": pd.Categorical(names[np.where(np.isin(kind, _OF_RECEPTORS), local, -1)]),
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
    is also a term is told apart as ``beta_<ligand>|contact$<receptor>``. Adjustment terms, which the published method
    does not have, are ``beta_<receptor>`` and ``beta_<ligand>``.
    """
    names = []
    for row in table.itertuples(index=False):
        if row.kind == INTERCEPT:
            names.append("beta0")
        elif row.kind == "tf":
            names.append(f"beta_{row.tf}")
        elif row.kind in ADJUSTMENT:
            names.append(f"beta_{row.receptor or row.ligand}")
        else:
            separator, local = ("$", row.receptor) if row.kind == "lr" else ("#", row.tf)
            plain = f"beta_{row.ligand}{separator}{local}"
            names.append(f"beta_{row.ligand}{_keys.CONTACT_SUFFIX}{separator}{local}" if plain in names else plain)
    return names
