"""The table of all stages, and the figure of their growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._common import markdown
from benchmarks.speed._machine import Limits, median_limits
from benchmarks.speed._stage import Stage, seconds_text


def report(stages: list[Stage], rows: dict[str, dict[str, Any]]) -> str:
    """Write each machine that rows come from in one line, and the stages as a markdown table."""
    shown = [stage for stage in stages if stage.name in rows]
    machines: dict[str, list[Stage]] = {}
    for stage in shown:
        machines.setdefault(rows[stage.name]["machine"], []).append(stage)
    lines = []
    for machine, its in machines.items():
        limits = median_limits([Limits(*rows[stage.name]["limits"]) for stage in its])
        which = "" if len(machines) == 1 else f" Rows: {'; '.join(stage.title.strip('*') for stage in its)}."
        lines += [
            f"{machine}. Probes on all cores: {limits.triad:.1f} GB/s (triad), {limits.float32:.0f} and "
            f"{limits.float64:.0f} Gflop/s (matrix products in float32 and float64); on one thread "
            f"{limits.float32_one:.0f} and {limits.float64_one:.0f}.{which}",
            "",
        ]
    return "\n".join([*lines, markdown(pd.DataFrame([_cells(stage, rows[stage.name]) for stage in shown]))])


def figures(stage: Stage, row: dict[str, Any]) -> dict[str, float]:
    """What the reach speaks of: seconds as shown, and the ratio to the baseline."""
    scale = 1 / row["units"] if stage.per else _full(stage, row)
    seconds = row["seconds"] * scale
    if stage.published_seconds is not None:
        return {"seconds": seconds, "baseline": stage.published_seconds, "ratio": stage.published_seconds / seconds}
    ours, theirs = row["seconds"] / row["units"], row["baseline_seconds"] / row["baseline_units"]
    shown = theirs * (1 if stage.per else row["units"])
    return {"seconds": seconds, "baseline": shown, "ratio": theirs / ours}


def plot(stages: list[Stage], rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw cost over cells, both relative to the smallest size; the diagonal is linear growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    figure, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    widest = 1.0
    for i, stage in enumerate(stage for stage in stages if stage.name in rows):
        cells, seconds = np.array(rows[stage.name]["growth"], dtype=float).T
        widest = max(widest, (cells / cells[0]).max())
        style = {"marker": "osD^vP*Xdh<"[i % 11], "color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"}
        ax.plot(cells / cells[0], seconds / seconds[0], label=stage.name, linewidth=1, markersize=4, **style)
    ax.plot([1, widest], [1, widest], color="black", linestyle=":", label="linear")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    ax.set(xlabel="cells (smallest size = 1)", ylabel="time (smallest size = 1)")
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _full(stage: Stage, row: dict[str, Any]) -> float:
    """Factor from the targets that were fitted to all of them; one for other stages."""
    return row["sizes"]["targets"] / row["units"] if stage.published_seconds is not None else 1.0


def _cells(stage: Stage, row: dict[str, Any]) -> dict[str, str]:
    found = figures(stage, row)
    per = f" per {stage.per}" if stage.per else ""
    measured = f"{seconds_text(found['seconds'])}{per}"
    if _full(stage, row) > 1:
        measured += f" at the rate of {row['units']:.0f} targets in {seconds_text(row['seconds'])}"
    cells, _ = np.array(row["growth"]).T
    size = stage.size if row["sizes"] == stage.at else ", ".join(f"{v:,} {k}" for k, v in row["sizes"].items())
    return {
        "stage": stage.title,
        "size": size,
        "reach": str(stage.reach) + (per if stage.reach.seconds else ""),
        "measured": measured,
        "peak memory, GB": f"{row['gb']:.1f}",
        "baseline": stage.baseline_name,
        "baseline's figure": f"{seconds_text(found['baseline'])}{per}",
        "times faster": f"{found['ratio']:.3g}",
        "growth (cells)": f"cells^{row['exponent']:.2f} ({cells.min():,.0f} to {cells.max():,.0f})",
        "share of the limit": f"{_percent(row['share'])} ({row['bound']})",
        "reached": _reached(stage, row, found),
    }


def _reached(stage: Stage, row: dict[str, Any], found: dict[str, float]) -> str:
    if row["sizes"] != stage.at:
        return "-"
    missed = stage.reach.missed(found["seconds"], row["gb"], found["ratio"])
    if not missed:
        return "yes"
    return f"no ({', '.join(missed)})" + (f": {stage.note}" if stage.note else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
