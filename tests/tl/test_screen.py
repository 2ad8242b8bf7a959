"""A screen: what it says, that it resumes, and that it refuses what is not its own."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr.models.perturb import _screen, _screen_files


def test_a_screen_is_the_mean_of_single_perturbations(adata):
    screen = st.tl.genome_screen(adata)
    assert list(screen.obs_names) == st.tl.possible_targets(adata)
    types = list(screen.uns["screen"]["cell_types"])
    assert types == ["T/NK", "B", "stroma"]
    for gene in ("FOXO1", "CXCL13", "CXCR4"):
        result = st.GeneFactory(adata).perturb(gene)
        change = result.change_frame()
        np.testing.assert_allclose(
            screen[gene, change.columns].X.ravel(), change.mean().to_numpy(), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            screen[gene, change.columns].layers["mean_abs_change"].ravel(), change.abs().mean(), rtol=1e-4, atol=1e-6
        )
        top = result.to_frame().loc[:, change.columns].max() * 0 + adata[:, change.columns].layers["log1p"].max(axis=0)
        np.testing.assert_allclose(
            screen[gene, change.columns].layers["fraction_changed"].ravel(),
            (change.abs() > 0.01 * top).mean(),
            atol=1e-6,
        )
        for i, name in enumerate(types):
            inside = (adata.obs["cell_type"] == name).to_numpy()
            expected = change[inside].mean().to_numpy()
            np.testing.assert_allclose(
                screen[gene, change.columns].layers[f"change_{i}"].ravel(), expected, rtol=1e-4, atol=1e-6
            )
            of_type = st.get.screen(screen, cell_type=name)
            np.testing.assert_array_equal(of_type.X, screen.layers[f"change_{i}"])
            np.testing.assert_allclose(
                of_type.var["baseline"], adata[inside, of_type.var_names].layers["log1p"].mean(axis=0), rtol=1e-5
            )
    assert screen.obs.loc["FOXO1", "n_genes_changed"] >= 3
    assert screen.obs.loc[["FOXO1", "CXCL13", "CXCR4"], "role"].tolist() == ["tf", "ligand", "receptor"]
    assert not np.isnan(screen.var.loc[screen.var["modelled"], "r2"]).any()


def test_batches_do_not_matter(adata):
    genes = ["FOXO1", "CXCL12", "DLL1", "CXCR4", "NOTCH1"]
    one, many = (st.tl.genome_screen(adata, genes=genes, batch_size=b) for b in (1, 5))
    np.testing.assert_allclose(one.X, many.X, atol=1e-6)
    assert list(one.obs_names) == genes


def test_overexpression_in_some_cells(adata):
    screen = st.tl.genome_screen(adata, mode="overexpression", genes=["FOXO1"], cells="cell_type == 'B'")
    result = st.GeneFactory(adata).perturb({"FOXO1": "max"}, cells="cell_type == 'B'")
    np.testing.assert_allclose(
        screen[:, result.change_frame().columns].X.ravel(), result.change.mean(axis=0), rtol=1e-4, atol=1e-6
    )
    assert screen.obs["n_cells"].tolist() == [(adata.obs["cell_type"] == "B").sum()]


def test_an_interrupted_screen_goes_on(adata, tmp_path, monkeypatch):
    whole = st.tl.genome_screen(adata)
    run_batch, done = _screen.run_batch, []

    def interrupted(simulator, names, *args, **kwargs):
        if len(done) >= 4:
            raise KeyboardInterrupt
        done.extend(names)
        return run_batch(simulator, names, *args, **kwargs)

    monkeypatch.setattr(_screen, "run_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        st.tl.genome_screen(adata, save_to=tmp_path / "ko", batch_size=2)
    files = sorted(p.name for p in (tmp_path / "ko").iterdir())
    assert files == sorted(["screen.json", *(f"{g}.npz" for g in done)])

    again = []

    def counted(simulator, names, *args, **kwargs):
        again.extend(names)
        return run_batch(simulator, names, *args, **kwargs)

    monkeypatch.setattr(_screen, "run_batch", counted)
    resumed = st.GeneFactory(adata).genome_screen(save_to=str(tmp_path / "ko"), mode="knockout", n_propagation=4)
    assert set(again) == set(whole.obs_names) - set(done)
    np.testing.assert_allclose(resumed.X, whole.X, atol=1e-6)
    again.clear()
    st.tl.genome_screen(adata, save_to=tmp_path / "ko")
    assert not again


@pytest.mark.parametrize("n_done", [0, 3])
def test_a_killed_screen_goes_on(adata, tmp_path, n_done):
    """The process dies while it writes the file of a gene, without a chance to tidy up."""
    whole = st.tl.genome_screen(adata, batch_size=2)
    del adata.uns["simulation"]
    adata.write_h5ad(tmp_path / "fitted.h5ad")
    program = textwrap.dedent(
        """
        import os, signal, sys
        import numpy as np
        import spacetravlr as st

        savez, done = np.savez_compressed, []

        def dies(path, **arrays):
            if len(done) == int(sys.argv[3]):
                path.write_bytes(b"half a file")
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(path)
            savez(path, **arrays)

        np.savez_compressed = dies
        adata = st.io.read(sys.argv[1])
        st.tl.genome_screen(adata, batch_size=2, save_to=sys.argv[2], show_progress_bar=False)
        """
    )
    folder = tmp_path / "ko"
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path / "fitted.h5ad"), str(folder), str(n_done)])
    assert died.returncode == -signal.SIGKILL
    finished = {p.name for p in folder.glob("[!.]*.npz")}
    assert len(finished) == n_done
    resumed = st.tl.genome_screen(adata, batch_size=2, save_to=folder)
    assert not list(folder.glob(".*"))
    np.testing.assert_allclose(resumed.X, whole.X, atol=1e-6)
    pd.testing.assert_frame_equal(resumed.obs, whole.obs)


def test_a_disk_that_runs_full_keeps_what_was_written(adata, tmp_path, monkeypatch):
    genes = ["FOXO1", "CXCL12", "DLL1"]
    write = _screen_files.ScreenFolder.write

    def limited(self, result):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if result.gene == "DLL1":  # an error of the system, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        try:
            write(self, result)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(_screen_files.ScreenFolder, "write", limited)
        with pytest.raises(
            OSError, match=r"Could not write the result of DLL1 to .*\. Free some space and call again:"
        ):
            st.tl.genome_screen(adata, genes=genes, save_to=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CXCL12.npz", "FOXO1.npz", "screen.json"]
    screen = st.tl.genome_screen(adata, genes=genes, save_to=tmp_path)
    np.testing.assert_array_equal(screen.X, st.tl.genome_screen(adata, genes=genes).X)


def test_a_folder_that_cannot_be_written(adata, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"Expected `save_to` to be a writable folder, found .*below \("):
        st.tl.genome_screen(adata, genes=["FOXO1"], save_to=tmp_path / "file" / "below")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(OSError, match=r"Expected `save_to` to have room for at least .* MB, found 1e-05 MB free at"):
        st.tl.genome_screen(adata, genes=["FOXO1"], save_to=tmp_path / "ko")


def test_a_folder_of_another_screen_is_refused(adata, tmp_path):
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])
    with pytest.raises(ValueError, match=r"different n_propagation \(4, now 2\); choose another folder"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"], n_propagation=2)
    with pytest.raises(ValueError, match=r"different mode \('knockout', now 'overexpression'\)"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"], mode="overexpression")
    with pytest.raises(ValueError, match="different cells or genes"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"], cells="cell_type == 'B'")
    adata.obsm["betas"] = adata.obsm["betas"] * 1.01
    with pytest.raises(ValueError, match="different coefficients;"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])


def test_adjustment_is_part_of_what_a_screen_is(with_receptors, tmp_path):
    adata = with_receptors
    plain = st.tl.genome_screen(adata, save_to=tmp_path, genes=["CXCR4"])
    with pytest.raises(ValueError, match=r"different adjusted \(False, now True\)"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["CXCR4"], adjusted=True)
    screen = st.tl.genome_screen(adata, genes=["CXCR4"], adjusted=True)
    assert [s.uns["screen"]["adjusted"] for s in (plain, screen)] == [False, True]
    change = st.GeneFactory(adata, adjusted=True).perturb("CXCR4").change_frame()
    np.testing.assert_allclose(screen[:, change.columns].X.ravel(), change.mean(), rtol=1e-4, atol=1e-6)
    assert np.abs(screen.X - plain.X).max() > 0.1
    again = st.GeneFactory(adata, adjusted=True).genome_screen(None, genes=["CXCR4"])
    np.testing.assert_array_equal(again.X, screen.X)


def test_files_hold_every_cell_when_asked(adata, tmp_path):
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"], save_cells=True)
    with np.load(tmp_path / "FOXO1.npz") as stored:
        result = st.GeneFactory(adata).perturb("FOXO1")
        np.testing.assert_array_equal(stored["gene_index"], result.gene_index)
        np.testing.assert_allclose(stored["change"], result.change, atol=1e-6)
    assert json.loads((tmp_path / "screen.json").read_text())["run"]["save_cells"] is True


def test_gene_names_that_are_no_file_names(adata, tmp_path):
    names = adata.var_names.to_series().replace({"FOXO1": "FOX/O:1"})
    terms = adata.uns["betas"]["terms"]
    terms["tf"] = terms["tf"].astype(str).replace({"FOXO1": "FOX/O:1"})
    adata.var_names = names.to_numpy()
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOX/O:1"])
    assert (tmp_path / "FOX%2FO%3A1.npz").exists()


def test_names_of_files_differ_wherever_they_lie(tmp_path):
    genes = ["FOXO1", "Il6", "IL6", "aux", "COM1.2", "G" * 300, "G" * 299 + "H", "..", ".", "~", "a/b", "A/B", "ß" * 80]
    folder = _screen_files.ScreenFolder(tmp_path, "", genes)
    names = [folder.file_of(gene).name for gene in genes]
    assert len({name.lower() for name in names}) == len(genes)
    assert names[0] == "FOXO1.npz"
    assert all(len(name) < 200 and not {"/", "\\", ":"} & set(name) and not name.startswith(".") for name in names)
    assert not {name.split(".")[0].lower() for name in names} & {"aux", "con", "nul", "com1", ""}
    assert all(folder.file_of(gene).parent == tmp_path for gene in genes)


def test_a_file_says_whose_it_is(adata, tmp_path):
    """A file of another gene (as where case is ignored), of another run, or without its note, is not taken."""
    expected = st.tl.genome_screen(adata, genes=["FOXO1", "CXCL12"])
    st.tl.genome_screen(adata, save_to=tmp_path / "ko", genes=["FOXO1"])
    shutil.copy(tmp_path / "ko" / "FOXO1.npz", tmp_path / "ko" / "CXCL12.npz")
    resumed = st.tl.genome_screen(adata, save_to=tmp_path / "ko", genes=["FOXO1", "CXCL12"])
    np.testing.assert_array_equal(resumed.X, expected.X)

    other = st.tl.genome_screen(adata, save_to=tmp_path / "other", genes=["FOXO1"], mode="overexpression")
    assert not np.allclose(other["FOXO1", "PAX5"].X, expected["FOXO1", "PAX5"].X)
    for name in ("FOXO1.npz", "CXCL12.npz"):
        shutil.copy(tmp_path / "other" / "FOXO1.npz", tmp_path / "ko" / name)
    resumed = st.tl.genome_screen(adata, save_to=tmp_path / "ko", genes=["FOXO1", "CXCL12"])
    np.testing.assert_array_equal(resumed.X, expected.X)

    (tmp_path / "other" / "screen.json").unlink()
    resumed = st.tl.genome_screen(adata, save_to=tmp_path / "other", genes=["FOXO1", "CXCL12"])
    np.testing.assert_array_equal(resumed.X, expected.X)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": 2}', '{"run": [], "model": 3}', "\x00\xff"])
def test_a_damaged_note_is_named(adata, tmp_path, text):
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])
    (tmp_path / "screen.json").write_text(text)
    with pytest.raises(ValueError, match=r"Expected '.*screen\.json' to describe a screen, found"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])


def test_a_change_of_a_single_coefficient_is_seen(adata, tmp_path):
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])
    st.tl.genome_screen(adata.copy(), save_to=tmp_path, genes=["FOXO1"])
    betas = adata.obsm["betas"].copy()
    betas[3, 2] += 1
    adata.obsm["betas"] = betas
    with pytest.raises(ValueError, match="with different coefficients; choose another folder"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])


@pytest.mark.filterwarnings("ignore:.*[Zz]arr:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_result_can_be_written(adata, tmp_path, suffix):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "CXCL12"])
    path = tmp_path / f"screen.{suffix}"
    getattr(screen, f"write_{suffix}")(path)
    back = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    assert list(st.get.screen(back, cell_type="T/NK").obs_names) == ["FOXO1", "CXCL12"]
    assert len(st.get.ranked_effects(back)) == len(st.get.ranked_effects(screen))


def test_damaged_files_and_other_mistakes(adata, tmp_path):
    st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])
    (tmp_path / "FOXO1.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="found it damaged .*delete it and run again"):
        st.tl.genome_screen(adata, save_to=tmp_path, genes=["FOXO1"])
    with pytest.raises(KeyError, match=r"unknown 'FOXO' \(closest"):
        st.tl.genome_screen(adata, genes=["FOXO"])
    with pytest.raises(ValueError, match="Expected `mode` to be one of"):
        st.tl.genome_screen(adata, mode="knockdown")
    with pytest.raises(ValueError, match="Expected `batch_size` to be at least 1"):
        st.tl.genome_screen(adata, batch_size=0)
    with pytest.raises(ValueError, match="`n_propagation`"):
        st.tl.genome_screen(adata, save_to=tmp_path / "new", n_propagation=0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dask_workers_give_the_same(adata, tmp_path, processes):
    distributed = pytest.importorskip("distributed")
    genes = ["FOXO1", "CXCL12", "DLL1", "CXCR4"]
    here = st.tl.genome_screen(adata, genes=genes, batch_size=1)
    with (
        distributed.LocalCluster(
            n_workers=2 if processes else 1,
            threads_per_worker=2,
            processes=processes,
            dashboard_address=":0",
            local_directory=tmp_path / "dask",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = st.tl.genome_screen(
            adata, genes=genes, batch_size=1, save_to=tmp_path / "ko", client=client, save_cells=True
        )
    np.testing.assert_array_equal(there.X, here.X)
    assert list(there.obs_names) == genes
    assert len(list((tmp_path / "ko").glob("*.npz"))) == 4
