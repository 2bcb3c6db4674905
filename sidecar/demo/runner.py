"""Runs the demo until it is done or interrupted; whatever happens, nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from sidecar.demo.ledger import Ledger
from sidecar.demo.script import Script
from sidecar.demo.world import World, world
from sidecar.errors import SidecarError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupted(Exception):
    """A signal asks us to end."""


def run_script(ttl: float, port: int, say: Callable[[str], None]) -> bool:
    """Do each step once; return whether all went as promised.

    Args:
        ttl: of the sidecars' leases, seconds.
        port: of etcd; 0: any free one.
        say: gets one line per step.

    Raises:
        ConfigError: there is no etcd, or the port is taken.
        SidecarError: something does not start, or refuses a command.
    """

    async def play(world: World) -> bool:
        return await Script(world, say).run()

    done = asyncio.run(_run(ttl, port, play))
    if done is None:
        say("interrupted before the end")
    return done or False


def run_live(ttl: float, port: int) -> Ledger:
    """Show it in the terminal until the user has enough; return what was seen.

    Raises:
        ConfigError: there is no etcd, or the port is taken.
        SidecarError: something does not start.
    """
    from sidecar.demo.live import Live  # noqa: PLC0415 - needs rich, which the script does not

    ledger = Ledger()

    async def play(world: World) -> bool:
        nonlocal ledger
        ledger = world.ledger
        await Live(world).run()
        return True

    asyncio.run(_run(ttl, port, play))
    return ledger


async def _run(ttl: float, port: int, play: Callable[[World], Awaitable[bool]]) -> bool | None:
    """Return what `play` returned, None if it was interrupted."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, interrupted.set)
    result = None
    try:
        with world(ttl, port) as made:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_interrupt(interrupted), name="signals")
                await made.start()
                look = group.create_task(made.lookout.run(), name="lookout")
                result = await play(made)
                watch.cancel()
                look.cancel()
    except BaseExceptionGroup as group:
        if group.subgroup(_Interrupted) is None:
            raise _leaf(group) from group
        result = None
    return result


async def _interrupt(interrupted: asyncio.Event) -> None:
    await interrupted.wait()
    raise _Interrupted


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what the caller can handle, of the things that went wrong, or else everything."""
    found: BaseException | None = group.subgroup((SidecarError, BrokenPipeError))
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found or group
