"""Coefficients that the published Python and Rust programs wrote, one file per gene."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._modulators import INTERCEPT, KINDS, build_design, terms_table
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._types import Floats
from spacetravlr._utils import absolute_path
from spacetravlr._validators import assert_genes, assert_key, assert_unique_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".feather")
STEM = "_betadata"
PREFIX = "beta_"
BASELINE = "beta0"

#: Columns of the scores table of a fit; the published programs kept no scores that say which body was kept, so that it
#: has no rows.
SCORES = {
    "target": object, "cell_type": object, "n_cells": np.int64, "n_report": np.int64, "sst_report": np.float64,
    **{f"r2_{body}": np.float64 for body in ("zero", "seed", "surface", "network", "kept")},
    **{f"r2_train_{body}": np.float64 for body in ("seed", "surface", "network")},
    "kept": object,
}  # fmt: skip


class GeneBetas(NamedTuple):
    """One gene's file: its terms as rows of a modulator table, and cells x (intercept and terms)."""

    table: pd.DataFrame
    values: Floats


def read_betadata(
    folder: str | os.PathLike[str],
    adata: AnnData | SpatialData,
    *,
    genes: Sequence[str] | None = None,
    cluster_key: str | None = None,
    received_key: str = _keys.RECEIVED,
    layer: str | None = None,
    key_added: str = _keys.BETAS,
    copy: bool = False,
) -> AnnData | None:
    """Read the coefficients that a run of the published SpaceTravLR programs left in a folder.

    Reads ``<gene>_betadata.parquet`` (Python) and ``<gene>_betadata.feather`` (Rust), as well as files named after the
    gene alone. They contain the columns ``beta0``, ``beta_<TF>``, ``beta_<ligand>$<receptor>`` and
    ``beta_<ligand>#<TF>``; other columns are ignored. Rows are cells, matched by name (the index, or a column
    ``CellID``). Seed-only files of the Rust program have one row per cluster (a column ``Cluster``), which applies to
    all cells of that cluster.

    The files do not say which pairs act by contact. The ranges come from the pairs of
    :func:`spacetravlr.pp.received_ligands` if it was called; otherwise every pair is treated as secreted.

    The coefficients belong to received signals as the published programs compute them: with a different kernel, and
    divided by the number of cells. Before perturbing, call :func:`spacetravlr.pp.spatial_weights` with
    ``truncate=False`` and ``sigma`` equal to the radius, and :func:`spacetravlr.pp.received_ligands` with
    ``normalize="mean"``.

    Parameters
    ----------
    folder
        Folder with the files.
    adata
        Annotated data to which the coefficients belong, or SpatialData with one such table; may have fewer cells than
        the files.
    genes
        Genes to read; by default all in the folder.
    cluster_key
        Column of ``adata.obs`` with clusters, for files that have one row per cluster. Its labels must be those of the
        files (the Rust program may have numbered them).
    received_key
        ``key_added`` of :func:`spacetravlr.pp.received_ligands`.
    layer
        Layer on which the coefficients were fitted; defaults to the layer of the received signals, or ``X``.
    key_added
        Key of ``adata.obsm`` and ``adata.uns`` to write.
    copy
        Return a changed copy instead of changing ``adata``.

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    - ``adata.obsm[key_added]`` : cells x columns (float32); for each target its intercept, then its terms;
    - ``adata.uns[key_added]`` : dict with ``terms`` (``importance`` is the mean absolute coefficient, ``active``
      whether any coefficient is nonzero), an empty ``scores`` table, ``params`` and ``store`` ("").

    Raises
    ------
    FileNotFoundError
        If the folder or the file of a gene does not exist.
    KeyError
        If a gene is not in ``adata.var_names``, or ``cluster_key`` is not in ``adata.obs``.
    ValueError
        If cells or clusters of ``adata`` are missing in a file, a column is duplicated, or a value is not finite.
    """
    adata = unwrap(adata)
    assert_unique_names(adata)
    if cluster_key is not None:
        assert_key(adata, "obs", cluster_key, name="cluster_key")
    files = _find_files(absolute_path(folder), adata.var_names, genes)
    clusters = None if cluster_key is None else adata.obs[cluster_key].astype(str)
    params = adata.uns.get(_keys.received_params(received_key))
    ranges = None if params is None else _ranges(params["pairs"])
    if ranges is None:
        logger.info("No received ligands in adata.uns[%r]: every pair is treated as secreted.", received_key)

    read = [_read_gene(path, gene, adata.obs_names, clusters, ranges) for gene, path in files.items()]
    table = pd.concat([g.table for g in read], ignore_index=True)
    regulators = pd.unique(table[["tf", "ligand", "receptor"]].to_numpy().ravel())
    assert_genes([g for g in regulators if g], adata.var_names, name="regulators of the files")
    terms = terms_table(build_design(table, adata.var_names, list(files)))
    betas = np.concatenate([g.values for g in read], axis=1)
    spread = np.abs(betas).mean(axis=0, dtype=np.float64)
    terms["importance"] = spread
    terms["evidence"] = np.nan
    terms["active"] = (spread > 0) & (terms["kind"] != INTERCEPT).to_numpy()

    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = betas
    adata.uns[key_added] = {
        "terms": terms,
        "scores": pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in SCORES.items()}),
        "params": {
            "layer": layer or ("" if params is None else str(params["layer"])),
            "cluster_key": cluster_key or "",
            "received_key": received_key,
            "body": "published",
            "source": absolute_path(folder).name,
        },
        "store": "",
    }
    return adata if copy else None


