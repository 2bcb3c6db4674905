"""The init container of an etcd pod: decides how the member begins, and writes its configuration.

Everything of etcd's configuration is in the one file that this writes, since etcd ignores flags
and environment beside a file.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.cluster import deciding, volume
from sidecar.cluster.api import ApiError
from sidecar.cluster.deciding import Data, Decision, Seen, decide, initial_cluster
from sidecar.cluster.own_pod import Pods
from sidecar.cluster.plan import Plan
from sidecar.election.ports import Clock
from sidecar.errors import CoordinatorError, Refused, Unavailable
from sidecar.etcd import wal
from sidecar.etcd.admin import Cluster, MemberInfo, MemberList

_AGAIN = 1.0  # seconds
_STOPPED = "EtcdMemberStopped"


@dataclass(frozen=True, slots=True)
class Files:
    """Where things are: etcd's data, and the configuration to write."""

    data_dir: Path
    config: Path


class Initializer:
    """Brings one member to the point where etcd may start.

    Args:
        plan: the etcd as it shall be.
        name: the own member's name.
        say: takes each line about what is done.
        within: seconds after which waiting ends with `Refused`; the kubelet then begins anew.
    """

    def __init__(
        self,
        plan: Plan,
        name: str,
        files: Files,
        *,
        cluster: Cluster,
        pods: Pods,
        clock: Clock,
        say: Callable[[str], None],
        within: float,
    ) -> None:
        self._plan = plan
        self._name = name
        self._files = files
        self._cluster = cluster
        self._pods = pods
        self._clock = clock
        self._say = say
        self._within = within

    async def run(self) -> None:
        """Decide, and write the configuration.

        Raises:
            Refused: this member must not start, or not yet; says why.
        """
        problem = volume.problem(self._files.data_dir)
        if problem is not None:
            raise await self._refusal(problem)
        ends = self._clock.now() + self._within
        told = ""
        while True:
            why = await self._once()
            if why is None:
                return
            if why != told:
                self._say(f"waiting: {why}")
                told = why
            if self._clock.now() >= ends:
                raise await self._refusal(f"waited {self._within:g} s in vain: {why}")
            await asyncio.sleep(_AGAIN)

    async def _once(self) -> str | None:
        """Look and act; return what to wait for, or None when etcd may start."""
        try:
            seen = await self._look()
            decision = decide(seen)
            return await self._carry_out(decision)
        except (CoordinatorError, ApiError) as exc:
            return str(exc)

    async def _look(self) -> Seen:
        own_data = wal.has_data(self._files.data_dir)
        await self._declare(own_data=own_data)
        members, is_agreed = await self._members(own_data=own_data)
        others = [name for name in self._plan.names if name != self._name]
        is_alone = members is None and not own_data
        return Seen(
            self._name,
            self._plan.peer_url_of(self._name),
            own_data,
            wal.identity(self._files.data_dir) if own_data else None,
            members,
            is_agreed,
            await asyncio.to_thread(self._pods.look, others) if is_alone else {},
            self._plan.replaces_lost,
        )

    async def _declare(self, *, own_data: bool) -> None:
        try:
            await asyncio.to_thread(self._pods.declare, Data.PRESENT if own_data else Data.EMPTY)
        except ApiError as exc:
            if not own_data:
                raise
            # Who has data needs nobody's leave to start; the kubelet will tell that etcd runs.
            self._say(f"the others are not told that there is data: {exc}")

    async def _members(self, *, own_data: bool) -> tuple[MemberList | None, bool]:
        """Return the members and whether a quorum agreed on them; None: nobody answers."""
        try:
            return await self._cluster.ask(lambda admin: admin.members()), True
        except Unavailable:
            pass
        except CoordinatorError:
            if not own_data:
                raise
            return None, False
        try:
            known = await self._cluster.ask(lambda admin: admin.members(linearizable=False))
        except Unavailable:
            return None, False
        return known, False

    async def _carry_out(self, decision: Decision) -> str | None:
        plan, name = self._plan, self._name
        match decision:
            case deciding.Start():
                self._write({}, "existing", "starting with the data that is there")
            case deciding.Begin():
                await asyncio.to_thread(self._pods.declare_beginning)
                urls = {each: plan.peer_url_of(each) for each in plan.names}
                self._write(urls, "new", "beginning a new cluster")
            case deciding.Join(members):
                urls = _urls(members, name, plan.peer_url_of(name))
                self._write(urls, "existing", "joining the cluster")
            case deciding.Wait(why):
                return why
            case deciding.Stop(why):
                raise await self._refusal(why)
            case _:
                return await self._change(decision)
        return None

    async def _change(self, decision: Decision) -> str:
        match decision:
            case deciding.Add():
                url = self._plan.peer_url_of(self._name)
                added = await self._cluster.ask(lambda admin: admin.add_learner(url))
                return f"added as learner {added:x}"
            case deciding.Replace(lost):
                await self._cluster.ask(lambda admin: admin.remove(lost))
                return f"removed the member {lost:x}, whose data was lost"
            case deciding.Discard(removed):
                return self._discard(removed)
        raise AssertionError(decision)

    def _discard(self, removed: int) -> str:
        member = self._files.data_dir / "member"
        shutil.rmtree(member)
        return f"discarded the data of member {removed:x}, which was removed from the cluster"

    def _write(self, members: Mapping[str, str], state: str, told: str) -> None:
        plan, name = self._plan, self._name
        config: dict[str, Any] = {
            **plan.config,
            "name": name,
            "data-dir": str(self._files.data_dir),
            "initial-advertise-peer-urls": plan.peer_url_of(name),
            "advertise-client-urls": plan.client_url_of(name),
            "initial-cluster": initial_cluster(members or {name: plan.peer_url_of(name)}),
            "initial-cluster-state": state,
            "initial-cluster-token": plan.token,
        }
        # JSON is YAML too.
        self._files.config.write_text(json.dumps(config, indent=2) + "\n")
        self._say(f"{name}: {told}")

    async def _refusal(self, why: str) -> Refused:
        now = dt.datetime.fromtimestamp(self._clock.wall(), dt.UTC)
        problem = await asyncio.to_thread(self._pods.tell, _STOPPED, why, now=now)
        if problem is not None:
            self._say(f"no Event was written: {problem}")
        return Refused(why)


def _urls(members: tuple[MemberInfo, ...], name: str, own_url: str) -> dict[str, str]:
    """Return all members' URLs by name; one that has not started has none but for the own."""
    urls: dict[str, str] = {}
    for member in members:
        is_own = own_url in member.peer_urls
        for url in member.peer_urls:
            urls[name if is_own else member.name or f"unstarted-{member.id:x}"] = url
    return urls
