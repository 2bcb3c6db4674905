"""What the API server asks every replica: to inject a sidecar, and before a pod is evicted.

Nothing is remembered between two requests, and leading has nothing to do with it. Whatever goes
wrong, the answer is yes: neither a pod's start nor a drain depends on us.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sidecar.core.keys import Layout
from sidecar.core.queue import QueueReplica
from sidecar.election.background import Background
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ConfigError, CoordinatorError, SidecarError
from sidecar.operator import commanding, eviction, injection
from sidecar.operator.api import Api, core_path, election_path, group_path
from sidecar.operator.commanding import Outcome
from sidecar.operator.eviction import Eviction
from sidecar.operator.facts import Node, Pod, read_node, read_pod, stands_in
from sidecar.operator.injection import Defaults
from sidecar.operator.moves import EVICTION, Move, Scene
from sidecar.operator.names import ELECTION, INJECT
from sidecar.operator.spec import Election, read_election
from sidecar.operator.stores import Shared, Stores, credentials
from sidecar.operator.view import look

log = logging.getLogger(__name__)

_HOLD = 3.0  # seconds that an eviction is held at most
_ACCOUNTING = 0.5  # seconds of them that are left for what becomes of a handover
_INJECT_WITHIN = 3.0
_READ = 1.0
_LARGEST = 4 * 1024 * 1024  # bytes of a review; objects are at most 1.5 MiB

Review = Mapping[str, Any]
Answer = dict[str, Any]


class AdmissionMeter(Protocol):
    """Who counts what was answered."""

    def admitted(self, webhook: str, result: str) -> None:
        """One request was answered."""
        ...

    def moved(self, election: Election, reason: str, result: str) -> None:
        """A planned move ended."""
        ...


class Admission:
    """The webhooks.

    Args:
        api: only read from, but for the account of a move.
        stores: connections to etcd.
        defaults: for injected sidecars.
        clock: tells when a move was.
        meter: counts answers.
        tasks: where evictions are looked at.
        reads_nodes: whether nodes may be read (not in namespaced mode).
    """

    def __init__(
        self,
        api: Api,
        stores: Stores,
        defaults: Defaults,
        clock: Clock,
        meter: AdmissionMeter,
        *,
        tasks: Background,
        reads_nodes: bool,
    ) -> None:
        self._api = api
        self._stores = stores
        self._defaults = defaults
        self._clock = clock
        self._meter = meter
        self._reads_nodes = reads_nodes
        self._tasks = tasks

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/inject", self._answering("inject", self.inject), methods=["POST"]),
                Route("/evict", self._answering("evict", self.evict), methods=["POST"]),
            ]
        )

    # --- injection ------------------------------------------------------------------------

    async def inject(self, request: Review) -> tuple[Answer, str]:
        """Answer for a pod that is about to be created."""
        pod = request.get("object") or {}
        metadata = pod.get("metadata") or {}
        # The webhook's selectors have chosen it; a pod may still refuse what its namespace wants.
        if not injection.wants_sidecar(metadata, _ASKED):
            return {}, "nothing"
        if injection.has_sidecar(pod):
            return _patched(pod, injection.completed(pod))
        namespace = str(request.get("namespace", ""))
        name = injection.election_of(metadata)
        if not name:
            said = f"no sidecar injected: the annotation {ELECTION} names no Election"
            return {"warnings": [said]}, "refused"
        try:
            async with asyncio.timeout(_INJECT_WITHIN):
                found = await self._api.find(election_path(namespace, name))
            if found is None:
                said = f"no sidecar injected: there is no Election {name} in {namespace}"
                return {"warnings": [said]}, "refused"
            after = injection.injected(pod, read_election(found), self._defaults)
        except ValueError as exc:
            return {"warnings": [f"no sidecar injected: Election {name}: {exc}"]}, "refused"
        return _patched(pod, after)

    # --- eviction -------------------------------------------------------------------------

    async def evict(self, request: Review) -> tuple[Answer, str]:
        """Have the leader hand over before its pod is evicted; then, and else, allow it."""
        asked = eviction.read_eviction(request)
        if asked.is_dry_run or not asked.name:
            return {}, "nothing"
        answer = asyncio.get_running_loop().create_future()
        self._tasks.start(self._hold(asked, answer), name="operator-eviction")
        # Who asks is not kept waiting for what is cleaned up afterwards, such as a lease in etcd.
        done, _ = await asyncio.wait({answer}, timeout=_HOLD)
        if done:
            return {}, answer.result()
        log.warning("eviction held no longer pod=%s/%s", asked.namespace, asked.name)
        return {}, "not_moved"

    async def _hold(self, asked: Eviction, answer: asyncio.Future[str]) -> None:
        """Find an answer, as long as somebody waits for it."""
        try:
            async with asyncio.timeout(_HOLD) as hold:
                answer.set_result(await self._before(asked, hold.when() or 0.0))
        except TimeoutError:
            pass  # nobody waits any more
        except Exception as exc:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(exc)

    async def _before(self, asked: Eviction, until: float) -> str:
        namespace = asked.namespace
        found = await self._api.find(core_path(namespace, "pods", asked.name))
        if found is None:
            return "nothing"
        pod = read_pod(found)
        elections = [e for e in await self._elections(namespace) if stands_in(pod, e)]
        if not elections:
            return "nothing"
        budgets = await self._api.items(group_path("policy/v1", namespace, "poddisruptionbudgets"))
        if eviction.is_refused_anyway(pod, budgets):
            return "nothing"
        results = [await self._move(pod, election, until) for election in elections]
        return next((r for r in ("moved", "not_moved") if r in results), "nothing")

    async def _elections(self, namespace: str) -> list[Election]:
        found: list[Election] = []
        for document in await self._api.items(election_path(namespace)):
            try:
                found.append(read_election(document))
            except ValueError as exc:
                log.warning("Election cannot be read error=%s", exc)
        return found

    async def _move(self, pod: Pod, election: Election, until: float) -> str:
        who = await credentials(self._api, election.namespace, election.store)
        async with self._stores.connected(election.store, who) as shared:
            scene = await self._scene(election, shared)
            move = eviction.move_before(scene, pod)
            if move is None:
                return "nothing"
            log.info("handover before eviction pod=%s to=%s", pod.name, move.target.proposal.id)
            left = until - asyncio.get_running_loop().time() - _ACCOUNTING
            outcome = await commanding.carry_out(
                shared.coordinator, election.election, move, within=left
            )
        self._meter.moved(election, EVICTION, outcome.result)
        if outcome.result != commanding.DONE:
            log.warning("no handover before eviction pod=%s: %s", pod.name, outcome.message)
            return "not_moved"
        await self._account_for(election, move, outcome)
        return "moved"

    async def _account_for(self, election: Election, move: Move, outcome: Outcome) -> None:
        """Put the move into the status, where the replica that works takes it up."""
        account = commanding.account(move, outcome, self._clock.wall())
        try:
            await self._api.patch(
                election_path(*election.key, "status"), {"status": {"move": account}}
            )
        except ApiError as exc:
            log.warning("move before eviction not told election=%s error=%s", election.name, exc)

    async def _scene(self, election: Election, shared: Shared) -> Scene:
        layout = Layout(election.election)
        reply = await shared.coordinator.read(layout.start, layout.end, timeout=_READ)
        replica = QueueReplica(layout)
        replica.replace(reply.header, reply.kvs)
        documents = await self._api.items(core_path(election.namespace, "pods"))
        pods = [pod for pod in map(read_pod, documents) if stands_in(pod, election)]
        nodes: dict[str, Node] | None = None
        if self._reads_nodes:
            nodes = {n.name: n for n in map(read_node, await self._api.items("/api/v1/nodes"))}
        return Scene(election, look(replica, ""), pods, nodes)

    # --- AdmissionReview ------------------------------------------------------------------

    def _answering(
        self, webhook: str, answer: Callable[[Review], Awaitable[tuple[Answer, str]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                request_of = _request(await _body(request))
            except ValueError as exc:
                return JSONResponse({"error": str(exc)}, status_code=400)
            try:
                found, result = await answer(request_of)
            except (SidecarError, TimeoutError) as exc:
                log.warning("allowed without a look webhook=%s error=%s", webhook, _shown(exc))
                found, result = {}, "failed"
            except Exception:
                log.exception("allowed without a look webhook=%s", webhook)
                found, result = {}, "failed"
            self._meter.admitted(webhook, result)
            response = {"uid": request_of["uid"], "allowed": True, **found}
            return JSONResponse(
                {
                    "apiVersion": "admission.k8s.io/v1",
                    "kind": "AdmissionReview",
                    "response": response,
                }
            )

        return respond


_ASKED = {INJECT: "true"}


def _patched(before: Review, after: Review) -> tuple[Answer, str]:
    operations = injection.patch(before, after)
    if not operations:
        return {}, "nothing"
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"patchType": "JSONPatch", "patch": encoded}, "injected"


async def _body(request: Request) -> bytes:
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST:
            raise ValueError("the review is too large")
    return content


def _request(content: bytes) -> Review:
    """Return the request of an AdmissionReview.

    Raises:
        ValueError: it is none.
    """
    review = json.loads(content)
    found = review.get("request") if isinstance(review, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("uid"), str):
        raise ValueError("no AdmissionReview")  # noqa: TRY004 - as json.loads raises
    return found


def _shown(exc: BaseException) -> str:
    known = isinstance(exc, ApiError | ConfigError | CoordinatorError)
    return str(exc) if known else f"{type(exc).__name__}: {exc}"
