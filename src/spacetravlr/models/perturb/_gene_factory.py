"""Perturbations of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._core.response.start import Start
from spacetravlr._docs import document
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_non_negative
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models.perturb._cells import CellsLike, select_cells
from spacetravlr.models.perturb._draws import DrawnCoefficients
from spacetravlr.models.perturb._model import FittedModel
from spacetravlr.models.perturb._screen import run_screen
from spacetravlr.models.perturb._screen_options import ScreenOptions
from spacetravlr.models.perturb._simulator import assert_finite, assert_run
from spacetravlr.models.perturb._spec import Perturbation, PerturbationLike, PerturbationSpec, parse_perturbation

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.round import Baseline, Derivative
    from spacetravlr._types import Floats


@document
class GeneFactory:
    """A fitted model that simulates changes of any gene in any cells and their propagation through the tissue.

    Parameters
    ----------
    %(adata_fitted)s
        It is not changed.
    betas_key
        Key of the coefficients in ``adata.obsm`` and ``adata.uns``.
    received_key
        Key of the received ligands, whose operators propagate changes from cell to cell; defaults to the key that the
        fit used.
    %(baseline_layer)s
    %(n_jobs)s
    %(adjusted)s

    Attributes
    ----------
    model
        The data read from ``adata``.

    Raises
    ------
    KeyError
        If the coefficients, the received ligands or the layer are missing; the message names the function to call
        first.
    ValueError
        If the coefficients do not match their table, these cells, or the current signals and expression.
    """

    def __init__(
        self,
        adata: AnnData | SpatialData,
        *,
        betas_key: str = _keys.BETAS,
        received_key: str | None = None,
        baseline_layer: str | None = None,
        n_jobs: int | None = None,
        adjusted: bool = False,
    ) -> None:
        self.model = FittedModel.read(
            unwrap(adata), betas_key=betas_key, received_key=received_key, n_jobs=n_jobs, adjusted=adjusted
        ).starting_from(baseline_layer)

    def __repr__(self) -> str:
        return (
            f"GeneFactory({self.adata.n_obs} cells, {len(self.model.fit.target_names)} modelled genes, "
            f"{len(self.possible_targets())} genes to perturb)"
        )

    @property
    def adata(self) -> AnnData:
        """The annotated data from which the model was read."""
        return self.model.adata

    @property
    def expression(self) -> Floats:
        """Expression that perturbations start from, cells x genes, float32."""
        return self.model.expression

    @property
    def tissue(self) -> Baseline:
        """Baseline: expression and, from it, received ligands."""
        return self.model.tissue

    def possible_targets(self) -> list[str]:
        """List the genes that can be perturbed: TFs, ligands and receptors of the model, in the order of ``var``."""
        return self.model.possible_targets()

    @document
    def splash_betas(self, gene: str, *, scale_factor: float = 1.0, beta_cap: float | None = None) -> pd.DataFrame:
        """Compute the derivative of a modelled gene with respect to each of its modulators.

        Parameters
        ----------
        gene
            A modelled gene.
        %(scale_factor)s
        %(beta_cap)s

        Returns
        -------
        Cells x modulator genes.

        Raises
        ------
        KeyError
            If ``gene`` has no model; the message suggests the closest modelled genes.
        """
        model = self.model
        frame = BetaFrame.from_model(model.fit, gene)
        needed = frame.modulator_genes
        index = model.genes.get_indexer(needed)
        cells = self.adata.obs_names
        received = pd.DataFrame(model.tissue.received, index=cells, columns=model.design.signal_names)
        expression = pd.DataFrame(model.expression[:, index], index=cells, columns=needed)
        with numba_threads(model.n_jobs):
            return frame.splash(
                expression, received, scale_factor=scale_factor, beta_cap=beta_cap, adjusted=model.adjusted
            )

    @document
    def perturb(
        self,
        perturbation: PerturbationLike | None = None,
        *,
        fold: Mapping[str, float] | None = None,
        cells: CellsLike = None,
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
        n_samples: int = 0,
    ) -> Perturbation:
        """Simulate how a change of some genes in some cells propagates through the tissue.

        A gene with several roles acts in each of them: as a TF or receptor through the change of the cell's own
        expression, as a ligand through the change of what each cell receives.

        Parameters
        ----------
        perturbation
            A gene to knock out, a list of genes, or a mapping of genes to values; ``"max"`` is the largest expression
            of the gene in the tissue.
        fold
            Mapping of genes to factors by which each cell's own expression is multiplied.
        %(cells)s
        %(n_propagation)s
        %(derivative)s
        %(n_samples)s

        Returns
        -------
        The simulated expression and the perturbation that was requested.

        Raises
        ------
        KeyError
            If a gene or cell is unknown; the message suggests the closest names.
        ValueError
            If a value is negative or not finite, or no gene or no cell is given.
        """
        spec = parse_perturbation(perturbation, fold, self.model.genes)
        return self._simulate([spec], cells, n_propagation, derivative, n_samples)[0]

    @document
    def perturb_batch(
        self,
        perturbations: Sequence[PerturbationLike],
        *,
        cells: CellsLike = None,
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
        n_samples: int = 0,
    ) -> list[Perturbation]:
        """Simulate several perturbations together, reading the coefficients only once.

        Parameters
        ----------
        perturbations
            List of perturbations as :meth:`perturb` takes them. Each result is identical to a separate run.
        %(cells)s
        %(n_propagation)s
        %(derivative)s
        %(n_samples)s

        Returns
        -------
        One result per perturbation, in the given order. Each is of size cells x modelled genes; for many perturbations
        of a large tissue use :meth:`genome_screen`, which keeps only summaries.

        Raises
        ------
        KeyError
            If a gene or cell is unknown; the message suggests the closest names.
        ValueError
            If a value is negative or not finite, or no gene or no cell is given.
        """
        if isinstance(perturbations, str | Mapping):
            msg = (
                f"Expected `perturbations` to be a sequence of perturbations, found `{perturbations!r}`; pass a list "
                f"of one, `[{perturbations!r}]`."
            )
            raise ValueError(msg)
        specs = [parse_perturbation(p, None, self.model.genes) for p in perturbations]
        return self._simulate(specs, cells, n_propagation, derivative, n_samples) if specs else []

    def genome_screen(self, save_to: str | PathLike[str] | None = "./ko_results", **options: Any) -> AnnData:
        """Perturb many genes, one at a time, and summarise what each perturbation does to the tissue.

        Parameters
        ----------
        save_to
            Folder of the results; ``None`` keeps them in memory only.
        options
            Options of :func:`spacetravlr.tl.genome_screen`, such as ``mode=`` or ``genes=``.

        Returns
        -------
        See :func:`spacetravlr.tl.genome_screen`.

        Raises
        ------
        KeyError, ValueError
            As :func:`spacetravlr.tl.genome_screen`.
        """
        return run_screen(self.model, save_to, ScreenOptions(**options))

    def _simulate(
        self,
        specs: Sequence[PerturbationSpec],
        cells: CellsLike,
        n_propagation: int,
        derivative: Derivative,
        n_samples: int,
    ) -> list[Perturbation]:
        assert_run(n_propagation, derivative)
        assert_non_negative(n_samples, name="n_samples")
        model = self.model
        drawn = DrawnCoefficients.of(model, n_samples) if n_samples else None
        mask = select_cells(cells, self.adata.obs)
        inputs = model.input_changes(specs, mask)
        start = inputs if drawn is None else model.simulator.begin(inputs)
        changes = model.simulator.propagate(start, n_propagation=n_propagation, derivative=derivative)
        assert_finite(changes.values.sum(axis=0), changes.genes, model.simulator, model.genes)
        samples = None
        if drawn is not None and isinstance(start, Start):
            samples = drawn.propagate(
                start, n_samples, n_propagation=n_propagation, derivative=derivative, delivered=changes
            )
        modelled = model.design.targets.gene
        results = []
        for p, (spec, given) in enumerate(zip(specs, inputs, strict=True)):
            # the batch holds the perturbed genes of all its members
            columns = np.flatnonzero(np.isin(changes.genes, np.union1d(modelled, given.genes)))
            results.append(
                Perturbation(
                    wanted=spec,
                    cells=mask,
                    gene_index=changes.genes[columns],
                    change=np.ascontiguousarray(changes.values[:, columns, p]),
                    baseline=model.expression,
                    obs_names=self.adata.obs_names,
                    genes=model.genes,
                    n_propagation=int(n_propagation),
                    derivative=derivative,
                    error=None if samples is None or samples.error is None else samples.error[:, columns, p],
                    samples=None if samples is None else samples.mean[:, p][:, :, columns],
                )
            )
        return results
