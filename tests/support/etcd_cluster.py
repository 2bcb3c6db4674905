"""Real etcd clusters on loopback: started, frozen, killed, restarted and restored by tests.

The calls block and know nothing of asyncio; an asynchronous test wraps what may take long in
`asyncio.to_thread`, all but the starting (see `procs.Child`).
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.binaries import etcd_binaries
from tests.support.etcd_server import EtcdOptions, EtcdServer
from tests.support.procs import inherited_environment, wait_until
from tests.support.tls import KeyPair

__all__ = ["EtcdCluster", "EtcdOptions", "EtcdServer"]

ETCDCTL_TIMEOUT = 30.0


class EtcdCluster:
    """One or more members; a context manager that starts them and leaves nothing behind."""

    def __init__(self, options: EtcdOptions | None = None) -> None:
        """Describe the cluster; `start` or entering the context runs it.

        Raises:
            BinaryMissingError: when this version of etcd cannot be had here.
        """
        self.options = options or EtcdOptions()
        self.binaries = etcd_binaries(self.options.version)
        self.members: list[EtcdServer] = []
        self._resources = ExitStack()
        self._folder = Path()

    def start(self) -> Self:
        """Start all members and wait until all are healthy and one of them leads."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill all members and remove their data."""
        self._resources.close()
        self.members.clear()

    def logs(self) -> str:
        """Return the last lines that each member logged, for the message of a failure."""
        return "\n".join(member.child.tail() for member in self.members)

    def __enter__(self) -> Self:
        return self if self.members else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> list[str]:
        """The client URLs of all members."""
        return [member.endpoint for member in self.members]

    def wait_healthy(self) -> None:
        """Wait until every member is healthy; fail with the log of the first that is not."""
        for member in self.members:
            member.wait_healthy()

    def leader_index(self) -> int:
        """Return the index of the member that leads, waiting until exactly one says so."""

        def leaders() -> list[int]:
            return [index for index, member in enumerate(self.members) if member.is_leader()]

        return wait_until(lambda: found if len(found := leaders()) == 1 else [], "one etcd leader")[
            0
        ]

    def etcdctl(
        self,
        *arguments: str,
        user: str | None = None,
        endpoints: Sequence[str] | None = None,
        client: KeyPair | None = None,
        check: bool = True,
        stdin: str | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run etcdctl to its end; `user` is NAME:PASSWORD, `client` a certificate other than ours.

        Raises:
            AssertionError: with its stderr, when it fails and `check` is set.
        """
        done = subprocess.run(
            self.etcdctl_command(*arguments, user=user, endpoints=endpoints, client=client),
            capture_output=True,
            text=True,
            input=stdin or "",
            env=inherited_environment(),
            timeout=ETCDCTL_TIMEOUT,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(done.args)}: {done.stdout}{done.stderr}")
        return done

    def etcdctl_command(
        self,
        *arguments: str,
        user: str | None = None,
        endpoints: Sequence[str] | None = None,
        client: KeyPair | None = None,
    ) -> list[str]:
        """Return the command line of etcdctl, for one that has to go on running (`Child`)."""
        command = [
            str(self.binaries.etcdctl),
            f"--endpoints={','.join(endpoints or self.endpoints)}",
        ]
        if self.options.tls is not None:
            pair = client or self.options.tls.client
            command += [
                f"--cacert={self.options.tls.ca}",
                f"--cert={pair.cert}",
                f"--key={pair.key}",
            ]
        if user is not None:
            command.append(f"--user={user}")
        return [*command, *arguments]

    def header(self, *, user: str | None = None) -> dict[str, int]:
        """Return cluster_id, member_id, revision and raft_term, by a linearizable read."""
        got = self.etcdctl("get", "\x01", "--write-out=json", user=user)
        header: dict[str, int] = json.loads(got.stdout)["header"]
        return header

    def enable_auth(self, root_password: str) -> None:
        """Make the user root and switch authentication on."""
        self.etcdctl("user", "add", f"root:{root_password}")
        self.etcdctl("user", "grant-role", "root", "root")
        self.etcdctl("auth", "enable")

    def save_snapshot(self, path: Path, *, user: str | None = None) -> None:
        """Write a backup of the store to a file."""
        self.etcdctl("snapshot", "save", str(path), user=user, endpoints=self.endpoints[:1])

    def restore(
        self, snapshot: Path, *, new_cluster_id: bool = False, bump_revision: int | None = None
    ) -> None:
        """Kill all members, give all the store of a backup, start them on the same ports.

        The revision goes back to the backup's, unless it is bumped (and what the backup had is
        marked as compacted), as etcd's documentation advises.
        """
        flags = [f"--initial-cluster-token={'restored' if new_cluster_id else 'etcd-cluster'}"]
        if bump_revision is not None:
            flags += [f"--bump-revision={bump_revision}", "--mark-compacted"]
        for member in self.members:
            member.kill()
            shutil.rmtree(member.data_dir)
        for member in self.members:
            self._restore_member(member, snapshot, flags)
        for member in self.members:
            member.child.start()
        self.wait_healthy()
        self.leader_index()

    def _start(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="leader-sidecar-etcd-")
        self._folder = Path(self._resources.enter_context(scratch))
        for number in range(self.options.members):
            member = EtcdServer(f"etcd{number}", self.binaries, self.options, self._folder)
            self._resources.callback(self._end_member, member)
            self.members.append(member)
        for member in self.members:
            member.launch(self._initial_cluster())
        self.wait_healthy()
        self.leader_index()

    def _initial_cluster(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def _end_member(self, member: EtcdServer) -> None:
        member.close()
        shutil.rmtree(member.data_dir, ignore_errors=True)

    def _restore_member(self, member: EtcdServer, snapshot: Path, flags: Sequence[str]) -> None:
        command = [
            str(self.binaries.etcdutl),
            "snapshot",
            "restore",
            str(snapshot),
            f"--name={member.name}",
            f"--data-dir={member.data_dir}",
            f"--initial-cluster={self._initial_cluster()}",
            f"--initial-advertise-peer-urls={member.peer_url}",
            *flags,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=inherited_environment(), check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
