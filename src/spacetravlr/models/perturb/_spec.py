"""What a user asks a perturbation to do, as arrays; and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from spacetravlr._core.response.start import InputChange
from spacetravlr._utils import warn
from spacetravlr._validators import assert_genes

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints

Value: TypeAlias = float | Literal["max"]
#: A gene to knock out, several of them, or genes with the values wanted.
PerturbationLike: TypeAlias = str | Sequence[str] | Mapping[str, Value]


@dataclass(frozen=True)
class PerturbationSpec:
    """One perturbation in words: genes, and what each is set to or multiplied by."""

    values: dict[str, Value]
    fold: dict[str, float]

    @property
    def genes(self) -> list[str]:
        """The perturbed genes, absolute values first."""
        return [*self.values, *self.fold]

    @property
    def label(self) -> str:
        """Short name, such as ``"FOXO1=0, PAX5 x 0.5"``."""
        parts = [f"{g}={v if v == 'max' else format(v, 'g')}" for g, v in self.values.items()]
        return ", ".join(parts + [f"{g} x {v:g}" for g, v in self.fold.items()])


@dataclass(frozen=True)
class Perturbation:
    """Simulated expression of one perturbation."""

    wanted: PerturbationSpec
    """What was asked for."""
    cells: Bools
    """The cells it was done to, shape (n_cells,)."""
    gene_index: Ints
    """Genes that the simulation can change: modelled and perturbed ones, as indices into ``genes``."""
    change: Floats
    """Simulated minus baseline expression, cells x ``gene_index``."""
    baseline: Floats = field(repr=False)
    """Expression before, cells x genes."""
    obs_names: pd.Index = field(repr=False)
    genes: pd.Index = field(repr=False)
    n_propagation: int
    derivative: str
    error: Floats | None = None
    """Standard error of the change, cells x ``gene_index``, where draws were taken."""
    samples: Floats | None = None
    """Mean change in all cells and in each cell type of the fit, draws x groups x ``gene_index``, where they were."""

    @property
    def simulated(self) -> Floats:
        """Expression after, cells x genes."""
        after = self.baseline.copy()
        # the sum of a value and a change down to zero can miss zero by a rounding
        after[:, self.gene_index] = np.maximum(after[:, self.gene_index] + self.change, 0)
        return after

    def to_frame(self) -> pd.DataFrame:
        """Simulated expression with names, cells x genes."""
        return pd.DataFrame(self.simulated, index=self.obs_names, columns=self.genes)

    def change_frame(self) -> pd.DataFrame:
        """Change of the genes that can change with names, cells x genes."""
        return pd.DataFrame(self.change, index=self.obs_names, columns=self.genes[self.gene_index])


def parse_perturbation(
    perturbation: PerturbationLike | None, fold: Mapping[str, float] | None, genes: pd.Index
) -> PerturbationSpec:
    """Read what a user asks for.

    Raises
    ------
    KeyError
        For unknown genes, with the closest names.
    ValueError
        If nothing is asked for, a gene is asked for twice, or a value is negative, not finite or not a number.
    """
    if perturbation is None:
        values: dict[str, Value] = {}
    elif isinstance(perturbation, str):
        values = {perturbation: 0.0}
    elif isinstance(perturbation, Mapping):
        values = {str(g): v if isinstance(v, str) else _number(v, str(g)) for g, v in perturbation.items()}
    else:
        values = {str(g): 0.0 for g in perturbation}
    folds = {str(g): _number(v, str(g), name="fold") for g, v in (fold or {}).items()}
    if not values and not folds:
        msg = 'Expected `perturbation` or `fold` to name a gene, found none; for example `perturbation="FOXO1"`.'
        raise ValueError(msg)
    if twice := sorted(set(values) & set(folds)):
        msg = f"Expected every gene either in `perturbation` or in `fold`, found `{twice[0]}` in both."
        raise ValueError(msg)
    for gene, value in values.items():
        if isinstance(value, str) and value != "max":
            msg = f"Expected the value of `{gene}` in `perturbation` to be a number or 'max', found `{value!r}`."
            raise ValueError(msg)
    assert_genes([*values, *folds], genes, name="perturbation")
    return PerturbationSpec(values, folds)


def _number(value: Any, gene: str, *, name: str = "perturbation") -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        msg = f"Expected the value of `{gene}` in `{name}` to be a number, found `{value!r}`."
        raise ValueError(msg) from error
    if not np.isfinite(number) or number < 0:
        msg = f"Expected the value of `{gene}` in `{name}` to be finite and at least zero, found `{number}`."
        raise ValueError(msg)
    return number


def input_change(spec: PerturbationSpec, cells: Bools, expression: Floats, genes: pd.Index) -> InputChange:
    """Wanted change at every cell; warns when a value is above anything in the tissue."""
    index = genes.get_indexer(spec.genes)
    change = np.zeros((len(expression), len(index)), dtype=expression.dtype)
    for column, (gene, g) in enumerate(zip(spec.genes, index, strict=True)):
        base = expression[:, g]
        top = base.max()
        if gene in spec.fold:
            value = base * expression.dtype.type(spec.fold[gene])
        else:
            asked = spec.values[gene]
            value = np.full_like(base, top if asked == "max" else asked)
        highest = value[cells].max()
        if highest > top * (1 + 1e-6):
            warn(
                f"The value set for {gene!r} ({highest:.4g}) exceeds the largest value in the tissue ({top:.4g}); "
                "from the second round on it is clipped to this maximum."
            )
        change[cells, column] = (value - base)[cells]
    return InputChange(index.astype(np.int64), change, cells)
