"""Waiting for a change: by inotify, by the deadline, and by looking where inotify is missing."""

import asyncio
import contextlib
import functools
import os
import select
import selectors
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar import boottime, directory_watch
from sidecar.client import Leadership, Status
from tests.support.procs import wait_until
from tests.support.status_dir import TOKEN, follower_document, leader_document, write_status

PATIENCE = 60.0  # seconds; a bound for a slow machine, not an expectation
# Beyond the time limit of a test. When its time is up, `wait` looks once more, and would hide that
# nothing has woken it.
NEVER = 200.0


def open_descriptors() -> list[Path]:
    return sorted(Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def no_safety_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look every second, only the event that is tested can end a wait in time."""
    monkeypatch.setattr(directory_watch, "LOOK_ANYWAY", NEVER)


@pytest.fixture(params=["inotify", "looking"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to learn of a change; the second as on a machine without inotify instances."""
    if request.param == "inotify":
        monkeypatch.setattr(directory_watch, "LOOK_EVERY", NEVER)
    if request.param == "looking":

        def refused(name: str, *arguments: object) -> int:
            raise OSError(24, f"{name}: too many open files")

        monkeypatch.setattr(boottime, "libc_call", refused)
    return str(request.param)


def sleeps(thread: int | None) -> bool:
    """Whether a thread of ours is asleep in the kernel, so past whatever it did before."""
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@contextlib.contextmanager
def meanwhile(what: Any, *arguments: Any) -> Iterator[None]:
    """Do something in another thread once this one sleeps in the kernel."""
    waiting = threading.get_native_id()

    def once_asleep() -> None:
        wait_until(lambda: sleeps(waiting), "the waiting thread sleeps")
        what(*arguments)

    thread = threading.Thread(target=once_asleep)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.usefixtures("how")
def test_wait_returns_at_once_what_is_so_already(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    assert Leadership(tmp_path).wait(role="leader", timeout=0).role == "leader"


@pytest.mark.usefixtures("how")
def test_wait_wakes_when_leadership_comes(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    leadership = Leadership(tmp_path)
    with meanwhile(write_status, tmp_path, leader_document()):
        status = leadership.wait(role="leader", timeout=NEVER)
    assert status.term is not None
    assert status.term.token == TOKEN


@pytest.mark.usefixtures("how")
def test_wait_wakes_when_leadership_goes(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    leadership = Leadership(tmp_path)
    with meanwhile(write_status, tmp_path, follower_document()):
        assert leadership.wait(role="follower", timeout=NEVER).reason == "resigned"


@pytest.mark.usefixtures("how")
def test_wait_wakes_when_the_file_is_deleted(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    leadership = Leadership(tmp_path)
    with meanwhile((tmp_path / "status.json").unlink):
        assert leadership.wait(role="follower", timeout=NEVER).problem == "missing"


def test_wait_sees_a_directory_that_comes_later(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    with meanwhile(write_status, directory, leader_document()):
        assert Leadership(directory).wait(role="leader", timeout=NEVER).role == "leader"


@pytest.mark.parametrize("gone_for_a_while", [False, True])
def test_wait_sees_a_directory_that_is_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone_for_a_while: bool
) -> None:
    directory = tmp_path / "status"
    write_status(directory, follower_document())
    leadership, noticed = Leadership(directory), threading.Event()
    status = leadership.status

    def look() -> Status:
        seen = status()
        if seen.problem == "missing":
            noticed.set()
        return seen

    monkeypatch.setattr(leadership, "status", look)
    waiting = threading.get_native_id()

    def replace() -> None:
        directory.rename(tmp_path / "old")
        if gone_for_a_while:
            assert noticed.wait(PATIENCE)
            wait_until(lambda: sleeps(waiting), "it waits for the directory to come back")
        write_status(directory, leader_document())

    with meanwhile(replace):
        assert leadership.wait(role="leader", timeout=NEVER).role == "leader"


@pytest.mark.usefixtures("how")
def test_wait_wakes_at_the_deadline_with_nobody_left_to_write_it_down(tmp_path: Path) -> None:
    deadline = boottime.now() + 0.3
    write_status(tmp_path, leader_document(valid_until_boottime=deadline))
    status = Leadership(tmp_path).wait(role="follower", timeout=NEVER)
    assert (status.problem, boottime.now() >= deadline) == ("expired", True)


def test_a_look_now_and_then_helps_where_the_kernel_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_watch, "LOOK_ANYWAY", 0.05)
    monkeypatch.setattr(directory_watch, "_EVENTS", 0x400)  # only the end of the directory itself
    write_status(tmp_path, follower_document())
    leadership = Leadership(tmp_path)
    with meanwhile(write_status, tmp_path, leader_document()):
        assert leadership.wait(role="leader", timeout=NEVER).role == "leader"


@pytest.mark.usefixtures("how")
def test_wait_gives_up_in_time_and_not_before(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    before = boottime.now()
    with pytest.raises(TimeoutError, match=r"no leader within 0\.2 s"):
        Leadership(tmp_path).wait(role="leader", timeout=0.2)
    assert boottime.now() - before >= 0.2


def test_wait_without_a_role_waits_for_a_change(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    leadership = Leadership(tmp_path)
    with pytest.raises(TimeoutError, match="no change within 0 s"):
        leadership.wait(timeout=0)
    with meanwhile(write_status, tmp_path, leader_document(token=9000)):
        assert leadership.wait(timeout=NEVER).role == "leader"
    assert leadership.token == 9000


def test_wait_refuses_a_role_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no role 'master'"):
        Leadership(tmp_path).wait(role="master")  # type: ignore[arg-type]


def wait_in_vain(leadership: Leadership) -> None:
    with pytest.raises(TimeoutError):
        leadership.wait(role="leader", timeout=0)


@pytest.mark.usefixtures("how")
def test_waiting_again_and_again_opens_nothing_more(tmp_path: Path) -> None:
    before = open_descriptors()
    with Leadership(tmp_path) as leadership:
        wait_in_vain(leadership)
        kept = open_descriptors()
        for _ in range(3):
            wait_in_vain(leadership)
        write_status(tmp_path, leader_document())
        leadership.wait(role="leader", timeout=NEVER)
        assert open_descriptors() == kept
    assert open_descriptors() == before


def test_an_object_that_is_forgotten_gives_its_descriptors_back(tmp_path: Path) -> None:
    before = open_descriptors()
    leadership = Leadership(tmp_path)
    wait_in_vain(leadership)
    assert open_descriptors() != before
    del leadership
    assert open_descriptors() == before


def test_a_closed_object_can_wait_again(tmp_path: Path) -> None:
    with Leadership(tmp_path) as leadership:
        wait_in_vain(leadership)
        leadership.close()
        with meanwhile(write_status, tmp_path, leader_document()):
            assert leadership.wait(role="leader", timeout=NEVER).role == "leader"


def test_a_resting_object_collects_no_events(tmp_path: Path) -> None:
    with Leadership(tmp_path) as leadership:
        wait_in_vain(leadership)
        (watch,) = leadership._idle
        with contextlib.suppress(BlockingIOError):
            os.read(watch._inotify, 1 << 16)  # that it watches no more
        write_status(tmp_path, leader_document())
        with pytest.raises(BlockingIOError):
            os.read(watch._inotify, 1 << 16)


def test_a_forked_process_does_not_take_events_from_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leadership(tmp_path) as leadership:
        wait_in_vain(leadership)
        (parents,) = leadership._idle
        monkeypatch.setattr(parents, "pid", 1)  # as seen from a child
        wait_in_vain(leadership)
        (childs,) = leadership._idle
        assert childs is not parents


def test_two_threads_on_one_object_both_hear_of_a_change(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    leadership, heard = Leadership(tmp_path), []
    threads = [
        threading.Thread(target=lambda: heard.append(leadership.wait(timeout=NEVER).role))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        wait_until(functools.partial(sleeps, thread.native_id), "the thread sleeps")
    write_status(tmp_path, leader_document())
    for thread in threads:
        thread.join()
    assert heard == ["leader", "leader"]


@pytest.mark.usefixtures("how")
async def test_changed_wakes_on_a_change(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    leadership = Leadership(tmp_path)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(leadership.changed())
        await asyncio.sleep(0)  # it waits now
        write_status(tmp_path, leader_document())
    assert waiting.result().role == "leader"


async def test_changed_does_not_wait_for_what_happened_since_the_last_call(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    async with asyncio.timeout(PATIENCE):
        write_status(tmp_path, leader_document())
        assert (await leadership.changed()).role == "leader"
        write_status(tmp_path, follower_document())
        leadership.is_leader()  # asking in between makes it no older news
        assert (await leadership.changed()).role == "follower"


async def test_what_was_told_once_is_no_change_any_more(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    write_status(tmp_path, leader_document())
    async with asyncio.timeout(PATIENCE):
        await leadership.changed()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await leadership.changed()
    write_status(tmp_path, follower_document())
    leadership.wait(timeout=NEVER)
    with pytest.raises(TimeoutError):
        leadership.wait(timeout=0.1)


async def test_changed_tells_a_term_from_the_next_one(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    leadership = Leadership(tmp_path)
    write_status(tmp_path, leader_document(token=9000))
    async with asyncio.timeout(PATIENCE):
        term = (await leadership.changed()).term
    assert term is not None
    assert term.token == 9000


async def test_a_renewal_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_status(tmp_path, leader_document())
    leadership = Leadership(tmp_path)
    looked, status = asyncio.Event(), leadership.status

    def look() -> Status:
        looked.set()
        return status()

    monkeypatch.setattr(leadership, "status", look)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(leadership.changed())
        await looked.wait()
        looked.clear()
        write_status(tmp_path, leader_document(valid_until="2027-01-01T00:00:00.000Z"))
        await looked.wait()  # it looked, and found nothing worth telling
        assert not waiting.done()
        write_status(tmp_path, follower_document())
    assert waiting.result().role == "follower"


@pytest.mark.usefixtures("how")
async def test_changed_wakes_at_the_deadline(tmp_path: Path) -> None:
    deadline = boottime.now() + 0.3
    write_status(tmp_path, leader_document(valid_until_boottime=deadline))
    leadership = Leadership(tmp_path)
    async with asyncio.timeout(PATIENCE):
        status = await leadership.changed(since=leader_status(tmp_path))
    assert (status.problem, boottime.now() >= deadline) == ("expired", True)


def leader_status(directory: Path) -> Status:
    """What a live leader's status reads as, whatever becomes of this one in the meantime."""
    apart = directory / "apart"
    write_status(apart, leader_document())
    return Leadership(apart).status()


async def test_a_reader_with_a_since_of_its_own_misses_nothing_that_another_has_heard(
    tmp_path: Path,
) -> None:
    write_status(tmp_path, follower_document())
    leadership = Leadership(tmp_path)
    seen = leadership.status()
    async with asyncio.timeout(PATIENCE):
        write_status(tmp_path, leader_document())
        assert (await leadership.changed(since=seen)).role == "leader"
        assert (await leadership.changed(since=seen)).role == "leader"


@pytest.mark.usefixtures("how")
async def test_changed_that_is_cancelled_cleans_up(tmp_path: Path) -> None:
    leadership = Leadership(tmp_path)
    write_status(tmp_path, follower_document())
    leadership.wait(timeout=0)
    before = open_descriptors()
    selector: selectors.BaseSelector = vars(asyncio.get_running_loop())["_selector"]
    readers = set(selector.get_map())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await leadership.changed()
    assert open_descriptors() == before
    assert set(selector.get_map()) == readers
    async with asyncio.timeout(PATIENCE):
        write_status(tmp_path, leader_document())
        assert (await leadership.changed()).role == "leader"
    assert open_descriptors() == before


def test_a_timer_fires_at_once_for_what_is_past_and_is_cleared_when_disarmed() -> None:
    timer = boottime.Timer()
    try:
        for past in (-1.0, 0.0, boottime.now()):
            timer.arm(past)
            wait_until(lambda: fired(timer), f"the timer fires for {past}")
        timer.arm(None)
        assert not fired(timer)
        timer.arm(1e300)  # beyond the kernel's types
        assert not fired(timer)
    finally:
        timer.close()


def fired(timer: boottime.Timer) -> bool:
    poll = select.poll()
    poll.register(timer.fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("how", ["inotify"], indirect=True)
@pytest.mark.usefixtures("how")
def test_waking_takes_milliseconds(tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    leadership, delays = Leadership(tmp_path), []
    for turn in range(20):
        written: list[float] = []

        def write(document: dict[str, Any], written: list[float] = written) -> None:
            write_status(tmp_path, document)
            written.append(time.perf_counter())

        document = follower_document() if turn % 2 else leader_document()
        with meanwhile(write, document):
            leadership.wait(role=document["role"], timeout=NEVER)
            done = time.perf_counter()
        delays.append(done - written[0])
    assert sorted(delays)[len(delays) // 2] < 1.0


def test_what_happens_to_other_files_is_no_news(tmp_path: Path) -> None:
    """Each change of the status brings several events; only the file itself is worth a look."""
    write_status(tmp_path, follower_document())
    watch = directory_watch.DirectoryWatch(str(tmp_path), boottime.STATUS)
    try:
        watch.renew()
        (tmp_path / "session.json").write_text("{}")
        (tmp_path / f".{boottime.STATUS}.tmp").write_text("{}")
        (tmp_path / "session.json").unlink()
        assert not watch.is_news()
        write_status(tmp_path, leader_document())
        assert watch.is_news()
        watch.renew()
        (tmp_path / boottime.STATUS).unlink()
        assert watch.is_news()
        watch.renew()
        tmp_path.rename(tmp_path.with_name("elsewhere"))
        assert watch.is_news()
    finally:
        watch.close()
