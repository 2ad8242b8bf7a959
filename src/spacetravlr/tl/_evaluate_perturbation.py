"""Score predicted perturbations against observed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._clusters import aggregate_name
from spacetravlr._anndata._spatial import unwrap_both
from spacetravlr._docs import document
from spacetravlr._types import Rng
from spacetravlr._utils import as_generator
from spacetravlr._validators import assert_one_of, assert_positive
from spacetravlr.models.evaluation._baselines import OF_SCREEN, matched_screen, mean_screen
from spacetravlr.models.evaluation._names import named_like
from spacetravlr.models.evaluation._profiles import Effects, read_effects
from spacetravlr.models.evaluation._score import (
    NO_CHANGE,
    OBSERVED_MEAN,
    Task,
    energy_columns,
    make_task,
    mean_profile,
    no_change,
    score,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

Rival = Literal["mean", "expression_match", "observed_mean", "no_change"]
_RIVALS = (*OF_SCREEN, OBSERVED_MEAN, NO_CHANGE)
_PREDICTED = "predicted"
_LEAST_CELLS = 10


@document
def evaluate_perturbation(
    predicted: AnnData | SpatialData,
    observed: AnnData | SpatialData,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    cluster_key: str | None = None,
    by_cell_type: bool = False,
    genes: Sequence[str] | None = None,
    n_top: int = 20,
    exclude_perturbed: bool = True,
    baselines: Mapping[str, AnnData] | Sequence[Rival] | Rival | None = None,
    min_cells: int = _LEAST_CELLS,
    n_cells: int = 1000,
    perturbed_key: str = _keys.PERTURBED,
    rng: Rng = 0,
    table_key: str | None = None,
) -> pd.DataFrame:
    r"""Score predicted perturbations against observed ones, with metrics from published benchmarks.

    The scores compare response profiles :math:`\delta_{pg}`, the mean change of gene :math:`g` under perturbation
    :math:`p`. Many perturbations share most of their profile :cite:p:`vinastorne2025systema`, so a correlation alone
    says little. Each prediction is therefore also compared with the profiles of *other* perturbations.

    Perturbations are matched by name. A knockout may be named by its gene, as in a screen and in most experiments
    (``"FOXO1"``, ``"FOXO1+PAX5"``), or by the label of :func:`spacetravlr.tl.perturb` (``"FOXO1=0"``,
    ``"FOXO1=0, PAX5=0"``): both match, and results have the name of ``predicted``. A gene alone is no knockout in a
    screen or a tissue whose perturbation is another, such as overexpression. Other names must be equal.

    Parameters
    ----------
    predicted
        Result of :func:`spacetravlr.tl.genome_screen` or :func:`spacetravlr.get.baselines`; any annotated data of
        mean changes, perturbations x genes; or a tissue after :func:`spacetravlr.tl.perturb`.
    observed
        Annotated data of mean changes, perturbations x genes; or cells of an experiment, with ``perturbation_key`` and
        ``control``.
    perturbation_key
        Column of ``observed.obs`` with the perturbation of each cell, named as described above.
    control
        Value of that column for unperturbed cells.
    layer
        Layer of ``observed`` with normalised expression of cells, or with changes; ``None`` uses ``X``.
    cluster_key
        Column of ``obs`` with cell types; by default the column that the fit used, or ``"cell_type"``. If cells have
        types, the change over all cells is the mean of the changes within types, weighted by the number of control
        cells of each type, so that a shift in composition does not count as a change in expression. Types with too
        few cells are left out.
    by_cell_type
        Add rows for each cell type that is present in both.
    genes
        Genes to compare; by default all that are present in both.
    n_top
        Number of the largest observed changes that ``sign_agreement`` and ``top_overlap`` consider.
    exclude_perturbed
        Leave out the perturbed gene, whose change is known beforehand. When two perturbations are compared, leave out
        the perturbed genes of both.
    baselines
        Baselines to score as well: a mapping of names to predictions like ``predicted``, such as those of
        :func:`spacetravlr.get.baselines`; or any of ``"mean"``, ``"expression_match"`` (both from the predicted
        screen), ``"observed_mean"`` (mean of the other *observed* perturbations, which no prediction had access to)
        and ``"no_change"``.
    min_cells
        Minimum number of perturbed cells, and of control cells, for the change in a cell type to be used.
    n_cells
        Number of cells sampled for energy distances.
    %(perturbed_key)s
    rng
        Seed or generator for that sampling.
    table_key
        Table to use of ``predicted`` and ``observed``, where they are SpatialData with more than one. For different
        tables pass ``sdata.tables[...]``.

    Returns
    -------
    One row per prediction (``"predicted"`` and the baselines), perturbation and cell type, with columns
    ``prediction``, ``perturbation``, ``cell_type`` (``"all"`` for all cells) and

    ``n_genes``
        Number of genes compared.
    ``pearson_delta``, ``spearman_delta``, ``cosine``
        Pearson correlation, Spearman correlation and cosine similarity of predicted and observed changes.
    ``pearson_delta_perturbed``
        Pearson correlation after subtracting the mean observed change of the other perturbations from both
        :cite:p:`vinastorne2025systema`. Predictions that are too small are penalised.
    ``mae``, ``rmse``
        Mean absolute error and root mean square error.
    ``sign_agreement``, ``top_overlap``
        Fraction of the ``n_top`` largest observed changes whose direction is predicted (no change counts as half), and
        fraction of them that are among the ``n_top`` largest predicted changes. Expected by chance: 1/2, and ``n_top``
        over the number of genes. Changes are ranked by size, without a test of differential expression.
    ``discrimination``
        One minus the share of observed perturbations that are nearer to the prediction than the correct one (Manhattan
        distance; :cite:t:`roohani2025vcc`). The best value is 1; :math:`(n + 1) / 2n` is expected by chance.
    ``centroid_accuracy``
        Fraction of the other observed perturbations that are farther from the prediction than the correct one
        (Euclidean distance; :cite:t:`vinastorne2025systema`). 1/2 is expected by chance. Equals one minus the rank
        score of :cite:t:`wu2024perturbench`.
    ``mismatched``, ``difference``
        Mean correlation with the other observed perturbations, and ``pearson_delta`` minus that mean: the
        perturbation-specific part of the agreement.
    ``rank``, ``n_candidates``
        Rank of the correct perturbation by correlation (1 is best, ties count half) and the number of candidates.
    ``energy_distance``, ``energy_distance_unchanged``
        Energy distance between predicted and observed cells, and between the unperturbed input cells and the observed
        cells :cite:p:`szekely2013energy,peidli2024scperturb`; only if both are cells. Differences between the two
        sections contribute to both.

    Undefined values are NaN: correlations with a constant or over fewer than three genes, and ranks among fewer than
    two candidates. ``"observed_mean"`` excludes the perturbation's own profile and therefore ranks below chance.

    Raises
    ------
    KeyError
        If a column or layer is missing.
    ValueError
        If nothing can be compared, one of both names a knockout twice, ``control`` does not occur, or a baseline is
        unknown.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spacetravlr as st
    >>> changes = np.random.default_rng(0).normal(size=(3, 40))
    >>> observed = ad.AnnData(changes)
    >>> observed.obs_names = ["FOXO1", "PAX5", "STAT3"]
    >>> predicted = observed.copy()
    >>> predicted.X = changes + 0.1
    >>> scores = st.tl.evaluate_perturbation(predicted, observed, baselines="no_change")
    >>> scores.groupby("prediction")[["discrimination", "mae"]].mean().round(2)
                discrimination   mae
    prediction
    no_change             0.67  0.79
    predicted             1.00  0.10
    """
    for value, name in ((n_top, "n_top"), (min_cells, "min_cells"), (n_cells, "n_cells")):
        assert_positive(value, name=name)
    predicted, observed = unwrap_both(predicted, observed, table_key)
    if perturbation_key is None and control is not None:
        msg = f"Expected `perturbation_key` together with `control`, found None and {control!r}."
        raise ValueError(msg)
    guess = read_effects(predicted, name="predicted", cluster_key=cluster_key, perturbed_key=perturbed_key)
    truth = read_effects(
        observed, name="observed", perturbation_key=perturbation_key, control=control, layer=layer,
        cluster_key=cluster_key, min_cells=min_cells,
    )  # fmt: skip
    truth = named_like(truth, guess, names=("observed", "predicted"))
    wanted = None if genes is None else pd.Index([genes] if isinstance(genes, str) else list(genes))
    task = make_task(guess, truth, wanted, int(n_top), exclude_perturbed=exclude_perturbed)
    predictions = {_PREDICTED: guess, **_rivals(baselines, predicted, guess, truth, task)}
    table = score(predictions, truth, task, _groups(guess, truth, by_cell_type=by_cell_type))
    if guess.cells is None or truth.cells is None:
        return table
    first = (table["prediction"] == _PREDICTED) & (table["cell_type"] == table["cell_type"].iloc[0])
    energy = energy_columns(table[first], guess, truth, task, int(n_cells), as_generator(rng))
    return table.join(energy[energy.columns.difference(table.columns, sort=False)])


def _groups(guess: Effects, truth: Effects, *, by_cell_type: bool) -> dict[str, str | None]:
    """Names of the groups of rows, and the cell type of each."""
    if not by_cell_type:
        return {aggregate_name([]): None}
    common = [t for t in guess.types if t in truth.types]
    if not common:
        msg = (
            "Expected `predicted` and `observed` to share cell types with `by_cell_type=True`, found "
            f"{list(guess.types)} and {list(truth.types)}."
        )
        raise ValueError(msg)
    return {aggregate_name(common): None, **{t: t for t in common}}


def _rivals(
    baselines: Mapping[str, AnnData] | Sequence[Rival] | Rival | None,
    predicted: AnnData,
    guess: Effects,
    truth: Effects,
    task: Task,
) -> dict[str, Effects]:
    if baselines is None:
        return {}
    out: dict[str, Effects] = {}
    if isinstance(baselines, Mapping):
        for name, table in baselines.items():
            effects = named_like(read_effects(table, name="baselines"), guess, names=("baselines", "predicted"))
            out[str(name)] = effects
            missing = [n for n in task.names if n not in effects.names]
            absent = task.genes.difference(effects.genes)
            if missing or len(absent):
                msg = (
                    f"Expected the baseline {name!r} to cover everything in `predicted`, found nothing for the "
                    f"perturbations {missing[:5]} and the genes {list(absent[:5])}."
                )
                raise ValueError(msg)
        return out
    for name in [baselines] if isinstance(baselines, str) else baselines:
        assert_one_of(name, _RIVALS, name="baselines")
        if name in OF_SCREEN:
            screen = mean_screen(predicted) if name == "mean" else matched_screen(predicted)
            out[name] = read_effects(screen, name="baselines")
        else:
            out[name] = mean_profile(truth, task) if name == OBSERVED_MEAN else no_change(truth, task)
    return out
