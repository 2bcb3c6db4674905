"""`etcd ...` and `rollout`: what a deployment in Kubernetes runs once or now and then."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.cli.options import given, settings_options
from sidecar.cli.reaching import reached
from sidecar.election.ports import SystemClock
from sidecar.errors import ConfigError
from sidecar.flags import BY_FIELD, PREFIX, Group
from sidecar.settings import StoreSettings
from sidecar.values import parse_duration

if TYPE_CHECKING:
    from sidecar.cluster.membership import Patience
    from sidecar.cluster.plan import Plan
    from sidecar.etcd.admin import Cluster
    from sidecar.etcd.credentials import Credentials

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

_CREDENTIALS = ("user", "password-file", "cacert", "cert", "key")

# A small process that only waits for its end, as long as the pod lives: 9 MB. The signals for that
# are blocked before it begins, so that none is lost meanwhile.
_ENDS = (signal.SIGTERM, signal.SIGINT)
_REST = f"import signal; signal.sigwait({{{', '.join(str(int(number)) for number in _ENDS)}}})"


def _credentials_options(command: Command) -> Command:
    for name in reversed(_CREDENTIALS):
        field = name.replace("-", "_")
        command = click.option(
            f"--{name}",
            metavar=BY_FIELD[field].metavar,
            envvar=PREFIX + field.upper(),
            show_envvar=True,
            help=BY_FIELD[field].help,
        )(command)
    return command


def _cluster_options(within: str) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        command = _credentials_options(command)
        command = click.option(
            "--within",
            metavar="DURATION",
            default=within,
            show_default=True,
            help="Fail when it is not done by then.",
        )(command)
        return click.option(
            "--plan",
            "plan_file",
            metavar="FILE",
            required=True,
            type=click.Path(path_type=Path),
            help="What the etcd shall be: the file plan.json that the chart makes.",
        )(command)

    return decorate


@click.group("etcd")
def etcd_command() -> None:
    """Look after the etcd of the chart: its members, users, space.

    The chart runs these; each can be run by hand, too.

    \b
    Example:
      leader-sidecar etcd scale-down --plan plan.json --replicas 3
    """


@etcd_command.command("init")
@_cluster_options("10m")
@click.option("--name", metavar="NAME", envvar="POD_NAME", required=True, help="This member.")
@click.option("--uid", metavar="UID", envvar="POD_UID", default="", help="Its pod's, for Events.")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="etcd's data.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
def init_command(
    *, plan_file: Path, within: str, name: str, uid: str, data_dir: Path, out: Path, **files: str
) -> int:
    """Decide how a member begins, and write its configuration.

    With data it starts. Without, it begins a new cluster if no other member has data, joins the one
    that answers as a learner, and stops with an Event where its own data was lost (unless the plan
    has autoReplaceMember).
    """
    from sidecar.cluster.api import Api  # noqa: PLC0415 - as below: --help need not wait for it
    from sidecar.cluster.initializing import Files, Initializer  # noqa: PLC0415
    from sidecar.cluster.own_pod import Pods  # noqa: PLC0415

    async def init(plan: Plan, cluster: Cluster, _: Credentials) -> None:
        pods = Pods(Api.in_cluster(), plan.namespace, name, uid)
        clock = SystemClock()
        starting = Initializer(
            plan,
            name,
            Files(data_dir, out),
            cluster=cluster,
            pods=pods,
            clock=clock,
            say=click.echo,
            within=_seconds(within),
        )
        await starting.run()

    _with_cluster(plan_file, files, init)
    return 0


@etcd_command.command("keep")
@_cluster_options("1440m")
@click.option("--name", metavar="NAME", envvar="POD_NAME", required=True, help="This member.")
def keep_command(plan_file: Path, within: str, name: str, **files: str) -> int:
    """Let the own member vote once it has caught up with the others, then only wait for the end."""
    from sidecar.cluster.membership import promote_own  # noqa: PLC0415

    async def keep(plan: Plan, cluster: Cluster, _: Credentials) -> bool:
        return await promote_own(plan, name, cluster, _patience(within))

    if _with_cluster(plan_file, files, keep):
        click.echo(f"{name} votes now")
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _REST])  # noqa: S606 - no shell


@etcd_command.command("scale-down")
@_cluster_options("4m")
@click.option("--replicas", type=click.IntRange(1), required=True, help="How many shall be left.")
def scale_down_command(plan_file: Path, within: str, replicas: int, **files: str) -> int:
    """Remove the members of the highest ordinals, one at a time, each with its pod.

    The chart runs it before an upgrade, which stops when this fails.
    """
    from sidecar.cluster.api import Api  # noqa: PLC0415
    from sidecar.cluster.membership import shrink  # noqa: PLC0415
    from sidecar.cluster.plan import Plan  # noqa: PLC0415
    from sidecar.cluster.replicas import Replicas  # noqa: PLC0415

    pods = Replicas(Api.in_cluster(), Plan.read(plan_file))
    patience = _patience(within)

    async def surplus() -> bool:
        now = await patience.heard(pods.now)
        if now is None or now <= replicas:
            click.echo(
                f"nothing to remove: {now or 'no'} members are there, {replicas} shall be left"
            )
            return False
        await patience.heard(pods.may_lower)
        return True

    with _ended_by_sigterm():
        if not asyncio.run(surplus()):
            return 0

    async def scale_down(plan: Plan, cluster: Cluster, _: Credentials) -> int:
        return await shrink(
            plan, replicas, cluster=cluster, replicas=pods, patience=patience, say=click.echo
        )

    removed = _with_cluster(plan_file, files, scale_down)
    click.echo(f"removed {removed} member(s)")
    return 0


@etcd_command.command("users")
@_cluster_options("5m")
@click.option("--users", "users_file", required=True, type=click.Path(path_type=Path), help="JSON.")
def users_command(plan_file: Path, within: str, users_file: Path, **files: str) -> int:
    """Bring users and roles to what they shall be, and switch authentication on.

    It reads first and writes only what differs; a second run writes nothing.
    """
    from sidecar.cluster.granting import apply, read_users  # noqa: PLC0415

    wanted = read_users(users_file)

    async def users(_: Plan, cluster: Cluster, __: Credentials) -> int:
        patience = _patience(within)
        made = await patience.until(
            lambda: cluster.ask(lambda admin: apply(admin, wanted, click.echo), within=30.0)
        )
        return len(made)

    click.echo(f"{_with_cluster(plan_file, files, users)} writes")
    return 0


@etcd_command.command("defragment")
@_cluster_options("10m")
@click.option(
    "--wasted",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Only members of whose database at least this share is unused.",
)
def defragment_command(plan_file: Path, within: str, wasted: float, **files: str) -> int:
    """Give the space back that members no longer use, one at a time, the leader last."""
    from sidecar.cluster.defragmenting import defragment  # noqa: PLC0415

    async def run(_: Plan, cluster: Cluster, credentials: Credentials) -> int:
        return await defragment(
            cluster, credentials, _patience(within), wasted=wasted, say=click.echo
        )

    click.echo(f"defragmented {_with_cluster(plan_file, files, run)} member(s)")
    return 0


@click.command("rollout")
@settings_options({Group.STORE}, told={"election": "The election. [default: none, must be given]"})
@click.option("--namespace", metavar="NAME", envvar="POD_NAMESPACE", required=True, help="Whose.")
@click.option("--statefulset", metavar="NAME", required=True, help="One with updates OnDelete.")
@click.option("--within", metavar="DURATION", default="15m", show_default=True, help="Fail then.")
def rollout_command(namespace: str, statefulset: str, within: str, **arguments: str | None) -> int:
    """Replace a StatefulSet's pods, and change the leader once.

    The leader goes last. Candidates must stand in the election by the names of their pods.

    \b
    Example:
      leader-sidecar rollout --statefulset demo --election /leader-sidecar/shop/demo \\
        --endpoints http://demo-etcd.shop.svc:2379
    """
    settings = StoreSettings.read(given(arguments))
    from sidecar.cluster.api import Api  # noqa: PLC0415
    from sidecar.cluster.rolling import Driver  # noqa: PLC0415
    from sidecar.election.commands import Commands  # noqa: PLC0415

    class Election:
        def __init__(self, commands: Commands) -> None:
            self._commands = commands

        async def standing(self) -> Sequence[str]:
            return await self._commands.standing()

        async def hand_over(self, to: str) -> None:
            await self._commands.handover(to)

    async def rollout() -> int:
        async with reached(settings) as etcd:
            election = Election(Commands(etcd, settings.election))
            patience = _patience(within)
            api = Api.in_cluster()
            driver = Driver(
                api, namespace, statefulset, election=election, patience=patience, say=click.echo
            )
            return await driver.run()

    with _ended_by_sigterm():
        handovers = asyncio.run(rollout())
    click.echo(f"every pod is of the present template; handed over {handovers} time(s)")
    return 0


def _patience(within: str) -> Patience:
    from sidecar.cluster.membership import Patience  # noqa: PLC0415

    return Patience(SystemClock(), _seconds(within), click.echo)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError([f"--within: {exc}"]) from exc


def _with_cluster(
    plan_file: Path,
    files: dict[str, str],
    run: Callable[[Plan, Cluster, Credentials], Awaitable[T]],
) -> T:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from sidecar.cluster.plan import Plan  # noqa: PLC0415
    from sidecar.etcd.admin import administering  # noqa: PLC0415
    from sidecar.etcd.credentials import load_credentials  # noqa: PLC0415

    plan = Plan.read(plan_file)
    credentials = load_credentials(
        user=files["user"] or "",
        **{name: Path(files[name]) if files[name] else None for name in _FILES},
        now=dt.datetime.fromtimestamp(SystemClock().wall(), dt.UTC),
    )

    async def running() -> T:
        async with administering(plan.endpoints, credentials) as cluster:
            return await run(plan, cluster, credentials)

    with _ended_by_sigterm():
        return asyncio.run(running())


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End at once on SIGTERM, which the kernel keeps from a container's first process else."""

    def end(number: int, frame: object) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_FILES = ("password_file", "cacert", "cert", "key")
