"""Which terms are called: families of tests, targets without a model, and bodies that know no errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spacetravlr._core.inference.fdr import benjamini_hochberg
from spacetravlr.models.fit._called import call_terms

KINDS = ["intercept", "tf", "lr", "receptor"]


def tables(p, kept=("pooled", "pooled")):
    """Two targets of three terms each, in two cell types."""
    terms = pd.DataFrame({"target": np.repeat(["A", "B"], 4), "kind": KINDS * 2})
    terms["p"] = p
    terms["p_varies"] = p
    for name in ("se", "low", "high", "p"):
        terms[name] = terms.get("p") if name == "p" else 0.1
        for c in range(2):
            terms[f"{name}_{c}"] = p
    terms["importance"], terms["active"] = 1.0, False
    scores = pd.DataFrame(
        {"target": ["A", "A", "B", "B"], "cell_type": [0, 1, 0, 1], "kept": np.repeat(kept, 2).tolist()}
    )
    return terms, scores


P = np.array([np.nan, 0.001, 0.04, 0.5, np.nan, 0.2, 0.03, 0.02])


def test_claims_and_adjustment_are_families_of_their_own():
    terms, by_type = call_terms(*tables(P), ["x", "y"], 0.1)
    claims = [1, 2, 5, 6]
    np.testing.assert_allclose(terms["q"].to_numpy()[claims], benjamini_hochberg(P[claims]))
    np.testing.assert_allclose(terms["q"].to_numpy()[[3, 7]], benjamini_hochberg(P[[3, 7]]))
    np.testing.assert_array_equal(terms["active"], [False, True, True, False, False, False, True, True])
    assert not any(c.endswith(("_0", "_1")) for c in terms.columns)
    assert by_type is not None
    assert by_type["se"].shape == (8, 2)
    assert list(by_type["cell_types"]) == ["x", "y"]
    # a family holds the tests of all types
    np.testing.assert_allclose(by_type["q"][claims], benjamini_hochberg(np.stack([P[claims]] * 2, axis=1)), rtol=1e-6)


def test_a_stricter_rate_calls_fewer():
    terms, _ = call_terms(*tables(P), ["x", "y"], 0.01)
    assert terms["active"].sum() == 1


def test_nothing_is_claimed_of_a_target_without_a_model():
    terms, by_type = call_terms(*tables(P, kept=("zero", "pooled")), ["x", "y"], 0.1)
    assert (terms["q"].to_numpy()[1:4] == 1).all()
    assert not terms["active"].to_numpy()[1:4].any()
    # but its tests count
    assert terms["q"].to_numpy()[6] == pytest.approx(benjamini_hochberg(P[[1, 2, 5, 6]])[3])
    assert by_type is not None
    assert (by_type["q"][1:4] == 1).all()


def test_bodies_without_errors_call_as_they_do():
    terms, scores = tables(P)
    terms = terms[["target", "kind", "importance"]].assign(active=[True, False] * 4)
    same, by_type = call_terms(terms, scores, ["x", "y"], 0.1)
    assert by_type is None
    pd.testing.assert_frame_equal(same, terms)
