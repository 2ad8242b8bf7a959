"""Threads of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spacetravlr._utils import resolve_n_jobs


@contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[int]:
    """Run torch on ``n_jobs`` threads, then restore what was set."""
    before, wanted = torch.get_num_threads(), resolve_n_jobs(n_jobs)
    torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        torch.set_num_threads(before)
