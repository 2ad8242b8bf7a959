"""Loops in vector registers are used where they can be made, plain ones elsewhere."""

from __future__ import annotations

import importlib.util

import pytest

from spacetravlr._core.linalg import registers

USERS = {
    "spacetravlr._core.linalg.sparse_dot": ["bounded_dots"],
    "spacetravlr._core.signals.gather_scatter": ["sum_rows_exactly", "sum_runs", "add_to_runs"],
}


@pytest.mark.parametrize("name", ["VectorType", "IRBuilder", "Constant"])
def test_another_llvmlite_is_noticed(name, monkeypatch):
    assert registers.usable()
    monkeypatch.delattr(registers.ir, name)
    assert not registers.usable()


@pytest.mark.parametrize("module", USERS)
@pytest.mark.parametrize("usable", [False, True])
def test_plain_loops_take_their_place(module, usable, monkeypatch):
    monkeypatch.setattr(registers, "usable", lambda: usable)
    spec = importlib.util.find_spec(module)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    for name in USERS[module]:
        assert getattr(fresh, name) is getattr(fresh, f"_{name}_{'in_registers' if usable else 'plainly'}")
