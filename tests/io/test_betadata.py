"""Coefficient files of the published programs, written here in their layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spacetravlr as st
from spacetravlr._anndata._betas import read_betas
from spacetravlr._anndata._modulators import column_names
from spacetravlr.io import read, read_betadata, write

GENES = ["PAX5", "CD19", "FOXO1", "TGFB1", "TGFBR1", "DLL1", "NOTCH1", "HLA-A_B"]
COLUMNS = ["beta0", "beta_TGFB1$TGFBR1", "beta_FOXO1", "beta_DLL1$NOTCH1", "beta_TGFB1#FOXO1"]
# the order in which they are kept: intercept, TF, pairs, ligand-TF terms
KEPT = ["beta0", "beta_FOXO1", "beta_TGFB1$TGFBR1", "beta_DLL1$NOTCH1", "beta_TGFB1#FOXO1"]


@pytest.fixture
def adata() -> AnnData:
    n = 6
    adata = AnnData(
        np.ones((n, len(GENES)), dtype=np.float32),
        obs=pd.DataFrame({"cell_type": pd.Categorical(list("TTBBTB"))}, index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=GENES),
    )
    adata.uns["mine"] = {"a": 1}
    return adata


@pytest.fixture
def pairs() -> dict[str, Any]:
    """Parameters as ``pp.received_ligands`` leaves them: DLL1 acts by contact."""
    table = pd.DataFrame([("TGFB1", "TGFBR1", "secreted"), ("DLL1", "NOTCH1", "contact")])
    return {"layer": "imputed", "pairs": table.set_axis(["ligand", "receptor", "range"], axis=1)}


def frame(adata: AnnData, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(adata.n_obs, len(COLUMNS)))
    return pd.DataFrame(values, index=adata.obs_names, columns=COLUMNS)


@pytest.fixture
def folder(tmp_path: Path, adata: AnnData) -> Path:
    """A run of the Python program, with a table of another kind beside it."""
    shuffled = frame(adata).sample(frac=1, random_state=0).assign(cell_type="x", cluster=1)
    shuffled.to_parquet(tmp_path / "PAX5_betadata.parquet")
    frame(adata, 1)[["beta0", "beta_FOXO1"]].to_parquet(tmp_path / "CD19_betadata.parquet")
    pd.DataFrame({"gene": ["PAX5"], "r2": [0.5]}).to_parquet(tmp_path / "performance.parquet")
    return tmp_path


def test_python_files(folder: Path, adata: AnnData) -> None:
    assert read_betadata(folder, adata) is None
    model = read_betas(adata)
    assert model.target_names == ["PAX5", "CD19"]
    assert adata.obsm["betas"].dtype == np.float32
    np.testing.assert_array_equal(model.of("PAX5"), frame(adata)[KEPT].to_numpy(np.float32))
    np.testing.assert_array_equal(model.of("CD19"), frame(adata, 1)[["beta0", "beta_FOXO1"]].to_numpy(np.float32))
    assert column_names(model.table[model.table["target"] == "PAX5"]) == KEPT
    assert model.params["body"] == "published"
    assert adata.uns["mine"] == {"a": 1}


def test_terms_say_what_was_found(folder: Path, adata: AnnData) -> None:
    read_betadata(folder, adata)
    terms = adata.uns["betas"]["terms"]
    assert list(terms["kind"]) == ["intercept", "tf", "lr", "lr", "tfl", "intercept", "tf"]
    np.testing.assert_allclose(terms["importance"], np.abs(adata.obsm["betas"]).mean(axis=0), rtol=1e-6)
    assert list(terms["active"]) == [False, True, True, True, True, False, True]
    scores = adata.uns["betas"]["scores"]
    assert len(scores) == 0
    assert {"target", "cell_type", "r2_kept", "kept"} <= set(scores.columns)


def test_range_comes_from_the_pairs(folder: Path, adata: AnnData, pairs: dict[str, Any]) -> None:
    read_betadata(folder, adata)
    assert set(adata.uns["betas"]["terms"]["range"]) == {"", "secreted"}
    adata.uns["received_ligands_params"] = pairs
    read_betadata(folder, adata)
    terms = adata.uns["betas"]["terms"]
    assert dict(terms.loc[terms["kind"] == "lr", ["ligand", "range"]].to_numpy()) == {
        "TGFB1": "secreted",
        "DLL1": "contact",
    }
    assert adata.uns["betas"]["params"]["layer"] == "imputed"


def test_a_pair_of_both_ranges_keeps_its_name(tmp_path: Path, adata: AnnData, pairs: dict[str, Any]) -> None:
    columns = ["beta0", "beta_DLL1$NOTCH1", "beta_DLL1|contact$NOTCH1", "beta_DLL1#FOXO1"]
    pd.DataFrame(1.0, index=adata.obs_names, columns=columns).to_parquet(tmp_path / "PAX5_betadata.parquet")
    pairs["pairs"] = pd.concat(
        [pairs["pairs"], pd.DataFrame([["DLL1", "NOTCH1", "secreted"]], columns=pairs["pairs"].columns)]
    )
    adata.uns["received_ligands_params"] = pairs
    read_betadata(tmp_path, adata)
    assert list(adata.uns["betas"]["terms"]["range"]) == ["", "secreted", "contact", "secreted"]


def test_a_subset_of_cells_in_another_order(folder: Path, adata: AnnData) -> None:
    subset = adata[["c4", "c0"]].copy()
    read_betadata(folder, subset)
    np.testing.assert_array_equal(
        read_betas(subset).of("PAX5"), frame(adata).loc[["c4", "c0"], KEPT].to_numpy(np.float32)
    )


def test_rust_files_with_a_row_a_cell(tmp_path: Path, adata: AnnData) -> None:
    table = frame(adata).rename_axis("CellID").reset_index().iloc[::-1].reset_index(drop=True)
    table.to_feather(tmp_path / "PAX5_betadata.feather", compression="lz4")
    read_betadata(tmp_path, adata)
    np.testing.assert_array_equal(read_betas(adata).of("PAX5"), frame(adata)[KEPT].to_numpy(np.float32))


def test_rust_files_with_a_row_a_cluster(tmp_path: Path, adata: AnnData) -> None:
    seed = pd.DataFrame({"Cluster": ["B", "T"], "beta0": [1.0, 2.0], "beta_FOXO1": [0.5, -0.5]})
    seed.to_feather(tmp_path / "PAX5_betadata.feather")
    read_betadata(tmp_path, adata, cluster_key="cell_type")
    np.testing.assert_array_equal(
        read_betas(adata).of("PAX5"), np.array([[2, -0.5], [2, -0.5], [1, 0.5], [1, 0.5], [2, -0.5], [1, 0.5]])
    )
    # numbered clusters, as numbers here and as text there
    seed.assign(Cluster=["0", "1"]).to_feather(tmp_path / "PAX5_betadata.feather")
    adata.obs["number"] = [1, 1, 0, 0, 1, 0]
    read_betadata(tmp_path, adata, cluster_key="number", key_added="numbered")
    np.testing.assert_array_equal(adata.obsm["numbered"], adata.obsm["betas"])

    with pytest.raises(ValueError, match="Expected `cluster_key` to be given.*one row per cluster.*'0', '1'"):
        read_betadata(tmp_path, adata)
    with pytest.raises(ValueError, match="for all clusters of `cluster_key`, found none for 2.*'T'.*look like '0'"):
        read_betadata(tmp_path, adata, cluster_key="cell_type")
    with pytest.raises(KeyError, match="Key 'leiden'"):
        read_betadata(tmp_path, adata, cluster_key="leiden")


def test_file_called_after_the_gene_and_genes_with_underscores(tmp_path: Path, adata: AnnData) -> None:
    frame(adata).to_parquet(tmp_path / "HLA-A_B.parquet")
    frame(adata).rename_axis("barcode").reset_index().to_feather(tmp_path / "CD19.feather")
    read_betadata(tmp_path, adata)
    # the order is that of adata, not of the folder
    assert read_betas(adata).target_names == ["CD19", "HLA-A_B"]
    np.testing.assert_array_equal(read_betas(adata).of("CD19"), read_betas(adata).of("HLA-A_B"))


def test_some_genes_and_copy(folder: Path, adata: AnnData) -> None:
    copied = read_betadata(folder, adata, genes=["CD19"], key_added="old", layer="log1p", copy=True)
    assert copied is not None
    assert read_betas(copied, "old").target_names == ["CD19"]
    assert copied.uns["old"]["params"]["layer"] == "log1p"
    assert "old" not in adata.obsm
    assert "old" not in adata.uns


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(folder: Path, adata: AnnData, pairs: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    adata.uns["received_ligands_params"] = pairs
    read_betadata(folder, adata)
    write(adata, tmp_path / f"a.{suffix}")
    back = read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_betas(back).of("PAX5"), read_betas(adata).of("PAX5"))
    assert column_names(read_betas(back).table.iloc[:5]) == KEPT
    assert list(back.uns["betas"]["scores"].columns) == list(adata.uns["betas"]["scores"].columns)
    assert back.uns["betas"]["params"] == adata.uns["betas"]["params"]


def test_perturbations_have_no_scores(folder: Path, adata: AnnData) -> None:
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 40, size=(adata.n_obs, 2))
    adata.X = np.random.default_rng(1).uniform(1, 3, size=adata.shape).astype(np.float32)
    pairs = pd.DataFrame({"ligand": ["TGFB1", "DLL1"], "receptor": ["TGFBR1", "NOTCH1"], "range": "secreted"})
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, pairs)
    read_betadata(folder, adata)
    st.tl.perturb(adata, "FOXO1")
    effects = st.get.ranked_effects(adata)
    assert set(effects["gene"]) == {"PAX5", "CD19"}
    assert effects["r2"].isna().all()
    assert len(st.get.scores(adata, per="target")) == 0
    assert st.tl.genome_screen(adata, genes=["FOXO1"]).var["r2"].isna().all()


def _spoil(table: pd.DataFrame, how: str) -> pd.DataFrame:
    if how == "stranger":
        return table.iloc[1:]
    if how == "twice":
        return pd.concat([table, table.iloc[:1]])
    if how == "no intercept":
        return table.drop(columns="beta0")
    if how == "nan":
        return table.assign(beta_FOXO1=np.nan)
    return table.assign(**{how: 1.0})


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("stranger", ValueError, "row for all cells of adata, found none for 1 of them, such as 'c0'.*other data"),
        ("twice", ValueError, "row names of 'PAX5_betadata.parquet' to be unique, found 'c0' twice"),
        ("no intercept", ValueError, "to have the column 'beta0' and no column twice"),
        ("nan", ValueError, "Expected coefficients in 'PAX5_betadata.parquet' to be finite"),
        (
            "beta_FOXO3",
            KeyError,
            "Expected `regulators of the files` to be in adata.var_names, found unknown 'FOXO3' .closest: FOXO1",
        ),
        ("beta_WNT1$TGFBR1", KeyError, "found unknown 'WNT1'"),
        ("beta_metab@M", KeyError, "found unknown 'metab@M'"),
    ],
)
def test_bad_files_leave_adata_alone(
    tmp_path: Path, adata: AnnData, how: str, error: type[Exception], message: str
) -> None:
    _spoil(frame(adata), how).to_parquet(tmp_path / "PAX5_betadata.parquet")
    with pytest.raises(error, match=message):
        read_betadata(tmp_path, adata)
    assert set(adata.uns) == {"mine"}
    assert not adata.obsm


def test_bad_folders(tmp_path: Path, folder: Path, adata: AnnData) -> None:
    with pytest.raises(FileNotFoundError, match="Expected `folder` to be a folder of betadata files"):
        read_betadata(tmp_path / "nowhere", adata)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found none"):
        read_betadata(tmp_path / "empty", adata)
    with pytest.raises(FileNotFoundError, match="a file for each of `genes`.*found none for 'FOXO1'"):
        read_betadata(folder, adata, genes=["PAX5", "FOXO1"])
    with pytest.raises(KeyError, match="Expected `genes` to be in adata.var_names"):
        read_betadata(folder, adata, genes=["PAX6"])
    frame(adata).to_parquet(folder / "PAX6_betadata.parquet")
    with pytest.raises(KeyError, match="Expected `betadata files` to be in adata.var_names, found unknown 'PAX6'"):
        read_betadata(folder, adata)
    frame(adata).reset_index(names="CellID").to_feather(folder / "PAX5_betadata.feather")
    with pytest.raises(ValueError, match="Expected one file for 'PAX5'"):
        read_betadata(folder, adata, genes=["PAX5"])
