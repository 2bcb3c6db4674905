"""The operator's command, but for kopf: it ends as soon as it has begun."""

import sys

from sidecar.cli.main import run
from sidecar.operator.watching import Watch


async def nothing(_: Watch) -> None:
    """Watch nothing, and return."""


if __name__ == "__main__":
    Watch._watch = nothing  # type: ignore[method-assign, assignment]
    sys.exit(run(sys.argv[1:]))
