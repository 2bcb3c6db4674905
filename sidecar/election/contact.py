"""When the store last answered, and what is said in the log while it does not."""

from __future__ import annotations

import logging

from sidecar.core.lease import NEVER
from sidecar.election.ports import Clock, Meter
from sidecar.errors import Rejected

log = logging.getLogger(__name__)


class Contact:
    """Shared by everybody who calls one store, so that an outage is told once, not per caller."""

    def __init__(self, clock: Clock, meter: Meter) -> None:
        self._clock = clock
        self._meter = meter
        self._trouble = ""
        self.answered_at = NEVER
        self.tried_at = clock.now()

    @property
    def trouble(self) -> str:
        """What is wrong at present, or ""."""
        return self._trouble

    def answered(self) -> None:
        """Note an answer."""
        self.answered_at = self.tried_at = self._clock.now()
        self._meter.store_answered()
        if self._trouble:
            self._trouble = ""
            log.info("store answers again")

    def failed(self, what: str, exc: Exception) -> None:
        """Note a call without an answer, or with a no; logged when trouble begins."""
        self.tried_at = self._clock.now()
        began = not self._trouble
        self._trouble = f"{what}: {exc}"
        phrase = "store refuses" if isinstance(exc, Rejected) else "store does not answer"
        log.log(
            logging.WARNING if began else logging.DEBUG, "%s call=%s error=%s", phrase, what, exc
        )

    def untried_for(self) -> float:
        """Return the seconds since a call last ended, well or badly: what `/livez` looks at."""
        return self._clock.now() - self.tried_at

    def silent_for(self) -> float:
        """Return the seconds since the last answer."""
        return self._clock.now() - self.answered_at
