"""Am I the leader, with which token? Real files, the real clock."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sidecar import boottime
from sidecar.client import LeaderInfo, Leadership, Term
from tests.support.status_dir import KEY, TOKEN, follower_document, leader_document, write_status


def test_a_live_leader_has_a_token_and_a_key(tmp_path: Path) -> None:
    document = leader_document()
    write_status(tmp_path, document)
    leadership = Leadership(tmp_path)
    assert leadership.is_leader()
    assert (leadership.token, leadership.key) == (TOKEN, KEY)
    assert leadership.term() == Term(TOKEN, KEY, document["valid_until_boottime"])
    assert leadership.leader == LeaderInfo("master-0", "10.0.0.7:9090", TOKEN, KEY)


def test_a_follower_knows_the_leader_and_has_no_token(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    leadership = Leadership(str(tmp_path))
    assert not leadership.is_leader()
    assert (leadership.token, leadership.key, leadership.term()) == (None, None, None)
    assert leadership.leader == LeaderInfo("master-1", "10.0.0.8:9090", TOKEN + 1, f"{KEY}b")


def test_a_followers_token_is_nobodys_even_if_the_file_has_one(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document(role="follower"))
    leadership = Leadership(tmp_path)
    assert (leadership.is_leader(), leadership.token, leadership.key) == (False, None, None)


def test_the_status_carries_what_the_file_says(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    status = Leadership(tmp_path).status()
    assert (status.role, status.id, status.election) == (
        "leader",
        "master-0",
        "/resources/election",
    )
    assert (status.transitions, status.candidates) == (4, ("master-0", "master-1"))
    assert (status.reason, status.link, status.problem) == ("elected", "connected", None)


def test_every_question_reads_the_file_anew(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    answers = []
    for document in (leader_document(), follower_document(), leader_document(token=9000)):
        write_status(tmp_path, document)
        answers.append((leadership.is_leader(), leadership.token))
    assert answers == [(True, TOKEN), (False, None), (True, 9000)]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"valid_until_boottime": 1.0}, "expired"),
        ({"boot_id": "00000000-0000-0000-0000-000000000000"}, "other_boot"),
        ({"boot_id": None}, "other_boot"),
        ({"time_ns": 1}, "other_time_namespace"),
        ({"token": None}, "malformed"),
        ({"version": 2}, "unknown_version"),
    ],
)
def test_a_claim_that_does_not_hold_here_and_now_is_no_leadership(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    write_status(tmp_path, leader_document(**changes))
    leadership = Leadership(tmp_path)
    assert not leadership.is_leader()
    assert leadership.status().problem == problem
    assert (leadership.token, leadership.key, leadership.leader) == (None, None, None)


def test_a_claim_of_our_own_time_namespace_holds(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document(time_ns=boottime.time_namespace()))
    assert Leadership(tmp_path).is_leader()


def test_a_reader_in_another_time_namespace_does_not_believe(tmp_path: Path) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--time", "--boottime", "-100", "--fork"]
    program = (
        "import sys\nfrom sidecar.client import Leadership\n"
        "print(Leadership(sys.argv[1]).status().problem)"
    )
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine makes no time namespaces for us")
    write_status(tmp_path, leader_document(time_ns=boottime.time_namespace()))
    read = [*apart, sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.check_output(read, text=True).strip() == "other_time_namespace"


def test_a_reader_that_knows_no_boot_id_believes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boottime, "_BOOT_ID", str(tmp_path / "missing"))
    write_status(tmp_path, leader_document(boot_id="any"))
    assert Leadership(tmp_path).status().problem == "other_boot"


def test_the_clock_is_read_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that is frozen between the read and the comparison must not believe the file.
    deadline = boottime.now() + 100
    write_status(tmp_path, leader_document(valid_until_boottime=deadline))
    leadership, clock = Leadership(tmp_path), [deadline - 1]
    read = boottime._read_limited

    def read_and_freeze(path: str) -> bytes:
        raw = read(path)
        clock[0] = deadline
        return raw

    monkeypatch.setattr(boottime, "now", lambda: clock[0])
    assert leadership.is_leader()
    monkeypatch.setattr(boottime, "_read_limited", read_and_freeze)
    assert not leadership.is_leader()


def test_a_missing_directory_means_follower(tmp_path: Path) -> None:
    status = Leadership(tmp_path / "not" / "there").status()
    assert (status.role, status.problem) == ("follower", "missing")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "malformed"), (b"{" * (1 << 20) + b"{", "too_large"), (b"\x00\xff", "malformed")],
)
def test_a_broken_file_means_follower(tmp_path: Path, content: bytes, problem: str) -> None:
    write_status(tmp_path, content)
    assert Leadership(tmp_path).status().problem == problem


def test_what_is_no_file_means_follower_and_does_not_hang(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    os.mkfifo(tmp_path / "status.json")
    assert leadership.status().problem == "unreadable"
    (tmp_path / "status.json").unlink()
    (tmp_path / "status.json").mkdir()
    assert leadership.status().problem == "unreadable"


def test_a_file_in_place_of_the_directory_means_follower(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Leadership(tmp_path / "file").status().problem == "unreadable"


def test_optional_parts_of_a_wrong_type_are_left_out(tmp_path: Path) -> None:
    odd = {"leader": ["x"], "candidates": 3, "transitions": "4", "since": 5, "reason": {}}
    write_status(tmp_path, follower_document(**odd))
    status = Leadership(tmp_path).status()
    assert status.problem is None
    assert (status.leader, status.candidates, status.transitions) == (None, (), 0)
    assert (status.since, status.reason) == (None, None)


def test_a_leader_without_an_address_is_a_leader(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document(leader={"id": "go", "token": 5, "key": "/e/5"}))
    assert Leadership(tmp_path).leader == LeaderInfo("go", "", 5, "/e/5")


def test_threads_never_see_a_token_of_one_term_with_the_key_of_another(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document(token=1, key="/e/1"))
    leadership, torn, over = Leadership(tmp_path), [], threading.Event()

    def ask() -> None:
        while not over.is_set():
            term = leadership.term()
            if term is None or term.key != f"/e/{term.token}":
                torn.append(term)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for token in range(2, 300):
        write_status(tmp_path, leader_document(token=token, key=f"/e/{token}"))
    over.set()
    for thread in threads:
        thread.join()
    assert torn == []


def test_asking_leaves_no_descriptor_open(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    before = sorted(Path("/proc/self/fd").iterdir())
    for content in (leader_document(), b"{", follower_document()):
        write_status(tmp_path, content)
        leadership.status()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_the_client_loads_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, sidecar.client\n"
        "ours = [name for name in sys.modules if name.startswith('sidecar')]\n"
        "print(*sorted(ours), 'asyncio' in sys.modules, 'ctypes' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    ours = ["sidecar", "sidecar.boottime", "sidecar.client", "sidecar.directory_watch"]
    assert said == [*ours, "False", "False"]
