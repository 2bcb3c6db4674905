"""Whoever asks a sidecar to resign, as `leader-sidecar resign` does, with stamps; and an observer.

Commands: "resign", "ping", "quit". Answers: `observed` for every leader it learns of (rev 0: nobody
leads), `asked` (t_called: the request is sent; its lease was granted before), `pong`, `error`.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets

from benchmarks.commands import commands
from benchmarks.report import now, tell
from sidecar.core import transactions
from sidecar.core.codec import Action, Request
from sidecar.election import Observer
from sidecar.errors import CoordinatorError
from sidecar.etcd import EtcdCoordinator

_TTL = 30.0
_LIMIT = 5.0


async def _observe(observer: Observer) -> None:
    async for leader in observer.observe():
        tell(
            "observed", now(), rev=leader.token if leader else 0, value=leader.id if leader else ""
        )


async def _resign(store: EtcdCoordinator, observer: Observer) -> None:
    lease = secrets.randbits(62) + 1
    await store.grant(lease, _TTL, timeout=_LIMIT)
    first = observer.replica.first
    if first is None:
        tell("error", now(), during="resign", message="nobody leads")
        return
    request = Request(Action.RESIGN, first.token, "", lease)
    called = now()
    txn = transactions.ask(observer.layout, secrets.token_hex(8), first.key, request)
    reply = await store.txn(txn, timeout=_LIMIT)
    done = now()
    if not reply.succeeded:
        tell("error", now(), during="resign", message="the leader has changed")
        return
    tell("asked", done, rev=first.token, t_called=called, t_done=done)
    async for leader in observer.observe():
        if leader is not None and leader.token != first.token:
            break
    await store.revoke(lease, timeout=_LIMIT)


async def _main(options: argparse.Namespace) -> None:
    async with (
        EtcdCoordinator(options.endpoints) as store,
        Observer(store, options.election) as observer,
        asyncio.TaskGroup() as tasks,
    ):
        observing = tasks.create_task(_observe(observer), name="observe")
        async for command, _ in commands():
            try:
                if command == "resign":
                    await _resign(store, observer)
                elif command == "ping":
                    tell("pong", now())
            except CoordinatorError as exc:
                tell("error", now(), during=command, message=str(exc))
        observing.cancel()


def main() -> None:
    """Run until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--election", required=True)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
