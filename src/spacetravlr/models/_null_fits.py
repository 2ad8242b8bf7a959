"""Repeat a fit on null targets, which nothing can regulate, and record what it finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._modulators import ADJUSTMENT, INTERCEPT
from spacetravlr._anndata._spatial import category_codes, read_weights_params
from spacetravlr._core.inference.nulls import Sources, counts_at_depth, draw_shift, moved_sources, shuffle_sources
from spacetravlr.models._held_out import target_scores
from spacetravlr.models._replicate import Recipe
from spacetravlr.models.bodies._zero import ZeroBody
from spacetravlr.models.perturb._gene_factory import GeneFactory

if TYPE_CHECKING:
    from anndata import AnnData

    from spacetravlr._types import Floats, Ints

Null = Literal["shuffled", "moved"]

_KNOCKOUTS_AT_ONCE = 5


def _codes(adata: AnnData, key: str) -> Ints:
    return category_codes(adata, key, name="key")[0] if key else np.zeros(adata.n_obs, dtype=np.int64)


class Found(NamedTuple):
    """What a fit finds."""

    targets: pd.DataFrame
    """One row per target: ``r2``, ``gain``, ``kept``, ``active``."""
    sizes: Floats
    """Size of each knockout: root mean square over targets of its mean effect."""
    n_active: int
    """Active terms of all targets."""


@dataclass(frozen=True)
class Exchange:
    """Which cell's counts each cell gets."""

    cell_type: Ints
    coordinates: Floats
    slides: Ints
    depth: Floats

    @classmethod
    def of(cls, recipe: Recipe) -> Exchange:
        """Read types, places and depths of the cells of a fit."""
        adata, params = recipe.model.adata, recipe.model.fit.params
        recorded = adata.uns[_keys.received_params(recipe.model.received_key)]
        weights = read_weights_params(adata, str(recorded["weights_key"]))
        cluster_key, library_key = str(params["cluster_key"]), str(weights.get("library_key", ""))
        return cls(
            _codes(adata, cluster_key),
            np.asarray(adata.obsm[str(weights["spatial_key"])], dtype=np.float64),
            _codes(adata, library_key),
            np.maximum(np.asarray(recipe.counts.sum(axis=1), dtype=np.float64).ravel(), 1.0),
        )

    def draw(self, null: Null, rng: np.random.Generator) -> Sources:
        """Draw one exchange."""
        if null == "shuffled":
            return shuffle_sources(self.cell_type, rng, order_by=self.depth)
        shift = draw_shift(self.coordinates.shape[1], rng)
        return moved_sources(self.coordinates, shift, self.cell_type, self.slides)

    def counts(self, counts: Floats, null: Null, rng: np.random.Generator) -> Floats:
        """Counts of some genes (cells x genes) after one exchange, at the depth of the cells that get them."""
        return counts_at_depth(counts, self.draw(null, rng), self.depth, rng)


def find(factory: GeneFactory, names: Sequence[str], genes: Sequence[str]) -> Found:
    """What a fit found, and what knockouts do in it in one round.

    Parameters
    ----------
    factory
        The fit.
    names
        Its targets, in the order of the result.
    genes
        Genes to knock out.
    """
    fit = factory.model.fit
    scores, terms = target_scores(fit.scores).set_index("target").reindex(list(names)), fit.table
    claims = ~terms["kind"].astype(str).isin([INTERCEPT, *ADJUSTMENT]) & terms["active"].astype(bool)
    active = terms.loc[claims, "target"].astype(str).value_counts().reindex(list(names), fill_value=0)
    table = pd.DataFrame(
        {
            "r2": scores["r2_kept"].to_numpy(float),
            "gain": scores["gain"].to_numpy(float),
            "kept": scores["kept"].astype(str).to_numpy() != ZeroBody.name,
            "active": active.to_numpy(),
        },
        index=pd.Index(list(names), name="target"),
    )
    return Found(table, np.fromiter(_sizes(factory, genes), float, len(genes)), int(active.sum()))


def _sizes(factory: GeneFactory, genes: Sequence[str]) -> Iterator[float]:
    modelled, names = factory.model.design.targets.gene, factory.model.genes
    for start in range(0, len(genes), _KNOCKOUTS_AT_ONCE):
        chunk = list(genes[start : start + _KNOCKOUTS_AT_ONCE])
        for gene, result in zip(chunk, factory.perturb_batch(chunk, n_propagation=1), strict=True):
            others = np.isin(result.gene_index, np.setdiff1d(modelled, names.get_indexer([gene])))
            means = result.change[:, others].mean(axis=0, dtype=np.float64)
            yield float(np.sqrt(np.mean(means**2))) if len(means) else np.nan


def compare_with_nulls(
    observed: Found, nulls: Sequence[Found], genes: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the results of a fit with those of its null fits.

    Returns
    -------
    One row per target, and one row per gene that is knocked out; see :func:`spacetravlr.tl.null_fits`.
    """
    own = observed.targets
    drawn = {name: np.stack([null.targets[name].to_numpy(float) for null in nulls]) for name in own}
    targets = pd.DataFrame(
        {
            "r2": own["r2"],
            "null_r2": drawn["r2"].mean(axis=0),
            "gain": own["gain"],
            "null_gain": drawn["gain"].mean(axis=0),
            "p": empirical_p(own["gain"].to_numpy(float), drawn["gain"]),
            "kept": own["kept"],
            "null_kept": drawn["kept"].mean(axis=0),
            "active": own["active"],
            "null_active": drawn["active"].mean(axis=0),
        }
    )
    sizes = np.stack([null.sizes for null in nulls])
    effects = pd.DataFrame(
        {"size": observed.sizes, "null_size": sizes.mean(axis=0), "p": empirical_p(observed.sizes, sizes)},
        index=pd.Index(list(genes), dtype=object, name="gene"),
    )
    return targets, effects


def empirical_p(observed: Floats, drawn: Floats) -> Floats:
    """Share of the draws, with what was observed as one more, that are at least as large; NaN where nothing was.

    Parameters
    ----------
    observed
        Any number of values.
    drawn
        Draws x values.
    """
    p = (1 + (drawn >= observed).sum(axis=0)) / (1 + len(drawn))
    return np.where(np.isfinite(observed), p, np.nan)