def _find_files(folder: Path, names: pd.Index, genes: Sequence[str] | None) -> dict[str, Path]:
    """File of each gene, in the order of ``genes``, or of ``adata.var_names``."""
    if not folder.is_dir():
        msg = f"Expected `folder` to be a folder of betadata files, found no folder at `{folder}`."
        raise FileNotFoundError(msg)
    found: dict[str, Path] = {}
    strangers = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES):
        gene = path.stem.removesuffix(STEM)
        if gene not in names:
            # other tables of a run lie in the same folder; only what calls itself betadata must belong to a gene
            strangers += [gene] if path.stem.endswith(STEM) else []
        elif gene in found:
            msg = f"Expected one file for {gene!r} in `{folder}`, found `{found[gene].name}` and `{path.name}`."
            raise ValueError(msg)
        else:
            found[gene] = path
    if genes is not None:
        assert_genes(genes, names, name="genes")
        missing = [g for g in genes if g not in found]
        if missing:
            msg = f"Expected a file for each of `genes` in `{folder}`, found none for {missing[0]!r}."
            raise FileNotFoundError(msg)
        return {gene: found[gene] for gene in genes}
    assert_genes(strangers, names, name="betadata files")
    if not found:
        msg = f"Expected `<gene>{STEM}.parquet` or `<gene>{STEM}.feather` in `{folder}`, found none."
        raise FileNotFoundError(msg)
    return {gene: found[gene] for gene in names[names.isin(list(found))]}


def _read_gene(
    path: Path, gene: str, obs_names: pd.Index, clusters: pd.Series | None, ranges: dict[tuple[str, str], str] | None
) -> GeneBetas:
    frame = pd.read_feather(path) if path.suffix == ".feather" else pd.read_parquet(path)
    columns = [c for c in frame.columns if str(c) == BASELINE or str(c).startswith(PREFIX)]
    if BASELINE not in columns or len(set(columns)) < len(columns):
        msg = (
            f"Expected {path.name!r} to have the column 'beta0' and no column twice, found {list(frame.columns)[:10]}."
        )
        raise ValueError(msg)
    rows = _rows(path, frame, obs_names, clusters)
    table = _terms([c for c in columns if c != BASELINE], ranges)
    values = frame[[BASELINE, *table.pop("column")]].to_numpy(dtype=np.float32)
    if not np.isfinite(values).all():
        msg = f"Expected coefficients in {path.name!r} to be finite, found NaN or infinite values."
        raise ValueError(msg)
    intercept = pd.DataFrame([dict.fromkeys(table.columns, "") | {"kind": INTERCEPT}])
    return GeneBetas(pd.concat([intercept, table], ignore_index=True).assign(target=gene), values[rows])


