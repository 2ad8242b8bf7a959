"""Read the Returns section of a docstring as text: types come from annotations, keys written are a list."""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring


def _returns(self: NumpyDocstring, section: str) -> list[str]:
    lines = self._dedent(self._consume_to_next_section())
    return self._format_block(":returns: ", lines)


def setup(app: Sphinx) -> dict[str, bool]:
    NumpyDocstring._parse_returns_section = _returns
    return {"parallel_read_safe": True}
