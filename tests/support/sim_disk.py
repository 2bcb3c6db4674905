"""A simulated status directory, and the sidecar's real outputs that write to it in virtual time.

`StatusFile` and `StatusKeeper` are the product's own; only their threads are replaced. A thread is
input of its process: it stops with a freeze and ends with a crash. What has reached the kernel
does neither: a rename that was begun lands also while the process is frozen or dead.
"""

import errno
import json
from collections import deque
from collections.abc import Callable

from sidecar.boottime import STATUS
from sidecar.core.state import ElectionState
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.outputs.health import LONGEST_PAUSE, OutputErrors
from sidecar.outputs.keeper import StatusKeeper
from sidecar.outputs.status_dir import SeenToken, SessionRecord
from sidecar.outputs.status_file import StatusFile
from tests.support.history import History
from tests.support.sim_process import Process

_QUICK = 0.002
_SLOW = 3.0
_WAY_INTO_KERNEL = 0.5
_LOST_WITH_CRASH = 0.5


class SimDirectory:
    """The directory of one sidecar; it outlives the lives of its process.

    Attributes:
        mode: "fine"; "slow": a write takes up to 3 s; "full": nothing new fits; "readonly";
            "hung": no call returns until the mode changes; "stuck": as hung, but only the rename
            that puts a file in its place.
        session, seen: what a restart finds.
        status: the status file's content, or None.
    """

    def __init__(self, process: Process, history: History) -> None:
        self.process = process
        self.history = history
        self.mode = "fine"
        self.session: SessionRecord | None = None
        self.seen: SeenToken | None = None
        self.holder: Process | None = None
        self.status: bytes | None = None
        self._landing: Callable[[], None] | None = None
        self._is_in_kernel = False
        self._when_landed: Callable[..., None] = _nothing
        self._hung: list[Callable[[], None]] = []

    def set_mode(self, mode: str) -> None:
        """Change how the disk behaves; what hung goes on unless it is "hung" now."""
        self.mode = mode
        if mode not in ("hung", "stuck"):
            hung, self._hung = self._hung, []
            for go_on in hung:
                go_on()

    def after_a_while(self, work: Callable[[], None], *, is_rename: bool = False) -> None:
        """Call `work` when the disk has done what a call asks of it."""
        if self.mode == "hung" or (is_rename and self.mode == "stuck"):
            self._hung.append(lambda: self.after_a_while(work, is_rename=is_rename))
            return
        world = self.process.world
        world.after(world.rng.random() * (_SLOW if self.mode == "slow" else _QUICK), work)

    def in_thread(self, work: Callable[..., object]) -> Callable[..., None]:
        """Return a callback that does its work in the present life of the process, or never."""
        process, loop = self.process, self.process.loop

        def call(*args: object) -> None:
            if process.loop is loop:
                process.call(work, *args)

        return call

    # What a new life meets

    @property
    def is_locked(self) -> bool:
        """Whether somebody has it: a live process, or a dead one with a call in the kernel."""
        return self._landing is not None or (self.holder is not None and self.holder.is_alive)

    @property
    def is_renaming(self) -> bool:
        """Whether a status that says leader is on its way into its place."""
        return self._landing is not None

    def crashed(self) -> None:
        """Decide what becomes of a rename that is under way when the process is killed."""
        is_lost = (
            self.mode not in ("hung", "stuck")
            and self.process.world.rng.random() < _LOST_WITH_CRASH
        )
        if is_lost or not self._is_in_kernel:
            self._landing = None
        self._when_landed = _nothing

    def wipe(self) -> None:
        """Forget everything, as an emptyDir does when its pod is recreated."""
        self._landing, self.session, self.seen = None, None, None
        self._lands(None)

    # What `Writer` and `StatusKeeper` ask for

    def claimed_until(self) -> float:
        document = json.loads(self.status) if self.status is not None else {}
        until = document.get("valid_until_boottime")
        return float(until) if document.get("role") == "leader" and until else float("-inf")

    def replace(self, name: str, content: bytes, *, is_meant: Callable[[], bool]) -> bool:
        self._refuse_writes()
        assert name == STATUS
        if not is_meant():
            return False
        if json.loads(content)["role"] != "leader":
            self._lands(content)
            return True
        self._landing = landing = lambda: self._lands(content)
        self._is_in_kernel = self.process.world.rng.random() < _WAY_INTO_KERNEL
        if self._is_in_kernel:
            self.after_a_while(lambda: self._land(landing), is_rename=True)
        else:  # the thread is stopped before the call: a freeze delays it, a crash prevents it
            land = self.in_thread(self._land)
            self.after_a_while(lambda: land(landing), is_rename=True)
        return True

    def remove(self, name: str) -> None:
        self._refuse_changes()
        if name == STATUS:
            self._lands(None)

    def touch(self, name: str) -> None:
        self._refuse_writes()

    def write_session(self, record: SessionRecord) -> None:
        self._refuse_writes()
        self.session = record

    def remove_session(self) -> None:
        self._refuse_changes()
        self.session = None

    def write_seen(self, seen: SeenToken) -> None:
        self._refuse_writes()
        self.seen = seen

    def when_landed(self, callback: Callable[[], None]) -> None:
        """Call back in the process once no rename of this life is under way."""
        if self._landing is None:
            callback()
        else:
            self._when_landed = self.in_thread(callback)

    def _land(self, landing: Callable[[], None]) -> None:
        if self._landing is not landing:
            return
        self._landing = None
        landing()
        callback, self._when_landed = self._when_landed, _nothing
        callback()

    def _lands(self, content: bytes | None) -> None:
        self.status = content
        document = json.loads(content) if content is not None else {}
        if document.get("role") == "leader":
            until = float(document["valid_until_boottime"])
            self.history.said(self.process, STATUS, document["token"], until)
        else:
            self.history.unsaid(self.process, STATUS)

    def _refuse_writes(self) -> None:
        if self.mode == "full":
            raise OSError(errno.ENOSPC, "no space left on device")
        self._refuse_changes()

    def _refuse_changes(self) -> None:
        if self.mode == "readonly":
            raise OSError(errno.EROFS, "read-only file system")


