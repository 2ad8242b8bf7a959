"""Ligand signals that each cell receives from its neighbours."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from spacetravlr import _keys, priors
from spacetravlr._anndata._columns import as_stored
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._received import build_operators
from spacetravlr._anndata._spatial import has_contact, read_weights_params, unwrap
from spacetravlr._core.signals.operators import GridOperator, Method, SparseOperator
from spacetravlr._docs import document
from spacetravlr._types import Normalize
from spacetravlr._utils import resolve_n_jobs
from spacetravlr._validators import assert_in_range, assert_key, assert_one_of, assert_unique_names
from spacetravlr.priors._names import assert_same_species, orient_ligand_tf

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)


@document
def received_ligands(
    adata: AnnData | SpatialData,
    lr: Any,
    *,
    ranges: Any = None,
    layer: str | None = None,
    ligand_tf: Any = None,
    normalize: Normalize = "sum",
    method: Method = "auto",
    weights_key: str = _keys.SPATIAL_WEIGHTS,
    ligrec_key: str | None = None,
    pvalue: float = 0.05,
    n_jobs: int | None = None,
    key_added: str = _keys.RECEIVED,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Compute how much of each ligand every cell receives.

    .. math:: L_{jk} = \sum_{i \in N(j)} W_{ij}\, x_{ik}

    with the weights :math:`W` of ``pp.spatial_weights`` and the expression :math:`x_{ik}` of ligand :math:`k`.
    A ligand with both secreted and contact pairs has two received signals, in the columns ``<ligand>`` and
    ``<ligand>|contact``.

    Parameters
    ----------
    adata
        Annotated data after ``pp.spatial_weights``, or SpatialData.
    lr
        Ligand-receptor pairs: any table (or path to one) that :func:`spacetravlr.priors.read_ligand_receptor` reads.
        Complexes are split into pairs. Pairs with a gene that is not in ``var_names`` are left out, and contact pairs
        too after ``pp.spatial_weights(contact_radius=None)``; the log says how many.
    ranges
        Annotated table of pairs, such as CellChatDB's, that supplies the ranges of an ``lr`` without annotation (such
        as LIANA's). Without it, all pairs of such a table are treated as secreted, with a warning.
    %(layer_normalised)s
    ligand_tf
        Ligand-TF potentials: any table that :func:`spacetravlr.priors.read_ligand_tf` reads. Received signals of its
        ligands are computed too, for the ligand-TF terms of the model.
    normalize
        ``"sum"`` as above, ``"mean"`` (divided by the number of cells of the slide, as in the published code) or
        ``"row"`` (weighted average over the neighbours).
    method
        ``"auto"`` uses the method that ``pp.spatial_weights`` chose; ``"sparse"`` and ``"grid"`` override it.
    weights_key
        Key of ``pp.spatial_weights``.
    ligrec_key
        Key in ``uns`` of a result of ``sq.gr.ligrec``. Only pairs that are significant between at least two clusters
        are kept.
    pvalue
        Significance level for ``ligrec_key``.
    %(n_jobs)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.uns[key_added]`` : DataFrame, cells x signals of the pairs, float32. A name that cannot be a key in a file
      is escaped as in a URL ("CCL3/L1" as "CCL3%2FL1"); of two names that differ only in case, the second gets "%~1".
    - ``adata.uns[f"{key_added}_tfl"]`` : DataFrame, cells x signals of the ligand-TF terms, one per ligand (the
      secreted signal if there is one), float32
    - ``adata.uns[f"{key_added}_params"]`` : dict with the parameters and ``pairs``, the pairs that were kept (with
      their ``annotation`` if ``lr`` has one); without contact signals also ``left_out``, the ligands that would act by
      contact only

    Raises
    ------
    KeyError
        If a key or layer does not exist.
    ValueError
        If no pair is left, or expression is negative or not finite.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(rng=0)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"])
    """
    table = unwrap(adata, table_key)
    assert_unique_names(table)
    assert_one_of(normalize, get_args(Normalize), name="normalize")
    assert_one_of(method, get_args(Method), name="method")
    assert_in_range(pvalue, 0, 1, name="pvalue")
    resolve_n_jobs(n_jobs)
    weights = read_weights_params(table, weights_key)
    pairs = _known_pairs(priors.read_ligand_receptor(lr, ranges=ranges, genes=table.var_names), table.var_names)
    left_out: dict[str, np.ndarray] = {}
    if not has_contact(weights):
        ligands = set(pairs["ligand"])
        pairs = _without_contact(pairs)
        left_out["left_out"] = np.array(sorted(ligands - set(pairs["ligand"])), dtype=str)
    if ligrec_key is not None:
        pairs = _significant(pairs, table, ligrec_key, pvalue)
    lr_signals = list(dict.fromkeys(_keys.signal_name(p.ligand, p.range) for p in pairs.itertuples()))
    tfl_signals = _one_signal_per_ligand(pairs)
    if ligand_tf is not None:
        scores = orient_ligand_tf(priors.read_ligand_tf(ligand_tf), set(pairs["ligand"]))
        others = scores["ligand"].astype(str).unique()
        wanted = set(table.var_names) - set(pairs["ligand"]) - set(left_out.get("left_out", ()))
        tfl_signals += [ligand for ligand in others if ligand in wanted]
    signals = list(dict.fromkeys([*lr_signals, *tfl_signals]))

    field = build_operators(table, weights_key, normalize=normalize, method=method, n_jobs=n_jobs)
    parsed = [_keys.parse_signal(name) for name in signals]
    expression = get_expression(table, [ligand for ligand, _ in parsed], layer=layer)
    received = pd.DataFrame(
        field.apply(expression, np.array([where == _keys.CONTACT for _, where in parsed])),
        index=table.obs_names.copy(),
        columns=signals,
    )
    logger.info("%d pairs, %d received signals", len(pairs), len(signals))

    table = table.copy() if copy else table
    table.uns[key_added] = as_stored(received[lr_signals])
    table.uns[_keys.received_tfl(key_added)] = as_stored(received[tfl_signals])
    table.uns[_keys.received_params(key_added)] = {
        "layer": layer or "",
        "method": _engine(field.secreted),
        "contact_method": _engine(field.contact),
        "normalize": normalize,
        "weights_key": weights_key,
        "pairs": pairs,
        **left_out,
    }
    return table if copy else None


