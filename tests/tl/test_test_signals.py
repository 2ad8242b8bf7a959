"""Tests of received signals: what they find, what they must not find, and what they say about it."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st


def prepared(layer="log1p", **options):
    adata = st.datasets.simulated_tissue(**({"n_cells": 1500, "n_targets": 4, "fields": "constant"} | options))
    grn, lr, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata, library_key="slide" if "slide" in adata.obs else None)
    st.pp.received_ligands(adata, lr, layer=layer)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf, layer=layer)
    return adata


def acting(adata):
    terms = adata.uns["simulation"]["terms"]
    terms = terms[terms["active"] & terms["kind"].isin(["lr", "tfl"])].astype(str)
    return {(r.target, r.ligand + ("|contact" if r.range == "contact" else "")) for r in terms.itertuples()}


@pytest.fixture(scope="module")
def tissue():
    return prepared(rng=0)


@pytest.fixture(scope="module")
def tested(tissue):
    return st.tl.test_signals(tissue, copy=True)


def test_signals_that_act_are_found(tested):
    table, true = st.get.signals(tested), acting(tested)
    acts = np.array([pair in true for pair in zip(table["target"], table["signal"], strict=True)])
    assert len(table) == 48
    assert (table["q"][acts] < 0.1).mean() > 0.5
    assert (table["q"][~acts] < 0.1).mean() < 0.1
    assert table["gain"][acts].mean() > 5 * abs(table["gain"][~acts].mean())
    targets = st.get.signals(tested, per="target")
    assert (targets["q"] < 0.01).all()
    assert (targets["gain"] > 0).all()
    assert (targets["inflation"] >= 1).all()


def test_own_ligands_are_adjusted_for_once(tissue, tested):
    """They are, whether the table of modulators has them or not."""
    without = tissue.copy()
    table = without.uns["modulators"]["table"]
    assert (table["kind"] == "ligand").any()
    without.uns["modulators"]["table"] = table[table["kind"] != "ligand"]
    st.tl.test_signals(without)
    for part in ("signals", "targets", "types"):
        pd.testing.assert_frame_equal(without.uns["signals_test"][part], tested.uns["signals_test"][part])


def test_the_sign_is_that_of_the_truth(tested):
    table = st.get.signals(tested, max_q=0.001)
    terms = tested.uns["simulation"]["terms"]
    columns = {
        (r.target, r.ligand, r.receptor): i for i, r in enumerate(terms.astype(str).itertuples()) if r.kind == "lr"
    }
    true = np.array([
        np.sign(tested.obsm["true_betas"][:, columns[r.target, r.ligand, r.partner]].mean())
        for r in table.itertuples() if r.kind == "lr"
    ])  # fmt: skip
    found = np.sign(table.loc[table["kind"] == "lr", "effect"].to_numpy())
    assert (found[true != 0] == true[true != 0]).all()
    assert (true != 0).sum() > 3


def test_types_agree_with_all_cells(tested):
    types = st.get.signals(tested, per="cell_type", max_q=0.001)
    assert len(types)
    pd.testing.assert_frame_equal(types, st.get.signals(tested, per="type", max_q=0.001))
    assert types["cell_type"].nunique() == 4
    whole = st.get.signals(tested).set_index(["target", "signal", "partner"])["effect"]
    for key, rows in types.groupby(["target", "signal", "partner"]):
        if key in whole.index:
            z = (rows["effect"] - whole[key]) / rows["se"]
            assert (z.abs() < 5).all()


@pytest.mark.parametrize("confounder", [None, "ligand"])
def test_nothing_is_found_where_nothing_acts(confounder):
    adata = prepared(
        n_cells=600, n_targets=5, depth=2.0, programs=0.5, confounder=confounder, n_active_tfs=0, n_active_pairs=0,
        n_active_ligand_tf=0, rng=1,
    )  # fmt: skip
    st.tl.test_signals(adata, counts_layer="counts")
    p = st.get.signals(adata)["p"].to_numpy()
    assert (p < 0.05).mean() < 0.12
    assert 0.35 < p.mean() < 0.65
    assert (st.get.signals(adata)["q"] < 0.1).mean() < 0.03


def test_what_a_cell_sends_itself_is_not_a_neighbour():
    """A target that follows a ligand of its own cell does not answer to what its neighbours send."""
    adata = prepared(n_active_pairs=0, n_active_ligand_tf=0, n_active_tfs=2, n_targets=1, n_cells=800, rng=2)
    values = adata.layers["log1p"]
    ligand, target = adata.var_names.get_loc("CD80"), adata.var_names.get_loc("PAX5")
    values[:, target] += 2 * values[:, ligand]
    st.tl.test_signals(adata)
    table = st.get.signals(adata).set_index("signal")
    assert table.loc["CD80|contact", "p"] > 0.01


def test_results_do_not_depend_on_the_order_of_cells_or_on_other_targets(tissue, tested):
    order = np.random.default_rng(0).permutation(tissue.n_obs)
    other = tissue[order].copy()
    name = st.get.signals(tested)["target"][0]
    st.pp.spatial_weights(other)
    st.pp.received_ligands(other, tissue.uns["simulation"]["ligand_receptor"], layer="log1p")
    st.tl.test_signals(other, name)
    keys = ["target", "signal"]
    one = st.get.signals(other).set_index(keys).sort_index()
    all_of_them = st.get.signals(tested, name).set_index(keys).sort_index()
    for column in ("p", "effect", "gain"):
        np.testing.assert_allclose(one[column], all_of_them[column], rtol=2e-2, atol=2e-4)


def test_survives_files(tested, tmp_path):
    stored = tested.uns["signals_test"]
    assert list(stored["signals"]["pathway"].unique()) != [""]
    slim = anndata.AnnData(obs=tested.obs[["cell_type"]], uns={"signals_test": stored})
    slim.write_h5ad(tmp_path / "a.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the format of zarr
        slim.write_zarr(tmp_path / "a.zarr")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        for per in ("signal", "target", "type"):
            pd.testing.assert_frame_equal(
                st.get.signals(back, per=per), st.get.signals(tested, per=per), check_dtype=False
            )
        assert back.uns["signals_test"]["params"]["n_shifts"] == 4


def test_slides_and_keys():
    adata = prepared(n_cells=600, n_targets=1, n_slides=2, rng=3)
    st.pp.received_ligands(adata, adata.uns["simulation"]["ligand_receptor"], layer="log1p", normalize="row")
    before = adata.X.copy()
    assert st.tl.test_signals(adata, n_shifts=0, key_added="mine") is None
    assert "signals_test" not in adata.uns
    np.testing.assert_array_equal(adata.X, before)
    table = st.get.signals(adata, per="target", signals_key="mine")
    assert (table["inflation"] == 1).all()
    assert st.get.signals(adata, signals_key="mine")["p"].between(0, 1).all()


def test_a_long_call_says_how_long_it_takes(tissue, monkeypatch, caplog):
    from spacetravlr.models.signals import _run

    for long in (1e9, 0.0):
        caplog.clear()
        monkeypatch.setattr(_run, "_LONG", long)
        with caplog.at_level("INFO", logger="spacetravlr"):
            st.tl.test_signals(tissue, _targets(tissue)[:2], n_shifts=0, copy=True)
        assert ("1 more targets will take about" in caplog.text) == (long == 0.0)


def _targets(adata):
    return list(dict.fromkeys(adata.uns["modulators"]["table"]["target"].astype(str)))


def test_processes_find_what_threads_find(tissue, monkeypatch):
    found = []
    for processes in (False, True):
        monkeypatch.setattr(st.settings, "processes", processes)
        found.append(st.tl.test_signals(tissue, _targets(tissue)[:3], n_shifts=1, rng=0, n_jobs=2, copy=True))
    for per in ("signal", "target"):
        pd.testing.assert_frame_equal(*(st.get.signals(adata, per=per) for adata in found))


def test_the_progress_bar_counts_targets(tissue, capsys):
    st.tl.test_signals(tissue, ["PAX5"], n_shifts=0, show_progress_bar=True, copy=True)
    assert "1/1" in capsys.readouterr().err


def test_bad_input(tissue):
    with pytest.raises(ValueError, match="n_shifts"):
        st.tl.test_signals(tissue, n_shifts=-1)
    with pytest.raises(KeyError, match="st.tl.test_signals"):
        st.get.signals(tissue)
    with pytest.raises(KeyError, match="NOGENE"):
        st.tl.test_signals(tissue, "NOGENE")
    with pytest.raises(ValueError, match="at least 200 cells, found|at least 200 cells"):
        st.tl.test_signals(tissue[:150].copy())
    bare = tissue.copy()
    del bare.uns["modulators"]
    with pytest.raises(KeyError, match="st.pp.modulators"):
        st.tl.test_signals(bare)
    without = tissue.copy()
    table = without.uns["modulators"]["table"]
    without.uns["modulators"] = {**without.uns["modulators"], "table": table[table["kind"] == "tf"]}
    with pytest.raises(ValueError, match="a received signal"):
        st.tl.test_signals(without)
    counted = tissue.copy()
    counted.layers["counts"] = counted.layers["log1p"].copy()
    with pytest.warns(UserWarning, match="counts_layer"):
        st.tl.test_signals(counted, "PAX5")
    with pytest.raises(ValueError, match="raw counts"):
        st.tl.test_signals(counted, "PAX5", counts_layer="counts")


def test_bad_questions(tested):
    with pytest.raises(ValueError, match="per"):
        st.get.signals(tested, per="gene")
    with pytest.raises(ValueError, match="max_q"):
        st.get.signals(tested, max_q=2)
    with pytest.raises(KeyError, match="NOGENE"):
        st.get.signals(tested, "NOGENE")


def test_targets_that_wait_go_on_in_processes(tissue, monkeypatch):
    from spacetravlr.models.signals import _run

    def run():
        return st.tl.test_signals(tissue, _targets(tissue), n_shifts=0, rng=0, n_jobs=2, copy=True)

    in_processes, sent = _run.in_processes, []

    def watched(work, shared, tasks, n_jobs):
        sent.extend(tasks)
        return in_processes(work, shared, tasks, n_jobs)

    threads = run()
    monkeypatch.setattr(_run, "processes_pay", lambda seconds, n_jobs: seconds > 0)
    monkeypatch.setattr(_run, "in_processes", watched)
    mixed = run()
    assert sent == list(range(len(_targets(tissue))))[len(_targets(tissue)) - len(sent) :]
    for per in ("signal", "target"):
        pd.testing.assert_frame_equal(st.get.signals(mixed, per=per), st.get.signals(threads, per=per))
