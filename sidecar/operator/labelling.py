"""Puts the labels of one election's pods right, by as few patches as there can be."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sidecar.errors import ApiRefused
from sidecar.kube.api import CONFLICT, INVALID, NOT_FOUND
from sidecar.operator import repair
from sidecar.operator.api import core_path
from sidecar.operator.facts import Pod, read_pod
from sidecar.operator.repair import Patience, Repair
from sidecar.operator.spec import Election
from sidecar.operator.story import Happening
from sidecar.operator.tools import Teller, Tools
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

    async def put_right(
        self, election: Election, view: View, pods: Sequence[Pod]
    ) -> tuple[list[str], float | None]:
        """Patch what is due.

        Returns:
            The names of pods that have been wrong for too long, and after how many seconds to
            look again, or None.

        Raises:
            ApiError: a request failed.
            NotLeader: another replica does it from now on.
        """
        now = self._tools.clock.now()
        found = repair.disagreements(view, pods)
        due, later = self._patience.due(found, now)
        right = {each.pod.uid for each in due if await self._patch(each, election, view)}
        wrong = sorted(each.pod.name for each in found if each.pod.uid not in right)
        if not wrong:
            self._wrong_since = None
            return [], later
        self._wrong_since = now if self._wrong_since is None else self._wrong_since
        left = self._wrong_since + _WRONG_FOR - now
        if left > 0:
            return [], left if later is None else min(left, later)
        return wrong, later

    async def _patch(self, each: Repair, election: Election, view: View) -> bool:
        pod, tools = each.pod, self._tools
        path = core_path(pod.namespace, "pods", pod.name)
        try:
            document = await tools.api.patch(path, each.patch)
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                tools.lose_pod(pod.key)
                return True
            if exc.status in {CONFLICT, INVALID}:
                await self._look_at(pod)
                return False
            raise
        tools.keep_pod(read_pod(document))
        if not pod.is_ours:
            tools.meter.repaired(election)
            log.info("label repaired pod=%s role=%s", pod.name, each.wanted.role)
            said = f"{pod.marks.role or 'nothing'} was shown, {each.wanted.role} is true"
            happening = Happening("LabelRepaired", said, f"{view.revision}", True, pod)
            await self._teller.tell(election, happening)
        return True

    async def _look_at(self, pod: Pod) -> None:
        """Take in a pod that is at another version than the watch has shown yet."""
        path = core_path(pod.namespace, "pods", pod.name)
        found = await self._tools.api.find(path)
        if found is None:
            self._tools.lose_pod(pod.key)
        else:
            self._tools.keep_pod(read_pod(found))
