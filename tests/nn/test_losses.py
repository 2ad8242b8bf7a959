"""Loss terms and heads on cases solved by hand."""

from __future__ import annotations

import pytest
import torch

from spacetravlr.nn import _losses
from spacetravlr.nn._heads import CoefficientHeads
from spacetravlr.nn._module import clip_by_target


def test_squared_error_is_a_mean_over_cells_for_each_target():
    residual = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    change = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(_losses.squared_error(residual, change), torch.tensor([2.0, 5.0]))


def test_shrinkage_sums_the_norms_of_the_heads():
    weight = torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 2.0], [6.0, 8.0]]])
    found = _losses.shrinkage(weight, torch.tensor([[1.0, 1.0], [0.5, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([5.0, 21.0]), atol=0.05, rtol=0)
    assert _losses.shrinkage(torch.zeros(1, 2, 2), torch.ones(())) == 0


def test_group_penalty_weighs_each_group_by_the_root_of_its_size():
    # The intercept is in no group, terms 1 and 2 in group 0, term 3 in group 1 and removed in a quarter of cells.
    membership = torch.tensor([[[0.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 0.25]]])
    mean_square = torch.tensor([[100.0, 9.0, 16.0, 4.0]])
    expected = 2**0.5 * 5 + 0.25**0.5 * 1
    assert _losses.group_penalty(mean_square, membership).item() == pytest.approx(expected, abs=0.05)
    assert _losses.group_penalty(torch.zeros(1, 4), membership).item() == 0


def test_removed_membership_counts_the_cells_of_types_without_the_term():
    anchors = torch.tensor([[[1.0, 0.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])  # one target, two types, three terms
    found = _losses.removed_membership(anchors, torch.tensor([[0, 1, -1]]), torch.tensor([0.3, 0.7]))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.7, 0.0]]]))


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
def test_untrained_heads_give_the_anchors_exactly(mode):
    anchors = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    heads = CoefficientHeads(anchors, n_features=5, mode=mode)
    cell_type = torch.tensor([0, 2, 1, 1])
    found = heads.coefficients(torch.randn(2, 5, 4), cell_type)
    assert torch.equal(found, anchors[:, cell_type].transpose(1, 2))


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("n_bodies", [1, 2])
def test_predicted_change_is_that_of_the_coefficients(mode, n_bodies):
    g = torch.Generator().manual_seed(0)
    heads = CoefficientHeads(torch.randn(2, 3, 4, generator=g), n_features=5, mode=mode)
    heads.weight.data.copy_(torch.randn(2, 4, 5, generator=g))
    embedding, values = torch.randn(n_bodies, 5, 7, generator=g), torch.randn(2, 4, 7, generator=g)
    cell_type = torch.arange(7) % 3
    departure = heads.coefficients(embedding, cell_type) - heads.anchor_of(cell_type)
    expected = (departure * values).sum(1)
    torch.testing.assert_close(heads.predicted_change(embedding, values, cell_type), expected, atol=1e-5, rtol=1e-5)
    if mode == "additive":
        expected = departure.square().mean(-1)
        torch.testing.assert_close(heads.mean_square_departure(embedding), expected, atol=1e-5, rtol=1e-5)


def test_gate_keeps_signs_and_removed_terms():
    anchors = torch.tensor([[[1.0, -2.0, 0.0]]])
    heads = CoefficientHeads(anchors, n_features=1, mode="multiplicative")
    heads.weight.data.fill_(1.0)
    found = heads.coefficients(torch.tensor([[[-30.0, -1.0, 0.0, 2.0]]]), torch.zeros(4, dtype=torch.long))[0]
    gate = torch.tensor([0.0, torch.e**-1, 1.0, 3.0])
    torch.testing.assert_close(found, torch.stack([gate, -2 * gate, 0 * gate]))


def test_clipping_is_by_target_over_all_weights():
    a, b = torch.nn.Parameter(torch.zeros(2, 1)), torch.nn.Parameter(torch.zeros(2, 1, 1))
    a.grad, b.grad = torch.tensor([[3.0], [0.3]]), torch.tensor([[[4.0]], [[0.4]]])
    clip_by_target([a, b], limit=1.0)
    torch.testing.assert_close(a.grad, torch.tensor([[0.6], [0.3]]))
    torch.testing.assert_close(b.grad, torch.tensor([[[0.8]], [[0.4]]]))
