"""The script of the tables against the truth runs, and its measures know a perfect estimate."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks._inference import calls, coverage, first_of, judge, true_effects
from benchmarks._truth import Case, Fitted, correlation, profile_match, shuffle_targets, simulate
from benchmarks.truth import BASELINE_MEASURES, INFERENCE_MEASURES, MEASURES, NULL_MEASURES, Setting, main


@pytest.fixture(scope="module")
def case():
    return Case(simulate(200, 1.0, 0.5, 100, n_targets=2))


@pytest.mark.filterwarnings("ignore")
def test_true_coefficients_at_exact_values_are_perfect(case):
    found = case.measure(Fitted(case.betas, case.active, 0.0, 0.0), "exact")
    for name in ("fields", "tpr", "effects", "slope", "calibration", "tf", "receptor", "ligand"):
        assert found[name] == pytest.approx(1.0, abs=1e-5), name
    assert found["fpr"] == 0
    assert found["matched"] > 0


@pytest.mark.filterwarnings("ignore")
def test_baselines_know_a_perfect_one_and_one_in_which_nothing_can_fall(case):
    true = Fitted(case.betas, case.active, 0.0, 0.0)
    found = case.measure_baseline(true, "exact")
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-5)
    empty = Case(case.adata.copy())
    targets = (case.adata.var["role"] == "target").to_numpy()
    empty.adata.layers["empty"] = np.array(case.adata.layers["exact"])
    empty.adata.layers["empty"][1:, targets] = 0  # one cell keeps the range
    empty.prepared("empty")
    found = empty.measure_baseline(true, "empty")
    assert found["falls"] < 0.1
    assert found["rises"] > 0.9


@pytest.mark.filterwarnings("ignore")
def test_knockout_is_what_a_zero_gene_changes(case):
    (kind, gene) = case._genes[0]
    data, columns = case.values("exact")
    target = case.terms["target"].astype(str).to_numpy()
    touched = (case.terms[kind].astype(str) == gene).to_numpy() & (target == data.names[0])
    expected = -(data.values[:, columns[touched]] * case.betas[:, touched]).sum(axis=1)
    order = list(dict.fromkeys(target))
    np.testing.assert_allclose(case.effects[:, 0, order.index(data.names[0])], expected, atol=1e-5)


def test_no_estimate_scores_zero():
    assert correlation(np.zeros(5), np.arange(5.0)) == 0
    assert profile_match(np.eye(3), np.eye(3)) == pytest.approx((1.0, -0.5))


def test_shuffling_keeps_what_each_type_has():
    adata = simulate(200, 1.0, 0.5, 100, n_targets=2)
    before = adata.layers["counts"].toarray()
    shuffle_targets(adata, 0)
    after = adata.layers["counts"].toarray()
    targets = (adata.var["role"] == "target").to_numpy()
    np.testing.assert_array_equal(before[:, ~targets], after[:, ~targets])
    assert (before[:, targets] != after[:, targets]).any()
    for cells in adata.obs.groupby("cell_type", observed=True).indices.values():
        assert before[cells][:, targets].sum() == after[cells][:, targets].sum()


@pytest.mark.filterwarnings("ignore")
def test_judgement_of_errors_knows_the_truth(case):
    fit = judge(case)
    # a screen of the true coefficients is what the knockouts of the case are, where nothing is clipped
    gene, target = case._genes[0][1], str(case.terms["target"].iloc[0])
    screen = true_effects(case, fit, [gene])
    own = [i for i, (_, name) in enumerate(case._genes) if name == gene]
    expected = case.effects[:, own, 0].sum(axis=1).mean()
    assert float(screen[gene, target].X[0, 0]) == pytest.approx(expected, rel=0.15, abs=0.01)
    found = coverage(fit)
    assert 0 < found["cover50"] < found["cover90"] <= found["cover99"] <= 1
    assert found["cover90"] == pytest.approx(found["cover"], abs=0.01)
    assert 0 <= calls(fit)["p05"] <= 1


def test_first_of_others():
    profiles = np.random.default_rng(0).normal(size=(6, 4, 2))
    assert first_of(profiles, profiles) == 1
    assert first_of(profiles[::-1], profiles) == 0
    assert first_of(np.zeros_like(profiles), profiles) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "measures"),
    [
        ([], MEASURES),
        (["--nulls"], NULL_MEASURES),
        (["--inference"], INFERENCE_MEASURES),
        (["--baselines"], BASELINE_MEASURES),
    ],
)
def test_quick_run_writes_table_and_results(tmp_path, options, measures):
    out, results, figure = tmp_path / "truth.md", tmp_path / "truth.csv", tmp_path / "truth.png"
    paths = ["--out", str(out), "--results", str(results), "--figure", str(figure)]
    main(["--quick", *options, *(paths if not options else paths[:4])])
    header = out.read_text().splitlines()[0]
    assert all(name in header for name in measures)
    assert figure.exists() != bool(options)
    before = results.read_text()
    main(["--quick", *options, *paths[:4]])  # nothing is left to run
    assert results.read_text() == before


def test_settings_have_names():
    assert str(Setting(10_000, 0.17, 0.5)) == "10,000 cells, depth 0.17, programs 0.5"
