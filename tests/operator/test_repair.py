"""Labels that disagree with etcd are put right, and a newer term is never written over."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.kube.marks import FOLLOWER, LEADER
from sidecar.operator.facts import Pod
from sidecar.operator.repair import GRACE, Patience, disagreements, untold
from sidecar.operator.view import View
from tests.operator.things import entry, following, leading, pod, queue, view


def wanted(view: View, *pods: Pod) -> list[tuple[str, str]]:
    return [(each.pod.name, each.wanted.role) for each in disagreements(view, pods)]


def test_labels_that_agree_are_left_alone() -> None:
    assert wanted(queue("m-0", "m-1"), leading("m-0", 10), following("m-1")) == []


def test_a_former_leader_is_told_to_follow_before_the_new_one_is_told_to_lead() -> None:
    pods = leading("m-1", 9), following("m-0")
    assert wanted(queue("m-0", "m-1"), *pods) == [("m-1", FOLLOWER), ("m-0", LEADER)]


def test_a_label_falsified_by_hand_is_put_right() -> None:
    pods = leading("m-0", 10), pod("m-1", role="leader", term=10), pod("m-2", role="boss")
    assert wanted(queue("m-0", "m-1", "m-2"), *pods) == [("m-1", FOLLOWER), ("m-2", FOLLOWER)]


def test_a_term_falsified_by_hand_is_put_right_where_etcd_knows_better() -> None:
    (found,) = disagreements(queue("m-0", revision=1000), [leading("m-0", 999)])
    assert found.patch["metadata"]["annotations"]["leader-sidecar.io/term"] == "10"


def test_a_term_beyond_what_we_have_seen_is_left_as_it_is() -> None:
    late = queue("m-0", "m-1", revision=1000)
    pods = [leading("m-1", 1001), following("m-0")]
    assert wanted(late, *pods) == [("m-0", LEADER)]
    assert [p.name for p in untold(late, pods)] == ["m-1"]


def test_a_leader_that_died_with_its_node_is_told_to_follow() -> None:
    # Its key has ended with its lease, and nothing is left in the queue.
    assert wanted(view(), leading("m-0", 10)) == [("m-0", FOLLOWER)]


def test_in_a_pause_nobody_is_shown_to_lead() -> None:
    paused = queue("m-0", "m-1", is_paused=True)
    assert wanted(paused, leading("m-0", 10), following("m-1")) == [("m-0", FOLLOWER)]


def test_pods_that_do_not_stand_and_show_nothing_are_none_of_our_business() -> None:
    assert wanted(queue("m-0"), leading("m-0", 10), pod("m-1"), following("m-2")) == []


def test_pods_whose_sidecar_may_not_write_are_labelled_from_the_start() -> None:
    ours = {"leader-sidecar.io/labelled-by": "operator"}
    pods = pod("m-0", annotations=ours), pod("m-1", annotations=ours)
    assert wanted(queue("m-0"), *pods) == [("m-1", FOLLOWER), ("m-0", LEADER)]


def test_a_candidate_is_known_by_its_address_where_its_id_is_no_pod() -> None:
    standing = view(entry("first", 10, address="10.0.0.2:9090"))
    assert wanted(standing, pod("m-1", role="follower")) == [("m-1", LEADER)]


def test_a_pod_made_anew_is_not_told_to_lead_by_its_predecessors_key() -> None:
    standing = view(entry("m-0", 10, address="10.0.0.1:9090"))
    anew = {"annotations": {"leader-sidecar.io/labelled-by": "operator"}, "address": "10.0.0.9"}
    assert wanted(standing, pod("m-0", **anew)) == [("m-0", FOLLOWER)]
    assert wanted(standing, following("m-0", address="10.0.0.9")) == []


def test_nothing_is_put_right_on_hearsay() -> None:
    pods = (leading("m-1", 9),)
    assert wanted(View(), *pods) == []
    assert wanted(queue("m-0", trouble="no answer"), *pods) == []


def test_a_patch_names_the_pod_and_the_version_it_was_decided_upon() -> None:
    (found,) = disagreements(queue("m-0"), [following("m-0")])
    assert found.patch["metadata"]["uid"] == "uid-of-m-0"
    assert found.patch["metadata"]["resourceVersion"] == "50"
    assert found.patch["metadata"]["labels"] == {"leader-sidecar.io/role": "leader"}


roles = st.sampled_from([None, "leader", "follower", "nonsense"])
terms = st.integers(0, 40)


@given(
    pods=st.lists(st.tuples(roles, terms, st.booleans()), max_size=5),
    standing=st.lists(st.integers(0, 4), unique=True, max_size=5),
    revision=st.integers(14, 30),
    paused=st.booleans(),
)
def test_whatever_is_shown_one_round_makes_it_true_and_a_second_changes_nothing(
    pods: list[tuple[str | None, int, bool]], standing: list[int], revision: int, paused: bool
) -> None:
    ours = {"leader-sidecar.io/labelled-by": "operator"}
    there = [
        pod(f"m-{n}", role=role, term=term, annotations=ours if is_ours else {})
        for n, (role, term, is_ours) in enumerate(pods)
    ]
    seen = queue(*(f"m-{n}" for n in standing), is_paused=paused, revision=revision)
    repaired = {each.pod.name: each for each in disagreements(seen, there)}
    assert not any(seen.is_older_than(each.pod.marks.term) for each in repaired.values())
    after = [
        _patched(each, repaired[each.name].patch) if each.name in repaired else each
        for each in there
    ]
    assert disagreements(seen, after) == []
    leaders = [p.name for p in after if p.marks.role == LEADER and p.marks.term <= revision]
    first = f"m-{standing[0]}" if standing and not paused else None
    assert leaders in ([], [first])


def _patched(before: Pod, patch: object) -> Pod:
    assert isinstance(patch, dict)
    metadata = patch["metadata"]
    annotations = dict(metadata["annotations"])
    if before.is_ours:
        annotations["leader-sidecar.io/labelled-by"] = "operator"
    return pod(
        before.name,
        role=metadata["labels"]["leader-sidecar.io/role"],
        term=annotations.pop("leader-sidecar.io/term"),
        cost=annotations.pop("controller.kubernetes.io/pod-deletion-cost"),
        annotations=annotations,
    )


def test_a_sidecar_has_a_moment_to_label_its_own_pod() -> None:
    patience = Patience()
    found = disagreements(queue("m-0"), [following("m-0")])
    assert patience.due(found, 0.0) == ([], GRACE)
    due, later = patience.due(found, GRACE)
    assert (due, later) == (found, None)


def test_what_has_been_right_meanwhile_has_its_moment_anew() -> None:
    patience = Patience()
    found = disagreements(queue("m-0"), [following("m-0")])
    patience.due(found, 5.0)
    patience.due([], 5.1)
    assert patience.due(found, 5.2)[0] == []


def test_an_injected_pod_is_labelled_at_once() -> None:
    ours = {"leader-sidecar.io/labelled-by": "operator"}
    found = disagreements(queue("m-0"), [pod("m-0", annotations=ours)])
    assert Patience().due(found, 5.0) == (found, None)
