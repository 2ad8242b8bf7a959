"""What a user asks a screen to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from spacetravlr._validators import assert_genes, assert_non_negative, assert_one_of
from spacetravlr.models.perturb._cells import CellsLike
from spacetravlr.models.perturb._simulator import assert_run

if TYPE_CHECKING:
    from spacetravlr._core.response.round import Derivative

ScreenMode = Literal["knockout", "overexpression"]


@dataclass(frozen=True)
class ScreenOptions:
    """Options of a screen, as :func:`spacetravlr.tl.genome_screen` describes them."""

    mode: ScreenMode = "knockout"
    n_propagation: int = 4
    derivative: Derivative = "product_rule"
    genes: Sequence[str] | str | None = None
    cells: CellsLike = None
    batch_size: int | None = None
    save_cells: bool = False
    n_samples: int = 0
    client: Any = None
    show_progress_bar: bool | None = None

    def check(self, known: pd.Index) -> None:
        """Raise on what cannot be right, before any work; ``known`` are the genes of the tissue."""
        assert_one_of(self.mode, get_args(ScreenMode), name="mode")
        assert_run(self.n_propagation, self.derivative)
        if self.genes is not None:
            assert_genes([self.genes] if isinstance(self.genes, str) else self.genes, known, name="genes")
        assert_non_negative(self.n_samples, name="n_samples")
        if self.n_samples and self.client is not None:
            msg = "Expected `n_samples` only without `client`: workers cannot compute draws."
            raise ValueError(msg)
        if self.batch_size is not None and self.batch_size < 1:
            msg = f"Expected `batch_size` to be at least 1 or None, found `{self.batch_size}`."
            raise ValueError(msg)

    def chosen_genes(self, possible: Sequence[str]) -> list[str]:
        """Genes to perturb, each once; all ``possible`` ones by default."""
        genes = possible if self.genes is None else [self.genes] if isinstance(self.genes, str) else self.genes
        if not len(genes):
            msg = "Expected the model to have at least one TF, ligand or receptor to perturb, found none."
            raise ValueError(msg)
        return list(dict.fromkeys(genes))

    @property
    def run(self) -> dict[str, Any]:
        """What the results depend on, as plain values."""
        run = {"mode": self.mode, "n_propagation": int(self.n_propagation), "derivative": self.derivative}
        return run | ({"n_samples": int(self.n_samples)} if self.n_samples else {})
