"""`make bench-kubernetes`: how soon Kubernetes knows of a new leader, after planned handovers.

Measured on the cluster of the end-to-end tests, from the moment since which the new leader leads by
its own word (`since` of its status) until another pod

* sees its label, by a watch of the pods, which is what anybody sees;
* has an answer of it through the Service `<release>-leader`, over a new connection;

and until the sidecar knows by the API server's answer that its pod is labelled, by its own log.

All nodes run on one kernel, so the clocks of all pods are one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import figures, keeping, machine
from benchmarks.running import run
from benchmarks.table import Row, as_text
from tests.e2e.support.cluster import Cluster, cluster
from tests.e2e.support.engine import UnfitMachineError
from tests.e2e.support.kubectl import names
from tests.e2e.support.programs import Running, running
from tests.e2e.support.release import SIDECAR, Release, moment, released
from tests.support.binaries import etcd_binaries
from tests.support.procs import wait_until

HANDOVERS = 30
OBSERVER = Path(__file__).with_name("kubernetes_observer.py")
_VALUES = machine.REPOSITORY / "tests" / "e2e" / "values.yaml"
_NAMESPACE = "bench-kubernetes"
_PAUSE = (0.5, 2.0)  # seconds; kube-proxy has a rhythm of a second, which must not be kept
_UNDISTURBED = 3.0  # seconds; who looks meanwhile takes the processor from what is measured
_WITHIN = 60.0
_LABEL, _SERVICE = 0.050, 1.5  # seconds that the median may take

_LABELLED = re.compile(r"pod labelled role=leader term=(\d+)")

Trial = dict[str, float]


@dataclass(frozen=True, slots=True)
class Moments:
    """A term's token, since when its leader leads, and when others saw it; seconds since 1970."""

    token: int
    elected: float
    labelled: float
    answered: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, keep the results; return the exit code."""
    options = _options(arguments)
    try:
        with cluster(_VALUES) as made:
            facts = _facts(made)
            trials = _measure(made, options.handovers)
    except UnfitMachineError as unfit:
        print(f"benchmarks: no cluster here: {unfit}", file=sys.stderr)
        return 1
    rows = rows_of(trials)
    print(as_text(rows))
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    path: Path | None = options.json
    if path is None and options.handovers >= HANDOVERS:
        path = keeping.place(facts, "kubernetes")
    if path is not None:
        keeping.keep(path, rows, facts, command="make bench-kubernetes", **_data(trials))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kubernetes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--handovers", type=int, default=HANDOVERS, metavar="N", help="how many")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write; else benchmarks/results/"
    )
    return parser.parse_args(arguments)


def _facts(made: Cluster) -> dict[str, str]:
    version = json.loads(made.kubectl.run("version", "-o", "json"))["serverVersion"]["gitVersion"]
    nodes = len(made.kubectl.get("nodes")["items"])
    where = {"kubernetes": version, "nodes": f"{nodes} of kind on this machine"}
    return machine.facts(etcd_binaries().etcd, None) | where


def _measure(made: Cluster, handovers: int) -> list[Trial]:
    logs = {"logFormat": "json", "logLevel": "debug"}
    release = Release(made, _NAMESPACE, values={"sidecar": logs})
    rng = random.Random()
    with released(made, _NAMESPACE, release), _observing(release) as observer:
        _trial(release, observer, _PAUSE[0])  # to warm up; not counted
        trials: list[Moments] = []
        for number in range(handovers):
            print(f"  handover {number + 1} of {handovers}", file=sys.stderr)
            trials.append(_trial(release, observer, rng.uniform(*_PAUSE)))
        patched = _patched(release)
        return [_seconds(trial, patched) for trial in trials]


@contextmanager
def _observing(release: Release) -> Iterator[Running]:
    """Have a pod look, which may watch pods."""
    named = {"name": "observer", "namespace": release.namespace}
    api = "rbac.authorization.k8s.io"
    release.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": named,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": named,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "observer"},
            "subjects": [{"kind": "ServiceAccount", **named}],
        },
    )
    what = (f"{release.name}-leader", release.selector(), release.election, release.endpoints)
    with running(
        release.kubectl, release.image, OBSERVER, *what, name="observer", account="observer"
    ) as observer:
        yield observer


def _trial(release: Release, observer: Running, pause: float) -> Moments:
    """Hand over once, after a pause; return the token and when each thing was seen."""
    before = release.settled()
    pods = names({"items": release.pods()})
    to = pods[(pods.index(before.pod) + 1) % len(pods)]  # each in turn, on its own node
    observer.told(f"/handover/{to}/{pause}")
    time.sleep(pause + _UNDISTURBED)
    after = release.changed_from(before)

    def seen() -> Moments | None:
        moments: dict[str, float] = observer.told().get(str(after.token), {})
        return Moments(after.token, **moments) if len(moments) == 3 else None

    return wait_until(seen, f"the observer has seen {after}", _WITHIN)


def _patched(release: Release) -> dict[int, float]:
    """Return when each term's leader had its pod labelled, by its log."""
    found = {}
    for pod in release.pods():
        told = release.kubectl.run("logs", pod["metadata"]["name"], "-c", SIDECAR)
        for said in (json.loads(line) for line in told.splitlines()):
            match = _LABELLED.fullmatch(said["msg"])
            if match:
                found[int(match[1])] = moment(said["ts"])
    return found


def _seconds(trial: Moments, patched: Mapping[int, float]) -> Trial:
    seen = {"labelled": trial.labelled, "answered": trial.answered}
    seen["patched"] = patched[trial.token]
    return {what: at - trial.elected for what, at in seen.items()}


def rows_of(trials: Sequence[Trial]) -> list[Row]:
    """Return the lines of the table for what was seen after handovers, in seconds."""
    rows = []
    for what, said, at_most in (
        ("patched", "own label, by the sidecar's log", _LABEL),
        ("labelled", "own label, in another pod's watch", _LABEL),
        ("answered", "`<release>-leader` answers another pod", _SERVICE),
    ):
        found = figures.summarize([trial[what] * 1e3 for trial in trials])
        rows.append(
            Row(
                f"on Kubernetes, elected -> {said}: p50, p90 and worst of {found.count}",
                f"{found.p50:.0f} / {found.p90:.0f} / {found.worst:.0f} ms",
                at_least=f"p50 <= {at_most * 1e3:g} ms",
                reached=found.p50 <= at_most * 1e3,
            )
        )
    return rows


def _data(trials: Sequence[Trial]) -> dict[str, object]:
    series = {what: [trial[what] * 1e3 for trial in trials] for what in trials[0]}
    summaries = {what: asdict(figures.summarize(values)) for what, values in series.items()}
    return {"unit": "ms", "summaries": summaries, "trials": series}


if __name__ == "__main__":
    run(main)
