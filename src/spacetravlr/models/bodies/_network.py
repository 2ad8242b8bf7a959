"""Networks: seeds refined by what the niche image shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from spacetravlr._utils import InterruptiblePool
from spacetravlr.models.bodies._base import (
    BlockTask,
    Body,
    BodyState,
    EvaluationCells,
    Varying,
    empty_result,
    fitted_rows,
)
from spacetravlr.models.bodies._inputs import niches

if TYPE_CHECKING:
    from spacetravlr._types import Bools, Floats, Ints
    from spacetravlr.models.bodies._seed import SeedStages
    from spacetravlr.nn import BlockFit

_CHUNK = 4096
_FOLDS = 2  # on which a network is compared, at most
_CELLS = 1024  # at which a network is evaluated at a time


@dataclass(frozen=True)
class TrainedNetworks(Varying):
    """The trained network of a block, for the targets that keep it."""

    target: Ints
    """Targets of the block that it serves."""
    network: Mapping[str, Any]
    """``BlockFit.state_dict()`` of these targets."""
    place: Floats
    """Mean of the network's position features over the cells of the fit, types x features."""
    device: str = "cpu"
    """Where the network is evaluated; not part of the state."""

    @classmethod
    def collect(cls, states: Sequence[BlockFit | None], n_types: int) -> TrainedNetworks:
        """Take the network that the targets share."""
        target = np.array([t for t, fit in enumerate(states) if fit is not None], dtype=np.int64)
        fit = next(fit for fit in states if fit is not None)
        return cls(target, fit.state_dict(), fit.mean_place(), str(fit.device))

    def departures(self, cells: EvaluationCells, keeps: Bools) -> Iterator[tuple[int, Ints, Ints, Floats]]:
        """Evaluate type by type: each asks only the bodies of the targets that keep a network in it."""
        from spacetravlr.nn import BlockFit

        data = cells.niches()
        if cells.average:
            data = replace(data, place=self.place[cells.cell_type])
        fit = BlockFit.from_state_dict(self.network, data, device=self.device)
        for code in np.unique(cells.cell_type).tolist():
            served = np.flatnonzero(keeps[self.target, code])
            if not len(served):
                continue
            part, rows = fit.take(served), np.flatnonzero(cells.cell_type == code)
            for chunk in np.split(rows, range(_CELLS, len(rows), _CELLS)):
                values = part.coefficients(chunk, n_jobs=1)
                for i, t in enumerate(self.target[served].tolist()):
                    yield t, chunk, np.arange(values.shape[2]), values[:, i].astype(np.float64)

    def state(self) -> dict[str, Any]:
        """Everything but the device."""
        return {"target": self.target, "network": dict(self.network), "place": self.place}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TrainedNetworks:
        """Rebuild from :meth:`state`."""
        return cls(np.asarray(state["target"], dtype=np.int64), state["network"], np.asarray(state["place"]))


