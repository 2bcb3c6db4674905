import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import boottime
from sidecar.core.lease import NEVER
from sidecar.errors import ConfigError
from sidecar.outputs.status_dir import SeenToken, SessionRecord, StatusDirectory
from tests.support.procs import wait_until


def record(boot_id: str | None = None) -> SessionRecord:
    return SessionRecord(
        boot_id=boot_id or str(boottime.boot_id()),
        election="/e",
        id="master-0",
        cluster_id=2**63 + 1,
        lease=2**62 + 3,
        key="/e/1a",
        token=17,
        ttl=5.0,
    )


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_directory_is_made_readable_for_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        directory = StatusDirectory(tmp_path / "run" / "sidecar")
    finally:
        os.umask(before)
    assert permissions(directory.path) == 0o755
    assert list(directory.path.iterdir()) == []


def test_a_directory_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert permissions(StatusDirectory(tmp_path).path) == 0o777


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ConfigError, match=r"^--status-dir: .*file cannot be used, it is no dir"):
        StatusDirectory(path)


@pytest.mark.parametrize("suffix", ["", "/"])
def test_a_symlink_in_place_of_the_directory_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match=r"--status-dir: .*it is a symlink to .*/real; give a"):
        StatusDirectory(f"{tmp_path}/link{suffix}")


def test_a_directory_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--status-dir: .* Not a directory; give a directory"):
        StatusDirectory(tmp_path / "file" / "below")


def test_a_directory_that_cannot_be_written_is_refused(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(ConfigError, match="it cannot be written: Read-only file system; give a"):
        StatusDirectory(tiny_disk)


HOLDER = """
import sys
from sidecar.outputs.status_dir import StatusDirectory
StatusDirectory(sys.argv[1]).lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_sidecar_on_the_directory_is_told_who_has_it(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            mine = StatusDirectory(tmp_path)
            with pytest.raises(ConfigError, match=rf"another sidecar \(pid {holder.pid}\) uses"):
                mine.lock()
        finally:
            holder.kill()
    # A killed holder leaves nothing behind that would keep its successor out.
    os.close(mine.lock())


def test_the_lock_is_held_while_nobody_gives_it_back(tmp_path: Path) -> None:
    first, second = StatusDirectory(tmp_path), StatusDirectory(tmp_path)
    held = first.lock()
    assert first.lock() == held
    with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
        second.lock()
    os.close(held)
    os.close(second.lock())


def test_the_lock_is_not_handed_to_programs_that_are_started(tmp_path: Path) -> None:
    held = StatusDirectory(tmp_path).lock()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    with child:
        try:
            wait_until(
                lambda: Path(f"/proc/{child.pid}/exe").readlink() != Path(sys.executable).resolve(),
                "the other program runs",
            )
            os.close(held)
            os.close(StatusDirectory(tmp_path).lock())
        finally:
            child.kill()


def test_a_session_record_is_private_and_comes_back_whole(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    assert directory.read_session() is None
    directory.write_session(record())
    assert permissions(tmp_path / "session.json") == 0o600
    assert StatusDirectory(tmp_path).read_session() == record()
    directory.remove_session()
    directory.remove_session()
    assert directory.read_session() is None


def test_a_session_record_of_another_boot_is_nothing_to_resume(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    directory.write_session(record(boot_id="another"))
    assert directory.read_session() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1]", b'{"v": 2}', b"[" * 60_000, b'{"v": 1, "boot_id": "x"}'],
)
def test_a_foreign_record_is_none(tmp_path: Path, content: bytes) -> None:
    directory = StatusDirectory(tmp_path)
    (tmp_path / "session.json").write_bytes(content)
    (tmp_path / "seen.json").write_bytes(content)
    assert directory.read_session() is None
    assert directory.read_seen("/e") is None


def test_a_record_that_is_a_fifo_or_a_symlink_is_none(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    directory.write_session(record())
    (tmp_path / "session.json").rename(tmp_path / "elsewhere")
    (tmp_path / "session.json").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "seen.json")
    assert directory.read_session() is None
    assert directory.read_seen("/e") is None


def test_a_session_record_that_cannot_be_removed_says_so(tiny_disk: Path) -> None:
    directory = StatusDirectory(tiny_disk)
    directory.write_session(record())
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(OSError, match="Read-only"):
        directory.remove_session()
    assert directory.read_session() == record()


def test_the_largest_token_is_remembered_for_its_election_only(tmp_path: Path) -> None:
    seen = SeenToken("/e", 2**40, 2**63 + 5)
    StatusDirectory(tmp_path).write_seen(seen)
    assert StatusDirectory(tmp_path).read_seen("/e") == seen
    assert StatusDirectory(tmp_path).read_seen("/other") is None


def test_a_full_disk_leaves_the_old_file_and_no_half_of_a_new_one(tiny_disk: Path) -> None:
    directory = StatusDirectory(tiny_disk)
    directory.replace("status.json", b"old")
    with pytest.raises(OSError, match="No space left"):
        directory.replace("status.json", b"x" * 1_000_000)
    assert (tiny_disk / "status.json").read_bytes() == b"old"
    assert [path.name for path in tiny_disk.iterdir()] == ["status.json"]


def test_a_write_that_is_no_longer_meant_leaves_the_old_file(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    assert directory.replace("status.json", b"old")
    assert not directory.replace("status.json", b"new", is_meant=lambda: False)
    assert (tmp_path / "status.json").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def claim(until: float, **changes: object) -> bytes:
    document = {
        "version": 1,
        "role": "leader",
        "token": 5,
        "key": "/e/1",
        "boot_id": boottime.boot_id(),
        "valid_until_boottime": until,
        **changes,
    }
    return json.dumps(document).encode()


def test_a_predecessors_claim_counts_until_its_deadline(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    assert directory.claimed_until() == NEVER
    until = boottime.now() + 600
    for content, expected in [
        (claim(until), until),
        (claim(until, boot_id="another"), NEVER),
        (claim(until, role="follower"), NEVER),
        (claim(boottime.now() - 1), NEVER),
        (b"garbage", NEVER),
    ]:
        directory.replace("status.json", content)
        assert directory.claimed_until() == expected
