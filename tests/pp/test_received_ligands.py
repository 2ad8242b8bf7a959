from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import spacetravlr as st
from spacetravlr._anndata._received import operators, read_received, received_values
from spacetravlr._core.design import Signals
from spacetravlr._core.signals.operators import GridOperator, SparseOperator

KEYS = ["uns/received_ligands", "uns/received_ligands_tfl", "uns/received_ligands_params"]
W = np.exp(-(np.array([0, 10, 20]) ** 2) / (2 * (25 / np.sqrt(-2 * np.log(1e-3))) ** 2))


def test_five_cells_by_hand(line, pairs):
    st.pp.spatial_weights(line, radius=25, contact_radius=10)
    st.pp.received_ligands(line, pairs)
    received = line.uns["received_ligands"]
    assert list(received.columns) == ["LIG", "CON|contact", "LIG|contact"]
    np.testing.assert_allclose(received["LIG"], [4, 4 * W[1], (4 + 2) * W[2], 2 * W[1], 2], rtol=1e-5)
    np.testing.assert_allclose(received["CON|contact"], [1.5e-3, 1.5, 1.5e-3, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(received["LIG|contact"], [4, 4e-3, 0, 2e-3, 2], rtol=1e-5)
    assert (received.dtypes == np.float32).all()
    assert list(received.index) == list("abcde")
    # one signal per ligand for ligand-TF terms: secreted where there is one
    pd.testing.assert_frame_equal(line.uns["received_ligands_tfl"], received[["LIG", "CON|contact"]])
    params = line.uns["received_ligands_params"]
    pd.testing.assert_frame_equal(params["pairs"][["ligand", "receptor", "range"]].reset_index(drop=True), pairs)
    assert params["layer"] == ""


@pytest.fixture
def weighted(slide):
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, library_key="half")
    return slide


def test_complexes_annotations_and_layer(weighted, slide_pairs, unchanged):
    check = unchanged(weighted)
    assert st.pp.received_ligands(weighted, slide_pairs, layer="scaled") is None
    check(weighted, new=KEYS)
    received = weighted.uns["received_ligands"]
    assert list(received) == ["G0", "G1", "G0|contact", "G3|contact", "G4|contact"]
    values = weighted.layers["scaled"]
    np.testing.assert_allclose(received["G1"], weighted.obsp["spatial_weights"] @ values[:, 1], rtol=1e-5)
    np.testing.assert_allclose(received["G4|contact"], weighted.obsp["contact_weights"] @ values[:, 4], rtol=1e-5)
    assert weighted.uns["received_ligands_params"]["layer"] == "scaled"
    kept = weighted.uns["received_ligands_params"]["pairs"]
    assert {("G3", "G8"), ("G4", "G8")} <= set(zip(kept["ligand"], kept["receptor"], strict=True))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.asarray])
def test_any_array(weighted, slide_pairs, kind):
    expected = st.pp.received_ligands(weighted, slide_pairs, copy=True).uns["received_ligands"]
    weighted.X = kind(weighted.X)
    st.pp.received_ligands(weighted, slide_pairs)
    pd.testing.assert_frame_equal(weighted.uns["received_ligands"], expected)


def test_grid_agrees_and_auto_follows_the_weights(slide, slide_pairs):
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, method="sparse")
    st.pp.received_ligands(slide, slide_pairs, key_added="exact")
    st.pp.received_ligands(slide, slide_pairs, method="grid", key_added="forced")
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, method="grid")
    st.pp.received_ligands(slide, slide_pairs)
    st.pp.received_ligands(slide, slide_pairs, method="sparse", key_added="rebuilt")
    assert slide.uns["received_ligands_params"]["method"] == "grid"
    assert slide.uns["rebuilt_params"]["method"] == "sparse"
    exact = slide.uns["exact"]
    pd.testing.assert_frame_equal(slide.uns["rebuilt"], exact, rtol=1e-5)
    pd.testing.assert_frame_equal(slide.uns["forced"], slide.uns["received_ligands"])
    error = np.sqrt(((slide.uns["forced"] - exact) ** 2).mean() / (exact**2).mean())
    assert error.max() < 1e-3
    assert isinstance(operators(slide).secreted, GridOperator)
    assert isinstance(operators(slide, "rebuilt").secreted, SparseOperator)


