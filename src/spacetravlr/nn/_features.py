"""The parts that both bodies share: scaling, position features and the wide-and-deep embedding."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

# Small factors delay a part of the network: position and composition are fitted first, the image, which overfits most
# easily, last; early stopping then keeps only what the image adds.
_IMAGE_WEIGHT = 0.3
_DEEP_WEIGHT = 0.5


class PositionFeatures(nn.Module):
    r"""Low-frequency Fourier features of position.

    .. math:: \phi_k(s) = 2 (1 + |k|^2 / 3)^{-3/2} \prod_a \cos(\pi k_a \tilde s_a), \qquad 0 < |k|^2 \le F^2

    with :math:`\tilde s` the position scaled to the unit box of the tissue. Cosine modes are the Fourier basis of a
    non-periodic box, so opposite borders of the tissue are not connected. Features of low frequency are larger and are
    learned first, so early stopping yields a smooth field.

    Parameters
    ----------
    n_dims
        Number of coordinates, 2 or 3.
    n_frequencies
        The highest frequency F; 0 gives no features.
    """

    low: Tensor
    span: Tensor
    frequency: Tensor
    amplitude: Tensor

    def __init__(self, n_dims: int, n_frequencies: int) -> None:
        super().__init__()
        modes = product(range(n_frequencies + 1), repeat=n_dims)
        grid = [k for k in modes if 0 < sum(i * i for i in k) <= n_frequencies**2]
        frequency = torch.tensor(grid, dtype=torch.float32).reshape(len(grid), n_dims)
        self.register_buffer("low", torch.zeros(n_dims))
        self.register_buffer("span", torch.ones(()))
        self.register_buffer("frequency", frequency)
        self.register_buffer("amplitude", 2.0 / (1.0 + frequency.square().sum(-1) / 3.0) ** 1.5)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.frequency.shape[0]

    def set_scale(self, position: Tensor) -> None:
        """Take the box that holds ``position``; its longest side has length one."""
        self.low = position.amin(0)
        self.span = (position.amax(0) - self.low).amax().clamp_min(torch.finfo(torch.float32).tiny)

    def forward(self, position: Tensor) -> Tensor:
        """Features of ``position``, shape (batch, n_features)."""
        unit = (position - self.low) / self.span
        return torch.cos(torch.pi * unit[:, None, :] * self.frequency).prod(-1) * self.amplitude


class NicheBody(nn.Module):
    """Base class of bodies: maps the niche image, composition, position and type of a cell to an embedding.

    The embedding is wide and deep: ``[1, cell type, position features, learned features]``. With the wide part, linear
    heads can express smooth fields and corrections of the seed directly; the deep part adds dependence on the niche. No
    layer mixes cells, so the embedding of a cell never depends on its batch.

    Parameters
    ----------
    n_cell_types
        Channels of the image and entries of the composition.
    n_dims
        Number of coordinates, 2 or 3.
    n_frequencies
        Highest frequency of the position features; 0 switches position off.
    width
        Learned features.
    image_size
        Images are pooled to this many pixels per side.
    """

    image_mean: Tensor
    image_scale: Tensor
    composition_mean: Tensor
    composition_scale: Tensor

    def __init__(
        self,
        *,
        n_cell_types: int,
        n_dims: int = 2,
        n_frequencies: int = 5,
        width: int = 16,
        image_size: int = 8,
    ) -> None:
        super().__init__()
        self.n_cell_types, self.width, self.image_size = n_cell_types, width, image_size
        self.position_features = PositionFeatures(n_dims, n_frequencies)
        for name in ("image", "composition"):
            self.register_buffer(f"{name}_mean", torch.zeros(n_cell_types))
            self.register_buffer(f"{name}_scale", torch.ones(n_cell_types))
        self.image_encoder = self._build_image_encoder()
        n_inputs = width + 2 * n_cell_types + self.position_features.n_features
        self.trunk = nn.Sequential(nn.Linear(n_inputs, 2 * width), nn.SiLU(), nn.Linear(2 * width, width), nn.Tanh())

    def _build_image_encoder(self) -> nn.Module:
        raise NotImplementedError

    @property
    def n_features(self) -> int:
        """Length of the embedding."""
        return 1 + self.n_cell_types + self.position_features.n_features + self.width

    def pool(self, image: Tensor) -> Tensor:
        """Average ``image`` down to ``image_size`` pixels per side; density is kept, smaller images are unchanged."""
        return functional.adaptive_avg_pool2d(image, self.image_size) if image.shape[-1] != self.image_size else image

    def prepare(self, image: Tensor) -> Tensor:
        """Pool images and standardise their logarithm, as input for the encoder."""
        image = torch.log1p(self.pool(image))
        image = (image - self.image_mean[:, None, None]) / self.image_scale[:, None, None]
        return image.contiguous(memory_format=torch.channels_last)  # convolutions of few channels run twice as fast

    def set_scales(self, image: Tensor, composition: Tensor, position: Tensor) -> None:
        """Standardise the inputs by the mean and spread of these cells (the training cells)."""
        log_image, log_composition = torch.log1p(self.pool(image)), torch.log1p(composition)
        self.image_mean, self.image_scale = log_image.mean((0, 2, 3)), _spread(log_image.transpose(0, 1).flatten(1).T)
        self.composition_mean, self.composition_scale = log_composition.mean(0), _spread(log_composition)
        self.position_features.set_scale(position)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the weights from ``generator``, so that no global random state is read or changed."""
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if parameter.ndim > 1:
                    fan_in = parameter[0].numel()
                    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                    parameter.copy_(drawn / fan_in**0.5)
                else:
                    parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    def forward(
        self,
        image: Tensor,
        composition: Tensor,
        position: Tensor,
        cell_type: Tensor,
        place: Tensor | None = None,
        *,
        prepared: bool = False,
    ) -> Tensor:
        """Embed cells.

        Parameters
        ----------
        image
            Niche images, shape (batch, n_cell_types, m, m).
        composition
            Niche composition, shape (batch, n_cell_types).
        position
            Coordinates, shape (batch, 2 or 3).
        cell_type
            Code of each cell's type, shape (batch,).
        place
            Position features to use in place of those of ``position``, shape (batch, n position features).
        prepared
            Whether :meth:`prepare` made ``image``.

        Returns
        -------
        Embedding, shape (batch, n_features).
        """
        image = image if prepared else self.prepare(image)
        niche = (torch.log1p(composition) - self.composition_mean) / self.composition_scale
        one_hot = functional.one_hot(cell_type, self.n_cell_types).to(image.dtype)
        place = self.position_features(position) if place is None else place
        seen = _IMAGE_WEIGHT * self.image_encoder(image)
        deep = _DEEP_WEIGHT * self.trunk(torch.cat([seen, niche, one_hot, place], dim=1))
        return torch.cat([torch.ones_like(deep[:, :1]), one_hot, place, deep], dim=1)


def _spread(values: Tensor) -> Tensor:
    """Take the standard deviation of each column, 1 where a column does not vary: it stays at zero when centred."""
    spread = values.std(0, unbiased=False)
    return torch.where(spread > 1e-6, spread, torch.ones_like(spread))
