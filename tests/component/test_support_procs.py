"""Children are watched, frozen and always gone; reserved ports stay ours."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.procs import LOOPBACK, Child, ReservedPort, free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
# A parent that starts a child, says its process id and then waits to be killed.
PARENT = """
import sys
from pathlib import Path
from tests.support.procs import Child
child = Child([sys.argv[2], "600"], name="child", folder=Path(sys.argv[1])).start()
print(child.pid, flush=True)
sys.stdin.read()
"""


def shell(script: str, folder: Path) -> Child:
    return Child(["sh", "-c", script], name="shell", folder=folder)


def exists(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(") ")[2][0] != "Z"  # a zombie waits for init, it runs no more


def test_a_line_is_found_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with shell("read word; echo heard $word; read word; echo heard $word", tmp_path) as child:
        child.send_line("one")
        assert child.wait_for_line(r"heard (\w+)")[1] == "one"
        child.send_line("two")
        assert child.wait_for_line(r"heard (\w+)", skip=1)[1] == "two"
        assert child.wait() == 0


def test_a_child_that_ends_without_the_line_fails_at_once_and_shows_what_it_said(
    tmp_path: Path,
) -> None:
    with (
        shell("echo why >&2; exit 3", tmp_path) as child,
        pytest.raises(AssertionError, match=r"(?s)ended without.*exit code: 3.*why"),
    ):
        child.wait_for_line("never")


def test_the_exit_code_is_minus_the_signal(tmp_path: Path) -> None:
    with shell("sleep 600", tmp_path) as child:
        assert child.terminate() == -signal.SIGTERM
        assert child.returncode == -signal.SIGTERM


def test_a_paused_child_does_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    with shell("while read word; do echo heard $word; done", tmp_path) as child:
        child.send_line("one")
        child.wait_for_line("heard one")
        child.pause()
        child.send_line("two")
        with pytest.raises(AssertionError, match="said within"):
            child.wait_for_line("heard two", within=0.2)
        child.resume()
        child.wait_for_line("heard two")


def test_terminate_reaches_a_paused_child(tmp_path: Path) -> None:
    with shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", tmp_path) as child:
        child.wait_for_line("ready")
        child.pause()
        assert child.terminate() == 7


def test_a_restarted_child_adds_to_its_output(tmp_path: Path) -> None:
    with shell("echo $$", tmp_path) as child:
        child.wait()
        child.start()
        child.wait()
        assert len(set(child.lines())) == 2


def test_what_a_child_leaves_in_its_group_goes_with_it(tmp_path: Path) -> None:
    with shell("sleep 600 & echo $!; exit 0", tmp_path) as child:
        left_behind = int(child.wait_for_line(r"\d+")[0])
        child.wait()
        assert exists(left_behind)
    wait_until(lambda: not exists(left_behind), "the grandchild is gone")


def test_settings_of_the_user_do_not_reach_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCDCTL_USER", "stray")
    monkeypatch.setenv("LEADER_SIDECAR_TTL", "stray")
    child = Child(["env"], name="env", folder=tmp_path, env={"LEADER_SIDECAR_ID": "given"})
    with child:
        child.wait()
        assert "LEADER_SIDECAR_ID=given" in child.lines()
        assert "stray" not in child.text()


def test_a_child_is_refused_outside_the_main_thread(tmp_path: Path) -> None:
    refusals: list[str] = []

    def try_to_start() -> None:
        try:
            shell("true", tmp_path).start()
        except RuntimeError as refusal:
            refusals.append(str(refusal))

    thread = threading.Thread(target=try_to_start)
    thread.start()
    thread.join()
    assert len(refusals) == 1


@pytest.mark.parametrize("with_setpriv", [True, False])
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path, *, with_setpriv: bool) -> None:
    if with_setpriv and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    path = os.environ["PATH"] if with_setpriv else str(tmp_path)
    sleep = shutil.which("sleep")
    assert sleep is not None
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), sleep],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # The signal is armed between fork and exec: until then the name is still another one.
        name = Path(f"/proc/{child}/comm")
        wait_until(lambda: name.read_text() == "sleep\n", "the child runs")
        parent.kill()
    wait_until(lambda: not exists(child), "the child is gone")


def test_a_server_can_listen_on_a_reserved_port_and_nobody_else_gets_it() -> None:
    reserved = ReservedPort()
    try:
        with socket.create_server((LOOPBACK, reserved.number)):
            pass
        with socket.create_server((LOOPBACK, reserved.number)):
            pass
        with socket.socket() as without_reuse, pytest.raises(OSError, match="in use"):
            without_reuse.bind((LOOPBACK, reserved.number))
    finally:
        reserved.close()


def test_a_free_port_is_not_listened_on() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, free_port()))
