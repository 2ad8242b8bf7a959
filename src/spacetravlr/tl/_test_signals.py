"""Whether the neighbours matter."""

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

    No fit is needed: only modulators. For target :math:`H` and the signal :math:`s` that cells receive from *other*
    cells, :math:`L_s` (centred within types), the null hypothesis is that none of the products
    :math:`L_s R` and :math:`L_s TF` of the modulators explains what the rest of a regression leaves. The rest is

    - the cell's type, all TFs and all receptors of the target (with ``counts_layer``, what is expected of them given
      what was counted), and the cell's own ligands;
    - smooth functions of position at three scales, and which types are near;
    - effects of TFs and receptors that differ between types, with position and with the types nearby (where there are
      many, of those that go along with the target most);
    - all other signals of the target and their products.

    One variance for each of these groups is learned from the evidence, and the rest is partialled out of the target and
    of the products alike. A product has the regulator in its whole size, so that it holds the signal alone too. Its
    score is summed over spatial blocks of some 40 cells, whose spread gives the error. The same tests with signals that
    were moved over the section as on a torus, within types, which keeps how the senders cluster, tell whether p-values
    are too small; if so the errors are widened (``inflation``). p-values of the products of a signal are combined into
    one :cite:p:`liu2020cauchy`, and q-values are those of Benjamini and Hochberg :cite:p:`benjamini1995` over all
    targets and signals.

    **What a small p-value means.** The target follows a *field of senders like this one* where its receptor is. A gene
    that nobody measured and that the same cells send, or that is sent in the same places, gives the same. A large one
    is no evidence of absence: at a depth of one molecule per gene, most true signals are not found in 10,000 cells
    (:doc:`/benchmarks`).

    **What it takes.** A target with 190 signals and 520 products has some 1,700 columns; in 6,600 cells it takes some 8
    seconds in one thread. Time grows with the cells, and with the square of the columns (with the cube, where cells are
    few). Each thread holds the columns of its target in single precision, and their products. A call of more than a
    minute says so after its first target.

    Parameters
    ----------
    adata
        Annotated data after :func:`spacetravlr.pp.modulators`, or SpatialData.
    targets
        Targets to test; all that have modulators by default.
    layer
        Expression; what the modulators were made with by default.
    counts_layer
        Layer with the raw counts behind ``layer`` (``"X"`` for ``adata.X``), as in
        :func:`spacetravlr.tl.fit_betas`. Without it, expression is taken as exact, and of measured counts too much is
        found.
    %(cluster_key)s
    modulators_key
        Key of the modulators.
    n_shifts
        Shifts of the section against which p-values are held; 0 takes them as they are.
    %(rng)s
    %(n_jobs)s
    %(show_progress_bar)s
    %(key_added)s
    %(table_key)s
    %(copy)s

    Returns
    -------
    ``None``, or the copy. Writes

    ``adata.uns['signals_test']['signals']`` : DataFrame, one row per target and signal
        ``target``, ``signal``, ``ligand``, ``range``, ``receptors`` (of its pairs, separated by commas), ``pathway``
        ("" where the pairs have none); ``partner`` and ``kind`` ("lr", "tfl"): the receptor or TF of the product with
        the smallest p-value; ``effect`` of that product, in standard deviations of the target within types per
        standard deviation of the product; ``gain``: the share of the target's variance within types that the signal
        takes off the error of blocks of the tissue that its coefficients were not fitted on (below zero where they do
        not help); ``p`` and ``q``.
    ``adata.uns['signals_test']['targets']`` : DataFrame, one row per target
        ``target``, ``n_signals``, ``gain`` of all signals together, ``p`` and ``q`` that none of them acts, and
        ``inflation``.
    ``adata.uns['signals_test']['types']`` : DataFrame, one row per target, signal, partner and cell type
        ``effect`` in that type and its standard error ``se``; NaN below 50 cells.
    ``adata.uns['signals_test']['params']`` : dict
        The options.

    Raises
    ------
    KeyError
        When modulators, a layer or a target are missing.
    ValueError
        When no term has a signal, values do not follow from the counts, or cells are fewer than 200.

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
            "adata.layers['counts'] is there and `counts_layer` was not passed: expression is taken as exact, and "
            "noise of counting may look like signalling."
        )
    show = settings.show_progress_bar if show_progress_bar is None else show_progress_bar
    with tqdm(desc="targets", disable=not show) as bar:
        found = run_tests(
            table, targets=wanted, layer=layer, counts_layer=counts_layer, cluster_key=cluster_key,
            modulators_key=modulators_key, n_shifts=int(n_shifts), rng=as_generator(rng), n_jobs=n_jobs,
            started=bar.reset, progress=bar.update,
        )  # fmt: skip
    logger.info(
        "%d of %d pairs of a target and a signal at a false discovery rate of 0.1",
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
