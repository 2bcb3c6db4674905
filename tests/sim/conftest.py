"""Simulated hours say much in the log; nobody reads it, and it costs more than they do."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable()
    yield
    logging.disable(level)