def _engine(operator: Any) -> str:
    return "grid" if isinstance(operator, GridOperator) else "sparse" if isinstance(operator, SparseOperator) else ""


def _known_pairs(pairs: pd.DataFrame, genes: pd.Index) -> pd.DataFrame:
    """Pairs of which both genes are known."""
    kept = [c for c in ("ligand", "receptor", "range", "pathway", "annotation") if c in pairs]
    columns = {c: pairs[c].astype(str).to_numpy(dtype=object) for c in kept}
    plain = pd.DataFrame(columns)
    known = plain["ligand"].isin(genes) & plain["receptor"].isin(genes)
    assert_same_species([*plain["ligand"], *plain["receptor"]], genes, name="lr")
    reserved = [ligand for ligand in plain.loc[known, "ligand"] if ligand.endswith(_keys.CONTACT_SUFFIX)]
    if reserved:
        msg = f"Expected ligands not to end in {_keys.CONTACT_SUFFIX!r}, found {reserved[0]!r}; rename the gene first."
        raise ValueError(msg)
    if known.any():
        logger.info("%d of %d pairs have both genes in adata.var_names", int(known.sum()), len(plain))
        return _numbered(plain[known])
    msg = (
        f"Expected `lr` to hold pairs with both genes in adata.var_names, found none in {len(plain)} pairs "
        f"(such as {plain['ligand'][0]!r}, {plain['receptor'][0]!r}; var_names has such as {_examples(genes)}). "
        "Check that var_names are gene symbols and that the table is of the same species."
    )
    raise ValueError(msg)


def _examples(names: Iterable[str]) -> str:
    return ", ".join(repr(str(name)) for name in list(names)[:3])


def _numbered(pairs: pd.DataFrame) -> pd.DataFrame:
    # Row names as text: number indices do not survive h5ad.
    return pairs.set_axis(pd.RangeIndex(len(pairs)).astype(str), axis=0)


def _without_contact(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs that are not contact pairs."""
    contact = pairs["range"] == _keys.CONTACT
    if contact.all():
        msg = (
            f"Expected `lr` to hold secreted pairs with `contact_radius=None` in `st.pp.spatial_weights`, found only "
            f"contact pairs ({len(pairs)})."
        )
        raise ValueError(msg)
    if contact.any():
        logger.info(
            "%d of %d pairs act by contact and are left out, as `contact_radius=None` asks",
            int(contact.sum()), len(pairs),
        )  # fmt: skip
    return _numbered(pairs[~contact])


def _significant(pairs: pd.DataFrame, adata: AnnData, ligrec_key: str, pvalue: float) -> pd.DataFrame:
    """Pairs that a test of squidpy found between some two clusters; it writes gene names in upper case."""
    assert_key(adata, "uns", ligrec_key, name="ligrec_key", hint="Call `sq.gr.ligrec(adata, cluster_key)` first.")
    result = adata.uns[ligrec_key]
    if not hasattr(result, "__getitem__") or "pvalues" not in result:
        msg = (
            f"Expected adata.uns[{ligrec_key!r}] to be a result of `sq.gr.ligrec` with 'pvalues', found {result!r:.80}."
        )
        raise ValueError(msg)
    pvalues = result["pvalues"]
    found = (pvalues.to_numpy(dtype=float) <= pvalue).any(axis=1)
    significant = {(str(s).upper(), str(t).upper()) for s, t in pvalues.index[found]}
    keep = [(p.ligand.upper(), p.receptor.upper()) in significant for p in pairs.itertuples()]
    if not any(keep):
        msg = (
            f"Expected adata.uns[{ligrec_key!r}] to hold a significant pair of `lr` (pvalue <= {pvalue:g}), found none "
            f"of {len(pairs)}; pass a larger `pvalue`, or call `sq.gr.ligrec` with `interactions=` from the same table."
        )
        raise ValueError(msg)
    return _numbered(pairs[keep])


def _one_signal_per_ligand(pairs: pd.DataFrame) -> list[str]:
    """Signal of each ligand for ligand-TF terms: the secreted one where there is one."""
    secreted = set(pairs.loc[pairs["range"] == _keys.SECRETED, "ligand"])
    ligands = dict.fromkeys(pairs["ligand"])
    return [_keys.signal_name(g, _keys.SECRETED if g in secreted else _keys.CONTACT) for g in ligands]