@pytest.mark.parametrize("method", ["sparse", "grid"])
@pytest.mark.parametrize("normalize", ["sum", "mean", "row"])
def test_operators_make_the_same_again(slide, slide_pairs, method, normalize, round_trip):
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, library_key="half", method=method)
    st.pp.received_ligands(slide, slide_pairs, normalize=normalize)
    back = round_trip(slide)
    state, field = read_received(back), operators(back)
    names = list(state.lr)
    signals = Signals(
        back.var_names.get_indexer([n.removesuffix("|contact") for n in names]),
        np.array([n.endswith("|contact") for n in names]),
    )
    np.testing.assert_allclose(received_values(field, signals, back.X), state.lr, rtol=1e-6)
    none = Signals(np.zeros(0, dtype=int), np.zeros(0, dtype=bool))
    assert received_values(field, none, back.X).shape == (200, 0)
    pd.testing.assert_frame_equal(state.lr, slide.uns["received_ligands"], check_names=False)


def test_a_subset_reads_its_own_cells(weighted, slide_pairs):
    st.pp.received_ligands(weighted, slide_pairs)
    some = weighted[[150, 3, 77]].copy()
    state = read_received(some)
    pd.testing.assert_frame_equal(state.lr, weighted.uns["received_ligands"].iloc[[150, 3, 77]])
    pd.testing.assert_frame_equal(state.tfl, weighted.uns["received_ligands_tfl"].iloc[[150, 3, 77]])
    stranger = weighted.copy()
    stranger.obs_names = [f"other{i}" for i in range(200)]
    with pytest.raises(ValueError, match=r"200 of 200 cells missing \(first: 'other0'\); it belongs to other cells"):
        read_received(stranger)


def test_ligands_of_ligand_tf_terms_are_added(weighted, slide_pairs):
    ligand_tf = pd.DataFrame({"ligand": ["G0", "G9", "G3", "ELSE"], "tf": ["G5"] * 4, "score": [0.1, 0.2, 0.3, 0.4]})
    st.pp.received_ligands(weighted, slide_pairs, ligand_tf=ligand_tf)
    assert list(weighted.uns["received_ligands_tfl"]) == ["G0", "G1", "G3|contact", "G4|contact", "G9"]
    np.testing.assert_allclose(
        weighted.uns["received_ligands_tfl"]["G9"], weighted.obsp["spatial_weights"] @ weighted.X[:, 9], rtol=1e-5
    )
    assert "G9" not in weighted.uns["received_ligands"]


def test_order_of_cells_and_threads_do_not_matter(slide, slide_pairs):
    order = np.random.default_rng(0).permutation(200)
    shuffled = slide[order].copy()
    for adata, n_jobs in ((slide, 1), (shuffled, 2)):
        st.pp.spatial_weights(adata, radius=80, contact_radius=30, n_jobs=n_jobs)
        st.pp.received_ligands(adata, slide_pairs, n_jobs=n_jobs)
    pd.testing.assert_frame_equal(
        shuffled.uns["received_ligands"], slide.uns["received_ligands"].iloc[order], rtol=1e-5
    )


def test_ligrec_filters_the_pairs(weighted, slide_pairs):
    index = pd.MultiIndex.from_tuples([("G0", "G5"), ("G1", "G6")], names=["source", "target"])
    columns = pd.MultiIndex.from_tuples([("B", "B"), ("B", "T/NK")])
    weighted.uns["cell_type_ligrec"] = {"pvalues": pd.DataFrame([[0.9, 0.01], [0.5, np.nan]], index, columns)}
    st.pp.received_ligands(weighted, slide_pairs, ligrec_key="cell_type_ligrec")
    assert list(weighted.uns["received_ligands"]) == ["G0"]
    st.pp.received_ligands(weighted, slide_pairs, ligrec_key="cell_type_ligrec", pvalue=0.5)
    assert list(weighted.uns["received_ligands"]) == ["G0", "G1"]
    with pytest.raises(ValueError, match="significant pair"):
        st.pp.received_ligands(weighted, slide_pairs, ligrec_key="cell_type_ligrec", pvalue=0.001)
    weighted.uns["other"] = {"means": 1}
    with pytest.raises(ValueError, match="result of `sq.gr.ligrec`"):
        st.pp.received_ligands(weighted, slide_pairs, ligrec_key="other")


@pytest.mark.filterwarnings("ignore")  # squidpy's own
def test_a_genuine_ligrec_result(weighted, slide_pairs):
    import squidpy as sq

    weighted.var_names = [name.lower() for name in weighted.var_names]  # squidpy answers in upper case
    interactions = pd.DataFrame({"source": ["g0", "g1"], "target": ["g5", "g6"]})
    sq.gr.ligrec(
        weighted, "cell_type", interactions=interactions, n_perms=5, threshold=0, use_raw=False, show_progress_bar=False
    )
    table = slide_pairs.apply(lambda column: column.str.lower())
    st.pp.received_ligands(weighted, table, ligrec_key="cell_type_ligrec", pvalue=1.0)
    assert list(weighted.uns["received_ligands"]) == ["g0", "g1"]


