"""The coefficients of one target as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr._anndata._columns import with_names
from spacetravlr._anndata._modulators import INTERCEPT, build_design, column_names
from spacetravlr._core.design import Kind, Signals, Terms, term_values
from spacetravlr._core.response.derivatives import splash
from spacetravlr._validators import assert_genes

if TYPE_CHECKING:
    from spacetravlr._anndata._betas import BetaModel
    from spacetravlr._types import Floats


class _Inputs(NamedTuple):
    """A frame's coefficients and what they multiply, as arrays whose indices agree."""

    betas: Floats
    terms: Terms
    signals: Signals
    expression: Floats
    received: Floats
    genes: pd.Index


class BetaFrame(pd.DataFrame):
    """Coefficients of one target, cells x regressors.

    Columns are named as in the published method: ``beta0`` (the intercept), ``beta_<TF>``,
    ``beta_<ligand>$<receptor>`` and ``beta_<ligand>#<TF>``. ``beta_<receptor>`` is the main effect of a receptor, an
    adjustment term. A BetaFrame is a :class:`pandas.DataFrame` that keeps its target and the meaning of its columns
    through slicing, copying and pickling.

    Attributes
    ----------
    target
        The gene whose coefficients these are.
    terms
        One row per column: target, kind, tf, ligand, receptor, range, and the results of the fit.
    """

    _metadata: ClassVar[list[str]] = ["target", "terms"]
    target: str = ""
    terms: pd.DataFrame | None = None

    @property
    def _constructor(self) -> Callable[..., BetaFrame]:
        return BetaFrame

    @classmethod
    def from_array(cls, values: Floats, *, target: str, terms: pd.DataFrame, obs_names: pd.Index) -> BetaFrame:
        """Label an array of coefficients.

        Parameters
        ----------
        values
            Cells x (intercept and terms).
        target
            The gene whose coefficients these are.
        terms
            Terms table of the target, one row per column of ``values``, in that order.
        obs_names
            Cell names.

        Returns
        -------
        The labelled coefficients.

        Raises
        ------
        ValueError
            If ``terms`` does not have one row per column.
        """
        if len(terms) != values.shape[1]:
            msg = f"Expected `terms` to have one row for each of the {values.shape[1]} columns, found `{len(terms)}`."
            raise ValueError(msg)
        names = column_names(terms)
        frame = cls(values, index=obs_names, columns=names)
        frame.target = target
        frame.terms = terms.set_axis(names, axis=0)
        return frame

    @classmethod
    def from_model(cls, model: BetaModel, target: str) -> BetaFrame:
        """Extract one target from a fitted model.

        Parameters
        ----------
        model
            Fitted model, read from an AnnData.
        target
            A fitted gene.

        Returns
        -------
        Its coefficients.

        Raises
        ------
        KeyError
            If ``target`` was not fitted; the message suggests the closest fitted genes.
        """
        values = model.of(target)
        columns = model.design.targets.columns_of(model.target_names.index(target))
        return cls.from_array(values, target=target, terms=model.table.iloc[columns], obs_names=model.obs_names)

    @property
    def modulator_genes(self) -> list[str]:
        """Genes that play a role in this target's model: TFs, ligands and receptors, sorted."""
        terms = self._own_terms()
        names = pd.unique(pd.concat([terms[c].astype(str) for c in ("tf", "ligand", "receptor")]))
        return sorted(set(names) - {""})

    def splash(
        self,
        expression: pd.DataFrame,
        received: pd.DataFrame,
        *,
        received_tfl: pd.DataFrame | None = None,
        scale_factor: float = 1.0,
        beta_cap: float | None = None,
        adjusted: bool = False,
    ) -> pd.DataFrame:
        r"""Compute the derivative of the target with respect to each modulator in the same cell.

        Received ligands are treated as separate variables:

        .. math::

            \partial H / \partial TF_m &= b^{TF}_m + \sum_{p: tf(p)=m} b^{TFL}_p L_p \\
            \partial H / \partial R_i &= \sum_{k: receptor(k)=i} b^{LR}_k L_k \; [R_i > 0] \\
            \partial H / \partial L_i &= \sum_{k: ligand(k)=i} b^{LR}_k R_k + \sum_{p: ligand(p)=i} b^{TFL}_p TF_p

        For a gene with several roles, the derivatives are summed. Main effects of receptors and ligands are
        adjustment terms and are left out unless ``adjusted=True``.

        Parameters
        ----------
        expression
            Cells x genes, with every modulator. Rows are matched by name.
        received
            Received ligands, cells x signals, as in ``adata.uns["received_ligands"]``.
        received_tfl
            Received ligands of the ligand-TF terms, as in ``adata.uns["received_ligands_tfl"]``. Defaults to
            ``received``, which must then also contain these ligands.
        scale_factor
            Factor on the contributions of ligand-receptor and ligand-TF terms.
        beta_cap
            Clip the summed derivatives to ``[-beta_cap, beta_cap]``.
        adjusted
            Add the coefficients of adjustment terms, so that the result is the derivative of :meth:`predict`.

        Returns
        -------
        Derivatives of the target, cells x modulator genes.

        Raises
        ------
        KeyError
            If a modulator or a received ligand is missing.
        ValueError
            If the tables lack some of the cells.
        """
        inputs = self._inputs(expression, received, received_tfl)
        result = splash(
            inputs.betas,
            inputs.terms.with_adjustment() if adjusted else inputs.terms,
            inputs.signals,
            expression=inputs.expression,
            received=inputs.received,
            scale_factor=scale_factor,
            beta_cap=beta_cap,
        )
        return pd.DataFrame(result.values, index=self.index, columns=inputs.genes[result.genes])

    def predict(
        self, expression: pd.DataFrame, received: pd.DataFrame, *, received_tfl: pd.DataFrame | None = None
    ) -> pd.Series:
        """Evaluate the model: the intercept plus every coefficient times its regressor, including adjustment terms.

        Parameters
        ----------
        expression
            Cells x genes, with every modulator. Rows are matched by name.
        received
            Received ligands, cells x signals.
        received_tfl
            Received ligands of the ligand-TF terms, as in ``adata.uns["received_ligands_tfl"]``. Defaults to
            ``received``, which must then also contain these ligands.

        Returns
        -------
        Predicted expression of the target in each cell.

        Raises
        ------
        KeyError
            If a modulator or a received ligand is missing.
        ValueError
            If the tables lack some of the cells.
        """
        inputs = self._inputs(expression, received, received_tfl)
        total = (inputs.betas * term_values(inputs.expression, inputs.received, inputs.terms)).sum(axis=1)
        if "beta0" in self.columns:
            total = total + self["beta0"].to_numpy()
        return pd.Series(total, index=self.index, name=self.target)

    def _own_terms(self) -> pd.DataFrame:
        """Rows of ``terms`` for the columns that are still there, without the intercept."""
        if self.terms is None:
            msg = (
                "Expected `terms` to describe each column, found None; create the frame with "
                "`st.get.betas(adata, target)`."
            )
            raise ValueError(msg)
        terms = self.terms.loc[[c for c in self.columns if c in self.terms.index]]
        return terms[terms["kind"].astype(str) != INTERCEPT]

    def _inputs(self, expression: pd.DataFrame, received: pd.DataFrame, received_tfl: pd.DataFrame | None) -> _Inputs:
        table = self._own_terms()
        assert_genes(self.modulator_genes, expression.columns, name="modulators", where="the columns of `expression`")
        genes = pd.Index(self.modulator_genes)
        if table.empty:
            nothing, index = np.empty((len(self), 0), dtype=np.float32), np.empty(0, dtype=np.int32)
            terms, signals = Terms(index, index, index), Signals(index, index.astype(bool))
            return _Inputs(nothing, terms, signals, nothing, nothing, genes)
        design = build_design(table, genes.union([self.target], sort=False), [self.target])
        terms = design.terms.take(design.targets.terms_of(0))
        values = self[list(table.index)].to_numpy()
        names, signals = design.signal_names, design.signals
        if received_tfl is None:
            table_of_tfl, name_of_tfl = received, "received"
        else:
            table_of_tfl, name_of_tfl = received_tfl, "received_tfl"
        # signals of ligand-TF terms may come from a table of their own: its columns stand behind those of the pairs
        paired = terms.kind == Kind.TFL
        of_pairs, of_tfl = (np.unique(terms.signal[chosen & (terms.signal >= 0)]) for chosen in (~paired, paired))
        parts = [
            _rows(with_names(table), self.index, [names[s] for s in source], name=name).astype(values.dtype, copy=False)
            for table, source, name in ((received, of_pairs, "received"), (table_of_tfl, of_tfl, name_of_tfl))
        ]
        signal = terms.signal.copy()
        in_pair = ~paired & (signal >= 0)
        signal[in_pair] = np.searchsorted(of_pairs, signal[in_pair])
        signal[paired] = len(of_pairs) + np.searchsorted(of_tfl, signal[paired])
        source = np.concatenate([of_pairs, of_tfl])
        local = _rows(expression, self.index, list(genes), name="expression").astype(values.dtype, copy=False)
        return _Inputs(
            values,
            Terms(terms.kind, terms.gene, signal),
            Signals(signals.ligand[source], signals.contact[source]),
            local,
            np.hstack(parts),
            genes,
        )


def _rows(frame: pd.DataFrame, cells: pd.Index, columns: list[str], *, name: str) -> Floats:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        hint = (
            " and pass adata.uns['received_ligands_tfl'] as `received_tfl` for the ligands of ligand-TF terms"
            if name == "received"
            else ""
        )
        msg = (
            f"Expected `{name}` to have the columns {columns[:5]}, found {missing[:5]} missing; "
            f"call `st.pp.received_ligands` with the pairs that the model was fitted with{hint}."
        )
        raise KeyError(msg)
    index = frame.index.get_indexer(cells)
    if (index < 0).any():
        stranger = cells[index < 0][0]
        msg = f"Expected `{name}` to hold every cell of the coefficients, found {stranger!r} missing."
        raise ValueError(msg)
    return np.ascontiguousarray(frame[columns].to_numpy()[index])
