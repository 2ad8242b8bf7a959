"""Weighted sums of rows of numbers that lie anywhere, in vector registers where possible."""

from __future__ import annotations

import numpy as np

from spacetravlr._core.kernels import kernel
from spacetravlr._core.linalg.registers import usable, weighted_rows

#: A width that is a multiple of this takes least time per number.
LANES = 8
#: Rows one after another that are found once.
RUN = 4
_WIDE = 32

_exact_wide, _exact_narrow, _exact_one = (
    weighted_rows(lanes, scatters=False, run=1, double=True) for lanes in (_WIDE, LANES, 1)
)
_sum_wide, _sum_narrow, _sum_one = (weighted_rows(lanes, scatters=False, run=RUN) for lanes in (_WIDE, LANES, 1))
_add_wide, _add_narrow, _add_one = (weighted_rows(lanes, scatters=True, run=RUN) for lanes in (_WIDE, LANES, 1))


@kernel(inline="always")
def _sum_rows_exactly_in_registers(weights, places, start, stop, rows, step, first, width, out, to):
    r"""Fill ``out[to + p]`` with :math:`\sum_k weights_k\, rows_{places_k step + first + p}`, from start to stop.

    ``rows`` and ``out`` are flat, float32; every column is summed in double precision, in the order of its rows.
    """
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _exact_wide(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += _WIDE
        elif p + LANES <= width:
            _exact_narrow(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += LANES
        else:
            _exact_one(weights, places, start, stop, rows, step, first + p, out, to + p)
            p += 1


@kernel(inline="always")
def _sum_runs_in_registers(weights, places, n_runs, rows, step, width, out, to):
    r"""Fill ``out[to + p]`` with :math:`\sum_{kr} weights_{kr}\, rows_{(places_k + r) step + p}`, runs of 4 rows.

    ``weights``, ``rows`` and ``out`` are flat, float32; every column is summed in the order of its rows.
    """
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _sum_wide(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += _WIDE
        elif p + LANES <= width:
            _sum_narrow(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += LANES
        else:
            _sum_one(weights, places, 0, n_runs, rows, step, p, out, to + p)
            p += 1


@kernel(inline="always")
def _add_to_runs_in_registers(weights, places, n_runs, rows, step, width, values, at):
    """Add ``values[at + p]``, times their weight, to every row of the runs; see ``sum_runs``."""
    p = 0
    while p < width:
        if p + _WIDE <= width:
            _add_wide(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += _WIDE
        elif p + LANES <= width:
            _add_narrow(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += LANES
        else:
            _add_one(weights, places, 0, n_runs, rows, step, p, values, at + p)
            p += 1


@kernel
def _sum_rows_exactly_plainly(weights, places, start, stop, rows, step, first, width, out, to):
    total = np.zeros(width)
    for k in range(start, stop):
        weight, place = np.float64(weights[k]), places[k] * step + first
        for p in range(width):
            total[p] += weight * rows[place + p]
    for p in range(width):
        out[to + p] = total[p]


@kernel
def _sum_runs_plainly(weights, places, n_runs, rows, step, width, out, to):
    for p in range(width):
        out[to + p] = 0
    for k in range(n_runs):
        for r in range(RUN):
            weight, place = weights[k * RUN + r], (places[k] + r) * step
            for p in range(width):
                out[to + p] += weight * rows[place + p]


@kernel
def _add_to_runs_plainly(weights, places, n_runs, rows, step, width, values, at):
    for k in range(n_runs):
        for r in range(RUN):
            weight, place = weights[k * RUN + r], (places[k] + r) * step
            for p in range(width):
                rows[place + p] += weight * values[at + p]


_USABLE = usable()
sum_rows_exactly = _sum_rows_exactly_in_registers if _USABLE else _sum_rows_exactly_plainly
sum_runs = _sum_runs_in_registers if _USABLE else _sum_runs_plainly
add_to_runs = _add_to_runs_in_registers if _USABLE else _add_to_runs_plainly