def test_weights_come_first(slide, slide_pairs, unchanged):
    check = unchanged(slide)
    with pytest.raises(KeyError, match=r"st.pp.spatial_weights\(adata\)"):
        st.pp.received_ligands(slide, slide_pairs)
    check(slide)
    with pytest.raises(KeyError, match=r"st.pp.received_ligands\(adata, lr\)"):
        read_received(slide)
    with pytest.raises(KeyError, match="received_key"):
        operators(slide)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"layer": "nope"}, KeyError, "Key 'nope' \\(`layer`\\) not found in adata.layers, which holds 'scaled'"),
        ({"normalize": "max"}, ValueError, "`normalize` to be one of 'sum', 'mean', 'row'"),
        ({"method": "x"}, ValueError, "`method` to be one of"),
        ({"ligrec_key": "nope"}, KeyError, "sq.gr.ligrec"),
        ({"pvalue": 2.0}, ValueError, "`pvalue`"),
        ({"weights_key": "nope"}, KeyError, "`weights_key`"),
        ({"n_jobs": 0}, ValueError, "`n_jobs`"),
    ],
)
def test_bad_arguments(weighted, slide_pairs, unchanged, arguments, error, message):
    check = unchanged(weighted)
    with pytest.raises(error, match=message):
        st.pp.received_ligands(weighted, slide_pairs, **arguments)
    check(weighted)


def test_no_pair_left(weighted, slide_pairs):
    with pytest.raises(ValueError, match="same species"):
        st.pp.received_ligands(
            weighted, pd.DataFrame({"ligand": ["TGFB1"], "receptor": ["TGFBR1"], "range": "contact"})
        )
    lower = slide_pairs.apply(lambda column: column.str.lower() if column.name != "signaling" else column)
    with pytest.raises(ValueError, match="differ only in case \\('g0' and 'G0'\\).*map_orthologs"):
        st.pp.received_ligands(weighted, lower)
    # that some names are alike by accident does not make it the same species
    accident = pd.concat([lower, slide_pairs.iloc[:1]], ignore_index=True)
    with pytest.raises(ValueError, match="found 2 of its 10 genes"):
        st.pp.received_ligands(weighted, accident)


@pytest.mark.parametrize("name", ["CCL3/L1", "Il6", ".hidden", "50%2F", "_index", "A_B"])
def test_any_name_of_a_ligand_can_be_written(weighted, slide_pairs, round_trip, name):
    renamed = {"G0": "IL6", "G1": name}
    weighted.var_names = [renamed.get(g, g) for g in weighted.var_names]
    pairs = slide_pairs.replace(renamed)
    st.pp.received_ligands(weighted, pairs)
    state = read_received(round_trip(weighted))
    stored = [column.lower() for column in weighted.uns["received_ligands"].columns]
    assert len(set(stored)) == len(stored)
    assert not any("/" in column for column in stored)
    values = weighted.to_df()
    assert {"IL6", name} <= set(state.lr.columns)
    for ligand in ("IL6", name):
        np.testing.assert_allclose(
            state.lr[ligand], weighted.obsp["spatial_weights"] @ values[ligand].to_numpy(), rtol=1e-5
        )


def test_expression_in_a_file(weighted, slide_pairs, tmp_path):
    import anndata as ad

    expected = st.pp.received_ligands(weighted, slide_pairs, copy=True).uns["received_ligands"]
    weighted.X = sparse.csr_matrix(weighted.X)
    weighted.write_h5ad(tmp_path / "slide.h5ad")
    on_disk = ad.read_h5ad(tmp_path / "slide.h5ad", backed="r")
    st.pp.received_ligands(on_disk, slide_pairs)
    np.testing.assert_allclose(on_disk.uns["received_ligands"], expected, rtol=1e-6)
    on_disk.file.close()


def test_ranges_of_a_second_table(weighted, slide_pairs):
    expected = st.pp.received_ligands(weighted, slide_pairs, copy=True).uns["received_ligands"]
    bare = slide_pairs.drop(columns="signaling")
    st.pp.received_ligands(weighted, bare, ranges=slide_pairs)
    pd.testing.assert_frame_equal(weighted.uns["received_ligands"], expected)
    with pytest.warns(UserWarning, match="treated as secreted"):
        st.pp.received_ligands(weighted, bare)


