"""Minibatches of a block: images streamed or kept, regressors gathered on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spacetravlr._types import Floats, Ints
from spacetravlr.nn._config import BlockData, NetworkConfig, NicheData

_SCHEDULE_SEED = 20260117
_CHUNK = 4096
_STEP_CELLS = 2000
# Share of the residual below which targets of simulated tissue lie; those of real sections are far above.
_REACH = 0.0125


class Batch(NamedTuple):
    """Cells of one step; cells are the last axis of the regressors and responses."""

    image: Tensor
    composition: Tensor
    position: Tensor
    cell_type: Tensor
    design: Tensor
    """Distinct terms, then a row of ones (intercept) and a row of zeros (padding), shape (n_terms + 2, batch)."""
    residual: Tensor
    """Response minus the seed's prediction, shape (n_targets, batch)."""


def term_rows(term_index: Ints, n_terms: int) -> Ints:
    """Rows of :attr:`Batch.design` for each target, intercept first, shape (n_targets, max_terms + 1)."""
    rows = np.where(term_index < 0, n_terms + 1, term_index)
    return np.concatenate([np.full((len(rows), 1), n_terms), rows], axis=1).astype(np.int64)


def gather_terms(design: Tensor, rows: Tensor) -> Tensor:
    """Regressors of every target, shape (n_targets, max_terms + 1, batch)."""
    # copies whole rows, where indexing would go by element
    return design.index_select(0, rows.flatten()).unflatten(0, rows.shape)


def with_constants(design: Floats) -> Floats:
    """Terms as rows, then a row of ones (intercept) and a row of zeros (padding), float32, (n_terms + 2, n_cells)."""
    rows = np.zeros((design.shape[1] + 2, len(design)), dtype=np.float32)
    rows[:-2] = design.T
    rows[-2] = 1.0
    return rows


def pooled_images(data: NicheData, cells: Ints, *, image_size: int) -> Tensor:
    """Images of ``cells`` averaged down to ``image_size`` pixels per side, read in chunks."""
    size = (image_size, image_size)
    chunks = [cells[start : start + _CHUNK] for start in range(0, len(cells), _CHUNK)]
    return torch.cat([functional.adaptive_avg_pool2d(torch.from_numpy(data.image_batch(c)), size) for c in chunks])


def seed_residual(data: BlockData) -> Floats:
    """Response minus the seed's prediction, shape (n_targets, n_cells), summed in float64."""
    rows = term_rows(data.term_index, data.design.shape[1])
    design = np.concatenate(
        [data.design, np.ones((data.n_cells, 1)), np.zeros((data.n_cells, 1))], axis=1, dtype=np.float64
    )
    residual = data.y.T.astype(np.float64)
    for code in np.unique(data.cell_type):
        cells = np.flatnonzero(data.cell_type == code)
        of_type = design[cells]
        for t in range(data.n_targets):
            anchor = data.anchors[t, code].astype(np.float64)
            used = np.flatnonzero(anchor)
            residual[t, cells] -= of_type[:, rows[t, used]] @ anchor[used]
    return residual.astype(np.float32)


def relative_steps(data: BlockData, residual: Floats) -> NDArray[np.float32]:
    """Step size of each target's heads, as a share of the learning rate, shape (n_targets,).

    Adam moves every weight by the same amount. With correlated terms (hundreds of genes in smoothed sections) these
    steps add up. If the seed leaves little to explain, the sum exceeds the residual and the error grows from the first
    epoch. Targets whose steps are small compared with their residual keep the full learning rate.
    """
    cells = np.flatnonzero(data.train)
    cells = cells[np.linspace(0, len(cells) - 1, min(_STEP_CELLS, len(cells)), dtype=int)]
    steps = np.ones(data.n_targets, dtype=np.float32)
    for t, columns in enumerate(data.term_index):
        terms = data.design[np.ix_(cells, columns[columns >= 0])].astype(np.float64)
        if terms.shape[1]:
            # largest change of the prediction, over cells, by moves of unit size of all weights
            reach = np.sqrt(terms.shape[1] * np.linalg.eigvalsh(terms.T @ terms / len(cells))[-1])
            left = np.sqrt(np.mean(residual[t, cells].astype(np.float64) ** 2))
            steps[t] = min(1.0, left / max(_REACH * reach, np.finfo(np.float32).tiny))
    return steps


