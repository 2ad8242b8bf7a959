"""Predictions scored against observations, in each form that either may have."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st

GENES = [f"G{i}" for i in range(40)]
NAMES = ["G0", "G1", "G2", "G3", "G4", "G5"]


def table(values, names=NAMES, genes=GENES):
    return ad.AnnData(
        np.asarray(values, dtype=float), obs=pd.DataFrame(index=list(names)), var=pd.DataFrame(index=list(genes))
    )


@pytest.fixture
def changes():
    values = np.random.default_rng(0).normal(size=(6, 40))
    values[np.arange(6), np.arange(6)] = -9  # a knocked-out gene
    return values


def experiment(changes, *, n=60, composition=(0.5, 0.5), noise=0.0):
    """Cells of two types; the share of the first among perturbed cells is ``composition[1]``."""
    rng = np.random.default_rng(1)
    base = np.array([np.full(40, 20.5), np.full(40, 30.5)])
    parts, labels, types = [], [], []
    for name, change, share in [
        ("ctrl", np.zeros(40), composition[0]),
        *[(n_, c, composition[1]) for n_, c in zip(NAMES, changes, strict=True)],
    ]:
        of_cell = (np.arange(n) >= round(share * n)).astype(int)
        parts.append(base[of_cell] + change + noise * rng.normal(size=(n, 40)))
        labels += [name] * n
        types += ["T/NK" if t == 0 else "B" for t in of_cell]
    obs = pd.DataFrame({"gene": labels, "cell_type": types}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(np.vstack(parts), obs=obs, var=pd.DataFrame(index=GENES))


def test_perfect_prediction(changes):
    found = st.tl.evaluate_perturbation(table(changes), table(changes))
    assert found["perturbation"].tolist() == NAMES
    for name in ("pearson_delta", "spearman_delta", "cosine", "sign_agreement", "top_overlap", "discrimination",
                 "centroid_accuracy", "rank", "pearson_delta_perturbed"):  # fmt: skip
        np.testing.assert_allclose(found[name], 1.0, err_msg=name)
    assert (found[["mae", "rmse"]] == 0).all(axis=None)
    assert (found["n_genes"] == 39).all()
    assert (found["n_candidates"] == 6).all()
    np.testing.assert_allclose(found["difference"], 1 - found["mismatched"])
    assert "energy_distance" not in found


def test_the_perturbed_gene_gives_nothing_away(changes):
    """A prediction that knows nothing but which gene was knocked out is no better than chance."""
    rng = np.random.default_rng(2)
    known = rng.normal(size=changes.shape)
    known[np.arange(6), np.arange(6)] = -9
    blind = st.tl.evaluate_perturbation(table(known), table(changes))
    naive = st.tl.evaluate_perturbation(table(known), table(changes), exclude_perturbed=False)
    assert naive["discrimination"].mean() == 1.0
    assert naive["difference"].mean() > 0.5
    assert blind["discrimination"].mean() < 0.85
    assert abs(blind["difference"].mean()) < 0.15


def test_shuffled_predictions_are_chance():
    rng = np.random.default_rng(3)
    names = [f"p{i}" for i in range(120)]
    truth, shuffled = rng.normal(size=(2, 120, 40))
    found = st.tl.evaluate_perturbation(table(shuffled, names), table(truth, names), n_top=10)
    means = found.mean(numeric_only=True)
    assert means["pearson_delta"] == pytest.approx(0, abs=0.05)
    assert means["sign_agreement"] == pytest.approx(0.5, abs=0.05)
    assert means["top_overlap"] == pytest.approx(0.25, abs=0.05)
    assert means["discrimination"] == pytest.approx(0.504, abs=0.08)
    assert means["centroid_accuracy"] == pytest.approx(0.5, abs=0.08)


def test_discrimination_and_accuracy_by_hand(changes):
    """The definitions, written as loops."""
    guess = changes + 2 * np.random.default_rng(9).normal(size=changes.shape)
    found = st.tl.evaluate_perturbation(table(guess), table(changes))
    for p in range(6):
        distances = []
        for q in range(6):
            kept = ~np.isin(np.arange(40), (p, q))
            gap = guess[p, kept] - changes[q, kept]
            distances.append((np.abs(gap).mean(), np.sqrt((gap**2).mean())))
        nearer = [sum(d[i] < distances[p][i] for d in distances) for i in (0, 1)]
        assert found["discrimination"][p] == pytest.approx(1 - nearer[0] / 6)
        assert found["centroid_accuracy"][p] == pytest.approx(1 - nearer[1] / 5)
    assert found["discrimination"].min() < 1


def test_shared_changes_look_like_success_until_others_are_compared(changes):
    """What all perturbations share gives high correlations, and no more to the right one than to others."""
    rng = np.random.default_rng(4)
    shared = 5 * rng.normal(size=40)
    truth, guess = changes + shared, rng.normal(size=changes.shape) + shared
    found = st.tl.evaluate_perturbation(table(guess), table(truth)).mean(numeric_only=True)
    assert found["pearson_delta"] > 0.9
    assert abs(found["difference"]) < 0.05
    assert found["pearson_delta_perturbed"] < 0.3


def test_cells_of_an_experiment(changes):
    adata = experiment(changes)
    found = st.tl.evaluate_perturbation(
        table(changes), adata, perturbation_key="gene", control="ctrl", by_cell_type=False
    )
    np.testing.assert_allclose(found[["mae"]], 0, atol=1e-5)
    np.testing.assert_allclose(found["pearson_delta"], 1)


def test_another_composition_is_no_change(changes):
    adata = experiment(np.zeros_like(changes), composition=(0.5, 0.9), n=100)
    options = {"perturbation_key": "gene", "control": "ctrl"}
    found = st.tl.evaluate_perturbation(table(changes), adata, **options)
    expected = np.abs(np.where(np.eye(6, 40) > 0, np.nan, changes))
    np.testing.assert_allclose(found["mae"], np.nanmean(expected, axis=1), atol=1e-5)
    del adata.obs["cell_type"]
    raw = st.tl.evaluate_perturbation(table(changes), adata, **options)
    assert raw["mae"].min() > 3  # 40 % of the cells exchanged for those of a type ten units lower


def test_by_cell_type(changes):
    screen = table(changes)
    screen.uns["screen"] = {"cell_types": np.array(["B", "T/NK", "none"], dtype=object)}
    screen.layers["change_0"], screen.layers["change_1"] = changes, -changes
    screen.layers["change_2"] = changes
    found = st.tl.evaluate_perturbation(
        screen, experiment(changes), perturbation_key="gene", control="ctrl", by_cell_type=True
    )
    assert found["cell_type"].drop_duplicates().tolist() == ["all", "B", "T/NK"]
    means = found.groupby("cell_type")["pearson_delta"].mean()
    np.testing.assert_allclose(means[["all", "B", "T/NK"]], [1, 1, -1])
    with pytest.raises(ValueError, match="to share cell types with"):
        st.tl.evaluate_perturbation(table(changes), experiment(changes), perturbation_key="gene", control="ctrl",
                                    by_cell_type=True)  # fmt: skip


def test_few_cells_are_not_believed(changes):
    adata = experiment(changes)
    few = adata[~((adata.obs["gene"] == "G1") & (np.arange(adata.n_obs) % 12 > 0))].copy()
    with (
        pytest.warns(UserWarning, match="Fewer than 10 perturbed or control cells .* for 'G1'"),
        pytest.warns(UserWarning, match="1 rows have fewer than 3 genes"),
    ):
        found = st.tl.evaluate_perturbation(table(changes), few, perturbation_key="gene", control="ctrl")
    found = found.set_index("perturbation")
    assert np.isnan(found.loc["G1", ["mae", "pearson_delta", "rank"]].astype(float)).all()
    assert (found["n_candidates"] == [5, 5, 5, 5, 5, 5]).all()


def test_what_is_missing(changes):
    truth, guess = table(changes), table(changes)[:3, 5:].copy()
    with pytest.warns(UserWarning, match="3 of 6 perturbations of `observed` are not in `predicted`: 'G3'"):
        found = st.tl.evaluate_perturbation(guess, truth)
    assert found["n_genes"].tolist() == [35, 35, 35]
    assert found["n_candidates"].tolist() == [6, 6, 6]  # also those that were not predicted
    holes = changes.copy()
    holes[0, 10:20] = np.nan
    holes[1] = 0.3
    with pytest.warns(UserWarning, match="10 changes of `predicted` are NaN"):
        found = st.tl.evaluate_perturbation(table(holes), truth, genes=GENES[:30])
    assert found["n_genes"].tolist() == [19, 29, 29, 29, 29, 29]
    assert np.isnan(
        found.loc[1, ["pearson_delta", "rank", "difference", "pearson_delta_perturbed"]].astype(float)
    ).all()
    assert np.isfinite(found.loc[1, ["mae", "discrimination"]].astype(float)).all()


def test_baselines(changes):
    truth = table(changes)
    screen = table(changes + 0.1)
    screen.obs["baseline"] = [1.0, 1.1, 3.0, 3.1, 6.0, 6.5]
    found = st.tl.evaluate_perturbation(
        screen, truth, baselines=["mean", "expression_match", "observed_mean", "no_change"]
    )
    means = found.groupby("prediction").mean(numeric_only=True)
    assert means.loc["predicted", "discrimination"] == 1
    assert means.loc["mean", "centroid_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert means.loc["expression_match", "discrimination"] < 0.9
    # the mean over the others is nearer to every one of them than to the one it leaves out
    assert means.loc["observed_mean", "centroid_accuracy"] < 0.2
    assert np.isnan(means.loc["no_change", "pearson_delta"])
    hidden = np.where(np.eye(6, 40) > 0, np.nan, changes)
    by_hand = [np.nanmean(np.abs(hidden[p] - np.nanmean(np.delete(hidden, p, 0), 0))) for p in range(6)]
    rows = found[found["prediction"] == "observed_mean"]
    np.testing.assert_allclose(rows["mae"], by_hand)
    other = st.tl.evaluate_perturbation(screen, truth, baselines={"mine": truth})
    assert (other.loc[other["prediction"] == "mine", "mae"] == 0).all()


def labels(names):
    return [f"{name}=0" for name in names]


def test_a_knockout_has_two_names(changes):
    guess = changes + np.random.default_rng(5).normal(size=changes.shape)
    expected = st.tl.evaluate_perturbation(table(guess), table(changes), baselines={"mine": table(changes)})
    for predicted, observed in ((NAMES, labels(NAMES)), (labels(NAMES), NAMES), (labels(NAMES), labels(NAMES))):
        for baseline in (NAMES, labels(NAMES)):
            found = st.tl.evaluate_perturbation(
                table(guess, predicted), table(changes, observed), baselines={"mine": table(changes, baseline)}
            )
            assert found["perturbation"].tolist() == predicted * 2
            pd.testing.assert_frame_equal(found.drop(columns="perturbation"), expected.drop(columns="perturbation"))


def test_names_of_several_knockouts(changes):
    one, two = ["G0+G1", "G2", "G3=max"], ["G1=0, G0=0", "G2=0", "G3=max"]
    found = st.tl.evaluate_perturbation(table(changes[:3], one), table(changes[:3], two))
    assert found["perturbation"].tolist() == one
    assert (found["n_genes"] == [38, 39, 39]).all()
    assert (found["mae"] == 0).all()


def test_cells_of_an_experiment_named_by_labels(changes):
    adata = experiment(changes)
    expected = st.tl.evaluate_perturbation(table(changes), adata, perturbation_key="gene", control="ctrl")
    adata.obs["gene"] = adata.obs["gene"].where(adata.obs["gene"] == "ctrl", adata.obs["gene"] + "=0")
    found = st.tl.evaluate_perturbation(table(changes), adata, perturbation_key="gene", control="ctrl")
    pd.testing.assert_frame_equal(found, expected)


def test_a_knockout_that_is_named_twice(changes):
    twice = table(changes, ["G0", "G0=0", *NAMES[2:]])
    match = "`observed` to hold each knockout once, found 'G0', 'G0=0' for the same one"
    with pytest.raises(ValueError, match=match):
        st.tl.evaluate_perturbation(table(changes), twice)
    with pytest.raises(ValueError, match=match.replace("observed", "predicted")):
        st.tl.evaluate_perturbation(twice, table(changes))
    # where both have both, nothing is ambiguous
    assert (st.tl.evaluate_perturbation(twice, twice)["mae"] == 0).all()


def test_overexpression_is_no_knockout(adata):
    screen = st.tl.genome_screen(adata, genes=["FOXO1", "STAT3"], mode="overexpression", n_jobs=1)
    knockouts = screen.copy()
    knockouts.obs_names = labels(screen.obs_names)
    del knockouts.uns["screen"]
    with pytest.raises(ValueError, match="share a perturbation"):
        st.tl.evaluate_perturbation(screen, knockouts)
    st.tl.perturb(adata, {"FOXO1": "max"}, n_jobs=1)
    with pytest.raises(ValueError, match="share a perturbation"):
        st.tl.evaluate_perturbation(adata, knockouts)


def test_a_simulated_tissue_against_labels(adata):
    st.tl.perturb(adata, "FOXO1", n_jobs=1)
    batch = st.tl.perturb_batch(adata, ["FOXO1", "STAT3"], n_jobs=1)
    changes = pd.DataFrame(
        [(r.simulated - r.baseline).mean(axis=0) for r in batch], index=[r.wanted.label for r in batch]
    )
    observed = table(changes, changes.index, adata.var_names)
    with pytest.warns(UserWarning, match="1 of 2 perturbations of `observed` are not in `predicted`: 'STAT3=0'"):
        found = st.tl.evaluate_perturbation(adata, observed)
    assert found["perturbation"].tolist() == ["FOXO1"]
    np.testing.assert_allclose(found["mae"], 0, atol=1e-6)


def test_simulated_cells_against_cells(adata):
    st.tl.perturb(adata, "FOXO1", n_jobs=1)
    simulated = np.asarray(adata.layers["perturbed"])
    control = adata.copy()
    control.obs["guide"] = "ctrl"
    treated = adata.copy()
    treated.layers["log1p"] = simulated
    treated.obs["guide"] = "FOXO1"
    observed = ad.concat([control, treated], index_unique="-")
    found = st.tl.evaluate_perturbation(
        adata, observed, perturbation_key="guide", control="ctrl", layer="log1p", by_cell_type=True
    )
    assert set(found["cell_type"]) == {"all", "T/NK", "B", "stroma"}
    first = found.iloc[0]
    assert first["perturbation"] == "FOXO1"
    assert first["pearson_delta"] == pytest.approx(1, abs=1e-4)
    assert np.isnan(first["rank"])  # there is no other
    # drawn from the same cells, so that they are nearer than two samples
    assert first["energy_distance"] < first["energy_distance_unchanged"]
    assert found["energy_distance"].notna().tolist() == [True, False, False, False]


def test_bad_input(changes):
    truth = table(changes)
    with pytest.raises(ValueError, match="share at least 3 genes, found 0"):
        st.tl.evaluate_perturbation(table(changes, genes=[g.lower() for g in GENES]), truth)
    with pytest.raises(ValueError, match="share a perturbation"):
        st.tl.evaluate_perturbation(table(changes, names=[f"x{i}" for i in range(6)]), truth)
    with pytest.raises(ValueError, match="`control` to be one of the values"):
        st.tl.evaluate_perturbation(truth, experiment(changes), perturbation_key="gene", control="none")
    with pytest.raises(ValueError, match="Expected `perturbation_key` together with"):
        st.tl.evaluate_perturbation(truth, truth, control="ctrl")
    with pytest.raises(KeyError, match="guide"):
        st.tl.evaluate_perturbation(truth, experiment(changes), perturbation_key="guide", control="ctrl")
    with pytest.raises(ValueError, match="`baselines` to be one of 'mean'"):
        st.tl.evaluate_perturbation(truth, truth, baselines="best")
    with pytest.raises(ValueError, match="nothing for the perturbations"):
        st.tl.evaluate_perturbation(truth, truth, baselines={"mine": truth[:2].copy()})
    with pytest.raises(ValueError, match="at least two perturbations"):
        st.tl.evaluate_perturbation(truth, truth, baselines="expression_match")
    with pytest.raises(ValueError, match="`n_top` to be positive"):
        st.tl.evaluate_perturbation(truth, truth, n_top=0)
