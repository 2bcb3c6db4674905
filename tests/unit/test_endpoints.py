import re

import pytest

from sidecar.etcd.endpoints import Address, Endpoint, parse_endpoints, resolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a:2379", (Endpoint("a", 2379),)),
        ("http://a:2379,b:2380", (Endpoint("a", 2379), Endpoint("b", 2380))),
        ("https://a:1, b:2 ,", (Endpoint("a", 1, True), Endpoint("b", 2, True))),
        ("127.0.0.1:2379", (Endpoint("127.0.0.1", 2379),)),
        ("http://[::1]:2379/", (Endpoint("::1", 2379),)),
        ("http://a:1,http://a:1", (Endpoint("a", 1),)),
    ],
)
def test_endpoints_are_read_as_etcdctl_reads_them(
    text: str, expected: tuple[Endpoint, ...]
) -> None:
    assert parse_endpoints(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no endpoint is given"),
        ("http://a", "has no port; write it as http://a:2379"),
        ("http://::1", "has no port"),
        ("http://[::1]", "has no port"),
        ("a:b", "the port 'b'"),
        ("a:0", "from 1 to 65535"),
        ("a:65536", "from 1 to 65535"),
        ("ftp://a:1", "the scheme 'ftp'"),
        ("http://:2379", "names no host"),
        ("http://u@a:2379", "names no host"),
        ("http://a:1,https://b:2", "mixed"),
    ],
)
def test_an_endpoint_that_cannot_work_says_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_endpoints(text)


async def test_an_address_is_itself_and_a_name_may_be_several() -> None:
    six = Endpoint("::1", 2379)
    assert await resolve([six]) == (Address(six, "::1"),)
    named = await resolve([Endpoint("localhost", 2379)])
    assert {address.ip for address in named} & {"127.0.0.1", "::1"}
    assert await resolve([Endpoint("no-such-host.invalid", 1), Endpoint("a..b", 1)]) == ()


def test_an_address_shows_its_name_and_speaks_grpcs_notation() -> None:
    address = Address(Endpoint("etcd", 2379, is_secure=True), "10.0.0.7")
    assert str(address) == "https://etcd:2379 (10.0.0.7)"
    assert address.target == "ipv4:10.0.0.7:2379"
    assert address.authority == "etcd:2379"
    assert Address(Endpoint("::1", 1), "::1").target == "ipv6:[::1]:1"
