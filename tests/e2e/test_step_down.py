"""The order of a planned step-down, from what was recorded; and who may do what with the status.

Beside each Master is a witness: a container of another user, which tells when it saw which status.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.records import term
from tests.e2e.support.release import SIDECAR, Leader, Release, Values, moment
from tests.support.procs import Child

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROGRAM, WITNESS_USER, SIDECARS_USER = 10001, 10002, 65532
DRAIN = 2  # seconds, so that there is something to see between the first step and the last
LINGER = 5.0  # seconds
RESOURCES = "http://demo:8081/resources"
FOLDER = Path(__file__).parent
INTRUDER = (FOLDER / "intruder_program.py").read_text()
WITNESS = {
    "name": "witness",
    "image": '{{ include "leader-sidecar.image" (list . .Values.image) }}',
    "imagePullPolicy": "{{ .Values.image.pullPolicy }}",
    "command": ["python", "-c", (FOLDER / "witness_program.py").read_text()],
    "securityContext": {
        "runAsUser": WITNESS_USER,
        "runAsGroup": WITNESS_USER,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [
        {"name": "leader-sidecar", "mountPath": "/run/leader-sidecar", "readOnly": True}
    ],
}
VALUES: Values = {
    "etcd": {"replicas": 1},
    "sidecar": {"drain": DRAIN, "logFormat": "json", "logLevel": "debug"},
    "master": {
        "securityContext": {"runAsUser": PROGRAM, "runAsGroup": PROGRAM},
        "extraContainers": [WITNESS],
    },
}


@dataclass(frozen=True, slots=True)
class Recording:
    """What was written down while it happened.

    Attributes:
        sidecar: the log of the sidecar of one pod.
        witness: what the witness of that pod told.
        pods: a line for each change of a pod, in the API server's order: its name and its role.
    """

    sidecar: Child
    witness: Child
    pods: Child


@contextmanager
def recording(release: Release, leader: Leader) -> Iterator[Recording]:
    """Write down what becomes of a leader's pod, and of the labels of all."""
    pod = leader.pod
    shown = r'{.metadata.name} {.metadata.labels.leader-sidecar\.io/role}{"\n"}'
    watch = ("get", "pods", "-l", release.selector(), "--watch", "-o", f"jsonpath={shown}")
    with ExitStack() as stack:

        def follow(*command: str, name: str) -> Child:
            return stack.enter_context(release.kubectl.child(*command, name=name))

        followed = Recording(
            follow("logs", "--follow", pod, "-c", SIDECAR, name="sidecar"),
            follow("logs", "--follow", pod, "-c", "witness", name="witness"),
            follow(*watch, name="pods"),
        )
        followed.pods.wait_for_line(f"^{pod} leader$")
        followed.witness.wait_for_line(f'"token": {leader.token}')
        yield followed


def documents(lines: list[str]) -> list[dict[str, Any]]:
    """Return the JSON among the lines of a log."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def said_at(lines: list[str], message: str) -> float:
    """Return when a sidecar has said this first, by its own log; seconds since 1970."""
    said = [line["ts"] for line in documents(lines) if line["msg"].startswith(message)]
    assert said, f"{message!r} is not in {lines}"
    return moment(said[0])


def began_at(lines: list[str], token: int) -> float:
    """Return when a witness has first seen a term; seconds since 1970."""
    return float(next(told["at"] for told in documents(lines) if told["token"] == token))


def ended_at(lines: list[str], token: int) -> float:
    """Return when a witness has first seen that a term is over; seconds since 1970."""
    told = documents(lines)
    began = next(n for n, line in enumerate(told) if line["token"] == token)
    return float(next(line["at"] for line in told[began:] if line["role"] == "follower"))


def log_of(release: Release, pod: str, container: str) -> list[str]:
    """Return the lines of a container's log."""
    return release.kubectl.run("logs", pod, "-c", container).splitlines()


def test_a_planned_change_tells_everybody_in_order_and_costs_no_request(release: Release) -> None:
    release.cluster.own_engine()  # all its nodes have one clock
    before = release.settled()
    address = release.kubectl.get("pod", before.pod)["status"]["podIP"]
    direct = f"http://{address}:8080/resources"
    with (
        load(release.kubectl, release.image, RESOURCES, 20) as requests,
        load(release.kubectl, release.image, direct, 20, name="to-old-pod") as to_old_pod,
        recording(release, before) as recorded,
    ):
        release.kubectl.run("delete", "pod", before.pod)
        after = release.changed_from(before)
        tally, old_tally = requests.goes_on(), to_old_pod.tally()
        recorded.sidecar.wait()
        recorded.witness.wait()
        recorded.pods.wait_for_line(f"^{after.pod} leader$")
    ended, begun = term(release, before.token), term(release, after.token)
    given_up = ended.record.until  # taken before the request was sent
    assert given_up is not None

    old_log, new_log = recorded.sidecar.lines(), log_of(release, after.pod, SIDECAR)
    assert ended_at(recorded.witness.lines(), before.token) < given_up - DRAIN / 2
    assert said_at(old_log, f"pod labelled role=follower term={before.token}") < given_up
    assert ended.ended_at < begun.began_at
    assert given_up < begun.record.since
    assert given_up < began_at(log_of(release, after.pod, "witness"), after.token)
    assert given_up < said_at(new_log, f"pod labelled role=leader term={after.token}")
    labels = recorded.pods.lines()
    assert labels.index(f"{before.pod} follower") < labels.index(f"{after.pod} leader")

    assert tally.failures == 0, str(tally)
    assert tally.longest_gap < DRAIN + 4, str(tally)
    # For a while the pod that is about to go leads to the next leader.
    assert old_tally.answered_at > given_up + LINGER / 2, str(old_tally)
    assert len(old_tally.served_by) == 2, str(old_tally)


@pytest.mark.parametrize(("container", "user"), [("master", PROGRAM), ("witness", WITNESS_USER)])
def test_another_user_reads_the_status_and_can_do_nothing_to_it(
    release: Release, container: str, user: int
) -> None:
    leader = release.settled()
    look = ("exec", leader.pod, "-c", container, "--", "python", "-c", INTRUDER)
    assert json.loads(release.kubectl.run(*look)) == {
        "user": user,
        "owner": SIDECARS_USER,
        "mode": "644",
        "role": "leader",
        "attempts": {
            "write another file": "EROFS",
            "write over it": "EACCES",
            "replace it": "EROFS",
            "remove it": "EROFS",
            "read the session": "EACCES",
            "have the sidecar retire": "EACCES",
        },
    }
    assert release.settled() == leader
