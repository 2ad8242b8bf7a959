"""The two bodies that read a niche image: a convolutional network and a vision transformer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from spacetravlr.nn._features import NicheBody


class CellularNicheNetwork(NicheBody):
    """Convolutional body.

    Two small convolutions with pooling between them, followed by one linear layer over the remaining image. The output
    therefore depends on where in the niche a cell type lies, not only on its amount.

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

    def _build_image_encoder(self) -> nn.Module:
        channels, side = 8, self.image_size // 2
        return nn.Sequential(
            nn.Conv2d(self.n_cell_types, channels, 3, padding=1),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(channels * side * side, self.width),
        )


class CellularViT(NicheBody):
    """Vision-transformer body, with the call signature of :class:`CellularNicheNetwork`.

    The image is cut into 4 x 4 square patches. Each patch is a token with a learned position embedding. One block of
    self-attention mixes the tokens, and their mean is the feature vector of the image.

    Parameters
    ----------
    n_cell_types
        Channels of the image and entries of the composition.
    n_dims
        Number of coordinates, 2 or 3.
    n_frequencies
        Highest frequency of the position features; 0 switches position off.
    width
        Learned features; also the width of the tokens.
    image_size
        Images are pooled to this many pixels per side.
    """

    def _build_image_encoder(self) -> nn.Module:
        return _PatchTransformer(self.n_cell_types, self.width, self.image_size)


class _PatchTransformer(nn.Module):
    """Patches to tokens, one block of attention and a feed-forward layer, mean over tokens."""

    def __init__(self, n_channels: int, width: int, image_size: int) -> None:
        super().__init__()
        patch = max(1, image_size // 4)
        self.embed = nn.Conv2d(n_channels, width, patch, stride=patch)
        self.place = nn.Parameter(torch.zeros((image_size // patch) ** 2, width))
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, image: Tensor) -> Tensor:
        token = self.embed(image).flatten(2).transpose(1, 2) + self.place
        # Written out: the fused attention kernels have no batching rule for independent bodies on every device.
        query, key, value = self.qkv(self.attention_norm(token)).chunk(3, dim=-1)
        weight = torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, dim=-1)
        token = token + self.mix(weight @ value)
        return cast("Tensor", (token + self.feed(self.feed_norm(token))).mean(1))


BODIES: dict[str, type[NicheBody]] = {"cnn": CellularNicheNetwork, "vit": CellularViT}
