"""`operator` and `inject`: elections as Kubernetes sees them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sidecar.cli.options import given, settings_options
from sidecar.errors import ConfigError
from sidecar.flags import Group
from sidecar.settings import StoreSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_NOT_INSTALLED = (
    "the operator is not installed here; install leader-sidecar[operator], or use the image "
    "leader-sidecar-operator"
)
_TOLD = {
    "election": "The election among the replicas of the operator.  [default: none, must be given]"
}


def _option(name: str, metavar: str, default: str, text: str) -> Callable[[Command], Command]:
    return click.option(
        f"--{name}",
        metavar=metavar,
        default=default,
        show_default=bool(default),
        envvar=f"LEADER_SIDECAR_{name.replace('-', '_').upper()}",
        show_envvar=True,
        help=text,
    )


_OPTIONS = (
    ("id", "ID", "", "This replica.  [default: POD_NAME]"),
    ("ttl", "DURATION", "15s", "How long etcd keeps the lease of a replica that went silent."),
    ("namespaces", "NAME[,NAME...]", "", "What to look after; none for the whole cluster."),
    ("http", "[HOST]:PORT", ":8080", "Where to serve /metrics, /healthz and /readyz."),
    ("webhook", "[HOST]:PORT", ":9443", "Where to serve admission."),
    ("webhook-service", "NAME", "", "The Service of the webhooks; without one none are served."),
    ("mutating-webhooks", "NAME[,NAME...]", "", "MutatingWebhookConfigurations to be trusted by."),
    (
        "validating-webhooks",
        "NAME[,NAME...]",
        "",
        "ValidatingWebhookConfigurations to be trusted by.",
    ),
    (
        "certificate-secret",
        "NAME",
        "",
        "The Secret of the webhooks.  [default: the Service's -tls]",
    ),
    ("sidecar-image", "IMAGE", "leader-sidecar:latest", "The image of injected sidecars."),
    ("sidecar-pull-policy", "POLICY", "IfNotPresent", "When it is pulled."),
)


def _options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = _option(*option)(command)
    return command


@click.command("operator")
@settings_options([Group.STORE], told=_TOLD)
@_options
@click.option(
    "--certificates",
    type=click.Choice(["own", "other"]),
    default="own",
    show_default=True,
    help="Who fills the Secret and the webhooks' caBundle: we, or somebody else (cert-manager).",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option("--log-level", metavar="LEVEL", default="info", show_default=True)
def operator_command(**arguments: str | None) -> int:
    """Make elections things that Kubernetes knows.

    It shows their status, puts labels right, moves leaders off nodes that are drained, and gives
    pods their sidecar. No election needs it. Several replicas elect a leader among themselves.

    \b
    Example:
      leader-sidecar operator --election /leader-sidecar/ops/operator \\
        --endpoints http://etcd.ops.svc:2379
    """
    try:
        from sidecar.operator import app, settings  # noqa: PLC0415 - kopf takes its time
    except ImportError as exc:
        raise ConfigError([f"{_NOT_INSTALLED} ({exc})"]) from exc
    from sidecar.outputs.logs import configure  # noqa: PLC0415

    own = {name: text or "" for name, text in arguments.items()}
    store = StoreSettings.read({k: v for k, v in given(arguments).items() if k in _STORE})
    configure("json" if own["log_format"] == "json" else "text", own["log_level"])
    return app.run(settings.read(store, own, os.environ))


_STORE = {"election", "endpoints", "user", "password_file", "cacert", "cert", "key"}


@click.command("inject")
@click.option(
    "-f",
    "--filename",
    "files",
    metavar="FILE",
    multiple=True,
    required=True,
    help="Manifests (YAML), the Election among them; - for stdin. May be given several times.",
)
@click.option(
    "--election", metavar="NAME", default="", help="For pods whose annotation names none."
)
@click.option("--image", metavar="IMAGE", default="leader-sidecar:latest", show_default=True)
@click.option("--pull-policy", metavar="POLICY", default="IfNotPresent", show_default=True)
@click.option(
    "--output",
    type=click.Choice(["yaml", "patch"]),
    default="yaml",
    show_default=True,
    help="The manifests with the sidecar in them, or the JSON patch of each.",
)
def inject_command(
    *, files: tuple[str, ...], election: str, image: str, pull_policy: str, output: str
) -> int:
    """Put the sidecar into manifests, as the webhook does into pods. Needs no cluster.

    Pods and pod templates with the label leader-sidecar.io/inject: "true" get it; --election is
    the Election of those whose annotation leader-sidecar.io/election names none.

    \b
    Example:
      leader-sidecar inject -f election.yaml -f deployment.yaml | kubectl apply -f -
    """
    try:
        from sidecar.operator import manifests  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigError([f"{_NOT_INSTALLED} ({exc})"]) from exc

    texts = [sys.stdin.read() if name == "-" else _text(name) for name in files]
    click.echo(
        manifests.inject(
            texts,
            election=election,
            defaults=manifests.Defaults(image, pull_policy),
            as_patch=output == "patch",
        ),
        nl=False,
    )
    return 0


def _text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError([f"-f: cannot read {name!r}: {exc}"]) from exc
