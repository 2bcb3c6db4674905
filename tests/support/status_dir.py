"""Status directories as the sidecar would write them, for tests of those who read them."""

import json
from pathlib import Path
from typing import Any

from sidecar import boottime

AN_HOUR = 3600.0
KEY = "/resources/election/694d7f2a"
TOKEN = 8123


def leader_document(**changes: Any) -> dict[str, Any]:
    """Return what a leader's sidecar writes, good for an hour; a change to None leaves it out."""
    document = {
        "version": 1,
        "election": "/resources/election",
        "id": "master-0",
        "role": "leader",
        "token": TOKEN,
        "key": KEY,
        "leader": {"id": "master-0", "address": "10.0.0.7:9090", "token": TOKEN, "key": KEY},
        "boot_id": boottime.boot_id(),
        "since": "2026-11-21T04:50:11.512Z",
        "valid_until": "2026-11-21T04:50:16.012Z",
        "valid_until_boottime": boottime.now() + AN_HOUR,
        "transitions": 4,
        "candidates": ["master-0", "master-1"],
        "reason": "elected",
        "link": "connected",
    }
    return {name: value for name, value in (document | changes).items() if value is not None}


def follower_document(**changes: Any) -> dict[str, Any]:
    """Return what a follower's sidecar writes while master-1 leads."""
    leader = {"id": "master-1", "address": "10.0.0.8:9090", "token": TOKEN + 1, "key": f"{KEY}b"}
    void = {"token": None, "key": None, "valid_until": None, "valid_until_boottime": None}
    told = {"role": "follower", "leader": leader, "reason": "resigned"}
    return leader_document(**void | told | changes)


def write_status(directory: Path, content: dict[str, Any] | bytes) -> None:
    """Replace the status file as the sidecar does: a new file, renamed over the old one."""
    directory.mkdir(exist_ok=True)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    fresh = directory / "status.json.new"
    fresh.write_bytes(raw)
    fresh.rename(directory / "status.json")
