"""What a crawler needs of a page: its title, and links to the same host. No I/O in here."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser

LINKS_PER_PAGE = 1000
_LONGEST_URL = 2000  # characters
_LONGEST_TITLE = 200
_NO_CHARSETS = {"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"}
"""Codecs of Python that turn bytes into text, but not the text of a page."""
_SCHEMES = ("http", "https")
_DEFAULT_PORTS = (None, 80, 443)


@dataclass(frozen=True, slots=True)
class Found:
    """What a page holds: its title, and links to the same host, each once, in their order."""

    title: str = ""
    links: tuple[str, ...] = ()


def decoded(body: bytes, charset: str | None) -> str:
    """Return a body as text; what is wrong in it, or no charset at all, is replaced."""
    try:
        name = codecs.lookup(charset or "utf-8").name.replace("-", "_")
        return body.decode("utf-8" if name in _NO_CHARSETS else name, errors="replace")
    except (LookupError, ValueError):  # no such charset, or one that is none of a text
        return body.decode(errors="replace")


def extract(html: str, url: str) -> Found:
    """Read a page that came from `url`; whatever is in it, nothing is raised."""
    tree = LexborHTMLParser(html)
    title = "".join(" ".join(heading.text().split()) for heading in tree.css("title")[:1])
    bases = [joined(url, base.attributes.get("href")) for base in tree.css("base[href]")[:1]]
    start = (bases or [url])[0] or url
    links: dict[str, None] = {}
    for anchor in tree.css("a[href], area[href]"):
        link = joined(start, anchor.attributes.get("href"))
        if link is not None and link != url and is_same_host(link, url):
            links[link] = None
        if len(links) == LINKS_PER_PAGE:
            break
    return Found(title[:_LONGEST_TITLE], tuple(links))


def is_same_host(one: str, other: str) -> bool:
    """Whether two URLs lead to one server: the same name and, beyond 80 and 443, port."""
    hosts = [_host(url) for url in (one, other)]
    return hosts[0] is not None and hosts[0] == hosts[1]


def is_fetchable(url: str) -> bool:
    """Whether a crawler can ask for this URL at all."""
    return len(url) <= _LONGEST_URL and url.isprintable() and _host(url) is not None


def joined(base: str, href: str | None) -> str | None:
    """Return where a reference in a page, or in a redirect, leads; None: nowhere for us."""
    if href is None or len(href) > _LONGEST_URL:
        return None
    try:
        link = urldefrag(urljoin(base, href.strip())).url
    except ValueError:
        return None
    return link if is_fetchable(link) else None


def _host(url: str) -> tuple[str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES or not parts.hostname or _has_user(parts):
        return None
    return parts.hostname, None if port in _DEFAULT_PORTS else port


def _has_user(parts: SplitResult) -> bool:
    """Whether a page tries to have us log in somewhere."""
    return "@" in parts.netloc
