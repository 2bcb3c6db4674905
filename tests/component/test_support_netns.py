"""A network namespace can be cut off silently, in either direction, and leaves nothing behind."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import NetNs, missing_reason
from tests.support.procs import PATIENCE, Child, wait_until

# Answers each datagram with the same one, and says that it came.
ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], 4000))
    print("ready", flush=True)
    while True:
        data, sender = server.recvfrom(100)
        print("heard", data.decode(), flush=True)
        server.sendto(data, sender)
"""


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[NetNs]:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(reason)
    with NetNs(tmp_path) as made:
        yield made


@pytest.fixture
def echo(netns: NetNs, tmp_path: Path) -> Iterator[Child]:
    command = [sys.executable, "-c", ECHO, netns.inside]
    with Child(command, name="echo", folder=tmp_path, prefix=netns.prefix) as child:
        child.wait_for_line("ready")
        yield child


@pytest.fixture
def client(netns: NetNs) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect((netns.inside, 4000))
        made.settimeout(PATIENCE)
        yield made


def test_a_server_inside_is_reached_from_outside(echo: Child, client: socket.socket) -> None:
    client.send(b"hello")
    assert client.recv(100) == b"hello"


def test_a_cut_loses_packets_without_an_error_and_heals(
    netns: NetNs, echo: Child, client: socket.socket
) -> None:
    netns.cut()
    client.send(b"lost")
    netns.heal()
    client.send(b"found")
    assert client.recv(100) == b"found"
    assert "lost" not in echo.text()


def test_one_direction_can_be_cut_alone(netns: NetNs, echo: Child, client: socket.socket) -> None:
    netns.cut(to_inside=False)
    client.send(b"one")
    echo.wait_for_line("heard one")
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.recv(100)
    client.settimeout(PATIENCE)
    netns.heal()
    client.send(b"two")
    assert client.recv(100) == b"two"


def test_the_cable_and_the_namespace_go_with_the_context(tmp_path: Path) -> None:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(reason)
    with NetNs(tmp_path) as netns:
        assert netns.outside in addresses()
        inside = netns.prefix[1].removeprefix("--net=")
    assert netns.outside not in addresses()
    wait_until(lambda: not Path(inside).exists(), "the holder is gone")


def addresses() -> str:
    shown = subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True)
    return shown.stdout
