"""How a bench runs as a program."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def run(main: Callable[[], int]) -> NoReturn:
    """End the process with what `main` returns; on SIGTERM and Ctrl-C it cleans up first."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
