"""Shared descriptions of parameters reach the docstrings that ask for them."""

from __future__ import annotations

import inspect

import pytest

from spacetravlr._docs import document


def test_entries_take_the_indentation_of_their_line() -> None:
    @document
    def function(layer: str, n_jobs: int) -> None:
        """Do.

        Parameters
        ----------
        %(layer_normalised)s
        %(n_jobs)s
        """

    text = inspect.getdoc(function)
    assert text is not None
    assert text.splitlines()[4:] == [
        "layer",
        "    Layer with normalised expression; ``None`` uses ``X``.",
        "n_jobs",
        "    Number of threads; ``None`` uses ``st.settings.n_jobs``. Results do not depend on it.",
    ]


def test_an_unknown_entry_is_an_error() -> None:
    def function() -> None:
        """%(no_such_entry)s"""

    with pytest.raises(KeyError, match="no_such_entry"):
        document(function)
