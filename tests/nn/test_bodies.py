"""Bodies: one call signature, embeddings that belong to the cell alone."""

from __future__ import annotations

import inspect

import pytest
import torch

from spacetravlr.nn import CellularNicheNetwork, CellularViT
from spacetravlr.nn._features import PositionFeatures
from spacetravlr.nn._stack import BodyStack

BODIES = [CellularNicheNetwork, CellularViT]


def inputs(n=5, n_types=3, n_dims=2, side=16):
    g = torch.Generator().manual_seed(0)
    image = torch.rand(n, n_types, side, side, generator=g)
    return image, image.sum((2, 3)), torch.rand(n, n_dims, generator=g), torch.arange(n) % n_types


def test_bodies_share_one_call_signature():
    cnn, vit = (inspect.signature(body.forward) for body in BODIES)
    assert cnn == vit
    assert inspect.signature(CellularNicheNetwork.__init__) == inspect.signature(CellularViT.__init__)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("side", [8, 16, 21])
def test_embedding_has_the_announced_shape(body, n_dims, side):
    network = body(n_cell_types=3, n_dims=n_dims, width=6)
    embedding = network(*inputs(n_dims=n_dims, side=side))
    assert embedding.shape == (5, network.n_features)
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize("body", BODIES)
def test_embedding_of_a_cell_does_not_depend_on_its_batch(body):
    network = body(n_cell_types=3)
    data = inputs()
    torch.testing.assert_close(network(*data)[:2], network(*(value[:2] for value in data)))


@pytest.mark.parametrize("body", BODIES)
def test_image_position_and_type_are_read(body):
    network = body(n_cell_types=3)
    network.reset_parameters(torch.Generator().manual_seed(1))
    data = list(inputs())
    before = network(*data)
    for i, changed in [(0, data[0].flip(-1)), (1, data[1] + 9), (2, data[2].flip(0)), (3, data[3].roll(1))]:
        after = network(*data[:i], changed, *data[i + 1 :])
        assert (after - before).abs().max() > 1e-4


@pytest.mark.parametrize("body", BODIES)
def test_without_frequencies_position_makes_no_difference(body):
    network = body(n_cell_types=3, n_frequencies=0)
    image, composition, position, cell_type = inputs()
    before = network(image, composition, position, cell_type)
    torch.testing.assert_close(network(image, composition, position * 7 + 1, cell_type), before)


def test_position_features_by_hand():
    features = PositionFeatures(2, 1)
    features.set_scale(torch.tensor([[10.0, 0.0], [30.0, 10.0]]))  # the longest side, 20, has length one
    found = features(torch.tensor([[10.0, 0.0], [20.0, 10.0], [30.0, 5.0]]))
    amplitude = 2 / (4 / 3) ** 1.5
    # Modes (0, 1) and (1, 0) at (0, 0), (1/2, 1/2) and (1, 1/4) of the box.
    expected = amplitude * torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5**0.5, -1.0]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_position_features_ignore_shift_and_unit():
    position = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    features, other = PositionFeatures(3, 3), PositionFeatures(3, 3)
    features.set_scale(position)
    other.set_scale(position * 50 + 3)
    torch.testing.assert_close(features(position), other(position * 50 + 3), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("body", BODIES)
def test_stack_is_its_bodies_one_by_one(body):
    bodies = [body(n_cell_types=3, width=6) for _ in range(3)]
    for i, network in enumerate(bodies):
        network.reset_parameters(torch.Generator().manual_seed(i))
    data = inputs()
    stacked = BodyStack(bodies)(*data)
    for i, network in enumerate(bodies):
        torch.testing.assert_close(stacked[i], network(*data).T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(BodyStack(bodies[1:2])(*data)[0], stacked[1], atol=1e-5, rtol=1e-5)
