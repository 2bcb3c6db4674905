"""The picture of the live view, by `rich`; it fits into 80 columns and 24 lines."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sidecar.demo.actions import Actions
from sidecar.demo.ledger import View
from sidecar.demo.story import Event, Story
from sidecar.demo.world import CANDIDATES, ELECTION, Candidate, World

_LEADER_LINES, _TABLE_LINES = 3, len(CANDIDATES) + 3
_ALL_BUT_EVENTS = 1 + _LEADER_LINES + _TABLE_LINES + 2 + 1
_BAR_WIDTH = 26
_SHORT_LEASE = 0.4  # of the TTL; renewals come every fifth, so in good health more is left
_COLUMNS: Mapping[str, int] = {
    "candidate": 9,
    "role": 8,
    "place": 5,
    "link to etcd": 12,
    "because": 15,
    "process": 17,
}


class Screen:
    """Draws what there is to see."""

    def __init__(self, world: World, story: Story, actions: Actions) -> None:
        self._world = world
        self._story = story
        self._actions = actions
        # Once: what has been drawn should not change by a millisecond.
        self._wall = world.clock.wall() - world.clock.now()

    def draw(self, height: int) -> Layout:
        """Return the picture for a terminal of so many lines."""
        now = self._world.clock.now()
        layout = Layout()
        layout.split_column(
            Layout(self._header(), size=1),
            Layout(self._leader(now), size=_LEADER_LINES),
            Layout(self._candidates(now), size=_TABLE_LINES),
            Layout(self._events(max(1, height - _ALL_BUT_EVENTS))),
            Layout(self._legend(), size=1),
        )
        return layout

    def _header(self) -> Table:
        etcd = self._world.etcd
        line = Table.grid(expand=True, padding=(0, 1))
        line.add_column()
        line.add_column(justify="right", no_wrap=True)
        state = Text("stopped", "bold red") if self._actions.is_etcd_stopped else Text("runs")
        line.add_row(
            Text(" leader-sidecar demo", "bold"),
            Text.assemble(
                f"etcd {etcd.version} at {etcd.endpoint} ", state, f", TTL {self._world.ttl:g} s "
            ),
        )
        return line

    def _leader(self, now: float) -> Panel:
        leader = self._world.leader()
        line = Table.grid(padding=(0, 2))
        if leader is None:
            line.add_row(Text(self._why_nobody(now), "bold yellow"))
            return _panel(line, ELECTION, "yellow")
        for _ in range(5):
            line.add_column(no_wrap=True)
        left = max(0.0, leader.deadline - now)
        state, style = self._state(leader)
        is_short = left < _SHORT_LEASE * self._world.ttl
        bar = ProgressBar(
            total=self._world.ttl,
            completed=left,
            width=_BAR_WIDTH,
            complete_style="yellow" if is_short else "green",
        )
        line.add_row(
            Text(f"{leader.id} {state}", f"bold {style}"),
            Text(f"token {leader.token}"),
            "lease left",
            bar,
            f"{left:.1f} s",
        )
        return _panel(line, ELECTION, style)

    def _state(self, leader: View) -> tuple[str, str]:
        """Return what becomes of a leader, and its colour."""
        child = self._world.candidates[leader.id].child
        if child.is_frozen:
            return "is frozen", "cyan"
        return ("leads", "green") if child.is_running else ("is dead", "red")

    def _why_nobody(self, now: float) -> str:
        end = self._world.ledger.last_end
        since = "" if end is None else f" for {max(0.0, now - end):.1f} s"
        if self._actions.is_paused:
            return f"nobody leads{since}: paused"
        if self._actions.is_etcd_stopped:
            return f"nobody leads{since}: etcd is stopped, so nobody may"
        return f"nobody leads{since}"

    def _candidates(self, now: float) -> Panel:
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        for title, width in _COLUMNS.items():
            table.add_column(title, no_wrap=True, width=width)
        queue = self._queue()
        for candidate in self._world.candidates.values():
            view = self._world.views[candidate.id]
            leads = view.leads and now < view.deadline
            role = "leader" if leads else "follower"
            place = str(queue.index(view.id) + 1) if view.id in queue else "-"
            process = self._process(candidate, now)
            table.add_row(
                candidate.id,
                Text(role, "bold green" if leads else ""),
                place,
                Text(view.link or "-", "" if view.link == "connected" else "yellow"),
                view.reason.replace("_", " "),
                process,
            )
        return _panel(table, "candidates", "dim")

    def _queue(self) -> tuple[str, ...]:
        """Return the queue as the leader sees it, else as one does who reaches etcd."""
        views = sorted(self._world.views.values(), key=_trust, reverse=True)
        return views[0].candidates

    def _process(self, candidate: Candidate, now: float) -> Text:
        left = max(0.0, self._actions.back_at.get(candidate.id, now) - now)
        if candidate.child.is_frozen:
            return Text(f"frozen, {left:.0f} s left", "bold cyan")
        if candidate.child.is_running:
            return Text("runs")
        return Text(f"dead, {left:.0f} s left", "bold red")

    def _events(self, lines: int) -> Panel:
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right")
        for event in self._story.last(lines):
            gap = "" if event.gap is None else f"gap {event.gap * 1000:,.0f} ms"
            table.add_row(_time(self._wall + event.at), Text(event.text, _style(event)), gap)
        return _panel(table, "events", "dim", "gap: for how long nobody led")

    def _legend(self) -> Text:
        keys = {
            "k": "kill",
            "h": "hand over",
            "z": "freeze",
            "e": "start etcd" if self._actions.is_etcd_stopped else "stop etcd",
            "p": "resume" if self._actions.is_paused else "pause",
            "q": "quit",
        }
        legend = Text(" ", no_wrap=True)
        for key, meaning in keys.items():
            legend.append(f" {key} ", "reverse").append(f" {meaning}  ")
        return legend


def _panel(content: Table, title: str, style: str, note: str | None = None) -> Panel:
    return Panel(
        content,
        title=title,
        title_align="left",
        subtitle=note,
        subtitle_align="right",
        border_style=style,
    )


def _trust(view: View) -> tuple[bool, bool]:
    return view.leads, view.link == "connected"


def _style(event: Event) -> str:
    if event.text.startswith("BROKEN"):
        return "bold red"
    return "green" if event.gap is not None else ""


def _time(wall: float) -> str:
    moment = dt.datetime.fromtimestamp(wall, dt.UTC).astimezone()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
