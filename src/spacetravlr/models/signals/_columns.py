"""The regression of one target: all covariates, then signals and their products."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacetravlr._core.design import Kind, Terms
from spacetravlr.models.signals._inputs import unit_variance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.signals._inputs import SignalInputs

_MOST_VARYING = 480  # columns of varying effects; those of the regulators most correlated with the target
_AT_ONCE = 256  # products that are tested together; bounds what is held beside the columns


class Columns(NamedTuple):
    """Columns of the regression of a target, and what its tests are made of."""

    values: Floats
    """Cells x columns, float32: the rest of the regression, then each signal alone, then the products."""
    group: Ints
    free: Bools
    signals: Ints
    """Signals, in order."""
    products: Terms
    """Products, those of a signal next to each other, in the order of ``signals``."""
    of: Ints
    """Place in ``signals`` of the signal of each product."""
    local: Floats
    """What each product multiplies its signal with, of variance one, cells x products."""
    level: Floats
    """Mean of what each product multiplies its signal with, in units of its standard deviation."""

    @property
    def first(self) -> int:
        """First column that holds a signal."""
        return self.values.shape[1] - len(self.signals) - len(self.products)

    def sets(self) -> list[Ints]:
        """Columns of each signal, itself first, then its products."""
        bounds = self.first + len(self.signals) + np.searchsorted(self.of, np.arange(len(self.signals) + 1))
        return [np.r_[self.first + s, bounds[s] : bounds[s + 1]] for s in range(len(self.signals))]

    def chunks(self) -> Iterator[slice]:
        """Products, some signals at a time, never the products of one in two parts."""
        n_chunks = -(-len(self.products) // _AT_ONCE)
        for some in np.array_split(np.arange(len(self.signals)), min(max(n_chunks, 1), max(len(self.signals), 1))):
            if len(some):
                yield slice(*np.searchsorted(self.of, [some[0], some[-1] + 1]))

    def whole(self, inputs: SignalInputs, signals: Floats, rows: slice) -> Floats:
        """Products of signals with uncentred regulators, scaled to variance one, cells x ``rows``.

        A signal times a regulator is the signal times the regulator's mean plus the signal times its deviations.

        Parameters
        ----------
        inputs
            The tissue.
        signals
            Each signal of the target, as it is or moved over the section, cells x signals.
        rows
            The products.
        """
        alone = signals[:, self.of[rows]]
        return unit_variance(self.level[rows].astype(np.float32) * alone + inputs.within(alone * self.local[:, rows]))


def response(inputs: SignalInputs, gene: int) -> Floats:
    """Target within types, of variance one, (cells,)."""
    fit = inputs.fit
    y = fit.expression[:, [gene]].astype(np.float64)
    if fit.calibration is not None:  # what the depth of a cell does to its measured value
        y = y - fit.calibration.offset[:, [gene]]
    return np.asarray(inputs.standard(y)[:, 0])


def target_columns(inputs: SignalInputs, terms: Terms, own: int, y: Floats) -> Columns:
    """Evaluate the columns of the target with gene ``own`` and response ``y``."""
    fit = inputs.fit
    terms = terms.take(np.flatnonzero(np.asarray(terms.kind) != Kind.LIGAND))  # own ligands are columns in any case
    genes = np.unique(terms.gene)
    calibration = fit.calibration
    if calibration is not None and calibration.factors[own].any():
        expected = calibration.expected(genes, without=own)
    else:
        expected = fit.expected_regulators[:, np.searchsorted(fit.regulators, genes)]
    deviations, spread = inputs.deviations(expected)
    level = expected.mean(axis=0, dtype=np.float64) / np.maximum(spread, 1e-9)
    is_tf = np.isin(genes, terms.gene[np.isin(terms.kind, [Kind.TF, Kind.TFL])])
    of_type = np.eye(fit.n_types, dtype=np.float32)[fit.cell_type][:, 1:]
    most = max(1, _MOST_VARYING // (inputs.varying.shape[1] + of_type.shape[1]))
    varies = np.zeros(len(genes), dtype=bool)
    varies[np.argsort(-np.abs(deviations.T @ y), kind="stable")[:most]] = True
    groups = (deviations[:, varies & is_tf], deviations[:, varies & ~is_tf])
    order = np.argsort(terms.signal, kind="stable")
    products = terms.take(order[terms.signal[order] >= 0])
    senders, of = np.unique(products.signal, return_inverse=True)
    parts: list[tuple[Floats, bool]] = [(inputs.standard(expected), True), (inputs.own[:, senders], False)]
    parts += [(functions, False) for functions in inputs.smooth]
    parts += [(inputs.composition, False)]
    n_types = fit.n_types
    for group in groups:
        for functions in (inputs.varying[:, :-n_types], inputs.varying[:, -n_types:], of_type):
            parts.append((_times(group, functions), False))
    position = np.searchsorted(genes, products.gene)
    parts.append((inputs.signals[:, senders], False))
    local = deviations[:, position]
    parts.append((inputs.standard(inputs.signals[:, products.signal] * local), False))
    widths = [values.shape[1] for values, _ in parts]
    filled = [i for i, width in enumerate(widths) if width]
    return Columns(
        values=np.hstack([parts[i][0] for i in filled]).astype(np.float32),
        group=np.repeat(np.arange(len(filled)), [widths[i] for i in filled]),
        free=np.repeat([parts[i][1] for i in filled], [widths[i] for i in filled]),
        signals=senders,
        products=products,
        of=of,
        local=local,
        level=level[position],
    )


def _times(values: Floats, functions: Floats) -> Floats:
    """Each column of one with each of the other, cells x (columns x functions)."""
    return np.asarray((values[:, :, None] * functions[:, None, :]).reshape(len(values), -1))
