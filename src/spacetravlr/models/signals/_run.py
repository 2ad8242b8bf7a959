"""From an AnnData to the tables of ``tl.test_signals``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from spacetravlr import _keys
from spacetravlr._anndata._expression import get_expression
from spacetravlr._anndata._fit import FitData, read_fit_data
from spacetravlr._anndata._received import operators
from spacetravlr._core.design import Kind
from spacetravlr._core.inference.fdr import benjamini_hochberg
from spacetravlr._processes import INTERPRETED, in_processes, processes_pay
from spacetravlr._resources import spoken
from spacetravlr._utils import InterruptiblePool, resolve_n_jobs
from spacetravlr.models.fit._tissue import fit_inputs
from spacetravlr.models.signals._inputs import Sent, SignalInputs, signal_inputs, what_is_sent
from spacetravlr.models.signals._target import TargetTests, check_target

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger(__name__)

_N_FOLDS = 3
_FEWEST_CELLS = 200
_LONG = 60.0  # seconds from which on it is said how long a call takes


class SignalTables(NamedTuple):
    """What the tests say."""

    signals: pd.DataFrame
    """One row per target and signal."""
    targets: pd.DataFrame
    types: pd.DataFrame
    """One row per target, signal, partner and cell type."""
    params: dict[str, Any]
    """What was read."""


def run_tests(
    adata: AnnData,
    *,
    targets: Sequence[str] | None,
    layer: str | None,
    counts_layer: str | None,
    cluster_key: str | None,
    modulators_key: str,
    n_shifts: int,
    rng: np.random.Generator,
    n_jobs: int | None,
    started: Callable[[int], Any],
    progress: Callable[[int], Any],
) -> SignalTables:
    """Read, check and test; ``adata`` is not changed.

    ``started`` is called with the number of targets before the first is tested, ``progress`` with those done since.
    """
    tissue = read_fit_data(
        adata, targets=targets, layer=layer, counts_layer=counts_layer, cluster_key=cluster_key,
        modulators_key=modulators_key,
    )  # fmt: skip
    if not len(tissue.design.signals):
        msg = (
            f"Expected adata.uns[{modulators_key!r}] to hold terms with a received signal, found none; call "
            "`st.pp.received_ligands` and `st.pp.modulators` with pairs whose genes were measured."
        )
        raise ValueError(msg)
    if adata.n_obs < _FEWEST_CELLS:
        msg = f"Expected at least {_FEWEST_CELLS} cells to test signals, found {adata.n_obs}."
        raise ValueError(msg)
    fit = fit_inputs(tissue, n_folds=_N_FOLDS, rng_seed=0, n_jobs=n_jobs)
    shared = signal_inputs(fit, _sent(adata, tissue, n_jobs), n_shifts=n_shifts, rng=rng)
    _ = fit.expected_regulators  # before several threads ask for it
    n_targets, n_threads = len(fit.targets), resolve_n_jobs(n_jobs)
    found: list[TargetTests] = []
    started(n_targets)
    with closing(_each_target(shared, n_targets, n_threads)) as results:
        for tests in results:
            found.append(tests)
            progress(1)
    pairs = adata.uns[_keys.received_params(str(tissue.params["received_key"]))].get("pairs")
    return _tables(tissue, found, pairs)


def _each_target(shared: SignalInputs, n_targets: int, n_jobs: int) -> Generator[TargetTests]:
    """Test all targets; the first says how long the others will take, and whether those that wait go to processes."""
    if processes_pay(0.0, n_jobs):
        yield from in_processes(_check_target, shared, range(n_targets), min(n_jobs, n_targets))
        return
    start = time.perf_counter()
    with threadpool_limits(1), InterruptiblePool(n_jobs) as pool:  # targets are the threads
        tests = [pool.submit(check_target, shared, t) for t in range(n_targets)]
        yield tests[0].result()
        at_once = min(n_jobs, n_targets)
        seconds = (time.perf_counter() - start) * _cores_busy(at_once) / at_once * (n_targets - 1)
        processes = processes_pay(seconds, n_jobs)
        wall = seconds / (n_jobs if processes else _cores_busy(n_jobs))
        if wall > _LONG:
            logger.info("%d more targets will take %s (a rough estimate)", n_targets - 1, spoken(wall))
        waiting = [t for t in range(1, n_targets) if processes and tests[t].cancel()]  # they start in their order
        for found in tests[1 : n_targets - len(waiting)]:
            yield found.result()
    if waiting:
        yield from in_processes(_check_target, shared, waiting, min(n_jobs, len(waiting)))


def _cores_busy(n_threads: int) -> float:
    """Cores that so many threads keep busy, which hold the interpreter in turn."""
    return min(n_threads, 1 / INTERPRETED)


def _check_target(shared: SignalInputs, t: int, check: Callable[[], None]) -> TargetTests:
    """Test one target, which takes seconds and is not ended early."""
    return check_target(shared, t)


def _sent(adata: AnnData, tissue: FitData, n_jobs: int | None) -> Sent:
    """Signals from other cells, in the order of the fit."""
    design, rows, params = tissue.design, tissue.order.rows, tissue.params
    ligands = get_expression(
        adata, list(adata.var_names[design.signals.ligand]), layer=str(params["layer"]) or None, check=False
    )
    field = operators(adata, str(params["received_key"]), n_jobs=n_jobs)
    cell_type = tissue.cell_type[tissue.order.position]
    sent = what_is_sent(field, ligands, design.signals.contact, cell_type, len(tissue.type_names))
    return Sent(*(np.asarray(values)[rows] for values in sent))


def _tables(tissue: FitData, found: list[TargetTests], pairs: pd.DataFrame | None) -> SignalTables:
    genes = tissue.design.genes[np.unique(np.concatenate([tissue.design.terms.gene, tissue.design.targets.gene]))]
    pathways = _pathways(pairs)
    signals, targets, types = [], [], []
    for target, tests in zip(tissue.target_names, found, strict=True):
        partners = [str(genes[g]) for g in tests.terms.gene]
        for s, signal in enumerate(tests.signals):
            name = tissue.design.signal_names[signal]
            ligand, signal_range = _keys.parse_signal(name)
            rows = np.flatnonzero(tests.terms.signal == signal)
            receptors = [partners[i] for i in rows if tests.terms.kind[i] == Kind.LR]
            best = int(tests.best[s])
            signals.append(
                {
                    "target": target, "signal": name, "ligand": ligand, "range": signal_range,
                    "receptors": ", ".join(receptors), "pathway": pathways.get((ligand, signal_range), ""),
                    "partner": partners[best], "kind": "lr" if tests.terms.kind[best] == Kind.LR else "tfl",
                    "effect": tests.effect[best], "gain": tests.gain[s], "p": tests.p[s],
                }
            )  # fmt: skip
            types += [
                {
                    "target": target, "signal": name, "partner": partners[i], "cell_type": cell_type,
                    "effect": tests.type_effect[i, c], "se": tests.type_error[i, c],
                }
                for i in rows
                for c, cell_type in enumerate(tissue.type_names)
            ]  # fmt: skip
        targets.append(
            {
                "target": target, "n_signals": len(tests.signals), "gain": tests.all_gain, "p": tests.all_p,
                "inflation": tests.inflation,
            }
        )  # fmt: skip
    tables = [_with_names(pd.DataFrame(rows)) for rows in (signals, targets, types)]
    for table in tables[:2]:
        table.insert(table.columns.get_loc("p") + 1, "q", benjamini_hochberg(table["p"].to_numpy(float)))
    return SignalTables(tables[0], tables[1], tables[2], dict(tissue.params))


def _pathways(pairs: pd.DataFrame | None) -> dict[tuple[str, str], str]:
    """Pathway of each ligand and range, the most frequent one of its pairs."""
    if pairs is None or "pathway" not in pairs or not len(pairs):
        return {}
    plain = pairs[["ligand", "range", "pathway"]].astype(str)
    plain = plain[~plain["pathway"].isin(["", "nan", "None"])]
    groups = plain.groupby(["ligand", "range"])["pathway"]
    return {key: str(values.mode().iloc[0]) for key, values in groups}


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    """Rows named by their number, as a file keeps them."""
    return table.set_axis(pd.RangeIndex(len(table)).astype(str), axis=0)
