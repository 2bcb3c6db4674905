"""The event loops that the forwarder has to work on."""

import asyncio
from collections.abc import Callable

import uvloop

Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, Loop] = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
