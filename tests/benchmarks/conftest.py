"""Scripts set what is logged and shown for a process of their own; here they share one with other tests."""

from __future__ import annotations

import logging

import pytest

import spacetravlr as st


@pytest.fixture(autouse=True)
def settings_come_back():
    logger = logging.getLogger("spacetravlr")
    level, shown = logger.level, st.settings.show_progress_bar
    yield
    logger.setLevel(level)
    st.settings.show_progress_bar = shown
