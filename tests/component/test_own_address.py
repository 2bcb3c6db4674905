"""The machine's own address, in network namespaces whose addresses are known."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar.addresses import interfaces
from tests.support.netns import NetNs, missing_reason

ROOT = Path(__file__).parents[2]
PROGRAM = "from sidecar.addresses import own_address; print(own_address())"


@pytest.fixture(autouse=True)
def namespaces() -> None:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(reason)


def told(prefix: Sequence[str]) -> str:
    """Return what a process with this prefix takes for its own address."""
    command = [*prefix, sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_is_the_one_of_the_only_cable(tmp_path: Path) -> None:
    with NetNs(tmp_path) as netns:
        assert told(netns.prefix) == netns.inside


def test_there_is_none_with_a_loopback_alone() -> None:
    script = 'ip link set lo up && exec "$@"'
    assert told(["unshare", "--net", "sh", "-c", script, "sh"]) == "None"


def test_an_address_of_an_interface_that_is_down_is_not_taken() -> None:
    script = (
        "ip link add off0 type veth peer name on0 && ip addr add 198.18.0.1/24 dev off0 && "
        'ip addr add 198.18.1.1/24 dev on0 && ip link set on0 up && exec "$@"'
    )
    assert told(["unshare", "--net", "sh", "-c", script, "sh"]) == "198.18.1.1"


def test_the_loopback_is_among_this_machines_interfaces() -> None:
    assert "127.0.0.1" in {found.address for found in interfaces()}
