"""Repeat a fit on two independent halves of its counts, and measure how well the two agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from spacetravlr import _keys
from spacetravlr._anndata._columns import as_stored
from spacetravlr._anndata._counts import halves, scale_of_counts
from spacetravlr._anndata._expression import get_expression, layer_name, log_base, read_matrix
from spacetravlr._anndata._modulators import ADJUSTMENT, COLUMNS, INTERCEPT
from spacetravlr._anndata._received import operators
from spacetravlr._anndata._spatial import read_weights_params
from spacetravlr._core.design import term_values
from spacetravlr._core.scores import LEAST_CEILING, centred_by_type, squared_errors, squares_within_types
from spacetravlr._core.surfaces.search import SurfaceOptions
from spacetravlr._utils import numba_threads
from spacetravlr._validators import assert_genes, assert_key, listed
from spacetravlr.models._held_out import target_scores
from spacetravlr.models.fit._options import FitOptions
from spacetravlr.models.fit._run import Fit, run_fit
from spacetravlr.models.perturb._gene_factory import GeneFactory
from spacetravlr.models.perturb._model import FittedModel

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints

_FRACTION = 0.5
_COUNTS = "counts"  # of a half
_KNOCKOUTS_AT_ONCE = 5
#: Settings of a fit that decide what comes out.
_NEEDED = (
    "body", "noise", "score_threshold", "n_folds", "min_cells", "group_penalty", "l1_penalty", "solver", "block_size",
    "evidence_threshold", "network", "rng_seed",
)  # fmt: skip


class Replica(NamedTuple):
    """The pipeline on one half of the counts."""

    adata: AnnData
    """Genes of the model, with the coefficients of the half."""
    fit: Fit


class Agreement(NamedTuple):
    """How far two halves agree."""

    targets: pd.DataFrame
    """One row per target."""
    effects: pd.DataFrame
    """One row per gene that was knocked out."""


@dataclass(frozen=True)
class Recipe:
    """The inputs and settings of a fit, checked, so that it can be repeated on other counts of the same cells."""

    model: FittedModel
    counts_layer: str
    """``"X"`` for ``adata.X``."""
    counts: Any = field(repr=False)
    """Cells x genes, array or CSR matrix."""
    genes: Ints = field(repr=False)
    """Genes of the model, indices into ``adata.var_names``."""
    scale: Floats = field(repr=False)
    """Of the counts in each cell: what was fitted is ``log1p(scale * count) / unit``."""
    unit: float
    """Logarithm of the base."""
    options: FitOptions = field(repr=False)

    @classmethod
    def read(
        cls,
        adata: AnnData,
        *,
        betas_key: str = _keys.BETAS,
        counts_layer: str | None = None,
        n_jobs: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Recipe:
        """Read what the fit noted, and find out how its values follow from counts.

        Raises
        ------
        KeyError
            If the coefficients or a layer are missing.
        ValueError
            If it is not known how the coefficients were fitted, or on what, or values do not follow from counts.
        """
        model = FittedModel.read(adata, betas_key=betas_key, n_jobs=n_jobs)
        params = model.fit.params
        _assert_fitted_here(params, betas_key)
        counts_layer = counts_layer or str(params.get("counts_layer", "")) or None
        if counts_layer is None:
            msg = (
                f"Expected `counts_layer` to name the counts behind {layer_name(model.layer)}, found None, and the fit "
                'did not use counts; pass the layer with raw counts, or "X" for adata.X.'
            )
            raise ValueError(msg)
        where = None if counts_layer == "X" else counts_layer
        if where is not None:
            assert_key(adata, "layers", where, name="counts_layer")
        if cluster_key := str(params["cluster_key"]):
            assert_key(adata, "obs", cluster_key, name="cluster_key", hint="The fit used these cell types.")
        design = model.design
        genes = np.unique(np.concatenate([design.terms.gene, design.targets.gene, design.signals.ligand]))
        counts, unit = read_matrix(adata, where), float(np.log(log_base(adata)))
        scale = _scale(adata, genes, counts, unit, model.layer, where)
        _ = model.tissue  # compares expression and signals with those of the fit
        options = _options(params, n_jobs, show_progress_bar)
        return cls(model, counts_layer, counts, genes, scale, unit, options)

    def halves(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """Draw two halves of the counts."""
        return halves(self.counts, _FRACTION, rng, layer_name(None if self.counts_layer == "X" else self.counts_layer))

    def replay(self, counts: Any) -> Replica:
        """Normalise a half of the counts, receive its signals and fit it."""
        terms = self.model.fit.table
        return self._fit(self._section(counts[:, self.genes], self._names, terms, _FRACTION))

    @property
    def target_counts(self) -> Floats:
        """Counts of the targets, cells x targets."""
        counts = self.counts[:, self.model.design.targets.gene]
        return np.asarray(counts.toarray() if sparse.issparse(counts) else counts)

    def replay_exchanged(self, counts: Floats) -> Replica:
        """Fit targets that have other counts; regulators, signals and everything else stay as they are.

        Targets are genes of their own there, named by :attr:`exchanged_names`, so that a target which regulates others
        still does.

        Parameters
        ----------
        counts
            Of the targets, as :attr:`target_counts`.
        """
        names, terms = self.exchanged_names, self.model.fit.table
        own = self.counts[:, self.genes]
        whole = sparse.hstack([own, sparse.csr_matrix(counts)]) if sparse.issparse(own) else np.hstack([own, counts])
        renamed = terms.assign(target=terms["target"].astype(str).map(names))
        return self._fit(self._section(whole, self._names.append(pd.Index(list(names.values()))), renamed, 1.0))

    @property
    def exchanged_names(self) -> dict[str, str]:
        """Name of each target in :meth:`replay_exchanged`."""
        taken = set(self._names)
        suffix = " exchanged"
        while any(f"{name}{suffix}" in taken for name in taken):
            suffix += " again"
        return {
            str(self.model.genes[gene]): f"{self.model.genes[gene]}{suffix}" for gene in self.model.design.targets.gene
        }

    @property
    def _names(self) -> pd.Index:
        return self.model.adata.var_names[self.genes]

    def _fit(self, adata: AnnData) -> Replica:
        fit = run_fit(adata, None, self.options)
        adata.obsm[_keys.BETAS] = fit.result.betas
        adata.uns[_keys.BETAS] = {"terms": fit.result.terms, "scores": fit.result.scores, "params": fit.params}
        return Replica(adata, fit)

    def _section(self, counts: Any, names: pd.Index, terms: pd.DataFrame, fraction: float) -> AnnData:
        """The cells with values and signals of other counts; places, types, weights and regressors are as they were.

        Parameters
        ----------
        counts
            Cells x genes.
        names
            Of the genes.
        terms
            Rows of the fit, whose targets may have other names.
        fraction
            Which part of all molecules the counts are: values are brought to the scale of all of them.
        """
        whole, design, params = self.model.adata, self.model.design, self.model.fit.params
        recorded = dict(whole.uns[_keys.received_params(self.model.received_key)])
        weights_key = str(recorded["weights_key"])
        weights = read_weights_params(whole, weights_key)
        cluster_key, library_key = str(params["cluster_key"]), str(weights.get("library_key", ""))
        if sparse.issparse(counts):
            counts = counts.tocsr()
        half = AnnData(
            self._normalised(counts, fraction),
            obs=whole.obs[list(dict.fromkeys(key for key in (cluster_key, library_key) if key))].copy(),
            var=pd.DataFrame(index=names),
        )
        half.layers[_COUNTS] = counts
        half.obsm[str(weights["spatial_key"])] = whole.obsm[str(weights["spatial_key"])]
        for key in (weights_key, _keys.contact_weights(weights_key)):
            if key in whole.obsp:
                half.obsp[key] = whole.obsp[key]
        half.uns |= {key: whole.uns[key] for key in (weights_key, "log1p") if key in whole.uns}
        half.uns[_keys.received_params(_keys.RECEIVED)] = recorded | {"layer": ""}
        received = np.zeros((half.n_obs, 0), dtype=np.float32)
        if len(design.signals):
            ligands = list(whole.var_names[design.signals.ligand])
            received = operators(half, n_jobs=self.options.n_jobs).apply(
                get_expression(half, ligands), design.signals.contact
            )
        signals = pd.DataFrame(received, index=half.obs_names, columns=design.signal_names)
        half.uns[_keys.RECEIVED] = as_stored(signals)
        half.uns[_keys.received_tfl(_keys.RECEIVED)] = signals.iloc[:, :0]
        half.uns[_keys.MODULATORS] = {
            "table": terms.loc[terms["kind"].astype(str) != INTERCEPT, list(COLUMNS)],
            "params": {"cluster_key": cluster_key, "layer": "", "received_key": _keys.RECEIVED},
        }
        return half

    def _normalised(self, counts: Any, fraction: float) -> Any:
        """What is fitted: on the scale of all counts, so that a part of them has the same coefficients."""
        scale = (self.scale / fraction)[:, None]
        if sparse.issparse(counts):
            scaled = counts.multiply(scale).tocsr()
            scaled.data = (np.log1p(scaled.data) / self.unit).astype(np.float32)
            return scaled
        return (np.log1p(counts * scale) / self.unit).astype(np.float32)


def _assert_fitted_here(params: Mapping[str, Any], betas_key: str) -> None:
    """Raise ``ValueError`` unless the fit noted all that decides what comes out, and was a fit of these cells."""
    if "position" in params:
        msg = (
            f"Expected adata.uns[{betas_key!r}] to come from a fit of these cells, found transferred coefficients; use "
            "the reference and its fit."
        )
        raise ValueError(msg)
    if missing := [name for name in _NEEDED if name not in params]:
        msg = (
            f"Expected adata.uns[{betas_key!r}]['params'] to record how the coefficients were fitted, found no "
            f"{listed(missing)}; call `st.tl.fit_betas` first."
        )
        raise ValueError(msg)


def _scale(
    adata: AnnData, genes: Ints, counts: Any, unit: float, layer: str | None, counts_layer: str | None
) -> Floats:
    """Scale of the counts of each cell; raises ``ValueError`` where values do not follow from counts by one."""
    values = get_expression(adata, list(adata.var_names[genes]), layer=layer).astype(np.float64)
    return scale_of_counts(
        values * unit, counts[:, genes], layer=f"{layer_name(layer)}, which was fitted,",
        counts_layer=layer_name(counts_layer),
        advice=". Imputation and other normalisations cannot be repeated: fit the result of `sc.pp.normalize_total` "
        "and `sc.pp.log1p` on the counts.",
    )  # fmt: skip


def _options(params: Mapping[str, Any], n_jobs: int | None, show_progress_bar: bool | None) -> FitOptions:
    """Options of the fit as it noted them; folds and starts of networks too are the same."""
    noise = str(params["noise"])
    network = None
    if settings := dict(params["network"]):
        from spacetravlr.nn import NetworkConfig

        network = NetworkConfig(**{name: value for name, value in settings.items() if name != "trainer_kwargs"})
    return FitOptions(
        body=str(params["body"]),  # type: ignore[arg-type]  # read back as plain text
        noise=noise,  # type: ignore[arg-type]
        counts_layer=None if noise == "none" else _COUNTS,
        score_threshold=float(params["score_threshold"]),
        n_folds=int(params["n_folds"]),
        min_cells=int(params["min_cells"]),
        fdr=float(params.get("fdr", FitOptions.fdr)),
        n_draws=0,  # nothing is drawn from what is compared
        group_penalty=_number(params["group_penalty"]),
        l1_penalty=_number(params["l1_penalty"]),
        solver=str(params["solver"]),  # type: ignore[arg-type]
        block_size=int(params["block_size"]),
        surface=SurfaceOptions(keep_threshold=float(params["evidence_threshold"])),
        network=network,
        rng=int(params["rng_seed"]),
        n_jobs=n_jobs,
        show_progress_bar=show_progress_bar,
    )


def _number(value: Any) -> float | None:
    return None if isinstance(value, str) else float(value)


def genes_to_knock_out(model: FittedModel, genes: Sequence[str] | str | None, n_most: int) -> list[str]:
    """The genes asked for, or those that the fit gives the largest importance, in all their roles and all targets.

    Raises
    ------
    KeyError
        For genes whose perturbation reaches no other gene.
    """
    possible = model.possible_targets()
    if genes is not None:
        wanted = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
        assert_genes(wanted, possible, name="genes", where="the genes that can be perturbed")
        return wanted
    terms = model.fit.table[~model.fit.table["kind"].astype(str).isin(ADJUSTMENT)]
    importance = terms["importance"].to_numpy(float)
    total = pd.Series(0.0, index=possible)
    for role in ("tf", "ligand", "receptor"):
        total = total.add(pd.Series(importance).groupby(terms[role].astype(str).to_numpy()).sum(), fill_value=0.0)
    return list(total.reindex(possible).sort_values(ascending=False, kind="stable").index[:n_most])


def compare(first: Replica, second: Replica, genes: Sequence[str], n_jobs: int | None) -> Agreement:
    """How far the fits of two halves agree, and how well each predicts the other half."""
    targets = pd.concat(
        [
            _prediction(first, second),
            _coefficients(first, second, n_jobs),
            _kept(first, "kept_a"),
            _kept(second, "kept_b"),
        ],
        axis=1,
    )
    effects = pd.DataFrame(
        list(_effects(first.adata, second.adata, genes, n_jobs)),
        index=pd.Index(list(genes), dtype=object, name="gene"),
        columns=["mean_effects", "cell_effects", "size"],
        dtype=float,
    )
    return Agreement(targets.rename_axis("target"), effects)


def _prediction(first: Replica, second: Replica) -> pd.DataFrame:
    """Held-out R2 of each half's predictions of the other, what bounds it, and their ratio, at reporting cells."""
    inputs = first.fit.inputs
    rows, types = inputs.report, inputs.cell_type[inputs.report]
    values, r2 = [], []
    for replica in (first, second):
        values.append(replica.fit.inputs.expression[rows][:, inputs.targets.gene].astype(np.float64))
    for replica, other in ((first, values[1]), (second, values[0])):
        assert replica.fit.result.held_out is not None
        errors = squared_errors(other, replica.fit.result.held_out, types, inputs.n_types).sum(axis=1)
        total = squares_within_types(other, types, inputs.n_types).sum(axis=1)
        r2.append(1 - np.divide(errors, total, out=np.full(len(total), np.nan), where=total > 0))
    a, b = (centred_by_type(v, types, inputs.n_types).astype(np.float64) for v in values)
    reliability = [agreement(a[:, t], b[:, t]) for t in range(a.shape[1])]
    table = pd.DataFrame({"r2": np.mean(r2, axis=0), "reliability": reliability}, index=inputs.target_names)
    return table.assign(explained=explained(table))


