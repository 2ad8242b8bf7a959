"""Networks on a GPU and on the processor beside it, and the stages that run on the processor alone, on its machine.

``python -m benchmarks.accelerator --json accelerator.json --out docs/_tables/accelerator.md``

Every stage is that of :mod:`benchmarks.speed`, run at a tiny size to compile, then up to ``--repeats`` times at the
size of the table; networks on each of ``--devices``. All of it happens in one process, so that compiling is paid for
once, and every figure is kept as soon as it is there, in case time runs out. Without a GPU the rows of ``cuda`` are
left out, and the script says so.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

import spacetravlr as st
from benchmarks._common import markdown, write
from benchmarks.speed._machine import describe
from benchmarks.speed._measure import shrunk, timed
from benchmarks.speed._registry import STAGES
from benchmarks.speed._stage import Options, seconds_text

#: What is run by default, in this order.
DEFAULT_STAGES = ("seeds", "surfaces", "network", "perturbation", "screen", "counts", "whole_counts")
_ON_DEVICES = ("network", "whole")
_WHOLE = ("whole", "whole_counts", "large_counts")
_ENOUGH_SECONDS = 30.0  # of one stage; at least one run


def main(argv: list[str] | None = None) -> int:
    """Measure the stages that are wanted and write the table."""
    args = _parser().parse_args(argv)
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    if args.n_jobs is not None:
        st.settings.n_jobs = args.n_jobs
    machine = f"{describe()}, {st.settings.n_jobs} threads"
    print(machine, flush=True)
    devices = [device for device in args.devices if device != "cuda" or _has_cuda()]
    if len(devices) < len(args.devices):
        print("no GPU: rows of cuda are left out", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    if args.json is not None and args.json.exists():
        rows = json.loads(args.json.read_text())
    for name in args.only:
        for device in devices if name in _ON_DEVICES else ["cpu"]:
            options = Options(device=device, quick=args.quick, whole_targets=args.whole_targets)
            row = {"stage": name, "device": device, "machine": machine, **_measured(name, options, args.repeats)}
            print(f"{name:14s}{device:6s}{seconds_text(row['seconds'])}", flush=True)
            rows = [old for old in rows if (old["stage"], old["device"]) != (name, device)] + [row]
            if args.json is not None:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    write(report(rows), args.out)
    return 0


def report(rows: list[dict[str, Any]]) -> str:
    """The table in markdown, after a line that names the machine."""
    table = pd.DataFrame(
        {
            "stage": [STAGES[row["stage"]].title for row in rows],
            "size": [STAGES[row["stage"]].size for row in rows],
            "device": [row["device"] for row in rows],
            "compiling": [seconds_text(row["compiling"]) for row in rows],
            "measured": [_shown(row) for row in rows],
        }
    )
    machines = ". ".join(sorted({row["machine"] for row in rows}))
    return f"{machines}.\n\n{markdown(table)}"


def _shown(row: dict[str, Any]) -> str:
    stage = STAGES[row["stage"]]
    if stage.per:
        return f"{seconds_text(row['seconds'] / row['units'])} per {stage.per}"
    part = f", {row['units']:,} of {stage.at['targets']:,} targets" if row["stage"] in _WHOLE else ""
    return seconds_text(row["seconds"]) + part


def _measured(name: str, options: Options, repeats: int) -> dict[str, Any]:
    stage = STAGES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small tissues: neighbours and types with few cells
        compiling = timed(stage.case(options, {**stage.at, **stage.quick}))
        case = stage.case(options, shrunk(stage, stage.at, options))
        seconds: list[float] = []
        while not seconds or (len(seconds) < repeats and sum(seconds) < _ENOUGH_SECONDS):
            seconds.append(timed(case))
    return {
        "seconds": statistics.median(seconds), "all_seconds": seconds, "units": case.units, "compiling": compiling,
    }  # fmt: skip


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(DEFAULT_STAGES), metavar="STAGE")
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"], default=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, help="threads; by default the cores that this process may use")
    parser.add_argument("--whole-targets", type=int, metavar="N", help="fit N targets only in whole fits")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all of it runs, not how fast")
    parser.add_argument("--json", type=Path, help="all figures; rows that are not run keep theirs")
    parser.add_argument("--out", type=Path, help="markdown table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
