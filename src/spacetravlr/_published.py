"""Functions of the published method under their original names, on arrays and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from spacetravlr import _keys, pp
from spacetravlr._anndata._expression import read_matrix
from spacetravlr._anndata._spatial import get_coordinates, realign, unwrap
from spacetravlr._core.signals.operators import SparseOperator
from spacetravlr._core.space.weights import gaussian_kernel_2d, gaussian_weights
from spacetravlr._docs import document
from spacetravlr._validators import assert_positive

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spacetravlr._types import Floats, Normalize

__all__ = [
    "compute_radius_weights",
    "gaussian_kernel_2d",
    "init_received_ligands",
    "ligand_regulators_interactions",
    "ligands_receptors_interactions",
    "received_ligands",
]


@document
def compute_radius_weights(
    xy: Floats,
    lig_df: pd.DataFrame,
    radius: float,
    *,
    scale_factor: float = 1.0,
    normalize: Normalize = "sum",
    sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    r"""Compute the ligand signal that every cell receives within one radius, weighted by distance.

    .. math:: L_{jk} = \sum_{i \in N(j)} W_{ij}\, x_{ik}

    Parameters
    ----------
    xy
        Coordinates, cells x 2 or 3.
    lig_df
        Ligand expression, cells x ligands.
    radius
        Radius, in the units of ``xy``.
    scale_factor
        Factor by which all received values are multiplied.
    normalize
        ``"sum"``, ``"mean"`` (over all cells, as in the published code) or ``"row"``.
    sigma
        Length scale; by default such that the weight at ``radius`` is ``eps``. ``sigma=radius, truncate=False,
        normalize="mean"`` is the newer kernel of the published code.
    eps
        Weight at ``radius``.
    truncate
        Whether weights beyond ``radius`` are zero.
    %(n_jobs)s

    Returns
    -------
    Received ligands, cells x ligands, float32, rows and columns as in ``lig_df``.

    Raises
    ------
    ValueError
        If ``xy`` and ``lig_df`` do not have the same cells, or the radius is not positive.
    """
    assert_positive(radius, name="radius")
    xy = np.asarray(xy, dtype=np.float64)
    if len(xy) != len(lig_df):
        msg = f"Expected `xy` and `lig_df` to have the same cells, found {len(xy)} and {len(lig_df)} rows."
        raise ValueError(msg)
    if not np.isfinite(xy).all():
        msg = "Expected `xy` to be finite, found NaN or infinite values."
        raise ValueError(msg)
    weights = gaussian_weights(xy, radius, sigma=sigma, eps=eps, truncate=truncate, n_jobs=n_jobs)
    received = SparseOperator(weights, normalize=normalize, n_jobs=n_jobs).apply(lig_df.to_numpy(dtype=np.float32))
    return pd.DataFrame(received * np.float32(scale_factor), index=lig_df.index, columns=lig_df.columns)


@document
def received_ligands(
    xy: Floats,
    ligands_df: pd.DataFrame,
    lr_info: pd.DataFrame,
    *,
    scale_factor: float = 1.0,
    normalize: Normalize = "sum",
    sigma: float | None = None,
    eps: float = 1e-3,
    truncate: bool = True,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Compute how much of each ligand every cell receives, within the radius of the ligand's pairs.

    This is the array version of :func:`spacetravlr.pp.received_ligands`.

    Parameters
    ----------
    xy
        Coordinates, cells x 2 or 3.
    ligands_df
        Ligand expression, cells x ligands.
    lr_info
        Table with the columns ``ligand`` and ``radius`` (in the units of ``xy``). A ligand with several radii uses the
        first.
    scale_factor
        Factor by which all received values are multiplied.
    normalize
        As in :func:`compute_radius_weights`.
    sigma
        Length scale for all radii; by default such that the weight at each radius is ``eps``. The published code uses
        the radius itself: to reproduce it, pass ``lr_info`` for one radius at a time, with ``sigma`` equal to it.
    eps
        Weight at the radius.
    truncate
        Whether weights beyond the radius are zero.
    %(n_jobs)s

    Returns
    -------
    Received ligands, cells x ligands, float32; ligands without a row in ``lr_info`` are zero.

    Raises
    ------
    ValueError
        If a column of ``lr_info`` is missing.
    """
    missing = {"ligand", "radius"} - set(lr_info.columns)
    if missing:
        msg = f"Expected `lr_info` to have the columns 'ligand' and 'radius', found {list(lr_info.columns)}."
        raise ValueError(msg)
    first = lr_info[lr_info["ligand"].isin(ligands_df.columns)].drop_duplicates("ligand")
    out = pd.DataFrame(np.float32(0), index=ligands_df.index, columns=ligands_df.columns)
    for radius, rows in first.groupby("radius"):
        ligands = list(rows["ligand"])
        out[ligands] = compute_radius_weights(
            xy,
            ligands_df[ligands],
            float(radius),
            scale_factor=scale_factor,
            normalize=normalize,
            sigma=sigma,
            eps=eps,
            truncate=truncate,
            n_jobs=n_jobs,
        )
    return out


