"""Whole sidecars: how soon a program hears of a resign, and what a restart in place costs.

"Resign called" is the moment at which whoever asks sends the request to etcd, as `leader-sidecar
resign` does once it is connected; the request's own way to the leader counts, too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from benchmarks import figures
from benchmarks.processes import BenchError, Sidecar, Speaker, first_event, python, stamp
from benchmarks.setting import TTL, Outcome, Setting, milliseconds
from benchmarks.table import Row
from tests.support.procs import wait_until

COUNT = 3
_HEARD_WITHIN = 10.0  # milliseconds, p50
_PACE = (0.1, 0.2)  # seconds
_AFTER_TTL = 1.5  # seconds after the old lease would have ended in which nothing may change


def start(setting: Setting, stack: ExitStack, election: str) -> list[Sidecar]:
    """Start sidecars of one election, and wait until all stand and one leads."""
    folder = setting.memory / setting.name("sidecars")
    folder.mkdir()
    sidecars = [
        stack.enter_context(
            Sidecar(f"sidecar-{n}", election=election, endpoints=setting.endpoints, folder=folder)
        )
        for n in range(COUNT)
    ]
    for sidecar in sidecars:
        wait_until(partial(_stands, sidecar), f"{sidecar.name} stands with the others")
    leader(sidecars)
    return sidecars


def leader(sidecars: Sequence[Sidecar]) -> Sidecar:
    """Return the one whose status file says leader, waiting until there is one."""
    leading = wait_until(
        lambda: [sidecar for sidecar in sidecars if sidecar.status().get("role") == "leader"],
        "a leader",
    )
    return leading[0]


def _stands(sidecar: Sidecar) -> bool:
    return len(sidecar.status().get("candidates", ())) == COUNT


def run(setting: Setting) -> Outcome:
    """Measure what programs beside the sidecars notice."""
    election = setting.name("/bench/sidecars")
    with ExitStack() as stack:
        sidecars = start(setting, stack, election)
        command = python("asker", "--endpoints", setting.endpoints, "--election", election)
        asker = Speaker(command, name=setting.name("asker"), folder=setting.folder)
        stack.enter_context(asker)
        asker.event("observed")
        latency = _latency(setting, sidecars, asker)
        restarts = _restarts(setting, sidecars, asker)
    return Outcome([*latency.rows, *restarts.rows], {**latency.data, **restarts.data})


def _latency(setting: Setting, sidecars: Sequence[Sidecar], asker: Speaker) -> Outcome:
    found = {how: _heard(setting, sidecars, asker, how) for how in ("file", "client")}
    summaries = {how: figures.summarize(values) for how, values in found.items()}
    rows = [
        Row("resign -> next one's status file says leader", milliseconds(summaries["file"])),
        Row(
            "resign -> another program's Leadership.wait returns",
            milliseconds(summaries["client"]),
            at_least=f"p50 <= {_HEARD_WITHIN:g} ms",
            reached=summaries["client"].p50 <= _HEARD_WITHIN,
        ),
    ]
    data = {"unit": "ms", "summaries": {h: asdict(s) for h, s in summaries.items()}}
    return Outcome(rows, {"resign": {**data, "trials": found}})


def _heard(setting: Setting, sidecars: Sequence[Sidecar], asker: Speaker, how: str) -> list[float]:
    """Return the milliseconds from a resign's request until the next one's program knows.

    One program beside each sidecar: more would take the processor from what is measured.
    """
    found = []
    trials = 10 if setting.quick else 200
    with ExitStack() as stack:
        speakers = _waiters(setting, stack, sidecars, how)
        for number in range(trials):
            if number % 50 == 0:
                print(f"  resign {number} of {trials}, by {how}", file=sys.stderr)
            setting.pause(*_PACE)
            asker.send("resign")
            asked = asker.event("asked")
            _, leads = first_event(speakers, "leads")
            if leads["token"] <= asked["rev"]:
                raise BenchError(f"a waiter tells of an old term: {leads} after {asked}")
            found.append((stamp(leads) - stamp(asked, "t_called")) / 1e6)
    return found


def _waiters(
    setting: Setting, stack: ExitStack, sidecars: Sequence[Sidecar], how: str
) -> list[Speaker]:
    waiters = []
    for sidecar in sidecars:
        command = python("waiter", "--status-dir", str(sidecar.status_dir), "--how", how)
        waiter = Speaker(command, name=setting.name(f"waiter-{how}"), folder=setting.folder)
        waiters.append(stack.enter_context(waiter))
        waiter.event("ready")
    leading = sidecars.index(leader(sidecars))
    if how == "file":
        waiters[leading].event("leads")  # it has found the present leader
    return waiters


def _restarts(setting: Setting, sidecars: Sequence[Sidecar], asker: Speaker) -> Outcome:
    """SIGKILL the leader and start it again at once; count how often the leader changes."""
    trials = 2 if setting.quick else 10
    changes = 0
    gaps: list[float] = []
    for number in range(trials):
        print(f"  restart {number + 1} of {trials}", file=sys.stderr)
        setting.pause(1.0, 2.0)  # a random phase of the renewals
        leading = leader(sidecars)
        token = leading.status()["token"]
        _told(asker)  # what came before does not count
        killed_at = time.monotonic()
        leading.child.kill()
        leading.child.start()
        over = killed_at + TTL + _AFTER_TTL
        wait_until(partial(_renewed, leading, killed_at), "it leads again", 3 * TTL)
        gaps.append(time.monotonic() - killed_at)
        time.sleep(max(over - time.monotonic(), 0))  # until the old lease would have ended
        changes += _told(asker) or leader(sidecars).status()["token"] != token
    row = Row(
        f"leader changes in {trials} restarts after SIGKILL",
        str(changes),
        at_least="0",
        reached=changes == 0,
    )
    return Outcome([row], {"restarts": {"trials": trials, "changes": changes, "back_s": gaps}})


def _renewed(sidecar: Sidecar, since: float) -> bool:
    """Whether its status file was written by the new process, and says leader (or it lost)."""
    status = sidecar.status()
    if status.get("role") != "leader":
        return status.get("link") == "connected"
    elapsed = time.monotonic() - since
    until = float(status["valid_until_boottime"]) - time.clock_gettime(time.CLOCK_BOOTTIME)
    return until + elapsed > TTL


def _told(asker: Speaker) -> bool:
    """Whether the observer has heard of another leader since it was last asked."""
    asker.send("ping")
    asker.event("pong")  # all that it had to tell came before
    told = 0
    while asker.take("observed") is not None:
        told += 1
    return told > 0
