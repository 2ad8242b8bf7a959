"""What several benchmarks share: the steps of a session, measures of recovery, tables."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

import spacetravlr as st
from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._modulators import COLUMNS, Design, build_design, read_modulators
from spacetravlr._anndata._received import read_received
from spacetravlr._core.design import Kind, term_values

TERM = list(COLUMNS)


class Stopwatch:
    """Seconds of named stages, in the order they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


class Regression(NamedTuple):
    """Targets and regressors of a prepared AnnData as arrays."""

    design: Design
    values: np.ndarray
    """Cells x distinct terms."""
    y: np.ndarray
    """Cells x targets."""
    names: list[str]


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB, and of its worker processes that still run.

    Pages that processes share are counted for each, so with workers it is an upper bound.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6 / 1.024) + _peak_of_children_gb()


def _peak_of_children_gb() -> float:
    """The same of the children, where the system tells."""
    kib = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(OSError):
                lines = Path(f"/proc/{child}/status").read_text().splitlines()
                kib += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return 1.024e-6 * kib


def regression(adata: AnnData, targets: Sequence[str] | None = None) -> Regression:
    """Read targets and regressors back from what ``pp`` wrote."""
    table, params = read_modulators(adata)
    design = build_design(table, adata.var_names, targets)
    received = read_received(adata, params.get("received_key", _keys.RECEIVED))
    expression = get_expression(adata, layer=params["layer"] or None)
    lr, tfl = (frame.reindex(columns=design.signal_names).to_numpy(np.float32) for frame in (received.lr, received.tfl))
    values = term_values(expression, np.nan_to_num(lr), design.terms)
    is_tfl = design.terms.kind == Kind.TFL
    values[:, is_tfl] = term_values(expression, np.nan_to_num(tfl), design.terms.take(np.flatnonzero(is_tfl)))
    names = list(adata.var_names[design.targets.gene])
    return Regression(design, values, expression[:, design.targets.gene], names)


def within(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Values minus their mean within the cell type."""
    onehot = np.eye(int(types.max()) + 1)[types]
    return values - onehot @ ((onehot.T @ values) / onehot.sum(axis=0)[:, None])


def field_correlations(estimate: np.ndarray, truth: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Correlation of each coefficient with its true field within cell types.

    An estimate that does not vary within types scores 0; a true field that does not vary has no score (NaN).
    """
    estimate, truth = within(estimate.astype(float), types), within(truth.astype(float), types)
    norms = np.linalg.norm(estimate, axis=0), np.linalg.norm(truth, axis=0)
    size = np.sqrt(len(truth)) * 1e-6
    product = (estimate * truth).sum(axis=0) / np.maximum(norms[0] * norms[1], 1e-300)
    return np.where(norms[1] > size, np.where(norms[0] > size, product, 0.0), np.nan)


def align_betas(betas: np.ndarray, table: pd.DataFrame, wanted: pd.DataFrame) -> np.ndarray:
    """Columns of ``betas`` (described by ``table``) in the order of the rows of ``wanted``; zeros where absent."""
    have = pd.MultiIndex.from_frame(table[TERM].astype(str))
    index = have.get_indexer(pd.MultiIndex.from_frame(wanted[TERM].astype(str)))
    out = np.zeros((len(betas), len(wanted)), dtype=np.float64)
    out[:, index >= 0] = betas[:, index[index >= 0]]
    return out


def mean_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation over repeats."""
    finite = np.asarray([v for v in values if np.isfinite(v)])
    if not len(finite):
        return "-"
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{finite.mean():.{digits}f}{spread}"


def markdown(table: pd.DataFrame) -> str:
    """Write a table of strings as GitHub markdown."""
    cells = [list(map(str, table.columns)), *table.astype(str).to_numpy().tolist()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def write(text: str, out: Path | None) -> None:
    """Print a result and, when asked, write it to a file."""
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")


def scores_by_target(adata: AnnData) -> pd.DataFrame:
    """Scores of a fit, one row per target, indexed by target."""
    return st.get.scores(adata, per="target").set_index("target")


def fit_table(adata: AnnData) -> tuple[np.ndarray, pd.DataFrame]:
    """Coefficients of a fit and the table of their columns."""
    betas: Any = adata.obsm[_keys.BETAS]
    betas = betas.compute() if hasattr(betas, "compute") else betas
    return np.asarray(betas), adata.uns[_keys.BETAS]["terms"]
