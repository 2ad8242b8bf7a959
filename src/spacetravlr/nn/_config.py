"""What a block of targets is trained on and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spacetravlr._types import Bools, Floats, Ints
from spacetravlr._validators import assert_in_range, assert_non_negative, assert_one_of, assert_positive

Images: TypeAlias = Floats | Callable[[Ints], Floats]
Body = Literal["cnn", "vit"]
Mode = Literal["additive", "multiplicative"]
Encoder = Literal["shared", "per_target"]
Precision = Literal["auto", "64-true", "32-true", "bf16-mixed"]
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class NicheData:
    """Input of a body for every cell: all that is needed to evaluate trained coefficients on any section."""

    images: Images
    """Niche images, shape (n_cells, n_cell_types, m, m), or a function from cell indices to those cells' images."""
    composition: Floats
    """Cells of each type in the niche, shape (n_cells, n_cell_types)."""
    position: Floats
    """Coordinates, shape (n_cells, 2) or (n_cells, 3), in any unit."""
    cell_type: Ints
    """Code of each cell's type, shape (n_cells,)."""
    place: Floats | None = field(default=None, kw_only=True)
    """Position features to use in place of those of ``position``, shape (n_cells, n_features)."""

    def __post_init__(self) -> None:
        n, n_types = self.composition.shape
        _assert_shape(self.cell_type, (n,), name="cell_type")
        if self.position.ndim != 2 or self.position.shape[0] != n or self.position.shape[1] not in (2, 3):
            msg = f"Expected `position` to have shape ({n}, 2) or ({n}, 3), found `{self.position.shape}`."
            raise ValueError(msg)
        if n and not 0 <= int(self.cell_type.min()) <= int(self.cell_type.max()) < n_types:
            msg = f"Expected `cell_type` to hold codes below {n_types}, found `{int(self.cell_type.max())}`."
            raise ValueError(msg)
        if not callable(self.images):
            image_shape = self.images.shape
            if len(image_shape) != 4 or image_shape[:2] != (n, n_types):
                msg = f"Expected `images` to have shape ({n}, {n_types}, m, m), found `{image_shape}`."
                raise ValueError(msg)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.composition.shape[0]

    def image_batch(self, cells: Ints) -> NDArray[np.float32]:
        """Images of ``cells``, shape (len(cells), n_cell_types, m, m)."""
        images = self.images(cells) if callable(self.images) else self.images[cells]
        return np.ascontiguousarray(images, dtype=np.float32)


