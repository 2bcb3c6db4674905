"""Who is woken by what the watches show, and what becomes of what they miss."""

from dataclasses import replace

from sidecar.operator.hub import Hub
from sidecar.operator.spec import Election
from tests.operator.things import election, following, leading, node, pod


class Clock:
    """Set by hand."""

    seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds


class Worker:
    """Notes what it is told."""

    def __init__(self, of: Election) -> None:
        self.election = of
        self.woken = 0
        self.has_ended = False
        self.can_follow = True

    def wake(self) -> None:
        self.woken += 1

    def update(self, of: Election) -> bool:
        if self.can_follow:
            self.election = of
        return self.can_follow

    def end(self) -> None:
        self.has_ended = True


def made() -> tuple[Hub, list[Worker]]:
    hired: list[Worker] = []

    def hire(of: Election) -> Worker:
        hired.append(Worker(of))
        return hired[-1]

    hub = Hub(hire, Clock(), together=0.5)
    hub.election_seen(election())
    return hub, hired


def test_a_pod_wakes_its_election_when_it_changes_and_not_when_its_version_does() -> None:
    hub, (worker,) = made()
    hub.pod_seen(following("m-0"))
    hub.pod_seen(pod("stranger", labels={"app": "other"}))
    assert worker.woken == 1
    hub.pod_seen(replace(following("m-0"), marks=replace(following("m-0").marks, version="99")))
    assert worker.woken == 1
    (kept,) = hub.pods_of(worker.election)
    assert kept.marks.version == "99"
    hub.pod_seen(leading("m-0", 10, resourceVersion="100"))
    assert worker.woken == 2
    hub.pod_gone(("shop", "m-0"))
    assert worker.woken == 3
    assert hub.pods_of(worker.election) == []


def test_a_pod_that_leaves_its_election_by_its_labels_wakes_it_too() -> None:
    hub, (worker,) = made()
    hub.pod_seen(following("m-0"))
    hub.pod_seen(following("m-0", labels={"app": "other"}))
    assert worker.woken == 2
    assert hub.pods_of(worker.election) == []


def test_a_pod_belongs_to_the_election_that_its_annotation_names() -> None:
    hub, (worker,) = made()
    hub.pod_seen(pod("m-0", annotations={"leader-sidecar.io/election": "other"}))
    hub.pod_seen(
        pod("web-0", labels={"app": "x"}, annotations={"leader-sidecar.io/election": "master"})
    )
    assert [p.name for p in hub.pods_of(worker.election)] == ["web-0"]


def test_the_end_of_a_pod_is_not_taken_for_that_of_its_successor() -> None:
    hub, (worker,) = made()
    successor = following("m-0", uid="another")
    hub.pod_seen(successor)
    hub.pod_gone(("shop", "m-0"), "uid-of-m-0")
    assert hub.pods_of(worker.election) == [successor]


def test_an_answer_that_comes_after_a_newer_event_changes_nothing() -> None:
    hub, (worker,) = made()
    hub.pod_seen(following("m-0", resourceVersion="9"))
    newer = leading("m-0", 10, resourceVersion="10")
    hub.pod_seen(newer)
    woken = worker.woken
    hub.pod_answered(following("m-0", resourceVersion="9"))
    assert hub.pods_of(worker.election) == [newer]
    assert worker.woken == woken
    hub.pod_answered(following("m-0", resourceVersion="11"))
    assert worker.woken == woken + 1
    # Versions that are no numbers say nothing: the last word is taken.
    hub.pod_seen(following("m-0", resourceVersion="b"))
    hub.pod_seen(newer)
    assert hub.pods_of(worker.election) == [newer]


def test_late_word_of_a_pod_does_not_replace_its_successor() -> None:
    hub, (worker,) = made()
    hub.pod_seen(leading("m-0", 10, resourceVersion="9"))
    successor = following("m-0", uid="another", resourceVersion="12")
    hub.pod_seen(successor)
    hub.pod_seen(leading("m-0", 10, resourceVersion="10"))
    hub.pod_gone(("shop", "m-0"), "uid-of-m-0")
    assert hub.pods_of(worker.election) == [successor]


def test_an_answer_does_not_bring_a_pod_back_that_is_gone() -> None:
    hub, (worker,) = made()
    hub.pod_seen(following("m-0", resourceVersion="9"))
    hub.pod_gone(("shop", "m-0"), "uid-of-m-0")
    hub.pod_answered(leading("m-0", 10, resourceVersion="10"))
    assert hub.pods_of(worker.election) == []


def test_late_word_of_an_election_does_not_replace_its_successor() -> None:
    hub, hired = made()
    hired[0].can_follow = False
    hub.election_seen(replace(election(), uid="another", version="12"))
    hub.election_seen(election())
    assert [w.election.uid for w in hired] == ["uid-of-election", "another"]


def test_a_version_that_a_worker_cannot_follow_gets_another_worker() -> None:
    hub, hired = made()
    hub.election_seen(election(paused=True))
    assert len(hired) == 1
    hired[0].can_follow = False
    hub.election_seen(election(election="/other"))
    assert [w.has_ended for w in hired] == [True, False]
    hub.election_gone(("shop", "master"), "another uid")
    assert len(hub) == 1
    hub.election_gone(("shop", "master"), "uid-of-election")
    assert (len(hub), hired[1].has_ended) == (0, True)


def test_a_cordon_wakes_every_election() -> None:
    hub, (worker,) = made()
    hub.node_seen(node("a"))
    hub.node_seen(node("a", zone="1"))
    assert worker.woken == 0
    hub.node_seen(node("a", is_closed=True))
    assert worker.woken == 1
    hub.node_gone("a")
    assert hub.nodes == {}


def test_cordons_are_waited_for_from_the_last_one_on() -> None:
    clock = Clock()
    hub = Hub(Worker, clock, together=0.5)
    for name in ("a", "b"):
        hub.node_seen(node(name))
    hub.node_seen(node("c", is_closed=True))  # was closed before we came
    assert hub.closing() == 0
    hub.node_seen(node("a", is_closed=True))
    clock.seconds += 0.25
    hub.node_seen(node("b", is_closed=True))
    hub.node_seen(node("a", is_closed=True, zone="1"))
    assert hub.closing() == 0.5
    clock.seconds += 0.5
    assert hub.closing() == 0
    hub.node_seen(node("b"))
    assert hub.closing() == 0


def test_what_was_deleted_unheard_is_forgotten() -> None:
    hub, (worker,) = made()
    hub.pod_seen(following("m-0"))
    hub.pod_seen(following("m-1"))
    assert hub.known() == {"uid-of-m-0", "uid-of-m-1", "uid-of-election"}
    hub.forget({"uid-of-m-0"})
    assert [p.name for p in hub.pods_of(worker.election)] == ["m-1"]
    hub.forget({"uid-of-election"})
    assert worker.has_ended


def test_watches_that_do_not_tell_of_the_same_object_twice_are_deaf() -> None:
    hub, _ = made()
    there = {"uid-of-m-0", "uid-of-election"}
    hub.pod_seen(following("m-0"))
    assert not hub.is_deaf(there)
    assert not hub.is_deaf({*there, "uid-of-m-1"})  # it may be on its way
    hub.pod_seen(following("m-1"))
    assert not hub.is_deaf({*there, "uid-of-m-1", "uid-of-m-2"})
    assert not hub.is_deaf({*there, "uid-of-m-1", "uid-of-m-3"})
    assert hub.is_deaf({*there, "uid-of-m-1", "uid-of-m-3"})
