"""Options of both programs that say where etcd is, and who we are to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from crawler.program import Command, variable
from sidecar import values
from sidecar.election import SystemClock
from sidecar.errors import ConfigError
from sidecar.etcd import EtcdCoordinator
from sidecar.etcd.credentials import Credentials, RenewedCredentials, load_credentials
from sidecar.etcd.endpoints import parse_endpoints

T = TypeVar("T")
U = TypeVar("U")

DEFAULT_ETCD = "http://127.0.0.1:2379"
_ENV = "CRAWLER_"
_OPTIONS = (
    ("etcd", "URL[,URL...]", "Where etcd listens for clients; name every member."),
    ("user", "NAME", "The user to log in to etcd as. Needs --password-file."),
    ("password-file", "FILE", "The file that holds the password of --user."),
    ("cacert", "FILE", "Certificates (PEM) of the authorities that etcd's may come from."),
    ("cert", "FILE", "The certificate (PEM) to show to etcd. Needs --key."),
    ("key", "FILE", "The private key (PEM) of --cert."),
)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What the options say, as texts; None: not given."""

    etcd: str | None = None
    user: str | None = None
    password_file: str | None = None
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None


def store_options(command: Command) -> Command:
    """Give a command the options; it gets them as keyword arguments, one for each field above."""
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(
            f"--{name}",
            metavar=metavar,
            envvar=variable(_ENV, name),
            show_envvar=True,
            help=text + (f"  [default: {DEFAULT_ETCD}]" if name == "etcd" else ""),
        )(command)
    return command


def coordinator(options: StoreOptions) -> EtcdCoordinator:
    """Return the store that the options name, not connected yet.

    Raises:
        ConfigError: with all problems, each naming its option.
    """
    problems: list[str] = []

    def read(name: str, text: str | None, parse: Callable[[str], T]) -> T | None:
        try:
            return None if text is None else parse(text)
        except ValueError as exc:
            problems.append(f"--{name}: {exc}")
            return None

    endpoints = read("etcd", options.etcd or DEFAULT_ETCD, parse_endpoints)
    user = read("user", options.user, values.parse_user)
    password = read("password-file", options.password_file, values.parse_password_file)
    files: dict[str, Path | None] = {
        name: read(name, getattr(options, name), values.parse_file)
        for name in ("cacert", "cert", "key")
    }
    for one, other in (("user", "password_file"), ("cert", "key")):
        if (getattr(options, one) is None) != (getattr(options, other) is None):
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            problems.append(f"{flags[0]}: goes with {flags[1]}; give both or none")
    if problems or endpoints is None:
        raise ConfigError(problems)

    def load() -> Credentials:
        now = dt.datetime.fromtimestamp(SystemClock().wall(), dt.UTC)
        return load_credentials(user=user or "", password_file=password, now=now, **files)

    return EtcdCoordinator(endpoints, RenewedCredentials(load))


def all_of(one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
    """Return both values, or raise the problems of both.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[str] = []
    first: T | None = None
    try:
        first = one()
    except ConfigError as exc:
        problems += exc.problems
    try:
        second = other()
    except ConfigError as exc:
        raise ConfigError([*problems, *exc.problems]) from exc
    if first is None:
        raise ConfigError(problems)
    return first, second
