"""What is done before a pod is evicted."""

from typing import Any

import pytest

from sidecar.operator.eviction import is_refused_anyway, move_before, read_eviction
from sidecar.operator.facts import Node
from sidecar.operator.moves import Scene
from sidecar.operator.view import View
from tests.operator.things import election, entry, following, node, pod, queue, view

PODS = (
    following("m-0", node="node-a"),
    following("m-1", node="node-a"),
    following("m-2", node="node-b"),
)


def before(name: str, seen: View | None = None, nodes: dict[str, Node] | None = None) -> str | None:
    """To whom the leader hands over before a pod is evicted."""
    scene = Scene(election(), seen or queue("m-0", "m-1", "m-2"), PODS, nodes)
    move = move_before(scene, next(p for p in PODS if p.name == name))
    return None if move is None else move.target.proposal.id


def test_a_leader_hands_over_to_another_node_before_it_is_evicted() -> None:
    assert before("m-0") == "m-2"


def test_where_there_is_no_other_node_the_same_one_will_do() -> None:
    assert before("m-0", queue("m-0", "m-1")) == "m-1"


def test_a_node_that_is_cordoned_is_no_target() -> None:
    nodes = {"node-a": node("node-a", is_closed=True), "node-b": node("node-b", is_closed=True)}
    assert before("m-0", nodes=nodes) is None


def test_a_follower_may_go_without_a_word() -> None:
    assert before("m-1") is None
    assert before("m-0", queue("m-1", "m-0")) is None


def test_nothing_is_asked_where_nobody_leads_or_another_program_does() -> None:
    assert before("m-0", queue("m-0", "m-1", is_paused=True)) is None
    assert before("m-0", view()) is None
    assert before("m-0", view(entry("m-0", 10, priority=None), entry("m-2", 11))) is None
    assert before("m-0", queue("m-0")) is None


def budget(allowed: int, selector: Any) -> dict[str, Any]:
    return {"spec": {"selector": selector}, "status": {"disruptionsAllowed": allowed}}


@pytest.mark.parametrize(
    ("budgets", "refused"),
    [
        ([], False),
        ([budget(0, {"matchLabels": {"app": "master"}})], True),
        ([budget(1, {"matchLabels": {"app": "master"}})], False),
        ([budget(0, {"matchLabels": {"app": "other"}})], False),
        ([budget(0, {})], True),
        ([budget(0, None)], False),
        ([budget(1, {}), budget(0, {"matchLabels": {"app": "master"}})], True),
    ],
)
def test_a_budget_that_allows_nothing_keeps_the_pod(budgets: Any, refused: bool) -> None:
    assert is_refused_anyway(pod("m-0"), budgets) is refused


@pytest.mark.parametrize(
    "asked",
    [
        {"dryRun": True},
        {"object": {"deleteOptions": {"dryRun": ["All"]}}},
    ],
)
def test_a_dry_run_is_one_however_it_is_said(asked: dict[str, Any]) -> None:
    found = read_eviction({"namespace": "shop", "name": "m-0", **asked})
    assert (found.namespace, found.name, found.is_dry_run) == ("shop", "m-0", True)
    assert not read_eviction({"namespace": "shop", "name": "m-0", "object": {}}).is_dry_run


def test_the_name_may_stand_in_the_eviction_alone() -> None:
    found = read_eviction({"namespace": "shop", "object": {"metadata": {"name": "m-0"}}})
    assert found.name == "m-0"