def _rows(path: Path, frame: pd.DataFrame, obs_names: pd.Index, clusters: pd.Series | None) -> np.ndarray:
    """Row of the file for every cell."""
    lower = {str(c).lower(): c for c in frame.columns}
    is_seed = "cluster" in lower and "cellid" not in lower and isinstance(frame.index, pd.RangeIndex)
    if is_seed and clusters is None:
        msg = (
            f"Expected `cluster_key` to be given: {path.name!r} has one row per cluster "
            f"({', '.join(repr(str(v)) for v in frame[lower['cluster']].head(3))}, ...), found `None`."
        )
        raise ValueError(msg)
    if is_seed:
        labels, wanted, what = frame[lower["cluster"]], pd.Index(clusters), "clusters of `cluster_key`"
    else:
        text = [
            c for c in frame.columns if not str(c).startswith("beta") and not pd.api.types.is_numeric_dtype(frame[c])
        ]
        column = lower.get("cellid", text[0] if text and isinstance(frame.index, pd.RangeIndex) else None)
        labels = frame.index.to_series() if column is None else frame[column]
        wanted, what = obs_names, "cells of adata"
    index = pd.Index(labels.astype(str))
    if not index.is_unique:
        msg = f"Expected row names of {path.name!r} to be unique, found {index[index.duplicated()][0]!r} twice."
        raise ValueError(msg)
    rows = index.get_indexer(wanted.astype(str))
    if (rows < 0).any():
        missing = wanted[rows < 0].unique()
        msg = (
            f"Expected {path.name!r} to have a row for all {what}, found none for {len(missing)} of them, such as "
            f"{missing[0]!r} (its rows look like {index[0]!r}); these coefficients belong to other data."
        )
        raise ValueError(msg)
    return rows


def _terms(columns: Sequence[str], ranges: dict[tuple[str, str], str] | None) -> pd.DataFrame:
    """Rows of a modulator table for the columns of a file, TF terms first, then pairs, then ligand-TF terms."""
    rows = []
    for column in columns:
        name = str(column).removeprefix(PREFIX)
        if "$" in name:
            signal, receptor = name.split("$", 1)
            ligand, reach = _keys.parse_signal(signal)
            if signal == ligand and ranges is not None:
                reach = ranges.get((ligand, receptor), _keys.SECRETED)
            rows.append(("lr", "", ligand, receptor, reach, column))
        elif "#" in name:
            signal, tf = name.split("#", 1)
            ligand, reach = _keys.parse_signal(signal)
            if signal == ligand and ranges is not None:
                reach = ranges.get((ligand, ""), _keys.SECRETED)
            rows.append(("tfl", tf, ligand, "", reach, column))
        else:
            rows.append(("tf", name, "", "", "", column))
    table = pd.DataFrame(rows, columns=["kind", "tf", "ligand", "receptor", "range", "column"], dtype=object)
    order = np.argsort([list(KINDS).index(kind) for kind in table["kind"]], kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _ranges(pairs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Range of each pair, and of each ligand (receptor "") in ligand-TF terms: secreted where there is a choice."""
    ranges: dict[tuple[str, str], str] = {}
    for ligand, receptor, reach in pairs[["ligand", "receptor", "range"]].astype(str).itertuples(index=False):
        for key in ((ligand, receptor), (ligand, "")):
            ranges[key] = _keys.SECRETED if _keys.SECRETED in (reach, ranges.get(key)) else reach
    return ranges
