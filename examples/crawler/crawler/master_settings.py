"""What a Master is told by its options: checked as a whole, all problems told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sidecar.addresses import HostPort, parse_listen
from sidecar.errors import ConfigError
from sidecar.values import parse_directory, parse_duration

T = TypeVar("T")

_LEAST_TTL = 2.0


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """What a Master is told.

    Attributes:
        ttl: seconds; of the lease that keeps it in the registry.
        print_every: seconds between two lines that say who leads.
    """

    number: str
    http: HostPort
    grpc: HostPort
    status_dir: Path
    registry_prefix: str
    ttl: float
    print_every: float

    @classmethod
    def read(cls, given: Mapping[str, str]) -> MasterSettings:
        """Check the texts of the options, by their names.

        Raises:
            ConfigError: with all problems, each naming its option.
        """
        problems: list[str] = []

        def value(name: str, parse: Callable[[str], T], default: T) -> T:
            try:
                return parse(given[name])
            except ValueError as exc:
                problems.append(f"--{name}: {exc}")
                return default

        settings = cls(
            number=value("id", _parse_number, ""),
            http=value("http", parse_listen, HostPort("", 0)),
            grpc=value("grpc", parse_listen, HostPort("", 0)),
            status_dir=value("status-dir", parse_directory, Path()),
            registry_prefix=given["registry-prefix"],
            ttl=value("ttl", _parse_ttl, 0.0),
            print_every=value("print-leader-every", _parse_positive, 0.0),
        )
        if problems:
            raise ConfigError(problems)
        return settings


def _parse_number(text: str) -> str:
    if not (text.isascii() and text.isalnum()):
        raise ValueError(f"{text!r} is no Master's number; give digits or letters, such as 2")
    return text


def _parse_positive(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} is too short; give more than 0")
    return seconds


def _parse_ttl(text: str) -> float:
    ttl = parse_duration(text)
    if ttl < _LEAST_TTL:
        raise ValueError(f"{text!r} is too short for a lease; give {_LEAST_TTL:g}s or more")
    return ttl
