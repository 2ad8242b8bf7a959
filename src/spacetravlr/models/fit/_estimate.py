"""How long a fit will take and how much memory, roughly, before it starts.

Time is a sum of amounts of work, each with a cost measured by ``python -m benchmarks.estimate`` on one core of an AMD
EPYC, scaled by the speed of matrix products on this machine. Expect it to be within a factor of two: the cost of
surfaces depends on what they find. The progress bar is more accurate once some targets are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._processes import BYTES, INTERPRETED
from spacetravlr.models.bodies._registry import bodies_of

if TYPE_CHECKING:
    from spacetravlr._types import Ints
    from spacetravlr.models.bodies._inputs import BodyOptions, FitInputs

#: Multiplications and additions a second (single precision, one thread) where the costs were measured.
RATE = 9.6e10
#: Seconds a unit of work, see :func:`fit_work`.
COSTS = {
    "seed": 6.1e-7,
    "seed cells": 1.1e-7,
    # of fits to counts with 36 and 135 terms on 3,000 to 24,000 cells
    "pooled": 3.0e-9,
    "pooled cells": 4.5e-10,
    "surface": 1.0e-7,
    "surface cells": 1.1e-4,
    "surface target": 0.29,
    "network": 5.2e-7,
    "network cells": 4.3e-3,
}
_LONGEST_NETWORKS = 0.7  # part of the three trainings that cannot run side by side
_ONE_BY_ONE = ("surface", "pooled")  # work on one target after another


def fit_work(inputs: FitInputs, options: BodyOptions, blocks: Sequence[Ints]) -> dict[str, float]:
    """Amounts of work of a fit, named as in ``COSTS``.

    Seeds pass over the cross products of a target's terms in each cell type, after one pass over the cells; surfaces
    over cells and terms; networks over cells and terms, and once a block over cells alone.
    """
    bodies = _names(options)
    terms = np.concatenate([np.diff(inputs.targets.indptr)[block] for block in blocks]).astype(float)
    n, n_targets = inputs.n_cells, len(terms)
    work: dict[str, float] = {}
    if "seed" in bodies:
        work |= {"seed": inputs.n_types * float((terms**2).sum()), "seed cells": n * float(terms.sum())}
    if "pooled" in bodies:
        features = terms + options.pooled.max_features
        work |= {"pooled": float((features**3).sum()), "pooled cells": n * float((features**2).sum())}
    if "surface" in bodies:
        work |= {"surface": n * float(terms.sum()), "surface cells": float(n * n_targets), "surface target": n_targets}
    if "network" in bodies:
        trainings = n_targets if options.network and options.network.encoder == "per_target" else len(blocks)
        work |= {"network": n * float(terms.sum()), "network cells": float(n * trainings)}
    return work


def seconds_one_by_one(work: dict[str, float], *, rate: float) -> float:
    """Seconds on one core, one that multiplies at ``rate``, of the part of a fit that takes one target at a time."""
    return RATE / rate * sum(COSTS[name] * amount for name, amount in work.items() if name.startswith(_ONE_BY_ONE))


def fit_seconds(
    work: dict[str, float], *, rate: float, threads: int, workers: int = 1, processes: bool = False
) -> float:
    """Seconds of a fit on ``workers`` of ``threads`` cores each, on cores that multiply at ``rate``.

    The first training of a block runs beside its surfaces and the other two side by side, each on one thread. Threads
    that fit targets wait for each other, ``processes`` do not.
    """
    threads = max(1, threads)
    spent = {name: RATE / rate * COSTS[name] * amount for name, amount in work.items()}
    networks = sum(seconds for name, seconds in spent.items() if name.startswith("network"))
    one_by_one = seconds_one_by_one(work, rate=rate)
    alone = 0.0 if processes or threads == 1 else INTERPRETED
    seconds = (sum(spent.values()) - one_by_one) / threads + one_by_one * (alone + (1 - alone) / threads)
    return max(seconds, _LONGEST_NETWORKS * networks) / workers


def fit_bytes(
    inputs: FitInputs,
    options: BodyOptions,
    blocks: Sequence[Ints],
    *,
    stored: bool,
    threads: int,
    processes: bool = False,
) -> float:
    """Memory of a fit: the tissue, the regressors and cross products of one block, and the coefficients.

    Coefficients of all targets, or of one block when they are ``stored`` on disk. With ``processes``, as many as there
    are threads, what they share once more, and each of them.
    """
    bodies = _names(options)
    n, n_terms = inputs.n_cells, np.diff(inputs.targets.indptr)
    arrays = (inputs.expression, inputs.received, inputs.composition, inputs.raw)
    tissue = sum(a.nbytes for a in arrays if a is not None)
    widest = max(blocks, key=lambda block: n_terms[block].sum())
    distinct = len(np.unique(np.concatenate([inputs.targets.terms_of(int(t)) for t in widest])))
    design = 4 * n * distinct * (3 if "network" in bodies else 2)  # as they are, standardised, and less their means
    products = 8 * inputs.n_types * (inputs.n_folds + 1) * distinct**2
    surfaces = 16 * n * int(n_terms[widest].max()) * threads if "surface" in bodies else 0
    if (
        "pooled" in bodies
    ):  # the functions of the modulators in all cells, for the fits on blocks that one thread has at once
        surfaces = 40 * n * (int(n_terms[widest].max()) + options.pooled.max_features) * threads
    columns = n_terms + 1
    kept = columns[widest].sum() if stored else sum(int(columns[block].sum()) for block in blocks)
    # a block once more: what its bodies add to constants, and what is written
    coefficients = 4 * n * (kept + columns[widest].sum()) * (1 + options.uncertainty)
    # what fits of counts expect of each gene takes five arrays of its size
    shared = tissue + design + (0 if inputs.counting is None else 5 * inputs.expression.nbytes)
    others = threads * BYTES + shared if processes else 0.0
    return float(tissue + design + products + surfaces + coefficients + others)


def _names(options: BodyOptions) -> set[str]:
    return {body.name for body in bodies_of(options.body, options.noise)}
