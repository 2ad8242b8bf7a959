"""Which body each cell type of each target keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from spacetravlr._core.scores import shrunk_error_ratio, shrunk_standard_error, squared_errors
from spacetravlr.models.bodies._registry import BODY_NAMES

if TYPE_CHECKING:
    from spacetravlr._core.standardise import BlockDesign
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._base import BodyResult
    from spacetravlr.models.bodies._inputs import FitInputs

# Log evidence that the terms of a target together must add to type and smooth position. Where nothing regulates, trials
# on simulated tissues gave up to 4; where targets have sharp domains of their own, up to 8.
_LEAST_EVIDENCE = 10.0
# And the largest p-value that they predict held-out cells no better: on rare genes a few cells with many counts, which
# are not what the model expects, can bring hundreds of units of evidence.
_LARGEST_P = 0.05
_PRIOR_CELLS = 50  # held-out cells of a type at which its own errors weigh as much as those over all types
# Share of the type mean's error: smaller differences are ties, and the simpler body is kept. A network that stopped
# where it began differs from its seed by rounding, some 1e-6.
_TIE = 1e-3
# Standard errors by which a network must win if it competes with a surface. In trials, networks that won by one to two
# were more often worse than better on the reporting cells: among a dozen cell types some network wins by chance.
_MARGIN = 2.0
# Standard errors by which a requested network may lose in a cell type if it wins over all types together, and by which
# a body that judges its terms may lose to a seed.
_DOUBT = 1.0


def choose_bodies(block: BlockDesign, inputs: FitInputs, bodies: Mapping[str, BodyResult], threshold: float) -> Ints:
    """Position in ``BODY_NAMES`` of what each target and cell type keeps, by errors on choosing folds only.

    Each body must beat the one kept before it by more than a tolerance, and the mean of the type by ``threshold`` of
    R2. It is compared on the selection folds that it predicts. A network that competes with a surface is compared on
    one fold and must win by more than two standard errors of the difference. A network without a surface was requested
    explicitly: if it wins over all types of a target together, single types keep it unless they are worse by more than
    one standard error. Within that error, a body that judges its terms by evidence is also preferred to a seed, which
    has more terms and judges none. The fewer held-out cells a type has, the more the errors over all types count.

    A body that provides the prediction of type and smooth position without terms is kept by all types or none: it is
    kept if its terms add evidence and predict held-out cells better.

    Returns
    -------
    Targets x types.
    """
    types = inputs.cell_type
    kept = np.zeros((len(block), inputs.n_types), dtype=np.int64)
    for code, body in enumerate(BODY_NAMES[1:], start=1):
        if body not in bodies:
            continue
        rows = ~inputs.report & np.isfinite(bodies[body].prediction).all(axis=1)
        evidence, p = bodies[body].evidence_gain, bodies[body].p_terms
        if evidence is not None and p is not None:
            kept[(evidence > _LEAST_EVIDENCE) & (p < _LARGEST_P)] = code
            continue
        counts = np.bincount(types[rows], minlength=inputs.n_types)
        errors = {b: _errors(block, inputs, bodies[b], rows) for b in BODY_NAMES[: code + 1] if b in bodies}
        ratios = {b: shrunk_error_ratio(e, errors["zero"], counts, _PRIOR_CELLS) for b, e in errors.items()}
        current = of_kept(kept, ratios)
        wins = ratios[body] < current - _TIE
        judged = bodies[body].judged
        if judged is not None or body == "network":
            gain = (block.y[rows] - prediction_of_kept(kept, bodies, types, rows)) ** 2 - (
                block.y[rows] - bodies[body].prediction[rows]
            ) ** 2
            error = shrunk_standard_error(gain, errors["zero"], types[rows], inputs.n_types, _PRIOR_CELLS)
            if judged is not None:
                beside_seed = judged[:, None] & (kept == BODY_NAMES.index("seed"))
                wins |= beside_seed & (ratios[body] < current + _DOUBT * error)
            elif "surface" in bodies:
                wins &= ratios[body] < current - _MARGIN * error
            else:
                before = of_kept(kept, errors).sum(axis=1)
                overall = errors[body].sum(axis=1) < before - _TIE * errors["zero"].sum(axis=1)
                wins |= overall[:, None] & (ratios[body] < current + _DOUBT * error)
        kept[wins & (ratios[body] < 1 - threshold)] = code
    return kept


def of_kept(kept: Ints, values: Mapping[str, Floats]) -> Floats:
    """Values (targets x types) of the body that is kept, from those of every body."""
    out = np.zeros(kept.shape)
    for code, body in enumerate(BODY_NAMES):
        if body in values:
            out = np.where(kept == code, values[body], out)
    return out


def prediction_of_kept(kept: Ints, bodies: Mapping[str, BodyResult], cell_type: Ints, rows: Bools) -> Floats:
    """Prediction of each of ``rows`` by the body that its type keeps, cells x targets."""
    of_cells = kept.T[cell_type[rows]]
    out = np.empty(of_cells.shape)
    for code in np.unique(kept):
        keeps = of_cells == code
        out[keeps] = bodies[BODY_NAMES[code]].prediction[rows][keeps]
    return out


def _errors(block: BlockDesign, inputs: FitInputs, body: BodyResult, rows: Bools) -> Floats:
    return squared_errors(block.y[rows], body.prediction[rows], inputs.cell_type[rows], inputs.n_types)
