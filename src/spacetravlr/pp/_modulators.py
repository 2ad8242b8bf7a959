"""Candidate regulators, ligand-receptor pairs and ligand-TF terms of each target."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._columns import as_stored
from spacetravlr._anndata._counts import reliability_of_counts
from spacetravlr._anndata._expression import get_expression, layer_name
from spacetravlr._anndata._modulators import ADJUSTMENT, COLUMNS, KINDS
from spacetravlr._anndata._received import operators, read_received
from spacetravlr._anndata._spatial import category_codes, read_weights_params, unwrap
from spacetravlr._docs import document
from spacetravlr._types import Bools, Floats, Ints
from spacetravlr._utils import warn
from spacetravlr._validators import (
    assert_genes,
    assert_key,
    assert_non_negative,
    assert_positive,
    assert_unique_names,
    listed,
)
from spacetravlr.pp._modulator_groups import (
    Edges,
    Group,
    expressed_somewhere,
    gene_index,
    joined,
    ligand_group,
    lr_group,
    panel_edges,
    receptor_group,
    tf_group,
    tfl_group,
)
from spacetravlr.priors import read_base_grn, read_ligand_tf
from spacetravlr.priors._names import assert_same_species, mend_factors, orient_ligand_tf
from spacetravlr.priors._tables import Source

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

#: Targets that vary by more than counting noise.
RELIABLE = "reliable"
_LEAST_RELIABLE, _LEAST_Z = 0.05, 3.0
#: Values of the column ``range``; TF terms have none.
RANGES = ["", _keys.SECRETED, _keys.CONTACT]


@document
def modulators(
    adata: AnnData | SpatialData,
    grn: Source,
    *,
    ligand_tf: Source | None = None,
    cluster_key: str | None = _keys.CELL_TYPE,
    layer: str | None = None,
    targets: Sequence[str] | str | None = None,
    counts_layer: str | None = None,
    min_mean: float = 0.0,
    receptor_threshold: float = 0.01,
    n_top: int = 5,
    cutoff: float = 0.01,
    main_effects: bool = True,
    received_key: str = _keys.RECEIVED,
    key_added: str = _keys.MODULATORS,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """List the genes and pairs that may control each target.

    Each target has three groups of modulators, and two groups of adjustment terms:

    - TF: its regulators in the base network that are in the panel, except the target itself;
    - LR: all ligand-receptor pairs of :func:`received_ligands` that do not contain the target and whose receptor has a
      mean above ``receptor_threshold`` in at least one cell type;
    - TFL: for each of its TFs, the ``n_top`` ligands in the panel with the highest ligand-TF scores above ``cutoff``,
      except the target itself. In panels of 1,000 genes or more, a pair is left out if the target or the TF is itself
      a regulator of the ligand. A TFL term uses the secreted signal of its ligand if there is one;
    - receptor: the main effect of each receptor in its pairs, unless the receptor is already among its TFs;
    - ligand: the main effect of the cell's own ligand for each LR and TFL term, unless the gene is already in another
      group. The group is empty if cells do not receive their own signals (``autocrine=False`` in
      :func:`spatial_weights`).

    Receptors and ligands covary with many genes of their cell. Without their main effects, a pair would be credited
    with this covariation, whatever the neighbours send. Main effects of receptors and ligands are adjustment terms:
    they are fitted, but they support no causal claim, and perturbations leave them out. The TF of a TFL term always has
    a main effect in the TF group.

    Parameters
    ----------
    adata
        Annotated data after :func:`received_ligands`, or SpatialData.
    grn
        Base gene-regulatory network in any form that :func:`spacetravlr.priors.read_base_grn` reads. Regulons
        ("FOXO1(+)") and complexes ("FOS_JUN") are read as the transcription factors in them.
    ligand_tf
        Ligand-TF scores in any form that :func:`spacetravlr.priors.read_ligand_tf` reads. Without them there are no TFL
        terms. For ligands that are in no pair and have no received signal yet, one is computed here, as secreted
        ligands.
    cluster_key
        Column of ``adata.obs`` with cell types, for the receptor threshold and as the default in all later steps;
        ``None`` uses the mean over all cells.
    layer
        Layer for the receptor threshold; defaults to the layer that :func:`received_ligands` used.
    targets
        Genes to model; by default every gene of the panel with at least one TF regulator in the panel. ``"reliable"``
        keeps those whose variance within cell types exceeds counting noise by at least a twentieth of the variance and
        by three standard errors (:func:`spacetravlr.get.reliability`).
    counts_layer
        Layer with raw counts for ``targets="reliable"`` (``"X"`` for ``adata.X``).
    min_mean
        Minimum mean count per cell for ``targets="reliable"``. By default there is none: how many counts are enough
        depends on the number of cells. A gene with 0.01 molecules per cell may pass because of a handful of cells.
    receptor_threshold
        Minimum mean of a receptor in at least one cell type (exclusive).
    n_top
        Maximum number of ligands per TF and target.
    cutoff
        Minimum ligand-TF score (exclusive). The default is meant for NicheNet's published scale.
    main_effects
        Add the groups of main effects (receptor and ligand). ``False`` is the published form.
    received_key
        ``key_added`` of :func:`received_ligands`.
    key_added
        Key of ``adata.uns`` to write.
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.uns[key_added]`` : dict with ``table`` (one row per target and modulator: ``target``, ``kind`` "tf", "lr",
      "tfl", "receptor" or "ligand", ``tf``, ``ligand``, ``receptor``, ``range``; categorical, "" where a column does
      not apply) and ``params``;
    - ``adata.uns["received_ligands_tfl"]`` : gains columns for ligands that had no received signal (float32).

    Raises
    ------
    KeyError
        If a key or a target does not exist; the message names the function to call first.
    ValueError
        If the network shares no edge with the panel or is of another species, a cell has no type, a gene in
        ``targets`` has no modulator, no gene is reliable, or ``min_mean`` is given with other ``targets``.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, rng=0)
    >>> priors = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, priors.ligand_receptor)
    >>> st.pp.modulators(adata, priors.grn, ligand_tf=priors.ligand_tf)
    >>> table = adata.uns["modulators"]["table"]
    >>> table.query("target == 'PAX5'")["kind"].value_counts().to_dict()
    {'tf': 14, 'lr': 12, 'receptor': 12, 'ligand': 11, 'tfl': 4}
    """
    adata = unwrap(adata, table_key)
    assert_unique_names(adata)
    assert_non_negative(receptor_threshold, name="receptor_threshold")
    assert_non_negative(cutoff, name="cutoff")
    assert_non_negative(min_mean, name="min_mean")
    assert_positive(n_top, name="n_top")
    if min_mean > 0 and not (isinstance(targets, str) and targets == RELIABLE):
        msg = f"Expected `min_mean` with targets={RELIABLE!r} only, found `{min_mean}` with other targets."
        raise ValueError(msg)
    received = read_received(adata, received_key)
    genes = adata.var_names
    layer = layer if layer is not None else (received.params["layer"] or None)
    edges = _edges(_network(grn, genes), genes, required=targets is None or targets == RELIABLE)
    if targets == RELIABLE:
        target_genes = _reliable(adata, np.unique(edges.target), counts_layer, cluster_key, min_mean)
    else:
        target_genes = np.unique(edges.target) if targets is None else _named_targets(targets, genes)

    tf = tf_group(edges, target_genes)
    pairs = _expressed_pairs(adata, received.params["pairs"], cluster_key, layer, receptor_threshold)
    ligand, receptor = (gene_index(pairs[side], genes) for side in ("ligand", "receptor"))
    lr, pair = lr_group(ligand, receptor, target_genes)
    groups = {"tf": tf, "lr": lr}
    contact = {"lr": (pairs["range"] == _keys.CONTACT).to_numpy()[pair]}
    received_tfl = received.tfl
    if ligand_tf is None:
        logger.info("No `ligand_tf` table was given: there are no ligand-TF modulators.")
    else:
        scores = read_ligand_tf(ligand_tf, min_score=cutoff)
        assert_same_species(scores["ligand"].cat.categories, genes, name="ligand_tf")
        scores = orient_ligand_tf(scores, set(received.params["pairs"]["ligand"]), set(genes[np.unique(edges.tf)]))
        scores = scores[~scores["ligand"].isin(received.params.get("left_out", ()))]  # act by contact, which is off
        groups["tfl"] = tfl_group(tf, scores, edges, target_genes, genes=genes, n_top=int(n_top), cutoff=cutoff)
        if len(tf.tf) and len(scores) and not len(groups["tfl"].tf):
            warn(
                f"No ligand-TF term is left: in `ligand_tf`, none of the {len(np.unique(tf.tf))} factors of `grn` has "
                f"a score above {cutoff:g} with a ligand in adata.var_names; its transcription factors look like "
                f"{str(scores['tf'].iloc[0])!r}, its ligands like {str(scores['ligand'].iloc[0])!r}."
            )
        received_tfl = _with_signals(adata, received_tfl, groups["tfl"], received_key, received.params["layer"] or None)
        contact["tfl"] = _acts_by_contact(groups["tfl"], received_tfl, genes)
    if main_effects:
        groups["receptor"] = receptor_group(lr, tf, len(genes))
        if read_weights_params(adata, str(received.params["weights_key"]))["autocrine"]:
            with_signal = joined([groups[kind] for kind in ("lr", "tfl") if kind in groups])
            groups["ligand"] = ligand_group(with_signal, [tf, groups["receptor"]], len(genes))
    table = _table(groups, contact, target_genes, genes)
    _check_empty(table, target_genes, genes)

    params: dict[str, Any] = {
        "cluster_key": cluster_key or "",
        "layer": layer or "",
        "receptor_threshold": float(receptor_threshold),
        "n_top": int(n_top),
        "cutoff": float(cutoff),
        "main_effects": bool(main_effects),
        "received_key": received_key,
    }
    counts = table["kind"].value_counts()
    logger.info(
        "%d targets with %d TF, %d ligand-receptor and %d ligand-TF modulators from %d expressed pairs; main effects "
        "of %d receptors and %d ligands.",
        len(target_genes), *(int(counts.get(kind, 0)) for kind in ("tf", "lr", "tfl")), len(pairs),
        *(int(counts.get(kind, 0)) for kind in ADJUSTMENT),
    )  # fmt: skip
    adata = adata.copy() if copy else adata
    adata.uns[key_added] = {"table": table, "params": params}
    if received_tfl is not received.tfl:
        adata.uns[_keys.received_tfl(received_key)] = as_stored(received_tfl)
    return adata if copy else None


def _network(grn: Source, genes: pd.Index) -> pd.DataFrame:
    table = read_base_grn(grn)
    assert_same_species([*table["tf"].cat.categories, *table["target"].cat.categories], genes, name="grn")
    return mend_factors(table, genes)


def _edges(grn: pd.DataFrame, genes: pd.Index, *, required: bool) -> Edges:
    edges = panel_edges(grn, genes)
    if required and len(edges.tf) == 0:
        msg = (
            f"Expected `grn` to hold edges between genes of adata.var_names (such as {genes[0]!r}), found none; its "
            f"genes look like {str(grn['tf'].iloc[0])!r} and {str(grn['target'].iloc[0])!r}. "
            "Call `st.priors.map_orthologs(grn, orthologs)` if they are from another organism."
        )
        raise ValueError(msg)
    return edges


def _named_targets(targets: Sequence[str], genes: pd.Index) -> Ints:
    names = [targets] if isinstance(targets, str) else list(dict.fromkeys(targets))
    assert_genes(names, genes, name="targets")
    if not names:
        msg = "Expected `targets` to name at least one gene, found none; pass `None` for all genes with a regulator."
        raise ValueError(msg)
    return genes.get_indexer(pd.Index(names))


def _reliable(
    adata: AnnData, candidates: Ints, counts_layer: str | None, cluster_key: str | None, min_mean: float
) -> Ints:
    """Candidates that vary within types by more than counting noise, and have enough counts."""
    if counts_layer is None:
        msg = f"Expected `counts_layer` to name raw counts with targets={RELIABLE!r}, found None."
        raise ValueError(msg)
    mean, share, z = reliability_of_counts(adata, None if counts_layer == "X" else counts_layer, cluster_key)
    kept = candidates[(share[candidates] > _LEAST_RELIABLE) & (z[candidates] > _LEAST_Z)]
    if not len(kept):
        msg = (
            f"Expected at least one of {len(candidates)} possible targets to vary by more than counting noise, found "
            "none; pass gene names as `targets` to model them anyway."
        )
        raise ValueError(msg)
    logger.info("%d of %d possible targets vary by more than counting noise.", len(kept), len(candidates))
    counted = kept[mean[kept] >= min_mean]
    if not len(counted):
        msg = (
            f"Expected at least one of {len(kept)} reliable targets to have a mean count of {min_mean:g} (`min_mean`), "
            f"found {mean[kept].max():.3g} at most."
        )
        raise ValueError(msg)
    if len(counted) < len(kept):
        logger.info("%d of them have a mean count below %g and are left out.", len(kept) - len(counted), min_mean)
    return counted


def _expressed_pairs(
    adata: AnnData, pairs: pd.DataFrame, cluster_key: str | None, layer: str | None, threshold: float
) -> pd.DataFrame:
    """Pairs of the panel whose receptor is expressed in at least one cell type."""
    code = np.zeros(adata.n_obs, dtype=int)
    if cluster_key is not None:
        assert_key(adata, "obs", cluster_key, name="cluster_key", hint="Pass `cluster_key=None` without cell types.")
        code = category_codes(adata, cluster_key, name="cluster_key")[0]
    genes = adata.var_names
    pairs = pairs[["ligand", "receptor", "range"]].astype(str)
    pairs = pairs[pairs["ligand"].isin(genes) & pairs["receptor"].isin(genes)].drop_duplicates(ignore_index=True)
    receptors = pairs["receptor"].drop_duplicates().to_numpy()
    if len(receptors) == 0:
        return pairs
    is_expressed = expressed_somewhere(get_expression(adata, list(receptors), layer=layer), code, threshold)
    kept = pairs[pairs["receptor"].isin(receptors[is_expressed])].reset_index(drop=True)
    if len(kept) < len(pairs):
        logger.info(
            "%d of %d ligand-receptor pairs are left out: the receptor's mean in %s is at most %g in every cell type.",
            len(pairs) - len(kept), len(pairs), layer_name(layer), threshold,
        )  # fmt: skip
    return kept


def _with_signals(
    adata: AnnData, received: pd.DataFrame, group: Group, received_key: str, layer: str | None
) -> pd.DataFrame:
    """``received`` with a secreted signal for each ligand of the group that has none; itself when none is missing."""
    known = {_keys.parse_signal(column)[0] for column in received.columns}
    missing = [g for g in adata.var_names[np.unique(group.ligand)] if g not in known]
    if not missing:
        return received
    if len(adata.uns[_keys.received_tfl(received_key)]) != adata.n_obs:
        warn(
            "adata is a subset of the cells for which received ligands were computed; the signals of ligands without a "
            f"pair (such as {missing[0]!r}) come from this subset only. Pass `ligand_tf` to `st.pp.received_ligands` "
            "before subsetting."
        )
    secreted, _ = operators(adata, received_key)
    values: Floats = secreted.apply(get_expression(adata, missing, layer=layer))
    logger.info("Computed the received signal of %d ligands of `ligand_tf` without a pair.", len(missing))
    added = pd.DataFrame(np.asarray(values, dtype=np.float32), index=received.index, columns=missing)
    return pd.concat([received, added], axis=1)


def _acts_by_contact(group: Group, received: pd.DataFrame, genes: pd.Index) -> Bools:
    """Whether each row's ligand has a contact signal only."""
    return ~genes.isin(received.columns)[group.ligand]


