"""The poller tells each watcher what has happened to its own socket, and to nobody else's."""

import contextlib
import functools
import itertools
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from sidecar.forward.poller import ENDED, READABLE, Poller
from tests.support.outputs import until


@pytest.fixture
async def hurried() -> AsyncIterator[Poller]:
    """Return a poller for which each event takes a whole turn."""
    seconds = itertools.count()
    poller = Poller(lambda: None, lambda: float(next(seconds)))
    yield poller
    poller.close()


@pytest.fixture
def cleaning() -> Iterator[contextlib.ExitStack]:
    """Return what is done at the end."""
    with contextlib.ExitStack() as stack:
        yield stack


async def test_what_happened_to_a_closed_socket_is_no_news_of_the_next_one_with_its_number(
    hurried: Poller, cleaning: contextlib.ExitStack
) -> None:
    seen: list[int] = []
    pairs = [socket.socketpair() for _ in range(2)]
    next_one, next_peer = socket.socketpair()
    for one in itertools.chain(*pairs, (next_one, next_peer)):
        cleaning.callback(one.close)
    watched = [own.fileno() for own, _ in pairs]

    def served(fd: int, _events: int) -> None:
        """Close them, as a relay does with its two, and let the other's number be used again."""
        for own, _ in pairs:
            hurried.forget(own.fileno())
            own.close()
        (other,) = set(watched) - {fd}
        os.dup2(next_one.fileno(), other)
        cleaning.callback(os.close, other)
        watched[:] = [other]
        hurried.watch(other, seen.append, only_the_end=True)

    for (_, peer), fd in zip(pairs, list(watched), strict=True):
        peer.send(b"x")
        hurried.watch(fd, functools.partial(served, fd))
    await until(lambda: len(watched) == 1, "one was served")
    next_peer.close()
    await until(lambda: seen, "the end is heard of")
    assert seen[0] & ENDED
    assert not seen[0] & READABLE
