"""Puts the labels of one election's pods right, by as few patches as there can be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sidecar.errors import ApiRefused
from sidecar.kube.api import CONFLICT, INVALID, NOT_FOUND
from sidecar.operator import repair
from sidecar.operator.api import core_path
from sidecar.operator.facts import Pod, read_pod
from sidecar.operator.repair import Patience, Repair
from sidecar.operator.spec import Election
from sidecar.operator.story import Happening
from sidecar.operator.tools import Retry, Teller, Tools
from sidecar.operator.view import View

log = logging.getLogger(__name__)

_WRONG_FOR = 1.0  # seconds after which labels that disagree are told of


class Labels:
    """Remembers since when what disagrees."""

    def __init__(self, tools: Tools, teller: Teller) -> None:
        self._tools = tools
        self._teller = teller
        self._patience = Patience()
        self._wrong_since: float | None = None
        self._refused: dict[str, Retry] = {}

    async def put_right(
        self, election: Election, look: Callable[[], View], pods: Sequence[Pod]
    ) -> tuple[list[str], float | None]:
        """Patch what is due; a pod that may not be patched stands in no other's way.

        Args:
            election: whose pods they are.
            look: returns what etcd says at that moment: when somebody else leads before all is
                patched, the rest is left to the next round.
            pods: of the election.

        Returns:
            The names of pods that have been wrong for too long, and after how many seconds to
            look again, or None.

        Raises:
            NoAnswer: nothing was heard.
            NotLeader: another replica does it from now on.
        """
        now, view = self._tools.clock.now(), look()
        found = repair.disagreements(view, pods)
        due, later = self._patience.due(found, now)
        self._refused = {u: r for u, r in self._refused.items() if u in {e.pod.uid for e in found}}
        right: set[str] = set()
        for each in due:
            if look().token != view.token:
                break
            refused = self._refused.get(each.pod.uid)
            if (refused is None or not refused.left(now)) and await self._try(each, election):
                right.add(each.pod.uid)
        wrong = sorted(each.pod.name for each in found if each.pod.uid not in right)
        if not wrong:
            self._wrong_since = None
            return [], later
        self._wrong_since = now if self._wrong_since is None else self._wrong_since
        left = self._wrong_since + _WRONG_FOR - now
        waits = [left, later or 0.0, *(refused.left(now) for refused in self._refused.values())]
        soonest = min((each for each in waits if each > 0), default=None)
        return [] if left > 0 else wrong, soonest

    async def _try(self, each: Repair, election: Election) -> bool:
        pod = each.pod
        try:
            return await self._patch(each, election)
        except ApiRefused as exc:
            log.warning("label cannot be put right pod=%s error=%s", pod.name, exc)
            refused = self._refused.setdefault(pod.uid, Retry())
            refused.failed(self._tools.clock.now())
            return False

    async def _patch(self, each: Repair, election: Election) -> bool:
        pod, tools = each.pod, self._tools
        path = core_path(pod.namespace, "pods", pod.name)
        try:
            document = await tools.api.patch(path, each.patch)
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                tools.lose_pod(pod.key, pod.uid)
                return True
            if exc.status not in {CONFLICT, INVALID}:
                raise
            await self._look_at(pod)
            if exc.status == INVALID:
                raise
            return False
        tools.keep_pod(read_pod(document))
        if not pod.is_ours:
            tools.meter.repaired(election)
            log.info("label repaired pod=%s role=%s", pod.name, each.wanted.role)
            said = f"{pod.marks.role or 'nothing'} was shown, {each.wanted.role} is true"
            # Of one version no more than one patch is taken; etcd's revision may be the same again.
            happening = Happening("LabelRepaired", said, pod.marks.version, True, pod)
            self._teller.tell(election, happening)
        return True

    async def _look_at(self, pod: Pod) -> None:
        """Take in a pod that is at another version than the watch has shown yet."""
        path = core_path(pod.namespace, "pods", pod.name)
        found = await self._tools.api.find(path)
        if found is None:
            self._tools.lose_pod(pod.key, pod.uid)
        else:
            self._tools.keep_pod(read_pod(found))
