"""The socket that `retire` speaks to: what clients and disks do to it, it survives."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sidecar.outputs.health import OutputErrors
from sidecar.retire import DONE, RETIRE, SOCKET, STEPPED_DOWN
from sidecar.retire_socket import RetireSocket
from tests.support.outputs import PATIENCE, until


async def at_once() -> None:
    """Be settled already."""


class Rig:
    """A socket that serves, and what it has done."""

    def __init__(self, directory: Path, stepped_down: Callable[[], Awaitable[None]]) -> None:
        self.path = directory / SOCKET
        self.requests = 0
        self.failures: list[str] = []
        self.unhandled: list[dict[str, object]] = []
        self.socket = RetireSocket(
            directory,
            retire=self._retire,
            stepped_down=stepped_down,
            given_up=self._given_up,
            errors=OutputErrors(self.failures.append),
        )

    def _retire(self) -> None:
        self.requests += 1

    async def _given_up(self) -> bool:
        return True

    async def say(self, words: bytes) -> bytes:
        """Say something and return all that comes back until the socket hangs up."""
        await until(self.path.exists, "the socket is there")
        reader, writer = await asyncio.open_unix_connection(self.path)
        heard = b""
        async with asyncio.timeout(PATIENCE):
            # It may hang up before it has heard all, with a reset.
            with suppress(ConnectionError):
                writer.write(words)
                await writer.drain()
                heard = await reader.read()
        writer.close()
        return heard


@asynccontextmanager
async def serving(
    directory: Path, stepped_down: Callable[[], Awaitable[None]] = at_once
) -> AsyncIterator[Rig]:
    rig = Rig(directory, stepped_down)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: rig.unhandled.append(context))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(rig.socket.run())
        yield rig
        task.cancel()
    assert rig.unhandled == []


async def test_a_request_is_answered_step_by_step(tmp_path: Path) -> None:
    async with serving(tmp_path) as rig:
        assert await rig.say(RETIRE) == STEPPED_DOWN + DONE
        assert rig.requests == 1
    assert not rig.path.exists()


@pytest.mark.parametrize("line", [b"x" * 1_000_000, b"x" * 1_000_000 + b"\n", b"resign\n", b"\n"])
async def test_a_line_that_is_no_request_is_hung_up_on_and_the_next_one_heard(
    tmp_path: Path, line: bytes
) -> None:
    async with serving(tmp_path) as rig:
        assert await rig.say(line) == b""
        assert rig.requests == 0
        assert await rig.say(RETIRE) == STEPPED_DOWN + DONE


async def test_a_disk_that_is_full_while_it_answers_costs_this_answer_only(tmp_path: Path) -> None:
    disk = [OSError(errno.ENOSPC, "No space left on device")]

    async def settle() -> None:
        while disk:
            raise disk.pop()

    async with serving(tmp_path, settle) as rig:
        assert await rig.say(RETIRE) == b""
        assert rig.requests == 1, "it retires all the same"
        assert await rig.say(RETIRE) == STEPPED_DOWN + DONE
        assert rig.failures == []


async def test_a_socket_that_cannot_be_made_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SOCKET).mkdir()  # in its way, and no file that could be removed
    with caplog.at_level(logging.INFO):
        async with serving(tmp_path) as rig:
            await until(lambda: len(rig.failures) >= 2, "two tries failed")
            (tmp_path / SOCKET).rmdir()
            await until(lambda: "works again" in caplog.text, "it works")
            assert await rig.say(RETIRE) == STEPPED_DOWN + DONE
    assert caplog.text.count("output failed") == 1
