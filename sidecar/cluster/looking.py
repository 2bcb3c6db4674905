"""`helm test`: looks from another pod, through the Services, whether the election is well.

`python -m sidecar.cluster.looking one-leader URL CANDIDATES` asks the pods behind a Service until
enough of them have answered, and all name one leader; `... leader URL` asks whether the leader's
Service answers.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

_WITHIN = 60.0  # seconds
_TRY = 3.0
_AGAIN = 0.2
_ARGUMENTS = 2


def verdict(statuses: Sequence[Mapping[str, Any]], candidates: int) -> str | None:
    """Return what is wrong with the latest status of each candidate, or None."""
    leaders = sorted(status["id"] for status in statuses if status["role"] == "leader")
    named = {(status["leader"] or {}).get("id") for status in statuses}
    if len(statuses) < candidates:
        return f"{len(statuses)} of {candidates} candidates have answered"
    if len(leaders) != 1:
        return f"{len(leaders)} lead: {', '.join(leaders) or 'nobody'}"
    if named != {leaders[0]}:
        return f"{leaders[0]} leads, and these are named: {sorted(map(str, named))}"
    return None


def main(arguments: Sequence[str]) -> int:
    """Look until all is well, at most a minute; return the exit code."""
    what, url = arguments[:_ARGUMENTS]
    latest: dict[str, Mapping[str, Any]] = {}
    problem: str | None = "nobody has answered"
    ends = time.monotonic() + _WITHIN  # noqa: TID251 - a program of its own
    while problem is not None and time.monotonic() < ends:  # noqa: TID251
        try:
            if what == "leader":
                status = _get(f"{url}/leader")
                problem = None if status["role"] == "leader" else f"{status['id']} does not lead"
            else:
                status = _get(f"{url}/status")
                latest[status["id"]] = status
                problem = verdict(list(latest.values()), int(arguments[_ARGUMENTS]))
                if problem is not None and len(latest) >= int(arguments[_ARGUMENTS]):
                    latest.clear()  # some of it may be outdated: ask everybody again
        except (OSError, ValueError) as exc:
            problem = str(exc)
        time.sleep(_AGAIN)
    sys.stdout.write(f"{what}: {problem or 'as it shall be'}\n")
    return 0 if problem is None else 1


def _get(url: str) -> Mapping[str, Any]:
    request = urllib.request.Request(url, headers={"Connection": "close"})  # noqa: S310 - given
    with urllib.request.urlopen(request, timeout=_TRY) as reply:  # noqa: S310
        status: Mapping[str, Any] = json.load(reply)
        return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