def explained(table: pd.DataFrame) -> pd.Series:
    """Share of the predictable variance that is predicted; NaN if almost nothing is predictable."""
    return table["r2"] / table["reliability"].where(table["reliability"] >= LEAST_CEILING)


def _coefficients(first: Replica, second: Replica, n_jobs: int | None) -> pd.DataFrame:
    """Agreement of coefficients, in units of what they contribute, and of the sets of active terms."""
    model, terms = first.fit, first.fit.result.terms
    claims = (~terms["kind"].astype(str).isin([INTERCEPT, *ADJUSTMENT])).to_numpy()
    active = [replica.fit.result.terms["active"].to_numpy(bool) & claims for replica in (first, second)]
    design, rows = model.tissue.design, {}
    for t, name in enumerate(model.inputs.target_names):
        columns = design.targets.columns_of(t)
        used = claims[columns][1:]
        spread = np.sqrt(np.mean([_spread(replica.fit, t, n_jobs) ** 2 for replica in (first, second)], axis=0))
        a, b = (
            np.asarray(replica.fit.result.betas[:, columns])[:, 1:][:, used] * spread[used]
            for replica in (first, second)
        )
        in_a, in_b = (mask[columns] for mask in active)
        either = int((in_a | in_b).sum())
        rows[name] = {
            "coefficients": agreement(a, b),
            "active_jaccard": (in_a & in_b).sum() / either if either else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _spread(fit: Fit, t: int, n_jobs: int | None) -> Floats:
    """Standard deviation of each term of a target within cell types."""
    inputs = fit.inputs
    with numba_threads(n_jobs):
        values = term_values(inputs.expression, inputs.received, inputs.terms.take(inputs.targets.terms_of(t)))
    centred = centred_by_type(values, inputs.cell_type, inputs.n_types)
    return np.sqrt(np.mean(centred**2, axis=0, dtype=np.float64))


def _kept(replica: Replica, name: str) -> pd.Series:
    table = target_scores(replica.fit.result.scores)
    return pd.Series(table["kept"].astype(str).to_numpy(), index=table["target"].astype(str).to_numpy(), name=name)


def _effects(
    first: AnnData, second: AnnData, genes: Sequence[str], n_jobs: int | None
) -> Iterator[tuple[float, float, float]]:
    """Agreement of what each knockout does to the targets: on average over cells, in each cell, and how large it is."""
    factories = [GeneFactory(half, n_jobs=n_jobs) for half in (first, second)]
    modelled = factories[0].model.design.targets.gene
    names = factories[0].model.genes
    for start in range(0, len(genes), _KNOCKOUTS_AT_ONCE):
        chunk = list(genes[start : start + _KNOCKOUTS_AT_ONCE])
        for gene, *results in zip(chunk, *(factory.perturb_batch(chunk) for factory in factories), strict=True):
            others = np.setdiff1d(modelled, names.get_indexer([gene]))
            a, b = (r.change[:, np.isin(r.gene_index, others)].astype(np.float64) for r in results)
            means = a.mean(axis=0), b.mean(axis=0)
            size = float(np.sqrt(np.mean([m**2 for m in means]))) if len(others) else np.nan
            yield agreement(*means), agreement(a, b), size


def agreement(a: Floats, b: Floats) -> float:
    """Correlation about zero: zero means no effect. NaN where both are zero throughout, zero where one is."""
    a, b = np.ravel(a), np.ravel(b)
    norms = float(np.sqrt(np.dot(a, a))), float(np.sqrt(np.dot(b, b)))
    if not any(norms):
        return np.nan
    return float(np.dot(a, b) / (norms[0] * norms[1])) if all(norms) else 0.0


def over_splits(found: Sequence[Agreement]) -> Agreement:
    """Mean over splits and, of several, the standard deviation (columns ``*_sd``); of names the most frequent."""
    targets = _summary([each.targets for each in found])
    targets["explained"] = explained(targets)
    return Agreement(targets, _summary([each.effects for each in found]))


def _summary(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if len(tables) == 1:
        return tables[0]
    joined = pd.concat(tables).groupby(level=0, sort=False)
    numeric = [name for name in tables[0] if pd.api.types.is_numeric_dtype(tables[0][name])]
    parts = [joined[[name]].mean() if name in numeric else joined[[name]].agg(_most_frequent) for name in tables[0]]
    parts.append(joined[numeric].std().add_suffix("_sd"))
    return pd.concat(parts, axis=1).reindex(tables[0].index)


def _most_frequent(names: pd.Series) -> Any:
    return names.mode().iloc[0]
