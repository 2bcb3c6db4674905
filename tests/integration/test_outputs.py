"""A status directory that cannot be written, is shared, or stands twice; a port that is taken."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar import boottime
from tests.integration.conftest import Disk
from tests.integration.support import LONG, USAGE, Sidecar, Team
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration


# The rights of files bind root, too, once it has no right to override them.
BOUND = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--") if os.geteuid() == 0 else ()
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a status directory that `chmod` makes read-only for a sidecar run by `BOUND`."""
    if BOUND and shutil.which(BOUND[0]) is None:
        pytest.skip(f"to bind root to the rights of files needs {BOUND[0]}")
    path = tmp_path / "folder"
    path.mkdir()
    return path


def claim(sidecar: Sidecar) -> float:
    """Return until when its status file may be believed."""
    until = sidecar.document().get("valid_until_boottime", 0.0)
    assert isinstance(until, float | int)
    return until


def test_a_read_only_status_directory_ends_the_start(folder: Path, team: Team) -> None:
    folder.chmod(0o555)
    a = team.add("a", status_dir=folder, prefix=BOUND).start()
    assert a.child.wait() == USAGE
    (line,) = a.log
    assert "--status-dir" in line
    assert "Permission denied" in line


def test_a_status_directory_that_is_full_at_the_start_is_written_when_there_is_room(
    disk: Disk, team: Team
) -> None:
    disk.fill()
    a = team.add("a", status_dir=disk.path).start()
    a.wait_for_code("/leader", 200)
    line = a.wait_for_log("WARNING .*output failed output=status_file")
    assert "No space left" in line
    assert not a.leadership.is_leader()
    assert 'leader_election_output_errors_total{name="' in a.get("/metrics")[1]
    disk.clear()
    a.wait_for("leader")
    a.wait_for_log("output works again output=status_file")
    assert a.says_everywhere("leader")


def test_a_full_disk_lets_the_status_run_out_and_costs_no_leadership(
    disk: Disk, team: Team
) -> None:
    a, b = team.add("a", status_dir=disk.path), team.add("b")
    team.launch(a, b)
    token = a.token
    disk.fill()
    a.wait_for("follower")  # its last word has run out, and says so by itself
    assert a.check() == 1
    assert a.code("/leader") == 200
    disk.clear()
    a.wait_for("leader")
    assert (a.token, b.document()["leader"]["token"]) == (token, token)
    assert team.terms() == [("a", token)]
    assert sum("output failed output=status_file" in line for line in a.log) == 1


def test_a_full_disk_does_not_keep_a_leader_from_stepping_down_in_order(
    disk: Disk, team: Team
) -> None:
    a, b = team.add("a", status_dir=disk.path, ttl=20), team.add("b", ttl=20)
    team.launch(a, b)
    token = a.token or 0
    disk.fill()
    until = claim(a)
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token) is b
    assert boottime.now() < until, "the file was unlinked, nobody had to wait"
    assert a.check() == 1


def test_a_read_only_directory_makes_the_key_outlive_the_last_word(
    folder: Path, team: Team
) -> None:
    a, b = team.add("a", status_dir=folder, prefix=BOUND), team.add("b")
    team.launch(a, b)
    token = a.token or 0
    folder.chmod(0o555)
    until = claim(a)
    a.child.signal(signal.SIGTERM)
    a.wait_for_code("/leader", 503)
    assert team.wait_for_leader(after=token) is b
    assert boottime.now() >= until
    assert a.child.wait(LONG) == 1
    a.wait_for_log("session.json cannot be removed")


def test_a_resign_waits_for_the_last_word_in_a_read_only_directory(
    folder: Path, team: Team
) -> None:
    a, b = team.add("a", status_dir=folder, prefix=BOUND), team.add("b")
    team.launch(a, b)
    token = a.token or 0
    folder.chmod(0o555)
    until = claim(a)
    team.command("resign")
    assert team.wait_for_leader(after=token) is b
    assert boottime.now() >= until
    folder.chmod(0o755)
    a.wait_until(lambda status: status["role"] == "follower", "the file is written again")
    team.wait_for_queue("b", "a")


