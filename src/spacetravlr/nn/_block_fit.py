"""A trained block: coefficients of any cells, learning curves, and a small state to keep."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacetravlr._types import Floats, Ints
from spacetravlr.nn._bodies import BODIES
from spacetravlr.nn._config import NetworkConfig, NicheData
from spacetravlr.nn._data import gather_terms, pooled_images, term_rows, with_constants
from spacetravlr.nn._heads import CoefficientHeads
from spacetravlr.nn._process import plain_torch, torch_threads
from spacetravlr.nn._stack import BodyStack

_MAX_IMAGES = 32_768  # images times bodies held at a time


@dataclass
class BlockFit:
    """Trained coefficients of a block of targets."""

    data: NicheData
    """The cells that ``coefficients`` indexes."""
    config: NetworkConfig
    """Settings of the refinement."""
    bodies: BodyStack
    """Trained bodies; a shared body appears once for each distinct best epoch."""
    heads: CoefficientHeads
    """Trained heads."""
    body_of: Ints
    """Body of the stack that each target uses, shape (n_targets,)."""
    best_epoch: Ints
    """Epoch whose weights were kept, 0 for the seed, shape (n_targets,)."""
    curves: dict[str, NDArray[np.float32]]
    """Mean squared error by epoch, ``"train"`` and ``"validation"``, shape (n_epochs, n_targets)."""
    baseline: NDArray[np.float32]
    """Validation error of the seed, shape (n_targets,)."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where coefficients are evaluated."""

    @property
    def n_targets(self) -> int:
        """Number of targets."""
        return len(self.body_of)

    def coefficients(
        self, cells: Ints | slice, *, batch_size: int = 1024, n_jobs: int | None = None
    ) -> NDArray[np.float32]:
        """Coefficients of cells, in the units of the anchors.

        Parameters
        ----------
        cells
            Indices (or a slice) into the cells of ``data``.
        batch_size
            Cells evaluated at a time, at most; fewer when there are many bodies.
        n_jobs
            Threads on the CPU; None for the setting.

        Returns
        -------
        Shape (n_cells, n_targets, max_terms + 1), intercept first; zero for padding.
        """
        index = np.arange(self.data.n_cells)[cells]
        result = np.empty((len(index), self.n_targets, self.heads.anchors.shape[2]), dtype=np.float32)
        with torch_threads(n_jobs), plain_torch(), torch.inference_mode():
            for rows in self._batches(len(index), batch_size):
                embedding, cell_type = self._embed(index[rows])
                result[rows] = self.heads.coefficients(embedding, cell_type).permute(2, 0, 1).cpu().numpy()
        return result

    def predictions(
        self, cells: Ints, design: Floats, term_index: Ints, *, batch_size: int = 512, n_jobs: int | None = None
    ) -> NDArray[np.float32]:
        """Predicted responses of cells, in the units that the responses were trained in.

        Parameters
        ----------
        cells
            Indices into the cells of ``data``.
        design
            Distinct terms at these cells, shape (len(cells), n_terms).
        term_index
            Columns of ``design`` that each target uses, padded with -1, shape (n_targets, max_terms).
        batch_size
            Cells evaluated at a time, at most; fewer when there are many bodies.
        n_jobs
            Threads on the CPU; None for the setting.

        Returns
        -------
        Shape (len(cells), n_targets).
        """
        rows_of = torch.from_numpy(term_rows(term_index, design.shape[1])).to(self.device)
        result = np.empty((len(cells), self.n_targets), dtype=np.float32)
        with torch_threads(n_jobs), plain_torch(), torch.inference_mode():
            for rows in self._batches(len(cells), batch_size):
                embedding, cell_type = self._embed(cells[rows])
                terms = torch.from_numpy(with_constants(design[rows])).to(self.device)
                values = gather_terms(terms, rows_of)
                prediction = self.heads.predicted_change(embedding, values, cell_type)
                prediction += values.mul_(self.heads.anchor_of(cell_type)).sum(1)
                result[rows] = prediction.T.cpu().numpy()
        return result

    def _batches(self, n_cells: int, batch_size: int) -> Iterator[slice]:
        step = max(1, min(batch_size, _MAX_IMAGES // self.bodies.n_bodies))
        return (slice(start, start + step) for start in range(0, n_cells, step))

    def on(self, data: NicheData) -> BlockFit:
        """Point the trained coefficients at other cells, for example of another section."""
        expected = self.heads.anchors.shape[1], self.bodies.template.position_features.low.shape[0]
        found = data.composition.shape[1], data.position.shape[1]
        if expected != found:
            msg = f"Expected `data` to have (cell types, dimensions) = {expected}, found `{found}`."
            raise ValueError(msg)
        return replace(self, data=data)

    @plain_torch()
    def take(self, targets: Ints) -> BlockFit:
        """Keep some of the targets, and no more bodies than they use."""
        used, body_of = np.unique(self.body_of[targets], return_inverse=True)
        bodies, heads = copy.deepcopy(self.bodies), copy.deepcopy(self.heads)
        bodies.load_weights({name: weight[torch.from_numpy(used)] for name, weight in self.bodies.weights.items()})
        heads.keep_targets(torch.from_numpy(targets))
        heads.weight.data = heads.weight.data[torch.from_numpy(targets)]
        return replace(
            self,
            bodies=bodies,
            heads=heads,
            body_of=body_of,
            best_epoch=self.best_epoch[targets],
            curves={name: values[:, targets] for name, values in self.curves.items()},
            baseline=self.baseline[targets],
        )

    def mean_place(self) -> Floats:
        """Mean of the position features over the cells of each type, float64, shape (n_cell_types, n_features)."""
        position = _floats(self.data.position).to(self.device)
        with plain_torch(), torch.inference_mode():
            place = self.bodies.template.position_features.to(self.device)(position).cpu().numpy().astype(np.float64)
        sums = np.zeros((self.heads.anchors.shape[1], place.shape[1]))
        np.add.at(sums, self.data.cell_type, place)
        return sums / np.maximum(np.bincount(self.data.cell_type, minlength=len(sums)), 1)[:, None]

    @plain_torch()
    def state_dict(self) -> dict[str, Any]:
        """Everything except the cells, as plain values and numpy arrays; see :meth:`from_state_dict`."""
        return {
            "config": self.config.model_settings(),
            "bodies": {name: value.cpu().numpy() for name, value in self.bodies.state_dict().items()},
            "heads": {name: value.cpu().numpy() for name, value in self.heads.state_dict().items()},
            "body_of": self.body_of,
            "best_epoch": self.best_epoch,
            "curves": self.curves,
            "baseline": self.baseline,
        }

    @classmethod
    @plain_torch()
    def from_state_dict(cls, state: Mapping[str, Any], data: NicheData, *, device: str = "cpu") -> BlockFit:
        """Rebuild a fit from :meth:`state_dict`, over the cells of ``data``."""
        # files give numpy scalars back, which torch does not take for sizes
        config = NetworkConfig(**{k: v.item() if hasattr(v, "item") else v for k, v in state["config"].items()})
        heads_state = {name: torch.as_tensor(value) for name, value in state["heads"].items()}
        bodies_state = {name: torch.as_tensor(value) for name, value in state["bodies"].items()}
        with torch.random.fork_rng(devices=[]):
            body = BODIES[config.architecture](
                n_cell_types=heads_state["anchors"].shape[1],
                n_dims=bodies_state["template.position_features.low"].shape[0],
                n_frequencies=config.n_frequencies,
                width=config.width,
                image_size=config.image_size,
            ).float()
        bodies = BodyStack([body])
        bodies.load_weights({name: bodies_state[f"weights.{name}"] for name in bodies.weights})
        bodies.load_state_dict(bodies_state)
        heads = CoefficientHeads(heads_state["anchors"], n_features=body.n_features, mode=config.mode)
        heads.load_state_dict(heads_state)
        return cls(
            data=data,
            config=config,
            bodies=bodies.requires_grad_(requires_grad=False),
            heads=heads.requires_grad_(requires_grad=False),
            body_of=np.asarray(state["body_of"]),
            best_epoch=np.asarray(state["best_epoch"]),
            curves=dict(state["curves"]),
            baseline=np.asarray(state["baseline"]),
            device=torch.device(device),
        ).on(data)

    def _embed(self, cells: Ints) -> tuple[Tensor, Tensor]:
        """Embedding of cells by the body of each target, (n_targets, n_features, n_cells), and codes of types."""
        image = pooled_images(self.data, cells, image_size=self.config.image_size)
        inputs = [image, _floats(self.data.composition[cells]), _floats(self.data.position[cells])]
        cell_type = torch.from_numpy(self.data.cell_type[cells].astype(np.int64)).to(self.device)
        self.bodies.to(self.device)
        self.heads.to(self.device)
        place = None if self.data.place is None else _floats(self.data.place[cells]).to(self.device)
        embedding = self.bodies(*(value.to(self.device) for value in inputs), cell_type, place)
        return embedding[torch.from_numpy(self.body_of).to(self.device)], cell_type


def _floats(values: Floats) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
