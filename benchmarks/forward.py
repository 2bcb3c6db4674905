"""The forwarder beside haproxy and beside no proxy at all, in turns.

Bulk is sent by `iperf3`, whose server is the C program at the other end; requests come from
`h2load` at a fixed rate, and are answered by `answerer.c`. What carries them in turns: nothing,
a leading sidecar with `--forward`, and `haproxy` in TCP mode, with one thread and with as many as
it takes by itself.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks import figures
from benchmarks.processes import BenchError, Sidecar
from benchmarks.setting import Outcome, Setting
from benchmarks.table import Row
from tests.support.procs import LOOPBACK, Child, ReservedPort, inherited_environment, wait_until

PACKAGES = {"haproxy": "haproxy", "h2load": "nghttp2-client", "iperf3": "iperf3", "cc": "gcc"}
_SOURCE = Path(__file__).with_name("answerer.c")
_RATE, _CLIENTS = 1000, 10
_SLOWER = 0.5  # milliseconds that a request may take longer than through haproxy
_CONNECTIONS = (1, 100)
_WITHIN = 60.0
DIRECT, OURS, ONE_THREAD, DEFAULT = "direct", "ours", "haproxy, 1 thread", "haproxy, as it is"
_WAYS = (DIRECT, OURS, ONE_THREAD, DEFAULT)
_CONFIG = """
global
  maxconn 4000
  {threads}
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen bulk
  bind 127.0.0.1:{bulk}
  server one 127.0.0.1:{bulk_server}
listen requests
  bind 127.0.0.1:{requests}
  server one 127.0.0.1:{requests_server}
