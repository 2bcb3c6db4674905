"""Whole sidecars as child processes, and a team of them in one election.

What a test waits for it sees as a program beside the sidecar would: in the status file through
`sidecar.client`, over HTTP, in the log, or by a command.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from sidecar import boottime
from sidecar.client import Leadership
from tests.integration.support_record import Belief, Recorder, problems
from tests.support.procs import LOOPBACK, Child, ReservedPort, inherited_environment, wait_until

LONG = 90.0  # seconds; a bound for a slow machine, not an expectation
PROGRAM = (sys.executable, "-m", "sidecar")
LEADER, OTHER, USAGE, UNREACHABLE = 0, 1, 2, 3  # exit codes


def run_command(
    *arguments: object, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run one command of the product to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**inherited_environment(), **(env or {})},
        timeout=LONG,
        check=False,
    )


def one_line(text: str) -> str:
    """Return what a command said on stderr, which must be one line and no traceback."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


class Sidecar:
    """One sidecar process with its status directory and its port."""

    def __init__(
        self,
        name: str,
        options: Sequence[object],
        folder: Path,
        *,
        status_dir: Path,
        program: Sequence[object] = (),
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Describe it; `program` makes it an `exec`, `prefix` is as for `Child`."""
        self.name = name
        self.status_dir = status_dir
        self._port = ReservedPort()
        self.url = f"http://{LOOPBACK}:{self._port.number}"
        arguments = [
            "exec" if program else "run",
            f"--id={name}",
            f"--advertise={name}.example:9090",
            f"--status-dir={status_dir}",
            f"--http={LOOPBACK}:{self._port.number}",
            *options,
            *(("--", *program) if program else ()),
        ]
        self.child = Child(
            [*PROGRAM, *map(str, arguments)], name=name, folder=folder, prefix=prefix, env=env
        )
        self.leadership = Leadership(status_dir)

    def start(self) -> Self:
        """Start it, for the first time or again."""
        self.child.start()
        return self

    def close(self) -> None:
        """End it and give its port back."""
        self.child.close()
        self._port.close()

    def kill(self) -> None:
        """Kill it without warning."""
        self.child.kill()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        return self.child.terminate(LONG)

    @property
    def log(self) -> list[str]:
        """The lines of its log."""
        return self.child.lines("err")

    def wait_for_log(self, pattern: str, *, skip: int = 0) -> str:
        """Wait for a line in its log and return it."""
        found = self.child.wait_for_line(pattern, stream="err", skip=skip, within=LONG)
        return found.string

    @property
    def token(self) -> int | None:
        """The fencing token while its status file says leader."""
        return self.leadership.token

    def wait_for(self, role: Literal["leader", "follower"]) -> None:
        """Wait until its status file says so."""
        try:
            self.leadership.wait(role, timeout=LONG)
        except TimeoutError as exc:
            raise AssertionError(f"{self.name}: {exc}\n{self.child.tail()}") from None

    def wait_until(self, condition: Callable[[dict[str, Any]], object], what: str) -> None:
        """Wait until a condition holds for its status document."""
        wait_until(lambda: condition(self.document()), f"{self.name}: {what}", LONG)

    def wait_for_link(self, link: str) -> None:
        """Wait until its status file tells this link to etcd."""
        self.wait_until(lambda status: status.get("link") == link, f"link {link}")

    def wait_for_proof(self, ttl: float) -> None:
        """Wait until it leads by a renewal that was sent after this call.

        A lease of `ttl` seconds from then on, less the margin, is what such a one gives.
        """
        called = boottime.now()
        margin = max(ttl / 10, 0.2)

        def is_proven() -> bool:
            term = self.leadership.term()
            return term is not None and term.deadline > called + ttl - margin

        wait_until(is_proven, f"{self.name} renews its term", LONG)

    def document(self) -> dict[str, Any]:
        """Return what its status file holds, believed or not."""
        try:
            document: dict[str, Any] = json.loads((self.status_dir / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return document

    def get(self, path: str) -> tuple[int, str]:
        """Ask over HTTP; return status code and body."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port.number, timeout=LONG)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def code(self, path: str) -> int | None:
        """Return the status code of a GET, or None when nobody listens."""
        try:
            return self.get(path)[0]
        except OSError:
            return None

    def wait_for_code(self, path: str, code: int) -> None:
        """Wait until a path answers so."""
        wait_until(lambda: self.code(path) == code, f"{self.name}{path} answers {code}", LONG)

    def check(self) -> int:
        """Return the exit code of `check` on its status directory."""
        return run_command("check", "--status-dir", self.status_dir).returncode

    def says_everywhere(self, role: Literal["leader", "follower"]) -> bool:
        """Whether status file, HTTP and `check` all say so."""
        leads = role == "leader"
        return (
            self.leadership.status().role == role
            and self.code("/leader") == (200 if leads else 503)
            and self.code("/follower") == (503 if leads else 200)
            and self.check() == (LEADER if leads else OTHER)
        )


class Team:
    """The candidates of one election; a context manager that ends them all."""

    def __init__(
        self, endpoints: Sequence[str], folder: Path, *, election: str = "/resources/election"
    ) -> None:
        self.endpoints = ",".join(endpoints)
        self.folder = folder
        self.election = election
        self.recorder = Recorder()
        self.members: dict[str, Sidecar] = {}
        self.tokens_may_shrink = False
        self._children: list[Child] = []
        self._sidecars: list[Sidecar] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.recorder.stop()
        for sidecar in self._sidecars:
            sidecar.close()
        for child in self._children:
            child.close()

    def judge(self) -> None:
        """Fail when the record shows two leaders, or a token that shrank, or a traceback."""
        self.recorder.stop()
        wrong = problems(self.recorder.beliefs, tokens_may_shrink=self.tokens_may_shrink)
        wrong += [
            f"{sidecar.name} logged a traceback"
            for sidecar in self._sidecars
            if any("Traceback" in line for line in sidecar.log)
        ]
        assert not wrong, "\n".join(wrong)

    def logs(self) -> str:
        """Return what all of them logged, and the record."""
        parts = [sidecar.child.tail() for sidecar in self._sidecars]
        return "\n".join([*parts, *map(str, self.recorder.beliefs)])

    @property
    def store(self) -> tuple[str, ...]:
        """The options that name this election in this store."""
        return f"--election={self.election}", f"--endpoints={self.endpoints}"

    def add(
        self,
        name: str,
        *options: object,
        ttl: float = 3,
        endpoints: Sequence[str] | None = None,
        status_dir: Path | None = None,
        program: Sequence[object] = (),
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> Sidecar:
        """Describe one more sidecar, which records what it tells; `start` runs it."""
        where = ",".join(endpoints) if endpoints is not None else self.endpoints
        sidecar = Sidecar(
            name,
            [f"--election={self.election}", f"--endpoints={where}", f"--ttl={ttl}", *options],
            self.folder,
            status_dir=status_dir or self.folder / f"{name}.status",
            program=program,
            prefix=prefix,
            env=env,
        )
        self.members[name] = sidecar
        self._sidecars.append(sidecar)
        self.recorder.add(name, sidecar.status_dir)
        return sidecar

    def start(self, *names: str, ttl: float = 3, options: Sequence[object] = ()) -> list[Sidecar]:
        """Start several, which queue in this order: the first one leads."""
        sidecars = [self.add(name, *options, ttl=ttl) for name in names]
        self.launch(*sidecars)
        return sidecars

    def launch(self, *sidecars: Sidecar) -> None:
        """Start sidecars so that they queue in this order, and wait until all stand."""
        sidecars[0].start().wait_for("leader")
        for sidecar in sidecars[1:]:
            sidecar.start()
            sidecar.wait_for_code("/readyz", 200)
        self.wait_for_queue(*(sidecar.name for sidecar in sidecars))

    def wait_for_queue(self, *names: str) -> None:
        """Wait until all that stand see exactly this queue."""
        for name in names:
            self.wait_for_queue_of(name, names)

    def wait_for_queue_of(self, name: str, queue: Sequence[str]) -> None:
        """Wait until one of them sees exactly this queue, in which strangers may stand."""
        self.members[name].wait_until(
            lambda status: status.get("candidates") == list(queue), f"the queue {queue}"
        )

    def leaders(self) -> list[Sidecar]:
        """Return whose status file says leader now."""
        return [sidecar for sidecar in self.members.values() if sidecar.leadership.is_leader()]

    def wait_for_leader(self, after: int = 0) -> Sidecar:
        """Wait for a leader whose token is larger than `after`."""

        def found() -> list[Sidecar]:
            return [one for one in self.leaders() if (one.token or 0) > after]

        return wait_until(found, f"a leader with a token above {after}", LONG)[0]

    def command(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Run a command to this election; the first argument is its name."""
        name, *rest = arguments
        return run_command(name, *self.store, *rest)

    def child(
        self, argv: Sequence[str | Path], name: str, env: dict[str, str] | None = None
    ) -> Child:
        """Start another process, which ends with the team."""
        child = Child(argv, name=name, folder=self.folder, env=env)
        self._children.append(child)
        return child.start()

    def terms(self) -> list[tuple[str, int]]:
        """Return (name, token) of all terms that were told, in order."""
        ordered = sorted(self.recorder.beliefs, key=lambda belief: belief.since)
        return list(dict.fromkeys((belief.name, belief.token) for belief in ordered))

    def last_belief(self, name: str, token: int) -> Belief:
        """Return the last time that a status file told this term."""
        return [b for b in self.recorder.beliefs if (b.name, b.token) == (name, token)][-1]
