"""Callers of a Master over gRPC, who write down what they were told."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
from crawler import crawler_pb2 as pb
from crawler.calls import OPERATIONS
from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Told:
    """How one call ended; `at` is when, by the monotonic clock."""

    name: str
    at: float
    code: grpc.StatusCode
    details: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it was acknowledged."""
        return self.code is grpc.StatusCode.OK


class Caller:
    """One channel to one Master."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def call(
        self,
        name: str,
        request: Message,
        *,
        timeout: float | None = 10.0,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Any:
        """Call an operation and return its answer."""
        operation = OPERATIONS[name]
        method: Any = self._channel.unary_unary(
            operation.method,
            request_serializer=operation.request.SerializeToString,
            response_deserializer=operation.reply.FromString,
        )
        return await method(request, timeout=timeout, metadata=tuple(metadata))

    async def add(self, name: str, *, timeout: float | None = 10.0) -> Told:
        """Add a resource and say how that ended."""
        request = pb.ResourceSpec(name=name, urls=[f"http://{name}.example/"])
        try:
            await self.call("AddResource", request, timeout=timeout)
        except grpc.aio.AioRpcError as exc:
            return Told(name, time.monotonic(), exc.code(), exc.details() or "")
        return Told(name, time.monotonic(), grpc.StatusCode.OK)


async def add_many(target: str, names: Sequence[str], *, at_once: int) -> list[Told]:
    """Add resources through one Master, so many at a time."""
    left = iter(names)
    told: list[Told] = []

    async def one(caller: Caller) -> None:
        told.extend([await caller.add(name, timeout=30) for name in left])

    async with Caller(target) as caller, asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one(caller))
    return told


class Load:
    """Adds resources through one or more Masters at a steady rate; a context manager."""

    def __init__(
        self, targets: Sequence[str], *, rate: float, timeout: float | None = 10.0
    ) -> None:
        self.told: list[Told] = []
        self._targets = targets
        self._rate = rate
        self._timeout = timeout
        self._begun = 0
        self._stop = asyncio.Event()
        self._running = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._running.__aenter__()
        self._running.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._running.__aexit__(None, None, None)

    @property
    def done(self) -> list[str]:
        """The names that were acknowledged."""
        return [told.name for told in self.told if told.is_done]

    @property
    def outstanding(self) -> int:
        """How many calls are waiting for their end."""
        return self._begun - len(self.told)

    @property
    def failed(self) -> list[Told]:
        """The calls that were not."""
        return [told for told in self.told if not told.is_done]

    def longest_gap(self) -> float:
        """Return the longest time without an acknowledged call, in seconds."""
        times = sorted(told.at for told in self.told if told.is_done)
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    async def until(self, condition: Callable[[], object], *, within: float = 60.0) -> None:
        """Go on until a condition holds."""
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - it may be about another process
                await asyncio.sleep(0.01)

    async def until_more(self, count: int, *, within: float = 60.0) -> None:
        """Go on until so many more calls were acknowledged."""
        enough = len(self.done) + count
        await self.until(lambda: len(self.done) >= enough, within=within)

    async def _run(self) -> None:
        callers = [Caller(target) for target in self._targets]
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.TaskGroup() as group:
                for number in itertools.count():
                    caller = callers[number % len(callers)]
                    group.create_task(self._one(caller, f"load-{id(self):x}-{number}"))
                    await asyncio.sleep(began + (number + 1) / self._rate - loop.time())
                    if self._stop.is_set():
                        return
        finally:
            for caller in callers:
                await caller.__aexit__()

    async def _one(self, caller: Caller, name: str) -> None:
        self._begun += 1
        self.told.append(await caller.add(name, timeout=self._timeout))
