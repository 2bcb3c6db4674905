import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sidecar.core.codec import TermRecord
from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Reason
from sidecar.election.feed import Feed
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.logs import Format, JsonFormatter, LeaderLog, TextFormatter, configure
from tests.support.outputs import FOLLOWER, SetClock, leading, stepped_down, until

NOBODY = replace(FOLLOWER, leader=None)
OTHER = replace(FOLLOWER, leader=Leader("master-2", "", 8200, "/resources/election/2"))


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    kept = _Kept()
    ours = logging.getLogger("sidecar.outputs")
    ours.addHandler(kept)
    ours.setLevel(logging.INFO)
    yield kept.lines
    ours.removeHandler(kept)
    ours.setLevel(logging.NOTSET)


def told(lines: list[logging.LogRecord]) -> list[str]:
    said = [line.getMessage() for line in lines]
    lines.clear()
    return said


def leader_log(*history: TermRecord) -> LeaderLog:
    return LeaderLog(Feed(FOLLOWER), SetClock(), lambda: history)


def test_each_change_of_the_leader_is_one_line(lines: list[logging.LogRecord]) -> None:
    log = leader_log(TermRecord(8100, "master-1", 1.0, 2.0, "handover"))
    log.note(FOLLOWER)
    assert told(lines) == [
        'watch leader change old="" new=master-1 token=8100 reason=elected',
        "link connected",
    ]
    log.note(OTHER)
    assert told(lines) == [
        "watch leader change old=master-1 new=master-2 token=8200 reason=handover"
    ]
    log.note(replace(OTHER, transitions=9, candidates=()))
    assert told(lines) == []


def test_the_own_term_is_told_from_its_begin_to_its_end(lines: list[logging.LogRecord]) -> None:
    log = leader_log()
    log.note(NOBODY)
    lines.clear()
    state = leading(2000.0)
    log.note(state)
    log.note(replace(state, deadline=2001.0))
    assert told(lines) == [
        'watch leader change old="" new=master-0 token=8123 reason=elected',
        "change to leader token=8123 reason=elected",
    ]
    log.note(stepped_down(state, Reason.UNHEALTHY))
    assert told(lines) == ["step down token=8123 reason=unhealthy"]
    log.note(replace(NOBODY, reason=Reason.UNHEALTHY))
    assert told(lines) == ['watch leader change old=master-0 new="" token=0 reason=unhealthy']


def test_a_term_that_follows_the_own_one_unseen_is_told_with_the_own_reason(
    lines: list[logging.LogRecord],
) -> None:
    log = leader_log()
    log.note(leading(2000.0))
    lines.clear()
    log.note(replace(OTHER, reason=Reason.HANDOVER))
    assert told(lines) == [
        "watch leader change old=master-0 new=master-2 token=8200 reason=handover",
        "step down token=8123 reason=handover",
    ]


def test_a_new_own_term_right_after_the_old_one_is_two_changes(
    lines: list[logging.LogRecord],
) -> None:
    log = leader_log(TermRecord(8123, "master-0", 1.0, 2.0, "resigned"))
    log.note(leading(2000.0))
    lines.clear()
    log.note(leading(2000.0, token=9000))
    assert told(lines) == [
        "watch leader change old=master-0 new=master-0 token=9000 reason=resigned",
        "step down token=8123 reason=resigned",
        "change to leader token=9000 reason=elected",
    ]


def test_a_suspended_term_that_goes_on_is_no_change_of_the_leader(
    lines: list[logging.LogRecord],
) -> None:
    log = leader_log()
    state = leading(2000.0)
    log.note(state)
    lines.clear()
    log.note(state.at(2000.0))
    assert told(lines) == [
        "step down token=8123 reason=deadline_passed",
        "link suspended reason=deadline_passed",
    ]
    log.note(replace(state, deadline=2005.0))
    assert told(lines) == ["change to leader token=8123 reason=elected", "link connected"]


