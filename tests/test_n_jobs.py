"""Every public function with ``n_jobs`` gives the same with one thread as with two, uses no more, and tidies up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from threadpoolctl import threadpool_info

import spacetravlr as st
from spacetravlr.models import GeneFactory


def _public() -> Iterator[str]:
    for home, package in (("st", st), *((f"st.{name}", getattr(st, name)) for name in ("pp", "tl", "get"))):
        for name in package.__all__:
            value = getattr(package, name)
            if callable(value) and "n_jobs" in inspect.signature(value).parameters:
                yield f"{home}.{name}"


def _pairs(adata):
    return adata.uns["simulation"]["ligand_receptor"]


def _frame(adata, names):
    return pd.DataFrame(adata[:, names].layers["log1p"], index=adata.obs_names, columns=names)


def _weights(adata, n_jobs):
    out = st.pp.spatial_weights(adata, n_jobs=n_jobs, copy=True)
    return [out.obsp["spatial_weights"], out.obsp["contact_weights"]]


def _received(adata, n_jobs, method="sparse"):
    if method == "grid":
        st.pp.spatial_weights(adata, method="grid", n_jobs=n_jobs)
    out = st.pp.received_ligands(adata, _pairs(adata), layer="log1p", n_jobs=n_jobs, copy=True)
    return [out.uns["received_ligands"]]


def _fit(adata, n_jobs, body):
    st.pp.modulators(adata, st.datasets.simulated_priors(adata)[0])
    network = st.nn.NetworkConfig(n_epochs=2, batch_size=64, device="cpu") if body == "cnn" else None
    out = st.tl.fit_betas(adata, body=body, network=network, n_jobs=n_jobs, uncertainty=True, copy=True)
    return [out.obsm["betas"], out.uns["betas"]["scores"]["r2_kept"], out.obsm.get("betas_sd", np.zeros(1))]


def _transfer(adata, n_jobs):
    st.pp.modulators(adata, st.datasets.simulated_priors(adata)[0])
    st.tl.fit_betas(adata, body="surface", n_jobs=1)
    query = adata.copy()
    del query.obsm["betas"], query.uns["betas"]
    return [st.tl.transfer_betas(adata, query, n_jobs=n_jobs, copy=True).obsm["betas"]]


def _fit_again(n_jobs, name, **options):
    adata = st.datasets.simulated_tissue(n_cells=150, n_targets=2, n_tfs=4, n_active_tfs=3, depth=5.0, rng=1)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, _pairs(adata), layer="log1p")
    st.pp.modulators(adata, st.datasets.simulated_priors(adata)[0])
    st.tl.fit_betas(adata, body="seed", n_jobs=1)
    getattr(st.tl, name)(adata, counts_layer="counts", genes=["FOXO1"], n_jobs=n_jobs, **options)
    found = adata.uns[name]
    return [found["targets"].select_dtypes("number"), found["effects"]]


def _drivers(adata, n_jobs):
    out = st.tl.drivers(adata, "CD79A", n_check=2, n_jobs=n_jobs, copy=True)
    return [out.obsm["drivers"], out.obsm["drivers_knockout"], out.uns["drivers"]["table"].select_dtypes("number")]


def _signals(_, n_jobs):
    adata = st.datasets.simulated_tissue(n_cells=250, n_targets=3, rng=1)
    st.pp.spatial_weights(adata, n_jobs=1)
    st.pp.received_ligands(adata, _pairs(adata), layer="log1p", n_jobs=1)
    st.pp.modulators(adata, st.datasets.simulated_priors(adata)[0])
    st.tl.test_signals(adata, n_jobs=n_jobs)
    return [table.select_dtypes("number") for table in (st.get.signals(adata), st.get.signals(adata, per="cell_type"))]


def _vectors(adata, n_jobs):
    st.tl.perturb(adata, "FOXO1", n_jobs=1)
    out = st.tl.perturbation_vectors(adata, basis="spatial", n_jobs=n_jobs, copy=True)
    return [out.obsm["perturbed_spatial"], out.obsp["perturbed_transitions"]]


def _niches(adata, n_jobs):
    out = st.tl.microniches(adata, by="contributions", n_niches=2, n_draws=2, n_jobs=n_jobs, copy=True)
    return [out.obs["microniche"].cat.codes, out.uns["microniches"]["niches"]["stability"]]


def _weights_of(adata, n_jobs):
    ligands = _frame(adata, sorted(set(_pairs(adata)["ligand"].astype(str))))
    return [st.compute_radius_weights(adata.obsm["spatial"], ligands, radius=100, n_jobs=n_jobs)]


def _received_of(adata, n_jobs):
    info = _pairs(adata).astype(str).assign(radius=100.0)
    ligands = _frame(adata, sorted(set(info["ligand"])))
    return [st.received_ligands(adata.obsm["spatial"], ligands, info, n_jobs=n_jobs)]


def _published(adata, n_jobs):
    st.init_received_ligands(adata, _pairs(adata), layer="log1p", n_jobs=n_jobs)
    return [adata.uns["received_ligands"]]


def _denoised(adata, n_jobs):
    counted = adata.copy()
    counted.layers["counts"] = np.round(3 * np.expm1(adata.layers["log1p"]))
    counted.layers["log1p"] = np.log1p(counted.layers["counts"])
    return [st.pp.denoise(counted, layer="log1p", n_jobs=n_jobs, copy=True).layers["denoised"]]


CASES: dict[str, list[Callable[..., list[Any]]]] = {
    "st.pp.denoise": [_denoised],
    "st.pp.impute": [lambda a, n: [st.pp.impute(a, layer="log1p", n_jobs=n, copy=True).layers["imputed"]]],
    "st.pp.niche": [lambda a, n: [st.pp.niche(a, n_jobs=n, copy=True).obsm["niche_composition"]]],
    "st.pp.spatial_weights": [_weights],
    "st.pp.received_ligands": [_received, lambda a, n: _received(a, n, "grid")],
    "st.tl.fit_betas": [
        lambda a, n: _fit(a, n, "seed"),
        lambda a, n: _fit(a, n, "surface"),
        lambda a, n: _fit(a, n, "cnn"),
    ],
    "st.tl.transfer_betas": [_transfer],
    "st.tl.replicate": [lambda _, n: _fit_again(n, "replicate")],
    "st.tl.null_fits": [lambda _, n: _fit_again(n, "null_fits", n_fits=1)],
    "st.tl.drivers": [_drivers],
    "st.tl.test_signals": [_signals],
    "st.get.senders": [lambda a, n: [st.get.senders(a, "CXCL12", per_cell=True, n_jobs=n)]],
    "st.tl.perturb": [
        lambda a, n: [st.tl.perturb(a, "FOXO1", n_jobs=n, copy=True).layers["perturbed"]],
        lambda a, n: [st.tl.perturb(a, "FOXO1", derivative="exact", n_jobs=n, copy=True).layers["perturbed"]],
    ],
    "st.tl.perturb_batch": [lambda a, n: [r.change for r in st.tl.perturb_batch(a, ["FOXO1", "CXCL12"], n_jobs=n)]],
    "st.tl.genome_screen": [lambda a, n: [st.tl.genome_screen(a, genes=["FOXO1", "CXCL12"], n_jobs=n).X]],
    "st.tl.perturbation_vectors": [_vectors],
    "st.tl.microniches": [_niches],
    "st.get.baselines": [lambda a, n: [r.X for r in st.get.baselines(a, genes=["FOXO1", "CXCL12"], n_jobs=n).values()]],
    "st.get.derivatives": [lambda a, n: [st.get.derivatives(a, st.get.scores(a)["target"].iloc[0], n_jobs=n)]],
    "st.GeneFactory": [lambda a, n: [GeneFactory(a, n_jobs=n).perturb("FOXO1").change]],
    "st.compute_radius_weights": [_weights_of],
    "st.received_ligands": [_received_of],
    "st.init_received_ligands": [_published],
}


def test_no_function_is_left_out():
    assert set(_public()) == set(CASES)


@pytest.mark.parametrize(
    "name, case",
    [pytest.param(name, case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)],
)
def test_threads(adata, monkeypatch, name, case):
    asked: list[int] = []
    set_num_threads = numba.set_num_threads

    def record(n):
        asked.append(n)
        set_num_threads(n)

    def threads():
        libraries = {p["filepath"]: p["num_threads"] for p in threadpool_info()}
        return numba.get_num_threads(), torch.get_num_threads(), libraries

    monkeypatch.setattr(st.settings, "n_jobs", 2)
    results = []
    for n_jobs in (1, 2):
        before = threads()
        with monkeypatch.context() as patch:
            patch.setattr(numba, "set_num_threads", record)
            results.append(case(adata.copy(), n_jobs))
        *now, libraries = threads()
        assert (*now, {path: libraries[path] for path in before[2]}) == before  # more may have been loaded
        if n_jobs == 1 and name not in _PREPARED:
            assert set(asked) <= {1, before[0]}
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(_dense(one), _dense(two), rtol=1e-5, atol=1e-5, err_msg=name)


#: Cases that call other functions first, on threads of their own.
_PREPARED = {
    "st.tl.fit_betas", "st.tl.null_fits", "st.tl.replicate", "st.tl.transfer_betas", "st.tl.perturbation_vectors",
}  # fmt: skip


def _dense(values: Any) -> np.ndarray:
    return values.toarray() if sparse.issparse(values) else np.asarray(values)
