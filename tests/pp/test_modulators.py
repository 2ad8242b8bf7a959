"""Modulators of each target, against rules written out one by one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import spacetravlr as st
from spacetravlr import _keys
from spacetravlr._anndata._modulators import build_design, read_modulators
from spacetravlr.io import read, write
from spacetravlr.pp._modulators import modulators

Row = tuple[str, str, str, str, str, str]

# LIG1 acts both ways, LIG2 by contact only, LIG3 has a score and no pair; REC2 is hardly expressed
GENES = ["TF1", "TF2", "LIG1", "LIG2", "LIG3", "REC1", "REC2", "TGT1", "TGT2", "ALONE"]
PAIRS = [
    ("LIG1", "REC1", "secreted"),
    ("LIG1", "REC2", "contact"),
    ("LIG2", "REC1", "contact"),
    ("LIG1", "TF2", "secreted"),
]
EDGES = [
    ("TF1", "TGT1"),
    ("TF2", "TGT1"),
    ("TF1", "TGT2"),
    ("TF1", "TF1"),
    ("TF1", "TF2"),
    ("TF9", "TGT2"),
    ("TF2", "LIG3"),
]
SCORES = [
    ("LIG1", "TF1", 0.9), ("LIG2", "TF1", 0.5), ("LIG3", "TF1", 0.4), ("LIG9", "TF1", 0.99),
    ("LIG2", "TF2", 0.3), ("LIG3", "TF2", 0.2), ("LIG1", "TF2", 0.001), ("LIG1", "REC1", 0.9),
]  # fmt: skip


def make(genes: list[str], pairs: list[tuple[str, str, str]], n: int = 8) -> AnnData:
    """Cells on a line with stored weights, as ``pp.spatial_weights`` and ``pp.received_ligands`` leave them."""
    x = np.random.default_rng(0).uniform(1, 2, (n, len(genes))).astype(np.float32)
    if "REC2" in genes:
        x[:, genes.index("REC2")] = 0.004
        x[0, genes.index("REC2")] = 0.03
    adata = AnnData(
        x,
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(["T/NK"] * (n // 2) + ["B"] * (n - n // 2))}, [f"c{i}" for i in range(n)]
        ),
        var=pd.DataFrame(index=genes),
    )
    adata.layers["imputed"] = adata.X.copy()
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) * 50.0
    adata.obsm["spatial"] = np.column_stack([np.arange(n) * 50.0, np.zeros(n)])
    adata.obsp["spatial_weights"] = sparse.csr_matrix(np.exp(-((distance / 80) ** 2)).astype(np.float32))
    adata.obsp["contact_weights"] = sparse.csr_matrix((distance <= 50).astype(np.float32))
    adata.uns["spatial_weights"] = {
        "radius": 200.0, "contact_radius": 50.0, "sigma": 56.6, "contact_sigma": 14.0, "eps": 1e-3, "truncate": True,
        "autocrine": True, "microns_per_unit": 1.0, "library_key": "", "spatial_key": "spatial",
        "connectivity_key": "", "method": "sparse", "contact_method": "sparse",
    }  # fmt: skip
    signals = list(dict.fromkeys(_keys.signal_name(ligand, reach) for ligand, _, reach in pairs))
    tfl = [s for s in signals if _keys.parse_signal(s)[1] == "secreted" or _keys.parse_signal(s)[0] not in signals]
    for key, names in (("received_ligands", signals), ("received_ligands_tfl", tfl)):
        values = np.random.default_rng(1).random((n, len(names)), dtype=np.float32)
        adata.uns[key] = pd.DataFrame(values, index=adata.obs_names, columns=names)
    adata.uns["received_ligands_params"] = {
        "layer": "imputed", "method": "sparse", "contact_method": "sparse", "normalize": "sum",
        "weights_key": "spatial_weights", "pairs": pd.DataFrame(pairs, columns=["ligand", "receptor", "range"]),
    }  # fmt: skip
    return adata


@pytest.fixture
def adata() -> AnnData:
    return make(GENES, PAIRS)


@pytest.fixture
def grn() -> pd.DataFrame:
    return pd.DataFrame(EDGES, columns=["tf", "target"])


@pytest.fixture
def scores() -> pd.DataFrame:
    return pd.DataFrame(SCORES, columns=["ligand", "tf", "score"])


def rows(adata: AnnData, key: str = "modulators") -> set[Row]:
    table = adata.uns[key]["table"].astype(str)
    assert not table.duplicated().any()
    return set(table.itertuples(index=False, name=None))


def written_out(
    adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame | None, targets: list[str], *, n_top: int = 5,
    cutoff: float = 0.01, threshold: float = 0.01,
) -> set[Row]:  # fmt: skip
    """The rules of how-it-works, section 3, in loops."""
    genes = set(adata.var_names)
    edges = {(a, b) for a, b in zip(grn["tf"], grn["target"], strict=True) if {a, b} <= genes and a != b}
    pairs = adata.uns["received_ligands_params"]["pairs"]
    means = {t: adata[adata.obs["cell_type"] == t].to_df("imputed").mean() for t in adata.obs["cell_type"].unique()}
    found: set[Row] = set()
    for target in targets:
        regulators = {tf for tf, gene in edges if gene == target}
        found |= {(target, "tf", tf, "", "", "") for tf in regulators}
        for ligand, receptor, reach in pairs.itertuples(index=False):
            if target not in (ligand, receptor) and any(mean[receptor] > threshold for mean in means.values()):
                found.add((target, "lr", "", ligand, receptor, reach))
                if receptor not in regulators:
                    found.add((target, "receptor", "", "", receptor, ""))
        if scores is None:
            continue
        for tf in regulators:
            known = [
                (s, lig)
                for lig, t, s in scores.itertuples(index=False)
                if t == tf and lig in genes - {target} and s > cutoff
            ]
            for _, ligand in sorted(known, key=lambda x: (-x[0], adata.var_names.get_loc(x[1])))[:n_top]:
                if adata.n_vars >= 1000 and {(target, ligand), (tf, ligand)} & edges:
                    continue
                ranges = set(pairs.loc[pairs["ligand"] == ligand, "range"])
                found.add((target, "tfl", tf, ligand, "", "contact" if ranges == {"contact"} else "secreted"))
    # what a cell receives holds its own ligand, unless that is a gene of the target anyway
    local = {(r[0], r[2] or r[4]) for r in found if not r[3]}
    return found | {(r[0], "ligand", "", r[3], "", "") for r in found if r[3] and (r[0], r[3]) not in local}


def test_the_groups(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    modulators(adata, grn, ligand_tf=scores)
    assert {r for r in rows(adata) if r[0] == "TGT1"} == {
        ("TGT1", "tf", "TF1", "", "", ""),
        ("TGT1", "tf", "TF2", "", "", ""),
        ("TGT1", "lr", "", "LIG1", "REC1", "secreted"),
        ("TGT1", "lr", "", "LIG2", "REC1", "contact"),
        ("TGT1", "lr", "", "LIG1", "TF2", "secreted"),
        ("TGT1", "lr", "", "LIG1", "REC2", "contact"),  # 0.0105 in one cell type
        ("TGT1", "tfl", "TF1", "LIG1", "", "secreted"),
        ("TGT1", "tfl", "TF1", "LIG2", "", "contact"),
        ("TGT1", "tfl", "TF1", "LIG3", "", "secreted"),
        ("TGT1", "tfl", "TF2", "LIG2", "", "contact"),
        ("TGT1", "tfl", "TF2", "LIG3", "", "secreted"),
        ("TGT1", "receptor", "", "", "REC1", ""),  # of two pairs
        ("TGT1", "receptor", "", "", "REC2", ""),  # and TF2, of a third, is in the TF group
        ("TGT1", "ligand", "", "LIG1", "", ""),
        ("TGT1", "ligand", "", "LIG2", "", ""),
        ("TGT1", "ligand", "", "LIG3", "", ""),  # of a ligand-TF term only
    }
    assert ("TGT2", "receptor", "", "", "TF2", "") in rows(adata)
    # by default every gene with a regulator: not TF1 (itself only), not ALONE
    assert list(adata.uns["modulators"]["table"]["target"].unique()) == ["TF2", "LIG3", "TGT1", "TGT2"]
    # neither gene of a pair is the target, and a ligand does not act on itself through a TF
    assert not any("TF2" in r[1:] for r in rows(adata) if r[0] == "TF2")
    assert not any("LIG3" in r[1:] for r in rows(adata) if r[0] == "LIG3")


def test_every_product_has_its_local_part_beside_it(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    modulators(adata, grn, ligand_tf=scores)
    for _, table in adata.uns["modulators"]["table"].astype(str).groupby("target"):
        alone = table[table["kind"].isin(["tf", "receptor", "ligand"])]
        genes = alone["tf"] + alone["receptor"] + alone["ligand"]
        assert genes.is_unique
        assert set(table["tf"]) | set(table["receptor"]) | set(table["ligand"]) == {*genes, ""}
        # and nothing else: a receptor without a pair of this target would adjust for nothing
        assert set(alone["receptor"]) - {""} <= set(table.loc[table["kind"] == "lr", "receptor"])
        assert table["target"].iloc[0] not in set(genes)


def test_who_receives_nothing_from_itself_needs_no_ligand_of_its_own(adata: AnnData, grn: pd.DataFrame) -> None:
    adata.uns["spatial_weights"]["autocrine"] = False
    modulators(adata, grn)
    assert {r[1] for r in rows(adata)} == {"tf", "lr", "receptor"}


def test_the_published_form(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    modulators(adata, grn, ligand_tf=scores)
    modulators(adata, grn, ligand_tf=scores, main_effects=False, key_added="published")
    whole, table = (adata.uns[key]["table"] for key in ("modulators", "published"))
    assert list(table["kind"].cat.categories) == ["tf", "lr", "tfl"]
    kept = whole[~whole["kind"].isin(["receptor", "ligand"])].astype(str).reset_index(drop=True)
    pd.testing.assert_frame_equal(table.astype(str), kept)
    assert adata.uns["published"]["params"]["main_effects"] is False
    assert len(whole) > len(table)


@pytest.mark.parametrize("padding", [0, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_against_the_rules_written_out(padding: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"G{i}" for i in range(14)]
    pairs = sorted(
        {(f"G{a}", f"G{b}", str(rng.choice(["secreted", "contact"]))) for a, b in rng.integers(14, size=(9, 2))}
    )
    pairs = list({p[:2]: p for p in pairs}.values())
    adata = make([*names, *(f"P{i}" for i in range(padding))], pairs)
    adata.layers["imputed"][:, rng.integers(14, size=5)] *= 0.006
    grn = (
        pd.DataFrame(rng.integers(16, size=(45, 2)), columns=["tf", "target"]).map(lambda i: f"G{i}").drop_duplicates()
    )
    scores = pd.DataFrame(
        [(f"G{i}", f"G{j}", float(rng.integers(0, 20)) / 100) for i in range(14) for j in range(14)],
        columns=["ligand", "tf", "score"],
    )
    targets = [n for n in names if any(grn.query("target == @n and tf != @n")["tf"].isin(names))]
    chosen: list[dict[str, Any]] = [{}, {"n_top": 2, "cutoff": 0.1}]
    for options in chosen:
        modulators(adata, grn.sample(frac=1, random_state=seed), ligand_tf=scores, **options)
        assert rows(adata) == written_out(adata, grn, scores, targets, **options)
    assert len(adata.uns["modulators"]["table"]["kind"].unique()) == 5


def test_large_panels_leave_out_what_the_network_explains(grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    small, large = make(GENES, PAIRS), make([*GENES, *(f"P{i}" for i in range(990))], PAIRS)
    for adata in (small, large):
        modulators(adata, grn, ligand_tf=scores)
    # TF2 regulates LIG3: no pair of the two, and none with LIG3 for the target TF2
    assert rows(small) - rows(large) == {
        ("TGT1", "tfl", "TF2", "LIG3", "", "secreted"),
        ("TF2", "tfl", "TF1", "LIG3", "", "secreted"),
        ("TF2", "ligand", "", "LIG3", "", ""),
    }
    assert rows(large) <= rows(small)


def test_without_scores_there_are_no_ligand_tf_terms(
    adata: AnnData, grn: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    before = adata.uns["received_ligands_tfl"].copy()
    with caplog.at_level(logging.INFO, logger="spacetravlr"):
        modulators(adata, grn)
    assert "there are no ligand-TF modulators" in caplog.text
    assert {r[1] for r in rows(adata)} == {"tf", "lr", "receptor", "ligand"}
    pd.testing.assert_frame_equal(adata.uns["received_ligands_tfl"], before)


def test_ligands_without_a_pair_get_a_received_signal(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    before = adata.uns["received_ligands_tfl"].copy()
    modulators(adata, grn, ligand_tf=scores)
    after = adata.uns["received_ligands_tfl"]
    assert list(after.columns) == [*before.columns, "LIG3"]
    pd.testing.assert_frame_equal(after[before.columns], before)
    wanted = adata.obsp["spatial_weights"] @ adata.layers["imputed"][:, GENES.index("LIG3")]
    np.testing.assert_allclose(after["LIG3"], wanted, rtol=1e-5)
    assert after["LIG3"].dtype == np.float32


def test_a_subset_of_cells_is_told_where_new_signals_come_from(
    adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame
) -> None:
    subset = adata[[5, 1, 2]].copy()
    with pytest.warns(UserWarning, match="such as 'LIG3'"):
        modulators(subset, grn, ligand_tf=scores)
    assert list(subset.uns["received_ligands_tfl"].index) == ["c5", "c1", "c2"]


def test_receptor_threshold_and_cell_types(adata: AnnData, grn: pd.DataFrame) -> None:
    def receptors(**options: Any) -> set[str]:
        modulators(adata, grn, **options)
        return {r[4] for r in rows(adata) if r[1] == "lr"}

    assert "REC2" in receptors()
    # 0.007 over all cells
    assert "REC2" not in receptors(cluster_key=None)
    assert receptors(receptor_threshold=100) == set()
    adata.layers["none"] = np.zeros_like(adata.X)
    assert receptors(layer="none") == set()
    assert adata.uns["modulators"]["params"]["layer"] == "none"


def test_cells_without_a_type_are_refused(adata: AnnData, grn: pd.DataFrame) -> None:
    adata.obs.loc["c0", "cell_type"] = np.nan
    with pytest.raises(ValueError, match="to label every cell, found 1 without a label"):
        modulators(adata, grn)
    modulators(adata, grn, cluster_key=None)


def test_a_table_that_gives_no_ligand_tf_term_is_named(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    with pytest.warns(UserWarning, match="No ligand-TF term is left.*look like 'OTHER'"):
        modulators(adata, grn, ligand_tf=scores.assign(tf="OTHER"))


def test_named_targets(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    modulators(adata, grn, ligand_tf=scores, targets=["TGT2", "ALONE", "TGT2"])
    assert list(adata.uns["modulators"]["table"]["target"].unique()) == ["TGT2", "ALONE"]
    # pairs act on a gene without a regulator too
    assert {r[1] for r in rows(adata) if r[0] == "ALONE"} == {"lr", "receptor", "ligand"}
    # a target's terms do not depend on which others are listed
    chosen = {r for r in rows(adata) if r[0] == "TGT2"}
    modulators(adata, grn, ligand_tf=scores)
    assert {r for r in rows(adata) if r[0] == "TGT2"} == chosen


def test_what_is_written(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    assert modulators(adata, grn, ligand_tf=scores, key_added="mine", n_top=3) is None
    table, params = read_modulators(adata, "mine")
    assert list(table.columns) == ["target", "kind", "tf", "ligand", "receptor", "range"]
    assert all(isinstance(t, pd.CategoricalDtype) for t in table.dtypes)
    assert params == {
        "cluster_key": "cell_type", "layer": "imputed", "receptor_threshold": 0.01, "n_top": 3, "cutoff": 0.01,
        "main_effects": True, "received_key": "received_ligands",
    }  # fmt: skip
    # each target's rows are contiguous, TF before LR before TFL before main effects
    order = table["target"].cat.codes.to_numpy() * 5 + table["kind"].cat.codes.to_numpy()
    assert (np.diff(order) >= 0).all()
    design = build_design(table, adata.var_names)
    assert len(design.targets.term) == len(table)
    assert "LIG2|contact" in design.signal_names


def test_copy_and_nothing_else_changes(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    adata.uns["mine"] = {"a": 1}
    before = adata.copy()
    copied = modulators(adata, grn, ligand_tf=scores, copy=True)
    assert copied is not None
    assert set(copied.uns) == {*before.uns, "modulators"}
    assert set(adata.uns) == set(before.uns)
    for key in ("received_ligands", "received_ligands_tfl"):
        pd.testing.assert_frame_equal(adata.uns[key], before.uns[key])
    np.testing.assert_array_equal(adata.X, before.X)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    modulators(adata, grn, ligand_tf=scores)
    write(adata, tmp_path / f"a.{suffix}")
    back = read(tmp_path / f"a.{suffix}")
    assert rows(back) == rows(adata)
    assert build_design(back.uns["modulators"]["table"], back.var_names).signal_names
    # and what was read back can be computed on again
    modulators(back, grn, ligand_tf=scores)
    assert rows(back) == rows(adata)


def test_sparse_is_dense(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    modulators(adata, grn, ligand_tf=scores)
    dense = rows(adata)
    for kind in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array):
        adata.layers["imputed"] = kind(make(GENES, PAIRS).layers["imputed"])
        modulators(adata, grn, ligand_tf=scores)
        assert rows(adata) == dense


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": ["TGT3"]}, KeyError, "Expected `targets` to be in adata.var_names, found unknown 'TGT3'.*TGT"),
        ({"targets": []}, ValueError, "Expected `targets` to name at least one gene"),
        ({"targets": ["ALONE"], "receptor_threshold": 9}, ValueError, "to have a modulator, found none for 'ALONE'"),
        ({"cluster_key": "leiden"}, KeyError, "Key 'leiden' .*cluster_key.*adata.obs.*`cluster_key=None`"),
        ({"layer": "log"}, KeyError, "Key 'log' .*adata.layers"),
        ({"received_key": "mine"}, KeyError, r"st\.pp\.received_ligands"),
        ({"n_top": 0}, ValueError, "Expected `n_top` to be positive"),
        ({"cutoff": -1}, ValueError, "Expected `cutoff` to be finite and at least zero"),
        ({"receptor_threshold": np.nan}, ValueError, "Expected `receptor_threshold` to be finite"),
        ({"ligand_tf": pd.DataFrame({"x": ["a"]})}, ValueError, "Expected `ligand_tf` to be a long table"),
    ],
)
def test_errors_leave_adata_alone(
    adata: AnnData, grn: pd.DataFrame, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = set(adata.uns)
    with pytest.raises(error, match=message):
        modulators(adata, grn, **options)
    assert set(adata.uns) == before


def test_a_network_of_another_organism(adata: AnnData) -> None:
    grn = pd.DataFrame({"tf": ["Tf1"], "target": ["Tgt1"]})
    with pytest.raises(ValueError, match="2 differ only in case .'Tf1' and 'TF1'.*map_orthologs.grn"):
        modulators(adata, grn)
    grn = pd.DataFrame({"tf": ["FOXO1"], "target": ["PAX5"]})
    with pytest.raises(ValueError, match="such as 'TF1'.*its genes look like 'FOXO1' and 'PAX5'.*map_orthologs"):
        modulators(adata, grn)
    # a gene named by the user still has its pairs
    modulators(adata, grn, targets=["TGT1"])
    assert {r[1] for r in rows(adata)} == {"lr", "receptor", "ligand"}


@pytest.mark.parametrize("names", [{"TF1": "TF1(+)"}, {"TF1": "TF1_extended (12g)"}, {"TF1": "TF1_ELSE"}])
def test_regulons_and_complexes_are_read_as_their_factors(
    adata: AnnData, grn: pd.DataFrame, caplog: pytest.LogCaptureFixture, names: dict[str, str]
) -> None:
    modulators(adata, grn)
    expected = rows(adata)
    modulators(adata, grn.assign(tf=grn["tf"].astype(str).replace(names)))
    assert rows(adata) == expected
    assert "as their transcription factors" in caplog.text


def test_a_complex_is_an_edge_for_each_of_its_factors(adata: AnnData) -> None:
    modulators(adata, pd.DataFrame({"tf": ["COMPLEX:TF1_TF2", "TF1"], "target": ["TGT1", "TGT1"]}))
    assert [r[2] for r in sorted(rows(adata)) if r[1] == "tf"] == ["TF1", "TF2"]


def test_ligand_tf_scores_the_wrong_way_round(
    adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    modulators(adata, grn, ligand_tf=scores)
    expected = rows(adata)
    modulators(adata, grn, ligand_tf=scores.rename(columns={"ligand": "tf", "tf": "ligand"}))
    assert rows(adata) == expected
    assert "reading it transposed" in caplog.text


def test_the_target_is_left_out_before_the_best_ligands_are_taken(
    adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame
) -> None:
    ligand = str(scores["ligand"].iloc[0])
    edges = pd.concat([grn, pd.DataFrame({"tf": ["TF1"], "target": [ligand]})], ignore_index=True)
    first = scores.assign(score=np.where(scores["ligand"] == ligand, 99.0, scores["score"]))
    modulators(adata, edges, ligand_tf=first, n_top=1)
    found = {r[0]: r[3] for r in rows(adata) if r[1] == "tfl" and r[2] == "TF1"}
    assert found[ligand] != ligand
    assert found["TGT1"] == ligand


def test_duplicate_genes_are_refused(adata: AnnData, grn: pd.DataFrame) -> None:
    adata.var_names = ["TF1", *GENES[1:-1], "TF1"]
    with pytest.raises(ValueError, match="var_names_make_unique"):
        modulators(adata, grn)


def test_a_simulated_tissue_gives_exactly_its_candidates() -> None:
    """The terms that the simulator drew from, through the functions that a user calls."""
    adata = st.datasets.simulated_tissue(n_cells=200, rng=1)
    priors = st.datasets.simulated_priors(adata)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, priors.ligand_receptor)
    full = adata.uns["received_ligands_tfl"].copy()
    st.pp.modulators(adata, priors.grn, ligand_tf=priors.ligand_tf, main_effects=False)
    terms = adata.uns["simulation"]["terms"].query("kind != 'intercept'")
    columns = ["target", "kind", "tf", "ligand", "receptor", "range"]
    assert rows(adata) == set(terms[columns].astype(str).itertuples(index=False, name=None))

    # a ligand that loses its pairs gets the same signal from its score alone
    ligand = adata.uns["modulators"]["table"].query("kind == 'tfl' and range == 'secreted'")["ligand"].iloc[0]
    st.pp.received_ligands(adata, priors.ligand_receptor.query("ligand != @ligand"))
    assert ligand not in adata.uns["received_ligands_tfl"]
    st.pp.modulators(adata, priors.grn, ligand_tf=priors.ligand_tf)
    np.testing.assert_allclose(adata.uns["received_ligands_tfl"][ligand], full[ligand], rtol=1e-4)


def test_real_section(data_dir: Path) -> None:
    adata = st.io.read(data_dir / "human_nsclc_cosmx.h5ad")[:1500].copy()
    adata.X = adata.X.log1p()
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, data_dir / "lr_cellchatdb_human.csv.gz")
    grn = st.priors.fetch_base_grn(confidence="ABC")
    st.pp.modulators(adata, grn, ligand_tf=data_dir / "nichenet_like_ligand_tf_human.parquet", cluster_key="region")
    table = adata.uns["modulators"]["table"]
    assert set(table["kind"].unique()) == {"tf", "lr", "tfl", "receptor", "ligand"}
    assert {*table["target"], *table["tf"], *table["ligand"], *table["receptor"]} <= {*adata.var_names, ""}
    tfl = table[table["kind"] == "tfl"]
    assert tfl.groupby(["target", "tf"], observed=True).size().max() <= 5
    design = build_design(table, adata.var_names)
    tfl_signals = {_keys.signal_name(x, r) for x, r in zip(tfl["ligand"], tfl["range"], strict=True)}
    assert tfl_signals <= set(adata.uns["received_ligands_tfl"].columns)
    assert set(design.signal_names) - tfl_signals <= set(adata.uns["received_ligands"].columns)


def test_thousands_of_targets() -> None:
    """Ten million rows would still fit: work is vectorised over targets, with codes instead of names."""
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(3500)]
    pairs = [(f"G{i}", f"G{i + 100}", "secreted") for i in range(60)]
    adata = make(names, pairs)
    grn = pd.DataFrame({"tf": [f"G{i}" for i in rng.integers(200, 300, 170_000)], "target": rng.choice(names, 170_000)})
    scores = pd.DataFrame(
        [(f"G{i}", f"G{j}", float(rng.random())) for i in range(60) for j in range(200, 300)],
        columns=["ligand", "tf", "score"],
    )
    modulators(adata, grn, ligand_tf=scores)
    table = adata.uns["modulators"]["table"]
    assert table["target"].nunique() == 3500
    assert len(table) > 3500 * 150
    assert table.memory_usage(deep=True).sum() < 16 * len(table)


def test_a_cutoff_above_all_scores_is_told(adata: AnnData, grn: pd.DataFrame, scores: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="scores above 5 .*`cutoff`.*found 0.99 at most"):
        modulators(adata, grn, ligand_tf=scores, cutoff=5)


def test_other_objects_are_refused(adata: AnnData, grn: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match="Expected `adata` to be AnnData or SpatialData, found `ndarray`"):
        modulators(adata.X, grn)


def test_reliable_targets_vary_by_more_than_counting_noise():
    adata = st.datasets.simulated_tissue(n_cells=800, n_targets=4, depth=3.0, rng=0)
    grn, pairs, _ = st.datasets.simulated_priors(adata)
    targets = sorted(set(grn["target"]))
    quiet = targets[0]
    counts = adata.layers["counts"].toarray()
    depth = counts.sum(axis=1)
    counts[:, adata.var_names.get_loc(quiet)] = np.random.default_rng(0).poisson(3 * depth / depth.mean())
    adata.layers["counts"] = counts
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, pairs, layer="log1p")
    st.pp.modulators(adata, grn, targets="reliable", counts_layer="counts")
    assert set(adata.uns["modulators"]["table"]["target"]) == set(targets) - {quiet}
    table = st.get.reliability(adata, counts_layer="counts")
    assert table.loc[quiet, "z"] < 3 < table.loc[targets[1:], "z"].min()
    with pytest.raises(ValueError, match="counts_layer"):
        st.pp.modulators(adata, grn, targets="reliable")
    with pytest.raises(ValueError, match="raw counts"):
        st.pp.modulators(adata, grn, targets="reliable", counts_layer="log1p")


def test_rare_genes_that_vary_by_a_handful_of_cells(caplog):
    adata = st.datasets.simulated_tissue(n_cells=800, n_targets=4, depth=3.0, rng=0)
    grn, pairs, _ = st.datasets.simulated_priors(adata)
    targets = sorted(set(grn["target"]))
    rare = targets[0]
    counts = adata.layers["counts"].toarray()
    counts[:, adata.var_names.get_loc(rare)] = np.where(np.arange(800) % 200 == 0, 2, 0)
    adata.layers["counts"] = counts
    assert st.get.reliability(adata, counts_layer="counts").loc[rare, "mean"] == pytest.approx(0.01)
    st.pp.spatial_weights(adata)
    st.pp.received_ligands(adata, pairs, layer="log1p")
    options = {"targets": "reliable", "counts_layer": "counts"}
    st.pp.modulators(adata, grn, **options)
    assert set(adata.uns["modulators"]["table"]["target"]) == set(targets)
    caplog.set_level("INFO")
    st.pp.modulators(adata, grn, **options, min_mean=0.05)
    assert set(adata.uns["modulators"]["table"]["target"]) == set(targets) - {rare}
    assert "1 of them have a mean count below 0.05 and are left out" in caplog.text
    with pytest.raises(ValueError, match=r"reliable targets to have a mean count of 1000 .`min_mean`., found"):
        st.pp.modulators(adata, grn, **options, min_mean=1000)
    with pytest.raises(ValueError, match="`min_mean` to be"):
        st.pp.modulators(adata, grn, **options, min_mean=-1)
    for others in (None, targets, targets[1]):
        with pytest.raises(ValueError, match="Expected `min_mean` with targets='reliable' only"):
            st.pp.modulators(adata, grn, targets=others, min_mean=1)
