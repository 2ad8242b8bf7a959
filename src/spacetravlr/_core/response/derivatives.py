r"""How much a target changes per unit of each of its modulators.

The received ligand is a variable of its own, so with :math:`z_{jm} = x_{j,g(m)} L_{j,s(m)}` a term has two derivatives:

.. math::

    \partial z_m / \partial x_{g(m)} = L_{s(m)}, \qquad \partial z_m / \partial L_{s(m)} = x_{g(m)} .

A receptor that a cell does not express cannot pass a signal on, so the first is zero for pairs where :math:`R = 0`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numba as nb
import numpy as np

from spacetravlr._core.design import Kind
from spacetravlr._core.kernels import parallel_kernel

if TYPE_CHECKING:
    from spacetravlr._core.design import Signals, Terms
    from spacetravlr._types import Floats, Ints


class Derivatives(NamedTuple):
    """The four products that derivatives are made of, one column per pair."""

    receptor: Floats
    """Cells x ligand-receptor pairs, ``beta * L`` where the receptor is expressed: change per unit receptor."""
    ligand: Floats
    """Cells x ligand-receptor pairs, ``beta * R``: change per unit received ligand."""
    tf: Floats
    """Cells x ligand-TF pairs, ``beta * L``: change per unit TF."""
    ligand_tf: Floats
    """Cells x ligand-TF pairs, ``beta * TF``: change per unit received ligand."""


class Splash(NamedTuple):
    """Derivatives of one target, summed over the roles of each gene."""

    genes: Ints
    """Gene index of each column, ascending."""
    values: Floats
    """Cells x genes."""


def compute_all_derivatives(
    lr_betas: Floats,
    tfl_betas: Floats,
    *,
    lr_received: Floats,
    receptor: Floats,
    tfl_received: Floats,
    tf: Floats,
) -> Derivatives:
    r"""Compute the products of which the derivatives of a target consist.

    .. math::

        b^{LR}_k L_k\,[R_k > 0], \quad b^{LR}_k R_k, \quad b^{TFL}_p L_p, \quad b^{TFL}_p TF_p

    Parameters
    ----------
    lr_betas
        Coefficients of the ligand-receptor pairs, cells x pairs.
    tfl_betas
        Coefficients of the ligand-TF pairs, cells x pairs.
    lr_received
        Received ligand of each ligand-receptor pair, cells x pairs.
    receptor
        Expression of the receptor of each ligand-receptor pair, cells x pairs.
    tfl_received
        Received ligand of each ligand-TF pair, cells x pairs.
    tf
        Expression of the TF of each ligand-TF pair, cells x pairs.

    Returns
    -------
    The four products, each cells x pairs in the dtype of the coefficients.

    Raises
    ------
    ValueError
        If arrays that belong together differ in shape.
    """
    for name, values, like in (
        ("lr_received", lr_received, lr_betas),
        ("receptor", receptor, lr_betas),
        ("tfl_received", tfl_received, tfl_betas),
        ("tf", tf, tfl_betas),
    ):
        if values.shape != like.shape:
            msg = f"Expected `{name}` to have the shape of its coefficients {like.shape}, found `{values.shape}`."
            raise ValueError(msg)
    if len(lr_betas) != len(tfl_betas):
        msg = f"Expected `tfl_betas` to have {len(lr_betas)} cells as `lr_betas` has, found `{len(tfl_betas)}`."
        raise ValueError(msg)
    return Derivatives(
        *_pair_products(np.asarray(lr_betas), np.asarray(lr_received), np.asarray(receptor), True),
        *_pair_products(np.asarray(tfl_betas), np.asarray(tfl_received), np.asarray(tf), False),
    )


def splash(
    betas: Floats,
    terms: Terms,
    signals: Signals,
    *,
    expression: Floats,
    received: Floats,
    scale_factor: float = 1.0,
    beta_cap: float | None = None,
) -> Splash:
    """Compute the derivative of one target with respect to every gene that plays a role in its model.

    For a gene with several roles, the derivatives are summed; as a ligand they are per unit of its received signal.
    Adjustment terms are left out (see :meth:`~spacetravlr._core.design.Terms.with_adjustment`).

    Parameters
    ----------
    betas
        Coefficients without the intercept, cells x terms.
    terms
        The target's terms, in the order of the columns of ``betas``.
    signals
        What ``terms.signal`` points into.
    expression
        Cells x genes; ``terms.gene`` and ``signals.ligand`` index its columns.
    received
        Cells x signals.
    scale_factor
        Multiplies the parts that come from ligand-receptor and ligand-TF terms.
    beta_cap
        Clips the summed derivatives to ``[-beta_cap, beta_cap]``.

    Returns
    -------
    The genes, ascending, and cells x genes in the dtype of ``betas``.
    """
    if not terms.causal.all():
        betas, terms = betas[:, terms.causal], terms.take(np.flatnonzero(terms.causal))
    paired = terms.signal >= 0
    ligand = signals.ligand[terms.signal[paired]] if paired.any() else np.empty(0, dtype=np.int64)
    genes = np.unique(np.concatenate([terms.gene, ligand])).astype(np.int64)
    ligand_column = np.full(len(terms), -1, dtype=np.int64)
    ligand_column[paired] = np.searchsorted(genes, ligand)
    values = np.zeros((len(betas), len(genes)), dtype=betas.dtype)
    _sum_roles(
        betas,
        terms.gene.astype(np.int64),
        terms.signal.astype(np.int64),
        np.asarray(terms.kind) == Kind.LR,
        np.searchsorted(genes, terms.gene),
        ligand_column,
        expression,
        received,
        betas.dtype.type(scale_factor),
        values,
    )
    if beta_cap is not None:
        np.clip(values, -beta_cap, beta_cap, out=values)
    return Splash(genes, values)


@parallel_kernel
def _pair_products(betas, received, local, need_local):
    by_local, by_ligand = np.empty_like(betas), np.empty_like(betas)
    for j in nb.prange(betas.shape[0]):
        for k in range(betas.shape[1]):
            by_ligand[j, k] = betas[j, k] * local[j, k]
            by_local[j, k] = 0 if need_local and local[j, k] <= 0 else betas[j, k] * received[j, k]
    return by_local, by_ligand


@parallel_kernel
def _sum_roles(betas, gene, signal, is_lr, local_column, ligand_column, expression, received, scale, values):
    for j in nb.prange(betas.shape[0]):
        for m in range(betas.shape[1]):
            b = betas[j, m]
            s = signal[m]
            if s < 0:
                values[j, local_column[m]] += b
                continue
            b *= scale
            x = expression[j, gene[m]]
            values[j, ligand_column[m]] += b * x
            if not is_lr[m] or x > 0:
                values[j, local_column[m]] += b * received[j, s]
