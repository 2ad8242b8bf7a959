"""The machine: what it is, and what it can do at best."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

_TRIAD_BYTES = 256e6  # of one array: far beyond any cache
_GEMM_SIDE = 2048
_REPEATS = 5


class Limits(NamedTuple):
    """What the machine reaches in small probes: GB/s, and 10^9 additions and multiplications a second."""

    triad: float
    float32: float
    float64: float
    float32_one: float
    float64_one: float
    """On one thread; the others on all cores."""


def describe() -> str:
    """Processor, cores, memory, system and the libraries that matter, in one line."""
    blas = sorted({str(i.get("version") or i["internal_api"]) for i in threadpool_info() if i["user_api"] == "blas"})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()}, Python "
        f"{platform.python_version()}, numpy {np.__version__} (OpenBLAS {', '.join(blas)}), numba {nb.__version__}"
        f"{_accelerator()}"
    )


def probe(*, quick: bool = False) -> Limits:
    """Measure memory bandwidth (triad) and float rates (matrix products); the best of a few repeats each."""
    shrink = 16 if quick else 1
    n = int(_TRIAD_BYTES / 8 / shrink)
    a, b, c = np.zeros(n), np.ones(n), np.ones(n)
    triad = 24 * n / _best(lambda a=a, b=b, c=c: _triad(a, b, c))
    del a, b, c
    rates = {}
    for threads in (os.cpu_count() or 1, 1):
        for dtype in ("float32", "float64"):
            side = _GEMM_SIDE // (4 if quick else 1)
            x = np.ones((side, side), dtype)
            out = np.empty_like(x)
            with threadpool_limits(threads):
                rates[dtype, threads] = 2 * side**3 / _best(lambda x=x, out=out: np.matmul(x, x, out=out))
    everyone = os.cpu_count() or 1
    return Limits(
        triad / 1e9,
        *(rates[d, t] / 1e9 for d, t in (("float32", everyone), ("float64", everyone), ("float32", 1), ("float64", 1))),
    )


def median_limits(found: list[Limits]) -> Limits:
    """Median over several probes."""
    return Limits(*(statistics.median(values) for values in zip(*found, strict=True)))


def _best(run: Callable[[], Any]) -> float:
    run()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@nb.njit(parallel=True, cache=True)
def _triad(a, b, c):  # type: ignore[no-untyped-def]
    for i in nb.prange(a.shape[0]):
        a[i] = b[i] + 3.0 * c[i]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _accelerator() -> str:
    try:
        import torch
    except ImportError:
        return ""
    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
