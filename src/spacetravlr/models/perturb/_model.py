"""A fitted model with the tissue it is perturbed in: what single perturbations and screens share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._betas import BetaModel, read_betas
from spacetravlr._anndata._denoised import Denoised, denoised, is_denoised
from spacetravlr._anndata._expression import check_expression, get_expression, layer_name
from spacetravlr._anndata._fitted_on import (
    assert_expression_of_fit,
    assert_received_as_in_fit,
    assert_scale_of_fit,
    assert_signals_of_fit,
    cell_sums,
)
from spacetravlr._anndata._received import assert_received, operators
from spacetravlr._anndata._section import signal_settings
from spacetravlr._anndata._spatial import read_weights_params
from spacetravlr._core.response.propagation import baseline
from spacetravlr._core.response.start import roles
from spacetravlr._utils import warn
from spacetravlr._validators import assert_unique_names
from spacetravlr.models.perturb._simulator import Simulator
from spacetravlr.models.perturb._spec import PerturbationSpec, input_change

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._anndata._modulators import Design
    from spacetravlr._core.design import Terms
    from spacetravlr._core.response.round import Baseline
    from spacetravlr._core.response.start import InputChange
    from spacetravlr._types import Bools, Floats, Ints


logger = logging.getLogger(__name__)

_X = "X"  # how `adata.X` is called where a layer is named


def _fit_layer(fit: BetaModel) -> str | None:
    return str(fit.params.get("layer") or "") or None


@dataclass(frozen=True)
class FittedModel:
    """Coefficients of a fit, and the expression and received ligands of the tissue they belong to.

    Whatever is large is read when it is first needed, checked, and kept.
    """

    adata: AnnData = field(repr=False)
    """Read, never changed."""
    fit: BetaModel = field(repr=False)
    """Coefficients and their tables."""
    betas_key: str
    received_key: str
    layer: str | None
    """Layer with the expression that perturbations start from; ``None`` for ``X``."""
    n_jobs: int | None = None
    same_layer: bool = True
    """Whether perturbations start from the expression of the fit; ``False`` where they start from another layer."""
    expected: bool = False
    """Whether they start from what the counts of the fit let expect, not from a layer that a user asked for."""
    same_signals: bool = True
    """Whether signals are received as in the fit; ``False`` where a user asked for others."""
    adjusted: bool = False
    """Whether changes pass through adjustment terms too."""

    @classmethod
    def read(
        cls,
        adata: AnnData,
        *,
        betas_key: str = _keys.BETAS,
        received_key: str | None = None,
        n_jobs: int | None = None,
        adjusted: bool = False,
    ) -> FittedModel:
        """Read a fit from an AnnData, with the expression that it was fitted on.

        What is there is compared with what was fitted, and other received ligands than those of the fit are warned of.

        Raises
        ------
        KeyError
            If the coefficients are missing.
        ValueError
            If the coefficients do not belong to their table or to these cells.
        """
        assert_unique_names(adata)
        fit = read_betas(adata, betas_key)
        fit_received = str(fit.params.get("received_key") or _keys.RECEIVED)
        same_signals = received_key is None or received_key == fit_received
        if not same_signals and fit.note is not None:
            warn(
                f"The coefficients were fitted with received_key={fit_received!r}, but are used with "
                f"received_key={received_key!r}."
            )
        return cls(
            adata=adata,
            fit=fit,
            betas_key=betas_key,
            received_key=received_key or fit_received,
            layer=_fit_layer(fit),
            n_jobs=n_jobs,
            same_signals=same_signals,
            adjusted=bool(adjusted),
        )

    def starting_from(self, baseline_layer: str | None) -> FittedModel:
        """The model with the expression that perturbations start from.

        Parameters
        ----------
        baseline_layer
            A layer on the scale of the fit, ``"X"`` for ``adata.X``. By default what the counts of the fit let expect,
            and the layer of the fit where it did not use counts.

        Raises
        ------
        ValueError
            If there is a denoised layer of other values.
        """
        if baseline_layer is not None:
            layer = None if baseline_layer == _X else baseline_layer
            return replace(self, layer=layer, same_layer=layer == self.layer)
        counts_layer = str(self.fit.params.get("counts_layer") or "")
        if not counts_layer:
            return self
        cluster_key = str(self.fit.params.get("cluster_key") or "")
        missing = ""
        if counts_layer != _X and counts_layer not in self.adata.layers:
            missing = f"adata.layers[{counts_layer!r}]"
        elif cluster_key and cluster_key not in self.adata.obs:
            missing = f"adata.obs[{cluster_key!r}]"
        is_there = is_denoised(self.adata, list(self.genes[self._used]), layer=self.layer)
        if missing and not is_there:
            warn(
                f"{missing}, which the fit used, was not found, so perturbations start from measured values instead of "
                "denoised ones: a measured zero cannot fall, and falls are underestimated."
            )
            return self
        return replace(self, layer=_keys.DENOISED, same_layer=False, expected=True)

    @property
    def design(self) -> Design:
        """The regressors, with gene indices into :attr:`genes`."""
        return self.fit.design

    @property
    def terms(self) -> Terms:
        """The regressors as changes pass through them: those of adjustment too where they are asked for."""
        return self.design.terms.with_adjustment() if self.adjusted else self.design.terms

    @property
    def genes(self) -> pd.Index:
        """Names of all genes of the tissue."""
        return self.adata.var_names

    @property
    def role_genes(self) -> Ints:
        """Indices of the genes whose change reaches other genes: TFs, ligands and receptors."""
        return roles(self.terms, self.design.signals)

    @property
    def _used(self) -> Ints:
        """Indices of the genes whose expression the model reads or predicts."""
        return np.union1d(self.role_genes, np.union1d(self.design.terms.gene, self.design.targets.gene))

    @property
    def measured(self) -> FittedModel:
        """The model with the expression that it was fitted on; read anew, so that it is not kept in memory."""
        if self.same_layer:
            return self
        return replace(self, layer=_fit_layer(self.fit), same_layer=True, expected=False)

    @cached_property
    def denoised(self) -> Denoised | None:
        """The denoised layer that perturbations start from, if it had to be computed."""
        if not self.expected or _keys.DENOISED in self.adata.layers:
            return None
        params = self.fit.params
        weights: dict[str, Any] = {}
        if (received := self.adata.uns.get(_keys.received_params(self.received_key))) is not None:
            weights = read_weights_params(self.adata, str(received["weights_key"]))
        counts_layer = str(params["counts_layer"])
        logger.info("perturbations start from denoised expression, computed now; `st.pp.denoise` keeps it")
        return denoised(
            self.adata,
            layer=_fit_layer(self.fit),
            counts_layer=None if counts_layer == _X else counts_layer,
            cluster_key=str(params.get("cluster_key") or "") or None,
            spatial_key=str(weights.get("spatial_key", _keys.SPATIAL)),
            library_key=str(weights.get("library_key", "")) or None,
            n_jobs=self.n_jobs,
            advice=", so it is not known what to expect of a cell; pass `baseline_layer=` to start perturbations from "
            "another layer.",
        )

    @cached_property
    def expression(self) -> Floats:
        """Expression that perturbations start from, cells x genes, float32; the genes of the model are checked."""
        if self.denoised is not None:
            return self.denoised.values
        values = get_expression(self.adata, layer=self.layer, check=False)
        check_expression(values[:, self._used], self.genes[self._used], layer=self.layer)
        return values

    @cached_property
    def tissue(self) -> Baseline:
        """Baseline: expression and, from it, received ligands."""
        field: Any = None
        if self.expected:
            field = self.measured.tissue.field  # compared with the fit, before anything is expected of it
        elif len(self.design.signals):
            field = operators(self.adata, self.received_key, n_jobs=self.n_jobs)
        tissue = baseline(self.expression, self.design.signals, field)
        assert_received(tissue.received, self.design.signal_names, self.adata.obs_names, where="the weights")
        if not self.expected:
            self._compare_with_fit(tissue)
        return tissue

    def _compare_with_fit(self, tissue: Baseline) -> None:
        """Raise ``ValueError`` when expression or signals are not what the coefficients were fitted on."""
        if self.fit.note is None or self.fit.sums is None:
            return
        design = self.design
        used = np.union1d(design.terms.gene, design.targets.gene)
        obs_names = self.adata.obs_names
        sums = cell_sums(tissue.expression, used, self.genes, tissue.received, design.signal_names, obs_names)
        where = layer_name(self.layer)
        if not self.same_layer:
            assert_scale_of_fit(self.fit.sums, sums, where=where)
            return
        assert_expression_of_fit(self.fit.sums, sums, where=where)
        if not len(design.signals) or not self.same_signals:
            return
        received = self.adata.uns[_keys.received_params(self.received_key)]
        settings = signal_settings(read_weights_params(self.adata, str(received["weights_key"])), received)
        assert_signals_of_fit(self.fit.note, settings)
        assert_received_as_in_fit(
            self.fit.sums, sums, n_fit=len(self.fit.note["cells"]), normalize=str(settings["normalize"])
        )

    @cached_property
    def simulator(self) -> Simulator:
        """The numbers that perturbations are computed from."""
        return Simulator(self.tissue, self.terms, self.design.targets, betas=self.fit.betas, n_jobs=self.n_jobs)

    def possible_targets(self) -> list[str]:
        """Genes that can be perturbed: TFs, ligands and receptors of the model, in the order of ``var``."""
        return list(self.genes[self.role_genes])

    def cell_types(self) -> tuple[Ints, list[str]]:
        """Cell type of each cell as a code, -1 for none, and the names; warns when the fit does not know them."""
        key = str(self.fit.params.get("cluster_key") or "")
        if not key:
            return np.full(self.adata.n_obs, -1), []
        if key not in self.adata.obs:
            warn(f"The cell types of the fit, adata.obs[{key!r}], no longer exist: summaries by type are left out.")
            return np.full(self.adata.n_obs, -1), []
        types = pd.Categorical(self.adata.obs[key]).remove_unused_categories()
        names = [str(c) for c in types.categories]
        scores = self.fit.scores  # none of coefficients that were read from elsewhere
        scored = set(scores["cell_type"].astype(str)) if len(scores) and "cell_type" in scores else set(names)
        if unknown := [name for name in names if name not in scored]:
            warn(
                f"The fit has no scores for the cell types {', '.join(map(repr, unknown[:5]))} in adata.obs[{key!r}], "
                f"only for {', '.join(map(repr, sorted(scored)[:5]))}: their `r2` is NaN. Were they renamed?"
            )
        return types.codes.astype(np.int64), names

    def input_changes(self, specs: Sequence[PerturbationSpec], cells: Bools) -> list[InputChange]:
        """Turn wanted values into changes at cells.

        Warns of genes that play no role in any model, and of values above the largest of the tissue.

        Parameters
        ----------
        specs
            The perturbations.
        cells
            Mask of the cells to perturb.

        Returns
        -------
        One change per perturbation.

        Raises
        ------
        ValueError
            If a gene to perturb holds negative or non-finite values.
        """
        index = self.genes.get_indexer(list(dict.fromkeys(g for spec in specs for g in spec.genes)))
        others = np.setdiff1d(index, self.role_genes)
        check_expression(self.expression[:, others], self.genes[others], layer=self.layer)
        for gene in self.genes[index[np.isin(index, others)]]:
            warn(
                f"{gene!r} is not a TF, ligand or receptor in any model, so perturbing it affects no other gene; "
                "`st.tl.possible_targets(adata)` lists the genes whose perturbation can have downstream effects."
            )
        return [input_change(spec, cells, self.expression, self.genes) for spec in specs]
