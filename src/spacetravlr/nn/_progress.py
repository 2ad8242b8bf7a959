"""One progress bar for a whole training."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from tqdm.auto import tqdm


class EpochBar(pl.Callback):
    """A bar with one tick per epoch, the remaining time and the mean validation error over targets."""

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs
        self._bar: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the bar."""
        self._bar = tqdm(total=self.n_epochs, desc="refining coefficients", unit="epoch")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Advance the bar."""
        self._bar.update()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar when training is interrupted."""
        if self._bar is not None:
            self._bar.close()
