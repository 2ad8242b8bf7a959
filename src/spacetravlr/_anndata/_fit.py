"""What a fit reads from an AnnData, checked, and how its result is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr._anndata._counts import checked_counts, scale_of_counts
from spacetravlr._anndata._expression import get_expression, layer_name, log_base
from spacetravlr._anndata._fitted_on import cell_sums, fitted_on
from spacetravlr._anndata._modulators import Design, build_design, read_modulators
from spacetravlr._anndata._order import CellOrder, sorted_section, sorted_terms
from spacetravlr._anndata._received import raise_no_contact, read_received
from spacetravlr._anndata._section import Section, read_section
from spacetravlr._anndata._spatial import has_contact, read_weights_params
from spacetravlr._core.design import Targets, Terms
from spacetravlr._validators import assert_genes, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats, Ints


class FitData(NamedTuple):
    """Arrays of a tissue; gene indices of ``terms`` and ``targets`` point into the columns of ``expression``.

    Cells, cell types, slides and terms are ordered by name, so that results do not depend on their order in ``adata``.
    """

    design: Design
    """The regressors, with gene indices into ``adata.var_names``."""
    order: CellOrder
    """Where the cells of ``adata`` are."""
    labels: list[str]
    """Cell types in the order of their categories."""
    expression: Floats
    received: Floats
    terms: Terms
    targets: Targets
    target_names: list[str]
    section: Section
    raw: Floats | None
    scale: Floats | None
    """Of counts in each cell, where they are known: expression is ``log1p(scale * count) / log_unit``."""
    log_unit: float
    params: dict[str, Any]

    def fitted_on(self, terms: pd.DataFrame, obs_names: pd.Index) -> dict[str, Any]:
        """Note of what coefficients of this tissue rest on; ``terms`` is their table."""
        genes = self.design.genes[np.unique(np.concatenate([self.design.terms.gene, self.design.targets.gene]))]
        sums = cell_sums(
            self.expression, np.arange(len(genes)), genes, self.received, self.design.signal_names,
            obs_names[self.order.rows],
        )  # fmt: skip
        return fitted_on(sums.iloc[self.order.position], terms, self.section.signals)

    @property
    def cell_type(self) -> Ints:
        """Codes into ``type_names``."""
        return self.section.cell_type

    @property
    def type_names(self) -> list[str]:
        """Cell types."""
        return self.section.type_names

    @property
    def coordinates(self) -> Floats:
        """Cells x 2 or 3."""
        return self.section.coordinates

    @property
    def slides(self) -> Ints | None:
        """Slide of each cell."""
        return self.section.slides

    @property
    def radius(self) -> float:
        """Of secreted signals, in the units of the coordinates."""
        return self.section.radius


def read_fit_data(
    adata: AnnData,
    *,
    targets: Sequence[str] | None = None,
    layer: str | None = None,
    raw_layer: str | None = None,
    counts_layer: str | None = None,
    cluster_key: str | None = None,
    modulators_key: str,
) -> FitData:
    """Read and check everything that a fit needs.

    Raises
    ------
    KeyError
        If something was not computed yet, or a gene is not known.
    ValueError
        If values are not usable, or a named target has no modulators.
    """
    assert_unique_names(adata)
    table, modulator_params = read_modulators(adata, modulators_key)
    names = list(dict.fromkeys(table["target"].astype(str)))
    if targets is not None:
        targets = [targets] if isinstance(targets, str) else list(targets)
        if not targets:
            msg = "Expected `targets` to name at least one gene, found an empty list; `None` takes all."
            raise ValueError(msg)
        assert_genes(targets, adata.var_names, name="targets")
        empty = sorted(set(targets) - set(names))
        if empty:
            msg = (
                f"Expected every target to have modulators, found none for {', '.join(map(repr, empty[:5]))}; "
                "check the network and the pairs given to `st.pp.modulators`."
            )
            raise ValueError(msg)
        names = list(dict.fromkeys(targets))
    if not names:
        msg = f"Expected adata.uns[{modulators_key!r}] to hold modulators, found an empty table."
        raise ValueError(msg)
    design = build_design(table, adata.var_names, names)

    received_key = str(modulator_params["received_key"])
    state = read_received(adata, received_key)
    weights_key = str(state.params["weights_key"])
    if design.signals.contact.any() and not has_contact(read_weights_params(adata, weights_key)):
        raise_no_contact(weights_key)
    layer = layer if layer is not None else (str(modulator_params.get("layer", "")) or None)
    cluster_key = cluster_key if cluster_key is not None else (str(modulator_params.get("cluster_key", "")) or None)
    _assert_same_ligands(adata, design, layer, str(state.params.get("layer", "")) or None)
    section = read_section(adata, cluster_key=cluster_key, received=state.params)
    order = CellOrder.of(adata.obs_names)
    terms, of_targets = sorted_terms(design)

    used = np.unique(np.concatenate([design.terms.gene, design.targets.gene]))
    position = np.full(adata.n_vars, -1, dtype=np.int32)
    position[used] = np.arange(len(used))
    raw = None
    if raw_layer is not None:
        raw = order.sort(get_expression(adata, names, layer=None if raw_layer == "X" else raw_layer))
    expression = get_expression(adata, list(adata.var_names[used]), layer=layer)
    scale, unit = None, 1.0
    if counts_layer is not None:
        unit = float(np.log(log_base(adata)))
        scale = _scale(adata, used, expression * unit, layer, counts_layer)[order.rows]
    return FitData(
        design=design,
        order=order,
        labels=section.type_names,
        expression=order.sort(expression),
        received=order.sort(_signals(state.lr, state.tfl, design.signal_names, received_key)),
        terms=Terms(terms.kind, position[terms.gene], terms.signal),
        targets=Targets(position[of_targets.gene], of_targets.indptr, of_targets.term),
        target_names=names,
        section=sorted_section(section, order),
        raw=raw,
        scale=scale,
        log_unit=unit,
        params={
            "layer": layer or "",
            "counts_layer": counts_layer or "",
            "raw_layer": raw_layer or "",
            "cluster_key": cluster_key or "",
            "received_key": received_key,
            "modulators_key": modulators_key,
        },
    )


def _scale(adata: AnnData, genes: Ints, expression: Floats, layer: str | None, counts_layer: str) -> Floats:
    """Scale of the counts of each cell; raises ``ValueError`` where expression does not follow from counts by one."""
    source = None if counts_layer == "X" else counts_layer
    counts = checked_counts(adata, source, genes)
    return scale_of_counts(
        expression, counts, layer=layer_name(layer), counts_layer=layer_name(source),
        advice="; fit the result of `sc.pp.normalize_total` and `sc.pp.log1p` on these counts, or leave out "
        "`counts_layer`.",
    )  # fmt: skip


def _assert_same_ligands(adata: AnnData, design: Design, layer: str | None, received_layer: str | None) -> None:
    """Raise ``ValueError`` when ligands were received from other expression than the fit reads."""
    if layer == received_layer or not len(design.signals):
        return
    ligands = list(adata.var_names[np.unique(design.signals.ligand)])
    here, there = (get_expression(adata, ligands, layer=name, check=False) for name in (layer, received_layer))
    if not np.allclose(here, there, rtol=1e-4, atol=1e-6):
        msg = (
            f"Expected `layer` to be the one that received ligands were computed from, {layer_name(received_layer)}, "
            f"found {layer_name(layer)}, which has other values; call `st.pp.received_ligands(adata, lr, "
            f"layer={layer!r})` and `st.pp.modulators` first."
        )
        raise ValueError(msg)


def _signals(lr: pd.DataFrame, tfl: pd.DataFrame, names: list[str], key: str) -> Floats:
    columns = []
    for name in names:
        frame = lr if name in lr.columns else tfl
        if name not in frame.columns:
            msg = (
                f"Received signal {name!r} of the modulators not found in adata.uns[{key!r}]; "
                "call `st.pp.received_ligands` and `st.pp.modulators` again."
            )
            raise KeyError(msg)
        columns.append(frame[name].to_numpy(np.float32))
    n = len(lr)
    return np.ascontiguousarray(np.stack(columns, axis=1)) if columns else np.zeros((n, 0), dtype=np.float32)
