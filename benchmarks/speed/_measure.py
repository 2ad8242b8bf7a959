"""Measure one stage: medians of alternating repeats, peak memory, growth, share of the machine's limit."""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import numpy as np

from benchmarks._common import peak_memory_gb
from benchmarks.speed._machine import Limits, describe, probe
from benchmarks.speed._stage import Case, Options, Sizes, Stage, Work

_ENOUGH_SECONDS = 40.0  # repeats of stage and baseline end here, from the third on at the latest
_GROWTH_REPEATS, _GROWTH_SECONDS = 3, 10.0


def measure(stage: Stage, options: Options) -> dict[str, Any]:
    """Measure ``stage`` in this process, which is meant to be a fresh one.

    Returns
    -------
    Plain values: ``seconds`` (median, of the whole stage), ``units``, ``gb``, ``baseline_seconds``, ``baseline_units``
    (absent where the baseline is an estimate of others), ``growth`` (cells and seconds), ``exponent``, ``share`` (of
    the machine's limit), ``bound`` ("bandwidth" or the float rate), ``limits`` and ``machine``.
    """
    stage.case(options, {**stage.at, **stage.quick}).run()  # compiles
    sizes = shrunk(stage, stage.at, options)
    case = stage.case(options, sizes)
    seconds, baseline_seconds, baseline = [timed(case)], [], None
    gb = peak_memory_gb()  # before the baseline takes any
    if stage.baseline is not None:
        baseline = stage.baseline(options, shrunk(stage, stage.baseline_at, options))
    repeats = min(options.repeats, stage.repeats or options.repeats)
    start = time.perf_counter()
    for repeat in range(repeats):
        if repeat > 0:
            seconds.append(timed(case))
        if baseline is not None:
            baseline_seconds.append(timed(baseline))
        if time.perf_counter() - start > _ENOUGH_SECONDS and repeat >= min(2, repeats - 1):
            break
    row: dict[str, Any] = {
        "sizes": sizes,
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "units": case.units,
        "gb": gb,
    }
    if baseline is not None:
        row |= {
            "baseline_seconds": statistics.median(baseline_seconds),
            "baseline_units": baseline.units,
            "baseline_all_seconds": baseline_seconds,
        }
    work = case.work
    del case, baseline
    gc.collect()
    row |= _growth(stage, options)
    limits = probe(quick=options.quick)
    share, bound = limit_share(work, row["seconds"], limits)
    return {**row, "share": share, "bound": bound, "limits": list(limits), "machine": describe()}


def shrunk(stage: Stage, sizes: Sizes, options: Options) -> Sizes:
    """The sizes of a run: those of the table, or tiny ones with ``--quick``."""
    if not options.quick:
        return sizes
    scale = stage.quick["cells"] / stage.at["cells"]
    return {**sizes, **stage.quick, "cells": max(200, round(sizes["cells"] * scale))}


def limit_share(work: Work, seconds: float, limits: Limits) -> tuple[float, str]:
    """Time that a perfect program would take over the time taken, and what it would wait for."""
    by_memory = work.bytes / (limits.triad * 1e9)
    by_floats = work.flops / (getattr(limits, work.dtype) * 1e9)
    return max(by_memory, by_floats) / seconds, "bandwidth" if by_memory > by_floats else work.dtype


def _growth(stage: Stage, options: Options) -> dict[str, Any]:
    points = []
    for sizes in stage.growth:
        smaller = shrunk(stage, sizes, options)
        case = stage.case(options, smaller)
        seconds = [timed(case)]
        while len(seconds) < _GROWTH_REPEATS and sum(seconds) < _GROWTH_SECONDS:
            seconds.append(timed(case))
        points.append((smaller["cells"], statistics.median(seconds) / (1 if not stage.per else case.units)))
        del case
        gc.collect()
    cells, taken = np.array(points, dtype=float).T
    exponent = float(np.polyfit(np.log(cells), np.log(taken), 1)[0]) if len(set(cells)) > 1 else float("nan")
    return {"growth": points, "exponent": exponent}


def timed(case: Case) -> float:
    """Seconds of one run."""
    gc.collect()
    start = time.perf_counter()
    case.run()
    return time.perf_counter() - start