def test_the_successor_can_say_how_a_term_ended_that_could_not(
    lines: list[logging.LogRecord],
) -> None:
    log = leader_log(TermRecord(8200, "master-2", 2.0, before="session_lost"))
    log.note(FOLLOWER)
    lines.clear()
    log.note(OTHER)
    assert told(lines)[0].endswith("reason=session_lost")


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([TermRecord(8100, "master-1", 1.0, 2.0, "unhealthy")], "unhealthy"),
        ([TermRecord(8100, "master-1", 1.0)], "lost"),
        ([TermRecord(8000, "master-1", 1.0, 2.0, "handover")], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_followers_own_reason_is_never_that_of_the_change(
    lines: list[logging.LogRecord], history: list[TermRecord], reason: str
) -> None:
    log = leader_log(*history)
    log.note(replace(FOLLOWER, reason=Reason.UNHEALTHY))
    lines.clear()
    for own in (Reason.PRIORITY, Reason.RESIGNED):
        log.note(replace(OTHER, reason=own))
    assert told(lines) == [
        f"watch leader change old=master-1 new=master-2 token=8200 reason={reason}"
    ]


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([], "elected"),
        ([TermRecord(8200, "master-2", 2.0)], "elected"),
        ([TermRecord(8000, "m", 0.5, 0.6, "resigned"), TermRecord(8100, "m", 1.0)], "lost"),
        ([TermRecord(8100, "m", 1.0, 2.0, "paused"), TermRecord(8300, "m", 3.0)], "paused"),
        ([TermRecord(8100, "m", 1.0), TermRecord(8200, "m", 2.0, before="shutdown")], "shutdown"),
    ],
)
def test_a_leader_after_nobody_is_told_with_how_the_term_before_ended(
    lines: list[logging.LogRecord], history: list[TermRecord], reason: str
) -> None:
    log = leader_log(*history)
    log.note(NOBODY)
    lines.clear()
    log.note(replace(OTHER, reason=Reason.RESIGNED))
    assert told(lines) == [f'watch leader change old="" new=master-2 token=8200 reason={reason}']


def test_a_pause_is_the_reason_why_nobody_leads(lines: list[logging.LogRecord]) -> None:
    log = leader_log()
    log.note(FOLLOWER)
    lines.clear()
    log.note(replace(NOBODY, is_paused=True))
    assert told(lines)[0] == 'watch leader change old=master-1 new="" token=0 reason=paused'


def test_a_resumed_term_is_told_as_one(lines: list[logging.LogRecord]) -> None:
    log = leader_log(TermRecord(8123, "master-0", 1.0, before="handover"))
    log.note(replace(leading(2000.0), reason=Reason.RESUMED))
    assert told(lines)[0] == ('watch leader change old="" new=master-0 token=8123 reason=resumed')


def test_what_was_known_of_the_own_end_is_told_when_the_successor_comes(
    lines: list[logging.LogRecord],
) -> None:
    log = leader_log(TermRecord(8123, "master-0", 1.0, before="handover"))
    state = leading(2000.0)
    log.note(state)
    log.note(state.at(2000.0))
    lines.clear()
    log.note(replace(OTHER, reason=Reason.WAITING))
    assert told(lines)[0] == (
        "watch leader change old=master-0 new=master-2 token=8200 reason=deadline_passed"
    )


def test_link_pause_and_double_ids_are_told_once(lines: list[logging.LogRecord]) -> None:
    log = leader_log()
    log.note(replace(NOBODY, link=Link.LOST, reason=Reason.STARTING))
    assert told(lines) == []
    for state in (NOBODY, replace(NOBODY, link=Link.LOST), replace(NOBODY, is_paused=True)):
        log.note(state)
        log.note(replace(state, transitions=5))
    log.note(replace(NOBODY, is_duplicate=True))
    log.note(replace(NOBODY, is_duplicate=True, transitions=6))
    levels = [(line.levelname, line.getMessage()) for line in lines]
    assert levels == [
        ("INFO", "link connected"),
        ("WARNING", "link lost reason=waiting"),
        ("INFO", "link connected"),
        ("INFO", "election paused"),
        ("INFO", "election goes on"),
        ("WARNING", "another candidate has the same id id=master-0"),
    ]


