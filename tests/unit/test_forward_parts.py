"""The pure parts of the forwarder: rules, routes, terms, the PROXY header."""

import ipaddress
import math
import struct
from dataclasses import replace

import pytest

from sidecar.addresses import HostPort, host_of
from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Role
from sidecar.forward.proxy_protocol import header
from sidecar.forward.routes import Route, Terms, route
from sidecar.forward.rules import Rule, clashes, parse_rule

OTHER = Leader("other", "10.0.0.8:9090", 7, "o")
ME = Leader("me", "10.0.0.7:9090", 8, "m")
FOLLOWER = ElectionState("/e", "me", leader=OTHER, link=Link.CONNECTED)
LEADING = replace(FOLLOWER, role=Role.LEADER, token=8, key="m", deadline=100.0, leader=ME)
STEPPED_DOWN = replace(
    LEADING, role=Role.FOLLOWER, token=0, key="", deadline=NEVER, kept_until=104.0
)
CUT_OFF = replace(FOLLOWER, leader=None, link=Link.SUSPENDED)


@pytest.mark.parametrize(
    ("text", "host", "port", "there"),
    [
        ("8080=9090", "", 8080, 9090),
        (":8080=9090", "", 8080, 9090),
        ("127.0.0.1:8080=9090", "127.0.0.1", 8080, 9090),
        ("[::1]:8080=9090", "::1", 8080, 9090),
        ("localhost:0=1", "localhost", 0, 1),
    ],
)
def test_a_rule(text: str, host: str, port: int, there: int) -> None:
    assert parse_rule(text) == Rule(HostPort(host, port), there)


@pytest.mark.parametrize(
    "text", ["", "8080", "8080=", "=9090", "a=b", "8080=0", "8080=65536", "8080=9090=1", "1=h:2"]
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="no pair of ports; write PORT=PORT"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["8080=9090", "8081=9090"], 0),
        (["8080=9090", "127.0.0.1:8080=9091"], 1),
        (["127.0.0.1:8080=1", "127.0.0.2:8080=2"], 0),
        (["0=9090", "0=9090"], 0),
        (["9090=9090"], 1),
        (["10.0.0.7:9090=9090"], 1),
        (["127.0.0.1:9090=9090", "localhost:9091=9091"], 0),
        (["8080=9090", "9090=8080"], 2),
    ],
)
def test_rules_that_would_loop_or_share_a_port_are_told(texts: list[str], count: int) -> None:
    assert len(clashes([parse_rule(text) for text in texts])) == count


def test_a_follower_goes_to_the_leaders_host() -> None:
    assert route(FOLLOWER, 50.0, "10.0.0.7") == Route(7, is_local=False, hosts=("10.0.0.8",))


@pytest.mark.parametrize(
    ("own", "hosts"),
    [
        ("10.0.0.7", ("127.0.0.1", "10.0.0.7")),
        ("fd00::7", ("::1", "fd00::7")),
        ("127.0.0.3", ("127.0.0.3",)),
        ("db.example", ("127.0.0.1", "db.example")),
    ],
)
def test_the_leader_goes_to_the_program_beside_it(own: str, hosts: tuple[str, ...]) -> None:
    assert route(LEADING, 99.9, own) == Route(8, is_local=True, hosts=hosts)


@pytest.mark.parametrize(
    ("state", "now"),
    [
        (LEADING, 100.0),
        (STEPPED_DOWN, 50.0),
        (CUT_OFF, 50.0),
        (replace(FOLLOWER, leader=None), 50.0),
        (replace(FOLLOWER, leader=replace(OTHER, address="what?")), 50.0),
    ],
)
def test_there_is_no_way_while_nobody_acts_or_none_that_is_known(
    state: ElectionState, now: float
) -> None:
    assert route(state, now, "10.0.0.7") is None


@pytest.mark.parametrize("stands", [True, False])
def test_a_candidate_elsewhere_with_the_same_id_is_another_one(*, stands: bool) -> None:
    twin = replace(OTHER, id="me")
    state = replace(FOLLOWER, leader=twin, is_duplicate=stands, is_registered=stands)
    assert route(state, 50.0, "10.0.0.7") == Route(7, is_local=False, hosts=("10.0.0.8",))


def test_an_own_key_that_a_lost_lease_has_left_behind_leads_nowhere() -> None:
    behind = replace(FOLLOWER, leader=replace(ME, token=5), is_duplicate=True)
    assert route(behind, 50.0, "10.0.0.7") is None


