"""Every setting of `run` and `exec`: flag, environment variable, default, help. Data, no code.

From this table come the options of the command line (`sidecar.cli.options`), the parsing in
`sidecar.settings` and the page `docs/settings.md` (`python -m sidecar.cli.settings_page`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from sidecar.boottime import DEFAULT_STATUS_DIR
from sidecar.core.codec import DEFAULT_PRIORITY
from sidecar.kube.access import DIRECTORY

PREFIX = "LEADER_SIDECAR_"


class Group(enum.StrEnum):
    """What a setting is about; the values are headings."""

    STORE = "Election and etcd"
    CANDIDATE = "Candidate"
    LEASE = "Lease and step-down"
    HEALTH = "Health of the program"
    FORWARD = "Forwarder"
    OUTPUT = "Outputs and logs"


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting.

    Attributes:
        name: without the dashes in front.
        metavar: what its value is, for the help; "" for a switch.
        group: what it is about.
        help: what it does, one sentence or two.
        trade: what one gains and pays by changing it.
        default: the text that is taken when nothing is given, or None.
        default_is: the default in words, where the text alone does not tell.
    """

    name: str
    metavar: str
    group: Group
    help: str
    trade: str
    default: str | None = None
    default_is: str = ""

    @property
    def flag(self) -> str:
        """As written on the command line."""
        return f"--{self.name}"

    @property
    def field(self) -> str:
        """As written in Python."""
        return self.name.replace("-", "_")

    @property
    def env(self) -> str:
        """The environment variable of the same meaning."""
        return PREFIX + self.field.upper()

    @property
    def shown_default(self) -> str:
        """The default for people to read."""
        return self.default_is or self.default or "none"