class RefinementData(pl.LightningDataModule):
    """The cells of a block in minibatches.

    The order of cells in an epoch is a fixed function of the epoch, so it cannot depend on the block of a target.

    Parameters
    ----------
    data
        The block.
    config
        Settings of the refinement.
    """

    def __init__(self, data: BlockData, config: NetworkConfig) -> None:
        super().__init__()
        self.data, self.config = data, config
        self.residual = seed_residual(data)
        self.steps = relative_steps(data, self.residual)
        self.train_cells, self.validation_cells = np.flatnonzero(data.train), np.flatnonzero(data.validation)
        self.batch_size = max(config.batch_size, -(-len(self.train_cells) // config.max_steps_per_epoch))
        self._cached = self._cache_images()
        self._prepare: Callable[[Tensor], Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Minibatches in one pass over the training cells."""
        return -(-len(self.train_cells) // self.batch_size)

    def train_dataloader(self) -> _Stream:
        """Minibatches of training cells, shuffled anew in every epoch."""
        return _Stream(self, self.train_cells, self.batch_size, shuffle=True)

    def val_dataloader(self) -> _Stream:
        """Minibatches of validation cells, in order."""
        return _Stream(self, self.validation_cells, max(self.batch_size, 512), shuffle=False)

    def batch(self, cells: Ints) -> Batch:
        """Assemble the minibatch of ``cells``."""
        data = self.data
        return Batch(
            image=self._images(cells),
            composition=_tensor(data.composition[cells]),
            position=_tensor(data.position[cells]),
            cell_type=torch.from_numpy(data.cell_type[cells].astype(np.int64)),
            design=torch.from_numpy(with_constants(data.design[cells])),
            residual=_tensor(self.residual[:, cells]),
        )

    def sample(self, n_cells: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images and composition of training cells spread over the list, and all positions: the scale of the inputs."""
        n_train = len(self.train_cells)
        cells = self.train_cells[np.linspace(0, n_train - 1, min(n_cells, n_train), dtype=int)]
        return self._images(cells), _tensor(self.data.composition[cells]), _tensor(self.data.position)

    def prepare_images(self, prepare: Callable[[Tensor], Tensor]) -> None:
        """From now on, return images as processed by ``prepare``."""
        self._prepare = prepare
        if self._cached is not None:
            self._cached = torch.cat([prepare(part) for part in self._cached.split(_CHUNK)])

    def _images(self, cells: Ints) -> Tensor:
        if self._cached is not None:
            return self._cached[self._slot[cells]]
        images = pooled_images(self.data, cells, image_size=self.config.image_size)
        return images if self._prepare is None else self._prepare(images)

    def _cache_images(self) -> Tensor | None:
        cells = np.concatenate([self.train_cells, self.validation_cells])
        n_bytes = 4 * len(cells) * self.data.composition.shape[1] * self.config.image_size**2
        if n_bytes > self.config.cache_bytes:
            return None
        self._slot = np.zeros(self.data.n_cells, dtype=np.int64)
        self._slot[cells] = np.arange(len(cells))
        return pooled_images(self.data, cells, image_size=self.config.image_size)


class _Stream:
    """Iterates over cells in minibatches; the n-th time with the n-th fixed permutation."""

    def __init__(self, source: RefinementData, cells: Ints, batch_size: int, *, shuffle: bool) -> None:
        self.source, self.cells, self.batch_size, self.shuffle = source, cells, batch_size, shuffle
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.cells) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        cells = self.cells
        if self.shuffle:
            cells = np.random.default_rng([_SCHEDULE_SEED, self.epoch]).permutation(cells)
            self.epoch += 1
        for part in np.array_split(cells, len(self)):
            yield self.source.batch(part)


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