async def test_the_log_follows_the_feed_and_the_clock(lines: list[logging.LogRecord]) -> None:
    clock = SetClock()
    feed: Feed[ElectionState] = Feed(FOLLOWER)
    log = LeaderLog(feed, clock)

    def has_said(phrase: str) -> bool:
        return any(phrase in line.getMessage() for line in lines)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(log.run())
        feed.publish(leading(clock.now() + 0.2))
        await until(lambda: has_said("change to leader"), "the term is told")
        clock.advance(0.2)  # and nobody publishes anything
        await until(lambda: has_said("step down token=8123"), "its end is told")
        task.cancel()


@pytest.fixture
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(format_: Format, monkeypatch: pytest.MonkeyPatch, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure(format_, level)
    return stream


@pytest.mark.usefixtures("own_logging")
def test_json_is_one_object_per_line_with_the_fields_beside_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = written("json", monkeypatch)
    leader_log().note(leading(2000.0))
    logging.getLogger("x").debug("not at this level")
    first, second, _ = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first.pop("ts").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "sidecar.outputs.logs",
        "msg": 'watch leader change old="" new=master-0 token=8123 reason=elected',
        "old": "",
        "new": "master-0",
        "token": 8123,
        "reason": "elected",
    }
    assert (second["token"], second["reason"]) == (8123, "elected")


@pytest.mark.usefixtures("own_logging")
def test_text_begins_with_the_time_and_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written("text", monkeypatch)
    logging.getLogger("some.where").warning("link lost reason=%s", "x")
    when, rest = stream.getvalue().split(" ", 1)
    assert (len(when), when[-1]) == (len("2027-01-15T08:00:00.512Z"), "Z")
    assert rest == "WARNING some.where: link lost reason=x\n"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("evil", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b"])
def test_a_strangers_id_cannot_begin_a_line_of_its_own(
    formatter: logging.Formatter, evil: str, lines: list[logging.LogRecord]
) -> None:
    leader_log().note(replace(FOLLOWER, leader=Leader(evil, "", 1, "/k")))
    plain = logging.LogRecord("x", logging.INFO, "", 0, "id=%s", (evil,), None)
    for record in (*lines, plain):
        text = formatter.format(record)
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text


def test_an_exception_is_told_in_both_formats() -> None:
    error = ValueError("why")
    info = (ValueError, error, None)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "it broke", (), info)
    assert "ValueError: why" in json.loads(JsonFormatter().format(record))["exception"]
    assert "ValueError: why" in TextFormatter().format(record)


def test_values_that_json_does_not_know_are_told_as_text() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "it broke", (), None)
    record.thing = {1}
    assert json.loads(JsonFormatter().format(record))["thing"] == "{1}"


@pytest.mark.usefixtures("own_logging")
def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown level"):
        configure("text", "loud")


def test_an_output_is_logged_once_per_change_of_its_state(
    lines: list[logging.LogRecord],
) -> None:
    counted: list[str] = []
    errors = OutputErrors(counted.append)
    errors.worked("label")
    for _ in range(3):
        errors.failed("label", OSError("no"))
    errors.failed("status_file", TimeoutError())
    errors.worked("label")
    errors.worked("label")
    errors.failed("label", OSError("no again"))
    assert counted == ["label"] * 3 + ["status_file", "label"]
    assert told(lines) == [
        "output failed output=label error=no",
        "output failed output=status_file error=TimeoutError",
        "output works again output=label",
        "output failed output=label error=no again",
    ]


def test_a_deadline_that_never_was_is_no_term(lines: list[logging.LogRecord]) -> None:
    leader_log().note(leading(NEVER).at(0.0))
    assert [line for line in told(lines) if "leader" in line] == []