@pytest.fixture
def pinned(team: Team) -> Iterator[Callable[[Path], None]]:
    """Return what makes a file impossible to replace and to remove, while it can be read."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file needs root")
    mounted: list[Path] = []

    def pin(path: Path) -> None:
        command = ["mount", "--bind", str(path), str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no file can be mounted here: {done.stderr.strip()}")
        mounted.append(path)

    yield pin
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_status_file_that_cannot_be_replaced_keeps_the_key_until_it_has_run_out(
    pinned: Callable[[Path], None], team: Team
) -> None:
    a, b = team.start("a", "b", ttl=6)
    token = a.token or 0
    pinned(a.status_dir / "status.json")
    until = claim(a)
    a.child.signal(signal.SIGTERM)
    a.wait_for_code("/leader", 503)
    assert a.document()["role"] == "leader", "its last word still stands"
    assert team.wait_for_leader(after=token) is b
    assert boottime.now() >= until
    assert a.child.wait(LONG) == 0


def test_a_taken_port_ends_the_start_with_its_number(team: Team) -> None:
    a = team.add("a").start()
    a.wait_for("leader")
    port = a.url.rpartition(":")[2]
    b = team.add("b", f"--http=127.0.0.1:{port}").start()
    assert b.child.wait() == USAGE
    (line,) = b.log
    assert "--http" in line
    assert port in line
    assert a.says_everywhere("leader")


def test_the_second_sidecar_on_a_status_directory_ends_and_disturbs_nobody(team: Team) -> None:
    a = team.add("a").start()
    a.wait_for("leader")
    b = team.add("b", status_dir=a.status_dir).start()
    assert b.child.wait() == USAGE
    (line,) = b.log
    assert str(a.status_dir) in line
    assert str(a.child.pid) in line
    a.wait_for_proof(3)
    assert a.document()["id"] == "a"
    assert team.terms()[0] == ("a", a.token)
    del team.members["b"]
    team.recorder.forget("b")


def told_flags(sidecar: Sidecar) -> list[str]:
    beginning = "leader-sidecar run: "
    problems = [line for line in sidecar.log if line.startswith(beginning)]
    return [line.removeprefix(beginning).partition(":")[0] for line in problems]


def test_a_taken_port_a_taken_directory_and_a_bad_certificate_are_told_together(
    team: Team, tmp_path: Path
) -> None:
    a = team.add("a").start()
    a.wait_for("leader")
    no_pem = tmp_path / "no.pem"
    no_pem.touch()
    port = f"--http=127.0.0.1:{a.url.rpartition(':')[2]}"
    bad = [
        port,
        f"--cert={no_pem}",
        f"--key={no_pem}",
        f"--endpoints={team.endpoints.replace('http', 'https')}",
    ]
    b = team.add("b", *bad, status_dir=a.status_dir).start()
    del team.members["b"]
    team.recorder.forget("b")
    assert b.child.wait() == USAGE
    assert told_flags(b) == ["--status-dir", "--cert", "--http"]
    c = team.add("c", *bad).start()
    assert c.child.wait() == USAGE
    assert told_flags(c) == ["--cert", "--http"]
    assert a.says_everywhere("leader")


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_status_directory_that_is_none_ends_the_start(
    team: Team, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "status"
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path)
    a = team.add("a", status_dir=path).start()
    assert a.child.wait() == USAGE
    (line,) = a.log
    assert str(path) in line


def test_of_two_with_one_id_the_younger_says_so_and_follows(team: Team, tmp_path: Path) -> None:
    old = team.add("twin", status_dir=tmp_path / "old").start()
    old.wait_for("leader")
    del team.members["twin"]
    team.members["old"] = old
    young = team.add("twin", status_dir=tmp_path / "young").start()
    young.wait_until(lambda status: status.get("duplicate_id") is True, "it knows its twin")
    young.wait_for_log("another candidate .*same id")
    assert "duplicate_id" not in old.document()
    assert young.says_everywhere("follower")
    assert old.says_everywhere("leader")
    assert old.terminate() == 0
    young.wait_for("leader")
    wait_until(lambda: "duplicate_id" not in young.document(), "it stands alone", LONG)
    assert len([line for line in young.log if "same id" in line]) == 1
