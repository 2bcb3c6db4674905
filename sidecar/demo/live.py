"""The live view: draws ten times a second and listens to keys until the user has enough."""

from __future__ import annotations

import asyncio
import errno
import sys

import rich.live
from rich.console import Console

from sidecar.demo.actions import Actions
from sidecar.demo.keys import HANGUP, keyboard, pressed
from sidecar.demo.screen import Screen
from sidecar.demo.story import Story
from sidecar.demo.world import World

_FRAME = 0.1  # seconds
_QUIT = {"q", "\x04", HANGUP}  # q, Ctrl-D, and a terminal that is gone
_TERMINAL_GONE = {errno.EIO, errno.EPIPE}


class _Quit(Exception):
    """The user has enough."""


class Live:
    """One session in front of a terminal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._keys: asyncio.Queue[str] = asyncio.Queue()
        self._story = Story(world.ledger, world.clock)

    async def run(self) -> None:
        """Show it until the user quits or the terminal is gone."""
        terminal = sys.stdin.fileno()
        loop = asyncio.get_running_loop()
        try:
            # First the keyboard: rich leaves its screen before the terminal is as it was.
            with keyboard(terminal):
                loop.add_reader(terminal, self._read, terminal)
                try:
                    await self._play()
                finally:
                    loop.remove_reader(terminal)
        except* _Quit:
            pass
        except* OSError as errors:
            gone = errors.subgroup(
                lambda exc: isinstance(exc, OSError) and exc.errno in _TERMINAL_GONE
            )
            if gone is None:
                raise

    async def _play(self) -> None:
        console = Console()
        screen = rich.live.Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        async with asyncio.TaskGroup() as group:
            actions = Actions(self._world, self._story, group)
            picture = Screen(self._world, self._story, actions)
            with screen:
                while True:
                    actions.revive()
                    self._story.follow()
                    screen.update(picture.draw(console.size.height), refresh=True)
                    await self._listen(actions)

    async def _listen(self, actions: Actions) -> None:
        """Obey the first key of the next tenth of a second, if there is one."""
        try:
            async with asyncio.timeout(_FRAME):
                key = await self._keys.get()
        except TimeoutError:
            return
        if key in _QUIT:
            raise _Quit
        actions.press(key)

    def _read(self, terminal: int) -> None:
        keys = pressed(terminal)
        if HANGUP in keys:
            asyncio.get_running_loop().remove_reader(terminal)  # else it is readable for ever
        for key in keys:
            self._keys.put_nowait(key)
