"""Options of a fit, in one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from spacetravlr import _keys
from spacetravlr._utils import resolve_n_jobs, warn
from spacetravlr._validators import assert_in_range, assert_non_negative, assert_one_of, assert_positive
from spacetravlr.io._store import StoreAs
from spacetravlr.models.bodies._inputs import BodyOptions, Noise, Solver
from spacetravlr.models.bodies._network import NetworkBody
from spacetravlr.models.bodies._registry import bodies_of, choices

#: Targets fitted together; a shared network sees one block at a time.
BLOCK_SIZE = 100


@dataclass(frozen=True)
class FitOptions(BodyOptions):
    """Options of a fit, as :func:`spacetravlr.tl.fit_betas` describes them."""

    layer: str | None = None
    counts_layer: str | None = None
    raw_layer: str | None = None
    cluster_key: str | None = None
    modulators_key: str = _keys.MODULATORS
    n_folds: int = 3
    fdr: float = 0.1
    block_size: int = BLOCK_SIZE
    store: str | os.PathLike[str] | None = None
    store_as: StoreAs = "float32"
    client: Any = None
    n_jobs: int | None = None
    show_progress_bar: bool | None = None

    @classmethod
    def of(cls, *, noise: Noise | None = None, counts_layer: str | None = None, **options: Any) -> FitOptions:
        """Options in which the noise, unless it is said, is that of counts where they are named."""
        implied: Noise = "none" if counts_layer is None else "poisson"
        return cls(noise=noise or implied, counts_layer=counts_layer, **options)

    def checked(self) -> FitOptions:
        """Raise on what cannot be right, before any work, and settle what follows from something else.

        The network is what is trained (``None`` without one), and ``rng`` is one number.
        """
        assert_one_of(self.noise, get_args(Noise), name="noise")
        assert_one_of(self.body, choices(), name="body")
        if self.body not in choices(self.noise):
            msg = (
                f"Expected `body` to be one of {', '.join(map(repr, choices(self.noise)))} with noise={self.noise!r}, "
                f"found {self.body!r}, which treats values as exact; pass noise='none' for values without counting "
                "noise."
            )
            raise ValueError(msg)
        if (self.noise == "poisson") != (self.counts_layer is not None):
            msg = "Expected `counts_layer` together with noise='poisson', and neither without the other."
            raise ValueError(msg)
        assert_one_of(self.solver, get_args(Solver), name="solver")
        assert_one_of(self.store_as, get_args(StoreAs), name="store_as")
        if self.store is None and self.store_as != "float32":
            msg = f"Expected `store` to name a folder with store_as={self.store_as!r}, found None."
            raise ValueError(msg)
        assert_in_range(self.score_threshold, 0.0, 1.0, name="score_threshold")
        assert_in_range(self.n_folds, 2, 20, name="n_folds")
        assert_in_range(self.fdr, 0.0, 1.0, name="fdr")
        assert_positive(self.block_size, name="block_size")
        assert_non_negative(self.n_draws, name="n_draws")
        assert_non_negative(self.min_cells, name="min_cells")
        for name in ("group_penalty", "l1_penalty"):
            value = getattr(self, name)
            if value is not None:
                assert_non_negative(value, name=name)
        resolve_n_jobs(self.n_jobs)
        # a Generator is drawn from once, so that every target's stream follows from one number
        drawn = isinstance(self.rng, int | np.integer)
        rng_seed = int(self.rng) if drawn else int(np.random.default_rng(self.rng).integers(2**31))  # type: ignore[arg-type]
        return replace(self, network=self._network(), rng=rng_seed)

    def _network(self) -> Any:
        """The network that is trained, with the architecture that ``body`` asks for."""
        if NetworkBody not in bodies_of(self.body, self.noise):
            if self.network is not None:
                warn(f"`network` has no effect with body={self.body!r}, which does not train a network.")
            return None
        from spacetravlr.nn import NetworkConfig

        network = self.network or NetworkConfig()
        if not isinstance(network, NetworkConfig):
            msg = f"Expected `network` to be a spacetravlr.nn.NetworkConfig, found `{type(network).__name__}`."
            raise TypeError(msg)
        asked = self.body if self.body in ("cnn", "vit") else None
        if asked and network.body not in (None, asked):
            msg = (
                f"Expected `network.body` to be {asked!r} like `body`, found {network.body!r}; leave it out of the "
                "NetworkConfig."
            )
            raise ValueError(msg)
        return replace(network, body=asked or network.architecture)