@document
def init_received_ligands(
    adata: AnnData | SpatialData,
    lr: Any,
    *,
    radius: float = 200.0,
    contact_distance: float = 30.0,
    layer: str | None = None,
    ligand_tf: Any = None,
    microns_per_unit: float = 1.0,
    normalize: Normalize = "sum",
    n_jobs: int | None = None,
) -> None:
    """Fill ``adata.uns["received_ligands"]`` and ``adata.uns["received_ligands_tfl"]`` in one call.

    Calls :func:`spacetravlr.pp.spatial_weights` and :func:`spacetravlr.pp.received_ligands` with their default keys;
    the fields they set are listed there.

    Parameters
    ----------
    adata
        Annotated data with coordinates in ``obsm["spatial"]``, or SpatialData.
    lr
        Ligand-receptor pairs.
    radius
        Radius of secreted ligands, in micrometres.
    contact_distance
        Radius of contact ligands, in micrometres.
    %(layer_normalised)s
    ligand_tf
        Ligand-TF potentials.
    microns_per_unit
        Length of one coordinate unit in micrometres.
    normalize
        As in :func:`compute_radius_weights`.
    %(n_jobs)s
    """
    adata = unwrap(adata)
    expression = read_matrix(adata, layer)
    # A light shell takes the results of both steps first: the user's object is changed only when both have succeeded.
    shell = AnnData(expression, obs=adata.obs, var=adata.var[[]], obsm={_keys.SPATIAL: get_coordinates(adata)})
    if _keys.SPATIAL in adata.uns:  # what it says of the unit and the slides
        shell.uns[_keys.SPATIAL] = adata.uns[_keys.SPATIAL]
    pp.spatial_weights(
        shell, radius=radius, contact_radius=contact_distance, microns_per_unit=microns_per_unit, n_jobs=n_jobs
    )
    pp.received_ligands(shell, lr, ligand_tf=ligand_tf, normalize=normalize, n_jobs=n_jobs)
    for key in (_keys.SPATIAL_WEIGHTS, _keys.CONTACT_WEIGHTS):
        if key in shell.obsp:
            adata.obsp[key] = shell.obsp[key]
        elif key in adata.obsp:
            del adata.obsp[key]  # of an earlier call: would no longer be true
    received = _keys.RECEIVED
    for key in (_keys.SPATIAL_WEIGHTS, received, _keys.received_tfl(received), _keys.received_params(received)):
        adata.uns[key] = shell.uns[key]
    adata.uns[_keys.received_params(received)]["layer"] = layer or ""


def ligands_receptors_interactions(received_ligands_df: pd.DataFrame, receptor_gex_df: pd.DataFrame) -> pd.DataFrame:
    r"""Score ligand-receptor pairs, :math:`LR_{jk} = L_{jk} \cdot \mathrm{receptor}_k(j)`.

    Parameters
    ----------
    received_ligands_df
        Received ligands, cells x pairs; a ligand has one column for each of its pairs.
    receptor_gex_df
        Receptor expression, cells x pairs, in the same order.

    Returns
    -------
    Scores, cells x pairs, columns ``<ligand>$<receptor>``.

    Raises
    ------
    ValueError
        If the tables differ in cells or in the number of pairs.
    """
    return _products(received_ligands_df, receptor_gex_df, "$", name="receptor_gex_df")


def ligand_regulators_interactions(received_ligands_df: pd.DataFrame, regulator_gex_df: pd.DataFrame) -> pd.DataFrame:
    r"""Score ligand-TF terms, :math:`LTF_{jp} = L_{jp} \cdot \mathrm{tf}_p(j)`.

    Parameters
    ----------
    received_ligands_df
        Received ligands, cells x terms.
    regulator_gex_df
        Expression of the transcription factors, cells x terms, in the same order.

    Returns
    -------
    Scores, cells x terms, columns ``<ligand>#<TF>``.

    Raises
    ------
    ValueError
        If the tables differ in cells or in the number of terms.
    """
    return _products(received_ligands_df, regulator_gex_df, "#", name="regulator_gex_df")


def _products(received: pd.DataFrame, local: pd.DataFrame, separator: str, *, name: str) -> pd.DataFrame:
    if received.shape[1] != local.shape[1]:
        msg = (
            f"Expected `{name}` to have one column for each of the {received.shape[1]} of `received_ligands_df`, "
            f"found {local.shape[1]}."
        )
        raise ValueError(msg)
    local = realign(local, received.index, where=f"`{name}`", hint="Pass tables of the same cells.")
    names = [f"{a}{separator}{b}" for a, b in zip(received.columns, local.columns, strict=True)]
    return pd.DataFrame(received.to_numpy() * local.to_numpy(), index=received.index, columns=names)
