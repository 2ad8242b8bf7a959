"""Fits that are killed, or lose a worker, give the same coefficients as one that runs through.

``python -m benchmarks --only hold`` or ``python -m benchmarks.hold``

* **killed**: a process that fits into a store is ended by SIGKILL at a random moment and started again, until it gets
  through; once with surfaces, once with the default body.
* **worker lost**: a Dask cluster of two worker processes fits, and one of them is ended by SIGKILL in the middle.

Each is compared with a fit in memory. Prints a line per test and the largest difference; the exit status is 1 when one
failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from anndata import AnnData

import spacetravlr as st
from benchmarks.speed._tissues import prepared

_TOLERANCE = 1e-5  # of the largest coefficient
_BLOCK = 4
_PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import spacetravlr as st
st.tl.fit_betas(st.io.read(sys.argv[1]), store=sys.argv[2], body=sys.argv[3], block_size=int(sys.argv[4]),
                show_progress_bar=False)
"""


class Sizes(NamedTuple):
    """The tissue, and how often a fit is killed."""

    cells: int
    types: int
    targets: int
    modulators: int
    kills: int


LONG, SHORT = Sizes(1500, 5, 40, 60, 8), Sizes(250, 2, 8, 15, 2)


class Outcome(NamedTuple):
    """What came of one test."""

    name: str
    kills: int
    difference: float
    """Largest difference of a coefficient, relative to the largest coefficient."""

    @property
    def passed(self) -> bool:
        """Whether something was killed and the coefficients are the same."""
        return self.kills > 0 and self.difference < _TOLERANCE


def fitted(adata: AnnData, body: str, **options: object) -> np.ndarray:
    """Coefficients of a fit."""
    out = st.tl.fit_betas(adata, body=body, block_size=_BLOCK, copy=True, show_progress_bar=False, **options)
    betas = out.obsm["betas"]
    return np.asarray(betas.compute() if hasattr(betas, "compute") else betas)


def killed_fit(adata: AnnData, body: str, expected: np.ndarray, n_kills: int, seconds: float, folder: Path) -> Outcome:
    """Kill a fit ``n_kills`` times at moments up to ``seconds`` after its first block, then let it end."""
    store, tissue = folder / f"{body}.zarr", folder / "tissue.h5ad"
    if not tissue.exists():
        st.io.write(adata, tissue)
    command = [sys.executable, "-c", _PROGRAM, str(tissue), str(store), body, str(_BLOCK)]
    rng, kills = np.random.default_rng(0), 0
    for _ in range(n_kills):
        before = _n_blocks(store)
        with subprocess.Popen(command) as process:
            while process.poll() is None and not store.exists():
                time.sleep(0.05)
            # some die as they begin, some between two blocks, some as they write one
            moment = time.monotonic() + rng.uniform(0, 3 * seconds / n_kills)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        print(f"  killed with {before} blocks there at its start and {_n_blocks(store)} at its end", flush=True)
        if process.returncode == 0:
            break
    subprocess.run(command, check=True)
    return Outcome(f"killed, body={body!r}", kills, _difference(fitted(adata, body, store=store), expected))


def lost_worker(adata: AnnData, body: str, expected: np.ndarray, seconds: float) -> Outcome:
    """Kill one of two workers in the middle of a fit."""
    import distributed

    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", local_directory=folder
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        victim = sorted(client.run(os.getpid).values())[0]
        timer = threading.Timer(seconds / 2, os.kill, (victim, signal.SIGKILL))
        timer.start()
        found = fitted(adata, body, client=client)
        timer.cancel()
        lost = victim not in client.run(os.getpid).values()
    return Outcome(f"worker lost, body={body!r}", int(lost), _difference(found, expected))


def main(argv: list[str] | None = None) -> int:
    """Run all tests; the exit status is 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny tissue, killed twice")
    parser.add_argument("--bodies", nargs="+", default=["surface", "auto"])
    args = parser.parse_args(argv)
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    sizes = SHORT if args.quick else LONG
    outcomes: list[Outcome] = []
    folder = Path(tempfile.mkdtemp(prefix="hold-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata = prepared(sizes.cells, sizes.types, sizes.targets, sizes.modulators)
            for body in args.bodies:
                start = time.monotonic()
                expected = fitted(adata, body)
                seconds = time.monotonic() - start
                tests: list[Callable[[], Outcome]] = [
                    lambda b=body, e=expected, s=seconds: killed_fit(adata, b, e, sizes.kills, s, folder),
                    lambda b=body, e=expected, s=seconds: lost_worker(adata, b, e, s),
                ]
                for test in tests:
                    outcomes.append(test())
                    print(_line(outcomes[-1]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"{passed} of {len(outcomes)} passed")
    return int(passed < len(outcomes))


def _line(outcome: Outcome) -> str:
    verdict = "passed" if outcome.passed else "FAILED"
    return f"{outcome.name:32s} {outcome.kills} killed, largest difference {outcome.difference:.1e}: {verdict}"


def _n_blocks(store: Path) -> int:
    return len(list(store.glob("block_*")))


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    sys.exit(main())