def _table(groups: dict[str, Group], contact: dict[str, Bools], targets: Ints, genes: pd.Index) -> pd.DataFrame:
    """Modulator table: targets in their order, each target's TF, then LR, then TFL terms, then main effects."""
    target = np.concatenate([g.target for g in groups.values()])
    order = np.argsort(target, kind="stable")
    kind = np.repeat([list(KINDS).index(k) for k in groups], [len(g.target) for g in groups.values()])[order]
    columns = {c: np.concatenate([getattr(g, c) for g in groups.values()])[order] for c in ("tf", "ligand", "receptor")}
    reach = np.concatenate([contact[k] + 1 if k in contact else np.zeros(len(g.target)) for k, g in groups.items()])
    frame = {
        "target": _categorical(targets[target[order]], genes),
        "kind": pd.Categorical.from_codes(kind, pd.Index([k for k in KINDS if k in groups or k not in ADJUSTMENT])),
        **{c: _categorical(v, genes) for c, v in columns.items()},
        "range": pd.Categorical.from_codes(reach.astype(np.int8)[order], pd.Index(RANGES)),
    }
    return pd.DataFrame(frame)[list(COLUMNS)]


def _categorical(index: Ints, genes: pd.Index) -> pd.Categorical:
    """Gene names with only the categories that occur, in the order of the panel; -1 is "", the last."""
    occurs = np.zeros(len(genes) + 1, dtype=bool)
    occurs[index] = True
    names = pd.Index(np.append(genes.to_numpy(dtype=object), "")[occurs])
    return pd.Categorical.from_codes((np.cumsum(occurs) - 1)[index], names)


def _check_empty(table: pd.DataFrame, targets: Ints, genes: pd.Index) -> None:
    empty = genes[targets].difference(pd.Index(table["target"].cat.categories), sort=False)
    if len(empty):
        shown = listed(empty, 5)
        msg = (
            f"Expected each of `targets` to have a modulator, found none for {shown}: no regulator in `grn` and no "
            "expressed ligand-receptor pair. Leave them out, or pass a larger `grn`."
        )
        raise ValueError(msg)
