"""Addresses as users write them, and the choice among this machine's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.addresses import (
    HostPort,
    HttpTarget,
    Interface,
    own_address,
    parse_advertised,
    parse_listen,
    parse_target,
    parse_url,
)

UP, LOOPBACK = 0x1, 0x8


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":4040", "", 4040),
        (":0", "", 0),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:65535", "::1", 65535),
        ("my-host.example:1", "my-host.example", 1),
    ],
)
def test_an_address_to_listen_on(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == HostPort(host, port)
    assert str(parse_listen(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "4040", "a", "a:", "::1:80", "[::1]", "[::1]x80", "[a]:80", "[]:80", "[::1:80"),
        *("a:65536", "a:-1", "a: 1", "a:\u0664", "a b:1", "1.2.3:4", "256.1.1.1:80", "-a:1"),
        *("a..b:1", "a:1\n", "a:000080"),
    ],
)
def test_what_is_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(ValueError, match="is no address to listen on; write HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize("text", [":80", "a:0", "a", "[::1]", ""])
def test_a_target_needs_a_host_and_a_real_port(text: str) -> None:
    with pytest.raises(ValueError, match="is no address to connect to; write HOST:PORT"):
        parse_target(text)


LONGEST = 63 * "a"  # of the parts of a name


@pytest.mark.parametrize(
    "text",
    [
        *("10.0.0.7", "10.0.0.7:9090", "::1", "[::1]", "[::1]:80", "a.b"),
        *(LONGEST, f"{LONGEST}.{LONGEST}.b:1"),
    ],
)
def test_an_advertised_address_is_kept_as_it_is(text: str) -> None:
    assert parse_advertised(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ":80", "http://a", "a/b", "a:0", "a\n", "[::1", "a:b:c"),
        *(f"{LONGEST}a", f"b.{LONGEST}a:1", f"{LONGEST}a.b"),
    ],
)
def test_an_advertised_address_has_a_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no address that others could reach"):
        parse_advertised(text)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a", HttpTarget(False, HostPort("a", 80), "a", "/")),
        ("https://a/b?c=d#e", HttpTarget(True, HostPort("a", 443), "a", "/b?c=d")),
        ("http://[::1]:81/", HttpTarget(False, HostPort("::1", 81), "[::1]:81", "/")),
        ("HTTP://localhost:1/x", HttpTarget(False, HostPort("localhost", 1), "localhost:1", "/x")),
    ],
)
def test_a_url_to_probe(url: str, target: HttpTarget) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "a:80",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:x",
        "http://a:99999",
        "http://é",
        "http://u:p@a",
        "http://a/ b",
        "http://a/\r\nX: y",
        "http://a/\r\nX",
        "http://a/\x7f",
        "http://[::1",
        "http:///x",
        "http://a b",
    ],
)
def test_what_is_no_url_to_probe(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL to probe"):
        parse_url(url)


@given(st.text() | st.text("htps:/[]a1.@?#%\r\n ").map(lambda rest: f"http://{rest}"))
def test_whatever_is_accepted_as_a_url_makes_one_clean_request_line(text: str) -> None:
    try:
        target = parse_url(text)
    except ValueError:
        return
    assert target.path.startswith("/")
    assert target.where.host
    sent = f"{target.path}{target.authority}"
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent


def test_the_own_address_is_the_first_that_others_may_reach() -> None:
    interfaces = [
        Interface("lo", UP | LOOPBACK, "10.9.9.9"),
        Interface("down0", 0, "10.1.1.1"),
        Interface("eth0", UP, "127.0.0.2"),
        Interface("eth1", UP, "169.254.1.1"),
        Interface("eth2", UP, "0.0.0.0"),  # noqa: S104 - nothing is bound
        Interface("eth3", UP, "10.2.2.2"),
        Interface("eth4", UP, "10.3.3.3"),
    ]
    assert own_address(interfaces) == "10.2.2.2"
    assert own_address(interfaces[:5]) is None
