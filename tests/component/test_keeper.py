"""What the status directory remembers for a restart, written by a thread that must not die."""

import asyncio
import threading
from pathlib import Path

from sidecar.election.ports import Standing
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.keeper import StatusKeeper
from sidecar.outputs.status import boot_id
from sidecar.outputs.status_dir import StatusDirectory
from tests.support.outputs import PATIENCE

STANDING = Standing(lease=7, key="/resources/election/7", token=8123, ttl=5.0, cluster_id=1)


class HeldDirectory(StatusDirectory):
    """A directory whose disk hangs when `session.json` is to be removed, until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_hanging = threading.Event()
        self.let_go = threading.Event()

    def remove_session(self) -> None:
        self.is_hanging.set()
        assert self.let_go.wait(PATIENCE)
        super().remove_session()


def keeper(directory: StatusDirectory) -> StatusKeeper:
    errors = OutputErrors(lambda _: None)
    boot = boot_id() or ""
    return StatusKeeper(
        directory, election="/resources/election", id_="master-0", boot_id=boot, errors=errors
    )


def test_what_was_remembered_is_forgotten_in_the_order_of_the_calls(tmp_path: Path) -> None:
    directory = StatusDirectory(tmp_path)
    kept = keeper(directory)
    kept.remember(STANDING)
    assert asyncio.run(kept.forget())
    assert directory.read_session() is None


def test_a_loop_that_is_closed_before_the_disk_answers_does_not_end_the_thread(
    tmp_path: Path,
) -> None:
    """Telling a closed loop raises RuntimeError in the thread, which others still need."""
    directory = HeldDirectory(tmp_path)
    kept = keeper(directory)
    kept.remember(STANDING)

    async def ask_and_leave() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(kept.forget())
            await asyncio.to_thread(directory.is_hanging.wait, PATIENCE)
            task.cancel()

    asyncio.run(ask_and_leave())
    directory.let_go.set()
    assert asyncio.run(kept.forget())
    assert directory.read_session() is None
