"""The operator's command, but for the thread that watches: it hears nothing of its end."""

import sys
import threading

from sidecar.cli.main import run
from sidecar.operator.watching import Watch


def forever(_: Watch) -> None:
    """Watch nothing, and never return."""
    threading.Event().wait()


if __name__ == "__main__":
    Watch._run = forever  # type: ignore[method-assign, assignment]
    sys.exit(run(sys.argv[1:]))
