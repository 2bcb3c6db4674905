"""What the child programs say: JSON lines with stamps, in the form of the Go rivals.

Standard library only: it is imported by programs whose memory and start are measured.
"""

from __future__ import annotations

import json
import os
import time

Stamp = dict[str, int]


def now() -> Stamp:
    """Read both clocks of the kernel that nobody can set; they compare across processes."""
    return {
        "monotonic_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        "boottime_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    }


def tell(event: str, at: Stamp, **fields: object) -> None:
    """Write one line whole. The stamp is taken at the event, before any writing."""
    line = json.dumps({"event": event, "t": at, **fields}) + "\n"
    os.write(1, line.encode())