@pytest.mark.parametrize(
    ("address", "host"),
    [("a:1", "a"), ("a", "a"), ("[::1]:5", "::1"), ("", ""), ("a b", ""), ("a:x", "")],
)
def test_the_host_of_an_advertised_address(address: str, host: str) -> None:
    assert host_of(address) == host


def terms_with(state: ElectionState, now: float) -> Terms:
    terms = Terms(drain=2.0)
    way = route(state, now, "10.0.0.7")
    assert way is not None
    terms.open(way, state, now)
    return terms


def test_the_own_term_ends_with_its_deadline_unless_it_is_renewed() -> None:
    terms = terms_with(LEADING, 50.0)
    assert terms.next_end == 102.0
    terms.look(replace(LEADING, deadline=105.0), 60.0)
    assert (list(terms.ended(106.9)), terms.next_end) == ([], 107.0)
    (ended,) = terms.ended(107.0)
    assert ended.token == 8
    assert terms.next_end == math.inf


def test_a_planned_step_down_ends_the_term_when_the_key_is_given_up() -> None:
    terms = terms_with(LEADING, 50.0)
    terms.look(STEPPED_DOWN, 60.0)
    terms.look(replace(STEPPED_DOWN, kept_until=130.0), 86.0)  # renewed, in a long drain
    assert (list(terms.ended(131.9)), terms.next_end) == ([], 132.0)
    terms.look(FOLLOWER, 90.0)
    assert terms.next_end == 92.0


def test_a_key_that_was_asked_to_go_ends_the_term_also_while_it_still_shows() -> None:
    terms = terms_with(LEADING, 50.0)
    terms.look(STEPPED_DOWN, 60.0)
    terms.look(replace(STEPPED_DOWN, kept_until=NEVER), 70.0)
    assert terms.next_end == 72.0


def test_who_is_frozen_in_a_drain_keeps_nothing_beyond_what_is_certain_of_the_key() -> None:
    terms = terms_with(LEADING, 50.0)
    terms.look(STEPPED_DOWN, 60.0)
    (ended,) = terms.ended(106.0)  # asked before anything else, on waking
    assert ended.token == 8


def test_a_suspended_term_may_go_on() -> None:
    terms = terms_with(LEADING, 50.0)
    terms.look(CUT_OFF, 100.5)
    assert terms.next_end == 102.0  # it was over at its deadline, not when that was noticed
    terms.look(replace(LEADING, deadline=110.0), 101.0)
    assert terms.next_end == 112.0


def test_a_term_elsewhere_is_over_only_when_that_is_known() -> None:
    terms = terms_with(FOLLOWER, 50.0)
    terms.look(CUT_OFF, 60.0)
    assert terms.next_end == math.inf
    terms.look(replace(FOLLOWER, leader=replace(OTHER, token=9)), 70.0)
    terms.look(CUT_OFF, 71.0)
    assert terms.next_end == 72.0


def parsed(content: bytes) -> tuple[int, str, int, str, int]:
    """Read a header as the specification says."""
    assert content[:12] == b"\r\n\r\n\x00\r\nQUIT\n"
    version, family, size = struct.unpack_from("!BBH", content, 12)
    assert (version, len(content)) == (0x21, 16 + size)
    length = {0x11: 4, 0x21: 16}[family]
    source, server = content[16 : 16 + length], content[16 + length : 16 + 2 * length]
    ports = struct.unpack_from("!HH", content, 16 + 2 * length)
    host, there = (str(ipaddress.ip_address(each)) for each in (source, server))
    return family, host, ports[0], there, ports[1]


@pytest.mark.parametrize(
    ("client", "server", "told"),
    [
        (("10.0.0.1", 5), ("10.0.0.2", 80), (0x11, "10.0.0.1", 5, "10.0.0.2", 80)),
        (
            ("::ffff:10.0.0.1", 5, 0, 0),
            ("::ffff:10.0.0.2", 80, 0, 0),
            (0x11, "10.0.0.1", 5, "10.0.0.2", 80),
        ),
        (("fd00::1", 5, 0, 0), ("fd00::2", 80, 0, 0), (0x21, "fd00::1", 5, "fd00::2", 80)),
        (
            ("fe80::1%eth0", 5, 0, 2),
            ("::ffff:10.0.0.2", 80, 0, 0),
            (0x21, "fe80::1", 5, "::ffff:a00:2", 80),
        ),
    ],
)
def test_the_proxy_header_tells_both_ends(
    client: tuple[str, int], server: tuple[str, int], told: tuple[int, str, int, str, int]
) -> None:
    assert parsed(header(client, server)) == told
