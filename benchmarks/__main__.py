"""Time and memory of every stage, against baselines measured in the same run.

``python -m benchmarks --out docs/_tables/speed.md --figure docs/_static/speed.png``

Every stage runs in a process of its own: once to compile, once for its peak memory, then in turn with its baseline; the
figures are medians. Three sizes give the exponent of its growth with cells, at a fixed density of cells. Small probes
(a triad, matrix products) give what the machine can do at best; each stage says by a small model how many bytes it has
to move and how many additions and multiplications it has to do at least, and which share of the limit that is.

``--only hold`` runs the long tests of interrupted fits instead (:mod:`benchmarks.hold`).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import spacetravlr as st
from benchmarks._common import write
from benchmarks.speed._measure import measure
from benchmarks.speed._registry import STAGES
from benchmarks.speed._report import figures, plot, report
from benchmarks.speed._stage import Options, seconds_text

HOLD = "hold"


def main(argv: list[str] | None = None) -> int:
    """Run the stages one after another and write the table; the exit status says whether all went through."""
    args = _parser().parse_args(argv)
    if args.list:
        for stage in STAGES.values():
            print(f"{stage.name:14s}{stage.title}: {stage.size}; {stage.reach}")
        print(f"{HOLD:14s}fits that are killed or lose a worker give the same coefficients")
        return 0
    options = Options(device=args.device, repeats=args.repeats, quick=args.quick, whole_targets=args.whole_targets)
    if args.result is not None:
        return _child(args.only[0], options, args.result)
    names = list(STAGES) if args.only is None else args.only
    rows: dict[str, Any] = {}
    if args.json is not None and args.json.exists() and not args.quick:
        rows = {name: row for name, row in json.loads(args.json.read_text())["rows"].items() if name in STAGES}
    failed = []
    for name in [n for n in names if n != HOLD]:
        start = time.perf_counter()
        row = _in_process(name, sys.argv[1:] if argv is None else argv)
        if row is None:
            failed.append(name)
            continue
        rows[name] = row
        found = figures(STAGES[name], row)
        print(
            f"{name:14s}{seconds_text(found['seconds'])}  {row['gb']:.2f} GB  {found['ratio']:.3g} x  "
            f"cells^{row['exponent']:.2f}  {100 * row['share']:.2g} % of {row['bound']}  "
            f"({time.perf_counter() - start:.0f} s in all)",
            flush=True,
        )
        if args.json is not None:
            write_json(args.json, rows)
    if rows:
        write(report(list(STAGES.values()), rows), args.out)
    if rows and args.figure is not None:
        plot(list(STAGES.values()), rows, args.figure)
    if HOLD in names:
        from benchmarks.hold import main as hold

        if hold(["--quick"] if args.quick else []):
            failed.append(HOLD)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def write_json(path: Path, rows: dict[str, Any]) -> None:
    """Keep all results; a later run of some stages replaces theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[*STAGES, HOLD],
        metavar="STAGE",
        help="see --list; none: write again what --json holds",
    )
    parser.add_argument("--list", action="store_true", help="print the stages and end")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all of it runs, not how fast")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto", help="of the stages that can use an accelerator")
    parser.add_argument("--whole-targets", type=int, metavar="N", help="fit N targets only in the stage `whole`")
    parser.add_argument("--out", type=Path, help="markdown table")
    parser.add_argument("--figure", type=Path, help="PNG of the growth")
    parser.add_argument("--json", type=Path, help="all figures; stages that are not run keep theirs from this file")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # where the process of one stage writes
    return parser


def _in_process(name: str, passed_on: list[str]) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks", *passed_on, "--only", name, "--result", str(path)]
        done = subprocess.run(command, check=False, env=_environment())
        return json.loads(path.read_text()) if done.returncode == 0 else None


def _environment() -> dict[str, str]:
    """All cores for everything that the package does not tell otherwise."""
    return {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}


def _child(name: str, options: Options, result: Path) -> int:
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small tissues: neighbours and types with few cells
        result.write_text(json.dumps(measure(STAGES[name], options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
