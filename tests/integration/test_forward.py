"""Clients that know one port only: through any sidecar they reach whoever leads."""

import http.client
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from sidecar import boottime
from tests.integration.support import LONG, Sidecar, Team
from tests.support.procs import LOOPBACK, ReservedPort, wait_until

pytestmark = pytest.mark.integration

SLACK = 10.0  # seconds on top of what is promised, for a slow machine

# A follower says `Connection: close`, as any program should that learns that it leads no more.
SERVER = """
import http.server, sys
from sidecar.client import Leadership
host, port, name, directory = sys.argv[1:]
leadership = Leadership(directory)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        if not leadership.is_leader():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
Server((host, int(port)), Handler).serve_forever()
"""


class Masters:
    """Sidecars that forward, each with a server beside it on an address of its own."""

    def __init__(self, team: Team, ttl: float, options: tuple[str, ...]) -> None:
        self.team = team
        self.names = ("a", "b", "c")
        self._ports = {name: ReservedPort() for name in self.names}
        self._target = ReservedPort("0.0.0.0")  # noqa: S104 - only reserved, nobody listens there
        self.sidecars: dict[str, Sidecar] = {}
        self.servers = {}
        for number, name in enumerate(self.names, start=2):
            host = f"127.0.0.{number}"
            rule = f"{LOOPBACK}:{self._ports[name].number}={self._target.number}"
            sidecar = team.add(
                name, f"--advertise={host}:1", f"--forward={rule}", *options, ttl=ttl
            )
            self.sidecars[name] = sidecar
            script = [sys.executable, "-c", SERVER, host, str(self._target.number), name]
            self.servers[name] = team.child([*script, str(sidecar.status_dir)], f"{name}.server")
        team.launch(*self.sidecars.values())
        for name in self.names:
            self.wait_for_answer("a", through=name)

    def connect(self, through: str) -> http.client.HTTPConnection:
        """Return a client of one sidecar."""
        return http.client.HTTPConnection(LOOPBACK, self._ports[through].number, timeout=LONG)

    def reached(self, through: str) -> str | None:
        """Return who answers a new connection, or None when it is closed."""
        connection = self.connect(through)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def wait_for_answer(self, name: str, *, through: str) -> None:
        """Wait until this one answers."""
        wait_until(lambda: self.reached(through) == name, f"{name} through {through}", LONG)

    def kill(self, name: str) -> None:
        """Kill a sidecar with its server, as if the machine were gone."""
        self.sidecars[name].kill()
        self.servers[name].kill()

    def close(self) -> None:
        for port in (*self._ports.values(), self._target):
            port.close()


TTL = 3


@pytest.fixture
def masters(team: Team, request: pytest.FixtureRequest) -> Iterator[Masters]:
    options: tuple[str, ...] = getattr(request, "param", ("--forward-linger=1s",))
    made = Masters(team, TTL, options)
    yield made
    made.close()


class Load:
    """Clients that ask without a pause, each through one sidecar, on connections kept alive."""

    def __init__(self, masters: Masters) -> None:
        self.failures: list[str] = []
        self.answers: list[str] = []
        self._masters = masters
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(name,)) for name in masters.names * 2
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(LONG)

    def wait_for_answer_of(self, name: str) -> None:
        """Wait until this one has answered a request from now on."""
        asked = len(self.answers)
        wait_until(lambda: name in self.answers[asked:], f"{name} answers", LONG)

    def _ask(self, through: str) -> None:
        connection = self._masters.connect(through)
        while not self._is_over.wait(0.02):
            try:
                connection.request("GET", "/")
                self.answers.append(connection.getresponse().read().decode())
            except (OSError, http.client.HTTPException) as exc:
                self.failures.append(f"{through}: {exc!r}")
                connection.close()
        connection.close()


@pytest.mark.parametrize(
    "masters", [("--drain=500ms", "--forward-drain=2s", "--forward-wait=20s")], indirect=True
)
def test_planned_handovers_lose_no_request(team: Team, masters: Masters) -> None:
    with Load(masters) as load:
        for _ in range(4):
            leader = team.wait_for_leader()
            token = leader.token or 0
            assert team.command("handover").returncode == 0
            load.wait_for_answer_of(team.wait_for_leader(after=token).name)
        time.sleep(2.5)  # past the drain of the last handover: what is closed then must not matter
    assert load.failures == []
    assert len(set(load.answers)) > 1


def test_after_a_crash_of_the_leader_the_next_one_is_reached_in_time(
    team: Team, masters: Masters
) -> None:
    token = masters.sidecars["a"].token or 0
    masters.kill("a")
    killed = boottime.now()
    masters.wait_for_answer("b", through="c")
    assert boottime.now() - killed < TTL + SLACK
    wait_until(lambda: (masters.sidecars["b"].token or 0) > token, "b leads with a later token")
    assert masters.reached("b") == "b"


def test_a_frozen_leader_passes_nothing_new_to_its_program_when_it_wakes(
    team: Team, masters: Masters
) -> None:
    frozen = masters.sidecars["a"]
    token = frozen.token or 0
    frozen.child.signal(signal.SIGSTOP)
    team.wait_for_leader(after=token)
    connections = [masters.connect("a") for _ in range(20)]
    for connection in connections:
        connection.request("GET", "/")  # they are in its backlog when it wakes
    frozen.child.signal(signal.SIGCONT)
    answers = []
    for connection in connections:
        answers.append(connection.getresponse().read().decode())
        connection.close()
    assert "a" not in answers


@pytest.mark.parametrize("masters", [("--forward-linger=4s",)], indirect=True)
def test_a_stopping_sidecar_goes_on_forwarding_to_the_next_leader(
    team: Team, masters: Masters
) -> None:
    stopping = masters.sidecars["a"]
    token = stopping.token or 0
    stopping.child.signal(signal.SIGTERM)
    leader = team.wait_for_leader(after=token)
    assert stopping.child.running
    assert masters.reached("a") == leader.name
    assert stopping.child.wait(LONG) == 0
    assert masters.reached("a") is None
    assert any("reason=shutdown" in line for line in stopping.log)


def test_what_it_does_is_in_the_metrics(masters: Masters) -> None:
    assert masters.reached("c") == "a"
    text = masters.sidecars["c"].get("/metrics")[1]
    lines = [line for line in text.splitlines() if line.startswith("leader_election_forward_")]
    assert any(line.startswith("leader_election_forward_connections_total") for line in lines)
    assert any('direction="to_client"' in line and not line.endswith(" 0.0") for line in lines)


def test_a_second_signal_ends_the_lingering(team: Team, masters: Masters) -> None:
    sidecar = team.add("d", "--forward=127.0.0.1:0=9", "--forward-linger=60s")
    sidecar.start().wait_for_code("/readyz", 200)
    sidecar.child.signal(signal.SIGTERM)
    sidecar.wait_for_log("stopping signal=SIGTERM")
    sidecar.child.signal(signal.SIGTERM)
    assert sidecar.child.wait(LONG) == 0


def test_a_taken_port_is_told_before_anything_else(team: Team) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        number = taken.getsockname()[1]
        sidecar = team.add("x", f"--forward={LOOPBACK}:{number}=9090")
        sidecar.start()
        assert sidecar.child.wait(LONG) == 2
    assert f"--forward: cannot listen on {LOOPBACK}:{number}: address already in use" in "\n".join(
        sidecar.log
    )