"""

Ports = Mapping[str, int]


def run(setting: Setting) -> Outcome:
    """Measure throughput and the time of requests, each way in turn."""
    _install_what_is_missing()
    rounds = 1 if setting.quick else 5
    seconds = 1 if setting.quick else 2
    rates: dict[int, dict[str, list[list[float]]]] = {
        count: {way: [] for way in _WAYS} for count in _CONNECTIONS
    }
    times: dict[str, list[list[float]]] = {way: [] for way in _WAYS}
    with _ways(setting) as (bulk, requests):
        for order in figures.turns(_WAYS, rounds):
            for way in order:
                for count in _CONNECTIONS:
                    rates[count][way].append([_throughput(bulk[way], count, seconds)])
                log = setting.folder / setting.name("requests")
                times[way].append(_request_times(requests[way], seconds, log))
    rows = [row for count in _CONNECTIONS for row in _rate_rows(count, rates[count])]
    rows += _time_rows(times)
    data: dict[str, object] = {
        "units": {"rates": "Gbit/s", "times": "ms"},
        "rates": {str(count): found for count, found in rates.items()},
        "times": {way: asdict(figures.summarize(figures.pooled(times[way]))) for way in _WAYS},
        "p99_by_round": {way: [figures.quantile(one, 0.99) for one in times[way]] for way in _WAYS},
    }
    return Outcome(rows, data)


def _rate_rows(count: int, rates: Mapping[str, list[list[float]]]) -> Iterator[Row]:
    middle = {way: statistics.median(figures.pooled(rates[way])) for way in _WAYS}
    connections = "one connection" if count == 1 else f"{count} connections"
    for way in (ONE_THREAD, DEFAULT):
        compared = figures.ratio(rates[OURS], rates[way], 0.5)
        yield Row(
            f"forwarder, {connections}, beside {way} (direct: {middle[DIRECT]:.1f} Gbit/s)",
            f"{middle[OURS]:.1f} Gbit/s",
            f"{middle[way]:.1f} Gbit/s",
            str(compared),
            ">= 1.00",
            compared is not None and compared.median >= 1,
        )


def _time_rows(times: Mapping[str, list[list[float]]]) -> Iterator[Row]:
    p99 = {
        way: statistics.median(figures.quantile(one, 0.99) for one in times[way]) for way in _WAYS
    }
    for way in (ONE_THREAD, DEFAULT):
        yield Row(
            f"forwarder, p99 at {_RATE:,} requests/s, beside {way} (direct: {p99[DIRECT]:.2f} ms)",
            f"{p99[OURS]:.2f} ms",
            f"{p99[way]:.2f} ms",
            str(figures.ratio(times[OURS], times[way], 0.99)),
            f"<= {_SLOWER} ms more",
            p99[OURS] <= p99[way] + _SLOWER,
        )


def _install_what_is_missing() -> None:
    """Get the Debian packages of the programs that are not here.

    Raises:
        BenchError: that did not work; it says what to install.
    """
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    print(f"forward: installing what is missing: {' '.join(command)}", file=sys.stderr)
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if any(shutil.which(program) is None for program in PACKAGES):
        raise BenchError(f"needs these Debian packages: {' '.join(missing)}; install them")


@contextmanager
def _ways(setting: Setting) -> Iterator[tuple[Ports, Ports]]:
    """Run both servers and all that carries to them; yield the ports for bulk and for requests."""
    with ExitStack() as stack:
        bulk = {way: _port(stack) for way in _WAYS}
        requests = {way: _port(stack) for way in _WAYS}
        answerer = setting.folder / "answerer"
        _check(["cc", "-O2", "-o", str(answerer), str(_SOURCE)])
        _start(setting, stack, [str(answerer), str(requests[DIRECT])])
        _start(setting, stack, ["iperf3", "-s", "-B", LOOPBACK, "-p", str(bulk[DIRECT])])
        for way, threads in ((ONE_THREAD, "nbthread 1"), (DEFAULT, "")):
            config = setting.folder / setting.name("haproxy.cfg")
            config.write_text(
                _CONFIG.format(
                    threads=threads,
                    bulk=bulk[way],
                    bulk_server=bulk[DIRECT],
                    requests=requests[way],
                    requests_server=requests[DIRECT],
                )
            )
            _start(setting, stack, ["haproxy", "-db", "-f", str(config)])
        rules = [f"{LOOPBACK}:{ports[OURS]}={ports[DIRECT]}" for ports in (bulk, requests)]
        sidecar = Sidecar(
            setting.name("forward"),
            election=setting.name("/bench/forward"),
            endpoints=setting.endpoints,
            folder=setting.memory,
            options=[f"--forward={','.join(rules)}", "--forward-drain=0s", "--forward-linger=0s"],
        )
        stack.enter_context(sidecar)
        wait_until(lambda: sidecar.status().get("role") == "leader", "the sidecar leads", _WITHIN)
        for port in requests.values():
            wait_until(functools.partial(_answers, port), f"port {port} answers", _WITHIN)
        yield bulk, requests


def _port(stack: ExitStack) -> int:
    port = ReservedPort()
    stack.callback(port.close)
    return port.number


def _start(setting: Setting, stack: ExitStack, command: Sequence[str]) -> None:
    child = Child(command, name=setting.name("server"), folder=setting.folder)
    stack.callback(child.close)
    child.start()


def _answers(port: int) -> bool:
    command = ["h2load", "--h1", "-n1", "-c1", f"http://{LOOPBACK}:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN, check=False)
    return "1 succeeded" in done.stdout


def _throughput(port: int, connections: int, seconds: int) -> float:
    """Return Gbit/s as the receiver counts them."""
    command = ["iperf3", "-c", LOOPBACK, "-p", str(port), "-J", "-t", str(seconds)]
    said = json.loads(_check([*command, "-P", str(connections)]))
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def _request_times(port: int, seconds: int, log: Path) -> list[float]:
    """Return the milliseconds of each request; all must succeed."""
    command = ["h2load", "--h1", f"-c{_CLIENTS}", f"--rps={_RATE // _CLIENTS}", f"-D{seconds}"]
    command += ["--warm-up-time=1", f"--log-file={log}", f"http://{LOOPBACK}:{port}/"]
    _check(command)
    lines = [line.split() for line in log.read_text().splitlines()]
    if not lines or any(status != "200" for _, status, _ in lines):
        raise BenchError(f"requests to port {port} failed")
    return [int(microseconds) / 1e3 for _, _, microseconds in lines]


def _check(command: Sequence[str]) -> str:
    """Run a program to its end and return what it said.

    Raises:
        BenchError: it failed.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=inherited_environment(),
        timeout=_WITHIN,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} says {(done.stderr or done.stdout)[-500:].strip()}")
    return done.stdout
