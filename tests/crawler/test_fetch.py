"""One page from servers that behave, and from servers that do not."""

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from crawler.fetch import Fetched, Fetcher, Limits

from tests.crawler.site import Site, Visit, html, redirect
from tests.support.procs import LOOPBACK, free_port

SIZE = 1 << 20


async def no_wait() -> None:
    return


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


async def fetch(
    url: str,
    *,
    home: str | None = None,
    turn: Callable[[], Awaitable[None]] = no_wait,
    **limits: float,
) -> Fetched:
    async with Fetcher(Limits(**limits)) as fetcher:  # type: ignore[arg-type]  # by their names
        return await fetcher.fetch(url, home=home, turn=turn)


async def test_a_page_is_told_with_its_status_size_title_and_links(site: Site) -> None:
    site.pages["/"] = html(["/a", "http://other.test/"], title="Start")
    found = await fetch(f"{site.url}/")
    assert (found.page.status, found.page.title, found.page.error) == (200, "Start", "")
    assert found.page.size == len(
        b'<html><head><title>Start</title></head><body><a href="/a">x'
    ) + len(b'</a><a href="http://other.test/">x</a></body></html>')
    assert found.links == (f"{site.url}/a",)


async def test_links_of_an_error_page_are_not_followed(site: Site) -> None:
    def answer(visit: Visit) -> None:
        visit.head(500, {"Content-Type": "text/html"})
        visit.send(b'<a href="/a">x</a>')

    site.pages["/"] = answer
    found = await fetch(f"{site.url}/")
    assert (found.page.status, found.links) == (500, ())


async def test_an_endless_page_is_cut_at_the_limit(site: Site) -> None:
    sent, ended = 0, threading.Event()

    def answer(visit: Visit) -> None:
        nonlocal sent
        visit.head(200, {"Content-Type": "text/html"})
        while not visit.closing.is_set() and visit.send(b"x" * 65536):
            sent += 65536
        ended.set()

    site.pages["/"] = answer
    found = await fetch(f"{site.url}/", size=SIZE)
    assert found.page.error == f"larger than {SIZE} bytes"
    await asyncio.to_thread(ended.wait)
    assert sent < 40 * SIZE  # what buffers of the kernel take, and no more


async def test_a_page_that_unfolds_is_refused(site: Site) -> None:
    def answer(visit: Visit) -> None:
        assert visit.headers["Accept-Encoding"] == "identity"
        visit.head(200, {"Content-Type": "text/html", "Content-Encoding": "gzip"})
        visit.send(gzip.compress(bytes(50 * SIZE)))

    site.pages["/"] = answer
    found = await fetch(f"{site.url}/")
    assert found.page.error.startswith("compressed")


def dripping(visit: Visit) -> None:
    visit.head(200, {"Content-Type": "text/html"})
    while not visit.closing.wait(0.05) and visit.send(b"x"):
        pass


def silent(visit: Visit) -> None:
    visit.closing.wait()


async def test_a_page_that_drips_is_given_up(site: Site) -> None:
    site.pages["/"] = dripping
    found = await fetch(f"{site.url}/", seconds=0.5)
    assert (found.page.status, found.page.error) == (0, "not within 0.5 s")
    assert found.seconds >= 0.5


async def test_a_server_that_says_nothing_is_given_up(site: Site) -> None:
    site.pages["/"] = silent
    found = await fetch(f"{site.url}/", silence=0.2)
    assert "Timeout" in found.page.error


async def test_a_loop_of_redirects_ends(site: Site) -> None:
    site.pages |= {"/a": redirect("/b"), "/b": redirect("/a")}
    found = await fetch(f"{site.url}/a", redirects=5)
    assert found.page.error == "more than 5 redirects"
    assert len(site.visits) == 6


async def test_every_request_waits_for_its_turn(site: Site) -> None:
    turns: list[int] = []

    async def turn() -> None:
        turns.append(len(site.visits))

    site.pages |= {"/a": redirect("/b"), "/b": redirect("c"), "/c": html(title="C")}
    found = await fetch(f"{site.url}/a", turn=turn)
    assert (found.page.url, found.url, found.page.title) == (f"{site.url}/a", f"{site.url}/c", "C")
    assert turns == [0, 1, 2]


async def test_only_a_first_page_may_redirect_to_another_host(site: Site) -> None:
    with Site({"/": html(["/x", site.url], title="Elsewhere")}) as elsewhere:
        site.pages["/"] = redirect(f"{elsewhere.url}/")
        first = await fetch(f"{site.url}/")
        assert (first.page.title, first.links) == ("Elsewhere", (f"{elsewhere.url}/x",))
        later = await fetch(f"{site.url}/", home=site.url)
        assert later.page.error == "redirects to another host"
        assert elsewhere.count("/") == 1


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "http://[", "ftp://x/", "http://u:p@x/"]
)
async def test_a_redirect_to_what_is_no_page_is_not_followed(site: Site, target: str) -> None:
    site.pages["/"] = redirect(target)
    found = await fetch(f"{site.url}/")
    assert found.page.error == "redirects to what is no http(s) URL"


async def test_the_body_of_what_is_no_page_is_not_read(site: Site) -> None:
    def answer(visit: Visit) -> None:
        visit.head(200, {"Content-Type": "image/png", "Content-Length": "123456789"})
        visit.send(b'\x89PNG<a href="/a">')
        visit.closing.wait()

    site.pages["/"] = answer
    found = await fetch(f"{site.url}/", silence=30)
    assert (found.page.status, found.page.size, found.page.error) == (200, 123456789, "")
    assert found.links == ()


async def test_binary_that_calls_itself_a_page_breaks_nothing(site: Site) -> None:
    def answer(visit: Visit) -> None:
        visit.head(200, {"Content-Type": "text/html"})
        visit.send(bytes(range(256)) * 100)

    site.pages["/"] = answer
    found = await fetch(f"{site.url}/")
    assert (found.page.status, found.page.size) == (200, 25600)


async def test_no_cookie_goes_from_page_to_page(site: Site) -> None:
    seen: list[str | None] = []

    def answer(visit: Visit) -> None:
        seen.append(visit.headers.get("Cookie"))
        html(extra={"Set-Cookie": "a=b; Path=/"})(visit)

    site.pages["/"] = answer
    async with Fetcher() as fetcher:
        for _ in range(2):
            await fetcher.fetch(f"{site.url}/", home=None, turn=no_wait)
    assert seen == [None, None]


RAW = {
    "nothing": b"",
    "no http": b"220 mail.example.test ESMTP\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 99\r\n\r\nx",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "bad chunk": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_a_broken_answer_is_an_error_of_the_page(raw: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await fetch(f"http://{LOOPBACK}:{port}/")
    assert found.page.status == 0
    assert found.page.error


@pytest.mark.parametrize(
    "url", [f"http://{LOOPBACK}:PORT/", "http://" + "x" * 300 + "/", "http://a..b/", "x:y"]
)
async def test_a_url_that_leads_nowhere_is_an_error_of_the_page(url: str) -> None:
    found = await fetch(url.replace("PORT", str(free_port())))
    assert found.page.error
