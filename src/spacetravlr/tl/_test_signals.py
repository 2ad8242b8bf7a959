"""Test whether signals from neighbouring cells matter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._docs import document
from spacetravlr._settings import settings
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator, resolve_n_jobs, warn
from spacetravlr.models.signals._run import run_tests

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger(__name__)


@document
def test_signals(
    adata: AnnData | SpatialData,
    targets: Sequence[str] | str | None = None,
    *,
    layer: str | None = None,
    counts_layer: str | None = None,
    cluster_key: str | None = None,
    modulators_key: str = _keys.MODULATORS,
    n_shifts: int = 4,
    rng: Rng = 0,
    n_jobs: int | None = None,
    show_progress_bar: bool | None = None,
    key_added: str = _keys.SIGNALS_TEST,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Test for each target whether each received signal acts on it.

    This needs modulators, but no fit. Let :math:`L_s` be the signal :math:`s` that cells receive from *other* cells
    (centred within types). For a target :math:`H`, the null hypothesis is that none of the modulator products
    :math:`L_s R` and :math:`L_s TF` explains anything beyond the other terms of the regression. These are

    - the cell type, all TFs and all receptors of the target (with ``counts_layer``, their expected values given the
      counts), and the cell's own ligands;
    - smooth functions of position at three scales, and the types of nearby cells;
    - effects of TFs and receptors that vary with type, position and the types nearby (if there are many TFs and
      receptors, only for those most correlated with the target);
    - all other signals of the target and their products.

    Each of these groups has one variance, learned from the evidence. The other terms are partialled out of both the
    target and the products. A product contains the uncentred regulator and therefore also the signal alone. Its score
    is summed over spatial blocks of some 40 cells, and the spread between blocks gives the standard error. To check the
    p-values, the tests are repeated with signals shifted over the section (as on a torus, within types), which
    preserves the clustering of senders. If these p-values are too small, the errors are widened (``inflation``). The
    p-values of all products of a signal are combined into one :cite:p:`liu2020cauchy`. q-values follow Benjamini and
    Hochberg :cite:p:`benjamini1995`, over all targets and signals.

    **What a p-value means.** A small p-value says that the target follows *a field of senders like this one* where its
    receptor is expressed. An unmeasured gene that the same cells send, or that is sent in the same places, gives the
    same result. A large p-value is no evidence of absence: with two to three molecules per regulator and cell, most
    true signals are missed in 10,000 cells (:doc:`/benchmarks`).

    **Cost.** A target with 190 signals and 520 products has some 1,700 columns and takes some 8 seconds with 6,600
    cells on one thread. Time grows linearly with cells and with the square of the number of columns (with the cube if
    cells are few). Each thread holds the columns of its target, in single precision, and their cross products. If a
    call will take more than a minute, an estimate is logged after the first target.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.modulators`, or SpatialData.
    targets
        Targets to test; by default all that have modulators.
    layer
        Layer with expression; defaults to the layer that the modulators were made with.
    counts_layer
        Layer with the raw counts behind ``layer`` (``"X"`` for ``adata.X``), as in
        :func:`spacetravlr.tl.fit_betas`. Without it, expression is treated as exact, and measured counts give too many
        positives.
    %(cluster_key)s
    modulators_key
        Key of the modulators.
    n_shifts
        Number of shifts of the section with which p-values are checked; 0 skips the check.
    %(rng)s
    %(n_jobs)s
    %(show_progress_bar)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or a changed copy if ``copy=True``. Sets the following fields:

    ``adata.uns['signals_test']['signals']`` : DataFrame, one row per target and signal
        ``target``, ``signal``, ``ligand``, ``range``, ``receptors`` (of its pairs, separated by commas), ``pathway``
        ("" if the pairs have none); ``partner`` and ``kind`` ("lr", "tfl"): the receptor or TF of the product with the
        smallest p-value; ``effect`` of that product, in standard deviations of the target within types per standard
        deviation of the product; ``gain``: the held-out reduction of the prediction error due to the signal, as a share
        of the target's variance within types (negative if the signal does not help); ``p`` and ``q``.
    ``adata.uns['signals_test']['targets']`` : DataFrame, one row per target
        ``target``, ``n_signals``, ``gain`` of all signals together, ``p`` and ``q`` for the hypothesis that none of
        them acts, and ``inflation``.
    ``adata.uns['signals_test']['types']`` : DataFrame, one row per target, signal, partner and cell type
        ``effect`` in that type and its standard error ``se``; NaN for types with fewer than 50 cells.
    ``adata.uns['signals_test']['params']`` : dict
        The options.

    Raises
    ------
    KeyError
        If modulators, a layer or a target are missing.
    ValueError
        If no term has a signal, values do not follow from the counts, or there are fewer than 200 cells.

    See Also
    --------
    spacetravlr.get.signals, spacetravlr.pl.signals, spacetravlr.pl.signalling

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=400, n_targets=1, n_active_pairs=0, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.test_signals(adata, show_progress_bar=False)
    >>> st.get.signals(adata)[["target", "signal", "q"]].shape
    (12, 3)
    """
    from tqdm.auto import tqdm

    table = unwrap(adata, table_key)
    if n_shifts < 0 or int(n_shifts) != n_shifts:
        msg = f"Expected `n_shifts` to be a whole number of at least 0, found `{n_shifts}`."
        raise ValueError(msg)
    resolve_n_jobs(n_jobs)
    wanted = [targets] if isinstance(targets, str) else targets
    if counts_layer is None and "counts" in table.layers:
        warn(
            "`counts_layer` was not passed although adata.layers['counts'] exists: expression is treated as exact, and "
            "counting noise may look like signalling."
        )
    show = settings.show_progress_bar if show_progress_bar is None else show_progress_bar
    with tqdm(desc="targets", disable=not show) as bar:
        found = run_tests(
            table, targets=wanted, layer=layer, counts_layer=counts_layer, cluster_key=cluster_key,
            modulators_key=modulators_key, n_shifts=int(n_shifts), rng=as_generator(rng), n_jobs=n_jobs,
            started=bar.reset, progress=bar.update,
        )  # fmt: skip
    logger.info(
        "%d of %d target-signal pairs at a false discovery rate of 0.1",
        int((found.signals["q"] < 0.1).sum()), len(found.signals),
    )  # fmt: skip
    out = table.copy() if copy else table
    out.uns[key_added] = {
        "signals": found.signals,
        "targets": found.targets,
        "types": found.types,
        "params": {
            **found.params,
            "n_shifts": int(n_shifts),
            "rng_seed": int(rng) if isinstance(rng, int) else "",
        },
    }
    return out if copy else None