FLAGS = (
    Flag(
        "election",
        "NAME",
        Group.STORE,
        "The election to stand in, which is also the beginning of its keys in etcd.",
        "All candidates of one election give the same name. No other election's name may lie below "
        "it, such as /a and /a/b.",
        default_is="none, must be given",
    ),
    Flag(
        "endpoints",
        "URL[,URL...]",
        Group.STORE,
        "Where etcd listens for clients: http:// or https://, with ports.",
        "Name every member: one that is dead, silent or cut off then costs nothing as long as a "
        "majority answers.",
        default="http://127.0.0.1:2379",
    ),
    Flag(
        "user",
        "NAME",
        Group.STORE,
        "The user to log in to etcd as. Needs --password-file.",
        "Without it etcd must let everybody in, or know you by your certificate.",
    ),
    Flag(
        "password-file",
        "FILE",
        Group.STORE,
        "The file that holds the password of --user; a newline at its end does not count.",
        "A file and not a flag, because every process of the machine can read flags.",
    ),
    Flag(
        "cacert",
        "FILE",
        Group.STORE,
        "Certificates (PEM) of the authorities that etcd's certificate may come from.",
        "With your own authority only certificates from it are trusted, no others.",
        default_is="the authorities that gRPC comes with",
    ),
    Flag(
        "cert",
        "FILE",
        Group.STORE,
        "The certificate (PEM) to show to etcd. Needs --key.",
        "For an etcd that asks its clients for certificates; replace it before it expires: each "
        "new connection reads it again.",
    ),
    Flag(
        "key",
        "FILE",
        Group.STORE,
        "The private key (PEM) of --cert.",
        "Whoever can read it can act as this candidate: keep it to its owner.",
    ),
    Flag(
        "id",
        "ID",
        Group.CANDIDATE,
        "This candidate's name, different from all others'. In Kubernetes: the pod's name.",
        "The host's name is never taken for it: containers may share that.",
        default_is="$POD_NAME",
    ),
    Flag(
        "advertise",
        "HOST[:PORT]",
        Group.CANDIDATE,
        "Where others reach the program while this candidate leads.",
        "It is only passed on, to all who ask who leads. Give it where the machine has several "
        "addresses, or where a port belongs to it.",
        default_is="$POD_IP, else this machine's first IPv4 address that is no loopback",
    ),
    Flag(
        "priority",
        "0..1000000",
        Group.CANDIDATE,
        "A leader hands over to a healthy candidate of a higher priority that has stood for 10 s. "
        "0 only observes.",
        "Different priorities keep the leadership where you want it, for one more change of the "
        "leader whenever the preferred candidate comes back.",
        default=str(DEFAULT_PRIORITY),
    ),
    Flag(
        "ttl",
        "DURATION",
        Group.LEASE,
        "How long etcd keeps the lease of a candidate that went silent, in whole seconds.",
        "Shorter: a crashed leader is replaced sooner. Longer: a leader survives longer outages of "
        "etcd and the network, with fewer requests. etcd raises what is below 2 s.",
        default="5s",
    ),
    Flag(
        "margin",
        "DURATION",
        Group.LEASE,
        "How long before the end of its lease a leader stops acting.",
        "Larger: more room for clocks that run at different rates, and for slow effects; outages "
        "are survived for less long. Below the default the promise would not hold: refused.",
        default_is="10 % of the TTL, at least 200ms",
    ),
    Flag(
        "drain",
        "DURATION",
        Group.LEASE,
        "How long a stepping-down leader goes on holding its key after everybody was told, so that "
        "work in hand can end.",
        "Nobody leads during it. It ends early when the lease's margin would be touched.",
        default="0s",
    ),
    Flag(
        "step-down-order",
        "status-first|program-first",
        Group.LEASE,
        "On a planned stop, give the key up once the status says follower, or only on SIGTERM, "
        "which in a pod comes when the program has exited.",
        "program-first is for programs that do not read the status; nobody leads until they have "
        "exited.",
        default="status-first",
    ),
    Flag(
        "accept-token-reset",
        "",
        Group.LEASE,
        "Act also with a token smaller than the largest one seen, as after etcd was restored from "
        "a backup.",
        "Resources that remember the larger token refuse the new leader until they are reset too.",
        default="false",
    ),
    Flag(
        "health-http",
        "URL",
        Group.HEALTH,
        "Probe the program by a GET: status 200 to 399 is healthy. At most one health probe.",
        "Says most about the program, which must serve it within 1 s. An https certificate is not "
        "verified; redirects are not followed.",
    ),
    Flag(
        "health-exec",
        "COMMAND",
        Group.HEALTH,
        "Probe the program by a command: exit code 0 within 1 s is healthy.",
        "Starts a process at every probe. There is no shell: for pipes and variables write "
        "sh -c '...'.",
    ),
    Flag(
        "health-tcp",
        "HOST:PORT",
        Group.HEALTH,
        "Probe the program by a connection: healthy if it is accepted within 1 s.",
        "Needs nothing of the program, but a program that hangs may still accept connections.",
    ),
    Flag(
        "health-interval",
        "DURATION",
        Group.HEALTH,
        "From the start of one probe to the start of the next, at least 100ms.",
        "Shorter: a sick leader steps down sooner, for more load.",
        default="1s",
    ),
    Flag(
        "health-failures",
        "1..1000",
        Group.HEALTH,
        "So many failed probes in a row make the program unhealthy: it steps down in order and "
        "stands back.",
        "Fewer: a sick leader steps down sooner. More: a hiccup costs no leadership.",
        default="3",
    ),
    Flag(
        "forward",
        "[[HOST]:]PORT=PORT[,...]",
        Group.FORWARD,
        "Listen on the first port and carry TCP to the leader's advertised host and the second "
        "port.",
        "Clients need not know of elections. Without a host it listens on all addresses; 127.0.0.1 "
        "lets only this machine (in Kubernetes: this pod) in.",
        default_is="nothing is forwarded",
    ),
    Flag(
        "forward-wait",
        "DURATION",
        Group.FORWARD,
        "How long a new connection waits for a leader that can be reached, at least 100ms; then it "
        "is closed.",
        "Longer: more clients see a slow answer instead of an error while the leader changes. It "
        "should be above --drain, and TTL + 1 s to outlast a crash.",
        default="5s",
    ),
    Flag(
        "forward-drain",
        "DURATION",
        Group.FORWARD,
        "How long connections outlive the term in which they were made.",
        "Longer: more requests that are under way end in peace, at a program that leads no more. A "
        "connection is never moved to another leader.",
        default="2s",
    ),
    Flag(
        "forward-linger",
        "DURATION",
        Group.FORWARD,
        "How long a sidecar that was told to stop goes on forwarding after its key is given up.",
        "A pod gets connections for a second or more after it was told to end. It makes every stop "
        "as much longer.",
        default="5s",
    ),
    Flag(
        "forward-max-connections",
        "1..100000",
        Group.FORWARD,
        "So many connections at once, waiting ones included; more are closed.",
        "Each takes two file descriptors, and two more for each direction in which bytes flow.",
        default="4096",
    ),
    Flag(
        "forward-proxy-protocol",
        "",
        Group.FORWARD,
        "Tell the leader each client's address by a PROXY protocol header, version 2.",
        "The program must expect it: to any other it is garbage at the beginning.",
        default="false",
    ),
    Flag(
        "status-dir",
        "DIR",
        Group.OUTPUT,
        "Where status.json and what a restart needs are kept; one sidecar for each directory.",
        "In memory (tmpfs) it costs no disk writes; kept over a restart of the sidecar, it lets a "
        "leader go on without an election.",
        default=DEFAULT_STATUS_DIR,
    ),
    Flag(
        "http",
        "[HOST]:PORT",
        Group.OUTPUT,
        "Where to answer over HTTP, metrics included; port 0 takes a free one.",
        "It changes nothing. With a host such as 127.0.0.1 only this machine can ask.",
        default=":4040",
    ),
    Flag(
        "ready-when",
        "candidate|leader",
        Group.OUTPUT,
        "What /readyz answers 200 for: every registered candidate, or the leader only.",
        "With leader, a Service finds only the leader, but a rolling update waits forever for the "
        "followers.",
        default="candidate",
    ),
    Flag(
        "label",
        "",
        Group.OUTPUT,
        "Label and annotate the own pod with its role and term, and create Events, through the "
        "Kubernetes API.",
        "Services can select the leader by the label. Needs POD_NAME, POD_NAMESPACE and POD_UID, a "
        "service account's token, and permission to get and patch pods and to create events.",
        default_is="true in a pod that has a token, else false",
    ),
    Flag(
        "service-account-dir",
        "DIR",
        Group.OUTPUT,
        "Where the service account's token and ca.crt are, for --label.",
        "A token that is mounted into the sidecar alone keeps the program from having its rights.",
        default=DIRECTORY,
    ),
    Flag(
        "log-format",
        "text|json",
        Group.OUTPUT,
        "How log lines look.",
        "text is for people, json for programs that collect logs.",
        default="text",
    ),
    Flag(
        "log-level",
        "debug|info|warning|error",
        Group.OUTPUT,
        "The least important log lines to write.",
        "info has every change of the leader; debug has every renewal and every probe.",
        default="info",
    ),
)
"""All settings, in the order of the help."""

BY_FIELD = {flag.field: flag for flag in FLAGS}


_INTRODUCTION = """\
# Settings of `run` and `exec`

Each is a flag or an environment variable; a flag wins. Durations are seconds (`5`, `0.5`) or carry
a unit (`500ms`, `5s`, `2m`). Settings that cannot work end the command with exit code 2 and a list
of all problems.

This page is made by `python -m sidecar.cli.settings_page > docs/settings.md`.
"""


def markdown() -> str:
    """Return the page docs/settings.md."""
    lines = _INTRODUCTION.splitlines()
    for group in Group:
        lines += ["", f"## {group}", "", "| setting | default | what it does | what it trades |"]
        lines += ["|---|---|---|---|"]
        lines += [_row(flag) for flag in FLAGS if flag.group is group]
    return "\n".join(lines) + "\n"


def _row(flag: Flag) -> str:
    usage = f"{flag.flag} {flag.metavar}".rstrip()
    default = flag.default_is or (f"`{flag.default}`" if flag.default else "none")
    cells = (f"`{usage}` <br> `{flag.env}`", default, flag.help, flag.trade)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
