"""Networks: seeds refined by what the niche image shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from spacetravlr._core.niche import niche_images
from spacetravlr.models._bodies import BodyResult, fitted_rows
from spacetravlr.models._fitted import BodyState

if TYPE_CHECKING:
    from spacetravlr._types import Floats, Ints
    from spacetravlr.models._inputs import BlockDesign, FitInputs, FitSettings, SeenCells
    from spacetravlr.models._seed_body import SeedStages

_IMAGE_SIDE = 16
_CHUNK = 4096


def fit_network(
    block: BlockDesign,
    inputs: FitInputs,
    settings: FitSettings,
    seeds: SeedStages,
    n_jobs: int,
) -> tuple[BodyResult, dict[str, Floats]]:
    """A network that refines the seeds; also returns its learning curves (epochs x targets).

    Each training stops by its own stopping blocks, which lie among the cells it may see. Three trainings in all, since
    a network is dear: without the last choosing fold, to be compared there; without the reporting fold, to be scored
    there; and on every cell, to be delivered (trained when first asked for).
    """
    from spacetravlr.nn import BlockData, NetworkConfig, fit_block

    config = settings.network or NetworkConfig(body="vit" if settings.body == "vit" else "cnn")
    width = block.width
    term_index = np.full((len(block), width), -1, dtype=np.int64)
    group = np.full((len(block), width), -1, dtype=np.int64)
    for t in range(len(block)):
        columns = block.columns(t)
        term_index[t, : len(columns)], group[t, : len(columns)] = columns, block.group[columns]

    def standard(seeds: Floats) -> Floats:
        out = np.zeros((len(block), inputs.n_types, width + 1), dtype=np.float32)
        for t in range(len(block)):
            m = len(block.columns(t)) + 1
            out[t, :, :m] = block.to_standard(t, seeds[t, : inputs.n_types, :m])
        return out

    names = [inputs.target_names[i] for i in block.index]
    choosing = ~inputs.report
    data = BlockData(
        **niches(inputs, n_jobs),
        design=((block.values - block.mean) / block.spread).astype(np.float32),
        term_index=term_index,
        y=((block.y - block.y_mean) / block.y_spread).astype(np.float32),
        anchors=standard(seeds.choosing),
        train=choosing & ~inputs.stopping,
        validation=choosing & inputs.stopping,
        group=group,
        seeds=np.array([target_seed(settings.seed, name) for name in names], dtype=np.uint64),
    )
    # One thread: batches are small, and torch's threads spin while they wait, which on a busy machine costs twenty
    # times what they gain.
    options: dict[str, Any] = {"trainer_kwargs": settings.trainer_kwargs, "device": settings.device, "n_jobs": 1}
    fit = fit_block(data, config, **options)
    prediction, train = np.full(block.y.shape, np.nan), np.full(block.y.shape, np.nan)
    prediction[inputs.report] = _predict_network(block, data, fit, np.flatnonzero(inputs.report))
    train[choosing] = _predict_network(block, data, fit, np.flatnonzero(choosing))

    last = inputs.n_folds - 1
    seen = fitted_rows(inputs, last)
    without_last = replace(
        data, train=seen & ~inputs.stopping, validation=seen & inputs.stopping, anchors=standard(seeds.held[-1])
    )
    rows = np.flatnonzero(inputs.fold == last)
    prediction[rows] = _predict_network(block, without_last, fit_block(without_last, config, **options), rows)
    final: list[Any] = []

    def state(t: int) -> BodyState:
        if not final:
            everything = replace(
                data, train=~inputs.stopping, validation=inputs.stopping, anchors=standard(seeds.final)
            )
            final.append(fit_block(everything, config, **options))
        return BodyState(block.constant(t, block.y_mean[t]), network=final[0])

    return BodyResult(prediction, train, state), fit.curves


def niches(cells: SeenCells, n_jobs: int, rows: slice = slice(None)) -> dict[str, Any]:
    """What a network sees of the cells in ``rows``, as arguments of ``nn.NicheData``."""
    index = np.arange(len(cells.cell_type))[rows]

    def images(wanted: Ints) -> Floats:
        return niche_images(
            cells.coordinates, cells.cell_type, cells.n_types, cells.radius, _IMAGE_SIDE,
            cells=index[wanted], libraries=cells.slides, n_jobs=n_jobs,
        )  # fmt: skip

    return {
        "images": images,
        "composition": np.asarray(cells.composition[rows], dtype=np.float32),
        "position": np.asarray(cells.coordinates[rows], dtype=np.float32),
        "cell_type": cells.cell_type[rows].astype(np.int64),
    }


def _predict_network(block: BlockDesign, data: Any, fit: Any, cells: Ints) -> Floats:
    prediction = np.empty((len(cells), len(block)))
    for start in range(0, len(cells), _CHUNK):
        rows = cells[start : start + _CHUNK]
        coefficients, design = fit.coefficients(rows), data.design[rows]
        for t in range(len(block)):
            columns = block.columns(t)
            y = coefficients[:, t, 0] + (coefficients[:, t, 1 : len(columns) + 1] * design[:, columns]).sum(axis=1)
            prediction[start : start + len(rows), t] = block.y_mean[t] + block.y_spread[t] * y
    return prediction


def target_seed(seed: int, name: str) -> int:
    """Seed of one target, from the run's seed and the gene's name alone."""
    return int(np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(1, np.uint64)[0])