class SimStatusFile(StatusFile):
    """The real status file; its thread's loop is turned by the simulation."""

    def __init__(
        self, directory: SimDirectory, feed: Feed[ElectionState], errors: OutputErrors
    ) -> None:
        super().__init__(directory, feed, directory.process, errors)
        self._disk = directory
        self._pauses = Backoff(directory.process.world.rng, LONGEST_PAUSE)
        self._turn_number = 0
        self._is_busy = False

    def _wake(self) -> None:
        self._is_wanted = True
        if not self._is_busy:
            self._turn()

    def _turn(self) -> None:
        self._is_busy = True
        state = self._begin()
        write = self._disk.in_thread(self._write_it)
        self._disk.after_a_while(lambda: write(state))

    def _write_it(self, state: ElectionState) -> None:
        try:
            is_done = self._write(state)
        except OSError as error:
            self._errors.failed(STATUS, error)
            pause = self._no_later(state, self._pauses.next())
        else:
            self._errors.worked(STATUS)
            self._pauses.reset()
            pause = self._no_later(state, None) if is_done else 0.0
        self._disk.when_landed(lambda: self._tried(pause))

    def _tried(self, pause: float | None) -> None:
        self._is_busy = False
        self._one_more_try()
        self._turn_number += 1
        if self._is_wanted:
            self._turn()
        elif pause is not None:
            number = self._turn_number
            self._disk.process.loop.call_later(pause, self._due, number)

    def _due(self, number: int) -> None:
        if number == self._turn_number and not self._is_busy:
            self._turn()


class SimKeeper(StatusKeeper):
    """The real keeper; its thread's queue is worked off by the simulation."""

    def __init__(self, directory: SimDirectory, election: str, id_: str) -> None:
        # Not the base's: it would start a thread, and wants a directory in a file system.
        self._directory = directory  # type: ignore[assignment]
        self._election = election
        self._id = id_
        self._boot_id = "simulated"
        self._errors = OutputErrors(_uncounted)
        self._believers = []
        self._jobs = _Jobs(directory)  # type: ignore[assignment]


class _Jobs:
    """Works off what is put, one after the other, each for as long as the disk takes."""

    def __init__(self, directory: SimDirectory) -> None:
        self._disk = directory
        self._jobs: deque[Callable[[], object]] = deque()

    def put(self, job: Callable[[], object]) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._next()

    def _next(self) -> None:
        self._disk.after_a_while(self._disk.in_thread(self._work))

    def _work(self) -> None:
        self._jobs[0]()
        self._jobs.popleft()
        if self._jobs:
            self._next()


def _nothing() -> None:
    pass


def _uncounted(output: str) -> None:
    pass
