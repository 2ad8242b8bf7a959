"""The simulated tissue follows how-it-works, section 3: checked through a plain twin written here."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spacetravlr as st


def _received(xy, values, radius):
    """how-it-works, section 1 and 2, cell by cell."""
    sigma = radius / np.sqrt(-2 * np.log(1e-3))
    out = np.zeros_like(values)
    for j in range(len(xy)):
        d = np.linalg.norm(xy - xy[j], axis=1)
        out[j] = np.where(d <= radius, np.exp(-(d**2) / (2 * sigma**2)), 0.0) @ values
    return out


def _predict(adata, expression):
    """how-it-works, section 3 with the true coefficients, term by term, slide by slide."""
    terms, betas = adata.uns["simulation"]["terms"], adata.obsm["true_betas"].astype(float)
    slides = adata.obs["slide"].to_numpy() if "slide" in adata.obs else np.zeros(adata.n_obs)
    out = {t: np.zeros(adata.n_obs) for t in terms["target"].unique()}
    x = {g: expression[:, i].astype(float) for i, g in enumerate(adata.var_names)}
    for slide in np.unique(slides):
        rows = np.flatnonzero(slides == slide)
        xy = adata.obsm["spatial"][rows]
        cache = {}
        for column, row in enumerate(terms.itertuples()):
            z = np.ones(len(rows))
            if row.kind != "intercept":
                z = x[row.receptor if row.kind == "lr" else row.tf][rows].copy()
            if row.kind in ("lr", "tfl"):
                key = row.ligand, row.range
                if key not in cache:
                    cache[key] = _received(xy, x[row.ligand][rows], 30 if row.range == "contact" else 200)
                z *= cache[key]
            out[row.target][rows] += betas[rows, column] * z
    return out


@pytest.mark.parametrize(
    "options", [{}, {"n_slides": 2, "fields": "niche"}, {"n_dims": 3, "fields": "cell_type"}, {"n_relays": 2}]
)
def test_truth_reproduces_noise_free(options):
    adata = st.datasets.simulated_tissue(n_cells=250, n_targets=5, rng=3, **options)
    # regulators are observed without error; a relay acts through its observed (noisy) expression
    predicted = _predict(adata, np.asarray(adata.X))
    for target, values in predicted.items():
        np.testing.assert_allclose(values, adata[:, target].layers["noise_free"].ravel(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("r2", [0.5, 0.94])
def test_noise_share(r2):
    adata = st.datasets.simulated_tissue(n_cells=1000, n_targets=8, r2=r2, rng=1)
    targets = adata.uns["simulation"]["terms"]["target"].unique()
    observed = adata[:, targets].to_df()
    truth = adata[:, targets].to_df(layer="noise_free")
    within = observed - observed.groupby(adata.obs["cell_type"], observed=True).transform("mean")
    reached = 1 - ((observed - truth) ** 2).mean() / (within**2).mean()
    assert abs(reached.mean() - r2) < 0.02
    assert reached.min() > r2 - 0.06


def test_no_noise():
    adata = st.datasets.simulated_tissue(n_cells=100, r2=1.0)
    np.testing.assert_array_equal(adata.X, adata.layers["noise_free"])


def test_counts_of_active_terms():
    adata = st.datasets.simulated_tissue(
        n_cells=200, n_targets=6, n_tfs=9, n_active_tfs=5, n_pairs=7, n_active_pairs=3, n_ligand_tf=4, rng=2
    )
    terms, betas = adata.uns["simulation"]["terms"], adata.obsm["true_betas"]
    assert betas.shape == (200, len(terms)) == (200, 6 * (1 + 9 + 7 + 4))
    np.testing.assert_array_equal(np.abs(betas).max(axis=0) > 0, terms["active"])
    n_active = terms[terms["active"]].groupby(["target", "kind"], observed=True).size().unstack()
    assert (n_active[["intercept", "tf", "lr", "tfl"]] == [1, 5, 3, 1]).all(axis=None)
    assert terms.query("target == 'PAX5' and kind == 'tf' and tf == 'FOXO1'")["active"].item()
    # fields vary within a cell type
    type_codes = adata.obs["cell_type"].cat.codes.to_numpy()
    active = betas[type_codes == 0][
        :, terms["active"] & (terms["kind"] != "intercept") & (terms["field"] != "constant")
    ]
    assert (active.std(axis=0) / np.abs(active).mean(axis=0) > 0.1).all()


def test_terms_have_the_house_format():
    from spacetravlr._anndata._modulators import build_design, terms_table

    adata = st.datasets.simulated_tissue(n_cells=60, n_relays=1)
    terms = adata.uns["simulation"]["terms"]
    again = terms_table(build_design(terms, adata.var_names))
    assert again.astype(str).equals(terms[again.columns].astype(str))


def test_symmetric_fields_mirror():
    adata = st.datasets.simulated_tissue(n_cells=900, fields="symmetric", rng=5)
    xy = adata.obsm["spatial"]
    centre = (xy[:, 0].max() + xy[:, 0].min()) / 2
    mirrored = np.column_stack([2 * centre - xy[:, 0], xy[:, 1]])
    nearest = np.linalg.norm(mirrored[:, None] - xy[None], axis=-1).argmin(axis=1)
    betas = adata.obsm["true_betas"][:, adata.uns["simulation"]["terms"]["kind"] != "intercept"]
    betas = betas[:, np.abs(betas).max(axis=0) > 0]
    correlation = [np.corrcoef(b, b[nearest])[0, 1] for b in betas.T]
    assert np.min(correlation) > 0.9


def test_constant_fields_are_constant():
    adata = st.datasets.simulated_tissue(n_cells=60, fields="constant")
    terms = adata.uns["simulation"]["terms"]
    assert np.ptp(adata.obsm["true_betas"][:, terms["kind"] != "intercept"], axis=0).max() == 0


def test_slides_do_not_talk():
    """What a cell receives is the same when the other slide is silent."""
    from spacetravlr.datasets._tissue import received

    rng = np.random.default_rng(0)
    xy, values = rng.uniform(0, 100, size=(60, 2)), rng.random((60, 2))
    slide = np.repeat([0, 1], 30)
    together = received(xy, values, radius=50, slide=slide, block=7)
    for s in (0, 1):
        alone = received(xy[slide == s], values[slide == s], radius=50, slide=np.zeros(30), block=64)
        np.testing.assert_allclose(together[slide == s], alone, rtol=1e-12)
    assert not np.allclose(together, received(xy, values, radius=50, slide=np.zeros(60)))


def test_reproducible():
    first, again, other = (st.datasets.simulated_tissue(n_cells=80, rng=r) for r in (4, np.random.default_rng(4), 5))
    np.testing.assert_array_equal(first.X, again.X)
    np.testing.assert_array_equal(first.obsm["true_betas"], again.obsm["true_betas"])
    assert not np.array_equal(first.X, other.X)


def test_geometry():
    adata = st.datasets.simulated_tissue(n_cells=500, n_cell_types=3, n_slides=2)
    assert adata.obs["slide"].nunique() == 2
    assert len(adata.uns["cell_type_colors"]) == 3
    for slide in adata.obs["slide"].unique():
        xy = adata[adata.obs["slide"] == slide].obsm["spatial"]
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag(np.full(len(xy), np.inf))
        assert distance.min() > 3
        assert 8 < np.median(distance.min(axis=1)) < 15
        assert 100 < np.ptp(xy, axis=0).prod() / len(xy) < 200
    assert st.datasets.simulated_tissue(n_cells=60, n_dims=3).obsm["spatial"].shape == (60, 3)


def test_dropout_and_truth_are_optional():
    kept = st.datasets.simulated_tissue(n_cells=300)
    lost = st.datasets.simulated_tissue(n_cells=300, dropout=0.3, keep_truth=False)
    assert "true_betas" not in lost.obsm
    assert "noise_free" not in lost.layers
    changed = kept.X != lost.X
    assert (lost.X[changed] == 0).all()
    assert changed.mean() == pytest.approx(0.3, abs=0.03)


def within(values, types):
    values = pd.DataFrame(values, dtype=float)
    return (values - values.groupby(types).transform("mean")).to_numpy()


@pytest.mark.parametrize(("depth", "expected"), [(0.17, 0.4), (1.0, 0.73), (7.0, 0.95)])
def test_counts_are_as_noisy_as_their_depth_says(depth, expected):
    adata = st.datasets.simulated_tissue(n_cells=2000, depth=depth, rng=1)
    counts, sizes = adata.layers["counts"].toarray(), adata.obs["size_factor"].to_numpy()[:, None]
    assert (counts == np.round(counts)).all()
    np.testing.assert_allclose(adata.X, np.log1p(counts / (sizes * depth)), rtol=1e-5)
    mean = depth * sizes * np.expm1(adata.layers["exact"])
    assert ((counts - mean) ** 2 / np.maximum(mean, 1e-9))[mean > 0.05].mean() == pytest.approx(1, abs=0.05)
    factors = (adata.var["role"] == "tf").to_numpy()
    types = adata.obs["cell_type"].to_numpy()
    measured, exact = (within(v[:, factors], types) for v in (adata.X, adata.layers["exact"]))
    correlation = (measured * exact).sum(0) / np.sqrt((measured**2).sum(0) * (exact**2).sum(0))
    assert correlation.mean() == pytest.approx(expected, abs=0.04)


def test_what_is_regulated_does_not_depend_on_how_it_is_measured():
    exact = st.datasets.simulated_tissue(n_cells=200, rng=3)
    measured = st.datasets.simulated_tissue(n_cells=200, depth=1.0, dispersion=0.2, spillover=0.1, rng=3)
    np.testing.assert_array_equal(measured.layers["exact"], exact.X)
    np.testing.assert_array_equal(measured.obsm["true_betas"], exact.obsm["true_betas"])


def test_spilled_molecules_come_from_neighbours_and_none_is_lost():
    tissues = [st.datasets.simulated_tissue(n_cells=900, depth=50.0, spillover=s, rng=4) for s in (0.0, 0.3)]
    own, spilled = (t.layers["counts"].toarray() / t.obs["size_factor"].to_numpy()[:, None] for t in tissues)
    assert spilled.sum() == pytest.approx(own.sum(), rel=0.05)
    assert (
        within(spilled, tissues[0].obs["cell_type"].to_numpy()).var()
        < 0.9 * within(own, tissues[0].obs["cell_type"].to_numpy()).var()
    )


def test_programs_and_bystanders():
    alone, together = (
        st.datasets.simulated_tissue(n_cells=1500, programs=share, n_bystanders=30, rng=5) for share in (0.0, 0.85)
    )
    types = alone.obs["cell_type"].to_numpy()
    genes = alone.var["role"].isin(["tf", "bystander"]).to_numpy()

    def shared(adata):
        correlations = np.corrcoef(within(adata.X[:, genes], types).T)
        return (correlations[np.triu_indices(len(correlations), 1)] ** 2).mean()

    assert (together.var["role"] == "bystander").sum() == 30
    assert shared(together) > 2 * shared(alone)


@pytest.mark.parametrize("kind", ["smooth", "domains", "tf", "ligand", "receptor", "own_ligand"])
def test_confounders_explain_what_regulators_do_not(kind):
    options = {"n_active_tfs": 0, "n_active_pairs": 0, "n_active_ligand_tf": 0, "n_targets": 3, "rng": 6}
    nothing = st.datasets.simulated_tissue(n_cells=1200, **options)
    adata = st.datasets.simulated_tissue(n_cells=1200, confounder=kind, **options)
    types = adata.obs["cell_type"].to_numpy()
    targets = (adata.var["role"] == "target").to_numpy()
    shares = [within(t.layers["noise_free"][:, targets], types).var(0) / within(t.X[:, targets], types).var(0)
              for t in (adata, nothing)]  # fmt: skip
    assert (shares[0] > 0.8).all()
    assert not adata.obsm["true_betas"][:, ~(adata.uns["simulation"]["terms"]["kind"] == "intercept").to_numpy()].any()
    for role, follows in (("receptor", "receptor"), ("ligand", "own_ligand")):
        genes = (adata.var["role"] == role).to_numpy()
        own = within(adata.X, types)
        along = np.corrcoef(own[:, genes].T, own[:, targets].T)[: genes.sum(), genes.sum() :]
        assert (np.abs(along).max() > 0.4) == (kind == follows)


@pytest.mark.filterwarnings("ignore:.*[Zz]arr:UserWarning")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(tmp_path, suffix):
    adata = st.datasets.simulated_tissue(n_cells=60, n_slides=2, depth=1.0)
    path = tmp_path / f"tissue.{suffix}"
    if suffix == "h5ad":
        adata.write_h5ad(path)
        back = ad.read_h5ad(path)
    else:
        adata.write_zarr(path)
        back = ad.read_zarr(path)
    np.testing.assert_array_equal(back.obsm["true_betas"], adata.obsm["true_betas"])
    for name in ("terms", "grn", "ligand_receptor", "ligand_tf"):
        left, right = back.uns["simulation"][name], adata.uns["simulation"][name]
        assert left.astype(str).equals(right.astype(str)), name
    assert back.uns["simulation"]["params"]["radius"] == 200


def test_priors():
    adata = st.datasets.simulated_tissue(n_cells=60)
    grn, pairs, ligand_tf = st.datasets.simulated_priors(adata)
    assert list(grn.columns) == ["tf", "target", "weight"]
    assert len(grn) == 12 * 14
    assert set(pairs["range"]) == {"secreted", "contact"}
    assert ligand_tf["score"].between(0.01, 1).all()
    # a ligand of both kinds, so that the two received signals are told apart
    assert pairs.groupby("ligand")["range"].nunique().max() == 2
    for names in (grn["tf"], grn["target"], pairs["ligand"], pairs["receptor"], ligand_tf["ligand"], ligand_tf["tf"]):
        assert names.isin(adata.var_names).all()
    grn.loc[:, "weight"] = 0
    assert (adata.uns["simulation"]["grn"]["weight"] > 0).all()
    with pytest.raises(KeyError, match="simulated_tissue"):
        st.datasets.simulated_priors(ad.AnnData(np.ones((2, 2))))


@pytest.mark.parametrize(
    "options",
    [
        {"fields": "other"},
        {"n_dims": 4},
        {"r2": 0},
        {"n_active_tfs": 15},
        {"n_relays": 12},
        {"dropout": 1.5},
        {"n_cells": 3},
        {"n_pairs": 10_000},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=f"Expected `{next(iter(options))}`|Expected at most .* pairs"):
        st.datasets.simulated_tissue(**options)


def test_many_pairs_and_types():
    adata = st.datasets.simulated_tissue(n_cells=60, n_pairs=140, n_cell_types=18, n_targets=120, n_tfs=110)
    assert adata.var_names.is_unique
    assert len(adata.uns["cell_type_colors"]) == 18
    pairs = adata.uns["simulation"]["ligand_receptor"]
    assert len(pairs) == 140
    assert not pairs.duplicated(["ligand", "receptor", "range"]).any()
