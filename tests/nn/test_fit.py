"""Training of a block: what is gained on held-out cells, what never changes."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

import spacetravlr as st
from spacetravlr.nn import BlockFit, NetworkConfig, NicheData, fit_block
from spacetravlr.nn._data import RefinementData

SHORT = NetworkConfig(n_epochs=4, batch_size=128, device="cpu")


def held_out_r2(tissue, coefficients):
    cells = tissue.held_out
    predicted = coefficients[cells, :, 0] + (coefficients[cells, :, 1:] * tissue.values[cells]).sum(2)
    y = tissue.data.y[cells]
    return 1 - ((y - predicted) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)


def seed_coefficients(data):
    return data.anchors[:, data.cell_type].transpose(1, 0, 2)


@pytest.fixture(scope="module")
def shared(tissue):
    return fit_block(tissue.data, NetworkConfig(batch_size=128, device="cpu"), n_jobs=1)


@pytest.mark.parametrize(("body", "encoder"), [("cnn", "shared"), ("vit", "shared"), ("cnn", "per_target")])
def test_refinement_beats_the_seed_on_cells_never_seen(tissue, body, encoder):
    config = NetworkConfig(batch_size=128, body=body, encoder=encoder, n_epochs=20, patience=8, device="cpu")
    fit = fit_block(tissue.data, config, n_jobs=1)
    seed = held_out_r2(tissue, seed_coefficients(tissue.data))
    refined = held_out_r2(tissue, fit.coefficients(slice(None)))
    assert refined.mean() > seed.mean() + 0.15
    assert (refined > seed - 0.05).all()


def test_removed_terms_reopen_only_in_additive_mode(tissue, shared):
    assert np.abs(shared.coefficients(slice(None))[:, :, 2]).max() > 0.1
    fit = fit_block(tissue.data, replace(SHORT, mode="multiplicative"), n_jobs=1)
    found = fit.coefficients(slice(None))
    assert (found[:, :, 2] == 0).all()
    assert (found[:, -1, -1] == 0).all()
    assert not np.array_equal(found, seed_coefficients(tissue.data))


def test_padding_has_no_coefficient(shared):
    assert (shared.coefficients(slice(None))[:, -1, -1] == 0).all()


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_per_target_results_do_not_depend_on_block_order_or_threads(tissue, take, mode):
    config = replace(SHORT, encoder="per_target", mode=mode, n_epochs=3)
    whole = fit_block(tissue.data, config, n_jobs=1).coefficients(slice(None))
    backwards = fit_block(take(tissue.data, [3, 2, 1, 0]), config, n_jobs=2).coefficients(slice(None))
    alone = fit_block(take(tissue.data, [1]), config, n_jobs=1).coefficients(slice(None))
    np.testing.assert_allclose(backwards[:, ::-1], whole, atol=1e-5)
    np.testing.assert_allclose(alone[:, 0], whole[:, 1], atol=1e-5)


def test_seeds_decide_the_start(tissue, take):
    config = replace(SHORT, encoder="per_target")
    data = take(tissue.data, [0])
    other = replace(data, seeds=data.seeds + np.uint64(1))
    first, second = (fit_block(d, config, n_jobs=1).coefficients(slice(None)) for d in (data, other))
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("encoder", ["shared", "per_target"])
def test_best_weights_are_restored_for_each_target(tissue, encoder):
    config = NetworkConfig(
        encoder=encoder, n_epochs=40, patience=3, batch_size=128, learning_rate=2e-2, shrinkage=0, device="cpu"
    )
    fit = fit_block(tissue.data, config, n_jobs=1)
    data, validation = tissue.data, tissue.data.validation
    coefficients = fit.coefficients(np.flatnonzero(validation))
    predicted = coefficients[:, :, 0] + (coefficients[:, :, 1:] * tissue.values[validation]).sum(2)
    error = ((data.y[validation] - predicted) ** 2).mean(0)
    curve = np.vstack([fit.baseline, fit.curves["validation"]])
    np.testing.assert_allclose(error, curve[fit.best_epoch, np.arange(4)], rtol=1e-4)
    # Nothing after `patience` epochs without a gain counts.
    for t, best in enumerate(fit.best_epoch):
        assert curve[best, t] == curve[: best + config.patience + 1, t].min()
    assert len(fit.curves["train"]) == len(fit.curves["validation"]) < config.n_epochs


def test_target_that_never_gains_keeps_its_seed(tissue, take):
    data = take(tissue.data, [0, 1])
    y = data.y.copy()
    rng = np.random.default_rng(0)
    # Pure noise around the seed for the first target; its best guess is the seed.
    seed = seed_coefficients(data)
    y[:, 0] = seed[:, 0, 0] + (seed[:, 0, 1:] * tissue.values[:, 0]).sum(1) + 1e-6 * rng.normal(size=len(y))
    fit = fit_block(replace(data, y=y), SHORT, n_jobs=1)
    assert fit.best_epoch[0] == 0
    assert fit.best_epoch[1] > 0
    np.testing.assert_array_equal(fit.coefficients(slice(None))[:, 0], seed[:, 0])


@pytest.mark.parametrize("cache_bytes", [0, 2**29])
def test_streamed_images_give_what_images_in_memory_give(tissue, cache_bytes):
    config = replace(SHORT, cache_bytes=cache_bytes)
    images = tissue.data.images
    streamed = replace(tissue.data, images=lambda cells: images[cells])
    expected = fit_block(tissue.data, SHORT, n_jobs=1).coefficients(slice(None))
    found = fit_block(streamed, config, n_jobs=1).coefficients(slice(None), batch_size=100)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cells_can_be_picked(shared):
    everything = shared.coefficients(slice(None))
    np.testing.assert_allclose(shared.coefficients(np.array([5, 2])), everything[[5, 2]], atol=1e-6)
    assert everything.dtype == np.float32
    assert everything.shape == (700, 4, 7)


@pytest.mark.parametrize("encoder", ["shared", "per_target"])
def test_state_rebuilds_the_fit_on_other_cells(tissue, encoder):
    fit = fit_block(tissue.data, replace(SHORT, encoder=encoder), n_jobs=1)
    data, half = tissue.data, slice(0, 350)
    section = NicheData(data.images[half], data.composition[half], data.position[half], data.cell_type[half])
    again = BlockFit.from_state_dict(fit.state_dict(), section)
    np.testing.assert_allclose(again.coefficients(slice(None)), fit.coefficients(half), atol=1e-5)
    with pytest.raises(ValueError, match="cell types, dimensions"):
        fit.on(replace(section, composition=section.composition[:, :2], cell_type=section.cell_type * 0, images=len))


def test_three_dimensions(tissue_3d):
    fit = fit_block(tissue_3d.data, replace(SHORT, n_epochs=10, batch_size=64), n_jobs=1)
    seed = held_out_r2(tissue_3d, seed_coefficients(tissue_3d.data))
    assert held_out_r2(tissue_3d, fit.coefficients(slice(None))).mean() > seed.mean()


def test_nothing_is_left_behind(tissue, tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()  # and the global numpy state is only read, to see that it stays
    fit = fit_block(tissue.data, replace(SHORT, n_epochs=1), n_jobs=threads + 1)
    fit.coefficients(slice(0, 3), n_jobs=threads + 1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert len(recwarn) == 0


def test_checkpoints_and_bar_when_asked(tissue, tmp_path, capfd):
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    config = replace(SHORT, n_epochs=1, trainer_kwargs=options)
    fit_block(tissue.data, config, n_jobs=1, show_progress_bar=True)
    assert list(tmp_path.rglob("*.ckpt"))
    assert "refining coefficients" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros((3, 4))}, "`y` to have shape"),
        ({"train": np.zeros(700, bool)}, "`train` to select"),
        ({"validation": np.ones(700, bool)}, "share no cell"),
        ({"position": np.zeros((700, 4))}, "`position` to have shape"),
        ({"images": np.zeros((700, 2, 8, 8))}, "`images` to have shape"),
        ({"cell_type": np.full(700, 9)}, "`cell_type` to hold"),
        ({"term_index": np.full((4, 6), 99)}, "`term_index` to be below"),
    ],
)
def test_wrong_data_is_named(tissue, change, message):
    with pytest.raises(ValueError, match=message):
        replace(tissue.data, **change)


def test_wrong_settings_are_named(tissue):
    with pytest.raises(ValueError, match="`body` to be one of"):
        NetworkConfig(body="mlp")
    with pytest.raises(ValueError, match="`learning_rate` to be positive"):
        NetworkConfig(learning_rate=0)
    with pytest.raises(ValueError, match="`device`"):
        NetworkConfig(device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_there_is_told_before_the_fit(monkeypatch):
    monkeypatch.setattr("spacetravlr.models.fit._run.fit_tissue", lambda *_, **__: pytest.fail("fitted already"))
    adata = st.datasets.simulated_tissue(n_cells=60, n_targets=2, rng=0)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn)
    for body in ("auto", "cnn"):
        with pytest.raises(ValueError, match="`device` to be available on this machine, found `'cuda'`"):
            st.tl.fit_betas(adata, body=body, network=NetworkConfig(device="cuda"))
    with pytest.raises(ValueError, match="`device` to be available"):
        fit_block(None, NetworkConfig(device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["auto", "bf16-mixed"])
def test_cuda_gives_what_the_cpu_gives(tissue, precision):
    expected = held_out_r2(tissue, fit_block(tissue.data, SHORT).coefficients(slice(None)))
    fit = fit_block(tissue.data, replace(SHORT, precision=precision, device="cuda"))
    np.testing.assert_allclose(held_out_r2(tissue, fit.coefficients(slice(None))), expected, atol=0.02)


def test_steps_are_small_where_many_terms_go_along_with_each_other(tissue):
    """As on smoothed expression: many terms that follow a few programs, of which the seed explains nearly all."""
    data, rng = tissue.data, np.random.default_rng(0)
    programs = rng.normal(size=(data.n_cells, 3))
    design = programs @ rng.normal(size=(3, 300)) + 0.1 * rng.normal(size=(data.n_cells, 300))
    design = (design / design.std(0)).astype(np.float32)
    anchors = np.zeros((1, data.anchors.shape[1], 301), dtype=np.float32)
    anchors[:, :, 1:4] = 0.5
    y = design[:, :3].sum(1) * 0.5 + 0.1 * rng.normal(size=data.n_cells)
    many = replace(
        data,
        design=design,
        term_index=np.arange(300)[None],
        y=y[:, None].astype(np.float32),
        anchors=anchors,
        group=np.zeros((1, 300), dtype=np.int64),
        seeds=data.seeds[:1],
    )
    source = RefinementData(many, NetworkConfig())
    assert source.steps[0] < 0.1


def test_targets_of_few_independent_terms_keep_the_learning_rate(tissue):
    assert (RefinementData(tissue.data, NetworkConfig()).steps == 1).all()
