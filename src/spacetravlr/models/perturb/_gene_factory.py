"""A fitted model that can be perturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._received import operators
from spacetravlr._anndata._spatial import unwrap
from spacetravlr._core.response.propagation import baseline, roles
from spacetravlr._utils import numba_threads, warn
from spacetravlr._validators import assert_unique_names
from spacetravlr.models._beta_frame import BetaFrame
from spacetravlr.models.perturb._screen import ScreenMode, run_screen
from spacetravlr.models.perturb._simulator import Simulator, assert_run
from spacetravlr.models.perturb._spec import (
    CellsLike,
    Perturbation,
    PerturbationLike,
    PerturbationSpec,
    input_change,
    parse_perturbation,
    select_cells,
)

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from spatialdata import SpatialData

    from spacetravlr._core.response.propagation import InputChange
    from spacetravlr._core.response.round import Baseline, Derivative
    from spacetravlr._types import Bools, Floats


class GeneFactory:
    """A fitted model that changes any gene in any cells and follows the change through the tissue.

    Parameters
    ----------
    adata
        Annotated data with coefficients of :func:`spacetravlr.tl.fit_betas`. It is read, never changed.
    betas_key
        Key of the coefficients in ``adata.obsm`` and ``adata.uns``.
    received_key
        Key of the received ligands, whose operators carry a change from cell to cell; what the fit used by default.
    layer
        Expression to start from; what the fit used by default.
    n_jobs
        Threads; ``None`` is ``st.settings.n_jobs``.

    Raises
    ------
    KeyError
        When the coefficients, the received ligands or the layer are missing; names the call to make first.
    ValueError
        When the coefficients do not belong to their table.
    """

    def __init__(
        self,
        adata: AnnData | SpatialData,
        *,
        betas_key: str = _keys.BETAS,
        received_key: str | None = None,
        layer: str | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.adata = unwrap(adata)
        assert_unique_names(self.adata)
        self.model = read_betas(self.adata, betas_key)
        self.betas_key = betas_key
        self.received_key = received_key or str(self.model.params.get("received_key") or _keys.RECEIVED)
        self.layer = layer if layer is not None else (str(self.model.params.get("layer") or "") or None)
        self.n_jobs = n_jobs

    def __repr__(self) -> str:
        return (
            f"GeneFactory({self.adata.n_obs} cells, {len(self.model.target_names)} modelled genes, "
            f"{len(self.possible_targets())} genes to perturb)"
        )

    @cached_property
    def expression(self) -> Floats:
        """Expression that perturbations start from, cells x genes, float32."""
        return get_expression(self.adata, layer=self.layer)

    @cached_property
    def tissue(self) -> Baseline:
        """Baseline: expression and, from it, received ligands."""
        field: Any = None
        if len(self.model.design.signals):
            field = operators(self.adata, self.received_key, n_jobs=self.n_jobs)
        return baseline(self.expression, self.model.design.signals, field)

    @cached_property
    def simulator(self) -> Simulator:
        """The numbers that perturbations are computed from."""
        design = self.model.design
        return Simulator(self.tissue, design.terms, design.targets, betas=self.model.betas, n_jobs=self.n_jobs)

    def possible_targets(self) -> list[str]:
        """List the genes that can be perturbed: TFs, ligands and receptors of the model, in the order of ``var``."""
        design = self.model.design
        return list(design.genes[roles(design.terms, design.signals)])

    def splash_betas(self, gene: str, *, scale_factor: float = 1.0, beta_cap: float | None = None) -> pd.DataFrame:
        """Compute how much a modelled gene changes per unit of each of its modulators (SPEC section 4).

        Parameters
        ----------
        gene
            A modelled gene.
        scale_factor
            Multiplies the parts that come from ligand-receptor and ligand-TF terms.
        beta_cap
            Clips the summed derivatives to ``[-beta_cap, beta_cap]``.

        Returns
        -------
        Cells x modulator genes.

        Raises
        ------
        KeyError
            When ``gene`` has no model; names the closest modelled genes.
        """
        frame = BetaFrame.from_model(self.model, gene)
        needed = frame.modulator_genes
        index = self.adata.var_names.get_indexer(needed)
        expression = pd.DataFrame(self.expression[:, index], index=self.adata.obs_names, columns=needed)
        received = pd.DataFrame(
            self.tissue.received, index=self.adata.obs_names, columns=self.model.design.signal_names
        )
        with numba_threads(self.n_jobs):
            return frame.splash(expression, received, scale_factor=scale_factor, beta_cap=beta_cap)

    def perturb(
        self,
        perturbation: PerturbationLike | None = None,
        *,
        fold: Mapping[str, float] | None = None,
        cells: CellsLike = None,
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
    ) -> Perturbation:
        """Change genes in cells and follow the change through the tissue (SPEC section 5).

        A gene that plays several roles passes its change on in each: as a TF or receptor the change of the cell's own
        expression, as a ligand the change of what each cell receives.

        Parameters
        ----------
        perturbation
            A gene to knock out, a list of them, or a mapping of genes to wanted values, ``"max"`` being the largest
            expression of the gene in the tissue.
        fold
            Genes and what each cell's own expression is multiplied by.
        cells
            Cells to perturb: a mask, names, or a query on ``adata.obs``; all by default.
        n_propagation
            Rounds of propagation.
        derivative
            ``"product_rule"`` or ``"exact"``, the difference of the fitted model itself.

        Returns
        -------
        The simulated expression and what was asked for.

        Raises
        ------
        KeyError
            For unknown genes or cells, with the closest names.
        ValueError
            For negative or non-finite values, no gene, or no cell.
        """
        wanted = parse_perturbation(perturbation, fold, self.adata.var_names)
        return self._simulate([wanted], cells, n_propagation, derivative)[0]

    def perturb_batch(
        self,
        perturbations: Sequence[PerturbationLike],
        *,
        cells: CellsLike = None,
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
    ) -> list[Perturbation]:
        """Do several perturbations at once; the coefficients are read once for all of them.

        Parameters
        ----------
        perturbations
            What :meth:`perturb` takes, one after the other. Each result is the same as alone.
        cells
            Cells to perturb, in all of them.
        n_propagation
            Rounds of propagation.
        derivative
            ``"product_rule"`` or ``"exact"``.

        Returns
        -------
        One result a perturbation, in that order. Each holds cells x modelled genes: for many perturbations of a large
        tissue call :meth:`genome_screen`, which keeps summaries.

        Raises
        ------
        KeyError
            For unknown genes or cells, with the closest names.
        ValueError
            For negative or non-finite values, no gene, or no cell.
        """
        if isinstance(perturbations, str):
            msg = f"Expected `perturbations` to be a sequence of perturbations, found `{perturbations!r}`."
            raise ValueError(msg)
        wanted = [parse_perturbation(p, None, self.adata.var_names) for p in perturbations]
        return self._simulate(wanted, cells, n_propagation, derivative) if wanted else []

    def genome_screen(
        self,
        save_to: str | PathLike[str] | None = "./ko_results",
        *,
        mode: ScreenMode = "knockout",
        n_propagation: int = 4,
        derivative: Derivative = "product_rule",
        genes: Sequence[str] | None = None,
        cells: CellsLike = None,
        batch_size: int | None = None,
        save_cells: bool = False,
        client: Any = None,
        show_progress_bar: bool | None = None,
    ) -> AnnData:
        """Perturb every possible target, one at a time, and summarise what each does to the tissue.

        One file a target is written to ``save_to`` as soon as it is done. Started again, the screen takes up what is
        there and goes on. The folder remembers the model it belongs to and refuses results of another.

        Parameters
        ----------
        save_to
            Folder of the results; ``None`` keeps them in memory only.
        mode
            ``"knockout"`` sets a gene to zero, ``"overexpression"`` to its largest expression in the tissue.
        n_propagation
            Rounds of propagation.
        derivative
            ``"product_rule"`` or ``"exact"``.
        genes
            Genes to perturb; all of :meth:`possible_targets` by default.
        cells
            Cells to perturb: a mask, names, or a query on ``adata.obs``; all by default.
        batch_size
            Perturbations computed together; by default as many as fit in about 2 GB. Results do not depend on it.
        save_cells
            Write the change at every cell too (``change``, cells x genes); large.
        client
            A ``dask.distributed.Client``: its workers compute, one batch a process at a time, this process writes.
            Batches of a worker that dies are computed again.
        show_progress_bar
            Draw a progress bar; ``None`` is ``st.settings.show_progress_bar``.

        Returns
        -------
        Annotated data, perturbations x modelled (and perturbed) genes:

        ``X``, ``layers['mean_abs_change']``, ``layers['fraction_changed']``
            Mean change over all cells, mean size of the change, and the part of cells whose change exceeds 1 % of the
            gene's largest expression.
        ``layers['change_<i>']``
            Mean change over the cells of type ``uns['screen']['cell_types'][i]``; see
            :func:`spacetravlr.get.screen`.
        ``obs``
            Roles of the perturbed gene, its baseline, cells perturbed, and how far the effect reaches.
        ``var``
            Baseline, standard deviation, and the held-out R2 of the gene's model.

        Raises
        ------
        KeyError
            For genes that are not in the tissue.
        ValueError
            When ``save_to`` holds results of another model or of other settings.
        """
        return run_screen(
            self,
            save_to,
            mode=mode,
            n_propagation=n_propagation,
            derivative=derivative,
            genes=genes,
            cells=cells,
            batch_size=batch_size,
            save_cells=save_cells,
            client=client,
            show_progress_bar=show_progress_bar,
        )

    def input_changes(self, wanted: Sequence[PerturbationSpec], cells: Bools) -> list[InputChange]:
        """Turn wanted values into changes at cells.

        Warns of genes that play no role in any model, and of values above the largest of the tissue.

        Parameters
        ----------
        wanted
            The perturbations.
        cells
            Mask of the cells to perturb.

        Returns
        -------
        One change a perturbation.
        """
        possible = set(self.possible_targets())
        for gene in dict.fromkeys(g for w in wanted for g in w.genes if g not in possible):
            warn(
                f"{gene!r} is no TF, ligand or receptor of any model, so its change stays in itself; "
                "`st.tl.possible_targets(adata)` lists the genes whose change travels."
            )
        return [input_change(w, cells, self.expression, self.adata.var_names) for w in wanted]

    def _simulate(
        self, wanted: Sequence[PerturbationSpec], cells: CellsLike, n_propagation: int, derivative: Derivative
    ) -> list[Perturbation]:
        assert_run(n_propagation, derivative)
        mask = select_cells(cells, self.adata.obs)
        inputs = self.input_changes(wanted, mask)
        changes = self.simulator.propagate(inputs, n_propagation=n_propagation, derivative=derivative)
        modelled = self.model.design.targets.gene
        results = []
        for p, (asked, given) in enumerate(zip(wanted, inputs, strict=True)):
            # the batch holds the perturbed genes of all its members
            columns = np.flatnonzero(np.isin(changes.genes, np.union1d(modelled, given.genes)))
            results.append(
                Perturbation(
                    wanted=asked,
                    cells=mask,
                    gene_index=changes.genes[columns],
                    change=np.ascontiguousarray(changes.values[:, columns, p]),
                    baseline=self.expression,
                    obs_names=self.adata.obs_names,
                    genes=self.adata.var_names,
                    n_propagation=int(n_propagation),
                    derivative=derivative,
                )
            )
        return results