@dataclass(frozen=True)
class BlockData(NicheData):
    """A block of targets: regressors, responses, seed coefficients and the split of the cells."""

    design: Floats
    """Values of the distinct terms, standardised, shape (n_cells, n_terms)."""
    term_index: Ints
    """Columns of ``design`` that each target uses, padded with -1, shape (n_targets, max_terms)."""
    y: Floats
    """Responses, standardised for each target, shape (n_cells, n_targets)."""
    anchors: Floats
    """Seed coefficients, intercept first, shape (n_targets, n_cell_types, max_terms + 1)."""
    train: Bools
    """Cells whose error is minimised, shape (n_cells,)."""
    validation: Bools
    """Cells for early stopping of each target, shape (n_cells,); cells in neither set are only predicted."""
    group: Ints
    """Group code of each target's terms for the group penalty, padded with -1, shape (n_targets, max_terms)."""
    seeds: NDArray[np.uint64]
    """One random seed per target, shape (n_targets,)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n, n_types = self.composition.shape
        n_targets, n_terms = self.term_index.shape
        _assert_shape(self.design, (n, self.design.shape[-1]), name="design")
        _assert_shape(self.y, (n, n_targets), name="y")
        _assert_shape(self.anchors, (n_targets, n_types, n_terms + 1), name="anchors")
        _assert_shape(self.group, (n_targets, n_terms), name="group")
        _assert_shape(self.train, (n,), name="train")
        _assert_shape(self.validation, (n,), name="validation")
        _assert_shape(self.seeds, (n_targets,), name="seeds")
        if n_terms and int(self.term_index.max()) >= self.design.shape[1]:
            msg = f"Expected `term_index` to be below {self.design.shape[1]}, found `{int(self.term_index.max())}`."
            raise ValueError(msg)
        for name in ("train", "validation"):
            if not getattr(self, name).any():
                msg = f"Expected `{name}` to select at least one cell, found `0`."
                raise ValueError(msg)
        if (self.train & self.validation).any():
            msg = "Expected `train` and `validation` to share no cell, found `some in both`."
            raise ValueError(msg)

    @property
    def n_targets(self) -> int:
        """Number of targets in the block."""
        return self.term_index.shape[0]


@dataclass(frozen=True)
class NetworkConfig:
    """Settings of the networks in a fit; the defaults were chosen on held-out blocks of simulated tissue."""

    body: Body | None = None
    """The network that reads the niche; defaults to the ``body`` of the fit, otherwise ``"cnn"``."""
    mode: Mode = "additive"
    """``"additive"``: seed coefficient + delta; ``"multiplicative"``: seed coefficient x gate."""
    encoder: Encoder = "shared"
    """``"shared"``: one body for the block; ``"per_target"``: independent bodies, one per target."""
    n_epochs: int = 60
    """Maximum number of epochs."""
    batch_size: int = 256
    """Cells per minibatch."""
    max_steps_per_epoch: int = 24
    """Maximum number of minibatches per epoch; with many cells, batches become larger instead of more numerous."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW; it decays to zero on a cosine schedule."""
    weight_decay: float = 1e-2
    """Decoupled weight decay of the bodies."""
    shrinkage: float = 0.6
    """Shrinkage towards the seed: weight of the norm of each term's departure, divided by the square root of the number
    of training cells."""
    group_penalty: float = 5e-2
    """Weight of the group penalty on coefficients that the seed removed (additive mode)."""
    patience: int = 15
    """Number of epochs without a lower validation error after which a target stops."""
    clip: float = 1.0
    """Maximum gradient norm per target."""
    n_frequencies: int = 5
    """Highest spatial frequency of the position features; with 0 the network ignores position."""
    width: int = 16
    """Number of niche features that the body learns."""
    image_size: int = 8
    """Side of the niche image after pooling, in pixels."""
    cache_bytes: int = 512 * 2**20
    """Pooled images are kept between epochs if they take less memory than this."""
    precision: Precision = "auto"
    """Training precision. ``"auto"`` is single for ``"shared"`` and double for ``"per_target"``: training amplifies
    rounding errors, which depend on how many targets are computed together; in double precision they are negligible."""
    device: Device = "auto"
    """Device on which networks are trained and evaluated; ``"auto"`` uses a GPU if there is one."""
    trainer_kwargs: Mapping[str, Any] | None = None
    """Passed to :class:`lightning.pytorch.Trainer`. By default nothing is logged, and no checkpoint or folder is
    written."""

    def __post_init__(self) -> None:
        assert_one_of(self.body, ("cnn", "vit", None), name="body")
        assert_one_of(self.device, ("auto", "cpu", "cuda", "mps"), name="device")
        assert_one_of(self.mode, ("additive", "multiplicative"), name="mode")
        assert_one_of(self.encoder, ("shared", "per_target"), name="encoder")
        assert_one_of(self.precision, ("auto", "64-true", "32-true", "bf16-mixed"), name="precision")
        for name in ("n_epochs", "batch_size", "max_steps_per_epoch", "learning_rate", "patience", "clip", "width"):
            assert_positive(getattr(self, name), name=name)
        for name in ("weight_decay", "shrinkage", "group_penalty", "n_frequencies", "cache_bytes"):
            assert_non_negative(getattr(self, name), name=name)
        assert_in_range(self.image_size, 4, 64, name="image_size")

    @property
    def architecture(self) -> Body:
        """The network that reads the niche."""
        return self.body or "cnn"

    def assert_device(self) -> None:
        """Raise ``ValueError`` if the device is not on this machine."""
        import torch

        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not there.get(self.device, True):
            msg = (
                f"Expected `device` to be available on this machine, found `{self.device!r}`; use device='auto' or "
                "'cpu'."
            )
            raise ValueError(msg)

    def model_settings(self) -> dict[str, Any]:
        """Settings on which trained weights depend, as plain values: all except the device and the trainer."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("device", "trainer_kwargs")}
        return out | {"body": self.architecture}

    def plain(self) -> dict[str, Any]:
        """All settings as plain values.

        Objects passed to the trainer (callbacks, loggers) are replaced with the names of their types, because their
        printed form differs between processes.
        """
        simple = (str, int, float, bool)
        trainer = {
            key: value if isinstance(value, simple) else type(value).__qualname__
            for key, value in sorted((self.trainer_kwargs or {}).items())
        }
        return self.model_settings() | {"device": self.device, "trainer_kwargs": trainer}


def _assert_shape(array: NDArray[Any], shape: tuple[int, ...], *, name: str) -> None:
    if array.shape != shape:
        msg = f"Expected `{name}` to have shape {shape}, found `{array.shape}`."
        raise ValueError(msg)
