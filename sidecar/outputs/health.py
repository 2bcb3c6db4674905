"""What happens when an output fails: counted each time, logged once per change, tried again.

An output that fails never stops the campaign, so nothing here raises.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0
"""Seconds between two tries of an output, at most."""


class OutputErrors:
    """Which outputs fail at the moment. May be used from any thread."""

    def __init__(self, count: Callable[[str], None]) -> None:
        """Call `count` with the output's name at each failure."""
        self._count = count
        self._failing: set[str] = set()
        self._lock = threading.Lock()

    def failed(self, output: str, error: BaseException) -> None:
        """Note a failure; only the first of a row is logged."""
        self._count(output)
        with self._lock:
            is_news = output not in self._failing
            self._failing.add(output)
        if is_news:
            fields = {"output": output, "error": str(error) or type(error).__name__}
            _log.warning("output failed output=%s error=%s", *fields.values(), extra=fields)

    def worked(self, output: str) -> None:
        """Note a success; only the first after a failure is logged."""
        with self._lock:
            is_news = output in self._failing
            self._failing.discard(output)
        if is_news:
            _log.info("output works again output=%s", output, extra={"output": output})