class NetworkBody(Body):
    """Networks that refine the seeds of a block of targets.

    Training is expensive. :meth:`compare` trains all targets without some selection folds, and only targets that keep
    the network are trained again, for scores and for the final coefficients. Each training stops early on its own
    stopping blocks, which lie among the cells available to it.
    """

    name = "network"
    chosen_by = ("auto", "cnn", "vit")
    after = ("seed",)
    in_background = True
    varying = TrainedNetworks
    _delivered: BlockFit | None = None

    def __init__(self, task: BlockTask, before: Mapping[str, Any]) -> None:
        from spacetravlr.nn import BlockData, NetworkConfig

        super().__init__(task, before)
        block, inputs, options = task.block, task.inputs, task.options
        self.config = options.network or NetworkConfig()
        self.seeds: SeedStages = before["seed"].stages
        self._curves: dict[str, Floats] = {}
        self.result = empty_result(block)
        width = block.width
        term_index = np.full((len(block), width), -1, dtype=np.int64)
        group = np.full((len(block), width), -1, dtype=np.int64)
        for t in range(len(block)):
            columns = block.columns(t)
            term_index[t, : len(columns)], group[t, : len(columns)] = columns, block.group[columns]
        names = [inputs.target_names[i] for i in block.index]
        self._data = BlockData(
            **niches(inputs, task.n_jobs),
            design=block.standardised(),
            term_index=term_index,
            y=((block.y - block.y_mean) / block.y_spread).astype(np.float32),
            anchors=self._anchors(self.seeds.choosing),
            train=~inputs.stopping,
            validation=inputs.stopping,
            group=group,
            seeds=np.array([target_rng_seed(options.rng_seed, name) for name in names], dtype=np.uint64),
        )

    @property
    def curves(self) -> dict[str, Floats]:
        """Learning curves of the comparison, without the last choosing fold."""
        return self._curves

    def compare(self) -> None:
        """Predict choosing folds without them: the last one, or the last two where the network was asked for.

        One fold is enough to find the few targets whose network clearly beats a surface. If the network competes only
        with the seed, too many good networks would be lost by chance on a single fold (fields of 128 look-alike pairs:
        0.55 instead of 0.73). A third fold decided otherwise in two of 24 simulated tissues, once for the better.
        """
        from spacetravlr.nn._process import training_state

        inputs, everyone = self.task.inputs, np.arange(len(self.task.block))
        folds = range(inputs.n_folds)[-1 if self.task.options.body == "auto" else -_FOLDS :]

        def predict(fold: int) -> dict[str, Floats]:
            fit = self._train(everyone, fitted_rows(inputs, fold), self.seeds.held[fold])
            self._predict(fit, everyone, inputs.fold == fold, self.result.prediction)
            return fit.curves

        threads = min(len(folds), self.task.n_jobs) if self._side_by_side else 1
        if threads == 1:
            curves = [predict(fold) for fold in folds]
        else:
            with training_state(1), InterruptiblePool(threads) as pool:
                curves = list(pool.map(predict, folds))
        self._curves = curves[-1]

    def finish(self, kept: Bools) -> None:
        """Train the targets where ``kept`` again, and complete :attr:`result`.

        Reporting cells are predicted without the reporting fold, by the network that every target or, where the body is
        chosen automatically, every target that keeps it shares. What is delivered has seen every cell.
        """
        choosing = ~self.task.inputs.report
        winners = np.flatnonzero(kept)
        scored = winners if self.task.options.body == "auto" else np.arange(len(self.task.block))
        if not len(scored):
            return
        from spacetravlr.nn._process import training_state

        def score() -> None:
            fit = self._train(scored, choosing, self.seeds.choosing)
            self._predict(fit, scored, self.task.inputs.report, self.result.prediction)
            self._predict(fit, scored, choosing, self.result.train)

        def deliver() -> None:
            if len(winners):
                self._delivered = self._train(winners, np.ones_like(choosing), self.seeds.final)

        if not self._side_by_side:
            score()
            deliver()
            return
        with training_state(1):
            trainings = [self.task.pool.submit(score), self.task.pool.submit(deliver)]
            try:
                for training in trainings:
                    training.result()
            finally:  # what belongs to the process is restored after the last of them
                if not all(training.done() for training in trainings):
                    self.task.pool.interrupt()
                wait(trainings)

    def state(self, t: int) -> BodyState:
        """Deliver the network of all cells, whose constants are zero and the mean of the target."""
        if self._delivered is None:
            msg = f"no network was trained on every cell for target {t} of the block"
            raise RuntimeError(msg)
        block = self.task.block
        return BodyState(block.constant(t, block.y_mean[t]), self._delivered)

    @property
    def _side_by_side(self) -> bool:
        """Whether two trainings share nothing: the default precision belongs to the process, callbacks to the user."""
        single = self.config.encoder == "shared" and self.config.precision in ("auto", "32-true")
        return single and not self.config.trainer_kwargs

    def _train(self, targets: Ints, rows: Bools, seeds: Floats) -> BlockFit:
        from spacetravlr.nn import fit_block

        stopping, data = self.task.inputs.stopping, self._data
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
        return fit_block(subset, self.config, n_jobs=1, interrupted=self.task.pool.interrupted)

    def _anchors(self, seeds: Floats) -> Floats:
        """Seeds in standardised units, targets x types x (intercept, terms)."""
        out = np.zeros((len(self.task.block), self.task.inputs.n_types, self.task.block.width + 1), dtype=np.float32)
        for t in range(len(self.task.block)):
            m = len(self.task.block.columns(t)) + 1
            out[t, :, :m] = self.task.block.to_standard(t, seeds[t, : self.task.inputs.n_types, :m])
        return out

    def _predict(self, fit: BlockFit, targets: Ints, where: Bools, out: Floats) -> None:
        """Write predictions of ``targets`` into the rows ``where`` of ``out``."""
        block, cells = self.task.block, np.flatnonzero(where)
        for start in range(0, len(cells), _CHUNK):
            rows = cells[start : start + _CHUNK]
            standardised = fit.predictions(rows, self._data.design[rows], self._data.term_index[targets], n_jobs=1)
            out[np.ix_(rows, targets)] = block.y_mean[targets] + block.y_spread[targets] * standardised


def target_rng_seed(rng_seed: int, name: str) -> int:
    """Random seed of one target, from the run's and the gene's name alone."""
    return int(np.random.SeedSequence([rng_seed, crc32(name.encode())]).generate_state(1, np.uint64)[0])
