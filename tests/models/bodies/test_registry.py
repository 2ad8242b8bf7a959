"""The kinds of coefficients and the values of ``body=`` that fit them."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

import spacetravlr as st
from spacetravlr.models.bodies._inputs import BodyChoice
from spacetravlr.models.bodies._registry import BODIES, BODY_NAMES, bodies_of, choices, reads_functions


def test_every_value_of_body_is_offered():
    assert set(choices()) == set(get_args(BodyChoice))
    annotation = inspect.signature(st.tl.fit_betas).parameters["body"].annotation
    assert all(repr(choice) in annotation for choice in choices())


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("seed", ["zero", "seed"]),
        ("surface", ["zero", "seed", "surface"]),
        ("cnn", ["zero", "seed", "network"]),
        ("vit", ["zero", "seed", "network"]),
        ("pooled", ["zero", "pooled"]),
        ("auto", [name for name in BODY_NAMES if name != "pooled"]),
    ],
)
def test_bodies_of_a_choice(choice, names):
    assert [body.name for body in bodies_of(choice)] == names
    assert reads_functions(choice) == ("surface" in names or "pooled" in names)


def test_with_noise_only_bodies_that_know_of_it_are_offered():
    assert choices("poisson") == ("auto", "pooled")
    assert [body.name for body in bodies_of("auto", "poisson")] == ["zero", "pooled"]
    assert not bodies_of("surface", "poisson")


def test_a_body_comes_after_those_it_reads():
    for i, body in enumerate(BODIES):
        assert set(body.after) <= set(BODY_NAMES[:i])
