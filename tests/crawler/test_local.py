"""`make crawler`, as a user runs it: by script, live, and ended in every way."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.procs import Child, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PATIENCE = 120.0  # seconds; a bound for a slow machine
PROCESSES = 7  # an etcd, two Masters, two sidecars, two Workers


@pytest.fixture
def temp_dir(tmp_path: Path) -> Path:
    """The program's TMPDIR."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@contextmanager
def crawler(temp_dir: Path, *options: str) -> Iterator[Child]:
    child = Child(
        [sys.executable, "-m", "crawler.local", *options],
        name="crawler",
        folder=temp_dir.parent,
        env={"TMPDIR": str(temp_dir)},
    )
    with child:
        yield child


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, listed.read_text().split())
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_three_steps_go_as_promised_and_leave_nothing(temp_dir: Path) -> None:
    with crawler(temp_dir, "--script", "--ttl=3") as script:
        assert script.wait(PATIENCE) == 0, script.tail()
        said = script.text()
    assert script.text("err") == ""
    assert said.endswith("all as promised\n")
    steps = re.split(r"^(?=\S)", said, flags=re.MULTILINE)
    first, second, third = steps[2:5]
    assert re.search(r"master2: standing: master change to leader id=master2-127\.0\.0\.2:", first)
    assert len(re.findall(r"/resources/election/\w+ ", first)) == 1
    assert re.search(r"master3: standing: watch leader change old=none new=master2-", second)
    assert len(re.findall(r"/resources/election/\w+ ", second)) == 2
    assert re.search(r"Master 3 passed it on to master2-.*; Worker [12] crawls it", second)
    assert re.search(r"[1-9] page\(s\) fetched by Worker [12]: 200 'Crawler Master'", second)
    assert re.search(r"master3: standing: master change to leader", third)
    assert len(re.findall(r"/resources/election/\w+ ", third)) == 1
    assert list(temp_dir.iterdir()) == []


def test_it_runs_until_it_is_interrupted_and_what_it_prints_works(temp_dir: Path) -> None:
    with crawler(temp_dir) as live:
        live.wait_for_line(r"^master3 \| .* master ready leader=master[23]-", within=PATIENCE)
        curl = live.wait_for_line(r"curl -i (http://\S+/resources) --json '(.*)'", within=PATIENCE)
        spec = json.loads(curl[2])
        assert spec.pop("urls") == ["https://example.com/"]
        spec["urls"] = [curl[1]]  # nothing leaves this machine in a test
        answer = httpx.post(curl[1], json=spec, timeout=PATIENCE, trust_env=False)
        assert answer.status_code == 200
        children = children_of(live.pid)
        assert len(children) == PROCESSES
        live.signal(signal.SIGINT)
        assert live.wait(PATIENCE) == 0
    assert live.text("err") == ""
    assert [pid for pid in children if is_alive(pid)] == []
    assert list(temp_dir.iterdir()) == []


def test_all_processes_end_with_one_that_is_killed(temp_dir: Path) -> None:
    with crawler(temp_dir) as live:
        live.wait_for_line("master ready", within=PATIENCE)
        children = children_of(live.pid)
        os.kill(live.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in children), "all of them are gone")


def test_a_signal_in_the_middle_of_the_script_leaves_nothing(temp_dir: Path) -> None:
    with crawler(temp_dir, "--script") as script:
        script.wait_for_line("^2. start Master 3", within=PATIENCE)
        children = children_of(script.pid)
        script.signal(signal.SIGTERM)
        assert script.wait(PATIENCE) == 1
        assert script.lines()[-1] == "interrupted before the end"
        assert script.text("err") == ""
    assert [pid for pid in children if is_alive(pid)] == []
    assert list(temp_dir.iterdir()) == []


def test_a_ttl_that_etcd_would_raise_is_refused(temp_dir: Path) -> None:
    with crawler(temp_dir, "--ttl=1s") as refused:
        assert refused.wait(PATIENCE) == 2
        assert refused.text("err") == "crawler: --ttl: '1s' is too short; give 2s or more\n"
