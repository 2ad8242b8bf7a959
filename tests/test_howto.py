"""The pages that quote messages and list keys say what the package does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spacetravlr as st

SOURCE = Path(st.__file__).parent
HOWTO = Path(__file__).parents[1] / "docs" / "howto"
VALUE = "…"


def text_of(node: ast.expr) -> str:
    """Text of an expression as a message shows it, values as "…"."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[-.\d]*[dfgsr]", VALUE, node.value)  # of the log
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return VALUE


@pytest.fixture(scope="module")
def texts() -> set[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return {text_of(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)}


def quoted() -> list[str]:
    page = (HOWTO / "troubleshooting.md").read_text(encoding="utf-8")
    return [found.strip() for found in re.findall(r"^``(.+)``$", page, re.MULTILINE)]


def test_messages_are_quoted() -> None:
    assert len(quoted()) > 80


@pytest.mark.parametrize("message", quoted())
def test_every_quoted_message_is_one_of_the_package(message: str, texts: set[str]) -> None:
    pattern = re.compile(".*?".join(re.escape(part) for part in message.split(VALUE)), re.DOTALL)
    assert any(pattern.match(text) for text in texts)


@pytest.fixture(scope="module")
def tissue() -> AnnData:
    """A small section that went through the steps of the page."""
    adata = st.datasets.simulated_tissue(n_cells=400, n_targets=3, n_tfs=4, n_active_tfs=3, n_pairs=6, depth=5, rng=0)
    grn, pairs, ligand_tf = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, pairs)
    st.pp.modulators(adata, grn, ligand_tf=ligand_tf)
    st.pp.niche(adata)
    st.pp.impute(adata)
    st.pp.denoise(adata, layer="log1p")
    st.pp.split_counts(adata, counts_layer="counts")
    st.tl.fit_betas(adata, counts_layer="counts", uncertainty=True, n_draws=3)
    st.tl.perturb(adata, "FOXO1", n_samples=3)
    st.tl.perturbation_vectors(adata, n_shuffles=1)
    st.tl.drivers(adata, "PAX5", n_check=1)
    st.tl.test_signals(adata, counts_layer="counts")
    st.tl.microniches(adata)
    return adata


def keys(adata: AnnData) -> Iterator[str]:
    for name in ("obs", "obsm", "obsp", "layers", "uns"):
        yield from getattr(adata, name)
    for stem in ("spatial_weights", "received_ligands_params", "niche_composition", "imputed", "denoised",
                 "modulators", "betas", "perturbed", "drivers", "signals_test", "microniches", "simulation",
                 "screen"):  # fmt: skip
        if isinstance(adata.uns.get(stem), Mapping):
            yield from adata.uns[stem]
    for table in (adata.uns.get("betas", {}).get("terms"), adata.uns.get("betas", {}).get("scores"),
                  adata.uns.get("drivers", {}).get("table")):  # fmt: skip
        if isinstance(table, pd.DataFrame):
            yield from table.columns


def named() -> set[str]:
    """What stands in backticks or in quotes on the page."""
    page = (HOWTO / "keys.md").read_text(encoding="utf-8")
    return {name for pair in re.findall(r'`(\w+)`|"([\w<>]+)"', page) for name in pair if name}


def test_every_key_is_on_the_page(tissue: AnnData) -> None:
    written = {re.sub(r"_\d+$", "_<i>", key) for key in keys(tissue) if key}
    known = named() | {"r2_train_surface", "r2_train_seed", "r2_train_network"}  # "r2_train_pooled, ..."
    assert written - known == set()


def test_every_key_of_a_screen_is_on_the_page(tissue: AnnData) -> None:
    screen = st.tl.genome_screen(tissue, genes=["FOXO1", "STAT3"], n_samples=2)
    written = {*screen.layers, *screen.obs, *screen.var, *screen.varm, *screen.uns["screen"]}
    assert {re.sub(r"_\d+$", "_<i>", key) for key in written if key} - named() == set()


def test_a_model_is_a_matrix_and_three_tables(tissue: AnnData) -> None:
    adata = tissue.copy()
    adata.obsm["truth"] = adata.obsm["true_betas"]
    adata.uns["truth"] = {
        "terms": adata.uns["simulation"]["terms"],
        "scores": pd.DataFrame(columns=["target", "cell_type"]),
        "params": {"cluster_key": "cell_type"},
    }
    screen = st.tl.genome_screen(adata, genes=["FOXO1"], betas_key="truth", baseline_layer="exact", n_propagation=1)
    assert list(screen.uns["screen"]["cell_types"]) == list(adata.obs["cell_type"].cat.categories)
    st.tl.perturb(adata, "FOXO1", betas_key="truth", baseline_layer="exact", n_propagation=1)
    assert st.get.ranked_effects(adata, cell_type="B cell")["r2"].isna().all()
    change = adata[:, "PAX5"].layers["perturbed"] - adata[:, "PAX5"].layers["exact"]
    terms = adata.uns["simulation"]["terms"]
    effect = np.zeros(adata.n_obs)
    for column in np.flatnonzero((terms["target"] == "PAX5") & (terms["tf"] == "FOXO1")):
        received = 1.0
        if terms["kind"].iloc[column] == "tfl":
            weights = adata.obsp["spatial_weights" if terms["range"].iloc[column] == "secreted" else "contact_weights"]
            received = weights @ adata[:, terms["ligand"].iloc[column]].layers["exact"].ravel()
        effect -= adata.obsm["true_betas"][:, column] * received * adata[:, "FOXO1"].layers["exact"].ravel()
    inside = (change.ravel() > -0.99 * adata[:, "PAX5"].layers["exact"].ravel()) & (
        adata[:, "PAX5"].layers["perturbed"].ravel() < adata[:, "PAX5"].layers["exact"].max() - 1e-4
    )
    np.testing.assert_allclose(change.ravel()[inside], effect[inside], atol=2e-3)
