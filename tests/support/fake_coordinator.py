"""`Coordinator` over the simulated network: what a process sees of the fake cluster."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from sidecar.core.store import Proof, RangeReply, Txn, TxnReply
from sidecar.errors import CoordinatorError, Unavailable
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_watch import FakeWatch
from tests.support.sim_network import Network
from tests.support.sim_process import Process


class FakeCoordinator:
    """Implements `sidecar.election.ports.Coordinator` for one life of one process.

    Every request finds its own way, so requests overtake each other; only a renewal and the read
    after it are in order. One that gets no answer takes the channel with it, as in the adapter:
    what is under way there has no answer either, watches end, the next member's turn comes.

    Attributes:
        endpoint: the member in use.
        channel: counts the channels used so far.
        streams: the watches, those that have ended lately included.
    """

    def __init__(self, process: Process, cluster: FakeCluster, network: Network) -> None:
        self.process = process
        self.cluster = cluster
        self.network = network
        self.endpoint = 0
        self.channel = 0
        self.streams: list[FakeWatch] = []
        self._under_way: dict[_Exchange, None] = {}

    @property
    def width(self) -> int:
        return len(self.cluster.members)

    async def grant(self, lease: int, ttl: float, *, timeout: float) -> float:
        granted: float = await self._ask("grant", timeout, lease, self.cluster.etcd.grant, ttl)
        return granted

    async def revoke(self, lease: int, *, timeout: float) -> None:
        await self._ask("revoke", timeout, lease, self.cluster.etcd.revoke)

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        reply: TxnReply = await self._ask("txn", timeout, txn, self.cluster.etcd.txn)
        return reply

    def prepare(self, txn: Txn) -> Txn:
        return txn

    async def read(
        self, key: bytes, end: bytes, *, timeout: float, keys_only: bool = False
    ) -> RangeReply:
        def read(key: bytes) -> RangeReply:
            return self.cluster.etcd.read(key, end, keys_only=keys_only)

        reply: RangeReply = await self._ask("read", timeout, key, read, is_write=False)
        return reply

    async def prove(self, lease: int, keys: Sequence[bytes], *, timeout: float) -> Proof:
        exchange = _Proving(self, "prove", lease, tuple(keys))
        proof: Proof = await self._await(exchange, timeout)
        return proof

    def watch(self, key: bytes, end: bytes, *, start_revision: int) -> FakeWatch:
        watch = FakeWatch(
            self.process,
            self.cluster,
            self.network,
            member=self.endpoint,
            span=(key, end),
            start=start_revision,
            channel=self.channel,
            give_up=self.give_up,
        )
        self.streams = [stream for stream in self.streams if not stream.is_closed]
        self.streams.append(watch)
        return watch

    async def _ask(
        self,
        kind: str,
        timeout: float,
        argument: Any,
        work: Callable[..., Any],
        *more: Any,
        is_write: bool = True,
    ) -> Any:
        exchange = _Exchange(self, kind, argument, work, more, is_write=is_write)
        return await self._await(exchange, timeout)

    async def _await(self, exchange: "_Exchange", timeout: float) -> Any:
        timer = self.process.loop.call_later(timeout, exchange.time_out)
        self._under_way[exchange] = None
        try:
            exchange.send()
            return await exchange.answer
        except Unavailable:
            self.give_up(exchange.channel)
            raise
        finally:
            del self._under_way[exchange]
            timer.cancel()

    def give_up(self, channel: int) -> None:
        """Go to the next member, unless somebody has done so already."""
        if channel != self.channel:
            return
        self.channel += 1
        self.endpoint = (self.endpoint + 1) % self.width
        lost = Unavailable(f"channel {channel} was given up")
        for exchange in self._under_way:
            if exchange.channel == channel:
                exchange.settle(None, lost)
        for stream in self.streams:
            if stream.channel == channel:
                stream.drop(lost)


class _Exchange:
    """One request and its reply."""

    __slots__ = (
        "answer",
        "argument",
        "channel",
        "fate",
        "is_write",
        "kind",
        "member",
        "more",
        "owner",
        "work",
    )

    def __init__(
        self,
        owner: FakeCoordinator,
        kind: str,
        argument: Any,
        work: Callable[..., Any],
        more: tuple[Any, ...],
        *,
        is_write: bool,
    ) -> None:
        self.owner = owner
        self.kind = kind
        self.argument = argument
        self.work = work
        self.more = more
        self.is_write = is_write
        self.member = owner.endpoint
        self.channel = owner.channel
        self.answer: asyncio.Future[Any] = owner.process.loop.create_future()
        self.fate = owner.network.fate(owner.process, kind, argument)

    def send(self) -> None:
        network, fate = self.owner.network, self.fate
        if not fate.loses_request:
            delay = fate.request_delay
            network.carry(self.owner.process, self.member, delay, self.arrive)

    def arrive(self) -> None:
        if self.fate.error is not None:
            self.refuse(self.fate.error)
            return
        cluster = self.owner.cluster
        cluster.serve(self.member, self.run, self.refuse, is_write=self.is_write)
        again = self.owner.network.duplicate_after(self.fate) if self.is_write else math.inf
        if again != math.inf:
            cluster.world.after(again, self.repeat)

    def run(self) -> None:
        try:
            self.reply(self.work(self.argument, *self.more))
        except CoordinatorError as error:
            self.refuse(error)

    def repeat(self) -> None:
        """Carry it out once more, as a retransmitting proxy does; nobody hears the answer."""
        self.owner.cluster.world.note(self.owner.process.name, self.kind, "arrives again")
        try:
            self.work(self.argument, *self.more)
        except CoordinatorError:
            return

    def reply(self, value: Any) -> None:
        self._send_back(value, None)

    def refuse(self, error: CoordinatorError) -> None:
        self._send_back(None, error)

    def _send_back(self, value: Any, error: CoordinatorError | None) -> None:
        owner, fate = self.owner, self.fate
        if not fate.loses_reply:
            delay = fate.reply_delay
            owner.network.carry(owner.process, self.member, delay, self._arrive_back, value, error)

    def _arrive_back(self, value: Any, error: CoordinatorError | None) -> None:
        process = self.owner.process
        if self.answer.get_loop() is process.loop:
            process.call(self.settle, value, error)

    def settle(self, value: Any, error: CoordinatorError | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(value)
        else:
            self.answer.set_exception(error)

    def time_out(self) -> None:
        self.settle(None, Unavailable(f"no answer to {self.kind} from member {self.member}"))


class _Proving(_Exchange):
    """A renewal, then a linearizable read that sets out after it on the same way."""

    __slots__ = ()

    def __init__(
        self, owner: FakeCoordinator, kind: str, lease: int, keys: tuple[bytes, ...]
    ) -> None:
        super().__init__(owner, kind, lease, _no_work, (keys,), is_write=False)

    def arrive(self) -> None:
        if self.fate.error is not None:
            self.refuse(self.fate.error)
            return
        self.owner.cluster.renew(self.member, self.argument, self._renewed, self.refuse)

    def _renewed(self, ttl: float, term: int) -> None:
        if ttl <= 0 or not self.more[0]:
            self.reply(Proof(ttl, term, None))
            return
        network = self.owner.network
        network.carry(self.owner.process, self.member, 0.0, self._read, ttl, term)

    def _read(self, ttl: float, term: int) -> None:
        def run() -> None:
            self.reply(Proof(ttl, term, self._look()))

        self.owner.cluster.serve(self.member, run, self.refuse, is_write=False)

    def _look(self) -> TxnReply:
        etcd = self.owner.cluster.etcd
        kvs = (etcd.get(key) for key in self.more[0])
        return TxnReply(etcd.header(), True, tuple(() if kv is None else (kv,) for kv in kvs))


def _no_work(argument: Any) -> None:
    """What a proof does is in `_Proving`."""
