"""How each perturbation of a screen differs from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spacetravlr._anndata._clusters import aggregate_name
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._core.evaluation.matching import compare_pairs, match, mean_of_others, rank_of_own
from spacetravlr._core.evaluation.profiles import mean_known
from spacetravlr._core.evaluation.specificity import beyond, share_beyond, sign_flip_p
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator
from spacetravlr._validators import assert_key, assert_positive
from spacetravlr.models.evaluation._baselines import closest_expression
from spacetravlr.models.evaluation._names import named_like
from spacetravlr.models.evaluation._profiles import Effects, read_effects
from spacetravlr.models.evaluation._score import Task, make_task
from spacetravlr.models.perturb._screen_table import SCREEN

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._types import Ints


@document
def specificity(
    screen: AnnData | SpatialData,
    *,
    other: AnnData | None = None,
    by_cell_type: bool = False,
    n_match: int = 10,
    n_flips: int = 1000,
    rng: Rng = 0,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Measure how the profile of each perturbation differs from the others, and whether the difference reproduces.

    Knockouts of abundant genes tend to change the same targets. The gene-specific result of a screen is what remains
    beyond the mean profile and beyond the profiles of genes with similar expression. Distances are one minus the
    Pearson correlation of mean changes; perturbed genes are left out.

    A single screen gives no noise level for these differences, so there is no p-value without ``other``: a screen
    computed from other data, such as the other half of the counts (:func:`spacetravlr.pp.split_counts`) or another
    section.

    Parameters
    ----------
    screen
        Result of :func:`spacetravlr.tl.genome_screen` with at least two perturbations.
    other
        A second screen of the same genes; names are matched as in :func:`spacetravlr.tl.evaluate_perturbation`.
    by_cell_type
        Add rows for each cell type.
    n_match
        Number of other perturbed genes, with the closest mean expression, to compare with.
    n_flips
        Number of random sign flips for ``p``.
    %(rng)s
    %(table_key)s

    Returns
    -------
    One row per perturbation and cell type (``"all"`` for all cells):

    ``size``
        Root mean square change over genes.
    ``from_mean``, ``from_matched``, ``from_others``
        Distance from the mean profile of the other perturbations, mean distance from the profiles of
        expression-matched genes, and mean distance from those of all others.
    ``share_beyond_mean``
        Share of the sum of squares that is not explained by a multiple of the mean profile.

    and with ``other``, where :math:`a` is a profile of ``screen`` and :math:`b` one of ``other``:

    ``matched``, ``mismatched``, ``difference``
        Correlation with the same perturbation in ``other``, mean correlation with the other perturbations in ``other``,
        and the difference.
    ``rank``, ``n_candidates``, ``matched_rank``
        Rank of the same perturbation among all of ``other`` (1 is best), the number of candidates, and its rank among
        itself and the expression-matched ones.
    ``p``
        p-value for the hypothesis that the parts of :math:`a` and :math:`b` beyond the mean profiles agree in sign only
        by chance. Which targets respond, and how strongly, is held fixed, because both screens share the network, which
        determines what can respond at all and so also part of any rank.

    A difference that reproduces is not noise, but it need not be causal: halves of the counts share the cells, and
    smooth fields in two sections are correlated (:doc:`/how-it-works`, section 6). If targets share noise, ``p`` is too
    small. Values are NaN if a perturbation changes nothing.

    Raises
    ------
    KeyError
        If ``screen`` is not a screen.
    ValueError
        If there are fewer than two perturbations, or ``other`` shares no perturbation or gene or names a knockout
        twice.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=200, n_targets=4, n_tfs=4, n_active_tfs=2, rng=0)
    >>> grn, lr, _ = st.datasets.simulated_priors(adata)
    >>> st.pp.spatial_weights(adata)
    >>> st.pp.received_ligands(adata, lr, layer="log1p")
    >>> st.pp.modulators(adata, grn)
    >>> st.tl.fit_betas(adata, body="seed", show_progress_bar=False)
    >>> screen = st.tl.genome_screen(adata, genes=["FOXO1", "STAT3", "IRF4"], show_progress_bar=False)
    >>> list(st.get.specificity(screen).columns[2:])
    ['size', 'from_mean', 'from_matched', 'from_others', 'share_beyond_mean']
    """
    table = unwrap(screen, table_key)
    assert_key(table, "uns", SCREEN, name="screen", hint="Call `st.tl.genome_screen(adata)` and pass its result.")
    assert_positive(n_match, name="n_match")
    assert_positive(n_flips, name="n_flips")
    effects = read_effects(table, name="screen")
    second = None
    if other is not None:
        second = named_like(read_effects(other, name="other"), effects, names=("other", "screen"))
    near = closest_expression(table, int(n_match))
    generator = as_generator(rng)
    task = make_task(effects, effects, None, 1, exclude_perturbed=True)
    shared = None if second is None else _shared(second, effects)
    types = [t for t in effects.types if second is None or t in second.types] if by_cell_type else []
    parts = []
    for name, cell_type in [(aggregate_name(types), None), *((t, t) for t in types)]:
        part = _alone(task, effects, cell_type, near)
        if second is not None and shared is not None:
            again = _again(shared, effects, second, cell_type, near, int(n_flips), generator)
            part = part.join(again, on="perturbation")
        part.insert(1, "cell_type", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _shared(second: Effects, effects: Effects) -> Task:
    """Perturbations and genes of both screens."""
    return make_task(second, effects, None, 1, exclude_perturbed=True, names=("other", "screen"))


def _alone(task: Task, effects: Effects, cell_type: str | None, near: Ints) -> pd.DataFrame:
    values = task.rows(effects, task.names, cell_type)
    mean = mean_of_others(values)
    pairs = compare_pairs(values, values).correlation
    np.fill_diagonal(pairs, np.nan)
    with_mean = [compare_pairs(a[None], b[None]).correlation[0, 0] for a, b in zip(values, mean, strict=True)]
    return pd.DataFrame(
        {
            "perturbation": task.names,
            "size": np.sqrt(mean_known(values**2, axis=1)),
            "from_mean": 1 - np.array(with_mean),
            "from_matched": 1 - mean_known(np.take_along_axis(pairs, near, axis=1), axis=1),
            "from_others": 1 - mean_known(pairs, axis=1),
            "share_beyond_mean": [share_beyond(a, b) for a, b in zip(values, mean, strict=True)],
        }
    )


def _again(
    task: Task,
    effects: Effects,
    second: Effects,
    cell_type: str | None,
    near: Ints,
    n_flips: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Profiles of the screen against those of the second one, for the perturbations that both have."""
    names = task.names
    values, again = (task.rows(e, names, cell_type) for e in (effects, second))
    pairs = compare_pairs(values, again)
    own = np.arange(len(names))
    found = match(pairs, own)
    rests = [[beyond(row, mean) for row, mean in zip(v, mean_of_others(v), strict=True)] for v in (values, again)]
    position = pd.Index(names).get_indexer(effects.names)
    close = np.full(pairs.correlation.shape, np.nan)
    for p, name in enumerate(names):
        candidates = position[near[effects.names.get_loc(name)]]
        candidates = np.append(candidates[candidates >= 0], p)
        close[p, candidates] = pairs.correlation[p, candidates]
    return pd.DataFrame(
        {
            "matched": pairs.correlation[own, own],
            **{c: found[c] for c in ("mismatched", "difference", "rank", "n_candidates")},
            "matched_rank": rank_of_own(close, own)[0],
            "p": [sign_flip_p(a, b, n_flips, rng) for a, b in zip(*rests, strict=True)],
        },
        index=names,
    )
