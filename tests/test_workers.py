"""Fits and screens on the worker processes of a Dask cluster, which may die."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import dask
import numpy as np
import pytest

import spacetravlr as st
from spacetravlr import _workers
from spacetravlr._workers import run_on_workers
from spacetravlr.io._lazy import lazy_matrix

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    # a worker that dies a second time within this time is given up
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10m"}):
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, dashboard_address=":0", local_directory=tmp_path_factory.mktemp("dask")
        )
        try:
            with distributed.Client(cluster) as client:
                yield client
        finally:
            # at its end a cluster may hear of the death of a worker that it has forgotten already, and stumble
            with suppress(KeyError):
                cluster.close()


@pytest.fixture(scope="module")
def tissue():
    adata = st.datasets.simulated_tissue(
        n_cells=200, n_cell_types=2, n_targets=6, n_tfs=5, n_active_tfs=3, n_pairs=4, n_active_pairs=2, rng=1
    )
    st.pp.spatial_weights(adata)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn)
    return adata


def _dying(module, name, when):
    """Let the function ``name`` of ``module`` end its process where ``when(arguments)``, on workers that run now."""

    def patch():
        from importlib import import_module

        home = import_module(module)
        whole = getattr(home, name)

        def dies(*arguments, **options):
            if when(arguments):
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*arguments, **options)

        setattr(home, name, dies)
        return os.getpid()

    return patch


def _pids(client):
    client.wait_for_workers(2, timeout=60)
    return set(client.run(os.getpid).values())


# one worker or both, in the middle of a block


@pytest.mark.parametrize("n_dying, store", [(1, True), (2, False)])
def test_a_fit_outlives_its_workers(client, tissue, tmp_path, n_dying, store):
    expected = st.tl.fit_betas(tissue, body="surface", block_size=1, copy=True)
    before = _pids(client)
    workers = list(client.scheduler_info()["workers"])[:n_dying]
    first = 2 * (n_dying - 1)  # a single one may not get a later block
    client.run(_dying("spacetravlr.models.fit._tissue", "fit_targets", lambda a: a[2][0] >= first), workers=workers)
    out = st.tl.fit_betas(
        tissue, body="surface", block_size=1, copy=True, client=client, store=tmp_path / "b.zarr" if store else None
    )
    np.testing.assert_array_equal(np.asarray(out.obsm["betas"]), expected.obsm["betas"])
    assert len(before - _pids(client)) == n_dying


def test_a_screen_outlives_its_workers(client, adata, tmp_path):
    expected = st.tl.genome_screen(adata, batch_size=1)
    before = _pids(client)
    workers = list(client.scheduler_info()["workers"])[:1]
    client.run(_dying("spacetravlr.models.perturb._screen", "run_batch", lambda _: True), workers=workers)
    screen = st.tl.genome_screen(adata, batch_size=1, client=client, save_to=tmp_path)
    np.testing.assert_array_equal(screen.X, expected.X)
    assert len(list(tmp_path.glob("*.npz"))) == screen.n_obs
    assert len(before - _pids(client)) == 1


def test_a_worker_that_dies_while_the_data_is_sent(client, monkeypatch):
    """As distributed tells of it."""
    scatter, calls = client.scatter, []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) < 3:
            raise KeyError("tcp://127.0.0.1:1")
        return scatter(*arguments, **options)

    monkeypatch.setattr(client, "scatter", dies)
    assert dict(run_on_workers(client, lambda shared, i: shared + i, 1, ((i, (i,)) for i in range(3)))) == {
        0: 1, 1: 2, 2: 3
    }  # fmt: skip
    assert len(calls) == 3
    calls.clear()
    monkeypatch.setattr(_workers, "_LOSSES", 1)
    with pytest.raises(RuntimeError, match="Expected workers to outlive their tasks, .* at task sending the data"):
        list(run_on_workers(client, lambda shared: shared, 1, [(0, ())]))


def test_workers_that_do_not_see_the_store_name_it(client, tissue, tmp_path, monkeypatch):
    fitted = st.tl.fit_betas(tissue, body="seed", block_size=2, copy=True, store=tmp_path / "b.zarr")
    matrix = lazy_matrix(fitted.obsm["betas"])
    matrix.store = tmp_path / "elsewhere"
    matrix.parts = [part._replace(folder=matrix.store / part.folder.name) for part in matrix.parts]
    with pytest.raises(FileNotFoundError, match=r"coefficients of 'PAX5'.*in the store .*elsewhere, found no such fol"):
        st.tl.genome_screen(fitted, batch_size=1, client=client)


def test_coefficients_on_disk_are_read_by_the_workers(client, tissue, tmp_path):
    """As tasks of the same cluster they would wait for the very tasks that read them."""
    fitted = st.tl.fit_betas(tissue, body="seed", block_size=2, copy=True, store=tmp_path / "b.zarr")
    expected = st.tl.genome_screen(fitted, batch_size=1)
    screen = st.tl.genome_screen(fitted, batch_size=1, client=client)
    np.testing.assert_array_equal(screen.X, expected.X)


# tasks


def test_a_worker_computes_one_task_at_a_time_on_its_threads(client):
    def look(shared, i):
        import threading
        import time

        import numba
        import threadpoolctl

        from spacetravlr._utils import resolve_n_jobs

        running = shared.setdefault("running", [0])
        running[0] += 1
        most = running[0]
        time.sleep(0.02)
        running[0] -= 1
        assert threading.active_count() > 1
        blas = {p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}
        return most, resolve_n_jobs(None), numba.get_num_threads(), max(blas, default=1)

    cores = os.cpu_count()
    for n_jobs, expected in ((None, 2), (1, 1)):
        found = dict(run_on_workers(client, look, {}, ((i, (i,)) for i in range(8)), n_jobs=n_jobs))
        assert set(found) == set(range(8))
        assert {f[0] for f in found.values()} == {1}
        assert {f[1] for f in found.values()} == {expected}
        assert all(max(f[2:]) <= min(expected, cores) for f in found.values())


def test_errors_of_tasks_are_passed_on(client):
    def fails(shared, i):
        if i == 2:
            msg = "as it should"
            raise KeyError(msg)
        return i

    with pytest.raises(KeyError, match="as it should"):
        list(run_on_workers(client, fails, None, ((i, (i,)) for i in range(4))))


# last: what is left of the cluster is of no use


def test_tasks_that_kill_every_worker_end_with_an_error(client, monkeypatch):
    monkeypatch.setattr(_workers, "_LOSSES", 1)

    def dies(shared, i):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="Expected workers to outlive their tasks, .* at task number"):
        list(run_on_workers(client, dies, None, ((f"number {i}", (i,)) for i in range(2))))
