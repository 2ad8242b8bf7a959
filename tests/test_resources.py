"""What a process may use is less than what the machine has, in jobs, containers and under limits."""

from __future__ import annotations

import math
import os

import pytest

import spacetravlr as st
from spacetravlr import _resources
from spacetravlr._resources import available_cores, available_memory, multiplication_rate, spoken
from spacetravlr._utils import resolve_n_jobs


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Pretend to be in control groups: lines of /proc/self/cgroup and files of limits."""

    def pretend(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_text(text)
        monkeypatch.setattr(_resources, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(_resources, "_CGROUPS", tmp_path / "tree")

    return pretend


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)


@pytest.mark.parametrize(
    "membership, files, cores, memory",
    [
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}, 64, math.inf),
        ("0::/\n", {"cpu.max": "250000 100000", "memory.max": "2000000"}, 3, 2e6),
        # the tightest of the groups above
        ("0::/job/step\n", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000",
                            "job/memory.max": "3000000", "job/step/memory.max": "4000000"}, 2, 3e6),
        # a container that sees its own group as the root
        ("0::/docker/0123\n", {"cpu.max": "50000 100000", "memory.max": "5000000"}, 1, 5e6),
        ("4:cpu,cpuacct:/a\n9:memory:/b\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "400000",
                                             "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                                             "memory/b/memory.limit_in_bytes": "6000000"}, 4, 6e6),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64, math.inf),
        ("0::/\n", {}, 64, math.inf),
    ],
)  # fmt: skip
def test_limits_of_containers(groups, many_cores, monkeypatch, membership, files, cores, memory):
    groups(membership, files)
    monkeypatch.setattr(_resources, "_physical_memory", lambda: math.inf)
    monkeypatch.setattr(_resources, "_address_space", lambda: math.inf)
    assert available_cores() == cores
    assert available_memory() == memory


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not chosen here")
def test_only_allowed_cores_count():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores() == 1
        assert resolve_n_jobs(-1) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_limit_of_the_address_space_leaves_what_is_not_taken():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    room = 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (int(_resources._status("VmSize")) + room, limits[1]))
    try:
        assert available_memory() <= room
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_all_cores_as_a_setting(monkeypatch):
    monkeypatch.setattr(st.settings, "n_jobs", -1)
    assert resolve_n_jobs(None) == available_cores()
    monkeypatch.setattr(st.settings, "n_jobs", 0)
    with pytest.raises(ValueError, match="Expected `settings.n_jobs` to be a non-zero integer, found `0`"):
        resolve_n_jobs(None)


@pytest.mark.parametrize(
    "seconds, said",
    [
        (0.01, "about 1 s"), (7.4, "about 7 s"), (48, "about 50 s"), (89, "about 90 s"), (91, "about 2 min"),
        (724, "about 10 min"), (3100, "about 50 min"), (2 * 3600, "about 2 h"), (3 * 86400, "about 3 days"),
    ],
)  # fmt: skip
def test_times_are_rounded(seconds, said):
    assert spoken(seconds) == said


def test_the_rate_is_that_of_a_processor():
    assert 1e8 < multiplication_rate(0.01) < 1e14