@pytest.mark.parametrize("value, message", [(-1.0, "at least zero"), (np.nan, "finite"), (np.inf, "finite")])
def test_bad_expression(weighted, slide_pairs, unchanged, value, message):
    weighted.X[5, 0] = value
    check = unchanged(weighted)
    with pytest.raises(ValueError, match=message):
        st.pp.received_ligands(weighted, slide_pairs)
    check(weighted)


def test_raw_counts_get_a_warning(weighted, slide_pairs):
    weighted.X = np.round(weighted.X * 3)
    with pytest.warns(UserWarning, match="looks like raw counts"):
        st.pp.received_ligands(weighted, slide_pairs)


def test_a_squidpy_graph_has_no_grid(slide, slide_pairs):
    slide.obsp["graph"] = sparse.csr_matrix((np.full(2, 5.0), ([0, 1], [1, 0])), shape=(200, 200))
    st.pp.spatial_weights(slide, radius=80, contact_radius=30, connectivity_key="graph")
    with pytest.raises(ValueError, match="connectivity_key"):
        st.pp.received_ligands(slide, slide_pairs, method="grid")
    st.pp.received_ligands(slide, slide_pairs)
    w = np.exp(-25 / (2 * (80 / np.sqrt(-2 * np.log(1e-3))) ** 2))
    np.testing.assert_allclose(
        slide.uns["received_ligands"]["G0"].iloc[0], slide.X[0, 0] + w * slide.X[1, 0], rtol=1e-5
    )


def test_without_contact_signals_contact_pairs_are_left_out(line, pairs, caplog, tmp_path):
    scores = pd.DataFrame({"ligand": ["LIG", "CON", "TF1"], "tf": ["TF1", "TF1", "REC"], "score": 1.0})
    st.pp.spatial_weights(line, radius=25, contact_radius=None)
    caplog.set_level("INFO")
    st.pp.received_ligands(line, pairs, ligand_tf=scores)
    assert "2 of 3 pairs act by contact and are left out" in caplog.text
    assert list(line.uns["received_ligands"]) == ["LIG"]
    # CON acts by contact only: it does not become a secreted signal by the other table
    assert list(line.uns["received_ligands_tfl"]) == ["LIG", "TF1"]
    params = line.uns["received_ligands_params"]
    assert params["pairs"]["receptor"].tolist() == ["REC"]
    assert (params["contact_method"], list(params["left_out"])) == ("", ["CON"])
    st.io.write(line, tmp_path / "line.h5ad")
    again = st.io.read(tmp_path / "line.h5ad")
    assert again.uns["received_ligands_params"]["left_out"].tolist() == ["CON"]
    # nor by modulators, which receive ligands that have no signal yet
    st.pp.modulators(again, pd.DataFrame({"tf": ["TF1"], "target": ["REC"]}), ligand_tf=scores)
    table = again.uns["modulators"]["table"]
    assert table.loc[table["kind"] == "tfl", "ligand"].astype(str).tolist() == ["LIG"]
    np.testing.assert_array_equal(operators(again).contact.own(), 0.0)
    with pytest.raises(ValueError, match="to hold secreted pairs with `contact_radius=None`"):
        st.pp.received_ligands(line, pairs[1:2])


def test_a_table_without_contact_pairs_says_nothing_of_them(line, pairs, caplog):
    line.X = line.X * 0.7
    st.pp.spatial_weights(line, radius=25, contact_radius=None)
    caplog.set_level("INFO")
    st.pp.received_ligands(line, pairs[:1])
    assert "contact" not in caplog.text
    assert len(line.uns["received_ligands_params"]["left_out"]) == 0


def test_the_annotation_of_pairs_is_kept(line, pairs, tmp_path):
    line.X = line.X * 0.7
    st.pp.spatial_weights(line, radius=25, contact_radius=10)
    annotations = ["ECM-Receptor", "Cell-Cell Contact", ""]
    st.pp.received_ligands(line, pairs.assign(annotation=annotations))
    assert line.uns["received_ligands_params"]["pairs"]["annotation"].tolist() == annotations
    for suffix in ("h5ad", "zarr"):
        st.io.write(line, tmp_path / f"line.{suffix}")
        stored = st.io.read(tmp_path / f"line.{suffix}").uns["received_ligands_params"]["pairs"]
        assert stored["annotation"].astype(str).tolist() == annotations
    st.pp.received_ligands(line, pairs)
    assert "annotation" not in line.uns["received_ligands_params"]["pairs"]
