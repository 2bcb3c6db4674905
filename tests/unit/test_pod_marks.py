"""What may be written over what a pod shows, decided without any server."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.kube.marks import COST, FOLLOWER, LEADER, ROLE, TERM, Marks, Pod, Verdict, judge, patch

UID = "u-1"
NEW = Pod(UID, "7")
LED = Pod(UID, "8", LEADER, 100, "1000")
FOLLOWED = Pod(UID, "9", FOLLOWER, 100)


@pytest.mark.parametrize(
    ("wanted", "found", "verdict"),
    [
        (Marks(FOLLOWER, 0), NEW, Verdict.WRITE),
        (Marks(LEADER, 100), NEW, Verdict.WRITE),
        (Marks(LEADER, 100), LED, Verdict.DONE),
        (Marks(LEADER, 101), LED, Verdict.WRITE),
        (Marks(LEADER, 99), LED, Verdict.OUTDATED),
        (Marks(LEADER, 99), FOLLOWED, Verdict.OUTDATED),
        (Marks(LEADER, 100), FOLLOWED, Verdict.WRITE),  # the same term goes on
        (Marks(FOLLOWER, 100), LED, Verdict.WRITE),
        (Marks(FOLLOWER, 0), LED, Verdict.WRITE),  # a predecessor's last word
        (Marks(FOLLOWER, 100), FOLLOWED, Verdict.DONE),
        (Marks(FOLLOWER, 0), FOLLOWED, Verdict.DONE),
        (Marks(FOLLOWER, 101), FOLLOWED, Verdict.WRITE),
        (Marks(FOLLOWER, 100), replace(FOLLOWED, cost="1000"), Verdict.WRITE),
        (Marks(LEADER, 100), replace(LED, cost=None), Verdict.WRITE),
        (Marks(LEADER, 101), replace(LED, uid="u-2"), Verdict.REPLACED),
        (Marks(FOLLOWER, 0), replace(NEW, uid="u-2"), Verdict.REPLACED),
    ],
)
def test_what_to_do(wanted: Marks, found: Pod, verdict: Verdict) -> None:
    assert judge(wanted, found, UID) is verdict


def test_after_a_token_reset_a_smaller_term_is_written() -> None:
    assert judge(Marks(LEADER, 99), LED, UID, may_shrink=True) is Verdict.WRITE
    body = patch(Marks(FOLLOWER, 99), LED, may_shrink=True)
    assert body["metadata"]["annotations"][TERM] == "99"
    assert judge(Marks(FOLLOWER, 0), FOLLOWED, UID, may_shrink=True) is Verdict.DONE


def test_a_patch_is_for_one_version_of_one_pod() -> None:
    assert patch(Marks(LEADER, 123), LED) == {
        "metadata": {
            "uid": UID,
            "resourceVersion": "8",
            "labels": {ROLE: LEADER},
            "annotations": {TERM: "123", COST: "1000"},
        }
    }


def test_a_follower_has_no_cost_and_never_a_smaller_term() -> None:
    annotations = patch(Marks(FOLLOWER, 99), LED)["metadata"]["annotations"]
    assert annotations == {TERM: "100", COST: None}
    assert patch(Marks(FOLLOWER, 0), NEW)["metadata"]["annotations"] == {TERM: None, COST: None}


def test_a_pod_is_read_with_and_without_labels() -> None:
    metadata: dict[str, Any] = {"uid": UID, "resourceVersion": "7"}
    assert Pod.read({"metadata": metadata}) == NEW
    metadata |= {"labels": {ROLE: LEADER}, "annotations": {TERM: "100", COST: "1000"}}
    assert Pod.read({"metadata": metadata | {"resourceVersion": "8"}}) == LED


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x10", "x", "9" * 20, "\u0663"])
def test_an_annotation_that_is_no_token_counts_as_none(text: str) -> None:
    metadata = {"uid": UID, "resourceVersion": "7", "annotations": {TERM: text}}
    assert Pod.read({"metadata": metadata}).term == 0


@pytest.mark.parametrize("document", [{}, {"metadata": None}, {"metadata": {"uid": "u"}}, []])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="no object"):
        Pod.read(document)
