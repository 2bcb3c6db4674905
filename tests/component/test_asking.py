"""`status`, `check` and `observe` as a user meets them, without an etcd."""

import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sidecar.cli.main import run
from sidecar.outputs.status_dir import StatusDirectory
from tests.support.procs import LOOPBACK, ReservedPort
from tests.support.status_dir import follower_document, leader_document, write_status

NO_ANSWER, USAGE = 1, 2


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.removeprefix("leader-sidecar status: ").removesuffix("\n")


@pytest.fixture
def nobody() -> Iterator[int]:
    """Return a port at which nobody listens."""
    with contextlib.closing(ReservedPort()) as port:
        yield port.number


@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
def test_a_sidecar_that_does_not_listen_is_told_plainly(
    nobody: int, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://{host}:{nobody}"
    assert run(["status", "--url", url]) == NO_ANSWER
    assert said(capsys) == f"no sidecar answers at {url}: connection refused"


def test_a_name_without_an_address_is_told_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--url", "http://nobody.invalid:4040"]) == NO_ANSWER
    why = said(capsys).removeprefix("no sidecar answers at http://nobody.invalid:4040: ")
    # Where no name server answers, nobody knows whether there is such a name.
    assert why in ("its name has no address", "temporary failure in name resolution")


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection in a thread; yields the port."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                serve(connection)

        thread = Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def test_a_port_that_does_not_speak_tls_is_told_plainly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with server(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as port:
        assert run(["status", "--url", f"https://{LOOPBACK}:{port}"]) == NO_ANSWER
    assert said(capsys).endswith(": TLS failed, wrong version number")


def test_a_sidecar_that_is_killed_while_it_is_watched_is_told_plainly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def break_off(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        # Closed so, the kernel sends a reset, as for a process that had unread data.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(break_off) as port:
        url = f"http://{LOOPBACK}:{port}"
        assert run(["status", "--watch", "--url", url]) == NO_ANSWER
    assert said(capsys) == f"the sidecar at {url} ended: connection reset by peer"


@pytest.mark.parametrize(
    "url",
    ["localhost:4040", "http://h:x", "http://h:99999", "http://[::1", "ftp://h", "http://a\nb"],
)
def test_what_is_no_url_is_refused_with_what_would_be_right(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--url", url]) == USAGE
    assert said(capsys) == f"--url: {url!r} is no address; write http://HOST:PORT"


def test_a_watched_status_sets_each_state_apart_with_its_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = "".join(
        f"data: {json.dumps(follower_document(reason=reason))}\n\n"
        for reason in ("waiting", "resigned")
    )
    answer = f"HTTP/1.1 200 OK\r\n\r\n{events}".encode()
    with server(lambda connection: connection.sendall(answer)) as port:
        run(["status", "--watch", "--url", f"http://{LOOPBACK}:{port}"])
    first, second, rest = capsys.readouterr().out.split("\n\n")
    for state, reason in ((first, "waiting"), (second, "resigned")):
        assert re.match(r"--- \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\nelection ", state)
        assert f"because         {reason}\n" in state
    assert rest == ""


def shown(capsys: pytest.CaptureFixture[str], directory: Path) -> dict[str, Any]:
    assert run(["status", "--json", "--status-dir", str(directory)]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_status_whose_writer_is_gone_is_told_as_link_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = StatusDirectory(tmp_path).lock()
    written = follower_document()
    write_status(tmp_path, written)
    assert shown(capsys, tmp_path) == written
    os.close(lock)
    assert shown(capsys, tmp_path) == {**written, "link": "lost", "leader": None}
    os.close(StatusDirectory(tmp_path).lock())  # looking has left no lock behind


def test_the_claim_of_a_killed_leader_stands_until_it_has_run_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.close(StatusDirectory(tmp_path).lock())
    written = leader_document()
    write_status(tmp_path, written)
    assert shown(capsys, tmp_path) == {**written, "link": "lost"}
    write_status(tmp_path, leader_document(valid_until_boottime=1.0))
    told = shown(capsys, tmp_path)
    assert [told[name] for name in ("role", "reason", "link", "leader")] == [
        "follower",
        "deadline_passed",
        "lost",
        None,
    ]


def test_a_status_directory_without_a_lock_is_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(tmp_path, follower_document())
    assert shown(capsys, tmp_path)["link"] == "connected"
