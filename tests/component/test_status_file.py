import asyncio
import contextlib
import json
import stat
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar import boottime
from sidecar.client import Leadership
from sidecar.core.state import ElectionState, Leader
from sidecar.election.feed import Feed
from sidecar.election.ports import SystemClock
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.status_dir import StatusDirectory
from sidecar.outputs.status_file import StatusFile
from tests.support.outputs import (
    FOLLOWER,
    LONG,
    WatchedDirectory,
    leading,
    stepped_down,
    until,
)
from tests.support.procs import wait_until

SOON = 2.0  # seconds; a lease whose end the test waits for


class Rig:
    """A status file on a watched directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SystemClock()
        self.directory = WatchedDirectory(StatusDirectory(path))
        self.feed: Feed[ElectionState] = Feed(FOLLOWER)
        self.failures: list[str] = []
        self.errors = OutputErrors(self.failures.append)
        self.file = StatusFile(self.directory, self.feed, self.clock, self.errors)
        self.beside = Leadership(path)

    def leading(self, seconds: float = LONG, token: int = 8123) -> ElectionState:
        return leading(self.clock.now() + seconds, token)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "status.json").read_bytes())
        return found

    def says(self, role: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(self.document()["role"] == role) and self.markers() == {role}
        return False

    def markers(self) -> set[str]:
        return {name for name in ("leader", "follower") if (self.path / name).exists()}

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir()}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.file.follow()
        try:
            yield
        finally:
            self.feed.publish(stepped_down(self.feed.value))
            assert await self.file.close()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", path], check=True)


@contextlib.contextmanager
def filled(path: Path) -> Iterator[None]:
    ballast = path / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    try:
        yield
    finally:
        ballast.unlink()


async def test_a_leaders_file_holds_what_the_design_promises(rig: Rig) -> None:
    state = rig.leading()
    async with rig.running():
        rig.feed.publish(state)
        await until(lambda: rig.says("leader"), "the file says leader")
        document = rig.document()
        mode = stat.S_IMODE((rig.path / "status.json").stat().st_mode)
        term = rig.beside.term()
    valid_until = document.pop("valid_until")
    assert document == {
        "version": 1,
        "election": "/resources/election",
        "id": "master-0",
        "role": "leader",
        "token": 8123,
        "key": "/resources/election/694d7f2a",
        "leader": {
            "id": "master-0",
            "address": "10.0.0.7:9090",
            "token": 8123,
            "key": "/resources/election/694d7f2a",
        },
        "boot_id": boottime.boot_id(),
        "time_ns": boottime.time_namespace(),
        "since": "2027-01-15T08:00:00.512Z",
        "valid_until_boottime": state.deadline,
        "transitions": 4,
        "candidates": ["master-0", "master-1"],
        "reason": "elected",
        "link": "connected",
    }
    assert valid_until.endswith("Z")
    assert mode == 0o644
    assert term is not None
    assert (term.token, term.key, term.deadline) == (8123, document["key"], state.deadline)


async def test_a_followers_file_claims_nothing(rig: Rig) -> None:
    async with rig.running():
        rig.feed.publish(replace(FOLLOWER, is_duplicate=True, is_paused=True))
        await until(lambda: rig.says("follower"), "the file says follower")
        await until(lambda: "paused" in rig.document(), "the file says paused")
        document = rig.document()
    assert not {"token", "key", "valid_until", "valid_until_boottime"} & set(document)
    assert document["leader"]["id"] == "master-1"
    assert (document["duplicate_id"], document["paused"]) == (True, True)
    assert rig.file.is_written


async def test_every_renewal_moves_the_deadline_in_the_file(rig: Rig) -> None:
    async with rig.running():
        for state in (rig.leading(LONG), rig.leading(LONG + 1), rig.leading(LONG + 2)):
            rig.feed.publish(state)
            await until(
                lambda: (
                    rig.says("leader")
                    and rig.document()["valid_until_boottime"] == rig.feed.value.deadline
                ),
                "the renewal is in the file",
            )


async def test_the_file_turns_follower_at_the_deadline_also_while_the_event_loop_hangs(
    rig: Rig,
) -> None:
    async with rig.running():
        rig.feed.publish(rig.leading(SOON))
        await until(lambda: rig.says("leader"), "the file says leader")
        wait_until(lambda: rig.says("follower"), "the file says follower")  # blocks the loop
        assert rig.clock.now() >= rig.feed.value.deadline
        document = rig.document()
    assert (document["reason"], document["link"]) == ("deadline_passed", "suspended")
    assert document["leader"] is None


async def test_a_crash_between_two_steps_never_leaves_a_marker_that_claims_more(rig: Rig) -> None:
    seen: list[tuple[str | None, frozenset[str]]] = []

    def look() -> None:
        with contextlib.suppress(FileNotFoundError):
            seen.append((rig.document()["role"], frozenset(rig.markers())))

    rig.directory.between = look
    async with rig.running():
        for state in (rig.leading(), rig.leading(LONG + 1), FOLLOWER, rig.leading(token=8124)):
            rig.feed.publish(state)
            await until(lambda: rig.says(str(rig.feed.value.role)), "the change is written")
    assert ("leader", frozenset({"leader"})) in seen
    assert ("leader", frozenset()) in seen
    assert ("follower", frozenset({"leader"})) not in seen
    assert all(len(markers) <= 1 for _, markers in seen)


async def test_what_a_crash_left_between_two_steps_is_put_right_by_the_next_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "leader").touch()
    (tmp_path / ".status.json.tmp").write_bytes(b"half a sta")
    rig = Rig(tmp_path)
    await rig.file.write_initial()
    assert rig.says("follower")
    assert await rig.file.close()
    assert rig.names() == {"follower", "status.json"}


async def test_settle_returns_once_the_file_says_follower(rig: Rig) -> None:
    async with rig.running():
        rig.feed.publish(rig.leading())
        await until(lambda: rig.says("leader"), "the file says leader")
        rig.feed.publish(stepped_down(rig.feed.value))
        await rig.file.settle()
        assert rig.document()["role"] == "follower"
        assert rig.beside.status().problem is None
        assert "leader" not in rig.markers()


async def test_settle_does_not_need_the_run_task(rig: Rig) -> None:
    async with rig.running():
        rig.feed.publish(rig.leading())
        await until(lambda: rig.says("leader"), "the file says leader")
    rig.feed.publish(rig.leading())
    rig.feed.publish(stepped_down(rig.feed.value))
    await rig.file.settle()
    assert rig.document()["role"] == "follower"
    assert await rig.file.close()


async def test_settle_waits_while_the_feed_says_leader_though_nothing_is_written_yet(
    rig: Rig,
) -> None:
    held = contextlib.ExitStack()
    hold = held.enter_context(rig.directory.held("touch follower"))
    async with rig.running():
        with held:
            await until(hold.reached.is_set, "the file says follower, and the thread is busy")
            rig.feed.publish(rig.leading())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await rig.file.settle()
        await until(lambda: rig.says("leader"), "the file says leader")
        rig.feed.publish(stepped_down(rig.feed.value))
        await rig.file.settle()
        assert rig.document()["role"] == "follower"


@pytest.mark.parametrize("step", ["rename status.json", "touch leader"])
async def test_settle_waits_for_a_leader_write_that_is_under_way(rig: Rig, step: str) -> None:
    async with rig.running():
        await until(lambda: rig.says("follower"), "the first status is written")
        with rig.directory.held(step) as hold:
            rig.feed.publish(rig.leading())
            await until(hold.reached.is_set, "the leader write is under way")
            rig.feed.publish(stepped_down(rig.feed.value))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await rig.file.settle()
        await rig.file.settle()
        assert rig.document()["role"] == "follower"
        assert len(rig.directory.landed) == 3
        assert b'"leader", "token"' in rig.directory.landed[1]


async def test_a_leader_write_that_is_no_longer_meant_does_not_land(rig: Rig) -> None:
    async with rig.running():
        await until(lambda: rig.says("follower"), "the first status is written")
        with rig.directory.held("replace status.json") as hold:
            rig.feed.publish(rig.leading())
            await until(hold.reached.is_set, "the leader write is about to begin")
            rig.feed.publish(stepped_down(rig.feed.value))
        await rig.file.settle()
    assert [b'"role": "leader"' in content for content in rig.directory.landed].count(True) == 0


async def test_a_hung_write_counts_as_published_until_its_deadline(rig: Rig) -> None:
    async with rig.running():
        await until(lambda: rig.says("follower"), "the first status is written")
        with rig.directory.held("rename status.json") as hold:
            rig.feed.publish(rig.leading(SOON))
            deadline = rig.feed.value.deadline
            await until(hold.reached.is_set, "the leader write hangs")
            # Renewals that queue up behind it are not in anybody's hands yet.
            rig.feed.publish(rig.leading(LONG))
            rig.feed.publish(stepped_down(rig.feed.value))
            await rig.file.settle()
            assert rig.clock.now() >= deadline
            landed = len(rig.directory.landed)
        # It lands now, and says nothing that a reader believes; what queued never does.
        assert not rig.beside.is_leader()
        await until(lambda: rig.says("follower"), "the thread has caught up")
        late = [json.loads(content) for content in rig.directory.landed[landed:]]
        assert [status["role"] for status in late] == ["leader", "follower"]
        assert late[0]["valid_until_boottime"] == deadline


async def test_a_slow_disk_skips_states_and_never_queues_them(rig: Rig) -> None:
    async with rig.running():
        await until(lambda: rig.says("follower"), "the first status is written")
        with rig.directory.held("replace status.json") as hold:
            rig.feed.publish(rig.leading())
            await until(hold.reached.is_set, "a write is under way")
            for renewal in range(100):
                rig.feed.publish(rig.leading(LONG + renewal))
                await asyncio.sleep(0)  # let the run task see each of them
        wanted = rig.feed.value.deadline
        await until(
            lambda: rig.says("leader") and rig.document()["valid_until_boottime"] == wanted,
            "the last renewal is in the file",
        )
        # The one that was held, the latest, and the latest once more if its wake-up came late.
        assert len(rig.directory.landed) <= 4


async def test_a_full_disk_at_a_step_down_unlinks_the_file(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tiny_disk)
    async with rig.running():
        rig.feed.publish(rig.leading())
        await until(lambda: rig.says("leader"), "the file says leader")
        with filled(tiny_disk):
            # Too long for the space that the unlinked file leaves.
            queue = tuple(f"{'x' * 100}-{place}" for place in range(100))
            rig.feed.publish(replace(stepped_down(rig.feed.value), candidates=queue))
            await rig.file.settle()
            assert rig.markers() == set()
            assert rig.beside.status().problem == "missing"
            await until(lambda: len(rig.failures) >= 2, "the write is tried again")
        await until(lambda: rig.says("follower"), "the write succeeds at last")
    lines = [line.getMessage() for line in caplog.records if line.name.endswith("health")]
    assert [line.split(" output=")[0] for line in lines] == ["output failed"]
    assert "No space left on device" in lines[0]
    assert set(rig.failures) == {"status_file"}


async def test_a_file_that_says_follower_already_stays_on_a_full_disk(tiny_disk: Path) -> None:
    rig = Rig(tiny_disk)
    async with rig.running():
        await until(lambda: rig.says("follower"), "the first status is written")
        with filled(tiny_disk):
            rig.feed.publish(replace(FOLLOWER, transitions=4))
            await until(lambda: len(rig.failures) >= 1, "the write failed")
            assert rig.document()["transitions"] == 3


async def test_a_read_only_directory_at_a_step_down_holds_the_key_until_the_deadline(
    tiny_disk: Path,
) -> None:
    rig = Rig(tiny_disk)
    async with rig.running():
        rig.feed.publish(rig.leading(SOON))
        await until(lambda: rig.says("leader"), "the file says leader")
        deadline = rig.feed.value.deadline
        with read_only(tiny_disk):
            rig.feed.publish(stepped_down(rig.feed.value))
            await rig.file.settle()
            assert rig.clock.now() >= deadline
            assert rig.document()["role"] == "leader"
            assert not rig.beside.is_leader()
        await until(lambda: rig.says("follower"), "the write succeeds at last")


def claim_of_a_predecessor(path: Path, state: ElectionState) -> None:
    document = {
        "version": 1,
        "role": "leader",
        "token": state.token,
        "key": state.key,
        "boot_id": boottime.boot_id(),
        "valid_until_boottime": state.deadline,
    }
    (path / "status.json").write_text(json.dumps(document))
    (path / "leader").touch()


async def test_a_predecessors_claim_is_replaced_before_anything_else(tmp_path: Path) -> None:
    claim_of_a_predecessor(tmp_path, leading(boottime.now() + LONG))
    rig = Rig(tmp_path)
    assert rig.beside.is_leader()
    written = [rig.file.is_written]
    await rig.file.write_initial()
    assert rig.says("follower")
    written.append(rig.file.is_written)
    assert written == [False, True]
    assert await rig.file.close()


async def test_a_predecessors_claim_that_cannot_be_replaced_is_waited_for(
    tiny_disk: Path,
) -> None:
    deadline = boottime.now() + SOON
    claim_of_a_predecessor(tiny_disk, leading(deadline))
    rig = Rig(tiny_disk)
    with read_only(tiny_disk):
        await rig.file.write_initial()
        assert boottime.now() >= deadline
        assert not rig.beside.is_leader()
        assert not rig.file.is_written
    assert await rig.file.close()


async def test_a_hung_disk_without_a_predecessors_claim_does_not_stop_the_start(rig: Rig) -> None:
    with rig.directory.held("replace status.json"):
        await rig.file.write_initial()
        assert not rig.file.is_written
    assert await rig.file.close()


async def test_a_hung_thread_is_left_behind_at_the_end(rig: Rig) -> None:
    with rig.directory.held("replace status.json") as hold:
        await rig.file.write_initial()
        assert hold.reached.is_set()
        assert not await rig.file.close()
    assert await rig.file.close()


async def test_settle_waits_for_a_follower_write_that_hangs_before_the_file_is_replaced(
    rig: Rig,
) -> None:
    async with rig.running():
        rig.feed.publish(rig.leading())
        await until(lambda: rig.says("leader"), "the file says leader")
        with rig.directory.held("rename status.json"):
            rig.feed.publish(stepped_down(rig.feed.value))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await rig.file.settle()
            assert rig.beside.is_leader()
        await rig.file.settle()
        assert not rig.beside.is_leader()


async def test_a_marker_that_cannot_be_removed_is_believed_until_the_deadline(rig: Rig) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    async with rig.running():
        rig.feed.publish(rig.leading(SOON))
        await until(lambda: rig.says("leader"), "the file says leader")
        deadline = rig.feed.value.deadline
        rig.directory.at["remove leader"] = refuse
        rig.feed.publish(stepped_down(rig.feed.value))
        await rig.file.settle()
        assert rig.clock.now() >= deadline
        del rig.directory.at["remove leader"]
        await until(lambda: rig.says("follower"), "the marker goes at last")


async def test_a_very_long_queue_of_strangers_leaves_a_file_that_programs_still_read(
    rig: Rig,
) -> None:
    stranger = "\N{PILE OF POO}" * 4000
    state = replace(
        rig.leading(),
        candidates=("master-0", *(stranger for _ in range(1000))),
        leader=Leader(stranger, "", 8123, stranger),
    )
    async with rig.running():
        rig.feed.publish(state)
        await until(lambda: rig.says("leader"), "the file says leader")
        assert rig.beside.token == 8123
        assert rig.document()["candidates"][0] == "master-0"
        assert len((rig.path / "status.json").read_bytes()) < boottime.STATUS_LIMIT
