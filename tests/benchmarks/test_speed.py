"""The script of the speed table runs and reports what it measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmarks import accelerator
from benchmarks.__main__ import main
from benchmarks.speed._machine import Limits
from benchmarks.speed._measure import limit_share, shrunk
from benchmarks.speed._registry import STAGES
from benchmarks.speed._report import figures, report
from benchmarks.speed._stage import Options, Reach, Work

LIMITS = Limits(triad=10.0, float32=100.0, float64=50.0, float32_one=60.0, float64_one=30.0)


def row(stage, seconds):
    return {
        "sizes": stage.at, "seconds": seconds, "units": 100.0, "gb": 1.0,
        "baseline_seconds": 30.0, "baseline_units": 3.0,
        "growth": [(100, 1.0), (200, 2.0), (400, 4.0)], "exponent": 1.0, "share": 0.5, "bound": "float64",
        "limits": list(LIMITS), "machine": "A machine",
    }  # fmt: skip


def test_quick_run_writes_table_and_figure(tmp_path):
    out, figure, results = tmp_path / "speed.md", tmp_path / "speed.png", tmp_path / "speed.json"
    status = main(
        [
            "--quick",
            "--repeats",
            "1",
            "--only",
            "niche",
            "--out",
            str(out),
            "--figure",
            str(figure),
            "--json",
            str(results),
        ]
    )
    assert status == 0
    header, *_, last = out.read_text().strip().splitlines()
    assert "cores" in header
    assert "histogram2d" in last
    assert figure.stat().st_size > 1000
    found = json.loads(results.read_text())["rows"]["niche"]
    assert found["seconds"] > 0
    assert found["baseline_seconds"] > 0
    assert [cells for cells, _ in found["growth"]] == sorted(cells for cells, _ in found["growth"])


def test_stages_on_an_accelerator_are_kept_one_by_one(tmp_path, capsys):
    results, out = tmp_path / "rows.json", tmp_path / "table.md"
    options = ["--quick", "--repeats", "1", "--devices", "cpu", "--json", str(results), "--out", str(out)]
    assert accelerator.main(["--only", "niche", "weights", *options]) == 0
    assert accelerator.main(["--only", "niche", *options]) == 0
    rows = json.loads(results.read_text())
    assert [row["stage"] for row in rows] == ["weights", "niche"]  # measured again: the last
    assert all(row["seconds"] > 0 and row["compiling"] > 0 for row in rows)
    header, _, _, rule, *lines = out.read_text().strip().splitlines()
    assert "threads" in header
    assert set(rule) == {"|", "-"}
    assert len(lines) == 2


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"network", "whole"}))
def test_every_stage_runs_at_tiny_sizes(name):
    stage = STAGES[name]
    options = Options(quick=True)
    case = stage.case(options, shrunk(stage, stage.at, options))
    case.run()
    assert case.units > 0
    assert case.work.bytes + case.work.flops > 0


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_sizes_grow_in_cells_alone(stage):
    cells = [sizes["cells"] for sizes in stage.growth]
    assert len(cells) == 3
    assert cells == sorted(set(cells))
    assert len({tuple(v for k, v in sizes.items() if k != "cells") for sizes in stage.growth}) == 1


def test_share_of_the_limit_is_that_of_the_scarcer_resource():
    assert limit_share(Work(bytes=10e9, flops=10e9), 4.0, LIMITS) == (pytest.approx(0.25), "bandwidth")
    assert limit_share(Work(bytes=1e9, flops=100e9, dtype="float64"), 4.0, LIMITS) == (pytest.approx(0.5), "float64")


def test_figures_are_per_target_and_ratios_per_unit():
    stage = STAGES["seeds"]
    found = figures(stage, row(stage, seconds=50.0))
    assert found == {"seconds": 0.5, "baseline": 10.0, "ratio": 20.0}


def test_whole_fit_of_some_targets_says_so():
    stage = STAGES["whole"]
    found = row(stage, seconds=300.0)
    assert figures(stage, found)["seconds"] == pytest.approx(300.0 * 33.33)
    assert "100 targets in 5 min" in report([stage], {"whole": found})


def test_missed_reaches_are_named():
    reach = Reach(seconds=1.0, gb=8.0, ratio=5.0)
    assert reach.missed(0.5, 4.0, 6.0) == []
    assert reach.missed(2.0, 9.0, 4.0) == ["time", "memory", "ratio"]
    assert str(reach) == "under 1 s, under 8 GB, 5 x faster"
    assert str(Reach(ratio=1 / 1.5)) == "within 1.5 x"
    stage = STAGES["seeds"]
    assert "no (time)" in report([stage], {"seeds": row(stage, seconds=50.0)})


def test_rows_say_which_machine_they_come_from():
    stages = [STAGES["weights"], STAGES["seeds"]]
    here = {stage.name: row(stage, seconds=1.0) for stage in stages}
    one = report(stages, here).splitlines()
    assert one[0].startswith("A machine. Probes")
    assert "Rows:" not in one[0]
    two = report(stages, here | {"seeds": here["seeds"] | {"machine": "Another"}}).splitlines()
    assert two[0].startswith("A machine.")
    assert two[0].endswith(f"Rows: {stages[0].title}.")
    assert two[2].startswith("Another.")
    assert two[2].endswith(f"Rows: {stages[1].title}.")


def test_dense_kernel_learns_which_modulators_act():
    from benchmarks.speed._bodies import learn_variances

    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    y = 2.0 * x[:, 0] + 0.3 * rng.normal(size=120)
    variances = learn_variances(x, y, [np.ones((120, 120))])
    assert variances[0].argmax() == 0
    assert variances[0, 0] > 20 * variances[0, 1:].max()
