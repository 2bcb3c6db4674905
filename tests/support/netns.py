"""A network namespace with one cable to ours, which can be cut silently, in either direction.

No name is registered and no filter rule set: the namespace belongs to a holder process that dies
with us, and the kernel removes it, and the cable with it, when its last process is gone. So even a
killed test run leaves nothing behind. Needs root, and the tools of iproute2 and util-linux.
"""

import ipaddress
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.procs import Child, wait_until

TOOLS = ("ip", "unshare", "nsenter", "sleep")
NETWORK = ipaddress.IPv4Network("198.18.0.0/15")  # set aside by RFC 2544 for tests of networks
NOBODYS_MAC = "02:00:00:00:00:00"


def missing_reason() -> str | None:
    """Return why there can be no network namespace here, or None when there can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces: not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces: only root may make them"
    tried = subprocess.run(
        ["unshare", "--net", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        return f"network namespaces: {tried.stderr.strip()}"
    return None


class NetNs:
    """A namespace reached at `inside`; from within it we are `outside` (both IPv4 addresses)."""

    def __init__(self, folder: Path) -> None:
        """Describe the namespace; entering the context makes it. `folder` takes a log file."""
        self._folder = folder
        self._holder: Child | None = None
        self.inside = ""
        self.outside = ""
        self._inside_mac = ""
        self._outside_mac = ""

    @property
    def prefix(self) -> Sequence[str]:
        """The command that runs another one inside, in its own place (same process id)."""
        assert self._holder is not None
        return ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--")

    def __enter__(self) -> Self:
        name = f"ls{random.getrandbits(40):010x}"  # also the interface: 15 characters at most
        self._outer, self._inner = f"{name}o", f"{name}i"
        self._holder = Child(
            ["unshare", "--net", "sleep", "infinity"], name=f"netns-{name}", folder=self._folder
        ).start()
        try:
            self._connect(self._holder.pid)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def cut(self, *, to_inside: bool = True, to_outside: bool = True) -> None:
        """Lose all packets of the chosen directions; nobody is told, as when a switch dies.

        Both sides keep their addresses and routes. The frames go to a hardware address that nobody
        has and are dropped by the receiver, so not even an error shows on the sending side.
        """
        if to_inside:
            self._aim_at_inside(NOBODYS_MAC)
        if to_outside:
            self._aim_at_outside(NOBODYS_MAC)

    def heal(self) -> None:
        """Let packets pass again in both directions."""
        self._aim_at_inside(self._inside_mac)
        self._aim_at_outside(self._outside_mac)

    def _connect(self, holder: int) -> None:
        ours = Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{holder}/ns/net")
        wait_until(lambda: theirs.readlink() != ours, "the holder is in a namespace of its own")
        _ip("link", "add", self._outer, "type", "veth", "peer", self._inner, "netns", str(holder))
        self.outside, self.inside = _free_pair()
        _ip("addr", "add", f"{self.outside}/30", "dev", self._outer)
        self._ip_inside("addr", "add", f"{self.inside}/30", "dev", self._inner)
        _ip("link", "set", self._outer, "up")
        self._ip_inside("link", "set", self._inner, "up")
        self._ip_inside("link", "set", "lo", "up")
        self._outside_mac = _mac(_ip("-o", "link", "show", self._outer))
        self._inside_mac = _mac(self._ip_inside("-o", "link", "show", self._inner))
        self.heal()

    def _aim_at_inside(self, mac: str) -> None:
        _ip(*_neighbour(self.inside, mac, self._outer))

    def _aim_at_outside(self, mac: str) -> None:
        self._ip_inside(*_neighbour(self.outside, mac, self._inner))

    def _ip_inside(self, *arguments: str) -> str:
        return _run([*self.prefix, "ip", *arguments])

    def _close(self) -> None:
        # The cable by hand: the kernel takes a while to clear a namespace away.
        subprocess.run(["ip", "link", "del", self._outer], capture_output=True, check=False)
        if self._holder is not None:
            self._holder.close()


def _neighbour(address: str, mac: str, device: str) -> tuple[str, ...]:
    return ("neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")


def _free_pair() -> tuple[str, str]:
    """Return two addresses of a /30 that no interface of ours has a part of."""
    taken = _ip("-o", "-4", "addr", "show")
    while True:
        start = int(NETWORK.network_address) + 4 * random.randrange(NETWORK.num_addresses // 4)
        first, second = str(ipaddress.IPv4Address(start + 1)), str(ipaddress.IPv4Address(start + 2))
        if f" {first}/" not in taken:
            return first, second


def _mac(link: str) -> str:
    return link.partition("link/ether ")[2].partition(" ")[0]


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
