"""What is read of an Election, and what is refused, whatever the definition of the kind lets by."""

import re
from typing import Any

import pytest

from sidecar.operator import sidecar_options
from sidecar.operator.spec import read_election, read_selector, read_span
from tests.operator.refused import BY_NAME, BY_SIDECAR, BY_SPEC, TAKEN
from tests.operator.things import document, election


def test_what_was_written_is_read() -> None:
    found = election(
        annotations={"leader-sidecar.io/handover-to": "master-2"},
        paused=False,
        preferred={"nodeSelector": {"matchLabels": {"zone": "a"}}},
        maxTermDuration="24h",
        maintenanceWindows=[{"days": ["Sat", "Sun"], "start": "02:30", "duration": "90m"}],
        service={"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    )
    assert found.key == ("shop", "master")
    assert (found.paused, found.handover_to, found.longest_term) == (False, "master-2", 86400.0)
    (window,) = found.windows
    assert (window.days, window.start, window.seconds) == (frozenset([5, 6]), 9000.0, 5400.0)
    assert found.service is not None
    assert (found.service.name, found.service.ports[0].target) == ("master-leader", 8080)
    assert found.preferred.nodes.matches({"zone": "a", "arch": "arm"})


def test_what_is_left_out_has_its_default() -> None:
    found = election()
    assert found.paused is None
    assert found.longest_term is None
    assert found.windows == ()
    assert found.service is None
    assert found.handover_to == ""


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"election": ""}, "spec.election"),
        ({"election": "/a//b"}, "spec.election"),
        ({"etcd": None}, "spec.etcd"),
        ({"etcd": {"endpoints": []}}, "spec.etcd.endpoints"),
        ({"etcd": {"endpoints": "http://a:1"}}, "spec.etcd.endpoints"),
        ({"maxTermDuration": "soon"}, "spec.maxTermDuration"),
        ({"maintenanceWindows": [{"start": "25:00", "duration": "1h"}]}, "Windows.start"),
        ({"maintenanceWindows": [{"start": "02:00", "duration": "1d"}]}, "Windows.duration"),
        (
            {"maintenanceWindows": [{"start": "02:00", "duration": "1h", "days": ["Mo"]}]},
            "Windows.days",
        ),
        ({"service": {"ports": [{"port": 80}]}}, "spec: KeyError.'name'"),
        ({"selector": {"matchExpressions": [{"operator": "Exists"}]}}, "spec: KeyError.'key'"),
        ({"preferred": {"podSelector": {"matchLabels": ["a"]}}}, "spec: AttributeError"),
    ],
)
def test_a_field_that_is_wrong_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_election(document(**wrong))


@pytest.mark.parametrize(("spec", "said"), BY_SPEC.values(), ids=list(BY_SPEC))
def test_what_the_kind_refuses_is_refused_in_the_same_words(
    spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read_election(document(**spec))


@pytest.mark.parametrize("name", BY_NAME)
def test_an_election_that_names_no_service_has_a_name_that_one_can_have(name: str) -> None:
    spec, said = BY_NAME[name]
    found = document(**spec)
    found["metadata"]["name"] = name
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read_election(found)
    found["metadata"]["name"] = "a" * 56
    assert read_election(found).service is not None
    found["metadata"]["name"] = name
    found["spec"]["service"]["name"] = "web"
    assert read_election(found).service is not None


@pytest.mark.parametrize(("sidecar", "said"), BY_SIDECAR.values(), ids=list(BY_SIDECAR))
def test_a_sidecar_that_would_not_start_is_refused_where_it_is_injected(
    sidecar: dict[str, Any], said: str
) -> None:
    found = election(sidecar=sidecar)  # everything else goes on
    with pytest.raises(ValueError, match=re.escape(said)):
        sidecar_options.check(found.sidecar)


def test_a_command_line_has_to_end() -> None:
    with pytest.raises(ValueError, match=r"^spec\.sidecar\.health\.exec: must be a command line"):
        sidecar_options.check({"health": {"exec": "sh -c 'true"}})


@pytest.mark.parametrize("spec", TAKEN.values(), ids=list(TAKEN))
def test_what_is_just_right_is_taken(spec: dict[str, Any]) -> None:
    sidecar_options.check(election(**spec).sidecar)


@pytest.mark.parametrize(
    ("expression", "labels", "matches"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, {"a": "2"}, True),
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, {}, False),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {"a": "2"}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, {"a": "1"}, False),
        ({"key": "a", "operator": "Exists"}, {"a": ""}, True),
        ({"key": "a", "operator": "Exists"}, {}, False),
        ({"key": "a", "operator": "DoesNotExist"}, {}, True),
        ({"key": "a", "operator": "DoesNotExist"}, {"a": ""}, False),
    ],
)
def test_expressions_mean_what_they_mean_in_kubernetes(
    expression: dict[str, object], labels: dict[str, str], matches: bool
) -> None:
    assert read_selector({"matchExpressions": [expression]}).matches(labels) is matches


def test_all_of_a_selector_has_to_match_and_an_empty_one_selects_nothing() -> None:
    both = read_selector(
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}
    )
    assert both.matches({"a": "1", "b": "x"})
    assert not both.matches({"a": "1"})
    assert not both.matches({"b": "x"})
    assert not read_selector({}).matches({"a": "1"})
    assert not read_selector(None).matches({})


def test_spans_have_units() -> None:
    assert [read_span(t, "x") for t in ("90", "500ms", "90s", "1.5m", "2h")] == [
        90,
        0.5,
        90,
        90,
        7200,
    ]
