"""What this process may use of the machine, how fast that is, and how a duration is said."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

_PROBE = 512
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_STATUS = Path("/proc/self/status")


def available_cores() -> int:
    """Count the cores that this process may use: its affinity, and the share of time that its container is given."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        cores = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _cpu_quota())))


def available_memory() -> float:
    """Bytes of memory for this process: those of the machine, of its container, or what a ``ulimit`` leaves."""
    return min(_physical_memory(), _container_memory(), _address_space())


def multiplication_rate(seconds: float = 0.1) -> float:
    """Multiplications and additions per second of one thread, from matrices multiplied for ``seconds``."""
    a = np.ones((_PROBE, _PROBE), dtype=np.float32)
    best, end = np.inf, time.perf_counter() + seconds
    with threadpool_limits(1):
        while True:
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
            if time.perf_counter() > end:
                return 2 * _PROBE**3 / best


def spoken(seconds: float) -> str:
    """Round a time as one would say it: "about 20 min"."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 1.5 * size or unit == "s":
            value = seconds / size
            digits = 5 if value >= 10 else 1
            return f"about {max(digits * round(value / digits), 1)} {unit}"
    raise AssertionError


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _cpu_quota() -> float:
    """Cores' worth of time that the control groups of this process are given; infinite without a limit."""
    quotas = [math.inf]
    for folder in _group_folders(""):
        quota, period = [*_numbers(folder / "cpu.max"), math.inf, math.inf][:2]
        quotas.append(quota / period if period < math.inf else math.inf)
    for folder in _group_folders("cpu"):
        quota, period = ([*_numbers(folder / f"cpu.cfs_{name}_us"), math.inf][0] for name in ("quota", "period"))
        quotas.append(quota / period if quota > 0 and period < math.inf else math.inf)  # -1 is no limit
    return min(quotas)


def _container_memory() -> float:
    files = [folder / "memory.max" for folder in _group_folders("")]
    files += [folder / "memory.limit_in_bytes" for folder in _group_folders("memory")]
    return min([math.inf, *(number for file in files for number in _numbers(file))])


def _address_space() -> float:
    """Bytes that this process may still ask for under its own limits."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    left = math.inf
    for limit, used in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        allowed, _ = resource.getrlimit(getattr(resource, limit))
        if allowed != resource.RLIM_INFINITY:
            left = min(left, max(0.0, allowed - _status(used)))
    return left


def _status(name: str) -> float:
    """Bytes that the kernel counts for this process under ``name``, 0 where it does not say."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0.0
    return next((1024 * float(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0.0)


def _group_folders(controller: str) -> Iterator[Path]:
    """Folders of the control group of this process and those above it, for version 2 ("") or a controller of version 1.

    A container may see its own group as the root of the tree although the path names that of the host.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        root = _CGROUPS / controllers if controllers else _CGROUPS
        group = root / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _numbers(file: Path) -> list[float]:
    """Numbers of a file, "max" for no limit; none where it is not there."""
    try:
        return [math.inf if word == "max" else float(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
