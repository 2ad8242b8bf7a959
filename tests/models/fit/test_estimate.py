"""What is said before a long fit starts."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

import spacetravlr as st
from spacetravlr.models.bodies._inputs import BodyOptions
from spacetravlr.models.fit import _estimate, _run
from spacetravlr.models.fit._tissue import fit_inputs, target_blocks


@pytest.fixture(scope="module")
def tissue():
    adata = st.datasets.simulated_tissue(n_cells=200, n_targets=4, n_tfs=5, n_active_tfs=3, n_pairs=4, rng=1)
    st.pp.spatial_weights(adata)
    grn, lr, _ = st.datasets.simulated_priors(adata)
    st.pp.received_ligands(adata, lr, layer="log1p")
    st.pp.modulators(adata, grn)
    return adata


@pytest.fixture(scope="module")
def inputs(tissue):
    return fit_inputs(_run.read_fit_data(tissue, modulators_key="modulators"), n_folds=3, rng_seed=0)


def test_more_work_takes_longer_and_more_threads_less(inputs):
    def seconds(body, blocks, **options):
        settings = BodyOptions(body=body, network=st.nn.NetworkConfig())
        return _estimate.fit_seconds(
            _estimate.fit_work(inputs, settings, blocks), **{"rate": 1e11, "threads": 1, **options}
        )

    few, many = target_blocks(2, 2), target_blocks(4, 2)
    assert seconds("seed", many) < seconds("surface", many) < seconds("auto", many)
    assert seconds("surface", few) < seconds("surface", many)
    assert seconds("surface", many, rate=5e10) == pytest.approx(2 * seconds("surface", many))
    assert seconds("surface", many, threads=2, processes=True) == pytest.approx(seconds("surface", many) / 2)
    # threads hold one interpreter in turn
    assert seconds("surface", many) / 2 < seconds("surface", many, threads=2) < seconds("surface", many) / 1.2
    assert seconds("surface", many, threads=1000) > seconds("surface", many) / 3
    # a training has one thread, whatever there are
    assert seconds("auto", many, threads=2) < seconds("auto", many)
    assert seconds("auto", many, threads=1000) == seconds("auto", many, threads=2000) > seconds("seed", many) / 1000
    assert seconds("auto", many, workers=2) == pytest.approx(seconds("auto", many) / 2)


def test_memory_holds_what_is_kept(inputs):
    blocks = target_blocks(4, 1)
    settings = BodyOptions(body="seed")
    whole, stored = (
        _estimate.fit_bytes(inputs, settings, blocks, stored=stored, threads=1) for stored in (False, True)
    )
    columns = np.diff(inputs.targets.indptr) + 1
    assert whole - stored == 4 * 200 * (columns.sum() - columns.max())


def test_a_fit_says_what_it_will_take(tissue, tmp_path, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        st.tl.fit_betas(tissue, body="seed", block_size=2, copy=True, store=tmp_path / "b.zarr")
    assert "fitting 4 targets with 17 terms each on 200 cells: about 1 s (a rough estimate), up to" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        st.tl.fit_betas(tissue, body="seed", block_size=2, copy=True, store=tmp_path / "b.zarr")
    assert "4 of 4 targets are already in the store" in caplog.text
    assert "fitting" not in caplog.text
    monkeypatch.setattr(_run, "available_memory", lambda: 1e3)
    with caplog.at_level(logging.WARNING, logger="spacetravlr"):
        st.tl.fit_betas(tissue, body="seed", copy=True)
    assert "pass `store=` to keep results on disk" in caplog.text


def test_a_screen_says_how_long_it_will_take(adata, caplog):
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        st.tl.genome_screen(adata, genes=["FOXO1", "CXCL12", "DLL1"], batch_size=1)
    assert re.search("screening 3 genes, 1 at a time: about [0-9].* remaining", caplog.text)


def test_what_is_said_can_be_chosen(capsys, monkeypatch):
    logger = logging.getLogger("spacetravlr.models")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert st.settings.verbosity == "info"
    logger.info("a word")
    logger.debug("a whisper")
    try:
        st.settings.verbosity = "warning"
        logger.info("unheard")
        assert st.settings.verbosity == "warning"
    finally:
        st.settings.verbosity = "info"
    assert capsys.readouterr().err == "a word\n"
    with pytest.raises(ValueError, match="Expected `verbosity` to be one of 'error', 'warning', 'info', 'debug'"):
        st.settings.verbosity = "loud"


def test_an_application_shows_messages_itself(capsys, caplog):
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        logging.getLogger("spacetravlr.models").info("a word")
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["a word"]
