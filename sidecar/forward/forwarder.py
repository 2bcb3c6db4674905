"""The forwarder: what becomes of every connection, and what a step-down means for them all.

On a step-down, in this order (`settle`, before the key is given up): from the instant in which the
state says follower, nothing new goes to the local program; attempts that are under way are
broken off and wait for the next leader. What was connected before is the work in hand: it is
carried on, and closed `drain` seconds after its term is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.core.state import ElectionState
from sidecar.election.background import Background
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.forward import pipes
from sidecar.forward.caller import Caller, Directions, Ends, Reached, TurnedAway
from sidecar.forward.listener import Listener, room_for
from sidecar.forward.meter import ForwardMeter, Refusal
from sidecar.forward.pipes import Pipes
from sidecar.forward.poller import Poller
from sidecar.forward.proxy_protocol import header
from sidecar.forward.relay import Relay, Tools
from sidecar.forward.resolver import Resolver
from sidecar.forward.routes import Route, Term, Terms, route
from sidecar.forward.rules import Rule

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """How to forward; durations are seconds.

    Attributes:
        own_host: as which others know this machine.
        wait: for how long a connection waits for a leader.
        drain: for how long connections outlive their term.
        most: connections at once.
        proxy_protocol: whether the leader is told the client's address.
    """

    rules: tuple[Rule, ...]
    own_host: str
    wait: float = 5.0
    drain: float = 2.0
    most: int = 4096
    proxy_protocol: bool = False


class Forwarder:
    """Listens, and carries connections to whoever leads.

    Args:
        listening: a socket for each rule, from `listener.bind`; owned from now on.
    """

    def __init__(
        self,
        config: ForwardConfig,
        listening: Sequence[socket.socket],
        feed: Feed[ElectionState],
        clock: Clock,
        meter: ForwardMeter,
    ) -> None:
        """Prepare everything on the running loop; nobody is accepted before `run`."""
        self._config = config
        self._feed = feed
        self._clock = clock
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._most = room_for(config.most)
        self._poller = Poller(self._end_terms, clock.now)
        self._tools = Tools.make(self._poller, Pipes(self._most if pipes.can_splice() else 0))
        self._terms = Terms(config.drain)
        self._next_end = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._callers: set[Caller] = set()
        self._relays: dict[Relay, tuple[Term, Ends]] = {}
        self._changed = asyncio.Event()
        self._errors_told: set[type[Exception]] = set()
        self._tasks = Background()
        self._listeners = [
            Listener(each, functools.partial(self._accepted, rule.port), self._exhausted)
            for rule, each in zip(config.rules, listening, strict=True)
        ]
        resolver = Resolver([each.address for each in self._listeners], config.own_host)
        self._directions = Directions(
            self._poller, self._route, resolver.resolve, outgoing=set(), wait=config.wait
        )

    async def run(self) -> None:
        """Forward until cancelled; what is connected then is cut off, unless `close` was called."""
        self._feed.listen(self._state_changed)
        try:
            async with self._tasks:
                for rule, listener in zip(self._config.rules, self._listeners, strict=True):
                    listener.open()
                    log.info("forwarding port=%d to=%d", listener.address[1], rule.port)
                await asyncio.Event().wait()
        finally:
            self._end_everything()

    async def settle(self) -> None:
        """Let nothing new go to the local program; to be called when the state says follower.

        It waits for nothing and fails never: giving the key up must not depend on it. Whoever it
        cannot reach asks for the way again before passing a byte.
        """
        try:
            self._look_around()
        except Exception:
            log.exception("forwarder failed")

    async def close(self) -> None:
        """Accept nobody any more, and give the connections the drain time to end by themselves."""
        for listener in self._listeners:
            listener.close()
        self._tasks.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain):
                while self._relays or self._callers:
                    self._changed.clear()
                    await self._changed.wait()
        for relay in list(self._relays):
            relay.close()

    # --- clients ----------------------------------------------------------------------------

    def _accepted(self, port: int, client: socket.socket, ends: Ends) -> None:
        self._meter.accepted += 1
        if ends in self._directions.outgoing:
            self._refuse(client, Refusal.LOOP)
        elif self._meter.open >= self._most:
            self._refuse(client, Refusal.TOO_MANY)
        else:
            self._meter.open += 1
            self._tasks.start(self._serve(client, port), name="forward-client")

    def _exhausted(self) -> None:
        self._meter.refuse(Refusal.NO_RESOURCES)

    def _refuse(self, client: socket.socket, reason: Refusal) -> None:
        self._meter.refuse(reason)
        log.debug("connection refused reason=%s", reason)
        self._poller.forget(client.fileno())
        client.close()

    async def _serve(self, client: socket.socket, port: int) -> None:
        """Carry a client; whatever goes wrong with it costs this one connection and no other."""
        try:
            await self._bring(client, port)
        except Exception as exc:
            if type(exc) not in self._errors_told:  # once for each kind: a client may come often
                self._errors_told.add(type(exc))
                log.exception("connection not forwarded")

    async def _bring(self, client: socket.socket, port: int) -> None:
        began = self._loop.time()
        caller = Caller(client, port, self._directions)
        self._callers.add(caller)
        reached: Reached | None = None
        refusal = Refusal.STOPPING
        try:
            reached = await caller.reach()
        except TurnedAway as exc:
            refusal = exc.reason
        except OSError:  # the kernel has no room for one more that is watched, or the like
            refusal = Refusal.NO_RESOURCES
        except Exception:
            refusal = Refusal.FAILED
            raise
        finally:
            self._callers.discard(caller)
            self._meter.waited(self._loop.time() - began)
            if reached is None:
                self._meter.open -= 1
                self._refuse(client, refusal)
                self._changed.set()
        if reached is not None:  # and no await since the last look at the way
            self._carry(client, reached)

    def _carry(self, client: socket.socket, reached: Reached) -> None:
        state, now = self._feed.value, self._clock.now()
        term = self._terms.open(reached.route, state, now)
        self._set_timer(now)
        upstream = reached.upstream
        relay = Relay(client, upstream, self._tools, meter=self._meter, on_end=self._ended)
        self._relays[relay] = (term, reached.ends)
        try:
            if self._config.proxy_protocol:
                # It is far smaller than what a new connection takes at once.
                upstream.send(header(client.getpeername(), client.getsockname()))
            relay.start()
        except OSError:
            relay.abort()
        except Exception:
            relay.abort()
            raise

    def _ended(self, relay: Relay) -> None:
        _, ends = self._relays.pop(relay)
        self._directions.outgoing.discard(ends)
        self._meter.open -= 1
        self._changed.set()

    # --- terms ------------------------------------------------------------------------------

    def _route(self) -> Route | None:
        return route(self._feed.value, self._clock.now(), self._config.own_host)

    def _state_changed(self) -> None:
        # Not in the candidate's own step: nothing that goes wrong here may reach it.
        self._loop.call_soon(self._look_around)

    def _look_around(self) -> None:
        now = self._clock.now()
        self._terms.look(self._feed.value, now)
        self._set_timer(now)
        for caller in list(self._callers):
            caller.wake()

    def _set_timer(self, now: float) -> None:
        next_end = self._terms.next_end
        if next_end == self._next_end and self._timer is not None:
            return
        self._next_end = next_end
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_end < math.inf:
            left = max(next_end - now, 0.0)
            self._timer = self._loop.call_later(left, self._timer_went_off)

    def _timer_went_off(self) -> None:
        self._timer = None
        self._end_terms()
        # It may have been early: loops round to milliseconds, and have a clock of their own.
        self._set_timer(self._clock.now())

    def _end_terms(self) -> None:
        """Close what has outlived its term; asked of the clock before any byte is moved."""
        now = self._clock.now()
        if now < self._next_end:
            return
        for ended in self._terms.ended(now):
            for relay, (term, _) in list(self._relays.items()):
                if term is ended:
                    self._meter.outlived += 1
                    relay.close()
        self._set_timer(now)

    def _end_everything(self) -> None:
        for listener in self._listeners:
            listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for relay in list(self._relays):
            relay.close()
        self._tools.pipes.close()
        self._poller.close()
