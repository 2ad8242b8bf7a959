"""A tissue whose regulation is known, for tests, benchmarks and tutorials."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from spacetravlr import _keys
from spacetravlr._types import Floats, Rng
from spacetravlr._utils import as_generator
from spacetravlr._validators import assert_in_range, assert_key, assert_non_negative, assert_one_of, assert_positive
from spacetravlr.datasets import _symbols
from spacetravlr.datasets._counts import CONFOUNDERS, FOLLOWERS, follow, hidden_cause, program_noise, sequence
from spacetravlr.datasets._fields import FIELDS, field_basis, waves
from spacetravlr.datasets._tissue import SimulatedCells, make_tissue, received, regulator_expression
from spacetravlr.datasets._truth import (
    draw_coefficients,
    draw_design,
    make_panel,
    regressors,
    target_expression,
    within_sd,
)

Fields = Literal["mixed", "position", "symmetric", "cell_type", "niche", "constant"]
Confounder = Literal["smooth", "domains", "tf", "ligand", "receptor", "own_ligand"]

_COLORS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#8c564b", "#777777",
    "#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#999933",
)  # fmt: skip


class SimulatedPriors(NamedTuple):
    """Prior tables of a simulated tissue; they contain true and false regulators."""

    grn: pd.DataFrame
    """tf, target, weight."""
    ligand_receptor: pd.DataFrame
    """ligand, receptor, range, pathway."""
    ligand_tf: pd.DataFrame
    """ligand, tf, score."""


def simulated_tissue(
    *,
    n_cells: int = 1200,
    n_cell_types: int = 4,
    n_targets: int = 12,
    n_tfs: int = 14,
    n_active_tfs: int = 8,
    n_pairs: int = 12,
    n_active_pairs: int = 4,
    n_contact_pairs: int = 3,
    n_ligand_tf: int = 4,
    n_active_ligand_tf: int = 1,
    n_relays: int = 0,
    fields: Fields = "mixed",
    r2: float = 0.94,
    dropout: float = 0.0,
    n_slides: int = 1,
    n_dims: Literal[2, 3] = 2,
    radius: float = 200.0,
    contact_radius: float = 30.0,
    depth: float | None = None,
    dispersion: float = 0.0,
    size_factor_sd: float = 0.25,
    spillover: float = 0.0,
    programs: float = 0.0,
    n_bystanders: int = 0,
    confounder: Confounder | None = None,
    confounder_share: float = 0.5,
    keep_truth: bool = True,
    rng: Rng = 0,
) -> AnnData:
    r"""Simulate a tissue section in which every regulator of every target is known.

    Cells lie in domains of mixed cell types. Transcription factors, ligands and receptors vary over space, between cell
    types and from cell to cell. Each target :math:`H` follows the model of :doc:`/how-it-works`, section 3, exactly,

    .. math::
        H_j = b_{0j} + \sum_m b_{jm} TF_{jm} + \sum_k b_{jk} L_{jk} R_{jk} + \sum_p b_{jp} L_{jp} TF_{jp}
        + \epsilon_j

    where the coefficients of active regulators are smooth fields and all others are exactly zero.

    Parameters
    ----------
    n_cells
        Number of cells, over all slides.
    n_cell_types
        Number of cell types.
    n_targets
        Number of genes with a model. The first is PAX5, and FOXO1 is always among its active transcription factors.
    n_tfs
        Number of candidate transcription factors; each is in the regulatory network of every target.
    n_active_tfs
        Number of transcription factors that act on a target.
    n_pairs
        Number of candidate ligand-receptor pairs.
    n_active_pairs
        Number of pairs that act on a target.
    n_contact_pairs
        Number of candidate pairs that act by contact; the others are secreted.
    n_ligand_tf
        Number of candidate ligand-TF pairs, at most five per transcription factor.
    n_active_ligand_tf
        Number of ligand-TF pairs that act on a target.
    n_relays
        The last ``n_relays`` targets are themselves ligands, controlled by transcription factors only, so that a
        perturbation travels from cell to cell in a second step.
    fields
        What coefficients depend on: ``"position"``, ``"symmetric"`` (two mirror-image halves), ``"cell_type"`` (one
        amplitude per type times a smooth field), ``"niche"`` (composition of the neighbourhood), ``"constant"``, or
        ``"mixed"`` (targets use these in turn).
    r2
        Share of the variance of a target within cell types that the true model explains.
    dropout
        Probability that an observed value is lost (set to zero), for every gene.
    n_slides
        Number of sections. They share coefficient functions, their coordinates overlap, and signals never pass between
        them.
    n_dims
        Number of spatial dimensions.
    radius
        Radius of secreted signals in micrometres.
    contact_radius
        Radius of contact signals in micrometres.
    depth
        If given, simulate counts and measure expression from them: a gene with log1p expression :math:`x` has Poisson
        counts with mean :math:`s_j \cdot depth \cdot (e^x - 1)`. At depths of 0.17, 1 and 7, the measured value of a
        regulator correlates at about 0.4, 0.73 and 0.95 with its true value within cell types. ``None`` leaves
        expression exact.
    dispersion
        Variance of a gamma factor of mean one on the mean of each count.
    size_factor_sd
        Standard deviation of the logarithm of the size factors :math:`s_j`.
    spillover
        Share of the molecules of a cell that is counted in the cells that touch it.
    programs
        Share of the cell-to-cell variation of regulators (and bystanders) that follows four common programs.
    n_bystanders
        Number of genes that vary like regulators but have no role.
    confounder
        A cause of every target that is not in the prior tables: ``"smooth"``, a separate smooth field for each target;
        ``"domains"``, one level per domain, with sharp borders; ``"tf"``, a gene outside the panel; ``"ligand"``, a
        signal from such a gene; ``"receptor"`` and ``"own_ligand"``, a gene outside the panel with which the receptors,
        or the ligands, of the same cell covary.
    confounder_share
        Share of the noise-free variance within cell types that is due to the confounder, for targets that also have
        regulators.
    keep_truth
        Keep the true coefficients and the noise-free expression. Their size is cells x terms.
    rng
        Seed or generator.

    Returns
    -------
    Annotated data with

    - ``X`` and ``layers["log1p"]`` : observed expression on a log-normalised scale, non-negative (float32).
    - With ``depth``: ``layers["counts"]``, whole numbers in CSR format (float32); ``layers["exact"]``, expression
      before counting (float32); and ``obs["size_factor"]``.
    - ``layers["noise_free"]`` : expression before noise and dropout (float32).
    - ``obs["cell_type"]``, ``obs["domain"]`` and, with several slides, ``obs["slide"]`` (categorical);
      ``uns["cell_type_colors"]``.
    - ``var["role"]`` : ``"tf"``, ``"ligand"``, ``"receptor"``, ``"target"``, ``"housekeeping"`` or
      ``"bystander"`` (categorical).
    - ``obsm["spatial"]`` : micrometres (float64).
    - ``obsm["true_betas"]`` : cells x columns, per target its intercept, then its terms (float32).
    - ``uns["simulation"]`` : ``terms`` (one row per column of ``true_betas``, with ``active`` and the ``field`` kind),
      ``grn``, ``ligand_receptor``, ``ligand_tf`` (see :func:`simulated_priors`) and ``params``.

    Raises
    ------
    ValueError
        If a number or a share is out of range.

    Examples
    --------
    >>> import spacetravlr as st
    >>> adata = st.datasets.simulated_tissue(n_cells=300, rng=0)
    >>> terms = adata.uns["simulation"]["terms"]
    >>> bool(terms.query("target == 'PAX5' and tf == 'FOXO1' and kind == 'tf'")["active"].item())
    True
    """
    params = {k: v for k, v in locals().items() if k != "rng"}
    _check(params)
    streams = as_generator(rng).spawn(8)
    tissue_rng, basis_rng, regulator_rng, design_rng, noise_rng, count_rng, program_rng, hidden_rng = streams

    panel = make_panel(params, design_rng)
    design, terms = draw_design(panel, params, design_rng)
    tissue = make_tissue(n_cells, n_cell_types, n_slides, n_dims, tissue_rng)
    composition = received(
        tissue.coordinates, np.eye(n_cell_types)[tissue.cell_type], radius=radius, slide=tissue.slide
    )
    composition /= composition.sum(axis=1, keepdims=True)
    basis = field_basis(tissue.unit, composition, tissue.cell_type, basis_rng)

    noise_free = np.zeros((n_cells, len(panel.var)))
    given = ~panel.var.index.isin(panel.targets)
    patterns = waves(tissue.unit, basis_rng, n=24, low=0.5, high=3.0)
    is_ligand = (panel.var["role"] == "ligand").to_numpy()
    shared = program_noise(n_cells, int(given.sum()), programs, program_rng) if programs else None
    noise_free[:, given] = regulator_expression(tissue, patterns, is_ligand[given], regulator_rng, shared)
    causes = _causes(confounder, n_targets, tissue, radius, hidden_rng)
    if confounder in FOLLOWERS:
        for i, gene in enumerate(np.flatnonzero(panel.var["role"] == FOLLOWERS[confounder])):
            noise_free[:, gene] = follow(noise_free[:, gene], causes[i % n_targets], tissue.cell_type)
    observed = noise_free.copy()
    betas = np.zeros((n_cells, design.targets.n_columns), dtype=np.float32) if keep_truth else None
    target_rngs = noise_rng.spawn(n_targets)
    is_relay = np.isin(panel.targets, panel.relays)
    # relays first: the ligands they are regulate the other targets
    for stage in (np.flatnonzero(is_relay), np.flatnonzero(~is_relay)):
        values = regressors(observed, design, tissue, radius, contact_radius) if len(stage) else np.empty((n_cells, 0))
        spread = within_sd(values, tissue.cell_type)
        for t in stage.tolist():
            columns, gene = design.targets.columns_of(t), design.targets.gene[t]
            rows = terms.iloc[columns]
            active = rows["active"].to_numpy()
            index = design.targets.terms_of(t)[active[1:]]
            b = draw_coefficients(rows, basis, spread[index], target_rngs[t])
            hidden = (causes[t], confounder_share) if confounder else None
            noise_free[:, gene], observed[:, gene] = target_expression(
                b, values[:, index], tissue.cell_type, r2, target_rngs[t], hidden
            )
            if betas is not None:
                betas[:, columns.start + np.flatnonzero(active)] = b
    if dropout:
        observed[count_rng.random(observed.shape) < dropout] = 0.0

    measured = None
    if depth is not None:
        measured = sequence(
            observed, tissue, depth=depth, dispersion=dispersion, size_factor_sd=size_factor_sd, spillover=spillover,
            rng=count_rng,
        )  # fmt: skip
    values = observed if measured is None else measured.log1p
    adata = AnnData(values.astype(np.float32), obs=_obs(tissue, n_cell_types, n_slides), var=panel.var)
    adata.layers["log1p"] = adata.X.copy()
    adata.obsm[_keys.SPATIAL] = tissue.coordinates
    if measured is not None:
        adata.layers["counts"] = measured.counts
        adata.layers["exact"] = observed.astype(np.float32)
        adata.obs["size_factor"] = measured.size_factors
    if betas is not None:
        adata.layers["noise_free"] = noise_free.astype(np.float32)
        adata.obsm[_keys.TRUE_BETAS] = betas
    adata.uns[f"{_keys.CELL_TYPE}_colors"] = list(islice(cycle(_COLORS), n_cell_types))
    adata.uns[_keys.SIMULATION] = {
        "terms": terms,
        "grn": panel.grn,
        "ligand_receptor": panel.ligand_receptor,
        "ligand_tf": panel.ligand_tf,
        "params": {name: "" if value is None else value for name, value in params.items()},
    }
    return adata


def simulated_priors(adata: AnnData) -> SimulatedPriors:
    """Return the prior tables of a simulated tissue, in the form in which a user would supply them.

    Parameters
    ----------
    adata
        Result of :func:`simulated_tissue`.

    Returns
    -------
    The regulatory network, the ligand-receptor pairs and the ligand-TF pairs. They also contain candidates whose true
    effect is zero.

    Raises
    ------
    KeyError
        If ``adata`` is not a simulated tissue.

    Examples
    --------
    >>> import spacetravlr as st
    >>> grn, lr, ligand_tf = st.datasets.simulated_priors(st.datasets.simulated_tissue(n_cells=300))
    >>> list(lr.columns)
    ['ligand', 'receptor', 'range', 'pathway']
    """
    hint = "Only tissues from `st.datasets.simulated_tissue()` have it."
    assert_key(adata, "uns", _keys.SIMULATION, name="simulation", hint=hint)
    stored = adata.uns[_keys.SIMULATION]
    return SimulatedPriors(*(stored[name].copy() for name in SimulatedPriors._fields))


def _causes(
    kind: str | None, n_targets: int, tissue: SimulatedCells, radius: float, rng: np.random.Generator
) -> list[Floats]:
    """The hidden cause of each target; none without a confounder."""
    if kind is None:
        return []
    rngs = rng.spawn(n_targets)
    n, n_types = len(tissue.slide), int(tissue.cell_type.max()) + 1
    # a sender that is high in one type in some domains
    sent = [r.gamma(1.0, size=(int(tissue.domain.max()) + 1, n_types))[tissue.domain, tissue.cell_type] for r in rngs]
    signals: Floats = np.zeros((n, n_targets))
    if kind == "ligand":
        signals = received(tissue.coordinates, np.stack(sent, axis=1), radius=radius, slide=tissue.slide)
    return [hidden_cause(kind, tissue, signals[:, t], r) for t, r in enumerate(rngs)]


def _obs(tissue: SimulatedCells, n_cell_types: int, n_slides: int) -> pd.DataFrame:
    names = _symbols.take_names(_symbols.CELL_TYPES, n_cell_types, "Type ")
    width = len(str(len(tissue.slide) - 1))
    obs = pd.DataFrame(
        {
            _keys.CELL_TYPE: pd.Categorical.from_codes(tissue.cell_type, names),
            "domain": pd.Categorical([f"domain {d + 1}" for d in tissue.domain]),
        },
        index=pd.Index([f"cell{i:0{width}d}" for i in range(len(tissue.slide))]),
    )
    if n_slides > 1:
        obs["slide"] = pd.Categorical([f"slide {s + 1}" for s in tissue.slide])
    return obs


def _check(params: dict[str, Any]) -> None:
    assert_one_of(params["fields"], ("mixed", *FIELDS), name="fields")
    assert_one_of(params["n_dims"], (2, 3), name="n_dims")
    for name in ("n_cell_types", "n_targets", "n_tfs", "n_slides", "radius", "contact_radius"):
        assert_positive(params[name], name=name)
    limits = {
        "n_active_tfs": params["n_tfs"],
        "n_active_pairs": params["n_pairs"],
        "n_contact_pairs": params["n_pairs"],
        "n_ligand_tf": 5 * params["n_tfs"] if params["n_pairs"] else 0,
        "n_active_ligand_tf": params["n_ligand_tf"],
        "n_relays": params["n_targets"] - 1,
    }
    assert_in_range(params["n_pairs"], 0, np.inf, name="n_pairs")
    for name, high in limits.items():
        assert_in_range(params[name], 0, high, name=name)
    assert_in_range(params["n_cells"], 10 * params["n_slides"], np.inf, name="n_cells")
    assert_in_range(params["r2"], 1e-3, 1, name="r2")
    assert_in_range(params["dropout"], 0, 1, name="dropout")
    if params["depth"] is not None:
        assert_positive(params["depth"], name="depth")
    for name in ("dispersion", "size_factor_sd", "n_bystanders"):
        assert_non_negative(params[name], name=name)
    for name in ("spillover", "programs"):
        assert_in_range(params[name], 0, 1, name=name)
    assert_in_range(params["confounder_share"], 0, 0.99, name="confounder_share")
    if params["confounder"] is not None:
        assert_one_of(params["confounder"], CONFOUNDERS, name="confounder")
