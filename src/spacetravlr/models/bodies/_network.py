"""Networks: seeds refined by what the niche image shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from spacetravlr._core.space.niche import niche_images
from spacetravlr.models.bodies._base import BodyResult, fitted_rows
from spacetravlr.models.bodies._fitted import BodyState

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._inputs import BlockDesign, BodyOptions, CellContext, FitInputs
    from spacetravlr.models.bodies._seed import SeedStages
    from spacetravlr.nn import BlockFit

_IMAGE_SIDE = 16
_CHUNK = 4096


class Networks:
    """Networks that refine the seeds of a block of targets.

    Training is dear, so targets must earn it: :meth:`compare` trains all of them without the last choosing fold, and
    only those that keep the network are trained again, to be scored and to be delivered. Each training stops by its own
    stopping blocks, which lie among the cells it may see.
    """

    def __init__(
        self, block: BlockDesign, inputs: FitInputs, options: BodyOptions, seeds: SeedStages, n_jobs: int
    ) -> None:
        from spacetravlr.nn import BlockData, NetworkConfig

        self.block, self.inputs, self.options, self.seeds = block, inputs, options, seeds
        self.config = options.network or NetworkConfig()
        self.curves: dict[str, Floats] = {}
        """Learning curves of the comparison, epochs x targets."""
        width = block.width
        term_index = np.full((len(block), width), -1, dtype=np.int64)
        group = np.full((len(block), width), -1, dtype=np.int64)
        for t in range(len(block)):
            columns = block.columns(t)
            term_index[t, : len(columns)], group[t, : len(columns)] = columns, block.group[columns]
        names = [inputs.target_names[i] for i in block.index]
        self._data = BlockData(
            **niches(inputs, n_jobs),
            design=block.standardised(),
            term_index=term_index,
            y=((block.y - block.y_mean) / block.y_spread).astype(np.float32),
            anchors=self._anchors(seeds.choosing),
            train=~inputs.stopping,
            validation=inputs.stopping,
            group=group,
            seeds=np.array([target_rng_seed(options.rng_seed, name) for name in names], dtype=np.uint64),
        )

    def compare(self) -> BodyResult:
        """Predict the last choosing fold without it."""
        last = self.inputs.n_folds - 1
        fit = self._train(np.arange(len(self.block)), fitted_rows(self.inputs, last), self.seeds.held[-1])
        self.curves = fit.curves
        prediction = np.full(self.block.y.shape, np.nan)
        self._predict(fit, np.arange(len(self.block)), self.inputs.fold == last, prediction)
        return BodyResult(prediction, np.full(self.block.y.shape, np.nan), self._not_kept)

    def finish(self, result: BodyResult, kept: Bools, pool: Executor) -> None:
        """Train the targets where ``kept`` again, and complete ``result``.

        Reporting cells are predicted without the reporting fold, by the network that every target or, where the body is
        chosen automatically, every target that keeps it shares. What is delivered has seen every cell.
        """
        choosing = ~self.inputs.report
        winners = np.flatnonzero(kept)
        scored = winners if self.options.body == "auto" else np.arange(len(self.block))
        if not len(scored):
            return
        from spacetravlr.nn._fit import training_state

        def score() -> None:
            fit = self._train(scored, choosing, self.seeds.choosing)
            self._predict(fit, scored, self.inputs.report, result.prediction)
            self._predict(fit, scored, choosing, result.train)

        def deliver() -> None:
            if len(winners):
                everything = self._train(winners, np.ones_like(choosing), self.seeds.final)
                result.state = lambda t: BodyState(self.block.constant(t, self.block.y_mean[t]), network=everything)

        if not self._side_by_side:
            score()
            deliver()
            return
        with training_state(1):
            scoring, delivering = pool.submit(score), pool.submit(deliver)
            scoring.result()
            delivering.result()

    @property
    def _side_by_side(self) -> bool:
        """Whether two trainings share nothing: the default precision belongs to the process, callbacks to the user."""
        single = self.config.encoder == "shared" and self.config.precision in ("auto", "32-true")
        return single and not self.config.trainer_kwargs

    def _not_kept(self, t: int) -> BodyState:
        msg = f"no network was trained on every cell for target {t} of the block"
        raise RuntimeError(msg)

    def _train(self, targets: Ints, rows: Bools, seeds: Floats) -> BlockFit:
        from spacetravlr.nn import fit_block

        stopping, data = self.inputs.stopping, self._data
        subset = replace(
            data,
            train=rows & ~stopping,
            validation=rows & stopping,
            anchors=self._anchors(seeds)[targets],
            term_index=data.term_index[targets],
            group=data.group[targets],
            y=data.y[:, targets],
            seeds=data.seeds[targets],
        )
        # One thread: batches are small, and torch's threads spin while they wait, which on a busy machine costs twenty
        # times what they gain.
        return fit_block(subset, self.config, n_jobs=1)

    def _anchors(self, seeds: Floats) -> Floats:
        """Seeds in standardised units, targets x types x (intercept, terms)."""
        out = np.zeros((len(self.block), self.inputs.n_types, self.block.width + 1), dtype=np.float32)
        for t in range(len(self.block)):
            m = len(self.block.columns(t)) + 1
            out[t, :, :m] = self.block.to_standard(t, seeds[t, : self.inputs.n_types, :m])
        return out

    def _predict(self, fit: BlockFit, targets: Ints, where: Bools, out: Floats) -> None:
        """Write predictions of ``targets`` into the rows ``where`` of ``out``."""
        block, cells = self.block, np.flatnonzero(where)
        for start in range(0, len(cells), _CHUNK):
            rows = cells[start : start + _CHUNK]
            standardised = fit.predictions(rows, self._data.design[rows], self._data.term_index[targets], n_jobs=1)
            out[np.ix_(rows, targets)] = block.y_mean[targets] + block.y_spread[targets] * standardised


def niches(cells: CellContext, n_jobs: int, rows: slice = slice(None)) -> dict[str, Any]:
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


def target_rng_seed(rng_seed: int, name: str) -> int:
    """Random seed of one target, from the run's and the gene's name alone."""
    return int(np.random.SeedSequence([rng_seed, crc32(name.encode())]).generate_state(1, np.uint64)[0])
