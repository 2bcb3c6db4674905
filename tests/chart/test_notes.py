"""What Helm prints after an install: commands to see the leader, and warnings where they belong."""

import pytest

from tests.support.helm import CHART, run_helm


def notes(*choices: str) -> str:
    sets = [part for choice in choices for part in ("--set", choice)]
    done = run_helm("install", "demo", str(CHART), "-n", "shop", "--dry-run=client", *sets)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_notes_name_the_election_and_how_to_see_the_leader() -> None:
    told = notes()
    assert "3 replicas of demo stand in the election /leader-sidecar/shop/demo" in told
    assert "component=master -L leader-sidecar.io/role" in told
    assert "port-forward service/demo 4040" in told


def test_who_brings_permissions_of_their_own_is_told_which() -> None:
    told = notes(
        "rbac.create=false", "rbac.etcdServiceAccountName=members", "master.kind=StatefulSet"
    )
    assert (
        "members: get, patch pods; create events; get, patch statefulsets (apps) demo-etcd" in told
    )
    assert "default: get statefulsets (apps) demo; list, delete pods" in told
    assert "default: get, patch pods; create events\n" in told
    assert "No permissions" not in notes()


@pytest.mark.parametrize(
    ("choices", "warning"),
    [
        ((), "without TLS"),
        (("tls.mode=helm",), "(`helm template`, Argo CD, dry runs) it cannot look"),
        (("tls.mode=helm",), "Nothing renews them but another tls.rotate"),
        (("etcd.replicas=1",), "etcd has one member"),
        (("etcd.persistence.enabled=false",), "keeps its data in the pods"),
        (
            (
                "master.kind=StatefulSet",
                "master.rollout.strategy=RollingUpdate",
                "sidecar.readiness=leader",
            ),
            "only the leader becomes Ready",
        ),
    ],
)
def test_a_risky_choice_is_warned_of_and_no_other(choices: tuple[str, ...], warning: str) -> None:
    assert warning in notes(*choices)
    assert (warning in notes("tls.mode=certManager")) is False
