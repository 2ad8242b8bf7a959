"""All stages, in the order of the table."""

from __future__ import annotations

from benchmarks.speed import _bodies, _counts, _effects, _space, _store, _whole
from benchmarks.speed._stage import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage for module in (_space, _bodies, _counts, _effects, _store, _whole) for stage in module.STAGES
}
